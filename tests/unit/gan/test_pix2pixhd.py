"Pix2PixHD: published layers, label maps, any size, enhancers, losses against closed forms, files"

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models.vgg import make_layers

from fairparse.core.runs import InputError
from fairparse.gan.pix2pixhd import (
    Generator,
    GeneratorSpec,
    GlobalGenerator,
    LocalEnhancer,
    MultiScaleDiscriminator,
    PatchDiscriminator,
    PerceptualLoss,
    ResidualBlock,
    adversarial_loss,
    check_labels,
    feature_loss,
    half_size,
    load_generator,
    one_hot,
    save_generator,
    start_coarse,
)

TINY = {"channels": 4, "downsamplings": 2, "blocks": 1, "size": 16}


def make_generator(seed=0, **options):
    torch.manual_seed(seed)
    return Generator(GeneratorSpec(**{**TINY, **options})).eval()


def random_maps(*shape, seed=0):
    return torch.randint(
        0, 19, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def layers_of(network):
    return [
        (
            type(m).__name__,
            m.in_channels,
            m.out_channels,
            m.kernel_size[0],
            m.stride[0],
            m.padding[0],
        )
        for m in network.modules()
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))
    ]


# ---- label maps


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64])
def test_one_hot_is_exact(kind):
    maps = random_maps(3, 5, 7).to(kind)
    planes = one_hot(maps, 19)
    assert planes.shape == (3, 19, 5, 7)
    assert planes.dtype == torch.float32
    assert planes.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(planes, F.one_hot(maps.long(), 19).permute(0, 3, 1, 2).float())
    assert torch.equal(planes.argmax(1), maps.long())


@pytest.mark.parametrize(
    "value, kind", [(19, np.uint8), (255, np.uint8), (-1, np.int64), (300, np.int64)]
)
def test_labels_out_of_range_are_named_with_their_place(value, kind):
    maps = np.zeros((3, 4, 6), kind)
    maps[1, 2, 5] = value
    with pytest.raises(
        InputError,
        match=(
            rf"label map 00007.png holds the label {value} at row 2, column 5: labels are 0\.\.18"
        ),
    ):
        check_labels(maps, 19, ["a", "00007.png", "c"])
    with pytest.raises(InputError, match="label map 1 holds the label"):
        check_labels(maps, 19)


def test_maps_that_are_no_label_maps_are_refused():
    for maps in (
        np.zeros((4, 4), np.uint8),
        np.zeros((1, 4, 4), np.float32),
        np.zeros((1, 4, 4, 3), np.uint8),
    ):
        with pytest.raises(InputError, match="whole numbers of shape"):
            check_labels(maps, 19)
    check_labels(np.zeros((0, 4, 4), np.uint8), 19)
    check_labels(np.full((1, 4, 4), 18, np.uint8), 19)


# ---- generator


def test_the_published_generator_has_the_published_layers():
    with torch.device("meta"):
        generator = Generator(GeneratorSpec())
    down, up = (
        [(64, 128), (128, 256), (256, 512), (512, 1024)],
        [(1024, 512), (512, 256), (256, 128), (128, 64)],
    )
    assert layers_of(generator) == [
        ("Conv2d", 19, 64, 7, 1, 0),
        *(("Conv2d", a, b, 3, 2, 1) for a, b in down),
        *[("Conv2d", 1024, 1024, 3, 1, 0)] * 18,
        *(("ConvTranspose2d", a, b, 3, 2, 1) for a, b in up),
        ("Conv2d", 64, 3, 7, 1, 0),
    ]
    assert sum(p.numel() for p in generator.parameters()) == 182_493_443
    norms = [m for m in generator.modules() if isinstance(m, nn.InstanceNorm2d)]
    assert len(norms) == 1 + 4 + 18 + 4
    assert not any(m.affine or m.track_running_stats for m in norms)


def test_the_published_enhancer_has_the_published_layers():
    with torch.device("meta"):
        generator = Generator(GeneratorSpec(channels=32, enhancers=1, size=1024))
    with torch.device("meta"):
        inside = GlobalGenerator(19, 64, 4, 9)
    assert layers_of(generator.features.inner) == layers_of(inside)
    assert generator.spec.multiple == 32
    assert layers_of(generator)[-10:] == [
        ("Conv2d", 19, 32, 7, 1, 0),
        ("Conv2d", 32, 64, 3, 2, 1),
        *[("Conv2d", 64, 64, 3, 1, 0)] * 6,
        ("ConvTranspose2d", 64, 32, 3, 2, 1),
        ("Conv2d", 32, 3, 7, 1, 0),
    ]


@pytest.mark.parametrize("window", [1, 3, 5])
def test_a_smaller_window_changes_the_first_and_last_convolutions_alone(window):
    wide, narrow = (layers_of(make_generator(enhancers=1, window=w)) for w in (7, window))
    assert [layer[3] for layer in wide].count(7) == 3
    assert narrow == [
        (*layer[:3], window if layer[3] == 7 else layer[3], *layer[4:]) for layer in wide
    ]
    assert make_generator(enhancers=1, window=window)(random_maps(1, 17, 16)).shape == (
        1,
        3,
        17,
        16,
    )


@pytest.mark.parametrize("enhancers", [0, 1, 2])
def test_enhancers_nest(enhancers):
    generator = make_generator(enhancers=enhancers, enhancer_blocks=1, size=32)
    part, channels = generator.features, 4
    for _ in range(enhancers):
        assert isinstance(part, LocalEnhancer)
        assert layers_of(part.down)[0][:3] == (
            "Conv2d",
            19,
            channels,
        )
        part, channels = part.inner, 2 * channels
    assert isinstance(part, GlobalGenerator)
    assert layers_of(part)[0][:3] == ("Conv2d", 19, channels)
    assert generator.spec.multiple == 2 ** (2 + enhancers)
    assert generator(random_maps(1, 32, 48)).shape == (1, 3, 32, 48)


def test_an_enhancer_adds_what_the_inner_generator_saw_at_half_the_size():
    generator = make_generator(enhancers=1, enhancer_blocks=1)
    outer, planes = generator.features, one_hot(random_maps(2, 16, 16), 19)
    assert torch.allclose(
        outer(planes), outer.up(outer.down(planes) + outer.inner(half_size(planes)))
    )
    assert half_size(planes).shape == (2, 19, 8, 8)
    assert torch.allclose(half_size(planes).sum(1), torch.ones(2, 8, 8), atol=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (17, 16), (19, 23), (16, 31), (50, 33)])
@pytest.mark.parametrize("enhancers", [0, 1])
def test_any_size_is_padded_and_cropped(size, enhancers):
    generator, maps = make_generator(enhancers=enhancers, enhancer_blocks=1), random_maps(1, *size)
    with torch.no_grad():
        painted = generator(maps)
        filled = F.pad(
            maps[:, None].float(),
            (0, -size[1] % generator.spec.multiple, 0, -size[0] % generator.spec.multiple),
            mode="replicate",
        )[:, 0].byte()
        plain = generator.to_rgb(generator.features(one_hot(filled, 19)))
    assert painted.shape == (1, 3, *size)
    assert torch.equal(painted, plain[..., : size[0], : size[1]])
    assert painted.abs().max() <= 1
    if filled.shape == maps.shape:
        assert torch.equal(painted, generator.to_rgb(generator.features(one_hot(maps, 19))))


@pytest.mark.parametrize(
    "options, least", [({}, 8), ({"downsamplings": 1}, 4), ({"enhancers": 1}, 16)]
)
def test_maps_that_are_too_small_are_refused_with_the_least_size(options, least):
    generator = make_generator(**options)
    assert generator(random_maps(1, least, least)).isfinite().all()
    for size in ((least - 1, 64), (64, least - 1)):
        with pytest.raises(
            InputError, match=rf"{size[1]}x{size[0]} are too small.*{least} pixels or more"
        ):
            generator(random_maps(1, *size))


def test_a_painting_does_not_depend_on_its_batch():
    generator, judge, maps = (
        make_generator(enhancers=1),
        MultiScaleDiscriminator(19, channels=4, layers=2),
        random_maps(4, 16, 16),
    )
    with torch.no_grad():
        together = generator(maps)
        seen = judge(one_hot(maps, 19), together)
        for i in range(4):
            assert torch.allclose(generator(maps[i : i + 1])[0], together[i], atol=1e-5)
            for scale, alone in zip(
                seen, judge(one_hot(maps[i : i + 1], 19), together[i : i + 1]), strict=True
            ):
                for a, b in zip(scale, alone, strict=True):
                    assert torch.allclose(a[i], b[0], atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.01


def test_training_and_evaluation_paint_the_same():
    generator, maps = make_generator(), random_maps(2, 16, 16)
    assert torch.equal(generator(maps), generator.train()(maps))


@pytest.mark.parametrize(
    "network",
    [ResidualBlock(2), LocalEnhancer(GlobalGenerator(2, 4, 1, 0), 2, 2, 1)],
    ids=["block", "enhancer"],
)
def test_gradients_are_those_of_the_function(network):
    torch.manual_seed(0)
    network = network.double()
    for p in network.parameters():
        nn.init.normal_(p, 0, 0.5)
    assert torch.autograd.gradcheck(
        network, torch.randn(1, 2, 8, 8, dtype=torch.float64, requires_grad=True), fast_mode=True
    )


# ---- discriminators


def test_the_published_discriminator_has_the_published_layers():
    with torch.device("meta"):
        judge = MultiScaleDiscriminator(19, scales=3)
    for scale in judge.scales:
        assert layers_of(scale) == [
            ("Conv2d", a, b, 4, stride, 2)
            for a, b, stride in (
                (22, 64, 2),
                (64, 128, 2),
                (128, 256, 2),
                (256, 512, 1),
                (512, 1, 1),
            )
        ]
        assert [any(isinstance(m, nn.InstanceNorm2d) for m in layer) for layer in scale.layers] == [
            False,
            True,
            True,
            True,
        ]
        assert all(m.negative_slope == 0.2 for m in scale.modules() if isinstance(m, nn.LeakyReLU))
    assert (
        sum(p.numel() for p in judge.scales[0].parameters())
        == 22 * 64 * 16
        + 64
        + 64 * 128 * 16
        + 128
        + 128 * 256 * 16
        + 256
        + 256 * 512 * 16
        + 512
        + 512 * 16
        + 1
    )


def test_channels_of_deep_discriminators_are_capped():
    with torch.device("meta"):
        assert [layer[2] for layer in layers_of(PatchDiscriminator(22, 64, 5))] == [
            64,
            128,
            256,
            512,
            512,
            512,
            1,
        ]


def test_scales_see_the_picture_at_full_half_and_quarter_size():
    torch.manual_seed(0)
    judge, planes, images = (
        MultiScaleDiscriminator(19, 3, 4, 2).eval(),
        one_hot(random_maps(1, 32, 32), 19),
        torch.rand(1, 3, 32, 32),
    )
    seen = judge(planes, images)
    assert len(seen) == 3
    assert all(len(scale) == 2 + 2 for scale in seen)
    assert all(scale[-1].shape[1] == 1 for scale in seen)
    x = torch.cat([planes, images], 1)
    for scale, network in zip(seen, judge.scales):
        for a, b in zip(scale, network(x), strict=True):
            assert torch.allclose(a, b, atol=1e-6)
        x = half_size(x)


def test_the_verdict_depends_on_map_and_picture():
    torch.manual_seed(0)
    judge, first, second = (
        MultiScaleDiscriminator(19, 1, 4, 1),
        one_hot(random_maps(1, 16, 16), 19),
        one_hot(random_maps(1, 16, 16, seed=1), 19),
    )
    image = torch.rand(1, 3, 16, 16)
    assert not torch.allclose(judge(first, image)[0][-1], judge(second, image)[0][-1])
    assert not torch.allclose(judge(first, image)[0][-1], judge(first, -image)[0][-1])


# ---- losses


def verdicts(*values):
    return [[torch.full((2, 1, 3, 3), float(v))] for v in values]


@pytest.mark.parametrize(
    "values, real, expected",
    [
        ((1,), True, 0),
        ((0,), False, 0),
        ((0,), True, 1),
        ((1,), False, 1),
        ((0.5,), True, 0.25),
        ((0.5, 0.5), False, 0.5),
        ((2, -1), True, 5),
    ],
)
def test_lsgan_at_known_verdicts(values, real, expected):
    assert adversarial_loss(verdicts(*values), real).item() == expected


def test_a_better_verdict_scores_lower():
    losses = [adversarial_loss(verdicts(v), True).item() for v in (0.0, 0.4, 0.8, 1.0)]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == 4
    assert losses == pytest.approx(
        [adversarial_loss(verdicts(1 - v), False).item() for v in (0.0, 0.4, 0.8, 1.0)]
    )


def test_the_adversarial_loss_is_the_mean_over_patches_and_the_sum_over_scales():
    small, large = torch.randn(2, 1, 2, 2), torch.randn(2, 1, 5, 5)
    assert adversarial_loss([["ignored", small], [large]], True).item() == pytest.approx(
        (((small - 1) ** 2).mean() + ((large - 1) ** 2).mean()).item()
    )


def test_gradients_of_the_adversarial_loss():
    torch.manual_seed(0)
    x = torch.randn(1, 1, 3, 3, requires_grad=True)
    for real in (True, False):
        assert torch.allclose(
            torch.autograd.grad(adversarial_loss([[x]], real), x)[0],
            2 * (x.detach() - float(real)) / 9,
        )


def judged(seed, layers=3, scales=2):
    torch.manual_seed(seed)
    return [
        [
            *(torch.randn(2, 4, 6, 6, requires_grad=True) for _ in range(layers + 1)),
            torch.randn(2, 1, 7, 7, requires_grad=True),
        ]
        for _ in range(scales)
    ]


def test_the_feature_loss_moves_the_generated_side_only():
    fake, real = judged(0), judged(1)
    assert feature_loss(fake, fake) == 0
    feature_loss(fake, real).backward()
    assert all(f.grad is None for scale in real for f in scale)
    assert all(f.grad is not None and f.grad.abs().min() > 0 for scale in fake for f in scale[:-1])
    assert all(scale[-1].grad is None for scale in fake)


def test_nearer_features_score_lower():
    fake, real = judged(0), judged(1)
    losses = [
        feature_loss(
            [[torch.lerp(a, b, t) for a, b in zip(f, r)] for f, r in zip(fake, real)], real
        ).item()
        for t in (0.0, 0.5, 0.9)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[1] == pytest.approx(losses[0] / 2, rel=1e-4)


@pytest.mark.parametrize("layers, scales", [(1, 1), (3, 2), (3, 3)])
def test_layers_and_scales_count_equally_in_the_feature_loss(layers, scales):
    fake = judged(0, layers, scales)

    def with_one_moved(k, j):
        return [
            [f + 1.0 if (i, n) == (k, j) else f for n, f in enumerate(scale)]
            for i, scale in enumerate(fake)
        ]

    losses = [
        feature_loss(with_one_moved(k, j), fake).item()
        for k in range(scales)
        for j in range(layers + 1)
    ]
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-4)
    assert feature_loss(with_one_moved(0, layers + 1), fake) == 0


def test_the_feature_loss_has_the_published_weight():
    fake = judged(0, layers=3)
    assert feature_loss([[f + 1.0 for f in scale] for scale in fake], fake).item() == pytest.approx(
        4.0, rel=1e-4
    )  # four layers of weight 4 / (3 + 1), mean over scales


# ---- perceptual loss, with a narrow network in VGG-19's place

CFG = [4, 4, "M", 4, 4, "M", 6, 6, 6, 6, "M", 6, 6, 6, 6, "M", 6, 6, 6, 6, "M"]


class NarrowVGG(nn.Module):
    "VGG-19's layers in VGG-19's order, a few channels wide"

    def __init__(self, weights=None):
        super().__init__()
        if weights is not None:
            raise OSError("no route to host")
        self.features = make_layers(CFG)


@pytest.fixture
def vgg(monkeypatch, tmp_path):
    "Path of a state dict of the narrow network, which is torchvision's VGG-19 meanwhile"
    monkeypatch.setattr(torchvision.models, "vgg19", NarrowVGG)
    torch.manual_seed(0)
    torch.save(NarrowVGG().state_dict(), tmp_path / "vgg.pth")
    return tmp_path / "vgg.pth"


def test_the_perceptual_loss_is_that_of_the_five_published_layers(vgg):
    torch.manual_seed(1)
    loss, fake, real = (
        PerceptualLoss(str(vgg)),
        torch.rand(2, 3, 32, 32) * 2 - 1,
        torch.rand(2, 3, 32, 32) * 2 - 1,
    )
    network = NarrowVGG()
    network.load_state_dict(torch.load(vgg))
    expected, published = (
        0.0,
        {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0},
    )  # relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
    a, b = (
        torchvision.transforms.functional.normalize(
            (x + 1) / 2, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        )
        for x in (fake, real)
    )
    with torch.no_grad():
        for k, layer in enumerate(network.features):
            a, b = layer(a), layer(b)
            if k in published:
                expected += published[k] * (a - b).abs().mean().item()
    assert loss(fake, real).item() == pytest.approx(expected, rel=1e-4)
    assert expected > 0
    assert [len(s) for s in loss.slices] == [2, 5, 5, 9, 9]


def test_the_perceptual_loss_trains_the_picture_and_nothing_else(vgg):
    torch.manual_seed(1)
    loss, real = PerceptualLoss(str(vgg)), torch.rand(1, 3, 32, 32)
    fake = (real + 0.1 * torch.randn(1, 3, 32, 32)).requires_grad_()
    loss(fake, real).backward()
    assert loss(real, real) == 0
    assert fake.grad.abs().max() > 0
    assert not loss.training
    assert all(not p.requires_grad and p.grad is None for p in loss.parameters())
    with torch.no_grad():
        assert loss(torch.lerp(fake, real, 0.9), real) < loss(fake, real)


def test_vgg_weights_that_are_not_there_or_wrong_are_named(vgg, tmp_path):
    with pytest.raises(
        InputError,
        match=r"could not be downloaded \(OSError\).*perceptual_weights.*vgg19-dcbb9e9d.pth",
    ):
        PerceptualLoss()
    with pytest.raises(InputError, match="missing.pth holds no VGG-19 weights.*No such file"):
        PerceptualLoss(str(tmp_path / "missing.pth"))
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(InputError, match="text.pth holds no VGG-19 weights"):
        PerceptualLoss(str(tmp_path / "text.pth"))
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pth")
    with pytest.raises(InputError, match="other.pth holds no VGG-19 weights"):
        PerceptualLoss(str(tmp_path / "other.pth"))


# ---- files


@pytest.mark.parametrize(
    "options",
    [{}, {"enhancers": 1, "enhancer_blocks": 2, "classes": ["background", "skin", "hair"]}],
    ids=["global", "enhanced"],
)
def test_a_saved_generator_paints_the_same(tmp_path, options):
    generator, maps = make_generator(3, **options), random_maps(2, 16, 16) % 3
    save_generator(generator, tmp_path)
    loaded = load_generator(tmp_path)
    assert loaded.spec == generator.spec
    assert not loaded.training
    assert sorted(p.name for p in tmp_path.iterdir()) == ["generator.json", "generator.safetensors"]
    assert all(
        torch.equal(a, b)
        for a, b in zip(loaded.state_dict().values(), generator.state_dict().values(), strict=True)
    )
    with torch.no_grad():
        assert torch.allclose(loaded(maps), generator(maps), atol=1e-5)


@pytest.fixture
def saved(tmp_path):
    save_generator(make_generator(), tmp_path)
    return tmp_path


def test_files_that_are_not_there_are_named(saved):
    with pytest.raises(InputError, match="elsewhere holds no generator"):
        load_generator(saved / "elsewhere")
    (saved / "generator.json").unlink()
    with pytest.raises(InputError, match="generator.json is missing"):
        load_generator(saved)


@pytest.mark.parametrize("content", [b"", b"no weights", None], ids=["empty", "text", "half"])
def test_damaged_weights_are_named(saved, content):
    path = saved / "generator.safetensors"
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(InputError, match="generator.safetensors cannot be read.*train it again"):
        load_generator(saved)


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "not valid JSON"),
        ('{"channels": "many"}', "channels must be of type int"),
        ('{"depth": 3}', "does not describe a generator"),
        ("[1]", "does not describe a generator"),
    ],
)
def test_descriptions_that_are_wrong_are_named(saved, content, message):
    (saved / "generator.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load_generator(saved)


def test_weights_of_another_network_are_named(saved):
    (saved / "generator.json").write_text(json.dumps({**TINY, "channels": 8}))
    with pytest.raises(InputError, match="holds another network than .*generator.json describes"):
        load_generator(saved)


# ---- from coarse to fine


@pytest.mark.parametrize("enhancers", [1, 2])
def test_a_coarse_generator_starts_the_inside_of_a_fine_one(tmp_path, enhancers):
    coarse, fine = (
        make_generator(1, channels=8, enhancers=enhancers - 1, size=32),
        make_generator(2, enhancers=enhancers, size=64),
    )
    save_generator(coarse, tmp_path)
    outside = {
        k: v.clone() for k, v in fine.state_dict().items() if not k.startswith("features.inner.")
    }
    start_coarse(fine, tmp_path)
    inside = fine.features.inner.state_dict()
    assert inside.keys() == coarse.features.state_dict().keys()
    assert all(torch.equal(inside[k], v) for k, v in coarse.features.state_dict().items())
    assert all(torch.equal(fine.state_dict()[k], v) for k, v in outside.items())


def test_a_coarse_generator_that_does_not_fit_is_refused(saved, tmp_path):
    with pytest.raises(InputError, match="without enhancers has no coarser one"):
        start_coarse(make_generator(), saved)
    with pytest.raises(InputError, match=r"does not fit.*twice the channels \(8\)"):
        start_coarse(make_generator(enhancers=1), saved)
    with pytest.raises(InputError, match="does not fit.*one enhancer less"):
        start_coarse(make_generator(enhancers=2, channels=2, size=64), saved)
    with pytest.raises(InputError, match="holds no generator"):
        start_coarse(make_generator(enhancers=1), tmp_path / "elsewhere")


# ---- settings


@pytest.mark.parametrize(
    "options, message",
    [
        ({"channels": 0}, "channels must be 1 or more"),
        ({"downsamplings": 0}, "downsamplings must be 1"),
        ({"blocks": -1}, "blocks must be 0"),
        ({"enhancers": -1}, "enhancers must be 0"),
        ({"enhancer_blocks": -1}, "enhancer_blocks must be 0"),
        ({"channels": 4.0}, "channels must be of type int"),
        ({"classes": "skin"}, "classes must be of type list"),
        ({"blocks": True}, "blocks must be of type int"),
        ({"window": 4}, "window must be an odd number"),
        ({"window": -1}, "window must be an odd number"),
        ({"size": 7}, "7 pixels cannot be halved 2 times.*8 pixels or more"),
        ({"enhancers": 2, "size": 31}, "halved 4 times.*32 pixels"),
    ],
    ids=str,
)
def test_wrong_specs_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        GeneratorSpec(**{**TINY, **options})


def test_first_weights_are_drawn_as_published():
    generator = make_generator(channels=16)
    weights = torch.cat(
        [
            m.weight.flatten()
            for m in generator.modules()
            if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))
        ]
    )
    assert abs(weights.std() - 0.02) < 5e-4 and abs(weights.mean()) < 5e-4
