"""The gate: whether a candidate may be served, and why.

It accepts or refuses; it chooses nothing. So it may look at the test figures, which the run has read once anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class GateConfig(BaseModel):
    """[gate]: what a candidate must show before it is served."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str = Field(
        "ndcg@10",
        pattern=r"^(recall|ndcg|mrr|precision|hit)@\d+$",
        description="The ranking metric that is compared; left out, at the first of evaluation.k where that has no 10.",
    )
    baselines: tuple[str, ...] | None = Field(
        None,
        description="Baselines that the candidate must not lose to, on the same test part; left out: all that ran.",
    )
    tolerance: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="How far below a baseline or the promoted version the candidate may be, as a share of theirs.",
    )
    compare_with_promoted: bool = Field(
        True, description="Whether the candidate must not lose to the version that is served, on the same test part."
    )
    policy: str | None = Field(
        None, description="TOML file of further rules, relative to this one; mlflow/policy.toml is one to start from."
    )


@dataclass(frozen=True)
class Verdict:
    """What the gate says. `reasons`: one sentence per comparison, the failed ones first."""

    passed: bool
    reasons: tuple[str, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        """The reasons that speak against the candidate."""
        return tuple(reason for reason in self.reasons if reason.startswith("FAILED"))


def judge(
    config: GateConfig,
    candidate: Mapping[str, Any],
    baselines: Mapping[str, Mapping[str, Any]],
    promoted: tuple[str, Mapping[str, Any]] | None,
    load_fault: str | None,
    more: Sequence[tuple[bool, str]] = (),
) -> Verdict:
    """Compare the candidate's ranking figures with those of the baselines and of the promoted version.

    candidate and the others: metric name -> value, on the same test part. promoted: its version and figures, None
    when nothing is served yet. load_fault: what went wrong when the stored candidate was loaded and asked, or None.
    more: the verdicts of a policy's rules (`kgrec.serving.policy.examine`), whether each holds and a sentence.
    """
    checks: list[tuple[bool, str]] = []
    if load_fault is None:
        checks.append((True, "the stored candidate loads and answers"))
    else:
        checks.append((False, f"the stored candidate cannot answer: {load_fault}"))
    own = candidate.get(config.metric)
    named = sorted(baselines) if config.baselines is None else config.baselines
    rivals = [(name, baselines[name]) for name in named if name in baselines]
    if promoted is not None and config.compare_with_promoted:
        rivals.append((f"the promoted version {promoted[0]}", promoted[1]))
    if own is None and candidate:
        checks.append((False, f"the candidate has no {config.metric}: is its k among evaluation.k?"))
    for name, figures in rivals:
        other = figures.get(config.metric)
        if own is None or other is None:
            continue
        enough = own >= other * (1 - config.tolerance)
        word = "is above" if own > other else "equals" if own == other else "is below"
        text = f"{config.metric} {own:.4f} {word} {other:.4f} of {name}"
        if enough and own < other:
            text += f", within the tolerance of {config.tolerance:.0%}"
        checks.append((enough, text))
    checks += more
    ordered = sorted(checks, key=lambda check: check[0])
    reasons = tuple(text if enough else f"FAILED: {text}" for enough, text in ordered)
    return Verdict(all(enough for enough, _ in checks), reasons)
