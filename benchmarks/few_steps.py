r"""Few steps: how a diffusion's samples look after 5, 10, 20 and 50 evaluations, by every sampler.

One model for all: the diffusion of ``genmod compare``, trained here for some minutes with that family's
settings and kept in the folder ``--model``, or read from there. How samples look is their Fréchet
distance from test images in the features of genmod's own fixed network; the hash of its weights, the
number of samples and the seed are printed, because only numbers that share them compare. Sample ``i``
starts from the same noise under every sampler.

A sampler takes as many steps as its evaluations pay for; where none fits exactly (Heun's two a step),
the most that fit, and the number is in brackets. Each is run on every grid that differs under the
model's schedule, and the table has the best of them, which favors everyone by the same choice. Samplers
that are one and the same map are found to be by this very model and run once.

Three rows tell where the scale begins: as many real images; ``z_0`` of real images through the decoder,
as well as any sampler could do, since a sampler ends there and the decoder draws the rest; and the
chain itself, ancestral in a thousand steps of ``t`` however many the model was trained with.

The verdict compares the best at ten evaluations with that chain. Where the decoder draws much, its floor
is in both, so they are compared above it, too. The best of many, on the seeds that chose it, is too good:
it is drawn again from fresh seeds, some times over, and their mean is judged. Their spread is about what
the chain's one number has.

Run: python benchmarks/few_steps.py         (the data: see genmod.data.load, or name their --root)
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from common import LOADERS, machine, table, write
from contenders import GRIDS, NAMES, SAME, check_same, differing, samplers, steps_within
from mnist import candidate, train
from safetensors.torch import load_file, save_file
from torch import Tensor

from genmod.compare.candidate import BuildInputs
from genmod.data import Dataset
from genmod.evaluation.batching import evaluating
from genmod.evaluation.sample_quality import Quality, quality
from genmod.models import Diffusion
from genmod.nn.modules import load_weights, weights
from genmod.random import BLOCK, seeded
from genmod.random.streams import mix
from genmod.samplers import Sampler, UniformTime
from genmod.samplers.grids import TimeGrid
from genmod.schedules.base import time_dtype

WANTED = 1.10
"""The most that the best may have of the chain's Fréchet distance."""


@dataclass(frozen=True)
class Found:
    """How samples look that were drawn in one way.

    Args:
        sampler: which; its name in the table.
        budget: how often the denoiser may be asked.
        evaluations: how often it is.
        steps: how many steps that pays for.
        grid: where they lie; the letter of one of the grids.
        quality: what was found.
        seconds: the time it took to draw them.
    """

    sampler: str
    budget: int
    evaluations: int
    steps: int
    grid: str
    quality: Quality
    seconds: float

    def to_dict(self) -> dict[str, object]:
        """As JSON has it."""
        return {**vars(self), "grid": repr(GRIDS[self.grid]), "quality": self.quality.to_dict()}

    def __str__(self) -> str:
        short = f" ({self.evaluations})" if self.evaluations < self.budget else ""
        return f"{self.quality.frechet:.2f} {self.grid}{short}"


# ---------------------------------------------------------------------- the model


def trained(folder: Path, data: Dataset, minutes: float, seed: int) -> Diffusion:
    """The diffusion that the folder holds; trained and put there if there is none.

    Raises:
        SystemExit: the folder's was trained on other data.
    """
    file, about = folder / "model.safetensors", folder / "model.json"
    if file.exists():
        said = json.loads(about.read_text())
        if said["data"] != data.name:
            raise SystemExit(f"{file} was trained on {said['data']}: name another --model")
        model = candidate("diffusion").build(BuildInputs(data, 1.0, {}))
        load_weights(model, load_file(file))
        print(f"{file}: trained for {said['seconds']:.0f} s, {said['steps']:,} steps")
    else:
        found = train(candidate("diffusion"), data, minutes, seed)
        model, steps = found.model, found.plan.steps
        write(about, {"data": data.name, "seed": seed, "steps": steps, "seconds": found.seconds})
        kept = {name: tensor.contiguous().cpu() for name, tensor in weights(model).items()}
        # The weights last: a folder that holds them is complete.
        save_file(kept, file)
    assert isinstance(model, Diffusion)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


# ---------------------------------------------------------------------- ways to draw


def batches(seeds: Sequence[int], draw: Callable[[slice], Tensor]) -> Tensor:
    """What is drawn for all seeds, a batch at a time."""
    starts = range(0, len(seeds), BLOCK)
    return torch.cat([draw(slice(i, min(i + BLOCK, len(seeds)))).cpu() for i in starts])


def rebuilt(model: Diffusion, images: Tensor, seeds: Sequence[int]) -> Tensor:
    """Images drawn by the decoder from the ``z_0`` of these images."""
    device = model.device
    clean = torch.zeros(1, dtype=time_dtype(device), device=device)

    def draw(rows: slice) -> Tensor:
        with seeded(seeds[rows]):
            z = model.encoder(images[rows].to(device)).at(clean).sample()
            return model.decoder(z, None).sample()

    return batches(seeds, draw)


class Contest:
    """All ways to draw from one model, with the same seeds.

    Args:
        model: whose samples.
        data: what they are compared with.
        seeds: one a sample.
    """

    def __init__(self, model: Diffusion, data: Dataset, seeds: Sequence[int]) -> None:
        self.model, self.data, self.seeds = model, data, seeds
        self.schedule = model.prior.schedule
        self.grids = differing(self.schedule)

    def chain(self, steps: int) -> Quality:
        """How the samples of the chain look, in so many ancestral steps."""
        draw = self._draw(self.model.prior.chain, steps, UniformTime(), self.seeds)
        return quality(batches(self.seeds, draw), self.data, name="the chain")

    def decoder(self) -> Quality:
        """How real images look whose last bits the decoder has drawn."""
        images = torch.cat([self.data.validation, self.data.train])[: len(self.seeds)]
        return quality(rebuilt(self.model, images, self.seeds), self.data, name="the decoder")

    def found(self, name: str, sampler: Sampler, budget: int) -> list[Found]:
        """How a sampler's samples look on each grid; nothing if the budget pays for no step."""
        steps = steps_within(sampler, budget)
        if steps < 1:
            return []
        tried = []
        for letter, grid in self.grids.items():
            began = time.perf_counter()
            drawn = batches(self.seeds, self._draw(sampler, steps, grid, self.seeds))
            seconds = time.perf_counter() - began
            seen = quality(drawn, self.data, name=f"{sampler}")
            asked = sampler.evaluations(steps)
            tried.append(Found(name, budget, asked, steps, letter, seen, seconds))
        return tried

    def again(self, won: Found, seeds: Sequence[int]) -> float:
        """The Fréchet distance of samples drawn in the same way from other seeds."""
        sampler = samplers(self.schedule)[won.sampler]
        draw = self._draw(sampler, won.steps, self.grids[won.grid], seeds)
        return quality(batches(seeds, draw), self.data, name=won.sampler).frechet

    def _draw(
        self, sampler: Sampler, steps: int, grid: TimeGrid, seeds: Sequence[int]
    ) -> Callable[[slice], Tensor]:
        def draw(rows: slice) -> Tensor:
            return self.model.sample(
                len(seeds[rows]), sampler=sampler, steps=steps, grid=grid, seeds=seeds[rows]
            )

        return draw


# ---------------------------------------------------------------------- the table


def run(contest: Contest, names: Sequence[str], budgets: Sequence[int]) -> list[Found]:
    """Every chosen sampler on every budget; prints each row as it comes and the best as a table."""
    known = samplers(contest.schedule)
    check_same(contest.model, known, [name for name in names if name in SAME])
    all_found, rows = [], []
    for name in dict.fromkeys(SAME.get(name, name) for name in names):
        shared = [name, *(other for other in names if SAME.get(other) == name)]
        row: list[object] = [" = ".join(shared)]
        for budget in budgets:
            tried = contest.found(name, known[name], budget)
            all_found += tried
            best = min(tried, key=lambda each: each.quality.frechet, default=None)
            row.append("-" if best is None else str(best))
            seconds = sum(each.seconds for each in tried)
            print(f"  {seconds:5.0f} s  {name}, {budget} evaluations: {row[-1]}", flush=True)
        rows.append(row)
    print()
    table(["Fréchet distance, evaluations:", *map(str, budgets)], rows)
    return all_found


def verdict(
    contest: Contest, found: Sequence[Found], floor: float, chain: float, arguments: Namespace
) -> dict[str, object] | None:
    """The best at the budget that is judged, on fresh seeds, against the chain; prints it."""
    tried = [each for each in found if each.budget == arguments.judged]
    if not tried:
        return None
    won = min(tried, key=lambda each: each.quality.frechet)
    fresh = [
        contest.again(won, [mix(arguments.seed, k, i) for i in range(arguments.samples)])
        for k in range(1, arguments.fresh + 1)
    ]
    seen, spread = statistics.fmean(fresh), statistics.pstdev(fresh)
    above, ratio = (seen - floor) / (chain - floor), seen / chain
    print(f"on the seeds that chose it: {won.sampler}, {won.quality.frechet:.2f} {won.grid}")
    print(f"on {len(fresh)} fresh sets of seeds: {seen:.2f}, spread {spread:.2f}")
    print(f"above the decoder's floor: (best - floor) / (chain - floor) = {above:.2f}")
    met = "yes" if ratio <= WANTED else "no"
    line = f"best at {won.budget}: {won.sampler} {seen:.2f} vs chain {chain:.2f}: {ratio:.2f}"
    print(f"{line}, wanted <= {WANTED:.2f}: {met}")
    return {**won.to_dict(), "fresh": fresh, "ratio": ratio, "above the floor": above}


def legend(contest: Contest) -> None:
    """What the letters and the brackets of the table mean."""
    for letter, grid in GRIDS.items():
        print(f"{letter}: {grid}" + ("" if letter in contest.grids else ", which is t here"))
    print("(n): no number of steps takes just so many; with the most that fit, n")


def main(argv: Sequence[str] | None = None) -> None:
    """The ends of the scale, and the table between them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", choices=LOADERS, default="mnist")
    parser.add_argument("--root", type=Path, help="the folder that holds MNIST/raw")
    parser.add_argument(
        "--model", type=Path, help="its folder: read from, or trained and put there"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, if it is trained")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--samplers", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--evaluations", nargs="+", type=int, default=[5, 10, 20, 50])
    parser.add_argument("--chain", type=int, default=1000, help="ancestral steps to compare with")
    parser.add_argument("--judged", type=int, default=10, help="the evaluations that are judged")
    parser.add_argument("--fresh", type=int, default=3, help="other sets of seeds for the best")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/few_steps.json"))
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    print(", ".join(f"{name} {value}" for name, value in machine().items() if value))
    data = LOADERS[arguments.data](arguments.root)
    folder = arguments.model or Path("runs/benchmarks/few_steps") / data.name
    model = trained(folder, data, arguments.minutes, arguments.seed)
    seeds = [mix(arguments.seed, i) for i in range(arguments.samples)]
    with evaluating(model):
        contest = Contest(model, data, seeds)
        rebuilt_images, chain = contest.decoder(), contest.chain(arguments.chain)
        found = run(contest, arguments.samplers, arguments.evaluations)
        floor = rebuilt_images.frechet
        best = verdict(contest, found, floor, chain.frechet, arguments)
    legend(contest)
    print(f"real images against real ones: {chain.zero:.2f}, the zero of the scale")
    print(f"z_0 of real images, decoded: {floor:.2f}, the floor of every sampler")
    print(f"the chain, {arguments.chain:,} evaluations: {chain.frechet:.2f}")
    print(f"N = {chain.samples:,} against {chain.real:,} test images of {data.name}", end=", ")
    print(f"seed {arguments.seed}, features {chain.sha256}")
    record = {
        "data": data.name,
        "seed": arguments.seed,
        "chain": {"evaluations": arguments.chain, **chain.to_dict()},
        "decoder": rebuilt_images.to_dict(),
        "found": [each.to_dict() for each in found],
        "best": best,
    }
    write(arguments.out, record)


if __name__ == "__main__":
    main()
