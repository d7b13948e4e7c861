"""What came of each impression of an event log."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from kgrec.columns import IMPRESSION, ITEM, PART, TIME, USER
from kgrec.data.checks import ROW_OF_INPUT

_PAIR = (USER, ITEM)


def judge_impressions(
    rows: pl.LazyFrame, labels: Sequence[str], extra: Sequence[str], *, has_time: bool, shares: int = 1
) -> pl.LazyFrame:
    """Return one row per impression, in source order, with each label as a boolean.

    An impression has a label when an event with it, of the same user and item, happened at or after it and before
    the next impression of that pair (the last of several at one instant gets it). Without time: when there is such
    an event at all. `extra` columns are those of the impression's own row. shares: the users are looked at in so
    many parts, of which one at a time is in memory.
    """
    shown = rows.filter(pl.col(IMPRESSION))
    hits: dict[str, list[pl.Series]] = {label: [] for label in labels}
    for share in range(shares):
        mine = pl.lit(True) if shares == 1 else pl.col(USER).hash(seed=0) % shares == share
        keys = shown.filter(mine).select(*_PAIR, TIME, ROW_OF_INPUT).collect(engine="streaming")
        if has_time:
            keys = keys.sort(TIME, ROW_OF_INPUT)
        for label in labels:
            acts = rows.filter(pl.col(label) & mine).select(*_PAIR, TIME).collect(engine="streaming")
            hits[label].append(_hit(keys, acts, has_time=has_time))
    judged = [pl.col(ROW_OF_INPUT).is_in(pl.concat(hits[label]).sort().implode()).alias(label) for label in labels]
    return shown.with_columns(judged).select(*_PAIR, TIME, *labels, *extra)


def _hit(keys: pl.DataFrame, acts: pl.DataFrame, *, has_time: bool) -> pl.Series:
    """Return the rows of the keys that one of the acts falls to."""
    if not has_time:
        return keys.join(acts, on=list(_PAIR), how="semi")[ROW_OF_INPUT]
    found = acts.sort(TIME).join_asof(keys, on=TIME, by=list(_PAIR), strategy="backward", check_sortedness=False)
    return found[ROW_OF_INPUT].drop_nulls().unique()


def judge_within_parts(
    shown: pl.DataFrame, events: pl.DataFrame, labels: Sequence[str], *, has_time: bool, shares: int = 1
) -> pl.DataFrame:
    """Return each label of each shown row (boolean columns, in order), from events of the same part alone.

    shown and events: user, item, time, part; events: a boolean column per label. What came of a row of train must not
    be told by an event of the test part, however soon it followed.
    """
    own = [USER, ITEM, TIME, PART]
    both = pl.concat(
        [
            shown.select(own).with_columns(pl.lit(True).alias(IMPRESSION), *(pl.lit(False).alias(n) for n in labels)),
            events.select(own).with_columns(pl.lit(False).alias(IMPRESSION), *(events[name] for name in labels)),
        ]
    ).with_row_index(ROW_OF_INPUT)
    apart = both.with_columns(pl.concat_str(pl.col(PART).cast(pl.String), USER, separator="\x1f").alias(USER))
    return judge_impressions(apart.lazy(), labels, (), has_time=has_time, shares=shares).select(labels).collect()
