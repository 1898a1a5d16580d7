"""An operator's wish about one run, and its record → why it cannot be had, in one sentence with what helps; None where it can.

Decided here: `cancel`, `retry` and `sync`, for each state. Which states there is something to cancel or to try again in is the
chart's to say. Not here: what follows from a wish that can be had (decide.py), and conflicts (ways_out.py). Pure.
"""

from __future__ import annotations

from exlab_watch_agent.core.problem import about
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.statechart import CHART, RunState, Trigger

_NOT_CANCELLED = {
    RunState.ACQUIRING: "it is not complete yet, so nothing of it is under way: cancel it once it is queued",
    RunState.BLOCKED: "the gate keeps it back, and nothing of it is under way",
    RunState.SEALING: "every byte of it is proven on the NAS, and only the seal is still to be written",
    RunState.VERIFIED: "it is proven on the NAS, and nothing of it is under way",
    RunState.AUDITING: "it is proven on the NAS, and is only read again",
    RunState.CLEANUP_ELIGIBLE: "it is proven on the NAS, and nothing of it is under way",
    RunState.CLEANING: "what is removed here is proven on the NAS, and a removal only goes forward",
    RunState.CLEANED: "the NAS has the only copy, and nothing of it is under way",
    RunState.CONFLICT: "it rests until somebody says which side counts, and nothing of it is under way",
    RunState.FAILED: "it rests until somebody retries it or it changes, and nothing of it is under way",
}
_HELPS = {
    RunState.ACQUIRING: "show",
    RunState.BLOCKED: "show",
    RunState.CONFLICT: "show",
    RunState.VERIFIED: "verify",
    RunState.CLEANUP_ELIGIBLE: "verify",
    RunState.CLEANED: "verify",
}
"""What says more of a run that cannot be tried again, or does what may be meant."""


def no_cancel(record: RunRecord) -> str | None:
    """Return why there is nothing to cancel of this run; None where there is."""
    if record.state in CHART.sources(Trigger.CANCELLED):
        return None
    if record.is_cancelled:
        return f"The run rests as it is: {_was_cancelled(record)}"
    return f"The run is {record.state}: {_NOT_CANCELLED[record.state]}."


def no_retry(record: RunRecord) -> str | None:
    """Return why there is nothing to try again of this run; None where there is."""
    if record.state in CHART.retryable:
        return None
    helps = f" -> {about(_HELPS[record.state], record.run_path)}" if record.state in _HELPS else ""
    return f"The run is {record.state}, and only a failed or queued one can be tried again.{helps}"


def no_sync(record: RunRecord) -> str | None:
    """Return why the run cannot be brought to rest by asking for it; None where that can be tried."""
    if record.is_cancelled:
        return f"The run was {_was_cancelled(record)}"
    if record.state is RunState.CONFLICT:
        helps = about("show", record.run_path)
        return f"The run is in conflict, and rests until somebody says which side counts. -> {helps}"
    return None


def _was_cancelled(record: RunRecord) -> str:
    """Return who cancelled the run and why, and what has it go on."""
    assert record.last_error is not None, "it says who did"
    return f"{record.last_error.message.rstrip('.')}. `{about('retry', record.run_path)}` has it go on."
