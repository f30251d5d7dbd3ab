"Face sets from folders: layouts, mask modes, merge order, splits, resume, bad input, real samples"

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairparse.core.records import open_face_set
from fairparse.core.runs import InputError
from fairparse.data import faceset as faces_module
from fairparse.data.face_folders import read_attributes, scan_source, scan_sources
from fairparse.data.faceset import (
    assign_splits,
    build_face_set,
    describe_face_set,
    official_split,
    read_mapping,
)
from fairparse.data.labels import CLASSES, MERGE_ORDER, PALETTE
from fairparse.data.pixels import label_table, merge_parts, read_image, read_label_map, read_part
from fairparse.data.show import show_faces

IMAGES = "CelebA-HQ-img"
ANNO = "CelebAMask-HQ-mask-anno"
ATTRIBUTES = "CelebAMask-HQ-attribute-anno.txt"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"


def write_celeba(
    folder,
    ids,
    size=40,
    mask_size=40,
    parts=("skin", "nose", "l_eye", "hair", "hat", "neck"),
    mode="L",
    seed=0,
):
    "Noise photographs with random overlapping boxes as part masks"
    rng = np.random.default_rng(seed)
    (folder / IMAGES).mkdir(parents=True)
    for id in ids:
        sub = folder / ANNO / str(id // 2000)
        sub.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(
            folder / IMAGES / f"{id}.jpg"
        )
        for part in parts:
            mask = np.zeros((mask_size, mask_size), np.uint8)
            top, left = rng.integers(0, mask_size // 2, 2)
            mask[
                top : top + rng.integers(3, mask_size // 2),
                left : left + rng.integers(3, mask_size // 2),
            ] = 255
            Image.fromarray(mask).convert(mode).save(sub / f"{id:05d}_{part}.png")
    lines = [
        str(len(ids)),
        "Male Young",
        *(f"{id}.jpg  {1 - 2 * (id % 2)} {-1 + 2 * (id % 3 == 0)}" for id in ids),
    ]
    (folder / ATTRIBUTES).write_text("\n".join(lines) + "\n")
    (folder / MAPPING).write_text(
        "idx         orig_idx    orig_file\n"
        + "".join(f"{id}   {id * 20000}   {id * 20000 + 1:06d}.jpg\n" for id in ids)
    )
    return folder


def write_labels(folder, names="abcdef", size=24, suffix=".jpg", seed=0, label_size=None):
    rng = np.random.default_rng(seed)
    for sub in ("images", "labels"):
        (folder / sub).mkdir(parents=True)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(
            folder / "images" / (name + suffix)
        )
        Image.fromarray(rng.integers(0, 19, (label_size or size,) * 2, dtype=np.uint8)).save(
            folder / "labels" / f"{name}.png"
        )
    return folder


def plain_merge(folder, id, size):
    "One-process reference: merge at the masks' own size, then Pillow's nearest"
    mask = None
    for label, part in enumerate(CLASSES):
        path = folder / ANNO / str(id // 2000) / f"{id:05d}_{part}.png"
        if path.exists():
            pixels = np.array(Image.open(path).convert("RGB")).any(-1)
            if mask is None:
                mask = np.zeros(pixels.shape, np.uint8)
            mask[pixels] = label
    return np.array(Image.fromarray(mask).resize((size, size), Image.NEAREST))


def build(tmp_path, data, **more):
    return build_face_set(
        tmp_path / "set",
        data,
        **{"size": 16, "progress": False, "workers": 1, "split": "train", **more},
    )


def refused(tmp_path, data, *parts, **more):
    "The build is an InputError that says all `parts`, and leaves nothing"
    with pytest.raises(InputError) as caught:
        build(tmp_path, data, **more)
    for part in parts:
        assert part in str(caught.value), caught.value
    assert not (tmp_path / "set").exists()
    return str(caught.value)


# ---- layouts, masks, images


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
@pytest.mark.parametrize("mask_size,size", [(40, 16), (40, 40), (37, 16), (16, 40), (64, 31)])
def test_merge_equals_plain_pil(tmp_path, mode, mask_size, size):
    data = write_celeba(tmp_path / "raw", [3, 17, 2001], mask_size=mask_size, mode=mode)
    faces = build(tmp_path, data, size=size)
    assert faces.index.id.tolist() == ["3", "17", "2001"]
    assert faces.masks.dtype == np.uint8
    for row, id in enumerate([3, 17, 2001]):
        assert (faces.masks[row] == plain_merge(data, id, size)).all()


def test_overlap_later_part_wins(tmp_path):
    data = write_celeba(tmp_path / "raw", [0], parts=())
    for part, box in (
        ("hair", np.s_[:20]),
        ("skin", np.s_[10:]),
        ("hat", np.s_[:5]),
        ("nose", np.s_[15:25]),
    ):
        mask = np.zeros((40, 40), np.uint8)
        mask[box] = 1  # half of a mask's own range counts
        mask[:, 39] = 0
        (data / ANNO / "0").mkdir(exist_ok=True)
        Image.fromarray(mask).save(data / ANNO / "0" / f"00000_{part}.png")
    rows = build(tmp_path, data, size=40).masks[0][:, 7]
    ranks = [MERGE_ORDER.index(part) for part in ("skin", "nose", "hair", "hat")]
    assert ranks == sorted(ranks)
    expected = [14] * 5 + [13] * 15 + [2] * 5 + [1] * 15
    assert rows.tolist() == expected


def test_part_mask_16_bit_and_odd_colours(tmp_path):
    inside = np.zeros((20, 20), bool)
    inside[4:9, 2:17] = True
    blue = np.zeros((20, 20, 3), np.uint8)
    blue[inside] = (0, 0, 1)
    inverted = Image.fromarray((~inside).astype(np.uint8)).convert("P")
    inverted.putpalette([255, 255, 255, 0, 0, 0])
    grey_alpha = Image.fromarray(
        np.stack([inside * 255, np.full((20, 20), 255)], -1).astype(np.uint8), "LA"
    )
    versions = {
        "sixteen": Image.fromarray(inside.astype(np.uint16) * 256),
        "blue": Image.fromarray(blue),
        "inverted": inverted,
        "alpha": grey_alpha,
    }
    for name, image in versions.items():
        image.save(tmp_path / f"{name}.png")
        for size in (20, 7):
            expected = np.array(
                Image.fromarray(inside.astype(np.uint8)).resize((size, size), Image.NEAREST)
            )
            assert (merge_parts(((5, tmp_path / f"{name}.png"),), size)[0] == 5 * expected).all(), (
                name
            )
    assert Image.open(tmp_path / "sixteen.png").mode.startswith("I")
    Image.new("L", (20, 20)).save(tmp_path / "empty.png")
    assert read_part(tmp_path / "empty.png", 8)[0] is None
    assert not merge_parts(((5, tmp_path / "empty.png"),), 8)[0].any()


def label_versions(labels):
    indexed = Image.frombytes("P", labels.shape[::-1], labels.tobytes())
    indexed.putpalette((255 - PALETTE).ravel().tolist())  # not of classes: decoration
    opaque = np.full((*labels.shape, 1), 255, np.uint8)
    return {
        "grey": Image.fromarray(labels),
        "palette": indexed,
        "equal": Image.fromarray(np.repeat(labels[..., None], 3, 2)),
        "coloured": Image.fromarray(PALETTE[labels]),
        "rgba": Image.fromarray(np.concatenate([PALETTE[labels], opaque], -1)),
        "sixteen": Image.fromarray(labels.astype(np.uint16)),
        "alpha": Image.fromarray(np.concatenate([labels[..., None], opaque], -1), "LA"),
    }


@pytest.mark.parametrize(
    "version", ["grey", "palette", "equal", "coloured", "rgba", "sixteen", "alpha"]
)
def test_label_map_modes(tmp_path, version):
    labels = np.random.default_rng(0).integers(0, 19, (30, 30), dtype=np.uint8)
    image = label_versions(labels)[version]
    image.save(tmp_path / "a.png")
    assert (
        Image.open(tmp_path / "a.png").mode
        == {
            "grey": "L",
            "palette": "P",
            "equal": "RGB",
            "coloured": "RGB",
            "rgba": "RGBA",
            "sixteen": "I;16",
            "alpha": "LA",
        }[version]
    )
    for size in (30, 13, 45):
        nearest = np.array(Image.fromarray(labels).resize((size, size), Image.NEAREST))
        assert (read_label_map(tmp_path / "a.png", size, label_table())[0] == nearest).all()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_label_map_of_few_bits_is_not_scaled(tmp_path, bits):
    import struct
    import zlib

    labels = np.random.default_rng(0).integers(0, 2**bits, (8, 8), dtype=np.uint8)
    packed = np.packbits(((labels[..., None] >> np.arange(bits)[::-1]) & 1).reshape(8, -1), axis=1)
    chunk = lambda kind, data: (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    raw = b"".join(b"\0" + row.tobytes() for row in packed)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, bits, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )
    assert (read_label_map(tmp_path / "a.png", 8, label_table())[0] == labels).all()


def test_image_is_reduced_with_antialiasing(tmp_path):
    y, x = np.mgrid[:512, :512]
    smooth = np.stack([x // 2, y // 2, 255 - x // 2], -1).astype(np.uint8)
    checks = np.repeat(((x + y) % 2 * 255).astype(np.uint8)[..., None], 3, 2)
    for name, array in (("smooth", smooth), ("checks", checks)):
        for suffix in (".png", ".jpg", ".webp", ".bmp"):
            Image.fromarray(array).save(tmp_path / (name + suffix))
            pixels, full = read_image(tmp_path / (name + suffix), 32)
            means = array.reshape(32, 16, 32, 16, 3).mean((1, 3))
            assert full == (512, 512)
            assert pixels.shape == (32, 32, 3)
            assert abs(pixels[2:-2, 2:-2] - means[2:-2, 2:-2]).max() < 4, suffix
    Image.fromarray(smooth).save(tmp_path / "same.png")
    assert (read_image(tmp_path / "same.png", 512)[0] == smooth).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "LA"])
def test_image_modes(tmp_path, mode):
    grey = Image.new("RGB", (20, 20), (120, 120, 120))
    image = grey.quantize(4) if mode == "P" else grey.convert(mode)
    image.save(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"))
    pixels = read_image(next(tmp_path.iterdir()), 10)[0]
    assert pixels.shape == (10, 10, 3)
    assert abs(pixels.astype(int) - 120).mean() < 6


def test_labels_layout_with_attributes(tmp_path):
    data = write_labels(tmp_path / "own", suffix=".JPEG", size=32, label_size=16)
    (data / "attributes.csv").write_text(
        "Hat,id,Note_1\n1,a,\n0,b.jpeg,1\n,c,0\n1,d,1\n1,e,1\n0,f,0\n"
    )
    (data / "images" / ".DS_Store").write_text("x")
    (data / "labels" / "readme.txt").write_text("x")
    faces = build(tmp_path, data)
    assert faces.index.id.tolist() == list("abcdef")
    assert faces.attributes == ["Hat", "Note_1"]
    assert faces.attribute_values().T.tolist() == [[1, 0, -1, 1, 1, 0], [-1, 1, 0, 1, 1, 0]]
    assert faces.meta["sources"] == ["own"]
    assert faces.classes == CLASSES
    assert (faces.masks[0] == np.array(Image.open(data / "labels" / "a.png"))).all()


@pytest.mark.parametrize(
    "suffix", ["dict", "list", "json", "json-list", "csv", "csv-header", "csv-other", "tsv"]
)
def test_label_map(tmp_path, suffix):
    data = write_labels(tmp_path / "own", "ab")
    for name in "ab":
        Image.fromarray(np.array([[0, 1], [2, 255]], np.uint8).repeat(12, 0).repeat(12, 1)).save(
            data / "labels" / f"{name}.png"
        )
    mapping = {0: "background", 1: "hair", 2: 1, 255: 0}
    if suffix == "dict":
        label_map = mapping
    elif suffix in ("list", "json-list"):
        label_map = ["background", "hair", 1] + [0] * 253
    else:
        label_map = tmp_path / f"map.{suffix[:4].strip('-')}"
    if suffix == "json":
        label_map.write_text(json.dumps(mapping))
    if suffix == "json-list":
        (tmp_path / "list.json").write_text(json.dumps(label_map))
        label_map = str(tmp_path / "list.json")
    if suffix.startswith("csv"):
        label_map.write_text(
            "value,class\r\n" * (suffix == "csv-header")
            + "".join(f"{k}, {v}\r\n" for k, v in mapping.items())
        )
    if suffix == "csv-other":
        rows = "".join(f'"{v}" ; "{k}"\n' for k, v in mapping.items())
        label_map.write_text("Class ; Value\n" + rows)
    if suffix == "tsv":
        label_map.write_text("".join(f"{k}\t{v}\n" for k, v in mapping.items()))
    mask = build(tmp_path, data, label_map=label_map).masks[0]
    assert mask[::8, ::8].tolist() == [[0, 13], [1, 0]]


# ---- attributes


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("count", [True, False])
def test_celeba_attributes(tmp_path, newline, count):
    data = write_celeba(tmp_path / "raw", [3, 4, 17])
    lines = ["3"] * count + [
        "Male Young My_Own",
        "3.jpg -1  1 1",
        "17.jpg 1 -1 1",
        "00004.jpg  1 1 -1",
        "29999.jpg 1 1 1",
    ]
    (data / ATTRIBUTES).write_bytes(newline.join(lines).encode())
    faces = build(tmp_path, data)
    assert faces.attributes == ["Male", "Young", "My_Own"]
    assert faces.attribute_values().tolist() == [[0, 1, 1], [1, 1, 0], [1, 0, 1]]


def test_missing_attribute_rows_are_unknown_and_counted(tmp_path):
    data = write_celeba(tmp_path / "raw", [1, 2, 3])
    (data / ATTRIBUTES).write_text("1\nMale\n2.jpg 1\n")
    with pytest.warns(UserWarning, match="no row for 2 of 3 faces"):
        faces = build(tmp_path, data)
    assert faces.attribute_values(["Male"]).ravel().tolist() == [-1, 1, -1]
    (data / ATTRIBUTES).unlink()
    with pytest.warns(UserWarning, match="is missing: the attributes"):
        faces = build(tmp_path, data)
    assert faces.attributes == []


@pytest.mark.parametrize(
    "text,message",
    [
        ("id,Hat\na,1\na,0\n", "the id 'a' has two rows"),
        ("id,Hat\na,1\nb,yes\n", "column 'Hat' holds 'yes' for the id 'b'"),
        ("id,Hat\na,1\nb,2\n", "column 'Hat' holds '2'"),
        ("id,Hat,Smile\na,1,-1\nb,0,1\n", "mixes 0 (column 'Hat') and -1 (column 'Smile')"),
        ("id,Hat\na,1,1\n", "line 2 has 3 values for 2 columns"),
        ("name,Hat\na,1\n", "no column 'id'"),
        ("id,Hat,Hat\na,1,1\n", "'Hat' is used twice"),
        ("id,split\na,1\n", "'split' is used twice, is empty, or is one that"),
        ("id,Hat\nzoe,1\n", "no row for any of the 6 faces"),
        ("", "is empty"),
    ],
)
def test_bad_attribute_files(tmp_path, text, message):
    data = write_labels(tmp_path / "own")
    (data / "attributes.csv").write_text(text)
    refused(tmp_path, data, "attributes.csv", message)


@pytest.mark.parametrize(
    "text",
    [
        '"id","Hat"\n"a","1"\n"b",""\n',
        '"id" , "Hat"\n"a" , "1"\n"b" ,\n',
        "Hat;ID\n1.0;a.jpg\n;b.JFIF\n",
        ",id,Hat\n0,a,True\n1,b,\n",
        "Unnamed: 0,id,Hat\n7,a,1\n8,b,\n",
        "id,Hat,\na,1,\nb,,\n",
    ],
)
def test_attribute_files_of_others(tmp_path, text):
    (tmp_path / "attributes.csv").write_text(text)
    table = read_attributes(tmp_path / "attributes.csv")
    assert list(table) == ["Hat"] and table.index.tolist() == ["a", "b"]
    assert table.Hat.fillna(-1).tolist() == [1, -1]


def test_attributes_between_tabs_keep_their_ids(tmp_path):
    data = write_labels(tmp_path / "own", names=["007", "7"])
    (data / "attributes.tsv").write_text("id\tHat\n007\t1\n7\t0\n")
    faces = build(tmp_path, data)
    assert dict(zip(faces.index.id, faces.index.Hat)) == {"007": 1, "7": 0}
    (data / "attributes.csv").write_text("id,Hat\n007,0\n7,1\n")
    with pytest.raises(InputError, match="attributes.csv and .*attributes.tsv are two attribute"):
        build(tmp_path, data)


def test_an_attribute_file_without_ids_says_what_to_do(tmp_path):
    path = tmp_path / "attributes.csv"
    path.write_text("name,Hat\na,1\n")
    with pytest.raises(InputError, match="no column 'id': it has .'name', 'Hat'.; name the column"):
        read_attributes(path)
    path.write_text("id,Hat,\na,1,0\n")
    with pytest.raises(InputError, match="column 3 has no name"):
        read_attributes(path)
    path.write_text('id,Hat\na,"1\nb,0\n')
    with pytest.raises(InputError, match="line 2: a cell in quotation marks goes on"):
        read_attributes(path)
    path.write_text("id,Id,Hat\na,a,1\n")
    with pytest.raises(InputError, match="'id', 'Id'.* have one name"):
        read_attributes(path)


@pytest.mark.filterwarnings("ignore:2 files in .*labels were not read")
def test_files_that_are_not_read_are_counted(tmp_path):
    data = write_labels(tmp_path / "own", suffix=".JFIF")
    (data / "images" / "more").mkdir()
    (data / "labels" / "old").mkdir()
    images, labels = ("images/g.heic", "images/notes.txt"), ("labels/old/a.png", "labels/h.bmp")
    for name in (*images, *labels, "images/more/i.jpg", "images/.DS_Store", "labels/.b.png"):
        (data / name).write_text("x")
    (data / "attributes.csv").write_text("id,Hat\na,1\nb,1\nc,1\nd,1\ne,1\nf,1\n")
    (data / "attributes.csv").rename(data / "Attributes.CSV")
    with pytest.warns(UserWarning, match="3 files in .*images were not read.*more.i.jpg, notes"):
        faces = build(tmp_path, data)
    assert len(faces) == 6 and faces.attributes == ["Hat"]
    aside = faces.meta["left_aside"]
    assert aside["files"] == 5 and aside["first"][0].endswith("images/g.heic")
    assert sorted(scan_source(data).left_aside) == sorted(
        str(data / name) for name in (*images, *labels, "images/more/i.jpg")
    )


def test_a_part_mask_that_is_no_png_is_a_problem(tmp_path):
    raw = write_celeba(tmp_path / "raw", [1, 2, 3], parts=("skin", "nose", "hair"))
    for id in (1, 2, 3):
        hair = raw / ANNO / "0" / f"{id:05d}_hair.png"
        Image.open(hair).save(hair.with_suffix(".bmp"))
        hair.unlink()
    message = "0/00001_hair.bmp: a part mask is a PNG in .*anno/.id // 2000.: convert it"
    with pytest.raises(InputError, match=rf"3 problems\n(.*\n)*.*{message}"):
        build(tmp_path, raw)


@pytest.mark.parametrize("place", ["00001_hair.png", "0/more/00001_hair.png", "0/00001_hair.heic"])
def test_a_part_mask_in_another_place_is_a_problem(tmp_path, place):
    raw = write_celeba(tmp_path / "raw", [1, 2], parts=("skin", "hair"))
    (raw / ANNO / "0/more").mkdir()
    (raw / ANNO / "0/00001_hair.png").rename(raw / ANNO / place)
    refused(tmp_path, raw, "1 problem", f"{place}: a part mask is a PNG")


def test_other_files_among_the_part_masks_are_left_aside(tmp_path):
    raw = write_celeba(tmp_path / "raw", [1, 2], parts=("skin", "hair"))
    (raw / ANNO / "0/00001_hair.png").rename(raw / ANNO / "0/00001_hair.PNG")
    for name in ("readme.txt", "0/Thumbs.db", "0/.DS_Store", ".hidden.bmp"):
        (raw / ANNO / name).write_text("x")
    with pytest.warns(UserWarning, match="2 files in .*anno were not read"):
        faces = build(tmp_path, raw)
    assert faces.meta["left_aside"]["files"] == 2
    assert {CLASSES.index("hair")} <= set(np.unique(faces.masks[0]))


def test_bad_celeba_attribute_column(tmp_path):
    data = write_celeba(tmp_path / "raw", [1, 2])
    (data / ATTRIBUTES).write_text("2\nMale Age\n1.jpg 1 -1\n2.jpg -1 37\n")
    refused(tmp_path, data, "'Age' holds '37' for the id '2'", "remove the column")
    (data / ATTRIBUTES).write_text("2\nMale\n1.jpg 1\n1.jpg -1\n")
    refused(tmp_path, data, "the id '1' has two rows")
    (data / ATTRIBUTES).write_bytes(b"\xff\xfe\x00\x80")
    refused(tmp_path, data, "not a text file")


def test_attribute_file_with_byte_order_mark(tmp_path):
    (tmp_path / "attributes.csv").write_bytes("\ufeffid,Hat\nä,1\n".encode())
    assert read_attributes(tmp_path / "attributes.csv").Hat.to_dict() == {"ä": 1}


# ---- splits


def test_official_split_of_a_partial_set(tmp_path):
    data = write_celeba(tmp_path / "raw", range(11))  # original positions 0, 20000, ..., 200000
    expected = ["train"] * 9 + ["valid"] + ["test"]
    assert build(tmp_path, data, split="official").index.split.tolist() == expected
    text = (data / MAPPING).read_text().split("\n", 1)[1]  # without its header line
    (data / MAPPING).write_text(text)
    assert build(tmp_path, data, split="official").index.split.tolist() == expected


def test_official_split_needs_its_mapping(tmp_path):
    data = write_celeba(tmp_path / "raw", [1, 2])
    own = write_labels(tmp_path / "own")
    refused(tmp_path, own, "has no official split", split="official")
    (data / MAPPING).write_text("1 2 3.jpg\n")
    refused(tmp_path, data, "no line for 1 faces", "'2'", split="official")
    (data / MAPPING).write_text("1 2 3.jpg\n1 3 4.jpg\n")
    refused(tmp_path, data, "duplicated ids", split="official")
    (data / MAPPING).write_text("idx orig_idx\n1 x\n")
    refused(tmp_path, data, "line 2", "'1 x': mend the line", split="official")
    (data / MAPPING).write_text("1 2 3.jpg\n2\n")
    refused(tmp_path, data, "line 2: each line is `idx,orig_idx`", "mend it", split="official")
    (data / MAPPING).unlink()
    refused(tmp_path, data, "is missing", 'split="seeded"', split="official")


def test_seeded_split(tmp_path):
    data = write_labels(tmp_path / "own", [f"{i:02d}" for i in range(30)], size=8)
    splits = [
        build(
            tmp_path, data, size=8, split="auto", seed=seed, valid_share=0.1, test_share=0.2
        ).index.split
        for seed in (0, 0, 1)
    ]
    assert splits[0].value_counts().to_dict() == {"train": 21, "test": 6, "valid": 3}
    assert (splits[0] == splits[1]).all()
    assert (splits[0] != splits[2]).any()
    assert set(build(tmp_path, data, size=8, split="train").index.split) == {"train"}
    assert build(tmp_path, data, size=8, split="seeded", test_share=0).meta["splits"] == {
        "train": 27,
        "valid": 3,
        "test": 0,
    }


def test_extra_faces_are_never_tested(tmp_path):
    data = write_celeba(tmp_path / "raw", range(20), size=16, mask_size=16, parts=("skin",))
    extra = write_labels(tmp_path / "own", [f"{i}" for i in range(20)], size=16)
    alone = build(tmp_path, data, split="seeded").index.split.tolist()
    faces = build(tmp_path, data, extra=extra, split="seeded")
    assert faces.index.split[:20].tolist() == alone
    assert faces.index.split[20:].value_counts().to_dict() == {"train": 18, "valid": 2}
    assert faces.index.id[[3, 23]].tolist() == [
        "raw/3",
        "own/11",
    ]
    assert faces.index.source.value_counts().to_dict() == {"raw": 20, "own": 20}
    assert faces.attribute_values(["Male"])[20:].ravel().tolist() == [-1] * 20


@pytest.mark.parametrize("with_extra", [False, True])
def test_folds(tmp_path, with_extra):
    data = write_labels(tmp_path / "own", [f"{i:02d}" for i in range(23)], size=8)
    extra = [write_labels(tmp_path / "more", size=8)] * with_extra
    faces = build(tmp_path, data, size=8, split="auto", folds=4, extra=extra)
    n, rest = (23, set(range(23, 29))) if with_extra else (21, set())
    counts = faces.index.fold.value_counts()
    assert sorted(counts.index) == [0, 1, 2, 3]
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1
    valid = set(faces.rows("valid"))
    assert valid
    assert valid <= (rest or set(range(23)) - set(np.flatnonzero(faces.index.fold.notna())))
    tested = [set(faces.rows("test", fold=f)) for f in range(4)]
    assert sum(map(len, tested)) == n
    assert set.union(*tested) == set(np.flatnonzero(faces.index.fold.notna()))
    assert not set.union(*tested) & (rest | valid)
    for f in range(4):
        parts = [set(faces.rows(split, fold=f)) for split in ("train", "valid", "test")]
        assert set.union(*parts) == set(range(len(faces)))
        assert sum(map(len, parts)) == len(faces)
        assert parts[1] == valid


@pytest.mark.parametrize(
    "more,message",
    [
        ({"split": "random"}, "split='random'"),
        ({"size": 0}, "size=0"),
        ({"size": 64.5}, "size=64.5"),
        ({"seed": -1}, "seed=-1"),
        ({"folds": 1}, "folds=1"),
        ({"folds": 7, "split": "auto"}, "7 folds"),
        ({"folds": 2, "split": "official"}, "folds=2 with"),
        ({"valid_share": 0.6, "test_share": 0.4}, "together below 1"),
        ({"valid_share": -0.1}, "valid_share=-0.1"),
        ({"workers": 0}, "workers=0"),
        ({"split": "seeded", "valid_share": 0.4, "test_share": 0.59}, "too few"),
    ],
)
def test_bad_arguments(tmp_path, more, message):
    refused(tmp_path, write_labels(tmp_path / "own"), message, **more)


# ---- bad folders and files


def test_wrong_and_empty_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in ("nowhere", "empty"):
        refused(tmp_path, tmp_path / folder, folder, "CelebA-HQ-img/{id}.jpg", "labels/{name}.png")
    for sub in ("images", "labels"):
        (tmp_path / "hollow" / sub).mkdir(parents=True)
    refused(tmp_path, tmp_path / "hollow", "hollow is empty")
    (tmp_path / "half" / "images").mkdir(parents=True)
    refused(tmp_path, tmp_path / "half", "labels is missing")
    (tmp_path / "bare" / IMAGES).mkdir(parents=True)
    refused(tmp_path, tmp_path / "bare", f"{ANNO} is missing")
    write_labels(tmp_path / "parent" / "inner")
    refused(tmp_path, tmp_path / "parent", f"Did you mean {tmp_path / 'parent' / 'inner'}?")
    refused(tmp_path, [], "no folder of faces given")
    (tmp_path / "file").write_text("x")
    refused(tmp_path, tmp_path / "file", "is not a folder")


def test_all_missing_partners_are_listed_at_once(tmp_path):
    data = write_celeba(tmp_path / "raw", range(20), parts=("skin", "hair"))
    (data / IMAGES / "3.jpg").unlink()
    for part in ("skin", "hair"):
        (data / ANNO / "0" / f"00005_{part}.png").unlink()
    message = refused(
        tmp_path,
        data,
        "2 problems",
        "00003_",
        "and 1 more masks of the face '3' without its image",
        "5.jpg has no masks",
    )
    assert message.count("\n- ") == 2
    for id in range(6, 20):
        (data / IMAGES / f"{id}.jpg").unlink()
    message = refused(tmp_path, data, "16 problems", "and 6 more")
    assert message.count("\n- ") == 11


def test_missing_partners_of_label_maps(tmp_path):
    data = write_labels(tmp_path / "own")
    (data / "images" / "b.jpg").unlink()
    (data / "labels" / "e.png").unlink()
    refused(tmp_path, data, "b.png of the face 'b' without its image", "e.jpg has no masks")


def test_duplicated_ids(tmp_path):
    own, raw = write_labels(tmp_path / "own"), write_celeba(tmp_path / "raw", [1, 2])
    shutil.copy(own / "images" / "c.jpg", own / "images" / "c.png")
    refused(tmp_path, own, "two files for the id 'c'")
    shutil.copy(raw / IMAGES / "2.jpg", raw / IMAGES / "00002.jpg")
    refused(tmp_path, raw, "two files for the id '2'")
    (raw / IMAGES / "00002.jpg").unlink()
    shutil.copy(raw / ANNO / "0" / "00002_hair.png", raw / ANNO / "0" / "2_hair.png")
    refused(tmp_path, raw, "second hair mask of the id '2'")
    (raw / ANNO / "0" / "2_hair.png").unlink()
    refused(tmp_path, [raw, tmp_path / "own" / ".." / "raw"], "given twice")


def test_same_names_in_two_folders_stay_apart(tmp_path):
    one = write_labels(tmp_path / "x" / "own", seed=1)
    two = write_labels(tmp_path / "y" / "own", seed=2)
    faces = build(tmp_path, [one, two])
    assert faces.index.id.is_unique
    assert faces.index.id[[0, 6]].tolist() == ["own/a", "own-2/a"]


def test_misplaced_and_misnamed_files(tmp_path):
    raw = write_celeba(tmp_path / "raw", [1, 2])
    (raw / ANNO / "1").mkdir()
    shutil.copy(raw / ANNO / "0" / "00002_hair.png", raw / ANNO / "1" / "00002_nose.png")
    shutil.copy(raw / ANNO / "0" / "00002_hair.png", raw / ANNO / "0" / "00002_beard.png")
    shutil.copy(raw / IMAGES / "2.jpg", raw / IMAGES / "me.jpg")
    refused(
        tmp_path,
        raw,
        "3 problems",
        "belongs into the folder",
        "00002_beard.png",
        "me.jpg: the name of an image is its number",
    )


@pytest.mark.parametrize("where", ["images/c.jpg", "labels/c.png"])
@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "folder"])
def test_unreadable_files(tmp_path, where, kind):
    data = write_labels(tmp_path / "own", size=64)
    path = data / where
    content = path.read_bytes()
    if kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(
            {"truncated": content[: len(content) // 2], "text": b"hello", "empty": b""}[kind]
        )
    refused(tmp_path, data, str(path), "not a readable image")


def test_truncation_anywhere_is_named_or_harmless(tmp_path):
    data = write_celeba(tmp_path / "raw", [0], parts=("skin",))
    for path, read in (
        (data / IMAGES / "0.jpg", lambda p: read_image(p, 16)),
        (data / ANNO / "0" / "00000_skin.png", lambda p: read_part(p, 16)),
    ):
        content, expected = path.read_bytes(), read(path)
        for length in range(0, len(content), max(1, len(content) // 60)):
            path.write_bytes(content[:length])
            try:
                result = read(path)
            except InputError as error:
                assert str(path) in str(error)
            else:
                assert all(np.array_equal(a, b) for a, b in zip(result, expected)), length
        path.write_bytes(content)


def test_bad_files_are_all_reported(tmp_path):
    data = write_labels(tmp_path / "own", [f"{i:03d}" for i in range(70)], size=8)
    for i in range(0, 70, 5):
        (data / "images" / f"{i:03d}.jpg").write_text("no image")
    message = refused(tmp_path, data, "14 problems", "000.jpg", "and 4 more", workers=2)
    assert "or more" not in message
    for i in range(70):
        (data / "images" / f"{i:03d}.jpg").write_text("no image")
    for i in range(70, 200):
        shutil.copy(data / "images" / "000.jpg", data / "images" / f"{i:03d}.jpg")
        shutil.copy(data / "labels" / "000.png", data / "labels" / f"{i:03d}.png")
    refused(tmp_path, data, "or more problems")


def test_masks_of_other_sizes(tmp_path):
    raw, own = write_celeba(tmp_path / "raw", [1, 2]), write_labels(tmp_path / "own", size=24)
    Image.new("L", (30, 30)).save(raw / ANNO / "0" / "00002_hair.png")
    refused(tmp_path, raw, "00002_hair.png is 30x30", "is 40x40")
    for path in (raw / ANNO / "0").glob("00002_*"):
        Image.new("L", (40, 30)).save(path)
    refused(tmp_path, raw, "is 40x30", "2.jpg is 40x40")
    Image.new("L", (24, 18)).save(own / "labels" / "d.png")
    refused(tmp_path, own, "d.png is 24x18", "d.jpg is 24x24")
    Image.new("L", (12, 12)).save(
        own / "labels" / "d.png"
    )  # another size of the same shape is fine
    assert len(build(tmp_path, own)) == 6


@pytest.mark.parametrize(
    "value,dtype", [(19, np.uint8), (255, np.uint8), (300, np.uint16), (65535, np.uint16)]
)
def test_label_outside_the_classes(tmp_path, value, dtype):
    data = write_labels(tmp_path / "own", size=64)
    labels = np.zeros((64, 64), dtype)
    labels[5, 5] = value  # a single pixel, which nearest sampling at 16 skips
    Image.fromarray(labels).save(data / "labels" / "b.png")
    refused(tmp_path, data, f"b.png holds the label {value}", "0-18", "label_map")


def test_label_map_must_be_complete_and_ours(tmp_path):
    data = write_labels(tmp_path / "own")
    refused(
        tmp_path, data, "holds the label 2", "known labels are 0-1", label_map={0: 0, 1: "skin"}
    )
    refused(tmp_path, data, "'nosering'", "is no class", label_map={0: "nosering"})
    refused(tmp_path, data, "19", "is no class", label_map={0: 19})
    refused(tmp_path, data, "'skin' is no label value", label_map={"skin": 0})
    refused(tmp_path, data, "-1 is no label value", label_map={-1: 0})
    refused(tmp_path, data, "map.json is missing", label_map=tmp_path / "map.json")
    (tmp_path / "map.csv").write_text("0,skin\n0,hair\n")
    refused(tmp_path, data, "maps a value twice", label_map=tmp_path / "map.csv")
    (tmp_path / "map.csv").write_text("0,skin\n1 hair\n")
    refused(tmp_path, data, "line 2: each line is `value,class`", label_map=tmp_path / "map.csv")
    (tmp_path / "map.csv").write_text("O,background\n1,skin\n")  # a letter is no header
    refused(tmp_path, data, "no column 'value'", label_map=tmp_path / "map.csv")
    (tmp_path / "map.json").write_text("3")
    refused(tmp_path, data, "is 3: give", label_map=tmp_path / "map.json")
    refused(
        tmp_path,
        write_celeba(tmp_path / "raw", [1]),
        "label_map is for images + labels",
        label_map={0: 0},
    )


def test_strange_colours(tmp_path):
    data = write_labels(tmp_path / "own")
    colours = PALETTE[np.zeros((24, 24), int) + 3].copy()
    colours[2, 3] = (1, 2, 3)
    Image.fromarray(colours).save(data / "labels" / "a.png")
    refused(tmp_path, data, "a.png holds the colour (1, 2, 3)")


def test_rotated_and_deep_images(tmp_path):
    data = write_labels(tmp_path / "own", suffix=".png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (24, 24)).save(data / "images" / "a.png", exif=exif)
    Image.fromarray(np.zeros((24, 24), np.uint16)).save(data / "images" / "b.png")
    refused(tmp_path, data, "a.png is marked as rotated", "b.png is an image of mode I;16")


# ---- writing


def test_unwritable_output(tmp_path):
    data = write_labels(tmp_path / "own")
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "set"):
        with pytest.raises(InputError, match="cannot write .*file"):
            build_face_set(out, data, size=16, split="train", progress=False)
    assert (tmp_path / "file").read_text() == "x"


def test_no_space(tmp_path, monkeypatch):
    data = write_labels(tmp_path / "own")
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        refused(tmp_path, data, "no space left on the device", "MB needed")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    refused(tmp_path, data, "no space left on the device", str(tmp_path / "set"))


def test_no_space_midway(tmp_path, monkeypatch):
    data, before = write_labels(tmp_path / "own"), None
    before = build(tmp_path, data).meta["sha256"]

    def full(*args, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(faces_module, "seal_face_set", full)
    with pytest.raises(InputError, match="no space left"):
        build(tmp_path, data, size=24)
    assert not (tmp_path / "set" / ".building").exists()
    # the old set is still there, and whole
    assert open_face_set(tmp_path / "set").meta["sha256"] == before


def test_second_builder_is_refused(tmp_path):
    import fcntl

    data = write_labels(tmp_path / "own")
    (tmp_path / "set").mkdir()
    lock = os.open(tmp_path / "set", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="another job is building"):
        build(tmp_path, data)
    os.close(lock)
    assert len(build(tmp_path, data)) == 6


# ---- parallel, resumed

SLOW_BUILD = """
import sys, time
import fairparse.data.faceset as faces
faces.CHUNK, quick = 4, faces.read_face
def slow(*args): time.sleep(0.02); return quick(*args)
faces.read_face = slow
faces.build_face_set(sys.argv[1], sys.argv[2], size=16, workers=int(sys.argv[3]), progress=False)
"""


def interrupted(out, data, workers):
    "Start a slow build and kill it once three chunks are in its journal"
    job = subprocess.Popen([sys.executable, "-c", SLOW_BUILD, str(out), str(data), str(workers)])
    journal, deadline = out / ".building" / "journal.txt", time.time() + 30
    while not (journal.exists() and journal.read_text().count("\n") >= 3):
        assert job.poll() is None and time.time() < deadline, (
            "the build ended before it could be killed"
        )
        time.sleep(0.005)
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children")
    children = children.read_text().split() if children.exists() else []
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    return children


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_build_is_resumed(tmp_path, monkeypatch, workers):
    data = write_celeba(tmp_path / "raw", range(60), parts=("skin", "hair"))
    whole = build_face_set(tmp_path / "whole", data, size=16, workers=1, progress=False)
    children, out = interrupted(tmp_path / "set", data, workers), tmp_path / "set"
    assert len(children) == (workers if workers > 1 else 0) or not Path("/proc").exists()
    deadline = time.time() + 10
    alive = lambda pid: (
        Path(f"/proc/{pid}/stat").exists()
        and Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    )
    while any(map(alive, children)):
        assert time.time() < deadline, "workers outlive their parent"
    with pytest.raises(InputError, match="holds no face set"):
        open_face_set(out)

    read, quick = [], faces_module.read_face
    monkeypatch.setattr(faces_module, "CHUNK", 4)
    monkeypatch.setattr(
        faces_module, "read_face", lambda *args: read.append(args[0].id) or quick(*args)
    )
    with open(out / ".building" / "journal.txt", "a") as journal:
        journal.write("5")  # a line that was being written
    faces = build_face_set(out, data, size=16, workers=1, progress=False)
    assert 0 < len(read) <= 60 - 3 * 4
    assert len(set(read)) == len(read)
    assert faces.meta["sha256"] == whole.meta["sha256"]
    assert faces.index.equals(whole.index)
    assert sorted(p.name for p in out.iterdir()) == [
        "faces.json",
        "images.npy",
        "index.parquet",
        "masks.npy",
    ]
    open_face_set(out, verify=True)


@pytest.mark.parametrize("change", ["size", "file", "damage", "array"])
def test_only_what_still_holds_is_taken_over(tmp_path, monkeypatch, change):
    data = write_celeba(tmp_path / "raw", range(24), parts=("skin",))
    out = tmp_path / "set"
    size = 16
    interrupted(out, data, 1)
    if change == "size":
        size = 20
    if change == "file":
        shutil.copy(data / IMAGES / "23.jpg", data / IMAGES / "0.jpg")
    if change == "damage":
        array = np.load(out / ".building" / "images.npy", mmap_mode="r+")
        array[0] += 1
        array.flush()
    if change == "array":
        (out / ".building" / "masks.npy").unlink()
    read, quick = [], faces_module.read_face
    monkeypatch.setattr(faces_module, "CHUNK", 4)
    monkeypatch.setattr(
        faces_module, "read_face", lambda *args: read.append(args[0].id) or quick(*args)
    )
    faces = build_face_set(out, data, size=size, workers=1, progress=False)
    assert "0" in read
    if change == "damage":
        assert len(read) <= 24 - 2 * 4
    else:
        assert len(read) == 24
    whole = build_face_set(tmp_path / "whole", data, size=size, workers=1, progress=False)
    assert faces.meta["sha256"] == whole.meta["sha256"]


def test_lost_worker_is_said_and_its_chunks_are_made_later(tmp_path, monkeypatch):
    data = write_celeba(tmp_path / "raw", range(24), parts=("skin",))
    quick = faces_module.read_face
    out = tmp_path / "set"
    monkeypatch.setattr(faces_module, "CHUNK", 4)
    monkeypatch.setattr(
        faces_module, "read_face", lambda *args: os._exit(1) if args[0].id == "20" else quick(*args)
    )
    with pytest.raises(RuntimeError, match="a worker process was ended"):
        build_face_set(out, data, size=16, workers=2, progress=False)
    monkeypatch.setattr(faces_module, "read_face", quick)
    assert (out / ".building").is_dir()
    assert not (out / "faces.json").exists()
    faces = build_face_set(out, data, size=16, workers=2, progress=False)
    assert (faces.masks[20] == plain_merge(data, 20, 16)).all()
    assert not (out / ".building").exists()


def test_workers_change_nothing(tmp_path):
    data = write_celeba(tmp_path / "raw", range(80), parts=("skin", "hair"), size=16, mask_size=16)
    one, three = (
        build_face_set(tmp_path / f"{n}", data, size=16, workers=n, progress=False) for n in (1, 3)
    )
    assert one.meta["sha256"] == three.meta["sha256"]
    assert one.index.equals(three.index)


def test_replacing_a_set(tmp_path):
    first = build(tmp_path, write_labels(tmp_path / "own"))
    second = build(tmp_path, write_labels(tmp_path / "more", "xy"), size=24)
    assert len(second) == 2
    assert open_face_set(tmp_path / "set").size == 24
    assert len(first) == 6
    broken = write_labels(tmp_path / "broken")
    (broken / "images" / "a.jpg").write_text("x")
    with pytest.raises(InputError):
        build(tmp_path, broken)
    assert len(open_face_set(tmp_path / "set")) == 2
    assert not (tmp_path / "set" / ".building").exists()


# ---- looking


def test_describe_and_show(tmp_path):
    import matplotlib

    matplotlib.use("Agg")
    raw, own = write_celeba(tmp_path / "raw", range(10)), write_labels(tmp_path / "own")
    faces = build(tmp_path, raw, extra=own, split="auto", folds=2)
    table = describe_face_set(faces)
    assert table.faces.sum() == 16
    assert len(table) == 4
    assert np.allclose(table[CLASSES].sum(axis=1), 100, atol=0.2)
    rows = faces.index.fold == 1
    row = table[(table.source == "raw") & (table.fold == 1)].iloc[0]
    assert row.faces == 5
    assert row["hair"] == pytest.approx(
        100 * (faces.masks[rows.fillna(False).to_numpy(bool)] == 13).mean(), abs=0.01
    )
    figure = show_faces(faces, [0, 3, 12, 1, 2])
    assert sum(bool(ax.images) for ax in figure.axes) == 5
    assert figure.axes[0].images[0].get_array().shape == (16, 32, 3)
    with pytest.raises(InputError, match="no rows"):
        show_faces(faces, [])
    matplotlib.pyplot.close(figure)


# ---- real samples

REAL = Path(os.environ.get("FAIRPARSE_DATA") or "nowhere")
needs_real = pytest.mark.skipif(
    not (REAL / "CelebAMask-HQ").is_dir(),
    reason="FAIRPARSE_DATA names no folder with CelebAMask-HQ",
)


@needs_real
def test_real_official_counts():
    mapping = read_mapping(REAL / "CelebAMask-HQ" / MAPPING)
    splits, counts = np.unique(official_split(list(mapping.values())), return_counts=True)
    assert dict(zip(splits.tolist(), counts.tolist())) == {
        "train": 24183,
        "valid": 2993,
        "test": 2824,
    }


@needs_real
def test_real_faces(tmp_path):
    raw, merged = REAL / "CelebAMask-HQ", REAL / "merged_labels"
    faces = build_face_set(tmp_path / "set", raw, extra=merged, size=64, folds=5, progress=False)
    assert len(faces) == 700
    assert faces.index.source.value_counts().to_dict() == {
        "merged_labels": 513,
        "CelebAMask-HQ": 187,
    }
    assert faces.index.fold.value_counts().sort_index().tolist() == [38, 38, 37, 37, 37]
    assert len(faces.rows("valid")) == 51
    assert len(faces.attributes) == 40
    lines = (raw / ATTRIBUTES).read_text().splitlines()
    line = next(line for line in lines if line.startswith("17.jpg"))
    row = int(np.flatnonzero(faces.index.id == "CelebAMask-HQ/17")[0])
    assert faces.attribute_values()[row].tolist() == [(int(v) + 1) // 2 for v in line.split()[1:]]
    assert (faces.attribute_values()[187:] == -1).all()
    for id in (17, 65):
        place = np.flatnonzero(faces.index.id == f"CelebAMask-HQ/{id}")[0]
        assert (faces.masks[place] == plain_merge(raw, id, 64)).all()
    name = faces.index.id[400].split("/")[1]
    labels = Image.open(merged / "labels" / f"{name}.png").resize((64, 64), Image.NEAREST)
    assert (faces.masks[400] == np.array(labels)).all()

    table = describe_face_set(faces)
    pixels = table[CLASSES].mul(table.faces, axis=0).groupby(table.source).sum()
    shares = pixels.div(table.groupby("source").faces.sum(), axis=0)
    assert ((shares["skin"] > 20) & (shares["skin"] < 32)).all()
    assert (shares["hair"] > 25).all()
    assert shares["nose"].between(1.5, 2.7).all()

    photo = np.asarray(Image.open(raw / IMAGES / "17.jpg").convert("RGB"), float)
    means = photo.reshape(64, 8, 64, 8, 3).mean((1, 3))
    assert abs(faces.images[row] - means).mean() < 4
    # attributes and masks belong to the same faces
    with_hat = faces.attribute_values(["Wearing_Hat"])[:187, 0] == 1
    has_hat = (faces.masks[:187] == CLASSES.index("hat")).any((1, 2))
    assert has_hat[with_hat].mean() > 0.6 > 0.1 > has_hat[~with_hat].mean()


@needs_real
def test_real_official_split_of_the_sample():
    split, fold = assign_splits(scan_sources(REAL / "CelebAMask-HQ"), "official")
    assert len(split) == 187
    assert (split == "test").sum() == 9
    assert all(f is None for f in fold)


def test_part_masks_that_are_black_on_white_are_refused(tmp_path):
    "No part covers 95 % of a picture, and yet no pixel is left for the background"
    data = write_celeba(tmp_path / "raw", [0, 1], parts=("skin", "hair"))
    for path in (data / ANNO).rglob("*.png"):
        mask = np.full((40, 40), 255, np.uint8)
        rows = np.s_[2:14] if "hair" in path.name else np.s_[14:36]
        mask[rows, 10:30] = 0
        Image.fromarray(mask).save(path)
    refused(tmp_path, data, "no face any background", "invert them")
