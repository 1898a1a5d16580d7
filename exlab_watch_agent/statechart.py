"""The one chart, loaded and checked: states, triggers, rows, and the sets of states that others ask for. Open this first.

`statecharts/run_sync.yaml` is the definition; the enumerations here only give its names to type checkers, and loading
fails if the two differ. Nothing here knows when a trigger is pulled: that is judged in core/decide.py.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import yaml


class RunState(StrEnum):
    """Where a run is. The names are persisted and shown."""

    ACQUIRING = "acquiring"
    BLOCKED = "blocked"
    QUEUED = "queued"
    RUNNING = "running"
    PRECHECKING = "prechecking"
    AWAITING_VERIFY = "awaiting_verify"
    SEALING = "sealing"
    VERIFIED = "verified"
    AUDITING = "auditing"
    CLEANUP_ELIGIBLE = "cleanup_eligible"
    CLEANING = "cleaning"
    CLEANED = "cleaned"
    CONFLICT = "conflict"
    FAILED = "failed"


class Trigger(StrEnum):
    """What was found about a run, in the past tense. Each is a trigger of the chart."""

    ADMITTED = "admitted"
    REFUSED = "refused"
    CHANGED = "changed"
    PUSH_STARTED = "push_started"
    COPY_ADOPTED = "copy_adopted"
    CLAIM_LAPSED = "claim_lapsed"
    PUSHED = "pushed"
    PUT_BACK = "put_back"
    GAVE_UP = "gave_up"
    PRECHECK_PASSED = "precheck_passed"
    PROVEN = "proven"
    SEALED = "sealed"
    SEAL_FAILED = "seal_failed"
    CONFLICT_FOUND = "conflict_found"
    CLEANUP_ENABLED = "cleanup_enabled"
    CLEANUP_DISABLED = "cleanup_disabled"
    AUDIT_STARTED = "audit_started"
    AUDIT_INTERRUPTED = "audit_interrupted"
    COPY_DAMAGED = "copy_damaged"
    LOCAL_GONE = "local_gone"
    INTERLOCKS_HELD = "interlocks_held"
    INTERLOCK_BROKEN = "interlock_broken"
    REMOVED = "removed"
    REMOVAL_RESUMED = "removal_resumed"
    AUDITED = "audited"
    DATA_FOUND = "data_found"
    LOCAL_CHOSEN = "local_chosen"
    TAKEN_OVER = "taken_over"
    NAS_CHOSEN = "nas_chosen"
    DIFFERENCE_GONE = "difference_gone"
    SEAL_MISSED = "seal_missed"
    CANCELLED = "cancelled"
    RETRIED = "retried"
    DESTINATION_REPLACED = "destination_replaced"


class Tag(StrEnum):
    """A set of states that is asked for under one name; the chart says what each is for and which states are in it."""

    SETTLED = "settled"
    AUDITABLE = "auditable"
    ON_A_PUSH = "on_a_push"
    GONE_WHEN_MISSING = "gone_when_missing"
    AT_DESTINATION = "at_destination"
    TELLS_ATTEMPTS = "tells_attempts"
    RETRYABLE = "retryable"
    NEEDS_ATTENTION = "needs_attention"


class ChartError(Exception):
    """The chart file contradicts itself or the enumerations: a defect of the release, never of the data."""


class Rail(StrEnum):
    """The three rows in which the picture has its states."""

    ABOVE = "above"
    SPINE = "spine"
    BELOW = "below"


SYNC_STATUSES = frozenset({"pending", "synced", "cleaned", "failed", "blocked_by_validation"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture has a state. `column` is its middle: whole numbers on the spine, where each has its own."""

    column: float
    rail: Rail


@dataclass(frozen=True, slots=True)
class StateSpec:
    """One state of the chart. `job_state` is None where no job is shown; `phase` and `place` are for pictures alone."""

    state: RunState
    meaning: str
    is_working: bool
    sync_status: str
    job_state: str | None
    is_final: bool
    tags: tuple[Tag, ...]
    phase: str
    place: Place


@dataclass(frozen=True, slots=True)
class Row:
    """One allowed transition."""

    source: RunState
    trigger: Trigger
    dest: RunState
    why: str

    @property
    def key(self) -> RowKey:
        """What tells the row from all others: a trigger leads from a state to one place only."""
        return self.source, self.trigger


RowKey = tuple[RunState, Trigger]


@dataclass(frozen=True, slots=True)
class Promise:
    """One thing that the agent promises, and the rows that carry it."""

    says: str
    carried_by: tuple[RowKey, ...]


@dataclass(frozen=True)
class Chart:
    """The chart as values. `rows` keep the order of the file; a picture numbers them from 1."""

    name: str
    initial: RunState
    states: dict[RunState, StateSpec]
    rows: tuple[Row, ...]
    promises: tuple[Promise, ...]

    @cached_property
    def version(self) -> str:
        """SHA-256 of the chart's canonical JSON, first 16 hex digits: changes with every word that says what may happen.

        Where a picture has a state, and what is promised about the rows, is no part of it: the machine is the same.
        """
        canonical = json.dumps(
            {
                "chart": self.name,
                "initial": self.initial,
                "states": [
                    [s.state, s.meaning, s.is_working, s.sync_status, s.job_state, s.is_final, s.tags]
                    for s in self.states.values()
                ],
                "rows": [[r.source, r.trigger, r.dest, r.why] for r in self.rows],
            },
            separators=(",", ":"),
        )
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @cached_property
    def working(self) -> frozenset[RunState]:
        """The states that own an effect."""
        return frozenset(s.state for s in self.states.values() if s.is_working)

    def tagged(self, tag: Tag) -> frozenset[RunState]:
        """Return the states that carry the tag."""
        return self._tagged[tag]

    @cached_property
    def _tagged(self) -> dict[Tag, frozenset[RunState]]:
        return {tag: frozenset(s.state for s in self.states.values() if tag in s.tags) for tag in Tag}

    @property
    def settled(self) -> frozenset[RunState]:
        """Proven, and nothing more to do."""
        return self.tagged(Tag.SETTLED)

    @cached_property
    def unsettled(self) -> tuple[RunState, ...]:
        """All others, in the chart's order: a scan looks at them again."""
        return tuple(state for state in self.states if state not in self.settled)

    @property
    def sealed_here(self) -> frozenset[RunState]:
        """States in which a run rests whose data are on both sides."""
        return frozenset(state for state in self.settled & self.auditable if not self.states[state].is_final)

    @property
    def auditable(self) -> frozenset[RunState]:
        """Both sides, or after `cleaned` the copy, may be compared with the manifest."""
        return self.tagged(Tag.AUDITABLE)

    @property
    def on_a_push(self) -> frozenset[RunState]:
        """Something works on a push, from its first byte to the seal."""
        return self.tagged(Tag.ON_A_PUSH)

    @property
    def gone_when_missing(self) -> frozenset[RunState]:
        """A run whose folder is missing is reported as gone: nothing is under way at the NAS."""
        return self.tagged(Tag.GONE_WHEN_MISSING)

    @property
    def at_destination(self) -> frozenset[RunState]:
        """The bytes of the run count as copied."""
        return self.tagged(Tag.AT_DESTINATION)

    @property
    def tells_attempts(self) -> frozenset[RunState]:
        """A failed attempt is shown to people, because another one follows."""
        return self.tagged(Tag.TELLS_ATTEMPTS)

    @property
    def retryable(self) -> frozenset[RunState]:
        """An operator may ask for another try."""
        return self.tagged(Tag.RETRYABLE)

    @property
    def needs_attention(self) -> frozenset[RunState]:
        """The run rests until a person acts."""
        return self.tagged(Tag.NEEDS_ATTENTION)

    def sources(self, trigger: Trigger) -> frozenset[RunState]:
        """Return the states from which `trigger` leads anywhere."""
        return frozenset(row.source for row in self.rows if row.trigger is trigger)

    @cached_property
    def _destinations(self) -> dict[tuple[RunState, Trigger], RunState]:
        return {(row.source, row.trigger): row.dest for row in self.rows}

    def destination(self, state: RunState, trigger: Trigger) -> RunState | None:
        """Return where `trigger` leads from `state`, None where the chart does not allow it."""
        return self._destinations.get((state, trigger))

    def promises_of(self, key: RowKey) -> tuple[int, ...]:
        """Return which promises a row carries, counted from 0."""
        return tuple(i for i, promise in enumerate(self.promises) if key in promise.carried_by)

    def sync_status(self, state: RunState) -> str:
        """Return what `creation.json` says in this state."""
        return self.states[state].sync_status


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Every command reads the chart: with libyaml, where PyYAML has it, that takes a tenth of the time."""


def parse_chart(text: str) -> Chart:
    """Return the checked chart. Raises: ChartError naming the first contradiction."""
    raw: dict[str, Any] = yaml.load(text, Loader=_LOADER)  # noqa: S506  (both are safe)
    if set(raw["states"]) != {state.value for state in RunState}:
        raise ChartError(f"the chart's states and RunState differ: {set(raw['states']) ^ set(RunState)}")
    states = {RunState(name): _state(RunState(name), spec) for name, spec in raw["states"].items()}
    rows = tuple(_row(entry) for entry in raw["rows"])
    if {row.trigger for row in rows} != set(Trigger):
        raise ChartError(f"the chart's triggers and Trigger differ: {set(Trigger) ^ {row.trigger for row in rows}}")
    if len({(row.source, row.trigger) for row in rows}) != len(rows):
        raise ChartError("a state has the same trigger twice")
    if unused := set(Tag) - {tag for spec in states.values() for tag in spec.tags}:
        raise ChartError(f"no state has the tag {min(unused)}")
    spine = [spec.place.column for spec in states.values() if spec.place.rail is Rail.SPINE]
    if len(set(spine)) != len(spine) or any(column != int(column) for column in spine):
        raise ChartError("each state on the spine needs a column of its own, and that is a whole number")
    promises = tuple(_promise(entry) for entry in raw["promises"])
    if strangers := {key for promise in promises for key in promise.carried_by} - {row.key for row in rows}:
        raise ChartError(f"a promise is carried by a row that is not there: {', '.join(min(strangers))}")
    return Chart(raw["chart"], RunState(raw["initial"]), states, rows, promises)


def _state(state: RunState, spec: dict[str, Any]) -> StateSpec:
    if spec["kind"] not in ("working", "resting") or spec["sync_status"] not in SYNC_STATUSES:
        raise ChartError(f"{state}: unknown kind or sync_status")
    if unknown := set(spec["tags"]) - set(Tag):
        raise ChartError(f"{state}: unknown tag {min(unknown)}")
    try:
        column, rail = spec["place"]
        place = Place(float(column), Rail(rail))
    except (KeyError, TypeError, ValueError) as error:
        raise ChartError(f"{state}: `place` must be [column, spine, above or below]") from error
    return StateSpec(
        state=state,
        meaning=spec["meaning"],
        is_working=spec["kind"] == "working",
        sync_status=spec["sync_status"],
        job_state=spec["job_state"],
        is_final=bool(spec.get("final", False)),
        tags=tuple(Tag(tag) for tag in spec["tags"]),
        phase=spec["phase"],
        place=place,
    )


def _promise(entry: dict[str, Any]) -> Promise:
    try:
        return Promise(
            entry["says"], tuple((RunState(state), Trigger(trigger)) for state, trigger in entry["carried_by"])
        )
    except ValueError as error:
        raise ChartError(f"unknown name in a promise: {error}") from error


def _row(entry: dict[str, str]) -> Row:
    # In braces a comma ends a value: a sentence with one in it has lost its end, unless it stands in quotes.
    if set(entry) != {"from", "trigger", "to", "why"}:
        raise ChartError(f"a row has from, trigger, to and why, and a `why` with a comma in quotes: {', '.join(entry)}")
    try:
        return Row(RunState(entry["from"]), Trigger(entry["trigger"]), RunState(entry["to"]), entry["why"])
    except ValueError as error:
        raise ChartError(f"unknown name in the chart: {error}") from error


def chart_text() -> str:
    """Return the chart file's text: from the wheel, or from the checkout beside the package."""
    packaged = resources.files("exlab_watch_agent") / "statecharts" / "run_sync.yaml"
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parent.parent / "statecharts" / "run_sync.yaml").read_text(encoding="utf-8")


CHART = parse_chart(chart_text())
