// The digits' denoiser and decoder, run in the page: plain loops over Float32Array, no library.
// Layers and names are those of diffusers' UNet2DConditionModel and of AutoencoderKL's decoder; feature
// maps are rows of channels, [channels][height * width]. The sampler is ld3m_min.sampler.denoise with eta 0.
"use strict";
(() => {
  const LD3M = globalThis.LD3M;

  // ---- numbers: base64, deflated, low bytes first, then high bytes, float16 ----
  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const halves = new Uint8Array(await new Response(stream).arrayBuffer());
    const n = halves.length / 2, out = new Float32Array(n);
    for (let i = 0; i < n; i++) {
      const bits = halves[i] | (halves[n + i] << 8), exponent = (bits >> 10) & 31, fraction = bits & 1023;
      const size = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
      out[i] = bits & 0x8000 ? -size : size;
    }
    return out;
  }
  function named(tensors, numbers) {
    const found = {};
    let at = 0;
    for (const [name, shape] of tensors) {
      const size = shape.reduce((a, b) => a * b, 1);
      found[name] = { shape, data: numbers.subarray(at, at + size) };
      at += size;
    }
    return found;
  }

  // ---- layers ----
  // W (O x K) times X (K x P), plus a bias of each row
  function product(W, X, O, K, P, bias) {
    const out = new Float32Array(O * P);
    for (let o = 0; o < O; o++) {
      const row = out.subarray(o * P, (o + 1) * P);
      if (bias) row.fill(bias[o]);
      let k = 0;
      for (; k + 3 < K; k += 4) {
        const at = o * K + k, w0 = W[at], w1 = W[at + 1], w2 = W[at + 2], w3 = W[at + 3];
        const a = k * P, b = a + P, c = b + P, d = c + P;
        for (let p = 0; p < P; p++) row[p] += w0 * X[a + p] + w1 * X[b + p] + w2 * X[c + p] + w3 * X[d + p];
      }
      for (; k < K; k++) {
        const w = W[o * K + k], a = k * P;
        for (let p = 0; p < P; p++) row[p] += w * X[a + p];
      }
    }
    return out;
  }
  // the 3 x 3 neighbours of each place, zeros outside
  function neighbours(x, C, side, stride) {
    const to = Math.ceil(side / stride), P = to * to, out = new Float32Array(C * 9 * P);
    let at = 0;
    for (let c = 0; c < C; c++) for (let i = -1; i < 2; i++) for (let j = -1; j < 2; j++) {
      for (let y = 0; y < to; y++) {
        const v = y * stride + i;
        for (let u = 0; u < to; u++, at++) {
          const h = u * stride + j;
          if (v >= 0 && v < side && h >= 0 && h < side) out[at] = x[(c * side + v) * side + h];
        }
      }
    }
    return out;
  }
  const silu = (x) => { const out = new Float32Array(x.length); for (let i = 0; i < x.length; i++) out[i] = x[i] / (1 + Math.exp(-x[i])); return out; };
  const add = (a, b) => { const out = new Float32Array(a.length); for (let i = 0; i < a.length; i++) out[i] = a[i] + b[i]; return out; };
  const join = (a, b) => { const out = new Float32Array(a.length + b.length); out.set(a); out.set(b, a.length); return out; };
  function twice(x, C, side) {
    const out = new Float32Array(4 * x.length), to = 2 * side;
    for (let c = 0; c < C; c++) for (let y = 0; y < to; y++) for (let u = 0; u < to; u++)
      out[(c * to + y) * to + u] = x[(c * side + (y >> 1)) * side + (u >> 1)];
    return out;
  }
  // error function, to 1.2e-7 (Numerical Recipes' Chebyshev fit)
  function erf(x) {
    const z = Math.abs(x), t = 1 / (1 + z / 2);
    const r = t * Math.exp(-z * z - 1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806
      + t * (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277)))))))));
    return x >= 0 ? 1 - r : r - 1;
  }

  // A network of named weights; `p` is the beginning of a layer's name.
  class Layers {
    constructor(weights) { this.weights = weights; }
    get(name) { return this.weights[name]; }
    linear(p, x, P = 1) {
      const w = this.get(`${p}.weight`);
      return product(w.data, x, w.shape[0], w.data.length / w.shape[0], P, this.get(`${p}.bias`)?.data);
    }
    conv(p, x, side, stride = 1) {
      const w = this.get(`${p}.weight`), [O, C, k] = w.shape, to = Math.ceil(side / stride);
      const X = k === 1 ? x : neighbours(x, C, side, stride);
      return product(w.data, X, O, C * k * k, to * to, this.get(`${p}.bias`).data);
    }
    groupNorm(p, x, groups, eps) {
      const w = this.get(`${p}.weight`).data, b = this.get(`${p}.bias`).data, C = w.length, P = x.length / C, each = (C / groups) * P;
      const out = new Float32Array(x.length);
      for (let g = 0; g < groups; g++) {
        let sum = 0, square = 0;
        for (let i = g * each; i < (g + 1) * each; i++) sum += x[i];
        const mean = sum / each;
        for (let i = g * each; i < (g + 1) * each; i++) square += (x[i] - mean) ** 2;
        const scale = 1 / Math.sqrt(square / each + eps);
        for (let i = g * each; i < (g + 1) * each; i++) { const c = Math.floor(i / P); out[i] = (x[i] - mean) * scale * w[c] + b[c]; }
      }
      return out;
    }
    layerNorm(p, x, P) {
      const w = this.get(`${p}.weight`).data, b = this.get(`${p}.bias`).data, C = w.length, out = new Float32Array(x.length);
      for (let i = 0; i < P; i++) {
        let sum = 0, square = 0;
        for (let c = 0; c < C; c++) sum += x[c * P + i];
        const mean = sum / C;
        for (let c = 0; c < C; c++) square += (x[c * P + i] - mean) ** 2;
        const scale = 1 / Math.sqrt(square / C + 1e-5);
        for (let c = 0; c < C; c++) out[c * P + i] = (x[c * P + i] - mean) * scale * w[c] + b[c];
      }
      return out;
    }
    // a block of two convolutions; time: embedding of the step, or null
    residual(p, x, side, groups, eps, time = null) {
      let h = this.conv(`${p}.conv1`, silu(this.groupNorm(`${p}.norm1`, x, groups, eps)), side);
      if (time) {
        const shift = this.linear(`${p}.time_emb_proj`, silu(time)), P = side * side;
        for (let c = 0; c < shift.length; c++) for (let i = c * P; i < (c + 1) * P; i++) h[i] += shift[c];
      }
      h = this.conv(`${p}.conv2`, silu(this.groupNorm(`${p}.norm2`, h, groups, eps)), side);
      return add(this.get(`${p}.conv_shortcut.weight`) ? this.conv(`${p}.conv_shortcut`, x, side) : x, h);
    }
    // attention of all places to all
    selfAttention(p, x, P, heads) {
      const q = this.linear(`${p}.to_q`, x, P), k = this.linear(`${p}.to_k`, x, P), v = this.linear(`${p}.to_v`, x, P);
      const C = q.length / P, each = C / heads, scale = 1 / Math.sqrt(each), out = new Float32Array(C * P), score = new Float64Array(P);
      for (let h = 0; h < heads; h++) for (let i = 0; i < P; i++) {
        let high = -Infinity, sum = 0;
        for (let j = 0; j < P; j++) {
          let s = 0;
          for (let c = h * each; c < (h + 1) * each; c++) s += q[c * P + i] * k[c * P + j];
          score[j] = s * scale;
          if (score[j] > high) high = score[j];
        }
        for (let j = 0; j < P; j++) sum += score[j] = Math.exp(score[j] - high);
        for (let c = h * each; c < (h + 1) * each; c++) {
          let s = 0;
          for (let j = 0; j < P; j++) s += score[j] * v[c * P + j];
          out[c * P + i] = s / sum;
        }
      }
      return this.linear(`${p}.to_out.0`, out, P);
    }
    // norm, attention to the places, to the one token c, and a gated layer
    transformer(p, x, side, c) {
      const P = side * side, b = `${p}.transformer_blocks.0`;
      let h = this.conv(`${p}.proj_in`, this.groupNorm(`${p}.norm`, x, 16, 1e-6), side);
      h = add(h, this.selfAttention(`${b}.attn1`, this.layerNorm(`${b}.norm1`, h, P), P, 8));
      // one token: the softmax over it is 1, and every place receives its value
      const token = this.linear(`${b}.attn2.to_out.0`, this.linear(`${b}.attn2.to_v`, c));
      for (let k = 0; k < token.length; k++) for (let i = k * P; i < (k + 1) * P; i++) h[i] += token[k];
      const wide = this.linear(`${b}.ff.net.0.proj`, this.layerNorm(`${b}.norm3`, h, P), P), half = wide.length / 2;
      const gated = new Float32Array(half);
      for (let i = 0; i < half; i++) { const g = wide[half + i]; gated[i] = wide[i] * g * 0.5 * (1 + erf(g / Math.SQRT2)); }
      h = add(h, this.linear(`${b}.ff.net.2`, gated, P));
      return add(x, this.conv(`${p}.proj_out`, h, side));
    }
  }

  // f_theta: z (3 x 8 x 8), the training step t, one token c
  function predictNoise(net, z, t, c) {
    const wave = new Float32Array(32);
    for (let i = 0; i < 16; i++) {
      const angle = t * Math.exp((-Math.log(10000) * i) / 16);
      wave[i] = Math.cos(angle);
      wave[16 + i] = Math.sin(angle);
    }
    const time = net.linear("u.time_embedding.linear_2", silu(net.linear("u.time_embedding.linear_1", wave)));
    const block = (p, x, side) => net.residual(p, x, side, 16, 1e-5, time);
    const first = net.conv("u.conv_in", z, 8);
    const a = net.transformer("u.down_blocks.0.attentions.0", block("u.down_blocks.0.resnets.0", first, 8), 8, c);
    const b = net.conv("u.down_blocks.0.downsamplers.0.conv", a, 8, 2);
    const d = net.transformer("u.down_blocks.1.attentions.0", block("u.down_blocks.1.resnets.0", b, 4), 4, c);
    let h = block("u.mid_block.resnets.0", d, 4);
    h = block("u.mid_block.resnets.1", net.transformer("u.mid_block.attentions.0", h, 4, c), 4);
    [d, b].forEach((skip, i) => {
      h = net.transformer(`u.up_blocks.0.attentions.${i}`, block(`u.up_blocks.0.resnets.${i}`, join(h, skip), 4), 4, c);
    });
    h = net.conv("u.up_blocks.0.upsamplers.0.conv", twice(h, 64, 4), 8);
    [a, first].forEach((skip, i) => {
      h = net.transformer(`u.up_blocks.1.attentions.${i}`, block(`u.up_blocks.1.resnets.${i}`, join(h, skip), 8), 8, c);
    });
    return net.conv("u.conv_out", silu(net.groupNorm("u.conv_norm_out", h, 16, 1e-5)), 8);
  }

  // latents (3 x 8 x 8) as an image (3 x 32 x 32) in [0, 1]
  function decode(net, z, scale) {
    const block = (p, x, side) => net.residual(p, x, side, 8, 1e-6);
    let side = 8, h = net.conv("d.conv_in", net.conv("d.post_quant_conv", z.map((v) => v / scale), 8), 8);
    h = block("d.mid_block.resnets.0", h, 8);
    h = add(h, net.selfAttention("d.mid_block.attentions.0", net.groupNorm("d.mid_block.attentions.0.group_norm", h, 8, 1e-6), 64, 1));
    h = block("d.mid_block.resnets.1", h, 8);
    for (let i = 0; i < 3; i++) {
      h = block(`d.up_blocks.${i}.resnets.1`, block(`d.up_blocks.${i}.resnets.0`, h, side), side);
      if (i === 2) break;
      h = net.conv(`d.up_blocks.${i}.upsamplers.0.conv`, twice(h, h.length / (side * side), side), (side *= 2));
    }
    const image = net.conv("d.conv_out", silu(net.groupNorm("d.conv_norm_out", h, 8, 1e-6)), side);
    return image.map((v) => Math.min(1, Math.max(0, (v + 1) / 2)));
  }

  // ---- the sampler ----
  function timesteps(T, N) {
    const gap = Math.floor(N / T), grid = [];
    for (let t = 0; t < N; t += gap) grid.push(t);
    const shift = grid[grid.length - 1] + 1 < N ? 1 : 0;
    return grid.map((t) => t + shift);
  }
  const ROUTES = { none: ["none", "noised"], paper: ["mean", "noised"], code: ["x0", "clean"], noise: ["noise", "clean"] };

  // Yields after each step: t, the weight, the predicted clean latent (the guess), the next state.
  function* sample(net, about, { Z, noise, c, T, guidance, route }) {
    const ts = timesteps(T, about.alpha_bar.length), n = ts.length, [into, from] = ROUTES[route];
    const bar = ts.map((t) => about.alpha_bar[t]), before = [about.alpha_bar[0], ...bar];
    const mix = (a, x, b, y) => x.map((v, i) => a * v + b * y[i]);
    const nothing = net.get("classes").data.subarray(320, 352);
    const zT = mix(Math.sqrt(bar[n - 1]), Z, Math.sqrt(1 - bar[n - 1]), noise), source = from === "clean" ? Z : zT;
    let z = zT;
    for (let k = n - 1; k >= 0; k--) {
      const a = bar[k], previous = before[k], w = LD3M.residual.weight(into, "linear", k, n);
      let e = predictNoise(net, z, ts[k], c);
      if (guidance !== 1) e = mix(1 - guidance, predictNoise(net, z, ts[k], nothing), guidance, e);
      const guess = mix(1 / Math.sqrt(a), z, -Math.sqrt((1 - a) / a), e);
      let x0 = guess;
      if (into === "x0" || into === "noise") x0 = mix(1 - w, guess, w, source);
      if (into === "noise") e = mix(1 / Math.sqrt(1 - a), z, -Math.sqrt(a / (1 - a)), x0);
      z = mix(Math.sqrt(previous), x0, Math.sqrt(1 - previous), e);
      if (into === "mean") z = mix(1 - w, z, w, source);
      yield { k, t: ts[k], weight: w, guess, z };
    }
  }

  // normal numbers of a seed (mulberry32, Box and Muller): the page's own, not PyTorch's
  function normal(seed, size) {
    let s = (seed * 2654435761) >>> 0;
    const uniform = () => {
      s = (s + 0x6d2b79f5) | 0;
      let t = Math.imul(s ^ (s >>> 15), 1 | s);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
    };
    return Float32Array.from({ length: size }, () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
  }
  const load = async (about, text) => new Layers(named(about.tensors, await unpack(text)));
  LD3M.live = { load, sample, decode, predictNoise, timesteps, normal };

  LD3M.register("live", (body, about) => {
    const { el, number } = LD3M;
    const all = [...Array(10).keys()], size = (about.bytes / 1e6).toFixed(1);
    const c = LD3M.select("digit of c", all.map((k) => [k, k]), "7", idle);
    const z = LD3M.select("digit of Z", all.map((k) => [k, k]), "3", idle);
    const T = LD3M.range("steps T", [2, 4, 5, 10, 20, 40], 10, idle);
    const guidance = LD3M.range("guidance", [0, 1, 2, 3, 4, 6, 8, 12], 3, idle);
    const route = LD3M.select("residual", [["none", "none"], ["paper", "into the mean, of z_T (equation 6)"], ["code", "into x0, of Z (public code)"], ["noise", "into the noise, of Z (ours)"]], "none", idle);
    const seed = LD3M.range("seed of the noise", all, 0, idle);
    const go = LD3M.button(`Load the model (${size} MB) and run`, run);
    const film = el("div", { class: "explorer-film" });
    const said = LD3M.status();
    let net = null, turn = 0;
    said.textContent = `Nothing is loaded yet: the weights are a file of ${size} MB beside this page.`;

    // once the model is here, every move runs it
    function idle() { if (net) run(); }
    const paint = (canvas, image) => {
      const pixels = new ImageData(32, 32);
      for (let i = 0; i < 1024; i++) {
        for (let k = 0; k < 3; k++) pixels.data[4 * i + k] = 255 * image[1024 * k + i];
        pixels.data[4 * i + 3] = 255;
      }
      canvas.getContext("2d").putImageData(pixels, 0, 0);
    };
    const picture = (image, caption) => {
      const canvas = el("canvas", { width: 32, height: 32, role: "img", "aria-label": caption, class: "explorer-digits" });
      paint(canvas, image);
      return el("figure", {}, canvas, el("figcaption", {}, caption));
    };
    async function run() {
      const mine = ++turn;
      try {
        if (!net) {
          go.disabled = true;
          said.textContent = "Loading the model.";
          await LD3M.script(about.file);
          net = await load(about, LD3M.data["live.weights"]);
          go.textContent = "Run again";
        }
      } catch (error) {
        said.textContent = `The model could not be loaded: ${error.message}.`;
        return;
      } finally { go.disabled = false; }
      const Z = net.get("Z").data.slice(192 * +z.value, 192 * (+z.value + 1));
      const token = net.get("classes").data.subarray(32 * +c.value, 32 * (+c.value + 1));
      const start = decode(net, Z, about.scale), began = performance.now();
      film.replaceChildren(picture(start, "from Z"));
      let last = start, image = start;
      const options = { Z, noise: normal(seed.value, 192), c: token, T: T.value, guidance: guidance.value, route: route.value };
      for (const step of sample(net, about, options)) {
        if (mine !== turn) return; // a newer run has begun
        last = image;
        image = decode(net, step.k ? step.guess : step.z, about.scale);
        film.append(picture(image, step.k ? `t = ${step.t}` : "result"));
        await LD3M.frame();
      }
      if (mine !== turn) return;
      const apart = (a, b) => Math.sqrt(a.reduce((s, v, i) => s + (v - b[i]) ** 2, 0) / a.length);
      said.textContent = `${T.value} steps in ${number((performance.now() - began) / 1000, 2)} seconds. `
        + `Root mean square difference of the pixels: result and the digit that Z came from ${number(apart(image, start), 2)}, last step and the one before ${number(apart(image, last), 2)}.`;
    }
    body.replaceChildren(
      el("div", { class: "explorer-controls" }, c.node, z.node, T.node, guidance.node, route.node, seed.node),
      el("div", { class: "explorer-buttons" }, go),
      el("p", { class: "explorer-caption" }, "The guess of the clean image at each step, decoded; last, the result."),
      film, said);
  });
})();
