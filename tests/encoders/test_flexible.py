"""Posteriors beyond the diagonal Gaussian: exact where the truth is in the family, and what they close."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, kl_divergence
from torch.distributions import Normal as TorchNormal

from genmod import VAE, Kind, encoders, priors
from genmod.distributions import Normal
from genmod.distributions.base import detached
from genmod.distributions.flow import NormalizingFlow
from genmod.distributions.normal import FullCovarianceNormal
from genmod.encoders.base import copied_posterior
from genmod.nn.flow import SplineFlow
from tests.oracles_vae import PPCA, affine
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")


def some(rows: int = 4) -> FullCovarianceNormal:
    return FullCovarianceNormal.of(torch.randn(rows, 3), torch.randn(rows, 3), torch.randn(rows, 3))


def torchs(law: FullCovarianceNormal) -> MultivariateNormal:
    return MultivariateNormal(law.loc, scale_tril=law.tril)


def test_a_full_gaussian_is_torchs() -> None:
    law, z = some(), torch.randn(4, 3)
    other = torchs(law)
    torch.testing.assert_close(law.log_prob(z), other.log_prob(z))
    torch.testing.assert_close(law.variance, other.variance)
    many = some(1)
    many = FullCovarianceNormal(many.loc.expand(20_000, 3), many.tril.expand(20_000, 3, 3))
    drawn = many.sample() - many.mean
    assert_mean(drawn[:, :, None] * drawn[:, None, :], torchs(many).covariance_matrix[0])


def test_its_divergences_are_torchs() -> None:
    """From N(0, I), a diagonal Gaussian, another full one, and torch's own laws."""
    q, p = some(), some()
    mean, std = torch.randn(4, 3), torch.rand(4, 3) + 0.5
    diagonal = Independent(TorchNormal(mean, std), 1)
    fulls = {Normal(mean, std.log()): diagonal, p: torchs(p), torchs(p): torchs(p)}
    fulls[priors.NormalPrior((3,)).law(4)] = Independent(
        TorchNormal(torch.zeros(4, 3), torch.ones(4, 3)), 1
    )
    fulls[diagonal] = diagonal
    for ours, theirs in fulls.items():
        cov = MultivariateNormal(theirs.mean, _covariance(theirs))
        torch.testing.assert_close(kl_divergence(q, ours), kl_divergence(torchs(q), cov))


def _covariance(law: torch.distributions.Distribution) -> torch.Tensor:
    return (
        law.covariance_matrix if isinstance(law, MultivariateNormal) else law.variance.diag_embed()
    )


def exact(oracle: PPCA) -> encoders.FullCovarianceEncoder:
    """The oracle's posterior, as the package's own encoder."""
    law, size = oracle.posterior, oracle.W.shape[1]
    tril = torch.linalg.cholesky(law.covariance)
    row, column = torch.tril_indices(size, size, -1)
    constant = [tril.diagonal().log(), tril[row, column] * size**0.5]
    bias = torch.cat([law.bias, *constant])
    weight = torch.zeros(len(bias), law.weight.shape[1])
    weight[:size] = law.weight
    return encoders.FullCovarianceEncoder(affine(weight, bias), (size,), len(oracle.mu))


def correlated() -> PPCA:
    """Two latents with almost the same loading: their posterior correlation is -0.9."""
    return PPCA(torch.tensor([[2.0, 1.8], [1.0, 1.2], [0.5, 0.2]]), torch.ones(3), 0.5)


def diagonal_gap(oracle: PPCA) -> float:
    """``1/2 (sum ln M_ii - ln det M)``, ``M = I + W'W / s2``: what the best diagonal posterior lacks."""
    m = oracle.M / oracle.s2
    return float(0.5 * (m.diagonal().log().sum() - torch.logdet(m)))


def test_a_full_covariance_closes_the_gap_that_the_diagonal_leaves() -> None:
    """On a linear-Gaussian model with a correlated posterior: ``ELBO = log p(x)``, row by row."""
    oracle = correlated()
    x = oracle.law.sample((2000,))
    log_p = oracle.law.log_prob(x)
    model = oracle.model(exact(oracle))
    assert (model.log_weight(x) - log_p).abs().max() < 1e-10
    assert model.elbo(x).rates["prior"].kind is Kind.ANALYTIC
    # The best diagonal posterior has the precisions of the true one.
    best = (oracle.M.diagonal() / oracle.s2).rsqrt()
    short = log_p - oracle.model(_with_std(oracle, best)).log_weight(x)
    gap = diagonal_gap(oracle)
    assert gap > 0.5
    assert_mean(short, gap)


def _with_std(oracle: PPCA, std: torch.Tensor) -> encoders.GaussianEncoder:
    law = oracle.posterior
    weight = torch.cat([law.weight, torch.zeros_like(law.weight)])
    network = affine(weight, torch.cat([law.bias, std.log()]))
    return encoders.GaussianEncoder(network, (len(std),))


def test_a_flow_closes_the_gap_that_the_diagonal_leaves() -> None:
    """Trained on the same model, from the best diagonal posterior on."""
    oracle = correlated()
    size, d = oracle.W.shape[1], len(oracle.mu)
    best = (oracle.M.diagonal() / oracle.s2).rsqrt()
    law = oracle.posterior
    weight = torch.cat([law.weight, torch.zeros(size + 2, d)])
    network = affine(weight, torch.cat([law.bias, best.log(), torch.zeros(2)]))
    encoder = encoders.FlowEncoder(network, (size,), d, width=16, context=2)
    model = oracle.model(encoder)
    for part in (model.decoder, network):
        part.requires_grad_(False)
    x = oracle.law.sample((128,))
    log_p, gap = oracle.law.log_prob(x), diagonal_gap(oracle)
    with torch.no_grad():
        assert float((log_p - model.log_weight(x)).mean()) == pytest.approx(gap, abs=0.2)
    optimizer = torch.optim.Adam(encoder.transform.parameters(), 0.03)
    for _ in range(100):
        optimizer.zero_grad()
        (-model.elbo(x).value.mean()).backward()
        optimizer.step()
    with torch.no_grad():
        assert float((log_p - model.log_weight(x)).mean()) < 0.1 * gap


def test_a_new_flow_posterior_is_the_diagonal_gaussian() -> None:
    encoder = encoders.FlowEncoder(nn.Linear(4, 10), (3,), 4, width=8, context=4)
    x, z = torch.randn(6, 4), torch.randn(6, 3)
    q = encoder(x)
    torch.testing.assert_close(q.log_prob(z), Normal(q.loc, q.log_std).log_prob(z))


def a_flow(rows: int = 5, size: int = 3) -> NormalizingFlow:
    transform = SplineFlow(size, 2, transforms=2, width=8)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return NormalizingFlow(
        transform, torch.randn(rows, size), torch.randn(rows, size), torch.randn(rows, 2)
    )


def test_the_weights_of_a_flow_average_to_one() -> None:
    """``E_q[p(z) / q(z)] = 1``: its draws have the density that it states."""
    one = a_flow(1)
    assert one.context is not None
    many = NormalizingFlow(
        one.transform,
        one.loc.expand(20_000, 3),
        one.log_std.expand(20_000, 3),
        one.context.expand(20_000, 2),
    )
    with torch.no_grad():
        z = many.sample()
        narrow = Independent(TorchNormal(one.mean[0], one.variance[0].sqrt() * 0.7), 1)
        weights = (narrow.log_prob(z) - many.log_prob(z)).exp()
    assert_mean(weights, 1.0)


def test_a_detached_flow_gives_its_parameters_no_gradient() -> None:
    """Those of its network as well: the gradient reaches the draws alone (sticking the landing)."""
    q = a_flow()
    assert q.context is not None
    for tensor in (q.loc, q.log_std, q.context):
        tensor.requires_grad_()
    z = torch.randn(5, 3, requires_grad=True)
    fixed = detached(q)
    torch.testing.assert_close(fixed.log_prob(z), q.log_prob(z))
    fixed.log_prob(z).sum().backward()
    assert z.grad is not None
    assert q.loc.grad is None
    assert all(p.grad is None for p in q.transform.parameters())


def test_copies_of_a_flow_are_the_law_of_copies_of_the_data() -> None:
    """Densities, draws and gradients, with detached weights where they were; batch by batch."""
    flow = a_flow()
    copied = copied_posterior(flow, 3)
    assert isinstance(copied, NormalizingFlow)
    assert copied.batch_shape == (15,)
    z = torch.randn(15, 3)
    whole = copied.log_prob(z).reshape(3, 5)
    for place in range(3):
        torch.testing.assert_close(whole[place], flow.log_prob(z[5 * place : 5 * place + 5]))
    still = copied_posterior(detached(flow), 2)
    assert isinstance(still, NormalizingFlow)
    assert not any(weight.requires_grad for weight in still.weights.values())


def test_models_build_the_networks_of_such_posteriors() -> None:
    """Also for images by convolutions, latents with a shape, and tables' linear maps."""
    for encoder in (encoders.FullCovarianceEncoder(), encoders.FlowEncoder(width=8)):
        model = VAE((1, 16, 16), bins=4, latents=(2, 2, 2), width=4, encoder=encoder)
        x = torch.randint(0, 4, (3, 1, 16, 16))
        assert model.elbo(x).value.isfinite().all()
        code = model.encode(x)
        assert isinstance(code, torch.Tensor)
        assert code.shape == (3, 2, 2, 2)
        assert model.reconstruct(x).shape == x.shape


def test_importing_zuko_leaves_torchs_validation_on() -> None:
    """In a new process: a wrong scale is refused before and after a flow was built."""
    code = """
import torch
from torch.distributions import Distribution, Normal
from torch.distributions.transforms import _InverseTransform
before = dict(vars(Distribution)), _InverseTransform.__name__
import genmod.priors, genmod.encoders, sys
assert "zuko" not in sys.modules
genmod.priors.FlowPrior(shape=(2,)).sample(2)
assert "zuko" in sys.modules
assert (dict(vars(Distribution)), _InverseTransform.__name__) == before
try:
    Normal(torch.zeros(1), -torch.ones(1))
except ValueError:
    print("refused")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert done.stdout.strip() == "refused", done.stderr


def test_a_flow_without_zuko_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(ValueError, match=r"genmod-torch\[flows\]"):
        priors.FlowPrior(shape=(2,))
