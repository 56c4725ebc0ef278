r"""VAEs beside those of pythae: equal networks, data, batch and epochs; the likelihood of test rows.

Each library trains with its own loop at the same constant learning rate: pythae's with Adam as it comes,
ours with clipping, too. With ``--decay`` ours has what ``fit`` has by default: averaged weights, a warm-up
and a falling learning rate. After a few hundred steps it has then moved less than half as far. (Averages of
weights belong to a falling rate: at a constant one they lag behind.) All networks start from the same
weights, and see bits as 0 and 1.

Binarized MNIST, one fixed draw of the bits. The columns:

* **-log p(x)**: the importance-weighted bound of test rows, nats. One function scores the models of both
  libraries: pythae's networks are put into a model of ours. **difference** is paired; negative is better
  for ours; with several seeds its error is that over seeds. For the autoencoder it is the squared error of
  a gray test image, summed over its pixels.
* **steps a second**: of the processor's seconds, on one thread; **ratio** is ours over theirs.

Run: python benchmarks/peer_vaes.py        (pythae must be installed; the data: see genmod.data.load)
Smoke test: python benchmarks/peer_vaes.py --quick
"""

from __future__ import annotations

import argparse
import copy
import importlib
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import LOADERS, machine, table, write
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from genmod.data import binarized
from genmod.data.images import digits
from genmod.decoders import BernoulliDecoder, GaussianDecoder
from genmod.encoders import DiracEncoder, GaussianEncoder
from genmod.evaluation import Estimate, log_weights
from genmod.model import LatentModel
from genmod.models import VAE, Autoencoder
from genmod.objectives import IWAE, Beta, Bound, Objective
from genmod.priors import VampPrior
from genmod.spec import DataSpec
from genmod.training import fit

BETA, DRAWS, COMPONENTS = 2.0, 5, 50
"""Of the beta-VAE, of importance-weighted training, and of the VampPrior: pythae's own default there."""
MODELS = ("VAE", "beta-VAE", "IWAE", "VampPrior", "AE")
RATE = 1e-3


@dataclass(frozen=True)
class Setting:
    """What both libraries share.

    Args:
        train, test: rows of a flat image, bits or gray values in [0, 1].
        up, down: the networks with their initial weights.
        latents: how many.
        batch, epochs: of training.
        samples: importance samples of a test row.
        decay: whether our learning rate rises first and falls to 0.
    """

    train: Tensor
    test: Tensor
    up: nn.Module
    down: nn.Module
    latents: int
    batch: int
    epochs: int
    samples: int
    decay: bool

    @property
    def steps(self) -> int:
        """Steps of all epochs; the last, smaller batch of an epoch counts."""
        return self.epochs * math.ceil(len(self.train) / self.batch)


class ZeroOne(nn.Module):
    """A network of bits 0 and 1, as in pythae: an encoder of ours gives its network -1 and 1.

    Args:
        network: the network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """What the network makes of 0 and 1."""
        found: Tensor = self.network((x + 1) / 2)
        return found


def model_of(name: str, up: nn.Module, down: nn.Module, setting: Setting) -> LatentModel:
    """A model of ours around two networks."""
    latents, dims = setting.latents, setting.train.shape[1]
    if name == "AE":
        encoder = DiracEncoder(up, (latents,), DataSpec((dims,)))
        return Autoencoder(
            latents=latents, encoder=encoder, decoder=GaussianDecoder(down, (dims,), 1.0)
        )
    return VAE(
        latents=latents,
        encoder=GaussianEncoder(ZeroOne(up), (latents,), DataSpec((dims,), 2)),
        decoder=BernoulliDecoder(down, (dims,)),
        prior=VampPrior(COMPONENTS) if name == "VampPrior" else None,
    )


def objective_of(name: str) -> Objective:
    """What ours is trained on."""
    return {"beta-VAE": Beta(BETA), "IWAE": IWAE(DRAWS)}.get(name, Bound())


def ours(name: str, setting: Setting, seed: int) -> tuple[LatentModel, float]:
    """Our model after ``fit``, and its steps a second."""
    model = model_of(name, copy.deepcopy(setting.up), copy.deepcopy(setting.down), setting)
    began = time.process_time()
    fit(
        model,
        setting.train,
        objective_of(name),
        steps=setting.steps,
        batch_size=setting.batch,
        learning_rate=RATE,
        seed=seed,
        warmup=100 if setting.decay else 0,
        decay=setting.decay,
        ema=0.999 if setting.decay else 0.0,
        progress=False,
    )
    return model.eval(), setting.steps / (time.process_time() - began)


# ---------------------------------------------------------------------- pythae


class LogStd(nn.Module):
    """A network of means and log-variances, with log-stds in place of those.

    Args:
        network: the network that pythae trained.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Means and log-stds."""
        mean, log_variance = self.network(x).chunk(2, 1)
        return torch.cat([mean, log_variance / 2], 1)


def parts(bits: bool) -> tuple[type[nn.Module], type[nn.Module]]:
    """The kinds of encoder and decoder of pythae, around a network."""
    nets = importlib.import_module("pythae.models.nn")
    output = importlib.import_module("pythae.models.base.base_utils").ModelOutput

    class Up(nets.BaseEncoder):  # type: ignore[misc, name-defined]
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> object:
            found = self.network(x)
            if not bits:
                return output(embedding=found)
            mean, log_variance = found.chunk(2, 1)
            return output(embedding=mean, log_covariance=log_variance)

    class Down(nets.BaseDecoder):  # type: ignore[misc, name-defined]
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, z: Tensor) -> object:
            found = self.network(z)
            return output(reconstruction=found.sigmoid() if bits else found)

    return Up, Down


def build(name: str, setting: Setting) -> Any:
    """A model of pythae."""
    models = importlib.import_module("pythae.models")
    shape, latents = (setting.train.shape[1],), setting.latents
    loss = {"input_dim": shape, "latent_dim": latents, "reconstruction_loss": "bce"}
    kinds: dict[str, Callable[[], tuple[Any, Any]]] = {
        "VAE": lambda: (models.VAE, models.VAEConfig(**loss)),
        "beta-VAE": lambda: (models.BetaVAE, models.BetaVAEConfig(beta=BETA, **loss)),
        "IWAE": lambda: (models.IWAE, models.IWAEConfig(number_samples=DRAWS, **loss)),
        "VampPrior": lambda: (
            models.VAMP,
            models.VAMPConfig(number_components=COMPONENTS, **loss),
        ),
        "AE": lambda: (models.AE, models.AEConfig(input_dim=shape, latent_dim=latents)),
    }
    kind, config = kinds[name]()
    up, down = parts(name != "AE")
    return kind(
        config, encoder=up(copy.deepcopy(setting.up)), decoder=down(copy.deepcopy(setting.down))
    )


def theirs(name: str, setting: Setting) -> tuple[LatentModel, float]:
    """The networks of pythae after its own loop, in a model of ours, and its steps a second."""
    trainers = importlib.import_module("pythae.trainers")
    datasets = importlib.import_module("pythae.data.datasets")
    model = build(name, setting)
    data = datasets.BaseDataset(setting.train.float(), torch.zeros(len(setting.train)))
    with tempfile.TemporaryDirectory() as folder:
        settings = trainers.BaseTrainerConfig(
            output_dir=folder,
            num_epochs=setting.epochs,
            per_device_train_batch_size=setting.batch,
            learning_rate=RATE,
            no_cuda=True,
        )
        trainer = trainers.BaseTrainer(model, data, training_config=settings)
        trainer.prepare_training()
        trainer.callback_handler.callbacks = []  # its display, which ours leaves out, too
        began = time.process_time()
        for epoch in range(1, setting.epochs + 1):
            trainer.train_step(epoch)
        seconds = time.process_time() - began
    up, down = model.encoder.network, model.decoder.network
    found = model_of(
        "AE" if name == "AE" else "VAE", up if name == "AE" else LogStd(up), down, setting
    )
    if name == "VampPrior":
        found = with_mixture(found, model)
    return found.eval(), setting.steps / seconds


@torch.no_grad()
def with_mixture(found: LatentModel, model: Any) -> LatentModel:
    """The model under pythae's prior: the mixture of its posteriors at the pseudo-inputs."""
    means, log_variances = model.encoder.network(model.pseudo_inputs(model.idle_input)).chunk(2, 1)
    posteriors = Independent(Normal(means, (log_variances / 2).exp()), 1)
    law = MixtureSameFamily(Categorical(logits=torch.zeros(len(means))), posteriors)
    return VAE(latents=means.shape[1], encoder=found.encoder, decoder=found.decoder, prior=law)


# ---------------------------------------------------------------------- scores


@torch.no_grad()
def losses(name: str, model: LatentModel, setting: Setting) -> Tensor:
    """Of each test row: minus the importance-weighted bound, or the squared error."""
    if name == "AE":
        x = setting.test.float()
        return (model.reconstruct(x) - x).square().sum(1)
    weights = log_weights(model, setting.test, importance_samples=setting.samples)
    return math.log(setting.samples) - weights.logsumexp(1)


def compare(name: str, arguments: argparse.Namespace) -> list[object]:
    """A line of the table: means over seeds."""
    own_losses, peer_losses, paces = [], [], []
    for seed in range(arguments.seeds):
        setting = setting_of(name, arguments, seed)
        torch.manual_seed(seed)
        peer, peer_pace = theirs(name, setting)
        torch.manual_seed(seed)
        own, pace = ours(name, setting, seed)
        own_losses.append(losses(name, own, setting))
        peer_losses.append(losses(name, peer, setting))
        paces.append((pace, peer_pace))
    a, b = torch.stack(own_losses), torch.stack(peer_losses)
    # Rows are the same for every seed: with several seeds, the error is that over seeds.
    difference = Estimate.of((a - b).mean(1) if len(a) > 1 else (a - b)[0])
    pace, peer_pace = (statistics.median(each) for each in zip(*paces, strict=True))
    return [
        name,
        str(Estimate.of(a.mean(0))),
        str(Estimate.of(b.mean(0))),
        str(difference),
        f"{pace:.0f}",
        f"{peer_pace:.0f}",
        f"{statistics.median(one / other for one, other in paces):.2f}",
    ]


def setting_of(name: str, arguments: argparse.Namespace, seed: int) -> Setting:
    """The rows and networks of a model: bits, and gray values for the autoencoder."""
    gray = digits() if arguments.quick else LOADERS["mnist"](arguments.root)
    data = gray if name == "AE" else binarized(gray)
    train, test = (
        part[:rows].flatten(1)
        for part, rows in ((data.train, arguments.train), (data.test, arguments.test))
    )
    if name == "AE":
        top = (gray.bins or 2) - 1
        train, test = train.float() / top, test.float() / top
    torch.manual_seed(1 + seed)
    dims, width, latents = train.shape[1], arguments.width, arguments.latents
    ends = latents if name == "AE" else 2 * latents
    up = nn.Sequential(nn.Linear(dims, width), nn.ReLU(), nn.Linear(width, ends))
    down = nn.Sequential(nn.Linear(latents, width), nn.ReLU(), nn.Linear(width, dims))
    return Setting(
        train,
        test,
        up,
        down,
        latents,
        arguments.batch,
        arguments.epochs,
        arguments.samples,
        arguments.decay,
    )


HEAD = ["model", "ours", "pythae", "difference", "steps a second", "pythae", "ratio"]


def main(argv: Sequence[str] | None = None) -> None:
    """Train and score every model in both libraries."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, help="the folder that holds MNIST/raw")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--train", type=int, default=10_000, help="training rows")
    parser.add_argument("--test", type=int, default=1000, help="test rows")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=int, default=400)
    parser.add_argument("--latents", type=int, default=20)
    parser.add_argument("--samples", type=int, default=128, help="importance samples of a test row")
    parser.add_argument("--seeds", type=int, default=1, help="of weights and noise, from 0 on")
    parser.add_argument("--decay", action="store_true", help="ours with the rates of fit")
    parser.add_argument(
        "--quick", action="store_true", help="one epoch of the digits: a smoke test"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/peer_vaes.json"))
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.epochs, arguments.test, arguments.samples = 1, 50, 8
    torch.set_num_threads(1)
    print(", ".join(f"{name} {value}" for name, value in machine().items() if value))
    rows: list[list[object]] = []
    for name in arguments.models:
        rows.append(compare(name, arguments))
        print(*rows[-1], sep=" | ", flush=True)
        write(arguments.out, {"head": HEAD, "rows": rows}, tell=False)
    print()
    table(HEAD, rows)


if __name__ == "__main__":
    main()
