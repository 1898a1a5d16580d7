"""`tests/run.sh` on machines that lack something: what it says, and what it hands on. Nothing is installed here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("run.sh")
PYTHON = f"3.{sys.version_info[1]}"
# What stands for `python3 -c CODE` and `python3 -m venv .venv` on a machine of which {world} is true.
FAKE_PYTHON = f"""\
#!/bin/sh
if [ "$1" = -m ]; then
  mkdir -p "$3/bin"
  for name in pip python; do
    printf '#!/bin/sh\\nprintf " <%%s>" "$PWD" %s "$@"; echo\\n' "$name" >"$3/bin/$name"
    chmod +x "$3/bin/$name"
  done
else
  exec '{sys.executable}' -c 'import sys; {{world}}; exec(sys.argv[1])' "$2"
fi
"""
WITHOUT_VENV = 'sys.modules["ensurepip"] = None; sys.base_prefix = "{}"'


@dataclass(frozen=True)
class Machine:
    """A checkout with the script, and a folder that is all of PATH: so what is installed here is not seen."""

    checkout: Path
    programs: Path

    def has(self, name: str, script: str = "#!/bin/sh\n") -> None:
        (self.programs / name).write_text(script, encoding="utf-8")
        (self.programs / name).chmod(0o755)

    def has_python(self, world: str = "pass") -> None:
        self.has("python3", FAKE_PYTHON.format(world=world))

    def run(self, *words: str, cwd: Path) -> tuple[int, str, str]:
        bash = shutil.which("bash")
        assert bash is not None
        environment = {"PATH": str(self.programs), "HOME": str(self.programs)}
        script = os.path.relpath(self.checkout / "tests" / "run.sh", cwd)
        done = subprocess.run([bash, script, *words], cwd=cwd, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with nothing but the simplest programs, on which one is not root."""
    machine = Machine(tmp_path / "the checkout", tmp_path / "bin")
    (machine.checkout / "tests").mkdir(parents=True)
    machine.programs.mkdir()
    shutil.copy(SCRIPT, machine.checkout / "tests")
    for name in ("dirname", "mkdir", "chmod"):
        (machine.programs / name).symlink_to(str(shutil.which(name)))
    machine.has("id", "#!/bin/sh\necho 1000\n")
    return machine


def programs_needed() -> list[str]:
    (block,) = re.findall(r"^programs=\((.*?)^\)", SCRIPT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [pair.partition(":")[0] for pair in block.split()]


def test_without_root_or_apt_it_names_the_packages_to_install_in_one_sentence(machine: Machine, tmp_path: Path) -> None:
    machine.has_python()
    code, out, err = machine.run(cwd=tmp_path)
    assert (code, out) == (1, "")
    said = re.fullmatch(r"tests/run.sh: install (.*) first; the tests skip nothing for lack of a program\n", err)
    assert said is not None, err
    assert {"rsync", "openssh-client", "strace", "busybox", "git"} <= {*said[1].split()}
    machine.has("id", "#!/bin/sh\necho 0\n")
    assert machine.run(cwd=tmp_path) == (code, out, err), "root, but no apt-get"


@pytest.mark.parametrize(
    ("world", "said"),
    [
        ("sys.version_info = (3, 10, 4)", "is Python 3.10; put Python 3.11 or later first on PATH, as python3"),
        (
            WITHOUT_VENV.format("/opt"),
            "cannot make virtual environments (it has no ensurepip); install a Python that can",
        ),
    ],
    ids=["too old", "no venv"],
)
def test_a_python_that_will_not_do_is_said_in_one_sentence(
    machine: Machine, tmp_path: Path, world: str, said: str
) -> None:
    machine.has_python(world)
    python = machine.programs / "python3"
    assert machine.run(cwd=tmp_path) == (1, "", f"tests/run.sh: {python} {said}\n")
    python.unlink()
    said = "tests/run.sh: python3 is not on PATH; install Python 3.11 or later\n"
    assert machine.run(cwd=tmp_path) == (1, "", said)


def test_debian_s_python_without_venv_is_mended_by_its_package(machine: Machine, tmp_path: Path) -> None:
    machine.has_python(WITHOUT_VENV.format("/usr"))
    _, _, err = machine.run(cwd=tmp_path)
    assert f" python{PYTHON}-venv first; " in err


def test_where_nothing_is_missing_the_checks_run_in_the_checkout_s_environment_with_the_same_arguments(
    machine: Machine, tmp_path: Path
) -> None:
    machine.has_python()
    for name in programs_needed():
        if "/" not in name:
            machine.has(name)
    (tmp_path / "elsewhere").mkdir()
    code, out, err = machine.run("-k", "two words", cwd=tmp_path / "elsewhere")
    assert (code, err) == (0, "")
    at = f"<{machine.checkout}>"
    assert out.splitlines() == [
        f" {at} <pip> <install> <--quiet> <--constraint> <constraints.txt> <--editable> <.[dev]>",
        f" {at} <python> <-m> <tests> <-k> <two words>",
    ]
    assert (machine.checkout / ".venv" / "bin" / "python").exists()
