"""Kill a run at random moments, start it again, and compare the end with an undisturbed run.

    python tests/faults.py --kills 20 --runs 4 --profile ci --out /tmp/faults
    python tests/faults.py --kills 3 --runs 1 --stages table1 --set 'objectives=[single]' \\
        --out /tmp/faults

A kill is `kill -9` of a notebook's kernel, of the worker that runs it (`fairparse run`), of
Snakemake or of `fairparse reproduce`. Half of them are aimed: into a cell that trains, into the
write of a checkpoint, into the write of a record. Nothing in the code under test helps: the moment
is found by watching the output folder, the processes are stopped, one look tells whether the moment
was hit (if not, they go on and the next moment is tried), and the victim is killed. The others are
random moments.

After each kill, every file under its final name must be whole, and nobody whom the victim started
may live on. The same command is then given again, until it ends well. In the end
`fairparse compare` must find no difference from the reference. `kills.csv` has a row a kill.
"""

import argparse
import contextlib
import ctypes
import json
import os
import random
import re
import select
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
import yaml
from PIL import Image
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fairparse.workflow.compare import compare_folders, describe_comparison  # noqa: E402

VICTIMS = ("kernel", "worker", "snakemake", "reproduce")
MOMENTS = ("training", "checkpoint", "record")  # aimed; the others are "any"
TRAINS = re.compile(r"\b(fit|train_classifier|train_parser|retrain\w*|train_\w+|audit_\w*)\(")


class Watch:
    "What is written below a folder, as the operating system reports it (inotify)"

    _create, _modify, _is_dir = 0x100, 0x2, 0x40000000

    def __init__(self, folder):
        self.libc, self.folders = ctypes.CDLL(None, use_errno=True), {}
        self.fd = self.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self.add(folder)

    def add(self, folder):
        for where, folders, _ in os.walk(folder):
            folders[:] = [name for name in folders if name != ".snakemake"]
            number = self.libc.inotify_add_watch(
                self.fd, os.fsencode(where), self._create | self._modify
            )
            if number >= 0:
                self.folders[number] = Path(where)

    def wait(self, seconds):
        "Paths that were made or changed, after at most so many seconds"
        if not select.select([self.fd], [], [], seconds)[0]:
            return []
        data, at, paths = os.read(self.fd, 1 << 16), 0, []
        while at < len(data):
            number, mask, _, length = struct.unpack_from("iIII", data, at)
            name = data[at + 16 : at + 16 + length].rstrip(b"\0").decode()
            at += 16 + length
            if number not in self.folders:
                continue
            path = self.folders[number] / name
            if mask & self._is_dir:
                self.add(path)
            else:
                paths.append(path)
        return paths

    def close(self):
        os.close(self.fd)


def role_of(child, process):
    "What a process of the run `process` is; None for a helper of others"
    text = " ".join(child.cmdline())
    if child.name().startswith("warm-"):  # forked processes share a command line
        return "kernel" if child.name() == "warm-kernel" else None
    if "ipykernel" in text:
        return "kernel"
    if "fairparse.cli run" in text:
        return "worker"
    if "snakemake" in text and child.ppid() == process.pid:
        return "snakemake"
    return None


def family(process):
    """Processes of a run by what they are

    {"snakemake": [...], "worker": [...], "kernel": [...]}, each a `psutil.Process`."""
    found = {
        "reproduce": [psutil.Process(process.pid)],
        "snakemake": [],
        "worker": [],
        "kernel": [],
    }
    for child in found["reproduce"][0].children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if role := role_of(child, process):
                found[role].append(child)
    return found


def alive(processes):
    def lives(process):
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return [process for process in processes if lives(process)]


def send(processes, signum):
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signum)


def running_cell(path):
    """Number and source of the cell that a notebook is in, from its lab log

    None between cells or while the log is being written."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return None
    for number, cell in enumerate(cells):
        if cell["metadata"].get("papermill", {}).get("status") == "running":
            return number, "".join(cell["source"])
    return None


def cell_seconds(reference, log, number):
    "How long a cell took in the reference"
    try:
        return (
            json.loads((reference / log).read_text())["cells"][number]["metadata"]["papermill"][
                "duration"
            ]
            or 0.0
        )
    except (OSError, KeyError, IndexError):
        return 0.0


def is_temporary(path):
    return path.name.startswith(".") and ".tmp" in path.name


class Siege:
    "One output folder: its runs, the kills, and what they left"

    def __init__(self, command, folder, reference, rng):
        self.command, self.folder, self.reference, self.rng = command, folder, reference, rng
        self.family, self.log, self.started, self.runs = {}, None, time.time(), 0

    def start(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.runs += 1
        with open(self.folder.with_suffix(".log"), "a") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self.watch, self.log = Watch(self.folder), None

    def see(self, seconds):
        "Wait for writes; a changed lab log tells which notebook is at work"
        paths = self.watch.wait(seconds)
        for path in paths:
            if path.name.endswith(".running.ipynb"):
                if (
                    path != self.log
                    or not self.family.get("kernel")
                    or not alive(self.family["kernel"])
                ):
                    self.family = family(self.process)
                self.log = path
        return paths

    def halted(self, check):
        "Stop the worker and the kernel; True if `check` still holds then, else they go on"
        members = [*self.family.get("kernel", []), *self.family.get("worker", [])]
        send(members, signal.SIGSTOP)
        if check():
            return True
        send(members, signal.SIGCONT)
        return False

    def aim(self, victim, moment):
        "Wait for a moment; what was hit as text, or None if the run ended before"
        skip, due = (
            self.rng.randint(0, 3 if moment == "checkpoint" else 12),
            time.time() + self.rng.uniform(0, 15),
        )
        while self.process.poll() is None:
            paths = self.see(0.05)
            if moment == "any":
                if time.time() >= due and alive(family(self.process)[victim]):
                    return self.describe()
            elif moment == "training":
                cell = (
                    running_cell(self.log)
                    if self.log and any(path == self.log for path in paths)
                    else None
                )
                if not cell or not TRAINS.search(cell[1]):
                    continue
                time.sleep(
                    self.rng.random()
                    * cell_seconds(
                        self.reference,
                        self.log.relative_to(self.folder).with_name(
                            self.log.name.replace(".running", "")
                        ),
                        cell[0],
                    )
                )
                if self.halted(lambda: running_cell(self.log) == cell):
                    return self.describe()
            else:
                for path in paths:
                    if not is_temporary(path) or ("checkpoint" in path.parts) != (
                        moment == "checkpoint"
                    ):
                        continue
                    skip -= 1
                    if skip < 0 and self.halted(path.exists):
                        return (
                            f"{self.describe()}; half-written {path.relative_to(self.folder)}, "
                            f"{path.stat().st_size} bytes"
                        )
        return None

    def describe(self):
        "Where the run is: notebook, cell, files being written"
        if not self.log or not self.log.exists():
            return "between notebooks"
        cell = running_cell(self.log)
        return (
            f"{self.log.relative_to(self.folder)}".replace(".running.ipynb", "")
            + (f", cell {cell[0]}" if cell else ", between cells")
            + (" (trains)" if cell and TRAINS.search(cell[1]) else "")
        )

    def strike(self, victim, moment):
        "Kill `victim` at `moment`; a record of it, or None if the run ended before"
        where = self.aim(victim, moment)
        if where is None:
            return None
        members = self.family if moment != "any" else family(self.process)
        target = next(iter(alive(members[victim])), None)
        if target is None:
            return self.strike(victim, moment)  # it ended just now
        whole = [
            target,
            *target.children(recursive=True),
            *members["worker"],
            *members["kernel"],
            *(
                members["snakemake"] + members["reproduce"]
                if victim in ("snakemake", "reproduce")
                else []
            ),
        ]
        ends = list({process.pid: process for process in whole}.values())
        target.send_signal(signal.SIGKILL)
        seconds = time.time() - self.started
        time.sleep(0.2)
        send(alive(ends), signal.SIGCONT)
        orphans = self.wait_for(ends, victim)
        return {
            "seconds": round(seconds, 1),
            "victim": victim,
            "aimed": moment,
            "where": where,
            "orphans": len(orphans),
            "broken": "; ".join(broken_files(self.folder)),
        }

    def wait_for(self, ends, victim):
        "Those of a killed run who live on after 20 seconds; they are ended then"
        until = time.time() + 20
        if victim == "reproduce":
            self.process.wait()
        while (left := alive(ends)) and time.time() < until:
            time.sleep(0.1)
        send(left, signal.SIGKILL)
        return left

    def run(self, aims, say):
        """Run to the end, with kills on the way

        Each is a victim, a moment and how many notebooks must be finished before; the kills for
        which there was no moment left."""
        aims = list(aims)
        self.start()
        while True:
            while aims and self.process.poll() is None:
                if finished(self.folder) < aims[0][2]:
                    self.see(0.2)
                elif record := self.strike(*aims[0][:2]):
                    say(record)
                    aims.pop(0)
            self.process.wait()
            self.watch.close()
            if self.process.returncode == 0:
                return aims
            if self.runs > 60:
                raise SystemExit(
                    f"{self.folder} does not get to its end: see {self.folder.with_suffix('.log')}"
                )
            self.start()


def finished(folder):
    "Notebooks that ran to their end"
    return sum(
        1
        for path in folder.rglob("*.ipynb")
        if not path.name.startswith(".")
        and not path.name.endswith((".running.ipynb", ".failed.ipynb"))
    )


def read_whole(path):
    "Read a file to its end; raises whatever its reader raises"
    kind = path.suffix
    if kind == ".json" or (
        kind == ".ipynb" and not path.name.endswith((".running.ipynb", ".failed.ipynb"))
    ):
        json.loads(path.read_text(encoding="utf-8"))
    elif kind == ".yaml":
        yaml.safe_load(path.read_text(encoding="utf-8"))
    elif kind == ".parquet":
        pd.read_parquet(path)
    elif kind == ".csv":
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise ValueError("the last line is not ended")
        pd.read_csv(path)
    elif kind == ".npy":
        np.load(path)
    elif kind == ".npz":
        with np.load(path) as file:
            [file[name] for name in file.files]
    elif kind == ".safetensors":
        load_file(path)
    elif kind == ".pt":
        torch.load(path, map_location="cpu", weights_only=True)
    elif kind == ".png":
        Image.open(path).load()


def broken_files(folder):
    "Files under their final names that cannot be read to the end"
    bad = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or any(
            part.startswith(".") for part in path.relative_to(folder).parts
        ):
            continue
        try:
            read_whole(path)
        except FileNotFoundError:
            pass  # the run goes on and has replaced it
        except pd.errors.EmptyDataError:
            pass  # a table without rows and columns
        except Exception as error:
            bad.append(f"{path.relative_to(folder)}: {type(error).__name__} {str(error)[:80]}")
    return bad


def plan(kills, runs, jobs, rng):
    """For each run its kills: victim, moment, and how many notebooks must be finished before

    Half of them aimed."""
    victims = [VICTIMS[i % len(VICTIMS)] for i in range(kills)]
    moments = [MOMENTS[i // 2 % len(MOMENTS)] if i % 2 == 0 else "any" for i in range(kills)]
    rng.shuffle(victims)
    pairs = list(zip(victims, moments))
    rng.shuffle(pairs)
    planned = []
    for run in range(runs):
        own = pairs[run::runs]
        planned.append(
            [
                (*pair, before)
                for pair, before in zip(own, sorted(rng.randint(0, max(jobs - 3, 0)) for _ in own))
            ]
        )
    return planned


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--runs", type=int, default=4, help="output folders among which the kills are dealt"
    )
    parser.add_argument("--seed", type=int, default=0, help="of victims and moments")
    parser.add_argument("--profile", default="ci")
    parser.add_argument(
        "--out", required=True, type=Path, help="gets reference/, run0/ ... and kills.csv"
    )
    parser.add_argument(
        "--reference", type=Path, help="a finished run that nobody disturbed (default: one is made)"
    )
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--stages", nargs="+", default=[])
    parser.add_argument("--set", dest="settings", action="append", default=[])
    given = parser.parse_args(argv)
    out, rng = given.out.absolute(), random.Random(given.seed)

    def command(folder):
        return [
            sys.executable,
            "-m",
            "fairparse.cli",
            "reproduce",
            "--profile",
            given.profile,
            "--cores",
            str(given.cores),
            "--out",
            str(folder),
            *(["--stages", *given.stages] if given.stages else []),
            *(part for setting in given.settings for part in ("--set", setting)),
        ]

    reference = (given.reference or out / "reference").absolute()
    out.mkdir(parents=True, exist_ok=True)
    if not given.reference:
        subprocess.run(command(reference), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    kills, good = [], True
    left, planned = [], plan(given.kills, given.runs, finished(reference), rng)
    for number in range(given.runs + 10):
        aims = planned[number] if number < given.runs else [(*aim[:2], 0) for aim in left[:5]]
        if number >= given.runs:
            left = left[5:]
        if not aims:
            break
        siege = Siege(command(out / f"run{number}"), out / f"run{number}", reference, rng)

        def say(record):
            kills.append({"run": number, "kill": len(kills) + 1, **record})
            print(
                (
                    f"kill {len(kills)} in run {number} after {record['seconds']} s: "
                    f"{record['victim']} at {record['where']} (aimed: {record['aimed']}); "
                    f"{record['orphans']} live on, broken: {record['broken'] or 'none'}"
                ),
                flush=True,
            )
            pd.DataFrame(kills).to_csv(out / "kills.csv", index=False)

        left += siege.run(aims, say)
        good &= conclude(
            siege, reference, out / f"run{number}", [k for k in kills if k["run"] == number]
        )
    summary = Counter((k["victim"], k["aimed"]) for k in kills)
    print(
        f"{len(kills)} kills: "
        + ", ".join(
            f"{count} {victim}/{aimed}" for (victim, aimed), count in sorted(summary.items())
        )
    )
    bad = [k for k in kills if k["orphans"] or k["broken"]]
    print(
        (
            f"half-written files or processes that lived on after {len(bad)} kills; results "
            f"{'equal' if good else 'DIFFERENT'} in all runs"
        )
    )
    return 0 if good and not bad and len(kills) == given.kills else 1


def conclude(siege, reference, folder, kills):
    "Compare a finished run with the reference; True if nothing differs and nothing is left lying"
    compared = compare_folders(reference, folder)
    left = [
        str(path.relative_to(folder))
        for path in folder.rglob(".*")
        if ".snakemake" not in path.parts and path.name not in (".lock", ".fairparse.lock")
    ]
    print(
        (
            f"run {folder.name}: {len(kills)} kills, {siege.runs} starts, "
            f"{time.time() - siege.started:.0f} s; left lying: {left or 'nothing'}\n"
            f"{describe_comparison(compared)}"
        ),
        flush=True,
    )
    return not len(compared.differences) and not left


if __name__ == "__main__":
    sys.exit(main())
