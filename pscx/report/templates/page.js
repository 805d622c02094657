"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]; // Okabe and Ito (2008)
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "star"];
const SHAPES = { // as paths in a box of 12 by 12
  circle: "M1 6a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
  square: "M1.5 1.5h9v9h-9z",
  diamond: "M6 0l6 6-6 6-6-6z",
  "triangle-up": "M6 .5l6 10.5H0z",
  x: "M3.5 1L6 3.5 8.5 1 11 3.5 8.5 6 11 8.5 8.5 11 6 8.5 3.5 11 1 8.5 3.5 6 1 3.5z",
  star: "M6 0l1.5 4.2 4.3.1-3.4 2.7 1.2 4.3L6 8.8 2.4 11.3l1.2-4.3L.2 4.3l4.3-.1z",
};
const EVERY = "every";
const PLOTLY = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };

const color = (curve) => COLORS[curve % COLORS.length];
const symbol = (curve) => SYMBOLS[Math.floor(curve / COLORS.length + curve) % SYMBOLS.length];
const swatch = (curve) => `<svg viewBox="0 0 28 12" aria-hidden="true"><path d="M0 6h28" stroke="${color(curve)}" stroke-width="2"/>`
  + `<path d="${SHAPES[symbol(curve)]}" transform="translate(8)" fill="${color(curve)}"/></svg>`;
const escaped = (text) => text.replace(/[&<>]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[sign]);
const number = (value, digits) => value === null || value === undefined ? "-" : value.toLocaleString("en", {
  minimumFractionDigits: digits, maximumFractionDigits: digits,
});

/* Charts. Their colours are those of the page, also when the system turns to dark. */

function layout(own) {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(name).trim();
  const narrow = window.innerWidth < 600;
  const axis = { gridcolor: value("--line"), linecolor: value("--soft"), zeroline: false, ticks: "outside", tickcolor: value("--line"), automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 13, color: value("--ink") },
    margin: { l: narrow ? 48 : 64, r: 12, t: 12, b: 48 },
    hoverlabel: { bgcolor: value("--panel"), bordercolor: value("--line"), font: { color: value("--ink") }, align: "left" },
    legend: { orientation: "h", y: -0.2, yanchor: "top", x: 0 },
    hovermode: "closest",
    dragmode: narrow ? false : "zoom",
    ...own,
    xaxis: { ...axis, ...own.xaxis },
    yaxis: { ...axis, ...own.yaxis },
  };
}

function traces(measure, view) {
  const unit = data.columns[measure][1] ? ` ${escaped(data.columns[measure][1])}` : "";
  const digits = `.${data.columns[measure][2]}f`;
  return data.curves.map((name, curve) => {
    const shown = view === EVERY ? data.views.slice(1) : [data.views[Number(view)]];
    const points = shown.flatMap((one) => one.points[measure] ? one.points[measure][curve].map((point) => [...point, one.title]) : []);
    return {
      type: "scatter",
      mode: view === EVERY ? "markers" : "lines+markers",
      name: escaped(name),
      x: points.map((point) => point[0]),
      y: points.map((point) => point[1]),
      text: points.map((point) => `${escaped(point[2])}<br>${escaped(point[3])}`),
      hovertemplate: `<b>%{fullData.name}</b><br>%{text}<br>%{x:.4f} bpp, %{y:${digits}}${unit}<extra></extra>`,
      line: { color: color(curve), width: 2 },
      marker: { color: color(curve), symbol: symbol(curve), size: view === EVERY ? 9 : 8, opacity: view === EVERY ? 0.75 : 1 },
    };
  });
}

function drawCurves() {
  const measure = at("measure").value;
  const view = at("view").value;
  const many = data.curves.length > 1;
  Plotly.react("chart", traces(measure, view), layout({
    showlegend: many && window.innerWidth >= 600, // on narrow screens the table below is the legend
    xaxis: { title: { text: "rate (bits per pixel)" }, type: "log", tickmode: "auto", nticks: 8, dtick: "D1", tickformat: "~g" },
    yaxis: { title: { text: escaped(data.measures[measure]) } },
  }), PLOTLY);
  if (many) fillBd(data.views[view === EVERY ? 0 : Number(view)]);
}

function fillBd(view) {
  at("bd-view").textContent = view.title;
  at("bd").querySelectorAll("tbody tr").forEach((row, curve) => {
    row.querySelectorAll("td.number").forEach((cell) => {
      const [value, about] = view.bd[cell.dataset.measure] ? view.bd[cell.dataset.measure][curve] : [null, "not measured"];
      cell.textContent = value === null ? "-" : (value < 0 ? "-" : "+") + Math.abs(value).toFixed(1);
      cell.nextElementSibling.textContent = about;
    });
  });
}

function drawBudget() {
  const runs = data.budget.map((entry) => escaped(entry.run));
  const bar = (name, values, shade) => ({
    type: "bar", orientation: "h", name, y: runs, x: values, marker: { color: shade },
    customdata: data.budget.map((entry) => [number(entry.evaluations, 0)]),
    hovertemplate: `<b>%{y}</b><br>${name}: %{x:.2f} s<br>%{customdata[0]} evaluations<extra></extra>`,
  });
  const decoding = {
    type: "scatter", mode: "markers", name: "decoding", y: runs, x: data.budget.map((entry) => entry.decoding),
    marker: { symbol: "line-ns-open", size: 16, line: { width: 2 }, color: "#D55E00" },
    hovertemplate: "<b>%{y}</b><br>decoding: %{x:.2f} s<extra></extra>",
  };
  const chart = at("budget-chart");
  chart.style.height = `${150 + 34 * runs.length}px`;
  const longest = Math.max(...runs.map((run) => run.length));
  Plotly.react(chart, [
    bar("encoding, in the network", data.budget.map((entry) => entry.network), "#0072B2"),
    bar("encoding, the rest", data.budget.map((entry) => entry.rest), "#56B4E9"),
    decoding,
  ], layout({
    barmode: "stack",
    bargap: 0.35,
    xaxis: { title: { text: "seconds an image" }, rangemode: "tozero" },
    yaxis: { autorange: "reversed", ticks: "", showgrid: false, tickfont: { size: longest > 24 ? 10 : 12 } },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    margin: { l: 48, r: 12, t: 40, b: 48 },
  }), { ...PLOTLY, displayModeBar: false });
}

function startCharts() {
  const view = at("view");
  data.views.forEach((one, index) => view.add(new Option(one.title, String(index))));
  if (data.views.length > 1) view.add(new Option("every image", EVERY), 1);
  const single = data.views[0].points[at("measure").value].every((points) => points.length < 2);
  if (single && data.views.length > 1) view.value = EVERY;
  document.querySelectorAll(".swatch").forEach((one) => { one.innerHTML = swatch(Number(one.dataset.curve)); });
  const draw = () => { drawCurves(); drawBudget(); };
  for (const id of ["measure", "view"]) at(id).addEventListener("change", drawCurves);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
}

/* The gallery: one viewer, whose state is an item (a stream) and a segment of it. */

const state = { item: 0, segment: 0, restoration: 0, timer: null };
const item = () => data.items[state.item];
const restorations = (one) => [{ label: "that of the run", psnr: one.steps[one.steps.length - 1].psnr, ...one.reconstruction }, ...one.restorations];
const images = [...new Set(data.items.map((one) => one.image))];

function element(name, content, properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...[content].flat());
  return made;
}

function fillPicker() {
  images.forEach((name) => {
    const one = data.items.find((other) => other.image === name);
    const picture = element("img", [], { src: one.thumbnail, alt: `Small picture of ${name}` });
    const button = element("button", [picture, element("span", name)], { type: "button", title: name });
    button.addEventListener("click", () => choose(name, item().run));
    at("picker").append(button);
  });
}

function choose(image, run) {
  const same = data.items.findIndex((one) => one.image === image && one.run === run);
  pause();
  state.item = same >= 0 ? same : data.items.findIndex((one) => one.image === image);
  state.segment = item().steps.length - 1;
  showItem();
}

function showItem() {
  const one = item();
  [...at("picker").children].forEach((button, index) => button.setAttribute("aria-pressed", String(images[index] === one.image)));
  const runs = data.items.filter((other) => other.image === one.image).map((other) => other.run);
  at("run").replaceChildren(...runs.map((name) => new Option(name, name, false, name === one.run)));
  at("run-control").hidden = new Set(data.items.map((other) => other.run)).size < 2;
  const stage = at("stage");
  stage.style.aspectRatio = `${one.width} / ${one.height}`;
  stage.style.maxWidth = `${Math.min(6 * one.width, 0.8 * 900 * one.width / one.height)}px`;
  stage.classList.toggle("alone", one.original === null);
  at("before").src = one.original === null ? "" : one.original.uri;
  if (one.original === null) at("before").removeAttribute("src");
  at("before").alt = `Original of ${one.image}`;
  at("segment").max = one.steps.length;
  at("restoration-control").hidden = one.restorations.length === 0;
  at("restoration").max = one.restorations.length;
  state.restoration = Math.min(state.restoration, one.restorations.length);
  at("facts").replaceChildren(...facts(one));
  at("bits-top").textContent = number(one.top_bits, 2);
  at("spread-unit").textContent = `standard deviation of the samples, ${one.in_pixels ? "grey levels" : "in units of the latent"}`;
  at("spread-top").textContent = number(one.top_spread, one.in_pixels ? 1 : 2);
  for (const id of ["bits-map", "spread-map"]) at(id).parentElement.style.aspectRatio = `${one.width} / ${one.height}`;
  fillPatterns(one);
  fillSegments(one);
  showSegment();
}

function facts(one) {
  const keys = ["bpp", ...data.metrics, "evaluations", "encode_seconds", "decode_seconds"].filter((key) => key in one.facts);
  const entry = (name, text, unit) => element("div", [
    element("dt", name), element("dd", [text, element("small", unit ? ` ${unit}` : "")]),
  ]);
  return [
    entry("file", number(one.facts.bytes, 0), "bytes"),
    ...keys.map((key) => entry(data.columns[key][0], number(one.facts[key], data.columns[key][2]), data.columns[key][1])),
  ];
}

function fillPatterns(one) {
  at("patterns").replaceChildren(...one.patterns.map((pattern, index) => element("img", [], {
    src: pattern.uri, alt: `Row ${index + 1} of the transform, measured in segment ${pattern.segment}`, title: `segment ${pattern.segment}`,
  })));
  const where = one.blocks === 1 ? "of the transform, each over the whole image" : `of the block that has most of them, which is framed in the map; ${number(one.blocks, 0)} blocks`;
  at("patterns-text").textContent = `The first ${one.patterns.length} rows ${where}, in the order in which they were measured. Grey is 0.`;
  const mark = at("mark");
  mark.hidden = one.blocks === 1;
  const share = (value, whole) => `${100 * value / whole}%`;
  Object.assign(mark.style, {
    left: share(one.block.left, one.width), top: share(one.block.top, one.height),
    width: share(one.block.width, one.width), height: share(one.block.height, one.height),
  });
}

function fillSegments(one) {
  at("segments").tBodies[0].replaceChildren(...one.steps.map((step) => element("tr", [
    element("th", String(step.segment), { scope: "row" }),
    ...[[step.rows, 0], [step.bits, 0], [step.bpp, 4], [step.psnr, 2]].map(([value, digits]) => element("td", number(value, digits), { className: "number" })),
  ])));
}

function showSegment() {
  const one = item();
  const step = one.steps[state.segment];
  const last = state.segment === one.steps.length - 1;
  const seen = last ? null : one.steps.slice(0, state.segment + 1).reverse().find((other) => other.picture);
  const after = at("after");
  const restored = restorations(one)[state.restoration];
  const shown = last ? restored.uri : seen ? seen.picture : one.reconstruction.uri;
  if (after.getAttribute("src") !== shown) after.src = shown;
  const what = last ? (state.restoration ? restored.label : "reconstruction") : `after segment ${seen ? seen.segment : step.segment}`;
  at("after-tag").textContent = what;
  after.alt = last ? `Reconstruction of ${one.image}, run ${one.run}` : `${one.image} after segment ${step.segment}, run ${one.run}`;
  at("segment").value = String(step.segment);
  at("segment").setAttribute("aria-valuetext", `after segment ${step.segment} of ${one.steps.length}`);
  at("segment-text").textContent = `${step.segment} of ${one.steps.length}`;
  at("bits-map").src = step.map;
  at("bits-map").alt = `Map of the bits of each block of ${one.image} up to segment ${step.segment}`;
  showSpread(one, step, last);
  const rows = `${number(step.rows, 0)} rows for ${number(step.bits, 0)} bits; ${number(step.bpp, 4)} bpp so far`;
  const psnr = last ? restored.psnr : step.psnr;
  const quality = psnr === null ? "" : `, ${number(psnr, 2)} dB`;
  at("restoration").value = String(state.restoration);
  at("restoration").setAttribute("aria-valuetext", restored.label);
  at("restoration-text").textContent = restored.label;
  const kind = last ? "The restoration of all that was measured." : "The mean of the samples that the loop draws next, not a restoration (or what was measured alone, where it draws none); a lossy picture of at most 384 pixels.";
  at("frame-note").textContent = `Segment ${step.segment}: ${rows}${quality}. ${kind}`;
  at("about").textContent = about(one);
  [...at("segments").tBodies[0].rows].forEach((row, index) => row.toggleAttribute("aria-current", index === state.segment));
}

function showSpread(one, step, last) {
  const map = at("spread-map");
  map.hidden = step.spread === null;
  if (step.spread !== null) map.src = step.spread;
  map.alt = `Map of the spread of the samples of ${one.image} after segment ${step.segment}`;
  at("spread-none").hidden = step.spread !== null;
  at("spread-none").textContent = last ? "No samples are drawn after the last segment. Play, or choose an earlier one." : "No samples, or a single one, were drawn here.";
}

function about(one) {
  const shrunk = (picture, name) => picture !== null && picture.factor > 1 ? [`the ${name} at 1/${picture.factor} of its size, to keep the page small`] : [];
  const notes = [...shrunk(one.original, "original"), ...shrunk(restorations(one)[state.restoration], "reconstruction")];
  const exact = notes.length ? `Without further loss, but ${notes.join(" and ")}.` : "Original and reconstruction are shown without loss.";
  const size = `${one.width} x ${one.height} pixels.`;
  return one.original === null ? `${size} There is no original to compare with: ${one.missing}.` : `${size} ${exact}`;
}

function sharpen() {
  const enlarged = at("stage").clientWidth > 1.5 * item().width;
  for (const id of ["before", "after"]) at(id).classList.toggle("enlarged", enlarged);
}

function go(segment) {
  state.segment = Math.max(0, Math.min(segment, item().steps.length - 1));
  showSegment();
}

function pause() {
  clearInterval(state.timer);
  state.timer = null;
  at("play").setAttribute("aria-label", "Play");
  at("play-shape").setAttribute("d", "M4 2.5v11L13 8z");
}

function play() {
  if (state.segment === item().steps.length - 1) go(0);
  at("play").setAttribute("aria-label", "Pause");
  at("play-shape").setAttribute("d", "M3 3h4v10H3zM9 3h4v10H9z");
  const pace = Math.max(80, Math.min(700, 6000 / item().steps.length));
  state.timer = setInterval(() => {
    go(state.segment + 1);
    if (state.segment === item().steps.length - 1) pause();
  }, pace);
}

function startGallery() {
  fillPicker();
  at("run").addEventListener("change", (event) => choose(item().image, event.target.value));
  at("split").addEventListener("input", (event) => at("stage").style.setProperty("--split", `${event.target.value}%`));
  at("segment").addEventListener("input", (event) => { pause(); go(Number(event.target.value) - 1); });
  at("restoration").addEventListener("input", (event) => { pause(); state.restoration = Number(event.target.value); go(Infinity); });
  at("first").addEventListener("click", () => { pause(); go(0); });
  at("last").addEventListener("click", () => { pause(); go(Infinity); });
  at("play").addEventListener("click", () => { if (state.timer === null) play(); else pause(); });
  new ResizeObserver(sharpen).observe(at("stage"));
  choose(images[0], data.items[0].run);
}

startCharts();
if (data.items.length) startGallery();
