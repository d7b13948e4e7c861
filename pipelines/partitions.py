"""Files of a log as mapped Prefect tasks: on threads of this process, on Dask, or on Ray."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final, TypeVar

import polars as pl
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner

from kgrec.data.partitions import ParseAll, Parsing, parse, parse_in_turn
from kgrec.errors import InputError, KgrecError, Problem, UnreachableError
from kgrec.resources import TaskRunner

T = TypeVar("T")
_MOST_TASKS: Final = 200
"""Of more files a task takes several: each task costs Prefect's server some time of its own."""
_PROCESSES: Final = os.cpu_count() or 1
_ONE_THREAD: Final = {"POLARS_MAX_THREADS": "1"}
"""For processes of which there is one a core."""


@contextmanager
def _threads() -> Iterator[Any]:
    yield ThreadPoolTaskRunner(max_workers=_PROCESSES)


@contextmanager
def _dask() -> Iterator[Any]:
    """Yield a runner on the cluster that DASK_ADDRESS names, or on one that starts with the flow and ends with it."""
    here = {
        "n_workers": _PROCESSES, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None,
        "env": _ONE_THREAD,
    }  # fmt: skip
    address = os.environ.get("DASK_ADDRESS")
    runner = import_module("prefect_dask").DaskTaskRunner
    yield runner(address=address) if address else runner(cluster_kwargs=here)


@contextmanager
def _ray() -> Iterator[Any]:
    """Yield a runner on the cluster that RAY_ADDRESS names, or on one that it starts on this machine."""
    runner = import_module("prefect_ray").RayTaskRunner
    with import_module("kgrec.training.distributed.ray_train").cluster(_PROCESSES - 1, _ONE_THREAD):
        yield runner()


RUNNERS: Final[Mapping[TaskRunner, Callable[[], AbstractContextManager[Any]]]] = MappingProxyType(
    {TaskRunner.THREADS: _threads, TaskRunner.DASK: _dask, TaskRunner.RAY: _ray}
)
"""What makes Prefect's task runner, for the time of a `with`; its package is loaded when it is asked for."""
_PACKAGES: Final = {TaskRunner.DASK: "prefect_dask", TaskRunner.RAY: "prefect_ray"}


def parse_all_on(name: TaskRunner) -> ParseAll:
    """Return what parses the files of a log; InputError with the remedy where a package is missing.

    It raises what `kgrec.data.partitions.parse` raised of the first file that failed, and KgrecError where the
    processes that parse were lost or not reached.
    """
    if name is TaskRunner.SEQUENTIAL:
        return parse_in_turn
    _must_be_installed(name)

    def parse_all(parsings: Sequence[Parsing]) -> None:
        size = -(-len(parsings) // _MOST_TASKS)
        runs = [list(parsings[first : first + size]) for first in range(0, len(parsings), size)]
        try:
            with RUNNERS[name]() as runner:
                faults = _as_tasks(runs, runner)
        except OSError as silent:
            remedy = f"see that what {name.value.upper()}_ADDRESS names answers, or run without it"
            what = f"the cluster of {name.value} cannot be reached ({silent})"
            raise UnreachableError(Problem("resources.task_runner", what, remedy)) from None
        if faults:
            raise faults[0]

    return parse_all


class _Here(list[T]):
    """What this process alone needs: the flow goes with each of its tasks, and a copy of it has nothing of this."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _Here, ()


def _as_tasks(runs: list[list[Parsing]], runner: Any) -> list[BaseException]:
    """Parse each run of files as a task of a flow of its own; return what went wrong, in the order of the files."""
    faults, asked = _Here[BaseException](), _Here(runs)

    def whole() -> None:
        parse_files = task(name="parse files", cache_policy=NO_CACHE, persist_result=False)(_parse_run)
        alone: Any = None
        around = TaskRunContext.__var__.set(alone)  # or the stage, which holds this run, would go with each task
        try:
            futures = parse_files.map(list(asked))
        finally:
            TaskRunContext.__var__.reset(around)
        for future in futures:
            try:
                told: Any = future.result(raise_on_failure=False)
            except Exception as lost:
                told = KgrecError(
                    f"the processes that parsed files of the log were lost ({type(lost).__name__}: {lost})\n"
                    "  remedy:  run again: what was parsed is kept; or see whether their memory was enough"
                )
            if isinstance(told, BaseException):
                faults.append(told)

    own: State[Any] = flow(name="parse-files", task_runner=runner, persist_result=False)(whole)(return_state=True)
    own.result()
    return faults


def _parse_run(parsings: list[Parsing]) -> State[Any] | None:
    """Parse files one after the other. A fault goes to whoever asked; the state that Prefect keeps names its kind."""
    try:
        for parsing in parsings:
            parse(parsing)
    except pl.exceptions.PanicException as panic:  # no Exception, and no other process could read it
        return _failed(pl.exceptions.ComputeError(str(panic)))
    except Exception as fault:
        return _failed(fault)
    return None


def _failed(fault: Exception) -> State[Any]:
    return Failed(message=f"a file was not parsed: {type(fault).__name__}", data=fault)


def _must_be_installed(name: TaskRunner) -> None:
    try:
        import_module(_PACKAGES.get(name, "prefect"))
    except ModuleNotFoundError as missing:
        what = f"the package {missing.name} is not installed"
        raise InputError(Problem("resources.task_runner", what, f'pip install "kgrec[{name.value}]"')) from None
