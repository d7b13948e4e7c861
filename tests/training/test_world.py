"""Several processes train what one would: parts put together again, checkpoints of any number, a death survived."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kgrec.errors import InputError
from kgrec.model.conversion import CONVERSIONS, ConversionName
from kgrec.model.layers import ByteDropout
from kgrec.training.distributed.launch import LAUNCHERS, Launch, LauncherName, WorkersLostError, launcher_of
from kgrec.training.link_task import LinkLoss
from kgrec.training.step import _OfTheWhole
from kgrec.training.tasks import TaskConfig, make_network, make_tasks
from kgrec.training.world import ALONE, World
from tests.training.resume_script import CONFIG, run
from tests.training.together_script import ADAGRAD, BALANCERS, DIES_AFTER, HALF, SAMPLED, SHARDINGS, SHORT
from tests.training.worlds_of_tensors import SMALL, exposures, tastes

SCRIPT = "tests.training.together_script"
TOLERANCE = 1e-5
"""Relative, of a loss in any epoch: sums are the same numbers added in another order. Measured: 1e-7."""


def assert_same_losses(
    found: Sequence[Mapping[str, float]], expected: Sequence[Mapping[str, float]], kinds: tuple[str, ...] = ("loss",)
) -> None:
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert set(mine) == set(theirs)
        for name in [name for name in theirs if name.split("/")[0] in kinds]:
            assert math.isclose(mine[name], theirs[name], rel_tol=TOLERANCE), name


@given(st.integers(0, 500), st.integers(1, 9))
def test_shares_are_near_equal_and_hold_every_row_once(count: int, size: int) -> None:
    shares = [World(rank, size).share(count) for rank in range(size)]
    assert [row for share in shares for row in range(count)[share]] == list(range(count))
    lengths = [share.stop - share.start for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_alone_nothing_is_sent() -> None:
    values = torch.ones(3)
    assert ALONE.sum(values) is values
    assert ALONE.from_leader({"a": 1.0}) == {"a": 1.0}
    ALONE.wait()
    assert World.joined() == ALONE


@pytest.mark.parametrize("bounds", [(0, 5), (5, 13), (13, 13)])
def test_dropout_of_a_part_is_the_part_of_the_dropout(bounds: tuple[int, int]) -> None:
    layer, inputs_BW = ByteDropout(0.4), torch.ones(13, 7)
    torch.manual_seed(5)
    whole_BW, after = layer(inputs_BW), torch.get_rng_state()
    torch.manual_seed(5)
    layer.part_of = (bounds[0], 13)
    if bounds[0] < bounds[1]:
        assert torch.equal(layer(inputs_BW[slice(*bounds)]), whole_BW[slice(*bounds)])
        assert torch.equal(torch.get_rng_state(), after), "a part must leave the generator where the whole does"


def every_kind_of_task() -> dict[str, TaskConfig]:
    cases: dict[str, TaskConfig] = {
        f"retrieval {name}": TaskConfig(full_softmax_items=size, sampled_items=16, softmax_precision="float32")
        for name, size in (("full", 1000), ("sampled", 0))
    }
    cases |= {f"towers {name.value}": TaskConfig(conversion=name) for name in CONVERSIONS}
    losses = (LinkLoss.ONE_VS_ALL, LinkLoss.SAMPLED, LinkLoss.SELF_ADVERSARIAL)
    cases |= {f"link {loss.value}": TaskConfig(link_loss=loss, sampled_entities=8, n3=0.1, smoothness=0.1,
                                               relation_weight=0.1) for loss in losses}  # fmt: skip
    return cases


@pytest.mark.parametrize("case", sorted(every_kind_of_task()))
def test_the_parts_of_a_batch_weighed_by_their_masses_are_the_whole(case: str) -> None:
    config = every_kind_of_task()[case]
    shape, data, _ = tastes()
    table, *_ = exposures(300, impressions=True)
    positives = data.positives
    assert positives is not None
    positives = replace(
        positives, weight_P=torch.rand(len(positives.user_P), generator=torch.Generator().manual_seed(2))
    )
    shape = shape.model_copy(update={
        "heads": table.heads, "num_numeric": 2, "cardinalities": (3,),
        "tower_parts": CONVERSIONS[config.conversion].parts,
    })  # fmt: skip
    data = replace(data, exposures=table, positives=positives)
    network = make_network(shape, SMALL, data, seed=3).eval()
    task = next(task for task in make_tasks(shape, data, config) if task.name == case.split(maxsplit=1)[0])
    batch = next(iter(task.batches(torch.Generator().manual_seed(1), 2)))
    encoded = network.encode()

    def gradients(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        network.zero_grad()
        torch.stack(list(losses.values())).sum().backward(retain_graph=True)
        return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}

    whole, mass = task.losses(network, encoded, batch), task.mass(batch)
    parts = [task.part(batch, World(rank, 3).share(len(batch[0]))) for rank in range(3)]
    scaled: dict[str, Tensor] = {}
    for part in parts:
        for name, loss in task.losses(network, encoded, part).items():
            share = _OfTheWhole.apply(
                loss, task.mass(part)[name] / mass[name], loss * task.mass(part)[name] / mass[name]
            )
            scaled[name] = scaled[name] + share if name in scaled else share
    for name, loss in whole.items():
        assert math.isclose(scaled[name].item(), loss.item(), rel_tol=1e-5), name
    expected, found = gradients(whole), gradients(scaled)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_conversion_of_clicked_rows_weighs_by_clicks() -> None:
    assert ConversionName.CLICKED_ONLY in CONVERSIONS  # else the case above is not covered any more


@pytest.fixture(scope="module", params=[
    pytest.param(name, marks=[pytest.mark.distributed] * (name is LauncherName.RAY)) for name in sorted(LAUNCHERS)
])  # fmt: skip
def launcher(request: pytest.FixtureRequest) -> LauncherName:
    """Every launcher that is installed."""
    name: LauncherName = request.param
    try:
        launcher_of(name)
    except InputError as missing:
        pytest.skip(f"cannot be tested here: {missing}")
    if name is LauncherName.RAY:
        request.getfixturevalue("ray_cluster")
    return name


def two_processes(launcher: LauncherName, parts: Sequence[str], folder: Path) -> Path:
    """Let two processes do parts of the script, and return where they left what came of it."""
    job = folder / "job.json"
    job.write_text(json.dumps(parts))
    launcher_of(launcher)(Launch(launcher=launcher, processes=2, restarts=1), SCRIPT, job)
    return folder


@pytest.fixture(scope="module")
def folder(launcher: LauncherName, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left, of which the leader died once."""
    parts = ["survived", *(["shared_out"] if launcher is LauncherName.RAY and find_spec("torchrec") else [])]
    return two_processes(launcher, parts, tmp_path_factory.mktemp("survived"))


@pytest.fixture(scope="module")
def shared_out(
    launcher: LauncherName, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What two processes left that hold a part of the tables each; by Ray in the same start, for its own costs most."""
    pytest.importorskip("torchrec", reason="pip install --no-deps -r requirements/torchrec-cpu.txt")
    if launcher is LauncherName.RAY:
        found: Path = request.getfixturevalue("folder")
        return found
    return two_processes(launcher, ["shared_out"], tmp_path_factory.mktemp("shared_out"))


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, float]]]:
    """The losses of what does not depend on the launcher."""
    return told(two_processes(LauncherName.TORCHRUN, ["every_kind"], tmp_path_factory.mktemp("every_kind")))


def told(folder: Path) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = json.loads((folder / "histories.json").read_text())
    return found


def test_two_processes_of_which_one_dies_learn_as_one(folder: Path) -> None:
    assert (folder / "died").exists(), "nobody died, so nothing was survived"
    assert CONFIG.epochs > DIES_AFTER
    assert_same_losses(told(folder)["fixed"], run(None)[1].history, ("loss", "validation"))


@pytest.mark.parametrize("name", BALANCERS)
def test_every_kind_of_balancer_weighs_alike(name: str, every_kind: dict[str, list[dict[str, float]]]) -> None:
    config = SHORT.model_copy(update={"balancing": name})
    assert_same_losses(every_kind[name], run(None, config)[1].history, ("loss", "weight"))


def test_sampled_neighbours_are_the_same_in_every_process(every_kind: dict[str, list[dict[str, float]]]) -> None:
    assert_same_losses(every_kind["sampled"], run(None, SHORT, lambda _: None, model=SAMPLED)[1].history)


@pytest.mark.distributed
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_shared_out_tables_learn_as_local_ones_and_go_on_as_such(sharding: str, shared_out: Path) -> None:
    local = run(None, ADAGRAD, lambda _: None, model=SAMPLED)[1].history
    assert_same_losses(told(shared_out)[sharding], local, ("loss", "validation"))
    goes_on = run(shared_out / f"{sharding}.half.safetensors", ADAGRAD, lambda _: None, model=SAMPLED)[1].history
    assert len(goes_on) == CONFIG.epochs > HALF
    assert_same_losses(goes_on, local, ("loss", "validation"))


def test_a_checkpoint_of_two_goes_on_in_one(folder: Path) -> None:
    _, result = run(folder / "half.safetensors")
    assert len(result.history) == CONFIG.epochs > HALF
    assert_same_losses(result.history, run(None)[1].history, ("loss", "validation"))


def test_processes_that_keep_dying_are_given_up(tmp_path: Path) -> None:
    launch = Launch(launcher="torchrun", processes=1, restarts=0)  # type: ignore[arg-type]
    with pytest.raises(WorkersLostError, match="died 1 times"):
        launcher_of(launch.launcher)(launch, "tests.training.no_such_module", tmp_path / "job.json")


def test_several_processes_need_a_launcher() -> None:
    with pytest.raises(InputError, match="torchrun"):
        Launch(processes=2)
