"""A guard against relations that restate behaviour, such as also-bought: they tell the test part to the train part.

Matrices are items x users, 1 where the user had the item.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_array

from kgrec.columns import HEAD_ROW, ITEM_ROW, KNOWN_AT, PART, RELATION_ROW, TAIL_ROW, TRAIN, USER_ROW
from kgrec.graph.names import relation_words

_SAMPLE: Final = 2_000
_FEWEST: Final = 20
_ALL_BUT: Final = 0.98  # share of fresh pairs that came together later, from which on they were made of it
_LARGEST_NODE: Final = 10  # items of a node that may be a basket or a session; a genre has more, and is taste
_TELLTALE: Final = (
    "also bought", "also viewed", "also buy", "also view", "also purchased", "bought together", "viewed together",
    "bought after viewing", "buy after viewing", "co click", "co view", "co purchase", "coview", "copurchase",
    "coclick", "similar users", "people also",
)  # fmt: skip


class LeaksConfig(BaseModel):
    """A guard against relations that restate behaviour."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["refuse", "drop", "report"] = Field(
        "refuse",
        description="what happens to a relation that restates the log: the run is refused, the relation is left "
        "out, or it is only reported. A relation all of whose triples have `known_at` is left to the split",
    )
    allowed: tuple[str, ...] = Field((), description="relations that are let through, whatever they look like")
    likeness: float = Field(
        0.95, gt=0.5, le=1.0,
        description="chance (0.5-1) that two items tied by a relation were had by more of the same users than two "
        "items alike in popularity; from here on a relation is reported as a likely restatement of the log",
    )  # fmt: skip


@dataclass(frozen=True)
class Suspect:
    """A relation that looks like behaviour. likeness: see the config, None where only the name says so.

    certain: whether it is acted on; False where its pairs share a node and more users than others, which what an item
    is about (its author, its series) explains as well.
    """

    relation_row: int
    why: str
    likeness: float | None
    certain: bool = True


def find_leaks(
    triples: pl.DataFrame, relations: list[str], events: pl.DataFrame, num_items: int, likeness: float,
    generator: np.random.Generator,
) -> list[Suspect]:  # fmt: skip
    """Return the relations that restate the log, by relation row.

    triples: rows with known_at; events: user_row, item_row, part, of all parts, for a leak shows in the later ones.
    Four signs. Its nodes are users in disguise: half of up to 200 nodes with five items or more have nearly the items
    (Jaccard .8) that one user had. The name says so ("also bought"). The tie: of up to 2,000 pairs of items that a
    relation ties directly, or by a node of at most ten items, the chance that a pair has a larger cosine over the users
    of the whole log than a pair of items of like popularity is at least `likeness` (ties count half; under 20 pairs are
    not judged); that is only reported where the items are tied by nodes.
    The look ahead: of its pairs that nobody had both of in train, at least .98 were had by one user later, and the
    share that was not is at most a fifth of the control pairs'.
    """
    history = _incidence(events, num_items)
    past = _incidence(events.filter(pl.col(PART) == TRAIN), num_items)
    popularity = np.asarray(history.sum(axis=1)).ravel()
    found = []
    for (row,), rows in triples.sort(RELATION_ROW, maintain_order=True).group_by([RELATION_ROW], maintain_order=True):
        if rows[KNOWN_AT].null_count() == 0:
            continue
        relation = int(row)
        words = f" {relation_words(relations[relation])} "
        disguised = _users_in_disguise(rows, history, num_items, generator)
        if disguised is not None:
            found.append(Suspect(relation, disguised, None))
            continue
        telltale = next((sign for sign in _TELLTALE if f" {sign}" in words), None)
        pairs = _tied_pairs(rows, num_items, generator)
        pairs = pairs[(popularity[pairs] > 0).all(axis=1)]
        value = None
        if len(pairs) >= _FEWEST:
            controls = _controls(pairs, popularity, generator)
            value = _chance(_cosine(history, pairs), _cosine(history, controls))
            ahead = _looks_ahead(history, past, pairs, controls)
            if ahead is not None:
                found.append(Suspect(relation, ahead, value))
                continue
            if value >= likeness and telltale is None:
                why = f"its pairs share more users than others in {value:.1%} of cases"
                found.append(Suspect(relation, why, value, certain=_ties_items_alone(rows, num_items)))
                continue
        if telltale is not None:
            found.append(Suspect(relation, f'its name says "{telltale}"', value))
    return found


def leak_facts(suspects: list[Suspect], relations: list[str]) -> dict[str, Any]:
    """Return what was found, for people."""
    return {"relations_that_restate_the_log": {relations[one.relation_row]: one.why for one in suspects}}


def _ties_items_alone(rows: pl.DataFrame, num_items: int) -> bool:
    return bool(rows.select(((pl.col(HEAD_ROW) < num_items) & (pl.col(TAIL_ROW) < num_items)).all()).item())


def _incidence(events: pl.DataFrame, num_items: int) -> csr_array:
    users, items = events[USER_ROW].to_numpy(), events[ITEM_ROW].to_numpy()
    size = (num_items, int(users.max()) + 1 if len(users) else 0)
    matrix = csr_array((np.ones(len(users), np.float32), (items, users)), shape=size)
    matrix.data[:] = 1.0
    return matrix


def _tied_pairs(
    rows: pl.DataFrame, num_items: int, generator: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Up to `_SAMPLE` pairs of two items that the relation ties, directly or by a node that at most ten items share."""
    ends = rows.select(HEAD_ROW, TAIL_ROW).to_numpy().astype(np.int64)
    both = (ends < num_items).all(axis=1)
    direct = ends[both & (ends[:, 0] != ends[:, 1])]
    direct = direct[generator.permutation(len(direct))[:_SAMPLE]]
    mixed = ends[(ends < num_items).sum(axis=1) == 1]
    items, nodes = mixed.min(axis=1), mixed.max(axis=1)
    _, group, size = np.unique(nodes, return_inverse=True, return_counts=True)
    small = size[group] <= _LARGEST_NODE
    items, nodes = items[small], nodes[small]
    order = np.argsort(nodes, kind="stable")
    items, nodes = items[order], nodes[order]
    starts, counts = np.unique(nodes, return_index=True, return_counts=True)[1:]
    group = np.repeat(np.arange(len(starts)), counts)
    picked = generator.permutation(len(items))[: 2 * _SAMPLE]
    if not len(picked):
        alone: np.ndarray[Any, np.dtype[np.int64]] = direct
        return alone
    other = starts[group[picked]] + (generator.random(len(picked)) * counts[group[picked]]).astype(np.int64)
    tied = np.stack([items[picked], items[other]], axis=1)
    tied = tied[tied[:, 0] != tied[:, 1]][:_SAMPLE]
    both_ways: np.ndarray[Any, np.dtype[np.int64]] = np.concatenate([direct, tied])[:_SAMPLE]
    return both_ways


def _users_in_disguise(
    rows: pl.DataFrame, history: csr_array, num_items: int, generator: np.random.Generator
) -> str | None:
    ends = rows.select(HEAD_ROW, TAIL_ROW).to_numpy().astype(np.int64)
    mixed = ends[(ends < num_items).sum(axis=1) == 1]
    nodes, group, counts = np.unique(mixed.max(axis=1), return_inverse=True, return_counts=True)
    large = np.flatnonzero(counts >= 5)
    if len(large) < 5:
        return None
    picked = np.zeros(len(nodes), bool)
    picked[large[generator.permutation(len(large))[:200]]] = True
    kept = picked[group]
    place = (np.cumsum(picked) - 1)[group[kept]]
    items = csr_array(
        (np.ones(len(place), np.float32), (place, mixed[kept].min(axis=1))), (int(picked.sum()), num_items)
    )
    items.data[:] = 1.0
    shared = (items @ history).tocoo()
    of_node, of_user = np.asarray(items.sum(axis=1)).ravel(), np.asarray(history.sum(axis=0)).ravel()
    rows_of, columns_of = shared.coords
    jaccard = np.zeros(items.shape[0])
    np.maximum.at(jaccard, rows_of, shared.data / (of_node[rows_of] + of_user[columns_of] - shared.data))
    share = float((jaccard >= 0.8).mean())
    return f"{share:.0%} of its nodes have the items of one user" if share >= 0.5 else None


def _controls(
    pairs: np.ndarray[Any, np.dtype[np.int64]], popularity: np.ndarray[Any, Any], generator: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The same first items with another second one of about the same popularity, drawn among its neighbours in rank."""
    known = np.flatnonzero(popularity > 0)
    ranked = known[np.argsort(popularity[known], kind="stable")]
    place = np.zeros(len(popularity), np.int64)
    place[ranked] = np.arange(len(ranked))
    reach = max(5, len(ranked) // 50)
    step = generator.integers(1, reach + 1, len(pairs)) * generator.choice([-1, 1], len(pairs))
    other = ranked[np.abs(place[pairs[:, 1]] + step) % len(ranked)]
    drawn: np.ndarray[Any, np.dtype[np.int64]] = np.stack([pairs[:, 0], other], axis=1)
    return drawn


def _together(matrix: csr_array, pairs: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, Any]:
    shared: np.ndarray[Any, Any] = np.asarray(matrix[pairs[:, 0]].multiply(matrix[pairs[:, 1]]).sum(axis=1)).ravel()
    return shared


def _cosine(history: csr_array, pairs: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, Any]:
    size = np.asarray(history.sum(axis=1)).ravel()
    cosine: np.ndarray[Any, Any] = _together(history, pairs) / np.sqrt(np.maximum(size[pairs].prod(axis=1), 1.0))
    return cosine


def _chance(tied: np.ndarray[Any, Any], control: np.ndarray[Any, Any]) -> float:
    """The chance that a tied pair beats a control pair (the area under the ROC curve), ties counting half."""
    ordered = np.sort(control)
    below = np.searchsorted(ordered, tied, side="left")
    upto = np.searchsorted(ordered, tied, side="right")
    return float((below + upto).mean() / (2 * len(control)))


def _looks_ahead(
    history: csr_array, past: csr_array, pairs: np.ndarray[Any, np.dtype[np.int64]], controls: np.ndarray[Any, Any]
) -> str | None:
    fresh, plain = pairs[_together(past, pairs) == 0], controls[_together(past, controls) == 0]
    if len(fresh) < _FEWEST or len(plain) < _FEWEST:
        return None
    later, usual = float((_together(history, fresh) > 0).mean()), float((_together(history, plain) > 0).mean())
    if later < _ALL_BUT or 1 - later > (1 - usual) / 5:
        return None
    return f"of its pairs that nobody had both of in train, {later:.0%} were had together later (others: {usual:.0%})"
