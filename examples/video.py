"""Small video: a diffusion of clips of moving digits, with a 3-D U-Net.

Run ``python examples/video.py``. A clip is a volume (1, 8, 12, 12): a handwritten digit that drifts
over 8 frames and bounces off the edges. The figure is runs/examples/video.png.
"""

import argparse
from pathlib import Path

import torch

from genmod import plots
from genmod.data import Dataset, load
from genmod.evaluation import evaluate
from genmod.models import Diffusion
from genmod.nn import ConvNets
from genmod.training import fit

FRAMES, SIDE = 8, 12
FIGURE = Path("runs/examples/video.png")


def main(steps: int) -> None:
    """Train on clips, evaluate test clips, and draw new ones."""
    data = moving(load("digits"), copies=4)
    print(data)
    assert data.bins is not None
    torch.manual_seed(0)
    # Time is a dimension like height and width: convolutions see neighboring frames and pixels.
    networks = ConvNets(width=32, patch=2)
    model = Diffusion(data.shape, data.bins, networks=networks)
    print(model)
    fit(model, data, steps=steps, batch_size=32, learning_rate=2e-3)

    report = evaluate(model, data.test[:100], timesteps=4, replicates=4)
    print(f"test, {report.stamp.value}: {report.value} nats = {report.bits_per_dim} bits/dim")

    # Do samples move as the data do? Neighboring frames should be more alike than random frames.
    model.cpu()
    clips = model.sample(16)
    for name, shown in (("test clips", data.test[:200]), ("samples", clips)):
        order = torch.randperm(FRAMES)
        print(
            f"{name}: a frame differs from the next by {change(shown):.2f} gray levels per pixel, ",
            end="",
        )
        print(f"with frames in random order by {change(shown[:, :, order]):.2f}")

    rows = [
        plots.Row(f"{name} {number + 1}", clip[0, :, None] / (data.bins - 1))
        for name, shown in (("test", data.test), ("sample", clips))
        for number, clip in enumerate(shown[:5])
    ]
    plots.save(
        plots.strips(rows, "Clips of moving digits", "Each row: 8 frames of one clip."), FIGURE
    )
    print(f"figure: {FIGURE}")


def moving(data: Dataset, copies: int) -> Dataset:
    """Clips of the digits, each with ``copies`` starting points and velocities."""
    room = SIDE - data.shape[-1]
    generator = torch.Generator().manual_seed(0)

    def clips(images: torch.Tensor) -> torch.Tensor:
        images = images[:, 0].repeat(copies, 1, 1)
        made = torch.zeros(len(images), 1, FRAMES, SIDE, SIDE, dtype=images.dtype)
        start = torch.randint(room + 1, (len(images), 2), generator=generator)
        speed = torch.randint(2, (len(images), 2), generator=generator) * 2 - 1
        for clip, image in enumerate(images):
            for frame in range(FRAMES):
                # A triangle wave: there and back between the edges.
                place = (start[clip] + speed[clip] * frame) % (2 * room)
                down, right = torch.minimum(place, 2 * room - place).tolist()
                made[clip, 0, frame, down : down + 8, right : right + 8] = image
        return made

    # A few clips are enough to choose the best weights.
    parts = (clips(part) for part in (data.train, data.validation[:16], data.test))
    return Dataset("moving digits", *parts, bins=data.bins)


def change(clips: torch.Tensor) -> float:
    """The mean absolute difference between a frame and the next, in gray levels."""
    return float(clips.double().diff(dim=2).abs().mean())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500, help="training steps")
    main(parser.parse_args().steps)
