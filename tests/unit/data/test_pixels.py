"Part masks read without Pillow: the same as with it, and its turn for all that is not plain"

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fairparse.core.runs import InputError
from fairparse.data import pixels as module
from fairparse.data.pixels import (
    merge_parts,
    nearest_positions,
    read_image,
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
        np.where(blobs(rng, 20, 30), 250, rng.integers(0, 25, (20, 30))).astype(np.uint8),
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


# ---- what is part, and what is no mask


def rectangle(side=64):
    "(side, side) bool"
    inside = np.zeros((side, side), bool)
    inside[side // 8 : side // 2, side // 4 : side // 4 * 3] = True
    return inside


def with_alpha(inside, hidden, shown):
    "RGBA: a part in one grey, opaque, and the rest in another, transparent"
    grey = np.where(inside, shown, hidden)
    return Image.fromarray(np.dstack([grey] * 3 + [255 * inside]).astype(np.uint8))


def saved(image, path, **options):
    image.save(path, **options)
    return path


def all_of(path, size):
    "(size, size) bool of a part"
    box, inside, _ = read_part(path, size)
    whole = np.zeros((size, size), bool)
    if box is not None:
        whole[box[1] : box[3], box[0] : box[2]] = inside
    return whole


@pytest.mark.parametrize("hidden, shown", [(255, 255), (255, 0), (0, 0), (0, 255), (200, 9)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_decides_what_is_part(tmp_path, mode, hidden, shown):
    inside = rectangle()
    image = with_alpha(inside, hidden, shown)
    if mode == "P":
        image = Image.fromarray(inside.astype(np.uint8))
        image.putpalette([hidden] * 3 + [shown] * 3)
        path = saved(image, tmp_path / "a.png", transparency=0)
    else:
        path = saved(image.convert(mode), tmp_path / "a.png")
    assert Image.open(path).mode == mode
    for size in (64, 23):
        expected = Image.fromarray(inside).resize((size, size), Image.Resampling.NEAREST)
        assert np.array_equal(all_of(path, size), np.asarray(expected))


@pytest.mark.parametrize("alpha", [255, 128, 40])
def test_the_same_alpha_everywhere_says_nothing(tmp_path, alpha):
    image = Image.fromarray(rectangle()).convert("RGBA")
    image.putalpha(alpha)
    path = saved(image, tmp_path / "a.png")
    assert np.array_equal(all_of(path, 64), rectangle())


def test_half_transparent_parts_and_soft_alpha(tmp_path):
    image = with_alpha(rectangle(), 255, 0)
    image.putalpha(image.getchannel("A").point(lambda value: value * 100 // 255))
    assert np.array_equal(all_of(saved(image, tmp_path / "a.png"), 64), rectangle())
    wide = with_alpha(rectangle(256), 255, 255)
    wide.putalpha(wide.getchannel("A").filter(ImageFilter.GaussianBlur(1)))
    changed = all_of(saved(wide, tmp_path / "b.png"), 256) ^ rectangle(256)
    assert changed.mean() < 0.005


@pytest.mark.parametrize("low, high", [(1, 255), (0, 1), (0, 128), (1, 2), (90, 200)])
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_the_limit_is_half_of_the_range(tmp_path, mode, low, high):
    levels = np.where(rectangle(), high, low).astype(np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(levels)
    path = saved(image if mode == "I;16" else image.convert(mode), tmp_path / "a.png")
    assert np.array_equal(all_of(path, 64), rectangle())


def test_one_level_of_sixteen_bits_may_be_transparent(tmp_path):
    image = Image.fromarray(np.where(rectangle(), 7, 60000).astype(np.uint16))
    path = saved(image, tmp_path / "a.png", transparency=60000)
    assert np.array_equal(all_of(path, 64), rectangle())


@pytest.mark.parametrize("quality", [10, 30, 60, 75, 95])
def test_soft_borders_of_a_jpeg(tmp_path, quality):
    y, x = np.mgrid[:256, :256]
    for place, (width, height) in enumerate([(90, 70), (30, 9), (60, 2.5)]):
        inside = ((x - 120) / width) ** 2 + ((y - 130) / height) ** 2 < 1
        image = Image.fromarray(inside).convert("RGB")
        path = saved(image, tmp_path / f"{place}.png", format="JPEG", quality=quality)
        assert np.asarray(Image.open(path)).any(-1).sum() > inside.sum()
        assert (all_of(path, 256) ^ inside).mean() < 0.004


def test_two_opaque_rectangles(tmp_path):
    "The shares of background, skin and hair, in every way in which they are drawn"
    inside = {1: np.zeros((512, 512), bool), 13: np.zeros((512, 512), bool)}
    inside[1][180:480, 100:400] = True
    inside[13][90:170, 100:400] = True
    for name, draw in {
        "rgba": lambda part: with_alpha(part, 255, 255),
        "la": lambda part: with_alpha(part, 255, 0).convert("LA"),
        "one": lambda part: Image.fromarray(np.where(part, 255, 1).astype(np.uint8)),
    }.items():
        parts = tuple(
            (label, saved(draw(part), tmp_path / f"{name}{label}.png"))
            for label, part in inside.items()
        )
        merged, _ = merge_parts(parts, 512)
        counts = np.bincount(merged.ravel(), minlength=19)
        assert counts[[0, 1, 13]].tolist() == [512**2 - 114_000, 90_000, 24_000]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "I;16"])
def test_a_part_that_fills_the_picture(tmp_path, mode):
    levels = np.full((50, 50), 255, np.uint8)
    levels[:1] = 0  # two per cent
    image = Image.fromarray(levels.astype(np.uint16)) if mode == "I;16" else Image.fromarray(levels)
    path = saved(image if mode == "I;16" else image.convert(mode), tmp_path / "hair.png")
    with pytest.raises(InputError, match="hair.png covers 98.0% of the picture"):
        read_part(path, 50)
    for value in (1, 255):
        saved(Image.new("L", (50, 50), value), path)
        with pytest.raises(InputError, match="hair.png covers 100.0% of the picture"):
            merge_parts(((13, path),), 16)


@pytest.mark.parametrize("kind", ["photograph", "ramp", "numbered", "trimap"])
def test_more_than_two_levels_are_no_mask(tmp_path, kind):
    rng, levels = np.random.default_rng(0), np.zeros((128, 128), np.uint8)
    if kind == "photograph":
        levels = rng.integers(0, 256, (128, 128), dtype=np.uint8)
    if kind == "ramp":
        levels = np.arange(128, dtype=np.uint8)[None].repeat(128, 0) * 2
    if kind == "numbered":  # two eyes in one mask
        levels[40:46, 20:34], levels[40:46, 80:94] = 1, 2
    if kind == "trimap":
        levels[20:100, 20:100], levels[30:90, 30:90] = 128, 255
    path = saved(Image.fromarray(levels), tmp_path / "part.png")
    with pytest.raises(
        InputError, match=r"part.png has more than two levels: [\d.]+% .*: threshold it"
    ):
        read_part(path, 64)


def test_masks_that_contradict_themselves(tmp_path):
    image = Image.fromarray(rectangle()).convert("RGBA")
    image.putalpha(0)
    with pytest.raises(InputError, match="a.png is fully transparent, but something is painted"):
        read_part(saved(image, tmp_path / "a.png"), 64)
    assert read_part(saved(Image.new("RGBA", (9, 9)), tmp_path / "empty.png"), 9)[0] is None

    image.putalpha(255)
    image.paste((255, 255, 255, 0), (0, 50, 64, 64))
    with pytest.raises(InputError, match="b.png has opaque pixels of black and of white"):
        read_part(saved(image, tmp_path / "b.png"), 64)


@pytest.mark.parametrize("colours, channels", [(2, 3), (4, 2), (6, 4)])
def test_colours_of_sixteen_bits_are_refused(tmp_path, colours, channels):
    "Pillow keeps the upper eight, in which a part of 255 is black"
    values = np.repeat(255 * rectangle()[..., None], channels, 2).astype(">u2")
    head = struct.pack(">IIBBBBB", 64, 64, 16, colours, 0, 0, 0)
    flat = values.view(np.uint8).reshape(64, -1)
    (tmp_path / "a.png").write_bytes(png(flat, [0] * 64, head))
    with pytest.raises(InputError, match="a.png has colours of 16 bits a channel"):
        read_part(tmp_path / "a.png", 64)


# ---- photographs at their own size


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_in_a_photograph_is_white(tmp_path, mode):
    "The same for a face set and for `parse`: what lies beneath is not seen"
    image = with_alpha(rectangle(), 90, 60)
    if mode == "P":
        image = Image.fromarray(rectangle().astype(np.uint8))
        image.putpalette([90] * 3 + [60] * 3)
        path = saved(image, tmp_path / "a.png", transparency=0)
    else:
        path = saved(image.convert(mode), tmp_path / "a.png")
    expected = np.where(rectangle(), 60, 255)[..., None].repeat(3, -1)
    for read in (read_image(path, 64)[0], read_photograph(path), np.asarray(read_upright(path))):
        assert np.array_equal(read, expected)


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
