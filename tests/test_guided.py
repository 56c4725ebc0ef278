r"""Guidance: scales 0 and 1 are the two models, the formula is that of every paper, the bound is exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from genmod.denoisers import (
    DataTarget,
    Denoised,
    Denoiser,
    GaussianDenoiser,
    Guided,
    NoiseTarget,
    ScoreTarget,
    Target,
    VelocityTarget,
)
from genmod.diffusion import DiffusionPrior, FixedLarge
from genmod.models import VAE, Diffusion, LatentDiffusion, with_denoiser
from genmod.nn import NULL_LABEL, null_context
from genmod.samplers import Ancestral, Heun
from genmod.schedules import LinearLogSNR
from tests.oracles import F64, GaussianData, ancestral_law, correlated, real, steps_of
from tests.statistics import assert_mean

SCHEDULE = LinearLogSNR(6.0, -6.0)
LOG_SNR = torch.linspace(-5, 5, 6, dtype=F64)


class Classes(Denoiser):
    """Gaussian data of three classes, each with its own mean, and all of them for the label -1.

    What it knows for -1 is one Gaussian, not the mixture: guidance mixes any two denoisers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.means = real(-1.0, 0.5, 2.0)
        self.each = GaussianDenoiser(torch.zeros(2, dtype=F64), 0.3 * torch.eye(2, dtype=F64))
        self.all = GaussianDenoiser(real(0.5, 0.5), 2.0 * torch.eye(2, dtype=F64))
        self.calls: list[int] = []

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
        """Each row by its label, with the label for a variance."""
        assert context is not None
        self.calls.append(len(z))
        alpha = log_snr.sigmoid().sqrt()[:, None]
        mean = self.means[context.clamp(min=0)][:, None]
        told = mean + self.each(z - alpha * mean, log_snr).x_hat
        x_hat = torch.where(context[:, None] < 0, self.all(z, log_snr).x_hat, told)
        return Denoised(x_hat, context[:, None].expand_as(z).to(z.dtype))


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """States, log-SNRs and labels."""
    return torch.randn(6, 2, dtype=F64), LOG_SNR, torch.tensor([0, 1, 2, 2, 1, 0])


def test_one_is_the_conditional_and_zero_the_unconditional_model() -> None:
    """Exactly; any scale but 1 has one call with twice as many rows, and the conditional variance."""
    denoiser, (z, log_snr, labels) = Classes(), batch()
    told = denoiser(z, log_snr, labels).x_hat
    untold = denoiser(z, log_snr, -torch.ones_like(labels)).x_hat
    denoiser.calls.clear()
    one, zero = (Guided(denoiser, w)(z, log_snr, labels) for w in (1.0, 0.0))
    assert torch.equal(one.x_hat, told)
    assert torch.equal(zero.x_hat, untold)
    assert denoiser.calls == [6, 6, 12]  # at 0 a second call, for the variance
    three = Guided(denoiser, 3.0)(z, log_snr, labels)
    assert denoiser.calls == [6, 6, 12, 12]
    torch.testing.assert_close(three.x_hat, 3 * told - 2 * untold)
    # The ends are limits: nothing jumps where a call is saved.
    for w, end in ((1.0, told), (0.0, untold)):
        near = Guided(denoiser, w + 1e-12)(z, log_snr, labels).x_hat
        torch.testing.assert_close(near, end, rtol=0, atol=1e-9)


class Bare(Classes):
    """The same without a variance."""

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
        """The mean alone."""
        return Denoised(super().forward(z, log_snr, context).x_hat)


@pytest.mark.parametrize("scale", [0.0, 1e-9, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("settings", [{}, {"rescale": 0.3}, {"interval": (-3.0, 1.0)}], ids=repr)
def test_the_variance_is_the_conditional_denoisers(scale: float, settings: dict[str, Any]) -> None:
    """At every scale, 0 included, with any other setting, and beside a worse denoiser without one."""
    z, log_snr, labels = batch()
    for worse in (None, Bare()):
        guided = Guided(Classes(), scale, worse=worse, **settings)
        found = guided(z, log_snr, labels).variance
        assert found is not None
        torch.testing.assert_close(found[:, 0], labels.double())


def test_without_a_variance_the_unconditional_mean_is_one_call() -> None:
    denoiser, (z, log_snr, labels) = Bare(), batch()
    Guided(denoiser, 0.0)(z, log_snr, labels)
    assert denoiser.calls == [6]


@pytest.mark.parametrize(
    "target", [NoiseTarget(), DataTarget(), VelocityTarget(), ScoreTarget()], ids=repr
)
def test_every_prediction_is_mixed_by_the_same_scale(target: Target) -> None:
    """Mixing noise as papers do is mixing data: Ho and Salimans' ``(1 + w') c - w' u`` is w = 1 + w'."""
    denoiser, (z, log_snr, labels) = Classes(), batch()
    alpha, sigma = log_snr.sigmoid().sqrt()[:, None], (-log_snr).sigmoid().sqrt()[:, None]

    def said(labels: Tensor) -> Tensor:
        return target.output(denoiser(z, log_snr, labels).x_hat, z, alpha, sigma)

    c, u = said(labels), said(-torch.ones_like(labels))
    x_hat = target.x_hat((1 + 1.5) * c - 1.5 * u, z, alpha, sigma)
    torch.testing.assert_close(Guided(denoiser, 2.5)(z, log_snr, labels).x_hat, x_hat)


def test_guidance_in_an_interval() -> None:
    """Inside, the guided mean; outside, the conditional one, and with no row inside one call as well."""
    denoiser, (z, log_snr, labels) = Classes(), batch()
    told = denoiser(z, log_snr, labels).x_hat
    everywhere = Guided(denoiser, 4.0)(z, log_snr, labels).x_hat
    found = Guided(denoiser, 4.0, interval=(-3.0, 1.0))(z, log_snr, labels).x_hat
    inside = torch.tensor([False, True, True, False, False, False])  # -5, -3, -1, 1, 3, 5
    assert torch.equal(found[inside], everywhere[inside])
    assert torch.equal(found[~inside], told[~inside])
    denoiser.calls.clear()
    nowhere = Guided(denoiser, 4.0, interval=(6.0, 9.0))(z, log_snr, labels).x_hat
    assert torch.equal(nowhere, told)
    assert denoiser.calls == [6]
    # Without a scale, the interval says where the model is unconditional.
    some = Guided(denoiser, 0.0, interval=(-3.0, 1.0))(z, log_snr, labels).x_hat
    untold = Guided(denoiser, 0.0)(z, log_snr, labels).x_hat
    torch.testing.assert_close(some, torch.where(inside[:, None], untold, told))


def test_rescaling_brings_back_the_spread() -> None:
    r"""With :math:`\phi = 1` each event spreads as the conditional mean's does; half-way, by half."""
    denoiser, (z, log_snr, labels) = Classes(), batch()
    told = denoiser(z, log_snr, labels).x_hat
    off, half, full = (
        Guided(denoiser, 5.0, rescale=phi)(z, log_snr, labels).x_hat for phi in (0.0, 0.5, 1.0)
    )
    torch.testing.assert_close(full.std(1), told.std(1))
    torch.testing.assert_close(half, 0.5 * (off + full))
    # A constant event has no spread: it is left alone.
    flat = Guided(denoiser, 5.0, rescale=1.0)(torch.ones_like(z), log_snr, labels).x_hat
    torch.testing.assert_close(flat, Guided(denoiser, 5.0)(torch.ones_like(z), log_snr, labels)[0])


def test_autoguidance_moves_away_from_the_worse_model() -> None:
    """Two Gaussian denoisers: affine in z, so the guided chain's law is exact, and z-tested."""
    good, worse = correlated(0), correlated(1)
    z = torch.randn(6, 3, dtype=F64)
    guided = Guided(good.denoiser(), 2.0, worse=worse.denoiser())
    x_hat = 2 * good.denoiser()(z, LOG_SNR).x_hat - worse.denoiser()(z, LOG_SNR).x_hat
    torch.testing.assert_close(guided(z, LOG_SNR).x_hat, x_hat)
    same = Guided(good.denoiser(), 2.0, worse=good.denoiser())
    times = torch.linspace(1, 0, 5, dtype=F64)
    with torch.no_grad():
        drawn = Ancestral(same, SCHEDULE, FixedLarge()).run(torch.randn(5_000, 3, dtype=F64), times)
    mean, covariance = ancestral_law(good, SCHEDULE, 5, FixedLarge())
    assert_mean(drawn, mean)
    assert_mean((drawn - mean).square(), covariance.diagonal())


def test_the_bound_of_a_guided_chain_is_its_own() -> None:
    r"""Under optimal denoisers a step's error grows by :math:`(w-1)^2 E|\hat x_c - \hat x_u|^2`.

    The conditional Gaussian against the unconditional one, both affine in ``z``; the levels' nats at
    w = 3 less those at w = 1 are 4 times those of the difference, in the mean over ``x`` given ``c``.
    """
    data = GaussianData(real(0.4, -0.3), real(0.5, 0.2).diag())
    wide = GaussianDenoiser(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
    model = Diffusion(2, denoiser=data.denoiser(), steps=4, schedule=SCHEDULE).double()
    guided = with_denoiser(model, lambda d: Guided(d, 3.0, worse=wide))
    x = data.law.sample((20_000,))
    torch.manual_seed(1)
    plain = steps_of(model, x)
    torch.manual_seed(1)
    dearer = steps_of(guided, x)
    assert plain.noise is not None
    assert dearer.noise is not None
    for i, log_snr in enumerate(SCHEDULE.log_snr(torch.linspace(0, 1, 4, dtype=F64))[1:]):
        snr, alpha = log_snr.exp(), log_snr.sigmoid().sqrt()
        sigma = (1 - alpha.square()).sqrt()
        z = alpha * data.law.sample((20_000,))
        z = z + sigma * torch.randn_like(z)
        level = log_snr.expand(len(z))
        apart = data.denoiser()(z, level).x_hat - wide(z, level).x_hat
        difference = 4 * snr * apart.square().sum(1)
        assert_mean(dearer.noise.error[:, i] - plain.noise.error[:, i] - difference, 0.0)


def test_a_wrapped_model_shares_everything_else() -> None:
    """Chain and last step ask the wrapped denoiser; schedule, scale and parameters are the same objects,
    and the model it was made of is as it was.
    """
    model = Diffusion((1, 8, 8), bins=17, width=8, steps=4)
    guided = with_denoiser(model, lambda d: Guided(d, 2.0, worse=d))
    assert type(guided) is Diffusion
    prior, plain = guided.prior, model.prior
    assert isinstance(prior, DiffusionPrior)
    assert isinstance(plain, DiffusionPrior)
    assert isinstance(prior.denoiser, Guided)
    assert prior.denoiser is guided.decoder.denoiser is prior.denoiser
    assert prior.denoiser.denoiser is plain.denoiser
    assert not isinstance(plain.denoiser, Guided)
    assert not isinstance(plain.denoiser, Guided)
    assert prior.schedule is guided.encoder.schedule is plain.schedule
    assert {id(p) for p in guided.parameters()} == {id(p) for p in model.parameters()}
    # Away from itself is nowhere: the same draws and the same bound.
    x = torch.randint(0, 17, (3, 1, 8, 8))
    for ask in (lambda m: m.sample(3), lambda m: m.elbo(x).value):
        torch.manual_seed(0)
        expected = ask(model)
        torch.manual_seed(0)
        torch.testing.assert_close(ask(guided), expected)


def test_a_latent_diffusion_is_guided_inside() -> None:
    """The nested diffusion's denoiser, found and wrapped, and the latents' scale shared; a VAE has none."""
    model = LatentDiffusion((1, 8, 8), bins=17, latents=4, width=8)
    guided = with_denoiser(model, lambda d: Guided(d, 2.0, worse=d))
    assert type(guided) is LatentDiffusion
    assert isinstance(guided.nested.model.prior.denoiser, Guided)
    assert guided.encoder is model.encoder
    assert guided.nested.log_scale is model.nested.log_scale
    with pytest.raises(ValueError, match="a VAE with 0 denoisers"):
        with_denoiser(VAE((1, 8, 8), bins=17, latents=4), lambda d: d)


def test_a_guided_flow_moves_towards_its_class() -> None:
    """The first entry of the samples, by scale: further from the others' mean the larger it is."""
    denoiser, labels = Classes(), torch.full((50,), 2)
    z, times = torch.randn(50, 2, dtype=F64), torch.linspace(1, 0, 25, dtype=F64)
    means = []
    for scale in (0.0, 1.0, 2.0, 4.0):
        x = Heun(Guided(denoiser, scale), SCHEDULE).run(z, times, labels)
        means.append(float(x.mean()))
    assert means == sorted(means)
    assert means[1] == pytest.approx(2.0, abs=0.2)


def test_the_null_context_is_minus_100_or_nan_and_can_be_replaced() -> None:
    """NaN for vectors; a negative prompt can stand in its place."""
    assert torch.equal(null_context(torch.tensor([3, 0])), torch.tensor([NULL_LABEL, NULL_LABEL]))
    assert bool(null_context(torch.ones(2, 3)).isnan().all())
    for kind in (torch.bool, torch.uint8):
        with pytest.raises(ValueError, match="signed integers"):
            null_context(torch.ones(2).to(kind))
    denoiser, (z, log_snr, labels) = Classes(), batch()
    negative = Guided(denoiser, 2.0, null_context=torch.zeros_like)(z, log_snr, labels).x_hat
    told, other = (denoiser(z, log_snr, c).x_hat for c in (labels, torch.zeros_like(labels)))
    torch.testing.assert_close(negative, 2 * told - other)


def test_bad_guidance_is_refused() -> None:
    denoiser, (z, log_snr, _) = Classes(), batch()
    for scale in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="0 the unconditional"):
            Guided(denoiser, scale)
    with pytest.raises(ValueError, match="rescale"):
        Guided(denoiser, 2.0, rescale=1.5)
    with pytest.raises(ValueError, match="low < high"):
        Guided(denoiser, 2.0, interval=(1.0, -1.0))
    with pytest.raises(ValueError, match="got no context"):
        Guided(denoiser, 2.0)(z, log_snr)
