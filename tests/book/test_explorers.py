"""The explorers: pages, files, and data that are what the command makes."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from ld3m_min.residual import NO_RESIDUAL, PUBLIC_RESIDUAL

from .explorers import FOLDER, ROOT, data, extension

BOOK = ROOT / "book"
BLOCK = re.compile(r"^```\{explorer\} (\w+)\n(.*?)^```\n(.*?)(?=^#|\Z)", re.M | re.S)
SHOWN = [
    (page, *found.groups())
    for page in sorted(BOOK.rglob("*.md"))
    for found in BLOCK.finditer(page.read_text(encoding="utf-8"))
]


@pytest.fixture(scope="module")
def start():
    from explorers import output

    return output.digits_start()


def picture(name):
    """The sprite of an explorer as rows x columns x 32 x 32 bytes."""
    pixels = np.asarray(Image.open(FOLDER / f"{name}.webp").convert("L"), dtype=float)
    rows, columns = (n // 32 for n in pixels.shape)
    return pixels.reshape(rows, 32, columns, 32).transpose(0, 2, 1, 3)


def same_pictures(found, images):
    """Whether ten tiles of a sprite are these images, but for the compression."""
    from explorers.output import grey

    return np.abs(found - grey(images)).mean() < 5


# -- pages and files -------------------------------------------------------------------------------


def test_each_explorer_stands_on_one_page():
    assert sorted(name for _, name, _, _ in SHOWN) == sorted(extension().SCRIPTS)


@pytest.mark.parametrize("shown", SHOWN, ids=lambda s: s[1])
def test_page_asks_says_it_in_words_and_answers(shown):
    page, name, block, after = shown
    options = dict(re.findall(r"^:(\w+): (.+)$", block, re.M))
    assert options["question"].endswith("?")
    assert len(options["alt"]) > 40
    words = re.sub(r"^:\w+:.*$", "", block, flags=re.M).split()
    assert len(words) > 25, "the text for those who don't see it says what can be seen"
    rest = page.read_text(encoding="utf-8").split(block)[1]  # the answer may have a heading
    assert ":class: dropdown" in (rest if name == "live" else after)
    command = f"make_explorers.py {name}"
    assert command in rest or name == "table"


def test_files_are_there_and_small():
    scripts = {f.split("/")[1] for f in extension().scripts(extension().SCRIPTS)}
    built = {"table.data.js"}  # from the records, with the book
    assert all((FOLDER / f).is_file() for f in scripts - built)
    stills = {f"{name}.still.webp" for name in extension().SCRIPTS if name != "table"}
    assert all((FOLDER / f).is_file() for f in stills)
    weights = FOLDER / data("live")["file"]
    assert weights.stat().st_size == data("live")["bytes"] < 3e6
    assert sum(f.stat().st_size for f in FOLDER.iterdir()) - data("live")["bytes"] < 1.5e6


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.[jc]s*")), ids=lambda f: f.name)
def test_scripts_are_strict_and_ask_no_other_host(file):
    text = file.read_text(encoding="utf-8")
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\bfetch\(|XMLHttpRequest|\bimport\(|\beval\(", text)
    if file.suffix == ".js":
        assert '"use strict";' in text[:600]


def test_directive(tmp_path):
    """Scripts, style and container are on the page that has an explorer, and nowhere else."""
    extension()
    from sphinx.application import Sphinx

    source, out = tmp_path / "source", tmp_path / "out"
    (source / "below").mkdir(parents=True)
    (source / "conf.py").write_text(
        "extensions = ['myst_parser', 'ld3m_explorers']\nhtml_theme = 'basic'\n"
    )
    (source / "index.md").write_text("# One\n\n```{toctree}\nbelow/two\n```\n")
    options = ":question: A < B?\n:alt: some *alt*\n:height: 1 2"
    block = f"```{{explorer}} grid\n{options}\n\nIn **words**.\n```"
    (source / "below" / "two.md").write_text(f"# Two\n\n{block}\n")
    args = (str(source), str(source), str(out), str(tmp_path / "trees"), "html")
    app = Sphinx(*args, status=None, warningiserror=True)
    app.build()
    assert app.statuscode == 0
    assert "explorer" not in (out / "index.html").read_text()
    page = (out / "below" / "two.html").read_text()
    loaded = re.findall(r'src="../_static/explorers/([\w.]+\.js)', page)
    assert loaded == ["explorer.js", "grid.data.js", "grid.js"]
    assert "../_static/explorers/explorers.css" in page
    assert 'data-explorer="grid"' in page and "A &lt; B?" in page
    assert 'src="../_static/explorers/grid.still.webp" alt="some *alt*"' in page
    assert "<strong>words</strong>" in page.split("explorer-text")[1].split("</details>")[0]


def test_records_as_the_page_takes_them(tmp_path):
    """Whatever there are: seeds of a system together, a training that diverged as chance."""
    ext = extension()
    known = sorted((BOOK / "_data" / "records").glob("digits-cpu-pixel-DM-ipc1.json"))[0]
    record = json.loads(known.read_text())
    for seed in (0, 3):
        record["cell"] |= {"seed": seed, "preset": "evidence"}
        record["accuracies"]["ViT"][0] = None if seed else 0.5
        (tmp_path / f"{seed}.json").write_text(json.dumps(record))
    groups = ext.table_data(tmp_path)["groups"]
    assert list(groups) == ["digits, preset evidence, 1 per class"]  # nothing made up
    (system,) = groups["digits, preset evidence, 1 per class"]["systems"].values()
    assert list(system["seeds"]) == ["0", "3"] and system["diverged"] == 1
    assert [system["seeds"][s]["ViT"][0] for s in "03"] == [0.5, 0.1]
    (tmp_path / "3.json").unlink()
    alone = ext.table_data(tmp_path)["groups"]
    assert [g for g, v in alone.items() if v.get("made_up")] == [list(alone)[-1]]


# -- data are what the command makes ---------------------------------------------------------------


def test_residual(start):
    from explorers import pictures

    known, sheet = data("residual"), picture("residual")
    assert same_pictures(sheet[0], start.prior.decode(start.Z))
    for residual in (NO_RESIDUAL, pictures.Residual("x0", "clean")):
        images, norms = pictures.measured(start, residual, 5)
        key = pictures.key(residual, 5)
        assert norms == pytest.approx(known["norm"][key], rel=0.01)
        assert same_pictures(sheet[known["row"][key]], images)
    near = [np.sqrt(((row / 255 - sheet[0] / 255) ** 2).mean()) for row in sheet]
    for way in ("mean", "x0", "noise"):  # a clean source keeps the digits, a noised one doesn't
        noised, clean = (near[known["row"][f"{way}/{s}/linear/10"]] for s in ("noised", "clean"))
        assert clean < 0.1 < 0.2 < noised
    keys = {pictures.key(r, T) for r in pictures.residuals() for T in pictures.STEPS}
    assert set(known["row"]) == set(known["norm"]) == keys


def test_survive(start):
    from explorers import pictures

    known, distance = data("survive"), pictures.relative_distance()
    first = start.prior.decode(start.Z)
    for key, images in pictures.survivors(start, (0.5,), (0.4,), (5,)):
        assert distance(images, first) == pytest.approx(known["distance"][key], abs=0.01)
        assert same_pictures(picture("survive")[known["row"][key]], images)


def test_grid(start):
    from explorers import pictures

    known, sheet = data("grid"), picture("grid")
    images = pictures.crossed(start, PUBLIC_RESIDUAL, 3)
    assert pictures.classifier()(images) == known["read"]["code"][3]
    assert same_pictures(sheet[1 + 10 * known["samplers"].index("code") + 3], images)


def test_growth():
    """What is shown is the record's, and what the page says of it as well."""
    known, sheet = data("growth"), picture("growth")
    record = json.loads((BOOK / "_data/records/growth-digits.json").read_text())
    assert known["frames"] == record["frames"]
    assert list(known["systems"]) == [entry["system"] for entry in record["systems"]]
    for entry in record["systems"]:
        one = known["systems"][entry["system"]]
        assert one["loss"] == pytest.approx(entry["loss"], rel=0.01)
        for n, found in entry["accuracies"].items():
            assert one["accuracy"][n] == pytest.approx(np.mean(list(found.values())), abs=1e-3)
        file = BOOK / f"_data/records/growth-digits-{entry['system']}.png"
        pixels = np.asarray(Image.open(file).convert("L")).reshape(-1, 32, 10, 32).swapaxes(1, 2)
        rows = sheet[one["row"] : one["row"] + len(known["frames"])]
        assert np.abs(rows - pixels.astype(float)).mean() < 5
        assert entry["loss"][-1] < entry["loss"][15], "the loss goes on falling"
        gain = {n: one["accuracy"][n] - one["accuracy"]["0"] for n in ("15", "60")}
        assert gain["15"] > gain["60"] * 2 / 3, "most is gained in the first fifteen"
    said = (BOOK / "intro.md").read_text(encoding="utf-8")
    code = known["systems"]["ld3m-code"]["accuracy"]
    begin, four, fifteen, thirty, sixty = (round(100 * v) for v in code.values())
    assert f"begins at {begin} per cent, and reads {four} after four iterations, " in said
    assert f"{fifteen} after fifteen and {sixty} after sixty" in said
    assert f"rises from {begin} to {four}, {thirty} and {sixty} per cent" in said


def test_toy_and_weights(start):
    from explorers import live, toy

    known = data("losses")
    assert {k: known[k] for k in toy.numbers()} == toy.numbers()
    text = (FOLDER / data("live")["file"]).read_text().split('"')[-2]
    wanted = live.tensors(start.prior) | {"Z": start.Z}
    found = live.unpacked(text)
    sizes = [v.numel() for v in wanted.values()]
    for (name, shape), part in zip(data("live")["tensors"], found.split(sizes), strict=True):
        assert list(wanted[name].shape) == shape
        # Z is computed, so its last bit may differ
        tolerance = 1e-2 if name == "Z" else 0.0
        torch.testing.assert_close(
            part, wanted[name].half().float().flatten(), atol=tolerance, rtol=0
        )


def test_planner():
    """The lines agree with forecasts that they were not made from."""
    from explorers import planner

    models = data("planner")["models"]
    record = json.loads((BOOK / "_data/records/bench-forecast-cin256.json").read_text())
    rows = [r for r in record["rows"] if r["images"] == 10]
    assert len(rows) > 6
    for row in rows:
        plan = models[f"cin256-{row['size']}"]["plans"][row["plan"]]
        at = {k: plan[k][0] + row["T"] * plan[k][1] for k in ("bytes", "flops")}
        assert at["bytes"] + plan["weights"] == pytest.approx(row["float32"], rel=1e-3)
        assert at["flops"] == pytest.approx(row["flops"], rel=1e-3)
    prior = planner.LatentDiffusionPrior.from_pretrained("digits")
    config = planner.preset("cpu", algorithm="DC")
    for name in ("decoder", "half"):
        plan = models["digits-10"]["plans"][name]
        peak, weights, flops = planner.counted(prior, config, 8, name)
        assert [plan["bytes"][0] + 8 * plan["bytes"][1], plan["weights"]] == pytest.approx(
            [peak, weights], rel=1e-3
        )
        assert plan["flops"][0] + 8 * plan["flops"][1] == pytest.approx(flops, rel=1e-3)


# -- what the pages answer -------------------------------------------------------------------------


def test_answers_of_the_residual():
    norm = data("residual")["norm"]
    Z = {k: v[0] for k, v in norm.items()}
    ways = ("mean", "x0", "noise")
    clean, noised = ([Z[f"{w}/{s}/linear/10"] for w in ways] for s in ("clean", "noised"))
    assert min(clean) > 3 * max(noised)  # several times as large
    assert max(clean) < 2 * min(clean) and max(noised) < 2.5 * min(noised)  # the same size
    for way in ways:  # a constant decay: more of Z, less of c
        linear, constant = norm[f"{way}/clean/linear/10"], norm[f"{way}/clean/constant/10"]
        assert constant[0] > linear[0] and constant[1] < linear[1] < norm["none/10"][1]
    assert Z["mean/noised/linear/10"] / Z["none/10"] == pytest.approx(1.66, abs=0.02)
    assert Z["none/20"] < Z["none/10"] < Z["none/5"]


def test_answers_of_survival_and_the_grid():
    mean = {k: sum(v) / 10 for k, v in data("survive")["distance"].items()}
    assert mean["0/0.4/10"] == pytest.approx(0.28, abs=0.05)  # a quarter
    assert mean["0/0.8/10"] > 0.8 and mean["0/1/10"] == pytest.approx(1, abs=0.1)
    assert max(mean[f"0.5/{s:g}/10"] for s in (0.2, 0.4, 0.6, 0.8, 1)) < 0.3
    assert max(mean[f"1/{s:g}/10"] for s in (0.2, 0.4, 0.6, 0.8, 1)) < 0.2
    read = data("grid")["read"]

    def share(name):
        pairs = [(i, j) for i in range(10) for j in range(10) if i != j]
        return [sum(read[name][i][j] == (j, i)[k] for i, j in pairs) for k in (0, 1)]

    assert share("none") == [90, 0] and share("code") == [0, 90] and share("paper") == [86, 0]


def test_answer_of_the_table():
    """LD3M's lead over pixels with DC is AlexNet's for the most part."""
    systems = extension().table_data()["groups"]["digits, preset cpu, 1 per class"]["systems"]
    ours, theirs = (
        systems[f"digits-cpu-{s}-DC-ipc1"]["seeds"]["0"] for s in ("ld3m-code", "pixel")
    )
    lead = {n: np.mean(ours[n]) - np.mean(theirs[n]) for n in ours if n != "ConvNet"}
    without = np.mean([v for n, v in lead.items() if n != "AlexNet"])
    assert 0 < without < 0.5 * np.mean(list(lead.values()))


def test_answers_of_the_planner():
    plans = data("planner")["models"]["cin256-128"]["plans"]

    def at(name, T):
        return plans[name]["weights"] + plans[name]["bytes"][0] + T * plans[name]["bytes"][1]

    assert at("one-pass", 10) > 24 * 2**30
    assert at("decoder", 10) > 24 * 2**30
    for name in ("one-pass", "decoder", "selective", "half"):
        assert 3 < at(name, 40) / at(name, 10) < 4
    assert at("selective", 10) / at("one-pass", 10) == pytest.approx(2 / 3, abs=0.05)
    assert at("half", 10) / at("one-pass", 10) == pytest.approx(1 / 2, abs=0.05)
    assert at("selective", 10) < 0.9 * 24 * 2**30 < at("decoder", 10)
    for name, size in (("per-step", 4), ("two-pass", 4), ("chunks", 2)):
        assert at(name, 10) / 2**30 == pytest.approx(size, abs=0.3)
        assert at(name, 40) < 1.02 * at(name, 10)
    work = {n: p["flops"][0] + 40 * p["flops"][1] for n, p in plans.items()}
    assert work["selective"] < 1.02 * work["one-pass"]
    assert work["per-step"] / work["one-pass"] == pytest.approx(1.5, abs=0.1)
    assert work["two-pass"] / work["one-pass"] == pytest.approx(2, abs=0.1)
