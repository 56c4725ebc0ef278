// A VAE: a plane of two latents, the decoded image, and the terms of the bound.
"use strict";
(() => {
  // The numbers of draws, of images behind the plane and of cells, at most; fewer where a network is slow.
  const [DRAWS, TILES, CELLS] = [64, 13, 40];
  const MILLISECONDS = 500;
  // Of Okabe and Ito, and two more: distinct to readers who are color blind. Lighter ones on a dark page.
  const LIGHT = ["#0072b2", "#c78300", "#009e73", "#cc79a7", "#2f9fd6", "#d55e00", "#9a8f00", "#7f7f7f", "#6a3d9a", "#a65628"];
  const DARK = ["#4fa9e6", "#e69f00", "#1fc495", "#e59cc4", "#8fd3f7", "#f0813a", "#d6c92a", "#a9a9a9", "#b794e6", "#d39a6f"];
  const dark = matchMedia("(prefers-color-scheme: dark)");

  lab.vae = (section, model) => {
    const found = lab.parts(section);
    const label = lab.labelsOf(found, model, false);
    const size = model.latents.reduce((a, b) => a * b, 1);
    const normals = lab.normals(1);
    const codes = lab.decoded(model.codes.z).data;
    const reach = Math.max(3, 1.08 * codes.reduce((most, v) => Math.max(most, Math.abs(v)), 0));
    const state = { z: new Float32Array(size), row: 0, axes: [0, Math.min(1, size - 1)], background: null, q: null };

    const repeat = (tensor, rows) => {
      const data = new tensor.data.constructor(rows * tensor.data.length);
      for (let i = 0; i < rows; i += 1) data.set(tensor.data, i * tensor.data.length);
      return { shape: [rows, ...tensor.shape.slice(1)], type: tensor.type, data };
    };
    const latents = (data) => ({ shape: [data.length / size, ...model.latents], type: "float32", data });
    const context = (rows) => model.context(new Array(rows).fill(label()));
    const decode = (data) => model.call("decoder", { z: latents(data), ...context(data.length / size) }).mean.data;
    const bound = (data) => {
      const rows = data.length / size;
      const [x, mean, log_std] = [model.row(model.x, state.row), state.q.mean, state.q.log_std];
      const given = { x: repeat(x, rows), z: latents(data), ...context(rows) };
      for (const [name, each] of Object.entries({ mean, log_std })) given[name] = repeat(latents(each), rows);
      return model.call("bound", given);
    };
    // How many rows fit into the time, at most `most`.
    const affordable = (call, most) => {
      const from = performance.now();
      call(state.z);
      return Math.max(4, Math.min(most, Math.floor(MILLISECONDS / (performance.now() - from + 1e-3))));
    };
    const drawn = (rows) => {
      const noise = normals(rows * size);
      return noise.map((v, i) => state.q.mean[i % size] + Math.exp(state.q.log_std[i % size]) * v);
    };

    // Places on the plane: latents from -reach to reach, the second one upward.
    const side = found.plane.width;
    const toX = (v) => (0.5 + v / (2 * reach)) * side;
    const toY = (v) => (0.5 - v / (2 * reach)) * side;
    const at = (u, v) => {
      const z = state.z.slice();
      z[state.axes[0]] = u;
      if (size > 1) z[state.axes[1]] = v;
      return z;
    };
    // z at the middle of each tile of a grid, row by row from the top.
    const tiles = (count) => {
      const all = new Float32Array(count * count * size);
      for (let i = 0; i < count * count; i += 1) {
        const place = (k) => (((k + 0.5) / count) * 2 - 1) * reach;
        all.set(at(place(i % count), -place(Math.floor(i / count))), i * size);
      }
      return all;
    };

    function drawImages(canvas) {
      const count = Math.floor(Math.sqrt(affordable(decode, TILES * TILES)));
      const values = decode(tiles(count));
      const tile = document.createElement("canvas");
      const wide = side / count;
      canvas.imageSmoothingEnabled = false;
      for (let i = 0; i < count * count; i += 1) {
        lab.picture(tile, model, values.slice(i * model.size, (i + 1) * model.size), model.range);
        canvas.drawImage(tile, (i % count) * wide, Math.floor(i / count) * wide, wide - 1, wide - 1);
      }
    }
    function drawWeight(canvas) {
      const count = Math.floor(Math.sqrt(affordable(bound, CELLS * CELLS)));
      const wide = side / count;
      const { log_likelihood: likelihood, log_p: prior } = bound(tiles(count));
      const values = likelihood.data.map((v, i) => v + prior.data[i]);
      const most = Math.max(...values.filter(Number.isFinite));
      canvas.fillStyle = lab.color("accent");
      values.forEach((v, i) => {
        canvas.globalAlpha = Math.max(0, 1 + (v - most) / 60);
        canvas.fillRect((i % count) * wide, Math.floor(i / count) * wide, wide, wide);
      });
      canvas.globalAlpha = 1;
    }
    function drawCodes(canvas) {
      const { labels } = model.codes;
      const colors = dark.matches ? DARK : LIGHT;
      canvas.font = "bold 18px system-ui, sans-serif";
      canvas.textAlign = "center";
      for (let i = 0; i < codes.length / size; i += 1) {
        const [x, y] = [toX(codes[i * size + state.axes[0]]), toY(size > 1 ? codes[i * size + state.axes[1]] : 0)];
        canvas.fillStyle = labels ? colors[labels[i] % colors.length] : lab.color("accent");
        if (labels) canvas.fillText(labels[i], x, y + 6);
        else canvas.fillRect(x - 3, y - 3, 6, 6);
      }
    }
    // What lies behind is drawn once, until something that it depends on changes.
    function background() {
      if (state.background) return state.background;
      state.background = document.createElement("canvas");
      [state.background.width, state.background.height] = [side, side];
      const canvas = state.background.getContext("2d");
      ({ images: drawImages, weight: drawWeight, codes: drawCodes })[found.behind.value](canvas);
      return state.background;
    }
    const ellipse = (canvas, x, y, a, b, style, dash = []) => {
      canvas.strokeStyle = style;
      canvas.setLineDash(dash);
      canvas.beginPath();
      canvas.ellipse(x, y, Math.max(a, 1), Math.max(b, 1), 0, 0, 7);
      canvas.stroke();
      canvas.setLineDash([]);
    };
    function drawPlane() {
      const canvas = found.plane.getContext("2d");
      const [i, j] = state.axes;
      const scale = side / (2 * reach);
      canvas.clearRect(0, 0, side, side);
      canvas.drawImage(background(), 0, 0);
      canvas.lineWidth = 2;
      for (const radius of [1, 2]) ellipse(canvas, side / 2, side / 2, radius * scale, radius * scale, lab.color("quiet"), [6, 6]);
      canvas.lineWidth = 4;
      const { mean } = state.q;
      const std = state.q.log_std.map(Math.exp);
      const [my, sy] = size > 1 ? [mean[j], std[j]] : [0, 0.05];
      ellipse(canvas, toX(mean[i]), toY(my), 2 * std[i] * scale, 2 * sy * scale, lab.color("second"));
      const [x, y] = [toX(state.z[i]), toY(size > 1 ? state.z[j] : 0)];
      for (const [width, style] of [[9, lab.color("back")], [4, lab.color("text")]]) {
        canvas.lineWidth = width;
        canvas.strokeStyle = style;
        canvas.beginPath();
        canvas.moveTo(x - 16, y);
        canvas.lineTo(x + 16, y);
        canvas.moveTo(x, y - 16);
        canvas.lineTo(x, y + 16);
        canvas.stroke();
      }
      const across = `z${i + 1} to the right, ${size > 1 ? `z${j + 1} upward, ` : ""}from ${lab.short(-reach)} to ${lab.short(reach)}`;
      found.caption.textContent = `${across}. Dashed: 1 and 2 standard deviations of N(0, I); solid: 2 of q(z|x).`;
    }

    function show() {
      const found_ = bound(state.z);
      const read = (name) => found_[name].data[0];
      lab.picture(found.decoded, model, decode(state.z), model.range, "Decoded image");
      const terms = {
        log_likelihood: read("log_likelihood"), kl: read("kl"), log_p: read("log_p"), log_q: read("log_q"),
        elbo: read("log_likelihood") - read("kl"),
        weight: read("log_likelihood") + read("log_p") - read("log_q"),
      };
      for (const [name, value] of Object.entries(terms)) found[name].textContent = lab.short(value);
      const shown = size > 4 ? state.axes.map((k) => state.z[k]) : Array.from(state.z);
      found.z.textContent = `(${shown.map(lab.short).join(", ")}${size > 4 ? ", ..." : ""})`;
      drawPlane();
    }
    function move(u, v) {
      const inside = (w) => Math.max(-reach, Math.min(reach, w));
      state.z = at(inside(u), inside(v));
      show();
    }

    // A row of data: its posterior, z at the posterior's mean, and averages over draws.
    function choose(row) {
      state.row = row;
      const { mean, log_std } = model.call("posterior", { x: model.row(model.x, row), ...context(1) });
      state.q = { mean: mean.data, log_std: log_std.data };
      state.z = Float32Array.from(mean.data);
      state.background = null;
      lab.picture(found.chosen, model, model.row(model.x, row).data, model.range, "The chosen row of data");
      const draws = affordable(bound, DRAWS);
      const { log_likelihood: likelihood, kl, log_p: p, log_q: q } = bound(drawn(draws));
      const weights = likelihood.data.map((v, i) => v + p.data[i] - q.data[i]);
      const most = Math.max(...weights);
      found.draws.textContent = draws;
      const mean_ = likelihood.data.reduce((sum, v, i) => sum + v - kl.data[i], 0) / draws;
      found.average.textContent = lab.short(mean_);
      found.iwae.textContent = lab.short(most + Math.log(weights.reduce((sum, w) => sum + Math.exp(w - most), 0) / draws));
      show();
    }

    const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    found.plane.addEventListener("keydown", (event) => {
      if (!(event.key in KEYS)) return;
      event.preventDefault();
      const step = (event.shiftKey ? 0.1 : 0.02) * reach;
      const [i, j] = state.axes;
      move(state.z[i] + step * KEYS[event.key][0], state.z[j] + step * KEYS[event.key][1]);
    });
    let dragging = false;
    const follow = (event) => {
      const box = found.plane.getBoundingClientRect();
      move((2 * (event.clientX - box.left) / box.width - 1) * reach, (1 - 2 * (event.clientY - box.top) / box.height) * reach);
    };
    found.plane.addEventListener("pointerdown", (event) => {
      dragging = true;
      if (event.isTrusted) found.plane.setPointerCapture(event.pointerId);
      follow(event);
    });
    found.plane.addEventListener("pointermove", (event) => dragging && follow(event));
    for (const name of ["pointerup", "pointercancel"]) found.plane.addEventListener(name, () => { dragging = false; });

    const again = () => { state.background = null; show(); };
    found.behind.addEventListener("change", again);
    if (size > 2) {
      found.axes.hidden = false;
      for (const [place, name] of [[0, "horizontal"], [1, "vertical"]]) {
        for (let k = 0; k < size; k += 1) found[name].append(new Option(`z${k + 1}`, k));
        found[name].value = String(state.axes[place]);
        found[name].addEventListener("change", () => { state.axes[place] = Number(found[name].value); again(); });
      }
    }
    found.mean.addEventListener("click", () => { state.z = Float32Array.from(state.q.mean); show(); });
    found.posterior.addEventListener("click", () => { state.z = drawn(1); show(); });
    found.prior.addEventListener("click", () => { state.z = normals(size); show(); });
    found.label.addEventListener("change", () => pick(state.row));
    const pick = lab.rowsOf(found.rows, model, (row) => {
      const { labels } = model.examples;
      if (model.classes && labels) found.label.value = String(labels[row]);
      choose(row);
    });
    pick(0);
    return { state, choose: pick, redraw: again };
  };
})();
