"""Scoring paintings: one pass against separate steps, kept arrays, repetitions

And the notebook from networks to tables."""

import importlib.util

import numpy as np
import pytest
import torch
from helpers import ROOT, make_faces, make_parser
from torch import nn

from fairparse.core.records import QUALITY, REPLICATES, read_arrays, read_table, write_face_set
from fairparse.core.runs import InputError, read_json
from fairparse.gan.pix2pixhd import (
    Generator,
    GeneratorSpec,
    load_generator,
    save_generator,
    to_bytes,
)
from fairparse.gan.train import paint
from fairparse.measure.counts import count_pixels, iou
from fairparse.measure.distances import half_samples
from fairparse.measure.features import (
    Perceptual,
    extract_features,
    load_extractor,
    load_perceptual,
    perceptual_distance,
)
from fairparse.parsing.predict import predict_masks
from fairparse.parsing.unet import load_parser, save_parser
from fairparse.quality.painters import Painter
from fairparse.quality.scoring import (
    PER_FACE,
    KnownFaces,
    Measures,
    join_seeds,
    measure,
    score_paintings,
    scored_set,
    scoring_key,
)
from fairparse.results.painting_records import read_quality
from fairparse.robustness.sweep import make_maps
from fairparse.workflow.notebooks import execute_notebook, job_environment

with_shift_tolerant = pytest.mark.skipif(
    any(importlib.util.find_spec(p) is None for p in ("stlpips_pytorch", "torchsummary")),
    reason="stlpips-pytorch (extra offline) is not installed",
)


class MeanDifference(nn.Module):
    "A perceptual distance that needs no weights"

    def forward(self, first, second):
        return (first - second).abs().mean((1, 2, 3), keepdim=True)


def make_generator(seed=0, **options):
    torch.manual_seed(seed)
    return Generator(
        GeneratorSpec(**{"channels": 4, "downsamplings": 1, "blocks": 1, "size": 32, **options})
    ).eval()


def painter_of(generator):
    return Painter(lambda maps, index: to_bytes(generator(maps)), generator.spec.classes, "cpu")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return make_faces(tmp_path_factory.mktemp("faces"), 24, train=9, valid=3)


@pytest.fixture(scope="module")
def measures():
    return Measures(
        load_extractor("classifier"),
        Perceptual("difference", "none", "cpu", MeanDifference()),
        make_parser(5).eval(),
    )


# ---- one pass


def test_one_pass_is_the_separate_steps(faces, measures):
    rows, generator = np.array([20, 3, 12, 13, 7]), make_generator()
    maps = make_maps(make_parser(1).eval(), faces, rows)
    scored = score_paintings(painter_of(generator), maps, faces, rows, measures, batch_size=5)
    painted = paint(generator, maps)
    again = torch.from_numpy(predict_masks(measures.judge, painted))
    assert set(scored) == set(PER_FACE) and all(len(array) == 5 for array in scored.values())
    assert np.allclose(scored["features"], extract_features(measures.extractor, painted), atol=1e-4)
    assert np.allclose(
        scored["perceptual"],
        perceptual_distance(measures.perceptual, painted, np.array(faces.images[rows])),
        atol=1e-6,
    )
    assert (scored["followed"] == count_pixels(again, torch.from_numpy(maps), 19)).all()
    assert (
        scored["floor"] == count_pixels(again, torch.from_numpy(maps[[1, 2, 3, 4, 0]]), 19)
    ).all()


@with_shift_tolerant
@pytest.mark.parametrize("room, batches", [(0, 0), (2**20, 1), (2**29, 2)])
def test_known_faces_give_the_packages_distance_whatever_is_kept(room, batches):
    perceptual = load_perceptual("stlpips_alex")
    known = KnownFaces(perceptual, room)
    pictures = torch.randint(0, 256, (4, 3, 3, 40, 40), dtype=torch.uint8)
    real = {("a",): pictures[0], ("b",): pictures[1]}
    for painted in pictures[2:]:
        for key, faces in real.items():
            expected = perceptual.net(painted / 127.5 - 1, faces / 127.5 - 1).flatten()
            assert torch.allclose(known.distance(painted, faces, key), expected, rtol=1e-5)
    assert len(known.kept) == batches
    assert known.room + sum(a.nbytes for kept in known.kept.values() for a in kept) == room


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_scores_do_not_depend_on_the_batch(faces, measures, batch_size):
    rows = faces.rows("test")
    maps, generator = make_maps(None, faces, rows), make_generator()
    first, second = (
        score_paintings(painter_of(generator), maps, faces, rows, measures, b)
        for b in (4, batch_size)
    )
    assert np.allclose(first["features"], second["features"], atol=0.02) and np.allclose(
        first["perceptual"], second["perceptual"], atol=1e-3
    )
    for name in ("followed", "floor"):
        assert (
            np.abs(first[name] - second[name]).sum() <= 0.002 * first[name].sum()
        )  # a colour may be rounded otherwise


def test_the_floor_of_faces_that_share_one_map_is_what_is_followed(faces, measures):
    rows = faces.rows("test")
    scored = score_paintings(
        painter_of(make_generator()),
        np.repeat(faces.masks[:1], len(rows), 0),
        faces,
        rows,
        measures,
    )
    assert (scored["floor"] == scored["followed"]).all()


def test_maps_that_do_not_fit_are_refused(faces, measures):
    rows = faces.rows("test")
    maps = make_maps(None, faces, rows)
    for wrong in (maps[:-1], maps[:, :16], maps[:, :, :16]):
        with pytest.raises(InputError, match="do not belong to 12 faces of 32 pixels"):
            score_paintings(painter_of(make_generator()), wrong, faces, rows, measures)
    maps[2, 1, 3] = 19
    with pytest.raises(
        InputError,
        match=f"label map {faces.index.id[rows[2]]} holds the label 19 at row 1, column 3",
    ):
        score_paintings(painter_of(make_generator()), maps, faces, rows, measures)


@pytest.mark.parametrize("who", ["generator", "judge"])
def test_networks_of_other_classes_are_refused(faces, measures, who):
    rows, other = faces.rows("test")[:2], faces.classes[::-1]
    generator = make_generator(classes=other if who == "generator" else faces.classes)
    judge = make_parser(5, classes=tuple(other)).eval() if who == "judge" else measures.judge
    with pytest.raises(InputError, match="other classes"):
        score_paintings(
            painter_of(generator),
            make_maps(None, faces, rows),
            faces,
            rows,
            Measures(measures.extractor, measures.perceptual, judge),
        )


# ---- kept on disk


def arrays(n=3, value=1.0):
    return {
        "features": np.full((n, 4), value, np.float32),
        "perceptual": np.full(n, value),
        "followed": np.ones((n, 19, 3), int),
        "floor": np.ones((n, 19, 3), int),
        "counts": np.ones((n, 19, 3), int),
    }


def test_what_is_there_is_not_made_again(tmp_path, capsys):
    path, calls = tmp_path / "seed0" / "none_own.npz", []

    def make():
        calls.append(1)
        return arrays(value=len(calls))

    first, second = (scored_set(path, "a", make) for _ in range(2))
    assert (
        len(calls) == 1
        and first.keys() == second.keys()
        and all((first[k] == second[k]).all() for k in first)
        and not capsys.readouterr().out
    )
    assert (
        (scored_set(path, "b", make)["features"] == 2).all()
        and len(calls) == 2
        and "made with other networks" in capsys.readouterr().out
    )
    assert (scored_set(path, "b", make)["features"] == 2).all() and len(calls) == 2
    path.unlink()
    scored_set(path, "b", make)
    assert len(calls) == 3 and [p.name for p in path.parent.iterdir()] == ["none_own.npz"]


def test_a_failure_leaves_nothing_behind_and_damaged_arrays_are_named(tmp_path):
    def fail():
        raise InputError("no")

    with pytest.raises(InputError, match="^no$"):
        scored_set(tmp_path / "none_own.npz", "a", fail)
    assert not list(tmp_path.iterdir())
    (tmp_path / "none_own.npz").write_bytes(b"half a file")
    with pytest.raises(InputError, match="none_own.npz is not readable.*delete it"):
        scored_set(tmp_path / "none_own.npz", "a", arrays)


def test_the_key_covers_all_that_decides_a_scored_set(faces, measures, tmp_path):
    weights, other = tmp_path / "a", tmp_path / "b"
    weights.write_text("a"), other.write_text("b")
    plain = dict(
        files=[weights],
        faces=faces,
        rows=faces.rows("test"),
        extractor=measures.extractor,
        perceptual=measures.perceptual,
        more=(("blur", 0.3), 0),
    )

    def key(**changed):
        values = {**plain, **changed}
        return scoring_key(
            *(values[k] for k in ("files", "faces", "rows", "extractor", "perceptual")),
            *values["more"],
        )

    changed = {
        "weights": {"files": [other]},
        "network": {"files": [weights, other]},
        "faces": {
            "faces": write_face_set(
                tmp_path / "faces",
                255 - faces.images,
                faces.masks,
                faces.index,
                faces.classes,
                ["other"],
            )
        },
        "rows": {"rows": faces.rows("test")[::-1]},
        "perceptual": {"perceptual": Perceptual("difference", "another", "cpu", MeanDifference())},
        "severity": {"more": (("blur", 0.5), 0)},
        "seed": {"more": (("blur", 0.3), 1)},
    }
    keys = {name: key(**options) for name, options in changed.items()}
    assert len({key(), *keys.values()}) == 1 + len(keys) and key() == key()


# ---- repetitions


def of(ids, seed):
    return {
        "features": np.array([[float(i), seed] for i in ids]),
        "perceptual": np.array([10.0 * int(i) + seed for i in ids]),
    }


def test_folds_are_pooled_and_repetitions_kept_apart():
    folds = [["3", "1"], ["2", "0"], ["1", "3"], ["0", "2"]]
    order, repetitions = join_seeds(folds, [of(ids, seed) for seed, ids in enumerate(folds)])
    assert order.tolist() == ["0", "1", "2", "3"] and len(repetitions) == 2
    for r, seeds in enumerate(([1, 0, 1, 0], [3, 2, 3, 2])):
        assert repetitions[r]["features"].tolist() == [
            [float(i), s] for i, s in zip(range(4), seeds)
        ] and repetitions[r]["perceptual"].tolist() == [
            10.0 * i + s for i, s in zip(range(4), seeds)
        ]


def test_seeds_of_the_same_faces_are_repetitions_whatever_their_order():
    order, repetitions = join_seeds(
        [["1", "0"], ["0", "1"]], [of(["1", "0"], 0), of(["0", "1"], 5)]
    )
    assert order.tolist() == ["0", "1"] and [r["perceptual"].tolist() for r in repetitions] == [
        [0, 10],
        [5, 15],
    ]


@pytest.mark.parametrize(
    "ids",
    [[["0", "1"], ["1", "2"]], [["0", "1"], ["2", "3"], ["0", "1"]]],
    ids=["overlap", "half a repetition"],
)
def test_faces_that_overlap_in_part_are_refused(ids):
    with pytest.raises(InputError, match="scored faces.*partly overlap"):
        join_seeds(ids, [of(one, 0) for one in ids])


def test_all_metrics_of_a_repetition(faces, measures):
    rows = faces.rows("test")
    truth = torch.from_numpy(np.array(faces.masks[rows]))
    scored = score_paintings(
        painter_of(make_generator()), make_maps(None, faces, rows), faces, rows, measures
    ) | {
        "counts": count_pixels(truth, truth, 19),
        "real": count_pixels(torch.from_numpy(make_maps(measures.judge, faces, rows)), truth, 19),
    }
    real, train = (
        extract_features(measures.extractor, faces.images, rows=r)
        for r in (rows, faces.rows("train"))
    )
    found = {
        m.metric: m
        for m in measure(
            scored,
            real,
            train,
            half_samples(faces.index.id.iloc[rows], 8),
            "fd128_classifier",
            "difference",
        )
    }
    assert list(found) == [
        "fd128_classifier_test",
        "kd128_classifier_test",
        "fd128_classifier_train",
        "kd128_classifier_train",
        "difference",
        "miou_maps",
        "miou_followed",
        "miou_floor",
        "miou_ceiling",
    ]
    assert (
        found["miou_maps"].value == 1
        and found["miou_followed"].value == pytest.approx(iou(scored["followed"]))
        and found["miou_ceiling"].value == pytest.approx(iou(scored["real"]))
    )
    assert found["difference"].value == pytest.approx(scored["perceptual"].mean()) and all(
        m.n == 12 and len(m.replicates) == 8 for m in found.values()
    )
    alone = measure(
        scored,
        real,
        None,
        half_samples(faces.index.id.iloc[rows], 8),
        "fd128_classifier",
        "difference",
    )
    assert [m.metric for m in alone] == [
        name for name in found if not name.endswith("_train")
    ] and alone[0].value == found["fd128_classifier_test"].value


# ---- the notebook


def run_score(tree, maps, **parameters):
    values = {
        "out": str(tree / "score" / maps),
        "maps": maps,
        "faces": str(tree / "faces"),
        "parsers": str(tree / "parsers"),
        "gans": str(tree / "gans"),
        "perturbations": ["blur"],
        "halves": 6,
        "examples": 2,
        "batch_size": 8,
        **parameters,
    }
    with job_environment(1):
        execute_notebook(ROOT / "nbs" / "paper" / "70_score.ipynb", tree / f"{maps}.ipynb", values)
    return tree / "score" / maps


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    "Untrained networks and a face set, scored for the maps of one parser and for the true ones"
    tree = tmp_path_factory.mktemp("tree")
    make_faces(tree / "faces", 24, train=9, valid=3)
    for seed in (0, 1):
        for k, name in enumerate(("single", "linear")):
            save_parser(
                make_parser(10 * k + seed).eval(), tree / "parsers" / name / f"seed{seed}", "model"
            )
        for k, name in enumerate(("linear", "truth")):
            save_generator(make_generator(10 * k + seed), tree / "gans" / name / f"seed{seed}")
    for maps in ("truth", "linear"):
        run_score(tree, maps)
    return tree


@with_shift_tolerant
def test_the_notebook_writes_what_the_tables_read(tree):
    read = read_quality(tree / "score", ["linear", "truth"])
    assert set(read.values.maps) == {"linear", "truth"} and set(read.halves.maps) == {
        "linear",
        "truth",
    }
    quality, replicates = (
        read_table(tree / "score" / "linear" / "quality.parquet", QUALITY),
        read_table(tree / "score" / "linear" / "replicates.parquet", REPLICATES),
    )
    assert (
        set(quality.model) == {"pix2pixhd_own", "pix2pixhd_shared"}
        and set(quality.seed) == {-1, 0, 1}
        and set(zip(quality.perturbation, quality.severity)) == {("none", 0.0), ("blur", 0.3)}
    )
    metrics = {f"{d}128_classifier_{r}" for d in ("fd", "kd") for r in ("test", "train")} | {
        "stlpips_alex",
        "miou_maps",
        "miou_followed",
        "miou_floor",
        "miou_ceiling",
    }
    assert (
        set(quality.metric) == metrics
        and len(quality) == len(metrics) * 3 * 2 * 2
        and len(replicates) == len(quality) * 6
        and (quality.n == 12).all()
        and (quality.low <= quality.high).all()
    )
    assert set(read_table(tree / "score" / "truth" / "quality.parquet", QUALITY).model) == {
        "pix2pixhd_shared"
    }


@with_shift_tolerant
def test_the_numbers_of_the_notebook_are_those_of_its_networks(tree):
    from fairparse.core.records import open_face_set

    face_set = open_face_set(tree / "faces")
    rows, quality = (
        face_set.rows("test"),
        read_table(tree / "score" / "linear" / "quality.parquet", QUALITY)
        .set_index(["model", "perturbation", "metric", "seed"])
        .value,
    )
    for seed in (0, 1):
        parser, judge = (
            load_parser(tree / "parsers" / name / f"seed{seed}") for name in ("linear", "single")
        )
        truth = torch.from_numpy(np.array(face_set.masks[rows]))
        assert quality["pix2pixhd_own", "none", "miou_ceiling", seed] == pytest.approx(
            iou(
                count_pixels(
                    torch.from_numpy(predict_masks(judge, face_set.images[rows])), truth, 19
                )
            ),
            rel=1e-3,
        )
        for perturbation, severity in (("none", 0.0), ("blur", 0.3)):
            maps = make_maps(parser, face_set, rows, perturbation, severity)
            assert quality["pix2pixhd_shared", perturbation, "miou_maps", seed] == pytest.approx(
                iou(count_pixels(torch.from_numpy(maps), truth, 19)), rel=1e-3
            )
            for model, folder in (("own", "linear"), ("shared", "truth")):
                again = torch.from_numpy(
                    predict_masks(
                        judge, paint(load_generator(tree / "gans" / folder / f"seed{seed}"), maps)
                    )
                )
                assert quality[
                    f"pix2pixhd_{model}", perturbation, "miou_followed", seed
                ] == pytest.approx(iou(count_pixels(again, torch.from_numpy(maps), 19)), rel=0.01)


@with_shift_tolerant
def test_the_examples_are_those_of_the_figure(tree):
    linear, truth = (
        read_arrays(
            tree / "score" / maps / "examples.npz",
            "ids",
            "settings",
            "real",
            "truth",
            "maps",
            "shared",
        )
        for maps in ("linear", "truth")
    )
    own = read_arrays(tree / "score" / "linear" / "examples.npz", "own")["own"]
    assert (
        linear["settings"].tolist() == ["none", "blur_0.3"]
        and truth["settings"].tolist() == ["none"]
        and linear["maps"].shape == (2, 2, 32, 32)
        and own.shape == linear["shared"].shape == (2, 2, 32, 32, 3)
    )
    assert (
        (linear["real"] == truth["real"]).all()
        and (truth["maps"][0] == truth["truth"]).all()
        and (own != linear["shared"]).any()
        and linear["ids"].tolist() == truth["ids"].tolist() == ["00012", "00013"]
    )
    assert (
        np.abs(
            paint(load_generator(tree / "gans" / "linear" / "seed0"), linear["maps"][1]).astype(int)
            - own[1]
        ).max()
        <= 1
    )


@with_shift_tolerant
def test_an_interrupted_score_goes_on_and_says_the_same(tree):
    folder = tree / "score" / "linear"
    before, stamps = (
        read_table(folder / "quality.parquet", QUALITY),
        {p: p.stat().st_mtime_ns for p in folder.glob("seed*/*.npz")},
    )
    assert sorted(str(p.relative_to(folder)) for p in stamps) == [
        f"seed{s}/{name}.npz"
        for s in (0, 1)
        for name in ("blur_0.3_own", "blur_0.3_shared", "none_own", "none_shared", "real")
    ]
    lost = folder / "seed1" / "blur_0.3_own.npz"
    lost.unlink()
    (folder / "run.json").unlink(), (folder / "quality.parquet").unlink()
    run_score(tree, "linear")
    assert [p for p, t in stamps.items() if p.stat().st_mtime_ns != t] == [lost]
    assert (
        read_table(folder / "quality.parquet", QUALITY).equals(before)
        and (folder / "run.json").is_file()
    )


@with_shift_tolerant
def test_the_record_names_the_weights_and_the_resizing_of_both_networks(tree):
    parameters, extractor, perceptual = (
        read_json(tree / "score" / "linear" / "run.json")["parameters"],
        load_extractor("classifier"),
        load_perceptual("stlpips_alex"),
    )
    assert (
        parameters["features"] == extractor.conventions()
        and parameters["perceptual"] == perceptual.conventions()
        and extractor.identity != perceptual.identity
    )
