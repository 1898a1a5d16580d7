"""What rclone's errors mean: a table of words, for they come from the backends as words."""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from typing import Any

from exlab_watch_agent.adapters.children.tail import redacted
from exlab_watch_agent.errors import FailureKind

_AUTH, _FULL, _NETWORK = FailureKind.AUTH, FailureKind.DESTINATION_FULL, FailureKind.NETWORK
# rclone's errors are words that came from the backend, so words it must be; the first that fits. What an answering
# server said of itself comes before what the link may have had to do with it.
_KINDS: tuple[tuple[str, FailureKind], ...] = (
    (
        r"no space left|disk space|disk.{0,10}full|disk quota|quota.{0,20}exceeded|insufficient.?storage|storagefull"
        r"|: 552|\b507\b",
        _FULL,
    ),
    (
        r"unable to authenticate|no supported methods remain|ssh: no key found|attempted logon is invalid|logon.?failure",
        _AUTH,
    ),
    (r"knownhosts: key|host key|certificate signed by unknown|certificate is not valid|certificate has expired", _AUTH),
    (r"permission denied|access.?denied|access is denied|read-only file system|operation not permitted", _AUTH),
    (
        r"\b401\b|\b403\b|unauthori[sz]ed|forbidden|login (incorrect|failed)|: 530|signaturedoesnotmatch|invalidaccesskey",
        _AUTH,
    ),
    (
        r"password (is )?(wrong|incorrect)|wrong password|invalid_grant|token expired|account.{0,20}(locked|disabled)",
        _AUTH,
    ),
    (
        r"connection refused|no route to host|network is (unreachable|down)|host is down|no such host|server misbehaving",
        _NETWORK,
    ),
    (r"i/o timeout|timed? ?out|deadline exceeded|connection (reset|lost|closed|aborted)|broken pipe|\beof\b", _NETWORK),
    (
        r"closed network|couldn't connect|failed to connect|handshake failed|use of closed|\b50[234]\b|\b42[16]\b",
        _NETWORK,
    ),
)

_IS_FOLDER = "is a directory not a file"


def failure_kind(text: str) -> FailureKind:
    """Return what an error of rclone means for a push."""
    words = text.lower()
    return next((kind for pattern, kind in _KINDS if re.search(pattern, words)), FailureKind.UNKNOWN)


class RcloneError(Exception):
    """rclone could not do what a request asked. `is_missing`: the file or folder is not there."""

    def __init__(self, text: str, *, is_missing: bool = False, kind: FailureKind | None = None, tail: str = "") -> None:
        super().__init__(redacted(text))
        self.is_missing = is_missing
        self.kind = kind or failure_kind(text)
        self.tail = tail


def error_in(answer: Mapping[str, Any]) -> RcloneError:
    """Return the error that an answer of rclone says: {"error", "status", "path", "input"}."""
    text = str(answer.get("error", "rclone gave no reason"))
    is_missing = answer.get("status") == http.client.NOT_FOUND or _IS_FOLDER in text
    return RcloneError(text, is_missing=is_missing)


def met_another(result: Mapping[str, Any]) -> bool:
    """Whether placing a file failed because another was placed into the same new folder at the same time."""
    return any(saying in str(result.get("error")) for saying in ("mkParentDir failed", "Move NewObject failed"))
