"""Numbers do not depend on how they are computed: mode, chunk, order and number of rows, kind of array."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genmod import decoders, encoders
from genmod.chunks import memory_limit
from genmod.denoisers import GaussianDenoiser
from genmod.evaluation import (
    flow_bound,
    flow_density,
    immse,
    log_weights,
    profile,
    refinement,
    score,
)
from genmod.evaluation.batching import Ids
from genmod.model import LatentModel
from genmod.models import VAE, Diffusion, LatentDiffusion
from genmod.nn import Labels
from genmod.schedules import LinearLogSNR

IDS = torch.arange(246, 266)
"""Ids on both sides of the border between two blocks of noise."""


class LaplaceDecoder(decoders.Decoder):
    """A law of torch's own."""

    def __init__(self) -> None:
        super().__init__(3)

    def forward(
        self, state: Tensor, context: Tensor | None = None
    ) -> torch.distributions.Independent:
        """Around the first latent."""
        location = state[:, :1].expand(-1, 3)
        return torch.distributions.Independent(torch.distributions.Laplace(location, 0.5), 1)


class CorrelatedEncoder(encoders.Encoder):
    """A posterior of torch's own, with full covariance."""

    def forward(
        self, x: Tensor, context: Tensor | None = None, observed: Tensor | None = None
    ) -> torch.distributions.MultivariateNormal:
        """Two latents."""
        tril = torch.tensor([[1.0, 0.0], [0.5, 1.0]], dtype=x.dtype)
        return torch.distributions.MultivariateNormal(
            x[:, :2], scale_tril=tril.expand(len(x), 2, 2)
        )


MODELS: dict[str, Callable[[], LatentModel]] = {
    "torch's own laws": lambda: VAE(
        3, latents=2, encoder=CorrelatedEncoder(3), decoder=LaplaceDecoder()
    ),
    "diffusion": lambda: Diffusion(3, width=8, steps=4),
    "latent diffusion": lambda: LatentDiffusion(
        3, latents=2, width=8, diffusion=Diffusion(2, width=8, steps=3)
    ),
}

Numbers = Callable[[LatentModel, object, Ids, int | None], Tensor]


def scores(model: LatentModel, x: object, ids: Ids, batch_size: int | None) -> Tensor:
    """The bound of each row."""
    return score(model, x, seed=3, ids=ids, batch_size=batch_size).value


def weights(model: LatentModel, x: object, ids: Ids, batch_size: int | None) -> Tensor:
    """Importance weights of each row."""
    return log_weights(model, x, importance_samples=2, ids=ids, batch_size=batch_size)


CASES: dict[str, Numbers] = {"score": scores, "log_weights": weights}


def built(name: str) -> tuple[LatentModel, Tensor]:
    """A model with weights of its own, and rows."""
    torch.manual_seed(0)
    model = MODELS[name]()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model, torch.randn(len(IDS), 3)


@pytest.mark.parametrize("case", CASES)
def test_numbers_do_not_change_with_the_way_of_running(case: str) -> None:
    """Where encoder and decoder are torch's own laws, whose rows are drawn one by one.

    In inference mode, in chunks, in another order, alone, from an array. ``tests/everywhere`` shows it for
    every family and entry point.
    """
    numbers = CASES[case]
    model, x = built("torch's own laws")
    whole = numbers(model, x, IDS, None)
    assert whole.isfinite().all()

    def close(found: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

    with torch.inference_mode():
        close(numbers(model, x.clone(), IDS, None), whole)
    close(numbers(model, x.numpy().astype(np.float64), IDS, 7), whole)
    with memory_limit(2**14):
        close(numbers(model, x, IDS, None), whole)
    order = torch.randperm(len(x))
    close(numbers(model, x[order], IDS[order].tolist(), None), whole[order])
    close(numbers(model, x[13:14], IDS[13:14], None), whole[13:14])


@pytest.mark.parametrize("probes", [None, 2])
def test_the_divergence_is_kept_inside_inference_mode(probes: int | None) -> None:
    """N(0, I) under its optimal denoiser, against its log-density."""
    x = torch.randn(50, 3)
    exact = GaussianDenoiser(torch.zeros(3), torch.eye(3))
    model = Diffusion(3, denoiser=exact, schedule=LinearLogSNR(9.0, -9.0), steps=20)
    truth = torch.distributions.Normal(0, 1).log_prob(x).sum(1).double()
    with torch.inference_mode():
        found = flow_density(model, x, steps=16, probes=probes)
    torch.testing.assert_close(found.nats, truth, rtol=0, atol=2e-2)


# ---------------------------------------------------------------------- chunks


class Watching(nn.Module):
    """A network that remembers the largest number of rows it has seen."""

    most = 0

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        """Zeros."""
        self.most = max(self.most, len(z))
        return 0 * z


@pytest.mark.parametrize("call", [score, profile, immse, flow_density])
def test_batch_size_is_honored(call: Callable[..., object]) -> None:
    network = Watching()
    model = Diffusion(3, denoiser=network)
    how = {"steps": 2} if call is flow_density else {"timesteps": 2}
    call(model, torch.randn(40, 3), batch_size=5, **how)
    levels = {score: 2, profile: 2, immse: 64, flow_density: 1}[call]  # 64: in the pilot
    assert network.most == 5 * levels
    with pytest.raises(ValueError, match="batch_size=0"):
        call(model, torch.randn(4, 3), batch_size=0, **how)


def test_the_size_of_a_chunk_depends_on_the_bytes_of_a_row() -> None:
    """Rows of 3 x 64 x 64 go through the network a few at a time."""
    network = Watching()
    model = Diffusion((3, 64, 64), denoiser=network)
    score(model, torch.zeros(40, 3, 64, 64), timesteps=1)
    assert network.most <= 8


# ---------------------------------------------------------------------- contexts


def conditional() -> tuple[LatentModel, Tensor]:
    """A diffusion conditioned on one of three labels."""
    return Diffusion((4,), bins=17, steps=5, width=8, condition=Labels(3)), torch.randint(
        0, 17, (16, 4)
    )


CALLS: dict[str, Callable[[LatentModel, Tensor, object], object]] = {
    "score": lambda model, x, c: score(model, x, c),
    "log_weights": lambda model, x, c: log_weights(model, x, c, importance_samples=1),
    "immse": lambda model, x, c: immse(model, x, c, timesteps=2),
    "profile": lambda model, x, c: profile(model, x, c, timesteps=2),
    "refinement": lambda model, x, c: refinement(model, x, c),
    "flow_density": lambda model, x, c: flow_density(model, x / 16, c, steps=2, probes=2),
    "flow_bound": lambda model, x, c: flow_bound(model, x, c, steps=2, probes=2),
}


@pytest.mark.parametrize("name", CALLS)
def test_contexts_are_checked_and_taken_everywhere(name: str) -> None:
    model, x = conditional()
    call = CALLS[name]
    good = torch.randint(0, 3, (16,))
    call(model, x, good)
    call(model, x, good.numpy())
    call(model, x, 2)
    for context, said in (
        (torch.full((16,), -5), "labels from -5"),
        (torch.full((16,), 99), "to 99"),
        (torch.randint(0, 3, (32,)), r"context of shape \(32,\) for 16 rows"),
        (torch.randint(0, 3, (1,)), r"context of shape \(1,\) for 16 rows"),
        (None, "got no context"),
    ):
        with pytest.raises(ValueError, match=said):
            call(model, x, context)


def test_ids_are_one_a_row() -> None:
    model, x = conditional()
    with pytest.raises(ValueError, match=r"ids of shape \(2,\) for 16 rows"):
        score(model, x, 1, ids=[0, 1])


# ---------------------------------------------------------------------- bytes


@pytest.mark.parametrize("bins", [2, 129, 256])
def test_bytes_are_scored_as_wider_integers_are(bins: int) -> None:
    """``x // 256`` of bytes wraps to a division by zero."""
    torch.manual_seed(0)
    model, x = Diffusion((4,), bins, steps=3, width=8), torch.randint(0, bins, (9, 4))
    for call in (refinement, profile):
        wide, narrow = call(model, x), call(model, x.to(torch.uint8))
        torch.testing.assert_close(narrow.nats, wide.nats)
        torch.testing.assert_close(narrow.rmse, wide.rmse)
    torch.testing.assert_close(score(model, x.to(torch.uint8)).value, score(model, x).value)
