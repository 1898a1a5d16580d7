"""What the ways to a NAS differ in: the small port that each way implements, and behind which `Destination` keeps all policy.

Decided here: the verbs, and which of a way's abilities `Destination` acts on. Not here: whose folder it is, which names may be
taken and what must make room (destination.py), and how a way does any of it (mounted/, rclone/, rsync/).

A verb is as large as one request of the way for which requests cost most: a look at a folder, an exchange of a probe file and
the sending of a list of files are one call each, so that a way over a network may do each in one go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from exlab_watch_agent.adapters.transports.shared.own_files import PARTIAL_FOLDER
from exlab_watch_agent.core.binding import Below, Nature
from exlab_watch_agent.core.inventory import CACHE_FOLDER, FileEntry
from exlab_watch_agent.core.passes import ReadBack
from exlab_watch_agent.errors import FailureKind, TransportError
from exlab_watch_agent.ports import Control, RemoteFile


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a way can, as far as `Destination` acts on it. The plain way is what holds for most.

    `creates_exclusively`: of two that put a new file in the same moment, one is told that it was not the first.
    `checks_each_file`: `send` itself holds each file against its entry before and after it is read, and gives each its name
    only where nothing has it; else sources and names are looked at around it.
    `names_last`: no file has its name before it was found to be as listed.
    `tells_taken`: `send` raises where something has a name; else it must be looked whether all have arrived.
    `moves`: whether a file can make room at once; else it does so in the step in which its successor takes the name.
    `removes`: whether a file can be taken away again; else the probe file stays, out of people's sight.
    `sampled_from_bytes`: how large files must be in all for samples to pay; None where ranges of a file cannot be read.
    `portion_files`, `portion_bytes`: how much one `send` is to bring at most, which is what is lost when it is cut off.
    `settle_s`: where nothing is created exclusively, for how long another agent may still write over a marker of ours.
    """

    creates_exclusively: bool = False
    checks_each_file: bool = False
    names_last: bool = False
    tells_taken: bool = True
    moves: bool = True
    removes: bool = True
    sampled_from_bytes: int | None = None
    portion_files: int | None = None
    portion_bytes: int | None = None
    settle_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Listing:
    """What is below a run's folder, paths relative to it; the cache folder and our own are left out.

    `files`: regular files. `folders` and `others` (links, pipes and so on), as far as the way shows them.
    """

    files: Mapping[str, RemoteFile]
    folders: Collection[str] = ()
    others: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Lag:
    """For how long, in seconds, a server's listing may not show what it has taken in, and how often it is looked at meanwhile."""

    at_most_s: float = 0.0
    look_every_s: float = 0.5


NO_LAG = Lag()
"""A listing is what is there."""


@dataclass(frozen=True, slots=True)
class FolderLook:
    """A run's folder at a glance. `claim` and `creation` are the bytes of these files, None where there are none.

    `is_empty`: there is nothing but what a push of ours leaves that was stopped at once (`holds_nothing`).
    """

    is_empty: bool
    claim: bytes | None = None
    creation: bytes | None = None


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What came back of a probe file. `mtime_ns`: None where the way does not ask for the time that it was given."""

    data: bytes | None
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Shipment:
    """Data files for names that nothing has: `files` below `source_root`, to the same paths below `folder`.

    `folders`: those that are in `folder` already, as far as the way lists them. `aside`: where what has these names goes in the
    same step; None where nothing has them. `require_as_listed` raises where a source is no longer what its entry says: a way
    with `names_last` calls it when all was read, before anything gets its name.
    """

    source_root: str
    files: Sequence[FileEntry]
    folder: str
    control: Control
    folders: Collection[str]
    require_as_listed: Callable[[], None]
    aside: str | None = None


class Way(Protocol):
    """Leads to a destination root. `name`: the root for people, without secrets."""

    name: str

    def chosen(self) -> FarSide:
        """Return how the root is reached; found out at the first question, where that must be. Raises: TransportError."""
        ...

    def nature(self) -> Nature:
        """Return what the root lies on. Raises: DestinationUnreachableError."""
        ...

    def close(self) -> None:
        """End what runs between calls. May be called twice; a later call begins again."""
        ...


class FarSide(Way, Protocol):
    """One way to one destination root. Paths are POSIX and relative to it, and were checked by the caller.

    Verbs raise errors of errors.py, or of `foreign`, which `translated` and `away` turn into such. All may be called from any
    thread, and again after a crash. No link below the root is ever followed, neither to read nor to write, as far as the way can
    tell. What is read is asked of the NAS again, past the caches of this machine. What a verb wrote is durable when it
    returns, as far as the way can make it so, but for the names of what was sent, which `sync` makes durable.
    """

    likely_cause: str
    """The sentence for operators that most often explains a root that is not as it was."""
    foreign: tuple[type[Exception], ...] = ()
    can: Capabilities

    def chosen(self) -> FarSide:
        return self

    # --- errors ------------------------------------------------------------------------------------------------------

    def translated(self, error: Exception, doing: str) -> TransportError:
        """Return what an error of `foreign` means for a push. `doing` begins the sentence, without its stop."""
        return TransportError(FailureKind.UNKNOWN, f"{doing}: {error}.")

    def away(self, error: Exception) -> str:
        """Return the sentence of an error (`foreign` or TransportError) for an operator whose lane waits for the root."""
        return cannot_be_used(self, str(error).rstrip("."))

    # --- the root ----------------------------------------------------------------------------------------------------

    def check_tools(self) -> tuple[str, ...]:
        """As ports.Transport says."""
        ...

    def require_root(self) -> None:
        """Return when the root is there; asked where a missing marker does not tell. Most ways have nothing more to ask."""
        return

    def below(self, folder: str) -> Below | None:  # noqa: ARG002
        """As ports.Transport says; most ways see a server's folders and not what they lie on."""
        return None

    def free_bytes(self) -> int | None:
        """Return the free space of the root, None where it cannot be told."""
        ...

    def top_names(self) -> Iterable[str] | None:
        """Return the names directly in the root, None where they cannot be told."""
        return None

    def exchange(self, path: str, data: bytes, *, mtime_ns: int, while_there: Callable[[], None] | None) -> Exchanged:
        """Write a probe file over what has its name, read it back, and remove it if that can be.

        `mtime_ns`: the time it is to have, whole seconds. `while_there` is called while it is there; what it raises is raised.
        """
        ...

    # --- what is there -----------------------------------------------------------------------------------------------

    def look(self, folder: str) -> FolderLook:
        """Return what a run's folder says of itself; an absent one is empty."""
        ...

    def list(self, folder: str, control: Control) -> Listing:
        """Return what is below a run's folder; nothing where it is absent."""
        ...

    def lag(self) -> Lag:
        """Return for how long a listing may be behind what was pushed; with most ways it never is."""
        return NO_LAG

    def read_own(self, path: str) -> bytes | None:
        """Return a small file of the agent's (OWN_FILE_BYTES_MAX at most), None where there is none.

        The folders above it are the agent's own, so no way need ask whether one of them is a link.
        """
        ...

    def read_below(self, folder: str, path: str, limit_bytes: int) -> bytes | None:
        """Return at most so many bytes of the file `path` below `folder`, None where there is none (a link is none)."""
        ...

    def read_several(self, folder: str, paths: Sequence[str], limit_bytes: int) -> dict[str, bytes]:
        """Return path → bytes as `read_below` does, of those that are there; asked in fewer calls where one costs something."""
        found = {path: self.read_below(folder, path, limit_bytes) for path in paths}
        return {path: data for path, data in found.items() if data is not None}

    def sees_any(self, paths: Sequence[str]) -> bool | None:  # noqa: ARG002
        """Return whether any of these files is there, asked in one call; None where they must be read one after the other."""
        return None

    def samples(self, folder: str, files: Sequence[FileEntry], control: Control) -> dict[str, str]:
        """As ports.Transport says; only asked where ranges can be read."""
        ...

    def read_back(self, folder: str, paths: Sequence[str], control: Control) -> ReadBack:
        """As ports.Transport says."""
        ...

    def hashes_any_size(self) -> bool:
        """Whether a file of any size may be hashed, since its bytes need not be fetched for it by a tool."""
        ...

    # --- writing -----------------------------------------------------------------------------------------------------

    def put_new(self, path: str, data: bytes, *, temporary: str, is_lasting: bool) -> bool:
        """Write a small file where there is none, whole at once; return whether there was none, as far as the way can tell.

        What is there stays.

        `temporary`: a path for it to wait under, for ways that rename; what has that name is of ours, and may go. The folder of a
        claim's is made, and goes when it is empty. `is_lasting`: else the name may become durable with the next `sync`.
        """
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write a small file of the agent's over what has its name, whole at once; missing folders are made."""
        ...

    def replace(
        self,
        source_root: str,
        files: Sequence[FileEntry],
        folder: str,
        *,
        control: Control,
        instead: Mapping[str, bytes],
    ) -> None:
        """Copy the files as ports.Transport says, over whatever is there; at least one file."""
        ...

    def require_fit(self, folder: str, files: Sequence[FileEntry]) -> None:  # noqa: ARG002
        """Return when this way can carry these names, unchanged and beside each other, into this folder. Most can."""
        return

    def send(self, shipment: Shipment) -> None:
        """Copy data files, each under its final name only when whole, with its time; what has a name is never replaced."""
        ...

    def sync(self, folder: str) -> None:  # noqa: ARG002
        """Make everything below a run's folder durable, names included, whichever push left it; most ways are done by then."""
        return

    def present(self, folder: str, paths: Sequence[str]) -> Sequence[str]:
        """Return those of these names that exist, whatever has them. Raises: TransportError for one that could not be moved."""
        ...

    def new_numbered(self, parent: str) -> str:
        """Return the first numbered folder below `parent` that was not there, made by us alone where that can be."""
        ...

    def move(self, from_folder: str, to_folder: str, paths: Sequence[str]) -> None:
        """Move files to names that nothing has. A name that is gone is skipped. Raises: TransportError for one that stays."""
        ...

    def clear_partials(self, folder: str) -> None:
        """As ports.Transport says."""
        ...


def cannot_be_used(far: FarSide, why: str, *, cause: str = "") -> str:
    """Return the sentence for an operator of a root that is not as it was. `cause`: where another one is likelier than usual."""
    return f"The destination {far.name} cannot be used: {why}. {cause or far.likely_cause}"


def holds_nothing(names: Iterable[str], names_in_cache: Callable[[], Collection[str]]) -> bool:
    """Say whether a run's folder holds nothing but what a push of ours leaves that was stopped at once.

    `names_in_cache` is asked only where the cache folder is all that there is.
    """
    found = set(names) - {PARTIAL_FOLDER}
    return not found or (found == {CACHE_FOLDER} and not names_in_cache())
