import pytest
import torch

from kgrec.training.balancing import BALANCERS, FixedBalancer


@pytest.fixture(params=sorted(BALANCERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_balancer_puts_finite_gradients_down_for_any_subset_of_losses(name: str) -> None:
    balancer = BALANCERS[name]({"a": 2.0})
    for names in (["a"], ["a", "b"], ["b"]):
        x = torch.ones(3, requires_grad=True)
        balancer.backward({loss: (x * (k + 1)).square().sum() for k, loss in enumerate(names)})
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()
        assert (x.grad > 0).all()
        balancer.load(balancer.state())


def test_fixed_weights_are_the_gradient_of_the_weighted_sum() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    FixedBalancer({"a": 0.5, "c": 0.0}).backward({"a": x.square().sum(), "b": x.sum(), "c": x.pow(3).sum()})
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, -1.0]
