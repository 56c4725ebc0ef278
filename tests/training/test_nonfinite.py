"""Skipped batches: a spoiled one changes nothing, is counted, and too many in a row stop the run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from genmod import decoders, encoders
from genmod.models import VAE
from genmod.training import NonFiniteLoss, Step, fit, training_loop
from genmod.training.history import averages
from tests.training.cases import data, flat

pytestmark = pytest.mark.usefixtures("float64")

ROWS, BATCH = 48, 12


class _Read(nn.Linear):
    """Reads the data and the context, through a layer with running statistics."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        assert context is not None
        normal: Tensor = self.norm(torch.cat([x, context], -1))
        return super().forward(normal)


class _Ignore(nn.Linear):
    """Ignores the context."""

    def __init__(self) -> None:
        super().__init__(2, 3)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(z)


def model() -> VAE:
    """A small VAE whose encoder reads the context, always with the same weights."""
    torch.manual_seed(7)
    encoder = encoders.GaussianEncoder(_Read(), (2,))
    return VAE(3, latents=2, encoder=encoder, decoder=decoders.GaussianDecoder(_Ignore(), (3,)))


def spoiled(*rows: int) -> tuple[Tensor, Tensor]:
    """Data whose context is NaN in some rows: a batch that holds one of them has a loss of NaN."""
    context = torch.zeros(ROWS, 1)
    context[list(rows)] = math.nan
    return data(ROWS), context


def test_a_skipped_batch_changes_nothing_and_the_run_goes_on() -> None:
    """Weights and running statistics are those of the step before; the optimizer, too, by what follows."""
    trained = model()
    seen: list[tuple[bool, Tensor, Tensor]] = []
    loop = training_loop(
        trained, spoiled(11), steps=12, batch_size=BATCH, skip_nonfinite=1, progress=False
    )
    for step in loop:
        buffers = torch.cat([b.double().flatten().clone() for b in trained.buffers()])
        seen.append((step.skipped, flat(trained), buffers))
        assert step.skipped != math.isfinite(step.loss)
    skipped = [number for number, (bad, _, _) in enumerate(seen, 1) if bad]
    assert loop.history.skipped == tuple(skipped)
    assert [(number - 1) // 4 for number in skipped] == [0, 1, 2], "one batch of each epoch"
    for number in skipped:
        if number > 1:
            assert torch.equal(seen[number - 1][1], seen[number - 2][1])
            assert torch.equal(seen[number - 1][2], seen[number - 2][2])
        if number < len(seen):
            assert not torch.equal(seen[number][1], seen[number - 1][1])
    assert torch.isfinite(flat(trained)).all()
    assert all(torch.isfinite(b).all() for b in trained.buffers())


@pytest.mark.parametrize("most", [0, 1, 3])
def test_more_in_a_row_than_allowed_stop_the_run(most: int) -> None:
    """Every batch is spoiled: ``most`` are skipped, and the next one raises."""
    trained = model()
    before = flat(trained)
    made: list[Step] = []
    steps = training_loop(
        trained,
        spoiled(*range(ROWS)),
        steps=9,
        batch_size=BATCH,
        skip_nonfinite=most,
        progress=False,
    )
    with pytest.raises(NonFiniteLoss, match=rf"at step {most + 1} \(in .*skip_nonfinite=n"):
        made.extend(steps)
    assert len(made) == most
    assert torch.equal(flat(trained), before)


def test_skipped_batches_are_counted_where_a_run_is_read(tmp_path: Path) -> None:
    """In the history, its table and curve, in the file of metrics, and in a printed line."""
    lines: list[str] = []
    history = fit(
        model(),
        spoiled(11),
        steps=8,
        batch_size=BATCH,
        skip_nonfinite=2,
        metrics=tmp_path,
        log_every=1,
        progress=lambda _, line: lines.append(line),
    )
    assert len(history.skipped) == 2
    assert "8 of 8 steps, 2 skipped (not finite)" in str(history)
    assert "nan" not in str(history).split("validation")[0]
    assert [math.isfinite(loss) for loss in history.losses].count(False) == 2
    assert averages([math.nan, 3.0] * 400)[1] == [3.0] * 400
    noted = [line for line in lines if "skipped a batch with a loss of nan" in line]
    assert len(noted) == 2
    assert noted[0].startswith(f"step {history.skipped[0]}: ")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["loss"] is None] == list(history.skipped)


def test_a_resumed_run_has_skipped_the_same_batches(tmp_path: Path) -> None:
    """Bit for bit, and a run that stopped too early may go on with a larger number."""
    whole = model()
    history = fit(whole, spoiled(11), steps=12, batch_size=BATCH, skip_nonfinite=1, progress=False)
    file = tmp_path / "run.safetensors"
    parted = model()
    for step in training_loop(
        parted,
        spoiled(11),
        steps=12,
        batch_size=BATCH,
        skip_nonfinite=1,
        checkpoint=file,
        checkpoint_every=5,
        progress=False,
    ):
        if step.number == 7:
            break
    again = model()
    resumed = fit(
        again,
        spoiled(11),
        steps=12,
        batch_size=BATCH,
        skip_nonfinite=3,
        checkpoint=file,
        progress=False,
    )
    assert resumed.skipped == history.skipped
    assert torch.equal(flat(again), flat(whole))
    bad = {number for number, loss in enumerate(resumed.losses, 1) if not math.isfinite(loss)}
    assert bad == set(history.skipped)


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got skip_nonfinite=-1; expected at least 0"):
        fit(model(), spoiled(11), steps=2, skip_nonfinite=-1, progress=False)
