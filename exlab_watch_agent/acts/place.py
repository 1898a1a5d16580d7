"""Looks for a run's copy at the places where it may be. Reads only."""

from __future__ import annotations

from dataclasses import replace

from exlab_watch_agent.acts.copy import holder_at_work, is_our_seal
from exlab_watch_agent.core.claim import Claim, DestinationLook, DestinationStanding, standing
from exlab_watch_agent.core.effects import Admit
from exlab_watch_agent.core.inventory import Inventory
from exlab_watch_agent.core.places import Found, Held, SeenPlace, held_at, may_be_left, nested_in, place_of_copy
from exlab_watch_agent.errors import TransportError
from exlab_watch_agent.ports import Ports

_NOTHING_KNOWN = DestinationLook(is_empty=False, claim=None, identity=None)


def find_place(effect: Admit, inventory: Inventory, ports: Ports) -> Found:
    """Return which place a run has and whose that is: one look where it is decided, else at most three and two listings.

    A place that cannot be asked is `UNASKED`: the push asks again, and meets the same error in its own words.
    """
    place = effect.destination
    looks: dict[str, DestinationLook] = {}
    mine = ports.agent.signed(effect.claim)
    try:
        for place in (effect.destination, *effect.others):
            if not any(place.startswith(f"{above}/") for above, look in looks.items() if look.is_empty):
                looks[place] = ports.transport.look(place)
        if effect.others:
            seen: list[SeenPlace] = []
            for place, look in looks.items():
                held, is_ours = _held(place, looks, inventory, ports), is_our_seal(look, ports, effect.manifest_digest)
                seen.append(SeenPlace(place, look, held, is_our_seal=is_ours))
            found = place_of_copy(seen, mine)
        else:
            look = looks[place]
            where = standing(look, mine, is_our_seal=is_our_seal(look, ports, effect.manifest_digest))
            found = Found(place, where, look)
        place = found.destination
        if found.standing is DestinationStanding.CLAIMED_BY_OTHER_AGENT:
            at_work = holder_at_work(found.look, ports) if found.look.sealed_as else None
            if at_work is not None and not at_work.is_so:
                return replace(found, standing=DestinationStanding.ADOPTABLE)
            return found if at_work is None else replace(found, sign_fault=at_work.fault)
        if effect.is_shown and _is_unclaimed(found, mine):
            return replace(found, standing=DestinationStanding.LEFT_THERE)
    except TransportError:
        return Found(place, DestinationStanding.UNASKED, _NOTHING_KNOWN)
    return found


def _is_unclaimed(found: Found, mine: Claim) -> bool:
    """Whether the claim that was placed on a copy is not there any more: then it is proven anew, whatever was shown of it."""
    look = found.look
    return look.claim is None and not look.is_empty and look.identity in (None, mine.identity)


def _held(place: str, looks: dict[str, DestinationLook], inventory: Inventory, ports: Ports) -> Held | None:
    """Return what data files are at a place where nobody's claim says it, None where nothing needs to be listed."""
    look = looks[place]
    if look.is_empty or look.claim is not None or not may_be_left(place):
        return None
    within = looks.get(nested_in(place))
    there = {path: file.size_bytes for path, file in ports.transport.listing(place).items()}
    sizes = {entry.path: entry.size_bytes for entry in inventory.files}
    return held_at(sizes, there, below=place if within is not None and not within.is_empty else "")
