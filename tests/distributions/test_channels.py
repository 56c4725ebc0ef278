"""Mixtures over the channels of a pixel: masses that sum to one, and color that one channel lacks."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from genmod.data import load
from genmod.decoders import ChannelMixtureDecoder, DiscretizedMixtureDecoder
from genmod.distributions import DiscretizedLogistic
from genmod.distributions.mixtures import DiscretizedChannelMixture
from genmod.models import VAE
from genmod.spec import Bins
from genmod.training import fit
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")

BINS, COMPONENTS = 3, 2
COLORS = torch.tensor(list(product(range(BINS), repeat=3)))
"""All colors of three values a channel, (27, 3)."""


def law(rows: int, coupling: float = 0.8) -> DiscretizedChannelMixture:
    """The same random mixture for each row of one pixel."""
    torch.manual_seed(2)
    logits = torch.randn(1, COMPONENTS, 1).expand(rows, -1, -1)
    location, log_scale, couplings = (torch.randn(1, COMPONENTS, 3, 1) for _ in range(3))
    wide = [each.expand(rows, -1, -1, -1) for each in (location, log_scale - 1, couplings)]
    return DiscretizedChannelMixture(
        logits, wide[0], wide[1], coupling * wide[2].tanh(), Bins(BINS)
    )


def masses(found: DiscretizedChannelMixture) -> Tensor:
    return found.log_prob(COLORS[..., None]).exp()


def test_the_masses_of_all_colors_sum_to_one() -> None:
    torch.testing.assert_close(masses(law(27)).sum(), torch.tensor(1.0))
    far = DiscretizedChannelMixture(
        torch.zeros(27, 1, 1), torch.full((27, 1, 3, 1), 40.0), torch.full((27, 1, 3, 1), -6.0),
        torch.full((27, 1, 3, 1), -0.9), Bins(BINS),
    )  # fmt: skip
    torch.testing.assert_close(masses(far).sum(), torch.tensor(1.0))


def test_a_mass_is_the_formula_by_scipy() -> None:
    """Component by component, channel after channel."""
    found, bins = law(27), Bins(BINS)
    lower, upper = (edge.numpy() for edge in bins.edges(torch.arange(BINS)))
    expected = []
    for color in COLORS.tolist():
        real = bins.center(torch.tensor(color, dtype=torch.float64)).tolist()
        total = 0.0
        for k in range(COMPONENTS):
            a, b, c = found.coupling[0, k, :, 0].tolist()
            shift = (0.0, a * real[0], b * real[0] + c * real[1])
            mass = float(found.logits[0, :, 0].softmax(0)[k])
            for channel in range(3):
                mean = float(found.location[0, k, channel, 0]) + shift[channel]
                one = stats.logistic(mean, float(found.log_scale[0, k, channel, 0].exp()))
                mass *= one.cdf(upper[color[channel]]) - one.cdf(lower[color[channel]])
            total += mass
        expected.append(total)
    torch.testing.assert_close(masses(found), torch.tensor(expected))


def test_draws_have_the_masses_of_the_law() -> None:
    """How often each color is drawn; and the mean of the first channel is exact."""
    found = law(20000)
    drawn = found.sample()[..., 0]
    expected = masses(law(27))
    code = (drawn * torch.tensor([9, 3, 1])).sum(1)
    for number in range(27):
        assert_mean((code == number).double(), expected[number], name=str(number))
    mean = (expected[:, None] * COLORS).sum(0)
    torch.testing.assert_close(law(1).mean[0, 0, 0], mean[0])
    torch.testing.assert_close(law(1).mean[0, :, 0], mean, rtol=0, atol=0.15)


def test_without_coupling_one_component_is_a_product_of_channels() -> None:
    torch.manual_seed(5)
    location, log_scale = torch.randn(4, 1, 3, 5), torch.randn(4, 1, 3, 5) - 1
    plain = DiscretizedChannelMixture(
        torch.zeros(4, 1, 5), location, log_scale, torch.zeros(4, 1, 3, 5), Bins(17)
    )
    x = torch.randint(17, (4, 3, 5))
    expected = DiscretizedLogistic(location[:, 0], log_scale[:, 0], Bins(17)).log_prob(x)
    torch.testing.assert_close(plain.log_prob(x), expected)


class Free(nn.Module):
    """A network whose output is the same learned numbers for every row."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.zeros(outputs))

    def forward(self, state: Tensor) -> Tensor:
        return self.numbers.expand(len(state), -1)


@pytest.mark.usefixtures("as_users_run")
def test_a_vae_of_color_images_learns_that_channels_are_alike() -> None:
    """Digits in three nearly equal channels, with no latents of use: independent ones pay three times."""
    gray = load("digits").train[:128].long()
    noise = torch.randint(-1, 2, (128, 2, 8, 8))
    x = torch.cat([gray, (gray + noise).clamp(0, 16)], 1)
    shape, found = (3, 8, 8), []
    for decoder in (
        ChannelMixtureDecoder(Free(10 * 5 * 64), shape, 17),
        DiscretizedMixtureDecoder(Free(3 * 5 * 192), shape, 17),
    ):
        model = VAE(shape, 17, latents=2, width=8, decoder=decoder)
        history = fit(
            model, x, steps=40, batch_size=64, learning_rate=0.2, warmup=0, ema=0.0, progress=False,
            device="cpu",
        )  # fmt: skip
        found.append(history.losses[-1])
        assert model.sample(2).shape == (2, *shape)
        assert model.reconstruct(x[:2]).shape == (2, *shape)
    assert found[0] < 0.8 * found[1]


def test_other_data_are_refused() -> None:
    for shape, bins in (((1, 4, 4), 17), ((3,), 17), ((3, 4, 4), None)):
        with pytest.raises(ValueError, match="color images; expected integers of shape"):
            ChannelMixtureDecoder(Free(10), shape, bins)
    with pytest.raises(ValueError, match="components=0"):
        ChannelMixtureDecoder(Free(10), (3, 4, 4), 17, components=0)
