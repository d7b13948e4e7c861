"""Defaults for a run whose only task is the knowledge graph, chosen by its size.

The joint defaults are made for a log with a graph beside it: few wide steps, sampled negatives, a small lambda. Link
prediction alone wants the recipe of Lacroix et al. (ICML 2018): 1-vs-all softmax, Adagrad, N3, many small steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

_BATCH: Final = 1000
_STEPS: Final = 12_000
_EPOCHS: Final = (40, 300)
_SCORES: Final = 50_000_000_000  # of one epoch, all entities: some minutes of one core


def graph_alone_defaults(num_entities: int, num_triples: int) -> dict[str, dict[str, Any]]:
    """Return values of [model], [training] and [losses] for a graph of this size; keys that a config sets stand.

    Against all entities while an epoch's scores stay below 5 * 10^10, sampled beyond. Small graphs get more epochs.

    >>> [graph_alone_defaults(*size)["training"]["epochs"] for size in ((14_541, 272_115), (135, 5216))]
    [40, 300]
    """
    steps = max(1, -(-2 * num_triples // _BATCH))
    all_fit = 2 * num_triples * num_entities <= _SCORES
    return {
        "model": {"dimensions": 200, "spread": 0.001},
        "training": {
            "optimiser": "adagrad",
            "learning_rate": 0.1,
            "kg_weight": 1.0,
            "batch_size": _BATCH,
            "epoch_steps": steps,
            "epochs": min(max(-(-_STEPS // steps), _EPOCHS[0]), _EPOCHS[1]),
            "patience": 4,
        },
        "losses": {
            "n3": 0.05,
            "relation_weight": 1.0,
            "link_precision": "auto",
            "full_softmax_entities": num_entities if all_fit else 0,
            "sampled_entities": 1024,
        },
    }


def filled(section: BaseModel, values: Mapping[str, Any]) -> BaseModel:
    """Return the section with these values in the fields that nobody set."""
    unset = {name: value for name, value in values.items() if name not in section.model_fields_set}
    return section.model_copy(update=unset)
