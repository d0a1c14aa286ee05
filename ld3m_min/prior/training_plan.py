"""The plan of a prior for one's own images: what will be trained, for how long, in how much memory.

It is kept in the folder of the training, so that the same command goes on with the same networks
and steps, whatever a second probe would say.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from ld3m_min.errors import InputError
from ld3m_min.io.disk import StrPath
from ld3m_min.io.files import read_json, write_json
from ld3m_min.io.values import from_dict
from ld3m_min.prior.architecture import PriorConfig
from ld3m_min.prior.training_time import LEAST, Images, Speeds, Times, pictures, times, too_short

FILE = "plan.json"


@dataclass(frozen=True)
class TrainingPlan:
    """A training that was planned.

    Attributes:
        config: networks and steps.
        hours: that were given.
        images: of the data, as they were counted.
        speeds: that were measured.
        start: name or folder of what it starts from; "" for nothing.
        notes: why these sizes, a sentence each.
        goes_on: whether the denoiser it starts from is trained further.
    """

    config: PriorConfig
    hours: float
    images: Images
    speeds: Speeds
    start: str = ""
    notes: tuple[str, ...] = ()
    goes_on: bool = False

    @property
    def times(self) -> Times:
        """How the time is spent."""
        return times(self.config, self.speeds, self.images, 3600 * self.hours)

    @property
    def pictures(self) -> int:
        """How many of each stage are written on the way."""
        return pictures(self.speeds, self.images, 3600 * self.hours)

    @property
    def disk_bytes(self) -> int:
        """Of the finished folder.

        That is two checkpoints of each stage, of weights, averages and two moments in four bytes
        each, and the prior in two.
        """
        both = self.speeds.denoiser_weights
        both += self.speeds.autoencoder_weights if self.speeds.autoencoder else 0
        all_weights = self.speeds.autoencoder_weights + self.speeds.denoiser_weights
        return 2 * 16 * both + 2 * all_weights

    def table(self) -> str:
        """The plan as a short table, with its notes below."""
        c, s, t = self.config, self.speeds, self.times
        asked = c.classifier
        assert asked is not None, "photographs are looked at by a network"
        epochs = asked.epochs * -(-self.images.trained_on // asked.batch)
        kept = f"kept as {self.start} has it"
        rows = [
            ("autoencoder", s.autoencoder_weights, c.vae_steps, c.vae_batch, t.autoencoder)
            if s.autoencoder
            else ("autoencoder", s.autoencoder_weights, kept, "", 0.0),
            ("denoiser", s.denoiser_weights, c.unet_steps, c.unet_batch, t.latents + t.denoiser),
            ("classifier", "", epochs, asked.batch, t.classifier),
            ("pictures, samples", "", "", "", t.pictures + t.samples),
            ("together", "", "", "", t.total),
        ]
        lines = [f"{'':18}{'parameters':>12}{'steps':>12}{'images each':>14}{'time':>12}"]
        for name, weights, steps, batch, seconds in rows:
            cells = [f"{x:,}" if isinstance(x, int) else str(x) for x in (weights, steps, batch)]
            took = clock(seconds) if seconds else ""
            lines.append(f"{name:18}{cells[0]:>12}{cells[1]:>12}{cells[2]:>14}{took:>12}".rstrip())
        lines.append(
            f"memory about {gib(s.peak_bytes)} beside the images and the program; on the disk "
            f"{gib(self.disk_bytes)}"
        )
        return "\n".join([*lines, *(f"- {note}" for note in self.notes)])

    @property
    def warning(self) -> str | None:
        """Why the time is too little; None where it may do."""
        if self.goes_on:
            few, steps = LEAST[1] // 10, self.config.unet_steps
            said = f"{steps:,} steps hardly change the denoiser of {self.start}; give more --hours"
            return said if steps < few else None
        return too_short(self.config, self.speeds, self.images)

    def save(self, out: StrPath) -> None:
        """Keep it in the folder of the training.

        Args:
            out: the folder.
        """
        write_json(Path(out) / FILE, asdict(self))

    @classmethod
    def read(cls, out: StrPath) -> TrainingPlan | None:
        """The plan that a folder keeps; None where there is none.

        Args:
            out: the folder.

        Raises:
            InputError: the file holds something else.
        """
        file = Path(out) / FILE
        if not file.exists():
            return None
        try:
            return from_dict(cls, read_json(file), FILE)
        except (InputError, TypeError) as error:  # a field is missing or of another type
            raise InputError(
                f"{file} holds no plan that can be read ({error}); remove it to plan anew, or give "
                "another --out"
            ) from None


def clock(seconds: float) -> str:
    """A time as people say it: "40 s", "12 min", "2.5 h".

    Args:
        seconds: of it.
    """
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def gib(size: float) -> str:
    """Bytes as people say them: "120 MiB", "1.4 GiB".

    Args:
        size: bytes.
    """
    return f"{size / 2**20:.0f} MiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"
