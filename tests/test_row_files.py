"""Arrays in files: what is written in pieces is read by rows, and little of it stays in memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.row_files import RowFile, RowWriter


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """Return an array of 5,000 rows of 8 float32 and the file that holds it."""
    array = np.random.default_rng(0).random((5_000, 8), np.float32)
    path = tmp_path_factory.mktemp("rows") / "numbers.npy"
    with RowWriter(path, array.shape, array.dtype) as file:
        for start in range(0, 5_000, 700):
            file.append(array[start : start + 700])
    return array, path


def test_pieces_make_the_file_that_numpy_writes(numbers, tmp_path):
    array, path = numbers
    np.save(tmp_path / "whole.npy", array)
    assert path.read_bytes() == (tmp_path / "whole.npy").read_bytes()


@settings(max_examples=30)
@given(st.lists(st.integers(0, 4_999), max_size=50), st.sampled_from([32, 3_200, 64_000, 10**9]))
def test_rows_come_in_the_order_asked_whatever_stays_in_memory(numbers, rows, resident):
    array, path = numbers
    file = RowFile(path, resident)
    asked = np.array(rows, np.int64)
    np.testing.assert_array_equal(file.take(asked), array[asked])
    np.testing.assert_array_equal(file.slice(10, 4_000), array[10:4_000])


def test_missing_and_foreign_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 rows were written instead of 3"), RowWriter(
        tmp_path / "few.npy", (3, 2), np.float32
    ) as file:  # fmt: skip
        file.append(np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match="rows of"), RowWriter(tmp_path / "wide.npy", (1, 2), np.float32) as file:
        file.append(np.zeros((1, 3), np.float32))
