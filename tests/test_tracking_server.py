"""Where runs are kept: what the environment names, and what is done while a server does not answer."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest

from kgrec.errors import InputError, UnreachableError
from kgrec.schedule import may_pass
from kgrec.serving import versions
from kgrec.serving.forget import forget
from kgrec.serving.recommend import load
from kgrec.tracking import Tracking
from kgrec.tracking.stores import VARIABLE, servers_of, speaking_to, store_of
from kgrec.workspace import Workspace
from tests.calling import as_json, call
from tests.data.test_postgresql import free_port

PERSON = "u01"


def test_the_environment_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Workspace(tmp_path / "workspace")
    monkeypatch.delenv(VARIABLE, raising=False)
    own = store_of(place)
    assert (own.uri, own.artifacts) == (f"sqlite:///{place.root}/mlflow.db", place.tracking_artifacts.as_uri())
    monkeypatch.setenv(VARIABLE, "postgresql+psycopg://ann@db/mlflow")
    assert store_of(place).artifacts == own.artifacts, "a database alone keeps no files"
    assert servers_of(place) == []
    monkeypatch.setenv(VARIABLE, "https://runs.example.com/")
    named = store_of(place)
    assert (named.uri, named.artifacts, named.is_server) == ("https://runs.example.com", None, True)
    monkeypatch.setenv(VARIABLE, "http://other:5000")
    assert store_of(place).owner == named.owner
    assert [store.uri for store in servers_of(place)] == ["https://runs.example.com", "http://other:5000"]
    assert store_of(Workspace(tmp_path / "second")).owner != named.owner
    for wrong in ("./mlruns", "databricks", "ftp://host"):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(InputError, match="neither a server nor a database"):
            store_of(place)


def test_a_server_that_is_not_there_is_said_at_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UnreachableError, match="does not answer") as fault:
        Tracking(Workspace(tmp_path / "workspace"))
    assert may_pass(fault.value)


def test_the_process_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with speaking_to("http://127.0.0.1:9"):
        assert mlflow.get_tracking_uri() == os.environ[VARIABLE] == "http://127.0.0.1:9"
    assert VARIABLE not in os.environ
    monkeypatch.setenv(VARIABLE, "http://mine")
    with speaking_to("http://127.0.0.1:9"):
        pass
    assert os.environ[VARIABLE] == "http://mine"


def test_nothing_is_removed_while_a_server_with_copies_does_not_answer(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Workspace(tiny_copy)
    monkeypatch.setenv(VARIABLE, f"http://127.0.0.1:{free_port()}")
    store_of(place)
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(UnreachableError):
        forget(place, PERSON)
    assert not place.tombstones.exists()
    assert PERSON in load(place.root).user_rows


def test_a_rollback_switches_where_the_server_does_not_answer(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = Workspace(tiny_copy)
    (first,) = versions.read_registry(place).versions
    versions.register(place, replace(first, key="another", run_id="run2"))
    versions.promote(place, "2", why="test")
    monkeypatch.setenv(VARIABLE, f"http://127.0.0.1:{free_port()}")
    answer = call("rollback", "--workspace", tiny_copy, "--json")
    assert answer.exit_code == 0
    assert as_json(answer)["promoted"] == versions.read_registry(place).promoted == "1"
    assert "alias stays where it was" in caplog.text
