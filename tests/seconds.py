"""Print how long the tests of each folder took, from a JUnit file, and name those above their budget.

``python tests/seconds.py report.xml`` after ``pytest --junit-xml report.xml``. No test fails for its time,
because a busy machine is slower. A folder above its budget needs smaller models or a ``slow`` mark.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

BUDGET = 30.0
"""Seconds of processor time that the tests of one folder may take, as a rule."""
BUDGETS = {
    "tests.everywhere": 60.0,
    "tests.evaluation": 60.0,
    "tests.training": 60.0,
    "tests": 120.0,
}
"""Folders that may take longer: they train, call everything, or run the pages and examples."""


def folders(report: Path) -> dict[str, float]:
    """Seconds of each folder."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = case.get("classname", "")
        parts = [part for part in name.split(".") if not part.startswith(("test_", "Test"))]
        seconds[".".join(parts) or "tests"] += float(case.get("time", "0"))
    return seconds


def main(report: Path) -> None:
    """Print the folders, the slowest first."""
    found = folders(report)
    print(f"seconds of {sum(found.values()):.0f} in all, by folder:")
    for name, seconds in sorted(found.items(), key=lambda each: -each[1]):
        budget = BUDGETS.get(name, BUDGET)
        note = f"  above its budget of {budget:.0f}" if seconds > budget else ""
        print(f"{seconds:8.1f}  {name}{note}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
