"""The destination root of one equipment, by whichever way it is reached: everything that is asked of all ways alike.

Decided here: who the destination is (marker, probe file, nonces in both directions), whose a run's folder is (claims), which
names are data's and which the agent's, that names are free and sources as listed, what goes aside and where (data, and what
others wrote into a copy's cache folder), and when there is nothing to clear. Not here: how any of it is carried out (`FarSide`
and the folders of the ways), how the agent's own files are spelled (own_files.py), and what a claim means (core/claim.py).

- Nothing is deleted but probe and partial files of the agent. What must make room goes to a folder that nobody else writes to.
- What is read back was asked of the NAS, and what proves a copy is a hash of the bytes there: a listing only ever fails a copy.
- Where nothing is created exclusively, of two agents that claim one folder in the same moment both may believe that it is
  theirs until they look again: each does so before its data are copied (`require_claim`) and after.

Longer than other modules, because the whole policy of all ways stands in it once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter

from blake3 import blake3

from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK, PausingClock
from exlab_watch_agent.adapters.local.durable import temporary_name
from exlab_watch_agent.adapters.transports.far_side import FarSide, Listing, Shipment, Way, cannot_be_used
from exlab_watch_agent.adapters.transports.shared.local_side import (
    beginning_to_place,
    require_sources,
    require_sources_unchanged,
)
from exlab_watch_agent.adapters.transports.shared.own_files import (
    MARKER_FILE,
    OWN_FOLDER,
    PARTIAL_FOLDER,
    PROBE_PREFIX,
    arrived_under_another_name,
    claim_text,
    look_of,
    marker_id_in,
    marker_text,
    new_marker_id,
    require_cache_path,
    require_data_path,
    require_inside,
    taken,
)
from exlab_watch_agent.adapters.transports.shared.portions import portions
from exlab_watch_agent.core.binding import Below, Nature
from exlab_watch_agent.core.claim import CLAIM_PATH, Claim, DestinationLook, conflict_at, standing
from exlab_watch_agent.core.gate import folded
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.passes import ReadBack
from exlab_watch_agent.core.push_plan import MTIME_TOLERANCE_NS, folders_of, is_behind
from exlab_watch_agent.core.seal import SUPERSEDED_FOLDER, is_the_agents, kept_as, says_more
from exlab_watch_agent.errors import (
    AgentError,
    CancelledError,
    DestinationFullError,
    DestinationOccupiedError,
    DestinationUnreachableError,
    FailureKind,
    ForeignMarkerError,
    MarkerMissingError,
    SourceChangedError,
    TransportError,
)
from exlab_watch_agent.ports import NOTHING_ELSE, NOTHING_PLACED, UNHINDERED, Control, Progress, RemoteFile

_CACHE_FILE_BYTES_MAX = 256 * 1024 * 1024
_PROBE_MTIME_NS = 1_000_000_000 * 10**9
_NOTHING = Listing({})


class Destination:
    """Implements ports.Transport on any way.

    `owner`: who asks, unlike anybody else who may ask this root. Then the probe file has the same name each time, and what a
    kill has left of it is taken away by the owner's next probe. `host`: of this PC, whose log in a run's cache folder is the
    agent's own. `stream_bytes_max`: larger files are not fetched to be hashed.
    """

    def __init__(
        self,
        way: Way,
        *,
        owner: str = "",
        host: str = "",
        stream_bytes_max: int | None = None,
        clock: PausingClock = SYSTEM_CLOCK,
    ) -> None:
        self.way = way
        self._host = host
        self._stream_bytes_max = stream_bytes_max
        self._clock = clock
        self._owner = blake3(owner.encode()).hexdigest(8) if owner else secrets.token_hex(8)
        self._probing = threading.Lock()
        self._keeps_times = True
        self._claims: dict[str, Claim] = {}
        self._making_room: dict[str, set[str]] = {}
        self._clear: set[str] = set()

    def describe(self) -> str:
        return self.way.name

    def check_tools(self) -> tuple[str, ...]:
        return self.way.chosen().check_tools()

    def nature(self) -> Nature:
        return self.way.nature()

    def close(self) -> None:
        self.way.close()

    # --- the border --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _reached(self) -> Iterator[FarSide]:
        """Turn whatever keeps the root from answering into a DestinationUnreachableError."""
        try:
            far = self.way.chosen()
        except TransportError as error:
            why = f"The destination {self.way.name} cannot be used: {str(error).rstrip('.')}."
            raise DestinationUnreachableError(why) from error
        try:
            yield far
        except _errors_of(far) as error:
            raise DestinationUnreachableError(far.away(error)) from error

    @contextlib.contextmanager
    def _answering(self, doing: str, path: str) -> Iterator[FarSide]:
        """The border: `path` must lie below the root, and what goes wrong becomes a TransportError."""
        require_inside(path)
        far = self.way.chosen()
        try:
            yield far
        except far.foreign as error:
            raise far.translated(error, f"{doing} {path!r} at {far.name}") from error

    # --- is it there -------------------------------------------------------------------------------------------------

    def bind(self, *, known_marker_id: str | None = None) -> str:
        with self._reached() as far:
            found = self._expected_marker(far, known_marker_id)
            self._exchange_a_nonce(far)
            return found or self._place_marker(far)

    def put_marker_back(self, marker_id: str) -> None:
        with self._reached() as far:
            far.require_root()
            if self._marker_id(far) is None:
                self._put_marker(far, marker_id)
            self._expected_marker(far, marker_id)

    def probe(self, *, expected_marker_id: str | None) -> None:
        with self._reached() as far:
            self._require_marker(far, expected_marker_id)
            self._exchange_a_nonce(far)  # a full share has answered too, and is left for the push to name

    def require_marker(self, *, expected_marker_id: str | None) -> None:
        with self._reached() as far:
            self._require_marker(far, expected_marker_id)

    def round_trip(self, while_there: Callable[[str, bytes], None] | None = None) -> None:
        with self._reached() as far:
            far.require_root()
            if not self._exchange_a_nonce(far, while_there) and while_there is not None:
                raise DestinationFullError(f"{far.name} has no room even for a probe file: make room on the NAS.")

    def below(self, folder: str) -> Below | None:
        with self._reached() as far:
            return far.below(folder)

    def free_bytes(self) -> int | None:
        return self.way.chosen().free_bytes()

    def top_names(self) -> tuple[str, ...] | None:
        with self._reached() as far:
            names = far.top_names()
        return None if names is None else tuple(sorted(names))

    def _require_marker(self, far: FarSide, expected_marker_id: str | None) -> None:
        if expected_marker_id is None:
            raise DestinationUnreachableError(
                f"The destination {far.name} cannot be used: no marker is known for it yet; the next probe reads or places one."
            )
        self._expected_marker(far, expected_marker_id)

    def _expected_marker(self, far: FarSide, expected_marker_id: str | None) -> str | None:
        """Return the id in the marker, None where there is none and none is expected. Raises: DestinationUnreachableError."""
        found = self._marker_id(far)
        if found is None:
            far.require_root()
        if found is None and expected_marker_id is not None:
            raise MarkerMissingError(cannot_be_used(far, f"the marker {MARKER_FILE} is missing"))
        if expected_marker_id not in (None, found):
            raise ForeignMarkerError(cannot_be_used(far, f"the marker {MARKER_FILE} belongs to another destination"))
        return found

    def _marker_id(self, far: FarSide) -> str | None:
        data = far.read_own(MARKER_FILE)
        found = None if data is None else marker_id_in(data)
        if data is not None and found is None:
            raise DestinationUnreachableError(cannot_be_used(far, f"the marker {MARKER_FILE} is damaged"))
        return found

    def _place_marker(self, far: FarSide) -> str:
        """Place a new marker, or adopt the one that another agent places at this moment; return the id that is there then."""
        self._put_marker(far, new_marker_id())
        found = self._marker_id(far)
        if found is None:
            raise DestinationUnreachableError(
                cannot_be_used(far, f"the marker {MARKER_FILE} was written and could not be read back")
            )
        return found

    def _put_marker(self, far: FarSide, marker_id: str) -> None:
        with self._probing:
            far.put_new(MARKER_FILE, marker_text(marker_id), temporary=self._probe_path(far), is_lasting=True)
        if far.can.settle_s:
            # Others may have seen no marker either: whose came last is seen by all once they have all written.
            self._clock.pause(far.can.settle_s)

    def _probe_path(self, far: FarSide) -> str:
        return f"{PROBE_PREFIX}{self._owner}" if far.can.removes else f"{OWN_FOLDER}/probe-{self._owner}"

    def _exchange_a_nonce(self, far: FarSide, while_there: Callable[[str, bytes], None] | None = None) -> bool:
        """Write and read back a few bytes; return False where there was no room for them.

        An answer that a cache on this side could have given would show nothing of the server.
        """
        path, nonce = self._probe_path(far), secrets.token_hex(16).encode()
        had_room = False

        def tell() -> None:
            nonlocal had_room
            had_room = True
            if while_there is not None:
                while_there(path, nonce)

        try:
            with self._probing:
                back = far.exchange(
                    path, nonce, mtime_ns=_PROBE_MTIME_NS, while_there=None if while_there is None else tell
                )
        except _errors_of(far) as error:
            said = error if isinstance(error, TransportError) else far.translated(error, "Cannot write a probe file")
            if said.kind is FailureKind.DESTINATION_FULL and not had_room:
                return False
            raise
        if back.data != nonce:
            raise TransportError(FailureKind.NETWORK, "what was written is not what is read back")
        if back.mtime_ns is not None:
            self._keeps_times = abs(back.mtime_ns - _PROBE_MTIME_NS) <= MTIME_TOLERANCE_NS
        return True

    # --- whose is it -------------------------------------------------------------------------------------------------

    def look(self, destination: str) -> DestinationLook:
        with self._answering("Cannot look at", destination) as far:
            seen = far.look(destination)
        return look_of(destination, claim=seen.claim, creation=seen.creation, is_empty=seen.is_empty)

    def place_claim(self, destination: str, claim: Claim) -> None:
        with self._answering("Cannot claim", destination) as far:
            far.require_fit(destination, ())
            # Its bytes are durable; its name becomes so with the folders that `copy` makes durable after the data. Should a
            # power cut take the name and leave data, the folder counts as occupied, and an operator is asked.
            is_first = far.put_new(
                f"{destination}/{CLAIM_PATH}",
                claim_text(claim),
                temporary=f"{destination}/{PARTIAL_FOLDER}/{temporary_name('claim')}",
                is_lasting=False,
            )
            if not (is_first and far.can.creates_exclusively):
                self._require_claim(far, destination, claim)

    def require_claim(self, destination: str, claim: Claim) -> None:
        with self._answering("Cannot read the claim of", destination) as far:
            self._require_claim(far, destination, claim)

    def _require_own_claim(self, far: FarSide, destination: str) -> None:
        """Return when the claim that was found to be ours is still there, where another agent may have written over it."""
        claim = self._claims.get(destination)
        if claim is not None and not far.can.creates_exclusively:
            self._require_claim(far, destination, claim)

    def _require_claim(self, far: FarSide, destination: str, claim: Claim) -> None:
        data = far.read_own(f"{destination}/{CLAIM_PATH}")
        if data is None:
            # It was placed a moment ago, or earlier: a share that went away looks like this.
            raise TransportError(
                FailureKind.UNKNOWN,
                f"the claim that was written to {destination!r} at {far.name} could not be read back.",
            )
        where = f"{destination!r} at {far.name}"
        there = look_of(destination, claim=data, creation=None)
        if there.claim is None:
            raise DestinationOccupiedError(f"{where}: {CLAIM_PATH} cannot be read, so nobody knows whose folder it is.")
        conflict = conflict_at(standing(there, claim), where, holder=there.holder, is_sealed=False)
        if conflict is not None:
            raise DestinationOccupiedError(conflict.message, kind=conflict.kind, holding=there.holding)
        self._claims[destination] = claim

    # --- what is there -----------------------------------------------------------------------------------------------

    def listing(
        self, destination: str, *, due: Sequence[FileEntry] = (), control: Control = UNHINDERED
    ) -> Mapping[str, RemoteFile]:
        with self._answering("Cannot list", destination) as far:
            found = self._listed(far, destination, due, control).files
        leaving = self._making_room.get(destination)
        if leaving:
            found = {path: file for path, file in found.items() if path not in leaving}
        if not self._keeps_times:
            found = {path: RemoteFile(file.size_bytes, None) for path, file in found.items()}
        return found

    def _listed(self, far: FarSide, destination: str, due: Sequence[FileEntry], control: Control) -> Listing:
        """Return what is there; looked at again while the server's listing may lag behind and does not show what is due."""
        found = far.list(destination, control)
        if not is_behind(due, {path: file.size_bytes for path, file in found.files.items()}):
            return found
        lag = far.lag()
        until_s = self._clock.monotonic_s() + lag.at_most_s
        while self._clock.monotonic_s() < until_s:
            if control.is_cancelled():
                raise CancelledError("stopped as asked")
            self._clock.pause(lag.look_every_s)
            found = far.list(destination, control)
            if not is_behind(due, {path: file.size_bytes for path, file in found.files.items()}):
                break
        return found

    def read_small(self, destination: str, relative_path: str, *, limit_bytes: int) -> bytes | None:
        with self._answering("Cannot read from", destination) as far:
            return far.read_below(destination, require_inside(relative_path), limit_bytes)

    def read_several(self, destination: str, relative_paths: Sequence[str], *, limit_bytes: int) -> dict[str, bytes]:
        with self._answering("Cannot read from", destination) as far:
            return far.read_several(destination, [require_inside(path) for path in relative_paths], limit_bytes)

    def is_any_there(self, paths: Sequence[str]) -> bool:
        with self._answering("Cannot look for", paths[0]) as far:
            seen = far.sees_any([require_inside(path) for path in paths])
        return any(self._may_be_seen(path) for path in paths) if seen is None else seen

    def _may_be_seen(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        try:
            return self.read_small(folder, name, limit_bytes=1) is not None
        except TransportError as error:
            if error.kind is FailureKind.AUTH:
                return False
            raise

    def samples(self, destination: str, files: Sequence[FileEntry], *, control: Control) -> dict[str, str] | None:
        with self._answering("Cannot read from", destination) as far:
            for entry in files:
                require_inside(entry.path)
            pays_from = far.can.sampled_from_bytes
            if pays_from is None or sum(entry.size_bytes for entry in files) < pays_from:
                return None
            return far.samples(destination, files, control)

    def read_back(self, destination: str, paths: Sequence[str], *, control: Control) -> ReadBack:
        with self._answering("Cannot read from", destination) as far:
            leaving = self._making_room.get(destination, ())
            wanted = [path for path in paths if require_inside(path) not in leaving]
            return far.read_back(destination, wanted, control)

    def digest_bytes_max(self) -> int | None:
        if self._stream_bytes_max is None:
            return None
        with self._answering("Cannot ask what can be hashed below", MARKER_FILE) as far:
            return None if far.hashes_any_size() else self._stream_bytes_max

    # --- copying -----------------------------------------------------------------------------------------------------

    def copy(self, source_root: str, files: Sequence[FileEntry], destination: str, *, control: Control) -> None:
        with self._answering("Cannot write to", destination) as far, self._leaving_nothing(destination):
            for entry in files:
                require_data_path(entry.path)
            far.require_fit(destination, files)
            there = _NOTHING
            if files and not far.can.checks_each_file:
                there = far.list(destination, control)
                self._require_free(far, files, destination, there)
            self._send(far, source_root, files, destination, control, there)
            far.sync(destination)
            self._require_own_claim(far, destination)

    def _require_free(self, far: FarSide, files: Sequence[FileEntry], destination: str, there: Listing) -> None:
        """Raise TransportError when a name is taken, or something else than a folder is where a folder must be."""
        others = {*there.files, *there.others} - self._making_room.get(destination, set())
        names = others.union(there.folders)
        for entry in files:
            if entry.path in names:
                raise taken(entry.path, destination, far.name)
        for path in folders_of(entry.path for entry in files):
            if path in others:
                text = (
                    f"{path!r} in {destination!r} is a link or a file where a folder must be: move it away, then retry."
                )
                raise TransportError(FailureKind.UNKNOWN, text)

    def _send(
        self,
        far: FarSide,
        source_root: str,
        files: Sequence[FileEntry],
        destination: str,
        control: Control,
        there: Listing,
    ) -> None:
        """Let the far side copy the files, in portions of which each is whole before the next begins."""
        can = far.can
        folders = set(there.folders)
        done = Progress(0, 0)
        for portion in portions(
            files, count_max=can.portion_files, bytes_max=can.portion_bytes, size_bytes_of=attrgetter("size_bytes")
        ):
            shipment = Shipment(
                source_root=source_root,
                files=portion,
                folder=destination,
                control=dataclasses.replace(control, report=partial(_report_after, done, control.report)),
                folders=folders,
                require_as_listed=partial(require_sources_unchanged, source_root, portion),
            )
            if can.checks_each_file:
                far.send(shipment)
            else:
                self._send_as_listed(far, shipment, there)
            folders |= folders_of(entry.path for entry in portion)
            done = Progress(
                done.bytes_done + sum(entry.size_bytes for entry in portion), done.files_done + len(portion)
            )

    def _send_as_listed(self, far: FarSide, shipment: Shipment, there: Listing) -> None:
        """Let a tool copy files that are as listed before and after; whatever it says, that one is not comes first."""
        require_sources(shipment.source_root, shipment.files)
        reasons: tuple[type[Exception], ...] = (SourceChangedError, *_errors_of(far))
        try:
            self._send_and_make_room(far, shipment)
            if not far.can.names_last:
                self._require_arrived(far, shipment, there)
                shipment.require_as_listed()
        except reasons:
            changed = _changed(shipment.source_root, shipment.files)
            if changed and far.can.moves and not far.can.names_last:
                # Some tools take some of both; else their time or hash shows them to the next push.
                with contextlib.suppress(TransportError):
                    self.set_aside(shipment.folder, list(changed))
            if changed:
                raise next(iter(changed.values())) from None
            raise

    def _send_and_make_room(self, far: FarSide, shipment: Shipment) -> None:
        leaving = self._making_room.get(shipment.folder, set())
        new = [entry for entry in shipment.files if entry.path not in leaving]
        successors = [entry for entry in shipment.files if entry.path in leaving]
        if new:
            far.send(dataclasses.replace(shipment, files=new))
        if successors:
            aside = far.new_numbered(f"{SUPERSEDED_FOLDER}/{shipment.folder}")
            far.send(dataclasses.replace(shipment, files=successors, aside=aside))
            leaving.difference_update(entry.path for entry in successors)

    def _require_arrived(self, far: FarSide, shipment: Shipment, there: Listing) -> None:
        """Return when all that was sent has arrived under its name.

        Looked at where the way does not tell, and where two names are one to a server's disk, of which its protocol may say
        nothing.
        """
        wanted = {entry.path: entry.size_bytes for entry in shipment.files}
        names = {*there.files, *wanted}
        are_apart = len({folded(path) for path in names}) == len(names)
        if are_apart and far.can.tells_taken:
            return
        arrived = self._listed(far, shipment.folder, shipment.files, shipment.control)
        due = sorted(wanted if are_apart else names)
        for path in due:  # of two names that are one, the one that is gone says more than what the other holds
            if path not in arrived.files and path not in arrived.others and path not in arrived.folders:
                raise arrived_under_another_name(path, far.name)
        for path in due:
            file = arrived.files.get(path)
            if file is None or file.size_bytes != wanted.get(path, file.size_bytes):
                raise taken(path, shipment.folder, far.name)

    @contextlib.contextmanager
    def _leaving_nothing(self, destination: str) -> Iterator[None]:
        """Remember that what was clear of partial files of ours before is so afterwards, unless it was stopped."""
        was_clear = destination in self._clear
        self._clear.discard(destination)
        yield
        if was_clear:
            self._clear.add(destination)

    # --- the rest of writing -----------------------------------------------------------------------------------------

    def replace(
        self,
        source_root: str,
        files: Sequence[FileEntry],
        destination: str,
        *,
        control: Control,
        instead: Mapping[str, bytes] = NOTHING_ELSE,
        placed: Mapping[str, str] = NOTHING_PLACED,
    ) -> None:
        with self._answering("Cannot write to", destination) as far, self._leaving_nothing(destination):
            for entry in files:
                require_cache_path(entry.path)
            for entry in files:
                self._keep_what_others_wrote(
                    far, source_root, entry.path, destination, instead, placed.get(entry.path, "")
                )
            if files:
                far.replace(source_root, files, destination, control=control, instead=instead)

    def _keep_what_others_wrote(
        self, far: FarSide, source_root: str, path: str, destination: str, instead: Mapping[str, bytes], placed: str
    ) -> None:
        """Keep a copy of a file in the cache folder there that is neither the agent's own nor what the agent puts there.

        A copy, not the file itself: a stop then leaves it in its place as well, and the same bytes are kept once. Of files that
        are larger than what is read of them the beginnings are compared.
        """
        if is_the_agents(path, host=self._host):
            return
        there = far.read_below(destination, path, _CACHE_FILE_BYTES_MAX)
        if there is None:
            return
        here = beginning_to_place(source_root, path, instead, _CACHE_FILE_BYTES_MAX)
        digest = hashlib.sha256(there).hexdigest()
        if digest == placed or not says_more(path, there=there, here=here):
            return
        if len(there) >= _CACHE_FILE_BYTES_MAX:
            text = f"{path} of {destination} at {far.name} is not ours and too large to be kept beside: move it away there."
            raise TransportError(FailureKind.UNKNOWN, text)
        kept = kept_as(destination, path, digest)
        far.put(kept, there)
        folder, _, name = kept.rpartition("/")
        if far.read_below(folder, name, _CACHE_FILE_BYTES_MAX) != there:
            text = f"{path} of {destination} at {far.name} is not ours, and could not be kept as {kept}: it stays as it is."
            raise TransportError(FailureKind.UNKNOWN, text)

    def write_small(self, path: str, data: bytes) -> None:
        with self._answering("Cannot write", path) as far:
            far.put(path, data)

    def can_move(self) -> bool:
        return self.way.chosen().can.moves

    def set_aside(self, destination: str, paths: Iterable[str]) -> None:
        with self._answering("Cannot move aside in", destination) as far:
            wanted = [require_data_path(path) for path in paths]
            moving = far.present(destination, wanted) if wanted else ()
            if not moving:
                return
            if far.can.moves:
                far.move(destination, far.new_numbered(f"{SUPERSEDED_FOLDER}/{destination}"), moving)
            else:
                # They stay until their successors come, and are known to this object only: after a restart they are listed
                # again, and found wrong again.
                self._making_room.setdefault(destination, set()).update(moving)

    def clear_partials(self, destination: str) -> None:
        with self._answering("Cannot clean up in", destination) as far:
            if destination not in self._clear:  # else nothing of ours was stopped there since
                far.clear_partials(destination)
                self._clear.add(destination)


def _errors_of(far: FarSide) -> tuple[type[Exception], ...]:
    """Return what says that the far side, or the way to it, could not do something."""
    return TransportError, *far.foreign


def _report_after(done: Progress, report: Callable[[Progress], None], further: Progress) -> None:
    report(Progress(done.bytes_done + further.bytes_done, done.files_done + further.files_done))


def _changed(source_root: str, files: Iterable[FileEntry]) -> dict[str, AgentError]:
    """Return path → what is wrong with it, of the sources that are not what their entries say."""
    found: dict[str, AgentError] = {}
    for entry in files:
        try:
            require_sources(source_root, [entry])
        except AgentError as error:
            found[entry.path] = error
    return found
