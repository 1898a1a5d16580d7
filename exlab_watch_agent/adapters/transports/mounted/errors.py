"""What an error of a mounted destination means for a push: by errno, on Windows by the system's own number."""

from __future__ import annotations

import errno

from exlab_watch_agent.core.text import reason_with_name
from exlab_watch_agent.errors import FailureKind, TransportError

_FULL, _AUTH, _NETWORK = FailureKind.DESTINATION_FULL, FailureKind.AUTH, FailureKind.NETWORK
_KINDS: dict[str, FailureKind] = {
    "ENOSPC": _FULL,
    "EDQUOT": _FULL,
    "EACCES": _AUTH,
    "EPERM": _AUTH,
    "EROFS": _AUTH,
    "EKEYREJECTED": _AUTH,
    "EKEYEXPIRED": _AUTH,
    "EIO": _NETWORK,
    "ESTALE": _NETWORK,
    "ENOENT": _NETWORK,
    "ENODEV": _NETWORK,
    "ENXIO": _NETWORK,
    "EREMOTEIO": _NETWORK,
    "ENOTCONN": _NETWORK,
    "ENOLINK": _NETWORK,
    "ECOMM": _NETWORK,
    "EPIPE": _NETWORK,
    "EHOSTDOWN": _NETWORK,
    "EHOSTUNREACH": _NETWORK,
    "ENETDOWN": _NETWORK,
    "ENETUNREACH": _NETWORK,
    "ENETRESET": _NETWORK,
    "ETIMEDOUT": _NETWORK,
    "ECONNRESET": _NETWORK,
    "ECONNABORTED": _NETWORK,
    "ECONNREFUSED": _NETWORK,
    "ESHUTDOWN": _NETWORK,
}
_KIND_BY_ERRNO = {getattr(errno, name): kind for name, kind in _KINDS.items() if hasattr(errno, name)}
# Windows has errors of shares that no errno stands for: bad or deleted network name, timeouts, logon failures.
_KIND_BY_WINERROR = {
    39: _FULL,
    112: _FULL,
    86: _AUTH,
    1326: _AUTH,
    1327: _AUTH,
    1331: _AUTH,
    53: _NETWORK,
    59: _NETWORK,
    64: _NETWORK,
    67: _NETWORK,
    121: _NETWORK,
    1231: _NETWORK,
    1232: _NETWORK,
}


def classified(error: OSError, doing: str) -> TransportError:
    """Return what an error of the destination means for the push. `doing` begins the sentence."""
    if isinstance(error, FileExistsError):
        text = f"{doing}: a file of that name exists already and is never replaced: rename one of them, then retry."
        return TransportError(FailureKind.UNKNOWN, text, detail=reason_with_name(error))
    kind = _KIND_BY_WINERROR.get(getattr(error, "winerror", None) or 0)
    kind = kind or _KIND_BY_ERRNO.get(error.errno or 0, FailureKind.UNKNOWN)
    return TransportError(kind, f"{doing}: {error.strerror or error}.", detail=reason_with_name(error))
