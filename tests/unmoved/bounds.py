"""Values of bounds, schedules and Gaussians."""

from __future__ import annotations

from collections.abc import Callable

import torch

from genmod import denoisers, gaussian
from genmod.diffusion import FixedLarge, LossAwareTimesteps, UniformTimesteps
from genmod.gaussian.full import kl_standard_full, wasserstein_squared_full
from genmod.gaussian.kernels import kl_log_std, kl_standard_log_std
from genmod.nn import NULL_LABEL, ConvNets, DiTs
from genmod.objectives import EDMWeight
from genmod.random import keyed
from tests.unmoved import models
from tests.unmoved.inputs import BINS, IMAGE, IMAGES, INTS, LABELS, POINTS, REALS, SEEN, bound, rows


def units_and_bits() -> object:
    """Nats of each dimension of a VAE's latent, and bits per dimension of the data."""
    with keyed(2):
        found = models.vae().elbo(INTS)
    return [found.rates["prior"].per_dim[0].mean(0), found.bits_per_dim(16).mean()]


def of_decoders() -> object:
    found = []
    for number, (bins, *_) in enumerate(models.DECODERS):
        x = IMAGES if bins is None else INTS % bins
        found.append(bound(models.vae_deciding(number), x, 5)[0])
    return found


def levels_of_a_row() -> object:
    """What a diffusion's rate knows of the fifth row at each of two levels."""
    with keyed(9):
        rate = models.steps10().elbo(INTS, timesteps=2).rates["steps"]
    noise = rate.noise
    fields = (rate.nats, rate.weight, rate.level, noise.log_snr, noise.gap, noise.error, noise.dt)
    return [field[4] for field in fields]


def of_timestep_samplers() -> object:
    model = models.continuous()
    ways = [
        UniformTimesteps(3),
        LossAwareTimesteps(3, bins=4),
        EDMWeight.timestep_sampler(model.prior.schedule, n=3),
    ]
    return [bound(model, REALS, 11, timesteps=way)[2] for way in ways]


def of_schedules() -> object:
    found = []
    for name in (
        "cosine",
        "linear beta",
        "zero terminal linear beta",
        "exploding",
        "rectified flow",
        "log-normal",
    ):
        found += bound(models.diffusion(14, 3, None, 10, name), REALS, 15)[1:3]
    return found


def of_fixed_large() -> object:
    found = []
    for name in ("exploding", "rectified flow"):
        model = models.diffusion(15, 3, None, 10, name, variance=FixedLarge())
        found.append(bound(model, REALS, 16)[2])
    return found


def of_targets() -> object:
    targets = (
        denoisers.NoiseTarget,
        denoisers.DataTarget,
        denoisers.VelocityTarget,
        denoisers.ScoreTarget,
        denoisers.FlowVelocityTarget,
        denoisers.EDMTarget,
    )
    return [bound(models.predicting(of()), REALS, 17, timesteps=4)[2] for of in targets]


def of_networks() -> object:
    found = []
    for settings in (
        {"networks": ConvNets(width=8, head=8)},
        {"networks": DiTs(width=16, depth=1, head=8, patch=2)},
        {"fourier": (2, 3)},
    ):
        found.append(bound(models.diffusion(17, IMAGE, BINS, 4, **settings), INTS, 18)[2])
    return found


def of_a_frozen_latent_diffusion() -> object:
    model = models.latent_diffusion(None)
    model.freeze(INTS)
    return bound(model, INTS, 21, timesteps=4)


def at_a_time() -> object:
    """Log-SNR, its slope, alpha and sigma of each schedule, and the time that is read back."""
    t, found = torch.tensor([0.3], dtype=torch.float64), []
    for name in (
        "linear log-snr",
        "cosine 0.008",
        "linear beta",
        "scaled linear beta",
        "sigmoid beta",
        "cosine beta",
        "sigmoid",
        "laplace",
        "logistic",
        "log-normal",
        "polynomial",
        "rectified flow",
        "exploding",
        "shifted cosine",
        "monotone",
    ):
        schedule = models.SCHEDULES[name]()
        log_snr = schedule.log_snr(t)
        found.append([log_snr, schedule.slope(t), *schedule.scales(t), schedule.time(log_snr)])
    return found


def of_gaussians() -> object:
    """KLs, densities, entropies, products and distances of N(m, s^2) and N(n, r^2)."""
    rows = [[0.3, -1.2], [0.5, 2.0], [-0.4, 0.1], [1.5, 0.7]]
    m, s, n, r = torch.tensor(rows, dtype=torch.float64)
    lower_q = torch.tensor([[0.9, 0.0], [0.4, 0.6]], dtype=torch.float64)
    lower_p = torch.tensor([[1.3, 0.0], [-0.2, 0.8]], dtype=torch.float64)
    return [
        gaussian.kl(m, s, n, r),
        gaussian.kl_standard(m, s),
        kl_log_std(m, s.log(), n, r.log()),
        kl_standard_log_std(m, s.log()),
        gaussian.kl_full(m, lower_q, n, lower_p),
        kl_standard_full(m, lower_q),
        gaussian.entropy(s),
        [gaussian.log_prob(n, m, s), gaussian.log_prob_full(n, m, lower_q)],
        list(gaussian.product(m, s, n, r)),
        wasserstein_squared_full(m, lower_q, n, lower_p),
        list(gaussian.LinearGaussian(m, lower_q, lower_p, n, lower_q).posterior(n)),
    ]


NULL_IN_SOME = torch.where(torch.arange(6) % 2 == 0, LABELS, NULL_LABEL)
VALUES: dict[str, Callable[[], object]] = {
    "autoencoder/terms": lambda: bound(models.autoencoder(), INTS, 1),
    "vae integers/terms": lambda: bound(models.vae(), INTS, 2),
    "vae integers/bound of each row": lambda: rows(models.vae(), INTS, 2)[-1],
    "vae integers/observed entries alone": lambda: bound(models.vae(), INTS, 2, observed=SEEN),
    "vae integers/units and bits per dimension": units_and_bits,
    "vae integers/conditional": lambda: bound(models.vae_labeled(), INTS, 2, context=LABELS),
    "vae reals/terms": lambda: bound(models.vae_reals(), REALS, 3),
    "vae reals, mixture prior/terms": lambda: bound(models.vae_mixture(), REALS, 4),
    "vae/decoders": of_decoders,
    "hvae bottom-up/terms": lambda: bound(models.hvae(False), INTS, 6),
    "hvae top-down/terms": lambda: bound(models.hvae(True), INTS, 7),
    "diffusion 10/terms": lambda: bound(models.steps10(), INTS, 8),
    "diffusion 10/terms, 3 levels visited": lambda: bound(models.steps10(), INTS, 9, timesteps=3),
    "diffusion 10/noise levels of a row": levels_of_a_row,
    "diffusion continuous/terms, 4 levels visited": lambda: bound(
        models.continuous(), REALS, 10, timesteps=4
    ),
    "diffusion continuous/timestep samplers": of_timestep_samplers,
    "diffusion fixed large/terms": lambda: bound(models.large(), INTS, 12),
    "diffusion learned variance/terms": lambda: bound(models.learned(), REALS, 13),
    "diffusion conditional/terms": lambda: bound(models.labeled(), INTS, 14, context=LABELS),
    "diffusion conditional/null context in some rows": lambda: bound(
        models.labeled(), INTS, 14, context=NULL_IN_SOME
    ),
    "diffusion/schedules, 10 steps": of_schedules,
    "diffusion/exploding and rectified flow, fixed large": of_fixed_large,
    "diffusion/targets": of_targets,
    "diffusion/networks: u-net, transformer, fourier features": of_networks,
    "diffusion/optimal denoisers": lambda: [
        bound(models.known_gaussian(), REALS, 19),
        bound(models.known_points(19, POINTS, 0.3, 10), REALS, 19),
    ],
    "latent diffusion 10/terms": lambda: bound(models.latent_diffusion(10), INTS, 20),
    "latent diffusion continuous, frozen/terms, 4 levels visited": of_a_frozen_latent_diffusion,
    "schedules/at t = 0.3": at_a_time,
    "gaussians": of_gaussians,
}
