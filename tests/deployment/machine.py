"""All of a deployment under one folder: its PostgreSQL, its secrets, a token, a config, and its running services."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests import worlds
from tests.calling import as_json, call
from tests.data.test_postgresql import free_port, program, unprivileged
from tests.deployment.composing import ROOT, Places, Running, image_environment, instruction, read_compose
from tests.deployment.units import Unit

PASSWORD, AUTH = "p4ss w0rd'$x", "kgrec:0per4tor"
PATIENCE_SECONDS = 240


class Machine:
    """Services of compose.yaml, and units, under one folder; they are started as their dependencies allow."""

    def __init__(self, folder: Path) -> None:
        self.compose = read_compose({"KGREC_CONFIG": "tiny.toml", "KGREC_TIMEZONE": "Europe/Berlin"})
        self.services: dict[str, Any] = self.compose["services"]
        self.folder, self.running = folder, dict[str, Running]()
        numbers = ("5432", "5000", "4200", "8080", "8000")
        inside = {"/var/lib/kgrec": "kgrec", "/var/lib/mlflow": "mlflow", "/var/lib/prefect": "prefect",
                  "/var/lib/postgresql/data": "database", "/etc/kgrec": "configs", "/run/kgrec": "tokens",
                  "/run/secrets": "secrets", "/backups": "backups", "/tmp": "tmp"}  # fmt: skip
        folders = {name: folder / one for name, one in inside.items()}
        for name, path in folders.items():
            if name != "/var/lib/postgresql/data":
                path.mkdir()
        (folders["/var/lib/kgrec"] / "workspace").mkdir()
        programs = [str(Path(sys.executable).parent), str(ROOT / "deploy"), os.environ["PATH"]]
        folders |= {f"/usr/local/bin/{name}": ROOT / "deploy" / name for name in ("with-secrets", "backup")}
        folders |= {"/opt/kgrec/bin": ROOT / "deploy", "/opt/kgrec/venv/bin": Path(sys.executable).parent,
                    "/var/lib/kgrec-mlflow": folder / "mlflow", "/var/lib/kgrec-prefect": folder / "prefect",
                    "/etc/kgrec/tokens": folder / "tokens", "/var/backups/kgrec": folder / "backups"}  # fmt: skip
        ports = {number: free_port() for number in numbers}
        self.places = Places(ports, folders, tuple(self.services), ":".join(programs), {"PYTHONPATH": str(ROOT)})
        self.make_inputs()

    def make_inputs(self) -> None:
        """Write the secrets, a token, and the tiny config so that the tiny model passes the gate."""
        secrets, configs = self.places.folders["/run/secrets"], self.places.folders["/etc/kgrec"]
        (secrets / "postgres_password").write_text(PASSWORD + "\n")
        (secrets / "prefect_auth").write_text(AUTH + "\n")
        text = worlds.TINY.read_text()
        assert "[gate]" not in text
        (configs / "tiny.toml").write_text(text + "\n[gate]\nbaselines = []\n")
        shutil.copytree(worlds.TINY.parent / "tiny", configs / "tiny")
        made = call("token", "shop", "--tokens", self.places.folders["/run/kgrec"] / "tokens.txt", "--json")
        self.token = as_json(made)["token"]

    def environment(self, name: str) -> dict[str, str]:
        return self.places.environment(self.services[name].get("environment", {}), image_environment())

    def command(self, name: str) -> list[str]:
        entrypoint = self.services[name].get("entrypoint", json.loads(instruction("ENTRYPOINT")[0]))
        return [self.places.here(word) for word in (*entrypoint, *self.services[name]["command"])]

    def start(self, name: str) -> None:
        """Start a service when what it depends on is as its conditions want."""
        for other, wanted in self.services[name].get("depends_on", {}).items():
            self.wait(other, wanted["condition"])
        self.running[name] = Running(name, self.command(name), self.environment(name), self.folder)

    def start_unit(self, name: str, unit: Unit) -> None:
        """Start what a unit runs, with its variables; systemd's own work (accounts, folders, limits) is not done."""
        self.running[name] = Running(name, *self.of_unit(unit), self.folder)

    def of_unit(self, unit: Unit) -> tuple[list[str], dict[str, str]]:
        """Return a unit's command and variables as they are here."""
        command = [self.places.here(word) for word in unit.command()]
        return command, self.places.environment(unit.environment(), {})

    def stop(self) -> dict[str, int]:
        """End what runs in the reverse order of its start, as an operator would; return the statuses by name."""
        statuses = {name: self.running[name].stop() for name in reversed(list(self.running))}
        self.running.clear()
        return statuses

    def wait(self, name: str, condition: str) -> None:
        if name == "postgres":
            return  # it is started before all others and waited for
        one = self.running[name]
        if condition == "service_completed_successfully":
            assert one.process.wait(PATIENCE_SECONDS) == 0, one.said()
        else:
            test = [self.places.here(word) for word in self.services[name]["healthcheck"]["test"][1:]]
            one.wait_healthy(test, PATIENCE_SECONDS)

    def ask(self, number: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Ask a service by its port inside; return status and JSON (or text)."""
        data = None if body is None else json.dumps(body).encode()
        given = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.places.ports[number]}{path}", data=data, headers=given
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, raw = answer.status, answer.read().decode()
        except urllib.error.HTTPError as fault:
            status, raw = fault.code, fault.read().decode()
        try:
            return status, json.loads(raw)
        except ValueError:
            return status, raw


def start_postgres(machine: Machine) -> None:
    """Do what the image of PostgreSQL does: make the database, start it, run what lies in initdb.d."""
    service, folder = machine.services["postgres"], machine.folder / "postgres"
    assert service["environment"]["POSTGRES_PASSWORD_FILE"] == "/run/secrets/postgres_password"
    folder.mkdir()
    words = folder / "words"
    words.write_text(PASSWORD + "\n")
    if os.geteuid() == 0:
        for path in (folder, words):
            shutil.chown(path, "postgres")
    data, user = folder / "data", service["environment"]["POSTGRES_USER"]
    given = service["environment"]["POSTGRES_INITDB_ARGS"].split()
    make = [program("initdb"), "-D", str(data), "-U", user, f"--pwfile={words}", *given, "--auth-local=trust",
            "--no-sync"]  # fmt: skip
    port = machine.places.ports["5432"]
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
    start = [program("pg_ctl"), "-D", str(data), "-w", "-t", "60", "-l", str(folder / "log"), "-o", options, "start"]
    for command in (make, start):
        subprocess.run(unprivileged([str(word) for word in command]), check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, cwd=folder)  # fmt: skip
    for volume in service["volumes"]:
        source, target, *_ = volume.split(":")
        if target.startswith("/docker-entrypoint-initdb.d/"):
            script = ["psql", "-h", str(folder), "-p", str(port), "-U", user, "-d", "postgres", "-v", "ON_ERROR_STOP=1"]
            subprocess.run([*script, "-q", "-f", str(ROOT / source)], check=True)
    healthy = [machine.places.here(word) for word in service["healthcheck"]["test"][1:]]
    subprocess.run(healthy, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def machine_in(folder: Path) -> Iterator[Machine]:
    """A machine whose PostgreSQL runs; whatever else was started on it ends with the block."""
    folder.chmod(0o755)  # PostgreSQL's own account must get in
    pg_ctl = program("pg_ctl")
    with ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        machine = Machine(folder)
        stop = [str(pg_ctl), "-D", str(folder / "postgres" / "data"), "-m", "immediate", "-w", "stop"]
        ends.callback(subprocess.run, unprivileged(stop), check=False, capture_output=True, cwd=folder)
        start_postgres(machine)
        try:
            yield machine
        finally:
            machine.stop()
