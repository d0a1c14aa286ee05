"""The losses that keep an autoencoder sharp, against what they are by definition."""

import torch

from ld3m_min.prior.losses import laplacian, sharp, ssim


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_ssim_of_one_window_is_the_formula():
    x, y = draw(2, 1, 7, 7), draw(2, 1, 7, 7, seed=1)
    for a, b, found in zip(x.flatten(1), y.flatten(1), ssim(x, y), strict=True):
        mx, my = a.mean(), b.mean()
        vx, vy, cov = a.var(correction=0), b.var(correction=0), ((a - mx) * (b - my)).mean()
        c1, c2 = 0.01**2, 0.03**2
        torch.testing.assert_close(
            found, (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
        )


def test_equal_images_have_no_distance():
    x = draw(2, 3, 16, 16)
    torch.testing.assert_close(ssim(x, x), torch.ones(2, dtype=torch.float64))
    assert laplacian(x, x) == 0 and abs(sharp(2 * x - 1, 2 * x - 1)) < 1e-9


def test_the_pyramid_sees_edges_and_no_constant():
    """A constant is below every level; a checkerboard of single pixels is all in the finest one."""
    x = draw(1, 3, 16, 16)
    torch.testing.assert_close(laplacian(x + 0.25, x), torch.zeros((), dtype=torch.float64))
    board = (torch.arange(16)[:, None] + torch.arange(16)[None]) % 2 * 2.0 - 1
    torch.testing.assert_close(
        laplacian(x + 0.1 * board, x), torch.tensor(0.1, dtype=torch.float64)
    )
