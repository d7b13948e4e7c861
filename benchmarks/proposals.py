"""Missing links on MovieLens-100k: found again, trusted, and worth something? Prints one JSON object.

    python benchmarks/proposals.py [--epochs 4] [--most 1000]

A tenth of the unordered pairs of the graph's nodes is taken out of the data, whatever relations and directions join
them, so that no inverse gives one away. The chain of configs/ml-100k.toml, one setting a baseline, runs on the rest
(another tenth held out for choosing and for the confidence) and is asked: the filtered rank of the tails and heads of
what was taken out; its most confident proposals, how many of them were among what was taken out, and what the
confidence had promised. Then a person who knows the truth accepts those that are, the chain runs again with them, and
the test users' NDCG@10 of both runs are compared in pairs. As a control, all that was taken out is accepted, whether
proposed or not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.answers import MODEL
from kgrec.chain.completing import is_among, propose_links
from kgrec.chain.context import Run
from kgrec.chain.judge import PER_USER
from kgrec.chain.learn import load_network
from kgrec.config import load_config
from kgrec.data.datasets import get_dataset
from kgrec.data.vocabulary import Vocabulary
from kgrec.evaluation.link_prediction import link_metrics
from kgrec.evaluation.significance import mean_of, randomisation_test
from kgrec.graph.completion import precision
from kgrec.graph.review import CONFIDENCE
from kgrec.serving.package import RELATIONS
from kgrec.stages import run_chain
from kgrec.workspace import Workspace

CONFIG = Path(__file__).parents[1] / "configs" / "ml-100k.toml"
QUICKER = (
    "knowledge.validation=0.1", "knowledge.test=0.0",
    "baselines.neighbours=[100]", "baselines.shrinkage=[10.0]", "baselines.ease_lambda=[300.0]",
    "baselines.ials_regularisation=[10.0]", "baselines.ials_alpha=[1.0]", "baselines.filter_exponents=[0.5]",
    "baselines.half_lives=[0.0]", "baselines.hub_exponents=[0.5]", "baselines.kernel_popularity=[0.1]",
)  # fmt: skip


def parted(triples: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the triples that stay and those whose pair of nodes goes."""
    low, high = pl.min_horizontal("head", "tail").alias("low"), pl.max_horizontal("head", "tail").alias("high")
    pairs = triples.select(low, high).unique(maintain_order=True)
    gone = pairs.filter(pl.Series(np.random.default_rng(seed).random(pairs.height) < 0.1))
    both = triples.with_columns(low, high)
    return tuple(both.join(gone, on=["low", "high"], how=how).drop("low", "high") for how in ("anti", "semi"))  # type: ignore[return-value]


def chain(
    folder: Path, name: str, triples: pl.DataFrame, overrides: list[str]
) -> tuple[Workspace, dict[str, Artifact]]:
    path, workspace = folder / f"{name}.tsv", Workspace(folder / name)
    triples.write_csv(path, separator="\t")
    made: dict[str, Artifact] = {}

    def call(stage: str, function: Any, *arguments: Any) -> Any:
        made[stage] = function(*arguments)
        return made[stage]

    with workspace.hold("proposals"):
        loaded = load_config(CONFIG, [f'knowledge.triples=["{path}"]', *overrides])
        run_chain(Run(loaded, workspace), call, until="evaluate")
    return workspace, made


def in_rows(triples: pl.DataFrame, graph: Artifact, links: dict[str, str]) -> torch.Tensor:
    """The triples as rows of a built graph, those whose ends it knows."""
    nodes = pl.read_parquet(graph.file("nodes.parquet"))[c.ID].to_list()
    items = int(graph.facts["items"])
    row = {links.get(name, name) if at < items else name: at for at, name in enumerate(nodes)}
    relation = {name: at for at, name in enumerate(Vocabulary.load(graph.file(RELATIONS)).entries)}
    found = [(row[h], relation[r], row[t]) for h, r, t in triples.rows() if h in row and t in row and r in relation]
    return torch.tensor(found, dtype=torch.int64).reshape(-1, 3)


def ndcg(evaluated: Artifact) -> pl.DataFrame:
    table = pl.read_parquet(evaluated.file(PER_USER))
    own = (pl.col(c.GROUP) == "ranking") & (pl.col(c.SYSTEM) == MODEL)
    return table.filter(own).select(c.USER_ROW, "ndcg@10").sort(c.USER_ROW)


def compared(first: Artifact, second: Artifact) -> dict[str, float]:
    both = ndcg(first).join(ndcg(second), on=c.USER_ROW, suffix="_then")
    before, then = (both[name].to_numpy() for name in ("ndcg@10", "ndcg@10_then"))
    (p,) = randomisation_test([mean_of(then) - mean_of(before)], np.random.default_rng(7))
    return {"users": both.height, "without": round(float(before.mean()), 5), "with": round(float(then.mean()), 5),
            "p": round(p, 4)}  # fmt: skip


def _so_far(found: dict[str, Any]) -> None:
    print(json.dumps(found), file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--most", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    data = get_dataset("ml-100k", lambda _: None)
    whole = pl.read_csv(data / "triples.tsv", separator="\t", infer_schema=False)
    links = dict(
        pl.read_csv(data / "item_entity.tsv", separator="\t", infer_schema=False).select("item", "entity").rows()
    )
    stays, gone = parted(whole, arguments.seed)
    overrides = [*QUICKER, f"training.epochs={arguments.epochs}", f"seed={arguments.seed}"]
    with tempfile.TemporaryDirectory() as spare:
        folder = Path(spare)
        workspace, made = chain(folder, "without", stays, overrides)
        graph, (network, _) = made["graph"], load_network(made["train"])
        taken_T3 = in_rows(gone, graph, links)
        rows = pl.read_parquet(graph.file("triples.parquet")).select(c.HEAD_ROW, c.RELATION_ROW, c.TAIL_ROW)
        known_K3 = torch.tensor(rows.to_numpy().astype(np.int64))
        found: dict[str, Any] = {"epochs": arguments.epochs, "triples": whole.height, "taken_out": gone.height}
        with torch.no_grad():
            found["link"] = link_metrics(network.score_tails, network.score_heads, taken_T3,
                                         torch.cat([taken_T3, known_K3]), int(graph.facts["entities"]))  # fmt: skip
        _so_far(found)
        proposed = propose_links(workspace, arguments.most)
        table = proposed.proposals.select(
            pl.col(c.HEAD).replace(links), c.RELATION, pl.col(c.TAIL).replace(links), CONFIDENCE
        )
        is_true = is_among(in_rows(table.drop(CONFIDENCE), graph, links), taken_T3)
        found["proposals"] = {"of_all": table.height, "facts": proposed.facts} | {
            f"best_{most}": precision(table[CONFIDENCE].to_numpy(), is_true, most) for most in (50, 200, arguments.most)
        }
        _so_far(found)
        accepted = table.filter(pl.Series(is_true.numpy())).select(stays.columns)
        for name, more in (("accepted", accepted), ("all_taken_out", gone)):
            _, again = chain(folder, name, pl.concat([stays, more.select(stays.columns)]), overrides)
            found[f"ranking_{name}"] = {"links": more.height} | compared(made["evaluate"], again["evaluate"])
            _so_far(found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
