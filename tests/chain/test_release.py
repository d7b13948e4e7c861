from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from kgrec.artifacts import ArtifactStore
from kgrec.chain import candidate, champion
from kgrec.chain import release as chain_release
from kgrec.chain.candidate import Made
from kgrec.chain.context import Run
from kgrec.chain.release import read_figures, release, run_key
from kgrec.config import LoadedConfig, RunConfig
from kgrec.data.vocabulary import Vocabulary
from kgrec.errors import KgrecError
from kgrec.evaluation.pairs import Pairs
from kgrec.serving import package, versions
from kgrec.serving.recommend import Version
from kgrec.workspace import Workspace
from tests.serving.small_version import USERS, make_parts, make_version, vocabulary

METRIC = "ndcg@2"


class Tracker:
    """Stands for MLflow: remembers what it was told, and fails where the test says."""

    told: list[tuple[object, ...]]
    fault: str | None

    def __init__(self, workspace):
        self.workspace = workspace

    def _note(self, *words):
        if Tracker.fault == words[0]:
            raise RuntimeError(f"killed in {words[0]}")
        Tracker.told.append(words)

    def open_run(self, key, name):
        self._note("open_run", name)
        return f"run-{key[:6]}"

    def log_run(self, run_id, record, files, model_id):
        assert model_id == (f"model of {run_id}" if record.tags["kgrec.version"] else None)
        self._note("log_run", run_id, dict(record.metrics), dict(record.tags))

    def log_version(self, run_id, name, version, folder):
        assert (folder / package.VECTORS).is_file()
        self._note("log_version", run_id, version)
        return f"model of {run_id}"

    def set_promoted(self, name, version):
        self._note("set_promoted", version)

    def finish(self, run_id):
        self._note("finish", run_id)


@pytest.fixture(autouse=True)
def tracker(monkeypatch):
    Tracker.told, Tracker.fault = [], None
    monkeypatch.setattr(chain_release, "Tracking", Tracker)

    def report(run, parts, history, run_id, *rest):
        path = run.workspace.reports / run_id / "report.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("report")
        return path

    monkeypatch.setattr(chain_release, "write_run_report", report)
    return Tracker


@pytest.fixture
def place(tmp_path):
    return Workspace(tmp_path / "workspace")


def run_in(place, **config):
    raw = {"name": "shop", "interactions": {"path": "log.csv"}, "tasks": ["click"], "evaluation": {"k": [2]},
           "gate": {"metric": METRIC}}  # fmt: skip
    config = RunConfig.model_validate(raw | config)
    return Run(LoadedConfig(config, Path(), "shop.toml"), place)


def made_in(place, own=0.5, popularity=0.1, name="one", servable=True):
    log, graph, trained, index = make_parts(place.store, name)
    figures = {"validation": {}, "test": {"ranking": {METRIC: own, "num_users": 3}}}
    baselines = {
        "popularity": {"setting": {}, "validation": {}, "test": {"ranking": {METRIC: popularity}}},
        "ease": {"left_out": "too many items"},
    }

    def make(out):
        (out / "metrics.json").write_text(json.dumps(figures))
        (out / "baselines.json").write_text(json.dumps(baselines))
        return {}

    evaluated, _ = place.store.build("evaluate", {"own": str(own), "popularity": str(popularity)}, {}, make)
    return Made(log, log, None, graph, trained, evaluated, index if servable else None)


def steps():
    return [words[0] for words in Tracker.told]


def test_a_candidate_that_passes_is_registered_promoted_and_logged(place):
    run = run_in(place)
    released = release(run, made_in(place))
    assert (released.version, released.promoted, released.verdict.passed) == ("1", True, True)
    assert released.report.read_text() == "report"
    assert steps() == ["open_run", "log_version", "log_run", "finish", "set_promoted"]
    _, _, metrics, tags = Tracker.told[2]
    assert metrics == {f"test/ranking/{METRIC}": 0.5, "test/ranking/num_users": 3.0}
    assert tags == {"kgrec.version": "1", "kgrec.gate": "passed"}
    record = versions.promoted(place)
    assert record.run_id == released.run_id
    assert record.metrics == {"ranking": {METRIC: 0.5, "num_users": 3}}
    assert run.reports["promote"].cached is False


def test_a_candidate_that_fails_is_registered_and_not_served(place):
    released = release(run_in(place), made_in(place, own=0.1, popularity=0.5))
    assert (released.version, released.promoted, released.verdict.passed) == ("1", False, False)
    assert "popularity" in released.verdict.failures[0]
    assert versions.read_registry(place).promoted is None
    assert steps() == ["open_run", "log_version", "log_run", "finish"]


def test_a_run_that_ended_is_read_back_and_a_rollback_by_hand_stands(place):
    release(run_in(place), made_in(place, own=0.5))
    second = release(run_in(place, gate={"metric": METRIC, "tolerance": 0.5}), made_in(place, own=0.6))
    assert (second.version, second.promoted) == ("2", True)
    versions.rollback(place, why="by hand")
    told = len(Tracker.told)
    run = run_in(place, gate={"metric": METRIC, "tolerance": 0.5})
    again = release(run, made_in(place, own=0.6))
    assert (again.run_id, again.version, again.verdict) == (second.run_id, "2", second.verdict)
    assert again.promoted is False
    assert versions.promoted(place).version == "1"
    assert len(Tracker.told) == told
    assert run.reports["promote"].cached is True


@pytest.mark.parametrize("killed_in", ["open_run", "log_version", "log_run", "finish", "set_promoted"])
def test_a_run_killed_at_any_step_continues_with_the_same_version(place, killed_in):
    Tracker.fault = killed_in
    with pytest.raises(RuntimeError, match=killed_in):
        release(run_in(place), made_in(place))
    Tracker.fault = None
    released = release(run_in(place), made_in(place))
    assert (released.version, released.promoted) == ("1", True)
    assert len(versions.read_registry(place).versions) == 1
    assert [line["what"] for line in versions.read_audit(place.audit)] == ["registered", "promoted"]
    assert steps()[-4:] == ["log_version", "log_run", "finish", "set_promoted"]


def test_a_graph_without_interactions_has_nothing_to_serve(place):
    released = release(run_in(place), made_in(place, servable=False))
    assert (released.version, released.promoted, released.verdict.passed) == ("", False, True)
    assert "nothing to serve" in released.verdict.reasons[0]
    assert steps() == ["open_run", "log_run", "finish"]
    assert versions.read_registry(place).versions == ()


def test_the_promoted_version_is_asked_the_same_question(place):
    release(run_in(place), made_in(place, own=0.5))
    run = run_in(place)
    made = made_in(place, own=0.2)
    number, figures = candidate.promoted_figures(run, made)
    assert number == "1"
    # bob's conversion of a: his vector puts b and c first. eve had the item that is gone, and nobody may show it.
    assert figures["num_users"] == 2
    assert figures[METRIC] == 0.0
    assert candidate.promoted_figures(run_in(place, name="other"), made) is None
    champion.ask_ahead(run, made.log)
    ahead, now = (champion.asked(run, made.log) for _ in range(2))
    assert not run.asked_ahead
    assert ahead[0] == now[0] == number
    assert torch.equal(ahead[2], now[2]), "asked ahead or when it is wanted"


def test_the_key_of_a_run_follows_what_was_made_the_gate_and_the_name(place):
    made = made_in(place)
    keys = {
        run_key(run_in(place), made),
        run_key(run_in(place), made_in(place, own=0.6)),
        run_key(run_in(place, name="other"), made),
        run_key(run_in(place, gate={"metric": METRIC, "tolerance": 0.3}), made),
    }
    assert len(keys) == 4
    assert run_key(run_in(place, seed=3), made) in keys


def test_the_figures_of_a_baseline_that_was_left_out_are_absent(place):
    figures, baselines = read_figures(made_in(place).evaluated)
    assert figures["test"]["ranking"][METRIC] == 0.5
    assert baselines == {"popularity": {METRIC: 0.1}}


def test_a_stored_candidate_that_cannot_answer_is_told_to_the_gate(tmp_path, monkeypatch):
    artifact = make_version(ArtifactStore(tmp_path))
    assert candidate.load_fault(artifact) is None

    def answering(score):
        rows = [] if score is None else [("u", "a", "A", score)]
        return lambda self, users, k: pl.DataFrame(
            rows, schema={"user": pl.String, "item": pl.String, "title": pl.String, "score": pl.Float64}, orient="row"
        )

    with monkeypatch.context() as patch:
        patch.setattr(Version, "recommend", answering(float("nan")))
        assert candidate.load_fault(artifact) == "a score is not a number"
        patch.setattr(Version, "recommend", answering(None))
        assert candidate.load_fault(artifact) == "it recommends nothing to anybody"
        patch.setattr(Version, "recommend", lambda *args, **options: (_ for _ in ()).throw(KgrecError("no")))
        assert candidate.load_fault(artifact) == "KgrecError: no"
    path = artifact.file(package.VECTORS)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert candidate.load_fault(artifact).startswith("ArtifactError")
    assert package.VECTORS in candidate.load_fault(artifact)


def test_a_version_scores_another_log_by_ids_and_never_shows_what_it_does_not_know(tmp_path):
    version = Version(make_version(ArtifactStore(tmp_path / "a")))

    def log(out):
        vocabulary(["new", "f", "a", "d"]).save(out / package.ITEMS)
        vocabulary(["zoe", *reversed(USERS)]).save(out / package.USERS)
        return {}

    other, _ = ArtifactStore(tmp_path / "b").build("split", {}, {}, log)
    items, users = (Vocabulary.load(other.file(name)).entries.to_list() for name in (package.ITEMS, package.USERS))
    history = Pairs.of([0, 1, 1, 5], [2, 0, 3, 2], len(users), len(items))
    rows = torch.tensor([users.index(user) for user in ("ann", "zoe", "eve", "bob", "dan")])
    scores = champion.scores_of(version, other, history)(rows).numpy()
    assert np.isneginf(scores[:, 0]).all(), "the item is new"
    by_item = dict(zip(items, scores.T.tolist(), strict=True))
    ann, zoe, eve, bob, dan = range(5)
    assert by_item["f"][ann] == pytest.approx(0.6)
    assert by_item["d"][ann] == 0.0
    assert [by_item[item][zoe] for item in "fad"] == pytest.approx([0.6, 1, 0]), "folded in: she had a"
    assert [by_item[item][eve] for item in "fad"] == pytest.approx([0.6, 1, 0]), "folded in: d, which folds like a"
    assert [by_item[item][bob] for item in "fad"] == [0, 2, 1], "no history in this log: what is popular here"
    assert [by_item[item][dan] for item in "fad"] == [0, 2, 1]
