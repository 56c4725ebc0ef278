"""Encoders: which output of the network is which parameter, and how integers are scaled."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genmod import diffusion, encoders
from genmod.distributions import Normal
from genmod.nn import MLP
from genmod.schedules import LinearLogSNR
from genmod.spec import Bins, DataSpec
from tests.oracles_vae import affine

pytestmark = pytest.mark.usefixtures("float64")


def test_a_gaussians_mean_comes_first_then_its_log_std() -> None:
    network = affine(torch.randn(6, 4), torch.randn(6))
    x = torch.randn(5, 4)
    q = encoders.GaussianEncoder(network, (3,))(x)
    torch.testing.assert_close(q.mean, network(x)[:, :3])
    torch.testing.assert_close(q.log_std, network(x)[:, 3:])
    image = encoders.GaussianEncoder(affine(torch.randn(16, 4), torch.randn(16)), (2, 2, 2))(x)
    assert image.event_shape == (2, 2, 2)


def test_a_point_is_the_networks_output() -> None:
    network = affine(torch.randn(3, 4), torch.randn(3))
    x = torch.randn(5, 4)
    torch.testing.assert_close(encoders.DiracEncoder(network, (3,))(x).sample(), network(x))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.long, torch.float64])
def test_integers_are_seen_on_minus_one_to_one(dtype: torch.dtype) -> None:
    """Whatever their type; real data are not changed."""
    x = torch.arange(5)[:, None].to(dtype)
    identity = affine(torch.eye(1), torch.zeros(1))
    seen = encoders.DiracEncoder(identity, (1,), DataSpec((1,), 5))(x).sample()
    torch.testing.assert_close(seen, torch.linspace(-1, 1, 5)[:, None])
    torch.testing.assert_close(seen, Bins(5).center(x))
    if dtype is torch.float64:
        torch.testing.assert_close(encoders.DiracEncoder(identity, (1,))(x).sample(), x)


def test_features_are_handed_to_heads_in_the_priors_order() -> None:
    """Two stages of known effect: the top level's head sees the second, the bottom's the first."""

    class Scale(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = by

        def forward(self, h: Tensor) -> Tensor:
            return self.by * h

    heads = [encoders.TopDownHead(affine(torch.eye(2), torch.zeros(2)), (1,)) for _ in range(2)]
    posterior = encoders.TopDownEncoder([Scale(2.0), Scale(5.0)], heads)(torch.ones(3, 1))
    state, p = torch.full((3, 1), 0.5), Normal(torch.zeros(3, 1), torch.zeros(3, 1))
    top, bottom = (posterior.conditional(level, state, p) for level in range(2))
    said = [part[0].item() for part in (top.mean, bottom.mean, top.log_std)]
    assert said == [10.0, 2.0, 0.5]


def test_a_head_sees_features_and_state_side_by_side() -> None:
    network = affine(torch.randn(4, 5), torch.randn(4))
    features, state = torch.randn(3, 2), torch.randn(3, 3)
    q = encoders.TopDownHead(network, (2,))(features, state)
    torch.testing.assert_close(q.mean, network(torch.cat([features, state], 1))[:, :2])


def test_a_context_reaches_every_network_of_a_hierarchy() -> None:
    stages = [MLP(4, 3, width=8, context=2), MLP(3, 3, width=8, context=2)]
    heads = [encoders.TopDownHead(MLP(5, 2, width=8, context=2), (1,)) for _ in range(2)]
    encoder = encoders.TopDownEncoder(stages, heads)
    x, context = torch.randn(3, 4), torch.randn(3, 2, requires_grad=True)
    posterior = encoder(x, context)
    p = Normal(torch.zeros(3, 1), torch.zeros(3, 1))
    q = posterior.conditional(1, torch.randn(3, 2), p)
    (grad,) = torch.autograd.grad(q.mean.sum(), context)
    assert bool((grad != 0).all())


def test_noise_is_added_as_the_schedule_says() -> None:
    """``N(alpha x, sigma^2)`` at any time; rows repeat together."""
    schedule = LinearLogSNR()
    x = torch.randn(4, 2)
    noised = diffusion.NoisingEncoder(schedule)(x)
    t = torch.tensor([0.0, 0.3, 0.7, 1.0])
    alpha, sigma = schedule.scales(t)
    q = noised.at(t)
    torch.testing.assert_close(q.mean, alpha[:, None] * x)
    torch.testing.assert_close(q.stddev, sigma[:, None].expand(4, 2))
    assert torch.equal(noised.repeat(3).x, x.repeat_interleave(3, 0))


def test_a_network_of_the_wrong_size_is_refused_by_name() -> None:
    x = torch.randn(5, 4)
    with pytest.raises(ValueError, match=r"got 5 outputs a row from MLP; expected 6"):
        encoders.GaussianEncoder(MLP(4, 5), (3,))(x)
    with pytest.raises(ValueError, match=r"got 5 outputs a row from MLP; expected 3"):
        encoders.DiracEncoder(MLP(4, 5), (3,))(x)
    with pytest.raises(ValueError, match=r"got 3 outputs a row from MLP; expected 4"):
        encoders.TopDownHead(MLP(6, 3), (2,))(x, torch.zeros(5, 2))


def test_noise_is_added_to_integers_as_real_numbers() -> None:
    """Also without a spec: integer states would be rounded."""
    x, t = torch.tensor([[1, 2], [3, 4]]), torch.full((2,), 0.5)
    encoder = diffusion.NoisingEncoder(LinearLogSNR(5.0, -6.0))
    found, expected = (encoder(each).at(t).mean for each in (x, x.to(torch.get_default_dtype())))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
