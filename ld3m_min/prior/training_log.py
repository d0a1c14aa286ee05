"""How long a prior was trained, over all trainings that went on from one another, and on what."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from ld3m_min.io.disk import StrPath
from ld3m_min.io.files import current_version, read_json, write_json
from ld3m_min.io.paths import expanded, resolved
from ld3m_min.io.values import from_dict
from ld3m_min.prior.real_images import RealImages
from ld3m_min.prior.weights import shipped

FILE = "training.json"
TRAINED_ON = "trained_on.json"
_STAGES = ("autoencoder", "decoder", "unet")  # folders of their checkpoints, in their order


@dataclass(frozen=True)
class TrainingLog:
    """What a prior's training has taken.

    Attributes:
        autoencoder_steps: of the autoencoder.
        denoiser_steps: of the denoiser, over all trainings.
        seconds: of all, over all trainings and sittings.
        decoder_steps: of the autoencoder's decoder alone.
    """

    autoencoder_steps: int = 0
    denoiser_steps: int = 0
    seconds: float = 0.0
    decoder_steps: int = 0

    @classmethod
    def of(cls, model: StrPath | None) -> TrainingLog:
        """What the folder of a prior says of it; nothing where it says nothing.

        Args:
            model: folder of a prior; None for none.

        Raises:
            InputError: the file there holds something else.
        """
        file = None if model is None else current_version(resolved(model)) / FILE
        if file is None or not file.exists():
            return cls()
        return from_dict(cls, read_json(file), str(file))

    @classmethod
    def read(cls, out: StrPath) -> TrainingLog:
        """What the checkpoints of one training say: steps and seconds of each stage.

        Args:
            out: folder of the training.
        """
        steps, seconds = {}, 0.0
        for stage in _STAGES:
            places = sorted((Path(out) / stage).glob("step-*"))
            if places:
                manifest = read_json(places[-1] / "manifest.json")
                steps[stage] = int(manifest["step"])
                seconds += float(manifest["notes"]["seconds"])
        autoencoder, decoder, denoiser = (steps.get(stage, 0) for stage in _STAGES)
        return cls(autoencoder, denoiser, round(seconds, 1), decoder)

    def __add__(self, later: TrainingLog) -> TrainingLog:
        return TrainingLog(
            self.autoencoder_steps + later.autoencoder_steps,
            self.denoiser_steps + later.denoiser_steps,
            round(self.seconds + later.seconds, 1),
            self.decoder_steps + later.decoder_steps,
        )

    def save(self, model: StrPath) -> None:
        """Write it into the folder of a prior.

        Args:
            model: the folder.
        """
        write_json(Path(model) / FILE, asdict(self))


@dataclass(frozen=True)
class TrainedOn:
    """The images that a prior was trained on last.

    Attributes:
        name: what the data set was called.
        digest: of its training images, as `ImageDataset.digest`.
        size: side of the images, pixels.
        classes: their names.
    """

    name: str
    digest: str
    size: int
    classes: tuple[str, ...]

    @classmethod
    def of(cls, data: RealImages) -> TrainedOn:
        """What a data set is.

        Args:
            data: its training split is what counts.
        """
        return cls(data.name, data.train.digest, data.size, tuple(data.classes))

    @classmethod
    def read(cls, source: StrPath | None) -> TrainedOn | None:
        """What the folder of a prior says of it; None where it says nothing. Nothing is downloaded.

        Args:
            source: of the prior: a shipped name, a folder, or what is neither.

        Raises:
            InputError: the file there holds something else, or the folder is in the home of a
                user that there isn't.
        """
        if source is None:
            return None
        file = (shipped(source) or current_version(resolved(expanded(source)))) / TRAINED_ON
        return from_dict(cls, read_json(file), str(file)) if file.is_file() else None

    def save(self, model: StrPath) -> None:
        """Write it into the folder of a prior.

        Args:
            model: the folder.
        """
        write_json(Path(model) / TRAINED_ON, asdict(self))
