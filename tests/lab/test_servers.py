"""The servers of the tests are what they say: each takes, lists and gives back bytes, and shows changes behind its back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.lab.disks import full_disk, read_only
from tests.lab.links import Link
from tests.lab.servers import RcloneRemote, SshServer

REMOTES = [
    "rclone_local", "rclone_alias", "rclone_crypt", "rclone_sftp", "rclone_webdav", "rclone_ftp", "rclone_s3",
    "rclone_smb", "rclone_sshd", "rclone_sshd_without_commands",
]  # fmt: skip


def ssh(server: SshServer, *words: str, port: int | None = None, known_hosts: Path | None = None) -> list[str]:
    return [
        "ssh", "-F", "none", "-T", "-p", str(port or server.port), "-i", str(server.key), "-o", "BatchMode=yes", "-o",
        f'UserKnownHostsFile="{known_hosts or server.known_hosts}"', "-o", "StrictHostKeyChecking=yes",
        "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR", server.target, *words,
    ]  # fmt: skip


def said(server: SshServer, *words: str) -> tuple[int, str]:
    ended = subprocess.run(ssh(server, *words), capture_output=True, text=True, check=False, timeout=30)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("name", REMOTES)
def test_a_remote_takes_and_gives_and_shows_what_changed_behind_its_back(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    remote: RcloneRemote = request.getfixturevalue(name)
    (tmp_path / "a.bin").write_bytes(b"first")
    place = remote.place("takes and gives")
    there = f"{remote.name}:{place.transport['rclone_remote_path']}"
    remote.rclone("copy", str(tmp_path), there)
    assert remote.rclone("cat", f"{there}/a.bin") == "first"
    if name != "rclone_crypt":
        (place.root / "a.bin").write_bytes(b"second")
        (place.root / "b.bin").write_bytes(b"third")
        assert remote.rclone("lsf", there).split() == ["a.bin", "b.bin"]
        assert remote.rclone("cat", f"{there}/a.bin") == "second"
    for secret in remote.secrets:
        assert len(secret) > 10


def test_an_ordinary_server_runs_commands_and_a_strangers_key_and_another_host_key_are_refused(sshd: SshServer) -> None:
    assert said(sshd, "echo it works; sha256sum --version | head -1")[1].startswith("it works\nsha256sum (GNU")
    stranger = [word if word != str(sshd.key) else str(sshd.stranger_key) for word in ssh(sshd, "true")]
    ended = subprocess.run(stranger, capture_output=True, text=True, check=False, timeout=30)
    assert (ended.returncode, "Permission denied (publickey)" in ended.stderr) == (255, True)
    changed = ssh(sshd, "true", known_hosts=sshd.known_hosts_for(sshd.port, key=sshd.stranger_key))
    ended = subprocess.run(changed, capture_output=True, text=True, check=False, timeout=30)
    assert (ended.returncode, "Host key verification failed" in ended.stderr) == (255, True)


def test_an_ordinary_user_has_no_rights(sshd_ordinary_user: SshServer) -> None:
    place = sshd_ordinary_user.place("mine")
    place.root.with_name("not mine").mkdir()
    assert said(sshd_ordinary_user, f"id -un; touch '{place.root}/a'") == (0, "labuser\n")
    code, words = said(sshd_ordinary_user, f"touch '{place.root.with_name('not mine')}/a'")
    assert (code, "Permission denied" in words) == (1, True)
    assert "labuser" not in Path("/etc/passwd").read_text(encoding="utf-8")


def test_a_server_goes_on_when_another_run_of_pytest_makes_the_folders_they_share_private_again(
    sshd_ordinary_user: SshServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.getbasetemp()
    for folder in (base, *base.parents):
        if folder.name.startswith("pytest-"):
            folder.chmod(0o700)  # as every run does with `pytest-of-USER` when it starts
    assert said(sshd_ordinary_user, "true") == (0, "")


def test_a_nas_box_has_busybox_s_tools_only(sshd_busybox: SshServer) -> None:
    code, words = said(sshd_busybox, "sha256sum -z /dev/null")
    assert (code, "BusyBox" in words) == (1, True)
    assert said(sshd_busybox, "rsync --version")[0] == 0
    assert said(sshd_busybox, "python3 -V; git")[0] == 127


def test_a_bare_server_has_rsync_and_nothing_else(sshd_bare: SshServer) -> None:
    assert said(sshd_bare, "rsync --version")[0] == 0
    assert said(sshd_bare, "sha256sum")[0] == said(sshd_bare, "cat")[0] == 127


def test_a_restricted_server_runs_rsync_below_its_root_and_no_command(
    sshd_rrsync: SshServer, sshd_sftp_only: SshServer, tmp_path: Path
) -> None:
    assert said(sshd_rrsync, "id")[0] != 0  # newer ones run `true`, to be asked whether they are there
    (tmp_path / "a.bin").write_bytes(b"a")
    shell = " ".join(ssh(sshd_rrsync)[:-1])
    subprocess.run(
        ["rsync", "-t", "-e", shell, str(tmp_path / "a.bin"), f"{sshd_rrsync.target}:here"], check=True, timeout=30
    )
    assert (sshd_rrsync.root / "here").read_bytes() == b"a"
    assert said(sshd_sftp_only, "true") == (1, "This service allows sftp connections only.\n")


def test_a_server_that_was_stopped_answers_again_under_its_port(sshd: SshServer) -> None:
    sshd.service.stop()
    assert "Connection refused" in said(sshd, "true")[1]
    sshd.service.start()
    assert said(sshd, "true") == (0, "")


def test_a_link_carries_both_ways_and_can_be_cut_silent_and_slow(sshd: SshServer) -> None:
    with Link(sshd.port) as link:
        known_hosts = sshd.known_hosts_for(link.port)
        megabyte = bytes(1_000_000)

        def sent() -> subprocess.CompletedProcess[bytes]:
            argv = ssh(sshd, "wc -c", port=link.port, known_hosts=known_hosts)
            return subprocess.run(argv, input=megabyte, capture_output=True, check=False, timeout=30)

        assert sent().stdout == b"1000000\n"
        link.cut_after_bytes = link.bytes_up + 300_000
        assert sent().returncode == 255
        link.mend()
        link.rate_up = 2_000_000
        assert sent().stdout == b"1000000\n"
        link.mend()
        link.is_silent = True
        waiting = ssh(sshd, "true", port=link.port, known_hosts=known_hosts)
        waiting[1:1] = ["-o", "ConnectTimeout=1"]
        assert b"timed out" in subprocess.run(waiting, capture_output=True, check=False, timeout=30).stderr


def test_a_disk_is_full_and_another_is_read_only(tmp_path: Path) -> None:
    with full_disk(tmp_path / "full") as full, pytest.raises(OSError, match="No space left"):
        (full / "a").write_bytes(bytes(2_000_000))
    assert not list((tmp_path / "full").iterdir())
    with read_only(tmp_path) as folder, pytest.raises(OSError, match="Read-only"):
        (folder / "a").write_bytes(b"a")
    (tmp_path / "a").write_bytes(b"a")


def test_names_that_differ_in_case_are_one_name_to_samba(rclone_smb: RcloneRemote, tmp_path: Path) -> None:
    place = rclone_smb.place("folds case")
    (tmp_path / "a.bin").write_bytes(b"a")
    there = f"{rclone_smb.name}:{place.transport['rclone_remote_path']}"
    for name in ("a.bin", "A.BIN"):
        rclone_smb.rclone("copyto", "--ignore-times", str(tmp_path / "a.bin"), f"{there}/{name}")
    assert len(list(place.root.iterdir())) == 1
