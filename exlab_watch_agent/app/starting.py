"""The config files that `init` writes: the commented example, or one of ours beside ExLab-Wizard's. Nothing is overwritten."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from exlab_watch_agent.adapters.local.durable import write_atomically
from exlab_watch_agent.app.shipped import shipped_text
from exlab_watch_agent.config.load import config_text
from exlab_watch_agent.config.sources import ConfigText
from exlab_watch_agent.config.text import read_text
from exlab_watch_agent.config.values import accepted, equipment_id_text
from exlab_watch_agent.core.text import printable
from exlab_watch_agent.errors import ConfigError

_BESIDE = """\
# exlab-watch-agent: its own settings, beside ExLab-Wizard's. `exlab-watch-agent check` tests both files together.
#
# ExLab-Wizard's file belongs to ExLab-Wizard: the agent reads it as it is, and never writes it. What is in it need not be
# said here again. ExLab-Wizard refuses keys that it does not know, so what only the agent knows is in this file.
wizard_config: {wizard_config}

# Instruments that ExLab-Wizard's file has now: {instruments}.
# An entry here with the `id` of one of them adds to it, or replaces members of it. A `transport` with a `type` replaces
# the one that is there, one without only adds to it. An entry with a new `id` and a transport is one more instrument.
#
# equipment:
#   - id: {example_id}
#     transport: {{type: mounted_path, path: /mnt/nas/lab/{example_id}}}   # the NAS is mounted here: no other program is needed
#   - id: {example_id}
#     completeness_signal: creation_json     # no signal but quiet for agent.settle_seconds

# A block here takes the place of the one of that name there:
# nas_cleanup: {{enabled: false, min_verify_passes: 2, min_age_hours: 24, retain_cache: true}}
# logging: {{level: INFO, central_log_max_mb: 10, central_log_keep: 5}}

"""


def write_example_config(path: Path, *, state_dir: Path | None) -> None:
    """Write the commented example there, with this state folder in it. Raises: ConfigError where something exists."""
    _write_new(path, _with_state_dir(example_config(), state_dir))


def write_beside(path: Path, wizard_config: Path, *, state_dir: Path | None) -> int:
    """Write a file of ours there that builds on ExLab-Wizard's; return how many instruments that has.

    Only its form is looked at: what is wrong in it can be said otherwise in the file that is written, and `check` names it.
    Raises: ConfigError where something exists, and where that is no file of ExLab-Wizard's.
    """
    text = config_text(
        read_text(wizard_config, instead="name ExLab-Wizard's config.yaml with --from"), source=str(wizard_config)
    )
    if text.is_ours:
        raise ConfigError(
            f"{printable(str(wizard_config))} is a file of the agent's own: give it with --config alone, or name ExLab-Wizard's "
            "config.yaml with --from."
        )
    ids = _ids(text)
    head = _BESIDE.format(
        wizard_config=json.dumps(str(wizard_config), ensure_ascii=False),
        instruments=", ".join(ids) or "none yet",
        example_id=ids[0] if ids else "CONFOCAL_01",
    )
    rest = example_config()
    blocks = rest[rest.index("\nagent:\n") + 1 :]
    _write_new(path, head + _with_state_dir(blocks, state_dir))
    return len(ids)


def _ids(text: ConfigText) -> Sequence[str]:
    equipment = text.content.get("equipment")
    entries = equipment if isinstance(equipment, list) else []
    found = (accepted(equipment_id_text, entry.get("id")) for entry in entries if isinstance(entry, dict))
    return [equipment_id for equipment_id in found if equipment_id is not None]


def _with_state_dir(text: str, state_dir: Path | None) -> str:
    if state_dir is None:
        return text
    return text.replace("state_dir: null", f"state_dir: {json.dumps(str(state_dir))}", 1)


def _write_new(path: Path, text: str) -> None:
    if path.exists():
        raise ConfigError(
            f"{printable(str(path))} exists and is not overwritten: edit it, or name another file with --config."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode(), mode=0o644)


def example_config() -> str:
    """Return the commented example."""
    return shipped_text("config", "config.example.yaml")
