"""Do paths carry the scores? Take a path's edge out of the graph and score again; a random path or edge as control.

Axes: P probes, D dimensions, I items.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from kgrec.artifacts import Artifact
from kgrec.chain.increments import WEIGHTS
from kgrec.chain.tensors import training_data
from kgrec.chain.tuning import read_tuned
from kgrec.config import TaskName
from kgrec.evaluation.classification import FloatArray
from kgrec.evaluation.graph_kernel import incidence
from kgrec.evaluation.ranking import Target
from kgrec.graph.paths import Path, PathFinder
from kgrec.model.embeddings import NetworkShape
from kgrec.model.network import Network, NetworkConfig, fold_in
from kgrec.model.propagation import GraphEdges
from kgrec.serving.fidelity import Fidelity, Probe
from kgrec.serving.score import NETWORK

_TASKS: Final = (TaskName.CLICK, TaskName.KG)
_EVERY: Final = 1_000_000


class GraphRescorer:
    """Scores an item for a history on a changed graph: what the graph moves of the score, weights as trained.

    That is the trained part (propagated anew, the history folded in anew) and the kernel part (its matrix made anew,
    whole); the other parts do not read the graph.
    """

    def __init__(
        self, log: Artifact, graph: Artifact, trained: Artifact, hub: float | None, kernel_weight: float
    ) -> None:
        facts = json.loads(trained.file(NETWORK).read_text())
        self._shape, self._config = NetworkShape(**facts["shape"]), NetworkConfig(**facts["config"])
        self._state = load_file(trained.file(WEIGHTS))
        self.edges = training_data(log, None, graph, _TASKS, Target.CLICK, 1.0).edges
        self._hub, self._kernel_weight = hub, kernel_weight

    def scores(self, without: Sequence[tuple[int, int]], asked: Sequence[tuple[Tensor, int]]) -> FloatArray:
        """Return the score of each (history item rows, item row) on the graph without these pairs of nodes."""
        edges = self.edges
        stays_X = torch.ones(len(edges.head_tail_X2), dtype=torch.bool)
        for head, tail in without:
            for one, other in ((head, tail), (tail, head)):
                stays_X &= ~((edges.head_tail_X2[:, 0] == one) & (edges.head_tail_X2[:, 1] == other))
        own_X = None if edges.head_tail_weight_X is None else edges.head_tail_weight_X[stays_X]
        left = replace(edges, head_tail_X2=edges.head_tail_X2[stays_X], head_tail_weight_X=own_X)
        trained = self._trained(left, asked)
        return (
            trained + self._kernel(left.head_tail_X2, asked)
            if self._kernel_weight and self._hub is not None
            else trained
        )

    def around(self, item: int) -> list[int]:
        """Return the nodes that the item's edges lead to, ascending, each once."""
        ends_X2 = self.edges.head_tail_X2
        near = torch.cat([ends_X2[ends_X2[:, 0] == item, 1], ends_X2[ends_X2[:, 1] == item, 0]])
        return [int(node) for node in torch.unique(near) if node != item]

    def _trained(self, edges: GraphEdges, asked: Sequence[tuple[Tensor, int]]) -> FloatArray:
        network = Network(self._shape, self._config, edges, seed=0)
        network.load_state_dict(self._state)
        exported = network.export()
        fold_ID, items_ID = exported.item_fold_ID, exported.item_vectors_ID
        return np.array([float(fold_in(fold_ID, history_H) @ items_ID[item]) for history_H, item in asked])

    def _kernel(self, ends_X2: Tensor, asked: Sequence[tuple[Tensor, int]]) -> FloatArray:
        """Return the kernel part: see `kernel_weights`; only the rows of the histories are made."""
        both_X2 = torch.cat([ends_X2, ends_X2.flip(1)])
        links_IE, _ = incidence(both_X2[both_X2[:, 0] < self._shape.num_items], self._shape.num_items)
        degree_E = np.maximum(links_IE.sum(axis=0), 1.0)
        unit_IE = (links_IE * degree_E ** (-float(self._hub or 0.0) / 2)).tocsr()
        length_I = np.sqrt(np.asarray(unit_IE.multiply(unit_IE).sum(axis=1)).reshape(-1))
        found = []
        for history_H, item in asked:
            rows_H = history_H.numpy()
            scale_H = 1.0 / np.where(length_I[rows_H] > 0, length_I[rows_H], 1.0)
            scores_I = unit_IE @ np.asarray(scale_H @ unit_IE[rows_H]).reshape(-1)
            scores_I = scores_I / np.where(length_I > 0, length_I, 1.0)
            scores_I[rows_H] -= (length_I[rows_H] > 0).astype(np.float64)  # no item is its own neighbour
            found.append(self._kernel_weight * scores_I[item] / (np.linalg.norm(scores_I) or 1.0))
        return np.array(found)


def path_fidelity(
    rescorer: GraphRescorer, probes: Iterable[Probe], generator: np.random.Generator, together: int = 1,
    control: Callable[[Probe], Iterable[int]] | None = None,
) -> Fidelity:  # fmt: skip
    """Take the first edge of the best path of each probe out of the graph, and as control another edge of the item.

    control: the nodes to which the other edge may lead, such as `PathStarts`; None: any neighbour of the item. One is
    drawn. together: probes whose edges go at once, so that large graphs propagate less often; the same for both kinds.
    Probes without a path over a node, items with no other such edge, and an item that came before are left out.
    """
    chosen: dict[int, tuple[Probe, int, int]] = {}
    for probe in probes:
        item, path = probe.found.item_row, _best(probe, rescorer)
        near = rescorer.around(item)
        allowed = near if control is None else sorted(set(near).intersection(control(probe)))
        others = [node for node in allowed if path is not None and node != path.via[0]]
        if path is not None and others and item not in chosen:
            chosen[item] = (probe, path.via[0], int(generator.choice(others)))
    asked = [(torch.as_tensor(probe.asked.history_H), item) for item, (probe, _, _) in chosen.items()]
    before_P = rescorer.scores([], asked)
    falls: list[list[FloatArray]] = [[], []]
    for start in range(0, len(asked), together):
        part = slice(start, start + together)
        for which in (0, 1):
            gone = [(item, ends[which]) for item, (_, *ends) in list(chosen.items())[part]]
            falls[which].append(before_P[part] - rescorer.scores(gone, asked[part]))
    return Fidelity(*(np.concatenate([*parts, np.empty(0)]) for parts in falls))


@dataclass(frozen=True)
class PathStarts:
    """Says to which nodes the item's edges lead that begin a path to the history, whatever it weighs."""

    finder: PathFinder

    def __call__(self, probe: Probe) -> set[int]:
        """Return the first node of every path over one or two nodes; of those to one last node the finder tells one."""
        paths = self.finder.paths(probe.found.item_row, probe.asked.history_H.tolist(), limit=_EVERY)
        return {path.via[0] for path in paths if path.via}


def _best(probe: Probe, rescorer: GraphRescorer) -> Path | None:
    """Return the best path whose first edge is of the train part: only such an edge moved the scores."""
    around = set(rescorer.around(probe.found.item_row))
    return next((path for path in probe.found.paths if path.via and path.via[0] in around), None)


def kernel_setting(trained: Artifact, tuned: Artifact | None) -> tuple[float | None, float]:
    """Return the kernel's hub exponent and its weight in the served score; (None, 0) where it has none."""
    weight = float(trained.facts.get("blocks", {}).get("weights", {}).get("kernel", 0.0))
    if not weight or tuned is None:
        return None, 0.0
    found = read_tuned(tuned)
    return float(found["graph_kernel"]["setting"]["hub"]), weight
