"""New triples, entities and items in the served version at once, without training; old rows and vectors stand.

Axes: I items, D trained dimensions, W served dimensions.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import scipy.sparse
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from kgrec import columns as c
from kgrec.artifacts import Artifact, hash_file
from kgrec.chain.candidate import load_fault
from kgrec.chain.context import Run
from kgrec.chain.fresh import Past, made_artifact, past_of
from kgrec.chain.judge import QUERIES, asked_users
from kgrec.chain.knowledge import graph as graph_stage
from kgrec.chain.learn import load_network
from kgrec.chain.path_fidelity import kernel_setting
from kgrec.chain.prepare import catalogue_mask
from kgrec.chain.prepare import ingest as ingest_stage
from kgrec.chain.prepare import split as split_stage
from kgrec.chain.tensors import training_data
from kgrec.config import TaskName
from kgrec.data.vocabulary import Vocabulary
from kgrec.errors import GateRefusedError
from kgrec.evaluation.baselines import evenly
from kgrec.evaluation.graph_kernel import incidence, kernel_weights
from kgrec.evaluation.item_weights import largest_of_each_row
from kgrec.evaluation.ranking import Target
from kgrec.model.growing import grown_network
from kgrec.serving import package, versions
from kgrec.serving.index import build_index
from kgrec.serving.neighbours import Neighbours
from kgrec.serving.score import ITEM_FEATURES, ITEM_ROWS, TOWERS
from kgrec.serving.smaller import ServingConfig, as_stored, packed, unpacked

UPDATED: Final = "updated"
_ANEW: Final = (package.ITEMS, package.ENTITIES, package.RELATIONS, package.GRAPH_TRIPLES, package.GRAPH_NODES,
                package.VECTORS, package.CATALOGUE, TOWERS, ITEM_FEATURES)  # fmt: skip


@dataclass(frozen=True)
class Updated:
    """The version that is served now and what is new in it; facts: see `update_graph`."""

    version: str
    facts: Mapping[str, Any]


def update_graph(run: Run) -> Updated:
    """Take what the graph and the item table say now into the promoted version, without training, and promote it.

    Items without a trained vector (new ones, and those that nothing was known of) get one from their neighbours, by the
    trained tables propagated over the new graph, and their neighbours of the graph kernel. All other vectors stand, as
    do users, histories, popularity and towers. facts: new items, placed, unplaced (no way leads to them), new entities,
    relations, triples; old_vectors_agree: mean and least cosine of the vectors that stand with those that a new
    propagation would give. InputError where nothing is promoted or what it was made from is gone; GateRefusedError when
    the result does not load or answer.
    """
    past = past_of(run)
    ingested = ingest_stage(run)
    log = split_stage(run, ingested)
    graph = graph_stage(run, ingested, log)
    old = past.version.artifact
    inputs = dict(old.inputs) | {"graph": graph.digest, UPDATED: log.digest, "was": old.key}
    artifact, _ = run.workspace.store.build(
        "version", inputs, old.config, lambda out: _write(run, past, log, graph, out)
    )
    fault = load_fault(artifact)
    if fault is not None:
        raise GateRefusedError([f"the updated version does not answer: {fault}"])
    record = replace(
        past.record, version="", key=artifact.key, created=datetime.now(UTC).isoformat("T", "seconds"),
        gate_passed=True,
        gate_reasons=("the stored candidate loads and answers", f"version {past.record.version} with a newer graph"),
    )  # fmt: skip
    record = versions.register(run.workspace, record)
    versions.promote(run.workspace, record.version, why=f"the graph of version {past.record.version} was updated")
    return Updated(record.version, artifact.facts[UPDATED])


def _write(run: Run, past: Past, log: Artifact, graph: Artifact, out: Path) -> dict[str, Any]:
    old = past.version.artifact
    for name in old.files:
        if name not in _ANEW and not name.startswith("index"):
            (out / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(old.file(name), out / name)
    for source, name, target in (
        (log, package.ITEMS, package.ITEMS), (graph, package.ENTITIES, package.ENTITIES),
        (graph, package.RELATIONS, package.RELATIONS), (log, ITEM_FEATURES, ITEM_FEATURES),
    ):  # fmt: skip
        shutil.copyfile(source.file(name), out / target)
    serving = ServingConfig(**old.facts.get(package.SERVING, {}))
    package.write_graph(out, graph, serving.entities)
    items = Vocabulary.load(out / package.ITEMS)
    known = len(past.version.items)
    vectors, facts = _placed(run, past, graph, len(items))
    stored = packed({name: tensor.numpy() for name, tensor in vectors.items()}, serving.precision)
    save_arrays(stored, out / package.VECTORS)
    vectors = as_stored(vectors, serving.precision)
    if old.has(TOWERS):
        save_file(_more_rows(load_file(old.file(TOWERS)), len(items)), out / TOWERS)
    popularity = pl.read_parquet(old.file(package.CATALOGUE)).select(c.ITEM_ROW, package.POPULARITY)
    pl.read_parquet(log.file(package.CATALOGUE)).select(c.ITEM_ROW, c.TITLE).join(
        popularity, on=c.ITEM_ROW, how="left", maintain_order="left"
    ).with_columns(pl.col(package.POPULARITY).fill_null(0.0)).write_parquet(out / package.CATALOGUE)
    rows_I = np.flatnonzero(catalogue_mask(log)).astype(np.int64)
    queries_QD = evenly(asked_users(vectors["user_vectors_UD"]), QUERIES).numpy()
    build_index(vectors["item_vectors_ID"].numpy()[rows_I], rows_I, out, run.config.index, queries_QD)
    more = {
        what: pl.read_parquet(out / file).height - pl.read_parquet(old.file(file)).height
        for what, file in (("new_entities", package.ENTITIES), ("new_relations", package.RELATIONS),
                           ("new_triples", package.GRAPH_TRIPLES))
    }  # fmt: skip
    facts = {"new_items": len(items) - known, **facts, **more}
    bound = {"item vocabulary": items.digest, "model": hash_file(out / package.VECTORS)}
    return dict(old.facts) | {
        "bound_to": bound,
        UPDATED: facts,
    }


def _placed(run: Run, past: Past, graph: Artifact, num_items: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the version's tensors with more item rows, and how many items were placed."""
    stored = load_arrays(past.version.artifact.file(package.VECTORS))
    old = {name: torch.from_numpy(array) for name, array in unpacked(stored).items()}
    trained, learned = _learned(run, past)
    network, _ = load_network(trained)
    edges = training_data(learned, None, graph, (TaskName.CLICK, TaskName.KG), Target.CLICK, 1.0).edges
    grown = grown_network(
        network, num_items, int(graph.facts["entities"]), int(graph.facts["relations"]), edges
    ).export()
    was_ID = _padded(old["item_vectors_ID"], num_items)
    trained_D = grown.item_vectors_ID.shape[1]
    unknown_I = was_ID[:, :trained_D].abs().sum(1) == 0
    vectors_IW = was_ID.clone()
    vectors_IW[unknown_I, :trained_D] = grown.item_vectors_ID[unknown_I]
    fold_ID = _padded(old["item_fold_ID"], num_items)
    fold_ID[unknown_I] = grown.item_fold_ID[unknown_I]
    now = {**old, "item_vectors_ID": vectors_IW, "item_fold_ID": fold_ID}
    now |= _neighbours(run, past, trained, edges.head_tail_X2, old, unknown_I)
    agree_I = functional.cosine_similarity(was_ID[:, :trained_D], grown.item_vectors_ID)[~unknown_I]
    placed = int((vectors_IW[unknown_I].abs().sum(1) > 0).sum())
    facts: dict[str, Any] = {"placed": placed, "unplaced": int(unknown_I.sum()) - placed}
    if len(agree_I):
        facts["old_vectors_agree"] = {"mean": round(float(agree_I.mean()), 6), "least": round(float(agree_I.min()), 6)}
    return {name: tensor.contiguous() for name, tensor in now.items()}, facts


def _learned(run: Run, past: Past) -> tuple[Artifact, Artifact]:
    """Return the model that is served and the log that it learned from: train, or with a refit validation, too."""
    inputs = past.version.artifact.inputs
    if "refit" not in inputs:
        return made_artifact(run, past.record, "train", inputs["train"]), past.log
    refit = made_artifact(run, past.record, "refit", inputs["refit"])
    return refit, made_artifact(run, past.record, "joined", refit.inputs["split"])


def _neighbours(
    run: Run, past: Past, trained: Artifact, head_tail_X2: Tensor, old: Mapping[str, Tensor], unknown_I: Tensor
) -> dict[str, Tensor]:
    """Return the sparse parts with room for the new items; of the kernel also the weights of unknown items."""
    found = Neighbours.read({name: tensor.numpy() for name, tensor in old.items()})
    num_items = len(unknown_I)
    matrices = {name: _widened(matrix_II, num_items) for name, matrix_II in found.matrices.items()}
    digest = trained.inputs.get("baselines")
    tuned = made_artifact(run, past.record, "baselines", digest) if digest else None
    hub, weight = kernel_setting(trained, tuned)
    if hub is not None and weight:
        both_X2 = torch.cat([head_tail_X2, head_tail_X2.flip(1)])
        links_IE, _ = incidence(both_X2[both_X2[:, 0] < num_items], num_items)
        keep = max(1, int(trained.config["blocks"]["neighbour_weights"]) // max(num_items, 1))
        fresh_II = largest_of_each_row(kernel_weights(links_IE, hub), keep).tocoo()
        new_I = unknown_I.numpy()
        is_new = new_I[fresh_II.coords[0]] | new_I[fresh_II.coords[1]]
        places = (fresh_II.coords[0][is_new], fresh_II.coords[1][is_new])
        shape = (num_items, num_items)
        added_II = scipy.sparse.csr_array((fresh_II.data[is_new], places), shape=shape)
        before_II = matrices.get("kernel", scipy.sparse.csr_array(shape, dtype=np.float32)).tocoo()
        stays = ~(new_I[before_II.coords[0]] | new_I[before_II.coords[1]])
        kept_II = (before_II.data[stays], (before_II.coords[0][stays], before_II.coords[1][stays]))
        matrices["kernel"] = scipy.sparse.csr_array(scipy.sparse.csr_array(kept_II, shape=shape) + added_II)
    tensors = Neighbours(matrices, found.weights, num_items).tensors()
    return tensors if "block_weights" in old else {}


def _widened(matrix_II: Any, num_items: int) -> Any:
    matrix_II = scipy.sparse.csr_array(matrix_II)
    ends = np.concatenate([matrix_II.indptr, np.full(num_items - matrix_II.shape[0], matrix_II.indptr[-1])])
    return scipy.sparse.csr_array((matrix_II.data, matrix_II.indices, ends), shape=(num_items, num_items))


def _padded(table_ND: Tensor, rows: int) -> Tensor:
    return torch.cat([table_ND, table_ND.new_zeros(rows - len(table_ND), table_ND.shape[1])])


def _more_rows(towers: Mapping[str, Tensor], num_items: int) -> dict[str, Tensor]:
    """Return the towers' tensors; where they read the items' own rows, new items have none."""
    return {name: _padded(one, num_items) if name == ITEM_ROWS else one for name, one in towers.items()}
