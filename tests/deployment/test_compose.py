"""compose.yaml, the image and the way of secrets: what the files promise by themselves."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import kgrec
from tests.deployment.composing import ROOT, instruction, read_compose

PASSWORD = "p4ss w0rd'$x"
OWN = ("mlflow", "prefect", "schedule", "worker", "service")


def test_every_service_is_pinned_unprivileged_and_watched() -> None:
    services = read_compose()["services"]
    assert {*OWN, "postgres", "backup"} == set(services)
    for name, service in services.items():
        assert re.search(r":\d+\.\d+", service["image"]), f"{name}: an image without a version"
        assert service["user"] not in ("", "root", "0"), name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        ends = name in ("schedule", "backup")
        assert ("healthcheck" in service) != ends, f"{name}: what stays up is watched, what ends is not"
        assert ("restart" in service) == (name != "backup")
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: open to other machines by default"
        for dependency, wanted in service.get("depends_on", {}).items():
            once = wanted["condition"] == "service_completed_successfully"
            assert once == ("healthcheck" not in services[dependency]), f"{name} waits for {dependency} in vain"


def test_nothing_is_named_that_is_not_there() -> None:
    compose = read_compose()
    for name, service in compose["services"].items():
        assert set(service.get("secrets", [])) <= set(compose["secrets"]), name
        assert set(service.get("networks", [])) <= set(compose["networks"]), name
        for volume in service.get("volumes", []):
            source, target, *_ = volume.split(":")
            assert Path(target).is_absolute()
            if source.startswith("./deploy/") and "secrets" not in source:
                assert (ROOT / source).exists(), f"{name}: {source}"
            elif not source.startswith("."):
                assert source in compose["volumes"], name
        for variable, value in service.get("environment", {}).items():
            if variable.endswith("_FILE"):
                assert str(value).removeprefix("/run/secrets/") in service["secrets"], f"{name}: {variable}"
            assert not re.search(r"PASSWORD$|AUTH_STRING$", variable), f"{name}: a secret in the file"


def test_the_image_is_made_from_what_is_there_and_pinned_by_the_constraints() -> None:
    wanted = {word for line in instruction("COPY") for word in line.split()[:-1] if not word.startswith("--")}
    wanted -= {"/opt/kgrec"}
    ignored = (ROOT / ".dockerignore").read_text().split()
    for name in wanted:
        assert (ROOT / name).exists(), f"COPY {name}"
        assert f"!{name}" in ignored, f"{name} does not go to the builder"
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-\w+( AS build)?", line) for line in instruction("FROM"))
    assert [line for line in instruction("RUN") if "--constraint constraints.txt" in line]
    assert instruction("USER") == [read_compose()["services"]["service"]["user"]]
    assert json.loads(instruction("ENTRYPOINT")[0]) == ["with-secrets"]


def test_the_version_of_the_image_is_the_package_s() -> None:
    assert read_compose()["services"]["service"]["image"] == f"kgrec:{kgrec.__version__}"


class TestSecrets:
    def run(self, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        shown = "import os; print(os.environ.get('PGPASSWORD'), os.environ.get('PGPASSWORD_FILE'))"
        command = [str(ROOT / "deploy" / "with-secrets"), sys.executable, "-c", shown]
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, cwd=tmp_path)

    def test_a_file_s_content_becomes_the_variable(self, tmp_path: Path) -> None:
        (tmp_path / "word").write_text(PASSWORD + "\n")
        assert self.run(tmp_path, PGPASSWORD_FILE=str(tmp_path / "word")).stdout == f"{PASSWORD} None\n"
        assert self.run(tmp_path, PGPASSWORD="plain").stdout == "plain None\n"
        assert self.run(tmp_path).stdout == "None None\n"

    def test_what_cannot_be_read_or_is_given_twice_is_refused(self, tmp_path: Path) -> None:
        gone = self.run(tmp_path, PGPASSWORD_FILE=str(tmp_path / "gone"))
        assert gone.returncode == 2
        assert "PGPASSWORD_FILE names" in gone.stderr
        (tmp_path / "empty").touch()
        assert self.run(tmp_path, PGPASSWORD_FILE=str(tmp_path / "empty")).returncode == 2
        (tmp_path / "word").write_text(PASSWORD)
        twice = self.run(tmp_path, PGPASSWORD_FILE=str(tmp_path / "word"), PGPASSWORD="other")
        assert twice.returncode == 2
        assert "both set" in twice.stderr
        assert PASSWORD not in twice.stderr

    def test_the_programs_can_be_run(self) -> None:
        for name in ("with-secrets", "backup"):
            assert (ROOT / "deploy" / name).stat().st_mode & stat.S_IXUSR, name
