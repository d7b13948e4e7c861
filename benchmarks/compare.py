"""What the graph is worth: `full`, `kg_off` and `kg_shuffled` on real data, several seeds each, tested in pairs.

    python benchmarks/compare.py --data DIR --only lastfm,ml-100k --seeds 3

DIR holds the datasets as `benchmarks/real_data.py` names them; ml-100k is the demo's. One JSON line a dataset: what
`kgrec compare --json` prints, without the path of the report.
With --workspace the workspaces stay, and a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--only", default="lastfm,ml-100k")
    parser.add_argument("--arms", default="full,kg_off,kg_shuffled")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workspace", type=Path, help="folder of the workspaces; default: temporary")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()

    from benchmarks.real_data import CONFIGS
    from feature_store.catalog import VIEWS
    from kgrec.chain.comparison import compare

    def tell(progress: object) -> None:
        print(progress, file=sys.stderr, flush=True)

    for name in arguments.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            config = ROOT / "configs" / "ml-100k.toml"
            if name in CONFIGS:
                config = Path(folder) / f"{name}.toml"
                config.write_text(CONFIGS[name].format(data=arguments.data.resolve()))
            workspace = (arguments.workspace or Path(folder)) / name
            answer = compare(
                config, workspace, arms=arguments.arms, seeds=arguments.seeds, overrides=arguments.overrides,
                views=VIEWS, progress=tell,
            )  # fmt: skip
            del answer["report"]
            print(json.dumps({"dataset": name, "overrides": arguments.overrides, **answer}), flush=True)


if __name__ == "__main__":
    main()
