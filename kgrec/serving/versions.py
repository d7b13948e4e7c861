"""Which version is served, which were, and who said so.

One small file is the truth; it is replaced whole, so a switch happens or does not. Every change also appends one
line to the audit file before it takes effect.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kgrec.artifacts import write_atomically
from kgrec.errors import ArtifactError, InputError, Problem, nearest
from kgrec.workspace import Workspace, person


@dataclass(frozen=True)
class VersionRecord:
    """One version: its number as text, the artifact that holds it, and the gate's verdict on it.

    removed: when its files went, empty while they are there.
    """

    version: str
    name: str
    key: str
    run_id: str
    created: str
    gate_passed: bool
    gate_reasons: tuple[str, ...]
    metrics: dict[str, Any]
    removed: str = ""


@dataclass(frozen=True)
class Registry:
    """All versions, the promoted one, and those served before it, newest last."""

    versions: tuple[VersionRecord, ...] = ()
    promoted: str | None = None
    served_before: tuple[str, ...] = ()

    def find(self, version: str) -> VersionRecord | None:
        """Return the record of a version, or None."""
        return next((record for record in self.versions if record.version == version), None)

    def by_key(self, key: str) -> VersionRecord | None:
        """Return the record whose artifact has this key, or None."""
        return next((record for record in self.versions if record.key == key), None)


def read_registry(workspace: Workspace) -> Registry:
    """Read the registry; an empty one where nothing was registered yet."""
    if not workspace.registry.exists():
        return Registry()
    try:
        raw = json.loads(workspace.registry.read_text(encoding="utf-8"))
        records = tuple(VersionRecord(**{**r, "gate_reasons": tuple(r["gate_reasons"])}) for r in raw["versions"])
        return Registry(records, raw["promoted"], tuple(raw["served_before"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{workspace.registry}: damaged ({error})\n  remedy:  restore it from a backup") from None


def register(workspace: Workspace, record: VersionRecord) -> VersionRecord:
    """Add a version, numbered next, unless its artifact is registered already; return what is registered."""
    registry = read_registry(workspace)
    known = registry.by_key(record.key)
    if known is not None:
        return _made_again(workspace, registry, known) if known.removed else known
    record = replace(record, version=str(1 + max((int(r.version) for r in registry.versions), default=0)))
    _audit(workspace, "registered", record.version, passed=record.gate_passed, reasons=list(record.gate_reasons))
    _write(workspace, replace(registry, versions=(*registry.versions, record)))
    return record


def promote(workspace: Workspace, version: str, *, why: str) -> Registry:
    """Serve this version from now on. Serving it already changes nothing. InputError when it is unknown."""
    registry = read_registry(workspace)
    require(registry, version)
    if registry.promoted == version:
        return registry
    before = (*registry.served_before, registry.promoted) if registry.promoted else registry.served_before
    _audit(workspace, "promoted", version, replaces=registry.promoted, why=why)
    changed = replace(registry, promoted=version, served_before=before)
    _write(workspace, changed)
    return changed


def rollback(workspace: Workspace, *, why: str) -> Registry:
    """Serve again what was served before. InputError when nothing was."""
    registry = read_registry(workspace)
    if not registry.served_before:
        raise InputError(Problem("rollback", "no version was served before this one", "see `kgrec versions`"))
    *before, target = registry.served_before
    _audit(workspace, "rolled back", target, replaces=registry.promoted, why=why)
    changed = replace(registry, promoted=target, served_before=tuple(before))
    _write(workspace, changed)
    return changed


def replace_artifacts(workspace: Workspace, keys: Mapping[str, str], *, why: str) -> Registry:
    """Let versions keep their numbers and point to other artifacts, old key -> new key; an audit line for each."""
    registry = read_registry(workspace)
    for record in registry.versions:
        if record.key in keys:
            _audit(workspace, "made anew", record.version, replaces=record.key[:20], key=keys[record.key][:20], why=why)
    records = tuple(replace(record, key=keys.get(record.key, record.key)) for record in registry.versions)
    changed = replace(registry, versions=records)
    _write(workspace, changed)
    return changed


def remove(workspace: Workspace, numbers: Collection[str], *, keep_before: int, why: str) -> Registry:
    """Say that the files of versions go: they stay in the list, and no rollback leads to them; an audit line for each.

    keep_before: how many of the versions served before stay within reach of a rollback.
    """
    registry = read_registry(workspace)
    if registry.promoted in numbers:
        raise ValueError("the promoted version is served")
    now = datetime.now(UTC).isoformat("T", "seconds")
    before = registry.served_before[max(0, len(registry.served_before) - keep_before) :]
    before = tuple(version for version in before if version not in numbers)
    for version in numbers:
        _audit(workspace, "removed", version, why=why)
    records = tuple(replace(r, removed=now) if r.version in numbers else r for r in registry.versions)
    changed = replace(registry, versions=records, served_before=before)
    if changed != registry:
        _write(workspace, changed)
    return changed


def _made_again(workspace: Workspace, registry: Registry, record: VersionRecord) -> VersionRecord:
    fresh = replace(record, removed="")
    _audit(workspace, "made again", record.version, passed=record.gate_passed)
    _write(workspace, replace(registry, versions=tuple(fresh if r is record else r for r in registry.versions)))
    return fresh


def require(registry: Registry, version: str) -> VersionRecord:
    """Return the record of a version; InputError with the nearest number when there is none, or its files are gone."""
    record = registry.find(version)
    if record is None:
        known = [r.version for r in registry.versions]
        guess = nearest(version, known)
        remedy = f"did you mean {guess}? " if guess else ""
        remedy += f"known versions: {', '.join(known)}" if known else "there is no version yet: `kgrec run CONFIG`"
        raise InputError(Problem(f"version {version}", "unknown", remedy))
    if record.removed:
        remedy = "take another of `kgrec versions`, or restore a backup of the workspace"
        raise InputError(Problem(f"version {version}", f"its files were removed on {record.removed[:10]}", remedy))
    return record


def promoted(workspace: Workspace) -> VersionRecord:
    """Return the version that is served; InputError when there is none."""
    registry = read_registry(workspace)
    if registry.promoted is None:
        remedy = "run `kgrec run CONFIG`, or `kgrec promote VERSION` for one that the gate refused"
        raise InputError(Problem(str(workspace.root), "no version is promoted in this workspace", remedy))
    return require(registry, registry.promoted)


def read_audit(path: Path) -> list[dict[str, Any]]:
    """Return the audit file's lines, oldest first; a line cut short by a crash is left out."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


def _write(workspace: Workspace, registry: Registry) -> None:
    write_atomically(workspace.registry, (json.dumps(asdict(registry), indent=1) + "\n").encode())


def _audit(workspace: Workspace, what: str, version: str, **details: Any) -> None:
    line = {"time": datetime.now(UTC).isoformat("T", "seconds"), "what": what, "version": version}
    line |= {"by": person(), **details}
    text = json.dumps(line) + "\n"
    if workspace.audit.exists() and workspace.audit.read_bytes()[-1:] not in (b"", b"\n"):
        text = "\n" + text  # a crash cut the last line short: keep ours whole
    with workspace.audit.open("a", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
