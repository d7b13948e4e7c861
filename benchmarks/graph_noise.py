"""Noise and sparsity of a graph: MovieLens-100k with random triples added, or true ones removed; one JSON line a point.

    python benchmarks/graph_noise.py [--epochs N] [--shares 0,0.5,1] [--seeds N]

Added: for a share of the triples, the tail is replaced by another tail of the same relation, and the corrupted triple
is added (100 %: as many random triples as true ones). Removed: that share of the triples goes; 100 % leaves the tables'
genres and years. Everything else, splits and seeds included, is as in configs/ml-100k.toml with fewer epochs. Each
point gives ranking on test, how the graph alone ranks it, and whether confidence tells added triples from true ones
(the area under the ROC curve).
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from kgrec.data.datasets import get_dataset
from kgrec.stages import run

CONFIG = Path(__file__).parents[1] / "configs" / "ml-100k.toml"


def changed(triples: pl.DataFrame, kind: str, share: float, seed: int) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    if kind == "removed":
        return triples.filter(pl.Series(draw.random(triples.height) >= share))
    chosen = triples.filter(pl.Series(draw.random(triples.height) < share))
    shuffled = chosen.with_columns(pl.col("tail").shuffle(seed=seed).over("relation"))
    return pl.concat([triples, shuffled]).unique(maintain_order=True)


def told_apart(graph: Path, true: set[tuple[str, str, str]]) -> float | None:
    """The chance that a true triple of train weighs more than an added one."""
    nodes = pl.read_parquet(graph / "nodes.parquet")["id"].to_list()
    relations = pl.read_parquet(graph / "relations.vocabulary.parquet")["id"].to_list()
    triples = pl.read_parquet(graph / "triples.parquet").filter(pl.col("part") == "train")
    weight = triples["weight"].to_numpy()
    links = dict(
        pl.read_csv(get_dataset("ml-100k", print) / "item_entity.tsv", separator="\t", infer_schema=False).rows()
    )
    names = [links.get(name, name) if at < 1682 else name for at, name in enumerate(nodes)]
    rows = triples.select("head_row", "relation_row", "tail_row").iter_rows()
    is_true = np.array([(names[h], relations[r], names[t]) in true for h, r, t in rows])
    from_file = (triples["source"] == "triples.tsv").to_numpy()
    good, bad = weight[is_true & from_file], np.sort(weight[~is_true & from_file])
    if not len(bad):
        return None
    return float((np.searchsorted(bad, good, "left") + np.searchsorted(bad, good, "right")).mean() / (2 * len(bad)))


def point(triples: pl.DataFrame, true: set[tuple[str, str, str]], overrides: list[str]) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "triples.tsv"
        triples.write_csv(path, separator="\t")
        workspace = Path(folder) / "workspace"
        result = run(CONFIG, workspace, overrides=[f'knowledge.triples=["{path}"]', *overrides]).as_dict()
        (graph,) = (workspace / "artifacts" / "graph").iterdir()
        test = result["metrics"]["test"]
        return {
            "triples": triples.height, "ndcg@10": test["ranking"]["ndcg@10"], "recall@10": test["ranking"]["recall@10"],
            "link_mrr": test.get("link", {}).get("mrr"), "told_apart": told_apart(graph, true),
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--shares", default="0,0.25,0.5,1")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--kinds", default="added,removed,added with confidence")
    arguments = parser.parse_args()
    folder = get_dataset("ml-100k", logging.getLogger(__name__).info)
    triples = pl.read_csv(folder / "triples.tsv", separator="\t", infer_schema=False)
    for kind in arguments.kinds.split(","):
        for share in map(float, arguments.shares.split(",")):
            for seed in range(1, arguments.seeds + 1):
                more = [f"training.epochs={arguments.epochs}", f"seed={seed}", 'tasks=["click", "kg"]']
                more += ["knowledge.noise.confidence=true"] if kind.endswith("confidence") else []
                found = point(changed(triples, kind.split()[0], share, seed), set(triples.iter_rows()), more)
                print(
                    json.dumps({"kind": kind, "share": share, "seed": seed, "epochs": arguments.epochs} | found),
                    flush=True,
                )


if __name__ == "__main__":
    main()
