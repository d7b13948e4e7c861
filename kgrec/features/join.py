"""The point-in-time join: to each event the latest row of each feature table that was known strictly before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from kgrec.columns import KNOWN_AT, TIME, TIME_TYPE
from kgrec.errors import InputError, Problem, nearest

_TICK = timedelta(microseconds=1)
_AT, _EVENT, _ROW, _BORN = "__at", "__event", "__row", "__born"
_Whole = npt.NDArray[np.int64]
Met = tuple[_Whole, _Whole, _Whole]


@dataclass(frozen=True)
class TimedFeatures:
    """Rows of features that anybody computed: keys, `known_at` (when a row could first be read), features.

    name: columns become `name__column`. ttl: a row older than this is not found; None means no end. Of several rows
    of one key and instant the last one in the table counts: a correction comes after what it corrects.
    """

    name: str
    keys: tuple[str, ...]
    rows: pl.DataFrame
    ttl: timedelta | None = None

    @property
    def columns(self) -> list[str]:
        """The features of the rows."""
        return [name for name in self.rows.columns if name not in (*self.keys, KNOWN_AT)]


def point_in_time_join(events: pl.DataFrame, tables: Sequence[TimedFeatures], time: str = TIME) -> pl.DataFrame:
    """Return the events, all of them in their order, with each table's features as known strictly before.

    Both sides may be in any order and any time zone. An event without a key or a time, or before its key's first row,
    gets nulls. Raises InputError with every missing or doubled column and every time that is
    none.

    >>> at = pl.Series(["2024-01-01 10:00", "2024-01-01 12:00"]).str.to_datetime(time_zone="UTC")
    >>> prices = TimedFeatures("shop", ("item",), pl.DataFrame({"item": ["a", "a"], "known_at": at, "price": [1, 2]}))
    >>> point_in_time_join(pl.DataFrame({"item": ["a", "a"], "time": at}), [prices])["shop__price"].to_list()
    [None, 1]
    """
    _check(events, tables, time)
    found = [events]
    for table in tables:
        named = table.rows.select(pl.col(name).alias(f"{table.name}__{name}") for name in table.columns)
        found.append(named.select(pl.all().gather(_last_before(events, table, time))))
    return pl.concat(found, how="horizontal")


def _last_before(events: pl.DataFrame, table: TimedFeatures, time: str) -> pl.Series:
    """Return per event the position of its key's last row strictly before it, null where there is none.

    Only keys, instants and positions are sorted and joined; the features are gathered once at the end.
    """
    types = {key: events.schema[key] for key in table.keys}
    asked = _instants(events, types, time, _EVENT)
    known = _instants(table.rows, types, KNOWN_AT, _ROW)
    event_M, row_M, age_M = _met_by_number(asked, known, table.keys) or _met_by_join(asked, known, table.keys)
    if table.ttl is not None:
        young_M = age_M <= table.ttl // _TICK
        event_M, row_M = event_M[young_M], row_M[young_M]
    place = np.full(events.height, -1, np.int64)
    place[event_M] = row_M
    return pl.Series(place).set(pl.Series(place < 0), None)


def _met_by_number(asked: pl.DataFrame, known: pl.DataFrame, keys: Sequence[str]) -> Met | None:
    """Return the positions of events and of their rows, and the age of each row, by one search among sorted numbers.

    Keys and instant together make the number; None where a key is no whole number or they do not fit 63 bits.
    """
    number_A, number_K = np.zeros(asked.height, np.int64), np.zeros(known.height, np.int64)
    room = span = 1
    for name in (*keys, _AT):
        sides = [frame[name] for frame in (asked, known)]
        if not all(side.dtype.is_integer() and len(side) for side in sides):
            return None
        low, high = min(int(side.min()) for side in sides), max(int(side.max()) for side in sides)  # type: ignore[arg-type]
        span = high - low + 1
        room *= span
        if room >= 2**63 or not -(2**63) <= low <= high < 2**63:
            return None
        number_A, number_K = (
            number * span + (side.cast(pl.Int64).to_numpy() - low)
            for number, side in zip((number_A, number_K), sides, strict=True)
        )
    asked = pl.DataFrame({_AT: number_A, _EVENT: asked[_EVENT]}).sort(_AT)
    known = pl.DataFrame({_AT: number_K, _ROW: known[_ROW]}).sort(_AT, maintain_order=True)
    number_A, number_K = asked[_AT].to_numpy(), known[_AT].to_numpy()
    place_A = np.searchsorted(number_K, number_A, side="left") - 1
    found_A = number_K[place_A] // span == number_A // span
    found_A &= place_A >= 0
    place_M = place_A[found_A]
    age_M = number_A[found_A] - number_K[place_M]
    return asked[_EVENT].to_numpy()[found_A], known[_ROW].to_numpy()[place_M], age_M


def _met_by_join(asked: pl.DataFrame, known: pl.DataFrame, keys: Sequence[str]) -> Met:
    """Return the same through join_asof, for keys of any type."""
    known = known.sort(_AT, maintain_order=True).with_columns(pl.col(_AT).alias(_BORN))
    met = asked.sort(_AT).join_asof(
        known, on=_AT, by=list(keys), strategy="backward", allow_exact_matches=False, check_sortedness=False
    ).drop_nulls(_ROW)  # fmt: skip
    return met[_EVENT].to_numpy(), met[_ROW].to_numpy(), (met[_AT] - met[_BORN]).to_numpy()


def _instants(frame: pl.DataFrame, keys: Mapping[str, pl.DataType], time: str, position: str) -> pl.DataFrame:
    """Return the keys, the instant in microseconds and the position of each row that has them all."""
    return frame.select(
        *(pl.col(key).cast(dtype, strict=False) for key, dtype in keys.items()),
        pl.col(time).cast(TIME_TYPE).to_physical().alias(_AT),
        pl.int_range(pl.len()).alias(position),
    ).drop_nulls()


def _check(events: pl.DataFrame, tables: Sequence[TimedFeatures], time: str) -> None:
    problems = [*_lacking("events", events, [time]), *_untimed("events", events, time)]
    names = list(events.columns)
    for table in tables:
        where = f"feature table {table.name!r}"
        problems += _lacking(where, table.rows, [*table.keys, KNOWN_AT])
        problems += _lacking("events", events, table.keys)
        problems += _untimed(where, table.rows, KNOWN_AT)
        made = [f"{table.name}__{name}" for name in table.columns]
        twice = sorted(set(made) & set(names))
        names += made
        problems += [Problem(where, f"the column {name!r} is there already", "rename the table") for name in twice]
    if problems:
        raise InputError(problems)


def _lacking(where: str, frame: pl.DataFrame, needed: Sequence[str]) -> list[Problem]:
    problems = []
    for name in needed:
        if name not in frame.columns:
            guess = nearest(name, frame.columns)
            remedy = f"rename {guess!r} to {name!r}" if guess else f"add the column {name!r}"
            problems.append(Problem(where, f"no column {name!r}", remedy, example=", ".join(frame.columns)))
    return problems


def _untimed(where: str, frame: pl.DataFrame, time: str) -> list[Problem]:
    if time not in frame.columns or isinstance(frame.schema[time], pl.Datetime):
        return []
    remedy = "parse it first, for example with str.to_datetime(time_zone='UTC')"
    return [Problem(where, f"the column {time!r} is no time but {frame.schema[time]}", remedy)]
