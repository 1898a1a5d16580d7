"""Which state folder this is, and on which machine it is at home: by that an agent is known, not by its host's name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.local.machine import machine_id
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.core.rollback import ELSEWHERE
from tests.adapters.state.store_lives import NOW, opened

GOLDEN = Path(__file__).parents[2] / "data" / "state-v2"
HOME, ELSE = "a" * 32, "b" * 32


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in StateLayout(folder).trail.read_text(encoding="utf-8").splitlines()]


def test_a_new_folder_has_its_name_from_the_first_line_of_its_trail_on(tmp_path: Path) -> None:
    with opened(tmp_path / "one", machine=HOME) as store:
        first = store.folder_id
    (line,) = lines(tmp_path / "one")
    assert line["kind"] == "segment_opened"
    assert line["data"] == {
        "schema": 2, "closed": None, "closed_bytes": 0, "state_folder": first, "machine": HOME,
    }  # fmt: skip
    with opened(tmp_path / "other", machine=HOME) as store:
        assert len(store.folder_id) == len(first) == 32
        assert store.folder_id != first


@pytest.mark.parametrize("is_lost", [False, True])
def test_it_keeps_its_name_also_when_the_projection_is_lost(tmp_path: Path, is_lost: bool) -> None:
    folder = tmp_path / "state"
    with opened(folder, machine=HOME) as store:
        name = store.folder_id
    if is_lost:
        for path in folder.glob("state.*.json"):
            path.unlink()
    with opened(folder, machine=HOME) as store:
        assert (store.folder_id, store.hold) == (name, None)
    assert len(lines(folder)) == 1


def test_a_folder_of_the_first_version_gets_its_name_in_its_next_line_once(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    shutil.copytree(GOLDEN, folder)
    with opened(folder, machine=HOME) as store:
        name, seq = store.folder_id, store.head.seq
    *_, line = lines(folder)
    assert (line["kind"], line["data"]) == ("state_folder_named", {"state_folder": name, "machine": HOME})
    with opened(folder, machine=HOME) as store:
        assert (store.folder_id, store.head.seq) == (name, seq)


def test_on_another_machine_deletion_is_held_until_somebody_says_that_it_is_at_home_there(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with opened(folder, machine=HOME) as store:
        name = store.folder_id
    for _ in range(2):
        with opened(folder, machine=ELSE) as store:
            assert (store.folder_id, store.hold) == (name, ELSEWHERE)
            assert not store.accept_trail("asmith", "", NOW), "that is said of damage, not of machines"
            assert store.hold == ELSEWHERE
    assert [line["kind"] for line in lines(folder)] == ["segment_opened", "machine_changed"]
    with opened(folder, machine=ELSE) as store:
        assert store.accept_machine("asmith", "the PC was replaced", NOW)
        assert not store.accept_machine("asmith", "again", NOW)
        assert store.hold is None
    with opened(folder, machine=ELSE) as store:
        assert store.hold is None
    with opened(folder, machine=HOME) as store:
        assert store.hold == ELSEWHERE, "the old PC is not to go on with it"


def test_damage_found_on_another_machine_is_accepted_apart_from_the_machine(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with opened(folder, machine=HOME):
        pass
    with opened(folder, machine=ELSE) as store:
        store.checkpoint()
    trail = StateLayout(folder).trail
    trail.write_bytes(trail.read_bytes().replace(b'"kind":"machine_changed"', b'"kind":"machine_chANGED"'))
    with opened(folder, machine=ELSE) as store:
        assert store.hold is not None
        assert store.hold.startswith(ELSEWHERE)
        assert len(store.hold) > len(ELSEWHERE), "the damage is said as well"
        assert store.accept_machine("asmith", "the PC was replaced", NOW)
        assert store.hold is not None
        assert ELSEWHERE not in store.hold, "what is left to be accepted is the damage alone"
        assert store.accept_trail("asmith", "looked at it", NOW)
        assert store.hold is None


def test_a_machine_that_says_nothing_of_itself_holds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    for machine in ("", HOME, "", HOME):
        with opened(folder, machine=machine) as store:
            assert store.hold is None


def test_the_machine_s_own_id_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "machine-id").write_text("0123456789abcdef0123456789abcdef\n", encoding="ascii")
    found = machine_id((tmp_path / "none", tmp_path / "machine-id"))
    assert len(found) == 32
    assert found != "0123456789abcdef0123456789abcdef"
    assert machine_id((tmp_path / "none",)) == ""
    (tmp_path / "machine-id").write_text("uninitialized\n", encoding="ascii")
    assert machine_id((tmp_path / "machine-id",)) == ""


def test_a_store_knows_the_machine_by_itself(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "state")
    store.open()
    store.close()
    (line,) = lines(tmp_path / "state")
    assert isinstance(line["data"], dict)
    assert line["data"]["machine"] == machine_id()
