"""Sources without files of their own (SQL queries, Delta tables), copied once into Parquet in a scratch folder.

A snapshot is taken when its digest is asked for and read again by the ingest of the same run, so that what was
hashed is what is ingested.
"""

from __future__ import annotations

import datetime as dt
import decimal
import importlib.util
import json
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl
import sqlalchemy
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from kgrec.artifacts import fingerprint, hash_file, write_atomically
from kgrec.errors import InputError, Problem, UnreachableError

_BATCH_ROWS: Final = 50_000
_FACTS: Final = "snapshot.json"
_FAMILIES: Final[dict[type, str]] = {
    bool: "boolean", int: "integer", float: "float", decimal.Decimal: "decimal", str: "text", uuid.UUID: "text",
    dt.datetime: "datetime", dt.date: "date", list: "list", dict: "json", bytes: "bytes",
    memoryview: "bytes",
}  # fmt: skip


def without_password(url: str) -> str:
    """Return a database url as it may be shown.

    >>> without_password("postgresql://ann:secret@db/shop")
    'postgresql://ann:***@db/shop'
    """
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "(a url that cannot be read)"


def snapshot(
    kind: str, identity: Sequence[str], scratch: Path, take: Callable[[Path], None], *, refresh: bool
) -> tuple[list[Path], str]:
    """Return the Parquet parts of a snapshot, in order, and the digest of its rows.

    `identity` names what is copied; an existing snapshot of it in `scratch` is used again unless `refresh`.
    """
    folder = scratch / f"{kind}-{fingerprint(list(identity))[:16]}"
    if refresh or not (folder / _FACTS).exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        take(folder)
        digest = fingerprint([hash_file(part) for part in sorted(folder.glob("*.parquet"))])
        write_atomically(folder / _FACTS, json.dumps({"digest": digest}).encode())
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    return sorted(folder.glob("*.parquet")), str(facts["digest"])


def take_delta(path: Path, name: str) -> Callable[[Path], None]:
    """Return what copies the newest version of a Delta table; InputError when the extra is not installed."""
    if importlib.util.find_spec("deltalake") is None:
        remedy = "pip install 'kgrec[delta]', or point `path` at Parquet files"
        raise InputError(Problem(name, "a Delta table needs the package deltalake", remedy, 1, "_delta_log found"))

    def take(folder: Path) -> None:
        try:
            pl.scan_delta(str(path)).sink_parquet(folder / "part-000000.parquet", maintain_order=True)
        except Exception as error:  # deltalake raises its own family of errors, known only once it is imported
            remedy = "check the table with its own tools, or restore the missing files"
            raise InputError(
                Problem(name, "the Delta table cannot be read", remedy, 1, str(error).splitlines()[0][:200])
            ) from None

    return take


def take_query(url: str, query: str, base: Path, name: str) -> Callable[[Path], None]:
    """Return what copies the answer of a query in batches; InputError when it cannot connect or the query fails."""
    address = _address(url, base, name)

    def take(folder: Path) -> None:
        try:
            engine = sqlalchemy.create_engine(address)
        except (SQLAlchemyError, ImportError) as error:
            remedy = "pip install 'kgrec[postgresql]' for PostgreSQL; other databases need their own driver"
            raise InputError(
                Problem(name, "no driver for this kind of database", remedy, 1, _said(error, address))
            ) from None
        try:
            _copy(engine, query, folder, name, address)
        finally:
            engine.dispose()

    return take


def _copy(engine: sqlalchemy.Engine, query: str, folder: Path, name: str, address: URL) -> None:
    try:
        connection = engine.connect()
    except SQLAlchemyError as error:
        remedy = "check host, port, database, user and password, and that the server runs"
        problem = Problem(name, "cannot connect to the database", remedy, 1, _said(error, address))
        raise UnreachableError(problem) from None
    with connection:
        try:
            asking = connection.execution_options(
                stream_results=True, max_row_buffer=_BATCH_ROWS, no_parameters=True
            )  # without parameters a % in the query is only a %
            answer = asking.exec_driver_sql(query)
            names = list(answer.keys())
            _write_batches(answer, names, folder, name)
        except (SQLAlchemyError, sqlalchemy.exc.ResourceClosedError) as error:
            remedy = "try the query in the database's own shell; it must be one SELECT"
            raise InputError(Problem(name, "the query fails", remedy, 1, _said(error, address))) from None


def _write_batches(answer: sqlalchemy.CursorResult[Any], names: list[str], folder: Path, name: str) -> None:
    if len(set(names)) < len(names):
        twice = next(column for column in names if names.count(column) > 1)
        remedy = "name every column of the query once, with AS"
        raise InputError(Problem(name, "the query gives two columns of one name", remedy, names.count(twice), twice))
    families: dict[str, str] = {}
    part = 0
    for part, rows in enumerate(answer.partitions(_BATCH_ROWS), start=1):
        frame = pl.DataFrame(
            {column: _series([row[at] for row in rows], column, families, name) for at, column in enumerate(names)}
        )
        frame.write_parquet(folder / f"part-{part:06d}.parquet")
    if part == 0:
        pl.DataFrame(schema=dict.fromkeys(names, pl.Null())).write_parquet(folder / "part-000000.parquet")


def _series(values: list[Any], column: str, families: dict[str, str], name: str) -> pl.Series:
    """One column of one batch; `families` remembers the types seen, since SQLite allows any in any row."""
    for value in values:
        if value is None:
            continue
        family = _FAMILIES.get(type(value), "text")
        known = families.setdefault(column, family)
        if known != family:
            if {known, family} <= {"integer", "float", "decimal"}:
                families[column] = "float"
                continue
            remedy = f"CAST the column {column!r} to one type in the query"
            example = f"{value!r} is {family}, earlier values are {known}"
            raise InputError(Problem(name, f"column {column!r} has values of mixed types", remedy, 1, example))
    match families.get(column):
        case None:
            return pl.Series(column, values, dtype=pl.Null)
        case "float" | "decimal":
            return pl.Series(column, [None if v is None else float(v) for v in values], dtype=pl.Float64)
        case "text" | "json":
            return pl.Series(column, [None if v is None else str(v) for v in values], dtype=pl.String)
        case "datetime":
            utc = dt.UTC
            times = [None if v is None else v.astimezone(utc) if v.tzinfo else v.replace(tzinfo=utc) for v in values]
            return pl.Series(column, times, dtype=pl.Datetime("us", "UTC"))
        case "bytes":
            return pl.Series(column, [None if v is None else bytes(v) for v in values], dtype=pl.Binary)
        case _:
            return pl.Series(column, values)


def _address(url: str, base: Path, name: str) -> URL:
    try:
        address = make_url(url)
    except ArgumentError:
        remedy = "write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE or sqlite:///FILE"
        raise InputError(Problem(name, "the url cannot be read", remedy, 1, "(not shown: may hold secrets)")) from None
    if address.drivername in ("postgresql", "postgres"):
        return address.set(drivername="postgresql+psycopg")
    if address.drivername.startswith("sqlite") and address.database:
        file = base / address.database
        if not file.is_file():
            remedy = "check the path (sqlite:///relative or sqlite:////absolute)"
            raise InputError(Problem(name, "the database file does not exist", remedy, 1, address.database))
        return address.set(database=str(file))
    return address


def _said(error: Exception, address: URL) -> str:
    """The first lines of a driver's message, without SQLAlchemy's wrapping and without the password."""
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split())[:300]
    return text.replace(address.password, "***") if address.password else text
