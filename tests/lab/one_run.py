"""One run brought to its rest without an engine: real acts on a real folder and a real destination, decided by the real core.

For tests that ask the same of every way to a NAS. What the engine adds (queues, waits, commits) is not here: a wait is over
at once, and nothing is saved.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from exlab_watch_agent.acts.carry_out import carry_out
from exlab_watch_agent.acts.probe import bind_destination
from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.app.build import ports_of
from exlab_watch_agent.core.binding import Binding
from exlab_watch_agent.core.decide import RunEffect, claim_of, decide
from exlab_watch_agent.core.discovery import destination_of, place_of
from exlab_watch_agent.core.effects import Admit, CarryCache, Inspect, Seal
from exlab_watch_agent.core.events import AuditDue, CacheCarried, Event, Outcome, Seen
from exlab_watch_agent.core.passes import Uptime
from exlab_watch_agent.core.places import Footing, other_places
from exlab_watch_agent.core.policy import CompletenessSignal, EquipmentPolicy, MountedPathTarget, Policy
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.text import utc_text
from exlab_watch_agent.ports import AgentSelf, Control, Transport
from exlab_watch_agent.statechart import RunState
from tests.lab.lab import CACHE, creation_of, put

STEPS_MAX = 40


class AheadClock(SystemClock):
    """The machine's clock, so many days ahead; `up_longer_s`: for how much longer it has been up."""

    def __init__(self, days: float) -> None:
        super().__init__()
        self._ahead = timedelta(days=days)
        self.up_longer_s = 0.0

    def uptime(self) -> Uptime:
        up = super().uptime()
        return Uptime(up.boot_id or "boot", up.seconds + self.up_longer_s)

    def now(self) -> datetime:
        return super().now() + self._ahead


def new_run(equipment: Path, below: str, files: dict[str, bytes]) -> Path:
    """Make a run below an equipment's folder, as ExLab-Wizard and the instrument do."""
    run = equipment / below
    (run / CACHE).mkdir(parents=True)
    put(run, files)
    (run / CACHE / "creation.json").write_text(json.dumps(creation_of(run)), encoding="utf-8")
    return run


class OneRun:
    """One run of one agent. `equipment`: the equipment's folder, whose name is its id. `state_folder`: the agent's id.

    `moves`: the triggers of what happened to the run.
    """

    def __init__(
        self,
        run: Path,
        transport: Transport,
        *,
        equipment: Path,
        state_dir: Path,
        state_folder: str = "a" * 32,
        days_ahead: float = 0.0,
    ) -> None:
        instrument = EquipmentPolicy(
            equipment.name,
            "Confocal",
            str(equipment.parent),
            MountedPathTarget("/nowhere"),
            CompletenessSignal.CREATION_JSON,
        )
        self.policy = Policy(equipment=(instrument,), settle_s=0.0)
        self.clock = AheadClock(days_ahead)
        state_dir.mkdir(exist_ok=True)
        ports = ports_of(instrument, self.policy, transport, state_dir=state_dir, clock=self.clock)
        agent = AgentSelf(state_folder=state_folder, host="labpc-04", machine="f" * 32, state_dir=str(state_dir))
        self.ports = replace(ports, agent=agent)
        place = place_of(str(run), {instrument.equipment_id: ports.root})
        assert place is not None
        self.place = place
        self.moves: list[str] = []
        self._next: tuple[RunEffect, ...] = ()
        self.record = self._discovered()

    def bind(self) -> None:
        """Accept the destination root as an operator does. Raises: DestinationUnreachableError."""
        marker_id = bind_destination(self.ports).marker_id
        self.ports = replace(self.ports, binding=Binding(marker_id, "asmith", self.ports.transport.describe()))

    def _discovered(self) -> RunRecord:
        creation = self.ports.creations.read(self.place.run_path).creation
        now = self.clock.now()
        return RunRecord(
            job_id=f"{self.ports.agent.state_folder[:4]}-job",
            run_path=self.place.run_path,
            equipment_id=self.place.equipment_id,
            project=self.place.project,
            run_kind=creation.run_kind,
            identity=creation.identity,
            entered_at=now,
            discovered_at=now,
        )

    def bring_to_rest(self, *, but_stop_in: RunState | None = None) -> RunState:
        """Go on until the run rests, or is about to do the work of a state, and return its state.

        What makes it wait for the destination is raised.
        """
        for _ in range(STEPS_MAX):
            if self.record.state is but_stop_in or not self.record.is_working:
                if self.record.state is RunState.ACQUIRING:
                    self._next = self.happened(self._look(Inspect(self.place)))
                    continue
                if self.record.state is RunState.QUEUED:
                    self._next = self.happened(self._look(self._admit()))
                    continue
                return self.record.state
            self.work()
        raise AssertionError(f"it does not come to rest: {self.moves}")

    def audit(self) -> Outcome:
        """Make one more pass and decide what it means; return what was found. A heal that follows is not begun."""
        effects = self.happened(AuditDue())
        outcome = self._work(effects[-1])
        self._next = self.happened(outcome)
        return outcome

    def work(self) -> Outcome:
        """Do the work of the state in which the run is, and decide what it means."""
        outcome = self._work(self._next[-1])
        self._next = self.happened(outcome)
        return outcome

    def go_on(self) -> RunState:
        """Carry on with what the last audit led to, until the run rests."""
        if self.record.is_working:
            self.work()
        return self.bring_to_rest()

    def carry_cache(self) -> CacheCarried:
        """Bring what changed in the cache folder of the sealed run to its copy."""
        record = self.record
        effect = CarryCache(
            record.job_id,
            record.run_path,
            record.equipment_id,
            record.destination,
            record.manifest_digest,
            claim_of(record),
            record.cache_form,
        )
        carried = carry_out(effect, self.ports, Control())
        assert isinstance(carried, CacheCarried), carried
        self.record = replace(record, cache_form=carried.form, cache_signature=carried.signature)
        return carried

    def happened(self, event: Event) -> tuple[RunEffect, ...]:
        step = decide(self.record, event, now=self.clock.now(), policy=self.policy)
        self.record = step.record
        if step.move is not None:
            self.moves.append(step.move.trigger)
        return step.effects

    def _admit(self) -> Admit:
        record, layout = self.record, self.policy.layout
        return Admit(
            self.place,
            claim=claim_of(record),
            destination=record.destination if record.has_place else destination_of(self.place, layout),
            others=() if record.has_place else other_places(self.place, layout),
            is_shown=record.footing is Footing.SHOWN,
            manifest_digest=record.sealed_as,
        )

    def _look(self, effect: Inspect | Admit) -> Event:
        result = carry_out(effect, self.ports, Control())
        assert isinstance(result, Seen), result
        return result.inspected

    def _work(self, effect: RunEffect) -> Outcome:
        if isinstance(effect, Seal):
            effect = replace(effect, anchor={"audit_seq": 1, "sealed_at": utc_text(self.clock.now())}, wait_s=0.0)
        outcome = carry_out(effect, self.ports, Control())
        assert isinstance(outcome, Outcome), outcome
        return outcome
