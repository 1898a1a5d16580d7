"""Failure kinds, the error classes that carry them, and exit codes.

Classes are cut by what is to be done, not by where an error came from. Adapters turn foreign errors (errno, exit code,
parser) into these at one border function each; nothing else in the package raises a foreign error on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class FailureKind(StrEnum):
    """Why a push, check or verify did not come to its end; decides between another try and an operator."""

    AUTH = "auth"
    NETWORK = "network"
    DESTINATION_FULL = "destination_full"
    HASH_MISMATCH = "hash_mismatch"
    LOCAL_FILE_VANISHED = "local_file_vanished"
    BINARY_MISSING = "binary_missing"
    UNKNOWN = "unknown"


class ExitCode(IntEnum):
    """What a command says to the shell."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    NEEDS_ATTENTION = 3
    AT_RISK = 4
    INTERRUPTED = 130
    """By Ctrl-C, as a shell says it."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What a lane's wait for its destination is called, and the command that helps. Shown to people and to programs."""

    code: str = "nas_unreachable"
    command: str = "exlab-watch-agent check"


NAS_UNREACHABLE = Wait()
DESTINATION_FULL = Wait("destination_full")
DESTINATION_REPLACING = Wait("destination_replacing", "exlab-watch-agent status")


class AgentError(Exception):
    """Base of all errors of this package. `str()` is one clear sentence for an operator."""


class ConfigError(AgentError):
    """The configuration cannot be used. The text lists every problem at once, one a line."""


class NoStateFolderError(ConfigError):
    """There is no state folder to read from: most often the wrong one was named."""


class StateFolderError(AgentError):
    """The state folder cannot be used: in use by another agent, not private, or damaged beyond what can be rebuilt."""


class StoreWriteError(AgentError):
    """A record could not be made durable, and the file can no longer be trusted with another (a failed fsync).

    Nothing was acknowledged. Never repeated on that file: the agent ends.
    """


class StoreFullError(StoreWriteError):
    """There was no room for a record. Nothing was acknowledged and nothing has changed: the same may be tried again later."""


class CreationFileError(AgentError):
    """`creation.json` cannot be read or written.

    `code` is `schema_major_mismatch`, `invalid_json`, `invalid_content`, `unreadable`, `missing`, `locked`, `changed` or
    `unwritable`;
    `line` and `column` are 1-based where they are known.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        line: int | None = None,
        column: int | None = None,
        field: str | None = None,
        expected: str | None = None,
        found: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.line = line
        self.column = column
        self.field = field
        self.expected = expected
        self.found = found


class SourceChangedError(AgentError):
    """A local file is not what the inventory said: it grew, was rewritten or replaced while we worked."""


class RunUnreadableError(AgentError):
    """A part of a run folder cannot be read now (locked by another program, permission): a wait, never a failure."""


class RootUnavailableError(AgentError):
    """A watched root is missing, unreadable, replaced or another agent's: the lane waits, nothing is concluded from it."""


class ManifestNotKeptError(AgentError):
    """A manifest could not be written into the state folder."""


class ManifestLostError(AgentError):
    """The manifest of a run is no longer kept here, or is not the one that was proven. That says nothing about the copy."""


class CancelledError(AgentError):
    """The effect was told to stop and did so."""


class TransportError(AgentError):
    """A transport could not do what was asked, already classified.

    `detail` keeps the last lines of the tool's own words for the operator. `needs_bytes`: of a destination that is full, how
    much room the push needs, as far as known.
    """

    def __init__(self, kind: FailureKind, message: str, *, detail: str = "", needs_bytes: int = 0) -> None:
        super().__init__(message)
        self.kind = kind
        self.detail = detail
        self.needs_bytes = needs_bytes


class DestinationUnreachableError(AgentError):
    """The destination does not answer a probe, or is not the one that was used before. The lane waits; no attempt is consumed.

    `wait`: what the lane's wait is called, and the command that helps.
    """

    wait = NAS_UNREACHABLE


class DestinationFullError(DestinationUnreachableError):
    """The destination answers, and has no room for what is to be written there: the lane waits until somebody made room."""

    wait = DESTINATION_FULL


class DestinationUnboundError(DestinationUnreachableError):
    """An operator must say whether the destination is the right one. `code`: what the lane's wait is called."""

    def __init__(self, message: str, *, command: str, code: str = "destination_unbound") -> None:
        super().__init__(message)
        self.wait = Wait(code, command)


class MarkerMissingError(DestinationUnreachableError):
    """The root is there and its marker is not: an unmounted share looks like this, and so does a marker that was removed."""


class ForeignMarkerError(DestinationUnreachableError):
    """The root has a marker, and it is another one than was expected."""


class DestinationIsSourceError(DestinationUnreachableError):
    """The destination leads back to the instrument's own folder: both "copies" would be the same bytes."""

    wait = Wait("destination_is_source")


class LocalDiffersError(AgentError):
    """A sealed run is not here as it was sealed, so that nothing at its destination may give way to it. Nothing was written.

    `kind`: the conflict that it is, by the names of core/ways_out.py.
    """

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class DestinationOccupiedError(AgentError):
    """The destination folder belongs to another run, or to another agent. Nothing was written.

    `kind`: the conflict that it is, by the names of core/claim.py. `holding`: who has it and as what (DestinationLook.holding);
    empty where that is not known.
    """

    def __init__(self, message: str, *, kind: str = "destination_occupied", holding: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.holding = holding
