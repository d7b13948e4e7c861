"""Where tables come from: Parquet, CSV, TSV (gz too), globs, Delta tables, SQL; all read lazily.

Text is read as strings throughout, so that a bad value is found with its line when it is cast.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_serializer, model_validator

from kgrec.artifacts import fingerprint, hash_file
from kgrec.data.datasets import DEMO_PREFIX, demo_path
from kgrec.data.partitions import Partition
from kgrec.data.snapshots import snapshot, take_delta, take_query, without_password
from kgrec.data.text_files import check_text, separator_of, unpack, written_plainly
from kgrec.errors import InputError, Problem, nearest

LINE_OF_ROW: Final = "__line__"
SOURCE_OF_ROW: Final = "__source__"
RESERVED: Final = (LINE_OF_ROW, SOURCE_OF_ROW)
logger = logging.getLogger(__name__)
_WILDCARDS: Final = "*?["


class TableSource(BaseModel):
    """Where a table is: a path, or a database url with a query."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    path: str | None = Field(
        None,
        description="file (.parquet, .csv, .tsv, text also .gz), glob, or folder of a Delta table; "
        "relative to the config file",
    )
    url: str | None = Field(
        None, repr=False, description="database, such as postgresql://user@host/name or sqlite:///file.db"
    )
    query: str | None = Field(None, description="the SELECT whose answer is the table; goes with url")

    @model_validator(mode="after")
    def _one_place(self) -> TableSource:
        if (self.path is None) == (self.url is None):
            raise ValueError("give either path, or url with query")
        if (self.url is None) != (self.query is None):
            raise ValueError("url and query go together")
        return self

    @field_serializer("url")
    def _hide_password(self, url: str | None) -> str | None:
        return None if url is None else without_password(url)

    @property
    def name(self) -> str:
        """The source as a person would name it; never with a password."""
        return self.path if self.path is not None else f"query on {without_password(self.url or '')}"


@dataclass(frozen=True)
class Table:
    """A source that was found.

    `frame` carries two columns more than the source: `LINE_OF_ROW` (1-based data line,
    header not counted, null where the source has no order) and `SOURCE_OF_ROW` (the file's name).
    partitions: the same rows file by file, where they come from several files.
    """

    name: str
    frame: pl.LazyFrame
    files: tuple[str, ...]
    digest: str
    is_text: bool
    partitions: tuple[Partition, ...] = ()

    def schema(self) -> dict[str, pl.DataType]:
        """Return the source's own columns and dtypes."""
        return {name: dtype for name, dtype in self.frame.collect_schema().items() if name not in RESERVED}


_DAMAGE: Final = (
    pl.exceptions.ComputeError,
    pl.exceptions.NoDataError,
    pl.exceptions.DuplicateError,
    pl.exceptions.PanicException,  # what polars does about Parquet whose parts do not fit each other
    OSError,
)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what polars says about damage found while rows are read into an InputError about the source `name`."""
    try:
        yield
    except _DAMAGE as error:
        remedy = "the source is damaged past its beginning: copy or write it again"
        said = str(error).splitlines()[0][:200]
        raise InputError(Problem(name, "the rows cannot be read", remedy, 1, said)) from None


def materialise(source: TableSource, base: Path, scratch: Path) -> Table:
    """Open a source lazily; relative paths are relative to `base`.

    Raises InputError for files that are missing, damaged, empty, ragged, not UTF-8, or of differing column types,
    and for a database that cannot be reached or a query that fails.
    """
    if source.path is None or _is_delta(base / source.path):
        parts, digest = _snapshot(source, base, scratch, refresh=False)
        no_order = pl.lit(None, dtype=pl.Int64).alias(LINE_OF_ROW)
        copies = [pl.scan_parquet(part, glob=False, hive_partitioning=False).with_columns(no_order) for part in parts]
        names = [source.name] * len(parts)
        return Table(source.name, _joined(copies, names, source.name), (source.name,), digest, is_text=False)
    files = find_files(source.path, base)
    names = [shown_name(file, base) for file in files]
    frames: list[pl.LazyFrame] = []
    problems: list[Problem] = []
    for file, name in zip(files, names, strict=True):
        try:
            frames.append(_scan(file.absolute(), name, scratch.absolute()))  # whoever parses may stand elsewhere
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    is_text = all(separator_of(file.name) for file in files)
    joined, digests = _joined(frames, names, source.name), [hash_file(file) for file in files]
    return Table(
        source.name, joined, tuple(names), fingerprint(list(zip(names, digests, strict=True))), is_text,
        _partitions(frames, names, digests, joined) if len(files) > 1 else (),
    )  # fmt: skip


def digest_of(source: TableSource, base: Path, scratch: Path) -> str:
    """Return the digest of a source's contents; for SQL and Delta a fresh snapshot is taken for it."""
    if source.path is None or _is_delta(base / source.path):
        return _snapshot(source, base, scratch, refresh=True)[1]
    return digest_of_files(source.path, base)


def digest_of_files(path: str, base: Path) -> str:
    """Return the digest of the bytes and the names of the files that a path or glob stands for."""
    files = find_files(path, base)
    return _digest(files, [shown_name(file, base) for file in files])


def find_files(path: str, base: Path) -> list[Path]:
    """Return the files that a path or glob stands for, sorted; InputError with the nearest name when there is none."""
    if path.startswith(DEMO_PREFIX):
        return [demo_path(path, logger.info)]
    exact = base / path
    if exact.is_file():
        return [exact]
    if exact.is_dir():
        remedy = f"write a glob, such as {path.rstrip('/')}/*.parquet"
        raise InputError(Problem(path, "is a folder and no Delta table", remedy, 1, "no _delta_log in it"))
    parts = exact.parts
    first = next((at for at, part in enumerate(parts) if any(mark in part for mark in _WILDCARDS)), None)
    if first is not None:
        found = sorted(p for p in Path(*parts[:first]).glob(str(Path(*parts[first:]))) if p.is_file())
        if found:
            return found
    raise InputError(_missing(path, exact, is_glob=first is not None))


def _missing(path: str, exact: Path, *, is_glob: bool) -> Problem:
    folder = exact.parent
    while not folder.is_dir() or any(mark in folder.name for mark in _WILDCARDS):
        exact, folder = folder, folder.parent
    names = sorted(entry.name for entry in folder.iterdir())
    close = nearest(exact.name, names) or (names[0] if names else None)
    remedy = f"did you mean {close!r}?" if close else "check the path"
    what = "no file matches the glob" if is_glob else "the file does not exist"
    return Problem(path, what, f"{remedy} (relative paths start at the config's folder)", 1, f"{exact.name} not found")


def _is_delta(path: Path) -> bool:
    return (path / "_delta_log").is_dir()


def _snapshot(source: TableSource, base: Path, scratch: Path, *, refresh: bool) -> tuple[list[Path], str]:
    if source.path is not None:
        path = base / source.path
        return snapshot("delta", [str(path)], scratch, take_delta(path, source.name), refresh=refresh)
    url, query = source.url or "", source.query or ""
    take = take_query(url, query, base, source.name)
    return snapshot("sql", [without_password(url), query], scratch, take, refresh=refresh)


def _digest(files: list[Path], names: list[str]) -> str:
    """Of names and bytes: names are written beside the rows, folders outside the config's are not."""
    return fingerprint([[name, hash_file(file)] for file, name in zip(files, names, strict=True)])


def shown_name(file: Path, base: Path) -> str:
    """Return a file's name as it is written into tables: relative to `base`, or bare when it lies elsewhere."""
    return str(file.relative_to(base)) if file.is_relative_to(base) else file.name


def _scan(file: Path, name: str, scratch: Path) -> pl.LazyFrame:
    separator = separator_of(file.name)
    if separator is not None:
        plain = unpack(file, scratch, name)
        checked = check_text(plain, separator, name)
        if not checked.plain:
            plain = written_plainly(plain, separator, scratch)
        frame = pl.scan_csv(
            plain, separator=separator, infer_schema=False, glob=False, row_index_name=LINE_OF_ROW, row_index_offset=1
        )
        with reading(name):
            frame.collect_schema()
        return frame.filter(~pl.col(LINE_OF_ROW).is_in(checked.blank)) if checked.blank else frame
    if not file.name.lower().endswith((".parquet", ".pq")):
        remedy = "give .parquet, .csv or .tsv (text also .gz), or a Delta table's folder"
        raise InputError(Problem(name, "not a kind of file that kgrec reads as a table", remedy, 1, file.suffix))
    try:
        frame = pl.scan_parquet(
            file, glob=False, hive_partitioning=False, row_index_name=LINE_OF_ROW, row_index_offset=1
        )
        frame.collect_schema()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        remedy = "copy or write the file again; it is cut off or no Parquet file"
        said = str(error).splitlines()[0][:200]
        raise InputError(Problem(name, "the Parquet file cannot be read", remedy, 1, said)) from None
    return frame


def _family(dtype: pl.DataType) -> str:
    if dtype.is_numeric():
        return "number"
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    return str(dtype.base_type())


def _partitions(
    frames: list[pl.LazyFrame], names: list[str], digests: list[str], joined: pl.LazyFrame
) -> tuple[Partition, ...]:
    """Return the rows of each file as they are in the joined frame."""
    schema = joined.collect_schema()
    return tuple(
        Partition(fingerprint([name, digest]), _ready(frame, name, list(schema)).cast(schema))
        for frame, name, digest in zip(frames, names, digests, strict=True)
    )


def _ready(frame: pl.LazyFrame, name: str, columns: list[str]) -> pl.LazyFrame:
    return (
        frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
        .with_columns(pl.col(LINE_OF_ROW).cast(pl.Int64), pl.lit(name).alias(SOURCE_OF_ROW))
        .select(columns)
    )


def _joined(frames: list[pl.LazyFrame], names: list[str], where: str) -> pl.LazyFrame:
    """One frame from the files, in their order; InputError where their columns or types do not agree."""
    first: dict[str, tuple[str, pl.DataType]] = {}
    problems: list[Problem] = []
    schemas = [dict(frame.collect_schema()) for frame in frames]
    for name, schema in zip(names, schemas, strict=True):
        for column in sorted(set(schema) ^ set(schemas[0])):
            has, lacks = (name, names[0]) if column in schema else (names[0], name)
            remedy = "give every file of the glob the same columns"
            problems.append(
                Problem(where, f"column {column!r} is not in every file", remedy, 1, f"{has} has it, {lacks} lacks it")
            )
        for column, dtype in schema.items():
            if dtype == pl.Null:
                continue
            known, type_known = first.setdefault(column, (name, dtype))
            if _family(dtype) != _family(type_known):
                remedy = f"write the column {column!r} with one type in every file"
                example = f"{known} has {type_known}, {name} has {dtype}"
                problems.append(Problem(where, f"column {column!r} has mixed types", remedy, 2, example))
    if problems:
        raise InputError(problems)
    columns = [*schemas[0], SOURCE_OF_ROW]
    ready = [_ready(frame, name, columns) for frame, name in zip(frames, names, strict=True)]
    return ready[0] if len(ready) == 1 else pl.concat(ready, how="vertical_relaxed")
