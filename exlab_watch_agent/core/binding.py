"""The acceptance of a destination root: which roots are bound without a question, which an operator is asked about, and which are
another place than the one that was bound.

Decided here: the rules and their words. An equipment has one binding at a time: a marker's id, and under which spelling (the way,
the host and the path, as the transport says them) it was accepted. Not here: what a root lies on (each transport's `nature`), the
marker that a bound root carries (adapters/transports/destination.py), and who is asked (cli/binding.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from exlab_watch_agent.errors import NAS_UNREACHABLE, DestinationUnboundError, DestinationUnreachableError

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
    """The marker of an equipment's root, who accepted it, and under which spelling of the root that was.

    `accepted_by`: `itself`, or an operator. Empty: the first version, which asked nobody.
    """

    marker_id: str
    accepted_by: str = ""
    spelling: str = ""


def marker_key(equipment_id: str, spelling: str) -> str:
    """Return the name under which the trail tells of an equipment's destination root."""
    return f"{equipment_id} {spelling}"


def split_key(root: str) -> tuple[str, str]:
    """Return equipment id and spelling of such a name."""
    equipment_id, _, spelling = root.partition(" ")
    return equipment_id, spelling


def accepted(binding: Binding | None, spelling: str) -> str | None:
    """Return the marker's id where the root of this spelling was accepted, None where it still must be."""
    is_accepted = binding is not None and binding.accepted_by and binding.spelling == spelling
    return binding.marker_id if binding is not None and is_accepted else None


class RootStanding(Enum):
    """What a root that answers is to an equipment.

    `FIRST`: nothing was bound before. `BOUND`: the root that was accepted. `UNACCEPTED`: the marker is the known one, and nobody
    was asked yet. `RESPELLED`: the accepted marker, under another spelling, host or way: the same destination, or a copy of it,
    so it is bound without a question and all that was proven is proven anew. `UNMARKED`: the spelling is the bound one, and no
    marker is there: a share that is not mounted, or a marker that is gone. `ANOTHER`: the same with another marker.
    `CHANGED`: the config names a root that has another marker, or none.
    """

    FIRST = auto()
    BOUND = auto()
    UNACCEPTED = auto()
    RESPELLED = auto()
    UNMARKED = auto()
    ANOTHER = auto()
    CHANGED = auto()


def standing_of(known: Binding | None, *, spelling: str, found: str | None) -> RootStanding:
    """Return what the root of this spelling is, with the marker `found` there (None: there is none)."""
    if known is None:
        return RootStanding.FIRST
    is_same_spelling = known.spelling == spelling
    if found == known.marker_id:
        if not known.accepted_by:
            return RootStanding.UNACCEPTED
        return RootStanding.BOUND if is_same_spelling else RootStanding.RESPELLED
    if not is_same_spelling:
        return RootStanding.CHANGED
    return RootStanding.UNMARKED if found is None else RootStanding.ANOTHER


def is_bound_without_asking(standing: RootStanding, nature: Nature) -> bool:
    """Return whether a root is taken for the destination without an operator's word: a known marker, or another machine."""
    match standing:
        case RootStanding.BOUND | RootStanding.RESPELLED:
            return True
        case RootStanding.FIRST | RootStanding.UNACCEPTED:
            return bool(nature.elsewhere)
        case RootStanding.UNMARKED | RootStanding.ANOTHER | RootStanding.CHANGED:
            return False


# --- mounts below the root ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Below:
    """What a first folder below a root lies on: a mount of its own with this type and source, or the root's file system (empty).

    Device numbers are not kept: they change at each reboot.
    """

    kind: str = ""
    source: str = ""

    @property
    def is_mount(self) -> bool:
        """Whether it is a mount of its own, and the one that it should be: an automount that did not come is not."""
        return self.kind not in ("", AUTOMOUNT)

    def __str__(self) -> str:
        return f"{self.kind} {self.source}".rstrip()


AUTOMOUNT = "autofs"


class BelowChange(Enum):
    """What is to follow from what a first folder lies on now.

    `NOTHING`; `LEARN`: it is a mount that was not known, or another one, so what was proven there before was proven elsewhere;
    `AWAY`: a mount that is known is not there, and what is written there would be hidden by it later.
    """

    NOTHING = auto()
    LEARN = auto()
    AWAY = auto()


def below_change(known: Below | None, now: Below | None) -> BelowChange:
    """Return what follows. `known`: the mount that is known there, if any; `now`: None where that cannot be told."""
    if now is None:
        return BelowChange.NOTHING
    if not now.is_mount:
        is_away = known is not None or now.kind == AUTOMOUNT
        return BelowChange.AWAY if is_away else BelowChange.NOTHING
    return BelowChange.NOTHING if now == known else BelowChange.LEARN


def first_folder(destination: str) -> str:
    """Return the first folder below the root on the way to a run's copy: in the layout `mirror` its project's."""
    return destination.partition("/")[0]


# --- words --------------------------------------------------------------------------------------------------------------


def bind_command(equipment_id: str) -> str:
    return f"exlab-watch-agent bind {equipment_id}"


def replace_command(equipment_id: str) -> str:
    return f'exlab-watch-agent bind {equipment_id} --replace --reason "..."'


def must_ask(equipment_id: str, destination: str, nature: Nature) -> DestinationUnboundError:
    """Return the error for a root about which an operator must be asked: why, and by which command."""
    command = bind_command(equipment_id)
    text = (
        f"the destination {destination} lies on {nature}, and nothing shows that this is a place other than this PC: if it is "
        f"the right one, say so once with `{command}`"
    )
    return DestinationUnboundError(text, command=command)


def marker_gone(equipment_id: str, destination: str) -> DestinationUnboundError:
    """Return the error for a bound root that has lost its marker, and still has sealed copies of ours."""
    command = bind_command(equipment_id)
    text = (
        f"the marker of the destination {destination} is gone, and sealed copies of this agent's are still there: if it is the "
        f"right one, have the marker put back with `{command}`; everything there is then proven anew"
    )
    return DestinationUnboundError(text, command=command, code="marker_gone")


def mount_away(equipment_id: str, spelling: str, folder: str, known: Below | None) -> DestinationUnreachableError:
    """Return the error for a folder below the root that was a mount, and is a plain folder now; or whose automount did not come."""
    what = (
        f"was a mount of its own ({known}) and is none now"
        if known is not None
        else "is an automount that does not come"
    )
    text = (
        f"the folder {folder} at the destination {spelling} {what}: a copy would go to where the mount hides it later. Mount it "
        f"again; if it is right as it is, say so with `{replace_command(equipment_id)}`"
    )
    return DestinationUnreachableError(text)


def another_root(equipment_id: str, destination: str, known: Binding) -> DestinationUnboundError:
    """Return the error for a root that is another than the bound one, by its marker or because the config names another.

    At the bound spelling it may as well be a wrong share that was mounted there: "NAS unreachable", as without a marker.
    """
    command = replace_command(equipment_id)
    is_same_spelling = known.spelling == destination
    bound = (
        "belongs to another destination than the one that was bound"
        if is_same_spelling
        else f"is not the one that {equipment_id} was bound to ({known.spelling})"
    )
    subject = f"the marker at {destination}" if is_same_spelling else f"the destination {destination}"
    text = (
        f"{subject} {bound}: if the NAS was replaced by this one, say so with `{command}`; all runs are then proven there or "
        "pushed anew. Else mount the right share, or put the config right"
    )
    code = NAS_UNREACHABLE.code if is_same_spelling else "destination_unbound"
    return DestinationUnboundError(text, command=command, code=code)
