"""Who the destination is: never the instrument's own folder, never a cache of this PC, and bound by a person where nothing shows
that it is another place."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.adapters.clock import pause
from exlab_watch_agent.adapters.state.store import RunStore
from exlab_watch_agent.ports import Entry
from tests.lab.lab import CACHE, SENTINEL_SIGNAL, Equipment, Lab, read_creation, run_to_rest, until
from tests.lab.servers import RCLONE, Place, SshServer, local_remote, obscured, sftp_remote
from tests.lab.wrapped import Wrapped

MARKER = ".exlab-watch-agent.json"
WAYS = ("rsync over ssh", "rclone sftp", "rclone local", "rsync alone")


@contextmanager
def bind_mount(source: Path, target: Path) -> Iterator[None]:
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", str(source), str(target)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(target)], check=True)


def data_below(root: Path) -> dict[str, bytes]:
    """Return every file but those that an agent keeps for itself in cache folders: path below the root → bytes.

    Where nothing can be removed, over rsync alone, the probe files of a destination root stay in a folder of their own.
    """
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not {CACHE, ".exlab-watch-agent"} & set(path.relative_to(root).parts)
    }


def assert_untouched(lab: Lab, run: Path, before: dict[str, bytes]) -> None:
    """Nothing was moved, nothing was added, and nothing is called synced."""
    assert data_below(lab.local) == before
    assert read_creation(run)["sync_status"] == "pending"
    assert not list(lab.local.rglob(".exlab-superseded"))
    assert not list(lab.local.rglob(".exlab-probe-*"))
    assert not [path for path in lab.local.rglob("*.tmp") if path.is_file()]


def lane(lab: Lab) -> dict[str, Any]:
    return dict(lab.live()["lanes"]["SCOPE_01"])


# --- the destination is the source --------------------------------------------------------------------------------------


def destination_at(way: str, root: Path, home: Path, sshd: SshServer, sshd_rrsync: SshServer) -> Place:
    match way:
        case "rsync over ssh":
            return sshd.place("", root=root)
        case "rsync alone":
            return sshd_rrsync.place("", root=root)
        case "rclone sftp":
            return Place({**sftp_remote(home, sshd).place("unused").transport, "rclone_remote_path": str(root)}, root)
        case _:
            return Place({**local_remote(home).place("unused").transport, "rclone_remote_path": str(root)}, root)


@pytest.mark.parametrize("place", ["the equipment's folder", "a folder above it", "the folder of the runs, flat"])
@pytest.mark.parametrize("way", WAYS)
def test_a_destination_that_is_the_instruments_own_folder_gets_nothing_and_proves_nothing(
    way: str, place: str, tmp_path: Path, sshd: SshServer, sshd_rrsync: SshServer
) -> None:
    # An account for rsync alone sees one folder only, so there the instrument's folder lies in it.
    home = (sshd_rrsync.root / tmp_path.name if way == "rsync alone" else tmp_path) / "lab"
    local = home / "instrument pc"
    root, layout = {
        "the equipment's folder": (local / "SCOPE_01", "mirror"),
        "a folder above it": (home, "mirror"),
        "the folder of the runs, flat": (local / "SCOPE_01" / "PROJ-0042" / "Runs", "flat"),
    }[place]
    home.mkdir(parents=True)
    root.mkdir(parents=True, exist_ok=True)
    (tmp_path / "remote").mkdir()
    destination = destination_at(way, root, tmp_path / "remote", sshd, sshd_rrsync)
    (local / "SCOPE_01").mkdir(parents=True, exist_ok=True)
    lab = Lab(home, Equipment(place=destination), is_bound=False, layout=layout)
    (local / "SCOPE_01" / CACHE).mkdir()  # as after any earlier life
    run = lab.new_run(project="PROJ-0042")
    before = data_below(local)
    assert lab.cli("check").code == 3
    assert "the instrument's own folder" in lab.cli("bind", "SCOPE_01", "--yes").err
    assert_untouched(lab, run, before)
    lab.cli("run", "--once", "--quiet")
    assert_untouched(lab, run, before)
    assert lab.record(run)["state"] == "queued"
    assert lab.record(run)["attempts"] == 0
    if way != "rclone local":  # that one waits to be bound
        assert lane(lab)["waiting_kind"] == "destination_is_source"
        assert "the instrument's own folder" in lane(lab)["waiting_reason"]


def test_a_run_that_stands_at_its_own_destination_is_neither_moved_nor_called_synced(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run = lab.new_run()
    before = data_below(lab.local)
    with bind_mount(run, lab.copy_of(run)):
        with lab.running():
            record = lab.until_state(run, "queued")
            lab.until_lane_waits("SCOPE_01")
            (run / "image.tif").write_bytes(b"the instrument goes on writing")
            record = lab.until_state(run, "queued")
        assert record["attempts"] == 0
        assert lane(lab)["waiting_kind"] == "destination_is_source"
        assert_untouched(
            lab, run, before | {run.relative_to(lab.local).as_posix() + "/image.tif": b"the instrument goes on writing"}
        )
    lab.cli("run", "--once", "--quiet")
    lab.assert_whole(run)


def test_a_destination_that_becomes_the_instruments_own_folder_proves_nothing_more(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run = lab.new_run()
    lab.cli("run", "--once", "--quiet")
    with bind_mount(run, lab.copy_of(run)):
        lab.cli("verify", run.name)
        assert lab.record(run)["verify_passes"] == 1
        assert lane(lab)["waiting_kind"] == "destination_is_source"
    assert lab.record(run)["state"] in ("verified", "auditing")


@pytest.mark.parametrize("below", ["PROJ-0042/backup", f"{CACHE}/copies", "PROJ-0042/Runs/Run_old/raw/nas"])
def test_a_destination_deep_in_an_instruments_folder_is_found_before_it_is_bound(
    below: str, tmp_path: Path, sshd: SshServer
) -> None:
    root = tmp_path / "instrument pc" / "SCOPE_01" / below
    root.mkdir(parents=True)
    (tmp_path / "instrument pc" / "SCOPE_01" / CACHE).mkdir(exist_ok=True)
    lab = Lab(tmp_path, Equipment(place=sshd.place("", root=root)), is_bound=False)
    run = lab.new_run(project="PROJ-0042")
    assert lab.cli("run", "--once", "--quiet").code == 3
    assert lane(lab)["waiting_kind"] == "destination_is_source"
    assert read_creation(run)["sync_status"] == "pending"
    assert list(root.iterdir()) == []


def test_another_instruments_folder_is_no_destination_and_its_files_stay_where_they_are(
    tmp_path: Path, sshd: SshServer
) -> None:
    other = Equipment("FLOW_01", SENTINEL_SIGNAL)
    root = tmp_path / "instrument pc" / "FLOW_01"
    root.mkdir(parents=True)
    lab = Lab(tmp_path, Equipment(place=sshd.place("", root=root)), other, is_bound=False)
    run = lab.new_run("Run_2026-04-17T14-32")
    live = root / run.relative_to(lab.local / "SCOPE_01")
    shutil.copytree(run, live)  # a run folder that was copied: the same identity
    (live / "image.tif").write_bytes(b"still being acquired")
    assert lab.cli("run", "--once", "--quiet").code == 3
    assert lane(lab)["waiting_kind"] == "destination_is_source"
    assert (live / "image.tif").read_bytes() == b"still being acquired"
    assert not (root / ".exlab-superseded").exists()


def test_a_remote_that_lengthens_names_is_recognised_by_their_beginning(tmp_path: Path) -> None:
    root = tmp_path / "instrument pc" / "SCOPE_01"
    (root / CACHE).mkdir(parents=True)
    config = tmp_path / "rclone.conf"
    config.write_text(
        f"[lab]\ntype = crypt\nremote = {root.parent}\nfilename_encryption = off\n"
        f"directory_name_encryption = false\npassword = {obscured('x')}\n"
    )
    transport = {
        "type": "rclone",
        "rclone_remote": "lab",
        "rclone_remote_path": "SCOPE_01",
        "rclone_config": str(config),
    }
    lab = Lab(tmp_path, Equipment(place=Place(transport, root)), is_bound=False)
    run = lab.new_run()
    before = data_below(lab.local)
    assert "the instrument's own folder" in lab.cli("bind", "SCOPE_01", "--yes").err
    assert_untouched(lab, run, before)


def test_a_run_folder_that_cannot_be_entered_stops_no_other_run(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    locked, run = lab.new_run(), lab.new_run()
    locked.chmod(0)
    try:
        assert lab.cli("run", "--once", "--quiet", as_user=True).code == 3
        assert read_creation(run)["sync_status"] == "synced"
    finally:
        locked.chmod(0o755)
    lab.assert_whole(run)


def test_a_private_folder_on_the_nas_of_the_name_of_one_of_ours_stops_nothing(
    tmp_path: Path, sshd_ordinary_user: SshServer
) -> None:
    place = sshd_ordinary_user.place(f"private {tmp_path.name}")
    (place.root / "instrument pc").mkdir(mode=0o700)
    lab = Lab(tmp_path, Equipment(place=place), is_bound=False)
    run = lab.new_run()
    assert lab.cli("run", "--once", "--quiet").code == 0
    lab.assert_whole(run)


def test_a_nas_that_is_gone_is_told_also_when_there_is_nothing_to_do(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run = lab.new_run()
    assert lab.cli("run", "--once", "--quiet").code == 0
    (lab.nas / "SCOPE_01").rename(tmp_path / "away")
    said = lab.cli("run", "--once", "--quiet")
    assert said.code == 3
    assert "NAS unreachable" in said.err
    (tmp_path / "away").rename(lab.nas / "SCOPE_01")
    assert lab.cli("run", "--once", "--quiet").code == 0
    lab.assert_whole(run)


def set_destination(lab: Lab, **transport: Any) -> None:
    lab.settings["equipment"][0]["transport"] = transport
    lab.save_config()


@pytest.mark.parametrize("spelled", ["by another path", "by another way"])
def test_the_known_marker_under_another_spelling_is_the_same_destination_and_all_is_proven_anew(
    tmp_path: Path, spelled: str, sshd: SshServer
) -> None:
    lab = Lab(tmp_path)
    run = lab.new_run()
    assert lab.cli("run", "--once", "--quiet").code == 0
    root = lab.nas / "SCOPE_01"
    if spelled == "by another path":
        (tmp_path / "name").symlink_to(root)
        set_destination(lab, type="mounted_path", path=str(tmp_path / "name"))
    else:
        set_destination(lab, **sshd.place("", root=root).transport)
    assert "will bind by itself, because it has the marker of" in lab.cli("check").out
    assert lab.cli("run", "--once", "--quiet").code == 0
    (voided,) = [fact for fact in lab.facts(run) if fact["kind"] == "passes_voided"]
    assert voided["record"]["verify_passes"] == 0
    assert (lab.record(run)["state"], lab.record(run)["verify_passes"]) == ("verified", 1)
    (proof,) = lab.record(run)["passes"]
    assert proof["spelling"] != str(root)
    first, second = [fact["data"] for fact in lab.trail() if fact["kind"] == "destination_bound"]
    assert first["root"] != second["root"]
    assert (first["marker_id"], first["accepted_by"]) == (second["marker_id"], second["accepted_by"])
    pushes = [fact for fact in lab.facts(run) if fact.get("move", {}).get("trigger") == "push_started"]
    assert len(pushes) == 1, "nothing is pushed a second time"


@pytest.mark.parametrize("there", ["nothing", "another marker"])
def test_another_root_in_the_config_waits_to_be_accepted_by_name(tmp_path: Path, there: str) -> None:
    lab = Lab(tmp_path)
    run = lab.new_run()
    assert lab.cli("run", "--once", "--quiet").code == 0
    new = tmp_path / "new nas"
    new.mkdir()
    if there == "another marker":
        (new / MARKER).write_text(json.dumps({"schema": 1, "id": "e" * 32}))
    before = list(new.iterdir())
    set_destination(lab, type="mounted_path", path=str(new))
    later = lab.new_run()
    assert lab.cli("run", "--once", "--quiet").code == 3
    (problem,) = lab.cli("problems", "--json").problems
    command = 'exlab-watch-agent bind SCOPE_01 --replace --reason "..."'
    assert problem["code"] == "destination_unbound"
    assert problem["command"].startswith(command)
    assert str(lab.nas / "SCOPE_01") in problem["sentence"]
    said = lab.cli("bind", "SCOPE_01", "--yes")
    assert (said.code, command in said.err) == (1, True)
    assert lab.cli("check").code == 3
    assert list(new.iterdir()) == before
    assert (lab.record(run)["state"], lab.record(later)["state"]) == ("verified", "queued")
    set_destination(lab, type="mounted_path", path=str(lab.nas / "SCOPE_01"))
    assert lab.cli("run", "--once", "--quiet").code == 0
    lab.assert_whole(later)


def test_a_marker_that_is_gone_is_said_by_bind(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    (lab.nas / "SCOPE_01" / MARKER).unlink()
    said = lab.cli("bind", "SCOPE_01", "--yes")
    assert said.code == 1
    assert "marker   gone" in said.out
    assert "is missing" in said.err
    assert not (lab.nas / "SCOPE_01" / MARKER).exists(), "nothing there shows that it is the destination"


def test_a_marker_that_is_gone_beside_sealed_copies_is_said_and_bind_puts_it_back_and_all_is_proven_anew(
    tmp_path: Path,
) -> None:
    lab = Lab(tmp_path)
    runs = [lab.new_run() for _ in range(2)]
    assert lab.cli("run", "--once", "--quiet").code == 0
    marker = lab.nas / "SCOPE_01" / MARKER
    before = marker.read_bytes()
    marker.unlink()
    later = lab.new_run()
    assert lab.cli("run", "--once", "--quiet").code == 3
    problems = lab.cli("problems", "--json")
    assert [(one["code"], one["command"]) for one in problems.problems] == [
        ("marker_gone", "exlab-watch-agent bind SCOPE_01")
    ]
    assert not marker.exists()
    assert not lab.copy_of(later).exists()
    refused = lab.cli("bind", "SCOPE_01", feed="n\n")
    assert (refused.code, marker.exists()) == (1, False)
    assert lab.cli("bind", "SCOPE_01", "--yes").code == 0
    assert marker.read_bytes() == before
    assert [lab.record(run)["verify_passes"] for run in runs] == [0, 0]
    assert lab.cli("run", "--once", "--quiet").code == 0
    assert [lab.record(run)["verify_passes"] for run in (*runs, later)] == [1, 1, 1]
    pushes = [fact for run in runs for fact in lab.facts(run) if fact.get("move", {}).get("trigger") == "push_started"]
    assert len(pushes) == 2, "nothing is pushed a second time"
    for run in (*runs, later):
        lab.assert_whole(run)


class AnswersLate(Wrapped):
    """A NAS that takes a moment for some of its answers: those to looks at folders, or to questions for the marker."""

    def __init__(self, inner: Any, late: str) -> None:
        super().__init__(inner)
        self._late = late

    def look(self, destination: str) -> Any:
        pause(0.8 if self._late == "looks" else 0.0)
        return self._inner.look(destination)

    def require_marker(self, *, expected_marker_id: str | None) -> None:
        pause(0.8 if self._late == "markers" else 0.0)
        self._inner.require_marker(expected_marker_id=expected_marker_id)

    def probe(self, *, expected_marker_id: str | None) -> None:
        pause(0.8 if self._late == "full probes" else 0.0)
        self._inner.probe(expected_marker_id=expected_marker_id)


@pytest.mark.parametrize("late", ["looks", "markers", "full probes", ""])
def test_a_marker_that_is_gone_is_said_to_be_whichever_question_is_answered_first(tmp_path: Path, late: str) -> None:
    lab = Lab(tmp_path)
    lab.new_run()
    assert lab.cli("run", "--once", "--quiet").code == 0
    (lab.nas / "SCOPE_01" / MARKER).unlink()
    for _ in range(3):
        lab.new_run()
    run_to_rest(lab, wrapped=lambda transport: AnswersLate(transport, late))
    (problem,) = lab.cli("problems", "--json").problems
    assert problem["code"] == "marker_gone"


def test_an_agent_puts_a_marker_back_by_command_and_goes_on(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run = lab.new_run()
    assert lab.cli("run", "--once", "--quiet").code == 0
    with lab.running():
        (lab.nas / "SCOPE_01" / MARKER).unlink()
        later = lab.new_run()
        until(
            lambda: "marker_gone" in lab.cli("problems").out or "marker of the destination" in lab.cli("problems").out,
            "said",
        )
        assert lab.cli("bind", "SCOPE_01", "--yes").code == 0
        lab.until_state(later, "verified")
        until(lambda: lab.record(run)["verify_passes"] == 1 and lab.record(run)["state"] == "verified", "proven anew")
    lab.assert_whole(run)
    lab.assert_whole(later)


# --- who must be asked ------------------------------------------------------------------------------------------------


def test_a_folder_that_nothing_shows_to_be_elsewhere_gets_nothing_until_it_is_bound(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_bound=False)
    root = lab.nas / "SCOPE_01"
    run = lab.new_run()
    said = lab.cli("check")
    assert said.code == 3
    assert "exlab-watch-agent bind SCOPE_01" in said.out
    lab.cli("run", "--once", "--quiet")
    assert list(root.rglob("*")) == []
    assert lab.record(run)["state"] == "queued"
    assert lane(lab)["waiting_kind"] == "destination_unbound"
    assert lane(lab)["waiting_command"] == "exlab-watch-agent bind SCOPE_01"
    assert lab.cli("bind", "SCOPE_01", feed="n\n").code == 1
    assert list(root.rglob("*")) == []
    said = lab.cli("bind", "SCOPE_01", feed="y\n")
    assert (said.code, said.err) == (0, "")
    assert "Is that the right place" in said.out
    assert [path.name for path in root.iterdir()] == [MARKER]
    assert lab.cli("bind", "--all").out == f"SCOPE_01: {root} is bound already\n"
    assert lab.cli("check").code == 0
    lab.cli("run", "--once", "--quiet")
    lab.assert_whole(run)
    (bound,) = [fact for fact in lab.trail() if fact["kind"] == "destination_bound"]
    assert bound["data"]["accepted_by"] == bound["operator"]


def test_a_running_agent_goes_on_once_its_destination_is_bound(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_bound=False)
    run = lab.new_run()
    with lab.running():
        lab.until_lane_waits("SCOPE_01")
        assert lab.cli("bind", "SCOPE_01", "--yes").code == 0
        lab.until_state(run, "verified")
    lab.assert_whole(run)


def test_what_cannot_be_bound_is_said_in_one_sentence(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_bound=False)
    (lab.nas / "SCOPE_01").rmdir()
    said = lab.cli("bind", "SCOPE_01", "--yes")
    assert said.code == 1
    assert said.err.count("\n") == 1
    assert "cannot be used" in said.err
    assert lab.cli("bind").code == 2
    assert "has SCOPE_01" in lab.cli("bind", "SCOPE_1", "--yes").err


def test_a_server_binds_by_itself(tmp_path: Path, sshd: SshServer) -> None:
    lab = Lab(tmp_path, Equipment(place=sshd.place(f"own {tmp_path.name}")), is_bound=False)
    run = lab.new_run()
    said = lab.cli("check")
    assert said.code == 0, said.out
    assert "will bind by itself, because it is reached by ssh" in said.out
    lab.cli("run", "--once", "--quiet")
    lab.assert_whole(run)
    (bound,) = [fact for fact in lab.trail() if fact["kind"] == "destination_bound"]
    assert bound["data"]["accepted_by"] == "itself"


def test_a_destination_that_the_first_version_bound_without_a_question_is_asked_for_once(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run = lab.new_run()
    lab.cli("run", "--once", "--quiet")
    store = RunStore(lab.state)
    store.open()
    try:  # as the first version left it
        root = f"SCOPE_01 {lab.nas / 'SCOPE_01'}"
        marker_id = json.loads((lab.nas / "SCOPE_01" / MARKER).read_text())["id"]
        store.commit([Entry("destination_bound", data={"root": root, "marker_id": marker_id})], at=store._now())
    finally:
        store.close()
    another = lab.new_run()
    lab.cli("run", "--once", "--quiet")
    assert lab.record(run)["state"] == "verified"
    assert lab.record(another)["state"] == "queued"
    assert lane(lab)["waiting_kind"] == "destination_unbound"
    assert lab.cli("bind", "--all", "--yes").code == 0
    lab.cli("run", "--once", "--quiet")
    lab.assert_whole(another)
    assert json.loads((lab.nas / "SCOPE_01" / MARKER).read_text())["id"] == marker_id


def test_an_unmounted_share_is_not_bound_in_place_of_the_nas(tmp_path: Path) -> None:
    """The marker that is known is not there: an operator's yes is no reason to place another one."""
    lab = Lab(tmp_path)
    (lab.nas / "SCOPE_01" / MARKER).unlink()
    store = RunStore(lab.state)
    store.open()
    try:
        data = {"root": f"SCOPE_01 {lab.nas / 'SCOPE_01'}", "marker_id": "0" * 32}
        store.commit([Entry("destination_bound", data=data)], at=store._now())
    finally:
        store.close()
    said = lab.cli("bind", "SCOPE_01", "--yes")
    assert said.code == 1
    assert "is missing" in said.err
    assert list((lab.nas / "SCOPE_01").iterdir()) == []


# --- a cache on this PC -----------------------------------------------------------------------------------------------


@contextmanager
def rclone_mount(source: Path, target: Path) -> Iterator[None]:
    target.mkdir()
    config = target.with_name("mount.conf")
    config.write_text(f"[far]\ntype = alias\nremote = {source}\n")
    words = ["mount", "far:", str(target), "--vfs-cache-mode", "writes", "--daemon", "--config", str(config)]
    subprocess.run([str(RCLONE), *words, "--cache-dir", str(target.with_name("vfs"))], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(target)], check=True)


def test_a_mount_on_which_this_pc_answers_for_the_server_is_refused_with_the_way_out(tmp_path: Path) -> None:
    lab = Lab(tmp_path, is_bound=False)
    root = lab.nas / "SCOPE_01"
    root.rmdir()
    (tmp_path / "server").mkdir()
    run = lab.new_run()
    with rclone_mount(tmp_path / "server", root):
        for said in (lab.cli("check").out, lab.cli("bind", "SCOPE_01", "--yes").err):
            assert "is a fuse.rclone mount" in said
            assert "a transport of type rclone" in said
        lab.cli("run", "--once", "--quiet")
        assert lab.record(run)["state"] == "queued"
        assert "is a fuse.rclone mount" in lane(lab)["waiting_reason"]
        assert list(root.iterdir()) == []


def test_such_a_mount_below_the_root_is_refused_too(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run = lab.new_run()
    there = lab.nas / "SCOPE_01" / run.relative_to(lab.local / "SCOPE_01").parts[0]
    (tmp_path / "server").mkdir()
    with rclone_mount(tmp_path / "server", there):
        assert lab.cli("run", "--once", "--quiet").code == 3
        assert "is a fuse.rclone mount" in lane(lab)["waiting_reason"]
        assert read_creation(run)["sync_status"] == "pending"
    assert [path for path in (tmp_path / "server").rglob("*") if path.is_file()] == []


def test_a_destination_that_becomes_such_a_mount_is_used_no_more(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    root = lab.nas / "SCOPE_01"
    lab.cli("run", "--once", "--quiet")
    root.rename(tmp_path / "server")
    run = lab.new_run()
    with rclone_mount(tmp_path / "server", root):
        assert (root / MARKER).exists()
        lab.cli("run", "--once", "--quiet")
        assert lab.record(run)["state"] == "queued"
        assert "is a fuse.rclone mount" in lane(lab)["waiting_reason"]
