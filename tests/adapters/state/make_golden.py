"""Writes the state folder that is kept under `tests/data`: 50 runs, every kind of trail line, every member of a record.

Run by hand, into an empty place: `python -m tests.adapters.state.make_golden PLACE`. What `tests/data` holds was written by
the code of version 0.1.0, before its rooms, and is never written anew: every later version must read it. A version that
writes more adds a folder of its own.

All states are reached by the rules (`decide`), all lines written by the store; only what no rule decides (a binding, a
move to another folder, an operator's command) is put here as the engine's parts put it. Long because it is one story.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from exlab_watch_agent import __version__
from exlab_watch_agent.adapters.local.cache_folder import FolderManifestStore
from exlab_watch_agent.adapters.state.chain import anchors_in, read_chain
from exlab_watch_agent.adapters.state.holder import say
from exlab_watch_agent.adapters.state.layout import TRAIL_NAME, StateLayout
from exlab_watch_agent.adapters.state.recovery import load
from exlab_watch_agent.adapters.state.segments import TrailReader, find_segments
from exlab_watch_agent.adapters.state.slots import STORE_SCHEMA
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.adapters.transports.shared.own_files import MARKER_FILE
from exlab_watch_agent.core.binding import BY_ITSELF
from exlab_watch_agent.core.claim import DestinationStanding
from exlab_watch_agent.core.commands import command_of
from exlab_watch_agent.core.completeness import Completeness
from exlab_watch_agent.core.creation import Creation, OverrideEntry, RunIdentity, SavedCreation
from exlab_watch_agent.core.decide import decide
from exlab_watch_agent.core.events import (
    AuditDue,
    CopyWrong,
    EffectFailed,
    Event,
    Inspected,
    LocalChosen,
    PrecheckPassed,
    Pushed,
    RetryRequested,
    RunVanished,
    Sealed,
    Verified,
)
from exlab_watch_agent.core.facts import (
    DestinationBound,
    Fact,
    IdentityChanged,
    OperatorCommand,
    OverrideFound,
    OverridesRemoved,
    PassesVoided,
    RootBound,
    RunMoved,
    Transition,
)
from exlab_watch_agent.core.gate import Finding, OffendingKind, Rule
from exlab_watch_agent.core.inventory import FileSignature
from exlab_watch_agent.core.manifest import Agreement, Comparison, format_manifest, manifest_digest
from exlab_watch_agent.core.passes import HowRead, Pass, Uptime
from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.errors import FailureKind
from exlab_watch_agent.ports import Entry
from exlab_watch_agent.statechart import CHART, RunState
from tests.adapters.state import todays_writers as writers

START = datetime(2026, 4, 17, 14, 32, 11, 250_000, tzinfo=UTC)
STEP = timedelta(seconds=7, microseconds=1001)
SEGMENT_BYTES = 40_000
POLICY = Policy(retry_schedule_s=(30.0, 120.0, 480.0, 1800.0, 7200.0))
BOOT_ID = "0b6f0d0e-5c1b-4f0f-9a39-2f6f1f0a7c11"
ON_THE_WAY = ("queued", "running", "prechecking", "awaiting_verify", "sealing", "verified")
NAMES = ("README.md", "raw/λ 01.tif")
WIN_PATH = "D:\\lab\\WIN_03\\PROJ-7\\Runs\\"
NOT_UNICODE = "Run_2026-04-17T14-04 \udcff"

OLD_ROOT = "WIN_03 /mnt/old-nas/WIN_03"

A_RUN = "a known run"
"""Stands in a request for the job id of the run that the generator names."""
COMMANDS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("scan",), {"command": "scan"}),
    (("scan", "--accept-root", "SCOPE_01"), {"command": "scan", "accept_root": "SCOPE_01"}),
    (("sync", A_RUN), {"command": "sync", "run_path": f"{writers.LAB}/SCOPE_01/P-42/Runs/Run_2026-04-17T14-25"}),
    (
        ("sync", "{lab}/SCOPE_01/P-42/Runs/Run_2026-04-20T08-00"),
        {"command": "look", "run_path": f"{writers.LAB}/SCOPE_01/P-42/Runs/Run_2026-04-20T08-00"},
    ),
    (("retry", A_RUN), {"command": "retry", "job_id": A_RUN}),
    (("retry", "--all"), {"command": "retry", "all": True}),
    (("verify", A_RUN), {"command": "verify", "job_id": A_RUN}),
    (
        ("resolve", A_RUN, "--use", "local", "--reason", "rescanned — new"),
        {"command": "resolve", "job_id": A_RUN, "reason": "rescanned — new"},
    ),
    (
        ("resolve", "--accept-trail", "--reason", "looked at it"),
        {"command": "accept_trail", "reason": "looked at it"},
    ),
    (("bind", "SCOPE_01", "--yes"), {"command": "bind", "equipment": "SCOPE_01"}),
)
"""Every command of the command line that a running agent is asked to obey, and what it is asked."""
BY_PROGRAMS: tuple[dict[str, Any], ...] = (
    {"command": "enqueue", "run_path": f"{writers.LAB}/SCOPE_01/P-42/Runs/Run_2026-04-17T14-24"},
    {"command": "retry", "job_id": f"{48:032x}"},
)
"""What `client.py` asks of its own agent, without a file."""
HARD_RULES = (
    Rule.SYMLINK_IN_RUN,
    Rule.SPECIAL_FILE_IN_RUN,
    Rule.CASE_COLLISION,
    Rule.ILLEGAL_FILESYSTEM_CHARACTER,
    Rule.MODE_PREFIX_MISMATCH,
    Rule.LEFTOVER_JINJA_MARKER,
    Rule.UNRESOLVED_PLACEHOLDER_TOKEN,
)


def plain(value: Any) -> Any:
    """Return a record, or anything in one, as plain JSON values: every member, also those that equal their default."""
    if isinstance(value, RunRecord):
        return plain(asdict(value) | {name: float(getattr(value, name)) for name in ("wait_s", "verified_uptime_s")})
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, dict):
        return {key: plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    return value


def plain_history(moves: Sequence[Move]) -> dict[str, Any]:
    """Return a history in short, and a digest of every word of it."""
    words = [plain([move.at, move.trigger, move.source, move.dest, move.reason, move.operator]) for move in moves]
    return {"moves": [f"{move.trigger} {move.dest}" for move in moves], "digest": hexes(json.dumps(words), 32)}


def hexes(text: str, length: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def line(fact: Fact, record: RunRecord | None = None, *, operator: str | None = None) -> Entry:
    """Return the line that says this, as a pass of the engine hands it to the store."""
    return Entry(fact.kind, record, fact.move if isinstance(fact, Transition) else None, operator, fact.data())


class Story:
    """What happens, told one thing after the other: each is a commit of its own, unless it is said otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.at = START
        self.records: dict[str, RunRecord] = {}
        self.numbers: dict[str, int] = {}
        self.store: RunStore | None = None
        self.manifests = FolderManifestStore(StateLayout(folder).manifests)

    def now(self) -> datetime:
        return self.at

    @contextmanager
    def life(self) -> Iterator[RunStore]:
        """An agent's life over the folder; it ends without a checkpoint."""
        self.store = RunStore(self.folder, segment_bytes=SEGMENT_BYTES)
        self.store.open()
        try:
            yield self.store
        finally:
            self.store.close()
            self.store = None

    def commit(self, *entries: Entry) -> None:
        assert self.store is not None
        self.at += STEP
        self.store.commit(entries, at=self.at)
        for entry in entries:
            if entry.record is not None:
                self.records[entry.record.job_id] = entry.record

    # --- one run ----------------------------------------------------------------------------------------------------------

    def discover(
        self, number: int, *, equipment_id: str = "SCOPE_01", leaf: str = "", kind: str = "experimental"
    ) -> str:
        job_id = f"{number:032x}"
        leaf = leaf or f"Run_2026-04-17T14-{number:02d}"
        project, run_path = "P-42", f"{writers.LAB}/{equipment_id}/P-42/Runs/{leaf}"
        if equipment_id == "WIN_03":
            project, run_path = "PROJ-7", WIN_PATH + leaf
        record = RunRecord(
            job_id=job_id,
            run_path=run_path,
            equipment_id=equipment_id,
            project=project,
            run_kind=kind,
            identity=RunIdentity(f"2026-04-17T14:{number:02d}:00Z", "asmith", "8c7e", leaf),
            entered_at=self.at,
            discovered_at=self.at,
        )
        self.numbers[job_id] = number
        move = Move(self.at, "discovered", None, record.state, "creation.json was noticed")
        self.commit(line(Transition(move), record))
        return job_id

    def step(self, job_id: str, event: Event) -> list[Entry]:
        """Return the entry of what follows from the event, as the desk makes it."""
        step = decide(self.records[job_id], event, now=self.at, policy=POLICY)
        assert step.move is not None, f"{event} moves nothing in {self.records[job_id].state}"
        settled = step.record.state is RunState.VERIFIED
        number = self.numbers[job_id]
        signature = FileSignature(1_776_436_331_250_000_000 + number, 1893, 131_072 + number)
        record = replace(step.record, creation_signature=signature if settled else None)
        return [line(Transition(step.move), record, operator=step.move.operator)]

    def feed(self, job_id: str, *events: Event | Callable[[RunRecord], Event]) -> None:
        for event in events:
            made = event(self.records[job_id]) if callable(event) else event
            self.commit(*self.step(job_id, made))

    def up_to(self, job_id: str, state: str) -> str:
        """Bring a run from where it is on to this state, with nothing in the way."""
        ways: dict[str, Event | Callable[[RunRecord], Event]] = {
            "acquiring": seen,
            "blocked": seen,
            "queued": wanted,
            "running": lambda record: Pushed(record.turn),
            "prechecking": lambda record: PrecheckPassed(record.turn),
            "awaiting_verify": equal,
            "sealing": lambda record: Sealed(
                record.turn, SavedCreation(FileSignature(1, 2, 3), FileSignature(4, 5, 6))
            ),
        }
        while (at := self.records[job_id].state.value) != state:
            assert at not in ON_THE_WAY or ON_THE_WAY.index(at) < ON_THE_WAY.index(state)
            self.feed(job_id, ways[at])
        return job_id

    def new(self, number: int, state: str, **options: Any) -> str:
        return self.up_to(self.discover(number, **options), state)


# --- what the runs are told ------------------------------------------------------------------------------------------------


def number_of(record: RunRecord) -> int:
    return int(record.job_id, 16)


def fingerprint_of(record: RunRecord) -> str:
    return hexes(f"inventory of {record.job_id}", 32)


def manifest_of(record: RunRecord) -> bytes:
    return format_manifest({name: hexes(f"{record.job_id} {name}", 64) for name in NAMES})


def seen(record: RunRecord, **changes: Any) -> Inspected:
    creation = Creation(
        schema_version="1.8",
        schema_minor=7,
        level="run",
        run_kind=record.run_kind,
        identity=record.identity,
        has_lims_project=True,
        project_name="Übersicht",
        sync_status=record.sync_status,
        overrides=changes.pop("overrides", ()),
    )
    event = Inspected(creation, Completeness(True), (), fingerprint_of(record), 2, 1_234_567 + number_of(record))
    return replace(event, **changes)


def wanted(record: RunRecord, **changes: Any) -> Inspected:
    path = "/".join(record.run_path.replace("\\", "/").rsplit("/", 3)[1:])
    return seen(record, **{"destination": DestinationStanding.FREE, "destination_path": path, **changes})


def refused(rule: Rule) -> Callable[[RunRecord], Inspected]:
    return lambda record: seen(record, findings=(finding(record, rule),))


def finding(record: RunRecord, rule: Rule) -> Finding:
    detail = f"raw/CON is refused by {rule}: rename it."
    return Finding(rule, rule.tier, record.run_path, "raw/CON", OffendingKind.FILE_NAME, "CON", detail)


def proof_of(record: RunRecord, digest: str, total: int) -> Pass:
    uptime = Uptime(BOOT_ID, 86_400.25 + number_of(record))
    return Pass(
        f"{record.job_id}/{record.turn}", record.entered_at, record.entered_at, uptime.boot_id, uptime.seconds,
        uptime.seconds, "m" * 32, "/mnt/nas", digest, 2, total, HowRead.O_DIRECT, past_cache=True,
    )  # fmt: skip


def compared(agreement: Agreement, **changes: Any) -> Callable[[RunRecord], Verified]:
    names = {name: changes.pop(name) for name in tuple(changes) if name.startswith(("local_", "remote_"))}

    def event(record: RunRecord) -> Verified:
        digest = manifest_digest(manifest_of(record)) if agreement is Agreement.EQUAL else ""
        found = Comparison(agreement, **names)
        number = number_of(record)
        total = 1_234_567 + number
        made = Verified(record.turn, found, digest, fingerprint_of(record), 2, total)
        if agreement is Agreement.EQUAL:
            made = replace(made, proof=proof_of(record, digest, total))
        return replace(made, **changes)

    return event


equal = compared(Agreement.EQUAL)


def failed(kind: FailureKind, message: str, **changes: Any) -> Callable[[RunRecord], EffectFailed]:
    return lambda record: EffectFailed(record.turn, kind, message, **changes)


AUDIT = AuditDue()
NETWORK = failed(FailureKind.NETWORK, "the NAS did not answer", detail="ssh: connect to host nas01\nline two")


# --- the story -------------------------------------------------------------------------------------------------------------


def first_life(story: Story) -> None:
    """The roots become known; some runs are on their way when the end of the trail is lost behind the checkpoint."""
    with story.life() as store:
        for number, equipment_id in enumerate(writers.EQUIPMENT):
            bound = RootBound(equipment_id, volume=f"fd0{number}.1a2b.{number + 2}")
            story.commit(line(bound, operator="asmith" if number == 1 else None))
        # As the first version bound roots: nobody was asked.
        for root in (root_of("WIN_03"), OLD_ROOT):
            story.commit(Entry("destination_bound", data={"root": root, "marker_id": "aa" * 16}))
        bind(story, "SCOPE_01", writers.MARKER_ID)
        bind(story, "SENTINEL_02", "bb" * 16, operator="asmith")
        story.discover(1)
        story.new(2, "queued", kind="test", equipment_id="SENTINEL_02")
        store.checkpoint()
        story.feed(f"{2:032x}", lambda record: seen(record, completeness=Completeness(False, "no data files yet")))
        story.new(24, "queued")
        store.checkpoint()
    lines = (story.folder / TRAIL_NAME).read_bytes().splitlines(keepends=True)
    (story.folder / TRAIL_NAME).write_bytes(b"".join(lines[:-1]))


def second_life(story: Story) -> None:
    """The damage is found, deletion held, the state accepted; then most of the runs live."""
    with story.life() as store:
        assert store.hold is not None
        story.at += STEP
        store.accept_trail("asmith", "the lines were compared with the NAS — complete", story.at)
        acquiring_and_blocked(story)
        queued(story)
        on_their_way(story)
        store.checkpoint()


def third_life(story: Story) -> None:
    """After a crash in the middle of a commit; the two slots are both written, and lines follow the newer one."""
    with (story.folder / TRAIL_NAME).open("ab") as file:
        file.write(b'{"seq":9999,"prev":"half a line that was never acknowled')
    with story.life() as store:
        sealed(story)
        store.checkpoint()
        conflicts(story)
        store.checkpoint()
        failures(story)
        commands(story)
        for number in (34, 35, 36, 39, 40):
            story.discover(number)


def root_of(equipment_id: str) -> str:
    return f"{equipment_id} {writers.NAS}/{equipment_id}"


def bind(
    story: Story, equipment_id: str, marker_id: str, *, operator: str | None = None, before: Sequence[Entry] = ()
) -> None:
    bound = DestinationBound(root_of(equipment_id), marker_id, accepted_by=operator or BY_ITSELF)
    story.commit(*before, line(bound, operator=operator))


def acquiring_and_blocked(story: Story) -> None:
    first = f"{1:032x}"
    identity = replace(story.records[first].identity, created_by="bjones — later")
    story.commit(line(IdentityChanged(), replace(story.records[first], identity=identity)))
    gone = story.new(3, "queued")
    story.feed(gone, RunVanished(), lambda record: seen(record, fingerprint=hexes("another", 32)))
    story.discover(4, leaf=NOT_UNICODE)
    for number, rule in enumerate(HARD_RULES, start=5):
        story.feed(story.discover(number, equipment_id="SENTINEL_02"), refused(rule))
    declared = story.new(12, "awaiting_verify")
    story.feed(
        declared, compared(Agreement.EQUAL, declared_mismatches=("raw/λ 01.tif",)), refused(Rule.MANIFEST_HASH_MISMATCH)
    )
    overridden(story, story.discover(13))
    for number in (14, 15, 19, 23, 29, 33, 50):
        story.discover(number, equipment_id="WIN_03", kind="test")


OVERRIDE = OverrideEntry(
    0, "o-1", "reserved_filesystem_name", None, "asmith", "2026-04-17T15:00:00Z", "2026-10-18T09:14:22Z", "our name"
)
TOMBSTONE = OverrideEntry(1, "o-2", None, "o-1", "", "2026-04-17T16:00:00Z", None, "not any more")


def noted(story: Story, job_id: str, *overrides: OverrideEntry) -> list[Entry]:
    """Return the lines for the overrides that a record does not know of yet, as the engine writes them."""
    before = story.records[job_id].overrides_seen
    record = replace(story.records[job_id], overrides_seen=len(overrides))
    entries = [line(OverrideFound(entry), record, operator=entry.operator or None) for entry in overrides[before:]]
    if len(overrides) < before:
        entries.append(line(OverridesRemoved(before, len(overrides)), record))
    return entries


def overridden(story: Story, job_id: str) -> None:
    """Refused, let through, and refused again; line and move of one look are one commit."""
    rule = Rule.RESERVED_FILESYSTEM_NAME
    story.feed(job_id, refused(rule))
    for overrides in ((OVERRIDE,), (OVERRIDE, TOMBSTONE)):
        entries = noted(story, job_id, *overrides)
        assert entries[-1].record is not None
        story.records[job_id] = entries[-1].record
        event = seen(story.records[job_id], overrides=overrides, findings=(finding(story.records[job_id], rule),))
        story.commit(*entries, *story.step(job_id, event))


def rotten() -> Callable[[RunRecord], Verified]:
    return compared(Agreement.REMOTE_DIFFERS, remote_changed=("raw/λ 01.tif",))


def queued(story: Story) -> None:
    story.feed(story.new(16, "running"), failed(FailureKind.UNKNOWN, "it ended with 23", detail="rsync: vanished"))
    full = failed(FailureKind.DESTINATION_FULL, "there is no room on the NAS")
    story.feed(story.new(17, "running"), full)
    story.feed(story.new(18, "prechecking"), lambda record: CopyWrong(record.turn, "README.md is shorter there"))
    story.feed(story.new(20, "prechecking"), failed(FailureKind.NETWORK, "the NAS went away", is_destination_away=True))
    story.feed(
        story.new(21, "running"), failed(FailureKind.AUTH, "refused"), RetryRequested("asmith", "the key is back")
    )
    occupied = DestinationStanding.OCCUPIED
    taken = story.new(22, "queued")
    story.feed(
        taken, lambda record: wanted(record, destination=occupied), LocalChosen("asmith", "moved away — by hand")
    )


def on_their_way(story: Story) -> None:
    story.new(25, "running")
    story.feed(story.new(26, "verified"), AUDIT, rotten(), wanted)
    story.new(27, "prechecking")
    story.new(28, "awaiting_verify", equipment_id="WIN_03")
    story.feed(story.new(30, "sealing"), failed(FailureKind.UNKNOWN, "creation.json is locked", detail="by excel.exe"))


def sealed(story: Story) -> None:
    often, doubted, elsewhere, missed = (f"{number:032x}" for number in (32, 31, 37, 38))
    for job_id in (often, doubted):
        story.new(int(job_id, 16), "verified")
    for job_id in (elsewhere, missed):
        story.new(int(job_id, 16), "verified", equipment_id="WIN_03")
    story.at += timedelta(hours=25)
    story.feed(often, AUDIT, equal)
    story.at += timedelta(hours=25)
    story.feed(often, AuditDue("asmith", "before the fair"), equal)
    move_away(story, often)
    for overrides in ((OVERRIDE, TOMBSTONE), (OVERRIDE,)):
        story.commit(*noted(story, often, *overrides))
    unreadable = failed(FailureKind.UNKNOWN, "raw/λ 01.tif: Input/output error", detail="rc 5", is_copy_unreadable=True)
    story.feed(doubted, AUDIT, unreadable, AUDIT)
    bind(story, "WIN_03", "cc" * 16, operator="asmith", before=voided(story, "WIN_03", "cc" * 16))
    story.feed(elsewhere, AUDIT, compared(Agreement.EQUAL, skipped_oversize=("raw/λ 01.tif",)))
    story.feed(missed, AUDIT, compared(Agreement.LOCAL_GONE, local_missing=NAMES), equal)
    story.feed(missed, AUDIT, compared(Agreement.LOCAL_DIFFERS, local_changed=("README.md",)))
    story.feed(missed, compared(Agreement.EQUAL, seal_fault="its manifest is gone"))
    for job_id in (often, doubted, missed):
        story.manifests.save(job_id, manifest_of(story.records[job_id]))


def move_away(story: Story, job_id: str) -> None:
    before = story.records[job_id]
    to = before.run_path.replace("P-42", "P-43 Übersicht")
    story.commit(line(RunMoved(before.run_path, to), before.moved_to(to, "P-43 Übersicht")))


def voided(story: Story, equipment_id: str, marker_id: str) -> list[Entry]:
    assert story.store is not None
    fact = PassesVoided(root_of(equipment_id), marker_id)
    ids = story.store.ids_in((RunState.VERIFIED, RunState.CONFLICT), equipment_id)
    return [line(fact, replace(story.records[job_id], verify_passes=0)) for job_id in ids]


def conflicts(story: Story) -> None:
    changed = story.new(41, "verified")
    other = compared(
        Agreement.BOTH_DIFFER, local_added=("new.txt",), remote_missing=("README.md",), fingerprint=hexes("41", 32)
    )
    story.feed(changed, AUDIT, other)
    story.manifests.save(changed, manifest_of(story.records[changed]))
    story.manifests.note_wrong(changed, ["raw/λ 01.tif", "README.md", "b\udcff.bin"])
    holder = "job 77 of SCOPE_01 P-42/Runs/x, on lab-pc-2, sealed at 2026-04-16T10:00:00Z"
    for number, standing in ((42, DestinationStanding.OCCUPIED), (43, DestinationStanding.CLAIMED_BY_OTHER_AGENT)):
        job_id = story.new(number, "queued")
        story.feed(job_id, partial(wanted, destination=standing, holder=holder))
    claimed = failed(FailureKind.UNKNOWN, "claimed meanwhile (job 77)", conflict="claimed_unsealed")
    story.feed(story.new(44, "running"), claimed)


def failures(story: Story) -> None:
    story.feed(
        story.new(45, "running"), failed(FailureKind.AUTH, "the NAS refused the login", detail="Permission denied")
    )
    gone = compared(Agreement.LOCAL_GONE, local_missing=("README.md",), fingerprint=hexes("what is left", 32))
    story.feed(story.new(46, "awaiting_verify"), gone)
    story.feed(story.new(47, "running"), failed(FailureKind.BINARY_MISSING, "rsync is not there"))
    often = story.new(48, "running")
    for _ in range(4):
        story.feed(often, NETWORK, wanted)
    story.feed(often, NETWORK)
    story.feed(story.new(49, "prechecking"), wrong_copy, wanted)
    story.up_to(f"{49:032x}", "awaiting_verify")
    story.feed(f"{49:032x}", rotten())


def wrong_copy(record: RunRecord) -> CopyWrong:
    return CopyWrong(record.turn, "README.md is shorter there")


def commands(story: Story) -> None:
    """Every command of an operator and of a program, as lines. What they lead to was told already."""
    for _, request in COMMANDS:
        story.commit(line(OperatorCommand(command_of(filled(request))), operator="asmith"))
    for request in BY_PROGRAMS:
        story.commit(line(OperatorCommand(command_of(request)), operator="program"))


def filled(request: dict[str, Any]) -> dict[str, Any]:
    """Return the request with the job id of the run that it is about."""
    return {key: RUN_OF.get(request["command"], "") if value == A_RUN else value for key, value in request.items()}


RUN_OF = {"retry": f"{45:032x}", "verify": f"{32:032x}", "resolve": f"{41:032x}", "sync": f"{25:032x}", "look": ""}


def words_of(words: Sequence[str], request: dict[str, Any]) -> list[str]:
    return [RUN_OF[request["command"]] if word == A_RUN else word for word in words]


# --- what lies beside it -----------------------------------------------------------------------------------------------------


def leave_the_rest(story: Story, data: Path, scratch: Path) -> None:
    """Have the present writers leave requests, an answer, the views of a running agent, and what stands at the NAS."""
    folder = story.folder
    copy = Path(shutil.copytree(folder, scratch / "asked"))
    (scratch / "command").mkdir()
    left = writers.requests_left(copy, scratch / "command", [words_of(words, request) for words, request in COMMANDS])
    asked = [filled(request) | {"operator": "asmith"} for _, request in COMMANDS]
    assert [request for _, request in left] == asked
    (folder / "inbox").mkdir()
    names = [f"20260419T0930{number:02d}.000000-{number:08x}.json" for number in range(len(left))]
    for name, (_, request) in zip(names, left, strict=True):
        (folder / "inbox" / name).write_text(json.dumps(request))
    (folder / "inbox/.20260419T093100.000000-0000ffff.json.0123456789abcdef.tmp").write_bytes(b'{"comm')
    writers.answer_left(folder, names[0], {"ok": True, "message": "a scan was started"})
    told = writers.told_by_an_agent(Path(shutil.copytree(folder, scratch / "told")), scratch / "agent")
    (folder / "live.json").write_text(json.dumps(told["live.json"]))
    beat = json.dumps(told["heartbeat.json"], indent=2) + "\n"
    (folder / "heartbeat.json").write_text(beat)
    say(folder / "agent.json", told["agent.json"])
    (folder / "logs").mkdir()
    (folder / "logs/agent.log").write_text("2026-04-19 09:30:00,000 [INFO ] exlab_watch_agent.agent: agent stopped\n")
    note = {"token": "ab" * 16, "purpose": "rsync to nas01", "pid": 4711, "started": "no boot of any machine 1"}
    (folder / "children/0123456789abcdef").mkdir(parents=True)
    (folder / f"children/0123456789abcdef/{note['token']}.json").write_text(json.dumps(note))
    root = data / "state-v2-root/.exlab-wizard"
    root.mkdir(parents=True)
    (root / "watch-agent.json").write_text(json.dumps(told["watch-agent.json"]))
    leave_at_the_nas(story, data / "state-v2-nas", beat)


def leave_at_the_nas(story: Story, nas: Path, beat: str) -> None:
    record = story.records[f"{30:032x}"]
    there = writers.at_the_destination(record, manifest_of(record), trail_head())
    (nas / ".exlab-watch-agent").mkdir(parents=True)
    (nas / f".exlab-watch-agent/{writers.HOST}.json").write_text(beat)
    (nas / MARKER_FILE).write_bytes(there["marker"])
    for name, text in (("claimed", there["claim"]), ("sealed", there["sealed claim"])):
        (nas / name / ".exlab-wizard").mkdir(parents=True)
        (nas / name / ".exlab-wizard/exlab-watch-agent.json").write_bytes(text)


def trail_head() -> dict[str, Any]:
    return {
        "host": writers.HOST,
        "version": __version__,
        "chart": CHART.version,
        "audit_seq": 17,
        "audit_blake3": hexes("a line", 64),
        "sealed_at": "2026-04-18T10:00:00Z",
    }


def expected(story: Story) -> dict[str, Any]:
    """Return what every later version must read, spelled out; the records are those that were handed to the store."""
    loaded, found = load(story.folder), read_chain(story.folder, anchors_in(story.folder))
    assert not loaded.damage
    assert not loaded.hold
    assert not found.breaks
    lines = [line.fact for line in TrailReader(find_segments(story.folder)).lines()]
    markers, accepted_by = loaded.facts["markers"], loaded.facts["accepted_by"]
    bindings = {root: {"marker_id": markers[root], "accepted_by": accepted_by[root]} for root in markers}
    wrong = {job_id: sorted(story.manifests.wrong(job_id)) for job_id in story.records}
    return {
        "written_by": {"version": __version__, "chart": CHART.version, "schema": STORE_SCHEMA},
        "records": {job_id: plain(record) for job_id, record in sorted(story.records.items())},
        "histories": {job_id: plain_history(loaded.history(job_id)) for job_id in sorted(story.records)},
        "bindings": bindings,
        "volumes": loaded.facts["volumes"],
        "head": [found.head.seq, found.head.digest],
        "accounted": [[gap.seq, gap.found] for gap in found.accounted],
        "lines": {kind: kept_of(kind, lines) for kind in sorted({line["kind"] for line in lines})},
        "triggers": sorted({line["move"]["trigger"] for line in lines if "move" in line}),
        "manifests": {path.stem: manifest_digest(path.read_bytes()) for path in manifests_in(story.folder)},
        "wrong": {job_id: names for job_id, names in wrong.items() if names},
        "requests": {path.name: json.loads(path.read_text()) for path in sorted((story.folder / "inbox").glob("2*"))},
    }


def text_of(members: dict[str, Any]) -> str:
    """Return JSON with a line for each record, history and so on: readable, and a difference shows where it is."""
    parts = []
    for name, value in members.items():
        inner = (
            ",\n".join(f"  {json.dumps(key)}: {json.dumps(member)}" for key, member in value.items())
            if value and isinstance(value, dict)
            else ""
        )
        parts.append(f" {json.dumps(name)}: " + (f"{{\n{inner}\n }}" if inner else json.dumps(value)))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def kept_of(kind: str, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how many lines of a kind there are, and which members they and their data have together."""
    of_kind = [line for line in lines if line["kind"] == kind]
    members = sorted({name for line in of_kind for name in line})
    return {
        "count": len(of_kind),
        "members": members,
        "data": sorted({n for line in of_kind for n in line.get("data", {})}),
    }


def manifests_in(folder: Path) -> list[Path]:
    return sorted((folder / "manifests").glob("*.sha256"))


def main(data: Path) -> None:
    folder = data / "state-v2"
    if folder.exists():
        raise SystemExit(f"{folder} is there: it is never written anew.")
    story = Story(folder)
    with tempfile.TemporaryDirectory() as scratch, writers.fixed(story.now):
        first_life(story)
        second_life(story)
        third_life(story)
        leave_the_rest(story, data, Path(scratch))
        text = text_of(expected(story))
    (data / "state-v2-expected.json").write_text(text, encoding="ascii")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
