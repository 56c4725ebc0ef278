"""Small text to image: a latent diffusion conditioned on a prompt, without and with guidance.

Run ``python examples/prompted.py``, or with ``--data mnist`` or ``--data fashion-mnist``, and with
prompts of your own: ``--prompts "a seven" "three, please"``. The figure is runs/examples/prompted.png.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from sklearn.neighbors import KNeighborsClassifier

from genmod import plots
from genmod.data import Dataset, conditional, load
from genmod.denoisers import Guided
from genmod.evaluation import evaluate
from genmod.models import LatentDiffusion, with_denoiser
from genmod.nn import Labels, Prompts, null_context
from genmod.objectives import Beta
from genmod.random import keyed
from genmod.training import fit

DATA = ("digits", "mnist", "fashion-mnist")
WORDS = {name: Prompts.clothes() if "fashion" in name else Prompts.digits() for name in DATA}
FIGURE = Path("runs/examples/prompted.png")
SCALES, SHOWN = (1.0, 3.0), 6  # guidance scales (1: none), and images for each


def main(data: Dataset, words: Prompts, texts: Sequence[str], steps: int) -> None:
    """Train the autoencoder without prompts, then the diffusion of its latents with prompts."""
    assert data.bins is not None
    assert data.labels is not None
    code: int | tuple[int, ...] = 16 if data.shape[-1] < 16 else (4, 7, 7)
    torch.manual_seed(0)
    model = LatentDiffusion(
        data.shape, data.bins, latents=code, dropout=0.1, condition=Labels(words.classes)
    )
    fit(model.first_stage(), first(data, 500), Beta(0.5), steps=steps)

    # A tenth of the rows have no label, so that the network also learns to sample without one.
    model.cpu().freeze(data.train[:2000])
    fit(model, conditional(first(data, 500), dropout=0.1), steps=steps)
    print(model)

    # A label is worth at most log(10) = 2.30 nats. A larger difference means that the network is worse
    # without a label: only a tenth of its training rows had none.
    test, labels = data.test[:1000], data.labels["test"][:1000]
    for name, context in (("with label", labels), ("without label", null_context(labels))):
        report = evaluate(model, test, context, timesteps=32, replicates=4)
        print(f"{name}, test, {report.stamp.value}: {report.value} nats")

    # Do samples show what the prompt asks for? A classifier by the nearest training images decides.
    model.cpu()
    nearest, known = KNeighborsClassifier(3), data.labels["train"][:5000]
    nearest.fit(data.train[:5000].flatten(1), known)
    asked = torch.arange(200) % words.classes
    agreement = {w: nearest.score(draw(model, asked, w).flatten(1), asked) for w in SCALES}
    on_test = nearest.score(test.flatten(1), labels)
    print(f"samples of the right class, by w: {agreement}; test images: {on_test:.2f}")

    # Left and right have the same noise; an empty image separates them.
    wanted = words.encode(texts).repeat_interleave(SHOWN)
    left, right = (draw(model, wanted, w).unflatten(0, (-1, SHOWN)) for w in SCALES)
    sides = torch.cat([left, torch.full_like(left[:, :1], torch.nan), right], 1) / (data.bins - 1)
    rows = [plots.Row(text or "(anything)", row) for text, row in zip(texts, sides, strict=True)]
    title = "w = {:g} on the left, w = {:g} on the right, from the same noise".format(*SCALES)
    plots.save(plots.strips(rows, title), FIGURE)
    print(f"figure: {FIGURE}")


def first(data: Dataset, count: int) -> Dataset:
    """The data with ``count`` validation rows: enough to choose the best weights."""
    assert data.labels is not None
    marks = {**data.labels, "validation": data.labels["validation"][:count]}
    return replace(data, validation=data.validation[:count], labels=marks)


@torch.no_grad()
def draw(model: LatentDiffusion, labels: torch.Tensor, scale: float) -> torch.Tensor:
    """Draw a guided latent for each label; the mean of the decoder for it."""
    guided = with_denoiser(model, lambda denoiser: Guided(denoiser, scale))
    with keyed(0):
        return model.decoder(guided.prior.sample(len(labels), labels), labels).mean


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="digits", help="the data set")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each of the two stages")
    parser.add_argument("--prompts", nargs="+", help="prompts; an empty one stands for any class")
    chosen = parser.parse_args()
    known = WORDS[chosen.data]
    default = [*map(known.name, range(known.classes)), ""]
    main(load(chosen.data), known, chosen.prompts or default, chosen.steps)
