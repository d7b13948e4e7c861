"""Systems judged on the same units, told apart or not: means, intervals, paired tests, Holm's correction.

A system is an arm of a comparison (measured with several seeds, whose figures are averaged) or a baseline.
Shapes: U units (users, triples).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import polars as pl

from kgrec import columns as c
from kgrec.evaluation.significance import (
    Estimate,
    area_of,
    average_of,
    bootstrap_intervals,
    holm,
    mean_of,
    randomisation_test,
)

RANKED: Final = ("recall", "ndcg", "mrr")
LEVEL: Final = 0.05
Figure = tuple[str, str]
"""Group and metric, such as ("ranking", "ndcg@10")."""


class Outcome(StrEnum):
    """What may be said of a difference."""

    BETTER = "better"
    WORSE = "worse"
    NOISE = "inside the noise"


@dataclass(frozen=True)
class Measured:
    """The test figures by unit of one system and seed; frames without a row where nothing was asked.

    users: columns.PER_USER_SCHEMA and metrics, of one system. rows: columns.PER_ROW_SCHEMA. triples:
    columns.PER_TRIPLE_SCHEMA.
    """

    users: pl.DataFrame
    rows: pl.DataFrame
    triples: pl.DataFrame

    def estimates(self) -> dict[Figure, Estimate]:
        """Return every figure that is compared; an area is absent where a class is missing."""
        found: dict[Figure, Estimate] = {}
        for (group,), frame in self.users.group_by(c.GROUP, maintain_order=True):
            names = [name for name in frame.columns if name.partition("@")[0] in RANKED]
            found |= {(str(group), name): mean_of(frame[name].to_numpy()) for name in names}
        for (group,), frame in self.rows.group_by(c.GROUP, maintain_order=True):
            unit_N = _units(frame[c.USER_ROW].to_numpy())
            area = area_of(frame[c.PROBABILITY].to_numpy(), frame[c.LABEL].to_numpy(), unit_N, int(unit_N.max()) + 1)
            found |= {(str(group), "auc"): area} if area is not None else {}
        if self.triples.height:
            ranks_T2 = self.triples.select(c.TAIL_RANK, c.HEAD_RANK).to_numpy()
            found["link", "mrr"] = mean_of((1 / ranks_T2).mean(axis=1))
        return found

    def asked(self) -> dict[str, pl.DataFrame]:
        """Return by group what was asked, in order: two systems can be paired where it is equal."""
        keyed = (self.users.select(c.GROUP, c.USER_ROW), self.rows.select(c.GROUP, c.USER_ROW, c.LABEL))
        asked = {str(group): part for frame in keyed for (group,), part in frame.group_by(c.GROUP, maintain_order=True)}
        if self.triples.height:
            asked["link"] = self.triples.select(c.HEAD_ROW, c.RELATION_ROW, c.TAIL_ROW)
        return asked

    def of_users(self, keep: pl.Series) -> Measured:
        """Return the figures of some users alone (user rows), without triples."""
        chosen = pl.col(c.USER_ROW).is_in(keep.implode())
        return Measured(self.users.filter(chosen), self.rows.filter(chosen), self.triples.clear())

    def of_relations(self, keep: Sequence[int]) -> Measured:
        """Return the figures of some relations' triples alone (relation rows)."""
        chosen = pl.col(c.RELATION_ROW).is_in(list(keep))
        return Measured(self.users.clear(), self.rows.clear(), self.triples.filter(chosen))


@dataclass(frozen=True)
class Difference:
    """A system against the reference in one figure: `difference` is the system's value minus the reference's.

    per_seed: the difference of each seed. p: of the paired randomisation test over units, averaged over seeds;
    p_holm: corrected for all differences of its family. segment: which users or relation, "" for all.
    """

    arm: str
    group: str
    metric: str
    segment: str
    units: int
    value: float
    reference: float
    difference: float
    interval: tuple[float, float]
    per_seed: tuple[float, ...]
    p: float
    p_holm: float
    outcome: Outcome

    def as_dict(self) -> dict[str, object]:
        """Return the line in the shape of `kgrec compare --json`."""
        found = {name: value for name, value in asdict(self).items() if not (name == "segment" and not value)}
        return found | {"interval": list(self.interval), "per_seed": list(self.per_seed), "outcome": self.outcome.value}


def levels(
    measured: Sequence[Measured], generator: np.random.Generator, kept: Callable[[str], bool] = lambda group: True
) -> dict[str, dict[str, object]]:
    """Return group -> metric -> mean over seeds, 95 % interval over units, per_seed; and num_units of the group."""
    found = [one.estimates() for one in measured]
    answer: dict[str, dict[str, object]] = {}
    for group in dict.fromkeys(group for group, _ in found[0] if kept(group)):
        figures = [figure for figure in found[0] if figure[0] == group and all(figure in one for one in found)]
        averages = [average_of([one[figure] for one in found]) for figure in figures]
        intervals = bootstrap_intervals(averages, generator)
        answer[group] = {
            metric: {"mean": average.value, "interval": list(interval),
                     "per_seed": [one[group, metric].value for one in found]}
            for (_, metric), average, interval in zip(figures, averages, intervals, strict=True)
        }  # fmt: skip
        answer[group]["num_units"] = len(averages[0].influence_U)
    return answer


def differences(
    reference: Sequence[Measured],
    others: Mapping[str, Sequence[Measured]],
    generator: np.random.Generator,
    wanted: Callable[[str, Figure], bool] = lambda arm, figure: True,
    segment: str = "",
) -> list[Difference]:
    """Return every wanted difference to the reference, p not yet corrected (`corrected` does that for a family).

    Seeds are paired by their order; a system with one seed against several (a baseline) meets each of them.
    ValueError when two systems were not asked the same.
    """
    base = [one.estimates() for one in reference]
    asked = reference[0].asked()
    lines: list[Difference] = []
    for arm, measured in others.items():
        found = [one.estimates() for one in measured]
        shared = [f for f in base[0] if wanted(arm, f) and all(f in one for one in (*base, *found))]
        for group in dict.fromkeys(group for group, _ in shared):
            if not all(asked[group].equals(one.asked()[group]) for one in (*reference, *measured)):
                raise ValueError(f"{arm} and the reference were not asked the same {group}, so they cannot be paired")
            figures = [figure for figure in shared if figure[0] == group]
            lines += _lines(arm, figures, base, found, generator, segment)
    return lines


def corrected(lines: Sequence[Difference]) -> list[Difference]:
    """Return the lines as one family: p corrected by Holm, and the outcome.

    A difference is outside the noise when the corrected p is at most .05 and every seed says the same sign.
    """
    p_values = holm([line.p for line in lines])
    return [_judged(line, p) for line, p in zip(lines, p_values, strict=True)]


def _lines(
    arm: str, figures: Sequence[Figure], base: Sequence[Mapping[Figure, Estimate]],
    found: Sequence[Mapping[Figure, Estimate]], generator: np.random.Generator, segment: str,
) -> list[Difference]:  # fmt: skip
    paired = [found[min(at, len(found) - 1)] for at in range(len(base))]
    by_seed = [[own[figure] - other[figure] for own, other in zip(paired, base, strict=True)] for figure in figures]
    averages = [average_of(seeds) for seeds in by_seed]
    intervals = bootstrap_intervals(averages, generator)
    p_values = randomisation_test(averages, generator)
    return [
        Difference(
            arm, *figure, segment, len(average.influence_U),
            float(np.mean([one[figure].value for one in paired])), float(np.mean([one[figure].value for one in base])),
            average.value, interval, tuple(seed.value for seed in seeds), p, p, Outcome.NOISE,
        )
        for figure, average, seeds, interval, p in zip(figures, averages, by_seed, intervals, p_values, strict=True)
    ]  # fmt: skip


def _judged(line: Difference, p_holm: float) -> Difference:
    signs = {np.sign(difference) for difference in line.per_seed}
    outcome = Outcome.NOISE
    if p_holm <= LEVEL and len(signs) == 1 and line.difference != 0:
        outcome = Outcome.BETTER if line.difference > 0 else Outcome.WORSE
    return Difference(**{**vars(line), "p_holm": p_holm, "outcome": outcome})


def _units(user_N: np.ndarray[tuple[int], np.dtype[np.int64]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return 0..U-1 for the distinct users; every row of an unknown one (-1) is a unit of its own."""
    keys = user_N.astype(np.int64)
    unknown = keys < 0
    keys[unknown] = -1 - np.arange(int(unknown.sum()))
    return np.unique(keys, return_inverse=True)[1]
