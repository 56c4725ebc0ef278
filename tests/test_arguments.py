"""Whole numbers and objects: every public argument of these kinds refuses what is none, in one sentence."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import genmod
from genmod import editing, evaluation, objectives, plots
from genmod.decoders import GaussianDecoder, PredictedScale
from genmod.denoisers import Learned, VelocityTarget, calibrate
from genmod.diffusion import DiffusionPrior, StratifiedTimesteps, UniformTimesteps
from genmod.inverse import MMPS, AveragePool
from genmod.models import (
    HVAE,
    VAE,
    Autoencoder,
    Diffusion,
    LatentDiffusion,
    with_depth,
    with_probability_flow,
    with_steps,
)
from genmod.models.replace import find_diffusion
from genmod.nn import MLP, DenoisingMLP, DiT, Ignored, Labels, MLPs, UNet, Vectors
from genmod.objectives import IWAE, Bound, WarmUp
from genmod.priors import MixturePrior, NormalPrior, VampPrior
from genmod.samplers import DDIM, DPMSolver, UniformTime
from genmod.schedules import Cosine, LinearBeta
from genmod.signatures import rules_of
from genmod.sklearn import GenerativeDensity
from genmod.spec import DataSpec
from genmod.training import Shift, fit

GRAMMAR = r"^got .*; expected .*; .+"
METHODS = ("sample", "states", "impute", "alpha_bars", "betas", "bits_per_dim")
"""Public methods with counts; others get theirs from these."""


RESULTS = {"Dataset", "Report", "Step", "Quality", "Estimate", "History", "Batch", "Rate", "ELBO"}
"""Classes of results, which users do not build."""


def _public() -> Iterator[tuple[str, Callable[..., object]]]:
    """What the packages export: functions, constructors and the methods that users call with counts."""
    for found in pkgutil.iter_modules(genmod.__path__):
        if not found.ispkg or found.name in (
            "cli",
            "config",
            "random",
            "gaussian",
            "distributions",
        ):
            continue
        room = importlib.import_module(f"genmod.{found.name}")
        offered = {name: vars(room)[name] for name in getattr(room, "__all__", vars(room))}
        for name, value in offered.items():
            if name[0] == "_" or not getattr(value, "__module__", "").startswith("genmod"):
                continue
            if inspect.isfunction(value):
                yield f"{found.name}.{name}", value
            elif inspect.isclass(value) and name not in RESULTS:
                if not inspect.isabstract(value) and not issubclass(value, Exception):
                    yield f"{found.name}.{name}", value
                for method in METHODS:
                    if method in vars(value):
                        yield f"{found.name}.{name}.{method}", vars(value)[method]


PUBLIC = dict(_public())


VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _parameters(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def _whole() -> Iterator[tuple[str, str, set[str]]]:
    for name, function in PUBLIC.items():
        for each in _parameters(function).values():
            parts = {part.strip() for part in str(each.annotation).split("|")}
            if {"int", "SupportsIndex"} & parts and not {"float", "bool", "object"} & parts:
                yield name, each.name, parts


WHOLE = [pytest.param(*case, id=f"{case[0]}({case[1]})") for case in _whole()]


def _called(name: str, **given: object) -> object:
    """A call with what is given, and with something for all other arguments that are needed."""
    if name.startswith("sklearn.") and name.count(".") == 1:
        return PUBLIC[name](**given).fit(np.zeros((4, 2)))  # type: ignore[attr-defined]
    if name.startswith("training.") and name.rpartition(".")[2] in ("fit", "training_loop"):
        given = {"model": VAE(2, latents=1, width=8), "data": torch.randn(8, 2)} | given
        if name == "training.training_loop":
            return next(iter(PUBLIC[name](**given)))  # type: ignore[call-overload]
        return PUBLIC[name](**given, progress=False)
    for each in _parameters(PUBLIC[name]).values():
        needed = each.default is each.empty and each.kind not in VARIADIC
        if needed and each.name not in given:
            given[each.name] = 1 if "int" in str(each.annotation) else object()
    return PUBLIC[name](**given)


@pytest.mark.parametrize(("name", "argument", "parts"), WHOLE)
def test_a_whole_number_is_no_fraction_no_flag_no_text(
    name: str, argument: str, parts: set[str]
) -> None:
    wrong: list[object] = [2.5, 2.0, True]
    if parts <= {"int", "SupportsIndex", "None"}:
        wrong += ["3", np.float32(3.5)] + ([] if "None" in parts else [None])
    for value in wrong:
        with pytest.raises(ValueError, match=GRAMMAR) as caught:
            _called(name, **{argument: value})
        assert f"got {argument}={value!r}; expected a whole number" in str(caught.value)


def _objects() -> Iterator[tuple[str, str]]:
    for name, function in PUBLIC.items():
        for argument, rule in rules_of(function).items():
            if rule.kinds and _parameters(function)[argument].kind not in VARIADIC:
                yield name, argument


OBJECTS = [pytest.param(*case, id=f"{case[0]}({case[1]})") for case in _objects()]


MODEL, X = VAE(2, latents=1, width=8), torch.randn(8, 2)
DIFFUSION = Diffusion(2, steps=4, width=8)
POOL = AveragePool((1, 2), 1)
CHAIN = find_diffusion(DIFFUSION)


def it(kind: object) -> Any:
    """A class where the type checker expects one of its objects."""
    return kind


CLASSES: dict[str, Callable[[], object]] = {
    "spec=DataSpec": lambda: VAE(it(DataSpec)),
    "prior=NormalPrior": lambda: VAE(2, prior=it(NormalPrior)),
    "decoder=GaussianDecoder": lambda: VAE(2, decoder=it(GaussianDecoder)),
    "scale=PredictedScale": lambda: GaussianDecoder(MLP(1, 4), 2, it(PredictedScale)),
    "schedule=Cosine": lambda: Diffusion(2, schedule=it(Cosine)),
    "target=VelocityTarget": lambda: Learned(DenoisingMLP((2,)), it(VelocityTarget)),
    "condition=Ignored": lambda: VAE(2, condition=it(Ignored)),
    "networks=MLPs": lambda: VAE(2, networks=it(MLPs)),
    "sampler=DDIM": lambda: DIFFUSION.sample(2, sampler=it(DDIM)),
    "grid=UniformTime": lambda: DIFFUSION.sample(2, grid=it(UniformTime)),
    "objective=Bound": lambda: fit(MODEL, X, it(Bound), steps=1),
    "timesteps=StratifiedTimesteps": lambda: DIFFUSION.elbo(X, it(StratifiedTimesteps)),
    "timesteps=UniformTimesteps": lambda: evaluation.score(
        DIFFUSION, X, timesteps=it(UniformTimesteps)
    ),
}
"""What one writes when the brackets are forgotten."""


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("given", CLASSES)
def test_forgotten_brackets_are_named(given: str) -> None:
    argument, _, kind = given.partition("=")
    with pytest.raises(ValueError, match=GRAMMAR) as caught:
        CLASSES[given]()
    assert str(caught.value).startswith(f"got {argument}={kind}, a class; expected an instance of ")
    assert f"; call it: {kind}(" in str(caught.value)


@pytest.mark.parametrize(("name", "argument"), OBJECTS)
def test_an_object_is_wanted_and_its_class_is_refused_with_the_call_that_makes_one(
    name: str, argument: str
) -> None:
    rule = rules_of(PUBLIC[name])[argument]
    wrong = type("Part", rule.bases[:1] or (), {})
    with pytest.raises(ValueError, match=GRAMMAR) as caught:
        _called(name, **{argument: wrong})
    assert f"got {argument}=Part, a class; expected an instance of " in str(caught.value)
    assert str(caught.value).endswith("; call it: Part()")


BELOW: dict[str, tuple[Callable[[int], object], int]] = {
    "latents of VAE": (lambda n: VAE(2, latents=n, width=8), 1),
    "latents of Autoencoder": (lambda n: Autoencoder(2, latents=n, width=8), 1),
    "latents of HVAE": (lambda n: HVAE(2, latents=(n, 2), width=8), 1),
    "latents of LatentDiffusion": (lambda n: LatentDiffusion(2, latents=n, width=8), 1),
    "width": (lambda n: VAE(2, latents=1, width=n), 1),
    "depth": (lambda n: VAE(2, latents=1, width=8, depth=n), 0),
    "levels": (lambda n: HVAE(2, levels=n, width=8), 1),
    "bins": (lambda n: VAE(2, bins=n), 2),
    "shape": (lambda n: VAE(n), 1),
    "steps of Diffusion": (lambda n: Diffusion(2, steps=n), 1),
    "resolution": (
        lambda n: DiffusionPrior(CHAIN.denoiser, CHAIN.schedule, (2,), resolution=n),
        2,
    ),
    "classes": (Labels, 1),
    "size": (Vectors, 1),
    "components": (MixturePrior, 1),
    "pseudo-inputs": (VampPrior, 1),
    "IWAE": (IWAE, 1),
    "warm-up": (lambda n: WarmUp(steps=n), 1),
    "cycles": (lambda n: WarmUp(steps=3, cycles=n), 1),
    "order": (lambda n: DPMSolver(order=n), 1),
    "table": (lambda n: LinearBeta(n), 2),
    "timesteps": (StratifiedTimesteps, 1),
    "MLP width": (lambda n: MLP(2, 2, width=n), 1),
    "MLP depth": (lambda n: MLP(2, 2, depth=n), 0),
    "MLP outputs": (lambda n: MLP(2, n), 1),
    "MLPs width": (lambda n: VAE(2, networks=MLPs(n)), 1),
    "UNet width": (lambda n: UNet((1, 8, 8), width=n), 1),
    "UNet blocks": (lambda n: UNet((1, 8, 8), width=8, blocks=n), 1),
    "DiT depth": (lambda n: DiT((1, 8, 8), width=8, depth=n), 1),
    "DiT patch": (lambda n: DiT((1, 8, 8), width=8, patch=n), 1),
    "sample": (MODEL.sample, 1),
    "sample of a diffusion": (DIFFUSION.sample, 1),
    "steps of a sampler": (lambda n: DIFFUSION.sample(2, steps=n), 1),
    "impute": (lambda n: MODEL.impute(X, X > 0, n), 1),
    "draws of impute": (lambda n: MODEL.impute(X, X > 0, 1, n), 1),
    "levels of elbo": (lambda n: DIFFUSION.elbo(X, timesteps=n), 1),
    "importance samples": (
        lambda n: evaluation.log_weights(MODEL, X, importance_samples=n),
        1,
    ),
    "importance samples of evaluate": (
        lambda n: evaluation.evaluate(MODEL, X, importance_samples=n),
        0,
    ),
    "replicates": (lambda n: evaluation.evaluate(DIFFUSION, X, replicates=n), 1),
    "batch size": (lambda n: evaluation.score(MODEL, X, batch_size=n), 1),
    "levels of profile": (lambda n: evaluation.profile(DIFFUSION, X, timesteps=n), 1),
    "levels of immse": (lambda n: evaluation.immse(DIFFUSION, X, timesteps=n), 1),
    "steps of flow": (lambda n: evaluation.flow_density(DIFFUSION, X, steps=n), 1),
    "probes of flow": (lambda n: evaluation.flow_density(DIFFUSION, X, steps=2, probes=n), 1),
    "replicates of a check": (
        lambda n: evaluation.predictive_check(MODEL, X, replicates=n),
        39,
    ),
    "units": (lambda n: evaluation.traverse(MODEL, X, units=n), 1),
    "count of traverse": (lambda n: evaluation.traverse(MODEL, X, count=n), 2),
    "row of traverse": (lambda n: evaluation.traverse(MODEL, X, row=n), 0),
    "steps of amortization": (lambda n: evaluation.amortization_gap(MODEL, X, steps=n), 1),
    "draws of amortization": (
        lambda n: evaluation.amortization_gap(MODEL, X, steps=1, draws=n),
        1,
    ),
    "importance samples of amortization": (
        lambda n: evaluation.amortization_gap(MODEL, X, steps=1, importance_samples=n),
        0,
    ),
    "latents of a forecast": (lambda n: evaluation.linear_forecast(X, latents=n), 1),
    "interpolate": (lambda n: editing.interpolate(MODEL, X, X + 1, n), 2),
    "sdedit": (lambda n: editing.sdedit(DIFFUSION, X, 0.5, steps=n), 1),
    "with_steps": (lambda n: with_steps(DIFFUSION, n), 1),
    "with_depth": (lambda n: with_depth(DIFFUSION, n), 1),
    "with_probability_flow": (lambda n: with_probability_flow(DIFFUSION, n), 1),
    "calibrate": (lambda n: calibrate(CHAIN.denoiser, CHAIN.schedule, X, levels=n), 2),
    "points of explain": (lambda n: objectives.explain(IWAE(2), DIFFUSION, points=n), 2),
    "bits per dim": (lambda n: MODEL.elbo(X).bits_per_dim(n, 0.1), 1),
    "columns of a figure": (lambda n: plots.samples({"a": torch.rand(4, 1, 8, 8)}, 1.0, n), 1),
    "pool": (lambda n: AveragePool((1, 4), n), 1),
    "iterations": (
        lambda n: MMPS(CHAIN.denoiser, AveragePool((1, 2), 1), X[:, None], 0.1, iterations=n),
        1,
    ),
    "pixels": (Shift, 1),
}
"""Calls with a count, and its least value."""


def _fit(name: str) -> Callable[[int], object]:
    return lambda n: fit(MODEL, X, progress=False, **{name: n})  # type: ignore[arg-type]


def _estimator(name: str) -> Callable[[int], object]:
    return lambda n: GenerativeDensity(**{name: n}).fit(X.numpy())  # type: ignore[arg-type]


for _name in ("steps", "batch_size", "validate_every", "validation_rows", "accumulate", "patience"):
    BELOW[f"{_name} of fit"] = (_fit(_name), 1)
for _name in ("warmup", "skip_nonfinite"):
    BELOW[f"{_name} of fit"] = (_fit(_name), 0)
for _name in ("latents", "width", "steps", "batch_size", "importance_samples"):
    BELOW[f"{_name} of an estimator"] = (_estimator(_name), 1)


@pytest.mark.parametrize("name", BELOW)
def test_a_count_below_its_least_value_is_refused(name: str) -> None:
    call, least = BELOW[name]
    for value in (least - 1, -1):
        with pytest.raises(ValueError, match=GRAMMAR):
            call(value)


def test_a_dataclass_of_ones_own_may_come_from_a_module_that_is_not_imported() -> None:
    """As from a page or a cell that is executed as text: its annotations are its own."""
    page = {"__name__": "page"}
    source = """
from dataclasses import dataclass
from genmod.objectives import Beta

@dataclass(frozen=True)
class Mine(Beta):
    rounds: int = 2
"""
    exec(compile(source, "page", "exec", dont_inherit=True), page)
    assert page["Mine"](rounds=2.5).rounds == 2.5  # type: ignore[operator]
