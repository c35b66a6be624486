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
    const fitted = structuredClone(spec);
    if (fitted.columns) {
      fitted.columns = Math.max(1, Math.min(3, Math.floor(width / 330)));
      fitted.spec.width = Math.max(140, Math.min(330, width / fitted.columns - 110));
    }
    const result = await vegaEmbed("#" + name, fitted, {actions: false, renderer: "svg", config: theme});
    views.push(result);
  }
  document.documentElement.dataset.drawn = String(views.length);
}
draw();
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
