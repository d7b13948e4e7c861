"""What learns when: the knowledge part joint, pretrained or frozen; the shared tables with the heads or before them.

A training is a few phases one after the other. Which phase an epoch belongs to follows from its number, so a training
that is resumed goes on in the right one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field
from torch import nn

from kgrec.errors import InputError, Problem
from kgrec.training.link_task import LINK
from kgrec.training.warm_start import StartConfig

USERS: Final = "users"
ENTITIES: Final = "entities"
RELATIONS: Final = "relations"
ADAPTER: Final = "adapter"
ENCODER: Final = "encoder"
HEADS: Final = "heads"
GROUPS: Final = (USERS, ENTITIES, RELATIONS, ADAPTER, ENCODER, HEADS)
"""The groups of parameters that a phase switches. What belongs to no other is a head."""

_PREFIXES: Final = {
    "tables.users_UD": USERS,
    "tables.entities_ED": ENTITIES,
    "tables.parametrizations.entities_ED.original": ENTITIES,
    "tables.parametrizations.entities_ED.": ADAPTER,
    "tables.relations_RW": RELATIONS,
    "shared_encoder.": ENCODER,
}
_TOWERS: Final = "towers"


class Knowledge(StrEnum):
    """When the knowledge graph's vectors learn."""

    JOINT = "joint"
    PRETRAINED = "pretrained"
    FROZEN = "frozen"


class PhasesConfig(StartConfig):
    """What learns when, and from where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    knowledge: Knowledge = Field(
        default=Knowledge.JOINT,
        description='"joint": triples beside the other tasks; "pretrained": entities and relations learn from triples '
        'first, then all tasks tune them; "frozen": they stay as triples left them (model.adapter_rank tunes them)',
    )
    pretraining_epochs: int = Field(
        default=6, ge=1, description="epochs, of `epochs`, on triples alone where pretrained or frozen, >= 1"
    )
    schedule: Literal["together", "tables_first"] = Field(
        default="together", description='"tables_first": shared tables learn first, then, held fast, the towers alone'
    )
    tables_first_epochs: int = Field(
        default=6, ge=1, description="epochs, of `epochs`, before the towers where tables_first, >= 1"
    )
    towers_alone: bool = Field(
        default=True,
        description="train the towers a second time by themselves, on the features alone, and keep which validation's "
        "mean AUC prefers; without effect where they read no shared vector",
    )


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs: the tasks that learn, the groups of parameters that they move, whether validation judges.

    last: the first epoch after it, counted from 0. learns: task names. trains: of `GROUPS`.
    """

    name: str
    last: int
    learns: tuple[str, ...]
    trains: tuple[str, ...]
    judged: bool

    def switch(self, network: nn.Module) -> int:
        """Let exactly this phase's parameters learn and return how many numbers they are."""
        total = 0
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(group_of(name) in self.trains)
            total += parameter.numel() if parameter.requires_grad else 0
        return total

    def facts(self, network: nn.Module) -> dict[str, Any]:
        """Return, for people, what learns in this phase."""
        count = sum(part.numel() for name, part in network.named_parameters() if group_of(name) in self.trains)
        trains = [group for group in self.trains if group in {group_of(name) for name, _ in network.named_parameters()}]
        return {"phase": self.name, "until_epoch": self.last, "learns": list(self.learns), "trains": trains,
                "parameters": count}  # fmt: skip


def group_of(name: str) -> str:
    """Return the group of a parameter of the network.

    >>> group_of("tables.entities_ED"), group_of("towers.deep.weight")
    ('entities', 'heads')
    """
    return next((group for prefix, group in _PREFIXES.items() if name.startswith(prefix)), HEADS)


def plan(config: PhasesConfig, epochs: int, tasks: Sequence[str]) -> tuple[Phase, ...]:
    """Return the phases of a training of these tasks, in order; the last ends with `epochs`.

    InputError where a phase has nothing to learn or leaves no epoch to the next.
    """
    phases: list[Phase] = []
    learns: tuple[str, ...] = tuple(tasks)
    trains: tuple[str, ...] = GROUPS
    if config.knowledge is not Knowledge.JOINT:
        _demand(LINK in tasks and len(tasks) > 1, "training.knowledge", config.knowledge.value,
                "triples and another task", "add [knowledge] and the task kg, or write 'joint'")  # fmt: skip
        phases.append(
            Phase("pretraining", config.pretraining_epochs, (LINK,), (ENTITIES, RELATIONS, ENCODER), judged=False)
        )
        if config.knowledge is Knowledge.FROZEN:
            learns = tuple(name for name in tasks if name != LINK)
            trains = (USERS, ADAPTER, ENCODER, HEADS)
    if config.schedule == "tables_first":
        _demand(_TOWERS in tasks and len(learns) > 1, "training.schedule", config.schedule,
                "labels for the towers and another task", "write 'together'")  # fmt: skip
        first = (phases[-1].last if phases else 0) + config.tables_first_epochs
        tables = tuple(group for group in trains if group != HEADS)
        phases.append(Phase("tables", first, tuple(name for name in learns if name != _TOWERS), tables, judged=False))
        learns, trains = (_TOWERS,), (HEADS,)
    if phases and phases[-1].last >= epochs:
        what = f"{phases[-1].last} epochs before the last phase leave none of {epochs} to it"
        raise InputError(Problem("training.epochs", what, "give more epochs or shorten pretraining or tables_first"))
    return (*phases, Phase("tuning" if phases else "joint", epochs, learns, trains, judged=True))


def _demand(met: bool, where: str, word: str, needs: str, remedy: str) -> None:
    if not met:
        raise InputError(Problem(where, f"{word!r} needs {needs}", remedy))


def phase_at(phases: Sequence[Phase], epoch: int) -> Phase:
    """Return the phase of an epoch, counted from 0."""
    return next(phase for phase in phases if epoch < phase.last)


def textbook_form(figures: Mapping[str, float], weights: Mapping[str, float], kg_weight: float) -> dict[str, float]:
    """Return an epoch's objective as sum_k L_k + lambda * R(theta, G), R being the knowledge loss with its penalties.

    figures: "loss/NAME" -> mean, and "weight/NAME" where a balancer set the weights. weights: of the other losses
    as configured, 1 where not named.

    >>> textbook_form({"loss/click": 0.5, "loss/link": 4.0}, {}, 0.1)
    {'objective/sum_L': 0.5, 'objective/R': 4.0, 'objective/lambda': 0.1, 'objective/total': 0.9}
    """
    losses = {name.removeprefix("loss/"): value for name, value in figures.items() if name.startswith("loss/")}
    weights = {
        **weights,
        **{name.removeprefix("weight/"): w for name, w in figures.items() if name.startswith("weight/")},
    }
    kg_weight = weights.get(LINK, kg_weight)
    tasks = sum(value * weights.get(name, 1.0) for name, value in losses.items() if name != LINK)
    regulariser = losses.get(LINK, 0.0)
    return {"objective/sum_L": tasks, "objective/R": regulariser, "objective/lambda": kg_weight,
            "objective/total": tasks + kg_weight * regulariser}  # fmt: skip
