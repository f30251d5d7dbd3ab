"Groups: unknown values, empty and one-face groups, minimum sizes, intersections, bad input"

import itertools

import numpy as np
import pandas as pd
import pytest

from fairparse.core.records import write_face_set
from fairparse.core.runs import InputError
from fairparse.data.groups import (
    DEMOGRAPHIC,
    HIGH_DISPARITY,
    Groups,
    attribute_groups,
    intersect_groups,
    join_groups,
)

CELEBA = """
5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose
Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee
Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard
Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair
Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young
""".split()


def random_values(n=200, k=4, seed=0):
    return np.random.default_rng(seed).integers(-1, 2, (n, k)).astype(np.int8)


def test_named_lists_are_of_celebas_forty():
    assert len(CELEBA) == 40
    for names in (DEMOGRAPHIC, HIGH_DISPARITY):
        assert set(names) <= set(CELEBA)
        assert len(set(names)) == len(names)
    assert not set(DEMOGRAPHIC) & {
        "Wearing_Hat",
        "Smiling",
        "Blurry",
        "Wearing_Lipstick",
        "Eyeglasses",
    }


def test_membership_equals_a_loop_over_faces():
    values, names = random_values(), list("abcd")
    groups = attribute_groups(values, names, negative=True)
    assert groups.names == ["a", "not a", "b", "not b", "c", "not c", "d", "not d"]
    for face, row in enumerate(values):
        for column, name in enumerate(names):
            assert groups.membership[groups.names.index(name), face] == (row[column] == 1)
            assert groups.membership[groups.names.index(f"not {name}"), face] == (row[column] == 0)
    assert groups.membership.dtype == bool
    assert groups.sizes.tolist() == groups.membership.sum(1).tolist()


@pytest.mark.parametrize("wanted", [["a", "c"], ["d", "b", "a"]])
def test_intersections_equal_a_loop_over_faces(wanted):
    values, names = random_values(), list("abcd")
    groups = intersect_groups(values, wanted, names)
    assert len(groups) == 2 ** len(wanted)
    for signs in itertools.product([1, 0], repeat=len(wanted)):
        title = " & ".join(n if s else f"not {n}" for n, s in zip(wanted, signs))
        expected = [all(row[names.index(n)] == s for n, s in zip(wanted, signs)) for row in values]
        assert groups.membership[groups.names.index(title)].tolist() == expected


def test_known_faces_are_in_exactly_one_intersection():
    values = random_values()
    counts = intersect_groups(values, ["a", "b"], list("abcd"), min_size=0).membership.sum(0)
    assert counts.tolist() == (values[:, :2] >= 0).all(1).astype(int).tolist()


def test_all_unknown():
    values = np.full((5, 2), -1, np.int8)
    groups = attribute_groups(values, ["a", "b"], negative=True)
    assert len(groups) == 0
    assert groups.membership.shape == (0, 5)
    assert groups.dropped == {"a": 0, "not a": 0, "b": 0, "not b": 0}
    kept = attribute_groups(values, ["a", "b"], min_size=0)
    assert kept.sizes.tolist() == [0, 0]
    assert kept.dropped == {}
    assert intersect_groups(values, ["a", "b"], ["a", "b"]).dropped == {
        "a & b": 0,
        "a & not b": 0,
        "not a & b": 0,
        "not a & not b": 0,
    }


def test_no_faces_and_no_attributes():
    assert attribute_groups(np.empty((0, 2), np.int8), ["a", "b"]).dropped == {"a": 0, "b": 0}
    none = attribute_groups(np.empty((3, 0), np.int8), [])
    assert len(none) == 0
    assert none.membership.shape == (0, 3)
    assert none.sizes.shape == (0,)


@pytest.mark.parametrize("min_size,kept", [(0, "abc"), (1, "bc"), (2, "c"), (3, "c"), (4, "")])
def test_min_size(min_size, kept):
    values = np.array([[0, 1, 1], [0, 0, 1], [-1, 0, 1]])
    groups = attribute_groups(values, list("abc"), min_size=min_size)
    assert groups.names == list(kept)
    assert groups.dropped == {n: s for n, s in zip("abc", [0, 1, 3]) if n not in kept}
    table = groups.table()
    assert sorted(table.group) == list("abc")
    assert table.kept.sum() == len(kept)


def test_one_face():
    groups = attribute_groups(np.array([[1, 0, -1]]), list("abc"), negative=True)
    assert groups.names == ["a", "not b"]
    assert groups.sizes.tolist() == [1, 1]


def test_face_set_table_and_array_agree(tmp_path):
    index = pd.DataFrame(
        {
            "id": list("wxyz"),
            "split": "train",
            "fold": None,
            "source": "s",
            "Male": [1, 0, None, 1],
            "Young": [1, 1, 0, None],
        }
    )
    faces = write_face_set(
        tmp_path, np.zeros((4, 8, 8, 3)), np.zeros((4, 8, 8)), index, ["background"], ["s"]
    )
    names, values = ["Male", "Young"], faces.attribute_values(["Male", "Young"])
    for make in (
        lambda v, n: attribute_groups(v, n, negative=True),
        lambda v, n: intersect_groups(v, names, n),
    ):
        results = [make(faces, None), make(faces.index[names], None), make(values, names)]
        assert all(
            r.names == results[0].names
            and (r.membership == results[0].membership).all()
            and r.dropped == results[0].dropped
            for r in results
        )
    assert attribute_groups(faces, ["Young"]).names == ["Young"]
    assert attribute_groups(
        pd.DataFrame({"a": [True, False], "b": [1.0, np.nan]})
    ).sizes.tolist() == [1, 1]
    with pytest.raises(InputError, match="no attributes"):
        attribute_groups(faces, ["Hat"])


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: attribute_groups(np.zeros((3, 2)), ["a"]), "a name for each column"),
        (lambda: attribute_groups(np.zeros(3), ["a"]), "a name for each column"),
        (lambda: attribute_groups(np.zeros((3, 2)), None), "a name for each column"),
        (lambda: attribute_groups(np.array([[0], [2]]), ["a"]), "'a' is 2 in row 1"),
        (lambda: attribute_groups(np.array([[0.0], [np.nan]]), ["a"]), "'a' is nan in row 1"),
        (lambda: attribute_groups(pd.DataFrame({"a": [1, -1]})), "'a' is -1.0 in row 1"),
        (lambda: attribute_groups(pd.DataFrame({"a": [1, -2]})), "'a' is -2.0 in row 1"),
        (lambda: attribute_groups(pd.DataFrame({"a": ["yes"]})), "1, 0 or missing"),
        (lambda: attribute_groups(pd.DataFrame({"a": [1]}), ["b"]), r"no attributes \['b'\]"),
        (lambda: attribute_groups(np.zeros((2, 2)), ["a", "a"]), "twice"),
        (lambda: attribute_groups(np.zeros((2, 1)), ["a"], min_size=-1), "min_size"),
        (lambda: attribute_groups(np.zeros((2, 1)), ["a"], min_size=1.5), "min_size"),
        (lambda: intersect_groups(np.zeros((2, 2)), ["a"], ["a", "b"]), "two or more"),
        (lambda: intersect_groups(np.zeros((2, 2)), ["a", "a"], ["a", "b"]), "two or more"),
        (
            lambda: intersect_groups(np.zeros((2, 2)), ["a", "c"], ["a", "b"]),
            r"no attributes \['c'\]",
        ),
        (lambda: Groups(["a"], np.zeros((2, 3), bool)), "1 names for 2"),
        (
            lambda: join_groups(
                Groups(["a"], np.zeros((1, 3), bool)), Groups(["b"], np.zeros((1, 4), bool))
            ),
            "different numbers",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_large_sets_take_no_loop_over_faces():
    values = np.random.default_rng(0).integers(-1, 2, (200_000, 3)).astype(np.int8)
    groups = intersect_groups(values, list("abc"), list("abc"))
    known = (values >= 0).all(1)
    assert (groups.membership.sum(0) == known).all()
    assert groups.sizes.sum() == known.sum()
