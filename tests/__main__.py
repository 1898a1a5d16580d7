"""All checks of this repository in one command: `python -m tests`. Ends at the first that fails.

`python -m tests quick` makes those that need no server and wait for nothing: half a minute on two cores, for every commit.
`python -m tests ARGUMENT...` hands the arguments to pytest, and runs the tests in one process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parent.parent
STYLE = [
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
    ["mypy"],
]
QUICK = ["core", "report", "config", "engine", "test_layers.py", "test_tidy.py"]
"""Pure rules, and what reads the source: no server, no clock of their own, no child process."""
SIDE_BY_SIDE = ["pytest", "-n", "2", "--dist", "loadfile"]
SLOWEST = "--durations=20"
# Most tests wait for servers, disks and timers: two go on side by side, but for those that change the machine for a moment.
TESTS = [
    [*SIDE_BY_SIDE, SLOWEST, "-m", "not alone"],
    ["pytest", SLOWEST, "-m", "alone"],
]
BUDGETS_S = {
    ("core", "test_layers", "test_tidy"): 20,
    ("adapters", "cli", "sim"): 3 * 60,
}
"""What the tests of some folders may take, all their seconds added up. It is printed beside what they took; none fails by it."""
ALL_BUDGET_S = 15 * 60  # on two cores
ONE_BUDGET_S = 10


def main() -> int:
    """Run ruff, mypy and the tests that are asked for; return the first exit code that is not 0.

    After all tests, the wheel is tried away from the checkout.
    """
    match sys.argv[1:]:
        case ["quick"]:
            return _first_failure([*STYLE, [*SIDE_BY_SIDE, *(f"tests/{name}" for name in QUICK)]])
        case []:
            return _first_failure(STYLE) or _all_tests() or _try_the_wheel()
        case arguments:
            return _first_failure([*STYLE, ["pytest", *arguments]]) or _try_the_wheel()


def _first_failure(checks: list[list[str]]) -> int:
    # A folder of our own for the tests' files: in the one that pytest shares, it also clears away what runs before left,
    # and ends with an error where it cannot.
    folder = tempfile.mkdtemp(prefix="exlab-tests-")
    environment = {**os.environ, "PYTEST_DEBUG_TEMPROOT": folder}
    # The tests start some thousand commands, and one that has to compile the package first takes half as long again.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    for check in checks:
        print("+", " ".join(check), flush=True)
        code = subprocess.run([sys.executable, "-m", *check], cwd=ROOT, env=environment, check=False).returncode
        if code:
            print(f"what the tests wrote is kept in {folder}", flush=True)
            return code
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def _all_tests() -> int:
    """Run all tests, and print what they took beside what they may take, also where one failed."""
    with tempfile.TemporaryDirectory(prefix="exlab-reports-") as folder:
        reports = [Path(folder) / f"{number}.xml" for number in range(len(TESTS))]
        began = time.monotonic()
        code = _first_failure([[*test, f"--junitxml={report}"] for test, report in zip(TESTS, reports, strict=True)])
        _print_budget([report for report in reports if report.exists()], time.monotonic() - began)
    return code


def _print_budget(reports: list[Path], took_s: float) -> None:
    cases = [case for report in reports for case in ElementTree.parse(report).iter("testcase")]
    for names, budget_s in BUDGETS_S.items():
        begins = tuple(f"tests.{name}" for name in names)
        sum_s = sum(_seconds(case) for case in cases if case.attrib.get("classname", "").startswith(begins))
        print(f"budget: {', '.join(names)}, added up: {sum_s:.0f} s of {budget_s} s")
    print(f"budget: everything, from start to end: {took_s:.0f} s of {ALL_BUDGET_S} s")
    over = [f"{case.attrib['name']} {_seconds(case):.0f} s" for case in cases if _seconds(case) > ONE_BUDGET_S]
    print(f"budget: over {ONE_BUDGET_S} s in one test: {', '.join(over) or 'none'}", flush=True)


def _seconds(case: ElementTree.Element) -> float:
    return float(case.attrib["time"])


def _try_the_wheel() -> int:
    """Build the wheel, install it into a new environment, and run the demo and an export from an empty folder."""
    with tempfile.TemporaryDirectory(prefix="exlab-wheel-") as folder:
        home = Path(folder)
        print("+ build the wheel and run its demo", flush=True)
        build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(home), str(ROOT)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        venv.create(home / "venv", with_pip=True)
        binaries = home / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
        wheel = next(home.glob("*.whl"))
        pip = [
            str(binaries / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--constraint",
            str(ROOT / "constraints.txt"),
        ]
        subprocess.run([*pip, str(wheel)], check=True)
        (home / "empty").mkdir()
        agent = str(binaries / "exlab-watch-agent")
        demo = subprocess.run([agent, "demo", "--keep", str(home / "demo")], cwd=home / "empty", check=False).returncode
        return demo or _try_an_export(agent, home)


def _try_an_export(agent: str, home: Path) -> int:
    """Export the demo's period by the installed wheel, which carries the script that checks a trail, and run that script."""
    export = [agent, "audit", "export", "--config", str(home / "demo" / "config.yaml"), "--format", "json"]
    said = subprocess.run(export, cwd=home / "empty", capture_output=True, text=True, check=True).stdout
    script = home / "empty" / "verify_trail.py"
    script.write_text(json.loads(said)["verify_script"]["text"], encoding="utf-8")
    return subprocess.run([sys.executable, str(script), str(home / "demo" / "state")], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
