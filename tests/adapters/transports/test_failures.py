"""What goes wrong between here and a NAS, on real servers: each situation has its failure kind and a sentence for a person.

Each test is one run of an agent to its rest, so what is looked at is what an operator gets: the run's state, the kind and
the words of its last error, or the reason for which the lane waits.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.adapters.transports.destination import Destination
from exlab_watch_agent.adapters.transports.rclone import pace as rclone
from exlab_watch_agent.adapters.transports.rclone.far_side import RcloneFarSide
from exlab_watch_agent.adapters.transports.rsync import pace as rsync
from exlab_watch_agent.adapters.transports.rsync.way import RsyncWay
from exlab_watch_agent.core.policy import EquipmentPolicy, RcloneTarget, RsyncSshTarget
from exlab_watch_agent.ports import Transport
from tests.lab.disks import folding_disk, full_disk, read_only
from tests.lab.lab import Equipment, Lab, override, read_creation, run_to_rest
from tests.lab.links import Link
from tests.lab.servers import (
    HOST,
    Place,
    RcloneRemote,
    SshServer,
    busybox_only,
    done,
    free_port,
    obscured,
    program,
    running_sshd,
)
from tests.lab.wrapped import Wrapped

UNREACHABLE_ADDRESS = "198.51.100.7"
Factory = Callable[[EquipmentPolicy], Transport]
BOTH = pytest.mark.parametrize("way", ["rsync", "rclone"])


@dataclass(frozen=True)
class Rested:
    """How a run and its lane stand after an agent brought all to rest. `words` is what an operator is told."""

    state: str
    kind: str
    words: str
    is_waiting: bool
    attempts: int
    detail: str


class Situation:
    """One lab whose only equipment goes to the server in a way that a test may spoil."""

    def __init__(self, home: Path, way: str, sshd: SshServer, rclone_sshd: RcloneRemote) -> None:
        self.home = home
        self.way = way
        self.sshd = sshd
        self.remote = rclone_sshd
        self.name = home.name

    def place(
        self, *, host: str = HOST, port: int | None = None, key: Path | None = None, known_hosts: Path | None = None
    ) -> Place:
        """Return the destination, reached in another way than it should be."""
        port = port or self.sshd.port
        known_hosts = known_hosts or self.sshd.known_hosts_for(port)
        if self.way == "rsync":
            return self.sshd.place(
                self.name, ssh_target=f"{self.sshd.user}@{host}", ssh_port=port, known_hosts=str(known_hosts),
                ssh_key_path=str(key or self.sshd.key),
            )  # fmt: skip
        changed = self.remote.changed(
            self.home / "rclone", host=host, port=str(port), known_hosts_file=str(known_hosts),
            key_file=str(key or self.sshd.key),
        )  # fmt: skip
        return changed.place(self.name)

    def lab(self, place: Place, **agent: Any) -> Lab:
        return Lab(self.home / "lab", Equipment(place=place), retry_schedule=["1h"] * 5, **agent)


@pytest.fixture
def at(way: str, tmp_path: Path, sshd: SshServer, rclone_sshd: RcloneRemote) -> Situation:
    return Situation(tmp_path, way, sshd, rclone_sshd)


def rested(lab: Lab, run: Path, transport_factory: Factory | None = None) -> Rested:
    """Bring all to rest and return how the run stands; nothing but a proven run may say `synced`."""
    run_to_rest(lab, transport_factory=transport_factory)
    record, lane = lab.record(run), lab.live()["lanes"]["SCOPE_01"]
    error = record["last_error"] or {"kind": "", "message": "", "detail": ""}
    words = lane["waiting_reason"] if lane["waiting_since"] else error["message"]
    assert (read_creation(run)["sync_status"] == "synced") == (record["state"] == "verified")
    assert "Traceback" not in lab.log()
    assert "internal error" not in lab.log()
    assert "\n" not in words, "one sentence"
    return Rested(
        record["state"], error["kind"], words, bool(lane["waiting_since"]), record["attempts"], error.get("detail", "")
    )


def assert_waits(found: Rested, *words: str) -> None:
    """Fail unless the lane waits for the NAS, says why, and no attempt was consumed."""
    assert (found.state, found.is_waiting, found.attempts) == ("queued", True, 0), found
    assert any(word in found.words for word in words), found.words


def assert_refused(found: Rested, kind: str, *words: str) -> None:
    """Fail unless an operator is told: found at the probe the lane waits, found later the run has failed."""
    assert found.is_waiting or (found.state, found.kind) == ("failed", kind), found
    assert any(word in found.words for word in words), found


def assert_failed(found: Rested, kind: str, *words: str) -> None:
    assert (found.state, found.kind) == ("failed", kind), found
    assert any(word in found.words for word in words), found


# --- the way there ---------------------------------------------------------------------------------------------------


@BOTH
def test_a_refused_connection_is_a_nas_that_is_away(at: Situation) -> None:
    lab = at.lab(at.place(port=free_port()))
    assert_waits(rested(lab, lab.new_run()), "refused", "nothing answers")


@BOTH
def test_a_host_that_cannot_be_reached_is_a_nas_that_is_away(at: Situation) -> None:
    done(program("ip"), "route", "add", "unreachable", f"{UNREACHABLE_ADDRESS}/32")
    try:
        lab = at.lab(at.place(host=UNREACHABLE_ADDRESS))
        assert_waits(rested(lab, lab.new_run()), "cannot be reached", "no route to host", "unreachable")
    finally:
        done(program("ip"), "route", "del", "unreachable", f"{UNREACHABLE_ADDRESS}/32")


@BOTH
def test_a_name_that_nobody_knows_is_a_nas_that_is_away(at: Situation) -> None:
    lab = at.lab(at.place(host="nas.invalid"))
    assert_waits(rested(lab, lab.new_run()), "nas.invalid")


def assert_ends_whole_after(
    at: Situation, spoil: Callable[[Link], None], *words: str, meanwhile: Factory | None = None
) -> None:
    """Fail unless a link that breaks in the middle of a push costs no attempt, and the run ends whole once it is mended."""
    with Link(at.sshd.port) as link:
        lab = at.lab(at.place(port=link.port))
        assert rested(lab, lab.new_run()).state == "verified"
        run = lab.new_run(files={f"{number}.bin": os.urandom(1 << 20) for number in range(6)})
        spoil(link)
        assert_waits(rested(lab, run, meanwhile), *words)
        assert link.is_refusing or link.is_silent
        link.mend()
        assert rested(lab, run).state == "verified"
        lab.assert_whole(run)
        assert lab.debris() == []


@BOTH
def test_a_link_that_is_cut_in_the_middle_costs_no_attempt_and_the_run_ends_whole_once_it_is_mended(
    at: Situation,
) -> None:
    def cut(link: Link) -> None:
        link.cut_after_bytes = link.bytes_up + (3 << 20)

    assert_ends_whole_after(at, cut, "cut", "lost", "refused", "reset", "closed", meanwhile=impatient)


def impatient(equipment: EquipmentPolicy) -> Transport:
    """Return a transport that waits a second or two for a byte from the server, instead of a minute or two, and tries once."""
    target, owner = equipment.target, equipment.equipment_id
    if isinstance(target, RcloneTarget):
        brisk = rclone.Pace(connect_s=1.0, silence_s=1.5, tries_max=1, call_s=3.0, stop_wait_s=0.5)
        return Destination(RcloneFarSide(target, pace=brisk), owner=owner)
    assert isinstance(target, RsyncSshTarget)
    pace = rsync.Pace(connect_s=1, alive_every_s=1, alive_count_max=1)
    return Destination(RsyncWay(target, pace=pace), owner=owner)


@BOTH
def test_a_host_that_says_nothing_is_a_nas_that_is_away(at: Situation) -> None:
    with Link(at.sshd.port) as link:
        link.is_silent = True
        lab = at.lab(at.place(port=link.port))
        run = lab.new_run()
        assert_waits(rested(lab, run, impatient), "did not answer in time", "timeout", "no answer")
        link.mend()
        assert rested(lab, run).state == "verified"


@BOTH
def test_a_host_that_falls_silent_in_the_middle_costs_no_attempt_and_the_run_ends_whole_once_it_is_back(
    at: Situation,
) -> None:
    def fall_silent(link: Link) -> None:
        link.silent_after_bytes = link.bytes_up + (3 << 20)

    words = ("did not answer in time", "timeout", "lost", "cut", "no answer")
    assert_ends_whole_after(at, fall_silent, *words, meanwhile=impatient)


# --- who we are, and who the other is --------------------------------------------------------------------------------


@BOTH
def test_a_key_that_the_server_does_not_know_is_auth(at: Situation) -> None:
    lab = at.lab(at.place(key=at.sshd.stranger_key))
    assert_refused(rested(lab, lab.new_run()), "auth", "does not accept the key", "unable to authenticate")


@BOTH
def test_a_host_key_that_is_another_one_is_auth_and_nothing_is_sent(at: Situation) -> None:
    place = at.place(known_hosts=at.sshd.known_hosts_for(at.sshd.port, key=at.sshd.stranger_key))
    lab = at.lab(place)
    assert_refused(rested(lab, lab.new_run()), "auth", "host key", "knownhosts: key mismatch")
    assert list(place.root.iterdir()) == []


@pytest.mark.parametrize("fixture", ["rclone_sftp", "rclone_webdav", "rclone_ftp", "rclone_smb", "rclone_s3"])
def test_a_wrong_password_is_auth_and_is_never_shown(
    fixture: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    remote: RcloneRemote = request.getfixturevalue(fixture)
    wrong = "wr0ng-pa55word-canary"
    member = {"secret_access_key": wrong} if fixture == "rclone_s3" else {"pass": obscured(wrong)}
    lab = Lab(tmp_path / "lab", Equipment(place=remote.changed(tmp_path / "rclone", **member).place(tmp_path.name)))
    found = rested(lab, lab.new_run())
    words = {
        "rclone_sftp": "unable to authenticate", "rclone_webdav": "401", "rclone_ftp": "Incorrect password",
        "rclone_smb": "logon is invalid", "rclone_s3": "cannot be used",
    }  # fmt: skip
    assert_refused(found, "auth", words[fixture], "does not let us in")
    said = [lab.log(), found.words, found.detail, *(path.read_text() for path in lab.state.glob("*.json*"))]
    for secret in (wrong, *member.values(), *remote.secrets):
        assert not [text for text in said if secret in text]


# --- what the server's disk does not take ----------------------------------------------------------------------------


@BOTH
def test_no_permission_on_the_target_is_said_and_is_no_success(
    way: str, tmp_path: Path, sshd_ordinary_user: SshServer, rclone_sshd: RcloneRemote
) -> None:
    remote = rclone_sshd.changed(
        tmp_path / "rclone", port=str(sshd_ordinary_user.port), user=sshd_ordinary_user.user,
        key_file=str(sshd_ordinary_user.key), known_hosts_file=str(sshd_ordinary_user.known_hosts),
    )  # fmt: skip
    place = sshd_ordinary_user.place(tmp_path.name)
    if way == "rclone":
        place = Place({**remote.place("unused").transport, "rclone_remote_path": str(place.root)}, place.root)
    lab = Lab(tmp_path / "lab", Equipment(place=place), retry_schedule=["1h"] * 5)
    assert rested(lab, lab.new_run()).state == "verified"
    os.chown(place.root, 0, 0)  # it may still be read, so the marker is seen
    found = rested(lab, lab.new_run(project="a project without a folder there"))
    assert found.state in ("queued", "failed")
    assert "ermission" in found.words + found.detail
    assert found.kind == "auth" or found.is_waiting, found


@BOTH
def test_a_full_target_is_destination_full(at: Situation) -> None:
    place = at.place()
    with full_disk(place.root, size="2m"):
        lab = at.lab(place)
        assert rested(lab, lab.new_run(files={"a.bin": os.urandom(100_000)})).state == "verified"
        found = rested(
            lab, run := lab.new_run(files={"a.bin": os.urandom(100_000), "large.bin": os.urandom(3_000_000)})
        )
        assert (found.state, found.kind, found.attempts, found.is_waiting) == ("queued", "destination_full", 0, True), (
            found
        )
        assert "room" in found.words or "space" in found.words
        (run / "large.bin").write_bytes(b"small now")


@BOTH
def test_a_target_that_is_read_only_is_said_and_waits(at: Situation) -> None:
    place = at.place()
    lab = at.lab(place)
    assert rested(lab, lab.new_run()).state == "verified"
    with read_only(place.root):
        found = rested(lab, run := lab.new_run(project="another project"))
        assert found.state == "queued"
        # The protocol of sftp has no word for it: there it is a plain failure.
        assert "can only be read" in found.words or (at.way == "rclone" and "cannot be used" in found.words), found
    if not found.is_waiting:
        assert lab.cli("retry", str(run)).code == 0
    assert rested(lab, run).state == "verified"


# --- programs --------------------------------------------------------------------------------------------------------


@BOTH
def test_a_program_that_is_missing_here_is_named_with_the_way_to_get_it(
    at: Situation, way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lab = at.lab(at.place())
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "empty" / "python"))
    program_name = "ssh" if way == "rsync" else "rclone"
    assert_refused(rested(lab, lab.new_run()), "binary_missing", f"The program {program_name} was not found: ")


def test_a_server_without_rsync_is_told_from_one_that_is_away(tmp_path: Path) -> None:
    home = tmp_path / "sshd"
    with running_sshd(home, force=busybox_only(home)) as server:
        lab = Lab(tmp_path / "lab", Equipment(place=server.place("no rsync")), retry_schedule=["1h"] * 5)
        found = rested(lab, lab.new_run())
    assert_failed(found, "binary_missing", "rsync")


@pytest.mark.parametrize("fixture", ["sshd_sftp_only"])
def test_an_account_that_runs_no_command_is_told_from_one_that_is_away_and_another_way_is_named(
    fixture: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place: Place = request.getfixturevalue(fixture).place(tmp_path.name)
    lab = Lab(tmp_path / "lab", Equipment(place=place), retry_schedule=["1h"] * 5)
    found = rested(lab, lab.new_run())
    assert found.state in ("queued", "failed"), found
    assert "rclone" in found.words, "what to use instead"
    assert list(place.root.iterdir()) == []


# --- the local side --------------------------------------------------------------------------------------------------


class Meddles(Wrapped):
    """A transport before whose copying something happens to the run."""

    def __init__(self, inner: Any, meddle: Any) -> None:
        super().__init__(inner)
        self._meddle = meddle

    def copy(self, *arguments: Any, **named: Any) -> None:
        self._meddle()
        self._inner.copy(*arguments, **named)


@BOTH
def test_a_local_file_that_vanished_is_named(at: Situation) -> None:
    lab = at.lab(at.place())
    run = lab.new_run(files={"a.bin": b"a", "gone.bin": b"gone"})
    run_to_rest(lab, wrapped=lambda transport: Meddles(transport, (run / "gone.bin").unlink))
    record = lab.record(run)
    assert (record["state"], record["last_error"]["kind"]) == ("failed", "local_file_vanished")
    assert "gone.bin" in record["last_error"]["message"]
    assert read_creation(run)["sync_status"] == "failed"


@BOTH
def test_a_local_file_that_changed_while_it_was_pushed_is_no_failure_and_its_new_bytes_are_proven(
    at: Situation,
) -> None:
    lab = at.lab(at.place())
    run = lab.new_run(files={"a.bin": b"a" * 1000, "changed.bin": b"before"})
    changes = iter([lambda: (run / "changed.bin").write_bytes(b"after")])
    run_to_rest(lab, wrapped=lambda transport: Meddles(transport, lambda: next(changes, lambda: None)()))
    assert lab.record(run)["state"] in ("acquiring", "verified")
    assert rested(lab, run).state == "verified"
    assert lab.states(run).count("acquiring") == 2
    assert lab.record(run)["attempts"] == 0
    lab.assert_whole(run)


@BOTH
def test_a_local_file_that_cannot_be_read_is_not_the_server_s_refusal(at: Situation) -> None:
    lab = at.lab(at.place())
    run = lab.new_run(files={"a.bin": b"a", "secret.bin": b"secret"})
    (run / "secret.bin").chmod(0)
    assert lab.cli("run", "--once", as_user=True).code in (0, 3)
    record = lab.record(run)
    assert record["state"] != "verified"
    assert not record["last_error"] or record["last_error"]["kind"] != "auth"
    assert "secret.bin" in lab.cli("show", str(run)).out
    (run / "secret.bin").chmod(0o600)
    lab.cli("retry", str(run), as_user=True)
    lab.cli("run", "--once", as_user=True)
    lab.assert_whole(run)


# --- names -----------------------------------------------------------------------------------------------------------

ILLEGAL_NAMES = [
    b"two\nlines",
    b"caf\xe9.tif",
    b"a:b|c?*",
    b"back\\slash",
    b"ends in a dot.",
    b"ends in a blank ",
    b"CON",
]


@pytest.mark.parametrize("fixture", ["sshd", "sshd_busybox", "rclone_sshd", "rclone_local"])
def test_names_that_only_posix_knows_arrive_under_an_override(
    fixture: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place: Place = request.getfixturevalue(fixture).place(tmp_path.name)
    lab = Lab(tmp_path / "lab", Equipment(place=place), retry_schedule=["1h"] * 5)
    allowed = [override("illegal_filesystem_character"), override("reserved_filesystem_name")]
    # rclone would store these two under other names, and the transport refuses that before it copies anything.
    refused = () if fixture.startswith("sshd") else (b"caf\xe9.tif", b"two\nlines")
    names = [name for name in ILLEGAL_NAMES if name not in refused]
    files = {os.fsdecode(name): name for name in names}
    run = lab.new_run(files=files, validation_overrides=allowed)
    found = rested(lab, run)
    assert found.state == "verified", found
    lab.assert_whole(run)


@pytest.mark.parametrize("fixture", ["rclone_smb", "rclone_webdav", "rclone_ftp", "rclone_s3", "rclone_sshd"])
@pytest.mark.parametrize("name", ILLEGAL_NAMES[:3], ids=["newline", "invalid UTF-8", "colon"])
def test_a_name_that_a_server_cannot_carry_is_never_taken_for_proven(
    fixture: str, name: bytes, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """It arrives and verifies, or the operator is told; `rested` has looked that `synced` was not said."""
    remote: RcloneRemote = request.getfixturevalue(fixture)
    place = remote.place(tmp_path.name.replace("]", "").replace("[", ""))
    lab = Lab(tmp_path / "lab", Equipment(place=place), retry_schedule=["1h"] * 5)
    allowed = [override("illegal_filesystem_character"), override("reserved_filesystem_name")]
    run = lab.new_run(
        files={os.fsdecode(name): b"data of " + name, "plain.bin": b"plain"}, validation_overrides=allowed
    )
    found = rested(lab, run)
    if found.state == "verified":
        contents = {path.read_bytes() for path in lab.copy_of(run).rglob("*") if path.is_file()}
        assert {b"data of " + name, b"plain"} <= contents
    else:
        assert found.state in ("failed", "queued", "conflict"), found
        assert found.words


def rested_under_an_override(lab: Lab, files: dict[str, bytes]) -> tuple[Path, Rested]:
    """Return a run of names that collide, let through by an override, and how it rests: never as proven.

    Without the override it must be blocked before anything of it is copied.
    """
    blocked = lab.new_run(files=files)
    assert rested(lab, blocked).state == "blocked"
    assert not lab.copy_of(blocked).exists()
    run = lab.new_run(files=files, validation_overrides=[override("case_collision")])
    found = rested(lab, run)
    assert found.state in ("failed", "queued"), found
    return run, found


def test_two_names_that_are_one_to_the_server_are_never_both_proven(rclone_smb: RcloneRemote, tmp_path: Path) -> None:
    place = rclone_smb.place(tmp_path.name)
    lab = Lab(tmp_path / "lab", Equipment(place=place), retry_schedule=["1h"] * 5)
    files = {"case.txt": b"one", "Case.txt": b"another"}
    run, found = rested_under_an_override(lab, files)
    assert "ase.txt" in found.words
    there = {path.name: path.read_bytes() for path in lab.copy_of(run).glob("*.txt")}
    assert len(there) <= 1, "the server's disk knows both names: this shows nothing"


@BOTH
def test_names_that_are_one_to_the_disk_behind_the_server_are_never_both_proven(at: Situation) -> None:
    place = at.place()
    with folding_disk(place.root, image=at.home / "ntfs"):
        lab = at.lab(place)
        files = {"case.txt": b"one", "Case.txt": b"another", "plain.txt": b"plain"}
        _, found = rested_under_an_override(lab, files)
        assert "is not there under its name" in found.words
        ordinary = lab.new_run(
            files={"case.txt": b"one", "deep/case.txt": b"another", "large.bin": os.urandom(3_000_000)}
        )
        found = rested(lab, ordinary)
        assert found.state == "verified", found
        lab.assert_whole(ordinary)
