"""Evaluation of the trained network beside the baselines, and the index over its item vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor

from kgrec import columns as c
from kgrec.artifacts import Artifact, write_atomically
from kgrec.chain.alarms import names_read
from kgrec.chain.answers import MODEL, Answers, per_user
from kgrec.chain.champion import ask_ahead
from kgrec.chain.context import Run, StageProgress
from kgrec.chain.details import DETAILS, Looked, details_of
from kgrec.chain.importance import IMPORTANCE, importance_of_features
from kgrec.chain.increments import is_increment
from kgrec.chain.learn import chosen_tasks, load_network
from kgrec.chain.prepare import EVENTS, catalogue_mask
from kgrec.chain.questions import Judge
from kgrec.chain.refit import Refit
from kgrec.chain.smaller import SMALLER, as_served, cost_of_smaller
from kgrec.chain.tuning import Teacher, best_baseline, histories, read_tuned
from kgrec.config import RunConfig
from kgrec.data.vocabulary import Vocabulary
from kgrec.evaluation.baseline_roles import LeftOutError
from kgrec.evaluation.baseline_roles import Scorer as BaselineScorer
from kgrec.evaluation.baselines import BASELINES, evenly
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.protocol import Scorer, answer, judge_ranking
from kgrec.serving.index import build_index
from kgrec.serving.package import ITEMS, VECTORS
from kgrec.serving.smaller import Precision
from kgrec.training.reproducible import beside

METRICS: Final = "metrics.json"
PER_USER: Final = "per_user.parquet"
PER_ROW: Final = "per_row.parquet"
PER_TRIPLE: Final = "per_triple.parquet"
BASELINE_FILE: Final = "baselines.json"
QUERIES: Final = 2000
"""Users by whom an index that is not exact is tuned and judged."""


def evaluate(
    run: Run, ingested: Artifact, log: Artifact, features: Artifact | None, graph: Artifact, tuned: Artifact | None,
    trained: Artifact, again: Refit | None = None,
) -> Artifact:  # fmt: skip
    """Judge the network and the baselines on validation and, once, on test.

    again: what learned from train and validation together; it and baselines fitted alike answer on test. Of an
    increment only what the gate asks for: its baselines; no links, no permutation of features, no details.
    """
    config, short = run.config, is_increment(trained)
    tasks = chosen_tasks(run, ingested)
    inputs = {"split": log.digest, "graph": graph.digest, "train": trained.digest}
    inputs |= {"features": features.digest} if features is not None else {}
    inputs |= {"baselines": tuned.digest} if tuned is not None else {}
    inputs |= {"refit": again.trained.digest} if again is not None else {}

    def make(out: Path) -> dict[str, Any]:
        if run.promotes and log.has(EVENTS):
            ask_ahead(run, log)
        precision = config.serving.precision
        network, vectors = as_served(*load_network(trained), precision)
        links = None if short else graph
        judge = Judge(config.evaluation, log, features, links, tasks)
        learned, served = (log, trained) if again is None else (again.log, again.trained)
        last = judge if again is None else Judge(config.evaluation, learned, features, links, tasks)
        with beside("kgrec-answers-validation") as thread:
            first = thread.submit(judge.answers, network, vectors, c.VALIDATION)
            on_test = last.answers(*as_served(*load_network(served), precision), c.TEST)
        answers = {c.VALIDATION: first.result(), c.TEST: on_test}
        baselines: dict[str, Any] = {}
        lists: dict[str, Tensor] = {}
        if tuned is not None and judge.asks_ranking:
            choices = read_tuned(tuned)
            if short:
                asked = _asked_by_the_gate(choices, config)
                choices = {name: one for name, one in choices.items() if name in asked}
            baselines, lists = _baselines(run, last, Teacher(config, learned, graph, choices))
        _write_json(out / METRICS, {part: found.figures() for part, found in answers.items()})
        _write_json(out / BASELINE_FILE, baselines)
        _keep_units(out, answers[c.TEST], lists)
        found: dict[str, Any] = {}
        if features is not None and not short:
            found = importance_of_features(judge, network, vectors, features, config.seed)
            _write_json(out / IMPORTANCE, found)
        if not short:
            looked = Looked(run, log, graph, answers[c.TEST], lists)
            _write_json(out / DETAILS, details_of(looked, features, found.get("tells_all", {})))
        facts: dict[str, Any] = {"tasks": [task.value for task in tasks]}
        if precision is not Precision.FULL:
            whole = judge.answers(*load_network(trained), c.VALIDATION)
            facts[SMALLER] = cost_of_smaller(whole.figures(), answers[c.VALIDATION].figures(), config.gate.metric)
        if judge.asks_ranking:
            facts["already_seen_and_left_out_of_truth"] = last.question(c.TEST).truth_already_seen
        return facts

    settings = {
        "evaluation": config.evaluation.model_dump(mode="json"),
        "baselines": config.baselines.model_dump(mode="json"),
        "tasks": [task.value for task in tasks],
        "names": names_read(config),
        "split": config.split.kind,
        "seed": config.seed,
        "precision": config.serving.precision.value,
        **({"metric": config.gate.metric} if config.serving.precision is not Precision.FULL else {}),
    } | ({"gate.baselines": config.gate.baselines} if short else {})
    return run.stage("evaluate", inputs, settings, make)


def _asked_by_the_gate(tuned: Mapping[str, Mapping[str, Any]], config: RunConfig) -> set[str]:
    """Return the baselines that an increment is compared with: as [gate] names them, else popularity and the best."""
    if config.gate.baselines is not None:
        return set(config.gate.baselines)
    best = best_baseline(tuned, tuned, f"ndcg@{config.evaluation.k[0]}")
    return {"popularity"} | ({best} if best is not None else set())


def _keep_units(out: Path, test: Answers, baseline_lists: Mapping[str, Tensor]) -> None:
    """Write the test figures by user, labelled row and triple: what a comparison in pairs needs."""
    if test.question is not None and test.top_BK is not None:
        systems = {MODEL: test.top_BK, **baseline_lists}
        per_user(systems, test.question, test.config.k).write_parquet(out / PER_USER)
    for name, frame in ((PER_ROW, test.per_row()), (PER_TRIPLE, test.per_triple())):
        if frame.height:
            frame.write_parquet(out / name)


def _baselines(run: Run, judge: Judge, teacher: Teacher) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return each baseline's setting and figures, or why it was left out; and the test lists of those that ran."""
    config = run.config
    test = judge.question(c.TEST)
    found: dict[str, Any] = {}
    lists: dict[str, Tensor] = {}
    for done, (name, choice) in enumerate(teacher.tuned.items()):
        run.progress(StageProgress("evaluate", f"baseline {name}", done, len(BASELINES)))
        if "left_out" in choice:
            found[name] = dict(choice)
            continue
        history_UI = histories(config.evaluation, test)[choice["events"]]
        try:
            scorer = _from_histories(teacher.fitted(name), history_UI)
        except LeftOutError as reason:  # chosen on an earlier log, it cannot run on this one
            found[name] = {"left_out": str(reason)}
            continue
        lists[name] = answer(test, scorer, max(config.evaluation.k))
        found[name] = dict(choice) | {"test": judge_ranking(test, lists[name], config.evaluation)}
    return found, lists


def _from_histories(scorer: BaselineScorer, history_UI: Pairs) -> Scorer:
    return lambda rows_B: scorer(history_UI.take(rows_B))


def index(run: Run, log: Artifact, trained: Artifact, again: Refit | None = None) -> Artifact:
    """Build the nearest-neighbour index over the catalogue, bound to its vocabulary and to the model that is served."""
    served, precision = trained if again is None else again.trained, run.config.serving.precision

    def make(out: Path) -> dict[str, Any]:
        _, vectors = as_served(*load_network(served), precision)
        rows_I = np.flatnonzero(catalogue_mask(log)).astype(np.int64)
        queries_QD = evenly(asked_users(vectors["user_vectors_UD"]), QUERIES).numpy()
        facts = build_index(vectors["item_vectors_ID"].numpy()[rows_I], rows_I, out, run.config.index, queries_QD)
        vocabulary = Vocabulary.load(log.file(ITEMS)).digest
        return facts | {"bound_to": {"item vocabulary": vocabulary, "model": served.files[VECTORS]}}

    settings = run.config.index.model_dump(mode="json", exclude={"threads", "memory_map"})
    settings |= {"precision": precision.value}
    return run.stage("index", {"split": log.digest, "train": served.digest}, settings, make)


def asked_users(users_UD: Tensor) -> Tensor:
    """Return the vectors of users of whom something is known, in order."""
    return users_UD[users_UD.abs().sum(1) > 0]


def _write_json(path: Path, value: object) -> None:
    write_atomically(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())
