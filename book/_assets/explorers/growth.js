// How ten digits change while they are distilled (intro).
"use strict";
(() => {
  const LD3M = globalThis.LD3M;
  LD3M.register("growth", async (body, data) => {
    const { el, number } = LD3M;
    const picture = await LD3M.sheet("growth.webp");
    const systems = Object.entries(data.systems).map(([name, s]) => [name, s.label]);
    const system = LD3M.select("below: learned by", systems, systems[0][0], show);
    const above = LD3M.select("above", [["", "what it starts from"], ...systems], "", show);
    const after = LD3M.range("after so many iterations", data.frames, 0, show);
    const canvas = LD3M.digits(10, 2, "");
    const said = LD3M.status();
    const percent = (x) => `${Math.round(100 * x)} %`;
    // what networks read that were trained on a set, at the last iteration where that was measured
    function read(name, n) {
      const { accuracy, label } = data.systems[name];
      const at = Object.keys(accuracy).map(Number).filter((m) => m <= n).at(-1);
      return `${percent(accuracy[at])} (${label}${at === n ? "" : `, after ${at} iterations`})`;
    }
    function show() {
      const n = after.value, frame = data.frames.indexOf(n);
      const { row, loss, label } = data.systems[system.value];
      const other = above.value ? data.systems[above.value].row + frame : row;
      canvas.draw(picture, [...Array(10).keys()].flatMap((k) => [[k, 0, other, k], [k, 1, row + frame, k]]));
      const what = above.value ? data.systems[above.value].label : "what it starts from";
      canvas.node.setAttribute("aria-label", `Ten digits after ${n} iterations. Above: ${what}. Below: ${label}.`);
      said.textContent = (n ? `Loss of iteration ${n}: ${number(loss[n - 1], 2)}, of the first ${number(loss[0], 2)}. ` : "Before the first iteration. ")
        + `Networks that were trained on the ten images alone read of the test digits ${[system.value, ...(above.value ? [above.value] : [])].map((name) => read(name, n)).join(", ")}.`;
    }
    body.replaceChildren(
      el("div", { class: "explorer-controls" }, system.node, above.node, after.node),
      canvas.node, said);
    show();
  });
})();
