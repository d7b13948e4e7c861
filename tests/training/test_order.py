"""The order of an epoch's rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kgrec.training import order
from kgrec.training.order import shuffled, shuffled_by_user


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


def test_few_rows_come_in_the_order_that_torch_draws() -> None:
    parts = list(shuffled(1_000, 7, torch.Generator().manual_seed(3)))
    assert torch.equal(torch.cat(parts), torch.randperm(1_000, generator=torch.Generator().manual_seed(3)))


@given(st.integers(101, 5_000), st.integers(1, 9), st.integers(0, 99))
def test_many_rows_come_once_each_in_runs_of_neighbours(rows: int, count: int, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "MANY_ROWS", 100)
        parts = list(shuffled(rows, count, torch.Generator().manual_seed(seed)))
    assert len(parts) == count
    assert sorted(torch.cat(parts).tolist()) == list(range(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 3 * 64
    jumps = sum(int((part.diff() != 1).sum()) + 1 for part in parts if len(part))
    assert jumps <= rows // 64 + 2


def test_other_neighbours_meet_in_another_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "MANY_ROWS", 100)
    starts = []
    for seed in range(8):
        rows = torch.cat(list(shuffled(6_400, 2, torch.Generator().manual_seed(seed))))
        starts.append({int(row) % 64 for row in rows[1:][rows.diff() != 1]} - {0})
    assert len({tuple(sorted(start)) for start in starts}) > 4
