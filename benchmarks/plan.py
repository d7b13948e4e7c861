"""The paper plan of docs/scale.md: bytes, seconds and money of each stage at a size that nobody here has run.

    python benchmarks/plan.py [--events 1e9] [--users 1e8] [--items 1e7] [--triples 1e9] > docs/scale.md

Every figure of the page follows from benchmarks/slopes.json (what was measured, and where) by the sums below, and from
the prices, which are assumptions. `tests/test_scale_plan.py` compares the page with what this prints.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SLOPES = Path(__file__).with_name("slopes.json")
CORE_HOUR, GB_HOUR, GB_MONTH = 0.04, 0.005, 0.023  # dollars: a virtual core, a GB of memory, a GB of object storage
MACHINE_CORES, MACHINE_GB = 32, 128
DIMENSIONS, FLOAT, COPIES = 64, 4, 4  # of the shared vectors: parameters, gradients and the two moments of AdamW
EPOCHS, STEPS, LAYERS = 24, 40, 3
EDGE_BYTES = 12  # of an edge of the propagation matrix: a column (8 bytes) and a weight (4)


@dataclass(frozen=True)
class World:
    """The size that is planned for."""

    events: float = 1e9
    users: float = 1e8
    items: float = 1e7
    triples: float = 1e9

    @property
    def nodes(self) -> float:
        """Users, items and other entities; a triple in twenty names an entity of its own."""
        return self.users + self.items + self.triples / 20


@dataclass(frozen=True)
class Cost:
    """What one stage takes: bytes that stay, processor seconds, bytes of memory that one machine or all need."""

    stage: str
    stays: float
    seconds: float
    memory: float
    why: str

    @property
    def machines(self) -> int:
        """How many machines the memory asks for."""
        return max(1, -int(-self.memory // (0.8 * MACHINE_GB * 1e9)))

    @property
    def hours(self) -> float:
        """Hours of wall clock with every core of the machines at work at the measured rate."""
        return self.seconds / (self.machines * MACHINE_CORES) / 3600

    @property
    def dollars(self) -> float:
        """Cores and memory while it runs, and a month of what stays."""
        rent = self.machines * (MACHINE_CORES * CORE_HOUR + MACHINE_GB * GB_HOUR)
        return self.hours * rent + self.stays / 1e9 * GB_MONTH


def plan(world: World, slopes: Mapping[str, Any]) -> list[Cost]:
    """Return the costs of every stage of one full training."""
    ids = (world.users + world.items) * slopes["held"]["bytes_per_id"]
    streamed = slopes["held"]["bytes_whatever_the_log"] + ids
    edges = 2 * (world.events * slopes["log"]["click_share"] + world.triples)
    tables = world.nodes * DIMENSIONS * FLOAT
    kept, spent = {}, {}
    for name in ("ingest", "split", "features"):
        kept[name] = world.events * slopes[name]["bytes_per_event"]
        spent[name] = world.events * slopes[name]["processor_seconds_per_event"]
    learn, graph, index, features = (slopes[name] for name in ("train", "graph", "index", "features"))
    a_step = edges * learn["processor_seconds_per_edge"] + world.nodes * learn["processor_seconds_per_node"]
    held = {
        "features": ids + features["bytes_whatever_the_log"],
        "graph": world.triples * graph["memory_per_triple"],
        "train": tables * (COPIES + LAYERS) + edges * EDGE_BYTES,
        "index": 2 * world.items * index["bytes_per_item"],
    }
    return [
        Cost("ingest", kept["ingest"], spent["ingest"], streamed, "streams; the ids that were seen"),
        Cost("split", kept["split"], spent["split"], streamed, "streams; the vocabularies"),
        Cost("features", kept["features"], spent["features"], held["features"], "streams; the ids"),
        Cost("graph", world.triples * graph["bytes_per_triple"],
             world.triples * graph["processor_seconds_per_triple"], held["graph"], "all triples"),
        Cost("train", tables, EPOCHS * STEPS * a_step, held["train"],
             f"vectors, gradients, moments, {LAYERS} layers and all edges; {EPOCHS} epochs of {STEPS} steps"),
        Cost("index", world.items * index["bytes_per_item"], world.items * index["processor_seconds_per_item"],
             held["index"], "codes and full vectors, twice while it is built"),
    ]  # fmt: skip


def page(world: World, slopes: Mapping[str, Any]) -> str:
    """Return docs/scale.md."""
    costs = plan(world, slopes)
    widest, longest = (max(costs, key=key) for key in (lambda cost: cost.memory, lambda cost: cost.seconds))
    everything = sum(cost.seconds for cost in costs)
    head = f"""# Scale: a paper plan

Written by `python benchmarks/plan.py > docs/scale.md` from the slopes at the end of the page, which were
measured on small logs. Nobody has run this size: the plan says where the limits are and what they would cost.

**The size.** {world.events:.0e} exposures, {world.users:.0e} users, {world.items:.0e} items,
{world.triples:.0e} triples.

**A machine** has {MACHINE_CORES} cores and {MACHINE_GB} GB, of which four fifths are used.
A core costs ${CORE_HOUR} an hour, a GB of memory ${GB_HOUR} an hour, a GB kept ${GB_MONTH} a month:
assumed prices. Every core is taken to do what one did here; the network between machines costs nothing here.

| stage | kept, GB | processor hours | memory, GB | machines | hours | dollars | held in memory |
|---|---|---|---|---|---|---|---|
"""
    rows = [
        f"| {one.stage} | {one.stays / 1e9:,.1f} | {one.seconds / 3600:,.1f} | {one.memory / 1e9:,.0f} | "
        f"{one.machines} | {one.hours:,.2f} | {one.dollars:,.2f} | {one.why} |"
        for one in costs
    ]
    rows.append(
        f"| **all** | {sum(one.stays for one in costs) / 1e9:,.1f} | {everything / 3600:,.1f} | "
        f"{widest.memory / 1e9:,.0f} | {widest.machines} | {sum(one.hours for one in costs):,.2f} | "
        f"{sum(one.dollars for one in costs):,.2f} | |"
    )
    tail = f"""
**What breaks first.** The memory of `{widest.stage}`: {widest.memory / 1e9:,.0f} GB, {widest.machines} machines.
The most work is `{longest.stage}`, {100 * longest.seconds / everything:.0f} % of the processor hours.

**What it asks for.** `train` is planned with exact propagation, where every step goes over all edges; at this size it
shares its tables out and samples neighbours (`training.tables = "torchrec"`, `model.propagation = "sampled"`), which
nobody has run beyond two processes. `graph` holds its triples and would have to stream them: that is not built.
`ingest`, `split` and `features` run as they are; with one file a day, days can be parsed on several machines
(`resources.task_runner`).

## What it rests on

| figure | value | where |
|---|---|---|
"""
    told = [
        f"| {name}: {inner.replace('_', ' ')} | {number:g} | {value['from']} |"
        for name, value in slopes.items()
        for inner, number in value.items()
        if inner != "from"
    ]
    return head + "\n".join(rows) + "\n" + tail + "\n".join(told) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("events", 1e9), ("users", 1e8), ("items", 1e7), ("triples", 1e9)):
        parser.add_argument(f"--{name}", type=float, default=default)
    world = World(**vars(parser.parse_args()))
    print(page(world, json.loads(SLOPES.read_text())), end="")


if __name__ == "__main__":
    main()
