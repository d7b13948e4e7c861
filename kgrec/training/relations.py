"""How the tasks relate: where gradients point, whether losses fall together, what one task's step does to others.

Shapes: T losses. A look takes one batch of each task, without dropout, and changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from kgrec.model.network import Encoded, Network
from kgrec.seeds import derive_seed
from kgrec.training.step import Batches, losses_of, reads_of
from kgrec.training.tasks import Task
from kgrec.training.trunk import Parts, Trunk, cosines, gramian, met

COSINE: Final = "cosine"
CORRELATION: Final = "correlation"
AFFINITY: Final = "affinity"
_ROWS: Final = 1024
_SHIFT: Final = 0.05
_UNIT: Final = ("users_UD", "items_ID")
_VECTORS: Final = (*_UNIT, "entities_ED")
_MOST_LOSSES: Final = 8


def look(network: Network, tasks: Sequence[Task], seed: int, epoch: int) -> dict[str, float]:
    """Return "cosine/A/B" for each pair and "affinity/A/B" for each ordered pair of losses, of one small batch a task.

    cosine: of their gradients on the shared trunk, in [-1, 1]. affinity: 1 - loss B after / before a step along A's
    gradient there, which shifts every shared tensor by a twentieth of its length (Fifty et al., NeurIPS 2021, with
    steps of one length); above 0: A's step helps B. Empty for fewer than two losses.
    """
    batches: Batches = [(task, _first_batch(task, seed, epoch)) for task in tasks]
    training = network.training
    network.eval()
    with torch.no_grad():
        trunk = Trunk(network.encode(reads_of(network, batches), aligned=True))
    losses = losses_of(network, batches, trunk.encoded)
    found: dict[str, float] = {}
    if len(losses) > 1:
        gradients = trunk.gradients(losses, network)
        found = _named(COSINE, list(losses), cosines(gramian(gradients)))
        found |= _affinities(network, batches, trunk.encoded, gradients, losses)
    network.train(training)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _first_batch(task: Task, seed: int, epoch: int) -> Sequence[Tensor]:
    generator = torch.Generator().manual_seed(derive_seed(seed, "relations", task.name, epoch))
    return next(iter(task.batches(generator, max(1, -(-task.rows // _ROWS)))))


def _named(kind: str, names: Sequence[str], table_TT: Tensor) -> dict[str, float]:
    return {
        f"{kind}/{name}/{other}": float(table_TT[row, column])
        for row, name in enumerate(names)
        for column, other in enumerate(names)
        if row < column
    }


@torch.no_grad()
def _affinities(
    network: Network, batches: Batches, encoded: Encoded, gradients: Mapping[str, Parts], losses: Mapping[str, Tensor]
) -> dict[str, float]:
    shared, parameters = met(gradients), dict(network.named_parameters())
    found: dict[str, float] = {}
    for name, parts in gradients.items():
        kept = {key: parameters[key].clone() for key in parts if key in shared and key in parameters}
        for key, value in kept.items():
            parameters[key].sub_(_step(parts[key], float(value.norm())))
        after = losses_of(network, batches, _shifted(encoded, parts))
        for key, value in kept.items():
            parameters[key].copy_(value)
        for other, loss in losses.items():
            if other != name:
                found[f"{AFFINITY}/{name}/{other}"] = 1 - float(after[other]) / max(loss.item(), 1e-12)
    return found


def _shifted(encoded: Encoded, parts: Parts) -> Encoded:
    """Return the vectors after a step along a gradient; both readings of an item's vector move alike."""
    moves = {key: parts[key] for key in _VECTORS if key in parts}
    if encoded.entities_ED is not None and ("items_ID" in moves or "entities_ED" in moves):
        nodes_ED = moves.get("entities_ED", torch.zeros_like(encoded.entities_ED)).clone()
        if "items_ID" in moves:
            nodes_ED[: len(encoded.items_ID)] += moves.pop("items_ID")
        moves["entities_ED"] = nodes_ED
    moves = {key: _step(part, float(part.abs().sum(1).count_nonzero()) ** 0.5) for key, part in moves.items()}
    if "entities_ED" in moves:
        moves["items_ID"] = moves["entities_ED"][: len(encoded.items_ID)]
    moved = {key: getattr(encoded, key).detach() - part for key, part in moves.items()}
    unit: dict[str, Any] = {key: functional.normalize(p, dim=1) if key in _UNIT else p for key, p in moved.items()}
    return replace(encoded, **unit)


def _step(gradient: Tensor, length: float) -> Tensor:
    return gradient * (_SHIFT * length / max(float(gradient.norm()), 1e-30))


def loss_correlations(series: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return "correlation/A/B": Pearson's, of two losses over the steps of an epoch.

    Series of different lengths are not compared, nor are fewer than three steps or a loss that does not move.

    >>> round(loss_correlations({"a": [3.0, 2.0, 1.0], "b": [5.0, 4.0, 3.0]})["correlation/a/b"], 3)
    1.0
    """
    found = {}
    names = list(series)
    for row, name in enumerate(names):
        for other in names[row + 1 :]:
            left, right = series[name], series[other]
            if len(left) == len(right) >= 3:
                table_22 = torch.corrcoef(torch.tensor([list(left), list(right)], dtype=torch.float64))
                found[f"{CORRELATION}/{name}/{other}"] = float(table_22[0, 1])
    return {name: value for name, value in found.items() if math.isfinite(value)}


def summary(history: Iterable[Mapping[str, float]]) -> dict[str, Any]:
    """Return means over the epochs: names, a matrix per kind (None where nothing is known), groups and a proposal.

    Empty where no two losses were ever looked at.
    """
    sums: dict[str, list[float]] = {}
    for epoch in history:
        for key, value in epoch.items():
            if key.split("/")[0] in (COSINE, CORRELATION, AFFINITY):
                sums.setdefault(key, []).append(value)
    means = {key: sum(values) / len(values) for key, values in sums.items()}
    names = list(dict.fromkeys(name for key in means if key.startswith(AFFINITY) for name in key.split("/")[1:]))
    if len(names) < 2:
        return {}
    groups = propose_groups(names, means)
    return {
        "names": names,
        "gradient_cosine": _matrix(COSINE, names, means),
        "loss_correlation": _matrix(CORRELATION, names, means),
        "affinity": _matrix(AFFINITY, names, means),
        "groups": groups,
        "proposal": _in_words(groups),
    }


def _matrix(kind: str, names: Sequence[str], means: Mapping[str, float]) -> list[list[float | None]]:
    def entry(row: str, column: str) -> float | None:
        if row == column:
            return None if kind == AFFINITY else 1.0
        found = means.get(f"{kind}/{row}/{column}")
        return found if found is not None or kind == AFFINITY else means.get(f"{kind}/{column}/{row}")

    return [[entry(row, column) for column in names] for row in names]


def propose_groups(names: Sequence[str], affinity: Mapping[str, float]) -> list[list[str]]:
    """Return the partition in which the losses help each other most: the sum of what each gets from its group.

    A loss gets the mean affinity of the others in its group towards it, 0 alone (Fifty et al., NeurIPS 2021, without
    overlap). Of equal partitions the one with fewer groups. More than eight losses are left together.

    >>> propose_groups(["a", "b", "c"], {"affinity/a/b": 0.1, "affinity/b/a": 0.2, "affinity/c/a": -0.3})
    [['a', 'b'], ['c']]
    """
    if len(names) > _MOST_LOSSES:
        return [list(names)]

    def gain(groups: list[list[str]]) -> float:
        got = 0.0
        for group in groups:
            for name in group:
                others = [affinity.get(f"{AFFINITY}/{other}/{name}", 0.0) for other in group if other != name]
                got += sum(others) / len(others) if others else 0.0
        return got

    return max(_partitions(list(names)), key=lambda groups: (gain(groups), -len(groups)))


def _partitions(names: list[str]) -> Iterator[list[list[str]]]:
    if not names:
        yield []
        return
    for rest in _partitions(names[:-1]):
        for place in range(len(rest)):
            yield [[*group, names[-1]] if at == place else group for at, group in enumerate(rest)]
        yield [*rest, [names[-1]]]


def _in_words(groups: Sequence[Sequence[str]]) -> str:
    together = [" and ".join([", ".join(group[:-1]), group[-1]]) for group in groups if len(group) > 1]
    alone = [group[0] for group in groups if len(group) == 1]
    parts = [f"train {words} together" for words in together] + [f"train {name} on its own" for name in alone]
    sentence = "; ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]}."
