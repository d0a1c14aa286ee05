"""Draw the book's own figures: the idea of LD3M (ld3m_idea.svg) and the page icon (favicon.png).

usage: python book/images/make_idea.py     (writes beside itself; the same bytes every time)

The drawing stands on a white panel, so it reads alike in light and dark mode, and is narrow enough
for a phone.
"""

from pathlib import Path

from PIL import Image, ImageDraw

HERE = Path(__file__).parent
WIDTH, HEIGHT = 680, 900
INK = "#1f2328"
# fill and edge of each kind of box
LEARNED = ("#fde5cf", "#b4530a")
FROZEN = ("#dbeafb", "#1f5fa8")
DATA = ("#eceef1", "#57606a")
RESIDUAL, GRADIENT = "#1a7f37", "#b3261e"

shapes = []


def add(text):
    """Append one SVG element."""
    shapes.append(text)


def sub(base, index):
    """`base` in italics with a subscript, as SVG spans."""
    low = f'<tspan dy="6" font-size="70%">{index}</tspan><tspan dy="-6"> </tspan>'
    return f'<tspan font-style="italic">{base}</tspan>{low}'


def text(x, y, content, *, size=20, weight=400, fill=INK, anchor="middle"):
    """One line of text; `content` may hold spans."""
    style = f'font-size="{size}" font-weight="{weight}" fill="{fill}" text-anchor="{anchor}"'
    add(f'<text x="{x}" y="{y}" {style}>{content}</text>')


def rectangle(x, y, w, h, colours, radius=10, width=2.5):
    """A rounded rectangle; `colours` is its fill and its edge."""
    style = f'fill="{colours[0]}" stroke="{colours[1]}" stroke-width="{width}"'
    add(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="{radius}" {style}/>')


def box(x, y, w, h, colours, *lines):
    """A box with centred lines of text, each a string or a (string, size, weight)."""
    rectangle(x, y, w, h, colours)
    lines = [(line, 19, 400) if isinstance(line, str) else line for line in lines]
    top = y + h / 2 - 13 * (len(lines) - 1)
    for i, (content, size, weight) in enumerate(lines):
        text(x + w / 2, top + 26 * i + size * 0.36, content, size=size, weight=weight)


def path(points, *, colour=INK, width=2.5, dash=None, head=True):
    """A polyline through `points`, with an arrow head at its end."""
    d = "M" + " L".join(f"{x} {y}" for x, y in points)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    end = f' marker-end="url(#head-{colour[1:]})"' if head else ""
    style = f'fill="none" stroke="{colour}" stroke-width="{width}" stroke-linejoin="round"'
    add(f'<path d="{d}" {style}{dashed}{end}/>')


def markers():
    """One arrow head for each colour of line."""
    for colour in (INK, RESIDUAL, GRADIENT, LEARNED[1], DATA[1]):
        size = 'viewBox="0 0 10 10" refX="8.5" refY="5" markerWidth="12" markerHeight="12"'
        triangle = f'<path d="M0 0 L10 5 L0 10 z" fill="{colour}"/>'
        units = 'markerUnits="userSpaceOnUse" orient="auto"'
        add(f'<marker id="head-{colour[1:]}" {size} {units}>{triangle}</marker>')


def idea():
    """The whole drawing as SVG text."""
    shapes.clear()
    add(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="Helvetica, Arial, DejaVu Sans, sans-serif">'
    )
    add("<title>The idea of LD3M</title>")
    add("<defs>")
    markers()
    add("</defs>")
    add(f'<rect width="{WIDTH}" height="{HEIGHT}" rx="14" fill="#ffffff"/>')

    # what is learned, and where it starts
    box(30, 52, 142, 78, LEARNED, ("c", 26, 700), "conditioning")
    box(200, 52, 140, 78, LEARNED, ("Z", 26, 700), "latent codes")
    box(386, 58, 100, 66, FROZEN, "encoder")
    box(526, 58, 130, 66, DATA, "real images")
    path([(526, 91), (488, 91)], colour=DATA[1], dash="7 5")
    path([(386, 91), (342, 91)], colour=DATA[1], dash="7 5")
    text(436, 150, "once, to start", size=18, fill=DATA[1])

    # forward noise
    box(214, 204, 110, 62, ("#ffffff", INK), (sub("z", "T"), 26, 700))
    box(392, 204, 214, 62, DATA, "noise, drawn once", "and kept")
    path([(269, 130), (269, 202)])
    path([(392, 235), (326, 235)])
    text(282, 176, "add noise", size=18, anchor="start")

    # T denoising steps, the residual above and the conditioning below
    rectangle(62, 336, 556, 208, ("#f6f8fa", "#8c959f"), width=1.5)
    steps = [(96, 7), (256, 4.5), (474, 2)]
    path([(214, 235), (78, 235), (78, 440), (94, 440)])
    path([(269, 266), (269, 312)], colour=RESIDUAL, width=4, head=False)
    path([(156, 312), (534, 312)], colour=RESIDUAL, width=4, head=False)
    for x, width in steps:
        path([(x + 60, 312), (x + 60, 393)], colour=RESIDUAL, width=width)
        path([(x + 60, 574), (x + 60, 487)], colour=LEARNED[1])
    text(624, 300, "residual: less and less", size=19, weight=600, fill=RESIDUAL, anchor="end")
    for (x, _), index in zip(steps, ("T", "T−1", "1"), strict=True):
        box(x, 396, 120, 88, FROZEN, "U-Net", (f"step {index}", 18, 400))
    path([(216, 440), (254, 440)])
    path([(376, 440), (408, 440)])
    text(425, 446, "…", size=26)
    path([(442, 440), (472, 440)])
    text(425, 524, "T denoising steps", size=18, fill="#57606a")
    path([(50, 130), (50, 574), (534, 574)], colour=LEARNED[1], head=False)

    # decode, compare
    path([(594, 440), (636, 440), (636, 652), (612, 652)])
    text(616, 584, sub("z", "0"), size=24, weight=700)
    box(484, 616, 126, 72, FROZEN, "decoder")
    path([(484, 652), (432, 652)])
    box(214, 610, 216, 84, ("#ffffff", INK))
    for i, shade in enumerate(("#c7d2de", "#e0c9b4", "#bcd3c0", "#d9c3d3")):
        rectangle(230 + 48 * i, 622, 40, 32, (shade, INK), radius=4, width=1)
    text(322, 682, "synthetic images S")
    path([(322, 694), (322, 744)])
    box(204, 746, 236, 76, ("#ffffff", INK), ("loss", 22, 700), "DC, DM or MTT")
    path([(656, 91), (666, 91), (666, 784), (442, 784)], colour=DATA[1])
    text(556, 774, "real images", size=18, fill=DATA[1])

    # the gradient's way back
    path([(204, 784), (16, 784), (16, 26), (99, 26), (99, 50)], colour=GRADIENT, dash="9 6")
    path([(99, 26), (269, 26), (269, 50)], colour=GRADIENT, dash="9 6")
    for i, line in enumerate(("gradient through", "every step,", "to Z and c")):
        text(30, 720 + 24 * i, line, size=18, weight=600, fill=GRADIENT, anchor="start")

    # legend
    for x, colours, label in (
        (34, LEARNED, "learned"),
        (170, FROZEN, "pre-trained, frozen"),
        (404, DATA, "given"),
    ):
        rectangle(x, 856, 26, 20, colours, radius=4, width=2)
        text(x + 36, 873, label, size=18, anchor="start")
    add("</svg>")
    return "\n".join(shapes) + "\n"


def favicon(size=64):
    """Noise on the left, a clean square on the right: the way from one to the other."""
    image = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((0, 0, size - 1, size - 1), radius=14, fill="#1f5fa8")
    cell = 8
    for i in range(3):
        for j in range(5):
            grey = 90 + (i * 67 + j * 101 + i * j * 53) % 150  # any fixed scatter will do
            x, y = 8 + i * cell, 12 + j * cell
            draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill=(grey, grey, grey))
    draw.rectangle((36, 12, 55, 51), fill="#fde5cf", outline="#b4530a", width=3)
    return image


if __name__ == "__main__":
    (HERE / "ld3m_idea.svg").write_text(idea(), encoding="utf-8")
    favicon().save(HERE / "favicon.png", optimize=True)
