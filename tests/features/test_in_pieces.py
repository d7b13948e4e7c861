"""Features of a log of which little is held at a time are those of the log held whole, to the bit."""

import itertools
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from feature_store.catalog import OPTIONAL_VIEWS, VIEWS
from kgrec.columns import CLICK, ITEM_ROW, PART, ROW_TYPE, TIME, USER_ROW
from kgrec.features import in_pieces, pieces
from kgrec.features.feature_log import ROW, FeatureLog
from kgrec.features.in_pieces import features_in_pieces
from kgrec.features.latest import LatestFeatures, save_latest
from kgrec.features.log_parts import parts_of
from kgrec.features.shares import Share, packed, shares_of, slices_of
from kgrec.features.view import DistinctCount, FeatureView, LastValues, Of, Rate, Recency
from tests.features.test_key_codes import world

BY_CONTEXT = FeatureView(
    "told", ("tab", "item:genre"), (Rate(Of.CLICK), Recency(Of.CLICK), DistinctCount("user_row"),
                                    LastValues("item_row", 3, Of.CLICK)),
    None, "All that can be carried on, by keys that are neither user nor item", "tests",
)  # fmt: skip
BY_WINDOW = FeatureView(
    "lately", ("tab",), (Rate(Of.CLICK), Recency()), timedelta(days=3), "A window over the same", "tests",
    ttl=timedelta(hours=5),
)  # fmt: skip
EVERY = [*VIEWS, *OPTIONAL_VIEWS, BY_CONTEXT, BY_WINDOW]


def log_of(kind: str) -> tuple[FeatureLog, pl.DataFrame]:
    """Return 3,000 rows, 900 events, sides and ties; in order of time, or out of it with parts across time."""
    rows = world()
    users, items = (rows[name].unique().sort() for name in (USER_ROW, ITEM_ROW))
    side_users = pl.DataFrame({USER_ROW: users, "country": [["a", "b", None][n % 3] for n in users]})
    side_items = pl.DataFrame({ITEM_ROW: items, "genre": [f"g{n % 7}" for n in items]})
    ties = {ITEM_ROW: [*items, *items], "relation": ["genre"] * (2 * len(items)),
            "entity": [f"e{n % 9}" for n in items] + [f"m{n % 31}" for n in items]}  # fmt: skip
    if kind == "shuffled":
        number = pl.int_range(pl.len())
        rows = rows.sample(fraction=1, shuffle=True, seed=3).with_columns(
            pl.when(number % 17 != 0).then(TIME).alias(TIME),
            pl.when(number % 5 != 0).then(USER_ROW).alias(USER_ROW),
            rows[PART].shuffle(seed=5),
        )
    events = rows.filter(CLICK).with_columns(pl.col(TIME) + pl.duration(seconds=40))
    entities = pl.DataFrame(ties, schema_overrides={ITEM_ROW: ROW_TYPE})
    return FeatureLog.of(rows, events, side_users, side_items, ["tab"]), entities


@pytest.mark.parametrize("kind", ["ordered", "shuffled"])
def test_what_is_held_at_once_changes_no_bit(kind, tmp_path, monkeypatch):
    log, entities = log_of(kind)
    whole = features_in_pieces(EVERY, log, entities)
    expected = pl.concat(whole.pieces())
    for module in (in_pieces, pieces):
        monkeypatch.setattr(module, "PIECE", 1_000)
    made = features_in_pieces(EVERY, log, entities, at_once=900, folder=tmp_path / "aside")
    found = list(made.pieces())
    assert [one.height for one in found] == [1_000, 1_000, 1_000]
    assert pl.concat(found).equals(expected)
    assert (made.aggregates, made.counts, made.left_out) == (whole.aggregates, whole.counts, whole.left_out)
    assert len(made.aggregates) > 40
    assert any((tmp_path / "aside").rglob("*.arrow"))
    for one, other in zip(made.latest, whole.latest, strict=True):
        assert one.held().table.equals(other.held().table), one.name
        assert one.unseen == other.unseen
    assert max(len(one.parts) for one in made.latest) > 3
    save_latest(tmp_path / "parts", made.latest, made.derived)
    LatestFeatures(tuple(one.held() for one in whole.latest), whole.derived).save(tmp_path / "whole")
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert [path.name for path in sorted((tmp_path / "parts").iterdir())] == names
    assert all((tmp_path / "parts" / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in names)


def test_no_more_rows_are_held_than_asked(tmp_path, monkeypatch):
    log, _ = log_of("ordered")
    for module in (in_pieces, pieces):
        monkeypatch.setattr(module, "PIECE", 500)
    most = []
    original = pl.LazyFrame.collect

    def collect(self, **options):
        found = original(self, **options)
        if PART in found.columns or ROW in found.columns:  # else counts and keys
            most.append(found.height)
        return found

    monkeypatch.setattr(pl.LazyFrame, "collect", collect)
    by_key_or_time = [view for view in VIEWS if not getattr(view, "graph_key", None)]
    made = features_in_pieces(by_key_or_time, log, at_once=500, folder=tmp_path)
    heights = [one.height for one in made.pieces()]
    save_latest(tmp_path / "latest", made.latest, made.derived)
    most_of_a_key = log.counted(USER_ROW)["len"].max()
    assert max(most) <= max(500, most_of_a_key)
    assert sum(heights) == 3_000
    most.clear()
    features_in_pieces(by_key_or_time, log, at_once=100_000, folder=tmp_path / "whole")
    assert max(most) == 3_000


def test_shares_and_slices_hold_each_row_once():
    log, _ = log_of("shuffled")
    rows = log.labelled.collect()
    shares = shares_of(log, USER_ROW, 300)
    assert len(shares) > 8
    assert pl.concat(rows.filter(one.chosen) for one in shares).sort(pl.all()).equals(rows.sort(pl.all()))
    slices = slices_of(log, log.span(), 300)
    dated = rows.drop_nulls(TIME)
    parts = [dated.filter(one.chosen) for one in slices]
    assert pl.concat(parts).height == dated.height
    assert max(part.height for part in parts) <= 300
    assert all(a.high == b.low for a, b in itertools.pairwise(slices))


def test_one_key_with_more_rows_than_fit_is_a_share_of_its_own():
    assert packed([1, 50, 1, 1], 10) == [0, 1, 2, 4]
    assert packed(np.zeros(0, np.int64), 10) == [0]


@pytest.mark.parametrize("order", ["ordered", "shuffled"])
def test_a_log_written_once_by_parts_is_what_looking_for_each_part_gives(tmp_path, order):
    log, _ = log_of(order)
    users, needed = shares_of(log, USER_ROW, 300), {"tab", "user:country", "__row"}
    for number, parts in enumerate((users, [users[0], users[2]], slices_of(log, log.span(), 300))):
        looked = parts_of(log, needed, parts, None)
        written = parts_of(log, needed, parts, tmp_path / str(number))
        assert len(looked) == len(written) == len(parts) > 1
        for one, other in zip(looked, written, strict=True):
            assert one.read(needed).equals(other.read(needed))
        assert sum(one.read(needed).height for one in written) > 100


def test_a_part_without_rows_is_empty(tmp_path):
    log, _ = log_of("ordered")
    first, nobody = parts_of(log, {TIME}, [Share(USER_ROW, 0, 5), Share(USER_ROW, 10**6, 10**6 + 1)], tmp_path)
    assert first.read({TIME}).height > 0
    assert nobody.read({TIME}).is_empty()
    assert nobody.read({TIME}).schema == first.read({TIME}).schema
