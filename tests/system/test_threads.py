"Threads beside a busy program: those who wait leave their core to others"

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fairparse.core.threads import WAITING, available_cores, choose_threads, free_cores, idle_times

LIMIT = 2.2  # times the quiet time of one thread, by the clock
# the same of processor time, where nothing is quiet: 1.6 to 2.1 with threads that sleep, 12 to 20
# with threads that wait busily
PROCESSOR_LIMIT = 4
TURNS = 5

# reads "threads steps", computes, and answers with seconds by the clock and of processor time
STEPS = """
import json, sys, time
import fairparse
import torch
from fairparse.parsing.unet import build_parser

torch.manual_seed(0)
parser = build_parser("tu-mobilenetv3_small_050", "none", decoder_channels=[64, 48, 32, 24, 16])
faces = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8)
for line in sys.stdin:
    threads, steps = map(int, line.split())
    torch.set_num_threads(threads)
    clock, used = time.perf_counter(), time.process_time()
    for _ in range(steps):
        parser(faces).square().mean().backward()
    took = time.perf_counter() - clock, time.process_time() - used
    print(json.dumps([seconds / steps for seconds in took]), flush=True)
"""

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or available_cores() < 2,
    reason="needs Linux and two cores",
)


@contextlib.contextmanager
def two_cores():
    "This process and those that it starts have two cores, on a larger machine too"
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:2])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def running(*command, **options):
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class Trained:
    "A process that takes training steps, and a busy one that can be halted"

    def __init__(self, process, busy):
        self.process, self.busy = process, busy

    def step(self, threads, beside, steps=4):
        "Seconds of a step, by the clock and of processor time"
        self.busy.send_signal(signal.SIGCONT if beside else signal.SIGSTOP)
        time.sleep(0.2)
        self.process.stdin.write(f"{threads} {steps}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextlib.contextmanager
def training(**environment):
    plain = {key: value for key, value in os.environ.items() if key not in WAITING}
    options = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with (
        two_cores(),
        running(sys.executable, "-c", "while True: pass") as busy,
        running(sys.executable, "-c", STEPS, env={**plain, **environment}, **options) as process,
    ):
        trained = Trained(process, busy)
        for threads in (1, 2):
            trained.step(threads, beside=False, steps=2)
        yield trained


def in_turns(trained, settings, of=statistics.median, turns=TURNS):
    "Of alternating turns: (threads, beside) -> [clock, processor]"
    rows = {setting: [] for setting in settings}
    for _ in range(turns):
        for setting in settings:
            rows[setting].append(trained.step(*setting))
    return {key: [*map(of, zip(*found))] for key, found in rows.items()}


@contextlib.contextmanager
def cores_of_others(*processes):
    "How many of our cores were used on average by others than these processes, hypervisor included"

    def used():
        stat = idle_times(Path("/proc/stat").read_text())
        busy = sum(stat[core][1] - stat[core][0] for core in os.sched_getaffinity(0))
        times = [psutil.Process(each.pid).cpu_times() for each in processes]
        ours = sum(each.user + each.system for each in times)
        return busy / os.sysconf("SC_CLK_TCK") - ours, time.perf_counter()

    found = {}
    before = used()
    yield found
    seconds, clock = (after - first for after, first in zip(used(), before))
    found["cores"] = seconds / clock


def test_threads_that_wait_beside_a_busy_program_use_no_processor_time():
    "Holds on a loaded machine too, for waiting busily shows in processor time"
    with training() as trained:
        took = in_turns(trained, [(1, False), (2, True)])
    one, two = took[1, False][1], took[2, True][1]
    assert two <= PROCESSOR_LIMIT * one, f"{two:.3f} s of processor time a step, not {one:.3f}"


def test_a_busy_program_costs_no_more_than_its_share():
    "By the clock, in the quietest turn: within the limit, and two threads no longer than one"
    with two_cores():
        if (free := free_cores(1.0)) < 2:
            pytest.skip(f"{free} of two cores is free: a quiet time cannot be measured")
    with training() as trained, cores_of_others(trained.process, trained.busy) as others:
        took = in_turns(trained, [(1, False), (2, False), (1, True), (2, True)], of=min)
    if others["cores"] > 0.2:
        pytest.skip(f"others used {others['cores']:.1f} cores meanwhile: there was no quiet time")

    clock = {setting: seconds for setting, (seconds, _) in took.items()}
    for threads in (1, 2):
        assert clock[threads, True] <= LIMIT * clock[1, False], clock
    for beside in (False, True):
        assert clock[2, beside] <= 1.15 * clock[1, beside], clock


def test_a_core_that_somebody_uses_is_not_free():
    with two_cores(), running(sys.executable, "-c", "while True: pass"):
        time.sleep(0.3)
        said = []
        assert free_cores(1.0) == 1
        assert choose_threads(None, said.append) == 1 and "of 2" in said[0]
