"Damage: agreement with imagecorruptions, seeds, ranges, severity, errors"

import importlib.util

import numpy as np
import pytest
import torch

from fairparse.bench.scores import CORRUPTIONS, load_imagecorruptions
from fairparse.core.runs import InputError
from fairparse.data import damage as module
from fairparse.data.damage import (
    FAMILIES,
    LEVELS,
    PAPER,
    PERTURBATIONS,
    level_table,
    perturb,
    perturb_labels,
    perturb_masks,
    perturb_uint8,
    perturbation,
)
from fairparse.data.draws import Draws, image_seeds
from fairparse.data.labels import CLASSES
from fairparse.data.worlds import render_faces

NAMES = list(PERTURBATIONS)
RANDOM = {
    *("gaussian_noise", "salt_and_pepper", "shot_noise", "occlusion", "motion_blur"),
    *("colour_cast", "shadow", "hand", "thing", "face_mask", "hair"),
}
COVERS = {"hand": "background", "thing": "background", "face_mask": "cloth", "hair": "hair"}
# our name -> the constants of its five severities (pixels as a share of 256);
# motion blur: radius and deviation in pixels
CONSTANTS = {
    "gaussian_noise": [0.08, 0.12, 0.18, 0.26, 0.38],
    "salt_and_pepper": [0.03, 0.06, 0.09, 0.17, 0.27],
    "shot_noise": [60, 25, 12, 5, 3],
    "blur": [sigma / 256 for sigma in (1, 2, 3, 4, 6)],
    "motion_blur": [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
    "brightness": [0.1, 0.2, 0.3, 0.4, 0.5],
    "contrast": [0.4, 0.3, 0.2, 0.1, 0.05],
    "jpeg": [25, 18, 15, 10, 7],
    "downscaling": [0.6, 0.5, 0.4, 0.3, 0.25],
}


@pytest.fixture(autouse=True)
def one_thread():
    "Small tensors gain nothing from threads, which on a busy machine wait for each other"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def theirs():
    if importlib.util.find_spec("imagecorruptions") is None:
        pytest.skip("imagecorruptions is not installed: pip install imagecorruptions")
    return load_imagecorruptions()


@pytest.fixture(scope="module")
def faces():
    return render_faces(4, 256, seed=5)[0]  # (4, 256, 256, 3) uint8


def images(size=(32, 32), n=3):
    return torch.randint(0, 256, (n, 3, *size), generator=torch.Generator().manual_seed(0)).float()


def as_batch(faces):
    return torch.tensor(np.asarray(faces)).permute(0, 3, 1, 2).contiguous()


def psnr(a, b):
    return 10 * np.log10(255**2 / max(1e-9, float((a.double() - b.double()).square().mean())))


class GivenAngles:
    "Stands for `Draws`: the angles, in degrees, that the other package has drawn"

    def __init__(self, degrees):
        self.degrees = torch.tensor(degrees, dtype=torch.float64)

    def uniform(self):
        return self.degrees / 90 + 0.5


# beside imagecorruptions


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_agrees_with_imagecorruptions_at_its_constants(name, level, faces, theirs):
    other = CORRUPTIONS[name]
    value, draws, extra = CONSTANTS[name][level - 1], Draws([1, 2, 3, 4]), {}
    if name == "motion_blur":
        np.random.seed(level)
        radius, sigma = value
        value = sigma / 256
        draws = GivenAngles(np.random.uniform(-45, 45, 4))
        extra = {"reach": 2 * radius / sigma}
    np.random.seed(level)
    reference = as_batch([theirs.corrupt(face, level, other) for face in faces])
    ours = getattr(module, name)(as_batch(faces).float(), value, draws, **extra).clamp(0, 255)
    for clean, one, two in zip(as_batch(faces), ours, reference):
        assert abs(psnr(one, clean) - psnr(two, clean)) < 1
    # without chance the pictures are the same but for the fraction that theirs cut off;
    # independent noise differs by twice its variance
    if name in ("gaussian_noise", "salt_and_pepper", "shot_noise"):
        assert psnr(ours, reference) == pytest.approx(psnr(ours, as_batch(faces)) - 3, abs=0.3)
    else:
        assert psnr(ours.floor(), reference) > 48


# what every perturbation keeps to


def test_names_and_levels():
    assert LEVELS == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert set(PAPER) < set(NAMES)
    assert len(PAPER) == 6
    assert len(NAMES) == 18
    assert {kind.family for kind in PERTURBATIONS.values()} == set(FAMILIES)
    assert {name: kind.label for name, kind in PERTURBATIONS.items() if kind.label} == COVERS


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("severity", [0.0, 1e-3, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("size", [(32, 32), (24, 40), (64, 9), (1, 1)])
def test_range_shape_and_input_left_alone(name, severity, size):
    clean = images(size)
    damaged = perturb(clean, name, severity, [1, 2, 3])
    assert damaged.shape == (3, 3, *size)
    assert damaged.dtype == torch.float32
    assert 0 <= damaged.min()
    assert damaged.max() <= 255
    assert torch.equal(clean, images(size))
    assert damaged.data_ptr() != clean.data_ptr()
    if severity == 0:
        assert torch.equal(damaged, clean)


@pytest.mark.parametrize("name", NAMES)
def test_result_depends_on_image_and_seed_alone(name):
    clean, seeds = images((40, 33), 7), image_seeds(range(7))
    whole = perturb(clean, name, 0.3, seeds)
    for order in ([3], [6, 5, 4, 3, 2, 1, 0], [2, 5]):
        assert torch.equal(
            perturb(clean[order], name, 0.3, [seeds[i] for i in order]), whole[order]
        )
    assert torch.equal(
        perturb(clean.to(memory_format=torch.channels_last), name, 0.3, torch.tensor(seeds)), whole
    )
    threads = torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        try:
            assert torch.equal(perturb(clean, name, 0.3, seeds), whole)
            assert torch.get_num_threads() == count
        finally:
            torch.set_num_threads(threads)
    same = perturb(clean[:1].repeat(4, 1, 1, 1), name, 0.9, [1, 2, 3, 1])
    assert torch.equal(same[0], same[3])
    assert torch.equal(same[0], same[1]) == (name not in RANDOM)


@pytest.mark.parametrize("name", NAMES)
def test_without_seeds_the_global_state_decides(name):
    def once(seed):
        torch.manual_seed(seed)
        return perturb(images()[:1].repeat(4, 1, 1, 1), name, 0.4)

    assert torch.equal(once(0), once(0))
    assert torch.equal(once(0), once(1)) == (name not in RANDOM)
    assert torch.equal(once(0)[0], once(0)[1]) == (name not in RANDOM)


@pytest.mark.parametrize("name", NAMES)
def test_more_severe_is_further_away(name, faces):
    clean = as_batch(faces)
    away = [psnr(perturb(clean, name, s, [1, 2, 3, 4]), clean) for s in LEVELS]
    assert all(one > two + 0.1 for one, two in zip(away, away[1:])), away


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16, torch.float64])
def test_types(name, dtype):
    damaged = perturb(images().to(dtype), name, 0.2, [1, 2, 3])
    assert damaged.dtype == torch.float32
    assert torch.equal(damaged, perturb(images(), name, 0.2, [1, 2, 3]))


@pytest.mark.parametrize("name", NAMES)
def test_autocast_and_gradients_leave_no_trace(name):
    clean = images().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        damaged = perturb(clean, name, 0.2, [1, 2, 3])
    assert not damaged.requires_grad
    assert torch.equal(damaged, perturb(images(), name, 0.2, [1, 2, 3]))


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_batch_stays_empty(name):
    assert perturb(torch.zeros(0, 3, 8, 8), name, 0.5, []).shape == (0, 3, 8, 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_on_a_gpu(name):
    clean, seeds = images((64, 48), 5), image_seeds(range(5))
    whole = perturb(clean.cuda(), name, 0.3, seeds)
    assert whole.is_cuda
    assert torch.equal(perturb(clean[2:4].cuda(), name, 0.3, seeds[2:4]), whole[2:4])
    if name not in RANDOM:
        torch.testing.assert_close(
            whole.cpu(), perturb(clean, name, 0.3, seeds), rtol=1e-4, atol=1e-2
        )


# what each one does


def test_noise_has_its_deviation():
    noise = perturb(torch.full((4, 3, 64, 64), 128.0), "gaussian_noise", 0.1, [1, 2, 3, 4]) - 128
    assert noise.std() == pytest.approx(25.5, rel=0.03)
    assert noise.mean().abs() < 0.5


@pytest.mark.parametrize("severity", [0.03, 0.3, 1.0])
def test_salt_and_pepper_loses_its_share(severity):
    specked = perturb(torch.full((4, 3, 64, 64), 100.0), "salt_and_pepper", severity, [1, 2, 3, 4])
    for colour in (0, 255):
        assert (specked == colour).float().mean() == pytest.approx(severity / 2, abs=0.01)
    assert ((specked == 100) | (specked == 0) | (specked == 255)).all()
    assert severity < 1 or not (specked == 100).any()
    lost = (specked != 100).float()
    assert severity == 1 or (
        (lost[:, 0] * lost[:, 1]).mean() == pytest.approx(severity**2, abs=0.01)
    )  # channels by themselves


@pytest.mark.parametrize("size", [(65, 65), (65, 97)])
def test_blur_spreads_a_point_as_its_value_says(size):
    point = torch.zeros(1, 3, *size)
    point[..., 32, 32] = 255
    spread = perturb(point, "blur", 1.0)[0, 0]
    deviation = ((spread.sum(1) / spread.sum()) * (torch.arange(65) - 32.0) ** 2).sum().sqrt()
    assert spread.sum() == pytest.approx(255, rel=1e-3)
    assert deviation == pytest.approx(0.04 * 65, rel=0.01)
    assert torch.allclose(
        perturb(torch.full((1, 3, 32, 32), 77.0), "blur", 0.7), torch.tensor(77.0)
    )


def test_motion_smears_along_a_line_within_45_degrees():
    point = torch.zeros(40, 3, 101, 101)
    point[..., 50, 50] = 255
    smeared = perturb(point, "motion_blur", 0.5, range(40))[:, 0]
    places = torch.arange(101) - 50.0
    rows, columns = ((smeared.sum(axis) * places).sum(1) / 255 for axis in (2, 1))
    angles = torch.rad2deg(torch.atan(rows / columns))
    assert torch.allclose(smeared.sum((1, 2)), torch.tensor(255.0), rtol=1e-4)
    assert (columns < 0).all()
    assert angles.abs().max() < 47
    assert angles.min() < -25
    assert angles.max() > 25


def test_occlusion_hides_one_grey_box_a_face():
    hidden = (perturb(torch.zeros(50, 3, 40, 40), "occlusion", 0.5, range(50)) == 128).all(1)
    rows, columns = hidden.any(2).sum(1), hidden.any(1).sum(1)
    assert (hidden.sum((1, 2)) == rows * columns).all()
    assert ((rows - 20).abs() <= 1).all()
    assert ((columns - 20).abs() <= 1).all()
    assert len({tuple(h.nonzero()[0].tolist()) for h in hidden}) > 20
    assert (perturb(torch.zeros(2, 3, 8, 8), "occlusion", 1.0) == 128).all()


def test_light():
    pixels = torch.tensor([[100.0, 50, 0], [200, 100, 20], [0, 0, 0]]).T.reshape(1, 3, 1, 3)
    bright = perturb(pixels, "brightness", 0.4)[0, :, 0].T
    torch.testing.assert_close(
        bright, torch.tensor([[202, 101, 0], [255, 127.5, 25.5], [102, 102, 102]])
    )
    torch.testing.assert_close(perturb(pixels, "darkness", 2.2 / 8), pixels / 2)
    flat = perturb(pixels, "contrast", 1.0)
    torch.testing.assert_close(flat, pixels.mean((2, 3), keepdim=True).expand_as(flat))


def test_downscaling_repeats_the_mean_of_each_cell():
    clean = images((8, 12), 1)
    expected = (
        torch.nn.functional.avg_pool2d(clean, (4, 4))
        .repeat_interleave(4, 2)
        .repeat_interleave(4, 3)
    )
    torch.testing.assert_close(perturb(clean, "downscaling", 0.5), expected)


def test_level_table_states_what_perturb_does(monkeypatch):
    table = level_table().set_index("perturbation")
    assert list(table.index) == NAMES
    assert table.unit.str.len().min() > 5
    assert table.loc["jpeg"].tolist()[2:] == [36, 26, 17, 11, 6]
    assert table.loc["blur", "level_5"] == pytest.approx(0.02)
    for name in NAMES:
        for k, severity in enumerate(LEVELS, 1):
            value = table.loc[name, f"level_{k}"]
            direct = torch.cat(
                [
                    PERTURBATIONS[name].function(image[None].clone(), value, Draws([i]))
                    for i, image in enumerate(images())
                ]
            ).clamp(0, 255)
            assert torch.equal(perturb(images(), name, severity, range(3)), direct), (name, k)


def test_shot_noise_scatters_like_photons():
    light = torch.tensor([32.0, 128, 224]).repeat_interleave(64).expand(3, 64, 192)[None]
    noisy = perturb(light, "shot_noise", 0.2, [3])[0]
    for k, level in enumerate((32, 128, 224)):
        part = noisy[..., 64 * k : 64 * (k + 1)]
        photons = 3 * 0.2**-1.5 * level / 255
        assert part.mean() == pytest.approx(level, rel=0.05) or level == 224  # is clipped
        assert level == 224 or part.std() == pytest.approx(level / photons**0.5, rel=0.06)


def test_defocus_draws_a_disc():
    point = torch.zeros(1, 3, 201, 201)
    point[..., 100, 100] = 255
    disc = perturb(point, "defocus", 0.8)[0, 0]
    y, x = (torch.arange(201) - 100.0)[:, None], torch.arange(201) - 100.0
    away = (y**2 + x**2).sqrt()
    radius = 0.8 * 0.05 * 201
    assert disc.sum() == pytest.approx(255, rel=1e-3)
    assert not disc[away > radius + 0.5].any() and disc[away < radius - 0.5].std() < 1e-5


def test_a_colour_cast_scales_channels_and_keeps_their_product():
    grey = torch.full((4, 3, 8, 8), 60.0)
    cast = perturb(grey, "colour_cast", 0.5, [1, 2, 3, 4])
    gains = cast[:, :, 0, 0] / 60
    assert torch.allclose(gains.prod(1), torch.ones(4), rtol=1e-4)
    assert (gains.log2().abs().max(1).values <= 0.4 + 1e-4).all() and gains.std(1).min() > 0.1


def test_a_shadow_takes_light_from_one_side():
    shadow = perturb(torch.full((6, 3, 64, 64), 200.0), "shadow", 0.5, range(6))
    assert torch.allclose(shadow.amax((1, 2, 3)), torch.tensor(200.0), atol=1)
    assert torch.allclose(shadow.amin((1, 2, 3)), torch.tensor(100.0), atol=1)
    assert shadow.mean((1, 2, 3)) == pytest.approx([150] * 6, abs=3)


# labels that follow


@pytest.mark.parametrize("name", COVERS)
def test_labels_follow_what_covers_the_face(name):
    "Exactly the pixels that change their colour, at every size, and the label is the thing's"
    clean = torch.full((3, 3, 96, 96), 128.25)
    target = torch.full((3, 96, 96), CLASSES.index("nose"))
    damaged = perturb(clean, name, 0.4, [1, 2, 3])
    followed = perturb_labels(target, name, 0.4, [1, 2, 3])
    covered = (damaged != clean).any(1)
    assert covered.any((1, 2)).all()
    assert torch.equal(covered, followed != target)
    assert (followed[covered] == CLASSES.index(COVERS[name])).all()
    large = perturb_labels(
        target.repeat_interleave(4, 1).repeat_interleave(4, 2), name, 0.4, [1, 2, 3]
    )
    share = (large != CLASSES.index("nose")).float().mean((1, 2))
    assert torch.allclose(share, covered.float().mean((1, 2)), atol=0.02)


@pytest.mark.parametrize("name", COVERS)
def test_what_covers_a_face_covers_more_when_it_is_worse(name):
    target = torch.full((20, 64, 64), CLASSES.index("nose"))
    shares = [
        float((perturb_labels(target, name, s, range(20)) != target).float().mean()) for s in LEVELS
    ]
    assert all(a < b for a, b in zip(shares, shares[1:])) and shares[-1] > 0.1


@pytest.mark.parametrize("name", ["none", *sorted(set(NAMES) - set(COVERS))])
def test_labels_of_other_damage_stay(name):
    target = torch.randint(0, 19, (3, 16, 16))
    assert perturb_labels(target, name, 0.5, [1, 2, 3]) is target


def test_masks_of_8_bits_follow_the_pictures_of_8_bits():
    pictures = np.full((2, 48, 48, 3), 128, np.uint8)
    masks = np.full((2, 48, 48), CLASSES.index("skin"), np.uint8)
    damaged = perturb_uint8(pictures, ["a", "b"], "hand", 0.5, seed=1)
    followed = perturb_masks(masks, ["a", "b"], "hand", 0.5, seed=1)
    assert followed.dtype == torch.uint8 and (masks == CLASSES.index("skin")).all()
    assert torch.equal((damaged != 128).any(1), followed == 0)
    assert not torch.equal(followed, perturb_masks(masks, ["a", "b"], "hand", 0.5, seed=2))


def test_unknown_families_are_refused():
    with pytest.raises(InputError, match="family"):
        perturbation("stops", lambda s: s, "weather")


# seeds


def test_seeds_of_ids_are_stable_and_differ():
    assert image_seeds(["00012", "28800"]) == [
        2373431721294824464,
        7403072661087458317,
    ]
    assert image_seeds([5]) == image_seeds(["5"])
    many = image_seeds(range(10_000)) + image_seeds(range(10_000), seed=1)
    assert len(set(many)) == 20_000
    assert min(many) >= 0
    assert max(many) < 2**63
    assert max(many) > 2**62


def test_uniform_numbers_are_uniform():
    drawn = Draws([1, 2]).uniform(3, 50, 67)
    assert drawn.shape == (2, 3, 50, 67)
    assert 0 < drawn.min()
    assert drawn.max() < 1
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.histc(drawn, 10, 0, 1) == pytest.approx(drawn.numel() / 10, rel=0.1)
    lanes = drawn[0].flatten()[:10_048].view(-1, 4).T  # four numbers come from one draw
    assert (torch.corrcoef(lanes) - torch.eye(4)).abs().max() < 0.06


# errors


@pytest.mark.parametrize(
    "name,severity,seeds,message",
    [
        ("rain", 0.1, None, "rain"),
        ("gausian_noise", 0.1, None, "did you mean 'gaussian_noise'"),
        (None, 0.1, None, "None"),
        ("blur", -0.1, None, "severity"),
        ("blur", 1.5, None, "severity"),
        ("blur", float("nan"), None, "severity"),
        ("blur", "high", None, "severity"),
        ("blur", 0.1, [1, 2], "2 seeds for 3 images"),
        ("blur", 0.1, [1, 2, -3], "-3"),
        ("blur", 0.1, [1, 2, 2**63], "2\\*\\*63"),
        ("blur", 0.1, [1, 2, 3.5], "whole numbers"),
        ("blur", 0.1, 7, "whole numbers"),
        ("blur", 0.1, torch.tensor(7), "whole numbers"),
        ("blur", 0.1, torch.rand(3), "whole numbers"),
        ("blur", 0, [1], "1 seeds"),
    ],
)
def test_wrong_names_severities_and_seeds_are_refused(name, severity, seeds, message):
    with pytest.raises(InputError, match=message):
        perturb(images(), name, severity, seeds)


@pytest.mark.parametrize(
    "wrong,message",
    [
        (torch.zeros(3, 8, 8), "B, 3, H, W"),
        (torch.zeros(1, 8, 8, 3), "B, 3, H, W"),
        (torch.zeros(1, 3, 0, 8), "B, 3, H, W"),
        (np.zeros((1, 3, 8, 8)), "tensor"),
        (torch.full((1, 3, 8, 8), 255.5), "255.5"),
        (torch.full((1, 3, 8, 8), -1), "-1"),
        (torch.full((1, 3, 8, 8), float("nan")), "nan"),
        (torch.full((1, 3, 8, 8), float("inf")), "inf"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.complex64), "complex"),
    ],
)
@pytest.mark.parametrize("severity", [0, 0.1])
def test_wrong_images_are_refused(wrong, message, severity):
    with pytest.raises(InputError, match=message):
        perturb(wrong, "blur", severity)


def test_a_perturbation_of_ones_own(monkeypatch):
    monkeypatch.setattr(module, "PERTURBATIONS", dict(PERTURBATIONS))

    @perturbation("added", lambda s: 300 * s, "light")
    def brighter(images, value, draws):
        return images + value

    assert perturb(images(), "brighter", 1.0).min() == 255
    assert module.PERTURBATIONS["brighter"].unit == "added"
    assert "brighter" in level_table().perturbation.tolist()
    assert "brighter" not in PERTURBATIONS

    @perturbation("nothing", lambda s: s, "light")
    def broken(images, value, draws):
        raise RuntimeError("broken")

    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="broken"):
        perturb(images(), "broken", 1.0)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("severity", [0.0, 0.3])
def test_works_in_inference_mode(severity):
    with torch.inference_mode():
        damaged = perturb(images(), "blur", severity, [1, 2, 3])
    assert torch.equal(damaged.clone(), perturb(images(), "blur", severity, [1, 2, 3]))
