// Formulas: arithmatex wraps each in an element, KaTeX draws it. All files are part of the site.
function drawFormulas() {
  for (const element of document.querySelectorAll(".arithmatex")) {
    const text = element.textContent.trim();
    const display = text.startsWith("\\[");
    katex.render(text.slice(2, -2), element, { displayMode: display, throwOnError: false });
  }
}
document.addEventListener("DOMContentLoaded", drawFormulas);
