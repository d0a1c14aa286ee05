"""What selections compare images by: latents and embeddings, a row for each training image."""

import pytest
import torch

from ld3m_min.coresets import select
from ld3m_min.features import latent_features, network_features
from ld3m_min.io.digests import digest


def test_latents_are_means_of_cells(digits, tiny_prior):
    found = latent_features(digits, tiny_prior)
    z = tiny_prior.encode(digits.train.take(torch.tensor([700])))
    assert z.shape[2:] == (16, 16) or z.shape[2:] == (8, 8)
    side = z.shape[-1] // 4
    by_hand = [
        z[0, k, i * side : (i + 1) * side, j * side : (j + 1) * side].mean()
        for k in range(z.shape[1])
        for i in range(4)
        for j in range(4)
    ]
    assert found.rows.shape == (len(digits.train), len(by_hand))
    torch.testing.assert_close(found.rows[700], torch.stack(by_hand))
    assert tiny_prior.networks_digest[:12] in found.about


@pytest.fixture(scope="module")
def embedded(digits):
    return network_features(digits, epochs=3, width=16, lr=0.1, seed=2)


def nearest_mean(rows, data):
    """Share of training images whose class's mean is the nearest one."""
    rows = rows.double()
    means = torch.stack([rows[data.train.labels == k].mean(0) for k in range(10)])
    return float((torch.cdist(rows, means).argmin(1) == data.train.labels).double().mean())


def test_a_trained_networks_embeddings_tell_the_classes_apart(digits, embedded):
    fresh = network_features(digits, epochs=1, width=16, lr=1e-9, seed=2)
    assert len(embedded.rows) == len(digits.train)
    assert nearest_mean(embedded.rows, digits) > max(0.9, nearest_mean(fresh.rows, digits))


def test_the_same_seed_gives_the_same_network(digits):
    a, b, c = (network_features(digits, epochs=1, width=8, seed=s) for s in (0, 0, 1))
    assert torch.equal(a.rows, b.rows) and not torch.equal(a.rows, c.rows)


def test_a_recipe_says_what_images_were_compared_by(digits, embedded):
    made = select(digits, 2, "herding", features=embedded)
    said = made.recipe["selection"]
    assert said["features"] == f"{embedded.about}, {digest(embedded.rows)}"
    assert "width 16, 3 epochs at 0.1, seed 2" in said["features"]
    bare = select(digits, 2, "herding", features=embedded.rows).recipe["selection"]
    assert bare["positions"] == said["positions"]
    assert (
        select(digits, 2, "random", features=embedded).recipe["selection"]["features"] == "pixels"
    )
