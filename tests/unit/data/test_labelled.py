"Readers of labelled faces: every layout, what they reject and why, splits, the real subsets"

import hashlib
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairparse.core.runs import InputError
from fairparse.data.labelled import (
    EMOTIONS,
    RACES,
    TO_FIVE,
    LabelledFaces,
    age_band,
    deal_splits,
    hash_order,
    read_square,
)
from fairparse.data.labelled_layouts import find_layout
from fairparse.data.labelled_sources import open_labelled

DATA = os.environ.get("FAIRPARSE_DATA")


def picture(path, value=None, size=(40, 40), mode="RGB"):
    "A picture that no other is equal to, unless `value` says so"
    rng = np.random.default_rng(zlib.crc32(str(path).encode()) if value is None else value)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode).save(
        path
    )
    return path


def utkface(folder, n=30):
    for i in range(n):
        picture(folder / f"{i % 100}_{i % 2}_{i % 5}_2017010{i:08d}.jpg.chip.jpg", i)
    return folder


# ---- a picture


def test_pictures_are_cropped_to_the_square_and_made_rgb(tmp_path):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    assert (read_square(Image.fromarray(wide), 10) == 200).all()
    assert (read_square(Image.fromarray(wide.transpose(1, 0, 2)), 10) == 200).all()
    for mode in ("L", "P", "RGBA", "CMYK", "1", "LA"):
        assert read_square(Image.new(mode, (30, 31)), 16).shape == (16, 16, 3)
    turned = picture(tmp_path / "turned.jpg", 1)
    image, exif = Image.open(turned), Image.Exif()
    exif[0x0112] = 3
    image.save(tmp_path / "exif.jpg", exif=exif, quality=95)
    upright, upside_down = read_square(tmp_path / "exif.jpg", 40), read_square(turned, 40)
    assert np.abs(upright.astype(int) - upside_down[::-1, ::-1]).mean() < 12


def test_small_pictures_of_fine_patterns_are_antialiased():
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = read_square(Image.fromarray(board), 8)
    assert np.abs(small.astype(int) - 127).max() < 20


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(tmp_path, mode):
    levels = np.full((16, 16), 255, np.uint8)
    levels[4:12, 4:12] = 60
    alpha = np.where(levels == 60, 255, 0).astype(np.uint8)
    hidden = np.where(levels == 60, 60, 0).astype(np.uint8)  # black where nobody sees it
    image = Image.merge("LA", [Image.fromarray(hidden), Image.fromarray(alpha)])
    if mode == "P":
        image = Image.fromarray((hidden == 60).astype(np.uint8)).convert("P")
        image.putpalette([0, 0, 0, 60, 60, 60])
        image.save(tmp_path / "x.png", transparency=0)
    else:
        image.convert(mode).save(tmp_path / "x.png")
    assert (read_square(tmp_path / "x.png", 16) == levels[..., None]).all()
    assert (read_square(Image.open(tmp_path / "x.png"), 16) == levels[..., None]).all()


def test_what_only_the_opener_of_faces_knew_is_unreadable_here_too(tmp_path, monkeypatch):
    def broken(image, mode):
        raise KeyError("a damaged table of tags")

    path = picture(tmp_path / "x.png")
    monkeypatch.setattr(Image.Image, "convert", broken)
    with pytest.raises(InputError, match="x.png is not a readable image"):
        read_square(path, 16)


@pytest.mark.parametrize(
    "content",
    [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"\xff\xd8\xff\xe0" + b"\0" * 100],
)
def test_broken_files_say_which(tmp_path, content):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(InputError, match="x.jpg"):
        read_square(tmp_path / "x.jpg", 16)


def test_sixteen_bits_are_refused_rather_than_clipped(tmp_path):
    Image.fromarray(np.full((9, 9), 40000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match="deep.png.*8 bits"):
        read_square(tmp_path / "deep.png", 8)


# ---- splits


def test_splits_are_stratified_reproducible_and_do_not_depend_on_the_order():
    labels, ids = np.repeat([0, 1, 2], [700, 200, 10]), [f"i{i}" for i in range(910)]
    split = deal_splits(labels, ids, 0)
    for k, n in ((0, 700), (1, 200), (2, 10)):
        assert [(split[labels == k] == s).sum() for s in ("train", "valid", "test")] == [
            n - round(0.1 * n) - round(0.2 * n),
            round(0.1 * n),
            round(0.2 * n),
        ]
    shuffled = np.random.default_rng(0).permutation(910)
    assert np.array_equal(
        deal_splits(labels[shuffled], [ids[i] for i in shuffled], 0), split[shuffled]
    )
    assert not np.array_equal(deal_splits(labels, ids, 1), split)


def test_the_dealing_is_that_of_sha256():
    wanted = sorted(range(8), key=lambda i: hashlib.sha256(f"7:face {i}".encode()).hexdigest())
    assert hash_order([f"face {i}" for i in range(8)], 7).tolist() == wanted


@pytest.mark.parametrize(
    "n, wanted",
    [
        (1, {"train": 1}),
        (2, {"train": 1, "test": 1}),
        (3, {"train": 1, "valid": 1, "test": 1}),
        (5, {"train": 3, "valid": 1, "test": 1}),
    ],
)
def test_tiny_classes_are_trained_on_first_and_tested_where_possible(n, wanted):
    split = deal_splits(np.zeros(n, int), list("abcde")[:n], 0)
    assert pd.Series(split).value_counts().to_dict() == wanted


def test_official_splits_are_kept_and_completed():
    ids, labels = [str(i) for i in range(100)], np.zeros(100, int)
    given = np.array(["train"] * 60 + ["valid"] * 40)
    split = deal_splits(labels, ids, 0, given)  # FairFace: its "val" is where it is evaluated
    assert (split[60:] == "test").all()
    assert (split[:60] == "valid").sum() == 6
    given = np.array(["train"] * 60 + ["valid"] * 20 + ["test"] * 20)
    assert np.array_equal(deal_splits(labels, ids, 0, given), given)
    split = deal_splits(labels, ids, 0, np.array(["train"] * 80 + ["test"] * 20))
    assert (split[80:] == "test").all()
    assert (split == "valid").sum() == 8


def test_pictures_of_one_person_stay_together():
    persons = np.repeat([f"s{i}" for i in range(20)], 15)
    split = deal_splits(np.arange(300) % 2, [str(i) for i in range(300)], 0, persons=persons)
    assert pd.DataFrame({"p": persons, "s": split}).groupby("p").s.nunique().eq(1).all()
    assert {s: (split == s).sum() for s in ("train", "valid", "test")} == {
        "train": 210,
        "valid": 30,
        "test": 60,
    }


def test_impossible_shares():
    for shares in ({"valid_share": 0.5, "test_share": 0.5}, {"valid_share": -0.1}):
        with pytest.raises(InputError, match="share"):
            deal_splits(np.zeros(5, int), list("abcde"), 0, **shares)


# ---- layouts


def test_utkface_reads_names_and_lists_what_it_rejects(tmp_path):
    utkface(tmp_path / "UTKFace")
    bad = [
        "39_1_20170116174525125.jpg.chip.jpg",
        "24_0_1_20170116220224657 .jpg.chip.jpg",
        "55_0_0_20170116232725357jpg.chip.jpg",
        "200_0_0_2017.jpg.chip.jpg",
        "20_2_0_2017.jpg.chip.jpg",
        "20_0_5_2017.jpg.chip.jpg",
        "_0_0_2017.jpg.chip.jpg",
    ]
    for name in bad:
        picture(tmp_path / "UTKFace" / name)
    (tmp_path / "UTKFace" / "33_0_0_20170105000000001.jpg.chip.jpg").write_bytes(
        b"\xff\xd8\xff broken"
    )
    picture(
        tmp_path / "UTKFace" / "8_1_1_20170105000000002.jpg.chip.jpg", 3
    )  # a copy of another face, with another label: both go
    faces = open_labelled(tmp_path, "race", 24, test_share=0.3)
    assert len(faces) == 29
    assert faces.classes == RACES
    assert faces.images.shape == (29, 24, 24, 3)
    assert set(bad) <= {Path(f).name for f in faces.rejected.file}
    assert len(faces.rejected) == len(bad) + 3
    reasons = {Path(f).name: reason for f, reason in faces.rejected.values}
    assert "another label" in reasons["8_1_1_20170105000000002.jpg.chip.jpg"]
    assert "another label" in reasons["3_1_3_201701000000003.jpg.chip.jpg"]
    assert "not a readable image" in reasons["33_0_0_20170105000000001.jpg.chip.jpg"]
    assert "age 200" in reasons["200_0_0_2017.jpg.chip.jpg"]
    i = next(i for i, name in enumerate(faces.ids) if name.startswith("7_1_2"))
    assert faces.classes[faces.labels[i]] == "Asian"
    known = faces.attributes.iloc[i]
    assert (known.gender, known.age, known.age_band) == ("Female", 7, "3-9")
    sexes = open_labelled(tmp_path, "gender", 24)
    assert sexes.classes == ["Female", "Male"]
    assert all(
        (name.split("_")[1] == "0") == (label == 1) for name, label in zip(sexes.ids, sexes.labels)
    )


def test_splits_do_not_depend_on_the_folder_that_is_opened(tmp_path):
    utkface(tmp_path / "UTKFace")
    assert np.array_equal(
        open_labelled(tmp_path, "race", 16).split,
        open_labelled(tmp_path / "UTKFace", "race", 16).split,
    )


def test_fairface_maps_its_seven_classes_onto_five(tmp_path):
    for part, n in (("train", 40), ("val", 10)):
        rows = [
            {
                "file": f"{part}/{i}.jpg",
                "age": "20-29",
                "gender": ["Male", "Female"][i % 2],
                "race": list(TO_FIVE)[i % 7],
                "service_test": "True",
            }
            for i in range(n)
        ]
        rows += [
            {
                "file": f"{part}/gone.jpg",
                "age": "20-29",
                "gender": "Male",
                "race": "White",
                "service_test": "True",
            },
            {
                "file": f"{part}/0.jpg",
                "age": "20-29",
                "gender": "x",
                "race": "Martian",
                "service_test": "True",
            },
        ]
        for i in range(n):
            picture(tmp_path / part / f"{i}.jpg")
        pd.DataFrame(rows).to_csv(tmp_path / f"fairface_label_{part}.csv", index=False)
    seven, five = open_labelled(tmp_path, "race", 16), open_labelled(tmp_path, "race5", 16)
    assert seven.classes == list(TO_FIVE)
    assert five.classes == RACES
    assert len(seven) == 50
    names = [five.classes[k] for k in five.labels]
    assert names == [TO_FIVE[seven.classes[k]] for k in seven.labels]
    assert names == [TO_FIVE[race] for race in seven.attributes.race]
    assert (seven.split == "test").sum() == 10
    assert (seven.split == "valid").any()
    assert sorted(set(seven.rejected.reason)) == ["race is 'Martian'", "the file is missing"]


def test_fer2013_reads_pixels_splits_and_rejects_bad_rows(tmp_path):
    pixels = [
        " ".join(map(str, np.random.default_rng(i).integers(0, 256, 2304))) for i in range(21)
    ]
    usage = ["Training"] * 14 + ["PublicTest"] * 3 + ["PrivateTest"] * 4
    rows = [(i % 7, pixels[i], usage[i]) for i in range(21)] + [
        (9, pixels[0], "Training"),
        (1, "1 2 3", "Training"),
        (1, "300 " * 4, "Training"),
        (1, "a b c d", "Training"),
        (1, "", "Training"),
    ]
    pd.DataFrame(rows, columns=["emotion", "pixels", "Usage"]).to_csv(
        tmp_path / "fer2013.csv", index=False
    )
    for source in (tmp_path, tmp_path / "fer2013.csv"):
        faces = open_labelled(source, "emotion", 48)
        assert len(faces) == 21
        assert faces.classes == EMOTIONS
        assert len(faces.rejected) == 5
        assert {s: int((faces.split == s).sum()) for s in ("train", "valid", "test")} == {
            "train": 14,
            "valid": 3,
            "test": 4,
        }
        assert np.array_equal(faces.images[0, :, :, 0].ravel(), np.array(pixels[0].split(), int))
        assert np.array_equal(faces.images[..., 0], faces.images[..., 2])


@pytest.mark.parametrize("table", ["txt", "csv"])
def test_celeba_reads_any_attribute_and_the_official_partition(tmp_path, table):
    names = [f"{i:06d}.jpg" for i in range(1, 13)]
    smiling, male = np.arange(12) % 2 * 2 - 1, np.arange(12) % 3 % 2 * 2 - 1
    for name in names[:-1]:
        picture(tmp_path / "img_align_celeba" / name, size=(178, 218))
    if table == "txt":
        (tmp_path / "list_attr_celeba.txt").write_text(
            "12\nSmiling Male \n"
            + "".join(f"{n} {s:2d} {m:2d}\n" for n, s, m in zip(names, smiling, male))
        )
        (tmp_path / "list_eval_partition.txt").write_text(
            "".join(f"{n} {i % 3}\n" for i, n in enumerate(names))
        )
    else:
        pd.DataFrame({"image_id": names, "Smiling": smiling, "Male": male}).to_csv(
            tmp_path / "list_attr_celeba.csv", index=False
        )
        pd.DataFrame({"image_id": names, "partition": np.arange(12) % 3}).to_csv(
            tmp_path / "list_eval_partition.csv", index=False
        )
    faces = open_labelled(tmp_path, "smile", 32)
    assert faces.ids == names[:-1]
    assert faces.labels.tolist() == (smiling[:-1] > 0).astype(int).tolist()
    assert faces.attributes.Male.tolist() == (male[:-1] > 0).astype(int).tolist()
    assert faces.split.tolist() == [("train", "valid", "test")[i % 3] for i in range(11)]
    assert faces.rejected.values.tolist() == [[names[-1], "the file is missing"]]
    assert open_labelled(tmp_path, "Smiling", 32).classes == [
        "not Smiling",
        "Smiling",
    ]
    assert open_labelled(tmp_path, "gender", 32).classes == ["Female", "Male"]
    with pytest.raises(InputError, match="Bald"):
        open_labelled(tmp_path, "Bald", 32)


def test_mrl_takes_the_fifth_field_and_splits_by_person(tmp_path):
    for i in range(60):
        picture(
            tmp_path / f"s{i // 6:04d}" / f"s{i // 6:04d}_{i:05d}_0_1_{i % 2}_2_0_01.png",
            size=(30, 24),
            mode="L",
        )
    picture(tmp_path / "s0001" / "s0001_00001_0_0_2_0_0_01.png")
    faces = open_labelled(tmp_path, "eyes", 24)
    assert faces.classes == ["closed", "open"]
    assert all(int(name.split("_")[4]) == label for name, label in zip(faces.ids, faces.labels))
    assert faces.attributes.assign(s=faces.split).groupby("person").s.nunique().eq(1).all()
    assert set(faces.split) == {"train", "valid", "test"}
    assert len(faces.rejected) == 1
    assert set(faces.attributes.gender) == {"Male"}
    assert set(faces.attributes.glasses) == {1}


@pytest.mark.parametrize(
    "closed, opened",
    [
        ("ClosedFace", "OpenFace"),
        ("closedLeftEyes", "openRightEyes"),
        ("Closed", "Open"),
        ("sleepy", "awake"),
    ],
)
def test_eye_folders_are_read_by_their_words(tmp_path, closed, opened):
    for i in range(12):
        picture(tmp_path / "set" / (closed if i % 3 else opened) / f"{i}.jpg")
    picture(tmp_path / "set" / "readme pictures" / "x.jpg")
    faces = open_labelled(tmp_path, "eyes", 16)
    assert faces.classes == ["closed", "open"]
    assert faces.labels.sum() == 4
    assert len(faces.rejected) == 1


@pytest.mark.parametrize(
    "task, folders",
    [
        ("mask", ["without_mask", "with_mask"]),
        ("mask", ["no-mask", "Mask"]),
        ("smile", ["non_smile", "smiling faces"]),
        ("gender", ["women", "men"]),
        ("gender", ["Female", "Male"]),
    ],
)
def test_folder_names_of_two_classes_are_not_confused(tmp_path, task, folders):
    for k, name in enumerate(folders):
        for i in range(5):
            picture(tmp_path / name / f"{i}.png", 10 * k + i)
    faces = open_labelled(tmp_path, task, 16)
    assert all(faces.labels[i] == folders.index(faces.attributes.folder[i]) for i in range(10))


def test_generic_folders_with_splits(tmp_path):
    for split, n in (("train", 6), ("val", 2), ("test", 3)):
        for name in ("cat", "dog", "eel"):
            for i in range(n):
                picture(tmp_path / split / name / f"{i}.jpg")
    faces = open_labelled(tmp_path, "animal", 16)
    assert faces.classes == ["cat", "dog", "eel"]
    assert len(set(faces.ids)) == 33
    assert faces.counts().to_numpy().tolist() == [[6, 2, 3]] * 3
    assert len(open_labelled(tmp_path, "animal", 16, limit=7)) == 7
    first, again = (open_labelled(tmp_path, "animal", 16, limit=7).ids for _ in range(2))
    assert first == again


# ---- faults


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_labelled(tmp_path / "no", "race")
    with pytest.raises(InputError, match="Looked for.*utkface.*mrl"):
        open_labelled(tmp_path, "race")
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no data set"):
        find_layout(tmp_path, "race")
    utkface(tmp_path / "utk", 5)
    with pytest.raises(InputError, match="utkface, whose labels answer.*not 'emotion'"):
        open_labelled(tmp_path / "utk", "emotion")
    with pytest.raises(InputError, match="none of"):
        open_labelled(tmp_path / "utk", "race", layout="UTK")
    with pytest.raises(InputError, match="size 4"):
        open_labelled(tmp_path / "utk", "race", 4)


def test_a_set_without_one_readable_picture_is_an_error(tmp_path):
    for i in range(3):
        (tmp_path / f"2{i}_0_0_2017.jpg.chip.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="no readable face.*3 files were rejected"):
        open_labelled(tmp_path, "race", 16)


def test_a_broken_table_is_an_error_with_its_name(tmp_path):
    (tmp_path / "fer2013.csv").write_text('emotion,pixels,Usage\n1,"1 2 3\n')
    with pytest.raises(InputError, match="fer2013"):
        open_labelled(tmp_path, "emotion", 16)


def test_parts_that_do_not_fit_together():
    good = dict(
        images=np.zeros((3, 8, 8, 3), np.uint8),
        labels=np.array([0, 1, 0]),
        classes=["a", "b"],
        split=np.array(["train", "valid", "test"]),
        attributes=pd.DataFrame(index=range(3)),
        ids=list("abc"),
        source="x",
    )
    assert len(LabelledFaces(**good).take([2, 0])) == 2
    assert LabelledFaces(**good).counts().sum().sum() == 3
    for wrong in (
        {"images": np.zeros((3, 8, 8, 3))},
        {"images": np.zeros((3, 8, 9, 3), np.uint8)},
        {"labels": np.array([0, 1])},
        {"labels": np.array([0, 2, 0])},
        {"split": np.array(["train", "val", "test"])},
        {"ids": ["a"]},
    ):
        with pytest.raises(InputError):
            LabelledFaces(**{**good, **wrong})
    with pytest.raises(InputError, match="none of"):
        LabelledFaces(**good).rows("val")


@pytest.mark.parametrize(
    "age, band",
    [
        (0, "0-2"),
        (2, "0-2"),
        (3, "3-9"),
        (9, "3-9"),
        (10, "10-19"),
        (69, "60-69"),
        (70, "more than 70"),
        (116, "more than 70"),
    ],
)
def test_age_bands(age, band):
    assert age_band(age) == band


# ---- procedural and real


def test_procedural_labels_are_the_renderer_s():
    for task, column, flipped in (
        ("smile", "Smiling", False),
        ("eyes", "Eyes_Closed", True),
        ("mask", "Face_Mask", False),
        ("gender", "Male", False),
    ):
        faces = open_labelled("procedural", task, 32, count=12, seed=3)
        assert np.array_equal(
            faces.labels,
            (1 - faces.attributes[column] if flipped else faces.attributes[column]).to_numpy(int),
        )
    faces = open_labelled("procedural", "group", 32, count=12, seed=3)
    assert [faces.classes[k] for k in faces.labels] == faces.attributes.group.tolist()
    assert len(faces.classes) == 5
    with pytest.raises(InputError, match="not for 'race'"):
        open_labelled("procedural", "race", 32, count=12)


@pytest.mark.skipif(not DATA, reason="FAIRPARSE_DATA does not name the folder of real data")
def test_real_subsets(tmp_path):
    count_lines = lambda name: sum(1 for _ in open(Path(DATA) / name)) - 1
    files = list((Path(DATA) / "utkface").rglob("*.jpg"))
    faces = open_labelled(Path(DATA) / "utkface", "group", 32)
    assert len(faces) + len(faces.rejected) == len(files)
    assert len(faces) > 0.98 * len(files)
    assert (faces.counts() > 0).all().all()
    reasons = faces.rejected.reason
    assert reasons.str.startswith("name is not").sum() == 3
    assert reasons.str.startswith("the same picture").sum() == len(reasons) - 3

    fair = open_labelled(Path(DATA) / "fairface", "race5", 32)
    n_train, n_test = (
        count_lines(f"fairface/fairface_label_{part}.csv") for part in ("train", "val")
    )
    assert len(fair) == n_train + n_test
    assert (fair.split == "test").sum() == n_test
    expressions = open_labelled(Path(DATA) / "fer2013", "emotion", 48)
    assert len(expressions) == count_lines("fer2013/fer2013.csv")
    celeba = open_labelled(Path(DATA) / "celeba", "smile", 32)
    assert len(celeba) == 450
    assert (celeba.split == "train").sum() == 346
    shutil.copytree(
        Path(DATA) / "celeba",
        tmp_path / "celeba",
        ignore=lambda folder, names: [n for n in names if n == "000121.jpg"],
    )
    assert open_labelled(tmp_path / "celeba", "smile", 32).rejected.values.tolist() == [
        ["000121.jpg", "the file is missing"]
    ]
