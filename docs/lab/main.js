// Build a section for each model, then compare the page with PyTorch. index.html#check shows all differences.
"use strict";
(() => {
  const main = document.querySelector("[data-part=main]");
  const links = document.querySelector("[data-part=models]");
  const footer = document.querySelector("[data-part=footer]");
  main.replaceChildren();
  lab.sections = lab.models.map((plain, place) => {
    const model = new lab.Model(plain);
    const section = document.getElementById(plain.kind).content.cloneNode(true).firstElementChild;
    section.id = `model-${place + 1}`;
    const found = lab.parts(section);
    found.title.textContent = plain.name;
    found.formula.textContent = `${plain.formula.join("\n")}\n${plain.parameters.toLocaleString("en")} parameters`;
    const link = document.createElement("a");
    link.href = `#${section.id}`;
    link.textContent = plain.name;
    links.append(link);
    main.append(section);
    return { model, section, panel: lab[plain.kind](section, model) };
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    lab.sections.forEach(({ panel }) => panel.redraw());
  });

  function compare() {
    const results = lab.sections.map(({ model }) => lab.check(model));
    const all = results.flatMap(({ calls, paths }) => [...Object.values(calls), ...Object.values(paths)]);
    const worst = Math.max(0, ...all);
    const times = results.map(({ milliseconds }) => milliseconds).filter((each) => each !== null);
    const speed = times.length ? ` One step takes ${Math.max(...times).toFixed(1)} ms here.` : "";
    footer.textContent = worst < 1e-3
      ? `The numbers of this page agree with PyTorch: the largest relative difference is ${worst.toExponential(1)}.${speed}`
      : `The numbers of this page differ from PyTorch by ${worst.toExponential(1)}: please report your browser.`;
    if (location.hash === "#check") {
      const shown = document.createElement("pre");
      shown.id = "check";
      shown.textContent = JSON.stringify({ results, worst, errors: lab.errors }, null, 1);
      main.append(shown);
    }
  }
  // At once, so that a browser without a window prints it; else after the first drawing.
  if (location.hash === "#check") compare();
  else setTimeout(compare, 100);
})();
