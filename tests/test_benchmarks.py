"""Every benchmark runs with tiny settings, prints its table and writes what it says; no time is judged."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import matplotlib.image
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from genmod.compare.member import Member, Setting
from genmod.compare.plan import Plan
from genmod.data import Dataset, dataset
from genmod.denoisers import VelocityTarget
from genmod.models import Diffusion
from genmod.nn import UNet
from genmod.schedules import LinearBeta

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = {path.stem for path in BENCHMARKS.glob("*.py")}
Script = Callable[[str], ModuleType]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """Imports a benchmark as running it does: with its own folder on the path, and not for good."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in NAMES:
        sys.modules.pop(name, None)


def images(side: int, name: str = "mnist") -> Dataset:
    """A few gray images of noise."""
    x = torch.randint(0, 256, (60, 1, side, side))
    return dataset(x, name=name, bins=256)


def small(setting: Setting) -> Diffusion:
    """A diffusion that takes no time."""
    return Diffusion(setting.data.shape, setting.data.bins, steps=setting.latents, width=8)


def read(path: Path) -> dict[str, object]:
    """What a benchmark wrote; all of them say what they were measured on."""
    found: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    assert found["machine"]
    return found


def test_routes_take_turns_in_every_order(script: Script) -> None:
    """Twice as many rounds as routes: each was equally often first, and in each of two directions."""
    said: list[str] = []
    routes = {name: lambda name=name: said.append(name) for name in "abc"}
    clock = iter(range(1000)).__next__
    times = script("common").take_turns(routes, 6, clock, warmup=0)
    assert "".join(said) == "abccbabcaacbcabbac"
    assert times == {name: [1] * 6 for name in "abc"}


def test_the_ratio_is_of_neighbors_in_time(script: Script) -> None:
    """A machine that slows down threefold half-way moves neither column's ratio."""
    times = {"a": [1.0, 1.0, 3.0], "b": [2.0, 2.0, 6.0]}
    assert script("common").ratio(times, "a", "b") == 0.5


@pytest.mark.usefixtures("as_users_run")
def test_multiply_adds_are_those_that_torch_counts(script: Script) -> None:
    """By hooks on layers, and by torch's own counter of dispatched products: two routes, one number."""
    unet = script("unet")
    for network in (unet.ours(16), unet.patched(16)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(1, 1, 28, 28), torch.zeros(1))
        assert 2 * unet.multiply_adds(network) == counter.get_total_flops()


@pytest.mark.usefixtures("as_users_run")
def test_unet(script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "unet.json"
    tiny = ["--rounds", "1", "--threads", "1", "--batch", "1", "--side", "32", "--alone"]
    script("unet").main([*tiny, "--shared", "--bfloat16", "--out", str(out)])
    printed = capsys.readouterr().out
    assert "share of the peak" in printed
    assert "without diffusers" in printed
    steps = read(out)["steps"]
    assert isinstance(steps, list)
    kinds = {(row["net"], row["dtype"], row["optimizer"]) for row in steps}
    assert len(kinds) == 2 * 2 * 2
    assert all(row["seconds"] > 0 for row in steps)


@pytest.mark.usefixtures("as_users_run")
def test_steps(script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "steps.json"
    tiny = ["--rounds", "2", "--threads", "1", "--batch", "2", "--block", "1"]
    script("steps").main([*tiny, "--out", str(out)])
    assert "farthest from flat" in capsys.readouterr().out
    found = read(out)
    for title in ("perceptron, 8 x 8", "U-Net, 28 x 28"):
        case = found[title]
        assert isinstance(case, dict)
        assert case["ratios"].keys() == case["seconds"].keys()
        assert case["ratios"]["T = 10"] == 1
        assert {"T = 1,000,000", "continuous"} <= case["ratios"].keys()


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers' own
def test_sampling(script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sampling.json"
    tiny = ["--rounds", "1", "--threads", "1", "--batch", "1", "--steps", "3"]
    tiny += ["--paths", "2", "--out", str(out)]
    script("sampling").main(tiny)
    printed = capsys.readouterr().out
    assert "noise alone" in printed
    assert "<= 0.5: " in printed
    found = read(out)
    for prediction in ("epsilon", "sample"):
        case = found[prediction]
        assert isinstance(case, dict)
        names = {"DDIM", "DDPM", "DPM-Solver++ 2M", "UniPC 2", "Euler", "Heun"}
        assert names | {"noise"} <= case["seconds a path"].keys()
        # Their Heun takes no prediction of the data.
        assert case["ratios"].keys() == names - ({"Heun"} if prediction == "sample" else set())
        assert all(seconds[0] > 0 for seconds in case["seconds a path"].values())


@pytest.mark.usefixtures("as_users_run")
def test_mnist(
    script: Script,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark, out = script("mnist"), tmp_path / "mnist.json"
    monkeypatch.setitem(benchmark.LOADERS, "mnist", lambda root: images(8))
    monkeypatch.setattr(benchmark, "IMAGES", [Member("diffusion", small, Plan(10, batch_size=4))])
    tiny = ["--minutes", "0.001", "--threads", "1", "--draws", "1", "--replicates", "2"]
    benchmark.main(["--data", "mnist", *tiny, "--out", str(out)])
    printed = capsys.readouterr().out
    assert "<= 1.20" in printed
    assert "estimate" in printed
    runs = read(out)["runs"]
    assert isinstance(runs, list)
    assert runs[0]["report"]["samples"] == 12
    assert runs[0]["report"]["bits_per_dim"]["standard_error"] > 0
    assert len(runs[0]["curve"]) >= 1


@pytest.mark.usefixtures("as_users_run")
def test_a_gpu_run_stops_and_goes_on(
    script: Script,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In one call or in several: the record and the weights are there at the end, no checkpoint is."""
    benchmark = script("gpu_diffusion")
    monkeypatch.setitem(benchmark.LOADERS, "mnist", lambda root: images(8))
    monkeypatch.setattr(benchmark, "_SAVED", 0.0)
    tiny = ["--data", "mnist", "--minutes", "0.02", "--width", "16", "--blocks", "1"]
    tiny += ["--decoder-blocks", "1", "--components", "2", "--batch", "4", "--out", str(tmp_path)]
    benchmark.main([*tiny, "--stop-after", "0.001"])
    assert "the same command goes on" in capsys.readouterr().out
    benchmark.main(tiny)
    assert "bits/dim (estimate, 12 of 12 test images; aim < 0.90)" in capsys.readouterr().out
    found = read(tmp_path / "mnist.json")
    curve, plan = found["curve"], found["plan"]
    assert isinstance(curve, list)
    assert isinstance(plan, dict)
    assert [point["step"] for point in curve] == sorted({point["step"] for point in curve})
    assert curve[-1]["step"] == plan["steps"]
    assert {path.name for path in tmp_path.iterdir()} == {"mnist.json", "mnist.safetensors"}
    with pytest.raises(SystemExit, match="other settings \\(noisy\\)"):
        benchmark.main([*tiny, "--noisy", "-6"])


@pytest.mark.usefixtures("as_users_run")
def test_diffusion(
    script: Script,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ours, one peer that learns with two rates, and one that is not installed."""
    peers, benchmark = script("peers"), script("diffusion")
    monkeypatch.setitem(benchmark.LOADERS, "mnist", lambda root: images(8))

    def small_net(schedule: LinearBeta) -> UNet:
        return UNet((1, 8, 8), width=16, patch=2)

    ours = peers.Entrant("ours", "torch", small_net, VelocityTarget(), (1e-3,))
    theirs = peers.Entrant("theirs", "torch", small_net, VelocityTarget(), (1e-30, 1e-3), share=0.5)
    absent = peers.Entrant("absent", "no_such_package", small_net, VelocityTarget(), (1e-3,))
    monkeypatch.setattr(benchmark, "GENMOD", ours)
    monkeypatch.setattr(benchmark, "PEERS", [theirs, absent])
    tiny = ["--seconds", "0.2", "--rounds", "2", "--looks", "2", "--threads", "1", "--batch", "4"]
    out = tmp_path / "diffusion.json"
    benchmark.main([*tiny, "--images", "4", "--draws", "2", "--last-draws", "3", "--out", str(out)])
    printed = capsys.readouterr().out
    assert "without absent" in printed
    assert "at the end, 4 images, 3 levels each" in printed
    assert "<= 50%" in printed
    found = read(out)
    curves, rows = found["curves"], found["table"]
    assert isinstance(curves, dict)
    assert isinstance(rows, list)
    assert {name: len(curve) for name, curve in curves.items()} == {
        "ours, 0.001": 4,
        "theirs, 1e-30": 2,
        "theirs, 0.001": 2,
    }
    script("draw").main([str(out)])
    assert matplotlib.image.imread(out.with_suffix(".png")).std() > 0
    ends = found["ends"]
    assert isinstance(ends, dict)
    (mine, other) = ends.values()
    assert other["less"] == pytest.approx(other["bits"] - mine["bits"], abs=1e-5)
    assert mine["error"] > 0
    for row, number in zip(rows, ("mse", "bits"), strict=True):
        assert row["value"] == min(
            curves[f"theirs, {rate:g}"][-1][number] for rate in (1e-30, 1e-3)
        )


def test_the_noise_error_of_a_network_that_says_nothing(script: Script) -> None:
    """What is trained on and what is looked at, against the closed form.

    A velocity of zero stands for ``eps_hat = sigma z``, whose error ``alpha (alpha eps - sigma x)`` has
    the mean square ``alpha^2 (alpha^2 + sigma^2 x^2)``. With a plus for the minus in ``x - x_hat``, or
    sigma / alpha for alpha / sigma, the loss fails.
    """
    contestant, common = script("contestant"), script("common")
    data, schedule = images(8), LinearBeta(contestant.LEVELS)

    def silent(schedule: LinearBeta) -> UNet:
        return UNet((1, 8, 8), width=16, patch=2)

    entrant = script("peers").Entrant("silent", "torch", silent, VelocityTarget(), (1e-3,))
    held = contestant.Held(data.train, 64, data.train[:8])
    batches = contestant.Batches(data.train, None, len(data.train), seed=0)
    found = contestant.Contestant(entrant, 1e-3, batches, held, common.time.perf_counter)
    found.look()
    losses = []
    for found.step in range(64):
        with torch.no_grad():
            losses.append(found.loss())
    alpha, sigma = schedule.scales(torch.linspace(0, 1, contestant.LEVELS, dtype=torch.float64))
    square = (data.train.double() / 127.5 - 1).square().mean()
    expected = float((alpha**2 * (alpha**2 + sigma**2 * square)).mean())
    assert found.curve[0]["mse"] == pytest.approx(expected, rel=1e-2)
    assert float(torch.stack(losses).mean()) == pytest.approx(expected, rel=1e-2)


def test_a_level_is_told_by_its_index(script: Script) -> None:
    """Every row of DDPM's table, given as the log-SNR that networks are told, in float32."""
    schedule = LinearBeta(1000)
    told = script("peers").Indexed(torch.nn.Identity(), schedule)
    assert (told.index(schedule.table.float()) == torch.arange(1000)).all()


@pytest.mark.usefixtures("as_users_run")
def test_gaussian_kl(
    script: Script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gaussian_kl", "--rounds", "1", "--threads", "1"])
    script("gaussian_kl").main()
    assert "x plain" in capsys.readouterr().out


@pytest.mark.usefixtures("as_users_run")
def test_overhead(
    script: Script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One case of three: they differ in size."""
    overhead = script("overhead")
    tiny = ["--blocks", "1", "--block", "1", "--batch", "2", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["overhead", *tiny])
    monkeypatch.setattr(overhead, "large_vae", overhead.digits_vae)
    monkeypatch.setattr(overhead.Case.require_equal_losses, "__defaults__", (64, 10))
    overhead.main()
    assert "digits diffusion" in capsys.readouterr().out


def brief(setting: Setting) -> Diffusion:
    """A short chain that takes no time."""
    return Diffusion(setting.data.shape, setting.data.bins, steps=4, width=8)


@pytest.mark.usefixtures("as_users_run")
def test_few_steps(
    script: Script,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Twice: the second run reads the model that the first has trained, and finds the same numbers."""
    benchmark, model, out = script("few_steps"), tmp_path / "model", tmp_path / "few_steps.json"
    data = dataset(torch.randint(0, 256, (500, 1, 8, 8)), name="mnist", bins=256)
    monkeypatch.setitem(benchmark.LOADERS, "mnist", lambda root: data)
    members = [Member("diffusion", brief, Plan(10, batch_size=4))]
    monkeypatch.setattr(script("mnist"), "IMAGES", members)
    tiny = ["--model", str(model), "--minutes", "0.001", "--threads", "1", "--samples", "70"]
    tiny += ["--out", str(out), "--chain", "3", "--judged", "5", "--fresh", "2"]
    tiny += ["--evaluations", "5"]
    benchmark.main(tiny)
    printed = capsys.readouterr().out
    assert "Euler = DDIM eta=0 = DPM-Solver 1 " in printed
    assert "UniformLogSNR(), which is t here" in printed
    assert "the chain, 3 evaluations" in printed
    assert "wanted <= 1.10: " in printed
    assert benchmark.NAMES[-1] in printed
    first = read(out)
    found, chain = first["found"], first["chain"]
    assert isinstance(found, list)
    assert isinstance(chain, dict)
    assert len(found) == 2 * 15
    best = first["best"]
    assert isinstance(best, dict)
    least = min(each["quality"]["frechet"] for each in found)
    assert best["quality"]["frechet"] == least
    assert len(set(best["fresh"]) - {least}) == 2
    mean = sum(best["fresh"]) / 2
    assert best["ratio"] == pytest.approx(mean / chain["frechet"])
    decoder = first["decoder"]
    assert isinstance(decoder, dict)
    above = (mean - decoder["frechet"]) / (chain["frechet"] - decoder["frechet"])
    assert best["above the floor"] == pytest.approx(above)
    for each in found:
        short = each["sampler"] in ("Heun", "StochasticHeun")
        assert each["evaluations"] == (4 if short else each["budget"])
        assert each["quality"]["zero"] == chain["zero"]
        assert each["quality"]["samples"] == 70
    script("draw").main([str(out)])
    assert matplotlib.image.imread(out.with_suffix(".png")).std() > 0
    benchmark.main([*tiny, "1", "--samplers", "DDIM eta=1", "Heun"])
    printed = capsys.readouterr().out
    assert "trained for" in printed
    assert "Heun, 1 evaluations: -" in printed
    again = read(out)
    assert again["chain"] == chain
    assert again["decoder"] == first["decoder"]
    mine = [each["quality"] for each in found if each["sampler"] in ("Ancestral", "Heun")]
    assert isinstance(again["found"], list)
    assert [each["quality"] for each in again["found"] if each["budget"] == 5] == mine


def test_steps_are_the_most_that_evaluations_pay_for(script: Script) -> None:
    contenders = script("contenders")
    known = contenders.samplers(LinearBeta(10))
    steps = {name: contenders.steps_within(each, 5) for name, each in known.items()}
    assert steps.pop("Heun") == steps.pop("StochasticHeun") == 2
    assert steps.pop("DPM-Solver 3M") == 4
    assert set(steps.values()) == {5}
