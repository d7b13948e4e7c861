"""GradNorm and torchjd's combiners against their definitions, and the trunk against a slow oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchjd.aggregation as torchjd
from scipy.optimize import minimize

from kgrec.training.balancer import BalancerName, BalancingOptions
from kgrec.training.balancing import BALANCERS
from kgrec.training.gradient_weights import GradNorm
from kgrec.training.meta_weights import MetaWeights
from kgrec.training.step import Step
from kgrec.training.tasks import TaskConfig, make_network, make_tasks
from kgrec.training.trunk import gramian
from tests.training.toy_steps import SHARED, ToyStep, lines
from tests.training.worlds_of_tensors import SMALL, exposures, tastes

CONFLICT = ([1.0, 0.2, 0.0], [-0.7, 0.5, 0.1], [0.1, -0.3, 2.0])
JACOBIAN = torch.tensor(CONFLICT)
OPTIONS = BalancingOptions()


def combined(name: BalancerName, options: BalancingOptions = OPTIONS, **prior: float) -> torch.Tensor:
    x = torch.zeros(3, requires_grad=True)
    BALANCERS[name](prior, options, 7).backward(ToyStep(x, lines(x, *CONFLICT)))
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize(
    ("name", "aggregator"),
    [
        (BalancerName.UPGRAD, torchjd.UPGrad()),
        (BalancerName.MGDA, torchjd.MGDA()),
        (BalancerName.CAGRAD, torchjd.CAGrad(c=0.4)),
        (BalancerName.ALIGNED_MTL, torchjd.AlignedMTL()),
        (BalancerName.NASH_MTL, torchjd.NashMTL(n_tasks=3)),
    ],
    ids=str,
)
def test_the_direction_is_that_of_torchjd_on_the_whole_jacobian(
    name: BalancerName, aggregator: torchjd.Aggregator
) -> None:
    expected, found = aggregator(JACOBIAN), combined(name)
    assert torch.allclose(found / found.norm(), expected / expected.norm(), atol=1e-2)


def test_mgda_is_the_shortest_mean_of_the_gradients() -> None:
    jacobian = JACOBIAN.double().numpy()
    best = minimize(
        lambda w: float(np.square(w @ jacobian).sum()), np.ones(3) / 3, bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, tol=1e-12,
    )  # fmt: skip
    assert torch.allclose(combined(BalancerName.MGDA) / 3, torch.tensor(best.x @ jacobian).float(), atol=2e-2)


def test_nash_mtl_is_the_fixed_point_of_its_bargain() -> None:
    found = combined(BalancerName.NASH_MTL)
    gain_T = JACOBIAN @ found
    weight_T = torch.linalg.solve(JACOBIAN.T, found)
    assert torch.allclose(gain_T * weight_T, (gain_T * weight_T).mean().expand(3), rtol=0.1)


def test_pcgrad_projects_a_conflict_away() -> None:
    x = torch.zeros(3, requires_grad=True)
    first, second = JACOBIAN[0], JACOBIAN[1]
    BALANCERS[BalancerName.PCGRAD]({"a": 0.5}, OPTIONS, 7).backward(ToyStep(x, lines(x, *CONFLICT[:2])))
    product = first @ second
    expected = 0.5 * (first - product / (second @ second) * second) + (second - product / (first @ first) * first)
    assert x.grad is not None
    assert torch.allclose(x.grad, expected, atol=1e-6)


def test_no_loss_rises_along_the_update_of_upgrad_mgda_and_nash() -> None:
    for name in (BalancerName.UPGRAD, BalancerName.MGDA, BalancerName.NASH_MTL):
        assert (JACOBIAN @ combined(name) > -1e-2).all(), name
    assert not (JACOBIAN @ combined(BalancerName.FIXED) > 0).all() or (JACOBIAN.sum(0) @ JACOBIAN.T > 0).all()


def test_options_of_combiners_have_an_effect() -> None:
    wide = BalancingOptions(cagrad_radius=0.9)
    assert not torch.allclose(combined(BalancerName.CAGRAD), combined(BalancerName.CAGRAD, wide), atol=1e-3)

    def second(every: int) -> dict[str, float]:
        balancer = BALANCERS[BalancerName.NASH_MTL]({}, BalancingOptions(nash_every=every), 7)
        for rows in (CONFLICT, ([1.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 9.0])):
            x = torch.zeros(3, requires_grad=True)
            balancer.backward(ToyStep(x, lines(x, *rows)))
        return balancer.weights

    assert second(1) != second(2)


def test_gradnorm_moves_each_weight_towards_its_own_rate() -> None:
    """By hand: lengths 1 and 3, both losses at their start, so both targets are the mean length 2."""
    balancer = GradNorm({}, BalancingOptions(weight_learning_rate=0.1), 7)
    x = torch.zeros(2, requires_grad=True)
    balancer.backward(ToyStep(x, lines(x, [1.0, 0.0], [0.0, 3.0])))
    x = torch.zeros(2, requires_grad=True)
    balancer.backward(ToyStep(x, lines(x, [1.0, 0.0], [0.0, 3.0])))
    assert balancer.weights == {"a": pytest.approx(1.1), "b": pytest.approx(0.9)}


@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_gradnorm_favours_the_loss_that_lags(alpha: float) -> None:
    balancer = GradNorm({}, BalancingOptions(gradnorm_alpha=alpha), 7)
    for step in range(40):
        x = torch.zeros(2, requires_grad=True)
        fallen = 10.0 if step == 0 else 1.0
        functions = {"lags": lambda y: 10.0 + y[0], "fell": lambda y, f=fallen: f + y[1]}
        balancer.backward(ToyStep(x, functions))
    ratio = balancer.weights["lags"] / balancer.weights["fell"]
    assert ratio > 2 if alpha else ratio == pytest.approx(1.0, abs=0.1)


def test_meta_weights_are_the_slope_of_the_held_out_loss_one_step_ahead() -> None:
    """Held-out is what `good` does; `bad` pulls the other way, `other` elsewhere."""
    balancer = MetaWeights({}, OPTIONS, 7)
    for _ in range(60):
        x = torch.zeros(3, requires_grad=True)
        functions = lines(x, [1.0, 0.0, 0.0], [-1.0, 0.5, 0.0], [0.0, 0.0, 1.0])
        step = ToyStep(x, functions, held_out={"a": lambda y: 5.0 + y[0]})
        balancer.backward(step)
        balancer.observe(step)
    weights = balancer.weights
    assert weights["a"] > weights["c"] > weights["b"]


def test_the_cut_gives_the_gradients_of_an_uncut_backward_pass_and_reaches_what_is_shared() -> None:
    shape, data, _ = tastes()
    table, *_ = exposures(300, impressions=True)
    shape = shape.model_copy(update={"heads": table.heads, "num_numeric": 2, "cardinalities": (3,)})
    data = replace(data, exposures=table)
    network = make_network(shape, SMALL, data, 1).eval()
    tasks = make_tasks(shape, data, TaskConfig())
    generator = torch.Generator().manual_seed(1)
    batches = [(task, next(iter(task.batches(generator, 4)))) for task in tasks]
    weights = {"retrieval": 0.5, "click": 2.0, "conversion": 1.0, "link": 0.1}
    plain = Step(network, batches)
    sum(weights[name] * loss for name, loss in plain.losses.items()).backward()
    expected = {name: part.grad.clone() for name, part in network.named_parameters() if part.grad is not None}
    network.zero_grad(set_to_none=True)
    cut = Step(network, batches, cut=True)
    gradients = cut.gradients()
    cut.send(gradients, weights, weights)
    found = {name: part.grad for name, part in network.named_parameters() if part.grad is not None}
    assert set(found) == set(expected)
    for name, part in expected.items():
        torch.testing.assert_close(found[name], part, atol=1e-6, rtol=1e-4)
    table_TT = gramian(gradients)
    assert torch.allclose(table_TT, table_TT.T)
    assert (torch.linalg.eigvalsh(table_TT) > -1e-9).all()
    names = list(gradients)
    retrieval, link = names.index("retrieval"), names.index("link")
    items = len(gradients["retrieval"]["items_ID"])
    by_hand = (gradients["retrieval"]["items_ID"] * gradients["link"]["entities_ED"][:items]).sum()
    assert table_TT[retrieval, link].item() == pytest.approx(by_hand.item(), rel=1e-4)
    with pytest.raises(ValueError, match="not cut"):
        plain.gradients()


def test_the_toy_step_shares_one_vector() -> None:
    x = torch.zeros(3, requires_grad=True)
    assert list(ToyStep(x, lines(x, *CONFLICT)).gradients()["a"]) == [SHARED]
