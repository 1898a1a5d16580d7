"""All checks of this repository in one command: `python -m tests`. Ends at the first that fails.

`python -m tests ARGUMENT...` hands the arguments to pytest, and runs the tests in one process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Most tests wait for servers, disks and timers: two go on side by side, but for those that change the machine for a moment.
TESTS = [
    ["pytest", "-n", "2", "--dist", "loadfile", "-m", "not alone"],
    ["pytest", "-m", "alone"],
]


def main() -> int:
    """Run ruff, mypy, all tests, then the wheel away from the checkout; return the first exit code that is not 0."""
    checks = [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        *([["pytest", *sys.argv[1:]]] if sys.argv[1:] else TESTS),
    ]
    for check in checks:
        print("+", " ".join(check), flush=True)
        code = subprocess.run([sys.executable, "-m", *check], cwd=ROOT, check=False).returncode
        if code:
            return code
    return _try_the_wheel()


def _try_the_wheel() -> int:
    """Build the wheel, install it into a new environment, and run the demo from an empty folder."""
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
        return subprocess.run([str(binaries / "exlab-watch-agent"), "demo"], cwd=home / "empty", check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
