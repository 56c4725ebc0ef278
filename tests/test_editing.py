r"""Editing: without noise the data return, at full noise nothing of them is left; paths keep their ends."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from genmod.chunks import memory_limit
from genmod.decoders import GaussianDecoder, Identity
from genmod.diffusion import FixedLarge
from genmod.editing import interpolate, latent_direction, move, sdedit, slerp
from genmod.encoders import GaussianEncoder
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Diffusion, LatentDiffusion
from genmod.nn import Labels
from genmod.nn.conditioning import Vectors
from genmod.priors import NormalPrior
from genmod.samplers import Ancestral, Heun
from genmod.schedules import LinearLogSNR
from tests.oracles import F64, GaussianData, correlated, real, standard
from tests.statistics import assert_mean

SCHEDULE = LinearLogSNR(10.0, -10.0)
DATA = correlated()


def model_of(data: GaussianData, resolution: int = 60) -> Diffusion:
    """The optimal denoiser; a decoder N(z_0, s^2) with a small s."""
    shape = tuple(data.mean.shape)
    decoder = GaussianDecoder(Identity(), shape, 1e-6)
    model = Diffusion(shape, denoiser=data.denoiser(), schedule=SCHEDULE, decoder=decoder)
    model.diffusion.resolution = resolution
    return model.double()


def test_without_noise_the_data_come_back() -> None:
    """At t = 0 an edit is ``alpha_0 x + sigma_0 eps``, whatever the denoiser."""
    x = DATA.law.sample((4_000,))
    alpha, sigma = (float(v) for v in SCHEDULE.scales(real(0.0)))
    off = sdedit(model_of(DATA), x, 0.0) - alpha * x
    assert_mean(off, 0.0)
    assert_mean(off.square(), sigma**2 + 1e-12)
    # Integers: the decoder's logistic, an eighth of a bin wide, leaves a bin at its own rate.
    integers = torch.randint(1, 16, (50, 1, 8, 8))
    clean = Diffusion((1, 8, 8), bins=17, width=8, schedule=LinearLogSNR(20.0, -5.0))
    changed = (sdedit(clean, integers, 0.0) != integers).double()
    assert_mean(changed.flatten(), 2 / (1 + math.exp(4)))


def test_at_full_noise_the_data_are_forgotten() -> None:
    """Edits of one point are samples: the data's mean and covariance, whatever the point."""
    x = torch.full((4_000, 3), 5.0, dtype=F64)
    found = sdedit(model_of(DATA), x, 1.0, steps=80, sampler=Heun())
    assert_mean(found, DATA.mean)
    off = found - DATA.mean
    assert_mean(off[:, :, None] * off[:, None, :], DATA.covariance)


@pytest.mark.parametrize("t", [0.4, 0.6])
def test_an_edit_is_a_draw_given_the_noised_data(t: float) -> None:
    r"""N(0, I) data: :math:`z_t = \alpha x + \sigma\varepsilon`, then x' given z_t: mean
    :math:`\alpha^2 x`, variance :math:`\alpha^2\sigma^2 + \sigma^2`. The large variance makes the
    chain exact.
    """
    x = torch.full((20_000, 1), 2.0, dtype=F64)
    found = sdedit(model_of(standard(1)), x, t, steps=50, sampler=Ancestral(variance=FixedLarge()))
    alpha, sigma = (float(v) for v in SCHEDULE.scales(real(t)))
    assert_mean(found, alpha**2 * 2.0)
    assert_mean((found - alpha**2 * 2.0).square(), alpha**2 * sigma**2 + sigma**2)


def test_an_edit_of_latents_goes_through_their_scale() -> None:
    """A latent diffusion: at t = 0 its own reconstruction, with the latents' shift and scale."""
    model = LatentDiffusion((1, 8, 8), bins=17, latents=4, width=8).double()
    model.nested.standardize(torch.full((4,), 3.0), torch.full((4,), 0.2))
    x, seen = torch.randint(0, 17, (8, 1, 8, 8)), []
    model.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert sdedit(model, x, 0.0).shape == x.shape
    with torch.no_grad():
        mean = model.encoder(x).mean
    assert float((seen[0] - mean).abs().max()) < 0.05


def test_the_ends_of_a_path_are_the_data() -> None:
    """To the solver's error, which falls with its order; the middle of equal ends is the ends."""
    a, b = DATA.law.sample((5,)), DATA.law.sample((5,))
    errors = []
    for resolution in (20, 40):
        path = interpolate(model_of(DATA, resolution), a, b, 3)
        ends = torch.stack([a, b], 1) * SCHEDULE.scales(real(0.0))[0]
        errors.append(float((path[:, [0, 2]] - ends).abs().max()))
    assert errors[1] < 0.1
    assert errors[1] < 0.4 * errors[0]
    still = interpolate(model_of(DATA, 20), a, a, 3)
    torch.testing.assert_close(still[:, 1], still[:, 0], rtol=1e-6, atol=1e-8)


def test_the_path_between_gaussian_data_is_the_circle_between_their_whitened_selves() -> None:
    """The flow of N(m, C) is affine: codes are whitened data, so the path is known."""
    data = GaussianData(real(1.0, -2.0), real(0.5, 2.0).diag())
    a, b = data.law.sample((4,)), data.law.sample((4,))
    path = interpolate(model_of(data), a, b, 5)
    std = real(0.5, 2.0).sqrt()
    code = slerp((a - data.mean) / std, (b - data.mean) / std, 0.25)
    torch.testing.assert_close(path[:, 1], data.mean + std * code, rtol=0, atol=0.02)


def test_other_models_interpolate_between_their_codes() -> None:
    """A VAE's ends are its reconstructions."""
    model = VAE((1, 8, 8), bins=17, latents=4, width=8)
    a, b = torch.randint(0, 17, (2, 3, 1, 8, 8))
    path = interpolate(model, a, b, 4)
    assert path.shape == (3, 4, 1, 8, 8)
    torch.testing.assert_close(path[:, 0], model.reconstruct(a))
    torch.testing.assert_close(path[:, -1], model.reconstruct(b))


def latents_as_data(dims: int) -> LatentModel:
    """The encoder's mean is ``x``, the decoder's is ``z``: paths of codes are paths of data."""
    encoder = GaussianEncoder(_Beside(), (dims,), dims)
    return LatentModel(encoder, GaussianDecoder(Identity(), dims, 0.1), NormalPrior((dims,)))


class _Beside(nn.Module):
    """``x``, and log-stds of zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, torch.zeros_like(x)], 1)


def test_a_circle_keeps_the_norm_of_gaussian_draws_and_a_line_does_not() -> None:
    r"""Half-way between draws of N(0, I) in many dimensions: norms near :math:`\sqrt D, \sqrt{D / 2}`."""
    torch.manual_seed(0)
    dims = 400
    a, b = torch.randn(2, 200, dims)
    model = latents_as_data(dims)
    for path, mean_square in (("spherical", 1.0), ("linear", 0.5)):
        ways = interpolate(model, a, b, 3, path=path)
        assert_mean(ways[:, 1].double().square().mean(1), mean_square)
        # The ends are exactly the codes, not nearly.
        assert torch.equal(ways[:, 0], a)
        assert torch.equal(ways[:, -1], b)


def test_a_path_of_a_hierarchy_ends_at_its_reconstructions() -> None:
    """Level by level, in each order of inference and along both paths; an equal level stays as it is."""
    torch.manual_seed(0)
    a, b = torch.randn(2, 3, 5)
    for order in ("bottom-up", "top-down"):
        model = HVAE(5, latents=(3, 2), inference=order, width=8)
        for path in ("spherical", "linear"):
            ways = interpolate(model, a, b, 3, path=path)
            torch.testing.assert_close(ways[:, 0], model.reconstruct(a))
            torch.testing.assert_close(ways[:, -1], model.reconstruct(b))
    zero = torch.zeros(2, 4)
    torch.testing.assert_close(interpolate(latents_as_data(4), zero, zero, 3)[:, 1], zero)


def test_paths_between_rows_with_missing_entries_do_not_read_them() -> None:
    """The mask of the rows of ``a``, then of ``b``: the ends are reconstructions of what was observed."""
    torch.manual_seed(0)
    for model in (VAE(5, latents=2, width=8), HVAE(5, latents=(3, 2), width=8)):
        x, seen = torch.randn(6, 5), torch.rand(6, 5) < 0.6
        ways = interpolate(model, x[:3], x[3:], 4, observed=seen)
        ends = model.reconstruct(x, observed=seen)
        torch.testing.assert_close(ways[:, 0], ends[:3])
        torch.testing.assert_close(ways[:, -1], ends[3:])
        other = torch.where(seen, x, 7.0)
        assert torch.equal(interpolate(model, other[:3], other[3:], 4, observed=seen), ways)
        assert not torch.equal(interpolate(model, x[:3], x[3:], 4), ways)


def test_each_end_of_a_path_has_a_context_of_its_own() -> None:
    """Labels change half-way, vectors of numbers along a straight line, null contexts like labels."""
    torch.manual_seed(0)
    x, labels = torch.randn(4, 5), torch.tensor([0, 1, 2, 0])
    vectors = torch.randn(4, 2)
    vectors[1] = math.nan
    for condition, context in ((Labels(3), labels), (Vectors(2), vectors)):
        model = VAE(5, latents=2, width=8, condition=condition)
        ways = interpolate(model, x[:2], x[2:], 5, context, path="linear")
        ends = model.reconstruct(x, context)
        torch.testing.assert_close(ways[:, 0], ends[:2])
        torch.testing.assert_close(ways[:, -1], ends[2:])
        code = model.encode(x, context)
        assert isinstance(code, torch.Tensor)
        between = torch.lerp(code[:2], code[2:], 0.75)
        mixed = context[2:].clone()
        if context.is_floating_point():
            mixed[0] = torch.lerp(context[0], context[2], 0.75)  # the path of row 1 begins at null
        torch.testing.assert_close(ways[:, 3], model.decode(between, mixed).mean)
        # One row for each pair serves both ends.
        pair = interpolate(model, x[:2], x[2:], 5, context[2:])
        twice = interpolate(model, x[:2], x[2:], 5, context[[2, 3, 2, 3]])
        torch.testing.assert_close(pair, twice)


def linear_model(rows: torch.Tensor) -> VAE:
    """A VAE of 5 numbers with 2 latents: ``mean(z) = W z + b`` with the weights ``rows``."""
    model = VAE(5, latents=2, networks=None, width=8, decoder=GaussianDecoder(_Linear(rows), 5))
    return model.double()


class _Linear(nn.Module):
    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z @ self.rows + 3.0


def test_a_linear_model_moves_by_the_image_of_the_direction() -> None:
    """``mean(e(x) + s d) - mean(e(x)) = s W d`` exactly, with ``d`` the difference of the mean codes."""
    torch.manual_seed(0)
    rows = torch.randn(2, 5, dtype=F64)
    model = linear_model(rows)
    with_, without, x = (torch.randn(n, 5, dtype=F64) for n in (40, 30, 4))
    direction = latent_direction(model, with_, without)
    assert isinstance(direction, torch.Tensor)
    codes = [model.encode(group) for group in (with_, without)]
    torch.testing.assert_close(direction, codes[0].mean(0) - codes[1].mean(0))  # type: ignore[union-attr]
    strengths = [-1.0, 0.0, 0.5, 2.0]
    moved = move(model, x, direction, strengths)
    expected = real(*strengths)[:, None] * (direction @ rows)
    torch.testing.assert_close(moved - model.reconstruct(x)[:, None], expected.expand(4, 4, 5))
    # From one group to the other and back.
    there = move(model, x, direction, [1.0])[:, 0] - model.reconstruct(x)
    back = move(model, x, latent_direction(model, without, with_), [1.0])[:, 0]
    torch.testing.assert_close(back - model.reconstruct(x), -there)


def test_directions_take_groups_in_chunks_contexts_and_masks() -> None:
    """A row of context and of the mask for each row, those of ``with_`` first; levels stay apart."""
    torch.manual_seed(0)
    model = HVAE(5, latents=(3, 2), inference="top-down", width=8).double()
    x, seen = torch.randn(9, 5, dtype=F64), torch.rand(9, 5) < 0.7
    whole = latent_direction(model, x[:6], x[6:], observed=seen)
    codes = model.encode(x, observed=seen)
    assert [tuple(part.shape) for part in whole] == [(2,), (3,)]
    for part, code in zip(whole, codes, strict=True):
        torch.testing.assert_close(part, code[:6].mean(0) - code[6:].mean(0))
    with memory_limit(5 * 8 * 200):  # two rows a chunk
        pieces = latent_direction(model, x[:6], x[6:], observed=seen)
    for part, again in zip(whole, pieces, strict=True):
        torch.testing.assert_close(part, again)


def test_slerp_stays_on_the_sphere_and_turns_at_one_speed() -> None:
    """Norms and angles; nearly equal and opposite directions give no NaN."""
    a, b = torch.randn(2, 6, 2, 3, dtype=F64)
    b = b * (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1))[:, None, None]
    norm = a.flatten(1).norm(dim=1)
    cosines = [(a * slerp(a, b, w)).flatten(1).sum(1) / norm**2 for w in (0.25, 0.5, 0.75, 1.0)]
    angles = torch.stack(cosines).acos()
    torch.testing.assert_close(slerp(a, b, 0.3).flatten(1).norm(dim=1), norm)
    for i in range(4):
        torch.testing.assert_close(angles[i], angles[3] * (i + 1) / 4)
    for other in (a, a * (1 + 1e-15), -a):
        assert bool(slerp(a, other, 0.5).isfinite().all())
    torch.testing.assert_close(slerp(a, 3 * a, 0.5), 2 * a)
    assert math.isclose(float(slerp(real(1.0)[None], real(1.0)[None], 0.2)), 1.0)


@pytest.mark.usefixtures("as_users_run")
def test_bad_edits_are_refused() -> None:
    model, x = model_of(DATA), torch.zeros(2, 3, dtype=F64)
    with pytest.raises(ValueError, match="0 is clean"):
        sdedit(model, x, 1.2)
    with pytest.raises(ValueError, match="steps=0"):
        sdedit(model, x, 0.5, steps=0)
    with pytest.raises(ValueError, match="bound to another schedule"):
        sdedit(model, x, 0.5, sampler=Heun(DATA.denoiser(), LinearLogSNR(8.0, -8.0)))
    with pytest.raises(ValueError, match="expected a diffusion"):
        sdedit(VAE(3, latents=2).double(), x, 0.5)
    with pytest.raises(ValueError, match="count=1"):
        interpolate(model, x, x, 1)
    with pytest.raises(ValueError, match="row i of one"):
        interpolate(model, x, x[:1], 3)
    with pytest.raises(ValueError, match=r"context of 3 rows for 2 pairs.*2, or 4"):
        interpolate(model, x, x, 3, context=[0, 1, 2])
    with pytest.raises(ValueError, match=r"observed of 2 rows for 2 pairs.*those of a"):
        interpolate(model, x, x, 3, observed=x == 0)
    with pytest.raises(ValueError, match=r"path='sphere'.*did you mean 'spherical'"):
        interpolate(model, x, x, 3, path="sphere")


@pytest.mark.usefixtures("as_users_run")
def test_directions_of_nothing_and_circles_without_a_direction_are_refused() -> None:
    a = torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"1 rows of zeros.*with a direction.*linear"):
        slerp(a, torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]), 0.5)
    with pytest.raises(ValueError, match=r"type torch.int64.*real vectors"):
        slerp(a, a.long(), 0.5)
    model = latents_as_data(3)
    with pytest.raises(ValueError, match="rows of zeros"):
        interpolate(model, a, 0 * a, 3)
    torch.testing.assert_close(interpolate(model, a, 0 * a, 3, path="linear")[:, 1], a / 2)
    with pytest.raises(ValueError, match=r"without without a row; expected at least one"):
        latent_direction(model, a, a[:0])
    with pytest.raises(ValueError, match=r"context of 2 rows for 2 \+ 1 rows"):
        latent_direction(model, a, a[:1], context=[0, 1])
    with pytest.raises(ValueError, match=r"shapes \[\(2,\)\].*\[\(3,\)\]"):
        move(model, a, torch.ones(2))
    with pytest.raises(ValueError, match="no strengths"):
        move(model, a, torch.ones(3), [])
