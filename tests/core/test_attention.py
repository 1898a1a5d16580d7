"""The one judgement of what needs a person: from when on it is told, how bad it is, what it is called, and what helps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from exlab_watch_agent.core.attention import Situation, attention
from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.discovery import place_of
from exlab_watch_agent.core.gate import Finding, Rule, orphan
from exlab_watch_agent.core.incidents import IncidentKind, incident_of
from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.core.problem import TIERS, Problem, Tier, verdict, worst
from exlab_watch_agent.core.record import LastError, RunRecord, SealTrouble
from exlab_watch_agent.core.rollback import ELSEWHERE
from exlab_watch_agent.core.run_problems import ADMITTED_NOW
from exlab_watch_agent.core.snapshot import (
    FolderProblem,
    LaneView,
    Note,
    ObserverView,
    RootHealth,
    SeenEarlier,
    Snapshot,
    UnreadableView,
)
from exlab_watch_agent.core.standing import (
    Ending,
    Gone,
    Hanging,
    NeverRan,
    Standing,
    Working,
    moment_of,
    standing_of_holder,
)
from exlab_watch_agent.core.ways_out import LOCAL_CHANGED
from exlab_watch_agent.core.week import Happening, Room, Week
from exlab_watch_agent.errors import DESTINATION_FULL
from exlab_watch_agent.statechart import RunState

NOW = datetime(2026, 4, 18, 12, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
RUN = "/data/SCOPE_01/P/Runs/Run_2026-04-17T14-32"
FULL, LOST = LastError("destination_full", "no room"), LastError("network", "the line broke")
WORKING, ENDING = Working(), Ending()


def record(state: RunState, path: str = RUN, **members: Any) -> RunRecord:
    identity = RunIdentity("2026-04-17T14:32:00Z", "asmith", "uid", "Run_2026-04-17T14-32")
    return RunRecord(f"job {path}", path, "SCOPE_01", "P", "experimental", identity, NOW, state=state, **members)


def situation(*records: RunRecord, agent: Standing = WORKING, **members: Any) -> Situation:
    known = members.pop("known_equipment", frozenset({"SCOPE_01"}))
    own = ("paused", "hold", "flags", "policy", "week", "has_config")
    beside = {name: members.pop(name) for name in own if name in members}
    at = moment_of(agent, NOW)
    return Situation(at, agent, records, Snapshot(**members), known_equipment=known, **beside)


def judged(*records: RunRecord, agent: Standing = WORKING, **members: Any) -> list[Problem]:
    return list(attention(situation(*records, agent=agent, **members)))


def codes(found: list[Problem]) -> list[tuple[str, str]]:
    return [(problem.tier.value, problem.code) for problem in found]


def an_orphan() -> Finding:
    place = place_of(RUN, {"SCOPE_01": "/data/SCOPE_01"})
    assert place is not None
    return orphan(place)


# --- a table of what is told, case by case ---------------------------------------------------------------------------

UNBOUND = LaneView("/nas/A", NOW - HOUR, "it was never used", "destination_unbound", "exlab-watch-agent bind SCOPE_01")
AWAY = LaneView("/nas/A", NOW - HOUR, "it was never used")
NO_ROOM = LaneView("/nas/A", NOW - HOUR, "/nas/A has 5 bytes free", DESTINATION_FULL.code, DESTINATION_FULL.command)
DEGRADED = ObserverView("native", True, roots={"SCOPE_01": RootHealth("native", True, "few watches", "sysctl x")})
MISPLACED_THERE = FolderProblem(
    "It is where no run can be.", "misplaced_creation", {"kind": "run_parent", "equipment_id": "SCOPE_01"}, (RUN,)
)
OF_NOBODY = FolderProblem(
    "The config has no such one.",
    "misplaced_creation",
    {"kind": "unknown_equipment", "equipment_id": "FLOW_01"},
    ("/data/FLOW_01/P/Runs/Run_1",),
)
OLD = NOW - 25 * HOUR
SHOW, RETRY = f"exlab-watch-agent show {RUN}", f"exlab-watch-agent retry {RUN}"
VERIFY = f"exlab-watch-agent verify {RUN}"
NO_COPY = LastError("only_copy_lost", "the only copy is not what was sealed")
RULE = Rule.UNRESOLVED_PLACEHOLDER_TOKEN.value

DAMAGE = incident_of(
    IncidentKind.COPY_DAMAGED, found_by="job/7", found_at=NOW - HOUR, what="a.bin differs", files=["a.bin"]
)
FILLING = (Room(NOW - 48 * HOUR, 3000), Room(NOW - HOUR, 1000))

CASES: list[tuple[str, Situation, tuple[str, str], str]] = [
    # what it is, all that is known, (tier, code), the command that helps
    ("nothing runs", situation(agent=Gone(NOW - HOUR, False)), ("needs_you", "agent_gone"), "exlab-watch-agent run"),
    ("stopped", situation(agent=Gone(NOW - HOUR, True)), ("notice", "agent_stopped"), "exlab-watch-agent run"),
    ("never ran", situation(agent=NeverRan()), ("needs_you", "agent_never_ran"), "exlab-watch-agent run"),
    ("hangs", situation(agent=Hanging(NOW - HOUR, 7)), ("needs_you", "agent_hanging"), "exlab-watch-agent status"),
    (
        "hold",
        situation(hold="a line is gone"),
        ("risk", "deletion_on_hold"),
        "exlab-watch-agent resolve --accept-trail",
    ),
    (
        "elsewhere",
        situation(hold=ELSEWHERE),
        ("risk", "deletion_on_hold"),
        'exlab-watch-agent resolve --accept-machine --reason "..."',
    ),
    ("full", situation(paused="since x: no room"), ("needs_you", "state_folder_full"), "exlab-watch-agent check"),
    ("NAS away", situation(lanes={"SCOPE_01": AWAY}), ("needs_you", "nas_unreachable"), "exlab-watch-agent check"),
    (
        "unbound",
        situation(lanes={"SCOPE_01": UNBOUND}),
        ("needs_you", "destination_unbound"),
        "exlab-watch-agent bind SCOPE_01",
    ),
    (
        "root away",
        situation(lanes={"SCOPE_01": LaneView(root_problem="It is not there.")}),
        ("needs_you", "root_unavailable"),
        "exlab-watch-agent check",
    ),
    (
        "root away by a fresh look",
        situation(roots_away={"SCOPE_01": "It is not there."}),
        ("needs_you", "root_unavailable"),
        "exlab-watch-agent check",
    ),
    ("watched badly", situation(observer=DEGRADED), ("needs_you", "observer_degraded"), "sysctl x"),
    (
        "no longer configured",
        situation(record(RunState.VERIFIED), known_equipment=frozenset()),
        ("needs_you", "equipment_unknown"),
        'exlab-watch-agent forget SCOPE_01 --reason "..."',
    ),
    (
        "of another schema",
        situation(path_problems={RUN: FolderProblem("It is 3.0.", "schema_major_mismatch", {"found": "3.0"})}),
        ("needs_you", "schema_major_mismatch"),
        f"exlab-watch-agent sync {RUN}",
    ),
    (
        "where no run can be",
        situation(path_problems={"/data/SCOPE_01/P/runs": MISPLACED_THERE}),
        ("needs_you", "misplaced_creation"),
        "exlab-watch-agent scan",
    ),
    (
        "of an instrument that the config lacks",
        situation(path_problems={"/data/FLOW_01": OF_NOBODY}),
        ("needs_you", "misplaced_creation"),
        "exlab-watch-agent check",
    ),
    ("unreadable", situation(unreadable={RUN: UnreadableView("Locked.", 3)}), ("needs_you", "unreadable"), SHOW),
    ("orphan", situation(orphans=(an_orphan(),)), ("notice", "orphan"), SHOW),
    (
        "blocked",
        situation(record(RunState.BLOCKED, last_error=LastError(RULE, "a token"))),
        ("needs_you", RULE),
        f'exlab-watch-agent override add {RUN} --class {RULE} --reason "..."',
    ),
    (
        "blocked by what no override is offered for",
        situation(record(RunState.BLOCKED, last_error=LastError("symlink_in_run", "a link"))),
        ("needs_you", "symlink_in_run"),
        SHOW,
    ),
    ("failed", situation(record(RunState.FAILED, last_error=LOST)), ("needs_you", "nas_sync_failed"), RETRY),
    (
        "conflict",
        situation(record(RunState.CONFLICT, last_error=LastError(LOCAL_CHANGED, "it changed"))),
        ("needs_you", LOCAL_CHANGED),
        f"exlab-watch-agent verify {RUN}",
    ),
    (
        "stale",
        situation(replace(record(RunState.ACQUIRING), entered_at=OLD)),
        ("needs_you", "stale"),
        SHOW,
    ),
    (
        "attempts fail",
        situation(record(RunState.QUEUED, attempts=2, last_error=LOST)),
        ("needs_you", "attempt_failed"),
        RETRY,
    ),
    (
        "the NAS is full",
        situation(record(RunState.QUEUED, last_error=FULL), lanes={"SCOPE_01": NO_ROOM}),
        ("needs_you", "destination_full"),
        "exlab-watch-agent check",
    ),
    (
        "a seal fails",
        situation(record(RunState.SEALING, attempts=2, last_error=LOST)),
        ("needs_you", "seal_failed"),
        SHOW,
    ),
    (
        "an audit fails",
        situation(record(RunState.VERIFIED, last_error=LOST)),
        ("needs_you", "audit_failed"),
        f"exlab-watch-agent verify {RUN}",
    ),
    *(
        (
            f"a seal that fails, while the run is {state}",
            situation(record(state, seal_trouble=SealTrouble(OLD, 2, "network", "no"))),
            ("needs_you", "seal_failed"),
            SHOW,
        )
        for state in (RunState.ACQUIRING, RunState.QUEUED, RunState.RUNNING, RunState.AWAITING_VERIFY, RunState.SEALING)
    ),
    (
        "a cache folder that the NAS does not take",
        situation(record(RunState.VERIFIED, cache_stays="no permission")),
        ("needs_you", "cache_not_copied"),
        SHOW,
    ),
    (
        "files change during every audit",
        situation(record(RunState.AUDITING, last_error=LastError("keeps_changing", "1 file changed"))),
        ("needs_you", "keeps_changing"),
        f"exlab-watch-agent verify {RUN}",
    ),
    (
        "gone",
        situation(record(RunState.ACQUIRING), run_problems={f"job {RUN}": Note("run_gone", "it is gone")}),
        ("needs_you", "run_gone"),
        f'exlab-watch-agent forget {RUN} --reason "..."',
    ),
    (
        "refused after it was synced",
        situation(record(RunState.VERIFIED), refused_after_sync={f"job {RUN}": ("a name",)}),
        ("notice", "synced_under_prior_policy"),
        SHOW,
    ),
]


CASES += [
    (
        "only here for too long",
        situation(record(RunState.QUEUED, enqueued_at=NOW - 9 * HOUR)),
        ("needs_you", "unproven"),
        SHOW,
    ),
    (
        "an override that has no effect",
        situation(record(RunState.VERIFIED), notes={f"job {RUN}": (Note("override_malformed", "entry 1"),)}),
        ("needs_you", "override_malformed"),
        f"exlab-watch-agent override list {RUN}",
    ),
    (
        "an override that lapses soon",
        situation(record(RunState.VERIFIED), notes={f"job {RUN}": (Note("override_expiring", "it", NOW + 24 * HOUR),)}),
        ("needs_you", "override_expiring"),
        f"exlab-watch-agent override list {RUN}",
    ),
    (
        "a soft finding",
        situation(record(RunState.QUEUED), notes={f"job {RUN}": (Note("missing_required_field", "no project"),)}),
        ("notice", "missing_required_field"),
        SHOW,
    ),
    (
        "a config without an instrument",
        situation(has_config=True, known_equipment=frozenset()),
        ("needs_you", "no_equipment"),
        "exlab-watch-agent check",
    ),
    (
        "another config",
        situation(config_changed_at=NOW - HOUR, config_news=Note("config_newer", "it waits")),
        ("needs_you", "config_newer"),
        "exlab-watch-agent reload",
    ),
    (
        "another config that is taken in by itself",
        situation(config_changed_at=NOW - HOUR, config_news=Note("config_pending", "soon")),
        ("notice", "config_pending"),
        "exlab-watch-agent reload",
    ),
    (
        "another config with mistakes",
        situation(config_changed_at=NOW - HOUR, config_news=Note("config_invalid", "line 3")),
        ("needs_you", "config_invalid"),
        "exlab-watch-agent check",
    ),
    (
        "another config that needs a start",
        situation(config_changed_at=NOW - HOUR, config_news=Note("config_needs_start", "state_dir")),
        ("needs_you", "config_needs_start"),
        "exlab-watch-agent check",
    ),
    (
        "a damaged copy",
        situation(record(RunState.QUEUED, incidents=(DAMAGE,))),
        ("risk", "copy_damaged"),
        SHOW,
    ),
    (
        "a repair",
        situation(record(RunState.VERIFIED, incidents=(replace(DAMAGE, healed_at=NOW),))),
        ("notice", "repaired"),
        SHOW,
    ),
    (
        "files missing here",
        situation(record(RunState.CONFLICT, last_error=LastError("local_files_missing", "1 file missing here"))),
        ("needs_you", "local_files_missing"),
        VERIFY,
    ),
    (
        "an only copy that is not there",
        situation(record(RunState.CONFLICT, last_error=NO_COPY, incidents=(DAMAGE,))),
        ("risk", "only_copy_lost"),
        f"exlab-watch-agent resolve {RUN} --use local",
    ),
    (
        "an only copy that rots",
        situation(record(RunState.CLEANED, last_error=NO_COPY, incidents=(DAMAGE,))),
        ("risk", "only_copy_lost"),
        f"exlab-watch-agent sync {RUN}",
    ),
    (
        "an only copy at a NAS that was replaced",
        situation(record(RunState.VERIFIED, last_error=NO_COPY)),
        ("risk", "only_copy_lost"),
        VERIFY,
    ),
    (
        "an only copy that cannot be looked at",
        situation(record(RunState.CLEANED, last_error=LOST)),
        ("needs_you", "audit_failed"),
        VERIFY,
    ),
    (
        "removed by others",
        situation(record(RunState.CLEANED, gone_at=NOW - HOUR)),
        ("notice", "removed_by_others"),
        SHOW,
    ),
    (
        "an outage that ended",
        situation(week=Week((Happening(NOW - HOUR, "outage_ended", "SCOPE_01", "it was away"),))),
        ("notice", "outage_ended"),
        "exlab-watch-agent check",
    ),
    (
        "a disk that fills here",
        situation(week=Week(here={"SCOPE_01": FILLING})),
        ("needs_you", "local_disk_filling"),
        "exlab-watch-agent check",
    ),
    (
        "an instrument that never rests",
        situation(lanes={"SCOPE_01": LaneView(unread_since=NOW - 120 * 24 * HOUR)}),
        ("needs_you", "reread_overdue"),
        "exlab-watch-agent status",
    ),
    (
        "a NAS that fills",
        situation(week=Week(there={"SCOPE_01": FILLING})),
        ("needs_you", "nas_filling"),
        "exlab-watch-agent check",
    ),
]


@pytest.mark.parametrize(("known", "told", "helps"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_told_of_each_case(known: Situation, told: tuple[str, str], helps: str) -> None:
    (found,) = attention(known)
    assert (found.tier.value, found.code) == told
    assert found.command == helps
    assert found.sentence
    assert found.since is not None
    assert found.code in TIERS
    assert set(found.to_json()) >= {
        *("id", "code", "tier", "severity", "equipment_id", "runs", "sentence", "since", "command", "dismissed")
    }


@pytest.mark.parametrize("state", list(RunState))
def test_a_run_that_only_goes_its_way_needs_nobody(state: RunState) -> None:
    if state not in (RunState.BLOCKED, RunState.FAILED, RunState.CONFLICT):
        assert judged(record(state)) == []
        assert judged(record(state), agent=ENDING) == []


# --- the agent -------------------------------------------------------------------------------------------------------


def test_an_agent_that_is_gone_says_since_when_how_and_what_it_was_doing() -> None:
    pushing = record(RunState.RUNNING)
    (gone,) = judged(pushing, agent=Gone(NOW - HOUR, is_in_order=False))
    assert gone.sentence == (
        "no agent is running: it has given no sign of life since 2026-04-18T11:00:00Z, so it was killed or this PC went down; "
        f"it was pushing {RUN}"
    )
    others = [record(RunState.AUDITING, f"{RUN}-{number}") for number in range(3)]
    (gone,) = judged(pushing, *others, agent=Gone(NOW - HOUR, is_in_order=True))
    doing = f"it was pushing {RUN} and proving again {RUN}-0 and at work on 2 more runs"
    assert gone.sentence == f"no agent is running: it was stopped in order at 2026-04-18T11:00:00Z; {doing}"


def test_an_agent_that_hangs_comes_before_all_else_also_before_data_at_risk() -> None:
    found = judged(record(RunState.FAILED, last_error=LOST), agent=Hanging(NOW - HOUR), hold="a line is gone")
    assert [problem.code for problem in found] == ["agent_hanging", "deletion_on_hold", "nas_sync_failed"]
    assert found[0].since == NOW - HOUR
    assert "has not moved for 60 min" in found[0].sentence
    assert worst(found) is Tier.RISK


@pytest.mark.parametrize(
    ("moved_at", "hangs"),
    [
        (None, False),
        (NOW, False),
        (NOW - timedelta(minutes=2), False),
        (NOW - timedelta(seconds=121), True),
        (NOW + HOUR, False),
    ],
)
def test_an_agent_hangs_when_its_loop_has_not_come_by_for_two_minutes(moved_at: datetime | None, hangs: bool) -> None:
    assert isinstance(standing_of_holder(moved_at, now=NOW, pid=7), Hanging) == hangs


# --- attempts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.RUNNING, RunState.PRECHECKING, RunState.AWAITING_VERIFY])
@pytest.mark.parametrize("idle", [Ending(), Gone(NOW, True), Hanging(NOW - HOUR)], ids=str)
def test_attempts_that_fail_are_told_from_the_second_on_while_an_agent_goes_on_and_else_at_once(
    state: RunState, idle: Standing
) -> None:
    for attempts, while_it_goes_on, else_ in ((0, False, False), (1, False, True), (2, True, True)):
        one = record(state, attempts=attempts, last_error=LOST)
        assert codes(judged(one)) == [("needs_you", "attempt_failed")] * while_it_goes_on
        found = [problem for problem in judged(one, agent=idle) if not problem.code.startswith("agent")]
        assert codes(found) == [("needs_you", "attempt_failed")] * else_
        assert all(problem.detail == {"kind": "network"} for problem in found)


def test_a_failed_attempt_says_what_comes_next() -> None:
    due = NOW + timedelta(minutes=2)
    queued = record(RunState.QUEUED, attempts=2, last_error=FULL, next_attempt_at=due)
    assert [one.sentence for one in judged(queued)] == [
        "attempt 2 failed: no room; next attempt at 2026-04-18T12:02:00Z"
    ]
    assert judged(queued, agent=ENDING)[0].sentence == (
        "attempt 2 failed: no room; the next `exlab-watch-agent run` tries it again, not before 2026-04-18T12:02:00Z"
    )
    running = record(RunState.RUNNING, attempts=2, last_error=FULL)
    assert [(one.sentence, one.command) for one in judged(running)] == [
        ("attempt 2 failed: no room; it is being tried again", SHOW)
    ]


@pytest.mark.parametrize(("attempts", "is_told"), [(0, False), (1, False), (2, True), (3, True)])
def test_a_seal_that_fails_is_told_likewise(attempts: int, is_told: bool) -> None:
    one = record(RunState.SEALING, attempts=attempts, last_error=LOST)
    assert bool(judged(one)) == is_told
    assert bool(judged(one, agent=ENDING)) == (attempts > 0)


# --- the sentence that holds now -------------------------------------------------------------------------------------


def test_a_blocked_run_tells_what_its_last_look_found_and_not_what_it_was_refused_for() -> None:
    blocked = record(RunState.BLOCKED, last_error=LastError(RULE, "a token"))
    now = Note("reserved_filesystem_name", "CON is reserved")
    (found,) = judged(blocked, refusals={f"job {RUN}": now})
    assert (found.code, found.sentence) == ("reserved_filesystem_name", "CON is reserved")
    assert "--class reserved_filesystem_name" in found.command
    (found,) = judged(blocked, agent=ENDING, refusals={f"job {RUN}": ADMITTED_NOW})
    assert (found.code, found.command) == ("under_way", "exlab-watch-agent run")


def test_the_command_quotes_a_windows_path_for_windows_and_lets_no_name_run_a_program() -> None:
    refused = LastError(RULE, "a token")
    windows = record(RunState.BLOCKED, "D:\\lab\\CONFOCAL_01\\My Project\\Runs\\Run_1", last_error=refused)
    assert 'add "D:\\lab\\CONFOCAL_01\\My Project\\Runs\\Run_1" --class' in judged(windows)[0].command
    hostile = record(RunState.BLOCKED, "/data/$(reboot) 'x'", last_error=refused)
    assert "add '/data/$(reboot) '\"'\"'x'\"'\"'' --class" in judged(hostile)[0].command


def test_a_conflict_tells_what_can_end_it_and_the_command_can_be_pasted() -> None:
    (found,) = judged(record(RunState.CONFLICT, last_error=LastError("destination_occupied", "it is another's")))
    assert found.sentence == (
        "it is another's. What can end it: look at what is there (what is equal there stays, all else goes aside there, below "
        ".exlab-superseded)"
    )
    assert found.command == f"exlab-watch-agent resolve {RUN} --take-over"


def test_a_run_that_cannot_be_read_is_told_at_the_third_look_while_an_agent_goes_on_and_else_at_once() -> None:
    for looks, while_it_goes_on in ((1, False), (2, False), (3, True)):
        unreadable = {RUN: UnreadableView("It is locked.", looks)}
        assert codes(judged(unreadable=unreadable)) == [("needs_you", "unreadable")] * while_it_goes_on
        assert codes(judged(agent=ENDING, unreadable=unreadable)) == [("needs_you", "unreadable")]


def test_a_lane_that_waits_names_its_reason_since_when_and_the_runs_that_wait_with_it() -> None:
    queued = record(RunState.QUEUED)
    (away,) = judged(queued, record(RunState.VERIFIED, f"{RUN}-2"), lanes={"SCOPE_01": AWAY})
    assert away.sentence == "NAS unreachable since 2026-04-18T11:00:00Z: it was never used"
    assert (away.since, away.runs, away.equipment_id) == (NOW - HOUR, (RUN,), "SCOPE_01")
    (unbound,) = judged(lanes={"SCOPE_01": UNBOUND})
    assert unbound.sentence == "it was never used (since 2026-04-18T11:00:00Z)"
    (stopped,) = judged(lanes={"SCOPE_01": replace(UNBOUND, waiting_reason=f"{UNBOUND.waiting_reason}.")})
    assert stopped.sentence == unbound.sentence, "one stop, at the end"


def test_what_an_agent_left_behind_is_told_with_its_age() -> None:
    lane = LaneView(root_problem="It is not there.", seen_earlier=SeenEarlier(NOW - 3 * HOUR))
    (one,) = judged(agent=ENDING, lanes={"SCOPE_01": lane})
    assert one.sentence == "It is not there. (as an agent last saw it, 3 h ago; no agent is running)"


def test_a_root_that_is_away_is_not_told_again_as_one_that_is_watched_badly() -> None:
    lane = LaneView(root_problem="It is not there.")
    assert [one.code for one in judged(lanes={"SCOPE_01": lane}, observer=DEGRADED)] == ["root_unavailable"]


def test_a_sealed_run_without_its_creation_json_is_not_called_unsynced() -> None:
    sealed = record(RunState.VERIFIED, destination="P/Runs/Run_1", sealed_at=NOW)
    (found,) = judged(sealed, agent=ENDING, orphans=(an_orphan(),))
    assert (found.code, found.equipment_id) == ("orphan", "SCOPE_01")
    assert found.sentence == (
        "The run is synced, but its .exlab-wizard/creation.json is missing here, so no override or status can be read: put it "
        "back; the NAS copy has one in P/Runs/Run_1/.exlab-wizard."
    )


def test_the_runs_of_an_instrument_that_is_no_longer_configured_are_one_problem() -> None:
    runs = [record(RunState.VERIFIED, f"{RUN}-{number}") for number in range(3)]
    (found,) = judged(*runs, known_equipment=frozenset({"SCOPE_02"}))
    assert (found.code, len(found.runs)) == ("equipment_unknown", 3)
    assert "its 3 runs" in found.sentence


def test_damage_stays_a_risk_although_its_instrument_is_no_longer_configured() -> None:
    damaged = record(RunState.QUEUED, incidents=(DAMAGE,))
    assert ("risk", "copy_damaged") in codes(judged(damaged, known_equipment=frozenset()))


# --- a run that is only here, overrides, the week --------------------------------------------------------------------


def test_a_run_is_told_as_only_here_after_the_hours_of_the_config_since_it_was_complete_and_not_once_it_is_sealed() -> (
    None
):
    policy = Policy(unproven_s=3600)
    for state in (RunState.QUEUED, RunState.RUNNING, RunState.AWAITING_VERIFY, RunState.SEALING):
        (told,) = judged(record(state, enqueued_at=NOW - 2 * HOUR), policy=policy)
        assert (told.code, told.since) == ("unproven", NOW - 2 * HOUR)
        assert judged(record(state, enqueued_at=NOW - HOUR), policy=policy) == []
        assert judged(record(state, enqueued_at=NOW - 2 * HOUR, sealed_at=NOW - HOUR), policy=policy) == []
    failing = record(RunState.QUEUED, enqueued_at=NOW - 2 * HOUR, attempts=3, last_error=LOST)
    assert [one.code for one in judged(failing, policy=policy)] == ["attempt_failed"], "it says more"


@pytest.mark.parametrize(
    ("state", "due", "is_told"),
    [
        (RunState.VERIFIED, timedelta(days=7), True),
        (RunState.VERIFIED, timedelta(days=7, seconds=1), False),
        (RunState.VERIFIED, timedelta(0), False),
        (RunState.CLEANED, timedelta(days=1), False),
    ],
)
def test_an_override_that_lapses_is_told_a_week_before_and_while_the_run_is_here(
    state: RunState, due: timedelta, is_told: bool
) -> None:
    notes = {f"job {RUN}": (Note("override_expiring", "it lapses", NOW + due),)}
    assert [one.code for one in judged(record(state), notes=notes)] == ["override_expiring"] * is_told


def test_damage_is_told_as_a_risk_until_it_is_healed_and_then_as_a_notice_for_a_week() -> None:
    (found,) = judged(record(RunState.QUEUED, incidents=(DAMAGE,)))
    assert (found.since, found.detail) == (NOW - HOUR, {"incident": "job/7"})
    assert found.sentence == (
        "the copy on the NAS was found damaged on 2026-04-18T11:00:00Z: a.bin differs; it is not repaired yet"
    )
    for days, told in ((0, ["repaired"]), (7, ["repaired"]), (8, [])):
        healed = replace(DAMAGE, healed_at=NOW - timedelta(days=days), healed_by="job/9")
        assert [one.code for one in judged(record(RunState.VERIFIED, incidents=(healed,)))] == told
    replaced = replace(DAMAGE, healed_at=NOW, healed_by="job/9", replaced_by="asmith")
    (found,) = judged(record(RunState.VERIFIED, incidents=(replaced,)))
    assert found.sentence.endswith(
        "; asmith let the local data take its place, which were proven on 2026-04-18T12:00:00Z"
    )
    twice = (DAMAGE, replace(DAMAGE, id="job/9"))
    assert len(judged(record(RunState.QUEUED, incidents=twice))) == 2, "each incident is one problem"


def test_that_the_only_copy_is_lost_is_told_once_and_what_was_repaired_before_stays_told() -> None:
    repaired = replace(DAMAGE, id="job/3", healed_at=NOW - HOUR)
    lost = record(RunState.CLEANED, last_error=NO_COPY, incidents=(repaired, DAMAGE))
    assert codes(judged(lost)) == [("risk", "only_copy_lost"), ("notice", "repaired")]
    altered = replace(DAMAGE, kind=IncidentKind.SEAL_ALTERED)
    assert len(judged(record(RunState.CLEANED, last_error=NO_COPY, incidents=(altered,)))) == 2, "that is another thing"


def test_that_somebody_removed_a_run_is_told_for_a_week() -> None:
    (told,) = judged(record(RunState.CLEANED, gone_at=NOW - timedelta(days=7), files_total=1))
    assert told.sentence == (
        "somebody removed this run here before 2026-04-11T12:00:00Z; the NAS has the only copy, and 1 file there was found right"
    )
    assert judged(record(RunState.CLEANED, gone_at=NOW - timedelta(days=7, seconds=1))) == []
    assert judged(record(RunState.CLEANED)) == [], "the agent itself removed it"


def test_three_damages_of_one_instrument_in_a_week_speak_of_a_bad_disk() -> None:
    def damaged(number: int, days: int) -> RunRecord:
        found_at = NOW - timedelta(days=days)
        healed = replace(DAMAGE, id=f"job/{number}", found_at=found_at, healed_at=found_at)
        return record(RunState.VERIFIED, f"{RUN}-{number}", incidents=(healed,))

    old = [damaged(number, days) for number, days in enumerate((1, 2, 8))]
    assert [one.code for one in judged(*old)] == ["repaired"] * 2, "the third is too old"
    found = judged(*old, damaged(3, 0))
    assert [one.code for one in found] == ["many_repairs", *["repaired"] * 3]
    assert found[0].sentence.startswith("3 times within a week a copy of SCOPE_01 was found damaged on the NAS")
    assert found[0].runs == (f"{RUN}-0", f"{RUN}-1", f"{RUN}-3")


def test_a_config_that_is_newer_is_told_of_an_agent_that_runs_only() -> None:
    news = Note("config_newer", "it waits")
    assert [one.code for one in judged(config_changed_at=NOW, config_news=news)] == ["config_newer"]
    assert [one.code for one in judged(agent=ENDING, config_changed_at=NOW, config_news=news)] == []


# --- each once, since when, and by what it is known again ------------------------------------------------------------


def test_a_problem_is_known_again_by_its_id_whatever_is_said_of_it_and_no_other_has_it() -> None:
    first, again, other = (
        judged(record(RunState.FAILED, path, last_error=error))[0]
        for path, error in ((RUN, LOST), (RUN, FULL), (f"{RUN}-2", LOST))
    )
    assert first.id == again.id != other.id
    assert len(first.id) == 12


def test_what_nothing_dates_has_been_so_since_it_was_first_seen() -> None:
    (new,) = judged(orphans=(an_orphan(),))
    assert new.since == NOW
    (known,) = judged(orphans=(an_orphan(),), first_seen={new.id: NOW - HOUR})
    assert known.since == NOW - HOUR
    (dated,) = judged(record(RunState.FAILED, last_error=LOST), first_seen={new.id: NOW - HOUR})
    assert dated.since == NOW


def test_our_commands_carry_the_flags_that_were_given_and_those_of_others_do_not() -> None:
    found = judged(
        record(RunState.FAILED, last_error=LOST), observer=DEGRADED, flags="--config '/a b/c.yaml' --state-dir /s"
    )
    assert {problem.command for problem in found} == {f"{RETRY} --config '/a b/c.yaml' --state-dir /s", "sysctl x"}


# --- the verdict -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "says", "tier"),
    [
        ([], "nothing needs a person", None),
        ([Problem("orphan", RUN, "", "")], "nothing needs a person", Tier.NOTICE),
        ([Problem("stale", RUN, "", "")], "1 problem needs you", Tier.NEEDS_YOU),
        ([Problem("stale", RUN, "", ""), Problem("unreadable", RUN, "", "")], "2 problems need you", Tier.NEEDS_YOU),
        ([Problem("deletion_on_hold", "agent", "", "")], "data are at risk (1 problem)", Tier.RISK),
        (
            [Problem("deletion_on_hold", "agent", "", ""), Problem("stale", RUN, "", "")],
            "data are at risk (1 problem), and 1 more problem needs you",
            Tier.RISK,
        ),
        ([Problem("stale", RUN, "", "", is_dismissed=True)], "nothing needs a person", None),
        ([Problem("of_a_later_version", RUN, "", "")], "1 problem needs you", Tier.NEEDS_YOU),
    ],
)
def test_the_verdict_says_in_one_sentence_how_bad_it_is(found: list[Problem], says: str, tier: Tier | None) -> None:
    assert (verdict(found), worst(found)) == (says, tier)


# --- what is where no run can be --------------------------------------------------------------------------------------


def test_what_is_where_no_run_can_be_names_its_instrument_and_the_runs_that_are_there() -> None:
    (one,) = judged(path_problems={"/data/SCOPE_01/P/runs": MISPLACED_THERE})
    assert (one.subject, one.equipment_id, one.runs) == ("/data/SCOPE_01/P/runs", "SCOPE_01", (RUN,))
    assert one.detail["kind"] == "run_parent"


def test_an_instrument_of_which_runs_are_known_is_not_told_twice() -> None:
    known = replace(record(RunState.VERIFIED, "/data/FLOW_01/P/Runs/Run_1"), equipment_id="FLOW_01")
    assert codes(judged(known, path_problems={"/data/FLOW_01": OF_NOBODY})) == [("needs_you", "equipment_unknown")]


def test_a_run_that_was_cancelled_needs_a_person_and_says_who_did_it_why_and_what_has_it_go_on() -> None:
    error = LastError("cancelled", "cancelled by asmith (uid 1000): the wrong sample was measured")
    (found,) = judged(record(RunState.FAILED, last_error=error))
    assert (found.tier, found.code, found.detail, found.command) == (
        Tier.NEEDS_YOU,
        "nas_sync_failed",
        {"kind": "cancelled"},
        RETRY,
    )
    assert found.sentence == (
        "cancelled by asmith (uid 1000): the wrong sample was measured (2026-04-18T12:00:00Z): it stays so, also where it "
        "changes, until it is retried"
    )
