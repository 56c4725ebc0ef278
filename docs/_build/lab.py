"""The page of the lab, docs/lab: its files from the package, its two models trained here.

Run: python docs/_build/lab.py           copies the files of the page, and keeps the models
     python docs/_build/lab.py --train   trains the models again, in some minutes on one core
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from genmod import VAE, Diffusion, data, fit
from genmod.data import Dataset, conditional
from genmod.files import write_text
from genmod.lab import write_lab
from genmod.lab import page_files
from genmod.model import LatentModel
from genmod.nn import Labels
from genmod.schedules import Cosine

LAB = Path(__file__).parents[1] / "lab"
HOME = (
    '<p><a href="../index.html">genmod</a> · <a href="../guides/lab.html">About the lab</a></p>\n      '
)
"""Relative: the site is also read from disk."""
STEPS = 4000


def models(digits: Dataset, steps: int) -> list[LatentModel]:
    """A VAE with two latents, and a diffusion conditioned on the labels, a tenth of which are dropped."""
    labeled = conditional(digits, dropout=0.1)
    torch.manual_seed(0)
    vae = VAE(digits, latents=2, width=64)
    diffusion = Diffusion(labeled, condition=Labels(10), schedule=Cosine(), width=192)
    fit(vae, digits, steps=steps, progress=False)
    fit(diffusion, labeled, steps=steps, progress=False)
    return [vae, diffusion]


def copy_page() -> None:
    """The files of the page beside the models that are there, with a link to the site."""
    for name, text in page_files(len(list(LAB.glob("model-*.js"))), HOME).items():
        write_text(LAB / name, text)


def main() -> None:
    """Copy the page, or train and write all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", action="store_true", help="train the two models again")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of each")
    given = parser.parse_args()
    if given.train:
        digits = data.load("digits")
        write_lab(models(digits, given.steps), digits, LAB)
    copy_page()


if __name__ == "__main__":
    main()
