"""The towers a second time by themselves, and which of the two validation keeps.

Beside the retrieval task the towers read the items' vectors, which helps on one log and overfits on another, and their
epoch is chosen together with the lists'. By themselves, on the features alone, they are quick to train.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from kgrec import columns as c
from kgrec.chain.questions import Judge, Vectors
from kgrec.evaluation.classification import auc
from kgrec.model.embeddings import NetworkShape
from kgrec.model.network import Network
from kgrec.model.propagation import GraphEdges
from kgrec.model.towers import Reads
from kgrec.training.phases import Knowledge
from kgrec.training.tasks import TaskConfig, TrainingData, make_network, make_tasks
from kgrec.training.trainer import Progress, TrainingConfig, TrainingResult, train

JOINT: Final = "joint"
ALONE: Final = "alone"


def keep_better_towers(
    network: Network, data: TrainingData, judge: Judge, vectors: Vectors, training: TrainingConfig, losses: TaskConfig,
    seed: int, checkpoint: Path, owner: str, progress: Callable[[Progress], None],
) -> dict[str, Any]:  # fmt: skip
    """Train towers on the features alone and put them into the network where validation's mean AUC is higher.

    Returns the mean AUC of both and which was kept, for people; nothing where there is no choice: no towers, towers
    that read no shared vector anyway or learn by themselves already, or no AUC on validation.
    """
    before = None if network.towers is None else _mean_area(judge, network, vectors)
    if (
        network.towers is None or data.exposures is None or before is None or not training.towers_alone
        or network.config.towers.reads is Reads.NOTHING or (data.positives is None and data.triples_T3 is None)
    ):  # fmt: skip
        return {}
    plain, result = train_alone(
        network, data, training, losses, seed, checkpoint, owner, progress,
        evaluate=lambda one: {"objective": _mean_area(judge, one, vectors) or 0.0},
    )  # fmt: skip
    after = _mean_area(judge, plain, vectors) or 0.0
    if after > before:
        take_towers(network, plain)
    return {f"{JOINT}_auc": before, f"{ALONE}_auc": after, f"{ALONE}_best_epoch": result.best_epoch,
            "kept": ALONE if after > before else JOINT}  # fmt: skip


def train_alone(
    network: Network, data: TrainingData, training: TrainingConfig, losses: TaskConfig, seed: int, checkpoint: Path,
    owner: str, progress: Callable[[Progress], None], *,
    evaluate: Callable[[Network], Mapping[str, float]] | None, until: int | None = None,
) -> tuple[Network, TrainingResult]:  # fmt: skip
    """Train towers of the network's kind on the features alone; return them in a network of their own."""
    shape: NetworkShape = network.shape.model_copy(
        update={"num_users": 0, "num_items": 0, "num_entities": 0, "num_relations": 0}
    )
    towers = network.config.towers.model_copy(update={"reads": Reads.NOTHING, "cross_compress": 0})
    config = network.config.model_copy(update={"layers": 0, "propagation": "exact", "towers": towers})  # no vectors
    rows = TrainingData(GraphEdges.empty(), exposures=data.exposures)
    plain = make_network(shape, config, rows, seed)
    calm = training.model_copy(update={"schedule": "together", "knowledge": Knowledge.JOINT, "relations_every": 0})
    result = train(
        plain, make_tasks(shape, rows, losses), calm, seed, evaluate, until=until, checkpoint=checkpoint, owner=owner,
        progress=progress,
    )  # fmt: skip
    return plain, result


def take_towers(network: Network, plain: Network) -> None:
    """Put the towers of `train_alone` in the place of the network's own."""
    network.towers = plain.towers
    network.config = network.config.model_copy(update={"towers": plain.config.towers})


def _mean_area(judge: Judge, network: Network, vectors: Vectors) -> float | None:
    found = judge.predictions(network, vectors, c.VALIDATION)
    areas = [area for one in found.values() if (area := auc(one.probability_N, one.label_N)) is not None]
    return sum(areas) / len(areas) if areas else None
