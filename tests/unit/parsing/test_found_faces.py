"Photographs whose faces are found: what is parsed, where it lies, what is said, and a second run"

import weakref

import numpy as np
import pytest
import torch
from helpers import make_parser
from PIL import Image

from fairparse.core.runs import InputError, hash_file, read_json, write_json
from fairparse.data.align import Square
from fairparse.data.find_faces import FoundFace
from fairparse.data.labels import PALETTE
from fairparse.parsing import photographs
from fairparse.parsing.photographs import is_aligned, parse_images
from fairparse.parsing.placing import lay_back, merge_faces, parse_squares
from fairparse.parsing.unet import save_parser


@pytest.fixture(scope="module")
def network():
    return make_parser().eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, network):
    out = tmp_path_factory.mktemp("parser")
    save_parser(network, out)
    write_json(out / "run.json", {"faces": "CelebAMask-HQ", "inputs": {}})
    return out


def face(x, y, side, angle=0.0, score=0.99):
    "A face whose square is about this: eyes and mouth are where `align_face` expects them"
    square = Square(x, y, side, angle)
    points = [(0.375, 0.47), (0.625, 0.47), (0.5, 0.6), (0.4, 0.72), (0.6, 0.72)]
    return FoundFace(square.to_picture(points), score)


class Finder:
    "Finds what it is told, by the picture's width"

    faces: dict = {}

    def __init__(self, device="cpu"):
        self.looked = 0

    def find(self, image):
        return self.faces.get(image.width, [])


@pytest.fixture
def finder(monkeypatch):
    monkeypatch.setattr(photographs, "FaceFinder", Finder)
    monkeypatch.setattr(photographs, "finder_installed", lambda: True)
    monkeypatch.setattr(Finder, "faces", {})
    return Finder.faces


def picture(width=200, height=120, seed=0):
    colours = PALETTE[np.random.default_rng(seed).integers(0, 19, (6, 10))]
    return Image.fromarray(colours).resize((width, height), Image.Resampling.NEAREST)


def parsed(folder, pictures, out, **options):
    return parse_images(pictures, out, folder, progress=False, threads=1, device="cpu", **options)


def labels_of(path):
    return np.asarray(Image.open(path))


# there and back


@pytest.mark.parametrize("angle", [-140, -20, 0, 35])
@pytest.mark.parametrize("side", [20, 64, 150])
def test_labels_come_back_to_their_places(angle, side):
    square = Square(100, 80, side, angle)
    left = torch.zeros(3, 64, 64)
    left[1, :, :32], left[2, :, 32:] = 1, 1
    labels, (x0, y0, x1, y1) = lay_back(left, square, 220, 170)
    whole = merge_faces([(labels, (x0, y0, x1, y1))], 220, 170)
    pixels = np.stack(np.meshgrid(np.arange(220) + 0.5, np.arange(170) + 0.5), -1)
    u, v = np.moveaxis(square.from_picture(pixels), -1, 0)
    inside = (np.minimum(u, v) >= 0) & (np.maximum(u, v) <= 1)
    expected = np.where(inside, np.where(u < 0.5, 1, 2), 0)
    assert (whole == expected).mean() > 0.995
    banded, _ = lay_back(left, square, 220, 170, values=1)
    assert (banded == labels).all()


def test_a_square_that_reaches_beyond_the_picture():
    everywhere = torch.ones(1, 8, 8)
    labels, part = lay_back(torch.cat([0 * everywhere, everywhere]), Square(0, 0, 40), 100, 90)
    assert part == (0, 0, 20, 20) and labels.all()
    labels, part = lay_back(everywhere, Square(-100, 0, 40), 100, 90)
    assert labels.size == 0 and not merge_faces([(labels, part)], 100, 90).any()


def test_the_larger_face_lies_above():
    large = np.full((10, 10), 1, np.uint8), (0, 0, 10, 10)
    small = np.full((10, 10), 2, np.uint8), (5, 0, 15, 10)
    large[0][:, 8:] = 0  # its background hides nothing
    merged = merge_faces([large, small], 20, 10)
    assert merged[0].tolist() == [1] * 8 + [2] * 7 + [0] * 5


def test_batches_of_squares_equal_singles(network):
    squares = [Square(60 + 10 * i, 60, 50 + i, 10 * i) for i in range(5)]
    together = parse_squares(network, picture(), squares, 4)
    for square, (labels, part) in zip(squares, together):
        ((alone, own_part),) = parse_squares(network, picture(), [square], 1)
        assert part == own_part and (labels == alone).mean() > 0.99


# runs


def test_the_faces_of_a_photograph(tmp_path, folder, finder):
    picture().save(tmp_path / "a.png")
    finder[200] = [face(120, 60, 80, 25), face(30, 60, 40)]
    (record,), failed = parsed(folder, [tmp_path / "a.png"], tmp_path / "out")
    labels = labels_of(tmp_path / "out/a.labels.png")
    assert not failed and labels.shape == (120, 200) and len(record["faces"]) == 2
    first, second = record["faces"]
    assert first["square"]["angle"] == pytest.approx(25, abs=1)
    assert second["areas"]["background"]["pixels"] < 45**2
    assert record["region"] is None and not labels[:, 185:].any()
    assert read_json(tmp_path / "out/a.areas.json")["faces"] == record["faces"]

    (record,), _ = parsed(folder, [tmp_path / "a.png"], tmp_path / "one", faces="largest")
    alone = labels_of(tmp_path / "one/a.labels.png")
    assert len(record["faces"]) == 1 and not alone[:, :50].any()
    assert (alone == labels)[:, 80:].mean() > 0.99


def test_a_photograph_without_a_face_is_said_and_leaves_nothing(tmp_path, folder, finder, capsys):
    picture().save(tmp_path / "a.png")
    picture(90, 90).save(tmp_path / "b.png")
    finder[90] = [face(45, 45, 60)]
    records, failed = parsed(folder, [tmp_path], tmp_path / "out")
    assert [record["width"] for record in records] == [90]
    assert "no face was found in it" in failed[str(tmp_path / "a.png")]
    assert not list((tmp_path / "out").glob("a.*"))
    assert read_json(tmp_path / "out/run.json")["failed"] == failed


def test_an_aligned_crop_stays_as_it_is(tmp_path, folder, finder):
    picture(120, 120).save(tmp_path / "a.png")
    finder[120] = [face(61, 59, 124, 2), face(20, 20, 25)]
    (record,), _ = parsed(folder, [tmp_path / "a.png"], tmp_path / "found")
    parsed(folder, [tmp_path / "a.png"], tmp_path / "whole", faces="whole")
    assert hash_file(tmp_path / "found/a.labels.png") == hash_file(tmp_path / "whole/a.labels.png")
    assert record["region"] == (0, 0, 120, 120) and len(record["faces"]) == 1


@pytest.mark.parametrize(
    "square, size, aligned",
    [
        (Square(128, 128, 256), (256, 256), True),
        (Square(120, 135, 275, -5), (256, 256), True),
        (Square(128, 128, 200), (256, 256), False),
        (Square(100, 128, 256), (256, 256), False),
        (Square(128, 128, 256, 15), (256, 256), False),
        (Square(128, 128, 256), (256, 400), False),
    ],
)
def test_what_is_an_aligned_crop(square, size, aligned):
    assert is_aligned(square, *size) == aligned


def test_a_box_is_believed_and_not_looked_at(tmp_path, folder, finder):
    picture().save(tmp_path / "a.png")
    (record,), _ = parsed(folder, [tmp_path / "a.png"], tmp_path / "out", box="60,30,100,90")
    assert record["faces"] is None and record["region"]
    with pytest.raises(InputError, match="leave --faces out"):
        parsed(folder, [tmp_path / "a.png"], tmp_path / "o", box="60,30,100,90", faces="all")
    with pytest.raises(InputError, match="faces 'some' is none of"):
        parsed(folder, [tmp_path / "a.png"], tmp_path / "o", faces="some")


def test_without_a_finder_pictures_are_whole_and_that_is_said(
    tmp_path, folder, monkeypatch, capsys
):
    monkeypatch.setattr(photographs, "finder_installed", lambda: False)
    picture(90, 90).save(tmp_path / "a.png")
    (record,), _ = parsed(folder, [tmp_path / "a.png"], tmp_path / "out")
    assert record["region"] == (0, 0, 90, 90) and record["faces"] is None
    assert "no face finder is installed (pip install --no-deps" in capsys.readouterr().err


def test_a_second_run_takes_over_what_is_there(tmp_path, folder, finder, monkeypatch):
    for i in range(3):
        picture(seed=i).save(tmp_path / f"{i}.png")
    finder[200] = [face(120, 60, 80)]
    out, before = tmp_path / "out", {}
    first, _ = parsed(folder, [tmp_path], out)
    for path in out.glob("*.p*"):
        before[path] = path.stat().st_mtime_ns
    looked = []
    monkeypatch.setattr(
        Finder, "find", lambda self, image: looked.append(1) or Finder.faces[image.width]
    )

    second, _ = parsed(folder, [tmp_path], out)
    assert not looked and len(second) == 3
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert read_json(out / "run.json")["earlier"] == 3

    (out / "1.overlay.png").unlink()  # as if it had been stopped there
    picture(seed=9).save(tmp_path / "2.png")  # another picture of the same name
    parsed(folder, [tmp_path], out)
    assert len(looked) == 2 and (out / "1.overlay.png").is_file()
    parsed(folder, [tmp_path], out, opacity=0.3)
    assert len(looked) == 5


def test_many_pictures_need_no_more_memory_than_few(tmp_path, folder, finder, monkeypatch):
    "Opened pictures are let go: at no time more than a batch of them is alive"
    finder[200] = [face(120, 60, 80)]
    seen, most, opened = [], [], photographs.read_upright

    def watched(path):
        image = opened(path)
        seen.append(weakref.ref(image))
        most.append(sum(one() is not None for one in seen))
        return image

    monkeypatch.setattr(photographs, "read_upright", watched)
    for i in range(24):
        picture(seed=i).save(tmp_path / f"{i}.png")
    records, _ = parsed(folder, [tmp_path], tmp_path / "out", batch_size=4)
    assert len(records) == 24 and max(most) <= 9  # a batch, the next one, and the one at hand
