"StyleGAN2: the official formula written out plainly, truncation, noise, gradients, names, files"

import json
import re

import pytest
import torch
from stylegan_helpers import SMALL, VARIANTS, draw, make, reference

from fairparse.balancing.stylegan import (
    ARCHITECTURES,
    GeneratorConfig,
    StyleGAN2Generator,
    load_stylegan,
    save_stylegan,
)
from fairparse.core.runs import InputError


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_pictures_are_those_of_the_official_formula(options):
    net = make(**options)
    z, c = draw(net)
    for psi, cutoff, noise in ((1.0, None, "const"), (0.6, None, "none"), (0.5, 2, "const")):
        torch.testing.assert_close(
            net(z, c, psi, cutoff, noise),
            reference(net, z, c, psi, cutoff, noise == "const"),
            rtol=1e-4,
            atol=1e-4,
        )


def test_clamp_matters_in_the_variants():
    "The clamped variants would prove nothing if no activation reached the clamp"
    for architecture in ARCHITECTURES:
        clamped, free = make(architecture=architecture, clamp=0.3), make(architecture=architecture)
        z, _ = draw(free)
        assert (clamped(z) - free(z)).abs().max() > 0.1


# ---- what it promises beside the formula


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_face_does_not_depend_on_its_batch(architecture):
    net = make(architecture=architecture, c_dim=2)
    z, c = draw(net, 5)
    together = net(z, c)
    for i in range(5):
        torch.testing.assert_close(
            net(z[i : i + 1], c[i : i + 1])[0], together[i], rtol=1e-4, atol=1e-5
        )


def test_truncation():
    net = make()
    z, _ = draw(net)
    w = net.mapping(z)
    assert torch.equal(net.styles(z), w[:, None].expand(-1, net.config.num_ws, -1))  # psi 1: none
    assert torch.allclose(
        net.styles(z, psi=0.0), net.mapping.w_avg.expand(3, net.config.num_ws, -1), atol=1e-6
    )
    half = net.styles(z, psi=0.5, cutoff=2)
    assert torch.allclose(
        half[:, :2], ((w + net.mapping.w_avg) / 2)[:, None].expand(-1, 2, -1), atol=1e-6
    ) and torch.equal(half[:, 2:], net.styles(z)[:, 2:])


def test_noise_modes():
    net = make()
    z, _ = draw(net)
    assert torch.equal(net(z), net(z)) and torch.equal(net(z, noise="none"), net(z, noise="none"))
    torch.manual_seed(0)
    first, second = net(z, noise="random"), net(z, noise="random")
    assert (first - second).abs().max() > 0.01 and (
        net(z) - net(z, noise="none")
    ).abs().max() > 0.01
    for name, value in net.state_dict().items():
        if name.endswith("noise_strength"):
            value.zero_()
    assert torch.equal(net(z, noise="random"), net(z, noise="none"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_weight_learns(architecture):
    net = make(architecture=architecture, c_dim=3).requires_grad_(True)
    z, c = draw(net)
    net(z.requires_grad_(), c).square().sum().backward()
    silent = [
        name
        for name, value in net.named_parameters()
        if value.grad is None or not value.grad.abs().sum() > 0
    ]
    assert not silent and z.grad.abs().sum() > 0


def test_gradient_of_the_modulated_convolution():
    net = make(channels=[4, 3], z_dim=3, w_dim=3).double()
    w = torch.randn(
        2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    x = torch.randn(
        2,
        4,
        4,
        4,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(1),
        requires_grad=True,
    )
    assert torch.autograd.gradcheck(lambda x, w: net.synthesis.b8.conv0(x, w, "const"), (x, w))


def test_names_of_weights_are_the_official_ones():
    names = set(make(architecture="resnet", c_dim=2).state_dict())
    layer = {"affine.weight", "affine.bias", "weight", "bias", "noise_const", "noise_strength"}
    wanted = {
        "mapping.w_avg",
        "synthesis.b4.const",
        "synthesis.b8.skip.weight",
        "synthesis.b16.skip.weight",
    }
    wanted |= {
        f"mapping.{part}.{kind}"
        for part in ("embed", "fc0", "fc1", "fc2")
        for kind in ("weight", "bias")
    }
    wanted |= {
        f"synthesis.{part}.{kind}"
        for part in ("b4.conv1", "b8.conv0", "b8.conv1", "b16.conv0", "b16.conv1")
        for kind in layer
    }
    wanted |= {
        f"synthesis.b16.torgb.{kind}" for kind in ("affine.weight", "affine.bias", "weight", "bias")
    }
    assert names == wanted


def test_sizes():
    config = GeneratorConfig()
    assert config.size == 256 and config.num_ws == 14
    assert (
        sum(
            p.numel()
            for p in StyleGAN2Generator(
                GeneratorConfig(z_dim=4, w_dim=4, channels=[2], mapping_layers=1)
            ).parameters()
        )
        == 4 * 4 + 4 + 2 * 16 + (2 * 4 + 2) + 2 * 2 * 9 + 2 + 1 + (2 * 4 + 2) + 3 * 2 + 3
    )
    assert make()(draw(make())[0]).shape == (3, 3, 16, 16)


# ---- bad input


@pytest.mark.parametrize(
    "options, word",
    [
        ({"architecture": "progressive"}, "architecture"),
        ({"z_dim": 0}, "z_dim"),
        ({"channels": []}, "channels"),
        ({"channels": [4, 0]}, "channels"),
        ({"w_dim": "10"}, "w_dim"),
        ({"mapping_layers": 0}, "mapping_layers"),
        ({"clamp": None}, "clamp"),
    ],
)
def test_configuration_is_checked(options, word):
    with pytest.raises(InputError, match=word):
        GeneratorConfig(**{**SMALL, **options})


def test_input_is_checked():
    net, conditional = make(), make(c_dim=3)
    z, c = draw(conditional)
    with pytest.raises(InputError, match=r"\(B, 6\)"):
        net(torch.randn(2, 7))
    with pytest.raises(InputError, match=r"\(B, 6\)"):
        net(torch.randn(6))
    with pytest.raises(InputError, match="one-hot"):
        conditional(z)
    with pytest.raises(InputError, match=r"\(3, 3\)"):
        conditional(z, c[:2])
    with pytest.raises(InputError, match="noise 'some'"):
        net(z, noise="some")


# ---- files


def test_files_keep_everything(tmp_path):
    net = make(architecture="resnet", c_dim=3, clamp=0.5, filter=[1.0, 2.0, 1.0])
    save_stylegan(net, tmp_path / "a", {"trained_on": "noise"})
    again, (z, c) = load_stylegan(tmp_path / "a"), draw(net)
    assert again.config == net.config and not again.training
    torch.testing.assert_close(again(z, c), net(z, c))
    assert (
        not any(p.requires_grad for p in again.parameters())
        and json.loads((tmp_path / "a" / "generator.json").read_text())["trained_on"] == "noise"
    )


def damage_weights(folder):
    (folder / "generator.safetensors").write_bytes(
        (folder / "generator.safetensors").read_bytes()[:500]
    )


def remove_weights(folder):
    (folder / "generator.safetensors").unlink()


def remove_description(folder):
    (folder / "generator.json").unlink()


def break_description(folder):
    (folder / "generator.json").write_text("{")


def describe_another(folder):
    (folder / "generator.json").write_text(json.dumps({"config": {**SMALL, "w_dim": 11}}))


def describe_unknown(folder):
    (folder / "generator.json").write_text(json.dumps({"config": {**SMALL, "depth": 3}}))


def describe_nothing(folder):
    (folder / "generator.json").write_text("{}")


@pytest.mark.parametrize(
    "fault",
    [
        damage_weights,
        remove_weights,
        remove_description,
        break_description,
        describe_another,
        describe_unknown,
        describe_nothing,
    ],
)
def test_damaged_files_are_refused(tmp_path, fault):
    save_stylegan(make(), tmp_path)
    fault(tmp_path)
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        load_stylegan(tmp_path)
