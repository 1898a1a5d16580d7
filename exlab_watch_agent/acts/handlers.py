"""One function per effect: plain values and ports in, an outcome out. No policy, no retry, no sleep in here.

Every handler that touches the destination asks it first who it is, and again afterwards: an unmounted share is an empty folder
that would accept writes, and whose emptiness would look like damage.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass

from exlab_watch_agent.core.binding import must_ask
from exlab_watch_agent.core.claim import CLAIM_FILE, CLAIM_PATH, Claim, DestinationStanding, conflict_at, standing
from exlab_watch_agent.core.completeness import judge as judge_completeness
from exlab_watch_agent.core.completeness import not_signalled, signal_file
from exlab_watch_agent.core.creation import Creation, says_synced
from exlab_watch_agent.core.discovery import RunPlace
from exlab_watch_agent.core.effects import Precheck, Push, Seal, Verify, WorkEffect, WriteStatus
from exlab_watch_agent.core.events import (
    CopyWrong,
    EffectFailed,
    Inspected,
    Outcome,
    PrecheckPassed,
    Pushed,
    RunChanged,
    Sealed,
    Verified,
)
from exlab_watch_agent.core.gate import README_BYTES_MAX, README_FILE, Finding, evaluate
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE, MANIFEST_FILE, FileEntry, Inventory
from exlab_watch_agent.core.manifest import Outcome as Comparing
from exlab_watch_agent.core.manifest import check_declared, compare, format_manifest, manifest_digest, parse_manifest
from exlab_watch_agent.core.policy import CompletenessSignal
from exlab_watch_agent.core.push_plan import plan_push, wrong_sizes
from exlab_watch_agent.core.sampling import sample_files
from exlab_watch_agent.core.text import counted, shortened
from exlab_watch_agent.errors import (
    NAS_UNREACHABLE,
    CreationFileError,
    DestinationOccupiedError,
    DestinationUnreachableError,
    FailureKind,
    ManifestLostError,
    ManifestNotKeptError,
    RootUnavailableError,
    RunUnreadableError,
    SourceChangedError,
    TransportError,
    Wait,
)
from exlab_watch_agent.ports import Control, Ports, SavedCreation

NOT_THE_COPY = frozenset({FailureKind.NETWORK, FailureKind.DESTINATION_FULL, FailureKind.BINARY_MISSING})
"""Kinds of failure that say nothing of the bytes that lie there."""
UNREADABLE = "unreadable"
"""Stands for the hash of a file that cannot be read; it agrees with no hash."""
UNREADABLE_FILES_MAX = 200
"""Each costs some requests to find. Where there are more, the copy as a whole counts as unreadable."""
EXPECTED_BYTES_MAX = 64 * 1024 * 1024
CACHE_READ_BACK_BYTES_MAX = 256 * 1024 * 1024
RUN_LEVEL = "run"
SENTENCE_MAX = 700
"""Of what the system says about a path that is too long, this much is told."""
LEVEL_MAX = 60


# --- looking ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """Look at one run folder. `claim` is set when the look is to start a push: then the destination is looked at too.

    `known_signature`: the `creation.json` that the agent itself wrote last; a look made only because that file was
    written ends there. `judges_gate`: whether findings are wanted even while the run is not complete. `asks_nas_fully`:
    whether the NAS must write and read back something, or its marker is enough because it did so a moment ago.
    """

    place: RunPlace
    declared_mismatches: tuple[str, ...] = ()
    claim: Claim | None = None
    destination: str = ""
    known_signature: tuple[int, int, int] | None = None
    judges_gate: bool = False
    asks_nas_fully: bool = True


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look found. `marker_id` is set when the destination was asked."""

    creation: Creation
    signature: tuple[int, int, int]
    inspected: Inspected
    marker_id: str | None = None


@dataclass(frozen=True, slots=True)
class NothingNew:
    """The `creation.json` is the one that the agent wrote last."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """The look could not be finished: a wait, never a failure. `code` says what to do about it.

    `root`: the equipment's folder is not there or not the one that was scanned; `missing`: no run folder or no
    creation.json; `creation`: it cannot be used (message, line and column in the text); `level`: it is not a run's, and
    `signature` is that of this file; `unreadable`: a part of the run cannot be listed or read, and `creation` is its file
    where that could be read; `destination`: the NAS cannot be used, and `wait` names that wait.
    """

    code: str
    message: str
    creation: Creation | None = None
    signature: tuple[int, int, int] | None = None
    wait: Wait = NAS_UNREACHABLE


LookResult = Seen | NothingNew | Unseen


def look(order: Look, ports: Ports) -> LookResult:
    """Return what stands in a run folder now. Reads only."""
    path = order.place.run_path
    creation: Creation | None = None
    try:
        ports.require_root()
    except RootUnavailableError as error:
        return Unseen("root", str(error))
    try:
        file = ports.creations.read(path)
        if file.creation.level != RUN_LEVEL:
            return Unseen("level", _another_level(path, file.creation.level), signature=file.signature)
        creation = file.creation
        if order.known_signature is not None and file.signature == order.known_signature:
            return NothingNew()
        inspected = _inspect(order, file.creation, ports)
        marker_id = None
        if order.claim is not None:
            marker_id = ask_destination(ports, is_full=order.asks_nas_fully)
            inspected = _with_destination(
                inspected, _look_there(order.destination, order.claim, ports), order.destination
            )
        return Seen(file.creation, file.signature, inspected, marker_id)
    except CreationFileError as error:
        return Unseen("missing" if error.code == "missing" else "creation", str(error))
    except RootUnavailableError as error:
        return Unseen("missing", str(error))
    except (RunUnreadableError, SourceChangedError) as error:
        return Unseen("unreadable", shortened(str(error), SENTENCE_MAX), creation)
    except DestinationUnreachableError as error:
        return Unseen("destination", str(error), wait=error.wait)


def find_destination(ports: Ports) -> str:
    """Return the marker's id of a destination root that is bound and answers, by reading alone.

    A root that is shown to be another place is bound here. Raises: DestinationUnreachableError.
    """
    marker_id = ports.marker_id()
    if marker_id is not None:
        ports.transport.require_marker(expected_marker_id=marker_id)
        return marker_id
    nature = ports.transport.nature()
    if not nature.elsewhere:
        raise must_ask(ports.equipment.equipment_id, ports.transport.describe(), nature)
    return bind(ports)


def ask_destination(ports: Ports, *, is_full: bool, is_doubted: bool = False) -> str:
    """Return the same of a root that may also be written to: it is not the instrument's own folder.

    `is_full`: it must also keep and give back a few bytes; `is_doubted`: it did not answer a moment ago, so that what
    was shown of it counts no more. Raises: DestinationUnreachableError.
    """
    marker_id = ports.marker_id()
    if marker_id is not None and is_full:
        ports.transport.probe(expected_marker_id=marker_id)
    else:
        marker_id = find_destination(ports)
    ports.apartness.require_root(anew=is_doubted)  # it writes, and an unmounted share is known by its marker only
    return marker_id


def bind(ports: Ports) -> str:
    """Return the id of the root's marker, placed now where there was none; a marker that is known must be there.

    Nothing is written there before it is shown that the root is not the instrument's own folder, but probe files.
    Raises: DestinationUnreachableError.
    """
    known = ports.binding()
    if known is not None:
        ports.transport.require_marker(expected_marker_id=known.marker_id)
    ports.apartness.require_root(is_first=True)
    return ports.transport.bind(known_marker_id=None if known is None else known.marker_id)


def _another_level(run_path: str, level: str) -> str:
    return (
        f"{run_path}/{CACHE_FOLDER}/{CREATION_FILE} says level {shortened(json.dumps(level), LEVEL_MAX)} where a run is "
        "expected: each folder in Runs and TestRuns must be one, so nothing here is copied. If it is a run, write "
        f'"level": "{RUN_LEVEL}" there, else move the folder elsewhere.'
    )


def _look_there(destination: str, claim: Claim, ports: Ports) -> tuple[DestinationStanding, str]:
    """Return whose the folder is, and who claims it in words."""
    try:
        found = ports.transport.look(destination)
    except TransportError:
        # The NAS answered, and this folder does not: the push asks again and meets the same error, classified.
        return DestinationStanding.FREE, ""
    return standing(found, claim), found.holder


def _inspect(order: Look, creation: Creation, ports: Ports) -> Inspected:
    path = order.place.run_path
    signal = signal_file(ports.equipment)
    if signal is not None and not order.judges_gate and not ports.tree.has_name(path, signal):
        return Inspected(creation, not_signalled(signal), (), "", files_total=0, bytes_total=0, is_unsignalled=True)
    inventory = ports.tree.inventory(path)
    names = {entry.path for entry in inventory.files}
    expected = None
    if ports.equipment.signal is CompletenessSignal.MANIFEST and ports.equipment.manifest_filename in names:
        expected = ports.tree.read_small(path, ports.equipment.manifest_filename, limit_bytes=EXPECTED_BYTES_MAX)
    completeness = judge_completeness(policy=ports.equipment, inventory=inventory, manifest=expected)
    findings: tuple[Finding, ...] = ()
    if completeness.is_complete or order.judges_gate:
        readme = None
        if README_FILE in names:
            raw = ports.tree.read_small(path, README_FILE, limit_bytes=README_BYTES_MAX)
            readme = raw.decode("utf-8", "surrogateescape")
        findings = evaluate(
            place=order.place,
            creation=creation,
            inventory=inventory,
            readme=readme,
            declared_mismatches=order.declared_mismatches,
        )
    return Inspected(
        creation=creation,
        completeness=completeness,
        findings=findings,
        fingerprint=inventory.fingerprint,
        files_total=inventory.files_total,
        bytes_total=inventory.bytes_total,
    )


def _with_destination(inspected: Inspected, found: tuple[DestinationStanding, str], destination: str) -> Inspected:
    where, holder = found
    return Inspected(
        inspected.creation,
        inspected.completeness,
        inspected.findings,
        inspected.fingerprint,
        inspected.files_total,
        inspected.bytes_total,
        destination=where,
        destination_path=destination,
        holder=holder,
    )


# --- working ---------------------------------------------------------------------------------------------------------


def carry_out(effect: WorkEffect, ports: Ports, control: Control) -> Outcome:
    """Carry out one working state's effect and return its outcome, whatever happens.

    Raises: CancelledError only. Any error that is not of this package is our defect and is let through.
    """
    handlers: dict[type, Callable[..., Outcome]] = {Push: push, Precheck: precheck, Verify: verify, Seal: seal}
    try:
        ports.transport.require_marker(expected_marker_id=ports.marker_id())
        if not (isinstance(effect, Verify) and effect.manifest_digest):
            # An audit asks of its run alone, which needs no writing there: a NAS that rots is often read-only by then.
            ports.apartness.require_root()
        ports.require_root()
        outcome = handlers[type(effect)](effect, ports, control)
        # A share that went away in the middle looks like missing files: ask again before anything is believed. So does a
        # root here that is another volume now. (A seal has asked already, before the one thing that it did here after that.)
        if not isinstance(effect, Seal):
            ports.transport.require_marker(expected_marker_id=ports.marker_id())
        ports.require_root()
        return outcome
    except DestinationUnreachableError as error:
        return EffectFailed(effect.turn, FailureKind.NETWORK, str(error), is_destination_away=True, wait=error.wait)
    except SourceChangedError as error:
        return RunChanged(effect.turn, str(error))
    except RootUnavailableError as error:
        # A run folder that is not there was moved, removed, or its root is away: the next look and the scan tell which.
        return EffectFailed(effect.turn, FailureKind.UNKNOWN, str(error), is_source_away=True)
    except DestinationOccupiedError as error:
        return EffectFailed(effect.turn, FailureKind.UNKNOWN, str(error), conflict=error.kind)
    except (RunUnreadableError, CreationFileError, ManifestNotKeptError, ManifestLostError) as error:
        return EffectFailed(effect.turn, FailureKind.UNKNOWN, str(error))
    except TransportError as error:
        return _transport_trouble(effect, error, ports)


def _transport_trouble(effect: WorkEffect, error: TransportError, ports: Ports) -> Outcome:
    if error.kind is FailureKind.LOCAL_FILE_VANISHED:
        return _vanished(effect, str(error), ports)
    is_reading = isinstance(effect, Precheck | Verify)
    try:
        # A NAS that cannot be written any more can still say that it is there: whoever only reads asks for no more.
        ask = ports.transport.require_marker if is_reading else ports.transport.probe
        ask(expected_marker_id=ports.marker_id())
    except DestinationUnreachableError as away:
        return EffectFailed(effect.turn, FailureKind.NETWORK, str(away), error.detail, is_destination_away=True)
    is_unreadable = isinstance(effect, Verify) and error.kind not in NOT_THE_COPY
    return EffectFailed(effect.turn, error.kind, str(error), error.detail, is_copy_unreadable=is_unreadable)


def _vanished(effect: WorkEffect, message: str, ports: Ports) -> EffectFailed:
    """Return the failure of a run whose file is gone: only where the rest of the run is there to be seen.

    With a root that went away all files are gone, and one that is back again has them all.
    """
    try:
        left = ports.tree.inventory(effect.run_path).fingerprint
    except RootUnavailableError as error:
        return EffectFailed(effect.turn, FailureKind.UNKNOWN, str(error), is_source_away=True)
    except RunUnreadableError as error:
        return EffectFailed(effect.turn, FailureKind.UNKNOWN, str(error))
    if left == effect.fingerprint:
        return EffectFailed(effect.turn, FailureKind.UNKNOWN, f"{message}, and it was there again a moment later")
    return EffectFailed(effect.turn, FailureKind.LOCAL_FILE_VANISHED, message, fingerprint=left)


def _unchanged_inventory(effect: WorkEffect, ports: Ports) -> Inventory:
    """Return the inventory. Raises: SourceChangedError when it is not the one that was judged complete."""
    inventory = ports.tree.inventory(effect.run_path)
    if inventory.fingerprint != effect.fingerprint:
        raise SourceChangedError("the run changed since it counted as complete")
    return inventory


def push(effect: Push, ports: Ports, control: Control) -> Outcome:
    """Copy what is missing at the destination; safe to repeat.

    Writes only below `effect.destination`, and moves aside what stands there with another size or time, or was found wrong
    by the comparison before. The cache folder follows with the seal, when it can say what was proven; until then the
    claim says whose the copy is.
    """
    transport = ports.transport
    inventory = _unchanged_inventory(effect, ports)
    look_there = transport.look(effect.destination)
    if not look_there.is_empty:  # the run's own folder has its creation.json
        ports.apartness.require_run(effect.run_path, effect.destination)
    whose = standing(look_there, effect.claim)
    conflict = conflict_at(whose, effect.destination, holder=look_there.holder, is_sealed=effect.is_sealed)
    if conflict is not None:
        raise DestinationOccupiedError(conflict.message, kind=conflict.kind)
    transport.place_claim(effect.destination, effect.claim)
    # A share that went away for a moment leaves it in the empty mount point; data without a claim are nobody's.
    transport.require_marker(expected_marker_id=ports.marker_id())
    if transport.read_small(effect.destination, CLAIM_PATH, limit_bytes=CACHE_READ_BACK_BYTES_MAX) is None:
        raise TransportError(FailureKind.UNKNOWN, f"{effect.destination} has not kept its claim")
    if ports.creations.read(effect.run_path).creation.sync_status != "pending":
        ports.creations.set_sync_status(effect.run_path, "pending")
    if not look_there.is_empty:
        # A sealed copy that is about to change must stop saying "synced" before its first file moves.
        transport.replace(effect.run_path, _travelling(effect, ports), effect.destination, control=control)
    transport.clear_partials(effect.destination)
    if look_there.is_sealed and _copy_says_synced(effect, ports):
        raise TransportError(
            FailureKind.UNKNOWN, f"{effect.destination} goes on saying synced, so nothing there is changed"
        )
    wrong = ports.manifests.wrong(effect.job_id)
    plan = plan_push(inventory.files, {} if look_there.is_empty else _present(ports, effect.destination), wrong=wrong)
    free_bytes = transport.free_bytes()
    if free_bytes is not None and plan.bytes_to_copy > free_bytes:
        raise TransportError(
            FailureKind.DESTINATION_FULL,
            f"{transport.describe()} has {free_bytes} bytes free and the run needs {plan.bytes_to_copy}: make room on the NAS.",
        )
    if plan.set_aside:
        transport.set_aside(effect.destination, plan.set_aside)
    if wrong:  # before the copy: what takes their names is not to make room once more after a kill
        ports.manifests.forget_wrong(effect.job_id)
    transport.copy(effect.run_path, plan.copy, effect.destination, control=control)
    return Pushed(effect.turn)


def _travelling(effect: Push, ports: Ports) -> tuple[FileEntry, ...]:
    """Return the cache folder's files but the claim: one that came with a copied folder is another run's."""
    return tuple(entry for entry in ports.tree.cache_files(effect.run_path) if entry.path != CLAIM_PATH)


def precheck(effect: Precheck, ports: Ports, control: Control) -> Outcome:
    """Return evidence against the copy, or that there is none. Writes nothing there; the next push moves aside what is wrong."""
    inventory = _unchanged_inventory(effect, ports)
    present = _present(ports, effect.destination)
    wrong = wrong_sizes(inventory.files, present)
    what = "missing or of another size"
    if not wrong:
        sampled = sample_files(inventory.files)
        there = ports.transport.samples(effect.destination, sampled, control=control)
        if there is not None:
            here = ports.digester.samples(effect.run_path, sampled, control=control)
            wrong = tuple(path for path, digest in here.items() if there.get(path) != digest)
            what = "different in sampled blocks"
            _unchanged_inventory(effect, ports)
    if not wrong:
        return PrecheckPassed(effect.turn)
    _note_wrong(effect, [path for path in wrong if path in present], ports)
    return CopyWrong(effect.turn, f"partial copy: {counted(len(wrong), 'file')} {what} on the NAS (first: {wrong[0]})")


def _note_wrong(effect: Precheck | Verify, paths: Sequence[str], ports: Ports) -> None:
    """Keep the names of files that stand there and are wrong, so that the next push really replaces them."""
    # What a share that has just gone away does not show is no reason to move anything.
    ports.transport.require_marker(expected_marker_id=ports.marker_id())
    # A list that cannot be written replaces no verdict: nothing makes room then, and the next comparison says it again.
    with suppress(ManifestNotKeptError):
        ports.manifests.note_wrong(effect.job_id, paths)


def verify(effect: Verify, ports: Ports, control: Control) -> Outcome:
    """Hash every data file on both sides at once and compare with the manifest, if there is one.

    Before the first seal a change of the run ends it at once; after it, both sides are hashed as they are. Nothing is
    written there: the verdict comes first, and the names that are wrong are kept for the push that repairs.
    """
    manifest = _sealed_manifest(effect, ports)
    if manifest is not None:  # else the push asked a moment ago
        ports.apartness.require_run(effect.run_path, effect.destination)
        _require_no_foreign_claim(effect, ports)
    inventory = ports.tree.inventory(effect.run_path)
    listing = ports.transport.listing(effect.destination)
    if manifest is None and inventory.fingerprint != effect.fingerprint:
        gone = sorted(set(listing) - {entry.path for entry in inventory.files})
        if gone:
            return _vanished(effect, f"{counted(len(gone), 'pushed file')} gone here (first: {gone[0]})", ports)
        return RunChanged(effect.turn, "the run changed since it counted as complete")
    wanted = sorted({entry.path for entry in inventory.files} | set(manifest or ()))
    bytes_max = ports.transport.digest_bytes_max()
    standing_there = [path for path in wanted if path in listing]
    oversize = tuple(p for p in standing_there if bytes_max is not None and listing[p].size_bytes > bytes_max)
    asked = sorted(set(standing_there) - set(oversize))
    try:
        here, there = _digests_of_both(effect, inventory, asked, ports, control)
    except TransportError as error:
        if error.kind not in NOT_THE_COPY:  # a push that follows must not leave any of it where it is
            _note_wrong(effect, asked, ports)
        raise
    # A file that went away while it was read is missing among the digests: the shorter set must not pass as the run.
    if len(here) != len(inventory.files) or ports.tree.inventory(effect.run_path).fingerprint != inventory.fingerprint:
        return RunChanged(effect.turn, "the run changed while it was verified")
    # Of what was not hashed there, the size must do for the comparison: it can fail the copy, and the skipped names keep
    # the run from counting as proven.
    sizes = {entry.path: entry.size_bytes for entry in inventory.files}
    unread = {p: (manifest or here).get(p, "") for p in oversize if sizes.get(p) == listing[p].size_bytes}
    comparison = compare(local=here, manifest=manifest, remote=there | unread, remote_listing=listing)
    seen = (inventory.fingerprint, inventory.files_total, inventory.bytes_total)
    if comparison.outcome is Comparing.REMOTE_DIFFERS:
        _note_wrong(effect, comparison.remote_changed, ports)
    if comparison.outcome is not Comparing.EQUAL:
        # Nothing more is asked for: what else cannot be read at this moment must not take the place of the verdict.
        return Verified(effect.turn, comparison, "", *seen, skipped_oversize=oversize, uptime=ports.clock.uptime())
    text = format_manifest(here)
    if not oversize:
        # The seal makes it anew, or fails with this very reason and is tried again; a list that stays does no harm.
        with suppress(ManifestNotKeptError):
            ports.manifests.save(effect.job_id, text)
        with suppress(ManifestNotKeptError):
            ports.manifests.forget_wrong(effect.job_id)
    creation = ports.creations.read(effect.run_path).creation
    return Verified(
        effect.turn,
        comparison,
        manifest_digest(text),
        *seen,
        _declared_mismatches(here, inventory, ports, effect.run_path),
        creation.overrides,
        oversize,
        is_seal_missing=manifest is not None and not _copy_says_synced(effect, ports),
        uptime=ports.clock.uptime(),
    )


def _require_no_foreign_claim(effect: Verify, ports: Ports) -> None:
    """Return unless somebody else has claimed the copy meanwhile: then it is no proof of ours, whatever its bytes are."""
    found = ports.transport.look(effect.destination)
    if found.claim is not None and found.claim.job_id != effect.job_id:
        where = DestinationStanding.CLAIMED_BY_OTHER_AGENT if found.is_sealed else DestinationStanding.CLAIMED_UNSEALED
        conflict = conflict_at(where, effect.destination, holder=found.holder, is_sealed=True)
        assert conflict is not None, "a foreign claim is one"
        raise DestinationOccupiedError(conflict.message, kind=conflict.kind)


def _copy_says_synced(effect: Push | Verify, ports: Ports) -> bool:
    path = f"{CACHE_FOLDER}/{CREATION_FILE}"
    data = ports.transport.read_small(effect.destination, path, limit_bytes=CACHE_READ_BACK_BYTES_MAX)
    return says_synced(data or b"")


def _digests_of_both(
    effect: Verify, inventory: Inventory, remote_paths: list[str], ports: Ports, control: Control
) -> tuple[dict[str, str], dict[str, str]]:
    has_ended = threading.Event()
    remote_control = Control(
        is_cancelled=lambda: has_ended.is_set() or control.is_cancelled(), rate_bytes_per_s=control.rate_bytes_per_s
    )
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="remote-digests") as other:
        there = other.submit(_digests_there, effect, remote_paths, ports, remote_control)
        try:
            here = ports.digester.digests(effect.run_path, inventory.files, control=control)
        except BaseException:
            has_ended.set()
            raise
        return here, there.result()


def _digests_there(effect: Verify, paths: Sequence[str], ports: Ports, control: Control) -> dict[str, str]:
    """Return what the NAS says of these files; `UNREADABLE` for each that it lists and cannot give back.

    Raises: TransportError when it gives back nothing at all, or when that is no matter of its files.
    """
    reader = _Reader(effect.destination, ports, control)
    found = reader.read(paths)
    error = reader.error
    if error is not None and reader.unreadable and found.keys() == reader.unreadable:
        if len(paths) == 1 and reader.reads_its_claim():
            return found
        raise error
    return found


class _Reader:
    """Reads one copy back, by halves where it must, until it is clear which files cannot be read."""

    def __init__(self, destination: str, ports: Ports, control: Control) -> None:
        self._destination = destination
        self._ports = ports
        self._control = control
        self.unreadable: set[str] = set()
        self.error: TransportError | None = None

    def read(self, paths: Sequence[str]) -> dict[str, str]:
        """Return path → SHA-256, `UNREADABLE` for what cannot be read at the second try either."""
        try:
            return self._digests(paths)
        except TransportError as error:
            self._require_about_the_copy(error)
        if len(paths) > 1:
            middle = len(paths) // 2
            return self.read(paths[:middle]) | self.read(paths[middle:])
        try:
            return self._digests(paths)
        except TransportError as error:
            self._require_about_the_copy(error)
            self.unreadable |= set(paths)
            if len(self.unreadable) > UNREADABLE_FILES_MAX:
                raise
            return dict.fromkeys(paths, UNREADABLE)

    def reads_its_claim(self) -> bool:
        """Return whether the file that stands beside the only data file can be read."""
        try:
            read = self._ports.transport.read_small
            return read(self._destination, CLAIM_PATH, limit_bytes=CACHE_READ_BACK_BYTES_MAX) is not None
        except TransportError:
            return False

    def _digests(self, paths: Sequence[str]) -> dict[str, str]:
        return self._ports.transport.digests(self._destination, paths, control=self._control)

    def _require_about_the_copy(self, error: TransportError) -> None:
        """Raise the error unless the NAS is there and it is a matter of what lies on it."""
        if error.kind in NOT_THE_COPY:
            raise error
        self._ports.transport.require_marker(expected_marker_id=self._ports.marker_id())
        self.error = error


def _sealed_manifest(effect: Verify, ports: Ports) -> dict[str, str] | None:
    if not effect.manifest_digest:
        return None
    data = ports.manifests.load(effect.job_id, digest=effect.manifest_digest)
    if data is None:
        data = ports.tree.read_small(
            effect.run_path, f"{CACHE_FOLDER}/{MANIFEST_FILE}", limit_bytes=CACHE_READ_BACK_BYTES_MAX
        )
        if manifest_digest(data) != effect.manifest_digest:
            raise ManifestLostError(
                "the manifest of this sealed run is lost or was changed, here and in the state folder: "
                "restore .exlab-wizard/checksums.sha256 from the NAS copy.",
            )
    return parse_manifest(data)


def _declared_mismatches(here: dict[str, str], inventory: Inventory, ports: Ports, run_path: str) -> tuple[str, ...]:
    if ports.equipment.signal is not CompletenessSignal.MANIFEST:
        return ()
    raw = ports.tree.read_small(run_path, ports.equipment.manifest_filename, limit_bytes=EXPECTED_BYTES_MAX)
    declared = judge_completeness(policy=ports.equipment, inventory=inventory, manifest=raw).declared
    return check_declared(declared, here)


def seal(effect: Seal, ports: Ports, control: Control) -> Outcome:
    """Place manifest, claim and a `creation.json` that says `synced` at the NAS, and read them back; only then it says so here."""
    inventory = _unchanged_inventory(effect, ports)
    manifest = ports.manifests.load(effect.job_id, digest=effect.manifest_digest)
    if manifest is None:
        manifest = _manifest_anew(effect, inventory, ports, control)
    anchor = {"schema": 1, **asdict(effect.claim), "manifest_sha256": effect.manifest_digest, **ports.trail_head()}
    ports.sealer.write(effect.run_path, MANIFEST_FILE, manifest)
    ports.sealer.write(effect.run_path, CLAIM_FILE, (json.dumps(anchor, indent=2) + "\n").encode())
    synced = ports.creations.text_with_status(effect.run_path, "synced")
    ports.transport.clear_partials(effect.destination)  # a seal that was killed leaves some, too
    cache = ports.tree.cache_files(effect.run_path)
    told = {f"{CACHE_FOLDER}/{MANIFEST_FILE}": manifest, f"{CACHE_FOLDER}/{CREATION_FILE}": synced.data}
    ports.transport.replace(effect.run_path, cache, effect.destination, control=control, instead=told)
    for path, data in told.items():
        if ports.transport.read_small(effect.destination, path, limit_bytes=CACHE_READ_BACK_BYTES_MAX) != data:
            raise TransportError(FailureKind.UNKNOWN, f"{path} on the NAS is not the one that was written")
    _unchanged_inventory(effect, ports)
    # In the empty mount point of a share that went away the seal is read back just as well.
    ports.transport.require_marker(expected_marker_id=ports.marker_id())
    # The very text that the NAS has: what another program saved meanwhile is not overwritten, and the seal is made anew.
    saved = ports.creations.put_text(effect.run_path, synced)
    return Sealed(effect.turn, saved.before, saved.after)


def _manifest_anew(effect: Seal, inventory: Inventory, ports: Ports, control: Control) -> bytes:
    """Return the manifest that the verifier could not keep, made from the local files; its digest says that it is the same."""
    here = ports.digester.digests(effect.run_path, inventory.files, control=control)
    text = format_manifest(here)
    if manifest_digest(text) != effect.manifest_digest:
        raise ManifestLostError(
            "the manifest is lost from the state folder, and the local files are not those that were proven: compare them "
            "with the NAS copy.",
        )
    ports.manifests.save(effect.job_id, text)
    return text


def write_status(effect: WriteStatus, ports: Ports) -> SavedCreation:
    """Make `creation.json` say what the state says. Raises: CreationFileError, RootUnavailableError."""
    ports.require_root()
    return ports.creations.set_sync_status(effect.run_path, effect.sync_status)


def _present(ports: Ports, destination: str) -> dict[str, tuple[int, int | None]]:
    listing = ports.transport.listing(destination)
    return {path: (file.size_bytes, file.mtime_ns) for path, file in listing.items()}
