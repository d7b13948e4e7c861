"""A log that is looked at a little at a time gives the tables of one that is held whole, to the bit."""

import polars as pl
import pytest

from benchmarks.planted import Shop
from kgrec.chain import prepare
from kgrec.chain.context import Run
from kgrec.config import load_config
from kgrec.workspace import Workspace

EVENTS = """
[interactions]
path = "day-*.parquet"
tolerated = 0.5
[interactions.roles]
impression = ["impression"]
click = ["click"]
conversion = ["purchase"]
"""
LABELS = """
[interactions]
path = "day-*.parquet"
layout = "impressions"
tolerated = 0.5
context = ["tab"]
[interactions.labels]
click = "is_click"
conversion = "bought"
"""


def as_events(shown: pl.DataFrame) -> pl.DataFrame:
    """Return impressions, clicks a little later and purchases later still, in the order of time."""
    kinds = [("impression", 0, shown), ("click", 30, shown.filter(pl.col("is_click") == 1)),
             ("purchase", 86_400, shown.filter(pl.col("bought") == 1))]  # fmt: skip
    frames = [
        rows.select("user", "item", pl.col("timestamp") + later, pl.lit(kind).alias("event"))
        for kind, later, rows in kinds
    ]
    return pl.concat(frames).sort("timestamp", maintain_order=True)


def made(folder, name, config, memory_mb):
    """Return the tables of ingest and split by name, and how much was quarantined."""
    (folder / "shop.toml").write_text(config)
    run = Run(load_config(folder / "shop.toml", [f"resources.memory_mb={memory_mb}"]), Workspace(folder / name))
    ingested = prepare.ingest(run)
    log = prepare.split(run, ingested)
    files = [path for one in (ingested, log) for path in sorted(one.path.glob("*.parquet"))]
    tables = {f"{path.parent.parent.name} {path.stem}": pl.read_parquet(path) for path in files}
    return tables, ingested.facts["quarantined"], log.facts


@pytest.mark.parametrize("config", [EVENTS, LABELS], ids=["events", "impressions"])
def test_what_fits_at_once_changes_no_bit(tmp_path, config, monkeypatch):
    shown = Shop(24_000, users=500, items=300).part(0, 24_000)
    rows = as_events(shown) if config is EVENTS else shown
    rows = pl.concat([rows, rows[::50]])  # repeated rows, far from the first
    for day in range(3):
        rows[day * rows.height // 3 : (day + 1) * rows.height // 3].write_parquet(tmp_path / f"day-{day}.parquet")
    largest = []
    original = pl.LazyFrame.collect

    def collect(self, **options):
        found = original(self, **options)
        largest.append(found.height)
        return found

    monkeypatch.setattr(pl.LazyFrame, "collect", collect)
    held, told, facts = made(tmp_path, "held", config, 1024)
    most_held, largest[:] = max(largest), []
    streamed, told_again, facts_again = made(tmp_path, "streamed", config, 1)
    assert facts == facts_again
    assert told == told_again
    assert told["duplicate row"] >= rows[::50].height // 2
    assert held.keys() == streamed.keys()
    assert all(table.equals(streamed[name]) for name, table in held.items())
    assert most_held > 24_000 * 0.9
    if config is LABELS:
        assert max(largest) < most_held * 0.75, "no table of the log is ever collected whole"
