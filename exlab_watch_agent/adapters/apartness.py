"""Shows that a destination is not the instrument's own folder, by probe files that must not appear on the other side.

Decided here: what is placed where and looked for where. What must be true before anything is written at a destination: no
probe file of its root is seen at a level that the scan walks, of any equipment (and when it is bound: in any folder of
theirs), none of the equipment's folder is seen below the root under any end of that folder's own path, and none of a run's
cache folder is seen at that run's destination. Not here: what follows
(the lane waits), and whether the destination is another machine (core/binding.py).

The probe files here have names of the form of our other temporary files: nothing looks at them, none travels, and what a
kill leaves is taken away by the next one.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import PurePath

from exlab_watch_agent.adapters.local.durable import remove_temporaries, temporary_name
from exlab_watch_agent.adapters.local.handles import (
    CREATE_FLAGS,
    EQUIPMENT_LEVELS,
    READ_FLAGS,
    Folder,
    folder_below,
    is_link,
    run_folder,
)
from exlab_watch_agent.adapters.local.scanner import DiskRunScanner, equipment_root
from exlab_watch_agent.core.inventory import CACHE_FOLDER
from exlab_watch_agent.core.policy import EquipmentPolicy
from exlab_watch_agent.core.text import reason_with_name
from exlab_watch_agent.errors import (
    DestinationIsSourceError,
    DestinationUnreachableError,
    RootUnavailableError,
    RunUnreadableError,
    TransportError,
)
from exlab_watch_agent.ports import Clock, Transport

ASK_EVERY_S = 24 * 3600.0
_NAME = "apart"
_ASKED_FOR: set[str] = set()
"""Names of the probe files of all lanes of this process; a set's single operation is atomic."""


class ProbedApartness:
    """Implements ports.Apartness for one equipment and its destination.

    `every`: all equipment of the config; a destination may lie in none of their folders.
    """

    def __init__(
        self, equipment: EquipmentPolicy, transport: Transport, clock: Clock, every: Sequence[EquipmentPolicy] = ()
    ) -> None:
        self._equipment = equipment
        self._others = tuple(other for other in every if other.equipment_id != equipment.equipment_id)
        self._transport = transport
        self._clock = clock
        self._asking = threading.RLock()
        self._shown_s: float | None = None
        self._met: set[tuple[str, str]] = set()

    # --- the root ----------------------------------------------------------------------------------------------------

    def require_root(self, *, anew: bool = False, is_first: bool = False) -> None:
        with self._asking:
            now_s = self._clock.monotonic_s()
            if not (anew or is_first) and self._shown_s is not None and now_s - self._shown_s < ASK_EVERY_S:
                return
            self._shown_s = None
            self._transport.round_trip(lambda name, nonce: self._require_not_here(name, nonce, is_deep=is_first))
            # Without the cache folder, which the agent's lock makes, nothing was ever pushed from there: asked again then.
            asked = [self._equipment, *(self._others if is_first else ())]
            self._require_none_there([equipment for equipment in asked if _is_folder(_cache_folder(equipment))])
            if _is_folder(_cache_folder(self._equipment)):
                for run_path, destination in tuple(self._met):
                    self._ask_again(run_path, destination)
                self._shown_s = now_s

    def _require_not_here(self, name: str, nonce: bytes, *, is_deep: bool) -> None:
        """Look for the far side's probe file at every level that the scan walks, or in every folder there is."""
        inside, _, name = name.rpartition("/")
        for equipment in (self._equipment, *self._others):
            for folder in _all_folders(equipment) if is_deep else _levels(equipment):
                if _holds(os.path.join(folder, inside), name, nonce):
                    raise self._same(folder)

    def _require_none_there(self, asked: Sequence[EquipmentPolicy]) -> None:
        """Ask through the transport for a probe file of each equipment's folder, under each end of that folder's path."""
        wanted: dict[str, list[str]] = {}
        with contextlib.ExitStack() as probes:
            for equipment in asked:
                parts = PurePath(_cache_folder(equipment)).parts[1:]
                name = probes.enter_context(self._probe_of(equipment))
                wanted[equipment_root(equipment)] = [f"{'/'.join(parts[begin:])}/{name}" for begin in range(len(parts))]
            if wanted and self._is_any_there(list(chain.from_iterable(wanted.values()))):
                found = [root for root, paths in wanted.items() if self._is_any_there(paths)]
                raise self._same(found[0] if found else equipment_root(asked[0]))

    @contextlib.contextmanager
    def _probe_of(self, equipment: EquipmentPolicy) -> Iterator[str]:
        """Yield the name of a probe file in the equipment's cache folder. Raises: DestinationUnreachableError without one."""
        folder = _cache_folder(equipment)
        try:
            with folder_below(folder, EQUIPMENT_LEVELS + 1) as opened, _probe_in(opened) as name:
                yield name
        except OSError as error:
            raise DestinationUnreachableError(
                f"no file can be made in {folder} ({reason_with_name(error)}), so it cannot be shown that "
                f"{self._transport.describe()} is another place: make room in that folder, or let the agent's account write "
                "there."
            ) from error

    def _is_any_there(self, paths: Sequence[str]) -> bool:
        try:
            # A name of its own suffices: what is written there may still be on its way. What is ours may be read by all, so
            # that in somebody's private folder there is nothing to find.
            return self._transport.is_any_there(paths)
        except TransportError as error:
            raise DestinationUnreachableError(
                f"{self._transport.describe()} does not say whether it is the instrument's own folder: {error}"
            ) from error

    # --- one run -----------------------------------------------------------------------------------------------------

    def require_run(self, run_path: str, destination: str) -> None:
        try:
            with self._asking, run_folder(run_path) as run, run.step(CACHE_FOLDER) as folder, _probe_in(folder) as name:
                there = self._transport.read_small(f"{destination}/{CACHE_FOLDER}", name, limit_bytes=1)
        except OSError as error:
            if not _is_run_there(run_path):
                raise RootUnavailableError(
                    f"The run folder {run_path} is not there: {reason_with_name(error)}."
                ) from error
            why = reason_with_name(error)
            text = f"No file can be made in the cache folder of {run_path} ({why})"
            raise RunUnreadableError(f"{text}: make room, or let the agent's account write there.") from error
        if there is not None:
            self._met.add((run_path, destination))
            raise self._same(run_path)
        self._met.discard((run_path, destination))

    def _ask_again(self, run_path: str, destination: str) -> None:
        """A lane that waits because of one run must not go on while that run's folder is its destination."""
        with contextlib.suppress(
            RootUnavailableError, RunUnreadableError, TransportError
        ):  # gone, or said by its own push
            self.require_run(run_path, destination)

    def _same(self, folder: str) -> DestinationIsSourceError:
        return DestinationIsSourceError(
            f"the destination {self._transport.describe()} is the instrument's own folder {folder}, so that a copy there would "
            "be no second copy: give another transport path in the config"
        )


def _cache_folder(equipment: EquipmentPolicy) -> str:
    return os.path.join(equipment_root(equipment), CACHE_FOLDER)


def _levels(equipment: EquipmentPolicy) -> Iterator[str]:
    """Yield the folders in which a destination root would be seen at once; those that cannot be listed are skipped."""
    yield equipment.local_root
    yield equipment_root(equipment)
    # A root that is away is looked at when it is there: until then nothing is pushed from it.
    with contextlib.suppress(RootUnavailableError):
        yield from DiskRunScanner().folders(equipment)


def _all_folders(equipment: EquipmentPolicy) -> Iterator[str]:
    """Yield every folder of the equipment, data and cache folders too. Follows no link."""
    yield equipment.local_root
    for folder, _, _ in os.walk(equipment_root(equipment)):
        yield folder


def _is_folder(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and not is_link(status)


def _is_run_there(run_path: str) -> bool:
    try:
        run_folder(run_path).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _probe_in(folder: Folder) -> Iterator[str]:
    """Yield the name of a new empty file in a folder, which is gone afterwards. Raises: OSError."""
    name = temporary_name(_NAME)
    _ASKED_FOR.add(name)  # several lanes may ask at the same time, and none may take the others' for left over
    try:
        remove_temporaries(folder, of=_NAME, but=_ASKED_FOR)
        os.close(folder.open(name, CREATE_FLAGS, 0o644))  # also for the account there
        try:
            yield name
        finally:
            folder.unlink(name)  # one that is gone already was not there to be seen: then nothing was shown
    finally:
        _ASKED_FOR.discard(name)


def _holds(folder: str, name: str, nonce: bytes) -> bool:
    """Say whether a file with these bytes is there, or one that some wrapper made of them, whose name goes on.

    In a folder that cannot be listed nothing is found: what is at a run's own place is asked of that run.
    """
    try:
        found = [entry for entry in os.listdir(folder) if entry.startswith(name)]
        if name not in found:
            return bool(found)
        descriptor = os.open(os.path.join(folder, name), READ_FLAGS)
    except OSError:
        return False
    try:
        return os.read(descriptor, len(nonce) + 1) == nonce
    finally:
        os.close(descriptor)
