"""Alarms: signs that the test part was told to what is judged on it. An alarm is told, it refuses nothing.

Relations of the graph that restate the log have a guard of their own (`kgrec.graph.leaks`); its finds are alarms here.
Axes: N labelled rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from kgrec import columns as c
from kgrec.evaluation.classification import auc

Array = npt.NDArray[Any]
_TELLS_ALL: Final = 0.99
_FEWEST_ROWS: Final = 10
_SAME_ORDER: Final = 0.9995
_FEWEST_IDS: Final = 20
_SHOWN: Final = 3


@dataclass(frozen=True)
class Alarm:
    """One sign of a leak: which alarm, what was seen, how often, an example, and what to do about it."""

    name: str
    what: str
    count: int
    example: str
    remedy: str


def part_alarms(events: pl.DataFrame, *, by_time: bool) -> list[Alarm]:
    """Return alarms of the split: the same event in two parts, and training on a user's future.

    events: user_row, item_row, time (may be null), part. by_time: whether the split promises that a user's train events
    come before those of test; a split at random does not, and is labelled so.
    """
    has_time = c.TIME in events.columns and events[c.TIME].null_count() == 0
    key = [c.USER_ROW, c.ITEM_ROW, *([c.TIME] if has_time else [])]
    parts = events.with_columns(pl.col(c.PART).cast(pl.String))
    test = parts.filter(pl.col(c.PART) == c.TEST)
    train = parts.filter(pl.col(c.PART) == c.TRAIN)
    both = test.select(key).unique().join(train.select(key).unique(), on=key, how="semi").sort(key)
    found = []
    if both.height:
        what = "the same user, item and time stand in train and in test" if has_time else (
            "the same user and item stand in train and in test, and without time nobody can say which came first"
        )  # fmt: skip
        found.append(Alarm("overlap", what, both.height, _row(both), "leave repeated rows out of the log"))
    if by_time and has_time and test.height:
        first = test.group_by(c.USER_ROW).agg(pl.col(c.TIME).min().alias("first_test"))
        late = train.join(first, on=c.USER_ROW).filter(pl.col(c.TIME) > pl.col("first_test")).sort(key)
        if late.height:
            what = "a user's train events come after the same user's first test event"
            example = _row(late.select(c.USER_ROW, c.ITEM_ROW, c.TIME, "first_test"))
            found.append(Alarm("future", what, late.height, example, 'split by time: split.kind = "time"'))
    return found


def twin_alarms(events: pl.DataFrame) -> list[Alarm]:
    """Return the alarm of users under two ids: the same items at the same times (3 or more), or the same 10 items.

    With a twin in train, what the test part asks of a user was already told.
    """
    has_time = c.TIME in events.columns and events[c.TIME].null_count() == 0
    least = 3 if has_time else 10
    told = [pl.col(c.ITEM_ROW).cast(pl.String)]
    told += [pl.col(c.TIME).dt.timestamp("us").cast(pl.String)] if has_time else []
    acts = events.select(c.USER_ROW, pl.concat_str(told, separator="@").alias("act")).unique()
    sets = acts.sort(c.USER_ROW, "act").group_by(c.USER_ROW, maintain_order=True).agg("act")
    large = sets.filter(pl.col("act").list.len() >= least).with_columns(pl.col("act").list.join("|"))
    twins = large.group_by("act", maintain_order=True).agg(c.USER_ROW).filter(pl.col(c.USER_ROW).list.len() > 1)
    if not twins.height:
        return []
    same = "the same items at the same times" if has_time else "the same items"
    number = int(twins[c.USER_ROW].list.len().sum())
    example = f"user rows {twins[c.USER_ROW][0].to_list()[:_SHOWN]}"
    return [Alarm("duplicated users", f"users have {same} as another one", number, example, "keep one id for a person")]


def label_alarms(features: Sequence[str], labels: Collection[str]) -> list[Alarm]:
    """Return the alarm of columns that are a label, an event's name or its value, and are read as features too."""
    taken = [name for name in features if name in labels]
    if not taken:
        return []
    remedy = "take them out of interactions.context, users.features and items.features"
    return [Alarm("label among features", "what is to be predicted is read as a feature", len(taken), taken[0], remedy)]


def telling_alarms(areas: Mapping[str, float]) -> list[Alarm]:
    """Return the alarm of features that order a label by themselves; areas: name -> area under the curve."""
    if not areas:
        return []
    name, area = max(areas.items(), key=lambda one: one[1])
    what = f"a single feature orders a label with an AUC of {_TELLS_ALL} or more"
    remedy = "ask whether it is known before the row happens; if not, leave it out"
    return [Alarm("telling feature", what, len(areas), f"{name}: {area:.4f}", remedy)]


def telling_categories(
    codes_NC: Array, names: Sequence[str], labels: Mapping[str, Array], train_N: Array, judged_N: Array
) -> dict[str, float]:
    """Return the categorical columns that tell a label: AUC of each code's rate in train over the judged rows.

    train_N, judged_N: boolean masks of the rows. Not judged with fewer than ten rows of a class.
    """
    found: dict[str, float] = {}
    for label_N in labels.values():
        known = label_N[judged_N]
        if min(known.sum(), (1 - known).sum()) < _FEWEST_ROWS or not train_N.any():
            continue
        for at, name in enumerate(names):
            codes = codes_NC[:, at]
            size = int(codes.max()) + 1
            seen = np.bincount(codes[train_N], minlength=size)
            rate = np.bincount(codes[train_N], weights=label_N[train_N], minlength=size) + label_N[train_N].mean()
            area = auc((rate / (seen + 1.0))[codes[judged_N]], known)
            if area is not None and area >= _TELLS_ALL:
                found[name] = max(found.get(name, 0.0), area)
    return found


def statistic_alarms(side: pl.DataFrame, key: str, events: pl.DataFrame) -> list[Alarm]:
    """Return the alarm of side columns that were counted over the whole log, test included.

    side: rows of users or items (`key`) with their columns. A number that orders the ids as a count or a mean of the
    whole log does (rank correlation .9995), and better than that of train alone, was made from the test part too.
    """
    whole, train = (_statistics(rows, key) for rows in (events, events.filter(pl.col(c.PART) == c.TRAIN)))
    joined = side.join(whole, on=key, how="inner").join(train, on=key, how="left", suffix="_train").fill_null(0)
    found = []
    for name in (column for column in side.columns if column != key):
        numbers = joined[name].cast(pl.Float64, strict=False)
        usable = numbers.is_finite().fill_null(value=False)
        if int(usable.sum()) < _FEWEST_IDS or numbers.filter(usable).n_unique() < 5:
            continue
        for statistic in whole.columns[1:]:
            all_told, train_told = (
                abs(_rank_correlation(numbers.filter(usable), joined[column].filter(usable)))
                for column in (statistic, f"{statistic}_train")
            )
            if all_told >= _SAME_ORDER and all_told > train_told:
                found.append(f"{name}: the {statistic} of the whole log (rank correlation {all_told:.4f})")
                break
    if not found:
        return []
    what = f"columns of the table of {'users' if key == c.USER_ROW else 'items'} were counted over test, too"
    return [Alarm("statistics over test", what, len(found), found[0], "count over the train part, or leave them out")]


def relation_alarms(suspects: Mapping[str, str]) -> list[Alarm]:
    """Return the alarm of relations that restate the log; suspects: relation -> why, as the graph's guard found."""
    if not suspects:
        return []
    name, why = next(iter(suspects.items()))
    what = "relations of the graph restate the log, test included"
    remedy = 'knowledge.leaks.action = "drop", or give each triple its known_at'
    return [Alarm("target-derived triples", what, len(suspects), f"{name}: {why}", remedy)]


def inverse_alarms(count: int, by_relation: Mapping[str, int]) -> list[Alarm]:
    """Return the alarm of held-out triples that train says the other way round; by_relation: both names -> count."""
    if not count:
        return []
    what = "held-out triples stand in train the other way round, so that finding them is no prediction"
    example = next((f"{names}: {number}" for names, number in by_relation.items()), "")
    remedy = (
        'knowledge.merging.inverses = "merge", or a split that keeps the pairs of nodes together (leave out the column)'
    )
    return [Alarm("inverse triples across the split", what, count, example, remedy)]


def _statistics(events: pl.DataFrame, key: str) -> pl.DataFrame:
    means = [pl.col(c.CONVERSION).cast(pl.Float64).mean().alias("share of conversions")]
    means += [pl.col(c.VALUE).mean().cast(pl.Float64).alias("mean value")] if c.VALUE in events.columns else []
    return events.group_by(key, maintain_order=True).agg(pl.len().cast(pl.Float64).alias("number of events"), *means)


def _rank_correlation(first: pl.Series, second: pl.Series) -> float:
    ranks_2N = np.stack([series.rank("average").to_numpy() for series in (first, second)])
    if (np.ptp(ranks_2N, axis=1) == 0).any():
        return 0.0
    return float(np.corrcoef(ranks_2N)[0, 1])


def _row(frame: pl.DataFrame) -> str:
    return ", ".join(f"{name} {value}" for name, value in frame.row(0, named=True).items())
