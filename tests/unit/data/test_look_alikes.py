"Pictures that look alike stay on one side of a split"

import numpy as np
import pytest
from PIL import Image

from fairparse.core.runs import InputError
from fairparse.data import look_alikes as module
from fairparse.data.labelled_sources import open_labelled
from fairparse.data.look_alikes import look_alikes


def scene(seed, size=32):
    "A picture of its own: coarse blocks of colour"
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    return blocks.repeat(size // 4, 0).repeat(size // 4, 1)


def noisy(picture, seed):
    noise = np.random.default_rng(seed).normal(0, 12, picture.shape)
    return (picture + noise).clip(0, 255).astype(np.uint8)


def test_doubles_are_found_whatever_their_light_and_chains_hold_together():
    one, other = scene(0).astype(float), scene(1).astype(float)
    mixed = [one + share * (other - one) for share in np.linspace(0, 1, 8)]
    pictures = np.stack([*mixed, 0.5 * one + 40, scene(2)]).clip(0, 255).astype(np.uint8)
    groups = look_alikes(pictures)
    assert len(set(groups[:9])) == 1 and groups[9] != groups[0]
    far_apart = look_alikes(pictures[[0, 7]])
    assert far_apart[0] != far_apart[1]  # the ends of the chain alone


def test_pictures_without_anything_on_them_are_nobodys_doubles():
    flat = np.full((3, 32, 32, 3), 90, np.uint8)
    assert len(set(look_alikes(flat))) == 3


def test_blocks_of_pictures_are_compared_with_all(monkeypatch):
    pictures = np.stack([scene(i % 1200) for i in range(1230)])
    groups = look_alikes(pictures, least=0.999)
    assert (groups[:30] == groups[1200:]).all() and len(set(groups)) == 1200
    monkeypatch.setattr(module, "MOST", 1000)
    with pytest.raises(InputError, match="1230 pictures are too many"):
        look_alikes(pictures)


def test_frames_of_a_film_are_not_on_both_sides_of_a_split(tmp_path):
    for name, first in (("closed", 0), ("open", 20)):
        (tmp_path / name).mkdir()
        for i in range(60):  # six frames of each of ten scenes, in an order that says nothing
            picture = noisy(scene(first + i % 10), seed=first + i)
            Image.fromarray(picture).save(tmp_path / name / f"{i}.png")

    def scenes_on_both_sides(alike):
        faces = open_labelled(tmp_path, "eyes", 32, alike=alike)
        number = [20 * ("open" in i) + int(i.split("/")[-1].split(".")[0]) % 10 for i in faces.ids]
        sides = {}
        for scene_number, side in zip(number, faces.split):
            sides.setdefault(scene_number, set()).add(str(side))
        assert set(faces.split) == {"train", "valid", "test"}
        return sum(len(found) > 1 for found in sides.values())

    assert scenes_on_both_sides(0) > 10 and scenes_on_both_sides(0.9) == 0
