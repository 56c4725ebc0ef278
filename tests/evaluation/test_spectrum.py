r"""The forecast of a linear VAE: it is the optimum, its gap is the one of the bound, and training finds it.

The oracle is the loss of a linear VAE with the expectation over the noise in closed form, written here with
plain matrices: decoder :math:`W`, encoder :math:`V, \operatorname{diag} d`, and data of covariance
:math:`S`:

.. math:: \tfrac{1}{2 s_2}\left(\mathrm{tr}\,(I - WV) S (I - WV)' + \sum_j d_j |w_j|^2\right)
    + \tfrac{\beta}{2} \sum_j \left((V S V')_{jj} + d_j - 1 - \log d_j\right)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from genmod.data import Dataset, load
from genmod.decoders import GaussianDecoder
from genmod.encoders import GaussianEncoder
from genmod.evaluation import collapse, linear_forecast
from genmod.evaluation.spectrum import LinearForecast, spectrum
from genmod.model import LatentModel
from genmod.objectives import Beta
from genmod.priors import NormalPrior
from genmod.spec import Column
from genmod.training import fit
from tests.oracles import over_signs
from tests.oracles_vae import PPCA, affine, gaussian_head

pytestmark = pytest.mark.usefixtures("float64")


def data(rows: int = 200, dims: int = 5) -> Tensor:
    """Rows with eigenvalues from about 4 down to 0.05, in a basis that is not that of the entries."""
    basis = torch.linalg.qr(torch.randn(dims, dims)).Q
    return torch.randn(rows, dims) * torch.linspace(2.0, 0.2, dims) @ basis.T + torch.randn(dims)


@dataclass
class LinearVAE:
    """``x | z ~ N(W z + mu, s2)``, ``q(z | x) = N(V (x - mu), diag d)``, on data of covariance S."""

    W: Tensor
    V: Tensor
    log_d: Tensor
    s2: float
    S: Tensor

    def terms(self) -> tuple[Tensor, Tensor]:
        """Minus the mean reconstruction, and the mean rate."""
        d, dims = self.log_d.exp(), len(self.S)
        left = torch.eye(dims) - self.W @ self.V
        error = (left @ self.S @ left.T).trace() + (d * self.W.square().sum(0)).sum()
        constant = 0.5 * dims * math.log(2 * math.pi * self.s2)
        code = (self.V @ self.S @ self.V.T).diagonal()
        return constant + error / (2 * self.s2), 0.5 * (code + d - 1 - self.log_d).sum()

    def loss(self, beta: float) -> Tensor:
        distortion, rate = self.terms()
        return distortion + beta * rate


def optimum(x: Tensor, latents: int, s2: float, beta: float) -> LinearVAE:
    """The optimum as the theorem has it: eigenvectors, ``w^2 = l - beta s2``, ``v = w / l``."""
    S = torch.cov(x.T, correction=0)
    values, vectors = torch.linalg.eigh(S)
    values, vectors = values.flip(0)[:latents], vectors.flip(1)[:, :latents]
    w = (values - beta * s2).clamp(min=0).sqrt()
    d = (beta * s2 / values).clamp(max=1)
    return LinearVAE(vectors * w, (vectors * w / values).T, d.log(), s2, S)


SETTINGS = pytest.mark.parametrize(
    ("s2", "beta", "latents"), [(0.3, 1.0, 5), (0.3, 4.0, 5), (0.3, 0.25, 5), (0.02, 1.0, 3)]
)


@SETTINGS
def test_the_forecast_is_the_optimum_of_the_loss(s2: float, beta: float, latents: int) -> None:
    """No gradient in any parameter, no lower loss nearby, and the terms are those of the forecast."""
    x = data()
    found, forecast = optimum(x, latents, s2, beta), linear_forecast(x, latents=latents, beta=beta)
    parameters = [found.W, found.V, found.log_d]
    for parameter in parameters:
        parameter.requires_grad_()
    loss = found.loss(beta)
    for slope in torch.autograd.grad(loss, parameters):
        torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-9)
    distortion, rate = (term.detach() for term in found.terms())
    torch.testing.assert_close(float(forecast.kl(s2).sum()), float(rate))
    torch.testing.assert_close(forecast.bound(s2), float(-distortion - rate))
    for _ in range(30):
        W, V, log_d = (p.detach() + 0.2 * torch.randn_like(p) for p in parameters)
        assert LinearVAE(W, V, log_d, s2, found.S).loss(beta) > loss


def test_a_unit_lives_where_its_eigenvalue_is_above_beta_times_the_variance() -> None:
    """On both sides of the threshold of the second unit; its nats leave zero continuously."""
    x = data()
    second = float(linear_forecast(x).eigenvalues[1])
    for beta in (0.5, 1.0, 3.0):
        forecast, edge = linear_forecast(x, beta=beta), second / beta
        assert forecast.live(edge * 1.001) == 1
        assert forecast.live(edge * 0.999) == 2
        assert 0 < float(forecast.kl(edge * 0.999)[1]) < 1e-3
        torch.testing.assert_close(float(forecast.kl(edge / 4)[1]), math.log(2.0))
        # Beyond the edge a loading along that direction makes the loss larger.
        dead = optimum(x, 2, edge * 1.01, beta)
        alone = dead.loss(beta)
        vector = torch.linalg.eigh(dead.S).eigenvectors[:, -2]
        for weight in (0.01, 0.1, 0.3):
            W, V = dead.W.clone(), dead.V.clone()
            W[:, 1], V[1] = weight * vector, weight * vector / second
            assert LinearVAE(W, V, dead.log_d, dead.s2, dead.S).loss(beta) > alone


@SETTINGS
def test_the_gap_is_zero_at_beta_one_and_the_known_one_else(
    s2: float, beta: float, latents: int
) -> None:
    """The log-likelihood of the model, by its dense covariance, less the bound."""
    x = data()
    found, forecast = optimum(x, latents, s2, beta), linear_forecast(x, latents=latents, beta=beta)
    law = MultivariateNormal(x.mean(0), found.W @ found.W.T + s2 * torch.eye(5))
    gap = float(law.log_prob(x).mean()) - forecast.bound(s2)
    torch.testing.assert_close(forecast.gap(s2), gap, rtol=1e-6, atol=1e-9)
    assert forecast.gap(s2) == pytest.approx(0, abs=1e-12) if beta == 1 else forecast.gap(s2) > 0.01


def value(model: LatentModel, x: Tensor) -> Tensor:
    return model.elbo(x).value


def test_a_rotated_loading_leaves_the_gap_of_the_best_diagonal_posterior() -> None:
    """Through a model: 1/2 (sum ln M_ii - ln det M), M = I + W'W / s2; zero for orthogonal columns."""
    x, s2 = data(), 0.3
    straight = optimum(x, 3, s2, 1.0).W
    turn = torch.linalg.qr(torch.randn(3, 3)).Q
    for W, orthogonal in ((straight, True), (straight @ turn, False)):
        exact = PPCA(W, x.mean(0), s2)
        M = torch.eye(3) + W.T @ W / s2
        model = exact.model(exact.diagonal(M.diagonal().rsqrt()))
        bound = over_signs(torch.ones(3), partial(value, model, x)).mean()
        # The reconstruction is quadratic in the noise: over_signs leaves products of two noises.
        cross = (W.T @ W - (W.T @ W).diagonal().diag()) * M.diagonal().rsqrt().outer(
            M.diagonal().rsqrt()
        )
        bound = bound + cross.sum() / (2 * s2)
        gap = exact.law.log_prob(x).mean() - bound
        expected = 0.5 * (M.diagonal().log().sum() - M.logdet())
        torch.testing.assert_close(gap, expected, rtol=1e-9, atol=1e-9)
        assert (float(expected) < 1e-9) is orthogonal


# ---------------------------------------------------------------------- learned variance, other data


@pytest.mark.parametrize(("beta", "latents"), [(1.0, 2), (1.0, 4), (2.0, 2), (0.5, 3)])
def test_the_learned_variance_is_the_best_one(beta: float, latents: int) -> None:
    """Of the loss with its weight; at one, the mean of the eigenvalues left out."""
    x = data()
    forecast = linear_forecast(x, latents=latents, beta=beta)

    def loss(variance: float) -> float:
        return -forecast.bound(variance) + (beta - 1) * float(forecast.kl(variance).sum())

    found = forecast.learned_variance
    assert all(loss(found) <= loss(found * factor) for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0))
    if beta == 1:
        torch.testing.assert_close(found, float(forecast.eigenvalues[latents:].mean()))


def test_eigenvalues_are_those_of_the_covariance_for_few_rows_and_for_many() -> None:
    many, few = data(50, 5), torch.randn(4, 9)
    for x in (many, few):
        expected = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
        found = spectrum(x)
        torch.testing.assert_close(found, expected[: len(found)], rtol=1e-9, atol=1e-12)
    assert float(spectrum(few)[-1]) == 0  # four rows span three dimensions around their mean


def test_integers_lie_on_minus_one_to_one_and_columns_are_standardized() -> None:
    d = load("digits")
    assert isinstance(d, Dataset)
    real = d.spec.center(d.train.double())
    torch.testing.assert_close(linear_forecast(d).eigenvalues, linear_forecast(real).eigenvalues)
    assert linear_forecast("digits", latents=16).samples == len(d.train)
    columns = [Column("a", mean=5.0, std=2.0), Column("b", mean=0.0, std=0.5)]
    one = torch.zeros(1, 2)
    table = Dataset("table", data(50, 2), one, one, columns=columns)
    scaled = (table.train - torch.tensor([5.0, 0.0])) / torch.tensor([2.0, 0.5])
    torch.testing.assert_close(linear_forecast(table).eigenvalues, spectrum(scaled))


def test_it_prints_a_table_of_80_columns() -> None:
    printed = str(linear_forecast("digits", latents=16, beta=2.0))
    lines = printed.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "16 latents, beta = 2" in lines[0]
    assert lines[-1].endswith("learned std")
    units = [int(line.split()[1]) for line in lines[2:-1]]
    assert units == sorted(units)
    assert units[0] == 0
    assert units[-1] == 16


def test_data_without_a_covariance_are_refused() -> None:
    x = data(20, 3)
    seen = {name: torch.ones(n, 3, dtype=torch.bool) for name, n in (("train", 18),)}
    seen |= {name: torch.ones(1, 3, dtype=torch.bool) for name in ("validation", "test")}
    seen["train"][0, 0] = False
    holes = Dataset("holes", x[:18], x[18:19], x[19:], observed=seen)
    with pytest.raises(ValueError, match="missing entries; expected complete rows"):
        linear_forecast(holes)
    columns = [Column("a"), Column("b", "category", ("x", "y")), Column("c")]
    x[:, 1] = 1.0
    mixed = Dataset("mixed", x[:18], x[18:19], x[19:], columns=columns)
    with pytest.raises(ValueError, match="columns of several kinds; expected numbers"):
        linear_forecast(mixed)
    with pytest.raises(ValueError, match=r"beta=0.*positive weight"):
        linear_forecast(data(), beta=0.0)
    with pytest.raises(ValueError, match=r"latents=0.*at least one"):
        linear_forecast(data(), latents=0)
    with pytest.raises(ValueError, match=r"variance=0.*positive"):
        LinearForecast(torch.ones(2), 2, 10, 2).live(0.0)


# ---------------------------------------------------------------------- what training finds


@pytest.mark.usefixtures("as_users_run")
def test_training_finds_the_units_of_the_forecast() -> None:
    """Through ``fit`` and ``collapse``, from the optimum of beta = 1: the third unit dies at beta = 3."""
    basis = torch.linalg.qr(torch.randn(4, 4)).Q
    x, s2 = torch.randn(64, 4) * torch.tensor([2.0, 1.5, 0.6, 0.1]) @ basis.T, 0.25
    start, mean = optimum(x, 3, s2, 1.0), x.mean(0)
    std = (0.5 * start.log_d).exp()
    encoder = GaussianEncoder(gaussian_head(start.V, -start.V @ mean, std), (3,))
    decoder = GaussianDecoder(affine(start.W, mean), (4,), math.sqrt(s2))
    model = LatentModel(encoder, decoder, NormalPrior((3,)))
    before = collapse(model, x)
    fit(
        model, x, Beta(3.0), steps=300, batch_size=64, learning_rate=0.03, warmup=0, clip=None,
        ema=0.95, progress=False, device="cpu",
    )  # fmt: skip
    after = collapse(model, x)
    for found, beta, live in ((before, 1.0, 3), (after, 3.0, 2)):
        forecast, level = linear_forecast(x, beta=beta), found.levels[0]
        assert level.active == forecast.live(s2) == live
        assert level.per_unit is not None
        nats = level.per_unit.sort(descending=True).values
        expected = torch.cat([forecast.kl(s2), torch.zeros(3 - live)])
        torch.testing.assert_close(nats, expected, rtol=0.03, atol=0.02)
    assert before.forecast is not None
    assert before.variance == pytest.approx(s2)
    torch.testing.assert_close(before.forecast.eigenvalues, linear_forecast(x).eigenvalues)
