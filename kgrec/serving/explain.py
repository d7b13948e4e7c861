"""Why an item: each part's share of the score that is served, what of the history carries it, and the graph's paths.

Axes: D trained dimensions, W served dimensions, H items of a history, K items to explain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from kgrec.graph.paths import Path, PathFinder, shorter, varied
from kgrec.serving.index import Floats, Rows
from kgrec.serving.neighbours import Neighbours
from kgrec.serving.standing import Asked, Standing

LONGEST: Final = 100
"""Characters of a reason, at most."""
TRAINED, POPULARITY = "trained", "popularity"
PART_WORDS: Final[Mapping[str, str]] = {
    TRAINED: "closeness of the trained vectors of user and item",
    "linear": "people who had the same items also had it",
    "kernel": "nodes of the graph that it shares with the history",
    POPULARITY: "popularity with everybody",
    "repeat": "the user had it before",
}
_POPULAR: Final = "popular with everybody (nothing is known of this user)"
_CHOICES: Final = 6
_AGAIN: Final = 0.5  # what a reason is worth that the list gave before
_FLOOR: Final = 0.01


@dataclass(frozen=True)
class Explanation:
    """Why an item has its score for a user.

    parts: what each part of the score adds; they sum to it. history: item row -> what it adds through the parts that
    rest on the history, the largest first (see `Explainer`). paths: the best first. reason: at most 100 characters.
    """

    item_row: int
    score: float
    parts: Mapping[str, float]
    reason: str
    history: Mapping[int, float] = field(default_factory=dict)
    paths: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ServedScore:
    """What a version scores with. trained: how many of the W dimensions are the trained ones; the rest, if any, is
    popularity.
    """

    items_IW: Floats
    item_fold_ID: Floats
    trained: int
    neighbours: Neighbours


class Explainer:
    """Explains the scores of one version.

    The parts are exact. The neighbours' parts are sums over the history, and are told item by item as they are; of the
    trained part an item of the history is told what it adds where the history alone places the user (exact for users
    placed by history, and the same propagation for those in the table). finder: None where the graph plays no part in
    the scores, so that a path would be no reason.
    """

    def __init__(
        self, served: ServedScore, finder: Callable[[], PathFinder] | None, title: Callable[[int], str]
    ) -> None:
        self._served, self._finder, self._title = served, finder, title

    def explain(
        self, asked: Asked, items_K: Rows, scores_K: Sequence[float], most_paths: int = _CHOICES
    ) -> list[Explanation]:
        """Return an explanation of each item, in order; of equally good reasons it takes one not given before.

        most_paths: of each; 0 leaves the graph alone.
        """
        if asked.vector_D is None:
            shares = zip(items_K.tolist(), scores_K, strict=True)
            return [Explanation(row, float(score), {POPULARITY: float(score)}, _POPULAR) for row, score in shares]
        history_H = np.unique(asked.history_H)
        by_part = self.carried(history_H, items_K)
        carried_HK: Floats = np.zeros((len(history_H), len(items_K)), dtype=np.float32)
        for part_HK in by_part.values():
            carried_HK += part_HK
        given: Counter[Any] = Counter()
        return [
            self._one(asked, int(item), history_H, carried_HK[:, place], given, most_paths)
            for place, item in enumerate(items_K)
        ]

    def parts(self, asked: Asked, item_row: int) -> dict[str, float]:
        """Return what each part adds to the score of an item; their sum is the score that is served."""
        if asked.vector_D is None:
            return {}
        served, trained = self._served, self._served.trained
        product_W = served.items_IW[item_row] * asked.vector_D
        found = {TRAINED: float(product_W[:trained].sum())}
        if len(product_W) > trained:
            found[POPULARITY] = float(product_W[trained:].sum())
        return found | served.neighbours.parts(asked.history_H, item_row)

    def carried(self, history_H: Rows, items_K: Rows) -> dict[str, Floats]:
        """Return what each item of the history adds to each item's score, (H, K), by part."""
        if not len(history_H):
            return {}
        served = self._served
        fold_HD = served.item_fold_ID[history_H]
        length = float(np.linalg.norm(fold_HD.sum(axis=0))) or 1.0
        found = {TRAINED: (fold_HD @ served.items_IW[items_K][:, : served.trained].T / length).astype(np.float32)}
        return found | served.neighbours.contributions(history_H, items_K)

    def _one(
        self, asked: Asked, item: int, history_H: Rows, carried_H: Floats, given: Counter[Any], most_paths: int
    ) -> Explanation:  # fmt: skip
        parts = self.parts(asked, item)
        others = history_H != item
        order = np.lexsort((history_H, -carried_H))
        history = {int(history_H[place]): float(carried_H[place]) for place in order}
        weights = carried_H.clip(min=0.0)
        top = float(weights[others].max(initial=0.0))
        weights = weights + _FLOOR * top if top else np.ones(len(weights))
        paths: list[Path] = []
        if self._finder is not None and most_paths and len(history_H):
            paths = self._finder().paths(item, history_H.tolist(), max(most_paths, _CHOICES), weights.tolist())
        reason = self._reason(paths, item, history_H[others], carried_H[others], given)
        if parts.get(POPULARITY, 0.0) > 0.5 * sum(max(part, 0.0) for part in parts.values()):
            reason = shorter(f"popular; {reason}", LONGEST)
        shown: Counter[Any] = Counter()
        told = tuple(varied(path, shown) for path in paths[:most_paths])
        return Explanation(item, sum(parts.values()), parts, reason, history, told)

    def _reason(self, paths: Sequence[Path], item: int, history_H: Rows, carried_H: Floats, given: Counter[Any]) -> str:
        """Return the best reason in words; one given before in this list counts half for each time."""
        if paths and self._finder is not None:
            finder = self._finder()
            named = [path for path in paths if finder.is_named(path)] or paths
            worth = [path.weight * _AGAIN ** max((given[node] for node in path.via), default=0) for path in named]
            order = sorted(range(len(named)), key=lambda place: (-worth[place], place))
            best = varied(named[order[0]], given)
            given.update(best.via)
            text = finder.sentence(best, longest=LONGEST)
            for place in order[1:2]:
                other = varied(named[place], given.copy())
                both = f"{text}; {finder.sentence(other, longest=LONGEST)}"
                text = both if len(both) <= LONGEST and worth[place] >= _AGAIN * worth[order[0]] else text
            return text
        if not len(history_H):
            return "close to this user's taste as a whole"
        trained = self._served.items_IW[:, : self._served.trained]
        worth_H = carried_H if carried_H.max() > 0 else trained[history_H] @ trained[item]
        near = [place for place in np.argsort(-worth_H, kind="stable") if worth_H[place] >= _AGAIN * worth_H.max()] or [
            int(np.argmax(worth_H))
        ]
        best_row = int(history_H[min(near[:_CHOICES], key=lambda place: given[("item", int(history_H[place]))])])
        given[("item", best_row)] += 1
        start = "chosen by the same people as "
        return f'{start}"{shorter(self._title(best_row), LONGEST - len(start) - 2)}"'


def standing_words(standing: Standing) -> str:
    """Return what an answer rests on, for people.

    >>> standing_words(Standing.HISTORY)
    'their history (they came after training)'
    """
    return {
        Standing.TRAINED: "their trained vector and their history",
        Standing.HISTORY: "their history (they came after training)",
        Standing.POPULARITY: "popularity alone: nothing is known of this user",
    }[standing]
