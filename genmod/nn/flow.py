"""Invertible networks between vectors, from zuko: the transforms of normalizing flows."""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.transforms import _InverseTransform

from genmod.checks import invalid
from genmod.config import Settings
from genmod.nn.modules import in_own_precision


class SplineFlow(Settings, nn.Module):
    r"""An invertible network of rational-quadratic splines, each after an affine map (zuko).

    .. math:: \varepsilon = f(z), \qquad
        f_i(z) = s_i(e^{a_i} z_i + b_i), \quad (a_i, b_i, s_i) = \text{network}(z_{<i}, c)

    A spline acts on [-5, 5] and leaves the rest as it is. The network starts as the identity.

    Args:
        features: ``D``, the length of the vectors.
        context: how many numbers of context each row has.
        transforms: how many invertible maps follow each other; the order of the entries alternates.
        bins: segments of each spline.
        width: of the two hidden layers of each network.
        autoregressive: whether entry ``i`` sees every entry before it. The inverse then takes ``D`` passes
            of the network. By default half of the entries see the other half (coupling): 2 passes.

    Raises:
        ValueError: zuko is not installed.

    Reference: Durkan et al., "Neural Spline Flows" (2019), section 3; Dinh et al., "Density estimation
    using Real NVP" (2017), eqs. 4-5.
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        transforms: int = 3,
        bins: int = 8,
        width: int = 64,
        autoregressive: bool = False,
    ) -> None:
        super().__init__()
        if min(features, transforms, width) < 1 or bins < 2 or context < 0:
            raise invalid(
                f"features={features}, transforms={transforms}, bins={bins}, width={width}",
                "at least one of each, and two bins",
                "leave the settings out for those that work",
            )
        transform, univariate = _zuko().flows.autoregressive.MaskedAutoregressiveTransform, _map()
        order = torch.arange(features)
        self.maps = nn.ModuleList(
            transform(
                features,
                context,
                None if autoregressive else 2,
                order.flip(0) if number % 2 else order,
                univariate=univariate,
                shapes=[(bins,), (bins,), (bins - 1,), (), ()],
                hidden_features=(width, width),
            )
            for number in range(transforms)
        )
        for each in self.maps:
            _start_as_identity(each)

    def forward(
        self, value: Tensor, context: Tensor | None = None, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The image of each vector and the log of the absolute determinant of the map's Jacobian.

        Args:
            value: ``(*batch, D)``.
            context: ``(*batch, C)``; batches broadcast.
            inverse: whether to apply the inverse.

        Returns:
            ``(*batch, D)`` and ``(*batch,)``.
        """
        with in_own_precision(self):
            return self._mapped(value, context, inverse)

    def _mapped(
        self, value: Tensor, context: Tensor | None, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        total = torch.zeros_like(value[..., 0])
        for each in reversed(list(self.maps)) if inverse else self.maps:
            transform = each(context)
            if inverse:
                image = transform.inv(value)
                change = -transform.log_abs_det_jacobian(image, value)
            else:
                image, change = transform.call_and_ladj(value)
            value, total = image, total + change
        return value, total


def _start_as_identity(transform: nn.Module) -> None:
    """Set the last layer to zero, whose output are the parameters of the maps."""
    network = dict(transform.named_children()).get("hyper")
    last = transform if network is None else list(network.children())[-1]
    for parameter in last.parameters():
        nn.init.zeros_(parameter)


@cache
def _map() -> Any:
    """The map of one entry: affine, then a spline. (One spline alone cannot move beyond [-5, 5].)"""
    found = _zuko().transforms
    # Classes, and not their module: settings are compared by the values that a function encloses.
    compose, affine, spline = (
        found.ComposedTransform,
        found.MonotonicAffineTransform,
        found.MonotonicRQSTransform,
    )

    def affine_spline(
        widths: Tensor, heights: Tensor, slopes: Tensor, shift: Tensor, scale: Tensor
    ) -> Any:
        return compose(affine(shift, scale), spline(widths, heights, slopes))

    return affine_spline


def _zuko() -> ModuleType:
    """The package zuko. What its import switches off in torch is switched on again.

    ``import zuko`` turns argument validation off for every distribution of torch's, also of other
    libraries. If the user imported it before, validation is left as it is.
    """
    loaded: ModuleType | None = sys.modules.get("zuko")
    if loaded is not None:
        return loaded
    before = {name: vars(Distribution)[name] for name in ("_validate_args", "arg_constraints")}
    name = _InverseTransform.__name__
    try:
        # Not at the top: an extra, and an import that changes torch.
        import zuko
    except ModuleNotFoundError as error:
        raise invalid(
            "a normalizing flow without zuko",
            "it for invertible networks",
            "run pip install 'genmod-torch[flows]'",
        ) from error
    finally:
        for key, value in before.items():
            setattr(Distribution, key, value)
        _InverseTransform.__name__ = name
    found: ModuleType = zuko
    return found
