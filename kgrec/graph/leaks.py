"""A guard against relations that restate behaviour, such as also-bought: they tell the test part to the train part.

Matrices are items x users, 1 where the user had the item.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_array

from kgrec.columns import HEAD_ROW, ITEM_ROW, KNOWN_AT, PART, RELATION_ROW, TAIL_ROW, TRAIN, USER_ROW
from kgrec.graph.merging import run_starts
from kgrec.graph.names import relation_words

_SAMPLE: Final = 2_000
_FEWEST: Final = 20
_ALL_BUT: Final = 0.98  # share of fresh pairs that came together later, from which on they were made of it
_CELLS: Final = 20_000_000  # of a matrix, gathered at once
_LARGEST_NODE: Final = 10  # items of a node that may be a basket or a session; a genre has more, and is taste
_TELLTALE: Final = (
    "also bought", "also viewed", "also buy", "also view", "also purchased", "bought together", "viewed together",
    "bought after viewing", "buy after viewing", "co click", "co view", "co purchase", "coview", "copurchase",
    "coclick", "similar users", "people also",
)  # fmt: skip
_Pairs: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
_NO_PAIRS: Final[_Pairs] = np.zeros((0, 2), np.int64)


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
    seen = [
        _look(int(row), rows, relations[int(row)], history, popularity, generator)
        for (row,), rows in triples.sort(RELATION_ROW, maintain_order=True).group_by(
            [RELATION_ROW], maintain_order=True
        )
        if rows[KNOWN_AT].null_count()
    ]
    pairs = np.concatenate([_NO_PAIRS, *(pairs for one in seen for pairs in (one.pairs, one.controls))])
    ends = np.cumsum([len(pairs) for one in seen for pairs in (one.pairs, one.controls)])[:-1]
    now, then = (np.split(_together(matrix, pairs), ends) for matrix in (history, past))
    found = [
        _suspicion(one, now[at : at + 2], then[at : at + 2], popularity, likeness)
        for one, at in zip(seen, range(0, 2 * len(seen), 2), strict=True)
    ]
    return [one for one in found if one is not None]


@dataclass(frozen=True)
class _Seen:
    """What was drawn of a relation: pairs of items that it ties, and as many controls; none where too few are tied."""

    relation: int
    disguised: str | None
    telltale: str | None
    ties_items_alone: bool
    pairs: _Pairs
    controls: _Pairs


def _look(
    relation: int, rows: pl.DataFrame, name: str, history: csr_array, popularity: np.ndarray[Any, Any],
    generator: np.random.Generator,
) -> _Seen:  # fmt: skip
    num_items = len(popularity)
    words = f" {relation_words(name)} "
    telltale = next((sign for sign in _TELLTALE if f" {sign}" in words), None)
    ends = rows.select(HEAD_ROW, TAIL_ROW).to_numpy().astype(np.int64)
    nodes = _Nodes.of(ends, num_items)
    disguised, pairs, controls = _users_in_disguise(nodes, history, generator), _NO_PAIRS, _NO_PAIRS
    if disguised is None:
        drawn = _tied_pairs(ends, nodes, num_items, generator)
        drawn = drawn[(popularity[drawn] > 0).all(axis=1)]
        if len(drawn) >= _FEWEST:
            pairs, controls = drawn, _controls(drawn, popularity, generator)
    return _Seen(relation, disguised, telltale, bool((ends < num_items).all()), pairs, controls)


def _suspicion(
    one: _Seen, now: list[np.ndarray[Any, Any]], then: list[np.ndarray[Any, Any]], popularity: np.ndarray[Any, Any],
    likeness: float,
) -> Suspect | None:  # fmt: skip
    """Judge a relation. now, then: the users who had both of each pair and of each control, in the log and in train."""
    if one.disguised is not None:
        return Suspect(one.relation, one.disguised, None)
    value = None
    if len(one.pairs):
        tied, others = _cosine(now[0], one.pairs, popularity), _cosine(now[1], one.controls, popularity)
        value = _chance(tied, others)
        ahead = _looks_ahead(now, then)
        if ahead is not None:
            return Suspect(one.relation, ahead, value)
        if value >= likeness and one.telltale is None:
            why = f"its pairs share more users than others in {value:.1%} of cases"
            return Suspect(one.relation, why, value, certain=one.ties_items_alone)
    return Suspect(one.relation, f'its name says "{one.telltale}"', value) if one.telltale is not None else None


def leak_facts(suspects: list[Suspect], relations: list[str]) -> dict[str, Any]:
    """Return what was found, for people."""
    return {"relations_that_restate_the_log": {relations[one.relation_row]: one.why for one in suspects}}


def _incidence(events: pl.DataFrame, num_items: int) -> csr_array:
    users, items = events[USER_ROW].to_numpy(), events[ITEM_ROW].to_numpy()
    size = (num_items, int(users.max()) + 1 if len(users) else 0)
    matrix = csr_array((np.ones(len(users), np.float32), (items, users)), shape=size)
    matrix.data[:] = 1.0
    return matrix


@dataclass(frozen=True)
class _Nodes:
    """The nodes that a relation ties to items: node g has the items `items[starts[g] : starts[g] + counts[g]]`."""

    items: np.ndarray[Any, np.dtype[np.int64]]
    starts: np.ndarray[Any, np.dtype[np.int64]]
    counts: np.ndarray[Any, np.dtype[np.int64]]

    @classmethod
    def of(cls, ends: _Pairs, num_items: int) -> _Nodes:
        """Group the triples with one end among the items by their other end, in order of both."""
        mixed = ends[(ends < num_items).sum(axis=1) == 1]
        items, nodes = mixed.min(axis=1), mixed.max(axis=1)
        order = np.argsort(nodes, kind="stable")
        starts = run_starts(nodes[order])
        return cls(items[order], starts, np.diff(starts, append=len(order)))

    def only(self, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> _Nodes:
        """Return some of the nodes, in their order."""
        counts = self.counts[chosen]
        return _Nodes(self.items[np.repeat(chosen, self.counts)], np.cumsum(counts) - counts, counts)


def _tied_pairs(ends: _Pairs, nodes: _Nodes, num_items: int, generator: np.random.Generator) -> _Pairs:
    """Up to `_SAMPLE` pairs of two items that the relation ties, directly or by a node that at most ten items share."""
    both = (ends < num_items).all(axis=1)
    direct: _Pairs = ends[both & (ends[:, 0] != ends[:, 1])]
    direct = direct[generator.permutation(len(direct))[:_SAMPLE]]
    small = nodes.only(nodes.counts <= _LARGEST_NODE)
    group = np.repeat(np.arange(len(small.counts)), small.counts)
    picked = generator.permutation(len(small.items))[: 2 * _SAMPLE]
    if not len(picked):
        return direct
    room = small.counts[group[picked]]
    other = small.starts[group[picked]] + (generator.random(len(picked)) * room).astype(np.int64)
    tied = np.stack([small.items[picked], small.items[other]], axis=1)
    tied = tied[tied[:, 0] != tied[:, 1]][:_SAMPLE]
    both_ways: _Pairs = np.concatenate([direct, tied])[:_SAMPLE]
    return both_ways


def _users_in_disguise(nodes: _Nodes, history: csr_array, generator: np.random.Generator) -> str | None:
    large = np.flatnonzero(nodes.counts >= 5)
    if len(large) < 5:
        return None
    picked = np.zeros(len(nodes.counts), bool)
    picked[large[generator.permutation(len(large))[:200]]] = True
    few = nodes.only(picked)
    place = np.repeat(np.arange(len(few.counts)), few.counts)
    shape = (len(few.counts), history.shape[0])
    items = csr_array((np.ones(len(place), np.float32), (place, few.items)), shape)
    items.data[:] = 1.0
    shared = (items @ history).tocoo()
    of_node, of_user = np.asarray(items.sum(axis=1)).ravel(), np.asarray(history.sum(axis=0)).ravel()
    rows_of, columns_of = shared.coords
    jaccard = np.zeros(items.shape[0])
    np.maximum.at(jaccard, rows_of, shared.data / (of_node[rows_of] + of_user[columns_of] - shared.data))
    share = float((jaccard >= 0.8).mean())
    return f"{share:.0%} of its nodes have the items of one user" if share >= 0.5 else None


def _controls(
    pairs: _Pairs, popularity: np.ndarray[Any, Any], generator: np.random.Generator
) -> _Pairs:  # fmt: skip
    """The same first items with another second one of about the same popularity, drawn among its neighbours in rank."""
    known = np.flatnonzero(popularity > 0)
    ranked = known[np.argsort(popularity[known], kind="stable")]
    place = np.zeros(len(popularity), np.int64)
    place[ranked] = np.arange(len(ranked))
    reach = max(5, len(ranked) // 50)
    step = generator.integers(1, reach + 1, len(pairs)) * generator.choice([-1, 1], len(pairs))
    other = ranked[np.abs(place[pairs[:, 1]] + step) % len(ranked)]
    drawn: _Pairs = np.stack([pairs[:, 0], other], axis=1)
    return drawn


def _together(matrix: csr_array, pairs: _Pairs) -> np.ndarray[Any, Any]:
    """How many users had both items of each pair."""
    found = np.zeros(len(pairs), matrix.dtype)
    cells = np.cumsum(np.diff(matrix.indptr)[pairs[:, 0]])
    for rows in np.split(np.arange(len(pairs)), np.searchsorted(cells, np.arange(_CELLS, cells[-1:].sum(), _CELLS))):
        one, other = (matrix[pairs[rows, end]] for end in (0, 1))
        found[rows] = np.asarray(one.multiply(other).sum(axis=1)).ravel()
    return found


def _cosine(
    together: np.ndarray[Any, Any], pairs: _Pairs, popularity: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:  # fmt: skip
    cosine: np.ndarray[Any, Any] = together / np.sqrt(np.maximum(popularity[pairs].prod(axis=1), 1.0))
    return cosine


def _chance(tied: np.ndarray[Any, Any], control: np.ndarray[Any, Any]) -> float:
    """The chance that a tied pair beats a control pair (the area under the ROC curve), ties counting half."""
    ordered = np.sort(control)
    below = np.searchsorted(ordered, tied, side="left")
    upto = np.searchsorted(ordered, tied, side="right")
    return float((below + upto).mean() / (2 * len(control)))


def _looks_ahead(now: list[np.ndarray[Any, Any]], then: list[np.ndarray[Any, Any]]) -> str | None:
    fresh, plain = now[0][then[0] == 0], now[1][then[1] == 0]
    if len(fresh) < _FEWEST or len(plain) < _FEWEST:
        return None
    later, usual = float((fresh > 0).mean()), float((plain > 0).mean())
    if later < _ALL_BUT or 1 - later > (1 - usual) / 5:
        return None
    return f"of its pairs that nobody had both of in train, {later:.0%} were had together later (others: {usual:.0%})"
