"""Which nodes, tastes and providers each item belongs to, from the graph or the table of items, as sparse matrices.

Axes: I items, E nodes, P groups.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import scipy.sparse
import torch

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.encoded import ITEM_FEATURES
from kgrec.errors import KgrecError, nearest
from kgrec.evaluation.graph_kernel import incidence


class NotThereError(KgrecError):
    """No relation and no column has the name that was asked for; the message names the nearest one."""


class ItemGroups:
    """Reads groups of items from the train part of the graph and from the columns of the items."""

    def __init__(self, log: Artifact, graph: Artifact) -> None:
        self._log, self._graph = log, graph
        self._num_items = int(log.facts["items"])

    def nodes(self) -> Any:
        """Return items x nodes: 1 where an edge of train joins them, the largest hubs left out; may hold nothing."""
        links = self._links(pl.read_parquet(self._graph.file("triples.parquet")))
        if not len(links):
            return scipy.sparse.csr_array((self._num_items, 1))
        return incidence(torch.tensor(links), self._num_items)[0]

    def of(self, name: str) -> tuple[Any, list[str]]:
        """Return items x groups and the groups' names, of a relation (id or words) or a column of items.features.

        Raises NotThereError.
        """
        relations = (
            pl.read_parquet(self._graph.file("relations.parquet"))
            if self._graph.has("relations.parquet")
            else pl.DataFrame(schema={c.ID: pl.String, c.NAME: pl.String, c.RELATION_ROW: c.ROW_TYPE})
        )
        found = relations.filter((pl.col(c.ID) == name) | (pl.col(c.NAME) == name))
        table = pl.read_parquet(self._log.file(ITEM_FEATURES))
        if found.height:
            return self._of_relation(found[c.RELATION_ROW].to_list())
        if name in table.columns and name != c.ITEM_ROW:
            return self._of_column(table.select(c.ITEM_ROW, pl.col(name).cast(pl.String)).drop_nulls(), name)
        known = [*relations[c.ID].to_list(), *(column for column in table.columns if column != c.ITEM_ROW)]
        guess = nearest(name, [one for one in known if one])
        raise NotThereError(f"no relation and no column of items.features is called {name!r}" + (
            f"; did you mean {guess!r}?" if guess else ""
        ))  # fmt: skip

    def _of_relation(self, rows: list[int]) -> tuple[Any, list[str]]:
        triples = pl.read_parquet(self._graph.file("triples.parquet")).filter(pl.col(c.RELATION_ROW).is_in(rows))
        links = self._links(triples)
        nodes, column = np.unique(links[:, 1], return_inverse=True) if len(links) else (np.zeros(0, np.int64),) * 2
        table = pl.read_parquet(self._graph.file("nodes.parquet")).select("node", c.NAME, c.LABEL, c.ID)
        named = pl.DataFrame({"node": pl.Series(nodes, dtype=table.schema["node"])}).join(
            table, on="node", how="left", maintain_order="left"
        )
        names = named.select(pl.coalesce(c.LABEL, c.NAME, c.ID).fill_null("?")).to_series().to_list()
        return self._matrix(links[:, 0], column, len(names)), names

    def _of_column(self, table: pl.DataFrame, name: str) -> tuple[Any, list[str]]:
        names = table[name].unique().sort().to_list()
        places = {value: at for at, value in enumerate(names)}
        column = np.array([places[value] for value in table[name].to_list()], dtype=np.int64)
        return self._matrix(table[c.ITEM_ROW].to_numpy(), column, len(names)), names

    def _matrix(self, rows: Any, columns: Any, width: int) -> Any:
        matrix = scipy.sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(self._num_items, max(width, 1)))
        matrix.data[:] = 1.0
        return matrix

    def _links(self, triples: pl.DataFrame) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return (item, node) of the train triples, in either direction."""
        ends = triples.filter(pl.col(c.PART) == c.TRAIN).select(c.HEAD_ROW, c.TAIL_ROW).to_numpy().astype(np.int64)
        both = np.concatenate([ends, ends[:, ::-1]])
        links: np.ndarray[Any, np.dtype[np.int64]] = both[both[:, 0] < self._num_items]
        return links
