"""The guards of the package, each with the edit that removes it. `guards.py` removes them and shows who finds that.

Decided here: what a guard is, and how it is removed; an edit takes away what the guard's name says and nothing beside it.
`test_guards.py` keeps the list true to the code. Longer than other modules: it is one list, and a part of it would be no guide.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path


class GuardError(Exception):
    """A guard's text is not in the code as the list says."""


@dataclass(frozen=True, slots=True)
class Edit:
    """`old` stands exactly once in `file` (a path in the package); `new` takes its place."""

    file: str
    old: str
    new: str

    def applied(self, text: str) -> str:
        """Return the text with the edit in it. Raises: GuardError."""
        count = text.count(self.old)
        if count != 1:
            raise GuardError(f"{self.file} has {count} times, and not once: {self.old!r}")
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Guard:
    """One rule of the package and the edit that removes it; `more`: further edits that belong to the same rule."""

    name: str
    file: str
    old: str
    new: str
    more: tuple[Edit, ...] = ()

    def removed_from(self, package: Path) -> dict[Path, str]:
        """Return the files that are other without the guard, with their text. Raises: GuardError."""
        texts: dict[Path, str] = {}
        for edit in (Edit(self.file, self.old, self.new), *self.more):
            path = package / edit.file
            try:
                texts[path] = edit.applied(texts.get(path) or path.read_text(encoding="utf-8"))
                ast.parse(texts[path])
            except (GuardError, OSError, SyntaxError) as error:
                raise GuardError(f"the guard {self.name!r} cannot be removed: {error}") from error
        return texts


GUARDS = (
    Guard(
        "outcomes of another turn are dropped",
        "core/decide.py",
        "if isinstance(event, Outcome) and event.turn != record.turn:",
        "if False:",
    ),
    Guard(
        "the marker is asked for before an effect",
        "acts/carry_out.py",
        "        ports.transport.require_marker(expected_marker_id=ports.marker_id())\n        if not (isinstance(effect, Verify)",
        "        if not (isinstance(effect, Verify)",
    ),
    Guard(
        "... and again before its outcome is believed",
        "acts/carry_out.py",
        "        if not isinstance(effect, Seal):\n",
        "        if False:\n",
    ),
    Guard(
        "... and after a failure, so that no attempt is consumed",
        "acts/carry_out.py",
        "        ask(expected_marker_id=ports.marker_id())\n",
        "        pass\n",
    ),
    Guard(
        "no attempt is counted while the NAS is away",
        "core/decide.py",
        "if event.is_destination_away or event.is_source_away:",
        "if event.is_source_away:",
        (
            Edit(
                "core/decide.py",
                "            if not event.is_destination_away:\n                failed = record.failed(error)",
                "            if True:\n                failed = record.failed(error)",
            ),
        ),
    ),
    Guard(
        "effects start only after the commit",
        "engine/loop.py",
        "            due = self._commit.make_durable()\n",
        "            due, self._commit._consequences = self._commit._consequences, []\n",
        (
            Edit(
                "engine/loop.py",
                "            self._start()\n            if self._commit.is_empty:\n",
                "            self._start()\n            later = self._commit._consequences[:]\n"
                "            if self._commit.make_durable() is None:\n                return\n"
                "            self._commit.then(*later)\n            if self._commit.is_empty:\n",
            ),
        ),
    ),
    Guard(
        "one effect at a time for each run",
        "engine/errands.py",
        "if effect is None or key in self._running:",
        "if effect is None or (key in self._running and not isinstance(effect, Push | Precheck | Verify | Seal)):",
    ),
    Guard(
        "working states do their work again at start",
        "engine/loop.py",
        "            self._errands.want(work, wait_s=_remaining(record, now) if isinstance(work, Seal) else 0.0)\n",
        "            pass\n",
    ),
    Guard(
        "a scan at start",
        "engine/loop.py",
        "        self._reconciling.want_scan(self.lanes)\n        self._start()\n",
        "        self._start()\n",
    ),
    Guard(
        "the tail of the trail is replayed",
        "adapters/state/recovery.py",
        "        loaded.documents.put(record, record_json(record), line.place)\n",
        "        pass\n",
    ),
    Guard(
        "a torn last line is cut off",
        "adapters/state/repair.py",
        "            self._cut_torn_tail()\n",
        "            pass\n",
    ),
    Guard(
        "quiet time before a run is complete",
        "engine/runs.py",
        "completeness = settled(completeness, quiet_s=quiet_s, settle_s=self._bench.policy.settle_s)",
        "pass",
    ),
    Guard(
        "the gate is asked again before a push",
        "core/decide.py",
        "    if refused is not None:\n        return refused\n    if event.destination is None:",
        "    if event.destination is None:",
    ),
    Guard(
        "a queued run's changes are seen",
        "core/decide.py",
        "    if not is_back and (changed is not None or not (event.completeness.is_complete or record.is_sealed)):",
        "    if False:",
    ),
    Guard(
        "fingerprint: push",
        "acts/push.py",
        "inventory = unchanged_inventory(effect, ports)",
        "inventory = ports.tree.inventory(effect.run_path)",
    ),
    Guard(
        "fingerprint: precheck",
        "acts/precheck.py",
        "    inventory = unchanged_inventory(effect, ports)\n",
        "    inventory = ports.tree.inventory(effect.run_path)\n",
        (
            Edit(
                "acts/precheck.py",
                "            unchanged_inventory(effect, ports)\n    if not wrong:",
                "    if not wrong:",
            ),
        ),
    ),
    Guard(
        "fingerprint: verify",
        "acts/verify.py",
        "    if not effect.manifest_digest and inventory.fingerprint != effect.fingerprint:",
        "    if False:",
    ),
    Guard(
        "fingerprint: seal, before",
        "acts/seal.py",
        "    inventory = unchanged_inventory(effect, ports)\n",
        "    inventory = ports.tree.inventory(effect.run_path)\n",
    ),
    Guard(
        "fingerprint: seal, after",
        "acts/seal.py",
        "    unchanged_inventory(effect, ports)\n    # The very text",
        "    # The very text",
    ),
    Guard(
        "the seal is read back from the NAS",
        "acts/seal.py",
        "    require_read_back(effect, told, ports)\n",
        "",
    ),
    Guard(
        "what is in the way is moved aside before a push",
        "acts/push.py",
        "    if plan.set_aside:\n",
        "    if False:\n",
    ),
    Guard(
        "damaged files are moved aside by the push",
        "acts/push.py",
        "wrong = ports.manifests.wrong(effect.job_id)",
        "wrong: frozenset[str] = frozenset()",
    ),
    Guard(
        "the verdict comes before the moving aside",
        "acts/copy.py",
        "ports.manifests.note_wrong(effect.job_id, paths)",
        "ports.transport.set_aside(effect.destination, paths)",
    ),
    Guard(
        "a conflict voids the passes",
        "core/decide.py",
        "found = record.with_error(error).with_passes_void().without_wait()",
        "found = record.with_error(error).without_wait()",
    ),
    Guard(
        "passes are apart by the uptime as well",
        "core/passes.py",
        "return passed_s >= PASSES_APART_S and (",
        "return (",
    ),
    Guard(
        "a sealed claim of another job is not taken over",
        "core/claim.py",
        "return DestinationStanding.CLAIMED_BY_OTHER_AGENT if look.is_sealed else",
        "return DestinationStanding.OURS if look.is_sealed else",
    ),
    Guard(
        "local `synced` only after the NAS has the seal",
        "acts/seal.py",
        "    ports.transport.clear_partials(effect.destination)  # a seal that was killed also leaves some\n",
        "    saved = ports.creations.put_text(effect.run_path, synced)\n    ports.transport.clear_partials(effect.destination)\n",
        (
            Edit(
                "acts/seal.py",
                "    saved = ports.creations.put_text(effect.run_path, synced)\n    return Sealed",
                "    return Sealed",
            ),
        ),
    ),
    Guard(
        "the marker is asked once more before local `synced`",
        "acts/seal.py",
        "    ports.transport.require_marker(expected_marker_id=ports.marker_id())\n",
        "",
    ),
    Guard(
        "a sealed copy that goes on saying synced is not changed",
        "acts/push.py",
        "    if look_there.is_sealed and copy_says_synced(effect, ports):\n",
        "    if False:\n",
    ),
    Guard(
        "the destination is shown not to be the source: before a push",
        "acts/push.py",
        "    if not look_there.is_empty:  # the run's own folder has its creation.json\n",
        "    if False:\n",
    ),
    Guard(
        "the destination is shown not to be the source: before an audit",
        "acts/verify.py",
        "        ports.apartness.require_run(effect.run_path, effect.destination)\n        look_there",
        "        look_there",
    ),
    Guard(
        "a copy stops saying synced before it changes",
        "acts/push.py",
        "        transport.replace(effect.run_path, _travelling(effect, ports), effect.destination, control=control)\n",
        "        pass\n",
    ),
    Guard(
        "after a seal, both sides are compared with the manifest",
        "core/decide.py",
        "record.fingerprint,\n        manifest_digest=record.sealed_as,",
        'record.fingerprint,\n        manifest_digest="",',
    ),
    Guard(
        "a sealed run that changed in the queue is a conflict",
        "core/decide.py",
        '        if record.is_sealed:\n            return _not_compared(record, "the local data changed after',
        '        if False:\n            return _not_compared(record, "the local data changed after',
    ),
    Guard(
        "a sealed run that failed or was blocked is not started over",
        "core/decide.py",
        "case RunState.FAILED if has_changed and not (record.is_sealed or record.is_cancelled):",
        "case RunState.FAILED if has_changed and not record.is_cancelled:",
        (
            Edit(
                "core/decide.py",
                "case RunState.BLOCKED if has_changed and not record.is_sealed:",
                "case RunState.BLOCKED if has_changed:",
            ),
        ),
    ),
    Guard(
        "whose the destination is (`standing`)",
        "core/claim.py",
        "    if look.claim is not None:\n        if look.claim.is_of(mine) and is_our_seal:\n",
        "    if look is not None:\n        if look is not None:\n",
    ),
    Guard(
        "a copied folder gets no share in its original's copy",
        "engine/runs.py",
        "if inspected.destination is not None and self._is_of_another_here(record, inspected):",
        "if False:",
    ),
    Guard(
        "a claim that came with a copied folder is not pushed",
        "acts/push.py",
        "ports.tree.cache_files(effect.run_path) if entry.path != CLAIM_PATH)",
        "ports.tree.cache_files(effect.run_path))",
    ),
    Guard(
        "a run that was moved is not gone: new folders are looked at first",
        "engine/reconciling.py",
        "        lane.put_first([*changed, *result.signalled])\n",
        "        lane.backlog.update(dict.fromkeys([*changed, *result.signalled]))\n",
    ),
    Guard(
        "a run that was moved is not gone: a late scan is not believed",
        "acts/scan.py",
        "if path not in effect.cleaned and not ports.scanner.is_there(path))",
        "if path not in effect.cleaned)",
    ),
    Guard(
        "a run folder that is not there does not fail its run at once",
        "acts/carry_out.py",
        "FailureKind.UNKNOWN, str(error), is_source_away=True)\n    except DestinationOccupiedError",
        "FailureKind.LOCAL_FILE_VANISHED, str(error))\n    except DestinationOccupiedError",
    ),
    Guard(
        "a wait after a failure outlives a restart",
        "engine/loop.py",
        "    return remaining_wait_s(due_at=record.next_attempt_at, wait_s=record.wait_s, now=now)\n",
        "    return 0.0\n",
    ),
    Guard(
        "a turn in the queue that is left over does not cut a wait short",
        "engine/turns.py",
        "        lane.queue.pop(record.job_id, None)\n",
        "",
    ),
    Guard(
        "an audit of a moving run is ended",
        "core/decide.py",
        "            if state is RunState.AUDITING:\n                return _judge_interrupted(record, event, now=now)\n",
        "",
    ),
    Guard(
        "audits",
        "engine/turns.py",
        "        if record.verified_at is None:\n            return\n",
        "        return\n",
    ),
    Guard(
        "a status that differs is put right",
        "core/decide.py",
        "    return (write_status(record),)\n",
        "    return ()\n",
    ),
    Guard(
        "a seal waits for a status that is on its way",
        "engine/errands.py",
        "if key in self._running or key in self._waiting:",
        "if False:",
    ),
    Guard(
        "scans ask whether the completeness signal has come",
        "acts/scan.py",
        "if (signal := signal_file(ports.equipment)) is not None:",
        "if (signal := None) is not None:",
    ),
    Guard(
        "a full scan looks at every run that is not settled",
        "engine/reconciling.py",
        "            lane.backlog.update((path, None) for path in unsettled if path not in lane.unsignalled)\n",
        "",
    ),
    Guard(
        "a queued run fails as vanished only when a second scan says so as well",
        "engine/reconciling.py",
        "        if is_first:\n",
        "        if is_first and may_have_moved:\n",
    ),
    Guard(
        "... and not while a folder that was never read may be that run",
        "engine/reconciling.py",
        "        elif not may_have_moved:\n",
        "        else:\n",
    ),
    Guard(
        "... and such a folder makes no scan follow the other without end",
        "engine/reconciling.py",
        "        if is_first:\n",
        "        if is_first or may_have_moved:\n",
    ),
    Guard(
        "before a run counts as new, its own place is asked once more",
        "engine/runs.py",
        "        if not answer.is_new_there:\n",
        "        if False:\n",
    ),
    Guard(
        "a run that is gone, or whose root is, does not count as settling",
        "engine/runs.py",
        "Note(RUN_GONE, problem))\n        self._memory_of(record.job_id).is_settling = False\n",
        "Note(RUN_GONE, problem))\n",
        (
            Edit(
                "engine/runs.py",
                "return record is not None and self._bench.lanes[record.equipment_id].is_ours",
                "return record is not None",
            ),
        ),
    ),
    Guard(
        "a look that took long puts no full scan's look off",
        "engine/looks.py",
        "min(LOOK_DUTY * took_s, self._bench.policy.rescan_s)",
        "LOOK_DUTY * took_s",
    ),
    Guard(
        "the marker is asked for between the claim and its reading back",
        "acts/push.py",
        "    transport.require_marker(expected_marker_id=ports.marker_id())\n    transport.require_claim",
        "    transport.require_claim",
    ),
    Guard(
        "after a conflict the seal is made anew",
        "core/decide.py",
        "            if event.seal_fault:\n",
        "            if False:\n",
    ),
    Guard(
        "an audit looks at the seal",
        "core/decide.py",
        "_seal_missed(proven, event, now=now) if event.seal_fault else right",
        "right",
    ),
    Guard(
        "damage that a comparison proved is kept as an incident",
        "core/decide.py",
        "    return record.with_incident(_damage(record, found, now=now))\n\n",
        "    return record\n\n",
    ),
    Guard(
        "verify looks at the run again after hashing; a file that vanished meanwhile is missed",
        "acts/verify.py",
        "    has_changed = len(here) != len(inventory.files) or after.fingerprint != inventory.fingerprint\n",
        "    has_changed = False\n",
    ),
    Guard(
        "a seal that is undone takes `synced` back at once",
        "core/decide.py",
        "((has_new_status or is_seal_undone) and not is_sealed_now and not is_nothing_there)",
        "(has_new_status and not is_sealed_now and not is_nothing_there)",
    ),
    Guard(
        "the kept manifest must have the digest that was proven",
        "adapters/local/cache_folder.py",
        "return data if hashlib.sha256(data).hexdigest() == digest else None",
        "return data",
    ),
    Guard(
        "the root is asked once more when work is taken up again, and when it is bound",
        "acts/probe.py",
        "    ports.apartness.require_root(anew=is_doubted)",
        "    pass",
        (
            Edit(
                "acts/probe.py",
                "    ports.apartness.require_root(is_first=True)\n    return Answered(ports.transport.bind(",
                "    return Answered(ports.transport.bind(",
            ),
        ),
    ),
    Guard(
        "a root that is taken up again is scanned in full",
        "engine/reconciling.py",
        "is_full=effect.is_full or not lane.is_ours,",
        "is_full=effect.is_full,",
    ),
    Guard(
        "a status is written where its run is by then",
        "engine/dispatch.py",
        "return replace(effect, run_path=record.run_path, sync_status=record.sync_status)",
        "return replace(effect, sync_status=record.sync_status)",
    ),
    Guard(
        "no answer replaces a binding that was accepted",
        "engine/destinations.py",
        "return accepted(lane.binding, lane.spelling) not in (None, marker_id)",
        "return False",
    ),
    Guard(
        "work that ended for no reason is done again",
        "engine/dispatch.py",
        "                self._bench.commit.then(work)\n            return\n",
        "                pass\n            return\n",
    ),
    Guard(
        "another question is asked beside one that hangs",
        "engine/destinations.py",
        "                silent.add(serial)\n",
        "                pass\n",
    ),
    Guard(
        "a root in doubt is held to what it was",
        "core/root.py",
        "return Doubted(event.reason, wait_s, volume_of(root))",
        "return Doubted(event.reason, wait_s)",
    ),
    Guard(
        "a run that moved on loses its turn for an audit",
        "engine/turns.py",
        "        lane.audits.pop(record.job_id, None)\n",
        "",
    ),
    Guard(
        "adoption: a copy is proven before it counts as ours",
        "core/decide.py",
        "    if event.destination is DestinationStanding.ADOPTABLE and not record.is_sealed:\n",
        "    if False:\n",
    ),
    Guard(
        "adoption: what differs from the sealed copy is a conflict",
        "core/decide.py",
        "    if is_whole_here:\n",
        "    if event.manifest_digest or agreement is not Agreement.EQUAL:\n",
    ),
    Guard(
        "adoption: only the copy that was to be taken over is",
        "acts/copy.py",
        "        and (claim.job_id, found.sealed_as) == (effect.adopts_from, effect.adopts)\n",
        "",
    ),
    Guard(
        "adoption: only from an agent that gives no sign of life",
        "acts/place.py",
        "            if at_work is not None and not at_work.is_so:",
        "            if at_work is not None:",
        (
            Edit(
                "acts/copy.py",
                "return is_the_one_adopted(effect, found) and not holder_at_work(found, ports).is_so",
                "return is_the_one_adopted(effect, found)",
            ),
        ),
    ),
    Guard(
        "... and that has not come back meanwhile",
        "acts/copy.py",
        "return is_the_one_adopted(effect, found) and not holder_at_work(found, ports).is_so",
        "return is_the_one_adopted(effect, found)",
    ),
    Guard(
        "... whose signs are told apart by the state folder, not by the host",
        "acts/copy.py",
        "    if sign.state_folder and claim.state_folder:\n",
        "    if False:\n",
    ),
    Guard(
        "adoption: what another agent left beside its copy is kept",
        "acts/copy.py",
        "        if entry.path == CLAIM_PATH:\n            continue\n        there =",
        "        if entry.path:\n            continue\n        there =",
    ),
    Guard(
        "a claim is ours by its state folder as well as by its job",
        "core/claim.py",
        "return is_same_folder and self.job_id == mine.job_id",
        "return self.job_id == mine.job_id",
    ),
    Guard(
        "a seal that our trail does not know is not ours",
        "acts/copy.py",
        "    return ports.agent.has_line(found.anchor)\n",
        "    return True\n",
    ),
    Guard(
        "deletion is held where a copy was sealed at a line that the trail does not have",
        "engine/commit.py",
        "            self.note(TrailFoundBehind(seen, found))\n",
        "            pass\n",
    ),
    Guard(
        "... whichever job of ours it was",
        "core/claim.py",
        "is_ours = self.claim.is_of(mine) or (bool(mine.state_folder) and self.claim.state_folder == mine.state_folder)",
        "is_ours = self.claim.is_of(mine)",
    ),
    Guard(
        "deletion is held where the state folder is on another machine",
        "adapters/state/store.py",
        'if home and self.machine not in ("", home, found_on):',
        "if False:",
    ),
    Guard(
        "a file that is listed and cannot be read at the second try is damage",
        "acts/read_back.py",
        "            self.unreadable |= set(paths)\n",
        "            raise\n",
    ),
    Guard(
        "a copy that cannot be read at all is damage at the second look",
        "core/decide.py",
        "            if record.attempts + 1 >= UNREADABLE_MAX:\n",
        "            if False:\n",
    ),
    Guard(
        "samples that cannot be read are left to the comparison",
        "acts/precheck.py",
        "        if error.kind in NOT_THE_COPY:\n            raise\n        return None\n",
        "        raise\n",
    ),
)
