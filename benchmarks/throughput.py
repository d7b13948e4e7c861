"""Measure training throughput beside RecBole's LightGCN and CKE on the same events; print one JSON line a dataset.

    python benchmarks/throughput.py --data DIR --recbole PYTHON [--only lastfm,ml-100k] [--epochs 4] [--threads 2]

--recbole: the interpreter of an environment with RecBole. All have 64 dimensions and the same train events; ours with
its defaults: ranking alone (what LightGCN learns), ranking and links (what CKE learns), and every task the data allow
(ml-100k: the towers of click and conversion as well); RecBole with its own. Every arm of ours reads the graph in its
propagation. The sides take turns; the first epoch of each is not counted, of the others the median is. An interaction
of the log counts once an epoch. `updates_per_epoch` says how often weights moved: epochs of
different systems are not worth the same, which the tables of quality beside this figure must settle.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
from real_data import CONFIGS, ROOT

from feature_store.catalog import VIEWS
from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.arms import TRIPLES
from kgrec.chain.context import Run
from kgrec.chain.lesson import Lesson, prepared
from kgrec.chain.prepare import EVENTS, available_tasks
from kgrec.config import TaskName, load_config
from kgrec.stages import run_chain
from kgrec.training.schedule import count_of_batches
from kgrec.training.trainer import Progress, train
from kgrec.workspace import Workspace

RANKING = ("retrieval",)
LINKS = ("retrieval", "link")
ARMS = {"ranking": RANKING, "ranking and links": LINKS, "all tasks": None}


def ours(run: Run, names: tuple[str, ...] | None, epochs: int) -> dict[str, Any]:
    """Return an arm's epochs: their seconds, with the losses named alone (None: all the data allow)."""
    ingested, log, features, graph = (run_chain(run, until=stage) for stage in ("ingest", "split", "features", "graph"))
    tasks = run.config.tasks or tuple(TaskName(name) for name in available_tasks(ingested))
    config = run.config.training.model_copy(update={"epochs": epochs + 1, "patience": 0})
    taught = prepared(Lesson(run.config, tasks, log, features, graph, ahead=log, judged=False))
    learned = [task for task in taught.tasks if names is None or task.name in names]
    clock = [time.perf_counter()]

    def tick(_: Progress) -> None:
        clock.append(time.perf_counter())

    train(taught.network, learned, config, run.config.seed, None, progress=tick)
    seconds = [end - start for start, end in pairwise(clock[1:])]
    (rows,) = (task.rows for task in learned if task.name == "retrieval")
    updates = max(count_of_batches(task.rows, config) for task in learned)
    return {"seconds": seconds, "interactions": rows, "updates_per_epoch": min(updates, config.epoch_steps)}


def recbole(python: str, model: str, folder: Path, epochs: int, threads: int) -> dict[str, Any]:
    script = Path(__file__).with_name("throughput_recbole.py")
    command = [python, script, folder, model, "--epochs", str(epochs), "--threads", str(threads)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(told.splitlines()[-1])
    return found


def atomic_files(log: Artifact, graph: Artifact, folder: Path) -> None:
    """Write the same train events, triples and links as RecBole reads them; an item's node carries the item's row."""
    rows = pl.read_parquet(log.file(EVENTS)).filter(pl.col(c.PART).cast(pl.String) == c.TRAIN)
    tokens = {c.USER_ROW: "user_id:token", c.ITEM_ROW: "item_id:token"}
    pairs = rows.select(pl.col(name).cast(pl.String).alias(token) for name, token in tokens.items())
    pairs = pairs.unique(maintain_order=True)
    triples = pl.read_parquet(graph.file(TRIPLES)).filter(pl.col(c.PART).cast(pl.String) == c.TRAIN)
    columns = {c.HEAD_ROW: "head_id:token", c.RELATION_ROW: "relation_id:token", c.TAIL_ROW: "tail_id:token"}
    ends = pl.concat([triples[c.HEAD_ROW], triples[c.TAIL_ROW]]).cast(pl.String)
    known = pairs["item_id:token"].unique(maintain_order=True)  # RecBole refuses links of items without events
    known = known.filter(known.is_in(ends.implode()))  # and of nodes without triples
    frames = {
        "train.inter": pairs, "valid.inter": pairs.head(200), "test.inter": pairs.tail(200),
        "kg": triples.select(pl.col(name).cast(pl.String).alias(token) for name, token in columns.items()),
        "link": pl.DataFrame([known, known.alias("entity_id:token")]),
    }  # fmt: skip
    for name, frame in frames.items():
        frame.write_csv(folder / f"world.{name}", separator="\t")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--recbole", required=True, metavar="PYTHON", help="interpreter that has RecBole")
    parser.add_argument("--only", default="lastfm,ml-100k")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    for name in arguments.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            found = measure(name, Path(folder), arguments)
            print(json.dumps({"dataset": name, "threads": arguments.threads, **found}), flush=True)


def measure(name: str, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Return each side's median epoch and interactions a second, and how many times ours are RecBole's."""
    path = ROOT / "configs" / "ml-100k.toml"
    if name in CONFIGS:
        path = folder / f"{name}.toml"
        path.write_text(CONFIGS[name].format(data=asked.data.resolve()))
    run = Run(load_config(path, [f"training.threads={asked.threads}"]), Workspace(folder / "workspace"), VIEWS)
    world = folder / "world"
    world.mkdir()
    atomic_files(run_chain(run, until="split"), run_chain(run, until="graph"), world)
    found: dict[str, dict[str, Any]] = {}
    for _ in range(2):
        for arm, names in ARMS.items():
            _merge(found, arm, ours(run, names, asked.epochs))
        for model in ("LightGCN", "CKE"):
            _merge(found, model, recbole(asked.recbole, model, world, asked.epochs, asked.threads))
    for figures in found.values():
        figures["epoch_seconds"] = round(statistics.median(figures.pop("seconds")), 4)
        figures["interactions_per_second"] = round(figures["interactions"] / figures["epoch_seconds"])
    times = {
        f"{arm} / {model}": round(found[arm]["interactions_per_second"] / found[model]["interactions_per_second"], 2)
        for arm in ARMS
        for model in ("LightGCN", "CKE")
    }
    return {**found, "times": times}


def _merge(found: dict[str, dict[str, Any]], name: str, more: dict[str, Any]) -> None:
    known = found.setdefault(name, {**more, "seconds": []})
    known["seconds"] = known["seconds"] + more["seconds"]


if __name__ == "__main__":
    main()
