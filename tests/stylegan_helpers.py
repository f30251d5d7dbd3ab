"""Small StyleGAN2 generators, and the official formula for them, one face at a time

In double precision and without any of its short cuts.
"""

import re

import torch
import torch.nn.functional as F

from fairparse.balancing.stylegan import ARCHITECTURES, GeneratorConfig, StyleGAN2Generator

SMALL = {"z_dim": 6, "w_dim": 10, "channels": [8, 12, 6], "mapping_layers": 3}
# each differs from SMALL in what a loader or a layer could get wrong
VARIANTS = {
    **{architecture: {"architecture": architecture} for architecture in ARCHITECTURES},
    **{
        f"{architecture}, clamped": {"architecture": architecture, "clamp": 0.3}
        for architecture in ARCHITECTURES
    },
    **{
        f"{architecture}, conditional": {"architecture": architecture, "c_dim": 3}
        for architecture in ARCHITECTURES
    },
    "narrow embedding": {"c_dim": 5, "embedding": 4, "mapping_width": 7},
    "wide z": {"z_dim": 20, "w_dim": 4},
    "one mapping layer": {"mapping_layers": 1, "mapping_width": 9},
    "one block": {"channels": [5]},
    "four blocks": {"channels": [3, 9, 2, 4], "architecture": "resnet"},
    "grey": {"image_channels": 1},
    "four channels": {"image_channels": 4, "architecture": "orig"},
    "quick mapping": {"mapping_rate": 0.3},
    "box filter": {"filter": [1.0, 1.0]},
    "odd filter": {"filter": [1.0, 2.0, 1.0], "architecture": "resnet"},
    "skewed filter": {"filter": [1.0, 2.0, 4.0, 3.0], "architecture": "resnet"},
    "long filter": {"filter": [1.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0, 1.0]},
    "filter in two dimensions": {"filter": [[1.0, 2.0], [0.0, 3.0]], "architecture": "resnet"},
}


def make(seed=0, **options):
    """A generator with every weight at random

    Biases, noise and the average too, which start at 0 or 1.
    """
    generator = torch.Generator().manual_seed(seed)
    net = StyleGAN2Generator(GeneratorConfig(**{**SMALL, **options}))
    for name, value in net.state_dict().items():
        scale = net.config.mapping_rate if re.fullmatch(r"mapping\.fc\d+\.weight", name) else 1.0
        value.copy_(torch.randn(value.shape, generator=generator) / scale)
    return net.requires_grad_(False).eval()


def draw(net, count=3, seed=1):
    "z, and one-hot classes where the generator wants them"
    z = torch.randn(count, net.config.z_dim, generator=torch.Generator().manual_seed(seed))
    return z, F.one_hot(
        torch.arange(count) % net.config.c_dim, net.config.c_dim
    ).float() if net.config.c_dim else None


# ---- the formula of the official code


def fir(x, taps, up, pad):  # (C, H, W): zeros between the pixels, pad, convolve
    taps = torch.tensor(taps, dtype=torch.float64)
    taps = taps.outer(taps) if taps.ndim == 1 else taps
    spread = torch.zeros(x.shape[0], x.shape[1] * up, x.shape[2] * up, dtype=x.dtype)
    spread[:, ::up, ::up] = x
    spread = F.pad(spread, [*pad, *pad])
    return F.conv2d(spread[:, None], (taps / taps.sum() * up**2).flip(0, 1)[None, None])[:, 0]


def double(x, taps):
    return fir(x, taps, 2, ((len(taps) + 1) // 2, (len(taps) - 2) // 2))


def styled(
    x, weight, style, taps=None, demodulate=True
):  # modulated weights of this one face; with taps: up-sample first, then a true convolution
    weight = weight * style[None, :, None, None]
    if demodulate:
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
    if taps is None:
        return F.conv2d(x[None], weight, padding=weight.shape[-1] // 2)[0]
    return F.conv2d(
        fir(x, taps, 2, (1 + (len(taps) + 1) // 2, 1 + (len(taps) - 2) // 2))[None],
        weight.flip(2, 3),
    )[0]


def lrelu(x):
    return torch.where(x > 0, x, 0.2 * x) * 2**0.5


def limited(x, bound):
    return x.clamp(-bound, bound) if bound else x


def reference_styles(net, z, c, psi=1.0, cutoff=None):
    "w of one face for each layer"
    s, config = {name: value.double() for name, value in net.state_dict().items()}, net.config

    def unit(x):
        return x / (x.square().mean() + 1e-8).sqrt()

    x = unit(z.double())
    if config.c_dim:
        x = torch.cat(
            [
                x,
                unit(
                    s["mapping.embed.weight"] @ c.double() / config.c_dim**0.5
                    + s["mapping.embed.bias"]
                ),
            ]
        )
    for i in range(config.mapping_layers):
        weight, bias = s[f"mapping.fc{i}.weight"], s[f"mapping.fc{i}.bias"]
        x = lrelu(
            weight @ x * config.mapping_rate / weight.shape[1] ** 0.5 + bias * config.mapping_rate
        )
    average, count = s["mapping.w_avg"], 2 * len(config.channels)
    return torch.stack(
        [average + psi * (x - average) if cutoff is None or i < cutoff else x for i in range(count)]
    )


def reference_picture(net, ws, noise=True):
    "Picture of one face from its styles"
    s, config = {name: value.double() for name, value in net.state_dict().items()}, net.config

    def affine(name, w):
        return s[f"{name}.affine.weight"] @ w / len(w) ** 0.5 + s[f"{name}.affine.bias"]

    def layer(x, name, w, up, gain):
        x = styled(x, s[f"{name}.weight"], affine(name, w), config.filter if up else None)
        if noise:
            x = x + s[f"{name}.noise_const"] * s[f"{name}.noise_strength"]
        return limited(lrelu(x + s[f"{name}.bias"][:, None, None]) * gain, config.clamp * gain)

    picture, at = None, 0
    for i in range(len(config.channels)):
        block, short = f"synthesis.b{4 * 2**i}", config.architecture == "resnet" and i > 0
        gain = 0.5**0.5 if short else 1.0
        if i == 0:
            x = layer(s[f"{block}.const"], f"{block}.conv1", ws[0], False, 1.0)
        else:
            beside = (
                double(
                    F.conv2d(x[None], s[f"{block}.skip.weight"] / x.shape[0] ** 0.5)[0],
                    config.filter,
                )
                * gain
                if short
                else 0
            )
            x = (
                layer(
                    layer(x, f"{block}.conv0", ws[at], True, 1.0),
                    f"{block}.conv1",
                    ws[at + 1],
                    False,
                    gain,
                )
                + beside
            )
        at += 1 if i == 0 else 2
        if picture is not None:
            picture = double(picture, config.filter)
        if config.architecture == "skip" or i == len(config.channels) - 1:
            part = (
                styled(
                    x,
                    s[f"{block}.torgb.weight"],
                    affine(f"{block}.torgb", ws[at]) / x.shape[0] ** 0.5,
                    demodulate=False,
                )
                + s[f"{block}.torgb.bias"][:, None, None]
            )
            part = limited(part, config.clamp)
            picture = part if picture is None else picture + part
    return picture


def reference(net, z, c=None, psi=1.0, cutoff=None, noise=True):
    "Pictures (B, C, H, W) of the official formula"
    return torch.stack(
        [
            reference_picture(
                net, reference_styles(net, z[i], None if c is None else c[i], psi, cutoff), noise
            )
            for i in range(len(z))
        ]
    ).float()
