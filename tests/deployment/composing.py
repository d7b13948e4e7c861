"""Starts what compose.yaml describes as processes: the very commands, variables and health checks.

Ports become free ones of loopback, names of services this machine, folders of a container folders of the test; a secret
is the file that the test wrote. Nothing else is changed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from tests import worlds

ROOT = worlds.ROOT
COMPOSE = ROOT / "compose.yaml"
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def interpolated(text: str, given: Mapping[str, str]) -> str:
    """Return a text as compose reads it: `${NAME:-default}` replaced."""
    return _VARIABLE.sub(lambda found: given.get(found[1]) or found[2] or "", text)


def read_compose(given: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return compose.yaml with variables as given, else their defaults."""
    found: dict[str, Any] = yaml.safe_load(interpolated(COMPOSE.read_text(), given or {}))
    return found


def instruction(name: str) -> list[str]:
    """Return the texts of an instruction of the Dockerfile, lines that go on joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.partition(" ")[2].strip() for line in text.splitlines() if line.startswith(f"{name} ")]


def image_environment() -> dict[str, str]:
    """Return the variables that the image sets, but for PATH."""
    pairs = [word.partition("=") for word in shlex.split(instruction("ENV")[-1])]
    return {name: value for name, _, value in pairs if name != "PATH"}


def order(services: Mapping[str, Any]) -> list[str]:
    """Return the services in the order of their `depends_on`."""
    return list(TopologicalSorter({name: one.get("depends_on", {}) for name, one in services.items()}).static_order())


@dataclass
class Places:
    """What stands for what: ports by their number inside, folders by their path inside, the path of programs."""

    ports: dict[str, int]
    folders: dict[str, Path]
    names: tuple[str, ...]
    path: str
    variables: dict[str, str] = field(default_factory=dict)

    def here(self, text: str) -> str:
        """Return a word of a command or a variable's value as it is on this machine."""
        longest_first = sorted(self.folders, key=len, reverse=True)
        inside = "|".join(re.escape(folder) for folder in longest_first)
        text = re.sub(rf"(?<![\w/])({inside})(?=/|$)", lambda found: str(self.folders[found[1]]), text)
        if text in self.ports:
            return str(self.ports[text])
        hosts = "|".join((*self.names, "127.0.0.1", "localhost"))
        text = re.sub(
            rf"\b({hosts}):(\d+)\b",
            lambda found: f"{'localhost' if found[1] == 'localhost' else '127.0.0.1'}:{self.ports[found[2]]}", text,
        )  # fmt: skip
        text = re.sub(r"^--port=(\d+)$", lambda found: f"--port={self.ports[found[1]]}", text)
        return re.sub(r"^--host=(0\.0\.0\.0|\w+)$", "--host=127.0.0.1", text)

    def environment(self, given: Mapping[str, Any], image: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of a process: those of the image and of the file, and nothing of this shell but PATH."""
        own = {name: "127.0.0.1" if value in self.names else self.here(str(value))
               for name, value in {**image, **given}.items()}  # fmt: skip
        return {"PATH": self.path, "HOME": str(self.folders["/tmp"]), **own, **self.variables}


class Running:
    """One service as a process group with a log."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self.name, self.environment, self.folder = name, dict(environment), folder
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as said:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=said, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                cwd=folder, start_new_session=True,
            )  # fmt: skip

    def said(self) -> str:
        """Return the end of its log."""
        return f"{self.name} said:\n{self.log.read_text(errors='replace')[-4000:]}"

    def wait_healthy(self, test: list[str], seconds: float) -> None:
        """Ask by the health check's own command until it succeeds; AssertionError when it ended, or in vain."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.said()
            if subprocess.run(test, env=self.environment, capture_output=True, check=False).returncode == 0:
                return
            time.sleep(1)
        raise AssertionError(f"not healthy in {seconds:.0f} s; {self.said()}")

    def stop(self, seconds: float = 40) -> int:
        """End it as `docker stop` does, SIGTERM to the first process and SIGKILL to all at last; return its status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
