"""Prompts: words are mapped to the label that they name, or to the null label."""

from __future__ import annotations

import pytest
import torch

from genmod.nn import NULL_LABEL, Prompts
from genmod.nn.prompts import CLOTHES, DIGITS


@pytest.mark.parametrize(
    ("prompts", "names"),
    [(Prompts.digits(), DIGITS), (Prompts.clothes(), CLOTHES)],
    ids=["digits", "clothes"],
)
def test_every_name_finds_its_label_in_any_prompt(
    prompts: Prompts, names: tuple[tuple[str, ...], ...]
) -> None:
    """Alone, in capitals, in a sentence; the first name comes back."""
    assert prompts.classes == 10
    for label, words in enumerate(names):
        assert prompts.name(label) == words[0]
        for word in words:
            texts = [word, word.upper(), f"  a picture, please, of {word}!", f"{word} and {word}"]
            assert torch.equal(prompts.encode(texts), torch.full((4,), label))


def test_an_empty_prompt_is_the_null_context() -> None:
    assert Prompts.digits().encode(["", " ", "nine"]).tolist() == [NULL_LABEL, NULL_LABEL, 9]
    assert Prompts.digits().name(NULL_LABEL) == ""
    assert Prompts.digits().encode([]).shape == (0,)


def test_the_longest_name_counts_and_a_part_of_a_word_does_not() -> None:
    """An ankle boot is one thing; a t-shirt is no shirt; "someone" is no one."""
    clothes = Prompts((("boot",), ("ankle boot",), ("shirt",), ("t-shirt", "t shirt")))
    assert clothes.encode(["an ankle boot", "the boot", "a T-shirt", "a T shirt"]).tolist() == [
        1, 0, 3, 3,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no label"):
        Prompts.digits().encode(["someone"])


@pytest.mark.parametrize(
    ("text", "message"),
    [("a cat", "'a cat' that names no label"), ("a one or a two", r"\['one', 'two'\]")],
)
def test_a_prompt_of_no_or_of_several_labels_is_refused(text: str, message: str) -> None:
    """It is not guessed at, and never quietly taken for "anything"."""
    with pytest.raises(ValueError, match=message):
        Prompts.digits().encode([text])


@pytest.mark.parametrize("names", [(("a",), ()), (("a",), ("b", "a")), (("a",), ("!",))])
def test_names_of_more_than_one_label_are_refused(names: tuple[tuple[str, ...], ...]) -> None:
    with pytest.raises(ValueError, match="each of one label alone"):
        Prompts(names)
