"""Whether a mounted destination really is, or lies among, local runs, once links and bind mounts are followed.

config/overlaps.py compares the names in the config file; what they lead to only the disk says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from exlab_watch_agent.core.policy import MountedPathTarget, Policy


def linked_overlaps(policy: Policy) -> tuple[str, ...]:
    """Return one sentence for each mounted destination that, links and bind mounts followed, lies among local runs.

    The file's names alone do not show this. Reads the disk, and a dead network mount may not answer for minutes: call
    it from a worker thread.
    """
    sentences = []
    run_roots = {item.equipment_id: os.path.join(item.local_root, item.equipment_id) for item in policy.equipment}
    for item in policy.equipment:
        if not isinstance(item.target, MountedPathTarget):
            continue
        destination = os.path.realpath(item.target.path)
        for owner, run_root in run_roots.items():
            root = os.path.realpath(run_root)
            if _is_at_or_below(destination, root) or _is_at_or_below(root, destination):
                sentences.append(
                    f"The destination of {item.equipment_id} is really the local folder of {owner}'s runs or overlaps it "
                    f"({destination}, {root}): nothing there would be a copy; give it a folder of its own."
                )
    return tuple(sentences)


def _is_at_or_below(path: str, folder: str) -> bool:
    """Return whether the path is the folder or lies in it: by name, and by the identity of what is on the disk."""
    candidates = (path, *_folders_above(path))
    if os.path.normcase(folder) in map(os.path.normcase, candidates):
        return True
    try:
        identity = os.stat(folder)
    except OSError:
        return False
    for candidate in candidates:
        try:
            if os.path.samestat(os.stat(candidate), identity):
                return True
        except OSError:
            continue
    return False


def _folders_above(path: str) -> Iterator[str]:
    while (parent := os.path.dirname(path)) != path:
        yield parent
        path = parent
