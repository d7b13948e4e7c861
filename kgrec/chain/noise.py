"""What `[knowledge.noise]` asks for, in its order: pruning, confidence, degree caps, hub damping."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from kgrec import columns as c
from kgrec.graph.confidence import triple_confidence
from kgrec.graph.noise import NoiseConfig, cap_degrees, damp_hubs, weigh, without_relations
from kgrec.graph.pruning import relation_gains
from kgrec.seeds import numpy_generator


def calm(
    triples: pl.DataFrame, config: NoiseConfig, events: pl.DataFrame | None, num_items: int, seed: int
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Return the triples with the noise taken out or weighed down, and facts about it.

    Pruning and confidence read the log: pruning its validation part, confidence its train part.
    """
    facts: dict[str, Any] = {}
    if config.prune and events is not None:
        gains = relation_gains(triples, events, num_items, numpy_generator(seed, "prune"))
        triples = without_relations(triples, [gain.relation_row for gain in gains if gain.pruned])
        facts["relation_gains"] = [vars(gain) for gain in gains]
    if config.confidence and triples.height:
        confidence = _confidence(triples, events, num_items, seed)
        triples = weigh(triples, confidence)
        facts["confidence"] = {"mean": float(confidence.mean()), "below_half": int((confidence < 0.5).sum())}
    if config.max_degree is not None:
        capped = cap_degrees(triples, num_items, config.max_degree, numpy_generator(seed, "cap"))
        facts["triples_beyond_the_cap"] = triples.height - capped.height
        triples = capped
    if config.hub_damping:
        triples = damp_hubs(triples, num_items, config.hub_damping)
    return triples, facts


def _confidence(
    triples: pl.DataFrame, events: pl.DataFrame | None, num_items: int, seed: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """One a triple; those outside train are left at 1."""
    train = (triples[c.PART] == c.TRAIN).to_numpy()
    rows = triples.select(c.HEAD_ROW, c.RELATION_ROW, c.TAIL_ROW).to_numpy().astype(np.int64)
    num_nodes = max(int(rows[:, [0, 2]].max()) + 1, num_items)
    item_users = None
    if events is not None:
        had = events.filter(pl.col(c.PART) == c.TRAIN).select(c.ITEM_ROW, c.USER_ROW).unique(maintain_order=True)
        size = (num_items, int(had[c.USER_ROW].max() or 0) + 1)  # type: ignore[arg-type]
        item_users = csr_array((np.ones(had.height), (had[c.ITEM_ROW].to_numpy(), had[c.USER_ROW].to_numpy())), size)
    confidence = np.ones(len(rows))
    generator = numpy_generator(seed, "confidence")
    confidence[train] = triple_confidence(rows[train], num_nodes, item_users, generator)
    return confidence
