"""The page at a run's end, `report.html`: what was made, what it is worth, how it was made."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ld3m_min.config import DistilConfig
from ld3m_min.data.splits import DataSplits
from ld3m_min.io.files import write_bytes
from ld3m_min.report.accuracy import ALL, DISTILLED, NETWORKS, RANDOM, Interval, Judged
from ld3m_min.report.advice import next_steps
from ld3m_min.report.html import facts, figure, image, name, page, plain, prose, table
from ld3m_min.report.pictures import pngs
from ld3m_min.report.plots import SMOOTHED, bars, lines
from ld3m_min.report.snapshots import Snapshot
from ld3m_min.report.words import duration, percent, size_of
from ld3m_min.synthetic import SyntheticSet

LEARNED, REAL = 10, 4  # images of a class that are shown
BUDGET = 1_400_000  # bytes of their files: a page of 100 classes stays below 3 MB
FEW = 100  # test images below which an accuracy is called rough
PRIOR_PICTURE = "prior-on-your-images.png"  # in the run's folder, where there is one
LABELS = {DISTILLED: "distilled images", RANDOM: "random real images", ALL: "all training images"}


@dataclass(frozen=True)
class Run:
    """What is reported on.

    Attributes:
        made: the distilled set.
        data: of the folder.
        out: folder of the run.
        command: the command line that was given.
        changed: settings that differ from the preset: name -> the preset's value and the run's.
        space: what is learned, and why.
        size: side of the images, and why.
        judged: accuracies; None where they weren't asked for.
        snapshots: images while they were learned.
        environment: device, versions, commit and date.
        memory: largest so far, bytes; None where it isn't known.
        seconds: that the accuracies took in this sitting.
    """

    made: SyntheticSet
    data: DataSplits
    out: Path
    command: str
    changed: Mapping[str, tuple[str, str]]
    space: str
    size: str
    judged: Judged | None
    snapshots: tuple[Snapshot, ...]
    environment: Mapping[str, str]
    memory: int | None
    seconds: float

    @property
    def config(self) -> DistilConfig:
        """Of the distillation."""
        return self.made.config


def write_report(run: Run, file: Path) -> None:
    """Write the page of a run.

    Args:
        run: what is reported on.
        file: of the page.

    Raises:
        OSError: it cannot be written; an earlier one is whole.
    """
    title = f"{run.data.name}: {len(run.made.labels)} distilled images"
    write_bytes(file, page(title, _body(run, title)))


def _body(run: Run, title: str) -> Iterator[str]:
    yield f"<h1>{plain(title)}</h1>"
    yield _summary(run)
    yield "<h2>The images</h2>"
    yield from _images(run)
    yield from _prior_picture(run)
    yield "<h2>How they were learned</h2>"
    yield from _learning(run)
    yield "<h2>What they are worth</h2>"
    yield from _worth(run)
    yield "<h2>What to try next</h2>"
    steps = next_steps(run.config, run.made.history, run.judged)
    yield f"<ul>{''.join(f'<li>{prose(s)}</li>' for s in steps)}</ul>"
    yield "<h2>How to use them</h2>"
    yield from _use(run)
    yield "<h2>What was run</h2>"
    yield _what(run)


def _summary(run: Run) -> str:
    classes, train = len(run.data.classes), len(run.data.train)
    return (
        f"<p>{len(run.made.labels)} images of {classes} classes, {run.made.ipc} of each, were "
        f"learned from {train:,} training images of the folder {name(run.data.name)}. "
        f"{len(run.data.validation):,} more were held out for choices and {len(run.data.test):,} "
        "for the accuracies on this page; neither had a part in what was learned.</p>"
    )


def _images(run: Run) -> Iterator[str]:
    """The images by class, real ones beside them, as far as the budget goes."""
    used, shown, classes = 0, 0, run.data.classes
    for label, known in enumerate(classes):
        learned = pngs(run.made.images()[run.made.labels == label][:LEARNED])
        real = pngs(_real(run.data, label))
        used += sum(map(len, learned)) + sum(map(len, real))
        if shown and used > BUDGET:
            break
        shown += 1
        yield f"<h3>{name(known)}</h3><div class='pair'>"
        for what, files in (("learned", learned), ("real", real)):
            tags = "".join(
                image(png, f"{what} image {i} of class {known}") for i, png in enumerate(files, 1)
            )
            yield figure(f'<div class="images">{tags}</div>', what)
        yield "</div>"
    if shown < len(classes):
        yield (
            f"<p>The first {shown} of {len(classes)} classes are shown; all are in "
            "<code>set/images</code>.</p>"
        )
    if run.config.space == "pixel" and run.made.history:
        yield (
            "<p>Learned pixels look like noise to a person. What counts is what a network learns "
            "from them, see below.</p>"
        )
    if run.made.ipc > LEARNED:
        yield f"<p>Of each class the first {LEARNED} of {run.made.ipc} images are shown.</p>"


def _real(data: DataSplits, label: int) -> Float[Tensor, "n 3 H H"]:
    """The first training images of a class."""
    return data.train.take(data.train.class_positions(label)[:REAL])


def _prior_picture(run: Run) -> Iterator[str]:
    """What the prior makes of some of the folder's images, where that was drawn."""
    file = run.out / PRIOR_PICTURE
    if file.is_file() and file.stat().st_size < BUDGET // 2:
        yield "<h3>What the prior makes of your images</h3>"
        alt = "some images of the folder, and what the prior's autoencoder makes of them"
        yield f'<div class="wide">{image(file.read_bytes(), alt)}</div>'


def _learning(run: Run) -> Iterator[str]:
    history, made = run.made.history, run.made
    if run.snapshots:
        per_class, known = len(made.labels) // len(made.classes), made.classes
        rows = torch.arange(0, len(made.labels), per_class)[:4].tolist()
        names = [known[int(made.labels[i])] for i in rows]
        columns = "".join(
            figure(
                image(s.png, f"after {s.iterations} iterations, downwards: {', '.join(names)}"),
                f"{s.iterations:,}",
            )
            for s in run.snapshots
        )
        listed = ", ".join(map(name, names))
        yield f"<p>After so many iterations; downwards {listed}:</p>"
        yield f'<div class="images snapshots">{columns}</div>'
    if len(history) < 2:
        yield f"<p>{len(history)} iterations: too few for a curve.</p>"
        return
    losses = [h.get("loss") for h in history]
    known_losses = [x for x in losses if x is not None and math.isfinite(x)]
    if known_losses:
        alt = (
            f"loss over {len(history)} iterations, from {known_losses[0]:.3g} to "
            f"{known_losses[-1]:.3g}"
        )
        plot = lines({"loss": losses}, alt, ylabel="loss", smooth=True)
        strong = "; the strong line is its running mean" * (len(losses) >= SMOOTHED)
        yield figure(plot, f"Loss of {plain(run.config.algorithm)}{strong}.")
    norms = sorted({k for h in history for k in h if k.startswith("grad_")})
    if norms:
        drawn = {k.removeprefix("grad_"): [h.get(k) for h in history] for k in norms}
        alt = f"norm of the gradient of {' and '.join(drawn)} over {len(history)} iterations"
        yield figure(
            lines(drawn, alt, ylabel="gradient norm"), "Norm of the gradient of what is learned."
        )


def _worth(run: Run) -> Iterator[str]:
    judged = run.judged
    if judged is None:
        yield "<p>It was not measured (--no-evaluate); the same command without it does that.</p>"
        return
    yield f"<p>{plain(verdict(judged))}</p>"
    seen = judged.results[DISTILLED].distiller
    unseen = judged.results[DISTILLED].unseen
    rows = []
    for which, result in judged.results.items():
        cells = [_cell(judged.of(which, a)) for a in result.accuracies]
        count = f"{LABELS[which]} ({judged.images[which]:,})"
        rows.append([count, _cell(judged.unseen(which)), *cells])
    caption = (
        f"Accuracy in % on {judged.tested:,} test images, with 95 % intervals over "
        f"{judged.repeats} trainings of each network. The second column is the mean of "
        f"{' and '.join(unseen)}, which took no part in the distillation."
    )
    marked = [
        f"{a} (it distilled)" if a == seen else a for a in judged.results[DISTILLED].accuracies
    ]
    yield table(caption, ["trained on", "unseen networks", *marked], rows)
    values = {LABELS[w]: r.accuracies for w, r in judged.results.items()}
    alt = "; ".join(
        f"{LABELS[w]}: {percent(judged.unseen(w).mean)} % by unseen networks"
        for w in judged.results
    )
    yield figure(
        bars(values, alt, chance=judged.largest),
        "Bars are means, dots single trainings; the dotted line is what guessing the largest "
        f"class gives, {percent(judged.largest)} %.",
    )
    yield f"<p>{plain(trust(judged))}</p>"
    if ALL not in judged.results:
        yield "<p>All training images at once do not fit into this machine's memory.</p>"


def verdict(judged: Judged) -> str:
    """The accuracies in plain sentences.

    Args:
        judged: the accuracies.
    """
    gain, mean = judged.gain(), judged.unseen(DISTILLED).mean
    count = judged.images[DISTILLED]
    said = (
        f"Networks that took no part in the distillation reach {percent(mean)} % after training "
        f"on the {count} distilled images, and {percent(judged.unseen(RANDOM).mean)} % on {count} "
        "random real ones"
    )
    if ALL in judged.results:
        said += f"; all {judged.images[ALL]:,} give {percent(judged.unseen(ALL).mean)} %"
    if math.isfinite(gain.low):
        said += (
            f". The difference to random ones is {100 * gain.mean:+.1f} points, with a 95 % "
            f"interval from {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
        )
    return said + "."


def trust(judged: Judged) -> str:
    """How far an accuracy on these test images can be trusted.

    Args:
        judged: the accuracies.
    """
    few = judged.tested < FEW or judged.fewest < 10
    rough = "That is rough: small differences mean nothing here. " if few else ""
    return (
        f"{judged.tested:,} test images, {judged.fewest} of the smallest class: one image is "
        f"{100 / judged.tested:.2g} points, and their number alone leaves an accuracy of 50 % "
        f"uncertain by about {100 * judged.uncertain:.1f} points to either side. {rough}The "
        "intervals are of the trainings (and, for random images, of the draws); another seed of "
        "the distillation would give another set, which they do not cover."
    )


def _cell(x: Interval) -> str:
    """A mean with its interval."""
    if not math.isfinite(x.mean):
        return "diverged"
    if not x.high > x.low:  # one training, or all of them alike
        return percent(x.mean)
    low, high = max(0.0, x.low), min(1.0, x.high)
    return f'{percent(x.mean)} <span class="dim">({percent(low)} to {percent(high)})</span>'


def _use(run: Run) -> Iterator[str]:
    place, folder = run.out / "set", run.data.root or run.data.name
    code = (
        "from ld3m_min import SyntheticSet\n\n"
        f"made = SyntheticSet.load({str(place)!r})\n"
        "images, labels, classes = made.images(), made.labels, made.classes"
    )
    yield "<p>In Python, as tensors in [0, 1]:</p>"
    yield f"<pre><code>{_code(code)}</code></pre>"
    yield (
        "<p>For anything else, <code>set/images</code> has PNG files and "
        "<code>set/metadata.jsonl</code> their labels; <code>set/README.md</code> says how to "
        "normalise. Other networks:</p>"
    )
    words = ["python", "-m", "ld3m_min", "evaluate", "own", str(place), "--dataset", str(folder)]
    other = shlex.join([*words, "--architectures", "ResNet18", "ViT"])
    yield f"<pre><code>{_code(other)}</code></pre>"
    ways, rows = run.made.storage().ways, []
    for kept in ways:
        shared = f", and {size_of(kept.shared)} once for all classes" if kept.shared else ""
        whole = kept.per_class * len(run.made.classes)
        each = f"{size_of(whole)}, {size_of(kept.per_class)} a class{shared}"
        rows.append((plain(kept.form), plain(each)))
    yield f"<p>They can be kept as:</p>{facts(rows)}"


def _code(text: str) -> str:
    return "\n".join(map(plain, text.split("\n")))


def _what(run: Run) -> str:
    seconds = float(run.made.recipe["seconds"])
    iterations = len(run.made.history)
    rows = [
        ("command", f"<code>{plain(run.command)}</code>"),
        ("space", prose(run.space)),
        ("size", plain(run.size)),
        ("algorithm", plain(run.config.algorithm)),
        ("iterations", f"{iterations:,}, in {duration(seconds)}"),
    ]
    if run.judged is not None:
        rows.append(
            (
                "networks",
                f"{', '.join(NETWORKS)}: {run.judged.trainings} trainings; "
                f"{duration(run.seconds)} of them in the last sitting",
            )
        )
    if run.memory is not None:
        rows.append(("memory", f"{size_of(run.memory)} at most, in the last sitting"))
    changed = "<br>".join(
        f"{plain(k)}: {plain(new)} (the preset has {plain(old) or 'nothing'})"
        for k, (old, new) in run.changed.items()
    )
    rows.append(("differs from the preset", changed or "nothing"))
    rows += [(plain(k), plain(v)) for k, v in run.environment.items() if v]
    return facts(rows)
