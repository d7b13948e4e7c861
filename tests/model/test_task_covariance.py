import pytest
import torch

from kgrec.model.task_covariance import covariance_penalty, task_covariance
from kgrec.training.tasks import TaskConfig, TrainingData, make_network, make_tasks
from kgrec.training.trainer import TrainingConfig, train
from tests.training.worlds_of_tensors import SMALL, exposures, tastes


def test_the_covariance_minimises_the_penalty_over_all_covariances_of_trace_one() -> None:
    generator = torch.Generator().manual_seed(1)
    weights_TW = torch.randn(3, 5, generator=generator, dtype=torch.float64)

    def penalty(covariance_TT: torch.Tensor) -> float:
        return float((weights_TW * (covariance_TT.inverse() @ weights_TW)).sum())

    best = task_covariance(weights_TW)
    assert float(best.trace()) == pytest.approx(1.0)
    assert torch.allclose(best, best.T)
    for _ in range(200):
        factor_TT = torch.randn(3, 3, generator=generator, dtype=torch.float64)
        other = factor_TT @ factor_TT.T + 0.01 * torch.eye(3)
        other = 0.9 * best + 0.1 * other / other.trace()
        assert penalty(best) <= penalty(other)


def test_the_penalty_is_the_squared_sum_of_singular_values_and_its_gradient_holds_the_covariance_fixed() -> None:
    weights_TW = torch.randn(3, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    penalty = covariance_penalty(weights_TW)
    assert penalty.item() == pytest.approx(float(torch.linalg.svdvals(weights_TW.detach()).sum()) ** 2)
    penalty.backward()
    assert weights_TW.grad is not None
    expected = 2 * task_covariance(weights_TW).inverse() @ weights_TW.detach()
    assert torch.allclose(weights_TW.grad, expected)


def test_planted_relations() -> None:
    axis_W = torch.tensor([1.0, 2.0, 0.0])
    opposed = task_covariance(torch.stack([axis_W, -axis_W]))
    assert opposed[0, 1].item() == pytest.approx(-0.5)
    assert task_covariance(torch.eye(2))[0, 1].item() == pytest.approx(0.0)
    assert torch.equal(task_covariance(torch.zeros(2, 3)), torch.eye(2, dtype=torch.float64) / 2)
    assert torch.isfinite(covariance_penalty(torch.zeros(2, 3)))


def test_training_with_the_penalty_ties_the_heads_and_reports_their_covariance() -> None:
    table, *_ = exposures(300, impressions=True)
    shape = tastes()[0].model_copy(update={"heads": table.heads, "num_numeric": 2, "cardinalities": (3,)})
    data = TrainingData(tastes()[1].edges, exposures=table)
    sums = []
    for weight in (0.0, 1.0):
        network = make_network(shape, SMALL, data, 1)
        config = TrainingConfig(epochs=6, batch_size=100, patience=0, threads=1, covariance_weight=weight)
        steady = iter(range(1000))
        result = train(
            network, make_tasks(shape, data, TaskConfig()), config, 1, lambda _, s=steady: {"objective": next(s)}
        )
        assert result.best_epoch == 6
        assert network.towers is not None
        sums.append(float(torch.linalg.svdvals(network.towers.head_weights().detach()).sum()))
    assert sums[1] < 0.8 * sums[0]
