// Drawing: images as pixels, vectors as bars, curves, and the parts of a section by name.
"use strict";
(() => {
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // The elements of a section by their data-part.
  function parts(section) {
    const found = {};
    section.querySelectorAll("[data-part]").forEach((each) => { found[each.dataset.part] = each; });
    return found;
  }

  // Numbers of one event on a canvas: `low` is black and `high` is white; vectors become bars.
  function picture(canvas, model, numbers, [low, high], label) {
    const context = canvas.getContext("2d");
    const scaled = (v) => Math.max(0, Math.min(1, (v - low) / (high - low || 1)));
    if (label) {
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", label);
    }
    if (!model.image) {
      [canvas.width, canvas.height] = [160, 160];
      context.clearRect(0, 0, 160, 160);
      context.fillStyle = color("accent");
      const wide = 160 / numbers.length;
      numbers.forEach((v, i) => {
        const [top, zero] = [160 * (1 - scaled(v)), 160 * (1 - scaled(0))];
        context.fillRect(i * wide, Math.min(top, zero), Math.max(1, wide - 1), Math.max(1, Math.abs(top - zero)));
      });
      return;
    }
    const [channels, height, width] = model.shape;
    [canvas.width, canvas.height] = [width, height];
    const image = context.createImageData(width, height);
    const area = height * width;
    for (let i = 0; i < area; i += 1) {
      for (let c = 0; c < 3; c += 1) image.data[4 * i + c] = 255 * scaled(numbers[(channels === 3 ? c : 0) * area + i]);
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  // A curve over t in [0, 1], with axes, their numbers, a reference line and a mark at t.
  function curve(canvas, values, t, { reference = null, marks = [] } = {}) {
    const context = canvas.getContext("2d");
    const [width, height] = [canvas.width, canvas.height];
    const [left, right, top, bottom] = [84, 12, 14, 40];
    const finite = values.filter(Number.isFinite);
    const all = reference === null ? finite : [...finite, reference];
    let [low, high] = [Math.min(...all), Math.max(...all)];
    const margin = (high - low || 1) * 0.06;
    [low, high] = [low - margin, high + margin];
    const x = (u) => left + u * (width - left - right);
    const y = (v) => height - bottom - ((v - low) / (high - low)) * (height - top - bottom);
    context.clearRect(0, 0, width, height);
    context.strokeStyle = color("line");
    context.lineWidth = 1;
    context.strokeRect(left, top, width - left - right, height - top - bottom);
    context.fillStyle = color("quiet");
    context.font = "20px system-ui, sans-serif";
    context.textAlign = "right";
    for (const v of [low + margin, high - margin]) context.fillText(lab.short(v), left - 6, y(v) + 7);
    context.textAlign = "center";
    for (const u of [0, 0.5, 1]) context.fillText(u === 0.5 ? "t" : String(u), x(u), height - 12);
    const line = (points, style, dash = []) => {
      context.strokeStyle = style;
      context.lineWidth = 3;
      context.setLineDash(dash);
      context.beginPath();
      points.forEach(([u, v], i) => (i ? context.lineTo(x(u), y(v)) : context.moveTo(x(u), y(v))));
      context.stroke();
      context.setLineDash([]);
    };
    if (reference !== null) line([[0, reference], [1, reference]], color("quiet"), [8, 6]);
    line(values.map((v, i) => [i / (values.length - 1), v]), color("accent"));
    const at = (u) => values[Math.round(u * (values.length - 1))];
    context.fillStyle = color("second");
    for (const u of marks) {
      context.beginPath();
      context.arc(x(u), y(at(u)), 4, 0, 7);
      context.fill();
    }
    line([[t, low], [t, high]], color("second"));
    context.beginPath();
    context.arc(x(t), y(at(t)), 8, 0, 7);
    context.fill();
    // From a place on the canvas, in pixels of the screen, to t.
    return (place, wide) => Math.max(0, Math.min(1, ((place / wide) * width - left) / (width - left - right)));
  }

  // A row of buttons with one small picture each; choose(i) is called with the chosen one.
  function rowsOf(holder, model, choose) {
    const { labels } = model.examples;
    const count = model.x.shape[0];
    const buttons = Array.from({ length: count }, (_, i) => {
      const button = document.createElement("button");
      button.type = "button";
      const name = `row ${i + 1}${labels ? `, label ${labels[i]}` : ""}`;
      button.setAttribute("aria-label", name);
      button.title = name;
      const canvas = document.createElement("canvas");
      picture(canvas, model, model.row(model.x, i).data, model.range);
      button.append(canvas);
      button.addEventListener("click", () => pick(i));
      holder.append(button);
      return button;
    });
    const pick = (i) => {
      buttons.forEach((each, j) => each.setAttribute("aria-pressed", String(i === j)));
      choose(i);
    };
    return pick;
  }

  // Options of a label, if the model takes one; the last one is "none" where that is allowed.
  function labelsOf(found, model, none) {
    if (!model.classes) return () => null;
    found.labels.hidden = false;
    model.classes.forEach((name, i) => found.label.append(new Option(name, i)));
    if (none) found.label.append(new Option("none", -100));
    return () => Number(found.label.value);
  }

  lab.short = (v) => {
    if (!Number.isFinite(v)) return String(v);
    const size = Math.abs(v);
    if (size !== 0 && (size >= 1e5 || size < 1e-3)) return v.toExponential(1).replace("-", "−");
    return v.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 3).replace("-", "−");
  };
  Object.assign(lab, { color, parts, picture, curve, rowsOf, labelsOf });
})();
