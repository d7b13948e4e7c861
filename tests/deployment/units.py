"""Reads systemd's unit files as systemd does, as far as these units go."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests import worlds

FOLDER = worlds.ROOT / "deploy" / "systemd"
CREDENTIALS = "/run/secrets"


class Unit:
    """A unit file: `values` of a key in the order of the file, the command and the variables of its process."""

    def __init__(self, path: Path) -> None:
        self.name, self.path = path.name, path
        self.entries: list[tuple[str, str, str]] = []
        section = ""
        for line in path.read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif line and not line.startswith("#"):
                key, _, value = line.partition("=")
                self.entries.append((section, key, value))

    def values(self, key: str) -> list[str]:
        """Return every value of a key."""
        return [value for _, found, value in self.entries if found == key]

    def environment(self) -> dict[str, str]:
        """Return the variables: those of the environment file first, then the unit's own."""
        lines = [line for line in (FOLDER / "kgrec.env").read_text().splitlines() if line and line[0] != "#"]
        own = [word for value in self.values("Environment") for word in shlex.split(value)]
        pairs = [text.partition("=") for text in (*lines, *own)]
        return {name: value.replace("%d", CREDENTIALS) for name, _, value in pairs}

    def command(self) -> list[str]:
        """Return the words of ExecStart; `${NAME}` becomes one word's part, as systemd has it."""
        (line,) = self.values("ExecStart")
        known = self.environment()
        return [re.sub(r"\$\{(\w+)\}", lambda found: known[found[1]], word) for word in line.split()]


def units(kind: str = "service") -> dict[str, Unit]:
    """Return the units of a kind by name."""
    return {path.stem: Unit(path) for path in sorted(FOLDER.glob(f"*.{kind}"))}
