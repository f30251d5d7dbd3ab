"""The benchmark's faces and batches

All ways do the same work, and the made files are what they are said to be."""

import numpy as np
import pytest
from PIL import Image

from fairparse.bench import faces as bench_faces
from fairparse.bench.faces import (
    PictureFiles,
    batch_cases,
    batch_order,
    copy_memory,
    load_ours,
    overlapping_faces,
    overlapping_part,
    picture_loader,
    pure_decoding,
    raw_cases,
)
from fairparse.bench.timing import measure
from fairparse.core.records import open_face_set
from fairparse.core.runs import InputError
from fairparse.data.face_folders import scan_source
from fairparse.data.labels import CLASSES
from fairparse.data.pixels import merge_parts


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    "Eight drawn faces as files, and the label maps that they were drawn from"
    folder = tmp_path_factory.mktemp("made") / "raw"
    return folder, overlapping_faces(folder, 8, size=64, seed=3)


def test_made_faces_merge_to_the_drawn_maps(raw):
    folder, drawn = raw
    faces = scan_source(folder).faces
    assert [face.id for face in faces] == [str(i) for i in range(8)]
    for face, mask in zip(faces, drawn):
        assert np.array_equal(merge_parts(face.masks, 64)[0], mask)


def test_made_files_are_like_the_originals(raw):
    folder, drawn = raw
    for face in scan_source(folder).faces:
        with Image.open(face.image) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (128, 128))
        labels = [label for label, _ in face.masks]
        assert labels == [label for label in np.unique(drawn[int(face.id)]) if label]
        painted = 0
        for _, path in face.masks:
            with Image.open(path) as image:
                assert (image.format, image.mode, image.size) == ("PNG", "RGB", (64, 64))
                painted = painted + (np.asarray(image)[..., 0] > 0)
        assert (painted > 1).mean() > 0.1  # they overlap
    assert set(np.unique(drawn)) >= {
        CLASSES.index(part)
        for part in ("skin", "nose", "l_eye", "r_eye", "u_lip", "l_lip", "neck", "cloth")
    }


def test_made_faces_have_attributes(raw):
    attributes = scan_source(raw[0]).attributes
    assert (
        len(attributes) == 8
        and "Eyeglasses" in attributes
        and attributes.notna().all(axis=None)
        and attributes.nunique().max() == 2
    )


def test_all_parts_occur_among_many_faces(tmp_path):
    drawn = overlapping_faces(tmp_path / "raw", 60, size=48)
    assert set(np.unique(drawn)) == set(range(len(CLASSES)))


def test_skin_lies_below_the_face_and_nothing_above_itself():
    mask = np.zeros((20, 20), np.uint8)
    mask[4:16, 4:16] = CLASSES.index("skin")
    mask[8:12, 8:12] = CLASSES.index("nose")
    mask[0:4] = CLASSES.index("hair")
    skin, nose, hair, hat = (
        overlapping_part(mask, CLASSES.index(part), 2) for part in ("skin", "nose", "hair", "hat")
    )
    assert (
        skin[4:16, 4:16].all()
        and skin[2:4, 4:16].all()
        and not skin[:2].any()
        and not skin[16:].any()
    )  # below nose and hair, not over the background
    assert (
        np.array_equal(nose, mask == CLASSES.index("nose"))
        and np.array_equal(hair, mask == CLASSES.index("hair"))
        and not hat.any()
    )


def test_made_faces_do_not_depend_on_anything_but_the_seed(tmp_path):
    for name in "ab":
        overlapping_faces(tmp_path / name, 2, size=32, seed=1)
    files = [
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in "ab"
    ]
    assert files[0] == files[1]
    assert not np.array_equal(
        overlapping_faces(tmp_path / "c", 2, size=32, seed=2),
        overlapping_faces(tmp_path / "d", 2, size=32, seed=1),
    )


def test_faces_are_not_written_among_others(raw):
    with pytest.raises(InputError, match="is not empty"):
        overlapping_faces(raw[0], 1, size=32)


@pytest.mark.parametrize("size", [64, 32, 20])
def test_all_ways_build_the_same_set(raw, tmp_path, size):
    [case] = raw_cases(raw[0], tmp_path, size=size, workers=2, name="drawn")
    for way, function in case.ways.items():
        function()
        if way.startswith("ours"):
            faces = open_face_set(tmp_path / "ours")
            arrays = np.array(faces.images), np.array(faces.masks)
            if way == "ours":
                first = arrays
            assert all(map(np.array_equal, first, arrays))
    for script in ("pillow", "opencv"):
        images, masks = (np.load(tmp_path / script / f"{name}.npy") for name in ("images", "masks"))
        assert (
            masks.dtype == np.uint8 and np.abs(images.astype(int) - first[0]).mean() < 3
        )  # their filters differ
        if script == "pillow" or 64 % size == 0:
            assert np.array_equal(masks, first[1])
        else:
            assert (masks == first[1]).mean() > 0.98  # other rounding at odd ratios


def test_raw_case_is_complete(raw, tmp_path):
    [case] = raw_cases(raw[0], tmp_path, size=32, workers=1)
    assert (
        case.part == "faces"
        and case.amount == 8
        and "8 faces" in case.note
        and case.name == "raw to 32 px"
    )
    assert {
        (goal.way, goal.beside, goal.at_most, goal.at_least)
        for goal in case.goals
        if goal.at_most or goal.at_least
    } == {("ours", "pure decoding", 1.3, None)}
    times, findings = measure(case, 1)
    assert len(times) == 5 and len(findings) == 4 and (times.seconds > 0).all()


@pytest.mark.parametrize("workers", [1, 2])
def test_pure_decoding_reads_every_file(raw, tmp_path, monkeypatch, workers):
    import shutil

    folder = tmp_path / "raw"
    shutil.copytree(raw[0], folder)
    faces = scan_source(folder).faces
    monkeypatch.setattr(bench_faces, "CHUNK", 3)
    pure_decoding(faces, 32, workers)
    for path in (faces[7].masks[-1][1], faces[0].image):
        whole = open(path, "rb").read()
        with open(path, "wb") as file:
            file.write(whole[: len(whole) // 2])
        with pytest.raises((OSError, SyntaxError)):
            pure_decoding(faces, 32, workers)
        with open(path, "wb") as file:
            file.write(whole)


def test_other_layouts_are_refused(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.jpg")
    Image.new("L", (8, 8)).save(tmp_path / "labels" / "a.png")
    with pytest.raises(InputError, match="raw layout"):
        raw_cases(tmp_path, tmp_path / "out")


def test_opencv_is_asked_for(raw, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match="pip install opencv-python-headless"):
        bench_faces.opencv_script(raw[0], tmp_path, 32)


def by_content(images, masks):
    return sorted(
        (np.asarray(i).tobytes(), np.asarray(m).tobytes())
        for image, mask in zip(images, masks)
        for i, m in zip(image, mask)
    )


@pytest.mark.parametrize("data", [False, True])
def test_all_ways_load_the_same_faces(raw, tmp_path, data):
    [case] = batch_cases(
        tmp_path,
        data=raw[0] if data else None,
        count=12,
        size=32,
        batch=4,
        epochs=2,
        workers=2,
        drawn=5,
    )
    faces = open_face_set(tmp_path / "faces")
    ours = list(load_ours(faces, batch_order(12, 4)))
    loaded = list(picture_loader(tmp_path / "pictures", 4, 2))
    copied = list(copy_memory(np.array(faces.images), np.array(faces.masks), 4))
    assert all(str(tensor.dtype) == "torch.uint8" for batch in (*ours, *loaded) for tensor in batch)
    assert (
        [[tuple(tensor.shape) for tensor in batch] for batch in ours]
        == [[tuple(tensor.shape) for tensor in batch] for batch in loaded]
        == [[array.shape for array in batch] for batch in copied]
    )
    assert by_content(*zip(*ours)) == by_content(*zip(*loaded)) == by_content(*zip(*copied))
    assert len({content for content, _ in by_content(*zip(*ours))}) == (8 if data else 5)


def test_batch_case_counts_the_epochs(tmp_path):
    [case] = batch_cases(tmp_path, count=10, size=32, batch=4, epochs=3, workers=1, drawn=4)
    loader = "DataLoader, JPEG and PNG, 1 workers"
    assert case.amount == 8 * 3 and case.scale == {loader: 3} and case.unit == "image"
    times, findings = measure(case, 1)
    assert set(times.way) == {"ours", loader, "memory copy"}
    assert findings.at_least.fillna(0).tolist() == [0, 0.7]  # beside the loader there is no goal
    assert (
        batch_cases(tmp_path, count=6, size=32, batch=3, epochs=1, workers=0, drawn=2)[0].amount
        == 6
    )  # what was there is replaced
    assert len(PictureFiles(tmp_path / "pictures")) == 6


def test_order_of_batches():
    order = batch_order(10, 3)
    assert (
        order.shape == (3, 3)
        and len(set(order.ravel())) == 9
        and not np.array_equal(order, batch_order(10, 3, seed=1))
        and np.array_equal(order, batch_order(10, 3))
    )


def test_a_batch_must_fit(tmp_path):
    with pytest.raises(InputError, match="batch 8 is larger than the 4 faces"):
        batch_cases(tmp_path, count=4, batch=8)
