"""kgrec: from an interaction log and an item knowledge graph to a tested, promoted, explainable recommender.

>>> import kgrec
>>> sorted(kgrec.__all__)
['evaluate', 'load', 'run']

`import kgrec` is quick: torch, faiss and mlflow load when a name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kgrec.evaluation.tables import evaluate_tables as evaluate
    from kgrec.serving.recommend import load
    from kgrec.stages import run

__version__ = "0.1.0"
__all__ = ["evaluate", "load", "run"]

_HOMES = {
    "evaluate": ("kgrec.evaluation.tables", "evaluate_tables"),
    "load": ("kgrec.serving.recommend", "load"),
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
