"use strict";
(() => {
  const page = JSON.parse(document.getElementById("report-data").textContent);
  // The trials come by column: one value for all, numbers of words, or values.
  const count = Math.max(0, ...page.trials.columns.map((one) => (one.at || one.values || [0]).length));
  const trials = Array.from({ length: page.trials.columns.length ? count : 0 }, (_, i) => {
    const row = { i };
    for (const one of page.trials.columns) row[one.name] = one.at ? one.words[one.at[i]] : one.values ? one.values[i] : one.same;
    return row;
  });
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const chosen = new Map(page.figures.map((figure) => [figure.name, Object.keys(figure.views)[0]]));
  const views = new Map();
  window.secateur = { views, ready: 0, pending: 0, shown: null };

  // Vega writes into the rows that it is given, so each chart gets its own.
  // Thousands of points are drawn on a canvas, and not described one by one to screen readers: the table is there too.
  const many = trials.length > 1500;
  const fill = (name, spec) => ({
    ...spec,
    width: "container",
    autosize: { type: "fit-x", contains: "padding" },
    ...(spec.data && spec.data.name === "trials" ? { datasets: { trials: rowsOf(name) } } : {}),
  });
  const rowsOf = (name) => trials.filter((row) => name !== "front-accuracy" || row.accuracy !== null).map((row) => ({ ...row }));

  // What the tooltip puts into the page as HTML: text only, and a dash for what was not measured.
  const said = (value) => (String(value) === "null" ? "–" : String(value).replace(/&/g, "&amp;").replace(/</g, "&lt;"));

  async function draw(name, spec) {
    if (!window.vegaEmbed) return;  // a page that was written without what draws
    const box = document.querySelector(`#${name} .chart`);
    const old = views.get(name);
    const result = await vegaEmbed(box, fill(name, spec), {
      mode: "vega-lite",
      renderer: many ? "canvas" : "svg",
      config: { ...(dark.matches ? page.dark : page.light), aria: !many },
      tooltip: { theme: dark.matches ? "dark" : "light", sanitize: said },
      actions: { export: true, source: false, compiled: false, editor: false },
      downloadFileName: `${page.file}-${name}`,
    });
    if (old) old.finalize();
    views.set(name, result.view);
    result.view.addEventListener("click", (event, item) => {
      if (item && item.datum && Number.isInteger(item.datum.i)) showTrial(item.datum.i, true);
    });
  }

  // One after the other, so that the page answers in between; each figure once it comes near the screen.
  let queue = Promise.resolve();
  function plan(name, spec) {
    secateur.pending += 1;
    queue = queue.then(() => draw(name, spec())).then(() => new Promise((done) => setTimeout(done))).finally(() => {
      secateur.pending -= 1;
      if (!secateur.pending && !secateur.ready) secateur.ready = performance.now();
    });
    return queue;
  }

  const specs = new Map(page.figures.filter((figure) => figure.name !== "widths").map((figure) => [figure.name, () => figure.views[chosen.get(figure.name)]]));
  if (page.widths) specs.set("widths", widthsOf);
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      near.unobserve(entry.target);
      plan(entry.target.id, specs.get(entry.target.id));
    }
    if (!secateur.pending && !secateur.ready) secateur.ready = performance.now();
  }, { rootMargin: "200px" });
  function drawRest() {
    for (const [name, spec] of specs) {
      near.unobserve(document.getElementById(name));
      if (!views.has(name)) plan(name, spec);
    }
    return queue;
  }
  secateur.drawRest = drawRest;
  window.addEventListener("beforeprint", drawRest);
  dark.addEventListener("change", () => { for (const name of views.keys()) plan(name, specs.get(name)); });

  for (const figure of page.figures) {
    const section = document.getElementById(figure.name);
    if (!section || figure.name === "widths") continue;
    const show = (label) => {
      chosen.set(figure.name, label);
      for (const button of section.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", String(button.dataset.view === label));
      return plan(figure.name, specs.get(figure.name));
    };
    for (const button of section.querySelectorAll("[data-view]")) button.addEventListener("click", () => show(button.dataset.view));
    const select = section.querySelector("select");
    if (select) select.addEventListener("change", () => show(select.value));
  }

  // The table of trials: sorted by a click on a heading, 25 at a time.
  const whole = (value) => (value === null ? "" : value.toLocaleString("en-US"));
  const percent = (value) => (value === null ? "" : (100 * value).toFixed(2) + "%");
  const digits = (value) => (value === null ? "" : String(Number(value.toPrecision(5))));
  const text = (value) => (value === null ? "" : value);
  const measured = page.metric.percent ? percent : digits;
  const several = new Set(trials.map((row) => row.study)).size > 1;
  const columns = [
    ...(several ? [["study", "study", text]] : []),
    ["trial", "trial", whole, 1], ["rule", "rule", text], ["place", page.trials.state, text], ["MACs", "macs", whole, 1], ["of dense", "share", percent, 1],
    ["parameters", "params", whole, 1], ["score", "score", digits, 1],
    ["on fresh images", "confirmed", digits, 1],
    [page.metric.name === "accuracy" ? "validation" : `validation ${page.metric.name}`, "accuracy", measured, 1],
    [page.metric.name === "accuracy" ? "test" : `test ${page.metric.name}`, "test", measured, 1],
    ["training", "training", text],
    ...page.listed.map((name, i) => [name, `p${i}`, digits, 1]),
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

  function opener(row) {
    const button = element("button", whole(row.trial));
    button.type = "button";
    button.title = "show what it keeps";
    button.addEventListener("click", () => showTrial(row.i, true));
    return button;
  }

  function list() {
    const order = (a, b) => (a === null) - (b === null) || (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1);
    const rows = [...found].sort((a, b) => order(a[sorted], b[sorted])).slice(first, first + size);
    section.querySelector("tbody").replaceChildren(...rows.map((row) => {
      const line = document.createElement("tr");
      line.append(...columns.map(([, field, show, number]) => element("td", field === "trial" && page.widths ? opener(row) : show(row[field]), number ? "number" : field === "reason" ? "reason" : "")));
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
  // One network: the bars of what it keeps, and what was proposed for it.
  function nameOf(row) {
    const macs = row.macs === null ? "" : `, ${row.macs.toLocaleString("en-US")} MACs`;
    return (several ? `${row.study}: ` : "") + row.name + macs;
  }

  function widthsOf() {
    const row = trials[secateur.shown];
    const { groups, dense } = page.details.studies[row.study];
    const kept = (page.details.of[row.i] || [[], []])[1];
    const values = kept.length ? groups.map((group, i) => ({ group, kept: kept[i], dense: dense[i], share: kept[i] / dense[i] })) : [];
    return { ...page.widths, data: { values }, height: Math.max(1, values.length) * (values.length <= 60 ? 18 : 12) };
  }

  function showTrial(index, jump) {
    const panel = document.getElementById("widths");
    if (!panel) return;
    secateur.shown = index;
    const row = trials[index];
    const select = panel.querySelector("select");
    if (![...select.options].some((option) => option.value === String(index))) select.append(new Option(nameOf(row), index));
    select.value = String(index);
    const [values, , removed] = page.details.of[index] || [[], [], []];
    const pairs = page.details.studies[row.study].parameters.map((name, i) => [name, values[i]]).filter(([, value]) => value !== null && value !== undefined);
    if (removed.length) pairs.push(["layers removed", removed.join(", ")]);
    if (row.reason) pairs.push(["infeasible", row.reason]);
    if (!page.details.of[index]) pairs.push(["not on this page, which is full", "front.csv has it"]);
    panel.querySelector("dl").replaceChildren(...(pairs.length ? pairs : [["nothing", "–"]]).map(([name, value]) => {
      const line = document.createElement("div");
      line.append(element("dt", name), element("dd", String(value)));
      return line;
    }));
    if (views.has("widths")) plan("widths", widthsOf);
    if (jump) panel.scrollIntoView({ behavior: "smooth" });
  }

  if (page.widths) {
    const best = page.trials.columns.some((one) => one.name === "accuracy" && one.same !== null) ? "accuracy" : "score";
    const known = (row) => ["on the front", "baseline", "dense"].includes(row[`${best}_by_macs`]) || row.accuracy !== null;
    const listed = trials.filter((row) => known(row) && page.details.of[row.i]).slice(0, 200);
    listed.sort((a, b) => (b.trial !== null) - (a.trial !== null) || b.macs - a.macs);
    const panel = document.getElementById("widths");
    const select = panel.querySelector("select");
    select.append(...listed.map((row) => new Option(nameOf(row), row.i)));
    select.addEventListener("change", () => showTrial(Number(select.value)));
    const ranked = listed.filter((row) => row.trial !== null).sort((a, b) => (best === "accuracy" && page.metric.lower ? a[best] - b[best] : b[best] - a[best]) || a.macs - b.macs || a.trial - b.trial);
    showTrial((ranked[0] || listed[0] || trials[0]).i);
  }

  for (const name of specs.keys()) near.observe(document.getElementById(name));
})();
