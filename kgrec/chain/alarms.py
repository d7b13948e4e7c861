"""The alarms of a run: its log, side tables, features and graph held against the signs of a leak."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.context import Run
from kgrec.chain.encoded import CATEGORICAL, EVENTS, ITEM_FEATURES, LABELLED, USER_FEATURES
from kgrec.config import RunConfig
from kgrec.data.split import SplitKind
from kgrec.evaluation.leaks import (
    Alarm,
    inverse_alarms,
    label_alarms,
    part_alarms,
    relation_alarms,
    statistic_alarms,
    telling_alarms,
    telling_categories,
    twin_alarms,
)


def alarms_of(
    run: Run, log: Artifact, graph: Artifact, features: Artifact | None, telling: Mapping[str, float]
) -> list[Alarm]:
    """Return every alarm that goes off; telling: numeric features that order a label by themselves, with the AUC."""
    found = relation_alarms(graph.facts.get("relations_that_restate_the_log", {}))
    found += inverse_alarms(
        graph.facts.get("inverse_pairs_across_parts", 0), graph.facts.get("inverse_pairs_by_relation", {})
    )
    if not log.has(EVENTS):
        return found
    events = pl.read_parquet(log.file(EVENTS))
    found += part_alarms(events, by_time=run.config.split.kind is not SplitKind.RANDOM)
    found += twin_alarms(events)
    for file, key in ((USER_FEATURES, c.USER_ROW), (ITEM_FEATURES, c.ITEM_ROW)):
        found += statistic_alarms(pl.read_parquet(log.file(file)), key, events)
    found += label_alarms(*names_read(run.config))
    if features is not None:
        telling = {**telling, **_telling_categories(log, features)}
    return found + telling_alarms(telling)


def names_read(config: RunConfig) -> tuple[list[str], list[str]]:
    """Return the columns of the log that are features, and those that say what happened."""
    log = config.interactions
    if log is None:
        return [], []
    labels = {log.columns.value, log.columns.event, *((log.labels.click, log.labels.conversion) if log.labels else ())}
    return list(log.context), sorted(name for name in labels if name is not None)


def _telling_categories(log: Artifact, features: Artifact) -> dict[str, float]:
    labelled = pl.read_parquet(log.file(LABELLED))
    parts = labelled[c.PART].cast(pl.String).to_numpy()
    labels: dict[str, Any] = {
        name: labelled[name].to_numpy().astype(np.float64)
        for name in (c.CLICK, c.CONVERSION)
        if name in labelled.columns
    }
    codes_NC = np.load(features.file(CATEGORICAL), mmap_mode="r", allow_pickle=False)
    names = features.facts["categorical"]
    return telling_categories(codes_NC, names, labels, parts == c.TRAIN, parts == c.VALIDATION)
