"Audits: equal to our own sweeps, equal to a few independent lines, plain-spoken about bad input"

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from helpers import make_faces, make_index, make_parser
from PIL import Image

from fairparse import cli
from fairparse.core.records import COUNTS, read_table
from fairparse.core.runs import InputError, read_json
from fairparse.data.groups import attribute_groups
from fairparse.data.labels import CLASSES, NUM_CLASSES, PALETTE, flip_order
from fairparse.data.map_folders import (
    face_attributes,
    find_settings,
    list_maps,
    open_truth,
    read_map,
)
from fairparse.data.pixels import label_table
from fairparse.data.worlds import build_synthetic_set, render_faces
from fairparse.measure.counts import count_pixels, gather, gather_with_ids
from fairparse.measure.group_tests import comparison_table, gap_table
from fairparse.parsing.predict import predict_masks
from fairparse.parsing.unet import save_parser
from fairparse.results.audit import audit, count_map, match_faces, named_folders, named_label_maps
from fairparse.results.groups import disparity_blocks
from fairparse.robustness.damaged_images import write_perturbed
from fairparse.robustness.severity import corruption_errors, gather_sweep, severity_table
from fairparse.robustness.sweep import sweep_parser

N, SIDE, QUICK = 24, 16, dict(resamples=40, min_size=4, progress=False)


def save(path, labels, mode=None):
    "A label map as PNG"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(labels))
    (image if mode is None else image.convert(mode)).save(path)
    return path


def random_maps(seed, count=N, height=SIDE, width=SIDE, labels=5):
    "Blocks of four by four pixels"
    blocks = np.random.default_rng(seed).integers(0, labels, (count, height // 4, width // 4))
    return np.kron(blocks, np.ones((4, 4))).astype(np.uint8)


def worsen(maps, seed, share):
    "Maps with a share of the pixels replaced"
    rng = np.random.default_rng(seed)
    return np.where(rng.random(maps.shape) < share, rng.integers(0, 5, maps.shape), maps).astype(
        np.uint8
    )


IDS = [f"face {i}" for i in range(N)]


@pytest.fixture
def world(tmp_path):
    "A truth, its attributes, and two parsers; one of them worse for whoever has a hat"
    truth = random_maps(0)
    hat = np.arange(N) % 2
    maps = {
        "good": worsen(truth, 1, 0.1),
        "unfair": np.where(hat[:, None, None] == 1, worsen(truth, 2, 0.5), worsen(truth, 3, 0.1)),
    }
    for name, labels in {"truth": truth, **maps}.items():
        for id, one in zip(IDS, labels):
            save(tmp_path / name / f"{id}.png", one)
    rows = [f"{id}.jpg,{h},{i % 3 // 2}" for i, (id, h) in enumerate(zip(IDS, hat))]
    (tmp_path / "attributes.csv").write_text("\n".join(["id,Hat,Young", *rows]))
    return tmp_path


def run(world, *names, **options):
    "An audit of the parsers `names`"
    given = {"attributes": world / "attributes.csv", **QUICK, **options}
    return audit(
        {n: world / n for n in names or ["good"]},
        given.pop("truth", world / "truth"),
        world / "out",
        **given,
    )


# ---- numbers


def test_counts_equal_those_of_a_sweep(tmp_path, capsys):
    "Our parser in its own sweep, and as a stranger who reads the damaged images from files"
    faces = build_synthetic_set(tmp_path / "faces", 60, 32, test_share=0.4)
    parser, rows = make_parser(size=32).eval(), faces.rows("test")
    save_parser(parser, tmp_path, "model")
    names = ["gaussian_noise", "blur", "occlusion", "salt_and_pepper", "jpeg", "motion_blur"]
    names += ["hand", "face_mask"]  # whose labels follow
    severities = [0.3, 0.5]
    settings = [("none", 0.0), *((n, s) for n in names for s in severities)]
    sweep_parser(
        parser,
        tmp_path / "model.safetensors",
        faces,
        rows,
        settings,
        tmp_path / "sweep/own/seed0",
        "own",
        0,
        progress=False,
    )
    assert write_perturbed(
        tmp_path / "faces", tmp_path / "images", names, severities, threads=2, progress=False
    ) == len(settings) * len(rows)
    ids = faces.index.id.iloc[rows]
    for folder in filter(Path.is_dir, (tmp_path / "images").iterdir()):
        images = np.stack([np.asarray(Image.open(folder / f"{id}.png")) for id in ids])
        for id, labels in zip(ids, predict_masks(parser, images)):
            save(tmp_path / "maps" / folder.name / f"{id}.png", labels)
    tables = audit(
        {"own": tmp_path / "maps"}, tmp_path / "faces", tmp_path / "out", threads=2, **QUICK
    )
    own, audited = (
        gather_sweep(folder, ["own"], [0], settings)
        for folder in (tmp_path / "sweep", tmp_path / "out" / "counts")
    )
    for setting in settings:
        np.testing.assert_array_equal(own[setting]["own"], audited[setting]["own"])
    assert len({own[setting]["own"].tobytes() for setting in settings}) == len(
        settings
    )  # each damage changes some maps
    for name, table in (
        ("robustness", severity_table(own, resamples=40)),
        ("corruption_error", corruption_errors(own, resamples=40)),
    ):
        same = lambda t: t.sort_values(list(t.columns[1:3]), ignore_index=True)
        pd.testing.assert_frame_equal(same(tables[name]), same(table))
    assert (tmp_path / "out/figures/figure5_robustness.png").stat().st_size > 5000
    assert list(read_json(tmp_path / "out/run.json")["settings"])[0] == "none"
    assert "17 settings" in capsys.readouterr().out


def test_damage_that_moves_labels_has_one_seed(tmp_path):
    build_synthetic_set(tmp_path / "faces", 4, 32)
    with pytest.raises(InputError, match="leave the seed at 0"):
        write_perturbed(tmp_path / "faces", tmp_path / "out", ["blur", "hand"], [0.1], seed=1)


def test_count_map_by_hand():
    true, pred = random_maps(1, 1, labels=19)[0], random_maps(2, 1, labels=19)[0]
    by_hand = [
        [
            ((true == c) & (pred == c)).sum(),
            ((true != c) & (pred == c)).sum(),
            ((true == c) & (pred != c)).sum(),
        ]
        for c in range(NUM_CLASSES)
    ]
    np.testing.assert_array_equal(count_map(true, pred), by_hand)
    np.testing.assert_array_equal(
        count_map(true, pred),
        count_pixels(torch.tensor(pred[None]), torch.tensor(true[None]), NUM_CLASSES)[0],
    )


def test_tables_agree_with_the_functions_called_directly(world):
    made = run(world, "good", "unfair")
    ids, counts = gather_with_ids(world / "out/counts", ["good", "unfair"], [0])
    known = face_attributes(open_truth(world / "truth"), world / "attributes.csv")
    values, names = known.loc[list(ids)].to_numpy(np.int8), ["Hat", "Young"]
    expected = {
        "fairness_gaps": gap_table(counts, values, names, 4, 40),
        "fairness_disparity": disparity_blocks(counts, values, names, "good", 4, 40),
        "fairness_comparison": comparison_table(
            counts, attribute_groups(values, names), "good", 4, 40
        ),
    }
    for name, table in expected.items():
        pd.testing.assert_frame_equal(made[name], table)
        written = pd.read_csv(
            world / f"out/tables/{name}.csv",
            keep_default_na=False,
            na_values={c: "" for c in table.select_dtypes("number")},
        ).select_dtypes("number")
        pd.testing.assert_frame_equal(written, table[written.columns], check_dtype=False, rtol=1e-4)
    assert sorted(p.stem for p in (world / "out/tables").iterdir()) == [
        "class_iou",
        "fairness_comparison",
        "fairness_disparity",
        "fairness_gaps",
        "fairness_groups",
    ]


def test_group_scores_by_hand(world):
    "The figure's numbers from the PNG files in a few independent lines"
    made = run(world, "unfair")["fairness_groups"].set_index("group")
    truth, maps = (
        np.stack([np.asarray(Image.open(world / folder / f"{id}.png")) for id in IDS])
        for folder in ("truth", "unfair")
    )
    for group, member in (
        ("all faces", np.ones(N, bool)),
        ("Hat", np.arange(N) % 2 == 1),
        ("Young", np.arange(N) % 3 == 2),
    ):
        t, p = truth[member], maps[member]
        assert made.miou[group] == pytest.approx(
            100
            * np.mean([((t == c) & (p == c)).sum() / ((t == c) | (p == c)).sum() for c in range(5)])
        )
    assert made.miou["Hat"] < made.miou_low["all faces"] and made["size"]["Hat"] == N // 2


def test_the_unfair_parser_is_found(world, capsys):
    gaps = run(world, "good", "unfair")["fairness_gaps"].set_index(["parser", "attribute"])
    assert gaps.gap_high["unfair", "Hat"] < 0
    assert gaps.p_adjusted["unfair", "Hat"] < 0.1 < gaps.p_adjusted["good", "Hat"]
    text = capsys.readouterr().out
    assert "24 faces (0 without attributes), 2 attributes, 1 setting\n" in text
    assert "worst group" in text
    assert " to " in text


# ---- settings, partial, what is left of earlier audits


def with_settings(world, name, *settings):
    "The maps of `name` moved into none/, and worse copies of them for other settings"
    clean = world / name / "none"
    clean.mkdir()
    for path in list((world / name).glob("*.png")):
        path.rename(clean / path.name)
    for k, setting in enumerate(settings):
        for path in clean.glob("*.png"):
            save(
                world / name / setting / path.name,
                worsen(np.asarray(Image.open(path)), k, 0.1 * (k + 1)),
            )


def test_settings_of_two_parsers_and_then_none(world, capsys):
    for name in ("good", "unfair"):
        with_settings(world, name, "blur_0.1", "blur_0.3", "fog_2")
    made = run(world, "good", "unfair")
    assert made["robustness"].query("parser == 'good'").severity.tolist() == [0, 0.1, 0.3, 2]
    swept = gather_sweep(
        world / "out/counts",
        ["good", "unfair"],
        [0],
        [("none", 0.0), ("blur", 0.1), ("blur", 0.3), ("fog", 2.0)],
    )
    pd.testing.assert_frame_equal(made["corruption_error"], corruption_errors(swept, resamples=40))
    assert (made["corruption_error"].query("parser == 'good'").ce == 100).all()
    assert "unfair: mean corruption error" in capsys.readouterr().out
    np.testing.assert_array_equal(
        swept["none", 0.0]["good"], gather(world / "out/counts", ["good"], [0])["good"]
    )
    assert (world / "out/figures/figure5_robustness.png").is_file()
    flat = audit(
        {"clean": world / "good/none"},
        world / "truth",
        world / "out",
        world / "attributes.csv",
        **QUICK,
    )
    assert "robustness" not in flat and "fairness_comparison" not in flat
    for gone in (
        "figures/figure5_robustness.png",
        "tables/robustness.csv",
        "tables/corruption_error.csv",
        "tables/fairness_comparison.csv",
    ):
        assert not (world / "out" / gone).exists()
    assert (world / "out/figures/figure4_fairness.png").is_file()


def test_partial_compares_what_all_have(world, capsys):
    (world / "good/face 3.png").unlink()
    (world / "unfair/face 5.png").unlink()
    save(world / "good/stranger.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(
        InputError, match=r"good lacks the none maps of 1 of 24 faces \(face 3; .*--partial"
    ):
        run(world, "good", "unfair")
    run(world, "good", "unfair", partial=True)
    ids, counts = gather_with_ids(world / "out/counts", ["good", "unfair"], [0])
    assert len(ids) == N - 2 and not {"face 3", "face 5"} & set(ids)
    text = capsys.readouterr().out
    assert "2 of 24 faces are left out" in text
    assert "1 maps of faces that the truth does not have are ignored" in text


def test_partial_settings(world, capsys):
    with_settings(world, "good", "blur_0.1", "blur_0.3")
    with_settings(world, "unfair", "blur_0.1")
    with pytest.raises(InputError, match="unfair has no maps for the settings blur_0.3"):
        run(world, "good", "unfair")
    made = run(world, "good", "unfair", partial=True)
    assert made["robustness"].severity.unique().tolist() == [0, 0.1]
    assert (
        "settings left out, because not every parser has them: blur_0.3" in capsys.readouterr().out
    )


def test_a_failed_audit_leaves_the_results_of_the_last(world):
    run(world)
    before = {
        p: p.read_bytes()
        for p in (world / "out").rglob("*")
        if p.is_file() and p.name not in (".lock", "run.json")
    }
    save(world / "good/face 9.png", np.full((SIDE, SIDE), 19, np.uint8))
    with pytest.raises(InputError, match="face 9.png holds the label 19"):
        run(world)
    assert {p: p.read_bytes() for p in before} == before and not (world / "out/run.json").exists()
    save(world / "good/face 9.png", np.zeros((SIDE, SIDE), np.uint8))
    run(world)
    assert (world / "out/run.json").is_file()


def test_run_record(world):
    run(world)
    record = read_json(world / "out/run.json")
    assert record["faces"] == N
    assert record["parameters"]["maps"] == {"good": str(world / "good")}
    assert list(record["inputs"]) == [str(world / "attributes.csv")]
    table = read_table(world / "out/counts/good/seed0/counts.parquet", COUNTS)
    assert set(table.parser) == {"good"}
    assert set(table.seed) == {0}
    assert len(table) == N * NUM_CLASSES


# ---- left and right


@pytest.fixture
def drawn(tmp_path):
    "Drawn faces as a truth of which the last four are mirrored, and two parsers without error"
    _, masks, _ = render_faces(N, 64, seed=7)
    viewer = flip_order(CLASSES).astype(np.uint8)[masks]
    truth = masks.copy()
    truth[-4:] = viewer[-4:]
    for name, maps in {"truth": truth, "mine": masks, "viewer": viewer}.items():
        for id, mask in zip(IDS, maps):
            save(tmp_path / name / f"{id}.png", mask)
    (tmp_path / "attributes.csv").write_text("\n".join(["id,Hat", *(f"{id},1" for id in IDS)]))
    return tmp_path


def test_mirrored_faces_of_the_truth_are_named(drawn, capsys):
    run(drawn, "mine")
    said = capsys.readouterr().out
    assert "truth: left and right: 4 of 24 faces are mirrored" in said
    assert "(face 20, face 21, face 22, …)" in said and "prepare --swap-mirrored" in said
    record = read_json(drawn / "out/run.json")
    assert record["sides"]["mirrored"] == IDS[-4:]


def test_a_parser_of_the_viewers_sides_is_told(drawn, capsys):
    run(drawn, "mine", "viewer")
    said = capsys.readouterr().out
    assert "viewer: left lies where the truth has right in 20 of 24 faces" in said
    assert "mine: left lies" not in said


def test_nothing_is_said_of_left_and_right_where_all_is_well(drawn, capsys):
    run(drawn, "mine", truth=drawn / "mine")
    assert "left" not in capsys.readouterr().out


# ---- attributes


def test_unknown_attributes_are_counted_and_in_no_group(world, capsys):
    lines = (world / "attributes.csv").read_text().splitlines()
    (world / "attributes.csv").write_text(
        "\n".join(lines[:-3] + ["face 21.jpg,,", "face 22,0,", "nobody,1,1"])
    )
    gaps = run(world)["fairness_gaps"].set_index("attribute")
    assert (
        "24 faces (2 without attributes)" in capsys.readouterr().out
    )  # 21 is unknown, 23 is not listed
    assert gaps.unknown.to_dict() == {"Hat": 2, "Young": 3} and gaps["with"]["Hat"] == N // 2 - 2


def test_one_attribute_has_a_gap_but_no_disparity(world, capsys):
    (world / "attributes.csv").write_text(
        "\n".join(["id,Hat", *(f"{id},{i % 2}" for i, id in enumerate(IDS))])
    )
    made = run(world, "good", "unfair")
    assert "fairness_disparity" not in made and len(made["fairness_gaps"]) == 2
    text = capsys.readouterr().out
    assert "fewer than two attributes have 4 faces" in text and "unfair: mIoU" in text


def test_celeba_lists_ignore_leading_zeros(tmp_path):
    for i in range(3):
        save(tmp_path / "truth" / f"{i:06d}.png", np.zeros((8, 8), np.uint8))
    (tmp_path / "list.txt").write_text(
        "3\nMale Young\n" + "\n".join(f"{i:06d}.jpg {1 if i else -1} -1" for i in range(3))
    )
    table = face_attributes(open_truth(tmp_path / "truth"), tmp_path / "list.txt")
    assert table.index.tolist() == ["000000", "000001", "000002"]
    assert table.Male.tolist() == [
        0,
        1,
        1,
    ]


def test_ids_are_case_sensitive(world):
    (world / "attributes.csv").write_text("id,Hat\nFACE 1,1")
    with pytest.raises(
        InputError, match="no row for any of the 24 faces, the first of which is 'face 0'"
    ):
        run(world)


def test_attributes_of_a_face_set(tmp_path, capsys):
    index = make_index(N, train=0, valid=0).assign(id=IDS)
    faces = make_faces(tmp_path / "faces", N, index=index)
    for id, mask in zip(IDS, faces.masks):
        save(tmp_path / "truth" / f"{id}.png", mask), save(tmp_path / "mine" / f"{id}.png", mask)
    own = audit({"mine": tmp_path / "mine"}, tmp_path / "faces", tmp_path / "a", **QUICK)
    other = audit(
        {"mine": tmp_path / "mine"}, tmp_path / "truth", tmp_path / "b", tmp_path / "faces", **QUICK
    )
    for name in own:
        pd.testing.assert_frame_equal(own[name], other[name])
    assert np.allclose(own["fairness_groups"].miou, 100)


# ---- layouts, sizes, class lists


def celeba(folder, count=N):
    "A folder in the layout of CelebAMask-HQ: skin, and an eye over it"
    (folder / "CelebA-HQ-img").mkdir(parents=True)
    lines, rng = [str(count), "Hat Young"], np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(
            folder / f"CelebA-HQ-img/{i}.jpg"
        )
        for part, rows in (("skin", slice(2, 14)), ("l_eye", slice(5 + i % 3, 9))):
            mask = np.zeros((16, 16), np.uint8)
            mask[rows, 3:12] = 255
            save(folder / f"CelebAMask-HQ-mask-anno/0/{i:05d}_{part}.png", mask)
        lines.append(f"{i}.jpg {rng.choice([1, -1])} {rng.choice([1, -1])}")
    (folder / "CelebAMask-HQ-attribute-anno.txt").write_text("\n".join(lines))


def test_celebamask_layout(tmp_path, capsys):
    celeba(tmp_path / "data")
    truth = open_truth(tmp_path / "data")
    assert set(np.unique(truth.read(0)[0])) == {0, 1, 4} and truth.read(0)[0].shape == (16, 16)
    for i, id in enumerate(truth.ids):
        save(tmp_path / "mine" / f"{id}.png", np.kron(truth.read(i)[0], np.ones((2, 2), np.uint8)))
    made = audit({"mine": tmp_path / "mine"}, tmp_path / "data", tmp_path / "out", **QUICK)
    assert np.allclose(made["class_iou"].mine.dropna(), 100)
    assert (
        capsys.readouterr().out.count(
            "mine: maps of another size than the truth (32x32 beside 16x16) "
            "are compared at the truth's size"
        )
        == 1
    )
    assert open_truth(tmp_path / "data", size=8).read(0)[0].shape == (8, 8)


def test_images_and_labels_layout(world):
    for id in IDS:
        save(
            world / "data/labels" / f"{id}.png",
            np.asarray(Image.open(world / "truth" / f"{id}.png")),
        )
        save(world / "data/images" / f"{id}.png", np.zeros((SIDE, SIDE, 3), np.uint8))
    shutil.copy(world / "attributes.csv", world / "data/attributes.csv")
    flat, folder = run(world), run(world, truth=world / "data", attributes=None)
    for name in flat:
        pd.testing.assert_frame_equal(flat[name], folder[name])


@pytest.mark.parametrize("shape", [(16, 24), (24, 16)])
def test_maps_that_are_not_square(tmp_path, shape):
    truth = random_maps(0, 1, *shape)[0]
    path = save(tmp_path / "truth/a.png", truth)
    double = save(tmp_path / "b.png", np.kron(truth, np.ones((2, 2), np.uint8)))
    read, full = read_map(double, label_table(), truth.shape[::-1])
    np.testing.assert_array_equal(read, truth)
    assert full == (2 * shape[1], 2 * shape[0]) and read_map(path, label_table())[1] == shape[::-1]
    assert open_truth(tmp_path / "truth", size=8).read(0)[0].shape == (8, 8)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "I;16", "palette colours"])
def test_kinds_of_png(tmp_path, mode):
    labels = random_maps(0, 1, labels=19)[0]
    if mode == "P":
        image = (
            Image.fromarray(labels, "P")
            if "mode" in inspect.signature(Image.fromarray).parameters
            else Image.fromarray(labels)
        )
        image.putpalette(np.random.default_rng(0).integers(0, 255, 768).tolist())
        image.save(tmp_path / "a.png")
        assert Image.open(tmp_path / "a.png").mode == "P"
    else:
        save(
            tmp_path / "a.png",
            PALETTE[labels]
            if mode == "palette colours"
            else labels.astype(np.uint16)
            if mode == "I;16"
            else labels,
            "RGB" if mode == "RGB" else None,
        )
    np.testing.assert_array_equal(read_map(tmp_path / "a.png", label_table())[0], labels)


def packed(path, labels, places, colours):
    "The same picture, its labels at other places of the palette"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(places[labels].astype(np.uint8))
    image.putpalette(np.asarray(colours, np.uint8).tobytes())
    image.save(path)


def packed_maps(world, each):
    "The truth in palettes whose places are dealt anew, once for all maps or for each"
    rng = np.random.default_rng(0)
    places = rng.permutation(19)
    for path in (world / "truth").glob("*.png"):
        places = rng.permutation(19) if each else places
        colours = PALETTE[np.argsort(places)]
        packed(world / "packed" / path.name, np.asarray(Image.open(path)), places, colours)


@pytest.mark.parametrize("each", [False, True], ids=["one palette", "a palette each"])
def test_packed_maps_have_the_score_of_their_colours(world, each):
    packed_maps(world, each)
    expected = run(world, "good")["class_iou"].good
    assert (run(world, "packed")["class_iou"].packed.dropna() == 100).all()
    assert run(world, "good", truth=world / "packed")["class_iou"].good.equals(expected)


def test_twelve_maps_of_all_labels_packed(tmp_path, capsys):
    maps, places = random_maps(7, 12, labels=19), np.random.default_rng(1).permutation(19)
    for i, labels in enumerate(maps):
        save(tmp_path / f"truth/{i}.png", labels)
        packed(tmp_path / f"mine/{i}.png", labels, places, PALETTE[np.argsort(places)])
    rows = [f"{i},{i % 2}" for i in range(12)]
    (tmp_path / "attributes.csv").write_text("\n".join(["id,Hat", *rows]))
    given = ["--maps", tmp_path / "mine", "--truth", tmp_path / "truth", "--out", tmp_path / "out"]
    more = ["--attributes", tmp_path / "attributes.csv", "--min-size", "2", "--resamples", "20"]
    assert cli.main(["audit", *map(str, [*given, *more])]) in (0, None)
    table = pd.read_csv(tmp_path / "out/tables/class_iou.csv").set_index("class")
    assert table.mine["mean"] == 100


def test_maps_of_two_readings_are_refused_before_anything_is_written(world):
    packed_maps(world, False)
    image = Image.fromarray(random_maps(1)[0])
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128])
    image.save(world / "packed" / "face 3.png")
    with pytest.raises(InputError, match="two readings: .*face 3.png has nothing to do with"):
        run(world, "packed")
    assert not (world / "out" / "tables").exists()


def test_other_class_lists(world):
    "Two parsers and the truth, each with numbers of its own"
    before = run(world, "good", "unfair")
    for name, offset in (("good", 100), ("unfair", 10), ("truth", 50)):
        for path in (world / name).glob("*.png"):
            save(path, np.asarray(Image.open(path)) + np.uint8(offset))
        (world / f"{name}.json").write_text(
            json.dumps({str(offset + k): CLASSES[k] for k in range(5)})
        )
    with pytest.raises(
        InputError, match="good/face .*png holds the label 10.: known labels are 0-18.*--label-map"
    ):
        run(world, "good", truth_map=world / "truth.json")
    after = run(
        world,
        "good",
        "unfair",
        label_maps={n: world / f"{n}.json" for n in ("good", "unfair")},
        truth_map=world / "truth.json",
    )
    for name in before:
        pd.testing.assert_frame_equal(before[name], after[name])


# ---- bad input


def break_maps(world, what):
    "Damage the maps of `good` or their surroundings"
    good, path = world / "good", world / "good/face 7.png"
    if what == "no folder":
        shutil.rmtree(good)
    elif what == "empty":
        [p.unlink() for p in good.iterdir()]
    elif what == "jpeg":
        [p.rename(p.with_suffix(".jpg")) for p in good.iterdir()]
    elif what == "unreadable":
        path.write_bytes(path.read_bytes()[:60])
    elif what == "no image":
        path.write_text("hello")
    elif what == "value":
        save(path, np.full((SIDE, SIDE), 23, np.uint8))
    elif what == "colours":
        save(path, np.full((SIDE, SIDE, 3), (9, 8, 7), np.uint8))
    elif what == "shape":
        save(path, np.zeros((SIDE, 2 * SIDE), np.uint8))
    elif what == "two files":
        save(good / "face 7.jpg.png", np.zeros((SIDE, SIDE), np.uint8))
    elif what == "missing":
        [(good / f"face {i}.png").unlink() for i in (1, 2, 3, 4)]
    elif what == "no clean maps":
        with_settings(world, "good", "blur_0.1"), shutil.rmtree(good / "none")
    elif what == "both":
        save(good / "none/face 1.png", np.zeros((SIDE, SIDE), np.uint8))
    elif what == "no setting":
        with_settings(world, "good", "results")
    elif what == "severity":
        with_settings(world, "good", "blur_nan")
    elif what == "twice":
        with_settings(world, "good", "blur_0.1", "blur_0.10")
    elif what == "empty setting":
        with_settings(world, "good"), (good / "blur_0.1").mkdir()
    elif what == "no truth":
        shutil.rmtree(world / "truth")
    elif what == "empty truth":
        [p.unlink() for p in (world / "truth").iterdir()]
    elif what == "truth value":
        save(world / "truth/face 7.png", np.full((SIDE, SIDE), 30, np.uint8))
    elif what == "no attributes":
        (world / "attributes.csv").unlink()
    elif what == "nobody":
        (world / "attributes.csv").write_text("id,Hat\nsomebody,1")
    elif what == "flags":
        (world / "attributes.csv").write_text("id,Hat\nface 1,yes")
    elif what == "no id":
        (world / "attributes.csv").write_text("name,Hat\nface 1,1")
    elif what == "only ids":
        (world / "attributes.csv").write_text("id\nface 1")
    else:
        raise AssertionError(what)


@pytest.mark.parametrize(
    "what, words",
    [
        ("no folder", "good is not a folder.*--maps mine=DIR"),
        ("empty", "good holds no label maps.*one PNG a face"),
        ("jpeg", "no label maps.*no JPEG"),
        ("unreadable", "face 7.png is not a readable image.*replace it"),
        ("no image", "face 7.png is not a readable image"),
        ("value", "face 7.png holds the label 23: known labels are 0-18; mend it, or map"),
        (
            "colours",
            r"face 7.png holds the colour \(9, 8, 7\).*grey or palette image of label values",
        ),
        ("shape", "face 7.png is 32x16, but its truth is 16x16.*without cropping"),
        ("two files", "two files for the id 'face 7': remove one"),
        (
            "missing",
            r"good lacks the none maps of 4 of 24 faces \(face 1, face 2, face 3, …; "
            r"a map that is there: .*png\): add them, or .*--partial",
        ),
        ("no clean maps", "good has blur_0.1, but no none/"),
        ("both", "holds label maps and the settings none"),
        ("no setting", "results is not the folder of a setting"),
        ("severity", "blur_nan: a severity is a number"),
        ("twice", "second folder of the setting blur_0.1"),
        ("empty setting", "blur_0.1 holds no label maps"),
        ("no truth", "truth holds no true label maps"),
        ("empty truth", "truth holds no true label maps"),
        ("truth value", "truth/face 7.png holds the label 30"),
        ("no attributes", "attributes.csv is neither an attribute file nor a face set"),
        ("nobody", "no row for any of the 24 faces.*write the ids like the maps' names"),
        ("flags", "'Hat' holds 'yes' for the id 'face 1'"),
        ("no id", "no column 'id'"),
        ("only ids", "attributes.csv has no attributes: add a column"),
    ],
)
def test_bad_input_is_named_with_a_remedy(world, what, words):
    break_maps(world, what)
    with pytest.raises(InputError) as error:
        run(world)
    assert re.search(words, str(error.value).replace("\n", " ")), error.value
    assert not (world / "out/tables").exists() and not (world / "out/counts").exists()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"attributes": None}, "truth has no attributes: name a file with --attributes"),
        ({"size": 4}, "size is 4"),
        ({"label_maps": {"other": "x.json"}}, "'other', which is no parser: there are good"),
        ({"label_maps": {"good": "absent.json"}}, "absent.json is missing"),
        ({"min_size": 100}, "no group has 100 faces or more"),
    ],
)
def test_bad_options(world, options, words):
    with pytest.raises(InputError, match=words):
        run(world, **options)


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "two\nlines"])
def test_names_that_no_folder_can_have(world, name):
    with pytest.raises(InputError, match="cannot be a parser's name"):
        audit({name: world / "good"}, world / "truth", world / "out", world / "attributes.csv")


def test_two_faces_of_one_name(tmp_path):
    index = make_index(4, train=0, valid=0).assign(id=["a/1", "a/2", "b/1", "b/2"])
    make_faces(tmp_path / "faces", 4, index=index)
    with pytest.raises(InputError, match="two faces called '1'"):
        open_truth(tmp_path / "faces").stems
    with pytest.raises(InputError, match="two faces are called '1'"):
        write_perturbed(tmp_path / "faces", tmp_path / "out", ["blur"], [0.1])
    with pytest.raises(InputError, match="no faces in the split 'train'.*--split all"):
        open_truth(tmp_path / "faces", "train")


def test_face_sets_of_several_folders_match_by_the_last_part(tmp_path):
    index = make_index(4, train=0, valid=0).assign(id=["a/1", "a/2", "b/3", "b/4"])
    faces = make_faces(tmp_path / "faces", 4, index=index)
    for i, mask in enumerate(faces.masks):
        save(tmp_path / "mine" / f"{i + 1}.png", mask)
    truth = open_truth(tmp_path / "faces")
    rows, _, _ = match_faces(truth, {"mine": find_settings(tmp_path / "mine")})
    assert len(rows) == 4 and face_attributes(truth).index.tolist() == ["a/1", "a/2", "b/3", "b/4"]
    with pytest.raises(InputError, match="two files"):
        save(tmp_path / "mine/1.jpg.png", faces.masks[0]), list_maps(tmp_path / "mine")


def test_no_torch_is_needed():
    modules = ("results.audit", "robustness.damaged_images", "results.groups", "results.damage")
    imports = ", ".join(f"fairparse.{module}" for module in modules)
    code = f"import sys, {imports}; print('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        == "False"
    )


# ---- damaged images


def photographs(folder, *shapes):
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate(shapes):
        save(folder / f"{i}.png", rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_perturb_writes_each_setting_and_goes_on(tmp_path):
    photographs(tmp_path / "in", (16, 16), (20, 32), (16, 16))
    write = lambda **options: write_perturbed(
        tmp_path / "in",
        tmp_path / "out",
        ["gaussian_noise", "occlusion"],
        [0.1, 0.5],
        progress=False,
        **options,
    )
    assert write() == 15
    first = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.png")}
    assert len(first) == 15
    assert {p.parent.name for p in first} == {
        "none",
        "gaussian_noise_0.1",
        "gaussian_noise_0.5",
        "occlusion_0.1",
        "occlusion_0.5",
    }
    for i in range(3):
        np.testing.assert_array_equal(
            Image.open(tmp_path / f"out/none/{i}.png"), Image.open(tmp_path / f"in/{i}.png")
        )
    assert Image.open(tmp_path / "out/occlusion_0.5/1.png").size == (32, 20)
    for path in list(first)[:4]:
        path.unlink()
    assert write() == 4 and write() == 0 and {p: p.read_bytes() for p in first} == first
    photographs(tmp_path / "in", (16, 16))  # changed after it was damaged
    assert write(threads=2) == 5
    with pytest.raises(InputError, match="made with another seed: choose another folder"):
        write(seed=1)
    with pytest.raises(InputError, match="made with another size"):
        write(size=16)


def test_perturb_reads_what_a_face_set_reads(tmp_path):
    "An image resized from its file equals the one in a face set of that size, damage included"
    from fairparse.data.faceset import build_face_set

    celeba(tmp_path / "data", 4)
    build_face_set(tmp_path / "set", tmp_path / "data", size=24, progress=False)
    for data, out, options in (("data", "a", {"size": 24}), ("set", "b", {"split": "all"})):
        write_perturbed(
            tmp_path / data, tmp_path / out, ["salt_and_pepper"], [0.2], progress=False, **options
        )
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.png"))
    assert len(files) == 8
    for file in files:
        np.testing.assert_array_equal(
            Image.open(tmp_path / "a" / file), Image.open(tmp_path / "b" / file)
        )


@pytest.mark.parametrize(
    "options, words",
    [
        ({"perturbations": ["blurr"]}, "no perturbation 'blurr'.*did you mean"),
        ({"severities": [1.5]}, "severity must lie in 0..1"),
        ({"data": "empty"}, "empty holds no images"),
        ({"size": 2}, "size is 2"),
    ],
)
def test_perturb_bad_input(tmp_path, options, words):
    photographs(tmp_path / "in", (16, 16))
    (tmp_path / "empty").mkdir()
    given = {"data": "in", "perturbations": ["blur"], "severities": [0.1], **options}
    with pytest.raises(InputError, match=words):
        write_perturbed(tmp_path / given.pop("data"), tmp_path / "out", progress=False, **given)
    assert not (tmp_path / "out").exists()


# ---- command line


def test_names_of_folders(tmp_path):
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert named_folders(["mine=x/y", "z/other/", str(odd)]) == {
        "mine": "x/y",
        "other": "z/other/",
        "a=b": str(odd),
    }
    with pytest.raises(InputError, match="two parsers are called 'maps'"):
        named_folders(["a/maps", "b/maps"])
    with pytest.raises(InputError, match="names no folder"):
        named_folders(["mine="])
    assert named_label_maps(["a.csv", "q=b.csv"], ["p", "q"]) == {"p": "a.csv", "q": "b.csv"}


def test_audit_command(world, capsys):
    quick = ["--resamples", "40", "--min-size", "4", "--threads", "2"]
    assert (
        cli.main(
            [
                "audit",
                "--maps",
                f"mine={world / 'good'}",
                str(world / "unfair"),
                "--truth",
                str(world / "truth"),
                "--attributes",
                str(world / "attributes.csv"),
                "--out",
                str(world / "out"),
                *quick,
            ]
        )
        == 0
    )
    assert pd.read_csv(world / "out/tables/fairness_disparity.csv").parser.tolist() == [
        "mine",
        "unfair",
    ]
    assert "24 faces" in capsys.readouterr().out
    assert (
        cli.main(
            [
                "audit",
                "--maps",
                str(world / "absent"),
                "--truth",
                str(world / "truth"),
                "--out",
                str(world / "out2"),
            ]
        )
        == 2
    )
    assert "error: " in capsys.readouterr().err and not (world / "out2").exists()


def test_perturb_command(tmp_path, capsys):
    photographs(tmp_path / "in", (16, 16))
    command = [
        "perturb",
        "--data",
        str(tmp_path / "in"),
        "--out",
        str(tmp_path / "out"),
        "--perturbations",
        "blur",
        "darkness",
        "--severities",
        "0.1",
        "0.5",
        "--threads",
        "1",
    ]
    assert cli.main(command) == 0 and "5 images written" in capsys.readouterr().out
    assert cli.main([*command[:-2], "--seed", "3"]) == 2
    assert "another seed" in capsys.readouterr().err


def test_what_parse_wrote_can_be_audited(tmp_path):
    "Damaged images, our own command on them, and the folder that it wrote"
    faces = build_synthetic_set(tmp_path / "faces", 40, 32, test_share=0.5)
    parser = make_parser(size=32).eval()
    save_parser(parser, tmp_path / "parser")
    rows = faces.rows("test")
    assert write_perturbed(
        tmp_path / "faces", tmp_path / "damaged", ["blur"], [0.3], progress=False
    ) == 2 * len(rows)
    assert (
        cli.main(
            [
                "parse",
                str(tmp_path / "damaged"),
                "--faces",
                "whole",
                "--parser",
                str(tmp_path / "parser"),
                "--out",
                str(tmp_path / "maps"),
                "--threads",
                "1",
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    tables = audit({"mine": tmp_path / "maps"}, tmp_path / "faces", tmp_path / "out", **QUICK)
    clean = gather_sweep(tmp_path / "out/counts", ["mine"], [0], [("none", 0.0), ("blur", 0.3)])[
        ("none", 0.0)
    ]["mine"]
    expected = np.stack(
        [
            count_map(true, pred)
            for true, pred in zip(faces.masks[rows], predict_masks(parser, faces.images[rows]))
        ]
    )
    assert (
        np.abs(clean.reshape(expected.shape) - expected).sum() < 0.01 * expected.sum()
    )  # batches of another size may tip a pixel
    assert "blur" in set(tables["robustness"].perturbation)


def test_overlays_are_passed_over_beside_their_map_only(tmp_path):
    for name in ("a.labels.png", "a.overlay.png", "b.overlay.png", "c.png"):
        save(tmp_path / name, np.zeros((SIDE, SIDE), np.uint8))
    assert list(list_maps(tmp_path)) == ["a", "b.overlay", "c"]
    assert list_maps(tmp_path)["a"].endswith("a.labels.png")
    save(tmp_path / "a.png", np.zeros((SIDE, SIDE), np.uint8))
    with pytest.raises(InputError, match="two files for the id 'a'"):
        list_maps(tmp_path)


# ---- real faces


def test_true_maps_shifted_by_a_few_pixels(tmp_path, real_data, capsys):
    data = real_data / "CelebAMask-HQ"
    if not data.is_dir():
        pytest.skip(f"{data} is not there")
    truth = open_truth(data, size=128)
    for i, id in enumerate(truth.ids):
        mask = truth.read(i)[0]
        for name, shift in (("exact", 0), ("one", 1), ("four", 4)):
            save(tmp_path / name / f"{id}.png", np.roll(mask, shift, 1))
    made = audit(
        {name: tmp_path / name for name in ("one", "exact", "four")},
        data,
        tmp_path / "out",
        size=128,
        resamples=100,
        threads=2,
        progress=False,
    )
    scores = made["class_iou"].set_index("class").loc["mean"]
    assert scores.exact == 100 and 40 < scores.four < scores.one < 95
    assert scores.images_with_class == len(truth.ids)
    assert "(0 without attributes), 40 attributes" in capsys.readouterr().out
    assert (tmp_path / "out/figures/figure4_fairness.png").stat().st_size > 20000


def test_attributes_of_other_peoples_pictures_are_refused(tmp_path):
    """CelebA's list counts other pictures than CelebAMask-HQ

    000002.jpg there is another person than 2.png here.
    """
    for i in range(3):
        save(tmp_path / f"truth/{i}.png", np.zeros((SIDE, SIDE), np.uint8))
    (tmp_path / "list_attr_celeba.txt").write_text(
        "3\nMale Young\n" + "".join(f"{i:06d}.jpg  1 -1\n" for i in range(1, 4))
    )
    truth = open_truth(tmp_path / "truth")
    with pytest.raises(
        InputError, match="numbers the pictures of CelebA.*CelebAMask-HQ-attribute-anno.txt"
    ):
        face_attributes(truth, tmp_path / "list_attr_celeba.txt")
    (tmp_path / "anno.txt").write_text(
        "3\nMale Young\n" + "".join(f"{i}.jpg  1 -1\n" for i in range(3))
    )
    assert face_attributes(truth, tmp_path / "anno.txt").Male.tolist() == [1, 1, 1]


def test_a_parser_named_like_a_column_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be called 'images'"):
        audit({"images": tmp_path}, tmp_path, tmp_path / "out")
