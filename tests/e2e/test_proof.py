"""What counts as proof: a verdict outlives a repair that fails, a sealed copy is its holder's, `synced` comes last here."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from exlab_watch_agent.app.agent import Agent
from exlab_watch_agent.app.build import Scope
from exlab_watch_agent.config.load import load_settings
from exlab_watch_agent.core.commands import VerifyNow
from exlab_watch_agent.core.operator import Operator
from exlab_watch_agent.core.text import counted
from exlab_watch_agent.errors import DestinationUnreachableError, FailureKind, TransportError
from tests.lab.disks import read_only
from tests.lab.lab import CACHE, Equipment, Lab, put, read_creation, run_to_rest, until
from tests.lab.servers import SshServer
from tests.lab.wrapped import Wrapped

FILES = {"a.bin": b"a" * 5000, "b.bin": b"b" * 5000, "sub/c.bin": b"c" * 5000}
GOOD = FILES["a.bin"]
WAITS = ["1s", "1s"]


def proven_twice(lab: Lab) -> Path:
    """Return a run that is verified by two passes."""
    run = lab.new_run(files=FILES)
    assert lab.cli("run", "--once", "--quiet").code == 0
    assert lab.cli("verify", run.name).code == 0
    assert lab.record(run)["verify_passes"] == 2
    return run


def zero(path: Path) -> None:
    """Let a file rot: other bytes of the same size and time."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def superseded(lab: Lab) -> dict[str, bytes]:
    return everything(lab.nas / "SCOPE_01" / ".exlab-superseded")


def triggers(lab: Lab, run: Path) -> list[str]:
    return [fact["move"]["trigger"] for fact in lab.facts(run) if "move" in fact]


def problem_kinds(lab: Lab) -> set[str]:
    said = lab.cli("problems", "--json")
    assert said.code in (3, 4)
    return {problem["code"] for problem in said.problems}


def assert_disproven(lab: Lab, run: Path) -> None:
    """Fail unless the damage is on record and nothing calls the copy proven; the agent still runs, and writes that here."""
    record = lab.record(run)
    assert (record["state"] in ("queued", "failed"), record["verify_passes"]) == (True, 0)
    assert record["last_error"]
    assert "copy_damaged" in triggers(lab, run)
    shown = next(one for one in lab.cli("status", "--json").json["runs"] if one["run_path"] == str(run))
    assert (shown["verify_passes"], shown["sync_status"] != "synced") == (0, True)
    until(lambda: read_creation(run)["sync_status"] == shown["sync_status"], "creation.json says it, too")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path, retry_schedule=WAITS, is_quick=True)
    lab.settings["nas_cleanup"] = {"min_age_hours": 0}
    lab.save_config()
    return lab


# --- the verdict comes before the repair -----------------------------------------------------------------------------


def test_damage_on_a_nas_that_cannot_be_written_is_said_at_once_and_heals_when_it_can(lab: Lab) -> None:
    run = proven_twice(lab)
    zero(lab.copy_of(run) / "a.bin")
    with ExitStack() as read_only_so_far:
        read_only_so_far.enter_context(read_only(lab.nas / "SCOPE_01"))  # refused while an agent is writing there
        with lab.running():
            assert lab.cli("verify", run.name).code == 0
            lab.until_state(run, "queued")
            until(lambda: lab.live()["lanes"]["SCOPE_01"]["waiting_since"], "the lane waits")
            assert_disproven(lab, run)
            assert "a.bin" in lab.record(run)["last_error"]["message"]
            assert problem_kinds(lab) >= {"nas_unreachable"}
            assert (lab.copy_of(run) / "a.bin").read_bytes() == bytes(5000)
            read_only_so_far.close()
            lab.until_state(run, "verified")
        assert lab.record(run)["verify_passes"] == 1
    lab.assert_whole(run)
    assert list(superseded(lab).values()) == [bytes(5000)]


def test_damage_that_cannot_be_moved_aside_is_said_and_heals_after_a_retry(lab: Lab) -> None:
    run = proven_twice(lab)
    zero(lab.copy_of(run) / "a.bin")
    in_the_way = lab.nas / "SCOPE_01" / ".exlab-superseded"
    in_the_way.write_text("a file where a folder must be")
    with lab.running():
        assert lab.cli("verify", run.name).code == 0
        lab.until_state(run, "failed")
        assert_disproven(lab, run)
    assert ".exlab-superseded" in lab.record(run)["last_error"]["message"]
    assert problem_kinds(lab) == {"nas_sync_failed", "copy_damaged"}
    assert (lab.copy_of(run) / "a.bin").read_bytes() == bytes(5000)
    assert read_creation(lab.copy_of(run))["sync_status"] != "synced"
    in_the_way.unlink()
    assert lab.cli("retry", run.name).code == 0
    lab.assert_whole(run)
    assert lab.record(run)["verify_passes"] == 1
    assert list(superseded(lab).values()) == [bytes(5000)]
    shown = lab.cli("show", run.name, "--json").json
    (incident,) = shown["incidents"]
    assert (incident["kind"], incident["files_total"], incident["files"]) == ("copy_damaged", 1, ["a.bin"])
    assert (incident["healed_at"] is not None, incident["healed_by"]) == (True, shown["passes"][-1]["id"])
    assert "copy_damaged (right again" in lab.cli("show", run.name).out
    told = [fact["kind"] for fact in lab.facts(run) if fact["kind"].startswith("incident")]
    assert told == ["incident", "incident_healed"]
    assert ("copy_damaged" in lab.cli("problems").out, lab.cli("problems").code) == (False, 0)


class Spoils(Wrapped):
    """A transport that zeroes one file of the first copy it makes, its size and time kept."""

    def __init__(self, inner: Any, victim: Path) -> None:
        super().__init__(inner)
        self._victim = victim
        self._has_spoilt = False

    def copy(self, *arguments: Any, **named: Any) -> None:
        self._inner.copy(*arguments, **named)
        if not self._has_spoilt:
            self._has_spoilt = True
            zero(self._victim)


def test_what_the_precheck_finds_is_on_record_although_it_cannot_be_moved_aside(lab: Lab) -> None:
    run = lab.new_run(files=FILES)
    in_the_way = lab.nas / "SCOPE_01" / ".exlab-superseded"
    in_the_way.write_text("a file where a folder must be")
    victim = lab.copy_of(run) / "a.bin"
    run_to_rest(lab, wrapped=lambda transport: Spoils(transport, victim))
    reasons = [fact["move"]["reason"] for fact in lab.facts(run) if fact.get("move", {}).get("trigger") == "put_back"]
    assert reasons[0].startswith("partial copy: 1 file different in sampled blocks on the NAS (first: a.bin)")
    assert (lab.record(run)["state"], lab.record(run)["mismatches"]) == ("failed", 1)
    in_the_way.unlink()
    assert lab.cli("retry", run.name).code == 0
    lab.assert_whole(run)
    assert list(superseded(lab).values()) == [bytes(5000)]


class LosesItsCreation(Wrapped):
    """A transport during whose hashing an editor saves half of the run's creation.json here."""

    def __init__(self, inner: Any, creation: Path) -> None:
        super().__init__(inner)
        self._creation = creation

    def read_back(self, *arguments: Any, **named: Any) -> Any:
        self._creation.write_bytes(self._creation.read_bytes()[:100])
        return self._inner.read_back(*arguments, **named)


def test_damage_is_said_although_creation_json_cannot_be_read_at_that_moment(lab: Lab) -> None:
    run = proven_twice(lab)
    zero(lab.copy_of(run) / "a.bin")
    creation = run / CACHE / "creation.json"
    text = creation.read_bytes()
    verify_here(lab, run, lambda transport: LosesItsCreation(transport, creation))
    assert "copy_damaged" in triggers(lab, run)
    assert lab.record(run)["verify_passes"] == 0
    creation.write_bytes(text)
    assert lab.cli("run", "--once", "--quiet").code == 0
    lab.assert_whole(run)


# --- a copy that cannot be read back is not verified -----------------------------------------------------------------


class CannotGiveBack(Wrapped):
    """A transport to which the NAS refuses the bytes of some files, however often it is asked."""

    def __init__(self, inner: Any, names: set[str]) -> None:
        super().__init__(inner)
        self._names = names
        self.asked: list[tuple[str, ...]] = []

    def read_back(self, destination: str, paths: Any, *, control: Any) -> Any:
        self.asked.append(tuple(paths))
        if refused := sorted(self._names.intersection(paths)):
            raise TransportError(FailureKind.UNKNOWN, f"Cannot read {refused[0]!r}: a bad block.")
        return self._inner.read_back(destination, paths, control=control)

    def set_aside(self, destination: str, paths: Any) -> None:
        paths = list(paths)
        self._inner.set_aside(destination, paths)
        self._names -= set(paths)  # what takes their place is on another part of the disk


def verify_here(lab: Lab, run: Path, wrapped: Callable[[Any], Any]) -> None:
    """Do `verify RUN` in this process, each transport replaced by what `wrapped` makes of it."""
    agent = Agent(
        load_settings(lab.config),
        scope=Scope(only=frozenset({str(run)}), is_watching=False),
        transport_factory=lambda equipment: wrapped(agent.make_transport(equipment)),
    )
    agent.open()
    answers: list[Any] = []
    agent.ask(VerifyNow(Operator("asmith"), run_path=str(run)), answers.append)
    try:
        agent.run(until_rest=True)
    finally:
        agent.close()
    assert answers[0]["ok"], answers


def reasons_of(lab: Lab, run: Path, trigger: str) -> list[str]:
    return [f["move"]["reason"] for f in lab.facts(run) if f.get("move", {}).get("trigger") == trigger]


def test_a_file_that_moves_during_every_audit_hides_no_damage_and_that_it_does_is_told(lab: Lab) -> None:
    run = proven_twice(lab)
    zero(lab.copy_of(run) / "b.bin")

    class Moving(Wrapped):
        """Another program writes the same bytes into a file again while the copy is read."""

        def read_back(self, *arguments: Any, **named: Any) -> Any:
            (run / "a.bin").write_bytes(GOOD)
            return self._inner.read_back(*arguments, **named)

    for times in (1, 2, 3):
        verify_here(lab, run, Moving)
        record = lab.record(run)
        assert (record["state"], record["verify_passes"]) == ("verified", 0)
        (incident,) = lab.cli("show", run.name, "--json").json["incidents"]
        assert (incident["kind"], incident["files"]) == ("copy_damaged", ["b.bin"])
        assert problem_kinds(lab) == {"copy_damaged", "keeps_changing"} - ({"keeps_changing"} if times < 3 else set())
    assert (lab.copy_of(run) / "b.bin").read_bytes() == bytes(5000), "nothing is repaired from a run in motion"
    assert lab.cli("verify", run.name).code == 0
    assert lab.cli("run", "--once", "--quiet").code == 0
    lab.assert_whole(run)
    assert lab.record(run)["state"] == "verified"


@pytest.mark.parametrize("harm", ["manifest", "cache folder"])
def test_a_file_that_moves_during_every_audit_hides_no_altered_seal(lab: Lab, harm: str) -> None:
    run = proven_twice(lab)
    cache = lab.copy_of(run) / CACHE
    if harm == "manifest":
        (cache / "checksums.sha256").write_bytes(b"")
    else:
        shutil.rmtree(cache)

    class Moving(Wrapped):
        def read_back(self, *arguments: Any, **named: Any) -> Any:
            (run / "a.bin").write_bytes(GOOD)
            return self._inner.read_back(*arguments, **named)

    verify_here(lab, run, Moving)
    assert lab.record(run)["state"] == "verified"
    assert [one["kind"] for one in lab.cli("show", run.name, "--json").json["incidents"]] == ["seal_altered"]
    assert "seal_altered" in problem_kinds(lab)
    assert lab.cli("verify", run.name).code == 0
    lab.assert_whole(run)
    (incident,) = lab.cli("show", run.name, "--json").json["incidents"]
    assert incident["healed_at"] is not None


@pytest.mark.parametrize("names", [{"b.bin"}, {"a.bin", "sub/c.bin"}])
def test_a_file_that_the_nas_cannot_give_back_is_damage_like_another_hash(lab: Lab, names: set[str]) -> None:
    run = proven_twice(lab)
    transports: list[CannotGiveBack] = []

    def wrapped(transport: Any) -> Any:
        transports.append(CannotGiveBack(transport, set(names)))
        return transports[-1]

    verify_here(lab, run, wrapped)
    alone = [paths for paths in transports[-1].asked if len(paths) == 1]
    assert all(alone.count((name,)) >= 2 for name in names), "each of them was asked for twice, alone"
    (reason,) = reasons_of(lab, run, "copy_damaged")
    assert f"{counted(len(names), 'file')} different or unreadable on the NAS (first: {min(names)})" in reason
    assert (lab.record(run)["state"], lab.record(run)["verify_passes"]) == ("verified", 1)
    lab.assert_whole(run)
    assert {Path(path).name for path in superseded(lab)} == {Path(name).name for name in names}


def test_a_file_that_is_read_at_the_second_try_is_no_damage(lab: Lab) -> None:
    run = proven_twice(lab)

    class OnlyOnce(CannotGiveBack):
        def read_back(self, destination: str, paths: Any, *, control: Any) -> Any:
            try:
                return super().read_back(destination, paths, control=control)
            except TransportError:
                if len(paths) == 1:
                    self._names.clear()
                raise

    verify_here(lab, run, lambda transport: OnlyOnce(transport, {"b.bin"}))
    assert triggers(lab, run)[-2:] == ["audit_started", "proven"]
    assert lab.record(run)["verify_passes"] == 3
    assert superseded(lab) == {}


def test_a_copy_of_which_nothing_can_be_read_voids_the_passes_and_is_pushed_anew_at_the_second_time(lab: Lab) -> None:
    run = proven_twice(lab)
    verify_here(lab, run, lambda transport: CannotGiveBack(transport, set(FILES)))
    record = lab.record(run)
    assert (record["state"], record["verify_passes"], record["attempts"]) == ("verified", 0, 1)
    assert "a bad block" in record["last_error"]["message"]
    assert triggers(lab, run)[-1] == "audit_interrupted"
    verify_here(lab, run, lambda transport: CannotGiveBack(transport, set(FILES)))
    assert "copy_damaged" in triggers(lab, run)
    assert (lab.record(run)["state"], lab.record(run)["verify_passes"]) == ("verified", 1)
    assert {Path(path).name for path in superseded(lab)} == {Path(path).name for path in FILES}
    lab.assert_whole(run)


def test_the_only_file_of_a_run_counts_as_unreadable_where_the_claim_beside_it_can_be_read(lab: Lab) -> None:
    run = lab.new_run(files={"a.bin": GOOD})
    assert lab.cli("run", "--once", "--quiet").code == 0
    verify_here(lab, run, lambda transport: CannotGiveBack(transport, {"a.bin"}))
    assert len(reasons_of(lab, run, "copy_damaged")) == 1
    lab.assert_whole(run)
    assert [Path(path).name for path in superseded(lab)] == ["a.bin"]


def test_a_lost_manifest_here_says_nothing_of_the_copy_there(lab: Lab) -> None:
    run = proven_twice(lab)
    (run / CACHE / "checksums.sha256").unlink()
    for manifest in (lab.state / "manifests").iterdir():
        manifest.unlink()
    said = lab.cli("verify", run.name)
    assert said.code == 3
    assert "the last verify pass could not be finished" in said.err
    record = lab.record(run)
    assert (record["state"], record["verify_passes"], record["attempts"]) == ("verified", 2, 0)


def test_a_file_that_the_account_may_not_read_on_the_target_is_damage_and_heals(
    tmp_path: Path, sshd_ordinary_user: SshServer
) -> None:
    place = sshd_ordinary_user.place("unreadable")
    lab = Lab(tmp_path, Equipment(place=place), retry_schedule=WAITS)
    run = lab.new_run(files=FILES)
    assert lab.cli("run", "--once", "--quiet").code == 0
    victim = lab.copy_of(run) / "b.bin"
    victim.chmod(0)
    assert lab.cli("verify", run.name).code == 0
    (reason,) = reasons_of(lab, run, "copy_damaged")
    assert "1 file different or unreadable on the NAS (first: b.bin)" in reason
    assert lab.record(run)["state"] == "verified"
    lab.assert_whole(run)


# --- whose copy it is ------------------------------------------------------------------------------------------------


def another_agent(lab: Lab, home: Path) -> Lab:
    """Return an agent with a state folder of its own over the same instrument folder and the same NAS."""
    other = Lab(home, *lab.equipment, is_bound=False, retry_schedule=WAITS)
    other.local, other.nas = lab.local, lab.nas
    other.settings["equipment"] = [one.to_config(other) for one in other.equipment]
    other.save_config()
    other.bind()
    return other


def damage_here(run: Path) -> None:
    zero(run / "a.bin")


def lose_some_here(run: Path) -> None:
    (run / "a.bin").unlink()
    (run / "sub/c.bin").unlink()


def lose_all_here(run: Path) -> None:
    for name in FILES:
        (run / name).unlink()
    (run / "sub").rmdir()
    put(run, {"Thumbs.db": b"thumbs"})


@pytest.mark.parametrize("change", [damage_here, lose_some_here, lose_all_here])
def test_a_sealed_copy_is_never_taken_over_by_an_agent_that_does_not_know_it(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    lab = Lab(tmp_path / "first")
    run = lab.new_run(files=FILES)
    assert lab.cli("run", "--once", "--quiet").code == 0
    job_id = lab.record(run)["job_id"]
    before = everything(lab.copy_of(run))
    change(run)
    other = another_agent(lab, tmp_path / "second")
    assert other.cli("run", "--once").code == 3
    record = other.record(run)
    assert (record["state"], record["last_error"]["kind"]) == ("conflict", "claimed_by_other_agent")
    message = record["last_error"]["message"]
    assert job_id in message
    assert os.uname().nodename in message
    assert "Restore the state folder" in message
    assert "resolve RUN --take-over" in message
    said = other.cli("problems", "--json")
    (problem,) = said.problems
    assert (said.code, problem["code"], problem["tier"]) == (3, "claimed_by_other_agent", "needs_you")
    assert problem["sentence"].startswith(f"{message} What can end it: stop the agent that holds the copy")

    again = other.cli("resolve", str(run), "--use", "local")
    assert again.code == 1
    assert other.record(run)["last_error"] == record["last_error"]
    assert "all else goes aside below .exlab-superseded" in message
    assert triggers(other, run)[-3:] == ["conflict_found", "local_chosen", "conflict_found"]
    assert everything(lab.copy_of(run)) == before
    assert superseded(lab) == {}
    assert read_creation(run)["sync_status"] == "failed"


def test_once_the_sealed_copy_was_moved_away_an_operator_s_word_is_enough(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "first")
    run = lab.new_run(files=FILES)
    assert lab.cli("run", "--once", "--quiet").code == 0
    other = another_agent(lab, tmp_path / "second")
    assert other.cli("run", "--once").code == 3
    before = everything(lab.copy_of(run))
    lab.copy_of(run).rename(lab.nas / "kept by hand")
    assert other.cli("resolve", str(run), "--use", "local").code == 0
    other.assert_whole(run)
    assert everything(lab.nas / "kept by hand") == before


def test_of_two_agents_with_a_copied_run_folder_one_has_the_copy_and_the_other_a_conflict(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "first")
    run = lab.new_run(files=FILES)
    assert lab.cli("run", "--once", "--quiet").code == 0
    before = everything(lab.copy_of(run))
    other = Lab(tmp_path / "second", is_bound=False, retry_schedule=WAITS)
    other.nas = lab.nas
    other.settings["equipment"] = [one.to_config(other) for one in other.equipment]
    other.save_config()
    other.bind()
    copied = other.local / run.relative_to(lab.local)
    shutil.copytree(run, copied)
    put(copied, {"a.bin": b"another truth"})
    for _ in range(3):
        assert other.cli("run", "--once").code == 3
        assert other.record(copied)["last_error"]["kind"] == "claimed_by_other_agent"
        assert lab.cli("verify", run.name).code == 0
        assert lab.record(run)["state"] == "verified"
    assert everything(lab.copy_of(run)).keys() == before.keys()
    assert {name: data for name, data in everything(lab.copy_of(run)).items() if CACHE not in name} == FILES
    assert superseded(lab) == {}


def test_a_copy_that_somebody_else_claimed_meanwhile_is_no_proof_and_is_not_sealed_over(tmp_path: Path) -> None:
    lab = Lab(tmp_path, retry_schedule=WAITS)
    run = lab.new_run(files=FILES)
    assert lab.cli("run", "--once", "--quiet").code == 0
    path = lab.copy_of(run) / CACHE / "exlab-watch-agent.json"
    claim = json.loads(path.read_text())
    path.write_text(json.dumps(claim | {"job_id": "f" * 32}))
    before = everything(lab.copy_of(run))
    assert lab.cli("verify", run.name).code == 3
    record = lab.record(run)
    assert (record["state"], record["last_error"]["kind"]) == ("conflict", "claimed_by_other_agent")
    assert record["verify_passes"] == 0
    assert lab.cli("verify", run.name).code == 3  # both sides are equal, and still it is somebody else's
    assert lab.record(run)["state"] == "conflict"
    assert everything(lab.copy_of(run)) == before
    assert read_creation(run)["sync_status"] == "failed"


def test_a_claim_of_another_agent_that_never_sealed_is_a_conflict_of_its_own(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "first", retry_schedule=WAITS)
    run = lab.new_run(files=FILES)
    run_to_rest(lab, wrapped=CannotCopy)
    assert lab.record(run)["state"] == "failed"
    before = everything(lab.copy_of(run))
    assert f"{CACHE}/exlab-watch-agent.json" in before
    other = another_agent(lab, tmp_path / "second")
    assert other.cli("run", "--once").code == 3
    error = other.record(run)["last_error"]
    assert error["kind"] == "claimed_unsealed"
    assert lab.record(run)["job_id"] in error["message"]
    assert everything(lab.copy_of(run)) == before


class CannotCopy(Wrapped):
    """A transport to a NAS that can be asked, claimed and tidied, and takes no data."""

    def copy(self, *_: Any, **__: Any) -> None:
        raise TransportError(FailureKind.AUTH, "not now")


class ClaimedMeanwhile(Wrapped):
    """A transport whose destination another agent claims right after the look before the push."""

    def __init__(self, inner: Any, claim: Path, text: bytes) -> None:
        super().__init__(inner)
        self._claim = claim
        self._text = text
        self._looks = 0

    def look(self, destination: str) -> Any:
        found = self._inner.look(destination)
        self._looks += 1
        if self._looks == self.AFTER_LOOK:
            self._claim.parent.mkdir(parents=True)
            self._claim.write_bytes(self._text)
        return found

    AFTER_LOOK = 1


class ClaimedAtTheLastMoment(ClaimedMeanwhile):
    """... right after the push has looked, too."""

    AFTER_LOOK = 2


@pytest.mark.parametrize("meanwhile", [ClaimedMeanwhile, ClaimedAtTheLastMoment])
@pytest.mark.parametrize("is_sealed", [False, True])
def test_a_claim_that_only_the_push_meets_leads_to_the_same_conflict_and_costs_no_attempt(
    tmp_path: Path, meanwhile: type[ClaimedMeanwhile], is_sealed: bool
) -> None:
    lab = Lab(tmp_path, retry_schedule=WAITS)
    run = lab.new_run(files=FILES)
    identity = {"created_at": "2026-04-17T14:32:00Z", "created_by": "asmith", "leaf_name": run.name}
    claim = {
        "schema": 1,
        "job_id": "f00d" * 8,
        "equipment_id": "SCOPE_01",
        "run": "/".join(run.parts[-3:]),
        "identity": identity | {"project_uid": f"uid {run.parent.parent.name}"},
    }
    if is_sealed:
        claim |= {"manifest_sha256": "0" * 64, "host": "labpc-07", "sealed_at": "2026-04-18T09:00:00Z"}
    text = json.dumps(claim).encode()
    path = lab.copy_of(run) / CACHE / "exlab-watch-agent.json"
    run_to_rest(lab, wrapped=lambda transport: meanwhile(transport, path, text))
    record = lab.record(run)
    assert lab.states(run)[-2:] == ["running", "conflict"]
    assert record["last_error"]["kind"] == ("claimed_by_other_agent" if is_sealed else "claimed_unsealed")
    assert record["attempts"] == 0
    assert "f00d" * 8 in record["last_error"]["message"]
    assert ("labpc-07" in record["last_error"]["message"]) == is_sealed
    assert ("2026-04-18T09:00:00Z" in record["last_error"]["message"]) == is_sealed
    assert everything(lab.copy_of(run)) == {f"{CACHE}/exlab-watch-agent.json": text}


# --- `synced` here comes after the seal there ------------------------------------------------------------------------


class RefusesTheManifest(Wrapped):
    """A transport to a NAS on which, after the data are there, a folder has the manifest's name."""

    def __init__(self, inner: Any, in_the_way: Path) -> None:
        super().__init__(inner)
        self._in_the_way = in_the_way

    def copy(self, *arguments: Any, **named: Any) -> None:
        self._inner.copy(*arguments, **named)
        self._in_the_way.mkdir()


def test_creation_json_here_does_not_say_synced_before_the_nas_has_the_seal(lab: Lab) -> None:
    run = lab.new_run(files=FILES)
    in_the_way = lab.copy_of(run) / CACHE / "checksums.sha256"
    run_to_rest(lab, wrapped=lambda transport: RefusesTheManifest(transport, in_the_way))
    record = lab.record(run)
    assert (record["state"], record["attempts"]) == ("sealing", 1)
    assert "checksums.sha256" in record["last_error"]["message"]
    assert read_creation(run)["sync_status"] == "pending"
    with lab.running():
        until(lambda: lab.record(run)["attempts"] >= 2, "it is tried again")
        assert read_creation(run)["sync_status"] == "pending"
        in_the_way.rmdir()
        lab.until_state(run, "verified")
    lab.assert_whole(run)


# --- the seal is looked at by each audit -----------------------------------------------------------------------------


def lose_the_cache_folder(lab: Lab, run: Path) -> None:
    shutil.rmtree(lab.copy_of(run) / CACHE)


def lose_the_claim(lab: Lab, run: Path) -> None:
    (lab.copy_of(run) / CACHE / "exlab-watch-agent.json").unlink()


def damage_the_claim(lab: Lab, run: Path) -> None:
    (lab.copy_of(run) / CACHE / "exlab-watch-agent.json").write_bytes(b"no claim")


def alter_the_manifest(lab: Lab, run: Path) -> None:
    (lab.copy_of(run) / CACHE / "checksums.sha256").write_bytes(b"0" * 64 + b"  a.bin\n")


def take_synced_back(lab: Lab, run: Path) -> None:
    there = lab.copy_of(run) / CACHE / "creation.json"
    there.write_text(there.read_text().replace('"synced"', '"pending"'))


@pytest.mark.parametrize(
    ("harm", "said", "kept"),
    [
        (lose_the_cache_folder, "its claim is gone", []),
        (lose_the_claim, "its claim is gone", []),
        (damage_the_claim, "its claim is gone or damaged", [b"no claim"]),
        (alter_the_manifest, "its manifest was altered", [b"0" * 64 + b"  a.bin\n"]),
        (take_synced_back, "does not say synced", []),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_seal_that_was_lost_or_altered_on_the_nas_is_made_again_and_what_was_altered_is_kept(
    lab: Lab, harm: Callable[[Lab, Path], None], said: str, kept: list[bytes]
) -> None:
    run = proven_twice(lab)
    harm(lab, run)
    assert lab.cli("verify", run.name).code == 0
    assert triggers(lab, run)[-3:] == ["audit_started", "seal_missed", "sealed"]
    assert said in reasons_of(lab, run, "seal_missed")[0]
    lab.assert_whole(run)
    assert (lab.record(run)["state"], lab.record(run)["verify_passes"]) == ("verified", 3)
    assert list(superseded(lab).values()) == kept
    assert lab.cli("verify", run.name).code == 0
    assert triggers(lab, run)[-2:] == ["audit_started", "proven"]


@pytest.mark.parametrize("is_here", [True, False])
@pytest.mark.parametrize("harm", [lambda path: path.write_bytes(b"{}"), Path.unlink], ids=["altered", "lost"])
def test_what_travelled_beside_the_data_is_looked_at_by_each_audit(
    lab: Lab, harm: Callable[[Path], None], is_here: bool
) -> None:
    lab.new_run(files=FILES)
    run = lab.new_run(files=FILES)
    (run / CACHE / "readme_fields.json").write_bytes(b'{"from": "the instrument"}')
    assert lab.cli("run", "--once", "--quiet").code == 0
    if not is_here:
        shutil.rmtree(run)
        assert lab.cli("run", "--once", "--quiet").code == 0
        assert lab.record(run)["state"] == "cleaned"
    there = lab.copy_of(run) / CACHE / "readme_fields.json"
    harm(there)
    assert lab.cli("verify", run.name).code == (0 if is_here else 4)
    (incident,) = lab.cli("show", run.name, "--json").json["incidents"]
    assert incident["kind"] == "seal_altered"
    assert "readme_fields.json" in incident["what"]
    if not is_here:
        assert problem_kinds(lab) == {"seal_altered", "removed_by_others"}
        return
    assert there.read_bytes() == b'{"from": "the instrument"}'
    assert list(superseded(lab).values()) in ([b"{}"], [])
    lab.assert_whole(run)
    # What changed here and was not brought yet is nobody's harm there.
    (run / CACHE / "readme_fields.json").write_bytes(b'{"from": "the instrument", "and": "more"}')
    assert lab.cli("verify", run.name).code == 0
    assert triggers(lab, run)[-2:] == ["audit_started", "proven"]


@pytest.mark.parametrize("damaged", [False, True], ids=["by the seal alone", "by a push that heals"])
def test_what_a_curator_wrote_into_the_cache_folder_there_is_kept_before_it_is_replaced(
    lab: Lab, damaged: bool
) -> None:
    run = lab.new_run(files=FILES)
    (run / CACHE / "readme_fields.json").write_bytes(b'{"from": "the instrument"}')
    (run / CACHE / "wizard.otherpc.log").write_bytes(b"one\ntwo\n")
    assert lab.cli("run", "--once", "--quiet").code == 0
    there = lab.copy_of(run) / CACHE
    (there / "readme_fields.json").write_bytes(b'{"from": "a curator"}')
    (there / "wizard.otherpc.log").write_bytes(b"one\n")  # what it was before: nothing of it is lost
    take_synced_back(lab, run)
    if damaged:
        zero(lab.copy_of(run) / "a.bin")
    lab.cli("verify", run.name)
    lab.cli("run", "--once", "--quiet")
    lab.assert_whole(run)
    assert (there / "readme_fields.json").read_bytes() == b'{"from": "the instrument"}'
    kept = {Path(name).name: data for name, data in superseded(lab).items() if "/seal-" in name}
    assert kept == {"readme_fields.json": b'{"from": "a curator"}'}


def test_the_heartbeat_on_the_nas_alone_tells_that_the_state_folder_is_an_older_copy(lab: Lab) -> None:
    proven_twice(lab)
    older = lab.state.with_name("older")
    shutil.copytree(lab.state, older)
    lab.new_run(files=FILES)
    assert lab.cli("run", "--once", "--quiet").code == 0
    (left,) = (lab.nas / "SCOPE_01" / ".exlab-watch-agent").glob("*.json")
    told = json.loads(left.read_bytes())["audit_seq"]
    shutil.rmtree(lab.state)
    older.rename(lab.state)
    lab.cli("run", "--once", "--quiet")
    (held,) = [
        fact["data"]
        for fact in lab.trail()
        if fact["kind"] == "trail_found_behind" and "heartbeat" in fact["data"]["found"]
    ]
    assert held["seq"] == told
    assert "deletion_on_hold" in problem_kinds(lab)
    assert json.loads(left.read_bytes())["audit_seq"] != told, "it is left anew once that is on record"


# --- a state folder that is not the one that sealed ------------------------------------------------------------------


def test_a_state_folder_that_was_put_back_to_an_older_copy_holds_deletion_until_it_is_accepted(lab: Lab) -> None:
    run = proven_twice(lab)
    older = lab.state.with_name("older")
    shutil.copytree(lab.state, older)
    (lab.copy_of(run) / CACHE / "checksums.sha256").unlink()
    assert lab.cli("verify", run.name).code == 0, (
        "sealed again, at a line that the copy of the state folder does not have"
    )
    assert lab.cli("problems").code == 0
    shutil.rmtree(lab.state)
    older.rename(lab.state)
    lab.cli("verify", run.name)
    said = lab.cli("problems")
    assert "older copy" in said.out
    assert "resolve --accept-trail" in said.out
    assert "deletion_on_hold" in problem_kinds(lab)
    held = [fact for fact in lab.trail() if fact["kind"] == "trail_found_behind"]
    lab.cli("verify", run.name)
    assert [fact for fact in lab.trail() if fact["kind"] == "trail_found_behind"] == held, "it is told once"
    assert lab.cli("resolve", "--accept-trail", "--reason", "the backup is what we have").code == 0
    assert lab.cli("verify", run.name).code == 0
    assert lab.cli("problems").code == 0
    lab.assert_whole(run)


class GoesAtTheSeal(Wrapped):
    """A NAS that goes away in the moment in which the seal is written."""

    def replace(self, source_root: str, files: Any, destination: str, *, control: Any, instead: Any) -> None:
        if any(path.endswith("checksums.sha256") for path in instead):
            raise DestinationUnreachableError("the NAS went away")
        self._inner.replace(source_root, files, destination, control=control, instead=instead)


def test_a_run_that_waits_for_its_seal_is_proven_anew_where_its_destination_counts_as_another(tmp_path: Path) -> None:
    """Its passes were void, and it was sealed all the same: over a file that had rotted, which nobody had hashed there."""
    lab = Lab(tmp_path, retry_schedule=["1s"] * 2)
    run = lab.new_run(files={"a.bin": b"a" * 9000, "b.bin": b"b"})
    run_to_rest(lab, wrapped=GoesAtTheSeal)
    assert lab.record(run)["state"] == "sealing"
    lab.nas.rename(tmp_path / "mounted elsewhere")
    lab.nas = tmp_path / "mounted elsewhere"
    lab.settings["equipment"] = [one.to_config(lab) for one in lab.equipment]
    lab.save_config()
    rotten = lab.copy_of(run) / "a.bin"
    status = rotten.stat()
    rotten.write_bytes(bytes(9000))
    os.utime(rotten, ns=(status.st_atime_ns, status.st_mtime_ns))
    until(lambda: lab.cli("run", "--once", "--quiet") and lab.record(run)["state"] == "verified", "it is sealed")
    assert rotten.read_bytes() == b"a" * 9000
    lab.assert_whole(run)
