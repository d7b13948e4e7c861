"""The chain as a Prefect flow: every stage a task, told in the order of `kgrec.stages`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Failed

from kgrec.chain.context import Run
from kgrec.errors import KgrecError
from kgrec.schedule import ScheduleConfig, may_pass
from kgrec.stages import STAGES, run_chain
from pipelines.partitions import parse_all_on

T = TypeVar("T")
WATCHED = ScheduleConfig(retries=0)
"""Somebody looks on: nothing is tried again, nothing is given up."""


def run_flow(context: Run, until: str = STAGES[-1], schedule: ScheduleConfig = WATCHED) -> Any:
    """Run the chain up to a stage as a flow, and return what `kgrec.stages.run_chain` returns."""
    context.parse_all = parse_all_on(context.config.resources.task_runner)
    return as_flow(f"kgrec-{context.config.name}", lambda call: run_chain(context, call, until), schedule,
                   examples=context.config.privacy.user_ids)  # fmt: skip


def as_flow(
    name: str, work: Callable[[Callable[..., Any]], Any], schedule: ScheduleConfig = WATCHED, *, examples: bool = False
) -> Any:  # fmt: skip
    """Do work as a flow and return its answer. work gets a `call`, which makes a task of each step.

    schedule: how often a step is tried again after a fault that may pass, and how long the whole may take. An error
    comes out as it was raised; the states that Prefect keeps of it repeat example values of the input only where
    `examples` allows it. TimeoutError when the time is over.
    """
    kept: list[Any] = []
    faults: list[KgrecError] = []
    state_of = partial(_kept_or_failed, kept, faults, examples)
    retry: dict[str, Any] = {"retries": schedule.retries, "retry_condition_fn": _may_pass}
    retry |= {"retry_delay_seconds": schedule.waits} if schedule.waits else {}

    def call(name: str, stage: Callable[..., T], *arguments: Any) -> T:
        def body() -> State[None] | None:
            return state_of(lambda: stage(*arguments), to_retry=bool(schedule.retries))

        state = task(name=name, cache_policy=NO_CACHE, persist_result=False, **retry)(body)(return_state=True)
        if faults:
            raise faults[0]
        if not kept:
            state.result()  # raises what went wrong
        answer: T = kept.pop()
        return answer

    def whole() -> State[None] | None:
        return state_of(lambda: work(call))

    timed = flow(name=name, persist_result=False, timeout_seconds=schedule.timeout_seconds)(whole)
    state = timed(return_state=True)
    if faults:
        raise faults[0]
    if not kept:
        state.result()  # raises what went wrong
    return kept.pop()


def _kept_or_failed(
    kept: list[Any], faults: list[KgrecError], examples: bool, work: Callable[[], Any], *, to_retry: bool = False
) -> State[None] | None:
    """Keep the answer, or keep the fault and return a failed state: Prefect records it without a traceback.

    to_retry: a fault that may pass is raised, so that Prefect tries again.
    """
    try:
        kept.append(work())
    except KgrecError as fault:
        if to_retry and may_pass(fault):
            raise
        if not faults:
            faults.append(fault)
        return Failed(message=fault.for_others(examples=examples))
    return None


def _may_pass(step: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    fault = state.data if isinstance(state.data, BaseException) else state.result(raise_on_failure=False)
    return isinstance(fault, BaseException) and may_pass(fault)
