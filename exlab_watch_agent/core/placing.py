"""How a copy that waits in a folder of its own gets its final names: in as few moves as there can be."""

from __future__ import annotations

from collections.abc import Iterable


def plan_moves(paths: Iterable[str], folders: Iterable[str]) -> dict[str, list[str]]:
    """Return parent folder → names in it to be moved there, files or whole folders.

    `paths`: POSIX paths of files, below both folders alike. `folders`: what stands already where they go, without the
    top itself. A folder that does not stand there is moved with all that is in it.
    """
    standing = {"", *folders}
    moves: dict[str, dict[str, None]] = {}
    for path in paths:
        parent = ""
        for name in path.split("/"):
            below = f"{parent}/{name}" if parent else name
            if below not in standing:
                moves.setdefault(parent, {})[name] = None
                break
            parent = below
    return {parent: list(names) for parent, names in moves.items()}


def folders_of(paths: Iterable[str]) -> set[str]:
    """Return every folder on the way to these files, without the top."""
    found: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found
