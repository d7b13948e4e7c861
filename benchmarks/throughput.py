"""Measure training throughput on Last-FM beside RecBole's LightGCN and CKE; print one JSON line.

    python benchmarks/throughput.py --data DIR --recbole PYTHON [--epochs 4] [--threads 2]

--recbole: the interpreter of an environment with RecBole. All have 64 dimensions and the same train events; ours with
its defaults, once clicks alone and once with the links of the graph, RecBole with its own (LightGCN of two layers reads
clicks, CKE learns clicks and triples). The sides take turns; the first epoch of each is not counted, of the others the
median is. An interaction of the log counts once an epoch. `updates_per_epoch` says how often weights moved: epochs of
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
from real_data import CONFIGS

from feature_store.catalog import VIEWS
from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.context import Run
from kgrec.chain.lesson import Lesson, prepared
from kgrec.chain.prepare import EVENTS
from kgrec.config import TaskName, load_config
from kgrec.data.vocabulary import Vocabulary
from kgrec.serving.package import ITEMS
from kgrec.stages import run_chain
from kgrec.training.trainer import Progress, train
from kgrec.workspace import Workspace

ARMS = {"clicks": (TaskName.CLICK,), "clicks and links": (TaskName.CLICK, TaskName.KG)}


def ours(run: Run, tasks: tuple[TaskName, ...], epochs: int) -> dict[str, Any]:
    log, features, graph = (run_chain(run, until=stage) for stage in ("split", "features", "graph"))
    config = run.config.training.model_copy(update={"epochs": epochs + 1, "patience": 0})
    taught = prepared(Lesson(run.config, tasks, log, features, graph, ahead=log, judged=False))
    clock = [time.perf_counter()]

    def tick(_: Progress) -> None:
        clock.append(time.perf_counter())

    train(taught.network, taught.tasks, config, run.config.seed, None, progress=tick)
    seconds = [end - start for start, end in pairwise(clock[1:])]
    rows = taught.tasks[0].rows
    updates = max(-(-task.rows // config.batch_size) for task in taught.tasks)
    return {"seconds": seconds, "interactions": rows, "updates_per_epoch": min(updates, config.epoch_steps)}


def recbole(python: str, model: str, folder: Path, epochs: int, threads: int) -> dict[str, Any]:
    script = Path(__file__).with_name("throughput_recbole.py")
    command = [python, script, folder, model, "--epochs", str(epochs), "--threads", str(threads)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(told.splitlines()[-1])
    return found


def atomic_files(data: Path, log: Artifact, folder: Path) -> None:
    """Write the same train events, triples and links as RecBole reads them."""
    source = data / "lastfm_lightkg"
    rows = pl.read_parquet(log.file(EVENTS)).filter(pl.col(c.PART).cast(pl.String) == c.TRAIN)
    ids = Vocabulary.load(log.file(ITEMS)).ids(rows[c.ITEM_ROW])
    pairs = rows.select(pl.col(c.USER_ROW).alias("user_id:token"), ids.alias("item_id:token"))
    pairs = pairs.unique(maintain_order=True)
    triples = pl.read_parquet(source / "triples.parquet").select("head", "relation", "tail")
    links = pl.read_parquet(source / "item_entity.parquet")
    links = links.filter(pl.col("item").cast(pl.String).is_in(ids.cast(pl.String).implode()))
    frames = {
        "train.inter": pairs, "valid.inter": pairs.head(200), "test.inter": pairs.tail(200),
        "kg": triples.rename({"head": "head_id:token", "relation": "relation_id:token", "tail": "tail_id:token"}),
        "link": links.select(pl.col("item").alias("item_id:token"), pl.col("entity").alias("entity_id:token")),
    }  # fmt: skip
    for name, frame in frames.items():
        frame.write_csv(folder / f"world.{name}", separator="\t")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--recbole", required=True, metavar="PYTHON", help="interpreter that has RecBole")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "lastfm.toml"
        path.write_text(CONFIGS["lastfm"].format(data=arguments.data.resolve()))
        run = Run(load_config(path, [f"training.threads={arguments.threads}"]), Workspace(folder / "workspace"), VIEWS)
        log = run_chain(run, until="split")
        world = folder / "world"
        world.mkdir()
        atomic_files(arguments.data, log, world)
        found: dict[str, dict[str, Any]] = {}
        for _ in range(2):
            for arm, tasks in ARMS.items():
                _merge(found, arm, ours(run, tasks, arguments.epochs))
            for model in ("LightGCN", "CKE"):
                _merge(found, model, recbole(arguments.recbole, model, world, arguments.epochs, arguments.threads))
    for figures in found.values():
        figures["epoch_seconds"] = round(statistics.median(figures.pop("seconds")), 4)
        figures["interactions_per_second"] = round(figures["interactions"] / figures["epoch_seconds"])
    times = {
        f"{arm} / {model}": round(found[arm]["interactions_per_second"] / found[model]["interactions_per_second"], 2)
        for arm in ARMS
        for model in ("LightGCN", "CKE")
    }
    print(json.dumps({"threads": arguments.threads, **found, "times": times}))


def _merge(found: dict[str, dict[str, Any]], name: str, more: dict[str, Any]) -> None:
    known = found.setdefault(name, {**more, "seconds": []})
    known["seconds"] = known["seconds"] + more["seconds"]


if __name__ == "__main__":
    main()
