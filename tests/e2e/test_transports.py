"""Full lives of runs through every transport, to real servers: what arrived is compared on the server's own disk."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from exlab_watch_agent.adapters.clock import SystemClock
from tests.lab.lab import (
    CACHE,
    AgentProcess,
    Equipment,
    Lab,
    Said,
    hashes,
    override,
    read_creation,
    run_to_rest,
    save_in_place,
    tombstone,
    until,
)
from tests.lab.links import Link
from tests.lab.servers import MountedFolder, Place, RcloneRemote, SshServer, descendants
from tests.lab.wrapped import Wrapped

TO_THE_END = ["acquiring", "queued", "running", "prechecking", "awaiting_verify", "sealing", "verified"]
AGAIN = ["auditing", "queued", "running", "prechecking", "awaiting_verify", "sealing", "verified"]
PUSHING = {"queued", "running", "prechecking", "awaiting_verify"}
SOON_AGAIN = ["1s"] * 5
MIB = 1 << 20
ASIDE = ".exlab-superseded"
LEAF = "Run_2026-04-17T14-32"
PROJECTS = ("PROJ-0042 Cortex pilot", "PROJ-0043 Zürich & co")
PATIENCE_S = 150.0  # many servers on a machine that may be busy
pytestmark = pytest.mark.timeout(2 * PATIENCE_S)
FILES = {
    "flipped.bin": b"x" * 300_000 + b"the end",
    "truncated.bin": os.urandom(1_500_000),
    "deleted.bin": b"deleted",
    "empty": b"",
    "-rf": b"1",
    "it's $HOME; `id` & 100 %s.txt": b"2",
    "β-tubulin/Zürich/Zu\u0308rich.tif": b"3" * 5000,
    "deep/er/and/deeper/z.bin": b"4",
    "two  spaces": b"5",
    ".hidden": b"6",
    "n" * 120: b"7",
}


@dataclass(frozen=True)
class Way:
    """One transport to one server. `is_opaque`: what lies on the server's disk is not what the agent sees there.

    `may_show_less`: for a moment the server may show a file that it has just taken in as shorter. Then the push fails or
    the copy looks partial; it is put back and done again, and what looked partial is kept aside.
    """

    fixture: str
    is_opaque: bool = False
    may_show_less: bool = False

    @property
    def equipment_id(self) -> str:
        return self.fixture.upper()

    def place(self, request: pytest.FixtureRequest, name: str) -> Place:
        server: SshServer | RcloneRemote | MountedFolder = request.getfixturevalue(self.fixture)
        return server.place(name)

    def has_gone(self, states: list[str], path: list[str]) -> bool:
        """Return whether a run's states are this path, which has one push.

        Where less may be shown for a moment, what must hold is how it began and how it ended: whatever looked partial in
        between was put back and done again, and nothing but pushing and proving happened meanwhile.
        """
        if not self.may_show_less:
            return states == path
        begun = path[: path.index("queued") + 1]
        between = states[len(begun) : -2]
        return states[: len(begun)] == begun and states[-2:] == path[-2:] and {*between} <= {*PUSHING, "sealing"}

    def assert_kept(self, aside: Path, wanted: Mapping[str, bytes]) -> None:
        """Fail unless these damaged files were moved aside, and else only what may have been shown as shorter than it is."""
        kept = [(path.name, path.read_bytes()) for path in sorted(aside.rglob("*")) if path.is_file()]
        others = [(name, data) for name, data in kept if wanted.get(name) != data]
        assert {name: data for name, data in kept if (name, data) not in others} == wanted
        if not self.may_show_less:
            assert others == []
        leaves = {PurePosixPath(path).name: data for path, data in FILES.items()}
        assert [name for name, data in others if not leaves.get(name, b"").startswith(data)] == [], (
            "of no file of the run"
        )


WAYS = [
    Way("mounted"),
    Way("rclone_local"),
    Way("rclone_alias"),
    Way("rclone_crypt", is_opaque=True),
    Way("rclone_sftp"),
    Way("rclone_webdav", may_show_less=True),
    Way("rclone_ftp", may_show_less=True),
    Way("rclone_s3"),
    Way("rclone_smb"),
    Way("rclone_sshd"),
    Way("rclone_sshd_without_commands"),
    Way("sshd"),
    Way("sshd_ordinary_user"),
    Way("sshd_busybox"),
    Way("sshd_bare"),
    Way("sshd_rrsync"),
]
FEW = ("mounted", "rclone_ftp", "rclone_s3", "rclone_smb", "rclone_sshd", "sshd", "sshd_busybox")
EVERY_WAY = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.fixture)


def ways(*fixtures: str) -> pytest.MarkDecorator:
    chosen = [way for way in WAYS if way.fixture in fixtures]
    assert len(chosen) == len(fixtures)
    return pytest.mark.parametrize("way", chosen, ids=lambda way: way.fixture)


def mib(count: float) -> bytes:
    return os.urandom(int(count * MIB))


# --- one agent, a lane for every way ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def places(request: pytest.FixtureRequest) -> Mapping[str, Place]:
    return {way.fixture: way.place(request, "one agent, all ways") for way in WAYS}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, places: Mapping[str, Place]) -> Lab:
    equipment = [Equipment(way.equipment_id, place=places[way.fixture]) for way in WAYS]
    return Lab(tmp_path_factory.mktemp("lab"), *equipment, max_parallel_runs=4, retry_schedule=SOON_AGAIN)


@pytest.fixture(scope="module")
def runs(lab: Lab) -> Mapping[str, list[Path]]:
    """Runs of the same name in two projects, for every way. They are all there before the agent starts."""
    return {
        way.fixture: [lab.new_run(LEAF, FILES, equipment=way.equipment_id, project=project) for project in PROJECTS]
        for way in WAYS
    }


@pytest.fixture(scope="module")
def agent(lab: Lab, runs: Mapping[str, list[Path]], request: pytest.FixtureRequest) -> Iterator[AgentProcess]:
    with lab.running(as_user=True) as agent:
        yield agent
    lab.assert_chain_holds()
    assert lab.debris() == []
    assert_no_secret_in(lab, request)
    assert not list(lab.state.rglob("*.conf")), "it goes with the agent"


def assert_no_secret_in(lab: Lab, request: pytest.FixtureRequest, *more: str) -> None:
    """Fail if a password, plain or obscured, is in anything that the agent wrote or said."""
    written = [path for folder in (lab.state, lab.local, lab.nas) for path in folder.rglob("*") if path.is_file()]
    # What a running rclone reads, and for a moment what it saves there beside it: for us alone.
    configs = [path for path in written if path.match("rclone-*.conf*")]
    for path in configs:
        with suppress(FileNotFoundError):
            assert not path.stat().st_mode & 0o077
    written = [path for path in written if path not in configs]
    said = [path.read_bytes() for path in (*written, lab.home / "agent.out") if path.exists()]
    said += [text.encode() for text in more]
    for way in WAYS:
        for secret in getattr(request.getfixturevalue(way.fixture), "secrets", ()):
            assert not [text for text in said if secret.encode() in text], f"the password of {way.fixture}"


def seen_by_another(way: Way, run: Path, lab: Lab, request: pytest.FixtureRequest, folder: Path) -> Path:
    """Return a folder with the run's copy as another program gets it; on the server's disk where that is the same."""
    if not way.is_opaque:
        return lab.copy_of(run)
    remote: RcloneRemote = request.getfixturevalue(way.fixture)
    path = run.relative_to(lab.local / way.equipment_id).as_posix()
    remote.rclone("copy", f"{remote.name}:one agent, all ways/{path}", str(folder))
    return folder


@EVERY_WAY
def test_runs_of_one_name_in_two_projects_end_whole_each_in_its_folder_and_nothing_else_is_there(
    lab: Lab,
    agent: AgentProcess,
    runs: Mapping[str, list[Path]],
    way: Way,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    for number, run in enumerate(runs[way.fixture]):
        lab.until_state(run, "verified", "failed", "conflict", "blocked", wait_s=PATIENCE_S)
        assert way.has_gone(lab.states(run), TO_THE_END), (lab.states(run), lab.record(run)["last_error"])
        lab.assert_whole(run, seen_by_another(way, run, lab, request, tmp_path / str(number)))
    if way.is_opaque:
        return
    root = lab.destination_root(runs[way.fixture][0])
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    wanted = {
        f"{project}/Runs/{LEAF}/{name}"
        for run, project in zip(runs[way.fixture], PROJECTS, strict=True)
        for name in (*FILES, *(path.relative_to(run).as_posix() for path in (run / CACHE).iterdir()))
        if not name.endswith(".lock")
    }
    if way.may_show_less:
        way.assert_kept(root / ASIDE, {})
        found = {path for path in found if not path.startswith(ASIDE)}
    extra = {path for path in found - wanted if not path.startswith(".exlab-watch-agent")}
    assert (extra, wanted - found) == (set(), set()), "a nested folder, a meeting of runs, or debris"


@EVERY_WAY
def test_what_is_damaged_on_the_server_is_found_healed_and_kept(
    lab: Lab,
    agent: AgentProcess,
    runs: Mapping[str, list[Path]],
    way: Way,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    run = runs[way.fixture][0]
    lab.until_state(run, "verified", wait_s=PATIENCE_S)
    copy = lab.copy_of(run)
    if way.is_opaque:
        remote: RcloneRemote = request.getfixturevalue(way.fixture)
        path = run.relative_to(lab.local / way.equipment_id).as_posix()
        remote.rclone("deletefile", f"{remote.name}:one agent, all ways/{path}/deleted.bin")
    else:
        flip_a_byte(copy / "flipped.bin")
        os.truncate(copy / "truncated.bin", 1_000_000)
        (copy / "deleted.bin").unlink()
    flipped = (copy / "flipped.bin").read_bytes() if not way.is_opaque else b""
    before = len(lab.states(run))
    said = lab.cli("verify", str(run))
    assert (said.code, said.err) == (0, "")
    until(lambda: way.has_gone(lab.states(run)[before:], AGAIN), "healed", wait_s=PATIENCE_S)
    lab.assert_whole(run, seen_by_another(way, run, lab, request, tmp_path / "healed"))
    if not way.is_opaque:
        aside = lab.destination_root(run) / ASIDE / run.relative_to(lab.local / way.equipment_id)
        way.assert_kept(aside, {"flipped.bin": flipped, "truncated.bin": FILES["truncated.bin"][:1_000_000]})


def flip_a_byte(path: Path) -> None:
    """Damage a file as a disk does: the size and the time stay."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(100_000)
        file.write(b"y")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_what_the_commands_say_are_sentences_without_secrets(
    lab: Lab, agent: AgentProcess, runs: Mapping[str, list[Path]], request: pytest.FixtureRequest
) -> None:
    for way in WAYS:
        lab.until_state(runs[way.fixture][1], "verified", wait_s=PATIENCE_S)
    status, problems = lab.cli("status"), lab.cli("problems")
    assert (problems.code, problems.err) == (0, ""), problems.out
    shown = [lab.cli("show", str(runs[way.fixture][1])) for way in WAYS]
    assert [said.code for said in shown] == [0] * len(WAYS)
    assert_no_secret_in(lab, request, status.out, problems.out, *(said.out for said in shown))


# --- what stands against a copy --------------------------------------------------------------------------------------


class LosesTheEnd(Wrapped):
    """A transport whose NAS loses the end of a file, once, after it has said that all is well."""

    def __init__(self, inner: Any, copy: Path) -> None:
        super().__init__(inner)
        self._copy = copy
        self.has_lost = False

    def copy(self, *arguments: Any, **named: Any) -> None:
        self._inner.copy(*arguments, **named)
        if not self.has_lost:
            self.has_lost = True
            os.truncate(self._copy / "truncated.bin", 700_000)


# Not by FTP: rclone's server for it may itself show a file shorter for a moment, and then the first push fails by that.
@ways(*(fixture for fixture in FEW if fixture != "rclone_ftp"))
def test_a_partial_copy_is_caught_before_the_verify(way: Way, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    lab = Lab(tmp_path, Equipment(place=way.place(request, "partial")))
    run = lab.new_run(files=FILES)

    run_to_rest(lab, wrapped=lambda transport: LosesTheEnd(transport, lab.copy_of(run)))
    assert lab.states(run) == [*TO_THE_END[:4], *TO_THE_END[1:]]
    lab.assert_whole(run)
    aside = lab.destination_root(run) / ASIDE
    assert [path.stat().st_size for path in aside.rglob("*") if path.is_file()] == [700_000]


def run_once(lab: Lab, *runs: tuple[Way, Path]) -> Said:
    """Do `run --once`, and once more while a run waits for its next try whose push may have been put back."""

    def said() -> Said | None:
        said = lab.cli("run", "--once", "--quiet", wait_s=PATIENCE_S)
        waits = [way for way, run in runs if lab.record(run)["state"] == "queued"]
        return None if waits else said

    return until(said, "no run waits for its next try", wait_s=PATIENCE_S)


def test_runs_of_one_name_are_a_conflict_where_the_destination_is_flat(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    chosen = [way for way in WAYS if way.fixture in FEW]
    equipment = [Equipment(way.equipment_id, place=way.place(request, "flat")) for way in chosen]
    lab = Lab(tmp_path, *equipment, layout="flat", max_parallel_runs=4, retry_schedule=SOON_AGAIN)
    runs = {
        way.fixture: [
            lab.new_run(LEAF, {"a.bin": name.encode()}, equipment=way.equipment_id, project=name) for name in "AB"
        ]
        for way in chosen
    }
    assert run_once(lab, *((way, run) for way in chosen for run in runs[way.fixture])).code == 3
    for way in chosen:
        states = {lab.record(run)["state"]: run for run in runs[way.fixture]}
        assert states.keys() == {"verified", "conflict"}, way
        lab.assert_whole(states["verified"], lab.destination_root(states["verified"]) / LEAF)
        assert lab.record(states["conflict"])["last_error"]["kind"] == "destination_occupied"
        said = lab.cli("show", str(states["conflict"])).out
        assert "another run's data" in said


@ways("rclone_ftp", "rclone_smb", "rclone_sshd_without_commands")
def test_a_file_too_large_to_be_proven_by_download_is_said_and_not_called_synced(
    way: Way, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    lab = Lab(tmp_path, Equipment(place=way.place(request, "oversize")), retry_schedule=SOON_AGAIN)
    lab.settings["verify"] = {"max_stream_bytes": 100_000}
    lab.save_config()
    small, large = (
        lab.new_run(files={"a.bin": mib(0.05)}),
        lab.new_run(files={"a.bin": mib(0.05), "large.bin": mib(0.2)}),
    )
    said = run_once(lab, (way, small), (way, large))
    lab.assert_whole(small)
    assert said.code == 3
    assert lab.record(large)["state"] == "failed"
    assert lab.record(large)["last_error"]["kind"] == "verify_skipped_oversize"
    assert read_creation(large)["sync_status"] == "failed"
    problem = lab.cli("problems").out
    assert "large.bin" in problem
    assert "max_stream_bytes" in problem, "the next step"
    lab.settings["verify"] = {"max_stream_bytes": 1_000_000}
    lab.save_config()
    assert lab.cli("retry", str(large), wait_s=PATIENCE_S).code == 0
    run_once(lab, (way, large))
    lab.assert_whole(large)


# --- stops and breaks in the middle of a transfer --------------------------------------------------------------------

TOOLS = ("rclone_smb", "rclone_sshd", "sshd")
WITH_A_TOOL = ways(*TOOLS)
MIDDLE = ways("mounted", *TOOLS)


def slow_lab(tmp_path: Path, place: Place, **agent: Any) -> Lab:
    """A lab whose pushes take seconds: one MiB a second."""
    waits = ["1s"] * 6
    return Lab(tmp_path, Equipment(place=place, upload_mbps=8), retry_schedule=waits, is_quick=True, **agent)


def without_limit(lab: Lab) -> None:
    lab.settings["equipment"][0]["transport"].pop("bandwidth")
    lab.save_config()


def until_in_the_middle(lab: Lab, run: Path) -> None:
    """Wait until some bytes have moved and some have not."""

    def is_in_the_middle() -> bool:
        assert lab.record(run)["state"] not in ("failed", "conflict", "verified"), lab.record(run)["last_error"]
        shown = lab.live().get("progress", {}).get(lab.record(run).get("job_id"), {})
        return bool(0 < shown.get("bytes_done", 0) < lab.record(run)["bytes_total"])

    until(is_in_the_middle, "progress in the middle of the push", wait_s=PATIENCE_S)


@MIDDLE
def test_an_agent_killed_in_the_middle_leaves_no_process_and_no_file_and_the_next_one_ends_it(
    way: Way, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A short name: the programs of some ways make sockets there.
    temporary = Path(tempfile.mkdtemp(prefix="t-"))
    monkeypatch.setenv("TMPDIR", str(temporary))
    lab = slow_lab(tmp_path, way.place(request, "killed agent"))
    run = lab.new_run(files={f"{number}.bin": mib(1) for number in range(4)})
    with AgentProcess(lab) as agent:
        until_in_the_middle(lab, run)
        tools = descendants(agent.pid)
        assert tools or way.fixture == "mounted", "a tool was at work"
    until(lambda: not [pid for pid in tools if is_alive(pid)], "no tool goes on without its agent")
    left = [path for path in temporary.iterdir() if not path.name.startswith("exlab-ssh-")]  # those go after a day
    shutil.rmtree(temporary)
    assert left == []
    without_limit(lab)
    assert lab.cli("run", "--once", "--quiet", wait_s=PATIENCE_S).code == 0
    lab.assert_whole(run)
    assert lab.record(run)["attempts"] == 0
    assert lab.debris() == []
    lab.assert_log_is_clean()


def is_alive(pid: int) -> bool:
    """Return whether the process is there and not merely waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


@WITH_A_TOOL
def test_a_tool_killed_in_the_middle_is_started_again(way: Way, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    lab = slow_lab(tmp_path, way.place(request, "killed tool"))
    run = lab.new_run(files={f"{number}.bin": mib(1) for number in range(5)})
    with lab.running() as agent:
        until_in_the_middle(lab, run)
        name = lab.settings["equipment"][0]["transport"]["type"].partition("_")[0]
        tools = [pid for pid in descendants(agent.pid) if Path(f"/proc/{pid}/comm").read_text().strip() == name]
        assert tools
        for pid in tools:
            os.kill(pid, signal.SIGKILL)
        lab.until_state(run, "verified", "failed", "conflict", wait_s=PATIENCE_S)
    lab.assert_whole(run)
    assert lab.debris() == []


@ways("rclone_sshd", "sshd")
def test_a_server_that_is_away_for_a_while_makes_the_lane_wait_and_costs_no_attempt(
    way: Way, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    lab = slow_lab(tmp_path, way.place(request, "away for a while"))
    run = lab.new_run(files={f"{number}.bin": mib(1) for number in range(3)})
    service = request.getfixturevalue(way.fixture).service
    with lab.running():
        until_in_the_middle(lab, run)
        service.stop()
        try:
            until(lambda: lane(lab)["waiting_since"], "the lane waits", wait_s=PATIENCE_S)
            until(lambda: lab.record(run)["state"] == "queued", "it is put back", wait_s=PATIENCE_S)
            problems = lab.cli("problems", "--json").problems
            assert [problem["code"] for problem in problems] == ["nas_unreachable"]
            assert problems[0]["sentence"].startswith(f"NAS unreachable since {lane(lab)['waiting_since']}: ")
        finally:
            service.start()
        lab.until_state(run, "verified", wait_s=PATIENCE_S)
        assert lab.record(run)["attempts"] == 0
        assert not [fact for fact in lab.facts(run) if fact["record"]["attempts"]]
    lab.assert_whole(run)
    assert lab.debris() == []


def lane(lab: Lab) -> dict[str, Any]:
    return dict(lab.live()["lanes"]["SCOPE_01"])


@MIDDLE
def test_a_revoked_override_ends_the_tool_in_the_middle(
    way: Way, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    lab = slow_lab(tmp_path, way.place(request, "revoked"))
    allowed = override("leftover_jinja_marker")
    run = lab.new_run(files={"a_{{b}}.bin": mib(8)}, validation_overrides=[allowed])
    with lab.running() as agent:
        until_in_the_middle(lab, run)
        name = lab.settings["equipment"][0]["transport"]["type"].partition("_")[0]
        save_in_place(run, read_creation(run) | {"validation_overrides": [allowed, tombstone(allowed["id"])]})
        lab.until_state(run, "blocked")
        moving = {pid for pid in descendants(agent.pid) if has_argument(pid, "--files-from")}
        until(lambda: not [pid for pid in moving if is_alive(pid)], f"no {name} moves data any more")
    assert "a_{{b}}.bin" not in hashes(lab.copy_of(run))


def has_argument(pid: int, beginning: str) -> bool:
    try:
        return any(
            word.startswith(beginning.encode()) for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        )
    except OSError:
        return False


# --- the rate --------------------------------------------------------------------------------------------------------


@MIDDLE
def test_a_push_keeps_to_the_limit_and_the_limit_ends_with_its_window(
    way: Way, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    lab = Lab(tmp_path, Equipment(place=way.place(request, "limited"), upload_mbps=8))
    window = {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "00:00", "to": "08:00"}
    lab.settings["equipment"][0]["transport"]["bandwidth"]["schedule"] = [window]
    lab.save_config()
    run = lab.new_run(files={"a.bin": mib(40)})  # 40 s at the limit
    began = SystemClock().monotonic_s()

    class LateClock(SystemClock):
        """At the start it is four seconds to eight."""

        def now_local(self) -> datetime:
            return datetime(2026, 4, 17, 7, 59, 56) + timedelta(seconds=self.monotonic_s() - began)  # noqa: DTZ001

    run_to_rest(lab, clock=LateClock())
    lab.assert_whole(run)
    at = {fact["move"]["dest"]: fact["at"] for fact in lab.facts(run)}
    took_s = (datetime.fromisoformat(at["prechecking"]) - datetime.fromisoformat(at["running"])).total_seconds()
    assert 2 < took_s < 30, "without a limit it takes no time, with it for ever 40 s"


@pytest.mark.parametrize("fixture", ["sshd", "rclone_sshd"])
def test_a_window_that_begins_in_the_middle_of_a_file_holds_from_then_on(
    fixture: str, sshd: SshServer, rclone_sshd: RcloneRemote, tmp_path: Path
) -> None:
    """The way there carries 4 MiB a second, the window 1, and the window opens when the push is two seconds old."""
    with Link(sshd.port) as link:
        link.rate_up = 4 * MIB
        known_hosts = str(sshd.known_hosts_for(link.port))
        if fixture == "sshd":
            place = sshd.place("window begins", ssh_port=link.port, known_hosts=known_hosts)
        else:
            changed = rclone_sshd.changed(tmp_path / "rclone", port=str(link.port), known_hosts_file=known_hosts)
            place = changed.place("window begins")
        lab = Lab(tmp_path, Equipment(place=place, upload_mbps=8))
        window = {"days": ["fri"], "from": "08:00", "to": "18:00"}
        lab.settings["equipment"][0]["transport"]["bandwidth"]["schedule"] = [window]
        lab.save_config()
        run = lab.new_run(files={"a.bin": mib(16)})
        clock, opens_s = SystemClock(), 0.0
        seen: list[tuple[float, int]] = []

        class EarlyClock(SystemClock):
            """It is two seconds to eight when the first MiB has gone up."""

            def now_local(self) -> datetime:
                nonlocal opens_s
                now_s = self.monotonic_s()
                if opens_s == 0.0 and link.bytes_up > MIB:
                    opens_s = now_s + 2
                seen.append((now_s, link.bytes_up))
                return datetime(2026, 4, 17, 8) + timedelta(seconds=now_s - opens_s if opens_s else -60)  # noqa: DTZ001

        run_to_rest(lab, clock=EarlyClock())
        ended_s = clock.monotonic_s()
    lab.assert_whole(run)
    assert opens_s, "the push was asked for its rate"
    full_s = opens_s + 1.5  # what has left the agent already is on its way
    before = [up for at_s, up in seen if at_s <= opens_s]
    after = [(at_s, up) for at_s, up in seen if at_s >= full_s]
    assert before[-1] > 4 * MIB, "until then it went as fast as it could"
    assert after[-1][1] - after[0][1] > MIB, "there was something left"
    rate = (after[-1][1] - after[0][1]) / (after[-1][0] - after[0][0])
    assert 0.6 * MIB < rate < 1.4 * MIB
    assert ended_s > full_s
