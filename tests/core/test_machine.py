"""The machine, exhaustively: it allows what the chart says, all of it and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import pytest

from exlab_watch_agent.core.machine import IllegalTransition, advance, build_machine
from exlab_watch_agent.statechart import CHART, RunState, Trigger

ROWS = {(row.source, row.trigger): row.dest for row in CHART.rows}


def reachable(start: Iterable[RunState]) -> set[RunState]:
    """All states that the chart's rows lead to, `start` included."""
    found, waiting = set(start), list(start)
    while waiting:
        state = waiting.pop()
        for row in CHART.rows:
            if row.source is state and row.dest not in found:
                found.add(row.dest)
                waiting.append(row.dest)
    return found


@pytest.mark.parametrize(("state", "trigger"), list(product(RunState, Trigger)))
def test_every_trigger_in_every_state_does_what_the_chart_says_or_is_refused(state: RunState, trigger: Trigger) -> None:
    dest = ROWS.get((state, trigger))
    assert CHART.destination(state, trigger) is dest
    if dest is None:
        with pytest.raises(IllegalTransition):
            advance(state, trigger)
    else:
        assert advance(state, trigger) is dest


def test_a_refused_trigger_leaves_nothing_behind() -> None:
    with pytest.raises(IllegalTransition):
        advance(RunState.CLEANED, Trigger.RETRIED)
    assert advance(RunState.FAILED, Trigger.RETRIED) is RunState.QUEUED


def test_every_state_is_reachable_from_the_initial_one() -> None:
    assert reachable([CHART.initial]) == set(RunState)


@pytest.mark.parametrize("state", list(RunState))
def test_from_every_state_a_resting_one_is_reachable(state: RunState) -> None:
    assert reachable([state]) - CHART.working


@pytest.mark.parametrize("state", sorted(CHART.working))
def test_no_working_state_is_a_dead_end(state: RunState) -> None:
    assert reachable([state]) - {state}


def test_cleaned_is_entered_only_by_a_removal_of_ours_or_by_a_proof_of_the_copy_after_one_of_others() -> None:
    sources = {(row.source, row.trigger) for row in CHART.rows if row.dest is RunState.CLEANED}
    assert sources == {
        (RunState.CLEANING, Trigger.REMOVED),
        (RunState.AUDITING, Trigger.LOCAL_GONE),
        (RunState.CONFLICT, Trigger.NAS_CHOSEN),
        (RunState.CLEANED, Trigger.AUDITED),
    }


@pytest.mark.parametrize("state", list(RunState))
def test_every_state_can_still_become_verified(state: RunState) -> None:
    assert RunState.VERIFIED in reachable([state])


def test_cleaning_is_never_followed_by_judging_or_pushing_what_is_left() -> None:
    dests = {row.dest for row in CHART.rows if row.source is RunState.CLEANING}
    assert dests == {RunState.CLEANED, RunState.CLEANING, RunState.VERIFIED, RunState.CONFLICT}
    assert not dests & {RunState.FAILED, RunState.QUEUED, RunState.ACQUIRING}


def test_only_an_operator_a_proof_or_the_end_of_another_s_claim_leads_out_of_a_conflict() -> None:
    assert {row.trigger for row in CHART.rows if row.source is RunState.CONFLICT} == {
        Trigger.LOCAL_CHOSEN,
        Trigger.TAKEN_OVER,
        Trigger.NAS_CHOSEN,  # by an operator, and after a proof of the copy
        Trigger.DIFFERENCE_GONE,
        Trigger.SEAL_MISSED,
        Trigger.CLAIM_LAPSED,  # to the queue, where the destination is asked before anything is written
        Trigger.DESTINATION_REPLACED,  # by an operator, and to the queue as well
    }


def test_verified_is_entered_only_by_a_proof_or_from_a_state_that_was_proven() -> None:
    sources = {(row.source, row.trigger) for row in CHART.rows if row.dest is RunState.VERIFIED}
    assert sources == {
        (RunState.SEALING, Trigger.SEALED),
        (RunState.AUDITING, Trigger.PROVEN),
        (RunState.AUDITING, Trigger.AUDIT_INTERRUPTED),
        (RunState.CLEANUP_ELIGIBLE, Trigger.CLEANUP_DISABLED),
        (RunState.CLEANING, Trigger.INTERLOCK_BROKEN),
        (RunState.CONFLICT, Trigger.DIFFERENCE_GONE),
    }


def test_nothing_is_pushed_without_having_waited_in_the_queue() -> None:
    assert {row.source for row in CHART.rows if row.dest is RunState.RUNNING} == {RunState.QUEUED}


def test_the_live_machine_has_exactly_the_rows_of_the_chart() -> None:
    machine = build_machine(CHART)
    live = {
        (transition.source, name, transition.dest)
        for name, event in machine.events.items()
        for transitions in event.transitions.values()
        for transition in transitions
    }
    assert live == {(row.source.value, row.trigger.value, row.dest.value) for row in CHART.rows}
    assert set(machine.states) == {state.value for state in RunState}
    assert machine.initial == CHART.initial.value


def test_the_machine_has_no_back_doors() -> None:
    machine = build_machine(CHART)
    assert not [name for name in machine.events if name.startswith("to_")]
    assert set(machine.events) == {trigger.value for trigger in Trigger}


def test_the_machine_has_no_guards_and_no_callbacks() -> None:
    machine = build_machine(CHART)
    for event in machine.events.values():
        for transitions in event.transitions.values():
            for transition in transitions:
                assert not transition.conditions
                assert not transition.before + transition.after + transition.prepare
    for state in machine.states.values():
        assert not state.on_enter + state.on_exit
    assert not machine.on_exception + machine.finalize_event + machine.before_state_change + machine.after_state_change
