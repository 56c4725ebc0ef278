"""Settings become plain data and come back with the same values."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch

from genmod.config import Settings, register
from genmod.config.plain import from_plain, to_plain
from genmod.config.settings import arguments
from genmod.models import Inference
from genmod.nn import ConvNets, Labels, MLPs


@dataclass(frozen=True)
class Mine:
    """A setting of a user's own."""

    size: int
    shape: tuple[int, ...] = (1, 2)


class Built(Settings):
    """Remembers its arguments, and keeps none of them as an attribute."""

    def __init__(self, first: float, *, last: float = 2.0) -> None:
        self.table = torch.linspace(first, last, 3)


class Derived(Built):
    """Passes other arguments up than it takes."""

    def __init__(self, middle: float) -> None:
        super().__init__(middle - 1, last=middle + 1)


def weight(log_snr: torch.Tensor) -> torch.Tensor:
    """A function that a file may name, once it is registered."""
    return log_snr.sigmoid()


def through_a_file(value: object) -> object:
    """Written as JSON and read again."""
    return from_plain(json.loads(json.dumps(to_plain(value))))


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, 0.1, float("inf"), "name", (1, (2.5, "x")), {"a": (1, None)}, torch.bfloat16,
        Inference.TOP_DOWN, MLPs(width=7), ConvNets(width=16, multipliers=(1, 2, 4)), Labels(10),
    ],
)  # fmt: skip
def test_settings_come_back_by_value(value: object) -> None:
    found = through_a_file(value)
    assert type(found) is type(value)
    assert found == value


def test_tensors_come_back_bit_for_bit() -> None:
    value = torch.randn(3, 2, dtype=torch.float64)
    found = through_a_file(value)
    assert isinstance(found, torch.Tensor)
    assert found.dtype is torch.float64
    assert torch.equal(found, value)


def test_arguments_are_those_of_the_outermost_constructor() -> None:
    assert arguments(Built(0.5)) == {"first": 0.5, "last": 2.0}
    assert arguments(Derived(3.0)) == {"middle": 3.0}
    with pytest.raises(TypeError, match="first"):
        Built()  # type: ignore[call-arg]


def test_only_registered_objects_can_be_written() -> None:
    for value in (Mine(3), weight):
        with pytest.raises(ValueError, match=r"genmod\.register"):
            to_plain(value)
    with pytest.raises(ValueError, match=r"genmod\.register"):
        to_plain(lambda log_snr: log_snr)
    register(Mine)
    register(weight, name="tests.weight")
    assert through_a_file(Mine(3)) == Mine(3)
    assert through_a_file(weight) is weight
    register(Mine)
    with pytest.raises(ValueError, match="two things to register"):
        register(Built, name="tests.weight")
    with pytest.raises(ValueError, match="name that the next program"):
        register(lambda log_snr: log_snr)


@pytest.mark.parametrize(
    "data", [{"class": "os.system"}, {"function": "builtins.eval"}, {"class": "subprocess.Popen"}]
)
def test_a_file_cannot_name_what_was_not_allowed(data: dict[str, object]) -> None:
    """Nothing of Python's own can be reached, so that reading settings runs no foreign code."""
    with pytest.raises(ValueError, match="expected a public class of genmod"):
        from_plain(data)
