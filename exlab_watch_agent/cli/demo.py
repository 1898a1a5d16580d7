"""`demo`: the real agent on a sample instrument tree and a NAS folder, told as a story. Its world is app/demo.py's."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
from pathlib import Path

from exlab_watch_agent.app.demo import SENTINEL, SETTLE_S, World
from exlab_watch_agent.cli.saying import say
from exlab_watch_agent.core.record import Move, RunRecord
from exlab_watch_agent.core.text import printable, shortened
from exlab_watch_agent.errors import AgentError, ConfigError, ExitCode
from exlab_watch_agent.statechart import RunState

STEP_WAIT_S = 60.0
REASON_SHOWN_MAX = 100


def tell(keep: Path | None) -> int:
    """Tell the story in a temporary folder, or in `keep`, which must be new; return the exit code."""
    if keep is not None:
        if keep.exists():
            raise ConfigError(f"{printable(str(keep))} exists: the demo only builds in a new folder.")
        keep.mkdir(parents=True)
        return _Story(keep, is_kept=True).tell()
    home = Path(tempfile.mkdtemp(prefix="exlab-demo-"))
    try:
        return _Story(home, is_kept=False).tell()
    finally:
        shutil.rmtree(home)


class _Story:
    def __init__(self, home: Path, *, is_kept: bool) -> None:
        self._world = World(home)
        self._is_kept = is_kept
        self._changed = threading.Condition()
        self._records: dict[str, RunRecord] = {}
        self._began_s = self._world.clock.monotonic_s()

    def tell(self) -> int:
        _say("An instrument PC, a NAS folder, and the agent between them.")
        _say(f"  instrument  {self._world.local}")
        _say(f"  NAS         {self._world.nas}")
        partial_leaf = "Run_2026-04-17T16-45"
        with self._world.agent_at_work(self._on_move, forgets=partial_leaf):
            clean = self._tell_clean("Run_2026-04-17T14-32")
            blocked = self._tell_blocked("Run_2026-04-17T15-10")
            partial = self._tell_partial(partial_leaf)
        return self._tell_end([clean, blocked, partial])

    # --- the three stories -------------------------------------------------------------------------------------------

    def _tell_clean(self, leaf: str) -> Path:
        _chapter("1. A clean run")
        run = self._world.begin_run(leaf)
        _say("The instrument writes three images. The agent knows the run from its creation.json and waits:")
        for number in range(3):
            (run / f"image_{number:03d}.tif").write_bytes(secrets.token_bytes(700_000))
        self._await(run, RunState.ACQUIRING)
        _say(f"The instrument is done and says so with {SENTINEL}. {SETTLE_S} s of quiet, then:")
        (run / SENTINEL).touch()
        self._await(run, RunState.VERIFIED)
        return run

    def _tell_blocked(self, leaf: str) -> Path:
        _chapter("2. A run that breaks the path rules")
        run = self._world.begin_run(leaf)
        _say("Somebody left a template's placeholder in a file name:")
        (run / "scan_<sample_id>.dat").write_bytes(secrets.token_bytes(200_000))
        (run / SENTINEL).touch()
        self._await(run, RunState.BLOCKED)
        _say("Nothing was copied. The operator decides that the name may stay, in creation.json or by the command")
        _say(f"  exlab-watch-agent override add {leaf} --class unresolved_placeholder_token --reason ...")
        self._world.override(run, "unresolved_placeholder_token", "the sample has no id")
        self._await(run, RunState.VERIFIED)
        return run

    def _tell_partial(self, leaf: str) -> Path:
        _chapter("3. A copy that is not whole")
        _say("This time the NAS loses the end of a file after it has said that all is well.")
        run = self._world.begin_run(leaf)
        (run / "raw").mkdir()
        (run / "raw" / "stack.bin").write_bytes(secrets.token_bytes(3_000_000))
        (run / "notes.txt").write_text("z-stack, 63x oil\n", encoding="utf-8")
        (run / SENTINEL).touch()
        self._await(run, RunState.VERIFIED)
        _say("The damaged file was not destroyed, it was moved aside:")
        for path in self._world.moved_aside("stack.bin"):
            _say(f"  {path.relative_to(self._world.nas)} ({path.stat().st_size} bytes)")
        return run

    def _tell_end(self, runs: list[Path]) -> int:
        _chapter("What is there now")
        is_equal = True
        for run in runs:
            same = self._world.is_copied(run)
            is_equal &= same
            word, status = "equal" if same else "DIFFERENT", self._world.status_at_nas(run)
            _say(f"  {run.name}: hashed once more by this story, not by the agent: {word};")
            _say(
                f"      the NAS copy says {status!r} and carries a manifest of {self._world.manifest_lines(run)} files"
            )
        _say(f"  The audit trail has {self._world.trail_lines()} facts, each chained to the one before.")
        _say("")
        if self._is_kept:
            _say(f"Look around: exlab-watch-agent status --config {self._world.config}")
        else:
            _say("The folder is removed now; `demo --keep DIR` leaves it for you to look at.")
        return ExitCode.FINE if is_equal else ExitCode.FAILED

    # --- telling -----------------------------------------------------------------------------------------------------

    def _on_move(self, record: RunRecord, move: Move) -> None:
        with self._changed:
            self._records[record.run_path] = record
            source = move.source.value if move.source is not None else "new"
            seconds = self._world.clock.monotonic_s() - self._began_s
            reason = shortened(move.reason, REASON_SHOWN_MAX)
            _say(f"  {seconds:6.2f} s  {source:>15} -> {move.dest.value:<15} {reason}")
            self._changed.notify_all()

    def _await(self, run: Path, state: RunState) -> None:
        def has_arrived() -> bool:
            record = self._records.get(str(run))
            return record is not None and record.state is state

        with self._changed:
            if not self._changed.wait_for(has_arrived, timeout=STEP_WAIT_S):
                raise AgentError(f"{run} did not become {state} in {STEP_WAIT_S:g} s: the demo ends here.")


def _chapter(title: str) -> None:
    _say("")
    _say(title)


def _say(text: str) -> None:
    say(text, is_flushed=True)
