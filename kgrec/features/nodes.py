"""Features of an item's place in the graph: how many things it is tied to, and where that puts it among the items.

They come from the triples alone, of train and known at all times, so no event changes them: every row of an item reads
the same values, offline and online, and an item that nobody met yet has them, too.

Shapes: I items with a tie, E entities, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl
import scipy.sparse
from scipy.sparse.linalg import svds

from kgrec.columns import ENTITY, ITEM_ROW, RELATION, ROW_TYPE
from kgrec.errors import InputError, Problem
from kgrec.features.latest import LatestView
from kgrec.features.spans import Array
from kgrec.seeds import numpy_generator

ANY: Final = "*"
_WHOLE: Final = 256
"""Up to so many items or entities the matrix is decomposed whole: exact, also where singular values repeat."""


@dataclass(frozen=True)
class Degree:
    """To how many distinct entities the item is tied, by one relation or by any (`*`)."""

    relation: str = ANY

    @property
    def names(self) -> tuple[str, ...]:
        """The feature's column within its view."""
        word = "".join(letter if letter.isalnum() else "_" for letter in self.relation)
        return ("degree" if self.relation == ANY else f"degree_{word}",)

    def compute(self, ties: pl.DataFrame, items: pl.Series) -> Array:
        """Return the counts, (I, 1)."""
        chosen = ties if self.relation == ANY else ties.filter(pl.col(RELATION) == self.relation)
        counts = chosen.group_by(ITEM_ROW).agg(pl.col(ENTITY).n_unique().alias("count"))
        joined = items.to_frame().join(counts, on=ITEM_ROW, how="left", maintain_order="left")
        return joined["count"].fill_null(0).cast(pl.Float64).to_numpy()[:, None]


@dataclass(frozen=True)
class GraphEmbedding:
    """The item's coordinates in the best D dimensions of the item-entity matrix, by singular value decomposition.

    An entity weighs degree ** -1/2, so that hubs say little, and every item's row has length 1 before it is reduced
    (latent semantic indexing: Deerwester et al., 1990). Of each dimension the largest coordinate is positive.
    """

    dimensions: int = 8

    @property
    def names(self) -> tuple[str, ...]:
        """The columns within the view, one a dimension, the largest singular value first."""
        return tuple(f"embedding_{n}" for n in range(self.dimensions))

    def compute(self, ties: pl.DataFrame, items: pl.Series) -> Array:
        """Return the coordinates, (I, D); dimensions that the graph does not have are 0."""
        matrix_IE = normalised_incidence(ties, items)
        rank = min(self.dimensions, *matrix_IE.shape)
        if rank < min(matrix_IE.shape) and min(matrix_IE.shape) > _WHOLE:
            start = numpy_generator(0, "graph embedding").standard_normal(min(matrix_IE.shape))
            left_ID, size_D, _ = svds(matrix_IE, k=rank, v0=start)
        else:
            left_ID, size_D, _ = np.linalg.svd(matrix_IE.toarray(), full_matrices=False)
        order_D = np.argsort(-size_D, kind="stable")[:rank]
        found_ID = (left_ID * size_D)[:, order_D]
        largest_D = found_ID[np.abs(found_ID).argmax(axis=0), np.arange(rank)]
        padded_ID = np.zeros((len(items), self.dimensions))
        padded_ID[:, :rank] = found_ID * np.where(largest_D < 0, -1.0, 1.0)
        return padded_ID


NodeFeature: TypeAlias = Degree | GraphEmbedding

NODE_FEATURES: Final[Mapping[str, type[NodeFeature]]] = MappingProxyType(
    {"degree": Degree, "graph embedding": GraphEmbedding}
)
"""Every kind of feature of a node by its word."""


@dataclass(frozen=True)
class NodeView:
    """A named group of features of items in the graph, and who answers for it; InputError when it makes no sense.

    >>> NodeView("place", (Degree(), GraphEmbedding(2)), "Where in the graph?", "recommendation").columns
    ('place__degree', 'place__embedding_0', 'place__embedding_1')
    """

    name: str
    features: tuple[NodeFeature, ...]
    description: str
    owner: str

    def __post_init__(self) -> None:
        names = [name for feature in self.features for name in feature.names]
        faults = [
            (not self.name.isidentifier(), "the name is no plain word", "use letters, digits and _ only"),
            (not self.features, "it has no features", "give a Degree or a GraphEmbedding"),
            (len(set(names)) < len(names), f"a feature stands twice: {names}", "declare each feature once"),
            (any(isinstance(one, GraphEmbedding) and one.dimensions < 1 for one in self.features),
             "an embedding of no dimension", "give dimensions of 1 or more"),
        ]  # fmt: skip
        problems = [Problem(f"node view {self.name!r}", what, remedy) for wrong, what, remedy in faults if wrong]
        if problems:
            raise InputError(problems)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of this view's columns, `view__feature`."""
        return tuple(f"{self.name}__{name}" for feature in self.features for name in feature.names)

    @property
    def counts(self) -> tuple[str, ...]:
        """Those columns that count."""
        return tuple(f"{self.name}__{name}" for one in self.features if isinstance(one, Degree) for name in one.names)

    def latest(self, ties: pl.DataFrame) -> LatestView:
        """Return the values of every item with a tie (Float32); any other has 0. ties: as from `item_entities`."""
        items = ties[ITEM_ROW].unique().sort().cast(ROW_TYPE)
        values = np.concatenate([one.compute(ties, items) for one in self.features], axis=1).astype(np.float32)
        table = pl.DataFrame([items, *(pl.Series(name, values[:, n]) for n, name in enumerate(self.columns))])
        return LatestView(self.name, (ITEM_ROW,), table, dict.fromkeys(self.columns, 0.0))


@dataclass(frozen=True)
class NodeValues:
    """What node views say of items: their tables for serving, which columns count, and the views left out."""

    latest: tuple[LatestView, ...]
    counts: tuple[str, ...]
    left_out: dict[str, str]

    def rows(self, items: pl.Series) -> pl.DataFrame:
        """Return the views' columns for each row's item (null: unknown)."""
        found = [view.find(items.alias(ITEM_ROW).to_frame()) for view in self.latest]
        return pl.concat(found, how="horizontal") if found else pl.DataFrame()


def node_values(views: Sequence[NodeView], entities: pl.DataFrame | None) -> NodeValues:
    """Return the views' values of every item with a tie. entities: as from `item_entities`."""
    if entities is None or entities.is_empty():
        left_out = dict.fromkeys((view.name for view in views), "no item is tied to an entity of the graph")
        return NodeValues((), (), left_out)
    latest = tuple(view.latest(entities) for view in views)
    return NodeValues(latest, tuple(name for view in views for name in view.counts), {})


def kind_of_node(feature: NodeFeature) -> str:
    """Return the word of a feature's kind.

    >>> kind_of_node(Degree())
    'degree'
    """
    return next(word for word, member in NODE_FEATURES.items() if isinstance(feature, member))


def normalised_incidence(ties: pl.DataFrame, items: pl.Series) -> Any:
    """Return the matrix (I, E) of an item's entities, each weighing degree ** -1/2, rows of length 1."""
    pairs = ties.select(ITEM_ROW, ENTITY).unique().sort(ITEM_ROW, ENTITY)
    row_X = np.searchsorted(items.to_numpy(), pairs[ITEM_ROW].to_numpy())
    column_X = pairs[ENTITY].rank("dense").to_numpy().astype(np.int64) - 1
    degree_E = np.bincount(column_X)
    weight_X = degree_E[column_X] ** -0.5
    length_I = np.sqrt(np.bincount(row_X, weight_X**2, len(items)))
    shape = (len(items), len(degree_E))
    return scipy.sparse.csr_array((weight_X / length_I[row_X], (row_X, column_X)), shape=shape)
