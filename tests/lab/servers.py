"""Real servers on loopback, as pytest fixtures: sshd in several tempers, rclone's own servers, Samba.

Each server keeps its files below a folder of this machine (`Place.root`), so that a test can look at, damage and compare
what lies there without asking the server. All keys, passwords and ports are made anew for each server.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

HOST = "127.0.0.1"
USER = "labuser"
LABUSER_ID = 64_123
KEEPER = Path(__file__).with_name("keeper.py")
RCLONE = Path(sys.executable).with_name("rclone")
START_S = 30.0
PORTS = range(20_000, 30_000)  # below the range from which the kernel takes the ports of outgoing connections
KEEPER_PIDS: set[int] = set()
"""The servers' processes: they outlive single tests, and conftest.py counts them out."""


@dataclass(frozen=True)
class Place:
    """A folder at a server that can be a destination root.

    `transport` is the block of a config that leads there; `root` is the folder on this machine's disk.
    """

    transport: Mapping[str, Any]
    root: Path


class Service:
    """One server program. It may be stopped and started again under the same port, as a NAS is."""

    def __init__(
        self, argv: Sequence[str], *, port: int, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.port = port
        self.log = log
        self._argv = list(argv)
        self._environment = environment
        self._keeper: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it takes connections. Fails with its own last words."""
        assert self._keeper is None, "it runs already"
        with self.log.open("ab") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-S", str(KEEPER), *self._argv],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env=self._environment,
            )  # fmt: skip
        KEEPER_PIDS.add(self._keeper.pid)
        deadline = time.monotonic() + START_S
        while not _answers(self.port):
            if self._keeper.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"{self._argv[0]} does not answer on port {self.port}: {self.log.read_text()[-3000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it with all its processes, connections included."""
        if self._keeper is None:
            return
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait(20)
        KEEPER_PIDS.discard(self._keeper.pid)
        self._keeper = None

    @contextmanager
    def running(self) -> Iterator[None]:
        self.start()
        try:
            yield
        finally:
            self.stop()


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


def free_port() -> int:
    """Return a port that nobody listens on."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as sock, suppress(OSError):
            sock.bind((HOST, port))
            return port


def program(name: str) -> str:
    """Return the path of a program. Its absence fails the test: `tests/run.sh` installs what is needed."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        pytest.fail(f"{name} is not installed; tests/run.sh names the package")
    return found


def descendants(pid: int) -> set[int]:
    """Return the processes that a process started, and theirs."""
    found: set[int] = set()
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found |= {child} | descendants(child)
    return found


def done(*argv: str | Path, feed: str | None = None) -> str:
    """Run a program to its end and return what it printed. Fails with its words when it fails."""
    ended = subprocess.run([*map(str, argv)], input=feed, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, f"{argv}: {ended.stdout}{ended.stderr}"
    return ended.stdout


@dataclass(frozen=True)
class MountedFolder:
    """A folder of this machine, as a mounted NAS is."""

    root: Path
    service: None = None

    def place(self, name: str) -> Place:
        root = self.root / name
        root.mkdir(parents=True, exist_ok=True)
        return Place({"type": "mounted_path", "path": str(root)}, root)


# --- sshd ------------------------------------------------------------------------------------------------------------


@dataclass
class SshServer:
    """An sshd with its own keys. `root` is a folder of this machine that its users can write to.

    `is_rooted`: its paths count from `root`.
    """

    home: Path
    root: Path
    port: int
    user: str
    key: Path
    known_hosts: Path
    service: Service
    is_rooted: bool = False
    stranger_key: Path = field(init=False)

    def __post_init__(self) -> None:
        self.stranger_key = self.home / "stranger"
        _new_key(self.stranger_key)

    @property
    def target(self) -> str:
        return f"{self.user}@{HOST}"

    def place(self, name: str, *, root: Path | None = None, **changed: Any) -> Place:
        """Return a new folder as a destination of rsync over ssh. `changed` members of the block win."""
        root = root or self.root / name
        root.mkdir(parents=True, exist_ok=True)
        if self.user == USER:
            os.chown(root, LABUSER_ID, LABUSER_ID)
        block = {
            "type": "rsync_ssh", "ssh_target": self.target, "ssh_port": self.port, "ssh_key_path": str(self.key),
            "known_hosts": str(self.known_hosts), "remote_path": self.path_of(root),
        }  # fmt: skip
        return Place(block | changed, root)

    def path_of(self, root: Path) -> str:
        """Return what the server calls a folder of this machine."""
        return f"/{root.relative_to(self.root)}" if self.is_rooted else str(root)

    def known_hosts_for(self, port: int, *, key: Path | None = None) -> Path:
        """Return a known_hosts that has this server's key, or another one, under a port (of a link to it)."""
        path = self.home / f"known_hosts {port} {key.name if key else 'own'}"
        path.write_text(_known_host(port, key or self.home / "host_key"), encoding="utf-8")
        return path


def _new_key(path: Path) -> None:
    done("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path)


def _known_host(port: int, key: Path) -> str:
    return f"[{HOST}]:{port} {key.with_name(key.name + '.pub').read_text(encoding='utf-8').strip()}\n"


@contextmanager
def running_sshd(
    home: Path, *, force: str = "", is_ordinary_user: bool = False, root: Path | None = None
) -> Iterator[SshServer]:
    """An sshd. `force` is its ForceCommand; with `is_ordinary_user` one logs in as a user without rights.

    That user exists in this server's own view of /etc/passwd only, so the machine's users stay as they are.
    """
    home.mkdir(parents=True, exist_ok=True)
    root = root or home / "root"
    root.mkdir(exist_ok=True)
    port = free_port()
    for name in ("host_key", "user_key"):
        _new_key(home / name)
    (home / "authorized_keys").write_text((home / "user_key.pub").read_text(encoding="utf-8"), encoding="utf-8")
    (home / "known_hosts").write_text(_known_host(port, home / "host_key"), encoding="utf-8")
    lines = [
        f"Port {port}", f"ListenAddress {HOST}", f"HostKey {home / 'host_key'}", "PidFile none", "UsePAM no",
        f"AuthorizedKeysFile {home / 'authorized_keys'}", "StrictModes no", "PasswordAuthentication no",
        "KbdInteractiveAuthentication no", "PermitRootLogin yes", "Subsystem sftp internal-sftp", "MaxStartups 200",
        "MaxSessions 100", "LogLevel VERBOSE", "UseDNS no", "AcceptEnv LANG LC_*",
        f"SetEnv HOME={home}",  # else the login scripts of whoever runs the tests are part of what is tested
    ]  # fmt: skip
    if force:
        lines.append(f"ForceCommand {force}")
    config = home / "sshd_config"
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    argv = [program("sshd"), "-D", "-e", "-f", str(config)]
    user = _current_user()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd as root insists on it
    if is_ordinary_user:
        user, argv = USER, _with_a_user_of_its_own(home, argv)
    service = Service(argv, port=port, log=home / "log")
    server = SshServer(home, root, port, user, home / "user_key", home / "known_hosts", service)
    with service.running():
        yield server


def _with_a_user_of_its_own(home: Path, argv: Sequence[str]) -> list[str]:
    """Return a command that runs `argv` where /etc/passwd has `labuser`. Needs root."""
    passwd = home / "passwd"
    line = f"{USER}:*:{LABUSER_ID}:{LABUSER_ID}:a lab's account:/tmp:/bin/sh\n"
    passwd.write_text(Path("/etc/passwd").read_text(encoding="utf-8") + line, encoding="utf-8")
    passwd.chmod(0o644)
    for folder in (home, *home.parents):  # temporary folders are private to the one who runs the tests
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    script = 'mount --bind "$1" /etc/passwd && shift && exec "$@"'
    return [
        program("unshare"),
        "--mount",
        "--propagation",
        "slave",
        program("sh"),
        "-c",
        script,
        "sh",
        str(passwd),
        *argv,
    ]


def _current_user() -> str:
    return done("id", "-un").strip()


def busybox_only(home: Path, *also: str) -> str:
    """Return a ForceCommand under which only busybox and the programs `also` can be found, as on many a NAS."""
    folder = home / "busybox"
    folder.mkdir(parents=True)
    done(program("busybox"), "--install", "-s", folder)
    for name in also:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(program(name))
    return f'/usr/bin/env -i PATH={folder} HOME=/tmp {folder}/sh -c "$SSH_ORIGINAL_COMMAND"'


def _only_rsync(folder: Path) -> str:
    return f"{program('rrsync')} {folder}"


# --- rclone ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RcloneRemote:
    """A remote of an rclone.conf of its own. `secrets` must never be seen, neither plain nor obscured.

    `prefix` is the path below the remote that is `root` on this machine's disk; `is_opaque`: other names stand there.
    """

    name: str
    config: Path
    prefix: str
    root: Path
    secrets: tuple[str, ...] = ()
    service: Service | None = None
    is_opaque: bool = False

    def place(self, name: str) -> Place:
        """Return a new folder as a destination of rclone."""
        root = self.root / name
        path = f"{self.prefix}/{name}" if self.prefix else name
        if self.is_opaque:
            self.rclone("mkdir", f"{self.name}:{path}")
        else:
            root.mkdir(parents=True, exist_ok=True)
        block = {
            "type": "rclone", "rclone_remote": self.name, "rclone_remote_path": path, "rclone_config": str(self.config),
        }  # fmt: skip
        return Place(block, root)

    def changed(self, home: Path, **members: str) -> RcloneRemote:
        """Return the same remote with other members in an rclone.conf of its own."""
        home.mkdir(parents=True, exist_ok=True)
        lines = self.config.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.partition(" = ")[0] not in members]
        config = home / "rclone.conf"
        config.write_text("\n".join([*kept, *(f"{k} = {v}" for k, v in members.items()), ""]), encoding="utf-8")
        config.chmod(0o600)
        return replace(self, config=config)

    def rclone(self, *words: str) -> str:
        """Run bare rclone with this remote's config: what lies there as another program sees it."""
        return done(RCLONE, words[0], "--config", self.config, *words[1:])


def obscured(password: str) -> str:
    return done(RCLONE, "obscure", "-", feed=password).strip()


def new_remote(
    home: Path,
    name: str,
    members: Mapping[str, str],
    *,
    root: Path,
    prefix: str = "",
    secret: str = "",
    service: Service | None = None,
    more: str = "",
) -> RcloneRemote:
    """Write an rclone.conf with one remote, and with the sections `more`."""
    home.mkdir(parents=True, exist_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    config = home / "rclone.conf"
    text = f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in members.items()) + more
    config.write_text(text, encoding="utf-8")
    config.chmod(0o600)
    hidden = tuple(value for key, value in members.items() if key.startswith(("pass", "secret")))
    return RcloneRemote(name, config, prefix, root, (*filter(None, [secret]), *hidden), service)


@contextmanager
def running_rclone_server(home: Path, protocol: str) -> Iterator[RcloneRemote]:
    """`rclone serve` over a folder, for sftp, webdav, ftp or s3, and a remote that reaches it.

    It forgets each listing at once, so that what changes behind its back is seen. (With 0s it takes minutes for a few files.)
    """
    home.mkdir(parents=True, exist_ok=True)
    root, port, password = home / "root", free_port(), secrets.token_hex(12)
    (root / "bucket").mkdir(parents=True)
    argv = [
        str(RCLONE), "serve", protocol, str(root), "--config", os.devnull, "--addr", f"{HOST}:{port}",
        "--dir-cache-time", "1ms", "--poll-interval", "0s",
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RCLONE_")}
    if protocol == "s3":
        argv += ["--auth-key", f"{USER},{password}"]
    else:
        environment |= {"RCLONE_USER": USER, "RCLONE_PASS": password}
    members: dict[str, dict[str, str]] = {
        "sftp": {"type": "sftp", "host": HOST, "port": str(port), "user": USER, "pass": obscured(password)},
        "ftp": {"type": "ftp", "host": HOST, "port": str(port), "user": USER, "pass": obscured(password)},
        "webdav": {
            "type": "webdav", "url": f"http://{HOST}:{port}", "vendor": "other", "user": USER, "pass": obscured(password),
        },
        "s3": {
            "type": "s3", "provider": "Rclone", "endpoint": f"http://{HOST}:{port}", "access_key_id": USER,
            "secret_access_key": password, "use_multipart_uploads": "false",
        },
    }  # fmt: skip
    service = Service(argv, port=port, log=home / "log", environment=environment)
    with service.running():
        yield new_remote(
            home, f"lab-{protocol}", members[protocol], root=root / "bucket", prefix="bucket", secret=password,
            service=service,
        )  # fmt: skip


def sftp_remote(home: Path, server: SshServer, **more: str) -> RcloneRemote:
    """A remote over sftp to a real sshd, with key and host key."""
    members = {
        "type": "sftp", "host": HOST, "port": str(server.port), "user": server.user, "key_file": str(server.key),
        "known_hosts_file": str(server.known_hosts), **more,
    }  # fmt: skip
    root = server.root / home.name
    return new_remote(home, "lab-sshd", members, root=root, prefix=str(root), service=server.service)


def local_remote(home: Path) -> RcloneRemote:
    """A remote that is a folder of this machine, as a mounted NAS is."""
    root = home / "root"
    return new_remote(home, "lab-local", {"type": "local"}, root=root, prefix=str(root))


def alias_remote(home: Path) -> RcloneRemote:
    """A remote that is another name for a folder."""
    root = home / "root"
    return new_remote(home, "lab-alias", {"type": "alias", "remote": str(root)}, root=root)


def crypt_remote(home: Path) -> RcloneRemote:
    """A remote that encrypts contents and names: what is in `root` cannot be compared with the source."""
    password, root = secrets.token_hex(12), home / "root"
    members = {"type": "crypt", "remote": str(root), "password": obscured(password)}
    return replace(new_remote(home, "lab-crypt", members, root=root, secret=password), is_opaque=True)


# --- Samba -----------------------------------------------------------------------------------------------------------


@contextmanager
def running_samba(home: Path) -> Iterator[RcloneRemote]:
    """smbd, as most NAS boxes have it: no hashes, and names that differ in case only are one name."""
    home.mkdir(parents=True, exist_ok=True)
    root, port, password, user = home / "root", free_port(), secrets.token_hex(12), _current_user()
    root.mkdir()
    private = home / "p"  # short: sockets live in it, whose paths may have 107 bytes
    lines = [
        "[global]", "server role = standalone server", "passdb backend = tdbsam", f"smb ports = {port}",
        "interfaces = lo", "bind interfaces only = yes", "disable netbios = yes", "load printers = no",
        "printcap name = /dev/null", "disable spoolss = yes", "map to guest = never", "log level = 1",
        f"log file = {home / 'log.smbd'}", "unix extensions = no", "multicast dns register = no",
        *(
            f"{what} = {private / what.replace(' ', '-')}"
            for what in (
                "private dir", "lock directory", "state directory", "cache directory", "pid directory", "ncalrpc dir",
            )
        ),
        "[lab]", f"path = {root}", "read only = no",
    ]  # fmt: skip
    for what in ("private", "lock", "state", "cache", "pid", "ncalrpc"):
        (private / f"{what}-{'dir' if what in ('private', 'ncalrpc') else 'directory'}").mkdir(parents=True, mode=0o755)
    config = home / "smb.conf"
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    done(program("smbpasswd"), "-c", config, "-s", "-a", user, feed=f"{password}\n{password}\n")
    argv = [program("smbd"), "--foreground", "--no-process-group", "--debug-stdout", f"--configfile={config}"]
    service = Service(argv, port=port, log=home / "log")
    members = {"type": "smb", "host": HOST, "port": str(port), "user": user, "pass": obscured(password)}
    with service.running():
        yield new_remote(home, "lab-smb", members, root=root, prefix="lab", secret=password, service=service)


# --- fixtures --------------------------------------------------------------------------------------------------------

Homes = Callable[[str], Path]


@pytest.fixture(scope="session")
def server_home() -> Iterator[Homes]:
    """Return a function that makes a new folder of this name.

    Not among pytest's own folders: each run of pytest on the machine makes those private again, and removes old ones.
    """
    with tempfile.TemporaryDirectory(prefix="exlab-servers-") as folder:

        def new_home(name: str) -> Path:
            home = Path(folder) / name
            home.mkdir()
            return home

        yield new_home


@pytest.fixture(scope="session")
def mounted(server_home: Homes) -> MountedFolder:
    return MountedFolder(server_home("mounted"))


@pytest.fixture(scope="session")
def sshd(server_home: Homes) -> Iterator[SshServer]:
    """An ordinary server: a shell, rsync, GNU tools, sftp; one logs in as the user who runs the tests."""
    with running_sshd(server_home("sshd")) as server:
        yield server


@pytest.fixture(scope="session")
def sshd_ordinary_user(server_home: Homes) -> Iterator[SshServer]:
    """The same, but one logs in as a user without rights."""
    with running_sshd(server_home("sshd-user"), is_ordinary_user=True) as server:
        yield server


@pytest.fixture(scope="session")
def sshd_busybox(server_home: Homes) -> Iterator[SshServer]:
    """A NAS box: busybox's shell and tools, and rsync."""
    home = server_home("sshd-busybox")
    with running_sshd(home, force=busybox_only(home, "rsync")) as server:
        yield server


@pytest.fixture(scope="session")
def sshd_bare(server_home: Homes) -> Iterator[SshServer]:
    """A server with rsync and a shell that finds no program at all besides."""
    home = server_home("sshd-bare")
    folder = home / "bare"
    folder.mkdir()
    (folder / "rsync").symlink_to(program("rsync"))
    force = f'/usr/bin/env -i PATH={folder} HOME=/tmp /bin/sh -c "$SSH_ORIGINAL_COMMAND"'
    with running_sshd(home, force=force) as server:
        yield server


@pytest.fixture(scope="session")
def sshd_rrsync(server_home: Homes) -> Iterator[SshServer]:
    """A server that allows rsync below its root and nothing else."""
    home = server_home("sshd-rrsync")
    with running_sshd(home, force=_only_rsync(home / "root")) as server:
        server.is_rooted = True
        yield server


@pytest.fixture(scope="session")
def sshd_sftp_only(server_home: Homes) -> Iterator[SshServer]:
    """A server that allows sftp and nothing else: no remote command, so no hashes over sftp either."""
    with running_sshd(server_home("sshd-sftp"), force="internal-sftp") as server:
        yield server


@pytest.fixture(scope="session")
def rclone_sftp(server_home: Homes) -> Iterator[RcloneRemote]:
    with running_rclone_server(server_home("rclone-sftp"), "sftp") as remote:
        yield remote


@pytest.fixture(scope="session")
def rclone_webdav(server_home: Homes) -> Iterator[RcloneRemote]:
    """A WebDAV server as most are: no hashes, no times."""
    with running_rclone_server(server_home("rclone-webdav"), "webdav") as remote:
        yield remote


@pytest.fixture(scope="session")
def rclone_ftp(server_home: Homes) -> Iterator[RcloneRemote]:
    with running_rclone_server(server_home("rclone-ftp"), "ftp") as remote:
        yield remote


@pytest.fixture(scope="session")
def rclone_s3(server_home: Homes) -> Iterator[RcloneRemote]:
    with running_rclone_server(server_home("rclone-s3"), "s3") as remote:
        yield remote


@pytest.fixture(scope="session")
def rclone_smb(server_home: Homes) -> Iterator[RcloneRemote]:
    with running_samba(server_home("smb")) as remote:
        yield remote


@pytest.fixture(scope="session")
def rclone_sshd(server_home: Homes, sshd: SshServer) -> RcloneRemote:
    return sftp_remote(server_home("rclone-sshd"), sshd)


@pytest.fixture(scope="session")
def rclone_sshd_without_commands(server_home: Homes, sshd_sftp_only: SshServer) -> RcloneRemote:
    return sftp_remote(server_home("rclone-sftp-only"), sshd_sftp_only)


@pytest.fixture(scope="session")
def rclone_local(server_home: Homes) -> RcloneRemote:
    return local_remote(server_home("rclone-local"))


@pytest.fixture(scope="session")
def rclone_alias(server_home: Homes) -> RcloneRemote:
    return alias_remote(server_home("rclone-alias"))


@pytest.fixture(scope="session")
def rclone_crypt(server_home: Homes) -> RcloneRemote:
    return crypt_remote(server_home("rclone-crypt"))
