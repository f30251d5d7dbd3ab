"Hardening: what is painted, mixed and damaged, what stays, and what was seen"

import pytest
import torch

from fairparse.core.runs import InputError
from fairparse.data.damage import FAMILIES
from fairparse.data.harden import (
    HardenConfig,
    damage_some,
    harden,
    mix_spectra,
    paint_by_numbers,
)


def batch(n=6, size=32):
    torch.manual_seed(0)
    return 255 * torch.rand(n, 3, size, size), torch.randint(0, 19, (n, size, size))


EVEN = torch.arange(6) % 2 == 0


def test_nothing_is_asked_and_nothing_happens():
    images, target = batch()
    state = torch.get_rng_state()
    same, labels = harden(images, target, HardenConfig())
    assert same is images and labels is target and torch.equal(state, torch.get_rng_state())


def test_paint_is_one_colour_a_class_and_leaves_others_alone():
    images, target = batch()
    painted = paint_by_numbers(images, target, EVEN)
    assert torch.equal(painted[~EVEN], images[~EVEN]) and 0 <= painted.min() <= painted.max() <= 255
    flat = torch.full_like(images, 100.0)
    for picture, labels in zip(paint_by_numbers(flat, target, EVEN)[EVEN], target[EVEN]):
        for label in labels.unique():
            assert picture[:, labels == label].std(1).max() < 1e-4


def test_mixed_spectra_keep_phases_and_take_amplitudes():
    images, _ = batch()
    torch.manual_seed(1)
    mixed = mix_spectra(images, EVEN)
    assert torch.equal(mixed[~EVEN], images[~EVEN])
    assert (mixed[EVEN] - images[EVEN]).abs().mean() > 1
    same = images[:1].expand(6, -1, -1, -1)
    torch.testing.assert_close(mix_spectra(same, torch.ones(6) > 0), same, atol=0.01, rtol=0)


def test_damage_is_each_picture_its_own_and_labels_follow():
    images, target = batch(40)
    chosen = torch.arange(40) < 30
    kinds = HardenConfig(families=["cover"], damage=1.0).kinds
    assert kinds == ["occlusion", "hand", "thing", "face_mask", "hair"]
    damaged, labels = damage_some(images, target, chosen, kinds, 0.5)
    changed = (damaged != images).any(1)
    assert not changed[~chosen].any() and changed[chosen].any((1, 2)).float().mean() > 0.5
    assert not (labels != target)[~changed].any() and (labels != target).any()
    assert torch.equal(images, batch(40)[0]) and torch.equal(target, batch(40)[1])


def test_the_share_is_about_what_is_asked_and_the_state_decides():
    images, target = batch(6)
    many, labels = images.repeat(50, 1, 1, 1), target.repeat(50, 1, 1)
    config = HardenConfig(families=["noise"], damage=0.3, most=0.5)

    def once(seed):
        torch.manual_seed(seed)
        return harden(many, labels, config)[0]

    assert torch.equal(once(0), once(0)) and not torch.equal(once(0), once(1))
    share = (once(0) != many).flatten(1).any(1).float().mean()
    assert share == pytest.approx(0.3, abs=0.08)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"families": ["weather"], "damage": 0.5}, "weather"),
        ({"damage": 0.5}, "both or neither"),
        ({"families": list(FAMILIES)}, "both or neither"),
        ({"paint": 1.5}, "paint"),
        ({"most": -0.1}, "most"),
        ({"spectra": "much"}, "spectra"),
    ],
)
def test_impossible_settings_are_refused(wrong, said):
    with pytest.raises(InputError, match=said):
        HardenConfig(**wrong)
