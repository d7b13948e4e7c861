"""Tensors of a version, read in pieces: a thread that reads many megabytes at once would keep all others waiting."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

_PIECE_BYTES: Final = 1 << 20


def read_tensors(path: Path, piece_bytes: int = _PIECE_BYTES) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of a safetensors file by name, as `safetensors.numpy.load_file` does.

    The library holds Python's lock while it copies; here it does so for about `piece_bytes` at a time.
    """
    with safe_open(path, framework="numpy") as stored:
        return {name: _read(stored, name, piece_bytes) for name in stored.keys()}  # noqa: SIM118  no mapping


def _read(stored: Any, name: str, piece_bytes: int) -> npt.NDArray[Any]:
    part = stored.get_slice(name)
    shape = part.get_shape()
    if not shape or not all(shape):
        whole: npt.NDArray[Any] = stored.get_tensor(name)
        return whole
    first = part[0:1]
    found = np.empty(shape, dtype=first.dtype)
    step = max(1, piece_bytes // first.nbytes)
    for start in range(0, shape[0], step):
        end = min(start + step, shape[0])
        found[start:end] = part[start:end]
    return found
