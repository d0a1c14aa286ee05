"""How long a prior was trained, over all trainings that went on from one another."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from ld3m_min.io.disk import StrPath
from ld3m_min.io.files import read_json, write_json
from ld3m_min.io.values import from_dict

FILE = "training.json"


@dataclass(frozen=True)
class TrainingLog:
    """What a prior's training has taken.

    Attributes:
        autoencoder_steps: of the autoencoder.
        denoiser_steps: of the denoiser, over all trainings.
        seconds: of both, over all trainings and sittings.
    """

    autoencoder_steps: int = 0
    denoiser_steps: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, model: StrPath | None) -> TrainingLog:
        """What the folder of a prior says of it; nothing where it says nothing.

        Args:
            model: folder of a prior; None for none.

        Raises:
            InputError: the file there holds something else.
        """
        file = None if model is None else Path(model) / FILE
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
        for stage in ("autoencoder", "unet"):
            places = sorted((Path(out) / stage).glob("step-*"))
            if places:
                manifest = read_json(places[-1] / "manifest.json")
                steps[stage] = int(manifest["step"])
                seconds += float(manifest["notes"]["seconds"])
        return cls(steps.get("autoencoder", 0), steps.get("unet", 0), round(seconds, 1))

    def __add__(self, later: TrainingLog) -> TrainingLog:
        return TrainingLog(
            self.autoencoder_steps + later.autoencoder_steps,
            self.denoiser_steps + later.denoiser_steps,
            round(self.seconds + later.seconds, 1),
        )

    def save(self, model: StrPath) -> None:
        """Write it into the folder of a prior.

        Args:
            model: the folder.
        """
        write_json(Path(model) / FILE, asdict(self))
