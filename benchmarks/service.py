"""Latency and throughput of `kgrec serve` with ml-100k's version, on loopback, and a minute of switches of version.

    python benchmarks/service.py [--workspace DIR] [--rate 500] [--seconds 60] [--switches 10] [--pin]

The workspace is made (two short runs of configs/ml-100k.toml) where it is not there. Requests are POST /v1/recommend of
random users, k = 10, sent at the rate given whatever the service does: a late answer counts from the moment that its
request was due. --remembered-mb 0 has every list computed; else a user who is asked for twice gets theirs again.
--pin gives one core to the service (all its threads) and another to the client.

Prints one JSON object: a steady stretch, the same with switches, and the most that a closed loop gets. longest_silence
is the longest time without an answer while one was due; others_cores how many cores were busy with neither the service
nor the client, stolen_cores how many of these the host of a virtual machine kept for others: what a measurement on a
shared machine must be read with.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import uvloop

from kgrec.serving import versions
from kgrec.workspace import Workspace

ROOT = Path(__file__).parents[1]
SERVE = "from pipelines.cli import main; main()"
USERS = 943
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--switches", type=int, default=10)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--remembered-mb", type=int, default=16)
    parser.add_argument("--pin", action="store_true")
    parser.add_argument("--only", choices=["steady", "with_switches", "closed_loop"])
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        place = make_workspace(options.workspace or Path(folder) / "workspace")
        command = [sys.executable, "-c", SERVE, "serve", "--json", "--port", "0", "--workspace", str(place.root),
                   "--requests-per-second", "100000", "--burst", "1000000",
                   "--remembered-mb", str(options.remembered_mb)]  # fmt: skip
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        if options.pin:
            os.sched_setaffinity(0, cores[-1:])  # the service inherits it
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
            if options.pin:
                os.sched_setaffinity(0, cores[:1])
            port = int(json.loads(process.stdout.readline())["address"].rpartition(":")[2])
            try:
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    print(json.dumps(runner.run(measure(process.pid, port, place, options))), flush=True)
            finally:
                process.terminate()
        print(json.dumps({"exit_status": process.returncode}), file=sys.stderr)


def make_workspace(folder: Path) -> Workspace:
    place = Workspace(folder)
    for epochs in (2, 1):
        if not place.registry.exists() or len(versions.read_registry(place).versions) < 3 - epochs:
            from feature_store.catalog import VIEWS
            from kgrec.stages import run

            run(ROOT / "configs" / "ml-100k.toml", folder, overrides=[f"training.epochs={epochs}"], views=VIEWS)
    return place


async def measure(process: int, port: int, place: Workspace, options: argparse.Namespace) -> dict[str, object]:
    load = Load(port, process)
    await load.connect(options.connections)
    await load.paced(100, 2.0)
    found: dict[str, object] = {"pinned": options.pin, "rate": options.rate, "connections": options.connections}
    if options.only in (None, "steady"):
        found["steady"] = await load.paced(options.rate, options.seconds)
    if options.only in (None, "with_switches"):
        before = await switched(port)
        switching = asyncio.create_task(switches(place, options.switches, options.seconds))
        stretch = await load.paced(options.rate, options.seconds)
        await switching
        found["with_switches"] = {"switches": await switched(port) - before, **stretch}
    if options.only in (None, "closed_loop"):
        found["closed_loop"] = await load.closed(5.0)
    return found


async def switches(place: Workspace, count: int, seconds: float) -> None:
    """Promote the one or the other version, evenly over the time."""
    numbers = [record.version for record in versions.read_registry(place).versions][:2]
    for _ in range(count):
        await asyncio.sleep(seconds / (count + 1))
        now = versions.read_registry(place).promoted
        other = next(number for number in numbers if number != now)
        await asyncio.to_thread(versions.promote, place, other, why="benchmark")


async def switched(port: int) -> int:
    """Return how many versions the service has put in, as it says itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return int(float(next(one for one in text.splitlines() if one.startswith("kgrec_version_switches ")).split()[1]))


class Connection(asyncio.Protocol):
    """One request at a time on one connection; `done(connection, due, status, version)` at the end of each answer."""

    def __init__(self, done: Callable[[Connection, float, bytes, bytes], None]) -> None:
        self._done, self._got, self._due = done, b"", 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what is written to."""
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Count a request that was under way as lost."""
        if self._due:
            self._done(self, self._due, b"lost", b"")

    def ask(self, due: float, user: int) -> None:
        """Send one request."""
        body = b'{"user":%d,"k":10}' % user
        head = b"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self._due, self._got = due, b""
        self.transport.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    def data_received(self, data: bytes) -> None:
        """Gather one answer."""
        self._got += data
        head, end, body = self._got.partition(b"\r\n\r\n")
        if end and len(body) == int(value_of(head, b"content-length")):
            version, due = value_of(head, b"x-kgrec-version"), self._due
            status = head[9:12] if body.startswith(b'{"version":"%s"' % version) else b"another version in the body"
            self._due = 0.0
            self._done(self, due, status, version)


def value_of(head: bytes, name: bytes) -> bytes:
    return head.partition(name + b": ")[2].partition(b"\r\n")[0]


class Load:
    """A client of some connections; times are from the moment that a request was due."""

    def __init__(self, port: int, process: int) -> None:
        self._port, self._process = port, process
        self._free: deque[Connection] = deque()
        self._waiting: deque[tuple[float, int]] = deque()
        self._found: list[tuple[float, float, bytes, bytes]] = []
        self._next: Callable[[], tuple[float, int] | None] = lambda: None
        self._users = random.Random(7)

    async def connect(self, count: int) -> None:
        """Open connections, to be kept."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            _, made = await loop.create_connection(lambda: Connection(self._answered), "127.0.0.1", self._port)
            self._free.append(made)

    async def paced(self, rate: float, seconds: float) -> dict[str, object]:
        """Send requests when they are due; one that finds no free connection waits, and its time runs."""
        count, clock = int(rate * seconds), Clock(self._process)
        self._found, self._next = [], lambda: self._waiting.popleft() if self._waiting else None
        for number in range(count):
            due = clock.start + number / rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            self._waiting.append((due, self._users.randint(1, USERS)))
            if self._free:
                self._free.popleft().ask(*self._waiting.popleft())
        while len(self._found) < count:
            await asyncio.sleep(0.01)
        return summary(self._found, clock, [clock.start + number / rate for number in range(count)])

    async def closed(self, seconds: float) -> dict[str, object]:
        """Send on each connection as soon as it answered."""
        clock, connections = Clock(self._process), len(self._free)
        self._found = []
        self._next = lambda: (time.perf_counter(), self._users.randint(1, USERS)) if clock.seconds < seconds else None
        while self._free:
            self._free.popleft().ask(time.perf_counter(), self._users.randint(1, USERS))
        while clock.seconds < seconds or len(self._free) < connections:
            await asyncio.sleep(0.01)
        return summary(self._found, clock, [])

    def _answered(self, connection: Connection, due: float, status: bytes, version: bytes) -> None:
        self._found.append((due, time.perf_counter(), status, version))
        if (following := self._next()) is not None:
            connection.ask(*following)
        else:
            self._free.append(connection)


class Clock:
    """Times of the wall, of a process, of this one, and of whatever else ran, from its making on."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._before, self.start = self._spent(), time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long it runs."""
        return time.perf_counter() - self.start

    def used(self) -> tuple[float, float, float, float]:
        """Return processor seconds of the service, of this client, of all others, and what of these was stolen."""
        service, client, busy, stolen = (now - then for now, then in zip(self._spent(), self._before, strict=True))
        return service, client, max(0.0, busy - service - client), stolen

    def _spent(self) -> tuple[float, float, float, float]:
        fields = Path(f"/proc/{self._process}/stat").read_text().rpartition(")")[2].split()
        user, nice, system, _, _, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
        busy = user + nice + system + irq + soft + steal
        return (int(fields[11]) + int(fields[12])) / TICKS, time.process_time(), busy / TICKS, steal / TICKS


def summary(found: list[tuple[float, float, bytes, bytes]], clock: Clock, dues: list[float]) -> dict[str, object]:
    seconds, (service, client, others, stolen) = clock.seconds, clock.used()
    times = sorted(1000 * (end - due) for due, end, _, _ in found)
    return {
        "requests": len(found), "errors": sum(status != b"200" for _, _, status, _ in found),
        "versions": sorted({version.decode() for _, _, _, version in found}),
        "per_second": round(len(found) / seconds, 1),
        **{f"p{q}_ms": round(times[min(len(times) - 1, int(len(times) * q / 100))], 2) for q in (50, 90, 99, 99.9)},
        "max_ms": round(times[-1], 2), "longest_silence_ms": round(longest_silence(found, dues), 2),
        "service_cpu_ms_per_request": round(1000 * service / len(found), 3),
        "client_cpu_ms_per_request": round(1000 * client / len(found), 3), "others_cores": round(others / seconds, 2),
        "stolen_cores": round(stolen / seconds, 2),
    }  # fmt: skip


def longest_silence(found: list[tuple[float, float, bytes, bytes]], dues: list[float]) -> float:
    """Return the longest time in ms between an answer, or the next request due after it, and the answer that follows.

    >>> round(longest_silence([(0.0, 0.5, b"", b""), (9.0, 9.1, b"", b"")], [0.0, 9.0]))
    500
    """
    ends = sorted(end for _, end, _, _ in found)
    firsts = [max(before, due) for before, due in zip([0.0, *ends], dues, strict=False)]
    return 1000 * max((end - first for end, first in zip(ends, firsts, strict=False)), default=0.0)


if __name__ == "__main__":
    main()
