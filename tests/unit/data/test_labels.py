"Labels: names, left and right, colours"

import numpy as np
import pytest

from fairparse.data.labels import (
    CLASSES,
    FLIP_PAIRS,
    MERGE_ORDER,
    NUM_CLASSES,
    PALETTE,
    class_title,
    colour_labels,
    flip_labels,
    flip_order,
)


def test_names_are_those_of_celebamask_hq():
    assert NUM_CLASSES == 19 == len(set(CLASSES))
    assert MERGE_ORDER == CLASSES[1:]
    assert (CLASSES[9], CLASSES[15], CLASSES[16]) == ("r_ear", "ear_r", "neck_l")
    assert len({class_title(c) for c in CLASSES}) == 19
    assert class_title("ear_r") == "earring"
    assert class_title("skin") == "skin"


def test_flips_swap_pairs_and_nothing_else():
    order = flip_order()
    assert (order[order] == np.arange(19)).all()
    assert {(i, j) for i, j in enumerate(order) if i < j} == set(FLIP_PAIRS)
    assert len(FLIP_PAIRS) == 3
    assert flip_order(["l_eye", "x"]).tolist() == [0, 1]  # no twin
    assert flip_order(["r_eye", "x", "l_eye"]).tolist() == [2, 1, 0]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 6)])
def test_flip_twice_is_nothing(dtype, shape):
    mask = np.random.default_rng(0).integers(0, 19, shape).astype(dtype)
    assert flip_labels(mask).dtype == dtype
    assert (flip_labels(flip_labels(mask)) == mask).all()
    assert flip_labels(np.full((1, 2), CLASSES.index("hair"), dtype)).tolist() == [[13, 13]]


def test_colours():
    mask = np.arange(19).reshape(1, 19)
    assert colour_labels(mask).shape == (1, 19, 3)
    assert (colour_labels(mask)[0] == PALETTE).all()
    assert len({tuple(c) for c in PALETTE}) == 19
