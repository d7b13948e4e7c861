"""The scheduled run: a flow that Prefect starts when its time has come, and nobody watches.

A worker imports it by its name, so it takes plain values and reads the config itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from feature_store.catalog import VIEWS
from kgrec.chain.context import Run
from kgrec.config import LoadedConfig, load_config
from kgrec.errors import KgrecError, WorkspaceBusyError
from kgrec.notify import Happening, notify
from kgrec.schedule import ScheduleConfig
from kgrec.serving.pruning import prune
from kgrec.serving.retention import RetentionConfig
from kgrec.stages import RunResult
from kgrec.workspace import Workspace
from pipelines.train import run_flow

FLOW = "kgrec-retrain"
REFUSED = "Refused"

logger = logging.getLogger(__name__)


@flow(name=FLOW, persist_result=False)
def retrain(config: str, workspace: str, overrides: list[str]) -> State[Any]:
    """Run the whole chain of a config; the state says what came of it: Completed, Refused by the gate, or Failed.

    Failure and refusal are told to [notify]. What is unchanged is reused, so a run without news ends in seconds.
    """
    try:
        loaded = load_config(config, overrides)
    except KgrecError as fault:
        return Failed(message=str(fault))  # without a config nobody is known who could be told
    return retrain_loaded(loaded, Workspace(workspace))


def retrain_loaded(loaded: LoadedConfig, place: Workspace) -> State[Any]:
    """Run the chain as a flow within this one, tell who wants to know, and return the state that it ends in."""
    config, name = loaded.config, loaded.config.name
    try:
        with hold_patiently(place, f"scheduled run of {Path(loaded.source).name}", config.schedule):
            result: RunResult = run_flow(Run(loaded, place, VIEWS), schedule=config.schedule)
            if config.retention.automatic:
                _tidy(config.retention, place)
    except KgrecError as fault:
        what = fault.for_others(examples=config.privacy.user_ids)
        notify(config.notify, Happening.FAILURE, name, f"{name}: the run failed: {what}", {})
        return Failed(message=what)
    except Exception as fault:
        what = f"{type(fault).__name__}" + (f": {fault}" if config.privacy.user_ids else "; the worker's log says more")
        notify(config.notify, Happening.FAILURE, name, f"{name}: the run failed: {what}", {})
        raise
    verdict, version = result.released.verdict, result.released.version
    if verdict.passed:
        return Completed(message=f"version {version}" + (" is promoted" if result.released.promoted else ""))
    text = f"{name}: the gate refused version {version}: {'; '.join(verdict.failures)}"
    notify(config.notify, Happening.REFUSAL, name, text, {"version": version, "reasons": list(verdict.reasons)})
    return Completed(name=REFUSED, message=text)


def _tidy(policy: RetentionConfig, place: Workspace) -> None:
    """Remove what may go; a fault of it is logged and takes nothing from the run, which is done."""
    try:
        gone = prune(place, policy, now=datetime.now(UTC))
        logger.info("retention: %d versions, %d artifacts removed", len(gone.versions), len(gone.artifacts))
    except (KgrecError, OSError) as fault:
        logger.warning("retention removed nothing more: %s", fault)


@contextmanager
def hold_patiently(place: Workspace, purpose: str, schedule: ScheduleConfig) -> Iterator[None]:
    """Hold the workspace; while somebody else does, try again as often as the schedule says."""
    waits: Sequence[float] = schedule.waits
    for attempt in range(len(waits) + 1):
        held = place.hold(purpose)
        try:
            held.__enter__()
        except WorkspaceBusyError:
            if attempt == len(waits):
                raise
            time.sleep(waits[attempt])
            continue
        break
    try:
        yield
    finally:
        held.__exit__(None, None, None)
