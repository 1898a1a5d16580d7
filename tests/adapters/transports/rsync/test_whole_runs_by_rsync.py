"""Whole runs to an account for rsync alone. No limit of the bandwidth can come into force here: test_by_rsync.py has one."""

from __future__ import annotations

from typing import ClassVar

from tests.adapters.transports.rsync.behind_rrsync import BehindRrsync
from tests.adapters.transports.whole_runs import WholeRuns


class TestWholeRunsBehindRrsync(BehindRrsync, WholeRuns):
    is_metered: ClassVar = False
