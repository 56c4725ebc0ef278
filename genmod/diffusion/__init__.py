"""Diffusion: the noising posterior, the reverse chain, its bound, its last step, its probability flow."""

from __future__ import annotations

from importlib import import_module

_HOMES = {
    "NoisingEncoder": "noising",
    "NoisingPosterior": "noising",
    "Analytic": "variances",
    "FixedLarge": "variances",
    "FixedSmall": "variances",
    "LearnedInterpolation": "variances",
    "ReverseVariance": "variances",
    "LossAwareTimesteps": "timesteps",
    "StratifiedTimesteps": "timesteps",
    "TabulatedTimesteps": "timesteps",
    "Timesteps": "timesteps",
    "TimestepSampler": "timesteps",
    "UniformTimesteps": "timesteps",
    "step_rate": "bound",
    "DiffusionPrior": "chain",
    "LastStepDecoder": "last_step",
    "ProbabilityFlowPrior": "probability_flow",
    "ProbabilityFlowDistribution": "probability_flow",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
