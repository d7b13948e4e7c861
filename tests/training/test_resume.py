"""A run that is killed at any moment and started again gives the same tensors, bit for bit."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from kgrec.training.trainer import TrainingResult
from tests.training.resume_script import CONFIG, run


@pytest.fixture(scope="module")
def unbroken() -> TrainingResult:
    return run(None)[1]


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return set(left) == set(right) and all(torch.equal(left[name], right[name]) for name in left)


def test_two_unbroken_runs_agree_whatever_the_global_generator(unbroken: TrainingResult) -> None:
    torch.manual_seed(99)
    again = run(None)[1]
    assert same(again.best_state, unbroken.best_state)
    assert again.history == unbroken.history


@pytest.mark.parametrize("stop", range(1, CONFIG.epochs))
def test_stopping_after_each_epoch_changes_nothing(stop: int, unbroken: TrainingResult, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"

    class PulledPlugError(Exception):
        pass

    import tests.training.resume_script as script

    def pull(text: str) -> int:
        if text == f"{stop}\n":
            raise PulledPlugError
        return len(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script.sys.stdout, "write", pull)
        with pytest.raises(PulledPlugError):
            run(path)
    result = run(path)[1]
    assert same(result.best_state, unbroken.best_state)
    assert result.history == unbroken.history
    assert result.best_epoch == unbroken.best_epoch


def test_a_finished_training_is_not_trained_again(unbroken: TrainingResult, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    run(path)
    before = path.stat().st_mtime_ns
    again = run(path)[1]
    assert path.stat().st_mtime_ns == before
    assert same(again.best_state, unbroken.best_state)


def test_a_damaged_checkpoint_costs_time_and_nothing_else(unbroken: TrainingResult, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    run(path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert same(run(path)[1].best_state, unbroken.best_state)


@pytest.mark.slow
def test_killing_the_process_at_a_random_moment_changes_nothing(unbroken: TrainingResult, tmp_path: Path) -> None:
    checkpoint, result = tmp_path / "state.safetensors", tmp_path / "result.safetensors"
    command = [sys.executable, "-m", "tests.training.resume_script", str(checkpoint), str(result)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    process.stdout.readline()  # its first epoch is done; the rest takes about a quarter of a second
    time.sleep(random.uniform(0.0, 0.06))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert not result.exists()
    assert same(run(checkpoint)[1].best_state, unbroken.best_state)
