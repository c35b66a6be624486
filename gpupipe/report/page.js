const specs = JSON.parse(document.getElementById("specs").textContent);
// Colours are CSS variables of the page, so a change between light, dark and print redraws nothing.
const text = "var(--text)", dim = "var(--dim)", line = "var(--line)";
const theme = {background: null, font: "system-ui, sans-serif", view: {stroke: line},
  axis: {labelColor: text, titleColor: dim, gridColor: line, domainColor: dim, tickColor: dim, labelLimit: 220},
  legend: {labelColor: text, titleColor: dim, orient: "top", columns: 4, symbolStrokeWidth: 2, labelLimit: 220},
  header: {labelColor: text, labelFontWeight: "bold", titleColor: dim}};
let views = [];
// A draw waits for the one in progress, so a change of width during a draw is followed by a draw at the new width.
let drawing = Promise.resolve();
function draw() { return drawing = drawing.then(drawAll); }
async function drawAll() {
  views.forEach(view => view.finalize());
  views = [];
  const width = document.querySelector("main").clientWidth;
  for (const [name, spec] of Object.entries(specs)) {
    const fitted = structuredClone(spec), panels = fitted.facet !== undefined;
    if (panels) {
      fitted.columns = Math.max(1, Math.min(fitted.columns, Math.floor(width / 300)));
      fitted.spec.width = Math.max(120, width / fitted.columns - 90);
    }
    const place = document.getElementById(name), role = place.getAttribute("role");
    const result = await vegaEmbed(place, fitted, {actions: false, renderer: "svg", config: theme});
    views.push(result);
    place.setAttribute("role", role);  // Vega sets a role with which screen readers read every mark
    place.removeAttribute("aria-roledescription");
    if (panels) {  // use the full width of the page, whatever the axes need
      const spare = width - place.querySelector("svg").getBoundingClientRect().width - 2;
      const panel = Math.max(120, Math.floor(fitted.spec.width + spare / fitted.columns));
      await result.view.signal("child_width", panel).resize().runAsync();
    }
  }
  document.documentElement.dataset.drawn = String(views.length);
}
draw();
// In print all details are open; those that were closed are closed again afterwards.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const details of opened) details.open = true;
});
addEventListener("afterprint", () => { for (const details of opened) details.open = false; });
let timer, lastWidth = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === lastWidth) return;
  lastWidth = innerWidth; clearTimeout(timer); timer = setTimeout(draw, 200);
});
for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.rows[0].querySelectorAll("button").forEach((button, column) => button.addEventListener("click", () => {
    const head = button.parentElement, down = head.getAttribute("aria-sort") === "descending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "ascending" : "descending");
    const value = row => {
      const cell = row.cells[column];
      return cell.classList.contains("number") ? (cell.dataset.value === "" ? NaN : Number(cell.dataset.value)) : cell.textContent;
    };
    const order = (a, b) => typeof a === "number" ? (isNaN(a) - isNaN(b)) || (a - b) * (down ? 1 : -1)
      : a.localeCompare(b) * (down ? -1 : 1);
    [...table.tBodies[0].rows].map(row => [value(row), row]).sort((a, b) => order(a[0], b[0]))
      .forEach(([, row]) => table.tBodies[0].append(row));
  }));
}
