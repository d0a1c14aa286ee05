// Z of one digit with c of another (method/32_initialisation).
"use strict";
(() => {
  const LD3M = globalThis.LD3M;
  const NAMES = { none: "no residual", paper: "into the mean, of z_T (equation 6)", code: "into x0, of Z (public code)" };
  // of the 90 pairs of different digits, how many are read as c's and as Z's
  function readings(table) {
    let c = 0, z = 0;
    for (let i = 0; i < 10; i++) for (let j = 0; j < 10; j++) {
      if (i === j) continue;
      if (table[i][j] === j) c++;
      if (table[i][j] === i) z++;
    }
    return { c, z, other: 90 - c - z };
  }
  LD3M.grid = { readings };

  LD3M.register("grid", async (body, data) => {
    const { el } = LD3M;
    const picture = await LD3M.sheet("grid.webp");
    const sampler = LD3M.select("residual", data.samplers.map((s) => [s, NAMES[s]]), "none", show);
    const all = [...Array(10).keys()];
    const z = LD3M.range("Z of digit (row)", all, 3, show);
    const c = LD3M.range("c of digit (column)", all, 7, show);
    const canvas = LD3M.digits(10, 10, "");
    canvas.node.classList.add("explorer-clickable");
    const pair = LD3M.digits(2, 1, "");
    pair.node.classList.add("explorer-pair");
    const said = LD3M.status();
    canvas.node.addEventListener("click", (event) => {
      const box = canvas.node.getBoundingClientRect();
      const at = (p, size) => Math.min(9, Math.max(0, Math.floor((10 * p) / size)));
      c.value = at(event.clientX - box.left, box.width);
      z.value = at(event.clientY - box.top, box.height);
      show();
    });
    function show() {
      canvas.context.clearRect(0, 0, canvas.node.width, canvas.node.height);
      const block = 1 + 10 * data.samplers.indexOf(sampler.value);
      canvas.draw(picture, all.flatMap((i) => all.map((j) => [j, i, block + i, j])));
      const context = canvas.context;
      context.strokeStyle = "#f5a623";
      context.lineWidth = 2;
      context.strokeRect(canvas.pitch * c.value + 1, canvas.pitch * z.value + 1, 30, 30);
      canvas.node.setAttribute("aria-label", `Ten rows by ten columns of generated digits: the row says whose Z, the column whose c. Chosen: Z of ${z.value}, c of ${c.value}.`);
      pair.draw(picture, [[0, 0, 0, z.value], [1, 0, block + z.value, c.value]]);
      pair.node.setAttribute("aria-label", `Left, the digit ${z.value} that Z was encoded from. Right, what is generated with c of ${c.value}.`);
      const read = data.read[sampler.value], found = readings(read);
      said.textContent = `Z of ${z.value} with c of ${c.value} is read as ${read[z.value][c.value]}. `
        + `Of the 90 pairs of different digits, ${found.c} are read as the digit of c, ${found.z} as that of Z, ${found.other} as another.`;
    }
    body.replaceChildren(
      el("div", { class: "explorer-controls" }, sampler.node, z.node, c.node),
      el("div", { class: "explorer-beside" },
        el("div", {}, el("p", { class: "explorer-caption" }, "Rows: Z of 0 to 9. Columns: c of 0 to 9. Click one."), canvas.node),
        el("div", {}, el("p", { class: "explorer-caption" }, "Where Z comes from, and what is made."), pair.node, said)));
    show();
  });
})();
