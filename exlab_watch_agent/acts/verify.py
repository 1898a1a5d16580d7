"""Hashes every data file on both sides and compares; the proof itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from exlab_watch_agent.acts.cache_audit import altered_beside
from exlab_watch_agent.acts.copy import (
    NOT_THE_COPY,
    folders_to_list,
    look_unless_foreign,
    manifest_here,
    manifest_there,
    note_wrong,
    read_there,
    sealed_manifest,
)
from exlab_watch_agent.acts.inspect import EXPECTED_BYTES_MAX
from exlab_watch_agent.acts.read_back import read_back
from exlab_watch_agent.acts.replace_destination import is_missing
from exlab_watch_agent.acts.source import vanished
from exlab_watch_agent.core.binding import first_folder
from exlab_watch_agent.core.claim import DestinationLook
from exlab_watch_agent.core.completeness import judge as judge_completeness
from exlab_watch_agent.core.effects import SealedCopy, Verify
from exlab_watch_agent.core.events import EffectFailed, RunChanged, Verified
from exlab_watch_agent.core.inventory import FOLDERS_PATH, Inventory
from exlab_watch_agent.core.manifest import (
    Agreement,
    ExtraFiles,
    ManifestError,
    check_declared,
    compare,
    format_manifest,
    manifest_digest,
    parse_manifest,
    read_others_manifest,
)
from exlab_watch_agent.core.passes import LocalSide, Pass, ReadBack
from exlab_watch_agent.core.policy import CompletenessSignal
from exlab_watch_agent.core.seal import SealFound, seal_fault
from exlab_watch_agent.core.text import counted
from exlab_watch_agent.core.ways_out import ONLY_COPY_LOST, copy_lost, data_left
from exlab_watch_agent.errors import (
    FailureKind,
    ManifestLostError,
    ManifestNotKeptError,
    SourceChangedError,
    TransportError,
)
from exlab_watch_agent.ports import Control, Ports, RemoteFile

MOVING_NAMED_MAX = 20


def verify(effect: Verify, ports: Ports, control: Control) -> Verified | RunChanged | EffectFailed:
    """Hash every data file on both sides at once and compare with the manifest, if there is one.

    Before the first seal a change of the run ends it at once; after it, both sides are hashed as they are. Nothing is
    written there: the verdict comes first, and the names that are wrong are kept for the push that repairs.
    """
    started_at = ports.clock.now()
    if effect.local is LocalSide.MANIFEST or _is_gone(effect, ports):
        return _verify_the_copy_alone(effect, started_at, ports, control)
    if effect.is_audit and not ports.tree.has_data(effect.run_path) and is_missing(_copy_of(effect), ports):
        # Asked for first: without a run folder nothing else can be, and what looks like a failed audit is the loss of a run.
        lost = copy_lost(effect.destination)
        return EffectFailed(effect.turn, FailureKind.LOCAL_FILE_VANISHED, lost, conflict=ONLY_COPY_LOST)
    manifest = sealed_manifest(effect, ports) if effect.manifest_digest else None
    look_there = None
    if effect.manifest_digest or effect.adopts or effect.is_left_there:  # else the push asked a moment ago
        ports.apartness.require_run(effect.run_path, effect.destination)
        look_there = look_unless_foreign(effect, ports)
    if effect.adopts and not effect.manifest_digest:
        manifest = _manifest_of_the_copy(effect, ports)
    inventory = ports.tree.inventory(effect.run_path)
    below = ports.transport.below(first_folder(effect.destination))
    # What another made and what was proven long ago is listed by now; what we pushed may take a moment.
    is_of_others = effect.is_left_there or (effect.adopts and not effect.manifest_digest)
    due = () if effect.is_audit or is_of_others else inventory.files
    listing = ports.transport.listing(effect.destination, due=due, control=control)
    if not effect.manifest_digest and inventory.fingerprint != effect.fingerprint:
        gone = sorted(set(listing) - {entry.path for entry in inventory.files})
        if gone and not effect.adopts and not effect.is_left_there:
            return vanished(effect, f"{counted(len(gone), 'pushed file')} gone here (first: {gone[0]})", ports)
        return RunChanged(effect.turn, "the run changed since it counted as complete")
    wanted = sorted({entry.path for entry in inventory.files} | set(manifest or ()))
    asked, oversize = _to_be_read(wanted, listing, ports)
    try:
        here, there = control.side_by_side(
            control,
            lambda ours: _digests_here(effect, inventory, ports, ours),
            lambda theirs: read_back(effect.destination, asked, ports, theirs),
        )
    except TransportError as error:
        if error.kind not in NOT_THE_COPY and not effect.is_left_there:
            # A push that follows must not leave any of it where it is.
            note_wrong(effect, asked, ports)
        raise
    # A file that went away while it was read is missing among the digests: the shorter set must not pass as the run.
    after = ports.tree.inventory(effect.run_path)
    has_changed = len(here) != len(inventory.files) or after.fingerprint != inventory.fingerprint
    if has_changed and not (effect.manifest_digest and manifest):
        return RunChanged(effect.turn, "the run changed while it was verified")
    # Of what was not hashed there, the size must do for the comparison: it can fail the copy, and the skipped names keep
    # the run from counting as proven.
    sizes = {entry.path: entry.size_bytes for entry in inventory.files}
    unread = {p: (manifest or here).get(p, "") for p in oversize if sizes.get(p) == listing[p].size_bytes}
    remote = {**there.digests, **unread}
    if has_changed and manifest:
        moved = _of_what_stayed(effect, inventory, after, here, manifest, remote)
        if look_there is None or moved.stayed is None or moved.stayed.agreement is not Agreement.EQUAL:
            return moved  # what the seal says is asked for once the data are known to be right
        return replace(moved, seal_fault=_seal_fault(effect, after, look_there, ports))
    comparison = compare(local=here, manifest=manifest, remote=remote, remote_listing=listing)
    found = Verified(
        turn=effect.turn,
        comparison=comparison,
        manifest_digest="",
        fingerprint=inventory.fingerprint,
        files_total=inventory.files_total,
        bytes_total=inventory.bytes_total,
        skipped_oversize=oversize,
        anchor=None if look_there is None else look_there.anchor_of(ports.agent.signed(effect.claim)),
        is_by_manifest=manifest is not None,
        below=below,
    )
    with suppress(ManifestNotKeptError):  # It only names; the next comparison says it again.
        ports.manifests.keep_extra(effect.job_id, ExtraFiles.of(comparison.remote_extra))
    if effect.is_left_there and comparison.remote_changed:
        return replace(found, others_manifest=_what_others_manifest_says(effect, here, there.digests, ports))
    if effect.is_left_there and not oversize and comparison.agreement in (Agreement.EQUAL, Agreement.REMOTE_DIFFERS):
        # Every file there is this run's, as it is here: from now on nobody else may take it for free, or put other data there.
        ports.transport.place_claim(effect.destination, ports.agent.signed(effect.claim))
    if comparison.agreement is Agreement.REMOTE_DIFFERS:
        note_wrong(effect, comparison.remote_changed, ports)
        if effect.adopts and not effect.manifest_digest and manifest is not None:
            # What is here is what the copy was sealed with: from now on that binds us, as a seal of our own does.
            text = format_manifest(here)
            ports.manifests.save(effect.job_id, text)
            return replace(found, manifest_digest=manifest_digest(text))
    if comparison.agreement is not Agreement.EQUAL:
        # Nothing more is asked for: what else cannot be read at this moment must not take the place of the verdict.
        return found
    text = format_manifest(here)
    if not oversize:
        _keep(effect, text, ports)
    return replace(
        found,
        manifest_digest=manifest_digest(text),
        proof=_proof(effect, found, manifest_digest(text), there, started_at, ports),
        declared_mismatches=_declared_mismatches(here, inventory, ports, effect.run_path),
        overrides=ports.creations.read(effect.run_path).creation.overrides,
        seal_fault=_seal_fault(effect, inventory, look_there, ports) if look_there and effect.manifest_digest else "",
    )


def _digests_here(effect: Verify, inventory: Inventory, ports: Ports, control: Control) -> dict[str, str]:
    """Return path → SHA-256 of the local files; of a sealed run without those that change while they are read.

    Raises: SourceChangedError before the first seal.
    """
    try:
        return ports.digester.digests(effect.run_path, inventory.files, control=control)
    except SourceChangedError:
        if not effect.manifest_digest:
            raise
    found: dict[str, str] = {}
    for (
        entry
    ) in inventory.files:  # once more, each by itself: one that moves must not keep the others from being compared
        with suppress(SourceChangedError):
            found |= ports.digester.digests(effect.run_path, [entry], control=control)
    return found


def _of_what_stayed(
    effect: Verify,
    before: Inventory,
    after: Inventory,
    here: Mapping[str, str],
    manifest: Mapping[str, str],
    remote: Mapping[str, str],
) -> RunChanged:
    """Return how a sealed run that changed while it was hashed compares, but for the files that moved.

    One that is written all the time must not hide for good what becomes of the others, and of the copy of all.
    """
    stayed = {entry.path for entry in set(before.files) & set(after.files)} & here.keys()
    moving = sorted(({entry.path for entry in (*before.files, *after.files)} | here.keys()) - stayed)
    local = {path: here[path] for path in stayed} | {path: manifest[path] for path in moving if path in manifest}
    first = f" (first: {moving[0]})" if moving else ""
    what = counted(len(moving), "file") if moving else "a folder"
    return RunChanged(
        effect.turn,
        f"{what} changed here while the run was compared with its copy{first}",
        stayed=compare(local=local, manifest=manifest, remote=remote),
        moving=tuple(moving[:MOVING_NAMED_MAX]),
        fingerprint=before.fingerprint,
    )


def _copy_of(effect: Verify) -> SealedCopy:
    return SealedCopy(effect.job_id, effect.destination, effect.manifest_digest)


def _to_be_read(
    wanted: Sequence[str], listing: Mapping[str, RemoteFile], ports: Ports
) -> tuple[list[str], tuple[str, ...]]:
    """Return which of the wanted files that are there the NAS is asked for, and which are too large for that."""
    bytes_max = ports.transport.digest_bytes_max()
    existing = [path for path in wanted if path in listing]
    oversize = tuple(path for path in existing if bytes_max is not None and listing[path].size_bytes > bytes_max)
    return sorted(set(existing) - set(oversize)), oversize


def _is_gone(effect: Verify, ports: Ports) -> bool:
    """Return whether the run's folder, which two scans did not find, is not there now either."""
    return effect.may_be_gone and not ports.scanner.is_there(effect.run_path)


def _verify_the_copy_alone(
    effect: Verify, started_at: datetime, ports: Ports, control: Control
) -> Verified | RunChanged:
    """Hash every file of the manifest at the NAS, where nothing is left here to compare it with. Writes nothing there.

    To the comparison all local files are missing, so that it can never be taken for a proof of both sides.
    """
    ports.apartness.require_root()
    if left := _left_here(effect, ports):
        return RunChanged(effect.turn, left)
    look_there = look_unless_foreign(effect, ports)
    manifest = _manifest_without_the_run(effect, ports)
    below = ports.transport.below(first_folder(effect.destination))
    listing = ports.transport.listing(effect.destination)
    asked, oversize = _to_be_read(sorted(manifest), listing, ports)
    there = read_back(effect.destination, asked, ports, control)
    if effect.may_be_gone and not _is_gone(effect, ports):
        return RunChanged(effect.turn, "the run folder, which was gone, is there again")
    if left := _left_here(effect, ports):
        return RunChanged(effect.turn, left)
    remote = {**there.digests, **{path: manifest[path] for path in oversize}}
    comparison = compare(local={}, manifest=manifest, remote=remote, remote_listing=listing)
    found = Verified(
        turn=effect.turn,
        comparison=comparison,
        manifest_digest="",
        fingerprint=effect.fingerprint,
        files_total=len(manifest),
        bytes_total=sum(listing[path].size_bytes for path in (*asked, *oversize)),
        skipped_oversize=oversize,
        anchor=look_there.anchor_of(ports.agent.signed(effect.claim)),
        is_by_manifest=True,
        below=below,
        local=LocalSide.MANIFEST,
        chosen_by=effect.chosen_by,
        reason=effect.reason,
        is_folder_here=bool(effect.chosen_by) and ports.scanner.is_there(effect.run_path),
    )
    if comparison.agreement is not Agreement.LOCAL_GONE:
        return found
    return replace(
        found,
        manifest_digest=effect.manifest_digest,
        proof=_proof(effect, found, effect.manifest_digest, there, started_at, ports),
        seal_fault=_seal_fault(effect, None, look_there, ports),
    )


def _left_here(effect: Verify, ports: Ports) -> str:
    """Return in words which data are left here of a run whose sealed copy is to count; empty where none are, or none may count.

    Raises: RunUnreadableError where that cannot be told.
    """
    if not effect.chosen_by or not ports.scanner.is_there(effect.run_path):
        return ""
    inventory = ports.tree.inventory(effect.run_path)
    names = sorted([*(entry.path for entry in inventory.files), *(odd.path for odd in inventory.odd)])
    return data_left(names)


def _manifest_without_the_run(effect: Verify, ports: Ports) -> dict[str, str]:
    """Return the manifest that was sealed: as it is kept here, else as the copy has it, if its digest says that it is the one.

    Then it is kept here again. Raises: ManifestLostError.
    """
    kept = ports.manifests.load(effect.job_id, digest=effect.manifest_digest)
    data = kept or manifest_there(effect, ports)
    if data is None or manifest_digest(data) != effect.manifest_digest:
        raise ManifestLostError(
            "the manifest of this run is lost or was changed, in the state folder and on the NAS, and the run is gone here: "
            "what the NAS has cannot be proven any more.",
        )
    if not kept:
        with suppress(ManifestNotKeptError):
            ports.manifests.save(effect.job_id, data)
    return parse_manifest(data)


def _keep(effect: Verify, text: bytes, ports: Ports) -> None:
    """Keep the manifest, and forget what was wrong: both may fail.

    The seal makes the manifest anew, or fails with this very reason and is tried again; a list that stays does no harm.
    """
    with suppress(ManifestNotKeptError):
        ports.manifests.save(effect.job_id, text)
    with suppress(ManifestNotKeptError):
        ports.manifests.forget_wrong(effect.job_id)


def _seal_fault(effect: Verify, inventory: Inventory | None, look_there: DestinationLook, ports: Ports) -> str:
    """Return in words what is wrong with the copy's seal, asked for once its data are known to be right."""
    folders = None if inventory is None else folders_to_list(effect.run_path, inventory, ports)
    found = SealFound(
        is_claimed=look_there.claim is not None,
        claimed_digest=look_there.sealed_as,
        manifest_digest="" if (data := manifest_there(effect, ports)) is None else manifest_digest(data),
        says_synced=look_there.says_synced,
        lists_folders=folders is None or read_there(effect, FOLDERS_PATH, ports) == folders,
        altered=altered_beside(effect, ports, is_here=inventory is not None),
    )
    return seal_fault(found, manifest_digest=effect.manifest_digest)


def _proof(
    effect: Verify, found: Verified, proven: str, there: ReadBack, started_at: datetime, ports: Ports
) -> Pass | None:
    """Return what is kept of a comparison in which both sides, or the NAS and the manifest, agreed; None: not all was read."""
    if found.skipped_oversize:
        return None
    uptime = ports.clock.uptime()
    return Pass(
        id=f"{effect.job_id}/{effect.turn}",
        started_at=started_at,
        ended_at=ports.clock.now(),
        boot_id=uptime.boot_id,
        monotonic_s=uptime.seconds,
        uptime_sum_s=ports.ran_s(),
        marker_id=ports.marker_id() or "",
        spelling=ports.transport.describe(),
        manifest_sha256=proven,
        files=found.files_total,
        bytes=found.bytes_total,
        remote=there.how,
        past_cache=there.is_past_cache,
        nas_at=there.nas_at,
        local=found.local,
    )


def _manifest_of_the_copy(effect: Verify, ports: Ports) -> dict[str, str] | None:
    """Return the manifest that another agent's sealed copy was proven with; None where it is not there or was altered."""
    data = manifest_there(effect, ports)
    if data is None or manifest_digest(data) != effect.adopts:
        return None
    with suppress(ManifestError):
        return parse_manifest(data)
    return None


def _what_others_manifest_says(effect: Verify, here: Mapping[str, str], there: Mapping[str, str], ports: Ports) -> str:
    """Return which side of a difference a manifest of ExLab-Wizard's speaks for, as the end of a sentence; else nothing."""
    data = manifest_there(effect, ports) or manifest_here(effect, ports)
    manifest = read_others_manifest(data or b"")
    differing = [path for path, digest in here.items() if path in there and there[path] != digest]
    if differing and all(manifest.get(path) == here[path] for path in differing):
        return "; ExLab-Wizard's manifest speaks for what is here"
    if differing and all(manifest.get(path) == there[path] for path in differing):
        return "; ExLab-Wizard's manifest speaks for what is there"
    return ""


def _declared_mismatches(here: dict[str, str], inventory: Inventory, ports: Ports, run_path: str) -> tuple[str, ...]:
    if ports.equipment.signal is not CompletenessSignal.MANIFEST:
        return ()
    raw = ports.tree.read_small(run_path, ports.equipment.manifest_filename, limit_bytes=EXPECTED_BYTES_MAX)
    declared = judge_completeness(policy=ports.equipment, inventory=inventory, manifest=raw).declared
    return check_declared(declared, here)
