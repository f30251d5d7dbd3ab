"Augmentation: image and mask stay together, left and right are swapped, ranges and seeds hold"

import pytest
import torch
from helpers import PALETTE

from fairparse.core.runs import InputError
from fairparse.data.augment import AugmentConfig, augment, mirror, move, relight
from fairparse.data.labels import CLASSES, flip_order

ORDER = torch.as_tensor(flip_order(CLASSES))
COLOURS = torch.from_numpy(PALETTE).float()


def painted(count=4, size=64, blocks=4, seed=0):
    "Faces whose colour tells the class of each pixel"
    labels = torch.randint(
        0, 19, (count, blocks, blocks), generator=torch.Generator().manual_seed(seed)
    )
    target = labels.repeat_interleave(size // blocks, 1).repeat_interleave(size // blocks, 2)
    return COLOURS[target].permute(0, 3, 1, 2).contiguous(), target


def agreement(images, target):
    "Share of pixels whose colour is nearest to that of their label"
    return (
        (
            torch.cdist(images.permute(0, 2, 3, 1).flatten(0, 2), COLOURS).argmin(1)
            == target.flatten()
        )
        .float()
        .mean()
        .item()
    )


def test_mirror_swaps_the_chosen_faces_only():
    images, target = painted()
    chosen = torch.tensor([True, False, True, False])
    mirrored, labels = mirror(images, target, chosen, ORDER)
    assert torch.equal(mirrored[1::2], images[1::2])
    assert torch.equal(labels[1::2], target[1::2])
    assert torch.equal(mirrored[::2], images[::2].flip(-1))
    assert torch.equal(labels[::2], ORDER[target[::2].flip(-1)])
    twice = mirror(mirrored, labels, chosen, ORDER)
    assert torch.equal(twice[0], images)
    assert torch.equal(twice[1], target)
    left, right = CLASSES.index("l_eye"), CLASSES.index("r_eye")
    _, all_right = mirror(images, torch.full_like(target, left), chosen, ORDER)
    assert all_right[0].unique().item() == right


@pytest.mark.parametrize(
    "ranges",
    [
        {"rotate": 30},
        {"scale": 0.5},
        {"aspect": 0.3},
        {"shift": 0.25},
        {"rotate": 20, "scale": 0.3, "aspect": 0.1, "shift": 0.1},
    ],
    ids=str,
)
def test_image_and_mask_move_together(ranges):
    images, target = painted(8)
    torch.manual_seed(0)
    moved, labels = move(images, target, AugmentConfig(flip=0, **ranges))
    assert labels.dtype == torch.int64
    assert moved.shape == images.shape
    assert (labels != target).float().mean() > 0.05
    assert set(labels.unique().tolist()) <= set(target.unique().tolist())
    # the rest are mixed colours along borders
    assert agreement(images, target) == 1
    assert agreement(moved, labels) > 0.9 > agreement(moved, target)


def test_shift_and_scale_are_what_their_comments_say():
    ramp = torch.linspace(-1, 1, 64).expand(200, 3, 64, 64) * 100 + 128
    torch.manual_seed(0)
    shifted, _ = move(ramp, torch.zeros(200, 64, 64, dtype=torch.int64), AugmentConfig(shift=0.25))
    shift = (shifted - ramp)[:, 0, 32, 32] / 200  # the ramp rises by 200 over the side
    assert 0.2 < shift.abs().max() <= 0.26
    zoomed, _ = move(ramp, torch.zeros(200, 64, 64, dtype=torch.int64), AugmentConfig(scale=0.25))
    slope = (zoomed[:, 0, 32, 40] - zoomed[:, 0, 32, 24]) / (
        ramp[:, 0, 32, 40] - ramp[:, 0, 32, 24]
    )
    assert 1 / 1.26 <= slope.min() < 0.85
    assert 1.18 < slope.max() <= 1.26


def test_light_stays_in_range_and_is_drawn_for_each_face():
    images = painted(1)[0].expand(16, -1, -1, -1)
    for setting in ("brightness", "contrast", "saturation", "tint"):
        torch.manual_seed(0)
        lit = relight(images, AugmentConfig(**{setting: 0.9}))
        assert 0 <= lit.min() and lit.max() <= 255 and len(lit.flatten(1).unique(dim=0)) == 16, (
            setting
        )
    grey = torch.full((16, 3, 4, 4), 100.0)
    assert 70 <= relight(grey, AugmentConfig(brightness=0.3)).min() < 80
    assert torch.allclose(
        relight(grey, AugmentConfig(saturation=0.5, contrast=0.5)), grey, atol=1e-3
    )


def test_augment_depends_on_the_seed_alone():
    images, target = painted()
    wild = AugmentConfig(0.5, 15, 0.25, 0.1, 0.1, 0.3, 0.3, 0.3, 0.1)

    def once(seed):
        torch.manual_seed(seed)
        return augment(images, target, ORDER, wild)

    first, again, other = once(1), once(1), once(2)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_nothing_asked_for_changes_nothing():
    images, target = painted()
    same, labels = augment(images, target, ORDER, AugmentConfig(flip=0))
    assert torch.equal(same, images)
    assert torch.equal(labels, target)
    still, kept = move(images, target, AugmentConfig())
    assert torch.allclose(still, images, atol=1e-2)
    assert torch.equal(kept, target)


def test_half_of_the_faces_are_mirrored():
    images, target = painted(1)
    torch.manual_seed(0)
    _, labels = augment(
        images.expand(400, -1, -1, -1), target.expand(400, -1, -1), ORDER, AugmentConfig(flip=0.5)
    )
    assert 150 < (labels == target).all(2).all(1).sum() < 250


@pytest.mark.parametrize(
    "name,value",
    [("rotate", -1), ("scale", float("nan")), ("flip", 1.5), ("flip", "often"), ("tint", None)],
)
def test_wrong_ranges_are_named(name, value):
    with pytest.raises(InputError, match=name):
        AugmentConfig(**{name: value})
