"""Retention of runs: record, report, MLflow's run and feature tables go together, never the kept or the newest."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from mlflow import MlflowClient

from kgrec.errors import UnreachableError
from kgrec.features.backends import BackendName
from kgrec.features.of_runs import list_tables, table_of
from kgrec.features.tables import FeatureTable
from kgrec.serving import old_runs, versions
from kgrec.serving.pruning import prune
from kgrec.serving.retention import RetentionConfig
from kgrec.serving.versions import VersionRecord
from kgrec.tracking import KEY_TAG, LoggedRun, Tracking, logged_runs
from kgrec.tracking.stores import VARIABLE, store_of
from kgrec.workspace import Workspace
from tests.data.test_postgresql import free_port

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LEAST = RetentionConfig(versions=1, rollbacks=0)


@pytest.fixture
def planted(tmp_path: Path) -> Workspace:
    """Runs of 900, 800, ... 400 days of age, each with a table; the second's version is served, 5 is a club."""
    place = Workspace(tmp_path / "workspace")
    place.runs.mkdir()
    for n in range(6):
        name = "club" if n == 5 else "shop"
        then = NOW - timedelta(days=900 - 100 * n)
        version = table_of(place, name, BackendName.PARQUET).write(pl.DataFrame({"user": ["u"], "x": [n]}), then)
        features = {"name": name, "backend": "parquet", "version": version}
        told = {"run_id": f"run{n}", "version": str(n + 1) if n < 2 else "", "features": features}
        (place.runs / f"{n}.json").write_text(json.dumps(told))
        os.utime(place.runs / f"{n}.json", (then.timestamp(), then.timestamp()))
        (place.reports / f"run{n}").mkdir(parents=True)
    for n in range(2):
        versions.register(place, VersionRecord("", "shop", f"key{n}", f"run{n}", "2024-01-01", True, (), {}))
    versions.promote(place, "2", why="test")
    return place


def left(place: Workspace) -> tuple[str, str, list[str]]:
    """Return the numbers of the records, of the reports, and the runs of all versions of tables."""
    records = "".join(sorted(path.stem for path in place.runs.glob("*.json")))
    reports = "".join(sorted(path.name[3:] for path in place.reports.iterdir()))
    return records, reports, sorted(run for one in list_tables(place) for run in one["runs"])


def test_the_kept_and_the_newest_of_each_name_stay_with_their_tables(planted: Workspace) -> None:
    before = sorted(planted.root.rglob("*"))
    told = prune(planted, LEAST, now=NOW, only_tell=True)
    assert sorted(planted.root.rglob("*")) == before, "a dry run removes nothing"
    found = prune(planted, LEAST, now=NOW)
    assert found == told
    assert found.runs == ["run0", "run2", "run3"], "1 is served, 4 the newest of shop, 5 the only one of club"
    assert left(planted) == ("145", "145", ["run1", "run4", "run5"])
    assert len(found.tables) == len(list(planted.feature_tables.rglob("*.parquet"))) == 3
    assert found.freed_bytes > 0
    assert len(versions.read_registry(planted).versions) == 2, "the list of versions keeps its lines"
    assert {line["version"] for line in versions.read_audit(planted.audit)} == {"1", "2"}
    again = prune(planted, LEAST, now=NOW)
    assert (again.runs, again.tables) == ([], [])


@pytest.mark.parametrize(
    ("change", "runs"),
    [
        ({"run_days": 650.0}, ["run0", "run2"]),
        ({"run_days": 5_000_000.0}, []),
        ({"versions": 2}, ["run2", "run3"]),
    ],
)
def test_each_key_has_an_effect(planted: Workspace, change: dict[str, float], runs: list[str]) -> None:
    config = RetentionConfig.model_validate(LEAST.model_dump() | change)
    found = prune(planted, config, now=NOW, only_tell=True)
    assert (found.runs, len(found.tables)) == (runs, len(runs))


def test_a_rollback_within_reach_keeps_its_run(planted: Workspace) -> None:
    versions.promote(planted, "1", why="test")
    versions.promote(planted, "2", why="test")
    found = prune(planted, RetentionConfig(versions=1, rollbacks=1), now=NOW, only_tell=True)
    assert found.runs == ["run2", "run3"]


def test_a_table_that_a_remaining_artifact_or_run_names_stays(planted: Workspace) -> None:
    read = json.loads((planted.runs / "2.json").read_text())["features"]["version"]
    planted.store.build("features", {}, {}, lambda _: {"table": read})
    newest = planted.runs / "4.json"
    told = json.loads(newest.read_text())
    told["features"]["version"] = json.loads((planted.runs / "0.json").read_text())["features"]["version"]
    newest.write_text(json.dumps(told))
    found = prune(planted, LEAST, now=NOW)
    assert found.runs == ["run0", "run2", "run3"]
    assert len(found.tables) == 1, "of 3; an artifact names that of 2, run 4 now that of 0, and its own is the latest"


@pytest.mark.parametrize("where", ["folders", "drop"])
def test_a_process_killed_half_way_is_finished_by_the_next(
    planted: Workspace, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if where == "folders":
            patch.setattr(old_runs.PastRun, "remove", killed)
        else:
            patch.setattr(type(table_of(planted, "shop", BackendName.PARQUET)), "_tidy", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(planted, LEAST, now=NOW)
    prune(planted, LEAST, now=NOW)
    assert left(planted) == ("145", "145", ["run1", "run4", "run5"])


def test_mlflows_runs_go_with_their_parts_files_and_models(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Workspace(tiny_copy)
    (kept,) = [run.run_id for run in logged_runs(place)]
    tracking = Tracking(place)
    client = MlflowClient(tracking_uri=tracking.uri, registry_uri=tracking.uri)
    old = tracking.open_run("old", "tiny")
    part = tracking.open_run("part", "tiny", parent=old)
    for run in (old, part, tracking.open_run("newest", "tiny")):
        client.log_text(run, "text", "report/report.html")
    by_hand = client.create_run(client.get_run(old).info.experiment_id).info.run_id
    model = client.create_logged_model(client.get_run(old).info.experiment_id, source_run_id=old)
    later = datetime.now(UTC) + timedelta(days=400)

    def killed(_: LoggedRun) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LoggedRun, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(place, RetentionConfig(days=9_000), now=later)
    assert prune(place, RetentionConfig(days=9_000), now=later).runs == [old]
    runs = client.search_runs([client.get_run(old).info.experiment_id])
    assert {run.data.tags.get(KEY_TAG, "") for run in runs} >= {"newest", ""}
    assert {run.info.run_id for run in runs} >= {kept, by_hand}
    assert {old, part}.isdisjoint(run.info.run_id for run in runs)
    assert not any((place.tracking_artifacts / run).exists() for run in (old, part))
    assert [one.model_id for one in client.search_logged_models([runs[0].info.experiment_id])] != [model.model_id]
    assert (place.tracking_artifacts / kept).exists()


def test_nothing_goes_while_a_server_with_runs_does_not_answer(
    planted: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, f"http://127.0.0.1:{free_port()}")
    store_of(planted)
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(UnreachableError):
        prune(planted, LEAST, now=NOW)
    assert left(planted)[:2] == ("012345", "012345")


def test_the_latest_version_of_a_table_is_never_dropped(planted: Workspace) -> None:
    table: FeatureTable = table_of(planted, "club", BackendName.PARQUET)
    with pytest.raises(ValueError, match="stays"):
        table.drop([table.history()[-1].name])
