"""Search over declared settings: a Tree-structured Parzen Estimator by `optuna` (the extra `search`), resumable.

Reference: Bergstra et al., NeurIPS 2011. The study is a journal file: a trial that was killed is asked again, and the
suggestions of a trial depend on the seed, its number and what was told before, so that an interrupted search goes on as
if it had not been.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kgrec.errors import InputError, Problem
from kgrec.seeds import derive_seed
from kgrec.training.search_space import Axis, Value, rounded

try:
    import optuna
    from optuna.storages.journal import JournalFileBackend
except ImportError:  # the extra is not installed; `search` says so
    optuna = None  # type: ignore[assignment]

_FAULT: Final = "fault"


@dataclass(frozen=True)
class Trial:
    """One trial: its number from 0, its settings, and validation's figure or what went wrong."""

    number: int
    settings: Mapping[str, Value]
    value: float | None
    fault: str | None = None


def search(
    space: Mapping[str, Axis], trials: int, seed: int, journal: Path, judge: Callable[[int, Mapping[str, Value]], float]
) -> list[Trial]:
    """Ask and judge until the study in `journal` has so many trials, and return all of them, by number.

    judge: the number of a trial and its settings -> validation's figure, larger is better; a FloatingPointError is a
    trial that failed, anything else ends the search. InputError without the package optuna.
    """
    if optuna is None:
        raise InputError(Problem("kgrec search", "needs the package optuna", 'pip install "kgrec[search]"'))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
        study = optuna.create_study(storage=storage, study_name="kgrec", direction="maximize", load_if_exists=True)
    state = optuna.trial.TrialState
    killed = [trial for trial in study.trials if trial.state == state.RUNNING]
    for trial in killed:
        study.tell(trial.number, state=state.FAIL)
        study.enqueue_trial(trial.params)
    while len(done := _judged(study.trials)) < trials:
        study.sampler = optuna.samplers.TPESampler(
            seed=derive_seed(seed, "search", len(done)) % 2**32, n_startup_trials=5
        )
        asked = study.ask()
        settings = {name: axis.suggest(asked, name) for name, axis in space.items()}
        try:
            study.tell(asked, judge(len(done), settings))
        except FloatingPointError as error:
            asked.set_user_attr(_FAULT, str(error))
            study.tell(asked, state=state.FAIL)
    return [
        Trial(at, {name: rounded(value) for name, value in one.params.items()}, one.value, one.user_attrs.get(_FAULT))
        for at, one in enumerate(done)
    ]


def _judged(trials: list[Any]) -> list[Any]:
    """Return the trials that have a figure or a fault, in order; one that was killed has neither."""
    return [trial for trial in trials if trial.value is not None or _FAULT in trial.user_attrs]
