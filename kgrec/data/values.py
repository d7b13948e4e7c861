"""What a raw column means: ids as text, times in UTC, numbers, 0/1 labels, parts of a split; null where unreadable.

Each function returns a polars expression over the source's column, so that a whole log is parsed lazily.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from kgrec.columns import PART_TYPE, TEST, TIME_TYPE, TRAIN, VALIDATION
from kgrec.data.checks import Findings
from kgrec.data.sources import Table, reading
from kgrec.errors import Problem, nearest

_INTEGERS: Final = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
_EXACT_FLOATS: Final = 2.0**53
_ISO_WITH_ZONE: Final = "%Y-%m-%dT%H:%M:%S%.f%#z"
_ISO_NAIVE: Final = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M")
_PARTS: Final = {
    TRAIN: TRAIN, VALIDATION: VALIDATION, "valid": VALIDATION, "val": VALIDATION, "dev": VALIDATION, TEST: TEST,
}  # fmt: skip


def find_column(
    table: Table, key: str, asked: str | None, defaults: Sequence[str], findings: Findings, *, needed: bool = False
) -> str | None:
    """Return the column a role is read from, or None; a column that must exist and does not is a Problem.

    `key` is the config key that names it, `asked` its value there, `defaults` the names tried when it is not set.
    """
    columns = list(table.schema())
    if asked is None:
        found = next((name for name in defaults if name in columns), None)
        if found is not None or not needed:
            return found
    elif asked in columns:
        return asked
    wanted = asked or defaults[0]
    close = nearest(wanted, columns)
    hint = f"did you mean {close!r}?" if close else f"the columns are {', '.join(columns[:12])}"
    problem = Problem(table.name, f"there is no column {wanted!r}", f"set {key}: {hint}", 1, f"{key} = {wanted!r}")
    findings.problems.append(problem)
    return None


def id_text(column: str, dtype: pl.DataType) -> pl.Expr:
    """Return ids as stripped text, null where null or blank; floats must have been checked by `check_ids`."""
    raw = pl.col(column)
    if dtype in _INTEGERS:
        return raw.cast(pl.String)
    if dtype.is_float() or dtype.is_decimal():
        return raw.cast(pl.Float64).cast(pl.Int64, strict=False).cast(pl.String)
    text = raw.cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text)


def id_kept(column: str, dtype: pl.DataType) -> pl.Expr:
    """Return ids as they are kept on the way to text: integers where the source has them, which differ as texts do.

    `pl.String` of what this returns is what `id_text` returns.
    """
    return pl.col(column) if dtype in _INTEGERS else id_text(column, dtype)


def check_ids(table: Table, columns: Sequence[str | None], findings: Findings) -> bool:
    """Say whether the columns can be ids; a Problem for types that cannot, and for floats that are no integers."""
    schema, good = table.schema(), True
    for column in columns:
        if column is None:
            continue
        dtype = schema[column]
        if not (dtype.is_integer() or dtype.is_float() or dtype.is_decimal() or dtype in (pl.String, pl.Null)):
            remedy = "cast it to integers or text"
            what = f"column {column!r} has the type {dtype}, which cannot be an id"
            findings.problems.append(Problem(table.name, what, remedy, 1, f"{column}: {dtype}"))
            good = False
        elif dtype.is_float() or dtype.is_decimal():
            value = pl.col(column).cast(pl.Float64).fill_nan(None)
            broken = table.frame.select(value.filter((value % 1 != 0) | (value.abs() >= _EXACT_FLOATS)).alias(column))
            with reading(table.name):
                count, example = broken.select(pl.len(), pl.col(column).first()).collect(engine="streaming").row(0)
            if count:
                what = f"column {column!r} holds floats that are no integers, which cannot be ids"
                remedy = "cast the ids to integers or text where the table is made"
                findings.problems.append(Problem(table.name, what, remedy, count, f"{column} = {example!r}"))
                good = False
    return good


def is_blank(column: str, dtype: pl.DataType) -> pl.Expr:
    """Return where a value is missing: null, NaN, or text without a character."""
    raw = pl.col(column)
    if dtype.is_float():
        return raw.is_null() | raw.is_nan()
    return raw.is_null() | (raw.str.strip_chars() == "") if dtype == pl.String else raw.is_null()


def time_of(column: str, dtype: pl.DataType) -> pl.Expr:
    """Return instants in UTC, null where unreadable.

    Numbers count seconds, milli-, micro- or nanoseconds since 1970, by magnitude: below 1e11 seconds, below 1e14
    milliseconds, below 1e17 microseconds. Text is such a number or ISO 8601; without a zone it is UTC.
    """
    raw = pl.col(column)
    if isinstance(dtype, pl.Datetime):
        aware = raw.dt.replace_time_zone("UTC") if dtype.time_zone is None else raw.dt.convert_time_zone("UTC")
        return aware.cast(TIME_TYPE)
    if dtype == pl.Date:
        return raw.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if dtype.is_numeric():
        return _instant(raw, is_float=not dtype.is_integer())
    if dtype != pl.String:
        return pl.lit(None, TIME_TYPE)
    text = raw.str.strip_chars()
    iso = text.str.replace(" ", "T", literal=True)
    forms = [iso.str.to_datetime(_ISO_WITH_ZONE, time_unit="us", time_zone="UTC", strict=False)]
    forms += [
        iso.str.to_datetime(form, time_unit="us", strict=False).dt.replace_time_zone("UTC") for form in _ISO_NAIVE
    ]
    day = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    whole = _instant(text.cast(pl.Int64, strict=False), is_float=False)
    return pl.coalesce(whole, _instant(text.cast(pl.Float64, strict=False), is_float=True), *forms, day)


def _instant(number: pl.Expr, *, is_float: bool) -> pl.Expr:
    if is_float:
        finite = pl.when(number.is_finite() & (number.abs() < 9e18)).then(number)
        size = finite.abs()
        factor = pl.when(size < 1e11).then(1e6).when(size < 1e14).then(1e3).when(size < 1e17).then(1.0).otherwise(1e-3)
        return (finite * factor).round().cast(pl.Int64, strict=False).cast(TIME_TYPE)
    whole = number.cast(pl.Int64, strict=False)
    size = whole.abs()
    scaled = (
        pl.when(size < 10**11).then(whole * 10**6)
        .when(size < 10**14).then(whole * 10**3)
        .when(size < 10**17).then(whole)
        .otherwise(whole // 10**3)
    )  # fmt: skip
    return scaled.cast(TIME_TYPE)


def number_of(column: str, dtype: pl.DataType) -> pl.Expr:
    """Return numbers, null where the value is missing, no number or not finite."""
    raw = pl.col(column)
    if dtype == pl.String:
        raw = raw.str.strip_chars()
    elif not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
        return pl.lit(None, pl.Float64)
    value = raw.cast(pl.Float64, strict=False)
    return pl.when(value.is_finite()).then(value)


def flag_of(column: str, dtype: pl.DataType) -> pl.Expr:
    """Return 0/1 labels as booleans, null where the value is neither."""
    raw = pl.col(column)
    if dtype == pl.Boolean:
        return raw
    if dtype.is_numeric():
        return pl.when(raw.cast(pl.Float64) == 1).then(True).when(raw.cast(pl.Float64) == 0).then(False)
    if dtype != pl.String:
        return pl.lit(None, pl.Boolean)
    text = raw.str.strip_chars().str.to_lowercase()
    truths: Mapping[str, bool] = {"1": True, "0": False, "true": True, "false": False}
    return text.replace_strict(truths, default=None, return_dtype=pl.Boolean)


def part_of(column: str, dtype: pl.DataType) -> pl.Expr:
    """Return the part of the split that a value names (valid, val and dev mean validation), null for other values."""
    if dtype != pl.String:
        return pl.lit(None, PART_TYPE)
    text = pl.col(column).str.strip_chars().str.to_lowercase()
    return text.replace_strict(_PARTS, default=None, return_dtype=pl.String).cast(PART_TYPE)
