"Appearance: colours beside scikit-image, angles by hand, groups of pictures, and what light does"

import numpy as np
import pandas as pd
import pytest
from conftest import fairparse
from helpers import make_faces
from PIL import Image

from fairparse.core.records import open_face_set
from fairparse.core.runs import InputError
from fairparse.data.appearance import (
    add_appearance,
    appearance_attributes,
    folder_appearance,
    hair_colour,
    hue_angle,
    measure_appearance,
    srgb_to_lab,
    typology_angle,
)
from fairparse.data.labels import CLASSES
from fairparse.data.worlds import build_synthetic_set, render_faces

SKIN, HAIR, HAT = (CLASSES.index(name) for name in ("skin", "hair", "hat"))


def test_colours_are_those_of_scikit_image():
    color = pytest.importorskip("skimage.color")
    colours = np.random.default_rng(0).integers(0, 256, (200, 3))
    assert np.allclose(srgb_to_lab(colours), color.rgb2lab(colours / 255.0), atol=0.02)


def test_angles_by_hand():
    lab = np.array([[60.0, 10, 10], [50, 10, 20], [40, 0, 10], [60, 10, -1]])
    assert typology_angle(lab)[:3] == pytest.approx([45, 0, -45]) and np.isnan(
        typology_angle(lab)[3]
    )
    assert hue_angle(lab)[:2] == pytest.approx([45, 63.43], abs=0.01)


@pytest.mark.parametrize(
    "lab, name",
    [
        ([15, 3, 4], "Hair_Black"),
        ([40, 8, 15], "Hair_Brown"),
        ([65, 5, 25], "Hair_Blond"),
        ([60, 1, 3], "Hair_Grey"),
        ([np.nan] * 3, None),
    ],
)
def test_colours_of_hair(lab, name):
    assert hair_colour(np.array(lab, float)) == name


def picture(skin, hair=(30, 20, 15), size=40):
    "A face of two colours before white: skin in the middle, hair above"
    image = np.full((size, size, 3), 250, np.uint8)
    mask = np.zeros((size, size), np.uint8)
    image[10:30, 10:30], mask[10:30, 10:30] = skin, SKIN
    image[2:10, 10:30], mask[2:10, 10:30] = hair, HAIR
    return image, mask


def test_light_and_dark_skin_are_told_apart_whatever_the_exposure():
    colours = [(240, 205, 180), (200, 150, 115), (95, 60, 45)]
    images, masks = (np.stack(part) for part in zip(*map(picture, colours)))
    groups = appearance_attributes(measure_appearance(images, masks))
    found = groups[["Skin_Light", "Skin_Middle", "Skin_Dark"]].to_numpy(int)
    assert np.array_equal(found, np.eye(3)) and (groups.Hair_Black == 1).all()
    # linear light is not what is scaled, and rounding adds its part
    dim = measure_appearance((images * 0.6).astype(np.uint8), masks).ita
    assert (dim - measure_appearance(images, masks).ita).abs().max() < 3


def test_parts_that_are_hardly_there_are_unknown_and_things_worn_are_seen():
    image, mask = picture((200, 150, 115))
    mask[mask == SKIN], mask[0, :10] = HAT, SKIN
    measured = measure_appearance(image[None], mask[None])
    groups = appearance_attributes(measured)
    assert groups[["Skin_Light", "Skin_Middle", "Skin_Dark"]].isna().all(axis=None)
    assert groups.Seen_Hat[0] == 1 and groups.Seen_Necklace[0] == 0
    assert measured.Seen_Hat[0] == pytest.approx(400 / 1600)
    assert (groups.dtypes == "Int8").all()


def test_tones_of_drawn_faces_are_in_order():
    images, masks, known = render_faces(80, 64, seed=3)
    ita = measure_appearance(images, masks).ita
    first, last = (ita[known[f"Tone_{k}"] == 1].mean() for k in (1, 5))
    assert first > last + 20


def test_a_face_set_gets_the_groups_once(tmp_path):
    faces = build_synthetic_set(tmp_path / "faces", 20, 32)
    before = set(faces.attributes)
    for _ in range(2):
        faces = add_appearance(faces)
        assert set(faces.attributes) - before == {
            *("Skin_Light", "Skin_Middle", "Skin_Dark"),
            *("Hair_Black", "Hair_Brown", "Hair_Blond", "Hair_Grey"),
            *("Seen_Eyeglasses", "Seen_Hat", "Seen_Earring", "Seen_Necklace"),
        }
    again = open_face_set(tmp_path / "faces")
    assert again.attributes == faces.attributes and len(again) == 20
    table = folder_appearance(tmp_path / "faces").set_index("id")
    pd.testing.assert_frame_equal(
        table, again.index.set_index("id")[list(table)], check_names=False
    )


def folder_of_faces(tmp_path):
    images, masks, _ = render_faces(12, 64, seed=1)
    for kind, arrays in (("images", images), ("labels", masks)):
        (tmp_path / "faces" / kind).mkdir(parents=True)
        for k, array in enumerate(arrays):
            Image.fromarray(array).save(tmp_path / "faces" / kind / f"{k:02d}.png")
    return tmp_path / "faces"


def test_anybodys_faces_form_groups_in_an_audit(tmp_path):
    folder = folder_of_faces(tmp_path)
    words = ("audit", "--appearance", "--maps", f"mine={folder}/labels", "--truth", folder)
    done = fairparse(*words, "--min-size", 2, "--resamples", 20, "--out", tmp_path / "audit")
    assert done.returncode == 0, done.stderr
    gaps = pd.read_csv(tmp_path / "audit" / "tables" / "fairness_gaps.csv")
    assert {"Skin_Light", "Hair_Black", "Seen_Hat"} <= set(gaps.attribute)
    written = pd.read_csv(tmp_path / "audit" / "appearance.csv", dtype={"id": str})
    assert written.id.tolist() == [f"{k:02d}" for k in range(12)]
    done = fairparse(*words, "--attributes", "x.csv", "--out", tmp_path / "two")
    assert done.returncode == 2 and "leave one out" in done.stderr


def test_pictures_and_maps_must_belong_together(tmp_path):
    faces = make_faces(tmp_path, 4)
    with pytest.raises(InputError, match="other faces"):
        measure_appearance(faces.images[:2], faces.masks)
