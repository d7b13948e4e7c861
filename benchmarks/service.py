"""Latency and throughput of `kgrec serve` with ml-100k's version, on loopback, and a minute of switches of version.

    python benchmarks/service.py [--workspace DIR] [--rate 500] [--seconds 60] [--switches 10] [--connections 16]

The workspace is made (two short runs of configs/ml-100k.toml) where it is not there. Requests are POST /v1/recommend of
random users, k = 10, sent at the rate given whatever the service does: a late answer counts from the moment that its
request was due. Prints one JSON object: a steady minute, the same with switches, and the most a closed loop gets.
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
from pathlib import Path

from kgrec.serving import versions
from kgrec.workspace import Workspace

ROOT = Path(__file__).parents[1]
SERVE = "from pipelines.cli import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--switches", type=int, default=10)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = make_workspace(options.workspace or Path(folder) / "workspace")
        command = [sys.executable, "-c", SERVE, "serve", "--json", "--port", "0", "--workspace", str(place.root),
                   "--requests-per-second", "100000", "--burst", "1000000"]  # fmt: skip
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
            port = int(json.loads(process.stdout.readline())["address"].rpartition(":")[2])
            try:
                print(
                    json.dumps(asyncio.run(measure(process.pid, port, place, options)) | {"load": os.getloadavg()}),
                    flush=True,
                )
            finally:
                process.terminate()
        print(json.dumps({"exit_status": process.returncode}), file=sys.stderr)


def make_workspace(folder: Path) -> Workspace:
    if not (folder / "versions.json").exists():
        from feature_store.catalog import VIEWS
        from kgrec.stages import run

        run(ROOT / "configs" / "ml-100k.toml", folder, overrides=["training.epochs=2"], views=VIEWS)
    place = Workspace(folder)
    if len(versions.read_registry(place).versions) < 2:
        from feature_store.catalog import VIEWS
        from kgrec.stages import run

        run(ROOT / "configs" / "ml-100k.toml", folder, overrides=["training.epochs=1"], views=VIEWS)
    return place


async def measure(process: int, port: int, place: Workspace, options: argparse.Namespace) -> dict[str, object]:
    await paced(port, 100, 2.0, options.connections)
    before = cpu_seconds(process)
    steady = await paced(port, options.rate, options.seconds, options.connections)
    steady["service_cpu_ms_per_request"] = 1000 * (cpu_seconds(process) - before) / max(1, int(str(steady["requests"])))
    switching = asyncio.create_task(switches(place, options.switches, options.seconds))
    switched = await paced(port, options.rate, options.seconds, options.connections)
    await switching
    closed = await closed_loop(port, 5.0, options.connections)
    return {"steady": steady, "with_switches": {"switches": options.switches, **switched}, "closed_loop": closed}


def cpu_seconds(process: int) -> float:
    """Return the processor time that a process has used, all threads, on Linux."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def switches(place: Workspace, count: int, seconds: float) -> None:
    numbers = [record.version for record in versions.read_registry(place).versions][:2]
    for _ in range(count):
        await asyncio.sleep(seconds / (count + 1))
        now = versions.read_registry(place).promoted
        versions.promote(place, next(number for number in numbers if number != now), why="benchmark")


async def paced(port: int, rate: float, seconds: float, connections: int) -> dict[str, object]:
    """Send requests when they are due, each on a free connection; return latencies in milliseconds."""
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(connections):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port))
    found: list[tuple[float, str, str]] = []

    async def one(due: float, user: int) -> None:
        connection = await free.get()
        status, version = await ask(*connection, user)
        found.append((time.perf_counter() - due, status, version))
        free.put_nowait(connection)

    users, start, tasks = random.Random(7), time.perf_counter(), []
    for number in range(int(rate * seconds)):
        due = start + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one(due, users.randint(1, 943))))
    await asyncio.gather(*tasks)
    return summary(found, time.perf_counter() - start)


async def closed_loop(port: int, seconds: float, connections: int) -> dict[str, object]:
    found: list[tuple[float, str, str]] = []
    start = time.perf_counter()

    async def caller(seed: int) -> None:
        connection, users = await asyncio.open_connection("127.0.0.1", port), random.Random(seed)
        while time.perf_counter() - start < seconds:
            began = time.perf_counter()
            status, version = await ask(*connection, users.randint(1, 943))
            found.append((time.perf_counter() - began, status, version))

    await asyncio.gather(*(caller(seed) for seed in range(connections)))
    return summary(found, time.perf_counter() - start)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: int) -> tuple[str, str]:
    body = b'{"user":%d,"k":10}' % user
    head = b"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    told = json.loads(await reader.readexactly(length))
    return answer[9:12].decode(), told.get("version", "")


def summary(found: list[tuple[float, str, str]], seconds: float) -> dict[str, object]:
    times = sorted(1000 * one for one, _, _ in found)
    statuses = [status for _, status, _ in found]
    return {
        "requests": len(found), "errors": sum(status != "200" for status in statuses),
        "versions": sorted({version for _, _, version in found}), "per_second": round(len(found) / seconds, 1),
        **{f"p{q}_ms": round(times[min(len(times) - 1, int(len(times) * q / 100))], 2) for q in (50, 90, 99)},
        "max_ms": round(times[-1], 2),
    }  # fmt: skip


if __name__ == "__main__":
    main()
