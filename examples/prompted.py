"""Text to image, small: a latent diffusion that is told what to draw, in words; and told more loudly.

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
from genmod.denoisers import Guided
from genmod.evaluation import evaluate
from genmod.models import LatentDiffusion, with_denoiser
from genmod.nn import Labels, null_context
from genmod.objectives import Beta
from genmod.random import keyed
from genmod.training import fit

DATA: dict[str, Callable[[], Dataset]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
}
WORDS = {"digits": Prompts(DIGITS), "mnist": Prompts(DIGITS), "fashion_mnist": Prompts(CLOTHES)}
FIGURE = Path("runs/examples/prompted.png")
SCALES, SHOWN = (1.0, 3.0), 6  # of guidance (1 is none), and images of each


def main(data: Dataset, words: Prompts, texts: Sequence[str], steps: int) -> None:
    """Fit the autoencoder without a word, then the diffusion over its latents with words."""
    assert data.bins is not None
    assert data.labels is not None
    code: int | tuple[int, ...] = 16 if data.shape[-1] < 16 else (4, 7, 7)
    torch.manual_seed(0)
    model = LatentDiffusion(
        data.shape, data.bins, latents=code, dropout=0.1, condition=Labels(words.classes)
    )
    fit(model.first_stage(), first(data, 500), Beta(0.5), steps=steps)

    # What images look like is learned; a tenth of them are shown without their label, so that the same
    # network knows images of nothing in particular, too.
    model.cpu().freeze(data.train[:2000])
    fit(model, conditional(first(data, 500), dropout=0.1), steps=steps)
    print(model)

    # A label is worth at most log(10) = 2.30 nats. What it seems to be worth beyond that was lost where
    # nothing is told: the network has seen only a tenth of the rows so.
    test, told = data.test[:1000], data.labels["test"][:1000]
    for name, context in (("told its label", told), ("told nothing", null_context(told))):
        report = evaluate(model, test, context, timesteps=32, replicates=4)
        print(f"{name}, test, {report.stamp.value}: {report.value} nats")

    # Are prompts obeyed? A judge that never saw a sample: the nearest training images.
    model.cpu()
    judge = KNeighborsClassifier(3).fit(data.train[:5000].flatten(1), data.labels["train"][:5000])
    asked = torch.arange(200) % words.classes
    obeyed = {w: judge.score(draw(model, asked, w).flatten(1), asked) for w in SCALES}
    on_test = judge.score(test.flatten(1), told)
    print(f"the judge agrees with 200 prompts, by w: {obeyed}; on test images: {on_test:.2f}")

    # Left and right from the same noise; between them an empty place.
    labels = words.encode(texts).repeat_interleave(SHOWN)
    left, right = (draw(model, labels, w).unflatten(0, (-1, SHOWN)) for w in SCALES)
    sides = torch.cat([left, torch.full_like(left[:, :1], torch.nan), right], 1) / (data.bins - 1)
    rows = [plots.Row(text or "(anything)", row) for text, row in zip(texts, sides, strict=True)]
    title = "w = {:g} on the left, w = {:g} on the right, from the same noise".format(*SCALES)
    plots.save(plots.strips(rows, title), FIGURE)
    print(f"figure: {FIGURE}")


def first(data: Dataset, count: int) -> Dataset:
    """A few hundred images are enough to choose the best weights by."""
    assert data.labels is not None
    marks = {**data.labels, "validation": data.labels["validation"][:count]}
    return replace(data, validation=data.validation[:count], labels=marks)


@torch.no_grad()
def draw(model: LatentDiffusion, labels: torch.Tensor, scale: float) -> torch.Tensor:
    """A latent for each label, guided towards it, and the image that the decoder expects."""
    guided = with_denoiser(model, lambda denoiser: Guided(denoiser, scale))
    with keyed(0):
        return model.decoder(guided.prior.sample(len(labels), labels), labels).mean


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="digits", help="the images")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each of the two stages")
    parser.add_argument("--prompts", nargs="+", help="what to draw; an empty one is anything")
    chosen = parser.parse_args()
    known = WORDS[chosen.data]
    default = [*map(known.name, range(known.classes)), ""]
    main(DATA[chosen.data](), known, chosen.prompts or default, chosen.steps)
