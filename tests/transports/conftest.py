"""What the transports' tests have in common."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.transports.conformance")
