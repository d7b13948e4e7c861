"""The click and conversion towers: inputs, a type of sharing, one head a label, and a wide path for numeric features.

Shapes: B rows, N training rows, D dimensions, F numeric features, C categorical features, W width of the inputs,
T tasks (heads), G groups of inputs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from kgrec.model.conversion import conditional_logit
from kgrec.model.embeddings import Head, NetworkShape
from kgrec.model.layers import CrossCompress, FeatureGates
from kgrec.model.sharing import SHARING
from kgrec.model.sharing_role import Mixed, SharingConfig
from kgrec.model.transfer import Imputation, Transfer


class Reads(StrEnum):
    """Which shared vectors the towers read besides the features.

    A user's vector knows which items the user clicked in train, and beside the item's vector it tells a training row
    its own label: towers that read both learn to look it up (KuaiRand: log loss .06 on train, 4.1 on test).
    """

    NOTHING = "nothing"
    ITEM = "item"
    BOTH = "both"


_VECTORS: Final[Mapping[Reads, tuple[str, ...]]] = {
    Reads.NOTHING: (), Reads.ITEM: ("item vector",), Reads.BOTH: ("user vector", "item vector", "user * item"),
}  # fmt: skip


class TowerConfig(SharingConfig):
    """How the towers are built."""

    category_dimensions: int = Field(default=8, ge=1, description="dimensions of a categorical feature's vector, >= 1")
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
    cross_compress: int = Field(
        default=0,
        ge=0,
        le=4,
        description="layers of MKR's unit that mixes the item's vector with its entity's before it is read, 0 to 4",
    )
    feature_gates: bool = Field(
        default=False, description="learn for each task how much of each feature it reads; the report shows the gates"
    )
    gate_penalty: float = Field(
        default=0.01, ge=0, description="feature_gates: weight of the gates' mean openness in the loss, >= 0"
    )


@dataclass(frozen=True)
class TowerOutput:
    """Logits (B,) a head, and what a loss may ask for besides.

    joint_B: the logit of click and conversion where a transfer tower gives it. imputed_B: the expected loss of
    conversion where there is an imputation tower. mixed: what the sharing made of the inputs.
    """

    logits: dict[Head, Tensor]
    mixed: Mixed
    joint_B: Tensor | None = None
    imputed_B: Tensor | None = None


class Towers(nn.Module):
    """Logits of click and of conversion given click, one for each head of the shape.

    A logit is bias + wide(numeric) + a weight per category + head(sharing(all inputs and user * item)).
    The wide path starts at 0 and carries what is near to linear (smoothed rates) past the dropout.
    `slope_T` and `intercept_T` calibrate logits (`calibrated`); they are fitted after training and no parameters.
    """

    mean_F: Tensor
    scale_F: Tensor
    slope_T: Tensor
    intercept_T: Tensor

    def __init__(self, shape: NetworkShape, dimensions: int, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        self.heads: tuple[Head, ...] = shape.heads
        self.offsets = [0, *torch.tensor(shape.cardinalities, dtype=torch.int64).cumsum(0).tolist()]
        self.register_buffer("offset_C", torch.tensor(self.offsets[:-1], dtype=torch.int64), persistent=False)
        self.register_buffer("last_C", torch.tensor(shape.cardinalities, dtype=torch.int64) - 1, persistent=False)
        self.register_buffer("mean_F", torch.zeros(shape.num_numeric))
        self.register_buffer("scale_F", torch.ones(shape.num_numeric))
        self.register_buffer("slope_T", torch.ones(len(self.heads)))
        self.register_buffer("intercept_T", torch.zeros(len(self.heads)))
        self.categories = nn.Embedding(self.offsets[-1], config.category_dimensions)
        self.categories.weight.data.normal_(std=0.05)
        self.groups = _groups(shape, dimensions, config)
        self.sharing = SHARING[config.sharing](sum(self.groups), len(self.heads), config)
        self.deep = nn.Linear(self.sharing.width, len(self.heads))
        with warnings.catch_warnings():  # torch warns of an empty layer: a log without numeric features is no fault
            warnings.simplefilter("ignore", UserWarning)
            self.wide = nn.Linear(shape.num_numeric, len(self.heads), bias=False)
        self.wide_categories = nn.Embedding(self.offsets[-1], len(self.heads))
        if self.wide.weight.numel():
            nn.init.zeros_(self.wide.weight)
        self.wide_categories.weight.data.zero_()
        self._add_options(dimensions, "transfer" in shape.tower_parts, "imputation" in shape.tower_parts)

    def _add_options(self, dimensions: int, transfer: bool, imputation: bool) -> None:
        """Make what only some configs have, last, so that it changes no other parameter's start."""
        config, both = self.config, {"click", "conversion"} <= set(self.heads)
        self.gates = FeatureGates(len(self.heads), self.groups) if config.feature_gates else None
        self.compress = CrossCompress(dimensions, config.cross_compress) if config.cross_compress else None
        self.transfer = Transfer(self.sharing.width) if transfer and both else None
        self.imputation = Imputation(self.sharing.width) if imputation and both else None

    def prepare(self, numeric_NF: Tensor | Callable[[], Iterable[Tensor]], rates: dict[Head, float]) -> None:
        """Learn the numeric features' mean and spread from training rows (NaN left out) and start at the base rates.

        Rows that do not fit in memory are handed in as a function that gives them piece by piece, as often as asked.
        Where a transfer tower learns click and conversion at once, conversion starts at the product of the rates.
        """
        with torch.no_grad():
            if not isinstance(numeric_NF, Tensor) or numeric_NF.numel():
                mean_F, spread_F = _moments(numeric_NF)
                self.mean_F.copy_(mean_F)
                self.scale_F.copy_(torch.where(spread_F > 1e-6, spread_F, torch.ones_like(spread_F)))
            for column, head in enumerate(self.heads):
                rate = rates.get(head, 0.5)
                if head == "conversion" and self.transfer is not None:
                    rate *= rates.get("click", 0.5)
                rate = min(max(rate, 1e-4), 1 - 1e-4)
                self.deep.bias[column] = math.log(rate / (1 - rate))

    def head_weights(self) -> Tensor:
        """Return what each head makes of the shared layers, (heads, W): how alike they are tells how tasks relate."""
        return self.deep.weight

    def forward(
        self,
        user_BD: Tensor,
        item_BD: Tensor,
        numeric_BF: Tensor,
        categorical_BC: Tensor,
        entity_BD: Tensor | None = None,
    ) -> TowerOutput:
        """Return a logit (B,) for each head.

        user_BD and item_BD have length 1 (or 0 where nothing is known); entity_BD, the items' own rows, are read where
        `cross_compress` is on. A numeric NaN counts as the training mean. A category outside its range, as -1 for one
        never seen, adds nothing.
        """
        vectors = self._vectors(user_BD, item_BD, entity_BD)
        numeric_BF = ((numeric_BF - self.mean_F) / self.scale_F).nan_to_num(0.0).clamp(-8, 8)
        category_BCK, wide_category_BCT = self._category_parts(categorical_BC)
        inputs_BW = torch.cat([*vectors, numeric_BF, category_BCK.flatten(1)], dim=1)
        inputs = [inputs_BW] * len(self.heads) if self.gates is None else self.gates(inputs_BW)
        mixed: Mixed = self.sharing(inputs)
        outputs = list(mixed.outputs)
        if self.transfer is not None:
            outputs[-1] = self.transfer(outputs[0], outputs[-1])
        logits_BT = self._deep(outputs) + self._wide(numeric_BF, wide_category_BCT)
        logits = {head: logits_BT[:, column] for column, head in enumerate(self.heads)}
        joint_B = None
        if self.transfer is not None:
            joint_B = logits["conversion"]
            logits["conversion"] = conditional_logit(joint_B, logits["click"])
        imputed_B = self.imputation(outputs[-1]) if self.imputation is not None else None
        return TowerOutput(logits, mixed, joint_B, imputed_B)

    def penalty(self, output: TowerOutput, rows_TB: Tensor) -> Tensor | None:
        """Return what sharing and gates add to the loss, or None. rows_TB: True where a row has the task's label."""
        found = [self.sharing.penalty(output.mixed, rows_TB)]
        if self.gates is not None and self.config.gate_penalty:
            found.append(self.config.gate_penalty * self.gates.opened().mean())
        terms = [term for term in found if term is not None]
        return torch.stack(terms).sum() if terms else None

    def calibrated(self, logits: Mapping[Head, Tensor]) -> dict[Head, Tensor]:
        """Return slope * logit + intercept of each head: the logits themselves until a calibration was fitted."""
        return {
            head: logits[head] * self.slope_T[column] + self.intercept_T[column]
            for column, head in enumerate(self.heads)
        }

    def gate_values(self, numeric: list[str], categorical: list[str]) -> dict[str, dict[str, float]]:
        """Return how far each task's gate of each feature is open, in (0, 1), by the features' names; {} without."""
        if self.gates is None:
            return {}
        names = [*_VECTORS[self.config.reads], *numeric, *categorical]
        table = self.gates.opened().tolist()
        return {head: dict(zip(names, line, strict=True)) for head, line in zip(self.heads, table, strict=True)}

    def _deep(self, outputs: list[Tensor]) -> Tensor:
        if all(output is outputs[0] for output in outputs):
            logits_BT: Tensor = self.deep(outputs[0])
            return logits_BT
        return torch.einsum("tbo,to->bt", torch.stack(outputs), self.deep.weight) + self.deep.bias

    def _wide(self, numeric_BF: Tensor, category_BCT: Tensor) -> Tensor:
        """Return the linear part, (B, T); gates close a feature here as well."""
        if self.gates is None:
            linear_BT = category_BCT.sum(1)
            return linear_BT + self.wide(numeric_BF) if self.wide.in_features else linear_BT
        gates_TG = self.gates.opened()
        first = len(self.groups) - numeric_BF.shape[1] - category_BCT.shape[1]
        numeric_TF, category_TC = torch.tensor_split(gates_TG[:, first:], [numeric_BF.shape[1]], dim=1)
        linear_BT = numeric_BF @ (self.wide.weight * numeric_TF).T
        return linear_BT + (category_BCT * category_TC.T).sum(1)

    def _vectors(self, user_BD: Tensor, item_BD: Tensor, entity_BD: Tensor | None) -> list[Tensor]:
        """Return the shared vectors that are read, scaled so that each number is about 1."""
        root = math.sqrt(user_BD.shape[1])
        user_BD, item_BD = (self._scaled_gradient(part) * root for part in (user_BD, item_BD))
        if self.compress is not None:
            if entity_BD is None:
                raise ValueError("cross_compress reads the items' entities, and none were handed in")
            entity_BD = self._scaled_gradient(functional.normalize(entity_BD, dim=1)) * root
            item_BD = self.compress(item_BD, entity_BD)
        choice = {Reads.NOTHING: [], Reads.ITEM: [item_BD], Reads.BOTH: [user_BD, item_BD, user_BD * item_BD]}
        return choice[self.config.reads]

    def _scaled_gradient(self, vectors_BD: Tensor) -> Tensor:
        share = self.config.shared_gradient
        return vectors_BD.detach() if share == 0 else vectors_BD * share + vectors_BD.detach() * (1 - share)

    def _category_parts(self, categorical_BC: Tensor) -> tuple[Tensor, Tensor]:
        last_C, offset_C = self.get_buffer("last_C"), self.get_buffer("offset_C")
        known_BC1 = ((categorical_BC >= 0) & (categorical_BC <= last_C)).unsqueeze(-1)
        row_BC = categorical_BC.clamp(min=0).minimum(last_C) + offset_C
        return self.categories(row_BC) * known_BC1, self.wide_categories(row_BC) * known_BC1


def _moments(numeric_NF: Tensor | Callable[[], Iterable[Tensor]]) -> tuple[Tensor, Tensor]:
    """Return each feature's mean and spread, NaN left out; 0 where there is no number."""
    if isinstance(numeric_NF, Tensor):
        mean_F = numeric_NF.nanmean(dim=0).nan_to_num()
        return mean_F, (numeric_NF - mean_F).square().nanmean(dim=0).sqrt().nan_to_num()
    count_F = torch.stack([(~piece.isnan()).sum(dim=0) for piece in numeric_NF()]).sum(dim=0).clamp(min=1)
    mean_F = torch.stack([piece.nansum(dim=0, dtype=torch.float64) for piece in numeric_NF()]).sum(dim=0) / count_F
    apart = (piece.double().sub_(mean_F).square_().nansum(dim=0) for piece in numeric_NF())
    return mean_F.float(), (torch.stack([*apart]).sum(dim=0) / count_F).sqrt().float()


def _groups(shape: NetworkShape, dimensions: int, config: TowerConfig) -> list[int]:
    """Return the width of each group of inputs: the shared vectors, each number, each category."""
    vectors = [dimensions] * len(_VECTORS[config.reads])
    return [*vectors, *[1] * shape.num_numeric, *[config.category_dimensions] * len(shape.cardinalities)]


def probabilities(logits: Mapping[Head, Tensor]) -> dict[str, Tensor]:
    """Return p(click), p(conversion | click) and, where both are there, their product `click_and_conversion`.

    >>> probabilities({"click": torch.zeros(1), "conversion": torch.zeros(1)})["click_and_conversion"].item()
    0.25
    """
    result: dict[str, Tensor] = {head: functional.sigmoid(logit_B) for head, logit_B in logits.items()}
    if "click" in result and "conversion" in result:
        result["click_and_conversion"] = result["click"] * result["conversion"]
    return result
