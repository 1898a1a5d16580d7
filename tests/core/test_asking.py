"""What an operator may ask for, state by state: `cancel`, `retry` and `sync`, and what is said where it cannot be had."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from exlab_watch_agent.core.asking import no_cancel, no_retry, no_sync
from exlab_watch_agent.core.creation import RunIdentity
from exlab_watch_agent.core.record import CANCELLED, LastError, RunRecord
from exlab_watch_agent.statechart import RunState

RUN = "/data/SCOPE_01/P/Runs/Run_2026-04-17T14-32"
IDENTITY = RunIdentity("2026-04-17T14:32:00Z", "asmith", "uid", "Run_2026-04-17T14-32")
FAILED = RunRecord(
    "1f", RUN, "SCOPE_01", "P", "experimental", IDENTITY, datetime(2026, 4, 18, tzinfo=UTC), state=RunState.FAILED
)
STOPPED = replace(FAILED, last_error=LastError(CANCELLED, "cancelled by asmith: the wrong sample."))
HAS_IT_GO_ON = f"cancelled by asmith: the wrong sample. `exlab-watch-agent retry {RUN}` has it go on."


@pytest.mark.parametrize(
    ("state", "refusal"),
    [
        ("acquiring", "it is not complete yet, so nothing of it is under way: cancel it once it is queued"),
        ("blocked", "the gate keeps it back, and nothing of it is under way"),
        ("queued", None),
        ("running", None),
        ("prechecking", None),
        ("awaiting_verify", None),
        ("sealing", "every byte of it is proven on the NAS, and only the seal is still to be written"),
        ("verified", "it is proven on the NAS, and nothing of it is under way"),
        ("auditing", "it is proven on the NAS, and is only read again"),
        ("cleanup_eligible", "it is proven on the NAS, and nothing of it is under way"),
        ("cleaning", "what is removed here is proven on the NAS, and a removal only goes forward"),
        ("cleaned", "the NAS has the only copy, and nothing of it is under way"),
        ("conflict", "it rests until somebody says which side counts, and nothing of it is under way"),
        ("failed", "it rests until somebody retries it or it changes, and nothing of it is under way"),
    ],
)
def test_cancel_is_for_what_is_under_way(state: str, refusal: str | None) -> None:
    said = no_cancel(replace(FAILED, state=RunState(state)))
    assert said == (f"The run is {state}: {refusal}." if refusal is not None else None)


def test_a_run_that_was_cancelled_says_by_whom_and_what_has_it_go_on() -> None:
    assert no_cancel(STOPPED) == f"The run rests as it is: {HAS_IT_GO_ON}"
    assert no_sync(STOPPED) == f"The run was {HAS_IT_GO_ON}"
    assert no_retry(STOPPED) is None


@pytest.mark.parametrize("state", RunState)
def test_retry_is_for_what_failed_or_waits_and_else_names_what_helps(state: RunState) -> None:
    said = no_retry(replace(FAILED, state=state))
    helps = {
        **dict.fromkeys((RunState.ACQUIRING, RunState.BLOCKED, RunState.CONFLICT), f" -> exlab-watch-agent show {RUN}"),
        **dict.fromkeys(
            (RunState.VERIFIED, RunState.CLEANUP_ELIGIBLE, RunState.CLEANED), f" -> exlab-watch-agent verify {RUN}"
        ),
    }
    if state in (RunState.FAILED, RunState.QUEUED):
        assert said is None
    else:
        assert said == f"The run is {state}, and only a failed or queued one can be tried again.{helps.get(state, '')}"


@pytest.mark.parametrize("state", RunState)
def test_sync_is_refused_only_where_a_person_must_decide_first(state: RunState) -> None:
    said = no_sync(replace(FAILED, state=state))
    assert (said is None) == (state is not RunState.CONFLICT)
    if said is not None:
        assert said.endswith(f"-> exlab-watch-agent show {RUN}")
