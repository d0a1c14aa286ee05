"""DSA, the differentiable augmentation of the supplement: each call draws one of six families.

An operation is a pure function of the images and of its draw. So the same draw can meet real and
synthetic images (siamese), and a recomputed forward pass. Images are normalised, (B, C, H, W), of
any float type and on any device. A draw has tensors with one value per image, (B,), or one for all,
(1,); u is uniform in [0, 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from ld3m_min.errors import InputError

# the values of a draw: by name, one tensor per name in order, or a single one
Values = Mapping[str, Tensor] | Sequence[Tensor] | Tensor
Operation = Callable[[Tensor, Values], Tensor]


def brightness(x: Tensor, draw: Values) -> Float[Tensor, "B C H W"]:
    """Images plus u - 1/2; draw: u_brightness.

    Example:
        >>> import torch
        >>> from ld3m_min.augment import brightness
        >>> images = torch.tensor([0.0, 0.25, 0.5, 1.0]).view(1, 1, 2, 2)
        >>> brightness(images, torch.tensor([0.75])).flatten().tolist()
        [0.25, 0.5, 0.75, 1.25]
    """
    (u,) = _values(x, draw, "u_brightness")
    return x + (u - 0.5)


def saturation(x: Tensor, draw: Values) -> Float[Tensor, "B C H W"]:
    """Distance to the pixel's mean over channels, times 2u; draw: u_saturation.

    Example:
        >>> import torch
        >>> from ld3m_min.augment import saturation
        >>> pixel = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1)
        >>> draws = torch.tensor([[0.0], [0.75]])  # the first one leaves no colour
        >>> [saturation(pixel, u).flatten().tolist() for u in draws]
        [[0.5, 0.5, 0.5], [-0.25, 0.5, 1.25]]
    """
    (u,) = _values(x, draw, "u_saturation")
    mean = x.mean(1, keepdim=True)
    return (x - mean) * (2 * u) + mean


def contrast(x: Tensor, draw: Values) -> Float[Tensor, "B C H W"]:
    """Distance to the image's mean, times u + 1/2; draw: u_contrast.

    Example:
        >>> import torch
        >>> from ld3m_min.augment import contrast
        >>> images = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
        >>> contrast(images, torch.tensor([0.0])).flatten().tolist()
        [0.25, 0.75]
    """
    (u,) = _values(x, draw, "u_contrast")
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (u + 0.5) + mean


def crop(x: Tensor, draw: Values) -> Float[Tensor, "B C H W"]:
    """Pixel (r + shift_row, c + shift_col) at (r, c), zero outside; draw: shift_row, shift_col.

    Example:
        >>> import torch
        >>> from ld3m_min.augment import crop
        >>> images = torch.arange(9.0).view(1, 1, 3, 3)
        >>> shift = {"shift_row": torch.tensor([0]), "shift_col": torch.tensor([1])}
        >>> crop(images, shift)[0, 0]
        tensor([[1., 2., 0.],
                [4., 5., 0.],
                [7., 8., 0.]])
    """
    down, right = _values(x, draw, "shift_row", "shift_col")
    row, col = _pixels(x)
    return _pick(x, row + down.long(), col + right.long())


def cutout(x: Tensor, draw: Values) -> Float[Tensor, "B C H W"]:
    """Zero in a rectangle of half the side, cut off at the border; draw: center_row, center_col.

    Example:
        >>> import torch
        >>> from ld3m_min.augment import cutout
        >>> center = {"center_row": torch.tensor([1]), "center_col": torch.tensor([3])}
        >>> cutout(torch.ones(1, 1, 4, 4), center)[0, 0]
        tensor([[1., 1., 0., 0.],
                [1., 1., 0., 0.],
                [1., 1., 1., 1.],
                [1., 1., 1., 1.]])
    """
    inside = []
    centers = _values(x, draw, "center_row", "center_col")
    for position, center, side in zip(_pixels(x), centers, map(_half, x.shape[2:]), strict=True):
        start = center.long() - side // 2
        inside.append((position >= start) & (position < start + side))
    return torch.where(inside[0] & inside[1], 0.0, x)


def flip(x: Tensor, draw: Values) -> Float[Tensor, "B C H W"]:
    """Mirror left and right where u < 1/2; draw: u_flip.

    Example:
        >>> import torch
        >>> from ld3m_min.augment import flip
        >>> images = torch.tensor([[1, 2, 3], [1, 2, 3]]).view(2, 1, 1, 3).float()
        >>> flip(images, torch.tensor([0.2, 0.8])).flatten(1).tolist()
        [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]
    """
    (u,) = _values(x, draw, "u_flip")
    return torch.where(u < 0.5, x.flip(3), x)


def scale(x: Tensor, draw: Values) -> Float[Tensor, "B C H W"]:
    """Sample at (s_y row, s_x column) about the centre, s in [1/1.2, 1.2).

    The draw has u_scale_x and u_scale_y.

    Example:
        >>> import torch
        >>> from ld3m_min.augment import scale
        >>> images = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).expand(1, 1, 5, 5)
        >>> draw = dict.fromkeys(("u_scale_x", "u_scale_y"), torch.zeros(1))
        >>> [round(x, 2) for x in scale(images, draw)[0, 0, 2].tolist()]
        [-1.67, -0.83, 0.0, 0.83, 1.67]
    """
    s_x, s_y = (u * (1.2 - 1 / 1.2) + 1 / 1.2 for u in _values(x, draw, "u_scale_x", "u_scale_y"))
    row, col = _pixels(x, normalised=True)
    return _sample(x, s_y * row, s_x * col)


def rotate(x: Tensor, draw: Values) -> Float[Tensor, "B C H W"]:
    """Turn about the centre by an angle in [-15, 15) degrees; draw: u_rotate.

    Example:
        >>> import torch
        >>> from ld3m_min.augment import rotate
        >>> images = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).expand(1, 1, 5, 5)
        >>> turned = rotate(images, torch.zeros(1))  # by -15 degrees
        >>> [round(x, 2) for x in turned[0, 0, 2].tolist()]
        [-1.93, -0.97, 0.0, 0.97, 1.93]
    """
    (u,) = _values(x, draw, "u_rotate")
    row, col = _pixels(x, normalised=True)
    angle = (u - 0.5) * (2 * 15 * math.pi / 180)
    return _sample(x, angle.sin() * col + angle.cos() * row, angle.cos() * col - angle.sin() * row)


# the operations of each family, in their order, and the values that each of them takes
FAMILIES: dict[str, dict[Operation, tuple[str, ...]]] = {
    "color": {
        brightness: ("u_brightness",),
        saturation: ("u_saturation",),
        contrast: ("u_contrast",),
    },
    "crop": {crop: ("shift_row", "shift_col")},
    "cutout": {cutout: ("center_row", "center_col")},
    "flip": {flip: ("u_flip",)},
    "scale": {scale: ("u_scale_x", "u_scale_y")},
    "rotate": {rotate: ("u_rotate",)},
}


@dataclass(frozen=True)
class Draw:
    """What one call of DSA drew.

    Attributes:
        family: "none" is the identity.
        values: by name, each with one value per image or a single one.
    """

    family: str
    values: Mapping[str, Shaped[Tensor, " n"]]

    def to(self, device: torch.device | str) -> Draw:
        """The same draw with its values on `device`, so that using it again moves nothing."""
        return Draw(self.family, {name: value.to(device) for name, value in self.values.items()})

    def __getitem__(self, images: slice) -> Draw:
        """The draw of some of the images; what all images share stays."""
        values = {k: v[images] if len(v) > 1 else v for k, v in self.values.items()}
        return Draw(self.family, values)


class DSA:
    """Augmentation by one family per call.

    `dsa(x, generator)` is `dsa.apply(x, dsa.draw(len(x), x.shape[2:], generator))`. Take the two
    steps apart to meet several batches, or a recomputation, with one draw.

    Args:
        strategy: names of the families, joined by "_"; "none" or "" is the identity.

    Raises:
        InputError: a family is unknown; lists those that are known.

    Example:
        >>> import torch
        >>> from ld3m_min import DSA
        >>> dsa, real = DSA("color_crop_flip"), torch.rand(5, 3, 16, 16)
        >>> tuple(dsa(real, torch.Generator(), siamese=True).shape)
        (5, 3, 16, 16)
        >>> draw = dsa.draw(1, 16, torch.Generator(), siamese=True)
        >>> [len(dsa.apply(images, draw)) for images in (real, real[:2])]
        [5, 2]
    """

    def __init__(self, strategy: str = "color_crop_cutout_flip_scale_rotate") -> None:
        self.strategy = strategy
        self.families = () if strategy in ("", "none") else tuple(strategy.split("_"))
        unknown = [name for name in self.families if name not in FAMILIES]
        if unknown:
            raise InputError(
                f"unknown augmentation {unknown[0]!r} in strategy {strategy!r}: join some of "
                f"{', '.join(FAMILIES)} by '_', or use 'none'"
            )

    def __call__(
        self, x: Tensor, generator: torch.Generator | None, siamese: bool = False
    ) -> Float[Tensor, "B ..."]:
        """Draw and apply.

        Args:
            x: normalised images, (B, C, H, W).
            generator: on the CPU; None for PyTorch's own.
            siamese: all images share one draw.

        Returns:
            The augmented images.
        """
        return self.apply(x, self.draw(len(x), x.shape[2:], generator, siamese=siamese))

    def draw(
        self,
        n: int,
        size: int | Sequence[int],
        generator: torch.Generator | None,
        *,
        siamese: bool = False,
    ) -> Draw:
        """The draw for some images.

        Args:
            n: number of images.
            size: their side, or (H, W), in pixels.
            generator: on the CPU; None for PyTorch's own.
            siamese: all images share one draw, which then fits any number of images.

        Returns:
            The draw, on the CPU.
        """
        if not self.families:
            return Draw("none", {})
        family = self.families[int(torch.randint(len(self.families), (), generator=generator))]
        height, width = (size, size) if isinstance(size, int) else size
        values = {}
        for name in (name for names in FAMILIES[family].values() for name in names):
            side = height if name.endswith("row") else width
            values[name] = _drawn(name, 1 if siamese else n, side, generator)
        return Draw(family, values)

    def apply(self, x: Tensor, draw: Draw) -> Float[Tensor, "B ..."]:
        """Augment images as a draw says.

        Args:
            x: normalised images, (B, C, H, W); anything for the identity.
            draw: what :meth:`draw` gave.

        Returns:
            The augmented images.

        Raises:
            InputError: the draw is for another number of images.
        """
        for operation in FAMILIES.get(draw.family, ()):
            x = operation(x, draw.values)
        return x

    def apply_each(
        self, x: Tensor, draws: Sequence[Draw], counts: Sequence[int]
    ) -> Float[Tensor, "N C H W"]:
        """Augment groups of images, each by its own draw.

        The values are those of :meth:`apply` on each group, in one call for each family.

        Args:
            x: normalised images, (N, C, H, W), group after group.
            draws: one for each group.
            counts: images of each group.

        Returns:
            The augmented images.

        Raises:
            InputError: the counts do not add up to N.
        """
        if sum(counts) != len(x):
            raise InputError(
                f"the counts of the draws add up to {sum(counts)}, but there are {len(x)} images"
            )
        families: dict[str, list[int]] = {}
        for group, draw in enumerate(draws):
            families.setdefault(draw.family, []).append(group)
        if len(families) == 1:
            return self.apply(x, _join(draws, counts))
        pieces = list(torch.split(x, list(counts)))
        for groups in families.values():
            sizes = [counts[i] for i in groups]
            together = _join([draws[i] for i in groups], sizes)
            done = self.apply(torch.cat([pieces[i] for i in groups]), together)
            for i, piece in zip(groups, torch.split(done, sizes), strict=True):
                pieces[i] = piece
        return torch.cat(pieces)


def _join(draws: Sequence[Draw], counts: Sequence[int]) -> Draw:
    """One draw, with a value per image, for groups that follow one another; all of one family."""
    values = {
        name: torch.cat([d.values[name].expand(n) for d, n in zip(draws, counts, strict=True)])
        for name in draws[0].values
    }
    return Draw(draws[0].family, values)


def _drawn(name: str, n: int, side: int, generator: torch.Generator | None) -> Shaped[Tensor, " n"]:
    """The values that a name stands for, for n images of this side in pixels."""
    if name.startswith("shift"):  # an eighth of the side, rounded, in both directions
        reach = int(side / 8 + 0.5)
        return torch.randint(-reach, reach + 1, (n,), generator=generator)
    if name.startswith("center"):  # one more place where the hole's side is even
        return torch.randint(side + 1 - _half(side) % 2, (n,), generator=generator)
    return torch.rand(n, generator=generator, dtype=torch.float32)


def _half(side: int) -> int:
    return int(side / 2 + 0.5)


def _values(x: Tensor, draw: Values, *names: str) -> list[Shaped[Tensor, "_ 1 1 1"]]:
    """The values of a draw on the images' device, one tensor per name.

    Raises:
        InputError: the images are no float images, or the draw does not hold these values.
    """
    if isinstance(draw, Mapping):
        given = [draw[name] for name in names if name in draw]
    else:
        given = [draw] if isinstance(draw, Tensor) and len(names) == 1 else list(draw)
    if x.ndim != 4 or not x.is_floating_point():
        raise InputError(
            f"augmentation needs float images (B, C, H, W), not {x.dtype} of shape {tuple(x.shape)}"
        )
    values = [torch.as_tensor(value, device=x.device).reshape(-1, 1, 1, 1) for value in given]
    values = [value.to(x.dtype) if value.is_floating_point() else value for value in values]
    if len(values) != len(names) or any(len(value) not in (1, len(x)) for value in values):
        raise InputError(
            f"the draw must hold {' and '.join(names)}, each with {len(x)} values (one per image) "
            f"or a single one, but holds {[len(value) for value in values]} values"
        )
    return values


def _pixels(
    x: Tensor, normalised: bool = False
) -> tuple[Shaped[Tensor, "H 1"], Shaped[Tensor, "1 W"]]:
    """Row and column of each pixel.

    Args:
        x: images, (B, C, H, W).
        normalised: corner pixels are at -1 and 1, in place of whole numbers.

    Returns:
        Rows and columns.
    """
    row, col = (torch.arange(n, device=x.device) for n in x.shape[2:])
    if normalised:
        row, col = (2 * p.to(x.dtype) / max(len(p) - 1, 1) - 1 for p in (row, col))
    return row[:, None], col[None, :]


def _pick(
    x: Float[Tensor, "B C H W"], row: Int[Tensor, " ..."], col: Int[Tensor, " ..."]
) -> Float[Tensor, "B C H W"]:
    """Images at whole positions (B or 1, 1, H, W), zero outside."""
    height, width = x.shape[2:]
    inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
    index = row.clamp(0, height - 1) * width + col.clamp(0, width - 1)
    picked = x.flatten(2).gather(2, index.flatten(2).expand(*x.shape[:2], -1)).view_as(x)
    return torch.where(inside, picked, 0.0)


def _sample(
    x: Float[Tensor, "B C H W"], row: Float[Tensor, " ..."], col: Float[Tensor, " ..."]
) -> Float[Tensor, "B C H W"]:
    """Images at normalised positions, bilinear.

    It gathers, because every version and device differentiates that twice.
    """
    row, col = ((p + 1) * ((n - 1) / 2) for p, n in zip((row, col), x.shape[2:], strict=True))
    top, left = row.floor(), col.floor()
    down, right = row - top, col - left
    corners = (
        _pick(x, top.long() + i, left.long() + j)
        * (down if i else 1 - down)
        * (right if j else 1 - right)
        for i in (0, 1)
        for j in (0, 1)
    )
    return sum(corners, start=x.new_zeros(()))
