"""A picture of a neighbourhood or of an explanation: one HTML file that needs no network, a map of words."""

from __future__ import annotations

import html
import json
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from kgrec import columns as c
from kgrec.errors import InputError, Problem, nearest
from kgrec.graph.knowledge_graph import DEGREE, NODE
from kgrec.graph.names import relation_words
from kgrec.graph.paths import Path, Step, is_inferred

KEPT_PER_RELATION: Final = 40
SHOWN_PER_RELATION: Final = 5
MOST_NODES: Final = 1_500
ENDS: Final = 5
_BLANK: Final = re.compile(r"\{\{([A-Z]+)\}\}")


@dataclass
class Branch:
    """A node of the picture and what hangs on it, relation by relation.

    degree: triples of the node in the whole graph. left_out: how many neighbours of a relation are not in the picture.
    inferred: whether the triple that leads here was accepted by a person and is in no source.
    """

    node: int
    name: str
    is_named: bool
    is_item: bool
    degree: int
    inferred: bool = False
    groups: list[tuple[str, list[Branch], int]] = field(default_factory=list)

    def count(self) -> int:
        """Return how many names the branch has, its own included."""
        return 1 + sum(inner.count() for _, found, _ in self.groups for inner in found)

    def as_dict(self) -> dict[str, Any]:
        """Return the branch in plain types, for the page."""
        kind = "item" if self.is_item else "entity" if self.is_named else "unnamed"
        groups = [
            {"relation": r, "branches": [b.as_dict() for b in found], "left_out": n} for r, found, n in self.groups
        ]
        return {"node": self.node, "name": self.name, "kind": kind, "degree": self.degree, "inferred": self.inferred,
                "groups": groups}  # fmt: skip


class Surroundings:
    """The graph as a picture needs it: the neighbours of a node, in words.

    triples: head_row, relation_row, tail_row, perhaps source; nodes: node, id, label, perhaps name, degree.
    """

    def __init__(
        self, triples: pl.DataFrame, nodes: pl.DataFrame, relations: Sequence[str], num_items: int
    ) -> None:  # fmt: skip
        heads, tails = triples[c.HEAD_ROW].to_numpy(), triples[c.TAIL_ROW].to_numpy()
        starts = np.concatenate([heads, tails])
        order = np.argsort(starts, kind="stable")
        self._ends: npt.NDArray[np.int32] = np.concatenate([tails, heads])[order]
        self._relations = np.concatenate([triples[c.RELATION_ROW].to_numpy()] * 2)[order]
        self._outward = np.repeat([True, False], triples.height)[order]
        self._inferred: npt.NDArray[np.bool_] = np.tile(is_inferred(triples), 2)[order]
        self._offsets = np.searchsorted(starts[order], np.arange(nodes.height + 1))
        self._words = [relation_words(name) for name in relations]
        self._ids: list[str] = nodes[c.ID].to_list()
        self._labels: list[str | None] = nodes[c.LABEL].to_list()
        self._names: list[str] = nodes[c.NAME if c.NAME in nodes.columns else c.ID].to_list()
        self._degrees: npt.NDArray[np.int32] = nodes.sort(NODE)[DEGREE].to_numpy()
        self._num_items = num_items

    def find(self, wanted: str) -> int:
        """Return the node with this id, label or name; InputError with the nearest one when there is none."""
        for known in (self._ids, self._labels, self._names):
            if wanted in known:
                return known.index(wanted)
        folded = wanted.casefold()
        lower = [label.casefold() if label else None for label in self._labels]
        if folded in lower:
            return lower.index(folded)
        choices = [label for label in self._labels if label] + self._ids
        close = nearest(wanted, choices[:50_000])
        remedy = f"did you mean {close!r}?" if close else "give an id or a label of the graph"
        raise InputError(Problem("--entity", f"no entity has the id or label {wanted!r}", remedy))

    def around(self, centre: int, hops: int) -> Branch:
        """Return what lies within `hops` of a node: breadth first, at most `MOST_NODES` branches.

        Of a relation up to `KEPT_PER_RELATION` neighbours are kept: those with a name first, then the rarer ones. A
        node that came before is shown again, without what hangs on it.
        """
        root = self._branch(centre)
        waiting, seen, count = deque([(root, 0, -1)]), {centre}, 1
        while waiting and count < MOST_NODES:
            branch, depth, parent = waiting.popleft()
            if depth == hops:
                continue
            for words, neighbours in self._grouped(branch.node, parent):
                kept = neighbours[:KEPT_PER_RELATION] if branch is root else neighbours[: KEPT_PER_RELATION // 4]
                found = [self._branch(node, inferred=inferred) for node, inferred in kept]
                branch.groups.append((words, found, len(neighbours) - len(kept)))
                count += len(found)
                for inner in found:
                    if inner.node not in seen:
                        seen.add(inner.node)
                        waiting.append((inner, depth + 1, branch.node))
        return root

    def explanation(self, item: int, paths: Sequence[Path]) -> Branch:
        """Return the paths of an explanation as a picture: from the item over the nodes between to the history.

        Paths that begin alike share their branches. Of a path's history up to `ENDS` items are kept, the first first.
        """
        root = self._branch(item)
        for path in paths:
            branch = root
            for node, step in zip(path.via, path.steps, strict=False):
                branch = self._led(branch, node, step)
            ends = list(zip(path.history, path.ends, strict=True))
            for node, step in ends[:ENDS]:
                self._led(branch, node, step)
            at = self._group(branch, ends[0][1])
            words, found, left_out = branch.groups[at]
            branch.groups[at] = (words, found, left_out + max(len(ends) - ENDS, 0))
        return root

    def _led(self, branch: Branch, node: int, step: Step) -> Branch:
        """Return the branch of a node that a triple leads to, a new one where there is none."""
        found = branch.groups[self._group(branch, step)][1]
        known = next((inner for inner in found if inner.node == node), None)
        if known is None:
            known = self._branch(node, inferred=step.inferred)
            found.append(known)
        return known

    def _group(self, branch: Branch, step: Step) -> int:
        """Return the place of the group that a triple of the branch's node belongs to, made where it is missing."""
        words = ("" if step.head == branch.node else "← ") + self._words[step.relation_row]
        places = [at for at, (known, _, _) in enumerate(branch.groups) if known == words]
        if not places:
            branch.groups.append((words, [], 0))
        return places[0] if places else len(branch.groups) - 1

    def _branch(self, node: int, *, inferred: bool = False) -> Branch:
        named, is_item = self._labels[node] is not None, node < self._num_items
        name = self._labels[node] or self._names[node]
        return Branch(node, name, named, is_item, int(self._degrees[node]), inferred)

    def _grouped(self, node: int, parent: int) -> list[tuple[str, list[tuple[int, bool]]]]:
        """(relation in words, neighbours) of a node, small groups first; each neighbour once, with whether the triple
        is inferred: what a source says before what is, outward before inward.
        """
        window = slice(self._offsets[node], self._offsets[node + 1])
        columns = (self._inferred[window], ~self._outward[window], self._relations[window], self._ends[window])
        taken = {parent, node}
        groups: dict[str, list[tuple[int, bool]]] = {}
        for inferred, inward, relation, end in sorted(zip(*columns, strict=True)):
            if int(end) not in taken:
                taken.add(int(end))
                arrow = "← " if inward else ""
                groups.setdefault(arrow + self._words[relation], []).append((int(end), bool(inferred)))
        for found in groups.values():
            found.sort(key=lambda one: (self._labels[one[0]] is None, self._degrees[one[0]], one[0]))
        return sorted(groups.items(), key=lambda item: (self._labels[item[1][0][0]] is None, len(item[1]), item[0]))


@cache
def _template() -> str:
    return files("kgrec.graph").joinpath("picture.html").read_text(encoding="utf-8")


def picture_page(title: str, root: Branch, facts: Mapping[str, str], *, all_open: bool = False) -> str:
    """Return the page: one self-contained HTML document. facts: what stands below the title, name to value.

    all_open: everything is open from the start, and to the right of the root, as a sentence reads; else what fits.
    """
    content = json.dumps(root.as_dict(), ensure_ascii=False, sort_keys=True).replace("<", "\\u003c")
    told = " · ".join(f"{html.escape(name)}: {html.escape(value)}" for name, value in facts.items())
    fillings = {"TITLE": html.escape(title), "FACTS": told, "SHOWN": str(SHOWN_PER_RELATION), "DATA": content,
                "OPEN": json.dumps(all_open)}  # fmt: skip
    return _BLANK.sub(lambda found: fillings[found[1]], _template())  # one pass: a name cannot smuggle a blank in
