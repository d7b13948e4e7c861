from __future__ import annotations

import numpy as np
import pytest
import torch

from kgrec.model.network import placed_users
from kgrec.serving.placing import Placing

USERS, ITEMS, D = 5, 9, 4


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("history", [[], [3], [0, 2, 5, 8]])
def test_one_user_is_placed_as_the_network_places_many(own, constant, history):
    numbers = np.random.default_rng(len(history))
    own_UD, fold_ID = (numbers.normal(size=(rows, D)).astype(np.float32) for rows in (USERS, ITEMS))
    table_UW = numbers.normal(size=(USERS, D + constant)).astype(np.float32)
    vectors = {"user_vectors_UD": table_UW, "item_fold_ID": fold_ID}
    vectors |= {"user_own_UD": own_UD} if own else {}
    vectors |= {"block_widths": np.array([D])} if constant else {}
    placing = Placing(vectors, np.array([1, 1, 0, 0, 0]))
    rows = np.array(history, dtype=np.int64)
    for row in (1, 2, None):
        found = placing.vector(row, rows)
        if row == 1 and not own:
            assert found.tolist() == table_UW[1].tolist(), "the trained row as it is"
            continue
        mine = own_UD[1] if row == 1 else np.zeros(D, dtype=np.float32)
        sums = fold_ID[rows].sum(axis=0)
        expected = placed_users(torch.from_numpy(mine)[None], torch.from_numpy(sums)[None], torch.tensor([len(rows)]))
        if not history and row != 1:
            assert found is None
            continue
        np.testing.assert_allclose(found[:D], expected[0].numpy(), atol=1e-6)
        assert found[D:].tolist() == [1.0] * constant
        assert found.dtype == np.float32
