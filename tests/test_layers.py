"""A module imports only what stands above it: a room is a folder, and each says here which rooms it may know."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "exlab_watch_agent"
NAME = PACKAGE.name

WORDS = {"", "statechart", "errors"}
PURE = WORDS | {"core", "ports"}
LOCAL = PURE | {"adapters/clock", "adapters/local"}
FAR_SIDE = {"adapters/transports/far_side", "adapters/transports/shared"}
TRANSPORT = LOCAL | FAR_SIDE | {"adapters/children"}
ADAPTERS = LOCAL | {
    "adapters/apartness",
    "adapters/state",
    "adapters/watching",
    "adapters/children",
    "adapters/transports/shared",
    "adapters/transports/destination",
    "adapters/transports/mounted",
    "adapters/transports/rclone",
    "adapters/transports/rsync",
}
MAY_KNOW: dict[str, set[str]] = {
    "": set(),
    "statechart": set(),
    "errors": set(),
    "core": WORDS,
    "ports": WORDS | {"core"},
    "acts": PURE,
    "engine": PURE | {"acts"},
    "config": WORDS | {"core"},
    "report": PURE,
    "diagram": WORDS | {"core"},
    # What touches the machine. The rooms of adapters do not know each other, but for the disk and the clock, which all
    # need, and the programs that transports start.
    "adapters/clock": PURE,
    "adapters/local": PURE | {"adapters/clock"},
    "adapters/apartness": PURE | {"adapters/local"},
    "adapters/state": LOCAL,
    "adapters/watching": LOCAL,
    "adapters/children": LOCAL,
    "adapters/transports/shared": LOCAL,
    "adapters/transports/far_side": PURE | {"adapters/transports/shared"},
    "adapters/transports/destination": LOCAL | FAR_SIDE,  # it knows none of the ways
    "adapters/transports/mounted": LOCAL | FAR_SIDE,  # it needs no program
    "adapters/transports/rclone": TRANSPORT,
    "adapters/transports/rsync": TRANSPORT,
    "app": ADAPTERS | {"acts", "engine", "config", "report"},
    "cli": WORDS | {"core", "report", "diagram", "app"},
    "__main__": {"cli"},
}
PURE_FORBIDDEN = {"os", "pathlib", "time", "threading", "subprocess", "socket", "io", "shutil", "tempfile", "random"}
# The package's own face loads the client when it is asked for; every other module only takes the version from it.
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(module: str) -> str:
    """Return the room of a module's dotted name: its folder, one deeper below adapters and transports."""
    parts = module.split(".")[1:]
    if parts[:1] != ["adapters"]:
        return parts[0] if parts else ""
    return "/".join(parts[: 3 if parts[1] == "transports" else 2])


def imports_of(path: Path) -> list[str]:
    """Return the dotted names of the modules that are imported anywhere in this one."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path}: relative imports hide the room"
            is_package = (PACKAGE.parent / node.module.replace(".", "/")).is_dir()
            found += [f"{node.module}.{alias.name}" for alias in node.names] if is_package else [node.module]
    return found


def name_of(path: Path) -> str:
    parts = (NAME, *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(part for part in parts if part != "__init__")


@pytest.mark.parametrize("path", [p for p in MODULES if p.stat().st_size], ids=name_of)
def test_a_module_imports_only_from_its_own_room_and_those_that_it_may_know(path: Path) -> None:
    mine = room_of(name_of(path))
    known = {
        name: "" if name == f"{NAME}.__version__" else room_of(name)
        for name in imports_of(path)
        if name.split(".")[0] == NAME
    }
    strangers = [name for name, room in known.items() if room != mine and room not in MAY_KNOW[mine]]
    assert not strangers, f"{name_of(path)} (in {mine}) imports {strangers}"


def test_every_room_exists_and_none_knows_another_that_knows_it() -> None:
    assert set(MAY_KNOW) == {room_of(name_of(path)) for path in MODULES if path.stat().st_size} | {""}
    for room, known in MAY_KNOW.items():
        assert not [other for other in known if room in MAY_KNOW[other]], room


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=name_of)
def test_the_core_imports_nothing_that_reaches_the_machine(path: Path) -> None:
    reaching = {name.split(".")[0] for name in imports_of(path)} & PURE_FORBIDDEN
    # discovery.py takes paths apart with PurePath, which never asks the disk.
    allowed = {"pathlib"} if path.name == "discovery.py" else set()
    assert reaching <= allowed


def test_only_the_machine_imports_transitions() -> None:
    importers = {name_of(path) for path in MODULES if "transitions" in {n.split(".")[0] for n in imports_of(path)}}
    assert importers == {f"{NAME}.core.machine"}
