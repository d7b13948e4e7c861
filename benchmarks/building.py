"""Ingest, vocabularies, split and batches of a planted log, beside RecBole building its dataset from the same rows.

    python benchmarks/building.py [--events 1000000] [--threads 1] [--recbole PYTHON] [--folder DIR]

PYTHON: an interpreter with recbole of its own (`pip install recbole==1.2.1 "numpy<2" "pandas<2.2"`). Both get users,
items, times and the label of each row, RecBole as its atomic text file, which is written beforehand; both split
globally by time, 80 / 10 / 10, and then walk once through the train rows in shuffled batches of 4,096. Both may use so
many threads (RecBole's dataset uses one whatever it may). Prints a JSON line for each: wall clock, processor seconds,
peak memory and the load.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BATCH = 4096
THREADS = ("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "MKL_NUM_THREADS")
RECBOLE = """
import json, logging, os, resource, sys, time, warnings
warnings.filterwarnings("ignore")
folder, batch = sys.argv[1], int(sys.argv[2])
sys.argv = sys.argv[:1]
import torch
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import init_seed
config = Config(model="BPR", dataset="shop", config_dict=dict(
    data_path=folder, load_col={"inter": ["user_id", "item_id", "timestamp", "label"]}, use_gpu=False,
    show_progress=False, metrics=["Recall"], topk=[10], valid_metric="Recall@10", train_batch_size=batch,
    train_neg_sample_args=None, loss_type="CE",
    eval_args={"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "none",
               "mode": {"valid": "full", "test": "full"}}))
logging.disable(logging.CRITICAL)
init_seed(0, True)
began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
train, _, _ = data_preparation(config, create_dataset(config))
built = time.perf_counter() - began
rows = sum(len(batch["user_id"]) for batch in train)
now = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"seconds": time.perf_counter() - began, "built": built, "rows": rows, "peak_mb": now.ru_maxrss / 1000,
                  "processor_seconds": now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=float, default=1e6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--recbole")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(ours(options.child)))
        return
    os.environ.update(dict.fromkeys(THREADS, str(options.threads)))
    with tempfile.TemporaryDirectory() as aside:
        shop = options.folder or Path(aside) / "shop"
        if not (shop / "shop.toml").exists():
            planted = [sys.executable, str(ROOT / "benchmarks" / "planted.py"), str(shop), "--events"]
            subprocess.run([*planted, str(options.events)], check=True, stdout=sys.stderr)
        workspace = Path(aside) / "workspace"
        command = [sys.executable, __file__, "--child", str(shop)]
        told("kgrec", command, {"KGREC_WORKSPACE": str(workspace), "PYTHONPATH": str(ROOT)}, options.events)
        if options.recbole:
            write_text(shop, Path(aside) / "shop_text" / "shop")
            command = [options.recbole, "-c", RECBOLE, str(Path(aside) / "shop_text"), str(BATCH)]
            told("recbole", command, {}, options.events, cwd=aside)


def told(system: str, command: list[str], env: dict[str, str], events: float, cwd: str | None = None) -> None:
    load = os.getloadavg()[0]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **env}, cwd=cwd)
    found = json.loads(done.stdout.splitlines()[-1])
    plain = {name: round(value, 2) if isinstance(value, float) else value for name, value in found.items()}
    print(
        json.dumps(
            {
                "system": system,
                "events": int(events),
                "threads": os.environ[THREADS[0]],
                **plain,
                "load": round(load, 1),
            }
        ),
        flush=True,
    )


def ours(shop: Path) -> dict[str, float]:
    """Ingest, split, and go once through the train rows in shuffled batches; return what it took."""
    import numpy as np
    import polars as pl
    import torch

    from kgrec.chain import prepare
    from kgrec.chain.context import Run
    from kgrec.config import load_config
    from kgrec.training.exposures import shuffled
    from kgrec.workspace import Workspace

    config = shop / "building.toml"
    text = (shop / "shop.toml").read_text()
    config.write_text(text[: text.index("[items]")])  # the log alone, as RecBole reads it
    run = Run(load_config(config), Workspace(os.environ["KGREC_WORKSPACE"]), ())
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    log = prepare.split(run, prepare.ingest(run))
    built = time.perf_counter() - began
    names = ["user_row", "item_row", "click"]
    train = pl.scan_parquet(log.file("labelled.parquet")).filter(pl.col("part") == "train").select(names).collect()
    columns = [torch.from_numpy(train[name].to_numpy().astype(np.int64)) for name in names]
    rows, generator = 0, torch.Generator().manual_seed(7)
    for row_B in shuffled(train.height, -(-train.height // BATCH), generator):
        rows += len([column[row_B] for column in columns].pop())
    now = resource.getrusage(resource.RUSAGE_SELF)
    return {"seconds": time.perf_counter() - began, "built": built, "rows": rows, "peak_mb": now.ru_maxrss / 1000,
            "processor_seconds": now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime}  # fmt: skip


def write_text(shop: Path, folder: Path) -> None:
    """Write the log as RecBole's atomic text file."""
    import polars as pl

    folder.mkdir(parents=True)
    names = {
        "user": "user_id:token",
        "item": "item_id:token",
        "timestamp": "timestamp:float",
        "is_click": "label:float",
    }
    frame = pl.scan_parquet(shop / "events" / "*.parquet").select(list(names)).rename(names)
    frame.sink_csv(folder / "shop.inter", separator="\t")


if __name__ == "__main__":
    main()
