"""What is asked of a model beside the data, in one object: what wrappers of a model pass on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from genmod.arrays import for_autograd
from genmod.checks import require
from genmod.prior import AutoTimesteps, Prior, Timesteps
from genmod.types import Mask


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked of a model beside the data.

    Args:
        context: what the model is conditioned on, ``(B, ...)``.
        observed: which entries of the data count, like the data; ``None``: all.
        timesteps: which levels of a diffusion to visit.
        samples: ``K``, joint draws of the latents for each row, at least 1. The bound is their mean.
        needs_path: whether the draws and their laws are returned, too: :class:`~genmod.prior.Path`.
    """

    context: Tensor | None = None
    observed: Mask | None = None
    timesteps: Timesteps = AutoTimesteps.EVALUATION
    samples: int = 1
    needs_path: bool = False

    def __post_init__(self) -> None:
        got, advice = f"samples={self.samples}", "one draw for each row is the bound as usual"
        require(self.samples >= 1, got, "at least one draw for each row", advice)
        if self.observed is not None:
            object.__setattr__(self, "observed", for_autograd(self.observed))

    def check(self, rows: int, prior: Prior, model: str) -> None:
        """Require what a model of this prior can be asked for, of a batch of ``rows`` rows.

        Raises:
            ValueError: a context of other rows, weights of a random density, timesteps for no levels.
        """
        if self.context is not None and len(self.context) != rows:
            raise ValueError(
                f"got {len(self.context)} rows of context for {rows} samples; expected one row a sample; "
                "repeat the context, or pass fewer samples"
            )
        if self.needs_path and prior.stochastic_density:
            raise ValueError(
                f"got a request for importance weights of a {model} whose prior density is a random "
                "estimate; expected a density without noise; use the exact trace (probes=None)"
            )
        if isinstance(self.timesteps, int) and (self.needs_path or self.samples > 1):
            raise ValueError(
                f"got timesteps={self.timesteps} beside whole paths of latents; expected one or the other; "
                "leave timesteps out: a path visits every level"
            )
        stated = self.timesteps is not None and not isinstance(self.timesteps, AutoTimesteps)
        if stated and not prior.has_timesteps:
            raise ValueError(
                f"got timesteps={self.timesteps} for a {model} without noise levels; expected none; "
                "leave timesteps out: every latent is visited"
            )


def repeated(x: Tensor, request: Request) -> tuple[Tensor, Request]:
    """``K`` copies of the batch one after another, with all that belongs to its rows."""

    def copies(rows: Tensor | None) -> Tensor | None:
        return None if rows is None else rows.repeat(request.samples, *[1] * (rows.ndim - 1))

    context, observed = copies(request.context), copies(request.observed)
    repeated = copies(x)
    assert repeated is not None
    return repeated, replace(request, context=context, observed=observed)
