"""What every way must pass as the destination of whole runs: who it is, whose a copy is, and what a proof is worth.

The suite of a way (contract.py) takes this in. Real acts and the real core work over the way's transport; what goes wrong is
done to the root directly.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from exlab_watch_agent.core.events import EffectFailed, TakenOver, Verified
from exlab_watch_agent.core.inventory import FileEntry
from exlab_watch_agent.core.manifest import Agreement
from exlab_watch_agent.errors import DestinationIsSourceError, DestinationUnreachableError
from exlab_watch_agent.ports import Control, Transport
from exlab_watch_agent.statechart import RunState
from tests.lab.lab import CACHE
from tests.lab.one_run import OneRun, new_run
from tests.lab.wrapped import Wrapped

BELOW = "PROJ-0042/Runs/Run_2026-04-17T14-32"
LEAF = BELOW.rpartition("/")[2]
FILES = {"a.tif": b"a" * 70_000, "raw/b.bin": bytes(range(256)) * 300, "z.txt": b"the last one"}
CLAIM_FILE = f"{CACHE}/exlab-watch-agent.json"
MANIFEST = f"{CACHE}/checksums.sha256"
SEALED = ["push_started", "pushed", "precheck_passed", "proven", "sealed"]
ANOTHER = "b" * 32


def held(root: Path) -> dict[str, bytes]:
    """Return what must not change: all files below the root but the agent's own probe files."""
    own = root / ".exlab-watch-agent"
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and own not in path.parents and not path.name.startswith(".exlab-probe")
    }


def known_by(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def left_by_exlab_wizard(life: OneRun, copy: Path) -> Path:
    """Make what ExLab-Wizard leaves of a run: the whole folder, without a claim, with a manifest of its own."""
    run = Path(life.place.run_path)
    for path in (path for path in run.rglob("*") if path.is_file()):
        target = copy / path.relative_to(run)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (copy / MANIFEST).write_bytes(b"by ExLab-Wizard\n")
    return copy


class Meddled(Wrapped):
    """A transport for which something happens right before data are copied."""

    def __init__(self, inner: Any, before_copy: Callable[[], None]) -> None:
        super().__init__(inner)
        self._before_copy = before_copy

    def copy(self, source_root: str, files: Sequence[FileEntry], destination: str, *, control: Control) -> None:
        self._before_copy()
        self._inner.copy(source_root, files, destination, control=control)


class WholeRuns:
    """The hooks are those of the contract: `root`, `there` (the run's folder in it) and `make`."""

    HAS_A_CLOCK: ClassVar[bool] = False

    @pytest.fixture
    def equipment(self, tmp_path: Path) -> Path:
        return tmp_path / "home" / "CONFOCAL_01"

    @pytest.fixture
    def life(self, equipment: Path, transport: Transport, tmp_path: Path) -> OneRun:
        """A run that is not pushed yet, and a bound destination."""
        run = OneRun(new_run(equipment, BELOW, FILES), transport, equipment=equipment, state_dir=tmp_path / "state")
        run.bind()
        return run

    def another(self, life: OneRun, equipment: Path, tmp_path: Path, **given: Any) -> OneRun:
        """Return the same run in the hands of an agent with another state folder."""
        other = OneRun(
            Path(life.place.run_path),
            life.ports.transport,
            equipment=equipment,
            state_dir=tmp_path / "other state",
            state_folder=ANOTHER,
            **given,
        )
        other.bind()
        return other

    def test_a_run_is_pushed_proven_and_sealed_and_a_second_pass_finds_it_equal(
        self, life: OneRun, there: Path
    ) -> None:
        assert life.bring_to_rest() is RunState.VERIFIED
        assert life.moves == ["admitted", *SEALED]
        assert {name: (there / name).read_bytes() for name in FILES} == FILES
        outcome = life.audit()
        assert isinstance(outcome, Verified)
        assert (outcome.comparison.agreement, outcome.seal_fault) == (Agreement.EQUAL, "")
        assert outcome.proof is not None
        assert (outcome.proof.nas_at is not None) == self.HAS_A_CLOCK

    # --- who the destination is --------------------------------------------------------------------------------------

    def test_a_destination_that_is_the_instrument_s_own_folder_is_not_written_to(
        self, root: Path, transport: Transport, tmp_path: Path
    ) -> None:
        life = OneRun(new_run(root, BELOW, FILES), transport, equipment=root, state_dir=tmp_path / "state")
        (root / CACHE).mkdir()  # the agent's own lock makes it
        before = held(root)
        with pytest.raises(DestinationIsSourceError):
            life.bind()
        assert held(root) == before

    def test_a_root_that_has_another_marker_by_now_is_neither_believed_nor_written_to(
        self, life: OneRun, root: Path
    ) -> None:
        life.bring_to_rest()
        marker = root / ".exlab-watch-agent.json"
        marker.write_text(marker.read_text().replace(life.ports.marker_id() or "", "0" * 32))
        (root / BELOW / "a.tif").unlink()
        before = held(root)
        outcome = life.audit()
        assert isinstance(outcome, EffectFailed)
        assert outcome.is_destination_away
        assert life.record.verify_passes == 1
        with pytest.raises(DestinationUnreachableError, match="belongs to another destination"):
            life.bind()
        assert held(root) == before

    # --- whose copy it is --------------------------------------------------------------------------------------------

    def test_a_copy_that_another_agent_sealed_a_moment_ago_is_its_own(
        self, life: OneRun, root: Path, equipment: Path, tmp_path: Path
    ) -> None:
        life.bring_to_rest()
        before = held(root)
        other = self.another(life, equipment, tmp_path)
        assert other.bring_to_rest() is RunState.CONFLICT
        assert other.record.last_error is not None
        assert other.record.last_error.kind == "claimed_by_other_agent"
        assert held(root) == before

    def test_a_copy_whose_agent_is_silent_is_taken_over_after_proof_and_no_data_are_copied(
        self, life: OneRun, there: Path, equipment: Path, tmp_path: Path
    ) -> None:
        life.bring_to_rest()
        data = {name: (there / name).stat() for name in FILES}
        other = self.another(life, equipment, tmp_path, days_ahead=2)
        assert other.bring_to_rest() is RunState.VERIFIED
        assert other.moves == ["admitted", "copy_adopted", "proven", "sealed"]
        assert {name: (there / name).stat() for name in FILES} == data
        claim = (there / CLAIM_FILE).read_text()
        assert life.record.job_id in claim
        assert ANOTHER in claim

    def test_a_sealed_copy_that_is_not_what_is_here_is_a_conflict_and_keeps_every_byte(
        self, life: OneRun, root: Path, equipment: Path, tmp_path: Path
    ) -> None:
        life.bring_to_rest()
        (Path(life.place.run_path) / "a.tif").write_bytes(b"A" * 70_000)
        before = held(root)
        other = self.another(life, equipment, tmp_path, days_ahead=2)
        assert other.bring_to_rest() is RunState.CONFLICT
        assert held(root) == before

    def test_a_folder_that_another_agent_claimed_and_never_sealed_is_a_conflict(
        self, life: OneRun, root: Path, there: Path, equipment: Path, tmp_path: Path
    ) -> None:
        life.bring_to_rest()
        (there / MANIFEST).unlink()
        (there / CACHE / "creation.json").unlink()
        claim = life.ports.agent.signed(life._admit().claim)
        (there / CLAIM_FILE).unlink()
        life.ports.transport.place_claim(BELOW, claim)
        before = held(root)
        other = self.another(life, equipment, tmp_path, days_ahead=400)
        assert other.bring_to_rest() is RunState.CONFLICT
        assert other.record.last_error is not None
        assert other.record.last_error.kind == "claimed_unsealed"
        assert held(root) == before

    @pytest.mark.parametrize("is_less", [False, True])
    def test_what_another_agent_has_there_makes_room_on_an_operator_s_word_and_nothing_is_lost(
        self, life: OneRun, root: Path, there: Path, equipment: Path, tmp_path: Path, is_less: bool
    ) -> None:
        life.bring_to_rest()
        before = held(root)
        run = Path(life.place.run_path)
        (run / "a.tif").write_bytes(b"A" * 70_001)
        if is_less:
            (run / "z.txt").unlink()
        other = self.another(life, equipment, tmp_path)
        assert other.bring_to_rest() is RunState.CONFLICT
        assert held(root) == before
        other.happened(TakenOver("asmith"))
        state = other.bring_to_rest()
        assert set(before.values()) <= set(held(root).values())
        if is_less and not life.ports.transport.can_move():
            assert state is RunState.CONFLICT
            assert held(root) == before, "nothing can be moved aside there, and something would have to be"
            return
        assert state is RunState.VERIFIED
        assert (there / "a.tif").read_bytes() == b"A" * 70_001
        assert (there / "z.txt").exists() is not is_less
        assert life.record.job_id in (there / CLAIM_FILE).read_text()
        after = held(root)
        life.audit()
        assert life.record.state is RunState.CONFLICT
        assert held(root) == after

    # --- what the proof is worth -------------------------------------------------------------------------------------

    @pytest.mark.parametrize("left", [LEAF, f"{LEAF}/{LEAF}"])
    def test_what_exlab_wizard_left_is_completed_where_it_is_and_nothing_of_it_moves(
        self, life: OneRun, root: Path, left: str
    ) -> None:
        copy = left_by_exlab_wizard(life, root / left)
        (copy / "raw/b.bin").unlink()
        before = {name: known_by(copy / name) for name in ("a.tif", "z.txt")}
        assert life.bring_to_rest() is RunState.VERIFIED
        assert life.moves == ["admitted", "copy_adopted", "put_back", *SEALED]
        assert life.record.destination == left
        assert {name: known_by(copy / name) for name in before} == before
        assert {name: (copy / name).read_bytes() for name in FILES} == FILES
        assert (copy / CLAIM_FILE).exists()
        assert not (root / BELOW).exists()
        (kept,) = (root / ".exlab-superseded" / left).rglob("checksums.sha256")
        assert kept.read_bytes() == b"by ExLab-Wizard\n"

    @pytest.mark.parametrize("left", [LEAF, f"{LEAF}/{LEAF}"])
    def test_what_exlab_wizard_left_and_is_not_what_is_here_keeps_every_byte(
        self, life: OneRun, root: Path, left: str
    ) -> None:
        copy = left_by_exlab_wizard(life, root / left)
        (copy / "raw/b.bin").unlink()
        (copy / "z.txt").write_bytes(b"the LAST one")
        before = held(root)
        assert life.bring_to_rest() is RunState.CONFLICT
        assert life.record.last_error is not None
        assert life.record.last_error.kind == "destination_occupied"
        assert held(root) == before

    @pytest.mark.parametrize("lost", [CLAIM_FILE, MANIFEST])
    def test_a_seal_of_which_a_file_is_lost_is_placed_again_without_a_push(
        self, life: OneRun, there: Path, lost: str
    ) -> None:
        life.bring_to_rest()
        (there / lost).unlink()
        data = {name: (there / name).stat() for name in FILES}
        life.audit()
        assert life.moves[-1] == "seal_missed"
        assert life.go_on() is RunState.VERIFIED
        assert (there / lost).is_file()
        assert {name: (there / name).stat() for name in FILES} == data

    def test_what_changes_in_the_cache_folder_after_the_seal_is_brought_and_what_others_wrote_there_is_kept(
        self, life: OneRun, root: Path, there: Path
    ) -> None:
        fields, run = f"{CACHE}/readme_fields.json", Path(life.place.run_path)
        (run / fields).write_text('{"sample": "1"}')
        life.bring_to_rest()
        assert life.carry_cache().paths == ()
        data = {name: (there / name).stat() for name in FILES}
        (run / fields).write_text('{"sample": "2"}')
        assert life.carry_cache().paths == (fields,)
        assert (there / fields).read_text() == '{"sample": "2"}'
        assert not [path for path in held(root) if path.startswith(".exlab-superseded")], "it was the agent's own"
        (there / fields).write_text("of somebody at the NAS")
        (run / fields).write_text('{"sample": "3"}')
        assert life.carry_cache().paths == (fields,)
        assert (there / fields).read_text() == '{"sample": "3"}'
        assert b"of somebody at the NAS" in held(root).values()
        assert {name: (there / name).stat() for name in FILES} == data
        assert life.carry_cache().paths == ()
        life.audit()
        assert (life.moves[-1], life.record.verify_passes) in (("proven", 1), ("proven", 2))

    def test_a_manifest_that_somebody_altered_is_noticed_and_placed_again(self, life: OneRun, there: Path) -> None:
        life.bring_to_rest()
        good = (there / MANIFEST).read_bytes()
        (there / MANIFEST).write_bytes(good.replace(b"a.tif", b"b.tif"))
        life.audit()
        assert life.moves[-1] == "seal_missed"
        assert life.go_on() is RunState.VERIFIED
        assert (there / MANIFEST).read_bytes() == good

    def test_a_damaged_copy_is_on_record_although_the_nas_can_be_read_only(
        self, life: OneRun, there: Path, root: Path
    ) -> None:
        with read_only_later(root) as make_read_only:
            life.bind()
            life.bring_to_rest()
            (there / "a.tif").write_bytes(b"?" * 70_000)
            make_read_only()
            before = held(root)
            life.audit()
            assert life.moves[-1] == "copy_damaged"
            assert life.record.verify_passes == 0
            assert held(root) == before

    def test_a_file_that_is_there_and_cannot_be_read_is_no_pass(self, life: OneRun, there: Path) -> None:
        life.bring_to_rest()
        with unreadable(there / "a.tif"):
            for _ in range(2):
                if life.record.state is RunState.VERIFIED:
                    life.audit()
            assert life.moves[-1] == "copy_damaged"
            assert life.record.verify_passes == 0
        assert life.go_on() is RunState.VERIFIED
        assert (there / "a.tif").read_bytes() == FILES["a.tif"]

    def test_a_file_that_somebody_puts_there_before_ours_arrives_keeps_name_and_bytes(
        self, equipment: Path, transport: Transport, there: Path, tmp_path: Path
    ) -> None:
        def meddle() -> None:
            (there / "z.txt").parent.mkdir(parents=True, exist_ok=True)
            if not (there / "z.txt").exists():
                (there / "z.txt").write_bytes(b"a colleague's")

        meddled = Meddled(transport, meddle)
        life = OneRun(new_run(equipment, BELOW, FILES), meddled, equipment=equipment, state_dir=tmp_path / "state")
        life.bind()
        life.bring_to_rest()
        assert life.moves[:3] == ["admitted", "push_started", "put_back"]
        kept = [path.read_bytes() for path in there.parents[2].rglob("z.txt")]
        assert b"a colleague's" in kept


@contextmanager
def read_only_later(root: Path) -> Iterator[Callable[[], None]]:
    """Mount a small disk at the root; yield what mounts it again, read-only."""
    marker = root / ".exlab-watch-agent.json"
    kept = marker.read_bytes()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(root)], check=True)
    try:
        marker.write_bytes(kept)

        def make_read_only() -> None:
            subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)

        yield make_read_only
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Let a file be there, and every read of it fail, as on a disk with a bad sector."""
    subprocess.run(["mount", "--bind", "/proc/1/mem", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)
