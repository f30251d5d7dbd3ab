"Out to Label Studio's JSON and back"

import base64
import copy
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairparse.balancing.annotate import agreement, labels_of, merge_labels, model_labels
from fairparse.balancing.label_studio import (
    export_studio,
    import_studio,
    picture_address,
    studio_config,
)
from fairparse.core.runs import InputError, write_json

TASKS = {"smile": ["none", "smile"], "eyes": ["open", "closed"]}


@pytest.fixture
def world(tmp_path):
    "Labels of three items and two tasks, their pictures, and what two people said"
    labels = pd.concat(
        [
            model_labels(list("abc"), task, choices, [[0.6, 0.4], [0.2, 0.8], [0.9, 0.1]])
            for task, choices in TASKS.items()
        ]
    )
    pictures = {id: tmp_path / "set one" / f"{id}.png" for id in "abc"}
    (tmp_path / "set one").mkdir()
    for k, path in enumerate(pictures.values()):
        Image.new("RGB", (4, 4), (k, 0, 0)).save(path)
    rows = [
        ("a", "smile", "smile", "ann", 1.7e9),
        ("a", "eyes", "open", "ann", 1.7e9),
        ("b", "smile", "", "ann", 1.7e9 + 60),
        ("a", "smile", "none", "bob", 1.7e9 + 90.5),
        ("c", "eyes", "closed", "bob", 1.7e9 + 99),
    ]
    annotations = pd.DataFrame(rows, columns=["id", "task", "label", "annotator", "time"]).assign(
        shown=False
    )
    annotations = annotations.merge(labels[["id", "task", "model", "confidence"]])
    return labels, pictures, annotations


def test_export_has_the_documented_form(world, tmp_path):
    labels, pictures, annotations = world
    exported = json.loads(json.dumps(export_studio(labels, pictures, annotations, root=tmp_path)))
    assert [item["data"] for item in exported] == [
        {"image": f"/data/local-files/?d=set%20one/{id}.png", "id": id} for id in "abc"
    ]
    first = exported[0]
    assert first["predictions"] == [
        {
            "model_version": "model",
            "score": 0.6,
            "result": [
                {
                    "id": f"model-{task}",
                    "from_name": task,
                    "to_name": "image",
                    "type": "choices",
                    "value": {"choices": [choices[0]]},
                    "score": 0.6,
                }
                for task, choices in TASKS.items()
            ],
        }
    ]
    assert [
        (
            a["completed_by"],
            a["was_cancelled"],
            {r["from_name"]: r["value"]["choices"] for r in a["result"]},
        )
        for a in first["annotations"]
    ] == [
        ({"email": "ann"}, False, {"smile": ["smile"], "eyes": ["open"]}),
        ({"email": "bob"}, False, {"smile": ["none"]}),
    ]
    assert (
        exported[1]["annotations"][0]["was_cancelled"]
        and exported[1]["annotations"][0]["result"] == []
    )
    assert first["annotations"][0]["created_at"] == "2023-11-14T22:13:20+00:00"


def test_names_fit_the_interface(world):
    """from_name, to_name and the picture's field are those of the XML

    Or Label Studio refuses the file.
    """
    labels, pictures, annotations = world
    config = ElementTree.fromstring(studio_config(TASKS))
    image, controls = config.find("Image"), {c.get("name"): c for c in config.iter("Choices")}
    for item in export_studio(labels, pictures, annotations):
        assert image.get("value").lstrip("$") in item["data"]
        for result in (
            r for part in ("predictions", "annotations") for p in item[part] for r in p["result"]
        ):
            assert (
                result["to_name"]
                == image.get("name")
                == controls[result["from_name"]].get("toName")
            )
            assert set(result["value"]["choices"]) <= {
                c.get("value") for c in controls[result["from_name"]]
            }


def test_interface_escapes_names():
    config = ElementTree.fromstring(studio_config({'a <b> & "c"': ["<yes>", "it's"]}))
    assert config.find("Choices").get("name") == 'a <b> & "c"' and [
        c.get("value") for c in config.iter("Choice")
    ] == ["<yes>", "it's"]
    with pytest.raises(InputError, match="image"):
        studio_config({"image": ["x", "y"]})


def test_round_trip(world, tmp_path):
    labels, pictures, annotations = world
    write_json(tmp_path / "export.json", export_studio(labels, pictures, annotations))
    back, left_out = import_studio(tmp_path / "export.json", labels, TASKS, shown=False)
    order = ["id", "task", "annotator"]
    kept = (
        annotations[annotations.label != ""].sort_values(order)[list(back)].reset_index(drop=True)
    )
    pd.testing.assert_frame_equal(
        back.sort_values(order).reset_index(drop=True), kept, check_dtype=False
    )
    assert left_out == {"cancelled": 1}
    merged, disputed = merge_labels(labels, back)
    assert list(disputed.id) == ["a"] and (merged.by == "person:bob").sum() == 1
    assert agreement(labels_of(back, "smile", "ann"), labels_of(back, "smile", "bob")).share == 0


def test_pictures_inside_the_file(world):
    labels, pictures, _ = world
    for item in export_studio(labels, pictures):
        head, data = item["data"]["image"].split(",", 1)
        assert (
            head == "data:image/png;base64"
            and base64.b64decode(data) == pictures[item["data"]["id"]].read_bytes()
        )


def test_plain_relative_paths(world, tmp_path):
    assert picture_address(world[1]["a"], tmp_path, prefix="") == "set%20one/a.png"


def test_export_refuses_what_it_cannot_show(world, tmp_path):
    labels, pictures, _ = world
    with pytest.raises(InputError, match="no picture of \\['c'"):
        export_studio(labels, {k: pictures[k] for k in "ab"})
    with pytest.raises(InputError, match="missing"):
        export_studio(labels, {**pictures, "a": tmp_path / "a.png"})
    with pytest.raises(InputError, match="does not lie below"):
        export_studio(labels, pictures, root=tmp_path / "elsewhere")


# an export as Label Studio writes it: ids, users as objects or numbers, drafts, a cancelled
# annotation


def studio_export():
    def studio_annotation(choice, user, at, **further):
        return {
            "id": 1,
            "completed_by": user,
            "result": [
                {
                    "value": {"choices": [choice]},
                    "id": "kP3_x",
                    "from_name": "smile",
                    "to_name": "image",
                    "type": "choices",
                    "origin": "manual",
                }
            ]
            if choice
            else [],
            "was_cancelled": False,
            "ground_truth": False,
            "created_at": at,
            "updated_at": at,
            "draft_created_at": None,
            "lead_time": 3.1,
            "prediction": {},
            "result_count": 1,
            "task": 7,
            "project": 2,
            **further,
        }

    return [
        {
            "id": 7,
            "data": {"image": "/data/local-files/?d=a.png", "id": "a"},
            "annotations": [
                studio_annotation(
                    "smile",
                    {"id": 1, "email": "ann@example.org", "first_name": "", "last_name": ""},
                    "2026-01-02T10:00:00.250000Z",
                ),
                studio_annotation("none", 2, "2026-01-02T11:00:00Z"),
                studio_annotation("smile", 2, "2026-01-02T10:30:00Z"),
            ],
            "drafts": [],
            "predictions": [],
            "meta": {},
        },
        {
            "id": 8,
            "data": {"image": "/data/local-files/?d=b.png", "id": "b"},
            "annotations": [
                studio_annotation("", 2, "2026-01-02T11:05:00Z", was_cancelled=True),
                studio_annotation("", 1, "2026-01-02T11:06:00Z"),
                studio_annotation("none", None, "2026-01-02T11:07:00Z"),
            ],
            "predictions": [],
        },
    ]


def test_import_of_a_real_export(world):
    back, left_out = import_studio(
        studio_export(), world[0], TASKS, users={"ann": "ann@example.org", "bob": 2}
    )
    rows = back[["id", "label", "annotator", "model", "confidence", "shown"]].to_dict("records")
    common = {"model": "none", "confidence": 0.6, "shown": True}
    assert rows == [
        {"id": "a", "label": "smile", "annotator": "ann", **common},
        {
            "id": "a",
            "label": "none",
            "annotator": "bob",
            **common,
        },  # bob's latest, wherever it stands
        {
            "id": "b",
            "label": "none",
            "annotator": "unknown",
            "model": "smile",
            "confidence": 0.8,
            "shown": True,
        },
    ]
    assert left_out == {"cancelled": 1, "without a choice": 1, "replaced by a later one": 1}
    assert back.time[0] == pytest.approx(pd.Timestamp("2026-01-02T10:00:00.25Z").timestamp())


def test_users_that_nobody_named_keep_what_label_studio_calls_them(world):
    back, _ = import_studio(studio_export(), world[0], TASKS)
    assert list(back.annotator) == ["ann@example.org", "user 2", "unknown"]


def changed(**change):
    """The export with one thing in its first annotation's first result, or in its first item

    Changed.
    """
    export = studio_export()
    result = export[0]["annotations"][0]["result"][0]
    if "choices" in change:
        result["value"] = {"choices": change["choices"]}
    if "task" in change:
        result["from_name"] = change["task"]
    if "item" in change:
        export[0]["data"]["id"] = change["item"]
    if "time" in change:
        export[0]["annotations"][0]["updated_at"] = change["time"]
    return export


@pytest.mark.parametrize(
    "change, words",
    [
        ({"choices": ["grin"]}, "'grin'"),
        ({"choices": ["none", "smile"]}, "one of"),
        ({"choices": []}, "one of"),
        ({"task": "mood"}, "'mood'"),
        ({"item": "z"}, "item 'z'"),
        ({"item": None}, "item 'None'"),
        ({"time": "yesterday"}, "yesterday"),
    ],
)
def test_import_refuses_what_it_does_not_know(world, change, words):
    with pytest.raises(InputError, match=words):
        import_studio(changed(**change), world[0], TASKS)


def test_import_refuses_a_task_that_was_not_asked_about_the_item(world):
    labels = world[0]
    with pytest.raises(InputError, match="not asked"):
        import_studio(
            studio_export(), labels[~((labels.id == "a") & (labels.task == "smile"))], TASKS
        )


def test_import_refuses_other_formats(world, tmp_path):
    mini = [{"image": "/data/a.png", "id": 7, "smile": "none", "annotator": 1}]  # JSON-MIN
    for content in (mini, {"tasks": []}, ["a"], [{"data": {}, "annotations": None}]):
        (tmp_path / "export.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match="JSON-MIN"):
            import_studio(tmp_path / "export.json", world[0], TASKS)
    (tmp_path / "export.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        import_studio(tmp_path / "export.json", world[0], TASKS)
    with pytest.raises(InputError, match="missing"):
        import_studio(tmp_path / "other.json", world[0], TASKS)


def test_results_of_other_tags_are_left_alone(world):
    export = studio_export()
    box = {
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "value": {"x": 1, "rectanglelabels": ["Nose"]},
    }
    export[0]["annotations"][0]["result"].append(box)
    export[1]["annotations"][2]["result"] = [box]
    before = copy.deepcopy(export)
    back, left_out = import_studio(export, world[0], TASKS)
    assert len(back) == 2 and left_out["without a choice"] == 2 and export == before
    assert np.isfinite(back.time).all()
