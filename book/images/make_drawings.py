"""Draw the book's own figures: the idea (ld3m_idea.svg), the step (ld3m_step.svg), the page icon.

    python book/images/make_drawings.py     writes beside itself; the same bytes every time

A drawing stands on a white panel, so it reads alike in light and dark mode, and is narrow enough
for a phone.
"""

from pathlib import Path

from PIL import Image, ImageDraw

HERE = Path(__file__).parent
WIDTH = 680
INK = "#1f2328"
# fill and edge of each kind of box
LEARNED = ("#fde5cf", "#b4530a")
FROZEN = ("#dbeafb", "#1f5fa8")
DATA = ("#eceef1", "#57606a")
RESIDUAL, GRADIENT = "#1a7f37", "#b3261e"
RESIDUAL_FILL = "#dff3e4"

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


def begin(title, height):
    """An empty drawing."""
    shapes.clear()
    add(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'font-family="Helvetica, Arial, DejaVu Sans, sans-serif">'
    )
    add(f"<title>{title}</title>")
    add("<defs>")
    markers()
    add("</defs>")
    add(f'<rect width="{WIDTH}" height="{height}" rx="14" fill="#ffffff"/>')


def ended():
    """The drawing as SVG text."""
    add("</svg>")
    return "\n".join(shapes) + "\n"


def legend(y, *kinds):
    """What the colours mean; each kind is a place, colours and words."""
    for x, colours, label in kinds:
        rectangle(x, y, 26, 20, colours, radius=4, width=2)
        text(x + 36, y + 17, label, size=18, anchor="start")


def idea():
    """The whole chain."""
    begin("The idea of LD3M", 900)

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

    legend(
        856, (34, LEARNED, "learned"), (170, FROZEN, "pre-trained, frozen"), (404, DATA, "given")
    )
    return ended()


def step():
    """One step, as the paper has it and as the public code has it, side by side."""
    begin("One step of LD3M: equation (6) beside the public code", 800)
    text(175, 44, "Equation (6)", size=24, weight=700)
    text(515, 44, "The public code", size=24, weight=700)
    path([(345, 24), (345, 720)], colour="#d0d7de", width=1.5, head=False)
    plain = ("#ffffff", INK)
    white_noise = (("fresh noise", 18, 400),)

    for left in (0, 340):  # what both have: a state and c go in, the predicted noise comes out
        box(left + 30, 76, 110, 56, plain, (sub("z", "t"), 24, 700))
        box(left + 212, 76, 110, 56, LEARNED, ("c", 24, 700))
        box(left + 110, 176, 130, 60, FROZEN, "U-Net")
        path([(left + 85, 132), (left + 85, 206), (left + 108, 206)])
        path([(left + 267, 132), (left + 267, 206), (left + 242, 206)], colour=LEARNED[1])

    # the paper: the mean, then z_T into it, then fresh noise
    path([(175, 236), (175, 288)])
    path([(60, 132), (60, 320), (98, 320)])
    box(100, 290, 150, 60, plain, (f"mean {sub('μ', 'θ')}", 20, 400), ("(4)", 16, 400))
    path([(175, 350), (175, 398)])
    box(100, 400, 150, 60, (RESIDUAL_FILL, RESIDUAL), ("mix", 20, 700), ("weight t / T", 17, 400))
    box(20, 400, 60, 60, plain, (sub("z", "T"), 22, 700))
    path([(80, 430), (98, 430)], colour=RESIDUAL, width=4)
    path([(175, 460), (175, 548)])
    box(100, 550, 150, 60, plain, ("add", 20, 400), *white_noise)
    path([(175, 610), (175, 658)])

    # the code: the guess of the clean latent, the clean Z into it, then on by DDIM
    path([(515, 236), (515, 288)])
    path([(400, 132), (400, 320), (438, 320)])
    box(440, 290, 150, 60, plain, (f"guess {sub('ẑ', '0')}", 20, 400), ("(P)", 16, 400))
    path([(515, 350), (515, 398)])
    box(
        440, 400, 150, 60, (RESIDUAL_FILL, RESIDUAL),
        ("mix", 20, 700), ("weight (t−1)/(T−1)", 15, 400),
    )  # fmt: skip
    box(352, 400, 70, 60, LEARNED, ("VQ(Z)", 19, 700))
    path([(422, 430), (438, 430)], colour=RESIDUAL, width=4)
    path([(515, 460), (515, 548)])
    box(440, 550, 150, 60, plain, ("back to t − 1", 20, 400), ("(I), no fresh noise", 16, 400))
    path([(556, 236), (556, 262), (640, 262), (640, 580), (592, 580)])
    text(634, 492, sub("f", "θ"), size=20, anchor="end")
    path([(515, 610), (515, 658)])

    for left in (0, 340):
        box(left + 105, 660, 140, 56, plain, (sub("z", "t−1"), 24, 700))
    legend(
        756,
        (34, LEARNED, "learned"),
        (160, FROZEN, "frozen"),
        (280, (RESIDUAL_FILL, RESIDUAL), "the residual"),
    )
    return ended()


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
    for name, draw in (("ld3m_idea", idea), ("ld3m_step", step)):
        (HERE / f"{name}.svg").write_text(draw(), encoding="utf-8")
    favicon().save(HERE / "favicon.png", optimize=True)
