"""Rules of promotion beyond `[gate]`, from a TOML file that a team keeps: what is asked of a candidate.

Each table is one rule; a table that is absent asks nothing. A rule that cannot be judged because the run has no such
figure says so and passes, unless the rule is told to require it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kgrec.errors import InputError, Problem, nearest
from kgrec.evaluation.significance import mean_of, randomisation_test
from kgrec.seeds import numpy_generator

Figures = npt.NDArray[np.float64]
Check = tuple[bool, str]
PROMOTED: Final = "promoted"


class Demand(StrEnum):
    """What a paired test must show: a significant gain, or no significant loss."""

    BETTER = "better"
    NOT_WORSE = "not_worse"


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PairedRule(_Rule):
    """[paired]: a randomisation test over the users of the test part."""

    significance: float = Field(0.05, gt=0, lt=1, description="Largest p, two-sided, that counts as a difference.")
    baselines: Demand = Field(Demand.NOT_WORSE, description="Against each of gate.baselines.")
    promoted: Demand = Field(Demand.NOT_WORSE, description="Against the promoted version of the same name.")
    rounds: int = Field(9999, ge=99, description="Random sign flips of the test.")


class SegmentRule(_Rule):
    """[segments]: users by how much they did before, each compared with the promoted version."""

    largest_loss: float = Field(0.05, ge=0, lt=1, description="Largest loss of a segment, as a share of its figure.")
    least_users: int = Field(50, ge=1, description="Segments of fewer users are not judged.")
    bounds: tuple[int, ...] = Field((5, 20, 100), description="Numbers of earlier events that part the segments.")


class IndexRule(_Rule):
    """[index]: the stored index against the exact inner product, over users of the version."""

    least_recall: float = Field(0.99, gt=0, le=1, description="Least share of the exact top k that it finds.")


class CalibrationRule(_Rule):
    """[calibration]: probabilities on the test part."""

    largest_ece: float = Field(0.05, gt=0, le=1, description="Largest expected calibration error of a task.")


class AnswerRule(_Rule):
    """[answers]: what the stored version costs, measured when it is judged."""

    largest_mb: float | None = Field(None, gt=0, description="Largest folder of a version, in MB (10^6 bytes).")
    largest_p99_ms: float | None = Field(None, gt=0, description="Largest 99th percentile of a list of 10, in ms.")


class IncrementRule(_Rule):
    """[increment]: an increment (training.start = "promoted") against the full training made beside it."""

    least_overlap: float = Field(0.9, ge=0, le=1, description="Least share of the top ten that both have.")
    largest_loss: float = Field(0.05, ge=0, lt=1, description="How far below on validation, as a share of the full.")


class SmallerRule(_Rule):
    """[smaller]: a version of less than full precision ([serving]) against the same model in full, on validation."""

    largest_loss: float = Field(0.01, ge=0, lt=1, description="Largest loss, as a share of the full model's figure.")


class Policy(_Rule):
    """The rules of one file."""

    paired: PairedRule | None = None
    segments: SegmentRule | None = None
    index: IndexRule | None = None
    calibration: CalibrationRule | None = None
    answers: AnswerRule | None = None
    increment: IncrementRule | None = None
    smaller: SmallerRule | None = None


@dataclass(frozen=True)
class Evidence:
    """What a candidate showed. None or empty: the run has no such figure.

    candidate_U and rivals: the metric by user of the test part, the same users in the same order; rivals by name, the
    promoted version as "promoted". events_U: how many events each of them had before. ece: by task. smaller: figures of
    validation by name, each "full" and as "served".
    """

    metric: str
    candidate_U: Figures | None = None
    rivals: Mapping[str, Figures] | None = None
    events_U: npt.NDArray[np.int64] | None = None
    ece: Mapping[str, float] | None = None
    index_recall: float | None = None
    megabytes: float | None = None
    p99_ms: float | None = None
    smaller: Mapping[str, Mapping[str, float]] | None = None
    seed: int = 0


def read_policy(path: Path) -> Policy:
    """Read a policy; InputError with every problem: unreadable, broken TOML, unknown keys, values out of range."""
    try:
        return Policy.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        remedy = "name a TOML file of rules, such as mlflow/policy.toml"
        raise InputError(Problem(str(path), f"the gate's policy cannot be read: {error.strerror}", remedy)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(Problem(str(path), f"broken TOML: {error}", "see https://toml.io for the syntax")) from None
    except ValidationError as error:
        raise InputError([_problem(path, dict(fault)) for fault in error.errors()]) from None


def examine(policy: Policy, evidence: Evidence) -> list[Check]:
    """Return each rule's verdict and sentence, in the order of the policy."""
    checks: list[Check] = []
    if policy.paired is not None:
        checks += _paired(policy.paired, evidence)
    if policy.segments is not None:
        checks += _segments(policy.segments, evidence)
    if policy.index is not None and evidence.index_recall is not None:
        share, least = evidence.index_recall, policy.index.least_recall
        checks.append((share >= least, f"the index finds {share:.4f} of the exact top items, asked for {least:.4f}"))
    if policy.calibration is not None:
        largest = policy.calibration.largest_ece
        for task, ece in (evidence.ece or {}).items():
            checks.append((ece <= largest, f"calibration error of {task} {ece:.4f}, at most {largest:.4f}"))
    if policy.smaller is not None:
        for name, cost in (evidence.smaller or {}).items():
            share, full, served = policy.smaller.largest_loss, cost["full"], cost["served"]
            said = f"{name} {served:.4f} as stored, {full:.4f} in full (validation), at most {share:.1%} less"
            checks.append((served >= full * (1 - share), said))
    if policy.answers is not None:
        asked = policy.answers
        for unit, found, most in (
            ("MB", evidence.megabytes, asked.largest_mb),
            ("ms at the 99th percentile", evidence.p99_ms, asked.largest_p99_ms),
        ):
            if found is not None and most is not None:
                checks.append((found <= most, f"a version of {found:.1f} {unit}, at most {most:.1f}"))
    return checks


def _paired(rule: PairedRule, evidence: Evidence) -> list[Check]:
    if evidence.candidate_U is None or not len(evidence.candidate_U):
        return [(True, "no figures by user: nothing was tested in pairs")]
    checks = []
    for name, rival_U in (evidence.rivals or {}).items():
        difference = mean_of(evidence.candidate_U) - mean_of(rival_U)
        generator = numpy_generator(evidence.seed, f"gate against {name}")
        p = randomisation_test([difference], generator, rule.rounds)[0]
        sure = p <= rule.significance
        demand = rule.promoted if name == PROMOTED else rule.baselines
        enough = (sure and difference.value > 0) if demand is Demand.BETTER else not (sure and difference.value < 0)
        word = "significant" if sure else "inside the noise"
        who = "the promoted version" if name == PROMOTED else name
        asked = "must be better" if demand is Demand.BETTER else "must not be worse"
        checks.append(
            (enough, f"{evidence.metric} {difference.value:+.4f} against {who}, {word} (p {p:.4f}); it {asked}")
        )
    return checks


def _segments(rule: SegmentRule, evidence: Evidence) -> list[Check]:
    rival_U = (evidence.rivals or {}).get(PROMOTED)
    if evidence.candidate_U is None or evidence.events_U is None or rival_U is None:
        return [(True, "no promoted version to compare segments with")]
    checks = []
    bounds = sorted({0, *rule.bounds})
    for low, high in zip(bounds, [*bounds[1:], None], strict=True):
        inside_U = evidence.events_U >= low
        inside_U &= True if high is None else evidence.events_U < high
        if inside_U.sum() < rule.least_users:
            continue
        own, other = float(evidence.candidate_U[inside_U].mean()), float(rival_U[inside_U].mean())
        users = f"{inside_U.sum():,} users with {low} or more events before" + (
            "" if high is None else f", under {high}"
        )
        enough = own >= other * (1 - rule.largest_loss)
        checks.append((enough, f"{evidence.metric} {own:.4f} against {other:.4f} of the promoted version for {users}"))
    return checks


def _problem(path: Path, fault: Mapping[str, Any]) -> Problem:
    where = f"{path}: {'.'.join(str(part) for part in fault['loc'])}"
    if fault["type"] != "extra_forbidden":
        remedy = "correct the value (see mlflow/policy.toml)"
        return Problem(where, str(fault["msg"]), remedy, example=repr(fault["input"]))
    rules: dict[str, type[_Rule]] = {"paired": PairedRule, "segments": SegmentRule, "index": IndexRule,
                                     "calibration": CalibrationRule, "answers": AnswerRule,
                                     "increment": IncrementRule, "smaller": SmallerRule}  # fmt: skip
    known = sorted(rules[str(fault["loc"][0])].model_fields if len(fault["loc"]) == 2 else rules)
    guess = nearest(str(fault["loc"][-1]), known)
    return Problem(where, "unknown key", f"did you mean {guess!r}?" if guess else f"known here: {', '.join(known)}")
