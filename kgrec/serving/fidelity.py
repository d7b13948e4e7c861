"""How far reasons can be believed: take away what a reason names, score again, and compare with something at random.

Shapes: P probes (a user and the item on top of their list).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from kgrec.evaluation.classification import FloatArray
from kgrec.evaluation.significance import mean_of, randomisation_test
from kgrec.serving.explain import Explanation
from kgrec.serving.recommend import Version
from kgrec.serving.standing import Asked

FEWEST_HISTORY: Final = 4


@dataclass(frozen=True)
class Fidelity:
    """By how much the score falls without what the reason names, and without something at random of the same kind.

    named_P, random_P: falls, in units of the score; above 0 the score fell.
    """

    named_P: FloatArray
    random_P: FloatArray

    def facts(self, generator: np.random.Generator) -> dict[str, Any]:
        """Return probes, both mean falls, the share of probes where the named one falls further (ties count half), and
        the p of the paired randomisation test; only probes where there is none.
        """
        if not len(self.named_P):
            return {"probes": 0}
        difference_P = self.named_P - self.random_P
        further = float(((difference_P > 0) + 0.5 * (difference_P == 0)).mean())
        return {
            "probes": len(difference_P), "fall_without_the_named": round(float(self.named_P.mean()), 5),
            "fall_without_a_random_one": round(float(self.random_P.mean()), 5),
            "named_falls_further": round(further, 4), "p": randomisation_test([mean_of(difference_P)], generator)[0],
        }  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """A user as their history places them, the item on top of their list, and why it is there."""

    user: str
    asked: Asked
    found: Explanation


def probes(version: Version, users: Iterable[str], most_paths: int = 6) -> list[Probe]:
    """Return a probe for each user with at least 4 items of history whom the history places.

    The history alone places them, as it does whoever sends one to the service: only so can it be asked again with an
    item gone. most_paths: see `Explainer.explain`.
    """
    made = []
    for user in users:
        asked = version.ask_history(version.ask(user).history_H)
        if asked.vector_D is None or len(asked.history_H) < FEWEST_HISTORY:
            continue
        rows_K, scores_K = version.top(asked, 1)
        if len(rows_K):
            made.append(Probe(user, asked, version.explainer.explain(asked, rows_K, scores_K.tolist(), most_paths)[0]))
    return made


def history_fidelity(version: Version, asked: Iterable[Probe], generator: np.random.Generator) -> Fidelity:
    """Take the history item that a reason names (it adds most) out of the history, and another at random."""
    named, other = [], []
    for probe in asked:
        history_H, item = probe.asked.history_H, probe.found.item_row
        best = next((row for row in probe.found.history if row != item), None)
        others_H = history_H[(history_H != best) & (history_H != item)]
        if best is None or not len(others_H):
            continue
        before = version.score_of(item, probe.asked)
        gone = {"named": best, "random": int(generator.choice(others_H))}
        falls: Mapping[str, float] = {
            which: before - version.score_of(item, version.ask_history(history_H[history_H != row]))
            for which, row in gone.items()
        }
        named.append(falls["named"])
        other.append(falls["random"])
    return Fidelity(np.array(named, dtype=np.float64), np.array(other, dtype=np.float64))


def reason_variety(version: Version, users: Iterable[str], k: int = 10) -> dict[str, float]:
    """Return how different the reasons of lists are: the mean share of distinct reasons, and of distinct first nodes
    among the paths of a list. In (0, 1]; empty without any list of two.
    """
    distinct, first = [], []
    for user in users:
        asked = version.ask(user)
        rows_K, scores_K = version.top(asked, k)
        if asked.vector_D is None or len(rows_K) < 2:
            continue
        found = version.explainer.explain(asked, rows_K, scores_K.tolist())
        distinct.append(len({one.reason for one in found}) / len(found))
        nodes = [one.paths[0].via[:1] for one in found if one.paths]
        first += [len(set(nodes)) / len(nodes)] if len(nodes) > 1 else []
    if not distinct:
        return {}
    shares = {"distinct_reasons": round(float(np.mean(distinct)), 4)}
    return shares | ({"distinct_first_nodes": round(float(np.mean(first)), 4)} if first else {})
