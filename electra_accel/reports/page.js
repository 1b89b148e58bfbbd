// Draws the charts in the page's colours, and lets sliders and tabs choose which pane is seen.
"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");
const touch = matchMedia("(pointer: coarse)").matches;
const plain = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

// The chart's own settings win over the page's.
function merged(base, own) {
  const result = { ...base };
  for (const [key, value] of Object.entries(own ?? {})) result[key] = plain(value) ? merged(plain(base[key]) ? base[key] : {}, value) : value;
  return result;
}

function layoutOf(own) {
  const style = getComputedStyle(document.documentElement);
  const [ink, quiet, rule, paper] = ["--ink", "--quiet", "--rule", "--paper"].map((name) => style.getPropertyValue(name).trim());
  const axis = { gridcolor: rule, zeroline: false, linecolor: rule, tickcolor: rule, automargin: true, title: { font: { size: 12, color: quiet }, standoff: 8 } };
  const base = {
    autosize: true, uirevision: "kept", // zoom and hidden curves outlive a change between light and dark
    paper_bgcolor: paper, plot_bgcolor: paper,
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: quiet },
    margin: { l: 48, r: 8, t: 26, b: 36 }, // the buttons stand above
    dragmode: touch ? false : "zoom", // a finger on a chart scrolls the page; the buttons zoom
    legend: { orientation: "h", x: 0, y: -0.2, yanchor: "top", font: { color: ink } },
    hoverlabel: { bgcolor: paper, bordercolor: rule, font: { color: ink, family: getComputedStyle(document.body).fontFamily } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: quiet, activecolor: ink },
    xaxis: {}, yaxis: {},
  };
  const layout = merged(base, own);
  for (const key of Object.keys(layout)) if (/^[xy]axis\d*$/.test(key)) layout[key] = merged(axis, layout[key]);
  return layout;
}

function draw(chart) {
  if (chart.offsetParent === null) return; // in a pane that is not seen: it has no size yet
  const figure = JSON.parse(chart.querySelector("script").textContent);
  const config = {
    showSendToCloud: false, plotlyServerURL: "", // plotly.js offers to upload the figure otherwise
    displaylogo: false, responsive: true, displayModeBar: touch ? true : "hover", modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };
  Plotly.react(chart.querySelector(".plot"), figure.data, layoutOf(figure.layout), config);
}

const drawAll = (root) => root.querySelectorAll(".chart").forEach(draw);

for (const panes of document.querySelectorAll(".panes")) {
  const all = [...panes.querySelectorAll(":scope > .pane")];
  const show = (index) => {
    all.forEach((pane, i) => { pane.hidden = i !== index; });
    drawAll(all[index]);
  };
  const slider = panes.querySelector(":scope > .control input[type=range]");
  const move = () => {
    const label = all[slider.value].dataset.label;
    panes.querySelector(":scope > .control output").value = label;
    slider.setAttribute("aria-valuetext", label);
    show(Number(slider.value));
  };
  if (slider) {
    slider.addEventListener("input", move);
    move(); // a browser may have kept the slider's place over a reload
  }
  panes.querySelectorAll(":scope > .control input[type=radio]").forEach((radio, i) => radio.addEventListener("change", () => show(i)));
}
// A finger cannot hover: a tap on a token says below its sentence what its title says.
document.addEventListener("click", (event) => {
  const token = event.target.closest(".token[title]");
  const told = token?.closest(".reconstruction")?.querySelector(".told");
  if (told) told.textContent = `${token.textContent}: ${token.title}`;
});
drawAll(document);
dark.addEventListener("change", () => drawAll(document));
