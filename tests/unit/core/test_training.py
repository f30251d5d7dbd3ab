"Sampling: the order of an epoch, repetition of what is rare, seeds"

import numpy as np
import pytest

from fairparse.core.training import classes_present, derive_seed, epoch_order, repeat_factors


@pytest.mark.parametrize(
    "count,batch,multiple,shape",
    [
        (10, 4, 1, (2, 4)),
        (10, 4, 2, (2, 4)),
        (10, 3, 2, (2, 3)),
        (3, 8, 1, (1, 3)),
        (3, 8, 4, (4, 3)),
        (1, 1, 1, (1, 1)),
    ],
)
def test_order_of_an_epoch(count, batch, multiple, shape):
    rows = np.arange(100, 100 + count)
    order = epoch_order(rows, None, 0, 0, batch, multiple)
    assert (
        order.shape == shape
        and set(order.ravel()) <= set(rows)
        and len(set(order.ravel())) == min(order.size, count)
    )
    if count > 3:
        assert (epoch_order(rows, None, 0, 1, batch, multiple) != order).any() and (
            epoch_order(rows, None, 1, 0, batch, multiple) != order
        ).any()


def test_rare_faces_come_more_often():
    masks = np.zeros((100, 4, 4), np.uint8)
    masks[:4, 0, 0] = 5
    shown = classes_present(masks, 19)
    assert (
        shown[:, 0].all() and shown[:4, 5].all() and not shown[4:, 5].any() and shown.sum() == 104
    )
    factors = repeat_factors(shown, 0.16)
    assert factors[:4] == pytest.approx([2] * 4) and (factors[4:] == 1).all()
    drawn = np.concatenate(
        [epoch_order(np.arange(100), factors, 0, e, 10).ravel() for e in range(200)]
    )
    assert (drawn < 4).mean() == pytest.approx(8 / 104, rel=0.1)


def test_seeds_differ():
    seeds = {derive_seed(a, b, c) for a in range(3) for b in range(10) for c in range(10)}
    assert len(seeds) == 300 and all(0 <= s < 2**63 for s in seeds)
