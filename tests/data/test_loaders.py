"""Data that come piece by piece: torch data sets, loaders, iterables, generators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from genmod.data import GivenRows, load, loaders, rows_or_dataset
from genmod.evaluation import evaluate
from genmod.models import VAE
from genmod.training import fit

ROWS = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
MARKS = torch.arange(60)


class Stream(IterableDataset[Tensor]):
    """Rows one after the other."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter(ROWS)


def batches() -> Iterator[Tensor]:
    """A generator of batches."""
    yield from ROWS.split(7)


PIECES: dict[str, Callable[[], Any]] = {
    "torch data set": lambda: TensorDataset(ROWS),
    "iterable data set": Stream,
    "loader": lambda: DataLoader(TensorDataset(ROWS), batch_size=8),
    "generator": batches,
    "list of batches": lambda: list(ROWS.split(7)),
    "iterator of arrays": lambda: iter(np.split(ROWS.numpy(), 10)),
}


@pytest.mark.parametrize("name", PIECES)
def test_all_pieces_are_collected(name: str) -> None:
    data = load(PIECES[name](), name="pieces")
    assert data.identity() == load(ROWS, name="pieces").identity()
    rows = rows_or_dataset(PIECES[name]())
    assert isinstance(rows, GivenRows)
    assert torch.equal(rows.x, ROWS)


@pytest.mark.parametrize("make", [TensorDataset, lambda *x: DataLoader(TensorDataset(*x), 8)])
def test_labels_come_with_their_rows(make: Callable[..., Any]) -> None:
    data = load(make(ROWS, MARKS))
    assert data.labels is not None
    for split, part in data.parts().items():
        assert torch.equal(part, ROWS[data.labels[split]])


def test_images_of_a_torch_data_set_become_bytes() -> None:
    """As torchvision gives them without a transform: a PIL image and a class."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (20, 9, 12, 3), np.uint8)

    class Pictures(Dataset[tuple[Image.Image, int]]):
        def __len__(self) -> int:
            return len(pixels)

        def __getitem__(self, place: int) -> tuple[Image.Image, int]:
            return Image.fromarray(pixels[place]), place

    data = load(Pictures(), bins=256)
    assert data.shape == (3, 9, 12)
    assert data.labels is not None
    wanted = torch.from_numpy(pixels[data.labels["test"].numpy()]).permute(0, 3, 1, 2)
    assert torch.equal(data.test, wanted)
    with pytest.raises(ValueError, match="an item of type set from a torch data set"):
        load(Sets())


class Sets(Dataset[set[int]]):
    """Items that are no rows."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, place: int) -> set[int]:
        return {place}


SEEN = torch.rand(60, 3, generator=torch.Generator().manual_seed(1)) < 0.7
SEEN[:, 0] = True
HOLED = torch.where(SEEN, ROWS, torch.nan)


class Masked(Dataset[dict[str, Tensor]]):
    """Rows with their masks."""

    def __len__(self) -> int:
        return len(HOLED)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return {"x": HOLED[place], "observed": SEEN[place]}


MASKED: dict[str, Callable[[], Any]] = {
    "triples": lambda: list(zip(HOLED.split(8), [None] * 8, SEEN.split(8), strict=True)),
    "dictionaries": lambda: [{"x": HOLED, "observed": SEEN}],
    "torch data set": Masked,
    "loader of dictionaries": lambda: DataLoader(Masked(), 8),
}


@pytest.mark.parametrize("name", MASKED)
def test_masks_come_with_their_rows(name: str) -> None:
    """What is loaded and scored is the observed entries alone."""
    data = load(MASKED[name](), name="pieces", seed=3)
    wanted = load(ROWS, observed=SEEN, name="pieces", seed=3)
    assert data.observed is not None
    assert wanted.observed is not None
    for split, part in wanted.parts().items():
        assert torch.equal(data.parts()[split], part)
        assert torch.equal(data.observed[split], wanted.observed[split])
    torch.manual_seed(0)
    model = VAE(wanted, latents=1, width=8)
    report = evaluate(model, MASKED[name]())
    assert report.value == evaluate(model, ROWS, observed=SEEN).value


def test_masks_and_labels_come_in_one_batch() -> None:
    data = load(DataLoader(TensorDataset(HOLED, MARKS, SEEN), 8))
    assert data.labels is not None
    for split, labels in data.labels.items():
        assert torch.equal(data.mask(split), SEEN[labels])  # type: ignore[arg-type]


def test_what_stands_under_a_mask_changes_no_step() -> None:
    losses = []
    spec = load(ROWS, observed=SEEN).spec
    batches: list[Any] = [[(HOLED, None, SEEN)], [{"x": ROWS, "observed": SEEN}]]
    for data in batches:
        torch.manual_seed(0)
        losses.append(fit(VAE(spec, latents=1, width=8), data, steps=3, progress=False).losses)
    assert list(losses[0]) == list(losses[1])


@pytest.mark.parametrize("name", PIECES)
def test_all_kinds_train_and_score(name: str) -> None:
    """Two steps on any of them; the report is that of the rows."""
    torch.manual_seed(0)
    model = VAE(3, latents=1, width=8)
    size = 16 if "data set" in name else None  # loaders cut their own batches
    history = fit(model, PIECES[name](), steps=2, batch_size=size, progress=False)
    assert len(history.losses) == 2
    report = evaluate(model, PIECES[name]())
    assert report.value == evaluate(model, ROWS).value


def test_a_torch_data_set_trains_alike_for_the_same_seed() -> None:
    """A function of the seed; another seed shuffles otherwise."""
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        model = VAE(3, latents=1, width=8)
        fit(model, TensorDataset(ROWS), steps=6, batch_size=16, seed=seed, progress=False)
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([torch.ones(3, 2), torch.ones(3, 4)], r"x of shapes \[\(2,\), \(4,\)\]"),
        ((torch.ones(2) for _ in range(4)), r"a batch of shape \(2,\) from a generator.*x\[None\]"),
        (iter([]), "without batches"),
        ([(torch.ones(2, 2),) * 4], "a loader's batch of 4 parts"),
        ([{"x": ROWS, "mask": ROWS > 0}], r"keys \['mask', 'x'\].*a dictionary with these names"),
        ([{"context": MARKS}], "a loader's batch of keys"),
        (iter([(ROWS, MARKS), ROWS]), "labels in 1 of 2 batches"),
        (iter(["text"]), "x of type str"),
        (TensorDataset(ROWS[:0]), "without batches"),
    ],
)
def test_other_pieces_are_refused(pieces: Iterable[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(pieces)


def test_a_stream_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "_MOST_BATCHES", 100)
    with pytest.raises(ValueError, match="a generator without end"):
        load(ROWS for _ in iter(int, 1))
