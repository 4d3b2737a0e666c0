"""The page of faults names every row once, and tests that exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "faults.md").read_text()
ROWS = [line.split(" | ") for line in PAGE.splitlines() if re.match(r"\| \d", line)]


def test_every_fault_has_a_row_and_tests():
    assert [int(row[0].strip("| ")) for row in ROWS] == list(range(1, 37))
    assert [row[0].strip("| ") for row in ROWS if "`test_" not in row[3]] == []


def test_the_tests_named_there_exist():
    written = {name for file in TESTS.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())}
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named - written == set()
