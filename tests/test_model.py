"""A model is a module like any other: called, copied, saved; its answers carry no gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from genmod.models import VAE

pytestmark = pytest.mark.usefixtures("float64")


def test_calling_a_model_is_its_bound_and_a_copy_gives_the_same() -> None:
    model = VAE((4,), 5, latents=2, width=8)
    x = torch.randint(0, 5, (3, 4))
    other = copy.deepcopy(model)
    fresh = VAE((4,), 5, latents=2, width=8)
    fresh.load_state_dict(model.state_dict())
    values = []
    for each in (model, other, fresh):
        torch.manual_seed(2)
        values.append(each(x)[0].value)
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)
    torch.testing.assert_close(values[0], values[2], rtol=0, atol=0)


def test_the_answers_of_use_carry_no_gradients() -> None:
    model = VAE((4,), latents=2, width=8)
    x = torch.randn(3, 4)
    code = model.encode(x)
    assert isinstance(code, Tensor)
    for answer in (code, model.decode(code).mean, model.reconstruct(x), model.sample(2)):
        assert not answer.requires_grad
