"""Change the code in one place, and see that the test which guards it fails.

``tests/mutants.toml`` lists the changes: a file, a text that stands in it once, its replacement, and the
test that must then fail. ``python -m tests.mutants`` applies each to a copy of the package and runs that
test alone. It prints the survivors, and exits with 1 if there is one.

    python -m tests.mutants                        all of them
    python -m tests.mutants --sample 5 --seed 3    five, drawn at random
    python -m tests.mutants --match elbo           those whose file or test has "elbo" in its name
    python -m tests.mutants --mend                 code or tests were moved: write their new places
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tests" / "mutants.toml"
NEEDED = ("genmod", "tests", "docs", "pyproject.toml")
OUTCOMES = {0: "SURVIVED", 1: "killed", 2: "killed", 4: "killed"}
"""By what pytest exits with. 2 and 4: the test file cannot be imported, because the package refuses the
change where the file builds its cases (a schedule checks itself, for example)."""


@dataclass(frozen=True)
class Mutant:
    """One change.

    Args:
        file: of the package, from the root of the repository.
        find: a text that stands in the file once; its place in the file does not matter.
        replace: what stands there instead.
        test: the pytest id that must fail.
    """

    file: str
    find: str
    replace: str
    test: str

    def text(self, root: Path) -> str:
        """The changed file.

        Raises:
            ValueError: the text to find does not stand there exactly once.
        """
        path = root / self.file
        source = path.read_text(encoding="utf-8") if path.exists() else ""
        count = source.count(self.find)
        if count != 1:
            raise ValueError(
                f"got {count} places with {self.find!r} in {self.file}; expected one; run python -m "
                "tests.mutants --mend if the text was moved, else change tests/mutants.toml"
            )
        return source.replace(self.find, self.replace)

    def __str__(self) -> str:
        return f"{self.file}: {self.find!r} -> {self.replace!r}"


def load() -> list[Mutant]:
    """All mutants, in the order of the file."""
    listed = tomllib.loads(LIST.read_text(encoding="utf-8"))
    return [Mutant(**entry) for entry in listed["mutant"]]


def run(test: str, root: Path) -> int:
    """What pytest exits with on one test of a copy of the package."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    environment |= {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, check=False)
    return done.returncode


def outcome(mutant: Mutant, root: Path) -> str:
    """Apply a mutant to the copy in ``root``, run its test, and put the file back."""
    path = root / mutant.file
    original = path.read_text(encoding="utf-8")
    path.write_text(mutant.text(root), encoding="utf-8")
    try:
        code = run(mutant.test, root)
    finally:
        path.write_text(original, encoding="utf-8")
    return OUTCOMES.get(code, f"NOT RUN (pytest exits with {code})")


def moved(file: str, text: str, below: str) -> str:
    """The one file below a folder that holds the text, if ``file`` does not; else ``file``."""
    path = ROOT / file
    if path.exists() and text in path.read_text(encoding="utf-8"):
        return file
    found = [
        each.relative_to(ROOT).as_posix()
        for each in sorted((ROOT / below).rglob("*.py"))
        if text in each.read_text(encoding="utf-8")
    ]
    return found[0] if len(found) == 1 else file


def mend() -> None:
    """Rewrite the list with the files that hold the texts and the tests now."""
    head, *entries = re.split(r"(?m)^(?=\[\[mutant\]\])", LIST.read_text(encoding="utf-8"))
    for place, (entry, mutant) in enumerate(zip(entries, load(), strict=True)):
        file, _, name = mutant.test.partition("::")
        test = moved(file, f"def {name.split('[')[0]}(", "tests")
        entry = entry.replace(
            f'file = "{mutant.file}"', f'file = "{moved(mutant.file, mutant.find, "genmod")}"'
        )
        entries[place] = entry.replace(f'test = "{mutant.test}"', f'test = "{test}::{name}"')
    LIST.write_text(head + "".join(entries), encoding="utf-8")


def main() -> int:
    """Run the mutants asked for, and print what became of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, help="how many, drawn at random; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--match", default="", help="a part of the name of a file or test")
    parser.add_argument("--mend", action="store_true", help="write the new places of moved code")
    options = parser.parse_args()
    if options.mend:
        mend()
        return 0
    mutants = [each for each in load() if options.match in f"{each.file} {each.test}"]
    if options.sample is not None and options.sample < len(mutants):
        mutants = random.Random(options.seed).sample(mutants, options.sample)
    left = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for name in NEEDED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, root / name)
        for mutant in mutants:
            start = time.perf_counter()
            result = outcome(mutant, root)
            print(f"{result}, {time.perf_counter() - start:.0f} s  {mutant}", flush=True)
            if result != "killed":
                left.append(mutant)
    print(f"{len(mutants) - len(left)} of {len(mutants)} killed")
    for mutant in left:
        print(f"survivor: {mutant}\n    should fail: {mutant.test}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
