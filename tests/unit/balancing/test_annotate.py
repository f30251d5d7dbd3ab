"Queue, journal, agreement and merging of labels that people give"

import json
import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from sklearn.metrics import cohen_kappa_score

from fairparse.balancing.annotate import (
    ANNOTATIONS,
    LABELS,
    MEASURES,
    Journal,
    agreement,
    kappa_interval,
    labels_of,
    merge_labels,
    model_labels,
    queue,
    read_annotations,
    replay,
)
from fairparse.core.runs import InputError

CLASSES = ["calm", "happy", "sad"]


def make_labels(n=20, task="emotion", classes=CLASSES, seed=0):
    p = np.random.default_rng(seed).dirichlet(np.ones(len(classes)), n)
    return model_labels([f"f{i:03d}" for i in range(n)], task, classes, p), p


def given(*rows, task="emotion"):
    "Annotations from (id, label, annotator)"
    return pd.DataFrame(rows, columns=["id", "label", "annotator"]).assign(
        task=task, time=0.0, model="", confidence=np.nan, shown=False
    )


# what the model says


def test_model_labels_measure_doubt():
    labels, p = make_labels()
    top = np.sort(p, 1)[:, ::-1]
    assert (
        list(labels.label) == [CLASSES[c] for c in p.argmax(1)]
        and (labels.by == "model").all()
        and (labels.model == labels.label).all()
    )
    np.testing.assert_allclose(labels.confidence, top[:, 0])
    np.testing.assert_allclose(labels.margin, top[:, 0] - top[:, 1])
    np.testing.assert_allclose(labels.entropy, [-sum(x * np.log(x) for x in row) for row in p])


def test_certain_and_undecided_items():
    labels = model_labels(["sure", "torn"], "smile", ["no", "yes"], [[0, 1], [0.5, 0.5]])
    assert labels.entropy.tolist() == [0, pytest.approx(np.log(2))] and labels.margin.tolist() == [
        1,
        0,
    ]


@pytest.mark.parametrize(
    "ids, classes, p, words",
    [
        (["a"], ["x", "y"], [[0.5, 0.6]], "add up to 1"),
        (["a"], ["x", "y"], [[-0.5, 1.5]], "of item a"),
        (["a"], ["x", "y"], [[np.nan, 1]], "of item a"),
        (["a", "b"], ["x", "y"], [[0.5, 0.5]], "2 items"),
        (["a"], ["x"], [[1.0]], "at least 2"),
        (["a", "a"], ["x", "y"], [[0.5, 0.5]] * 2, "twice"),
    ],
)
def test_model_labels_refuse_what_is_no_probability(ids, classes, p, words):
    with pytest.raises(InputError, match=words):
        model_labels(ids, "smile", classes, p)


# the queue


@pytest.mark.parametrize("measure", MEASURES[:3])
def test_queue_is_sorted_by_doubt(measure):
    labels, _ = make_labels()
    doubt = queue(labels, "emotion", measure)[measure].to_numpy()
    assert (np.diff(doubt if measure != "entropy" else -doubt) >= 0).all() and len(doubt) == 20


@pytest.mark.parametrize("measure", MEASURES)
def test_queue_does_not_depend_on_the_order_of_the_table(measure):
    labels = model_labels(list("dbca"), "smile", ["no", "yes"], [[0.7, 0.3]] * 4)
    first, second = (list(queue(t, "smile", measure).id) for t in (labels, labels[::-1]))
    assert first == second and (measure == "random" or first == list("abcd"))


def test_random_queue_depends_on_its_seed_only():
    labels, _ = make_labels()
    orders = [tuple(queue(labels, "emotion", "random", seed=s).id) for s in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == sorted(labels.id)


def test_queue_leaves_out_the_confident_the_done_and_other_tasks():
    labels, p = make_labels()
    both = pd.concat([labels, make_labels(task="smile", seed=1)[0]])
    chosen = queue(both, "emotion", below=0.6, done={"f001"})
    assert set(chosen.id) == {f"f{i:03d}" for i in np.flatnonzero(p.max(1) < 0.6)} - {
        "f001"
    } and set(chosen.task) == {"emotion"}
    assert list(queue(both, "emotion", below=0.6, at_most=2, done={"f001"}).id) == list(
        chosen.id[:2]
    )
    assert (
        len(queue(labels, "emotion", below=0.0)) == 0
        and len(queue(labels, "emotion", at_most=0)) == 0
    )


def test_queue_refuses_unknown_words():
    labels, _ = make_labels()
    with pytest.raises(InputError, match="least_confident"):
        queue(labels, "emotion", "least_confident")
    with pytest.raises(InputError, match="there are \\['emotion'\\]"):
        queue(labels, "smile")
    with pytest.raises(InputError, match="margin"):
        queue(labels.drop(columns="margin"), "emotion")


# the journal


def test_every_entry_is_a_line_at_once(tmp_path):
    journal = Journal(tmp_path / "new" / "folder", "ann")
    for k in range(3):
        journal.record("label", "emotion", f"f{k}", "happy", "calm", 0.5, shown=True)
        assert len(journal.path.read_text().splitlines()) == k + 1
    first = json.loads(journal.path.read_text().splitlines()[0])
    assert first["time"] > 1e9 and {k: first[k] for k in first if k != "time"} == {
        "action": "label",
        "task": "emotion",
        "id": "f0",
        "label": "happy",
        "model": "calm",
        "confidence": 0.5,
        "shown": True,
    }


def test_entries_are_flushed_to_the_disk(tmp_path, monkeypatch):
    synced = []
    journal = Journal(tmp_path, "ann")
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    journal.record("skip", "emotion", "a"), journal.undo("emotion")
    assert len(synced) == 2 and synced[1] == journal.path.stat().st_size


def test_undo_takes_back_the_last_of_its_task_and_keeps_the_lines(tmp_path):
    journal = Journal(tmp_path, "ann")
    assert journal.undo("emotion") is None and journal.path.read_bytes() == b""
    (
        journal.record("label", "emotion", "a", "sad"),
        journal.record("label", "emotion", "a", "happy"),
        journal.record("label", "smile", "b", "yes"),
    )
    assert journal.undo("emotion") == "a" and len(journal.path.read_text().splitlines()) == 4
    table = read_annotations(tmp_path)
    assert labels_of(table, "emotion", "ann").to_dict() == {"a": "sad"} and labels_of(
        table, "smile", "ann"
    ).to_dict() == {"b": "yes"}  # back to what stood before
    assert (
        journal.undo("emotion") == "a"
        and journal.done("emotion") == set()
        and journal.undo("emotion") is None
    )
    assert Journal(tmp_path, "ann").entries == journal.entries


def test_annotators_have_files_of_their_own(tmp_path):
    for name, label in (("ann", "sad"), ("bob", "happy"), ("Zoë-2", "")):
        Journal(tmp_path, name).record("label" if label else "skip", "emotion", "a", label)
    table = read_annotations(tmp_path)
    assert (
        dict(zip(table.annotator, table.label)) == {"ann": "sad", "bob": "happy", "Zoë-2": ""}
        and len(list(tmp_path.glob("*.jsonl"))) == 3
    )
    assert (
        labels_of(table, "emotion", "Zoë-2").empty
        and ANNOTATIONS.check(table).equals(table)
        and np.isnan(table.confidence).all()
    )


@pytest.mark.parametrize("name", ["", "../ann", "a/b", ".hidden", "a b", "ann\n", "x" * 65])
def test_an_annotator_names_a_file(tmp_path, name):
    with pytest.raises(InputError, match="cannot name a file"):
        Journal(tmp_path, name)


@pytest.mark.parametrize("action, label", [("label", ""), ("skip", "sad"), ("undo", "")])
def test_record_takes_labels_and_skips_only(tmp_path, action, label):
    journal = Journal(tmp_path, "ann")
    with pytest.raises(InputError, match="neither a label nor a skip"):
        journal.record(action, "emotion", "a", label)
    assert journal.path.read_bytes() == b""


def written(tmp_path, n=3):
    "The bytes of a journal with n labels"
    journal = Journal(tmp_path, "ann")
    for k in range(n):
        journal.record("label", "emotion", f"f{k}", CLASSES[k % 3], "calm", 0.5)
    journal.close()
    return journal.path, journal.path.read_bytes()


def test_a_power_cut_at_any_byte_loses_at_most_the_last_entry(tmp_path):
    path, content = written(tmp_path, n=2)
    ends = [k for k, byte in enumerate(content) if byte == 10]
    for cut in sorted(
        {*range(0, len(content), 5), *ends, *(end + 1 for end in ends), len(content) - 2}
    ):
        entries_whole = sum(
            end <= cut for end in ends
        )  # all bytes but the newline are there: the entry is
        path.write_bytes(content[:cut])
        if cut - 1 in ends or cut == 0 or cut in ends:
            journal = Journal(tmp_path, "ann")
        else:
            with pytest.warns(UserWarning, match="half written"):
                journal = Journal(tmp_path, "ann")
            assert journal.torn
        assert len(journal.entries) == entries_whole
        journal.record("skip", "emotion", "again")
        journal.close()
        assert len(replay(path.read_bytes(), path)[0]) == entries_whole + 1


def test_zeros_at_the_end_are_a_torn_line(tmp_path):
    path, content = written(tmp_path)
    path.write_bytes(
        content + bytes(50)
    )  # a file system that had grown the file, but not yet written it
    with pytest.warns(UserWarning, match="half written"):
        assert len(read_annotations(tmp_path)) == 3
    assert path.read_bytes() == content + bytes(50)  # reading changes nothing
    with pytest.warns(UserWarning, match="half written"):
        Journal(tmp_path, "ann").close()
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "damage",
    [
        b'{"time": 1',
        b"",
        b"[]",
        b"\xff\xfe",
        b"{}",
        b'{"time": 1, "action": "erase", "task": "t", "id": "a", "label": "", "model": "", '
        b'"confidence": null, "shown": false}',
        b'{"time": 1, "action": "label", "task": "t", "id": 7, "label": "x", "model": "", '
        b'"confidence": null, "shown": false}',
    ],
)
def test_damage_in_the_middle_is_an_error_that_names_the_line(tmp_path, damage):
    path, content = written(tmp_path)
    lines = content.split(b"\n")
    path.write_bytes(b"\n".join([lines[0], damage, *lines[2:]]))
    before = path.read_bytes()
    for open_it in (lambda: Journal(tmp_path, "ann"), lambda: read_annotations(tmp_path)):
        with pytest.raises(InputError, match=f"line 2 of {path}"):
            open_it()
    assert path.read_bytes() == before
    path.write_bytes(content)
    assert len(Journal(tmp_path, "ann").entries) == 3  # the refused journal holds no lock


def test_a_lost_line_before_an_undo_is_noticed(tmp_path):
    journal = Journal(tmp_path, "ann")
    journal.record("label", "emotion", "a", "sad")
    journal.record("label", "emotion", "b", "sad")
    journal.undo("emotion")
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(lines[0] + lines[2])
    with pytest.raises(InputError, match="line 2 .* takes back b, but a came before"):
        read_annotations(tmp_path)
    journal.path.write_bytes(lines[2])
    with pytest.raises(InputError, match="takes back b, but nothing"):
        read_annotations(tmp_path)


def test_two_programs_cannot_write_to_one_journal(tmp_path):
    script = (
        "import sys; from fairparse.balancing.annotate import Journal; "
        "j = Journal(sys.argv[1], 'ann'); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(InputError, match="open in another program"):
            Journal(tmp_path, "ann")
        Journal(tmp_path, "bob").record("skip", "emotion", "a")
        assert len(read_annotations(tmp_path)) == 1  # reading is allowed at any time
        other.kill()
    Journal(tmp_path, "ann").record("skip", "emotion", "a")


def test_a_cell_run_twice_takes_the_journal_over(tmp_path):
    first = Journal(tmp_path, "ann")
    first.record("skip", "emotion", "a")
    second = Journal(tmp_path, "ann")
    second.record("skip", "emotion", "b")
    for act in (lambda: first.record("skip", "emotion", "c"), lambda: first.undo("emotion")):
        with pytest.raises(InputError, match="opened again"):
            act()
    assert second.done("emotion") == {"a", "b"} and first.done("emotion") == {"a"}


def _label_until_killed(folder, ready):
    journal = Journal(folder, "ann")
    for k in range(10**6):
        journal.record("label", "emotion", f"f{k}", "sad")
        if k == 50:
            ready.set()


def test_kill_while_writing(tmp_path):
    "Killed outright at an arbitrary moment, the journal holds the entries in order, and goes on"
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_label_until_killed, args=(tmp_path, ready))
    process.start()
    assert ready.wait(30)
    process.kill()
    process.join()
    journal = Journal(tmp_path, "ann")
    count = len(journal.entries)
    assert count > 50 and [e["id"] for e in journal.entries] == [f"f{k}" for k in range(count)]


def test_a_full_disk_changes_nothing(tmp_path):
    "Where only so much may be written, an entry that does not fit leaves no half line"
    script = """
import resource, signal, sys
from fairparse.balancing.annotate import Journal
from fairparse.core.runs import InputError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(sys.argv[1], "ann")
for k in range(3):
    journal.record("skip", "emotion", f"f{k}")
resource.setrlimit(resource.RLIMIT_FSIZE, (journal.path.stat().st_size + 40, -1))
try:
    journal.record("skip", "emotion", "f3")
except (InputError, OSError) as error:
    print(len(journal.entries), type(error).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[0] == "3"
    assert (tmp_path / "ann.jsonl").read_bytes().endswith(b"}\n") and len(
        read_annotations(tmp_path)
    ) == 3


def test_no_space_is_said_in_words(tmp_path, monkeypatch):
    journal = Journal(tmp_path, "ann")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="no space left"):
        journal.record("skip", "emotion", "a")
    assert journal.entries == [] and journal.path.read_bytes() == b""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_said_in_words(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="permission denied"):
        Journal(tmp_path / "new", "ann")


def test_a_file_in_the_place_of_the_folder_is_said_in_words(tmp_path):
    (tmp_path / "annotations").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        Journal(tmp_path / "annotations", "ann")


def test_reading_needs_a_folder(tmp_path):
    with pytest.raises(InputError, match="nowhere is missing"):
        read_annotations(tmp_path / "nowhere")
    empty = read_annotations(tmp_path)
    assert empty.empty and list(empty) == list(ANNOTATIONS.columns)


# agreement


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_kappa_equals_scikit_learn(seed, classes):
    rng = np.random.default_rng(seed)
    names = np.array([f"c{k}" for k in range(classes)])
    first = pd.Series(names[rng.integers(0, classes, 60)])
    second = first.where(rng.random(60) < 0.6, pd.Series(names[rng.integers(0, classes, 60)]))
    found = agreement(
        first, second.sample(frac=1, random_state=seed)
    )  # paired by id, whatever the order
    assert found.kappa == pytest.approx(
        cohen_kappa_score(first, second)
    ) and found.share == pytest.approx((first == second).mean())
    assert (
        found.low < found.kappa < found.high <= 1
        and found.confusion.to_numpy().sum() == found.n == 60
        and found.note == ""
    )


def test_textbook_example():
    """Two raters' diagnoses of 100 subjects

    Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions, 3rd ed., table 18.1.
    """
    table = np.array([[75, 1, 4], [5, 4, 1], [0, 0, 10]])
    pairs = [(a, b) for a in range(3) for b in range(3) for _ in range(table[a, b])]
    first, second = (
        pd.Series([["psychotic", "neurotic", "organic"][pair[k]] for pair in pairs]) for k in (0, 1)
    )
    found = agreement(first, second)
    assert found.kappa == pytest.approx(0.676, abs=5e-4) and found.share == pytest.approx(0.89)
    assert (
        found.confusion.loc["psychotic", "organic"] == 4
        and found.confusion.loc["neurotic", "psychotic"] == 5
    )  # rows are the first annotator


def test_agreement_looks_at_common_items_only():
    found = agreement(
        pd.Series({"a": "x", "b": "y", "c": "x"}), pd.Series({"c": "x", "b": "y", "z": "y"})
    )
    assert (
        (found.n, found.share, found.kappa) == (2, 1.0, 1.0)
        and found.high == 1
        and -1 <= found.low < 0.5
    )  # two items prove little


def test_undefined_kappa_says_why():
    same = agreement(pd.Series({"a": "x", "b": "x"}), pd.Series({"a": "x", "b": "x"}))
    assert (
        same.share == 1 and np.isnan([same.kappa, same.low, same.high]).all() and "'x'" in same.note
    )
    none = agreement(pd.Series({"a": "x"}), pd.Series({"b": "x"}))
    assert none.n == 0 and np.isnan([none.share, none.kappa]).all() and "no item" in none.note
    assert agreement(pd.Series(dtype=str), pd.Series(dtype=str)).n == 0


def test_one_always_the_same_and_opposites():
    assert agreement(
        pd.Series(["x", "x", "x", "x"]), pd.Series(["x", "y", "x", "y"])
    ).kappa == pytest.approx(0)
    opposite = agreement(pd.Series(["x", "y"] * 5), pd.Series(["y", "x"] * 5))
    assert opposite.kappa == pytest.approx(-1) and opposite.low == -1


def test_agreement_refuses_two_labels_for_one_item():
    with pytest.raises(InputError, match="second annotator has two labels for a"):
        agreement(pd.Series({"a": "x"}), pd.Series(["x", "y"], ["a", "a"]))


@pytest.mark.parametrize("kappa, n, share", [(0.4, 50, 0.5), (0.9, 20, 0.85), (0.7, 100, 0.85)])
def test_interval_covers_the_true_kappa(kappa, n, share):
    "At least 90 % of simulated intervals hold it, also where annotators nearly always agree"
    habits, rng = np.array([share, 1 - share]), np.random.default_rng(0)
    joint = kappa * np.diag(habits) + (1 - kappa) * np.outer(habits, habits)
    found = np.array(
        [kappa_interval(counts.reshape(2, 2)) for counts in rng.multinomial(n, joint.ravel(), 1000)]
    )
    found = found[~np.isnan(found[:, 1])]
    assert len(found) > 900 and ((found[:, 2] <= kappa) & (kappa <= found[:, 3])).mean() > 0.9


# merging


def test_people_replace_the_model_by_majority():
    labels, _ = make_labels(6)
    merged, disputed = merge_labels(
        labels,
        given(
            ("f000", "sad", "ann"),  # one person
            ("f001", "sad", "ann"),
            ("f001", "sad", "bob"),  # two agree
            ("f002", "sad", "ann"),
            ("f002", "happy", "bob"),  # two do not
            ("f003", "sad", "ann"),
            ("f003", "happy", "bob"),
            ("f003", "sad", "cyd"),  # two of three
            ("f004", "", "ann"),
            ("f004", "happy", "bob"),
        ),
    )  # a skip is no vote
    by = dict(zip(merged.id, merged.by))
    assert by == {
        "f000": "person:ann",
        "f001": "person:ann, bob",
        "f002": "disputed:ann, bob",
        "f003": "person:ann, cyd",
        "f004": "person:bob",
        "f005": "model",
    }
    label_of = dict(zip(merged.id, merged.label))
    assert (
        [label_of[f"f00{k}"] for k in (0, 1, 3, 4)] == ["sad", "sad", "sad", "happy"]
        and label_of["f002"] == labels.model[2]
        and label_of["f005"] == labels.label[5]
    )
    assert disputed.to_dict("records") == [
        {"id": "f002", "task": "emotion", "model": labels.model[2], "ann": "sad", "bob": "happy"}
    ]
    unchanged = ["id", "task", "model", "confidence", "margin", "entropy"]
    assert merged[unchanged].equals(labels[unchanged]) and LABELS.check(merged).equals(merged)


def test_merging_touches_one_task_only_and_again_changes_nothing():
    labels = pd.concat([make_labels(3)[0], make_labels(3, "smile", ["no", "yes"])[0]])
    annotations = pd.concat(
        [given(("f001", "sad", "ann")), given(("f001", "yes", "bob"), task="smile")]
    )
    merged, disputed = merge_labels(labels, annotations)
    assert disputed.empty and list(merged.by) == [
        "model",
        "person:ann",
        "model",
        "model",
        "person:bob",
        "model",
    ]
    assert merge_labels(merged, annotations)[0].equals(merged)


def test_a_dispute_after_a_first_merge_gives_the_model_its_label_back():
    labels, _ = make_labels(1)
    other = next(c for c in CLASSES if c != labels.model[0])
    once, _ = merge_labels(labels, given(("f000", other, "ann")))
    twice, disputed = merge_labels(
        once, given(("f000", other, "ann"), ("f000", labels.model[0], "bob"))
    )
    assert (
        once.label[0] == other
        and twice.label[0] == labels.model[0]
        and twice.by[0] == "disputed:ann, bob"
        and len(disputed) == 1
    )


def test_merging_nothing():
    labels, _ = make_labels(3)
    merged, disputed = merge_labels(labels, given())
    assert merged.equals(labels) and disputed.empty and list(disputed) == ["id", "task", "model"]


def test_merging_refuses_strangers_and_doubles():
    labels, _ = make_labels(3)
    with pytest.raises(InputError, match="'f999'"):
        merge_labels(labels, given(("f999", "sad", "ann")))
    with pytest.raises(InputError, match="smile"):
        merge_labels(labels, given(("f000", "yes", "ann"), task="smile"))
    with pytest.raises(InputError, match="ann has two labels for f000"):
        merge_labels(labels, given(("f000", "sad", "ann"), ("f000", "happy", "ann")))
    with pytest.raises(InputError, match="twice"):
        merge_labels(pd.concat([labels, labels]), given())


def test_the_module_needs_neither_torch_nor_a_browser():
    code = (
        "import sys, fairparse.balancing.annotate, fairparse.balancing.label_studio\n"
        "heavy = {'torch', 'anywidget', 'ipywidgets', 'sklearn', 'matplotlib'}\n"
        "print(heavy & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
