"""What a fine-tuning of a prior by Minimax's criteria is asked for (section 5)."""

from __future__ import annotations

from dataclasses import dataclass

from ld3m_min.io.values import checked
from ld3m_min.prior.classifier import ClassifierConfig


@dataclass(frozen=True)
class FineTuneConfig:
    """One fine-tuning.

    The weights of the criteria, the memory and the rate are as published. So is the length, 8
    times all images: for the 1,000 training digits 250 steps, over which the average of the weights
    goes as far from the first ones as the published one does.

    Attributes:
        name: of the configuration, and of the prior that it makes.
        prior: name, folder or hub id of the prior that is fine-tuned.
        dataset: what it is fine-tuned on, a name that `load_data` knows.
        size: side of the images, pixels.
        criteria: learn by the two criteria as well; without them it is the control.
        representativeness: weight of that criterion.
        diversity: weight of that criterion.
        memory: latents of each kind that are remembered of a class.
        steps: of the training.
        batch: latents a step.
        lr: rate of Adam; it stays.
        label_dropout: how often the class is replaced by the null class.
        ema: decay of the averaged weights, which are the ones that are kept.
        flip: fine-tune on the mirror images as well.
        classifier: what its images are recognised by; None for the support vector machine of the
            digits.
        checkpoint_every: steps after which a checkpoint is due.
        checkpoint_seconds: seconds after which one is due, if they pass first.
        about: what the model card says of it.
        seed: of all that is drawn.
    """

    __no_type_check__ = True  # at run time: `checked` converts or refuses, in a sentence

    name: str
    prior: str = "digits"
    dataset: str = "digits"
    size: int = 32
    criteria: bool = True
    representativeness: float = 0.002
    diversity: float = 0.008
    memory: int = 64
    steps: int = 250
    batch: int = 32
    lr: float = 1e-3
    label_dropout: float = 0.1
    ema: float = 0.995
    flip: bool = False
    classifier: ClassifierConfig | None = None
    checkpoint_every: int = 100
    checkpoint_seconds: float = 60.0
    about: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        checked(
            self,
            size=">= 1",
            representativeness=">= 0",
            diversity=">= 0",
            memory=">= 1",
            steps=">= 1",
            batch=">= 1",
            lr="> 0",
            label_dropout="in [0, 1)",
            ema="in [0, 1)",
            checkpoint_every=">= 1",
            checkpoint_seconds="> 0",
        )
