// DC, DM and MTT on points of two numbers: surfaces, gradients, descent (background/21_dataset_distillation).
"use strict";
(() => {
  const LD3M = globalThis.LD3M;
  const relu = (x) => (x > 0 ? x : 0);

  // gradient of the cross-entropy of logits W x in W (2 x 2, rows are classes), mean over points
  function gradient(W, points, labels) {
    const g = [[0, 0], [0, 0]];
    points.forEach(([x, y], i) => {
      const a = W[0][0] * x + W[0][1] * y, b = W[1][0] * x + W[1][1] * y;
      const p1 = 1 / (1 + Math.exp(a - b)), e = [1 - p1 - (labels[i] === 0), p1 - (labels[i] === 1)];
      for (let k = 0; k < 2; k++) { g[k][0] += (e[k] * x) / points.length; g[k][1] += (e[k] * y) / points.length; }
    });
    return g;
  }

  // one minus the cosine, row by row: ld3m_min.distillers.gradient_matching_distance
  function distance(a, b) {
    let sum = 0;
    for (let k = 0; k < 2; k++) {
      const dot = a[k][0] * b[k][0] + a[k][1] * b[k][1];
      sum += 1 - dot / (Math.hypot(...a[k]) * Math.hypot(...b[k]) + 1e-6);
    }
    return sum;
  }

  const embed = (A, b, [x, y]) => A.map((row, i) => relu(row[0] * x + row[1] * y + b[i]));

  // The three losses as functions of the two points; what belongs to the real points is computed once.
  function toy(data) {
    const own = [0, 1], n = data.weights.length;
    const wanted = data.weights.map((W) => own.map((k) => gradient(W, data.real[k], data.real[k].map(() => k))));
    const means = data.features.map((A, j) => own.map((k) => {
      const all = data.real[k].map((p) => embed(A, data.biases[j], p));
      return all[0].map((_, i) => all.reduce((s, v) => s + v[i], 0) / all.length);
    }));
    const squared = (a, b) => a.flat().reduce((s, v, i) => s + (v - b.flat()[i]) ** 2, 0);
    const way = squared(data.start, data.target);
    return {
      DC: (points) => data.weights.reduce((sum, W, j) => sum + own.reduce((s, k) =>
        s + distance(gradient(W, [points[k]], [k]), wanted[j][k]), 0), 0) / n,
      DM: (points) => data.features.reduce((sum, A, j) => sum + own.reduce((s, k) =>
        s + embed(A, data.biases[j], points[k]).reduce((q, v, i) => q + (v - means[j][k][i]) ** 2, 0), 0), 0) / n,
      MTT: (points, { steps, rate } = data.student) => {
        let W = data.start;
        for (let i = 0; i < steps; i++) {
          const g = gradient(W, points, own);
          W = W.map((row, k) => row.map((v, j) => v - rate * g[k][j]));
        }
        return squared(W, data.target) / way;
      },
    };
  }

  // by central differences
  function slope(loss, points, h = 1e-5) {
    return points.map((p, k) => p.map((_, j) => {
      const moved = (d) => points.map((q, m) => q.map((v, i) => (m === k && i === j ? v + d : v)));
      return (loss(moved(h)) - loss(moved(-h))) / (2 * h);
    }));
  }

  // one step downhill, as long as it helps: the length is halved until the loss falls
  function descend(loss, points, length = 0.2) {
    const g = slope(loss, points), norm = Math.hypot(...g.flat()), now = loss(points);
    if (norm < 1e-9) return points;
    for (let s = length; s > 1e-4; s /= 2) {
      const next = points.map((p, k) => p.map((v, j) => v - (s * g[k][j]) / norm));
      if (loss(next) < now) return next;
    }
    return points;
  }
  LD3M.losses = { toy, slope, descend, gradient };

  const REACH = 2.5, GRID = 41, SIDE = 240;
  const LOSSES = ["DC", "DM", "MTT"];
  const CLASS = ["class 0 (round)", "class 1 (square)"];

  LD3M.register("losses", (body, data) => {
    const { el, number } = LD3M;
    const loss = toy(data);
    let points = data.points.map((p) => [...p]), busy = false;
    const axis = [...Array(101).keys()].map((i) => +((i - 50) / 20).toFixed(2));
    const near = (v) => axis[Math.round((Math.min(REACH, Math.max(-REACH, v)) + REACH) * 20)];
    const which = LD3M.select("synthetic point", CLASS.map((t, k) => [String(k), t]), "0", () => { follow(); show(); });
    const x = LD3M.range("its place, across", axis, near(points[0][0]), moved);
    const y = LD3M.range("its place, up", axis, near(points[0][1]), moved);
    const rate = LD3M.range("MTT: rate of the student", [0.1, 0.3, 1, 3, 10], data.student.rate, show);
    const downhill = LD3M.select("loss to go down", LOSSES.map((n) => [n, n]), "DC", show);
    const go = LD3M.button("Go downhill, 60 steps", run);
    const back = LD3M.button("Back to the start", () => { points = data.points.map((p) => [...p]); follow(); show(); });
    const said = LD3M.status();
    const canvases = LOSSES.map((name) => {
      const canvas = el("canvas", { width: SIDE, height: SIDE, role: "img" });
      const drag = (event) => {
        const box = canvas.getBoundingClientRect();
        const to = [(2 * (event.clientX - box.left) / box.width - 1) * REACH, (1 - 2 * (event.clientY - box.top) / box.height) * REACH];
        if (event.type === "pointerdown") {
          const far = points.map((p) => Math.hypot(p[0] - to[0], p[1] - to[1]));
          which.value = far[0] <= far[1] ? "0" : "1";
          canvas.setPointerCapture(event.pointerId);
        } else if (!event.buttons) return;
        points[+which.value] = to.map(near);
        follow();
        show();
      };
      canvas.addEventListener("pointerdown", drag);
      canvas.addEventListener("pointermove", drag);
      return [name, canvas];
    });
    const values = (name) => (p) => (name === "MTT" ? loss.MTT(p, { steps: data.student.steps, rate: rate.value }) : loss[name](p));

    function follow() { [x.value, y.value] = points[+which.value].map(near); }
    function moved() { points[+which.value] = [x.value, y.value]; show(); }

    async function run() {
      if (busy) return;
      busy = go.disabled = true;
      for (let i = 0; i < 60; i++) {
        points = descend(values(downhill.value), points);
        if (!LD3M.still() && i % 2) { follow(); show(); await LD3M.frame(); }
      }
      busy = go.disabled = false;
      follow();
      show();
    }

    function draw(name, canvas) {
      const context = canvas.getContext("2d"), chosen = +which.value, f = values(name);
      const dark = document.documentElement.dataset.theme === "dark";
      const surface = new Float64Array(GRID * GRID);
      for (let j = 0; j < GRID; j++) for (let i = 0; i < GRID; i++) {
        const at = [(2 * i / (GRID - 1) - 1) * REACH, (1 - 2 * j / (GRID - 1)) * REACH];
        surface[j * GRID + i] = f(points.map((p, k) => (k === chosen ? at : p)));
      }
      const sorted = [...surface].sort((a, b) => a - b), low = sorted[0], high = sorted[Math.floor(0.97 * sorted.length)];
      const cell = SIDE / GRID;
      surface.forEach((v, n) => {
        // low is strong, in twelve bands, so that valleys have an outline
        const share = Math.min(1, Math.sqrt(Math.max(0, (v - low) / (high - low || 1))));
        const band = Math.floor(share * 12) / 12;
        context.fillStyle = dark ? `hsl(212 60% ${58 - 46 * band}%)` : `hsl(212 70% ${48 + 47 * band}%)`;
        context.fillRect(Math.floor((n % GRID) * cell), Math.floor(Math.floor(n / GRID) * cell), Math.ceil(cell), Math.ceil(cell));
      });
      const place = ([a, b]) => [((a / REACH + 1) * SIDE) / 2, ((1 - b / REACH) * SIDE) / 2];
      const mark = (p, k, size, fill) => {
        const [a, b] = place(p);
        context.beginPath();
        if (k) context.rect(a - size, b - size, 2 * size, 2 * size); else context.arc(a, b, size, 0, 7);
        context.fillStyle = fill;
        context.fill();
        context.stroke();
      };
      context.lineWidth = 1;
      context.strokeStyle = dark ? "#fff" : "#222";
      data.real.forEach((all, k) => all.forEach((p) => mark(p, k, 2.2, dark ? "#222" : "#fff")));
      const g = slope(f, points);
      points.forEach((p, k) => {
        const [a, b] = place(p), n = Math.hypot(...g[k]);
        context.lineWidth = 3;
        context.strokeStyle = "#d9480f";
        if (n > 1e-6) {
          context.beginPath();
          context.moveTo(a, b);
          context.lineTo(a - (28 * g[k][0]) / n, b + (28 * g[k][1]) / n);
          context.stroke();
        }
        context.lineWidth = k === chosen ? 3 : 1.5;
        context.strokeStyle = dark ? "#fff" : "#222";
        mark(p, k, 7, "#f59f00");
      });
      canvas.setAttribute("aria-label", `${name} over the place of ${CLASS[chosen]}: ${number(f(points))} at ${points[chosen].map((v) => number(v, 2)).join(", ")}.`);
      return `${name} ${number(f(points))}, gradient ${number(Math.hypot(...g[chosen]))}`;
    }
    function show() {
      said.textContent = `At (${points[+which.value].map((v) => number(v, 2)).join(", ")}), ${CLASS[+which.value]}: ${canvases.map(([n, c]) => draw(n, c)).join("; ")}.`;
    }
    body.replaceChildren(
      el("div", { class: "explorer-three" }, canvases.map(([name, canvas]) => el("figure", {}, canvas, el("figcaption", {}, name)))),
      el("p", { class: "explorer-caption" }, "Strong colour: low loss. Small marks: real points; large ones: synthetic, to be dragged. The line points downhill."),
      el("div", { class: "explorer-controls" }, which.node, x.node, y.node, rate.node, downhill.node, el("div", { class: "explorer-buttons" }, go, back)),
      said);
    LD3M.whenThemeChanges(show);
    show();
  });
})();
