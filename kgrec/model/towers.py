"""The click and conversion towers: shared bottom, one head a label, and a wide path for the numeric features.

Shapes: B rows, N training rows, D dimensions, F numeric features, C categorical features, W width of the bottom.
"""

from __future__ import annotations

import math
import warnings
from enum import StrEnum

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from kgrec.model.embeddings import Head, NetworkShape


class Reads(StrEnum):
    """Which shared vectors the towers read besides the features.

    A user's vector knows which items the user clicked in train, and beside the item's vector it tells a training row
    its own label: towers that read both learn to look it up (KuaiRand: log loss .06 on train, 4.1 on test).
    """

    NOTHING = "nothing"
    ITEM = "item"
    BOTH = "both"


class TowerConfig(BaseModel):
    """How the towers are built."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: tuple[int, ...] = Field(default=(64, 32), description="widths of the shared bottom's layers, units >= 1")
    category_dimensions: int = Field(default=8, ge=1, description="dimensions of a categorical feature's vector, >= 1")
    dropout: float = Field(
        default=0.3, ge=0, lt=1, description="share of the bottom's inputs and units dropped, [0, 1)"
    )
    reads: Reads = Field(
        default=Reads.ITEM,
        description='shared vectors that the towers read: "item", "both" (with the user, whose vector knows the labels '
        'of train: it overfits) or "nothing"',
    )
    shared_gradient: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of the towers' gradient that reaches the shared vectors, [0, 1]; 0 = none",
    )


class ByteDropout(nn.Module):
    """Dropout with the share rounded to 1/256: one random byte a number, many times quicker on a CPU than `nn.Dropout`.

    Draws from torch's global generator, as `nn.Dropout` does. The kept numbers are scaled by 1 / (kept share).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.dropped = round(share * 256)

    def forward(self, inputs_BW: Tensor) -> Tensor:
        """Return the inputs with a random part set to 0 in training, as they are otherwise."""
        if not self.training or self.dropped == 0:
            return inputs_BW
        drawn = torch.empty(inputs_BW.numel() // 8 + 1, dtype=torch.int64).random_(-(2**63), None)
        kept_BW = drawn.view(torch.uint8)[: inputs_BW.numel()].view(inputs_BW.shape) >= self.dropped
        return inputs_BW * (kept_BW * (256 / (256 - self.dropped)))


class Towers(nn.Module):
    """Logits of click and of conversion given click, one for each head of the shape.

    A logit is bias + wide(numeric) + a weight per category + head(bottom(all inputs and user * item)).
    The wide path starts at 0 and carries what is near to linear (smoothed rates) past the dropout.
    """

    mean_F: Tensor
    scale_F: Tensor

    def __init__(self, shape: NetworkShape, dimensions: int, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        self.heads: tuple[Head, ...] = shape.heads
        self.offsets = [0, *torch.tensor(shape.cardinalities, dtype=torch.int64).cumsum(0).tolist()]
        self.register_buffer("offset_C", torch.tensor(self.offsets[:-1], dtype=torch.int64), persistent=False)
        self.register_buffer("last_C", torch.tensor(shape.cardinalities, dtype=torch.int64) - 1, persistent=False)
        self.register_buffer("mean_F", torch.zeros(shape.num_numeric))
        self.register_buffer("scale_F", torch.ones(shape.num_numeric))
        self.categories = nn.Embedding(self.offsets[-1], config.category_dimensions)
        self.categories.weight.data.normal_(std=0.05)
        vectors = {Reads.NOTHING: 0, Reads.ITEM: 1, Reads.BOTH: 3}[config.reads]
        width = vectors * dimensions + shape.num_numeric + config.category_dimensions * len(shape.cardinalities)
        layers: list[nn.Module] = [ByteDropout(config.dropout)]
        for size in config.hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), ByteDropout(config.dropout)]
            width = size
        self.bottom = nn.Sequential(*layers)
        self.deep = nn.Linear(width, len(self.heads))
        with warnings.catch_warnings():  # torch warns of an empty layer: a log without numeric features is no fault
            warnings.simplefilter("ignore", UserWarning)
            self.wide = nn.Linear(shape.num_numeric, len(self.heads), bias=False)
        self.wide_categories = nn.Embedding(self.offsets[-1], len(self.heads))
        if self.wide.weight.numel():
            nn.init.zeros_(self.wide.weight)
        self.wide_categories.weight.data.zero_()

    def prepare(self, numeric_NF: Tensor, rates: dict[Head, float]) -> None:
        """Learn the numeric features' mean and spread from training rows (NaN left out) and start at the base rates."""
        with torch.no_grad():
            if numeric_NF.numel():
                self.mean_F.copy_(numeric_NF.nanmean(dim=0).nan_to_num())
                spread_F = (numeric_NF - self.mean_F).square().nanmean(dim=0).sqrt().nan_to_num()
                self.scale_F.copy_(torch.where(spread_F > 1e-6, spread_F, torch.ones_like(spread_F)))
            for column, head in enumerate(self.heads):
                rate = min(max(rates.get(head, 0.5), 1e-4), 1 - 1e-4)
                self.deep.bias[column] = math.log(rate / (1 - rate))

    def forward(
        self, user_BD: Tensor, item_BD: Tensor, numeric_BF: Tensor, categorical_BC: Tensor
    ) -> dict[Head, Tensor]:
        """Return a logit (B,) for each head.

        user_BD and item_BD have length 1 (or 0 where nothing is known). A numeric NaN counts as the training mean. A
        category outside its range, as -1 for one never seen, adds nothing.
        """
        vectors = self._vectors(user_BD, item_BD)
        numeric_BF = ((numeric_BF - self.mean_F) / self.scale_F).nan_to_num(0.0).clamp(-8, 8)
        category_BCK, wide_category_BT = self._category_parts(categorical_BC)
        inputs_BW = torch.cat([*vectors, numeric_BF, category_BCK.flatten(1)], dim=1)
        logits_BT = self.deep(self.bottom(inputs_BW)) + wide_category_BT
        if self.wide.in_features:
            logits_BT = logits_BT + self.wide(numeric_BF)
        return {head: logits_BT[:, column] for column, head in enumerate(self.heads)}

    def _vectors(self, user_BD: Tensor, item_BD: Tensor) -> list[Tensor]:
        """Return the shared vectors that the bottom reads, scaled so that each number is about 1."""
        root = math.sqrt(user_BD.shape[1])
        user_BD, item_BD = (self._scaled_gradient(part) * root for part in (user_BD, item_BD))
        choice = {Reads.NOTHING: [], Reads.ITEM: [item_BD], Reads.BOTH: [user_BD, item_BD, user_BD * item_BD]}
        return choice[self.config.reads]

    def _scaled_gradient(self, vectors_BD: Tensor) -> Tensor:
        share = self.config.shared_gradient
        return vectors_BD.detach() if share == 0 else vectors_BD * share + vectors_BD.detach() * (1 - share)

    def _category_parts(self, categorical_BC: Tensor) -> tuple[Tensor, Tensor]:
        last_C, offset_C = self.get_buffer("last_C"), self.get_buffer("offset_C")
        known_BC1 = ((categorical_BC >= 0) & (categorical_BC <= last_C)).unsqueeze(-1)
        row_BC = categorical_BC.clamp(min=0).minimum(last_C) + offset_C
        return self.categories(row_BC) * known_BC1, (self.wide_categories(row_BC) * known_BC1).sum(1)


def probabilities(logits: dict[Head, Tensor]) -> dict[str, Tensor]:
    """Return p(click), p(conversion | click) and, where both are there, their product `click_and_conversion`.

    >>> probabilities({"click": torch.zeros(1), "conversion": torch.zeros(1)})["click_and_conversion"].item()
    0.25
    """
    result: dict[str, Tensor] = {head: functional.sigmoid(logit_B) for head, logit_B in logits.items()}
    if "click" in result and "conversion" in result:
        result["click_and_conversion"] = result["click"] * result["conversion"]
    return result
