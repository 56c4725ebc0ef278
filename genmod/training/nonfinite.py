"""Losses and gradients that are NaN or infinite: the run stops, or skips a few spoiled batches."""

from __future__ import annotations

import torch
from torch import Tensor

from genmod.elbo import ELBO
from genmod.objectives.base import broken_terms
from genmod.training.state import TrainingState


class NonFiniteLoss(ArithmeticError):
    """A loss or gradient that is NaN or infinite: the run stops before this step."""


class SpoiledBatches:
    """What a run does about a batch whose loss or gradient is not finite.

    A skipped batch changes nothing: not the weights, their average, the optimizer, the objective, nor the
    running statistics of layers. The step counts, so that the next one takes other rows and other noise.

    Args:
        state: the model in training.
        most: the most batches in a row that are skipped; 0: none.
    """

    def __init__(self, state: TrainingState, most: int) -> None:
        self.state, self.most = state, most
        self._kept: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def keep(self) -> None:
        """Before a forward pass: keep the buffers, which layers with running statistics change in it."""
        if self.most:
            parts = (self.state.model, self.state.objective)
            self._kept = [(b, b.clone()) for part in parts for b in part.buffers()]

    @torch.no_grad()
    def skip(self, loss: float, elbo: ELBO) -> str:
        """Skip a batch, and return a line about it.

        Args:
            loss: the loss of the batch.
            elbo: its bound, for the names of the terms that broke.

        Raises:
            NonFiniteLoss: batches in a row that are more than the run may skip.
        """
        state, step = self.state, self.state.step + 1
        for buffer, value in self._kept:
            buffer.copy_(value)
        row = self._in_a_row() + 1
        broken = broken_terms(elbo)
        where = f"in {', '.join(broken)}" if broken else "its gradient is not finite"
        if row > self.most:
            skipped = f", after {self.most} skipped in a row" if self.most else ""
            raise NonFiniteLoss(
                f"got a loss of {loss:g} at step {step} ({where}){skipped}; expected a finite one; the "
                "model holds the last good weights: lower the learning rate, clip gradients harder, look "
                "at the data of that batch, or pass skip_nonfinite=n to skip up to n such batches in a row"
            )
        state.losses.append(loss)
        state.step = step
        state.skipped.append(step)
        return f"step {step}: skipped a batch with a loss of {loss:g} ({where}), {row} in a row"

    def _in_a_row(self) -> int:
        """How many of the last batches were skipped."""
        row, step = 0, self.state.step
        for number in reversed(self.state.skipped):
            if number != step - row:
                break
            row += 1
        return row
