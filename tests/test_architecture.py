"""Rules 1-4 of the house: layers, owners of vendors, the model's purity, no circles; and what must not exist."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("kgrec", "feature_store", "pipelines")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
CODE_MODEL = ROOT / "mlflow" / "retriever.py"
LAYERS = {"kgrec": {"kgrec"}, "feature_store": {"kgrec", "feature_store"}, "pipelines": set(PACKAGES)}
OWNERS = {
    "prefect": ("pipelines/",),
    "prefect_dask": ("pipelines/",),
    "prefect_ray": ("pipelines/",),
    "dask": (),
    "distributed": (),
    "mlflow": ("kgrec/tracking/", "mlflow/retriever.py"),
    "faiss": ("kgrec/serving/faiss_index.py",),
    "ir_measures": (),
    "optuna": ("kgrec/training/search.py",),
    "torchrec": ("kgrec/training/distributed/",),
    "ray": ("kgrec/training/distributed/",),
}
PURE_MODEL_MAY_IMPORT = {
    "__future__", "collections", "dataclasses", "enum", "functools", "math", "typing", "warnings", "itertools",
    "types", "torch", "pydantic", "kgrec", "kgrec.model", "kgrec.seeds", "kgrec.errors",
}  # fmt: skip
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"}
MAY_IMPORT_LATE = "pipelines/"


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[tuple[str, ast.stmt, bool]]:
    """Yield (module, statement, at the top of the file) of every import that runs."""
    tree = ast.parse(path.read_text())
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node, id(node) not in late
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node, id(node) not in late


def modules_meant(path: Path) -> set[str]:
    """Return the project's modules that a file imports, `from package import module` resolved."""
    known = {module_of(file) for file in FILES}
    found = set()
    for name, node, _ in imports_of(path):
        if isinstance(node, ast.ImportFrom):
            deeper = {f"{name}.{alias.name}" for alias in node.names} & known
            found |= deeper or {name}
        else:
            found.add(name)
    return found & known


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 40
    assert CODE_MODEL.exists()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_rule_1_layers(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0]
    used = {name.split(".")[0] for name, _, _ in imports_of(path)} & set(PACKAGES)
    assert used <= LAYERS[own], f"{name_of(path)} imports {used - LAYERS[own]}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_rule_1_no_relative_and_no_late_import(path: Path) -> None:
    for name, node, at_top in imports_of(path):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{name_of(path)}:{node.lineno} relative import"
        if not name_of(path).startswith(MAY_IMPORT_LATE):
            assert at_top, f"{name_of(path)}:{node.lineno} imports {name} inside a function"


@pytest.mark.parametrize("path", [*FILES, CODE_MODEL], ids=name_of)
def test_rule_2_one_owner_per_vendor(path: Path) -> None:
    for name, node, _ in imports_of(path):
        owners = OWNERS.get(name.split(".")[0])
        allowed = owners is None or any(name_of(path).startswith(owner) for owner in owners)
        assert allowed, f"{name_of(path)}:{node.lineno} imports {name}, which belongs to {owners}"


@pytest.mark.parametrize("path", sorted((ROOT / "kgrec" / "model").rglob("*.py")), ids=name_of)
def test_rule_3_the_model_knows_tensors_only(path: Path) -> None:
    for name, node, _ in imports_of(path):
        root = ".".join(name.split(".")[:2]) if name.startswith("kgrec") else name.split(".")[0]
        assert root in PURE_MODEL_MAY_IMPORT, f"{name_of(path)}:{node.lineno} imports {name}"
    assert "open(" not in path.read_text()


def test_rule_4_no_import_circle() -> None:
    edges = {module_of(path): modules_meant(path) - {module_of(path)} for path in FILES}
    state: dict[str, int] = {}

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert state.get(module) != 1, " -> ".join((*trail[trail.index(module) :], module))
        if module in state:
            return
        state[module] = 1
        for other in sorted(edges[module]):
            visit(other, (*trail, module))
        state[module] = 2

    for module in sorted(edges):
        visit(module, ())


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_rule_4_files_are_small_and_say_what_they_hide(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300, f"{name_of(path)} passes 300 lines"
    assert not FORBIDDEN_NAMES & set(path.relative_to(ROOT).with_suffix("").parts)


def test_rule_15_the_library_never_prints() -> None:
    for path in FILES:
        if path.is_relative_to(ROOT / "pipelines"):
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], name_of(path)


def test_no_package_shadows_mlflow() -> None:
    assert not (ROOT / "mlflow" / "__init__.py").exists()
    text = (ROOT / "pyproject.toml").read_text()
    listed = text.split("packages = [", 1)[1].split("]", 1)[0]
    assert "mlflow" not in listed


def test_no_pickle_in_the_library() -> None:
    for path in FILES:
        used = {name.split(".")[0] for name, _, _ in imports_of(path)}
        assert not used & {"pickle", "cloudpickle", "joblib", "dill"}, name_of(path)
