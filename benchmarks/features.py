"""Measure the feature store: the point-in-time join, an increment against a backfill, reading online; print JSON.

    python benchmarks/features.py [--rows 1000000] [--days 30] [--feast PYTHON] [--many 10000000]

PYTHON is the interpreter of an environment of its own that has feast (it holds pandas back, so it never shares one with
kgrec): `python3 -m venv /tmp/feast && /tmp/feast/bin/pip install feast`. The data is made up: 50,000 keys over 30 days.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl

from feature_store.catalog import OPTIONAL_VIEWS, VIEWS
from kgrec.columns import TIME_TYPE
from kgrec.features.by_day import FeatureDays
from kgrec.features.join import TimedFeatures, point_in_time_join

DAY_US = 86_400_000_000
START_US = 19_700 * DAY_US
ASK_FEAST = """
import sys, time, pandas as pd
from datetime import timedelta
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float32
from feast.value_type import ValueType
folder = sys.argv[1]
config = RepoConfig(registry=f"{folder}/registry.db", project="bench", provider="local",
                    offline_store={"type": "file"}, online_store={"type": "sqlite", "path": f"{folder}/online.db"},
                    entity_key_serialization_version=3)
store = FeatureStore(config=config)
user = Entity(name="user", join_keys=["user"], value_type=ValueType.INT64)
fields = [Field(name=f"f{i}", dtype=Float32) for i in range(3)]
view = FeatureView(name="f", entities=[user], ttl=timedelta(days=0), schema=fields,
                   source=FileSource(path=f"{folder}/rows.parquet", timestamp_field="known_at"))
store.apply([user, view])
events = pd.read_parquet(f"{folder}/events.parquet").rename(columns={"time": "event_timestamp"})
start = time.perf_counter()
found = store.get_historical_features(events, [f"f:f{i}" for i in range(3)]).to_df()
print("FEAST", time.perf_counter() - start, len(found))
"""


def timed(work: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """Return the median of the seconds and the last result."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return round(median(seconds), 3), result


def stamped(rows: int, column: str, seed: int) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    instants = pl.Series(column, START_US + draw.integers(0, 30 * DAY_US, rows)).cast(TIME_TYPE)
    return pl.DataFrame({"user": draw.integers(0, 50_000, rows), column: instants})


def bare(events: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Join as polars does it: both sides sorted by time, no order restored."""
    return events.sort("time").join_asof(
        rows.sort("known_at"), left_on="time", right_on="known_at", by="user", allow_exact_matches=False,
        check_sortedness=False,
    )  # fmt: skip


def join(count: int, feast: str | None) -> dict[str, Any]:
    events, rows = stamped(count, "time", 1), stamped(count, "known_at", 2)
    draw = np.random.default_rng(3)
    rows = rows.with_columns(pl.Series(f"f{i}", draw.random(count, dtype=np.float32)) for i in range(3))
    table = TimedFeatures("f", ("user",), rows)
    mine, found = timed(lambda: point_in_time_join(events, [table]), 5)
    theirs, other = timed(lambda: bare(events, rows), 5)
    answers = found.select("user", "time", "f__f0").sort(pl.all())
    same = answers.equals(other.select("user", "time", pl.col("f0").alias("f__f0")).sort(pl.all()))
    figures = {"rows": count, "seconds": mine, "bare_join_asof_seconds": theirs,
               "ratio": round(mine / theirs, 2),
               "rows_back": found.height, "same": same,
               "in_order": found.select(events.columns).equals(events)}  # fmt: skip
    return figures | (ask_feast(feast, events, rows, mine) if feast else {})


def many_views(count: int) -> dict[str, Any]:
    """Join three views of a million rows to `count` events, beside a bare join of each in turn."""
    events, rows = stamped(count, "time", 1), [stamped(1_000_000, "known_at", seed) for seed in (2, 3, 4)]
    tables = [
        TimedFeatures(f"t{n}", ("user",), one.with_columns(x=pl.int_range(pl.len()))) for n, one in enumerate(rows)
    ]
    mine, found = timed(lambda: point_in_time_join(events, tables), 1)
    theirs, _ = timed(lambda: [bare(events, table.rows) for table in tables], 1)
    return {"events": count, "views": len(tables), "seconds": mine, "bare_join_asof_seconds": theirs,
            "rows_back": found.height, "in_order": found.select(events.columns).equals(events)}  # fmt: skip


def ask_feast(python: str, events: pl.DataFrame, rows: pl.DataFrame, mine: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        events.write_parquet(f"{folder}/events.parquet")
        rows.write_parquet(f"{folder}/rows.parquet")
        done = subprocess.run([python, "-c", ASK_FEAST, folder], capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("FEAST")), None)
    if line is None:
        return {"feast_fault": done.stderr[-500:]}
    seconds, back = float(line.split()[1]), int(line.split()[2])
    return {"feast_seconds": round(seconds, 2), "feast_times_slower": round(seconds / mine, 1), "feast_rows_back": back}


def increment(days: int, a_day: int) -> dict[str, Any]:
    draw = np.random.default_rng(4)
    count = days * a_day
    log = pl.DataFrame(
        {
            "user_row": draw.integers(0, 20_000, count, dtype=np.int32),
            "item_row": draw.integers(0, 5_000, count, dtype=np.int32),
            "tab": draw.integers(0, 5, count), "click": draw.random(count) < 0.4,
            "conversion": draw.random(count) < 0.1,
            "time": pl.Series(START_US + np.sort(draw.integers(0, days * DAY_US, count))).cast(TIME_TYPE),
        }
    )  # fmt: skip
    views = (*VIEWS, *OPTIONAL_VIEWS)
    last = log["time"].dt.date().max()
    with tempfile.TemporaryDirectory() as folder:
        grown, whole = FeatureDays(Path(folder) / "grown"), FeatureDays(Path(folder) / "whole")
        grown.backfill(views, log.filter(pl.col("time").dt.date() < last), context=["tab"])
        one, report = timed(lambda: grown.backfill(views, log, context=["tab"]), 1)
        full, other = timed(lambda: whole.backfill(views, log, context=["tab"]), 1)
        equal = grown.read().equals(whole.read()) and report.snapshot == other.snapshot
        again, _ = timed(lambda: grown.backfill(views, log, context=["tab"]), 1)
    return {"days": days, "rows_a_day": a_day, "full_seconds": full, "one_day_seconds": one,
            "share": round(one / full, 3), "nothing_new_seconds": again, "computed": len(report.computed),
            "bit_for_bit": equal}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rows-a-day", type=int, default=20_000)
    parser.add_argument("--feast", metavar="PYTHON")
    parser.add_argument("--many", type=int, default=0, help="events that three views are joined to; 0 = not at all")
    arguments = parser.parse_args()
    figures = {
        "join": join(arguments.rows, arguments.feast),
        "increment": increment(arguments.days, arguments.rows_a_day),
    }
    figures |= {"many_views": many_views(arguments.many)} if arguments.many else {}
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
