"""The training loop, a generator of steps, and ``fit``, which runs it to the end.

>>> import torch
>>> from genmod.models import VAE
>>> for step in training_loop(VAE(2, width=8), torch.zeros(64, 2), steps=3, progress=False):
...     pass
>>> step.number
3
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from genmod.checks import require
from genmod.files import check_file
from genmod.model import LatentModel
from genmod.nn.modules import load_weights
from genmod.objectives import Bound, Objective
from genmod.training.checkpoint import Checkpoint
from genmod.training.config import TrainingConfig
from genmod.training.history import History, OnProgress
from genmod.training.identity import identity
from genmod.training.parts import Data, TrainingData
from genmod.training.run import Run, Setup, Step
from genmod.training.stages import Stage, Stages, as_if_frozen, stages_of


def fit(
    model: LatentModel,
    data: Data,
    objective: Objective | None = None,
    *,
    steps: int = 2000,
    batch_size: int | None = None,
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
    validation_rows: int | None = None,
    validation_timesteps: int | None = None,
    checkpoint: Path | str | None = None,
    checkpoint_every: int = 1000,
    stages: Stages | str | None = None,
    progress: bool | OnProgress = True,
) -> History:
    """Train a model.

    Afterwards the model holds the averaged weights that did best on the validation data (the last
    averaged ones, where there are none), and is in evaluation mode.

    Args:
        model: any model; trained in place, on ``device``.
        data: a :class:`~genmod.data.Dataset`: its training and validation parts. Where it is
            :func:`~genmod.data.binarized`, bits are drawn again at every visit; where it is
            :func:`~genmod.data.conditional`, its labels are the context. Or rows without a validation
            part: a tensor, array or list ``(N, *event)``, or a pair of rows and their context. Or a
            loader: any iterable of batches ``x``, ``(x,)`` or ``(x, context)``, with its own batch
            size; a resumed run is bitwise the same only if the loader gives the same batches again.
        objective: the loss; the bound by default, with one level a sample for a diffusion. Its state
            (of a warm-up, for example) restarts in each run.
        steps: how many steps in all. A resumed run makes the rest of them. With more steps than the
            checkpoint's run had, it is extended by another leg, over which the learning rate rises and
            falls again.
        batch_size: rows in a batch; 128 by default, and all rows where there are fewer.
        learning_rate: its peak. It rises for ``warmup`` steps and, with ``decay``, falls along a
            cosine to 0 at the last step.
        weight_decay: of AdamW.
        warmup: steps over which the learning rate rises.
        decay: whether it falls.
        ema: the decay of the moving average of the weights; 0 is no average.
        clip: the largest norm of a gradient; ``None``: any.
        seed: of batches, noise and dropout: equal seeds, equal runs.
        device: where to train; a GPU if there is one.
        autocast: a half-precision type for the networks, such as ``torch.bfloat16``. Rates are
            computed in float32 all the same.
        optimizer: your own in place of fused AdamW, over the model's parameters. Its current learning
            rates are the peaks, and its own weight decay is used.
        validate_every: steps between two validations; a twentieth of the run by default.
        validation_rows: how many rows of the validation part, drawn once, each validation scores. By
            default as many as keep validation below about 15 % of the training, at least 150.
        validation_timesteps: how many levels of a diffusion a validation visits.
        checkpoint: a file (safetensors) to write to, and to continue from if it exists. Other settings
            or other data than its own are refused.
        checkpoint_every: steps between two checkpoints.
        stages: ``None``: the model's own recipe, each stage of ``steps`` steps; a latent diffusion
            trains its VAE first, on the bound, then the diffusion with ``objective``. ``"joint"``:
            all parts together.
        progress: whether to show a bar with the loss and the true bound; or a function that is called
            with ``(step, line)`` a few times a second, for a display of your own.

    Returns:
        The losses and validations of the run; it prints as a table.

    Raises:
        ValueError: before the first step: data that the model cannot score, settings out of range, an
            objective that does not suit the model.
        NonFiniteLoss: on the way: a loss or gradient that is NaN or infinite. The model then holds the
            last good weights.

    >>> from genmod.models import VAE
    >>> fit(VAE(2, latents=1, width=8), torch.zeros(32, 2), steps=2, progress=False).stages
    (History(VAE: 2 of 2 steps, last loss ...),)
    """
    loop = training_loop(
        model,
        data,
        objective,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        decay=decay,
        ema=ema,
        clip=clip,
        seed=seed,
        device=device,
        autocast=autocast,
        optimizer=optimizer,
        validate_every=validate_every,
        validation_rows=validation_rows,
        validation_timesteps=validation_timesteps,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        stages=stages,
        progress=progress,
    )
    for _ in loop:
        pass
    return loop.history


@torch.inference_mode(False)
def training_loop(
    model: LatentModel,
    data: Data,
    objective: Objective | None = None,
    *,
    steps: int = 2000,
    batch_size: int | None = None,
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
    validation_rows: int | None = None,
    validation_timesteps: int | None = None,
    checkpoint: Path | str | None = None,
    checkpoint_every: int = 1000,
    stages: Stages | str | None = None,
    progress: bool | OnProgress = True,
) -> TrainingLoop:
    """Train a model step by step: your ``for`` loop is the callback, and ``break`` stops.

    The arguments are those of :func:`fit`. Use it as ``for step in training_loop(...)``, or where the
    loop is kept in a variable, ``with training_loop(...) as steps: for step in steps: ...``. Either
    way the model ends with the best averaged weights, in evaluation mode.

    Returns:
        An iterator of :class:`Step`, with the :class:`History` so far in ``history``.

    Raises:
        ValueError: as :func:`fit`, on the call itself.
    """
    config = TrainingConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        decay=decay,
        ema=ema,
        clip=clip,
        seed=seed,
        autocast=autocast,
        validate_every=validate_every,
        validation_rows=validation_rows,
        validation_timesteps=validation_timesteps,
        checkpoint_every=checkpoint_every,
    )
    found, objective = TrainingData.of(data, model.spec), objective or Bound()
    plan = stages_of(model, stages)
    with as_if_frozen(plan) as last:
        objective.check(last)
    found.check(model)
    require(
        validation_timesteps is None or model.prior.has_timesteps,
        f"validation_timesteps={validation_timesteps} for a {type(model).__name__} without noise levels",
        "none",
        "leave it out: every latent is visited",
    )
    require(
        optimizer is None or len(plan) == 1,
        f"an optimizer for a {type(model).__name__}, which is trained in {len(plan)} stages",
        "none: each stage has its own",
        'leave it out, or pass stages="joint"',
    )
    path, known = None if checkpoint is None else check_file(checkpoint), {}
    if path is not None:
        known = dict(identity(model, objective, optimizer, config, found))
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    setup = Setup(model, config, found, place, optimizer, path, known, progress)
    return TrainingLoop(setup, plan, objective)


class TrainingLoop:
    """A run of :func:`training_loop`: an iterator of steps, and a context manager.

    Leaving a ``for`` loop over it gives the model its best averaged weights in evaluation mode, also by
    ``break``. Another ``for`` over it, or ``next``, continues the training.
    """

    def __init__(self, setup: Setup, stages: Sequence[Stage], objective: Objective) -> None:
        self._setup, self._stages, self._objective = setup, stages, objective
        saved = None
        if setup.checkpoint is not None and setup.checkpoint.exists():
            saved = Checkpoint.read(setup.checkpoint)
            saved.check(setup.identity)
        self._run = self._begin(0 if saved is None else saved.stage, saved=saved)

    @property
    def history(self) -> History:
        """The record so far."""
        return self._run.history

    def __iter__(self) -> Iterator[Step]:
        try:  # A generator of its own: CPython ends it as soon as the for loop is left.
            while (step := self._next()) is not None:
                yield step
        finally:
            self.close()

    def __next__(self) -> Step:
        step = self._next()
        if step is None:
            self.close()
            raise StopIteration
        return step

    def __enter__(self) -> TrainingLoop:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        if "_run" in vars(self):
            self.close()

    def save(self) -> None:
        """Write the checkpoint now, between two steps: ``break`` after it loses nothing."""
        self._run.save()

    @torch.inference_mode(False)
    def close(self) -> None:
        """Give the model its best averaged weights, in evaluation mode."""
        self._run.pause()

    @torch.inference_mode(False)
    @torch.enable_grad()
    def _next(self) -> Step | None:
        step = self._run.next()
        while step is None and self._run.stage + 1 < len(self._stages):
            self._run.pause()
            done = self._run.history
            self._run = self._begin(self._run.stage + 1, done.stages)
            step = self._run.next()
        return step

    def _begin(
        self, number: int, earlier: Sequence[History] = (), saved: Checkpoint | None = None
    ) -> Run:
        """A stage, from its start or from a checkpoint."""
        stage = self._stages[number]
        if saved is not None:
            earlier = saved.earlier
            load_weights(self._stages[-1].model, saved.whole())
        if stage.before is not None:
            rows = self._setup.data.some()
            stage.before(rows.x, rows.context, rows.observed)
        objective = self._objective if number + 1 == len(self._stages) else Bound()
        state = self._setup.state(stage.model, objective)
        return Run(self._setup, state, stage.name, number, earlier, saved)
