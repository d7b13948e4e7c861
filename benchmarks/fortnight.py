"""A fortnight of retraining by the clock of a log: a real Prefect server and worker, and a service that answers on.

    python benchmarks/fortnight.py [--log FILE] [--conversion-at 4] [--users 3] [--days 14] [--tolerated 0.05]
        [--folder DIR]

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
from deliveries import Deliveries  # beside this script, as the next
from prefect_server import KGREC, ROOT, Prefect

from kgrec import columns as c
from kgrec.artifacts import Artifact, load_artifact
from kgrec.data.sources import find_files
from kgrec.data.vocabulary import Vocabulary
from kgrec.serving import versions
from kgrec.serving.package import ITEMS, USERS
from kgrec.workspace import Workspace

PATIENCE_SECONDS = 1200
KEY = [c.USER, c.ITEM, "timestamp"]
CONFIG = """
name = "fortnight"
[interactions]
path = "events/*.parquet"
tolerated = {tolerated}
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


def measure(log: pl.DataFrame, fields: dict[str, Any], days: int, folder: Path) -> dict[str, Any]:
    """Live through the days and return what came of them."""
    place, begun = folder / "workspace", time.monotonic()
    (folder / "events").mkdir(parents=True)
    config = folder / "fortnight.toml"
    config.write_text(CONFIG.format(**fields))
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
    parser.add_argument("--tolerated", type=float, default=0.05, help="share of bad rows that is left out")
    parser.add_argument(
        "--days", type=int, default=14, help="with fewer the incidents come closer together, 7 at least"
    )
    parser.add_argument("--folder", type=Path, help="work in this new folder and keep it")
    asked = parser.parse_args()
    if asked.days < 7:
        parser.error(
            "--days: 7 at least, or two incidents fall on one day and the day of none gets the files of another"
        )
    if asked.log is None:
        (file,) = find_files("demo:ml-100k/interactions.tsv", ROOT)
        log = pl.read_csv(file, separator="\t")
    else:
        log = pl.read_parquet(asked.log).filter(pl.col("event") == asked.click)
    log = log.select(c.USER, c.ITEM, "event", "timestamp", "value").unique(KEY, maintain_order=True)
    log = log.filter(pl.col(c.USER).cast(pl.Int64) % asked.users == 0)
    at = asked.conversion_at
    conversion = "" if at is None else f', conversion = [{{ event = "{asked.click}", at_least = {at} }}]'
    fields = {"click": asked.click, "conversion": conversion, "tolerated": asked.tolerated}
    with tempfile.TemporaryDirectory(prefix="fortnight-") as scratch:
        result = measure(log, fields, asked.days, asked.folder or Path(scratch) / "fortnight")
    print(json.dumps(result, indent=1))
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
