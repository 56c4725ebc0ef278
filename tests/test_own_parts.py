"""Every part of ``docs/guides/own-parts.md`` is right at every batch size.

The page's code is run once. Then each of its models is scored, trained and sampled with 1 row, with as
many rows as its latent has dimensions, and with other numbers of rows: a part that mixes rows up, or
that relies on broadcasting, gives other numbers for the same row.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genmod import random
from genmod.chunks import by_rows
from genmod.model import LatentModel, Request
from genmod.models import Diffusion
from genmod.models.replace import has_diffusion
from genmod.objectives import Batch, Objective
from genmod.random.streams import TorchDraws
from genmod.samplers import SingleStep

PAGE = Path(__file__).parents[1] / "docs" / "guides" / "own-parts.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
MODELS = [
    "with_networks",
    "velocity",
    "noise",
    "full",
    "heavy",
    "mixture",
    "nested",
    "learned",
    "halves",
    "linear",
    "quadratic",
    "shallow",
    "shallow_diffusion",
    "bits",
    "conditional",
]
SIZES = (1, 2, 3, 6, 64)
"""One row; the dimensions of most latents on the page, 2, 3 and 6; the entries of its images."""

pytestmark = pytest.mark.usefixtures("as_users_run")


@cache
def page() -> dict[str, object]:
    """What the page's code defines."""
    namespace: dict[str, object] = {"__name__": "page"}
    for block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        exec(compile(block, str(PAGE), "exec", dont_inherit=True), namespace)
    return namespace


def model(name: str) -> LatentModel:
    """A model of the page."""
    found = page()[name]
    assert isinstance(found, LatentModel)
    return found.eval()


def data(part: LatentModel, rows: int) -> Tensor:
    """Data that a model is a model of."""
    generator = torch.Generator().manual_seed(1)
    spec = part.spec
    if spec.bins is None:
        return torch.randn(rows, *spec.shape, generator=generator)
    return torch.randint(spec.bins, (rows, *spec.shape), generator=generator)


def context(name: str, rows: int) -> Tensor | None:
    """The labels of the page's conditional model."""
    return torch.arange(rows) % 10 if name == "conditional" else None


def test_every_model_of_the_page_is_listed() -> None:
    found = {name for name, value in page().items() if isinstance(value, LatentModel)}
    assert found == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_a_row_has_one_bound_in_every_batch(name: str) -> None:
    """With noise by row id, or row by row where a law of torch's knows no ids."""
    part, most = model(name), max(SIZES)
    x, given = data(part, most), context(name, most)

    def value(rows: slice) -> Tensor:
        return part.elbo(x[rows], context=None if given is None else given[rows]).value

    def key(rows: slice) -> AbstractContextManager[TorchDraws]:
        return random.keyed(0, ids=range(rows.start, rows.stop))

    with torch.no_grad():
        every = torch.cat([*by_rows([slice(0, most)], key, value)])
        assert every.shape == (most,)
        for rows in SIZES:
            some = torch.cat([*by_rows([slice(0, rows)], key, value)])
            torch.testing.assert_close(some, every[:rows], rtol=1e-4, atol=1e-3)


def test_a_posterior_of_ones_own_is_one_law_a_row() -> None:
    """The page's full covariance, whose draws know no row ids: its density does not mix rows."""
    part, most = model("full"), max(SIZES)
    x, z = data(part, most), torch.randn(most, 6)
    with torch.no_grad():
        every = part.posterior(x)
        assert isinstance(every, torch.distributions.Distribution)
        for rows in SIZES:
            some = part.posterior(x[:rows])
            assert isinstance(some, torch.distributions.Distribution)
            log_prob = every.log_prob(z)[:rows]
            torch.testing.assert_close(some.log_prob(z[:rows]), log_prob, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_weights_average_to_the_bound(name: str) -> None:
    """``E log w`` is the bound: over many draws, within 5 standard errors in each row."""
    part, rows, draws = model(name), 3, 200
    x, given = data(part, rows), context(name, rows)
    with torch.no_grad():
        elbo, path = part(x, Request(given, samples=draws, needs_path=True))
        more = torch.stack([part.elbo(x, context=given).value for _ in range(50)])
    assert path is not None
    weights = path.log_weight()
    assert weights.shape == (draws, rows)
    noise = weights.var(0) / draws + more.var(0) / len(more)
    apart = weights.mean(0) - more.mean(0)
    assert (apart.abs() <= 5 * noise.sqrt() + 1e-3).all()
    torch.testing.assert_close(elbo.value.shape, more[0].shape)


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("name", MODELS)
def test_it_trains_samples_and_encodes(name: str, rows: int) -> None:
    part = model(name)
    x, given = data(part, rows), context(name, rows)
    part.zero_grad()
    (-part.elbo(x, context=given).value.mean()).backward()
    assert any(parameter.grad is not None for parameter in part.parameters())
    assert all(bool(p.grad.isfinite().all()) for p in part.parameters() if p.grad is not None)
    assert part.sample(rows, context=given).shape == x.shape
    if not has_diffusion(part):
        code = part.encode(x, context=given)
        assert part.decode(code, context=given).mean.shape == x.shape


@pytest.mark.parametrize("rows", SIZES)
def test_an_objective_of_ones_own(rows: int) -> None:
    """The page's importance-weighted loss, by hand; never above the mean of minus the log-weights."""
    part, objective = model("learned"), page()["iwae"]
    assert isinstance(objective, Objective)
    x = data(part, rows)
    with random.keyed(0), torch.no_grad():
        loss, elbo = objective(part, Batch(x))
    with random.keyed(0), torch.no_grad():
        path = part(x, Request(samples=objective.samples, needs_path=True))[1]
    assert path is not None
    weights = path.log_weight().double()
    most = weights.max(0).values
    by_hand = -(most + (weights - most).exp().mean(0).log()).mean().float()
    torch.testing.assert_close(loss, by_hand)
    assert elbo.value.shape == (rows,)
    assert float(loss) <= -float(path.log_weight().detach().mean()) + 1e-4


@pytest.mark.parametrize("rows", SIZES)
def test_a_sampler_of_ones_own(rows: int) -> None:
    """Row by row the same as in a batch; on the optimum of N(0, I) it stays where it is."""
    from genmod.denoisers import GaussianDenoiser
    from genmod.schedules import Cosine

    build = page()["MyDDIM"]
    assert isinstance(build, type)
    assert issubclass(build, SingleStep)
    normal = GaussianDenoiser(torch.zeros(2), torch.eye(2))
    sampler, times = build(normal, Cosine()), torch.linspace(1, 0, 201)
    z = torch.randn(rows, 2)
    torch.testing.assert_close(sampler.run(z, times), z, rtol=0.01, atol=0.01)
    diffusion = model("velocity")
    assert isinstance(diffusion, Diffusion)
    assert diffusion.sample(rows, sampler=build(), steps=3).shape == (rows, 1, 8, 8)
