r"""A model as a Pyro pair: the program ``p(x, z)`` and its guide ``q(z | x)``.

The program runs the generator :meth:`genmod.prior.Prior.generate`, the guide
:meth:`genmod.prior.Prior.infer`, as the bound and the importance weights do. So path by path

.. math:: \log p(x, z) - \log q(z | x) = \text{our sampled bound at the same } z

and Pyro's ``Trace_ELBO`` of the pair is :meth:`genmod.model.LatentModel.log_weight`.

``TraceMeanField_ELBO`` puts a closed :math:`\mathrm{KL}(q_l \| p_l)` in place of each log-ratio. The KL
averages over :math:`z_l` and holds fixed what ``p_l`` is conditioned on. That is right only if the guide
drew none of it from :math:`z_l`.

* **Alignment** (VAE, top-down hierarchy, diffusion): the condition holds. The guide is in the
  generative order, :math:`q(z_T|x) \prod q(z_s|z_t, x)`, and each level stands beside
  :math:`p(z_s|z_t)` given the same :math:`z_t`. (A diffusion's guide written as the forward chain,
  :math:`q(z_1|x)\,q(z_2|z_1) \cdots`, would be the same joint law. ``TraceMeanField_ELBO`` would then
  average over :math:`z_1` at a :math:`z_2` that was drawn from :math:`z_1`: not the bound.)
* **Nesting** (bottom-up hierarchy, latent diffusion): the guide draws :math:`z_1` first, the
  program last. ``Trace_ELBO`` is right, ``TraceMeanField_ELBO`` is not (Pyro warns of the order).

Draws inside Pyro follow torch's generator, not :func:`genmod.random.keyed`.

Reference: Bingham et al., "Pyro: Deep Universal Probabilistic Programming" (2019). The
documentation of ``pyro.infer.TraceMeanField_ELBO`` states the condition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import singledispatch
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

try:
    import pyro
    from pyro import distributions as dist
    from pyro.distributions.torch_distribution import TorchDistributionMixin
    from pyro.params import param_with_module_name
except ImportError as missing:
    raise ImportError(
        "got no Pyro; expected the optional package pyro-ppl, which genmod.interop.pyro builds on; "
        "install it with: pip install 'genmod-torch[pyro]'"
    ) from missing

from genmod import distributions
from genmod.checks import invalid
from genmod.distributions.divergence import closed_kl
from genmod.elbo import Measure
from genmod.model import LatentModel
from genmod.path import Latent, run_path
from genmod.tensors import Shape

__all__ = ["PyroPair", "as_pyro", "to_pyro"]

PLATE, DATA = "data", "x"  # the plate of the rows of a batch, and the site of the data


class Program(Protocol):
    """A Pyro program over a batch ``(B, *event)`` and the context beside it."""

    def __call__(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Run it."""
        ...


class PyroPair(NamedTuple):
    """What Pyro's inference takes: ``SVI(pair.model, pair.guide, optimizer, Trace_ELBO())``."""

    model: Program
    """The prior's latents from the top down, then ``x``, which it returns."""
    guide: Program
    """The latents as the posterior draws them; returns the decoder's state."""


def to_pyro(model: LatentModel, name: str = "genmod") -> PyroPair:
    """The model as a Pyro program and its guide, over the model's own parameters.

    Sites are named as the prior names its levels (``"prior"``, ``"z3"``, ``"latent"``); the data
    are the site ``"x"``, every row in the plate ``"data"``. Parameters with gradients are put
    into Pyro's store, so that ``SVI`` trains the module in place.

    Args:
        model: any model with a bound and finitely many latents.
        name: what the parameters are called in Pyro's store, which is global: one name a model.

    Returns:
        Two callables of ``(x, context=None)``.

    Raises:
        ValueError: the model bounds nothing (an autoencoder). When the programs run: data that the
            decoder refuses, a diffusion in continuous time, two latents of one name, another model
            in the store under the same name.

    Reference: Bingham et al. (2019).

    >>> from genmod.models import VAE
    >>> from pyro.infer import Trace_ELBO
    >>> x = torch.zeros(5, 8, dtype=torch.long)
    >>> pair = to_pyro(VAE(8, bins=2, latents=2))
    >>> loss = Trace_ELBO().loss(pair.model, pair.guide, x)  # minus the bound, summed over the rows
    """
    if model.measure is Measure.NONE:
        raise invalid(
            f"a {type(model).__name__} that bounds nothing (its measure is NONE)",
            "a model with a proper prior",
            "use a VAE: an autoencoder has no generative program",
        )

    def generate(x: Tensor, context: Tensor | None = None) -> Tensor:
        with _rows(model, name, x) as sites:
            path = model.prior.generate(len(x), context)
            state = run_path(path, lambda step: sites.latent(*step))
            return sites.data(model.law(state, context), x)

    def infer(x: Tensor, context: Tensor | None = None) -> Tensor:
        with _rows(model, name, x) as sites:
            return run_path(model.prior.infer(model.posterior(x, context), context), sites.infer)

    return PyroPair(generate, infer)


# ---------------------------------------------------------------------------- sites and parameters


class _Sites:
    """The sites of one run of a program: each named once, each a draw a row."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.drawn: dict[str, Tensor] = {}

    def latent(self, name: str, law: Distribution) -> Tensor:
        """Draw a latent, or take the value that Pyro gives it."""
        if name in self.drawn or name in (DATA, PLATE):
            raise invalid(
                f"a second site named {name!r} (latents so far: {', '.join(self.drawn) or 'none'})",
                f"a name of its own for each latent, none of them {DATA!r} or {PLATE!r}",
                "pass another name= to one of the priors",
            )
        z: Tensor = pyro.sample(name, as_pyro(law))
        expected = (self.rows, *law.event_shape)
        if tuple(z.shape) != expected:
            raise invalid(
                f"a value of shape {tuple(z.shape)} for {name!r}",
                f"{expected}, one event a row",
                "leave Pyro's vectorize_particles and enumeration off: rows are the only batch",
            )
        self.drawn[name] = z
        return z

    def infer(self, level: Latent) -> Tensor:
        """Draw a latent from its posterior, unless it was drawn before and only its prior is given here."""
        if level.q is None:
            return self.drawn[level.name]
        return self.latent(level.name, level.q)

    def data(self, law: Distribution, x: Tensor) -> Tensor:
        """Observe the data."""
        observed: Tensor = pyro.sample(DATA, as_pyro(law), obs=x)
        return observed


@contextmanager
def _rows(model: LatentModel, name: str, x: Tensor) -> Iterator[_Sites]:
    """The plate over the rows of a batch that was checked, the model's parameters registered."""
    model.decoder.check(x)
    _register(model, name)
    with pyro.plate(PLATE, len(x), dim=-1):
        yield _Sites(len(x))


def _register(model: LatentModel, name: str) -> None:
    """Put the trainable parameters into Pyro's store, under the names ``pyro.module`` gives them.

    ``pyro.module`` itself warns of every frozen parameter at each step, but does not warn when the
    store holds another model of the same name: ``SVI`` would then train that one.
    """
    for path, value in model.named_parameters():
        if not value.requires_grad:
            continue
        key = param_with_module_name(name, path)
        if pyro.param(key, value) is not value:
            raise invalid(
                f"a parameter store whose {key!r} is not this model's own",
                "one name in the store for each model",
                "pass to_pyro(model, name=...), or call pyro.clear_param_store() first",
            )


# ---------------------------------------------------------------------------- distributions


@singledispatch
def as_pyro(law: Distribution) -> Distribution:
    """A distribution, one event a row, as one of Pyro's.

    Ours become Pyro's own where Pyro has the family; any other is wrapped (:class:`Adapted`). A
    family of your own joins by ``as_pyro.register``.

    Args:
        law: batch shape ``(B,)``, or empty where each row has the same (the plate expands it).

    >>> as_pyro(distributions.Normal(torch.zeros(2, 3), torch.zeros(2, 3))).event_shape
    torch.Size([3])
    """
    return Adapted(law)


@as_pyro.register(TorchDistributionMixin)
def _native(law: Distribution) -> Distribution:
    return law


@as_pyro.register
def _normal(law: distributions.Normal) -> Distribution:
    normal: Distribution = dist.Normal(law.mean, law.stddev).to_event(len(law.event_shape))
    return normal


@as_pyro.register
def _bernoulli(law: distributions.Bernoulli) -> Distribution:
    bits: Distribution = Bits(logits=law.logits).to_event(len(law.event_shape))
    return bits


@as_pyro.register
def _categorical(law: distributions.Categorical) -> Distribution:
    categorical: Distribution = dist.Categorical(logits=law.logits).to_event(len(law.event_shape))
    return categorical


class Bits(dist.Bernoulli):
    """Pyro's Bernoulli for bits of any type: its own refuses integers."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The log mass of each bit."""
        nats: Tensor = super().log_prob(value.to(self.logits.dtype))
        return nats


class Adapted(dist.TorchDistribution):
    """Any distribution of torch's under Pyro's protocol; its KLs stay those of torch's registry.

    Args:
        base: the distribution.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, base: Distribution) -> None:
        self.base = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:
        """Whether its draws carry gradients."""
        return self.base.has_rsample

    @property
    def support(self) -> constraints.Constraint | None:
        """The support of the base."""
        return self.base.support

    def expand(
        self, batch_shape: Sequence[int], _instance: Distribution | None = None
    ) -> Distribution:
        """The same law for each row: the base's own expansion, or Pyro's where it has none."""
        if tuple(batch_shape) == tuple(self.batch_shape):
            return self
        try:
            return Adapted(self.base.expand(torch.Size(batch_shape)))
        except NotImplementedError:
            rows: Distribution = super().expand(torch.Size(batch_shape))
            return rows

    def sample(self, sample_shape: torch.Size | Shape = ()) -> Tensor:
        """A draw without gradients."""
        return self.base.sample(torch.Size(sample_shape))

    def rsample(self, sample_shape: torch.Size | Shape = ()) -> Tensor:
        """A draw with gradients."""
        return self.base.rsample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """``log p`` of each row."""
        return self.base.log_prob(value)


def _kl_adapted(q: Distribution, p: Distribution) -> Tensor:
    return closed_kl(*(law.base if isinstance(law, Adapted) else law for law in (q, p)))


for pair in ((Adapted, Adapted), (Adapted, Distribution), (Distribution, Adapted)):
    register_kl(*pair)(_kl_adapted)
