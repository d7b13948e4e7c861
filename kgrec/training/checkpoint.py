"""The state of a training as one object and one file, so that a killed run goes on as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from kgrec.artifacts import canonical_json, write_atomically
from kgrec.training.stopping import Stopping

_log = logging.getLogger(__name__)
_FORMAT: Final = 1
_GROUPS: Final = ("parameters", "optimiser", "best", "balancer")


@dataclass
class TrainingState:
    """All that training remembers between two epochs; randomness needs no place, it follows from seed and epoch.

    epoch: epochs done. history: one dict an epoch. best: the network's tensors at the best epoch, empty before the
    first evaluation. optimiser: its tensors under "parameter index.name".
    """

    stopping: Stopping
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    parameters: dict[str, Tensor] = field(default_factory=dict)
    optimiser: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    balancer: dict[str, Tensor] = field(default_factory=dict)


def save_checkpoint(path: Path, state: TrainingState, owner: str) -> None:
    """Write the state to one safetensors file, whole or not at all. `owner`: whose it is."""
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group in _GROUPS
        for name, tensor in sorted(getattr(state, group).items())
    }
    stopping = state.stopping
    facts = {
        "format": _FORMAT, "owner": owner, "epoch": state.epoch, "history": state.history,
        "patience": stopping.patience, "best_epoch": stopping.best_epoch, "rounds": stopping.rounds_without_gain,
        "best_objective": stopping.best_objective,
    }  # fmt: skip
    text = json.dumps(facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(tensors, metadata={"facts": text, "digest": _digest(tensors, text)}))


def load_checkpoint(path: Path, owner: str, patience: int) -> TrainingState | None:
    """Return the stored state, or None, with a warning in the log, where there is none that may be used.

    A file of another owner (other data, config, seed or code), of another format, or with a single changed byte is not
    used: training then starts anew, which costs time and never gives wrong results.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as stream:
            metadata: dict[str, str] = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no mapping
        facts: dict[str, Any] = json.loads(metadata["facts"])
        intact = metadata["digest"] == _digest(tensors, metadata["facts"])
    except (SafetensorError, OSError, KeyError, ValueError, UnicodeDecodeError) as fault:
        _log.warning("checkpoint %s cannot be read (%s); training starts anew", path, fault)
        return None
    if not intact:
        _log.warning("checkpoint %s is damaged; training starts anew", path)
        return None
    if facts["format"] != _FORMAT or facts["owner"] != owner:
        _log.warning("checkpoint %s belongs to another training; training starts anew", path)
        return None
    stopping = Stopping(facts["patience"], facts["best_epoch"], facts["best_objective"], facts["rounds"])
    groups: dict[str, dict[str, Tensor]] = {group: {} for group in _GROUPS}
    for name, tensor in tensors.items():
        group, key = name.split("/", 1)
        groups[group][key] = tensor
    return TrainingState(replace(stopping, patience=patience), facts["epoch"], facts["history"], **groups)


def _digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
