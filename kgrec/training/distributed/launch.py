"""What starts the processes that train together: this one alone, torchrun, or Ray Train.

A launcher runs `main([job])` of a module in every process, in torch's process group, until all have ended well. A
process that dies takes the others down; all are started again and go on from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from kgrec.errors import InputError, KgrecError, Problem


class LauncherName(StrEnum):
    """The words that `--launcher` takes."""

    LOCAL = "local"
    TORCHRUN = "torchrun"
    RAY = "ray"


class Launch(BaseModel):
    """How many processes train, and what starts them. It is no part of a config: the result is the same model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    launcher: LauncherName = Field(default=LauncherName.LOCAL, description="what starts the processes")
    processes: int = Field(default=1, ge=1, description="processes that train together, >= 1")
    restarts: int = Field(default=3, ge=0, description="how often dead processes are started again, >= 0")

    def model_post_init(self, context: object, /) -> None:
        """Refuse several processes without anything that starts them."""
        if self.launcher is LauncherName.LOCAL and self.processes > 1:
            what = f"{self.processes} processes, and the local launcher is this one alone"
            raise InputError(Problem("--launcher local", what, "write --launcher torchrun (or ray)"))

    @property
    def alone(self) -> bool:
        """Say whether this process trains by itself."""
        return self.launcher is LauncherName.LOCAL


class WorkersLostError(KgrecError):
    """The processes died more often than they are started again."""


Launcher = Callable[[Launch, str, Path], None]
"""Runs `main([job])` of a module in every process; WorkersLostError when they cannot be kept alive."""

_OWN: Final = "kgrec.training.distributed"
LAUNCHERS: Final[Mapping[LauncherName, str]] = MappingProxyType(
    {LauncherName.TORCHRUN: f"{_OWN}.torchrun", LauncherName.RAY: f"{_OWN}.ray_train"}
)
"""The module of each launcher, whose `start` is a `Launcher`; loaded when it is asked for."""


def launcher_of(name: LauncherName) -> Launcher:
    """Return a launcher; InputError with the remedy where its package is not installed."""
    try:
        start: Launcher = import_module(LAUNCHERS[name]).start
    except ModuleNotFoundError as missing:
        remedy = 'pip install "kgrec[ray]"' if name is LauncherName.RAY else "install kgrec anew"
        what = f"the package {missing.name} is not installed"
        raise InputError(Problem(f"--launcher {name.value}", what, remedy)) from None
    return start
