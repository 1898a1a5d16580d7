"""The whole trail is checked from its first line, by itself and by what is known of it elsewhere, also by the script."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from blake3 import blake3

from exlab_watch_agent.adapters.state import chain as chains
from exlab_watch_agent.adapters.state.chain import Chain, anchors_in, read_chain
from exlab_watch_agent.adapters.state.segments import finished
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.adapters.state.trail_log import Wanted, lines_that_match
from exlab_watch_agent.core.anchors import Anchor
from exlab_watch_agent.core.facts import RootBound
from exlab_watch_agent.core.rollback import TrailPosition
from exlab_watch_agent.errors import StateFolderError
from exlab_watch_agent.ports import Entry

SCRIPT = Path(__file__).parent.parent.parent.parent / "docs" / "verify_trail.py"
GOLDEN = Path(__file__).parent.parent.parent / "data" / "state-v2"
NOW = datetime(2026, 4, 17, 14, 32, tzinfo=UTC)
LINES = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder of 40 lines, closed in order."""
    folder = tmp_path / "state"
    store = RunStore(folder)
    store.open()
    while store.head.seq < LINES:
        fact = RootBound(f"EQ_{store.head.seq}", "v")
        store.commit([Entry(fact.kind, operator="asmith", data=fact.data())], at=NOW)
    store.checkpoint()
    store.close()
    return folder


def lines_of(folder: Path) -> list[bytes]:
    return (folder / "audit.jsonl").read_bytes().split(b"\n")[:-1]


def write(folder: Path, lines: list[bytes]) -> None:
    (folder / "audit.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))


def script(folder: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words, str(folder)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


def script_with(folder: Path, *files: str) -> tuple[int, str]:
    argv = [sys.executable, str(SCRIPT), "--fast", str(folder), *files]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def checked(folder: Path) -> tuple[Chain, tuple[str, ...]]:
    found = read_chain(folder, anchors_in(folder))
    return found, found.against


def test_a_whole_trail_holds_and_its_own_slots_agree(folder: Path) -> None:
    found, said = checked(folder)
    assert (found.lines, found.head.seq, found.breaks, said) == (LINES, LINES, (), ())
    code, words = script(folder)
    assert code == 0
    assert words.startswith(f"every line chains; the last is line {LINES}, its BLAKE3 {found.head.digest}\n")
    assert "agree: 2 beside it, 0 given\nno FILE of the NAS was given" in words


def change(lines: list[bytes]) -> list[bytes]:
    return [*lines[:6], lines[6].replace(b"asmith", b"nobody"), *lines[7:]]


def change_and_sum(lines: list[bytes]) -> list[bytes]:
    """One who knows of the sum makes it fit."""
    changed = lines[6].replace(b"asmith", b"nobody")
    return [*lines[:6], finished(changed[: changed.rindex(b',"sum"')])[0], *lines[7:]]


TAMPERED: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int]] = {
    "changed": (change, 7),
    "changed with its sum": (change_and_sum, 7),
    "removed": (lambda lines: lines[:6] + lines[7:], 7),
    "swapped": (lambda lines: [*lines[:6], lines[7], lines[6], *lines[8:]], 7),
    "first removed": (lambda lines: lines[1:], 1),
    "doubled": (lambda lines: lines[:7] + lines[6:], 7),
    "garbled": (lambda lines: [*lines[:6], b"\xff\x00{", *lines[7:]], 7),
    "with a line end that JSON allows": (lambda lines: [*lines[:6], lines[6].replace(b",", b",\r", 1), *lines[7:]], 7),
    "with half a line before it": (lambda lines: [*lines[:6], b'{"seq":7\r' + lines[6], *lines[7:]], 7),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_the_first_line_that_was_tampered_with_is_named(folder: Path, what: str) -> None:
    tamper, seq = TAMPERED[what]
    write(folder, tamper(lines_of(folder)))
    found, _ = checked(folder)
    assert found.breaks[0].seq == seq
    assert f"line {seq}" in found.breaks[0].found or "lines" in found.breaks[0].found
    code, said = script(folder, "--fast")
    assert code == 1
    assert f"line {seq}" in said


def test_a_cut_end_is_told_by_the_store_and_by_the_heartbeat(folder: Path) -> None:
    lines = lines_of(folder)
    digest = blake3(lines[-1]).hexdigest()
    (folder / "heartbeat.json").write_text(json.dumps({"audit": {"seq": LINES, "blake3": digest}}))
    write(folder, lines[:-3])
    found, said = checked(folder)
    assert found.breaks == ()
    assert [sentence.split(" knows ")[0] for sentence in said] == ["the store beside it", "the heartbeat beside it"]
    assert "the trail ends with line 37" in said[0]


def rechained(lines: list[bytes]) -> list[bytes]:
    """Write all lines anew, each chained to the one before, as somebody does who hides a change."""
    written: list[bytes] = []
    digest = "0" * 64
    for line in lines:
        fact = json.loads(line)
        before = line[: line.rindex(b',"sum"')].replace(fact["prev"].encode(), digest.encode())
        new, digest = finished(before)
        written.append(new)
    return written


def test_a_trail_that_was_written_anew_with_a_valid_chain_is_told_by_its_anchors(folder: Path) -> None:
    write(folder, rechained(change(lines_of(folder))))
    found, said = checked(folder)
    assert found.breaks == ()
    assert len(said) == 1
    assert "the store beside it knows another line 40" in said[0]
    outside = Anchor("the NAS", TrailPosition(20, "0" * 64))
    assert read_chain(folder, [outside]).against


def known_line(lines: list[bytes], seq: int, path: Path, *, is_claim: bool) -> str:
    """Write what a claim of a sealed run, or a heartbeat, says of one line, as they lie on the NAS."""
    digest = blake3(lines[seq - 1]).hexdigest()
    said = {"audit_seq": seq, "audit_blake3": digest} if is_claim else {"audit": {"seq": seq, "blake3": digest}}
    path.write_text(json.dumps({"schema": 2, **said}), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("tamper", "claim_holds", "heartbeat_holds"),
    [
        (lambda lines: lines, True, True),
        (lambda lines: lines[:-3], True, False),
        (lambda lines: lines[:20], True, False),
        (lambda lines: rechained(change(lines)), False, False),
        (lambda lines: [*lines[:-1], lines[-1].replace(b"asmith", b"nobody")], True, False),
    ],
    ids=["whole", "cut", "put back to an older copy", "written anew", "last line changed"],
)
def test_the_script_holds_a_trail_against_what_others_know_of_it(
    folder: Path,
    tmp_path: Path,
    tamper: Callable[[list[bytes]], list[bytes]],
    claim_holds: bool,
    heartbeat_holds: bool,
) -> None:
    lines = lines_of(folder)
    claim = known_line(lines, 20, tmp_path / "exlab-watch-agent.json", is_claim=True)
    heartbeat = known_line(lines, LINES, tmp_path / "labpc-04.json", is_claim=False)
    write(folder, tamper(lines))
    assert script(folder, "--fast")[0] == int(not heartbeat_holds)  # by the store's own slots
    for slot in folder.glob("state.?.json"):
        slot.unlink()
    assert script_with(folder, claim)[0] == int(not claim_holds)
    code, said = script_with(folder, claim, heartbeat)
    assert code == int(not heartbeat_holds)
    if not heartbeat_holds:
        assert "labpc-04.json knows" in said
    (tmp_path / "labpc-04.json").replace(folder / "heartbeat.json")
    assert script(folder, "--fast")[0] == int(not heartbeat_holds)


def test_the_script_says_which_files_know_nothing_of_a_trail(folder: Path, tmp_path: Path) -> None:
    for number, content in enumerate((b"[]", b"{", b'{"audit_seq": "9"}', b'{"audit_seq": true, "audit_blake3": ""}')):
        odd = tmp_path / f"odd\u202e{number}.json"
        odd.write_bytes(content)
        code, said = script_with(folder, str(odd))
        assert code == 2
        assert f"odd\\u202e{number}.json says no line" in said
    assert script_with(folder, str(tmp_path / "nowhere.json"))[0] == 2


def test_a_break_that_the_agent_noted_is_a_break(tmp_path: Path) -> None:
    folder = shutil.copytree(GOLDEN, tmp_path / "state")
    found, _ = checked(folder)
    assert [one.seq for one in found.accounted] == [14]
    assert not found.is_whole
    assert found.segments > 2
    assert script(folder, "--fast")[0] == 1


def test_half_a_line_at_the_end_is_no_break(folder: Path) -> None:
    with (folder / "audit.jsonl").open("ab") as file:
        file.write(b'{"seq":41,"prev"')
    found, said = checked(folder)
    assert (found.breaks, said, found.is_torn, found.head.seq) == ((), (), True, LINES)
    assert script(folder)[0] == 0


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("x")])
def test_a_folder_without_a_trail_is_one_sentence(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "state")
    with pytest.raises(StateFolderError, match=r"There is no audit trail in .*: name the folder|cannot be read"):
        read_chain(tmp_path / "state")


def test_blake3_of_the_script_is_blake3() -> None:
    source: dict[str, object] = {"__name__": "verify_trail"}
    exec(SCRIPT.read_text(encoding="utf-8"), source)
    own = source["blake3_hex"]
    assert callable(own)
    data = bytes(range(251)) * 45
    for size in (0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 3072, 4097, 8193, 11_000):
        assert own(data[:size]) == blake3(data[:size]).hexdigest()


# --- searching -------------------------------------------------------------------------------------------------------


def test_lines_are_found_by_what_they_say(tmp_path: Path) -> None:
    folder = shutil.copytree(GOLDEN, tmp_path / "state")
    everything = list(lines_that_match(folder, Wanted()))
    assert len(everything) > 200
    by: dict[str, Callable[[dict[str, object]], object]] = {
        "kind": lambda fact: fact["kind"],
        "operator": lambda fact: fact["operator"],
    }
    for name, value_of in by.items():
        for value in {value_of(fact) for fact in everything} - {None}:
            found = list(lines_that_match(folder, Wanted(**{name: str(value)})))
            assert [fact["seq"] for fact in found] == [fact["seq"] for fact in everything if value_of(fact) == value]
    times = [str(fact["at"]) for fact in everything]
    since, until = times[50], times[120]
    found = list(lines_that_match(folder, Wanted(since=since, until=until)))
    assert [fact["at"] for fact in found] == [at for at in times if since <= at < until]


def test_lines_about_a_run_and_about_an_equipment_are_theirs_alone(tmp_path: Path) -> None:
    folder = shutil.copytree(GOLDEN, tmp_path / "state")
    everything = list(lines_that_match(folder, Wanted()))
    job_id = next(str(fact["record"]["job_id"]) for fact in everything if isinstance(fact.get("record"), dict))  # type: ignore[index]
    found = list(lines_that_match(folder, Wanted(job_id=job_id)))
    assert found
    for fact in found:
        assert job_id in json.dumps(fact)
    of_equipment = list(lines_that_match(folder, Wanted(equipment_id="SCOPE_01")))
    assert 0 < len(of_equipment) < len(everything)
    assert {"root_bound", "transition"} <= {fact["kind"] for fact in of_equipment}


def test_an_unreadable_slot_says_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(chains, "read_slots", fail)
    assert anchors_in(folder) == []
