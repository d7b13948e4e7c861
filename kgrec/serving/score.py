"""Click and conversion probabilities of a version: the towers over the latest features.

Axes: N requests, U users, I items, D dimensions, F numeric and C categorical features.
"""

from __future__ import annotations

import json
from typing import Final

import polars as pl
import torch
from torch import Tensor

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.data.vocabulary import Vocabulary
from kgrec.errors import InputError, Problem, nearest
from kgrec.features.encoding import FeatureEncoder
from kgrec.features.latest import LatestFeatures
from kgrec.model.embeddings import NetworkShape
from kgrec.model.network import Encoded, NetworkConfig, run_towers
from kgrec.model.towers import Towers, probabilities
from kgrec.serving.smaller import unpacked
from kgrec.serving.stored import read_tensors

ENCODER, LATEST = "encoder.json", "latest"
USER_FEATURES, ITEM_FEATURES = "user_features.parquet", "item_features.parquet"
TOWERS, NETWORK = "towers.safetensors", "network.json"
BOTH: Final = "both"
ITEM_ROWS: Final = "item_rows_ID"
"""Beside the towers' parameters: the items' own rows, where the towers mix them with the propagated vectors."""


class TowerScorer:
    """Predicts what would come of showing an item to a user, as far as the version learned it."""

    def __init__(
        self, artifact: Artifact, users: Vocabulary, items: Vocabulary, users_UD: Tensor, items_ID: Tensor
    ) -> None:
        if not artifact.has(TOWERS):
            remedy = "give the log impressions with labels, or conversion events, and run again"
            raise InputError(Problem("score", "this version learned neither click nor conversion", remedy))
        raw = json.loads(artifact.file(NETWORK).read_text())
        shape, config = NetworkShape(**raw["shape"]), NetworkConfig(**raw["config"])
        self._towers = Towers(shape, config.dimensions, config.towers)
        stored = unpacked(read_tensors(artifact.file(TOWERS)))
        state = {name: torch.from_numpy(array) for name, array in stored.items()}
        self._vectors = Encoded(users_UD, items_ID, state.pop(ITEM_ROWS, None))
        self._towers.load_state_dict(state)
        self._towers.eval()
        description = json.loads(artifact.file(ENCODER).read_text())
        self._context: list[str] = description.pop("context")
        self._encoder = FeatureEncoder.from_dict(description)
        self._latest = LatestFeatures.load(artifact.path / LATEST)
        self._side_users = pl.read_parquet(artifact.file(USER_FEATURES))
        self._side_items = pl.read_parquet(artifact.file(ITEM_FEATURES))
        self._users, self._items = users, items

    def score(self, requests: pl.DataFrame) -> pl.DataFrame:
        """Return user, item and, as far as learned, click, conversion (given a click) and both; order kept.

        requests: user, item, each declared context column, and perhaps `time` (UTC) for the hour of day. Unknown users,
        items and context values count as unknown, not as errors. InputError names every column that is missing.
        """
        missing = [name for name in (c.USER, c.ITEM, *self._context) if name not in requests.columns]
        if missing:
            raise InputError([_missing(name, requests.columns) for name in missing])
        ids = requests.select(pl.col(c.USER, c.ITEM).cast(pl.String).str.strip_chars())
        rows = requests.with_columns(
            self._users.rows(ids[c.USER]).alias(c.USER_ROW), self._items.rows(ids[c.ITEM]).alias(c.ITEM_ROW)
        ).drop(c.USER, c.ITEM)
        found = self._latest.look_up(rows, self._side_users, self._side_items, context=self._context)
        numeric_NF, categorical_NC = (torch.from_numpy(part) for part in self._encoder.encode(found))
        user_N, item_N = (
            torch.tensor(rows[name].fill_null(-1).to_numpy(), dtype=torch.int64) for name in (c.USER_ROW, c.ITEM_ROW)
        )
        with torch.no_grad():
            output = run_towers(self._towers, self._vectors, user_N, item_N, numeric_NF, categorical_NC)
            likely = probabilities(self._towers.calibrated(output.logits))
        chance = {name.replace("click_and_conversion", BOTH): p.numpy() for name, p in likely.items()}
        return ids.with_columns(pl.Series(name, values, dtype=pl.Float64) for name, values in chance.items())


def _missing(name: str, columns: list[str]) -> Problem:
    guess = nearest(name, columns)
    remedy = f"rename {guess!r} to {name!r}" if guess else f"add the column {name!r}"
    return Problem("score", f"the table has no column {name!r}", remedy, example=", ".join(columns))
