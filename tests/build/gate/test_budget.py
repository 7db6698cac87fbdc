"""What is held is counted, and given back."""

import pytest

from build.serve.gate.budget import Budget, FullError, allocated_bytes


def test_requests_together_hold_no_more_than_the_budget():
    budget = Budget(1_000_000)
    with budget.holding(600_000):
        with pytest.raises(FullError, match="at most 1,000,000 together"), budget.holding(600_000):
            pass
        with budget.holding(60_000), budget.holding(300_000) as growing:
            growing.add(100_000)
            with pytest.raises(FullError):
                growing.add(200_000)
    with budget.holding(1_000_000):
        pass


def test_what_is_allocated_is_seen():
    before = allocated_bytes()
    content = bytes(50 * 2**20)
    assert allocated_bytes() - before >= 50 * 2**20
    del content
    assert allocated_bytes() - before < 10 * 2**20
