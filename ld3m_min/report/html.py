"""Pages that need nothing beside themselves: no script, no font, no file and no address.

What comes from a user, such as the name of a class, is text on them and never markup.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence

from ld3m_min.io.text import shown

_JOINERS = "\u200c\u200d"  # parts of words and of emoji, though nothing is seen of them
_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --dim: #595959; --paper: #fff; --line: #d5d5d5;
  --box: #f4f4f2; --link: #0b57a4 }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e6; --dim: #a8a8a6; --paper: #161616;
  --line: #3d3d3d; --box: #222; --link: #8ab8f0 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.25 } h2 { font-size: 1.25rem; margin-top: 2.2rem }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem }
a { color: var(--link) }
p, li { max-width: 44rem } .dim, figcaption { color: var(--dim); font-size: .9rem }
figure { margin: 0 }
.images { display: flex; flex-wrap: wrap; gap: .5rem; align-items: flex-end }
.images img { width: clamp(4.5rem, 18vw, 8rem); height: auto; image-rendering: pixelated;
  display: block; border: 1px solid var(--line) }
.snapshots { flex-wrap: nowrap; overflow-x: auto; padding-bottom: .4rem }
.snapshots img { width: 5.5rem } .snapshots figcaption { text-align: center }
.pair { display: flex; flex-wrap: wrap; gap: .5rem 2rem }
.wide { overflow-x: auto } .wide > img { max-width: 100%; height: auto }
svg { max-width: 100%; height: auto; display: block }
table { border-collapse: collapse } th { overflow-wrap: break-word; min-width: 5.5rem }
.numbers .dim { display: block; font-size: .8rem }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top } td.n, th.n { text-align: right } td.n { white-space: nowrap }
pre { background: var(--box); padding: .7rem; white-space: pre-wrap; border-radius: .3rem }
code { font-family: ui-monospace, monospace; font-size: .92em }
.note { background: var(--box); border-left: .25rem solid var(--dim); padding: .5rem .8rem }
progress { width: 100%; max-width: 44rem }
"""


def plain(value: object) -> str:
    """Text from anywhere as it may stand in HTML, in an attribute too.

    Args:
        value: anything; `str` makes it text. What turns the direction of the text around it, or
            isn't to be seen, is shown by its number.
    """
    parts = (c if c in _JOINERS else shown(c) for c in str(value))
    return html.escape("".join(parts), quote=True)


def prose(value: object) -> str:
    """Text from anywhere with what stands between backticks as code, the way messages have it.

    Args:
        value: anything; `str` makes it text.
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", plain(value))


def name(value: object) -> str:
    """A name that a user gave, apart from the text around it in whatever direction it runs."""
    return f"<bdi>{plain(value)}</bdi>"


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """A file as an address that holds all of it.

    Args:
        content: of the file.
        kind: its media type.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def image(png: bytes, alt: str) -> str:
    """A picture.

    Args:
        png: content of a PNG file.
        alt: what it shows, for those who don't see it; any text.
    """
    return f'<img src="{data_uri(png)}" alt="{plain(alt)}">'


def figure(inside: str, caption: str) -> str:
    """Something with a line below it.

    Args:
        inside: HTML.
        caption: HTML.
    """
    return f"<figure>{inside}<figcaption>{caption}</figcaption></figure>"


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column names its rows; the other columns hold numbers.

    Args:
        caption: HTML.
        head: HTML of each column's head.
        rows: HTML of each cell.
    """
    top = "".join(f'<th scope="col"{" class=n" * (i > 0)}>{h}</th>' for i, h in enumerate(head))
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td class=n>{cell}</td>" for cell in others)
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    made = (
        f'<div class="wide"><table class="numbers"><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
    return f"<figure><figcaption>{caption}</figcaption>{made}</figure>"


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and what they are, as a table of two columns.

    Args:
        rows: HTML of both.
    """
    lines = "".join(f'<tr><th scope="row">{k}</th><td>{v}</td></tr>' for k, v in rows)
    return f'<div class="wide"><table><tbody>{lines}</tbody></table></div>'


def page(title: str, body: Iterable[str], *, refresh: int | None = None) -> bytes:
    """A whole page.

    Args:
        title: text.
        body: HTML, piece by piece.
        refresh: seconds after which a browser reads it again; None for never.

    Returns:
        The content of its file.
    """
    again = "" if refresh is None else f'<meta http-equiv="refresh" content="{refresh}">\n'
    inside = "\n".join(body)
    made = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="ld3m_min">
{again}<title>{plain(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
{inside}
</main>
</body>
</html>
"""
    return made.encode()
