"""Controls of what a graph is worth: the same graph without triples, and one whose triples say nothing.

Shapes: T triples.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from kgrec import columns as c

IntArray = npt.NDArray[np.int64]
_ROUNDS: Final = 60


class GraphControl(StrEnum):
    """What is done to the graph of a run before training sees it."""

    AS_IS = "as_is"
    OFF = "off"
    SHUFFLED = "shuffled"


def controlled(triples: pl.DataFrame, control: GraphControl, generator: np.random.Generator) -> pl.DataFrame:
    """Return the triples (head, relation, tail as ids or as rows; perhaps their part) under a control.

    off: none at all. shuffled: the train triples' tails change places within their relation, so that every node keeps
    its number of triples in and out of every relation; held-out triples stay as they are.
    """
    if control is GraphControl.OFF:
        return triples.clear()
    if control is GraphControl.AS_IS:
        return triples
    names = (c.HEAD, c.RELATION, c.TAIL) if c.HEAD in triples.columns else (c.HEAD_ROW, c.RELATION_ROW, c.TAIL_ROW)
    head, relation, tail = (triples[name] for name in names)
    in_train = (triples[c.PART] == c.TRAIN).to_numpy() if c.PART in triples.columns else np.ones(len(head), np.bool_)
    code_T = pl.concat([head, tail]).rank("dense").to_numpy().astype(np.int64)
    relation_T = relation.rank("dense").to_numpy().astype(np.int64)
    head_T, tail_T = code_T[: len(head)], code_T[len(head) :]
    code_of = shuffled_tails(head_T[in_train], relation_T[in_train], tail_T[in_train], generator)
    first = pl.DataFrame({"code": tail_T, "tail": tail}).unique("code", keep="first")
    found = pl.DataFrame({"code": code_of}).join(first, on="code", how="left", maintain_order="left")["tail"]
    return triples.with_columns(tail.scatter(np.flatnonzero(in_train), found))


def shuffled_tails(
    head_T: IntArray, relation_T: IntArray, tail_T: IntArray, generator: np.random.Generator
) -> IntArray:
    """Return the tails in a random order within each relation, with as few repeated triples and loops as can be had.

    A random order gives a head the same tail twice here and there; those are mixed again with as many others of the
    relation, up to 60 times. A relation in which every order repeats something keeps a few.

    >>> shuffled_tails(*np.array([[0, 1], [0, 0], [5, 5]]), np.random.default_rng(0)).tolist()
    [5, 5]
    """
    width = int(max(head_T.max(initial=0), tail_T.max(initial=0))) + 1
    tails = _mixed(tail_T, np.arange(len(tail_T)), relation_T, generator)
    best, fewest = tails.copy(), len(tails) + 1
    for _ in range(_ROUNDS):
        faulty_T = _faults(head_T, relation_T, tails, width)
        count = int(faulty_T.sum())
        if count < fewest:
            best, fewest = tails.copy(), count
        if not count:
            break
        with_fault = np.isin(relation_T, np.unique(relation_T[faulty_T]))
        chance_T = np.where(with_fault, min(1.0, 3 * count / max(int(with_fault.sum()), 1)), 0.0)
        tails = _mixed(
            tails, np.flatnonzero(faulty_T | (generator.random(len(tails)) < chance_T)), relation_T, generator
        )
    return best


def _mixed(tail_T: IntArray, places_S: IntArray, relation_T: IntArray, generator: np.random.Generator) -> IntArray:
    """Return the tails with those at the given places in a random order within their relation."""
    mixed = tail_T.copy()
    kept = places_S[np.argsort(relation_T[places_S], kind="stable")]
    drawn = places_S[np.lexsort((generator.random(len(places_S)), relation_T[places_S]))]
    mixed[kept] = tail_T[drawn]
    return mixed


def _faults(head_T: IntArray, relation_T: IntArray, tail_T: IntArray, width: int) -> npt.NDArray[np.bool_]:
    """Return which triples stand there a second time or lead from a node to itself."""
    keys_T = (relation_T * width + head_T) * width + tail_T
    first = np.unique(keys_T, return_index=True)[1]
    again_T = np.ones(len(keys_T), dtype=np.bool_)
    again_T[first] = False
    faults: npt.NDArray[np.bool_] = again_T | (head_T == tail_T)
    return faults
