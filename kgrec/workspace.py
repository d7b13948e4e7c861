"""The workspace: one folder that holds everything kgrec made, and the lock that lets one writer in."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from kgrec.artifacts import ArtifactStore, write_atomically
from kgrec.errors import InputError, Problem, WorkspaceBusyError


class Workspace:
    """The paths of a workspace. `shown` is its folder as the user named it.

    Creating the object creates the folder, unless it `must_exist`: InputError then, when it is not there.
    """

    def __init__(self, root: str | Path, *, must_exist: bool = False) -> None:
        self.root, self.shown = Path(root).resolve(), Path(root)
        if must_exist and not self.root.is_dir():
            remedy = "run `kgrec run CONFIG` first, or name the folder with --workspace"
            raise InputError(Problem(str(root), "no such workspace", remedy))
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, PermissionError, OSError) as error:
            remedy = "name another folder with --workspace"
            raise InputError(Problem(str(root), f"cannot be a workspace: {error.strerror}", remedy)) from None
        self.store = ArtifactStore(self.root / "artifacts")
        self.registry = self.root / "versions.json"
        self.audit = self.root / "audit.jsonl"
        self.tombstones = self.root / "forgotten.json"
        self.salt = self.root / "salt.json"
        self.tracking_database = self.root / "mlflow.db"
        self.tracking_artifacts = self.root / "mlflow-artifacts"
        self.tracking_servers = self.root / "mlflow-servers.json"
        self.prefect_home = self.root / "prefect"
        self.reports = self.root / "reports"
        self.runs = self.root / "runs"
        self.links = self.root / "links"
        self.quarantine = self.root / "quarantine"
        self.scratch = self.root / "scratch"
        self.checkpoints = self.root / "checkpoints"
        self.feature_tables = self.root / "feature_tables"
        self.feature_days = self.root / "feature_days"
        self.searches = self.root / "searches"

    @contextmanager
    def hold(self, purpose: str) -> Iterator[None]:
        """Let this process write, and nobody else; WorkspaceBusyError says who holds it already."""
        lock = FileLock(self.root / ".lock")
        note = self.root / ".holder.json"
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise WorkspaceBusyError(
                f"workspace {self.root} is held by {_holder(note)}\n"
                "  remedy:  wait until it ends, or use another folder with --workspace"
            ) from None
        except PermissionError:
            remedy = "make the folder writable, or use another one with --workspace"
            raise InputError(Problem(str(self.root), "the workspace cannot be written", remedy)) from None
        try:
            self._sweep()
            holder = {"process": os.getpid(), "purpose": purpose, "since": datetime.now(UTC).isoformat("T", "seconds")}
            write_atomically(note, json.dumps(holder).encode())
            yield
        finally:
            note.unlink(missing_ok=True)
            lock.release()

    def _sweep(self) -> None:
        """Remove the half-written files that a killed process left; only the holder writes, so they are nobody's."""
        for folder in (self.root, self.checkpoints, self.runs):
            for part in folder.glob(".*.part"):
                part.unlink(missing_ok=True)


def person() -> str:
    """Return the name of the account that runs this process, or `unknown`."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def _holder(note: Path) -> str:
    try:
        holder = json.loads(note.read_text())
        return f"`{holder['purpose']}` (process {holder['process']}, since {holder['since']})"
    except (OSError, ValueError, KeyError):
        return "another kgrec process"
