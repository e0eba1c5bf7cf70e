// Draws the charts of <script id="figures">, in the colours of the reader's light or dark theme.
"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function themed(layout) {
  const [text, grid, card] = dark.matches ? ["#e4e8ec", "#323b45", "#1d2329"] : ["#1f2933", "#e1e5ea", "#ffffff"];
  const result = {
    ...layout,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: text, family: "system-ui, Segoe UI, Helvetica, Arial, sans-serif", size: 12.5 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: grid, activecolor: text },
    hoverlabel: { align: "left", bgcolor: card, bordercolor: grid, font: { color: text, size: 12.5 } },
  };
  for (const name of ["xaxis", "yaxis", "yaxis2"]) {
    if (layout[name]) result[name] = { gridcolor: grid, linecolor: grid, ...layout[name] };
  }
  return result;
}

// Returns the figure of a chart: its own, or the one that its selector names.
function figureOf(id) {
  const select = document.querySelector(`select[data-chart="${id}"]`);
  return figures[select ? select.value : id];
}

function draw() {
  for (const { id } of document.querySelectorAll(".chart")) {
    const figure = figureOf(id);
    Plotly.react(id, figure.data, themed(figure.layout), {
      responsive: true,
      displaylogo: false,
      // sendChartToCloud would upload the chart to Plotly's servers: nothing here leaves the reader's machine
      modeBarButtonsToRemove: ["sendChartToCloud", "select2d", "lasso2d", "autoScale2d"],
    });
  }
}

draw();
dark.addEventListener("change", draw);
for (const select of document.querySelectorAll("select[data-chart]")) select.addEventListener("change", draw);
