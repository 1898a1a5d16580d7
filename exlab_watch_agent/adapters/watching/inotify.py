"""A watchdog observer for Linux that watches only the levels down to each run's cache folder, never the data below.

watchdog's own recursive watch registers every folder: at 10,000 of them its registering floods its own queue, a folder
that is moved out stays registered under its old name, and folders that could not be watched are skipped silently.
Here an emitter reads an inotify descriptor of its own: one root's storm overflows no other root's queue, and closing the
descriptor ends everything. An emitter sleeps in the kernel while nothing happens. Source: inotify(7), and
docs/facts.md, inotify and watchdog.

The kernel is asked only for names that come and go and for files closed after writing: with more, reading alone would
flood the queue.
"""

from __future__ import annotations

import errno
import os
import select
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

from watchdog.events import DirModifiedEvent, FileModifiedEvent
from watchdog.observers.api import BaseObserver, EventEmitter

from exlab_watch_agent.adapters.watching.kernel import (
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_IGNORED,
    IN_ISDIR,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_Q_OVERFLOW,
    IN_UNMOUNT,
    MASK,
    ROOT_MASK,
    Kernel,
)
from exlab_watch_agent.adapters.watching.levels import CACHE_LEVEL, CANARY, RUN_LEVEL, Parts, is_watched, subject_of
from exlab_watch_agent.adapters.watching.pace import Pace
from exlab_watch_agent.core.discovery import RUN_PARENT_FOLDERS
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE

_HEADER = struct.Struct("iIII")
_READ_BYTES = 1 << 16
_WENT_AWAY = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

LET_GO_AT_ONCE = 256
FINISHED_SHARE = 2
"""Finished runs are watched while no more than one part in this many of the limit is in use."""


class _Folder:
    """A folder that is watched, or whose children are. Its path follows from those above, so that a move is one step."""

    __slots__ = ("above", "children", "name", "number")

    def __init__(self, name: str, above: _Folder | None) -> None:
        self.name = name
        self.above = above
        self.children: dict[str, _Folder] | None = None
        self.number: int | None = None

    def everything(self) -> Iterator[_Folder]:
        yield self
        for child in list((self.children or {}).values()):
            yield from child.everything()


class Levels:
    """The watches of one root, kept true by the events that they bring. Used by one thread at a time.

    `is_finished` says of a run folder that little will happen there: where watches are scarce it does without.
    """

    def __init__(
        self,
        kernel: Kernel,
        root: str,
        *,
        is_recursive: bool,
        is_finished: Callable[[str], bool],
        watches_max: int | None,
    ) -> None:
        self._kernel = kernel
        self._path = root
        self._is_recursive = is_recursive
        self._is_finished = is_finished
        self._watches_max = watches_max
        self._root = _Folder("", None)
        self._by_number: dict[int, _Folder] = {}
        self._departed: list[_Folder] = []
        self.missing = 0
        """Folders that should be watched and are not, because the kernel refused."""
        self.refusal = ""
        self.let_go = 0
        """Finished runs that are not watched because watches are scarce."""
        self.is_over = False
        """The root went away, or was moved: nothing that is reported from here on can be placed."""
        self.has_overflowed = False

    @property
    def watches(self) -> int:
        return len(self._by_number)

    # --- setting watches ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Watch what is there: the levels above the runs first, then the newest unfinished runs. Raises: OSError."""
        self._watch(self._root, (), ROOT_MASK)
        runs: list[tuple[bool, str, _Folder, Parts]] = []
        if not self._is_recursive:
            return
        for name in self._names(()):
            project = self._add(self._root, (name,))
            if project is None or name == CACHE_FOLDER:
                continue
            for parent_name in RUN_PARENT_FOLDERS:
                parent = self._add(project, (name, parent_name))
                for leaf in self._names((name, parent_name)) if parent is not None else ():
                    parts: Parts = (name, parent_name, leaf)
                    assert parent is not None, "the loop is empty without it"
                    runs.append((not self._is_finished(self._at(parts)), leaf.partition("_")[2], parent, parts))
        for is_unfinished, _, parent, parts in sorted(runs, key=lambda run: run[:2], reverse=True):
            if not is_unfinished and self._is_scarce():
                self.let_go += 1
            else:
                self._add_below(parent, parts)

    def _is_scarce(self) -> bool:
        return self._watches_max is not None and FINISHED_SHARE * Kernel.total >= self._watches_max

    def _at(self, parts: Parts) -> str:
        return os.path.join(self._path, *parts)

    def _names(self, parts: Parts) -> list[str]:
        """Return the names of the folders that are to be watched in this one."""
        try:
            with os.scandir(self._at(parts)) as entries:
                return [e.name for e in entries if is_watched((*parts, e.name)) and e.is_dir(follow_symlinks=False)]
        except OSError as error:
            self._note(error)
            return []

    def _note(self, error: OSError) -> None:
        if error.errno not in _WENT_AWAY:  # else its parent's watch reports whatever comes in its place
            self.missing += 1
            self.refusal = error.strerror or str(error)

    def _add(self, above: _Folder, parts: Parts) -> _Folder | None:
        """Watch one folder; return None where it is not there or the kernel refuses."""
        folder = _Folder(parts[-1], above)
        try:
            self._watch(folder, parts, MASK)
        except OSError as error:
            self._note(error)
            return None
        if above.children is None:
            above.children = {}
        above.children[folder.name] = folder
        return folder

    def _watch(self, folder: _Folder, parts: Parts, mask: int) -> None:
        try:
            number = self._kernel.add(self._at(parts), mask)
        except OSError as error:
            if error.errno != errno.ENOSPC or not self._let_finished_go():
                raise
            number = self._kernel.add(self._at(parts), mask)
        before = self._by_number.get(number)
        if before is None:
            Kernel.count(1)
        else:
            before.number = None  # The same folder under an older name.
        self._by_number[number] = folder
        folder.number = number

    def _add_below(self, above: _Folder, parts: Parts) -> list[Parts]:
        """Watch a folder and what is to be watched in it; return what a newcomer there is about."""
        folder = self._add(above, parts)
        if folder is None:
            return [parts]
        found = [parts]
        if len(parts) == RUN_LEVEL:
            # Asked for by name: a run folder may hold a hundred thousand files.
            if self._add(folder, (*parts, CACHE_FOLDER)) is not None:
                found.append((*parts, CACHE_FOLDER, CREATION_FILE))
        elif len(parts) == CACHE_LEVEL:
            found = [(*parts, CREATION_FILE)]
        elif parts == (CACHE_FOLDER,):
            found = [CANARY]  # It may have been placed at once.
        else:
            for name in self._names(parts):
                found += self._add_below(folder, (*parts, name))
        return found

    def _let_finished_go(self) -> bool:
        """Give up the watches of some finished runs, the oldest first; return whether there were any."""
        finished: list[tuple[str, _Folder]] = []
        for folder in self._by_number.values():
            parts = self._parts(folder)
            if parts is not None and len(parts) == RUN_LEVEL and self._is_finished(self._at(parts)):
                finished.append((parts[-1].partition("_")[2], folder))
        for _, folder in sorted(finished, key=lambda run: run[0])[:LET_GO_AT_ONCE]:
            self._drop(folder)
            self.let_go += 1
        return bool(finished)

    def _drop(self, folder: _Folder) -> None:
        """Forget a folder and all below it, and take their watches away."""
        if folder.above is not None and folder.above.children is not None:
            folder.above.children.pop(folder.name, None)
        for one in folder.everything():
            if one.number is not None and self._by_number.pop(one.number, None) is not None:
                self._kernel.remove(one.number)
                Kernel.count(-1)
            one.number = None

    def end(self) -> None:
        Kernel.count(-len(self._by_number))
        self._by_number.clear()

    # --- events ------------------------------------------------------------------------------------------------------

    @property
    def has_departed(self) -> bool:
        return bool(self._departed)

    def drop_departed(self) -> None:
        """Take the watches away from what was moved out. Called when all events were read: a name to which it was moved
        inside the root would have been among them."""
        for folder in self._departed:
            self._drop(folder)
        self._departed.clear()

    def take(self, data: bytes) -> list[Parts]:
        """Bring the watches in line with these events; return what they are about, each once, in order."""
        subjects: dict[Parts, None] = {}
        position = 0
        while position + _HEADER.size <= len(data):
            number, mask, _, length = _HEADER.unpack_from(data, position)
            position += _HEADER.size + length
            name = os.fsdecode(data[position - length : position].rstrip(b"\0"))
            for subject in self._take_one(number, mask, name):
                subjects[subject] = None
        return list(subjects)

    def _take_one(self, number: int, mask: int, name: str) -> list[Parts]:
        if mask & IN_Q_OVERFLOW:
            self.has_overflowed = True
            return []
        folder = self._by_number.get(number)
        if folder is None:
            return []
        if mask & IN_IGNORED:
            del self._by_number[number]
            Kernel.count(-1)
            folder.number = None
        if folder is self._root and mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED):
            self.is_over = True
        above = self._parts(folder)
        if above is None or not name:
            return []
        parts = (*above, name)
        is_folder = bool(mask & IN_ISDIR)
        if is_folder and self._is_recursive and mask & (IN_MOVED_FROM | IN_DELETE):
            self._leave(folder, name, has_moved=bool(mask & IN_MOVED_FROM))
        elif is_folder and self._is_recursive and mask & (IN_CREATE | IN_MOVED_TO) and is_watched(parts):
            # It may have been filled before it was watched, so what it holds is reported with it.
            came = self._add_below(folder, parts)
            return [one for one in map(self._subject, came) if one is not None]
        subject = parts if not self._is_recursive else subject_of(parts, is_folder=is_folder)
        return [] if subject is None else [subject]

    @staticmethod
    def _subject(parts: Parts) -> Parts | None:
        return subject_of(parts, is_folder=len(parts) <= CACHE_LEVEL)

    def _leave(self, folder: _Folder, name: str, *, has_moved: bool) -> None:
        gone = folder.children.pop(name, None) if folder.children is not None else None
        if gone is not None:
            gone.above = None
            # Of what was deleted the kernel takes the watches away itself.
            if has_moved:
                self._departed.append(gone)

    def _parts(self, folder: _Folder) -> Parts | None:
        """Return where a folder is, None where it has left the root."""
        names: list[str] = []
        while folder.above is not None:
            names.append(folder.name)
            folder = folder.above
        return tuple(reversed(names)) if folder is self._root else None


class LevelEmitter(EventEmitter):
    """Reads one root's descriptor and says what changed, as watchdog's "modified" of a folder or of `creation.json`."""

    def __init__(
        self,
        *arguments: Any,
        is_finished: Callable[[str], bool],
        watches_max: int | None,
        pace: Pace,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._pace = pace
        self._is_finished = is_finished
        self._watches_max = watches_max
        self._root = str(self.watch.path)
        self._kernel: Kernel | None = None
        self._wake: tuple[int, int] | None = None
        self._wake_lock = threading.Lock()
        self._poll = select.poll()
        self._wake_poll = select.poll()
        self.levels: Levels | None = None

    def on_thread_start(self) -> None:
        """Called before the thread runs, by the caller of `schedule`. Raises: OSError; then nothing is left open."""
        self._kernel = Kernel()
        try:
            self.levels = Levels(
                self._kernel,
                self._root,
                is_recursive=self.watch.is_recursive,
                is_finished=self._is_finished,
                watches_max=self._watches_max,
            )
            self.levels.begin()
            self._wake = os.pipe()
        except BaseException:
            self._close()
            raise
        self._poll.register(self._kernel.descriptor, select.POLLIN)
        self._poll.register(self._wake[0], select.POLLIN)
        self._wake_poll.register(self._wake[0], select.POLLIN)

    def on_thread_stop(self) -> None:
        with self._wake_lock:  # else the number might be another file's by now
            if self._wake is not None:
                os.write(self._wake[1], b"!")

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._close()

    def queue_events(self, timeout: float) -> None:  # noqa: ARG002  # watchdog's; this one is woken
        assert self._kernel is not None, "on_thread_start comes first"
        assert self.levels is not None, "on_thread_start comes first"
        if not self._poll.poll(1000 * self._pace.drained_s if self.levels.has_departed else None):
            self.levels.drop_departed()
            return
        try:
            data = os.read(self._kernel.descriptor, _READ_BYTES)
        except BlockingIOError:
            return  # It was the pipe.
        for subject in self.levels.take(data):
            kind = DirModifiedEvent if len(subject) <= RUN_LEVEL else FileModifiedEvent
            self.queue_event(kind(os.path.join(self._root, *subject)))
        self._wake_poll.poll(1000 * self._pace.rest_s)

    def _close(self) -> None:
        kernel, self._kernel = self._kernel, None
        if self.levels is not None:
            self.levels.end()
        if kernel is not None:
            os.close(kernel.descriptor)
        with self._wake_lock:
            for descriptor in self._wake or ():
                os.close(descriptor)
            self._wake = None


class LevelObserver(BaseObserver):
    """watchdog's observer over `LevelEmitter`s."""

    watches_levels = True

    def __init__(self, *, is_finished: Callable[[str], bool], watches_max: int | None, pace: Pace) -> None:
        super().__init__(
            LevelEmitter, timeout=pace.quiet_s, is_finished=is_finished, watches_max=watches_max, pace=pace
        )
