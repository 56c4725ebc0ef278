"""Latent diffusion: a VAE whose prior is a diffusion over its latents, and the two stages of its training.

First the encoder and decoder are trained under N(0, I), then the prior on their latents. Any model with a
learned prior can be trained so.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod import random
from genmod.checks import instance, invalid
from genmod.chunks import chunks, rows_per_chunk
from genmod.diffusion import DiffusionPrior
from genmod.distributions.base import mean_of
from genmod.encoders import GaussianEncoder
from genmod.model import LatentModel
from genmod.models.autoencoders import VAE
from genmod.models.build import as_shape, check_condition, check_networks, stated_spec
from genmod.models.diffusion import Diffusion
from genmod.models.replace import find_diffusion, with_probability_flow
from genmod.models.sampling import DiffusionBased
from genmod.nn import ConvNets, Ignored, Networks
from genmod.nn.conditioning import Condition
from genmod.nn.modules import evaluation_mode
from genmod.priors import NestedPrior, NormalPrior
from genmod.spec import SpecLike
from genmod.tensors import Shape

_FLOW_STEPS = 16
"""Steps of the probability flow that importance weights of a latent diffusion take."""


class LatentDiffusion(DiffusionBased):
    r"""``p(x, z) = p(x | z) p(z)`` with a diffusion for ``p(z)``, scored by one bound:

    .. math:: \log p(x) \ge \mathbb{E}[\log p(x|z) - \log q(z|x) + \mathrm{ELBO}_{\text{diffusion}}(z)]

    The usual recipe has two stages: fit the autoencoding VAE (:meth:`first_stage`), then
    :meth:`freeze` it and fit the prior on its latents. Fitting the model as it is trains all parts
    jointly, on the plain bound.

    Args:
        spec: the data: a data set, a :class:`~genmod.spec.DataSpec`, or an event shape.
        bins: beside a shape, how many values integer data have; ``None`` for real data.
        latents: how many dimensions ``z`` has, or its shape, ``(channels, *space)``: then the
            diffusion over it is convolutional, too.
        width, depth, dropout, networks: of the VAE, see :class:`~genmod.models.VAE`.
        condition: what the diffusion is conditioned on, ``Labels(10)`` for example. The VAE ignores
            it, and its first stage needs none. Each method of the whole then needs ``context``.
        vae: an autoencoding VAE of your own, fitted or not. Under a condition it must accept the context,
            too, even if it ignores it: ``VAE(..., condition=Ignored())``.
        diffusion: a diffusion over ``z`` of your own, built with ``bins=None``.

    Raises:
        ValueError: the diffusion's shape is not the latent's, or the VAE's encoder is no Gaussian.

    Reference: Vahdat, Kreis, Kautz, "Score-based Generative Modeling in Latent Space" (2021), eq. 4;
    Rombach et al., "High-resolution image synthesis with latent diffusion models" (2022).
    """

    def __init__(
        self,
        spec: SpecLike | None = None,
        bins: int | None = None,
        *,
        latents: int | Shape = 32,
        width: int | None = None,
        depth: int | None = None,
        dropout: float = 0.0,
        networks: Networks | None = None,
        condition: Condition | None = None,
        vae: LatentModel | None = None,
        diffusion: LatentModel | None = None,
    ) -> None:
        check_condition(condition, diffusion)
        if vae is not None:
            settings = {"width": width, "depth": depth, "dropout": dropout, "networks": networks}
            check_networks(False, settings)
            stated_spec(spec, bins, instance(vae, LatentModel, "vae").decoder)
        vae = vae or VAE(
            spec,
            bins,
            latents=latents,
            width=width,
            depth=depth,
            dropout=dropout,
            networks=networks,
            condition=None if condition is None else Ignored(),
        )
        if not isinstance(vae.encoder, GaussianEncoder):
            raise invalid(
                f"a VAE with a {type(vae.encoder).__name__} encoder",
                "a Gaussian one over one latent",
                "pass VAE(...), not a hierarchy or a diffusion",
            )
        code = vae.encoder.latent_shape
        assert code is not None
        if as_shape(latents) not in (code, (32,)):
            raise invalid(
                f"latents={latents} beside a VAE over latents of shape {code}",
                "one or the other",
                "leave latents out",
            )
        if diffusion is None:
            kind = ConvNets() if len(code) > 1 else None
            diffusion = Diffusion(code, networks=kind, condition=condition)
        if instance(diffusion, LatentModel, "diffusion").decoder.shape != code:
            raise invalid(
                f"a diffusion over {diffusion.decoder.shape}",
                f"one over the latent's shape {code}",
                "build it with Diffusion(shape=(latents,))",
            )
        super().__init__(vae.encoder, vae.decoder, NestedPrior(diffusion))

    @property
    def nested(self) -> NestedPrior:
        """The prior: a nested one."""
        assert isinstance(self.prior, NestedPrior)
        return self.prior

    @property
    def diffusion(self) -> DiffusionPrior:
        """The prior of the diffusion over the latent."""
        return find_diffusion(self)

    def draw_from(self, state: Tensor, context: Tensor | None = None) -> Tensor:
        """A draw of ``x`` for each ``z_0`` of the diffusion: first the latent, then the data."""
        z = random.draw(self.nested.law(state, context), gradients=False)
        return self.draw(z, context)

    def weighable(self) -> LatentModel:
        """Itself with finitely many latents; in continuous time, with the probability flow's density."""
        if self.diffusion.steps is not None:
            return self
        return with_probability_flow(self, _FLOW_STEPS)

    def first_stage(self) -> LatentModel:
        """The same encoder and decoder under a standard normal prior."""
        return first_stage(self)

    def freeze(
        self, x: Tensor, context: Tensor | None = None, observed: Tensor | None = None
    ) -> LatentDiffusion:
        """End the first stage: freeze the encoder and the decoder.

        Latents are standardized before they enter the diffusion, by the mean and the standard deviation
        that ``q`` gives them over ``x``. Both are measured in evaluation mode on the model's device.

        Args:
            x: data, enough of them to measure a standard deviation.
            context: what the encoder is conditioned on.
            observed: which entries of ``x`` count; ``None``: all.
        """
        freeze_first_stage(self, x, context, observed)
        return self

    def fixed(self) -> Iterator[nn.Module]:
        """The parts that the first stage trains and the second leaves alone."""
        yield self.encoder
        yield self.decoder


def first_stage(model: LatentModel) -> LatentModel:
    """The same encoder and decoder under a standard normal prior."""
    return LatentModel(model.encoder, model.decoder, NormalPrior(model.prior.shape))


def check_two_stages(model: LatentModel) -> None:
    """Require a model whose prior can be trained after its encoder and decoder.

    Raises:
        ValueError: a prior without parameters of its own; a hierarchy whose posterior runs top-down.
    """
    kind, prior = type(model).__name__, model.prior
    apart = {id(p) for part in (model.encoder, model.decoder) for p in part.parameters()}
    if not any(p.requires_grad and id(p) not in apart for p in prior.parameters()):
        raise invalid(
            f"stages='two-stage' for a {kind} whose {type(prior).__name__} has no parameters of "
            "its own",
            "a learned prior",
            "leave stages out, or pass a prior such as priors.MixturePrior(10)",
        )
    if model.encoder.latent_shape != prior.shape:
        raise invalid(
            f"stages='two-stage' for a {kind} whose encoder gives no single latent",
            "one latent, whose prior is learned in the second stage",
            "leave stages out",
        )


@torch.no_grad()
def freeze_first_stage(
    model: LatentModel, x: Tensor, context: Tensor | None = None, observed: Tensor | None = None
) -> None:
    """End the first stage: the encoder and decoder stay as they are from now on.

    A nested model then gets latents with the mean and spread that ``q`` gives them over ``x``, measured
    in evaluation mode on the model's device.

    Args:
        model: the model.
        x: data, enough of them to measure a spread.
        context: what the encoder is conditioned on.
        observed: which entries of ``x`` count; ``None``: all.
    """
    if isinstance(model.prior, NestedPrior):
        model.prior.standardize(*latent_moments(model, x, context, observed))
    for part in (model.encoder, model.decoder):
        part.requires_grad_(False)


@torch.no_grad()
def latent_moments(
    model: LatentModel, x: Tensor, context: Tensor | None = None, observed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of each entry of the aggregate posterior over data."""
    model.spec.check(x, observed)
    device, chunk = model.device, rows_per_chunk(model.spec.shape, model.device)

    def cut(each: Tensor | None, rows: slice) -> Tensor | None:
        return None if each is None else each[rows].to(device)

    means, variances = [], []
    with evaluation_mode(model):
        for rows in chunks(len(x), chunk):
            q = model.posterior(x[rows].to(device), cut(context, rows), cut(observed, rows))
            assert isinstance(q, Distribution)
            means.append(mean_of(q, "the posterior"))
            variances.append(q.variance)
    mean = torch.cat(means)
    total = mean.var(0, correction=0) + torch.cat(variances).mean(0)
    return mean.mean(0), total.sqrt()
