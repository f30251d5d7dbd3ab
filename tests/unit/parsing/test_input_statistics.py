"Which mean and deviation pictures are given to an encoder with: those of its weights"

import re

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from helpers import DECODER, make_parser
from safetensors.torch import save_file

from fairparse.balancing.classifier import build_network
from fairparse.core.runs import InputError, read_json, write_json
from fairparse.parsing.input_statistics import IMAGENET_MEAN, IMAGENET_STD, input_statistics
from fairparse.parsing.unet import (
    Parser,
    ParserSpec,
    _encoder_module,
    _load_encoder,
    build_parser,
    load_parser,
    save_parser,
)

IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)
HALF = ((0.5,) * 3, (0.5,) * 3)
DUAL_PATH = ((0.486275, 0.458824, 0.407843), (0.234824,) * 3)
# encoder, weights -> what release 0.3.4 of smp, the last that carried the numbers, says of them
PUBLISHED = {
    r"(resnet|vgg|densenet|senet|se_res|mobilenet_v2|mobileone_s|mit_b).* imagenet": IMAGENET,
    r"timm-sk.* imagenet": IMAGENET,
    r"resne.* (ssl|swsl)": IMAGENET,
    r"resnext101_32x(8|16|32|48)d instagram": IMAGENET,
    r"resnext.* imagenet": IMAGENET,
    r"efficientnet-b[0-7] imagenet": IMAGENET,
    r"timm-efficientnet-b[0-8] imagenet": IMAGENET,
    r"timm-efficientnet-(b[0-7]|l2) noisy-student(-475)?": IMAGENET,
    r"(timm-)?efficientnet-b[0-8] advprop": HALF,
    r"timm-tf_efficientnet_lite[0-4] imagenet": HALF,
    r"(inceptionv4|inceptionresnetv2) imagenet(\+background)?": HALF,
    r"xception imagenet": HALF,
    r"dpn(68|98|131) imagenet": DUAL_PATH,
    r"dpn(68b|92|107) imagenet\+5k": DUAL_PATH,
}
PAIRS = [
    (encoder, weights)
    for encoder, known in smp.encoders.encoders.items()
    for weights in known["pretrained_settings"]
]


def near(found, expected):
    return torch.allclose(torch.tensor(found), torch.tensor(expected), atol=1e-5)


@pytest.mark.parametrize("encoder, weights", PAIRS, ids=map(" ".join, PAIRS))
def test_all_weights_of_smp_get_the_pictures_they_were_trained_on(encoder, weights):
    found = {
        values for name, values in PUBLISHED.items() if re.fullmatch(name, f"{encoder} {weights}")
    }
    assert len(found) == 1, "weights that are new in smp: look what they were trained with"
    assert near(input_statistics(encoder, weights), found.pop())
    assert input_statistics(encoder, "none") == IMAGENET


def test_all_weights_of_timm_get_what_timm_says():
    names = timm.list_pretrained()
    assert len(names) > 1000
    for name in names:
        known = timm.get_pretrained_cfg(name)
        assert near(input_statistics(f"tu-{name}", "imagenet"), (known.mean, known.std)), name


@pytest.mark.parametrize(
    "encoder, expected",
    [
        ("tu-tf_efficientnet_b0.ap_in1k", HALF),  # with a tag
        ("tu-tf_efficientnet_b0.ns_jft_in1k", IMAGENET),
        ("tu-tf_efficientnet_b0_ap", HALF),  # as timm called it before there were tags
        ("tu-tf_efficientnet_b0_ns", IMAGENET),
        ("tu-xception", HALF),
        ("timm-mobilenetv3_small_075", HALF),  # smp takes tu-tf_mobilenetv3_small_075 for it
        ("timm-regnetx_002", IMAGENET),
        ("tu-nothing", IMAGENET),  # refused when the network is built
    ],
)
def test_other_names_of_the_same_weights(encoder, expected):
    assert near(input_statistics(encoder, "imagenet"), expected)


# ---- files


def encoder_file(folder):
    "The weights of a parser's encoder in a file of their own"
    state = make_parser().net.encoder.model.state_dict()
    save_file(
        {name: value.contiguous() for name, value in state.items()}, folder / "own.safetensors"
    )
    return folder / "own.safetensors"


def test_what_is_told_beside_a_file_comes_first(tmp_path):
    encoder = make_parser().spec.encoder
    file = encoder_file(tmp_path)
    assert input_statistics(encoder, str(file)) == input_statistics(encoder, "imagenet")
    told = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    for beside in (told, {"pretrained_cfg": told}, told | {"input_range": [0, 1]}):
        write_json(tmp_path / "config.json", beside)
        parser = build_parser(encoder, str(file), DECODER, size=64)
        assert (parser.spec.mean, parser.spec.std) == (told["mean"], told["std"])
    write_json(tmp_path / "config.json", {"architecture": "something"})
    assert input_statistics(encoder, str(file)) == input_statistics(encoder, "imagenet")


@pytest.mark.parametrize("other", [{"input_space": "BGR"}, {"input_range": [0, 255]}])
def test_pictures_of_another_kind_are_refused(tmp_path, other):
    file = encoder_file(tmp_path)
    told = {"mean": [0.5] * 3, "std": [0.5] * 3, **other}
    write_json(tmp_path / "config.json", told)
    with pytest.raises(InputError, match=f"config.json.*{re.escape(str(*other.values()))}.*RGB"):
        input_statistics("resnet34", str(file))


def test_a_description_that_lies_where_one_works_is_not_of_the_download(tmp_path, monkeypatch):
    write_json(tmp_path / "model.json", {"mean": [0.1] * 3, "std": [0.2] * 3})
    monkeypatch.chdir(tmp_path)
    assert input_statistics("resnet34", "imagenet") == IMAGENET


def test_a_parser_keeps_the_statistics_that_it_was_trained_with(tmp_path):
    "One that was trained before they were right, too: its model.json counts, wherever it is used"
    parser = build_parser("tu-tf_efficientnet_lite0", "none", DECODER, size=64)
    assert parser.spec.mean == list(IMAGENET_MEAN)  # a random start
    save_parser(parser, tmp_path / "old")
    again = load_parser(tmp_path / "old")
    assert torch.equal(again.mean, parser.mean) and torch.equal(again.std, parser.std)
    file = tmp_path / "old" / "model.safetensors"
    child = build_parser("tu-tf_efficientnet_lite0", str(file), DECODER, size=64)
    assert child.spec.mean == list(IMAGENET_MEAN)
    assert read_json(tmp_path / "old" / "model.json")["std"] == list(IMAGENET_STD)


# ---- the download


KINDS = (
    *("resnet18", "dpn68", "vgg11", "se_resnet50", "densenet121", "inceptionresnetv2"),
    *("inceptionv4", "efficientnet-b0", "mobilenet_v2", "xception", "timm-efficientnet-b0"),
    *("timm-tf_efficientnet_lite0", "timm-skresnet18", "mit_b0", "mobileone_s0"),
)


@pytest.mark.parametrize("encoder", KINDS)
def test_every_kind_of_encoder_takes_its_own_weights(encoder):
    parser = Parser(ParserSpec(encoder))
    _load_encoder(parser, _encoder_module(parser.net).state_dict(), "the same encoder")


def test_no_kind_is_left_out():
    known = smp.encoders.encoders
    assert {known[name]["encoder"] for name in KINDS} == {k["encoder"] for k in known.values()}


@pytest.fixture
def online(monkeypatch):
    "smp as if it had downloaded weights, and what it would say of them"
    real = smp.Unet
    monkeypatch.setattr(smp, "Unet", lambda *a, **k: real(*a, **{**k, "encoder_weights": None}))

    def tell(**told):
        monkeypatch.setattr(smp.encoders, "get_preprocessing_params", lambda *_: told)

    return tell


def test_the_download_says_the_same(online):
    half = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_space": "RGB", "input_range": [0, 1]}
    online(**half)
    assert build_parser("xception", size=64).spec.std == [0.5] * 3
    online(**half | {"std": [0.25] * 3})
    with pytest.raises(InputError, match="'xception' were trained with.*0.25.*not.*0.5"):
        build_parser("xception", size=64)
    online(**half | {"input_space": "BGR"})
    with pytest.raises(InputError, match="xception.*trained on BGR"):
        build_parser("xception", size=64)


def test_encoders_without_imagenet_weights_are_named(online):
    with pytest.raises(InputError, match=r"no weights \"imagenet\" of 'dpn92', only imagenet\+5k"):
        build_parser("dpn92", size=64)


# ---- classifiers


@pytest.mark.parametrize("name", ["tf_efficientnet_b0_ap", "legacy_xception", "inception_v4"])
def test_classifiers_ask_timm_too(name):
    network = build_network(name, size=96)
    assert network.mean.flatten().tolist() == [127.5] * 3
    assert network.std.flatten().tolist() == [127.5] * 3


def test_a_classifier_s_file_brings_its_own_statistics(tmp_path):
    "VGG-16 has the names of VGG-Face in it, whatever it was trained with"
    network = build_network("vgg16", 2, 32)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    again = build_network("vgg16", 3, 32, str(tmp_path / "model.safetensors"))
    assert torch.equal(again.mean, network.mean) and torch.equal(again.std, network.std)
    assert torch.equal(again.backbone.conv5_3.weight, network.backbone.conv5_3.weight)


def test_a_classifier_s_file_from_a_hub_is_described_beside_it(tmp_path):
    body = timm.create_model("mobilenetv3_small_050", num_classes=0)
    save_file(body.state_dict(), tmp_path / "model.safetensors")
    told = {"mean": [0.5] * 3, "std": [0.25] * 3}
    write_json(tmp_path / "config.json", {"pretrained_cfg": told})
    file = str(tmp_path / "model.safetensors")
    network = build_network("mobilenetv3_small_050", 2, 32, file)
    assert network.mean.flatten().tolist() == [127.5] * 3
    assert network.std.flatten().tolist() == [63.75] * 3
