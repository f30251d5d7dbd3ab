"The balanced face set: names, pictures that are rewritten, tables, the data sheet's numbers"

import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairparse.balancing.annotate import LABELS, merge_labels, model_labels
from fairparse.balancing.balanced_set import (
    BALANCED,
    face_ids,
    wide_labels,
    write_balanced_set,
    write_datasheet,
    write_images,
)
from fairparse.core.records import read_table
from fairparse.core.runs import InputError, hash_file

RNG = np.random.default_rng(0)
FACTS = {
    "generator": "a toy",
    "generator_sha256": "0123456789abcdef" * 4,
    "size": 8,
    "licence": "CC0",
    "tasks": {"smile": ["no", "yes"]},
}


def pictures(count, size=8):
    return RNG.integers(0, 256, (count, size, size, 3), np.uint8)


def group_of(sizes):
    return {group: (face_ids(group, n), pictures(n)) for group, n in sizes.items()}


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


# ---- names and pictures


@pytest.mark.parametrize(
    "group",
    ["tone 1", "a/b", "../../evil", "ünïcode", "日本", "a\nb", ".hidden", "a|b", "CON:", "x" * 50],
)
def test_names_of_groups_are_safe_as_names_of_files(tmp_path, group):
    files = write_images(tmp_path / "set", group_of({group: 2}))
    assert len(files) == 2 and content(tmp_path).keys() == {
        f"set/{file}" for file in files.values()
    }  # nothing lies elsewhere
    for name, file in files.items():
        assert re.fullmatch(r"images/\w+/\w+-\d{5}\.png", file) and file.endswith(f"/{name}.png")


def test_ids_are_in_order_and_different():
    ids = face_ids("tone 1", 12)
    assert ids[0] == "tone_1-00000"
    assert ids[11] == "tone_1-00011"
    assert ids == sorted(set(ids))
    assert face_ids("tone 1", 0) == []
    assert face_ids("tone 1", 5) == ids[:5]
    first, second = face_ids("tone 1", 2, pictures(2)), face_ids("tone 1", 2, 255 - pictures(2))
    assert all(name.startswith(plain + "-") for name, plain in zip(first, ids)) and not set(
        first
    ) & set(second)  # another picture never has the same name


def test_groups_that_differ_in_punctuation_alone_are_refused(tmp_path):
    write_images(tmp_path, group_of({"a_b": 2}))
    before = content(tmp_path)
    with pytest.raises(
        InputError, match=r"names of faces appear twice, such as 'a_b-00000'.*\['a b', 'a_b'\]"
    ):
        write_images(tmp_path, group_of({"a b": 2, "a_b": 1}))
    assert content(tmp_path) == before


def test_pictures_come_back_without_loss(tmp_path):
    groups = group_of({"one": 3, "two": 5, "none": 0})  # unequal groups
    files = write_images(tmp_path, groups)
    assert len(files) == 8
    for ids, images in groups.values():
        for name, image in zip(ids, images):
            assert np.array_equal(np.asarray(Image.open(tmp_path / files[name])), image)


def test_only_what_changed_is_written_and_what_is_stale_removed(tmp_path):
    groups = group_of({"one": 4, "two": 3})
    files = write_images(tmp_path, groups)
    for path in tmp_path.rglob("*.png"):
        os.utime(path, (1, 1))
    others = {
        "annotations/ann.jsonl": b"{}\n",
        "annotations/deep/face.png": b"a",
        "notes.png": b"b",
        "images/notes.txt": b"c",
        "images/cover.png": b"d",
        "other/one/x.png": b"e",
    }
    for name, data in others.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    groups["one"][1][2] ^= 255  # one picture changes, one is damaged, one has another size, two go
    damaged = tmp_path / files["two-00000"]
    damaged.write_bytes(damaged.read_bytes()[:60])
    Image.fromarray(pictures(1, 4)[0]).save(tmp_path / files["two-00001"])
    groups = {
        "one": tuple(part[:3] for part in groups["one"]),
        "two": tuple(part[:2] for part in groups["two"]),
    }
    again = write_images(tmp_path, groups)
    assert set(again) == {"one-00000", "one-00001", "one-00002", "two-00000", "two-00001"}
    for ids, images in groups.values():
        for name, image in zip(ids, images):
            assert np.array_equal(np.asarray(Image.open(tmp_path / again[name])), image)
    assert {name for name, file in again.items() if (tmp_path / file).stat().st_mtime != 1} == {
        "one-00002",
        "two-00000",
        "two-00001",
    }
    there = content(tmp_path)
    assert there.keys() == {*again.values(), *others}
    assert all(there[name] == data for name, data in others.items())


def test_a_group_that_is_gone_leaves_no_pictures(tmp_path):
    write_images(tmp_path, group_of({"one": 2, "two": 2}))
    files = write_images(tmp_path, group_of({"two": 2}))
    assert content(tmp_path).keys() == set(files.values())


# ---- tables


def make_set(sizes=None, people=()):
    "Faces, vectors, labels of two questions; `people`: (id, annotator, label) of the smile"
    sizes = sizes or {"one": 3, "two | x": 2}
    ids = [name for group, n in sizes.items() for name in face_ids(group, n)]
    groups = [group for group, n in sizes.items() for _ in range(n)]
    rng = np.random.default_rng(1)
    faces = pd.DataFrame(
        {
            "id": ids,
            "file": [f"images/x/{i}.png" for i in ids],
            "group": groups,
            "group_confidence": rng.uniform(0.5, 1, len(ids)),
            "second_group": [g if i % 3 else "elsewhere" for i, g in enumerate(groups)],
            "second_confidence": 0.75,
            "rule": [{"one": "shift"}.get(g, "screen") for g in groups],
            "space": "z",
            "alpha": 1.5,
            "seed": 3,
            "draw": np.arange(len(ids)) * 7,
        }
    )
    labels = pd.concat(
        [
            model_labels(ids, task, classes, rng.dirichlet(np.ones(len(classes)), len(ids)))
            for task, classes in (("smile", ["no", "yes"]), ("eyes", ["closed", "open", "one"]))
        ],
        ignore_index=True,
    )
    given = pd.DataFrame(
        [
            {
                "id": i,
                "task": "smile",
                "label": label,
                "annotator": who,
                "time": 0.0,
                "model": "no",
                "confidence": 0.5,
                "shown": False,
            }
            for i, who, label in people
        ]
    )
    if len(given):
        labels, _ = merge_labels(labels, given)
    return faces, rng.standard_normal((len(ids), 4)), labels


def test_tables_say_the_same_as_what_they_were_made_of(tmp_path):
    faces, latents, labels = make_set()
    shuffled = labels.sample(frac=1, random_state=0)
    table = write_balanced_set(tmp_path, faces, latents, shuffled, labels.head(2))
    back = read_table(tmp_path / "labels.parquet", BALANCED)
    pd.testing.assert_frame_equal(back[list(BALANCED.columns)], BALANCED.check(faces))
    np.testing.assert_array_equal(np.stack(back.latent), latents.astype(np.float32))
    np.testing.assert_array_equal(np.load(tmp_path / "latents.npy"), latents)
    for task in ("smile", "eyes"):
        expected = labels[labels.task == task].set_index("id").loc[faces.id]
        for frame in (back, table, pd.read_csv(tmp_path / "labels.csv")):
            assert list(frame[task]) == list(expected.label)
            assert list(frame[f"{task}_by"]) == ["model"] * 5
            assert np.allclose(
                frame[f"{task}_confidence"].astype(float), expected.confidence, rtol=1e-5
            )
    pd.testing.assert_frame_equal(
        read_table(tmp_path / "long_labels.parquet", LABELS), shuffled.reset_index(drop=True)
    )
    assert len(pd.read_csv(tmp_path / "queue.csv")) == 2 and list(table.id) == list(faces.id)


def test_wide_labels_keep_each_question_apart():
    _, _, labels = make_set()
    wide = wide_labels(labels)
    assert list(wide) == [
        "smile",
        "smile_confidence",
        "smile_by",
        "eyes",
        "eyes_confidence",
        "eyes_by",
    ]
    assert len(wide) == 5
    with pytest.raises(InputError, match="columns .*task.* are missing"):
        wide_labels(labels.drop(columns="task"))


@pytest.mark.parametrize("drop", ["one", "task"])
def test_every_face_needs_every_label(tmp_path, drop):
    faces, latents, labels = make_set()
    gone = (
        labels[(labels.id == "one-00001") & (labels.task == "eyes")]
        if drop == "one"
        else labels[labels.id == "one-00001"]
    )
    with pytest.raises(InputError, match=r"faces \['one-00001'\] lack a label"):
        write_balanced_set(tmp_path, faces, latents, labels.drop(gone.index), labels.head(1))
    with pytest.raises(InputError, match="4 vectors for 5 faces"):
        write_balanced_set(tmp_path, faces, latents[:4], labels, labels.head(1))
    assert content(tmp_path) == {}


# ---- the data sheet


def markdown_tables(text):
    "Every table of a Markdown text, as lists of rows of cells"
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.M)
    return [
        [
            [
                cell.strip().replace("\\|", "|")
                for cell in re.split(r"(?<!\\)\|", line.strip("\n"))[1:-1]
            ]
            for line in block.splitlines()
        ]
        for block in blocks
    ]


def test_numbers_of_the_data_sheet_are_those_of_the_tables(tmp_path):
    people = [
        ("one-00000", "ann", "yes"),
        ("one-00000", "bob", "yes"),
        ("one-00001", "ann", "yes"),
        ("one-00001", "bob", "no"),
    ]
    faces, latents, labels = make_set(people=people)
    table = write_balanced_set(tmp_path, faces, latents, labels, labels.head(0))
    errors = pd.DataFrame(
        {
            "classifier": ["group", "smile"],
            "test faces": [999, 50],
            "accuracy": [87.99, 70.0],
            "low": [85.8, 56.2],
            "high": [89.9, 80.9],
        }
    )
    write_datasheet(tmp_path, table, errors, FACTS)
    text = (tmp_path / "DATASHEET.md").read_text()
    sheet = json.loads((tmp_path / "datasheet.json").read_text())
    groups, answers, by, wrong = markdown_tables(text)
    assert [row[:2] for row in groups[2:]] == [["one", "3"], ["two | x", "2"]]
    assert [row[3] for row in groups[2:]] == ["shift", "screen"]
    assert all(len(row) == len(groups[0]) for row in groups)  # a name with a bar breaks no table
    for row, group in zip(groups[2:], ("one", "two | x")):
        mine = faces[faces.group == group]
        assert float(row[2]) == pytest.approx(mine.group_confidence.mean(), abs=2e-3)
        assert float(row[4]) == pytest.approx((mine.second_group == group).mean(), abs=2e-3)
    counted = {(question, group, label): int(n) for question, group, label, n in answers[2:]}
    assert counted == {
        (task, group, label): n
        for task in ("smile", "eyes")
        for (group, label), n in table.groupby(["group", task]).size().items()
    }
    assert sum(n for (question, _, _), n in counted.items() if question == "smile") == 5
    assert [row[:4] for row in by[2:]] == [["smile", "3", "1", "1"], ["eyes", "5", "0", "0"]]
    assert [row[:2] for row in wrong[2:]] == [["group", "999"], ["smile", "50"]]
    assert wrong[2][2] == "88"
    assert "5 generated faces of 8 pixels, 2 groups" in text
    assert "0123456789abcdef" in text
    assert "CC0" in text
    assert sheet["faces"] == 5
    assert sheet["groups"] == {"one": 3, "two | x": 2}
    assert sheet["tables_sha256"] == hash_file(tmp_path / "labels.csv")
    assert sheet["errors"] == errors.to_dict("records")
    assert [
        (row["question"], row["by a model"], row["by people"], row["disputed"])
        for row in sheet["labels_by"]
    ] == [("smile", 3, 1, 1), ("eyes", 5, 0, 0)]
    assert sheet["licence"] == "CC0"


def test_the_sheet_says_what_labels_are_not(tmp_path):
    faces, latents, labels = make_set()
    write_datasheet(
        tmp_path,
        write_balanced_set(tmp_path, faces, latents, labels, labels.head(0)),
        pd.DataFrame({"classifier": []}),
        FACTS,
    )
    text = (tmp_path / "DATASHEET.md").read_text()
    for words in (
        "not a property of a person",
        "No photograph is in it",
        "Do not use the labels",
        "What it is for",
        "Not for",
        "## Licence",
        "## Limits",
        "How wrong the labels are",
    ):
        assert words in text
