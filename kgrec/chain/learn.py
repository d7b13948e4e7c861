"""Training: from artifacts to tensors, the loop, and what of the network is kept.

Axes: U users, I items, D dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from safetensors.torch import load_file, save_file
from torch import Tensor

from kgrec.artifacts import Artifact, canonical_json, write_atomically
from kgrec.chain.blocks import neighbour_matrices, served_vectors
from kgrec.chain.context import Run, StageProgress
from kgrec.chain.increments import START, WEIGHTS, Start, categories
from kgrec.chain.lesson import Lesson, prepared
from kgrec.chain.prepare import available_tasks
from kgrec.chain.refining import fitted_before
from kgrec.chain.together import train_together
from kgrec.chain.towers import calibrate, gates
from kgrec.chain.towers_alone import keep_better_towers
from kgrec.chain.tuning import Teacher, read_tuned
from kgrec.config import RunConfig, TaskName
from kgrec.model.embeddings import NetworkShape
from kgrec.model.network import Network, NetworkConfig
from kgrec.model.propagation import GraphEdges
from kgrec.model.task_covariance import task_covariance
from kgrec.serving.package import VECTORS
from kgrec.serving.score import ITEM_ROWS, NETWORK, TOWERS
from kgrec.training.graph_alone import filled, graph_alone_defaults
from kgrec.training.phases import plan, textbook_form
from kgrec.training.relations import summary
from kgrec.training.reproducible import beside
from kgrec.training.trainer import Progress, TrainingConfig, TrainingResult
from kgrec.training.warm_start import carry_over

HISTORY: Final = "history.json"


def chosen_tasks(run: Run, ingested: Artifact) -> tuple[TaskName, ...]:
    """Return what this run learns: what the config names, else all that the data allows."""
    return run.config.tasks or tuple(TaskName(name) for name in available_tasks(ingested))


def learned_by(config: RunConfig, tasks: tuple[TaskName, ...]) -> dict[str, Any]:
    """Return what of a config, beside its data, a full training depends on."""
    return {
        "model": config.model.model_dump(mode="json"),
        "training": config.training.model_dump(mode="json", exclude={"start", "increment", "refit"}),
        "blocks": config.blocks.model_dump(mode="json"),
        "baselines": config.baselines.model_dump(mode="json"),
        "losses": config.losses.model_dump(mode="json"),
        "evaluation": config.evaluation.model_dump(mode="json", include={"k", "target", "exclude_seen", "calibration"}),
        "tasks": [task.value for task in tasks],
        "seed": config.seed,
    }


def learn(
    run: Run, ingested: Artifact, log: Artifact, features: Artifact | None, graph: Artifact, tuned: Artifact | None,
    start: Start | None = None,
) -> Artifact:  # fmt: skip
    """Train the network and keep its best epoch on validation: weights, served vectors and the history.

    start: whose weights an increment goes on from; None or without a base: a full training.
    """
    tasks = chosen_tasks(run, ingested)
    config, chosen = suited(run.config, tasks, graph)
    base = None if start is None else start.base
    inputs = {"split": log.digest, "graph": graph.digest} | ({"features": features.digest} if features else {})
    inputs |= {"baselines": tuned.digest} if tuned else {}
    settings = learned_by(config, tasks)
    if start is not None and base is not None:
        inputs |= {"base": base.trained.digest}
        settings |= {START: start.facts(), "increment": config.training.increment.model_dump(mode="json")}
        config = base.suited(config)
    owner = run.workspace.store.key("train", inputs, settings)
    checkpoint = run.workspace.checkpoints / f"{owner[:20]}.safetensors"

    def make(out: Path) -> dict[str, Any]:
        chooses = base is None or config.training.epochs > 1  # a single epoch is judged with the whole, later
        taught = prepared(Lesson(config, tasks, log, features, graph, ahead=log, judged=chooses))
        network, data, judge = taught.network, taught.data, taught.judge
        fresh = [] if base is None else carry_over(network, base.earlier(), data.edges, categories(features))
        run.workspace.checkpoints.mkdir(exist_ok=True)
        lambda_ = config.training.kg_weight if data.triples_T3 is not None else 0.0
        phases = plan(config.training, config.training.epochs, [task.name for task in taught.tasks])
        for phase in phases:
            run.tell("train")("learns: {learns}; trains: {trains}, {parameters:,} numbers, until epoch {until_epoch}"
                              .format(**phase.facts(network)))  # fmt: skip
        teacher = Teacher(config, log, graph, read_tuned(tuned), fitted_before(tuned)) if tuned is not None else None
        with beside("kgrec-fits-neighbours") as thread:  # of an increment: it has an epoch, and fits that are quick
            near = None
            if base is not None and teacher is not None and judge.asks_ranking:
                with_graph = network.config.graph_weight > 0
                near = thread.submit(neighbour_matrices, teacher, config.blocks, with_graph=with_graph)
            result = train_together(run.launch, taught, checkpoint, owner, reporter(run))
        weights_before = None if base is None else base.trained.facts["blocks"].get("weights")
        found = None if near is None else near.result()
        vectors, blocks = served_vectors(network, data, judge, teacher, config, weights_before, found)
        towers = keep_better_towers(
            network, data, judge, vectors, config.training, config.losses, config.seed,
            checkpoint.with_suffix(".towers.safetensors"), f"{owner} towers", reporter(run),
        )  # fmt: skip
        calibration = calibrate(network, judge, vectors, config.evaluation.calibration)
        keep(network, vectors, out)
        history = [epoch | textbook_form(epoch, config.training.task_weights, lambda_) for epoch in result.history]
        write_atomically(out / HISTORY, (json.dumps(history, indent=1) + "\n").encode())
        return {
            "best_epoch": result.best_epoch,
            "stopped_early": result.stopped_early,
            "tasks": [task.value for task in tasks],
            "blocks": blocks,
            "towers": towers,
            "calibration": calibration,
            "feature_gates": gates(network, features),
            "lambda": lambda_,
            "phases": [phase.facts(network) for phase in phases],
            "graph_alone": chosen,
            "balancing": config.training.balancing.value,
            "relations": _relations(network, result, config.training),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            **({} if run.launch.alone else {"launch": run.launch.model_dump(mode="json", exclude={"restarts"})}),
            **({START: start.facts() | {"parameters_from_scratch": fresh}} if start is not None and base else {}),
        }

    artifact = run.stage("train", inputs, settings, make)
    for left in (checkpoint, checkpoint.with_suffix(".towers.safetensors")):
        left.unlink(missing_ok=True)
    return artifact


def suited(
    config: RunConfig, tasks: tuple[TaskName, ...], graph: Artifact
) -> tuple[RunConfig, dict[str, dict[str, Any]]]:
    """Return the config with what suits a graph alone in its unset keys, and those defaults; nothing for a log."""
    if tasks != (TaskName.KG,):
        return config, {}
    defaults = graph_alone_defaults(int(graph.facts["entities"]), int(graph.facts["triples"]))
    update = {name: filled(getattr(config, name), values) for name, values in defaults.items()}
    return config.model_copy(update=update), defaults


def _relations(network: Network, result: TrainingResult, config: TrainingConfig) -> dict[str, Any]:
    """Return how the tasks relate, with the covariance of the towers' heads where it was learned."""
    found = summary(result.history)
    if found and config.covariance_weight and network.towers is not None:
        found["task_covariance"] = task_covariance(network.towers.head_weights()).tolist()
        found["covariance_names"] = list(network.towers.heads)
    return found


def reporter(run: Run, stage: str = "train") -> Callable[[Progress], None]:
    """Return what tells an epoch as progress of a stage."""

    def report(progress: Progress) -> None:
        objective = progress.figures.get("validation/objective")
        text = f"epoch {progress.epoch}" + ("" if objective is None else f", validation {objective:.4f}")
        run.progress(StageProgress(stage, text, progress.epoch, progress.epochs))

    return report


def keep(network: Network, vectors: Mapping[str, Tensor], out: Path) -> None:
    """Write a trained network: all weights, its shape and config, and the vectors that serving needs."""
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, out / WEIGHTS)
    facts = {"shape": network.shape.model_dump(mode="json"), "config": network.config.model_dump(mode="json")}
    write_atomically(out / NETWORK, canonical_json(facts).encode())
    save_file(dict(vectors), out / VECTORS)
    if network.towers is not None:
        towers = {name: tensor.contiguous() for name, tensor in network.towers.state_dict().items()}
        item_rows_ID = network.item_rows()
        save_file(
            towers | ({ITEM_ROWS: item_rows_ID.detach().clone()} if item_rows_ID is not None else {}), out / TOWERS
        )


def load_network(trained: Artifact) -> tuple[Network, Mapping[str, Tensor]]:
    """Return the network (without its graph: it scores, it does not encode) and the vectors as served."""
    facts = json.loads(trained.file(NETWORK).read_text())
    shape, config = NetworkShape(**facts["shape"]), NetworkConfig(**facts["config"])
    network = Network(shape, config, GraphEdges.empty(), seed=0)
    network.load_state_dict(load_file(trained.file(WEIGHTS)))
    network.eval()
    return network, load_file(trained.file(VECTORS))
