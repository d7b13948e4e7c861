"""Drift: how far new data lies from what a model was trained on, and when that is an alarm.

An alarm needs both: an effect above its threshold, so that a large sample does not cry over nothing, and a test that
chance is unlikely, so that a small one does not. Once raised it stands until the effect is clearly below.

Shapes: N rows of the reference, M new rows, B bins.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy import stats

Floats = npt.NDArray[np.float64]
_FLOOR: Final = 1e-4


class MonitorConfig(BaseModel):
    """When new data is so far from the training data that somebody should look (`kgrec monitor`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    psi: float = Field(0.2, gt=0, description="population stability index of a feature or score, above it: drift")
    ks: float = Field(0.15, gt=0, lt=1, description="Kolmogorov-Smirnov distance of a number, above it: drift, (0, 1)")
    unknown: float = Field(0.15, gt=0, le=1, description="rise of the share of unknown ids, above it: drift, (0, 1]")
    label_change: float = Field(0.25, gt=0, description="change of a label's rate, as a share of the old rate, > 0")
    ece: float = Field(0.1, gt=0, le=1, description="expected calibration error on fresh labels, (0, 1]")
    quality_drop: float = Field(
        0.3, gt=0, lt=1, description="loss of gate.metric on fresh events, as a share of the test figure, (0, 1)"
    )
    graph_change: float = Field(0.1, gt=0, le=1, description="share of triples that came or went, (0, 1]")
    significance: float = Field(
        0.001, gt=0, lt=1, description="chance of a false alarm of one test, shared by all features of a look, (0, 1)"
    )
    least_rows: int = Field(100, ge=2, description="fewer new rows raise no alarm, a count >= 2")
    bins: int = Field(10, ge=2, le=100, description="bins of a number, by quantiles of the reference, 2 to 100")
    clear_at: float = Field(
        0.8, gt=0, le=1, description="hysteresis: an alarm stands until the effect is below this share of its threshold"
    )
    looks: int = Field(1, ge=1, description="hysteresis: looks in a row above the threshold before an alarm, >= 1")


@dataclass(frozen=True)
class Signal:
    """One comparison. effect: what is held against `threshold`; p: its chance without drift, None where untested.

    above: the effect is above the threshold and no chance. before and now: the two figures, where there are such.
    """

    name: str
    kind: str
    effect: float
    threshold: float
    above: bool
    rows: int
    p: float | None = None
    before: float | None = None
    now: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what is there, JSON-able."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def population_stability(before_B: npt.ArrayLike, now_B: npt.ArrayLike) -> float:
    """Return the population stability index of two histograms over the same bins, in [0, inf), 0 for equal shares.

    sum over bins of (q - p) ln(q / p), p and q the shares, at least 0.0001 each (Siddiqi, Credit Risk Scorecards,
    2006). Less what chance alone gives, (B - 1)(1/N + 1/M) (Yurdakul, 2018), and never below 0: a small sample is not
    drift. 0 where either is empty.

    >>> round(population_stability([5000, 5000], [8000, 2000]), 2)
    0.42
    """
    before, now = np.asarray(before_B, dtype=np.float64), np.asarray(now_B, dtype=np.float64)
    if not before.sum() or not now.sum():
        return 0.0
    p_B, q_B = (np.maximum(counts / counts.sum(), _FLOOR) for counts in (before, now))
    raw = float(((q_B - p_B) * np.log(q_B / p_B)).sum())
    return max(0.0, raw - float((len(before) - 1) * (1 / before.sum() + 1 / now.sum())))


def compare_numbers(
    name: str, before_N: npt.ArrayLike, now_M: npt.ArrayLike, config: MonitorConfig, tests: int, kind: str = "feature"
) -> list[Signal]:
    """Return the PSI and KS signals of a number; what is not finite counts as missing, a bin of its own for the PSI."""
    before, now = np.asarray(before_N, dtype=np.float64), np.asarray(now_M, dtype=np.float64)
    known, fresh = before[np.isfinite(before)], now[np.isfinite(now)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, config.bins + 1)[1:-1])) if len(known) else np.empty(0)
    if len(known) and known.min() == known.max():  # what never varied: below, this value, above
        edges = np.array([known[0], np.nextafter(known[0], np.inf)])
    histograms = [_binned(values, edges) for values in (before, now)]
    psi = population_stability(*histograms)
    signals = [_signal(f"{name}: psi", kind, psi, config.psi, len(now), _chance(*histograms), config, tests)]
    if len(known) and len(fresh):
        found = stats.ks_2samp(known, fresh, method="asymp")
        distance, p = float(found.statistic), float(found.pvalue)
        signals.append(_signal(f"{name}: ks", kind, distance, config.ks, len(fresh), p, config, tests))
    return signals


def compare_words(
    name: str, before: list[str | None], now: list[str | None], config: MonitorConfig, tests: int
) -> list[Signal]:
    """Return the PSI signal of a category: the most frequent values of the reference, all others, and missing."""
    words, counts = np.unique([word for word in before if word is not None], return_counts=True)
    places = {str(words[at]): place for place, at in enumerate(np.argsort(-counts, kind="stable")[: config.bins])}
    others, missing = len(places), len(places) + 1
    histograms = [
        np.bincount(
            [missing if word is None else places.get(word, others) for word in values], minlength=missing + 1
        ).astype(np.float64)
        for values in (before, now)
    ]
    psi = population_stability(*histograms)
    return [_signal(f"{name}: psi", "feature", psi, config.psi, len(now), _chance(*histograms), config, tests)]


def compare_rates(
    name: str, kind: str, before: tuple[int, int], now: tuple[int, int], threshold: float, config: MonitorConfig, *,
    relative: bool,
) -> list[Signal]:  # fmt: skip
    """Return the signal of a rate, given as (hits, rows); nothing where one of them has no row.

    relative: the effect is the change either way as a share of the old rate; else it is the rise in points. Tested by
    Fisher's exact test, two-sided.
    """
    if not before[1] or not now[1]:
        return []
    old, new = before[0] / before[1], now[0] / now[1]
    effect = abs(new - old) / max(old, 1 / before[1]) if relative else max(0.0, new - old)
    table = [[before[0], before[1] - before[0]], [now[0], now[1] - now[0]]]
    p = float(stats.fisher_exact(table).pvalue)
    above = effect > threshold and p < config.significance and now[1] >= config.least_rows
    return [Signal(name, kind, effect, threshold, above, now[1], p, old, new)]


def compare_quality(name: str, test: float, fresh_M: Floats, config: MonitorConfig) -> list[Signal]:
    """Return how far a metric of fresh users lies below the figure of the test part; one-sided t-test.

    fresh_M: the metric of each user. Nothing with fewer than two users or a test figure of 0.
    """
    if len(fresh_M) < 2 or test <= 0:
        return []
    now = float(fresh_M.mean())
    effect = max(0.0, (test - now) / test)
    error = float(fresh_M.std(ddof=1)) / np.sqrt(len(fresh_M))
    p = float(stats.t.sf((test - now) / error, len(fresh_M) - 1)) if error > 0 else float(now >= test)
    enough = len(fresh_M) >= min(config.least_rows, 30)
    above = effect > config.quality_drop and p < config.significance and enough
    return [Signal(name, "quality", effect, config.quality_drop, above, len(fresh_M), p, test, now)]


def standing(signals: list[Signal], earlier: list[list[Signal]], config: MonitorConfig, were: set[str]) -> list[str]:
    """Return the names of the alarms that stand after this look.

    earlier: the signals of the looks before, newest first. were: the alarms that stood before. A new alarm needs
    `looks` in a row above; one that stood falls when its effect is at most `clear_at` of the threshold.
    """
    past = [{signal.name: signal.above for signal in look} for look in earlier[: config.looks - 1]]
    alarms = []
    for signal in signals:
        rising = signal.above and len(past) >= config.looks - 1 and all(look.get(signal.name) for look in past)
        holding = signal.name in were and signal.effect > config.clear_at * signal.threshold
        if rising or holding:
            alarms.append(signal.name)
    return alarms


def _signal(
    name: str, kind: str, effect: float, threshold: float, rows: int, p: float, config: MonitorConfig, tests: int
) -> Signal:
    unlikely = p < config.significance / max(tests, 1)  # Bonferroni: one budget of false alarms for all of them
    return Signal(name, kind, effect, threshold, effect > threshold and unlikely and rows >= config.least_rows, rows, p)


def _binned(values: Floats, edges: Floats) -> Floats:
    """Return how many values lie in each bin, and last how many are missing."""
    finite = np.isfinite(values)
    counts = np.bincount(np.searchsorted(edges, values[finite], side="right"), minlength=len(edges) + 1)
    return np.append(counts, (~finite).sum()).astype(np.float64)


def _chance(before_B: Floats, now_B: Floats) -> float:
    """Return the p of the chi-square test of homogeneity, 1 where there is nothing to compare."""
    used = (before_B + now_B) > 0
    if used.sum() < 2 or not before_B.sum() or not now_B.sum():
        return 1.0
    return float(stats.chi2_contingency(np.stack([before_B[used], now_B[used]]), correction=False).pvalue)
