"""All of compose.yaml and all units started as processes: a night to a served version, a backup, an end in order.

The tests build on each other: the units take over the databases and the workspace that the services filled.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kgrec.data.vocabulary import Vocabulary
from kgrec.serving import package, versions
from kgrec.serving.forget import forget
from kgrec.serving.recommend import open_version
from kgrec.tracking import ServerCopies, Tracking, load_logged, predict_logged
from kgrec.tracking.stores import VARIABLE
from kgrec.workspace import Workspace
from tests.data.test_postgresql import INSTALL, program
from tests.deployment.composing import order
from tests.deployment.machine import AUTH, PATIENCE_SECONDS, Machine, machine_in
from tests.deployment.units import units
from tests.test_notify import listener
from tests.test_tracking import KEY, record

PERSON = "u01"
BASIC = {"Authorization": "Basic " + base64.b64encode(AUTH.encode()).decode()}


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """One for this module; nothing but PostgreSQL runs on it yet."""
    if program("pg_ctl") is None or shutil.which("psql") is None:
        pytest.skip(INSTALL)
    with machine_in(Path(tempfile.mkdtemp(prefix="kgrec-compose-"))) as made:
        yield made


@pytest.fixture(scope="module")
def composed(machine: Machine) -> Machine:
    """All services of compose.yaml, started in the order of `depends_on`, and healthy."""
    names = [name for name in order(machine.services) if name not in ("postgres", "backup")]
    for name in names:
        machine.start(name)
    for name in names:
        if "healthcheck" in machine.services[name]:
            machine.wait(name, "service_healthy")
    return machine


def state_of(machine: Machine, run: str) -> Any:
    """Return the state of a run once it is final."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        state = machine.ask("4200", f"/api/flow_runs/{run}", **BASIC)[1]["state"]
        if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return state
        assert time.monotonic() < deadline, machine.running["worker"].said()
        time.sleep(0.5)


def workers(machine: Machine) -> set[str]:
    """Return the names of the pool's workers that Prefect ever heard of."""
    _, found = machine.ask("4200", "/api/work_pools/kgrec/workers/filter", {}, **BASIC)
    return {one["name"] for one in found}


def run_now(machine: Machine) -> Any:
    """Let the worker run the deployment and return the final state."""
    _, deployment = machine.ask("4200", "/api/deployments/name/kgrec-retrain/tiny", **BASIC)
    wanted = {"cron": "0 3 * * *", "timezone": "Europe/Berlin", "day_or": True}
    assert deployment["schedules"][0]["schedule"] == wanted
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert machine.ask("4200", "/api/work_pools/kgrec", **BASIC)[1]["type"] == "process"
    status, run = machine.ask("4200", f"/api/deployments/{deployment['id']}/create_flow_run", {}, **BASIC)
    assert status == 201
    return state_of(machine, run["id"])


@contextmanager
def telling(machine: Machine, *changes: tuple[str, str]) -> Iterator[list[dict[str, object]]]:
    """Let the config name a webhook, and say something else besides; yield what arrives there."""
    config = machine.places.folders["/etc/kgrec"] / "tiny.toml"
    before = config.read_text()
    with listener() as (url, told):
        text = before + f'\n[notify]\nurl = "{url}"\n'
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        config.write_text(text)
        try:
            yield told
        finally:
            config.write_text(before)


@pytest.mark.slow
def test_a_night_from_the_schedule_to_a_served_version(composed: Machine) -> None:
    assert composed.ask("8000", "/readyz")[0] == 503, "nothing is promoted yet"
    path = "/api/deployments/name/kgrec-retrain/tiny"
    assert composed.ask("4200", path)[0] == 401, "Prefect wants its password"
    with telling(composed) as told:
        state = run_now(composed)
    assert (state["type"], state["message"]) == ("COMPLETED", "version 1 is promoted"), (
        state["message"] + composed.running["worker"].said()
    )
    assert not told, "a good night is nobody's business"

    workspace = composed.places.folders["/var/lib/kgrec"] / "workspace"
    assert not (workspace / "mlflow.db").exists(), "the run is in MLflow's server"
    alias = "/api/2.0/mlflow/registered-models/alias?name=tiny&alias=promoted"
    status, found = composed.ask("5000", alias)
    assert status == 200
    tags = {tag["key"]: tag["value"] for tag in found["model_version"]["tags"]}
    assert tags["kgrec.version"] == "1"
    assert list(composed.places.folders["/var/lib/mlflow"].rglob("MLmodel")), "the server keeps the model's files"
    assert composed.ask("5000", alias, Host="evil.example")[0] == 403

    deadline = time.monotonic() + 30
    while composed.ask("8000", "/readyz")[0] != 200:
        assert time.monotonic() < deadline, "the service sees the new version by itself"
        time.sleep(0.25)
    wish = {"user": "u01", "k": 3}
    assert composed.ask("8000", "/v1/recommend", wish)[0] == 401
    status, answer = composed.ask("8000", "/v1/recommend", wish, Authorization=f"Bearer {composed.token}")
    assert (status, answer["version"], len(answer["items"])) == (200, "1", 3)


@pytest.mark.slow
def test_a_worker_tells_of_a_bad_night(composed: Machine) -> None:
    served = composed.ask("8000", "/healthz")
    with telling(composed, ('path = "tiny/ratings.csv"', 'path = "tiny/gone.csv"')) as told:
        state = run_now(composed)
    assert state["type"] == "FAILED"
    assert [(body["event"], body["name"]) for body in told] == [("failure", "tiny")]
    assert "gone.csv" in str(told[0]["text"])
    assert composed.ask("8000", "/healthz") == served, "what was promoted is served on"


@pytest.mark.slow
def test_two_workspaces_share_a_server_and_keep_apart(
    composed: Machine, tiny_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    server = f"http://127.0.0.1:{composed.places.ports['5000']}"
    monkeypatch.setenv(VARIABLE, server)
    place, other = Workspace(tiny_copy), Workspace(tmp_path / "other")
    folder = folder_of(place)
    runs = [Tracking(one).open_run(KEY, "shared") for one in (place, other)]
    assert runs[0] != runs[1], "the same key, another workspace"
    assert Tracking(place).open_run(KEY, "shared") == runs[0]
    (report,) = {path.parent for path in place.reports.glob("*/report.json")}
    for one, run in zip((place, other), runs, strict=True):
        Tracking(one).log_run(run, record(name="shared"), report)
        Tracking(one).log_version(run, "shared", "1", folder)
    assert capsys.readouterr().out == "", "what MLflow says is no part of an answer"
    uris = [Tracking(one).model_uri("shared", "1") for one in (place, other)]
    assert uris == ["models:/shared/1", "models:/shared/2"]
    Tracking(other).set_promoted("shared", "1")
    assert load_logged("models:/shared@promoted", server)
    expected = open_version(folder).recommend([PERSON], k=3)["item"].to_list()
    assert predict_logged(load_logged(uris[0], server), [PERSON], k=3)["item"].tolist() == expected

    told = forget(place, PERSON)
    assert len([where for where in told.tracked if where.startswith(server)]) == 1
    assert len([where for where in told.reports if where.startswith(server)]) == 1
    for one, known in ((place, False), (other, True)):
        with ServerCopies(one) as copies:
            (copy,) = copies.versions()
            assert (PERSON in Vocabulary.load(copy.fetch(package.USERS)).entries) == known
            (shown,) = copies.reports()
            assert ("removed" in shown.fetch("report.json").read_text()[:20]) != known
            assert ("forgotten" in shown.fetch("report.html").read_text()[-80:]) != known
    after = predict_logged(load_logged(uris[0], server), ["u02", PERSON], k=3)
    assert after["item"].tolist()[:3] == open_version(folder_of(place)).recommend(["u02"], k=3)["item"].to_list()
    assert forget(place, PERSON).tracked == [], "nothing is left to replace"


def folder_of(place: Workspace) -> Path:
    return place.store.path("version", versions.promoted(place).key)


def as_operator(machine: Machine, *command: str) -> str:
    """Run a program of PostgreSQL with the backup's address and password and return what it said."""
    entrypoint, environment = machine.command("backup")[0], machine.environment("backup")
    done = subprocess.run(
        [entrypoint, *command], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["service", "unit"])
def test_a_backup_holds_the_workspace_and_both_databases_which_come_back(composed: Machine, kind: str) -> None:
    command, environment = composed.command("backup"), composed.environment("backup")
    if kind == "unit":
        command, environment = composed.of_unit(units()["kgrec-backup"])
        shutil.rmtree(composed.folder / "backups")
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    folder = Path(made.stdout.strip())
    assert folder.parent == composed.folder / "backups"
    assert {path.name for path in folder.iterdir()} == {"prefect.dump", "mlflow.dump", "workspace.tar.gz"}
    for name, table in (("prefect", "flow_run"), ("mlflow", "registered_models")):
        listed = subprocess.run(
            ["pg_restore", "--list", folder / f"{name}.dump"], capture_output=True, text=True, check=True
        )
        assert f"TABLE DATA public {table} kgrec" in listed.stdout
        back = f"{name}_{kind}"
        as_operator(composed, "createdb", "--no-password", back)
        as_operator(composed, "pg_restore", "--clean", "--if-exists", "--dbname", back, str(folder / f"{name}.dump"))
        ask = ["psql", "--no-password", "--tuples-only", "--command", f"SELECT count(*) FROM {table}", "--dbname"]
        counted = [int(as_operator(composed, *ask, one)) for one in (name, back)]
        assert counted[0] == counted[1] > 0, "what was there is there again"


@pytest.mark.slow
def test_the_units_take_over_from_the_services(composed: Machine) -> None:
    """The servers stay, to spare time: what their units run is compared word for word in test_units."""
    before = workers(composed)
    known, statuses = units(), {name: composed.running.pop(name).stop() for name in ("service", "worker", "schedule")}
    assert statuses["service"] == statuses["schedule"] == 0
    assert statuses["worker"] in (0, -15, 143), statuses
    shutil.copyfile(composed.folder / "configs" / "tiny.toml", composed.folder / "configs" / "shop.toml")
    for name, unit in (("service", "kgrec-serve"), ("schedule", "kgrec-schedule")):
        composed.start_unit(name, known[unit])
    composed.wait("schedule", "service_completed_successfully")
    composed.start_unit("worker", known["kgrec-worker"])
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(workers(composed) - before) != 1:
        assert time.monotonic() < deadline, composed.running["worker"].said()
        time.sleep(1)
    assert composed.ask("8000", "/readyz")[0] == 200
    assert composed.stop()["service"] == 0
