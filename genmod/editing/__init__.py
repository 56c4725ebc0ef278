"""Editing: paths and arithmetic between codes of data, and SDEdit, which noises data part of the way.

A code is what :meth:`genmod.model.LatentModel.encode` returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from genmod.arrays import Context, Rows, as_context, as_mask, as_tensor
from genmod.checks import can_read, check_at_least, invalid, one_of
from genmod.chunks import chunks, rows_per_chunk
from genmod.distributions.base import mean_of
from genmod.editing.noise import sdedit as sdedit
from genmod.model import LatentModel
from genmod.nn.conditioning import is_null_context
from genmod.signatures import checked
from genmod.tensors import LatentTensors, Real, event_sum, expand_like

__all__ = ["interpolate", "latent_direction", "move", "sdedit"]


@torch.no_grad()
@checked
def interpolate(
    model: LatentModel,
    a: Rows,
    b: Rows,
    count: int,
    context: Context = None,
    *,
    path: str = "spherical",
    observed: Rows | None = None,
) -> Tensor:
    r"""Interpolate between data: encode both, go from code to code, decode.

    The codes of a diffusion are the noise that its probability flow maps data to, so the two ends are
    reconstructed up to the solver's error. Of every other model they are the means of ``q(z | x)``, of a
    hierarchy those of each level. The ends of a path are exactly the two codes.

    Args:
        model: the model.
        a: data as the model takes them, ``(B, *event)``.
        b: data of the same shape: row ``i`` of ``a`` is joined to row ``i`` of ``b``.
        count: the number of points on each path, the two ends among them.
        context: what the model is conditioned on: one label for all, a row for each pair, ``(B, ...)``, or
            a row for each of ``a``, then of ``b``, ``(2 B, ...)``. Between two vectors of numbers the
            context goes along a straight line. Between two labels it changes half-way.
        path: ``"spherical"``, along a great circle (slerp), which keeps the norm that draws of
            N(0, I) have; or ``"linear"``, along a straight line, which also suits codes near zero.
        observed: which entries are not missing, for the rows of ``a`` and then of ``b``,
            ``(2 B, *event)``.

    Returns:
        The decoder's means, ``(B, count, *event)``.

    Raises:
        ValueError: fewer than two points, data of different shapes, another path; contexts or a mask of
            another number of rows; a spherical path from a code that is zero, which has no direction.

    Reference: Song, Meng, Ermon, "Denoising diffusion implicit models" (2021), section 5.3 and appendix
    D.5; Shoemake, "Animating rotation with quaternion curves" (1985); White, "Sampling generative
    networks" (2016), section 2.1.

    >>> from genmod.models import VAE
    >>> model, x = VAE(3, latents=2), torch.randn(8, 3)
    >>> interpolate(model, x[:4], x[4:], 5, path="linear").shape
    torch.Size([4, 5, 3])
    """
    check_at_least(count, 2, "count", "the two ends are among them")
    one_of(("spherical", "linear"), path, "path")
    a, b = as_tensor(a, "a"), as_tensor(b, "b")
    if a.shape != b.shape:
        raise invalid(
            f"data of shapes {tuple(a.shape)} and {tuple(b.shape)}",
            "two batches of one shape",
            "row i of one is joined to row i of the other",
        )
    contexts = _ends_of("context", as_context(context, len(a)), len(a), shared=True)
    masks = _ends_of("observed", as_mask(observed), len(a))
    ends = [
        _tuple(model.encode(x, c, seen)) for x, c, seen in zip((a, b), contexts, masks, strict=True)
    ]
    means = []
    for weight in torch.linspace(0, 1, count).tolist():
        code = tuple(
            torch.lerp(start, end, weight) if path == "linear" else _arc(start, end, weight)
            for start, end in zip(*ends, strict=True)
        )
        law = model.decode(_code(code), _context_at(*contexts, weight))
        means.append(mean_of(law, "the decoder's law"))
    return torch.stack(means, 1)


def slerp(a: Real, b: Real, weight: float) -> Tensor:
    r"""The point between ``a`` (0) and ``b`` (1) on the great circle through both, row by row.

    .. math:: \frac{\sin((1 - w)\theta)}{\sin\theta} a + \frac{\sin(w\theta)}{\sin\theta} b,
        \qquad \cos\theta = \frac{\langle a, b\rangle}{\|a\|\,\|b\|}

    Between points of equal norm the norm stays the same. Noise lies near a sphere of radius
    :math:`\sqrt D`; half-way on a straight line the norm would be smaller by :math:`\sqrt 2`.

    Args:
        a: real vectors, ``(B, *event)``; the norm and the angle are those of the whole event.
        b: vectors of the same shape: row ``i`` of ``a`` is joined to row ``i`` of ``b``.
        weight: :math:`w`, the place on the arc, in [0, 1].

    Returns:
        A point for each row, ``(B, *event)``. Between equal or opposite directions it lies on the straight
        line.

    Raises:
        ValueError: whole numbers, or a row of zeros, which has no direction.

    Reference: Shoemake, "Animating rotation with quaternion curves" (1985), section 3.3.

    >>> slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5)
    tensor([[0.7071, 0.7071]])
    """
    for name, x in (("a", a), ("b", b)):
        if not x.is_floating_point():
            raise invalid(
                f"{name} of type {x.dtype}",
                "real vectors, because between whole numbers there is no circle",
                "interpolate the codes of the data: editing.interpolate(model, a, b, count)",
            )
        broken = int((x == 0).flatten(1).all(1).sum()) if can_read(x) else 0
        if broken != 0:
            raise invalid(
                f"{name} with {broken} rows of zeros",
                "vectors with a direction",
                'use a straight line: torch.lerp(a, b, weight), or interpolate(..., path="linear")',
            )
    # The angle by atan2 of sum and difference: acos(1 - 1e-8) in float32 is 0, where the angle is 1.4e-4.
    tiny = torch.finfo(a.dtype).tiny
    u, v = (x / expand_like(_norm(x).clamp(min=tiny), x) for x in (a, b))
    angle = 2 * torch.atan2(_norm(u - v), _norm(u + v))
    sine = angle.sin()
    # Directions that are equal (or opposite, where no circle is the shortest): a straight line.
    straight = sine.abs() < 10 * torch.finfo(a.dtype).eps
    left = torch.where(straight, 1 - weight, ((1 - weight) * angle).sin() / sine)
    right = torch.where(straight, weight, (weight * angle).sin() / sine)
    return expand_like(left, a) * a + expand_like(right, b) * b


@torch.no_grad()
@checked
def latent_direction(
    model: LatentModel,
    with_: Rows,
    without: Rows,
    context: Context = None,
    observed: Rows | None = None,
) -> LatentTensors:
    r"""Latent arithmetic: the direction from one group of data to another (an attribute vector).

    .. math:: d = \frac{1}{N} \sum_{x \in \text{with}} e(x) - \frac{1}{M} \sum_{x \in \text{without}} e(x)

    with the code :math:`e(x)` of :meth:`~genmod.model.LatentModel.encode`. :func:`move` adds it to data.
    Groups that also differ in something else give a direction of both: choose them alike in the rest.

    Args:
        model: any model with codes.
        with_: data that have the attribute, ``(N, *event)``.
        without: data that have not, ``(M, *event)``.
        context: what the model is conditioned on: one label for all, or a row for each of ``with_``,
            then of ``without``, ``(N + M, ...)``.
        observed: which entries are not missing, for the rows of ``with_`` and then of ``without``.

    Returns:
        A code without the batch axis, ``(*latent)``; of a top-down hierarchy a tuple, top level first.

    Reference: Larsen, Sonderby, Larochelle, Winther, "Autoencoding beyond pixels using a learned
    similarity metric" (2016), section 4.1; White, "Sampling generative networks" (2016), section 3.

    >>> from genmod.models import VAE
    >>> model, x = VAE(3, latents=2), torch.randn(8, 3)
    >>> direction = latent_direction(model, x[:4], x[4:])
    >>> move(model, x[:2], direction, [0.0, 0.5, 1.0]).shape
    torch.Size([2, 3, 3])
    """
    groups = as_tensor(with_, "with_"), as_tensor(without, "without")
    for name, group in zip(("with_", "without"), groups, strict=True):
        if len(group) == 0:
            raise invalid(f"{name} without a row", "at least one", "pass rows of the data")
    first, rest = (len(group) for group in groups)
    seen, given = as_mask(observed), as_context(context, first + rest)
    for name, each in (("observed", seen), ("context", given)):
        if each is not None and len(each) != first + rest:
            got = f"{name} of {len(each)} rows for {first} + {rest} rows"
            raise invalid(got, "a row for each", "put those of with_ before those of without")
    means = []
    for x, rows in zip(groups, (slice(first), slice(first, None)), strict=True):
        c, mask = (None if each is None else each[rows] for each in (given, seen))
        means.append(_mean_code(model, x, c, mask))
    return _code(tuple(a - b for a, b in zip(*means, strict=True)))


@torch.no_grad()
@checked
def move(
    model: LatentModel,
    x: Rows,
    direction: LatentTensors,
    strengths: Sequence[float] = (0.0, 1.0, 2.0),
    context: Context = None,
    observed: Rows | None = None,
) -> Tensor:
    """Move data along a direction of the latent space: encode, add, decode.

    Args:
        model: the model.
        x: data as the model takes them, ``(B, *event)``.
        direction: from :func:`latent_direction`, or one of your own, ``(*latent)``.
        strengths: factors of the direction: 0 gives the reconstruction, 1 the whole difference of the
            two groups, a negative one the other way.
        context: what the model is conditioned on, ``(B, ...)``.
        observed: which entries of ``x`` are not missing.

    Returns:
        The decoder's means, ``(B, len(strengths), *event)``.

    Raises:
        ValueError: a direction of another shape than a code; no strengths.
    """
    x = as_tensor(x)
    code, steps = _tuple(model.encode(x, context, observed)), _tuple(direction)
    expected, got = [tuple(z.shape[1:]) for z in code], [tuple(d.shape) for d in steps]
    if got != expected:
        advice = "pass what latent_direction returns for this model"
        raise invalid(f"a direction of shapes {got}", f"those of a code, {expected}", advice)
    if len(strengths) == 0:
        raise invalid("no strengths", "at least one number", "pass 1.0 for all of it")
    means = []
    for s in strengths:
        moved = tuple(z + s * d.to(z) for z, d in zip(code, steps, strict=True))
        means.append(model.decode(_code(moved), context).mean)
    return torch.stack(means, 1)


def _ends_of(
    name: str, rows: Tensor | None, pairs: int, shared: bool = False
) -> tuple[Tensor | None, Tensor | None]:
    """What belongs to the rows of ``a``, and to those of ``b``; with ``shared`` one row may serve both."""
    if rows is None:
        return None, None
    if shared and len(rows) == pairs:
        return rows, rows
    if len(rows) != 2 * pairs:
        raise invalid(
            f"{name} of {len(rows)} rows for {pairs} pairs",
            f"{pairs}, or {2 * pairs}" if shared else f"{2 * pairs}",
            "put those of a before those of b",
        )
    return rows[:pairs], rows[pairs:]


def _context_at(a: Tensor | None, b: Tensor | None, weight: float) -> Tensor | None:
    """The context at a point of a path. Labels and null contexts have no middle: the nearer end's."""
    if a is None or b is None or a is b:
        return a
    near = a if weight <= 0.5 else b
    if not a.is_floating_point():
        return near
    null = is_null_context(a) | is_null_context(b)
    return torch.where(null.reshape(-1, *[1] * (a.ndim - 1)), near, torch.lerp(a, b, weight))


def _mean_code(
    model: LatentModel, x: Tensor, context: Tensor | None, observed: Tensor | None
) -> tuple[Tensor, ...]:
    """The mean of the codes of all rows, level by level, without the codes of all rows at once."""

    def pieces() -> Iterator[tuple[Tensor, ...]]:
        for rows in chunks(len(x), rows_per_chunk(model.spec.shape, model.device)):
            c, seen = (None if each is None else each[rows] for each in (context, observed))
            yield tuple(z.double().sum(0) for z in _tuple(model.encode(x[rows], c, seen)))

    return tuple(torch.stack(sums).sum(0) / len(x) for sums in zip(*pieces(), strict=True))


def _arc(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """:func:`slerp`; between equal codes, such as those of a collapsed level, the code itself."""
    return a if can_read(a) and torch.equal(a, b) else slerp(a, b, weight)


def _norm(x: Tensor) -> Tensor:
    return event_sum(x.square()).sqrt()


def _tuple(code: LatentTensors) -> tuple[Tensor, ...]:
    return (code,) if isinstance(code, Tensor) else tuple(code)


def _code(parts: tuple[Tensor, ...]) -> LatentTensors:
    return parts if len(parts) > 1 else parts[0]
