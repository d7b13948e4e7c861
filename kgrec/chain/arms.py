"""The arms of a comparison: the same config under one honest change each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

import polars as pl
from pydantic import BaseModel, ValidationError

from kgrec.artifacts import Artifact
from kgrec.chain.context import Run
from kgrec.config import LoadedConfig, RunConfig, TaskName
from kgrec.errors import InputError, Problem, nearest
from kgrec.evaluation.ranking import Target
from kgrec.graph.controls import GraphControl, controlled
from kgrec.seeds import numpy_generator

Model = TypeVar("Model", bound=BaseModel)
TRIPLES: Final = "triples.parquet"
_SECTIONS: Final = ("model", "training", "losses")


@dataclass(frozen=True)
class Arm:
    """One change of a config. tasks None: those of the config. values: dotted key -> value."""

    name: str
    words: str
    tasks: tuple[TaskName, ...] | None = None
    graph: GraphControl = GraphControl.AS_IS
    values: tuple[tuple[str, str], ...] = ()

    def tasks_of(self, learned: Sequence[TaskName]) -> tuple[TaskName, ...]:
        """Return what this arm learns of the tasks that the config learns; without a graph no links."""
        return tuple(
            task for task in self.tasks or learned if not (self.graph is GraphControl.OFF and task is TaskName.KG)
        )

    def loaded(self, loaded: LoadedConfig, learned: Sequence[TaskName], seed: int) -> LoadedConfig:
        """Return the config of this arm with a seed.

        The config's values stand as if the user had set them: a graph alone has other defaults than beside a log, and
        an arm is to differ in its tasks alone.
        """
        config = loaded.config.model_copy(update={"tasks": self.tasks_of(learned), "seed": seed})
        if self.tasks is not None and len(learned) > 1:
            config = config.model_copy(update={name: _said(getattr(config, name)) for name in _SECTIONS})
        for key, value in self.values:
            config = _with_value(config, key.split("."), value)
        return replace(loaded, config=config)


ARMS: Final[Mapping[str, Arm]] = MappingProxyType(
    {
        arm.name: arm
        for arm in (
            Arm("full", "the config as it is"),
            Arm("kg_off", "no graph: not in propagation, not learned", graph=GraphControl.OFF),
            Arm("kg_shuffled", "the same graph with its tails shuffled within each relation",
                graph=GraphControl.SHUFFLED),
            Arm("click_only", "the click task alone", (TaskName.CLICK,)),
            Arm("conversion_only", "the conversion task alone", (TaskName.CONVERSION,)),
            Arm("kg_only", "the graph's links alone", (TaskName.KG,)),
        )
    }
)  # fmt: skip
CHOICES: Final[Mapping[str, str]] = MappingProxyType(
    {"balancing": "training.balancing", "sharing": "model.towers.sharing"}
)
"""Arms of the form NAME=WORD, and the key of the config that the word goes to."""


def read_arms(text: str, seeds: int, config: RunConfig) -> tuple[Arm, ...]:
    """Return the arms; InputError with every problem of their names and of the number of seeds."""
    faults = [] if seeds >= 1 else [Problem("--seeds", f"{seeds} seeds", "give 1 or more; 3 tell chance from change")]
    try:
        arms = _parsed(text, config)
    except InputError as error:
        raise InputError([*error.problems, *faults]) from None
    if faults:
        raise InputError(faults)
    return arms


def _parsed(text: str, config: RunConfig) -> tuple[Arm, ...]:
    """Return the arms of a comma-separated list, the reference first; InputError with every name that is none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    problems: list[Problem] = []
    found: list[Arm] = []
    for name in names:
        try:
            found.append(_arm(name, config))
        except InputError as error:
            problems += error.problems
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        problems.append(Problem("--arms", f"named twice: {', '.join(repeated)}", "name each arm once"))
    if len(names) < 2 and not problems:
        problems.append(
            Problem("--arms", f"{len(names)} arm(s): nothing to compare", "write for example --arms full,kg_off")
        )
    if problems:
        raise InputError(problems)
    return tuple(found)


def check_arms(arms: Sequence[Arm], learned: Sequence[TaskName], has_graph: bool) -> None:
    """Refuse arms that the data or the config's tasks cannot fill, all at once."""
    problems = []
    for arm in arms:
        where = f"--arms {arm.name}"
        missing = [task.value for task in arm.tasks or () if task not in learned]
        if missing:
            remedy = f"the tasks here are {', '.join(task.value for task in learned)}"
            problems.append(Problem(where, f"the config does not learn {', '.join(missing)}", remedy))
        elif arm.graph is not GraphControl.AS_IS and not has_graph:
            problems.append(
                Problem(where, "there is no graph to take away", "add [knowledge] triples, or leave it out")
            )
        elif not arm.tasks_of(learned):
            problems.append(Problem(where, "nothing is left to learn", "leave this arm out"))
    if problems:
        raise InputError(problems)


def graph_of(run: Run, arm: Arm, source: Artifact) -> Artifact:
    """Return an artifact that holds triples (`graph`, `ingest`) with them under the control of an arm."""
    if arm.graph is GraphControl.AS_IS:
        return source
    seed = run.config.seed

    def make(out: Path) -> dict[str, Any]:
        for name in source.files:
            if name != TRIPLES:
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                (out / name).write_bytes(source.file(name).read_bytes())
        generator = numpy_generator(seed, "shuffled graph")
        triples = controlled(pl.read_parquet(source.file(TRIPLES)), arm.graph, generator)
        triples.write_parquet(out / TRIPLES)
        return {**source.facts, "control": arm.graph.value}

    settings: dict[str, Any] = {"control": arm.graph.value}
    if arm.graph is GraphControl.SHUFFLED:
        settings["seed"] = seed
    return run.stage(source.kind, {source.kind: source.digest}, settings, make)


def owns(arm: Arm, group: str, target: Target) -> bool:
    """Say whether an arm answers for a group of figures; a task alone only for its own, and ranking is the target's."""
    if arm.tasks is None:
        return True
    owner = {"ranking": target.value, "ranking_cold": target.value, "link": TaskName.KG.value}.get(group, group)
    return owner in {task.value for task in arm.tasks}


def _said(section: Model) -> Model:
    """Return the section as if every one of its keys had been set."""
    return type(section).model_validate(section.model_dump())


def _arm(name: str, config: RunConfig) -> Arm:
    if name in ARMS:
        return ARMS[name]
    kind, equals, word = name.partition("=")
    if equals and kind in CHOICES:
        return _choice(name, CHOICES[kind], word, config)
    known = [*ARMS, *(f"{kind}=" for kind in CHOICES)]
    guess = nearest(kind + equals, known)
    remedy = f"did you mean {guess!r}?" if guess else f"known: {', '.join(known)}NAME"
    raise InputError(Problem("--arms", f"no arm {name!r}", remedy))


def _choice(name: str, key: str, word: str, config: RunConfig) -> Arm:
    parts = key.split(".")
    owner: Any = config
    for part in parts[:-1]:
        owner = getattr(owner, part)
    field = type(owner).model_fields.get(parts[-1])
    if field is None:
        raise InputError(Problem(f"--arms {name}", f"there is no key {key}", "leave this arm out"))
    words = _words(field.annotation)
    if words and word not in words:
        guess = nearest(word, words)
        remedy = f"did you mean {guess!r}?" if guess else f"known: {', '.join(words)}"
        raise InputError(Problem(f"--arms {name}", f"{key} knows no {word!r}", remedy))
    _with_value(config, parts, word)
    return Arm(name, f'{key} = "{word}"', values=((key, word),))


def _words(annotation: Any) -> list[str]:
    """Return the words that a type allows, none where it allows any text."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(member.value) for member in annotation]
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    return [word for inner in get_args(annotation) for word in _words(inner)]


def _with_value(model: Model, parts: Sequence[str], value: str) -> Model:
    """Return the model with the value at a dotted key, the leaf's table validated anew."""
    if len(parts) > 1:
        return model.model_copy(update={parts[0]: _with_value(getattr(model, parts[0]), parts[1:], value)})
    try:
        return type(model).model_validate({**model.model_dump(exclude_unset=True), parts[0]: value})
    except ValidationError as error:
        problems = [Problem(f"--arms {parts[0]}={value}", str(fault["msg"]), "see docs/configuration.md")
                    for fault in error.errors()]  # fmt: skip
        raise InputError(problems) from None
