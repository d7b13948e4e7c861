"""From artifacts to the tensors of training: positives, edges, triples, labelled rows with their features.

Axes: N labelled rows, P positives, T triples, X edges, I items.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
import torch
from torch import Tensor

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.encoded import CATEGORICAL, LABELLED, NUMERIC
from kgrec.chain.prepare import EVENTS
from kgrec.config import TaskName
from kgrec.evaluation.ranking import Target
from kgrec.model.conversion import CONVERSIONS, TowerLossConfig
from kgrec.model.embeddings import Head, NetworkShape
from kgrec.model.propagation import GraphEdges
from kgrec.row_files import RowFile
from kgrec.training.exposures import Exposures
from kgrec.training.mapped_rows import MappedRows
from kgrec.training.order import MANY_ROWS
from kgrec.training.tasks import Positives, TrainingData

UNKNOWN: Final = -1


def training_data(
    log: Artifact, features: Artifact | None, graph: Artifact, tasks: tuple[TaskName, ...], target: Target,
    off_target_weight: float,
) -> TrainingData:  # fmt: skip
    """Return the tensors of the train part: positives, edges, triples, and the labelled rows with their features."""
    triples = pl.read_parquet(graph.file("triples.parquet")).filter(pl.col(c.PART) == c.TRAIN)
    head_tail_X2 = _rows(triples, c.HEAD_ROW, c.TAIL_ROW)
    triples_T3 = _rows(triples, c.HEAD_ROW, c.RELATION_ROW, c.TAIL_ROW)
    weight_X = torch.tensor(triples[c.WEIGHT].to_numpy()) if c.WEIGHT in triples.columns else torch.ones(triples.height)
    own_X = weight_X if bool((weight_X != 1).any()) else None
    with_graph = TaskName.KG in tasks and len(triples_T3) > 0
    if not log.has(EVENTS):
        edges = GraphEdges(torch.zeros(0, 2, dtype=torch.int64), head_tail_X2, own_X)
        return TrainingData(edges, triples_T3=triples_T3 if with_graph else None)
    events = pl.read_parquet(log.file(EVENTS)).filter(pl.col(c.PART) == c.TRAIN)
    edges = GraphEdges(_rows(events, c.USER_ROW, c.ITEM_ROW), head_tail_X2, own_X)
    trainable_I = torch.zeros(int(log.facts["items"]), dtype=torch.bool)
    trainable_I[torch.tensor(events[c.ITEM_ROW].to_numpy(), dtype=torch.int64)] = True
    wanted = {TaskName.CLICK, TaskName.CONVERSION} & set(tasks)
    return TrainingData(
        edges=edges,
        positives=_positives(events, wanted, target, off_target_weight) if wanted else None,
        exposures=exposures(log, features, c.TRAIN, tasks) if features is not None else None,
        triples_T3=triples_T3 if with_graph else None,
        trainable_I=trainable_I,
    )


def held_out_data(
    log: Artifact, features: Artifact | None, graph: Artifact, tasks: tuple[TaskName, ...], target: Target,
    off_target_weight: float, trained: TrainingData,
) -> TrainingData:  # fmt: skip
    """Return the tensors of the validation part, as far as users and items were in train; without edges.

    For what is weighed on validation while training goes on. Any part of it may be absent.
    """
    triples = pl.read_parquet(graph.file("triples.parquet")).filter(pl.col(c.PART) == c.VALIDATION)
    triples_T3 = _rows(triples, c.HEAD_ROW, c.RELATION_ROW, c.TAIL_ROW) if trained.triples_T3 is not None else None
    if not log.has(EVENTS) or trained.trainable_I is None:
        return TrainingData(GraphEdges.empty(), triples_T3=triples_T3)
    events = pl.read_parquet(log.file(EVENTS)).filter(pl.col(c.PART) == c.VALIDATION)
    user_X, item_X = _rows(events, c.USER_ROW, c.ITEM_ROW).T
    known_X = users_of_train(log)[user_X] & trained.trainable_I[item_X]
    wanted = {TaskName.CLICK, TaskName.CONVERSION} & set(tasks)
    positives = _positives(events.filter(pl.Series(known_X.numpy())), wanted, target, off_target_weight)
    rows = exposures(log, features, c.VALIDATION, tasks) if features is not None else None
    return TrainingData(GraphEdges.empty(), positives if wanted else None, rows, triples_T3, trained.trainable_I)


def _positives(
    events: pl.DataFrame, wanted: set[TaskName], target: Target, off_target_weight: float
) -> Positives | None:
    """Return each distinct (user, item) once. Pairs without the target event weigh `off_target_weight`."""
    flags = [pl.col(task.value) for task in sorted(wanted)]
    on_target = pl.col(c.CONVERSION) if target is Target.CONVERSION else pl.lit(True)
    weight = pl.when(on_target.any()).then(1.0).otherwise(off_target_weight).cast(pl.Float32).alias("weight")
    pairs = (
        events.filter(pl.any_horizontal(flags)).group_by(c.USER_ROW, c.ITEM_ROW, maintain_order=True).agg(weight)
    )  # fmt: skip
    pairs = pairs.filter(pl.col("weight") > 0)
    user_item_P2 = _rows(pairs, c.USER_ROW, c.ITEM_ROW)
    return Positives(user_item_P2[:, 0], user_item_P2[:, 1], torch.tensor(pairs["weight"].to_numpy()))


def exposures(log: Artifact, features: Artifact, part: str, tasks: tuple[TaskName, ...]) -> Exposures | None:
    """Return the labelled rows of a part with their features, or None when no tower learns from them.

    A user without any train event has no trained vector, and is unknown to the towers in training as in serving. The
    features of many train rows stay in their files; their other columns then take ten bytes a row.
    """
    impressions = bool(log.facts["impressions"])
    labelled = pl.scan_parquet(log.file(LABELLED), glob=False)
    there = labelled.collect_schema().names()
    labels = [
        task.value
        for task in (TaskName.CLICK, TaskName.CONVERSION)
        if task in tasks and (impressions or task is TaskName.CONVERSION) and task.value in there
    ]
    if not labels:
        return None
    chosen = pl.col(c.PART) == part
    if impressions and c.CLICK in there and c.CLICK not in labels:  # conversion alone: on clicked rows
        chosen &= pl.col(c.CLICK)
        impressions = False
    chosen_N = labelled.select(chosen).collect(engine="streaming").to_series().to_numpy()
    rows = labelled.filter(chosen).select(c.USER_ROW, c.ITEM_ROW, *labels).collect(engine="streaming")
    files = (RowFile(features.file(name)) for name in (NUMERIC, CATEGORICAL))
    numeric_NF, categorical_NC = (MappedRows.where(file, chosen_N) for file in files)
    in_files = part == c.TRAIN and len(numeric_NF) > MANY_ROWS
    known = not any(rows[name].null_count() for name in labels)
    small, kind = (torch.int32, torch.uint8 if known else torch.float32) if in_files else (torch.int64, torch.float32)
    user_N, item_N = (torch.from_numpy(rows[name].to_numpy().copy()).to(small) for name in (c.USER_ROW, c.ITEM_ROW))
    user_N[~users_of_train(log)[user_N]] = UNKNOWN
    label_N = {name: torch.from_numpy(rows[name].cast(pl.Float32).to_numpy().copy()).to(kind) for name in labels}
    return Exposures(
        user_N, item_N, numeric_NF if in_files else numeric_NF.whole(),
        categorical_NC if in_files else categorical_NC.whole(), label_N.get(c.CLICK), label_N.get(c.CONVERSION),
        impressions,
    )  # fmt: skip


def users_of_train(log: Artifact) -> Tensor:
    """Return one flag per user row: whether the train part has an event of the user."""
    trained_U = torch.zeros(int(log.facts["users"]), dtype=torch.bool)
    events = pl.scan_parquet(log.file(EVENTS)).filter(pl.col(c.PART) == c.TRAIN).select(c.USER_ROW).unique().collect()
    trained_U[torch.tensor(events[c.USER_ROW].to_numpy(), dtype=torch.int64)] = True
    return trained_U


def network_shape(
    log: Artifact, features: Artifact | None, graph: Artifact, data: TrainingData, losses: TowerLossConfig
) -> NetworkShape:
    """Return the sizes of the tables, of which vocabularies decide, so rows of ids that are gone stay; and what towers
    the losses ask for.
    """
    heads: tuple[Head, ...] = data.exposures.heads if data.exposures is not None else ()
    return NetworkShape(
        num_users=int(log.facts["users"]),
        num_items=int(log.facts["items"]),
        num_entities=int(graph.facts["entities"]),
        num_relations=int(graph.facts["relations"]),
        num_numeric=int(features.facts["num_numeric"]) if features is not None and heads else 0,
        cardinalities=tuple(features.facts["cardinalities"]) if features is not None and heads else (),
        heads=heads,
        tower_parts=CONVERSIONS[losses.conversion].parts if len(heads) == 2 else (),
    )


def _rows(frame: pl.DataFrame, *names: str) -> Tensor:
    return torch.tensor(frame.select(names).to_numpy().astype(np.int64)).reshape(-1, len(names))
