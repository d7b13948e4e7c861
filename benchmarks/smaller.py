"""Versions in half precision and in eight bits beside the full one: size, quality, lists, time.

    python benchmarks/smaller.py [--config configs/ml-100k.toml] [--workspace DIR] [--set KEY=VALUE]...

Trains once and makes a version in each precision, then one without idle entities. Prints JSON: megabytes (10^6) of the
folder and of its parts, the figures of validation in full and as served, the test figure, the share of the top ten
that is the full version's, and the median milliseconds of a list of ten.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from feature_store.catalog import VIEWS
from kgrec.artifacts import Artifact
from kgrec.chain.smaller import SMALLER
from kgrec.serving.answers import Answerer
from kgrec.serving.recommend import load
from kgrec.stages import run
from kgrec.workspace import Workspace

ROOT = Path(__file__).parents[1]
KINDS = (("float32", "all"), ("float16", "all"), ("int8", "all"), ("int8", "between_items"))
PARTS = {"vectors and neighbours": "vectors.safetensors", "towers": "towers.safetensors", "index": "index.faiss",
         "graph": "graph_"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "ml-100k.toml")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="smaller-") as scratch:
        place = asked.workspace or Path(scratch) / "workspace"
        found, lists = [], []
        for precision, entities in KINDS:
            words = [*asked.overrides, f"serving.precision={precision}", f"serving.entities={entities}"]
            one, top = measure(asked.config, place, words)
            lists.append(top)
            same = top.join(lists[0], on=["user", "item"], how="semi").height / top.height
            found.append({"precision": precision, "entities": entities, "overlap@10": round(same, 4), **one})
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    told = {"benchmark": "smaller", "versions": found, "date": datetime.now(UTC).date().isoformat()}
    print(json.dumps(told | {"machine": f"{len(os.sched_getaffinity(0))} cores", "load": os.getloadavg()}, indent=1))


def measure(config: Path, place: Path, overrides: list[str]) -> tuple[dict[str, Any], pl.DataFrame]:
    result = run(config, place, overrides=overrides, views=VIEWS)
    version = load(place, result.released.version)
    evaluated = Workspace(place).store.with_digest("evaluate", version.artifact.inputs["evaluate"])
    assert evaluated is not None
    test = result.metrics["test"]
    figures = {"test/ndcg@10": test["ranking"]["ndcg@10"]}
    figures |= {f"test/{task}/auc": one["auc"] for task, one in test.items() if "auc" in one}
    users = version.users.entries.to_list()
    answerer, times = Answerer(version), []
    for user in users[:300]:
        start = time.perf_counter()
        answerer.recommend(user=user, k=10)
        times.append(1000 * (time.perf_counter() - start))
    facts = {"megabytes": megabytes(version.artifact), "validation": evaluated.facts.get(SMALLER),
             **figures, "median_ms": round(statistics.median(times), 3)}  # fmt: skip
    return facts, version.recommend(users, k=10).select("user", "item")


def megabytes(artifact: Artifact) -> dict[str, float]:
    sizes = {name: (artifact.path / name).stat().st_size / 1e6 for name in artifact.files}
    parts = {what: sum(size for name, size in sizes.items() if name.startswith(start)) for what, start in PARTS.items()}
    return {what: round(size, 3) for what, size in ({"all": sum(sizes.values())} | parts).items()}


if __name__ == "__main__":
    main()
