"Part masks read without Pillow: the same as with it, and its turn for all that is not plain"

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fairparse.core.runs import InputError
from fairparse.data import pixels as module
from fairparse.data.pixels import (
    merge_parts,
    nearest_positions,
    read_part,
    read_photograph,
    read_plain_mask,
    read_upright,
)


def chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def paeth(a, b, c):
    guess = a + b - c
    return min((a, b, c), key=lambda value: abs(guess - value))


def filtered(pixels, kind):
    "Rows (H, W * C) after one filter each, of (H,) kinds 0..4, as the PNG specification writes it"
    channels, height = 3 if pixels.ndim == 3 else 1, len(pixels)
    flat = pixels.reshape(height, -1).astype(int)
    rows = []
    for y in range(height):
        left = np.concatenate([np.zeros(channels, int), flat[y, :-channels]])
        above = flat[y - 1] if y else np.zeros_like(flat[0])
        corner = np.concatenate([np.zeros(channels, int), above[:-channels]])
        guess = (
            0 * left,
            left,
            above,
            (left + above) // 2,
            np.array([paeth(*abc) for abc in zip(left, above, corner)]),
        )[kind[y]]
        rows.append(bytes([kind[y]]) + ((flat[y] - guess) % 256).astype(np.uint8).tobytes())
    return b"".join(rows)


def png(pixels, kind, head=None, more=b"", pieces=1):
    "A PNG file with given filters"
    packed = zlib.compress(filtered(pixels, kind))
    cut = [len(packed) * i // pieces for i in range(pieces + 1)]
    head = head or struct.pack(
        ">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0
    )
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + more
        + b"".join(chunk(b"IDAT", packed[a:b]) for a, b in zip(cut, cut[1:]))
        + chunk(b"IEND", b"")
    )


def blobs(rng, height, width, value=255):
    "A picture of two values"
    mask = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(0, 4)):
        top, left = rng.integers(0, height), rng.integers(0, width)
        mask[top : top + rng.integers(1, height), left : left + rng.integers(1, width)] = value
    return np.where(
        rng.random((height, width)) < 0.02, value - mask, mask
    )  # and some single pixels


def same(part, other):
    "Whether two results of `read_part` are equal"
    return part[0] == other[0] and part[2] == other[2] and np.array_equal(part[1], other[1])


@pytest.fixture
def pillow(monkeypatch):
    "Reads a part with Pillow alone"

    def read(path, size):
        with monkeypatch.context() as patch:
            patch.setattr(module, "read_plain_mask", lambda path, size: None)
            return read_part(path, size)

    return read


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", range(25))
def test_every_filter_as_pillow_reads_it(tmp_path, pillow, seed, channels):
    rng, path = np.random.default_rng([seed, channels]), tmp_path / "part.png"
    height, width = rng.integers(2, 60, 2)
    mask = blobs(rng, height, width, rng.choice([255, 1, 128]))
    pixels = mask if channels == 1 else np.repeat(mask[..., None], 3, 2)
    path.write_bytes(png(pixels, rng.choice([0, 1, 2, 4], height), pieces=rng.integers(1, 4)))
    for size in (8, 17, 40, 64, int(height), int(width)):
        part, expected = read_plain_mask(path, size), pillow(path, size)
        assert part is not None
        assert part[2] == (width, height)
        assert same(part, expected)


def test_files_that_pillow_writes(tmp_path, pillow):
    rng = np.random.default_rng(0)
    for mode in ("L", "RGB"):
        for i in range(10):
            path = tmp_path / f"{mode}{i}.png"
            Image.fromarray(blobs(rng, 128, 96)).convert(mode).save(path, optimize=bool(i % 2))
            assert same(read_plain_mask(path, 48), pillow(path, 48))


def test_nearest_positions_are_those_of_pillow_in_both_directions():
    for length in (1, 7, 100, 512, 1023):
        for size in (8, 31, 64, 100, 256, 600):
            ramp = np.arange(length, dtype=np.int32)
            column = np.asarray(
                Image.fromarray(np.ascontiguousarray(np.repeat(ramp[:, None], 3, 1))).resize(
                    (3, size), Image.Resampling.NEAREST
                )
            )[:, 0]
            assert np.array_equal(nearest_positions(length, size), column)


def test_more_than_two_values_are_for_pillow(tmp_path, pillow):
    rng = np.random.default_rng(1)
    for pixels in (
        rng.integers(0, 256, (20, 30), dtype=np.uint8),
        rng.integers(0, 2, (20, 30, 3), dtype=np.uint8) * 255,
        np.dstack([np.where(blobs(rng, 20, 30), 200, 100)] * 3).astype(np.uint8),
    ):
        for kind in (1, 2, 4):
            path = tmp_path / "part.png"
            path.write_bytes(png(pixels, [kind] * 20))
            assert read_plain_mask(path, 16) is None
            assert same(read_part(path, 16), pillow(path, 16))


def test_means_are_for_pillow(tmp_path):
    path, mask = tmp_path / "part.png", np.zeros((12, 12), np.uint8)
    mask[3:8, 4:9] = 255
    path.write_bytes(png(mask, [0, 1, 2, 3] * 3))
    assert read_plain_mask(path, 12) is None
    assert np.array_equal(read_part(path, 12)[1], mask[3:8, 4:9] > 0)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "I;16"])
def test_other_modes_are_for_pillow(tmp_path, mode):
    mask = np.zeros((20, 20), np.uint8)
    mask[5:9, 6:12] = 255
    image = (
        Image.fromarray(mask.astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(mask).convert(mode)
    )
    image.save(tmp_path / "part.png")
    assert read_plain_mask(tmp_path / "part.png", 20) is None


def test_what_lies_beside_the_pixels_is_for_pillow(tmp_path):
    mask, path = np.full((8, 8), 255, np.uint8), tmp_path / "part.png"
    heads = [
        struct.pack(">IIBBBBB", 8, 8, *rest)
        for rest in ((4, 0, 0, 0, 0), (8, 0, 1, 0, 0), (8, 0, 0, 0, 1), (8, 4, 0, 0, 0))
    ]
    for data in (
        png(mask, [0] * 8, more=chunk(b"tRNS", b"\0\0")),
        png(mask, [0] * 8) + b"more",
        b"",
        b"\x89PNG\r\n\x1a\n",
        *(png(mask, [0] * 8, head) for head in heads),
    ):
        path.write_bytes(data)
        assert read_plain_mask(path, 8) is None
    assert read_plain_mask(tmp_path / "absent.png", 8) is None


def test_damage_is_never_read_as_a_mask(tmp_path):
    mask, path = blobs(np.random.default_rng(3), 40, 40), tmp_path / "part.png"
    data = png(np.dstack([mask] * 3), [2] * 40)
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        assert read_plain_mask(path, 40) is None
        path.write_bytes(data[:place])
        assert read_plain_mask(path, 40) is None
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="part.png is not a readable image"):
        read_part(path, 40)


def test_a_head_that_promises_more_than_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LONGEST", 500)
    for width, height in (
        (501, 1),
        (1, 501),
        (400, 400),  # more than so short a file can unpack to
        (40, 41),
        (40, 39),
        (0, 40),
        (40, 0),
    ):
        path = tmp_path / "part.png"
        path.write_bytes(
            png(
                np.zeros((40, 40), np.uint8),
                [0] * 40,
                struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0),
            )
        )
        assert read_plain_mask(path, 16) is None
    buffer = io.BytesIO()
    Image.fromarray(
        np.random.default_rng(0).integers(0, 2, (1200, 1200), dtype=np.uint8) * 255
    ).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())
    # no mask
    assert len(buffer.getvalue()) > module.LARGEST
    assert read_plain_mask(path, 16) is None


@pytest.mark.parametrize("plainly", [False, True])
def test_merged_masks_do_not_depend_on_the_reader(tmp_path, monkeypatch, plainly):
    rng, masks, parts = np.random.default_rng(5), [], []
    for label in range(1, 6):
        masks.append(blobs(rng, 48, 48))
        parts.append((label, tmp_path / f"{label}.png"))
        Image.fromarray(masks[-1]).convert("RGB").save(parts[-1][1])
    expected = np.zeros((48, 48), np.uint8)
    for (label, _), mask in zip(parts, masks):
        expected[mask > 0] = label
    if not plainly:
        monkeypatch.setattr(module, "read_plain_mask", lambda path, size: None)
    merged, full = merge_parts(tuple(parts), 24)
    assert full == (48, 48)
    assert np.array_equal(
        merged, np.asarray(Image.fromarray(expected).resize((24, 24), Image.Resampling.NEAREST))
    )


def test_a_tall_picture_is_left_to_pillow(tmp_path):
    "Each row costs Python's time: a small file of a great many rows must not stall a worker"
    path = tmp_path / "part.png"
    path.write_bytes(png(np.full((300_000, 1), 255, np.uint8), [0] + [4] * 299_999))
    assert path.stat().st_size < module.LARGEST
    assert read_plain_mask(path, 8) is None


# ---- photographs at their own size


def test_a_photograph_is_read_as_it_is_or_as_in_a_face_set(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_photograph(tmp_path / "a.png"), pixels)
    assert read_photograph(tmp_path / "a.png", 12).shape == (12, 12, 3)
    exif = Image.Exif()
    exif[module.ORIENTATION] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    with pytest.raises(InputError, match="turned.png is marked as rotated"):
        read_photograph(tmp_path / "turned.png")
    upright = np.asarray(read_upright(tmp_path / "turned.png"))
    assert np.array_equal(upright, np.rot90(pixels, -1))


def test_any_picture_becomes_rgb_of_eight_bits(tmp_path):
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "deep.png")
    assert (np.asarray(read_upright(tmp_path / "deep.png")) == 40000 // 257).all()
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (np.asarray(read_upright(tmp_path / "clear.png")) == 255).all()  # on white
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(InputError, match="float.tif has 32 bits a channel"):
        read_upright(tmp_path / "float.tif")
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(InputError, match="text.jpg is not a readable image"):
        read_upright(tmp_path / "text.jpg")
