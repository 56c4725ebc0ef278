"""What layers do in training that they do not do otherwise: dropout, running statistics."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from genmod.random import mix

_DROPOUT = 0xD50
"""Keeps dropout apart from the noise of the bound, which has the same seed and step."""

one_run = threading.RLock()
"""Held by the run whose layers draw, so that runs in several threads take turns.

Layers draw from torch's one generator. Each run sets its state for a step, and puts it back.
"""


def training_mode(model: nn.Module) -> None:
    """Training mode for all that learns; a frozen part (no parameter of it learns) stays as it is used.

    Frozen layers in training mode would still drop out and move their running statistics.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


@contextmanager
def seeded(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Torch's own generator, from which layers draw, as a function of ``(seed, step)``.

    Afterwards its state is restored, so that training does not change the user's random numbers.
    """
    # Not torch.manual_seed, which seeds every device there is, at a millisecond each time.
    generator = torch.default_generator
    if device.type == "cuda":
        torch.cuda.init()
        generator = torch.cuda.default_generators[device.index or 0]
    before = generator.get_state()
    generator.manual_seed(mix(seed, step, _DROPOUT))
    try:
        yield
    finally:
        generator.set_state(before)
