"Other people's copies of the data sets: their headers, suffixes, blanks, twins and folder names"

import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairparse.core.runs import InputError
from fairparse.data.labelled import RACES, TO_FIVE
from fairparse.data.labelled_sources import open_labelled


def picture(path, seed=None, kind="JPEG"):
    "A picture of noise, its own unless `seed` says whose"
    rng = np.random.default_rng(zlib.crc32(str(path).encode()) if seed is None else seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(path, kind)
    return path


def sizes(faces):
    "Faces of each split"
    return {split: int((faces.split == split).sum()) for split in ("train", "valid", "test")}


def left_out(faces):
    "{file's name: reason}"
    return {Path(file).name: reason for file, reason in faces.rejected.values}


# ---- FER2013

USAGES = ["Training", "PublicTest", "PrivateTest"]


def fer2013(folder, header="emotion,pixels,Usage", usage=str, row="{emotion},{pixels},{usage}"):
    "84 pictures, 28 of each split"
    lines = [header]
    for i in range(84):
        pixels = " ".join(map(str, np.random.default_rng(i).integers(0, 256, 64)))
        cells = {"emotion": i % 7, "pixels": pixels, "usage": usage(USAGES[i // 28])}
        lines.append(row.format(i=i, **cells))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fer2013.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"usage": lambda text: f" {text} "},
        {"usage": str.upper},
        {"header": "emotion,pixels,usage"},
        {"header": '"Emotion" , "Pixels" , "Usage"'},
        {"header": "emotion, Usage, pixels", "row": "{emotion}, {usage}, {pixels}"},
        {"header": ",emotion,pixels,Usage", "row": "{i},{emotion},{pixels},{usage}"},
        {"header": "Unnamed: 0,emotion,pixels,Usage", "row": "{i},{emotion},{pixels},{usage}"},
        {"row": '"{emotion}","{pixels}","{usage}"'},
        {"header": "emotion;pixels;Usage", "row": "{emotion};{pixels};{usage}"},
        {"header": "\ufeffemotion,pixels,Usage"},
    ],
)
def test_the_official_split_of_fer2013_survives_every_way_to_write_its_table(tmp_path, written):
    faces = open_labelled(fer2013(tmp_path, **written), "emotion", 8)
    assert sizes(faces) == {"train": 28, "valid": 28, "test": 28}
    assert faces.labels.tolist() == [i % 7 for i in range(84)]
    assert not len(faces.rejected)


@pytest.mark.parametrize("value", ["Test", ""])
def test_an_unknown_usage_is_an_error_and_never_absent(tmp_path, value):
    fer2013(tmp_path, usage=lambda text: value if text == "PrivateTest" else text)
    with pytest.raises(InputError, match=f"fer2013.csv, line 58.*Usage.*{value!r}.*PrivateTest"):
        open_labelled(tmp_path, "emotion", 8)


def test_a_split_under_another_name_is_not_overlooked(tmp_path):
    fer2013(tmp_path, header="emotion,pixels,set")
    with pytest.raises(InputError, match="the column 'set' holds the official split"):
        open_labelled(tmp_path, "emotion", 8)
    words = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
    fer2013(tmp_path, header="emotion,pixels,split", usage=words.get)
    with pytest.raises(InputError, match="the column 'split' holds the official split.*PublicTest"):
        open_labelled(tmp_path, "emotion", 8)


def test_a_row_that_is_cut_is_no_row_without_a_split(tmp_path):
    path = fer2013(tmp_path) / "fer2013.csv"
    path.write_text(path.read_text().rpartition(",")[0])
    with pytest.raises(InputError, match="line 85 has 2 values for 3 columns"):
        open_labelled(tmp_path, "emotion", 8)


def test_a_table_of_pixels_without_emotions_is_named(tmp_path):
    fer2013(tmp_path, header="feeling,pixels,Usage")
    with pytest.raises(InputError, match="no column 'emotion'.*feeling"):
        open_labelled(tmp_path, "emotion", 8)
    fer2013(tmp_path)
    (tmp_path / "test.csv").write_text("pixels\n0 0 0 0\n")  # as in Kaggle's archive
    faces = open_labelled(tmp_path, "emotion", 8)
    assert len(faces) == 84 and "no column 'emotion'" in left_out(faces)["test.csv"]


def test_what_is_left_out_is_told_in_the_order_of_the_listing(tmp_path):
    fer2013(tmp_path)
    names = [f"{letter}.csv" for letter in "abcdefgh"]
    for name in names:
        (tmp_path / name).write_text("pixels\n0 0 0 0\n")
    assert open_labelled(tmp_path, "emotion", 8).rejected.file.tolist() == names


def test_the_first_of_several_faulty_tables_is_named(tmp_path):
    fer2013(tmp_path)
    for name in ("a.csv", "b.csv", "c.csv", "d.csv", "e.csv"):
        value = ord(name[0])
        (tmp_path / name).write_text("emotion,pixels\n" + f"1,0 0 0 {value}\n" * 4)
    with pytest.raises(InputError, match="a.csv has no column 'Usage'"):
        open_labelled(tmp_path, "emotion", 8)
    fer2013(
        tmp_path / "own",
        header="emotion,pixels,part,half,set",
        row="{emotion},{pixels}" + 3 * ",{usage}",
    )
    with pytest.raises(InputError, match="the column 'part' holds the official split"):
        open_labelled(tmp_path / "own", "emotion", 8)


def test_the_download_of_kaggle_can_be_read_by_its_table_with_the_split(tmp_path):
    fer2013(tmp_path, header="emotion, Usage, pixels", row="{emotion},{usage},{pixels}")
    whole = (tmp_path / "fer2013.csv").rename(tmp_path / "icml_face_data.csv")
    rows = [line.split(",") for line in whole.read_text().splitlines()[1:29]]
    rows = [f"{emotion},{pixels}" for emotion, _, pixels in rows]
    (tmp_path / "train.csv").write_text("\n".join(["emotion,pixels", *rows]))
    (tmp_path / "test.csv").write_text("pixels\n0 0 0 0\n")
    with pytest.raises(InputError, match="or give .*icml_face_data.csv itself as the data set"):
        open_labelled(tmp_path, "emotion", 8)
    faces = open_labelled(whole, "emotion", 8)
    assert sizes(faces) == {"train": 28, "valid": 28, "test": 28}


def test_the_same_pictures_in_two_tables_are_not_read_twice(tmp_path):
    fer2013(tmp_path)
    fer2013(tmp_path / "challenge")
    with pytest.raises(InputError, match="challenge/fer2013.csv.*same pictures.*fer2013.csv"):
        open_labelled(tmp_path, "emotion", 8)
    path = fer2013(tmp_path / "challenge") / "fer2013.csv"  # its training part, unsplit
    lines = [line.rpartition(",")[0] for line in path.read_text().splitlines()[:29]]
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match="same pictures"):
        open_labelled(tmp_path, "emotion", 8)


def test_tables_with_and_without_a_split_are_not_mixed(tmp_path):
    fer2013(tmp_path)
    (tmp_path / "more.csv").write_text("emotion,pixels\n" + "1,0 0 0 9\n" * 4)
    with pytest.raises(InputError, match="more.csv.*no column 'Usage'"):
        open_labelled(tmp_path, "emotion", 8)


# ---- CelebA


def celeba(folder, cell, header="image_id,Smiling,Male", n=40):
    "`n` pictures and their attributes as a .csv; `cell(i)` is what stands under Smiling"
    lines = [header]
    for i in range(1, n + 1):
        picture(folder / "img_align_celeba" / f"{i:06d}.jpg", i)
        lines.append(f"{i:06d}.jpg,{cell(i)},{1 if i % 2 else -1}")
    (folder / "list_attr_celeba.csv").write_text("\n".join(lines) + "\n")
    return folder


def yes_no_blank(yes, no):
    "Ten times yes, twenty times no, and blank in every fourth row"
    return lambda i: "" if i % 4 == 0 else yes if i % 4 == 1 else no


@pytest.mark.parametrize("yes, no", [("1", "-1"), ("1.0", "-1.0"), (" 1", " -1"), ('"1"', '"-1"')])
def test_a_blank_cell_of_celeba_is_unknown(tmp_path, yes, no):
    faces = open_labelled(celeba(tmp_path, yes_no_blank(yes, no)), "Smiling", 8)
    assert np.bincount(faces.labels).tolist() == [20, 10]
    assert (faces.rejected.reason == "Smiling is unknown").sum() == 10
    other = open_labelled(tmp_path, "gender", 8)
    assert len(other) == 40 and np.bincount(other.labels).tolist() == [20, 20]
    assert other.attributes.Smiling.isna().sum() == 10
    assert other.attributes.Smiling.sum() == 10


@pytest.mark.parametrize("yes, no", [("True", "False"), ("1", "0"), ("1.0", "0.0"), ("TRUE", "0")])
def test_flags_are_read_as_people_write_them(tmp_path, yes, no):
    celeba(tmp_path, yes_no_blank(yes, no))
    path = tmp_path / "list_attr_celeba.csv"
    table = pd.read_csv(path, dtype=str)
    table["Male"] = (table.Male == "1").astype(int)
    table.to_csv(path)  # with an index column
    faces = open_labelled(tmp_path, "Smiling", 8)
    assert np.bincount(faces.labels).tolist() == [20, 10]


@pytest.mark.parametrize("value", ["yes", "2", "0.5", "-"])
def test_any_other_cell_is_an_error_with_its_line(tmp_path, value):
    celeba(tmp_path, lambda i: value if i == 6 else "1")
    with pytest.raises(InputError, match=f"list_attr_celeba.csv, line 7.*'Smiling'.*{value!r}"):
        open_labelled(tmp_path, "Smiling", 8)


def test_nought_and_minus_one_cannot_both_be_no(tmp_path):
    celeba(tmp_path, lambda i: "0" if i % 2 else "1")
    with pytest.raises(InputError, match="mixes 0 .*Smiling.* and -1 .*Male"):
        open_labelled(tmp_path, "Smiling", 8)


def test_celeba_with_both_sets_of_pictures_names_the_folder_to_move(tmp_path):
    celeba(tmp_path, lambda i: 1, n=3)
    for i in (1, 2, 3):
        picture(tmp_path / "img_celeba" / f"{i:06d}.jpg")
    message = "move the folder .*img_celeba away, or give a folder of one set and its list"
    with pytest.raises(InputError, match=message):
        open_labelled(tmp_path, "Smiling", 8)
    (tmp_path / "img_celeba").rename(tmp_path / ".away")
    assert len(open_labelled(tmp_path, "Smiling", 8)) == 3


def test_an_attribute_that_is_not_there_says_what_to_do(tmp_path):
    celeba(tmp_path, lambda i: 1)
    with pytest.raises(InputError, match="no attribute 'Hat' .*'Male'.; ask for one of these, or"):
        open_labelled(tmp_path, "Hat", 8)
    celeba(tmp_path, lambda i: 1, header="image_id,Smiling,smiling")
    with pytest.raises(InputError, match="columns .'Smiling', 'smiling'. have one name: rename"):
        open_labelled(tmp_path, "Smiling", 8)


def test_a_list_between_tabs_is_found(tmp_path):
    celeba(tmp_path, yes_no_blank("1", "-1"))
    path = tmp_path / "list_attr_celeba.csv"
    (tmp_path / "list_attr_celeba.TSV").write_text(path.read_text().replace(",", "\t"))
    path.unlink()
    assert np.bincount(open_labelled(tmp_path, "Smiling", 8).labels).tolist() == [20, 10]


def test_a_list_without_its_columns_names_them(tmp_path):
    celeba(tmp_path, lambda i: 1, header="id,Smiling,Male")
    with pytest.raises(InputError, match="list_attr_celeba.csv has no column 'image_id'.*'id'"):
        open_labelled(tmp_path, "Smiling", 8)
    path = tmp_path / "list_attr_celeba.csv"
    path.write_text("image_id,Smiling\n000001.jpg,1\n,1\n")
    assert left_out(open_labelled(tmp_path, "Smiling", 8))[""] == "the file is missing"
    path.write_text("image_id,Smiling\n000001.jpg,1\n000001.jpg,-1\n")
    with pytest.raises(InputError, match="list_attr_celeba.csv, line 3.*000001.jpg.* twice"):
        open_labelled(tmp_path, "Smiling", 8)
    celeba(tmp_path, lambda i: 1, header='"image_id" , "smiling" , "male"')
    assert open_labelled(tmp_path, "smile", 8).labels.tolist() == [1] * 40


@pytest.mark.parametrize("lines", [["000001.jpg 0", "oops"], ["000001.jpg,0", "oops"]])
def test_a_line_of_one_word_in_the_partition_is_named(tmp_path, lines):
    celeba(tmp_path, lambda i: 1, n=3)
    kind = "csv" if "," in lines[0] else "txt"
    (tmp_path / f"list_eval_partition.{kind}").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=f"list_eval_partition.{kind}, line 2"):
        open_labelled(tmp_path, "Smiling", 8)


def test_a_partition_that_is_none_is_named(tmp_path):
    celeba(tmp_path, lambda i: 1, n=3)
    path = tmp_path / "list_eval_partition.csv"
    path.write_text("image_id,partition\n000001.jpg,0\n000002.jpg,3\n000003.jpg,2\n")
    with pytest.raises(InputError, match="list_eval_partition.csv, line 3.*'3'"):
        open_labelled(tmp_path, "Smiling", 8)
    path.write_text("image_id,partition\n000001.jpg,0\n000002.jpg,1\n000001.jpg,2\n")
    with pytest.raises(InputError, match="line 4: '000001.jpg' has a second line"):
        open_labelled(tmp_path, "Smiling", 8)
    path.write_text("image_id,fold\n000001.jpg,0\n")
    with pytest.raises(InputError, match="no column 'partition'"):
        open_labelled(tmp_path, "Smiling", 8)
    path.write_text("partition, image_id\n0, 000001.jpg\n2, 000003.jpg\n")
    faces = open_labelled(tmp_path, "Smiling", 8)
    assert faces.split.tolist() == ["train", "test"]
    assert "partition" in left_out(faces)["000002.jpg"]  # it could be one to test


def test_pictures_of_celeba_are_found_whatever_their_suffix(tmp_path):
    celeba(tmp_path, lambda i: 1, n=6)
    folder = tmp_path / "img_align_celeba"
    for i, suffix in ((1, ".JPG"), (2, ".jpeg"), (3, ".jfif"), (4, ".PNG")):
        (folder / f"{i:06d}.jpg").rename(folder / f"{i:06d}{suffix}")
    picture(folder / "000005.png", kind="PNG")  # the full name comes first
    picture(folder / "000077.jpg")
    faces = open_labelled(tmp_path, "Smiling", 8)
    assert len(faces) == 6 and "000005.jpg" in faces.ids
    assert left_out(faces).keys() == {"000005.png", "000077.jpg"}
    picture(tmp_path / "img_celeba" / "000006.jpg")
    with pytest.raises(InputError, match="'000006.jpg'.*img_align_celeba.*img_celeba"):
        open_labelled(tmp_path, "Smiling", 8)


# ---- FairFace


def fairface(folder, write):
    "50 pictures in train and 20 in val"
    for part, n in (("train", 50), ("val", 20)):
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
        for row in rows:
            picture(folder / row["file"])
        write(pd.DataFrame(rows), folder / f"fairface_label_{part}.csv")
    return folder


def spaced(table, path):
    "A table with a space behind each comma"
    path.write_text(table.to_csv(index=False).replace(",", ", "))


@pytest.mark.parametrize(
    "write",
    [
        lambda table, path: table.to_csv(path, index=False),
        lambda table, path: table.to_csv(path),
        lambda table, path: table.to_csv(path, index=False, quoting=1),
        lambda table, path: table[table.columns[::-1]].to_csv(path, index=False),
        lambda table, path: table.rename(columns=str.title).to_csv(path, index=False),
        lambda table, path: table.assign(file="./" + table.file).to_csv(path, index=False),
        lambda table, path: table.assign(file=table.file.str.replace("/", "\\")).to_csv(
            path, index=False
        ),
        spaced,
    ],
)
def test_fairface_is_read_by_the_names_of_its_columns(tmp_path, write):
    faces = open_labelled(fairface(tmp_path, write), "race", 8)
    assert faces.classes == list(TO_FIVE)
    assert np.bincount(faces.labels).tolist() == [11, 10, 10, 10, 10, 10, 9]
    assert sizes(faces)["test"] == 20 and len(faces) == 70
    assert set(faces.attributes.age_band) == {"20-29"}


def test_pictures_of_fairface_are_found_whatever_their_suffix_and_folder(tmp_path):
    fairface(tmp_path, lambda table, path: table.to_csv(path, index=False))
    for i, suffix in ((1, ".JPG"), (2, ".jpeg"), (3, ".jfif"), (4, ".PNG")):
        (tmp_path / f"val/{i}.jpg").rename(tmp_path / f"val/{i}{suffix}")
    faces = open_labelled(tmp_path, "race", 8)
    assert len(faces) == 70 and not len(faces.rejected)
    (tmp_path / "deep" / "val").mkdir(parents=True)
    (tmp_path / "val").rename(tmp_path / "deep" / "val" / "a")
    path = tmp_path / "fairface_label_val.csv"
    path.write_text(path.read_text().replace("val/", "deep/val/a/"))
    assert sizes(open_labelled(tmp_path, "race", 8))["test"] == 20


def test_fairface_without_a_column_names_it(tmp_path):
    fairface(tmp_path, lambda table, path: table.drop(columns="race").to_csv(path, index=False))
    with pytest.raises(InputError, match="fairface_label_train.csv has no column 'race'.*gender"):
        open_labelled(tmp_path, "race", 8)


def test_fairface_lists_what_no_row_speaks_of(tmp_path):
    fairface(tmp_path, lambda table, path: table.to_csv(path, index=False))
    picture(tmp_path / "val" / "extra.jpg")
    assert "row" in left_out(open_labelled(tmp_path, "race", 8))["extra.jpg"]
    path = tmp_path / "fairface_label_val.csv"
    path.write_text(path.read_text() + "val/3.jpg,20-29,Male,White,True\n")
    with pytest.raises(InputError, match="fairface_label_val.csv, line 22.*val/3.jpg.*twice"):
        open_labelled(tmp_path, "race", 8)


def test_fairface_s_official_split_is_never_lost_for_a_part(tmp_path):
    fairface(tmp_path, lambda table, path: table.to_csv(path, index=False))
    (tmp_path / "val").rename(tmp_path / "later")
    path = tmp_path / "fairface_label_val.csv"
    path.write_text(path.read_text().replace("val/", "later/"))
    with pytest.raises(InputError, match="fairface_label_val.csv, line 2.*'later/0.jpg'.*train"):
        open_labelled(tmp_path, "race", 8)


# ---- names and suffixes


def test_utkface_is_read_whatever_the_suffix(tmp_path):
    suffixes = [".jpg.chip.jpg", ".jpg", ".JPG", ".jpeg", ".png", ".jpg.chip.JPG"]
    for i in range(24):
        name = f"{20 + i}_{i % 2}_{i % 5}_2017010{i:08d}{suffixes[i % 6]}"
        picture(tmp_path / name, i, "PNG" if name.endswith("png") else "JPEG")
    for name in ("readme.txt", "20_0_0_2017.heic"):
        (tmp_path / name).write_text("x")
    faces = open_labelled(tmp_path, "race", 8)
    assert len(faces) == 24 and faces.classes == RACES
    assert left_out(faces).keys() == {"readme.txt", "20_0_0_2017.heic"}


def test_mrl_and_class_folders_are_read_whatever_the_suffix(tmp_path):
    for i in range(30):
        name = f"s{i // 6:04d}_{i:05d}_0_1_{i % 2}_2_0_01.{['png', 'PNG'][i % 3 == 0]}"
        picture(tmp_path / "mrl" / name, kind="PNG")
    assert len(open_labelled(tmp_path / "mrl", "eyes", 8)) == 30
    for i, suffix in enumerate(("jpg", "JPG", "jpeg", "jfif", "JFIF", "jpe")):
        for name in ("open", "closed"):
            picture(tmp_path / "cew" / name / f"{i}.{suffix}")
    picture(tmp_path / "cew" / "beside.jpg")
    picture(tmp_path / "cew" / ".ipynb_checkpoints" / "0.jpg")
    faces = open_labelled(tmp_path / "cew", "eyes", 8)
    assert faces.labels.tolist() == [0] * 6 + [1] * 6
    assert left_out(faces) == {"beside.jpg": "lies beside the class folders"}


# ---- twins


def test_twins_that_disagree_on_the_task_both_go(tmp_path):
    for i in range(30):
        picture(tmp_path / f"2{i % 10}_{i % 2}_{i % 5}_2017010{i:08d}.jpg", i)
    agree, first = "20_0_0_201701000000000.jpg", "21_1_1_201701000000001.jpg"
    picture(tmp_path / "20_0_0_9.jpg", 0)  # white and male, as the other
    picture(tmp_path / "21_0_1_9.jpg", 1)  # black, but male
    picture(tmp_path / "21_1_1_99.jpg", 1)  # black and female, as the first

    race = open_labelled(tmp_path, "race", 8)
    assert {agree, first} - set(race.ids) == {first}  # the first by name is kept: 21_0_1_9
    assert len(race) == 30 and "21_0_1_9.jpg" in race.ids
    assert not race.rejected.reason.str.contains("another label").any()

    gender = open_labelled(tmp_path, "gender", 8)
    disagree = {"21_0_1_9.jpg", first, "21_1_1_99.jpg"}
    assert len(gender) == 29 and agree in gender.ids and not disagree & set(gender.ids)
    reasons = left_out(gender)
    assert reasons.keys() == {"20_0_0_9.jpg", *disagree}
    assert all("another label" in reasons[name] for name in disagree)
    assert reasons["21_0_1_9.jpg"] == f"the same picture as {first}, with another label"


def test_an_official_split_keeps_its_twins(tmp_path):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            for i in range(4):
                picture(tmp_path / split / name / f"{i}.jpg", i)
    faces = open_labelled(tmp_path, "animal", 8)
    assert len(faces) == 16 and not len(faces.rejected)


# ---- folders


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("with_mask", "mask"),
        ("WithMask", "mask"),
        ("masked", "mask"),
        ("without_mask", "no mask"),
        ("without_face_mask", "no mask"),
        ("NoFaceMask", "no mask"),
        ("nomask", "no mask"),
        ("not wearing a mask", "no mask"),
        ("unmasked", "no mask"),
        ("mask_weared_incorrect", None),
        ("incorrect_mask", None),
        ("improperly masked", None),
        ("half mask", None),
        ("mask_or_no_mask", None),
    ],
)
def test_words_of_folders_about_masks(tmp_path, name, wanted):
    for i in range(4):
        for folder in ("with_mask", "without_mask", name):
            picture(tmp_path / folder / f"{name} {folder} {i}.png", kind="PNG")
    faces = open_labelled(tmp_path, "mask", 8)
    mine = faces.attributes.folder == name
    assert {faces.classes[k] for k in faces.labels[mine]} == ({wanted} if wanted else set())
    reasons = set(faces.rejected.reason)
    assert reasons == (set() if wanted else {f"folder {name!r} names no class of task 'mask'"})


@pytest.mark.parametrize(
    "name, task, wanted",
    [
        ("not_open", "eyes", set()),
        ("half_closed", "eyes", set()),
        ("open or closed", "eyes", set()),
        ("closedLeftEyes", "eyes", {"closed"}),
        ("not_smiling_faces", "smile", {"not smiling"}),
    ],
)
def test_words_of_folders_about_eyes_and_smiles(tmp_path, name, task, wanted):
    plain = {"eyes": ("open", "closed"), "smile": ("smiling", "neutral")}[task]
    for folder in (*plain, name):
        picture(tmp_path / folder / "a.jpg")
    faces = open_labelled(tmp_path, task, 8)
    mine = faces.attributes.folder == name
    assert {faces.classes[k] for k in faces.labels[mine]} == wanted


@pytest.mark.parametrize(
    "train, test",
    [("train", "test"), ("training_set", "test_set"), ("Train", "TEST"), ("train_data", "testing")],
)
def test_folders_of_splits_are_official_and_no_classes(tmp_path, train, test):
    for split, n in ((train, 20), (test, 10)):
        for name in ("cat", "dog"):
            for i in range(n):
                picture(tmp_path / split / name / f"{i}.jpg")
    picture(tmp_path / train / "stray.jpg")
    picture(tmp_path / "cat" / "extra.jpg")  # of no split, where the others have one
    faces = open_labelled(tmp_path, "animal", 8)
    assert faces.classes == ["cat", "dog"]
    assert sizes(faces)["test"] == 20 and len(faces) == 60
    assert left_out(faces).keys() == {"stray.jpg", "extra.jpg"}
