"""The VampPrior: a mixture of the encoder's own posteriors at learned pseudo-inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import invalid
from genmod.columns import ColumnKind
from genmod.distributions.composed import Mixture
from genmod.encoders import Encoder
from genmod.encoders.base import require_distribution
from genmod.priors.learned import OpenPrior, check_components
from genmod.spec import DataSpec
from genmod.tensors import Shape


class PseudoInputs(nn.Module):
    """``K`` learned inputs of an encoder, ``(K, *event)``, inside the range of the data.

    Integers of ``n`` values and ordinals are kept in ``0 .. n - 1`` by clamping. Counts are at least 0.
    Categories keep their first values, because no gradient reaches them.

    Args:
        spec: the data.
        start: the first values, in the units that an encoder gets.
    """

    raw: Tensor

    def __init__(self, spec: DataSpec, start: Tensor) -> None:
        super().__init__()
        self.spec = spec
        kinds = [column.kind for column in spec.columns or ()]
        self._counts = [place for place, kind in enumerate(kinds) if kind is ColumnKind.COUNT]
        self._codes = [place for place, kind in enumerate(kinds) if kind is ColumnKind.ORDINAL]
        self._fixed = [place for place, kind in enumerate(kinds) if kind is ColumnKind.CATEGORY]
        self.raw = nn.Parameter(self._to_raw(start))

    def forward(self) -> Tensor:
        """The pseudo-inputs, as an encoder takes them."""
        if self.spec.columns is None:
            if self.spec.bins is None:
                return self.raw
            return (self.raw.clamp(-1, 1) + 1) * ((self.spec.bins - 1) / 2)
        shift, scale = self.raw.new_tensor(self._units()).unbind(-1)
        raw = self.raw.clone()
        raw[:, self._codes] = raw[:, self._codes].clamp(-1, 1)
        x = shift + scale * raw
        x[:, self._counts] = x[:, self._counts].clamp(min=0)
        return x

    def _to_raw(self, x: Tensor) -> Tensor:
        if self.spec.columns is None:
            return self.spec.center(x)
        shift, scale = x.new_tensor(self._units()).unbind(-1)
        return (x - shift) / scale

    def _units(self) -> list[tuple[float, float]]:
        """The shift and the scale of each column, so that raw values have a spread near one."""
        found = []
        for column in self.spec.columns or ():
            if column.kind is ColumnKind.INTEGER:
                found.append((column.mean, column.std))
            elif column.kind is ColumnKind.COUNT:
                found.append((0.0, max(column.mean, 1.0)))
            elif column.kind is ColumnKind.ORDINAL:
                half = max(column.count - 1, 1) / 2
                found.append((half, half))
            else:
                found.append((0.0, 1.0))
        return found


def _noise(spec: DataSpec, count: int) -> Tensor:
    """Noise in the range of the data: uniform integers and codes, N(0, 1) for standardized reals."""
    shape = (count, *spec.shape)
    if spec.columns is None:
        return torch.randn(shape) if spec.bins is None else (spec.bins - 1) * torch.rand(shape)
    columns = []
    for column in spec.columns:
        if column.count:
            columns.append(torch.randint(column.count, (count,)).float())
        elif column.kind is ColumnKind.COUNT:
            columns.append(2 * column.mean * torch.rand(count))
        elif column.kind is ColumnKind.INTEGER:
            columns.append(column.mean + column.std * torch.randn(count))
        else:
            columns.append(torch.randn(count))
    return torch.stack(columns, 1)


class VampPrior(OpenPrior):
    r"""The VampPrior: the mean of the encoder's posteriors at ``K`` learned pseudo-inputs :math:`u_k`.

    .. math:: p(z) = \frac{1}{K} \sum_{k=1}^{K} q(z | u_k)

    It shares the encoder's parameters, so that a gradient of the prior reaches them. Its rate is a
    log-ratio at a draw.

    Train it with a KL warm-up of a thousand steps or more, ``WarmUp(1000)``, as its authors do. The mixture
    follows the posteriors, so that nothing holds them apart while a decoder learns the average of the data.
    On binarized MNIST all posteriors became equal within a hundred steps, and stayed so.

    Args:
        components: ``K``.
        pseudo_inputs: the first values of the pseudo-inputs, ``(K, *event)``: rows of the training data, as
            in ``VampPrior(50, data.train[:50])``. Left out: noise in the range of the data.
        encoder: the encoder; left out, that of the model that the prior is given to.
        name: the name of its rate.

    Raises:
        ValueError: pseudo-inputs of another number or shape; an encoder that does not state its data.

    Reference: Tomczak, Welling, "VAE with a VampPrior" (2018), eq. 9 and algorithm 1.

    >>> from genmod import VAE
    >>> model = VAE((1, 8, 8), bins=17, latents=2, width=8, prior=VampPrior(5))
    >>> model.prior.pseudo_inputs().shape, model.prior.encoder is model.encoder
    (torch.Size([5, 1, 8, 8]), True)
    """

    def __init__(
        self,
        components: int = 500,
        pseudo_inputs: Tensor | None = None,
        encoder: Encoder | None = None,
        name: str = "prior",
    ) -> None:
        super().__init__(None if encoder is None else encoder.latent_shape, name)
        check_components(components)
        if pseudo_inputs is not None and len(pseudo_inputs) != components:
            raise invalid(
                f"components={components} beside {len(pseudo_inputs)} pseudo-inputs",
                "as many pseudo-inputs as components",
                "pass VampPrior(50, data.train[:50])",
            )
        self.count = components
        if encoder is not None:
            self.encoder = encoder
            self.pseudo_inputs = PseudoInputs(*_start(encoder, components, pseudo_inputs))

    def density(self, n: int, context: Tensor | None = None) -> Mixture:
        """The mixture: one law for all rows, or one a row where there is a context."""
        u = self.pseudo_inputs()
        logits = u.new_zeros(self.count)
        if context is None:
            return Mixture(lambda index: self._posterior(u[index], None), logits)

        def of_rows(index: Tensor) -> Distribution:
            row = torch.div(index, self.count, rounding_mode="floor")
            return self._posterior(u[index % self.count], context[row])

        return Mixture(of_rows, logits, n)

    def with_shape(self, shape: Shape) -> VampPrior:
        """Refused without an encoder of one latent.

        Raises:
            ValueError: the encoder is not known.
        """
        if not self.is_open:
            return self
        raise invalid(
            "a VampPrior beside an encoder that does not state its latent_shape",
            "an encoder of one latent, whose posteriors are its components",
            'pass inference="bottom-up" for a hierarchy, or set latent_shape in an encoder of '
            "your own",
        )

    def formula(self) -> str:
        """The prior as it stands on paper."""
        return f"p(z) = mean over {self.count} of q(z | u_k), u_k learned"

    def _posterior(self, u: Tensor, context: Tensor | None) -> Distribution:
        return require_distribution(self.encoder(u, context), self.shape)

    def _missing(self, encoder: Encoder) -> dict[str, object]:
        return {"encoder": encoder}


def _start(encoder: Encoder, count: int, rows: Tensor | None) -> tuple[DataSpec, Tensor]:
    """The data that an encoder reads, and the first pseudo-inputs."""
    name, spec = type(encoder).__name__, encoder.spec
    if encoder.latent_shape is None:
        raise invalid(
            f"a {name} without a latent_shape for a VampPrior",
            "the shape of its latents",
            f"set latent_shape in {name}",
        )
    if spec is None:
        if rows is None:
            raise invalid(
                f"a {name} that does not state its data for a VampPrior",
                "a DataSpec, from which the pseudo-inputs get their shape and range",
                "build the encoder with spec=data.spec, or pass pseudo_inputs=rows",
            )
        return DataSpec(tuple(rows.shape[1:])), rows.to(torch.get_default_dtype())
    if rows is None:
        return spec, _noise(spec, count)
    spec.check(rows, name="pseudo_inputs")
    # Standardized in the type given, as at the border of a model.
    return spec, spec.standardize(rows).to(torch.get_default_dtype())
