// Models as the page holds them, their noise schedule, and four samplers.
//
// Symbols: z = alpha x + sigma eps, variance preserving; log_snr = log(alpha^2 / sigma^2); a step goes from t to s,
// s < t, and h is by how much half the log-SNR rises. The formulas are those of genmod.samplers.
"use strict";
(() => {
  const { sigmoid, run } = lab.tensors;

  const READERS = { float32: Float32Array, float64: Float64Array, float16: Uint16Array, int32: Int32Array, uint8: Uint8Array };
  function half(bits) {
    const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
    if (exponent === 0) return sign * fraction * 2 ** -24;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  // A tensor from base64.
  function decoded({ shape, type, stored, data }) {
    const text = atob(data);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
    const found = new READERS[stored](bytes.buffer);
    const numbers = stored === "float16" ? Array.from(found, half) : found;
    return { shape, type, data: (type === "float32" ? Float32Array : Float64Array).from(numbers) };
  }

  const alphaOf = (logSnr) => Math.sqrt(sigmoid(logSnr));
  const sigmaOf = (logSnr) => Math.sqrt(sigmoid(-logSnr));

  class Model {
    constructor(plain) {
      Object.assign(this, plain);
      this.tensors = plain.weights.map(decoded);
      this.noise = decoded(plain.noise);
      this.x = decoded(plain.examples.x);
      this.size = this.shape.reduce((a, b) => a * b, 1);
      if (plain.log_snr) this.table = decoded(plain.log_snr).data;
    }
    // A part of the model on named inputs.
    call(name, given) { return run(this.programs[name], this.tensors, given); }
    row(tensor, place) {
      const size = tensor.data.length / tensor.shape[0];
      const data = tensor.data.slice(place * size, (place + 1) * size);
      return { shape: [1, ...tensor.shape.slice(1)], type: tensor.type, data };
    }
    context(labels) {
      return labels[0] === null ? {} : { context: { shape: [labels.length], type: "int64", data: Float64Array.from(labels) } };
    }
    // Log-SNR at t, between the rows of the table on a line.
    logSnr(t) {
      const at = t * (this.table.length - 1);
      const low = Math.min(Math.floor(at + 1e-9), this.table.length - 2);
      return this.table[low] + (at - low) * (this.table[low + 1] - this.table[low]);
    }
    time(logSnr) {
      let [low, high] = [0, 1];
      for (let i = 0; i < 50; i += 1) {
        const middle = (low + high) / 2;
        if (this.logSnr(middle) > logSnr) low = middle; else high = middle;
      }
      return (low + high) / 2;
    }
    // -d log_snr / dt at t.
    slope(t) {
      const d = 1 / (this.table.length - 1);
      const [low, high] = [Math.max(0, t - d), Math.min(1, t + d)];
      return (this.logSnr(low) - this.logSnr(high)) / (high - low);
    }
    // The log-SNR of each state of a path, from noise to data.
    grid(steps, evenIn = "time") {
      const [clean, noisy] = [this.logSnr(0), this.logSnr(1)];
      return Array.from({ length: steps + 1 }, (_, i) => {
        const u = i / steps;
        return evenIn === "time" ? this.logSnr(1 - u) : noisy + (clean - noisy) * u;
      });
    }
    // x_hat of one state; with guidance, x_u + w (x_c - x_u). A label of null: no context at all.
    denoise(z, logSnr, label = null, guidance = 1) {
      const guided = label !== null && label >= 0 && guidance !== 1;
      const rows = guided ? 2 : 1;
      const both = new Float32Array(rows * z.length);
      for (let i = 0; i < rows; i += 1) both.set(z, i * z.length);
      const context = this.context(guided ? [label, -100] : [label]);
      const found = this.call("denoiser", {
        z_t: { shape: [rows, ...this.shape], type: "float32", data: both },
        log_snr: { shape: [rows], type: "float32", data: new Float32Array(rows).fill(logSnr) },
        ...context,
      }).x_hat.data;
      if (!guided) return found;
      const n = z.length;
      return Float32Array.from({ length: n }, (_, i) => found[n + i] + guidance * (found[i] - found[n + i]));
    }
  }

  const mix = (...pairs) => {
    const out = new Float32Array(pairs[0][1].length);
    for (let i = 0; i < out.length; i += 1) {
      let sum = 0;
      for (const [factor, values] of pairs) sum += factor * values[i];
      out[i] = sum;
    }
    return out;
  };
  const scales = (from, to) => ({
    alpha: alphaOf(to), sigma: sigmaOf(to), alphaFrom: alphaOf(from), sigmaFrom: sigmaOf(from), h: (to - from) / 2,
  });
  const euler = (z, xHat, { alpha, sigma, sigmaFrom, h }) => mix([sigma / sigmaFrom, z], [-alpha * Math.expm1(-h), xHat]);

  // 2M, of first order where a step is too long for what was evaluated before it.
  const tooLong = (rise, before) => rise > 4 || (rise > 1 && rise > 2 * before);

  const METHODS = {
    // z_s from p(z_s | z_t) = q(z_s | z_t, x = x_hat): the posterior's mean and variance.
    ancestral({ z, from, to, denoise, noise }) {
      const { alpha, sigma, alphaFrom, sigmaFrom } = scales(from, to);
      const fresh = -Math.expm1(from - to);
      const xHat = denoise(z, from);
      const keep = (alphaFrom / alpha) * (sigma / sigmaFrom) ** 2;
      return { xHat, z: mix([keep, z], [alpha * fresh, xHat], [sigma * Math.sqrt(fresh), noise()]) };
    },
    ddim({ z, from, to, denoise }) {
      const xHat = denoise(z, from);
      return { xHat, z: euler(z, xHat, scales(from, to)) };
    },
    heun({ z, from, to, denoise }) {
      const at = scales(from, to);
      const xHat = denoise(z, from);
      const trial = euler(z, xHat, at);
      const there = denoise(trial, to);
      const weight = at.alpha * Math.tanh(at.h / 2);
      return { xHat, z: mix([1, trial], [weight, there], [-weight, xHat]) };
    },
    dpm({ z, from, to, denoise, before }) {
      const at = scales(from, to);
      const xHat = denoise(z, from);
      if (!before || tooLong(to - from, from - before.from)) return { xHat, z: euler(z, xHat, at) };
      const whole = -Math.expm1(-at.h);
      const slope = (0.5 * whole * at.h) / ((from - before.from) / 2);
      return {
        xHat,
        z: mix([at.sigma / at.sigmaFrom, z], [at.alpha * (whole + slope), xHat], [-at.alpha * slope, before.xHat]),
      };
    },
  };

  // The states of a path, one after another: {z, xHat, logSnr}. `grid` holds log-SNRs, noise() fresh noise.
  function* path(method, z, grid, denoise, noise) {
    let before = null;
    for (let i = 0; i + 1 < grid.length; i += 1) {
      const [from, to] = [grid[i], grid[i + 1]];
      const found = METHODS[method]({ z, from, to, denoise, noise, before });
      before = { from, xHat: found.xHat };
      z = found.z;
      yield { z, xHat: found.xHat, logSnr: to };
    }
  }

  // Normal noise of a seed (mulberry32, Box and Muller), for draws beyond the noise that ships with the page.
  function normals(seed) {
    let state = seed >>> 0;
    const uniform = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let v = Math.imul(state ^ (state >>> 15), state | 1);
      v ^= v + Math.imul(v ^ (v >>> 7), v | 61);
      return ((v ^ (v >>> 14)) >>> 0) / 4294967296;
    };
    return (n) => Float32Array.from({ length: n }, () => (
      Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform())));
  }

  Object.assign(lab, { Model, path, decoded, alphaOf, sigmaOf, normals, mix });
})();
