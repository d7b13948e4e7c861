"""How conversion is learned beside click: a registry of losses over all exposures or the clicked ones.

Shapes: B exposures. Labels are 0/1; conversion means after a click: its label counts as 0 where there was none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from kgrec.model.embeddings import TowerPart
from kgrec.model.imbalance import Imbalance, Weighing
from kgrec.model.losses import entire_space_loss


class ConversionName(StrEnum):
    """The words that a config may use."""

    ESMM = "esmm"
    ESCM2_IPS = "escm2_ips"
    ESCM2_DR = "escm2_dr"
    AITM = "aitm"
    CLICKED_ONLY = "clicked_only"


class TowerLossConfig(BaseModel):
    """How the losses of click and conversion are formed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    conversion: ConversionName = Field(
        default=ConversionName.ESMM,
        description="how conversion is learned where there are impressions: esmm (click times conversion on all "
        "exposures), escm2_ips and escm2_dr (the same and a debiased loss on the clicked), aitm, or clicked_only",
    )
    propensity_floor: float = Field(
        default=0.05, gt=0, le=1, description="escm2: the least click probability to divide by, (0, 1]"
    )
    counterfactual_weight: float = Field(
        default=0.3, ge=0, description="escm2: weight of the debiased loss beside that of the entire space, >= 0"
    )
    order_weight: float = Field(
        default=0.6, ge=0, description="aitm: weight of the penalty where conversion passes click, >= 0"
    )
    imbalance: Imbalance = Field(
        default=Imbalance.NONE,
        description="what is done about rare labels: none, focal, or balanced (positives and negatives weigh the same; "
        "calibration undoes the shift)",
    )
    focal_gamma: float = Field(default=2.0, ge=0, description="focal: power of the error that weighs a row, >= 0")


@dataclass(frozen=True)
class TowerLogits:
    """What the towers say of a batch, each (B,). conversion_B is that of conversion given a click.

    joint_B: where there is a transfer, the logit of click and conversion that the tower itself gave.
    imputed_B: where there is an imputation tower, the loss >= 0 that it expects of conversion_B.
    """

    click_B: Tensor
    conversion_B: Tensor
    joint_B: Tensor | None = None
    imputed_B: Tensor | None = None


ConversionLoss = Callable[[TowerLogits, Tensor, Tensor, TowerLossConfig, Weighing], Tensor]


@dataclass(frozen=True)
class Conversion:
    """A way to learn conversion: its loss of (logits, click_B, both_B, config, weighing), and what towers it needs."""

    loss: ConversionLoss
    parts: tuple[TowerPart, ...] = ()


def esmm_loss(
    logits: TowerLogits, click_B: Tensor, both_B: Tensor, config: TowerLossConfig, weighing: Weighing
) -> Tensor:
    """Return the cross-entropy of p(click) * p(conversion | click) on all exposures (ESMM, Ma et al., SIGIR 2018)."""
    if config.imbalance is Imbalance.NONE:
        return entire_space_loss(logits.click_B, logits.conversion_B, both_B)
    log_both_B = functional.logsigmoid(logits.click_B) + functional.logsigmoid(logits.conversion_B)
    log_not_both_B = torch.log(-torch.expm1(log_both_B.clamp(max=-1e-6)))
    return weighing.of_logs(log_both_B, log_not_both_B, both_B).mean()


def clicked_only_loss(
    logits: TowerLogits, click_B: Tensor, both_B: Tensor, config: TowerLossConfig, weighing: Weighing
) -> Tensor:
    """Return the mean cross-entropy of conversion on the clicked rows; 0 where nothing was clicked."""
    error_B = weighing.each(logits.conversion_B, both_B)
    return (error_B * click_B).sum() / click_B.sum().clamp(min=1)


def escm2_ips_loss(
    logits: TowerLogits, click_B: Tensor, both_B: Tensor, config: TowerLossConfig, weighing: Weighing
) -> Tensor:
    """Return ESMM's loss + weight * mean(click * error / max(p(click), floor)) (ESCM2-IPS, Wang et al., SIGIR 2022).

    The propensity gives no gradient: click is not to be bent so that conversion's rows weigh less.
    """
    error_B = weighing.each(logits.conversion_B, both_B)
    debiased = (click_B * error_B / _propensity(logits, config)).mean()
    return esmm_loss(logits, click_B, both_B, config, weighing) + config.counterfactual_weight * debiased


def escm2_dr_loss(
    logits: TowerLogits, click_B: Tensor, both_B: Tensor, config: TowerLossConfig, weighing: Weighing
) -> Tensor:
    """Return ESMM's loss + weight * (doubly robust risk + the imputation's own loss) (ESCM2-DR).

    With e the error, i the imputed one and w = click / max(p(click), floor): mean(i + w (e - i)) + mean(w (e - i)^2).
    The square teaches the imputation alone (e fixed); the risk's gradient goes through both, as published.
    """
    assert logits.imputed_B is not None  # noqa: S101  the towers were built for it
    error_B = weighing.each(logits.conversion_B, both_B)
    weight_B = click_B / _propensity(logits, config)
    missed_B = error_B - logits.imputed_B
    risk = (logits.imputed_B + weight_B * missed_B).mean()
    imputation = (weight_B * (error_B.detach() - logits.imputed_B).square()).mean()
    whole = esmm_loss(logits, click_B, both_B, config, weighing)
    return whole + config.counterfactual_weight * (risk + imputation)


def aitm_loss(
    logits: TowerLogits, click_B: Tensor, both_B: Tensor, config: TowerLossConfig, weighing: Weighing
) -> Tensor:
    """Return the cross-entropy of the joint tower on all exposures + weight * mean(max(p(both) - p(click), 0)).

    Reference: AITM (Xi et al., KDD 2021). Click's own loss stands beside it.
    """
    assert logits.joint_B is not None  # noqa: S101  the towers were built for it
    passed_B = (torch.sigmoid(logits.joint_B) - torch.sigmoid(logits.click_B)).clamp(min=0)
    return weighing.each(logits.joint_B, both_B).mean() + config.order_weight * passed_B.mean()


def conditional_logit(joint_B: Tensor, click_B: Tensor) -> Tensor:
    """Return the logit of p(both) / p(click), the share at most 1 - 1e-6, from the logits of both.

    >>> round(conditional_logit(torch.tensor([-math.log(3)]), torch.zeros(1)).item(), 4)  # (1/4) / (1/2)
    0.0
    """
    log_share_B = (functional.logsigmoid(joint_B) - functional.logsigmoid(click_B)).clamp(max=math.log1p(-1e-6))
    return log_share_B - torch.log(-torch.expm1(log_share_B))


def _propensity(logits: TowerLogits, config: TowerLossConfig) -> Tensor:
    return torch.sigmoid(logits.click_B.detach()).clamp(min=config.propensity_floor)


CONVERSIONS: Final[Mapping[ConversionName, Conversion]] = MappingProxyType({
    ConversionName.ESMM: Conversion(esmm_loss),
    ConversionName.ESCM2_IPS: Conversion(escm2_ips_loss),
    ConversionName.ESCM2_DR: Conversion(escm2_dr_loss, ("imputation",)),
    ConversionName.AITM: Conversion(aitm_loss, ("transfer",)),
    ConversionName.CLICKED_ONLY: Conversion(clicked_only_loss),
})  # fmt: skip
"""Every way to learn conversion by name."""
