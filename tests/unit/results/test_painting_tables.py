"Tables II and IV: planted differences, chance, refusals, the paper's numbers"

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from painting_helpers import DISTANCES, FID, KID, LPIPS, MIOUS, SETTINGS, measure, save

from fairparse.core.records import write_json
from fairparse.core.runs import InputError
from fairparse.measure.scoreboard import Scoreboard
from fairparse.results.painting_records import (
    METRIC_KINDS,
    OWN,
    REPORTED_TABLE2,
    REPORTED_TABLE4,
    SHARED,
    TABLE2_PERTURBATIONS,
    Measurements,
    describe_base,
    describe_scores,
    find_metric,
    maps_title,
    read_quality,
)
from fairparse.results.painting_tables import (
    follow_shares,
    layout_first,
    layout_table2,
    painted_board,
    real_references,
    reported_note,
    seed_spread,
    table2,
    table4,
)


def gathered(*parts):
    "Measurements of several maps, from (values, halves) of each"
    return Measurements(*(pd.concat(tables, ignore_index=True) for tables in zip(*parts)))


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Five parsers and the truth

    The linear one's faces are closer by 3 of each distance, the sigmoid one's further in LPIPS
    alone."""
    folder = tmp_path_factory.mktemp("score")
    planted = {"linear": dict.fromkeys(DISTANCES, -3.0), "sigmoid": {LPIPS: 3.0}}
    for name in ("single", "linear", "linear_alt", "sigmoid", "piecewise"):
        save(
            folder,
            name,
            effects=planted.get(name),
            seeds=0.02,
            note="fewer than 2,048 images: biased upwards",
        )
    save(
        folder,
        "truth",
        models=(SHARED,),
        settings=(("none", 0.0),),
        effects=dict.fromkeys(DISTANCES, -20.0),
        seeds=0.02,
    )
    return folder


NAMES = ["single", "linear", "linear_alt", "sigmoid", "piecewise"]


@pytest.fixture(scope="module")
def five(scores):
    return read_quality(scores, [*NAMES, "truth"])


# ---- names


@pytest.mark.parametrize(
    "names,kind,reference,expected",
    [
        (
            ["fd128_classifier_test", "fid2048_inception_test"],
            "frechet",
            "test",
            "fid2048_inception_test",
        ),
        (
            ["fd128_classifier_test", "fid2048_inception_train"],
            "frechet",
            "test",
            "fd128_classifier_test",
        ),
        (
            ["fid64_inception_test", "fid2048_inception_test"],
            "frechet",
            "test",
            "fid2048_inception_test",
        ),
        (
            ["kd128_classifier_train", "kd128_classifier_test"],
            "kernel",
            "train",
            "kd128_classifier_train",
        ),
        (
            ["stlpips_alex", "lpips_vgg", "lpips_alex", "fid2048_inception_test"],
            "perceptual",
            "test",
            "lpips_alex",
        ),
        (
            ["stlpips_alex", "stlpips_alex_low", "lpips_alex_p"],
            "perceptual",
            "train",
            "stlpips_alex",
        ),
        (
            [
                "fid2048_inception_test_low",
                "fid2048_inception_test_difference",
                "fid2048_inception_test",
            ],
            "frechet",
            "test",
            FID,
        ),
    ],
)
def test_the_metric_is_found(names, kind, reference, expected):
    assert find_metric(names, kind, reference) == expected


@pytest.mark.parametrize(
    "kind,reference", [("frechet", "train"), ("kernel", "test"), ("perceptual", "test")]
)
def test_a_missing_metric_is_named(kind, reference):
    with pytest.raises(InputError, match=f"no {kind} metric.*there are .'fid2048_inception_test'"):
        find_metric([FID, "miou_maps"], kind, reference)


def test_a_stand_in_is_called_one():
    assert "stands beside nothing: fd128_classifier_test is no FID" in reported_note(
        "fd128_classifier_test", LPIPS
    )
    assert "stands beside fid2048" in reported_note(
        FID, "stlpips_alex"
    ) and "beside nothing: stlpips_alex" in reported_note(FID, "stlpips_alex")
    assert (maps_title("truth"), maps_title("linear")) == (
        "Ground truth",
        "Multi-Objective (Linear)",
    )


# ---- the paper's numbers

PRINTED2 = """
U-Net (Single) 363.06 0.435 259.12 0.403 319.57 0.407 367.75 0.431
U-Net (Linear + Alt. Fairness) 373.83 0.419 211.52 0.390 298.46 0.384 293.71 0.417
U-Net (Linear) 322.23 0.434 236.44 0.386 313.02 0.433 285.24 0.425
U-Net (Sigmoid) 349.30 0.437 208.30 0.412 286.38 0.444 331.36 0.456
U-Net (Piecewise) 307.16 0.435 216.98 0.384 330.10 0.439 326.82 0.430"""
PRINTED4 = {
    "pix2pixhd": "117.93 0.4419 99.93 0.4269 107.92 0.4198 117.57 0.4378 98.87 0.4222",
    "controlnet": "261.01 0.7867 257.18 0.7848",
}


def test_reported_values_are_those_of_the_paper():
    printed = [line.rpartition(")")[2].split() for line in PRINTED2.strip().splitlines()]
    for name, numbers in zip(["single", "linear_alt", "linear", "sigmoid", "piecewise"], printed):
        assert list(REPORTED_TABLE2[name]) == ["gaussian_noise", "blur", "brightness", "darkness"]
        assert [x for pair in REPORTED_TABLE2[name].values() for x in pair] == list(
            map(float, numbers)
        )
    for kind, numbers in PRINTED4.items():
        assert [x for pair in REPORTED_TABLE4[kind].values() for x in pair] == list(
            map(float, numbers.split())
        )
    assert list(REPORTED_TABLE4["pix2pixhd"]) == NAMES and list(REPORTED_TABLE4["controlnet"]) == [
        "single",
        "linear",
    ]


# ---- difference and chance


def test_what_all_maps_share_cancels():
    both = gathered(measure("single"), measure("linear", effects=dict.fromkeys(DISTANCES, -3.0)))
    for model in (OWN, SHARED):
        for metric in DISTANCES:
            board = painted_board(both, model, ["single", "linear"], "blur_0.3", metric)
            found = board.difference("linear", "single")
            assert found.image_variance < 0.25 and abs(found.value + 3) < 1
    # the halves themselves vary by 5
    assert both.repetitions(OWN, "linear", "blur_0.3", FID)[1].std() > 3
    own = painted_board(both, OWN, ["single"], "none", FID)
    twins = [dict.fromkeys(("a", "b"), values["single"]) for values in (own.scores, own.resampled)]
    same = Scoreboard(*twins, 120).difference("a", "b")
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_a_board_has_what_all_maps_have():
    parts = measure("single", repetitions=2), measure("truth", repetitions=3, halves=20)
    board = painted_board(gathered(*parts), OWN, ["single", "truth"], "none", "miou_maps")
    assert board.higher and board.images == 120
    assert {own.shape for own in board.scores.values()} == {(2,)}
    assert {own.shape for own in board.resampled.values()} == {(20, 2)}


@pytest.mark.parametrize(
    "repetitions,least,most", [(1, 0.03, 0.08), (2, 0.0, 0.06), (4, 0.01, 0.07)]
)
def test_how_often_chance_is_called_a_difference(repetitions, least, most):
    "Five equal parsers, 200 tables: p-values below 0.05 before they are adjusted"
    rng, p, maps = np.random.default_rng(3), [], list("abcde")
    seeds = 1.0 if repetitions > 1 else 0.0
    for _ in range(200):
        luck = rng.normal(0, 1, 5)
        scores = {m: o + rng.normal(0, seeds, repetitions) for m, o in zip(maps, luck)}
        shared = rng.normal(0, 1, (100, 5))
        halves = {m: scores[m] + shared[:, [k]] for k, m in enumerate(maps)}
        board = Scoreboard(scores, halves, 100)
        p += [board.difference(m, "a").p for m in maps[1:]]
    assert least <= np.mean(np.array(p) < 0.05) <= most


def test_halves_of_a_mean_give_its_standard_error():
    "The delete-half jackknife on a metric whose standard error is known: a mean over 200 faces"
    rng = np.random.default_rng(5)
    faces = rng.normal(0, 1, 200)
    halves = np.array([[faces[rng.permutation(200)[:100]].mean()] for _ in range(2000)])
    level = Scoreboard({"a": faces.mean(keepdims=True)}, {"a": halves}, 200).level("a")
    assert level.error == pytest.approx(faces.std(ddof=1) / 200**0.5, rel=0.06)


# ---- reading


def test_reading(scores):
    found = read_quality(scores, [*NAMES, "truth"])
    assert (
        found.maps == [*NAMES, "truth"]
        and set(found.metrics) == {*DISTANCES, *MIOUS}
        and describe_scores(scores, NAMES) == "procedural faces"
    )
    values, halves = found.repetitions(SHARED, "truth", "none", KID)
    assert (
        values.shape == (2,)
        and halves.shape == (2, 30)
        and found.mean(SHARED, "truth", "none", KID)["value"] == pytest.approx(values.mean())
    )
    with pytest.raises(
        InputError, match="'truth' of pix2pixhd_own was not measured: there are .'linear'"
    ):
        found.mean(OWN, "truth", "none", KID)
    with pytest.raises(
        InputError, match="'blur_0.5' of pix2pixhd_own, single was not measured: .*'blur_0.3'"
    ):
        found.repetitions(OWN, "single", "blur_0.5", KID)


def drop(table, **where):
    "Rows of `table` without those where all columns have the named values"
    return table[~np.logical_and.reduce([table[c] == v for c, v in where.items()])]


@pytest.mark.parametrize(
    "options,message",
    [
        (
            {"metrics": (FID.replace("2048", "192"), KID, LPIPS)},
            "linear and single of pix2pixhd_own cannot be compared: their metrics are",
        ),
        ({"n": 119}, "numbers of images are .119. and .120."),
        ({"settings": SETTINGS[:3]}, "their settings are"),
        ({"repetitions": 3}, r"their repetitions are \[-1, 0, 1, 2\] and \[-1, 0, 1\]"),
        ({"halves": 20}, "their halves are"),
        ({"face": 1}, "linear was scored on other faces than .*single"),
        (
            {"change": lambda q, r: (q.assign(maps="single"), r)},
            r"linear holds scores of the maps \['single'\]",
        ),
        ({"change": lambda q, r: (pd.concat([q, q.head(1)]), r)}, "has a measurement twice"),
        ({"change": lambda q, r: (q, pd.concat([r, r.head(1)]))}, "has a measurement twice"),
        (
            {"change": lambda q, r: (drop(q, seed=-1, metric=KID), r)},
            "means without repetitions .*kid2048",
        ),
        ({"change": lambda q, r: (q.head(0), r)}, "quality.parquet is empty"),
        ({"change": lambda q, r: (q, drop(r, seed=1))}, "repetitions of the halves are"),
        ({"change": lambda q, r: (q, drop(r, metric=FID))}, "their halves are"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, options, message):
    common = {"models": (OWN,), "metrics": (FID, KID, LPIPS)}
    save(tmp_path, "single", **common)
    save(tmp_path, "linear", **{**common, **options})
    with pytest.raises(InputError, match=message):
        read_quality(tmp_path, ["single", "linear"])


def test_missing_files_are_named(tmp_path):
    save(tmp_path, "single", models=(OWN,), metrics=(FID,))
    with pytest.raises(InputError, match="no scores of the maps 'linear': it has .'single'"):
        read_quality(tmp_path, ["single", "linear"])
    with pytest.raises(InputError, match="no maps to read"):
        read_quality(tmp_path, [])
    (tmp_path / "single" / "replicates.parquet").unlink()
    with pytest.raises(InputError, match="replicates.parquet is missing"):
        read_quality(tmp_path, ["single"])


def test_values_without_halves_of_the_first(tmp_path):
    save(
        tmp_path, "single", models=(OWN,), metrics=(FID,), change=lambda q, r: (q, drop(r, seed=0))
    )
    with pytest.raises(InputError, match=r"halves of repetitions \[1\], values of \[-1, 0, 1\]"):
        read_quality(tmp_path, ["single"])


# ---- Table II


def test_table2(five):
    table = table2(five, NAMES, 0.3, "made up")
    assert (
        len(table) == 25
        and not table.isna().all().any()
        and (table.data == "made up").all()
        and (table.images == 120).all()
        and (table.kernel_subset == 60).all()
    )
    assert list(dict.fromkeys(table.perturbation)) == [
        "none",
        *TABLE2_PERTURBATIONS,
    ] and table.severity.unique().tolist() == [0, 0.3]
    for metric in (FID, KID, LPIPS):
        assert {
            metric + end
            for end in (
                "",
                "_low",
                "_high",
                "_difference",
                "_difference_low",
                "_difference_high",
                "_p",
                "_p_adjusted",
                "_verdict",
            )
        } <= set(table)
        assert (table[table.maps == "single"][f"{metric}_verdict"] == "baseline").all() and table[
            table.maps == "single"
        ][f"{metric}_difference"].isna().all()
        assert (table[table.maps == "piecewise"][f"{metric}_verdict"] == "equal within 5 %").all()
        linear = table[table.maps == "linear"]
        assert (
            linear[f"{metric}_difference"].between(-4, -2).all()
            and (linear[f"{metric}_difference_high"] < 0).all()
            and (linear[f"{metric}_verdict"] == "better").all()
            and (linear[f"{metric}_first"] > 0.99).all()
        )  # a lower distance
    sigmoid = table[table.maps == "sigmoid"]
    assert (sigmoid[f"{LPIPS}_verdict"] == "worse").all() and (
        sigmoid[f"{FID}_verdict"] == "equal within 5 %"
    ).all()
    assert (table.tested_over == "images and 2 repetitions").all() and table.note.str.fullmatch(
        f"{FID}, {KID}, {LPIPS}: fewer than 2,048 images: biased upwards"
    ).all()
    blur = table[table.perturbation == "blur"].set_index("maps")
    assert (
        blur.reported_fid["sigmoid"] == 208.30
        and blur.reported_lpips["piecewise"] == 0.384
        and table[table.perturbation == "none"].reported_fid.isna().all()
    )


def test_one_repetition_says_so():
    parts = [
        measure(name, effects=effect, repetitions=1, models=(OWN,))
        for name, effect in (("single", {}), ("linear", {FID: -3.0}))
    ]
    table = table2(gathered(*parts), ["single", "linear"], 0.3, "").query("maps == 'linear'")
    assert (
        (table.tested_over == "images").all()
        and (table[f"{FID}_verdict"] == "better (one training)").all()
        and (table[f"{LPIPS}_verdict"] == "equal within 5 % (one training)").sum() >= 3
    )


def test_without_halves_nothing_is_claimed():
    (q1, r1), (q2, r2) = (
        measure("single", models=(OWN,)),
        measure("linear", models=(OWN,), effects={FID: -30.0}),
    )
    table = table2(
        gathered((q1, r1.head(0)), (q2, r2.head(0))), ["single", "linear"], 0.3, ""
    ).query("maps == 'linear'")
    assert (
        (table[f"{FID}_verdict"] == "too few images for a test").all()
        and (table[f"{FID}_difference"] < -29).all()
        and table[f"{FID}_difference_low"].isna().all()
    )


def test_without_the_baseline_nothing_is_compared():
    table = table2(gathered(measure("linear", models=(OWN,))), ["linear"], 0.3, "")
    assert (table[f"{FID}_verdict"] == "not compared").all() and table[f"{FID}_p"].isna().all()


def test_questions_are_counted():
    "p-values are adjusted within a metric, over all parsers and settings"
    from fairparse.measure.statistics import adjust

    table = table2(gathered(*(measure(n, models=(OWN,)) for n in NAMES)), NAMES, 0.3, "")
    assert table[f"{KID}_p"].notna().sum() == 20 and np.array_equal(
        table[f"{KID}_p_adjusted"], adjust(table[f"{KID}_p"]), equal_nan=True
    )


def test_other_severities_must_have_been_scored(five):
    with pytest.raises(
        InputError, match="'gaussian_noise_0.5' of pix2pixhd_own, single was not measured"
    ):
        table2(five, NAMES, 0.5, "")
    with pytest.raises(InputError, match="'controlnet' was not measured"):
        table2(five, NAMES, 0.3, "", model="controlnet")


def test_the_papers_layout(five):
    table = table2(five, NAMES, 0.3, "")
    wide = layout_table2(table)
    assert (
        wide.columns.tolist()
        == ["clean", "gaussian noise 0.3", "blur 0.3", "brightness 0.3", "darkness 0.3"]
        and wide.columns.name == f"{FID} / {LPIPS}"
    )
    assert (
        wide.index.tolist() == [maps_title(n) for n in NAMES]
        and wide.loc["Multi-Objective (Linear)", "clean"].count("▼") == 2
        and wide.loc["Multi-Objective (Sigmoid)", "clean"].endswith("▲")
    )
    assert "▼" not in "".join(wide.iloc[0]) and wide.iloc[0, 0].startswith(
        f"{table[FID][0]:.4g} / "
    )
    first = layout_first(table)
    assert first.columns.tolist() == wide.columns.tolist() and first.columns.name.endswith(FID)
    assert float(first.loc["Multi-Objective (Linear)", "clean"]) > 0.99
    printed = layout_table2(table, reported=True)
    assert (
        printed.loc["Multi-Objective (Sigmoid)", "blur 0.3"] == "208.30 / 0.412"
        and "clean" not in printed
    )


# ---- Table IV


def test_table4(five):
    table = table4(five, "made up")
    assert (
        table.model.tolist() == [OWN] * 5 + [SHARED] * 6
        and table.maps.tolist() == [*NAMES, *NAMES, "truth"]
        and table.title.iloc[-1] == "Ground truth"
    )
    assert (table.perturbation == "none").all() and not table.isna().all().any()
    for metric in DISTANCES:
        assert (table[table.maps == "linear"][f"{metric}_verdict"] == "better").all()
    truth = table.iloc[-1]
    assert (
        truth[f"{FID}_verdict"] == "better"
        and truth[f"{FID}_difference"] == pytest.approx(-20, abs=1)
        and np.isnan(truth.reported_fid)
    )
    assert (
        table.set_index(["model", "maps"]).reported_lpips[SHARED, "piecewise"]
        == 0.4222
        == table.set_index(["model", "maps"]).reported_lpips[OWN, "piecewise"]
    )
    assert (
        table.miou_maps.between(69, 71).all()
        and table.miou_floor.between(19, 21).all()
        and "miou_floor_p" not in table
        and "miou_followed_verdict" in table
    )
    assert (
        table.follow_share.between(64, 69).all()
        and (table.follow_share_low < table.follow_share).all()
        and (table.follow_share < table.follow_share_high).all()
    )


def test_a_higher_miou_is_better():
    parts = [
        measure(n, models=(OWN,), effects={"miou_followed": e}, seeds=0.01)
        for n, e in (("single", 0), ("linear", 0.05), ("sigmoid", -0.05))
    ]
    table = table4(gathered(*parts), "").set_index("maps")
    assert table.miou_followed_verdict.tolist() == [
        "baseline",
        "better",
        "worse",
    ] and table.miou_followed_difference["linear"] == pytest.approx(5, abs=0.3)


def test_controlnet_rows_come_when_they_are_there():
    parts = [
        measure(
            n, models=(OWN, SHARED, "controlnet") if n in ("single", "linear") else (OWN, SHARED)
        )
        for n in NAMES
    ]
    table = table4(gathered(*parts), "").set_index(["model", "maps"])
    assert (
        table.loc["controlnet"].index.tolist() == ["single", "linear"]
        and table.reported_fid["controlnet", "linear"] == 257.18
        and table.generator["controlnet", "single"] == "a ControlNet for each parser"
    )
    only = table4(gathered(*parts), "", models=["controlnet"])
    assert len(only) == 2
    with pytest.raises(InputError, match="'diffusion' was not scored: there are"):
        table4(gathered(*parts), "", models=["diffusion"])


def test_without_parsed_faces_the_share_is_missing():
    table = table4(
        gathered(measure("single", metrics=DISTANCES), measure("linear", metrics=DISTANCES)), ""
    )
    assert (
        table[["miou_maps", "follow_share", "follow_share_low"]].isna().all().all()
        and table[FID].notna().all()
    )


@pytest.mark.parametrize("followed,share", [(0.2, 0), (0.5, 50), (0.8, 100), (0.86, 110)])
def test_the_share_of_the_way(followed, share):
    both = gathered(
        measure(
            "single",
            models=(OWN,),
            effects={"miou_followed": followed - 0.6},
            images=0,
            seeds=0,
            halves=1,
        )
    )
    assert follow_shares(both, OWN, ["single"]).follow_share[0] == pytest.approx(share, abs=1e-6)


def test_a_ceiling_below_the_floor_gives_no_share():
    both = gathered(measure("single", models=(OWN,), effects={"miou_ceiling": -0.7}))
    assert follow_shares(both, OWN, ["single"]).isna().all(axis=None)


def test_cross_validation_may_leave_no_training_faces():
    metrics = (FID, KID, LPIPS)
    table = table4(
        gathered(measure("single", metrics=metrics), measure("linear", metrics=metrics)), ""
    )
    assert (
        real_references([*metrics, *MIOUS]) == ["test"] == real_references(table.columns)
        and not [c for c in table if "train" in c]
        and table.reported_note.str.contains(LPIPS).all()
    )
    assert real_references(DISTANCES) == ["test", "train"]


# ---- spread


def test_spread_over_trainings(five):
    measurements = five
    spread = seed_spread(measurements, "made up", metrics=[KID])
    assert (
        len(spread) == 11
        and (spread.repetitions == 2).all()
        and (spread.metric == KID).all()
        and (spread.data == "made up").all()
    )
    values, halves = measurements.repetitions(OWN, "linear", "none", KID)
    row = spread.set_index(["model", "maps"]).loc[(OWN, "linear")]
    assert (row["mean"], row["std"], row["min"], row["max"]) == pytest.approx(
        (values.mean(), values.std(ddof=1), values.min(), values.max())
    ) and row.image_error == pytest.approx(halves.std(1, ddof=1).mean())
    assert set(seed_spread(measurements, "").metric) == set(DISTANCES) and set(
        seed_spread(measurements, "", settings=("none", "blur_0.3")).setting
    ) == {"none", "blur_0.3"}
    with pytest.raises(InputError, match="none of .* was measured in the settings .'fog_0.3'"):
        seed_spread(measurements, "", settings=("fog_0.3",))
    assert seed_spread(gathered(measure("single", repetitions=1)), "")["std"].isna().all()


def test_every_kind_has_a_column(five):
    table = table2(five, NAMES, 0.3, "", reference="train")
    assert [find_metric(table.columns, kind, "train") for kind in METRIC_KINDS] == [
        "fid2048_inception_train",
        "kid2048_inception_train",
        LPIPS,
    ] and (table.reference == "train").all()
    assert layout_table2(table).columns.name.startswith("fid2048_inception_train")


def test_no_torch_is_needed():
    modules = ("painting_records", "painting_tables", "painting_figures")
    names = ", ".join(f"fairparse.results.{module}" for module in modules)
    code = f"import sys, {names}; print('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        == "False"
    )


def test_the_base_of_controlnets_is_named_and_bases_are_not_mixed(tmp_path):
    write_json(
        tmp_path / "told" / "run.json",
        {"controlnet_base": "a/b", "controlnet_prompt": "attributes"},
    )
    assert describe_base(tmp_path, ["told"]) == "a/b, told the true attributes"
    for name, more in (
        ("single", {"controlnet_base": "standin"}),
        ("linear", {"controlnet_base": "standin"}),
        ("sigmoid", {}),
        ("piecewise", {"controlnet_base": "someone/else"}),
    ):
        write_json(tmp_path / name / "run.json", {"faces": "drawn", **more})
    assert (
        describe_base(tmp_path, ["single", "linear", "sigmoid"]) == "stand-in base"
        and describe_base(tmp_path, ["sigmoid"]) == ""
        and describe_base(tmp_path, ["piecewise"]) == "someone/else"
    )
    with pytest.raises(InputError, match="cannot be compared"):
        describe_base(tmp_path, ["single", "piecewise"])
