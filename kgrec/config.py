"""The run's config: it composes what each part declares for itself, and reads TOML with every problem at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kgrec.data.interactions import InteractionsConfig
from kgrec.data.knowledge import KnowledgeConfig
from kgrec.data.side_tables import ItemsConfig, UsersConfig
from kgrec.data.split import SplitConfig
from kgrec.errors import InputError, Problem, nearest
from kgrec.evaluation.baseline_roles import BaselinesConfig
from kgrec.evaluation.drift import MonitorConfig
from kgrec.evaluation.ranking import EvaluationConfig, HistoryKnown
from kgrec.features.encoding import FeaturesConfig
from kgrec.model.blocks import BlocksConfig
from kgrec.model.network import NetworkConfig
from kgrec.notify import NotifyConfig
from kgrec.privacy import PrivacyConfig
from kgrec.resources import ResourcesConfig
from kgrec.schedule import ScheduleConfig
from kgrec.serving.gate import GateConfig
from kgrec.serving.index import IndexConfig
from kgrec.serving.policy import read_policy
from kgrec.serving.retention import RetentionConfig
from kgrec.serving.smaller import ServingConfig
from kgrec.training.search_space import SearchConfig
from kgrec.training.tasks import TaskConfig
from kgrec.training.trainer import TrainingConfig

_PASSWORD: Final = re.compile(r"""(://[^\s:/@'"]*:)[^\s'"]*@""")


class TaskName(StrEnum):
    """What the model learns to predict."""

    CLICK = "click"
    CONVERSION = "conversion"
    KG = "kg"


class RunConfig(BaseModel):
    """Everything a run depends on besides the data. `[interactions]` or `[knowledge]` is required."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("kgrec", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Name of the model.")
    seed: int = Field(7, ge=0, description="The one seed of the run.")
    tasks: tuple[TaskName, ...] | None = Field(
        None, min_length=1, description="What to learn: click, conversion, kg. Default: all that the data allows."
    )
    interactions: InteractionsConfig | None = None
    users: UsersConfig | None = None
    items: ItemsConfig | None = None
    knowledge: KnowledgeConfig | None = None
    split: SplitConfig = SplitConfig()
    features: FeaturesConfig = FeaturesConfig()
    model: NetworkConfig = NetworkConfig()
    training: TrainingConfig = TrainingConfig()
    losses: TaskConfig = TaskConfig()
    blocks: BlocksConfig = BlocksConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    baselines: BaselinesConfig = BaselinesConfig()
    index: IndexConfig = IndexConfig()
    serving: ServingConfig = ServingConfig()
    gate: GateConfig = GateConfig()
    monitor: MonitorConfig = MonitorConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    notify: NotifyConfig = NotifyConfig()
    retention: RetentionConfig = RetentionConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    search: SearchConfig = SearchConfig()
    resources: ResourcesConfig = ResourcesConfig()


@dataclass(frozen=True)
class LoadedConfig:
    """A config and the folder its relative paths start from."""

    config: RunConfig
    base: Path
    source: str


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> LoadedConfig:
    """Read a TOML file, apply `KEY=VALUE` overrides (dotted keys, TOML values) and validate the whole.

    Raises InputError with every problem: unreadable file, broken TOML, unknown keys (with the nearest name), wrong
    types and values out of range.
    """
    path = Path(path)
    raw = _read_toml(path)
    for override in overrides:
        _apply(raw, override)
    try:
        config = RunConfig.model_validate(raw)
    except ValidationError as error:
        raise InputError([_problem(str(path), dict(fault)) for fault in error.errors()]) from None
    if config.interactions is None and config.knowledge is None:
        raise InputError(
            Problem(
                str(path),
                "neither [interactions] nor [knowledge]: there is nothing to learn from",
                'add [interactions] with path = "events.parquet"',
            )
        )
    base = path.resolve().parent
    if config.gate.policy is not None:
        read_policy(base / config.gate.policy)  # what is wrong with it is told now, not after the training
    misfits = (*_unknown_user_columns(config, str(path)), *_refit_misfits(config, str(path)),
               *_metrics_not_judged(config, str(path)))  # fmt: skip
    if misfits:
        raise InputError(list(misfits))
    return LoadedConfig(_with_gate_that_fits(config), base, str(path))


def _unknown_user_columns(config: RunConfig, source: str) -> list[Problem]:
    known = config.users.features if config.users is not None else ()
    where = f"{source}: evaluation.details.user_columns"
    told = f"users.features names: {', '.join(known) or 'nothing'}"
    return [
        Problem(where, f"{name!r} is not among the users' features",
                f"write {guess!r}" if (guess := nearest(name, known)) else "add it to users.features", example=told)
        for name in config.evaluation.details.user_columns if name not in known
    ]  # fmt: skip


def _refit_misfits(config: RunConfig, source: str) -> list[Problem]:
    where, found = f"{source}: training.refit", []
    if config.training.refit and config.evaluation.history is not HistoryKnown.ALL:
        what = "a refit learns from validation, which evaluation.history = 'train' says that nobody knows at test"
        found.append(Problem(where, what, "write evaluation.history = 'all', or leave the refit out"))
    return found


def _metrics_not_judged(config: RunConfig, source: str) -> list[Problem]:
    """A metric of the gate that the user wrote, at a length of list that is not judged."""
    name, _, k = config.gate.metric.partition("@")
    if "metric" not in config.gate.model_fields_set or not k.isdigit() or int(k) in config.evaluation.k:
        return []
    judged = ", ".join(map(str, config.evaluation.k))
    remedy = f"write {name}@{config.evaluation.k[0]}, or add {k} to evaluation.k"
    return [Problem(f"{source}: gate.metric", f"no list of {k} is judged, evaluation.k is {judged}", remedy)]


def _with_gate_that_fits(config: RunConfig) -> RunConfig:
    """Let the gate's default metric look at the first length of list that is judged, where its own is not."""
    name, _, k = config.gate.metric.partition("@")
    if not k.isdigit() or int(k) in config.evaluation.k:
        return config
    return config.model_copy(
        update={"gate": config.gate.model_copy(update={"metric": f"{name}@{config.evaluation.k[0]}"})}
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        beside = [p.name for p in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        guess = nearest(path.name, beside)
        remedy = f"did you mean {path.parent / guess}?" if guess else "check the path of the config"
        raise InputError(Problem(str(path), "no such config file", remedy)) from None
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(
            Problem(str(path), f"cannot be read: {error.strerror}", "name a readable .toml file")
        ) from None
    except UnicodeDecodeError as error:
        what = f"invalid UTF-8 at byte {error.start}"
        raise InputError(Problem(str(path), what, "save the file as UTF-8")) from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(Problem(str(path), f"broken TOML: {error}", "see https://toml.io for the syntax")) from None


def _apply(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        example = "--set training.epochs=3"
        raise InputError(Problem(f"--set {override}", "not of the form KEY=VALUE", f"write for example {example}"))
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    table = raw
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise InputError(Problem(f"--set {override}", f"{part} is a value, not a table", "check the dotted key"))
    table[parts[-1]] = value


def _problem(source: str, fault: Mapping[str, Any]) -> Problem:
    location: tuple[str | int, ...] = fault["loc"]
    where = f"{source}: {'.'.join(str(part) for part in location) or 'config'}"
    given = fault.get("input")
    example = None if isinstance(given, dict) else _PASSWORD.sub(r"\1***@", repr(given))
    if fault["type"] == "extra_forbidden":
        names = list(_fields_at(RunConfig, location[:-1]))
        guess = nearest(str(location[-1]), names)
        remedy = f"did you mean {guess!r}?" if guess else f"known here: {', '.join(sorted(names))}"
        return Problem(where, "unknown key", remedy, example=example)
    message = str(fault["msg"]).removeprefix("Value error, ")
    return Problem(
        where, message[:1].lower() + message[1:], "correct the value (see README, Configuration)", example=example
    )


def _fields_at(model: type[BaseModel], location: tuple[str | int, ...]) -> Iterable[str]:
    """Return the names of the keys that the config knows at a place."""
    parts = iter(location)
    for part in parts:
        field = model.model_fields.get(str(part)) or next(
            (f for f in model.model_fields.values() if f.alias == part), None
        )
        if field is None:
            continue  # an index of a list, or the tag of a union
        inner = _models_in(field.annotation)
        if not inner:
            return []
        if get_origin(field.annotation) is dict:
            next(parts, None)  # a key of the user's own, whatever it is called
        model = inner[0]
    return [field.alias or name for name, field in model.model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
