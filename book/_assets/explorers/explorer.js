// What all explorers share: the namespace, controls with labels, pictures from a sprite, small charts.
// No library, no network: data come by script, since a page opened from a disk may not fetch.
"use strict";
(() => {
  const LD3M = globalThis.LD3M ?? (globalThis.LD3M = {});
  LD3M.data ??= {};
  const page = typeof document === "undefined" ? null : document;
  const base = page?.currentScript ? page.currentScript.src.replace(/[^/]*$/, "") : "";

  // an element of HTML; attributes whose value is a function are listeners
  function fill(node, attributes, children) {
    for (const [key, value] of Object.entries(attributes ?? {})) {
      if (typeof value === "function") node.addEventListener(key, value);
      else if (value === true) node.setAttribute(key, "");
      else if (value !== false && value != null) node.setAttribute(key, value);
    }
    node.append(...children.flat().filter((c) => c != null));
    return node;
  }
  const el = (tag, attributes, ...children) => fill(page.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) =>
    fill(page.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  let ids = 0;
  function labelled(text, control, ...after) {
    control.id = `ld3m-${++ids}`;
    return el("div", { class: "explorer-control" }, el("label", { for: control.id }, text), control, ...after);
  }

  // A slider over a list of values. `value` is the chosen one; `changed` is called after each move.
  function range(text, values, first, changed, shown = String) {
    const out = el("output", {}, shown(first));
    const input = el("input", { type: "range", min: 0, max: values.length - 1, step: 1 });
    input.value = values.indexOf(first);
    const say = () => {
      out.textContent = shown(values[+input.value]);
      input.setAttribute("aria-valuetext", out.textContent);
    };
    input.addEventListener("input", () => { say(); changed(); });
    say();
    return {
      node: labelled(text, input, out),
      input,
      get value() { return values[+input.value]; },
      set value(v) { input.value = values.indexOf(v); say(); },
    };
  }

  // A menu; options are pairs of a value and the text for it.
  function select(text, options, first, changed) {
    const input = el("select", { change: () => changed() });
    const offer = (pairs, chosen) => {
      input.replaceChildren(...pairs.map(([v, t]) => el("option", { value: v }, t)));
      input.value = chosen;
    };
    offer(options, first);
    return {
      node: labelled(text, input),
      input,
      offer,
      get value() { return input.value; },
      set value(v) { input.value = v; },
    };
  }

  const button = (text, pressed) => el("button", { type: "button", click: pressed }, text);

  // A group of ticks; `value` is the list of those that are set.
  function ticks(text, names, changed) {
    const group = el("fieldset", { class: "explorer-ticks" });
    const offer = (list, ticked = () => true) => {
      group.replaceChildren(el("legend", {}, text), ...list.map((name) =>
        el("label", {}, el("input", { type: "checkbox", value: name, checked: ticked(name), change: () => changed() }), ` ${name}`)));
    };
    offer(names);
    return {
      node: group,
      offer,
      get value() { return [...group.querySelectorAll("input:checked")].map((x) => x.value); },
    };
  }

  // Numbers that are read aloud when they change.
  const status = () => el("p", { class: "explorer-status", role: "status", "aria-live": "polite" });

  const sheet = (file) => new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = () => failed(new Error(`${file} is not there`));
    image.src = base + file;
  });

  // A canvas of digits: `draw(cells)` puts picture (row, column) of the sheet at each place, with gaps between.
  function digits(columns, rows, alt, side = 32, gap = 2) {
    const pitch = side + gap;
    const canvas = el("canvas", { width: columns * pitch - gap, height: rows * pitch - gap, role: "img", "aria-label": alt, class: "explorer-digits" });
    const context = canvas.getContext("2d");
    return {
      node: canvas,
      context,
      pitch,
      draw(image, cells) {
        context.imageSmoothingEnabled = false;
        for (const [x, y, row, column] of cells)
          context.drawImage(image, column * side, row * side, side, side, x * pitch, y * pitch, side, side);
      },
    };
  }

  const number = (x, digits = 3) =>
    x === 0 ? "0" : Math.abs(x) >= 1e4 || Math.abs(x) < 1e-3 ? x.toExponential(digits - 1) : String(+x.toPrecision(digits));

  const still = () => globalThis.matchMedia?.("(prefers-reduced-motion: reduce)").matches ?? true;
  const frame = () => new Promise((go) => (page.hidden ? setTimeout(go, 0) : requestAnimationFrame(() => setTimeout(go, 0))));

  function whenThemeChanges(redraw) {
    new MutationObserver(redraw).observe(page.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  }

  // A file beside this one, loaded when it is asked for.
  const script = (file) => new Promise((done, failed) => {
    page.head.append(el("script", { src: base + file, load: done, error: () => failed(new Error(`${file} is not there`)) }));
  });

  // Fill each container of an explorer. Where that fails, still picture and text stay.
  function register(name, mount) {
    if (!page) return;
    for (const root of page.querySelectorAll(`[data-explorer="${name}"]`)) {
      const body = root.querySelector(".explorer-body");
      new Promise((done) => done(mount(body, LD3M.data[name]))) // so that an error at once is caught too
        .then(() => root.classList.add("explorer-live"))
        .catch((error) => {
          body.replaceChildren(el("p", {}, "The explorer could not start; its still picture is shown instead."));
          root.classList.add("explorer-failed");
          console.error(`explorer ${name}:`, error);
        });
    }
  }

  Object.assign(LD3M, { el, svg, range, select, button, ticks, status, sheet, digits, number, still, frame, whenThemeChanges, script, register });
})();
