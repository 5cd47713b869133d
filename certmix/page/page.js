"use strict";
(() => {
  const data = JSON.parse(document.getElementById("certmix-data").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  const printed = (chart, units) => {
    const decimal = String(Number((units / 10 ** chart.digits).toFixed(chart.digits)));
    return chart.scale > 1 && units > 0 ? `${decimal}/${chart.scale}` : decimal;
  };

  // the first step that reaches the radius holds there; beyond the last one nothing does
  const countAt = (series, units) => {
    let low = 0;
    let high = series.units.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (series.units[middle] < units) low = middle + 1;
      else high = middle;
    }
    return low < series.units.length ? series.counts[low] : 0;
  };

  const start = (chart) => {
    const figure = document.getElementById(chart.key);
    const slider = figure.querySelector("[data-slider]");
    const plot = figure.querySelector("[data-plot]");
    const cursor = figure.querySelector("[data-cursor]");

    const show = () => {
      const units = Number(slider.value) * chart.stride;
      const x = `${(100 * units) / chart.end}%`;
      const radius = printed(chart, units);
      const said = [`radius ${radius}`];
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      for (const place of all("[data-radius]", figure)) place.textContent = radius;
      for (const series of chart.series) {
        const count = countAt(series, units);
        const [figure_, low, high] = chart.figures[`${series.images}:${count}`];
        const cell = figure.querySelector(`[data-value="${series.key}"]`);
        cell.firstChild.textContent = `${figure_} `;
        cell.querySelector(".interval").textContent = `[${low}, ${high}]`;
        const point = figure.querySelector(`[data-point="${series.key}"]`);
        point.setAttribute("cx", x);
        point.setAttribute("cy", `${100 - (100 * count) / Math.max(series.images, 1)}%`);
        said.push(`${series.label}: ${figure_} %`);
      }
      slider.setAttribute("aria-valuetext", said.join("; "));
      figure.dataset.at = radius;
    };

    const follow = (event) => {
      if (event.type === "pointermove" && event.pointerType !== "mouse" && !event.buttons) return;
      const box = plot.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      slider.value = String(Math.round((share * chart.end) / chart.stride));
      show();
    };

    const toggle = (box) => {
      const key = box.dataset.switch;
      for (const part of all(`[data-series="${key}"], [data-point="${key}"]`, figure)) {
        part.classList.toggle("off", !box.checked);
      }
    };

    slider.addEventListener("input", show);
    plot.addEventListener("pointermove", follow);
    plot.addEventListener("pointerdown", follow);
    for (const box of all("[data-switch]", figure)) box.addEventListener("change", () => toggle(box));
    for (const box of all("[data-switch]", figure)) toggle(box);
    show();
  };

  const choose = (select) => {
    const prefix = `${select.dataset.chooser}-`;
    for (const result of all("[data-result]")) {
      if (result.dataset.result.startsWith(prefix)) result.hidden = result.dataset.result !== select.value;
    }
  };

  for (const part of all("[data-live]")) part.hidden = false;
  for (const chart of data.charts) start(chart);
  for (const select of all("[data-chooser]")) {
    select.addEventListener("change", () => choose(select));
    choose(select);
  }
  addEventListener("beforeprint", () => {
    for (const part of all("details")) part.open = true;
  });
  document.documentElement.classList.add("ready");
  document.documentElement.dataset.certmix = "ready";
})();
