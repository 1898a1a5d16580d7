"""The `transitions` machine built from the chart; the only importer of `transitions`.

One machine serves all runs: it holds no model, a state goes in and a state comes out. Whether a move is possible is the
chart's word alone; nothing here judges, saves or acts.
"""

from __future__ import annotations

from functools import cache

from transitions import Machine, MachineError

from exlab_watch_agent.statechart import CHART, Chart, RunState, Trigger


class IllegalTransition(Exception):  # noqa: N818 - the name of the fact, not of an operator's error
    """Judgement and chart disagree: our defect, never the data's. Nothing was changed."""


class _Position:
    """The one attribute that `transitions` moves. No model of the machine: binding one costs more than the whole move."""

    def __init__(self, state: str) -> None:
        self.state = state


def build_machine(chart: Chart) -> Machine:
    """Return a machine with exactly the chart's states and rows."""
    return Machine(
        model=None,
        states=[state.value for state in chart.states],
        initial=chart.initial.value,
        transitions=[{"trigger": r.trigger.value, "source": r.source.value, "dest": r.dest.value} for r in chart.rows],
        queued=False,
        auto_transitions=False,  # else every state gets a to_<state>() back door
        ignore_invalid_triggers=False,  # a silent refusal would hide a lost run
        send_event=False,
    )


@cache
def _machine() -> Machine:
    return build_machine(CHART)


def advance(state: RunState, trigger: Trigger) -> RunState:
    """Return the state that follows. Raises: IllegalTransition when the chart has no such row."""
    position = _Position(state.value)
    try:
        if not _machine().events[trigger.value].trigger(position):
            raise IllegalTransition(f"{trigger} was refused in {state}")
    except MachineError as error:
        raise IllegalTransition(f"{trigger} is not possible in {state}") from error
    return RunState(position.state)
