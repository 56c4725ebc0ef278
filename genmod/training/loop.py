"""Training as a generator: the user's ``for`` loop is the callback.

>>> import torch
>>> from genmod.models import VAE
>>> x = torch.randint(0, 17, (64, 1, 8, 8))
>>> model = VAE((1, 8, 8), bins=17, latents=2, width=16)
>>> for step in fit(model, x, steps=3, batch_size=16, progress=False):
...     pass
>>> step.number, step.loss > 0
(3, True)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from genmod import random
from genmod.checks import require, trusted
from genmod.data import BernoulliPixels, Dataset
from genmod.elbo import ELBO
from genmod.model import LatentModel
from genmod.nn import check_context
from genmod.objectives import Bound, Objective, broken_terms
from genmod.shapes import size
from genmod.training.batches import Batches
from genmod.training.checkpoint import load_checkpoint, save_checkpoint
from genmod.training.modes import seeded, training_mode
from genmod.training.progress import Bar, Told
from genmod.training.recipe import Cadence, Recipe
from genmod.training.state import TrainingState
from genmod.training.validation import Validation, validate

Data: TypeAlias = Dataset | Tensor | tuple[Tensor, Tensor]


class NonFiniteLoss(ArithmeticError):
    """A loss or gradient that is NaN or infinite: the run stops before it can spoil the weights."""


@dataclass(frozen=True, eq=False)
class Step:
    """What one step of training did.

    Args:
        number: how many steps were made, this one included.
        elbo: the bound of each sample of the batch, before the step, detached.
        validation: the bound on the validation data, at the steps that measure it.
        averaged: the model with averaged weights, to look at on the way.
    """

    number: int
    elbo: ELBO
    validation: Validation | None
    averaged: LatentModel
    _loss: Tensor

    @property
    def loss(self) -> float:
        """The loss (reading it makes a GPU wait)."""
        return float(self._loss)

    @property
    def bound(self) -> float:
        """The batch's mean bound, nats."""
        return float(self.elbo.value.mean())


def fit(
    model: LatentModel,
    data: Data,
    objective: Objective | None = None,
    *,
    steps: int = 2000,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    warmup: int = 100,
    decay: bool = True,
    ema: float = 0.999,
    clip: float | None = 1.0,
    seed: int = 0,
    device: torch.device | str | None = None,
    autocast: torch.dtype | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    validate_every: int | None = None,
    validation_draws: int = 8,
    checkpoint: Path | str | None = None,
    checkpoint_every: int = 1000,
    progress: bool | Told = True,
) -> Iterator[Step]:
    """Train a model; yields after every step.

    When the loop ends, also by ``break``, the model holds the averaged weights that did best on the
    validation data (the last averaged ones, where there are none), and is in evaluation mode.

    Args:
        model: any model; trained in place, on ``device``.
        data: a :class:`~genmod.data.Dataset` (its training and validation parts; where it is
            :func:`~genmod.data.binarized`, with bits drawn anew at every visit; where it is
            :func:`~genmod.data.conditional`, with its labels for context), a tensor ``(N, *event)``,
            or a pair of a tensor and the context of each sample.
        objective: what to minimize; the bound by default, one level a sample for a diffusion.
        steps: how many steps in all (a resumed run makes the rest of them).
        batch_size: rows in a batch; no more than there are.
        learning_rate: its peak. It rises for ``warmup`` steps and, with ``decay``, falls along a
            cosine to nothing at the last step.
        weight_decay: of AdamW.
        warmup: steps over which the learning rate rises.
        decay: whether it falls.
        ema: the decay of the moving average of the weights; 0 is no average.
        clip: the largest norm of a gradient.
        seed: of batches, noise and dropout: equal seeds, equal runs.
        device: where to train; a GPU if there is one.
        autocast: a half-precision type for the networks, ``torch.bfloat16`` for example. Rates are
            computed in float32 all the same.
        optimizer: another one than fused AdamW, over the model's own parameters. Its own learning
            rates are then the peaks, and its own weight decay counts.
        validate_every: steps between two validations; a twentieth of the run by default.
        validation_draws: how many levels of a diffusion a validation visits.
        checkpoint: a file (safetensors) to write to, and to continue from if it exists.
        checkpoint_every: steps between two checkpoints.
        progress: whether to show a bar with the loss and the true bound; or a function that is told
            ``(step, line)`` a few times a second instead, for a display of your own.

    Yields:
        One :class:`Step` for each step.

    Raises:
        ValueError: at once, on the call itself: data that the model cannot score, settings out of
            range, an objective that does not suit the model.
        NonFiniteLoss: on the way: a loss or gradient that is NaN or infinite. The model then holds
            the last good weights.
    """
    objective = objective or Bound()
    objective.check(model)
    learned, held_out = _parts(data)
    _check(model, learned, held_out)
    count = len(learned[0])
    recipe = Recipe(
        steps=steps,
        batch_size=min(batch_size, count),
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        decay=decay,
        ema=ema,
        clip=clip,
        seed=seed,
        objective=repr(objective),
        samples=count,
        context_dropout=data.context_dropout if isinstance(data, Dataset) else None,
    )
    every = max(1, steps // 20) if validate_every is None else validate_every
    cadence = Cadence(every, validation_draws, checkpoint_every)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model.to(place)
    objective = objective.to(place).train()
    state = TrainingState(model, optimizer or _adam(model, recipe), recipe, objective)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and path.exists():
        load_checkpoint(state, path)
    return _Run(
        state=state,
        batches=_batches(learned, recipe, place),
        held_out=held_out,
        cadence=cadence,
        checkpoint=path,
        half=nullcontext() if autocast is None else torch.autocast(place.type, autocast),
        bar=Bar(steps, size(model.decoder.shape), type(model).__name__, progress),
    ).steps()


def train(steps: Iterator[Step]) -> list[Validation]:
    """Run a :func:`fit` to its end; returns its validations.

    >>> from genmod.models import VAE
    >>> x = torch.randn(32, 2)
    >>> train(fit(VAE(2, latents=1, width=8), x, steps=2, progress=False))
    []
    """
    return [step.validation for step in steps if step.validation is not None]


@dataclass(eq=False)
class _Run:
    """A run of :func:`fit`, once everything has been checked."""

    state: TrainingState
    batches: Batches
    held_out: tuple[Tensor | None, Tensor | None]
    cadence: Cadence
    checkpoint: Path | None
    half: AbstractContextManager[object]
    bar: Bar

    def steps(self) -> Iterator[Step]:
        """The steps; whatever ends them, the model is left with its best weights."""
        state, recipe = self.state, self.state.recipe
        training_mode(state.model)
        try:
            with self.bar:
                while state.step < recipe.steps:
                    yield self._step()
        finally:
            state.finish()
            state.model.eval()

    def _step(self) -> Step:
        state = self.state
        x, context = self.batches(state.step)
        seed = state.recipe.seed
        if not state.model.training:
            training_mode(state.model)
        with (
            trusted(),
            random.keyed(seed, state.step),
            seeded(seed, state.step, x.device),
            self.half,
        ):
            loss, elbo = state.objective(state.model, x, context)
        elbo = elbo.detach()
        if not state.update(loss):
            broken = broken_terms(elbo)
            raise NonFiniteLoss(
                f"got a loss of {float(loss.detach()):g} at step {state.step + 1} "
                f"({'in ' + ', '.join(broken) if broken else 'its gradient is not finite'}); expected "
                "a finite one; the model holds the last good weights: lower the learning rate, clip "
                "gradients harder, or look at the data of that batch"
            )
        validation = self._validate()
        if self.checkpoint is not None and self._due(self.cadence.checkpoint_every):
            save_checkpoint(state, self.checkpoint)
        self.bar.show(state.step, loss.detach(), elbo, validation)
        return Step(state.step, elbo, validation, state.averaged, loss.detach())

    def _due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self.state.recipe.steps

    def _validate(self) -> Validation | None:
        x, context = self.held_out
        if x is None or not self._due(self.cadence.validate_every):
            return None
        draws = self.cadence.validation_draws
        validation = validate(self.state.averaged, x, context, self.state.step, draws)
        self.state.record(validation)
        return validation


_Learned: TypeAlias = tuple[Tensor, Tensor | None, BernoulliPixels | None]
_HeldOut: TypeAlias = tuple[Tensor | None, Tensor | None]


def _parts(data: Data) -> tuple[_Learned, _HeldOut]:
    """The training data, with their context and the coins they are flips of; the held-out data."""
    if isinstance(data, Dataset):
        held_out = data.validation if len(data.validation) else None
        learned = (data.train, data.context("train"), data.resample)
        return learned, (held_out, data.context("validation"))
    if isinstance(data, Tensor):
        return (data, None, None), (None, None)
    x, context = data
    return (x, context, None), (None, None)


def _check(model: LatentModel, learned: _Learned, held_out: _HeldOut) -> None:
    """Require data that the model can score, and contexts that it can hear, once for the whole run."""
    x, context, _ = learned
    require(len(x) >= 1, "no data", "at least one sample", "check the split")
    for part, told in ((x, context), held_out):
        if part is not None:
            model.decoder.check(part)
            check_context(model, told)


def _batches(learned: _Learned, recipe: Recipe, device: torch.device) -> Batches:
    x, context, coins = learned
    told = None if context is None else context.to(device)
    rows = (coins or x).to(device)
    return Batches(rows, told, recipe.batch_size, recipe.seed, recipe.context_dropout or 0.0)


def _adam(model: LatentModel, recipe: Recipe) -> torch.optim.Optimizer:
    learned = [p for p in model.parameters() if p.requires_grad]
    require(len(learned) > 0, "a model without parameters to learn", "some", "unfreeze a part")
    return torch.optim.AdamW(
        learned, recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
