// Tensors and the interpreter: a program is a flat list of operations of torch.export, run one after another.
// Every line that starts with "ops.NAME =" is an operation that this page has; genmod reads their names here.
"use strict";
const lab = { models: [], errors: [] };
window.addEventListener("error", (event) => lab.errors.push(String(event.message)));

lab.tensors = (() => {
  const ARRAYS = { float32: Float32Array, float64: Float64Array, bool: Uint8Array };
  const ops = {};
  let type = "float32"; // of the result of the running operation

  const sizeOf = (shape) => shape.reduce((a, b) => a * b, 1);
  const make = (shape, kind = type) => {
    const data = new (ARRAYS[kind] || Float64Array)(sizeOf(shape)); // integers: doubles, exact to 2^53
    return { shape, data, type: kind };
  };
  const isTensor = (value) => value !== null && typeof value === "object" && "data" in value;
  const tensorOf = (value) => (isTensor(value) ? value : { shape: [], data: [Number(value)], type: "float64" });
  const stridesOf = (shape) => {
    const strides = new Array(shape.length);
    for (let i = shape.length - 1, step = 1; i >= 0; step *= shape[i], i -= 1) strides[i] = step;
    return strides;
  };
  const axis = (dim, rank) => (dim < 0 ? dim + rank : dim);
  const shaped = (x, shape) => ({ shape, data: x.data, type: x.type });

  // A copy of entries of x: entry (i, j, ...) is at offset + i * strides[0] + j * strides[1] + ...
  function strided(x, shape, strides, offset = 0) {
    const out = make(shape, x.type);
    const index = new Array(shape.length).fill(0);
    const last = shape.length - 1;
    if (last < 0) { out.data[0] = x.data[offset]; return out; }
    const [inner, step] = [shape[last], strides[last]];
    for (let place = 0, at = offset; place < out.data.length; ) {
      for (let k = 0; k < inner; k += 1) out.data[place++] = x.data[at + k * step];
      let d = last - 1;
      for (; d >= 0; d -= 1) {
        index[d] += 1;
        at += strides[d];
        if (index[d] < shape[d]) break;
        at -= strides[d] * shape[d];
        index[d] = 0;
      }
      if (d < 0) break;
    }
    return out;
  }

  function broadcastShape(shapes) {
    const rank = Math.max(...shapes.map((shape) => shape.length));
    const out = new Array(rank).fill(1);
    for (const shape of shapes) {
      shape.forEach((n, i) => { if (n !== 1) out[rank - shape.length + i] = n; });
    }
    return out;
  }
  function broadcast(x, shape) {
    if (x.shape.length === shape.length && x.shape.every((n, i) => n === shape[i])) return x;
    const own = stridesOf(x.shape);
    const lead = shape.length - x.shape.length;
    const strides = shape.map((_, i) => (i < lead || x.shape[i - lead] === 1 ? 0 : own[i - lead]));
    return strided(x, shape, strides);
  }
  const unary = (f) => (x, ...rest) => {
    const out = make(x.shape);
    for (let i = 0; i < out.data.length; i += 1) out.data[i] = f(x.data[i], ...rest);
    return out;
  };
  const binary = (f) => (a, b, extra) => {
    [a, b] = [tensorOf(a), tensorOf(b)];
    const shape = broadcastShape([a.shape, b.shape]);
    const out = make(shape);
    const n = out.data.length;
    if (b.data.length === 1) {
      const [own, value] = [broadcast(a, shape).data, b.data[0]];
      for (let i = 0; i < n; i += 1) out.data[i] = f(own[i], value, extra);
      return out;
    }
    const [left, right] = [broadcast(a, shape).data, broadcast(b, shape).data];
    for (let i = 0; i < n; i += 1) out.data[i] = f(left[i], right[i], extra);
    return out;
  };
  const ternary = (f) => (a, b, c, extra) => {
    const all = [a, b, c].map(tensorOf);
    const shape = broadcastShape(all.map((each) => each.shape));
    const [x, y, z] = all.map((each) => broadcast(each, shape).data);
    const out = make(shape);
    for (let i = 0; i < out.data.length; i += 1) out.data[i] = f(x[i], y[i], z[i], extra);
    return out;
  };

  // Over some axes: step(sum, value) from `first`, then last(sum, count).
  const reduction = (first, step, last = (sum) => sum) => (x, dims, keep) => {
    const rank = x.shape.length;
    const list = dims === null || dims === undefined ? [] : [].concat(dims);
    const over = new Set((list.length ? list : x.shape.map((_, i) => i)).map((d) => axis(d, rank)));
    const kept = x.shape.map((n, i) => (over.has(i) ? 1 : n));
    const own = stridesOf(kept);
    const strides = kept.map((_, i) => (over.has(i) ? 0 : own[i]));
    const sums = new Float64Array(sizeOf(kept)).fill(first);
    const places = strided({ data: sums.map((_, i) => i), type: "int64" }, x.shape, strides).data;
    for (let i = 0; i < x.data.length; i += 1) sums[places[i]] = step(sums[places[i]], x.data[i]);
    const count = x.data.length / sums.length;
    const out = make(keep ? kept : kept.filter((_, i) => !over.has(i)));
    for (let i = 0; i < sums.length; i += 1) out.data[i] = last(sums[i], count);
    return out;
  };

  // out (n, m) = x (n, k) times the rows of w (m, k), plus bias (m).
  function linear(x, w, bias, n, m, k, out) {
    for (let i = 0; i < n; i += 1) {
      for (let j = 0; j < m; j += 1) {
        let a = bias ? bias[j] : 0;
        let b = 0;
        let p = i * k;
        let q = j * k;
        const end = p + k - 1;
        for (; p < end; p += 2, q += 2) { a += x[p] * w[q]; b += x[p + 1] * w[q + 1]; }
        if (p === end) a += x[p] * w[q];
        out[i * m + j] = a + b;
      }
    }
  }
  // out (n, m) = a (n, k) times b (k, m), from some places on; sums in double precision.
  function product(a, b, out, n, k, m, fromA = 0, fromB = 0, fromOut = 0, bias = null) {
    const sums = new Float64Array(m);
    for (let i = 0; i < n; i += 1) {
      sums.fill(bias ? bias[i] : 0);
      for (let p = 0; p < k; p += 1) {
        const factor = a[fromA + i * k + p];
        const row = fromB + p * m;
        for (let j = 0; j < m; j += 1) sums[j] += factor * b[row + j];
      }
      out.set(sums, fromOut + i * m);
    }
  }
  // Normalize groups of `size` entries in a row to mean 0 and variance 1.
  function normalize(x, size, eps, out) {
    for (let start = 0; start < x.length; start += size) {
      let [sum, squares] = [0, 0];
      for (let i = start; i < start + size; i += 1) sum += x[i];
      const mean = sum / size;
      for (let i = start; i < start + size; i += 1) squares += (x[i] - mean) ** 2;
      const scale = 1 / Math.sqrt(squares / size + eps);
      for (let i = start; i < start + size; i += 1) out[i] = (x[i] - mean) * scale;
    }
  }

  const sigmoid = (v) => (v >= 0 ? 1 / (1 + Math.exp(-v)) : Math.exp(v) / (1 + Math.exp(v)));
  const logSigmoid = (v) => Math.min(v, 0) - Math.log1p(Math.exp(-Math.abs(v)));

  function resolved(shape, count) {
    const known = shape.reduce((a, n) => (n === -1 ? a : a * n), 1);
    return shape.map((n) => (n === -1 ? count / known : n));
  }

  // A program on named inputs: its outputs by name.
  function run(program, weights, given) {
    const values = new Map();
    program.inputs.forEach(([id, name]) => values.set(id, given[name]));
    program.weights.forEach(([id, place]) => values.set(id, weights[place]));
    const read = (arg) => {
      if (Array.isArray(arg)) return arg.map(read);
      return arg !== null && typeof arg === "object" ? values.get(arg.id) : arg;
    };
    for (const [id, op, args, kind] of program.nodes) {
      const ready = args.map(read);
      type = kind;
      values.set(id, ops[op](...ready));
    }
    return Object.fromEntries(program.outputs.map(([name, id]) => [name, values.get(id)]));
  }
  const float32 = (shape, numbers) => ({ shape, data: Float32Array.from(numbers), type: "float32" });

  return {
    ops, make, isTensor, tensorOf, stridesOf, axis, shaped, strided, broadcast, sizeOf, unary, binary, ternary,
    reduction, linear, product, normalize, sigmoid, logSigmoid, resolved, run, float32, kind: () => type,
  };
})();
