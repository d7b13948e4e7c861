"""Every way in which several losses become one update, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from kgrec.training.balancer import Balancer, BalancerName, FixedWeights
from kgrec.training.gradient_weights import MGDA, AlignedMtl, CAGrad, GradNorm, NashMtl, PCGrad, UPGrad
from kgrec.training.loss_weights import DynamicWeightAverage, Famo, UncertaintyWeights
from kgrec.training.meta_weights import MetaWeights

BALANCERS: Final[Mapping[BalancerName, type[Balancer]]] = MappingProxyType(
    {
        BalancerName.FIXED: FixedWeights,
        BalancerName.UNCERTAINTY: UncertaintyWeights,
        BalancerName.DWA: DynamicWeightAverage,
        BalancerName.GRADNORM: GradNorm,
        BalancerName.FAMO: Famo,
        BalancerName.PCGRAD: PCGrad,
        BalancerName.CAGRAD: CAGrad,
        BalancerName.MGDA: MGDA,
        BalancerName.NASH_MTL: NashMtl,
        BalancerName.ALIGNED_MTL: AlignedMtl,
        BalancerName.UPGRAD: UPGrad,
        BalancerName.META: MetaWeights,
    }
)
"""Every balancer by name; each is made from the configured loss weights, the options and the run's seed."""
