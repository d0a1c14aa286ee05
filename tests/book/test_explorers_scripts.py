"""The explorers' scripts give the package's numbers: what node computes, compared."""

import functools
import json

import numpy as np
import pytest
import torch

from ld3m_min.experiments.resampling import hierarchical_bootstrap, sign_flip
from ld3m_min.experiments.statistics import Runs, paired
from ld3m_min.io.seeds import seeded
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.residual import NO_RESIDUAL, PAPER_RESIDUAL, PUBLIC_RESIDUAL, Residual
from ld3m_min.sampler import SamplerConfig, denoise

from .explorers import data, needs_node, run_node


class Recorder(np.random.Generator):
    """A generator that keeps the whole numbers that it gave."""

    def __init__(self, seed):
        super().__init__(np.random.PCG64(seed))
        self.drawn = []

    def integers(self, *args, **kwargs):
        self.drawn.append(super().integers(*args, **kwargs))
        return self.drawn[-1]


def accuracies(seeds, trainings, systems=2):
    rng = np.random.default_rng(seeds)
    return [0.8 + 0.02 * rng.standard_normal((seeds, trainings)) for _ in range(systems)]


@needs_node
def test_quantiles_of_students_t():
    from scipy import stats

    asked = [(p, n) for p in (0.9, 0.975, 0.995) for n in (1, 2, 3, 7, 30)]
    found = run_node(["table.js"], "given.map(([p, n]) => L.table.tQuantile(p, n))", asked)
    assert found == pytest.approx([stats.t.ppf(p, n) for p, n in asked], rel=1e-9)


@needs_node
@pytest.mark.parametrize("seeds", [2, 4])
def test_interval_of_few_seeds_is_the_packages(seeds):
    a, b = accuracies(seeds, 3)
    wanted = hierarchical_bootstrap(a, b, rng=np.random.default_rng(0))
    given = [a.tolist(), b.tolist()]
    found = run_node(["table.js"], "L.table.interval(...given)", given)
    assert found["method"] == wanted.method
    assert [found["low"], found["high"]] == pytest.approx([wanted.low, wanted.high], abs=1e-12)


@needs_node
def test_interval_of_the_same_draws_is_the_packages():
    """The bootstrap's rule, given the numbers that numpy drew."""
    a, b = accuracies(8, 2)
    rng = Recorder(3)
    wanted = hierarchical_bootstrap(a, b, rng=rng, resamples=400)
    seeds, *trainings = (x.tolist() for x in rng.drawn)
    given = {"a": a.tolist(), "b": b.tolist(), "seeds": seeds, "trainings": trainings}
    found = run_node(["table.js"], "L.table.interval(given.a, given.b, {draws: given})", given)
    assert found["method"] == wanted.method == "bootstrap-t"
    assert [found["low"], found["high"]] == pytest.approx([wanted.low, wanted.high], abs=1e-12)


@needs_node
def test_comparison_of_two_systems():
    """Means, difference and p are the package's; the interval up to the page's own draws."""
    networks, seeds = ("A", "B", "C"), tuple(range(8))
    rng = np.random.default_rng(5)
    values = [m + 0.02 * rng.standard_normal((8, 3, 2)) for m in (0.82, 0.80)]
    chosen = ("A", "C")
    wanted = paired(
        *(Runs(n, seeds, networks, v).only(chosen) for n, v in zip("ab", values, strict=True)),
        np.random.default_rng(0),
    )
    systems = [
        {"seeds": {str(s): dict(zip(networks, v[s].tolist(), strict=True)) for s in seeds}}
        for v in values
    ]
    given = [*systems, chosen, [str(s) for s in seeds]]
    found = run_node(["table.js"], "L.table.compare(...given)", given)
    assert found["mean"] == pytest.approx(wanted.mean, abs=1e-12)
    assert found["differences"] == pytest.approx(wanted.differences, abs=1e-12)
    assert found["p"] == pytest.approx(wanted.p, abs=1e-12)
    width = wanted.interval.high - wanted.interval.low
    for end in ("low", "high"):
        assert abs(found["interval"][end] - getattr(wanted.interval, end)) < 0.06 * width


@needs_node
def test_sign_flip():
    lists = [[0.01, 0.02], [0.01, -0.02, 0.03], [0.5, 0.4, 0.1, -0.2, 0.3, 0.2], [0.0, 0.0, 0.0]]
    found = run_node(["table.js"], "given.map(L.table.signFlip)", lists)
    rng = np.random.default_rng(0)
    assert found == pytest.approx([sign_flip(np.array(x), rng=rng) for x in lists])


@needs_node
def test_toy_losses_and_gradients_are_the_packages():
    from explorers import toy

    values = data("losses")
    places = [
        values["points"],
        [[1.5, 0.4], [-0.8, -0.9]],
        [[-0.3, 2.0], [0.7, -0.6]],
        [[0.05, 0.1], [-2.0, 1.0]],
    ]
    for steps, rate in ((5, 1.0), (2, 0.3)):
        student = json.dumps({"steps": steps, "rate": rate})
        expression = f"""given.map((p) =>
            Object.entries(L.losses.toy(L.data.losses)).map(([n, f]) => {{
                const g = (q) => f(q, {student});
                return [n, g(p), L.losses.slope(g, p)]; }}))"""
        found = run_node(["losses.data.js", "losses.js"], expression, places)
        for place, three in zip(places, found, strict=True):
            points = torch.tensor(place, dtype=torch.float64, requires_grad=True)
            wanted = toy.reference(values, points, steps, rate)
            for name, loss, slope in three:
                assert loss == pytest.approx(wanted[name].item(), rel=1e-9)
                (grad,) = torch.autograd.grad(wanted[name], points, retain_graph=True)
                torch.testing.assert_close(torch.tensor(slope).double(), grad, rtol=1e-4, atol=1e-6)


@needs_node
def test_answers_of_the_losses():
    """DC doesn't see lengths; DM's best place is between the clumps, where no point is."""
    expression = """(() => {
        const f = L.losses.toy(L.data.losses), p = L.data.losses.points;
        const down = (n) => {
            let q = p;
            for (let i = 0; i < 200; i++) q = L.losses.descend(f[n], q);
            return q; };
        const out = [0.1, 0.3, 1].map((rate) => {
            const g = (q) => f.MTT(q, {steps: 5, rate});
            let q = p;
            for (let i = 0; i < 200; i++) q = L.losses.descend(g, q);
            return Math.hypot(...q[0]); });
        const longer = p.map((q) => q.map((v) => 3 * v));
        const best = {DC: f.DC(down("DC")), DM: down("DM")};
        return {near: f.DC(p), longer: f.DC(longer), ...best, out}; })()"""
    found = run_node(["losses.data.js", "losses.js"], expression)
    assert found["longer"] == pytest.approx(
        found["near"], abs=2e-3
    )  # of 0 to 8; 1e-6 guards the cosine
    assert found["DC"] < 0.1
    small, middle, large = found["out"]  # at small rates MTT's best points lie further out
    assert small > middle > large
    real = torch.tensor(data("losses")["real"])
    best = torch.tensor(found["DM"])
    assert (best[0] - real[0].mean(0)).norm() < 0.3
    assert (real[0] - best[0]).norm(dim=1).min() > 0.4


@needs_node
def test_weights_of_the_residual():
    asked = [
        (into, decay, k, n)
        for into in ("mean", "x0", "noise", "none")
        for decay in ("linear", "cosine", "sqrt", "exponential", "constant")
        for k, n in ((0, 1), (0, 5), (2, 5), (4, 5))
    ]
    found = run_node(["residual.js"], "given.map((x) => L.residual.weight(...x))", asked)
    wanted = [Residual(into, "noised", decay).weight(k, n) for into, decay, k, n in asked]
    assert found == pytest.approx(wanted, abs=1e-12)


@needs_node
def test_plan_that_fits():
    expression = """[24, 4, 1].map((g) => L.planner.plans(
        L.data.planner.models["cin256-128"], 10, g * 2 ** 30).chosen ?? null)"""
    found = run_node(["planner.data.js", "planner.js"], expression)
    plans = data("planner")["models"]["cin256-128"]["plans"]
    needed = {n: p["weights"] + p["bytes"][0] + 10 * p["bytes"][1] for n, p in plans.items()}
    wanted = [
        next((n for n, b in needed.items() if b <= 0.9 * g * 2**30), None) for g in (24, 4, 1)
    ]
    assert found == wanted and wanted[0] not in (None, "one-pass")


# -- the model in the page -------------------------------------------------------------------------

ROUTES = {
    "none": NO_RESIDUAL,
    "paper": PAPER_RESIDUAL,
    "code": PUBLIC_RESIDUAL,
    "noise": Residual("noise", "clean"),
}
RUNS = [("none", 3), ("paper", 3), ("code", 1), ("noise", 3)]  # route and guidance


@functools.cache
def prior(rounded):
    """The shipped one, its weights rounded to float16 or not."""
    found = LatentDiffusionPrior.from_pretrained("digits")
    for module in found.modules if rounded else ():
        for p in module.parameters():
            p.data = p.data.half().float()
    return found


def generated(rounded, codes, steps):
    """The noise at t = 501, and an image for each route and guidance."""
    model = prior(rounded)
    c = model.class_conditioning(torch.tensor([7]))
    Z, noise = codes
    with torch.no_grad():
        found = {"predicted": model.predict_noise(Z, torch.tensor([501]), c)}
        for name, guidance in RUNS:
            config = SamplerConfig(steps, guidance, residual=ROUTES[name])
            found[f"{name}/{guidance}"] = model.decode(denoise(model, Z, c, noise, config))
    return {k: v.flatten() for k, v in found.items()}


@needs_node
def test_model_in_the_page_is_the_packages():
    """With the same rounded weights it differs by rounding; from the unrounded ones by little."""
    codes = [torch.randn(1, 3, 8, 8, generator=seeded(0, "parity", k)) for k in "Ze"]
    expression = """(async () => {
        const net = await L.live.load(L.data.live, L.data["live.weights"]);
        const about = L.data.live, out = {};
        const [Z, noise] = given.codes.map((x) => Float32Array.from(x));
        const c = net.get("classes").data.subarray(7 * 32, 8 * 32);
        out.predicted = [...L.live.predictNoise(net, Z, 501, c)];
        for (const [route, guidance] of given.runs) {
            let last;
            for (last of L.live.sample(net, about, {Z, noise, c, T: given.T, guidance, route}));
            out[`${route}/${guidance}`] = [...L.live.decode(net, last.z, about.scale)];
        }
        return out; })()"""
    given = {"codes": [x.flatten().tolist() for x in codes], "runs": RUNS, "T": 4}
    files = ["live.data.js", "live.weights.js", "residual.js", "live.js"]
    found = run_node(files, expression, given)
    exact, close = generated(True, codes, 4), generated(False, codes, 4)
    assert set(found) == set(exact)
    for name, values in found.items():
        apart = [(torch.tensor(values) - x[name]).abs().max().item() for x in (exact, close)]
        assert apart[0] < 1e-4 and apart[1] < 1e-2, (name, apart)


@needs_node
def test_timesteps_of_the_page():
    from ld3m_min.sampler import timesteps

    asked = [1, 2, 3, 10, 30, 40, 1000]
    found = run_node(["live.js"], "given.map((T) => L.live.timesteps(T, 1000))", asked)
    assert found == [timesteps(T) for T in asked]
