"""The baselines, tuned on validation before anything else: their settings serve the comparison and the linear block."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kgrec import columns as c
from kgrec.artifacts import Artifact, write_atomically
from kgrec.chain.context import Run, StageProgress
from kgrec.chain.prepare import EVENTS
from kgrec.chain.questions import Judge
from kgrec.config import RunConfig, TaskName
from kgrec.evaluation.baselines import BASELINES, LeftOutError, Tuned, fit, tune
from kgrec.evaluation.baselines import Scorer as BaselineScorer
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.protocol import RankingQuestion
from kgrec.evaluation.ranking import EvaluationConfig, Target

TUNED: Final = "tuned.json"
TARGET_ALONE: Final = "target"
ANY: Final = "any"


def tune_baselines(run: Run, log: Artifact) -> Artifact | None:
    """Choose each baseline's setting on validation; None where there is nothing to rank."""
    config = run.config
    if not log.has(EVENTS):
        return None

    def make(out: Path) -> dict[str, Any]:
        question = Judge(config.evaluation, log, None, None, (TaskName.CLICK,)).question(c.VALIDATION)
        found: dict[str, Any] = {}
        for done, name in enumerate(BASELINES):
            run.progress(StageProgress("baselines", name, done, len(BASELINES)))
            try:
                events, tuned = _tuned(name, question, config)
            except LeftOutError as reason:
                found[name] = {"left_out": str(reason)}
                continue
            found[name] = {"setting": dict(tuned.setting), "events": events, "tried": list(tuned.tried),
                           "validation": {"ranking": dict(tuned.validation)}}  # fmt: skip
        write_atomically(out / TUNED, (json.dumps(found, indent=1, sort_keys=True) + "\n").encode())
        return {}

    settings = {name: getattr(config, name).model_dump(mode="json") for name in ("evaluation", "baselines")}
    return run.stage("baselines", {"split": log.digest}, settings, make)


def read_tuned(tuned: Artifact) -> dict[str, dict[str, Any]]:
    """Return each baseline's setting, which events it learns from, its validation figures, or why it was left out."""
    found: dict[str, dict[str, Any]] = json.loads(tuned.file(TUNED).read_text())
    return found


def fitted(name: str, choice: Mapping[str, Any], question: RankingQuestion, config: RunConfig) -> BaselineScorer:
    """Return a baseline fitted with its chosen setting on what the (validation) question knows: the train part."""
    return fit(name, histories(config.evaluation, question)[choice["events"]], choice["setting"], config.baselines)


def histories(config: EvaluationConfig, question: RankingQuestion) -> dict[str, Pairs]:
    """Return what baselines may learn from: any event and, where that differs, the target event alone."""
    target = {TARGET_ALONE: question.target_history} if config.target is Target.CONVERSION else {}
    return {ANY: question.history} | target


def _tuned(name: str, question: RankingQuestion, config: RunConfig) -> tuple[str, Tuned]:
    """Return the variant (which events it learns from) and setting that is best on validation."""
    truth_UI = Pairs.of(
        question.users_B[question.truth.rows()], question.truth.indices,
        question.history.num_rows, question.history.num_columns,
    )  # fmt: skip
    ks = config.evaluation.k
    metric = f"ndcg@{ks[0]}"
    found = [
        (events, tune(name, train_UI, truth_UI, question.seen, ks=ks, metric=metric, config=config.baselines))
        for events, train_UI in histories(config.evaluation, question).items()
    ]
    return max(found, key=lambda one: one[1].validation[metric])
