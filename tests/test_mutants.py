"""The list of mutants fits the code: each text stands in its file once, and each test exists."""

from __future__ import annotations

import ast
from functools import cache

import pytest

from tests.mutants import ROOT, Mutant, load, moved

MUTANTS = load()


@cache
def defined_in(file: str) -> set[str]:
    """The names of the test functions of a file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.file}-{mutant.find[:30]}")
def test_a_mutant_is_still_there_to_be_made(mutant: Mutant) -> None:
    """Also that the changed file is Python: a syntax error would pass for a killed mutant."""
    text = mutant.text(ROOT)
    if mutant.file.endswith(".py"):
        ast.parse(text)
    file, _, name = mutant.test.partition("::")
    assert name.split("[")[0] in defined_in(file)


def test_no_mutant_is_listed_twice() -> None:
    assert len({(mutant.file, mutant.find, mutant.replace) for mutant in MUTANTS}) == len(MUTANTS)


def test_mend_finds_the_file_that_a_text_was_moved_to() -> None:
    """Code of the package, and a test of the suite; a text that stands nowhere keeps its file."""
    text = MUTANTS[0].find
    assert moved("genmod/gone.py", text, "genmod") == MUTANTS[0].file
    assert (
        moved("tests/gone.py", "def test_mend_finds_the_file_that", "tests")
        == "tests/test_mutants.py"
    )
    assert moved("genmod/gone.py", "a text that no file has", "genmod") == "genmod/gone.py"
