"""`NASSyncClient`: the async face of the same engine, for a Python program that hands over runs one by one.

The engine runs on its own threads; every coroutine here only asks it and waits without blocking the event loop. What a
client looks after is what was enqueued, now or in an earlier life over the same state folder; it discovers nothing.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from exlab_watch_agent.acts.carry_out import work
from exlab_watch_agent.acts.inspect import inspect
from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.app.agent import Agent
from exlab_watch_agent.app.build import Scope
from exlab_watch_agent.app.config_file import ConfigSource
from exlab_watch_agent.config.load import Settings, load_settings
from exlab_watch_agent.core.commands import Command, Enqueue, Retry
from exlab_watch_agent.core.decide import verify_effect
from exlab_watch_agent.core.discovery import place_of
from exlab_watch_agent.core.effects import Inspect
from exlab_watch_agent.core.events import EffectFailed, Seen, Unseen, Verified
from exlab_watch_agent.core.gate import Finding, blocking, mark_overrides
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.manifest import Agreement
from exlab_watch_agent.core.operator import Operator
from exlab_watch_agent.core.passes import HowRead, ReadBack
from exlab_watch_agent.core.policy import EquipmentPolicy
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.engine.errands import on_executor
from exlab_watch_agent.engine.messages import Answer
from exlab_watch_agent.errors import AgentError, FailureKind, TransportError
from exlab_watch_agent.ports import Control, Transport
from exlab_watch_agent.statechart import CHART

REPLY_WAIT_S = 60.0
PROGRAM = Operator("program")

PushCallable = Callable[[Path, str, Sequence[str]], Awaitable[None] | None]
"""(run folder, destination below the root, POSIX paths to copy) → None when all are there. May be a coroutine function."""
HashCallable = Callable[[str, Sequence[str]], Awaitable[Mapping[str, str]] | Mapping[str, str]]
"""(destination below the root, POSIX paths) → path → SHA-256 in 64 lowercase hex; missing files left out."""


class SyncJobState(StrEnum):
    """What a job's state is called outside; the chart says which state shows as which."""

    QUEUED = "queued"
    RUNNING = "running"
    AWAITING_VERIFY = "awaiting_verify"
    VERIFIED = "verified"
    CLEANUP_ELIGIBLE = "cleanup_eligible"
    CLEANED = "cleaned"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SyncJobHandle:
    """What `enqueue` returns. `state` is `queued` or `blocked`; when blocked, `job_id` is empty and the findings say why."""

    job_id: str
    state: str
    run_path: str
    blocking_findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """One comparison of both sides. `ok`: every SHA-256 is equal. `error_kind` is set when it could not be made.

    `mismatched` and `missing`: POSIX paths that differ, or are gone on either side. `extra`: only on the NAS, untouched.
    """

    ok: bool
    mismatched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    error_kind: FailureKind | None = None
    message: str = ""


class NASSyncClient:
    """Hands runs to the engine. `init` before anything else, `close` at the end; `close` may be called again.

    `config`: the path of a config file, or settings. `queue_db`: the state folder (made when absent). The two factories
    give, for an equipment, what copies its files or hashes them on the NAS; None for the configured transport's own way.
    """

    def __init__(
        self,
        *,
        config: Settings | Path | str,
        queue_db: Path,
        push_callable_factory: Callable[[EquipmentPolicy], PushCallable | None] | None = None,
        hashsum_callable_factory: Callable[[EquipmentPolicy], HashCallable | None] | None = None,
    ) -> None:
        settings = config if isinstance(config, Settings) else load_settings(Path(config))
        self._push_factory = push_callable_factory
        self._hash_factory = hashsum_callable_factory
        self._agent = Agent(
            settings,
            state_dir=Path(queue_db).expanduser().absolute(),
            scope=Scope(only_enqueued=True),
            on_move=self._on_move,
            transport_factory=self._make_transport,
            source=None
            if isinstance(config, Settings)
            else ConfigSource(lambda: load_settings(settings.path), has_fixed_state_dir=True, can_go_on=False),
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._moved: asyncio.Event | None = None

    # --- life --------------------------------------------------------------------------------------------------------

    async def init(self) -> None:
        """Open the state folder, take up what was not finished, start working. Raises: StateFolderError, ConfigError."""
        self._loop = asyncio.get_running_loop()
        self._moved = asyncio.Event()
        await asyncio.to_thread(self._agent.open)
        self._thread = threading.Thread(target=self._run, name="nas-sync-client", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._agent.run()
        except BaseException as error:  # noqa: BLE001 - raised at the next call
            self._failure = error

    async def close(self) -> None:
        """Stop working and release the state folder. The next `init` goes on with what was not finished."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._agent.stop()
        await asyncio.to_thread(thread.join)
        await asyncio.to_thread(self._agent.close)

    # --- jobs --------------------------------------------------------------------------------------------------------

    async def enqueue(self, run_path: Path | str) -> SyncJobHandle:
        """Hand a run over and return its job; a known run's job is returned, a failed one is armed again.

        One that a person cancelled is not: only `retry` has it go on.

        A run that the gate refuses is `blocked`; it goes on by itself once its `creation.json` has an override.
        Raises: AgentError when the run cannot be read, belongs to no configured equipment, or was cancelled.
        """
        path = _absolute(run_path)
        refusals = await asyncio.to_thread(self._refusals, path)
        await self._ask(Enqueue(PROGRAM, path))
        record = await self._record_once_known(path)
        if refusals:
            return SyncJobHandle("", "blocked", path, refusals)
        return SyncJobHandle(record.job_id, "queued", path)

    async def status(self, run_path: Path | str) -> str:
        """Return the job's state as `SyncJobState` calls it; "none" without a job."""
        record = self._record(_absolute(run_path))
        shown = CHART.states[record.state].job_state if record is not None else None
        return SyncJobState(shown).value if shown is not None else "none"

    async def retry(self, job_id: str) -> None:
        """Try a failed job again, with its attempts counted from 0. Raises: AgentError when it has not failed."""
        await self._ask(Retry(PROGRAM, job_id=job_id))

    async def force_verify(self, run_path: Path | str) -> VerifyResult:
        """Hash both sides now and compare; changes nothing, here, there or in the job's state.

        Raises: AgentError when the run has no job.
        """
        record = self._record(_absolute(run_path))
        if record is None:
            raise AgentError(f"{run_path} has no job: enqueue it first.")
        return await asyncio.to_thread(self._compare, record)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _on_move(self, _record: RunRecord, _move: Move) -> None:
        loop, moved = self._loop, self._moved
        if loop is not None and moved is not None and not loop.is_closed():
            loop.call_soon_threadsafe(moved.set)

    def _record(self, path: str) -> RunRecord | None:
        self._require_running()
        return self._agent.store.view.at(path)

    def _require_running(self) -> None:
        if self._failure is not None:
            raise AgentError(f"The sync client has stopped: {self._failure}") from self._failure
        if self._thread is None:
            raise AgentError("The sync client is not running: call init() first.")

    async def _record_once_known(self, path: str) -> RunRecord:
        assert self._moved is not None, "init() comes first"
        deadline_s = SystemClock().monotonic_s() + REPLY_WAIT_S
        while SystemClock().monotonic_s() < deadline_s:
            self._moved.clear()
            record = self._record(path)
            if record is not None:
                return record
            try:
                await asyncio.wait_for(self._moved.wait(), timeout=1.0)
            except TimeoutError:
                continue
        raise AgentError(f"{path} was not taken up: {self._why_not_taken_up(path)}")

    def _why_not_taken_up(self, path: str) -> str:
        engine = self._agent.engine
        assert engine is not None, "init() comes first"
        place = place_of(path, engine.roots)
        root_problem = engine.view.lanes[place.equipment_id].root_problem if place is not None else None
        return self._agent.paused or root_problem or "its creation.json cannot be used."

    async def _ask(self, command: Command) -> str:
        self._require_running()
        assert self._loop is not None, "init() comes first"
        answered: asyncio.Future[Answer] = self._loop.create_future()
        loop = self._loop

        def settle(answer: Answer) -> None:
            if not answered.done():
                answered.set_result(answer)

        def reply(answer: Answer) -> None:
            loop.call_soon_threadsafe(settle, answer)

        self._agent.ask(command, reply)
        answer = await asyncio.wait_for(answered, timeout=REPLY_WAIT_S)
        if not answer["ok"]:
            raise AgentError(str(answer["message"]))
        return str(answer["message"])

    def _refusals(self, path: str) -> tuple[Finding, ...]:
        self._require_running()
        engine = self._agent.engine
        assert engine is not None, "init() comes first"
        place = place_of(path, engine.roots)
        if place is None:
            raise AgentError(f"{path} is not a run of a configured equipment.")
        result = inspect(Inspect(place, judges_gate=True), engine.ports_of(place.equipment_id))
        if isinstance(result, Unseen):
            raise AgentError(result.message)
        if not isinstance(result, Seen):
            raise AgentError(f"{path} is not a run: its creation.json has another level.")
        now = SystemClock().now()
        return blocking(mark_overrides(result.inspected.findings, result.creation.overrides, now=now))

    def _compare(self, record: RunRecord) -> VerifyResult:
        engine = self._agent.engine
        assert engine is not None, "init() comes first"
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="nas-sync-client") as other_side:
            control = Control(side_by_side=on_executor(other_side))
            outcome = work(verify_effect(record), engine.ports_of(record.equipment_id), control)
        if isinstance(outcome, Verified):
            found = outcome.comparison
            return VerifyResult(
                ok=found.agreement is Agreement.EQUAL and not outcome.skipped_oversize,
                mismatched=tuple(sorted({*found.local_changed, *found.remote_changed, *found.local_added})),
                missing=tuple(sorted({*found.local_missing, *found.remote_missing})),
                extra=found.remote_extra,
            )
        if isinstance(outcome, EffectFailed):
            return VerifyResult(ok=False, error_kind=outcome.kind, message=outcome.message)
        return VerifyResult(ok=False, message=getattr(outcome, "message", "the run changed while it was verified"))

    def _make_transport(self, equipment: EquipmentPolicy) -> Transport:
        push = self._push_factory(equipment) if self._push_factory is not None else None
        hashes = self._hash_factory(equipment) if self._hash_factory is not None else None
        transport = self._agent.make_transport(equipment)
        if push is None and hashes is None:
            return transport
        return cast("Transport", _CallableTransport(transport, push, hashes))


def _absolute(run_path: Path | str) -> str:
    return os.path.abspath(os.path.expanduser(os.fspath(run_path)))


class _CallableTransport:
    """A transport whose copying or hashing a program has brought along; all else is the configured transport's."""

    def __init__(self, transport: Transport, push: PushCallable | None, hashes: HashCallable | None) -> None:
        self._transport = transport
        self._push = push
        self._hashes = hashes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def copy(self, source_root: str, files: Sequence[FileEntry], destination: str, *, control: Control) -> None:
        if self._push is None:
            self._transport.copy(source_root, files, destination, control=control)
        elif files:
            _finish(self._push(Path(source_root), destination, [entry.path for entry in files]))

    def read_back(self, destination: str, paths: Sequence[str], *, control: Control) -> ReadBack:
        if self._hashes is None:
            return self._transport.read_back(destination, paths, control=control)
        found = dict(_finish(self._hashes(destination, paths)))
        return ReadBack(found, HowRead.INJECTED, is_past_cache=False)

    def digest_bytes_max(self) -> int | None:
        return self._transport.digest_bytes_max() if self._hashes is None else None


def _finish(result: Any) -> Any:
    """Return the result of a call that may have been to a coroutine function; we are on a worker's thread."""
    if not asyncio.iscoroutine(result):
        return result
    try:
        return asyncio.run(_awaited(result))
    except asyncio.CancelledError as error:  # no Exception of Python's: it would end the worker without a word
        raise TransportError(FailureKind.UNKNOWN, "The program's own transport was cancelled.") from error


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result
