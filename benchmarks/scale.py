"""How seconds and memory grow with the log: ingest, split, features and training, a process for each stage and size.

    python benchmarks/scale.py [--sizes 1e6,1e7] [--stages ingest,split,features,graph,train] [--folder DIR]
        [--memory-mb 1024] [--out FILE.jsonl] [--draw FILE.svg]

The logs are planted (`benchmarks/planted.py`). Every stage runs in a process of its own over what the stages before
left in the workspace; seconds and peak memory (all that is resident, libraries included) are the stage's own.
`train` is one epoch over all rows in 40 steps, without baselines. Prints a JSON line for each; `--draw FILE` draws the
lines of `--out`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
STAGES = ("ingest", "split", "features", "graph", "train")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1e6,1e7")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--memory-mb", type=int, default=1024)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--draw", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.draw and not options.out:
        parser.error("--draw needs the lines of --out")
    if options.child:
        print(json.dumps(one_stage(Path(options.child[0]), options.child[1], options.memory_mb)))
        return
    with tempfile.TemporaryDirectory() as aside:
        for size in (int(float(text)) for text in options.sizes.split(",") if text):
            shop = (options.folder or Path(aside)) / f"shop{size}"
            plant(size, shop)
            for stage in options.stages.split(","):
                told = measured(shop, size, stage, options.memory_mb)
                print(json.dumps(told), flush=True)
                if options.out:
                    with options.out.open("a") as stream:
                        stream.write(json.dumps(told) + "\n")
    if options.draw:
        options.draw.write_text(drawn([json.loads(line) for line in options.out.read_text().splitlines()]))


def plant(events: int, shop: Path) -> None:
    if not (shop / "shop.toml").exists():
        command = [sys.executable, str(ROOT / "benchmarks" / "planted.py"), str(shop), "--events", str(events)]
        subprocess.run(command, check=True, stdout=sys.stderr)


def measured(shop: Path, events: int, stage: str, memory_mb: int) -> dict[str, Any]:
    """Run one stage in a process of its own; return what it took."""
    command = [sys.executable, __file__, "--child", str(shop), stage, "--memory-mb", str(memory_mb)]
    before, load, began = resource.getrusage(resource.RUSAGE_CHILDREN), os.getloadavg()[0], time.perf_counter()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = json.loads(done.stdout.splitlines()[-1])
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    whole = {"process_seconds": round(time.perf_counter() - began, 2), "load": round(load, 1),
             "process_processor_seconds": round(spent, 2)}  # fmt: skip
    return {"events": events, "stage": stage, "memory_mb": memory_mb, **told, **whole}


def one_stage(shop: Path, stage: str, memory_mb: int) -> dict[str, Any]:
    """Run the chain up to `stage`, of which everything before is there already; return what this stage took."""
    from feature_store.catalog import VIEWS
    from kgrec.chain import knowledge, learn, prepare
    from kgrec.chain.context import Run
    from kgrec.config import load_config
    from kgrec.workspace import Workspace

    rows_a_step = -(-rows_of(shop) // 40)
    overrides = ["training.epochs=1", f"training.batch_size={rows_a_step}", "training.relations_every=0",
                 f"resources.memory_mb={memory_mb}"]  # fmt: skip
    run = Run(load_config(shop / "shop.toml", overrides), Workspace(shop / "workspace"), VIEWS)
    used = resource.getrusage(resource.RUSAGE_SELF)
    before = used.ru_utime + used.ru_stime

    def mark() -> None:
        nonlocal before
        now = resource.getrusage(resource.RUSAGE_SELF)
        before = now.ru_utime + now.ru_stime

    with run.workspace.hold("benchmark"):
        mark()
        ingested = prepare.ingest(run)
        if stage != "ingest":
            mark()
            log = prepare.split(run, ingested)
        if stage in ("features", "train"):
            mark()
            features = prepare.features(run, ingested, log)
        if stage in ("graph", "train"):
            mark()
            graph = knowledge.graph(run, ingested, log)
        if stage == "train":
            mark()
            learn.learn(run, ingested, log, features, graph, None)
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = run.reports[stage]
    return {"seconds": found.seconds, "processor_seconds": round(used.ru_utime + used.ru_stime - before, 2),
            "peak_rss_mb": found.peak_rss_mb, "cached": found.cached}  # fmt: skip


def rows_of(shop: Path) -> int:
    import polars as pl

    return int(pl.scan_parquet(shop / "events" / "*.parquet").select(pl.len()).collect().item())


COLOURS = {"ingest": "#1b6ca8", "split": "#c8553d", "features": "#588157", "graph": "#8a6fb0", "train": "#b08900"}
WIDE, HIGH, LEFT, TOP = 330, 240, 60, 30


def drawn(lines: Sequence[dict[str, Any]]) -> str:
    """Return an SVG: processor seconds per million events, and peak memory, against the events, by stage."""
    panels = [("processor seconds per million events", lambda one: 1e6 * one["processor_seconds"] / one["events"]),
              ("peak memory, MB", lambda one: one["peak_rss_mb"])]  # fmt: skip
    width, height = 2 * (WIDE + LEFT + 20), HIGH + TOP + 60
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
             f'font-size="11"><rect width="100%" height="100%" fill="white"/>']  # fmt: skip
    for place, (title, value) in enumerate(panels):
        parts += panel(lines, title, value, LEFT + place * (WIDE + LEFT + 20))
    for place, (stage, colour) in enumerate(COLOURS.items()):
        parts.append(f'<text x="{LEFT + 90 * place}" y="{height - 8}" fill="{colour}">{stage}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def figure(value: float) -> str:
    """Return three digits, or all of a number from 100 on.

    >>> figure(0.5516), figure(2885.5)
    ('0.552', '2,886')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def panel(
    lines: Sequence[dict[str, Any]], title: str, value: Callable[[dict[str, Any]], float], left: int
) -> list[str]:
    """Return one panel, both axes logarithmic, a line and dots for each stage, the value beside each dot."""
    across, up = [math.log10(one["events"]) for one in lines], [math.log10(value(one)) for one in lines]
    low, high = min(up) - 0.1, max(up) + 0.1
    first, last = min(across) - 0.2, max(across) + 0.3

    def at(one: dict[str, Any]) -> tuple[float, float]:
        x = left + WIDE * (math.log10(one["events"]) - first) / (last - first)
        return x, TOP + HIGH * (high - math.log10(value(one))) / (high - low)

    parts = [f'<text x="{left}" y="{TOP - 10}" font-weight="bold">{title}</text>',
             f'<rect x="{left}" y="{TOP}" width="{WIDE}" height="{HIGH}" fill="none" stroke="#999"/>']  # fmt: skip
    for events in sorted({one["events"] for one in lines}):
        x = left + WIDE * (math.log10(events) - first) / (last - first)
        parts.append(f'<text x="{x:.0f}" y="{TOP + HIGH + 16}" text-anchor="middle">{events:,}</text>')
    for stage, colour in COLOURS.items():
        own = sorted((one for one in lines if one["stage"] == stage), key=lambda one: one["events"])
        points = " ".join("{:.1f},{:.1f}".format(*at(one)) for one in own)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for one in own:
            x, y = at(one)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
            parts.append(f'<text x="{x + 5:.1f}" y="{y - 4:.1f}" fill="{colour}">{figure(value(one))}</text>')
    return parts


if __name__ == "__main__":
    main()
