"""What the objectives cost: time of a training step with all three against Dice alone.

    python tests/bench_step.py [--repetitions 7] [--size 256] [--batch 8] [--encoder resnet34] [--threads 2]

Steps with different objectives take turns, so that a busy machine slows all of them; the ratio is the median over turns.
"""
import argparse
import statistics
import time

import torch

from fairparse.losses import LossConfig, MultiObjectiveLoss
from fairparse.unet import build_parser

TERMS = {"Dice alone": (1, 0, 0), "+ robustness": (0.6, 0.4, 0), "+ fairness": (0.6, 0, 0.4), "all three": (0.4, 0.3, 0.3)}


def make_batch(batch, size, classes=19, groups=40):
    "Images, targets and memberships of a batch, from fixed random numbers"
    torch.manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, size, size)).float().contiguous(memory_format=torch.channels_last)
    return images, torch.randint(0, classes, (batch, size, size)), torch.randint(0, 2, (batch, groups)).float()


def time_steps(parser, batch, repetitions, terms=TERMS):
    "Seconds of `repetitions` steps for each set of weights, taking turns; the first turn warms up"
    images, target, member = batch
    loss = MultiObjectiveLoss(19, member.shape[1], LossConfig())
    optimizer = torch.optim.Adam(parser.parameters(), lr=1e-4, fused=True)
    seconds = {name: [] for name in terms}
    for _ in range(repetitions + 1):
        for name, weights in terms.items():
            start = time.perf_counter()
            values = loss(parser(images), target, member, weights)
            values.total.backward()
            optimizer.step(); optimizer.zero_grad()
            seconds[name].append(time.perf_counter() - start)
    return {name: times[1:] for name, times in seconds.items()}


def time_losses(batch, repetitions, terms=TERMS, classes=19):
    "Seconds of loss and backward pass to the logits alone"
    images, target, member = batch
    loss = MultiObjectiveLoss(classes, member.shape[1], LossConfig())
    logits = torch.randn(len(images), classes, *images.shape[-2:]).contiguous(memory_format=torch.channels_last).requires_grad_()
    seconds = {name: [] for name in terms}
    for _ in range(repetitions + 1):
        for name, weights in terms.items():
            logits.grad, start = None, time.perf_counter()
            loss(logits, target, member, weights).total.backward()
            seconds[name].append(time.perf_counter() - start)
    return {name: times[1:] for name, times in seconds.items()}


def median_ratios(seconds):
    "Median over turns of each time against the first entry's"
    first = next(iter(seconds.values()))
    return {name: statistics.median(t / f for t, f in zip(times, first)) for name, times in seconds.items()}


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("repetitions", 7), ("size", 256), ("batch", 8), ("threads", 2)): options.add_argument(f"--{name}", type=int, default=default)
    options.add_argument("--encoder", default="resnet34")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    batch = make_batch(given.batch, given.size)
    alone = time_losses(batch, 2 * given.repetitions)
    parser = build_parser(given.encoder, "none", size=given.size).to(memory_format=torch.channels_last)
    steps = time_steps(parser, batch, given.repetitions)
    print(f"{given.encoder}, batch {given.batch} of {given.size} pixels, {given.threads} threads, {given.repetitions} turns")
    for name, ratio in median_ratios(steps).items():
        print(f"{name:14s} step {statistics.median(steps[name]):7.3f} s, {ratio:.3f} times Dice alone; loss and its gradient alone {1000 * min(alone[name]):6.1f} ms (fastest of {len(alone[name])})")


if __name__ == "__main__": main()
