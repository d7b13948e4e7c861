from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import kgrec

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("kgrec", "feature_store", "pipelines")
SETUPTOOLS_NEEDED = Version(PROJECT["build-system"]["requires"][0].removeprefix("setuptools>="))


def requirements():
    """Return every requirement of the project, extras included, without the project's own name."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    lines = [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)]
    return [found for found in map(Requirement, lines) if found.name != "kgrec"]


def installed(name):
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def pins():
    lines = (line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    return dict(line.split("==") for line in lines if line)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names in a wheel that was built here, from a copy, without network."""
    if Version(metadata.version("setuptools")) < SETUPTOOLS_NEEDED:
        pytest.skip(f"building a wheel without network needs setuptools {SETUPTOOLS_NEEDED} in the environment")
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in (*PACKAGES, "mlflow"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copyfile(ROOT / name, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "--quiet"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(out), str(copy)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    assert path.name == f"kgrec-{kgrec.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_every_module_and_what_lies_beside_them(wheel):
    wanted = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix in (".py", ".jinja", ".html", ".typed")
    }
    assert "kgrec/py.typed" in wanted
    assert "kgrec/evaluation/report.html.jinja" in wanted
    assert "kgrec/serving/page.html" in wanted
    assert sorted(wanted - set(wheel)) == []


def test_the_wheel_never_brings_a_package_called_mlflow_nor_tests(wheel):
    tops = {name.partition("/")[0] for name in wheel}
    assert {name for name in tops if not name.startswith("kgrec-")} == set(PACKAGES)


def test_the_code_model_is_installed_under_share(wheel):
    (name,) = [name for name in wheel if name.endswith("share/kgrec/retriever.py")]
    assert ".data/data/" in name
    assert wheel[name] == (ROOT / "mlflow" / "retriever.py").read_bytes()


def test_the_wheel_brings_the_command(wheel):
    (name,) = [name for name in wheel if name.endswith("entry_points.txt")]
    assert "kgrec = pipelines.cli:main" in wheel[name].decode()


def test_the_list_of_packages_is_complete():
    found = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found
    assert not (ROOT / "mlflow" / "__init__.py").exists()


def test_the_installed_command_answers_with_the_version_of_the_package():
    command = Path(sys.executable).with_name("kgrec")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"kgrec {kgrec.__version__}"


def test_every_dependency_is_pinned_to_a_version_it_allows():
    pinned = {canonicalize_name(name): version for name, version in pins().items()}
    needed = requirements()
    assert len(needed) > 20
    missing = [str(one) for one in needed if canonicalize_name(one.name) not in pinned]
    assert missing == []
    outside = [
        f"{one} but {pinned[canonicalize_name(one.name)]}"
        for one in needed
        if pinned[canonicalize_name(one.name)] not in one.specifier
    ]
    assert outside == []


def test_what_the_dependencies_need_is_pinned_too():
    pinned = {canonicalize_name(name) for name in pins()}
    missing = set()
    developers = {
        found.name for line in PROJECT["project"]["optional-dependencies"]["dev"] for found in [Requirement(line)]
    }
    for one in requirements():
        if one.name not in developers and not installed(one.name):
            continue  # of an extra that developers need not have: what it needs is known where it is installed
        for line in metadata.requires(one.name) or []:
            inner = Requirement(line)
            here = any(inner.marker is None or inner.marker.evaluate({"extra": extra}) for extra in ("", *one.extras))
            if here and canonicalize_name(inner.name) not in pinned:
                missing.add(f"{one.name} -> {inner.name}")
    assert {name for name in missing if not name.endswith((" pip", " setuptools"))} == set()


def test_torch_is_held_where_pip_takes_the_small_build_and_fastapi_where_flows_run():
    by_name = {one.name: one.specifier for one in requirements()}
    assert "2.14.0" not in by_name["torch"]
    assert "0.151.0" not in by_name["fastapi"]


def rules():
    """Return target -> (what it needs, its lines) of the Makefile."""
    text = (ROOT / "Makefile").read_text()
    found = re.findall(r"^([^\s:#=.][^:=]*):(?!=)([^\n]*)\n((?:\t[^\n]*\n)*)", text, flags=re.MULTILINE)
    return {target.strip(): (needs.split(), lines) for target, needs, lines in found}


def test_the_makefile_has_the_commands_of_the_contract():
    found = rules()
    stamp, stamp_dev = "$(VENV)/installed", "$(VENV)/installed-dev"
    assert found["install"][0] == found["run"][0] == [stamp]
    assert found["test"][0] == [stamp_dev]
    assert "kgrec run configs/ml-100k.toml" in found["run"][1]
    assert "pytest" in found["test"][1]
    assert all("constraints.txt" in found[name][1] for name in (stamp, stamp_dev))
    assert {"pyproject.toml", "constraints.txt"} <= set(found[stamp][0])


@pytest.mark.parametrize("target", ["install", "run", "test"])
def test_make_would_make_the_environment_first(tmp_path, target):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=tmp_path, capture_output=True, text=True, check=True, env=outside
    )
    lines = done.stdout.splitlines()
    assert "-m venv .venv" in lines[0]
    assert "pip install" in lines[1]
    assert len(lines) >= (3 if target == "install" else 4)
