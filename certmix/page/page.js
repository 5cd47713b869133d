"use strict";
(() => {
  const data = JSON.parse(document.getElementById("certmix-data").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  const printed = (chart, units) => {
    const decimal = String(Number((units / 10 ** chart.digits).toFixed(chart.digits)));
    return chart.scale > 1 && units > 0 ? `${decimal}/${chart.scale}` : decimal;
  };

  const start = (chart) => {
    const figure = document.getElementById(chart.key);
    const part = (name, key) => figure.querySelector(key === undefined ? `[data-${name}]` : `[data-${name}="${key}"]`);
    const radius = part("slider", "radius");
    const weight = part("slider", "weight");
    const plot = part("plot");
    const x = (units) => (1000 * units) / chart.end;

    const pick = (values) => values[Math.min(weight ? Number(weight.value) : 0, values.length - 1)];

    const draw = (series, units, counts) => {
      const text = (count) => chart.figures[`${series.inputs}:${count}`];
      const level = (percent) => 1000 - 10 * percent;
      const heights = [...counts, 0].map((count) => level((100 * count) / Math.max(series.inputs, 1)));
      part("series", series.key).setAttribute("d", `M0 ${heights[0]}${units.map((u, k) => `H${x(u)}V${heights[k + 1]}`).join("")}`);
      const above = part("reach", series.key);
      if (above) {
        const [tops, most] = pick(series.reach);
        const corners = (places, values) =>
          [...places, chart.end].flatMap((u, k) => {
            const y = level((100 * ([...values, 0][k] || 0)) / Math.max(series.inputs, 1));
            return [`${x(k ? places[k - 1] : 0)} ${y}`, `${x(u)} ${y}`];
          });
        above.setAttribute("d", `M${[...corners(tops, most), ...corners(units, counts).reverse()].join("L")}Z`);
      }
      if (!series.band) return;
      const ends = [0, ...units, chart.end].map(x);
      const upper = [...counts, 0].map((count, k) => `V${level(text(count)[2])}H${ends[k + 1]}`);
      const lower = [...counts, 0].map((count, k) => `V${level(text(count)[1])}H${ends[k]}`);
      part("band", series.key).setAttribute("d", `M0 1000${upper.join("")}${lower.reverse().join("")}Z`);
    };

    const show = () => {
      const units = Number(radius.value) * chart.stride;
      const at = `${(100 * units) / chart.end}%`;
      const cursor = part("cursor");
      cursor.setAttribute("x1", at);
      cursor.setAttribute("x2", at);
      const told = [`radius ${printed(chart, units)}`];
      for (const place of all("[data-radius]", figure)) place.textContent = printed(chart, units);
      if (weight) part("weight").textContent = pick(chart.weights);
      for (const series of chart.series) {
        part("label", series.key).textContent = pick(series.labels);
        part("clean", series.key).textContent = pick(series.clean);
        const dot = part("dot", series.key);
        if (dot) dot.setAttribute("cy", `${100 - Number(pick(series.clean))}%`);
        if (!series.steps.length) continue;
        const [ends, counts] = pick(series.steps);
        // the first step that reaches the radius holds there; beyond the last one nothing does
        const count = counts[ends.findIndex((end) => end >= units)] || 0;
        let [share, low, high] = chart.figures[`${series.inputs}:${count}`];
        if (series.reach.length) {
          const [tops, values] = pick(series.reach);
          const most = values[tops.findIndex((end) => end >= units)] || 0;
          if (most - count > Math.max(0.005 * series.inputs, series.inputs >= 100 ? 1 : 0)) {
            share += `-${(Math.ceil((1000 * most) / series.inputs) / 10).toFixed(1)}`;
            high = chart.figures[`${series.inputs}:${most}`][2];
          }
        }
        const cell = part("value", series.key);
        cell.firstChild.textContent = `${share} `;
        cell.querySelector(".interval").textContent = `[${low}, ${high}]`;
        part("point", series.key).setAttribute("cx", at);
        part("point", series.key).setAttribute("cy", `${100 - (100 * count) / Math.max(series.inputs, 1)}%`);
        told.push(`${pick(series.labels)}, ${series.under}: ${share} %`);
        draw(series, ends, counts);
      }
      for (const slider of [radius, weight]) if (slider) slider.setAttribute("aria-valuetext", told.join("; "));
      figure.dataset.at = printed(chart, units);
    };

    const follow = (event) => {
      if (event.type === "pointermove" && event.pointerType !== "mouse" && !event.buttons) return;
      const box = plot.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      radius.value = String(Math.round((share * chart.end) / chart.stride));
      show();
    };

    const toggle = (box) => {
      for (const name of ["series", "band", "reach", "dot", "point"]) {
        const found = part(name, box.dataset.switch);
        if (found) found.classList.toggle("off", !box.checked);
      }
    };

    for (const slider of [radius, weight]) if (slider) slider.addEventListener("input", show);
    for (const kind of ["pointermove", "pointerdown"]) plot.addEventListener(kind, follow);
    for (const box of all("[data-switch]", figure)) {
      box.addEventListener("change", () => toggle(box));
      toggle(box);
    }
    show();
  };

  for (const part of all("[data-live]")) part.hidden = false;
  for (const chart of data.charts) start(chart);
  addEventListener("beforeprint", () => {
    for (const part of all("details")) part.open = true;
  });
  document.documentElement.classList.add("ready");
  document.documentElement.dataset.certmix = "ready";
})();
