"What cleaning takes away, and what it leaves alone"

import pytest
import torch

from fairparse.data.clean import (
    denoise,
    despeckle,
    median_of_nine,
    noise_level,
    standardise,
)
from fairparse.data.damage import perturb
from fairparse.data.worlds import render_faces


@pytest.fixture(scope="module")
def faces():
    return torch.tensor(render_faces(6, 64, seed=3)[0]).permute(0, 3, 1, 2).float()


def test_the_median_is_that_of_sorting():
    images = torch.randint(0, 256, (2, 3, 9, 7)).float()
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    windows = padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(-2)
    assert torch.equal(median_of_nine(images), windows.median(-1).values)


@pytest.mark.parametrize("severity", [0.02, 0.05, 0.1])
def test_the_noise_of_a_flat_or_rising_picture_is_estimated(severity):
    rising = torch.linspace(90, 160, 64).expand(2, 3, 64, 64)
    noisy = perturb(rising, "gaussian_noise", severity, [1, 2])
    assert noise_level(rising).max() < 0.01
    assert (noise_level(noisy) / (255 * severity) - 1).abs().max() < 0.1


def test_lost_values_are_put_back_and_others_left(faces):
    lost = perturb(faces, "salt_and_pepper", 0.2, range(6))
    assert (despeckle(lost) - faces).abs().mean() < 0.1 * (lost - faces).abs().mean()
    inside = faces.clamp(1, 254)
    assert torch.equal(despeckle(inside), inside)


def test_bright_areas_are_no_broken_pixels():
    picture = torch.full((1, 3, 16, 16), 100.0)
    picture[..., :8] = 255  # a window behind the face
    assert torch.equal(despeckle(picture), picture)


def test_noise_becomes_less_and_clean_faces_stay(faces):
    noisy = perturb(faces, "gaussian_noise", 0.1, range(6))
    assert (denoise(noisy) - faces).square().mean() < 0.5 * (noisy - faces).square().mean()
    assert (denoise(faces) - faces).abs().mean() < 3  # of 255; they have noise of 5
    flat = torch.full((1, 3, 8, 8), 50.0)
    torch.testing.assert_close(denoise(flat), flat)


def test_a_picture_is_cleaned_by_itself(faces):
    alone = torch.cat([denoise(despeckle(face[None])) for face in faces])
    torch.testing.assert_close(denoise(despeckle(faces)), alone)


def test_standardised_pictures_have_mean_0_and_deviation_1_each():
    pictures = torch.rand(3, 3, 16, 16) * torch.tensor([255.0, 90, 200]).view(3, 1, 1, 1)
    standard = standardise(pictures)
    assert standard.mean((1, 2, 3)).abs().max() < 1e-5
    assert torch.allclose(standard.std((1, 2, 3)), torch.ones(3), atol=0.05)
    assert torch.equal(standardise(pictures[1:2])[0], standard[1])
    assert standardise(torch.full((1, 3, 8, 8), 77.0)).abs().max() == 0
