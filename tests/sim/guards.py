"""Removes each guard of the package in turn, and shows who finds it.

`python -m tests.sim.guards [--seeds N] [--only WORDS] [--jobs N]` removes one guard at a time from a copy of the tree, lives
the seeds there from 0 on until one fails, runs the directed tests, and prints a row of the table in `docs/simulator.md`.
Nothing may fail where nothing is removed: that is tried first.

Decided here: who is asked, and how long. Not here: what the guards are and how one is removed (guard_list.py).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.sim.guard_list import GUARDS, Guard, GuardError

ROOT = Path(__file__).parent.parent.parent
PACKAGE = "exlab_watch_agent"
COPIED = (PACKAGE, "tests", "statecharts", "config", "pyproject.toml")
SEEDS = 600
LIFE_MAX_S = 120
"""A life takes a tenth of a second; one that takes this long does not end."""
DIRECTED_MAX_S = 1800
DIRECTED = tuple(f"tests/sim/test_{name}.py" for name in ("simulation", "noticing", "under_way", "two_agents"))
BY_SEED = ("no_byte_is_lost", "one_seed_lives", "events_alone")
"""Tests with this in their names are not directed: they live by seeds, too."""


# --- removing one ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """Who found that a guard was removed: the first seed (None: none), what it found, and the directed tests that fail."""

    seed: int | None
    violation: str
    tests: tuple[str, ...]


def try_without(guard: Guard | None, *, seeds: int) -> Found:
    """Remove the guard (None: nothing) from a copy of the tree; return who finds it. Raises: GuardError."""
    with tempfile.TemporaryDirectory(prefix="guards-") as name:
        copy = Path(name)
        for part in COPIED:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(ROOT / part, copy / part)
        for path, text in guard.removed_from(copy / PACKAGE).items() if guard is not None else ():
            path.write_text(text, encoding="utf-8")
        return Found(*_first_seed(copy, seeds), _failing_tests(copy))


def _run(copy: Path, arguments: Sequence[str], *, limit_s: float) -> subprocess.CompletedProcess[str]:
    """Run Python in the copy, whose package comes before any that is installed. Raises: GuardError when it does not end."""
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    try:
        return subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise GuardError(f"{' '.join(command)} has not ended after {limit_s:.0f} s") from error


def _first_seed(copy: Path, seeds: int) -> tuple[int | None, str]:
    done = _run(copy, ["-m", "tests.sim.guards", "--live-here", str(seeds)], limit_s=60 + LIFE_MAX_S * seeds)
    answer = re.fullmatch(r"seed (\d+): (.*)\n|none\n", done.stdout)
    if answer is None:
        raise GuardError(f"the lives came to nothing: {done.stdout}{done.stderr[-2000:]}")
    return (int(answer[1]), answer[2]) if answer[1] else (None, "")


def _live_here(seeds: int) -> str:
    """Live the seeds with the package of the current folder; return what the first one that fails says, or "none"."""
    import exlab_watch_agent
    from tests.sim.simulation import simulate
    from tests.sim.world import Violation

    def end(*_: object) -> None:
        raise Violation(f"this life has not ended after {LIFE_MAX_S} s")

    if Path(exlab_watch_agent.__file__).parent.parent != Path.cwd():
        raise GuardError(f"{exlab_watch_agent.__file__} is tried, and not the copy in {Path.cwd()}")
    signal.signal(signal.SIGALRM, end)
    for seed in range(seeds):
        signal.alarm(LIFE_MAX_S)
        with tempfile.TemporaryDirectory() as folder:
            try:
                simulate(seed, Path(folder))
            except AssertionError as error:
                return str(error).partition("\n")[0]
    return "none"


def _failing_tests(copy: Path) -> tuple[str, ...]:
    chosen = " and ".join(f"not {words}" for words in BY_SEED)
    options = ("-q", "--tb=no", "-rfE", "-k", chosen, "--basetemp", str(copy / "tmp"))
    done = _run(copy, ["-m", "pytest", *options, *DIRECTED], limit_s=DIRECTED_MAX_S)
    if done.returncode not in (0, 1):
        raise GuardError(f"the directed tests came to nothing: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    names = re.findall(r"^(?:FAILED|ERROR) \S+?::(\w+)", done.stdout, re.MULTILINE)
    return tuple(dict.fromkeys(names))


# --- the command -----------------------------------------------------------------------------------------------------


def row(name: str, found: Found) -> str:
    """Return a line of the table."""
    seed = "–" if found.seed is None else str(found.seed)
    return f"| {name} | {seed} | {len(found.tests) or '–'} |"


def try_all(guards: Sequence[Guard], *, seeds: int, jobs: int) -> None:
    """Print the table as the guards are tried, and on stderr what the first seeds and which tests found. Raises: GuardError."""

    def timed(guard: Guard | None) -> Found:
        began_s = time.monotonic()
        found = try_without(guard, seeds=seeds)
        name = guard.name if guard is not None else "none"
        said = [found.violation[:200] or "no seed", *found.tests]
        print(f"{time.monotonic() - began_s:.0f} s, {name}:", "\n    ".join(said), file=sys.stderr, flush=True)
        return found

    for guard in guards:
        guard.removed_from(ROOT / PACKAGE)
    if (found := timed(None)) != Found(None, "", ()):
        raise GuardError(f"with every guard in its place this fails: {found}")
    print("| guard that was removed | first | directed |\n|---|---|---|", flush=True)
    with ThreadPoolExecutor(max_workers=jobs) as executor:
        trials = [executor.submit(timed, guard) for guard in guards]
        try:
            for guard, trial in zip(guards, trials, strict=True):
                print(row(guard.name, trial.result()), flush=True)
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim.guards", description="Remove each guard; see who finds it."
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help="lives for each guard (%(default)s)")
    parser.add_argument("--only", default="", metavar="WORDS", help="guards with these words in their name")
    parser.add_argument("--jobs", type=int, default=1, help="guards at the same time (%(default)s)")
    parser.add_argument("--live-here", type=int, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        if options.live_here is not None:
            print(_live_here(options.live_here))
        else:
            chosen = [guard for guard in GUARDS if options.only in guard.name]
            try_all(chosen, seeds=options.seeds, jobs=options.jobs)
    except GuardError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
