// Memory and work of each plan, from the planner's own counts (method/33_memory).
"use strict";
(() => {
  const LD3M = globalThis.LD3M;
  const MODELS = {
    "digits-10": "the shipped prior of digits, 32 px, 10 images",
    "digits-20": "the shipped prior of digits, 32 px, 20 images",
    "cin256-128": "the released prior's size, 128 px, 10 images",
    "cin256-256": "the released prior's size, 256 px, 10 images",
  };
  const SHARE = 0.9; // ld3m_min.planner.machine.SHARE: so much of the memory a plan may fill

  // at T steps: bytes at once with the weights, and operations
  function need(plan, T) {
    const at = ([start, each]) => start + T * each;
    return { bytes: at(plan.bytes) + plan.weights, flops: at(plan.flops) };
  }
  // every plan, and the one that a run would take: the first that fits
  function plans(model, T, memory) {
    const rows = Object.entries(model.plans).map(([name, plan]) => ({ name, ...need(plan, T) }));
    rows.forEach((r) => { r.fits = r.bytes <= SHARE * memory; r.relative = r.flops / rows[0].flops; });
    return { rows, chosen: rows.find((r) => r.fits)?.name };
  }
  LD3M.planner = { need, plans };

  const size = (bytes) => (bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(1)} GiB` : `${Math.round(bytes / 2 ** 20)} MiB`);

  LD3M.register("planner", (body, data) => {
    const { el, svg } = LD3M;
    const model = LD3M.select("what generates", Object.keys(data.models).map((m) => [m, MODELS[m]]), "cin256-128", show);
    const steps = LD3M.range("steps T", data.steps, 10, show);
    const memory = LD3M.range("memory of the device", [0.125, 0.25, 0.5, 1, 2, 4, 8, 12, 16, 24, 40, 80, 160], 24, show, (g) => size(g * 2 ** 30));
    const table = el("table", {});
    const chart = svg("svg", { viewBox: "0 0 480 210", class: "explorer-chart", role: "img" });
    const said = LD3M.status();
    function show() {
      const found = plans(data.models[model.value], steps.value, memory.value * 2 ** 30);
      table.replaceChildren(
        el("thead", {}, el("tr", {}, ["plan", "memory", "work, relative", "fits"].map((t) => el("th", { scope: "col" }, t)))),
        el("tbody", {}, found.rows.map((r) =>
          el("tr", { class: r.name === found.chosen ? "chosen" : r.fits ? "" : "misfit" },
            [r.name, size(r.bytes), r.relative.toFixed(2), r.fits ? "yes" : "no"].map((t, i) => el(i ? "td" : "th", i ? {} : { scope: "row" }, t))))));
      const most = Math.max(...found.rows.map((r) => r.bytes)), widest = Math.max(...found.rows.map((r) => r.relative));
      const px = (r) => 40 + (400 * (r.relative - 1)) / Math.max(0.2, widest - 1), py = (b) => 180 - (148 * b) / most;
      const limit = SHARE * memory.value * 2 ** 30;
      chart.replaceChildren(
        svg("path", { class: "axis", d: "M30 10V180H470" }),
        limit <= most ? svg("path", { class: "zero", d: `M30 ${py(limit)}H470` }) : null,
        ...found.rows.map((r) => svg("circle", { class: r.name === found.chosen ? "chosen" : "mean", cx: px(r), cy: py(r.bytes), r: 6 }, svg("title", {}, r.name))),
        svg("text", { x: 470, y: 202, "text-anchor": "end" }, "work →"),
        svg("text", { x: 36, y: 18 }, `memory, up to ${size(most)}`));
      chart.setAttribute("aria-label", "Memory against work, a point for each plan; the numbers are in the table.");
      const first = found.rows[0], row = found.rows.find((r) => r.name === found.chosen);
      said.textContent = row
        ? `With ${size(memory.value * 2 ** 30)} the fastest plan that fits is ${row.name}: ${size(row.bytes)}, ${row.relative.toFixed(2)} times the work of one-pass, which needs ${size(first.bytes)}.`
        : `No plan fits in ${size(memory.value * 2 ** 30)}: the least that is needed is ${size(Math.min(...found.rows.map((r) => r.bytes)))}, and nine tenths of the memory may be filled.`;
    }
    body.replaceChildren(
      el("div", { class: "explorer-controls" }, model.node, steps.node, memory.node),
      el("div", { class: "explorer-beside" }, table, chart), said);
    show();
  });
})();
