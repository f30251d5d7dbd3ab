"Drawn faces: purity, exact labels, worlds, planted difficulty, bad input"

import json
from dataclasses import replace

import numpy as np
import pytest

from fairparse.core.records import open_face_set
from fairparse.core.runs import InputError
from fairparse.data.drawing import Layer, band, colour, ellipse, paint_layer, smooth_noise
from fairparse.data.labels import CLASSES, NUM_CLASSES
from fairparse.data.portrait_parameters import ATTRIBUTES, EXPRESSIONS, TONES, mouth_gap
from fairparse.data.portraits import render_face, wears_sunglasses
from fairparse.data.worlds import (
    EMOTIONS,
    PROBABILITIES,
    World,
    attribute_row,
    build_synthetic_set,
    render_faces,
    sample_parameters,
)

COUNT = 300


@pytest.fixture(scope="module")
def crowd():
    "The first faces of seed 0 at 64 px: parameters, images, masks, attributes"
    return [sample_parameters(0, i) for i in range(COUNT)], *render_faces(COUNT, 64)


def has(masks, name):
    return (masks == CLASSES.index(name)).any((1, 2))


# Shapes


def test_ellipse_and_band_have_their_sign_and_size():
    y, x = (np.mgrid[:400, :400] + 0.5) / 200 - 1
    area = lambda d: (d < 0).mean() * 4
    assert area(ellipse(x, y, 0.5, 0.8)) == pytest.approx(np.pi * 0.5 * 0.8, rel=0.01)
    assert area(ellipse(x, y, 0.5, 0.5, 60)) == pytest.approx(1, rel=0.02)
    assert area(band(x, y, -0.1, 0.3, 0.5)) == pytest.approx(0.4, rel=0.01)
    assert np.allclose(
        ellipse(x, y, 0.5, 0.5), np.hypot(x, y) - 0.5, atol=1e-3
    )  # exact for a circle, the centre included


def test_noise_is_the_same_field_at_any_size():
    small, large = (smooth_noise(np.random.default_rng(3), size, 9) for size in (64, 256))
    assert np.abs(large.reshape(64, 4, 64, 4).mean((1, 3)) - small).max() < 0.05
    assert small.std() > 0.2
    assert np.abs(large).max() <= 1


def test_painter_labels_what_it_paints():
    y, x = (np.mgrid[:32, :32].astype(np.float32) + 0.5) / 16 - 1
    image, mask = np.zeros((32, 32, 3), np.float32), np.zeros((32, 32), np.uint8)
    disc = ellipse(x, y, 0.5, 0.5)
    paint_layer(Layer(None, disc, colour(0.5)), image, mask, 1 / 16)
    # paint changes the picture only
    assert not mask.any()
    assert image.max() == pytest.approx(0.5)
    paint_layer(Layer("hat", disc, colour(1.0)), image, mask, 1 / 16)
    labelled, covered = mask == CLASSES.index("hat"), image[..., 0] > 0.75  # at least half
    assert (labelled == covered).mean() > 0.98
    assert len(np.unique(image.round(3))) > 5  # the border is anti-aliased
    before = image.copy()
    outside = Layer("hat", disc + 9, colour(0.0))  # nothing of it in the picture
    paint_layer(outside, image, mask, 1 / 16)
    assert (image == before).all()


# One face is a pure function of its parameters


def test_a_face_does_not_depend_on_company_or_workers(crowd):
    _, images, masks, table = crowd
    image, mask = render_face(sample_parameters(0, 37), 64)
    assert (image == images[37]).all()
    assert (mask == masks[37]).all()
    for workers in (None, 2):
        some_images, some_masks, some_table = render_faces(6, 64, start=35, workers=workers)
        assert (some_images == images[35:41]).all()
        assert (some_masks == masks[35:41]).all()
        assert some_table.equals(table.iloc[35:41].reset_index(drop=True))


def test_seeds_and_indices_give_other_faces():
    faces = [sample_parameters(seed, index) for seed in range(3) for index in range(3)]
    assert len({f.geometry for f in faces}) == len({f.appearance for f in faces}) == 9


def test_worlds_change_only_what_they_must(crowd):
    faces = crowd[0]
    hats = [sample_parameters(0, i, World(attributes={"Wearing_Hat": 0.6})) for i in range(COUNT)]
    assert all(h == replace(f, Wearing_Hat=h.Wearing_Hat) for f, h in zip(faces, hats))
    assert all(h.Wearing_Hat for f, h in zip(faces, hats) if f.Wearing_Hat)
    tones = [
        sample_parameters(0, i, World(tones={"tone_5": 0.5, "tone_1": 0.5})) for i in range(COUNT)
    ]  # order of names does not matter
    assert all(t == replace(f, tone=t.tone) for f, t in zip(faces, tones))
    assert {t.tone for t in tones} == {"tone_1", "tone_5"}
    assert all(t.tone == "tone_1" for f, t in zip(faces, tones) if f.tone in ("tone_1", "tone_2"))
    hard = [sample_parameters(0, i, World(difficulty={"tone_2": 0.7})) for i in range(COUNT)]
    assert all(
        h == replace(f, difficulty=0.7 if f.tone == "tone_2" else 0.0) for f, h in zip(faces, hard)
    )


@pytest.mark.parametrize("size", [32, 96, 256])
def test_same_face_at_other_sizes(size):
    for index in range(8):
        face = sample_parameters(1, index)
        (small_image, small), (image, mask) = render_face(face, 64), render_face(face, size)
        pick = (np.arange(192) + 0.5) / 192
        at = lambda a: a[np.ix_((pick * len(a)).astype(int), (pick * len(a)).astype(int))]
        assert (at(small) == at(mask)).mean() > (0.9 if size == 32 else 0.95)
        assert np.abs(at(small_image).astype(float) - at(image)).mean() < 16
    assert image.shape == (size, size, 3)
    assert mask.shape == (size, size)
    assert image.dtype == mask.dtype == np.uint8


# Classes and attributes


def test_all_classes_occur_about_as_often_as_in_photographs(crowd):
    masks = crowd[2]
    share = np.array([has(masks, name).mean() for name in CLASSES])
    assert masks.max() == NUM_CLASSES - 1
    assert (share > 0).all()
    often = [
        "background",
        "skin",
        "nose",
        "l_eye",
        "r_eye",
        "l_brow",
        "r_brow",
        "u_lip",
        "l_lip",
        "hair",
        "neck",
        "cloth",
    ]
    assert all(share[CLASSES.index(name)] > 0.85 for name in often)
    rare = {
        "eye_g": (0.08, 0.25),
        "hat": (0.04, 0.2),
        "neck_l": (0.05, 0.2),
        "ear_r": (0.15, 0.35),
        "mouth": (0.2, 0.7),
    }
    assert all(low < share[CLASSES.index(name)] < high for name, (low, high) in rare.items())


def test_picture_uses_its_range(crowd):
    images = crowd[1]
    assert images.dtype == np.uint8
    assert images.min() < 20
    assert images.max() > 235
    assert (images.std((1, 2, 3)) > 10).all()  # no empty picture


def test_attributes_agree_with_masks(crowd):
    faces, _, masks, table = crowd
    for attribute, name in (
        ("Eyeglasses", "eye_g"),
        ("Wearing_Hat", "hat"),
        ("Wearing_Earrings", "ear_r"),
        ("Wearing_Necklace", "neck_l"),
    ):
        assert (has(masks, name) == (table[attribute] == 1)).all(), attribute
    covered, bald = table.Face_Mask == 1, table.Bald == 1
    assert (has(masks, "mouth") == ((table.Mouth_Slightly_Open == 1) & ~covered)).all()
    assert (has(masks, "u_lip") == ~covered).all()
    assert (has(masks, "hair") == ~bald).all()
    dark = np.array([wears_sunglasses(f) for f in faces])
    assert not (has(masks, "l_eye") & dark).any()
    assert not (has(masks, "r_eye") & dark).any()
    assert (has(masks, "l_eye") | dark).mean() > 0.98
    assert (table.Smiling == table.Emotion_happy).all()
    assert (table[[t.capitalize() for t in TONES]].sum(axis=1) == 1).all()
    assert (table[[f"Emotion_{e}" for e in EXPRESSIONS]].sum(axis=1) == 1).all()
    assert (table.dtypes == "Int8").all()
    assert table.isin([0, 1]).all().all()


def test_left_is_the_persons_left(crowd):
    masks = crowd[2]
    for part in ("eye", "brow", "ear"):
        left, right = (
            np.mean(
                [
                    np.nonzero(m == CLASSES.index(f"{side}_{part}"))[1].mean()
                    for m in masks
                    if (m == CLASSES.index(f"{side}_{part}")).any()
                ]
            )
            for side in "lr"
        )
        assert left > 32 > right  # on the right of the picture


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_switching_an_attribute_changes_the_picture(name):
    face = replace(
        sample_parameters(0, 5), Face_Mask=False, Eyeglasses=False, Bald=False, Wearing_Hat=False
    )
    off, on = (
        render_face(replace(face, **{name: value}), 64)[0].astype(float) for value in (False, True)
    )
    assert (np.abs(off - on).max(-1) > 8).mean() > 0.002
    assert attribute_row(replace(face, **{name: True}))[name] == 1


def test_expressions_differ():
    face = replace(sample_parameters(0, 3), Face_Mask=False)
    pictures = [render_face(replace(face, emotion=e), 64)[0] for e in EXPRESSIONS]
    assert all(
        (np.abs(a.astype(int) - b).max(-1) > 8).sum() > 5
        for i, a in enumerate(pictures)
        for b in pictures[:i]
    )
    surprised, sad = (replace(face, emotion=emotion) for emotion in ("surprise", "sad"))
    assert mouth_gap(surprised) > mouth_gap(sad) == 0


def test_shares_follow_the_world():
    world = World(
        tones={"tone_1": 0.6, "tone_2": 0.1, "tone_3": 0.3},
        attributes={"Male": 0.9, "Bald": 0, "Young": 1},
        emotions={"happy": 0.25, "sad": 0.75},
    )
    rows = [attribute_row(sample_parameters(5, i, world)) for i in range(1500)]
    share = {name: np.mean([row[name] for row in rows]) for name in rows[0]}
    assert share["Tone_1"] == pytest.approx(0.6, abs=0.05)
    assert share["Tone_2"] == pytest.approx(0.1, abs=0.03)
    assert share["Tone_4"] == share["Tone_5"] == 0
    assert share["Male"] == pytest.approx(0.9, abs=0.03)
    assert share["Bald"] == 0
    assert share["Young"] == 1
    assert share["Emotion_sad"] == pytest.approx(0.75, abs=0.04)
    assert share["Eyeglasses"] == pytest.approx(PROBABILITIES["Eyeglasses"], abs=0.03)
    tone, male = (np.array([row[name] for row in rows]) for name in ("Tone_1", "Male"))
    assert abs(np.corrcoef(tone, male)[0, 1]) < 0.08  # attributes do not depend on tones


def test_defaults_are_complete():
    assert set(PROBABILITIES) == set(ATTRIBUTES)
    assert set(EMOTIONS) == set(EXPRESSIONS)
    assert sum(EMOTIONS.values()) == pytest.approx(1)
    assert set(World().tones.values()) == {0.2}
    assert World().difficulty == {}


# Planted unfairness


def border_step(face, size=64):
    "Mean step of brightness across the borders between classes, without the sensor's noise"
    image, mask = render_face(
        replace(face, appearance=face.appearance._replace(noise=-0.03 * face.difficulty)), size
    )
    light, border = image.astype(float).mean(-1), mask[:, 1:] != mask[:, :-1]
    return np.abs(light[:, 2:] - light[:, :-2])[border[:, :-1]].mean()


def test_tones_are_equally_hard_by_default():
    faces = [sample_parameters(7, i) for i in range(60)]
    steps = {tone: np.mean([border_step(replace(f, tone=tone)) for f in faces]) for tone in TONES}
    assert max(steps.values()) / min(steps.values()) < 1.05, steps


def test_planted_difficulty_is_monotone_and_leaves_masks_alone():
    faces = [sample_parameters(8, i) for i in range(20)]
    step = []
    light = []
    noise = []
    for level in (0.0, 0.25, 0.5, 0.75, 1.0):
        hard = [replace(f, difficulty=level) for f in faces]
        images, masks = zip(*(render_face(f, 64) for f in hard))
        quiet = [
            render_face(replace(f, appearance=f.appearance._replace(noise=-0.03 * level)), 64)[
                0
            ].astype(float)
            for f in hard
        ]
        assert all((mask == render_face(f, 64)[1]).all() for mask, f in zip(masks, faces))
        step.append(np.mean([border_step(f) for f in hard]))
        light.append(np.mean(quiet))
        noise.append(np.std(np.array(images) - quiet))
    assert (np.diff(step) < 0).all()
    assert (np.diff(light) < 0).all()
    assert (np.diff(noise) > 0).all()
    assert step[-1] < 0.7 * step[0]
    assert noise[-1] > 1.5 * noise[0]


def test_planting_touches_only_its_tone():
    planted = World(difficulty={"tone_4": 1.0})
    for i in range(30):
        face, hard = sample_parameters(0, i), sample_parameters(0, i, planted)
        same = (render_face(face, 32)[0] == render_face(hard, 32)[0]).all()
        assert same == (face.tone != "tone_4")


# Bad input


@pytest.mark.parametrize(
    "world, words",
    [
        ({"tones": {"tone_9": 1.0}}, "tone_9"),
        ({"tones": {"tone_1": -0.5, "tone_2": 1.5}}, "-0.5"),
        ({"tones": {"tone_1": 0.5}}, "0.5"),
        ({"tones": {}}, "add up to 0"),
        ({"attributes": {"Moustache": 0.5}}, "Moustache"),
        ({"attributes": {"Male": 1.2}}, "1.2"),
        ({"attributes": {"Male": float("nan")}}, "nan"),
        ({"attributes": {"Male": "often"}}, "often"),
        ({"emotions": {"bored": 1.0}}, "bored"),
        ({"emotions": {"happy": 0.2}}, "0.2"),
        ({"difficulty": {"tone_0": 1.0}}, "tone_0"),
        ({"difficulty": {"tone_1": 2}}, "2"),
    ],
)
def test_impossible_worlds(world, words):
    with pytest.raises(InputError, match=words):
        World(**world)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: render_faces(2, 31), "31"),
        (lambda: render_face(sample_parameters(0, 0), 16), "16"),
        (lambda: render_faces(0, 64), "0"),
        (lambda: sample_parameters(-1, 0), "-1"),
        (lambda: sample_parameters(0, -2), "-2"),
        (lambda: render_faces(2, 64, start=-1), "-1"),
    ],
)
def test_impossible_requests(call, words):
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(size=20), "20"),
        (dict(count=0), "0"),
        (dict(valid_share=0.6, test_share=0.5), "0.6"),
        (dict(valid_share=-0.1), "-0.1"),
        (dict(folds=1), "folds 1"),
        (dict(folds=99), "99"),
    ],
)
def test_impossible_sets_write_nothing(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        build_synthetic_set(tmp_path / "set", **{"count": 10, "size": 32, **options})
    assert not (tmp_path / "set").exists()


# The face set


def test_face_set_round_trip(tmp_path):
    world = World(difficulty={"tone_5": 0.5})
    faces = build_synthetic_set(
        tmp_path / "set", 40, 32, seed=2, world=world, valid_share=0.1, test_share=0.2, folds=4
    )
    again = open_face_set(tmp_path / "set")
    images, masks, table = render_faces(40, 32, seed=2, world=world)
    assert (again.images == images).all()
    assert (again.masks == masks).all()
    assert again.classes == CLASSES
    assert again.attributes == list(table)
    assert (again.attribute_values() == table.to_numpy(int)).all()
    assert [len(again.rows(s)) for s in ("train", "valid", "test")] == [28, 4, 8]
    assert again.index.id[17] == "synth-2-000017"
    assert again.index.source.unique().tolist() == ["synthetic"]
    held_out = np.concatenate([again.rows("test", fold=k) for k in range(4)])
    assert sorted(held_out) == sorted(
        {*again.rows("train"), *again.rows("test")}
    )  # every face but the validation ones, once
    assert json.loads(again.meta["sources"][0].split("world ")[1])["difficulty"] == {"tone_5": 0.5}
    assert faces.index.equals(again.index)


def test_face_set_without_folds(tmp_path):
    faces = build_synthetic_set(tmp_path, 10, 32)
    assert faces.index.fold.isna().all()
    with pytest.raises(InputError, match="no fold"):
        faces.rows("test", fold=0)


# How far tones lie apart


def test_spread_moves_tones_away_from_the_middle_one():
    "At 0 all tones are one; the middle one never moves; at 1 faces are as they always were"
    from fairparse.data.portrait_parameters import LUMINANCE, Canvas

    face = sample_parameters(3, 5)
    assert face.spread == World().spread == 1.0
    assert sample_parameters(3, 5, World(spread=1.75)) == replace(face, spread=1.75)
    for spread in (0.0, 0.5, 1.0, 1.75, 2.0):
        skin = {
            tone: Canvas(replace(face, tone=tone, spread=spread), 32).skin
            - face.appearance.skin_jitter
            for tone in TONES
        }
        assert skin["tone_3"] == pytest.approx(LUMINANCE["tone_3"])
        for tone in TONES:
            assert skin[tone] - skin["tone_3"] == pytest.approx(
                spread * (LUMINANCE[tone] - LUMINANCE["tone_3"])
            )


def test_spread_changes_pictures_of_other_tones_and_no_masks():
    faces = [sample_parameters(1, i) for i in range(6)]
    brightness = {}
    for spread in (0.0, 1.0, 2.0):
        for tone in TONES:
            drawn = [render_face(replace(face, tone=tone, spread=spread), 48) for face in faces]
            brightness[tone, spread] = np.mean(
                [image[mask == CLASSES.index("skin")].mean() for image, mask in drawn]
            )
            assert all(
                np.array_equal(mask, render_face(face, 48)[1])
                for face, (_, mask) in zip(faces, drawn)
            )
    middle = brightness["tone_3", 1.0]
    assert all(brightness[tone, 0.0] == middle for tone in TONES)
    assert all(brightness["tone_3", s] == middle for s in (0.0, 2.0))
    for s in (1.0, 2.0):
        assert all(brightness[a, s] > brightness[b, s] + 5 * s for a, b in zip(TONES, TONES[1:]))
    gap = {s: brightness["tone_1", s] - brightness["tone_5", s] for s in (1.0, 2.0)}
    assert gap[2.0] == pytest.approx(2 * gap[1.0], rel=0.15)


@pytest.mark.parametrize("wrong", [-0.01, 2.01, True, "1", None, float("nan")])
def test_impossible_spread(wrong):
    with pytest.raises(InputError, match="give a number from 0 to 2"):
        World(spread=wrong)
