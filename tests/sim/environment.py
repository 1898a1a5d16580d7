"""What happens around one agent, on its PC and at the NAS.

Instruments write, operators edit and move, the NAS rots and goes away, clocks jump."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from exlab_watch_agent.core.inventory import CREATION_FILE
from exlab_watch_agent.core.overrides import parse_time
from exlab_watch_agent.core.policy import CompletenessSignal, Policy
from exlab_watch_agent.core.text import utc_text
from tests.sim.world import BAD_NAME, EXPECTED, LOCAL_ROOT, SENTINEL, WEIGHTS, LocalFile, Nas, SimRun, World, status_in

RUNS_MAX = 7
RUNS_EACH_MAX = 4
"""Where there are two PCs."""
PROJECTS = ("P-A", "P B")
MINUTES = range(5)


class Environment:
    """Does one thing to the world at a time. `operate` sends an operator's command to the agent, if one lives.

    `others`: the worlds of other PCs, from which people carry run folders over.
    """

    def __init__(self, world: World, policy: Policy, operate: Callable[[dict[str, Any]], None]) -> None:
        self._world = world
        self._policy = policy
        self._operate = operate
        self._random = world.fate.random
        self._signals = {equipment.equipment_id: equipment.signal for equipment in policy.equipment}
        self._overrides = 0
        self._aim: SimRun | None = None
        self.others: list[World] = []

    def act(self, aim: SimRun | None = None) -> str:
        """Do something that can be done now, at best to the run that is aimed at; return its name."""
        names = list(WEIGHTS)
        weights = [WEIGHTS[name] * self._world.fate.inclinations[name] for name in names]
        name = self._random.choices(names, weights)[0] if any(weights) else "begin_run"
        run = self._random.choice(list(self._world.runs.values())) if self._world.runs else None
        self._aim = None
        if aim is not None and self._world.runs.get(aim.path) is aim:
            self._aim = run = aim
        if name in GLOBAL:
            return name if getattr(self, name)() is not False else ""
        if run is None:
            return ""
        return f"{name} {run.number}" if getattr(self, name)(run) is not False else ""

    # --- the instrument ----------------------------------------------------------------------------------------------

    @property
    def _is_full(self) -> bool:
        return len(self._world.runs) >= (RUNS_MAX if not self.others else RUNS_EACH_MAX)

    def begin_run(self) -> bool | None:
        if self._is_full:
            return False
        equipment_id = self._random.choice(list(self._signals))
        path = self._free_path(equipment_id)
        if path is None:
            return False
        run = SimRun(self._world.next_serial(), path, equipment_id)
        self._world.touch()
        self._world.runs[path] = run
        self.write_creation(run)
        for _ in range(self._random.randint(0, 2)):
            self.write_file(run)
        return None

    def write_creation(self, run: SimRun) -> None:
        leaf = run.path.rpartition("/")[2]
        members = {
            "schema_version": "1.8",
            "created_at": f"2026-04-17T14:00:{run.number % 60:02d}Z",
            "created_by": f"operator-{run.number}",
            "level": "run",
            "run_kind": "experimental",
            "lims_project": {"uid": "8c7e"},
            "paths": {"local": f"D:\\lab\\{leaf}"},
            "validation_overrides": [],
        }
        self._world.put_cache(run, CREATION_FILE, json.dumps(members).encode())

    def _free_path(self, equipment_id: str, author: str = "") -> str | None:
        """A path where no other run ever was: a new run in the place of an old one is not told apart from an edited one."""
        free = [
            path
            for project in PROJECTS
            for minute in MINUTES
            if (path := f"{LOCAL_ROOT}/{equipment_id}/{project}/Runs/Run_2026-04-17T14-{minute:02d}")
            not in self._world.runs
            and self._world.paths_used.get(path, author) == author
        ]
        again = [path for path in free if path in self._world.paths_used]
        if again and self._random.random() < 0.6:
            return self._random.choice(again)
        return self._random.choice(free) if free else None

    def write_file(self, run: SimRun) -> bool | None:
        if len(run.files) >= 5:
            return False
        serial = self._world.next_serial()
        name = self._random.choice((f"data-{serial}.bin", f"raw/scan-{serial}.tif", "-rf.bin"))
        self._world.put(run, name, f"content {serial}".encode())
        return None

    def append_file(self, run: SimRun) -> bool | None:
        name = self._some_file(run)
        if name is None:
            return False
        self._world.put(run, name, run.files[name].data + b"+")
        return None

    def overwrite_file(self, run: SimRun) -> bool | None:
        """Other bytes, as many as before."""
        name = self._some_file(run)
        if name is None:
            return False
        data = run.files[name].data
        self._world.put(run, name, f"{self._world.next_serial():0{len(data)}d}".encode()[-len(data) :])
        return None

    def remove_file(self, run: SimRun) -> bool | None:
        name = self._some_file(run)
        if name is None:
            return False
        self._world.take(run, name)
        return None

    def _some_file(self, run: SimRun) -> str | None:
        names = sorted(set(run.files) - {SENTINEL, EXPECTED})
        return self._random.choice(names) if names else None

    def complete_run(self, run: SimRun) -> bool | None:
        if not set(run.files) - {SENTINEL, EXPECTED}:
            self.write_file(run)
        match self._signals[run.equipment_id]:
            case CompletenessSignal.SENTINEL_FILE:
                self._world.put(run, SENTINEL, b"")
            case CompletenessSignal.MANIFEST:
                sizes = {path: len(file.data) for path, file in run.files.items() if path != EXPECTED}
                self._world.put(run, EXPECTED, json.dumps(sizes).encode())
        run.earlier = dict(run.files)
        return None

    def undo_changes(self, run: SimRun) -> bool | None:
        """Somebody puts the data back as they were when the run was completed, times and all."""
        if not run.earlier or run.files == run.earlier:
            return False
        self._world.touch()
        run.files = {name: self._copied(file) for name, file in run.earlier.items()}
        run.truth = {name: file.data for name, file in run.files.items()}
        self._world.taken_from.add(run.author)
        self._world.note_change(run)
        self._world.notice(run.path)
        return None

    def remove_sealed(self, run: SimRun) -> bool | None:
        """Somebody makes room here: a run that says `synced` is removed, or some of its files."""
        if run.spoiled_text is not None or status_in(run.creation_text) != "synced":
            return False
        if self._random.random() < 0.5:
            self.remove_run(run)
            return None
        return self.remove_file(run)

    def edit_cache(self, run: SimRun) -> None:
        """Somebody fills in what ExLab-Wizard keeps beside the run."""
        self._world.put_cache(run, "readme_fields.json", f'{{"n": {self._world.next_serial()}}}'.encode())

    def touch_signal(self, run: SimRun) -> bool | None:
        for name in (SENTINEL, EXPECTED):
            if name in run.files:
                self._world.put(run, name, run.files[name].data)
                return None
        return False

    def bad_name(self, run: SimRun) -> None:
        if BAD_NAME in run.files:
            self._world.take(run, BAD_NAME)
        else:
            self._world.put(run, BAD_NAME, b"reserved")

    # --- operators ---------------------------------------------------------------------------------------------------

    def _edit(self, run: SimRun, change: Callable[[dict[str, Any]], None]) -> bool | None:
        if run.spoiled_text is not None:
            return False
        self._world.touch()
        members = json.loads(run.creation_text)
        change(members)
        self._world.put_cache(run, CREATION_FILE, json.dumps(members).encode())
        return None

    def override(self, run: SimRun) -> bool | None:
        """Add an override (for ever or for a while), or revoke one."""
        entries = [] if run.spoiled_text is not None else json.loads(run.creation_text)["validation_overrides"]
        given = [entry["id"] for entry in entries if "problem_class" in entry]
        self._overrides += 1
        entry: dict[str, Any] = {"id": f"o{self._overrides}", "operator": "asmith"}
        if given and self._random.random() < 0.4:
            entry["revokes"] = self._random.choice(given)
        else:
            entry["problem_class"] = "reserved_filesystem_name"
            if self._random.random() < 0.4:
                expires_at = self._world.clock.wall + timedelta(minutes=self._random.choice((1, 10, 200)))
                entry["expires_at"] = utc_text(expires_at)
        return self._edit(run, lambda members: members["validation_overrides"].append(entry))

    def spoil_creation(self, run: SimRun) -> None:
        """An editor saves in place: for a while half of the file is there."""
        self._world.touch()
        if run.spoiled_text is None:
            run.spoiled_text = run.creation_text
            self._world.put_cache(run, CREATION_FILE, run.spoiled_text[: len(run.spoiled_text) // 2])
        else:
            text, run.spoiled_text = run.spoiled_text, None
            self._world.put_cache(run, CREATION_FILE, text)

    def move_run(self, run: SimRun) -> bool | None:
        path = self._free_path(run.equipment_id, run.author)
        if path is None:
            return False
        self._world.touch()
        old = run.path
        del self._world.runs[old]
        self._world.paths_used[old] = run.author
        run.path = path
        self._world.runs[path] = run
        self._world.notice(old)
        self._world.notice(path)
        return None

    def copy_run(self, run: SimRun) -> bool | None:
        """Somebody copies the whole folder, the cache folder with it."""
        path = self._free_path(run.equipment_id, run.author)
        if path is None or run.spoiled_text is not None or self._is_full:
            return False
        self._put_copy(run, path)
        return None

    def _put_copy(self, run: SimRun, path: str) -> None:
        copied = SimRun(self._world.next_serial(), path, run.equipment_id)
        copied.files = {name: self._copied(file) for name, file in run.files.items()}
        copied.cache = {name: self._copied(file) for name, file in run.cache.items()}
        copied.truth = dict(run.truth)
        self._world.note_change(copied)
        self._world.touch()
        self._world.runs[path] = copied
        self._world.notice(path)

    def carry_run(self) -> bool | None:
        """Somebody copies a run folder from another PC to the same place here."""
        there = [run for other in self.others for run in other.runs.values()]
        return self.take_over(self._random.choice(there)) if there and not self._is_full else False

    def take_over(self, run: SimRun) -> bool | None:
        is_free = run.path not in self._world.runs
        if (
            run.spoiled_text is not None
            or not is_free
            or self._world.paths_used.get(run.path, run.author) != run.author
        ):
            return False
        self._put_copy(run, run.path)
        return None

    def _copied(self, file: LocalFile) -> LocalFile:
        stamped = self._world.stamp(file.data)
        return LocalFile(file.data, file.mtime_ns, stamped.ctime_ns, stamped.inode)

    def remove_run(self, run: SimRun) -> None:
        """Somebody removes the whole folder on purpose."""
        self._world.touch()
        self._world.taken_from.add(run.author)
        del self._world.runs[run.path]
        self._world.paths_used[run.path] = run.author
        self._world.notice(run.path)

    def lock_run(self, run: SimRun) -> None:
        """Another program holds a file open."""
        run.is_locked = not run.is_locked

    def operate(self) -> bool | None:
        command = self._random.choice(COMMANDS)
        if command == "retry all":
            self._operate({"command": "retry", "all": True, "operator": "asmith"})
            return None
        if not self._world.runs:
            return False
        run = self._aim or self._random.choice(list(self._world.runs.values()))
        self._operate(
            {"command": command, "run_path": run.path, "operator": "asmith", "reason": "as the simulation wants"}
        )
        return None

    # --- NAS, disk, clock --------------------------------------------------------------------------------------------

    def rot(self) -> bool | None:
        """One file on a NAS changes by itself, size and time kept."""
        nas = self._some_nas()
        names = [path for path in sorted(nas.ever) if path in nas.real and nas.real[path].data]
        if self._aim is not None:
            leaf = self._aim.path.rpartition("/")[2]
            names = [path for path in names if f"{leaf}/" in path] or names
        if not names:
            return False
        self._world.touch()
        name = self._random.choice(names)
        nas.rot(name, nas.real[name].data[:-1] + b"~")
        return None

    def unreadable(self) -> bool | None:
        """One file on a NAS is listed there, and cannot be read any more; or it can again."""
        nas = self._some_nas()
        if nas.volume.unreadable and self._random.random() < 0.3:
            self._world.touch()
            nas.volume.unreadable.clear()
            return None
        names = [path for path in sorted(nas.ever) if path in nas.real]
        if not names:
            return False
        self._world.touch()
        nas.volume.unreadable.add(self._random.choice(names))
        return None

    def change_places(self) -> None:
        """Somebody copies a NAS, or mounts the copy in its place, or it again in the place of the copy."""
        self._world.change_nas(self._some_nas())

    def _some_nas(self) -> Nas:
        if self._aim is not None:
            return self._world.nas[self._aim.equipment_id]
        return self._random.choice(list(self._world.nas.values()))

    def nas_trouble(self) -> None:
        nas = self._some_nas()
        self._world.touch()
        # Before its first use a mount point cannot be told from the share: the operator's `check` is for that.
        trouble = self._random.choice(("dead", "unmounted", "foreign", "read-only"))
        if trouble == "read-only":
            nas.is_read_only = True
        else:
            nas.state = trouble if nas.marker_id is not None else "dead"

    def nas_back(self) -> bool | None:
        away = [nas for nas in self._world.nas.values() if nas.state != "up" or nas.is_read_only]
        if not away:
            return False
        self._world.touch()
        nas = self._random.choice(away)
        nas.state, nas.is_read_only = "up", False
        return None

    def root_trouble(self) -> None:
        equipment_id = self._aim.equipment_id if self._aim is not None else self._random.choice(list(self._signals))
        self._world.touch()
        self._world.roots_away ^= {equipment_id}

    def jump_clock(self) -> None:
        days = self._random.choice((-400, -1, -1 / 24, 1 / 24, 1, 400))
        self._world.touch()
        self._world.clock.jump(days)

    # --- the end -----------------------------------------------------------------------------------------------------

    def come_to_an_end(self) -> None:
        """All trouble is over: mounted, unlocked, mended, and every instrument finishes its runs."""
        self.have_peace(complete=1.0)

    def have_peace(self, *, complete: float) -> None:
        """All trouble is over, and this share of the runs that are not complete yet is finished."""
        for nas in self._world.nas.values():
            nas.state, nas.is_read_only = "up", False
        self._world.roots_away.clear()
        for run in list(self._world.runs.values()):
            run.is_locked = False
            if run.spoiled_text is not None:
                self.spoil_creation(run)
            if not self.is_complete(run) and self._random.random() < complete:
                self.complete_run(run)

    def is_complete(self, run: SimRun) -> bool:
        if not set(run.files) - {SENTINEL, EXPECTED}:
            return False
        match self._signals[run.equipment_id]:
            case CompletenessSignal.SENTINEL_FILE:
                return SENTINEL in run.files
            case CompletenessSignal.MANIFEST:
                sizes = {path: len(file.data) for path, file in run.files.items()}
                return EXPECTED in run.files and all(
                    sizes.get(path) == size for path, size in json.loads(run.files[EXPECTED].data).items()
                )
        return True

    def is_admitted(self, run: SimRun) -> bool:
        """What the gate must say now, worked out by hand: the one bad name, or an override that is in force."""
        if BAD_NAME not in run.files:
            return True
        entries = json.loads(run.spoiled_text or run.creation_text)["validation_overrides"]
        revoked = {entry["revokes"] for entry in entries if "revokes" in entry}
        for entry in entries:
            expires_at = parse_time(entry["expires_at"]) if "expires_at" in entry else None
            is_in_force = expires_at is None or self._world.clock.wall < expires_at
            if "problem_class" in entry and entry["id"] not in revoked and is_in_force:
                return True
        return False


COMMANDS = (
    "retry", "retry all", "verify", "resolve", "resolve", "sync", "scan", "cancel", "accept_trail", "accept_machine",
)  # fmt: skip
GLOBAL = frozenset(
    {
        "begin_run", "carry_run", "operate", "rot", "unreadable", "change_places", "nas_trouble", "nas_back", "root_trouble",
        "jump_clock",
    }
)  # fmt: skip
