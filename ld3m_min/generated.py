"""Sets that a prior draws, where nothing is learned (section 4.1's other baselines)."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from ld3m_min.backprop import ONE_PASS
from ld3m_min.config import DistilConfig
from ld3m_min.data.splits import DataSplits
from ld3m_min.io.modes import ordinary_modes
from ld3m_min.prepare import prepare
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.spaces.ld3m import LD3MSpace
from ld3m_min.synthetic import SyntheticSet


@ordinary_modes()
@torch.no_grad()
def sampled(config: DistilConfig, data: DataSplits, prior: LatentDiffusionPrior) -> SyntheticSet:
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
        InputError: the prior does not fit the classes or the size of the data.
    """
    began = time.perf_counter()
    config = replace(config, space="ld3m", iterations=0, plan=ONE_PASS)
    setup = prepare(config, data, prior, device=prior.device, progress=False)
    assert isinstance(setup.prior, LatentDiffusionPrior), "the space ld3m has one"
    state = setup.space.state()
    space = LD3MSpace(
        setup.prior, torch.zeros_like(state["Z"]), state.get("c"), state["noise"], config.sampler
    )
    images = space.images().cpu().contiguous()
    made = replace(setup, space=space).recipe(time.perf_counter() - began)
    return SyntheticSet(
        images,
        setup.labels.cpu(),
        data.classes,
        {k: v.cpu() for k, v in space.state().items()},
        made | {"drawn": {"method": "sampled", "seed": config.seed}},
    )
