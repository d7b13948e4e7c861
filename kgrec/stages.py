"""The story on a page: from raw files to a promoted version, one stage after the other.

Each stage takes and returns artifacts. Equal inputs give equal fingerprints, so a second run reuses what is there and
a changed key reruns only what depends on it. Prefect wraps the same stages as tasks by handing in its own `call`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from kgrec.allocator import keep_freed_memory
from kgrec.artifacts import Artifact
from kgrec.chain import judge, knowledge, prepare, starting
from kgrec.chain.candidate import Made
from kgrec.chain.context import Run, StageProgress, no_progress, peak_rss_mb
from kgrec.chain.details import read_details
from kgrec.chain.refit import Refit, refit
from kgrec.chain.release import Released, read_figures, release
from kgrec.config import load_config
from kgrec.features.declarations import Declaration
from kgrec.interpreter import at_work
from kgrec.tracking import load_ahead
from kgrec.workspace import Workspace

T = TypeVar("T")
STAGES = ("ingest", "split", "features", "graph", "baselines", "train", "refit", "evaluate", "index", "promote")


@dataclass(frozen=True)
class RunResult:
    """What a run gave; `as_dict` is what `kgrec run --json` prints."""

    released: Released
    metrics: dict[str, Any]
    baselines: dict[str, Any]
    details: dict[str, Any]
    stages: dict[str, Any]
    peak_rss_mb: float
    workspace: Path

    def as_dict(self) -> dict[str, Any]:
        """Return the result in the shape of the public contract; what does not apply is absent."""
        version = {"version": self.released.version} if self.released.version else {}
        return {
            "run_id": self.released.run_id,
            **version,
            "promoted": self.released.promoted,
            "gate": {"passed": self.released.verdict.passed, "reasons": list(self.released.verdict.reasons)},
            "metrics": self.metrics,
            "baselines": self.baselines,
            "evaluation": self.details,
            "stages": self.stages,
            "peak_rss_mb": self.peak_rss_mb,
            "report": str(self.released.report),
        }


def call_directly(name: str, stage: Callable[..., T], *arguments: Any) -> T:
    """Call a stage in this process, with nothing around it."""
    return stage(*arguments)


def run_chain(
    context: Run, call: Callable[..., Any] = call_directly, until: str = STAGES[-1]
) -> RunResult | Artifact | None:
    """Go through the stages up to `until` and return the result, or the last stage's artifact where it ends earlier.

    call: how a stage is called, (name, function, *arguments) -> result; flows hand in their own.
    """
    keep_freed_memory()
    if until == STAGES[-1]:
        context.promotes = True
    with at_work():
        return _through_stages(context, call, until)


def _through_stages(context: Run, call: Callable[..., Any], until: str) -> RunResult | Artifact | None:
    context.workspace.store.sweep()
    ingested: Artifact = call("ingest", prepare.ingest, context)
    if until == "ingest":
        return ingested
    log: Artifact = call("split", prepare.split, context, ingested)
    has_log = log.has(prepare.EVENTS)
    if until == "split":
        return log
    features: Artifact | None = None
    if until in ("features", "graph") and has_log:  # a whole run makes them later, beside the baselines
        features = call("features", prepare.features, context, ingested, log)
    if until == "features":
        return features
    graph: Artifact = call("graph", knowledge.graph, context, ingested, log)
    if until == "graph":
        return graph
    with starting.settled_ahead(context, ingested, log, graph) as settled:
        features = call("features", prepare.features, context, ingested, log) if has_log else None
        if context.promotes:  # from now on: this thread waits for the baselines, and has held the interpreter till here
            context.builds_ahead(load_ahead)
        tuned: Artifact | None = call("baselines", settled)
    trained: Artifact = call("train", starting.learn_from_start, context, ingested, log, features, graph, tuned)
    if until == "train":
        return trained
    again: Refit | None = None
    if context.config.training.refit:
        again = call("refit", refit, context, ingested, log, features, graph, tuned, trained)
        if until == "refit":
            return trained if again is None else again.trained
    parts = (context, ingested, log, features, graph, tuned, trained, again)
    evaluated: Artifact = call("evaluate", judge.evaluate, *parts)
    if until == "evaluate":
        return evaluated
    index: Artifact | None = call("index", judge.index, context, log, trained, again) if has_log else None
    if until == "index":
        return index
    made = Made(ingested, log, features, graph, trained, evaluated, index, again)
    return _result(context, evaluated, call("promote", release, context, made))


def _result(context: Run, evaluated: Artifact, released: Released) -> RunResult:
    metrics, baselines = read_figures(evaluated)
    stages = {name: asdict(context.reports[name]) for name in STAGES if name in context.reports}
    peak = max([peak_rss_mb(), *(report.peak_rss_mb for report in context.reports.values())])
    return RunResult(released, metrics, baselines, read_details(evaluated), stages, peak, context.workspace.root)


def run(
    config: str | Path,
    workspace: str | Path = "workspace",
    *,
    overrides: Sequence[str] = (),
    views: Sequence[Declaration] = (),
    progress: Callable[[StageProgress], None] = no_progress,
) -> RunResult:
    """Run the whole chain on a config file, without Prefect, and return its result.

    overrides: "key=value" with dotted keys. views: declared features (the command passes those of `feature_store`).
    Raises InputError with every problem of config and data, WorkspaceBusyError when another process holds the
    workspace. A refusal by the gate is no error here: see `result.released`.
    """
    loaded = load_config(config, overrides)
    place = Workspace(workspace)
    with place.hold("kgrec.run"):
        result = run_chain(Run(loaded, place, views, progress))
    if not isinstance(result, RunResult):
        raise TypeError("the chain ended before its last stage")
    return result
