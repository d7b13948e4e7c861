"""kgrec: from an interaction log and an item knowledge graph to a tested, promoted, explainable recommender.

>>> import kgrec
>>> sorted(kgrec.__all__)
['compare', 'evaluate', 'load', 'read_features', 'run']

`import kgrec` is quick: torch, faiss and mlflow load when a name is first used.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kgrec.chain.comparison import compare
    from kgrec.evaluation.tables import evaluate_tables as evaluate
    from kgrec.features.of_runs import read_features
    from kgrec.serving.recommend import load
    from kgrec.stages import run

# Before torch is loaded: threads that wait asleep. Waiting in a spin costs eight times the time as soon as another
# process wants the cores, and gains nothing measurable on idle ones (docs/decisions/0008). What the user set stands.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
__all__ = ["compare", "evaluate", "load", "read_features", "run"]

_HOMES = {
    "compare": ("kgrec.chain.comparison", "compare"),
    "evaluate": ("kgrec.evaluation.tables", "evaluate_tables"),
    "load": ("kgrec.serving.recommend", "load"),
    "read_features": ("kgrec.features.of_runs", "read_features"),
    "run": ("kgrec.stages", "run"),
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'kgrec' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value
