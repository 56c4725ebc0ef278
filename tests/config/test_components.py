"""Every component that ships is written as settings and comes back with the same value."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import pytest
import torch
from torch import Tensor, nn

from genmod.config.plain import from_plain, to_plain
from genmod.config.text import from_yaml, to_yaml
from genmod.training.identity import changes, module_settings, setting
from tests.config.components import NO_SETTINGS, components, concrete, parts_of

COMPONENTS = components()
CACHED = {"model vae, mixture prior", "Columns"}
"""A distribution that keeps one matrix in several forms; columns that stand in two descriptions: the
description of such objects also says which of their parts are one object."""
FUNCTIONS = {"Weighted"}
"""Those whose settings hold a function of the package, which only code can name."""


def described(value: object) -> dict[str, object]:
    """The value of every setting of an object, however deep."""
    return module_settings(value) if isinstance(value, nn.Module) else {"": setting(value)}


def there_and_back(value: object) -> object:
    """Through text, with the larger tensors beside it."""
    tensors: dict[str, Tensor] = {}
    text = to_yaml({"value": to_plain(value, tensors)})
    return from_plain(from_yaml(text, "the text")["value"], tensors)


@pytest.mark.parametrize("name", [name for name in COMPONENTS if name not in FUNCTIONS])
def test_a_component_comes_back_whole(name: str) -> None:
    """Its class, every setting however deep, and with its weights every number."""
    value = COMPONENTS[name]()
    again = there_and_back(value)
    assert type(again) is type(value)
    assert to_plain(again) == to_plain(value)
    if isinstance(value, nn.Module):
        assert isinstance(again, nn.Module)
        again.load_state_dict(value.state_dict())
    if not isinstance(value, Enum) and name not in CACHED:
        assert changes(described(value), described(again)) == []


def test_every_class_of_settings_is_among_them() -> None:
    """A new class is added to the table, so that its settings are known to survive."""
    found = {
        type(part).__name__ for build in COMPONENTS.values() for part in parts_of(build(), set())
    }
    assert set(concrete()) - found == set(NO_SETTINGS) - (set(NO_SETTINGS) & found)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_function_that_was_not_registered_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"genmod\.register"):
        to_plain(COMPONENTS[name]())


def test_a_module_in_two_places_is_one_module_again() -> None:
    part = COMPONENTS["schedule MonotoneNetwork"]()
    first, second = there_and_back({"a": [part], "b": part}).values()  # type: ignore[attr-defined]
    assert first[0] is second


def test_a_large_tensor_is_kept_bit_for_bit_beside_the_text() -> None:
    build: Callable[[], object] = COMPONENTS["TabulatedTimesteps"]
    tensors: dict[str, Tensor] = {}
    plain = to_plain(build(), tensors)
    assert plain == {"class": "TabulatedTimesteps", "masses": {"tensor": "masses"}, "n": 1}
    again = from_plain(plain, tensors)
    assert torch.equal(again.masses, build().masses)  # type: ignore[attr-defined]
