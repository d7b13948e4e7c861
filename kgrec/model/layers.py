"""Layers that the towers are built of: fully connected ones with dropout, gates of features, the compress unit.

Shapes: B rows, W width, T tasks, G groups of inputs (a feature, a shared vector), D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ByteDropout(nn.Module):
    """Dropout with the share rounded to 1/256: one random byte a number, many times quicker on a CPU than `nn.Dropout`.

    Draws from torch's global generator, as `nn.Dropout` does. The kept numbers are scaled by 1 / (kept share).
    part_of: (first, rows) where the inputs are a run of a batch of so many rows that other processes have the rest of:
    it draws for all of them and takes its own, so that every process draws alike.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.dropped = round(share * 256)
        self.part_of: tuple[int, int] | None = None

    def forward(self, inputs_BW: Tensor) -> Tensor:
        """Return the inputs with a random part set to 0 in training, as they are otherwise."""
        if not self.training or self.dropped == 0:
            return inputs_BW
        first, rows = (0, len(inputs_BW)) if self.part_of is None else self.part_of
        width = inputs_BW[0].numel() if len(inputs_BW) else 0
        drawn = torch.empty(rows * width // 8 + 1, dtype=torch.int64).random_(-(2**63), None)
        own = drawn.view(torch.uint8)[first * width : first * width + inputs_BW.numel()]
        kept_BW = own.view(inputs_BW.shape) >= self.dropped
        return inputs_BW * (kept_BW * (256 / (256 - self.dropped)))


class FeedForward(nn.Sequential):
    """Fully connected layers with ReLU, dropout after each and, where `of_inputs`, before the first."""

    def __init__(self, width: int, hidden: Sequence[int], dropout: float, *, of_inputs: bool = True) -> None:
        layers: list[nn.Module] = [ByteDropout(dropout)] if of_inputs else []
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), ByteDropout(dropout)]
            width = size
        super().__init__(*layers)
        self.width = width


class FeatureGates(nn.Module):
    """A gate in (0, 1) for each task and group of inputs: sigmoid(5 * a), a learned, .88 at the start.

    What a task does not need it can close; `opened` is what the report shows. The 5 lets a gate move as far within a
    training as the step size of the weights would not.
    """

    group_W: Tensor
    _SHARPNESS = 5.0

    def __init__(self, num_tasks: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.openness_TG = nn.Parameter(torch.full((num_tasks, len(widths)), 2.0 / self._SHARPNESS))
        groups = torch.arange(len(widths)).repeat_interleave(torch.tensor(widths, dtype=torch.int64))
        self.register_buffer("group_W", groups, persistent=False)

    def opened(self) -> Tensor:
        """Return how far each gate is open, (T, G)."""
        return torch.sigmoid(self._SHARPNESS * self.openness_TG)

    def forward(self, inputs_BW: Tensor) -> list[Tensor]:
        """Return the inputs as each task sees them."""
        return [inputs_BW * gates_W for gates_W in self.opened()[:, self.group_W]]


class CrossCompress(nn.Module):
    """MKR's unit between an item's vector v and its entity's vector e (Wang et al., WWW 2019), in layers.

    C = v e^T; v' = C w_vv + C^T w_ev + b_v; e' = C w_ve + C^T w_ee + b_e. The last layer returns v' alone.
    """

    def __init__(self, dimensions: int, layers: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList(
            torch.randn(4 if depth + 1 < layers else 2, dimensions) / dimensions**0.5 for depth in range(layers)
        )
        self.biases = nn.ParameterList(
            torch.zeros(2 if depth + 1 < layers else 1, dimensions) for depth in range(layers)
        )

    def forward(self, item_BD: Tensor, entity_BD: Tensor) -> Tensor:
        """Return the items' vectors, (B, D). C is never formed: (v e^T) w = v (e . w)."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            item, entity = item_BD, entity_BD
            item_BD = item * (entity @ weight[0])[:, None] + entity * (item @ weight[1])[:, None] + bias[0]
            if len(weight) == 4:
                entity_BD = item * (entity @ weight[2])[:, None] + entity * (item @ weight[3])[:, None] + bias[1]
        return item_BD
