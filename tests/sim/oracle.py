"""What one agent must never do: told from the truth of the world, not from what the agent says.

What must be true of the copies, whoever made them, is in copies.py. Longer than other modules: it is one list of what must never
happen, and a part of it would be no list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from exlab_watch_agent.adapters.transports.shared.own_files import anchor_in, sealed_at_in
from exlab_watch_agent.core import heartbeat
from exlab_watch_agent.core.claim import CLAIM_PATH, Claim
from exlab_watch_agent.core.decide import Step
from exlab_watch_agent.core.effects import CarryCache, Precheck, Push, Seal, Verify, Work
from exlab_watch_agent.core.events import (
    CacheCarried,
    CopyWrong,
    EffectFailed,
    Outcome,
    PrecheckPassed,
    Pushed,
    Result,
    Sealed,
    Verified,
)
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_PATH, MANIFEST_PATH
from exlab_watch_agent.core.manifest import Agreement, format_manifest, manifest_digest
from exlab_watch_agent.core.passes import PASSES_APART_S, LocalSide
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.rollback import TrailPosition
from exlab_watch_agent.core.seal import kept_as
from exlab_watch_agent.errors import FailureKind
from exlab_watch_agent.ports import AgentSelf, Entry, RunStore
from exlab_watch_agent.statechart import RunState, Trigger
from tests.sim.copies import Copies, holder_at
from tests.sim.ports import sha256
from tests.sim.world import Nas, SimRun, Violation, World, status_in

sign_in = lru_cache(maxsize=4096)(heartbeat.sign_in)

EFFECT_STATES = {
    Push: {RunState.RUNNING},
    Precheck: {RunState.PRECHECKING},
    Verify: {RunState.AWAITING_VERIFY, RunState.AUDITING, RunState.CONFLICT, RunState.CLEANED},
    Seal: {RunState.SEALING},
}
HAVE_A_COPY = frozenset(
    {RunState.PRECHECKING, RunState.AWAITING_VERIFY, RunState.SEALING, RunState.VERIFIED, RunState.AUDITING}
)
TAKEN = ("destination_occupied", "claimed_by_other_agent", "claimed_unsealed", "differs_from_sealed_copy")
NAS_TROUBLES = (FailureKind.NETWORK, FailureKind.DESTINATION_FULL, FailureKind.HASH_MISMATCH, FailureKind.AUTH)


def digest_of(content: Iterable[tuple[str, bytes]]) -> str:
    """The digest of the manifest that these data files have."""
    return manifest_digest(format_manifest({path: sha256(data) for path, data in content}))


def counts_as_attempt(outcome: Outcome) -> bool:
    """Whether an outcome is put down to the NAS as a failed attempt."""
    return isinstance(outcome, EffectFailed) and outcome.kind in NAS_TROUBLES and not outcome.is_destination_away


def is_of_others(record: RunRecord) -> bool:
    """Whether a run is in a conflict in which the destination is not its own to write to, whatever is said of the data."""
    return record.last_error is not None and record.last_error.kind in TAKEN


def is_ahead(anchor: TrailPosition, store: RunStore) -> bool:
    """Whether a copy was sealed at a line that the trail here does not have: the state folder is an older copy, or a twin."""
    return anchor.seq > store.position.seq or store.digest_at(anchor.seq) != anchor.digest


def _is_difference(outcome: Outcome | None) -> bool:
    """Whether a comparison found both sides other than proven."""
    return isinstance(outcome, CopyWrong) or (
        isinstance(outcome, Verified)
        and outcome.comparison.agreement is not Agreement.EQUAL
        and not _is_copy_right(outcome)
    )


def _is_copy_right(outcome: Outcome | None) -> bool:
    """Whether a comparison without a local side found at the destination all that the manifest names."""
    return (
        isinstance(outcome, Verified)
        and outcome.local is LocalSide.MANIFEST
        and outcome.comparison.agreement is Agreement.LOCAL_GONE
    )


@dataclass
class Window:
    """One effect while it is carried out.

    `seen`: the manifest digests of the local data at any moment of it (of a seal: since the NAS copy was told its
    status); `here`: those at any moment of all of it; `equal`: those while both sides were the same, and what they were.
    `fingerprints`: the local ones at any moment of it. `was_changed`: another copy of the NAS was mounted meanwhile.
    `was_silent`: at some moment whoever else claims the copy gave no sign of life. `anchor`: the line of the agent's own
    trail that was in the claim when it began. `was_gone`: at some moment of it the run's folder was not there, and
    `was_copy_right`: the copy was what had been sealed.
    """

    effect: Work | CarryCache
    nas: Nas
    was_always_away: bool
    began_s: float = 0.0
    fingerprints: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    here: set[str] = field(default_factory=set)
    equal: dict[str, dict[str, bytes]] = field(default_factory=dict)
    was_changed: bool = False
    was_silent: bool = False
    anchor: TrailPosition | None = None
    was_gone: bool = False
    was_copy_right: bool = False


class Oracle:
    """Watches every effect, every commit and every write of one agent. `me`: who that is."""

    def __init__(self, world: World, copies: Copies, *, settle_s: float, counts: dict[str, int]) -> None:
        self._world = world
        self._copies = copies
        self.settle_s = settle_s
        self.me = AgentSelf()
        self.acknowledged: dict[str, RunRecord] = {}
        self._is_replaced = False
        self.windows: list[Window] = []
        self._outcomes: dict[tuple[str, int], Outcome] = {}
        self._sealed: dict[str, str] = {}
        self._unclaimed: set[str] = set()
        self._anchors: dict[tuple[str, int], TrailPosition] = {}
        self._must_be_held = False
        self.store: RunStore | None = None
        self._not_before: dict[str, tuple[float, int]] = {}
        self._passes: dict[str, tuple[int, float]] = {}
        self._equal_since_s: dict[str, float] = {}
        self.looking: list[str] = []
        self.was_admitted: dict[str, bool] = {}
        self.is_admitted: Callable[[SimRun], bool] = lambda _: True
        self.counts = counts

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # --- effects -----------------------------------------------------------------------------------------------------

    def effect_begins(self, effect: Work) -> Window:
        record = self.acknowledged.get(effect.job_id)
        if record is None or record.turn < effect.turn:
            raise Violation(f"{effect} was begun before the move that asks for it was durable")
        if record.turn == effect.turn and record.state not in EFFECT_STATES[type(effect)]:
            raise Violation(f"{type(effect).__name__} was begun for a run that is {record.state}")
        if any(window.effect.job_id == effect.job_id and not self._may_meet(window, effect) for window in self.windows):
            raise Violation(f"two effects of one run at the same time: {effect}")
        nas = self._world.nas[effect.equipment_id]
        window = Window(effect, nas, nas.state != "up", self._world.clock.mono_s)
        window.anchor = self._anchor_at(nas, effect)
        self.windows.append(window)
        self._note_equality(window)
        return window

    @staticmethod
    def _may_meet(window: Window, effect: Work) -> bool:
        """What only reads the data may begin while a cache folder is on its way."""
        return isinstance(window.effect, CarryCache) and isinstance(effect, Precheck | Verify)

    def carrying_begins(self, effect: CarryCache) -> Window:
        record = self.acknowledged.get(effect.job_id)
        if record is None or not record.is_sealed:
            raise Violation(f"a cache folder travels of a run that was never sealed: {effect}")
        others = [window.effect for window in self.windows if window.effect.job_id == effect.job_id]
        if any(not isinstance(other, Verify) for other in others):  # an audit only reads: see `_may_meet`
            raise Violation(f"a cache folder travels while its run is worked on: {effect}")
        nas = self._world.nas[effect.equipment_id]
        window = Window(effect, nas, nas.state != "up", self._world.clock.mono_s)
        self.windows.append(window)
        self._note_equality(window)
        return window

    def carrying_ends(self, window: Window, result: Result | None) -> None:
        effect = window.effect
        assert isinstance(effect, CarryCache)
        self._note_equality(window)
        self.windows.remove(window)
        if isinstance(result, CacheCarried) and result.form != effect.form:
            if window.was_always_away:
                raise Violation(f"a cache folder was brought while the NAS was away: {effect}")
            self.count("a cache folder travelled")

    def world_changes(self) -> None:
        """Called before anything changes: what holds now held at some moment of every effect that is under way."""
        for window in self.windows:
            self._note_equality(window)
        for path in self.looking:
            self._note_admission(path)

    def nas_was_changed(self, nas: Nas) -> None:
        """Another copy of it is mounted. What was proven and claimed there may not be so any more, and no agent can tell."""
        for window in self.windows:
            window.was_changed |= window.nas is nas
        self._unclaimed |= {
            record.job_id for record in self.acknowledged.values() if self._world.nas[record.equipment_id] is nas
        }

    def look_begins(self, path: str) -> None:
        self.was_admitted[path] = False
        self.looking.append(path)
        self._note_admission(path)

    def look_ends(self, path: str) -> None:
        self._note_admission(path)
        self.looking.remove(path)

    def _note_admission(self, path: str) -> None:
        """Would the gate let the run through at any moment of the look before its push?"""
        run = self._world.runs.get(path)
        self.was_admitted[path] |= run is not None and self.is_admitted(run)

    def _note_equality(self, window: Window) -> None:
        if window.nas.state == "up":
            window.was_always_away = False
        run = self._world.runs.get(window.effect.run_path)
        window.was_gone |= run is None
        window.was_copy_right = window.was_copy_right or self._copies.is_right(window.nas, window.effect)
        if run is not None:
            window.fingerprints.add(run.inventory().fingerprint)
        window.was_silent = window.was_silent or self._is_silent(window)
        if run is None or not run.files:
            return
        digest = digest_of(run.content)
        window.seen.add(digest)
        window.here.add(digest)
        if not isinstance(window.effect, Verify | Seal):
            return
        there = window.nas.below(window.effect.destination)
        if all(path in there and there[path].data == file.data for path, file in run.files.items()):
            window.equal[digest] = {path: file.data for path, file in run.files.items()}

    def _is_silent(self, window: Window) -> bool:
        """Whether the agent that claims the copy gives no sign of life that must be believed."""
        destination = window.effect.destination
        holder, now = holder_at(window.nas, destination), self._world.clock.now()
        if holder is None or self.is_mine(holder, window.effect.job_id):
            return False
        read = [sign_in(file.data) for path, file in window.nas.real.items() if path.startswith(heartbeat.FOLDER + "/")]
        signs = [sign for sign in read if sign is not None and sign.state_folder == holder.state_folder]
        if not signs:
            return not heartbeat.is_recent(sealed_at_in(window.nas.claim_at(destination) or b""), now=now)
        # A sign that was left on this very machine is that of a folder which was lost here, or is ours now.
        return all(sign.machine == self.me.machine or now - sign.at > heartbeat.SILENT_FOR for sign in signs)

    def effect_ends(self, window: Window, outcome: Outcome | None) -> None:
        self._note_equality(window)
        self.windows.remove(window)
        if outcome is None:
            return
        effect, job_id = window.effect, window.effect.job_id
        assert not isinstance(effect, CarryCache), "that ends as no work does"
        is_away = window.nas.state != "up"
        self._outcomes[(job_id, effect.turn)] = outcome
        is_audit = isinstance(effect, Verify) and bool(effect.manifest_digest)
        if is_audit and window.anchor is not None and window.anchor == self._anchor_at(window.nas, effect):
            self._anchors[job_id, effect.turn] = window.anchor
        if window.was_changed:
            self._unclaimed.add(job_id)
        if window.was_always_away and not (isinstance(outcome, EffectFailed) and outcome.is_destination_away):
            raise Violation(f"{effect} was carried out while the NAS was away: {outcome}")
        self._check_fingerprint(window, outcome)
        if isinstance(outcome, Verified) and outcome.comparison.agreement is Agreement.EQUAL:
            if window.nas.source is not None:
                raise Violation(f"{effect} found both sides equal, and there is no copy elsewhere")
            files = window.equal.get(outcome.manifest_digest)
            if files is None and not window.was_changed:
                raise Violation(f"{effect} found both sides equal, and at no moment they were")
            self._copies.prove(job_id, window.nas, effect.destination, outcome.manifest_digest, files or {})
            self._equal_since_s[job_id] = window.began_s
        elif _is_copy_right(outcome):
            self._check_only_copy(window)
            self._equal_since_s[job_id] = window.began_s
        elif is_away and isinstance(outcome, Verified | CopyWrong):
            raise Violation(f"what a NAS that is away does not show was believed to be damage: {outcome}")
        elif is_away and counts_as_attempt(outcome):
            raise Violation(f"the NAS is away, and that counts as an attempt: {outcome}")
        if isinstance(outcome, Sealed):
            self._check_seal(window)

    def _check_only_copy(self, window: Window) -> None:
        """What is called the only copy is one, and is what was sealed."""
        assert isinstance(window.effect, Verify)
        if not window.was_copy_right and not window.was_changed:
            raise Violation(f"{window.effect} found the copy right, and at no moment it was")
        if window.effect.local is LocalSide.READ and not window.was_gone:
            raise Violation(f"{window.effect} took the run for gone, and it was there all the time")

    @staticmethod
    def _anchor_at(nas: Nas, effect: Work) -> TrailPosition | None:
        holder, data = holder_at(nas, effect.destination), nas.claim_at(effect.destination)
        return anchor_in(data) if holder is not None and data is not None and holder.job_id == effect.job_id else None

    def _check_fingerprint(self, window: Window, outcome: Outcome) -> None:
        """Success is about the data that were judged complete, not about whatever stands there now."""
        effect = window.effect
        assert not isinstance(effect, CarryCache)
        is_about_judged = isinstance(outcome, Pushed | PrecheckPassed | Sealed) or (
            isinstance(outcome, Verified) and isinstance(effect, Verify) and not effect.manifest_digest
        )
        if is_about_judged and effect.fingerprint not in window.fingerprints:
            raise Violation(f"{outcome} is about data that nobody judged complete")

    def decided(self, record: RunRecord, event: object, step: Step) -> None:
        """A move that follows from work must follow from the work of this very turn."""
        if step.move is None or not isinstance(event, Outcome):
            return
        if self._outcomes.get((record.job_id, record.turn)) is not event:
            raise Violation(f"{step.move.trigger} in turn {record.turn} follows from the work of another: {event}")
        anchor = self._anchors.get((record.job_id, record.turn)) if isinstance(event, Verified) else None
        if anchor is not None and self.store is not None and self.store.ahead is None:
            self._must_be_held |= is_ahead(anchor, self.store)

    def _check_seal(self, window: Window) -> None:
        effect = window.effect
        assert isinstance(effect, Seal)
        digest = effect.manifest_digest
        if digest not in window.seen:
            raise Violation("sealed, and the local data were not those of the manifest any more when the NAS was told")
        if digest not in self._copies.proven.get(effect.job_id, ()):
            raise Violation("sealed, and never proven")
        if not window.was_changed and (wrong := self._what_is_not_sealed(window)):
            raise Violation(f"sealed, and {wrong}")
        self._sealed[effect.job_id] = digest

    @staticmethod
    def _what_is_not_sealed(window: Window) -> str:
        effect = window.effect
        assert isinstance(effect, Seal)
        manifest = window.nas.real.get(f"{effect.destination}/{MANIFEST_PATH}")
        if manifest is None or manifest_digest(manifest.data) != effect.manifest_digest:
            return "the NAS has another manifest"
        return "" if window.nas.creation_status(effect.destination) == "synced" else "the NAS does not say synced"

    # --- writes ------------------------------------------------------------------------------------------------------

    def _window_of(self, kinds: tuple[type, ...], nas: Nas, path: str) -> Window | None:
        for window in reversed(self.windows):
            is_below = path.startswith(window.effect.destination + "/")
            if isinstance(window.effect, kinds) and window.nas is nas and is_below:
                return window
        return None

    def status_is_written(self, run: SimRun, sync_status: str) -> None:
        """The agent is about to write a status into a local `creation.json`."""
        if sync_status != "synced":
            return
        sealing = [w for w in self.windows if isinstance(w.effect, Seal) and w.effect.run_path == run.path]
        if sealing:
            window = sealing[-1]
            assert isinstance(window.effect, Seal)
            self._note_equality(window)
            if window.effect.manifest_digest not in window.seen:
                raise Violation("synced was written, and at no moment of the seal the data were those of the manifest")
            if window.effect.manifest_digest not in self._copies.proven.get(window.effect.job_id, ()):
                raise Violation("synced was written for data that were never proven")
            if not window.was_changed and (wrong := self._what_is_not_sealed(window)):
                raise Violation(f"synced was written here before the NAS had the seal: {wrong}")
            return
        if not any(r.run_path == run.path and r.is_sealed for r in self.acknowledged.values()):
            raise Violation(f"synced was written to {run.path}, which was never sealed")

    def nas_is_written(self, nas: Nas, path: str, data: bytes) -> None:
        """The agent is about to write or to move aside a file at a destination."""
        if nas.source is not None:
            raise Violation(f"{path} is written or moved in the instrument's own folder")
        window = self._window_of((Push, Precheck, Verify, Seal, CarryCache), nas, path)
        if window is None:
            raise Violation(f"{path} was written outside the destination of any effect")
        if window.was_always_away and nas.state != "up":
            raise Violation(f"{path} is written under a mount point where no NAS was mounted from the beginning")
        if nas.state != "up":
            return
        destination = window.effect.destination
        name = path[len(destination) + 1 :]
        self._check_holder(window, nas, path, name)
        effect = window.effect
        if isinstance(effect, CarryCache) and name == MANIFEST_PATH and manifest_digest(data) != effect.manifest_digest:
            raise Violation(f"{path} is replaced by a manifest that nobody proved")
        if name == CREATION_PATH:
            window.seen.clear()
            self._note_equality(window)
            if status_in(data) == "synced" and not isinstance(window.effect, Seal | CarryCache):
                raise Violation("a creation.json that says synced was pushed without a seal")
            if status_in(data) != "synced" and isinstance(window.effect, CarryCache):
                raise Violation(f"{path} would stop saying synced, and nothing is wrong with the copy")
            return
        if isinstance(window.effect, Precheck | Verify):
            raise Violation(f"{path} was moved aside by a comparison, before its verdict was on record")
        if name.startswith(CACHE_FOLDER + "/"):
            self._check_kept(window, nas, path, data)
            return
        if isinstance(window.effect, CarryCache):
            raise Violation(f"{path} is written with a cache folder, and is none of its files")
        self._check_sealed_copy(window, nas, path, name)
        if isinstance(window.effect, Push) and nas.creation_status(destination) == "synced":
            raise Violation(f"{path} is changed while the creation.json beside it says synced")

    def _check_sealed_copy(self, window: Window, nas: Nas, path: str, name: str) -> None:
        """A copy that anybody proved and sealed is changed by nobody but to heal it, from data that are what was sealed; all
        else needs an operator's word."""
        key = nas.name, window.effect.destination
        sealed = self._copies.sealed.get(key)
        if sealed is None or window.was_changed or self._copies.is_unknown(nas, window.effect.destination):
            return
        self._note_equality(window)
        if sealed.digest not in window.here:
            raise Violation(f"{path}, proven and sealed by {sealed.job_id[-4:]}, makes room without an operator's word")
        file = nas.real.get(path)
        if file is not None and file.data == sealed.files.get(name) and path not in nas.volume.unreadable:
            self.count("an intact file of a sealed copy made room")

    def _check_holder(self, window: Window, nas: Nas, path: str, name: str) -> None:
        """Where others claim the destination nothing is written, but to take a proven copy over from one that is silent."""
        holder, effect = holder_at(nas, window.effect.destination), window.effect
        if holder is None or self.is_mine(holder, effect.job_id):
            return
        is_over = isinstance(effect, Push | Seal) and effect.adopts_from == holder.job_id and bool(effect.adopts)
        if not is_over or not name.startswith(CACHE_FOLDER + "/"):
            raise Violation(f"{path} is written, and its destination is claimed by {holder.job_id}")
        assert isinstance(effect, Push | Seal)
        if effect.adopts not in window.here:
            raise Violation(f"{path} is taken over from {holder.job_id}, and what is here is not what was sealed there")
        if not window.was_silent:
            raise Violation(f"{path} is taken over from {holder.job_id}, and that agent is at work")

    def is_mine(self, claim: Claim, job_id: str) -> bool:
        return claim.job_id == job_id and claim.state_folder in ("", self.me.state_folder)

    def _check_kept(self, window: Window, nas: Nas, path: str, data: bytes) -> None:
        """What another agent left beside its copy, and ours replaces, is kept. (Claim and status are told anew.)"""
        effect, there = window.effect, nas.real.get(path)
        is_over = isinstance(effect, Push | Seal) and bool(effect.adopts)
        if not is_over or there is None or there.data == data or path.endswith(CLAIM_PATH):
            return
        sealed = self._copies.sealed.get((nas.name, effect.destination))
        if sealed is not None and sealed.job_id != effect.job_id and not window.was_changed:
            name = path.removeprefix(effect.destination + "/")
            if kept_as(effect.destination, name, sha256(there.data)) not in nas.real:
                raise Violation(f"{path}, which another agent left there, is replaced and kept nowhere")

    # --- commits -----------------------------------------------------------------------------------------------------

    def committed(self, entries: Sequence[Entry]) -> None:
        """These entries are durable and acknowledged now."""
        if self._must_be_held and self.store is not None and self.store.hold is None:
            raise Violation("a copy was sealed at a line that the trail does not have, and deletion is not held")
        self._must_be_held = False
        for entry in entries:
            if entry.record is not None:
                self._check_entry(entry, self.acknowledged.get(entry.record.job_id))
                self.acknowledged[entry.record.job_id] = entry.record

    def _check_entry(self, entry: Entry, before: RunRecord | None) -> None:
        after, move = entry.record, entry.move
        assert after is not None
        if move is None or before is None:
            return
        self.count(move.trigger)
        outcome = self._outcomes.get((before.job_id, before.turn))
        if after.attempts > before.attempts and isinstance(outcome, EffectFailed) and outcome.is_destination_away:
            raise Violation("an attempt was counted while the NAS was away")
        if move.trigger == Trigger.PROVEN and after.manifest_digest not in self._copies.proven.get(after.job_id, ()):
            raise Violation("proven, and no comparison found that")
        if before.is_cancelled and move.trigger != Trigger.RETRIED:
            raise Violation(f"{after.run_path} was cancelled, and goes on without anybody's word: {move.trigger}")
        self._check_seals(Trigger(move.trigger), before, after)
        if move.trigger == Trigger.LOCAL_GONE and after.identity.created_by not in self._world.taken_from:
            raise Violation(f"{after.run_path} counts as removed, and nobody removed it")
        self._check_passes(Trigger(move.trigger), after, outcome)
        self._check_start(Trigger(move.trigger), before, after)
        if move.trigger == Trigger.GAVE_UP and after.last_error is not None:
            is_vanished = after.last_error.kind == FailureKind.LOCAL_FILE_VANISHED
            if is_vanished and after.identity.created_by not in self._world.taken_from:
                raise Violation(f"{after.run_path} failed as vanished, and nobody took anything away: {move.reason}")
        self._check_wait(move.trigger, after)

    def _check_seals(self, trigger: Trigger, before: RunRecord, after: RunRecord) -> None:
        nas = self._world.nas[after.equipment_id]
        if trigger is Trigger.SEALED:
            if self._sealed.get(after.job_id) != after.manifest_digest:
                raise Violation("verified, and the NAS was sealed with another manifest")
            self._copies.seal(after.job_id, nas, after.destination, after.manifest_digest)
            self._unclaimed.discard(after.job_id)
        elif trigger is Trigger.LOCAL_CHOSEN and before.is_sealed and not (after.is_sealed or is_of_others(before)):
            holder = holder_at(nas, before.destination)
            if holder is None or self.is_mine(holder, after.job_id):  # it sealed the copy, or took it over by a proof
                self._copies.give_up(nas, before.destination)

    def _check_passes(self, trigger: Trigger, after: RunRecord, outcome: Outcome | None) -> None:
        """A pass is an equal comparison a minute after the last one; whatever was found different makes an end of all."""
        passes, at_s = self._passes.get(after.job_id, (0, 0.0))
        is_of_copy = trigger in (Trigger.LOCAL_GONE, Trigger.AUDITED) and _is_copy_right(outcome)
        if trigger in (Trigger.PROVEN, Trigger.DIFFERENCE_GONE, Trigger.SEAL_MISSED) or is_of_copy:
            passes += passes == 0 or self._world.clock.mono_s - at_s >= PASSES_APART_S
            at_s = self._equal_since_s[after.job_id]
        elif trigger is Trigger.CONFLICT_FOUND or _is_difference(outcome):
            passes = 0
        self._passes[after.job_id] = (passes, at_s)
        if after.verify_passes > passes:
            raise Violation(f"{after.run_path} counts {after.verify_passes} passes, and there were {passes}")

    def _check_start(self, trigger: Trigger, before: RunRecord, after: RunRecord) -> None:
        run = self._world.runs.get(after.run_path)
        if run is None:
            return
        if trigger is Trigger.ADMITTED and before.state is RunState.ACQUIRING:
            if run.stood_for_s(after.fingerprint, self._world.clock.mono_s) < self.settle_s:
                raise Violation(f"{after.run_path} counted as complete before it was quiet")
        elif trigger is Trigger.PUSH_STARTED and not self.was_admitted[after.run_path]:
            raise Violation(f"{after.run_path} is pushed, and the gate does not let it through")

    def _check_wait(self, trigger: str, after: RunRecord) -> None:
        job_id, now_s = after.job_id, self._world.clock.mono_s
        if trigger == Trigger.PUSH_STARTED and now_s < self._not_before.pop(job_id, (0.0, 0))[0] - 0.01:
            raise Violation(f"{job_id} is pushed again before its wait is over")
        if trigger == Trigger.PUT_BACK:
            self._not_before[job_id] = (now_s + after.wait_s, self._world.clock.jumps)
        elif trigger != Trigger.PUSH_STARTED:
            self._not_before.pop(job_id, None)

    def waits_are_void(self) -> None:
        """An operator does not want to wait."""
        self._not_before.clear()

    def agent_starts(self) -> None:
        """A wait outlives the agent, unless the wall clock jumped: then it may be shorter."""
        self._not_before = {
            job_id: (due_s, jumps)
            for job_id, (due_s, jumps) in self._not_before.items()
            if jumps == self._world.clock.jumps
        }

    def _check_claims(self) -> None:
        """Whoever has a copy at a destination holds the claim there, or did, as that says: so no two runs share one."""
        for record in self.acknowledged.values():
            if record.state not in HAVE_A_COPY or record.job_id in self._unclaimed or record.adopts:
                continue
            holder = holder_at(self._world.nas[record.equipment_id], record.destination)
            was_mine = holder is not None and any(former.job_id == record.job_id for former in holder.former)
            if holder is None or not (was_mine or self.is_mine(holder, record.job_id)):
                raise Violation(f"{record.destination} of {record.job_id} is claimed by {holder}")

    def _check_words(self) -> None:
        """No record says `synced` of what was never proven; `status` and the heartbeat say what the records say."""
        for record in self.acknowledged.values():
            if record.sync_status == "synced" and record.manifest_digest not in self._copies.proven.get(
                record.job_id, ()
            ):
                raise Violation(f"{record.run_path} is {record.state}, and was never proven")

    # --- at every step -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        for run in self._world.runs.values():
            there = {path: file.data for path, file in run.files.items()}
            if there != run.truth:
                raise Violation(f"data of {run.path} were lost here: {set(run.truth) - set(there)}")
        self._check_claims()
        self._check_words()

    def state_was_replaced(self) -> None:
        """Somebody put another state folder in the place of the agent's: what it acknowledged is not what it will know."""
        self.acknowledged = {}
        self._is_replaced = True
        self._outcomes.clear()
        self._not_before.clear()
        self._passes.clear()

    def store_was_read(self, records: dict[str, RunRecord], in_flight: Sequence[Entry]) -> None:
        """After a kill: what is there is what was acknowledged, and the commit that was on its way as a whole or not."""
        if self._is_replaced:
            self._is_replaced = False
            self.acknowledged = records
            self._passes = {record.job_id: (record.verify_passes, 0.0) for record in records.values()}
            self._unclaimed |= records.keys()  # what was claimed since, and by whom, this folder cannot know
            return
        if records == self.acknowledged:
            return
        on_its_way = {entry.record.job_id: entry.record for entry in in_flight if entry.record is not None}
        if records != self.acknowledged | on_its_way:
            raise Violation("the store is not what was acknowledged")
        self.acknowledged = records


def what_is_wrong(nas: Nas, destination: str, run: SimRun) -> list[str]:
    """What keeps the copy from being whole: every byte, the manifest, and both files that must say synced."""
    there = nas.below(destination)
    wrong = [p for p, file in run.files.items() if p not in there or there[p].data != file.data]
    manifest = nas.real.get(f"{destination}/{MANIFEST_PATH}")
    if manifest is None or manifest_digest(manifest.data) != digest_of(run.content):
        wrong.append("the manifest")
    if nas.creation_status(destination) != "synced":
        wrong.append("creation.json on the NAS")
    if status_in(run.creation_text) != "synced":
        wrong.append("creation.json here")
    return wrong
