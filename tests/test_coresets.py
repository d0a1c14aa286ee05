"""Selections of real images: the right picks, worked out by hand, and whole sets of them."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin

from ld3m_min.compressed import FORMATS
from ld3m_min.config import ARCHITECTURES
from ld3m_min.coresets import METHODS, select
from ld3m_min.data import DataSplits, ImageDataset
from ld3m_min.errors import InputError
from ld3m_min.evaluate import evaluate
from ld3m_min.io.digests import digest
from ld3m_min.presets import eval_preset, preset
from ld3m_min.run import random_real
from ld3m_min.set_index import check_index
from ld3m_min.spaces import draw_initial_images
from ld3m_min.synthetic import SyntheticSet

PLAIN = [m for m in METHODS if m not in FORMATS]  # the others: test_compressed.py
COMPARING = ("herding", "k-center", "k-means")
LINE = (0, 1, 2, 3, 10)  # features of one class, at positions 0 to 4


def splits(counts=(5, 5), size=4):
    """Random images, class after class, so many of each."""
    labels = torch.tensor([c for c, n in enumerate(counts) for _ in range(n)])
    g = torch.Generator().manual_seed(0)
    images = torch.randint(256, (len(labels), 3, size, size), generator=g, dtype=torch.uint8)
    classes = tuple("abc"[: len(counts)])
    parts = [ImageDataset(images, labels, classes, s) for s in ("train", "validation", "test")]
    return DataSplits("points", *parts, mean=(0.5,) * 3, std=(0.25,) * 3)


def column(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


def picks(method, ipc, values, seed=0):
    """Positions chosen from a class of these features; the other class is far off and alike."""
    n = len(values)
    features = torch.as_tensor(np.array(values, dtype=np.float64)).reshape(n, -1)
    both = torch.cat([features, features + 1000])
    made = select(splits((n, n)), ipc, method, seed=seed, features=both)
    found = made.recipe["selection"]["positions"]
    assert len(set(found)) == 2 * ipc and all(i < n for i in found[:ipc])
    assert all(i >= n for i in found[ipc:])
    return found[:ipc]


def gaussian(n=200):
    return np.random.default_rng(0).normal(size=(n, 2))


# herding


def test_herding_by_hand():
    # the mean is 3.2. What is lacking, k * 3.2 - (sum of those taken), and the nearest row left:
    # 3.2 -> 3;  6.4 - 3 = 3.4 -> 2;  9.6 - 5 = 4.6 -> 1 (3.6 away; 10 is 5.4 away);
    # 12.8 - 6 = 6.8 -> 10 (3.2 away; 0 is 6.8 away);  then 0.
    # The rows nearest to the mean, without the sum, would have ended with 0, 10.
    assert picks("herding", 5, LINE) == [3, 2, 1, 4, 0]


def test_herding_in_a_plane_by_hand():
    # corners of a square and a row at its middle, (1, 1), the mean: the middle is first. Then
    # (2, 2) - (1, 1) = (1, 1) lacks: all corners tie, the first is taken: (0, 0). Then
    # (3, 3) - (1, 1) = (2, 2), a corner itself.
    assert picks("herding", 3, [(0, 0), (0, 2), (1, 1), (2, 0), (2, 2)]) == [2, 0, 4]


def test_herding_starts_next_to_the_mean():
    x = gaussian()
    assert picks("herding", 1, x) == [pairwise_distances_argmin(x.mean(0)[None], x)[0]]


def test_herding_keeps_the_mean_as_the_plain_formula_does():
    x, taken = gaussian(), []
    for _ in range(8):
        gaps = [
            np.inf if i in taken else np.linalg.norm(x.mean(0) - x[[*taken, i]].mean(0))
            for i in range(len(x))
        ]
        taken.append(int(np.argmin(gaps)))
    assert picks("herding", 8, x) == taken
    far = np.linalg.norm(x.mean(0) - x[picks("random", 8, x)].mean(0))
    assert np.linalg.norm(x.mean(0) - x[taken].mean(0)) < far / 5


def test_herding_begins_a_longer_list_with_the_shorter_one():
    x = gaussian(30)
    whole = picks("herding", 30, x)
    assert sorted(whole) == list(range(30))
    assert all(picks("herding", n, x) == whole[:n] for n in (1, 2, 7))


# k-center


def test_k_center_by_hand():
    # by the start: the row farthest off, then the one whose nearest taken row is farthest
    after = {
        0: [4, 3],  # 10; then 1, 2, 3 are 1, 2, 3 from 0
        1: [4, 3],  # 10; then 0, 2, 3 are 1, 1, 2 from 1
        2: [4, 0],  # 10; then 0, 1, 3 are 2, 1, 1 from 2
        3: [4, 0],  # 10; then 0, 1, 2 are 3, 2, 1 from 3
        4: [0, 3],  # 0;  then 1, 2, 3 are 1, 2, 3 from 0
    }
    found = [picks("k-center", 3, LINE, seed) for seed in range(30)]
    assert {start for start, *_ in found} == set(after)  # any row may be the first
    assert all(rest == after[start] for start, *rest in found)


@pytest.mark.parametrize("seed", range(3))
def test_k_center_finds_an_outlier_at_once(seed):
    x = np.vstack([gaussian(), [[50.0, 50.0]]])
    assert 200 in picks("k-center", 2, x, seed)
    assert 200 not in picks("herding", 2, x, seed)


# k-means


def test_k_means_by_hand():
    # three groups, whose centres are 1, 11.25 and 40
    assert picks("k-means", 3, (40, 0, 1, 2, 10, 11, 12, 12)) == [0, 2, 5]


def test_k_means_is_scikit_learns():
    centres = np.array([[0, 0], [30, 0], [0, 30], [30, 30]])
    x = np.vstack([c + gaussian(25) * s for c, s in zip(centres, (1, 2, 3, 1), strict=True)])
    theirs = KMeans(4, n_init=10, random_state=5).fit(x).cluster_centers_
    expected = sorted(pairwise_distances_argmin(theirs, x).tolist())
    assert picks("k-means", 4, x) == expected == picks("k-means", 4, x, seed=3)


def test_k_means_takes_no_image_twice(monkeypatch):
    class Found:
        cluster_centers_ = np.array([[0.8], [1.1]])

        def __init__(self, **options):
            assert options["n_clusters"] == 2 and options["n_init"] == 10

        def fit(self, x):
            return self

    # row 1 is nearest to both, at 0.2 and 0.1. The nearer centre, 1.1, has it; then 0.8 is 0.8
    # from 0 and 1.2 from 2. In the order of the centres, 1.1 would have had 2.
    monkeypatch.setattr("sklearn.cluster.KMeans", Found)
    chosen = select(splits((3,)), 2, "k-means", features=column(0, 1, 2))
    assert chosen.recipe["selection"]["positions"] == [0, 1]


# random and class-mean


@pytest.mark.parametrize("seed, ipc", [(0, 1), (0, 10), (7, 10)])
def test_random_is_what_a_distillation_starts_from(digits, seed, ipc):
    made = select(digits, ipc, "random", seed=seed)
    real = random_real(preset("smoke", ipc=ipc, seed=seed), data=digits)
    assert torch.equal(made.pixels, real.pixels) and torch.equal(made.labels, real.labels)
    assert torch.equal(made.pixels, draw_initial_images(digits, ipc, seed).images)
    assert made.recipe.keys() == real.recipe.keys() | {"selection"}
    for part in ("normalisation", "data", "prior", "plan", "backend"):
        assert made.recipe[part] == real.recipe[part]


def test_class_mean_is_the_average_image(digits):
    made = select(digits, 1, "class-mean")
    for label in range(10):
        mean = digits.train.take(digits.train.class_positions(label)).mean(0)
        torch.testing.assert_close(made.pixels[label], mean)
    assert made.recipe["selection"]["positions"] == []
    assert torch.equal(made.pixels, select(digits, 1, "class-mean", seed=3).pixels)


def test_the_mean_of_white_images_is_white():
    data = splits((7, 3))
    data.train.images.fill_(255)
    assert bool((select(data, 1, "class-mean").pixels == 1).all())


# ties, seeds, what is compared


@pytest.mark.parametrize("method, first", [("herding", [0, 1, 2]), ("k-means", [0, 1, 2])])
@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_equal_images_are_taken_by_position(method, first):
    assert picks(method, 3, [5] * 6) == first


def test_ties_fall_to_the_first_position():
    # the mean 1 is as far from 0 as from 2
    assert picks("herding", 1, (2, 0, 2, 0)) == [0]
    # from the middle, 4 and -4 are as far; from an end, the other end is farthest
    starts = {tuple(picks("k-center", 2, (0, 4, -4), seed)) for seed in range(20)}
    assert starts == {(0, 1), (1, 2), (2, 1)}
    # all of one place: always the first one left
    assert all(
        rest == [i for i in range(4) if i != start][:2]
        for start, *rest in (picks("k-center", 3, [5] * 4, seed) for seed in range(10))
    )


@pytest.mark.parametrize("method", PLAIN)
def test_the_same_call_chooses_the_same(digits, method):
    ipc = 1 if method == "class-mean" else 3
    a, b, c = (select(digits, ipc, method, seed=s) for s in (0, 0, 1))
    assert torch.equal(a.pixels, b.pixels)
    assert a.recipe["selection"] == b.recipe["selection"]
    seeds_matter = method in ("random", "k-center")
    assert torch.equal(a.pixels, c.pixels) != seeds_matter or method == "k-means"


@pytest.mark.parametrize("seed", [-1, 2**40])
def test_any_whole_number_is_a_seed(seed):
    assert all(select(splits(), 1, m, seed=seed).recipe["config"]["seed"] == seed for m in PLAIN)


def test_classes_are_drawn_apart_and_alone():
    data = splits((6, 6))
    whole = select(data, 2, features=column(*range(12))).recipe["selection"]["positions"]
    other = select(data, 2, features=column(*range(6), 9, 9, 9, 9, 0, 9))
    assert whole[:2] == other.recipe["selection"]["positions"][:2]  # the other class plays no part


@pytest.mark.parametrize("method", COMPARING)
def test_without_features_pixels_are_compared(digits, method):
    pixels = digits.train.images.flatten(1).double()
    plain, given = select(digits, 3, method), select(digits, 3, method, features=pixels)
    assert torch.equal(plain.pixels, given.pixels)
    ours, theirs = plain.recipe["selection"], given.recipe["selection"]
    assert ours["features"] == "pixels" and theirs["features"] == digest(pixels)
    assert ours["positions"] == theirs["positions"]


def test_features_of_whole_numbers_and_half_precision_are_taken():
    for dtype in (torch.int32, torch.uint8, torch.float16):
        features = column(*LINE, *LINE).to(dtype)
        found = select(splits(), 2, features=features).recipe["selection"]["positions"]
        assert found == [3, 2, 8, 7]


def test_features_nobody_compares_are_not_recorded():
    made = select(splits(), 2, "random", features=column(*range(10)))
    assert made.recipe["selection"]["features"] == "pixels"


# the set


@pytest.mark.parametrize("method", PLAIN)
def test_a_selection_is_saved_and_loaded(digits, method, tmp_path):
    ipc = 1 if method == "class-mean" else 3
    made = select(digits, ipc, method, seed=4)
    made.save(tmp_path / "set")
    found = SyntheticSet.load(tmp_path / "set")
    assert torch.equal(made.pixels, found.pixels) and torch.equal(made.labels, found.labels)
    assert found.classes == digits.classes and found.ipc == ipc and found.recipe == made.recipe
    assert torch.equal(found.regenerate(), made.pixels)
    said = found.recipe["selection"]
    assert said.keys() == {"method", "seed", "features", "positions"}
    assert (said["method"], said["seed"], said["features"]) == (method, 4, "pixels")
    if method != "class-mean":
        positions = torch.tensor(said["positions"])
        assert torch.equal(digits.train.take(positions), found.pixels)
        assert torch.equal(digits.train.labels[positions], found.labels)
        assert len(set(said["positions"])) == 10 * ipc
    assert f"chosen by {method}\n" in (tmp_path / "set" / "README.md").read_text()


def test_the_index_of_a_set_may_say_more(digits, tmp_path):
    index = {"classes": list(digits.classes), "history": [], "sha256": ""}
    check_index(tmp_path, index | {"recipe": select(digits, 1, "class-mean").recipe})


@pytest.mark.parametrize("method", PLAIN)
def test_a_selection_is_evaluated(digits, method):
    made = select(digits, 1, method)
    found = evaluate(made, digits, ("ConvNet",), config=eval_preset("smoke", epochs=1, repeats=1))
    assert 0 <= found.mean("ConvNet") <= 1 and found.distiller in ARCHITECTURES


def test_normalisation_is_the_shared_one():
    data = splits().with_normalisation("reference-mismatch")
    recipe = select(data, 1).recipe
    assert recipe["normalisation"] == {"kind": "shared", "mean": [0.5] * 3, "std": [0.25] * 3}


# what is refused


@pytest.mark.parametrize(
    "options, says",
    [
        ({"method": "herd"}, "unknown selection 'herd'; choose random, herding, k-center, k-means"),
        ({"ipc": 0}, "at least 1 image per class, not ipc = 0"),
        ({"ipc": 2, "method": "class-mean"}, "class-mean has one image per class"),
        ({"ipc": 4}, "class 'b' has 3 training images to choose from, fewer than ipc = 4"),
        ({"ipc": 4, "method": "random"}, "class 'b' has 3 training images"),
        ({"features": torch.zeros(7, 2)}, r"features are \(7, 2\), .* each of the 8 training"),
        ({"features": torch.zeros(8)}, r"features are \(8,\), but must be \(N, D\)"),
        ({"features": torch.zeros(8, 0)}, r"features are \(8, 0\), but must be \(N, D\)"),
        ({"features": torch.full((8, 2), torch.nan)}, "features are not finite"),
        ({"features": torch.full((8, 2), 1e200, dtype=torch.float64)}, "features are not finite"),
        ({"features": torch.zeros(8, 2, dtype=torch.complex64)}, "not finite real numbers"),
        ({"features": torch.zeros(7, 2), "method": "random"}, r"features are \(7, 2\)"),
    ],
)
def test_what_cannot_be_chosen_is_refused(options, says):
    with pytest.raises(InputError, match=says):
        select(splits((5, 3)), **({"ipc": 1} | options))
