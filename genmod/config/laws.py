"""Distributions of torch's as plain data: the name of the class, and its parameters."""

from __future__ import annotations

import inspect

import torch
from torch.distributions import Distribution

_KEPT_AS = {"base_distribution": "base_dist"}
"""Parameters that torch keeps under another name."""
_SAME = (("logits", "probs"), ("scale_tril", "covariance_matrix", "precision_matrix"))
"""Parameters of which a constructor takes one; the others may be cached beside it."""


def is_torch_law(value: object) -> bool:
    """Whether it is a distribution whose class is torch's own."""
    return isinstance(value, Distribution) and _torch_class(type(value).__name__) is type(value)


def law_parameters(law: Distribution) -> dict[str, object]:
    """The arguments that build a distribution of torch's again.

    >>> list(law_parameters(torch.distributions.Normal(0.0, 1.0)))
    ['loc', 'scale']
    """
    names = [name for name in inspect.signature(type(law).__init__).parameters if name != "self"]
    held = {name: getattr(law, _KEPT_AS.get(name, name)) for name in names if _is_held(law, name)}
    for group in _SAME:
        for extra in [name for name in group if name in held][1:]:
            del held[extra]
    return held


def law_class(name: str) -> type[Distribution]:
    """The class of torch's of a name.

    Raises:
        ValueError: no distribution of torch's.
    """
    found = _torch_class(name)
    if found is None:
        raise ValueError(
            f"got settings that name the law {name!r}; expected a class of torch.distributions; the file "
            "was written by something else, or is damaged"
        )
    return found


def _torch_class(name: str) -> type[Distribution] | None:
    found = getattr(torch.distributions, name, None)
    return found if isinstance(found, type) and issubclass(found, Distribution) else None


def _is_held(law: Distribution, name: str) -> bool:
    """Whether a parameter is an attribute, or a plain property of one; lazy properties are computed."""
    name = _KEPT_AS.get(name, name)
    return name in vars(law) or isinstance(inspect.getattr_static(law, name, None), property)
