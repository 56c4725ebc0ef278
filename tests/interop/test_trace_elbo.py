"""Pyro's ``Trace_ELBO`` of a pair is our sampled bound, path by path."""

from __future__ import annotations

import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch.testing import assert_close

from genmod.interop.pyro import to_pyro
from tests.interop.cases import CASES, build, sampled, trace


@pytest.mark.parametrize("name", CASES)
def test_the_bound_of_each_row_is_ours_at_the_same_latents(name: str) -> None:
    """The program runs ``generate`` and the guide ``infer``; ours is both terms of ``infer``."""
    case = build(name)
    latents, value = trace(to_pyro(case.model), case)
    assert_close(value, sampled(case, latents), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_minus_the_sum_of_ours_from_the_same_seed(name: str) -> None:
    """Pyro draws the same noise in the same order, so even the draws are the same."""
    case = build(name)
    pair = to_pyro(case.model)
    torch.manual_seed(1)
    loss = Trace_ELBO().loss(pair.model, pair.guide, case.x, case.context)
    torch.manual_seed(1)
    ours = case.model.log_weight(case.x, case.context).sum()
    assert_close(torch.tensor(-loss), ours.detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["vae-bits", "hvae-bottom-up", "hvae-top-down", "diffusion"])
def test_gradients_are_ours_too(name: str) -> None:
    """Both sides reparameterize, so one draw has the same gradient, parameter by parameter."""
    case = build(name)
    pair = to_pyro(case.model)

    def gradients() -> list[torch.Tensor]:
        found = [p.grad for p in case.model.parameters() if p.grad is not None]
        case.model.zero_grad(set_to_none=True)
        return found

    torch.manual_seed(1)
    Trace_ELBO().loss_and_grads(pair.model, pair.guide, case.x)
    theirs = gradients()
    torch.manual_seed(1)
    (-case.model.log_weight(case.x).sum()).backward()
    ours = gradients()
    assert len(ours) > 10
    assert_close(theirs, ours, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["vae-bins", "hvae-bottom-up", "latent-diffusion"])
def test_without_data_the_program_samples_as_the_model_does(name: str) -> None:
    """The program without ``x`` is the generative path: ``model.sample`` from one seed."""
    case = build(name)
    free = poutine.uncondition(to_pyro(case.model).model)
    torch.manual_seed(2)
    with torch.no_grad():
        theirs = free(case.x)
    torch.manual_seed(2)
    assert_close(theirs, case.model.sample(len(case.x)), rtol=1e-10, atol=1e-10)


def test_the_context_of_a_row_moves_that_row_alone() -> None:
    """Rows share nothing but parameters, and every part takes its row's own context."""
    case = build("told")
    assert case.context is not None
    pair = to_pyro(case.model)
    changed = case.context.clone()
    changed[2] += 1.0
    torch.manual_seed(3)
    _, before = trace(pair, case)
    torch.manual_seed(3)
    _, after = trace(pair, case._replace(context=changed))
    moved = (after - before).abs() > 1e-9
    assert moved.tolist() == [row == 2 for row in range(len(case.x))]
