"""What the report says besides the headline: lists beyond accuracy, segments, fairness, debiased figures, alarms.

Everything is of the test part and is told alone: nothing is chosen by it. Axes: B users asked, K places, I items.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from torch import Tensor

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.alarms import alarms_of
from kgrec.chain.answers import MODEL, Answers
from kgrec.chain.context import Run
from kgrec.chain.encoded import LABELLED, USER_FEATURES
from kgrec.chain.groups import ItemGroups, NotThereError
from kgrec.chain.tower_segments import tower_segments
from kgrec.evaluation.beyond_accuracy import as_background, beyond_accuracy, node_vectors
from kgrec.evaluation.classification import classification_metrics, reliability_table
from kgrec.evaluation.debiased import debiased_metrics, propensities
from kgrec.evaluation.fairness import group_gaps, provider_exposure
from kgrec.evaluation.link_prediction import relation_metrics
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.protocol import RankingQuestion
from kgrec.evaluation.ranking import metrics_per_user
from kgrec.evaluation.segments import by_history, by_value, segment_lines, tail_items
from kgrec.seeds import numpy_generator

DETAILS: Final = "details.json"
_PROVIDERS_SHOWN: Final = 8


@dataclass(frozen=True)
class Looked:
    """What the details are made of: the run, its log and graph, the test answers and every system's test lists."""

    run: Run
    log: Artifact
    graph: Artifact
    test: Answers
    lists: Mapping[str, Tensor]

    @cached_property
    def groups(self) -> ItemGroups:
        """Which node, taste or provider each item belongs to."""
        return ItemGroups(self.log, self.graph)


def details_of(looked: Looked, features: Artifact | None, telling: Mapping[str, float]) -> dict[str, Any]:
    """Return every detail by section; what does not apply is absent. telling: features that tell a label, with AUC."""
    found: dict[str, Any] = {
        "alarms": [asdict(a) for a in alarms_of(looked.run, looked.log, looked.graph, features, telling)]
    }
    reliability = {
        group: reliability_table(one.probability_N, one.label_N)
        for group, one in looked.test.predictions.items()
        if len(one.label_N)
    }
    found |= {"reliability": reliability} if reliability else {}
    found |= _at_random(looked) | _by_relation(looked)
    question = looked.test.question
    if question is not None and looked.test.predictions:
        config = looked.run.config.evaluation.details
        found["tower_segments"] = tower_segments(looked.log, question, looked.test.predictions, config)
    if question is None or looked.test.top_BK is None or not len(question.users_B):
        return found
    systems = {MODEL: looked.test.top_BK, **looked.lists}
    left_out: dict[str, str] = {}
    found["beyond_accuracy"] = _beyond(looked, question, systems, left_out)
    found["debiased"] = _debiased(looked, question, systems)
    columns = _user_columns(looked, question)
    found["segments"] = _segments(looked, question, systems, columns)
    found["fairness"] = _fairness(looked, question, systems, columns, left_out)
    return found | ({"left_out": left_out} if left_out else {})


def read_details(evaluated: Artifact) -> dict[str, Any]:
    """Return what `details_of` found; empty where there is none."""
    found: dict[str, Any] = json.loads(evaluated.file(DETAILS).read_text()) if evaluated.has(DETAILS) else {}
    return found


def _beyond(
    looked: Looked, question: RankingQuestion, systems: Mapping[str, Tensor], left_out: dict[str, str]
) -> dict[str, dict[str, float]]:
    matrices: dict[str, Any] = {}
    nodes_IE = looked.groups.nodes()
    if nodes_IE.nnz:
        matrices["unit_IE"] = node_vectors(nodes_IE)
    genres = looked.run.config.evaluation.details.genres
    if genres is not None:
        try:
            matrices["taste_IE"] = looked.groups.of(genres)[0]
        except NotThereError as reason:
            left_out["miscalibration"] = str(reason)
    background = as_background(
        question.history, question.users_B, question.candidates_I, matrices, looked.lists.get("popularity")
    )
    length = looked.run.config.evaluation.k[0]
    return {
        system: {
            name: value
            for name, value in beyond_accuracy(top_BK, question.truth, length, background).items()
            if not (system == "popularity" and name.startswith("serendipity"))
        }
        for system, top_BK in systems.items()
    }


def _debiased(looked: Looked, question: RankingQuestion, systems: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    config = looked.run.config.evaluation
    counts_I = torch.bincount(question.history.indices, minlength=question.history.num_columns)
    chance_I = propensities(counts_I, config.details.propensity_power, config.details.least_propensity)
    return {name: debiased_metrics(top_BK, question.truth, config.k[0], chance_I) for name, top_BK in systems.items()}


def _user_columns(looked: Looked, question: RankingQuestion) -> dict[str, list[str]]:
    """Return each declared column's group of every asked user."""
    wanted = looked.run.config.evaluation.details.user_columns
    if not wanted:
        return {}
    table = pl.read_parquet(looked.log.file(USER_FEATURES))
    asked = pl.DataFrame({c.USER_ROW: pl.Series(question.users_B.numpy(), dtype=c.ROW_TYPE)})
    joined = asked.join(table, on=c.USER_ROW, how="left", maintain_order="left")
    return {name: by_value(joined[name].to_list()) for name in wanted}


def _segments(
    looked: Looked, question: RankingQuestion, systems: Mapping[str, Tensor], columns: Mapping[str, list[str]]
) -> list[dict[str, Any]]:
    config = looked.run.config.evaluation
    generator = numpy_generator(looked.run.config.seed, "segments")

    def values(truth: Pairs) -> tuple[torch.Tensor, dict[str, dict[str, Any]]]:
        found, rows = {}, torch.zeros(0, dtype=torch.int64)
        for system, top_BK in systems.items():
            measured = metrics_per_user(top_BK, truth, config.k[:1])
            rows = torch.as_tensor(measured[c.ROW].astype(np.int64))
            found[system] = {name: column for name, column in measured.items() if name != c.ROW}
        return rows, found

    _, whole = values(question.truth)
    had_B = question.history.counts()[question.users_B].numpy()
    named = {"items before": by_history(had_B, config.details.new_user_events), **columns}
    lines = [line for name, labels in named.items() for line in segment_lines(name, labels, whole, MODEL, generator)]
    counts_I = torch.bincount(question.history.indices, minlength=question.history.num_columns)
    tail_I = tail_items(counts_I, question.candidates_I, config.details.tail_share)
    kinds = {"popular": ~tail_I, "long tail": tail_I & ~question.cold_I, "cold (never in train)": question.cold_I}
    for group, mask_I in kinds.items():
        rows, found = values(question.truth.only_columns(mask_I))
        if len(rows):
            lines += segment_lines("relevant items", [group] * len(rows), found, MODEL, generator)
    return lines


def _fairness(
    looked: Looked, question: RankingQuestion, systems: Mapping[str, Tensor], columns: Mapping[str, list[str]],
    left_out: dict[str, str],
) -> dict[str, Any]:  # fmt: skip
    config = looked.run.config.evaluation
    metric = f"ndcg@{config.k[0]}"
    values_B = metrics_per_user(systems[MODEL], question.truth, config.k[:1])[metric]
    generator = numpy_generator(looked.run.config.seed, "fairness")
    found: dict[str, Any] = {"metric": metric, "users": group_gaps(values_B, columns, generator)}
    if config.details.provider is None:
        return found
    try:
        provider_IP, names = looked.groups.of(config.details.provider)
    except NotThereError as reason:
        return found | {"left_out": left_out.setdefault("fairness of providers", str(reason))}
    length = config.k[0]
    exposed = {
        system: provider_exposure(top_BK[:, :length], question.truth, provider_IP, question.candidates_I)
        for system, top_BK in systems.items()
    }
    found["providers"] = {system: figures for system, (figures, _) in exposed.items()}
    shares = exposed[MODEL][1]
    if shares:
        largest = np.argsort(-shares["catalogue"], kind="stable")[:_PROVIDERS_SHOWN]
        found["largest_providers"] = [
            {"provider": names[at]} | {name: float(share[at]) for name, share in shares.items()} for at in largest
        ]
    return found


def _by_relation(looked: Looked) -> dict[str, Any]:
    """Return the figures of held-out links for each relation, the one with most of them first."""
    ranks_T2, triples_T3 = looked.test.ranks_T2, looked.test.triples_T3
    if ranks_T2 is None or triples_T3 is None or not len(ranks_T2):
        return {}
    table = pl.read_parquet(looked.graph.file("relations.parquet")).select(c.RELATION_ROW, pl.coalesce(c.NAME, c.ID))
    names = dict(table.iter_rows())
    figures = relation_metrics(ranks_T2, triples_T3[:, 1])
    lines = [{"relation": names.get(row) or f"relation {row}", **found} for row, found in figures.items()]
    return {"links": sorted(lines, key=lambda line: -line["num_triples"])}


def _at_random(looked: Looked) -> dict[str, Any]:
    """Return the towers' figures on the test rows that were shown at random, where a column says which."""
    if not looked.log.has(LABELLED) or c.RANDOM not in pl.read_parquet_schema(looked.log.file(LABELLED)):
        return {}
    rows = pl.read_parquet(looked.log.file(LABELLED)).filter(pl.col(c.PART) == c.TEST)
    flags = rows[c.RANDOM].to_numpy()
    clicked = rows.filter(c.CLICK)[c.RANDOM].to_numpy() if c.CLICK in rows.columns else flags
    figures = {}
    for group, one in looked.test.predictions.items():
        random_N = flags if len(one.label_N) == len(flags) else clicked
        if len(random_N) == len(one.label_N) and random_N.any():
            figures[group] = classification_metrics(one.probability_N[random_N], one.label_N[random_N])
    return {"random_exposure": figures} if figures else {}
