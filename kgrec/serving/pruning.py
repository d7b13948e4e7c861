"""Removes what may go: old versions, and what no kept version was made from; never what a rollback may reach.

First the registry says that a version's files are gone, then they go: a killed process leaves too much, never too
little, and the next call finishes it. Figures, verdicts, audit lines, feature tables and MLflow's runs stay.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from kgrec.artifacts import MANIFEST, Artifact, load_artifact
from kgrec.errors import ArtifactError
from kgrec.serving import versions
from kgrec.serving.retention import RetentionConfig, kept_versions, needed_by
from kgrec.tracking import Copy, ServerCopies, Tracking
from kgrec.workspace import Workspace


@dataclass
class Pruned:
    """What went (or would go). Paths are relative to the workspace, or name a server."""

    versions: list[str] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    freed_bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"versions": self.versions, "artifacts": self.artifacts, "reports": self.reports,
                "mlflow_copies": self.copies, "freed_mb": round(self.freed_bytes / 1e6, 3)}  # fmt: skip


def prune(workspace: Workspace, config: RetentionConfig, *, now: datetime, only_tell: bool = False) -> Pruned:
    """Remove what the config lets go, and return it; the caller holds the workspace.

    now: UTC; a file from the future counts as new. UnreachableError, before anything went, when an MLflow server with
    copies does not answer.
    """
    found, oldest = Pruned(), (now - timedelta(days=config.days)).timestamp()
    registry = versions.read_registry(workspace)
    kept = kept_versions(registry, config)
    gone = [record for record in registry.versions if not record.removed and record.version not in kept]
    keys = {record.key for record in registry.versions if record.version in kept}
    lost = {record.key for record in registry.versions} - keys
    artifacts = _artifacts(workspace)
    needed = needed_by(artifacts, keys)
    folders = [path for path, artifact in artifacts.items()
               if path not in needed and (artifact.kind == "version" or _age_of(path) < oldest)]  # fmt: skip
    runs = {record.run_id for record in registry.versions if record.version in kept}
    reports = [path for path in _folders(workspace.reports) if path.name not in runs and _age_of(path) < oldest]
    reports = [path for path in reports if (path / "report.json").exists()]
    old = [path for path in _folders(workspace.checkpoints) if _age_of(path) < oldest]
    found.versions = [record.version for record in gone]
    with ServerCopies(workspace) as servers:
        there = [copy for copy in servers.versions() if _key_on_server(copy) in lost] if lost else []
        here = [
            path.parent for path in sorted(workspace.tracking_artifacts.rglob(MANIFEST)) if _key(path.parent) in lost
        ]
        found.copies = [*_relative(workspace, here), *(copy.where for copy in there)]
        found.artifacts, found.reports = _relative(workspace, [*folders, *old]), _relative(workspace, reports)
        found.freed_bytes = sum(_size(path) for path in (*folders, *old, *reports, *here))
        if only_tell:
            return found
        tracking = Tracking(workspace) if lost else None
        versions.remove(workspace, found.versions, keep_before=config.rollbacks, why="retention")
        for record in registry.versions:
            if tracking is not None and record.key in lost:
                tracking.unregister(record.name, record.version)
        for path in (*folders, *old, *reports, *here):
            shutil.rmtree(path)
        for copy in there:
            copy.replace(None)
    workspace.store.sweep()
    return found


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


def _age_of(path: Path) -> float:
    return path.stat().st_mtime


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _relative(workspace: Workspace, paths: Iterable[Path]) -> list[str]:
    return [str(path.relative_to(workspace.root)) for path in paths]
