"""Files at the destination that the run does not have are named in `show`, and never touched."""

from __future__ import annotations

from collections.abc import Callable

from tests.lab.lab import Lab, Said, put

Command = Callable[..., Said]


def test_what_the_run_does_not_have_is_named_where_it_is_and_left_alone(lab: Lab, on: Command) -> None:
    run = lab.new_run()
    on("run", "--once")
    assert on("show", run.name, "--json").json["extra"] == {"files_total": 0, "paths": []}
    assert "extra" not in on("show", run.name).out
    copy = lab.copy_of(run)
    extra = {"notes of a colleague.txt": b"1", "d/Thumbs.db": b"2"}
    put(copy, extra)
    said = on("verify", run.name)
    assert said.code == 0
    assert lab.record(run)["state"] == "verified"
    shown = on("show", run.name, "--json").json
    assert shown["extra"] == {"files_total": 2, "paths": ["d/Thumbs.db", "notes of a colleague.txt"]}
    assert (
        "  extra        2 files at the destination that the run does not have, and that are left alone: "
        "d/Thumbs.db, notes of a colleague.txt\n"
    ) in on("show", run.name).out
    assert "2 files there are not the run's (first: d/Thumbs.db)" in shown["history"][-1]["reason"]
    assert on("problems").code == 0
    assert {name: (copy / name).read_bytes() for name in extra} == extra
    for name in extra:
        (copy / name).unlink()
    on("verify", run.name)
    assert on("show", run.name, "--json").json["extra"] == {"files_total": 0, "paths": []}


def test_extra_files_are_found_by_the_first_verify_too_and_many_are_counted(lab: Lab, on: Command) -> None:
    run = lab.new_run(files={"a.bin": b"a"})
    on("run", "--once")
    put(run, {"b.bin": b"b"})
    put(lab.copy_of(run), {f"{number:03}\n.x": b"x" for number in range(150)})
    on("verify", run.name)
    assert lab.record(run)["state"] == "conflict"
    shown = on("show", run.name, "--json").json["extra"]
    assert (shown["files_total"], len(shown["paths"]), shown["paths"][0]) == (150, 100, "000\n.x")
    (line,) = [line for line in on("show", run.name).out.splitlines() if line.startswith("  extra")]
    assert r"000\n.x, 001\n.x, 002\n.x, ..." in line
    on("resolve", run.name, "--use", "local")
    assert lab.record(run)["state"] == "verified"
    assert on("show", run.name, "--json").json["extra"]["files_total"] == 150
    assert sum(path.name.endswith(".x") for path in lab.copy_of(run).iterdir()) == 150
