"Records: schemas that refuse, face sets that notice damage"

import json

import numpy as np
import pandas as pd
import pytest
from helpers import CLASSES, make_faces, make_index

from fairparse.core.records import (
    COUNTS,
    HISTORY,
    INDEX,
    Schema,
    open_face_set,
    read_table,
    seal_face_set,
    write_csv,
    write_face_set,
    write_table,
)
from fairparse.core.runs import InputError

TOY = Schema("toy", {"id": "str", "n": "int8", "x": "float64", "maybe": "Int8"})


def toy(**changes):
    return pd.DataFrame(
        {"id": ["a", "b"], "n": [1, 2], "x": [0.5, None], "maybe": [1, None], **changes}
    )


def test_a_table_comes_back(tmp_path):
    write_table(toy()[["x", "n", "maybe", "id"]], tmp_path / "t.parquet", TOY)
    back = read_table(tmp_path / "t.parquet", TOY)
    assert (
        list(back) == list(TOY.columns)
        and back.n.dtype == "int8"
        and back.maybe.isna().tolist() == [False, True]
        and back.id.tolist() == ["a", "b"]
    )


@pytest.mark.parametrize(
    "table,words",
    [
        (toy().drop(columns="n"), r"columns \['n'\] are missing"),
        (toy(more=1), r"columns \['more'\] are not known"),
        (toy(n=["one", "two"]), "does not fit"),
        (toy(n=[1, None]), "does not fit"),
        (toy(n=[1, 300]), r"\['n'\] do not fit \['int8'\]"),
        (toy(n=[1, 1.5]), "do not fit"),
        (toy(maybe=[1, 300]), "does not fit"),
        (toy(maybe=["yes", "no"]), "does not fit"),
    ],
    ids=str,
)
def test_tables_that_do_not_fit_are_refused_and_not_written(tmp_path, table, words):
    with pytest.raises(InputError, match=words):
        write_table(table, tmp_path / "t.parquet", TOY)
    assert not (tmp_path / "t.parquet").exists()
    table.astype({c: str for c in table if table[c].dtype == object}).to_parquet(
        tmp_path / "t.parquet"
    )
    with pytest.raises(InputError, match="t.parquet.*toy"):
        read_table(tmp_path / "t.parquet", TOY)


def test_extra_columns_are_cast_where_allowed():
    index = INDEX.check(make_index(3).assign(Hat=[1, 0, None]))
    assert index.Hat.dtype == "Int8" and index.Hat.isna().sum() == 1
    with pytest.raises(InputError, match="face index"):
        INDEX.check(make_index(3).assign(Hat="yes"))


def test_missing_and_broken_tables_are_named(tmp_path):
    with pytest.raises(InputError, match="gone.parquet is missing"):
        read_table(tmp_path / "gone.parquet", COUNTS)
    for content in (b"", b"no parquet"):
        (tmp_path / "bad.parquet").write_bytes(content)
        with pytest.raises(InputError, match="bad.parquet is not a readable Parquet file"):
            read_table(tmp_path / "bad.parquet", HISTORY)


def test_csv_has_the_asked_digits(tmp_path):
    write_csv(pd.DataFrame({"a": [1 / 3], "b": ["x"]}), tmp_path / "t.csv", 3)
    assert (tmp_path / "t.csv").read_text() == "a,b\n0.333,x\n"


@pytest.fixture
def faces(tmp_path):
    return make_faces(tmp_path / "set", 6)


def test_a_face_set_comes_back(faces):
    again = open_face_set(faces.folder)
    assert (
        len(again) == 6
        and again.size == 32
        and again.classes == CLASSES
        and again.attributes == ["Hat", "Smiling"]
    )
    assert (
        (again.images == faces.images).all()
        and isinstance(again.masks, np.memmap)
        and again.meta["splits"] == {"train": 4, "valid": 1, "test": 1}
    )
    assert again.rows("train").tolist() == [0, 1, 2, 3] and again.rows("test").tolist() == [5]


def test_folds_replace_the_split_of_those_that_have_one(tmp_path):
    index = make_index(6, train=3, valid=1).assign(fold=pd.array([0, 1, None, None, 0, 1], "Int8"))
    faces = make_faces(tmp_path, 6, index=index)
    assert (
        faces.rows("test", 0).tolist() == [0, 4]
        and faces.rows("train", 0).tolist() == [1, 2, 5]
        and faces.rows("valid", 0).tolist() == [3]
    )
    with pytest.raises(InputError, match=r"no fold 7: it has \[.*0.*1.*\]"):
        faces.rows("train", 7)
    with pytest.raises(InputError, match="'tset' is none of"):
        faces.rows("tset")


def test_attributes_as_numbers(tmp_path):
    faces = make_faces(tmp_path, 3, index=make_index(3).assign(Hat=pd.array([1, None, 0], "Int8")))
    assert faces.attribute_values(["Hat"]).tolist() == [[1], [-1], [0]] and faces.attribute_values(
        []
    ).shape == (3, 0)
    with pytest.raises(InputError, match=r"no attributes \['Bat'\]"):
        faces.attribute_values(["Bat"])


@pytest.mark.parametrize("name", ["images.npy", "masks.npy"])
@pytest.mark.parametrize("damage", ["changed", "truncated", "empty", "gone"])
@pytest.mark.parametrize("verify", [True, False])
def test_damaged_arrays_are_noticed(faces, name, damage, verify):
    path = faces.folder / name
    content = bytearray(path.read_bytes())
    if damage == "changed":
        content[-1] ^= 1
    path.unlink()  # the open memory map keeps the old file
    if damage != "gone":
        path.write_bytes({"changed": content, "truncated": content[:-9], "empty": b""}[damage])
    if damage == "changed" and not verify:
        assert len(open_face_set(faces.folder, verify=False)) == 6
    else:
        with pytest.raises(InputError, match=f"{name}.*build the face set again"):
            open_face_set(faces.folder, verify)


def test_damaged_descriptions_are_noticed(faces):
    described = json.loads((faces.folder / "faces.json").read_text())
    (faces.folder / "faces.json").write_text(
        json.dumps({k: v for k, v in described.items() if k != "count"})
    )
    with pytest.raises(InputError, match=r"faces.json lacks \['count'\]"):
        open_face_set(faces.folder)
    (faces.folder / "faces.json").write_text(json.dumps({**described, "count": 5}))
    with pytest.raises(InputError, match="shape"):
        open_face_set(faces.folder)
    (faces.folder / "faces.json").write_text(json.dumps(described))
    write_table(make_index(5), faces.folder / "index.parquet", INDEX)
    with pytest.raises(InputError, match="5 rows for 6 faces"):
        open_face_set(faces.folder)
    (faces.folder / "faces.json").unlink()
    with pytest.raises(InputError, match="holds no face set"):
        open_face_set(faces.folder)


def wrong_sets():
    images, masks, index = (
        np.zeros((4, 8, 8, 3), np.uint8),
        np.zeros((4, 8, 8), np.uint8),
        make_index(4),
    )
    outside = masks.copy()
    outside[2, 3, 3] = 19
    return {
        "00002.*label 19": (images, outside, index),
        "ids appear twice.*00001": (
            images,
            masks,
            index.assign(id=["00000", "00001", "00001", "00003"]),
        ),
        "splits must be": (images, masks, index.assign(split="dev")),
        "3 rows for 4": (images, masks, index[:3]),
        "images.npy has shape": (images[:3], masks, index),
        "masks.npy has shape": (images, masks[:, :4], index),
        "whole numbers": (images / 3 + 0.5, masks, index),
        "0..255": (images, masks.astype(int) + 300, index),
    }


@pytest.mark.parametrize("words", wrong_sets())
def test_wrong_face_sets_are_not_sealed(tmp_path, words):
    images, masks, index = wrong_sets()[words]
    with pytest.raises(InputError, match=words):
        write_face_set(tmp_path, images, masks, index, CLASSES, ["made up"])
    assert not (tmp_path / "faces.json").exists()


def test_sealing_needs_both_arrays(tmp_path):
    np.save(tmp_path / "masks.npy", np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(InputError, match="images.npy is missing"):
        seal_face_set(tmp_path, make_index(2), CLASSES, [])
