"""Tables of features that stay: each one written is a version, and any version can be read again.

A table is a folder. Its versions are named by their content, so writing the latest content again writes nothing. What
reads and writes a version is the backend's business; naming, time travel and forgetting are the same for all.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from io import RawIOBase
from pathlib import Path
from typing import IO, Any, Final, cast

import polars as pl

from kgrec.columns import USER
from kgrec.errors import ArtifactError
from kgrec.features.pieces import PIECE

_TO_SIGNED: Final[Mapping[pl.DataType, pl.DataType]] = {
    pl.UInt8(): pl.Int16(),
    pl.UInt16(): pl.Int32(),
    pl.UInt32(): pl.Int64(),
    pl.UInt64(): pl.Int64(),
}


TABLE: Final = "table"  # the fact of a features artifact that names the version written with it


@dataclass(frozen=True)
class TableVersion:
    """One writing of a table: the name of its content, when it was written (UTC), how many rows it has."""

    name: str
    written: datetime
    num_rows: int


class FeatureTable(ABC):
    """All versions of one table of features, in a folder. One process at a time may write."""

    def __init__(self, root: Path) -> None:
        self.root = root
        former = _former(root)
        if former.exists() and not root.exists():
            former.rename(root)  # a rewriting was killed between its two renames

    @abstractmethod
    def history(self) -> list[TableVersion]:
        """Return every writing, the oldest first; one that went back to older content is there again."""

    @abstractmethod
    def append(self, rows: pl.LazyFrame, version: TableVersion) -> None:
        """Write rows of plain types as the newest version: all of it, or nothing when the process is killed."""

    @abstractmethod
    def load(self, name: str) -> pl.DataFrame:
        """Return the rows of a version of the history, in the order in which they were written."""

    def write(self, rows: pl.DataFrame | pl.LazyFrame | Sequence[pl.LazyFrame], now: datetime | None = None) -> str:
        """Make these rows the latest version and return its name; lazy ones are read a piece at a time.

        A sequence is the rows in pieces of `PIECE`, the last may be shorter: each is read alone, which spares finding
        its place among all. Categories are kept as text and unsigned numbers as signed ones, which every backend can
        hold.
        """
        given = [rows.lazy()] if isinstance(rows, pl.DataFrame | pl.LazyFrame) else rows
        plain = [_plain(piece) for piece in given]
        whole = plain[0] if len(plain) == 1 else pl.concat(plain)
        digest = content_digest(whole) if len(plain) == 1 else _digest_of(piece.collect() for piece in plain)
        name, versions = digest[:20], self.history()
        if not versions or versions[-1].name != name:
            num_rows = sum(piece.select(pl.len()).collect().item() for piece in plain)
            self.append(whole, TableVersion(name, now or datetime.now(UTC), num_rows))
        return name

    def read(self, version: str | None = None, *, at: datetime | None = None) -> pl.DataFrame:
        """Return the latest version, a named one, or the one that was the latest at an instant.

        Raises ArtifactError, naming what there is, when there is no such version, and when its bytes are damaged.
        """
        versions = [one for one in self.history() if at is None or one.written <= at]
        names = [one.name for one in versions]
        if not names or (version is not None and version not in names):
            what = f"no version {version!r}" if version is not None else "nothing was written by then"
            raise ArtifactError(f"{self.root}: {what}; versions: {', '.join(dict.fromkeys(names)) or 'none'}")
        return self.load(version or names[-1])

    def holds(self, user: str) -> bool:
        """Say whether any version has a row of a person."""
        return any(self.load(name).select(_of(user).any()).item() for name in {one.name for one in self.history()})

    def forget(self, user: str) -> None:
        """Rewrite every version without a person's rows, under its name; the old files are deleted."""
        self._rewrite(self.history(), lambda rows: rows.filter(~_of(user)))

    def drop(self, names: Collection[str]) -> None:
        """Delete versions, files and history; none named only tidies up after a killed call. The latest must stay."""
        versions = self.history()
        if versions and versions[-1].name in names:
            raise ValueError("the latest version of a table stays")
        if names:
            self._rewrite([one for one in versions if one.name not in names], lambda rows: rows)
        else:
            self._tidy()

    @abstractmethod
    def num_bytes(self, name: str) -> int:
        """Return how much the files of a version of the history take, in bytes."""

    def _tidy(self) -> None:
        for folder in (self._aside, _former(self.root)):
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def _aside(self) -> Path:
        return self.root.with_name(f".{self.root.name}.fresh")

    def _rewrite(self, versions: Sequence[TableVersion], change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Put a table of these writings, each changed, in the place of this one: all of it, or nothing."""
        self._tidy()
        fresh, former = type(self)(self._aside), _former(self.root)
        for one in versions:
            rows = change(self.load(one.name))
            fresh.append(rows.lazy(), replace(one, num_rows=rows.height))
        self.root.rename(former)
        self._aside.rename(self.root)
        shutil.rmtree(former)


def content_digest(rows: pl.DataFrame | pl.LazyFrame) -> str:
    """Return the SHA-256 of the rows' values, types and order; lazy rows are read a piece at a time."""
    lazy = rows.lazy()
    num_rows = lazy.select(pl.len()).collect().item()
    return _digest_of(lazy.slice(start, PIECE).collect() for start in range(0, max(num_rows, 1), PIECE))


def _digest_of(pieces: Iterable[pl.DataFrame]) -> str:
    stream = _Digest()
    for piece in pieces:
        piece.rechunk().write_ipc(cast("IO[bytes]", stream), compat_level=pl.CompatLevel.oldest())
    return stream.sha256.hexdigest()


class _Digest(RawIOBase):
    """A file that keeps nothing of what is written but its SHA-256."""

    def __init__(self) -> None:
        self.sha256 = sha256()
        self._size = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, part: Any, /) -> int:
        self.sha256.update(part)
        self._size += len(part)
        return len(part)


def _plain(rows: pl.LazyFrame) -> pl.LazyFrame:
    casts: Sequence[pl.Expr] = [
        pl.col(name).cast(pl.String() if isinstance(dtype, pl.Enum | pl.Categorical) else _TO_SIGNED[dtype])
        for name, dtype in rows.collect_schema().items()
        if isinstance(dtype, pl.Enum | pl.Categorical) or dtype in _TO_SIGNED
    ]
    return rows.with_columns(casts)


def _of(user: str) -> pl.Expr:
    return pl.col(USER).cast(pl.String) == user


def _former(root: Path) -> Path:
    return root.with_name(f".{root.name}.former")
