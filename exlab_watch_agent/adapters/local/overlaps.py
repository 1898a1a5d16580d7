"""What must lie apart and does not, once links and bind mounts are followed: a destination and runs, a state folder and both.

config/overlaps.py compares the names in the config file; what they lead to only the disk says.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

from exlab_watch_agent.core.policy import MountedPathTarget, Policy

LOOK_S = 2.0
"""So long is waited for file systems to say what lies where; a share that is away may not answer for minutes."""


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


def misplaced_state_folder(state_dir: str, policy: Policy, *, look_s: float = LOOK_S) -> str | None:
    """Return in a sentence that a state folder lies among runs or in a mounted destination; None when it does not.

    By names, and by what they lead to as far as the disk says it within `look_s` seconds.
    """
    places = [
        (f"among the runs of {item.equipment_id}", os.path.join(item.local_root, item.equipment_id))
        for item in policy.equipment
    ]
    places += [
        (f"in the destination of {item.equipment_id}", item.target.path)
        for item in policy.equipment
        if isinstance(item.target, MountedPathTarget)
    ]
    given = os.path.abspath(state_dir)
    above = set(map(os.path.normcase, (given, *_folders_above(given))))
    found = [where for where, folder in places if os.path.normcase(os.path.abspath(folder)) in above]
    if not found:
        looking = threading.Thread(
            target=lambda: found.extend(
                where for where, folder in places if _is_at_or_below(os.path.realpath(given), os.path.realpath(folder))
            ),
            name="state-folder-place",
            daemon=True,
        )
        looking.start()
        looking.join(look_s)
    if not found:
        return None
    return (
        f"The state folder {state_dir} lies {found[0]}: what the agent writes there would count as data; give another "
        "--state-dir or agent.state_dir, outside the runs and their copies."
    )


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
