"""Any line of the trail is found by its number, in closed segments and in the live one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from exlab_watch_agent.adapters.state.lookup import digest_at
from exlab_watch_agent.adapters.state.segments import find_segments, line_digest

GOLDEN = Path(__file__).parent.parent.parent / "data" / "state-v2"


def test_every_line_of_a_trail_of_several_segments_is_found_by_its_number(tmp_path: Path) -> None:
    folder = shutil.copytree(GOLDEN, tmp_path / "state")
    segments = find_segments(folder)
    assert len(segments) > 2
    lines = [line for segment in segments for line in segment.path.read_bytes().split(b"\n")[:-1]]
    digests = {json.loads(line)["seq"]: line_digest(line) for line in lines}
    assert len(digests) > 200
    assert {seq: digest_at(folder, seq) for seq in digests} == digests
    cut = set(range(max(digests) + 2)) - digests.keys()
    assert {seq: digest_at(folder, seq) for seq in cut} == dict.fromkeys(cut)


@pytest.mark.parametrize("damage", [b"", b"no line at all\n", b'{"seq":1,"prev"'])
def test_a_trail_that_cannot_be_read_has_no_such_line(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "audit.jsonl").write_bytes(damage)
    assert digest_at(tmp_path, 1) is None
