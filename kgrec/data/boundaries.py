"""What a split is asked for, and the instants at which its parts begin.

A boundary is an instant and belongs to the later part: train is [start, validation), validation is [validation, test),
test is [test, end).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kgrec.columns import PART, PART_TYPE, TEST, TIME, TIME_TYPE, TRAIN, VALIDATION
from kgrec.errors import InputError, Problem
from kgrec.graph.merging import run_starts

Counts = npt.NDArray[np.int64]


class SplitKind(StrEnum):
    """How rows are given to parts."""

    TIME = "time"
    COLUMN = "column"
    USER_TIME = "user_time"
    RANDOM = "random"


LABELS = {
    SplitKind.TIME: "time: global",
    SplitKind.COLUMN: "column: as the data says",
    SplitKind.USER_TIME: "user_time: per user, not by global time",
    SplitKind.RANDOM: "random: per row, not by time",
}


class SplitConfig(BaseModel):
    """Who is train, validation and test."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: SplitKind = Field(
        SplitKind.TIME,
        description="time: the last shares of the log, globally by time (random where the log has no time). column: "
        "the data says itself. user_time: the last shares of each user's rows. random: per row, seeded.",
    )
    validation: float | datetime = Field(
        0.1,
        description="Share of all rows, in (0, 1), or for kind time the ISO instant (UTC) at which validation starts. "
        "Kind column: the share of train that becomes validation when the column names no validation row.",
    )
    test: float | datetime = Field(
        0.1,
        description="Share of all rows, in (0, 1), or for kind time the ISO instant (UTC) at which test starts.",
    )
    column: str = Field(
        "split",
        min_length=1,
        description="Kind column: the column whose values are train, validation (or valid, val, dev) and test.",
    )

    @field_validator("validation", "test", mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("a share in (0, 1) or an instant is needed, not true or false")
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day, tzinfo=UTC)
        if isinstance(value, int | float):
            if not 0 < value < 1:
                raise ValueError(f"a share lies in (0, 1), {value} does not")
            return float(value)
        return value

    @model_validator(mode="after")
    def _check(self) -> SplitConfig:
        shares = [value for value in (self.validation, self.test) if isinstance(value, float)]
        if len(shares) == 2 and sum(shares) >= 1:
            raise ValueError(f"validation and test together take {sum(shares):g} of the rows; leave some for train")
        if len(shares) < 2 and self.kind is not SplitKind.TIME:
            raise ValueError(f'an instant as boundary needs kind = "time", not "{self.kind}"')
        if isinstance(self.validation, datetime) and isinstance(self.test, datetime) and self.validation >= self.test:
            raise ValueError("validation must start before test")
        return self

    def shares(self) -> tuple[float, float]:
        """Return the shares of validation and test; TypeError when one is an instant (kind time only)."""
        if isinstance(self.validation, datetime) or isinstance(self.test, datetime):
            raise TypeError("this split is given by instants")
        return self.validation, self.test


@dataclass(frozen=True)
class Boundaries:
    """The instants (UTC) at which validation and test start. `test` is None where the data itself names the test."""

    validation: datetime
    test: datetime | None


def find_boundaries(time: pl.Series, config: SplitConfig) -> Boundaries:
    """Return the instants behind which the last shares of the rows fall; equal times are never parted.

    A share that falls amid equal times moves to the nearest change of time that leaves no part empty. Shares are of
    the rows that have a time. Raises InputError when there are too few distinct times.
    """
    distinct, counts = change_counts(time)
    num_rows = time.len() - time.null_count()
    if isinstance(config.test, datetime):
        test, before = config.test, int((time < config.test).sum())
    else:
        test, before = cut_near(distinct, counts, num_rows * (1 - config.test), 2, len(counts))
    if isinstance(config.validation, datetime):
        return Boundaries(config.validation, test)
    inside = int(np.searchsorted(counts, before, side="left"))
    validation, _ = cut_near(distinct, counts, before - num_rows * config.validation, 1, inside)
    return Boundaries(validation, test)


def change_counts(time: pl.Series) -> tuple[pl.Series, Counts]:
    """Return the distinct times in order and, for each, how many rows lie before it. Nulls are left out."""
    times = time.drop_nulls().sort()
    starts = run_starts(times.to_physical().to_numpy()).astype(np.int64)
    return times.gather(starts), starts


def cut_near(distinct: pl.Series, before: Counts, wanted: float, first: int, stop: int) -> tuple[datetime, int]:
    """Return the change of time nearest to `wanted` rows (the earlier of two) and how many rows lie before it.

    `distinct`, `before`: from `change_counts`; only changes first..stop-1 may be chosen, InputError when there is none.
    """
    if stop <= first:
        raise too_few_times(distinct.len())
    chosen = first + int(np.argmin(np.abs(before[first:stop] - wanted)))
    return distinct[chosen], int(before[chosen])


def too_few_times(distinct: int) -> InputError:
    """Return the error of a log that cannot be cut into three parts by time."""
    what = f"{distinct} distinct times are too few for three parts by time"
    return InputError(Problem("split", what, 'give instants that lie inside the log, or kind = "random"'))


def part_at(boundaries: Boundaries) -> pl.Expr:
    """Return the part of a row by its column `time`; as `apply_boundaries`."""
    part = pl.when(pl.col(TIME) >= boundaries.validation).then(pl.lit(VALIDATION)).otherwise(pl.lit(TRAIN))
    if boundaries.test is not None:
        part = pl.when(pl.col(TIME) >= boundaries.test).then(pl.lit(TEST)).otherwise(part)
    return part.cast(PART_TYPE)


def apply_boundaries(time: pl.Series, boundaries: Boundaries) -> pl.Series:
    """Return each row's part; a row without a time is train. A boundary belongs to the later part.

    Where `boundaries.test` is None, nothing becomes test.
    """
    return time.cast(TIME_TYPE).alias(TIME).to_frame().select(part_at(boundaries).alias(PART))[PART]
