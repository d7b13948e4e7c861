"""Which runs are old enough to go, and the feature tables that only they read; removes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from kgrec.artifacts import Artifact
from kgrec.features.of_runs import table_of, tables_there
from kgrec.features.tables import TABLE, FeatureTable
from kgrec.serving.versions import Registry
from kgrec.tracking import LoggedRun, logged_runs
from kgrec.workspace import Workspace

_NEVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass
class PastRun:
    """All that is known of one run: its record in the workspace, and its runs in MLflow, parts of it first."""

    run_id: str
    name: str = ""
    last: datetime = _NEVER
    record: Path | None = None
    told: Mapping[str, Any] = field(default_factory=dict)
    logged: list[LoggedRun] = field(default_factory=list)

    def folders(self, workspace: Workspace) -> list[Path]:
        """Return the folders of the workspace that go with it: reports, and MLflow's files."""
        reports = (workspace.reports / self.run_id, workspace.reports / "compare" / self.run_id)
        return [*(path for path in reports if path.is_dir()), *(path for one in self.logged for path in one.folders())]

    def remove(self, workspace: Workspace) -> None:
        """Remove the record first, so that no repeated run reads it back, and MLflow's run last."""
        if self.record is not None:
            self.record.unlink()
        for path in self.folders(workspace):
            shutil.rmtree(path)
        for one in self.logged:
            one.remove()


def past_runs(workspace: Workspace, registry: Registry) -> list[PastRun]:
    """Return every run of a workspace, the newest last; UnreachableError when a server that holds some is away."""
    logged = logged_runs(workspace)
    runs: dict[str, PastRun] = {}
    there = {one.run_id for one in logged}
    for one in sorted(logged, key=lambda each: each.parent not in there):  # parts before what they are part of
        whole = one.parent if one.parent in there else one.run_id
        run = runs.setdefault(whole, PastRun(whole))
        run.name, run.last = one.name, max(run.last, one.last)
        run.logged.append(one)
    names = {record.run_id: record.name for record in registry.versions}
    for path in sorted(workspace.runs.glob("*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        if "run_id" in told:
            run = runs.setdefault(told["run_id"], PastRun(told["run_id"]))
            run.record, run.told = path, told
            run.name = run.name or names.get(run.run_id, "") or (told.get("features") or {}).get("name", "")
            run.last = max(run.last, datetime.fromtimestamp(path.stat().st_mtime, UTC))
    return sorted(runs.values(), key=lambda run: (run.last, run.run_id))


def runs_that_go(runs: Iterable[PastRun], registry: Registry, kept: set[str], oldest: datetime) -> list[PastRun]:
    """Return the runs that ended before `oldest`, but for those that made a kept version and the newest of each name.

    The newest of a name stays twice: the newest that trained, and the newest of all (a comparison, say).
    """
    runs = list(runs)
    stay = {record.run_id for record in registry.versions if record.version in kept}
    stay |= {run.run_id for run in runs if run.told.get("version") in kept}
    stay |= set({run.name: run.run_id for run in runs}.values())
    stay |= set({run.name: run.run_id for run in runs if run.record is not None}.values())
    return [run for run in runs if run.run_id not in stay and run.last < oldest]


@dataclass(frozen=True)
class OldTable:
    """The versions of one feature table that go, by name."""

    where: str
    table: FeatureTable
    versions: tuple[str, ...]


def tables_that_go(
    workspace: Workspace, runs: Iterable[PastRun], artifacts: Iterable[Artifact], oldest: datetime
) -> list[OldTable]:
    """Return each table with its versions written before `oldest` that none of these runs and artifacts names.

    runs, artifacts: those that stay. The latest version of a table stays, too.
    """
    read = [run.told.get("features") or {} for run in runs]
    named = {str(artifact.facts[TABLE]) for artifact in artifacts if TABLE in artifact.facts}
    found = []
    for name, backend in tables_there(workspace):
        table = table_of(workspace, name, backend)
        versions = table.history()
        needed = named | {one["version"] for one in read if (one.get("name"), one.get("backend")) == (name, backend)}
        needed |= {one.name for one in versions if one.written >= oldest} | {one.name for one in versions[-1:]}
        gone = dict.fromkeys(one.name for one in versions if one.name not in needed)
        found.append(OldTable(f"{name}/{backend.value}", table, tuple(gone)))
    return found
