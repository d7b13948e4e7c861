"""An increment on the last events of a log beside a full training on the same log: time, lists, figures.

    python benchmarks/incremental.py [--dataset ml-100k] [--share 0.01] [--workspace DIR] [--set KEY=VALUE]...
    python benchmarks/incremental.py --dataset kuairand --data DIR

The log is cut by time into a part of before and one of the last `--share` events, a file each. A version is trained in
full on the first. Then, each in a copy of that workspace and a process of its own, one after the other: an increment
(training.start = "promoted"), a full training on both files, and a second one that differs in its seed alone: what two
full trainings share is the most that can be asked of an increment. All answer the same users' lists of ten.
Prints JSON; seconds are wall clock of the whole chain without the start of the interpreter, with the machine's load
beside them, and the processor's seconds, which other work on the machine moves less.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from real_data import KUAIRAND

from kgrec import columns as c
from kgrec.artifacts import load_artifact
from kgrec.chain import judge
from kgrec.data.sources import find_files
from kgrec.evaluation.significance import mean_of, randomisation_test
from kgrec.seeds import numpy_generator
from kgrec.serving.recommend import open_version
from kgrec.serving.versions import read_registry
from kgrec.workspace import Workspace

ROOT = Path(__file__).parents[1]
RUN = """
import json, os, sys, time
from feature_store.catalog import VIEWS
from kgrec.stages import run
started, before = time.perf_counter(), sum(os.times()[:4])
result = run(sys.argv[1], sys.argv[2], overrides=json.loads(sys.argv[3]), views=VIEWS)
found = result.as_dict()
print(json.dumps({"seconds": round(time.perf_counter() - started, 2),
    "processor_seconds": round(sum(os.times()[:4]) - before, 2), "version": found["version"],
    "promoted": found["promoted"], "failures": list(result.released.verdict.failures),
    "stages": {name: one["seconds"] for name, one in found["stages"].items()}}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="ml-100k", choices=("ml-100k", "kuairand"))
    parser.add_argument("--data", type=Path, help="folder of the datasets, for kuairand")
    parser.add_argument("--share", type=float, default=0.01, help="of the events, the last, that are new")
    parser.add_argument("--workspace", type=Path, help="keep the workspaces here; the first one is reused")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--split", default="time", help="split.kind")
    asked = parser.parse_args()
    if asked.dataset == "kuairand" and asked.data is None:
        parser.error("kuairand: name its folder with --data")
    with tempfile.TemporaryDirectory(prefix="incremental-") as scratch:
        print(json.dumps(measure(asked, asked.workspace or Path(scratch)), indent=1))


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    config, log = DATASETS[asked.dataset](folder, asked)
    old, new = cut(log, folder / "events", asked.share)
    overrides = ["gate.baselines=[]", "gate.tolerance=0.5", *asked.overrides]
    base = folder / "base"
    first = None
    if not (base / "versions.json").exists():
        (folder / "events" / "new.parquet").unlink()
        first = run(config, base, overrides)
        cut(log, folder / "events", asked.share)
    for name in ("increment", "full", "another"):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(base, folder / name)
    increment = run(config, folder / "increment", [*overrides, "training.start=promoted"])
    full = run(config, folder / "full", overrides)
    another = run(config, folder / "another", [*overrides, "seed=8"])
    return {
        "benchmark": "incremental", "dataset": asked.dataset, "events_before": old, "new_events": new,
        "split": asked.split, "first": first, "increment": increment, "full": full,
        "time_share": round(increment["seconds"] / full["seconds"], 3),
        "processor_share": round(increment["processor_seconds"] / full["processor_seconds"], 3),
        **compared(folder, increment["version"], full["version"], another["version"]),
        "machine": f"{len(os.sched_getaffinity(0))} cores", "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip


def demo(folder: Path, asked: argparse.Namespace) -> tuple[Path, pl.DataFrame]:
    """Return the config of the demo over the folder's events, and the demo's log."""
    text = (ROOT / "configs" / "ml-100k.toml").read_text()
    text = text.replace("demo:ml-100k/interactions.tsv", "events/*.parquet").replace('"user_time"', f'"{asked.split}"')
    text = text.replace('history = "train"', 'history = "all"').replace("epochs = 12 ", "epochs = 24 ")
    path = folder / "config.toml"
    path.write_text(text)
    (file,) = find_files("demo:ml-100k/interactions.tsv", folder)
    return path, pl.read_csv(file, separator="\t")


def kuairand(folder: Path, asked: argparse.Namespace) -> tuple[Path, pl.DataFrame]:
    """Return the config of KuaiRand over the folder's events, split by time, and its log."""
    source = "{data}/kuairand_pure_sub/impressions.parquet"
    text = KUAIRAND.replace(source, "events/*.parquet").replace('"column"', f'"{asked.split}"')
    path = folder / "config.toml"
    path.write_text(text.format(data=asked.data.resolve(), conversion="long_view"))
    return path, pl.read_parquet(source.format(data=asked.data)).drop("split").unique(maintain_order=True)


DATASETS = {"ml-100k": demo, "kuairand": kuairand}


def cut(log: pl.DataFrame, folder: Path, share: float) -> tuple[int, int]:
    """Write the log as two files, in order of time: what was there before, and the last events."""
    folder.mkdir(exist_ok=True)
    log = log.sort("timestamp", maintain_order=True)
    new = round(share * log.height)
    log.head(log.height - new).write_parquet(folder / "before.parquet")
    log.tail(new).write_parquet(folder / "new.parquet")
    return log.height - new, new


def run(config: Path, workspace: Path, overrides: list[str]) -> dict[str, Any]:
    before = os.getloadavg()[0]
    command = [sys.executable, "-c", RUN, str(config), str(workspace), json.dumps(overrides)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1]) | {"load": [round(before, 1), round(os.getloadavg()[0], 1)]}


def compared(folder: Path, increment: str, full: str, another: str) -> dict[str, Any]:
    """Return how many of the top ten are the same, over all users, and the difference of the figures on test."""
    versions = {"increment": increment, "full": full, "another": another, "base": "1"}
    ours, theirs, third, before = (answers(folder / name, version) for name, version in versions.items())
    found: dict[str, Any] = {
        "users": ours["user"].n_unique(), "overlap@10": overlap(ours, theirs),
        "overlap@10 of two full trainings of different seeds": overlap(third, theirs),
        "overlap@10 of the version before with the full one": overlap(before, theirs),
        "overlap@10 of the increment with the version before": overlap(ours, before),
    }  # fmt: skip
    one, other = per_user(folder / "increment", increment), per_user(folder / "full", full)
    joined = one.join(other, on=c.USER_ROW, suffix="_full", maintain_order="left")
    for metric in ("ndcg@10", "recall@10"):
        values, rivals = joined[metric].to_numpy(), joined[f"{metric}_full"].to_numpy()
        difference = mean_of(values) - mean_of(rivals)
        p = randomisation_test([difference], numpy_generator(7, "incremental", metric))[0]
        found[f"test/{metric}"] = {"increment": float(values.mean()), "full": float(rivals.mean()),
                                   "difference": difference.value, "p": p, "users": joined.height}  # fmt: skip
    return found


def answers(workspace: Path, version: str) -> pl.DataFrame:
    place = Workspace(workspace)
    record = read_registry(place).find(version)
    assert record is not None
    loaded = open_version(place.store.path("version", record.key), version)
    return loaded.recommend(loaded.users.entries.to_list(), k=10).select("user", "item")


def overlap(one: pl.DataFrame, other: pl.DataFrame) -> float:
    both = one.join(other, on=["user", "item"], how="semi")
    return round(both.height / one.height, 4)


def per_user(workspace: Path, version: str) -> pl.DataFrame:
    place = Workspace(workspace)
    record = read_registry(place).find(version)
    assert record is not None
    made = load_artifact(place.store.path("version", record.key), verify=False)
    evaluated = place.store.with_digest("evaluate", made.inputs["evaluate"])
    assert evaluated is not None
    table = pl.read_parquet(evaluated.file(judge.PER_USER))
    return table.filter((pl.col(c.SYSTEM) == "model") & (pl.col(c.GROUP) == "ranking"))


if __name__ == "__main__":
    main()
