"""Text to image, small: a latent diffusion that is told what to draw, in words.

Run ``python examples/prompted.py``, or with ``--data mnist`` or ``--data fashion_mnist``, and with
prompts of your own: ``--prompts "a seven" "three, please"``. The figure is runs/examples/prompted.png.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from sklearn.neighbors import KNeighborsClassifier

from genmod import plots
from genmod.data import CLOTHES, DIGITS, Dataset, Prompts, conditional, digits, fashion_mnist, mnist
from genmod.evaluation import evaluate
from genmod.models import LatentDiffusion
from genmod.nn import Labels, nothing_like
from genmod.objectives import Beta
from genmod.training import fit, train

DATA: dict[str, Callable[[], Dataset]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
}
WORDS = {"digits": Prompts(DIGITS), "mnist": Prompts(DIGITS), "fashion_mnist": Prompts(CLOTHES)}
FIGURE = Path("runs/examples/prompted.png")


def main(data: Dataset, words: Prompts, texts: Sequence[str], steps: int) -> None:
    """Fit the autoencoder without a word, then the diffusion over its latents with words."""
    assert data.bins is not None
    assert data.labels is not None
    code: int | tuple[int, ...] = 16 if data.shape[-1] < 16 else (4, 7, 7)
    torch.manual_seed(0)
    model = LatentDiffusion(
        data.shape, data.bins, latents=code, dropout=0.1, condition=Labels(words.classes)
    )
    train(fit(model.first_stage(), first(data, 500), Beta(0.5), steps=steps))

    # What images look like is learned; a tenth of them are shown without their label, so that the same
    # network knows images of nothing in particular, too.
    model.cpu().freeze(data.train[:2000])
    train(fit(model, conditional(first(data, 500), dropout=0.1), steps=steps))
    print(model)

    # A label is worth at most log(10) = 2.30 nats. What it seems to be worth beyond that was lost where
    # nothing is told: the network has seen only a tenth of the rows so.
    test, told = data.test[:1000], data.labels["test"][:1000]
    for name, context in (("told its label", told), ("told nothing", nothing_like(told))):
        report = evaluate(model, test, context, draws=32, replicates=4)
        print(f"{name}, test, {report.stamp.value}: {report.value} nats")

    # Are prompts obeyed? A judge that never saw a sample: the nearest training images.
    model.cpu()
    judge = KNeighborsClassifier(3).fit(flat(data.train[:5000]), data.labels["train"][:5000])
    asked = torch.arange(200) % words.classes
    agreed = judge.score(flat(draw(model, asked)), asked)
    right = judge.score(flat(test), told)
    print(f"the judge agrees with {agreed:.0%} of 200 prompts; on test images with {right:.0%}")

    rows = [
        plots.Row(text or "(anything)", draw(model, label.expand(10)) / (data.bins - 1))
        for text, label in zip(texts, words.encode(texts), strict=True)
    ]
    plots.save(plots.strips(rows), FIGURE)
    print(f"figure: {FIGURE}")


def first(data: Dataset, count: int) -> Dataset:
    """A few hundred images are enough to choose the best weights by."""
    assert data.labels is not None
    marks = {**data.labels, "validation": data.labels["validation"][:count]}
    return replace(data, validation=data.validation[:count], labels=marks)


@torch.no_grad()
def draw(model: LatentDiffusion, labels: torch.Tensor) -> torch.Tensor:
    """A latent for each label, and the image that the decoder expects for it."""
    return model.decoder(model.prior.sample(len(labels), labels), labels).mean


def flat(images: torch.Tensor) -> torch.Tensor:
    """Images as rows of numbers."""
    return images.flatten(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="digits", help="the images")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each of the two stages")
    parser.add_argument("--prompts", nargs="+", help="what to draw; an empty one is anything")
    chosen = parser.parse_args()
    known = WORDS[chosen.data]
    default = [*map(known.name, range(known.classes)), ""]
    main(DATA[chosen.data](), known, chosen.prompts or default, chosen.steps)
