"""Each method that looks at losses alone, against its formula worked out by hand or by a slow oracle."""

from __future__ import annotations

import math

import pytest
import torch

from kgrec.training.balancer import Balancer, BalancingOptions, LearnedScalars
from kgrec.training.loss_weights import DynamicWeightAverage, Famo, UncertaintyWeights
from tests.training.toy_steps import ToyStep

OPTIONS = BalancingOptions()


def losses(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_learned_scalars_move_as_torchs_adam_does() -> None:
    number = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    adam, own = torch.optim.Adam([number], lr=0.1), LearnedScalars(1.0, 0.1)
    for gradient in (0.5, -2.0, 3.0, 0.0):
        number.grad = torch.tensor([gradient], dtype=torch.float64)
        adam.step()
        own.descend({"a": gradient})
    assert float(own.values({"a": 0})[0]) == pytest.approx(number.item(), rel=1e-6)


def test_uncertainty_settles_at_half_the_inverse_loss_and_follows_the_learning_rate() -> None:
    balancer = UncertaintyWeights({}, OPTIONS, 1)
    for _ in range(600):
        factors = balancer.factors(losses(a=4.0, b=0.25))
    assert factors == {"a": pytest.approx(1 / 8, rel=0.05), "b": pytest.approx(2.0, rel=0.05)}
    first = [UncertaintyWeights({}, BalancingOptions(weight_learning_rate=rate), 1) for rate in (0.1, 0.2)]
    for balancer in first:
        balancer.factors(losses(a=4.0))
    assert [b.factors(losses(a=4.0))["a"] for b in first] == pytest.approx([math.exp(-0.1), math.exp(-0.2)])


@pytest.mark.parametrize("temperature", [2.0, 0.5])
def test_dwa_is_the_softmax_of_the_rates(temperature: float) -> None:
    balancer = DynamicWeightAverage({}, BalancingOptions(dwa_temperature=temperature), 1)
    balancer.end_epoch({"a": 4.0, "b": 2.0})
    assert balancer.factors(losses(a=1.0, b=1.0)) == {"a": 1.0, "b": 1.0}
    balancer.end_epoch({"a": 2.0, "b": 1.8})
    parts = [math.exp(0.5 / temperature), math.exp(0.9 / temperature)]
    assert balancer.factors(losses(a=1.0, b=1.0)) == pytest.approx(
        {"a": 2 * parts[0] / sum(parts), "b": 2 * parts[1] / sum(parts)}
    )


def famo_oracle(rounds: list[tuple[list[float], list[float]]], rate: float, decay: float) -> list[float]:
    """The authors' own formulation, by automatic differentiation."""
    number_T = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([number_T], lr=rate, weight_decay=decay)
    for before, after in rounds:
        delta_T = torch.tensor(before, dtype=torch.float64).log() - torch.tensor(after, dtype=torch.float64).log()
        adam.zero_grad()
        torch.softmax(number_T, dim=0).backward(delta_T)
        adam.step()
    share_T = torch.softmax(number_T.detach(), 0) / torch.tensor(rounds[-1][1], dtype=torch.float64)
    return (2 * share_T / share_T.sum()).tolist()


def test_famo_is_the_authors_update() -> None:
    options = BalancingOptions(weight_learning_rate=0.1, weight_decay=0.01)
    balancer = Famo({}, options, 1)
    rounds = [([4.0, 2.0], [3.0, 1.9]), ([3.0, 1.9], [2.9, 1.0]), ([2.9, 1.0], [1.0, 0.9])]
    for before, after in rounds:
        x = torch.tensor(before, requires_grad=True)
        step = ToyStep(x, {"a": lambda y: y[0], "b": lambda y: y[1]})
        balancer.backward(step)
        with torch.no_grad():
            x.copy_(torch.tensor(after))
        balancer.observe(step)
    factors = balancer.factors(losses(a=1.0, b=0.9))
    assert list(factors.values()) == pytest.approx(famo_oracle(rounds, 0.1, 0.01), rel=1e-5)
    assert list(factors.values()) != pytest.approx(famo_oracle(rounds, 0.1, 0.0), rel=1e-9)


def test_famo_favours_what_fell_least() -> None:
    balancer: Balancer = Famo({}, OPTIONS, 1)
    for _ in range(20):
        x = torch.tensor([1.0, 1.0], requires_grad=True)
        step = ToyStep(x, {"falls": lambda y: y[0], "stays": lambda y: y[1]})
        balancer.backward(step)
        with torch.no_grad():
            x[0] = 0.5
        balancer.observe(step)
    assert balancer.weights["stays"] > 1.2 * balancer.weights["falls"]
