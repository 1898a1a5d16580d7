"""What `Destination` asks of a way, and how often: the policy of all ways, seen from below. The contract shows what it is for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local.tree import DiskRunTree
from exlab_watch_agent.adapters.transports.destination import Destination
from exlab_watch_agent.adapters.transports.far_side import NO_LAG, Exchanged, FarSide, Lag, Listing
from exlab_watch_agent.adapters.transports.mounted.far_side import MountedFarSide
from exlab_watch_agent.core.binding import Nature
from exlab_watch_agent.errors import (
    CancelledError,
    DestinationOccupiedError,
    DestinationUnreachableError,
    FailureKind,
    SourceChangedError,
    TransportError,
)
from exlab_watch_agent.ports import Control, Progress, RemoteFile
from tests.adapters.transports.contract import CLAIM, FREE, RUN, fill, tree

CLAIM_FILE = ".exlab-wizard/exlab-watch-agent.json"
VERBS = {name for name in vars(FarSide) if not name.startswith("_")} - {
    "can",
    "chosen",
    "foreign",
    "translated",
    "away",
}


class Recorded(MountedFarSide):
    """A folder of this machine that notes what is asked of it, and can less where a test says so."""

    def __init__(self, root: Path, **less: Any) -> None:
        super().__init__(str(root))
        self.asked: list[str] = []
        self.can = dataclasses.replace(self.can, **less)

    def __getattribute__(self, name: str) -> Any:
        if name in VERBS:
            self.asked.append(name)
        return super().__getattribute__(name)

    @contextmanager
    def asking(self, *expected: str) -> Iterator[None]:
        self.asked.clear()
        yield
        assert tuple(self.asked) == expected


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "nas"
    root.mkdir()
    return root


def test_a_claim_that_was_created_exclusively_is_not_read_again(root: Path) -> None:
    far = Recorded(root)
    with far.asking("require_fit", "put_new"):
        Destination(far).place_claim(RUN, CLAIM)
    with far.asking("require_fit", "put_new", "read_own"):  # one is there: whose is it?
        Destination(far).place_claim(RUN, CLAIM)


def test_where_nothing_is_created_exclusively_a_claim_is_read_after_it_was_placed_and_after_the_copy(
    root: Path, run: Path
) -> None:
    far = Recorded(root, creates_exclusively=False)
    transport = Destination(far)
    with far.asking("require_fit", "put_new", "read_own"):
        transport.place_claim(RUN, CLAIM)
    with far.asking("require_fit", "send", "sync", "read_own"):
        transport.copy(str(run), fill(run, {"a": b"a"}), RUN, control=FREE)
    claim = root / RUN / CLAIM_FILE
    claim.write_bytes(claim.read_bytes().replace(b"job-1", b"job-2"))
    with pytest.raises(DestinationOccupiedError):
        transport.copy(str(run), fill(run, {"b": b"b"})[1:], RUN, control=FREE)


def test_what_is_clear_is_not_cleared_again_until_something_was_stopped(root: Path, run: Path) -> None:
    far = Recorded(root)
    transport = Destination(far)
    listed = fill(run, {"a": b"a", ".exlab-wizard/x": b"x"})
    cache = DiskRunTree().cache_files(str(run))
    transport.replace(str(run), cache, RUN, control=FREE)
    with far.asking("clear_partials"):
        transport.clear_partials(RUN)
        transport.clear_partials(RUN)
    transport.copy(str(run), listed, RUN, control=FREE)
    transport.replace(str(run), cache, RUN, control=FREE)
    with far.asking():
        transport.clear_partials(RUN)
    with pytest.raises(TransportError):
        transport.copy(str(run), listed, RUN, control=FREE)
    with far.asking("clear_partials"):
        transport.clear_partials(RUN)


FIELDS, LOG = ".exlab-wizard/fields.json", ".exlab-wizard/wizard.labpc-04.log"


def test_only_files_of_others_are_looked_at_before_they_are_replaced(root: Path, run: Path) -> None:
    far = Recorded(root)
    fill(run, {".exlab-wizard/creation.json": b"{}", LOG: b"ours\n"})
    fill(root / RUN, {".exlab-wizard/creation.json": b"theirs", LOG: b"theirs\n"})
    with far.asking("replace"):
        Destination(far, host="labpc-04").replace(str(run), DiskRunTree().cache_files(str(run)), RUN, control=FREE)
    assert not (root / ".exlab-superseded").exists()
    fill(run, {FIELDS: b"ours"})
    with far.asking("read_below", "replace"):
        Destination(far, host="labpc-04").replace(str(run), DiskRunTree().cache_files(str(run)), RUN, control=FREE)


class Forgetful(Recorded):
    """Says that it has written a file, and has not: a share whose disk is full, and that says so too late."""

    def put(self, path: str, data: bytes) -> None:
        super().put(path, data[:1])


def test_what_cannot_be_kept_is_not_replaced(root: Path, run: Path) -> None:
    fill(run, {FIELDS: b"ours"})
    fill(root / RUN, {FIELDS: b"a curator's"})
    with pytest.raises(TransportError, match="could not be kept"):
        Destination(Forgetful(root)).replace(str(run), DiskRunTree().cache_files(str(run)), RUN, control=FREE)
    assert (root / RUN / FIELDS).read_bytes() == b"a curator's"


class Vast(Recorded):
    """Has as much of each file in a cache folder as is asked for."""

    def read_below(self, folder: str, path: str, limit_bytes: int) -> bytes | None:
        return bytes(limit_bytes) if path == FIELDS else super().read_below(folder, path, limit_bytes)


def test_what_is_too_large_to_be_kept_is_said_and_not_replaced(root: Path, run: Path) -> None:
    fill(run, {FIELDS: b"ours"})
    far = Vast(root)
    with pytest.raises(TransportError, match=r"fields\.json .* move it away there"), far.asking("read_below"):
        Destination(far).replace(str(run), DiskRunTree().cache_files(str(run)), RUN, control=FREE)


def test_progress_goes_on_over_portions(root: Path, run: Path) -> None:
    listed = fill(run, {f"{n}": b"x" * 10 for n in range(5)})
    seen: list[Progress] = []
    far = Recorded(root, portion_files=2)
    with far.asking("require_fit", "send", "send", "send", "sync"):
        Destination(far).copy(str(run), listed, RUN, control=Control(report=seen.append))
    assert seen[-1] == Progress(50, 5)
    assert [p.bytes_done for p in seen] == sorted(p.bytes_done for p in seen)


def test_a_way_that_checks_nothing_itself_has_names_and_sources_looked_at_around_it(root: Path, run: Path) -> None:
    far = Recorded(root, checks_each_file=False, names_last=False, tells_taken=False)
    transport = Destination(far)
    listed = fill(run, {"a": b"a", "sub/b": b"b"})
    with far.asking("require_fit", "list", "send", "list", "sync"):
        transport.copy(str(run), listed, RUN, control=FREE)
    with far.asking("require_fit", "list"), pytest.raises(TransportError, match="never replaced"):
        transport.copy(str(run), listed, RUN, control=FREE)
    (root / "other" / RUN).mkdir(parents=True)
    (root / "other" / RUN / "sub").write_bytes(b"a file")
    with pytest.raises(TransportError, match="where a folder must be"):
        transport.copy(str(run), listed[1:], f"other/{RUN}", control=FREE)
    (run / "a").write_bytes(b"another")
    with far.asking("require_fit", "list"), pytest.raises(SourceChangedError):
        transport.copy(str(run), listed, "third", control=FREE)


def test_what_a_tool_took_of_a_file_that_changed_meanwhile_goes_aside_and_the_source_is_the_reason(
    root: Path, run: Path
) -> None:
    listed = fill(run, {"a": b"before", "b": b"b"})

    class Meddling(Recorded):
        def send(self, shipment: Any) -> None:
            super().send(shipment)
            (run / "a").write_bytes(b"after it")
            raise TransportError(FailureKind.NETWORK, "the tool says something else")

    far = Meddling(root, checks_each_file=False, names_last=False)
    with pytest.raises(SourceChangedError):
        Destination(far).copy(str(run), listed, RUN, control=FREE)
    assert tree(root) == {f"{RUN}/b": b"b", f".exlab-superseded/{RUN}/1/a": b"before"}


def test_a_share_without_room_for_the_probe_has_answered_but_what_was_asked_meanwhile_has_not(root: Path) -> None:
    class Full(Recorded):
        def exchange(
            self, path: str, data: bytes, *, mtime_ns: int, while_there: Callable[[], None] | None
        ) -> Exchanged:
            if while_there is not None:
                while_there()
            raise TransportError(FailureKind.DESTINATION_FULL, "no room")

    known = Destination(Recorded(root)).bind()
    Destination(Full(root)).probe(expected_marker_id=known)
    with pytest.raises(DestinationUnreachableError, match="no room"):
        Destination(Full(root)).round_trip(lambda _path, _data: None)


def test_a_way_that_is_not_found_is_unreachable_without_a_guess(root: Path) -> None:
    class Closed:
        name = "lab@nas:/srv"

        def chosen(self) -> FarSide:
            raise TransportError(FailureKind.NETWORK, "Cannot connect to nas.")

        def nature(self) -> Nature:
            return Nature("ssh", self.name, "it is reached by ssh")

        def close(self) -> None:
            pass

    transport = Destination(Closed())
    assert transport.nature().elsewhere
    said = "The destination lab@nas:/srv cannot be used: Cannot connect to nas."
    for ask in (transport.bind, transport.round_trip, transport.top_names):
        with pytest.raises(DestinationUnreachableError) as caught:
            ask()
        assert str(caught.value) == said
    with pytest.raises(TransportError):
        transport.listing(RUN)


class Lagging(Recorded):
    """A folder of this machine whose listing shows what it took in only after some looks."""

    def __init__(self, root: Path, *, looks: int, shows: Callable[[Listing], Listing], lag: Lag) -> None:
        super().__init__(root)
        self._looks, self._shows, self._lag = looks, shows, lag

    def lag(self) -> Lag:
        return self._lag

    def list(self, folder: str, control: Control) -> Listing:
        found = super().list(folder, control)
        self._looks -= 1
        return self._shows(found) if self._looks >= 0 else found


class Paused(SystemClock):
    """Goes on by itself when it is to wait, and notes for how long."""

    def __init__(self) -> None:
        super().__init__()
        self.at_s = 1000.0
        self.waits: list[float] = []

    def monotonic_s(self) -> float:
        return self.at_s

    def pause(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.at_s += seconds


def shorter(found: Listing) -> Listing:
    return Listing({path: RemoteFile(file.size_bytes - 1, file.mtime_ns) for path, file in found.files.items()})


def nothing(_: Listing) -> Listing:
    return Listing({})


def longer(found: Listing) -> Listing:
    return Listing({path: RemoteFile(file.size_bytes + 1, file.mtime_ns) for path, file in found.files.items()})


LAG = Lag(at_most_s=8.0, look_every_s=0.5)


@pytest.mark.parametrize(
    ("looks", "shows", "lag", "waits", "is_whole"),
    [
        (0, shorter, LAG, 0, True),
        (3, shorter, LAG, 3, True),
        (3, nothing, LAG, 3, True),
        (99, shorter, LAG, 16, False),
        (99, nothing, LAG, 16, False),
        (99, longer, LAG, 0, False),
        (99, shorter, NO_LAG, 0, False),
        (99, nothing, NO_LAG, 0, False),
    ],
)
def test_a_listing_that_may_lag_is_looked_at_again_and_one_that_is_the_truth_is_not(
    root: Path, run: Path, looks: int, shows: Callable[[Listing], Listing], lag: Lag, waits: int, is_whole: bool
) -> None:
    clock, due = Paused(), fill(run, {"a": b"a", "b": b"bb"})
    transport = Destination(Lagging(root, looks=looks, shows=shows, lag=lag), clock=clock)
    Destination(Recorded(root)).copy(str(run), due, RUN, control=FREE)
    found = transport.listing(RUN, due=due)
    assert clock.waits == [0.5] * waits
    assert ({path: file.size_bytes for path, file in found.items()} == {"a": 1, "b": 2}) is is_whole
    assert (transport.listing(RUN), clock.waits[waits:]) == (transport.listing(RUN), []), "nothing is due"


def test_a_look_again_ends_when_it_is_cancelled(root: Path, run: Path) -> None:
    clock, due = Paused(), fill(run, {"a": b"a"})
    transport = Destination(Lagging(root, looks=99, shows=nothing, lag=LAG), clock=clock)
    with pytest.raises(CancelledError):
        transport.listing(RUN, due=due, control=Control(is_cancelled=lambda: len(clock.waits) == 2))
    assert clock.waits == [0.5] * 2
