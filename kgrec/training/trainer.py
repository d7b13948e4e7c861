"""The training loop. It knows no task, model part or balancer by name."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from kgrec.allocator import keep_freed_memory
from kgrec.errors import DivergedError, InputError, Problem
from kgrec.model.network import Network
from kgrec.model.task_covariance import covariance_penalty
from kgrec.seeds import derive_seed
from kgrec.training.balancer import Balancer, BalancerName, BalancingOptions
from kgrec.training.balancing import BALANCERS
from kgrec.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from kgrec.training.link_task import LINK
from kgrec.training.optimiser import make_optimiser, take_step
from kgrec.training.phases import PhasesConfig, phase_at, plan
from kgrec.training.relations import look, loss_correlations
from kgrec.training.reproducible import reproducible
from kgrec.training.schedule import endless, schedule
from kgrec.training.step import Step
from kgrec.training.stopping import Stopping
from kgrec.training.tasks import Task
from kgrec.training.whole import copied_state, take_memory, take_state, whole_memory, whole_network, whole_state
from kgrec.training.world import ALONE, World

_log = logging.getLogger(__name__)


class TrainingConfig(PhasesConfig):
    """How long, how fast and towards what the network trains."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=24, ge=1, description="passes over the rows at most, >= 1")
    batch_size: int = Field(default=4096, ge=1, description="rows of each task in a step, >= 1")
    largest_batch: int = Field(
        default=16_384,
        ge=1,
        description="rows of a task in a step at most, >= 1; batches grow from batch_size up to it where epoch_steps "
        "would not see all rows",
    )
    epoch_steps: int = Field(
        default=40, ge=1, description="steps of an epoch at most, >= 1; of a larger log an epoch sees a random part"
    )
    epoch_share: float = Field(
        default=1.0, gt=0, le=1, description="part of an epoch's batches that is learned, drawn anew each time, (0, 1]"
    )
    optimiser: Literal["adamw", "adagrad"] = Field(
        default="adamw", description="what makes steps of gradients; a graph alone takes adagrad unless set"
    )
    tables: Literal["local", "torchrec"] = Field(
        default="local",
        description='who holds the vectors of users and entities: every process all ("local"), or each a part '
        '("torchrec"; takes sampled propagation and adagrad)',
    )
    sharding: Literal["auto", "row_wise", "table_wise"] = Field(
        default="auto", description="torchrec: what a part is, rows of each table or whole tables; auto = its planner's"
    )
    learning_rate: float = Field(default=0.02, gt=0, description="step size of the shared tables, > 0")
    tower_learning_rate: float = Field(default=0.003, gt=0, description="step size of the towers, > 0")
    weight_decay: float = Field(default=1e-4, ge=0, description="decoupled decay of the towers' weights, a step, >= 0")
    table_decay: float = Field(default=0.0, ge=0, description="decoupled decay of the shared vectors, a step, >= 0")
    kg_weight: float = Field(default=0.1, ge=0, description="lambda, the weight of the knowledge loss, >= 0")
    task_weights: dict[str, float] = Field(
        default={}, description="weights of other losses by name (retrieval, click, conversion), >= 0; default 1"
    )
    balancing: BalancerName = Field(
        default=BalancerName.FIXED,
        description="how the losses become one update; kg_weight and task_weights stay their prior in all methods",
    )
    balancing_options: BalancingOptions = BalancingOptions()
    covariance_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of the penalty that ties the towers' heads by a learned task covariance, >= 0; 0 = none",
    )
    relations_every: int = Field(
        default=1, ge=0, description="epochs between two looks at how the tasks' gradients relate, >= 0; 0 = never"
    )
    refit: bool = Field(
        default=False,
        description="after validation has chosen, learn again from train and validation together, the baselines too, "
        "before test is asked and a version is made; takes evaluation.history = all",
    )
    patience: int = Field(default=3, ge=0, description="evaluations without gain before stopping; 0 = never stop early")
    evaluate_every: int = Field(default=3, ge=1, description="epochs between two looks at validation, >= 1")
    checkpoint_every: int = Field(default=5, ge=1, description="epochs between two saves of the state, >= 1")
    threads: int = Field(
        default=0, ge=0, description="threads of a product, >= 0; 0 = all cores; part of the result's bits"
    )

    def model_post_init(self, context: object, /) -> None:
        """Refuse a negative weight."""
        if any(weight < 0 for weight in self.task_weights.values()):
            raise InputError(Problem("training.task_weights", "a weight below 0", "use 0 to leave a loss out"))

    def balancer(self, seed: int) -> Balancer:
        """Return a new balancer with the configured weights."""
        return BALANCERS[self.balancing]({LINK: self.kg_weight, **self.task_weights}, self.balancing_options, seed)


@dataclass(frozen=True)
class Progress:
    """Where training is: epochs done of at most `epochs`, and this epoch's losses and metrics."""

    epoch: int
    epochs: int
    figures: Mapping[str, float]


@dataclass(frozen=True)
class TrainingResult:
    """What training gave. The network itself holds `best_state` when `train` returns.

    history: one dict an epoch: "epoch", "loss/NAME" for each loss, "weight/NAME" where the balancer moves weights,
    how the tasks relate (`kgrec.training.relations`), "validation/NAME" where it was evaluated.
    best_epoch counts from 1, the number of epochs the best state was trained for.
    """

    best_state: dict[str, Tensor]
    history: list[dict[str, float]]
    best_epoch: int
    stopped_early: bool


def train(
    network: Network,
    tasks: Sequence[Task],
    config: TrainingConfig,
    seed: int,
    evaluate: Callable[[Network], Mapping[str, float]] | None,
    *,
    until: int | None = None,
    held_out: Sequence[Task] = (),
    checkpoint: Path | None = None,
    owner: str = "",
    progress: Callable[[Progress], None] | None = None,
    world: World = ALONE,
) -> TrainingResult:
    """Train until `evaluate` finds no gain any more, and leave the best epoch's parameters in the network.

    The task with most rows sets the steps of an epoch; the others' batches are spread evenly over them, so that every
    row of every task is seen once an epoch (of tasks with more than `epoch_steps` batches, a random part).
    Phases (pretraining, tables before heads) follow from the config; validation judges the last one alone.
    `evaluate` sees the network in evaluation mode and returns validation metrics, of which "objective" (larger is
    better) decides; None: nothing is judged, and the last epoch's parameters stay. `until`: stop after so many of the
    planned epochs. `held_out`: the same tasks over rows of validation, for a balancer that looks ahead. With a
    `checkpoint` of the same `owner` (a fingerprint of data, configs and seed) training goes on from there, bit for bit
    as if it had never stopped. `world`: the processes that train it together, each called with the same arguments;
    every batch is cut among them, the leader judges, saves and tells. A checkpoint does not know how many they were.

    Raises DivergedError when a loss is no longer finite, InputError for a balancer that looks ahead at nothing.
    """
    keep_freed_memory()
    with reproducible(config.threads):
        optimiser, balancer = make_optimiser(network, config), config.balancer(seed)
        _refuse_blind(network, balancer, config, world, held_out)
        state = _start(network, optimiser, balancer, config, checkpoint, owner)
        phases = plan(config, config.epochs, [task.name for task in tasks])
        last = config.epochs if until is None else min(until, config.epochs)
        while state.epoch < last and not state.stopping.should_stop:
            phase = phase_at(phases, state.epoch)
            _log.debug("epoch %d, phase %s: %d numbers learn", state.epoch, phase.name, phase.switch(network))
            learning = [task for task in tasks if task.name in phase.learns]
            ahead = [task for task in held_out if task.name in phase.learns]
            figures = _one_epoch(network, learning, ahead, optimiser, balancer, config, seed, state.epoch, world)
            state.epoch += 1
            if config.relations_every and state.epoch % config.relations_every == 0:
                figures |= look(network, learning, seed, state.epoch)
            if evaluate and phase.judged and (state.epoch % config.evaluate_every == 0 or state.epoch == last):
                figures |= _look_at_validation(network, evaluate, state, world)
            state.history.append({"epoch": float(state.epoch), **figures})
            over = state.stopping.should_stop or state.epoch == last
            if checkpoint is not None and (over or state.epoch % config.checkpoint_every == 0):
                state.parameters, state.optimiser = whole_state(network), whole_memory(network, optimiser)
                state.balancer = balancer.state()
                if world.leads:
                    save_checkpoint(checkpoint, state, owner)
                world.wait()
            if progress is not None and world.leads:
                progress(Progress(state.epoch, last, state.history[-1]))
        take_state(network.requires_grad_(True).eval(), state.best or whole_state(network))
        best = state.best or copied_state(network)
        best_epoch = state.stopping.best_epoch or state.epoch  # what nobody judged: the last
        return TrainingResult(best, state.history, best_epoch, state.stopping.should_stop)


def _refuse_blind(
    network: Network, balancer: Balancer, config: TrainingConfig, world: World, held_out: Sequence[Task]
) -> None:
    """Raise InputError for a balancer that would look at what is not there."""
    name = config.balancing.value
    if balancer.looks_ahead and not held_out:
        what = f"{name} weighs by rows of the validation part, and there are none"
        raise InputError(Problem("training.balancing", what, 'name another method, as "uncertainty"'))
    if network.config.propagation == "sampled" and (balancer.looks_ahead or (balancer.cuts_trunk and world.size > 1)):
        what = f"{name} compares gradients of all vectors, and sampled propagation has those of some rows"
        remedy = "use exact propagation" if balancer.looks_ahead else "use one process, or exact propagation"
        raise InputError(Problem("training.balancing", what, f'{remedy}, or another method, as "uncertainty"'))


def _one_epoch(
    network: Network,
    tasks: Sequence[Task],
    held_out: Sequence[Task],
    optimiser: torch.optim.Optimizer,
    balancer: Balancer,
    config: TrainingConfig,
    seed: int,
    epoch: int,
    world: World,
) -> dict[str, float]:
    network.train()
    series: dict[str, list[float]] = {}
    ahead = endless(held_out if balancer.looks_ahead else (), config, seed, epoch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "dropout", epoch))
        for batches in schedule(tasks, config, seed, epoch):
            optimiser.zero_grad(set_to_none=True)
            step = Step(network, batches, cut=balancer.cuts_trunk, held_out=next(ahead), world=world)
            balancer.backward(step)
            if not balancer.cuts_trunk:  # else what it put down is the sum already
                world.sum_gradients(network.parameters())
            if config.covariance_weight and network.towers is not None:
                (config.covariance_weight * covariance_penalty(network.towers.head_weights())).backward()  # type: ignore[no-untyped-call]
            take_step(optimiser)
            balancer.observe(step)
            for name, loss in step.losses.items():
                series.setdefault(f"loss/{name}", []).append(loss.item())
                if name in balancer.weights:
                    series.setdefault(f"weight/{name}", []).append(balancer.weights[name])
    means = {name: sum(values) / len(values) for name, values in series.items()}
    broken = [name for name, mean in means.items() if not math.isfinite(mean)]
    if broken:
        what = f"training diverged: not finite in epoch {epoch + 1}: {', '.join(broken)}"
        raise DivergedError(f"{what}\n  remedy:  lower training.learning_rate or training.tower_learning_rate")
    losses = {name.removeprefix("loss/"): mean for name, mean in means.items() if name.startswith("loss/")}
    balancer.end_epoch(losses)
    if config.relations_every:
        means |= loss_correlations({name: series[f"loss/{name}"] for name in losses})
    return means


def _look_at_validation(
    network: Network, evaluate: Callable[[Network], Mapping[str, float]], state: TrainingState, world: World
) -> dict[str, float]:
    judged = whole_network(network.eval())
    with torch.no_grad():
        found = {name: float(value) for name, value in evaluate(judged).items()} if world.leads else {}
        metrics: dict[str, float] = world.from_leader(found)
    if "objective" not in metrics:
        raise ValueError(f"evaluate must return 'objective', it returned {sorted(metrics)}")
    state.stopping = state.stopping.after(state.epoch, metrics["objective"])
    if state.stopping.best_epoch == state.epoch:
        state.best = copied_state(network)
    return {f"validation/{name}": float(value) for name, value in metrics.items()}


def _start(
    network: Network,
    optimiser: torch.optim.Optimizer,
    balancer: Balancer,
    config: TrainingConfig,
    checkpoint: Path | None,
    owner: str,
) -> TrainingState:
    stored = load_checkpoint(checkpoint, owner, config.patience) if checkpoint is not None else None
    if stored is None:
        return TrainingState(Stopping(config.patience))
    _log.info("training goes on after epoch %d", stored.epoch)
    take_state(network, stored.parameters)
    take_memory(network, optimiser, stored.optimiser)
    balancer.load(stored.balancer)
    return stored
