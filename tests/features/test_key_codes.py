"""Keys as numbers: equal for equal keys, sorted without a change of order, and no bit of a feature depends on them."""

from unittest import mock

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.planted import Shop
from feature_store.catalog import OPTIONAL_VIEWS, VIEWS
from kgrec.columns import CLICK, CONVERSION, ITEM_ROW, PART, PART_TYPE, ROW_TYPE, TIME, TIME_TYPE, USER_ROW
from kgrec.features import spans, windows
from kgrec.features.point_in_time import build_features
from kgrec.features.spans import by_key
from kgrec.features.windows import key_codes


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


def test_codes_that_do_not_fit_are_made_dense_and_change_no_bit(monkeypatch):
    """User and item make one number while it fits; made small where it does not, everything is as before."""
    frame = world()
    views = [*VIEWS, *OPTIONAL_VIEWS]
    whole = build_features(views, frame, context=["tab"])
    calls = []
    original = windows._dense
    monkeypatch.setattr(windows, "_dense", lambda code: calls.append(1) or original(code))
    monkeypatch.setattr(windows, "_LARGEST", 1_000)
    monkeypatch.setattr(spans, "_BITS", 14)
    small = build_features(views, frame, context=["tab"])
    assert calls
    assert small.rows.equals(whole.rows)
    assert len(whole.aggregates) > 20
    for one, other in zip(small.latest.views, whole.latest.views, strict=True):
        assert one.table.equals(other.table), one.name


@settings(deadline=None)
@given(st.lists(st.integers(-1, 6), max_size=60), st.sampled_from([63, 8, 6]))
def test_the_order_by_key_is_stable(key, bits):
    with mock.patch.object(spans, "_BITS", bits):
        found = by_key(np.array(key, dtype=np.int64)).tolist()
    assert found == sorted(range(len(key)), key=lambda row: (key[row], row))


VALUES = {
    "a": st.sampled_from([None, "x", "y", "z"]), "b": st.sampled_from([None, 0, 1, 5, 2**30]),
    "c": st.sampled_from([None, -3, 0, 2**62]), "d": st.sampled_from([None, True, False]),
}  # fmt: skip
TYPES = {"a": pl.String, "b": pl.Int32, "c": pl.Int64, "d": pl.Boolean}


@settings(deadline=None)
@given(st.lists(st.fixed_dictionaries(VALUES)), st.sampled_from([2**62, 40]))
def test_codes_are_equal_where_all_keys_are(rows, largest):
    frame = pl.DataFrame(rows, schema=TYPES)
    sets = [("a",), ("b",), ("b", "a"), ("b", "c", "d"), ("d", "b", "a", "c")]
    with mock.patch.object(windows, "_LARGEST", largest):
        codes = key_codes(frame, sets)
    for keys in sets:
        values = [tuple(row[key] for key in keys) for row in rows]
        found = codes[keys].tolist()
        assert [code == -1 for code in found] == [None in value for value in values]
        known = [(value, code) for value, code in zip(values, found, strict=True) if code >= 0]
        assert len({value for value, _ in known}) == len({code for _, code in known}) == len(set(known))
        assert len(found) == frame.height
