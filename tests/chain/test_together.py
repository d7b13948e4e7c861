"""A launched training gives the artifact that one process gives, and faults of the processes come back as they were."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from feature_store.catalog import VIEWS
from kgrec.artifacts import Artifact
from kgrec.chain import together
from kgrec.chain.context import Run
from kgrec.chain.learn import HISTORY
from kgrec.chain.lesson import Lesson, lesson_of, prepared
from kgrec.config import TaskName, load_config
from kgrec.errors import DivergedError, InputError, KgrecError, Problem
from kgrec.stages import RunResult, run_chain
from kgrec.training.distributed.launch import Launch, WorkersLostError
from kgrec.workspace import Workspace
from tests import worlds


def only(workspace: Path, stage: str) -> Path:
    (found,) = (workspace / "artifacts" / stage).iterdir()
    return found


@pytest.mark.slow
def test_the_stage_trained_by_torchrun_is_that_of_one_process(tiny: RunResult, tiny_copy: Path) -> None:
    shutil.rmtree(tiny_copy / "artifacts" / "train")
    run = Run(load_config(worlds.TINY), Workspace(tiny_copy), VIEWS)
    run.launch = Launch(launcher="torchrun", processes=2)  # type: ignore[arg-type]
    trained = run_chain(run, until="train")
    assert isinstance(trained, Artifact)
    assert trained.facts["launch"] == {"launcher": "torchrun", "processes": 2}
    alone, mine = (json.loads((only(place, "train") / HISTORY).read_text()) for place in (tiny.workspace, tiny_copy))
    assert trained.path.name == only(tiny.workspace, "train").name, "how many trained is no part of the key"
    for theirs, ours in zip(alone, mine, strict=True):
        for name in [name for name in theirs if name.startswith("loss/")]:
            assert math.isclose(theirs[name], ours[name], rel_tol=1e-5), name
    assert not list((tiny_copy / "checkpoints").iterdir()), "nothing of the job is left"


def lesson(tiny: RunResult) -> Lesson:
    run = Run(load_config(worlds.TINY), Workspace(tiny.workspace), VIEWS)
    log, features, graph = (run_chain(run, until=stage) for stage in ("split", "features", "graph"))
    assert isinstance(log, Artifact)
    assert isinstance(features, Artifact)
    assert isinstance(graph, Artifact)
    return Lesson(run.config, (TaskName.CLICK, TaskName.KG), log, features, graph, ahead=log, judged=False, until=4)


def test_a_lesson_comes_back_from_json(tiny_copy: Path, tiny: RunResult) -> None:
    told = lesson(tiny)
    assert lesson_of(json.loads(json.dumps(told.facts()))) == told


@pytest.mark.parametrize("fault", [
    DivergedError("not finite"), InputError([Problem("here", "wrong", "mend it", 2, "x"), Problem("b", "c", "d")]),
    KgrecError("something else"),
])  # fmt: skip
def test_what_a_process_finds_wrong_is_raised_here(
    fault: KgrecError, tiny: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(launch: Launch, module: str, orders: Path) -> None:
        def fail(*_: Any) -> None:
            raise fault

        with monkeypatch.context() as patch:
            patch.setattr(together.distributed, "is_initialized", lambda: True)
            patch.setattr(together, "_learn", fail)
            with pytest.raises(type(fault)):
                together.main([str(orders)])
        with pytest.raises(KgrecError, match=r"not finite|wrong|something else"):
            together.main([str(orders)])  # started again, it ends at once
        raise WorkersLostError("dead")

    monkeypatch.setattr(together, "launcher_of", lambda name: start)
    launch = Launch(launcher="torchrun", processes=2)  # type: ignore[arg-type]
    with pytest.raises(type(fault)) as raised:
        together.train_together(launch, prepared(lesson(tiny)), tmp_path / "state.safetensors", "me", lambda _: None)
    assert str(raised.value) == str(fault)
    assert getattr(raised.value, "problems", ()) == getattr(fault, "problems", ())


@pytest.mark.parametrize(("epochs", "kept"), [(1, False), (2, True)])
def test_a_single_epoch_in_this_process_keeps_no_checkpoint(
    tiny: RunResult, tmp_path: Path, epochs: int, kept: bool
) -> None:
    told = lesson(tiny)
    training = told.config.training.model_copy(update={"epochs": epochs})
    taught = prepared(told.with_config(told.config.model_copy(update={"training": training})))
    found = together.train_together(Launch(), taught, tmp_path / "state.safetensors", "owner", lambda progress: None)
    assert len(found.history) == epochs
    assert (tmp_path / "state.safetensors").exists() is kept
