"How threads wait, how many are free, and that a resumed training keeps its number"

import os
import subprocess
import sys

import pytest
import torch

from fairparse.core import runs, threads
from fairparse.core.training import Resumable


def in_a_new_process(code, **environment):
    "What a program prints that starts without the variables of this one"
    plain = {key: value for key, value in os.environ.items() if key not in threads.WAITING}
    command = [sys.executable, "-c", code]
    options = dict(env={**plain, **environment}, capture_output=True, text=True, check=True)
    return subprocess.run(command, **options).stdout.strip()


ASKED = "from fairparse.core.threads import waiting; print(waiting())"


@pytest.mark.parametrize(
    "code", (ASKED, f"import fairparse.core.runs, torch; {ASKED}", f"import fairparse.cli; {ASKED}")
)
def test_whoever_imports_the_package_has_threads_that_sleep(code):
    assert in_a_new_process(code) == "OMP_WAIT_POLICY=PASSIVE"


def test_a_process_that_loaded_torch_first_says_so_and_its_children_sleep():
    said = in_a_new_process(f"import torch; {ASKED}")
    assert said == "busily, for torch was imported before fairparse"
    child = f"print(subprocess.check_output([sys.executable, '-c', {ASKED!r}], text=True))"
    child = f"import subprocess, sys; {child}"
    assert in_a_new_process(f"import torch, fairparse; {child}") == "OMP_WAIT_POLICY=PASSIVE"
    said = in_a_new_process(f"import torch; {ASKED}", OMP_WAIT_POLICY="PASSIVE")
    assert said == "OMP_WAIT_POLICY=PASSIVE", "who starts a job says it before Python begins"


@pytest.mark.parametrize(
    "name, value, asleep",
    (
        ("OMP_WAIT_POLICY", "ACTIVE", False),
        ("OMP_WAIT_POLICY", "passive", True),
        ("GOMP_SPINCOUNT", "1000", False),
        ("GOMP_SPINCOUNT", "0", True),
        ("KMP_BLOCKTIME", "200", False),
    ),
)
def test_what_a_user_has_said_stays(name, value, asleep):
    environment = {name: value}
    threads.let_threads_sleep(environment)
    assert environment == {name: value}
    words = threads.waiting(environment, too_late=False)
    assert words == f"{name}={value}" and threads.wait_asleep(words) is asleep


def test_cores_are_counted_by_what_others_leave():
    before = threads.idle_times("cpu0 0 0 0 100 5 0 0 0 7 7\ncpu3 9 0 0 0 0 0 0 0 0 0\nintr 4")
    after = threads.idle_times("cpu0 0 0 0 110 15 0 0 0 9 9\ncpu3 19 0 0 10 0 0 0 20 0 0\nintr 5")
    assert before == {0: (105, 105), 3: (0, 9)}
    assert threads.idle_cores(before, after, {0}) == 1
    assert threads.idle_cores(before, after, {0, 3, 8}) == 1.25, "stolen time is not ours"
    assert threads.idle_cores(before, before, {0}) == 0


def test_there_is_always_a_core(monkeypatch):
    monkeypatch.setattr(threads, "idle_cores", lambda *looks: 0.2)
    assert threads.free_cores(0) == 1
    monkeypatch.setattr(threads, "idle_cores", lambda *looks: 99.0)
    assert threads.free_cores(0) == threads.available_cores()


def test_a_number_that_is_given_is_taken_in_silence():
    assert threads.choose_threads(0, pytest.fail) == 0  # refused by the command, with its reason
    assert threads.choose_threads(7, pytest.fail) == 7


class Counting(Resumable):
    unit, kept, goal, config = "step", (), 3, {}

    def __init__(self, folder):
        self.folder, self.device, self.step, self.said = folder, "cpu", 0, []
        self.say = self.said.append
        self.identify(["counting"])

    def networks(self):
        return {}


def test_a_resumed_training_keeps_the_number_of_threads_it_began_with(tmp_path):
    number = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        began = Counting(tmp_path)
        began.step = 1
        began.save()

        torch.set_num_threads(1)
        resumed = Counting(tmp_path)
        resumed.resume()
        assert resumed.step == 1 and torch.get_num_threads() == 2
        assert resumed.said[0] == "threads: 2, as at the beginning of this training"
        assert runs.thread_facts()["used"] == 2
    finally:
        torch.set_num_threads(number)
