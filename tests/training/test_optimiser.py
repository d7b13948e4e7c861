from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kgrec.training.optimiser import take_step

SCRIPT = """
import sys
import torch
from kgrec.model.network import Network
from kgrec.training.optimiser import load_optimiser, make_optimiser, optimiser_tensors, take_step
from kgrec.training.reproducible import reproducible
from kgrec.training.trainer import TrainingConfig
from tests.training.worlds_of_tensors import SMALL, tastes

shape, data, _ = tastes()
with reproducible(1):
    for kind in ("adamw", "adagrad"):
        network = Network(shape, SMALL, data.edges, seed=0)
        optimiser = make_optimiser(network, TrainingConfig(optimiser=kind))
        optimiser.zero_grad()
        sum(parameter.sum() for parameter in network.parameters()).backward()
        take_step(optimiser)
        load_optimiser(optimiser, optimiser_tensors(optimiser))
print("torch._dynamo" in sys.modules)
"""


def test_an_optimiser_is_made_stepped_and_stored_without_the_compiler():
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True, check=True, env=env)
    assert done.stdout.strip() == "False", "seconds of every run go into loading a compiler that is not used"


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adagrad])
def test_a_step_is_that_of_the_optimiser_bit_for_bit(kind):
    moved = []
    for step in (take_step, kind.step):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 7))
        optimiser = kind([weight], lr=0.1, fused=True, weight_decay=0.01)
        for _ in range(3):
            optimiser.zero_grad()
            weight.exp().sum().backward()
            step(optimiser)
        moved.append(weight.tolist())
    assert moved[0] == moved[1] != torch.linspace(-1, 1, 7).tolist()
