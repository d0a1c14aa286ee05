"""Records and tables: functions of files, and the query for what is missing."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from ld3m_min.commands import parsed
from ld3m_min.config import ALGORITHMS, DistilConfig, own_settings
from ld3m_min.coresets import select
from ld3m_min.errors import InputError
from ld3m_min.experiments import grids, places, questions, running, tables
from ld3m_min.experiments import records as results
from ld3m_min.experiments.cells import RAISED_Z, RANDOM_PRIORS, SEEDLESS
from ld3m_min.io.files import read_json
from ld3m_min.io.values import from_dict
from ld3m_min.presets import eval_preset, preset
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior.presets import prior_preset
from ld3m_min.prior.schedule import alphas_cumprod, ldm_scheduler
from ld3m_min.residual import PAPER_RESIDUAL, PUBLIC_RESIDUAL
from ld3m_min.run import random_real
from ld3m_min.sampler import SamplerConfig, generate_latents, timesteps
from ld3m_min.spaces.build import SPACES
from ld3m_min.storage import Storage
from ld3m_min.systems import LEARNED, SYSTEMS

CHOSEN = [name for name, system in SYSTEMS.items() if system.how == "chosen"]


def run_cli(*words, cwd):
    return subprocess.run(
        [sys.executable, "-m", "ld3m_min", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


@pytest.mark.parametrize("cell", [3, {}, {"dataset": "digits"}, {"speed": 1}])
def test_a_foreign_record_of_a_cell_is_named(tmp_path, cell):
    (tmp_path / "a.json").write_text("[1]")  # of another kind: passed over
    assert results.load_records(tmp_path) == []
    (tmp_path / "b.json").write_text(json.dumps({"cell": cell}))
    with pytest.raises(InputError, match=r"b\.json is no record of a cell: .*[Cc]ell"):
        parsed(["table", "--grid", "smoke", "--records", str(tmp_path)])()


def test_a_cell_becomes_a_record_becomes_a_row(digits, tmp_path):
    absent = grids.missing("smoke", tmp_path / "records")
    assert len(absent) == len(grids.grid("smoke")) and absent[0].space == "random"
    for cell in (absent[0], next(c for c in absent if (c.space, c.algorithm) == ("pixel", "DM"))):
        record = running.make_record(
            cell,
            digits,
            records=tmp_path / "records",
            runs=tmp_path / "runs",
            progress=False,
            architectures=("ConvNet", "AlexNet"),
        )
        assert record == json.loads((tmp_path / "records" / f"{cell.name}.json").read_text())
        assert (
            record["split"] == "test"
            and record["environment"]["torch"]
            and record["seconds"]["evaluate"] > 0
        )
        assert all(len(v) == eval_preset("smoke").repeats for v in record["accuracies"].values())
    assert len(grids.missing("smoke", tmp_path / "records")) == len(absent) - 2
    found = results.load_records(tmp_path / "records")
    frame = tables.table(found, "digits", "smoke")
    assert len(frame) == 2 and list(frame.columns) == [
        "unseen",
        "95 % interval",
        "ConvNet",
        "AlexNet",
        *tables.BYTES,
    ]
    assert tables.table(found, "digits", "cpu").empty
    assert tables.cell_set(cell, tmp_path / "runs").ipc == 1


def test_committed_records_are_whole(tmp_path, monkeypatch):
    """Each committed record belongs to the grid and names its protocol.

    It holds the protocol's repeats of five networks.
    """
    monkeypatch.chdir(tmp_path)  # records are the project's, wherever one stands
    assert len(results.load_records()) >= 14 and len(tables.paper_table(1))
    for record in results.load_records():
        cell = grids.Cell(**record["cell"])
        assert any(cell in grids.grid(g) for g in grids.MEASURED)
        assert len(record["accuracies"]) == 5 and all(
            len(v) == record["evaluation"]["repeats"] for v in record["accuracies"].values()
        )
        splits = {"digits": (1000, 297, 500), "imagenette": (11605, 1289, 500)}[cell.dataset]
        assert record["split"] == "test" and tuple(record["data"]["splits"].values()) == splits
        assert record["environment"]["device"] and record["environment"]["commit"]
        if cell.preset in ("evidence", "photos"):  # of the settings that stand, rates included
            config = from_dict(DistilConfig, record["config"])
            assert own_settings(config) == own_settings(cell.config()), cell.name


def test_command_line(tmp_path):
    listed = run_cli("table", "--missing", "--records", "records", cwd=tmp_path)
    assert listed.returncode == 0 and listed.stdout.count("table --run --only") == len(
        grids.grid("digits")
    )
    made = run_cli("distil", "--preset", "smoke", "--space", "pixel", "--out", "o", cwd=tmp_path)
    assert made.returncode == 0 and (tmp_path / "o" / "set" / "set.json").exists(), made.stderr
    judged = run_cli(
        "evaluate",
        "o/set",
        "--preset",
        "smoke",
        "--architectures",
        "ConvNet",
        "--repeats",
        "2",
        cwd=tmp_path,
    )
    assert judged.returncode == 0 and "95 % interval" in judged.stdout, judged.stderr


def test_names_are_unique_and_commands_lead_back():
    cells = [c for cells in grids.GRIDS.values() for c in cells]
    assert len({c.name for c in cells}) == len(cells)
    for name, cells in grids.GRIDS.items():
        for cell in cells:
            words = grids.command_of(cell).split()
            assert words[words.index("--only") + 1] == cell.name
            assert (words[words.index("--grid") + 1] if "--grid" in words else "digits") == name


def test_missing_names_the_prior_first_and_only_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(places, "RECORDS", tmp_path / "data" / "records")  # no prior is kept
    lines = grids.commands(folder=tmp_path)
    kinds = [line.split(":")[0] for line in lines]
    assert kinds[:10] == [c.name for c in grids.grid("digits")][:10]
    assert "prior imagenette-64" in kinds  # of the photographs at 64 px, before all of their cells
    first = kinds.index("prior imagenette-128")
    assert (
        kinds.count("prior imagenette-128") == 1
        and kinds[first + 1] == "imagenette-nette-random-none-ipc1"
    )
    assert "train-prior --preset imagenette-128 --device cuda --max-seconds 540" in lines[first]
    assert [k for k in kinds if "MTT-ipc1-T" in k] == [
        f"imagenette-nette-ld3m-paper-MTT-ipc1-T{n}" for n in (5, 20, 40, 80)
    ]
    made = tmp_path / grids.prior_folder("imagenette-128") / "model"
    made.mkdir(parents=True)
    (made / "model_index.json").write_text("{}")
    assert grids.prior_path("imagenette-128") == grids.prior_folder("imagenette-128") / "model"
    assert grids.prior_path("digits") == "digits" and grids.prior_path("some/where") == "some/where"
    lines = grids.commands(folder=tmp_path)
    assert not [line for line in lines if line.startswith("prior imagenette-128")]
    at_64 = [line for line in lines if line.startswith("prior imagenette-64")]
    assert len(at_64) == 4 and all(f"--start {grids.AUTOENCODER}" in line for line in at_64)
    kept = tmp_path / "data" / "priors" / "kept"
    kept.mkdir(parents=True)
    assert grids.prior_path("kept") == "kept"  # an empty folder is no prior
    (kept / "model_index.json").write_text("{}")
    assert grids.prior_path("kept") == kept


def test_variants_change_what_they_say():
    def config(variant):
        return grids.Cell("imagenette", "nette", "ld3m-paper", "MTT", 1, variant=variant).config()

    base = config("")
    assert (
        base.sampler.steps == 10
        and base.sampler.residual == PAPER_RESIDUAL
        and base.sampler.eta == 1
        and base.prior == "imagenette-128"
    )
    assert [config(f"T{n}").sampler.steps for n in (5, 20, 40, 80)] == [5, 20, 40, 80]
    assert config("no-residual").sampler.residual.into == "none" and config("no-residual").learn_z
    assert config("c-only").sampler.residual.into == "none" and not config("c-only").learn_z
    z_only = config("z-only")
    assert z_only.learn_z and not z_only.learn_c and z_only.sampler.residual == PAPER_RESIDUAL
    raised = config(RAISED_Z)
    assert replace(raised, z_rate=1.0) == config("no-residual")
    root = float(alphas_cumprod(ldm_scheduler())[timesteps(raised.sampler.steps)[-1]]) ** 0.5
    assert raised.z_rate == pytest.approx(1 / root, rel=0.01)
    assert config("prior-6k").prior == "imagenette-128-6k"
    assert config("256px").size == 256 and config("256px").sampler.steps == 20
    assert all(config(v) == base for v in RANDOM_PRIORS)  # `load_prior` draws their weights
    assert replace(config("other-prior"), prior=base.prior) == base
    assert prior_preset(config("other-prior").prior).dataset == "letters"
    code = grids.Cell("imagenette", "nette", "ld3m-code", "MTT", 1).config().sampler
    assert code.residual == PUBLIC_RESIDUAL and code.eta == 0


def test_the_preset_paper_is_the_paper_and_reference_the_public_code():
    paper, reference = preset("paper", size=256).sampler, preset("reference").sampler
    assert (paper.residual, paper.eta, paper.steps) == (PAPER_RESIDUAL, 1, 20)
    assert preset("paper").sampler == replace(paper, steps=10)
    assert (reference.residual, reference.eta) == (PUBLIC_RESIDUAL, 0)


def test_random_priors_of_a_cell_are_what_they_say(digits):
    """Zero output is the autoencoder alone; the others draw the denoiser, or all, by the seed."""
    trained = LatentDiffusionPrior.from_pretrained("digits")
    x = digits.train.float()[:2]
    Z = trained.encode(x)
    c, noise = trained.class_conditioning(torch.arange(2)), torch.randn_like(Z)

    def cell(variant, seed=0):
        return grids.Cell("digits", "smoke", "ld3m-code", "DC", 1, seed, variant).load_prior()

    def made(prior):
        return generate_latents(prior, Z, c, noise, SamplerConfig(steps=2))

    zero, true, whole = (cell(v) for v in RANDOM_PRIORS)
    assert torch.allclose(made(zero), float(trained.alpha_bar[0]) ** 0.5 * Z, atol=1e-5)
    assert (made(true) - made(zero)).norm() > 0.01 * made(zero).norm()
    assert not torch.allclose(made(true), made(cell("")), atol=1e-2)
    assert torch.equal(true.encode(x), Z) and torch.equal(zero.encode(x), Z)
    assert not torch.allclose(whole.encode(x), Z, atol=1e-2)
    again, other = (cell("random-prior-true", seed) for seed in (0, 1))
    assert again.digest == true.digest != other.digest
    assert all(p.source is None for p in (zero, true, whole))  # no file holds them


def test_evidence_has_every_system_in_six_distillations_and_eight_where_it_was_asked_for():
    cells = grids.grid("evidence")
    learned = {(c.space, c.algorithm) for c in cells if c.system.how == "learned"}
    assert learned == {(name, a) for name in LEARNED for a in ALGORITHMS}
    assert {c.space for c in cells} == set(SYSTEMS)
    for one in {(c.space, c.algorithm) for c in cells}:
        seeds = [c.seed for c in cells if (c.space, c.algorithm) == one]
        many = 8 if grids.Cell("digits", "evidence", *one, 1) in questions.ASKED else 6
        assert seeds == ([0] if one[0] in SEEDLESS else list(range(many)))
    primary = {(name, "DM") for name in ("autoencoder", "ld3m-paper", "ld3m-code")}
    assert {(c.space, c.algorithm) for c in cells[:24]} == primary  # first, seed by seed
    assert [c.seed for c in cells[:24]] == sorted(list(range(8)) * 3)


def test_only_what_knows_no_seed_has_a_single_cell(digits):
    for name in CHOSEN:
        one, other = (select(digits, 1, name, seed=seed).images() for seed in (0, 1))
        same = one.shape == other.shape and torch.equal(one, other)
        assert same == (name in SEEDLESS), name


def test_grid_of_priors_varies_the_prior_alone():
    cells = grids.grid("evidence-priors")
    tuned = {f"{kind}-prior" for kind in ("minimax", "control")}
    assert {c.variant for c in cells} == {*RANDOM_PRIORS, "other-prior"} | tuned
    for c in cells:
        own = replace(c, variant="").config()
        assert replace(c.config(), prior=own.prior) == own and own.prior == "digits"
        assert c.dataset == "digits" and c.ipc == 1


@pytest.mark.parametrize("number, rows", [(1, 90), (2, 36), (3, 42), (4, 20)])
def test_paper_tables(number, rows):
    assert len(tables.paper_table(number)) == rows


def test_unknown_grid_and_cell():
    with pytest.raises(ValueError, match="choose digits"):
        grids.grid("imagenet21k")
    with pytest.raises(
        ValueError, match=r"has no cell .*; of its \d+ cells the nearest are "
    ) as error:
        running.run_grid("evidence-ipc10", only="pixel")
    named = str(error.value).rpartition(" are ")[2].split(", ")
    assert len(named) == 3 and all("pixel" in n for n in named)
    with pytest.raises(ValueError, match="has no cell"):
        running.run_grid("smoke", only="nothing")


def test_random_sets_of_two_seeds_have_none_in_common(digits, monkeypatch):
    """Seed 0 draws as the committed records say: its repeats are the seeds 0, 1, 2, ..."""
    drawn, made = {}, random_real(preset("smoke"), data=digits)
    for seed in (0, 1):
        asked = []
        monkeypatch.setattr(
            running, "distil", lambda c, asked=asked, **options: asked.append(c) or made
        )
        config = preset("smoke", space="pixel", iterations=0, seed=seed)
        running._draw(config, digits, 4, "cpu")
        drawn[seed] = {c.seed for c in asked}
    assert drawn[0] == {0, 1, 2, 3} and not drawn[0] & drawn[1]


@pytest.fixture(scope="module")
def chosen(digits, tmp_path_factory):
    """Records of every system that chooses real images, by name."""
    folder = tmp_path_factory.mktemp("chosen")
    return {
        name: running.make_record(
            grids.Cell("digits", "smoke", name, "none", 1),
            digits,
            records=folder / "records",
            runs=folder / "runs",
            progress=False,
            architectures=("ConvNet",),
        )
        for name in CHOSEN
    }


def test_every_choice_becomes_a_record_that_states_its_bytes(chosen):
    for name, record in chosen.items():
        found = Storage(**record["bytes"])
        assert found.shared == 0 and found.labels == 8 * found.count and found.classes == 10
        assert found.codes == {"pixels": 4 * 3 * 32 * 32 * found.count}
        assert found.images["PNG"] > found.images["WebP"] > 0
        said = record["selection"]
        assert (said is None) == (name == "random") or said["method"] == name
        assert said is None or "positions" not in said
    compressed = Storage(**chosen["webp"]["bytes"])
    assert compressed.files == {"WebP 50": sum(chosen["webp"]["selection"]["bytes"])}
    assert compressed.count == sum(chosen["webp"]["selection"]["images"]) > 100


def test_a_table_says_bytes_and_older_records_do_not(chosen):
    old = {k: v for k, v in chosen["random"].items() if k not in ("bytes", "selection")}
    frame = tables.table([old, *chosen.values()], "digits", "smoke")
    assert list(frame.columns[-4:]) == list(tables.BYTES) and len(frame) == len(chosen) + 1
    assert frame.iloc[0][list(tables.BYTES)].tolist() == ["–"] * 4
    assert frame.index[0][2] == frame.index[1][2] == "random real images"
    rows = frame.iloc[1:].reset_index().set_index("space")
    assert [s.label for s in map(SYSTEMS.get, chosen)] == list(rows.index)
    compressed = rows.loc[SYSTEMS["webp"].label]
    used = chosen["webp"]["selection"]
    assert compressed["kept as"] == "WebP 50" and compressed["shared bytes"] == 0
    assert compressed["bytes a class"] == round(sum(used["bytes"]) / 10) <= 3 * 32 * 32
    assert float(compressed["images a class"]) == sum(used["images"]) / 10
    plain = rows.loc["random real images"]
    assert plain["images a class"] == "1" and plain["kept as"] == "lossless WebP"
    assert tables.table([old], "digits", "smoke")["bytes a class"].tolist() == ["–"]
    assert "–" in tables.table(results.load_records()).to_string()  # those of the project


def test_a_record_of_codes_states_what_is_shared(digits, tiny_prior, tmp_path):
    cell = grids.Cell("digits", "smoke", "ld3m-paper", "DM", 1)
    record = running.make_record(
        cell,
        digits,
        records=tmp_path / "records",
        runs=tmp_path / "runs",
        prior=tiny_prior,
        progress=False,
        architectures=("ConvNet",),
    )
    found = tables.cell_set(cell, tmp_path / "runs").storage()
    assert Storage(**record["bytes"]) == found and found.shared == record["prior"]["bytes"] > 0
    row = tables.table([record], "digits", "smoke").iloc[0]
    assert row["kept as"] == found.smallest.form and row["shared bytes"] == found.smallest.shared
    assert record["selection"] is None


@pytest.mark.parametrize("space", ["random", "pixel"])
def test_a_teachers_labels_are_another_evaluation_of_the_same_set(space, digits, tmp_path):
    algorithm = "none" if space == "random" else "DM"
    hard, soft = (
        running.make_record(
            grids.Cell("digits", "smoke", space, algorithm, 1, variant=variant),
            digits,
            records=tmp_path / "records",
            runs=tmp_path / "runs",
            progress=False,
            architectures=("ConvNet",),
        )
        for variant in ("", "soft-labels")
    )
    assert soft["config"] == hard["config"] and soft["loss"] == hard["loss"]
    assert soft["accuracies"] != hard["accuracies"]
    runs = sorted(f.name for f in (tmp_path / "runs").iterdir())
    assert len(runs) == 2  # the distillation is that of the first, the evaluation its own
    assert not (tmp_path / "runs" / runs[-1] / "set").exists() or space == "random"


def test_several_may_add_to_one_record(tmp_path):
    file = tmp_path / "record.json"

    def add(who):
        for i in range(15):
            results.add_entry(file, {"schema": 1}, "tries", {"key": f"{who}-{i}", "of": who})

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(add, who) for who in range(3)]:
            done.result()
    kept = read_json(file)["tries"]
    assert sorted(e["key"] for e in kept) == sorted(f"{w}-{i}" for w in range(3) for i in range(15))
    again = results.add_entry(file, {"schema": 1}, "tries", {"key": "0-0", "of": "another"})
    assert len(again) == 45 and "another" not in [e["of"] for e in again]


def test_commands_of_what_is_missing_name_another_folder(tmp_path):
    place = tmp_path / "my records"
    lines = grids.commands(["digits"], place)
    assert lines and all(line.endswith(f"--records '{place}'") for line in lines)
    assert not any("--records" in line for line in grids.commands(["evidence"]))


def test_a_mean_of_more_than_one_is_refused_before_any_work(digits, tmp_path):
    cell = grids.Cell("digits", "smoke", "class-mean", "none", 2)
    with pytest.raises(ValueError, match=r"class-mean has one image per class, .* not ipc = 2"):
        running.make_record(cell, digits, records=tmp_path / "r", runs=tmp_path / "runs")
    assert not (tmp_path / "r").exists() and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "cell", [c for c in grids.grid("smoke") if c.space not in CHOSEN], ids=lambda c: c.name
)
def test_every_system_has_a_smoke_row(cell, digits, tmp_path):
    """What `python -m ld3m_min table --grid smoke --run` makes, with one network of the five."""
    record = running.make_record(
        cell,
        digits,
        records=tmp_path / "records",
        runs=tmp_path / "runs",
        prior=cell.load_prior(),
        progress=False,
        architectures=("ConvNet",),
    )
    frame = tables.table(results.load_records(tmp_path / "records"), "digits", "smoke")
    assert frame.index[0][2] == cell.system.label
    assert all(0 <= v <= 1 for v in record["accuracies"]["ConvNet"])
    assert (record["prior"] is not None) == SPACES[cell.system.space].needs_prior
    assert ("shared" in cell.system.kept) == (Storage(**record["bytes"]).shared > 0)
    if cell.system.how == "learned":
        assert len(record["loss"]) == cell.config().iterations and all(record["loss"])
    assert (tmp_path / "records" / f"{cell.name}.png").exists()


def test_any_system_may_be_the_baseline_of_a_comparison(chosen):
    def with_values(record, *values, **cell):
        return record | {"accuracies": {"AlexNet": values}, "cell": record["cell"] | cell}

    base = with_values(chosen["webp"], 0.2, 0.3)
    ours = with_values(chosen["webp"], 0.5, 0.4, space="ld3m-code", algorithm="DM")
    frame = tables.comparisons([base, ours], "webp", "digits", "smoke")
    assert frame["difference"].tolist() == pytest.approx([20.0])
    pixels = with_values(chosen["webp"], 0.1, 0.2, space="pixel", algorithm="DM")
    frame = tables.comparisons([pixels, ours], "pixel", "digits", "smoke")
    assert frame["difference"].tolist() == pytest.approx([30.0])
