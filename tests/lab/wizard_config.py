"""A `config.yaml` as ExLab-Wizard's own Settings page saves it: by ruamel.yaml, in YAML 1.2, by the names of its models' fields.

Source: `save_config` in src/exlab_wizard/config/loader.py of exfab/ExLabWizard at 2a5da6c.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML


def entry_of(equipment_id: str, local_root: str, transport: Mapping[str, Any], **members: Any) -> dict[str, Any]:
    """Return an instrument as ExLab-Wizard's model dumps it: every member is there, and a schedule has `from_`."""
    return {
        "id": equipment_id,
        "label": equipment_id,
        "local_root": local_root,
        "nas_root": "//nas01/lab",
        "completeness_signal": "sentinel_file",
        "sentinel_filename": "acquisition_complete.flag",
        "manifest_filename": None,
        "sync_mode": "nas",
        "transport": {**transport, "bandwidth": {"upload_mbps": 50.0, "schedule": [window("08:00", "18:00")]}},
        "orchestrator_staging_transport": None,
        **members,
    }


def staged_entry(equipment_id: str, local_root: str) -> dict[str, Any]:
    """Return one whose runs another computer takes."""
    staging = {"type": "smb_mount", "mount_point": "/mnt/pc", "staging_subpath": "staging"}
    return {
        **entry_of(equipment_id, local_root, {}),
        "sync_mode": "stage",
        "transport": None,
        "orchestrator_staging_transport": staging,
    }


def window(start: str, end: str) -> dict[str, Any]:
    return {"days": ["mon", "tue", "wed", "thu", "fri"], "from_": start, "to": end}


def config_of(*equipment: Mapping[str, Any], **blocks: Any) -> dict[str, Any]:
    """Return everything that is in its file, with its defaults."""
    return {
        "paths": {"templates_dir": "/opt/templates", "plugin_dir": "", "local_root": ""},
        "lims": {"endpoint": "https://lims.example", "email": "", "cache_ttl_hours": 24, "offline_catalogue_path": ""},
        "readme": {"defaults": []},
        "equipment": list(equipment),
        "nas_cleanup": {"enabled": True, "min_verify_passes": 2, "min_age_hours": 24, "retain_cache": True},
        "logging": {"level": "WARN", "central_log_max_mb": 10, "central_log_keep": 5},
        "operators": {"allowlist": []},
        "validator": {"content_scan_max_mib": 5, "content_scan_extensions": [".txt", ".md"]},
        "plugins": {"allow_network": False},
        "sync": {"enabled": True, "retry_attempts": 3},
        "orchestrator": {"label": "", "staging_root": "", "staging_cleanup": {"mode": "manual", "retain_hours": 24}},
        **blocks,
    }


def text_of(config: Mapping[str, Any]) -> str:
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 120
    written = io.StringIO()
    yaml.dump(dict(config), written)
    return written.getvalue()


def save(path: Path, config: Mapping[str, Any]) -> str:
    """Save the file, and return its text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = text_of(config)
    path.write_text(text, encoding="utf-8")
    return text
