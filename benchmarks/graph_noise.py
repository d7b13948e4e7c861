"""Noise and sparsity of a graph: MovieLens-100k with random triples added, or true ones removed; one JSON line a point.

    python benchmarks/graph_noise.py [--epochs N] [--shares 0,0.5,1] [--seeds 1,2] | tee points.jsonl
    python benchmarks/graph_noise.py --draw points.jsonl benchmarks/graph_noise.svg

Added: for a share of the triples, the tail is replaced by another tail of the same relation, and the corrupted triple
is added (100 %: as many random triples as true ones). Removed: that share of the triples goes; 100 % leaves the tables'
genres and years. Everything else, splits and seeds included, is as in configs/ml-100k.toml with fewer epochs; the chain
ends after evaluation. Each point gives ranking on test, how the graph alone ranks it (graph_kernel, whose popularity
is switched off), the links held out (all of them, among which added ones are wrong; and those alone that Freebase says,
which every point judges alike), and, where confidence was learned, whether it tells added triples from true ones (the
area under the ROC curve). Nothing is added or removed at 0 %, so kinds that train alike share that point.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from kgrec.artifacts import Artifact, load_artifact
from kgrec.chain.context import Run
from kgrec.chain.judge import PER_TRIPLE
from kgrec.chain.release import read_figures
from kgrec.config import load_config
from kgrec.data.datasets import get_dataset
from kgrec.stages import run_chain
from kgrec.workspace import Workspace

CONFIG = Path(__file__).parents[1] / "configs" / "ml-100k.toml"
QUICKER = (
    'tasks=["click", "kg"]', "baselines.ials_regularisation=[10.0]", "baselines.ials_alpha=[1.0]",
    "baselines.kernel_popularity=[0.0]",
)  # fmt: skip
SHOWN = {"ndcg@10": "NDCG@10, served", "graph_alone_ndcg@10": "NDCG@10, the graph alone",
         "true_link_mrr": "held-out links of Freebase, MRR", "told_apart": "added triples told apart, AUC"}  # fmt: skip


def changed(triples: pl.DataFrame, kind: str, share: float, seed: int) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    if kind == "removed":
        return triples.filter(pl.Series(draw.random(triples.height) >= share))
    chosen = triples.filter(pl.Series(draw.random(triples.height) < share))
    shuffled = chosen.with_columns(pl.col("tail").shuffle(seed=seed).over("relation"))
    return pl.concat([triples, shuffled]).unique(maintain_order=True)


def true_of(graph: Artifact, rows: pl.DataFrame, true: set[tuple[str, str, str]]) -> np.ndarray:
    """Whether each row (head_row, relation_row, tail_row) of a built graph is one of these triples."""
    nodes = pl.read_parquet(graph.file("nodes.parquet"))["id"].to_list()
    relations = pl.read_parquet(graph.file("relations.vocabulary.parquet"))["id"].to_list()
    links = dict(
        pl.read_csv(get_dataset("ml-100k", print) / "item_entity.tsv", separator="\t", infer_schema=False).rows()
    )
    items = int(graph.facts["items"])
    names = [links.get(name, name) if at < items else name for at, name in enumerate(nodes)]
    told = rows.select("head_row", "relation_row", "tail_row").iter_rows()
    return np.array([(names[h], relations[r], names[t]) in true for h, r, t in told], dtype=bool)


def told_apart(graph: Artifact, true: set[tuple[str, str, str]]) -> float | None:
    """The chance that a true triple of train weighs more than an added one."""
    triples = pl.read_parquet(graph.file("triples.parquet")).filter(
        (pl.col("part") == "train") & (pl.col("source") == "triples.tsv")
    )
    weight, is_true = triples["weight"].to_numpy(), true_of(graph, triples, true)
    good, bad = weight[is_true], np.sort(weight[~is_true])
    if not len(bad):
        return None
    return float((np.searchsorted(bad, good, "left") + np.searchsorted(bad, good, "right")).mean() / (2 * len(bad)))


def true_links(graph: Artifact, evaluated: Artifact, true: set[tuple[str, str, str]]) -> tuple[float | None, int]:
    """Filtered MRR of the held-out test triples that Freebase says, and how many they are."""
    ranks = pl.read_parquet(evaluated.file(PER_TRIPLE)) if evaluated.has(PER_TRIPLE) else pl.DataFrame()
    kept = ranks.filter(pl.Series(true_of(graph, ranks, true))) if ranks.height else ranks
    if not kept.height:
        return None, 0
    return float((1 / kept.select("tail_rank", "head_rank").to_numpy()).mean()), kept.height


def point(triples: pl.DataFrame, true: set[tuple[str, str, str]], overrides: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path, workspace = Path(folder) / "triples.tsv", Workspace(Path(folder) / "workspace")
        triples.write_csv(path, separator="\t")
        loaded = load_config(CONFIG, [f'knowledge.triples=["{path}"]', *QUICKER, *overrides])
        with workspace.hold("graph_noise"):
            evaluated = run_chain(Run(loaded, workspace), until="evaluate")
        assert isinstance(evaluated, Artifact)
        figures, baselines = read_figures(evaluated)
        (folder_of_graph,) = (workspace.root / "artifacts" / "graph").iterdir()
        graph, test = load_artifact(folder_of_graph, "graph"), figures["test"]
        mrr, links = true_links(graph, evaluated, true)
        has_confidence = loaded.config.knowledge is not None and loaded.config.knowledge.noise.confidence
        return {
            "triples": triples.height, "ndcg@10": test["ranking"]["ndcg@10"], "recall@10": test["ranking"]["recall@10"],
            "graph_alone_ndcg@10": baselines.get("graph_kernel", {}).get("ndcg@10"),
            "link_mrr": test.get("link", {}).get("mrr"), "true_link_mrr": mrr, "true_links": links,
            "told_apart": told_apart(graph, true) if has_confidence else None,
        }  # fmt: skip


def draw(points: Path, out: Path) -> None:
    """Draw the mean over seeds against the share, a line a kind, a panel a figure; its range where seeds differ."""
    rows = pl.DataFrame([json.loads(line) for line in points.read_text().splitlines()]).select(
        "kind", pl.col("share") * 100, *SHOWN
    )
    long = rows.unpivot(list(SHOWN), index=["kind", "share"], variable_name="figure", value_name="value").drop_nulls()
    panels = []
    for figure, title in SHOWN.items():
        data = alt.Data(values=long.filter(pl.col("figure") == figure).to_dicts())
        chart = alt.Chart(data, title=title, width=220, height=170).encode(
            x=alt.X("share:Q", title="triples added or removed, %"), color=alt.Color("kind:N", title=None)
        )
        line = chart.mark_line(point=True).encode(y=alt.Y("mean(value):Q", title=None, scale=alt.Scale(zero=False)))
        spread = chart.mark_errorbar(extent="stdev").encode(y=alt.Y("value:Q", title=None))
        panels.append(line + spread)
    alt.vconcat(alt.hconcat(*panels[:2]), alt.hconcat(*panels[2:])).save(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--shares", default="0,0.25,0.5,1")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--kinds", default="added,removed,added with confidence")
    parser.add_argument("--draw", type=Path, nargs=2, metavar=("POINTS", "PICTURE"))
    arguments = parser.parse_args()
    if arguments.draw:
        draw(*arguments.draw)
        return
    folder = get_dataset("ml-100k", logging.getLogger(__name__).info)
    triples = pl.read_csv(folder / "triples.tsv", separator="\t", infer_schema=False)
    true = set(triples.iter_rows())
    for seed in map(int, arguments.seeds.split(",")):
        untouched: dict[bool, dict[str, Any]] = {}
        for kind in arguments.kinds.split(","):
            for share in map(float, arguments.shares.split(",")):
                more = [f"training.epochs={arguments.epochs}", f"seed={seed}"]
                weighs = kind.endswith("confidence")
                more += ["knowledge.noise.confidence=true"] if weighs else []
                found = untouched.get(weighs) if not share else None
                found = found or point(changed(triples, kind.split()[0], share, seed), true, more)
                untouched |= {} if share else {weighs: found}
                line = {"kind": kind, "share": share, "seed": seed, "epochs": arguments.epochs} | found
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
