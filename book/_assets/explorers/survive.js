// How much of Z survives: the weight of a clean residual, where the noise starts, and T (method/32_initialisation).
"use strict";
(() => {
  const LD3M = globalThis.LD3M;
  LD3M.register("survive", async (body, data) => {
    const { el, number } = LD3M;
    const picture = await LD3M.sheet("survive.webp");
    const weight = LD3M.range("weight of Z at the first step", data.weights, 0, show, (w) => w.toFixed(2));
    const share = LD3M.range("share of the steps that the prior takes", data.shares, 1, show, (s) => `${Math.round(100 * s)} %`);
    const steps = LD3M.range("steps T", data.steps, 10, show);
    const canvas = LD3M.digits(10, 2, "");
    const said = LD3M.status();
    function show() {
      const key = `${weight.value}/${share.value}/${steps.value}`;
      canvas.draw(picture, [...Array(10).keys()].flatMap((k) => [[k, 0, 0, k], [k, 1, data.row[key], k]]));
      canvas.node.setAttribute("aria-label", `Above, ten digits, encoded and decoded; below, what the sampler makes of them: weight ${weight.value}, share ${share.value}, T = ${steps.value}.`);
      const far = data.distance[key];
      const taken = Math.max(1, Math.round(share.value * steps.value));
      said.textContent = `Distance to the image above: ${number(far.reduce((a, b) => a + b) / 10, 2)} on average, `
        + `${number(Math.min(...far), 2)} to ${number(Math.max(...far), 2)} by digit; 1 is the distance of two real images of a class. `
        + `The prior takes ${taken} of the ${steps.value} steps.`;
    }
    body.replaceChildren(
      el("div", { class: "explorer-controls" }, weight.node, share.node, steps.node),
      el("p", { class: "explorer-caption" }, "Above: where Z comes from, encoded and decoded. Below: the synthetic images."),
      canvas.node, said);
    show();
  });
})();
