"""What the target's shell finds: asked once for each connection, by one script."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from exlab_watch_agent.adapters.transports.rsync.ssh_login import NoShellError, SshLogin

NEEDED = ("cat", "dd", "df", "find", "head", "ln", "mkdir", "mv", "rm", "rmdir", "stat", "touch")
# The fastest first (openssl uses what the processor has for it; Debian's sha256sum is five times slower). Each prints
# `<64 hex><two characters><name>`, and reads its standard input where no name is given.
HASHERS: tuple[tuple[str, ...], ...] = (
    ("openssl", "dgst", "-sha256", "-r"),
    ("sha256sum",),
    ("shasum", "-a", "256"),
)
_KNOWN_ANSWER = hashlib.sha256(b"abc").hexdigest()
_NOWHERE = "/nonexistent-" + "0" * 16

ASK_TOOLS = b"".join(
    [
        b'echo "home $(pwd)"\n',
        *(b"command -v %b >/dev/null || echo 'lacks %b'\n" % (name.encode(), name.encode()) for name in NEEDED),
        *(
            b'echo "hash %d $(printf abc | %b 2>/dev/null)"\n' % (number, " ".join(hasher).encode())
            for number, hasher in enumerate(HASHERS)
        ),
        b"stat -c %s / >/dev/null 2>&1 && echo 'stat -c'\n",
        b"stat -f %z / >/dev/null 2>&1 && echo 'stat -f'\n",
        b'echo "sync $(sync -f %b 2>&1)"\n' % _NOWHERE.encode(),
        b'echo "processors $(getconf _NPROCESSORS_ONLN 2>/dev/null || nproc 2>/dev/null)"\n',
        b'echo "rsync $(rsync --version 2>/dev/null | head -n 1)"\n',
    ]
)


@dataclass(frozen=True, slots=True)
class TargetTools:
    """What the target's shell finds. `hasher`: None where nothing there computes SHA-256. `home`: where the shell begins.

    `stat_option`: `-c` (GNU, BusyBox) or `-f` (BSD, macOS). `syncs_one_file_system`: else a sync is for the whole machine.
    """

    hasher: tuple[str, ...] | None
    stat_option: str
    syncs_one_file_system: bool
    processors: int
    rsync_version: str
    home: str = ""

    def path_of(self, path: str) -> str:
        """Return a path with the account's home folder, in which its shell begins, in the place of a leading `~`."""
        return f"{self.home}/{path[2:]}" if path.startswith("~/") else path


def tools_in(said: str, login: SshLogin) -> TargetTools:
    """Return what the answer to `ASK_TOOLS` says. Raises: NoShellError when what is needed at least is not there."""
    found: dict[str, list[str]] = {}
    for line in said.splitlines():
        name, _, rest = line.partition(" ")
        found.setdefault(name, []).append(rest)
    lacking = found.get("lacks", [])
    if lacking or "stat" not in found:
        raise NoShellError(f"The shell of {login.target} finds no {', '.join(lacking or ['stat that works'])}.")
    right = [line.split(" ")[0] for line in found.get("hash", []) if line.split(" ")[1:2] == [_KNOWN_ANSWER]]
    processors = found.get("processors", [""])[0]
    version = re.search(r"version v?([0-9.]+)", found.get("rsync", [""])[0])
    return TargetTools(
        hasher=HASHERS[int(right[0])] if right else None,
        stat_option=found["stat"][0],
        syncs_one_file_system="No such file" in found.get("sync", [""])[0],
        processors=int(processors) if processors.isdigit() else 1,
        rsync_version=version[1] if version else "",
        home=found.get("home", [""])[0].rstrip("/"),
    )
