"""What needs a person: the one judgement of that, over one situation.

`problems`, the verdict, exit codes, `run` and the heartbeat ask here, and nothing judges beside it.

Decided here: what is a problem of the agent, of an instrument and of a folder, from when on it is told, and with which words. What
is one of a run stands in run_problems.py, the codes and tiers in problem.py. Not here: how the situation comes about. It is a
running agent's own (app/attending.py), or what the last agent left with a fresh look at the folders (app/offline.py). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import assert_never

from exlab_watch_agent.core.discovery import place_of
from exlab_watch_agent.core.gate import without_creation
from exlab_watch_agent.core.misplaced import MISPLACED, UNKNOWN_EQUIPMENT
from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.core.problem import (
    CONFIG_INVALID,
    CONFIG_NEEDS_START,
    HANGING,
    PROGRAM,
    STATE_FULL,
    Dismissal,
    Problem,
    Tier,
    about,
    command,
    forget,
    rank,
)
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.reread import TOLD_AFTER
from exlab_watch_agent.core.rollback import ELSEWHERE
from exlab_watch_agent.core.run_problems import of_incidents, of_run
from exlab_watch_agent.core.snapshot import FolderProblem, LaneView, Snapshot
from exlab_watch_agent.core.standing import Ending, Gone, Hanging, Moment, NeverRan, Standing, Working
from exlab_watch_agent.core.text import age, counted, printable, utc_text
from exlab_watch_agent.core.week import KEPT_FOR, Happening, Room, Week, full_in
from exlab_watch_agent.errors import NAS_UNREACHABLE
from exlab_watch_agent.statechart import CHART, RunState

UNREADABLE_LOOKS_TOLD = 3
"""A file that another program holds for a moment is nobody's problem; what three looks cannot read is."""
AGENT = "agent"
NO_EQUIPMENT = (
    "the config has no instrument yet whose runs go to the NAS from this PC, so nothing is copied: add one in ExLab-Wizard, or "
    "below `equipment` in the config"
)
CHECK = command("check")
READ_IT = (
    "Let the agent's account read it, close the program that holds it, or shorten the path; then the agent goes on."
)
DOES = {
    RunState.RUNNING: "pushing",
    RunState.PRECHECKING: "checking",
    RunState.AWAITING_VERIFY: "proving",
    RunState.SEALING: "sealing",
    RunState.AUDITING: "proving again",
    RunState.CLEANING: "removing",
}
"""What an agent was doing with a run, in words."""
RUNS_NAMED_MAX = 2
DAMAGES_MANY = 3
"""So many damaged copies of one instrument in a week are no accident any more."""


@dataclass(frozen=True)
class Situation:
    """All that is judged, as it was at one moment.

    `runs`: the records of all runs of which anything may be told. `known_equipment`: ids that the config has. `paused`, `hold`:
    why nothing is decided, and why nothing is deleted. `flags`: what each of our commands needs behind it to find this agent.
    `week`: what happened lately and is over, and how the disks fill. `roots`: equipment id → the folder of its runs.
    `dismissals`: by the id of a problem. `has_config`: whether the policy is one of a config, and not the one for want of any.
    """

    at: Moment
    agent: Standing
    runs: tuple[RunRecord, ...] = ()
    snapshot: Snapshot = field(default_factory=Snapshot)
    policy: Policy = field(default_factory=Policy)
    known_equipment: frozenset[str] = frozenset()
    paused: str | None = None
    hold: str | None = None
    flags: str = ""
    week: Week = field(default_factory=Week)
    roots: Mapping[str, str] = field(default_factory=dict)
    dismissals: Mapping[str, Dismissal] = field(default_factory=dict)
    has_config: bool = False


def attention(situation: Situation) -> tuple[Problem, ...]:
    """Return what needs a person and what a person may want to know, worst first, each once.

    Each says since when: where nothing else tells, since the moment at which it was first judged to be so.
    """
    return completed(judged(situation), situation)


def judged(situation: Situation) -> list[Problem]:
    """Return the same in no order, and without a time where nothing tells since when."""
    found = [*of_agent(situation), *_of_equipment(situation), *_of_week(situation)]
    found += [*_of_folders(situation), *_of_runs(situation)]
    return list({problem.id: problem for problem in reversed(found)}.values())


def of_places(situation: Situation) -> tuple[Problem, ...]:
    """Return the part of it that is about instruments, their folders and their destinations: what `check` asks for."""
    found = [*_of_equipment(situation), *_of_folders(situation)]
    return completed({problem.id: problem for problem in reversed(found)}.values(), situation)


def completed(found: Iterable[Problem], situation: Situation) -> tuple[Problem, ...]:
    """Return what was judged in order, each with its time and a command that is complete."""
    return tuple(sorted((_complete(problem, situation) for problem in found), key=rank))


def _complete(problem: Problem, situation: Situation) -> Problem:
    since = problem.since or situation.snapshot.first_seen.get(problem.id, situation.at.now)
    helps = with_flags(problem.command, situation.flags)
    dismissal = situation.dismissals.get(problem.id)
    if dismissal is None or not dismissal.holds(problem, now=situation.at.now):
        return replace(problem, since=since, command=helps)
    until = utc_text(dismissal.until) if dismissal.until is not None else ""
    told = {"dismissed_by": dismissal.by, "dismissed_reason": dismissal.reason, "dismissed_until": until}
    return replace(problem, since=since, command=helps, is_dismissed=True, detail={**problem.detail, **told})


def with_flags(words: str, flags: str) -> str:
    """Return a command with these flags, where it is one of ours."""
    return f"{words} {flags}" if flags and words.startswith(f"{PROGRAM} ") else words


# --- the agent -------------------------------------------------------------------------------------------------------


def of_agent(situation: Situation) -> list[Problem]:
    """Return what is wrong with the agent as a whole: it does not move or is gone, its state is in doubt, it waits for room."""
    found = [*_of_standing(situation)]
    if situation.hold is not None:
        is_elsewhere = situation.hold.startswith(ELSEWHERE)
        words = ("--accept-machine", "--reason", '"..."') if is_elsewhere else ("--accept-trail",)
        text = f"nothing is deleted: {printable(situation.hold)}"
        found.append(Problem("deletion_on_hold", AGENT, text, command("resolve", *words)))
    if situation.paused is not None:
        found.append(Problem(STATE_FULL, AGENT, f"the agent is paused {situation.paused}", CHECK))
    if situation.has_config and not situation.policy.equipment:
        found.append(Problem("no_equipment", AGENT, NO_EQUIPMENT, CHECK))
    news = situation.snapshot.config_news
    if news is not None and situation.at.goes_on:
        helps = CHECK if news.code in (CONFIG_INVALID, CONFIG_NEEDS_START) else command("reload")
        since = situation.snapshot.config_changed_at
        found.append(Problem(news.code, AGENT, printable(news.sentence), helps, since=since))
    return found


def _of_standing(situation: Situation) -> Iterable[Problem]:
    agent, now = situation.agent, situation.at.now
    match agent:
        case Working() | Ending():
            return
        case Hanging():
            ago = age((now - agent.moved_at).total_seconds())
            who = f" (pid {agent.pid})" if agent.pid is not None else ""
            text = (
                f"the agent{who} has not moved for {ago}, so nothing below is newer than that{_was_doing(situation)}: end that "
                "process and start the agent again"
            )
            yield Problem(HANGING, AGENT, text, command("status"), since=agent.moved_at)
        case NeverRan():
            text = "no agent has worked with this state folder yet, so nothing is copied"
            yield Problem("agent_never_ran", AGENT, text, command("run"))
        case Gone(since, is_in_order):
            if is_in_order:
                when = f" at {utc_text(since)}" if since is not None else ""
                text = f"no agent is running: it was stopped in order{when}{_was_doing(situation)}"
                yield Problem("agent_stopped", AGENT, text, command("run"), since=since)
                return
            silent = f"has given no sign of life since {utc_text(since)}" if since is not None else "was not stopped"
            text = f"no agent is running: it {silent}, so it was killed or this PC went down{_was_doing(situation)}"
            yield Problem("agent_gone", AGENT, text, command("run"), since=since)
        case _:
            assert_never(agent)


def _was_doing(situation: Situation) -> str:
    """Return what an agent that is gone was in the middle of; empty where it was nothing."""
    under_way = [record for record in situation.runs if record.state in CHART.working]
    if not under_way:
        return ""
    named = [f"{DOES[record.state]} {printable(record.run_path)}" for record in under_way[:RUNS_NAMED_MAX]]
    more = len(under_way) - len(named)
    others = f" and at work on {counted(more, 'more run')}" if more else ""
    return f"; it was {' and '.join(named)}{others}"


# --- an instrument ---------------------------------------------------------------------------------------------------


def _of_equipment(situation: Situation) -> Iterable[Problem]:
    snapshot, at = situation.snapshot, situation.at
    queued = _paths_by_equipment(record for record in situation.runs if record.state in CHART.unsettled)
    for equipment_id, lane in snapshot.lanes.items():
        runs = queued.get(equipment_id, ())
        if waits := why_lane_waits(lane, at):
            yield Problem(
                lane.waiting_kind, equipment_id, waits, lane.waiting_command, equipment_id, runs, lane.waiting_since
            )
        if late := _why_unread(lane, situation):
            yield Problem(
                "reread_overdue", equipment_id, late, command("status"), equipment_id, since=lane.unread_since
            )
        if away := why_root_waits(lane, at):
            since = lane.root_problem_since
            yield Problem("root_unavailable", equipment_id, away, CHECK, equipment_id, runs, since)
    for equipment_id, message in snapshot.roots_away.items():
        yield Problem("root_unavailable", equipment_id, printable(message), CHECK, equipment_id)
    for equipment_id, health in (snapshot.observer.roots if snapshot.observer is not None else {}).items():
        its_lane = snapshot.lanes.get(equipment_id)
        # That a root is not there is said already, by the scan.
        if health.is_degraded and not (its_lane is not None and its_lane.root_problem):
            text = f"new runs may be noticed late: {health.reason}"
            yield Problem("observer_degraded", equipment_id, text, health.command or CHECK, equipment_id)


def _paths_by_equipment(records: Iterable[RunRecord]) -> dict[str, tuple[str, ...]]:
    paths: dict[str, list[str]] = {}
    for record in records:
        paths.setdefault(record.equipment_id, []).append(record.run_path)
    return {equipment_id: tuple(sorted(found)) for equipment_id, found in paths.items()}


def why_lane_waits(lane: LaneView, at: Moment) -> str:
    """Return why an equipment's runs do not go on to their destination; empty when they do."""
    if lane.waiting_since is None:
        return ""
    since, reason = utc_text(lane.waiting_since), lane.waiting_reason
    if lane.waiting_kind == NAS_UNREACHABLE.code:
        return printable(f"NAS unreachable since {since}: {reason}{_seen(lane, at)}")
    return printable(f"{reason.rstrip('.')} (since {since}){_seen(lane, at)}")


def _why_unread(lane: LaneView, situation: Situation) -> str:
    """Return why proven copies were not read again for longer than was asked for; empty where they were."""
    reread_s = situation.policy.reread_s
    if lane.unread_since is None or situation.at.now - lane.unread_since <= timedelta(seconds=reread_s * TOLD_AFTER):
        return ""
    since = utc_text(lane.unread_since)
    return printable(
        f"a proven copy was not read again since {since}, for its instrument hardly ever rests: copies are read one at a time "
        f"beside it; let it rest, or raise agent.reread_days{_seen(lane, situation.at)}"
    )


def why_root_waits(lane: LaneView, at: Moment) -> str:
    """Return why nothing is concluded from an equipment's folder; empty when it is looked after."""
    return printable(f"{lane.root_problem}{_seen(lane, at)}") if lane.root_problem else ""


def _seen(lane: LaneView, at: Moment) -> str:
    """Return how old it is what is known of a lane, where no agent that asks there says it now."""
    earlier = lane.seen_earlier
    if earlier is None:
        return ""
    ago = f" {age((at.now - earlier.at).total_seconds())} ago" if earlier.at is not None else " earlier"
    return f" (as an agent last saw it,{ago}{'; no agent is running' if at.is_ended else ''})"


# --- the last week ---------------------------------------------------------------------------------------------------


def _of_week(situation: Situation) -> Iterable[Problem]:
    now, week = situation.at.now, situation.week
    latest: dict[tuple[str, str, str], tuple[Happening, int]] = {}
    for one in week.happened:
        if timedelta(0) <= now - one.at <= KEPT_FOR:
            key = one.code, one.equipment_id, one.run_path
            latest[key] = one, latest.get(key, (one, 0))[1] + 1
    for (code, equipment_id, path), (one, times) in latest.items():
        text = f"{printable(one.sentence)} (at {utc_text(one.at)}{f', {times} times this week' if times > 1 else ''})"
        helps = about("show", path) if path else CHECK
        yield Problem(code, path or equipment_id, text, helps, equipment_id, (path,) if path else (), one.at)
    for equipment_id in sorted(situation.known_equipment):
        yield from _of_disk("local_disk_filling", "the disk of its folder here", equipment_id, week.here, situation)
        yield from _of_disk("nas_filling", "its destination on the NAS", equipment_id, week.there, situation)


def _of_disk(
    code: str, what: str, equipment_id: str, rooms: Mapping[str, tuple[Room, ...]], situation: Situation
) -> Iterable[Problem]:
    left = full_in(rooms.get(equipment_id, ()), now=situation.at.now)
    if left is not None and left <= timedelta(seconds=situation.policy.disk_s):
        text = f"{what} is full in {age(left.total_seconds())} at the rate of the last week: make room"
        yield Problem(code, equipment_id, text, CHECK, equipment_id)


# --- folders ---------------------------------------------------------------------------------------------------------


def _of_folders(situation: Situation) -> Iterable[Problem]:
    snapshot, at = situation.snapshot, situation.at
    for path, folder in snapshot.path_problems.items():
        if folder.code == MISPLACED:
            yield from _of_misplaced(path, folder, situation)
            continue
        text, where = printable(folder.message), _equipment_of(path, situation)
        yield Problem(folder.code, path, text, about("sync", path), where, (path,), detail=folder.detail)
    for path, unreadable in snapshot.unreadable.items():
        if not at.goes_on or unreadable.looks >= UNREADABLE_LOOKS_TOLD:
            text = f"{printable(unreadable.message)} {READ_IT}"
            yield Problem("unreadable", path, text, about("show", path), _equipment_of(path, situation), (path,))
    sealed = {record.run_path: record for record in situation.runs if record.is_sealed}
    for orphan in snapshot.orphans:
        known = sealed.get(orphan.run_path)
        text = printable(orphan.rule_detail if known is None else without_creation(known.destination))
        path, where = orphan.run_path, orphan.offending_path.partition("/")[0] or None
        yield Problem("orphan", path, text, about("show", path), where, (path,))


def _of_misplaced(path: str, folder: FolderProblem, situation: Situation) -> Iterable[Problem]:
    """Return what is told of runs that are where none can be; nothing of an instrument that is told of by its known runs."""
    is_nobody_s, equipment_id = folder.detail.get("kind") == UNKNOWN_EQUIPMENT, folder.detail.get("equipment_id")
    if is_nobody_s and any(record.equipment_id == equipment_id for record in situation.runs):
        return
    helps = CHECK if is_nobody_s else command("scan")
    yield Problem(folder.code, path, printable(folder.message), helps, equipment_id, folder.runs, detail=folder.detail)


def _equipment_of(path: str, situation: Situation) -> str | None:
    place = place_of(path, situation.roots)
    return place.equipment_id if place is not None else None


# --- runs ------------------------------------------------------------------------------------------------------------


def _of_runs(situation: Situation) -> Iterable[Problem]:
    nobody_s: dict[str, list[RunRecord]] = {}
    for record in situation.runs:
        if record.equipment_id in situation.known_equipment:
            yield from of_run(record, situation.snapshot, policy=situation.policy, at=situation.at)
        else:
            nobody_s.setdefault(record.equipment_id, []).append(record)
            for found in of_incidents(record, situation.at):
                yield replace(found, is_beyond_mending=found.tier is not Tier.NOTICE)
    yield from _of_nobody_s(nobody_s)
    yield from _of_damages(situation)


def _of_damages(situation: Situation) -> Iterable[Problem]:
    """Return that copies are damaged at a rate that is no accident, healed or not."""
    damaged: dict[str, list[str]] = {}
    for record in situation.runs:
        found = [one for one in record.incidents if timedelta(0) <= situation.at.now - one.found_at <= KEPT_FOR]
        damaged.setdefault(record.equipment_id, []).extend(record.run_path for _ in found)
    for equipment_id, paths in damaged.items():
        if len(paths) >= DAMAGES_MANY:
            text = (
                f"{len(paths)} times within a week a copy of {equipment_id} was found damaged on the NAS: that speaks of a bad "
                "disk or bad memory, at the NAS or here; have both tested"
            )
            yield Problem("many_repairs", equipment_id, text, CHECK, equipment_id, tuple(sorted(set(paths))))


def _of_nobody_s(records: Mapping[str, list[RunRecord]]) -> Iterable[Problem]:
    for equipment_id, runs in records.items():
        its = f"its {counted(len(runs), 'run')}"
        text = (
            f"{printable(equipment_id)} is no longer in the configuration, so no agent looks after {its}: add it again, or have it "
            "forgotten"
        )
        paths = tuple(sorted(record.run_path for record in runs))
        found = Problem("equipment_unknown", equipment_id, text, forget(equipment_id), equipment_id, paths)
        moves = sum(record.turn for record in runs)  # none happens while nobody looks after them
        yield replace(found, is_beyond_mending=True, occurrence=f"{len(runs)} runs, {moves} moves")
