"""The built book: every link leads somewhere, every page is there, nothing is fetched from another
host.

Needs `jupyter-book build .` first. `make test` sets LD3M_BOOK=1 after building, and a missing book
is then a failure.
"""

import json
import os
import re
from pathlib import Path
from urllib.parse import unquote, urldefrag

import html5lib
import pytest
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
LOADING = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href"}
ELSEWHERE = re.compile(r"^(?:https?:)?//")
CSS_URL = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""")
CSS_COMMENT = re.compile(r"/\*.*?\*/", re.S)
# what MathJax 3's default packages define and our pages use is long; what they lack is what people
# mistype or miss
COMMAND = re.compile(r"\\([A-Za-z]+)")
KNOWN = """
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta kappa lambda mu nu xi pi rho
    sigma tau phi varphi chi psi omega Gamma Delta Theta Lambda Sigma Phi Psi Omega partial nabla
    infty ell hbar imath jmath mathbf mathbb mathcal mathrm mathit mathsf mathtt text textbf
    textit textrm operatorname frac dfrac tfrac sqrt sum prod int lim min max arg argmin sup inf
    log exp ln sin cos tan det dim ker Pr gcd bar hat tilde vec dot ddot widehat widetilde
    overline underline overbrace underbrace overset underset stackrel left right big Big bigg Bigg
    bigl bigr Bigl Bigr middle lVert rVert lvert rvert Vert vert langle rangle lfloor rfloor lceil
    rceil lbrace rbrace mid parallel cdot cdots ldots dots vdots ddots times div pm mp ast star
    circ otimes oplus odot bullet le leq ge geq ne neq approx sim simeq equiv propto ll gg in
    notin ni subset subseteq cup cap setminus emptyset forall exists to rightarrow leftarrow
    Rightarrow Leftarrow leftrightarrow mapsto longrightarrow longmapsto leadsto gets iff implies
    uparrow downarrow top bot prime dagger quad qquad hspace vspace phantom hphantom vphantom
    mathstrut begin end label tag nonumber notag limits nolimits displaystyle textstyle
    scriptstyle newline hline Re Im
"""

pytestmark = pytest.mark.skipif(
    not HTML.exists() and os.environ.get("LD3M_BOOK") != "1",
    reason="the book is not built: jupyter-book build .",
)


@pytest.fixture(scope="module")
def pages():
    """Path of each built page -> its parsed HTML."""
    found = {
        p: BeautifulSoup(p.read_bytes(), "html.parser")
        for p in HTML.rglob("*.html")
        if "_static" not in p.parts
    }
    assert found, f"no page in {HTML.relative_to(ROOT)}: build the book first"
    return found


@pytest.fixture(scope="module")
def config():
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


def toc_files(node):
    """Every `file:` and the `root:` of a table of contents, depth first."""
    if isinstance(node, dict):
        yield from (node[k] for k in ("root", "file") if k in node)
        for value in node.values():
            yield from toc_files(value)
    elif isinstance(node, list):
        for value in node:
            yield from toc_files(value)


def test_every_page_of_the_toc_is_built():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    missing = [f for f in toc_files(toc) if not (HTML / f"{f}.html").is_file()]
    assert not missing
    assert (HTML / "index.html").is_file()


def test_every_chapter_of_the_repository_is_in_the_toc():
    toc = set(toc_files(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))))
    sources = [*(ROOT / "book").rglob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    apart = {"_assets", "_data"}  # a weight's card is no chapter
    names = {
        p.relative_to(ROOT).with_suffix("").as_posix() for p in sources if not apart & set(p.parts)
    }
    assert not names - toc


def test_internal_links(pages):
    ids = {
        p: {t["id"] for t in s.find_all(id=True)}
        | {t["name"] for t in s.find_all("a", attrs={"name": True})}
        for p, s in pages.items()
    }
    bad = []
    for page, soup in pages.items():
        for tag, attr in (("a", "href"), *LOADING.items()):
            for el in soup.find_all(tag, **{attr: True}):
                url, frag = urldefrag(el[attr])
                if ELSEWHERE.match(url) or url.startswith(("mailto:", "data:", "javascript:")):
                    continue
                path = url.split("?")[0]
                target = (page.parent / unquote(path)).resolve() if path else page
                if not target.exists() or (
                    frag and target in ids and unquote(frag) not in ids[target]
                ):
                    bad.append(f"{page.relative_to(HTML)}: {el[attr]}")
    assert not bad, "\n".join(sorted(set(bad)))


def test_nothing_is_loaded_from_another_host(pages):
    """Scripts, images, frames and styles, in the pages and in the style sheets that they load."""
    outside, sheets = set(), set()
    for page, soup in pages.items():
        for tag, attr in LOADING.items():
            for el in soup.find_all(tag, **{attr: True}):
                if tag == "link" and not {"stylesheet", "preload", "icon", "preconnect"} & set(
                    el.get("rel", [])
                ):
                    continue
                if ELSEWHERE.match(el[attr]):
                    outside.add(f"{page.relative_to(HTML)}: {el[attr]}")
                elif tag == "link" and "stylesheet" in el.get("rel", []):
                    sheets.add((page.parent / unquote(el[attr].split("?")[0])).resolve())
        outside |= {
            f"{page.relative_to(HTML)}: {u}"
            for s in soup.find_all("style")
            for u in CSS_URL.findall(s.text)
        }
    for sheet in sheets:
        text = CSS_COMMENT.sub("", sheet.read_text(encoding="utf-8"))
        outside |= {f"{sheet.name}: {u}" for u in CSS_URL.findall(text)}
    assert not outside, "\n".join(sorted(outside))


def test_mathjax_is_part_of_the_book(pages):
    with_math = [s for s in pages.values() if s.select(".math")]
    assert with_math
    assert all(
        s.find("script", src=re.compile(r"_static/mathjax/tex-chtml\.js")) for s in with_math
    )
    assert (HTML / "_static" / "mathjax" / "tex-chtml.js").is_file()
    assert list((HTML / "_static" / "mathjax").rglob("*.woff"))


def test_tex_commands_are_known(pages, config):
    """Each command is on the list or a macro: MathJax prints an unknown one in red, in silence."""
    known = set(KNOWN.split()) | set(config["sphinx"]["config"]["mathjax3_config"]["tex"]["macros"])
    unknown = {}
    for page, soup in pages.items():
        for el in soup.select(".math"):
            for name in set(COMMAND.findall(el.text)) - known:
                unknown.setdefault(name, str(page.relative_to(HTML)))
    assert not unknown, f"define in _config.yml or add to KNOWN: {json.dumps(unknown)}"


def test_no_page_shows_a_traceback(pages):
    assert not [
        str(p.relative_to(HTML))
        for p, s in pages.items()
        if "Traceback (most recent call last)" in s.text
    ]


def test_no_markup_is_left_over(pages):
    """A directive or role that the parser did not take for one stands there as it was written."""
    marks = re.compile(r"`{3}\s*{[\w:-]+}|:{3}\s*{[\w:-]+}|{(?:py:)?\w+}`")
    bad = []
    for page, soup in pages.items():
        article = soup.find("article") or soup
        text = " ".join(
            t for t in article.find_all(string=True) if not t.find_parent(["code", "pre", "script"])
        )
        text += " ".join(
            el.text for el in article.select("pre") if not el.find_parent(class_="highlight-python")
        )
        bad += [f"{page.relative_to(HTML)}: {m}" for m in marks.findall(text)]
    assert not bad


def test_every_image_has_a_text(pages):
    bad = {
        f"{p.relative_to(HTML)}: {el.get('src', '')[:60]}"
        for p, s in pages.items()
        for el in s.select("article img")
        if not el.get("alt", "").strip()
    }
    assert not bad, "\n".join(sorted(bad))


def test_pages_are_valid_html(pages):
    """As the standard's own parser reads them; the front page that only leads on has no head."""
    wrong = {}
    for page in pages:
        parser = html5lib.HTMLParser(strict=False)
        parser.parse(page.read_bytes(), likely_encoding="utf-8")
        found = [(where[0], code) for where, code, _ in parser.errors]
        if found and page != HTML / "index.html":
            wrong[str(page.relative_to(HTML))] = found[:3]
    assert not wrong


def test_pages_are_small(pages):
    """A megabyte at most, pictures inside of the page included, explorers left out."""
    large = {p.name: p.stat().st_size for p in pages if p.stat().st_size > 2**20}
    assert not large


def test_widgets_are_loaded_where_they_are(pages):
    for page, soup in pages.items():
        loaded = any("embed-amd" in s.get("src", "") for s in soup.find_all("script"))
        assert loaded == bool(soup.select("script[type*=widget]")), page.name
