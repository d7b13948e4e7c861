import logging
from pathlib import Path

import pytest
import torch

from kgrec.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from kgrec.training.stopping import Stopping


def state() -> TrainingState:
    tensors = {"a": torch.randn(3, 2), "empty": torch.zeros(0, 4), "scalar": torch.tensor(3.0)}
    stopping = Stopping(4, best_epoch=2, best_objective=0.1 + 0.2, rounds_without_gain=1)
    history = [{"epoch": 1.0, "loss/x": 1 / 3}, {"epoch": 2.0, "loss/x": float("inf")}]
    return TrainingState(stopping, 3, history, tensors, {"0.step": torch.tensor(7.0)}, {"a": torch.ones(3, 2)}, {})


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path, saved = tmp_path / "deep" / "state.safetensors", state()
    save_checkpoint(path, saved, "me")
    loaded = load_checkpoint(path, "me", patience=4)
    assert loaded is not None
    assert (loaded.stopping, loaded.epoch, loaded.history) == (saved.stopping, saved.epoch, saved.history)
    for group in ("parameters", "optimiser", "best", "balancer"):
        left, right = getattr(loaded, group), getattr(saved, group)
        assert set(left) == set(right)
        assert all(torch.equal(left[name], right[name]) and left[name].shape == right[name].shape for name in left)
    assert [child.name for child in path.parent.iterdir()] == [path.name]


def test_an_untouched_training_and_one_before_any_evaluation_come_back(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, TrainingState(Stopping(4), 1, [], {"a": torch.ones(1)}), "me")
    loaded = load_checkpoint(path, "me", patience=9)
    assert loaded is not None
    assert loaded.stopping == Stopping(9)
    assert loaded.best == {}


def test_a_missing_file_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load_checkpoint(tmp_path / "none", "me", 1) is None
    assert not caplog.records


def test_another_owner_is_refused_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, state(), "somebody")
    with caplog.at_level(logging.WARNING):
        assert load_checkpoint(path, "me", 4) is None
    assert "another training" in caplog.text


def test_no_flipped_byte_goes_unseen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, state(), "me")
    content = path.read_bytes()
    for position in range(0, len(content), 3):
        changed = bytearray(content)
        changed[position] ^= 0x11
        path.write_bytes(changed)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert load_checkpoint(path, "me", 4) is None, position
        assert "starts anew" in caplog.text
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        assert load_checkpoint(path, "me", 4) is None
