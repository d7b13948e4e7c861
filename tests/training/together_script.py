"""What each of two processes runs in the tests: `main([job])`, by a launcher. One of them dies on its first way.

The job, a JSON file, names which of `PARTS` are done; what they left lies beside it.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from torch import distributed

from kgrec.training.balancer import BalancerName
from kgrec.training.distributed.sharding import tables_of
from kgrec.training.trainer import Progress
from kgrec.training.world import World
from tests.training.resume_script import CONFIG, run
from tests.training.worlds_of_tensors import SMALL

BALANCERS = (BalancerName.UNCERTAINTY, BalancerName.FAMO, BalancerName.PCGRAD, BalancerName.META)
SHARDINGS = ("row_wise", "table_wise")
DIES_AFTER, HALF = 5, 6
SHORT = CONFIG.model_copy(update={"epochs": 3, "relations_every": 0})
ADAGRAD = CONFIG.model_copy(update={"optimiser": "adagrad", "relations_every": 0})
SAMPLED = SMALL.model_copy(update={"propagation": "sampled", "fanout": 3})


def main(arguments: Sequence[str]) -> None:
    """Train the planted world several times over and write the leader's histories to `histories.json`."""
    mine = not distributed.is_initialized()
    if mine:
        distributed.init_process_group("gloo")
    job, world = Path(arguments[0]), World.joined()
    histories: dict[str, list[dict[str, float]]] = {}
    for part in json.loads(job.read_text()):
        histories |= PARTS[part](job.parent, world)
    if world.leads:
        (job.parent / "histories.json").write_text(json.dumps(histories))
    if mine:
        distributed.destroy_process_group()


def _survived(folder: Path, world: World) -> dict[str, list[dict[str, float]]]:
    """Train with a leader that dies on the way; and half of the way only, for another number of processes."""

    def die_once(progress: Progress) -> None:
        """Die in the middle: the leader, the first time that it comes here."""
        if progress.epoch == DIES_AFTER and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    _, killed = run(folder / "killed.safetensors", progress=die_once, world=world)
    run(folder / "half.safetensors", progress=_nothing, world=world, until=HALF)
    return {"fixed": killed.history}


def _every_kind(folder: Path, world: World) -> dict[str, list[dict[str, float]]]:
    """Train by every kind of balancer, and with sampled propagation."""
    kinds = {name.value: SHORT.model_copy(update={"balancing": name}) for name in BALANCERS}
    histories = {name: run(None, config, _nothing, world)[1].history for name, config in kinds.items()}
    return histories | {"sampled": run(None, SHORT, _nothing, world, model=SAMPLED)[1].history}


def _shared_out(folder: Path, world: World) -> dict[str, list[dict[str, float]]]:
    """Train half of the way, go on to the end; and half of the way only, for another number of processes."""
    histories = {}
    for sharding in SHARDINGS:
        config = ADAGRAD.model_copy(update={"tables": "torchrec", "sharding": sharding})
        path = folder / f"{sharding}.safetensors"
        run(path, config, _nothing, world, HALF, SAMPLED, tables_of(config))
        found = run(path, config, _nothing, world, None, SAMPLED, tables_of(config))
        histories[sharding] = found[1].history
        run(folder / f"{sharding}.half.safetensors", config, _nothing, world, HALF, SAMPLED, tables_of(config))
    return histories


PARTS = {"survived": _survived, "every_kind": _every_kind, "shared_out": _shared_out}


def _nothing(_: Progress) -> None:
    pass
