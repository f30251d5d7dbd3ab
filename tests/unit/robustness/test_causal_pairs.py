"Causal pairs: one thing changes, and nothing else"

import numpy as np
import pytest
from PIL import Image

from fairparse.core.runs import InputError
from fairparse.data.labels import CLASSES
from fairparse.data.worlds import World, sample_parameters
from fairparse.robustness.causal_pairs import (
    INTERVENTIONS,
    count_levels,
    draw_pairs,
    find_intervention,
    write_pairs,
)


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_one_thing_changes(name):
    "Of the parameters of a face those that the levels set, of its label map what they draw"
    face = sample_parameters(0, 3, World())
    changed = [vars(change(face)) for change in INTERVENTIONS[name].levels.values()]
    differ = {key for key in vars(face) if len({repr(own[key]) for own in changed}) > 1}
    expected = {"tone": "tone", "picture": "difficulty", "age": "Young", "glasses": "Eyeglasses"}
    assert differ == {expected.get(name, "appearance")}

    images, masks = draw_pairs(name, 6, 48, seed=2)
    assert list(images) == list(masks) == list(INTERVENTIONS[name].levels)
    first, *others = masks.values()
    own = [CLASSES.index(label) for label in INTERVENTIONS[name].labels]
    for level, mask in zip([*masks][1:], others):
        beyond = (mask != first) & ~np.isin(mask, own)
        assert not beyond.any() and (images[level] != [*images.values()][0]).any()
    assert bool(own) == any((mask != first).any() for mask in others)


def test_light_is_halved_and_nothing_else():
    light = INTERVENTIONS["light"].levels
    face = sample_parameters(0, 3, World())
    full, half = (light[level](face).appearance for level in ("full", "half"))
    assert half.exposure == 0.5 and full == half._replace(exposure=1.0)


def test_the_same_seed_gives_the_same_faces_and_another_does_not():
    first, again, other = (draw_pairs("age", 3, 32, seed)[0]["old"] for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_levels_are_counted_by_the_parser_that_is_asked():
    images, masks = draw_pairs("glasses", 4, 32)
    truth = iter(masks.values())
    right = count_levels(lambda pictures: next(truth), images, masks)
    assert all(counts.shape == (4, len(CLASSES), 3) for counts in right.values())
    assert all(not counts[..., 1:].any() for counts in right.values())
    wrong = count_levels(lambda pictures: np.zeros(pictures.shape[:3], np.uint8), images, masks)
    assert not wrong["on"][:, 1:, 0].any() and wrong["on"][:, 0, 0].all()


def test_files_hold_what_was_drawn(tmp_path):
    assert write_pairs(tmp_path / "pairs", ["picture"], 3, 32, seed=4) == 6
    images, masks = draw_pairs("picture", 3, 32, seed=4)
    for kind, levels in (("pictures", images), ("labels", masks)):
        for level, arrays in levels.items():
            folder = tmp_path / "pairs" / kind / "picture" / level
            files = sorted(folder.iterdir())
            assert [file.name for file in files] == ["00000.png", "00001.png", "00002.png"]
            assert all(np.array_equal(np.array(Image.open(f)), a) for f, a in zip(files, arrays))


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(InputError, match="'weather' is none of"):
        find_intervention("weather")
    with pytest.raises(InputError, match="count 0"):
        draw_pairs("tone", 0, 32)
    with pytest.raises(InputError, match="too small"):
        draw_pairs("tone", 1, 16)
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="not empty"):
        write_pairs(tmp_path, ["age"], 1, 32)
    assert (tmp_path / "mine.txt").read_text() == "kept"
