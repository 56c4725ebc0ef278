"""Products with a Jacobian: against the formula, and through a network that frees its memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from genmod.denoisers import Learned
from genmod.evaluation import flow_density
from genmod.models import Diffusion
from genmod.models.replace import find_diffusion
from genmod.nn.jacobian import pullback

pytestmark = pytest.mark.usefixtures("float64")

MESSAGE = (
    "This backward function was compiled with non-empty donated buffers which requires "
    "create_graph=False and retain_graph=False."
)
"""How torch's message begins (torch/_functorch/_aot_autograd/runtime_wrappers.py)."""


class Once(torch.autograd.Function):
    """A cube whose backward pass may not be repeated, as that of a compiled network."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """The cube."""
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        """Its slope; refused where the graph is to be kept."""
        if torch._C._autograd._get_current_graph_task_keep_graph():
            raise RuntimeError(MESSAGE)
        (x,) = ctx.saved_tensors
        return 3 * x**2 * slopes[0]


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("once", [False, True])
def test_a_product_is_that_of_the_whole_jacobian(once: bool, inference: bool) -> None:
    """More than one product, also where the backward pass may be made once only."""
    mix, calls = torch.randn(4, 4), list[int]()

    def function(x: Tensor) -> tuple[Tensor, Tensor, None]:
        calls.append(len(x))
        return Once.apply(x @ mix) if once else (x @ mix) ** 3, x.square(), None

    x, u = torch.randn(3, 4), torch.randn(2, 3, 4)
    with torch.inference_mode(inference):
        y, others, pull = pullback(function, x)
        found = [pull(each) for each in u]
    torch.testing.assert_close(y, (x @ mix) ** 3)
    assert len(others) == 2
    assert others[1] is None
    assert not y.requires_grad
    for each, product in zip(u, found, strict=True):
        torch.testing.assert_close(product, (each * 3 * (x @ mix) ** 2) @ mix.T)
    assert len(calls) == (3 if once else 1)


def test_an_output_that_does_not_depend_on_the_input_has_no_slope() -> None:
    x = torch.randn(3, 2)
    _, _, pull = pullback(lambda x: (torch.ones(3, 2),), x)
    assert torch.equal(pull(x), torch.zeros(3, 2))
    _, _, pull = pullback(lambda x: (torch.ones(3, 2, requires_grad=True),), x)
    assert torch.equal(pull(x), torch.zeros(3, 2))


def test_other_errors_of_a_backward_pass_are_not_hidden() -> None:
    _, _, pull = pullback(lambda x: (x.square(),), torch.randn(3, 2))
    with pytest.raises(RuntimeError, match="shape"):
        pull(torch.randn(5, 2))


@pytest.mark.parametrize("probes", [None, 3])
def test_the_trace_of_a_network_that_frees_its_memory(
    probes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiled network's density is the plain one's, without a setting of torch's.

    The network stands in for a compiled one: its backward pass refuses to be repeated in torch's words.
    """
    torch.manual_seed(0)
    model = Diffusion(3, width=8, depth=1).eval()
    z, found = torch.randn(4, 3), []
    denoiser = find_diffusion(model).denoiser
    assert isinstance(denoiser, Learned)
    network = denoiser.network
    plain = network.forward
    for wrap in (lambda x: x**3, Once.apply):

        def forward(z: Tensor, *args: Any, wrap: Any = wrap, **more: Any) -> Tensor:
            return wrap(plain(z, *args, **more)) + 0.1 * z

        monkeypatch.setattr(network, "forward", forward)
        found.append(flow_density(model, z, steps=2, probes=probes).nats)
    torch.testing.assert_close(*found)
    assert bool((found[0] != 0).all())
