"""What each of two processes runs in the tests: `main([folder])`, by a launcher. One of them dies on its first way."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from torch import distributed

from kgrec.training.balancer import BalancerName
from kgrec.training.distributed.sharding import tables_of
from kgrec.training.trainer import Progress
from kgrec.training.world import World
from tests.training.resume_script import CONFIG, run
from tests.training.worlds_of_tensors import SMALL

BALANCERS = (BalancerName.UNCERTAINTY, BalancerName.FAMO, BalancerName.PCGRAD, BalancerName.META)
DIES_AFTER, HALF = 5, 6
SHORT = CONFIG.model_copy(update={"epochs": 3, "relations_every": 0})
ADAGRAD = CONFIG.model_copy(update={"optimiser": "adagrad", "relations_every": 0})
SAMPLED = SMALL.model_copy(update={"propagation": "sampled", "fanout": 3})


def main(arguments: Sequence[str]) -> None:
    """Train the planted world several times over and write the leader's histories to `histories.json`."""
    mine = not distributed.is_initialized()
    if mine:
        distributed.init_process_group("gloo")
    folder, world = Path(arguments[0]), World.joined()

    def die_once(progress: Progress) -> None:
        """Die in the middle: the leader, the first time that it comes here."""
        if progress.epoch == DIES_AFTER and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    _, killed = run(folder / "killed.safetensors", progress=die_once, world=world)
    histories = {"fixed": killed.history}
    run(folder / "half.safetensors", progress=_nothing, world=world, until=HALF)
    for name in BALANCERS:
        config = SHORT.model_copy(update={"balancing": name})
        histories[name.value] = run(None, config, _nothing, world)[1].history
    histories["sampled"] = run(None, SHORT, _nothing, world, model=SAMPLED)[1].history
    for sharding in ("row_wise", "table_wise") if find_spec("torchrec") else ():
        config = ADAGRAD.model_copy(update={"tables": "torchrec", "sharding": sharding})
        path = folder / f"{sharding}.safetensors"
        run(path, config, _nothing, world, HALF, SAMPLED, tables_of(config))
        found = run(path, config, _nothing, world, None, SAMPLED, tables_of(config))
        histories[sharding] = found[1].history
        run(folder / f"{sharding}.half.safetensors", config, _nothing, world, HALF, SAMPLED, tables_of(config))
    if world.leads:
        (folder / "histories.json").write_text(json.dumps(histories))
    if mine:
        distributed.destroy_process_group()


def _nothing(_: Progress) -> None:
    pass


if __name__ == "__main__":
    main(sys.argv[1:])
