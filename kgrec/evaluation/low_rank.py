"""Low-rank factors of a linear scorer, so that a nearest-neighbour index can serve it.

Shapes: U users, I items, B rows of a chunk, R rank, S = R + a few columns of slack.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from kgrec.evaluation.baselines import Scorer
from kgrec.evaluation.pairs import Pairs

_SLACK: Final = 16
_PASSES: Final = 3
_CHUNK_SCORES: Final = 16_000_000


def low_rank(scorer: Scorer, history_UI: Pairs, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return fold_IR and items_IR with (sum of fold_IR over a history) @ items_IR.T close to the scorer's scores.

    The scorer must be linear in the history (a product with an items x items matrix). items_IR: the leading right
    singular vectors of the users' scores, orthonormal, found by randomised subspace iteration (Halko et al., 2011), so
    that what is kept is what matters for these users. The items x items matrix itself is never made.
    """
    items = history_UI.num_columns
    width = min(rank + _SLACK, items, history_UI.num_rows)
    basis_IS = torch.linalg.qr(torch.randn(items, width, generator=generator)).Q
    chunk = max(1, _CHUNK_SCORES // max(items, 1))
    rows_U = history_UI.counts().nonzero()[:, 0]
    for _ in range(_PASSES):
        image_IS = torch.zeros_like(basis_IS)
        for rows_B in torch.split(rows_U, chunk):
            scores_BI = scorer(history_UI.take(rows_B)).float()
            image_IS += scores_BI.T @ (scores_BI @ basis_IS)
        basis_IS = torch.linalg.qr(image_IS).Q
    gram_SS = torch.zeros(width, width)
    for rows_B in torch.split(rows_U, chunk):
        part_BS = scorer(history_UI.take(rows_B)).float() @ basis_IS
        gram_SS += part_BS.T @ part_BS
    items_IR = basis_IS @ torch.linalg.eigh(gram_SS).eigenvectors.flip(1)[:, :rank]
    each_I = torch.arange(items)
    single_II = Pairs.of(each_I, each_I, items, items)
    fold_IR = torch.cat([scorer(single_II.take(rows_B)).float() @ items_IR for rows_B in torch.split(each_I, chunk)])
    return fold_IR, items_IR.contiguous()
