"""Every decoder: a new one is added to the list."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor

from genmod import Measure, decoders, diffusion
from genmod.decoders import Decoder, Identity
from genmod.denoisers import Learned
from genmod.nn import MLP, DenoisingMLP
from genmod.schedules import LinearLogSNR
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


def network(outputs: int) -> MLP:
    """From a state of four numbers."""
    return MLP(4, outputs, width=8)


def denoised() -> diffusion.LastStepDecoder:
    """A diffusion's last step: its state has the data's shape."""
    denoiser = Learned(DenoisingMLP(EVENT, width=8))
    return diffusion.LastStepDecoder(
        denoiser, LinearLogSNR(), decoders.DiscretizedLogisticDecoder(Identity(), EVENT, 5)
    )


DECODERS: dict[str, Callable[[], Decoder]] = {
    "Bernoulli": lambda: decoders.BernoulliDecoder(network(6), EVENT),
    "Categorical": lambda: decoders.CategoricalDecoder(network(30), EVENT, 5),
    "Gaussian, fixed": lambda: decoders.GaussianDecoder(network(6), EVENT, 0.5),
    "Gaussian, global": lambda: decoders.GaussianDecoder(network(6), EVENT),
    "Gaussian, per dimension": lambda: decoders.GaussianDecoder(
        network(6), EVENT, decoders.PerDimensionScale(EVENT)
    ),
    "Gaussian, predicted": lambda: decoders.GaussianDecoder(
        network(12), EVENT, decoders.PredictedScale()
    ),
    "Gaussian, calibrated": lambda: decoders.CalibratedGaussianDecoder(network(6), EVENT),
    "ContinuousBernoulli": lambda: decoders.ContinuousBernoulliDecoder(network(6), EVENT),
    "DiscretizedLogistic": lambda: decoders.DiscretizedLogisticDecoder(network(6), EVENT, 5),
    "DiscretizedLogistic, predicted": lambda: decoders.DiscretizedLogisticDecoder(
        network(12), EVENT, 5, decoders.PredictedScale(0.1)
    ),
    "DiscretizedMixture": lambda: decoders.DiscretizedMixtureDecoder(network(72), EVENT, 5, 4),
    "DiscretizedGaussian": lambda: decoders.DiscretizedGaussianDecoder(network(6), EVENT, 5),
    "Denoised": denoised,
}


def state(decoder: Decoder, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A state of the kind that the decoder takes."""
    event = EVENT if isinstance(decoder, diffusion.LastStepDecoder) else (4,)
    return torch.randn(ROWS, *event, dtype=dtype, device=device)


@pytest.mark.parametrize("name", list(DECODERS))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_it_scores_what_it_draws(name: str, dtype: torch.dtype, device: torch.device) -> None:
    """One event a row, in the state's type; its own samples pass its own check."""
    decoder = placed(DECODERS[name], dtype, device)
    h = state(decoder, dtype, device)
    law = decoder(h)
    assert law.batch_shape == (ROWS,)
    assert law.event_shape == EVENT
    x = law.sample()
    decoder.check(x)
    assert x.shape == (ROWS, *EVENT)
    assert (x.dtype is torch.long) == (decoder.measure is Measure.MASS)
    assert (decoder.bins is not None) == (decoder.measure is Measure.MASS)
    log_p = law.log_prob(x)
    check_tensor(log_p, (ROWS,), h)
    check_tensor(law.mean, (ROWS, *EVENT), h)
    if decoder.measure is Measure.MASS:
        assert bool((log_p <= 0).all())
        assert bool((law.mean >= 0).all() & (law.mean <= (decoder.bins or 0) - 1).all())


@pytest.mark.parametrize("name", [name for name in DECODERS if DECODERS[name]().bins is not None])
def test_the_type_of_integers_does_not_matter(name: str) -> None:
    decoder = placed(DECODERS[name], torch.float64, DEVICES[0])
    law = decoder(state(decoder, torch.float64, DEVICES[0]))
    x = law.sample()
    for dtype in (torch.uint8, torch.int32, torch.float32, torch.float64):
        decoder.check(x.to(dtype))
        torch.testing.assert_close(law.log_prob(x.to(dtype)), law.log_prob(x))


@pytest.mark.parametrize("name", list(DECODERS))
def test_gradients_reach_state_and_parameters(name: str) -> None:
    decoder = placed(DECODERS[name], torch.float64, DEVICES[0])
    h = state(decoder, torch.float64, DEVICES[0]).requires_grad_()
    law = decoder(h)
    law.log_prob(law.sample()).sum().backward()
    assert h.grad is not None
    assert bool(h.grad.isfinite().all() & (h.grad != 0).any())
    assert all(
        parameter.grad is not None and bool(parameter.grad.isfinite().all())
        for parameter in decoder.parameters()
    )


@pytest.mark.parametrize("name", list(DECODERS))
def test_a_copy_gives_the_same_numbers(name: str) -> None:
    def answer(decoder: Decoder) -> Iterable[Tensor]:
        law = decoder(state(decoder, torch.float64, DEVICES[0]))
        x = law.sample()
        return [law.mean, x, law.log_prob(x)]

    check_copies(DECODERS[name], answer)


@pytest.mark.parametrize("name", list(DECODERS))
def test_its_repr_is_a_formula(name: str) -> None:
    check_formula(DECODERS[name]().formula(), "p(x | z", "(x;")


@pytest.mark.parametrize("name", list(DECODERS))
def test_data_of_another_shape_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"\(4, 3, 2\); expected a batch of shape \(B, 2, 3\)"):
        DECODERS[name]().check(torch.zeros(4, 3, 2))
