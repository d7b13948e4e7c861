"""Time RecBole's training epochs on atomic files; print one JSON line. It runs in an environment that has RecBole.

    PYTHON benchmarks/throughput_recbole.py FOLDER MODEL [--epochs 4] [--threads 2]

FOLDER holds FOLDER's name with .train.inter, .valid.inter, .test.inter, .kg and .link behind it. The first epoch is not
counted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("model")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole reads it, too
    warnings.filterwarnings("ignore")
    folder = arguments.folder.resolve()
    columns = {"inter": ["user_id", "item_id"]}
    if arguments.model != "LightGCN":
        columns |= {"kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # it leaves folders where it runs
        config = Config(model=arguments.model, dataset=folder.name, config_dict={
            "data_path": str(folder.parent), "benchmark_filename": ["train", "valid", "test"], "load_col": columns,
            "use_gpu": False, "show_progress": False, "embedding_size": 64, "seed": 7, "reproducibility": True,
        })  # fmt: skip
        logging.disable(logging.CRITICAL)
        init_seed(config["seed"], config["reproducibility"])
        torch.set_num_threads(arguments.threads)
        train_data, _, _ = data_preparation(config, create_dataset(config))
        dataset = getattr(train_data, "dataset", None) or train_data._dataset
        model = get_model(config["model"])(config, dataset)
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        seconds = []
        for epoch in range(arguments.epochs + 1):
            started = time.perf_counter()
            trainer._train_epoch(train_data, epoch, show_progress=False)
            seconds.append(time.perf_counter() - started)
        rows = len(train_data._dataset)
    updates = -(-rows // config["train_batch_size"])
    print(json.dumps({"seconds": seconds[1:], "interactions": rows, "updates_per_epoch": updates}))


if __name__ == "__main__":
    main()
