"""Kills ingest, train, run, promote, rollback and serve at random moments, and looks at what is left.

    python benchmarks/kill_operations.py [--kills 200] [--seed 1] [--config configs/tiny.toml]

Every operation is the command's own code in a process of its own, forked from one that has imported kgrec and done
nothing else, so that a kill hits work and not imports. SIGKILL comes after a delay drawn evenly from the time that the
operation takes when nobody disturbs it. After every kill: the registry is whole and names only versions that are there
with every byte; the audit file begins with all that it held before, every line whole, and tells what the registry says.
Then the same operation is repeated (and may be killed again, twice at most) and must end well. Serving is killed while
versions are switched under it; a new service must answer. Prints JSON; exit status 1 when anything was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import feature_store.catalog
import kgrec.chain.context
import kgrec.stages
import pipelines.ask
import pipelines.serve
from kgrec.artifacts import load_artifact
from kgrec.config import load_config
from kgrec.errors import ArtifactError
from kgrec.serving import versions
from kgrec.serving.limits import ServiceConfig
from kgrec.workspace import Workspace

ROOT = Path(__file__).parents[1]
LIGHT = ("training.epochs=2", "gate.baselines=[]", "gate.tolerance=0.99", "training.towers_alone=false")
KINDS = ("ingest", "train", "run", "promote", "rollback", "serve")


def forked(work: Callable[[], Any], log: Path) -> int:
    """Do the work in a child that ends with it; return its process id."""
    child = os.fork()
    if child:
        return child
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(stream, number)
    status = 1
    try:
        status = int(work() or 0)
    except BaseException:  # a child of a fork must never return
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(child: int, seconds: float) -> int | None:
    """Return the exit status of a child that ends in time, None of one that does not."""
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    return None


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


class Operations:
    """The operations on one workspace; each call makes a new piece of work of its kind."""

    def __init__(self, place: Path, config: Path, draw: random.Random) -> None:
        self.place, self.config, self.draw = place, config, draw
        self.numbers = 0

    def chain(self, until: str) -> Callable[[], int]:
        """Return a run up to a stage, on a config of its own so that there is something to do."""
        self.numbers += 1
        fresh = {"ingest": f"interactions.tolerated={self.numbers / 1e6}", "train": f"seed={1000 + self.numbers}"}
        overrides = [*LIGHT, fresh.get(until, f"seed={5000 + self.numbers}")]

        def work() -> int:
            loaded = load_config(self.config, overrides)
            place = Workspace(self.place)
            context = kgrec.chain.context.Run(loaded, place, feature_store.catalog.VIEWS)
            with place.hold(until):
                kgrec.stages.run_chain(context, until=until)
            return 0

        return work

    def promote(self) -> Callable[[], int]:
        """Return a promotion of a version that is not served."""
        known = [record.version for record in self.registry().versions]
        version = self.draw.choice([one for one in known if one != self.registry().promoted] or known)
        return lambda: pipelines.ask.promote(str(self.place), version, force=True, as_json=True) or 0

    def rollback(self) -> Callable[[], int]:
        """Return a rollback."""
        return lambda: pipelines.ask.rollback(str(self.place), as_json=True) or 0

    def serve(self, port: int) -> Callable[[], int]:
        """Return a service."""
        return lambda: pipelines.serve.serve(
            str(self.place), ServiceConfig(port=port, watch_seconds=0.05), as_json=True
        )

    def registry(self) -> versions.Registry:
        """Return the registry as it is now."""
        return versions.read_registry(Workspace(self.place))

    def make(self, kind: str) -> Callable[[], int]:
        """Return new work of a kind."""
        if kind in ("promote", "rollback"):
            return self.promote() if kind == "promote" else self.rollback()
        return self.chain("promote" if kind == "run" else kind)


def faults_of(place: Path, audit_before: bytes) -> list[str]:
    """Return what is wrong with a workspace in which something was killed."""
    audit, faults = (place / "audit.jsonl").read_bytes(), []
    if not audit.startswith(audit_before):
        faults.append("the audit file no longer begins with what it held")
    told = set()
    for number, line in enumerate(audit.decode().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
            told.add((said["what"], said["version"]))
        except ValueError:
            faults.append(f"audit line {number} is not whole: {line[:60]}")
    registry = versions.read_registry(Workspace(place))
    for record in registry.versions:
        if ("registered", record.version) not in told:
            faults.append(f"version {record.version} is registered and the audit does not say so")
        try:
            load_artifact(place / "artifacts" / "version" / record.key[:20], "version")
        except ArtifactError as fault:
            faults.append(f"version {record.version}: {fault}")
    numbers = [record.version for record in registry.versions]
    if len(set(numbers)) != len(numbers):
        faults.append(f"a number was given twice: {numbers}")
    if not {registry.promoted, *registry.served_before} <= set(numbers):
        faults.append(f"promoted {registry.promoted}, before {registry.served_before}, known {numbers}")
    if not {("promoted", registry.promoted), ("rolled back", registry.promoted)} & told:
        faults.append(f"version {registry.promoted} is served and the audit does not say so")
    return faults


def measure(kills: int, config: Path, seed: int, folder: Path) -> dict[str, Any]:
    """Kill until that many kills have hit and return what came of it."""
    draw, begun, log = random.Random(seed), time.perf_counter(), folder / "said"
    work = Operations(folder / "workspace", config, draw)
    lasts: dict[str, float] = {}
    faults: list[str] = []
    for kind in ("run", "run", "run", "ingest", "train", "promote", "rollback"):
        started = time.perf_counter()
        if wait(forked(work.make(kind), log), 600) != 0:
            raise SystemExit(f"an undisturbed {kind} failed:\n{log.read_text()[-2000:]}")
        lasts[kind] = time.perf_counter() - started
    hits: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    kinds = cycle(KINDS)
    while sum(hits.values()) < kills:
        kind = next(kinds)
        if kind == "serve":
            faults += killed_service(work, draw, log)
            hits[kind] += 1
            continue
        again, times = work.make(kind), 0
        while True:
            before = (work.place / "audit.jsonl").read_bytes()
            child = forked(again, log)
            status = wait(child, draw.uniform(0, lasts[kind]) if times < 3 else 900)
            times += 1
            if status is None:
                kill(child)
                hits[kind] += 1
                faults += [f"kill {sum(hits.values())} ({kind}): {fault}" for fault in faults_of(work.place, before)]
                continue
            ended[kind] += 1
            nothing_before = kind == "rollback" and "no version was served before" in log.read_text()
            if status != 0 and not nothing_before:
                faults.append(f"{kind} after a kill ended with {status}: {log.read_text()[-500:]}")
            faults += [f"after {kind} ended: {fault}" for fault in faults_of(work.place, before)]
            break
        print(f"{sum(hits.values())} of {kills}: {dict(hits)}, {len(faults)} faults", file=sys.stderr, flush=True)
    tidy(work.place)
    return {
        "benchmark": "kill_operations", "config": config.name, "kills": dict(hits),
        "ended_well_in_between": dict(ended),
        "versions": len(work.registry().versions), "audit_lines": len(versions.read_audit(work.place / "audit.jsonl")),
        "faults": faults, "undisturbed_seconds": {kind: round(one, 3) for kind, one in lasts.items()}, "seed": seed,
        "seconds": round(time.perf_counter() - begun, 1), "load": [round(one, 1) for one in os.getloadavg()],
        "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip


def killed_service(work: Operations, draw: random.Random, log: Path) -> list[str]:
    """Kill a service that answers while versions are switched; the next one must answer. Return what was wrong."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    before = (work.place / "audit.jsonl").read_bytes()
    child = forked(work.serve(port), log)
    try:
        if draw.random() < 0.7:  # else it is killed while it starts
            ready(port)
        if draw.random() < 0.5:
            known = [record.version for record in work.registry().versions]
            versions.promote(Workspace(work.place), draw.choice(known), why="under a service")
        time.sleep(draw.uniform(0, 0.3))
    finally:
        kill(child)
    faults = faults_of(work.place, before)
    child = forked(work.serve(port), log)
    try:
        answered = ready(port)
        if answered != work.registry().promoted:
            faults.append(f"the next service answered from {answered}, {work.registry().promoted} is promoted")
    finally:
        kill(child)
    return [f"serve: {fault}" for fault in faults]


def ready(port: int) -> str | None:
    """Wait until a service answers a request and return its version."""
    deadline = time.perf_counter() + 120
    body = json.dumps({"history": [], "k": 1}).encode()
    while True:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/recommend", data=body, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                found: str = json.loads(answer.read())["version"]
                return found
        except (urllib.error.URLError, OSError):
            if time.perf_counter() > deadline:
                return None
            time.sleep(0.02)


def tidy(place: Path) -> None:
    """A sweep at the next start leaves nothing half-built behind."""
    with Workspace(place).hold("look"):
        Workspace(place).store.sweep()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "tiny.toml")
    parser.add_argument("--keep", type=Path, help="work in this folder and keep it")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-operations-") as scratch:
        folder = asked.keep or Path(scratch)
        shutil.rmtree(folder / "workspace", ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        result = measure(asked.kills, asked.config.resolve(), asked.seed, folder)
    print(json.dumps(result, indent=1))
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
