"Random vectors that can be drawn again, and the store: interruptions, damage, limits, other draws"

import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from latent_helpers import Above, Bands, Colours

from fairparse.balancing.latents import (
    BLOCK,
    open_latents,
    random_latents,
    sample_latents,
    unguided,
)
from fairparse.core.records import LATENTS, read_table
from fairparse.core.runs import InputError


def sample(out, draws=2000, per_group=10_000, generator=None, judge=None, **options):
    return sample_latents(
        out,
        generator or Colours(),
        judge or Bands(),
        draws,
        per_group,
        say=lambda text: None,
        **options,
    )


def same(a, b):
    "Both stores hold the same, to the last bit"
    pd.testing.assert_frame_equal(a.table, b.table)
    assert np.array_equal(a.latents(a.kept()), b.latents(b.kept())) and np.array_equal(
        a.images(a.kept()), b.images(b.kept())
    )


# ---- vectors


@pytest.mark.parametrize(
    "pieces", [[2500], [1, 999, 1000, 500], [7] * 357 + [1], [1000, 1000, 500], [1999, 2, 499]]
)
def test_vectors_do_not_depend_on_how_they_are_asked_for(pieces):
    whole, starts = random_latents(5, 0, 2500, 3), np.cumsum([0, *pieces])
    assert np.array_equal(
        np.concatenate([random_latents(5, a, n, 3) for a, n in zip(starts, pieces)]), whole
    )


def test_far_away_vectors_need_no_earlier_ones():
    assert np.array_equal(random_latents(1, 179_990, 20, 4)[10:], random_latents(1, 180_000, 10, 4))
    tracemalloc.start()
    random_latents(1, 10**9, 10, 4)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_vectors_are_standard_normal_and_independent():
    z = random_latents(2, 0, 50_000, 6)
    assert z.dtype == np.float32 and z.shape == (50_000, 6)
    assert (
        np.abs(z.mean(0)).max() < 0.02
        and np.abs(np.cov(z.T) - np.eye(6)).max() < 0.03
        and abs((z**4).mean() - 3) < 0.1
    )
    blocks = z.reshape(50, BLOCK * 6)
    assert np.abs(np.corrcoef(blocks) - np.eye(50)).max() < 0.07  # blocks share nothing
    assert (
        np.abs(
            np.corrcoef(np.stack([random_latents(s, 0, 1000, 6).ravel() for s in range(20)]))
            - np.eye(20)
        ).max()
        < 0.07
    )  # nor do seeds
    assert len(np.unique(z[:, 0])) > 49_000


def test_no_vectors_and_impossible_ones():
    assert random_latents(0, 1000, 0, 4).shape == (0, 4) and random_latents(0, 17, 0, 4).shape == (
        0,
        4,
    )
    for wrong in ((-1, 0, 1), (0, -1, 1), (0, 0, -1)):
        with pytest.raises(InputError, match="none may be negative"):
            random_latents(*wrong, 4)


# ---- what is stored


def test_store_holds_what_was_painted(tmp_path):
    store = sample(tmp_path / "s", 3000, seed=4)
    z, rows = random_latents(4, 0, 3000, 5), store.kept()
    images = Colours().paint(z)
    assert (
        np.array_equal(store.latents(rows), z)
        and np.array_equal(store.images(rows), images)
        and store.proposed == 3000
    )
    assert np.allclose(store.table[["p_low", "p_middle", "p_high"]], Bands().predict(images))
    assert list(store.table.label) == [Bands.classes[i] for i in Bands().predict(images).argmax(1)]
    some = rows.sample(50, random_state=0)  # any rows, in any order, over shards
    assert np.array_equal(store.latents(some), z[some.draw]) and np.array_equal(
        store.images(some), images[some.draw]
    )
    assert store.latents(rows.head(0)).shape[0] == 0
    assert (
        set(store.table.seed) == {4}
        and set(store.table.rule) == {"unguided"}
        and set(store.table.target) == {""}
    )


@pytest.mark.parametrize("first", [0, 1, 17, 999, 1000, 1001, 1500, 5000])
def test_counts_of_the_first_draws(tmp_path, first):
    store = sample(tmp_path / "s", 2000, seed=1)
    labels = np.array(Bands.classes)[
        Bands().predict(Colours().paint(random_latents(1, 0, min(first, 2000), 5))).argmax(1)
    ]
    assert store.counts(first).to_dict() == {c: int((labels == c).sum()) for c in Bands.classes}


def test_counts_of_a_rule_that_skips_are_of_draws_not_of_rows(tmp_path):
    def odd(z):
        return z, np.arange(len(z)) % 2 == 1

    store = sample(tmp_path / "s", 1000, rule=odd, name="screen")
    assert (
        store.counts(100).sum() == 50
        and list(store.table.draw.head(3)) == [1, 3, 5]
        and store.proposed == 1000
    )
    assert np.array_equal(store.latents(store.kept()), random_latents(0, 0, 1000, 5)[1::2])


def test_classes_that_never_occur_are_counted_as_none(tmp_path):
    store = sample(tmp_path / "s", 1000, judge=Bands((-9, 9)))
    assert (
        store.counts().to_dict() == {"low": 0, "middle": 1000, "high": 0}
        and list(store.counts().index) == Bands.classes
    )


def test_limit_counts_over_shards_and_keeps_the_first(tmp_path):
    store = sample(tmp_path / "s", 5000, per_group=700)
    everything = sample(tmp_path / "t", 5000)
    assert (
        store.counts().equals(everything.counts()) and store.counts().sum() == 5000
    )  # what is not kept is counted all the same
    for label in Bands.classes:
        assert list(store.kept(label).draw) == list(everything.kept(label).draw.head(700))
    assert np.array_equal(
        store.images(store.kept("high")), everything.images(everything.kept("high").head(700))
    )
    assert (
        sum(np.load(path).shape[0] for path in (tmp_path / "s").glob("*_images.npy"))
        == len(store.kept())
        < 5000
    )


@pytest.mark.parametrize("steps", [[1000, 5000], [2000, 3000, 5000], [4999, 5000], [5000, 1000]])
def test_resumed_with_more_draws_is_one_run(tmp_path, steps):
    for draws in steps:
        resumed = sample(tmp_path / "s", draws, per_group=400)
    same(resumed, sample(tmp_path / "t", 5000, per_group=400))


def test_finished_draws_paint_nothing_again(tmp_path):
    sample(tmp_path / "s", 2000)
    generator = Colours()
    sample(tmp_path / "s", 2000, generator=generator)
    assert generator.painted == 0
    sample(tmp_path / "s", 2001, generator=generator)
    assert generator.painted == BLOCK


# ---- interruptions


class Stop(Exception):
    "An interruption"


@pytest.mark.parametrize("after", ["_latents.npy", "_images.npy", ".parquet"])
def test_killed_between_the_files_of_a_shard(tmp_path, monkeypatch, after):
    import fairparse.balancing.latents as latents

    real_write, real_atomic = latents.write_table, latents.atomic_write

    def die(path):
        if path.name == f"00002{after}":
            raise Stop

    def table(frame, path, schema):
        real_write(frame, path, schema)
        die(path)

    class Atomic:
        def __init__(self, path):
            self.path, self.inner = path, real_atomic(path)

        def __enter__(self):
            return self.inner.__enter__()

        def __exit__(self, *error):
            self.inner.__exit__(*error)
            if error[0] is None:
                die(self.path)

    with monkeypatch.context() as patch:
        patch.setattr(latents, "write_table", table)
        patch.setattr(latents, "atomic_write", Atomic)
        with pytest.raises(Stop):
            sample(tmp_path / "s", 4000, per_group=500)
    there = open_latents(tmp_path / "s")
    assert (tmp_path / "s" / f"00002{after}").is_file() and there.blocks == (
        [0, 1, 2] if after == ".parquet" else [0, 1]
    )
    generator = Colours()
    same(
        sample(tmp_path / "s", 4000, per_group=500, generator=generator),
        sample(tmp_path / "t", 4000, per_group=500),
    )
    assert generator.painted == BLOCK * (4 - len(there.blocks))


def test_orphans_of_a_dead_shard_are_not_believed(tmp_path):
    sample(tmp_path / "s", 2000)
    for what in ("_latents.npy", "_images.npy"):
        np.save(tmp_path / "s" / f"00002{what}", np.full((3, 5), 7.0, np.float32))
    (tmp_path / "s" / ".00002.tmp.parquet").write_bytes(b"half")
    assert open_latents(tmp_path / "s").blocks == [0, 1]
    same(sample(tmp_path / "s", 3000), sample(tmp_path / "t", 3000))


@pytest.mark.parametrize("name", ["00001_latents.npy", "00000_images.npy", "store.json"])
def test_what_a_store_lost_is_drawn_again(tmp_path, name):
    whole = sample(tmp_path / "t", 3000)
    sample(tmp_path / "s", 3000)
    (tmp_path / "s" / name).unlink()
    same(sample(tmp_path / "s", 3000, restart=True), whole)


def test_a_gap_ends_the_store_and_is_filled(tmp_path):
    whole = sample(tmp_path / "t", 4000, per_group=300)
    sample(tmp_path / "s", 4000, per_group=300)
    (tmp_path / "s" / "00001.parquet").unlink()
    assert open_latents(tmp_path / "s").blocks == [0]
    same(sample(tmp_path / "s", 4000, per_group=300), whole)


@pytest.mark.parametrize(
    "name, how",
    [("00001.parquet", "table"), ("00001_latents.npy", "latents"), ("00001_images.npy", "images")],
)
def test_damaged_shards_are_named(tmp_path, name, how):
    store = sample(tmp_path / "s", 3000)
    rows, path = store.kept(), tmp_path / "s" / name
    path.write_bytes(path.read_bytes()[:-200])
    store = open_latents(tmp_path / "s")
    with pytest.raises(InputError, match=f"{name}.*delete"):
        store.table if how == "table" else getattr(store, how)(rows)
    (tmp_path / "s" / "00001.parquet").unlink()  # the remedy that the message names
    same(sample(tmp_path / "s", 3000), sample(tmp_path / "t", 3000))


def test_missing_and_short_arrays_are_named(tmp_path):
    store = sample(tmp_path / "s", 1000)
    np.save(tmp_path / "s" / "00000_latents.npy", np.zeros((3, 5), np.float32))
    with pytest.raises(InputError, match="00000_latents.npy holds 3 rows"):
        store.latents(store.kept())
    (tmp_path / "s" / "00000_images.npy").unlink()
    with pytest.raises(InputError, match="00000_images.npy is not readable"):
        store.images(store.kept())


def test_no_store(tmp_path):
    with pytest.raises(InputError, match="holds no draws"):
        open_latents(tmp_path)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        open_latents(tmp_path)


def test_store_before_its_first_shard(tmp_path):
    class Broken(Colours):
        def paint(self, *_):
            raise Stop

    with pytest.raises(Stop):
        sample(tmp_path / "s", generator=Broken())
    store = open_latents(tmp_path / "s")
    assert (
        len(store.table) == 0
        and store.proposed == 0
        and store.counts().sum() == 0
        and len(store.kept("low")) == 0
    )
    same(sample(tmp_path / "s"), sample(tmp_path / "t"))


# ---- other draws in the folder


class OtherColours(Colours):
    sha256 = "c1"


class Truncated(Colours):
    psi = 0.7


@pytest.mark.parametrize(
    "change, word",
    [
        ({"generator": OtherColours()}, "generator_sha256"),
        ({"generator": Truncated()}, "psi"),
        ({"judge": Above()}, "classes"),
        ({"identity": "another classifier"}, "identity"),
        ({"seed": 9}, "seed"),
        ({"per_group": 11}, "per_group"),
        ({"name": "shift"}, "rule"),
        ({"alpha": 0.5}, "alpha"),
        ({"space": "w"}, "space"),
        ({"target": "low"}, "target"),
    ],
)
def test_other_draws_are_refused_and_nothing_is_lost(tmp_path, change, word):
    sample(tmp_path / "s", 1000)
    before = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    with pytest.raises(InputError, match=f"differ in .*'{word}'"):
        sample(tmp_path / "s", 2000, **change)
    assert {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()} == before


def test_other_draws_can_be_replaced(tmp_path):
    sample(tmp_path / "s", 3000)
    (tmp_path / "s" / "rule.json").write_text("mine")
    printed = []
    sample_latents(
        tmp_path / "s", Colours(), Bands(), 2000, seed=9, restart=True, say=printed.append
    )
    same(open_latents(tmp_path / "s"), sample(tmp_path / "t", 2000, seed=9))
    assert (
        printed[0] == "the draws in s differ in ['seed']: starting again"
        and (tmp_path / "s" / "rule.json").read_text() == "mine"
        and not list((tmp_path / "s").glob("00002*"))
    )
    generator = Colours()
    sample(tmp_path / "s", 2000, seed=9, restart=True, generator=generator)
    assert generator.painted == 0  # the same draws are kept


@pytest.mark.parametrize("after", [0, 1, 4, 8])
def test_killed_while_other_draws_are_deleted(tmp_path, monkeypatch, after):
    "What is left of the old draws is never taken for new ones"
    sample(tmp_path / "s", 3000)
    from pathlib import Path

    deleted, unlink = [], Path.unlink

    def die(path, **options):
        if path.parent == tmp_path / "s" and not path.name.startswith("."):
            if len(deleted) == after:
                raise Stop
            deleted.append(path)
        unlink(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        with pytest.raises(Stop):
            sample(tmp_path / "s", 2000, seed=9, restart=True)
    with pytest.raises(InputError, match="differ in"):
        sample(tmp_path / "s", 2000, seed=9)
    same(sample(tmp_path / "s", 2000, seed=9, restart=True), sample(tmp_path / "t", 2000, seed=9))


def test_shards_of_unknown_draws_are_refused(tmp_path):
    sample(tmp_path / "s", 1000)
    (tmp_path / "s" / "store.json").unlink()
    with pytest.raises(InputError, match="holds draws that differ in .*'seed'"):
        sample(tmp_path / "s", 1000)
    same(sample(tmp_path / "s", 1000, restart=True), sample(tmp_path / "t", 1000))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"draws": 0}, "draws 0"),
        ({"per_group": 0}, "per_group 0"),
        ({"target": "purple"}, "'purple' is none of"),
        ({"want": 5}, "name the target"),
        ({"want": 50, "target": "low", "per_group": 10}, "want 50"),
        ({"want": 0, "target": "low"}, "want 0"),
    ],
)
def test_impossible_requests_write_nothing(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        sample(tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


# ---- rules and targets


def test_only_the_target_is_kept_but_all_are_counted(tmp_path):
    store = sample(
        tmp_path / "s",
        2000,
        target="high",
        alpha=1.0,
        name="shift",
        rule=lambda z: (z + 1, np.ones(len(z), bool)),
    )
    assert (
        set(store.kept().label) == {"high"}
        and len(store.kept()) == store.counts()["high"]
        and store.counts().sum() == 2000
    )
    assert set(store.table.alpha) == {1.0} and (store.latents(store.kept())[:, 0] > 0.9).all()


def test_sampling_ends_with_the_block_that_has_enough(tmp_path):
    generator = Colours()
    options = dict(target="high", per_group=400, want=400)
    store = sample(tmp_path / "s", 100_000, generator=generator, **options)
    every = np.cumsum(
        [
            (
                Bands().predict(Colours().paint(random_latents(0, b * BLOCK, BLOCK, 5))).argmax(1)
                == 2
            ).sum()
            for b in range(5)
        ]
    )
    assert (
        len(store.kept()) == 400
        and len(store.blocks) == 1 + int(np.searchsorted(every, 400))
        and generator.painted == BLOCK * len(store.blocks)
    )
    sample(tmp_path / "s", 100_000, generator=generator, **options)
    assert generator.painted == BLOCK * len(store.blocks)  # enough is enough, also afterwards


def test_too_few_draws_keep_what_there_is(tmp_path):
    store = sample(tmp_path / "s", 1000, target="high", per_group=400, want=400)
    assert 0 < len(store.kept()) < 400 and store.blocks == [0]


def test_blocks_in_which_nothing_is_painted(tmp_path):
    calls = []

    def third(z):
        calls.append(1)
        return z, np.full(len(z), len(calls) == 3)

    store = sample(tmp_path / "s", 4000, rule=third, name="screen", target="high")
    assert (
        store.blocks == [0, 1, 2, 3]
        and store.proposed == 4000
        and set(store.table.draw) == set(range(2000, 3000))
    )
    assert np.array_equal(
        store.latents(store.kept()), random_latents(0, 0, 3000, 5)[store.kept().draw]
    )
    nothing = sample(
        tmp_path / "n",
        2000,
        rule=lambda z: (z, np.zeros(len(z), bool)),
        name="screen",
        target="high",
    )
    assert len(nothing.table) == 0 and nothing.proposed == 2000 and nothing.counts().sum() == 0
    assert list(read_table(tmp_path / "n" / "00000.parquet", LATENTS)) == [
        *LATENTS.columns,
        "p_low",
        "p_middle",
        "p_high",
    ]


def test_memory_does_not_grow_with_draws(tmp_path):
    """Pictures of 180,000 draws never lie in memory together

    A run of 24 blocks needs hardly more than one of 4.
    """

    class Large(Colours):
        size = 16  # 0.77 MB a block

    def peak(draws):
        tracemalloc.start()
        sample(tmp_path / str(draws), draws, generator=Large())
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(1000)  # imports
    assert peak(24_000) < 1.3 * peak(4000)


def test_json_names_the_draws(tmp_path):
    sample(tmp_path / "s", 1000, identity="abc", seed=3)
    assert json.loads((tmp_path / "s" / "store.json").read_text()) == {
        "classes": Bands.classes,
        "generator": "colours",
        "generator_sha256": "c0",
        "psi": 1.0,
        "size": 2,
        "seed": 3,
        "rule": "unguided",
        "target": "",
        "alpha": 0.0,
        "space": "z",
        "per_group": 10_000,
        "identity": "abc",
    }
    z = random_latents(0, 0, 3, 2)
    assert unguided(z)[0] is z and unguided(z)[1].all()
