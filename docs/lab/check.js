// The page against PyTorch: calls of each part, and where the paths of three samplers end.
"use strict";
(() => {
  const difference = (found, expected) => {
    let [most, size] = [0, 1];
    expected.forEach((v, i) => {
      most = Math.max(most, Math.abs(found[i] - v));
      size = Math.max(size, Math.abs(v));
    });
    return Number.isFinite(most) ? most / size : Infinity;
  };

  lab.check = (model) => {
    const calls = {};
    for (const { program, inputs, outputs } of model.calls) {
      const given = Object.fromEntries(Object.entries(inputs).map(([name, value]) => [name, lab.decoded(value)]));
      const found = model.call(program, given);
      for (const [name, value] of Object.entries(outputs)) {
        calls[`${program} ${name}`] = difference(found[name].data, lab.decoded(value).data);
      }
    }
    const paths = {};
    let milliseconds = null;
    if (model.paths) {
      const { steps, guidance, label, ends } = model.paths;
      const denoise = (z, logSnr) => model.denoise(z, logSnr, label, guidance);
      for (const { method, z } of ends) {
        const start = performance.now();
        let last = null;
        for (const state of lab.path(method, model.row(model.noise, 0).data, model.grid(steps), denoise)) last = state;
        paths[method] = difference(last.z, lab.decoded(z).data);
        if (method === "ddim") milliseconds = (performance.now() - start) / steps;
      }
    }
    return { name: model.name, calls, paths, milliseconds };
  };
})();
