"""What every transport passes: contract.py, whose assertions pytest is to spell out like a test's own."""

import pytest

pytest.register_assert_rewrite("tests.adapters.transports.contract")
