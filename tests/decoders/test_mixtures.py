"""A mixture of logistics for each entry: side by side over all levels, or around what it is given."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from genmod.decoders import DiscretizedMixtureDecoder
from genmod.diffusion import NoisingEncoder
from genmod.schedules import LinearLogSNR, MonotoneNetwork, RectifiedFlow
from genmod.spec import Bins, DataSpec
from tests.oracles_vae import affine

pytestmark = pytest.mark.usefixtures("float64")

LEVELS, COMPONENTS, EVENT = 16, 3, (2,)
CLEAN = 3.0


class Numbers(nn.Module):
    """A network that returns the same numbers whatever its input: logits, locations, log-scales."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__()
        self.numbers = numbers

    def forward(self, state: Tensor) -> Tensor:
        """The numbers, for each row."""
        return self.numbers.expand(len(state), -1)


def by_scipy(numbers: Tensor, center: Tensor, reach: float) -> Tensor:
    """Log masses ``(B, *event, level)``: the formula of the docstring, component by component."""
    bins = Bins(LEVELS)
    lower, upper = bins.edges(torch.arange(LEVELS))
    logits, shift, log_scale = numbers.reshape(3, COMPONENTS, *EVENT)
    mass = torch.zeros(len(center), *EVENT, LEVELS)
    for c, start in enumerate((-2 / 3, 0.0, 2 / 3)):
        weight = logits.softmax(0)[c]
        scale = (reach * 2 / COMPONENTS * log_scale[c].exp()).numpy()
        for row in range(len(center)):
            law = stats.logistic((center[row] + reach * (shift[c] + start)).numpy(), scale)
            for level in range(LEVELS):
                between = law.cdf(float(upper[level])) - law.cdf(float(lower[level]))
                mass[row, ..., level] += weight * torch.as_tensor(between)
    return mass.log()


@pytest.mark.parametrize("around", [None, LinearLogSNR(CLEAN, -5.0)], ids=["[-1, 1]", "z_0"])
def test_a_mixture_is_placed_where_its_docstring_says(around: LinearLogSNR | None) -> None:
    """Against SciPy's logistic; at a log-SNR of 3 the reach is 2 exp(-3/2), and alpha_0^2 sigmoid(3)."""
    numbers = torch.randn(3 * COMPONENTS * 2) / 2
    state = torch.tensor([[-0.9, 0.2], [0.7, 0.0]])
    law = DiscretizedMixtureDecoder(Numbers(numbers), EVENT, LEVELS, COMPONENTS, around)(state)
    center = torch.zeros_like(state)
    reach = 1.0
    if around is not None:
        center, reach = state / math.sqrt(1 / (1 + math.exp(-CLEAN))), 2 * math.exp(-CLEAN / 2)
    expected = by_scipy(numbers, center, reach)
    for level in range(LEVELS):
        x = torch.full((2, *EVENT), level)
        torch.testing.assert_close(law.log_prob(x), expected[..., level].sum(1))


def test_a_mixture_around_z_is_likelier_without_training() -> None:
    """At zero outputs, data are likelier around ``z_0`` than over all values, more so at a cleaner end."""
    x = torch.randint(0, LEVELS, (500, *EVENT))
    nothing = Numbers(torch.zeros(3 * COMPONENTS * 2))
    found = []
    for clean in (0.0, 2.0, 4.0):
        schedule = RectifiedFlow(LinearLogSNR(clean, -5.0))
        noised = (
            NoisingEncoder(schedule, DataSpec(EVENT, LEVELS))(x).at(torch.zeros(len(x))).sample()
        )
        law = DiscretizedMixtureDecoder(nothing, EVENT, LEVELS, COMPONENTS, schedule)(noised)
        found.append(float(law.log_prob(x).mean()))
    plain = DiscretizedMixtureDecoder(nothing, EVENT, LEVELS, COMPONENTS)(torch.zeros(500, *EVENT))
    assert found[0] < found[1] < found[2]
    assert found[1] > float(plain.log_prob(x).mean())


def test_a_mixture_can_be_placed_around_a_learned_schedules_state() -> None:
    """Its ends are fixed; where they are found, nothing is learned."""
    nothing, x = Numbers(torch.zeros(18)), torch.randint(0, LEVELS, (4, *EVENT))
    learned, fixed = (
        DiscretizedMixtureDecoder(nothing, EVENT, LEVELS, COMPONENTS, schedule)(
            Bins(LEVELS).center(x)
        )
        for schedule in (MonotoneNetwork(6.0, -6.0), LinearLogSNR(6.0, -6.0))
    )
    torch.testing.assert_close(learned.log_prob(x), fixed.log_prob(x))


def test_a_mixture_needs_a_component() -> None:
    with pytest.raises(ValueError, match="components=0"):
        DiscretizedMixtureDecoder(affine(torch.zeros(1, 2), torch.zeros(1)), EVENT, LEVELS, 0)
