"""The chain as a Prefect flow: every stage a task, told in the order of `kgrec.stages`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Failed

from kgrec.chain.context import Run
from kgrec.errors import KgrecError
from kgrec.stages import STAGES, run_chain

T = TypeVar("T")


def run_flow(context: Run, until: str = STAGES[-1]) -> Any:
    """Run the chain up to a stage as a flow, and return what `kgrec.stages.run_chain` returns."""
    return as_flow(f"kgrec-{context.config.name}", lambda call: run_chain(context, call, until))


def as_flow(name: str, work: Callable[[Callable[..., Any]], Any]) -> Any:
    """Do work as a flow and return its answer. work gets a `call`, which makes a task of each step.

    An error that kgrec raised on purpose comes out as it is.
    """
    kept: list[Any] = []
    faults: list[KgrecError] = []

    def call(name: str, stage: Callable[..., T], *arguments: Any) -> T:
        def body() -> State[None] | None:
            return _kept_or_failed(kept, faults, lambda: stage(*arguments))

        task(name=name, cache_policy=NO_CACHE, persist_result=False)(body)(return_state=True)
        if faults:
            raise faults[0]
        answer: T = kept.pop()
        return answer

    def whole() -> State[None] | None:
        return _kept_or_failed(kept, faults, lambda: work(call))

    state = flow(name=name, persist_result=False)(whole)(return_state=True)
    if faults:
        raise faults[0]
    if not kept:
        state.result()  # raises what went wrong
    return kept.pop()


def _kept_or_failed(
    kept: list[Any], faults: list[KgrecError], work: Callable[[], Any]
) -> State[None] | None:  # fmt: skip
    """Keep the answer, or keep the fault and return a failed state: Prefect records it without a traceback."""
    try:
        kept.append(work())
    except KgrecError as fault:
        if not faults:
            faults.append(fault)
        return Failed(message=str(fault))
    return None
