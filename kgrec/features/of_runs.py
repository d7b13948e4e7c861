"""The feature tables of a workspace: which one a run read, and reading it again."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from kgrec.errors import ArtifactError, InputError, Problem, nearest
from kgrec.features.backends import BACKENDS, BackendName
from kgrec.features.tables import FeatureTable
from kgrec.workspace import Workspace


def table_of(workspace: Workspace, name: str, backend: BackendName) -> FeatureTable:
    """Return the table of the configs of a name, in `feature_tables/NAME/BACKEND`; it may hold nothing yet."""
    return BACKENDS[backend](workspace.feature_tables / name / backend.value)


def list_tables(workspace: Workspace) -> list[dict[str, Any]]:
    """Return every version of every table, the oldest first, with the runs that trained on it."""
    runs: dict[tuple[str, str, str], list[str]] = {}
    for run_id, found in _records(workspace).items():
        if found is not None:
            runs.setdefault((found["name"], found["backend"], found["version"]), []).append(run_id)
    return [
        {"name": name, "backend": table_backend.value, "version": one.name, "written": one.written.isoformat(),
         "rows": one.num_rows, "runs": sorted(runs.get((name, table_backend.value, one.name), []))}
        for name, table_backend in tables_there(workspace)
        for one in table_of(workspace, name, table_backend).history()
    ]  # fmt: skip


def tables_there(workspace: Workspace) -> list[tuple[str, BackendName]]:
    """Return the name and the backend of each table that the workspace holds."""
    return [
        (folder.name, backend)
        for folder in sorted(workspace.feature_tables.glob("[!.]*"))
        for backend in BackendName
        if (folder / backend.value).is_dir() or (folder / f".{backend.value}.former").is_dir()
    ]


def read_features(
    workspace: str | Path = "workspace", *, run: str | None = None, name: str | None = None,
    version: str | None = None, at: datetime | None = None,
) -> pl.DataFrame:  # fmt: skip
    """Return a feature table: user, item, time, part, labels and every feature as training read it, before encoding.

    run: the id of a training run (of MLflow and of `kgrec run --json`); its table is read, whatever was written since.
    Without one: the table of the configs called `name` (needless where there is only one), the latest, the one called
    `version`, or the one that was the latest `at` an instant. Raises InputError when there is no such run or table,
    ArtifactError when the version is not there or damaged.
    """
    place = Workspace(workspace, must_exist=True)
    if run is not None:
        told = _of_run(place, run)
        return table_of(place, told["name"], BackendName(told["backend"])).read(told["version"])
    there = tables_there(place)
    names = list(dict.fromkeys(each for each, _ in there))
    chosen = name if name is not None else names[0] if len(names) == 1 else None
    if chosen is None or chosen not in names:
        what = "no feature table" if not names else "which feature table?" if name is None else f"no table {name!r}"
        remedy = f"name one of: {', '.join(names)}" if names else "run `kgrec features CONFIG` first"
        raise InputError(Problem(str(workspace), what, remedy))
    tables = [table_of(place, each, backend) for each, backend in there if each == chosen]
    writings = [
        (one.written, one.name, table)
        for table in tables
        for one in table.history()
        if (version is None or one.name == version) and (at is None or one.written <= at)
    ]
    if not writings:
        return tables[0].read(version, at=at)  # says what there is
    _, found, table = max(writings, key=lambda writing: writing[0])
    return table.load(found)


def _of_run(workspace: Workspace, run: str) -> dict[str, str]:
    records = _records(workspace)
    if run not in records:
        guess = nearest(run, records)
        remedy = (
            f"did you mean {guess}?" if guess else "`kgrec features tables` lists tables and the runs that read them"
        )
        raise InputError(
            Problem("--run", f"no run {run!r} in this workspace", remedy, example=next(iter(records), None))
        )
    told = records[run]
    if told is None:
        raise ArtifactError(f"run {run} read no features: its data has no interactions")
    return told


def _records(workspace: Workspace) -> dict[str, dict[str, str] | None]:
    """Return what each run noted of its feature table, by its id."""
    found = {}
    for path in sorted(workspace.runs.glob("*.json")):
        raw = json.loads(path.read_text(encoding="utf-8"))
        if "run_id" in raw:
            found[raw["run_id"]] = raw.get("features")
    return found
