"Packed pictures: resumed, shared, checked, in little memory, and the same as in memory"

import threading
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairparse.core.runs import InputError, read_json
from fairparse.data import labelled_sources, packed
from fairparse.data.labelled_sources import open_labelled
from fairparse.data.packed import PictureRows, check_packed, pack_pictures, packing_key, take_rows

NAMES = [f"{i:03d}.jpg" for i in range(50)]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(packed, "PART", 8)


class Reader:
    "Grey pictures of their position; counts, fails where it is told, and may be killed"

    def __init__(self, broken=(), killed_at=None):
        self.read, self.broken, self.killed_at = [], broken, killed_at

    def __call__(self, i):
        if i == self.killed_at:
            raise KeyboardInterrupt
        self.read.append(i)
        if i in self.broken:
            raise InputError(f"{NAMES[i]} is not a readable image")
        return np.full((8, 8, 3), i, np.uint8)


def folder_of(tmp_path, names=NAMES, size=8):
    return tmp_path / packing_key(names, size)


def test_every_picture_is_at_its_place_and_failures_are_told(tmp_path):
    images, failed = pack_pictures(tmp_path, NAMES, 8, Reader(broken=[3, 49]))
    assert failed == {i: f"{NAMES[i]} is not a readable image" for i in (3, 49)}
    good = [i for i in range(50) if i not in failed]
    assert (images[good] == np.array(good)[:, None, None, None]).all()
    assert not images[[3, 49]].any() and not images.flags.writeable
    check_packed(folder_of(tmp_path))


def test_a_stopped_packing_goes_on_where_it_was(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        pack_pictures(tmp_path, NAMES, 8, Reader(broken=[3], killed_at=30), workers=1)
    again = Reader()
    images, failed = pack_pictures(tmp_path, NAMES, 8, again, workers=1)
    assert min(again.read) == 24 and len(again.read) == 26 and list(failed) == [3]
    assert (images[4:, 0, 0, 0] == np.arange(4, 50)).all()


def test_another_list_or_size_is_packed_beside(tmp_path):
    reader = Reader()
    pack_pictures(tmp_path, NAMES, 8, reader)
    pack_pictures(tmp_path, NAMES, 8, reader)
    assert len(reader.read) == 50
    pack_pictures(tmp_path, NAMES[:49], 8, reader)
    assert len(reader.read) == 99 and len(list(tmp_path.iterdir())) == 2


def test_two_at_a_time_pack_once(tmp_path):
    reader, found = Reader(), []
    jobs = [
        threading.Thread(target=lambda: found.append(pack_pictures(tmp_path, NAMES, 8, reader)))
        for _ in range(3)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len(reader.read) == 50 and len(found) == 3


def test_a_file_that_was_changed_is_found(tmp_path):
    pack_pictures(tmp_path, NAMES, 8, Reader())
    path = folder_of(tmp_path) / "pictures.npy"
    with open(path, "r+b") as file:
        file.seek(-8 * 8 * 3 * 40, 2)
        file.write(b"changed")
    with pytest.raises(InputError, match="pictures 8 to 15 are not those that were packed"):
        pack_pictures(tmp_path, NAMES, 8, Reader())


def test_a_file_of_another_shape_is_refused(tmp_path):
    pack_pictures(tmp_path, NAMES, 8, Reader())
    np.save(folder_of(tmp_path) / "pictures.npy", np.zeros((3, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="not those that were packed|holds uint8"):
        pack_pictures(tmp_path, NAMES, 8, Reader())


def test_memory_does_not_grow_with_the_pictures(tmp_path):
    "Of 4 and 16 megabytes of pictures less than one is in Python's memory at any time"

    def most(count):
        names = [str(i) for i in range(count)]
        tracemalloc.start()
        images, _ = pack_pictures(
            tmp_path, names, 64, lambda i: np.full((64, 64, 3), i % 251, np.uint8), workers=2
        )
        some = PictureRows(images, np.arange(0, count, 2))
        total = sum(int(some[i : i + 16].sum()) for i in range(0, len(some), 16))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total == sum(i % 251 for i in range(0, count, 2)) * 64 * 64 * 3
        return peak

    peaks = most(340), most(1360)
    assert max(peaks) < 2**20 and peaks[1] < 1.5 * peaks[0]


@pytest.mark.parametrize("index", [2, slice(1, 4), np.array([3, 0]), (slice(0, 2), slice(1, 3))])
def test_rows_are_indexed_as_arrays_are(index):
    pictures = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), np.uint8)
    rows = np.array([8, 1, 1, 5, 0])
    assert np.array_equal(PictureRows(pictures, rows)[index], pictures[rows][index])
    assert np.array_equal(np.asarray(PictureRows(pictures, rows)), pictures[rows])
    assert isinstance(take_rows(pictures, rows), np.ndarray)


@pytest.fixture
def people(tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("open", "closed"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for i in range(20):
            image = Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8))
            image.save(tmp_path / "data" / kind / f"{kind}{i}.png")
    (tmp_path / "data/open/open3.png").write_bytes(b"no picture")
    return tmp_path / "data"


def test_a_data_set_is_the_same_packed_and_in_memory(people, tmp_path, monkeypatch):
    plain = open_labelled(people, "eyes", 16)
    monkeypatch.setattr(labelled_sources, "IN_MEMORY", 1000)
    large = open_labelled(people, "eyes", 16, packed=tmp_path / "packed")
    assert isinstance(large.images, PictureRows) and isinstance(plain.images, np.ndarray)
    assert np.array_equal(large.images, plain.images) and large.ids == plain.ids
    assert (large.split == plain.split).all() and (large.labels == plain.labels).all()
    pd.testing.assert_frame_equal(large.rejected, plain.rejected)
    some = large.take(large.rows("test"))
    assert isinstance(some.images, PictureRows)
    assert np.array_equal(some.images, plain.take(plain.rows("test")).images)
    (place,) = (tmp_path / "packed").iterdir()
    assert read_json(place / "packed.json")["size"] == 16
