"""What `check` and `bind` find out: is everything there that the agent will need, and what is a destination?

Config, folders, limits of the system, and each destination with a probe file of its own. What is found is said in sentences
with the next step in them; cli/ prints them. Of instruments, their folders and their destinations only what was found is
this module's; what needs a person of it is core/attention.py's judgement, as everywhere else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from exlab_watch_agent.acts.probe import ask_standing
from exlab_watch_agent.acts.replace_destination import is_short_here
from exlab_watch_agent.adapters.apartness import ProbedApartness
from exlab_watch_agent.adapters.local.cache_folder import FolderManifestStore
from exlab_watch_agent.adapters.local.mounts import is_shared, kind_of
from exlab_watch_agent.adapters.local.overlaps import linked_overlaps, misplaced_state_folder
from exlab_watch_agent.adapters.local.scanner import DiskRunScanner, equipment_root
from exlab_watch_agent.adapters.local.tree import DiskRunTree
from exlab_watch_agent.adapters.state.folder import require_private
from exlab_watch_agent.adapters.state.folder_facts import mounts_in
from exlab_watch_agent.adapters.state.layout import StateLayout
from exlab_watch_agent.adapters.watching.limits import judged, read_limits, watches_for
from exlab_watch_agent.app import offline
from exlab_watch_agent.app.agent import Agent
from exlab_watch_agent.app.build import Scope, make_transport
from exlab_watch_agent.app.site import Site, operator_here, wizards_config_path
from exlab_watch_agent.core.attention import NO_EQUIPMENT, Situation, of_places
from exlab_watch_agent.core.binding import (
    BelowChange,
    Binding,
    Nature,
    RootStanding,
    below_change,
    bind_command,
    is_bound_without_asking,
    mount_away,
    must_ask,
)
from exlab_watch_agent.core.commands import BindDestination, ReplaceDestination
from exlab_watch_agent.core.decide import sealed_run_of
from exlab_watch_agent.core.misplaced import MISPLACED
from exlab_watch_agent.core.policy import EquipmentPolicy, ObserverMode
from exlab_watch_agent.core.problem import Problem
from exlab_watch_agent.core.snapshot import FolderProblem, LaneView, Snapshot
from exlab_watch_agent.core.standing import NeverRan, moment_of
from exlab_watch_agent.core.text import counted, human_bytes, printable
from exlab_watch_agent.engine.messages import Answer
from exlab_watch_agent.errors import (
    AgentError,
    DestinationUnreachableError,
    ForeignMarkerError,
    MarkerMissingError,
    Wait,
)
from exlab_watch_agent.ports import Transport
from exlab_watch_agent.statechart import RunState

Line = tuple[bool, str]
"""Whether all is well with it, and a sentence."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found. `lines`: of what only it asks for; `problems`: what needs a person, as it is judged everywhere."""

    lines: tuple[Line, ...]
    problems: tuple[Problem, ...]


@dataclass
class _Found:
    """What a fresh look found of the instruments, for the judgement. All by equipment id, but for `misplaced`: by path."""

    roots_away: dict[str, str] = field(default_factory=dict)
    misplaced: dict[str, FolderProblem] = field(default_factory=dict)
    destinations_away: dict[str, tuple[str, Wait]] = field(default_factory=dict)


def check(site: Site) -> Checked:
    """Return what is found. Raises: ConfigError."""
    found = _Found()
    settings = site.settings
    beside = f", with ExLab-Wizard's {settings.wizard_config}" if settings.wizard_config is not None else ""
    lines: list[Line] = [(True, f"config {settings.path}{beside}: {len(site.policy.equipment)} equipment")]
    lines += [(True, note) for note in settings.notes]
    if not site.policy.equipment:
        lines.append((False, NO_EQUIPMENT))
    theirs = wizards_config_path()
    if theirs.exists() and not any(os.path.samefile(theirs, path) for path in settings.files if path.exists()):
        lines.append(
            (True, f"ExLab-Wizard's config {theirs} is not used; `wizard_config: {theirs}` in a file of ours would")
        )
    lines += [(False, text) for text in linked_overlaps(site.policy)]
    lines += _check_state_dir(site)
    watches_needed = 1  # the inbox
    for equipment in site.policy.equipment:
        watches, root_lines = _check_root(equipment, site, found)
        watches_needed += watches
        lines += root_lines
        lines += _check_destination(equipment, site, found)
    is_native = any(equipment.observer is not ObserverMode.POLLING for equipment in site.policy.equipment)
    if is_native:
        lines += judged(watches_needed, len(site.policy.equipment), read_limits())
    if site.policy.cleanup.is_enabled:
        lines.append((True, "nas_cleanup is enabled, but this version never removes local data: runs stay verified"))
    return Checked(tuple(lines), _judged(site, found))


def _judged(site: Site, found: _Found) -> tuple[Problem, ...]:
    """Return what needs a person of what was found now, and of the folders that an agent or a fresh look knows."""
    try:
        known = offline.known_now(site)
    except AgentError:  # the state folder cannot be read, which is said already
        known = Snapshot()
    lanes = {}
    for equipment in site.policy.equipment:
        equipment_id = equipment.equipment_id
        lane = replace(known.lanes.get(equipment_id, LaneView()), waiting_since=None, seen_earlier=None)
        if (away := found.destinations_away.get(equipment_id)) is not None:
            since = known.lanes.get(equipment_id, lane).waiting_since or site.now()
            reason, wait = away
            lane = replace(
                lane,
                waiting_since=since,
                waiting_reason=reason,
                waiting_kind=wait.code,
                waiting_command=wait.command,
            )
        lanes[equipment_id] = lane
    others = {path: folder for path, folder in known.path_problems.items() if folder.code != MISPLACED}
    snapshot = replace(
        known,
        lanes=lanes,
        roots_away={**known.roots_away, **found.roots_away},
        path_problems={**others, **found.misplaced},
    )
    return of_places(_situation(site, snapshot))


def _situation(site: Site, snapshot: Snapshot) -> Situation:
    try:
        return offline.situation_of(site, snapshot)
    except AgentError:  # the state folder cannot be read, which is said already
        agent = NeverRan()
        return Situation(
            moment_of(agent, site.now()), agent, (), snapshot, site.policy, frozenset(site.roots), flags=site.flags
        )


def _check_state_dir(site: Site) -> Iterator[Line]:
    folder = site.state_dir
    parent = folder
    while not parent.exists():
        parent = parent.parent
    if misplaced := misplaced_state_folder(str(folder), site.policy):
        yield False, misplaced
        return
    try:
        require_private(folder)
    except AgentError as error:
        yield False, str(error)
        return
    if parent.is_dir() and os.access(parent, os.W_OK):
        yield True, f"state folder {folder}"
    else:
        yield False, f"state folder {folder} cannot be written: give another --state-dir or agent.state_dir"
    kind = kind_of(str(parent))
    if is_shared(kind):
        text = f"state folder {folder} lies on a network mount ({kind}), where locks and fsync may not be reliable"
        yield True, f"{text}: a folder on a local disk is safer"
    if site.holder is not None:
        yield True, f"an agent is using it, pid {site.holder.pid or '?'}"


def _check_root(equipment: EquipmentPolicy, site: Site, found: _Found) -> tuple[int, list[Line]]:
    """Return how many folders are to be watched there, and what to say."""
    root, scanner = equipment_root(equipment), DiskRunScanner()
    try:
        runs = scanner.scan(equipment)
    except AgentError as error:
        found.roots_away[equipment.equipment_id] = str(error)
        return 0, []
    misplaced = scanner.misplaced(equipment, runs, site.policy)
    found.misplaced |= {printable(path): folder for path, folder in misplaced.items()}
    lines: list[Line] = [(True, f"{equipment.equipment_id}: {counted(len(runs), 'run folder')} below {root}")]
    kind = kind_of(root)
    if equipment.observer is ObserverMode.AUTO and is_shared(kind):
        lines.append(
            (True, f"{equipment.equipment_id}: {root} is on {kind}, so it is looked through every few seconds")
        )
        return 0, lines
    if equipment.observer is ObserverMode.POLLING:
        return 0, lines
    return watches_for(runs), lines


def _check_destination(equipment: EquipmentPolicy, site: Site, found: _Found) -> Iterator[Line]:
    transport = None
    try:
        transport = make_transport(equipment, site.policy)
        for note in transport.check_tools():
            yield True, f"{equipment.equipment_id}: {note}"
        yield True, f"{equipment.equipment_id}: {_binding(equipment, transport, site)}"
        ProbedApartness(equipment, transport, site.clock, site.policy.equipment).require_root(is_first=True)
        free_bytes = transport.free_bytes()
    except DestinationUnreachableError as error:
        found.destinations_away[equipment.equipment_id] = str(error), error.wait
        return
    except AgentError as error:  # a program that is missing, a platform that does not have the way
        yield False, f"{equipment.equipment_id}: {error}"
        return
    finally:
        if transport is not None:
            transport.close()
    room = f", {human_bytes(free_bytes)} free" if free_bytes is not None else ""
    yield True, f"{equipment.equipment_id}: {transport.describe()} was written, read back and cleared{room}"


def _binding(equipment: EquipmentPolicy, transport: Transport, site: Site) -> str:
    """Return whether the destination is bound, or will be and why. Writes nothing. Raises: DestinationUnreachableError."""
    equipment_id, destination = equipment.equipment_id, transport.describe()
    known = site.binding(equipment_id, destination)
    standing = ask_standing(transport, known, equipment_id)
    if standing is RootStanding.BOUND:
        for folder, mount in mounts_in(site.loaded.facts, equipment_id, destination).items():
            if below_change(mount, transport.below(folder)) is BelowChange.AWAY:
                raise mount_away(equipment_id, destination, folder, mount)
        return f"{destination} is bound"
    nature = transport.nature()
    if not is_bound_without_asking(standing, nature):
        raise must_ask(equipment_id, destination, nature)
    if standing is RootStanding.RESPELLED and known is not None:
        return f"{destination} will bind by itself, because it has the marker of {known.spelling}; all there is proven anew"
    return f"{destination} will bind by itself, because {nature.elsewhere}"


# --- binding ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unbound:
    """What an operator is shown of a destination before it is bound. None: unknown.

    `top_names`: what is directly in its root, sorted. `is_marker_gone`: the marker that is known is not there. `binds_by_itself`:
    nobody need be asked.
    """

    nature: Nature
    free_bytes: int | None
    top_names: tuple[str, ...] | None
    is_marker_gone: bool = False
    binds_by_itself: bool = False


@dataclass(frozen=True, slots=True)
class DestinationSeen:
    """A destination as people know it; `unbound` is None where it is bound already, and is the one that was bound."""

    destination: str
    unbound: Unbound | None


def look_at_destination(site: Site, equipment: EquipmentPolicy) -> DestinationSeen:
    """Return what a destination is, without writing there. Raises: AgentError."""
    transport = make_transport(equipment, site.policy)
    try:
        destination = transport.describe()
        _require_same_place(site, equipment.equipment_id, destination)
        is_marker_gone = binds_by_itself = False
        try:
            standing = ask_standing(
                transport, site.binding(equipment.equipment_id, destination), equipment.equipment_id
            )
            if standing is RootStanding.BOUND:
                return DestinationSeen(destination, None)
            binds_by_itself = is_bound_without_asking(standing, transport.nature())
        except MarkerMissingError:
            is_marker_gone = True
        unbound = _unbound(transport, is_marker_gone=is_marker_gone, binds_by_itself=binds_by_itself)
        return DestinationSeen(destination, unbound)
    finally:
        transport.close()


def _require_same_place(site: Site, equipment_id: str, destination: str) -> None:
    """Return where what is shown here is what a running agent would bind. Raises: AgentError where it has another config yet."""
    lanes = site.left.lanes if site.holder is not None else {}
    lane = lanes.get(equipment_id)
    if lanes and (lane is None or lane.destination != destination):
        known = f"knows {printable(lane.destination)} for it" if lane is not None else "does not know it"
        raise AgentError(
            f"the running agent {known}: `exlab-watch-agent reload` has it take in the config as it is now, then give this again"
        )


@dataclass(frozen=True, slots=True)
class Replacement:
    """What an operator is shown before a root takes the place of the bound one.

    `former`: the bound one. `runs`: how many were proven there; `only_there`: how many of
    them have nothing left here.
    """

    destination: str
    root: Unbound
    marker: str
    former: str
    runs: int
    only_there: int


def look_at_replacement(site: Site, equipment: EquipmentPolicy) -> Replacement:
    """Return what is to take the place of the bound root, without writing there. Raises: AgentError."""
    transport = make_transport(equipment, site.policy)
    try:
        destination = transport.describe()
        _require_same_place(site, equipment.equipment_id, destination)
        known = site.binding(equipment.equipment_id, destination)
        if known is None:
            command = bind_command(equipment.equipment_id)
            raise AgentError(f"nothing was bound yet that could be replaced: give `{command}`")
        root = _unbound(transport)
        marker = _marker_at(transport, known)
    finally:
        transport.close()
    DiskRunScanner().volume(equipment)  # of a folder that is away, no run would seem to have data here
    tree, manifests = DiskRunTree(), FolderManifestStore(StateLayout(site.state_dir).manifests)
    proven = [r for r in site.records.values() if r.equipment_id == equipment.equipment_id and r.is_sealed]
    only_there = [r for r in proven if r.state is RunState.CLEANED or is_short_here(sealed_run_of(r), tree, manifests)]
    return Replacement(destination, root, marker, known.spelling, len(proven), len(only_there))


def _marker_at(transport: Transport, known: Binding) -> str:
    """Return in words which marker a root has. Raises: DestinationUnreachableError where it does not answer."""
    try:
        transport.require_marker(expected_marker_id=known.marker_id)
    except MarkerMissingError:
        return "none"
    except ForeignMarkerError:
        return "of another destination"
    return "the one that is bound"


def replace_destination(site: Site, equipment_id: str, reason: str) -> str:
    """Have the configured root take the place of the bound one; return what is to be said. Raises: AgentError."""
    command = ReplaceDestination(operator_here(), equipment_id, reason)
    if site.holder is not None:
        return site.ask_agent(command, waits_for=f"what is under way at the destination of {equipment_id}")
    answers: list[Answer] = []
    agent = Agent(site.settings, state_dir=site.state, scope=Scope(is_watching=False, is_working=False))
    agent.open()
    try:
        agent.ask(command, answers.append)
        agent.run(until_rest=True)
    finally:
        agent.close()
    if not answers or not answers[0]["ok"]:
        raise AgentError(str(answers[0]["message"]) if answers else "stopped before it took effect; give it again")
    return str(answers[0]["message"])


def _unbound(transport: Transport, *, is_marker_gone: bool = False, binds_by_itself: bool = False) -> Unbound:
    return Unbound(
        transport.nature(),
        transport.free_bytes(),
        transport.top_names(),
        is_marker_gone,
        binds_by_itself=binds_by_itself,
    )


def bind(site: Site, equipment_id: str) -> str:
    """Bind by the running agent, or here under the same lock; return what is to be said. Raises: AgentError."""
    if site.holder is not None:
        return site.ask_agent(BindDestination(operator_here(), equipment_id), must_answer=True)
    agent = Agent(site.settings, state_dir=site.state, scope=Scope(is_watching=False))
    agent.open()
    try:
        return agent.bind(equipment_id, str(operator_here()))
    finally:
        agent.close()
