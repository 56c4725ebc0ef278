r"""Models with one or many latents of which everything is known in closed form.

Dense joint Gaussians and their conditionals are computed here with plain linear algebra, on purpose
not with :mod:`genmod.gaussian`: an oracle shares no code with what it judges.

Symbols: ``x = W z_1 + mu + noise``; in a hierarchy ``z_l = a_l z_{l+1} + noise`` per dimension, so
that with orthogonal columns of ``W`` every conditional is a diagonal Gaussian.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from genmod import decoders, encoders, priors
from genmod.model import LatentModel


def affine(weight: Tensor, bias: Tensor) -> nn.Linear:
    """The network ``weight h + bias``."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def gaussian_head(weight: Tensor, bias: Tensor, std: Tensor) -> nn.Linear:
    """The network that returns the mean ``weight h + bias`` and the log of a constant std."""
    return affine(
        torch.cat([weight, torch.zeros_like(weight)]), torch.cat([bias, std.log().expand_as(bias)])
    )


@dataclass
class Conditional:
    """``N(weight y + bias, covariance)``: one block of a joint Gaussian given others."""

    weight: Tensor
    bias: Tensor
    covariance: Tensor

    @property
    def std(self) -> Tensor:
        """The standard deviations; the covariance must be diagonal."""
        diagonal = self.covariance.diagonal()
        assert torch.allclose(self.covariance, diagonal.diag(), atol=1e-12), "not diagonal"
        return diagonal.sqrt()


@dataclass
class Joint:
    """Named blocks that are jointly Gaussian."""

    mean: Tensor
    covariance: Tensor
    blocks: dict[str, slice]

    def _rows(self, names: Sequence[str]) -> Tensor:
        every = torch.arange(len(self.mean))
        return torch.cat([every[self.blocks[name]] for name in names])

    def law(self, name: str) -> MultivariateNormal:
        """The marginal of one block."""
        i = self._rows([name])
        return MultivariateNormal(self.mean[i], self.covariance[i][:, i])

    def given(self, name: str, others: Sequence[str]) -> Conditional:
        """The law of one block given others, concatenated in that order."""
        i, j = self._rows([name]), self._rows(others)
        cross = self.covariance[i][:, j]
        weight = torch.linalg.solve(self.covariance[j][:, j], cross.T).T
        left = self.covariance[i][:, i] - weight @ cross.T
        return Conditional(weight, self.mean[i] - weight @ self.mean[j], left)


@dataclass
class PPCA:
    """Probabilistic PCA: ``z ~ N(0, I)``, ``x | z ~ N(W z + mu, s2 I)`` (Tipping, Bishop 1999)."""

    W: Tensor
    mu: Tensor
    s2: float

    @property
    def M(self) -> Tensor:  # noqa: N802 - its name in the paper
        """``W'W + s2 I``."""
        return self.W.T @ self.W + self.s2 * torch.eye(self.W.shape[1])

    @property
    def law(self) -> MultivariateNormal:
        """``p(x)``."""
        d = len(self.mu)
        return MultivariateNormal(self.mu, self.W @ self.W.T + self.s2 * torch.eye(d))

    @property
    def posterior(self) -> Conditional:
        """``p(z | x)``: ``N(M^-1 W' (x - mu), s2 M^-1)``."""
        gain = torch.linalg.solve(self.M, self.W.T)
        return Conditional(gain, -gain @ self.mu, self.s2 * torch.linalg.inv(self.M))

    def decoder(self) -> decoders.GaussianDecoder:
        """``p(x | z)`` as a part."""
        return decoders.GaussianDecoder(
            affine(self.W, self.mu), (len(self.mu),), math.sqrt(self.s2)
        )

    def model(self, encoder: encoders.Encoder) -> LatentModel:
        """The model under a given posterior."""
        return LatentModel(encoder, self.decoder(), priors.NormalPrior((self.W.shape[1],)))

    def diagonal(self, std: Tensor | None = None) -> encoders.GaussianEncoder:
        """The posterior's mean with a diagonal covariance: its own, or another."""
        exact = self.posterior
        spread = exact.std if std is None else std
        return encoders.GaussianEncoder(
            gaussian_head(exact.weight, exact.bias, spread), (self.W.shape[1],)
        )


class FullGaussian(encoders.Encoder):
    """``N(gain x + offset, covariance)``: an encoder of a user's own."""

    def __init__(self, law: Conditional) -> None:
        super().__init__()
        self.network = affine(law.weight, law.bias)
        self.tril = torch.linalg.cholesky(law.covariance)

    def forward(
        self, x: Tensor, context: Tensor | None = None, observed: Tensor | None = None
    ) -> MultivariateNormal:
        """The posterior of each row."""
        return MultivariateNormal(self.network(x), scale_tril=self.tril)

    def formula(self) -> str:
        """The encoder as it would stand on paper."""
        return "q(z | x) = N(z; G x + c, S)"


@dataclass
class Tower:
    """A linear-Gaussian hierarchy.

    ``z_L ~ N(0, I)``, ``z_l = a_l z_{l+1} + r_l eps``, ``x = W z_1 + mu + s eps``.

    Args:
        W: ``(d, q)`` with orthogonal columns.
        mu: ``(d,)``.
        s: the std of ``x`` given ``z_1``.
        a, r: for ``l = 1 .. L - 1``, each ``(q,)``.
    """

    W: Tensor
    mu: Tensor
    s: float
    a: list[Tensor]
    r: list[Tensor]

    @property
    def levels(self) -> int:
        """The number of latents."""
        return len(self.a) + 1

    def joint(self) -> Joint:
        """The joint of ``x, z1, .., zL``, from the linear map of all independent noises."""
        d, q = self.W.shape
        names = [f"z{i}" for i in range(1, self.levels + 1)]
        noises = d + q * self.levels  # x's own noise first, then that of z1 .. zL
        maps: dict[str, Tensor] = {}
        above = torch.zeros(q, noises)
        for number in range(self.levels, 0, -1):
            own = torch.zeros(q, noises)
            at = d + q * (number - 1)
            own[:, at : at + q] = torch.eye(q)
            top = number == self.levels
            above = (
                own if top else self.a[number - 1].diag() @ above + self.r[number - 1].diag() @ own
            )
            maps[f"z{number}"] = above
        own = torch.zeros(d, noises)
        own[:, :d] = self.s * torch.eye(d)
        root = torch.cat([self.W @ maps["z1"] + own, *(maps[name] for name in names)])
        blocks = {"x": slice(0, d)}
        blocks |= {name: slice(d + q * i, d + q * (i + 1)) for i, name in enumerate(names)}
        mean = torch.cat([self.mu, torch.zeros(q * self.levels)])
        return Joint(mean, root @ root.T, blocks)

    def decoder(self) -> decoders.GaussianDecoder:
        """``p(x | z1)``."""
        return decoders.GaussianDecoder(affine(self.W, self.mu), (len(self.mu),), self.s)

    def law(self, level: int) -> decoders.GaussianDecoder:
        """``p(z_l | z_{l+1})``, or the top's ``N(0, I)`` as a function of any state."""
        q = self.W.shape[1]
        if level == self.levels:
            return decoders.GaussianDecoder(affine(torch.zeros(q, q), torch.zeros(q)), (q,), 1.0)
        i = level - 1
        head = gaussian_head(self.a[i].diag(), torch.zeros(q), self.r[i])
        return decoders.GaussianDecoder(head, (q,), decoders.PredictedScale())

    def bottom_up(self) -> LatentModel:
        """The exact posterior ``q(z1|x) q(z2|z1) ..``, by nesting."""
        joint, q = self.joint(), self.W.shape[1]
        prior: priors.Prior = priors.NormalPrior((q,), name=f"z{self.levels}")
        for level in range(self.levels - 1, 0, -1):
            up = joint.given(f"z{level + 1}", [f"z{level}"])
            encoder = encoders.GaussianEncoder(gaussian_head(up.weight, up.bias, up.std), (q,))
            inner = LatentModel(encoder, self.law(level), prior)
            prior = priors.NestedPrior(inner, name=f"z{level}")
        first = joint.given("z1", ["x"])
        encoder = encoders.GaussianEncoder(gaussian_head(first.weight, first.bias, first.std), (q,))
        return LatentModel(encoder, self.decoder(), prior)

    def top_down(self) -> LatentModel:
        """The exact posterior ``q(zL|x) .. q(z1|z2, x)``, by alignment: stages pass ``x`` on."""
        joint, q, d = self.joint(), self.W.shape[1], len(self.mu)
        heads = []
        for level in range(self.levels, 0, -1):
            top = level == self.levels
            # Given z_{l+1}, the levels above it say no more of z_l.
            down = joint.given(f"z{level}", ["x"] if top else ["x", f"z{level + 1}"])
            weight = torch.cat([down.weight, torch.zeros(q, q)], 1) if top else down.weight
            heads.append(encoders.TopDownHead(gaussian_head(weight, down.bias, down.std), (q,)))
        stages = [affine(torch.eye(d), torch.zeros(d)) for _ in range(self.levels)]
        blocks = [priors.TopDownBlock(self.law(level)) for level in range(self.levels, 0, -1)]
        prior = priors.TopDownPrior(blocks, torch.zeros(q))
        return LatentModel(encoders.TopDownEncoder(stages, heads), self.decoder(), prior)


def tower(levels: int, q: int = 2, d: int = 4) -> Tower:
    """A hierarchy with random numbers."""
    basis = torch.linalg.qr(torch.randn(d, q)).Q
    return Tower(
        W=basis * (0.5 + torch.rand(q)),
        mu=torch.randn(d),
        s=0.6,
        a=[0.4 + torch.rand(q) for _ in range(levels - 1)],
        r=[0.3 + torch.rand(q) for _ in range(levels - 1)],
    )


def ppca(d: int = 5, q: int = 2, *, orthogonal: bool = True) -> PPCA:
    """A pPCA model with random numbers."""
    W = torch.linalg.qr(torch.randn(d, q)).Q * torch.linspace(0.7, 1.6, q)
    if not orthogonal:
        W = W + W[:, :1]
    return PPCA(W, torch.randn(d), 0.4)


def gauss_hermite(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and log-weights of the expectation under N(0, 1), exact for degree ``2 count - 1``."""
    from numpy.polynomial.hermite_e import hermegauss

    nodes, weights = hermegauss(count)
    log_weights = torch.as_tensor(weights).log() - 0.5 * math.log(2 * math.pi)
    return torch.as_tensor(nodes), log_weights
