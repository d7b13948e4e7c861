"""Retention: old versions and what only they needed go; what is served, reached or needed never does."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.catalog import VIEWS
from kgrec.artifacts import load_artifact
from kgrec.config import load_config
from kgrec.errors import InputError
from kgrec.serving import pruning, versions
from kgrec.serving.pruning import prune
from kgrec.serving.recommend import load
from kgrec.serving.retention import RetentionConfig, kept_versions
from kgrec.serving.versions import Registry, VersionRecord
from kgrec.stages import run
from kgrec.tracking import Tracking, load_logged, predict_logged
from kgrec.workspace import Workspace
from tests import worlds
from tests.calling import as_json, call

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def built(place, kind, days, **inputs):
    """Make an artifact of so many days of age, from others; return it."""
    name = f"{kind}-{sorted(inputs.items())}-{days}"
    artifact, _ = place.store.build(kind, inputs, {}, lambda out: {"size": (out / "file").write_text(name)})
    aged(artifact.path, days)
    return artifact


def aged(path, days):
    then = (NOW - timedelta(days=days)).timestamp()
    os.utime(path, (then, then))


@pytest.fixture
def planted(tmp_path):
    """Four versions from one ingest, each with a training of its own, all old; 1, 3 and 2 were served in this order."""
    place = Workspace(tmp_path / "workspace")
    ingest = built(place, "ingest", 90)
    for number in range(1, 5):
        train = built(place, "train", 90, ingest=ingest.digest, number=str(number))
        version = built(place, "version", 90, train=train.digest)
        record = VersionRecord("", "shop", version.key, f"run{number}", "2026-03-01", True, (), {})
        versions.register(place, record)
        report = place.reports / f"run{number}"
        report.mkdir(parents=True)
        (report / "report.json").write_text("{}")
        aged(report, 90)
    built(place, "split", 90, which="old")
    built(place, "split", 10, which="young")
    for number in "132":
        versions.promote(place, number, why="test")
    return place


def left(place):
    """Return which artifacts there are: kind and how many."""
    kinds = {folder.name for folder in place.store.root.iterdir() if not folder.name.startswith(".")}
    return {kind: len(list((place.store.root / kind).iterdir())) for kind in kinds}


def test_what_is_served_newest_within_reach_or_needed_stays(planted):
    found = prune(planted, RetentionConfig(versions=1, rollbacks=1), now=NOW)
    assert found.versions == ["1"], "2 is served, 3 was before, 4 is the newest"
    assert left(planted) == {"ingest": 1, "train": 3, "version": 3, "split": 1}
    assert found.reports == ["reports/run1"]
    assert found.freed_bytes > 0
    assert [line["what"] for line in versions.read_audit(planted.audit)][-1] == "removed"
    with pytest.raises(InputError, match="its files were removed on"):
        versions.promote(planted, "1", why="test")
    assert versions.rollback(planted, why="test").promoted == "3"
    with pytest.raises(InputError, match="no version was served before"):
        versions.rollback(planted, why="test")
    again = prune(planted, RetentionConfig(versions=1, rollbacks=1), now=NOW)
    assert again.versions == ["2"], "nothing leads back to it any more"


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({}, (["1"], 3, 2)),
        ({"versions": 4}, ([], 1, 0)),
        ({"rollbacks": 0}, (["1", "3"], 5, 3)),
        ({"rollbacks": 2}, ([], 1, 0)),
        ({"days": 5.0}, (["1"], 4, 2)),
        ({"days": 100.0}, (["1"], 1, 0)),
    ],
)
def test_each_key_has_an_effect(planted, change, gone):
    found = prune(planted, RetentionConfig(**{"versions": 1, "rollbacks": 1} | change), now=NOW, only_tell=True)
    reports = {0: 0, 2: 1, 3: 2}[gone[2]]
    assert (found.versions, len(found.artifacts), len(found.reports)) == (gone[0], gone[1], reports)


def test_a_dry_run_tells_the_same_and_removes_nothing(planted):
    before = sorted(planted.root.rglob("*"))
    told = prune(planted, RetentionConfig(versions=1, rollbacks=0), now=NOW, only_tell=True)
    assert sorted(planted.root.rglob("*")) == before
    assert prune(planted, RetentionConfig(versions=1, rollbacks=0), now=NOW) == told


def test_a_clock_that_jumps_costs_nothing_that_is_needed(planted):
    prune(planted, RetentionConfig(), now=NOW - timedelta(days=9_000))
    assert left(planted) == {"ingest": 1, "train": 4, "version": 4, "split": 2}, "all seems to be of the future"
    prune(planted, RetentionConfig(), now=NOW + timedelta(days=9_000))
    assert left(planted) == {"ingest": 1, "train": 4, "version": 4, "split": 0}


@pytest.mark.parametrize("after", range(4))
def test_a_process_killed_half_way_is_finished_by_the_next(planted, monkeypatch, after):
    calls = []

    def killed(path, *_, **__):
        calls.append(path)
        if len(calls) > after:
            raise KeyboardInterrupt
        real(path)

    real = shutil.rmtree
    with monkeypatch.context() as patch:
        patch.setattr(pruning.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(planted, RetentionConfig(versions=1, rollbacks=1), now=NOW)
    for number in ("2", "3", "4"):
        key = versions.require(versions.read_registry(planted), number).key
        load_artifact(planted.store.path("version", key))
    prune(planted, RetentionConfig(versions=1, rollbacks=1), now=NOW)
    assert left(planted) == {"ingest": 1, "train": 3, "version": 3, "split": 1}


numbers = st.integers(1, 12).map(str)


@given(st.lists(numbers, max_size=8), st.one_of(st.none(), numbers), st.integers(1, 5), st.integers(0, 5))
def test_the_served_and_the_reachable_are_always_kept(before, promoted, newest, rollbacks):
    records = tuple(
        VersionRecord(str(number), "ab"[number % 2], f"key{number}", "", "", True, (), {}) for number in range(1, 13)
    )
    kept = kept_versions(
        Registry(records, promoted, tuple(before)), RetentionConfig(versions=newest, rollbacks=rollbacks)
    )
    assert promoted is None or promoted in kept
    assert set(before[len(before) - rollbacks :] if rollbacks < len(before) else before) <= kept
    for name in "ab":
        assert {
            record.version for record in records if record.name == name and int(record.version) > 12 - newest
        } <= kept


def test_the_tiny_workspace_answers_as_before_and_repeats_nothing(tiny_copy):
    before = load(tiny_copy).recommend(["u01", "u02"], k=5, explain=True)
    (tiny_copy / "checkpoints" / "old").mkdir(parents=True, exist_ok=True)
    told = as_json(call("prune", worlds.TINY, "--workspace", tiny_copy, "--set", "retention.days=0", "--json"))
    assert told["versions"] == told["mlflow_copies"] == told["reports"] == []
    assert told["artifacts"] == ["checkpoints/old"], "every artifact of the one run is needed by its version"
    assert load(tiny_copy).recommend(["u01", "u02"], k=5, explain=True).equals(before)


def test_a_removed_version_is_made_again_by_its_run(tiny_copy):
    place = Workspace(tiny_copy)
    other = built(place, "version", 0)
    versions.register(place, VersionRecord("", "tiny", other.key, "run2", "2026-03-01", True, (), {}))
    versions.promote(place, "2", why="test")
    found = prune(place, RetentionConfig(versions=1, rollbacks=0), now=datetime.now(UTC))
    assert found.versions == ["1"]
    assert len(found.copies) == 1, "MLflow's copy goes, too"
    assert not list(place.tracking_artifacts.rglob("users.vocabulary.parquet"))
    assert len(found.artifacts) == 1, "the stages of the run are younger than retention.days"
    result = run(worlds.TINY, tiny_copy, views=VIEWS, overrides=["gate.compare_with_promoted=true"])
    assert (result.released.version, result.released.promoted) == ("1", True)
    assert versions.require(versions.read_registry(place), "1").removed == ""
    assert load(tiny_copy).number == "1"
    uri = Tracking(place).model_uri("tiny", "1")
    assert predict_logged(load_logged(uri, Tracking(place).uri), ["u01"], k=3).shape[0] == 3, "MLflow has it again, too"


def test_it_says_what_it_did(tiny_copy):
    shown = call("prune", worlds.TINY, "--workspace", tiny_copy, "--dry-run")
    assert (shown.exit_code, "would free" in shown.stdout) == (0, True)
    assert call("prune", worlds.TINY, "--workspace", tiny_copy / "gone").exit_code == 2


@pytest.mark.parametrize("automatic", [True, False])
def test_a_scheduled_run_ends_with_it_where_the_config_says_so(tiny, tiny_copy, monkeypatch, automatic):
    from pipelines import retrain

    (tiny_copy / "checkpoints" / "old").mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(retrain, "run_flow", lambda *_, **__: tiny)
    word = str(automatic).lower()
    loaded = load_config(worlds.TINY, [f"retention.automatic={word}", "retention.days=0"])
    assert retrain.retrain_loaded(loaded, Workspace(tiny_copy)).is_completed()
    assert (tiny_copy / "checkpoints" / "old").exists() != automatic


def test_a_fault_of_it_takes_nothing_from_the_run(tiny, tiny_copy, monkeypatch, caplog):
    from pipelines import retrain

    def fails(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(retrain, "run_flow", lambda *_, **__: tiny)
    monkeypatch.setattr(retrain, "prune", fails)
    loaded = load_config(worlds.TINY, ["retention.automatic=true"])
    assert retrain.retrain_loaded(loaded, Workspace(tiny_copy)).is_completed()
    assert "No space left" in caplog.text
