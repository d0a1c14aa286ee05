// Two systems of the records compared: means, the paired difference and its interval (experiments/digits_claim).
// The rules are those of ld3m_min.experiments.resampling.
"use strict";
(() => {
  const LD3M = globalThis.LD3M;
  const FEWEST = 5, RESAMPLES = 10000, FAR = 1e6, ZERO = 1e-12;
  const mean = (x) => x.reduce((a, b) => a + b, 0) / x.length;
  // standard deviation by the sample's formula
  const deviation = (x) => { const m = mean(x); return Math.sqrt(x.reduce((s, v) => s + (v - m) ** 2, 0) / (x.length - 1)); };

  function logGamma(x) {
    if (x < 20) { let shift = 0; while (x < 20) shift += Math.log(x++); return logGamma(x) - shift; }
    const i = 1 / x, q = i * i; // Stirling's series, exact to 1e-15 from 20 on
    return (x - 0.5) * Math.log(x) - x + 0.9189385332046727 + i * (1 / 12 - q * (1 / 360 - q * (1 / 1260 - q / 1680)));
  }
  // regularised incomplete beta function, by its continued fraction (Lentz)
  function beta(x, a, b) {
    if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
    if (x > (a + 1) / (a + b + 2)) return 1 - beta(1 - x, b, a);
    const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x)) / a;
    let c = 1, d = 1 / (1 - ((a + b) * x) / (a + 1)), h = d;
    for (let m = 1; m < 500; m++) {
      let t = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
      d = 1 / (1 + t * d); c = 1 + t / c; h *= d * c;
      t = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
      d = 1 / (1 + t * d); c = 1 + t / c; h *= d * c;
      if (Math.abs(d * c - 1) < 1e-16) break;
    }
    return front * h;
  }
  // quantile of Student's t above one half, by bisection
  function tQuantile(p, df) {
    const below = (t) => 1 - beta(df / (df + t * t), df / 2, 0.5) / 2;
    let low = 0, high = 1;
    while (below(high) < p) high *= 2;
    for (let i = 0; i < 200 && high - low > 1e-14 * high; i++) {
      const middle = (low + high) / 2;
      if (below(middle) < p) low = middle; else high = middle;
    }
    return (low + high) / 2;
  }

  // as numpy's percentile, linear between neighbours
  function quantile(sorted, p) {
    const at = p * (sorted.length - 1), i = Math.floor(at), next = sorted[Math.min(i + 1, sorted.length - 1)];
    return sorted[i] + (at - i) * (next - sorted[i]);
  }

  // whole numbers below n, always the same sequence (mulberry32)
  function generator(seed = 0) {
    let s = seed >>> 0;
    return (n) => {
      s = (s + 0x6d2b79f5) | 0;
      let t = Math.imul(s ^ (s >>> 15), 1 | s);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4294967296) * n);
    };
  }

  // (mean* - mean) / error* of each resample: seeds are drawn for both systems, trainings for each
  function studentised(a, b, resamples, drawSeeds, drawTraining) {
    const n = a.length, systems = b ? [[a, 1], [b, -1]] : [[a, 1]];
    const values = a.map((x, i) => mean(x) - (b ? mean(b[i]) : 0));
    const centre = mean(values), out = [];
    for (let r = 0; r < resamples; r++) {
      const seeds = drawSeeds(r), drawn = Array(n).fill(0);
      systems.forEach(([x, sign], which) => {
        for (let i = 0; i < n; i++) {
          const own = x[seeds[i]];
          let sum = 0;
          for (let j = 0; j < own.length; j++) sum += own[drawTraining(r, which, i, j, own.length)];
          drawn[i] += (sign * sum) / own.length;
        }
      });
      let shift = mean(drawn) - centre;
      if (Math.abs(shift) < ZERO) shift = 0;
      const error = deviation(drawn) / Math.sqrt(n);
      out.push(error < ZERO ? FAR * Math.sign(shift) : shift / error);
    }
    return out;
  }

  // The interval of a mean paired difference. a, b: seeds x trainings. `draws` replaces our own generator.
  function interval(a, b = null, { level = 0.95, resamples = RESAMPLES, draws = null } = {}) {
    const n = a.length, values = a.map((x, i) => mean(x) - (b ? mean(b[i]) : 0));
    const centre = mean(values), error = deviation(values) / Math.sqrt(n);
    if (n < FEWEST) {
      const half = tQuantile((1 + level) / 2, n - 1) * error;
      return { low: centre - half, high: centre + half, method: "Student's t" };
    }
    const random = generator();
    const ratios = draws
      ? studentised(a, b, draws.seeds.length, (r) => draws.seeds[r], (r, which, i, j) => draws.trainings[which][r][i][j])
      : studentised(a, b, resamples, () => Array.from({ length: n }, () => random(n)), (r, which, i, j, many) => random(many));
    ratios.sort((x, y) => x - y);
    return {
      low: centre - quantile(ratios, (1 + level) / 2) * error,
      high: centre - quantile(ratios, (1 - level) / 2) * error,
      method: "bootstrap-t",
    };
  }

  // two-sided p value: every flip of signs up to 16 seeds, exact; above, none is given
  function signFlip(differences) {
    const n = differences.length, seen = Math.abs(mean(differences));
    if (n > 16) return null;
    let above = 0;
    for (let flips = 0; flips < 2 ** n; flips++) {
      let sum = 0;
      for (let i = 0; i < n; i++) sum += flips & (1 << i) ? -differences[i] : differences[i];
      if (Math.abs(sum / n) >= seen - 1e-12) above++;
    }
    return above / 2 ** n;
  }

  // seeds x trainings of a system: means over the chosen networks
  function trainings(system, networks, seeds) {
    return seeds.map((seed) => {
      const all = networks.map((name) => system.seeds[seed][name]);
      return all[0].map((_, r) => mean(all.map((x) => x[r])));
    });
  }
  // networks and seeds that both systems have
  function common(a, b) {
    const seeds = Object.keys(a.seeds).filter((s) => s in b.seeds);
    const all = [...Object.values(a.seeds), ...Object.values(b.seeds)];
    return { seeds, networks: Object.keys(all[0]).filter((n) => all.every((x) => n in x)) };
  }
  function compare(a, b, networks, seeds) {
    const ours = trainings(a, networks, seeds), theirs = trainings(b, networks, seeds);
    const differences = ours.map((x, i) => mean(x) - mean(theirs[i]));
    const several = seeds.length > 1;
    return {
      a: mean(ours.flat()), b: mean(theirs.flat()), mean: mean(differences), differences,
      interval: several ? interval(ours, theirs) : null,
      p: several ? signFlip(differences) : null,
    };
  }
  LD3M.table = { tQuantile, interval, signFlip, compare, trainings, common };

  LD3M.register("table", (body, data) => {
    const { el, svg } = LD3M;
    const names = Object.keys(data.groups);
    const group = LD3M.select("experiment", names.map((n) => [n, n]), names[0], begin);
    const a = LD3M.select("system", [], "", choose), b = LD3M.select("minus", [], "", choose);
    const networks = LD3M.ticks("networks", [], show), seeds = LD3M.ticks("seeds", [], show);
    const chart = svg("svg", { viewBox: "0 0 520 152", class: "explorer-chart", role: "img" });
    const said = LD3M.status();
    const chosen = () => data.groups[group.value];

    function begin() {
      const pairs = Object.entries(chosen().systems).map(([key, s]) => [key, s.label]);
      const first = pairs.find(([k]) => /ld3m/.test(k))?.[0] ?? pairs[0][0];
      const like = first.replace(/ld3m-(code|paper)/, "autoencoder");
      a.offer(pairs, first);
      b.offer(pairs, pairs.some(([k]) => k === like && k !== first) ? like : pairs.find(([k]) => k !== first)?.[0] ?? first);
      choose();
    }
    function choose() {
      const s = chosen().systems, shared = common(s[a.value], s[b.value]);
      networks.offer(shared.networks, (n) => n !== chosen().seen);
      seeds.offer(shared.seeds);
      show();
    }
    const points = (x, sign = false) => `${sign && x > 0 ? "+" : ""}${(100 * x).toFixed(1)}`;

    function row(y, label, values, middle, range, place) {
      return [
        svg("text", { x: 0, y: y - 12 }, label),
        range && svg("line", { class: "interval", x1: place(range.low), x2: place(range.high), y1: y, y2: y }),
        ...values.map((v) => svg("circle", { class: "dot", cx: place(v), cy: y, r: 4 })),
        svg("circle", { class: "mean", cx: place(middle), cy: y, r: 6 }),
      ].filter(Boolean);
    }
    const ends = (y, [left, right]) => [svg("text", { x: 0, y, class: "end" }, left), svg("text", { x: 520, y, class: "end", "text-anchor": "end" }, right)];
    function show() {
      const s = chosen().systems, [A, B] = [s[a.value], s[b.value]], on = networks.value, at = seeds.value;
      if (!on.length || !at.length) {
        chart.replaceChildren();
        said.textContent = at.length || !common(A, B).seeds.length ? (common(A, B).seeds.length ? "Tick at least one network." : "The two have no seed in common.") : "Tick at least one seed.";
        return;
      }
      const found = compare(A, B, on, at), ours = trainings(A, on, at), theirs = trainings(B, on, at);
      const every = [...ours.flat(), ...theirs.flat()], low = Math.min(...every) - 0.01, high = Math.max(...every) + 0.01;
      const level = (v) => 10 + (500 * (v - low)) / (high - low);
      const far = [0, ...found.differences, found.interval?.low ?? 0, found.interval?.high ?? 0].filter(Number.isFinite);
      const reach = Math.max(0.005, ...far.map(Math.abs)) * 1.1, side = (v) => 260 + (250 * Math.max(-reach, Math.min(reach, v))) / reach;
      chart.replaceChildren(
        ...row(28, `${A.label}: ${points(found.a)} %`, ours.flat(), found.a, null, level),
        ...row(74, `${B.label}: ${points(found.b)} %`, theirs.flat(), found.b, null, level),
        ...ends(88, [`${points(low)} %`, `${points(high)} %`]),
        ...ends(146, [points(-reach), points(reach, true)]),
        svg("line", { class: "zero", x1: side(0), x2: side(0), y1: 100, y2: 140 }),
        ...row(124, `difference: ${points(found.mean, true)} points`, found.differences, found.mean, found.interval, side));
      chart.setAttribute("aria-label", "Above, a dot for each training of the two systems; below, one for each seed of the difference; a larger one for the mean, a bar for the interval. The numbers are below.");
      const about = [`${A.label} ${points(found.a)} %, ${B.label} ${points(found.b)} %; difference ${points(found.mean, true)} points`];
      if (found.interval) {
        about.push(`95 % interval ${points(found.interval.low, true)} to ${points(found.interval.high, true)} (${found.interval.method})`);
        if (found.p != null) about.push(`p = ${found.p.toPrecision(2)}`);
      } else about.push("one distillation each: no interval, since trainings on one set say nothing about another set");
      const lost = A.diverged + B.diverged;
      said.textContent = `${about.join("; ")}. ${at.length} seed${at.length > 1 ? "s" : ""}, ${on.length} network${on.length > 1 ? "s" : ""}.`
        + (lost ? ` Trainings that diverged, counted as ${100 * data.chance} %: ${lost}.` : "")
        + (chosen().made_up ? " These numbers are made up." : "");
    }
    body.replaceChildren(
      el("div", { class: "explorer-controls" }, group.node, a.node, b.node), networks.node, seeds.node, chart,
      el("p", { class: "explorer-caption" }, "Small dots: trainings of the two systems; in the difference, seeds. Large: the mean. Bar: the interval."), said);
    begin();
  });
})();
