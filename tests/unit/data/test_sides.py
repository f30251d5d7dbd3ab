"Left and right: faces that lie the other way round than the rest are found, named and exchanged"

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fairparse import cli
from fairparse.core.records import open_face_set
from fairparse.core.runs import InputError
from fairparse.data.augment import AugmentConfig, augment
from fairparse.data.faceset import build_face_set
from fairparse.data.labels import CLASSES, FLIP_PAIRS, flip_labels, flip_order
from fairparse.data.map_folders import open_truth
from fairparse.data.sides import (
    describe_sides,
    judge_faces,
    judge_set,
    pair_sides,
    swap_sides,
    usual_side,
)
from fairparse.data.worlds import render_faces
from fairparse.parsing.recipes import _pack_faces

REAL = Path(os.environ.get("FAIRPARSE_DATA") or "nowhere")
SIDE = 24
PLACES = {"brow": (6, 8), "eye": (9, 11), "ear": (10, 14)}  # rows


def draw_map(parts=("brow", "eye", "ear"), swapped=()):
    "A label map with pairs of parts; of those in `swapped` the left one is on the picture's left"
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[2:22, 3:21] = CLASSES.index("skin")
    for part in parts:
        near, far = CLASSES.index(f"r_{part}"), CLASSES.index(f"l_{part}")
        if part in swapped:
            near, far = far, near
        rows, edge = slice(*PLACES[part]), 0 if part == "ear" else 6
        mask[rows, edge : edge + 4] = near
        mask[rows, SIDE - edge - 4 : SIDE - edge] = far
    return mask


def mirrored_map(parts=("brow", "eye", "ear")):
    return draw_map(parts, swapped=parts)


def write_faces(folder, maps):
    "A folder of images and labels; the faces are called 000, 001, …"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, mask in enumerate(maps):
        picture = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"images/{i:03d}.png")
        Image.fromarray(mask).save(folder / f"labels/{i:03d}.png")
    return folder


def build(out, data, **more):
    return build_face_set(out, data, **{"size": SIDE, "split": "train", "progress": False, **more})


# ---- one face


def test_a_pair_says_where_left_lies():
    assert pair_sides(draw_map()).tolist() == [1, 1, 1]
    assert pair_sides(mirrored_map()).tolist() == [-1, -1, -1]
    assert pair_sides(draw_map(swapped=["ear"])).tolist() == [
        1,
        1,
        -1,
    ]  # in the order of FLIP_PAIRS
    assert [CLASSES[left] for left, _ in FLIP_PAIRS] == ["l_eye", "l_brow", "l_ear"]


def test_without_both_sides_a_pair_says_nothing():
    assert pair_sides(draw_map(["eye"])).tolist() == [1, 0, 0]
    lonely = draw_map(["eye"])
    lonely[lonely == CLASSES.index("r_eye")] = 1
    assert not pair_sides(lonely).any()
    assert not pair_sides(np.zeros((4, 4), np.uint8)).any()
    assert not pair_sides(np.rot90(draw_map(["eye"]))).any()  # one above the other


@pytest.mark.parametrize("size", [(8, 8), (24, 48), (97, 31)])
def test_size_and_shape_do_not_matter(size):
    larger = np.asarray(Image.fromarray(draw_map()).resize(size, Image.NEAREST))
    assert pair_sides(larger).tolist() == [1, 1, 1]
    assert pair_sides(larger[:, ::-1]).tolist() == [-1, -1, -1]
    assert pair_sides(flip_labels(larger)).tolist() == [1, 1, 1]


def test_faces_whose_pairs_disagree_have_no_side():
    pairs = np.array([[1, 1, 1], [0, -1, 0], [1, -1, 0], [0, 0, 0]], np.int8)
    sides, disagree = judge_faces(pairs)
    assert sides.tolist() == [1, -1, 0, 0]
    assert disagree.tolist() == [False, False, True, False]


# ---- the set


@pytest.mark.parametrize(
    "right, left, usual",
    [
        (0, 0, 0),
        (1, 0, 1),  # unanimous sets need no number
        (0, 30, -1),
        (8, 1, 0),  # nine faces that differ are too few
        (8, 2, 1),
        (2, 8, -1),
        (30, 10, 1),
        (29, 11, 0),
        (50, 50, 0),
    ],
)
def test_the_majority_decides_if_it_is_clear(right, left, usual):
    assert usual_side(np.repeat([1, -1, 0], [right, left, 7]).astype(np.int8)) == usual


def test_a_set_of_one_convention_is_fine_whichever_it_is():
    for maps, usual, said in (
        ([draw_map()] * 3, "right", "alike in all 3 faces"),
        ([mirrored_map()] * 3, "left", "in CelebAMask-HQ it lies on the right"),
    ):
        record = judge_set(maps, list("abc"))
        assert record["usual"] == usual and record["mirrored"] == []
        assert said in describe_sides(record)


def test_hair_and_background_have_no_sides():
    record = judge_set([draw_map([])] * 4, list("abcd"))
    assert record["usual"] is None and record["right"] == record["left"] == 0
    assert "no face shows" in describe_sides(record)


def test_all_names_are_recorded_and_the_first_are_said():
    maps = [draw_map()] * 30 + [mirrored_map()] * 5 + [draw_map(swapped=["eye"])]
    record = judge_set(maps, [f"{i:02d}" for i in range(36)])
    assert record["mirrored"] == ["30", "31", "32", "33", "34"]
    assert record["disagree"] == ["35"]
    text = describe_sides(record)
    assert "5 of 35 faces are mirrored" in text and "30, 31, 32, …" in text
    assert "--swap-mirrored" in text and "(35)" in text


def test_swapping_exchanges_labels_and_nothing_else():
    maps = np.stack([draw_map(), mirrored_map()])
    swap_sides(maps, [1])
    assert (maps == draw_map()).all()
    swap_sides(maps, [])
    assert (maps == draw_map()).all()


# ---- face sets


def test_a_face_set_names_its_mirrored_faces(tmp_path):
    maps = [draw_map()] * 10 + [mirrored_map(["eye"]), mirrored_map()]
    data = write_faces(tmp_path / "mine", maps)
    faces = build(tmp_path / "set", data)
    assert open_face_set(tmp_path / "set").meta["sides"]["mirrored"] == ["010", "011"]
    assert (faces.masks == np.stack(maps)).all()  # not swapped unless asked

    swapped = build(tmp_path / "swapped", data, swap_mirrored=True)
    assert (swapped.images == faces.images).all()
    assert (swapped.masks[11] == draw_map()).all()
    assert (swapped.masks[10] == draw_map(["eye"])).all()
    assert (swapped.masks[:10] == faces.masks[:10]).all()
    assert swapped.meta["sides"]["mirrored"] == ["010", "011"]
    assert swapped.meta["sides"]["swapped"] and not faces.meta["sides"]["swapped"]
    assert "were exchanged" in describe_sides(swapped.meta["sides"])
    open_face_set(tmp_path / "swapped", verify=True)


def test_part_masks_of_celebamask_hq_are_judged_too(tmp_path):
    for i in range(12):
        (tmp_path / "raw/CelebA-HQ-img").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIDE, SIDE)).save(tmp_path / f"raw/CelebA-HQ-img/{i}.jpg")
        mask = mirrored_map() if i == 7 else draw_map()
        for label in np.unique(mask)[1:]:
            path = tmp_path / f"raw/CelebAMask-HQ-mask-anno/0/{i:05d}_{CLASSES[label]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.uint8(mask == label) * 255).save(path)
    with pytest.warns(UserWarning, match="attributes"):
        faces = build(tmp_path / "set", tmp_path / "raw")
    assert faces.meta["sides"]["mirrored"] == ["7"]


def test_a_label_map_is_applied_first(tmp_path):
    "Another list of classes that names the sides as the viewer sees them"
    data = write_faces(tmp_path / "mine", [mirrored_map()] * 12)
    theirs = [CLASSES[i] for i in flip_order()]
    faces = build(tmp_path / "set", data, label_map=theirs)
    assert faces.meta["sides"]["usual"] == "right" and not faces.meta["sides"]["mirrored"]


def test_a_folder_of_another_convention_is_seen_as_one(tmp_path):
    first = write_faces(tmp_path / "first", [draw_map()] * 12)
    second = write_faces(tmp_path / "second", [mirrored_map()] * 11)
    faces = build(tmp_path / "set", [first, second])
    text = describe_sides(faces.meta["sides"])
    assert faces.meta["sides"]["usual"] is None
    assert "no clear majority" in text
    assert "first: 12 and 0" in text and "second: 0 and 11" in text


def test_what_cannot_be_told_is_not_swapped(tmp_path):
    data = write_faces(tmp_path / "mine", [draw_map()] * 6 + [mirrored_map()] * 6)
    with pytest.raises(InputError, match="6 faces and on its left in 6: no clear majority"):
        build(tmp_path / "set", data, swap_mirrored=True)
    assert not (tmp_path / "set").exists()
    assert build(tmp_path / "set", data).meta["sides"]["mirrored"] == []


def test_prepare_says_it_and_offers_the_swap(tmp_path, capsys):
    data = write_faces(tmp_path / "mine", [draw_map()] * 20 + [mirrored_map()] * 4)
    command = ["prepare", "--data", str(data), "--size", str(SIDE), "--split", "train", "--out"]
    assert cli.main([*command, str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert "4 of 24 faces are mirrored" in said and "020, 021, 022, …" in said
    assert "--swap-mirrored" in said

    assert cli.main([*command, str(tmp_path / "b"), "--swap-mirrored"]) == 0
    assert "were exchanged" in capsys.readouterr().out
    assert (open_face_set(tmp_path / "b").masks == draw_map()).all()


def test_training_and_scoring_warn_or_exchange(tmp_path):
    data = write_faces(tmp_path / "mine", [draw_map()] * 20 + [mirrored_map()] * 4)
    with pytest.warns(UserWarning, match="4 of 24 faces are mirrored"):
        faces = _pack_faces(tmp_path / "a", [data], SIDE, None, False)
    assert not (faces.masks == draw_map()).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        faces = _pack_faces(tmp_path / "b", [data], SIDE, None, True)
    assert (faces.masks == draw_map()).all()


# ---- everything that mirrors, and what we draw


def test_drawn_faces_lie_as_in_celebamask_hq():
    _, masks, _ = render_faces(40, 64, seed=3)
    record = judge_set(masks, [str(i) for i in range(40)])
    assert record["usual"] == "right" and record["right"] == 40
    assert not record["disagree"]


def test_mirroring_in_training_keeps_the_sides():
    _, masks, _ = render_faces(40, 64, seed=3)
    images, target = torch.zeros(40, 3, 64, 64), torch.from_numpy(masks).long()
    order = torch.as_tensor(flip_order(CLASSES))
    _, mirrored = augment(images, target, order, AugmentConfig(flip=1.0))
    assert not torch.equal(mirrored, target)
    record = judge_set(mirrored.numpy(), [str(i) for i in range(40)])
    assert record["right"] == 40

    _, forgotten = augment(images, target, torch.arange(19), AugmentConfig(flip=1.0))
    assert judge_set(forgotten.numpy(), [str(i) for i in range(40)])["left"] == 40


# ---- real samples


@pytest.mark.parametrize(
    "name, judged, mirrored, disagree",
    [("CelebAMask-HQ", 186, 0, 0), ("merged_labels", 506, 47, 0), ("more_faces", 2964, 0, 6)],
)
def test_real_faces(tmp_path, name, judged, mirrored, disagree):
    if not (REAL / name).is_dir():
        pytest.skip(f"FAIRPARSE_DATA names no folder with {name}")
    faces = build(tmp_path / "set", REAL / name, size=64)
    record = faces.meta["sides"]
    assert record["usual"] == "right"
    assert len(record["mirrored"]) == record["left"] == mirrored
    assert (record["right"] + record["left"], len(record["disagree"])) == (judged, disagree)


def test_real_truth_of_third_parties():
    if not (REAL / "third_party" / "truth").is_dir():
        pytest.skip("FAIRPARSE_DATA names no folder with third_party")
    truth = open_truth(REAL / "third_party" / "truth", size=128)
    record = judge_set([truth.read(i)[0] for i in range(len(truth.ids))], truth.ids)
    assert (record["right"], record["left"], record["disagree"]) == (138, 0, [])
