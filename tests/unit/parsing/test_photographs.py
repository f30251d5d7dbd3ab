"Pictures as people have them: sizes, modes, orientation, boxes, names, broken files, which parser"

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import make_faces, make_parser
from PIL import Image

import fairparse.parsing.photographs as photographs
from fairparse.core.records import HISTORY, write_table
from fairparse.core.runs import InputError, hash_file, read_json, write_json
from fairparse.data.labels import CLASSES, NUM_CLASSES, PALETTE
from fairparse.data.map_folders import read_map
from fairparse.data.pixels import label_table, read_image, read_label_map, read_upright
from fairparse.parsing.photographs import class_areas, class_palette, lay_over, parse_images
from fairparse.parsing.picture_names import assign_boxes, describe_left_aside, list_pictures
from fairparse.parsing.placing import enlarge_labels, place, read_box, to_square
from fairparse.parsing.predict import find_parser, predict_masks, read_origin
from fairparse.parsing.unet import save_parser


@pytest.fixture(scope="module")
def network():
    return make_parser().eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, network):
    "A parser of 32 px with random weights, on disk"
    out = tmp_path_factory.mktemp("parser")
    save_parser(network, out)
    write_json(
        out / "run.json",
        {"parameters": {"objective": "single"}, "faces": "CelebAMask-HQ", "inputs": {}},
    )
    return out


def picture(width=40, height=56, seed=0):
    "Blocks of the classes' colours: a random network gives them different classes"
    colours = PALETTE[np.random.default_rng(seed).integers(0, NUM_CLASSES, (4, 4))]
    return Image.fromarray(colours).resize((width, height), Image.Resampling.NEAREST)


def parsed(folder, pictures, out, faces="whole", **options):
    return parse_images(
        pictures, out, folder, progress=False, threads=1, device="cpu", faces=faces, **options
    )


def labels_of(path):
    return np.asarray(Image.open(path))


# pictures


def test_a_rotated_photograph_is_turned_upright(tmp_path, folder):
    upright = picture()
    upright.save(tmp_path / "upright.png")
    for tag, turn in (
        (6, Image.Transpose.ROTATE_90),
        (3, Image.Transpose.ROTATE_180),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (5, Image.Transpose.TRANSPOSE),
    ):
        exif = Image.Exif()
        exif[0x0112] = tag
        upright.transpose(turn).save(tmp_path / f"turned{tag}.png", exif=exif)
        assert (
            np.asarray(read_upright(tmp_path / f"turned{tag}.png")) == np.asarray(upright)
        ).all()
    records, failed = parsed(
        folder, [tmp_path / "upright.png", tmp_path / "turned6.png"], tmp_path / "out"
    )
    assert not failed and (records[1]["width"], records[1]["height"]) == (40, 56)
    for ending in (".labels.png", ".overlay.png"):
        assert (
            labels_of(tmp_path / f"out/upright{ending}")
            == labels_of(tmp_path / f"out/turned6{ending}")
        ).all()


def test_transparent_pixels_are_white(tmp_path):
    rgba = np.dstack(
        [
            np.full((2, 3, 3), [200, 0, 40], np.uint8),
            np.array([[0, 255, 255], [0, 0, 51]], np.uint8),
        ]
    )
    for name in ("a.png", "a.webp", "a.tiff"):
        Image.fromarray(rgba).save(tmp_path / name, lossless=True)
        seen = np.asarray(read_upright(tmp_path / name))
        assert (seen[0, 0] == 255).all()
        assert seen[0, 1].tolist() == [200, 0, 40]
        assert abs(seen[1, 2].astype(int) - [244, 204, 212]).max() <= 1
    palette = Image.fromarray(np.array([[0, 1]], np.uint8))
    palette.putpalette([9, 9, 9, 10, 20, 30])
    palette.save(tmp_path / "p.png", transparency=0)
    assert np.asarray(read_upright(tmp_path / "p.png"))[0].tolist() == [[255] * 3, [10, 20, 30]]
    Image.fromarray(np.array([[[7, 255], [7, 0]]], np.uint8), "LA").save(tmp_path / "la.png")
    assert np.asarray(read_upright(tmp_path / "la.png"))[0].tolist() == [[7] * 3, [255] * 3]


@pytest.mark.parametrize("count", [2, 19, 40, 256])
def test_no_two_classes_have_one_colour(count):
    colours = class_palette(list(range(count)))
    assert colours.shape == (count, 3) and colours.dtype == np.uint8
    assert len(np.unique(colours, axis=0)) == count
    assert np.array_equal(colours[:19], PALETTE[:count])


def test_greys_palettes_and_print_colours(tmp_path):
    grey = np.arange(0, 250, 10, dtype=np.uint8).reshape(5, 5)
    Image.fromarray(grey).save(tmp_path / "l.png")
    Image.fromarray((grey.astype(np.uint16) * 257)).save(tmp_path / "sixteen.png")
    Image.fromarray((grey.astype(np.uint16) * 257)).save(tmp_path / "sixteen.tiff")
    for name in ("l.png", "sixteen.png", "sixteen.tiff"):
        assert (np.asarray(read_upright(tmp_path / name)) == grey[..., None]).all(), name
    Image.fromarray(grey > 100).save(tmp_path / "one.png")
    assert set(np.unique(np.asarray(read_upright(tmp_path / "one.png")))) == {0, 255}
    Image.new("CMYK", (3, 3), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    red = np.asarray(read_upright(tmp_path / "cmyk.jpg"))[1, 1].astype(int)
    assert red[0] > 200 and red[1:].max() < 60


@pytest.mark.parametrize("value", [np.zeros((3, 3), np.float32), np.zeros((3, 3), np.int32)])
def test_32_bits_are_refused(tmp_path, value):
    Image.fromarray(value).save(tmp_path / "x.tiff")
    with pytest.raises(InputError, match="x.tiff has 32 bits"):
        read_upright(tmp_path / "x.tiff")


# geometry


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (31, 33), (500, 20)])
def test_every_shape_comes_back_at_its_size(tmp_path, folder, size):
    picture(*size).save(tmp_path / "a.png")
    for fit in ("pad", "stretch"):
        (record,), failed = parsed(folder, [tmp_path / "a.png"], tmp_path / fit, fit=fit)
        assert not failed and labels_of(tmp_path / fit / "a.labels.png").shape == size[::-1]
        assert sum(a["pixels"] for a in record["areas"].values()) == size[0] * size[1]


def test_a_square_of_the_parsers_size_is_parsed_as_a_face_set_is(tmp_path, folder, network):
    picture(32, 32).save(tmp_path / "a.png")
    parsed(folder, [tmp_path / "a.png"], tmp_path / "out")
    assert (
        labels_of(tmp_path / "out/a.labels.png")
        == predict_masks(network, read_image(tmp_path / "a.png", 32)[0][None])[0]
    ).all()


@pytest.mark.parametrize("size", [(128, 128), (131, 257), (20, 20)])
def test_the_filter_is_that_of_the_face_sets(tmp_path, size):
    picture(*size).save(tmp_path / "a.png")
    square, part, inner = to_square(
        read_upright(tmp_path / "a.png"), place(*size, fit="stretch"), 64
    )
    assert (square == read_image(tmp_path / "a.png", 64)[0]).all()
    assert part == (0, 0, *size)
    assert inner == (0, 0, 64, 64)


def test_padding_keeps_proportions_and_repeats_edges():
    square, part, inner = to_square(picture(80, 40), place(80, 40), 32)
    assert inner == (0, 8, 32, 24)
    assert (square[:8] == square[8]).all()
    assert (square[24:] == square[23]).all()
    tall, _, inner = to_square(picture(40, 80), place(40, 80), 32)
    assert inner == (8, 0, 24, 32) and tall.shape == (32, 32, 3)


def test_a_box_is_cut_out_with_its_margin_and_pasted_back(tmp_path, folder, network):
    scene = picture(200, 160)
    box, region = (60, 50, 100, 100), place(200, 160, (60, 50, 100, 100))
    side = region[2] - region[0]
    assert side == region[3] - region[1] == round(1.35 * 50)
    assert region[0] == round(80 - side / 2)
    assert region[1] == round(75 - side / 2 - 0.055 * side)
    scene.save(tmp_path / "a.png")
    scene.crop(region).save(tmp_path / "crop.png")
    (record,), _ = parsed(folder, [tmp_path / "a.png"], tmp_path / "out", box="60,50,100,100")
    parsed(folder, [tmp_path / "crop.png"], tmp_path / "out")
    labels = labels_of(tmp_path / "out/a.labels.png")
    assert record["box"] == box and record["region"] == region
    assert (
        labels[region[1] : region[3], region[0] : region[2]]
        == labels_of(tmp_path / "out/crop.labels.png")
    ).all()
    labels = labels.copy()
    labels[region[1] : region[3], region[0] : region[2]] = 0
    assert not labels.any()


def test_a_square_may_reach_beyond_the_picture():
    square, part, inner = to_square(picture(100, 100), place(100, 100, (70, 0, 100, 40)), 32)
    assert part[1] == 0
    assert part[2] == 100
    assert inner[1] > 0
    assert inner[2] < 32
    assert (square[: inner[1]] == square[inner[1]]).all()


@pytest.mark.parametrize(
    "box", ["1,2,3", "a,b,c,d", "5,5,5,9", "9,1,2,5", "0,0,nan,5", (1, 2), None]
)
def test_boxes_that_are_none_are_refused(box):
    with pytest.raises(InputError, match="face box"):
        read_box(box)


@pytest.mark.parametrize("box", ["0,0,41,30", "-1,0,20,30", "300,300,400,400"])
def test_a_box_outside_of_the_picture_is_refused(tmp_path, folder, box):
    picture(40, 56).save(tmp_path / "a.png")
    records, failed = parsed(folder, [tmp_path / "a.png"], tmp_path / "out", box=box)
    assert not records
    assert "not inside the picture, which is 40x56" in failed[str(tmp_path / "a.png")]
    assert not list((tmp_path / "out").glob("a.*"))


def test_labels_are_enlarged_in_bands_as_at_once():
    probs = torch.rand(19, 9, 7, generator=torch.Generator().manual_seed(0))
    for size in ((90, 70), (9, 7), (4, 3), (1, 50)):
        whole = (
            F.interpolate(probs[None], size, mode="bilinear", antialias=True)[0].argmax(0).numpy()
        )
        for values in (1, 19 * size[1] * 4, 2**24):
            assert (enlarge_labels(probs, *size, values=values) == whole).mean() > 0.999


# outputs


def test_the_files_of_a_picture(tmp_path, folder):
    scene = picture(90, 70)
    scene.save(tmp_path / "anna.jpg", quality=95)
    (record,), _ = parsed(folder, [tmp_path / "anna.jpg"], tmp_path / "out", opacity=0.5)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        ".lock",
        "anna.areas.json",
        "anna.labels.png",
        "anna.overlay.png",
        "run.json",
    ]
    labels = Image.open(tmp_path / "out/anna.labels.png")
    values = np.asarray(labels)
    assert labels.mode == "P"
    assert (np.asarray(labels.convert("RGB")) == PALETTE[values]).all()
    assert values.max() < NUM_CLASSES
    assert (read_label_map(tmp_path / "out/anna.labels.png", 70, label_table())[0] <= 18).all()
    labels.convert("RGB").quantize().save(tmp_path / "packed.png")  # as optimisers deal places
    for path in (tmp_path / "packed.png", tmp_path / "out/anna.labels.png"):
        assert np.array_equal(read_map(path, label_table())[0], values)
    saved = read_json(tmp_path / "out/anna.areas.json")
    assert {c: a["pixels"] for c, a in saved["areas"].items()} == {
        c: int((values == i).sum()) for i, c in enumerate(CLASSES)
    }
    assert sum(a["share"] for a in saved["areas"].values()) == pytest.approx(1)
    assert saved["parser"]["sha256"] == hash_file(folder / "model.safetensors")
    assert saved["parser"]["trained_on"] == ["CelebAMask-HQ"]
    assert saved["parser"]["warning"] is None
    photo, over = (
        np.asarray(read_upright(tmp_path / "anna.jpg")).astype(int),
        np.asarray(Image.open(tmp_path / "out/anna.overlay.png")).astype(int),
    )
    expected = np.where((values == 0)[..., None], photo, (photo + PALETTE[values]) / 2)
    assert abs(over - expected).max() <= 2
    assert read_json(tmp_path / "out/run.json")["parsed"] == 1


@pytest.mark.parametrize("opacity", [0.0, 1.0])
def test_overlays_of_no_and_full_opacity(opacity):
    labels = np.array([[0, 3], [18, 1]], np.uint8)
    over = np.asarray(lay_over(Image.new("RGB", (2, 2), (10, 20, 30)), labels, PALETTE, opacity))
    assert over[0, 0].tolist() == [10, 20, 30]
    assert (over[labels > 0] == (PALETTE[labels[labels > 0]] if opacity else [10, 20, 30])).all()


def test_areas_of_an_empty_class_are_zero():
    areas = class_areas(np.array([[0, 2, 2]], np.uint8), ["background", "skin", "nose"])
    assert areas["skin"] == {"label": 1, "pixels": 0, "share": 0.0}
    assert areas["nose"]["share"] == pytest.approx(2 / 3)


def test_batches_equal_singles(tmp_path, folder):
    for i, size in enumerate([(40, 56), (56, 40), (32, 32), (90, 31), (33, 64)]):
        picture(*size, seed=i).save(tmp_path / f"{i}.png")
    parsed(folder, [tmp_path], tmp_path / "out/together", batch_size=3)
    parsed(folder, [tmp_path / f"{i}.png" for i in range(5)], tmp_path / "out/alone", batch_size=1)
    for i in range(5):
        assert (
            labels_of(tmp_path / f"out/together/{i}.labels.png")
            == labels_of(tmp_path / f"out/alone/{i}.labels.png")
        ).mean() > 0.999


def test_large_pictures_share_no_batch(tmp_path, folder, monkeypatch):
    for i in range(4):
        picture(60, 60, seed=i).save(tmp_path / f"{i}.png")
    sizes, real = [], photographs.parse_photos
    monkeypatch.setattr(photographs, "PIXELS", 2 * 60 * 60)
    monkeypatch.setattr(
        photographs,
        "parse_photos",
        lambda parser, images, regions: sizes.append(len(images)) or real(parser, images, regions),
    )
    records, _ = parsed(folder, [tmp_path], tmp_path / "out")
    assert len(records) == 4 and sizes == [2, 2]


# files and names


def test_folders_are_searched_and_come_back(tmp_path, folder):
    (tmp_path / "photos/inner").mkdir(parents=True)
    (tmp_path / "photos/.hidden").mkdir()
    for name in ("b.png", "inner/b.png", ".hidden/c.png", ".d.png"):
        picture().save(tmp_path / "photos" / name)
    (tmp_path / "photos/notes.txt").write_text("text")
    (tmp_path / "photos/e.heic").write_bytes(b"x")
    records, failed = parsed(
        folder, [tmp_path / "photos"], tmp_path / "photos"
    )  # outputs beside the pictures
    assert not failed
    assert {r["picture"] for r in records} == {
        str(tmp_path / "photos" / n) for n in ("b.png", "inner/b.png")
    }
    assert (tmp_path / "photos/inner/b.areas.json").is_file()
    assert list_pictures([tmp_path / "photos"])[0].keys() == {"b", "inner/b"}
    again, failed = parsed(folder, [tmp_path / "photos"], tmp_path / "photos")
    assert len(again) == 2 and not failed
    aside = read_json(tmp_path / "photos/run.json")["left_aside"]
    assert aside[".txt"] == 1 and aside[".heic"] == 1 and aside["outputs of an earlier run"] == 6


def test_what_is_left_aside_is_told(tmp_path, folder, capsys):
    picture().save(tmp_path / "a.png")
    parsed(folder, [tmp_path], tmp_path / "out")
    assert "left aside" not in capsys.readouterr().err
    for name in ("1.HEIC", "2.heic", "notes.txt", "README"):
        (tmp_path / name).write_bytes(b"x")
    parsed(folder, [tmp_path], tmp_path / "out")  # its own outputs are inside of the folder
    assert (
        "left aside: 2 .heic, 1 without a file ending, 1 .json, 1 .txt "
        "(not read: pictures among them must be converted to JPEG or PNG); "
        "3 outputs of an earlier run"
    ) in capsys.readouterr().err
    assert describe_left_aside({}) == ""


def test_two_pictures_never_write_one_file(tmp_path, folder):
    for name in ("anna.png", "anna.bmp", "Ben.png", "ben.bmp"):
        picture().save(tmp_path / name)
    named, _ = list_pictures([tmp_path, tmp_path / "anna.png"])
    assert sorted(named) == ["Ben.png", "anna.bmp", "anna.png", "ben.bmp"]
    for sub in ("one", "two"):
        (tmp_path / sub).mkdir()
        picture().save(tmp_path / sub / "a.png")
    with pytest.raises(InputError, match="would write the same files"):
        parsed(folder, [tmp_path / "one", tmp_path / "two/a.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_outputs_of_another_picture_are_kept(tmp_path, folder):
    for sub, seed in (("one", 1), ("two", 2)):
        (tmp_path / sub).mkdir()
        picture(seed=seed).save(tmp_path / sub / "a.png")
        picture(seed=seed).save(tmp_path / sub / f"only{seed}.png")
    parsed(folder, [tmp_path / "one"], tmp_path / "out")
    before = hash_file(tmp_path / "out/a.labels.png")
    records, failed = parsed(folder, [tmp_path / "two"], tmp_path / "out")
    assert len(records) == 1
    assert "is of another picture" in failed[str(tmp_path / "two/a.png")]
    assert hash_file(tmp_path / "out/a.labels.png") == before
    assert read_json(tmp_path / "out/run.json")["failed"] == failed


def test_a_broken_picture_does_not_stop_the_others(tmp_path, folder):
    for name in ("a.png", "z.png"):
        picture().save(tmp_path / name)
    picture(400, 400, seed=3).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:900])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    records, failed = parsed(folder, [tmp_path], tmp_path / "out")
    assert len(records) == 2
    assert {p.rpartition("/")[2] for p in failed} == {
        "cut.jpg",
        "text.png",
        "empty.png",
    }
    assert all("not a readable image" in reason for reason in failed.values())
    assert not [
        p
        for p in (tmp_path / "out").iterdir()
        if p.name.startswith((".a", ".cut", "cut", "text", "empty"))
    ]


def test_a_table_of_boxes(tmp_path, folder):
    for name in ("a.png", "b.png", "c.png"):
        picture(100, 100).save(tmp_path / name)
    (tmp_path / "boxes.csv").write_text("id,x0,y0,x1,y1\na,20,20,60,70\nb.png,30,10,60.5,60\n")
    records, failed = parsed(folder, [tmp_path], tmp_path / "out", boxes=tmp_path / "boxes.csv")
    assert [r["box"] for r in records] == [
        (20, 20, 60, 70),
        (30, 10, 60.5, 60),
    ]
    assert "no face box" in failed[str(tmp_path / "c.png")]
    with pytest.raises(InputError, match="no picture is called 'b.png'"):
        assign_boxes({"a": tmp_path / "a.png"}, None, tmp_path / "boxes.csv")
    with pytest.raises(InputError, match="not both"):
        assign_boxes({}, "1,2,3,4", tmp_path / "boxes.csv")


@pytest.mark.parametrize(
    "table",
    [
        "id, x0, y0, x1, y1\na.png, 1, 2, 3, 4\n",
        '"ID" ;"X0" ;"Y0";"X1" ;"Y1"\n"a.png" ;1;2;3;4\n',
        "score,y1,x1,y0,x0,id\n0.9,4,3,2,1,a.png\n",
        ",id,x0,y0,x1,y1\n0,a.png,1,2,3,4\n",
    ],
)
def test_columns_of_boxes_are_found_by_name(tmp_path, table):
    (tmp_path / "boxes.csv").write_text(table)
    chosen = assign_boxes({"a": tmp_path / "a.png"}, None, tmp_path / "boxes.csv")
    assert chosen == {"a": (1, 2, 3, 4)}


def test_a_row_belongs_to_one_picture(tmp_path):
    paths = ["a.jpg", "a.png", "b.jpg", "sub/b.jpg", "sub/c.jpg"]
    named = {
        "a.jpg": tmp_path / "a.jpg",
        "a.png": tmp_path / "a.png",
        "b": tmp_path / "b.jpg",
        "sub/b": tmp_path / "sub/b.jpg",
        "sub/c": tmp_path / "sub/c.jpg",
    }
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        picture().save(tmp_path / path)
    assert list_pictures([tmp_path])[0] == named

    def boxes(*ids):
        rows = "".join(f"{id},{i},{i},{i + 9},{i + 9}\n" for i, id in enumerate(ids))
        (tmp_path / "boxes.csv").write_text("id,x0,y0,x1,y1\n" + rows)
        return assign_boxes(named, None, tmp_path / "boxes.csv")

    assert list(boxes("a.png", "a.jpg", "c", "b", "sub/b.jpg")) == [
        *("a.png", "a.jpg", "sub/c", "b", "sub/b"),
    ]
    with pytest.raises(InputError, match="'a' could be .*/a.jpg or .*/a.png"):
        boxes("a")
    with pytest.raises(InputError, match="'b.jpg' could be .*/b.jpg or .*sub/b.jpg"):
        boxes("b.jpg")
    with pytest.raises(InputError, match="no picture is called 'd' .nor 1 more"):
        boxes("d", "e", "c")


@pytest.mark.parametrize(
    "text, message",
    [
        ("id,x0\na,1\n", "boxes.csv has no column 'y0': it has .'id', 'x0'."),
        ("id,x0,y0,x1,y1\na,1,2,3,4\na,1,2,3,4\n", "line 3: two rows"),
        ("id,x0,y0,x1,y1\na,1,2,x,4\n", "boxes.csv, line 2: .*four numbers.*'x'"),
        ("id,x0,y0,x1,y1\na,1,2,,4\n", "boxes.csv, line 2: .*four numbers.*''"),
        ("id,x0,y0,x1,y1\na,1,2,3\n", "line 2 has 4 values for 5 columns"),
        ("id,x0,y0,x1,y1\na,1,2,3,4\na.png,1,2,3,4\n", "'a' and 'a.png' are two rows for"),
        ("", "is empty"),
    ],
)
def test_tables_that_are_none(tmp_path, text, message):
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        assign_boxes({"a": tmp_path / "a.png"}, None, tmp_path / "boxes.csv")


def test_requests_that_are_wrong_write_nothing(tmp_path, folder):
    picture().save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    for pictures, options, message in (
        ([tmp_path / "b.png"], {}, "no file or folder"),
        ([tmp_path / "empty"], {}, "no picture"),
        ([], {}, "no picture"),
        ([tmp_path / "a.png"], {"opacity": 1.5}, "opacity"),
        ([tmp_path / "a.png"], {"fit": "crop"}, "fit"),
        ([tmp_path / "a.png"], {"margin": 0.5}, "margin"),
        ([tmp_path / "a.png"], {"which": "best"}, "best.safetensors is missing"),
    ):
        with pytest.raises(InputError, match=message):
            parsed(folder, pictures, tmp_path / "out", **options)
    with pytest.raises(InputError, match="no parser"):
        parsed(tmp_path / "empty", [tmp_path / "a.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_of_other_jobs_and_inputs_are_not_overwritten(tmp_path, folder):
    picture().save(tmp_path / "a.png")
    picture().save(tmp_path / "a.overlay.png")
    before = hash_file(folder / "run.json")
    with pytest.raises(InputError, match="another job"):
        parsed(folder, [tmp_path / "a.png"], folder)
    assert hash_file(folder / "run.json") == before
    with pytest.raises(InputError, match="would be overwritten"):
        parsed(folder, [tmp_path / "a.png", tmp_path / "a.overlay.png"], tmp_path)


def test_a_face_that_is_too_small_is_told(tmp_path, folder, monkeypatch):
    picture().save(tmp_path / "a.png")
    for label, told in ((0, True), (1, False)):
        monkeypatch.setattr(
            photographs,
            "parse_photos",
            lambda parser, images, regions: [
                np.full((i.height, i.width), label, np.uint8) for i in images
            ],
        )
        (record,), _ = parsed(folder, [tmp_path / "a.png"], tmp_path / f"out{label}")
        assert bool(record["note"]) == told
        if told:
            assert record["note"].endswith("; give a face box")
            assert "aligned faces fill 16 % or more" in record["note"]
    monkeypatch.setattr(
        photographs,
        "parse_photos",
        lambda parser, images, regions: [np.zeros((i.height, i.width), np.uint8) for i in images],
    )
    (record,), _ = parsed(folder, [tmp_path / "a.png"], tmp_path / "boxed", box="5,5,30,30")
    assert "give a face box" not in record["note"] and "; check the face box" in record["note"]


# which parser


def put(network, folder, faces=None, miou=None, **run):
    save_parser(network, folder)
    write_json(folder / "run.json", {**({"faces": faces} if faces else {}), **run})
    if miou is not None:
        import pandas as pd

        write_table(
            pd.DataFrame([{c: 0 for c in HISTORY.columns} | {"valid_miou": miou}]),
            folder / "history.parquet",
            HISTORY,
        )
    return folder


def test_parsers_of_real_faces_come_first(tmp_path, network):
    with pytest.raises(InputError, match="fairparse train"):
        find_parser(None, tmp_path)
    demo = put(network, tmp_path / "demo/20_parsers/single/seed0", "procedural faces")
    named_real = put(
        network, tmp_path / "paper/20_parsers/single/seed0", "procedural faces"
    )  # the record counts, not the path
    assert find_parser(None, tmp_path) == named_real
    worse = put(
        network, tmp_path / "sample/20_parsers/linear/seed0", "CelebAMask-HQ, merged_labels", 0.4
    )
    assert find_parser(None, tmp_path) == worse
    better = put(network, tmp_path / "sample/20_parsers/single/seed1", "CelebAMask-HQ", 0.6)
    save_parser(network, tmp_path / "sample/20_parsers/single/seed2")  # not finished: no run.json
    assert find_parser(None, tmp_path) == better
    classifier = put(
        network, tmp_path / "classifier", "family", 0.9
    )  # another network leaves files of the same names
    write_json(
        classifier / "model.json",
        {"what": "face classifier", "classes": ["smile", "none"], "config": {}},
    )
    assert find_parser(None, tmp_path) == better
    own = put(network, tmp_path / "mine", "family", 0.1)
    assert find_parser(None, tmp_path) == own and find_parser(demo, tmp_path) == demo


def test_a_parser_of_drawn_faces_warns(tmp_path, network, capsys):
    drawn = put(network, tmp_path / "parser", "procedural faces")
    picture().save(tmp_path / "a.png")
    (record,), _ = parsed(drawn, [tmp_path / "a.png"], tmp_path / "out")
    assert "drawn (procedural) faces" in capsys.readouterr().err
    assert record["parser"]["procedural"] is True
    assert "drawn" in read_json(tmp_path / "out/a.areas.json")["parser"]["warning"]


def test_origins(tmp_path, network):
    faces = make_faces(tmp_path / "10_faces", 4)
    digest = hash_file(faces.folder / "faces.json")
    here = put(
        network,
        tmp_path / "20_parsers/single/seed0",
        inputs={"/elsewhere/10_faces/faces.json": digest},
    )
    assert read_origin(here).faces == faces.folder and read_origin(here).sources == (
        "made up",
    )  # outputs were moved
    other = put(
        network,
        tmp_path / "20_parsers/single/seed1",
        "CelebAMask-HQ",
        inputs={str(faces.folder / "faces.json"): "0" * 64},
    )
    assert read_origin(other).faces is None and read_origin(other).procedural is False
    bare = tmp_path / "bare"
    save_parser(network, bare)
    assert read_origin(bare).procedural is None and "not recorded" in read_origin(bare).warning
    make_faces(bare / "faces", 4)
    assert read_origin(bare).faces == bare / "faces"


def test_real_faces(tmp_path, real_data):
    "A parser of the sample profile, where there is one, on faces of which it saw two thirds"
    try:
        chosen = find_parser()
    except InputError as error:
        pytest.skip(str(error))
    if read_origin(chosen).procedural is not False:
        pytest.skip("there is no parser of real faces in outputs")
    source = real_data / "CelebAMask-HQ" / "CelebA-HQ-img"
    pictures = sorted(source.glob("*.jpg"))[:6]
    records, failed = parsed(chosen, pictures, tmp_path / "out")
    assert not failed and len(records) == 6
    assert all(r["areas"]["skin"]["share"] > 0.1 and not r["note"] for r in records)
    assert (
        json.loads((tmp_path / "out" / f"{pictures[0].stem}.areas.json").read_text())["width"]
        == 512
    )
