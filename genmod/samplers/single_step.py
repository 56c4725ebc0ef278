r"""Samplers without memory, one evaluation a step: the base class, the generative chain, and DDIM.

The chain draws :math:`z_s \sim p(z_s | z_t) = q(z_s | z_t, x = \hat x(z_t))`, step by step. DDIM is the
probability flow at :math:`\eta = 0`, that chain at :math:`\eta = 1`, and has more noise above 1.

Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eqs. 6-7, algorithm 2;
Song, Meng, Ermon, "Denoising Diffusion Implicit Models" (2021), eqs. 12 and 16.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from genmod import random
from genmod.checks import check_at_least, invalid
from genmod.denoisers import Denoised, Denoiser
from genmod.diffusion.reverse import ReverseProcess
from genmod.diffusion.variances import FixedSmall, ReverseVariance
from genmod.samplers.base import Denoise, Sampler, State, intervals
from genmod.schedules import Schedule


class SingleStep(Sampler):
    r"""The base class of samplers without memory: a step needs only the state and its ``x_hat``.

    A sampler of your own implements one method on tensors, :meth:`update`. This one is DDIM:

    >>> from genmod.denoisers import GaussianDenoiser
    >>> from genmod.schedules import Cosine
    >>> class MyDDIM(SingleStep):
    ...     def update(self, z_t, x_hat, t, s):
    ...         (alpha_t, sigma_t), (alpha_s, sigma_s) = map(self.schedule.scales, (t, s))
    ...         eps_hat = (z_t - alpha_t * x_hat) / sigma_t
    ...         return alpha_s * x_hat + sigma_s * eps_hat
    >>> normal = GaussianDenoiser(torch.zeros(2), torch.eye(2))
    >>> MyDDIM(normal, Cosine()).run(torch.ones(1, 2), torch.linspace(1, 0, 101)).shape
    torch.Size([1, 2])
    """

    @abstractmethod
    def update(self, z_t: Tensor, x_hat: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The state at ``s`` from the state at ``t``.

        Args:
            z_t: the state, ``(B, *event)``, in the schedule's own scale.
            x_hat: the denoiser's mean of the data there, ``(B, *event)``.
            t: the time of ``z_t``, shaped to broadcast against it, so that
                ``alpha, sigma = self.schedule.scales(t)`` can be multiplied with it for any event shape.
                It is in float64. The result may be too: it is cast to the type of ``z_t``.
            s: the time to go to, likewise.
        """

    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        for t, s in intervals(times, z):
            x_hat = denoise(z, t).x_hat
            moved = self.update(z, x_hat, t, s)
            if not isinstance(moved, Tensor) or moved.shape != z.shape:
                shape = tuple(moved.shape) if isinstance(moved, Tensor) else None
                raise invalid(
                    f"a {type(moved).__name__} of shape {shape} from {self}.update",
                    f"a state of the shape of z_t, {tuple(z.shape)}",
                    "use factors that broadcast against z_t, as schedule.scales(t), and return the state",
                )
            z = moved.to(z.dtype)
            yield State(s, z, x_hat)


class Ancestral(Sampler):
    r"""Ancestral sampling, DDPM's sampler: draw each state from the reverse step.

    .. math:: p(z_s | z_t) = \mathcal{N}(\mu(z_t, \hat x),\ \tilde\sigma^2 I), \qquad
        \mu = \frac{\alpha_t \sigma_s^2}{\alpha_s \sigma_t^2} z_t
        + \alpha_s \left(1 - \frac{\mathrm{SNR}_t}{\mathrm{SNR}_s}\right) \hat x

    With the times and the variance of a model this is the model's generative process, whose bound is
    ``model.elbo``. It needs many steps, some hundred; with fewer, use :class:`~genmod.samplers.DPMSolver`.

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        variance: :math:`\tilde\sigma^2`; the posterior's (:class:`~genmod.diffusion.FixedSmall`) by
            default.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eqs. 6-7, algorithm 2.

    >>> import torch
    >>> from genmod.denoisers import GaussianDenoiser
    >>> from genmod.samplers import UniformTime
    >>> from genmod.schedules import Cosine
    >>> normal = GaussianDenoiser(torch.zeros(2), torch.eye(2))
    >>> sampler = Ancestral(normal, Cosine())
    >>> times = UniformTime().times(sampler.schedule, steps=100)
    >>> sampler.run(torch.randn(16, 2), times).shape
    torch.Size([16, 2])
    """

    stochastic = True

    def __init__(
        self,
        denoiser: Denoiser | None = None,
        schedule: Schedule | None = None,
        variance: ReverseVariance | None = None,
    ) -> None:
        super().__init__(denoiser, schedule)
        self.variance = variance or FixedSmall()

    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        for t, s in intervals(times, z):
            denoised = denoise(z, t)
            z = self.draw(z, denoised, t, s)
            yield State(s, z, denoised.x_hat)

    def draw(self, z_t: Tensor, denoised: Denoised, t: Tensor, s: Tensor) -> Tensor:
        """A draw of ``p(z_s | z_t)``, given what the denoiser returned for ``z_t``."""
        reverse = ReverseProcess(self.denoiser, self.schedule, self.variance)
        times = (time.reshape(-1).expand(len(z_t)) for time in (t, s))
        law = reverse.law_given(denoised, z_t, *times)
        return (law.mean + law.stddev * random.normal_like(z_t)).to(z_t.dtype)

    def extra_repr(self) -> str:
        return f"variance={self.variance}"


class DDIM(SingleStep):
    r"""DDIM: deterministic at ``eta = 0``; with fresh noise above. The marginals do not depend on it.

    .. math:: z_s = \alpha_s \hat x + \sqrt{\sigma_s^2 - v}\, \hat\varepsilon + \sqrt v\, \varepsilon,
        \qquad v = \eta^2 \sigma_s^2 \left(1 - \frac{\mathrm{SNR}_t}{\mathrm{SNR}_s}\right)

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        eta: 0 is Euler's method on the probability flow; 1 is :class:`Ancestral` with the posterior's
            variance. More is possible while :math:`v \le \sigma_s^2`, that is, with short steps.

    Raises:
        ValueError: a negative ``eta``; on a path, an ``eta`` too large for its steps.

    Reference: Song, Meng, Ermon, "Denoising Diffusion Implicit Models" (2021), eqs. 12 and 16.

    >>> import torch
    >>> from genmod.denoisers import GaussianDenoiser
    >>> from genmod.schedules import Cosine
    >>> normal = GaussianDenoiser(torch.zeros(2), torch.eye(2))
    >>> z_1 = torch.tensor([[1.0, -1.0]])
    >>> DDIM(normal, Cosine()).run(z_1, torch.linspace(1, 0, 1001)).round(decimals=2)
    tensor([[ 1., -1.]])
    """

    def __init__(
        self,
        denoiser: Denoiser | None = None,
        schedule: Schedule | None = None,
        *,
        eta: float = 0.0,
    ) -> None:
        super().__init__(denoiser, schedule)
        check_at_least(eta, 0, "eta", "0 is deterministic, 1 ancestral")
        self.eta = eta
        self.stochastic = eta > 0

    def update(self, z_t: Tensor, x_hat: Tensor, t: Tensor, s: Tensor) -> Tensor:
        r"""The formula above, with :math:`\hat\varepsilon = (z_t - \alpha_t \hat x) / \sigma_t`."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = map(self.schedule.scales, (t, s))
        h = 0.5 * (self.schedule.log_snr(s) - self.schedule.log_snr(t))
        kept, std = shares(h, self.eta)
        factor = kept * sigma_s / sigma_t
        z_s = factor * z_t + (alpha_s - factor * alpha_t) * x_hat
        return z_s + sigma_s * std * random.normal_like(z_t) if self.stochastic else z_s

    def extra_repr(self) -> str:
        return f"eta={self.eta:g}"


def shares(h: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    r"""Of :math:`\sigma_s`, the shares of old noise, :math:`\sqrt{1 - \eta^2 c}`, and of fresh noise,
    :math:`\eta \sqrt c`, with :math:`c = 1 - \mathrm{SNR}_t / \mathrm{SNR}_s = 1 - e^{-2h}`.

    Raises:
        ValueError: ``eta`` is too large for one of the steps.
    """
    if eta == 0:
        return torch.ones_like(h), torch.zeros_like(h)
    fresh = -torch.expm1(-2 * h)
    if eta > 1 and not bool((eta**2 * fresh <= 1).all()):
        raise invalid(
            f"eta={eta:g} on steps that raise log-SNR by up to {2 * float(h.max()):.3g}",
            f"eta <= {float(fresh.max().rsqrt()):.4g} for these steps",
            "take more steps, or less noise",
        )
    # At eta = 1 the formula is e^-h. Written so, no bit is lost, and DDIM equals the ancestral chain.
    kept = torch.exp(-h) if eta == 1 else torch.exp(0.5 * torch.log1p(-(eta**2) * fresh))
    return kept, eta * fresh.sqrt()
