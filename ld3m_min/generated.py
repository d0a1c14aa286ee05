"""Sets that a prior draws, where nothing is distilled (sections 4.1 and 5).

All of them take one prior, one sampler and one guidance, so that they can be compared with each
other and with LD3M. What differs is where a chain starts ("d4m"), where it is pulled to ("mgd"), or
how the prior was fine-tuned before ("minimax").
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ld3m_min.backprop import ONE_PASS
from ld3m_min.config import DistilConfig
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.guidance import check_pull, from_the_middle, towards
from ld3m_min.io.digests import digest
from ld3m_min.io.modes import ordinary_modes
from ld3m_min.io.seeds import seeded
from ld3m_min.prepare import Setup, prepare
from ld3m_min.prior.checks import class_conditional
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.recipe import recipe
from ld3m_min.residual import NO_RESIDUAL
from ld3m_min.sampler import SamplerConfig, denoise
from ld3m_min.spaces.autoencoder import initial_latents
from ld3m_min.spaces.ld3m import LD3MSpace
from ld3m_min.spaces.pixel import PixelSpace
from ld3m_min.synthetic import SyntheticSet


def sampled(config: DistilConfig, data: DataSplits, prior: object) -> SyntheticSet:
    """Ordinary samples of a class-conditional prior, `config.ipc` of each class.

    The chain starts from pure noise: it is LD3M's, with latent codes Z of zero. So a saved set
    makes its images again from its noise.

    Args:
        config: says the sampler, the images per class, and the seed of the noise.
        data: whose classes are drawn; none of its images is looked at, beyond their size.
        prior: class-conditional, on the device where it is to draw.

    Returns:
        The set, on the CPU; its recipe has an entry "drawn".

    Raises:
        InputError: the prior is not class-conditional, or does not fit the classes or the size of
            the data.
    """
    return _sampled("sampled", config, data, prior)


def minimax(config: DistilConfig, data: DataSplits, prior: object) -> SyntheticSet:
    """Samples of a prior that was fine-tuned by Minimax's criteria (section 5).

    They are drawn as :func:`sampled` draws; the difference is in the prior, which
    :func:`ld3m_min.prior.minimax.fine_tune` has made.

    Args:
        config: says the sampler, the images per class, and the seed of the noise.
        data: whose classes are drawn.
        prior: fine-tuned, on the device where it is to draw.

    Returns:
        The set, on the CPU; its recipe has an entry "drawn".

    Raises:
        InputError: as :func:`sampled`.
    """
    return _sampled("minimax", config, data, prior)


@ordinary_modes()
@torch.no_grad()
def d4m(
    config: DistilConfig, data: DataSplits, prior: object, *, strength: float = 0.7
) -> SyntheticSet:
    """Centres of clusters of real latents, noised and denoised again (D4M, arXiv 2407.15138).

    The latents of each class are clustered by k-means, k = `config.ipc`. Each centre is noised to
    `strength` and denoised with guidance by our own sampler, without fresh noise (eta 0) and
    without a residual. A strength near 0 gives the decoded centres; at 1 the chain starts from pure
    noise, and is that of :func:`sampled`. D4M takes Stable Diffusion, guidance 8 and soft labels;
    here prior, guidance and labels are those of the other systems.

    The start in the middle of a chain is not in LD3M's space. So the set holds its images as
    pixels, and its recipe's entry "drawn" has what they were drawn by: strength, seed, and digests
    of the prior and of the centres.

    Args:
        config: says steps and guidance of the sampler, the images per class, and the seed of the
            noise and of scikit-learn.
        data: its training split is clustered.
        prior: class-conditional, on the device where it is to draw.
        strength: how far the centres are noised, in (0, 1].

    Returns:
        The set, on the CPU.

    Raises:
        InputError: the strength is out of range, a class has fewer images than clusters, or as
            :func:`sampled`.
    """
    began = time.perf_counter()
    start = _start("d4m", config, data, prior)
    apply = from_the_middle(start.prior, start.noise, start.sampler, strength)
    centres = cluster_centres(start.prior, start.data, config.ipc, config.seed)
    # gamma_T is not 0: at strength 1 some of the centres would be left
    Z = centres if strength < 1 else torch.zeros_like(centres)
    z = denoise(start.prior, Z, start.c, start.noise, start.sampler, apply=apply)
    settings = {"strength": strength, "centres": digest(centres)}
    return _as_pixels("d4m", start, z, settings, began)


@ordinary_modes()
@torch.no_grad()
def mgd(
    config: DistilConfig,
    data: DataSplits,
    prior: object,
    *,
    scale: float = 0.1,
    until: float = 0.5,
) -> SyntheticSet:
    """Samples that are pulled to the modes of their class (MGD3, arXiv 2505.18963).

    The modes are the centres of :func:`d4m`. The chain starts from the noise of :func:`sampled`; in
    its first steps the predicted clean latent is pulled to the image's mode, by the formula of
    :func:`ld3m_min.guidance.towards`. There is no fresh noise (eta 0), which its authors find as
    good, and no residual.

    The modes are not in LD3M's space. So the set holds its images as pixels, and its recipe's entry
    "drawn" has what they were drawn by: scale, share of steps, seed, and digests of the prior and
    of the centres.

    Args:
        config: says steps and guidance of the sampler, the images per class, and the seed of the
            noise and of scikit-learn.
        data: its training split is clustered.
        prior: class-conditional, on the device where it is to draw.
        scale: lambda; 0 gives the images of :func:`sampled`, bit for bit.
        until: share of the steps that are guided.

    Returns:
        The set, on the CPU.

    Raises:
        InputError: a negative scale, a share outside [0, 1], a class with fewer images than
            clusters, or as :func:`sampled`.
    """
    began = time.perf_counter()
    check_pull(scale, until)
    start = _start("mgd", config, data, prior)
    centres = cluster_centres(start.prior, start.data, config.ipc, config.seed)
    apply = towards(start.prior, centres, start.sampler, scale=scale, until=until)
    nothing = torch.zeros_like(centres)
    z = denoise(start.prior, nothing, start.c, start.noise, start.sampler, apply=apply)
    settings = {"scale": scale, "until": until, "centres": digest(centres)}
    return _as_pixels("mgd", start, z, settings, began)


@torch.no_grad()
def cluster_centres(
    prior: LatentDiffusionPrior, data: DataSplits, ipc: int, seed: int
) -> Float[Tensor, "B c h w"]:
    """Centres of `ipc` clusters of each class's encoder latents, class by class.

    With many threads, scikit-learn rounds centres in no fixed order.

    Args:
        prior: whose autoencoder encodes.
        data: its training split is clustered.
        ipc: clusters per class, at most as many as a class has images.
        seed: of scikit-learn.
    """
    from sklearn.cluster import KMeans

    centres = []
    for label in range(len(data.classes)):
        images = data.train.take(data.train.class_positions(label)).to(prior.device)
        latents = initial_latents(prior, images)
        drawn = torch.randint(2**31, (1,), generator=seeded(seed, "cluster centres", label))
        means = KMeans(n_clusters=ipc, n_init=10, random_state=int(drawn))
        found = means.fit(latents.flatten(1).double().cpu().numpy()).cluster_centers_
        centres.append(torch.from_numpy(found).to(latents).view(ipc, *latents.shape[1:]))
    return torch.cat(centres)


@dataclass(frozen=True)
class _Start:
    """What every chain starts from: the prior for these classes, its conditioning, the noise."""

    setup: Setup
    prior: LatentDiffusionPrior
    c: Float[Tensor, "B L D"]
    noise: Float[Tensor, "B c h w"]

    @property
    def sampler(self) -> SamplerConfig:
        """Of the chain."""
        return self.setup.config.sampler

    @property
    def data(self) -> DataSplits:
        """On the prior's device."""
        return self.setup.data


def _start(method: str, config: DistilConfig, data: DataSplits, given: object) -> _Start:
    """The start of a chain without fresh noise and residual, or InputError where none can be."""
    plain = replace(config.sampler, eta=0.0, residual=NO_RESIDUAL)
    return _given(method, replace(config, sampler=plain), data, given)


def _given(method: str, config: DistilConfig, data: DataSplits, given: object) -> _Start:
    """As `_start`, with the sampler of the configuration."""
    prior = class_conditional(given, method)
    config = replace(config, space="ld3m", iterations=0, plan=ONE_PASS)
    setup = prepare(config, data, prior, device=prior.device, progress=False)
    assert isinstance(setup.prior, LatentDiffusionPrior), "the space ld3m has one"
    state = setup.space.state()
    return _Start(setup, setup.prior, state["c"], state["noise"])


@ordinary_modes()
@torch.no_grad()
def _sampled(method: str, config: DistilConfig, data: DataSplits, prior: object) -> SyntheticSet:
    """Samples of a prior, and the method that they are named by."""
    began = time.perf_counter()
    start = _given(method, config, data, prior)
    nothing = torch.zeros_like(start.noise)
    space = LD3MSpace(start.prior, nothing, start.c, start.noise, start.sampler)
    images = space.images().cpu().contiguous()
    made = replace(start.setup, space=space).recipe(time.perf_counter() - began)
    return SyntheticSet(
        images,
        start.setup.labels.cpu(),
        data.classes,
        {k: v.cpu() for k, v in space.state().items()},
        made | {"drawn": {"method": method, "seed": config.seed}},
        prior=start.prior if start.prior.source is None else None,  # the folder must say all
    )


def _as_pixels(
    method: str,
    start: _Start,
    z: Float[Tensor, "B c h w"],
    settings: dict[str, object],
    began: float,
) -> SyntheticSet:
    """A set of decoded latents as pixels, with what they were drawn by.

    Args:
        method: that drew them.
        start: of the chain.
        z: the last latents.
        settings: of the method, and what else the images depend on.
        began: when the work did, by `time.perf_counter`.
    """
    images, setup = start.prior.decode(z).cpu().contiguous(), start.setup
    config, space = replace(setup.config, space="pixel"), PixelSpace({"pixels": images})
    made = recipe(config, setup.data, None, space, time.perf_counter() - began, None)
    by = {
        "source": start.prior.source,
        "digest": start.prior.networks_digest,
        "classes": None if setup.matching is None else setup.matching.record,
    }
    made["drawn"] = {"method": method, "seed": config.seed, **settings, "prior": by}
    return SyntheticSet(images, setup.labels.cpu(), setup.data.classes, space.state(), made)


# by the name that `systems.SYSTEMS` has for them
DRAWS: dict[str, Callable[[DistilConfig, DataSplits, object], SyntheticSet]] = {
    "sampled": sampled,
    "d4m": d4m,
    "mgd": mgd,
    "minimax": minimax,
}


def draw(name: str, config: DistilConfig, data: DataSplits, prior: object) -> SyntheticSet:
    """The set of a system that draws from a prior, with the settings of its authors.

    Args:
        name: "sampled", "d4m", "mgd" or "minimax".
        config: says the sampler, the images per class, and the seed.
        data: whose classes are drawn.
        prior: class-conditional, on the device where it is to draw; for "minimax" a fine-tuned one.

    Returns:
        The set, on the CPU; its recipe has an entry "drawn".

    Raises:
        InputError: an unknown name, or as the system's own function says.
    """
    if name not in DRAWS:
        raise InputError(f"{name!r} is no system that draws; choose {', '.join(DRAWS)}")
    return DRAWS[name](config, data, prior)
