"""The built book in a browser, from the disk: no request, no error, nothing too wide, accessible.

Needs the built book and Chromium; `make test` builds the book first and sets LD3M_BOOK=1.
"""

import os
import re
import shutil
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

HTML = Path(__file__).parents[2] / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
NO_PAGES = {"_static", "_modules", "_sources"}
LEADS_ON = "index.html"  # to the first page, at once
PAGES = sorted(
    str(p.relative_to(HTML))
    for p in HTML.rglob("*.html")
    if not NO_PAGES.intersection(p.relative_to(HTML).parts) and p != HTML / LEADS_ON
)
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
MATHS = "window.MathJax?.startup?.promise.then(() => true) ?? true"
# code that scrolls sideways, formulas that MathJax could not read, pictures without a text
SEEN = """() => ({
  "code cells scroll sideways": [...document.querySelectorAll("div.highlight pre")]
    .filter((e) => !e.closest(".cell_output") && e.scrollWidth > e.clientWidth + 1)
    .map((e) => e.textContent.slice(0, 60)),
  "formulas are wrong": [...document.querySelectorAll("mjx-merror")].map((e) => e.textContent),
  "pictures have no text": [...document.images]
    .filter((i) => !i.alt || /\\.(png|svg|webp)$/.test(i.alt)).map((i) => i.src),
})"""
DARK = """() => Object.assign(document.documentElement.dataset, {mode: "dark", theme: "dark"})"""
# Contrast is a matter of a few computed styles, and measuring it takes half a minute on a page of
# much code. What has text only in styles that were there before it is hidden meanwhile.
ALIKE = """(hide) => {
  for (const e of document.querySelectorAll("[data-alike]")) delete e.dataset.alike;
  if (!hide) return;
  const seen = new Set(), found = new Map(), style = (e) => getComputedStyle(e);
  const ground = (e) => { for (; e; e = e.parentElement) { const s = style(e);
    if (s.backgroundColor !== "rgba(0, 0, 0, 0)" || s.backgroundImage !== "none")
      return s.backgroundColor + s.backgroundImage; } };
  const opacity = (e) => e ? style(e).opacity * opacity(e.parentElement) : 1;
  const key = (e) => { const own = style(e), around = style(e.parentElement);
    return [own.color, own.fontSize, own.fontWeight, own.textDecorationLine, own.textShadow,
      around.color, e.localName, ground(e), opacity(e)].join("|"); };
  const text = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  const look = (e) => { const all = [...e.children].flatMap(look);
    const own = text(e) && e.checkVisibility() ? key(e) : null;
    if (own) all.push(own);
    found.set(e, [own, [...new Set(all)]]);
    return found.get(e)[1]; };
  const sift = (e) => { const [own, all] = found.get(e);
    if (all.length && all.every((k) => seen.has(k))) { e.dataset.alike = ""; return; }
    if (own) seen.add(own);
    for (const child of e.children) sift(child); };
  look(document.body);
  for (const child of document.body.children) sift(child);
}"""
# and without the theme's slow change of colours, half of which would be measured
UNSEEN = "<style>* {transition: none !important} [data-alike] {display: none !important}</style>"
COLOURS = ["color-contrast", "link-in-text-block"]  # the rules that light and dark decide
# what is too wide, by name: the innermost elements that end right of the window
TOO_WIDE = """() => document.documentElement.scrollWidth <= innerWidth ? [] :
  [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right
    > innerWidth + 1 && !e.children.length).slice(0, 3).map((e) => e.outerHTML.slice(0, 120))"""

pytestmark = [
    pytest.mark.skipif(os.environ.get("LD3M_BOOK") != "1", reason="LD3M_BOOK=1 looks at the book"),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def tab(browser):
    """A page in a light window of a screen's width; what it asks for and complains of."""
    context = browser.new_context(viewport=WIDE, color_scheme="light")
    page = context.new_page()
    page.said = []
    page.on("request", lambda r: r.url.startswith("http") and page.said.append(r.url))
    page.on("console", lambda m: m.type == "error" and page.said.append(m.text))
    page.on("pageerror", lambda e: page.said.append(str(e)))
    yield page
    context.close()


def barriers(tab, colours):
    """What axe finds serious or critical, a line for each rule: by the colours, or by the rest."""
    options = {"preload": False, "resultTypes": ["violations"]}
    options["rules"] = {} if colours else {rule: {"enabled": False} for rule in COLOURS}
    if colours:
        options["runOnly"] = {"type": "rule", "values": COLOURS}
        tab.evaluate("style => document.head.insertAdjacentHTML('beforeend', style)", UNSEEN)
        tab.evaluate(ALIKE, True)
    found = Axe().run(tab, options=options)
    tab.evaluate(ALIKE, False)
    return [
        f"{v['id']} x {len(v['nodes'])}: {v['nodes'][0]['html'][:200]}"
        for v in found.response["violations"]
        if v["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("page", PAGES)
def test_page(tab, page):
    tab.goto((HTML / page).as_uri())
    tab.evaluate(MATHS)
    found = {name: what for name, what in tab.evaluate(SEEN).items() if what}
    found["either"] = barriers(tab, colours=False)
    found["light"] = barriers(tab, colours=True)
    tab.evaluate(DARK)
    found["dark"] = barriers(tab, colours=True)
    tab.set_viewport_size(PHONE)
    found["wider than a phone"] = tab.evaluate(TOO_WIDE)
    found["requests and errors"] = tab.said
    assert not {name: what for name, what in found.items() if what}


@pytest.mark.parametrize("dark", [False, True])
def test_a_colour_that_is_hard_to_read_is_found_among_many_like_it(tab, dark):
    tab.set_content("<html lang=en><title>t</title><body style='background: #fff'><main></main>")
    if dark:
        tab.evaluate("document.body.style.background = '#111'")
    row = "<p style='color: {}'>words</p>"
    good, faint = ("#eee", "#222") if dark else ("#111", "#ddd")
    many = row.format(good) * 50
    tab.evaluate("html => document.querySelector('main').innerHTML = html", many)
    assert not barriers(tab, colours=True)
    # hidden at first, then one like it that is to be seen; last among many
    hidden = row.format(faint).replace("style='", "style='display: none; ")
    html = many + hidden + row.format(faint) * 2
    tab.evaluate("html => document.querySelector('main').innerHTML = html", html)
    (said,) = barriers(tab, colours=True)
    assert said.startswith("color-contrast x 1")


def test_search_works_without_a_server(tab):
    tab.goto((HTML / "search.html").as_uri() + "?q=residual")
    tab.wait_for_selector("#search-results ul.search li a")
    assert not tab.said


def explorers():
    """(page, name) of each explorer of the built book but the live one, which has a test."""
    for page in PAGES:
        names = re.findall(r'data-explorer="([\w-]+)"', (HTML / page).read_text(encoding="utf-8"))
        yield from ((page, name) for name in names if name != "live")


@pytest.mark.parametrize("page, name", [*explorers()])
def test_explorers_are_moved_by_key_and_by_touch(browser, page, name):
    """On the built page: by an arrow key in a window, by a finger on a phone."""
    for finger in (False, True):
        context = browser.new_context(viewport=PHONE if finger else WIDE, has_touch=finger)
        tab = context.new_page()
        tab.goto((HTML / page).as_uri())
        root = tab.locator(f'[data-explorer="{name}"]')
        root.scroll_into_view_if_needed()
        tab.wait_for_selector(f'[data-explorer="{name}"].explorer-live')
        status = root.locator("[role=status]")
        before = status.inner_text()
        control = root.locator("input:not([disabled])").first
        if control.get_attribute("type") != "range":  # networks to be ticked
            control.tap() if finger else control.press("Space")
        elif finger:
            box, value = control.bounding_box(), float(control.input_value())
            end = 0.98 if value == float(control.get_attribute("min")) else 0.02
            tab.touchscreen.tap(box["x"] + end * box["width"], box["y"] + box["height"] / 2)
        else:
            at_end = control.input_value() == control.get_attribute("max")
            control.press("ArrowLeft" if at_end else "ArrowRight")
        assert status.inner_text() != before
        context.close()
