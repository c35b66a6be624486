const specs = JSON.parse(document.getElementById("specs").textContent);
// Colours are the page's own variables, so that light, dark and print need no drawing anew.
const text = "var(--text)", dim = "var(--dim)", line = "var(--line)";
const theme = {background: null, font: "system-ui, sans-serif", view: {stroke: line},
  axis: {labelColor: text, titleColor: dim, gridColor: line, domainColor: dim, tickColor: dim, labelLimit: 220},
  legend: {labelColor: text, titleColor: dim, orient: "top", columns: 4, symbolStrokeWidth: 2, labelLimit: 220},
  header: {labelColor: text, labelFontWeight: "bold", titleColor: dim}};
let views = [];
// What is under way is awaited, so that a change of width draws once more with what holds then.
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
    place.setAttribute("role", role);  // Vega gives its own, which has every mark read out
    place.removeAttribute("aria-roledescription");
    if (panels) {  // as wide as the page is, whatever the axes take
      const spare = width - place.querySelector("svg").getBoundingClientRect().width - 2;
      const panel = Math.max(120, Math.floor(fitted.spec.width + spare / fitted.columns));
      await result.view.signal("child_width", panel).resize().runAsync();
    }
  }
  document.documentElement.dataset.drawn = String(views.length);
}
draw();
// On paper everything is open; what the reader had closed is closed again after.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const one of opened) one.open = true;
});
addEventListener("afterprint", () => { for (const one of opened) one.open = false; });
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
