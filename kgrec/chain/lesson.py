"""One training, told by artifacts: what it learns from and how, so that any process can make the same of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kgrec.artifacts import Artifact, load_artifact
from kgrec.chain.questions import Judge
from kgrec.chain.tensors import held_out_data, network_shape, training_data
from kgrec.config import RunConfig, TaskName
from kgrec.model.embeddings import NetworkShape, SharedTables
from kgrec.model.network import Network
from kgrec.training.balancing import BALANCERS
from kgrec.training.tasks import Task, TrainingData, make_network, make_tasks
from kgrec.training.trainer import Progress, TrainingResult, train
from kgrec.training.world import ALONE, World


@dataclass(frozen=True)
class Lesson:
    """What is learned from which artifacts.

    ahead: the log whose validation part a balancer may look ahead at. judged: validation chooses the epoch. until:
    stop after so many of the planned epochs.
    """

    config: RunConfig
    tasks: tuple[TaskName, ...]
    log: Artifact
    features: Artifact | None
    graph: Artifact
    ahead: Artifact
    judged: bool = True
    until: int | None = None

    def with_config(self, config: RunConfig) -> Lesson:
        """Return the same lesson under another config."""
        return replace(self, config=config)

    def data(self) -> TrainingData:
        """Return the tensors of the train part."""
        target, weight = self.config.evaluation.target, self.config.losses.off_target_weight
        return training_data(self.log, self.features, self.graph, self.tasks, target, weight)

    def facts(self) -> dict[str, Any]:
        """Return the lesson as JSON holds it; `lesson_of` reads it."""
        places = {"log": self.log, "features": self.features, "graph": self.graph, "ahead": self.ahead}
        return {
            "config": json.loads(self.config.model_dump_json(by_alias=True)),
            "tasks": [task.value for task in self.tasks],
            "artifacts": {name: None if found is None else str(found.path) for name, found in places.items()},
            "judged": self.judged,
            "until": self.until,
        }


def lesson_of(facts: dict[str, Any]) -> Lesson:
    """Return the lesson that `facts` told."""
    places: dict[str, str | None] = facts["artifacts"]
    log, graph, ahead = (load_artifact(Path(str(places[name]))) for name in ("log", "graph", "ahead"))
    features = None if places["features"] is None else load_artifact(Path(places["features"]))
    tasks = tuple(TaskName(name) for name in facts["tasks"])
    config = RunConfig.model_validate(facts["config"])
    return Lesson(config, tasks, log, features, graph, ahead, facts["judged"], facts["until"])


@dataclass(frozen=True)
class Taught:
    """What a lesson makes: tensors, an untrained network, the tasks, those that are looked ahead at, and the judge."""

    lesson: Lesson
    data: TrainingData
    network: Network
    tasks: list[Task]
    held_out: list[Task]
    judge: Judge

    def train(
        self, checkpoint: Path | None, owner: str, progress: Callable[[Progress], None] | None, world: World = ALONE
    ) -> TrainingResult:
        """Train the network, from the checkpoint where there is one; None: none is kept."""
        lesson = self.lesson
        return train(
            self.network, self.tasks, lesson.config.training, lesson.config.seed,
            self.judge.objective if lesson.judged else None, until=lesson.until, held_out=self.held_out,
            checkpoint=checkpoint, owner=owner, progress=progress, world=world,
        )  # fmt: skip


def prepared(lesson: Lesson, make_tables: Callable[..., Any] = SharedTables) -> Taught:
    """Return what the lesson makes, before anything is learned. make_tables: who holds the vectors."""
    config, data = lesson.config, lesson.data()
    shape = network_shape(lesson.log, lesson.features, lesson.graph, data, config.losses)
    judge = Judge(config.evaluation, lesson.log, lesson.features, lesson.graph, lesson.tasks)
    network = make_network(shape, config.model, data, config.seed, make_tables)
    return Taught(lesson, data, network, make_tasks(shape, data, config.losses), _ahead(lesson, shape, data), judge)


def _ahead(lesson: Lesson, shape: NetworkShape, data: TrainingData) -> list[Task]:
    """Return the tasks over rows of validation where the balancer wants them; empty where there are no such rows."""
    config = lesson.config
    if not BALANCERS[config.training.balancing].looks_ahead:
        return []
    found = held_out_data(lesson.ahead, lesson.features, lesson.graph, lesson.tasks, config.evaluation.target,
                          config.losses.off_target_weight, data)  # fmt: skip
    return make_tasks(shape, found, config.losses) if found.num_rows else []
