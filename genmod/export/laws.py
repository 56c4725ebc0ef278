"""Outputs of exported parts: the tensors of a distribution, by name."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.distributions import Distribution, Independent

from genmod.distributions import Dirac, Normal
from genmod.distributions.joined import Joined, Rescaled


def law_outputs(law: Distribution) -> dict[str, Tensor]:
    """The mean of a distribution and its parameters, each by its name in the class.

    The mean is in the data's own units. So is the log-std of a Gaussian. Other parameters of a table's
    real columns are of the standardized columns.

    >>> import torch
    >>> list(law_outputs(Normal(torch.zeros(1, 2), torch.zeros(1, 2))))
    ['mean', 'log_std']
    """
    return {"mean": law.mean} | dict(_parameters(law))


def law_names(law: Distribution) -> dict[str, object]:
    """The kind of a distribution; of a table, the kind and the columns of each of its parts."""
    if isinstance(law, Rescaled):
        return law_names(law.base)
    if not isinstance(law, Joined):
        base = law.base_dist if isinstance(law, Independent) else law
        return {"class": type(base).__name__}
    parts = [
        {"prefix": _prefix(number), "columns": list(places), **law_names(part)}
        for number, (part, places) in enumerate(zip(law.parts, law.places, strict=True))
    ]
    return {"class": "Joined", "parts": parts}


def _parameters(law: Distribution, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(law, Rescaled):
        if isinstance(law.base, Normal):
            yield prefix + "log_std", law.base.log_std + law.scale.log()
        else:
            yield from _parameters(law.base, prefix)
    elif isinstance(law, Independent):
        yield from _parameters(law.base_dist, prefix)
    elif isinstance(law, Joined):
        for number, part in enumerate(law.parts):
            yield from _parameters(part, prefix + _prefix(number))
    elif isinstance(law, Normal | Dirac):
        # Its location is its mean, which is named apart.
        if prefix:
            yield prefix + "mean", law.mean
        if isinstance(law, Normal):
            yield prefix + "log_std", law.log_std
    else:
        for name, value in vars(law).items():
            if isinstance(value, Tensor):
                yield prefix + name.lstrip("_"), value
            elif isinstance(value, Distribution):
                yield from _parameters(value, f"{prefix}{name}.")


def _prefix(number: int) -> str:
    return f"law_{number}."
