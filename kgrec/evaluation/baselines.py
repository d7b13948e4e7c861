"""Baselines that every report shows beside the model, tuned on validation: the floor a model has to leave behind.

Shapes: U users, I items, B lists; train_UI and history_BI are sparse yes/no matrices (`Pairs`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from kgrec.evaluation.als import Ials
from kgrec.evaluation.baseline_roles import Baseline, BaselinesConfig, Known, LeftOutError, Scorer, Setting
from kgrec.evaluation.collaborative import Ease, ItemKnn, LinearFilter
from kgrec.evaluation.graph_kernel import GraphKernel
from kgrec.evaluation.item_weights import yes_no_matrix
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.ranking import ranking_metrics, top_k


class Popularity:
    """The items with the most training users, the same for everybody; where there is time, perhaps of late alone.

    A user counts 2 ** (-days since the last event with the item / half-life); half-life 0 counts all alike.
    """

    def __init__(self, known: Known, config: BaselinesConfig) -> None:
        self._known, self._config = known, config

    def settings(self) -> list[Setting]:
        """Return the half-lives; without time the one that counts all alike."""
        half_lives = self._config.half_lives if self._known.age_N is not None else (0.0,)
        return [{"half_life_days": half_life} for half_life in half_lives]

    def fit(self, setting: Setting) -> Scorer:
        """Return the scorer."""
        counts_I = recent_counts(self._known, setting["half_life_days"])
        return lambda history_BI: counts_I.expand(history_BI.num_rows, -1)


class SeenThenPopular:
    """What the user had before and may have again, the most popular first; then what is most popular."""

    def __init__(self, known: Known, config: BaselinesConfig) -> None:
        if not known.repeats:
            raise LeftOutError("seen_then_popular: what a user had before is no candidate here (exclude_seen)")
        self._counts_I = recent_counts(known, 0.0)

    def settings(self) -> list[Setting]:
        """Return the one empty setting."""
        return [{}]

    def fit(self, setting: Setting) -> Scorer:
        """Return the scorer."""
        above = float(self._counts_I.max()) + 1.0 if len(self._counts_I) else 1.0

        def score(history_BI: Pairs) -> Tensor:
            return torch.from_numpy(yes_no_matrix(history_BI).toarray()).float() * above + self._counts_I

        return score


def recent_counts(known: Known, half_life_days: float) -> Tensor:
    """Return how many users had each item in train, (I,), an old event counting less; half-life 0: all alike."""
    train_UI = known.train_UI
    if not half_life_days or known.age_N is None:
        return torch.bincount(train_UI.indices, minlength=train_UI.num_columns).to(torch.float32)
    weight_N = torch.exp2(-known.age_N.double() / half_life_days)
    return torch.zeros(train_UI.num_columns, dtype=torch.float64).index_add_(0, train_UI.indices, weight_N).float()


BASELINES: Final[Mapping[str, Callable[[Known, BaselinesConfig], Baseline]]] = {
    "popularity": Popularity,
    "seen_then_popular": SeenThenPopular,
    "item_knn": ItemKnn,
    "linear_filter": LinearFilter,
    "graph_kernel": GraphKernel,
    "ease": Ease,
    "ials": Ials,
}
"""The registry: name in reports -> what makes the baseline from what it may know."""


@dataclass(frozen=True)
class Tuned:
    """What tuning chose, by validation alone. tried: every setting with its validation metrics, in order of trial.

    scorer: fitted with the chosen setting, where it was asked for.
    """

    name: str
    setting: Setting
    validation: Mapping[str, float]
    tried: tuple[Mapping[str, Any], ...]
    scorer: Scorer | None = None


@dataclass(frozen=True)
class Earlier:
    """Where tuning goes on: a setting chosen on an earlier log, and what was tried there, by `key_of`.

    figures: how far the metric of each was behind that of the best of its day, at most 0.
    fixed: axes along which nothing is tried. worth: asked with the metric of the setting itself, whether to climb on
    from there. A start that is no setting of the grid is ignored.
    """

    setting: Setting
    figures: Mapping[tuple[float, ...], float] = field(default_factory=dict)
    fixed: Collection[str] = ()
    worth: Callable[[float], bool] = lambda figure: True

    def passed_over(self, settings: Sequence[Setting]) -> list[Setting]:
        """Return what is not tried again: other values of fixed axes, and neighbours that lost against the other side.

        A neighbour without an earlier figure has not lost.
        """
        found = [one for one in settings if any(one[name] != self.setting[name] for name in self.fixed)]
        for name, values in axes_of(settings).items():
            place = values.index(self.setting[name])
            sides = [dict(self.setting) | {name: values[n]} for n in (place - 1, place + 1) if 0 <= n < len(values)]
            known = [self.figures.get(key_of(side), math.inf) for side in sides]
            if len(sides) == 2 and max(known) < math.inf:
                found.append(sides[0] if known[0] < known[1] else sides[1])
        return found


def fit(name: str, known: Known, setting: Setting, config: BaselinesConfig | None = None) -> Scorer:
    """Return the named baseline fitted with one setting. LeftOutError when it cannot run on this data."""
    return BASELINES[name](known, config or BaselinesConfig()).fit(setting)


def tune(
    name: str,
    known: Known,
    validation_UI: Pairs,
    seen_UI: Pairs,
    *,
    ks: tuple[int, ...] = (10,),
    metric: str = "ndcg@10",
    config: BaselinesConfig | None = None,
    start: Earlier | None = None,
    keep: bool = False,
) -> Tuned:
    """Return the setting of the named baseline to which climbing its grid on validation leads (see `climb`).

    start: from where to climb and what not to try again; the grid's middle by default. keep: return the scorer too,
    which takes its memory while others are fitted.
    known: what is fitted and each user's history. validation_UI: relevant items. seen_UI: no candidates (at
    validation). No test data comes near this. LeftOutError when the baseline cannot run on this data.
    """
    config = config or BaselinesConfig()
    baseline = BASELINES[name](known, config)
    users = evenly(validation_UI.counts().nonzero()[:, 0], config.tuning_users)
    if not len(users):
        raise LeftOutError(f"{name} is chosen on validation, and no user has anything relevant there")
    settings = baseline.settings()
    if not settings:
        raise LeftOutError(f"{name} has no setting to try")
    start = start if start is not None and start.setting in settings else None
    passed_over = start.passed_over(settings) if start else []
    tried: dict[tuple[float, ...], tuple[Setting, Mapping[str, float]]] = {}
    best: tuple[float, Scorer] | None = None

    def quality(setting: Setting) -> float:
        nonlocal best
        key = key_of(setting)
        if key not in tried:
            if setting in passed_over:
                return -math.inf
            scorer = baseline.fit(setting)
            tried[key] = setting, judge(scorer, users, known.train_UI, validation_UI, seen_UI, ks)
            if keep and (best is None or tried[key][1][metric] > best[0]):
                best = tried[key][1][metric], scorer
        return tried[key][1][metric]

    starts = [start.setting] if start else []
    stands = start is not None and not start.worth(quality(start.setting))
    chosen = starts[0] if stands else climb(settings, quality, starts)
    setting, metrics = tried[key_of(chosen)]
    told = tuple({"setting": dict(one), "validation": figures} for one, figures in tried.values())
    return Tuned(name, setting, metrics, told, best[1] if best else None)


def key_of(setting: Setting) -> tuple[float, ...]:
    """Return what two equal settings have in common, whatever the order of their keys."""
    return tuple(setting[name] for name in sorted(setting))


def axes_of(settings: Sequence[Setting]) -> dict[str, list[float]]:
    """Return the values of each axis of a grid, in the grid's order."""
    return {name: list(dict.fromkeys(setting[name] for setting in settings)) for name in settings[0]}


def evenly(rows: Tensor, most: int) -> Tensor:
    """Return at most `most` of the rows, evenly spaced, in order.

    >>> evenly(torch.arange(10), 4).tolist()
    [0, 2, 5, 7]
    """
    return rows if len(rows) <= most else rows[torch.arange(most) * len(rows) // most]


def climb(settings: Sequence[Setting], quality: Callable[[Setting], float], starts: Sequence[Setting] = ()) -> Setting:
    """Return a setting of the grid that no neighbour along any axis beats: the best of the climbs from each start.

    starts: settings of the grid; without any, the grid's middle. A neighbour wins only when it is strictly better, and
    so does a later climb; equals keep what was tried first.
    """
    axes = axes_of(settings)
    middle = {name: values[len(values) // 2] for name, values in axes.items()}
    tops = [_climb_from(start, axes, quality) for start in starts or [middle]]
    return max(tops, key=quality)


def _climb_from(start: Setting, axes: Mapping[str, Sequence[float]], quality: Callable[[Setting], float]) -> Setting:
    best = dict(start)
    climbing = True
    while climbing:
        climbing = False
        for name, values in axes.items():
            at = values.index(best[name])
            neighbours = [best | {name: values[n]} for n in (at + 1, at - 1) if 0 <= n < len(values)]
            for neighbour in neighbours:
                if quality(neighbour) > quality(best):
                    best, climbing = neighbour, True
    return best


def judge(
    scorer: Scorer, user_rows: Tensor, history_UI: Pairs, truth_UI: Pairs, seen_UI: Pairs, ks: tuple[int, ...]
) -> dict[str, float]:
    """Return the ranking metrics of a scorer for these users, given their histories and what they have seen."""
    top_BK = top_k(lambda rows: scorer(history_UI.take(rows)), user_rows, seen_UI, max(ks))
    return ranking_metrics(top_BK, truth_UI.take(user_rows), ks)
