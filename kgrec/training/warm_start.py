"""Where a training begins: from nothing, or from the weights of an earlier one, whose rows all still stand.

Newcomers are placed at once: a new row starts as the mean of the rows that an edge joins it to.

Shapes: U users, I items, E entities (items first), D dimensions, X edges, N rows of any table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from kgrec.model.embeddings import NetworkShape
from kgrec.model.network import Network
from kgrec.model.propagation import GraphEdges

USERS: Final = "tables.users_UD"
RELATIONS: Final = "tables.relations_RW"
ENTITIES: Final = ("tables.entities_ED", "tables.parametrizations.entities_ED.")
CATEGORIES: Final = ("towers.categories.weight", "towers.wide_categories.weight")


class IncrementConfig(BaseModel):
    """An increment: a short training that goes on from the promoted version's weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=1, ge=1, description="epochs of an increment at most, >= 1")
    share: float = Field(
        default=0.25, gt=0, le=1, description="part of an epoch that each of them takes, drawn anew each time, (0, 1]"
    )
    learning_rate: float = Field(
        default=0.25, gt=0, description="step sizes of an increment as a share of those of a full training, > 0"
    )
    full_every: int = Field(
        default=7, ge=1, description="a full training is due after so many increments, and measures them, >= 1"
    )


class StartConfig(BaseModel):
    """Where the training of a run begins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: Literal["scratch", "promoted"] = Field(
        default="scratch",
        description='"promoted": go on from the weights of the promoted version where that is sound, as '
        "docs/incremental.md says, and train in full where it is not",
    )
    increment: IncrementConfig = IncrementConfig()


@dataclass(frozen=True)
class Earlier:
    """The weights of an earlier training, its shape, and the values behind the codes of its categorical features.

    learned_U and learned_E: which of its users and entities had an edge, so that their rows are more than their start.
    categories: by column its name and its values in code order (code 1 is the first), as are those of the later one.
    """

    state: Mapping[str, Tensor]
    shape: NetworkShape
    learned_U: Tensor
    learned_E: Tensor
    categories: Sequence[tuple[str, Sequence[str]]] = ()


def carry_over(
    network: Network, earlier: Earlier, edges: GraphEdges, categories: Sequence[tuple[str, Sequence[str]]] = ()
) -> list[str]:
    """Give a new network the weights of an earlier one, whose vocabularies have only grown since; place the newcomers.

    Returns the names of parameters that kept their fresh start because their shape or their columns are others.
    ValueError where a table of the earlier one is larger.
    """
    now, then = network.shape, earlier.shape
    for name in ("num_users", "num_items", "num_entities", "num_relations"):
        if getattr(now, name) < getattr(then, name):
            raise ValueError(f"{name} fell from {getattr(then, name)} to {getattr(now, name)}: vocabularies only grow")
    rows = {
        USERS: _known(torch.arange(then.num_users), earlier.learned_U),
        RELATIONS: _shifted(2 * then.num_relations, then.num_relations, now.num_relations),
    }
    entity_rows = _known(_shifted(then.num_entities, then.num_items, now.num_items), earlier.learned_E)
    same_columns = [name for name, _ in earlier.categories] == [name for name, _ in categories]
    read = len(then.cardinalities) == len(now.cardinalities) == len(categories)  # by towers, where there are any
    codes = _codes(earlier, categories, now) if same_columns and read else None
    fresh: list[str] = []
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            old = earlier.state.get(name)
            target = rows.get(name)
            if name.startswith(ENTITIES) and old is not None and len(old) == then.num_entities:
                target = entity_rows
            if name in CATEGORIES:
                target = codes
                old = old[: len(codes)] if old is not None and codes is not None else None
            if old is not None and target is not None and old.shape[1:] == parameter.shape[1:]:
                known = target >= 0
                parameter[target[known]] = old[known]
            elif old is not None and name not in CATEGORIES and old.shape == parameter.shape:
                parameter.copy_(old)
            else:
                fresh.append(name)
        _place(network, edges, rows[USERS][earlier.learned_U], entity_rows[earlier.learned_E])
    return fresh


def _shifted(total: int, first: int, later_first: int) -> Tensor:
    """Return the rows now of `total` rows then, of which those behind the `first` have moved."""
    row_N = torch.arange(total)
    return torch.where(row_N < first, row_N, row_N + later_first - first)


def _known(row_N: Tensor, learned_N: Tensor) -> Tensor:
    return torch.where(learned_N, row_N, -1)


def _codes(earlier: Earlier, categories: Sequence[tuple[str, Sequence[str]]], now: NetworkShape) -> Tensor:
    """Return the row now of each row of the earlier table of categories, -1 where the value is gone."""
    found: list[int] = []
    offset = 0
    columns = zip(earlier.categories, earlier.shape.cardinalities, categories, now.cardinalities, strict=True)
    for (_, old_values), old_size, (_, values), size in columns:
        code_of = {value: code for code, value in enumerate(values, start=1)}
        buckets_old, buckets = old_size - 1 - len(old_values), size - 1 - len(values)
        found += [offset] + [offset + code_of[value] if value in code_of else -1 for value in old_values]
        first = offset + 1 + len(values)
        found += [first + at if buckets_old == buckets else -1 for at in range(buckets_old)]
        offset += size
    return torch.tensor(found, dtype=torch.int64)


def _place(network: Network, edges: GraphEdges, known_users_N: Tensor, known_entities_N: Tensor) -> None:
    """Set the rows of newcomers: items and entities by users and entities that were there, then users by their items.

    A newcomer without such a neighbour keeps its fresh start.
    """
    users_UD = network.get_parameter(USERS)
    name = next(name for name, _ in network.named_parameters() if name in (ENTITIES[0], f"{ENTITIES[1]}original"))
    entities_ED = network.get_parameter(name)
    old_user_U, old_entity_E = _flags(len(users_UD), known_users_N), _flags(len(entities_ED), known_entities_N)
    user_X, item_X = edges.user_item_X2.T
    head_X, tail_X = edges.head_tail_X2.T
    table_ND = torch.cat([users_UD, entities_ED])
    old_N = torch.cat([old_user_U, old_entity_E])
    shift = len(users_UD)
    ends = (torch.cat([item_X, head_X, tail_X]) + shift, torch.cat([user_X, tail_X + shift, head_X + shift]))
    placed_N = _means(table_ND, old_N, *ends)
    _means(table_ND, placed_N, user_X, item_X + shift)
    users_UD.copy_(table_ND[:shift])
    entities_ED.copy_(table_ND[shift:])


def _flags(count: int, rows_N: Tensor) -> Tensor:
    flag_N = torch.zeros(count, dtype=torch.bool)
    flag_N[rows_N] = True
    return flag_N


def _means(table_ND: Tensor, known_N: Tensor, new_X: Tensor, neighbour_X: Tensor) -> Tensor:
    """Write the mean of known neighbours into the rows that are not known; return which are known afterwards."""
    wanted_X = ~known_N[new_X] & known_N[neighbour_X]
    new_X, neighbour_X = new_X[wanted_X], neighbour_X[wanted_X]
    sums_ND = torch.zeros_like(table_ND).index_add_(0, new_X, table_ND[neighbour_X])
    count_N = torch.bincount(new_X, minlength=len(table_ND))
    found_N = count_N > 0
    table_ND[found_N] = sums_ND[found_N] / count_N[found_N, None]
    return known_N | found_N
