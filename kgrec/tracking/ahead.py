"""What MLflow loads when a run is logged, loaded while the run still computes: four hundred modules, about a second."""

from __future__ import annotations

import importlib
import logging
from functools import cache
from threading import Thread
from typing import Final

from kgrec.tracking.stores import names_server

_OF_A_DATABASE: Final = (
    "mlflow.store.tracking.sqlalchemy_workspace_store", "mlflow.store.model_registry.sqlalchemy_workspace_store",
)  # fmt: skip
_OF_A_MODEL: Final = (
    "mlflow.pyfunc.model", "mlflow.pyfunc.loaders", "mlflow.models.rag_signatures", "mlflow.tracing.processor.otel",
    "git",
)  # fmt: skip

logger = logging.getLogger(__name__)


def load_ahead() -> Thread:
    """Start to load what logging a run takes, in a thread; return it. A second call starts nothing.

    Whoever needs a module before it is there waits for it, as for any import.
    """
    return _loading((() if names_server() else _OF_A_DATABASE) + _OF_A_MODEL)


@cache
def _loading(names: tuple[str, ...]) -> Thread:
    thread = Thread(target=_load, args=(names,), name="kgrec-loads-ahead", daemon=True)
    thread.start()
    return thread


def _load(names: tuple[str, ...]) -> None:
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as fault:  # not there, or elsewhere in another version: loaded in its time
            logger.debug("%s is not loaded ahead: %s", name, fault)
