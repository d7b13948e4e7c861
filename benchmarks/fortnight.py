"""A fortnight of retraining by the clock of a log: a real Prefect server and worker, and a service that answers on.

    python benchmarks/fortnight.py [--log FILE] [--conversion-at 4] [--users 3] [--days 14] [--folder DIR]

The last `--days` days of ml-100k (or of any Parquet log of user, item, event, timestamp, value, with --log) are
delivered one after the other, each as a file of its own, and the deployment is run after each delivery. Some days go
wrong: half of a day comes a day late, a file comes twice under another name, a file is cut off (and comes whole a day
later), rows have no user, one run trains a hopeless model, one worker is killed while it trains, one day brings
nothing. The rest of the time a run goes on from the promoted version (docs/incremental.md). A small model and every
third user, so that it ends in minutes. Prints JSON; exit status 1 when a day has no verdict, the hopeless model was
promoted, anything was served that the gate had not passed, or an event was lost or counted twice.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from kgrec import columns as c
from kgrec.artifacts import Artifact, load_artifact
from kgrec.data.sources import find_files
from kgrec.data.vocabulary import Vocabulary
from kgrec.serving import versions
from kgrec.serving.package import ITEMS, USERS
from kgrec.workspace import Workspace

ROOT = Path(__file__).parents[1]
KGREC = [sys.executable, "-c", "import sys; from pipelines.cli import main; main(sys.argv[1:])"]
PATIENCE_SECONDS = 1200
KEY = [c.USER, c.ITEM, "timestamp"]
CONFIG = """
name = "fortnight"
[interactions]
path = "events/*.parquet"
tolerated = 0.05
roles = {{ click = ["{click}"]{conversion} }}
[model]
dimensions = 16
towers = {{ hidden = [16] }}
[training]
epochs = 4
evaluate_every = 2
start = "promoted"
increment = {{ full_every = 6 }}
[baselines]
neighbours = [50]
shrinkage = [0.0]
ease_lambda = [100.0]
[gate]
baselines = []
tolerance = 0.15
[schedule]
retry_seconds = 2.0
"""
HOPELESS = ["training.start=scratch", "training.epochs=1", "training.learning_rate=1e-9", "blocks.neighbour_weights=0",
            "blocks.popularity=[0.0]"]  # fmt: skip
INCIDENTS = {2: "half of the day comes late", 4: "the file of the day before comes again", 6: "the file is cut off",
             8: "rows without a user", 9: "a hopeless model", 11: "the worker is killed",
             13: "nothing new"}  # fmt: skip


class Deliveries:
    """Writes each day's files into a folder, and remembers what should be counted in the end."""

    def __init__(self, log: pl.DataFrame, days: int, folder: Path) -> None:
        day = pl.from_epoch("timestamp").dt.date()
        names = log.select(day.alias("day"))["day"].unique().sort().tail(days).to_list()
        self.folder, self.names = folder, [str(name) for name in names]
        self.incidents = {-(-number * days // 14): what for number, what in INCIDENTS.items()}
        self.before = log.filter(day < names[0])
        self.days = [log.filter(day == name) for name in names]
        self.late: list[tuple[str, pl.DataFrame]] = []
        self.truth = self.before.clear()
        self.repeated = self.without_user = 0

    def _write(self, name: str, rows: pl.DataFrame) -> None:
        rows.write_parquet(self.folder / f"{name}.parquet")
        self.truth = pl.concat([self.truth, rows.drop_nulls(c.USER)])

    def deliver(self, number: int) -> None:
        """Deliver day `number`, counted from 1; 0 is all that was before."""
        for name, rows in self.late:
            self._write(name, rows)
        self.late = []
        if number == 0:
            self._write("before", self.before)
            return
        rows, name, incident = self.days[number - 1], f"day-{number:02d}", self.incidents.get(number, "")
        if "late" in incident:
            half = rows.height // 2
            self.late.append((f"{name}-late", rows.tail(rows.height - half)))
            rows = rows.head(half)
        if "again" in incident:
            again = self.folder / f"day-{number - 1:02d}.parquet"
            shutil.copy(again, self.folder / f"day-{number - 1:02d}-again.parquet")
            self.repeated += pl.read_parquet(again).height
        if "without" in incident:
            nobody = rows.head(7).with_columns(pl.lit(None, rows[c.USER].dtype).alias(c.USER))
            self.without_user += nobody.height
            rows = pl.concat([rows, nobody])
        if "nothing" in incident:
            self.late.append((name, rows))
            return
        if "cut" in incident:
            self.late.append((name, rows))
            path = self.folder / f"{name}.parquet"
            rows.write_parquet(path)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            return
        self._write(name, rows)


class Prefect:
    """A server of its own, the deployment, and a worker that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder, port = folder, free_port()
        self.api = f"http://127.0.0.1:{port}/api"
        self.environment = {**os.environ, "PREFECT_HOME": str(folder / "home"), "PREFECT_API_URL": self.api,
                            "PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                            "PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION": "60",
                            "PYTHONPATH": str(ROOT), "DO_NOT_TRACK": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # fmt: skip
        self.server = self.start("server", "-m", "prefect", "server", "start", "--port", str(port), "--no-ui")
        self.worker: subprocess.Popen[bytes] | None = None

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a Python program in a process group of its own."""
        with (self.folder / f"{name}.log").open("ab") as said:
            return subprocess.Popen(
                [sys.executable, *command], env=self.environment, stdout=said, stderr=subprocess.STDOUT,
                start_new_session=True, cwd=self.folder,
            )  # fmt: skip

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the server."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.api}{path}", data=data, headers=headers, method=method)
        for attempt in range(30):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return json.loads(answer.read())
            except urllib.error.HTTPError as fault:  # its database may be busy
                if fault.code < 500 or attempt == 29:
                    raise
                time.sleep(2.0)
        raise AssertionError("the last attempt returns or raises")

    def healthy(self) -> bool:
        """Say whether the server answers."""
        try:
            return bool(self.ask("GET", "/health"))
        except OSError:
            return False

    def deploy(self, config: Path, workspace: Path) -> str:
        """Register the deployment and return its id."""
        command = [*KGREC, "deploy", str(config), "--cron", "0 3 * * *", "--json", "--workspace", str(workspace)]
        made = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, check=True)
        return str(self.ask("GET", f"/deployments/name/{json.loads(made.stdout)['deployment']}")["id"])

    def employ(self) -> None:
        """Start a worker."""
        self.worker = self.start("worker", "-m", "prefect", "worker", "start", "--pool", "kgrec")

    def kill_worker(self) -> None:
        """Kill the worker and the run that it started, at once."""
        if self.worker is not None:
            os.killpg(self.worker.pid, signal.SIGKILL)
            self.worker.wait()

    def run(self, deployment: str, overrides: list[str]) -> str:
        """Make a run, due now."""
        given = self.ask("GET", f"/deployments/{deployment}")["parameters"]
        body = {"parameters": {"overrides": [*given["overrides"], *overrides]}}
        return str(self.ask("POST", f"/deployments/{deployment}/create_flow_run", body)["id"])

    def state(self, run: str) -> Any:
        """Return the state of a run."""
        return self.ask("GET", f"/flow_runs/{run}")["state"]

    def end(self) -> None:
        """End everything."""
        for process in (self.worker, self.server):
            if process is not None and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


class Caller:
    """Asks the service twice a second and notes which version answered."""

    def __init__(self, port: int) -> None:
        self.port, self.versions, self.errors, self.answers = port, set[str](), list[str](), 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go, daemon=True)
        self._thread.start()

    def _go(self) -> None:
        body = json.dumps({"user": "1", "k": 10}).encode()
        while not self._over.wait(0.5):
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.port}/v1/recommend", data=body, headers={"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    self.versions.add(json.loads(answer.read())["version"])
                    self.answers += 1
            except (urllib.error.URLError, OSError) as fault:
                self.errors.append(f"{type(fault).__name__}: {fault}")

    def stop(self) -> None:
        """Stop asking."""
        self._over.set()
        self._thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(done: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain for {what}")
        time.sleep(0.3)


@contextmanager
def service(workspace: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [*KGREC, "serve", "--port", "0", "--json", "--workspace", str(workspace)]
    with (folder / "service.log").open("wb") as said, subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=said, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as running:  # fmt: skip
        assert running.stdout is not None
        try:
            yield running, int(json.loads(running.stdout.readline())["address"].rpartition(":")[2])
        finally:
            running.terminate()


def verdict(state: Any, before: str | None, after: str | None) -> str:
    """Say in a word what came of a run."""
    if state["name"] == "Refused":
        return "refused"
    if state["type"] != "COMPLETED":
        return str(state["type"]).lower()
    return "promoted" if after != before else "nothing new"


def live(prefect: Prefect, deliveries: Deliveries, place: Path, deployment: str, days: int) -> list[dict[str, Any]]:
    """Go through the days and return what came of each."""
    told = []
    for number in range(1, days + 1):
        deliveries.deliver(number)
        incident, started = deliveries.incidents.get(number, ""), time.monotonic()
        before = versions.read_registry(Workspace(place)).promoted
        line: dict[str, Any] = {"day": number, "date": deliveries.names[number - 1], "incident": incident}
        run = prefect.run(deployment, HOPELESS if "hopeless" in incident else [])
        if "killed" in incident:
            wait_for(lambda: (place / "artifacts" / ".building").is_dir() and any(
                (place / "artifacts" / ".building").iterdir()), "the run to be at work")  # fmt: skip
            prefect.kill_worker()
            line["killed_run_left"] = prefect.state(run)["type"].lower()
            prefect.employ()
            run = prefect.run(deployment, [])
        wait_for(lambda run=run: prefect.state(run)["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"), "a run")
        state, registry = prefect.state(run), versions.read_registry(Workspace(place))
        line |= {"verdict": verdict(state, before, registry.promoted), "serving": registry.promoted,
                 "message": (state["message"] or "")[:150],
                 "seconds": round(time.monotonic() - started, 1)}  # fmt: skip
        told.append(line)
        print(json.dumps(line), file=sys.stderr, flush=True)
    return told


def last_log(place: Path) -> Artifact:
    """Return the log that the newest version was made from."""
    workspace = Workspace(place)
    record = versions.read_registry(workspace).versions[-1]
    made = load_artifact(workspace.store.path("version", record.key), "version")
    found = workspace.store.with_digest("split", made.inputs["split"])
    assert found is not None
    return found


def events_of(log: Artifact) -> pl.DataFrame:
    """Return user, item and time of every event of a log, as ids."""
    events = pl.read_parquet(log.file("events.parquet"))
    users, items = (Vocabulary.load(log.file(name)) for name in (USERS, ITEMS))
    return pl.DataFrame({
        c.USER: users.ids(events[c.USER_ROW]), c.ITEM: items.ids(events[c.ITEM_ROW]),
        "timestamp": events[c.TIME].dt.epoch("s"),
    })  # fmt: skip


def faults_of(told: list[dict[str, Any]], place: Path, deliveries: Deliveries, caller: Caller) -> list[str]:
    """Return what a fortnight must not leave behind."""
    faults = [f"day {line['day']}: no verdict" for line in told if not line.get("verdict")]
    by_incident = {line["incident"]: line["verdict"] for line in told}
    for incident, expected in (("a hopeless model", "refused"), ("the file is cut off", "failed"),
                               ("nothing new", "nothing new")):  # fmt: skip
        if by_incident.get(incident, expected) != expected:
            faults.append(f"{incident}: {by_incident[incident]}, expected {expected}")
    registry = versions.read_registry(Workspace(place))
    passed = {record.version for record in registry.versions if record.gate_passed}
    audit = versions.read_audit(Workspace(place).audit)
    promoted = {line["version"] for line in audit if line["what"] == "promoted"}
    faults += [f"version {one} was served and the gate had not passed it" for one in sorted(caller.versions - passed)]
    faults += [f"version {one} was served and never promoted" for one in sorted(caller.versions - promoted)]
    faults += [f"the service: {error}" for error in caller.errors[:5]]
    counted = events_of(last_log(place)).with_columns(pl.col(c.USER, c.ITEM).cast(pl.String))
    truth = deliveries.truth.select(KEY).with_columns(pl.col(c.USER, c.ITEM).cast(pl.String))
    if not counted.sort(KEY).equals(truth.sort(KEY)):
        lost, strange = truth.join(counted, on=KEY, how="anti").height, counted.join(truth, on=KEY, how="anti").height
        faults.append(f"{counted.height:,} events counted, {truth.height:,} delivered; {lost} lost, {strange} unknown")
    return faults


def measure(log: pl.DataFrame, click: str, conversion: str, days: int, folder: Path) -> dict[str, Any]:
    """Live through the days and return what came of them."""
    place, begun = folder / "workspace", time.monotonic()
    (folder / "events").mkdir(parents=True)
    config = folder / "fortnight.toml"
    config.write_text(CONFIG.format(click=click, conversion=conversion))
    deliveries = Deliveries(log, days, folder / "events")
    prefect = Prefect(folder)
    try:
        wait_for(prefect.healthy, "the server")
        deployment = prefect.deploy(config, place)
        prefect.employ()
        deliveries.deliver(0)
        first = prefect.run(deployment, ["training.start=scratch"])
        wait_for(lambda: prefect.state(first)["type"] in ("COMPLETED", "FAILED", "CRASHED"), "the first run")
        if versions.read_registry(Workspace(place)).promoted is None:
            raise SystemExit(f"the first run promoted nothing: {prefect.state(first)['message']}")
        with service(place, folder) as (running, port):
            caller = Caller(port)
            told = live(prefect, deliveries, place, deployment, days)
            wait_for(lambda: versions.read_registry(Workspace(place)).promoted in caller.versions, "the last switch")
            caller.stop()
            serving = running.poll() is None
    finally:
        prefect.end()
    faults = faults_of(told, place, deliveries, caller) + ([] if serving else ["the service ended"])
    return {
        "benchmark": "fortnight", "days": told, "events_delivered": deliveries.truth.height,
        "rows_repeated": deliveries.repeated, "rows_without_user": deliveries.without_user,
        "versions": len(versions.read_registry(Workspace(place)).versions),
        "served": sorted(caller.versions, key=int), "answers": caller.answers, "faults": faults,
        "seconds": round(time.monotonic() - begun), "load": [round(one, 1) for one in os.getloadavg()],
        "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, help="Parquet of user, item, event, timestamp, value; default: ml-100k")
    parser.add_argument("--click", default="rating", help="the event that is a click")
    parser.add_argument("--conversion-at", type=float, help="a click of at least this value is a conversion")
    parser.add_argument("--users", type=int, default=3, help="take every so manieth user")
    parser.add_argument(
        "--days", type=int, default=14, help="with fewer the incidents come closer together, 7 at least"
    )
    parser.add_argument("--folder", type=Path, help="work in this new folder and keep it")
    asked = parser.parse_args()
    if asked.log is None:
        (file,) = find_files("demo:ml-100k/interactions.tsv", ROOT)
        log = pl.read_csv(file, separator="\t")
    else:
        log = pl.read_parquet(asked.log).filter(pl.col("event") == asked.click)
    log = log.select(c.USER, c.ITEM, "event", "timestamp", "value").unique(KEY, maintain_order=True)
    log = log.filter(pl.col(c.USER).cast(pl.Int64) % asked.users == 0)
    at = asked.conversion_at
    conversion = "" if at is None else f', conversion = [{{ event = "{asked.click}", at_least = {at} }}]'
    with tempfile.TemporaryDirectory(prefix="fortnight-") as scratch:
        result = measure(log, asked.click, conversion, asked.days, asked.folder or Path(scratch) / "fortnight")
    print(json.dumps(result, indent=1))
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
