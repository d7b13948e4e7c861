"""Forgetting a person: out of versions, of what they were made from, of MLflow's copies and of reports.

Versions are made anew without the person and keep their numbers; what can be computed again (tables, features,
weights, figures) is deleted where it holds them. Every step can be repeated: after a kill, call it again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from kgrec import columns as c
from kgrec.artifacts import MANIFEST, Artifact, hash_file, load_artifact, write_atomically
from kgrec.data.tombstones import Tombstones
from kgrec.data.vocabulary import Vocabulary
from kgrec.errors import ArtifactError, InputError, Problem
from kgrec.features.latest import INDEX, LatestFeatures, LatestView
from kgrec.features.of_runs import table_of, tables_there
from kgrec.privacy import pseudonym, salt_of
from kgrec.serving import package, versions
from kgrec.serving.score import LATEST
from kgrec.tracking import Copy, ServerCopies
from kgrec.workspace import Workspace

_NOBODYS: Final = frozenset({"graph", "baselines", "index"})
_BLANK: Final = "\x1fforgotten-"
_STUB: Final = "This report was removed: it showed a person who asked to be forgotten.\n"
_REPORT: Final = "report.json"


@dataclass
class Forgotten:
    """What was removed: versions made anew, folders deleted, reports removed, feature tables rewritten.

    Paths are relative to the workspace.
    """

    versions: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    tracked: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    already: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"versions_made_anew": self.versions, "artifacts_deleted": self.deleted,
                "mlflow_copies_replaced": self.tracked, "reports_removed": self.reports,
                "feature_tables_rewritten": self.tables,
                "was_forgotten_before": self.already}  # fmt: skip


def forget(workspace: Workspace, user: str) -> Forgotten:
    """Remove a person by id from all that the workspace holds; the caller holds the workspace.

    InputError when nothing here names the person and nobody forgot them before; UnreachableError, before anything is
    removed, when an MLflow server that holds copies does not answer.
    """
    with ServerCopies(workspace) as servers:
        return _forget(workspace, user.strip(), servers)


def _forget(workspace: Workspace, user: str, servers: ServerCopies) -> Forgotten:
    stones = Tombstones.load(workspace.tombstones)
    found = Forgotten(already=stones.holds(user))
    holders = _holders(workspace, user)
    known = [artifact for artifact in _versions(workspace) if _row(artifact, user) is not None]
    copies = [path.parent for path in sorted(workspace.tracking_artifacts.rglob(package.USERS)) if _names(path, user)]
    called = {user, pseudonym(user, salt_of(workspace))}
    reports = _reports(workspace, called)
    there = [copy for copy in servers.versions() if _copy_names(copy, user)]
    told = [copy for copy in servers.reports() if _REPORT in copy.names() and _shows(copy.fetch(_REPORT), called)]
    tables = [table for table in (table_of(workspace, *one) for one in tables_there(workspace)) if table.holds(user)]
    if not (holders or known or copies or reports or there or told or tables or found.already):
        remedy = "check the id (it is the one of your log), and --workspace"
        raise InputError(Problem("--user", "nothing in this workspace names this person", remedy))
    stones = stones.bury(user)
    stones.save(workspace.tombstones)
    fresh = {artifact.key: _anew(workspace, artifact, user, stones) for artifact in known}
    keys = {old: new.key for old, new in fresh.items()}
    found.versions = [record.version for record in versions.read_registry(workspace).versions if record.key in keys]
    if found.versions:
        versions.replace_artifacts(workspace, keys, why="a person was forgotten")
    for folder in copies:
        found.tracked.append(_relative(workspace, folder))
        _replace_copy(folder, fresh)
    for copy in there:
        found.tracked.append(copy.where)
        artifact = fresh.get(_key_of(copy))
        copy.replace(artifact.path if artifact is not None else None)
    for path in (*holders, *(artifact.path for artifact in known)):
        found.deleted.append(_relative(workspace, path))
        shutil.rmtree(path)
    for table in tables:
        table.forget(user)
        found.tables.append(_relative(workspace, table.root))
    found.reports = [_relative(workspace, _remove_report(path)) for path in reports]
    found.reports += [_remove_told(copy) for copy in told]
    for path in (workspace.scratch, workspace.checkpoints, workspace.quarantine, workspace.feature_days):
        shutil.rmtree(path, ignore_errors=True)
    workspace.store.sweep()
    return found


def without(artifact: Artifact, user: str, out: Path) -> dict[str, Any]:
    """Write a version without a person into an empty folder and return its facts. Rows of others stand as they were.

    The id gives way to a blank, the vector to zeros, and every table loses the person's rows.
    """
    row = _row(artifact, user)
    if row is None:
        raise ArtifactError(f"{artifact.path}: does not know the person")
    count = pl.read_parquet(artifact.file(package.USERS)).height
    for name in artifact.files:
        target = out / name
        if name.startswith(f"{LATEST}/"):
            continue
        if name == package.USERS:
            entries = Vocabulary.load(artifact.file(name)).entries.to_list()
            entries[row] = f"{_BLANK}{row}"
            Vocabulary.of(pl.Series(entries, dtype=pl.String)).save(target)
        elif name in (package.VECTORS, package.TRAINED_USERS):
            save_file({key: _blanked(key, tensor, row, count) for key, tensor in _tensors(artifact, name)}, target)
        elif name.endswith(".parquet") and c.USER_ROW in pl.read_parquet_schema(artifact.file(name)):
            pl.read_parquet(artifact.file(name)).filter(pl.col(c.USER_ROW) != row).write_parquet(target)
        else:
            shutil.copyfile(artifact.file(name), target)
    if artifact.has(f"{LATEST}/{INDEX}"):
        _latest_without(artifact.path / LATEST, row, out / LATEST)
    bound = dict(artifact.facts["bound_to"]) | {"model": hash_file(out / package.VECTORS)}
    return dict(artifact.facts) | {"bound_to": bound}


def _latest_without(folder: Path, row: int, out: Path) -> None:
    """Write the latest features anew, without the keys of a person."""
    latest = LatestFeatures.load(folder)
    views = []
    for view in latest.views:
        table = view.table
        if c.USER_ROW in view.keys:
            table = table.filter(pl.col(c.USER_ROW) != row)
        views.append(LatestView(view.name, tuple(view.keys), table, view.unseen))
    LatestFeatures(tuple(views), latest.derived).save(out)


def _tensors(artifact: Artifact, name: str) -> list[tuple[str, np.ndarray[Any, Any]]]:
    return sorted(load_file(artifact.file(name)).items())


def _blanked(key: str, tensor: np.ndarray[Any, Any], row: int, count: int) -> np.ndarray[Any, Any]:
    """Return a table of users with zeros in the person's row; other tables as they are."""
    if not key.endswith(("_U", "_UD")):
        return tensor
    if len(tensor) != count:
        raise ArtifactError(f"{key} holds {len(tensor)} rows for {count} users")
    tensor = tensor.copy()
    tensor[row] = 0
    return tensor


def _anew(workspace: Workspace, artifact: Artifact, user: str, stones: Tombstones) -> Artifact:
    inputs = dict(artifact.inputs) | {"forgotten": str(stones.digest), "was": artifact.key}
    return workspace.store.build("version", inputs, artifact.config, lambda out: without(artifact, user, out))[0]


def _holders(workspace: Workspace, user: str) -> list[Path]:
    """Return the folders of artifacts other than versions that name the person or were made from one that does."""
    found: list[tuple[Path, Artifact]] = []
    for manifest in sorted(workspace.store.root.glob(f"*/*/{MANIFEST}")):
        if manifest.parent.parent.name not in _NOBODYS | {"version"}:
            found.append((manifest.parent, load_artifact(manifest.parent, verify=False)))
    held = {
        artifact.digest for path, artifact in found if any(_names(one, user) for one in sorted(path.rglob("*.parquet")))
    }
    while more := {artifact.digest for _, artifact in found if held & set(artifact.inputs.values())} - held:
        held |= more
    return [path for path, artifact in found if artifact.digest in held]


def _names(path: Path, user: str) -> bool:
    """Say whether a Parquet file names the person: as a user, or anywhere in a row that was put aside."""
    schema = pl.read_parquet_schema(path)
    if path.name == package.USERS:
        return bool((pl.read_parquet(path, columns=[c.ID])[c.ID] == user).any())
    if c.USER in schema:
        return bool((pl.read_parquet(path, columns=[c.USER])[c.USER].cast(pl.String) == user).any())
    if "row_text" in schema:
        return bool(pl.read_parquet(path)["row_text"].str.contains(json.dumps(user), literal=True).any())
    return False


def _versions(workspace: Workspace) -> list[Artifact]:
    """Return every version's artifact, also those that a killed process left behind."""
    manifests = sorted(workspace.store.root.glob(f"version/*/{MANIFEST}"))
    return [load_artifact(manifest.parent, "version") for manifest in manifests]


def _row(artifact: Artifact, user: str) -> int | None:
    found = pl.read_parquet(artifact.file(package.USERS)).filter(pl.col(c.ID) == user)
    return None if found.is_empty() else int(found[c.ROW][0])


def _replace_copy(folder: Path, fresh: Mapping[str, Artifact]) -> None:
    """Put the version made anew in the place of MLflow's copy; a copy of no known version is deleted."""
    artifact = fresh.get(load_artifact(folder, verify=False).key)
    shutil.rmtree(folder)
    if artifact is not None:
        shutil.copytree(artifact.path, folder)


def _reports(workspace: Workspace, called: Set[str]) -> list[Path]:
    """Return the folders of reports that show the person as an example."""
    found = []
    for root in (workspace.reports, workspace.tracking_artifacts):
        for path in sorted(root.rglob(_REPORT)):
            if _shows(path, called):
                found.append(path.parent)
    return found


def _shows(report: Path, called: Set[str]) -> bool:
    """Say whether a report shows the person, by id or by hash, as an example."""
    try:
        examples = json.loads(report.read_text(encoding="utf-8")).get("examples", [])
    except (ValueError, AttributeError):
        return False
    return any(str(example.get("user")) in called for example in examples)


def _remove_report(folder: Path) -> Path:
    for path in sorted(folder.glob("report.*")):
        write_atomically(path, _stub(path).encode())
    return folder


def _stub(path: Path) -> str:
    return json.dumps({"removed": _STUB.strip()}) + "\n" if path.suffix == ".json" else _STUB


def _copy_names(copy: Copy, user: str) -> bool:
    """Say whether a server's copy of a version names the person; one without its users is half of one, and may."""
    return package.USERS not in copy.names() or _names(copy.fetch(package.USERS), user)


def _key_of(copy: Copy) -> str:
    """Return the key of the version that a server's copy is of; empty for a copy that is not whole."""
    if MANIFEST not in copy.names():
        return ""
    return load_artifact(copy.fetch(MANIFEST).parent, verify=False).key


def _remove_told(copy: Copy) -> str:
    for name in copy.names():
        if name.startswith("report."):
            path = copy.fetch(name)
            path.write_text(_stub(path), encoding="utf-8")
            copy.put(path)
    return copy.where


def _relative(workspace: Workspace, path: Path) -> str:
    return str(path.relative_to(workspace.root))
