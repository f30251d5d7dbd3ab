"""Benchmarks of StyleGAN2 and guidance

Convolutions agree, intervals hold, rules of a finished run are made again."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from latent_helpers import Above, Colours

from fairparse.balancing.directions import Direction, write_directions
from fairparse.balancing.guidance import Rule
from fairparse.balancing.latents import sample_latents
from fairparse.balancing.stylegan import (
    GeneratorConfig,
    StyleGAN2Generator,
    modulated_convolution,
    resample_kernel,
)
from fairparse.bench import stylegan as bench
from fairparse.bench.stylegan import (
    grouped_convolution,
    guidance_findings,
    painted_per_accepted,
    random_stylegan,
    rules_of_run,
    sample_until,
    stylegan_cases,
    use_convolution,
)
from fairparse.bench.timing import measure
from fairparse.core.records import YIELDS, write_table
from fairparse.core.runs import InputError, hash_file, write_json
from fairparse.measure.statistics import wilson


@pytest.fixture(autouse=True)
def alone():
    "One thread"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ---- StyleGAN2


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("doubled", [True, False])
def test_convolutions_agree(demodulate, doubled):
    draw = torch.Generator().manual_seed(0)
    x, weight, style = (
        torch.randn(shape, generator=draw) for shape in ((3, 5, 8, 8), (7, 5, 3, 3), (3, 5))
    )
    kernel = resample_kernel([1.0, 3.0, 3.0, 1.0]) if doubled else None
    torch.testing.assert_close(
        grouped_convolution(x, weight, style, demodulate, kernel),
        modulated_convolution(x, weight, style, demodulate, kernel),
        rtol=1e-4,
        atol=1e-5,
    )


def test_official_sizes():
    with torch.device("meta"):
        nets = {
            size: StyleGAN2Generator(random_stylegan(size, 1, "meta").net.config)
            for size in (256, 1024)
        }
    assert nets[256].config.channels == GeneratorConfig().channels and nets[
        1024
    ].config.channels == [512, 512, 512, 512, 512, 256, 128, 64, 32]
    assert (
        sum(p.numel() for p in nets[1024].parameters()) == 30_370_060
    )  # of stylegan2-ffhq-config-f
    with pytest.raises(InputError, match="1024"):
        random_stylegan(512, 1)


def test_stylegan_case_paints_the_same(monkeypatch):
    monkeypatch.setitem(bench.WIDEST, 16, 128)
    monkeypatch.setattr(
        bench,
        "random_stylegan",
        lambda size, batch, device, make=random_stylegan: make(size, batch, device),
    )
    (case,) = stylegan_cases(sizes=(16,), batch=2)
    assert len(measure(case, 1)[1]) == 1 and case.amount == 2
    source, z = random_stylegan(16, 2), np.random.default_rng(0).standard_normal((2, 512))
    ours = source.paint(z)
    with use_convolution(grouped_convolution):
        official = source.paint(z)
    assert np.abs(ours.astype(int) - official).max() <= 1 and ours.std() > 10
    assert bench.stylegan.modulated_convolution is modulated_convolution


# ---- guidance: intervals


def test_interval_covers():
    rng, inside = np.random.default_rng(0), []
    for yield_ in (0.05, 0.5, 0.93):
        painted = 30 + rng.negative_binomial(30, yield_, 2000)
        bounds = np.array([painted_per_accepted(30, n)[1:] for n in painted])
        inside.append(((bounds[:, 0] <= 1 / yield_) & (1 / yield_ <= bounds[:, 1])).mean())
    assert min(inside) >= 0.945 and max(inside) < 0.995


@pytest.mark.parametrize("accepted, painted", [(1, 1), (1, 9), (10, 10), (1000, 20_158)])
def test_interval_holds_its_value(accepted, painted):
    for complete in (True, False):
        value, low, high = painted_per_accepted(accepted, painted, complete)
        assert 1 <= low <= value == painted / accepted <= high
    assert (
        painted_per_accepted(0, painted, False)[0] == painted_per_accepted(0, 0, False)[0] == np.inf
    )


# ---- guidance: sampling to a number of accepted faces


def test_stops_at_the_very_face():
    source, first, second = Colours(), Above(0.5), Above(0.6)
    done = sample_until(Rule("unguided", "yes"), source, first, second, 700, 3)
    z = bench.random_latents(3, 0, done["proposed"], 5)
    says = first.predict(source.paint(z))[:, 1] > 0.5
    assert (
        says.sum() == done["accepted"] == 700
        and says[-1]
        and done["painted"] == done["proposed"] == len(z)
    )
    assert done["confirmed"] == (second.predict(source.paint(z[says]))[:, 1] > 0.5).sum() < 700


class Odd:
    "Paints every third vector"

    name, target, space = "screen", "yes", "z"

    def __call__(self, z):
        return z, np.arange(len(z)) % 3 == 1


class Nothing(Odd):
    "Paints no vector"

    def __call__(self, z):
        return z, np.zeros(len(z), bool)


def test_counts_what_was_painted_and_what_was_drawn():
    source = Colours()
    done = sample_until(Odd(), source, Above(0.0), Above(0.0), 200, 3)
    z = np.concatenate(
        [
            bench.random_latents(3, start, 500, 5)[1::3]
            for start in range(0, done["proposed"] + 500, 500)
        ]
    )
    says = Above(0.0).predict(Colours().paint(z))[:, 1] > 0.5
    assert done["painted"] == np.flatnonzero(says)[199] + 1 and done["confirmed"] == 200
    whole, rest = divmod(done["painted"], 167)  # 500 vectors: 167 are painted (1, 4, ..., 499)
    assert done["proposed"] == 500 * whole + (3 * (rest - 1) + 2 if rest else 0)


def test_ends_without_enough():
    never, rule = Above(9.0), Rule("unguided", "yes")
    assert sample_until(rule, Colours(), never, Above(0.0), 5, 3, most=1200) | {"seconds": 0} == {
        "proposed": 1200,
        "painted": 1200,
        "accepted": 0,
        "confirmed": 0,
        "seconds": 0,
    }
    assert sample_until(rule, Colours(), never, Above(0.0), 5, 3)["painted"] == 300
    done = sample_until(rule, Colours(), Above(0.0), Above(0.0), 5000, 3, most=700)
    assert done["painted"] == done["proposed"] == 700 and 250 < done["accepted"] < 450
    assert sample_until(Odd(), Colours(), never, never, 5, 3, most=170) | {"seconds": 0} == {
        "proposed": 508,
        "painted": 170,
        "accepted": 0,
        "confirmed": 0,
        "seconds": 0,
    }  # 167 of the first 500, then 1, 4 and 7
    assert sample_until(Odd(), Colours(), never, never, 5, 3, drawn=700)["proposed"] == 700
    assert sample_until(Nothing(), Colours(), never, never, 1, 3) | {"seconds": 0} == {
        "proposed": 1000,
        "painted": 0,
        "accepted": 0,
        "confirmed": 0,
        "seconds": 0,
    }


# ---- guidance: a finished run


@pytest.fixture
def run(tmp_path, monkeypatch):
    "Stages of a run with a generator that paints one colour: folders by name"
    judge = Above(1.2)
    monkeypatch.setattr(bench, "open_generator", lambda *_: Colours())
    monkeypatch.setattr(bench, "load_classifier", lambda *_: judge)
    classifier = tmp_path / "classifier"
    classifier.mkdir()
    (classifier / "model.safetensors").write_text("weights")
    sha = hash_file(classifier / "model.safetensors")
    sample_latents(
        tmp_path / "latents", Colours(), judge, 1000, seed=7, identity=sha, say=lambda _: None
    )
    way = np.array([2.0, 0, 0, 0, 0])
    write_directions(
        tmp_path / "guided" / "directions.npz",
        {
            f"{group} ({space})": Direction(group, way if group == "yes" else -way, 0.0, space)
            for group in judge.classes
            for space in ("z", "w")
        }
        | {"smile: yes (z)": Direction("yes", np.ones(5), 0.0)},
    )
    settings = {
        "generator": "standin",
        "psi": 1.0,
        "picture_size": 0,
        "labellers": [],
        "spaces": ["z", "w"],
        "alphas": [1.0, 2.0],
        "odds": [1.0],
        "radii": [0.3],
        "anchors": 5,
        "seed": 20,
    }
    write_json(
        tmp_path / "guided" / "run.json", {"parameters": settings, "inputs": {"somewhere": sha}}
    )

    def collect(rule="shift", alpha=2.0, space="z"):
        rows = [
            {
                "target": group,
                "rule": rule,
                "space": space,
                "alpha": alpha,
                "distance": 2.0,
                "purpose": "collected",
                "proposed": 9,
                "painted": 9,
                "accepted": 9,
                "confirmed": 9,
                "both": 9,
            }
            for group in judge.classes
        ]
        write_table(pd.DataFrame(rows), tmp_path / "guided" / "yields.parquet", YIELDS)

    collect()
    return SimpleNamespace(
        collect=collect,
        folder=tmp_path,
        given={
            "latents": tmp_path / "latents",
            "guided": tmp_path / "guided",
            "classifier": classifier,
        },
    )


@pytest.mark.parametrize(
    "rule, alpha, space",
    [("shift", 2.0, "z"), ("screen", 1.0, "z"), ("region", 0.3, "z"), ("conditional", 1.0, "z")],
)
def test_chosen_rule_is_made_again(run, monkeypatch, rule, alpha, space):
    run.collect(rule, alpha, space)
    settings = json.loads((run.folder / "guided" / "run.json").read_text())
    settings["parameters"]["labellers"] = ["smile"]
    write_json(run.folder / "guided" / "run.json", settings)
    monkeypatch.setattr(
        bench, "load_classifier", lambda *_: SimpleNamespace(task="smile", classes=["no", "yes"])
    )
    ways, _, facts = rules_of_run(**run.given)
    own = list(ways.values())[2]
    assert (
        (own.name, own.alpha, own.space, own.target) == (rule, alpha, space, "yes")
        and facts["group"] == "yes"
        and 0.05 < facts["share"] < 0.2
    )
    assert [r.name for r in list(ways.values())[:2]] == ["unguided", "raw"] and facts["seeds"] == {
        7,
        20,
        21,
        22,
    }
    if rule == "conditional":
        assert own.direction.unit @ np.ones(5) == pytest.approx(0, abs=1e-6)


def test_findings_of_guidance(run):
    found = pd.DataFrame(guidance_findings(**run.given, second="any", wanted=300)).set_index("what")
    plain, raw, ours = (
        found.loc[way]
        for way in ("rejection without guidance", "the paper's rule (raw)", "ours (shift, 2)")
    )
    assert (
        plain.low < 1 / 0.115 < plain.high and 1 < ours.value == raw.value < 2 < plain.value
    )  # 0.115: P(z > 1.2)
    assert (found.part == "guidance").all() and "300 accepted faces of yes" in found.case.iloc[0]
    confirmed = found.loc["ours (shift, 2): confirmed by the second classifier"]
    assert confirmed.value == 100 and confirmed.low == pytest.approx(
        100 * float(wilson(np.array([300]), np.array([300]))[0][0])
    )
    assert found.loc["ours (shift, 2): time"].unit == "s"


def test_run_that_gives_up(run):
    found = pd.DataFrame(guidance_findings(**run.given, second="any", wanted=300, most=500))
    assert "stopped at the last one" in found.note[0] and "stopped" not in found.note[6]


def test_faults_of_a_run(run):
    with pytest.raises(InputError, match="seed 21"):
        guidance_findings(**run.given, second="any", wanted=3, seed=21)
    with pytest.raises(InputError, match="wanted"):
        guidance_findings(**run.given, second="any", wanted=0)
    run.collect("shift", 0.7)
    with pytest.raises(InputError, match="do not give again"):
        rules_of_run(**run.given)
    (run.folder / "other").mkdir()
    (run.folder / "other" / "model.safetensors").write_text("others")
    with pytest.raises(InputError, match="not the classifier that labelled"):
        rules_of_run(**run.given | {"classifier": run.folder / "other"})
    settings = json.loads((run.folder / "guided" / "run.json").read_text())
    write_json(run.folder / "guided" / "run.json", settings | {"inputs": {"somewhere": "another"}})
    with pytest.raises(InputError, match="another classifier"):
        rules_of_run(**run.given)
    (run.folder / "guided" / "yields.parquet").unlink()
    with pytest.raises(InputError, match="62_guide"):
        rules_of_run(**run.given)
