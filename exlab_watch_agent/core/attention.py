"""When a thing that does not go on by itself is reported to a person. What is said then, and how: report/problems.py."""

from __future__ import annotations

UNREADABLE_LOOKS_TOLD = 3
"""A file that another program holds for a moment is nobody's problem; what three looks cannot read is."""
FAILURES_TOLD = 2
"""A first failed attempt is nobody's problem while an agent goes on to the next one."""
SEAL_FAILURES_STOPPED = 3
