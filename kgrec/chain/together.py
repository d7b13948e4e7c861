"""Training in several processes: a job is written down, a launcher runs it, and the last checkpoint is taken up.

`python -m kgrec.chain.together JOB` is what each process runs; torchrun on several machines can be given the same.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import distributed

from kgrec.artifacts import write_atomically
from kgrec.chain.lesson import Taught, lesson_of, prepared
from kgrec.errors import DivergedError, InputError, KgrecError, Problem
from kgrec.training.distributed.launch import Launch, WorkersLostError, launcher_of
from kgrec.training.distributed.sharding import group_of_one, refuse_sharded, tables_of
from kgrec.training.trainer import Progress, TrainingResult
from kgrec.training.whole import take_state
from kgrec.training.world import World

_log = logging.getLogger(__name__)
MODULE: Final = "kgrec.chain.together"
_PATIENCE: Final = timedelta(minutes=30)  # the leader judges while the others wait
_GLANCE: Final = 0.5  # seconds between two looks at what the leader has told


@dataclass(frozen=True)
class Job:
    """The files of a job, all beside the checkpoint: what to do, where to start, what was told, what went wrong."""

    checkpoint: Path

    @property
    def orders(self) -> Path:
        """The lesson and the owner of the checkpoint."""
        return self.checkpoint.with_suffix(".job.json")

    @property
    def start(self) -> Path:
        """The network before its first step."""
        return self.checkpoint.with_suffix(".start.safetensors")

    @property
    def told(self) -> Path:
        """A line for each epoch."""
        return self.checkpoint.with_suffix(".told.jsonl")

    @property
    def fault(self) -> Path:
        """What a process found wrong that no restart can mend."""
        return self.checkpoint.with_suffix(".fault.json")

    def clear(self) -> None:
        """Remove them."""
        for path in (self.orders, self.start, self.told, self.fault):
            path.unlink(missing_ok=True)


def train_together(
    launch: Launch, taught: Taught, checkpoint: Path, owner: str, progress: Callable[[Progress], None]
) -> TrainingResult:
    """Train a prepared lesson in the launched processes, or here where there are none to launch.

    Whoever trained, this process goes on from the last checkpoint: after a training that is complete nothing is left to
    do but to take the best epoch, after one that was cut short the rest of it. A single epoch in this process keeps
    none: it is learned again as soon as it would be read back.
    """
    training = taught.lesson.config.training
    if training.tables != "local":
        refuse_sharded(training, taught.lesson.config.model)
    here = launch.alone and training.tables == "local"
    if here and training.epochs == 1:
        return taught.train(None, owner, progress)
    if not here:
        job = Job(checkpoint)
        job.clear()
        start = {name: tensor.contiguous() for name, tensor in taught.network.state_dict().items()}
        save_file(start, job.start)
        orders = {"owner": owner, "checkpoint": str(checkpoint), "lesson": taught.lesson.facts()}
        write_atomically(job.orders, json.dumps(orders).encode())
        with _Listener(job.told, progress):
            _run(launch, job)
        job.clear()
    return taught.train(checkpoint, owner, progress)


def _run(launch: Launch, job: Job) -> None:
    if launch.alone:
        with group_of_one():
            main([str(job.orders)])
        return
    try:
        launcher_of(launch.launcher)(launch, MODULE, job.orders)
    except WorkersLostError:
        if job.fault.exists():
            raise _fault_of(json.loads(job.fault.read_text())) from None
        raise


def main(arguments: Sequence[str]) -> None:
    """Train as one of the processes; the process group's address comes from the launcher's environment."""
    orders: dict[str, Any] = json.loads(Path(arguments[0]).read_text())
    job = Job(Path(orders["checkpoint"]))
    if job.fault.exists():
        raise _fault_of(json.loads(job.fault.read_text()))
    mine = not distributed.is_initialized()  # Ray Train has joined already
    if mine:
        distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        _learn(orders, job)
    except KgrecError as fault:
        problems = [vars(problem) for problem in fault.problems] if isinstance(fault, InputError) else []
        told = {"kind": type(fault).__name__, "text": str(fault), "problems": problems}
        write_atomically(job.fault, json.dumps(told).encode())
        raise
    finally:
        if mine:
            distributed.destroy_process_group()


def _learn(orders: dict[str, Any], job: Job) -> None:
    lesson = lesson_of(orders["lesson"])
    threads = lesson.config.training.threads or max(1, len(os.sched_getaffinity(0)) // _neighbours())
    training = lesson.config.training.model_copy(update={"threads": threads})
    lesson = lesson.with_config(lesson.config.model_copy(update={"training": training}))
    taught = prepared(lesson, tables_of(training))
    take_state(taught.network, load_file(job.start))
    with job.told.open("a") as stream:

        def tell(progress: Progress) -> None:
            line = {"epoch": progress.epoch, "epochs": progress.epochs, "figures": dict(progress.figures)}
            stream.write(json.dumps(line) + "\n")
            stream.flush()

        taught.train(job.checkpoint, orders["owner"], tell, World.joined())


def _neighbours() -> int:
    """Return how many of the processes share this machine, as the launcher tells."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _fault_of(told: dict[str, Any]) -> KgrecError:
    if told["problems"]:
        return InputError([Problem(**problem) for problem in told["problems"]])
    return {"DivergedError": DivergedError}.get(told["kind"], KgrecError)(told["text"])


class _Listener:
    """Passes on what the leader tells, while it tells it."""

    def __init__(self, told: Path, progress: Callable[[Progress], None]) -> None:
        self._told, self._progress, self._read = told, progress, 0
        self._over, self._thread = Event(), Thread(target=self._listen, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _listen(self) -> None:
        while not self._over.wait(_GLANCE):
            self._pass_on()
        self._pass_on()

    def _pass_on(self) -> None:
        if not self._told.exists():
            return
        with self._told.open() as stream:
            stream.seek(self._read)
            for line in iter(stream.readline, ""):
                if not line.endswith("\n"):
                    break
                self._read += len(line.encode())
                self._progress(Progress(**json.loads(line)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
