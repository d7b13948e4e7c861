"""A small training of its own process, to be killed: `python -m tests.training.resume_script CHECKPOINT RESULT`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from kgrec.model.embeddings import SharedTables
from kgrec.model.network import Network, NetworkConfig
from kgrec.training.tasks import TaskConfig, make_network, make_tasks
from kgrec.training.trainer import Progress, TrainingConfig, TrainingResult, train
from kgrec.training.world import ALONE, World
from tests.training.worlds_of_tensors import SMALL, cosine_objective, exposures, tastes

CONFIG = TrainingConfig(epochs=12, batch_size=64, patience=0, evaluate_every=2, checkpoint_every=1, threads=1)


def tell(progress: Progress) -> None:
    """Say which epoch is done."""
    sys.stdout.write(f"{progress.epoch}\n")
    sys.stdout.flush()


def run(
    checkpoint: Path | None,
    config: TrainingConfig = CONFIG,
    progress: Callable[[Progress], None] = tell,
    world: World = ALONE,
    until: int | None = None,
    model: NetworkConfig = SMALL,
    make_tables: Callable[..., Any] = SharedTables,
) -> tuple[Network, TrainingResult]:
    """Train all three tasks on the planted world, from the checkpoint where there is one."""
    shape, data, genre_I = tastes()
    table, *_ = exposures(300, impressions=True)
    shape = shape.model_copy(update={"heads": table.heads, "num_numeric": 2, "cardinalities": (3,)})
    data = replace(data, exposures=table)
    network = make_network(shape, model, data, 3, make_tables)
    losses = TaskConfig(full_softmax_items=0, sampled_items=16, sampled_entities=8)
    later = replace(data, positives=tastes(seed=1)[1].positives, exposures=exposures(100, impressions=True, seed=1)[0])
    result = train(
        network, make_tasks(shape, data, losses), config, 3, lambda model: cosine_objective(model, genre_I),
        held_out=make_tasks(shape, later, losses), checkpoint=checkpoint, owner="world", progress=progress,
        world=world, until=until,
    )  # fmt: skip
    return network, result


if __name__ == "__main__":
    save_file(run(Path(sys.argv[1]))[1].best_state, sys.argv[2])
