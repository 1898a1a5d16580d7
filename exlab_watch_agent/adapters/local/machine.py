"""Which machine this is, as its operating system says: for telling a copied state folder from the one that it was copied from.

Source: machine-id(5), which also says that the id itself is not to be shown: what is kept is a hash of it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from blake3 import blake3

_PATHS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_CONTEXT = "exlab-watch-agent machine"


def machine_id(paths: tuple[Path, ...] = _PATHS) -> str:
    """Return 32 hex that are the same as long as this system is installed, empty where it says nothing of itself."""
    if sys.platform == "win32":
        return _hashed(_windows_guid())
    for path in paths:
        try:
            said = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if said and said != "uninitialized":
            return _hashed(said)
    return ""


def _hashed(said: str) -> str:
    return blake3(said.encode(), derive_key_context=_CONTEXT).hexdigest(16) if said else ""


def _windows_guid() -> str:
    if sys.platform == "win32":
        import winreg

        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SOFTWARE\Microsoft\Cryptography") as key:
            return str(winreg.QueryValueEx(key, "MachineGuid")[0])
    return ""
