"""NASSyncClient: what it promises to programs in ExLab-Wizard's shape, on real folders."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import shutil
import threading
from collections.abc import Awaitable, Callable, Sequence
from itertools import dropwhile
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import exlab_watch_agent
from exlab_watch_agent import NASSyncClient, SyncJobHandle, SyncJobState
from exlab_watch_agent.adapters.state import documents
from exlab_watch_agent.app.agent import Agent
from exlab_watch_agent.app.client import VerifyResult
from exlab_watch_agent.config.load import load_settings
from exlab_watch_agent.errors import AgentError
from exlab_watch_agent.statechart import CHART

CONFIG = """\
equipment:
  - {{id: SCOPE_01, label: Scope, local_root: {home}/local, nas_root: x, completeness_signal: creation_json,
     transport: {{type: mounted_path, path: {home}/nas}}}}
agent: {{settle_seconds: 0.05, retry_schedule: ["1h"]}}
"""


class Lab:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.nas = home / "nas"
        self.nas.mkdir()
        (home / "local" / "SCOPE_01").mkdir(parents=True)
        self.config = home / "config.yaml"
        self.config.write_text(CONFIG.format(home=home), encoding="utf-8")
        agent = Agent(load_settings(self.config), state_dir=home / "queue")
        agent.open()
        agent.bind("SCOPE_01", "asmith")  # as `bind` does: nothing shows that this folder is a NAS
        agent.close()

    def run(self, leaf: str = "Run_2026-01-01T00-00", name: str = "a.bin") -> Path:
        run = self.home / "local" / "SCOPE_01" / "P 1" / "Runs" / leaf
        (run / ".exlab-wizard").mkdir(parents=True)
        (run / name).write_bytes(leaf.encode() * 1000)
        creation = {
            "schema_version": "1.8", "created_at": "2026-01-01T00:00:00Z", "created_by": "x", "level": "run",
            "lims_project": {"uid": leaf}, "paths": {"local": str(run)},
        }  # fmt: skip
        (run / ".exlab-wizard" / "creation.json").write_text(json.dumps(creation), encoding="utf-8")
        return run

    def copy_of(self, run: Path) -> Path:
        return self.nas / run.relative_to(self.home / "local" / "SCOPE_01")

    def client(self, **options: object) -> NASSyncClient:
        return NASSyncClient(config=self.config, queue_db=self.home / "queue", **options)  # type: ignore[arg-type]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


async def reaches(client: NASSyncClient, run: Path, state: str) -> bool:
    for _ in range(400):
        if await client.status(run) == state:
            return True
        await asyncio.sleep(0.025)
    return False


def using(client: NASSyncClient, story: Callable[[NASSyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        await client.init()
        try:
            await story(client)
        finally:
            await client.close()
            await client.close()

    asyncio.run(main())


def test_an_enqueued_run_is_verified_and_a_second_enqueue_returns_its_job(lab: Lab) -> None:
    run = lab.run()

    async def story(client: NASSyncClient) -> None:
        assert await client.status(run) == "none"
        handle = await client.enqueue(run)
        assert (handle.state, handle.run_path, handle.blocking_findings) == ("queued", str(run), ())
        assert await reaches(client, run, "verified")
        assert (await client.enqueue(run)).job_id == handle.job_id
        assert await client.force_verify(run) == VerifyResult(ok=True)

    using(lab.client(), story)
    assert (lab.copy_of(run) / "a.bin").read_bytes() == (run / "a.bin").read_bytes()


def test_the_status_of_a_known_run_is_never_none_at_whatever_instant_it_is_asked_while_a_step_is_saved(
    lab: Lab,
) -> None:
    """Asked before each bytecode by which the engine's thread saves a step: there another thread may take over."""
    run, client, said = lab.run(), lab.client(), list[str]()
    asking, is_open, before = threading.Lock(), False, threading.gettrace()

    def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename != documents.__file__:
            return None
        frame.f_trace_opcodes = True
        with asking:
            if is_open:
                said.append(asked(client, run))
        return trace

    async def story(client: NASSyncClient) -> None:
        nonlocal is_open
        is_open = True
        await client.enqueue(run)
        assert await reaches(client, run, "verified")
        with asking:  # a client that is being closed refuses to answer
            is_open = False

    threading.settrace(trace)
    try:
        using(client, story)
    finally:
        threading.settrace(before)
    since_known = list(dropwhile(lambda status: status == "none", said))
    assert {"queued", "running"} <= {*since_known}
    assert "none" not in since_known


def asked(client: NASSyncClient, run: Path) -> str:
    """Return the status without an event loop, which it does not need: it waits for nothing."""
    with pytest.raises(StopIteration) as ended:
        client.status(run).send(None)
    return str(ended.value.value)


def test_a_run_that_was_not_enqueued_is_left_alone(lab: Lab) -> None:
    first, second = lab.run("Run_2026-01-01T00-00"), lab.run("Run_2026-01-01T00-01")

    async def story(client: NASSyncClient) -> None:
        await client.enqueue(first)
        assert await reaches(client, first, "verified")
        assert await client.status(second) == "none"

    using(lab.client(), story)
    assert not lab.copy_of(second).exists()


def test_a_refused_run_is_blocked_with_its_findings_and_without_a_job_id(lab: Lab) -> None:
    run = lab.run(name="<sample>.bin")

    async def story(client: NASSyncClient) -> None:
        handle = await client.enqueue(run)
        assert (handle.job_id, handle.state) == ("", "blocked")
        assert [finding.rule for finding in handle.blocking_findings] == ["unresolved_placeholder_token"]
        assert await reaches(client, run, "none")

    using(lab.client(), story)
    assert not lab.copy_of(run).exists()


def test_what_a_closed_client_did_not_finish_is_taken_up_by_the_next(lab: Lab) -> None:
    run = lab.run()
    lab.nas.rename(lab.home / "away")

    async def enqueue_only(client: NASSyncClient) -> None:
        await client.enqueue(run)
        assert await reaches(client, run, "queued")

    async def only_wait(client: NASSyncClient) -> None:
        assert await reaches(client, run, "verified")

    using(lab.client(), enqueue_only)
    (lab.home / "away").rename(lab.nas)
    using(lab.client(), only_wait)


def test_a_failed_job_is_armed_again_by_retry_and_by_enqueue(lab: Lab) -> None:
    run = lab.run()
    refuses = [True]

    def factory(_equipment: object) -> Callable[[Path, str, Sequence[str]], None]:
        def push(source: Path, destination: str, paths: Sequence[str]) -> None:
            if refuses[0]:
                raise exlab_watch_agent.errors.TransportError(exlab_watch_agent.errors.FailureKind.AUTH, "no key")
            for path in paths:
                shutil.copy2(source / path, lab.nas / destination / path)

        return push

    async def story(client: NASSyncClient) -> None:
        handle = await client.enqueue(run)
        assert await reaches(client, run, "failed")
        with pytest.raises(AgentError):
            await client.retry("no such job")
        await client.retry(handle.job_id)
        assert await reaches(client, run, "failed")
        refuses[0] = False
        assert (await client.enqueue(run)).job_id == handle.job_id
        assert await reaches(client, run, "verified")

    using(lab.client(push_callable_factory=factory), story)


def test_an_injected_hash_that_lies_keeps_the_run_from_being_verified(lab: Lab) -> None:
    run = lab.run()

    async def lying(_destination: str, paths: Sequence[str]) -> dict[str, str]:
        return {path: hashlib.sha256(b"other").hexdigest() for path in paths}

    async def story(client: NASSyncClient) -> None:
        await client.enqueue(run)
        assert await reaches(client, run, "failed")
        result = await client.force_verify(run)
        assert (result.ok, result.mismatched) == (False, ("a.bin",))  # it makes room only for the push that replaces it

    using(lab.client(hashsum_callable_factory=lambda _: lying), story)


def test_force_verify_touches_nothing_and_names_what_differs(lab: Lab) -> None:
    run = lab.run()

    async def story(client: NASSyncClient) -> None:
        await client.enqueue(run)
        assert await reaches(client, run, "verified")
        (lab.copy_of(run) / "a.bin").write_bytes(b"rotten")
        result = await client.force_verify(run)
        assert (result.ok, result.mismatched) == (False, ("a.bin",))
        assert (lab.copy_of(run) / "a.bin").read_bytes() == b"rotten"
        assert await client.status(run) == "verified"

    using(lab.client(), story)


def test_a_path_that_is_no_run_is_refused_in_one_sentence(lab: Lab, tmp_path: Path) -> None:
    async def story(client: NASSyncClient) -> None:
        with pytest.raises(AgentError, match="a run of a configured equipment"):
            await client.enqueue(tmp_path)
        with pytest.raises(AgentError, match="enqueue it first"):
            await client.force_verify(tmp_path)

    using(lab.client(), story)


def test_a_client_that_was_not_initialised_says_so(lab: Lab) -> None:
    with pytest.raises(AgentError, match="init"):
        asyncio.run(lab.client().enqueue(lab.run()))


def test_the_handle_is_frozen_and_the_states_are_those_that_the_chart_shows() -> None:
    handle = SyncJobHandle("a", "queued", "/r")
    with pytest.raises(dataclasses.FrozenInstanceError):
        handle.state = "blocked"  # type: ignore[misc]
    assert {spec.job_state for spec in CHART.states.values()} - {None} == {state.value for state in SyncJobState}
