"""Multilayer perceptrons, and the embeddings of noise level and context that condition networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genmod.checks import check_at_least, invalid
from genmod.config import Settings
from genmod.nn.conditioning import Condition, Vectors
from genmod.nn.modules import in_full, zero
from genmod.tensors import Shape, size


class Sinusoidal(Settings, nn.Module):
    r"""Sinusoidal features of the log-SNR: sines and cosines of geometrically spaced frequencies.

    DDPM embeds the step index. A log-SNR means the same noise for every schedule and number of steps.

    Args:
        width: the number of features, even.
        shortest: the shortest period, in units of log-SNR.
        longest: the longest period.

    Reference: Vaswani et al., "Attention is all you need" (2017), section 3.5.
    """

    frequencies: Tensor

    def __init__(self, width: int, shortest: float = 0.5, longest: float = 200.0) -> None:
        super().__init__()
        if width % 2 != 0:
            raise invalid(
                f"width={width}", "an even width", "half of the features are sines, half cosines"
            )
        periods = torch.logspace(math.log10(longest), math.log10(shortest), width // 2)
        self.register_buffer("frequencies", 2 * math.pi / periods, persistent=False)

    def forward(self, log_snr: Tensor) -> Tensor:
        """``(B,)`` to ``(B, width)``."""
        angle = log_snr[:, None] * self.frequencies.to(log_snr.dtype)
        return torch.cat([angle.sin(), angle.cos()], -1)


class FourierFeatures(Settings, nn.Module):
    r"""Fourier features: ``z``, :math:`\sin(2^n \pi z)`, :math:`\cos(2^n \pi z)` along dimension 1.

    Args:
        exponents: the exponents ``n``; an empty tuple gives ``z`` alone.

    Reference: Kingma et al., "Variational Diffusion Models" (2021), appendix C.
    """

    def __init__(self, exponents: tuple[int, ...]) -> None:
        super().__init__()
        self.exponents = exponents

    @property
    def copies(self) -> int:
        """The number of output channels (or entries) for each input channel."""
        return 1 + 2 * len(self.exponents)

    def forward(self, z: Tensor) -> Tensor:
        """``(B, C, ...)`` to ``(B, copies * C, ...)``."""
        if not self.exponents:
            return z
        angles = [2.0**n * math.pi * z for n in self.exponents]
        return torch.cat([z, *(a.sin() for a in angles), *(a.cos() for a in angles)], 1)


class ContextEmbedding(Settings, nn.Module):
    """The embedding of a context: a linear layer on its features.

    Args:
        context: the kind of context; ``n`` is short for ``Vectors(n)``, and 0 means no context.
        outputs: the size of the embedding.
    """

    def __init__(self, context: Condition | int, outputs: int) -> None:
        super().__init__()
        self.condition = _kind(context)
        features = 0 if self.condition is None else self.condition.width
        self.linear = nn.Linear(features, outputs) if features else None
        self.width = outputs if features else 0

    def forward(self, context: Tensor | None, rows: int) -> Tensor | None:
        """The embedding, ``(rows, outputs)``; ``None`` if the network takes no context or ignores it."""
        if self.condition is None and context is not None:
            raise invalid(
                "a context",
                "none",
                "build the network with context=Labels(n) or Vectors(n) to condition it, or with "
                "context=Ignored() if only other parts of its model are conditional",
            )
        if self.condition is None or self.linear is None:
            return None
        # Reading values makes a GPU wait at each step. There, check_context reads them once a run.
        if context is None or context.device.type == "cpu":
            self.check(context)
        assert context is not None
        if len(context) != rows:
            got = f"a context of {len(context)} rows for {rows} samples"
            raise invalid(got, "one row a sample", "repeat it, or pass fewer samples")
        embedding: Tensor = self.linear(self.condition.features(context, self.linear.weight.dtype))
        return embedding

    def check(self, context: Tensor | None) -> None:
        """Require a context of the kind that the layer was built for, if it was built for one."""
        if self.linear is None or self.condition is None:
            return
        if context is None:
            advice = "pass context=..., or null_context(labels) for the unconditional law"
            raise invalid("no context", f"one for {self.condition}", advice)
        self.condition.check(context)


def _kind(context: Condition | int) -> Condition | None:
    if isinstance(context, Condition):
        return context
    return Vectors(context) if context else None


def check_context(network: nn.Module, context: Tensor | None) -> None:
    """Require a context that fits every part of a network or model.

    Raises:
        ValueError: no context where one is expected, or one of another kind or out of range.
    """
    for module in network.modules():
        if isinstance(module, ContextEmbedding):
            module.check(context)


class NoiseLevelEmbedding(Settings, nn.Module):
    """The embedding of noise level and context, an input of every block of a denoiser's network.

    In float32, any two neighboring levels of a diffusion of 100,000 steps have different embeddings.
    Under autocast in bfloat16 this holds for 10,000 steps. For 100,000 steps of the cosine schedule, about
    200 pairs of neighbors have the same embedding.

    Args:
        width: the size of the embedding.
        context: the kind of context, if any; ``n`` is short for ``Vectors(n)``.
    """

    def __init__(self, width: int, context: Condition | int = 0) -> None:
        super().__init__()
        self.time = nn.Sequential(Sinusoidal(64), nn.Linear(64, width), nn.SiLU())
        self.mix = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.embed = ContextEmbedding(context, width)

    def forward(self, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-SNRs ``(B,)`` and a context to embeddings ``(B, width)``."""
        level, embedding = self.time(log_snr), self.embed(context, len(log_snr))
        mixed: Tensor = self.mix(level if embedding is None else level + embedding)
        return mixed


class MLP(Settings, nn.Module):
    r"""A residual multilayer perceptron (MLP) on flattened events, for encoders and decoders.

    A linear layer, ``depth`` residual blocks, and a linear layer on the normalized result:

    .. math:: h \leftarrow h + W_2\, \mathrm{silu}(W_1\, \mathrm{silu}(\mathrm{LayerNorm}(h)))

    Each block starts as the identity (:math:`W_2 = 0`), so that deep networks train from the start.

    Args:
        inputs: the shape of one event, or the number of its entries.
        outputs: the number of outputs a row.
        width: the width of the hidden layers.
        depth: the number of residual blocks.
        dropout: the probability of dropout inside each block.
        context: the kind of context, if any; ``n`` is short for ``Vectors(n)``.

    Reference: He et al., "Identity Mappings in Deep Residual Networks" (2016), figure 4e.

    >>> MLP((1, 8, 8), 10, width=32)(torch.randn(4, 1, 8, 8)).shape
    torch.Size([4, 10])
    """

    def __init__(
        self,
        inputs: Shape | int,
        outputs: int,
        *,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        context: Condition | int = 0,
    ) -> None:
        super().__init__()
        _check_sizes(width, depth, outputs)
        entries = inputs if isinstance(inputs, int) else size(inputs)
        self.first = nn.Linear(entries, width)
        self.blocks = nn.ModuleList(ResidualBlock(width, dropout) for _ in range(depth))
        self.last = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, outputs))
        self.embed = ContextEmbedding(context, width)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, *event)`` to ``(B, outputs)``."""
        h, embedding = self.first(x.flatten(1)), self.embed(context, len(x))
        h = h if embedding is None else h + embedding
        for block in self.blocks:
            h = block(h)
        output: Tensor = self.last(h)
        return output


class ResidualBlock(nn.Module):
    """``h + W2 dropout(silu(W1 silu(norm(h))))``, with ``W2 = 0`` at first."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)
        self.down = zero(nn.Linear(width, width))

    def forward(self, h: Tensor, shift_scale: Tensor | None = None) -> Tensor:
        """``(B, width)`` to ``(B, width)``; ``shift_scale`` is ``(B, 2 width)``."""
        g = self.norm(h)
        if shift_scale is not None:
            shift, scale = shift_scale.chunk(2, -1)
            g = torch.addcmul(shift, g, 1 + scale)
        g = self.up(nn.functional.silu(g))
        added: Tensor = h + self.down(self.drop(nn.functional.silu(g)))
        return added


def _check_sizes(width: int, depth: int, outputs: int = 1) -> None:
    for value, least, name in ((width, 1, "width"), (depth, 0, "depth"), (outputs, 1, "outputs")):
        check_at_least(value, least, name, "leave it out for the default")


class DenoisingMLP(Settings, nn.Module):
    """A denoiser's network for vectors and small images: a residual MLP conditioned on the log-SNR.

    Each block is that of :class:`MLP`, with a scale and a shift after its norm (FiLM) that depend on the
    embedded log-SNR and context. The output starts at zero, the mean of the usual targets.

    Args:
        shape: the shape of one event.
        width: the width of the hidden layers.
        depth: the number of residual blocks.
        dropout: the probability of dropout inside each block.
        fourier: exponents ``n`` of additional inputs ``sin(2^n pi z)`` and ``cos(2^n pi z)``. They show
            differences in ``z`` that are small against the data, which training on the bound needs
            (Kingma et al. 2021, appendix C).
        outputs: the number of output channels; that of ``shape`` by default.
        context: the kind of context, if any; ``n`` is short for ``Vectors(n)``.

    Reference: Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer" (2018), eq. 2.

    >>> network = DenoisingMLP((2,), width=32)
    >>> network(torch.randn(4, 2), torch.zeros(4)).shape  # z_t and its log-SNR
    torch.Size([4, 2])
    """

    def __init__(
        self,
        shape: Shape,
        *,
        width: int = 256,
        depth: int = 3,
        dropout: float = 0.0,
        fourier: tuple[int, ...] = (),
        outputs: int | None = None,
        context: Condition | int = 0,
    ) -> None:
        super().__init__()
        _check_sizes(width, depth)
        entries = size(shape)
        self.shape = (shape[0] if outputs is None else outputs, *shape[1:])
        self.features = FourierFeatures(fourier)
        self.time = nn.Sequential(Sinusoidal(64), nn.Linear(64, 64), nn.SiLU())
        self.embed = ContextEmbedding(context, 64)
        self.first = nn.Linear(entries * self.features.copies, width)
        self.films = nn.ModuleList(nn.Linear(64, 2 * width) for _ in range(depth))
        self.blocks = nn.ModuleList(ResidualBlock(width, dropout) for _ in range(depth))
        self.last = nn.Sequential(
            nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, size(self.shape))
        )
        for layer in [*self.films, self.last[-1]]:
            zero(layer)

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, *event)`` and ``(B,)`` to ``(B, outputs, *space)``."""
        level, embedding = self.time(log_snr), self.embed(context, len(z))
        level = level if embedding is None else level + embedding
        h = in_full(self.first, self.features(z.flatten(1)))
        for film, block in zip(self.films, self.blocks, strict=True):
            h = block(h, film(level))
        output: Tensor = self.last(h)
        return output.reshape(-1, *self.shape)
