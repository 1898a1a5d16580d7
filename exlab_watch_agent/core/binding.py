"""The first acceptance of a destination root: which roots are bound without a question, and which an operator is asked about.

Decided here: the rule and its words. Not here: what a root lies on (each transport's `nature`), the marker that a bound root
carries (adapters/transports/marked_root.py), and who is asked (cli/binding.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from exlab_watch_agent.errors import DestinationUnboundError

BY_ITSELF = "itself"


@dataclass(frozen=True, slots=True)
class Nature:
    """What a destination root lies on.

    `kind`: the file system or the way, as people know it; `source`: the device or server behind it; `elsewhere`: why it is
    shown to be another place than this PC, empty where nothing shows it.
    """

    kind: str
    source: str
    elsewhere: str = ""

    def __str__(self) -> str:
        return f"{self.kind} ({self.source})" if self.source else self.kind


@dataclass(frozen=True, slots=True)
class Binding:
    """A root's marker, and who accepted it: `itself`, or an operator. Empty: the first version, which asked nobody."""

    marker_id: str
    accepted_by: str = ""


def marker_key(equipment_id: str, destination: str) -> str:
    """Return the name under which the state keeps an equipment's destination root; `destination` as its transport says it."""
    return f"{equipment_id} {destination}"


def accepted(binding: Binding | None) -> str | None:
    """Return the marker's id where the root was accepted, None where it still must be."""
    return binding.marker_id if binding is not None and binding.accepted_by else None


def must_ask(equipment_id: str, destination: str, nature: Nature) -> DestinationUnboundError:
    """Return the error for a root about which an operator must be asked: why, and by which command."""
    command = f"exlab-watch-agent bind {equipment_id}"
    text = (
        f"the destination {destination} lies on {nature}, and nothing shows that this is a place other than this PC: if it is "
        f"the right one, say so once with `{command}`"
    )
    return DestinationUnboundError(text, command=command)


def marker_gone(equipment_id: str, destination: str) -> DestinationUnboundError:
    """Return the error for a bound root that has lost its marker, and still has sealed copies of ours."""
    command = f"exlab-watch-agent bind {equipment_id}"
    text = (
        f"the marker of the destination {destination} is gone, and sealed copies of this agent's are still there: if it is the "
        f"right one, have the marker put back with `{command}`; everything there is then proven anew"
    )
    return DestinationUnboundError(text, command=command, code="marker_gone")
