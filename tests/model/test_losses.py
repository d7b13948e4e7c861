import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.model import losses
from kgrec.model.losses import (
    click_loss,
    entire_space_loss,
    full_softmax_loss,
    sampled_softmax_loss,
)


def softmax_oracle(users, items, pairs, weights, temperature, candidates) -> float:
    total = 0.0
    for (user, item), weight in zip(pairs, weights, strict=True):
        score = [float(users[user].double() @ items[i].double()) / temperature for i in range(len(items))]
        total += weight * (math.log(sum(math.exp(score[i]) for i in candidates)) - score[item])
    return total / sum(weights)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(2, 9))
def test_full_softmax_is_the_loop_over_positives_and_candidates(seed: int, positives: int, num_items: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    users_VD, items_ID = torch.randn(4, 3, generator=generator), torch.randn(num_items, 3, generator=generator)
    user_P = torch.randint(4, (positives,), generator=generator)
    item_P = torch.randint(num_items, (positives,), generator=generator)
    weight_P = torch.rand(positives, generator=generator) + 0.1
    candidate_I = torch.rand(num_items, generator=generator) < 0.5
    candidate_I[item_P] = True
    got = full_softmax_loss(users_VD, items_ID, user_P, item_P, weight_P, 0.7, candidate_I)
    chosen = candidate_I.nonzero().flatten().tolist()
    pairs = list(zip(user_P.tolist(), item_P.tolist(), strict=True))
    assert got.item() == pytest.approx(
        softmax_oracle(users_VD, items_ID, pairs, weight_P.tolist(), 0.7, chosen), rel=1e-4, abs=1e-6
    )


def plain_softmax(users, items, user_P, item_P, weight_P, temperature, candidate_I):
    """The loss as torch's own functions say it, with the gradient of autograd."""
    logits_PI = (users @ items.T / temperature).masked_fill(~candidate_I, -math.inf)[user_P]
    each_P = torch.nn.functional.cross_entropy(logits_PI, item_P, reduction="none")
    return (each_P * weight_P).sum() / weight_P.sum()


@pytest.mark.parametrize(
    ("temperature", "bfloat16", "near"), [(0.2, False, 1e-5), (0.2, True, 0.01), (0.01, False, 1e-4)]
)
@pytest.mark.parametrize("chunk", [8_000_000, 40])
def test_the_gradient_is_autograds_in_chunks_of_any_size(
    chunk: int, temperature: float, bfloat16: bool, near: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_CHUNK_SCORES", chunk)
    generator = torch.Generator().manual_seed(5)
    users_VD, items_ID = (
        torch.nn.functional.normalize(torch.randn(count, 8, generator=generator), dim=1) for count in (11, 17)
    )
    user_P, item_P = (torch.randint(count, (30,), generator=generator) for count in (11, 17))
    weight_P, candidate_I = torch.rand(30, generator=generator), torch.rand(17, generator=generator) < 0.7
    candidate_I[item_P] = True
    gradients, values = [], []
    for form in (full_softmax_loss, plain_softmax):
        users, items = users_VD.clone().requires_grad_(), items_ID.clone().requires_grad_()
        more = {"bfloat16": bfloat16} if form is full_softmax_loss else {}
        loss = form(users, items, user_P, item_P, weight_P, temperature, candidate_I, **more)
        (3 * loss).backward()
        values.append(loss.item())
        gradients.append(torch.cat([users.grad, items.grad]))
    assert values[0] == pytest.approx(values[1], rel=near)
    assert (gradients[0] - gradients[1]).norm() <= near * gradients[1].norm()


def test_items_that_are_no_candidates_get_no_gradient() -> None:
    items_ID = torch.eye(3).requires_grad_()
    candidate_I = torch.tensor([True, True, False])
    full_softmax_loss(
        torch.ones(1, 3), items_ID, torch.tensor([0]), torch.tensor([0]), torch.ones(1), 1.0, candidate_I
    ).backward()
    assert items_ID.grad is not None
    assert items_ID.grad[2].abs().sum() == 0
    assert items_ID.grad[1].abs().sum() > 0


def test_weights_that_sum_to_zero_give_zero() -> None:
    one = torch.eye(2)
    assert full_softmax_loss(one, one, torch.tensor([0]), torch.tensor([1]), torch.zeros(1), 1.0).item() == 0


def test_sampled_softmax_approaches_the_full_one_with_many_draws() -> None:
    generator = torch.Generator().manual_seed(3)
    users_VD, items_ID = torch.randn(5, 4, generator=generator), torch.randn(50, 4, generator=generator)
    user_P, item_P = torch.arange(5), torch.arange(5) * 7
    weight_P = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0])
    full = full_softmax_loss(users_VD, items_ID, user_P, item_P, weight_P, 0.5)
    drawn_M = torch.randint(50, (60_000,), generator=generator)
    few_M = drawn_M[:50]
    args = (user_P, item_P, drawn_M, weight_P, 0.5, 50)
    many = sampled_softmax_loss(users_VD, items_ID[item_P], items_ID[drawn_M], *args)
    few = sampled_softmax_loss(users_VD, items_ID[item_P], items_ID[few_M], user_P, item_P, few_M, weight_P, 0.5, 50)
    assert many.item() == pytest.approx(full.item(), rel=0.02)
    assert abs(few - full) < 0.6 * full


def plain_sampled_softmax(users_VD, items_ID, user_P, item_P, drawn_M, weight_P, temperature, num_candidates):
    """A table of positives times draws, those that hit the positive cut out of it."""
    logits_PM = users_VD[user_P] @ items_ID[drawn_M].T / temperature
    positive_P = (users_VD[user_P] * items_ID[item_P]).sum(1) / temperature
    hit_PM = item_P[:, None] == drawn_M[None, :]
    lift_P1 = ((num_candidates - 1) / (~hit_PM).sum(1, keepdim=True).clamp(min=1)).log()
    logits_PM = logits_PM.masked_fill(hit_PM, -torch.inf) + lift_P1
    loss_P = torch.cat([positive_P[:, None], logits_PM], 1).logsumexp(1) - positive_P
    return (weight_P * loss_P).sum() / weight_P.sum()


@pytest.mark.parametrize("temperature", [0.5, 0.01])  # 0.01: beyond what can be raised to e as it is
@pytest.mark.parametrize("scores_at_once", [8_000_000, 60])  # 60: chunks of one user
def test_sampled_softmax_and_its_gradients_are_those_of_a_plain_table(temperature, scores_at_once, monkeypatch) -> None:
    monkeypatch.setattr("kgrec.model.losses._CHUNK_SCORES", scores_at_once)
    generator = torch.Generator().manual_seed(5)
    tables = [torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=1) for n in (7, 30)]
    user_P = torch.tensor([3, 0, 3, 6, 1, 1, 3, 5])  # 2 and 4 have no positive here
    item_P = torch.randint(30, (8,), generator=generator)
    drawn_M = torch.cat([torch.randint(30, (40,), generator=generator), item_P[:2], item_P[:1]])
    weight_P = torch.rand(8, generator=generator)
    found = []
    for loss_of in (plain_sampled_softmax, None):
        users_VD, items_ID = (table.double().requires_grad_() for table in tables)
        if loss_of is None:
            loss = sampled_softmax_loss(
                users_VD, items_ID[item_P], items_ID[drawn_M], user_P, item_P, drawn_M, weight_P, temperature, 30
            )
        else:
            loss = loss_of(users_VD, items_ID, user_P, item_P, drawn_M, weight_P, temperature, 30)
        (3 * loss).backward()
        found.append((loss.detach(), users_VD.grad, items_ID.grad))
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9, check_dtype=False)


def test_every_draw_hitting_the_positive_leaves_it_alone() -> None:
    one = torch.ones(1, 2)
    hit_M = torch.tensor([4, 4])
    loss = sampled_softmax_loss(
        one, one, one.expand(2, 2), torch.tensor([0]), torch.tensor([4]), hit_M, torch.ones(1), 1, 9
    )
    assert loss.item() == 0


@settings(max_examples=40, deadline=None)
@given(st.floats(-6, 6), st.floats(-6, 6), st.booleans())
def test_entire_space_is_the_cross_entropy_of_the_product(click: float, conversion: float, label: bool) -> None:
    both = 1 / (1 + math.exp(-click)) / (1 + math.exp(-conversion))
    oracle = -math.log(both) if label else -math.log(1 - both)
    got = entire_space_loss(torch.tensor([click]), torch.tensor([conversion]), torch.tensor([float(label)]))
    assert got.item() == pytest.approx(oracle, rel=1e-3, abs=1e-5)


def test_entire_space_stays_finite_where_probabilities_round_to_zero_and_one() -> None:
    far = torch.tensor([-200.0, 200.0], requires_grad=True)
    for label in (0.0, 1.0):
        loss = entire_space_loss(far, far, torch.full((2,), label))
        (gradient,) = torch.autograd.grad(loss, far)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def test_click_loss_is_the_log_loss() -> None:
    loss = click_loss(torch.tensor([0.0, math.log(3)]), torch.tensor([1.0, 0.0]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-5)


def test_no_rows_give_zero() -> None:
    none = torch.zeros(0)
    assert click_loss(none, none).item() == 0
    assert entire_space_loss(none, none, none).item() == 0
