"""The order of an epoch's rows."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from kgrec.training.order import shuffled_by_user


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 8), st.integers(0, 99))
def test_every_row_comes_once_in_near_equal_parts_and_users_come_together(
    users: list[int], count: int, seed: int
) -> None:
    user_P = torch.tensor(users)
    parts = list(shuffled_by_user(user_P, count, torch.Generator().manual_seed(seed)))
    rows = torch.cat(parts)
    assert sorted(rows.tolist()) == list(range(len(users)))
    assert len(parts) == count
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    runs = torch.unique_consecutive(user_P[rows])
    assert len(runs) == len(set(users))  # no user comes back once another has come


def test_the_order_of_users_is_drawn() -> None:
    user_P = torch.arange(6).repeat_interleave(2)
    orders = {
        tuple(user_P[torch.cat(list(shuffled_by_user(user_P, 2, torch.Generator().manual_seed(seed))))].tolist())
        for seed in range(20)
    }
    assert len(orders) > 10
    again = [torch.cat(list(shuffled_by_user(user_P, 3, torch.Generator().manual_seed(1)))) for _ in range(2)]
    assert torch.equal(again[0], again[1])
