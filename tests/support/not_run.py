"""A plugin for pytest: lists the tests that were not run, by what they need. With `--no-skips` they fail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="fail skipped tests that are not marked gpu")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.get_closest_marker("gpu") is None and not hasattr(report, "wasxfail"):
        _fail_if_skipped(report, item.config)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report, collector.config)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tests = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", []):
        tests[_reason(report)].append(report.nodeid)
    if tests:
        terminalreporter.section("not run")
    for reason, names in tests.items():
        terminalreporter.line(reason)
        for name in names:
            terminalreporter.line(f"  {name}")


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    if report.skipped and config.getoption("no_skips"):
        report.outcome = "failed"
        report.longrepr = f"not run: {_reason(report)}"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """pytest gives a path, a line and `Skipped: REASON`."""
    assert isinstance(report.longrepr, tuple)
    return report.longrepr[2].removeprefix("Skipped: ")
