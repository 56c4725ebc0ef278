"""``fit``, which trains a model, and ``training_loop``, the same as an iterator of steps.

>>> import torch
>>> from genmod.models import VAE
>>> x = torch.randint(0, 17, (64, 1, 8, 8))
>>> model = VAE((1, 8, 8), bins=17, latents=2, width=16)
>>> for step in training_loop(model, x, steps=3, batch_size=16, progress=False):
...     pass
>>> step.number, step.loss > 0
(3, True)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from genmod.checks import invalid
from genmod.config.settings import with_arguments_of
from genmod.model import LatentModel
from genmod.objectives import Objective
from genmod.objectives.pairs import Objectives
from genmod.signatures import checked
from genmod.training.augment import Transform
from genmod.training.checkpoint import Checkpoints
from genmod.training.config import TrainingConfig
from genmod.training.data import Data, TrainingData
from genmod.training.devices import Devices
from genmod.training.history import History
from genmod.training.identity import identity
from genmod.training.loop import TrainingLoop, objectives_of, stages_of
from genmod.training.metrics import MetricsLog, OnProgress
from genmod.training.setup import Setup
from genmod.training.sharding import check_sharding


@checked
def fit(
    model: LatentModel,
    data: Data,
    objective: Objective | Objectives | None = None,
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
    accelerator: object | None = None,
    autocast: torch.dtype | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    validate_every: int | None = None,
    validation_rows: int | None = None,
    validation_timesteps: int | None = None,
    checkpoint: Path | str | None = None,
    checkpoint_every: int = 1000,
    keep: int | None = None,
    accumulate: int = 1,
    patience: int | None = None,
    augment: Sequence[Transform] = (),
    compile: bool = False,
    metrics: Path | str | None = None,
    trackers: Sequence[str] | str = (),
    log_every: int = 10,
    skip_nonfinite: int = 0,
    shard: bool = False,
    stages: str | None = None,
    progress: bool | OnProgress = True,
) -> History:
    r"""Train a model by AdamW, with a moving average of its weights, and keep the best of them.

    Each step draws a batch and lowers the loss of the objective, by default minus the mean bound,

    .. math:: -\frac1B \sum_{i=1}^{B} \mathrm{ELBO}(x_i) \quad\text{(nats a sample).}

    Afterwards the model holds the averaged weights with the highest bound on the validation data (the
    last averaged weights, without validation data), and is in evaluation mode.

    Args:
        model: any model. It is trained in place and moved to ``device``.
        data: a :class:`~genmod.data.Dataset`, whose training and validation parts are used. If it is
            :func:`~genmod.data.binarized`, bits are drawn again in every epoch. If it is
            :func:`~genmod.data.conditional`, its labels are the context. Missing entries do not count.
            Or the name, file or folder of a data set (:func:`genmod.data.load`). Or rows without a
            validation part: a tensor, array, list or data frame, or a pair of rows and their context.
            Or a loader: any iterable of batches ``x``, ``(x, context)`` or ``(x, context, observed)``, with
            its own batch size. A resumed run is bitwise the same only if the loader repeats its batches.
        objective: the loss. By default minus the bound, with one timestep a sample for a diffusion.
            Its state (of a warm-up, for example) restarts in each run. Or pairs of an objective and what
            it trains: ``[(Bound(), [model.encoder, model.decoder]), (Simple(), model.prior)]``. Or one for
            each stage: ``[Beta(0.5), Simple()]`` for a latent diffusion.
        steps: the number of optimizer steps. A resumed run makes those that are left. If it is larger
            than in the checkpoint, the learning rate rises and falls once more over the new steps.
        batch_size: rows in a batch; 128 by default, or all rows where there are fewer.
        learning_rate: the peak of the learning rate. It rises for ``warmup`` steps and, with
            ``decay``, falls along a cosine to 0 at the last step.
        weight_decay: the weight decay of AdamW.
        warmup: steps over which the learning rate rises.
        decay: whether the learning rate falls.
        ema: the decay of the moving average of the weights, in [0, 1); 0 is no average.
        clip: the largest norm of the gradient; ``None``: no limit.
        seed: the key of batches, noise and dropout. Equal seeds give equal runs.
        device: the device to train on; a GPU if there is one.
        accelerator: accelerate's ``Accelerator``, for training on many devices: each process takes its
            part of every batch. Under ``accelerate launch`` and ``torchrun`` it is made here.
        autocast: a half-precision type for the networks, such as ``torch.bfloat16``. Rates are
            computed in float32 in any case.
        optimizer: your own optimizer over the model's parameters, in place of fused AdamW. Its
            current learning rates are the peaks, and its own weight decay is used.
        validate_every: steps between two validations; a twentieth of the run by default.
        validation_rows: how many rows of the validation part, drawn once, each validation scores. By
            default as many as keep validation below about 15 % of the training, at least 150.
        validation_timesteps: the timesteps of a diffusion that a validation visits for each row.
        checkpoint: a safetensors file to write to, and to continue from if it exists. A run with
            other settings or other data than those of the file is refused.
        checkpoint_every: steps between two checkpoints.
        keep: makes ``checkpoint`` a folder, with the last ``keep`` checkpoints, and the one of the best
            validation in ``best.safetensors``.
        accumulate: batches whose gradients are added up for one step. A step then equals one with a batch
            ``accumulate`` times as large, up to rounding, where the loss is a mean over rows and no
            layer looks at the whole batch.
        patience: early stopping: the run stops after so many validations in a row that were no better
            than one before. Validations during the warm-up of the objective do not count.
        augment: random transforms of every training batch, such as ``[Flip(), Shift(2)]``.
        compile: whether to run the networks under ``torch.compile``, which makes long runs faster.
        metrics: a folder, for ``metrics.jsonl``, or a file of that kind: a line every ``log_every`` steps
            and at every validation.
        trackers: experiment trackers, by name: ``"tensorboard"``, ``"wandb"``, ``"trackio"`` and others of
            accelerate (``pip install genmod-torch[trackers]``).
        log_every: steps between two lines of metrics.
        skip_nonfinite: how many batches in a row may be skipped if their loss or gradient is NaN or
            infinite. They are counted in ``history.skipped``; one more raises ``NonFiniteLoss``.
        shard: whether each of several processes keeps a part of the networks' weights only (FSDP2:
            torch's ``fully_shard``), for models too large for one device.
        stages: ``None``: the model's own recipe, each stage of ``steps`` steps; a latent diffusion
            trains its VAE first, on the bound, then the diffusion with ``objective``. ``"joint"``:
            all parts together. ``"two-stage"``: any learned prior that way. A list as ``objective`` has
            one for each stage.
        progress: whether to show a bar with the loss and the bound; or a function that is called
            with ``(step, line)`` a few times a second, for a display of your own.

    Returns:
        The :class:`History` of losses and validations. ``print`` shows it as a table.

    Raises:
        ValueError: before the first step: data that the model cannot score, settings out of range, an
            objective that does not suit the model.
        NonFiniteLoss: during the run: a loss or gradient that is NaN or infinite. The model then
            holds the weights of the step before.

    Reference: Kingma, Welling, "Auto-Encoding Variational Bayes" (2014), eq. 3 and algorithm 1.

    >>> from genmod.models import VAE
    >>> x = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    >>> history = fit(VAE(2, latents=1, width=8), x, steps=20, batch_size=64, progress=False)
    >>> history
    History(VAE: 20 of 20 steps, last loss ...)
    >>> len(history.losses), history.best is None  # rows without a validation part
    (20, True)
    """
    loop = training_loop(**locals())
    for _ in loop:
        pass
    return loop.history


@checked
@torch.inference_mode(False)
@with_arguments_of(fit)
def training_loop(**given: Any) -> TrainingLoop:
    """Train a model as an iterator of steps: your ``for`` loop is the callback, and ``break`` stops.

    The arguments are those of :func:`fit`. Write ``for step in training_loop(...)``. If you keep the
    loop in a variable, write ``with training_loop(...) as steps: for step in steps: ...``. In both
    cases the model ends with the best averaged weights, in evaluation mode.

    Returns:
        An iterator of :class:`Step`, with the :class:`History` so far in its attribute ``history``.

    Raises:
        ValueError: as :func:`fit`, in the call itself.

    >>> from genmod.models import VAE
    >>> model = VAE(2, latents=1, width=8)
    >>> for step in training_loop(model, torch.randn(32, 2), steps=100, progress=False):
    ...     if step.number == 3:
    ...         break
    >>> step.loss > 0, model.training
    (True, False)
    """
    names = [field.name for field in fields(TrainingConfig)]
    config = TrainingConfig(**{name: given.pop(name) for name in names})
    return _begin(config=config, **given)


def _begin(
    model: LatentModel,
    data: Data,
    objective: Objective | Objectives | None,
    config: TrainingConfig,
    *,
    device: torch.device | str | None,
    accelerator: object | None,
    optimizer: torch.optim.Optimizer | None,
    checkpoint: Path | str | None,
    keep: int | None,
    augment: Sequence[Transform],
    metrics: Path | str | None,
    trackers: Sequence[str] | str,
    stages: str | None,
    progress: bool | OnProgress,
) -> TrainingLoop:
    """The loop of a run, after all checks that can be made before its first step."""
    found, plan = TrainingData.of(data, model.spec), stages_of(model, stages)
    losses = objectives_of(objective, plan)
    found.check(model)
    _check(model, config, found, optimizer, len(plan))
    if config.shard:
        for loss in losses:
            check_sharding(model, loss, optimizer)
    if keep is not None and checkpoint is None:
        raise invalid(
            f"keep={keep} without a checkpoint",
            "a folder of checkpoints",
            "pass checkpoint=FOLDER, or leave keep out",
        )
    devices = Devices.of(accelerator, device)
    places, known = None, {}
    if checkpoint is not None:
        places = Checkpoints.at(checkpoint, keep)
        known = dict(identity(model, losses, optimizer, config, found, augment))
    if not devices.is_main:
        metrics, trackers, progress = None, (), False
    written = MetricsLog(metrics, trackers, type(model).__name__, vars(config))
    setup = Setup(
        model,
        config,
        found,
        devices.device,
        optimizer,
        places,
        known,
        progress,
        tuple(augment),
        written,
        devices,
    )
    return TrainingLoop(setup, plan, losses)


def _check(
    model: LatentModel,
    config: TrainingConfig,
    data: TrainingData,
    optimizer: torch.optim.Optimizer | None,
    stages: int,
) -> None:
    """Refuse settings that mean nothing for the model or the data."""
    kind, timesteps = type(model).__name__, config.validation_timesteps
    if timesteps is not None and not model.prior.has_timesteps:
        raise invalid(
            f"validation_timesteps={timesteps} for a {kind} without noise levels",
            "none",
            "leave it out: every latent is visited",
        )
    if optimizer is not None and stages != 1:
        raise invalid(
            f"an optimizer for a {kind}, which is trained in {stages} stages",
            "none: each stage has its own",
            'leave it out, or pass stages="joint"',
        )
    if config.patience is not None and data.held_out is None:
        raise invalid(
            f"patience={config.patience} for data without a validation part",
            "validation data, by which the run stops",
            "pass a Dataset with a validation part, or leave patience out",
        )
