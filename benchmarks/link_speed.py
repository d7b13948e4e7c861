"""Measure link prediction on FB15k-237 and print one JSON line: scored triples a second, filtered evaluation's seconds.

    python benchmarks/link_speed.py --data DIR [--steps 30] [--threads 0] [--eval-triples 0] [--pykeen PYTHON]

DIR holds kg_fb15k237 with triples.parquet. Training: whole steps (batch, loss, gradients, optimiser). Sampled: 128
dimensions, a batch of 4096 triples and 64 negatives that the batch shares, so a step scores 4096 * 65 triples.
One-vs-all: 200 dimensions, both directions, Adagrad, N3. A query with many answers is scored once there:
`scored_per_second` counts what was computed (queries * entities), `answers_per_second` times entities is what a loss
over triples one by one would have scored for the same gradient. Evaluation: untrained, 200 dimensions, heads and tails,
filtered, realistic ranks. `cpu` figures divide by processor seconds instead of wall seconds, for a busy machine; they
mean something with --threads 1 alone, as a thread that waits for another may spend processor seconds on it.
--pykeen: the interpreter of an environment with PyKEEN, which then does the same work right after ours; "times" has the
ratios.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import torch

from kgrec.evaluation.link_prediction import link_metrics
from kgrec.model.embeddings import NetworkShape
from kgrec.model.kg_scorers import ScorerName
from kgrec.model.network import Network, NetworkConfig
from kgrec.model.propagation import GraphEdges
from kgrec.training.link_task import LinkTask
from kgrec.training.reproducible import reproducible
from kgrec.training.tasks import TaskConfig, TrainingData, make_network
from kgrec.training.trainer import TrainingConfig

SAMPLED = (ScorerName.TRANSE, ScorerName.COMPLEX, ScorerName.ROTATE)
SAMPLED_DIMENSIONS, FULL_DIMENSIONS, NEGATIVES, BATCH = 128, 200, 64, 4096


def triples_of(folder: Path) -> tuple[NetworkShape, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the shape, all triples in rows, and those of train and of test."""
    table = pl.read_parquet(folder / "kg_fb15k237" / "triples.parquet")
    entities = pl.concat([table["head"], table["tail"]]).unique().sort()
    relations = table["relation"].unique().sort()
    rows = [
        table.select(pl.col(name).replace_strict(names, range(len(names))).cast(pl.Int64)).to_torch()
        for name, names in (("head", entities), ("relation", relations), ("tail", entities))
    ]
    all_T3 = torch.cat(rows, dim=1)
    part = table["split"].to_numpy()
    shape = NetworkShape(num_users=0, num_items=0, num_entities=len(entities), num_relations=len(relations))
    return shape, all_T3, all_T3[torch.tensor(part == "train")], all_T3[torch.tensor(part == "test")]


def timed(work: Callable[[], int]) -> dict[str, float]:
    """Return what `work` counted, and the wall and processor seconds it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    count = work()
    return {"count": count, "seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def train_steps(
    network: Network, task: LinkTask, optimiser: torch.optim.Optimizer, batch_size: int, steps: int, full: bool
) -> dict[str, Any]:
    batches = task.batches(torch.Generator().manual_seed(1), -(-task.rows // batch_size))
    entities, answers = network.shape.num_entities, 0

    def run(count: int) -> int:
        nonlocal answers
        scored, answers = 0, 0
        for _ in range(count):
            batch = next(batches)
            optimiser.zero_grad(set_to_none=True)
            task.losses(network, network.encode(), batch)["link"].backward()
            optimiser.step()
            queries = len(torch.unique(task.queries_T3[batch[0], :2], dim=0)) if full else len(batch[0])
            scored += queries * (entities if full else 1 + NEGATIVES)
            answers += len(batch[0])
        return scored

    run(3)
    figures = timed(lambda: run(steps))
    wall, cpu = figures["seconds"], figures["cpu_seconds"]
    found = {"scored_per_second": figures["count"] / wall, "scored_per_cpu_second": figures["count"] / cpu,
             "step_seconds": wall / steps, "step_cpu_seconds": cpu / steps}  # fmt: skip
    if full:
        found |= {"answers_per_second": answers / wall, "answers_times_entities_per_second": answers * entities / wall,
                  "answers_times_entities_per_cpu_second": answers * entities / cpu}  # fmt: skip
    return found


def sampled(scorer: ScorerName, shape: NetworkShape, train_T3: torch.Tensor, steps: int) -> dict[str, Any]:
    network = network_of(scorer, SAMPLED_DIMENSIONS, shape, train_T3)
    loss = "sampled" if scorer is ScorerName.COMPLEX else "self_adversarial"
    task = LinkTask(train_T3, shape, TaskConfig(link_loss=loss, sampled_entities=NEGATIVES, n3=0.0))
    optimiser = torch.optim.AdamW(network.parameters(), lr=TrainingConfig().learning_rate, fused=True)
    return {"loss": loss, **train_steps(network, task, optimiser, BATCH, steps, full=False)}


def one_vs_all(precision: str, shape: NetworkShape, train_T3: torch.Tensor, steps: int) -> dict[str, Any]:
    network = network_of(ScorerName.COMPLEX, FULL_DIMENSIONS, shape, train_T3)
    task = LinkTask(train_T3, shape, TaskConfig(link_loss="one_vs_all", link_precision=precision, n3=0.05))
    optimiser = torch.optim.Adagrad(network.parameters(), lr=0.1, fused=True)
    return train_steps(network, task, optimiser, 1000, steps, full=True)


def network_of(scorer: ScorerName, dimensions: int, shape: NetworkShape, train_T3: torch.Tensor) -> Network:
    config = NetworkConfig(dimensions=dimensions, scorer=scorer)
    return make_network(shape, config, TrainingData(GraphEdges.empty(), triples_T3=train_T3), seed=7)


def evaluation(
    scorer: ScorerName, shape: NetworkShape, train_T3: torch.Tensor, known_K3: torch.Tensor, asked_T3: torch.Tensor
) -> dict[str, Any]:
    network = network_of(scorer, FULL_DIMENSIONS, shape, train_T3).eval()
    with torch.no_grad():
        figures = timed(
            lambda: int(link_metrics(network.score_tails, network.score_heads, asked_T3, known_K3, shape.num_entities)[
                "num_triples"
            ])
        )  # fmt: skip
    return {"triples": figures["count"], "seconds": figures["seconds"], "cpu_seconds": figures["cpu_seconds"]}


def beside(python: str, triples: Path, ours: dict[str, Any], num_test: int) -> dict[str, Any]:
    """Return what PyKEEN needs for the same work, and how many times quicker ours was."""
    script = Path(__file__).with_name("link_speed_pykeen.py")
    told = subprocess.run([python, script, triples, "--threads", str(ours["threads"])],
                          check=True, capture_output=True, text=True).stdout  # fmt: skip
    peer = {case.pop("case"): case for case in map(json.loads, told.splitlines())}
    times: dict[str, float] = {}
    for case, figures in peer.items():
        kind, _, scorer = case.partition("/")
        if kind == "sampled":
            times[case] = ours[kind][scorer]["scored_per_second"] / figures["scored_per_second"]
        elif kind == "one_vs_all":
            for precision, found in ours[kind].items():
                times[f"{case}/{precision}"] = found["scored_per_second"] / figures["scored_per_second"]
        else:
            found = ours[kind][scorer]
            times[case] = figures["seconds_for_all"] / (found["seconds"] * num_test / found["triples"])
    return {"pykeen": peer, "times": {case: round(value, 2) for case, value in times.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--steps", type=int, default=30, help="training steps that are timed")
    parser.add_argument("--threads", type=int, default=0, help="0 = all cores")
    parser.add_argument("--eval-triples", type=int, default=0, help="first triples of the test part; 0 = all")
    parser.add_argument("--pykeen", metavar="PYTHON", help="interpreter that has PyKEEN")
    arguments = parser.parse_args()
    shape, known_K3, train_T3, test_T3 = triples_of(arguments.data)
    asked_T3 = test_T3[: arguments.eval_triples or len(test_T3)]
    with reproducible(arguments.threads):
        line = {
            "threads": torch.get_num_threads(),
            "sampled": {name.value: sampled(name, shape, train_T3, arguments.steps) for name in SAMPLED},
            "one_vs_all": {
                kind: one_vs_all(kind, shape, train_T3, arguments.steps) for kind in ("float32", "bfloat16")
            },
            "filtered_evaluation": {
                name.value: evaluation(name, shape, train_T3, known_K3, asked_T3) for name in SAMPLED
            },
        }
    if arguments.pykeen:
        line |= beside(arguments.pykeen, arguments.data / "kg_fb15k237" / "triples.parquet", line, len(test_T3))
    print(json.dumps(line))


if __name__ == "__main__":
    main()
