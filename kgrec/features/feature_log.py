"""The rows that features are made of, in memory or in files, read a part at a time with what is known beside them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Final

import polars as pl

from kgrec.columns import ITEM_ROW, PART, TEST, TIME, TIME_TYPE, TRAIN, USER_ROW, VALIDATION
from kgrec.features.keys import in_utc
from kgrec.features.latest import request_columns
from kgrec.features.view import EVENTS, LABELLED

ROW: Final = "__row"
SOURCE: Final = "__source"
_TICK: Final = timedelta(microseconds=1)


@dataclass(frozen=True)
class Sighting:
    """Whose rows may be seen (`sources`) by those that are described (`targets`); by the parts of a split."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]


SIGHTINGS: Final = (Sighting((TRAIN,), (TRAIN, VALIDATION)), Sighting((TRAIN, VALIDATION), (TEST,)))


@dataclass(frozen=True)
class Span:
    """How many rows there are and when: instants in microseconds, None where no row has a time.

    undated: labelled rows without a time. ends: for each of SIGHTINGS the time of the last row that may be seen.
    """

    labelled: int
    undated: int
    rows: int
    first: int | None
    last: int | None
    ends: tuple[int | None, ...]

    def asked_at(self, sighting: int) -> pl.Expr:
        """Return the instant (microseconds) as of which a row is described; an undated one before everything."""
        time, end = pl.col(TIME).to_physical(), self.ends[sighting]
        frozen = time if end is None else pl.min_horizontal(time, pl.lit(end + 1, dtype=pl.Int64))
        at = pl.when(pl.col(PART) == TRAIN).then(time).otherwise(frozen)
        return pl.when(pl.col(TIME).is_null()).then(pl.lit(self.first, dtype=pl.Int64)).otherwise(at)


@dataclass(frozen=True)
class FeatureLog:
    """Labelled rows, and events where a view reads them, with side features and the context columns.

    labelled: `user_row`, `item_row`, `part`, and where the data has them `time` (UTC), labels and context. Whatever is
    read keeps the order of the log; `__row` is a labelled row's place in it, and a column of its own where these rows
    are but a part of the log; `__source` tells the two apart.
    """

    labelled: pl.LazyFrame
    events: pl.LazyFrame | None
    side_users: pl.DataFrame | None
    side_items: pl.DataFrame | None
    context: tuple[str, ...]

    @classmethod
    def of(
        cls, labelled: pl.DataFrame | pl.LazyFrame, events: pl.DataFrame | pl.LazyFrame | None,
        side_users: pl.DataFrame | None, side_items: pl.DataFrame | None, context: Sequence[str],
    ) -> FeatureLog:  # fmt: skip
        """Return the log of these tables, times in UTC."""
        acts = None if events is None else in_utc(events.lazy())
        return cls(in_utc(labelled.lazy()), acts, side_users, side_items, tuple(context))

    @cached_property
    def schema(self) -> Mapping[str, pl.DataType]:
        """The columns of a labelled row with all that is known beside it, in order."""
        return self.described(self.labelled.head(0).collect()).schema

    def described(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows with the columns of `request_columns` after their own."""
        beside = self.beside(rows)
        return pl.concat([rows.select(pl.exclude(beside.columns)), beside], how="horizontal")

    def beside(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return what is known of rows without any history."""
        return request_columns(rows, self.side_users, self.side_items, self.context)

    def piece(self, start: int, rows: int) -> pl.DataFrame:
        """Return labelled rows that follow each other."""
        return self.labelled.slice(start, rows).collect()

    def span(self) -> Span:
        """Return how many rows there are and when."""
        sources = [one for one in (self.labelled, self.events) if one is not None]
        times = [pl.len().alias("rows"), pl.col(TIME).null_count().alias("undated")]
        times += [pl.col(TIME).min().alias("first"), pl.col(TIME).max().alias("last")]
        times += [
            pl.col(TIME).filter(pl.col(PART).is_in(one.sources)).max().alias(f"end {n}")
            for n, one in enumerate(SIGHTINGS)
        ]
        found = pl.concat(one.select(times).with_columns(pl.col(pl.Datetime).to_physical()) for one in sources)
        facts = found.collect(engine="streaming")
        ends = tuple(facts[f"end {n}"].max() for n in range(len(SIGHTINGS)))
        labelled, undated, total = facts["rows"][0], facts["undated"][0], int(facts["rows"].sum())
        return Span(labelled, undated, total, facts["first"].min(), facts["last"].max(), ends)  # type: ignore[arg-type]

    def counted(self, column: str) -> pl.DataFrame:
        """Return each value of a column, ascending, and how many rows of all sources have it (`len`)."""
        sources = [one.select(column) for one in (self.labelled, self.events) if one is not None]
        return pl.concat(sources).group_by(column).len().sort(column).collect(engine="streaming")

    def read(self, needed: Collection[str]) -> pl.DataFrame:
        """Return the needed columns of the rows of all sources: `__row` and `__source`, labelled rows first."""
        shown = self.labelled_where(needed, lambda rows: rows).with_columns(pl.lit(LABELLED.name).alias(SOURCE))
        if self.events is None:
            return shown
        found = self._taken(self.events, needed, ()).with_columns(pl.lit(EVENTS.name).alias(SOURCE))
        return pl.concat([shown, found], how="diagonal")

    def of_source(self, name: str, needed: Collection[str]) -> pl.DataFrame:
        """Return time, part and the needed own columns of the rows of one source."""
        rows = self.events if name == EVENTS.name and self.events is not None else self.labelled
        wanted = {TIME, PART, *needed}
        return rows.select(one for one in rows.collect_schema() if one in wanted).collect(engine="streaming")

    def labelled_where(
        self, needed: Collection[str], cut: Callable[[pl.LazyFrame], pl.LazyFrame], start: int = 0,
        rows: int | None = None,
    ) -> pl.DataFrame:  # fmt: skip
        """Return the needed columns, and `__row`, of labelled rows from a place on, as the function cuts them."""
        some = self.labelled if rows is None else self.labelled.slice(start, rows)
        return self._taken(cut(numbered(some, start)), {ROW, *needed}, self.context)

    def _taken(self, rows: pl.LazyFrame, needed: Collection[str], context: Sequence[str]) -> pl.DataFrame:
        own = rows.collect_schema().names()
        users, items = (
            _narrowed(table, prefix, key, needed)
            for table, prefix, key in ((self.side_users, "user:", USER_ROW), (self.side_items, "item:", ITEM_ROW))
        )
        keys = {key for table, key in ((users, USER_ROW), (items, ITEM_ROW)) if table is not None}
        base = rows.select(name for name in own if name in needed or name in keys or name in (TIME, PART))
        held = base.collect(engine="streaming")
        beside = request_columns(held, users, items, [name for name in context if name in needed])
        held = pl.concat([held.select(pl.exclude(beside.columns)), beside], how="horizontal")
        return held.select(name for name in held.columns if name in needed or name in (TIME, PART))


def numbered(labelled: pl.LazyFrame, start: int = 0) -> pl.LazyFrame:
    """Return labelled rows with their place in the log, `__row`, which those of a part of it have already."""
    return labelled if ROW in labelled.collect_schema() else labelled.with_row_index(ROW, start)


def _narrowed(table: pl.DataFrame | None, prefix: str, key: str, needed: Collection[str]) -> pl.DataFrame | None:
    """Return the key and the needed side features, None where none is needed."""
    if table is None:
        return None
    names = [name for name in table.columns if name != key and f"{prefix}{name}" in needed]
    return table.select(key, *names) if names else None


def as_time(instant: int | None) -> pl.Expr:
    """Return an instant (microseconds) as a time."""
    return pl.lit(instant, dtype=pl.Int64).cast(TIME_TYPE)
