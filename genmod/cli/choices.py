"""What options can be chosen from. Imports nothing heavy, so that ``--help`` answers at once."""

from __future__ import annotations

DATA = ("digits", "mnist", "fashion-mnist")
"""Data sets by name; files of one's own go by their path."""

MODELS = (
    "autoencoder",
    "vae",
    "hvae-bottom-up",
    "hvae-top-down",
    "diffusion",
    "latent-diffusion",
)
"""The models of the default suites."""
