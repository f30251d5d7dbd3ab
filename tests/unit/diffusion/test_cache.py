"Latents and prompts on disk: what is in them, when they are made, what is refused"

import json
import shutil
import threading
from collections import namedtuple

import numpy as np
import pytest
import torch
from diffusion_helpers import micro_base, small_faces

from fairparse.core.runs import InputError
from fairparse.diffusion import cache as cache_module
from fairparse.diffusion.cache import (
    cache_latents,
    cache_prompts,
    cached,
    check_space,
    encode_images,
    resize_images,
)
from fairparse.diffusion.controlnet import encode_prompts

SENTENCES = ["a photo of a man", "a photo of a face", "a photo of a man", "", "a photo of a face"]


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return small_faces(tmp_path_factory.mktemp("faces"))


@pytest.fixture
def base():
    return micro_base()


def make(base, faces, folder, **options):
    return cache_latents(
        base,
        **{
            "images": faces.images,
            "data_hash": faces.meta["sha256"],
            "size": 16,
            "folder": folder,
            **options,
        },
    )


def nothing_but_locks(folder):
    return all(p.name == ".lock" for p in folder.iterdir())


# ---- what is in it


def test_latents_are_what_the_autoencoder_says(base, faces, tmp_path):
    "Against the autoencoder itself, as they are and mirrored, whatever the batch"
    latents = make(base, faces, tmp_path, batch_size=5)
    assert latents.shape == (2, 18, 8, 8, 8)
    assert latents.dtype == np.float16
    assert not latents.flags.writeable
    for mirrored, images in enumerate((faces.images, faces.images[:, :, ::-1])):
        with torch.no_grad():
            direct = base.vae.encode(
                torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(127.5) - 1)
            ).latent_dist
        mean, log_variance = torch.from_numpy(np.array(latents[mirrored])).float().chunk(2, 1)
        torch.testing.assert_close(mean, direct.mean, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(log_variance, direct.logvar, rtol=1e-3, atol=1e-3)
    assert np.abs(latents[1] - latents[0][..., ::-1]).max() > 0.01, (
        "mirroring a latent is not encoding a mirrored face"
    )


def test_faces_of_another_size_are_filtered(base, faces, tmp_path):
    latents = make(base, faces, tmp_path, size=8)
    assert latents.shape == (2, 18, 8, 4, 4)
    torch.testing.assert_close(
        torch.from_numpy(np.array(latents[0, :2])).float(),
        encode_images(base, faces.images[:2], 8),
        rtol=1e-3,
        atol=1e-3,
    )
    flat = torch.rand(1, 3, 1, 1).expand(1, 3, 16, 16)
    torch.testing.assert_close(
        resize_images(flat, 8), flat[..., :8, :8]
    )  # a plain picture stays plain
    stripes = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 3, 16, 16)
    assert (
        resize_images(stripes, 4)[..., 1:-1].abs().max() < 0.1
        and resize_images(stripes, 16) is stripes
    )  # too fine to be seen: grey, not aliased


def test_prompts_are_encoded_once_each_and_the_last_is_empty(base, tmp_path):
    embeddings, which = cache_prompts(base, SENTENCES, tmp_path)
    assert embeddings.shape == (4, 24, 16) and which.tolist() == [0, 1, 0, 2, 1]
    torch.testing.assert_close(
        torch.from_numpy(np.array(embeddings[which])).float(),
        encode_prompts(base, SENTENCES),
        rtol=1e-3,
        atol=1e-3,
    )
    torch.testing.assert_close(
        torch.from_numpy(np.array(embeddings[-1])).float(),
        encode_prompts(base, [""])[0],
        rtol=1e-3,
        atol=1e-3,
    )
    assert np.abs(embeddings[0] - embeddings[1]).max() > 0.01


def test_many_prompts_need_several_batches(base, tmp_path):
    sentences = [f"a photo of a face {i}" for i in range(70)]
    embeddings, which = cache_prompts(base, sentences, tmp_path)
    assert embeddings.shape[0] == 71 and which.tolist() == list(range(70))
    torch.testing.assert_close(
        torch.from_numpy(np.array(embeddings[[66, 70]])).float(),
        encode_prompts(base, [sentences[66], ""]),
        rtol=1e-3,
        atol=1e-3,
    )


# ---- once


def test_a_second_call_encodes_nothing(base, faces, tmp_path, monkeypatch):
    latents, (embeddings, _) = make(base, faces, tmp_path), cache_prompts(base, SENTENCES, tmp_path)
    for name in ("encode_images", "encode_prompts"):
        monkeypatch.setattr(cache_module, name, None)
    assert (make(base, faces, tmp_path) == latents).all()
    assert (cache_prompts(base, SENTENCES, tmp_path)[0] == embeddings).all()


def test_whatever_decides_the_numbers_is_in_the_key(base, faces, tmp_path):
    "Other faces, size, weights or sentences: another file; the U-Net does not matter"
    make(base, faces, tmp_path)

    def files(kind):
        return sorted(p.name for p in tmp_path.glob(f"{kind}_*.npy"))

    make(micro_base(), faces, tmp_path)
    base.unet.conv_in.weight.data += 1
    make(base, faces, tmp_path)
    assert len(files("latents")) == 1
    make(base, faces, tmp_path, size=8)
    make(base, faces, tmp_path, data_hash="other")
    make(base, faces, tmp_path, images=faces.images[:4])
    make(micro_base(seed=1), faces, tmp_path)
    assert len(files("latents")) == 5
    cache_prompts(base, SENTENCES, tmp_path)
    cache_prompts(base, SENTENCES[:3], tmp_path)  # has no empty sentence of its own
    assert len(files("prompts")) == 2
    cache_prompts(base, ["a photo of a face"], tmp_path)
    cache_prompts(micro_base(seed=1), SENTENCES, tmp_path)
    assert len(files("prompts")) == 4


def test_jobs_that_start_together_make_it_once(tmp_path):
    made, barrier, results = [], threading.Barrier(4), []

    def fill(array):
        made.append(1)
        threading.Event().wait(0.1)
        array[:] = np.arange(6).reshape(2, 3)

    def job():
        barrier.wait()
        results.append(cached(tmp_path, "numbers", "k" * 64, (2, 3), np.float32, fill))

    jobs = [threading.Thread(target=job) for _ in range(4)]
    for thread in jobs:
        thread.start()
    for thread in jobs:
        thread.join()
    assert len(made) == 1
    assert len(results) == 4
    assert all((r == np.arange(6).reshape(2, 3)).all() for r in results)


# ---- what is refused, and nothing half-written


def test_a_full_disk_is_said_before_anything_is_written(base, faces, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    needed = 2 * 18 * 8 * 8 * 8 * 2
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**12, 10**12, needed))
    monkeypatch.setattr(cache_module, "encode_images", None)
    with pytest.raises(
        InputError,
        match=(
            r"the cache needs 0.00 GB in .* and 0.00 GB are free there: free some space, "
            r"name another folder with the parameter `cache`"
        ),
    ):
        make(base, faces, tmp_path)
    assert nothing_but_locks(tmp_path)
    check_space(tmp_path, int(needed / 1.06))
    with pytest.raises(InputError, match="needs 2000.00 GB"):
        check_space(tmp_path, 2 * 10**12)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        KeyboardInterrupt(),
        RuntimeError("the autoencoder failed"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_an_interrupted_cache_leaves_nothing(base, faces, tmp_path, monkeypatch, error):
    real, calls = cache_module.encode_images, []

    def fail(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise error
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(cache_module, "encode_images", fail)
        with pytest.raises(
            InputError if isinstance(error, OSError) else type(error),
            match="no space left" if isinstance(error, OSError) else None,
        ):
            make(base, faces, tmp_path, batch_size=4)
    assert nothing_but_locks(tmp_path) and len(calls) == 3
    assert np.isfinite(make(base, faces, tmp_path)).all()


def test_numbers_without_their_record_are_computed_again(base, faces, tmp_path):
    "A job that ended between both files"
    latents = np.array(make(base, faces, tmp_path))
    path = next(tmp_path.glob("latents_*.npy"))
    path.with_suffix(".json").unlink()
    path.write_bytes(path.read_bytes()[:-64] + bytes(64))
    assert (make(base, faces, tmp_path) == latents).all()


@pytest.mark.parametrize("damage", ["changed", "cut", "missing", "another key", "broken record"])
def test_a_damaged_cache_is_refused(base, faces, tmp_path, damage):
    make(base, faces, tmp_path)
    path = next(tmp_path.glob("latents_*.npy"))
    record = path.with_suffix(".json")
    if damage == "changed":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    if damage == "missing":
        path.unlink()
    if damage == "another key":
        record.write_text(json.dumps({**json.loads(record.read_text()), "key": "0" * 64}))
    if damage == "broken record":
        record.write_text("{")
    named = record.name if damage == "broken record" else path.name
    remedy = f"(delete it and make it again|delete .*{record.name} to compute it again)"
    with pytest.raises(InputError, match=f"{named}.* {remedy}"):
        make(base, faces, tmp_path)


@pytest.mark.parametrize("size", [15, 1, 0])
def test_a_size_that_does_not_fit_the_latents(base, faces, tmp_path, size):
    with pytest.raises(InputError, match=f"pictures of {size} pixels .*multiple of 2"):
        make(base, faces, tmp_path / "new", size=size)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made(base, faces, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write .*file"):
        make(base, faces, tmp_path / "file" / "cache")
