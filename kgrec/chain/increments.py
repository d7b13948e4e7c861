"""Whether a run goes on from the promoted version's weights, and what that changes in its config.

What an increment may start from is decided by what is stored: the promoted version, what it was trained on, and how
the last increment that was measured agreed with a full training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl
import torch
from safetensors.torch import load_file
from torch import Tensor

from kgrec import columns as c
from kgrec.artifacts import Artifact, load_artifact
from kgrec.chain.context import Run
from kgrec.chain.encoded import ENCODER
from kgrec.chain.prepare import EVENTS
from kgrec.config import RunConfig
from kgrec.data.vocabulary import Vocabulary
from kgrec.errors import ArtifactError
from kgrec.features.encoding import FeatureEncoder
from kgrec.model.embeddings import NetworkShape
from kgrec.model.network import NetworkConfig
from kgrec.seeds import derive_seed
from kgrec.serving.package import ENTITIES, ITEMS, RELATIONS, USERS
from kgrec.serving.policy import IncrementRule, read_policy
from kgrec.serving.score import NETWORK
from kgrec.serving.versions import VersionRecord, read_registry
from kgrec.training.phases import Knowledge
from kgrec.training.warm_start import Earlier

WEIGHTS: Final = "weights.safetensors"
START: Final = "start"
"""The fact of a train artifact that says where it started."""


@dataclass(frozen=True)
class Base:
    """What an increment goes on from: the promoted version's number and the artifacts that it was made of."""

    version: str
    trained: Artifact
    log: Artifact
    graph: Artifact
    features: Artifact | None
    tuned: Artifact
    again: Artifact | None = None

    @property
    def increments(self) -> int:
        """How many increments there are since the last full training, its own included."""
        return int(self.trained.facts.get(START, {}).get("increments", 0))

    def earlier(self, *, again: bool = False) -> Earlier:
        """Return its weights, and which of its rows learned. again: those of the refit, where there was one."""
        source, parts = self.trained, [c.TRAIN]
        if again and self.again is not None:
            source, parts = self.again, [c.TRAIN, c.VALIDATION]
        shape = NetworkShape(**json.loads(source.file(NETWORK).read_text())["shape"])
        triples = pl.read_parquet(self.graph.file("triples.parquet")).filter(pl.col(c.PART) == c.TRAIN)
        events = pl.read_parquet(self.log.file(EVENTS), columns=[c.USER_ROW, c.ITEM_ROW, c.PART])
        events = events.filter(pl.col(c.PART).cast(pl.String).is_in(parts))
        learned_U = _flags(shape.num_users, events[c.USER_ROW])
        learned_E = _flags(shape.num_entities, triples[c.HEAD_ROW], triples[c.TAIL_ROW], events[c.ITEM_ROW])
        return Earlier(load_file(source.file(WEIGHTS)), shape, learned_U, learned_E, categories(self.features))

    def suited(self, config: RunConfig) -> RunConfig:
        """Return the config of an increment: few gentle steps, drawn anew each night, and the towers as chosen."""
        training, increment = config.training, config.training.increment
        facts = json.loads(self.trained.file(NETWORK).read_text())
        gentle = {
            "epochs": increment.epochs, "epoch_share": increment.share,
            "evaluate_every": 1, "patience": 0, "checkpoint_every": 1,
            "learning_rate": training.learning_rate * increment.learning_rate, "knowledge": Knowledge.JOINT,
            "tower_learning_rate": training.tower_learning_rate * increment.learning_rate,
            "towers_alone": False, "relations_every": 0,
        }  # fmt: skip
        return config.model_copy(update={
            "seed": derive_seed(config.seed, "increment", self.increments + 1),
            "training": training.model_copy(update=gentle),
            "model": NetworkConfig(**facts["config"]),
        })  # fmt: skip


@dataclass(frozen=True)
class Start:
    """Where a run that may go on from the promoted version begins.

    full: what goes on to the gate is trained in full; with a base, an increment is trained beside it, to be measured.
    increments: how many there are since the last full training, this one included. why: for people.
    """

    base: Base | None
    full: bool
    increments: int
    why: str

    def facts(self) -> dict[str, Any]:
        """Return it as facts of a train artifact."""
        version = self.base.version if self.base is not None else None
        return {"full": self.full, "from_version": version, "increments": self.increments, "why": self.why}


def find_start(run: Run, settings: Mapping[str, Any], log: Artifact, graph: Artifact) -> Start | None:
    """Return where this run begins; None where its config says from scratch.

    settings: what a full training of this run depends on, beside its data.
    """
    if run.config.training.start == "scratch" or not log.has(EVENTS):
        return None
    record = _promoted(run)
    base = None if record is None else _base(run, record)
    if record is None or base is None:
        what = (
            "no version of this name is promoted" if record is None else "what the promoted version was made of is gone"
        )
        return Start(None, True, 0, what)
    if reason := _unsound(run, settings, base, log, graph):
        return Start(None, True, 0, reason)
    if _same_data(base, log, graph):
        return _as_it_was(run, base)
    due = _due(run, base, base.increments)
    return Start(
        base, due is not None, 0 if due else base.increments + 1, due or f"goes on from version {base.version}"
    )


def _flags(count: int, *rows: pl.Series) -> Tensor:
    flag_N = torch.zeros(count, dtype=torch.bool)
    for one in rows:
        flag_N[torch.tensor(one.to_numpy(), dtype=torch.int64)] = True
    return flag_N


def is_increment(trained: Artifact) -> bool:
    """Say whether a train artifact went on from another one's weights."""
    return START in trained.facts and not trained.facts[START]["full"]


def categories(features: Artifact | None) -> Sequence[tuple[str, Sequence[str]]]:
    """Return the values behind the codes of each categorical feature, by column."""
    if features is None:
        return ()
    raw = json.loads(features.file(ENCODER).read_text())
    raw.pop("context", None)
    return tuple((column.name, column.values) for column in FeatureEncoder.from_dict(raw).categorical)


def increment_rule(run: Run) -> IncrementRule:
    """Return what the policy asks of increments; the rule's defaults where no policy says so."""
    named = run.config.gate.policy
    found = None if named is None else read_policy(run.loaded.base / named).increment
    return found or IncrementRule()


def agrees(rule: IncrementRule, agreement: Mapping[str, float]) -> bool:
    """Say whether an increment is close enough to the full training beside it."""
    near = agreement["overlap@10"] >= rule.least_overlap
    return near and agreement["increment"] >= agreement["full"] * (1 - rule.largest_loss)


def _promoted(run: Run) -> VersionRecord | None:
    registry = read_registry(run.workspace)
    record = registry.find(registry.promoted) if registry.promoted else None
    return record if record is not None and record.name == run.config.name else None


def _base(run: Run, record: VersionRecord) -> Base | None:
    store = run.workspace.store
    try:
        version = load_artifact(store.path("version", record.key), "version", verify=False)
        trained = store.with_digest("train", version.inputs["train"])
        log = store.with_digest("split", version.inputs["split"])
        graph = store.with_digest("graph", version.inputs["graph"])
        features = store.with_digest("features", version.inputs["features"]) if "features" in version.inputs else None
        tuned = store.with_digest("baselines", trained.inputs["baselines"]) if trained is not None else None
        again = store.with_digest("refit", version.inputs["refit"]) if "refit" in version.inputs else None
    except (ArtifactError, KeyError):
        return None
    if trained is None or log is None or graph is None or tuned is None:
        return None
    if (features is None, again is None) != tuple(name not in version.inputs for name in ("features", "refit")):
        return None
    return Base(record.version, trained, log, graph, features, tuned, again)


def _unsound(run: Run, settings: Mapping[str, Any], base: Base, log: Artifact, graph: Artifact) -> str | None:
    """Return why an increment would not be what a full training is, None where it may."""
    training = run.config.training
    if training.knowledge is Knowledge.FROZEN or training.schedule != "together":
        return "phases of a training (knowledge frozen, tables first) are not those of an increment"
    changed = [
        name for name, value in settings.items() if json.loads(json.dumps(value)) != base.trained.config.get(name)
    ]
    if changed:
        return f"the config is another than that of version {base.version}: {', '.join(changed)}"
    for before, now, files in ((base.log, log, (USERS, ITEMS)), (base.graph, graph, (ENTITIES, RELATIONS))):
        for name in files:
            if not _grown(Vocabulary.load(before.file(name)), Vocabulary.load(now.file(name))):
                return f"rows moved in {name}"
    if leaked := _learned_and_judged(base, log):
        return f"{leaked:,} events that version {base.version} learned from are now held out"
    return None


def _grown(before: Vocabulary, now: Vocabulary) -> bool:
    return now.entries.head(len(before)).equals(before.entries)


def _learned_and_judged(base: Base, now: Artifact) -> int:
    """Return how many events are held out now that the base learned from: of its train part, of validation by refit."""
    key = [c.USER_ROW, c.ITEM_ROW, c.TIME]
    before, after = (
        pl.scan_parquet(log.file(EVENTS)).with_columns(pl.col(c.PART).cast(pl.String)) for log in (base.log, now)
    )
    pairs = [([c.TRAIN], [c.VALIDATION, c.TEST])]
    pairs += [([c.VALIDATION], [c.TEST])] if base.again is not None else []
    found = 0
    for learned, judged in pairs:
        seen = before.filter(pl.col(c.PART).is_in(learned)).select(key).unique()
        held_out = after.filter(pl.col(c.PART).is_in(judged)).join(seen, on=key, how="semi", nulls_equal=True)
        found += int(held_out.select(pl.len()).collect().item())
    return found


def _same_data(base: Base, log: Artifact, graph: Artifact) -> bool:
    return (base.log.digest, base.graph.digest) == (log.digest, graph.digest)


def _as_it_was(run: Run, base: Base) -> Start | None:
    """Return the start of the promoted version itself: the data are the same, so there is nothing to go on to."""
    told = base.trained.config.get(START)
    if told is None:
        return None
    earlier = next((one for one in read_registry(run.workspace).versions if one.version == told["from_version"]), None)
    its_base = None if earlier is None else _base(run, earlier)
    return None if its_base is None else Start(its_base, told["full"], told["increments"], told["why"])


def _due(run: Run, base: Base, done: int) -> str | None:
    """Return why a full training is due now, None where it is not."""
    agreement = base.trained.facts.get(START, {}).get("agreement")
    if agreement is not None and not agrees(increment_rule(run), agreement):
        return f"the last increment agreed too little with a full training: overlap@10 {agreement['overlap@10']:.3f}"
    if _refused_increment(run):
        return "the gate refused the last increment"
    most = run.config.training.increment.full_every
    return f"there were {done} increments since the last full training, at most {most}" if done >= most else None


def _refused_increment(run: Run) -> bool:
    named = [record for record in read_registry(run.workspace).versions if record.name == run.config.name]
    if not named or named[-1].gate_passed:
        return False
    found = _base(run, named[-1])
    return found is not None and is_increment(found.trained)
