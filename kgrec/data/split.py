"""Train, validation and test: by time for everybody at once (default), as the data says, per user, or at random.

Events and exposures of one log are split alike: `assign_parts` splits one table, `assign_exposures` follows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from kgrec.columns import ITEM, PART, PART_TYPE, PARTS, TEST, TIME, TIME_TYPE, TRAIN, USER, VALIDATION
from kgrec.data.boundaries import (
    LABELS,
    Boundaries,
    Counts,
    SplitConfig,
    SplitKind,
    apply_boundaries,
    change_counts,
    cut_near,
    find_boundaries,
)
from kgrec.errors import InputError, Problem
from kgrec.seeds import numpy_generator

__all__ = [
    "Assignment", "Boundaries", "SplitConfig", "SplitKind", "apply_boundaries", "assign_exposures", "assign_parts",
    "check_no_future", "find_boundaries",
]  # fmt: skip

_ORDER = "__order"


@dataclass(frozen=True)
class Assignment:
    """A part per row, in row order, and how it came about.

    `summary`: kind (as done), label (for reports), counts (rows per part), boundaries (ISO instants), warnings.
    """

    parts: pl.Series
    kind: SplitKind
    boundaries: Boundaries | None
    warnings: tuple[str, ...] = ()

    @property
    def summary(self) -> dict[str, Any]:
        """What a report says about this split, JSON-able."""
        return summary_of(self.kind, _counted(self.parts), self.boundaries, self.warnings)


def summary_of(
    kind: SplitKind, counts: Mapping[str, int], boundaries: Boundaries | None, warnings: Sequence[str]
) -> dict[str, Any]:
    """Return what a report says about a split, JSON-able."""
    bounds = {}
    if boundaries is not None:
        bounds[VALIDATION] = boundaries.validation.isoformat()
        if boundaries.test is not None:
            bounds[TEST] = boundaries.test.isoformat()
    return {
        "kind": str(kind), "label": LABELS[kind], "counts": {part: counts.get(part, 0) for part in PARTS},
        "boundaries": bounds, "warnings": list(warnings),
    }  # fmt: skip


def _counted(parts: pl.Series) -> dict[str, int]:
    return {part: int((parts == part).sum()) for part in PARTS}


def assign_parts(
    frame: pl.DataFrame | pl.LazyFrame, config: SplitConfig, seed: int, *, has_time: bool, user: str = "user"
) -> Assignment:
    """Return a part for each row of a canonical table, aligned to its rows, checked against looking ahead.

    `frame` has the column named by `user` (for kind user_time), `time` where `has_time`, and `part` (for kind column).
    Raises InputError when a part is empty, when time is asked for and absent, or when the future is in the past.
    """
    table = frame.lazy().collect()
    kind, warnings = config.kind, []
    if kind in (SplitKind.TIME, SplitKind.USER_TIME) and not has_time:
        if kind is SplitKind.USER_TIME or "kind" in config.model_fields_set:
            remedy = 'name the time column in [interactions] columns, or set kind = "random" or "column"'
            raise InputError(Problem("split.kind", f'"{kind}" needs times and the log has none', remedy))
        kind = SplitKind.RANDOM
        warnings.append("the log has no time, so rows were split at random: results say nothing about the future")
    if has_time and (undated := table[TIME].null_count()) and kind is SplitKind.TIME:
        warnings.append(f"{undated:,} rows have no time and went to train")
    boundaries = None
    if kind is SplitKind.TIME:
        boundaries = find_boundaries(table[TIME], config)
        parts = apply_boundaries(table[TIME], boundaries)
    elif kind is SplitKind.USER_TIME:
        parts = _per_user(table, user, config)
    elif kind is SplitKind.RANDOM:
        parts = _at_random(table.height, config, seed)
    else:
        parts, boundaries, told = _from_column(table, config, seed, has_time)
        warnings += told
    refuse_empty(_counted(parts), config)
    warnings += check_no_future(parts, table, kind, has_time=has_time, user=user)
    return Assignment(parts, kind, boundaries, tuple(warnings))


def _per_user(table: pl.DataFrame, user: str, config: SplitConfig) -> pl.Series:
    """RecBole's ratio rule: of n rows int(n * share) go to a part, one more where that is 0 and train keeps one."""
    validation, test = config.shares()
    size = pl.len().over(user)
    rank = pl.int_range(pl.len()).over(user)
    num_test = _floor(size * test)
    num_test = pl.when((num_test == 0) & (size - _floor(size * validation) > 1)).then(1).otherwise(num_test)
    num_validation = _floor(size * validation)
    num_validation = (
        pl.when((num_validation == 0) & (size - num_test > 1)).then(1).otherwise(num_validation)
    )  # fmt: skip
    part = (
        pl.when(rank >= size - num_test)
        .then(pl.lit(TEST))
        .when(rank >= size - num_test - num_validation)
        .then(pl.lit(VALIDATION))
        .otherwise(pl.lit(TRAIN))
    )
    ordered = table.select(user, TIME).with_row_index(_ORDER).sort(TIME, _ORDER, nulls_last=False)
    return ordered.with_columns(part.cast(PART_TYPE).alias(PART)).sort(_ORDER)[PART]


def _floor(value: pl.Expr) -> pl.Expr:
    return (value + 1e-9).floor().cast(pl.Int64)


def _at_random(height: int, config: SplitConfig, seed: int) -> pl.Series:
    """Exact shares of a seeded permutation; a non-empty log of three rows or more leaves no part empty."""
    place = np.empty(height, dtype=np.int64)
    place[numpy_generator(seed, "split").permutation(height)] = np.arange(height)
    num_validation, num_test = (max(1, round(height * share)) for share in config.shares())
    codes = np.where(place < num_test, 2, np.where(place < num_test + num_validation, 1, 0))
    return _decode(codes)


def _decode(codes: Counts) -> pl.Series:
    return pl.Series(PART, list(PARTS), dtype=PART_TYPE).gather(pl.Series(codes, dtype=pl.UInt32))


def _from_column(
    table: pl.DataFrame, config: SplitConfig, seed: int, has_time: bool
) -> tuple[pl.Series, Boundaries | None, list[str]]:
    """Return the data's own parts; without validation rows, the last (or a random) share of train is it."""
    where = f"split.column = {config.column!r}"
    if PART not in table.columns:
        raise InputError(Problem(where, "the log has no such column", "name the column that says train or test"))
    parts = table[PART].cast(PART_TYPE)
    if parts.null_count():
        remedy = "give each row one of train, validation, test"
        raise InputError(Problem(where, "rows without a part", remedy, count=parts.null_count()))
    if (parts == VALIDATION).any() or not (parts == TRAIN).any():
        return parts, None, []
    held_out = (parts == TRAIN).to_numpy()
    share, _ = config.shares()
    distinct, before = change_counts(table.filter(parts == TRAIN)[TIME]) if has_time else (pl.Series(), np.zeros(0))
    if len(before) > 1:
        dated = table.filter(parts == TRAIN)[TIME].count()
        instant, _ = cut_near(distinct, before.astype(np.int64), dated * (1 - share), 1, len(before))
        held_out &= (table[TIME] >= instant).fill_null(False).to_numpy()
        told = f"no row is validation: the last {share:.0%} of train by time became it"
        return _mark(parts, held_out), Boundaries(instant, None), [told]
    rows = np.flatnonzero(held_out)
    chosen = numpy_generator(seed, "split").permutation(rows)[: max(1, round(len(rows) * share))]
    held_out[:] = False
    held_out[chosen] = True
    return _mark(parts, held_out), None, [f"no row is validation: a random {share:.0%} of train became it"]


def _mark(parts: pl.Series, held_out: npt.NDArray[Any]) -> pl.Series:
    return _decode(np.where(held_out, 1, parts.to_physical().to_numpy()))


def refuse_empty(counts: Mapping[str, int], config: SplitConfig) -> None:
    """Raise InputError with a problem for every part without a row."""
    problems = [
        Problem(
            "split",
            f"the {part} part is empty ({sum(counts.values()):,} rows in all)",
            f"name {part} rows in column {config.column!r}"
            if config.kind is SplitKind.COLUMN
            else "give larger shares or earlier or later instants, or more data",
        )
        for part in PARTS
        if not counts.get(part)
    ]
    if problems:
        raise InputError(problems)


def check_no_future(
    parts: pl.Series, frame: pl.DataFrame, kind: SplitKind, *, has_time: bool, user: str = USER
) -> list[str]:
    """Check that no part holds what came after a later part, and return what is worth a warning.

    time: every row of a part lies strictly before every row of the next. user_time: the same within each user, equal
    times allowed (their order is that of the rows). column: an overlap in time is the data's own choice, told with
    counts. random: nothing to check. Raises InputError with a count and an example otherwise.
    """
    if not has_time or kind is SplitKind.RANDOM:
        return []
    group = [user] if kind is SplitKind.USER_TIME else []
    table = frame.select(TIME, *group).with_columns(parts.alias(PART)).lazy()
    return future_in_the_past(table, _counted(parts), kind, group)


def future_in_the_past(
    table: pl.LazyFrame, counts: Mapping[str, int], kind: SplitKind, group: Sequence[str] = ()
) -> list[str]:
    """Check `time` and `part` (and the columns of `group`, within which to look) as `check_no_future` says."""
    table, facts = table.drop_nulls(TIME), []
    starts = {} if group else _starts(table)
    looked_at = ((TRAIN, VALIDATION), (TRAIN, TEST), (VALIDATION, TEST))
    wrong = []
    for earlier, later in looked_at:
        first = pl.col(TIME).filter(pl.col(PART) == later).min()
        start = first.over(group) if group else pl.lit(starts.get(later), dtype=TIME_TYPE)
        late = pl.col(TIME) > start if group else pl.col(TIME) >= start
        wrong.append((pl.col(PART) == earlier) & late.fill_null(False))
    counted = table.select(one.sum().alias(str(at)) for at, one in enumerate(wrong)).collect(engine="streaming").row(0)
    for (earlier, later), found, count in zip(looked_at, wrong, counted, strict=True):
        if count == 0:
            continue
        told = f"{earlier} rows that do not come before the first {later} row"
        if kind is not SplitKind.COLUMN:
            raise InputError(
                Problem(
                    "split", told, "this is a fault of the split, not of the data: please report it",
                    count=count, example=str(table.filter(found).head(1).collect().row(0, named=True)),
                )
            )  # fmt: skip
        facts.append(f"{count:,} of {counts[earlier]:,} {told} (the data's own split)")
    return facts


def _starts(table: pl.LazyFrame) -> dict[str, Any]:
    """Return the first time of each part."""
    return dict(table.group_by(PART).agg(pl.col(TIME).min()).collect(engine="streaming").iter_rows())


def assign_exposures(
    exposures: pl.DataFrame,
    events: pl.DataFrame,
    assignment: Assignment,
    config: SplitConfig,
    seed: int,
    *,
    user: str = USER,
    item: str = ITEM,
) -> pl.Series:
    """Return a part for each exposure, aligned to its rows, in step with the parts of the events of the same log.

    Kinds time and column use the boundaries of the events (a column's own word stands for test). Otherwise an exposure
    that became an event (same user, item and time) takes that event's part, the latest of several; the others go by
    the times at which their user's parts start (user_time; users without events are train) or are drawn (random).
    """  # fmt: skip
    if assignment.kind is SplitKind.TIME and assignment.boundaries is not None:
        return apply_boundaries(exposures[TIME], assignment.boundaries)
    if assignment.kind is SplitKind.COLUMN:
        parts = exposures[PART].cast(PART_TYPE)
        if assignment.boundaries is None:
            return parts
        cut = (exposures[TIME] >= assignment.boundaries.validation).fill_null(False) & (parts == TRAIN)
        return _mark(parts, cut.to_numpy())
    keys = [user, item, TIME]
    done = events.select(keys).with_columns(assignment.parts.alias(PART))
    met = done.group_by(keys).agg(pl.col(PART).max())
    own = exposures.select(keys).join(met, on=keys, how="left", nulls_equal=True, maintain_order="left")[PART]
    if assignment.kind is SplitKind.RANDOM:
        return own.zip_with(own.is_not_null(), _at_random(exposures.height, config, seed))
    begin = done.group_by(user).agg(
        *(pl.col(TIME).filter(pl.col(PART) == part).min().alias(part) for part in (VALIDATION, TEST))
    )
    later = (
        pl.when(pl.col(TIME) >= pl.col(TEST)).then(pl.lit(TEST))
        .when(pl.col(TIME) >= pl.col(VALIDATION)).then(pl.lit(VALIDATION))
        .otherwise(pl.lit(TRAIN)).cast(PART_TYPE).alias(PART)
    )  # fmt: skip
    by_time = exposures.select(user, TIME).join(begin, on=user, how="left", maintain_order="left").select(later)[PART]
    return own.zip_with(own.is_not_null(), by_time)
