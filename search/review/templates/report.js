"use strict";
(() => {
  const page = JSON.parse(document.getElementById("report-data").textContent);
  const trials = page.trials.rows.map((row) => Object.fromEntries(page.trials.columns.map((name, i) => [name, row[i]])));
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const chosen = new Map(page.figures.map((figure) => [figure.name, Object.keys(figure.views)[0]]));
  const views = new Map();
  window.secateur = { views, ready: false };

  // Vega writes into the rows that it is given, so each chart gets its own.
  const fill = (spec) => ({
    ...spec,
    width: "container",
    autosize: { type: "fit-x", contains: "padding" },
    ...(spec.data && spec.data.name === "trials" ? { datasets: { trials: trials.map((row) => ({ ...row })) } } : {}),
  });

  // What the tooltip puts into the page as HTML: text only, and a dash for what was not measured.
  const said = (value) => (String(value) === "null" ? "–" : String(value).replace(/&/g, "&amp;").replace(/</g, "&lt;"));

  async function draw(figure) {
    const box = document.querySelector(`#${figure.name} .chart`);
    const old = views.get(figure.name);
    const result = await vegaEmbed(box, fill(figure.views[chosen.get(figure.name)]), {
      mode: "vega-lite",
      renderer: trials.length > 1500 ? "canvas" : "svg",
      config: dark.matches ? page.dark : page.light,
      tooltip: { theme: dark.matches ? "dark" : "light", sanitize: said },
      actions: { export: true, source: false, compiled: false, editor: false },
      downloadFileName: `${page.file}-${figure.name}`,
    });
    if (old) old.finalize();
    views.set(figure.name, result.view);
  }

  async function drawAll() {
    for (const figure of page.figures) await draw(figure);
    window.secateur.ready = true;
  }

  for (const figure of page.figures) {
    const section = document.getElementById(figure.name);
    const show = (label) => {
      chosen.set(figure.name, label);
      for (const button of section.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", String(button.dataset.view === label));
      return draw(figure);
    };
    for (const button of section.querySelectorAll("[data-view]")) button.addEventListener("click", () => show(button.dataset.view));
    const select = section.querySelector("select");
    if (select) select.addEventListener("change", () => show(select.value));
  }
  dark.addEventListener("change", drawAll);

  // The table of trials: sorted by a click on a heading, 25 at a time.
  const whole = (value) => (value === null ? "" : value.toLocaleString("en-US"));
  const percent = (value) => (value === null ? "" : (100 * value).toFixed(2) + "%");
  const digits = (value) => (value === null ? "" : String(Number(value.toPrecision(5))));
  const text = (value) => (value === null ? "" : value);
  const several = new Set(trials.map((row) => row.study)).size > 1;
  const columns = [
    ...(several ? [["study", "study", text]] : []),
    ["trial", "trial", whole, 1], ["place", page.trials.state, text], ["MACs", "macs", whole, 1], ["of dense", "share", percent, 1],
    ["parameters", "params", whole, 1], ["score", "score", digits, 1], ["validation", "accuracy", percent, 1], ["test", "test", percent, 1],
    ...page.listed.map((name) => [name, `parameter ${name}`, digits, 1]),
    ["seconds", "seconds", digits, 1], ["structure", "structure", text], ["infeasible because", "reason", text],
  ].filter(([, field]) => trials.some((row) => row[field] !== null && row[field] !== ""));
  const section = document.getElementById("trials");
  const own = trials.filter((row) => row.trial !== null);
  const size = 25;
  let [sorted, up, first, found] = ["trial", true, 0, own];

  const element = (tag, content, name) => {
    const made = document.createElement(tag);
    if (content instanceof Node) made.append(content); else made.textContent = content;
    if (name) made.className = name;
    return made;
  };

  function list() {
    const order = (a, b) => (a === null) - (b === null) || (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1);
    const rows = [...found].sort((a, b) => order(a[sorted], b[sorted])).slice(first, first + size);
    section.querySelector("tbody").replaceChildren(...rows.map((row) => {
      const line = document.createElement("tr");
      line.append(...columns.map(([, field, show, number]) => element("td", show(row[field]), number ? "number" : field === "reason" ? "reason" : "")));
      return line;
    }));
    section.querySelector("thead").replaceChildren(document.createElement("tr"));
    section.querySelector("thead tr").append(...columns.map(([title, field, , number]) => {
      const button = element("button", title + (field === sorted ? (up ? " ↑" : " ↓") : ""));
      button.type = "button";
      button.addEventListener("click", () => { [up, sorted, first] = [field === sorted ? !up : true, field, 0]; list(); });
      return element("th", button, number ? "number" : "");
    }));
    const last = Math.min(first + size, found.length);
    section.querySelector(".pages span").textContent = found.length ? `${whole(first + 1)}–${whole(last)} of ${whole(found.length)}` : "none";
    section.querySelector('[data-step="-1"]').disabled = first === 0;
    section.querySelector('[data-step="1"]').disabled = last >= found.length;
    section.querySelector(".count").textContent = found.length < own.length ? `${whole(found.length)} of ${whole(own.length)}` : "";
  }
  section.querySelector("input").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    found = own.filter((row) => [row.name, row.structure, row.reason, row.study, row[page.trials.state]].some((value) => value && value.toLowerCase().includes(wanted)));
    first = 0;
    list();
  });
  for (const button of section.querySelectorAll("[data-step]")) button.addEventListener("click", () => { first += size * Number(button.dataset.step); list(); });

  list();
  drawAll();
})();
