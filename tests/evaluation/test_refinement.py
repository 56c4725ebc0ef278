"""Coding ``x`` from coarse to fine costs as many nats as coding it at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genmod import random
from genmod.decoders import CategoricalDecoder
from genmod.evaluation import refinement
from genmod.model import LatentModel
from genmod.models import VAE, Diffusion
from genmod.spec import Bins


class Constant(nn.Module):
    """Returns the same numbers for every state."""

    def __init__(self, said: Tensor) -> None:
        super().__init__()
        self.said = nn.Parameter(said)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """A copy for each row."""
        return self.said.expand(len(z), *self.said.shape)


def test_cells_cost_their_mass_and_leave_the_spread_inside_them() -> None:
    """One entry of five levels with masses known by hand; the levels 0 to 3 and 4 are cells of four."""
    mass = torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25])
    base = VAE((1,), 5, latents=2, width=8)
    decoder = CategoricalDecoder(Constant(mass.log()), (1,), 5)
    model = LatentModel(base.encoder, decoder, base.prior)
    found = refinement(model, torch.tensor([[1]]))
    assert found.width.tolist() == [8, 4, 2, 1]
    nats = -torch.tensor([1.0, 0.75, 0.3, 0.2]).log()
    torch.testing.assert_close(found.nats.float(), nats, rtol=1e-5, atol=1e-6)
    real = Bins(5).center(torch.arange(5))
    means = [(mass[:k] @ real[:k] / mass[:k].sum()) for k in (5, 4, 2)]
    errors = torch.stack([*means, real[1]]).sub(real[1]).abs()
    torch.testing.assert_close(found.rmse.float(), errors, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bins", [2, 17, 256])
def test_it_ends_with_the_reconstruction_of_the_bound(bins: int) -> None:
    """The coarsest cell costs zero nats, and ``x`` costs ``-log p(x | z)`` at the same state."""
    torch.manual_seed(0)
    model = Diffusion((6,), bins, width=8)
    x = torch.randint(0, bins, (32, 6))
    found = refinement(model, x)
    with random.keyed(0, ids=range(32)), torch.no_grad():
        bound = model.eval().elbo(x, timesteps=1)
    assert float(found.nats[-1]) == pytest.approx(-float(bound.reconstruction.mean()), rel=1e-5)
    assert float(found.nats[0]) == pytest.approx(0, abs=1e-4)
    assert (found.nats.diff() >= 0).all()
    assert found.rmse[-1] == pytest.approx(0, abs=1e-6)


def test_real_numbers_are_refused() -> None:
    """They have no finest level."""
    with pytest.raises(ValueError, match="integers"):
        refinement(Diffusion(2, width=8), torch.zeros(8, 2))
