"""Figure 6 and Table II at a glance: what is read, what is drawn

And the notebooks of both tables and the figure, from records to files."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from painting_helpers import FID, LPIPS, measure, save

from fairparse.core.records import write_arrays, write_figure
from fairparse.core.runs import InputError
from fairparse.data.labels import NUM_CLASSES, colour_labels
from fairparse.results.damage import veil_errors
from fairparse.results.painting_figures import (
    draw_quality,
    draw_synthesis,
    read_synthesis_examples,
    synthesis_example_table,
)
from fairparse.results.painting_records import CONTROLNET, OWN, SHARED, Measurements
from fairparse.results.painting_tables import table2
from fairparse.workflow.notebooks import read_cells

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

NAMES = ["single", "linear", "linear_alt", "sigmoid", "piecewise"]


def gathered(*parts):
    "Measurements of several maps, from (values, halves) of each"
    return Measurements(*(pd.concat(tables, ignore_index=True) for tables in zip(*parts)))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def save_examples(folder, maps, settings=("none", "blur_0.3"), faces=3, size=8, seed=0, face=0):
    "examples.npz of the score stage; faces and truth are the same for the same `face`"
    common, rng = np.random.default_rng(face), np.random.default_rng([seed, sum(map(ord, maps))])
    real, truth = (
        common.integers(0, 256, (faces, size, size, 3), dtype=np.uint8),
        common.integers(0, NUM_CLASSES, (faces, size, size), dtype=np.uint8),
    )
    own = rng.integers(0, NUM_CLASSES, (len(settings), faces, size, size), dtype=np.uint8)
    if maps == "truth":
        own = np.broadcast_to(truth, own.shape)
    drawn = {
        kind: rng.integers(0, 256, (len(settings), faces, size, size, 3), dtype=np.uint8)
        for kind in (["shared"] if maps == "truth" else ["own", "shared"])
    }
    arrays = {
        "ids": np.array([f"face {k}" for k in range(faces)]),
        "settings": np.array(settings),
        "real": real,
        "truth": truth,
        "maps": own,
        **drawn,
    }
    write_arrays(folder / maps / "examples.npz", **arrays)
    return arrays


@pytest.fixture
def score(tmp_path):
    "Examples of two parsers and of the truth"
    return tmp_path, {
        name: save_examples(tmp_path, name, ("none",) if name == "truth" else ("none", "blur_0.3"))
        for name in ("single", "linear", "truth")
    }


def test_examples_are_those_of_the_setting(score):
    folder, saved = score
    found = read_synthesis_examples(folder, ["linear", "single"], "blur_0.3", 2, OWN)
    assert list(found["maps"]) == list(found["images"]) == ["linear", "single"] and found[
        "ids"
    ].tolist() == ["face 0", "face 1"]
    assert (
        (found["maps"]["linear"] == saved["linear"]["maps"][1, :2]).all()
        and (found["images"]["single"] == saved["single"]["own"][1, :2]).all()
        and (found["real"] == saved["single"]["real"][:2]).all()
    )


def test_the_shared_generator_brings_the_true_map(score):
    folder, saved = score
    found = read_synthesis_examples(folder, ["single", "truth"], "blur_0.3", 3, SHARED)
    assert list(found["maps"]) == ["single"] and list(found["images"]) == ["single", "truth"]
    assert (found["images"]["single"] == saved["single"]["shared"][1]).all() and (
        found["images"]["truth"] == saved["truth"]["shared"][0]
    ).all()
    (folder / "truth" / "examples.npz").unlink()
    with pytest.raises(InputError, match="truth/examples.npz is missing"):
        read_synthesis_examples(folder, ["single"], "none", 1, SHARED)


@pytest.mark.parametrize(
    "arguments,message",
    [
        (
            (["single"], "blur_0.5", 1),
            "no examples of 'blur_0.5' by this generator: it has .'none', 'blur_0.3'",
        ),
        ((["single"], "none", 4), "has 3 faces: 4 cannot"),
        ((["single"], "none", 0), "0 cannot"),
        ((["truth"], "none", 1), "no parser's maps"),
        (([], "none", 1), "no parser's maps"),
        ((["single"], "none", 1, "diffusion"), "'diffusion' has no examples: choose one of"),
        ((["nobody"], "none", 1), "nobody/examples.npz is missing"),
    ],
)
def test_wrong_requests_are_named(score, arguments, message):
    with pytest.raises(InputError, match=message):
        read_synthesis_examples(score[0], *arguments)


def test_a_controlnet_paints_clean_maps_only(tmp_path):
    arrays = save_examples(tmp_path, "linear")
    write_arrays(tmp_path / "linear" / "examples.npz", **arrays, controlnet=arrays["own"][:1])
    assert (
        read_synthesis_examples(tmp_path, ["linear"], "none", 2, CONTROLNET)["images"]["linear"]
        == arrays["own"][0, :2]
    ).all()
    with pytest.raises(
        InputError, match="no examples of 'blur_0.3' by this generator: it has .'none'"
    ):
        read_synthesis_examples(tmp_path, ["linear"], "blur_0.3", 2, CONTROLNET)


def test_other_faces_are_refused(score):
    save_examples(score[0], "sigmoid", face=1)
    with pytest.raises(
        InputError, match="sigmoid/examples.npz shows other faces than those of single"
    ):
        read_synthesis_examples(score[0], ["single", "sigmoid"])


def test_numbers_of_the_faces_by_hand():
    truth = np.array([[[1, 1], [2, 2]]], np.uint8)
    examples = {
        "setting": "none",
        "model": SHARED,
        "ids": np.array(["a"]),
        "truth": truth,
        "real": np.zeros((1, 2, 2, 3), np.uint8),
        "maps": {"single": np.array([[[1, 1], [1, 2]]], np.uint8)},
        "images": {
            "single": np.full((1, 2, 2, 3), 51, np.uint8),
            "truth": np.zeros((1, 2, 2, 3), np.uint8),
        },
    }
    table = synthesis_example_table(examples).set_index("maps")
    assert table.loc[
        "single", ["map_miou", "map_wrong", "image_difference"]
    ].tolist() == pytest.approx([100 * (2 / 3 + 1 / 2) / 2, 25, 20])
    assert table.loc["truth", ["map_miou", "map_wrong", "image_difference"]].tolist() == [100, 0, 0]


def pictures(fig):
    return [
        [ax.images[0].get_array() for ax in row]
        for row in np.array(fig.axes).reshape(-1, fig.axes[0].get_gridspec().ncols)
    ]


@pytest.mark.parametrize("maps", [["single"], ["single", "linear"]])
@pytest.mark.parametrize("faces", [1, 3])
@pytest.mark.parametrize("model", [OWN, SHARED])
def test_every_picture_is_in_its_place(score, maps, faces, model):
    examples = read_synthesis_examples(score[0], maps, "blur_0.3", faces, model)
    fig = draw_synthesis(examples)
    grid, offset = pictures(fig), 1 + (model == SHARED)
    assert len(grid) == 2 * faces and len(grid[0]) == len(maps) + offset
    for f in range(faces):
        truth = examples["truth"][f]
        assert (grid[2 * f][0] == colour_labels(truth)).all() and (
            grid[2 * f + 1][0] == examples["real"][f]
        ).all()
        if model == SHARED:
            assert (grid[2 * f][1] == colour_labels(truth)).all() and (
                grid[2 * f + 1][1] == examples["images"]["truth"][f]
            ).all()
        for k, name in enumerate(maps, offset):
            assert (grid[2 * f][k] == veil_errors(examples["maps"][name][f], truth)).all() and (
                grid[2 * f + 1][k] == examples["images"][name][f]
            ).all()
    note = fig.texts[-1].get_text().replace("\n", " ")
    assert "blur 0.3" in note and ("one GAN for all" in note) == (model == SHARED)


def overlaps(fig, artists):
    "Pairs of texts that lie on each other"
    boxes = [
        (a.get_text(), a.get_window_extent(fig.canvas.get_renderer()))
        for a in artists
        if a.get_text()
    ]
    return [
        (a, b)
        for k, (a, first) in enumerate(boxes)
        for b, second in boxes[k + 1 :]
        if first.overlaps(second)
    ]


@pytest.mark.parametrize("model", [OWN, SHARED])
@pytest.mark.parametrize("count", [1, 5, 7])
def test_titles_do_not_lie_on_each_other(tmp_path, model, count):
    names = [*NAMES, "sigmoid_alt", "piecewise_alt"][:count]
    for name in [*names, "truth"]:
        save_examples(tmp_path, name, faces=2)
    fig = draw_synthesis(read_synthesis_examples(tmp_path, names, "none", 2, model))
    fig.canvas.draw()
    assert not overlaps(fig, [ax.title for ax in fig.axes] + fig.texts)
    assert fig.get_figwidth() <= 7.2


def quality_table(names=NAMES, **options):
    effects = {"linear": {FID: -3.0}, "sigmoid": {LPIPS: 3.0}}
    return table2(
        gathered(
            *(measure(n, effects.get(n), models=(OWN,), seeds=0.02, **options) for n in names)
        ),
        names,
        0.3,
        "made up",
    )


def points(ax):
    "label -> number of points drawn"
    return {
        line.get_label(): len(line.get_xdata())
        for line in ax.lines
        if not line.get_label().startswith("_")
    }


def test_quality_has_all_values_and_marks_what_is_beyond_chance():
    table = quality_table()
    fig = draw_quality(table)
    for ax, metric in zip(fig.axes, (FID, LPIPS)):
        drawn = {
            line.get_label(): np.sort(line.get_xdata())
            for line in ax.lines
            if line.get_label() in NAMES
        }
        assert list(drawn) == NAMES and ax.get_xlabel() == metric
        for name in NAMES:
            assert drawn[name] == pytest.approx(np.sort(table[table.maps == name][metric]))
        assert sum(len(c.get_segments()) for c in ax.collections) == 25
        verdicts = table[f"{metric}_verdict"].value_counts()
        for word in ("better", "worse"):
            assert sum(
                n for label, n in points(ax).items() if label.endswith(f" {word}")
            ) == verdicts.get(word, 0)
    assert points(fig.axes[0])["linear better"] == 5 and points(fig.axes[1])["sigmoid worse"] == 5
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == [
        "clean",
        "gaussian noise 0.3",
        "blur 0.3",
        "brightness 0.3",
        "darkness 0.3",
    ]


@pytest.mark.parametrize("names", [["single"], ["single", "linear"], ["linear"]])
def test_quality_of_few_parsers(names, tmp_path):
    fig = draw_quality(quality_table(names, note="fewer than 2,048 images: biased upwards"))
    write_figure(fig, tmp_path / "q.png", dpi=60)
    note = fig.texts[-1].get_text().replace("\n", " ")
    assert "fewer than 2,048 images" in note and ("triangle" in note) == ("single" in names)
    assert not overlaps(fig, [*fig.axes[0].get_yticklabels(), *fig.texts])


def test_a_stand_in_is_named_in_the_figure():
    table = table2(
        gathered(
            *(
                measure(
                    n,
                    models=(OWN,),
                    metrics=("fd128_classifier_test", "kd128_classifier_test", "stlpips_alex"),
                )
                for n in ("single", "linear")
            )
        ),
        ["single", "linear"],
        0.3,
        "",
    )
    fig = draw_quality(table)
    assert (
        fig.axes[0].get_xlabel() == "fd128_classifier_test" and "no FID" in fig.texts[-1].get_text()
    )


def test_one_figure_shows_one_generator():
    both = pd.concat([quality_table(["single"]), quality_table(["single"]).assign(model=SHARED)])
    with pytest.raises(InputError, match="one figure shows one generator"):
        draw_quality(both)


# ---- the notebooks


@pytest.mark.parametrize(
    "notebook,out,files",
    [
        (
            "80_table2_perturbed_synthesis",
            "tables/table2_perturbed_synthesis.csv",
            ["tables/table2_perturbed_synthesis.csv"],
        ),
        (
            "80_table4_synthesis",
            "tables/table4_synthesis.csv",
            ["tables/table4_synthesis.csv", "tables/synthesis_seed_spread.csv"],
        ),
        (
            "85_figure6_gan",
            "figures/figure6_gan.png",
            [
                "figures/figure6_gan.csv",
                "figures/figure6_gan.png",
                "figures/figure6_gan_shared.png",
                "figures/synthesis_quality.png",
            ],
        ),
    ],
)
def test_notebooks_write_what_they_say(tmp_path, notebook, out, files):
    for name in [*NAMES, "truth"]:
        save(
            tmp_path,
            name,
            **({"models": (SHARED,), "settings": (("none", 0.0),)} if name == "truth" else {}),
        )
        save_examples(tmp_path, name)
    space = {}
    for source, tags in read_cells(ROOT / "nbs" / "paper" / f"{notebook}.ipynb"):
        exec(source, space)
        if "parameters" in tags:
            space |= {"out": str(tmp_path / out), "score": str(tmp_path)}
    assert sorted(
        str(p.relative_to(tmp_path))
        for folder in ("tables", "figures")
        for p in (tmp_path / folder).glob("*")
    ) == sorted(files)
    if notebook == "80_table4_synthesis":
        assert len(space["metrics"]) == 5
    rows = {
        "80_table2_perturbed_synthesis": 50,
        "80_table4_synthesis": 11,
        "85_figure6_gan": 2 * 5 + 2 * 6,
    }
    assert len(pd.read_csv((tmp_path / out).with_suffix(".csv"))) == rows[notebook]
