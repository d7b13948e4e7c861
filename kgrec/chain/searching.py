"""`kgrec search`: settings chosen on validation; the test part is never looked at."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from kgrec.artifacts import Artifact, fingerprint
from kgrec.chain.context import Run, StageProgress, no_progress
from kgrec.chain.learn import HISTORY
from kgrec.config import LoadedConfig, RunConfig, load_config
from kgrec.errors import DivergedError, InputError, Problem, nearest
from kgrec.features.declarations import Declaration
from kgrec.stages import run_chain
from kgrec.training.search import Trial, search
from kgrec.training.search_space import Axis, Value
from kgrec.workspace import Workspace

_SECTIONS: Final = ("model", "training", "losses", "blocks", "features")
_OBJECTIVE: Final = "validation/objective"


def search_settings(context: Run, trials: int | None = None) -> dict[str, Any]:
    """Try settings of the config's space, and return what came of it, as `kgrec search --json` prints it.

    trials: in all; None: as the config says. The study belongs to the config (without the number of trials) and to
    the data's content, so that another call goes on with it. InputError names keys that the space may not hold and
    values that the config refuses.
    """
    config, context = context.config, replace(context, loaded=_fixed(context.loaded))
    space = config.search.space
    _check(context.loaded, space)
    log, graph = run_chain(context, until="split"), run_chain(context, until="graph")
    data = {"split": log.digest if isinstance(log, Artifact) else "", "graph": _artifact(graph).digest}
    settings = config.model_dump(mode="json", exclude={"search": {"trials"}})
    study = fingerprint({"config": settings, "data": data})[:16]
    metric = f"ndcg@{config.evaluation.k[0]}"
    own = validation_figure(_artifact(run_chain(context, until="train")), metric)

    def judge(number: int, tried: Mapping[str, Value]) -> float:
        told = ", ".join(f"{key.rpartition('.')[2]} {_short(value)}" for key, value in tried.items())
        context.progress(StageProgress("search", f"trial {number + 1}: {told}", number))
        run = replace(context, loaded=with_settings(context.loaded, tried), reports={})
        try:
            return validation_figure(_artifact(run_chain(run, until="train")), metric)
        except DivergedError as error:
            raise FloatingPointError(str(error).splitlines()[0]) from error

    journal = context.workspace.searches / f"{config.name}-{study}.journal"
    tried = search(space, trials or config.search.trials, config.seed, journal, judge)
    return _told(config, metric, own, tried, journal)


def search_config(
    config: str | Path,
    workspace: str | Path = "workspace",
    *,
    trials: int | None = None,
    overrides: Sequence[str] = (),
    views: Sequence[Declaration] = (),
    progress: Callable[[StageProgress], None] = no_progress,
) -> dict[str, Any]:
    """Search over a config file's space; what `kgrec search --json` prints.

    Raises InputError with every problem of config, space and data, WorkspaceBusyError when another process holds the
    workspace.
    """
    loaded, place = load_config(config, overrides), Workspace(workspace)
    with place.hold(f"kgrec search {config}"):
        return search_settings(Run(loaded, place, views, progress), trials)


def validation_figure(trained: Artifact, metric: str) -> float:
    """Return what validation says of a training: of what is served where it ranks, else the best objective."""
    served = trained.facts["blocks"].get(f"validation_{metric}")
    if served is not None:
        return float(served)
    history = json.loads(trained.file(HISTORY).read_text())
    return float(max(epoch[_OBJECTIVE] for epoch in history if _OBJECTIVE in epoch))


def with_settings(loaded: LoadedConfig, settings: Mapping[str, Value]) -> LoadedConfig:
    """Return the config with other values under dotted keys. Raises pydantic's ValidationError for what it refuses."""
    raw = loaded.config.model_dump(mode="python", by_alias=True, exclude_unset=True)
    for key, value in settings.items():
        *path, last = key.split(".")
        table = raw
        for part in path:
            table = table.setdefault(part, {})
        table[last] = value
    return replace(loaded, config=RunConfig.model_validate(raw))


def _fixed(loaded: LoadedConfig) -> LoadedConfig:
    """Return the config as a search trains it: in full each time, and without a second fit."""
    fixed: dict[str, Value] = {"training.start": "scratch", "training.refit": False}
    return with_settings(loaded, fixed)


def _check(loaded: LoadedConfig, space: Mapping[str, Axis]) -> None:
    problems = []
    for key, axis in space.items():
        where = f"{loaded.source}: search.space.{key}"
        if key.partition(".")[0] not in _SECTIONS:
            remedy = f"search in [{'], ['.join(_SECTIONS)}]: what is asked of the model is no setting of it"
            problems.append(Problem(where, "is not searched", remedy))
            continue
        for value in axis.values_at_the_border():
            try:
                with_settings(loaded, {key: value})
            except ValidationError as error:
                fault = error.errors()[0]
                known = _keys_of(key)
                guess = nearest(key, known) if fault["type"] == "extra_forbidden" else None
                remedy = f"did you mean {guess}?" if guess else "correct the axis (see docs/configuration.md)"
                what = "unknown key" if fault["type"] == "extra_forbidden" else str(fault["msg"])
                problems.append(Problem(where, what[:1].lower() + what[1:], remedy, example=repr(value)))
                break
    if problems:
        raise InputError(problems)


def _keys_of(key: str) -> list[str]:
    section = key.partition(".")[0]
    field = RunConfig.model_fields[section].annotation
    return [f"{section}.{name}" for name in getattr(field, "model_fields", {})]


def _artifact(made: object) -> Artifact:
    if not isinstance(made, Artifact):
        raise TypeError("the chain ended before the stage that was asked for")
    return made


def _told(config: RunConfig, metric: str, own: float, tried: Sequence[Trial], journal: Path) -> dict[str, Any]:
    judged = [trial for trial in tried if trial.value is not None]
    best = max(judged, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)
    lines = [] if best is None else [f"{key}={json.dumps(value)}" for key, value in best.settings.items()]
    better = best is not None and best.value is not None and best.value > own
    return {
        "name": config.name,
        "metric": f"validation {metric}",
        "own": own,
        "best": None if best is None else {"trial": best.number, "value": best.value, "settings": dict(best.settings)},
        "better_than_own": better,
        "set": lines if better else [],
        "trials": [
            {"trial": one.number, "value": one.value, "settings": dict(one.settings)}
            | ({"fault": one.fault} if one.fault else {})
            for one in tried
        ],
        "study": str(journal),
    }


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
