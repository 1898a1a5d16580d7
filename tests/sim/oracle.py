"""What must never happen, and what must be true in the end: told from the truth of the world, not from what the agent says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from exlab_watch_agent.adapters.transports.shared.own_files import claim_in
from exlab_watch_agent.core.claim import CLAIM_PATH
from exlab_watch_agent.core.decide import Step
from exlab_watch_agent.core.effects import Precheck, Push, Seal, Verify, Work
from exlab_watch_agent.core.events import (
    CopyWrong,
    EffectFailed,
    Outcome,
    PrecheckPassed,
    Pushed,
    Sealed,
    Verified,
)
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE, MANIFEST_FILE
from exlab_watch_agent.core.manifest import Agreement, format_manifest, manifest_digest
from exlab_watch_agent.core.passes import PASSES_APART_S, LocalSide
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.errors import FailureKind
from exlab_watch_agent.ports import Entry
from exlab_watch_agent.statechart import RunState, Trigger
from tests.sim.ports import sha256
from tests.sim.world import Nas, SimRun, Violation, World, status_in

EFFECT_STATES = {
    Push: {RunState.RUNNING},
    Precheck: {RunState.PRECHECKING},
    Verify: {RunState.AWAITING_VERIFY, RunState.AUDITING, RunState.CONFLICT, RunState.CLEANED},
    Seal: {RunState.SEALING},
}
HAVE_A_COPY = frozenset(
    {RunState.PRECHECKING, RunState.AWAITING_VERIFY, RunState.SEALING, RunState.VERIFIED, RunState.AUDITING}
)
NAS_TROUBLES = (FailureKind.NETWORK, FailureKind.DESTINATION_FULL, FailureKind.HASH_MISMATCH, FailureKind.AUTH)


def digest_of(content: Iterable[tuple[str, bytes]]) -> str:
    """The digest of the manifest that these data files have."""
    return manifest_digest(format_manifest({path: sha256(data) for path, data in content}))


def counts_as_attempt(outcome: Outcome) -> bool:
    """Whether an outcome is put down to the NAS as a failed attempt."""
    return isinstance(outcome, EffectFailed) and outcome.kind in NAS_TROUBLES and not outcome.is_destination_away


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
    status); `equal`: those while both sides were the same. `fingerprints`: the local ones at any moment of it. `was_gone`: at some
    moment of it the run's folder was not there, and `was_copy_right`: the copy was what had been sealed.
    """

    effect: Work
    nas: Nas
    was_always_away: bool
    began_s: float = 0.0
    fingerprints: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    equal: set[str] = field(default_factory=set)
    was_gone: bool = False
    was_copy_right: bool = False


class Oracle:
    """Watches every effect, every commit and every write."""

    def __init__(self, world: World, *, settle_s: float) -> None:
        self._world = world
        self.settle_s = settle_s
        self.acknowledged: dict[str, RunRecord] = {}
        self.markers: dict[str, str] = {}
        self.windows: list[Window] = []
        self._outcomes: dict[tuple[str, int], Outcome] = {}
        self._proven: dict[str, set[str]] = {}
        self._sealed: dict[str, str] = {}
        self._sealed_files: dict[str, dict[str, bytes]] = {}
        self._not_before: dict[str, tuple[float, int]] = {}
        self._passes: dict[str, tuple[int, float]] = {}
        self._equal_since_s: dict[str, float] = {}
        self.looking: list[str] = []
        self.was_admitted: dict[str, bool] = {}
        self.is_admitted: Callable[[SimRun], bool] = lambda _: True
        self.counts: dict[str, int] = {}

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def sealed_files(self, job_id: str) -> dict[str, bytes]:
        """Return path → content of what was sealed last, as far as the data were still that at the end of the seal."""
        return self._sealed_files.get(job_id, {})

    # --- effects -----------------------------------------------------------------------------------------------------

    def effect_begins(self, effect: Work) -> Window:
        record = self.acknowledged.get(effect.job_id)
        if record is None or record.turn < effect.turn:
            raise Violation(f"{effect} was begun before the move that asks for it was durable")
        if record.turn == effect.turn and record.state not in EFFECT_STATES[type(effect)]:
            raise Violation(f"{type(effect).__name__} was begun for a run that is {record.state}")
        if any(window.effect.job_id == effect.job_id for window in self.windows):
            raise Violation(f"two effects of one run at the same time: {effect}")
        nas = self._world.nas[effect.equipment_id]
        window = Window(effect, nas, nas.state != "up", self._world.clock.mono_s)
        self.windows.append(window)
        self._note_equality(window)
        return window

    def world_changes(self) -> None:
        """Called before anything changes: what holds now held at some moment of every effect that is under way."""
        for window in self.windows:
            self._note_equality(window)
        for path in self.looking:
            self._note_admission(path)

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
        sealed = self._sealed_files.get(window.effect.job_id, {})
        real = window.nas.below(window.effect.destination)
        window.was_copy_right |= all(path in real and real[path].data == data for path, data in sealed.items())
        if run is not None:
            window.fingerprints.add(run.inventory().fingerprint)
        if not isinstance(window.effect, Verify | Seal) or run is None or not run.files:
            return
        digest = digest_of(run.content)
        window.seen.add(digest)
        there = window.nas.below(window.effect.destination)
        if all(path in there and there[path].data == file.data for path, file in run.files.items()):
            window.equal.add(digest)

    def effect_ends(self, window: Window, outcome: Outcome | None) -> None:
        self._note_equality(window)
        self.windows.remove(window)
        if outcome is None:
            return
        effect, job_id = window.effect, window.effect.job_id
        is_away = window.nas.state != "up"
        self._outcomes[(job_id, effect.turn)] = outcome
        if window.was_always_away and not (isinstance(outcome, EffectFailed) and outcome.is_destination_away):
            raise Violation(f"{effect} was carried out while the NAS was away: {outcome}")
        self._check_fingerprint(window, outcome)
        if isinstance(outcome, Verified) and outcome.comparison.agreement is Agreement.EQUAL:
            if window.nas.source is not None:
                raise Violation(f"{effect} found both sides equal, and there is no copy elsewhere")
            if outcome.manifest_digest not in window.equal:
                raise Violation(f"{effect} found both sides equal, and at no moment they were")
            self._proven.setdefault(job_id, set()).add(outcome.manifest_digest)
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
        if window.effect.manifest_digest != self._sealed.get(window.effect.job_id) or not window.was_copy_right:
            raise Violation(f"{window.effect} found the copy right, and at no moment it was")
        if window.effect.local is LocalSide.READ and not window.was_gone:
            raise Violation(f"{window.effect} took the run for gone, and it was there all the time")

    def _check_fingerprint(self, window: Window, outcome: Outcome) -> None:
        """Success is about the data that were judged complete, not about whatever stands there now."""
        effect = window.effect
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

    def _check_seal(self, window: Window) -> None:
        effect = window.effect
        assert isinstance(effect, Seal)
        digest, run = effect.manifest_digest, self._world.runs.get(effect.run_path)
        if digest not in window.seen:
            raise Violation("sealed, and the local data were not those of the manifest any more when the NAS was told")
        if digest not in self._proven.get(effect.job_id, ()):
            raise Violation("sealed, and never proven")
        if wrong := self._what_is_not_sealed(window):
            raise Violation(f"sealed, and {wrong}")
        self._sealed[effect.job_id] = digest
        if run is not None and digest_of(run.content) == digest:
            self._sealed_files[effect.job_id] = {path: file.data for path, file in run.files.items()}

    @staticmethod
    def _what_is_not_sealed(window: Window) -> str:
        effect = window.effect
        assert isinstance(effect, Seal)
        manifest = window.nas.real.get(f"{effect.destination}/{CACHE_FOLDER}/{MANIFEST_FILE}")
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
            if window.effect.manifest_digest not in self._proven.get(window.effect.job_id, ()):
                raise Violation("synced was written for data that were never proven")
            if wrong := self._what_is_not_sealed(window):
                raise Violation(f"synced was written here before the NAS had the seal: {wrong}")
            return
        if not any(r.run_path == run.path and r.is_sealed for r in self.acknowledged.values()):
            raise Violation(f"synced was written to {run.path}, which was never sealed")

    def nas_is_written(self, nas: Nas, path: str, data: bytes) -> None:
        """The agent is about to write or to move aside a file at a destination."""
        if nas.source is not None:
            raise Violation(f"{path} is written or moved in the instrument's own folder")
        window = self._window_of((Push, Precheck, Verify, Seal), nas, path)
        if window is None:
            raise Violation(f"{path} was written outside the destination of any effect")
        if window.was_always_away and nas.state != "up":
            raise Violation(f"{path} is written under a mount point where no NAS was mounted from the beginning")
        if nas.state != "up":
            return
        destination = window.effect.destination
        name = path[len(destination) + 1 :]
        if name == f"{CACHE_FOLDER}/{CREATION_FILE}":
            window.seen.clear()
            self._note_equality(window)
            if status_in(data) == "synced" and not isinstance(window.effect, Seal):
                raise Violation("a creation.json that says synced was pushed without a seal")
            return
        if isinstance(window.effect, Precheck | Verify):
            raise Violation(f"{path} was moved aside by a comparison, before its verdict was on record")
        self._check_holder(window, nas, path)
        self._check_moved_aside(window, nas, path, name)
        if name.startswith(CACHE_FOLDER + "/") or nas.creation_status(destination) != "synced":
            return
        if isinstance(window.effect, Push):
            raise Violation(f"{path} is changed while the creation.json beside it says synced")

    def _check_moved_aside(self, window: Window, nas: Nas, path: str, name: str) -> None:
        """After a seal, a copy that is as it was proven makes room for other data only when an operator said so."""
        record = self.acknowledged[window.effect.job_id]
        proven = self._sealed_files.get(record.job_id, {}).get(name)
        if not record.is_sealed or proven is None or path not in nas.real or nas.real[path].data != proven:
            return
        run = self._world.runs.get(window.effect.run_path)
        if run is not None and name in run.files and run.files[name].data != proven:
            raise Violation(f"{path}, proven and sealed, makes room for other data without an operator's word")

    def _check_holder(self, window: Window, nas: Nas, path: str) -> None:
        """Where a claim of another job stands, nothing is written."""
        claim = nas.real.get(f"{window.effect.destination}/{CLAIM_PATH}")
        holder = claim_in(claim.data) if claim is not None else None
        if holder is not None and holder.job_id != window.effect.job_id:
            raise Violation(f"{path} is written, and its destination is claimed by {holder.job_id}")

    # --- commits -----------------------------------------------------------------------------------------------------

    def committed(self, entries: Sequence[Entry]) -> None:
        """These entries are durable and acknowledged now."""
        for entry in entries:
            if entry.kind == "destination_bound":
                self.markers[entry.data["root"]] = entry.data["marker_id"]
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
        if move.trigger == Trigger.PROVEN and after.manifest_digest not in self._proven.get(after.job_id, ()):
            raise Violation("proven, and no comparison found that")
        if move.trigger == Trigger.SEALED and self._sealed.get(after.job_id) != after.manifest_digest:
            raise Violation("verified, and the NAS was sealed with another manifest")
        if move.trigger == Trigger.LOCAL_GONE and after.identity.created_by not in self._world.taken_from:
            raise Violation(f"{after.run_path} counts as removed, and nobody removed it")
        self._check_passes(Trigger(move.trigger), after, outcome)
        self._check_start(Trigger(move.trigger), before, after)
        if move.trigger == Trigger.GAVE_UP and after.last_error is not None:
            is_vanished = after.last_error.kind == FailureKind.LOCAL_FILE_VANISHED
            if is_vanished and after.identity.created_by not in self._world.taken_from:
                raise Violation(f"{after.run_path} failed as vanished, and nobody took anything away: {move.reason}")
        self._check_wait(move.trigger, after)

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
        """Whoever has a copy at a destination holds the claim there: so no two runs share one."""
        for record in self.acknowledged.values():
            if record.state not in HAVE_A_COPY:
                continue
            claim = self._world.nas[record.equipment_id].real.get(f"{record.destination}/{CLAIM_PATH}")
            holder = claim_in(claim.data) if claim is not None else None
            if holder is None or holder.job_id != record.job_id:
                raise Violation(f"{record.destination} of {record.job_id} is claimed by {holder}")

    # --- at every step -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        for run in self._world.runs.values():
            there = {path: file.data for path, file in run.files.items()}
            if there != run.truth:
                raise Violation(f"data of {run.path} were lost here: {set(run.truth) - set(there)}")
        self._check_claims()
        for nas in self._world.nas.values():
            if lost := nas.lost():
                raise Violation(f"content was lost on the NAS: {lost}")
            for destination, authors in nas.owners.items():
                if len(authors) > 1:
                    raise Violation(f"{destination} holds data of the runs of {sorted(authors)}")

    def store_was_read(self, records: dict[str, RunRecord], in_flight: Sequence[Entry]) -> None:
        """After a kill: what is there is what was acknowledged, and the commit that was on its way as a whole or not."""
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
    manifest = nas.real.get(f"{destination}/{CACHE_FOLDER}/{MANIFEST_FILE}")
    if manifest is None or manifest_digest(manifest.data) != digest_of(run.content):
        wrong.append("the manifest")
    if nas.creation_status(destination) != "synced":
        wrong.append("creation.json on the NAS")
    if status_in(run.creation_text) != "synced":
        wrong.append("creation.json here")
    return wrong
