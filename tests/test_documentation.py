"""What the pages for people say is what the code does: commands, options, keys, links; and no machine's paths."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
import subprocess
import tomllib
from functools import cache
from itertools import pairwise
from pathlib import Path

import click
import pytest

import kgrec
from kgrec.config import RunConfig, load_config
from kgrec.serving.recommend import Version
from kgrec.stages import STAGES
from pipelines.cli import main

ROOT = Path(__file__).parents[1]
GENERATOR = ROOT / "docs" / "make_configuration.py"
README = (ROOT / "README.md").read_text(encoding="utf-8")
LEFT_ALONE = {".git", ".venv", "workspace", "build", "dist", "__pycache__", "node_modules"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Written so that this file does not match itself. Not part of a longer path, a URL or a file name.
HOME_OF_A_MACHINE = re.compile(r"(?<![\w./:*-])(?:/(?:home|Users)/[a-z]\w*|/ro[o]t/\.?\w|/wor[k]/\w|[A-Z]:\\Users\\)")
PLACEHOLDERS = {"COMMAND", "..."}


@cache
def files() -> tuple[Path, ...]:
    """Return the repository's files: what git knows or would add; without git, everything but the usual leftovers."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split("\0")
        found = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        found = [path for path in ROOT.rglob("*") if not LEFT_ALONE & set(path.relative_to(ROOT).parts)]
    return tuple(sorted(path for path in found if path.is_file()))


def pages() -> list[Path]:
    return [path for path in files() if path.suffix == ".md"]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: str, language: str) -> list[str]:
    return [text for found, text in FENCE.findall(page) if found == language]


def invocations(page: str) -> list[str]:
    """Return every `kgrec ...` of a page: lines of shell blocks, and inline code."""
    lines = [line.split("#")[0].strip() for text in blocks(page, "bash") for line in text.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", FENCE.sub("", page))
    found = [re.sub(r"^\S*bin/kgrec", "kgrec", text) for text in (*lines, *inline)]
    return [text for text in found if text.startswith("kgrec ")]


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """Follow the words of an invocation to its command; AssertionError names the word that is no command."""
    command: click.Command = main
    while isinstance(command, click.Group) and words:
        if words[0].startswith("-"):
            known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
            assert words[0] in known, f"no option {words[0]}"
        elif words[0] in PLACEHOLDERS:
            return command, []
        elif words[0] not in command.commands and hasattr(command, "fallback"):
            return command.commands[command.fallback], words
        else:
            assert words[0] in command.commands, f"no command {words[0]!r}"
            command = command.commands[words[0]]
        words = words[1:]
    return command, words


def check_invocation(text: str) -> str:
    """Check command, options and their values' presence; return the command's name."""
    command, words = command_of(shlex.split(text)[1:])
    options = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
    for word in words:
        assert not word.startswith("-") or word in options, f"{text}: no option {word}"
    for key, _, _ in (word.partition("=") for before, word in pairwise(words) if before == "--set"):
        assert key == "KEY" or key.split(".")[0] in RunConfig.model_fields, f"{text}: no key {key}"
    return str(command.name)


def test_the_page_of_configuration_is_what_the_config_types_say() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == runpy.run_path(str(GENERATOR))["render"](), "run: python docs/make_configuration.py"


def test_the_page_of_configuration_names_every_top_level_key_and_default() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for name in RunConfig.model_fields:
        assert f"| `{name}` |" in page
    assert "| `tolerated` | number, >= 0.0, <= 1.0 | `0.0` |" in page
    assert '| `kind` | `"time"` or `"column"` or `"user_time"` or `"random"` | `"time"` |' in page


@pytest.mark.parametrize("text", sorted(set(invocations(README))))
def test_every_command_in_the_readme_exists(text: str) -> None:
    check_invocation(text)


@pytest.mark.parametrize(
    "wrong",
    ["kgrec launch x.toml", "kgrec run x.toml --fast", "kgrec data put", "kgrec run x.toml --set trainin.epochs=3"],
)
def test_a_command_that_does_not_exist_would_be_found(wrong: str) -> None:
    with pytest.raises(AssertionError):
        check_invocation(wrong)


def test_the_readme_names_every_command() -> None:
    told = {check_invocation(text) for text in invocations(README)}
    leaves = {name for name, command in main.commands.items() if not isinstance(command, click.Group)}
    assert leaves <= told, f"missing in the README: {sorted(leaves - told)}"


def test_the_readme_finds_commands_at_all() -> None:
    assert len(set(invocations(README))) > 15
    for stage in STAGES:
        assert stage in README


@pytest.mark.parametrize("text", blocks(README, "toml"))
def test_every_config_in_the_readme_is_valid(text: str, tmp_path: Path) -> None:
    path = tmp_path / "example.toml"
    path.write_text(text, encoding="utf-8")
    load_config(path)
    assert tomllib.loads(text)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=name_of)
def test_every_config_of_the_repository_is_valid(path: Path) -> None:
    load_config(path)


@pytest.mark.parametrize("text", blocks(README, "python"))
def test_every_python_name_in_the_readme_exists(text: str) -> None:
    attributes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)]
    assert attributes
    for node in attributes:
        if isinstance(node.value, ast.Name) and node.value.id == "kgrec":
            assert node.attr in kgrec.__all__
        if isinstance(node.value, ast.Name) and node.value.id == "version":
            assert hasattr(Version, node.attr), node.attr


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#{1,6} (.+)$", FENCE.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_every_relative_link_resolves(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        aim = (path.parent / place).resolve() if place else path
        assert aim.exists(), f"{name_of(path)}: {target} leads nowhere"
        assert aim.is_relative_to(ROOT), f"{name_of(path)}: {target} leaves the repository"
        if anchor and aim.suffix == ".md":
            assert anchor in anchors(aim.read_text(encoding="utf-8")), f"{name_of(path)}: no heading for {target}"


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = (folder / "README.md").read_text(encoding="utf-8")
    for page in folder.glob("0*.md"):
        assert f"({page.name})" in listed
        assert f"# {page.name[:4]} " in page.read_text(encoding="utf-8")


def test_no_file_names_a_folder_of_one_machine() -> None:
    found = []
    for path in files():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # not text
        found += [f"{name_of(path)}:{at}: {line.strip()[:80]}" for at, line in enumerate(lines, 1)
                  if HOME_OF_A_MACHINE.search(line)]  # fmt: skip
    assert not found, "\n".join(found)


@pytest.mark.parametrize("parts", [("home", "ann"), ("Users", "ann"), ("root", ".cache"), ("work", "main")])
def test_a_folder_of_one_machine_would_be_found(parts: tuple[str, str]) -> None:
    path = "/" + "/".join(parts)
    assert HOME_OF_A_MACHINE.search(f'data = "{path}/x"')
    assert HOME_OF_A_MACHINE.search(f"cd {path}/x")
    assert not HOME_OF_A_MACHINE.search(f"https://example.org{path}/x")
