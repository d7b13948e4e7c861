"""Run the whole chain on real datasets and print one JSON line for each: figures, baselines, seconds, memory.

    python benchmarks/real_data.py --data DIR [--only lastfm,fb15k237,...] [--set KEY=VALUE]...

DIR holds the folders lastfm_lightkg, kuairand_pure_sub, taobao_mbcgcn, kg_umls and kg_fb15k237 as their cards say;
ml-100k is the demo and needs none of them. Every choice (epoch, weights, baseline settings) is made on validation; test
is read once.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

KUAIRAND = """
name = "kuairand"
[interactions]
path = "{data}/kuairand_pure_sub/impressions.parquet"
layout = "impressions"
context = ["tab"]
[interactions.labels]
click = "click"
conversion = "{conversion}"
[users]
path = "{data}/kuairand_pure_sub/users.parquet"
id = "user"
features = ["user_active_degree", "register_days"]
[items]
path = "{data}/kuairand_pure_sub/items.parquet"
id = "item"
features = ["author_id", "video_type", "upload_type", "video_duration", "music_id", "tag"]
[knowledge]
triples = ["{data}/kuairand_pure_sub/triples.parquet"]
links = "{data}/kuairand_pure_sub/item_entity.parquet"
[split]
kind = "column"
[model.towers]
reads = "nothing"
sharing = "mmoe"
[evaluation]
calibration = "platt"
"""
"""The towers read no shared vector: chosen within train, see docs/decisions/0028-what-the-item-vector-costs.md."""

CONFIGS = {
    "lastfm": """
name = "lastfm"
[interactions]
path = "{data}/lastfm_lightkg/interactions.parquet"
[knowledge]
triples = ["{data}/lastfm_lightkg/triples.parquet"]
links = "{data}/lastfm_lightkg/item_entity.parquet"
[split]
kind = "column"
""",
    "kuairand": KUAIRAND.replace("{conversion}", "long_view"),
    "kuairand_like": KUAIRAND.replace("{conversion}", "is_like"),
    "taobao": """
name = "taobao"
[interactions]
path = "{data}/taobao_mbcgcn/interactions.parquet"
[interactions.roles]
click = ["view", "cart"]
conversion = ["purchase"]
[split]
kind = "column"
[evaluation]
target = "conversion"
exclude_seen = "target"
""",
    "amazon-book": """
name = "amazon-book"
[interactions]
path = "{data}/amazon_book_kgat/interactions.parquet"
[knowledge]
triples = ["{data}/amazon_book_kgat/triples.parquet"]
links = "{data}/amazon_book_kgat/item_entity.parquet"
[split]
kind = "column"
[evaluation]
k = [20]
""",
    "umls": """
name = "umls"
tasks = ["kg"]
[knowledge]
triples = ["{data}/kg_umls/triples.parquet"]
[split]
kind = "column"
""",
    "fb15k237": """
name = "fb15k237"
tasks = ["kg"]
[knowledge]
triples = ["{data}/kg_fb15k237/triples.parquet"]
[split]
kind = "column"
""",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--only", default="ml-100k,lastfm,kuairand,taobao,umls")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()

    from feature_store.catalog import VIEWS
    from kgrec.stages import run

    for name in arguments.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            config = ROOT / "configs" / "ml-100k.toml"
            if name in CONFIGS:
                config = Path(folder) / f"{name}.toml"
                config.write_text(CONFIGS[name].format(data=arguments.data.resolve()))
            result = run(config, Path(folder) / "workspace", overrides=arguments.overrides, views=VIEWS).as_dict()
        ranking = result["metrics"].get("test", {})
        line = {
            "dataset": name, "overrides": arguments.overrides, "gate": result["gate"], "test": ranking,
            "validation": result["metrics"].get("validation", {}), "baselines": result["baselines"],
            "stages": {stage: cost["seconds"] for stage, cost in result["stages"].items()},
            "peak_rss_mb": result["peak_rss_mb"],
        }  # fmt: skip
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
