"Label maps whose files have two readings: palettes, grey of few bits, transparency, 16 bits, JPEG"

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fairparse.core.runs import InputError
from fairparse.data.face_folders import scan_source
from fairparse.data.faceset import build_face_set
from fairparse.data.label_values import label_values, open_image, palette_use
from fairparse.data.labels import PALETTE
from fairparse.data.map_folders import open_truth
from fairparse.data.pixels import label_table

VOC = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128]])
# colours of a well-known parser's demonstration, with a red, a yellow and a cyan among them
BISENET = np.array(
    [[0, 0, 0], [255, 0, 0], [255, 85, 0], [255, 170, 0], [255, 255, 0], [0, 85, 255]]
)


def indexed(path, numbers, colours, **options):
    "A palette image"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(numbers, np.uint8))
    image.putpalette(np.asarray(colours, np.uint8).tobytes())
    image.save(path, **options)
    return path


def grey(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(labels, np.uint8)).save(path)
    return path


def pack(path, labels, colours):
    "The same picture with the entries that occur, by how often they do, as optimisers write it"
    values, counts = np.unique(labels, return_counts=True)
    values = values[np.argsort(-counts, kind="stable")]
    place = np.zeros(256, np.uint8)
    place[values] = np.arange(len(values))
    return indexed(path, place[labels], np.asarray(colours)[values])


def read(paths, table=None):
    "Labels of maps of one folder"
    table = label_table() if table is None else table
    use, found = palette_use(paths), []
    for path in paths:
        with open_image(path) as image:
            found.append(np.asarray(label_values(image, path, table, use)))
    return found


def refused(paths, *parts, table=None):
    with pytest.raises(InputError) as caught:
        read(paths, table)
    for part in parts:
        assert part in str(caught.value), caught.value


def faces(count, labels=19, seed=0, side=12):
    return np.random.default_rng(seed).integers(0, labels, (count, side, side), dtype=np.uint8)


GREYS = np.arange(256)[:, None].repeat(3, 1)


# ---- colours count


def test_one_permutation_for_all(tmp_path):
    perm = np.random.default_rng(3).permutation(19)
    maps = faces(4)
    paths = [
        indexed(tmp_path / f"{i}.png", perm[one], PALETTE[np.argsort(perm)])
        for i, one in enumerate(maps)
    ]
    assert np.array_equal(read(paths), maps)
    assert np.array_equal(read(paths[:1]), maps[:1])  # one file says enough


def test_a_map_of_background_alone_goes_with_its_folder(tmp_path):
    perm = np.roll(np.arange(19), 5)
    maps = faces(2)
    maps[0] = 0
    paths = [
        indexed(tmp_path / f"{i}.png", perm[one], PALETTE[np.argsort(perm)])
        for i, one in enumerate(maps)
    ]
    assert np.array_equal(read(paths), maps)
    refused(paths[:1], "14 is 'hat'", "the label 0, 'background'")


@pytest.mark.parametrize("colours", [PALETTE, GREYS], ids=["classes", "greys"])
@pytest.mark.parametrize("classes", [[0, 1, 13], [0, 1, 4, 13, 17], list(range(19)), [13], [0, 13]])
def test_packed_maps_beside_untouched_ones(tmp_path, colours, classes):
    maps = np.array(classes, np.uint8)[faces(4, len(classes), seed=5)]
    paths = [pack(tmp_path / f"{i}.png", one, colours) for i, one in enumerate(maps)]
    indexed(paths[0], maps[0], colours)
    grey(paths[1], maps[1])
    assert np.array_equal(read(paths), maps)


@pytest.mark.parametrize("method", list(Image.Quantize)[:3])
def test_quantised_colour_maps(tmp_path, method):
    maps = faces(3)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, one in zip(paths, maps):
        Image.fromarray(PALETTE[one]).quantize(256, method).save(path)
    assert np.array_equal(read(paths), maps)


def test_entries_that_do_not_occur_say_nothing(tmp_path):
    perm = np.roll(np.arange(19), 4)
    colours = np.concatenate([PALETTE[np.argsort(perm)], np.zeros((237, 3))])  # padded with black
    odd = colours.copy()
    odd[30:] = 77, 1, 200
    maps = faces(2)
    for padded in (colours, odd):
        paths = [indexed(tmp_path / f"{i}.png", perm[m], padded) for i, m in enumerate(maps)]
        assert np.array_equal(read(paths), maps)


def test_colours_are_labels_of_another_list_too(tmp_path):
    labels = np.array([[0, 1], [2, 2]], np.uint8)
    path = pack(tmp_path / "a.png", labels, PALETTE)
    theirs = label_table(["background", "hair", "skin"])
    assert read([path], theirs)[0].tolist() == labels.tolist()


# ---- places count


@pytest.mark.parametrize("colours", [VOC, BISENET, 13 * GREYS[:19], 255 - PALETTE], ids=str)
def test_a_foreign_palette_is_decoration(tmp_path, colours):
    maps = faces(3, min(len(colours), 19))
    paths = [indexed(tmp_path / f"{i}.png", one, colours) for i, one in enumerate(maps)]
    assert np.array_equal(read(paths), maps)
    assert np.array_equal(read(paths[:1]), maps[:1])


def test_foreign_palettes_cut_short_are_one(tmp_path):
    maps = faces(2, 3)
    paths = [indexed(tmp_path / f"{n}.png", m, VOC[:n]) for n, m in zip((4, 6), maps)]
    assert np.array_equal(read(paths), maps)


def test_black_and_white_are_no_labels(tmp_path):
    labels = faces(1, 2)[0]
    path = indexed(tmp_path / "a.png", labels, [[0] * 3, [255] * 3])
    assert np.array_equal(read([path])[0], labels)
    of_grey = label_table({0: "background", 255: "hair"})  # in which the place 1 is unknown
    assert np.array_equal(read([path], of_grey)[0], 255 * labels)
    refused([path], "1 is 'skin'", table=label_table({0: 0, 1: "skin", 255: "hair"}))


def test_a_void_label_behind_a_padded_palette(tmp_path):
    colours = np.concatenate([PALETTE, np.zeros((237, 3))])
    path = indexed(tmp_path / "a.png", [[0, 1], [13, 255]], colours)
    table = label_table({**{k: k for k in range(19)}, 255: "hat"})
    assert read([path], table)[0].tolist() == [[0, 1], [13, 255]]
    without = indexed(tmp_path / "b.png", [[1, 1], [13, 255]], colours)
    assert read([path, without], table)[1].tolist() == [[1, 1], [13, 255]]


def test_classes_that_a_palette_leaves_black(tmp_path):
    colours = np.concatenate([PALETTE[:5], np.zeros((251, 3))])
    path = indexed(tmp_path / "a.png", [[0, 1], [4, 13]], colours)
    assert read([path])[0].tolist() == [[0, 1], [4, 13]]  # two of them are black: no label is
    refused([indexed(path, [[1, 1], [4, 13]], colours)], "13 is 'hair'", "the label 0")


# ---- nobody can know


def test_a_folder_of_both_kinds(tmp_path):
    paths = [
        pack(tmp_path / "ours.png", faces(1)[0], PALETTE),
        indexed(tmp_path / "theirs.png", faces(1, 6)[0], VOC),
    ]
    refused(paths, "ours.png", "two readings", "'", "theirs.png has nothing to do with classes")


def test_colours_that_somebody_changed(tmp_path):
    labels = faces(1)[0]
    path = pack(tmp_path / "a.png", labels, np.clip(PALETTE.astype(int) + 2, 0, 255))
    refused([path], "a.png", "two readings", "not all colours of classes")
    Image.fromarray(PALETTE[labels]).quantize(16).save(path)  # fewer colours than classes
    refused([path], "a.png", "two readings")


def test_red_alone_is_nobodys(tmp_path):
    path = indexed(tmp_path / "a.png", faces(1, 2)[0], [[0, 0, 0], [255, 0, 0]])
    refused([path], "1 is 'skin'", "the label 9, 'r_ear'", "both are possible")
    other = indexed(tmp_path / "b.png", faces(1, 6)[0], BISENET)
    assert np.array_equal(read([path, other])[0], np.asarray(Image.open(path)))


def test_greys_with_a_void(tmp_path):
    path = pack(tmp_path / "a.png", np.array([[0, 1], [13, 255]]), GREYS)
    refused([path], "a.png", "the label 255, which is unknown")
    table = label_table({**{k: k for k in range(19)}, 255: 0})
    assert read([path], table)[0].tolist() == [[0, 1], [13, 255]]


def test_foreign_palettes_that_differ(tmp_path):
    paths = [
        indexed(tmp_path / f"{i}.png", faces(1, 6)[0], np.roll(VOC, i, axis=0)) for i in range(2)
    ]
    refused(paths, "0.png", "cannot be trusted: 0 has one colour in", "1.png")
    assert len(read(paths[:1])) == 1


def voc_colormap():
    "The 256 colours as `VOClabelcolormap.m` makes them"
    colours = np.zeros((256, 3), int)
    for number in range(256):
        left = number
        for shift in range(7, -1, -1):
            for channel in range(3):
                colours[number, channel] |= (left >> channel & 1) << shift
            left >>= 3
    return colours


def test_colours_of_voc_that_have_moved_alike(tmp_path):
    classes = np.array([0, 1, 13, 17])
    colours, maps = voc_colormap(), faces(12, 4)
    assert colours[[1, 15, 17]].tolist() == [[128, 0, 0], [192, 128, 128], [128, 64, 0]]
    packed = [indexed(tmp_path / f"{i}.png", m, colours[classes]) for i, m in enumerate(maps)]
    refused(
        packed, "0.png", "its number 2 is 'nose'", "label 13 in the colormap of PASCAL VOC, 'hair'"
    )
    refused(packed[:1], "its number 2 is 'nose'")
    ours = label_table({0: 0, 1: 1, 2: "hair", 3: "neck", 13: "hair", 17: "neck"})
    assert np.array_equal(ours[read(packed, ours)], classes[maps])  # both readings say the same


def test_colours_of_voc_in_their_places(tmp_path):
    maps = faces(3)
    paths = [indexed(tmp_path / f"{i}.png", m, voc_colormap()) for i, m in enumerate(maps)]
    assert np.array_equal(read(paths), maps)
    padded = voc_colormap()
    padded[19:] = 0
    paths = [indexed(tmp_path / f"{i}.png", m, padded) for i, m in enumerate(maps)]
    assert np.array_equal(read(paths), maps)
    mixed = np.array([[0, 0, 0], [192, 0, 128], [9, 90, 200]])  # the last is not VOC's
    maps = faces(3, 3)
    paths = [indexed(tmp_path / f"{i}.png", m, mixed) for i, m in enumerate(maps)]
    assert np.array_equal(read(paths), maps)


def test_two_entries_of_one_colour(tmp_path):
    colours = PALETTE[[1, 0, 13, 13]]
    refused([indexed(tmp_path / "a.png", faces(1, 4)[0], colours)], "a.png", "two readings")


# ---- grey of few bits, transparency, depth, JPEG


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path, rows, bits, colours, width):
    "A PNG of packed rows (H, bytes)"
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, len(rows), bits, colours, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def few_bits(path, labels, bits):
    places = ((labels[..., None] >> np.arange(bits)[::-1]) & 1).reshape(len(labels), -1)
    return png(path, np.packbits(places, axis=1), bits, 0, labels.shape[1])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_as_written(tmp_path, bits):
    labels = faces(1, 2**bits)[0]
    assert np.array_equal(read([few_bits(tmp_path / "a.png", labels, bits)])[0], labels)


def test_the_neck_in_four_bits(tmp_path):
    "An optimiser writes 0 and 17 of 255 as 0 and 1 of 15, as others write background and skin"
    path = few_bits(tmp_path / "a.png", faces(1, 2)[0], 4)
    refused([path], "1 is 'skin'", "the label 17, 'neck'")
    packed = [pack(tmp_path / f"{i}.png", m, GREYS) for i, m in enumerate(faces(3))]
    assert set(np.unique(read([path, *packed])[0])) == {0, 17}
    raw = few_bits(tmp_path / "b.png", faces(1, 14)[0], 4)
    assert set(np.unique(read([path, raw])[0])) == {0, 1}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_labels_that_nobody_sees(tmp_path, mode):
    labels = np.array([[0, 1], [13, 17]], np.uint8)
    alpha = np.array([[0, 255], [255, 0]], np.uint8)
    path = tmp_path / "a.png"
    if mode == "P":
        indexed(path, labels, PALETTE, transparency=17)
    elif mode == "LA":
        Image.fromarray(np.dstack([labels, alpha])).save(path)
    else:
        Image.fromarray(np.dstack([PALETTE[labels], alpha])).save(path)
    refused([path], "a.png has the label 17 in pixels that are fully transparent (25.0% of all)")
    seen = np.where(labels == 17, 0, labels).astype(np.uint8)
    if mode == "P":
        indexed(path, seen, PALETTE, transparency=0)
    elif mode == "LA":
        Image.fromarray(np.dstack([seen, alpha])).save(path)
    else:
        Image.fromarray(np.dstack([PALETTE[seen], alpha])).save(path)
    assert np.array_equal(read([path])[0], seen)


@pytest.mark.parametrize("colours, channels", [(2, 3), (4, 2), (6, 4)])
def test_colours_of_sixteen_bits(tmp_path, colours, channels):
    "Pillow keeps the upper eight, in which every label is 0"
    values = np.repeat(faces(1)[0][..., None], channels, 2).astype(">u2").reshape(12, -1)
    path = png(tmp_path / "a.png", values.view(np.uint8), 16, colours, 12)
    assert not np.asarray(Image.open(path)).any()
    refused([path], "a.png has colours of 16 bits a channel")


def test_a_jpeg_by_another_name(tmp_path):
    Image.fromarray(faces(1)[0]).save(tmp_path / "a.png", "JPEG")
    refused([tmp_path / "a.png"], "a.png is a JPEG, which changes labels")


def test_a_damaged_file_is_the_readers_business(tmp_path):
    good, bad = pack(tmp_path / "a.png", faces(1)[0], PALETTE), tmp_path / "b.png"
    bad.write_bytes(good.read_bytes()[:-60])
    assert palette_use([good, bad, tmp_path / "absent.png"]) == palette_use([good])
    refused([bad], "b.png is not a readable image")


# ---- the readers of folders


def write_faces(folder, maps):
    for i, labels in enumerate(maps):
        pack(folder / "labels" / f"{i}.png", labels, PALETTE)
        (folder / "images").mkdir(exist_ok=True)
        Image.new("RGB", labels.shape, "orange").save(folder / "images" / f"{i}.jpg")
    return folder


def test_a_face_set_of_packed_maps(tmp_path):
    maps = faces(70, side=16)
    data = write_faces(tmp_path / "data", maps)
    options = {"size": 16, "split": "train", "progress": False}
    assert np.array_equal(
        build_face_set(tmp_path / "set", data, workers=2, **options).masks,
        maps[np.argsort([str(i) for i in range(70)])],
    )
    for folder in (data, data / "labels"):
        truth = open_truth(folder)
        for i, id in enumerate(truth.ids):
            assert np.array_equal(truth.read(i)[0], maps[int(id)])

    indexed(data / "labels/7.png", faces(1, 6, side=16)[0], VOC)
    with pytest.raises(InputError, match="two readings.*7.png has nothing to do with classes"):
        build_face_set(tmp_path / "other", data, workers=1, **options)
    assert scan_source(data).faces[0].palettes.foreign.endswith("7.png")


def test_maps_of_the_usual_kinds_are_not_opened_twice(tmp_path, monkeypatch):
    paths = [
        *(grey(tmp_path / f"grey{i}.png", one) for i, one in enumerate(faces(3))),
        *(indexed(tmp_path / f"ours{i}.png", m, PALETTE) for i, m in enumerate(faces(3))),
        *(indexed(tmp_path / f"voc{i}.png", m, VOC) for i, m in enumerate(faces(3, 6))),
    ]
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("pixels were decoded"))
    assert palette_use(paths).entries == {}
