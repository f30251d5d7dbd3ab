"""Images per second of generator training: ours beside a plain loop over image files, the same networks, losses and batches.

    python tests/bench_gan.py [--turns 5] [--size 64] [--batch 4] [--channels 12] [--faces 64] [--threads 1] [--precision auto]

The plain loop is what one writes first: a Dataset that opens a JPEG and a PNG a face, the one-hot planes made on the CPU by
`torch.nn.functional.one_hot` and put in order, three passes through the discriminators. Ours reads packed bytes, makes the planes
on the device, judges real and generated faces in one pass and lets the discriminators stand still in the generator's turn; with
precision `auto` in bfloat16 where the processor has units for it. Epochs take turns; the ratio is the median over turns.
"""
import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from fairparse.gan_training import GanConfig, GanTrainer, gan_epoch
from fairparse.pix2pixhd import Generator, GeneratorSpec, MultiScaleDiscriminator, adversarial_loss, feature_loss
from fairparse.synthfaces import build_synthetic_set


class FaceFiles(torch.utils.data.Dataset):
    "An image and a label file a face"
    def __init__(self, folder, count): self.folder, self.count = folder, count
    def __len__(self): return self.count

    def __getitem__(self, index):
        image = np.asarray(Image.open(self.folder / f"{index}.jpg").convert("RGB"), np.float32) / 127.5 - 1
        label = torch.from_numpy(np.asarray(Image.open(self.folder / f"{index}.png"), np.int64))
        return F.one_hot(label, 19).permute(2, 0, 1).float(), torch.from_numpy(image).permute(2, 0, 1)


class PlainGenerator(torch.nn.Module):
    "The same layers, from planes"
    def __init__(self, generator):
        super().__init__()
        self.features, self.to_rgb = generator.features, generator.to_rgb

    def forward(self, planes): return self.to_rgb(self.features(planes))


def plain_epoch(generator, judge, optimizers, loader, config):
    "An epoch as one writes it first"
    for planes, real in loader:
        fake = generator(planes)
        on_fake, on_real = judge(planes, fake.detach()), judge(planes, real)
        judge_loss = (adversarial_loss(on_fake, False) + adversarial_loss(on_real, True)) / 2
        judged = judge(planes, fake)
        loss = adversarial_loss(judged, True) + config.l1 * F.l1_loss(fake, real) + config.features * feature_loss(judged, on_real)
        optimizers[0].zero_grad(); loss.backward(); optimizers[0].step()
        optimizers[1].zero_grad(); judge_loss.backward(); optimizers[1].step()
        loss.item()


class NoBar:
    def update(self): pass


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("turns", 5), ("size", 64), ("batch", 4), ("channels", 12), ("faces", 64), ("threads", 1)): options.add_argument(f"--{name}", type=int, default=default)
    options.add_argument("--precision", default="auto", help="of ours: no, bf16 or auto")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        faces = build_synthetic_set(folder / "faces", count=given.faces, size=given.size, seed=0)
        for k in range(given.faces):
            Image.fromarray(faces.images[k]).save(folder / f"{k}.jpg", quality=95)
            Image.fromarray(faces.masks[k]).save(folder / f"{k}.png")
        spec, rows = GeneratorSpec(given.channels, 2, 2, 1, 1, size=given.size), np.arange(given.faces)
        config = GanConfig(batch_size=given.batch, discriminator_channels=16, discriminator_layers=2, precision=given.precision)
        trainer = GanTrainer(Generator(spec), np.array(faces.masks), np.array(faces.images), rows, config, folder / "gan", progress=False)
        generator, judge = PlainGenerator(Generator(spec)), MultiScaleDiscriminator(19, 2, 16, 2)
        adams = [torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.5, 0.999)) for network in (generator, judge)]
        loader = torch.utils.data.DataLoader(FaceFiles(folder, given.faces), given.batch, shuffle=True, drop_last=True)
        ways = {"plain loop over files": lambda: plain_epoch(generator, judge, adams, loader, config), "ours": lambda: gan_epoch(trainer, NoBar())}
        rates = {name: [] for name in ways}
        for _ in range(given.turns + 1):
            for name, epoch in ways.items():
                start = time.perf_counter()
                epoch()
                rates[name].append(given.faces // given.batch * given.batch / (time.perf_counter() - start))
    print(f"{given.size} pixels, batch {given.batch}, {given.channels} channels, {given.threads} threads, {given.turns} turns; precision of ours: {trainer.accelerator.mixed_precision}")
    first = next(iter(rates.values()))[1:]
    for name, own in rates.items(): print(f"{name:22s} {statistics.median(own[1:]):6.1f} images a second, {statistics.median(o / f for o, f in zip(own[1:], first)):.2f} times the plain loop")


if __name__ == "__main__": main()
