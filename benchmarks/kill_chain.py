"""Kills the chain at random moments, again and again, and compares what comes out with an undisturbed run.

    python benchmarks/kill_chain.py [--kills 50] [--config configs/tiny.toml] [--command] [--seed 1] [--keep DIR]

Each attempt is killed with SIGKILL, its whole process group at once, after a delay drawn evenly from the time that an
undisturbed run takes from its first stage to its end. After every kill another attempt goes on in the same workspace;
when a chain ends, every artifact is compared byte by byte and the next chain begins in a fresh one, until that many
kills have hit. Without --command a run is `kgrec.run` in a process of its own; with it, the real command, with Prefect
and its server. Prints JSON; exit status 1 when anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kgrec.artifacts import MANIFEST, hash_file, load_artifact
from kgrec.errors import ArtifactError

ROOT = Path(__file__).parents[1]
RUN = "import sys, kgrec; from feature_store.catalog import VIEWS; kgrec.run(sys.argv[1], sys.argv[2], views=VIEWS)"
KGREC = Path(sys.executable).with_name("kgrec")


class Attempts:
    """Starts runs of one config, and remembers where in the chain each kill hit."""

    def __init__(self, config: Path, *, command: bool) -> None:
        self.config, self.command = config, command
        self.hits: Counter[str] = Counter()

    def start(self, workspace: Path) -> subprocess.Popen[bytes]:
        """Start a run in a process group of its own."""
        with_prefect = [str(KGREC), "run", str(self.config), "--workspace", str(workspace), "--json"]
        direct = [sys.executable, "-c", RUN, str(self.config), str(workspace)]
        with self._said(workspace).open("wb") as said:
            return subprocess.Popen(
                with_prefect if self.command else direct, stdout=subprocess.DEVNULL, stderr=said,
                cwd=ROOT, start_new_session=True,
            )  # fmt: skip

    @staticmethod
    def _said(workspace: Path) -> Path:
        return workspace.with_name(f"{workspace.name}.stderr")

    def finish(self, workspace: Path) -> tuple[float, float]:
        """Let a run end; return the seconds until it held the workspace and those from there to its end."""
        started = time.perf_counter()
        process = self.start(workspace)
        held = _wait_until_held(process, workspace)
        status = process.wait()
        if status != 0:
            raise SystemExit(f"an undisturbed run ended with status {status}: try `kgrec run {self.config}` by hand")
        return held - started, time.perf_counter() - held

    def kill(self, workspace: Path, delay: float) -> bool:
        """Start a run and kill it `delay` seconds after it held the workspace; False when it had ended by then."""
        process = self.start(workspace)
        _wait_until_held(process, workspace)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            where = stage_under_way(workspace)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self.hits[where] += 1
            return True
        if process.returncode != 0:
            tail = self._said(workspace).read_text(errors="replace")[-2000:]
            raise SystemExit(f"an attempt after a kill ended with status {process.returncode}:\n{tail}")
        return False


def _wait_until_held(process: subprocess.Popen[bytes], workspace: Path) -> float:
    """Wait until this very process has written that it holds the workspace."""
    note = workspace / ".holder.json"
    while process.poll() is None:
        try:
            if json.loads(note.read_text())["process"] == process.pid:
                break
        except (OSError, ValueError):
            pass
        time.sleep(0.002)
    return time.perf_counter()


def stage_under_way(workspace: Path) -> str:
    """Return the stage that is being built, as far as the folders tell; between two of them, the last that ended."""
    half_built = sorted((workspace / "artifacts" / ".building").glob("*-*"))
    if half_built:
        return half_built[0].name.partition("-")[0]
    done = sorted((workspace / "artifacts").glob(f"[!.]*/*/{MANIFEST}"), key=lambda path: path.stat().st_mtime_ns)
    return f"after {done[-1].parents[1].name}" if done else "before ingest"


def bytes_of(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hash_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def faults_of(workspace: Path, expected: dict[str, str]) -> list[str]:
    """Return what is wrong with a workspace whose chain was killed and then ended."""
    artifacts = workspace / "artifacts"
    made = bytes_of(artifacts)
    faults = [f"{name}: differs" for name in sorted(set(made) & set(expected)) if made[name] != expected[name]]
    faults += [f"{name}: missing" for name in sorted(set(expected) - set(made))]
    faults += [f"{name}: not in the undisturbed run" for name in sorted(set(made) - set(expected))]
    for manifest in artifacts.rglob(MANIFEST):
        try:
            load_artifact(manifest.parent)
        except ArtifactError as fault:
            faults.append(str(fault))
    faults += [f"{path}: left half-built" for path in (artifacts / ".building").glob("*")]
    faults += [f"{path}: left half-written" for path in workspace.glob("**/.*.part")]
    registry = json.loads((workspace / "versions.json").read_text())
    versions = [record["version"] for record in registry["versions"]]
    passed = [record["version"] for record in registry["versions"] if record["gate_passed"]]
    faults += [] if versions == ["1"] else [f"versions.json: {versions}, expected one version"]
    faults += (
        [] if registry["promoted"] == (passed[0] if passed else None) else ["versions.json: promoted the wrong one"]
    )
    return faults + _audit_faults(workspace / "audit.jsonl", promoted=bool(passed))


def _audit_faults(path: Path, *, promoted: bool) -> list[str]:
    """Say which lines of the audit are no whole JSON, and whether it tells of the version and of its promotion.

    A line is written before what it tells takes effect, so a kill in between may leave the same line twice.
    """
    told, faults = set(), []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            told.add((json.loads(line)["what"], json.loads(line)["version"]))
        except (ValueError, KeyError):
            faults.append(f"{path.name} line {number}: not whole: {line[:80]}")
    expected = {("registered", "1")} | ({("promoted", "1")} if promoted else set())
    return faults if told == expected else [*faults, f"{path.name}: tells {sorted(told)}, expected {sorted(expected)}"]


def measure(kills: int, config: Path, seed: int, folder: Path, *, command: bool) -> dict[str, Any]:
    """Kill `kills` attempts and return what came of it."""
    draw, attempts = random.Random(seed), Attempts(config, command=command)
    begun = time.perf_counter()
    attempts.finish(folder / "undisturbed")
    start_seconds, work_seconds = attempts.finish(folder / "timed")  # the first also filled the disk's cache
    expected = bytes_of(folder / "undisturbed" / "artifacts")
    faults = faults_of(folder / "timed", expected)
    chains, hits = 0, 0
    while hits < kills:
        workspace = folder / f"chain-{chains}"
        ended = False
        while hits < kills and not ended:
            ended = not attempts.kill(workspace, draw.uniform(0.0, work_seconds))
            hits += not ended
            print(f"chain {chains}: " + ("ended" if ended else f"kill {hits} of {kills}"), file=sys.stderr)
        if not ended:
            attempts.finish(workspace)
        found = faults_of(workspace, expected)
        faults += [f"chain {chains}: {fault}" for fault in found]
        if not found:
            shutil.rmtree(workspace)
        chains += 1
    return {
        "benchmark": "kill_chain", "config": config.name, "runs": "kgrec run" if command else "kgrec.run",
        "kills": hits, "chains_finished": chains, "files_compared_each": len(expected), "faults": faults,
        "kills_by_place": dict(sorted(attempts.hits.items())), "seed": seed,
        "undisturbed_seconds": {"start": round(start_seconds, 2), "chain": round(work_seconds, 2)},
        "seconds": round(time.perf_counter() - begun, 1),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}",
        "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="how many kills must hit a running chain")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "tiny.toml")
    parser.add_argument("--command", action="store_true", help="kill the real `kgrec run`, with Prefect")
    parser.add_argument("--seed", type=int, default=1, help="of the moments at which it kills")
    parser.add_argument("--keep", type=Path, help="work in this empty folder, and keep the chains with faults")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-chain-") as scratch:
        folder = asked.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        result = measure(asked.kills, asked.config.resolve(), asked.seed, folder, command=asked.command)
    print(json.dumps(result, indent=1))
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
