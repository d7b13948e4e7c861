import math
from dataclasses import replace

import pytest
import torch

from kgrec.model.embeddings import NetworkShape
from kgrec.model.layers import CrossCompress, FeatureGates, FeedForward
from kgrec.model.network import Network, NetworkConfig
from kgrec.model.propagation import GraphEdges
from kgrec.model.towers import TowerConfig, Towers
from kgrec.model.transfer import Imputation, Transfer

SHAPE = NetworkShape(
    num_users=3, num_items=4, num_entities=6, num_relations=1, num_numeric=2, cardinalities=(3,),
    heads=("click", "conversion"),
)  # fmt: skip


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def test_cross_compress_is_the_outer_product_times_the_weights() -> None:
    torch.manual_seed(0)
    unit = CrossCompress(3, 2)
    with torch.no_grad():
        for bias in unit.biases:
            bias.normal_()
    item_BD, entity_BD = torch.randn(4, 3), torch.randn(4, 3)
    got = unit(item_BD, entity_BD)
    for row in range(4):
        v, e = item_BD[row].tolist(), entity_BD[row].tolist()
        for weight, bias in zip(unit.weights, unit.biases, strict=True):
            w, b = weight.tolist(), bias.tolist()
            cross = [[a * c for c in e] for a in v]  # C = v e^T
            turned = [list(line) for line in zip(*cross, strict=True)]
            new_v = [dot(cross[d], w[0]) + dot(turned[d], w[1]) + b[0][d] for d in range(3)]
            if len(w) == 4:
                e = [dot(cross[d], w[2]) + dot(turned[d], w[3]) + b[1][d] for d in range(3)]
            v = new_v
        assert got[row].tolist() == pytest.approx(v, rel=1e-4)


def test_the_item_input_mixes_in_the_entity_only_where_asked() -> None:
    edges = GraphEdges(torch.tensor([[0, 2], [1, 3]]), GraphEdges.empty().user_item_X2)
    for layers in (0, 2):
        config = NetworkConfig(dimensions=4, towers=TowerConfig(cross_compress=layers, shared_gradient=1.0))
        network = Network(SHAPE, config, edges, seed=1).eval()
        rows = torch.tensor([0, 1]), torch.tensor([3, -1]), torch.ones(2, 2), torch.zeros(2, 1, dtype=torch.int64)
        encoded = network.encode()
        encoded = replace(encoded, items_ID=encoded.items_ID.detach())
        network.predict(*rows, encoded=encoded)["click"].sum().backward()
        gradient = network.tables.entities_ED.grad
        assert (gradient is not None and bool(gradient[3].abs().sum() > 0)) is (layers > 0)
    assert network.towers is not None
    with pytest.raises(ValueError, match="none were handed in"):
        network.towers(torch.zeros(2, 4), torch.zeros(2, 4), rows[2], rows[3])


def test_gates_weigh_each_group_for_each_task() -> None:
    gates = FeatureGates(2, [2, 1])
    with torch.no_grad():
        gates.openness_TG.copy_(torch.tensor([[0.0, 9.0], [-9.0, 0.2]]))
    first, second = gates(torch.tensor([[2.0, 4.0, 6.0]]))
    assert first.tolist()[0] == pytest.approx([1.0, 2.0, 6.0], abs=1e-4)
    assert second.tolist()[0] == pytest.approx([0.0, 0.0, 6 / (1 + math.exp(-1))], abs=1e-4)


def test_a_gate_closes_on_noise_and_stays_open_on_the_signal() -> None:
    generator = torch.Generator().manual_seed(0)
    numeric_NF = torch.randn(2000, 2, generator=generator)
    click_N, conversion_N = ((3 * numeric_NF[:, column]).sigmoid() > 0.5 for column in (0, 1))
    torch.manual_seed(0)
    config = TowerConfig(feature_gates=True, gate_penalty=0.1, reads="nothing", dropout=0.0, hidden=(8,))
    towers = Towers(SHAPE, 4, config)
    towers.prepare(numeric_NF, {})
    optimiser = torch.optim.AdamW(towers.parameters(), lr=0.02, weight_decay=0.01)
    vectors, category = torch.zeros(2000, 4), torch.full((2000, 1), -1)
    for _ in range(150):
        optimiser.zero_grad()
        output = towers(vectors, vectors, numeric_NF, category)
        losses = [
            torch.nn.functional.binary_cross_entropy_with_logits(output.logits[head], label.float())
            for head, label in (("click", click_N), ("conversion", conversion_N))
        ]
        penalty = towers.penalty(output, torch.ones(2, 2000, dtype=torch.bool))
        assert penalty is not None
        (sum(losses) + penalty).backward()  # type: ignore[union-attr]
        optimiser.step()
    gates = towers.gate_values(["own", "other"], ["category"])
    assert gates["click"]["own"] > gates["click"]["other"] + 0.3
    assert gates["conversion"]["other"] > gates["conversion"]["own"] + 0.3
    assert Towers(SHAPE, 4, TowerConfig()).gate_values(["own", "other"], ["category"]) == {}


def test_the_transfer_is_attention_over_two() -> None:
    torch.manual_seed(0)
    unit = Transfer(3)
    click_BO, conversion_BO = torch.randn(4, 3), torch.randn(4, 3)
    got = unit(click_BO, conversion_BO)
    weights = {name: part.weight.tolist() for name, part in unit.named_children()}
    bias = unit.hand_on.bias.tolist()
    for row in range(4):
        handed = [
            max(0.0, dot(line, click_BO[row].tolist()) + b) for line, b in zip(weights["hand_on"], bias, strict=True)
        ]
        values, powers = [], []
        for vector in (conversion_BO[row].tolist(), handed):
            key, query, value = ([dot(line, vector) for line in weights[name]] for name in ("key", "query", "value"))
            powers.append(math.exp(dot(key, query) / math.sqrt(3)))
            values.append(value)
        expected = [sum(p * v[o] for p, v in zip(powers, values, strict=True)) / sum(powers) for o in range(3)]
        assert got[row].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_rows_in_pieces_give_the_mean_and_spread_of_all() -> None:
    numeric_NF = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 50.0]) + 3
    numeric_NF[::7, 1] = torch.nan
    whole, parted = Towers(SHAPE, 4, TowerConfig()), Towers(SHAPE, 4, TowerConfig())
    whole.prepare(numeric_NF, {"click": 0.3})
    parted.prepare(lambda: numeric_NF.split(120), {"click": 0.3})
    torch.testing.assert_close(parted.mean_F, whole.mean_F)
    torch.testing.assert_close(parted.scale_F, whole.scale_F)
    assert whole.scale_F[1] > 40


def test_a_joint_tower_gives_the_conditional_and_starts_at_the_product_of_the_rates() -> None:
    torch.manual_seed(0)
    towers = Towers(SHAPE.model_copy(update={"tower_parts": ("transfer", "imputation")}), 4, TowerConfig()).eval()
    towers.prepare(torch.zeros(5, 2), {"click": 0.4, "conversion": 0.5})
    assert torch.sigmoid(towers.deep.bias).tolist() == pytest.approx([0.4, 0.2])
    rows = torch.zeros(5, 4), torch.zeros(5, 4), torch.randn(5, 2), torch.zeros(5, 1, dtype=torch.int64)
    output = towers(*rows)
    assert output.joint_B is not None
    product = torch.sigmoid(output.logits["click"]) * torch.sigmoid(output.logits["conversion"])
    expected = torch.minimum(torch.sigmoid(output.joint_B), torch.sigmoid(output.logits["click"]))
    torch.testing.assert_close(product, expected, atol=1e-5, rtol=1e-4)
    assert output.imputed_B is not None
    assert (output.imputed_B >= 0).all()
    assert Imputation(3)(torch.randn(6, 3)).shape == (6,)


def test_layers_drop_their_inputs_only_where_asked() -> None:
    torch.manual_seed(0)
    ones = torch.ones(200, 4)
    for of_inputs in (True, False):
        part = FeedForward(4, (3,), 0.5, of_inputs=of_inputs).train()
        with torch.no_grad():
            part[-3].weight.fill_(1.0)
            part[-3].bias.fill_(0.0)
        summed = {round(value) for value in part(ones).unique().tolist()}  # 4, doubled or dropped at the end
        assert (summed == {0, 8}) is not of_inputs
