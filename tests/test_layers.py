"""A module imports only what stands above it: words, core, ports, acting, running, edge."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "exlab_watch_agent"
NAME = PACKAGE.name

LAYERS: dict[str, int] = {
    "": 0,
    "statechart": 0,
    "errors": 0,
    "core": 1,
    "ports": 2,
    "handlers": 3,
    "adapters": 3,
    "timers": 3,
    "lane": 4,
    "desk": 4,
    "working": 4,
    "looking": 4,
    "scanning": 4,
    "requests": 4,
    "saving": 4,
    "engine": 4,
    "config_text": 4,
    "settings": 4,
    "report": 5,
    "agent": 6,
    "client": 6,
    "cli": 7,
    "__main__": 8,
}
PURE_FORBIDDEN = {"os", "pathlib", "time", "threading", "subprocess", "socket", "io", "shutil", "tempfile", "random"}


def layer_of(module: str) -> int:
    parts = module.split(".")[1:]
    return LAYERS[parts[0] if parts else ""]


def imports_of(path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path}: relative imports hide the layer"
            found += [node.module]
    return found


# The package's own face loads the client when it is asked for; every other module only takes the version from it.
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def name_of(path: Path) -> str:
    parts = (NAME, *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(part for part in parts if part != "__init__")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_its_own_layer_and_those_above(path: Path) -> None:
    mine = layer_of(name_of(path))
    below = [name for name in imports_of(path) if name.split(".")[0] == NAME and layer_of(name) > mine]
    assert not below, f"{name_of(path)} (layer {mine}) imports {below}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=name_of)
def test_the_core_imports_nothing_that_reaches_the_machine(path: Path) -> None:
    reaching = {name.split(".")[0] for name in imports_of(path)} & PURE_FORBIDDEN
    # discovery.py takes paths apart with PurePath, which never asks the disk.
    allowed = {"pathlib"} if path.name == "discovery.py" else set()
    assert reaching <= allowed


def test_only_the_machine_imports_transitions() -> None:
    importers = {name_of(path) for path in MODULES if "transitions" in {n.split(".")[0] for n in imports_of(path)}}
    assert importers == {f"{NAME}.core.machine"}


def test_adapters_do_not_know_handlers_or_the_engine() -> None:
    for path in (PACKAGE / "adapters").rglob("*.py"):
        assert not {f"{NAME}.handlers", f"{NAME}.engine"} & set(imports_of(path)), path
