"""Operators' commands, as the running agent obeys them. Each is a line of the audit trail before it takes effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exlab_watch_agent.core.claim import OF_OTHERS
from exlab_watch_agent.core.decide import verify_effect
from exlab_watch_agent.core.discovery import place_of
from exlab_watch_agent.core.events import AuditDue, LocalChosen, RetryRequested
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.text import counted
from exlab_watch_agent.engine.desk import Desk
from exlab_watch_agent.engine.lane import Requested
from exlab_watch_agent.engine.looking import Looking
from exlab_watch_agent.engine.scanning import Scanning
from exlab_watch_agent.engine.timers import TimerKind
from exlab_watch_agent.engine.working import Working
from exlab_watch_agent.errors import AgentError, StoreFullError, StoreWriteError
from exlab_watch_agent.ports import Entry
from exlab_watch_agent.statechart import RunState

NOTHING_ON_HOLD = "Nothing is on hold: there is no damage that would have to be accepted."
TRAIL_ACCEPTED = "the state as it is now counts; what was damaged stays in the evidence folder"


class Requests:
    """Part of the engine's loop; see desk.py."""

    def __init__(self, desk: Desk, working: Working, looking: Looking, scanning: Scanning) -> None:
        self._desk = desk
        self._working = working
        self._looking = looking
        self._scanning = scanning

    def on_request(self, message: Requested) -> None:
        if message.request.get("command") == "bind":
            self._bind(message)
            return
        try:
            text = self._obey(message.request)
            answer = {"ok": True, "message": text}
        except AgentError as error:
            if isinstance(error, StoreWriteError) and not isinstance(error, StoreFullError):
                raise  # a failed fsync ends the agent
            answer = {"ok": False, "message": str(error)}
        self._desk.after_commit.append(lambda: message.reply(answer))

    def _bind(self, message: Requested) -> None:
        """Have a destination bound; the answer comes once that has been tried."""
        operator = self._note(message.request)
        lane = self._desk.lanes.get(str(message.request.get("equipment")))
        if lane is None:
            answer = {
                "ok": False,
                "message": f"{message.request.get('equipment')} is no equipment of the configuration.",
            }
            self._desk.after_commit.append(lambda: message.reply(answer))
        else:
            self._desk.after_commit.append(lambda: self._working.bind(lane, operator, message.reply))

    def _note(self, request: Mapping[str, Any]) -> str:
        """Put the command into the trail; return who gave it."""
        operator = str(request.get("operator") or "unknown")
        data = {key: value for key, value in request.items() if key != "operator"}
        self._desk.entries.append(Entry("operator_command", operator=operator, data=data))
        return operator

    def _obey(self, request: Mapping[str, Any]) -> str:
        command, operator = str(request.get("command")), self._note(request)
        if command == "scan":
            return self._scan(request.get("accept_root"), operator)
        if command == "retry" and request.get("all"):
            failed = [
                record.job_id
                for record in self._desk.store
                if record.state is RunState.FAILED and self._desk.is_mine(record)
            ]
            for job_id in failed:
                self._desk.decide(job_id, RetryRequested(operator))
            return f"{counted(len(failed), 'failed run')} put back into the queue"
        if command == "accept_trail":
            return self._accept_trail(operator, str(request.get("reason") or ""))
        if command == "enqueue":
            return self._enqueue(str(request.get("run_path")))
        if command == "look":
            self._looking.want_look(str(request.get("run_path")), is_about_creation=False)
            return "the run is looked at"
        record = self._requested_run(request)
        match command:
            case "retry":
                return self._retry(record, operator)
            case "sync":
                return self._sync(record, operator)
            case "verify":
                return self._verify(record, operator, str(request.get("reason") or "an operator asked for it"))
            case "resolve":
                return self._resolve(record, operator, str(request.get("reason") or ""))
        raise AgentError(f"{command} is no command that this agent knows.")

    def _accept_trail(self, operator: str, reason: str) -> str:
        if self._desk.store.hold is None:
            raise AgentError(NOTHING_ON_HOLD)
        self._desk.store.accept_trail(operator, reason, self._desk.clock.now())
        return TRAIL_ACCEPTED

    def _scan(self, accept_root: Any, operator: str) -> str:
        """Reconcile all lanes; take what stands at one equipment's root now for its root where an operator says so."""
        if accept_root is None:
            self._scanning.want_scan(self._desk.lanes)
            return "a scan was started"
        lane = self._desk.lanes.get(str(accept_root))
        if lane is None:
            raise AgentError(f"{accept_root} is no equipment of the configuration.")
        lane.accepted_by = operator
        self._scanning.want_scan((lane.equipment.equipment_id,))
        return f"a scan was started, and what is in {lane.root} now is taken for the right folder"

    def _enqueue(self, run_path: str) -> str:
        """Look after this run from now on, also where this engine does not look after all that it finds."""
        if place_of(run_path, self._desk.roots) is None:
            raise AgentError(f"{run_path} is no run of a configured equipment.")
        if self._desk.only is not None:
            self._desk.only.add(run_path)
        record = self._desk.record_at(run_path)
        if record is not None and record.state is RunState.FAILED:
            self._desk.decide(record.job_id, RetryRequested("program"))
        self._looking.want_look(run_path)
        return record.job_id if record is not None else ""

    def _requested_run(self, request: Mapping[str, Any]) -> RunRecord:
        record = self._desk.record(str(request.get("job_id"))) or self._desk.record_at(str(request.get("run_path")))
        if record is None:
            raise AgentError("No such run is known: check the path, or start `exlab-watch-agent run` to find new runs.")
        if record.equipment_id not in self._desk.lanes:
            raise AgentError(f"{record.equipment_id} is not in the configuration any more: put it back first.")
        return record

    def _retry(self, record: RunRecord, operator: str) -> str:
        if record.state is RunState.FAILED:
            self._desk.decide(record.job_id, RetryRequested(operator))
            return "the run is queued again"
        if record.state is RunState.QUEUED:
            self._desk.timers.cancel(TimerKind.READY, record.job_id)
            self._working.make_ready(record, wait_s=0)
            return "the run does not wait any longer"
        raise AgentError(f"The run is {record.state}, and only a failed or queued one can be tried again.")

    def _sync(self, record: RunRecord, operator: str) -> str:
        if record.state in (RunState.FAILED, RunState.QUEUED):
            return self._retry(record, operator)
        if record.state in (RunState.ACQUIRING, RunState.BLOCKED):
            self._looking.want_look(record.run_path)
            return f"the run is {record.state} and is looked at now"
        return f"the run is {record.state}"

    def _verify(self, record: RunRecord, operator: str, reason: str) -> str:
        if record.state is RunState.CONFLICT and record.is_sealed:
            self._desk.after_commit.append(lambda: self._working.start_work(verify_effect(record)))
            return "both sides are compared again"
        if record.state not in (RunState.VERIFIED, RunState.CLEANUP_ELIGIBLE):
            raise AgentError(f"The run is {record.state}: there is no sealed copy to verify yet.")
        self._desk.decide(record.job_id, AuditDue(operator, reason))
        return "another verify pass was started"

    def _resolve(self, record: RunRecord, operator: str, reason: str) -> str:
        if record.state is not RunState.CONFLICT:
            raise AgentError(f"The run is {record.state}: there is no conflict to resolve.")
        is_others = record.last_error is not None and record.last_error.kind in OF_OTHERS
        self._desk.decide(record.job_id, LocalChosen(operator, reason))
        if is_others:
            return (
                "the destination is looked at again: while others have it nothing there is touched, and the run waits"
            )
        return "the local data win: the run is queued, and what differs on the NAS is moved aside, not removed"
