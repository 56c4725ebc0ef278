"""Evaluation in bounded memory: the growth of a process, measured in one of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAD = """
import resource, torch
from genmod.evaluation import evaluate
from genmod.models import VAE, Diffusion

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

class Net(torch.nn.Module):
    def forward(self, z, log_snr):
        return 0 * z
"""

ONE_ROW = """
model = Diffusion((3, 32, 32), bins=256, denoiser=Net(), steps=1000)
x = torch.zeros(1, 3, 32, 32).long()
before = peak()
evaluate(model, x)
print(peak() - before)
"""

RECONSTRUCTIONS = """
model = VAE((1, 28, 28), bins=256, latents=4, width=16).eval()
x = torch.zeros({rows}, 1, 28, 28, dtype=torch.uint8)
before = peak()
model.reconstruct(x)
print(peak() - before)
"""

HISTOGRAM = """
from genmod.evaluation.baselines import pixel_histogram
x = torch.zeros(30_000, 1, 28, 28, dtype=torch.uint8)
before = peak()
pixel_histogram(x, x[:5_000], 256)
print(peak() - before)
"""


MAP = """
from genmod.evaluation import latent_map
model = VAE(4, latents=500, width=8).eval()
x = torch.zeros(60_000, 4)
latent_map(model, x[:3000])
before = peak()
latent_map(model, x)
print(peak() - before)
"""


def growth(code: str) -> float:
    """How many megabytes a piece of code adds to the largest size of its process."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


@pytest.mark.parametrize(
    ("code", "most"),
    [
        (ONE_ROW, 200),
        pytest.param(RECONSTRUCTIONS.format(rows=1000), 300, marks=pytest.mark.slow),
        pytest.param(HISTOGRAM, 60, marks=pytest.mark.slow),
        pytest.param(MAP, 60, marks=pytest.mark.slow),
        pytest.param(RECONSTRUCTIONS.format(rows=10_000), 1000, marks=pytest.mark.slow),
    ],
    ids=[
        "one row of 1000 levels",
        "1,000 reconstructions",
        "counts",
        "map",
        "10,000 reconstructions",
    ],
)
def test_memory_grows_with_a_chunk_and_not_with_the_rows(code: str, most: float) -> None:
    """All levels of 256 rows took 8 GB; all masses of 500 rows took 4 GB; counts of 60,000, 750 MB."""
    assert growth(code) < most
