"Label maps in folders: settings, names, sizes, kinds of truth, attributes, and what is refused"

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairparse.core.runs import InputError
from fairparse.data.map_folders import (
    CLEAN,
    face_attributes,
    find_settings,
    list_maps,
    open_truth,
    read_map,
)
from fairparse.data.pixels import label_table
from fairparse.data.worlds import build_synthetic_set


def write_map(path, labels=((0, 1), (1, 13))):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(labels, np.uint8)).save(path)
    return path


def test_maps_are_called_by_their_faces(tmp_path):
    for name in ("anna.png", "ben.labels.png", "ben.overlay.png", "carla.jpg.png", ".hidden.png"):
        write_map(tmp_path / name)
    assert list(list_maps(tmp_path)) == ["anna", "ben", "carla"]
    assert list(find_settings(tmp_path)) == [CLEAN]
    write_map(tmp_path / "carla.png")
    with pytest.raises(InputError, match="two files for the id 'carla'"):
        list_maps(tmp_path)


def test_settings_come_with_the_clean_maps_first(tmp_path):
    for name in ("blur_0.3", "none", "blur_0.1"):
        write_map(tmp_path / name / "anna.png")
    assert list(find_settings(tmp_path)) == [CLEAN, ("blur", 0.1), ("blur", 0.3)]


@pytest.mark.parametrize(
    "names, message",
    [
        (["blur_0.1/a.png"], "no none/"),
        (["none/a.png", "blur_0.1/a.png", "b.png"], "the settings blur_0.1, none"),
        (["none/a.png", "photos/a.png"], "photos is not the folder of a setting"),
        (["none/a.png", "blur_0.1/a.png", "blur_0.10/a.png"], "second folder of the setting"),
    ],
)
def test_folders_that_cannot_be_understood(tmp_path, names, message):
    for name in names:
        write_map(tmp_path / name)
    with pytest.raises(InputError, match=message):
        find_settings(tmp_path)


def test_nothing_to_read(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        find_settings(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no label maps"):
        find_settings(tmp_path)
    with pytest.raises(InputError, match="holds no true label maps"):
        open_truth(tmp_path)


@pytest.mark.parametrize("size", [None, (2, 2), (8, 4)])
def test_a_map_is_brought_to_a_size_by_the_nearest_pixel(tmp_path, size):
    labels = np.array([[0, 1], [1, 13]], np.uint8)
    read, full = read_map(write_map(tmp_path / "a.png", labels), label_table(), size)
    width, height = size or full
    assert full == (2, 2)
    assert np.array_equal(read, labels.repeat(height // 2, 0).repeat(width // 2, 1))


def test_unknown_labels_are_named(tmp_path):
    path = write_map(tmp_path / "a.png", [[0, 19]])
    with pytest.raises(InputError, match="a.png holds the label 19: known labels are 0-18"):
        read_map(path, label_table())
    assert read_map(path, label_table({0: "background", 19: "hair"}))[0].tolist() == [[0, 13]]


def test_a_face_set_a_folder_of_faces_and_plain_maps_are_truths(tmp_path):
    faces = build_synthetic_set(tmp_path / "set", 10, 32)
    rows = faces.rows("test")
    of_set = open_truth(tmp_path / "set")
    for row, id in zip(rows, of_set.ids):
        write_map(tmp_path / "folder" / "labels" / f"{id}.png", faces.masks[row])
        write_map(tmp_path / "folder" / "images" / f"{id}.png", faces.masks[row])
        write_map(tmp_path / "plain" / f"{id}.png", faces.masks[row])
    others = [open_truth(tmp_path / "folder"), open_truth(tmp_path / "plain")]
    for truth in others:
        assert truth.ids == of_set.ids
        for i in range(len(rows)):
            assert np.array_equal(truth.read(i)[0], of_set.read(i)[0])
    assert of_set.attributes.index.tolist() == of_set.ids
    assert all(truth.attributes is None for truth in others)


def test_impossible_truths(tmp_path):
    build_synthetic_set(tmp_path / "set", 10, 32, test_share=0)
    with pytest.raises(InputError, match="no faces in the split 'test'"):
        open_truth(tmp_path / "set")
    with pytest.raises(InputError, match="leave its label map out"):
        open_truth(tmp_path / "set", label_map={0: 0})
    with pytest.raises(InputError, match="size is 4"):
        open_truth(tmp_path / "set", size=4)


def test_attributes_belong_to_faces_by_their_ids(tmp_path):
    for name in ("anna", "ben", "000003"):
        write_map(tmp_path / "truth" / f"{name}.png")
    truth = open_truth(tmp_path / "truth")
    listed = tmp_path / "list.csv"
    listed.write_text("id,Young\nben.jpg,1\nzoe,0\n")
    table = face_attributes(truth, listed)
    assert table.index.tolist() == ["000003", "anna", "ben"]
    assert table.Young.isna().tolist() == [True, True, False]
    between_tabs = tmp_path / "list.tsv"
    between_tabs.write_text("id\tYoung\n000003\t1\n3\t0\n")
    assert face_attributes(truth, between_tabs).Young.fillna(9).tolist() == [1, 9, 9]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("list.csv", "id,Young\nzoe,1\n", "no row for any of the 1 faces"),
        ("list.csv", "id\nanna\n", "list.csv has no attributes"),
        ("list.txt", "1\nYoung\n000001.jpg 1\n", "numbers the pictures of CelebA"),
        ("other", None, "neither an attribute file nor a face set"),
    ],
)
def test_attributes_of_others_are_refused(tmp_path, name, text, message):
    write_map(tmp_path / "truth" / "anna.png")
    truth = open_truth(tmp_path / "truth")
    if text:
        Path(tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        face_attributes(truth, tmp_path / name)


def test_a_truth_without_attributes_needs_a_file(tmp_path):
    write_map(tmp_path / "anna.png")
    with pytest.raises(InputError, match="has no attributes: name a file with --attributes"):
        face_attributes(open_truth(tmp_path))
