"""What a running agent says of itself to others: the live view, the heartbeat here and on the NAS, who holds the folder.

Decided here: when each is written, and that a file which cannot be written stops nothing. What the values are and how they
look as JSON is core/snapshot.py's and report/heartbeat.py's. Of the engine only its view is read, which is immutable.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from exlab_watch_agent import __version__
from exlab_watch_agent.acts.probe import place_heartbeat
from exlab_watch_agent.adapters.local.durable import open_private, write_atomically
from exlab_watch_agent.adapters.state import holder
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.app.attending import Attending
from exlab_watch_agent.app.build import Parts
from exlab_watch_agent.app.config_file import ConfigWatch
from exlab_watch_agent.app.diary import Diary
from exlab_watch_agent.app.snapshots import lanes_of, lanes_that_answer, paused_of, progress_of, snapshot_of
from exlab_watch_agent.core.effects import PlaceHeartbeat
from exlab_watch_agent.core.events import HeartbeatPlaced
from exlab_watch_agent.core.problem import STATE_FULL, Problem, verdict, worst
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.snapshot import LaneView, Note, ObserverView, ProgressView, SeenEarlier, Snapshot
from exlab_watch_agent.core.standing import HANGS_AFTER, Ending, Working
from exlab_watch_agent.core.text import printable, utc_text
from exlab_watch_agent.engine.loop import Engine
from exlab_watch_agent.engine.views import EngineView
from exlab_watch_agent.ports import Clock, RunStore
from exlab_watch_agent.report.heartbeat import Heartbeat, Holder, LastAgent, last_agent_in
from exlab_watch_agent.report.progress import progress_text
from exlab_watch_agent.report.status import UnsyncedRuns
from exlab_watch_agent.statechart import CHART

log = logging.getLogger(__name__)

LIVE_DUTY = 50
"""Writing the live view takes at most one part in this many of the loop's time."""


class Every:
    """Says now and then that it is time: at the first question, and `every_s` after each time that it was."""

    def __init__(self, clock: Clock, every_s: float) -> None:
        self._clock = clock
        self.every_s = every_s
        self._last_s: float | None = None

    def is_time(self) -> bool:
        now_s = self._clock.monotonic_s()
        if self._last_s is not None and now_s - self._last_s < self.every_s:
            return False
        self._last_s = now_s
        return True

    def start_over(self) -> None:
        """Have it be time at the next question."""
        self._last_s = None


class Attempts:
    """Writes what is not needed for any run's safety; that a file cannot be written is logged once, not at every try."""

    def __init__(self) -> None:
        self._unwritten: set[str] = set()

    def write(self, name: str, write: Callable[[], object]) -> bool:
        """Return whether it could be written."""
        try:
            write()
        except OSError as error:
            if name not in self._unwritten:
                log.warning("%s cannot be written (%s): the agent tries again.", name, error.strerror)
            self._unwritten.add(name)
            return False
        self._unwritten.discard(name)
        return True


class HolderFile:
    """Says who holds the state folder, whether it waits for room, and that its loop comes by: in place, for this must work on a
    full disk."""

    def __init__(self, parts: Parts, attempts: Attempts) -> None:
        self._path = StateLayout(parts.state_dir).holder
        self._clock = parts.clock
        self._attempts = attempts
        self._holder = Holder(os.getpid(), parts.host, utc_text(parts.clock.now()), __version__)

    def say(self, *, paused: str | None = None) -> None:
        said = replace(self._holder, paused=paused, at=self._clock.now()).to_json()
        self._attempts.write(self._path.name, lambda: holder.say(self._path, said))


@dataclass(frozen=True, slots=True)
class _Glance:
    """What changes together with the live view."""

    engine: EngineView
    observer: ObserverView
    progress: Mapping[str, ProgressView]
    config_news: Note | None


class Publisher:
    """Keeps what others read up to date. Only the engine's loop calls it, but for `snapshot` and `progress`.

    `observer`: how the roots are watched now. `before`: the lanes as an earlier agent left them, where this one will not
    ask every destination itself. `is_for_all`: it is an agent for all runs, which no command that works by itself is;
    `last_agent`: the one before it. `notes_left`: by job id, what an earlier agent noted.
    """

    def __init__(
        self,
        parts: Parts,
        engine: Engine,
        *,
        holder_file: HolderFile,
        attempts: Attempts,
        observer: Callable[[], ObserverView],
        before: Mapping[str, LaneView],
        attending: Attending,
        diary: Diary,
        notes_left: Mapping[str, tuple[Note, ...]],
        config: ConfigWatch,
        last_agent: LastAgent | None,
        is_for_all: bool,
    ) -> None:
        self._parts = parts
        self._engine = engine
        self._holder_file = holder_file
        self._attempts = attempts
        self._observer = observer
        self._before = before
        self.attending = attending
        self._diary = diary
        self._notes_left = notes_left
        self._config = config
        self._last_agent = last_agent
        self._is_for_all = is_for_all
        self._destinations = {lane_id: lane.ports.transport.describe() for lane_id, lane in engine.lanes.items()}
        self._unsynced = UnsyncedRuns(_unsettled(parts.store))
        self._paused: str | None = None
        self._shown: _Glance | None = None
        self._progress_log = Every(parts.clock, parts.pace.progress_log_every_s)
        self._live = Every(parts.clock, parts.pace.live_every_s)
        self._heartbeat = Every(parts.clock, parts.pace.heartbeat_every_s)
        self._judgement = Every(parts.clock, parts.pace.attend_every_s)
        self._beat_at = parts.clock.now()
        self._on_nas: dict[str, Every] = {}

    def on_move(self, record: RunRecord) -> None:
        self._unsynced.moved(record)
        self.attending.take_up(record)

    # --- who holds the folder ----------------------------------------------------------------------------------------

    def news_of_pause(self) -> str | None:
        """Tell others when a pause begins or ends; return what the operator is to be told of it, None when nothing."""
        paused = paused_of(self._engine)
        if paused == self._paused:
            return None
        self._paused = paused
        self._holder_file.say(paused=paused)
        self._heartbeat.start_over()
        self._on_nas.clear()  # It is to be seen from the NAS at once, as well.
        return f"paused {paused}" if paused is not None else "There is room again: the agent goes on where it was."

    # --- the live view -----------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Return what is true only while the agent runs: progress, waits, reasons, health."""
        now, observer = self._parts.clock.now(), self._observer()
        return snapshot_of(
            self._engine,
            self._parts.store.view,
            destinations=self._destinations,
            now=now,
            observer=observer,
            before=self._before,
            first_seen=self.attending.first_seen,
            notes_before=self._notes_before(),
            config_changed_at=self._config.changed_at,
            config_news=self._config.news,
        )

    def _notes_before(self) -> Mapping[str, tuple[Note, ...]]:
        """Return what an earlier agent noted of runs that were not looked at since; what was looked at is forgotten for good."""
        looked_at = self._engine.view.told.runs
        self._notes_left = {job_id: notes for job_id, notes in self._notes_left.items() if job_id not in looked_at}
        return self._notes_left

    def progress(self) -> dict[str, ProgressView]:
        """Return job id → how far its work is."""
        return progress_of(self._engine, self._parts.store.view)

    def log_progress_in_time(self) -> None:
        """Say in the log how far all work is that has lasted for a minute."""
        if not self._progress_log.is_time():
            return
        for job_id, progress in self.progress().items():
            record = self._parts.store.get(job_id)
            if record is not None and progress.seconds >= self._progress_log.every_s:
                leaf = printable(os.path.basename(record.run_path))
                log.info("%s %s: %s", record.equipment_id, leaf, progress_text(progress))

    def publish_in_time(self) -> None:
        if self._live.is_time():
            self.publish()

    def publish(self, *, is_last: bool = False) -> None:
        """Leave the live view for other processes where it has changed, and always as the last one.

        Not durable: it is true now or not at all.
        """
        # Cheap to ask, and the same for as long as nothing that is shown has changed: then no run is gone through.
        glance = _Glance(self._engine.view, self._observer(), self.progress(), self._config.news)
        if glance == self._shown and not is_last:
            return
        began_s = self._parts.clock.monotonic_s()
        text = json.dumps(self.snapshot().to_json())
        path = StateLayout(self._parts.state_dir).live
        if self._attempts.write(path.name, lambda: _write_live(path, text)):
            self._shown = glance
        self._live.every_s = max(self._parts.pace.live_every_s, LIVE_DUTY * (self._parts.clock.monotonic_s() - began_s))

    # --- what needs a person -----------------------------------------------------------------------------------------

    def problems(self, *, is_last: bool = False) -> tuple[Problem, ...]:
        """Return what needs a person now, by what this agent knows."""
        return self.attending.problems(
            self.snapshot(),
            agent=Ending() if is_last else Working(),
            paused=paused_of(self._engine),
            hold=self._parts.store.hold,
        )

    def news_in_time(self) -> list[str]:
        """Return what began or ceased to need a person since it was last judged, a line each; but for pauses, which `news_of_pause`
        tells of at once."""
        if not self._judgement.is_time():
            return []
        began_s = self._parts.clock.monotonic_s()
        self._config.look()
        news = self.attending.news([problem for problem in self.problems() if problem.code != STATE_FULL])
        took_s = self._parts.clock.monotonic_s() - began_s
        self._judgement.every_s = max(self._parts.pace.attend_every_s, LIVE_DUTY * took_s)
        return news

    # --- the heartbeat -----------------------------------------------------------------------------------------------

    def heartbeat(self, *, is_last: bool = False, is_in_order: bool = False) -> Heartbeat:
        """Return what the heartbeat says now. `is_last`: this agent ends; `is_in_order`: as it was told to."""
        parts, now = self._parts, self._parts.clock.now()
        found, head = parts.store.counts(), parts.store.head
        needed = self.problems(is_last=is_last)
        tier = worst(needed)
        return Heartbeat(
            at=now,
            host=parts.host,
            state_folder=parts.store.folder_id,
            machine=parts.store.machine,
            path=os.path.abspath(parts.state_dir),
            pid=os.getpid(),
            version=__version__,
            counts={state.value: found[state] for state in CHART.states if found.get(state)},
            oldest_unsynced=self._unsynced.oldest(parts.store.get),
            lanes=lanes_of(self._engine.view, self._destinations, self._before),
            observer=self._observer(),
            audit_seq=head.seq,
            audit_blake3=head.digest,
            paused=paused_of(self._engine),
            hold=parts.store.hold,
            agent_running=not is_last,
            verdict=verdict(needed),
            tier=tier.value if tier is not None else None,
            last_agent=LastAgent(now, is_in_order) if self._is_for_all else self._last_agent,
        )

    def beat_here(self, *, is_last: bool = False, is_in_order: bool = False) -> bytes:
        """Write the heartbeat into the state folder; return its bytes."""
        said = self.heartbeat(is_last=is_last, is_in_order=is_in_order)
        data = (json.dumps(said.to_json(), indent=2) + "\n").encode()
        path = StateLayout(self._parts.state_dir).heartbeat
        self._attempts.write(path.name, lambda: write_atomically(path, data, mode=0o600))
        self._attempts.write(self._diary.path.name, self._diary.save)
        return data

    def beat_in_time(self) -> None:
        """Write it here at the pace of heartbeats, and have it left on each NAS that answers."""
        now = self._parts.clock.now()
        # After a sleep of the machine the wall clock is far ahead: until the next beat this agent would seem to hang.
        if not self._heartbeat.is_time() and now - self._beat_at < HANGS_AFTER / 2:
            return
        self._beat_at = now
        self._holder_file.say(paused=self._paused)
        data, pace = self.beat_here(), self._parts.pace
        for lane_id in lanes_that_answer(self._engine.view):
            every = self._on_nas.setdefault(lane_id, Every(self._parts.clock, pace.nas_heartbeat_every_s))
            is_missing = self._engine.view.lanes[lane_id].lacks_heartbeat
            every.every_s = pace.nas_heartbeat_again_s if is_missing else pace.nas_heartbeat_every_s
            if every.is_time():
                self._engine.place(self._on_nas_of(lane_id, data))

    def beat_everywhere(self) -> None:
        """Write the last one here and on each NAS that answers, and return when that is done. The engine has ended by then."""
        data = self.beat_here(is_last=True, is_in_order=True)
        for lane_id in lanes_that_answer(self._engine.view):
            ports = self._engine.lanes[lane_id].ports_now()
            placed = place_heartbeat(self._on_nas_of(lane_id, data), ports)
            if isinstance(placed, HeartbeatPlaced) and placed.anchor is not None:
                self._engine.compare_heartbeat(placed.anchor)
                if placed.problem:  # once what it says is on record, ours takes its place
                    placed = place_heartbeat(self._on_nas_of(lane_id, data), ports)
            problem = placed.problem if isinstance(placed, HeartbeatPlaced) else placed.message
            if problem:
                log.warning("the heartbeat could not be placed on the NAS: %s", problem)

    def _on_nas_of(self, lane_id: str, data: bytes) -> PlaceHeartbeat:
        store = self._parts.store
        told_to = store.ahead.seq if store.ahead is not None else 0
        return PlaceHeartbeat(lane_id, self._parts.host, data, store.position, told_to)


def _write_live(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        with open(temporary, "w", encoding="utf-8", opener=open_private) as file:
            file.write(text)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def _unsettled(store: RunStore) -> list[RunRecord]:
    """Return the records of the runs that do not rest sealed: few, where all is well."""
    job_ids = store.ids_in(CHART.unsettled)
    return [record for record in map(store.get, job_ids) if record is not None]


# --- what an earlier agent left --------------------------------------------------------------------------------------


def read_live(state_dir: Path) -> Snapshot:
    """Return the live view that an agent left, which is true only while it runs; an empty one where there is none."""
    try:
        return Snapshot.from_json(json.loads(StateLayout(state_dir).live.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return Snapshot()


def read_last_agent(state_dir: Path) -> LastAgent | None:
    """Return what the heartbeat says of the last agent; None where none has worked there yet."""
    path = StateLayout(state_dir).heartbeat
    try:
        return last_agent_in(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return LastAgent(None, is_in_order=False)


def lanes_left(left: Snapshot) -> dict[str, LaneView]:
    """Return the lanes of a live view that an agent left, each with the time at which it was seen so."""
    earlier = SeenEarlier(left.at)
    return {lane_id: replace(lane, seen_earlier=lane.seen_earlier or earlier) for lane_id, lane in left.lanes.items()}
