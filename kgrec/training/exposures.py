"""The towers' rows and what is learned of them: click on all exposures, conversion as the config says.

Shapes: N exposures, B rows of a batch, T heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kgrec.model.conversion import CONVERSIONS, TowerLogits, TowerLossConfig
from kgrec.model.embeddings import Head
from kgrec.model.imbalance import Imbalance, Weighing
from kgrec.model.losses import click_loss
from kgrec.model.network import Encoded, Network, run_towers
from kgrec.model.sampled import Rows
from kgrec.model.towers import TowerOutput
from kgrec.training.mapped_rows import RowsOf
from kgrec.training.order import shuffled


@dataclass(frozen=True)
class Exposures:
    """What the towers learn: one row per exposure; a user or item row of -1 is unknown.

    Rows and labels are of any type of numbers, so that many take little room; features may lie in files. Labels are
    0/1, or None where the data has none. has_impressions: the rows are all exposures, clicked or
    not; False: only clicked rows are there, so that conversion is learned on them alone.
    """

    user_N: Tensor
    item_N: Tensor
    numeric_NF: RowsOf
    categorical_NC: RowsOf
    click_N: Tensor | None
    conversion_N: Tensor | None
    has_impressions: bool

    @property
    def heads(self) -> tuple[Head, ...]:
        """The labels that can be learned from these rows; clicks need rows that were not clicked."""
        click: tuple[Head, ...] = ("click",) if self.has_impressions and self.click_N is not None else ()
        conversion: tuple[Head, ...] = ("conversion",) if self.conversion_N is not None else ()
        return click + conversion

    def labels(self, heads: Sequence[Head]) -> list[Tensor]:
        """Return the labels of the heads, in order; ValueError for one that these rows do not have."""
        found = {"click": self.click_N, "conversion": self.conversion_N}
        known = {head: label_N for head, label_N in found.items() if label_N is not None}
        if missing := [head for head in heads if head not in known]:
            raise ValueError(f"no labels of {missing}")
        return [known[head] for head in heads]


class TowerTask:
    """Click on all exposures; conversion as `config.conversion` says, or on clicked rows where there are no others."""

    name = "towers"
    rows_at_once: int | None = 65_536

    def __init__(self, exposures: Exposures, config: TowerLossConfig) -> None:
        self.exposures, self.config, self.rows = exposures, config, len(exposures.user_N)
        click_N, conversion_N = exposures.click_N, exposures.conversion_N
        self.both_N = conversion_N * click_N if click_N is not None and conversion_N is not None else conversion_N
        only_clicked_N = click_N is not None and config.conversion == "clicked_only"
        converted = self.both_N[click_N > 0] if self.both_N is not None and only_clicked_N else self.both_N  # type: ignore[operator]
        self._click, self._conversion = (self._weighing(label_N) for label_N in (click_N, converted))

    def _weighing(self, label_N: Tensor | None) -> Weighing:
        rate = float(label_N.double().mean()) if label_N is not None and len(label_N) else 0.5
        return Weighing.of(self.config.imbalance, self.config.focal_gamma, rate)

    def batches(self, generator: torch.Generator, count: int) -> Iterator[Sequence[Tensor]]:
        """Yield (rows of exposures,)."""
        for row_B in shuffled(self.rows, count, generator):
            yield (row_B,)

    def part(self, batch: Sequence[Tensor], rows: slice) -> Sequence[Tensor]:
        """Return some of the exposures."""
        return [row_B[rows] for row_B in batch]

    def mass(self, batch: Sequence[Tensor]) -> Mapping[str, float]:
        """Return how many rows there are, for conversion of clicked rows alone how many clicks."""
        rows, click_N = float(len(batch[0])), self.exposures.click_N
        clicked_only = self.config.conversion == "clicked_only" and "click" in self.exposures.heads
        if not clicked_only or click_N is None:
            return {"click": rows, "conversion": rows}
        return {"click": rows, "conversion": float(click_N[batch[0]].sum(dtype=torch.float64))}

    def reads(self, batch: Sequence[Tensor]) -> Rows:
        """Return the users and items of the exposures."""
        return Rows.of(self.exposures.user_N[batch[0]].long(), self.exposures.item_N[batch[0]].long())

    def losses(self, network: Network, encoded: Encoded, batch: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """Return {"click": ..., "conversion": ...} as far as there are labels.

        A penalty of sharing or gates is spread evenly over them: it is no task, and balancers weigh tasks.
        """
        (row_B,), rows = batch, self.exposures
        if network.towers is None:
            raise ValueError("the network's shape names no heads, so there are no towers to train")
        numeric_BF, categorical_BC = rows.numeric_NF[row_B], rows.categorical_NC[row_B]
        user_B, item_B = rows.user_N[row_B].long(), rows.item_N[row_B].long()
        output = run_towers(network.towers, encoded, user_B, item_B, numeric_BF, categorical_BC)
        logits, losses = output.logits, dict[str, Tensor]()
        click_B = rows.click_N[row_B].float() if rows.click_N is not None else None
        if "click" in logits and click_B is not None:
            losses["click"] = self._one_label(logits["click"], click_B, self._click)
        if "conversion" in logits and self.both_N is not None:
            losses["conversion"] = self._conversion_loss(output, click_B, self.both_N[row_B].float())
        penalty = network.towers.penalty(output, self._rows_with_label(network.towers.heads, click_B, len(row_B)))
        if penalty is None:
            return losses
        return {name: loss + penalty / len(losses) for name, loss in losses.items()}

    def _conversion_loss(self, output: TowerOutput, click_B: Tensor | None, both_B: Tensor) -> Tensor:
        if "click" not in output.logits or click_B is None:
            return self._one_label(output.logits["conversion"], both_B, self._conversion)
        logits = TowerLogits(output.logits["click"], output.logits["conversion"], output.joint_B, output.imputed_B)
        return CONVERSIONS[self.config.conversion].loss(logits, click_B, both_B, self.config, self._conversion)

    def _one_label(self, logit_B: Tensor, label_B: Tensor, weighing: Weighing) -> Tensor:
        if self.config.imbalance is Imbalance.NONE or len(label_B) == 0:
            return click_loss(logit_B, label_B)
        return weighing.each(logit_B, label_B).mean()

    @staticmethod
    def _rows_with_label(heads: Sequence[Head], click_B: Tensor | None, count: int) -> Tensor:
        """Return for each head the rows whose label it learns: conversion's are the clicked ones. (T, B), bool."""
        every_B = torch.ones(count, dtype=torch.bool)
        clicked_B = click_B > 0 if click_B is not None else every_B
        return torch.stack([clicked_B if head == "conversion" else every_B for head in heads])
