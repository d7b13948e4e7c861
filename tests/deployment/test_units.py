"""The systemd units: what systemd itself says of them, what they may do, and that they run what compose.yaml runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment.composing import ROOT, read_compose
from tests.deployment.units import FOLDER, Unit, units

PAIRS = {"kgrec-mlflow": "mlflow", "kgrec-prefect": "prefect", "kgrec-schedule": "schedule",
         "kgrec-worker": "worker", "kgrec-serve": "service", "kgrec-backup": "backup"}  # fmt: skip
ALL = sorted(units().values(), key=lambda unit: unit.name)
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def words_of(command: list[str]) -> list[str]:
    """Return what a command does, without where it lies, listens or keeps its files."""
    bare = [Path(word).name if word.startswith("/") else word for word in command]
    alike = [re.sub(r"@[\w.]+:", "@:", re.sub(r"^(--[\w-]+=)/.*$", r"\1", word)) for word in bare]
    left_out = (
        "with-secrets",
        "--host=",
        "--allowed-hosts=",
        "--with-healthcheck",
        "--cron=",
        "--timezone=",
        "--port=",
    )
    return [word for word in alike if not word.startswith(left_out) and not word.endswith(".toml")]


def test_there_is_a_unit_for_every_service_but_postgresql() -> None:
    assert set(units()) == set(PAIRS)
    assert {*PAIRS.values(), "postgres"} == set(read_compose()["services"])


@pytest.mark.parametrize("name", PAIRS)
def test_a_unit_runs_what_the_service_runs(name: str) -> None:
    assert words_of(units()[name].command()) == words_of(read_compose()["services"][PAIRS[name]]["command"])


@pytest.mark.parametrize("name", PAIRS)
def test_a_unit_knows_every_variable_that_the_service_knows(name: str) -> None:
    wanted = set(read_compose()["services"][PAIRS[name]].get("environment", {}))
    published = {"PREFECT_SERVER_UI_API_URL", "PREFECT_WORKER_WEBSERVER_HOST", "PREFECT_WORKER_WEBSERVER_PORT"}
    assert wanted - published - set(units()[name].environment()) == set()


@pytest.mark.parametrize("unit", ALL, ids=lambda unit: unit.name)
def test_a_unit_is_no_root_and_names_only_secrets_that_it_loads(unit: Unit) -> None:
    assert unit.values("User") == ["kgrec"]
    loaded = {value.partition(":")[0] for value in unit.values("LoadCredential")}
    used = {found for value in unit.environment().values() for found in re.findall(r"^/run/secrets/(\w+)$", value)}
    assert loaded == used
    once = unit.values("Type") == ["oneshot"]
    assert unit.values("Restart") == ([] if unit.name == "kgrec-backup.service" else ["on-failure"])
    assert once or int(unit.values("TimeoutStopSec")[0]) > 10, "time to end in order"


def test_only_what_retrains_writes_to_the_workspace() -> None:
    writers = {name for name, unit in units().items() if not unit.values("ReadOnlyPaths")}
    writers = {name for name in writers if "/var/lib/kgrec" in units()[name].values("WorkingDirectory")}
    assert writers == {"kgrec-schedule", "kgrec-worker"}
    assert units()["kgrec-serve"].values("ReadOnlyPaths") == ["/var/lib/kgrec"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units in a folder of their own, their programs at the places of this machine."""
    folder = tmp_path_factory.mktemp("units")
    for path in FOLDER.iterdir():
        if path.suffix in (".service", ".timer", ".target"):
            text = path.read_text().replace("/opt/kgrec/bin", str(ROOT / "deploy"))
            (folder / path.name).write_text(text.replace("/opt/kgrec/venv/bin", str(Path(sys.executable).parent)))
    return folder


@needs_systemd
def test_systemd_finds_no_fault_in_them(installed: Path) -> None:
    paths = sorted(str(path) for path in installed.iterdir())
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True, check=False
    )
    about_ours = [line for line in found.stderr.splitlines() if "kgrec" in line]
    assert about_ours == []
    broken = installed.parent / "kgrec-broken.service"
    broken.write_text((installed / "kgrec-serve.service").read_text().replace("UMask=0027", "UMaskk=0027"))
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(broken)], capture_output=True, text=True, check=False
    )
    assert "UMaskk" in told.stderr, "a fault would be found"


@needs_systemd
@pytest.mark.parametrize("name", PAIRS)
def test_systemd_rates_their_exposure_as_ok(installed: Path, name: str) -> None:
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=30",
         str(installed / f"{name}.service")], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert rated.returncode == 0, rated.stdout[-300:] + rated.stderr


def test_the_example_of_the_environment_file_is_whole() -> None:
    used = {name for unit in ALL for value in unit.values("ExecStart") for name in re.findall(r"\$\{(\w+)\}", value)}
    lines = [line for line in (FOLDER / "kgrec.env").read_text().splitlines() if line and line[0] != "#"]
    given = {line.partition("=")[0] for line in lines}
    assert used <= given
    assert not [name for name in given if re.search("PASSWORD|AUTH|TOKEN", name)], "secrets have files of their own"
