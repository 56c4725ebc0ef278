"""Levels from the top down: the state that is handed on, the paths, the codes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genmod import Kind, decoders, encoders, priors
from genmod.distributions import Normal
from genmod.model import LatentModel
from genmod.models import HVAE, Inference
from genmod.nn import MLP
from tests.oracles_vae import affine, tower
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")


class Add(nn.Module):
    """``state + z``."""

    def forward(self, state: Tensor, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The state for the level below."""
        return state + z


def random_walk(levels: int, learned: bool = False) -> priors.TopDownPrior:
    """``z_l | state ~ N(state, 1)``, and the state is their sum."""
    identity = affine(torch.eye(2), torch.zeros(2))
    blocks = [
        priors.TopDownBlock(decoders.GaussianDecoder(identity, (2,), 1.0), Add())
        for _ in range(levels)
    ]
    initial = torch.tensor([1.0, -2.0])
    return priors.TopDownPrior(blocks, nn.Parameter(initial) if learned else initial)


def test_the_state_is_what_the_merges_made_of_the_latents() -> None:
    """By hand: initial + z3 + z2 + z1, in the prior's order."""
    prior = random_walk(3)
    z = tuple(torch.randn(4, 2) for _ in range(3))
    expected = torch.tensor([1.0, -2.0]) + z[0] + z[1] + z[2]
    torch.testing.assert_close(prior.state_from(z), expected)


def test_samples_follow_the_chain() -> None:
    """``z_l ~ N(state, 1)`` is added to the state: mean 8 c, variance 1 + 4 + 16.

    state_3 = c + z3, z3 ~ N(c, 1): mean 2c, var 1; state_2 = 2 state_3 + e: var 4 + 1; and so on.
    """
    x = random_walk(3).sample(40_000)
    assert_mean(x, torch.tensor([8.0, -16.0]), name="mean")
    assert_mean((x - torch.tensor([8.0, -16.0])).square(), torch.tensor(21.0), name="variance")


def test_merge_sees_state_and_latent_in_that_order() -> None:
    class Keep(nn.Module):
        def forward(self, state: Tensor, z: Tensor) -> Tensor:
            return torch.cat([state, 10 * z], 1)

    law = decoders.GaussianDecoder(affine(torch.ones(1, 1), torch.zeros(1)), (1,), 1.0)
    prior = priors.TopDownPrior([priors.TopDownBlock(law, Keep())], torch.tensor([3.0]))
    assert prior.state_from(torch.full((1, 1), 0.5)).tolist() == [[3.0, 5.0]]


def test_each_levels_rate_is_conditional_on_the_state_above() -> None:
    """One path with the caller's own draws: q and p at each level see the same state, and the rates
    of those draws are those of ``rates``.
    """
    model = tower(3).top_down()
    x = tower(3).joint().law("x").sample((7,))
    path = model.prior.infer(model.encoder(x))
    level, names, total = next(path), [], torch.zeros(7)
    torch.manual_seed(5)
    try:
        while True:
            names.append(level.name)
            assert isinstance(level.q, Normal)
            assert level.p is not None
            z = level.q.rsample()
            total = total + level.p.log_prob(z) - level.q.log_prob(z)
            level = path.send(z)
    except StopIteration as end:
        state = end.value
    assert names == ["z3", "z2", "z1"]
    torch.manual_seed(5)
    again, walked = model.prior.draw_path(model.encoder(x))
    torch.testing.assert_close(walked.log_ratio()[0], total)
    torch.testing.assert_close(again, state)


def test_closed_and_sampled_levels_agree_in_the_mean() -> None:
    model = HVAE((3,), latents=(3, 2), width=8, inference=Inference.TOP_DOWN)
    x = torch.randn(1, 3).expand(30_000, 3)
    with torch.no_grad():
        _, rates = model.prior.rates(model.encoder(x))
        _, path = model.prior.draw_path(model.encoder(x))
        weight = path.log_ratio()[0]
    assert {rate.kind for rate in rates.values()} == {Kind.ANALYTIC}
    total = torch.stack([rate.total for rate in rates.values()]).sum(0)
    assert_mean(total + weight, 0.0, name="two forms")


def test_an_initial_state_is_learned_if_it_is_a_parameter() -> None:
    assert next(random_walk(1, learned=True).named_parameters())[0] == "initial"
    fixed = random_walk(1)
    assert "initial" in dict(fixed.named_buffers())
    assert "initial" in fixed.state_dict()


def test_a_context_reaches_law_and_merge() -> None:
    class Told(nn.Module):
        def forward(self, state: Tensor, z: Tensor, context: Tensor) -> Tensor:
            return state + z * context

    law = decoders.GaussianDecoder(MLP(2, 2, width=8, context=2), (2,), 1.0)
    stage, head = (
        MLP(3, 3, width=8, context=2),
        encoders.TopDownHead(MLP(5, 4, width=8, context=2), (2,)),
    )
    model = LatentModel(
        encoders.TopDownEncoder([stage], [head]),
        decoders.GaussianDecoder(MLP(2, 3, width=8, context=2), (3,)),
        priors.TopDownPrior([priors.TopDownBlock(law, Told())], torch.zeros(2)),
    )
    x, context = torch.randn(4, 3), torch.randn(4, 2)
    code = model.encode(x, context)
    torch.testing.assert_close(model.decode(code, context).mean, model.reconstruct(x, context))
    assert not torch.allclose(model.reconstruct(x, context), model.reconstruct(x, 2 * context))
    assert model.sample(4, context).shape == x.shape


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got no blocks; expected at least one level"):
        priors.TopDownPrior([], torch.zeros(2))
    prior = random_walk(2)
    q = Normal(torch.zeros(3, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"got a Normal posterior.*pair priors.TopDownPrior with"):
        prior.rates(q)
    posterior = tower(3).top_down().encoder(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"posterior of 3 levels; expected 2, as the prior has"):
        prior.rates(posterior)
    z = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"1 latents, none left for z1"):
        prior.state_from((z,))
    with pytest.raises(ValueError, match=r"3 latents, 1 too many"):
        prior.state_from((z, z, z))
    with pytest.raises(ValueError, match=r"z1 of shape \(3, 5\)"):
        prior.state_from((z, torch.zeros(3, 5)))
