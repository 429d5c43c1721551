"""Counts the faults that tests try on purpose, and prints them as a table: `make test-slow`.

    @pytest.mark.fault("a damaged input")     # this test tries one such fault (or record_property("tried", n) of them)
    @pytest.mark.slow                      # takes long: not in `make test`

A fault counts as survived where its test passed; a skipped test tried nothing.
"""

from collections import Counter
from pathlib import Path

import pytest

BEGIN, END = "<!-- faults -->\n", "<!-- /faults -->"
tried, survived = Counter(), Counter()


def pytest_addoption(parser):
    parser.addoption("--faults_table", type=Path, help="write the table of faults into this file, between its markers")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Writes what was tried into the report, which pytest-xdist takes from the process of the test to that of the
    summary."""
    report = (yield).get_result()
    marker = item.get_closest_marker("fault")
    if marker is None or report.skipped or not (report.when == "call" or report.failed):
        return
    report.fault = [marker.args[0], dict(item.user_properties).get("tried", 1)]


def pytest_runtest_logreport(report):
    if fault := getattr(report, "fault", None):
        kind, count = fault
        tried[kind] += count
        survived[kind] += count * report.passed


def pytest_terminal_summary(terminalreporter, config):
    if not tried:
        return
    rows = [f"| {kind} | {tried[kind]:,} | {survived[kind]:,} |" for kind in sorted(tried)]
    table = "\n".join(["| fault | tried | survived |", "| --- | --- | --- |", *rows]) + "\n"
    if path := config.getoption("faults_table"):
        before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if not end:
            raise pytest.UsageError(f"{path} lacks the lines {BEGIN.strip()} and {END}")
        path.write_text(before + BEGIN + table + END + after, encoding="utf-8")
    if path or "slow" in config.getoption("markexpr").replace("not slow", ""):
        terminalreporter.write("\n" + table)
