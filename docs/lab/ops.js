// The operations, by their names in torch's ATen. Arguments stand in the order of its schemas.
"use strict";
(() => {
  const {
    ops, make, stridesOf, axis, shaped, strided, broadcast, sizeOf, unary, binary, ternary, reduction,
    linear, product, normalize, sigmoid, logSigmoid, resolved, kind,
  } = lab.tensors;

  // Numbers: shapes, and arithmetic with them.
  ops.sym_size = (x, dim) => x.shape[axis(dim, x.shape.length)];
  ops.getitem = (list, place) => list[place];
  ops.int_add = (a, b) => a + b;
  ops.int_sub = (a, b) => a - b;
  ops.int_mul = (a, b) => a * b;
  ops.int_floordiv = (a, b) => Math.floor(a / b);

  // Elementwise, of one tensor.
  ops.neg = unary((v) => -v);
  ops.abs = unary(Math.abs);
  ops.exp = unary(Math.exp);
  ops.expm1 = unary(Math.expm1);
  ops.log = unary(Math.log);
  ops.log1p = unary(Math.log1p);
  ops.sqrt = unary(Math.sqrt);
  ops.rsqrt = unary((v) => 1 / Math.sqrt(v));
  ops.reciprocal = unary((v) => 1 / v);
  ops.square = unary((v) => v * v);
  ops.sin = unary(Math.sin);
  ops.cos = unary(Math.cos);
  ops.tanh = unary(Math.tanh);
  ops.floor = unary(Math.floor);
  ops.ceil = unary(Math.ceil);
  ops.sign = unary(Math.sign);
  ops.sigmoid = unary(sigmoid);
  ops.log_sigmoid = unary(logSigmoid);
  ops.relu = unary((v) => (v > 0 ? v : 0));
  ops.silu = unary((v) => v * sigmoid(v));
  ops.softplus = unary((v, beta, most) => (v * beta > most ? v : Math.log1p(Math.exp(v * beta)) / beta));
  ops.leaky_relu = unary((v, slope) => (v > 0 ? v : v * slope));
  ops.elu = unary((v, alpha, scale, inner) => scale * (v > 0 ? v : alpha * Math.expm1(v * inner)));
  ops.gelu = unary((v, form) => (form === "tanh"
    ? 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)))
    : 0.5 * v * (1 + erf(v * Math.SQRT1_2))));
  ops.erf = unary(erf);
  ops.isnan = unary((v) => Number.isNaN(v));
  ops.logical_not = unary((v) => !v);
  ops.bitwise_not = unary((v) => !v);

  // The error function: its series near zero, a continued fraction beyond.
  function erf(v) {
    const a = Math.abs(v);
    if (a > 6) return Math.sign(v);
    if (a < 2.5) {
      let sum = v;
      for (let n = 1, term = v; n < 60; n += 1) {
        term *= (-v * v) / n;
        sum += term / (2 * n + 1);
      }
      return (2 / Math.sqrt(Math.PI)) * sum;
    }
    let below = a;
    for (let n = 60; n > 0; n -= 1) below = a + n / 2 / below;
    return Math.sign(v) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / below);
  }

  // Elementwise, of two tensors or more.
  ops.add = binary((a, b, alpha = 1) => a + alpha * b);
  ops.sub = binary((a, b, alpha = 1) => a - alpha * b);
  ops.rsub = binary((a, b, alpha = 1) => b - alpha * a);
  ops.mul = binary((a, b) => a * b);
  ops.div = binary((a, b, mode) => {
    if (mode === "floor") return Math.floor(a / b);
    return mode === "trunc" ? Math.trunc(a / b) : a / b;
  });
  ops.pow = binary((a, b) => a ** b);
  ops.remainder = binary((a, b) => a - b * Math.floor(a / b));
  ops.maximum = binary((a, b) => Math.max(a, b));
  ops.minimum = binary((a, b) => Math.min(a, b));
  ops.hypot = binary((a, b) => Math.hypot(a, b));
  ops.logaddexp = binary((a, b) => Math.max(a, b) + (a === b ? Math.LN2 : Math.log1p(Math.exp(-Math.abs(a - b)))));
  ops.eq = binary((a, b) => a === b);
  ops.ne = binary((a, b) => a !== b);
  ops.lt = binary((a, b) => a < b);
  ops.le = binary((a, b) => a <= b);
  ops.gt = binary((a, b) => a > b);
  ops.ge = binary((a, b) => a >= b);
  ops.logical_and = binary((a, b) => a && b);
  ops.logical_or = binary((a, b) => a || b);
  ops.bitwise_and = binary((a, b) => a & b);
  ops.bitwise_or = binary((a, b) => a | b);
  ops.where = ternary((test, a, b) => (test ? a : b));
  ops.addcmul = ternary((a, b, c, value) => a + value * b * c);
  ops.lerp = ternary((a, b, w) => a + w * (b - a));
  ops.masked_fill = ternary((a, mask, value) => (mask ? value : a));
  ops.clamp = (x, low, high) => unary((v) => {
    const up = low === null || low === undefined ? v : Math.max(v, low);
    return high === null || high === undefined ? up : Math.min(up, high);
  })(x);
  ops.clamp_Tensor = (x, low, high) => {
    const up = low ? ops.maximum(x, low) : x;
    return high ? ops.minimum(up, high) : up;
  };
  ops.clamp_min = (x, low) => ops.clamp(x, low, null);
  ops.clamp_max = (x, high) => ops.clamp(x, null, high);

  // The same tensor.
  const same = (x) => x;
  ops.contiguous = same;
  ops.clone = same;
  ops.alias = same;
  ops.detach = same;
  ops.dropout = same; // in evaluation mode
  const converted = (x) => {
    const truncates = kind().startsWith("int") && x.type.startsWith("float");
    return unary(truncates ? Math.trunc : kind() === "bool" ? Boolean : same)(x);
  };
  ops._to_copy = converted;
  ops.to = converted;

  // New tensors.
  const filled = (shape, value) => {
    const out = make(shape);
    out.data.fill(value);
    return out;
  };
  ops.zeros = (shape) => filled(shape, 0);
  ops.ones = (shape) => filled(shape, 1);
  ops.full = (shape, value) => filled(shape, value);
  ops.zeros_like = (x) => filled(x.shape, 0);
  ops.ones_like = (x) => filled(x.shape, 1);
  ops.full_like = (x, value) => filled(x.shape, value);
  ops.scalar_tensor = (value) => filled([], value);
  ops.lift_fresh_copy = same;
  ops.arange_start_step = (start, end, step) => {
    const out = make([Math.max(0, Math.ceil((end - start) / step))]);
    for (let i = 0; i < out.data.length; i += 1) out.data[i] = start + i * step;
    return out;
  };
  ops.arange_start = (start, end) => ops.arange_start_step(start, end, 1);
  ops.arange = (end) => ops.arange_start_step(0, end, 1);
  ops.one_hot = (x, classes) => {
    const out = make([...x.shape, classes]);
    x.data.forEach((label, i) => { out.data[i * classes + label] = 1; });
    return out;
  };

  // Shapes.
  ops.view = (x, shape) => shaped(x, resolved(shape, x.data.length));
  ops.reshape = ops.view;
  ops._unsafe_view = ops.view;
  ops.flatten = (x, start, end) => {
    const [from, to] = [axis(start, x.shape.length), axis(end, x.shape.length)];
    const middle = sizeOf(x.shape.slice(from, to + 1));
    return shaped(x, [...x.shape.slice(0, from), middle, ...x.shape.slice(to + 1)]);
  };
  ops.unflatten = (x, dim, sizes) => {
    const d = axis(dim, x.shape.length);
    return shaped(x, [...x.shape.slice(0, d), ...resolved(sizes, x.shape[d]), ...x.shape.slice(d + 1)]);
  };
  ops.unsqueeze = (x, dim) => {
    const shape = [...x.shape];
    shape.splice(axis(dim, x.shape.length + 1), 0, 1);
    return shaped(x, shape);
  };
  ops.squeeze = (x, dims) => {
    const over = dims === undefined || dims === null ? x.shape.map((_, i) => i) : [].concat(dims);
    const chosen = new Set(over.map((d) => axis(d, x.shape.length)));
    return shaped(x, x.shape.filter((n, i) => !(chosen.has(i) && n === 1)));
  };
  ops.permute = (x, dims) => {
    const [own, order] = [stridesOf(x.shape), dims.map((d) => axis(d, x.shape.length))];
    return strided(x, order.map((d) => x.shape[d]), order.map((d) => own[d]));
  };
  ops.transpose = (x, a, b) => {
    const order = x.shape.map((_, i) => i);
    const [i, j] = [axis(a, order.length), axis(b, order.length)];
    [order[i], order[j]] = [order[j], order[i]];
    return ops.permute(x, order);
  };
  ops.t = (x) => ops.transpose(x, 0, 1);
  ops.expand = (x, shape) => {
    const lead = shape.length - x.shape.length;
    return broadcast(x, shape.map((n, i) => (n === -1 ? x.shape[i - lead] : n)));
  };
  ops.expand_as = (x, other) => broadcast(x, other.shape);
  ops.slice = (x, dim, start, end, step) => {
    const [d, n] = [axis(dim, x.shape.length), x.shape[axis(dim, x.shape.length)]];
    const place = (at, otherwise) => {
      if (at === null || at === undefined) return otherwise;
      return Math.min(n, Math.max(0, at < 0 ? at + n : at));
    };
    const [from, to, own] = [place(start, 0), place(end, n), stridesOf(x.shape)];
    const shape = x.shape.map((size, i) => (i === d ? Math.max(0, Math.ceil((to - from) / step)) : size));
    if (shape[d] === n && step === 1) return x;
    return strided(x, shape, own.map((s, i) => (i === d ? s * step : s)), from * own[d]);
  };
  ops.select = (x, dim, place) => {
    const [d, own] = [axis(dim, x.shape.length), stridesOf(x.shape)];
    const at = place < 0 ? place + x.shape[d] : place;
    return strided(x, x.shape.filter((_, i) => i !== d), own.filter((_, i) => i !== d), at * own[d]);
  };
  ops.unbind = (x, dim) => Array.from({ length: x.shape[axis(dim, x.shape.length)] }, (_, i) => ops.select(x, dim, i));
  ops.split_with_sizes = (x, sizes, dim) => {
    let start = 0;
    return sizes.map((size) => ops.slice(x, dim, start, (start += size), 1));
  };
  ops.split = (x, size, dim) => {
    const n = x.shape[axis(dim, x.shape.length)];
    const count = Math.max(1, Math.ceil(n / size));
    return ops.split_with_sizes(x, Array.from({ length: count }, (_, i) => Math.min(size, n - i * size)), dim);
  };
  ops.chunk = (x, count, dim) => ops.split(x, Math.ceil(x.shape[axis(dim, x.shape.length)] / count), dim);
  ops.cat = (list, dim) => {
    const parts = list.filter((each) => each.data.length > 0 || each.shape.length > 1);
    const [d, own] = [axis(dim, parts[0].shape.length), parts[0].shape];
    const total = parts.reduce((sum, each) => sum + each.shape[d], 0);
    const out = make(own.map((n, i) => (i === d ? total : n)));
    const [rows, inner] = [sizeOf(own.slice(0, d)), sizeOf(own.slice(d + 1))];
    for (let row = 0, to = 0; row < rows; row += 1) {
      for (const { data, shape } of parts) {
        const count = shape[d] * inner;
        for (let i = 0; i < count; i += 1) out.data[to + i] = data[row * count + i];
        to += count;
      }
    }
    return out;
  };
  ops.stack = (list, dim) => {
    const d = axis(dim, list[0].shape.length + 1);
    return ops.cat(list.map((x) => ops.unsqueeze(x, d)), d);
  };
  ops.gather = (x, dim, index) => {
    const [d, own, to] = [axis(dim, x.shape.length), stridesOf(x.shape), stridesOf(index.shape)];
    const out = make(index.shape);
    for (let i = 0; i < out.data.length; i += 1) {
      let at = index.data[i] * own[d];
      index.shape.forEach((n, j) => { if (j !== d) at += (Math.floor(i / to[j]) % n) * own[j]; });
      out.data[i] = x.data[at];
    }
    return out;
  };
  ops.index_select = (x, dim, index) => ops.cat(Array.from(index.data, (i) => ops.slice(x, dim, i, i + 1, 1)), dim);
  // x[..., index, ...]: one tensor of places, along one axis.
  ops.index = (x, indices) => {
    const d = indices.findIndex((each) => each !== null);
    const n = x.shape[d];
    const places = { shape: [indices[d].data.length], data: indices[d].data.map((v) => (v < 0 ? v + n : v)) };
    const flat = ops.index_select(x, d, places);
    return shaped(flat, [...x.shape.slice(0, d), ...indices[d].shape, ...x.shape.slice(d + 1)]);
  };
  ops.embedding = (table, index) => {
    const width = table.shape[1];
    const out = make([...index.shape, width]);
    index.data.forEach((row, i) => out.data.set(table.data.subarray(row * width, (row + 1) * width), i * width));
    return out;
  };

  // Sums over axes.
  const total = reduction(0, (sum, v) => sum + v);
  ops.sum = (x) => total(x, null, false);
  ops.sum_dim_IntList = total;
  const average = reduction(0, (sum, v) => sum + v, (sum, count) => sum / count);
  ops.mean = (x) => average(x, null, false);
  ops.mean_dim = average;
  ops.amax = reduction(-Infinity, Math.max);
  ops.amin = reduction(Infinity, Math.min);
  ops.any = reduction(0, (sum, v) => sum || v);
  ops.any_dim = ops.any;
  ops.all = reduction(1, (sum, v) => sum && v);
  const softened = (finish) => (x, dim) => {
    const d = axis(dim, x.shape.length);
    const [n, inner] = [x.shape[d], sizeOf(x.shape.slice(d + 1))];
    const out = make(x.shape);
    for (let start = 0; start < x.data.length; start += n * inner) {
      for (let j = start; j < start + inner; j += 1) {
        let [most, sum] = [-Infinity, 0];
        for (let i = 0; i < n; i += 1) most = Math.max(most, x.data[j + i * inner]);
        for (let i = 0; i < n; i += 1) sum += Math.exp(x.data[j + i * inner] - most);
        for (let i = 0; i < n; i += 1) out.data[j + i * inner] = finish(x.data[j + i * inner] - most, sum);
      }
    }
    return out;
  };
  ops.softmax = softened((v, sum) => Math.exp(v) / sum);
  ops.log_softmax = softened((v, sum) => v - Math.log(sum));
  ops.logsumexp = (x, dims, keep) => {
    const most = reduction(-Infinity, Math.max)(x, dims, true);
    const inside = ops.exp(ops.sub(x, most, 1));
    const sums = total(inside, dims, true);
    const out = ops.add(ops.log(sums), most, 1);
    return keep ? out : ops.squeeze(out, dims);
  };
  ops.cumsum = (x, dim) => {
    const d = axis(dim, x.shape.length);
    const [n, inner] = [x.shape[d], sizeOf(x.shape.slice(d + 1))];
    const out = make(x.shape);
    for (let i = 0; i < x.data.length; i += 1) {
      out.data[i] = x.data[i] + (Math.floor(i / inner) % n > 0 ? out.data[i - inner] : 0);
    }
    return out;
  };

  // Layers.
  ops.linear = (x, w, bias) => {
    const [k, m] = [w.shape[1], w.shape[0]];
    const out = make([...x.shape.slice(0, -1), m]);
    linear(x.data, w.data, bias ? bias.data : null, x.data.length / k, m, k, out.data);
    return out;
  };
  ops.matmul = (a, b) => {
    const [n, k, m] = [a.shape[a.shape.length - 2], a.shape[a.shape.length - 1], b.shape[b.shape.length - 1]];
    const lead = ops.add(filled(a.shape.slice(0, -2), 0), filled(b.shape.slice(0, -2), 0)).shape;
    const [x, y] = [broadcast(a, [...lead, n, k]), broadcast(b, [...lead, k, m])];
    const out = make([...lead, n, m]);
    for (let i = 0; i < sizeOf(lead); i += 1) product(x.data, y.data, out.data, n, k, m, i * n * k, i * k * m, i * n * m);
    return out;
  };
  ops.bmm = ops.matmul;
  ops.mm = ops.matmul;
  ops.addmm = (bias, a, b) => ops.add(ops.matmul(a, b), bias, 1);
  ops.layer_norm = (x, shape, weight, bias, eps) => {
    const [out, n] = [make(x.shape), sizeOf(shape)];
    normalize(x.data, n, eps, out.data);
    for (let i = 0; weight && i < out.data.length; i += 1) {
      out.data[i] = out.data[i] * weight.data[i % n] + (bias ? bias.data[i % n] : 0);
    }
    return out;
  };
  ops.group_norm = (x, groups, weight, bias, eps) => {
    const [out, channels] = [make(x.shape), x.shape[1]];
    const inner = sizeOf(x.shape.slice(2));
    normalize(x.data, (channels / groups) * inner, eps, out.data);
    for (let i = 0; weight && i < out.data.length; i += 1) {
      const c = Math.floor(i / inner) % channels;
      out.data[i] = out.data[i] * weight.data[c] + (bias ? bias.data[c] : 0);
    }
    return out;
  };
  ops.rms_norm = (x, shape, weight, eps) => {
    const [out, n] = [make(x.shape), sizeOf(shape)];
    for (let start = 0; start < x.data.length; start += n) {
      let squares = 0;
      for (let i = start; i < start + n; i += 1) squares += x.data[i] ** 2;
      const scale = 1 / Math.sqrt(squares / n + (eps === null ? 2 ** -23 : eps));
      for (let i = 0; i < n; i += 1) out.data[start + i] = x.data[start + i] * scale * (weight ? weight.data[i] : 1);
    }
    return out;
  };
  // A convolution as a product of matrices: a column holds the entries that one output sees.
  ops.conv2d = (x, w, bias, stride, padding, dilation, groups) => {
    const pair = (v) => (Array.isArray(v) ? (v.length === 1 ? [v[0], v[0]] : v) : [v, v]);
    const [[sy, sx], [py, px], [dy, dx]] = [pair(stride), pair(padding), pair(dilation)];
    const [batch, channels, height, width] = x.shape;
    const [outs, ins, kh, kw] = w.shape;
    const high = Math.floor((height + 2 * py - dy * (kh - 1) - 1) / sy) + 1;
    const wide = Math.floor((width + 2 * px - dx * (kw - 1) - 1) / sx) + 1;
    const [area, rows, each] = [high * wide, ins * kh * kw, outs / groups];
    const out = make([batch, outs, high, wide]);
    const columns = new Float64Array(rows * area);
    for (let b = 0; b < batch; b += 1) {
      for (let g = 0; g < groups; g += 1) {
        for (let r = 0; r < rows; r += 1) {
          const [c, ky, kx] = [Math.floor(r / (kh * kw)), Math.floor(r / kw) % kh, r % kw];
          const plane = (b * channels + g * ins + c) * height * width;
          for (let i = 0, to = r * area; i < high; i += 1) {
            const y = i * sy - py + ky * dy;
            for (let j = 0; j < wide; j += 1, to += 1) {
              const u = j * sx - px + kx * dx;
              columns[to] = y >= 0 && y < height && u >= 0 && u < width ? x.data[plane + y * width + u] : 0;
            }
          }
        }
        const first = g * each;
        const own = bias ? bias.data.subarray(first, first + each) : null;
        product(w.data, columns, out.data, each, rows, area, first * rows, 0, (b * outs + first) * area, own);
      }
    }
    return out;
  };
  ops.conv1d = (x, w, bias, stride, padding, dilation, groups) => {
    const flat = (t) => shaped(t, [t.shape[0], t.shape[1], 1, t.shape[2]]);
    const found = ops.conv2d(flat(x), flat(w), bias, [1, stride[0]], [0, padding[0]], [1, dilation[0]], groups);
    return shaped(found, [found.shape[0], found.shape[1], found.shape[3]]);
  };
  ops.upsample_nearest2d = (x, size, scales) => {
    const [batch, channels, height, width] = x.shape;
    const [high, wide] = size || [Math.floor(height * scales[0]), Math.floor(width * scales[1])];
    const out = make([batch, channels, high, wide]);
    for (let i = 0; i < out.data.length; i += 1) {
      const y = Math.floor((Math.floor(i / wide) % high) * (height / high));
      const u = Math.floor((i % wide) * (width / wide));
      out.data[i] = x.data[(Math.floor(i / (high * wide)) * height + y) * width + u];
    }
    return out;
  };
  ops.avg_pool2d = (x, size, stride) => {
    const [kh, kw] = size.length === 1 ? [size[0], size[0]] : size;
    const [sy, sx] = stride && stride.length ? stride : [kh, kw];
    const [batch, channels, height, width] = x.shape;
    const [high, wide] = [Math.floor((height - kh) / sy) + 1, Math.floor((width - kw) / (sx || sy)) + 1];
    const out = make([batch, channels, high, wide]);
    for (let i = 0; i < out.data.length; i += 1) {
      const plane = Math.floor(i / (high * wide)) * height * width;
      const [y, u] = [(Math.floor(i / wide) % high) * sy, (i % wide) * (sx || sy)];
      let sum = 0;
      for (let a = 0; a < kh; a += 1) for (let b = 0; b < kw; b += 1) sum += x.data[plane + (y + a) * width + u + b];
      out.data[i] = sum / (kh * kw);
    }
    return out;
  };
  ops.scaled_dot_product_attention = (q, k, v, mask, _dropout, causal, scale) => {
    const factor = scale === null || scale === undefined ? 1 / Math.sqrt(q.shape[q.shape.length - 1]) : scale;
    let scores = ops.mul(ops.matmul(q, ops.transpose(k, -2, -1)), factor);
    const [n, m] = scores.shape.slice(-2);
    if (causal) scores.data.forEach((_, i) => { if (i % m > Math.floor(i / m) % n) scores.data[i] = -Infinity; });
    if (mask) scores = mask.type === "bool" ? ops.where(mask, scores, -Infinity) : ops.add(scores, mask, 1);
    return ops.matmul(ops.softmax(scores, -1), v);
  };
})();
