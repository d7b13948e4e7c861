"""Evaluation of the trained network beside the baselines, and the index over its item vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from kgrec import columns as c
from kgrec.artifacts import Artifact, write_atomically
from kgrec.chain.context import Run, StageProgress
from kgrec.chain.learn import chosen_tasks, load_network
from kgrec.chain.prepare import catalogue_mask
from kgrec.chain.questions import Judge
from kgrec.config import RunConfig
from kgrec.data.vocabulary import Vocabulary
from kgrec.evaluation.baselines import BASELINES, LeftOutError, Tuned, tune
from kgrec.evaluation.baselines import Scorer as BaselineScorer
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.protocol import RankingQuestion, Scorer, answer, judge_ranking
from kgrec.evaluation.ranking import EvaluationConfig, Target
from kgrec.serving.index import build_index
from kgrec.serving.package import ITEMS, VECTORS

METRICS: Final = "metrics.json"
BASELINE_FILE: Final = "baselines.json"


def evaluate(
    run: Run, ingested: Artifact, log: Artifact, features: Artifact | None, graph: Artifact, trained: Artifact
) -> Artifact:
    """Judge the network and the baselines on validation and, once, on test."""
    config = run.config
    tasks = chosen_tasks(run, ingested)
    inputs = {"split": log.digest, "graph": graph.digest, "train": trained.digest}
    inputs |= {"features": features.digest} if features is not None else {}

    def make(out: Path) -> dict[str, Any]:
        network, vectors = load_network(trained)
        judge = Judge(config.evaluation, log, features, graph, tasks)
        figures = {part: judge.evaluate(network, vectors, part) for part in (c.VALIDATION, c.TEST)}
        baselines = _baselines(run, judge) if judge.asks_ranking else {}
        _write_json(out / METRICS, figures)
        _write_json(out / BASELINE_FILE, baselines)
        facts: dict[str, Any] = {"tasks": [task.value for task in tasks]}
        if judge.asks_ranking:
            facts["already_seen_and_left_out_of_truth"] = judge.question(c.TEST).truth_already_seen
        return facts

    settings = {
        "evaluation": config.evaluation.model_dump(mode="json"),
        "baselines": config.baselines.model_dump(mode="json"),
        "tasks": [task.value for task in tasks],
    }
    return run.stage("evaluate", inputs, settings, make)


def _baselines(run: Run, judge: Judge) -> dict[str, Any]:
    """Return each baseline's chosen setting and figures, or why it was left out."""
    config = run.config.evaluation
    validation, test = judge.question(c.VALIDATION), judge.question(c.TEST)
    matrices, test_histories = _histories(config, validation), _histories(config, test)
    found: dict[str, Any] = {}
    for done, name in enumerate(BASELINES):
        run.progress(StageProgress("evaluate", f"baseline {name}", done, len(BASELINES)))
        try:
            events, tuned = _tuned(name, matrices, validation, run.config)
        except LeftOutError as reason:
            found[name] = {"left_out": str(reason)}
            continue
        top_BK = answer(test, _from_histories(tuned.scorer, test_histories[events]), max(config.k))
        setting = dict(tuned.setting) | ({"events": events} if len(matrices) > 1 else {})
        found[name] = {"setting": setting, "validation": {"ranking": dict(tuned.validation)},
                       "test": judge_ranking(test, top_BK, config), "tried": list(tuned.tried)}  # fmt: skip
    return found


def _from_histories(scorer: BaselineScorer, history_UI: Pairs) -> Scorer:
    return lambda rows_B: scorer(history_UI.take(rows_B))


def _histories(config: EvaluationConfig, question: RankingQuestion) -> dict[str, Pairs]:
    """Return what baselines may learn from: any event and, where that differs, the target event alone."""
    target = {"target": question.target_history} if config.target is Target.CONVERSION else {}
    return {"any": question.history} | target


def _tuned(name: str, matrices: Mapping[str, Pairs], question: RankingQuestion, config: RunConfig) -> tuple[str, Tuned]:
    """Return the variant (which events it learns from) and setting that is best on validation."""
    truth_UI = Pairs.of(
        question.users_B[question.truth.rows()], question.truth.indices,
        question.history.num_rows, question.history.num_columns,
    )  # fmt: skip
    ks = config.evaluation.k
    metric = f"ndcg@{ks[0]}"
    found = [
        (events, tune(name, train_UI, truth_UI, question.seen, ks=ks, metric=metric, config=config.baselines))
        for events, train_UI in matrices.items()
    ]
    return max(found, key=lambda one: one[1].validation[metric])


def index(run: Run, log: Artifact, trained: Artifact) -> Artifact:
    """Build the nearest-neighbour index over the catalogue, bound to its vocabulary and model."""

    def make(out: Path) -> dict[str, Any]:
        _, vectors = load_network(trained)
        rows_I = np.flatnonzero(catalogue_mask(log)).astype(np.int64)
        facts = build_index(vectors["item_vectors_ID"].numpy()[rows_I], rows_I, out)
        vocabulary = Vocabulary.load(log.file(ITEMS)).digest
        return facts | {"bound_to": {"item vocabulary": vocabulary, "model": trained.files[VECTORS]}}

    return run.stage("index", {"split": log.digest, "train": trained.digest}, {}, make)


def _write_json(path: Path, value: object) -> None:
    write_atomically(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())
