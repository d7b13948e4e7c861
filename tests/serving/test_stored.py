from __future__ import annotations

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from kgrec.serving.stored import read_tensors

NUMBERS = np.random.default_rng(3)
TENSORS = {
    "table": NUMBERS.normal(size=(37, 5)).astype(np.float32), "long": NUMBERS.integers(0, 99, 1001, dtype=np.int64),
    "half": NUMBERS.normal(size=(9, 4)).astype(np.float16), "eight": NUMBERS.integers(-9, 9, (6, 7), dtype=np.int8),
    "flags": NUMBERS.random(77) < 0.5, "cube": NUMBERS.normal(size=(3, 4, 5)), "one": np.array(2.5, np.float32),
    "none": np.empty((0, 8), np.float32), "narrow": np.empty((8, 0), np.float32), "row": np.ones((1, 3), np.uint16),
}  # fmt: skip


@pytest.mark.parametrize("piece_bytes", [1, 64, 100, 1 << 20])
def test_tensors_read_in_pieces_are_those_read_at_once(tmp_path, piece_bytes):
    path = tmp_path / "some.safetensors"
    save_file(TENSORS, path)
    found, expected = read_tensors(path, piece_bytes), load_file(path)
    assert found.keys() == expected.keys() == TENSORS.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        np.testing.assert_array_equal(found[name], tensor)
        assert found[name].flags.writeable


def test_a_file_cut_short_is_refused(tmp_path):
    path = tmp_path / "some.safetensors"
    save_file(TENSORS, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SafetensorError):
        read_tensors(path)
