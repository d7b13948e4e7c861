"""Every key of the towers and of their losses has an effect, and every combination trains."""

import pytest
import torch

from kgrec.model.conversion import CONVERSIONS, ConversionName, TowerLossConfig
from kgrec.model.embeddings import NetworkShape
from kgrec.model.network import NetworkConfig
from kgrec.model.propagation import GraphEdges
from kgrec.model.sharing_role import SharingName
from kgrec.model.towers import TowerConfig
from kgrec.training.exposures import TowerTask
from kgrec.training.tasks import TrainingData, make_network
from tests.training.worlds_of_tensors import exposures

BASE = {"hidden": (4, 3), "dropout": 0.0}
EDGES = GraphEdges(torch.stack([torch.arange(20), torch.arange(20)], dim=1), GraphEdges.empty().user_item_X2)
TOWERS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "sharing": ({}, {"sharing": "mmoe"}),
    "hidden": ({}, {"hidden": (5,)}),
    "dropout": ({}, {"dropout": 0.5}),
    "experts": ({"sharing": "mmoe"}, {"sharing": "mmoe", "experts": 5}),
    "task_experts": ({"sharing": "cgc"}, {"sharing": "cgc", "task_experts": 2}),
    "tie": ({"sharing": "soft"}, {"sharing": "soft", "tie": 5.0}),
    "adversary": ({"sharing": "adversarial"}, {"sharing": "adversarial", "adversary": 5.0}),
    "orthogonality": ({"sharing": "adversarial"}, {"sharing": "adversarial", "orthogonality": 5.0}),
    "category_dimensions": ({}, {"category_dimensions": 2}),
    "reads": ({}, {"reads": "nothing"}),
    "shared_gradient": ({}, {"shared_gradient": 1.0}),
    "cross_compress": ({}, {"cross_compress": 1}),
    "feature_gates": ({}, {"feature_gates": True}),
    "gate_penalty": ({"feature_gates": True}, {"feature_gates": True, "gate_penalty": 0.5}),
}
LOSSES: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "conversion": ({}, {"conversion": "clicked_only"}),
    "propensity_floor": ({"conversion": "escm2_ips"}, {"conversion": "escm2_ips", "propensity_floor": 1.0}),
    "counterfactual_weight": ({"conversion": "escm2_dr"}, {"conversion": "escm2_dr", "counterfactual_weight": 1.0}),
    "order_weight": ({"conversion": "aitm"}, {"conversion": "aitm", "order_weight": 9.0}),
    "imbalance": ({}, {"imbalance": "balanced"}),
    "focal_gamma": ({"imbalance": "focal"}, {"imbalance": "focal", "focal_gamma": 0.5}),
}


def learned(towers: dict[str, object], losses: dict[str, object], steps: int = 3) -> tuple[float, torch.Tensor]:
    """Return the first step's summed losses and the shared vectors after some steps."""
    table, *_ = exposures(120, impressions=True)
    config = TowerLossConfig(**losses)
    shape = NetworkShape(
        num_users=20, num_items=20, num_entities=20, num_numeric=2, cardinalities=(3,), heads=table.heads,
        tower_parts=CONVERSIONS[config.conversion].parts,
    )  # fmt: skip
    settings = NetworkConfig(dimensions=4, id_dropout=0.0, towers=TowerConfig(**{**BASE, **towers}))
    network = make_network(shape, settings, TrainingData(EDGES, exposures=table), 1).train()
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    task, values = TowerTask(table, config), []
    for _ in range(steps):
        optimiser.zero_grad()
        total = torch.stack(list(task.losses(network, network.encode(), (torch.arange(task.rows),)).values())).sum()
        total.backward()
        optimiser.step()
        values.append(total.item())
    return sum(values), network.encode().items_ID.detach()


@pytest.mark.parametrize("key", TOWERS)
def test_every_key_of_the_towers_has_an_effect(key: str) -> None:
    before, after = TOWERS[key]
    (first, _), (second, _) = learned(before, {}), learned(after, {})
    if key == "shared_gradient":
        assert not torch.allclose(learned(before, {})[1], learned(after, {})[1], atol=1e-4)
    else:
        assert first != second


@pytest.mark.parametrize("key", LOSSES)
def test_every_key_of_the_losses_has_an_effect(key: str) -> None:
    before, after = LOSSES[key]
    steps = 60 if key == "order_weight" else 3  # until conversion passes click somewhere
    assert learned({}, before, steps)[0] != learned({}, after, steps)[0]


def test_no_key_escapes() -> None:
    assert set(TOWERS) == set(TowerConfig.model_fields)
    assert set(LOSSES) == set(TowerLossConfig.model_fields)


@pytest.mark.parametrize("conversion", list(ConversionName))
@pytest.mark.parametrize("sharing", list(SharingName))
def test_every_sharing_learns_by_every_loss(sharing: SharingName, conversion: ConversionName) -> None:
    losses = {"conversion": conversion}
    first, _ = learned({"sharing": sharing, "feature_gates": True}, losses, steps=1)
    later, _ = learned({"sharing": sharing, "feature_gates": True}, losses, steps=12)
    assert later / 12 < first
