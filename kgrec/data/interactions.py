"""The interaction log: read, checked row by row, turned into events and exposures.

Source order is kept and nothing is sorted. Time is UTC. Events that no role names are counted and left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import polars as pl

from kgrec.artifacts import fingerprint
from kgrec.columns import (
    CLICK,
    CONVERSION,
    EVENT,
    EVENTS_SCHEMA,
    IMPRESSION,
    ITEM,
    PART,
    RANDOM,
    TIME,
    TIME_TYPE,
    USER,
    VALUE,
)
from kgrec.data.checks import Fault, Findings, Sifted, Tolerance, sift
from kgrec.data.exposures import judge_impressions
from kgrec.data.partitions import FOLDER
from kgrec.data.roles import EventRole, InteractionsConfig, folded, holds, named
from kgrec.data.sources import Table, materialise, reading
from kgrec.data.values import check_ids, find_column, flag_of, id_kept, is_blank, number_of, part_of, time_of
from kgrec.errors import Problem

__all__ = ["InteractionsConfig", "Log", "read_interactions"]

INPUT: Final = "interactions"
_CLOCK_SKEW: Final = timedelta(days=1)
_NO_EVENT: Final = "(no event name)"
_BLANK_TIME: Final = "__blank_time__"
_BYTES_TO_JUDGE: Final = 160  # of a row while impressions and what came of them are joined: ids as text, sorted, joined


@dataclass(frozen=True)
class Log:
    """A log that was read.

    events: `EVENTS_SCHEMA` (plus `part`, plus context in layout "events"). exposures: `EXPOSURES_SCHEMA` (plus
    context, `part`) or None. ids: `user`, `item` of every kept row in source order, text or what text is made of.
    labels: which of click and conversion there are.
    """

    events: pl.LazyFrame
    exposures: pl.LazyFrame | None
    ids: pl.LazyFrame
    labels: tuple[str, ...]
    has_time: bool
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class _Columns:
    """The source columns in use, by role; None where the source has none."""

    user: str
    item: str
    event: str | None
    time: str | None
    value: str | None
    part: str | None
    labels: Mapping[str, str]


def read_interactions(
    config: InteractionsConfig,
    base: Path,
    scratch: Path,
    findings: Findings,
    *,
    now: datetime,
    split_column: str | None = None,
) -> Log | None:
    """Read a log; None when faults were found (they are in `findings`). Times after `now` plus a day are faults.

    Raises InputError when the source cannot be read at all.
    """
    table = materialise(config, base, scratch)
    columns = _find_columns(config, table, findings, split_column)
    if columns is None or not check_ids(table, [columns.user, columns.item], findings):
        return None
    schema = table.schema()
    some_time = pl.lit(False) if columns.time is None else (~is_blank(columns.time, schema[columns.time])).any()
    with reading(table.name):
        rows, has_time = table.frame.select(pl.len(), some_time.alias(TIME)).collect(engine="streaming").row(0)
    if rows == 0:
        remedy = "check the path or the query; a log needs at least one event"
        findings.problems.append(Problem(table.name, "the log has no rows", remedy, 0, "0 data rows"))
        return None
    before = len(findings.problems)
    sifted = _sift_log(config, table, columns, findings, now if has_time else None)
    if len(findings.problems) > before:
        return None
    extra = [*([PART] if columns.part else []), *config.context, *([RANDOM] if config.random else [])]
    shares = max(1, -(-sifted.rows_in // findings.resources.rows(_BYTES_TO_JUDGE)))
    log = _by_events(config, sifted, extra, bool(has_time), shares) if config.layout == "events" else None
    log = log or _by_impressions(sifted, extra, tuple(columns.labels), bool(has_time))
    facts = findings.inputs[INPUT]
    facts["left_out"] = dict(log.left_out)
    facts["kept"] -= sum(log.left_out.values())
    return log if _has_behaviour(config, table, sifted, log, findings) else None


def _find_columns(
    config: InteractionsConfig, table: Table, findings: Findings, split_column: str | None
) -> _Columns | None:
    before, key = len(findings.problems), "interactions.columns"
    user = find_column(table, f"{key}.user", config.columns.user, [USER], findings, needed=True)
    item = find_column(table, f"{key}.item", config.columns.item, [ITEM], findings, needed=True)
    event = None
    if config.layout == "events":
        event = find_column(table, f"{key}.event", config.columns.event, [EVENT], findings)
    time = find_column(table, f"{key}.time", config.columns.time, ["timestamp", TIME], findings)
    value = find_column(table, f"{key}.value", config.columns.value, [VALUE], findings)
    part = find_column(table, "split.column", split_column, [], findings) if split_column else None
    for key_of, name in [("context", name) for name in config.context] + [("random", config.random)]:
        if name is not None:
            find_column(table, f"interactions.{key_of}", name, [], findings)
    labels = _find_labels(config, table, findings) if config.layout == "impressions" else {}
    schema = table.schema()
    if time is not None and not (
        schema[time].is_numeric() or isinstance(schema[time], pl.Datetime | pl.Date | pl.String | pl.Null)
    ):
        what, remedy = f"column {time!r} has the type {schema[time]}, which is no time", "cast it to a timestamp"
        findings.problems.append(Problem(table.name, what, remedy, 1, f"{time}: {schema[time]}"))
    if config.layout == "events" and event is None and config.roles.model_fields_set:
        remedy = "set interactions.columns.event, or remove interactions.roles: then every row is a click"
        what = "roles name events, but the log has no event column"
        findings.problems.append(Problem(table.name, what, remedy, 1, ", ".join(list(schema)[:12])))
    if len(findings.problems) > before or user is None or item is None:
        return None
    return _Columns(user, item, event, time, value, part, labels)


def _find_labels(config: InteractionsConfig, table: Table, findings: Findings) -> dict[str, str]:
    if config.labels is None:
        asked: dict[str, str | None] = {name: name if name in table.schema() else None for name in (CLICK, CONVERSION)}
    else:
        asked = {CLICK: config.labels.click, CONVERSION: config.labels.conversion}
    found = {}
    for label, column in asked.items():
        if column and find_column(table, f"interactions.labels.{label}", column, [], findings):
            found[label] = column
    if not any(asked.values()):
        remedy = "set interactions.labels.click or .conversion to a 0/1 column"
        what = 'layout "impressions" needs a label column'
        findings.problems.append(Problem(table.name, what, remedy, 1, ", ".join(list(table.schema())[:12])))
    return found


def _sift_log(
    config: InteractionsConfig, table: Table, columns: _Columns, findings: Findings, now: datetime | None
) -> Sifted:
    """The canonical values of each good row, ids as they are kept. `now` is None when the log has no time."""
    schema = table.schema()
    values = {
        USER: id_kept(columns.user, schema[columns.user]),
        ITEM: id_kept(columns.item, schema[columns.item]),
        TIME: time_of(columns.time, schema[columns.time]) if columns.time and now else pl.lit(None, TIME_TYPE),
        VALUE: number_of(columns.value, schema[columns.value]) if columns.value else pl.lit(None, pl.Float64),
    }
    derived: dict[str, pl.Expr] = {}
    concerns: pl.Expr | None = None
    needs_value = pl.lit(False)
    if columns.labels:
        values |= {label: flag_of(column, schema[column]) for label, column in columns.labels.items()}
    elif columns.event is None:
        values |= {CLICK: pl.lit(True), CONVERSION: pl.lit(False), IMPRESSION: pl.lit(False)}
    else:
        values[EVENT] = folded(pl.col(columns.event)).fill_null("").replace("", _NO_EVENT)
        roles = {role: config.roles.entries(role) for role in (IMPRESSION, CLICK, CONVERSION)}
        every: tuple[EventRole, ...] = sum(roles.values(), ())
        concerns = named(every, pl.col(EVENT))
        needs_value = named(tuple(entry for entry in every if entry.at_least is not None), pl.col(EVENT))
        derived = {role: holds(entries, pl.col(EVENT), pl.col(VALUE)) for role, entries in roles.items()}
    if columns.time and now:
        values[_BLANK_TIME] = is_blank(columns.time, schema[columns.time])
    if columns.part:
        values[PART] = part_of(columns.part, schema[columns.part])
    values |= {RANDOM: flag_of(config.random, schema[config.random])} if config.random else {}
    faults = _faults(columns, needs_value, now)
    if config.random:
        faults.append(Fault("unreadable flag of random rows", pl.col(RANDOM).is_null(), "write 0 or 1"))
    values |= {name: pl.col(name) for name in config.context}
    tolerance = Tolerance(config.tolerated, "interactions.tolerated")
    keep = findings.scratch / FOLDER / fingerprint(config.path)[:16]
    return sift(INPUT, table, values, faults, findings, tolerance, derived=derived, concerns=concerns, keep=keep)


def _faults(columns: _Columns, needs_value: pl.Expr, now: datetime | None) -> list[Fault]:
    faults = [
        Fault("blank user", pl.col(USER).is_null(), "give every row a user id"),
        Fault("blank item", pl.col(ITEM).is_null(), "give every row an item id"),
    ]
    if columns.time and now:
        blank, time = pl.col(_BLANK_TIME), pl.col(TIME)
        faults += [
            Fault("missing time", blank, "give every row a time, or none"),
            Fault("unreadable time", ~blank & time.is_null(), "write times as numbers since 1970 or as ISO 8601"),
            Fault("time in the future", time > now + _CLOCK_SKEW, "check the unit of the times and the clock"),
        ]
    if columns.event:
        remedy = "write a number, since a role asks for at_least"
        faults.append(Fault("unreadable value", needs_value & pl.col(VALUE).is_null(), remedy))
    faults += [
        Fault("unreadable label", pl.col(label).is_null(), f"write 0 or 1 in the column {column!r}")
        for label, column in columns.labels.items()
    ]
    if columns.part:
        remedy = "write train, validation (valid, val, dev) or test"
        faults.append(Fault("unknown split value", pl.col(PART).is_null(), remedy))
    return faults


def _by_events(config: InteractionsConfig, sifted: Sifted, extra: list[str], has_time: bool, shares: int) -> Log:
    rows = sifted.frame
    happened = pl.col(CLICK) | pl.col(CONVERSION)
    sums = rows.select(pl.col(IMPRESSION, CLICK, CONVERSION).sum()).collect(engine="streaming").row(0, named=True)
    labels = tuple(label for label in (CLICK, CONVERSION) if sums[label])
    left_out: dict[str, int] = {}
    if EVENT in rows.collect_schema():
        others = rows.filter(~happened & ~pl.col(IMPRESSION)).group_by(EVENT).len().collect(engine="streaming")
        left_out = {str(name): int(count) for name, count in others.sort(EVENT).iter_rows()}
    events = _with_text(rows.filter(happened).select(*EVENTS_SCHEMA, *extra))
    judged = judge_impressions(rows, labels, extra, has_time=has_time, shares=shares) if sums[IMPRESSION] else None
    ids = rows.filter(happened | pl.col(IMPRESSION)).select(USER, ITEM)
    return Log(events, None if judged is None else _with_text(judged), ids, labels, has_time, left_out)


def _by_impressions(sifted: Sifted, extra: list[str], labels: tuple[str, ...], has_time: bool) -> Log:
    rows = sifted.frame
    full = rows.with_columns(pl.lit(False).alias(label) for label in (CLICK, CONVERSION) if label not in labels)
    parts = [name for name in extra if name == PART]
    events = _with_text(full.filter(pl.col(CLICK) | pl.col(CONVERSION)).select(*EVENTS_SCHEMA, *parts))
    exposures = _with_text(rows.select(USER, ITEM, TIME, *labels, *extra))
    return Log(events, exposures, rows.select(USER, ITEM), labels, has_time, {})


def _with_text(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Ids as the canonical tables have them."""
    return rows.with_columns(pl.col(USER, ITEM).cast(pl.String))


def _has_behaviour(config: InteractionsConfig, table: Table, sifted: Sifted, log: Log, findings: Findings) -> bool:
    """Say whether the log holds a click or a conversion; when not, say what it holds instead."""
    if log.events.select(pl.len()).collect(engine="streaming").item():
        return True
    if sifted.rows_kept == 0:
        remedy = "look at the quarantine file for what is wrong with each row"
        what = "the log has no rows left once its bad rows are taken out"
        findings.problems.append(Problem(table.name, what, remedy, sifted.rows_in, f"{sifted.rows_in} rows, all bad"))
    else:
        if config.layout == "events":
            names = sifted.frame.group_by(EVENT).len().collect(engine="streaming").sort("len", EVENT, descending=True)
            seen = ", ".join(f"{name} {count:,}" for name, count in names.head(12).iter_rows())
            remedy = "name the log's events in interactions.roles.click or interactions.roles.conversion"
        else:
            seen, remedy = "every label is 0", "set interactions.labels to the columns that say what happened"
        what = "the log has no clicks and no conversions"
        findings.problems.append(Problem(table.name, what, remedy, sifted.rows_kept, f"events seen: {seen}"))
    return False
