"""Operators' commands, as the running agent obeys them. Each is a line of the audit trail before it takes effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from exlab_watch_agent.core.asking import no_cancel, no_retry, no_sync
from exlab_watch_agent.core.claim import OF_OTHERS
from exlab_watch_agent.core.commands import (
    AcceptMachine,
    AcceptTrail,
    BindDestination,
    Cancel,
    DismissProblem,
    Enqueue,
    Forget,
    LookAt,
    ReplaceDestination,
    Resolve,
    Retry,
    RetryAll,
    RunCommand,
    ScanRoots,
    Sync,
    TakeOver,
    UseNasManifest,
    VerifyNow,
    reason_in,
)
from exlab_watch_agent.core.decide import is_held_by_others, is_short, nas_choice_effect, verify_effect
from exlab_watch_agent.core.discovery import place_of
from exlab_watch_agent.core.events import AuditDue, CancelRequested, LocalChosen, RetryRequested, TakenOver
from exlab_watch_agent.core.facts import AttemptsCleared, OperatorCommand, dismissals_of
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.text import counted
from exlab_watch_agent.core.ways_out import no_take_over
from exlab_watch_agent.engine.bench import Bench
from exlab_watch_agent.engine.commit import Reply, answer
from exlab_watch_agent.engine.destinations import Destinations
from exlab_watch_agent.engine.lane import Lane
from exlab_watch_agent.engine.looks import Looks
from exlab_watch_agent.engine.messages import Answer, CommandGiven
from exlab_watch_agent.engine.reconciling import Reconciling
from exlab_watch_agent.engine.runs import Runs
from exlab_watch_agent.engine.turns import Turns
from exlab_watch_agent.errors import AgentError, StoreFullError, StoreWriteError
from exlab_watch_agent.statechart import CHART, RunState

NOTHING_ON_HOLD = "Nothing is on hold: there is no damage that would have to be accepted."
AT_HOME = "This state folder is at home on this machine: there is nothing that would have to be accepted."
MACHINE_ACCEPTED = "this state folder is at home on this machine from now on; a copy elsewhere needs one of its own"
CANCELLED = "nothing more is done with the run, also where it changes or the agent starts again, until `retry`"
TRAIL_ACCEPTED = "the state as it is now counts; what was damaged stays in the evidence folder"


def dismissed(command: DismissProblem | Forget) -> str:
    """Return what is said once that is durable."""
    what = counted(len(command.problem_ids), "problem") if isinstance(command, Forget) else "it"
    is_one = not isinstance(command, Forget) or len(command.problem_ids) == 1
    return f"{what} {'is' if is_one else 'are'} listed with --all only from now on"


class Operators:
    """The loop's own; only its thread uses it."""

    def __init__(
        self,
        bench: Bench,
        *,
        looks: Looks,
        runs: Runs,
        turns: Turns,
        destinations: Destinations,
        reconciling: Reconciling,
    ) -> None:
        self._bench = bench
        self._looks = looks
        self._runs = runs
        self._turns = turns
        self._destinations = destinations
        self._reconciling = reconciling

    def on_command(self, message: CommandGiven) -> None:
        """Obey, and answer once that is durable; a binding is answered when it has been tried."""
        command = message.command
        self._bench.commit.note(OperatorCommand(command), operator=str(command.operator))
        try:
            if isinstance(command, BindDestination):
                self._bind(command, message.reply)
                return
            if isinstance(command, ReplaceDestination):
                self._destinations.replace(self._lane(command.equipment), command, message.reply)
                return
            said = self._obey(command)
        except AgentError as error:
            if isinstance(error, StoreWriteError) and not isinstance(error, StoreFullError):
                raise  # a failed fsync ends the agent
            self._bench.commit.then(Reply(message.reply, answer(str(error), is_ok=False)))
            return
        self._bench.commit.then(Reply(message.reply, answer(said)))

    def _bind(self, command: BindDestination, reply: Callable[[Answer], None]) -> None:
        lane = self._lane(command.equipment)
        self._bench.commit.then(self._destinations.bind(lane, str(command.operator), reply))

    def _lane(self, equipment_id: str) -> Lane:
        lane = self._bench.lanes.get(equipment_id)
        if lane is None:
            raise AgentError(
                f"{equipment_id} is not in the running agent's configuration: check the name, or give `exlab-watch-agent reload`."
            )
        return lane

    def _obey(
        self,
        command: ScanRoots
        | AcceptTrail
        | AcceptMachine
        | DismissProblem
        | Forget
        | Enqueue
        | LookAt
        | RetryAll
        | RunCommand,
    ) -> str:
        match command:
            case ScanRoots():
                return self._scan(command)
            case RetryAll():
                return self._retry_all(str(command.operator))
            case AcceptTrail():
                return self._accept_trail(command)
            case AcceptMachine():
                return self._accept_machine(command)
            case DismissProblem() | Forget():
                return self._dismiss(command)
            case Enqueue():
                return self._enqueue(command.run_path)
            case LookAt():
                self._looks.want(command.run_path)
                return "the run is looked at"
            case Retry():
                return self._retry(self._named(command), str(command.operator))
            case Sync():
                return self._sync(self._named(command), str(command.operator))
            case VerifyNow():
                return self._verify(self._named(command), command)
            case Resolve():
                return self._resolve(self._named(command), command)
            case TakeOver():
                return self._take_over(self._named(command), command)
            case Cancel():
                return self._cancel(self._named(command), command)
            case UseNasManifest():
                return self._use_nas_manifest(self._named(command), command)
            case _:
                assert_never(command)

    def _named(self, command: RunCommand) -> RunRecord:
        record = self._bench.commit.record(command.job_id) or self._bench.commit.record_at(command.run_path)
        if record is None:
            raise AgentError("No such run is known: check the path, or start `exlab-watch-agent run` to find new runs.")
        if record.equipment_id not in self._bench.lanes:
            raise AgentError(
                f"{record.equipment_id} is no longer in the configuration: add it there again, then `exlab-watch-agent reload`."
            )
        return record

    def _accept_trail(self, command: AcceptTrail) -> str:
        if not self._bench.commit.store.accept_trail(str(command.operator), command.reason, self._bench.clock.now()):
            raise AgentError(NOTHING_ON_HOLD)
        return TRAIL_ACCEPTED

    def _accept_machine(self, command: AcceptMachine) -> str:
        if not self._bench.commit.store.accept_machine(str(command.operator), command.reason, self._bench.clock.now()):
            raise AgentError(AT_HOME)
        return MACHINE_ACCEPTED

    def _scan(self, command: ScanRoots) -> str:
        """Reconcile all lanes; take what is in one equipment's root now for the right folder where an operator says so."""
        if command.accept_root is None:
            self._reconciling.want_scan(self._bench.lanes, is_deep=True)
            return "a scan was started"
        lane = self._lane(command.accept_root)
        lane.accepted_by = str(command.operator)
        self._reconciling.want_scan((lane.equipment_id,), is_deep=True)
        return f"a scan was started, and what is in {lane.ports.root} now is taken for the right folder"

    def _dismiss(self, command: DismissProblem | Forget) -> str:
        reason_in(command.reason)
        for fact in dismissals_of(command):
            self._bench.commit.note(fact, operator=fact.by)
        return dismissed(command)

    def _enqueue(self, run_path: str) -> str:
        """Look after this run from now on, also where this engine does not look after all that it finds."""
        if place_of(run_path, self._looks.roots) is None:
            raise AgentError(f"{run_path} is not a run of a configured equipment.")
        if self._looks.only is not None:
            self._looks.only.add(run_path)
        record = self._bench.commit.record_at(run_path)
        if record is not None and record.is_cancelled and (refusal := no_sync(record)):
            raise AgentError(refusal)  # a person stopped it, and a program hands over what it has again and again
        if record is not None and record.state is RunState.FAILED:
            self._runs.decide(record.job_id, RetryRequested("program"))
        self._looks.want(run_path)
        return record.job_id if record is not None else ""

    def _retry_all(self, operator: str) -> str:
        """Try every failed run again, and let none wait for its next attempt."""
        store = self._bench.commit.store
        known = [self._bench.commit.record(job_id) for job_id in store.ids_in((RunState.FAILED, RunState.QUEUED))]
        mine = [record for record in known if record is not None and self._looks.is_mine(record)]
        failed = [record for record in mine if record.state is RunState.FAILED]
        waiting = [record for record in mine if record.state is RunState.QUEUED and record.next_attempt_at is not None]
        for record in (*failed, *waiting):
            self._try_again(record, operator)
        cancelled = sum(record.is_cancelled for record in failed)
        said = f"{counted(len(failed), 'failed run')} put back into the queue"
        if cancelled:
            said += f", {cancelled} of them cancelled before"
        return f"{said}; {counted(len(waiting), 'run')} waited for the next attempt, and no longer" if waiting else said

    def _retry(self, record: RunRecord, operator: str) -> str:
        if refusal := no_retry(record):
            raise AgentError(refusal)
        self._try_again(record, operator)
        if record.state is RunState.FAILED:
            return f"the run is queued again{self._until_when(record)}"
        has_waited = record.next_attempt_at is not None or record.attempts > 0
        said = "the run does not wait for its next attempt any longer" if has_waited else "the run is in the queue"
        return f"{said}{self._until_when(record)}"

    def _try_again(self, record: RunRecord, operator: str) -> None:
        """Have a failed or a queued run tried when it is its turn, with its attempts counted from 0."""
        if record.state is RunState.FAILED:
            self._runs.decide(record.job_id, RetryRequested(operator))
            return
        if record.attempts or record.next_attempt_at is not None:
            self._bench.commit.save(record.cleared(), AttemptsCleared(record.attempts), operator=operator)
        self._turns.make_ready(record, wait_s=0)

    def _until_when(self, record: RunRecord) -> str:
        """Return what a queued run still waits for, as the end of a sentence; empty where it only waits for its turn."""
        lane = self._bench.lanes[record.equipment_id]
        why = lane.root_problem or (lane.waits.reason if lane.waits is not None else "")
        return f", and waits with all of {record.equipment_id}: {why}" if why else ""

    def _sync(self, record: RunRecord, operator: str) -> str:
        if refusal := no_sync(record):
            raise AgentError(refusal)
        if record.state in CHART.retryable:
            self._bench.lanes[record.equipment_id].put_before_all(record.job_id)
            self._try_again(record, operator)
            return f"the run is the first in the line of {record.equipment_id}{self._until_when(record)}"
        if record.state in (RunState.ACQUIRING, RunState.BLOCKED, RunState.CLEANED, *CHART.sealed_here):
            self._looks.want(record.run_path)
            return f"the run is {record.state} and is looked at now"
        return f"the run is {record.state}: {CHART.states[record.state].meaning}"

    def _verify(self, record: RunRecord, command: VerifyNow) -> str:
        if record.state in (RunState.CONFLICT, RunState.CLEANED) and record.is_sealed:
            self._bench.commit.then(verify_effect(record))
            is_only_copy = record.state is RunState.CLEANED
            return "the copy is compared with the manifest" if is_only_copy else "both sides are compared again"
        if record.state not in (RunState.VERIFIED, RunState.CLEANUP_ELIGIBLE):
            raise AgentError(f"The run is {record.state}: there is no sealed copy to verify yet.")
        self._runs.decide(record.job_id, AuditDue(str(command.operator), command.reason or "an operator asked for it"))
        return "another verify pass was started"

    def _take_over(self, record: RunRecord, command: TakeOver) -> str:
        if record.state is not RunState.CONFLICT or record.last_error is None:
            raise AgentError(f"The run is {record.state}: there is no conflict to resolve.")
        error = record.last_error
        if refusal := no_take_over(error.kind, record.run_path, detail=error.detail):
            raise AgentError(refusal)
        self._runs.decide(record.job_id, TakenOver(str(command.operator), command.reason))
        return (
            "the destination is taken over: the run is queued, what is equal there stays, and all else is moved aside there, "
            "below .exlab-superseded"
        )

    def _cancel(self, record: RunRecord, command: Cancel) -> str:
        reason = reason_in(command.reason)
        if refusal := no_cancel(record):
            raise AgentError(refusal)
        self._runs.decide(record.job_id, CancelRequested(str(command.operator), reason))
        return CANCELLED

    def _use_nas_manifest(self, record: RunRecord, command: UseNasManifest) -> str:
        if record.state is not RunState.CONFLICT or not record.is_sealed:
            raise AgentError(
                f"The run is {record.state}: there is no conflict in which a sealed copy of it could count."
            )
        if is_held_by_others(record):
            raise AgentError(
                "Others hold the copy of this run: it is not this agent's to count on. `show` says what helps."
            )
        self._bench.commit.then(nas_choice_effect(record, operator=str(command.operator), reason=command.reason))
        return "the copy is hashed against what was sealed: if all of it is right, and no data are left here, it counts"

    def _resolve(self, record: RunRecord, command: Resolve) -> str:
        if record.state is not RunState.CONFLICT:
            raise AgentError(f"The run is {record.state}: there is no conflict to resolve.")
        must_compare = is_short(record)
        is_others = is_held_by_others(record) or (record.last_error is not None and record.last_error.kind in OF_OTHERS)
        self._runs.decide(record.job_id, LocalChosen(str(command.operator), command.reason))
        if must_compare:
            return "what is here is compared with what was sealed first: only if all of that is here again, it wins"
        if is_others:
            return (
                "the destination is looked at again: while others have it nothing there is touched, and the run waits"
            )
        return "the local data win: the run is queued, what differs on the NAS is moved aside, and what is only there stays there"
