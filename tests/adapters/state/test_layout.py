"""The names of the state folder are a promise: a release that changes one would not find what is there."""

from __future__ import annotations

from pathlib import Path

from exlab_watch_agent.adapters.state.layout import CLOSED_NAME, StateLayout, closed_name


def test_every_name_is_the_one_that_earlier_releases_wrote() -> None:
    layout = StateLayout(Path("s"))
    names = {name: getattr(layout, name) for name, value in vars(StateLayout).items() if isinstance(value, property)}
    traces, slots = names.pop("traces_of_use"), names.pop("slots")
    assert {name: path.relative_to("s").as_posix() for name, path in names.items()} == {
        "lock": "agent.lock",
        "holder": "agent.json",
        "trail": "audit.jsonl",
        "next_trail": "audit.next.jsonl",
        "closed": "audit",
        "evidence": "evidence",
        "manifests": "manifests",
        "inbox": "inbox",
        "week": "week.json",
        "replies": "replies",
        "live": "live.json",
        "heartbeat": "heartbeat.json",
        "logs": "logs",
        "log": "logs/agent.log",
        "children": "children",
        "sockets": "ssh",
    }
    assert [path.name for path in slots] == ["state.a.json", "state.b.json"]
    assert {path.name for path in traces} == {
        "evidence", "audit", "manifests", "logs", "heartbeat.json", "live.json", "agent.json",
    }  # fmt: skip


def test_a_closed_segment_is_called_by_the_number_of_its_first_line() -> None:
    assert StateLayout(Path("s")).closed_segment(42) == Path("s/audit/audit.000000000042.jsonl")
    match = CLOSED_NAME.fullmatch(closed_name(42))
    assert match is not None
    assert int(match[1]) == 42
