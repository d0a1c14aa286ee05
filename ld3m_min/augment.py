"""DSA, the differentiable augmentation of the supplement: six families, one of which is drawn at each call.

An operation is a pure function of the images and of its draw, so the same draw can meet real and synthetic images
(siamese) and a recomputed forward pass. Images are normalised, (B, C, H, W), of any float type and on any device; each
draw is a tensor with one value per image, (B,), or one for all, (1,); u is uniform in [0, 1).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from .errors import InputError


def brightness(x, draw):
    """x + (u - 1/2); draw: u_brightness."""
    (u,) = _values(x, draw, "u_brightness")
    return x + (u - 0.5)


def saturation(x, draw):
    """Distance to the pixel's mean over channels, times 2u; draw: u_saturation."""
    (u,) = _values(x, draw, "u_saturation")
    mean = x.mean(1, keepdim=True)
    return (x - mean) * (2 * u) + mean


def contrast(x, draw):
    """Distance to the image's mean, times u + 1/2; draw: u_contrast."""
    (u,) = _values(x, draw, "u_contrast")
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (u + 0.5) + mean


def crop(x, draw):
    """y[r, c] = x[r + shift_row, c + shift_col], zero outside; draw: shift_row, shift_col, whole numbers."""
    down, right = _values(x, draw, "shift_row", "shift_col")
    row, col = _pixels(x)
    return _pick(x, row + down.long(), col + right.long())


def cutout(x, draw):
    """Zero in a rectangle of half the side, cut off at the border; draw: center_row, center_col, whole numbers."""
    inside = []
    centers = _values(x, draw, "center_row", "center_col")
    for position, center, side in zip(_pixels(x), centers, map(_half, x.shape[2:]), strict=True):
        start = center.long() - side // 2
        inside.append((position >= start) & (position < start + side))
    return torch.where(inside[0] & inside[1], 0.0, x)


def flip(x, draw):
    """Mirror left and right where u < 1/2; draw: u_flip."""
    (u,) = _values(x, draw, "u_flip")
    return torch.where(u < 0.5, x.flip(3), x)


def scale(x, draw):
    """Sample at (s_y row, s_x column), s in [1/1.2, 1.2), about the centre; draw: u_scale_x, u_scale_y."""
    s_x, s_y = (u * (1.2 - 1 / 1.2) + 1 / 1.2 for u in _values(x, draw, "u_scale_x", "u_scale_y"))
    row, col = _pixels(x, normalised=True)
    return _sample(x, s_y * row, s_x * col)


def rotate(x, draw):
    """Turn about the centre by an angle in [-15, 15) degrees; draw: u_rotate."""
    (u,) = _values(x, draw, "u_rotate")
    row, col = _pixels(x, normalised=True)
    angle = (u - 0.5) * (2 * 15 * math.pi / 180)
    return _sample(x, angle.sin() * col + angle.cos() * row, angle.cos() * col - angle.sin() * row)


FAMILIES = {
    "color": {brightness: ("u_brightness",), saturation: ("u_saturation",), contrast: ("u_contrast",)},
    "crop": {crop: ("shift_row", "shift_col")},
    "cutout": {cutout: ("center_row", "center_col")},
    "flip": {flip: ("u_flip",)},
    "scale": {scale: ("u_scale_x", "u_scale_y")},
    "rotate": {rotate: ("u_rotate",)},
}


@dataclass(frozen=True)
class Draw:
    """What one call of DSA drew: the family ("none" is the identity) and its values by name, each (n,) or (1,)."""

    family: str
    values: Mapping[str, torch.Tensor]

    def to(self, device):
        """The same draw with its values on `device`, so that using it again moves nothing."""
        return Draw(self.family, {name: value.to(device) for name, value in self.values.items()})


class DSA:
    """Augmentation by one family per call, `strategy` being their names joined by "_"; "none" or "" is the identity.

    `dsa(x, generator)` is `dsa.apply(x, dsa.draw(len(x), x.shape[2:], generator))`; take the two steps apart to meet
    several batches, or a recomputation, with one draw. ValueError lists the families where one is unknown.
    """

    def __init__(self, strategy="color_crop_cutout_flip_scale_rotate"):
        self.strategy = strategy
        self.families = () if strategy in ("", "none") else tuple(strategy.split("_"))
        unknown = [name for name in self.families if name not in FAMILIES]
        if unknown:
            raise InputError(f"unknown augmentation {unknown[0]!r} in strategy {strategy!r}: join some of "
                             f"{', '.join(FAMILIES)} by '_', or use 'none'")

    def __call__(self, x, generator, siamese=False):
        """Augmented images like x (B, C, H, W); siamese: all images share one draw."""
        return self.apply(x, self.draw(len(x), x.shape[2:], generator, siamese=siamese))

    def draw(self, n, size, generator, *, siamese=False):
        """The draw for n images of `size` pixels, a side or (H, W). A siamese one fits any number of images."""
        if not self.families:
            return Draw("none", {})
        family = self.families[int(torch.randint(len(self.families), (), generator=generator))]
        height, width = (size, size) if isinstance(size, int) else size
        values = {}
        for name in (name for names in FAMILIES[family].values() for name in names):
            values[name] = _uniform(name, 1 if siamese else n, height if name.endswith("row") else width, generator)
        return Draw(family, values)

    def apply(self, x, draw):
        """x (B, C, H, W) augmented as `draw` says; ValueError where the draw is for another number of images."""
        for operation in FAMILIES.get(draw.family, ()):
            x = operation(x, draw.values)
        return x

    def apply_each(self, x, draws, counts):
        """x (N, C, H, W) whose first counts[0] images meet draws[0], the next counts[1] draws[1], and so on.

        The same values as `apply` on each part, in one call for each family among the draws. ValueError where the counts
        don't add up to N.
        """
        if sum(counts) != len(x):
            raise InputError(f"the counts of the draws add up to {sum(counts)}, but there are {len(x)} images")
        families = {}
        for part, draw in enumerate(draws):
            families.setdefault(draw.family, []).append(part)
        if len(families) == 1:
            return self.apply(x, _join(draws, counts))
        parts = [None] * len(draws)
        pieces = x.split(list(counts))
        for which in families.values():
            together = _join([draws[i] for i in which], [counts[i] for i in which])
            done = self.apply(torch.cat([pieces[i] for i in which]), together)
            for i, piece in zip(which, done.split([counts[i] for i in which]), strict=True):
                parts[i] = piece
        return torch.cat(parts)


def _join(draws, counts):
    """One draw, with a value per image, for images that follow one another; all are of one family."""
    values = {name: torch.cat([d.values[name].expand(n) for d, n in zip(draws, counts, strict=True)])
              for name in draws[0].values}
    return Draw(draws[0].family, values)


def _uniform(name, n, side, generator):
    if name.startswith("shift"):  # an eighth of the side, rounded, in both directions
        reach = int(side / 8 + 0.5)
        return torch.randint(-reach, reach + 1, (n,), generator=generator)
    if name.startswith("center"):  # one more place where the hole's side is even
        return torch.randint(side + 1 - _half(side) % 2, (n,), generator=generator)
    return torch.rand(n, generator=generator, dtype=torch.float32)


def _half(side):
    return int(side / 2 + 0.5)


def _values(x, draw, *names):
    """The draw's tensors on x's device, each (B or 1, 1, 1, 1); draw: by name, or one tensor per name in order."""
    if isinstance(draw, Mapping):
        draw = [draw[name] for name in names if name in draw]
    elif len(names) == 1:
        draw = [draw]
    if x.ndim != 4 or not x.is_floating_point():
        raise InputError(f"augmentation needs float images (B, C, H, W), not {x.dtype} of shape {tuple(x.shape)}")
    values = [torch.as_tensor(value, device=x.device).reshape(-1, 1, 1, 1) for value in draw]
    values = [value.to(x.dtype) if value.is_floating_point() else value for value in values]
    if len(values) != len(names) or any(len(value) not in (1, len(x)) for value in values):
        raise InputError(f"the draw must hold {' and '.join(names)}, each with {len(x)} values (one per image) or a "
                         f"single one, but holds {[len(value) for value in values]} values")
    return values


def _pixels(x, normalised=False):
    """Row (H, 1) and column (1, W) of each pixel; normalised: corner pixels at -1 and 1."""
    row, col = (torch.arange(n, device=x.device) for n in x.shape[2:])
    if normalised:
        row, col = (2 * p.to(x.dtype) / max(len(p) - 1, 1) - 1 for p in (row, col))
    return row[:, None], col[None, :]


def _pick(x, row, col):
    """x at whole positions (B or 1, 1, H, W), zero outside."""
    height, width = x.shape[2:]
    row, col = torch.broadcast_tensors(row, col)
    inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
    index = row.clamp(0, height - 1) * width + col.clamp(0, width - 1)
    picked = x.flatten(2).gather(2, index.flatten(2).expand(*x.shape[:2], -1)).view_as(x)
    return torch.where(inside, picked, 0.0)


def _sample(x, row, col):
    """x at normalised positions, bilinear; by gathering, which every version and device differentiates twice."""
    row, col = ((p + 1) * ((n - 1) / 2) for p, n in zip((row, col), x.shape[2:], strict=True))
    top, left = row.floor(), col.floor()
    down, right = row - top, col - left
    return sum(
        _pick(x, top.long() + i, left.long() + j) * (down if i else 1 - down) * (right if j else 1 - right)
        for i in (0, 1) for j in (0, 1))
