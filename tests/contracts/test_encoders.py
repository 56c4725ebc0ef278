"""Every encoder: a new one is added to the list."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod import diffusion, distributions, encoders
from genmod.diffusion.depth import LearnedNoisingEncoder, LearnedNoisingPosterior
from genmod.diffusion.noising import NoisingPosterior
from genmod.encoders import Encoder
from genmod.encoders.topdown import LadderEncoder, PyramidEncoder, TopDownPosterior
from genmod.nn import MLP, DenoisingMLP
from genmod.nn.cells import Pyramid
from genmod.schedules import LinearLogSNR
from genmod.spec import DataSpec
from tests.contracts.common import (
    DEVICES,
    DTYPES,
    ROWS,
    check_copies,
    check_formula,
    check_tensor,
    placed,
)

EVENT = (2, 3)


def top_down(spec: DataSpec) -> encoders.TopDownEncoder:
    """Two levels of two dimensions, under states of five numbers."""
    stages = [MLP(EVENT, 4, width=8), MLP(4, 4, width=8)]
    return encoders.TopDownEncoder(
        stages, [encoders.TopDownHead(MLP(9, 4, width=8), (2,)) for _ in range(2)], spec
    )


def ladder(spec: DataSpec) -> LadderEncoder:
    """Two levels of two dimensions."""
    stages = [MLP(EVENT, 4, width=8), MLP(4, 4, width=8)]
    return LadderEncoder(stages, [MLP(4, 4, width=8) for _ in range(2)], spec)


def pyramid(spec: DataSpec) -> PyramidEncoder:
    """Features of two levels, sequences of three positions."""
    return PyramidEncoder(Pyramid(EVENT, [(4, 3), (4, 3)], hidden=8), 2, spec)


def learned_noising(spec: DataSpec) -> LearnedNoisingEncoder:
    """A network that moves the noised data."""
    return LearnedNoisingEncoder(DenoisingMLP((4, 3), width=8), LinearLogSNR(), spec)


ENCODERS: dict[str, tuple[Callable[[DataSpec], Encoder], tuple[int, ...]]] = {
    "Dirac": (lambda spec: encoders.DiracEncoder(MLP(EVENT, 5, width=8), (5,), spec), (5,)),
    "Gaussian": (lambda spec: encoders.GaussianEncoder(MLP(EVENT, 10, width=8), (5,), spec), (5,)),
    "Gaussian of images": (
        lambda spec: encoders.GaussianEncoder(MLP(EVENT, 16, width=8), (2, 2, 2), spec),
        (2, 2, 2),
    ),
    "Full covariance": (
        lambda spec: encoders.FullCovarianceEncoder(MLP(EVENT, 20, width=8), (5,), spec),
        (5,),
    ),
    "Normalizing flow": (
        lambda spec: encoders.FlowEncoder(MLP(EVENT, 14, width=8), (5,), spec, width=8, context=4),
        (5,),
    ),
    "TopDown": (top_down, (2,)),
    "Ladder": (ladder, (2,)),
    "Pyramid": (pyramid, (4, 3)),
    "Learned noising": (learned_noising, EVENT),
    "Noising": (lambda spec: diffusion.NoisingEncoder(LinearLogSNR(), spec), EVENT),
}


def laws(encoder: Encoder, x: Tensor) -> list[Distribution]:
    """Every distribution of a posterior."""
    posterior = encoder(x)
    if isinstance(posterior, Distribution):
        return [posterior]
    like = torch.zeros((), dtype=next(encoder.parameters(), torch.zeros(())).dtype)
    if isinstance(posterior, TopDownPosterior):
        state = torch.ones(len(x), 5, dtype=like.dtype, device=x.device)
        p = distributions.Normal(state[:, :2], state[:, :2])
        if not posterior.heads:
            return [distributions.Normal(each, each) for each in posterior.features]
        return [posterior.conditional(level, state, p) for level in range(len(posterior.heads))]
    early, late = (torch.full((len(x),), t, device=x.device) for t in (0.2, 0.7))
    fixed = posterior.fixed if isinstance(posterior, LearnedNoisingPosterior) else posterior
    assert isinstance(fixed, NoisingPosterior)
    assert isinstance(posterior, NoisingPosterior | LearnedNoisingPosterior)
    return [posterior.at(late), posterior.given(early, late, fixed.x)]


def data(bins: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Data as the encoder gets them."""
    if bins is None:
        return torch.randn(ROWS, *EVENT, dtype=dtype, device=device)
    return torch.randint(0, bins, (ROWS, *EVENT), device=device).to(dtype)


@pytest.mark.parametrize("name", list(ENCODERS))
@pytest.mark.parametrize("bins", [None, 5])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_a_posterior_is_one_event_a_row_of_the_datas_type(
    name: str, bins: int | None, dtype: torch.dtype, device: torch.device
) -> None:
    build, shape = ENCODERS[name]
    x = data(bins, dtype, device)
    for law in laws(placed(lambda: build(DataSpec(EVENT, bins)), dtype, device), x):
        check_tensor(law.rsample(), (ROWS, *shape), x)
        check_tensor(law.mean, (ROWS, *shape), x)
        if not isinstance(law, distributions.Dirac):
            check_tensor(law.log_prob(law.sample()), (ROWS,), x)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_rows_do_not_see_each_other(name: str) -> None:
    encoder = placed(lambda: ENCODERS[name][0](DataSpec(EVENT)), torch.float64, torch.device("cpu"))
    x = data(None, torch.float64, torch.device("cpu"))
    for whole, part in zip(laws(encoder, x), laws(encoder, x[1:3]), strict=True):
        torch.testing.assert_close(whole.mean[1:3], part.mean)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_gradients_reach_every_parameter(name: str) -> None:
    encoder = placed(lambda: ENCODERS[name][0](DataSpec(EVENT)), torch.float64, torch.device("cpu"))
    drawn = [law.rsample().sum() for law in laws(encoder, data(None, torch.float64, DEVICES[0]))]
    if list(encoder.parameters()):
        torch.stack(drawn).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


@pytest.mark.parametrize("name", list(ENCODERS))
def test_a_copy_gives_the_same_numbers(name: str) -> None:
    x = data(None, torch.float64, DEVICES[0])

    def answer(encoder: Encoder) -> Iterable[Tensor]:
        return [law.rsample() for law in laws(encoder, x)]

    check_copies(lambda: ENCODERS[name][0](DataSpec(EVENT)), answer)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_its_repr_is_a_formula(name: str) -> None:
    check_formula(ENCODERS[name][0](DataSpec(EVENT)).formula(), "q(z", "| x) =")
