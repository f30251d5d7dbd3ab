"Labelling sessions and the messages of their window, without a browser"

import base64
import io
import json
import os
import re

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image

from fairparse.balancing.annotate import Journal, labels_of, model_labels, queue, read_annotations
from fairparse.balancing.widget import (
    LabellingSession,
    LabellingWidget,
    answer,
    picture_uri,
    view_session,
)
from fairparse.core.runs import InputError

CHOICES = ["none", "smile", "laugh"]


def make_items(n=12):
    doubt = np.linspace(0.55, 0.95, n)
    return queue(
        model_labels(
            [f"f{k:02d}" for k in range(n)],
            "smile",
            CHOICES,
            np.stack([doubt, 0.9 * (1 - doubt), 0.1 * (1 - doubt)], 1),
        ),
        "smile",
    )


def picture_of(id):
    return np.full((4, 4, 3), int(id[1:]), np.uint8)


def make_session(folder, annotator="ann", n=12, **options):
    return LabellingSession(make_items(n), CHOICES, picture_of, folder, annotator, **options)


def press(session, action, **message):
    return answer(session, {"action": action, "item": session.current, **message})


def decode(uri):
    return np.asarray(
        Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
    )


# the session


def test_ten_then_a_new_session_goes_on_with_the_eleventh(tmp_path):
    session = make_session(tmp_path)
    for k in range(10):
        assert session.current == f"f{k:02d}" and session.choose(CHOICES[k % 3]) == f"f{k:02d}"
    later = make_session(tmp_path)
    assert later.current == "f10" and later.progress == {"done": 10, "total": 12, "skipped": 0}
    later.choose("laugh"), later.skip()
    assert later.current is None and later.progress == {"done": 12, "total": 12, "skipped": 1}
    assert labels_of(read_annotations(tmp_path), "smile", "ann").to_dict() == {
        **{f"f{k:02d}": CHOICES[k % 3] for k in range(10)},
        "f10": "laugh",
    }
    for act in (later.skip, lambda: later.choose("none")):
        with pytest.raises(InputError, match="all items are done"):
            act()


def test_undo_goes_back_to_the_item_and_across_sessions(tmp_path):
    session = make_session(tmp_path)
    session.choose("none"), session.skip(), session.choose("laugh")
    assert session.undo() == "f02" and session.current == "f02"
    assert (
        session.undo() == "f01"
        and session.current == "f01"
        and session.progress == {"done": 1, "total": 12, "skipped": 0}
    )
    session = make_session(tmp_path)
    assert (
        session.current == "f01"
        and session.undo() == "f00"
        and session.undo() is None
        and session.current == "f00"
    )


def test_undo_returns_to_its_item_also_in_another_order(tmp_path):
    """The model was trained again and the queue is in another order

    Undo still shows the picture that it is about.
    """
    items = make_items()
    LabellingSession(items, CHOICES, picture_of, tmp_path, "ann").choose("none")
    session = LabellingSession(items[::-1], CHOICES, picture_of, tmp_path, "ann")
    assert session.current == "f11" and session.undo() == "f00" and session.current == "f00"
    session.choose("smile")
    assert session.current == "f11"


def test_undo_leaves_alone_what_is_not_in_this_queue(tmp_path):
    LabellingSession(make_items(), CHOICES, picture_of, tmp_path, "ann").choose("none")
    session = LabellingSession(make_items()[3:], CHOICES, picture_of, tmp_path, "ann")
    assert (
        session.undo() is None
        and session.journal.done("smile") == {"f00"}
        and session.progress["done"] == 0
        and session.current == "f03"
    )


@pytest.mark.parametrize("show_guess", [False, True])
def test_the_journal_notes_the_guess_and_whether_it_was_seen(tmp_path, show_guess):
    session = make_session(tmp_path, show_guess=show_guess)
    assert view_session(session)["guess"] == ("none (55%)" if show_guess else "")
    session.choose("smile")
    row = read_annotations(tmp_path).iloc[0]
    assert (row.model, row.confidence, row.shown) == ("none", pytest.approx(0.55), show_guess)


def test_hidden_guess_is_not_sent_at_all(tmp_path):
    "Not merely invisible: whoever looks into the page does not find it either"
    doubt = model_labels(["f00"], "smile", ["none", "unmistakable"], [[0.3, 0.7]])
    view = view_session(
        LabellingSession(doubt, ["none", "unmistakable"], picture_of, tmp_path, "ann")
    )
    assert (
        json.dumps({k: v for k, v in view.items() if k != "choices"}).count("unmistakable") == 0
        and "0.7" not in json.dumps(view)
        and "70" not in json.dumps({k: v for k, v in view.items() if k != "picture"})
    )


def test_sessions_of_two_annotators_do_not_meet(tmp_path):
    ann, bob = make_session(tmp_path), make_session(tmp_path, "bob")
    ann.choose("none"), ann.choose("none"), bob.choose("laugh")
    assert (
        ann.current == "f02"
        and bob.current == "f01"
        and bob.undo() == "f00"
        and ann.progress["done"] == 2
    )


def test_an_empty_queue_is_done(tmp_path):
    session = LabellingSession(make_items()[:0], CHOICES, picture_of, tmp_path, "ann")
    assert (
        session.current is None
        and session.progress == {"done": 0, "total": 0, "skipped": 0}
        and session.undo() is None
        and view_session(session)["picture"] is None
    )


def test_sessions_refuse_what_makes_no_sense(tmp_path):
    items = make_items()
    with pytest.raises(InputError, match="one task"):
        LabellingSession(
            pd.concat([items, items.assign(task="eyes")]), CHOICES, picture_of, tmp_path, "ann"
        )
    with pytest.raises(InputError, match="twice"):
        LabellingSession(pd.concat([items, items]), CHOICES, picture_of, tmp_path, "ann")
    for choices in (["none"], ["none", "none"], ["none", ""], []):
        with pytest.raises(InputError, match="two different"):
            LabellingSession(items, choices, picture_of, tmp_path, "ann")
    with pytest.raises(InputError, match="the model says \\['none'\\]"):
        LabellingSession(items, ["smile", "laugh"], picture_of, tmp_path, "ann")
    with pytest.raises(InputError, match="none of the choices"):
        make_session(tmp_path).choose("grin")
    assert Journal(tmp_path, "ann").entries == []


# messages


def test_messages_do_what_keys_say(tmp_path):
    session = make_session(tmp_path)
    shown = press(session, "show")
    assert (
        shown["item"],
        shown["task"],
        shown["choices"],
        shown["done"],
        shown["total"],
        shown["annotator"],
    ) == ("f00", "smile", CHOICES, 0, 12, "ann")
    assert (decode(shown["picture"]) == picture_of("f00")).all()
    assert press(session, "choose", label="laugh")["notice"] == "saved: f00 is laugh"
    assert press(session, "skip")["notice"] == "skipped: f01"
    assert press(session, "undo")["notice"] == "taken back: f01"
    shown = press(session, "undo")
    assert shown["item"] == "f00" and press(session, "undo")["notice"] == "nothing to take back"
    json.dumps(shown)  # plain values only


@pytest.mark.parametrize("action", ["choose", "skip", "undo"])
def test_a_key_for_a_picture_that_is_gone_does_nothing(tmp_path, action):
    session = make_session(tmp_path)
    session.choose("none")
    before = session.journal.path.read_bytes()
    shown = answer(
        session, {"action": action, "item": "f00", "label": "laugh"}
    )  # pressed twice: the second press came too early
    assert (
        "no longer the current" in shown["notice"]
        and shown["item"] == "f01"
        and session.journal.path.read_bytes() == before
    )


def test_at_the_end_only_undo_does_something(tmp_path):
    session = make_session(tmp_path, n=1)
    assert press(session, "choose", label="none")["item"] is None
    assert (
        "all items are done" in press(session, "skip")["problem"] and session.progress["done"] == 1
    )
    assert press(session, "undo")["item"] == "f00"


@pytest.mark.parametrize(
    "message, words",
    [
        ({"action": "choose", "label": "grin"}, "none of the choices"),
        ({"action": "choose"}, "none of the choices"),
        ({"action": "dance"}, "does not exist"),
        ({}, "does not exist"),
    ],
)
def test_messages_that_make_no_sense_are_problems_not_labels(tmp_path, message, words):
    session = make_session(tmp_path)
    shown = answer(session, {"item": "f00", **message})
    assert words in shown["problem"] and shown["item"] == "f00" and session.journal.entries == []


def test_a_full_disk_is_shown_and_the_item_stays(tmp_path, monkeypatch):
    session = make_session(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        shown = press(session, "choose", label="none")
    assert "no space left" in shown["problem"] and shown["notice"] == "" and shown["item"] == "f00"
    assert press(session, "choose", label="none")["item"] == "f01"


def test_a_missing_picture_can_be_skipped_but_not_labelled(tmp_path):
    session = LabellingSession(
        make_items(), CHOICES, lambda id: tmp_path / f"{id}.png", tmp_path / "annotations", "ann"
    )
    shown = press(session, "show")
    assert "f00.png is missing or no picture" in shown["problem"] and shown["picture"] is None
    assert (
        "f00.png" in press(session, "choose", label="none")["problem"]
        and session.progress["done"] == 0
    )
    assert press(session, "skip")["item"] == "f01"


def test_a_session_that_was_opened_again_says_so(tmp_path):
    old, new = make_session(tmp_path), make_session(tmp_path)
    assert (
        "opened again" in press(old, "choose", label="none")["problem"]
        and new.progress["done"] == 0
    )


def test_a_power_cut_is_mentioned(tmp_path):
    session = make_session(tmp_path)
    session.choose("none"), session.choose("smile")
    session.journal.close()
    session.journal.path.write_bytes(session.journal.path.read_bytes()[:-9])
    with pytest.warns(UserWarning, match="half written"):
        session = make_session(tmp_path)
    shown = press(session, "show")
    assert shown["item"] == "f01" and "half written" in shown["notice"]


# pictures


def test_pictures_arrive_as_they_are(tmp_path):
    colour, grey = (
        np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8),
        np.arange(12, dtype=np.uint8).reshape(3, 4),
    )
    assert (decode(picture_uri(colour)) == colour).all() and (
        decode(picture_uri(grey)) == grey
    ).all()
    Image.fromarray(colour).save(tmp_path / "a.png")
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        assert (decode(picture_uri(path)) == colour).all()


def test_a_photograph_is_turned_as_its_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright: turn a quarter clockwise
    Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert decode(picture_uri(tmp_path / "a.jpg")).shape == (8, 4, 3)
    Image.new("RGBA", (4, 4), (90, 60, 30, 0)).save(tmp_path / "clear.png")
    assert (decode(picture_uri(tmp_path / "clear.png")) == 255).all()  # nobody sees the brown


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(picture):
    with pytest.raises(InputError, match="uint8"):
        picture_uri(picture)


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("text")
    for path in (tmp_path / "a.png", tmp_path / "b.png", tmp_path):
        with pytest.raises(InputError, match="no picture"):
            picture_uri(path)


# the widget


def test_the_widget_sends_answers_and_keeps_no_picture(tmp_path):
    widget, sent = LabellingWidget(make_session(tmp_path), size=200, smooth=True), []
    widget.send = sent.append
    for message in ({"action": "show"}, {"action": "choose", "item": "f00", "label": "smile"}):
        widget._handle_custom_msg(message, [])  # as a browser's message arrives
    assert [(s["item"], s["size"], s["smooth"]) for s in sent] == [
        ("f00", 200, True),
        ("f01", 200, True),
    ]
    state = widget.get_state()
    assert "fairparse-labelling" in state.pop("_esm") and ".fl-" in state.pop(
        "_css"
    )  # the files in assets were found
    assert not any(
        word in json.dumps(state, default=str) for word in ("data:image", "f00", "smile", "laugh")
    )
    widget.close()


def test_the_window_and_the_kernel_use_the_same_words(tmp_path):
    "Every field that the JavaScript reads is sent, and every action that it sends is understood"
    script = (ROOT / "fairparse" / "assets" / "labelling_widget.js").read_text()
    widget, sent = LabellingWidget(make_session(tmp_path)), []
    widget.send = sent.append
    widget._reply(widget, {"action": "show"}, [])
    assert set(re.findall(r"\bview\.(\w+)", script)) == set(sent[0])
    actions = set(re.findall(r'\bsend\("(\w+)"', script))
    assert actions == {"show", "choose", "skip", "undo"}
    widget.close()


def test_styles_are_those_of_the_script():
    folder = ROOT / "fairparse" / "assets"
    styled, used = (
        set(re.findall(r"\bfl-[a-z]+", (folder / f"labelling_widget.{kind}").read_text()))
        for kind in ("css", "js")
    )
    assert styled == used
