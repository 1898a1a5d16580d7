"""What of a program's own words is kept for the operator: the last lines, with everything struck out that looks like a secret."""

from __future__ import annotations

import re
from collections import deque

READ_BYTES = 256 * 1024
_TAIL_LINES = 20
_TAIL_LINE_CHARACTERS = 1000

_SENSITIVE = r"[\w.-]*(?:pass|secret|token|credential|access_key|api_key|private_key|key_pem|authorization)[\w.-]*"
_SECRETS = (
    # name=value as in rclone's connection strings, "name": "value" as in its JSON.
    re.compile(rf"(?i)({_SENSITIVE}\"?\s*[=:]\s*)(\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\s,;:}}'\"]+)"),
    re.compile(r"(?i)(://[^/\s:@]+:)([^/\s@]+)(?=@)"),
)


def redacted(text: str) -> str:
    """Return the text with the values of what looks like a password, token or key struck out."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\1***", text)
    return text


class Tail:
    """The last lines of what a program said on stderr, for the operator; secrets struck out. Any thread."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)
        self._open = b""

    def add(self, data: bytes) -> None:
        *lines, self._open = (self._open + data).split(b"\n")
        self._open = self._open[-READ_BYTES:]
        for line in lines:
            self._keep(line)

    def _keep(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace").strip()
        if text:
            self._lines.append(redacted(text)[:_TAIL_LINE_CHARACTERS])

    def text(self) -> str:
        return "\n".join([*self._lines, redacted(self._open.decode("utf-8", "backslashreplace").strip())]).strip("\n")
