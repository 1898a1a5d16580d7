"""What follows from the end of each kind of effect, and to which part of the loop that belongs."""

from __future__ import annotations

import logging

from exlab_watch_agent.core.effects import (
    Admit,
    AskWhere,
    Bind,
    Inspect,
    PlaceHeartbeat,
    Precheck,
    Probe,
    Push,
    Scan,
    Seal,
    Verify,
    Work,
    WriteStatus,
)
from exlab_watch_agent.core.events import (
    Answered,
    BindingRefused,
    EffectFailed,
    HeartbeatPlaced,
    Inspection,
    NothingNew,
    Outcome,
    ScanFailed,
    Scanned,
    Sealed,
    Seen,
    StatusUnwritten,
    StatusWritten,
    Unreached,
    Unseen,
    UnseenCode,
    Whereabouts,
)
from exlab_watch_agent.engine.bench import Bench
from exlab_watch_agent.engine.destinations import Destinations
from exlab_watch_agent.engine.messages import Ended, ScanWanted
from exlab_watch_agent.engine.reconciling import Reconciling
from exlab_watch_agent.engine.runs import Runs
from exlab_watch_agent.engine.turns import Turns

log = logging.getLogger(__name__)

STATUS_RETRY_S = 60.0


class Endings:
    """The loop's own; only its thread uses it."""

    def __init__(
        self, bench: Bench, *, runs: Runs, turns: Turns, destinations: Destinations, reconciling: Reconciling
    ) -> None:
        self._bench = bench
        self._runs = runs
        self._turns = turns
        self._destinations = destinations
        self._reconciling = reconciling

    def on_ended(self, ended: Ended) -> None:
        """Let follow what follows from the end of an effect: each kind has results of its own, and None when cancelled."""
        match ended.effect, ended.result:
            case (Push() | Precheck() | Verify() | Seal()) as effect, outcome if outcome is None or isinstance(
                outcome, Outcome
            ):
                self._on_worked(effect, outcome)
            case Inspect() as effect, (Seen() | NothingNew() | Unseen()) as seen:
                self._runs.on_inspected(ended, effect, seen)
            case Admit() as effect, (Seen() | NothingNew() | Unseen()) as seen:
                self._on_admitted(ended, effect, seen)
            case AskWhere() as effect, Whereabouts() as answer:
                self._runs.on_whereabouts(effect, answer)
            case Scan() as effect, (Scanned() | ScanFailed()) as found:
                self._reconciling.on_scanned(ended, effect, found)
            case Probe() as effect, (Answered() | Unreached()) as answered:
                self._destinations.on_probed(ended, effect, answered)
            case Bind() as effect, (Answered() | BindingRefused()) as bound:
                self._destinations.on_bound(effect, bound)
            case WriteStatus() as effect, (StatusWritten() | StatusUnwritten()) as written:
                self._on_status(effect, written)
            case PlaceHeartbeat() as effect, Unreached() as unreached:
                self._destinations.lost(self._bench.lanes[effect.equipment_id], unreached.message, unreached.wait)
            case PlaceHeartbeat(), HeartbeatPlaced() as placed:
                if placed.problem:
                    log.warning("the heartbeat could not be placed on the NAS: %s", placed.problem)
            case effect, result:
                raise AssertionError(f"{type(effect).__name__} does not end with {result}")

    def _on_worked(self, effect: Work, outcome: Outcome | None) -> None:
        record = self._bench.commit.record(effect.job_id)
        assert record is not None, "work belongs to a known run"
        if outcome is None:
            return
        if isinstance(outcome, EffectFailed) and outcome.is_destination_away:
            self._destinations.lost(self._bench.lanes[effect.equipment_id], outcome.message, outcome.wait)
        if isinstance(outcome, EffectFailed) and outcome.is_source_away:
            self._bench.post(ScanWanted((effect.equipment_id,)))
        if isinstance(outcome, Sealed) and outcome.saved is not None:
            self._runs.wrote(record, outcome.saved)
        self._runs.decide(effect.job_id, outcome)

    def _on_admitted(self, ended: Ended, effect: Admit, result: Inspection) -> None:
        lane = self._bench.lanes[effect.equipment_id]
        if isinstance(result, Unseen) and result.code is UnseenCode.DESTINATION:
            self._destinations.lost(lane, result.message, result.wait)
        if isinstance(result, Seen) and result.marker_id is not None:
            asked_fully_s = ended.ended_s if effect.asks_nas_fully else None
            self._destinations.on_admission(lane, result.marker_id, asked_fully_s=asked_fully_s)
        self._runs.take_in(ended, effect.place, result)
        self._turns.on_admitted(effect, result)

    def _on_status(self, effect: WriteStatus, result: StatusWritten | StatusUnwritten) -> None:
        record = self._bench.commit.record(effect.job_id)
        assert record is not None, "a status belongs to a known run"
        if isinstance(result, StatusWritten):
            self._runs.wrote(record, result.saved)
        else:
            self._runs.say_problem(effect.job_id, result.message)
            self._runs.look_in(record.run_path, STATUS_RETRY_S)
