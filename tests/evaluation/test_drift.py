"""Drift: planted shifts are found, none is quiet, and an alarm that stands falls only when it is clearly over."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgrec.evaluation.drift import (
    MonitorConfig,
    Signal,
    compare_numbers,
    compare_quality,
    compare_rates,
    compare_words,
    population_stability,
    standing,
)

CONFIG = MonitorConfig()


def above(signals: list[Signal]) -> set[str]:
    return {signal.name for signal in signals if signal.above}


def test_population_stability_is_its_formula_less_chance() -> None:
    before, now = [400, 300, 300], [300, 300, 400]
    raw = sum((q - p) * math.log(q / p) for p, q in zip((0.4, 0.3, 0.3), (0.3, 0.3, 0.4), strict=True))
    assert population_stability(before, now) == pytest.approx(raw - 2 * (1 / 1000 + 1 / 1000))
    assert population_stability(before, before) == 0
    assert population_stability([], []) == 0
    assert population_stability([1, 2], [0, 0]) == 0


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=8), st.integers(1, 50))
def test_population_stability_is_never_negative_and_symmetric(counts: list[int], times: int) -> None:
    scaled = [count * times for count in counts]
    assert population_stability(counts, scaled) == 0
    assert population_stability(counts, counts[::-1]) == pytest.approx(population_stability(counts[::-1], counts))


def test_its_bias_on_small_samples_is_taken_off() -> None:
    """Without drift the mean lies near 0, where the raw index would be 9 / 150 + 9 / 5000 = .062."""
    generator = np.random.default_rng(3)
    found = []
    for _ in range(300):
        before = generator.multinomial(5000, [0.1] * 10)
        now = generator.multinomial(150, [0.1] * 10)
        found.append(population_stability(before, now))
    assert np.mean(found) < 0.02


def test_no_drift_is_quiet() -> None:
    """Of 100 looks at 3 numbers and 3 categories each, chance may raise one: significance .001 a look."""
    generator = np.random.default_rng(7)
    alarms = 0
    for _ in range(100):
        signals = []
        for name in "abc":
            signals += compare_numbers(name, generator.normal(size=500), generator.normal(size=120), CONFIG, 12)
            words = [generator.choice(["x", "y", "z"], size=size).tolist() for size in (500, 120)]
            signals += compare_words(name, words[0], words[1], CONFIG, 12)
        alarms += bool(above(signals))
    assert alarms <= 1


@pytest.mark.parametrize("size", [150, 5000])
def test_a_shift_of_a_number_is_found(size: int) -> None:
    generator = np.random.default_rng(11)
    before, now = generator.normal(size=5000), generator.normal(1.0, 1.0, size=size)
    assert above(compare_numbers("age", before, now, CONFIG, 20)) == {"age: psi", "age: ks"}


def test_a_shift_so_small_that_only_a_large_sample_shows_it_is_no_alarm() -> None:
    generator = np.random.default_rng(13)
    before, now = generator.normal(size=50_000), generator.normal(0.05, 1.0, size=50_000)
    signals = compare_numbers("age", before, now, CONFIG, 1)
    assert min(signal.p for signal in signals if signal.p is not None) < 1e-6
    assert above(signals) == set()


def test_numbers_that_go_missing_are_found() -> None:
    generator = np.random.default_rng(17)
    before, now = generator.normal(size=2000), generator.normal(size=1000)
    now[:500] = np.nan
    assert above(compare_numbers("age", before, now, CONFIG, 2)) == {"age: psi"}
    (alone,) = compare_numbers("age", before, np.full(500, np.nan), CONFIG, 2)
    assert alone.above


def test_a_number_that_never_varied_and_now_does_is_found() -> None:
    assert above(compare_numbers("flag", np.zeros(500), np.ones(500), CONFIG, 2)) == {"flag: psi", "flag: ks"}
    assert above(compare_numbers("flag", np.zeros(500), np.zeros(500), CONFIG, 2)) == set()


def test_words_new_missing_or_moved_are_found() -> None:
    before: list[str | None] = ["a"] * 600 + ["b"] * 400
    for now in (["a"] * 100 + ["b"] * 400, ["a"] * 300 + ["c"] * 200, ["a"] * 300 + [None] * 200):
        assert above(compare_words("tab", before, now, CONFIG, 2)) == {"tab: psi"}
    assert above(compare_words("tab", before, ["a"] * 60 + ["b"] * 40, CONFIG, 2)) == set()


def test_a_rate_that_rose_or_changed_is_found() -> None:
    def one(before: tuple[int, int], now: tuple[int, int], *, relative: bool) -> bool:
        (signal,) = compare_rates("r", "unknown", before, now, 0.2, CONFIG, relative=relative)
        return signal.above

    assert one((10, 1000), (300, 1000), relative=False)
    assert not one((300, 1000), (10, 1000), relative=False)  # fewer unknown ids are no trouble
    assert one((300, 1000), (150, 1000), relative=True)
    assert one((300, 1000), (450, 1000), relative=True)
    assert not one((300, 1000), (320, 1000), relative=True)
    assert not one((3, 10), (5, 10), relative=True)  # chance
    assert compare_rates("r", "unknown", (0, 0), (1, 2), 0.2, CONFIG, relative=False) == []


def test_a_loss_of_quality_is_found_and_a_gain_is_none() -> None:
    generator = np.random.default_rng(19)
    for mean, expected in ((0.2, True), (0.4, False), (0.6, False)):
        (signal,) = compare_quality("ndcg@10", 0.4, generator.normal(mean, 0.2, size=200), CONFIG)
        assert signal.above == expected
    assert compare_quality("ndcg@10", 0.4, np.array([0.1]), CONFIG) == []


@pytest.mark.parametrize(
    ("change", "alarms"),
    [
        ({"psi": 5.0}, {"x: ks"}), ({"ks": 0.9}, {"x: psi"}), ({"least_rows": 5000}, set()),
        ({"significance": 1e-300}, set()), ({"bins": 2}, {"x: psi", "x: ks"}),
    ],
)  # fmt: skip
def test_each_threshold_has_an_effect(change: dict[str, float], alarms: set[str]) -> None:
    generator = np.random.default_rng(23)
    before, now = generator.normal(size=2000), generator.normal(1.0, 1.0, size=500)
    assert above(compare_numbers("x", before, now, CONFIG, 2)) == {"x: psi", "x: ks"}
    changed = compare_numbers("x", before, now, CONFIG.model_copy(update=change), 2)
    assert above(changed) == alarms
    assert changed[0].effect != compare_numbers("x", before, now, CONFIG, 2)[0].effect or "bins" not in change


def seen(effect: float, name: str = "x") -> list[Signal]:
    return [Signal(name, "feature", effect, 1.0, effect > 1.0, 1000)]


def test_an_alarm_stands_until_the_effect_is_clearly_below() -> None:
    were: set[str] = set()
    told = []
    for effect in (0.9, 1.1, 0.95, 0.85, 0.79, 0.95, 1.2):
        were = set(standing(seen(effect), [], CONFIG, were))
        told.append(bool(were))
    assert told == [False, True, True, True, False, False, True]
    assert standing(seen(0.95), [], CONFIG.model_copy(update={"clear_at": 1.0}), {"x"}) == []


def test_an_alarm_may_wait_for_several_looks_in_a_row() -> None:
    patient = CONFIG.model_copy(update={"looks": 3})
    assert standing(seen(1.5), [seen(1.5)], patient, set()) == []
    assert standing(seen(1.5), [seen(1.5), seen(0.5)], patient, set()) == []
    assert standing(seen(1.5), [seen(1.5), seen(1.5)], patient, set()) == ["x"]
