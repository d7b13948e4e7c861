"""Removes what may go: old versions and runs, and what no kept one was made from; never what a rollback may reach.

First the registry says that a version's files are gone, then they go: a killed process leaves too much, never too
little, and the next call finishes it. Figures, verdicts and audit lines stay.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from kgrec.artifacts import MANIFEST, Artifact, load_artifact
from kgrec.errors import ArtifactError
from kgrec.serving import versions
from kgrec.serving.old_runs import OldTable, PastRun, past_runs, runs_that_go, tables_that_go
from kgrec.serving.retention import RetentionConfig, kept_versions, needed_by
from kgrec.serving.versions import VersionRecord
from kgrec.tracking import Copy, ServerCopies, Tracking
from kgrec.tracking.stores import stores_of
from kgrec.workspace import Workspace

_LONG_AGO: Final = 700_000  # days; a date needs a year


@dataclass
class Pruned:
    """What went (or would go). Paths are relative to the workspace, or name a server; runs go by their ids."""

    versions: list[str] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    freed_bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"versions": self.versions, "artifacts": self.artifacts, "reports": self.reports,
                "mlflow_copies": self.copies, "runs": self.runs, "feature_tables": self.tables,
                "freed_mb": round(self.freed_bytes / 1e6, 3)}  # fmt: skip


@dataclass(frozen=True)
class _Plan:
    """What goes; here and there: MLflow's copies of versions, in the workspace and on servers."""

    versions: list[str]
    lost: list[VersionRecord]
    folders: list[Path]
    reports: list[Path]
    here: list[Path]
    there: list[Copy]
    runs: list[PastRun]
    tables: list[OldTable]

    def told(self, workspace: Workspace) -> Pruned:
        """Return it as people read it."""
        of_runs = [path for run in self.runs for path in (*run.folders(workspace), *([run.record] * bool(run.record)))]
        paths = [*self.folders, *self.reports, *self.here, *(path for path in of_runs if path is not None)]
        tables = [(old, name) for old in self.tables for name in old.versions]
        return Pruned(
            self.versions, _relative(workspace, self.folders), _relative(workspace, self.reports),
            [*_relative(workspace, self.here), *(copy.where for copy in self.there)],
            [run.run_id for run in self.runs], [f"{old.where}/{name}" for old, name in tables],
            _size(paths) + sum(old.table.num_bytes(name) for old, name in tables),
        )  # fmt: skip


def prune(workspace: Workspace, config: RetentionConfig, *, now: datetime, only_tell: bool = False) -> Pruned:
    """Remove what the config lets go, and return it; the caller holds the workspace.

    now: UTC; what is from the future counts as new. UnreachableError, before anything went, when an MLflow server
    that holds something of this workspace does not answer.
    """
    with ServerCopies(workspace) as servers:
        plan = _plan(workspace, config, now, servers)
        found = plan.told(workspace)
        if only_tell:
            return found
        tracking = Tracking(workspace) if plan.lost and stores_of(workspace) else None
        versions.remove(workspace, plan.versions, keep_before=config.rollbacks, why="retention")
        for record in plan.lost:
            if tracking is not None:
                tracking.unregister(record.name, record.version)
        for path in (*plan.folders, *plan.reports, *plan.here):
            shutil.rmtree(path)
        for copy in plan.there:
            copy.replace(None)
        for run in plan.runs:
            run.remove(workspace)
        for old in plan.tables:
            old.table.drop(old.versions)
    workspace.store.sweep()
    return found


def _plan(workspace: Workspace, config: RetentionConfig, now: datetime, servers: ServerCopies) -> _Plan:
    registry, oldest = versions.read_registry(workspace), _before(now, config.days)
    kept = kept_versions(registry, config)
    keys = {record.key for record in registry.versions if record.version in kept}
    lost = [record for record in registry.versions if record.key not in keys]
    lost_keys = {record.key for record in lost}
    artifacts = _artifacts(workspace)
    needed = needed_by(artifacts, keys)
    folders = [path for path, artifact in artifacts.items()
               if path not in needed and (artifact.kind == "version" or _changed(path) < oldest)]  # fmt: skip
    runs = past_runs(workspace, registry)
    going = runs_that_go(runs, registry, kept, _before(now, config.run_days))
    gone_ids = {run.run_id for run in going}
    tables = tables_that_go(
        workspace, (run for run in runs if run.run_id not in gone_ids),
        (artifact for path, artifact in artifacts.items() if path not in set(folders)), _before(now, config.run_days),
    )  # fmt: skip
    stay = {record.run_id for record in registry.versions if record.version in kept}
    stay |= {run.run_id for run in runs if run.told.get("version") in kept}
    reports = [path for path in _folders(workspace.reports) if path.name not in stay and _changed(path) < oldest]
    there = [copy for copy in servers.versions() if _key_on_server(copy) in lost_keys] if lost else []
    copies = sorted(workspace.tracking_artifacts.rglob(MANIFEST))
    return _Plan(
        [record.version for record in registry.versions if not record.removed and record.version not in kept],
        lost, folders + [path for path in _folders(workspace.checkpoints) if _changed(path) < oldest],
        [path for path in reports if (path / "report.json").exists()],
        [path.parent for path in copies if _key(path.parent) in lost_keys], there, going, tables,
    )  # fmt: skip


def _artifacts(workspace: Workspace) -> dict[Path, Artifact]:
    found = {}
    for manifest in sorted(workspace.store.root.glob(f"*/*/{MANIFEST}")):
        found[manifest.parent] = load_artifact(manifest.parent, verify=False)
    return found


def _key(folder: Path) -> str:
    """Return the key of the version in a folder; empty for one that is damaged or of another kind."""
    try:
        return load_artifact(folder, "version", verify=False).key
    except ArtifactError:
        return ""


def _key_on_server(copy: Copy) -> str:
    return _key(copy.fetch(MANIFEST).parent) if MANIFEST in copy.names() else ""


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def _changed(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _before(now: datetime, days: float) -> datetime:
    return now - timedelta(days=min(days, _LONG_AGO))


def _size(paths: Iterable[Path]) -> int:
    """Return how much the files under some paths take, each once."""
    inside = {file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()}
    return sum(file.stat().st_size for file in inside)


def _relative(workspace: Workspace, paths: Iterable[Path]) -> list[str]:
    return [str(path.relative_to(workspace.root)) for path in paths]
