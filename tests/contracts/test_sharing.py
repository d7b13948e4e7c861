"""What every type of sharing promises. The list is read from the registry, so that none escapes."""

import math

import pytest
import torch
from torch.nn import functional

from kgrec.model.embeddings import NetworkShape
from kgrec.model.experts import Experts, mixture
from kgrec.model.sharing import SHARING, Adversarial, CrossStitch
from kgrec.model.sharing_role import Sharing, SharingConfig, SharingName
from kgrec.model.towers import TowerConfig, Towers

B, W, T = 7, 5, 2
ROWS_TB = torch.tensor([[True] * B, [True, False, True, False, False, True, False]])
CONFIG = SharingConfig(hidden=(6, 4), dropout=0.0, tie=0.1, adversary=0.5, orthogonality=0.2)
SHAPE = NetworkShape(
    num_users=3, num_items=4, num_entities=4, num_numeric=2, cardinalities=(3,), heads=("click", "conversion")
)


@pytest.fixture(params=sorted(SHARING), ids=str)
def name(request: pytest.FixtureRequest) -> SharingName:
    return SharingName(request.param)


def made(name: SharingName, seed: int = 1, config: SharingConfig = CONFIG) -> Sharing:
    torch.manual_seed(seed)
    sharing = SHARING[name](W, T, config)
    with torch.no_grad():
        for parameter in sharing.parameters():  # away from zeros and equal starts, and every unit alive
            parameter.add_(torch.rand(parameter.shape) * 0.2 + 0.05)
    return sharing


def given(seed: int = 0) -> torch.Tensor:
    return torch.rand(B, W, generator=torch.Generator().manual_seed(seed)) + 0.1


def reached(outputs: torch.Tensor, parameters: list[torch.nn.Parameter]) -> list[bool]:
    found = torch.autograd.grad(outputs, parameters, retain_graph=True, allow_unused=True)
    return [gradient is not None and bool(gradient.abs().sum() > 0) for gradient in found]


def test_the_registry_holds_every_word() -> None:
    assert set(SHARING) == set(SharingName)


def test_each_task_has_an_output_of_the_width_told(name: SharingName) -> None:
    sharing = made(name)
    mixed = sharing([given()] * T)
    assert [tuple(output.shape) for output in mixed.outputs] == [(B, sharing.width)] * T


def test_every_parameter_gets_a_gradient(name: SharingName) -> None:
    sharing = made(name)
    mixed = sharing([given()] * T)
    penalty = sharing.penalty(mixed, ROWS_TB)
    total = sum(output.square().sum() for output in mixed.outputs) + (0 if penalty is None else penalty)
    parameters = dict(sharing.named_parameters())
    assert isinstance(total, torch.Tensor)
    assert dict(zip(parameters, reached(total, list(parameters.values())), strict=True)) == dict.fromkeys(
        parameters, True
    )


def test_private_parameters_move_their_own_task_alone(name: SharingName) -> None:
    sharing = made(name)
    outputs = [output.square().sum() for output in sharing([given()] * T).outputs]
    for task in range(T):
        if private := sharing.private(task):
            assert all(reached(outputs[task], private))
            assert not any(reached(outputs[1 - task], private))
    expected = {SharingName.HARD, SharingName.CROSS_STITCH}
    assert (name in expected) is (not sharing.private(0))


def test_tasks_depend_on_each_other_as_the_type_says(name: SharingName) -> None:
    """What is common to both tasks' outputs: everything in hard and cross-stitch, nothing but the penalty in soft."""
    sharing = made(name)
    outputs = [output.square().sum() for output in sharing([given()] * T).outputs]
    parameters = list(sharing.parameters())
    common = [a and b for a, b in zip(*(reached(output, parameters) for output in outputs), strict=True)]
    assert all(common) is (name in {SharingName.HARD, SharingName.CROSS_STITCH})
    assert any(common) is (name is not SharingName.SOFT)


def test_own_inputs_reach_their_task_and_equal_ones_change_nothing(name: SharingName) -> None:
    sharing = made(name).eval()
    one, other = given(), given(5)
    together = sharing([one] * T).outputs
    apart = sharing([one, one.clone()]).outputs
    torch.testing.assert_close(apart, together)
    changed = sharing([one, other]).outputs
    assert not torch.allclose(changed[1], together[1])


def test_the_same_seed_gives_the_same_and_a_saved_state_comes_back(name: SharingName) -> None:
    first, again, other = made(name), made(name), made(name, seed=2)
    for left, right in zip(first([given()] * T).outputs, again([given()] * T).outputs, strict=True):
        assert torch.equal(left, right)
    assert not torch.equal(first([given()] * T).outputs[0], other([given()] * T).outputs[0])
    other.load_state_dict(first.state_dict())
    assert torch.equal(first([given()] * T).outputs[1], other([given()] * T).outputs[1])


def towers(name: SharingName, **changes: object) -> Towers:
    torch.manual_seed(3)
    return Towers(SHAPE, 4, TowerConfig(sharing=name, hidden=(16, 8), dropout=0.0, **changes))


def test_a_planted_world_of_two_tasks_is_learned(name: SharingName) -> None:
    """Click is an exclusive or of two signs, conversion one with a category: no linear model knows them."""
    generator = torch.Generator().manual_seed(0)
    numeric_NF = torch.randn(400, 2, generator=generator)
    category_NC = torch.randint(2, (400, 1), generator=generator)
    click_N = (numeric_NF[:, 0] * numeric_NF[:, 1] > 0).float()
    conversion_N = ((numeric_NF[:, 0] > 0) ^ (category_NC[:, 0] > 0)).float()
    model, item_ND = towers(name), torch.zeros(400, 4)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(90):
        optimiser.zero_grad()
        output = model(item_ND, item_ND, numeric_NF, category_NC)
        loss = functional.binary_cross_entropy_with_logits(output.logits["click"], click_N)
        loss = loss + functional.binary_cross_entropy_with_logits(output.logits["conversion"], conversion_N)
        penalty = model.penalty(output, torch.stack([click_N >= 0, click_N > 0]))
        (loss if penalty is None else loss + penalty).backward()
        optimiser.step()
    logits = model(item_ND, item_ND, numeric_NF, category_NC).logits
    for head, label_N in (("click", click_N), ("conversion", conversion_N)):
        assert ((logits[head] > 0).float() == label_N).double().mean() > 0.93, head


def layer_oracle(inputs: list[float], part: torch.nn.Module) -> list[float]:
    """Plain Python: linear layers with ReLU."""
    values = inputs
    for layer in part:  # type: ignore[attr-defined]
        if isinstance(layer, torch.nn.Linear):
            rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
            values = [
                max(0.0, sum(w * v for w, v in zip(weights, values, strict=True)) + bias) for weights, bias in rows
            ]
    return values


def gate_oracle(inputs: list[float], gate: torch.nn.Linear) -> list[float]:
    rows = zip(gate.weight.tolist(), gate.bias.tolist(), strict=True)
    powers = [math.exp(sum(w * v for w, v in zip(weights, inputs, strict=True)) + bias) for weights, bias in rows]
    return [power / sum(powers) for power in powers]


def blend(weights: list[float], outputs: list[list[float]]) -> list[float]:
    return [sum(w * output[o] for w, output in zip(weights, outputs, strict=True)) for o in range(len(outputs[0]))]


@pytest.mark.parametrize("name", [SharingName.MMOE, SharingName.CGC, SharingName.PLE])
def test_experts_are_the_loop_over_levels_gates_and_experts(name: SharingName) -> None:
    sharing = made(name).eval()
    assert isinstance(sharing, Experts)
    inputs_BW, own = given(), 0 if name is SharingName.MMOE else CONFIG.task_experts
    got = sharing([inputs_BW] * T).outputs
    for row in range(B):
        of_task = [inputs_BW[row].tolist()] * T
        shared = inputs_BW[row].tolist()
        for level, experts in enumerate(sharing.experts):
            common = [layer_oracle(shared, expert) for expert in experts[: CONFIG.experts]]  # type: ignore[index]
            owned = []
            for task in range(T):
                first = CONFIG.experts + task * own
                owned.append([layer_oracle(of_task[task], part) for part in experts[first : first + own]])  # type: ignore[index]
            following = [
                blend(gate_oracle(of_task[task], sharing.gates[level][task]), common + owned[task])  # type: ignore[index]
                for task in range(T)
            ]
            if level < len(sharing.common_gates):
                shared = blend(gate_oracle(shared, sharing.common_gates[level]), common + owned[0] + owned[1])  # type: ignore[arg-type]
            of_task = following
        for task in range(T):
            assert got[task][row].tolist() == pytest.approx(of_task[task], rel=1e-4)
    assert len(sharing.experts) == (len(CONFIG.hidden) if name is SharingName.PLE else 1)


def test_cross_stitch_is_the_loop_over_layers_and_tasks() -> None:
    sharing = made(SharingName.CROSS_STITCH).eval()
    assert isinstance(sharing, CrossStitch)
    inputs_BW = given()
    got = sharing([inputs_BW] * T).outputs
    for row in range(B):
        values = [inputs_BW[row].tolist()] * T
        for layer, stitch in zip(sharing.layers, sharing.stitches, strict=True):
            made_here = [layer_oracle(values[task], layer[task]) for task in range(T)]  # type: ignore[index]
            values = [blend(stitch[task].tolist(), made_here) for task in range(T)]
        for task in range(T):
            assert got[task][row].tolist() == pytest.approx(values[task], rel=1e-4)


def test_the_tie_is_the_sum_of_squared_distances() -> None:
    sharing = made(SharingName.SOFT)
    first, second = (list(sharing.bottoms[task].parameters()) for task in range(T))  # type: ignore[index,union-attr]
    expected = 0.0
    for left, right in zip(first, second, strict=True):
        for a, b in zip(left.flatten().tolist(), right.flatten().tolist(), strict=True):
            expected += (a - b) ** 2
    penalty = sharing.penalty(sharing([given()] * T), ROWS_TB)
    assert penalty is not None
    assert penalty.item() == pytest.approx(0.1 * expected, rel=1e-4)
    untied = made(SharingName.SOFT, config=CONFIG.model_copy(update={"tie": 0.0}))
    assert untied.penalty(untied([given()] * T), ROWS_TB) is None


def test_the_adversary_is_the_loop_over_tasks_and_its_gradient_comes_back_reversed() -> None:
    sharing = made(SharingName.ADVERSARIAL)
    assert isinstance(sharing, Adversarial)
    mixed = sharing([given()] * T)
    assert mixed.shared_BO is not None
    missed, overlap = 0.0, 0.0
    for task in range(T):
        rows = [row for row in range(B) if ROWS_TB[task, row]]
        for row in rows:
            chances = gate_oracle(mixed.shared_BO[row].tolist(), sharing.discriminator)
            missed -= math.log(chances[task]) / len(rows) / T
        for output in mixed.outputs[task].tolist():
            shared, private = output[:4], output[4:]
            dot = sum(a * b for a, b in zip(shared, private, strict=True))
            norms = math.hypot(*shared) * math.hypot(*private)
            overlap += (dot / norms) ** 2 / B / T
    penalty = sharing.penalty(mixed, ROWS_TB)
    assert penalty is not None
    assert penalty.item() == pytest.approx(0.5 * missed + 0.2 * overlap, rel=1e-4)
    plain = functional.log_softmax(sharing.discriminator(mixed.shared_BO), dim=1)[:, 0].sum()
    (forward,) = torch.autograd.grad(plain, mixed.shared_BO, retain_graph=True)
    free = SharingConfig(hidden=(6, 4), dropout=0.0, adversary=0.5, orthogonality=0.0)
    sharing.config = free
    only_click = sharing.penalty(mixed, torch.tensor([[True] * B, [False] * B]))
    assert only_click is not None
    (backward,) = torch.autograd.grad(only_click, mixed.shared_BO)
    torch.testing.assert_close(backward, forward * 0.5 / B / T)  # -log p, reversed


def test_a_mixture_weighs_by_the_softmax() -> None:
    got = mixture(torch.tensor([[0.0, math.log(3)]]), [torch.tensor([[4.0]]), torch.tensor([[8.0]])])
    assert got.item() == pytest.approx(4 / 4 + 8 * 3 / 4)
