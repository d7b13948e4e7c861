"""The feature table of a training run is read again by the run's id, whatever was written since."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from mlflow import MlflowClient

import kgrec
from kgrec.artifacts import load_artifact
from kgrec.errors import ArtifactError, InputError
from kgrec.features.backends import BackendName
from kgrec.features.by_day import FeatureDays
from kgrec.features.encoding import FeatureEncoder
from kgrec.features.of_runs import list_tables, read_features, table_of
from kgrec.serving.forget import forget
from kgrec.stages import RunResult
from kgrec.workspace import Workspace
from tests import worlds
from tests.calling import as_json, call

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def rows(value: float) -> pl.DataFrame:
    return pl.DataFrame({"user": ["u", "v"], "item": ["a", "b"], "x": [value, 0.0]})


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """A workspace of two configs, the first in both backends, and two runs."""
    pytest.importorskip("deltalake")
    place = Workspace(tmp_path / "w")
    place.runs.mkdir()
    for n, (name, backend) in enumerate((("shop", BackendName.PARQUET), ("shop", BackendName.DELTA),
                                         ("club", BackendName.PARQUET))):  # fmt: skip
        table = table_of(place, name, backend)
        version = table.write(rows(float(n)), NOW + timedelta(days=n))
        told = {"run_id": f"run{n}", "features": {"name": name, "backend": backend.value, "version": version}}
        (place.runs / f"{n}.json").write_text(json.dumps(told))
        table.write(rows(n + 0.5), NOW + timedelta(days=10 + n))
    (place.runs / "graph.json").write_text(json.dumps({"run_id": "graph", "features": None}))
    return place


def test_by_run_id_after_newer_versions_and_in_either_backend(place: Workspace) -> None:
    assert [read_features(place.root, run=f"run{n}")["x"][0] for n in range(3)] == [0.0, 1.0, 2.0]
    assert list_tables(place)[0]["runs"] == ["run2"]
    assert {one["name"] for one in list_tables(place)} == {"shop", "club"}
    assert sorted(run for one in list_tables(place) for run in one["runs"]) == ["run0", "run1", "run2"]


def test_by_name_version_and_instant(place: Workspace) -> None:
    assert kgrec.read_features(place.root, name="shop")["x"][0] == 1.5
    assert read_features(place.root, name="shop", at=NOW + timedelta(days=1, hours=1))["x"][0] == 1.0
    assert read_features(place.root, name="shop", at=NOW)["x"][0] == 0.0
    version = table_of(place, "shop", BackendName.PARQUET).history()[0].name
    assert read_features(place.root, name="shop", version=version)["x"][0] == 0.0


def test_what_is_not_there_is_refused_with_what_is(place: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean run1"):
        read_features(place.root, run="run11")
    with pytest.raises(ArtifactError, match="read no features"):
        read_features(place.root, run="graph")
    with pytest.raises(InputError, match="club, shop"):
        read_features(place.root)
    with pytest.raises(InputError, match="no table 'shpo'"):
        read_features(place.root, name="shpo")
    with pytest.raises(ArtifactError, match="no version 'never'"):
        read_features(place.root, name="club", version="never")
    Workspace(tmp_path / "empty")
    with pytest.raises(InputError, match="kgrec features CONFIG"):
        read_features(tmp_path / "empty")


def test_commands_list_and_read(place: Workspace, tmp_path: Path) -> None:
    told = as_json(call("features", "tables", "--workspace", place.root, "--json"))
    assert len(told["tables"]) == 6
    assert call("features", "tables", "--workspace", place.root).stdout.count("run1") == 1
    out = tmp_path / "rows.parquet"
    for words, first in ((("--run", "run1"), 1.0), (("--name", "club", "--at", "2026-11-25"), 2.0)):
        told = as_json(call("features", "read", *words, "--out", out, "--workspace", place.root, "--json"))
        assert told == {"file": str(out), "rows": 2, "columns": ["user", "item", "x"]}
        assert pl.read_parquet(out)["x"][0] == first
    assert call("features", "read", "--run", "run1", "--name", "x", "--out", out).exit_code == 2


def test_a_real_run_notes_its_table_and_the_table_is_what_training_read(tiny: RunResult) -> None:
    run_id = tiny.released.run_id
    table = kgrec.read_features(tiny.workspace, run=run_id)
    artifacts = Path(tiny.workspace) / "artifacts"
    log, features = (load_artifact(next((artifacts / kind).iterdir())) for kind in ("split", "features"))
    encoder = FeatureEncoder.from_dict(json.loads(features.file("encoder.json").read_text()))
    for again, name in zip(encoder.encode(table), ("numeric.npy", "categorical.npy"), strict=True):
        np.testing.assert_array_equal(again, np.load(features.file(name)))
    assert table.height == pl.read_parquet(log.file("labelled.parquet")).height
    assert table["user"].str.starts_with("u").all()
    client = MlflowClient(tracking_uri=f"sqlite:///{Path(tiny.workspace) / 'mlflow.db'}")
    tags = client.get_run(run_id).data.tags
    (listed,) = list_tables(Workspace(tiny.workspace))
    assert tags["kgrec.features.version"] == listed["version"]
    assert (tags["kgrec.features.backend"], tags["kgrec.features.name"], listed["runs"]) == (
        "parquet",
        "tiny",
        [run_id],
    )


def test_the_config_chooses_the_backend_and_a_second_write_is_none(tmp_path: Path) -> None:
    pytest.importorskip("deltalake")
    from kgrec.chain.context import Run
    from kgrec.config import load_config
    from kgrec.stages import run_chain

    place = Workspace(tmp_path / "w")
    made = []
    for backend in ("delta", "parquet", "delta"):
        loaded = load_config(worlds.TINY, [f'features.backend="{backend}"'])
        made.append(run_chain(Run(loaded, place), until="features"))
    assert len({one.digest for one in made}) == 1, "where a table is kept changes nothing that training reads"
    assert [(one["backend"], one["version"]) for one in list_tables(place)] == [
        (backend, made[0].facts["table"]) for backend in ("parquet", "delta")
    ]  # fmt: skip


def test_features_by_day_are_kept_up_to_date_by_a_command_and_forgotten(tmp_path: Path) -> None:
    first = as_json(call("features", "update", worlds.TINY, "--workspace", tmp_path, "--json"))
    again = as_json(call("features", "update", worlds.TINY, "--workspace", tmp_path, "--json"))
    assert len(first["computed"]) > 10
    assert (again["computed"], again["reused"]) == ([], len(first["computed"]))
    assert (again["snapshot"], again["online"]) == (first["snapshot"], first["online"])
    days = FeatureDays(tmp_path / "feature_days" / "tiny")
    assert days.open_online().views[0].table.height > 10
    assert days.read().height == days.open_online().views[0].table["user__rows_count"].sum()
    forget(Workspace(tmp_path), "u01")
    assert not (tmp_path / "feature_days").exists()
