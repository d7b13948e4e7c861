"""Ask what a prior is worth when validation chooses the weights of a score's parts; print one JSON line a seed.

    python benchmarks/part_weights.py --data DIR [--only lastfm,ml-100k] [--seeds 2] [--halves 40] [--set KEY=VALUE]...

The users of validation are halved at random, again and again: weights chosen on one half are judged on the other, once
as the best of the grid, once as the chain chooses them. The test part is never looked at.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import torch
from real_data import CONFIGS, ROOT
from safetensors.torch import load_file
from torch import Tensor

from feature_store.catalog import VIEWS
from kgrec import columns as c
from kgrec.chain.blocks import Pool, neighbour_matrices
from kgrec.chain.context import Run
from kgrec.chain.questions import Judge
from kgrec.chain.tuning import Teacher, read_tuned
from kgrec.chain.weighing import chosen_weights
from kgrec.config import TaskName, load_config
from kgrec.evaluation.graph_kernel import log_popularity
from kgrec.model.blocks import BlockWeights
from kgrec.stages import run_chain
from kgrec.workspace import Workspace


def pool_of(run: Run) -> Pool:
    """Train and return validation's candidates with each part's score."""
    trained = run_chain(run, until="train")
    store, config = run.workspace.store, run.config
    log, graph, tuned = (store.with_digest(kind, trained.inputs[kind]) for kind in ("split", "graph", "baselines"))
    judge = Judge(config.evaluation, log, None, graph, (TaskName.CLICK,))
    teacher = Teacher(config, log, graph, read_tuned(tuned))
    matrices, _ = neighbour_matrices(teacher, config.blocks, with_graph=True)
    vectors = load_file(trained.file("vectors.safetensors"))
    width = int(vectors.pop("block_widths")[0])  # without popularity's dimension
    for name in ("user_vectors_UD", "item_vectors_ID"):
        vectors[name] = vectors[name][:, :width].contiguous()
    question = judge.question(c.VALIDATION)
    known = question.history  # at validation: the train events
    popularity_I = log_popularity(torch.bincount(known.indices, minlength=known.num_columns).float())
    return Pool(judge, vectors, matrices, popularity_I, question, len(question.users_B))


def doublings(one: BlockWeights, other: BlockWeights) -> float:
    """Return by how many doublings the weights of two choices differ, the sum over parts (below .05: as .05)."""
    pairs = zip(one.as_tensor().clamp(min=0.05).log2(), other.as_tensor().clamp(min=0.05).log2(), strict=True)
    return float(sum(abs(a - b) for a, b in pairs))


def judged(pool: Pool, grids: dict[str, tuple[float, ...]], k: int, halves: int) -> dict[str, Any]:
    """Return the mean figure on the half that did not choose, of the grid's best and of the chain's choice."""
    settings = [dict(zip(grids, values, strict=True)) for values in product(*grids.values())]
    known = {BlockWeights(**setting): pool.each_ndcg(BlockWeights(**setting), k) for setting in settings}
    table_SB, spread = torch.stack(list(known.values())), pool.spread()
    gains, plain = [], []
    apart: dict[str, list[float]] = {"best": [], "chosen": []}
    for half in range(halves):
        order_B = torch.randperm(table_SB.shape[1], generator=torch.Generator().manual_seed(half))
        found: dict[str, list[BlockWeights]] = {"best": [], "chosen": []}
        both = order_B.tensor_split(2)
        for chooses_B, judges_B in (both, both[::-1]):

            def figures(weights: BlockWeights, rows_B: Tensor = chooses_B) -> Tensor:
                return (known[weights] if weights in known else pool.each_ndcg(weights, k))[rows_B]

            found["best"].append(list(known)[int(table_SB[:, chooses_B].mean(1).argmax())])
            found["chosen"].append(chosen_weights(grids, figures, spread))
            plain.append(float(figures(found["best"][-1], judges_B).mean()))
            gains.append(float(figures(found["chosen"][-1], judges_B).mean()) - plain[-1])
        for name, (one, other) in found.items():
            apart[name].append(doublings(one, other))
    gain_H = torch.tensor(gains)
    return {
        "best_of_the_grid": round(sum(plain) / len(plain), 5), "gain_of_the_chosen": round(float(gain_H.mean()), 5),
        "standard_error_over_halves": round(float(gain_H.std()) / len(gains) ** 0.5, 5),
        "better_in": round(float((gain_H > 0).double().mean()), 3),
        "worse_in": round(float((gain_H < 0).double().mean()), 3),
        "doublings_between_halves": {name: round(sum(values) / halves, 2) for name, values in apart.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--only", default="lastfm,ml-100k")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--halves", type=int, default=40)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, seed in product(arguments.only.split(","), range(7, 7 + arguments.seeds)):
            path = ROOT / "configs" / "ml-100k.toml"
            if name in CONFIGS:
                path = Path(folder) / f"{name}.toml"
                path.write_text(CONFIGS[name].format(data=arguments.data.resolve()))
            config = load_config(path, [*arguments.overrides, f"seed={seed}"])
            run = Run(config, Workspace(Path(folder) / "workspace"), VIEWS)
            blocks = config.config.blocks
            grids = {
                "linear": blocks.linear,
                "kernel": blocks.kernel,
                "popularity": blocks.popularity,
                "repeat": (0.0,),
            }
            pool = pool_of(run)
            found = judged(pool, grids, config.config.evaluation.k[0], arguments.halves)
            print(json.dumps({"dataset": name, "seed": seed, "users": len(pool.relevant_B), **found}), flush=True)


if __name__ == "__main__":
    main()
