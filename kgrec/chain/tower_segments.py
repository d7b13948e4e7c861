"""The towers' figures by segment: users by what they did before and by declared column, items by how known they are.

Axes: N labelled rows of the test part, U users, I items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.answers import Predictions
from kgrec.chain.encoded import LABELLED, USER_FEATURES
from kgrec.evaluation.classification import classification_metrics
from kgrec.evaluation.protocol import RankingQuestion
from kgrec.evaluation.segments import DetailsConfig, by_history, by_value, tail_items

_KINDS: Final = ("popular", "long tail", "cold (never in train)")


def tower_segments(
    log: Artifact, question: RankingQuestion, predictions: Mapping[str, Predictions], config: DetailsConfig
) -> list[dict[str, Any]]:
    """Return a line per label, segment and group: its classification figures on the test rows of the group.

    A label whose rows are not told apart (neither all test rows nor the clicked ones) is left out.
    """
    rows = pl.read_parquet(log.file(LABELLED)).filter(pl.col(c.PART) == c.TEST)
    clicked = rows.filter(c.CLICK) if c.CLICK in rows.columns else rows
    lines = []
    for label, one in predictions.items():
        asked = next((frame for frame in (rows, clicked) if frame.height == len(one.label_N)), None)
        if asked is None or asked.is_empty():
            continue
        for segment, group_N in _groups(log, question, asked, config).items():
            for group in sorted(set(group_N.tolist())):
                inside = group_N == group
                figures = classification_metrics(one.probability_N[inside], one.label_N[inside])
                lines.append({"label": label, "segment": segment, "group": group, "figures": figures})
    return lines


def _groups(
    log: Artifact, question: RankingQuestion, rows: pl.DataFrame, config: DetailsConfig
) -> dict[str, npt.NDArray[np.object_]]:
    """Return each row's group by segment."""
    user_N, item_N = (rows[name].to_numpy().astype(np.int64) for name in (c.USER_ROW, c.ITEM_ROW))
    history = question.history
    found = {"items before": _named(by_history(history.counts()[user_N].numpy(), config.new_user_events))}
    if config.user_columns:
        table = rows.select(c.USER_ROW).join(
            pl.read_parquet(log.file(USER_FEATURES)), on=c.USER_ROW, how="left", maintain_order="left"
        )
        found |= {name: _named(by_value(table[name].to_list())) for name in config.user_columns}
    counts_I = torch.bincount(history.indices, minlength=history.num_columns)
    tail_I = tail_items(counts_I, question.candidates_I, config.tail_share)
    kind_I = (tail_I | question.cold_I).long() + question.cold_I.long()
    found["items"] = _named([_KINDS[kind] for kind in kind_I[item_N].tolist()])
    return found


def _named(labels_N: Sequence[str]) -> npt.NDArray[np.object_]:
    return np.asarray(labels_N, dtype=np.object_)
