"""A destination root's marker and its runs' claims: one procedure for every transport.

Decided here: in which order marker and claims are read, placed and read again, and what is said when they are not those
that are expected. Not here: how a small file gets there and back (each transport), how they are spelled (own_files.py),
and what a claim means (core/destination.py).
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar

from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK, PausingClock
from exlab_watch_agent.adapters.transports.shared.own_files import (
    MARKER_FILE,
    anchor_in,
    claim_in,
    claim_text,
    holder_in,
    marker_id_in,
    marker_text,
    new_marker_id,
    require_inside,
    sealed_as,
)
from exlab_watch_agent.core.claim import CLAIM_PATH, Claim, DestinationLook, conflict_at, standing
from exlab_watch_agent.core.creation import identity_in, says_synced
from exlab_watch_agent.errors import (
    DestinationOccupiedError,
    DestinationUnreachableError,
    FailureKind,
    MarkerMissingError,
    TransportError,
)

WhileThere = Callable[[str, bytes], None]


class MarkedRoot(ABC):
    """The members of ports.Transport that are about marker and claims. `name`: the root for people, without secrets.

    `settle_s`: where nothing is created exclusively, for how long another agent may still write over a marker of ours.
    """

    LIKELY_CAUSE: ClassVar[str] = "Its disk or share may not be mounted there."
    """The sentence for operators that most often explains a root that is not as it was."""

    def __init__(self, name: str, *, clock: PausingClock = SYSTEM_CLOCK, settle_s: float = 0.0) -> None:
        self._name = name
        self._clock = clock
        self._settle_s = settle_s
        self._claims: dict[str, Claim] = {}

    def describe(self) -> str:
        return self._name

    # --- what each transport says of itself --------------------------------------------------------------------------

    @abstractmethod
    def _read_own(self, path: str) -> bytes | None:
        """Return one small file of the agent as the NAS has it now, None where there is none."""

    @abstractmethod
    def _place_marker_file(self, data: bytes) -> None:
        """Write the marker where there is none; one that exists stays, as far as the way there can tell."""

    @abstractmethod
    def _place_claim_file(self, destination: str, data: bytes) -> None:
        """Write the claim where there is none; one that exists stays, as far as the way there can tell."""

    @abstractmethod
    def _exchange_a_nonce(self, while_there: WhileThere | None = None) -> bool:
        """Write and read back a few bytes; return False where there was no room for them.

        `while_there` is called with the path of the file below the root and its bytes while it is there.
        """

    def _require_folder(self) -> None:  # noqa: B027 (most have nothing more to ask)
        """Return when the root is there; asked where a missing marker does not tell."""

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """Turn whatever keeps the root from answering into a DestinationUnreachableError."""
        try:
            yield
        except TransportError as error:
            raise DestinationUnreachableError(self._away(str(error).rstrip("."))) from error

    @contextlib.contextmanager
    def _answering(self, doing: str, path: str) -> Iterator[None]:  # noqa: ARG002
        """The border: `path` must lie below the root, and what goes wrong becomes a TransportError."""
        require_inside(path)
        yield

    # --- is it there -------------------------------------------------------------------------------------------------

    def bind(self, *, known_marker_id: str | None = None) -> str:
        with self._reached():
            found = self._expected_marker(known_marker_id)
            self._exchange_a_nonce()
            return found or self._place_marker()

    def put_marker_back(self, marker_id: str) -> None:
        with self._reached():
            self._require_folder()
            if self._marker_id() is None:
                self._place_marker_file(marker_text(marker_id))
                self._clock.pause(self._settle_s)
            self._expected_marker(marker_id)

    def probe(self, *, expected_marker_id: str | None) -> None:
        with self._reached():
            self._require_marker(expected_marker_id)
            self._exchange_a_nonce()  # a full share has answered too, and is left for the push to name

    def require_marker(self, *, expected_marker_id: str | None) -> None:
        with self._reached():
            self._require_marker(expected_marker_id)

    def round_trip(self, while_there: WhileThere | None = None) -> None:
        with self._reached():
            self._require_folder()
            if not self._exchange_a_nonce(while_there) and while_there is not None:
                raise DestinationUnreachableError(
                    f"{self._name} has no room even for a probe file: make room on the NAS."
                )

    def top_names(self) -> tuple[str, ...] | None:
        return None

    def _away(self, why: str) -> str:
        return f"The destination {self._name} cannot be used: {why}. {self.LIKELY_CAUSE}"

    def _require_marker(self, expected_marker_id: str | None) -> None:
        if expected_marker_id is None:
            raise DestinationUnreachableError(
                f"The destination {self._name} cannot be used: no marker is known for it yet; the next probe reads or places one."
            )
        self._expected_marker(expected_marker_id)

    def _expected_marker(self, expected_marker_id: str | None) -> str | None:
        """Return the id in the marker, None where there is none and none is expected. Raises: DestinationUnreachableError."""
        found = self._marker_id()
        if found is None:
            self._require_folder()
        if found is None and expected_marker_id is not None:
            raise MarkerMissingError(self._away(f"the marker {MARKER_FILE} is missing"))
        if expected_marker_id not in (None, found):
            raise DestinationUnreachableError(self._away(f"the marker {MARKER_FILE} belongs to another destination"))
        return found

    def _marker_id(self) -> str | None:
        data = self._read_own(MARKER_FILE)
        found = None if data is None else marker_id_in(data)
        if data is not None and found is None:
            raise DestinationUnreachableError(self._away(f"the marker {MARKER_FILE} is damaged"))
        return found

    def _place_marker(self) -> str:
        """Place a new marker, or adopt the one that another agent places at this moment; return the id that is there then."""
        self._place_marker_file(marker_text(new_marker_id()))
        if self._settle_s:
            # Others may have seen no marker either: whose name came last is seen by all once they have all written.
            self._clock.pause(self._settle_s)
        found = self._marker_id()
        if found is None:
            raise DestinationUnreachableError(
                self._away(f"the marker {MARKER_FILE} was written and could not be read back")
            )
        return found

    # --- whose is it -------------------------------------------------------------------------------------------------

    def place_claim(self, destination: str, claim: Claim) -> None:
        with self._answering("Cannot claim", destination):
            there = self._claim_at(destination)
            if there is None:
                self._place_claim_file(destination, claim_text(claim))
                there = self._claim_at(destination)
            self._require_claim(destination, claim, there)
            self._claims[destination] = claim

    def _require_own_claim(self, destination: str) -> None:
        """Return when the claim that was placed last is still there: for ways by which nothing is created exclusively."""
        claim = self._claims.get(destination)
        if claim is not None:
            self._require_claim(destination, claim, self._claim_at(destination))

    def _require_claim(self, destination: str, claim: Claim, there: DestinationLook | None) -> None:
        if there is None:
            # It was placed a moment ago, or earlier: a share that went away looks like this.
            raise TransportError(
                FailureKind.UNKNOWN,
                f"the claim that was written to {destination!r} at {self._name} could not be read back.",
            )
        where = f"{destination!r} at {self._name}"
        conflict = conflict_at(standing(there, claim), where, holder=there.holder, is_sealed=False)
        if conflict is not None:
            raise DestinationOccupiedError(conflict.message, kind=conflict.kind)

    def _claim_at(self, destination: str) -> DestinationLook | None:
        """Return whose the folder is by its claim alone, None where there is none. Raises: DestinationOccupiedError."""
        data = self._read_own(f"{destination}/{CLAIM_PATH}")
        if data is None:
            return None
        found = look_of(destination, claim=data, creation=None)
        if found.claim is None:
            text = f"{destination!r} at {self._name}: {CLAIM_PATH} cannot be read, so nobody knows whose folder it is."
            raise DestinationOccupiedError(text)
        return found


NOTHING_THERE = DestinationLook(is_empty=True, claim=None, identity=None)


def look_of(
    destination: str, *, claim: bytes | None, creation: bytes | None, is_empty: bool = False
) -> DestinationLook:
    """Return whose folder it is, from the bytes of its claim and of its `creation.json`, None where there is none."""
    proven_as = "" if claim is None else sealed_as(claim)
    is_synced = creation is not None and says_synced(creation)
    return DestinationLook(
        is_empty=is_empty,
        claim=None if claim is None else claim_in(claim),
        identity=None if creation is None else identity_in(creation, folder_name=destination.rpartition("/")[2]),
        is_sealed=bool(proven_as) or is_synced,
        holder="" if claim is None else holder_in(claim),
        says_synced=is_synced,
        sealed_as=proven_as,
        anchor=None if claim is None else anchor_in(claim),
    )
