"""How much of this machine a run may take."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, Field


class TaskRunner(StrEnum):
    """Where the files of a log that comes in several are parsed."""

    SEQUENTIAL = "sequential"
    THREADS = "threads"
    DASK = "dask"
    RAY = "ray"


class ResourcesConfig(BaseModel):
    """[resources]: what a run may take. No result depends on it, to the bit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_mb: int = Field(
        1024,
        ge=1,
        description="Memory (MB, 10^6 bytes, >= 1) for what would otherwise grow with the log: its rows are looked at "
        "so many at a time, by key or by time, that they fit. Libraries, vocabularies, the graph and the model come "
        "on top.",
    )
    task_runner: TaskRunner = Field(
        TaskRunner.SEQUENTIAL,
        description="Where commands parse the files of a log that comes in several (a glob, as one a day): one after "
        "the other, or each a Prefect task on threads of this process, on Dask or on Ray (the extras dask and ray; "
        "a cluster that DASK_ADDRESS or RAY_ADDRESS names, else one of this machine for as long as it takes).",
    )

    def rows(self, bytes_of_a_row: int) -> int:
        """Return how many rows fit at once, at least one.

        >>> ResourcesConfig(memory_mb=100).rows(50)
        2000000
        """
        return max(1, self.memory_mb * 1_000_000 // bytes_of_a_row)


DEFAULT: Final = ResourcesConfig()
