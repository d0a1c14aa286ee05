"""The card of a set: a README as the Hugging Face Hub reads it.

Its head says how the files are to be loaded; the rest is for people: what the set is, how to train
on it without this package, how well networks did that were trained on it, how it was made.
"""

from __future__ import annotations

from typing import Any

import yaml

from ld3m_min.io.text import in_card
from ld3m_min.licences import front_matter, in_words
from ld3m_min.set_contents import SetContents
from ld3m_min.storage import storage_of

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def card(contents: SetContents) -> str:
    """The README of a set's folder: what it is, and how to train on it.

    Args:
        contents: of the set.
    """
    sections = [
        f"# {_title(contents)}",
        _counts(contents),
        in_card(_storage(contents)),
        _use(contents),
        _accuracy(contents.recipe),
        _made(contents),
        f"## Licence\n\n{in_words(contents.recipe)}{_resemblance(contents)}",
    ]
    return _head(contents) + "\n\n".join(s for s in sections if s) + "\n"


def _head(contents: SetContents) -> str:
    """The YAML before the text."""
    size = next((name for most, name in SIZES if len(contents.labels) < most), "n>1M")
    names = {str(i): name for i, name in enumerate(contents.classes)}
    features: list[dict[str, Any]] = [
        {"name": "image", "dtype": "image"},
        {"name": "label", "dtype": {"class_label": {"names": names}}},
        {"name": "class", "dtype": "string"},
    ]
    if contents.soft_labels is not None:
        features.append({"name": "soft_label", "sequence": "float32"})
    files = [{"split": "train", "path": ["metadata.jsonl", "images/**"]}]
    head = {
        **front_matter(contents.recipe),
        "task_categories": ["image-classification"],
        "tags": ["dataset-distillation"],
        "size_categories": [size],
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {"features": features},
    }
    said = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return f"---\n{said}---\n"


def _title(contents: SetContents) -> str:
    """The data and how the set was made of them."""
    c = contents.recipe["config"]
    how = f"distilled by {c['algorithm']} in {c['space']} space"
    if "selection" in contents.recipe:
        how = f"chosen by {in_card(contents.recipe['selection']['method'])}"
    elif "drawn" in contents.recipe:
        how = f"drawn from a prior by {in_card(contents.recipe['drawn']['method'])}"
    elif not contents.history:
        how = f"the initial images of {c['space']} space, not distilled"
    return f"{in_card(c['dataset'])}, {how}"


def _counts(contents: SetContents) -> str:
    """How many images there are, and for how long they were learned."""
    c, count = contents.recipe["config"], len(contents.labels)
    least, most = min(contents.per_class), max(contents.per_class)
    ipc = c.get("ipc", most)  # of the configuration, where it may count storage
    place = "" if most == ipc or "selection" in contents.recipe else f", in the place of {ipc}"
    return (
        f"{count} images ({least if least == most else f'{least} to {most}'} per class{place}) of "
        f"{c['size']} px, {len(contents.history)} iterations, seed {c['seed']}."
    )


def _storage(contents: SetContents) -> str:
    """The bytes that the set takes."""
    parts = contents.images, contents.labels, contents.classes, contents.state, contents.recipe
    return storage_of(*parts).in_words


def _use(contents: SetContents) -> str:
    """How to train on the set, with this package and without it."""
    c = contents.recipe["config"]
    mean, std = _statistics(contents)
    return (
        f"## Use\n\nTrain on `images/` with the labels of `metadata.jsonl`; normalise with mean "
        f"{mean} and std {std}; augment with DSA ({in_card(c['dsa'])}). `set.safetensors` has the "
        "exact pixels and the codes; `set.json` the whole recipe; `SHA256SUMS` the checksums, "
        "which `sha256sum -c SHA256SUMS` compares.\n\n"
        "In this folder, with torch and safetensors alone:\n\n"
        f"```python\n{snippet(contents)}```\n\n"
        "A plain network, to begin with: augmentation, and the networks and rates of the "
        "evaluation, do better."
    )


def snippet(contents: SetContents) -> str:
    """Five lines, after the import, that train a plain network on a set in its folder.

    Args:
        contents: of the set.
    """
    mean, std = (f"torch.tensor({v}).view(3, 1, 1)" for v in _statistics(contents))
    labels = "labels" if contents.soft_labels is None else "soft_labels"
    outputs = len(contents.classes)
    return (
        "import torch, safetensors.torch\n"
        'made = safetensors.torch.load_file("set.safetensors")  # images in [0, 1], labels\n'
        f'x, y = (made["images"] - {mean}) / {std}, made["{labels}"]\n'
        "net = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.ReLU(), "
        f"torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(512, {outputs}))\n"
        "sgd = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)\n"
        "for _ in range(300): sgd.zero_grad(); "
        "torch.nn.functional.cross_entropy(net(x), y).backward(); sgd.step()\n"
    )


def _statistics(contents: SetContents) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, to four places."""
    n = contents.recipe["normalisation"]
    return [round(v, 4) for v in n["mean"]], [round(v, 4) for v in n["std"]]


def _accuracy(recipe: dict[str, Any]) -> str:
    """A table of what was measured; nothing where no evaluation was noted."""
    measured = recipe.get("evaluation")
    if not measured:
        return ""
    rows = []
    for name, values in measured["accuracies"].items():
        percent = [f"{100 * v:.1f}" for v in values]
        rows.append(f"| {in_card(name)} | {', '.join(percent)} |")
    return (
        f"## Accuracy\n\nOf networks that were trained on this set and tested on "
        f"{in_card(measured['data'])} ({in_card(measured['split'])} split), in percent, one number "
        "for each training:\n\n| network | accuracy |\n| :--- | :--- |\n" + "\n".join(rows)
    )


def _made(contents: SetContents) -> str:
    """The recipe in a few lines; all of it is in `set.json`."""
    c, data = contents.recipe["config"], contents.recipe.get("data") or {}
    prior = (contents.recipe.get("prior") or {}).get("source")
    lines = [
        f"data: {in_card(data.get('name', c['dataset']))}, {in_card(data.get('source', ''))}",
        f"classes: {len(contents.classes)}",
        f"what is learned: {in_card(c['space'])}" + (f", prior {in_card(prior)}" if prior else ""),
        f"matched by: {in_card(c['algorithm'])}, {len(contents.history)} iterations",
        f"seed: {in_card(c['seed'])}",
    ]
    return "## How it was made\n\n" + "\n".join(f"- {line.rstrip(', ')}" for line in lines)


def _resemblance(contents: SetContents) -> str:
    """What the images show of the real ones."""
    if contents.real:
        return f" They are {contents.real}."
    if "drawn" in contents.recipe:
        return ""
    return (
        " Learning starts from real images, so one that was learned may still resemble one of them."
    )
