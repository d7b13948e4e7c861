"""What every balancer promises. The list is read from the registry, so that none escapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kgrec.training.balancer import Balancer, BalancerName, BalancingOptions
from kgrec.training.balancing import BALANCERS
from kgrec.training.trainer import Progress, TrainingConfig, TrainingResult
from tests.training.resume_script import run
from tests.training.toy_steps import ToyStep, lines

ORTHOGONAL = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
SHORT = TrainingConfig(epochs=6, batch_size=64, patience=0, evaluate_every=2, checkpoint_every=1, threads=1)


@pytest.fixture(params=list(BalancerName), ids=str)
def name(request: pytest.FixtureRequest) -> BalancerName:
    return BalancerName(request.param)


def make(name: BalancerName, **prior: float) -> Balancer:
    return BALANCERS[name](prior, BalancingOptions(), 7)


def update(balancer: Balancer, *directions: list[float], own: tuple[str, ...] = ()) -> ToyStep:
    x = torch.zeros(3, requires_grad=True)
    functions = lines(x, *directions)
    step = ToyStep(x, functions, own, functions)
    balancer.backward(step)
    balancer.observe(step)
    return step


def test_the_registry_holds_every_word() -> None:
    assert set(BALANCERS) == set(BalancerName)


def test_a_single_loss_gives_its_own_gradient_times_its_prior(name: BalancerName) -> None:
    step = update(make(name, a=0.5), [1.0, -2.0, 3.0], own=("a",))
    assert step.x.grad is not None
    assert step.x.grad.tolist() == [0.5, -1.0, 1.5]
    assert step.own["a"].grad is not None
    assert step.own["a"].grad.item() == 0.5


def test_any_subset_of_losses_in_any_step_gives_finite_gradients_that_lower_what_agrees(name: BalancerName) -> None:
    balancer = make(name)
    for count in (2, 1, 3, 2):
        step = update(balancer, *[[1.0, 0.1 * k, 0.2] for k in range(count)])
        assert step.x.grad is not None
        assert torch.isfinite(step.x.grad).all()
        assert step.x.grad[0] > 0


def test_at_the_start_equal_losses_without_conflict_weigh_alike_and_a_larger_prior_weighs_more(
    name: BalancerName,
) -> None:
    equal = update(make(name), *ORTHOGONAL).x.grad
    heavier = update(make(name, b=2.0), *ORTHOGONAL).x.grad
    assert equal is not None
    assert heavier is not None
    assert torch.allclose(equal, equal[0].expand(3), atol=1e-3)
    assert 0.5 < float(equal.sum()) / 3 < 2
    assert float(heavier[1] / heavier[0]) > 1.1
    assert torch.allclose(heavier[0], heavier[2], atol=1e-3)


def test_a_prior_of_zero_leaves_a_loss_out(name: BalancerName) -> None:
    step = update(make(name, b=0.0), *ORTHOGONAL[:2], own=("a", "b"))
    assert step.x.grad is not None
    assert step.x.grad[0] > 0
    assert step.x.grad[1] == 0
    assert step.own["b"].grad is not None
    assert step.own["b"].grad.item() == 0


def test_what_only_one_loss_reaches_gets_its_own_gradient(name: BalancerName) -> None:
    if not make(name).cuts_trunk:
        pytest.skip("weighs whole losses")
    step = update(make(name, a=0.5), *ORTHOGONAL[:2], own=("a", "b"))
    sizes = [float(part.grad) for part in step.own.values() if part.grad is not None]
    assert sizes == pytest.approx([0.5, 1.0])


def test_memory_goes_through_state_and_load(name: BalancerName) -> None:
    first, second = make(name), make(name)
    for _ in range(3):
        update(first, [1.0, -0.5, 0.0], [-0.3, 1.0, 0.0])
    first.end_epoch({"a": 3.0, "b": 1.0})
    first.end_epoch({"a": 2.0, "b": 1.0})
    state = {key: tensor.clone() for key, tensor in first.state().items()}
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
    second.load(state)
    for _ in range(2):
        left = update(first, [1.0, -0.5, 0.2], [-0.3, 1.0, 0.0]).x.grad
        right = update(second, [1.0, -0.5, 0.2], [-0.3, 1.0, 0.0]).x.grad
        assert left is not None
        assert right is not None
        assert torch.equal(left, right)


def test_a_training_that_is_killed_goes_on_bit_for_bit_and_learns_the_planted_taste(
    name: BalancerName, tmp_path: Path
) -> None:
    class PulledPlugError(Exception):
        pass

    def pull(progress: Progress) -> None:
        if progress.epoch == 3:
            raise PulledPlugError

    def silent(progress: Progress) -> None:
        pass

    config = SHORT.model_copy(update={"balancing": name})
    unbroken = run(None, config, silent)[1]
    with pytest.raises(PulledPlugError):
        run(tmp_path / "state.safetensors", config, pull)
    resumed = run(tmp_path / "state.safetensors", config, silent)[1]
    assert resumed.history == unbroken.history
    assert all(torch.equal(tensor, resumed.best_state[key]) for key, tensor in unbroken.best_state.items())
    assert best(unbroken) > 0.7  # chance: 0.25
    assert ("weight/link" in unbroken.history[-1]) is (name is not BalancerName.FIXED)


def best(result: TrainingResult) -> float:
    return max(entry.get("validation/objective", 0.0) for entry in result.history)
