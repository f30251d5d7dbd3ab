"The square of CelebA-HQ: the formula by hand, invariances, pixels there and back"

import numpy as np
import pytest
from PIL import Image

from fairparse.data.align import Square, align_face, cut_out

POINTS = np.array([(69.0, 111), (108, 111), (72.5, 152), (104.5, 152)])


def turned(points, degrees, scale=1.0, shift=(0.0, 0.0)):
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return scale * np.asarray(points) @ matrix.T + shift


def test_the_formula_by_hand():
    square = align_face(POINTS)
    assert (square.x, square.y) == pytest.approx((88.5, 111 + 0.1 * 41))
    assert square.side == pytest.approx(4 * 39) and square.angle == pytest.approx(0)
    long_face = POINTS + [(0, 0), (0, 0), (0, 30), (0, 30)]
    assert align_face(long_face).side == pytest.approx(3.6 * 71)


@pytest.mark.parametrize("degrees", [-170, -90, -30, 0, 12, 45, 179])
@pytest.mark.parametrize("scale", [0.2, 1, 7])
def test_the_square_moves_with_the_face(degrees, scale):
    plain = align_face(POINTS)
    moved = align_face(turned(POINTS, degrees, scale, (30, -12)))
    assert moved.side == pytest.approx(scale * plain.side)
    assert moved.angle == pytest.approx(degrees)
    assert np.allclose(moved.corners, turned(plain.corners, degrees, scale, (30, -12)))


def test_a_head_that_is_seen_from_the_side_is_turned_by_eyes_and_mouth_together():
    "The eyes are level, the mouth hangs to the left: half of the tilt is believed"
    tilted = POINTS + [(0, 0), (0, 0), (-10, 0), (-10, 0)]
    assert 0 < align_face(tilted).angle < np.rad2deg(np.arctan2(10, 41))


def test_points_there_and_back():
    square, points = Square(40, 60, 50, 33), np.random.default_rng(0).random((9, 2))
    assert np.allclose(square.from_picture(square.to_picture(points)), points)
    x0, y0, x1, y1 = square.bounds
    assert (square.corners >= (x0, y0)).all() and (square.corners <= (x1, y1)).all()


def gradient(width, height):
    "A picture in which each pixel tells where it is"
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))


@pytest.mark.parametrize("size", [16, 40, 97])
@pytest.mark.parametrize("angle", [-75, 0, 20])
def test_each_pixel_comes_from_its_place(size, angle):
    square = Square(120, 100, 90, angle)
    seen = cut_out(gradient(240, 200), square, size)
    centres = (np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1) + 0.5) / size
    assert np.abs(seen[..., :2] - (square.to_picture(centres) - 0.5)).max() < 1.6


def test_a_square_along_the_pixels_is_a_crop():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    seen = cut_out(picture, Square(42, 31, 32, 0), 32)
    assert np.abs(seen.astype(int) - np.asarray(picture)[15:47, 26:58]).max() <= 1


def test_what_lies_beyond_the_picture_is_reflected():
    seen = cut_out(gradient(100, 100), Square(0, 50, 60, 0), 60)
    assert np.abs(seen[:, :29][:, ::-1, 0].astype(int) - seen[:, 31:, 0][:, :29]).max() <= 2
    assert cut_out(gradient(3, 3), Square(1, 1, 60, 10), 32).shape == (32, 32, 3)
    with pytest.raises(ValueError, match="outside of the picture of 100x100"):
        cut_out(gradient(100, 100), Square(-200, 50, 60, 0), 32)


def test_fine_patterns_are_averaged_and_not_aliased():
    "Stripes of one pixel are grey in a square that is eight times as large as what is seen of it"
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    seen = cut_out(Image.fromarray(stripes), Square(256, 256, 256, 10), 32)
    assert np.abs(seen.astype(int) - 127).max() < 8
