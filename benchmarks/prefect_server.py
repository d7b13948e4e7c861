"""A real Prefect server, the deployment of a config, and a worker that can be killed: for `fortnight.py`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KGREC = [sys.executable, "-c", "import sys; from pipelines.cli import main; main(sys.argv[1:])"]


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
            except TimeoutError:  # a busy machine; what makes something is not asked for twice
                if method != "GET" or attempt == 29:
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
