"""Files of a log as mapped Prefect tasks, on threads of this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner

from kgrec.data.partitions import ParseAll, Parsing, parse, parse_in_turn
from kgrec.resources import TaskRunner

_MOST_TASKS: Final = 200
"""Of more files a task takes several: each task costs Prefect's server some time of its own."""


def _threads() -> Any:
    return ThreadPoolTaskRunner(max_workers=os.cpu_count() or 1)


RUNNERS: Final[Mapping[TaskRunner, Callable[[], Any]]] = MappingProxyType({TaskRunner.THREADS: _threads})
"""What makes Prefect's task runner."""


def parse_all_on(name: TaskRunner) -> ParseAll:
    """Return what parses the files of a log."""
    if name is TaskRunner.SEQUENTIAL:
        return parse_in_turn
    runner = RUNNERS[name]()

    def parse_all(parsings: Sequence[Parsing]) -> None:
        size = -(-len(parsings) // _MOST_TASKS)
        runs = [list(parsings[first : first + size]) for first in range(0, len(parsings), size)]
        _as_tasks(runs, runner)

    return parse_all


def _as_tasks(runs: list[list[Parsing]], runner: Any) -> None:
    """Parse each run of files as a task of a flow of its own; raises what the first that failed raised."""
    states: list[State[Any]] = []

    def whole() -> None:
        futures = task(name="parse files", cache_policy=NO_CACHE, persist_result=False)(_parse_run).map(runs)
        wait(futures)
        states.extend(future.state for future in futures)

    own: State[Any] = flow(name="parse-files", task_runner=runner, persist_result=False)(whole)(return_state=True)
    for state in [own, *states]:
        state.result()


def _parse_run(parsings: list[Parsing]) -> None:
    for parsing in parsings:
        parse(parsing)
