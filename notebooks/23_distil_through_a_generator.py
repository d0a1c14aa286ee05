# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (nb-glad)=
# # Distil through a generator
#
# What if the prior isn't a diffusion model but a GAN's generator, as in {term}`GLaD`?
#
# **You will** compute the one special operation of a {term}`style-based generator` on paper, build
# the whole generator by hand and find the package's images equal to your own. Then you start ten
# digits in three ways, find the codes of real digits by optimisation, and distil in the two spaces
# of {term}`GLaD`.
#
# **You will learn** what $\mathcal{W}^+$ and $F_n$ are (section 2.3 of the paper), what a set in
# them has to store, and what LD3M's {term}`encoder` saves (section 3.2).
#
# **You need** one CPU core, 1 GB of memory and half a minute (preset `smoke`; three minutes with
# `cpu`). No GPU, no Internet: the generator comes with `ld3m_min`. The page to it is
# {doc}`../book/background/23_glad`. What is claimed is also asserted, in the folded cells.

# %% tags=["parameters"]
import os

# smoke: 40 steps of an inversion, 20 iterations of a distillation;
# else 300 and 60
preset = os.environ.get("LD3M_PRESET", "smoke")
seed = 0  # of every random draw
# where the figure of the reconstructions goes
out = os.environ.get("LD3M_OUT", "../runs/distil_through_a_generator")

# %% tags=["hide-cell"]
import importlib.util
import subprocess
import sys

# without the package: install it, once, from the clone that this notebook
# is in, or from an address, where a notebook is opened alone (Colab)
if importlib.util.find_spec("ld3m_min") is None:
    address = os.environ.get("LD3M_REPOSITORY", "")  # of the repository
    clone = os.path.exists("../pyproject.toml")
    if not clone and not address:
        raise SystemExit('set address = "https://..." above: the repository')
    what = ["-e", "..[notebooks]"]
    if not clone:
        what = [f"ld3m-min[notebooks] @ git+{address}"]
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    subprocess.run([*pip, *what], check=True)
    sys.path.insert(0, "..")

import math
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib_inline.backend_inline import set_matplotlib_formats

from ld3m_min import presets
from ld3m_min.data import load_data
from ld3m_min.experiments import figures as viz
from ld3m_min.experiments.style import BLUE, GREY, ORANGE, PURPLE
from ld3m_min.io.seeds import seeded
from ld3m_min.prior import load_prior
from ld3m_min.prior.style_codes import invert, mapped_noise, mean_codes
from ld3m_min.prior.style_layers import modulated_convolution
from ld3m_min.run import distil
from ld3m_min.spaces import build_space, draw_initial_images

viz.use_style()
near = torch.testing.assert_close
smoke = preset == "smoke"
data, digits = load_data("digits"), torch.arange(10)


def show(images, columns, titles=None, row_labels=None, scale=0.42):
    """A grid of images, as JPEG for a small file."""
    set_matplotlib_formats("jpeg", pil_kwargs={"quality": 55})
    return viz.image_grid(images, columns, titles, row_labels, scale=scale)


def plot(rows=1, columns=1, **kwargs):
    """Empty plots, as PNG."""
    set_matplotlib_formats("png")
    return plt.subplots(rows, columns, layout="constrained", **kwargs)


# %% [markdown]
# ## One pixel on paper
#
# A convolution has fixed weights $w$. In a {term}`modulated convolution`, each image brings a
# *style*: a number $s_i$ for each input channel, which says how strong that channel is.
#
# $$
# w'_{oik} = s_i\, w_{oik}, \qquad
# w''_{oik} = w'_{oik} \Big/ \sqrt{\textstyle\sum_{i,k} {w'_{oik}}^2}
# $$
#
# The first is modulation, the second demodulation: whatever the style, the weights of each output
# channel have length 1. Take one pixel with two channels, $x = (1, 2)$, and a window of one pixel.
# The two output channels have the weights $(1, 1)$ and $(2, -1)$. With the style $(3, 1)$:
#
# - modulated weights: $(3, 1)$ and $(6, -1)$; outputs $3 + 2 = 5$ and $6 - 2 = 4$;
# - lengths of the weights: $\sqrt{10}$ and $\sqrt{37}$; outputs $5/\sqrt{10} = 1.58$ and
#   $4/\sqrt{37} = 0.66$.
#
# ```{admonition} Make a prediction
# What happens to the four numbers when the style is ten times as large?
# ```

# %%
x = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
weight = torch.tensor([[1.0, 1.0], [2.0, -1.0]]).view(2, 2, 1, 1)
rows = {}
for style in ((3, 1), (30, 10), (0, 1)):
    s = torch.tensor([style]).float()
    own = weight.view(2, 2) * s  # modulated
    plain = own @ torch.tensor([1.0, 2.0])
    by_hand = torch.cat([plain, plain / own.norm(dim=1)])
    both = [
        modulated_convolution(x, weight, s, demodulate=d) for d in (False, True)
    ]
    package = torch.cat([made.flatten() for made in both])
    rows[f"{style}, by hand"] = by_hand.tolist()
    rows[f"{style}, package"] = package.tolist()
columns = ["modulated 1", "modulated 2", "demodulated 1", "demodulated 2"]
pd.DataFrame(rows, columns).T.rename_axis("style").round(3)

# %% tags=["hide-cell"]
for style in ((3, 1), (30, 10), (0, 1)):
    by_hand, package = (
        rows[f"{style}, {who}"] for who in ("by hand", "package")
    )
    near(torch.tensor(by_hand), torch.tensor(package), rtol=1e-4, atol=1e-5)

# %% [markdown]
# ```{admonition} Answer
# :class: dropdown
# Ten times the style gives ten times the modulated outputs, and the same demodulated ones. The last
# style switches the first channel off.
# ```
#
# ## The same on pictures
#
# Now the definition for any window, one convolution for each image. The package does all images by
# one convolution: it scales what goes in by $s_i$, and what comes out by one over the length. To
# see what a style does, let channel 1 be a two and channel 2 a seven. The window copies channel 1
# and takes the slope of channel 2, from left to right.
#
# ```{admonition} Make a prediction
# Which picture do the styles $(1, 0)$, $(0, 1)$ and $(1, 1)$ give? And $(4, 4)$, with and without
# demodulation?
# ```


# %%
def by_definition(x, weight, style, demodulate=True):
    made = []
    for image, s in zip(x, style, strict=True):
        own = weight * s[None, :, None, None]
        if demodulate:
            squares = own.square().sum((1, 2, 3), keepdim=True)
            own = own / squares.sqrt()
        side = weight.shape[-1]
        made.append(F.conv2d(image[None], own, padding=side // 2))
    return torch.cat(made)


pair = [
    data.train.sample_class(k, 1, seeded(seed, "pair"))[0, 0] for k in (2, 7)
]
x = torch.stack(pair)[None].expand(4, -1, -1, -1)
copy, slope = torch.zeros(3, 3), torch.zeros(3, 3)
copy[1, 1], slope[:, 0], slope[:, 2] = 1, -0.6, 0.6
weight = torch.stack([copy, slope])[None]
styles = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [4.0, 4.0]])
made = {d: by_definition(x, weight, styles, d) for d in (False, True)}
theirs = {
    d: modulated_convolution(x, weight, styles, demodulate=d) for d in made
}

# %% mystnb={"image": {"alt": "Two rows of four pictures, modulated and demodulated, for four styles. With (1, 0) a two is seen, with (0, 1) the slopes of a seven, with (1, 1) both. With (4, 4) the modulated picture is burnt out, the demodulated one equals that of (1, 1)."}}
fig, axes = plot(2, 4, figsize=(4.6, 2.7))
for d, line in zip(made, axes, strict=True):
    both = zip(line, theirs[d], styles.tolist(), strict=True)
    for axis, picture, style in both:
        axis.imshow(picture[0], cmap="gray", vmin=-1.2, vmax=1.8)
        axis.set(xticks=[], yticks=[])
        axis.set_frame_on(False)
        if not d:
            axis.set_title(f"({style[0]:.0f}, {style[1]:.0f})", fontsize=10)
axes[0, 0].set_ylabel("modulated")
_ = axes[1, 0].set_ylabel("demodulated")
# %% tags=["hide-cell"]
for d in made:
    near(made[d], theirs[d], rtol=1e-5, atol=1e-5)
near(theirs[True][3], theirs[True][2], rtol=1e-5, atol=1e-5)
size = {d: [round(p.std().item(), 2) for p in theirs[d]] for d in made}
print("deviation, modulated:  ", size[False])
print("deviation, demodulated:", size[True])

# %% [markdown]
# *One scale of greys holds for all eight.*
#
# ```{admonition} Answer
# :class: dropdown
# The style $(1, 0)$ shows the two, $(0, 1)$ the seven, and $(1, 1)$ both. The last column has four
# times the style of the third. Above, its picture is burnt out. Below, it is the same picture.
# ```
#
# ## The generator
#
# It has two networks. The *mapping network* turns noise $z$ and the class into a code $w$. The
# *synthesis network* starts from a learned $4 \times 4$ array, the same for every image, and has
# eight modulated layers. A ninth makes three colours of the last features. Every layer reads a copy
# of $w$, and makes its style of it by a linear map.

# %%
G = load_prior("style-digits")
z = torch.randn(10, G.z_width, generator=seeded(seed, "noise"))
w = G.map(z, digits)
print("w", tuple(w.shape), "-> images", tuple(G.synthesize(w).shape))
rows = []
for n in range(1, G.num_layers + 1):
    channels, side = G.features(w, n).shape[1:3]
    rows.append({"after layer": n, "channels": channels, "side": side})
pd.DataFrame(rows).set_index("after layer").T

# %% [markdown]
# By hand, with nothing but the weights. Two things need to be known. All weights are stored with
# variance 1 and scaled when they are used. The activation is a leaky rectifier times $\sqrt2$,
# which keeps the variance.


# %%
def activated(x):
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def mapping_by_hand(z, labels):
    e = G.class_embedding.weight[labels]
    parts = [v / v.square().mean(1, keepdim=True).sqrt() for v in (z, e)]
    x = torch.cat(parts, 1)  # noise and class, by direction alone
    for layer in G.mapping.layers:
        # the mapping learns ten times slower
        scale = 0.1 / math.sqrt(x.shape[1])
        x = activated(x @ layer.weight.T * scale + 0.1 * layer.bias)
    return x[:, None].expand(-1, G.num_ws, -1)  # the same code for every layer


def synthesis_by_hand(w):
    x = G.synthesis.start.expand(len(w), -1, -1, -1)
    for i, layer in enumerate((*G.synthesis.layers, G.synthesis.last)):
        if i in (2, 4, 6):
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
        style = w[:, i] @ layer.style.weight.T / math.sqrt(w.shape[2])
        style = style + layer.style.bias
        bias = layer.bias[:, None, None]
        if i < G.num_layers:
            x = activated(by_definition(x, layer.weight, style) + bias)
        else:  # to colours, not demodulated
            fan = layer.weight / math.sqrt(x.shape[1])
            x = by_definition(x, fan, style, demodulate=False) + bias
    return ((x + 1) / 2).clamp(0, 1)


w_by_hand = mapping_by_hand(z, digits)
by_hand, package = synthesis_by_hand(w_by_hand), G.synthesize(w)
apart = (by_hand - package).abs()
largest = 255 * apart.max()
print(f"largest difference: {largest:.1f} of 255 grey levels")

# %% mystnb={"image": {"alt": "Three rows of ten digits: by hand, by the package, and their difference, which is black everywhere."}}
rows = [by_hand, package, apart]
fig = show(torch.cat(rows), 10, None, ["by hand", "package", "difference"])
# %% tags=["hide-cell"]
near(w_by_hand, w, rtol=1e-4, atol=1e-4)
assert largest < 1

# %% [markdown]
# *Ten draws of noise, one for each class.*
#
# ## Which layer decides what?
#
# The nine copies of $w$ need not be equal. Take the first $k$ of them from one digit and the others
# from another. (The two digits are those of their classes' mean codes, see below.)
#
# ```{admonition} Make a prediction
# After how many layers is it the other digit?
# ```

# %% mystnb={"image": {"alt": "Three rows of ten pictures, for k from 0 to 9: 0 to 4, 3 to 5, 4 to 9. Up to k = 2 the row shows the first digit or a mixture, from k = 3 on the second; from there only shades change."}}
pairs, grid = ((0, 4), (3, 5), (4, 9)), []
mean = mean_codes(G, digits, 1000, seed)
for a, b in pairs:
    for k in range(G.num_ws + 1):
        grid.append(torch.cat([mean[b, :k], mean[a, k:]]))
fig = show(
    G.synthesize(torch.stack(grid)),
    G.num_ws + 1,
    ["k = 0", *range(1, G.num_ws + 1)],
    [f"{a} to {b}" for a, b in pairs],
)
# %% [markdown]
# *The first $k$ codes are the second digit's, the others the first digit's.*
#
# ```{admonition} Answer
# :class: dropdown ours
# With $k = 3$ it is, in each row: the layers at 4 px and the first at 8 px choose the digit. The
# later codes change little more than its shades. So a code for each layer says more than one code
# for all of them. This space of nine free codes is $\mathcal{W}^+$.
# ```
#
# ## $F_n$: start in the middle
#
# The features after layer $n$ and the codes of the later layers decide the image. $F_n$ learns
# these. The codes before layer $n$ have done their work and are dropped.
#
# ```{admonition} Make a prediction
# A number takes 4 bytes, and a picture of 32 px has 3,072 bytes. From which $n$ on does a code in
# $F_n$ take more than the picture that it makes?
# ```

# %%
rows = {}
for n in range(1, G.num_layers + 1):
    features = G.features(w, n)
    later = torch.cat([torch.zeros_like(w[:, :n]), w[:, n:]], 1)
    image = G.synthesize(later, features=features, layer=n)
    apart = 255 * (image - package).abs().max().item()
    numbers = features[0].numel() + later[0, n:].numel()
    rows[f"F_{n}"] = {
        "features": str(tuple(features.shape[1:])),
        "codes": later.shape[1] - n,
        "numbers": numbers,
        "bytes / picture": 4 * numbers / package[0].numel(),
        "difference": round(apart, 1),
    }
whole = w[0].numel()
rows = {
    "W+": {
        "features": "none",
        "codes": G.num_ws,
        "numbers": whole,
        "bytes / picture": 4 * whole / package[0].numel(),
        "difference": 0.0,
    }
} | rows
table = pd.DataFrame(rows).T

# %% mystnb={"image": {"alt": "Bars on a logarithmic axis, the bytes of a code over those of its picture, for W+ and F 1 to F 8. From F 1 on they are above a dotted line at 1, and they grow with each larger side of the features."}}
fig, axis = plot(figsize=(4.6, 2.7))
share = table["bytes / picture"].astype(float)
names = ["$\\mathcal{W}^+$", *(f"$F_{n}$" for n in range(1, G.num_layers + 1))]
bars = axis.bar(names, share, color=BLUE, width=0.7)
axis.bar_label(bars, [f"{x:.1f}" for x in share], fontsize=8)
axis.axhline(1, ls=":", color=GREY)
axis.set(yscale="log", ylabel="bytes / picture", ylim=(0.3, 2 * share.max()))
_ = axis.set_title("What a code has to store")
# %% tags=["hide-cell"]
assert table["difference"].astype(float).max() < 1, "nothing is lost"
assert (share[1:] > 1).all()
table.drop(columns="bytes / picture")

# %% [markdown]
# *Bytes of a code, 4 for each number, over the bytes of the picture that it makes.*
#
# ```{admonition} Answer
# :class: dropdown
# From $F_1$ on. Nothing is lost with any of them: features and later codes give the image of the
# whole generator (column *difference* of the table in the folded cell, in grey levels of 255).
# ```
#
# ## Three ways to begin
#
# A distillation needs codes to start from. **Mapped noise**: one draw of $z$ for each image, with
# its class. **Mean code**: the mean of $w$ over a thousand draws. **Inversion**: codes whose images
# are nearest to real ones,
#
# $$
# w^* = \arg\min_w \norm{G(w) - y}^2 .
# $$
#
# By hand this is a loop with Adam from the mean code. The rate falls along half a cosine.
#
# ```{admonition} Make a prediction
# Which of the three gives the cleanest digits, and which comes nearest to the real ones?
# ```

# %%
real, labels = draw_initial_images(data, 1, seed)
steps = 40 if smoke else 300
starts = {"mean": mean, "noise": mapped_noise(G, labels, seed)}


def decibel(images):
    """Peak signal-to-noise ratio: 10 more is a tenth of the squared error."""
    return -10 * (images - real).square().mean((1, 2, 3)).log10().mean().item()


def invert_by_hand(steps, lr=0.05):
    w, history = starts["mean"].clone().requires_grad_(), []
    adam, began = torch.optim.Adam([w], betas=(0.9, 0.99)), time.perf_counter()
    for step in range(steps):
        rate = lr * (1 + math.cos(math.pi * step / steps)) / 2
        adam.param_groups[0]["lr"] = rate
        made = G.output(w)  # in [-1, 1], not clamped
        shown = ((made.detach() + 1) / 2).clamp(0, 1)
        history.append((time.perf_counter() - began, decibel(shown)))
        adam.zero_grad()
        (made - (2 * real - 1)).square().mean((1, 2, 3)).sum().backward()
        adam.step()
    return w.detach(), history


by_hand, history = invert_by_hand(steps)
found = {"W+": invert(G, real, labels, steps=steps, seed=seed)}
starts["inversion"] = found["W+"].w
print({name: tuple(codes.shape) for name, codes in starts.items()})

# %% mystnb={"image": {"alt": "Four rows of ten digits: real, mean code, mapped noise, inversion. The mean codes' digits are clean and even, the noise's are different hands, the inversion's resemble the real ones."}}
rows = [real, *(G.synthesize(codes) for codes in starts.values())]
fig = show(torch.cat(rows), 10, None, ["real", *starts])
# %% tags=["hide-cell"]
near(by_hand, starts["inversion"], rtol=1e-2, atol=1e-2)
quality = [decibel(x) for x in rows[1:]]
assert max(quality) == quality[2]

# %% [markdown]
# *Where a distillation may begin.*
#
# ```{admonition} Answer
# :class: dropdown
# The mean code gives the cleanest digits, as an average has no accidents. The inversion comes
# nearest to the real ones, by construction.
# ```
#
# With ten images of a class, would the mean code give ten different images? The distance of two
# images of a class, relative to two real ones:

# %%
two, two_labels = draw_initial_images(data, 2, seed)


def within_class(images):
    first, second = images.unflatten(0, (10, 2)).unbind(1)
    return (first - second).square().mean().sqrt().item()


spread = {
    "mean": within_class(G.synthesize(mean_codes(G, two_labels, 1000, seed))),
    "noise": within_class(G.synthesize(mapped_noise(G, two_labels, seed))),
}
whole = within_class(two)
print({name: f"{100 * d / whole:.0f} %" for name, d in spread.items()})

# %% tags=["hide-cell"]
assert spread["mean"] < spread["noise"] < whole

# %% [markdown]
# No: images of a class begin almost equal. The mean code is for one image per class.
#
# ## How near does an inversion come?
#
# The same real digits, the same number of steps, in four spaces. LD3M's autoencoder, with one pass
# of its encoder, is the last row.
#
# ```{admonition} Make a prediction
# Which space comes nearest to the real digits, and does any pass the encoder?
# ```

# %%
for n in (1, 3, 5):
    found[f"F_{n}"] = invert(G, real, labels, layer=n, steps=steps, seed=seed)
latent_diffusion = load_prior("digits")
with torch.no_grad():
    latent_diffusion.encode(real)  # the first pass also sets things up
    began = time.perf_counter()
    Z = latent_diffusion.encode(real)
    encoder_seconds = time.perf_counter() - began
    decoded = latent_diffusion.decode(Z)
psnr = {name: i.psnr.mean().item() for name, i in found.items()}
print(" < ".join(sorted(psnr, key=psnr.get)))
rebuilt = {
    name: G.synthesize(i.w, features=i.features, layer=int(name[2:] or 0))
    for name, i in found.items()
}
rebuilt["encoder"] = decoded

# %% mystnb={"image": {"alt": "Six rows of ten digits: real, W+, F 1, F 3, F 5, encoder. Further down they resemble the real ones more; the labels give the decibels."}}
names = [f"{n}\n{decibel(x):.0f} dB" for n, x in rebuilt.items()]
rows = torch.cat([real, *rebuilt.values()])
fig = show(rows, 10, None, ["real", *names])
Path(out).mkdir(parents=True, exist_ok=True)
fig.savefig(Path(out) / "reconstructions.png", dpi=100)
# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "PSNR over seconds, logarithmic. A curve rises step by step for W+; its end and those of F 1, F 3 and F 5 are markers, F 5 the highest. The encoder is a star at the far left, after one pass."}}
fig, axis = plot(figsize=(4.6, 3.3))
axis.plot(*zip(*history, strict=True), color=GREY, label="W+, by steps")
marks = zip("os^D", (GREY, PURPLE, BLUE, ORANGE), strict=True)
for (name, i), (marker, colour) in zip(found.items(), marks, strict=True):
    style = {"color": colour, "ms": 8, "label": name}
    axis.plot(i.seconds, psnr[name], marker, **style)
style = {"color": "black", "ms": 14, "label": "encoder"}
axis.plot(encoder_seconds, decibel(decoded), "*", **style)
axis.set(xlabel="seconds for ten digits", ylabel="PSNR, dB", xscale="log")
axis.set_title("What a code of a real digit costs")
handles = axis.get_legend_handles_labels()
_ = fig.legend(*handles, loc="outside lower center", ncols=3)
# %% tags=["hide-cell"]
for name, i in found.items():
    assert abs(decibel(rebuilt[name]) - psnr[name]) < 0.5
    assert i.seconds > 3 * encoder_seconds
assert psnr["W+"] < psnr["F_3"] < psnr["F_5"]

# %% [markdown]
# *How near each inversion comes in the same number of steps, and what it takes. The star: LD3M's
# encoder, one pass.*
#
# ```{admonition} Answer
# :class: dropdown
# The later the layer, the nearer: $F_5$ is hardly bound by what the generator has learned. After 40
# steps no space comes up to the encoder. With the 300 steps of `preset = "cpu"`, $F_5$ does. The
# generator's own card says the same of held-out digits.
# ```
#
# ```{admonition} What this shows, and what not
# :class: ours
# A low error is not the goal. The generator is there to *forbid* images. $F_5$ forbids little, and
# with $n$ as large as the number of layers nearly nothing is left to forbid. Which $n$ is best for
# a distillation is another question; {py:mod}`ld3m_min.experiments.layer_search` answers it on
# validation images.
# ```
#
# ## What the space computes
#
# The package's space holds the learned tensors and makes images of them. Its gradient is the chain
# rule. By hand in two passes: first the images alone and the loss's gradient at them, then the
# generator again with a graph.

# %%
config = presets.preset("smoke", space="glad-f", seed=seed)
config = replace(config, glad=replace(config.glad, layer=5, start="mean"))
space = build_space(config, real, labels, G)
print({name: tuple(p.shape) for name, p in space.parameters.items()})

target = data.normalise(real)


def loss(images):  # any loss on images would do
    return (data.normalise(images) - target).square().sum()


with torch.no_grad():
    images = space.images()  # first pass, no graph
at_images = torch.autograd.functional.vjp(loss, images)[1]
codes = {
    k: p.detach().clone().requires_grad_() for k, p in space.parameters.items()
}
# the codes before layer 5 do not count
padded = F.pad(codes["w"], (0, 0, 5, 0))
again = G.synthesize(padded, features=codes["features"], layer=5)
again.backward(at_images)  # second pass, the chain rule

loss(space.images()).backward()
for name, p in space.parameters.items():
    apart = (p.grad - codes[name].grad).norm() / p.grad.norm()
    print(f"{name}: relative difference of the gradients {apart:.3f}")
    assert apart < 1e-3

# %% [markdown]
# ## Distil
#
# Now a short {term}`DM`, from the mean codes, in $\mathcal{W}^+$ and in $F_5$. The distiller is the
# same as for pixels or LD3M: it sees images and hands back a gradient. The rates were set by hand
# for this page; the experiments of the book search theirs.
#
# ```{admonition} Make a prediction
# $\mathcal{W}^+$ allows only what the generator can draw, and $F_5$ much more. Which set will look
# like digits, and which will have the lower loss?
# ```

# %%
iterations = 20 if smoke else 60
sets, losses = {}, {}
for name, space_name, lr in (("W+", "glad-w", 0.1), ("F_5", "glad-f", 0.03)):
    config = presets.preset(
        "smoke", space=space_name, lr=lr, iterations=iterations
    )
    config = replace(config, seed=seed, glad=replace(config.glad, start="mean"))
    sets[name] = distil(config, data=data, prior=G, progress=False)
    losses[name] = [entry["loss"] for entry in sets[name].history]
for name, made in sets.items():
    shapes = {k: tuple(v.shape) for k, v in sorted(made.state.items())}
    print(name, "saves", shapes)

# %% mystnb={"image": {"alt": "Three rows of ten digits: before, after in W+, after in F 5. All can be read. Those in W+ are clean; those in F 5 have bright spots in the strokes."}}
rows = [G.synthesize(starts["mean"]), *(s.images() for s in sets.values())]
fig = show(
    torch.cat(rows), 10, None, ["before", *(f"after, {n}" for n in sets)]
)
# %% mystnb={"image": {"alt": "The loss of DM over the iterations, for W+ and F 5: two noisy lines that fall at first."}}
fig, axis = plot(figsize=(4.6, 2.5))
for name, values in losses.items():
    axis.plot(values, label=name)
axis.set(xlabel="iteration", ylabel="loss of DM", ylim=(0, None))
axis.set_title("Noisy: each iteration draws a new network")
_ = axis.legend()
# %% tags=["nbval-ignore-output", "hide-cell"]
shares = {n: sum(v[-5:]) / sum(v[:5]) for n, v in losses.items()}
print("loss of the last five iterations over the first five:")
print({name: round(share, 2) for name, share in shares.items()})

# %% [markdown]
# *The digits before and after, and the losses on the way.*
#
# ```{admonition} Answer
# :class: dropdown
# The digits stay digits. In $\mathcal{W}^+$ they stay clean, since every image is one that the
# generator can draw. In $F_5$ the strokes get spots that no digit of the data has: the features
# leave what the early layers would ever give. The authors of GLaD wanted this freedom, because a
# synthetic image need not look real. So short a run says little about which is better.
# ```
#
# ## Exercises
#
# 1. The package never forms the weights $w''$. Why may it divide the output of the convolution
#    instead?
# 2. Invert the digits in $F_7$. Is what comes out a better start?
# 3. Walk from a 0 to a 1 in $\mathcal{W}^+$, and by fading one picture into the other. What is the
#    difference?

# %% [markdown]
# ```{admonition} Solution 1
# :class: dropdown
# The output is linear in the weights, and all weights of an output channel are divided by the same
# number. So $y''_o = y'_o / \sqrt{\sum_{i,k} (s_i w_{oik})^2}$, and the root is
# $\sqrt{\sum_i s_i^2 \sum_k w_{oik}^2}$: a matrix product of $s^2$ with the summed squares.
# ```

# %% tags=["hide-cell"]
plain = by_definition(x, weight, styles, demodulate=False)
roots = (styles.square() @ weight.square().sum((2, 3)).T).sqrt()
divided = plain / roots[:, :, None, None]
largest = (divided - by_definition(x, weight, styles)).abs().max()
print(f"largest difference: {largest:.6f}")
assert largest < 1e-4

# %% [markdown]
# ```{admonition} Solution 2
# :class: dropdown
# It comes nearer still, with more than twenty times the picture's bytes. But one layer is left
# after the features, and the one that makes colours. They know of no digit. Learning there is
# nearly learning pixels.
# ```

# %% tags=["hide-cell"]
far = invert(G, real, labels, layer=7, steps=steps, seed=seed)
numbers = far.features[0].numel() + far.w[0, 7:].numel()
gain = far.psnr.mean().item() - psnr["F_5"]
print(f"F_7: bytes / picture {4 * numbers / real[0].numel():.2f}")
print(f"nearer than F_5 by {gain:.1f} dB")
assert gain > 0

# %% [markdown]
# ```{admonition} Solution 3
# :class: dropdown
# The codes close the hole of the 0, and each picture on the way has bright strokes. The fade shows
# both digits at once, in grey.
# ```

# %% tags=["hide-cell"] mystnb={"image": {"alt": "Two rows of eight pictures from a 0 to a 1. In the first, by codes, the hole of the 0 closes and the strokes stay bright; in the second, by pixels, both digits are seen at once in grey."}}
ends = mean[[0, 1]]
pictures = G.synthesize(ends)
shares = torch.linspace(0, 1, 8)
walk = torch.stack([torch.lerp(*ends, s) for s in shares])
fade = torch.stack([torch.lerp(*pictures, s) for s in shares])
rows = torch.cat([G.synthesize(walk), fade])
fig = show(rows, 8, None, ["codes", "pixels"], scale=0.5)
# %% [markdown]
# **To take away.** A style says how strong each channel of a convolution is, and demodulation keeps
# the whole at one size. $\mathcal{W}^+$ learns a style code for each layer; $F_n$ learns the
# features after layer $n$ too, and is freer the later the layer. A generator has no encoder, so the
# code of a real image costs an optimisation, where LD3M needs one pass.
#
# **Next:** {doc}`../book/method/31_sampling` derives the generator that LD3M takes instead, and
# {doc}`31_derive_the_ld3m_step` computes it.
