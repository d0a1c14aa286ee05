"""The explorers in a browser: from the disk, without a server."""

import json
import re
import shutil
import subprocess

import pytest

from .explorers import FOLDER, extension

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)

MOVES = """
window.addEventListener("error", (e) => problems.push(String(e.message)));
const problems = [], error = console.error;
console.error = (...x) => { problems.push(x.join(" ")); error(...x); };
const parts = new Map(), last = new Map();
const draw = CanvasRenderingContext2D.prototype.drawImage;
CanvasRenderingContext2D.prototype.drawImage = function (image, ...where) {
  if (!parts.has(this.canvas)) parts.set(this.canvas, []);
  parts.get(this.canvas).push(`${image.src} ${where}`);
  return draw.call(this, image, ...where);
};
const pause = () => new Promise((go) => setTimeout(go, 20));
const until = async (ready) => { for (let i = 0; i < 20000 && !ready(); i++) await pause(); };
addEventListener("load", async () => {
  const report = {};
  for (const root of document.querySelectorAll("[data-explorer]")) {
    await until(() => root.matches(".explorer-live, .explorer-failed"));
    const said = () => root.querySelector("[role=status]").textContent, seen = {}, drawn = {};
    const drawing = (x) => {
      if (x.tagName !== "CANVAS") return x.outerHTML;
      // what is drawn from a file can't be read back; its parts are told by how they are drawn
      try { return x.toDataURL(); } catch {
        const now = parts.get(x).splice(0).join();
        if (now) last.set(x, now);
        return last.get(x);
      }
    };
    const picture = () => [...root.querySelectorAll("canvas, svg, img")].map(drawing).join();
    if (root.dataset.explorer === "live") {
      seen.before = said();
      root.querySelector("button").click();
      await until(() => /seconds/.test(said()));
      seen.after = said();
    }
    else for (const input of root.querySelectorAll(".explorer-controls :is(select, input)")) {
      const before = said(), shown = picture();
      const name = root.querySelector(`label[for=${input.id}]`).textContent;
      const menu = input.tagName === "SELECT";
      if (menu) input.selectedIndex = (input.selectedIndex + 1) % input.options.length;
      else input.value = +input.value > +input.min ? +input.value - 1 : +input.value + 1;
      input.dispatchEvent(new Event(menu ? "change" : "input"));
      await pause();
      seen[name] = said() !== before;
      drawn[name] = picture() !== shown;
    }
    report[root.dataset.explorer] = {live: root.matches(".explorer-live"), seen, drawn};
  }
  const textContent = JSON.stringify({report, problems}), pre = document.createElement("pre");
  document.body.replaceChildren(Object.assign(pre, {id: "report", textContent}));
});
"""


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_explorers_move_in_a_browser(tmp_path):
    """A page from the disk with all of them: each control changes what is said, and no error."""
    ext = extension()
    static = tmp_path / "_static" / "explorers"
    shutil.copytree(FOLDER, static)
    values = json.dumps(ext.table_data())
    (static / "table.data.js").write_text(f'globalThis.LD3M.data["table"] = {values};')
    containers = "".join(
        ext.opening(name, "Question?", "alt", (100, 200), "") + ext.CLOSING for name in ext.SCRIPTS
    )
    loaded = "".join(f'<script defer src="_static/{f}"></script>' for f in ext.scripts(ext.SCRIPTS))
    (tmp_path / "page.html").write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>t</title>"
        f"<script>{MOVES}</script>{loaded}<body>{containers}</body></html>"
    )
    options = (
        "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --virtual-time-budget=600000"
    )
    done = subprocess.run(
        [CHROMIUM, *options.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
         (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    found = re.search(r'<pre id="report">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr[-2000:]
    said = json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))
    assert not said["problems"]
    assert set(said["report"]) == set(ext.SCRIPTS)
    for name, one in said["report"].items():
        assert one["live"], name
        if name == "live":
            assert "MB" in one["seen"]["before"] and "10 steps" in one["seen"]["after"]
        else:
            idle = {k for k, moved in one["seen"].items() if not moved}
            # the loss to go down is for the button
            assert idle <= {"loss to go down"}, name
            assert len(one["seen"]) >= 3
            still = {k for k, changed in one["drawn"].items() if not changed}
            assert len(still) < len(one["drawn"]) / 2, (name, still)
