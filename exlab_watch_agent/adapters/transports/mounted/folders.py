"""The folders and files below a mounted root, reached through real folders only.

Decided here: that no name leads out of the root, by a link or otherwise, and that the root is not the run's own folder. Not
here: what is at the destination (transport.py), and how bytes get there (copy.py).
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count

from exlab_watch_agent.adapters.local.digests import drop_cached, fetch_anew
from exlab_watch_agent.adapters.local.durable import READ_FLAGS, is_link
from exlab_watch_agent.adapters.local.tree import read_at_most
from exlab_watch_agent.errors import FailureKind, TransportError

# Nothing, a link (ELOOP), a socket (ENXIO), or something else than a folder on the way (ENOTDIR).
_NO_FILE = frozenset({errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENOTDIR})

_FILES_AHEAD = 8


class Folders:
    """The folders below one root, each looked at once: no link is walked through, neither to read nor to write.

    `touched` are those whose names changed, and which must therefore be made durable. For one operation, one thread.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._real: set[str] = {""}
        self.touched: set[str] = set()

    def path(self, relative: str) -> str:
        return f"{self._root}/{relative}" if relative else self._root

    def is_there(self, relative: str) -> bool:
        """Say whether it is a real folder, reached through real folders only. Raises: OSError."""
        if relative in self._real:
            return True
        if not self.is_there(relative.rpartition("/")[0]):
            return False
        try:
            status = os.lstat(self.path(relative))
        except (FileNotFoundError, NotADirectoryError):
            return False
        if is_link(status) or not stat.S_ISDIR(status.st_mode):
            return False
        self._real.add(relative)
        return True

    def make(self, relative: str) -> None:
        """Make the folder and those above it, never the root. Raises: TransportError if something else is there."""
        if relative in self._real:
            return
        parent = relative.rpartition("/")[0]
        self.make(parent)
        try:
            os.mkdir(self.path(relative))
            self.touch(parent)
        except FileExistsError:
            if not self.is_there(relative):
                text = f"{self.path(relative)!r} is a link or a file where a folder must be: move it away, then retry."
                raise TransportError(FailureKind.UNKNOWN, text) from None
        self._real.add(relative)

    def touch(self, relative: str) -> None:
        """Note that names in this folder changed."""
        self.touched.add(relative)

    def touch_up_to_root(self, relative: str) -> None:
        """Note that this folder and all above it may have been made by a push that was stopped before they were durable."""
        while relative:
            self.touched.add(relative)
            relative = relative.rpartition("/")[0]
        self.touched.add("")

    # --- what is in them ---------------------------------------------------------------------------------------------

    def names(self, relative: str) -> list[str]:
        """Return all names in a folder, none where it is absent. Raises: OSError."""
        return os.listdir(self.path(relative)) if self.is_there(relative) else []

    def has(self, relative: str) -> bool:
        """Say whether anything at all has this name, a link itself included."""
        return self.is_there(relative.rpartition("/")[0]) and os.path.lexists(self.path(relative))

    def below(self, relative: str) -> Iterator[str]:
        """Yield every folder below, relative to it. Asks for no file's attributes, which a network share would charge for."""
        pending = [""]
        while pending:
            prefix = pending.pop()
            with os.scandir(f"{self.path(relative)}/{prefix}") as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        yield prefix + entry.name
                        pending.append(f"{prefix}{entry.name}/")

    def new_numbered(self, parent: str) -> str:
        """Return the first numbered folder below `parent` that was not there, made now and by us alone."""
        self.make(parent)
        for number in count(1):
            with suppress(FileExistsError):
                os.mkdir(self.path(f"{parent}/{number}"))
                return f"{parent}/{number}"
        raise AssertionError("unreachable")

    def descriptor(self, path: str) -> int | None:
        """Return a descriptor of one regular file, to be closed by the caller; None where there is none (a link is none).

        Raises: OSError.
        """
        if not self.is_there(path.rpartition("/")[0]):
            return None
        try:
            descriptor = os.open(self.path(path), READ_FLAGS)
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        return None

    @contextmanager
    def opened(self, path: str) -> Iterator[int | None]:
        """Yield the same, closed afterwards."""
        descriptor = self.descriptor(path)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def opened_ahead(self, above: str, paths: Iterable[str]) -> Generator[tuple[str, int, bool], None, None]:
        """Yield each file below `above` that is there with its descriptor, to be closed by the caller.

        And whether this PC's cache held nothing of it any more. The next ones are on their way meanwhile.
        """
        waiting: deque[tuple[str, int, bool]] = deque()
        try:
            for path in paths:
                descriptor = self.descriptor(f"{above}/{path}")
                if descriptor is None:
                    continue
                waiting.append((path, descriptor, False))
                waiting[-1] = (path, descriptor, fetch_anew(descriptor))
                if len(waiting) > _FILES_AHEAD:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for _, descriptor, _ in waiting:
                os.close(descriptor)

    def read(self, path: str, limit_bytes: int) -> bytes | None:
        """Return at most so many bytes of one regular file, as the server has them now; None where there is none."""
        with self.opened(path) as descriptor:
            if descriptor is None:
                return None
            drop_cached(descriptor)
            return read_at_most(descriptor, limit_bytes)


def require_apart(root: str, source_root: str) -> None:
    """Refuse a root that leads back to the run by a link or a bind mount: both "copies" would be the same bytes.

    apartness.py shows the same by probe files, and also of what a server exports twice; but a root is asked only once a
    day. Here nothing is written, and it is asked at the moment of each copy. So both stay.
    """
    here, there = os.path.realpath(source_root), os.path.realpath(root)
    parents = [here]
    while os.path.dirname(parents[-1]) != parents[-1]:
        parents.append(os.path.dirname(parents[-1]))
    if there == here or there.startswith(here + os.sep) or any(_is_same_folder(there, p) for p in parents[:4]):
        text = f"The destination {root} leads to the run's own folder {source_root}: give another transport path."
        raise TransportError(FailureKind.AUTH, text)


def _is_same_folder(one: str, other: str) -> bool:
    """Say whether both paths lead to one folder. One that is gone counts as different: opening it then says which side is lost."""
    try:
        return os.path.samefile(one, other)
    except FileNotFoundError:
        return False
