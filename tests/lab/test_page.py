"""The page in a browser: its numbers are torch's, and it answers to keys, fingers and sliders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from genmod.data import load
from genmod.denoisers import Guided
from genmod.diffusion import DiffusionPrior
from genmod.lab import _examples, _noise, halved, page_files, write_lab
from genmod.model import LatentModel
from genmod.models import VAE, Diffusion
from genmod.nn import Labels
from genmod.plots.schedules import step_weights
from genmod.samplers import DDIM, Ancestral, DPMSolver, Heun, Sampler, UniformLogSNR, UniformTime
from genmod.schedules import Cosine
from tests.lab.browser import Visit, needs_browser, visit

pytestmark = needs_browser

CALL, PATH = 1e-4, 1e-3
STEPS, GUIDANCE, LABEL = 20, 2.0, 3
SAMPLERS: dict[str, Sampler] = {
    "ancestral": Ancestral(),
    "ddim": DDIM(),
    "heun": Heun(),
    "dpm": DPMSolver(order=2),
}
GRIDS = {"time": UniformTime(), "log_snr": UniformLogSNR()}
TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where the script leaves the slider."""

SCRIPT = """
const [vae, diffusion] = lab.sections.map((each) => each.model);
const labels = [3, -100];
const noise = (place) => diffusion.row(diffusion.noise, place).data;
const both = new Float32Array([...noise(0), ...noise(1)]);
const calls = {
  x_hat: diffusion.call("denoiser", {
    z_t: { shape: [2, 1, 8, 8], type: "float32", data: both },
    log_snr: { shape: [2], type: "float32", data: Float32Array.from([1, -3]) },
    context: { shape: [2], type: "int64", data: Float64Array.from(labels) },
  }).x_hat,
  posterior: vae.call("posterior", { x: vae.row(vae.x, 1) }),
};
calls.bound = vae.call("bound", {
  x: vae.row(vae.x, 1), z: { shape: [1, 2], type: "float32", data: Float32Array.from([0.5, -1.25]) },
  ...calls.posterior,
});
const plain = (value) => (value.data ? Array.from(value.data) : Object.fromEntries(
  Object.entries(value).map(([name, each]) => [name, plain(each)])));
const paths = {};
for (const method of ["ancestral", "ddim", "heun", "dpm"]) {
  for (const even of ["time", "log_snr"]) {
    let draws = 0;
    const fresh = () => noise((draws += 1));
    const denoise = (z, logSnr) => diffusion.denoise(z, logSnr, 3, 2);
    const states = [...lab.path(method, noise(0), diffusion.grid(20, even), denoise, fresh)];
    paths[`${method} ${even}`] = states.map(({ z }) => Array.from(z));
  }
}

const part = (place, name) => lab.sections[place].section.querySelector(`[data-part=${name}]`);
const [plane, panel] = [part(0, "plane"), lab.sections[0].panel];
const where = () => Array.from(panel.state.z);
const moved = { start: where(), text: part(0, "log_p").textContent };
const key = (name, shiftKey) => plane.dispatchEvent(
  new KeyboardEvent("keydown", { key: name, shiftKey, cancelable: true }));
key("ArrowRight", false);
moved.right = where();
key("ArrowUp", true);
moved.up = where();
moved.later = part(0, "log_p").textContent;
const box = plane.getBoundingClientRect();
const touch = (name, u, v) => plane.dispatchEvent(new PointerEvent(name, {
  pointerType: "touch", pointerId: 1,
  clientX: box.left + u * box.width, clientY: box.top + v * box.height }));
touch("pointerdown", 0.5, 0.5);
moved.middle = where();
touch("pointermove", 0.75, 0.5);
moved.dragged = where();
touch("pointerup", 0.75, 0.5);
touch("pointermove", 0.1, 0.1);
moved.released = where();

const slider = part(1, "t");
const at = (t) => {
  slider.value = String(t);
  slider.dispatchEvent(new Event("input"));
  return ["alpha_bar_value", "log_snr_value", "weight_value", "noise_error", "nats"].map(
    (name) => part(1, name).textContent);
};
const dragged = [0, 0.25, 0.5, 0.75, 1].map(at);
const choose = (name, value) => {
  part(1, name).value = value;
  part(1, name).dispatchEvent(new Event("input"));
};
choose("guidance", "2");
choose("label", "3");
part(1, "step").click();
const now = () => ({
  status: part(1, "status").textContent, z: Array.from(lab.sections[1].panel.state.z) });
const first = now();
part(1, "play").click();
await new Promise((done) => setTimeout(done, 3500));
const played = now();
part(1, "compare").click();
const controls = "main input, main select, main button, main canvas:not(button canvas)";
const unnamed = [...document.querySelectorAll(controls)].filter((each) => (
  !(each.labels && each.labels.length) && !each.getAttribute("aria-label")
  && !each.textContent.trim() && !each.closest("figure"))).map((each) => each.outerHTML);
return {
  calls: Object.fromEntries(Object.entries(calls).map(([name, value]) => [name, plain(value)])),
  paths, moved, dragged, first, played, unnamed, errors: lab.errors,
  wide: [document.documentElement.scrollWidth, innerWidth],
  compared: part(1, "compared").children.length, checks: lab.sections.map(({ model }) => lab.check(model)),
};
"""


@dataclass(frozen=True)
class Opened:
    """A page of small models, and what the script found in it."""

    vae: LatentModel
    diffusion: LatentModel
    visit: Visit
    noise: Tensor
    x: Tensor

    @property
    def found(self) -> Any:
        return self.visit.found


def shaken(model: LatentModel, std: float = 0.2) -> LatentModel:
    """A model in which no weight is zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for weight in model.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=std)
    return model.eval()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """One visit for all tests of this file."""
    vae = shaken(VAE((1, 8, 8), bins=17, latents=2, width=16, depth=1))
    diffusion = shaken(
        Diffusion((1, 8, 8), bins=17, condition=Labels(10), schedule=Cosine(), width=16, depth=1),
        std=0.1,
    )
    place = tmp_path_factory.mktemp("lab")
    jaxtyping.config.update("jaxtyping_disable", True)
    page = write_lab([vae, diffusion], "digits", place)
    jaxtyping.config.update("jaxtyping_disable", False)
    seen = visit(page, SCRIPT)
    assert "failed" not in seen.found, seen.found
    own = halved(diffusion)
    return Opened(halved(vae), own, seen, _noise(own), _examples(load("digits"), 30)[0])


def number(text: str) -> float:
    """A number as the page writes it."""
    return float(text.replace("−", "-"))


def close(found: object, expected: Tensor, tolerance: float) -> bool:
    """Whether numbers of the page are those of torch, relative to the largest."""
    apart = (torch.tensor(found).reshape(expected.shape) - expected).abs().max()
    return bool(apart <= tolerance * expected.abs().max().clamp(min=1))


def test_one_call_of_the_network_is_torchs(opened: Opened) -> None:
    prior = opened.diffusion.prior
    assert isinstance(prior, DiffusionPrior)
    with torch.no_grad():
        expected = prior.denoiser(
            opened.noise[:2], torch.tensor([1.0, -3.0]), torch.tensor([3, -100])
        ).x_hat
    assert close(opened.found["calls"]["x_hat"], expected, CALL)


def test_the_terms_of_the_bound_are_those_of_the_model(opened: Opened) -> None:
    model, x, z = opened.vae, opened.x[1:2].long(), torch.tensor([[0.5, -1.25]])
    found = opened.found["calls"]["bound"] | opened.found["calls"]["posterior"]
    with torch.no_grad():
        (rate,) = model.elbo(x).rates.values()
        q = model.posterior(x)
        assert isinstance(q, torch.distributions.Distribution)
        terms = {
            "kl": rate.total,
            "log_likelihood": model.decode(z).log_prob(x),
            "log_q": q.log_prob(z),
            "log_p": torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1),
            "mean": q.mean,
            "log_std": q.stddev.log(),
        }
    for name, expected in terms.items():
        assert close(found[name], expected, CALL), name


@pytest.mark.parametrize("even", GRIDS)
@pytest.mark.parametrize("method", SAMPLERS)
def test_a_path_is_the_samplers(opened: Opened, method: str, even: str) -> None:
    prior = opened.diffusion.prior
    assert isinstance(prior, DiffusionPrior)
    sampler = SAMPLERS[method].bind(Guided(prior.denoiser, GUIDANCE), prior.schedule)
    times = GRIDS[even].times(prior.schedule, STEPS)
    draws = iter(opened.noise[1:])
    with (
        torch.no_grad(),
        patch("genmod.random.normal_like", lambda like: next(draws)[None].to(like)),
    ):
        states = sampler.states(opened.noise[:1], times, torch.tensor([LABEL]))
        expected = torch.cat([state.z for state in states])
    found = torch.tensor(opened.found["paths"][f"{method} {even}"])
    assert len(found) == STEPS
    assert close(found.tolist(), expected, PATH)


def test_keys_and_fingers_move_the_latent(opened: Opened) -> None:
    moved = {name: value for name, value in opened.found["moved"].items() if name != "text"}
    start, right, up = (torch.tensor(moved[name]) for name in ("start", "right", "up"))
    step, large = right - start, up - right
    assert step[0] > 0
    assert step[1] == 0
    assert float(large[1]) == pytest.approx(5 * float(step[0]), rel=1e-4)
    assert large[0] == 0
    assert opened.found["moved"]["text"] != moved["later"]
    assert moved["middle"] == pytest.approx([0, 0], abs=0.05)
    assert moved["dragged"][0] == pytest.approx(float(step[0]) / 0.02 / 2, rel=0.02)
    assert moved["released"] == moved["dragged"]


def test_the_slider_shows_the_schedule(opened: Opened) -> None:
    schedule = Cosine().resolve(opened.diffusion.spec)
    for t, shown in zip(TIMES, opened.found["dragged"], strict=True):
        alpha_bar, log_snr, *_ = (number(text) for text in shown)
        expected = float(schedule.log_snr(torch.tensor(t, dtype=torch.float64)))
        assert log_snr == pytest.approx(expected, rel=1e-2, abs=1e-2)
        squared = float(torch.tensor(expected).sigmoid())
        assert alpha_bar == pytest.approx(squared, rel=0.1, abs=1e-3)


def test_the_slider_shows_the_weight_of_the_bound(opened: Opened) -> None:
    """Half the fall of the log-SNR: the limit of a step's weight as steps become many; times the error."""
    schedule, many = Cosine().resolve(opened.diffusion.spec), 10_001
    times, step = step_weights(schedule, many)
    for t, shown in zip(TIMES, opened.found["dragged"], strict=True):
        _, _, weight, error, nats = (number(text) for text in shown)
        assert nats == pytest.approx(weight * error, rel=0.02, abs=1e-3)
        if 0 < t < 1:  # at the ends the slope of the cosine changes within an interval of the table
            moment = torch.tensor(t, dtype=torch.float64)
            assert weight == pytest.approx(-0.5 * float(schedule.slope(moment)), rel=1e-2)
            near = int((times - t).abs().argmin())
            assert weight == pytest.approx((many - 1) * float(step[near]), rel=1e-2)


def test_step_and_play_follow_the_path(opened: Opened) -> None:
    path = torch.tensor(opened.found["paths"]["ddim time"])
    assert opened.found["first"]["status"].startswith("step 1 of 20")
    assert close(opened.found["first"]["z"], path[0], CALL)
    assert opened.found["played"]["status"].startswith("step 20 of 20")
    assert close(opened.found["played"]["z"], path[-1], CALL)
    assert opened.found["compared"] == len(SAMPLERS)


def test_the_page_checks_itself_and_reports_no_error(opened: Opened) -> None:
    checks = opened.found["checks"]
    assert {name for check in checks for name in check["paths"]} == {"ddim", "heun", "dpm"}
    for check in checks:
        assert max(check["calls"].values()) < CALL
        assert max(check["paths"].values(), default=0) < PATH
    assert opened.found["errors"] == []
    assert opened.visit.console == []


def test_every_control_has_a_name_and_a_phone_is_wide_enough(opened: Opened) -> None:
    assert opened.found["unnamed"] == []
    scrolled, inside = opened.found["wide"]
    assert scrolled <= inside <= 500


def test_the_page_asks_for_no_network() -> None:
    for name, text in page_files(1).items():
        assert "http" not in text, name
        assert "fetch(" not in text, name
