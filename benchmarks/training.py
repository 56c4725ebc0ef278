r"""Steps per second of ``fit`` beside other trainers: each in a process of its own, in turns.

In one process, trainers disturb each other's memory. So each runs in its own, waits for its turn, makes a
block of steps, and reports the seconds; the order of the turns rotates. A ratio is the median over rounds
of the ratio within a round. Three tables:

1. ``fit`` and a loop written by hand, for the models of ``overhead.py``. The bare loop has fused AdamW, a
   moving average of the weights, gradient clipping, and logs its loss every 10 steps, as ``fit`` does.
2. A VAE of bits in two sizes, with the same networks, data and batch: ``fit``, the bare loop, both under
   accelerate, pythae's trainer and Pyro's SVI. The last two as they come: Adam, no average, no clipping.
3. The seconds of a checkpoint, as a share of the time between two checkpoints.

Run: python benchmarks/training.py        (pythae, Pyro and accelerate are used where they are installed)
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path

import torch
from common import machine, median, ratio, table, write
from overhead import BareVAE, Case, Loss, digits_diffusion, digits_vae, large_vae, same_order
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from genmod.decoders import BernoulliDecoder
from genmod.encoders import GaussianEncoder
from genmod.models import VAE
from genmod.spec import DataSpec
from genmod.training import training_loop
from genmod.training.config import TrainingConfig

RATE, BATCH, LOG_EVERY, WARM = 1e-3, 128, 10, 1
"""The learning rate, rows in a batch, steps between two lines of the log, blocks that are not timed."""
Advance = Callable[[], None]
"""Makes the next block of steps."""


# ---------------------------------------------------------------------- VAEs of bits


class BareBits(BareVAE):
    """The bare VAE with a Bernoulli decoder."""

    def forward(self, x: Tensor) -> Tensor:
        """Minus the mean bound of bits."""
        mean, log_std = self.encoder(x).chunk(2, 1)
        std = log_std.exp()
        kl = 0.5 * (mean.square() + std.square() - 1 - 2 * log_std).sum(1)
        logits = self.decoder(mean + std * torch.randn_like(mean))
        cost = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
        return (kl + cost).mean()


class Bits(Case):
    """A VAE of bits; the bare loop takes them as they are."""

    @property
    def real(self) -> Tensor:
        """The bits as floats."""
        return self.x.float()


def networks(dims: int, width: int, latents: int) -> tuple[nn.Module, nn.Module]:
    """One hidden layer in the encoder and one in the decoder."""
    up = nn.Sequential(nn.Linear(dims, width), nn.ReLU(), nn.Linear(width, 2 * latents))
    down = nn.Sequential(nn.Linear(latents, width), nn.ReLU(), nn.Linear(width, dims))
    return up, down


def bits_vae(dims: int, width: int, latents: int, rows: int) -> Bits:
    """A VAE ``dims-width-latents`` of random bits."""
    up, down = networks(dims, width, latents)
    ours = VAE(
        latents=latents,
        encoder=GaussianEncoder(up, (latents,), DataSpec((dims,), 2)),
        decoder=BernoulliDecoder(down, (dims,)),
    )
    x = torch.randint(0, 2, (rows, dims), dtype=torch.uint8)
    bare = BareBits(*networks(dims, width, latents), 2)
    return Bits(f"VAE of bits {dims}-{width}-{latents}", ours, bare, x, 2)


OWN: Mapping[str, Callable[[], Case]] = {
    "digits VAE": digits_vae,
    "digits diffusion": digits_diffusion,
    "VAE 784-400-20": large_vae,
}
PEERS: Mapping[str, Callable[[int], Case]] = {
    "bits 64-32-4": partial(bits_vae, 64, 32, 4),
    "bits 784-400-20": partial(bits_vae, 784, 400, 20),
}


# ---------------------------------------------------------------------- the trainers


def ours(case: Case, steps: int, accelerator: object | None = None) -> Advance:
    """``fit`` at its defaults, without a display."""
    loop = training_loop(
        case.ours,
        case.x,
        steps=10**7,
        batch_size=BATCH,
        learning_rate=RATE,
        accelerator=accelerator,
        progress=False,
    )
    return partial(_take, loop, steps)


def _take(steps: Iterator[object], count: int) -> None:
    for _ in range(count):
        next(steps)


def bare(case: Case, steps: int, accelerator: object | None = None) -> Advance:
    """The loop that one would write in an afternoon, with a log."""
    return partial(_take, _bare(case.bare, case.real, accelerator), steps)


def _bare(model: nn.Module, x: Tensor, accelerator: object | None) -> Iterator[None]:
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.0, fused=True)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    loss_of: Loss = model
    backward: Callable[[Tensor], None] = torch.Tensor.backward
    clip: Callable[..., object] = nn.utils.clip_grad_norm_
    if accelerator is not None:
        loss_of, optimizer = accelerator.prepare(model, optimizer)  # type: ignore[attr-defined]
        backward, clip = accelerator.backward, accelerator.clip_grad_norm_  # type: ignore[attr-defined]
    log = []
    step = count()
    while True:
        order = torch.randperm(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            optimizer.zero_grad()
            loss = loss_of(x[order[start : start + BATCH]])
            backward(loss)
            clip(model.parameters(), 1.0)
            optimizer.step()
            average.update_parameters(model)
            if next(step) % LOG_EVERY == 0:
                log.append(loss.item())
            yield


def accelerated(route: Callable[..., Advance]) -> Callable[[Case, int], Advance]:
    """A route under accelerate, on one process."""

    def start(case: Case, steps: int) -> Advance:
        accelerate = importlib.import_module("accelerate")
        return route(case, steps, accelerate.Accelerator(cpu=True))

    return start


def pythae(case: Case, steps: int) -> Advance:
    """The trainer of pythae: an epoch of its own loop is a block."""
    models, nets, trainers = (
        importlib.import_module(f"pythae.{name}") for name in ("models", "models.nn", "trainers")
    )
    output = importlib.import_module("pythae.models.base.base_utils").ModelOutput
    datasets = importlib.import_module("pythae.data.datasets")
    dims, latents = case.x.shape[1], _latents(case)

    class Up(nets.BaseEncoder):  # type: ignore[misc, name-defined]
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> object:
            mean, log_variance = self.network(x).chunk(2, 1)
            return output(embedding=mean, log_covariance=log_variance)

    class Down(nets.BaseDecoder):  # type: ignore[misc, name-defined]
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, z: Tensor) -> object:
            return output(reconstruction=self.network(z).sigmoid())

    config = models.VAEConfig(input_dim=(dims,), latent_dim=latents, reconstruction_loss="bce")
    up, down = case.bare.encoder, case.bare.decoder
    assert isinstance(up, nn.Module)
    assert isinstance(down, nn.Module)
    settings = trainers.BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(),
        num_epochs=1,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        no_cuda=True,
    )
    rows = case.real[: steps * BATCH]
    data = datasets.BaseDataset(rows, torch.zeros(len(rows)))
    trainer = trainers.BaseTrainer(
        models.VAE(config, Up(up), Down(down)), data, training_config=settings
    )
    trainer.prepare_training()
    trainer.callback_handler.callbacks = []  # its display, which ours leaves out, too
    epochs = count(1)
    return lambda: trainer.train_step(next(epochs))


def pyro(case: Case, steps: int) -> Advance:
    """Pyro's ``SVI`` with ``Trace_ELBO`` and its own Adam."""
    import pyro as library
    from pyro import distributions as laws
    from pyro.infer import SVI, Trace_ELBO
    from pyro.optim import Adam

    up, down, latents = case.bare.encoder, case.bare.decoder, _latents(case)
    assert callable(up)
    assert callable(down)

    def model(x: Tensor) -> None:
        library.module("decoder", down)
        with library.plate("rows", len(x)):
            normal = laws.Normal(x.new_zeros(len(x), latents), 1.0).to_event(1)
            z = library.sample("z", normal)
            library.sample("x", laws.Bernoulli(logits=down(z)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        library.module("encoder", up)
        with library.plate("rows", len(x)):
            mean, log_std = up(x).chunk(2, 1)
            library.sample("z", laws.Normal(mean, log_std.exp()).to_event(1))

    svi = SVI(model, guide, Adam({"lr": RATE}), Trace_ELBO())
    x = case.real

    def run() -> Iterator[None]:
        while True:
            order = torch.randperm(len(x))
            for start in range(0, len(x) - BATCH + 1, BATCH):
                svi.step(x[order[start : start + BATCH]])
                yield

    return partial(_take, run(), steps)


def _latents(case: Case) -> int:
    with torch.no_grad():
        return case.ours.encode(case.x[:1]).shape[1]


def checkpointed(case: Case, steps: int) -> Advance:
    """Write a tenth as many checkpoints of ``fit`` as a block has steps."""
    file = Path(tempfile.mkdtemp()) / "checkpoint.safetensors"
    loop = training_loop(
        case.ours, case.x, steps=10**7, batch_size=BATCH, checkpoint=file, progress=False
    )
    _take(loop, 10)

    def save() -> None:
        for _ in range(steps // 10):
            loop.save()

    return save


ROUTES: Mapping[str, tuple[Callable[[Case, int], Advance], str | None]] = {
    "fit": (ours, None),
    "bare loop": (bare, None),
    "fit, accelerate": (accelerated(ours), "accelerate"),
    "bare loop, accelerate": (accelerated(bare), "accelerate"),
    "pythae": (pythae, "pythae"),
    "Pyro": (pyro, "pyro"),
    "checkpoint": (checkpointed, None),
}
"""Each trainer by its name in the tables, and the package that it needs."""


# ---------------------------------------------------------------------- a process for each


def worker(route: str, name: str, steps: int, threads: int, shared: bool) -> None:
    """Make a block of steps for each line that comes in, and print the seconds that it took."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    case = OWN[name]() if name in OWN else PEERS[name](steps * BATCH)
    if name in OWN:
        weights = dict(zip(case.bare.state_dict(), same_order(case), strict=True))
        case.bare.load_state_dict(weights)
    clock = time.process_time if shared else time.perf_counter
    advance = ROUTES[route][0](case, steps)
    for _ in sys.stdin:
        began = clock()
        advance()
        print(f"seconds {clock() - began}", flush=True)


class Racer:
    """A trainer in a process of its own, which waits for its turn."""

    def __init__(self, route: str, name: str, given: argparse.Namespace) -> None:
        command = [sys.executable, __file__, "--worker", route, "--case", name]
        command += ["--block", str(given.block), "--threads", str(given.threads)]
        command += ["--shared"] if given.shared else []
        pipe = subprocess.PIPE
        self.name = route
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )

    def turn(self) -> float:
        """The seconds of the next block."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("seconds "):
                return float(line.split()[1])
        raise SystemExit(f"{self.name} stopped: run it with --worker to see why")

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def race(name: str, routes: Sequence[str], given: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every block, by trainer."""
    racers = [Racer(route, name, given) for route in routes]
    seconds: dict[str, list[float]] = {route: [] for route in routes}
    try:
        for turn in range(WARM + given.rounds):
            first = turn // 2 % len(racers)
            order = [*racers[first:], *racers[:first]]
            for racer in order if turn % 2 == 0 else reversed(order):
                spent = racer.turn()
                if turn >= WARM:
                    seconds[racer.name].append(spent)
    finally:
        for racer in racers:
            racer.stop()
    return seconds


def available(routes: Sequence[str]) -> list[str]:
    """The trainers whose packages are installed; the others are named."""
    found = []
    for route in routes:
        package = ROUTES[route][1]
        if package is None or importlib.util.find_spec(package) is not None:
            found.append(route)
        else:
            print(f"{route}: left out, because {package} is not installed")
    return found


def compare(given: argparse.Namespace) -> dict[str, object]:
    """The three tables; every ratio is that of steps a second of ``fit`` to the other's."""
    found: dict[str, object] = {}
    groups: list[tuple[Sequence[str], Sequence[str]]] = [
        (list(OWN), ["fit", "bare loop"]),
        (list(PEERS), available([route for route in ROUTES if route != "checkpoint"])),
    ]
    for names, routes in groups:
        for name in (each for each in names if each in given.cases):
            times = race(name, routes, given)
            speeds = {route: given.block / median(times, route) for route in routes}
            ratios = {route: ratio(times, route, "fit") for route in routes}
            rows = [(route, speeds[route], ratios[route]) for route in routes]
            table((name, "steps/s", "fit is faster by"), rows)
            found[name] = {"steps_per_second": speeds, "fit_is_faster_by": ratios}
    every = TrainingConfig(steps=1).checkpoint_every
    rows = []
    for name in (each for each in OWN if each in given.cases):
        times = race(name, ["fit", "checkpoint"], given)
        between = every / given.block * median(times, "fit")
        write_time = median(times, "checkpoint") / (given.block // 10)
        rows.append((name, 1e3 * write_time, between, write_time / between))
    table(("a checkpoint", "milliseconds", f"seconds of {every} steps", "share"), rows)
    found["checkpoint share"] = {str(row[0]): row[3] for row in rows}
    return found


def main() -> None:
    """All tables, or the turns of one process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="blocks of each trainer")
    parser.add_argument("--block", type=int, default=100, help="steps in a block")
    parser.add_argument("--cases", nargs="+", choices=[*OWN, *PEERS], default=[*OWN, *PEERS])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shared", action="store_true", help="count each process's own seconds")
    parser.add_argument("--out", type=Path, help="a JSON file to write the numbers to")
    parser.add_argument("--worker", choices=list(ROUTES), help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=[*OWN, *PEERS], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        worker(given.worker, given.case, given.block, given.threads, given.shared)
        return
    about = machine() | {"threads": given.threads}
    print(
        f"torch {about['torch']}, {given.threads} threads, batch {BATCH}, blocks of {given.block}"
    )
    write(given.out, {"ratios": compare(given), "threads used": given.threads})


if __name__ == "__main__":
    main()
