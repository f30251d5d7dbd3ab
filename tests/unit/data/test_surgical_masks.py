"Masks drawn onto faces: where, how, and on which faces not"

import numpy as np
import pytest

from fairparse.core.runs import InputError
from fairparse.data.labels import CLASSES, flip_labels
from fairparse.data.surgical_masks import MASK_COLOURS, draw_mask, mask_training_faces, masked_faces
from fairparse.data.worlds import World, render_faces

CLOTH, NOSE, HAIR = (CLASSES.index(name) for name in ("cloth", "nose", "hair"))
MOUTH = [CLASSES.index(name) for name in ("mouth", "u_lip", "l_lip")]
EYES = [CLASSES.index(name) for name in ("l_eye", "r_eye")]


@pytest.fixture(scope="module")
def faces():
    images, maps, _ = render_faces(
        12,
        64,
        seed=5,
        world=World(attributes={"Face_Mask": 0.0, "Eyeglasses": 0.0, "Wearing_Hat": 0.0}),
    )
    return images, maps


def test_a_mask_covers_mouth_and_nostrils_but_neither_eyes_nor_hair(faces):
    images, maps = faces
    result = masked_faces(images, maps)
    assert len(result.rows) == len(images)
    assert result.skipped.empty
    for before, after in zip(maps, result.maps):
        covered = before != after
        assert (after[covered] == CLOTH).all()
        assert not np.isin(after, MOUTH).any()
        assert 0.3 < (covered & (before == NOSE)).sum() / (before == NOSE).sum() < 0.95, (
            "the bridge stays free, the tip does not"
        )
        for part in (*EYES, HAIR):
            assert (before == part).sum() == (after == part).sum()
        assert 0.35 < covered[np.isin(before, [CLASSES.index("skin"), NOSE, *MOUTH])].mean() < 0.8


def test_nothing_changes_beyond_the_face_and_what_is_covered_takes_the_colour(faces):
    images, maps = faces
    for name in ("blue", "black", "white"):
        result = masked_faces(images, maps, colour=name)
        changed, covered = (result.images != images).any(-1), result.maps != maps
        background = np.isin(maps, [CLASSES.index(p) for p in ("background", "hair", "neck")])
        assert changed[background].mean() < 0.01, "anti-aliased rim only"
        mean = result.images[covered].astype(float).mean(0)
        wanted = np.array(MASK_COLOURS[name]) / max(MASK_COLOURS[name])
        assert np.abs(mean / mean.max() - wanted).max() < 0.08


def test_a_face_s_mask_depends_on_seed_and_row_alone(faces):
    images, maps = faces
    one = masked_faces(images, maps, seed=1)
    again = masked_faces(images[:3], maps[:3], seed=1)
    other = masked_faces(images, maps, seed=2)
    assert np.array_equal(one.images[:3], again.images)
    assert not np.array_equal(one.images, other.images)


def test_the_mask_turns_with_the_head(faces):
    "A head that is turned by 30 degrees wears the same mask, turned"
    from scipy.ndimage import rotate

    images, maps = faces
    upright = masked_faces(images, maps)
    tilted_maps = rotate(maps, 30, axes=(1, 2), reshape=False, order=0)
    tilted = masked_faces(rotate(images, 30, axes=(1, 2), reshape=False, order=1), tilted_maps)
    wanted = rotate(
        (upright.maps != maps).astype(np.uint8), 30, axes=(1, 2), reshape=False, order=0
    ).astype(bool)[tilted.rows]
    got = tilted.maps != tilted_maps[tilted.rows]
    assert len(tilted.rows) >= 10
    assert (wanted & got).sum() / (wanted | got).sum() > 0.85


def test_left_and_right_are_alike(faces):
    images, maps = faces
    straight = masked_faces(images, maps)
    mirrored = masked_faces(images[:, :, ::-1], flip_labels(maps))
    a, b = straight.maps == CLOTH, mirrored.maps[:, :, ::-1] == CLOTH
    assert (a & b).sum() / (a | b).sum() > 0.95


@pytest.mark.parametrize(
    "missing, reason", [([NOSE], "no nose"), (MOUTH, "no mouth"), ([NOSE, *MOUTH], "no nose")]
)
def test_faces_without_nose_or_mouth_are_skipped_and_named(faces, missing, reason):
    images, maps = faces[0][:3], faces[1][:3].copy()
    maps[1][np.isin(maps[1], missing)] = CLASSES.index("skin")
    result = masked_faces(images, maps)
    assert result.rows.tolist() == [0, 2]
    assert result.skipped.row.tolist() == [1]
    assert reason in result.skipped.reason[0]


def test_impossible_maps_are_skipped_not_fatal():
    images = np.full((5, 32, 32, 3), 90, np.uint8)
    maps = np.zeros((5, 32, 32), np.uint8)
    maps[1] = NOSE
    maps[2, 20:23, 10:20], maps[2, 5:8, 10:20] = NOSE, MOUTH[0]  # the mouth above the nose
    maps[3, 10:12, 15:17], maps[3, 20, 14:18] = NOSE, MOUTH[0]  # nothing else: no cheeks
    maps[4, 10:20, 10:20], maps[4, 12, 14:16], maps[4, 16, 13:17] = (
        HAIR,
        NOSE,
        MOUTH[1],
    )  # a nose of two pixels
    result = masked_faces(images, maps)
    assert len(result.rows) == 0
    assert result.skipped.row.tolist() == [0, 1, 2, 3, 4]
    assert result.images.shape == (0, 32, 32, 3)
    with pytest.raises(InputError, match="wear a mask"):
        mask_training_faces(images, maps)


def test_wrong_arguments(faces):
    images, maps = faces
    with pytest.raises(InputError, match="uint8"):
        masked_faces(images.astype(float), maps)
    with pytest.raises(InputError, match="label maps"):
        masked_faces(images, maps[:, :32])
    with pytest.raises(InputError, match="labels are 0..18"):
        masked_faces(images, np.full_like(maps, 19))
    with pytest.raises(InputError, match="purple"):
        masked_faces(images, maps, colour="purple")
    with pytest.raises(InputError, match="purple"):
        draw_mask(images[0], maps[0], np.random.default_rng(0), "purple")
    with pytest.raises(InputError, match="share"):
        mask_training_faces(images, maps, share=1.0)


def test_training_faces_hold_each_face_once_and_leave_skipped_ones_out(faces):
    images, maps = faces[0], faces[1].copy()
    maps[4][maps[4] == NOSE] = 0
    split = np.array(["train"] * 8 + ["valid"] * 2 + ["test"] * 2)
    made = mask_training_faces(images, maps, ids=[f"f{i}" for i in range(12)], split=split)
    assert made.classes == ["no mask", "mask"]
    assert made.task == "mask"
    assert len(set(made.ids)) == len(made) == 11
    assert made.rejected.file.tolist() == ["f4"]
    assert "f4" not in made.ids
    assert made.labels.sum() == 6
    assert made.split.tolist() == [s for i, s in enumerate(split) if i != 4]
    for name, label, picture in zip(made.ids, made.labels, made.images):
        assert np.array_equal(picture, images[int(name[1:])]) == (label == 0)
