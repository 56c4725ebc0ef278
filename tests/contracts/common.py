"""What every part can do: be copied, saved and moved, and print as a formula."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

ROWS = 4
DTYPES = [torch.float32, torch.float64]
DEVICES = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]

Part = TypeVar("Part", bound=nn.Module)


def placed(build: Callable[[], Part], dtype: torch.dtype, device: torch.device) -> Part:
    """A part, moved as a user moves it, with no weight left at zero."""
    torch.manual_seed(0)
    part = build()
    for parameter in part.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return part.to(device=device, dtype=dtype)


def check_tensor(tensor: Tensor, shape: tuple[int, ...], like: Tensor) -> None:
    """Require the shape, the type and device of ``like``, and finite values."""
    assert tensor.shape == shape
    assert tensor.dtype is like.dtype
    assert tensor.device == like.device
    assert bool(tensor.isfinite().all())


def check_copies(build: Callable[[], Part], answer: Callable[[Part], Iterable[Tensor]]) -> None:
    """A deep copy, and a fresh part that loads the state, answer as the original does."""
    original = placed(build, torch.float64, torch.device("cpu"))
    torch.manual_seed(99)
    fresh = build().to(torch.float64)
    fresh.load_state_dict(original.state_dict())
    answers = []
    for part in (original, copy.deepcopy(original), fresh):
        torch.manual_seed(1)
        answers.append([value.detach() for value in answer(part)])
    for other in answers[1:]:
        for a, b in zip(answers[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def check_formula(formula: str, *symbols: str) -> None:
    """Require the formula to be there and to name its symbols."""
    assert formula.strip()
    for symbol in symbols:
        assert symbol in formula, formula
