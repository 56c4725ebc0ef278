"""The shapes of tensors, written once.

``B`` rows of a batch, ``L`` visited levels, ``*event`` whatever shape one sample has. The names are checked
at run time by the tests (jaxtyping with beartype).
"""

from __future__ import annotations

from typing import TypeAlias

from jaxtyping import Bool, Float, Shaped
from torch import Size, Tensor

Shape: TypeAlias = tuple[int, ...]
Sizes: TypeAlias = Size | list[int] | tuple[int, ...]
"""What torch's distributions take for a sample shape."""
PerSample: TypeAlias = Float[Tensor, "B"]
PerLevel: TypeAlias = Float[Tensor, "B L"]
Batch: TypeAlias = Shaped[Tensor, "B *event"]
Real: TypeAlias = Float[Tensor, "B *event"]
Mask: TypeAlias = Bool[Tensor, "B *event"]
LatentTensors: TypeAlias = Tensor | tuple[Tensor, ...]
"""One latent, or the latents of a hierarchy in the order in which its prior draws them."""
