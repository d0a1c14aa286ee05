// What a residual keeps of the start, and what gradient reaches Z and c (method/31_sampling).
"use strict";
(() => {
  const LD3M = globalThis.LD3M;
  // ld3m_min.residual.DECAYS
  const DECAYS = {
    linear: (s) => s,
    cosine: (s) => (1 - Math.cos(Math.PI * s)) / 2,
    sqrt: (s) => Math.sqrt(s),
    exponential: (s) => Math.expm1(5 * s) / Math.expm1(5),
    constant: () => 0.5,
  };
  // ld3m_min.residual.Residual.weight: step k of n, n - 1 being the first
  function weight(into, decay, k, n) {
    if (into === "none") return 0;
    return DECAYS[decay](into === "mean" || n === 1 ? (k + 1) / n : k / (n - 1));
  }
  LD3M.residual = { weight };

  const INTO = [["mean", "the mean (equation 6)"], ["x0", "the clean guess x0 (public code)"], ["noise", "the predicted noise (ours)"], ["none", "nothing (no residual)"]];
  const SOURCE = [["noised", "z_T, noised (paper)"], ["clean", "Z, clean"], ["quantized", "Z, quantised (public code)"]];

  LD3M.register("residual", async (body, data) => {
    const { el, svg, number } = LD3M;
    const picture = await LD3M.sheet("residual.webp");
    const into = LD3M.select("mixed into", INTO, "mean", show);
    const source = LD3M.select("what is mixed in", SOURCE, "noised", show);
    const decay = LD3M.select("how its weight falls", Object.keys(DECAYS).map((d) => [d, d]), "linear", show);
    const steps = LD3M.range("steps T", data.steps, 10, show);
    const canvas = LD3M.digits(10, 2, "");
    const bars = svg("svg", { viewBox: "0 0 320 60", preserveAspectRatio: "none", class: "explorer-bars", role: "img" });
    const said = LD3M.status();

    function show() {
      const plain = into.value === "none";
      source.input.disabled = decay.input.disabled = plain;
      const shown = source.value === "quantized" ? "clean" : source.value;
      const key = plain ? `none/${steps.value}` : `${into.value}/${shown}/${decay.value}/${steps.value}`;
      const row = data.row[key];
      canvas.draw(picture, [...Array(10).keys()].flatMap((k) => [[k, 0, 0, k], [k, 1, row, k]]));
      canvas.node.setAttribute("aria-label", `Above, ten digits as they were encoded and decoded. Below, the sampler's images for ${key}.`);
      const n = steps.value, weights = [...Array(n).keys()].map((i) => weight(into.value, decay.value, n - 1 - i, n));
      bars.replaceChildren(...weights.map((w, i) =>
        svg("rect", { x: (320 / n) * i + 1, y: 58 - 54 * w, width: 320 / n - 2, height: 54 * w + 1 })));
      bars.setAttribute("aria-label", `Weight from the first step to the last: ${weights.map((w) => w.toFixed(2)).join(", ")}.`);
      const [Z, c] = data.norm[key], [Z0, c0] = data.norm[`none/${n}`];
      said.textContent = `Norm of the gradient of Z: ${number(Z)} (${number(Z / Z0)} times that without a residual). Of c: ${number(c)} (${number(c / c0)} times).`
        + (plain ? "" : ` Weight of the source: ${number(weights[0], 2)} at the first step, ${number(weights[n - 1], 2)} at the last.`)
        + (source.value === "quantized" && !plain ? " This autoencoder has no codebook: quantised is clean." : "");
    }
    body.replaceChildren(
      el("div", { class: "explorer-controls" }, into.node, source.node, decay.node, steps.node),
      el("p", { class: "explorer-caption" }, "Above: the ten digits, encoded and decoded. Below: what the sampler makes of them."),
      canvas.node,
      el("p", { class: "explorer-caption" }, "Weight of what is mixed in, from the first step to the last."),
      bars, said);
    show();
  });
})();
