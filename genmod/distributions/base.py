"""Distributions over one event a row, and functions on distributions that the bound uses."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.utils.hooks import RemovableHandle

from genmod.checks import can_read, invalid
from genmod.tensors import PerSample, Shape, Sizes, event_sum, expand_like


class Factorized(Distribution, ABC):
    """A distribution whose entries are independent given its parameters.

    The first dimension of its parameters is the batch ``(B,)``. All others form one event. A subclass
    gives the log-probability of each entry, and this class sums it over the event. Parameters are not
    validated, because validation at every training step makes a GPU wait (see :mod:`genmod.checks`).

    Args:
        shape: the shape of the parameters, ``(B, *event)``.
    """

    has_rsample = False
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, shape: torch.Size) -> None:
        super().__init__(shape[:1], shape[1:], validate_args=False)

    @property
    def factorizes(self) -> bool:
        """Whether ``log_prob`` is the sum of ``elementwise``."""
        return type(self).log_prob is Factorized.log_prob

    @abstractmethod
    def elementwise(self, x: Tensor) -> Tensor:
        """``log p`` of each entry, ``(B, *event)``, in nats."""

    def log_prob(self, value: Tensor) -> Tensor:
        """``log p`` of each row, ``(B,)``, in nats: the sum over its entries."""
        return event_sum(self.elementwise(value))

    def refuse_extra(self, sample_shape: Sizes) -> None:
        """Refuse a ``sample_shape``: there is one draw for each row of the parameters."""
        refuse_sample_shape(sample_shape)


def refuse_sample_shape(sample_shape: Sizes) -> None:
    """Refuse a ``sample_shape``: a law here gives one draw for each row of its parameters.

    Raises:
        ValueError: it is not empty.
    """
    if len(sample_shape) > 0:
        raise invalid(
            f"sample_shape={tuple(sample_shape)}",
            "an empty sample shape",
            "repeat the rows of the parameters instead",
        )


def check_parameters(law: Distribution, *parameters: Tensor) -> None:
    """Require parameters without NaN, before integers are drawn from them.

    A draw compares or rounds its parameters, which turns NaN into an integer that looks valid. Infinite
    parameters are allowed: they are limits, such as a probability of zero.

    Raises:
        ValueError: a parameter is NaN.
    """
    for parameter in parameters:
        if not can_read(parameter):
            return
        broken = int(parameter.isnan().sum())
        if broken > 0:
            raise invalid(
                f"{broken} parameters of {type(law).__name__} that are NaN",
                "parameters without NaN",
                "the network that gives them has diverged: load earlier weights, or train with a "
                "lower learning rate",
            )


def is_factorized(distribution: Distribution) -> bool:
    """Whether ``log_prob`` is the sum of ``elementwise``. A subclass may have redefined ``log_prob``."""
    return isinstance(distribution, Factorized) and distribution.factorizes


def elementwise(distribution: Distribution, x: Tensor) -> Tensor:
    """``log p`` of each entry of ``x``, for a distribution that factorizes over the entries."""
    if isinstance(distribution, Factorized) and is_factorized(distribution):
        return distribution.elementwise(x)
    base = distribution
    while isinstance(base, Independent) and type(base).log_prob is Independent.log_prob:
        base = base.base_dist
    if base.event_shape:
        raise invalid(
            f"{distribution}",
            "a distribution that factorizes over the entries of x",
            "observed=... leaves single entries out of the bound: use a decoder whose entries are "
            "independent given z, such as decoders.GaussianDecoder",
        )
    return base.log_prob(x)


def masked_log_prob(distribution: Distribution, x: Tensor, observed: Tensor | None) -> PerSample:
    """``log p`` of the observed entries of each row, ``(B,)``; of all entries without a mask."""
    if observed is None:
        return distribution.log_prob(x)
    return event_sum(torch.where(observed, elementwise(distribution, x), 0.0))


class Laws(dict[str, Distribution]):
    """Distributions by the name of their latent."""

    def detached(self) -> Laws:
        """The same laws, with parameters detached from autograd."""
        return Laws({name: detached(law) for name, law in self.items()})


class Draws:
    """The draws of a path, each as two tensors of one value, between which gradients can be changed.

    ``first[name]`` is the draw as it left its law q. ``later[name]`` is what later latents and the decoder
    got. A gradient on its way from ``later`` back to ``first`` can be multiplied, or stopped: estimators
    of gradients are built on this. Both are ``(K B, *event)``.
    """

    def __init__(self) -> None:
        self.first: dict[str, Tensor] = {}
        self.later: dict[str, Tensor] = {}
        self._hooks: list[RemovableHandle] = []

    def add(self, name: str, z: Tensor) -> Tensor:
        """Keep a draw, and return the tensor for everything that depends on it."""
        self.first[name] = z
        self.later[name] = z.view_as(z) if z.requires_grad else z
        return self.later[name]

    def scale_gradients(self, factor: Tensor) -> None:
        """Multiply gradients on their way back into the draws by one number for each, ``(K B,)``."""
        self._change(lambda gradient: gradient * expand_like(factor, gradient))

    def stop_gradients(self) -> None:
        """Let no gradient pass on its way back into the draws."""
        self._change(torch.zeros_like)

    def _change(self, change: Callable[[Tensor], Tensor]) -> None:
        for hook in self._hooks:
            hook.remove()
        changed = (z for z in self.later.values() if z.requires_grad)
        self._hooks = [z.register_hook(change) for z in changed]


def detached(law: Distribution) -> Distribution:
    """The same law, with parameters detached from autograd."""
    return moved(law, Tensor.detach)


def mean_of(law: Distribution, name: str) -> Tensor:
    """The mean of a law, refused where the law has no formula for it.

    Args:
        law: the law.
        name: what the message calls it, such as ``"the decoder's law"``.
    """
    try:
        mean: Tensor = law.mean
    except NotImplementedError:
        raise invalid(
            f"a {type(law).__name__} without a mean as {name}",
            "a law with one, because codes and reconstructions are means",
            "define the property mean in a subclass of it",
        ) from None
    return mean


def moved(law: Distribution, function: Callable[[Tensor], Tensor]) -> Distribution:
    """The same law with a function applied to each of its tensors, such as ``Tensor.detach``."""
    copied = copy.copy(law)
    vars(copied).update({name: _map(value, function) for name, value in vars(law).items()})
    return copied


def _map(value: object, function: Callable[[Tensor], Tensor]) -> object:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Distribution):
        return moved(value, function)
    if isinstance(value, dict) and all(isinstance(each, Tensor) for each in value.values()):
        return {name: function(each) for name, each in value.items()}
    if isinstance(value, tuple) and all(isinstance(each, Distribution) for each in value):
        return tuple(_map(each, function) for each in value)
    if isinstance(value, list) and all(
        isinstance(each, torch.distributions.Transform) for each in value
    ):
        return [_map_transform(each, function) for each in value]
    return value


def _map_transform(transform: object, function: Callable[[Tensor], Tensor]) -> object:
    copied = copy.copy(transform)
    vars(copied).update({name: _map(value, function) for name, value in vars(transform).items()})
    return copied


def has_mass(law: Distribution) -> bool | None:
    """Whether a law is a probability mass on discrete values; ``None``: it does not state its support."""
    try:
        support = law.support
    except NotImplementedError:
        return None
    return None if support is None else bool(support.is_discrete)


def check_law(
    law: object, rows: int, shape: Shape, name: str, shared: bool = False, mass: bool = False
) -> None:
    """Require a law of batch shape ``(rows,)`` and event shape ``shape``, so that log p is ``(rows,)``.

    A law that lacks ``Independent`` gives one number for each entry. Torch then broadcasts ``(rows,)``
    against ``(rows, D)``, without an error if ``rows == D``.

    Args:
        law: the distribution that a part returned.
        rows: how many samples the batch has.
        shape: the event shape of one sample.
        name: what the message calls the law, such as ``"the decoder's law"``.
        shared: whether one law for all rows, of batch shape ``()``, is accepted too: for priors.
        mass: whether a density is refused: bits per dimension of integers are the logarithm of a mass.

    Raises:
        ValueError: another batch shape or event shape; a density for integers; no distribution.

    >>> plain = torch.distributions.Normal(torch.zeros(3, 2), 1.0)
    >>> check_law(plain, 3, (2,), "the law")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: got the law with batch shape (3, 2) and event shape (); ...
    """
    if not isinstance(law, Distribution):
        raise invalid(
            f"{name} of type {type(law).__name__}",
            "a torch.distributions.Distribution",
            "return a distribution over one event a row",
        )
    batch, event = law.batch_shape, law.event_shape
    if event == shape and (batch == (rows,) or (shared and batch == ())):
        if mass and not torch.compiler.is_compiling() and has_mass(law) is False:
            raise invalid(
                f"a density for integers, {type(law).__name__}, as {name}",
                "a probability mass",
                "return a law of integers, such as Independent(Categorical(logits=...), 1), or "
                "describe the data as real numbers",
            )
        return
    expected = f"({rows},)" + (" or ()" if shared else "")
    raise invalid(
        f"{name} with batch shape {tuple(batch)} and event shape {tuple(event)}",
        f"batch shape {expected} and event shape {tuple(shape)}",
        _law_advice(law, rows, shape, shared),
    )


def _law_advice(law: Distribution, rows: int, shape: Shape, shared: bool) -> str:
    """The advice that makes the law one of ``rows`` events of shape ``shape``."""
    missing = len(shape) - len(law.event_shape)
    whole = tuple(law.batch_shape) + tuple(law.event_shape)
    right = {(rows, *shape)} | ({tuple(shape)} if shared else set())
    if missing > 0 and whole in right:
        return f"wrap it: torch.distributions.Independent(law, {missing})"
    return (
        "give its parameters one row a sample, and wrap the event's dimensions in "
        f"torch.distributions.Independent(law, {len(shape)}) where the law treats them one by one"
    )
