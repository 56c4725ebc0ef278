// A diffusion: its schedule, the forward process at any t, and the reverse process step by step.
"use strict";
(() => {
  const STEPS = [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 30, 40, 60, 90, 120, 180, 252];
  const NAMES = { ancestral: "ancestral", ddim: "DDIM", heun: "Heun", dpm: "DPM-Solver++ 2M" };
  const POINTS = 121;

  lab.diffusion = (section, model) => {
    const found = lab.parts(section);
    const label = lab.labelsOf(found, model, true);
    const state = { row: 0, eps: 0, seed: 0, walk: null, done: 0, timer: null };
    const ts = Array.from({ length: POINTS }, (_, i) => i / (POINTS - 1));
    const curves = {
      alpha_bar: ts.map((t) => lab.alphaOf(model.logSnr(t)) ** 2),
      log_snr: ts.map((t) => model.logSnr(t)),
      weight: ts.map((t) => 0.5 * model.slope(t)),
    };
    // Data on the scale of the states, and the values there that are drawn black and white.
    const encoded = (x, logSnr) => {
      const rows = x.shape[0];
      const log_snr = { shape: [rows], type: "float32", data: new Float32Array(rows).fill(logSnr) };
      const mean = model.call("encoder", { x, log_snr }).mean.data;
      return mean.map((v) => v / lab.alphaOf(logSnr));
    };
    const clean = model.logSnr(0);
    const all = encoded(model.x, clean);
    const ends = model.integers ? [-1, 1] : [Math.min(...all), Math.max(...all)];
    const noiseRow = (place) => model.row(model.noise, place % model.noise.shape[0]).data;
    const fresh = (seed) => lab.normals(1000 + seed)(model.size);

    function drawCurves(t, marks = []) {
      const shown = { alpha_bar: lab.alphaOf(model.logSnr(t)) ** 2, log_snr: model.logSnr(t), weight: 0.5 * model.slope(t) };
      for (const [name, values] of Object.entries(curves)) {
        const reference = name === "weight" ? 1 : null;
        found[name].place = lab.curve(found[name], values, t, { reference, marks });
        found[`${name}_value`].textContent = lab.short(shown[name]);
      }
    }
    function forward() {
      const t = Number(found.t.value);
      const logSnr = model.logSnr(t);
      const [alpha, sigma] = [lab.alphaOf(logSnr), lab.sigmaOf(logSnr)];
      const x = encoded(model.row(model.x, state.row), clean);
      const eps = state.eps === 0 ? noiseRow(0) : fresh(state.eps);
      const z = lab.mix([alpha, x], [sigma, eps]);
      const labels = model.examples.labels;
      const xHat = model.denoise(z, logSnr, model.classes ? (labels ? labels[state.row] : -100) : null);
      const squared = (a, b, scale) => a.reduce((sum, v, i) => sum + ((v - b[i]) * scale) ** 2, 0);
      // eps - eps_hat = alpha (x_hat - x) / sigma, at the same z_t.
      const noiseError = squared(x, xHat, alpha / sigma);
      lab.picture(found.x, model, x, ends, "Data x");
      lab.picture(found.z_t, model, z, wide(logSnr), `Noised data at t = ${t}`);
      lab.picture(found.x_hat, model, xHat, ends, "Estimate of x");
      found.t_value.textContent = t.toFixed(3);
      found.scales.textContent = `${lab.short(alpha)}, ${lab.short(sigma)}`;
      found.noise_error.textContent = lab.short(noiseError);
      found.data_error.textContent = lab.short(squared(x, xHat, 1));
      found.nats.textContent = lab.short(0.5 * model.slope(t) * noiseError);
      drawCurves(t);
    }
    // States are drawn on a wider scale the noisier they are.
    const wide = (logSnr) => {
      const [alpha, sigma] = [lab.alphaOf(logSnr), lab.sigmaOf(logSnr)];
      return [alpha * ends[0] - 2 * sigma, alpha * ends[1] + 2 * sigma];
    };

    const steps = () => STEPS[Number(found.steps.value)];
    // One path of the chosen settings, from its first state on.
    function begin(method) {
      const grid = model.grid(steps(), found.even.value);
      const [start, later] = [state.seed === 0 ? noiseRow(0) : fresh(state.seed), lab.normals(state.seed)];
      let draws = 0;
      const noise = () => {
        draws += 1;
        return state.seed === 0 && draws < model.noise.shape[0] ? noiseRow(draws) : later(model.size);
      };
      const [which, guidance] = [label(), Number(found.guidance.value)];
      const denoise = (z, logSnr) => model.denoise(z, logSnr, which, guidance);
      return { grid, start, states: lab.path(method, start, grid, denoise, noise), label: which };
    }
    const decoded = (z, which) => model.call("decoder", {
      z: { shape: [1, ...model.shape], type: "float32", data: z }, ...model.context([which]),
    }).mean.data;

    // A state of the path above the estimate that led to it.
    function film(z, xHat, logSnr, place) {
      const figure = document.createElement("figure");
      const [state_, estimate, caption] = ["canvas", "canvas", "figcaption"].map((each) => document.createElement(each));
      lab.picture(state_, model, z, wide(logSnr), `State ${place}`);
      lab.picture(estimate, model, xHat, ends, `Estimate of step ${place}`);
      caption.textContent = place;
      figure.append(state_, estimate, caption);
      found.film.append(figure);
      found.film.scrollLeft = found.film.scrollWidth;
    }
    function restart() {
      stop();
      state.walk = begin(found.method.value);
      state.done = 0;
      found.film.replaceChildren();
      lab.picture(found.z, model, state.walk.start, wide(state.walk.grid[0]), "Noise");
      const empty = new Float32Array(model.size).fill(ends[0]);
      for (const name of ["estimate", "result"]) lab.picture(found[name], model, empty, ends, "Not computed yet");
      film(state.walk.start, empty, state.walk.grid[0], 0);
      found.steps_value.textContent = steps();
      found.guidance_value.textContent = Number(found.guidance.value).toFixed(2);
      found.status.textContent = `step 0 of ${steps()}`;
    }
    function step() {
      const from = performance.now();
      const next = state.walk.states.next();
      if (next.done) { stop(); return false; }
      const { z, xHat, logSnr } = next.value;
      state.done += 1;
      const took = performance.now() - from;
      lab.picture(found.z, model, z, wide(logSnr), `State after step ${state.done}`);
      lab.picture(found.estimate, model, xHat, ends, "Estimate of x");
      film(z, xHat, logSnr, state.done);
      drawCurves(model.time(logSnr), state.walk.grid.map((each) => model.time(each)));
      state.z = z;
      const last = state.done === steps();
      if (last) lab.picture(found.result, model, decoded(z, state.walk.label), model.range, "Result");
      found.status.textContent = `step ${state.done} of ${steps()}, λ = ${lab.short(logSnr)}, ${took.toFixed(1)} ms`;
      if (last) stop();
      return !last;
    }
    function stop() {
      clearTimeout(state.timer);
      state.timer = null;
      found.play.textContent = "Play";
    }
    function play() {
      if (state.timer !== null) { stop(); return; }
      if (state.done === steps()) restart();
      found.play.textContent = "Pause";
      const next = () => { if (step()) state.timer = setTimeout(next, Math.max(40, 2400 / steps())); };
      state.timer = setTimeout(next, 0);
    }
    function compare() {
      found.compared.replaceChildren();
      for (const [method, name] of Object.entries(NAMES)) {
        const walk = begin(method);
        let last = null;
        for (const each of walk.states) last = each;
        const figure = document.createElement("figure");
        const [canvas, caption] = [document.createElement("canvas"), document.createElement("figcaption")];
        lab.picture(canvas, model, decoded(last.z, walk.label), model.range, `Result of ${name}`);
        caption.textContent = `${name}, ${steps()} steps`;
        figure.append(canvas, caption);
        found.compared.append(figure);
      }
    }

    found.t.addEventListener("input", forward);
    found.fresh.addEventListener("click", () => { state.eps += 1; forward(); });
    // The curves are a second way to move t.
    for (const name of Object.keys(curves)) {
      const drag = (event) => {
        if (event.type === "pointermove" && event.buttons === 0) return;
        found.t.value = String(found[name].place(event.offsetX, found[name].clientWidth));
        forward();
      };
      found[name].addEventListener("pointerdown", drag);
      found[name].addEventListener("pointermove", drag);
    }
    found.steps.max = String(STEPS.length - 1);
    found.steps.value = String(STEPS.indexOf(20));
    found.guided.hidden = !model.classes;
    for (const name of ["method", "steps", "even", "label", "guidance"]) found[name].addEventListener("input", restart);
    found.noise.addEventListener("click", () => { state.seed += 1; restart(); });
    found.restart.addEventListener("click", restart);
    found.step.addEventListener("click", () => { stop(); if (state.done === steps()) restart(); step(); });
    found.play.addEventListener("click", play);
    found.compare.addEventListener("click", compare);
    const pick = lab.rowsOf(found.rows, model, (row) => { state.row = row; forward(); });
    if (model.classes) found.label.value = String(Math.min(3, model.classes.length - 1));
    restart();
    pick(0);
    return { state, step, restart, redraw: () => { forward(); restart(); } };
  };
})();
