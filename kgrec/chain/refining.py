"""The baselines' settings of an increment: the linear part of the score is climbed on, on the validation of today.

Axes: I items, X kept weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Final

from safetensors.numpy import load_file, save_file

from kgrec.artifacts import Artifact
from kgrec.chain.context import Run
from kgrec.chain.tuning import (
    FAR_BEHIND,
    LINEAR,
    Teacher,
    best_baseline,
    ranks_today,
    read_tuned,
    settings_of,
    told,
    write_tuned,
)
from kgrec.evaluation.baseline_roles import LeftOutError
from kgrec.evaluation.baselines import Earlier, key_of
from kgrec.evaluation.item_weights import ItemWeights, largest_of_each_row
from kgrec.serving.neighbours import compact, read_rows, stored_rows
from kgrec.training.reproducible import beside

FITTED: Final = "fitted.safetensors"
_FAR: Final = 0.95  # of the leader's figure: what was below it is not judged again until a full training
EARLIER: Final = "earlier"
"""What an increment keeps of settings tried on earlier logs, beside those it tried itself."""
BEST: Final = "best"
"""The figures of what was chosen on the day that an earlier setting was tried."""


def refine_baselines(run: Run, log: Artifact, graph: Artifact, before: Artifact) -> Artifact:
    """Return the settings of an earlier run, the leading linear one climbed on from there on new validation.

    That is two or three fits, where the whole grid is dozens: a neighbour that lost against the other side before is
    not tried again. The linear ones are judged where they stand, so that all figures that choose among them are of
    today, and the one that led before climbs on if it still leads. What was more than a twentieth behind the leader is
    out until a full training; the rest stands as it was, the kernel too: a day of events tells nothing about the
    graph's hubs. The weights of the best linear one, cut to what is served, are kept, so that training need not fit
    them again. The leader is judged beside the others, which have a thread of their own.
    """
    keep, metric = run.config.blocks.neighbour_weights, f"ndcg@{run.config.evaluation.k[0]}"

    def make(out: Path) -> dict[str, Any]:
        day = _Day(Teacher(run.config, log, graph, {}), read_tuned(before), metric, keep)
        day.choose()
        write_tuned(out, day.found)
        if day.kept:
            _save(out / FITTED, day.kept)
        return {}

    inputs = {"split": log.digest, "graph": graph.digest, "base": before.digest}
    return run.stage("baselines", inputs, settings_of(run) | {"neighbour_weights": keep}, make)


class _Day:
    """The settings as they are chosen today: what `read_tuned` returns as `found`, and the weights kept, by name."""

    def __init__(self, teacher: Teacher, choices: Mapping[str, Any], metric: str, keep: int) -> None:
        self.found, self.kept = dict(choices), dict[str, Any]()
        self._teacher, self._choices, self._metric, self._keep = teacher, choices, metric, keep
        self._best: tuple[tuple[float, int], ItemWeights] | None = None
        self._lock = Lock()

    def choose(self) -> None:
        """Judge and climb; what does not depend on the leader goes on beside it."""
        leader = best_baseline(self._choices, LINEAR, self._metric)
        if leader is None:
            return
        rivals = [name for name in LINEAR if name != leader and ranks_today(self._choices.get(name, {}))]
        others = [name for name in rivals if self._figure(name) >= _FAR * self._figure(leader)]
        far = [name for name in rivals if name not in others]
        self.found |= {name: dict(self._choices[name]) | {FAR_BEHIND: True} for name in far}
        for name in (leader, *others):
            self._teacher.known(self._choices[name]["events"])  # which both threads read
        with beside("kgrec-judges-baselines") as thread:
            standing = [thread.submit(self._judge_standing, name) for name in others]
            self._judge(leader, (), lambda figure: figure >= max((one.result() for one in standing), default=0.0))
            for one in standing:
                one.result()
            for name in () if best_baseline(self.found, LINEAR, self._metric) else far:
                self._judge_standing(name)  # whoever led before cannot run any more
            best = best_baseline(self.found, LINEAR, self._metric)
            if self._keep and best is not None and self._best is not None:
                cut = self._teacher.kept_per_row(self._keep)
                self.kept[best] = largest_of_each_row(self._best[1].matrix_II, cut)

    def _figure(self, name: str) -> float:
        return float(self._choices[name]["validation"]["ranking"].get(self._metric, 0.0))

    def _judge_standing(self, name: str) -> float:
        return self._judge(name, tuple(self._choices[name]["setting"]))

    def _judge(self, name: str, fixed: Sequence[str], worth: Callable[[float], bool] = lambda figure: True) -> float:
        """Climb on from where a baseline stands and return its metric; 0 where it cannot run today."""
        choice = self._choices[name]
        start = earlier(choice, self._metric, fixed, worth)
        try:
            events, tuned = self._teacher.tune(name, (choice["events"], start), keep=True)
        except LeftOutError as reason:
            self.found[name] = {"left_out": str(reason)}
            return 0.0
        self.found[name] = told(events, tuned) | {EARLIER: _not_tried_again(choice, tuned.tried)}
        figure = float(tuned.validation[self._metric])
        if isinstance(tuned.scorer, ItemWeights):
            rank = figure, -LINEAR.index(name)  # of equals the first, as `best_baseline` has it
            with self._lock:  # each is items x items: the best alone stays
                if self._best is None or rank > self._best[0]:
                    self._best = rank, tuned.scorer
        return figure


def earlier(
    choice: Mapping[str, Any], metric: str, fixed: Sequence[str], worth: Callable[[float], bool] = lambda figure: True
) -> Earlier:
    """Return from where a baseline's grid is climbed on, given what was kept of it.

    An earlier figure counts by how far it was behind the best of its own day: another day's users are easier or harder.
    """
    behind = {
        key_of(one["setting"]): float(one["validation"][metric]) - float(one[BEST][metric])
        for one in [*choice.get(EARLIER, []), *_with_best(choice)]
    }
    return Earlier(choice["setting"], behind, fixed, worth)


def _with_best(choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(one) | {BEST: choice["validation"]["ranking"]} for one in choice["tried"]]


def _not_tried_again(choice: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    again = {key_of(one["setting"]) for one in tried}
    latest = {key_of(one["setting"]): one for one in [*choice.get(EARLIER, []), *_with_best(choice)]}
    return [one for key, one in latest.items() if key not in again]


def _save(path: Path, kept: Mapping[str, Any]) -> None:
    arrays: dict[str, Any] = {}
    for name, weights_II in kept.items():
        arrays |= stored_rows(compact(weights_II), name)
    save_file(arrays, path)


def fitted_before(tuned: Artifact) -> dict[str, Any]:
    """Return the items x items weights that `refine_baselines` kept, by the baseline's name; none of a full tuning."""
    if not tuned.has(FITTED):
        return {}
    arrays = load_file(tuned.file(FITTED))
    return {name: read_rows(arrays, name) for name in LINEAR if f"{name}_values" in arrays}
