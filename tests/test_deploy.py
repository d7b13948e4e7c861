"""The schedule against a real Prefect server and worker, processes of this test; and what a run does with trouble."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

import polars as pl
import pytest
import yaml

from feature_store.catalog import VIEWS
from kgrec.chain.context import Run
from kgrec.config import load_config
from kgrec.data.ingest import input_digests
from kgrec.data.interactions import InteractionsConfig
from kgrec.data.partitions import ParseAll, Parsing, parse_in_turn
from kgrec.errors import InputError, KgrecError, UnreachableError, WorkspaceBusyError
from kgrec.resources import TaskRunner
from kgrec.schedule import ScheduleConfig, may_pass
from kgrec.serving.versions import read_registry
from kgrec.stages import run
from kgrec.workspace import Workspace
from tests import worlds
from tests.calling import KGREC, as_json, call
from tests.data.deadly import Deadly
from tests.data.ingesting import run as run_ingest
from tests.data.ingesting import table
from tests.data.test_partitions import LOG, write_days
from tests.test_notify import listener

PATIENCE_SECONDS = 150


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(*command: str, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program and end it with the block."""
    with log.open("wb") as stream, subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    ) as running:  # fmt: skip
        try:
            yield running
        finally:
            running.send_signal(signal.SIGTERM)
            try:
                running.wait(timeout=20)
            except subprocess.TimeoutExpired:
                running.kill()


def wait_for(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.2)


def ask(api: str, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{api}{path}", data=data, headers={"Content-Type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def answers(api: str) -> bool:
    try:
        return bool(ask(api, "GET", "/health"))
    except OSError:
        return False


@pytest.mark.slow
def test_local_serves_the_schedule_with_a_server_of_its_own(tmp_path: Path) -> None:
    remedy = "pip install --constraint constraints.txt 'sqlalchemy<2.1': under 2.1 no schedule runs"
    assert version("sqlalchemy").startswith("2.0."), remedy
    command = [str(KGREC), "deploy", str(worlds.TINY), "--cron", "0 3 * * *", "--local", "--json", "--workspace",
               str(tmp_path / "workspace")]  # fmt: skip
    log = tmp_path / "log"
    with process(*command, log=log, PREFECT_HOME=str(tmp_path / "home")) as running:
        wait_for(lambda: b"\n" in log.read_bytes() or running.poll() is not None, "the schedule")
        told = json.loads(log.read_bytes().splitlines()[0])
        assert told["local"]
        found: list[Any] = []

        def planned() -> bool:
            found[:] = ask(told["api"], "POST", "/flow_runs/filter", {})
            return bool(found)

        wait_for(planned, "the planned runs")  # the server makes runs of the schedule
        assert {run["state"]["type"] for run in found} == {"SCHEDULED"}
    assert running.returncode == 0


@contextmanager
def named_server(api: str) -> Iterator[None]:
    """Let Prefect's settings of this process name a server."""
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_API_URL: api, PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield


def test_without_a_server_it_says_how_to_start_one(tmp_path: Path) -> None:
    arguments = ("deploy", worlds.TINY, "--cron", "0 3 * * *", "--workspace", tmp_path / "w", "--json")
    result = call(*arguments)
    assert result.exit_code == 2
    (problem,) = as_json(result)["error"]["problems"]
    assert "no Prefect server is named" in problem["what"]
    assert "prefect server start" in problem["remedy"]
    assert "--local" in problem["remedy"]
    with named_server("http://127.0.0.1:9/api"):
        result = call(*arguments)
    assert result.exit_code == 2
    assert "no Prefect server answers" in as_json(result)["error"]["problems"][0]["what"]


def test_a_wrong_cron_and_zone_come_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    result = call(
        "deploy", worlds.TINY, "--cron", "daily", "--timezone", "Mars/Olympus", "--workspace", tmp_path, "--json"
    )
    assert result.exit_code == 2
    assert [problem["where"] for problem in as_json(result)["error"]["problems"]] == ["--timezone", "--cron"]


def test_the_file_for_git_names_what_there_is() -> None:
    raw = yaml.safe_load((worlds.ROOT / "prefect.yaml").read_text())
    (deployment,) = raw["deployments"]
    assert deployment["entrypoint"] == "pipelines.retrain.retrain"
    assert load_config(worlds.ROOT / deployment["parameters"]["config"]).config.name == deployment["name"]
    assert deployment["concurrency_limit"] == 1
    assert deployment["work_pool"]["name"] == "kgrec"


class Flaky:
    """A stage that fails some times and then answers."""

    def __init__(self, *faults: Exception) -> None:
        self.faults, self.calls = list(faults), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.faults:
            raise self.faults.pop(0)
        return "answer"


@pytest.fixture(scope="module")
def flows() -> Iterator[Any]:
    """`as_flow` over a server of this module."""
    from prefect.testing.utilities import prefect_test_harness

    from pipelines.train import as_flow

    with prefect_test_harness(server_startup_timeout=120):
        yield as_flow


@pytest.mark.slow
def test_what_may_pass_is_tried_again_and_nothing_else(flows: Any) -> None:
    schedule = ScheduleConfig(retries=2, retry_seconds=0.01)
    passing = Flaky(ConnectionResetError("gone"), WorkspaceBusyError("held"))
    assert flows("t", lambda call: call("stage", passing), schedule) == "answer"
    assert passing.calls == 3
    for fault in (FileNotFoundError("no"), ValueError("no"), InputError(worlds_problem())):
        once = Flaky(fault)
        with pytest.raises(type(fault), match="no"):
            flows("t", lambda call, once=once: call("stage", once), schedule)
        assert once.calls == 1
    for_ever = Flaky(*(ConnectionResetError("still gone") for _ in range(9)))
    with pytest.raises(ConnectionResetError, match="still gone"):
        flows("t", lambda call: call("stage", for_ever), schedule)
    assert for_ever.calls == 3
    watched = Flaky(ConnectionResetError("gone"))
    with pytest.raises(ConnectionResetError):
        flows("t", lambda call: call("stage", watched))
    assert watched.calls == 1


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_stopped(flows: Any) -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        flows("t", lambda call: call("stage", lambda: time.sleep(20)), ScheduleConfig(timeout_minutes=0.5 / 60))
    assert time.monotonic() - started < 10


CLUSTERS = tuple(pytest.param(name, marks=pytest.mark.distributed) for name in (TaskRunner.DASK, TaskRunner.RAY))


@pytest.fixture
def parse_all(request: pytest.FixtureRequest) -> ParseAll:
    """What parses the files of a log, by the name that the test is given."""
    from pipelines import partitions

    try:
        found = partitions.parse_all_on(request.param)
    except InputError as missing:
        pytest.skip(f"cannot be tested here: {missing}")
    if request.param is TaskRunner.RAY:
        request.getfixturevalue("ray_cluster")
    return found


def in_flow(flows: Any, work: Callable[[], Any]) -> Any:
    """Do work as a stage that holds what no other process can be sent, as a terminal's progress is."""
    held = Lock()

    def stage() -> Any:
        with held:
            return work()

    return flows("t", lambda call: call("ingest", stage))


def test_every_task_runner_is_tested() -> None:
    from pipelines import partitions

    assert {TaskRunner.SEQUENTIAL, TaskRunner.THREADS, *(name.values[0] for name in CLUSTERS)} == set(TaskRunner)
    assert partitions.RUNNERS.keys() == set(TaskRunner) - {TaskRunner.SEQUENTIAL}


@pytest.mark.slow
@pytest.mark.parametrize("parse_all", [TaskRunner.SEQUENTIAL, TaskRunner.THREADS, *CLUSTERS], indirect=True)
def test_files_parsed_as_mapped_tasks_give_the_same_tables(
    parse_all: ParseAll, flows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import partitions

    asked: list[int] = []

    def counted(parsings: Sequence[Parsing]) -> None:
        asked.append(len(parsings))
        parse_all(parsings)

    write_days(tmp_path, 5)
    monkeypatch.setattr(partitions, "_MOST_TASKS", 3)  # so that a task has two files
    tables = ("events", "users", "items", "quarantine")
    expected_facts = run_ingest(tmp_path, LOG)
    expected = [table(tmp_path, one).serialize() for one in tables]
    facts = in_flow(flows, lambda: run_ingest(tmp_path, LOG, scratch="a", parse_all=counted))
    assert facts == expected_facts
    assert [table(tmp_path, one).serialize() for one in tables] == expected
    (tmp_path / "day-4.csv").unlink()
    run_ingest(tmp_path, LOG)
    in_flow(flows, lambda: run_ingest(tmp_path, LOG, scratch="a", parse_all=counted))
    assert asked == [5], "what was parsed before is not parsed again"
    written = [
        {path.name: path.read_bytes() for path in (tmp_path / scratch).rglob("*.arrow")} for scratch in ("scratch", "a")
    ]
    assert written[0] == written[1]


@pytest.fixture(scope="module")
def dask_cluster() -> Iterator[str]:
    """The address of a cluster of Dask that stands, as a team's does; it gives a file up after two deaths."""
    local = import_module("distributed").LocalCluster
    with (
        import_module("dask").config.set({"distributed.scheduler.allowed-failures": 1}),
        local(n_workers=1, dashboard_address=None) as cluster,
    ):
        yield cluster.scheduler_address


@pytest.fixture
def standing_cluster(
    request: pytest.FixtureRequest, parse_all: ParseAll, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Let the tasks go to a cluster that was started before, where there are clusters."""
    if request.node.callspec.params["parse_all"] is TaskRunner.DASK:
        monkeypatch.setenv("DASK_ADDRESS", request.getfixturevalue("dask_cluster"))


@pytest.mark.slow
@pytest.mark.usefixtures("standing_cluster")
@pytest.mark.parametrize("parse_all", [TaskRunner.THREADS, *CLUSTERS], indirect=True)
def test_files_that_tasks_cannot_parse_are_told_as_those_parsed_in_turn(
    parse_all: ParseAll, flows: Any, tmp_path: Path
) -> None:
    rows = pl.Series(range(50_000))
    for day in range(3):
        pl.DataFrame({"user": rows, "item": rows, "timestamp": rows}).write_parquet(tmp_path / f"day-{day}.parquet")
    for day, first in ((1, 100), (2, 5000)):  # both are told by polars, each in words of its own
        content = bytearray((tmp_path / f"day-{day}.parquet").read_bytes())
        content[first:-4000] = bytes(len(content) - 4000 - first)
        (tmp_path / f"day-{day}.parquet").write_bytes(content)
    log = {"path": "day-*.parquet"}
    with pytest.raises(InputError, match="the rows cannot be read") as in_turn:
        run_ingest(tmp_path, log)
    with pytest.raises(InputError) as by_tasks:
        in_flow(flows, lambda: run_ingest(tmp_path, log, scratch="a", parse_all=parse_all))
    assert str(by_tasks.value) == str(in_turn.value)
    fault = str(in_turn.value.problems[0].example)
    assert fault not in said_by_prefect()
    gone = Parsing(pl.scan_parquet(tmp_path / "gone.parquet"), tmp_path / "none.arrow", 10)
    with pytest.raises(FileNotFoundError):
        in_flow(flows, lambda: parse_all([gone]))


@pytest.mark.slow
@pytest.mark.usefixtures("standing_cluster")
@pytest.mark.parametrize("parse_all", CLUSTERS, indirect=True)
def test_a_process_that_dies_over_a_file_is_survived_unless_it_always_does(
    parse_all: ParseAll, flows: Any, tmp_path: Path
) -> None:
    marks = [tmp_path / "once", tmp_path / "always"]
    once, always = (Deadly(mark, deaths) for mark, deaths in zip(marks, (1, 99), strict=True))
    for mark in marks:
        mark.mkdir()
    in_flow(flows, lambda: parse_all([Parsing(once, tmp_path / "once.arrow", 10)]))  # type: ignore[arg-type]
    assert pl.read_ipc(tmp_path / "once.arrow").to_dicts() == [{"row": 1}]
    with pytest.raises(KgrecError, match="were lost"):
        in_flow(flows, lambda: parse_all([Parsing(always, tmp_path / "always.arrow", 10)]))  # type: ignore[arg-type]
    assert len(list(marks[1].iterdir())) > 1


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("parse_all", [TaskRunner.DASK], indirect=True)
def test_a_cluster_of_dask_that_does_not_answer_is_told(
    parse_all: ParseAll, flows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_ADDRESS", f"tcp://127.0.0.1:{free_port()}")
    gone = Parsing(pl.scan_parquet(tmp_path / "gone.parquet"), tmp_path / "none.arrow", 10)
    with (
        import_module("dask").config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(UnreachableError, match="cluster of dask cannot be reached") as told,
    ):
        in_flow(flows, lambda: parse_all([gone]))
    assert "DASK_ADDRESS" in told.value.problems[0].remedy


@pytest.mark.parametrize(("name", "package"), [("dask", "prefect_dask"), ("ray", "prefect_ray")])
def test_a_task_runner_that_is_not_installed_is_refused_with_the_remedy(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.train import run_flow

    monkeypatch.setitem(sys.modules, package, None)
    setting = f"resources.task_runner={name}"
    with pytest.raises(InputError, match=rf"kgrec\[{name}\]"):
        run_flow(Run(load_config(worlds.TINY, [setting]), Workspace(tmp_path / "w"), VIEWS), "ingest")


@pytest.mark.slow
def test_the_task_runner_of_the_config_parses_the_log_of_a_run(flows: Any, tmp_path: Path) -> None:
    from pipelines.train import run_flow

    write_days(tmp_path, 2)
    config = (
        'name = "days"\n[interactions]\npath = "day-*.csv"\ntolerated = 0.5\n[resources]\ntask_runner = "threads"\n'
    )
    (tmp_path / "days.toml").write_text(config)
    context = Run(load_config(tmp_path / "days.toml"), Workspace(tmp_path / "w"), VIEWS)
    run_flow(context, "ingest")
    assert context.parse_all is not parse_in_turn
    context = Run(load_config(tmp_path / "days.toml", ["resources.task_runner=sequential"]), context.workspace, VIEWS)
    run_flow(context, "ingest")
    assert context.parse_all is parse_in_turn
    assert context.reports["ingest"].cached, "where the files are parsed changes no table"


@pytest.mark.slow
def test_a_failure_is_told(flows: Any, tmp_path: Path) -> None:
    from pipelines.retrain import retrain

    with listener() as (url, told):
        overrides = [f'notify.url="{url}"', 'interactions.path="gone.csv"']
        state = retrain(str(worlds.TINY), str(tmp_path / "workspace"), overrides, return_state=True)
    assert state.is_failed()
    assert [body["event"] for body in told] == ["failure"]
    assert "gone.csv" in str(told[0]["text"])


def said_by_prefect() -> str:
    """Return all states that the server keeps of flows and tasks, and their logs."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        kept = [*client.read_flow_runs(), *client.read_task_runs(), *client.read_logs()]
    return "\n".join(one.model_dump_json() for one in kept)


@pytest.mark.slow
@pytest.mark.parametrize("allowed", [False, True])
def test_an_example_of_a_bad_row_stays_with_who_runs_the_command(flows: Any, tmp_path: Path, allowed: bool) -> None:
    from pipelines.retrain import retrain

    person, log = f"person-{allowed}", tmp_path / "log.csv"
    log.write_text(f"user,item,event,value,timestamp\n{person},,rating,5,1704067200\nu00,i00,rating,5,1704067200\n")
    with pytest.raises(InputError, match=person):
        run(worlds.TINY, tmp_path / "by hand", overrides=[f'interactions.path="{log}"'])
    with listener() as (url, told):
        words = [f'notify.url="{url}"', f'interactions.path="{log}"', f"privacy.user_ids={str(allowed).lower()}"]
        state = retrain(str(worlds.TINY), str(tmp_path / "workspace"), words, return_state=True)
    assert state.is_failed()
    assert "log.csv" in str(state.message)
    outside = [str(state.message), str(told[0]["text"]), said_by_prefect()]
    assert [person in text for text in outside] == [allowed] * 3


@pytest.mark.slow
def test_a_refusal_is_told_and_is_no_failure(flows: Any, tiny_copy: Path) -> None:
    from pipelines.retrain import retrain

    policy = tiny_copy / "policy.toml"
    policy.write_text("[answers]\nlargest_mb = 0.001\n")
    with listener() as (url, told):
        overrides = [f'notify.url="{url}"', f'gate.policy="{policy}"']
        state = retrain(str(worlds.TINY), str(tiny_copy), overrides, return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "Refused")
    assert [(body["event"], body["version"]) for body in told] == [("refusal", "2")]
    assert read_registry(Workspace(tiny_copy)).promoted == "1"


def test_a_held_workspace_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.retrain import hold_patiently

    place, waits = Workspace(tmp_path / "w"), list[float]()
    other = Workspace(tmp_path / "w").hold("somebody")
    other.__enter__()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            other.__exit__(None, None, None)

    monkeypatch.setattr("pipelines.retrain.time.sleep", sleep)
    with hold_patiently(place, "mine", ScheduleConfig(retries=3, retry_seconds=1)):
        assert waits == [1.0, 2.0]
    with Workspace(tmp_path / "w").hold("somebody"), pytest.raises(WorkspaceBusyError):
        hold_patiently(place, "mine", ScheduleConfig(retries=0)).__enter__()


def test_a_database_that_does_not_answer_may_answer_later(tmp_path: Path) -> None:
    source = InteractionsConfig(url=f"postgresql+psycopg://reader:x@127.0.0.1:{free_port()}/shop", query="select 1")
    with pytest.raises(UnreachableError) as fault:
        input_digests(source, None, None, None, base=tmp_path, scratch=tmp_path / "scratch")
    assert may_pass(fault.value)
    missing = InteractionsConfig(path="gone.csv")
    with pytest.raises(InputError) as other:
        input_digests(missing, None, None, None, base=tmp_path, scratch=tmp_path / "scratch")
    assert not may_pass(other.value)


def worlds_problem() -> Any:
    from kgrec.errors import Problem

    return Problem("x", "no", "y")


def test_the_features_of_a_scheduled_run_are_those_of_the_command() -> None:
    from pipelines import retrain

    assert retrain.VIEWS is VIEWS
