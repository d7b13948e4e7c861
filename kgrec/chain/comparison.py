"""The same config under several arms and seeds, on one split with one set of features: what each change is worth.

Every arm and seed is a `train` and an `evaluate` like any other, so a comparison that was killed goes on where it
stopped, and the first seed of `full` is the run that `kgrec run` made. Nothing is promoted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from kgrec.artifacts import Artifact, fingerprint
from kgrec.chain import judge, knowledge, learn, prepare, tuning
from kgrec.chain.arms import Arm, check_arms, graph_of, read_arms
from kgrec.chain.compared import compared, cuts_of
from kgrec.chain.context import Run, StageProgress, no_progress
from kgrec.chain.learn import chosen_tasks
from kgrec.chain.release import flat_figures, read_figures
from kgrec.config import TaskName, load_config
from kgrec.evaluation.compare_report import write_comparison
from kgrec.features.declarations import Declaration, node_views, split_declarations
from kgrec.graph.controls import GraphControl
from kgrec.tracking import RunRecord, Tracking
from kgrec.workspace import Workspace

Call = Callable[..., Any]
REPORT: Final = "report.html"


@dataclass(frozen=True)
class Shared:
    """What all arms and seeds have in common."""

    ingested: Artifact
    log: Artifact
    features: Artifact | None
    graph: Artifact
    tuned: Artifact | None


def call_directly(name: str, stage: Callable[..., Any], *arguments: Any) -> Any:
    """Call a step in this process, with nothing around it."""
    return stage(*arguments)


def compare_arms(context: Run, arms: Sequence[Arm], seeds: int, call: Call = call_directly) -> dict[str, Any]:
    """Train and judge every arm with every seed, and return the comparison in the shape of the README.

    The seeds are those that follow the config's. call: how a step is called, (name, function, *arguments) -> result.
    """
    context.workspace.store.sweep()
    shared = _shared(context, call)
    learned = chosen_tasks(context, shared.ingested)
    check_arms(arms, learned, has_graph=bool(shared.graph.facts.get("triples")))
    numbers = [context.config.seed + at for at in range(seeds)]
    made: dict[str, list[Artifact]] = {arm.name: [] for arm in arms}
    for seed in numbers:
        for arm in arms:
            first = arm is arms[0] and seed == numbers[0]
            made[arm.name].append(_one(context, arm, seed, learned, shared, call, with_baselines=first))
    cuts = cuts_of(shared.log, shared.graph)
    answer = call("compare", compared, context.config, arms, learned, numbers, made, cuts)
    whole: dict[str, Any] = call("report", _told, context, answer, made, shared)
    return whole


def compare(
    config: str | Path,
    workspace: str | Path = "workspace",
    *,
    arms: str | Sequence[str] = ("full", "kg_off", "kg_shuffled"),
    seeds: int = 3,
    overrides: Sequence[str] = (),
    views: Sequence[Declaration] = (),
    progress: Callable[[StageProgress], None] = no_progress,
) -> dict[str, Any]:
    """Compare a config with itself under controls, without Prefect; what `kgrec compare --json` prints.

    arms: names, the reference first, such as "full", "kg_off", "click_only", "balancing=fixed". Raises InputError with
    every problem of config, arms and data, WorkspaceBusyError when another process holds the workspace.
    """
    loaded = load_config(config, overrides)
    chosen = read_arms(arms if isinstance(arms, str) else ",".join(arms), seeds, loaded.config)
    place = Workspace(workspace)
    with place.hold("kgrec.compare"):
        return compare_arms(Run(loaded, place, views, progress), chosen, seeds)


def _shared(context: Run, call: Call) -> Shared:
    ingested: Artifact = call("ingest", prepare.ingest, context)
    log: Artifact = call("split", prepare.split, context, ingested)
    has_log = log.has(prepare.EVENTS)
    features = call("features", prepare.features, context, ingested, log) if has_log else None
    graph: Artifact = call("graph", knowledge.graph, context, ingested, log)
    return Shared(ingested, log, features, graph, call("baselines", tuning.tune_baselines, context, log, graph))


def _one(
    context: Run, arm: Arm, seed: int, learned: Sequence[TaskName], shared: Shared, call: Call, *, with_baselines: bool
) -> Artifact:
    """Return the evaluation of an arm and seed."""
    label = f"{arm.name}, seed {seed}"

    def tell(progress: StageProgress) -> None:
        context.progress(replace(progress, stage=label, text=f"{progress.stage} {progress.text}"))

    run = Run(arm.loaded(context.loaded, learned, seed), context.workspace, context.views, tell)
    log, graph, features = shared.log, graph_of(run, arm, shared.graph), features_of(run, arm, shared)
    tuned = shared.tuned  # blocks are built from tuned baselines, and one of those reads the graph
    if arm.graph is not GraphControl.AS_IS:
        tuned = call(f"baselines {label}", tuning.tune_baselines, run, log, graph)
    trained = call(f"train {label}", learn.learn, run, shared.ingested, log, features, graph, tuned)
    asked = tuned if with_baselines else None
    evaluated: Artifact = call(
        f"evaluate {label}", judge.evaluate, run, shared.ingested, log, features, graph, asked, trained
    )
    return evaluated


def features_of(run: Run, arm: Arm, shared: Shared) -> Artifact | None:
    """Return the features that an arm reads: those of all arms, or made anew where views read a graph under control."""
    over_graph = bool(node_views(run.views)) or any(view.graph_key for view in split_declarations(run.views)[0])
    if shared.features is None or arm.graph is GraphControl.AS_IS or not over_graph:
        return shared.features
    return prepare.features(run, graph_of(run, arm, shared.ingested), shared.log)


def _told(
    context: Run, answer: dict[str, Any], made: Mapping[str, Sequence[Artifact]], shared: Shared
) -> dict[str, Any]:
    """Write the report and MLflow's runs, a parent and a child for every arm and seed; return the whole answer."""
    evaluations = {name: [one.digest for one in found] for name, found in made.items()}
    key = fingerprint({"compare": evaluations, "name": context.config.name, "seeds": answer["seeds"]})
    tracking = Tracking(context.workspace)
    run_id = tracking.open_run(key, context.config.name, label="compare")
    folder = context.workspace.reports / "compare" / run_id
    shown = context.workspace.shown / (folder / REPORT).relative_to(context.workspace.root)
    whole = {"run_id": run_id, **answer, "report": str(shown)}
    write_comparison(folder / REPORT, whole)
    config = context.config
    profile = {"split": shared.log.facts.get("split")}
    record = RunRecord(
        key, config.name, {"arms": list(made), "seeds": answer["seeds"], "config": config.model_dump(mode="json")},
        dict(flat_figures(_means({name: arm["test"] for name, arm in answer["arms"].items()}))), [],
        config.name, shared.ingested.digest, profile, {"kgrec.compare": "parent"},
    )  # fmt: skip
    for name, found in made.items():
        for seed, evaluated in zip(answer["seeds"], found, strict=True):
            child_key = fingerprint({"parent": key, "arm": name, "seed": seed})
            child = tracking.open_run(child_key, context.config.name, label=f"{name}-{seed}", parent=run_id)
            params = {"arm": name, "seed": seed, "tasks": answer["arms"][name]["tasks"]}
            metrics = dict(flat_figures(read_figures(evaluated)[0]))
            tags = {"kgrec.arm": name}
            tracking.log_run(child, replace(record, key=child_key, params=params, metrics=metrics, tags=tags))
            tracking.finish(child)
    tracking.log_run(run_id, record, folder)
    tracking.finish(run_id)
    return whole


def _means(levels: Mapping[str, Any]) -> dict[str, Any]:
    """Return arm -> group -> metric -> mean."""
    return {
        arm: {
            group: {metric: found["mean"] for metric, found in figures.items() if isinstance(found, Mapping)}
            for group, figures in groups.items()
        }
        for arm, groups in levels.items()
    }
