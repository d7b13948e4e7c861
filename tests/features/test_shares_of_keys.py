"""Features of a log that is taken apart by key are those of the whole, to the bit."""

import polars as pl
import pytest

from benchmarks.planted import Shop
from feature_store.catalog import OPTIONAL_VIEWS, VIEWS
from kgrec.columns import CLICK, CONVERSION, ITEM_ROW, PART, PART_TYPE, ROW_TYPE, TIME, TIME_TYPE, USER_ROW
from kgrec.features import windows
from kgrec.features.point_in_time import build_features


def world() -> pl.DataFrame:
    """Return 3,000 labelled rows, some without a context or a conversion."""
    rows = Shop(3_000, users=60, items=200).part(0, 3_000)
    number = pl.int_range(pl.len())
    return rows.select(
        pl.col("user").cast(ROW_TYPE).alias(USER_ROW),
        pl.col("item").cast(ROW_TYPE).alias(ITEM_ROW),
        (pl.col("timestamp") * 1_000_000).cast(TIME_TYPE).alias(TIME),
        pl.when(number % 7 != 0).then("tab").alias("tab"),
        pl.col("is_click").cast(pl.Boolean).alias(CLICK),
        pl.when(number % 11 != 0).then(pl.col("bought").cast(pl.Boolean)).alias(CONVERSION),
        pl.when(number < 2_400).then(pl.lit("train")).when(number < 2_700).then(pl.lit("validation"))
        .otherwise(pl.lit("test")).cast(PART_TYPE).alias(PART),
    )  # fmt: skip


@pytest.mark.parametrize("at_once", [300, 1_500])
def test_shares_of_the_keys_change_no_bit(monkeypatch, at_once):
    frame = world()
    views = [*VIEWS, *OPTIONAL_VIEWS]
    whole = build_features(views, frame, context=["tab"])
    calls = []
    original = windows._raw
    monkeypatch.setattr(windows, "_raw", lambda *parts: calls.append(len(parts[2])) or original(*parts))
    monkeypatch.setattr(windows, "ROWS_AT_ONCE", at_once)
    parted = build_features(views, frame, context=["tab"])
    assert parted.rows.equals(whole.rows)
    assert len(whole.aggregates) > 20
    for one, other in zip(parted.latest.views, whole.latest.views, strict=True):
        assert one.table.equals(other.table), one.name
    assert max(calls) < frame.height * 0.9 or at_once == 1_500
    assert len(calls) > 2 * len(whole.views)
