"""Smaller versions: tensors in half precision or whole numbers of eight bits, and graphs without idle entities.

Shapes: U users, I items, E entities, D dimensions, N stored weights, T triples.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

Array = npt.NDArray[Any]
SCALE: Final = ".scale"
_LARGEST: Final = 127
_VALUES, _ITEMS, _ENDS = "_values", "_items", "_ends"
_AS_THEY_ARE: Final = frozenset({"item_rows_ID"})
"""Tensors that the towers read beside their own: judged in full, so stored in full."""


class Precision(StrEnum):
    """How the numbers of a version are stored."""

    FULL = "float32"
    HALF = "float16"
    INT8 = "int8"


class Entities(StrEnum):
    """Which entities of the graph a version keeps."""

    ALL = "all"
    BETWEEN_ITEMS = "between_items"


class ServingConfig(BaseModel):
    """[serving]: what a version keeps of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Precision = Field(
        Precision.FULL,
        description="float32, float16 or int8: vectors, neighbours and towers as stored, judged and served; what "
        "it costs is measured on validation, and the policy's [smaller] bounds it",
    )
    entities: Entities = Field(
        Entities.ALL,
        description="all, or between_items: without entities that lie on no way between two items; reasons stay, "
        "filters by such an entity find nothing",
    )


def packed(tensors: Mapping[str, Array], precision: Precision) -> dict[str, Array]:
    """Return tensors as they are stored: tables and neighbours' weights in few bits, all else as it is.

    int8: x = scale * q with q in -127..127, a scale for each last dimension of a table (a column of vectors, an input
    of a layer) and for each item's neighbours (in a table of them: its row), under the tensor's name and `.scale`.
    Places of neighbours take two bytes where they fit. Packing what was unpacked gives the same bytes.

    >>> packed({"item_vectors_ID": np.array([[1.0, 0.5], [-1.0, 0.25]], np.float32)}, Precision.INT8)["item_vectors_ID"]
    array([[ 127,  127],
           [-127,   64]], dtype=int8)
    """
    found: dict[str, Array] = {}
    for name, tensor in tensors.items():
        if precision is Precision.FULL or not _shrinks(name, tensor):
            found[name] = tensor
        elif name.endswith(_ITEMS):
            found[name] = tensor.astype(np.uint16) if tensor.max(initial=0) < 2**16 else tensor
        elif precision is Precision.HALF:
            found[name] = tensor.astype(np.float16)
        else:
            found |= _in_eight_bits(name, tensor, _ends_of(name, tensors))
    return found


def unpacked(stored: Mapping[str, Array]) -> dict[str, Array]:
    """Return what `packed` stored as float32 tensors, and neighbours' rows as int32."""
    found: dict[str, Array] = {}
    for name, tensor in stored.items():
        if name.endswith(SCALE):
            continue
        if tensor.dtype == np.int8 and name + SCALE in stored:
            scale = stored[name + SCALE]
            if (ends := _ends_of(name, stored)) is not None:
                scale = np.repeat(scale, _counts(ends))
            found[name] = tensor.astype(np.float32) * scale
        else:
            as_read = {np.dtype(np.float16): np.float32, np.dtype(np.uint16): np.int32}.get(tensor.dtype)
            found[name] = tensor if as_read is None else tensor.astype(as_read)
    return found


def as_stored(tensors: Mapping[str, Tensor], precision: Precision) -> dict[str, Tensor]:
    """Return tensors as they come back from a version of this precision."""
    if precision is Precision.FULL:
        return dict(tensors)
    arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    return {name: torch.from_numpy(array) for name, array in unpacked(packed(arrays, precision)).items()}


def idle_entities(heads_T: Array, tails_T: Array, num_items: int, num_nodes: int) -> npt.NDArray[np.bool_]:
    """Return a flag per node: an entity that lies on no way between two items (nodes below num_items are items).

    Entities with at most one neighbour left are taken away until there are none.
    """
    ends_X2 = np.concatenate([np.stack([heads_T, tails_T], 1), np.stack([tails_T, heads_T], 1)])
    ends_X2 = np.unique(ends_X2[ends_X2[:, 0] != ends_X2[:, 1]], axis=0)
    idle_N = np.zeros(num_nodes, dtype=bool)
    while True:
        degree_N = np.bincount(ends_X2[:, 0], minlength=num_nodes)
        more_N = (degree_N <= 1) & ~idle_N
        more_N[:num_items] = False
        if not more_N.any():
            return idle_N
        idle_N |= more_N
        ends_X2 = ends_X2[~idle_N[ends_X2].any(axis=1)]


def _shrinks(name: str, tensor: Array) -> bool:
    if name in _AS_THEY_ARE or name.endswith(SCALE):
        return False
    if name.endswith((_VALUES, _ITEMS)) and tensor.ndim == 1:
        return True
    return tensor.dtype == np.float32 and tensor.ndim >= 2


def _in_eight_bits(name: str, tensor: Array, ends: Array | None) -> dict[str, Array]:
    if ends is not None:
        counts = _counts(ends)
        rows_N = np.repeat(np.arange(len(counts)), counts)
        largest = np.zeros(len(counts), dtype=np.float32)
        np.maximum.at(largest, rows_N, np.abs(tensor))
    else:
        rows = name.endswith(_VALUES)
        largest = np.abs(tensor).max(axis=1 if rows else tuple(range(tensor.ndim - 1)), initial=0.0, keepdims=rows)
    scale = (np.where(largest > 0, largest, 1.0) / np.float32(_LARGEST)).astype(np.float32)
    each = scale if ends is None else scale[rows_N]
    return {name: np.rint(tensor / each).clip(-_LARGEST, _LARGEST).astype(np.int8), name + SCALE: scale}


def _ends_of(name: str, tensors: Mapping[str, Array]) -> Array | None:
    """Return where each item's neighbours end, for their values stored one after the other; None of all else."""
    return tensors.get(name.removesuffix(_VALUES) + _ENDS) if name.endswith(_VALUES) else None


def _counts(ends: Array) -> Array:
    return np.diff(ends, prepend=0)
