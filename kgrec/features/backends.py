"""What keeps the versions of a feature table: a Parquet file each, or a Delta Lake table with its own log."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import polars as pl

from kgrec.artifacts import hash_file, write_atomically
from kgrec.data.table_files import write_rows
from kgrec.errors import ArtifactError, InputError, Problem
from kgrec.features.tables import FeatureTable, TableVersion

deltalake: Any
try:
    import deltalake
except ImportError:  # an extra: who asks for Delta without it is told how to install it
    deltalake = None

_HISTORY: Final = "history.json"
_PLACE: Final = "__row"
_VERSION, _WRITTEN, _ROWS = "kgrec.version", "kgrec.written", "kgrec.num_rows"
_FOR_EVER: Final = {
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
}


class BackendName(StrEnum):
    """Where feature tables are kept."""

    PARQUET = "parquet"
    DELTA = "delta"


class ParquetTable(FeatureTable):
    """A Parquet file per content, named by it, and `history.json` with their digests: readable without kgrec."""

    def history(self) -> list[TableVersion]:
        """Return every writing, the oldest first."""
        return [
            TableVersion(one["version"], datetime.fromisoformat(one["written"]), one["num_rows"])
            for one in self._entries()
        ]

    def append(self, rows: pl.LazyFrame, version: TableVersion) -> None:
        """Write the file aside and rename it, then replace the history."""
        self.root.mkdir(parents=True, exist_ok=True)
        final = self.root / f"{version.name}.parquet"
        aside = final.with_suffix(".part")
        write_rows(rows, aside)
        aside.replace(final)
        entry = {"version": version.name, "written": version.written.isoformat(), "num_rows": version.num_rows,
                 "sha256": hash_file(final)}  # fmt: skip
        text = json.dumps([*self._entries(), entry], indent=1) + "\n"
        write_atomically(self.root / _HISTORY, text.encode())

    def load(self, name: str) -> pl.DataFrame:
        """Read the version's file, its bytes checked."""
        path = self.root / f"{name}.parquet"
        expected = next(one["sha256"] for one in reversed(self._entries()) if one["version"] == name)
        if not path.is_file() or hash_file(path) != expected:
            raise ArtifactError(f"{path}: missing, or its content differs from {_HISTORY} (damaged or edited)")
        return pl.read_parquet(path)

    def drop(self, names: Collection[str]) -> None:
        """Take them from the history, then delete every file that it does not name: nothing else is rewritten."""
        entries = self._entries()
        if entries and entries[-1]["version"] in names:
            raise ValueError("the latest version of a table stays")
        stay = [one for one in entries if one["version"] not in names]
        if stay != entries:
            write_atomically(self.root / _HISTORY, (json.dumps(stay, indent=1) + "\n").encode())
        named = {one["version"] for one in stay}
        for path in sorted(self.root.glob("*.parquet")):
            if path.stem not in named:
                path.unlink()
        self._tidy()

    def num_bytes(self, name: str) -> int:
        """Return the size of the version's file."""
        path = self.root / f"{name}.parquet"
        return path.stat().st_size if path.is_file() else 0

    def _entries(self) -> list[dict[str, Any]]:
        path = self.root / _HISTORY
        try:
            found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except ValueError as error:
            raise ArtifactError(f"{path}: damaged ({error})") from None
        return found


class DeltaLakeTable(FeatureTable):
    """A Delta Lake table that each version overwrites; its log keeps all of them for a hundred years.

    Delta's own default forgets after thirty days; the tables say otherwise, and no log is cleaned up on the way.
    """

    def __init__(self, root: Path) -> None:
        if deltalake is None:
            remedy = "pip install 'kgrec[delta]', or set features.backend = \"parquet\""
            raise InputError(Problem("features.backend", "Delta Lake needs the package deltalake", remedy))
        super().__init__(root)

    def history(self) -> list[TableVersion]:
        """Return every writing, the oldest first."""
        return [
            TableVersion(one[_VERSION], datetime.fromisoformat(one[_WRITTEN]).astimezone(UTC), int(one[_ROWS]))
            for one in self._commits()
        ]

    def append(self, rows: pl.LazyFrame, version: TableVersion) -> None:
        """Commit the rows, held at once, in the place of what was there, each with its place: Delta knows no order."""
        told = {_VERSION: version.name, _WRITTEN: version.written.isoformat(), _ROWS: str(version.num_rows)}
        deltalake.write_deltalake(
            self.root, rows.collect().with_row_index(_PLACE).cast({_PLACE: pl.Int64}), mode="overwrite",
            schema_mode="overwrite", configuration=None if self._exists() else _FOR_EVER,
            commit_properties=deltalake.CommitProperties(custom_metadata=told),
            post_commithook_properties=deltalake.PostCommitHookProperties(cleanup_expired_logs=False),
        )  # fmt: skip

    def load(self, name: str) -> pl.DataFrame:
        """Read the newest commit of this name."""
        commit = next(one for one in reversed(self._commits()) if one[_VERSION] == name)
        number = int(commit["version"])
        files = pl.DataFrame(deltalake.DeltaTable(self.root, version=number).get_add_actions(flatten=True))
        for one in files.iter_rows(named=True):
            path = self.root / one["path"]
            if not path.is_file() or path.stat().st_size != one["size_bytes"]:  # polars panics at half a file
                raise ArtifactError(f"{path}: missing, or damaged: version {name} cannot be read")
        rows = pl.read_delta(str(self.root), version=number)
        if rows.height != int(commit[_ROWS]):
            raise ArtifactError(f"{self.root}: version {name} has {rows.height} rows instead of {commit[_ROWS]}")
        return rows.sort(_PLACE).drop(_PLACE)

    def num_bytes(self, name: str) -> int:
        """Return the size of the files of all its commits."""
        return sum(
            size
            for one in self._commits()
            if one[_VERSION] == name
            for size in pl.DataFrame(
                deltalake.DeltaTable(self.root, version=int(one["version"])).get_add_actions(flatten=True)
            )["size_bytes"].to_list()
        )

    def _exists(self) -> bool:
        return bool(deltalake.DeltaTable.is_deltatable(str(self.root)))

    def _commits(self) -> list[dict[str, Any]]:
        if not self._exists():
            return []
        log = deltalake.DeltaTable(self.root).history()
        return [one for one in reversed(log) if _VERSION in one]


BACKENDS: Final[Mapping[BackendName, type[FeatureTable]]] = MappingProxyType(
    {BackendName.PARQUET: ParquetTable, BackendName.DELTA: DeltaLakeTable}
)
"""Every backend by its word: what `features.backend` may say and the contract suite goes through."""
