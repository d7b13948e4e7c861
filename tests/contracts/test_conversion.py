"""What every loss of conversion promises, each beside a loop in plain Python. The list is read from the registry."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.model.conversion import CONVERSIONS, ConversionName, TowerLogits, TowerLossConfig, conditional_logit
from kgrec.model.imbalance import Imbalance, Weighing

CONFIG = TowerLossConfig(propensity_floor=0.3, counterfactual_weight=0.7, order_weight=0.9)
Row = tuple[float, float, float, float, int, int]
"""click, conversion, joint logits, imputed loss, click and conversion labels."""


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def entropy(chance: float, label: int, weighing: Weighing) -> float:
    right = chance if label else 1 - chance
    weight = weighing.positive if label else weighing.negative
    return -weight * (1 - right) ** weighing.gamma * math.log(right)


def esmm(rows: list[Row], weighing: Weighing) -> float:
    return sum(entropy(sigmoid(r[0]) * sigmoid(r[1]), r[5], weighing) for r in rows) / len(rows)


def clicked_only(rows: list[Row], weighing: Weighing) -> float:
    clicked = [r for r in rows if r[4]]
    return sum(entropy(sigmoid(r[1]), r[5], weighing) for r in clicked) / max(len(clicked), 1)


def ips(rows: list[Row], weighing: Weighing) -> float:
    debiased = 0.0
    for click, conversion, _, _, clicked, converted in rows:
        if clicked:
            debiased += entropy(sigmoid(conversion), converted, weighing) / max(sigmoid(click), 0.3)
    return esmm(rows, weighing) + 0.7 * debiased / len(rows)


def robust(rows: list[Row], weighing: Weighing) -> float:
    total = 0.0
    for click, conversion, _, imputed, clicked, converted in rows:
        missed = entropy(sigmoid(conversion), converted, weighing) - imputed
        weight = clicked / max(sigmoid(click), 0.3)
        total += imputed + weight * missed + weight * missed**2
    return esmm(rows, weighing) + 0.7 * total / len(rows)


def aitm(rows: list[Row], weighing: Weighing) -> float:
    total = 0.0
    for click, _, joint, _, _, converted in rows:
        total += entropy(sigmoid(joint), converted, weighing) + 0.9 * max(sigmoid(joint) - sigmoid(click), 0)
    return total / len(rows)


ORACLES: dict[ConversionName, Callable[[list[Row], Weighing], float]] = {
    ConversionName.ESMM: esmm, ConversionName.CLICKED_ONLY: clicked_only, ConversionName.ESCM2_IPS: ips,
    ConversionName.ESCM2_DR: robust, ConversionName.AITM: aitm,
}  # fmt: skip
LOGIT = st.floats(-4, 4)
ROW = st.tuples(LOGIT, LOGIT, LOGIT, st.floats(0, 3), st.integers(0, 1), st.integers(0, 1)).map(
    lambda r: (*r[:5], r[4] * r[5])
)


def asked(rows: list[Row]) -> tuple[TowerLogits, torch.Tensor, torch.Tensor]:
    click, conversion, joint, imputed, clicked, converted = torch.tensor(rows, dtype=torch.float64).T
    return TowerLogits(click, conversion, joint, imputed), clicked, converted


def loss(name: ConversionName, rows: list[Row], imbalance: Imbalance = Imbalance.NONE) -> tuple[float, Weighing]:
    config = CONFIG.model_copy(update={"imbalance": imbalance})
    weighing = Weighing.of(imbalance, 1.5, 0.2)
    return CONVERSIONS[name].loss(*asked(rows), config, weighing).item(), weighing


def test_the_registry_and_the_oracles_hold_every_word() -> None:
    assert set(CONVERSIONS) == set(ConversionName) == set(ORACLES)


@pytest.mark.parametrize("imbalance", list(Imbalance))
@pytest.mark.parametrize("name", sorted(CONVERSIONS))
@settings(max_examples=20, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=6))
def test_every_loss_is_the_loop_over_rows(name: ConversionName, imbalance: Imbalance, rows: list[Row]) -> None:
    got, weighing = loss(name, rows, imbalance)
    assert got == pytest.approx(ORACLES[name](rows, weighing), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", sorted(CONVERSIONS))
def test_far_logits_stay_finite_and_a_better_conversion_costs_less(name: ConversionName) -> None:
    far: list[Row] = [(-60.0, 60.0, 60.0, 1.0, 1, 1), (60.0, -60.0, -60.0, 1.0, 1, 0), (60.0, 60.0, 60.0, 0.0, 0, 0)]
    logits, click, both = asked(far)
    for values in (logits.click_B, logits.conversion_B, logits.joint_B):
        assert values is not None
        values.requires_grad_()
    value = CONVERSIONS[name].loss(logits, click, both, CONFIG, Weighing())
    value.backward()
    assert torch.isfinite(value)
    for values in (logits.click_B, logits.conversion_B, logits.joint_B):
        assert values is not None
        assert values.grad is None or torch.isfinite(values.grad).all()
    right, _ = loss(name, [(1.0, 1.5, 0.5, 0.3, 1, 1)])
    wrong, _ = loss(name, [(1.0, -1.5, -2.5, 0.3, 1, 1)])
    assert right < wrong


@pytest.mark.parametrize("name", [ConversionName.ESCM2_IPS, ConversionName.ESCM2_DR])
def test_the_propensity_gives_no_gradient_and_is_clipped(name: ConversionName) -> None:
    logits, click, both = asked([(0.5, 0.2, 0.0, 0.4, 1, 1), (-9.0, 0.2, 0.0, 0.4, 1, 0)])
    logits.click_B.requires_grad_()
    without = CONFIG.model_copy(update={"counterfactual_weight": 0.0})
    gradients = []
    for config in (CONFIG, without):
        value = CONVERSIONS[name].loss(logits, click, both, config, Weighing())
        gradients.append(torch.autograd.grad(value, logits.click_B)[0])
    torch.testing.assert_close(*gradients)
    lower = CONFIG.model_copy(update={"propensity_floor": 0.01})
    clipped, free = (CONVERSIONS[name].loss(logits, click, both, c, Weighing()).item() for c in (CONFIG, lower))
    assert clipped < free


def test_ips_recovers_the_mean_error_over_all_exposures() -> None:
    """Clicks depend on x, and so does the error: the clicked alone tell another mean than all exposures do."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(2, (40_000,), generator=generator).double()
    click_logit, conversion_logit = 3 * x - 2, 2 - 3 * x
    clicked = (torch.rand(40_000, generator=generator, dtype=torch.float64) < torch.sigmoid(click_logit)).double()
    converted = torch.ones_like(clicked)
    truth = torch.nn.functional.softplus(-conversion_logit).mean().item()
    weight_one = TowerLossConfig(propensity_floor=0.01, counterfactual_weight=1.0)
    logits = TowerLogits(click_logit, conversion_logit)
    both = clicked * converted
    ipw = CONVERSIONS[ConversionName.ESCM2_IPS].loss(logits, clicked, both, weight_one, Weighing()).item()
    ipw -= CONVERSIONS[ConversionName.ESMM].loss(logits, clicked, both, weight_one, Weighing()).item()
    naive = CONVERSIONS[ConversionName.CLICKED_ONLY].loss(logits, clicked, both, weight_one, Weighing()).item()
    assert ipw == pytest.approx(truth, rel=0.03)
    assert abs(naive - truth) > 0.2 * truth


@settings(max_examples=40, deadline=None)
@given(st.floats(-8, 8), st.floats(-8, 8))
def test_the_conditional_logit_is_the_quotient_of_probabilities(joint: float, click: float) -> None:
    share = min(sigmoid(joint) / sigmoid(click), 1 - 1e-6)
    got = conditional_logit(torch.tensor(joint, dtype=torch.float64), torch.tensor(click, dtype=torch.float64))
    assert torch.sigmoid(got).item() == pytest.approx(share, rel=1e-6, abs=1e-9)


def test_balanced_rows_weigh_the_same_in_sum_and_one_in_the_mean() -> None:
    label = torch.tensor([1.0] + [0.0] * 9)
    weighing = Weighing.of(Imbalance.BALANCED, 0.0, 0.1)
    weight = torch.where(label > 0, weighing.positive, weighing.negative)
    assert weight.mean().item() == pytest.approx(1)
    assert weight[label > 0].sum().item() == pytest.approx(weight[label == 0].sum().item())
    assert Weighing.of(Imbalance.BALANCED, 0.0, 0.0).positive == 500
