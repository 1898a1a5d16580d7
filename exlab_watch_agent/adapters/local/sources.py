"""The files of one run as a push or a hash reads them: reached step by step, and the very files that were listed.

Decided here: when a local file counts as gone, or as one that cannot be read now. Not here: how a folder is entered
(handles.py), by what a file is known again (identity.py), and what is done with the bytes.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Self, TypeVar

from exlab_watch_agent.adapters.local.handles import READ_FLAGS, Folder, run_folder
from exlab_watch_agent.adapters.local.identity import require_unchanged
from exlab_watch_agent.adapters.local.reach import Reach
from exlab_watch_agent.adapters.local.tree import is_inside
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.text import reason_with_name
from exlab_watch_agent.errors import RunUnreadableError, SourceChangedError

T = TypeVar("T")

# A link (ELOOP), a socket (ENXIO), something else than a folder on the way (ENOTDIR), or another disk there (EXDEV).
_NOT_A_FILE_ANY_MORE = frozenset({errno.ELOOP, errno.ENXIO, errno.ENOTDIR, errno.EXDEV})


def unreadable(root: str, path: str, error: OSError) -> RunUnreadableError:
    """Return the error for a local file that is there and cannot be read now: a wait, whatever the reason."""
    return RunUnreadableError(f"Cannot read {path!r} in {root}: {reason_with_name(error)}.")


class Sources:
    """The files of the run at `root`, which is opened by the first question. For many threads.

    Each question raises FileNotFoundError (what that means is the caller's to say), SourceChangedError, and RunUnreadableError,
    also when the run folder went away or another one has its name: that is not a run whose files were deleted.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._reach: Reach | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._reach is not None:
            self._reach.close()

    def open_as_listed(self, entry: FileEntry) -> int:
        """Return a descriptor of a file that is what its entry says."""
        descriptor = self.open_now(entry.path)
        try:
            require_unchanged(entry, os.fstat(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def open_now(self, path: str) -> int:
        """Return a descriptor of a file as it is now, whether or not it is still a regular one."""
        return self._asked(path, lambda folder, name: folder.open(name, READ_FLAGS))

    def status_now(self, path: str) -> os.stat_result:
        """Return the status of whatever has this name now, a link itself included."""
        return self._asked(path, Folder.lstat)

    def _asked(self, path: str, ask: Callable[[Folder, str], T]) -> T:
        if not is_inside(path):
            raise RunUnreadableError(f"{path!r} does not name a file inside the run {self._root}.")
        above, _, name = path.rpartition("/")
        reach = self._opened()
        try:
            try:
                with reach.folder(above) as folder:
                    return ask(folder, name)
            except FileNotFoundError:
                self._require_there(reach)
                reach.forget()  # a folder that was removed and made again is the old one as long as it is open
                with reach.folder(above) as folder:
                    return ask(folder, name)
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in _NOT_A_FILE_ANY_MORE:
                raise SourceChangedError(f"{path!r} is no longer a regular file.") from error
            raise unreadable(self._root, path, error) from error

    def _opened(self) -> Reach:
        with self._lock:
            if self._reach is None:
                self._reach = Reach(self._run_folder())
            return self._reach

    def _run_folder(self) -> Folder:
        try:
            return run_folder(self._root)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RunUnreadableError(f"The run folder {self._root} is no longer there.") from error
        except OSError as error:
            raise unreadable(self._root, ".", error) from error

    def _require_there(self, reach: Reach) -> None:
        with self._run_folder() as now:
            if not os.path.samestat(now.status(), reach.top.status()):
                raise RunUnreadableError(f"The run folder {self._root} is no longer there.")
