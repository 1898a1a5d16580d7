"""Many folders of one tree, by handle: which ones stay open between two questions.

Not here: how a folder is entered (handles.py).
"""

from __future__ import annotations

import threading

from exlab_watch_agent.adapters.local.handles import Folder

_KEPT_OPEN = 16


class Reach:
    """The folders below one, each entered step by step; those that were asked for last stay open. For many threads.

    Owns `top`. A folder that was removed and made again meanwhile is the old one until `forget`.
    """

    def __init__(self, top: Folder, *, kept_open: int = _KEPT_OPEN) -> None:
        self.top = top
        self._kept_open = kept_open
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}  # the one asked for last comes last

    def folder(self, relative: str) -> _Use:
        """Return what yields the folder at this POSIX path. Entering it raises OSError."""
        return _Use(self, relative)

    def take(self, relative: str) -> _Kept:
        with self._lock:
            kept = self._kept.pop(relative, None)
            if kept is None:
                kept = self._entered(relative)
            else:
                self._kept[relative] = kept
            kept.users += 1
            return kept

    def _entered(self, relative: str) -> _Kept:
        above, missing = relative, []
        while above and above not in self._kept:
            above, _, name = above.rpartition("/")
            missing.append(name)
        kept = self._kept[above] if above else _Kept(self.top)
        path = above
        while missing:
            name = missing.pop()
            kept = _Kept(kept.folder.step(name))
            path = f"{path}/{name}" if path else name
            self._kept[path] = kept
            if len(self._kept) > self._kept_open:
                self._drop(next(iter(self._kept)))
        return kept

    def _drop(self, path: str) -> None:
        kept = self._kept.pop(path)
        kept.is_dropped = True
        if not kept.users:
            kept.folder.close()

    def give_back(self, kept: _Kept) -> None:
        with self._lock:
            kept.users -= 1
            if kept.is_dropped and not kept.users:
                kept.folder.close()

    def forget(self) -> None:
        """Enter every folder anew from now on."""
        with self._lock:
            for path in list(self._kept):
                self._drop(path)

    def close(self) -> None:
        self.forget()
        self.top.close()


class _Kept:
    """A folder that is open, and how many work in it: one that is dropped is closed by the last of them."""

    __slots__ = ("folder", "is_dropped", "users")

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.users = 0
        self.is_dropped = False


class _Use:
    __slots__ = ("_kept", "_reach", "_relative")

    def __init__(self, reach: Reach, relative: str) -> None:
        self._reach = reach
        self._relative = relative

    def __enter__(self) -> Folder:
        if not self._relative:
            return self._reach.top
        self._kept = self._reach.take(self._relative)
        return self._kept.folder

    def __exit__(self, *_: object) -> None:
        if self._relative:
            self._reach.give_back(self._kept)
