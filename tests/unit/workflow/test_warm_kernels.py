"Kernels forked from a run's nursery: at once, killed, abandoned, and where there can be none"

import json
import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest
from cli_helpers import wait_until
from conftest import ROOT, command_line, write_notebook

from fairparse.workflow import warm_kernels as warm
from fairparse.workflow.nursery import receive_message, send_message

pytestmark = pytest.mark.skipif(warm.why_cold("") != "", reason="needs Linux")

CELLS = (
    'out = ""\nend = ""',
    "import os, sys\nimport numpy as np\n"
    "print(os.getppid(), os.getpid(), np.random.rand(), os.environ.get('OMP_NUM_THREADS'))",
    "import time\nopen(out, 'w').write(str(os.getpid()))\nexec(end)",
)


@pytest.fixture(scope="module")
def nursery():
    with warm.warm_kernels():
        yield os.environ[warm.ADDRESS]


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(tmp_path / "20_toy.ipynb", *CELLS)


def printed(log):
    "Words that the first cell printed"
    outputs = json.loads(log.read_text())["cells"][-2]["outputs"]
    return "".join(outputs[0]["text"]).split()


def job(notebook, name, *words):
    "The command line of a job and its log"
    log = notebook.with_name(f"{name}.ipynb")
    out = notebook.with_name(f"{name}.pid")
    return command_line("run", notebook, log, "-p", "out", out, *words), log, out


def request(code, **changed):
    "A request for a process that runs `code` as a kernel would be"
    environment = {**os.environ, **changed.pop("environment", {})}
    command = [sys.executable, "-c", code, "one", "two"]
    asked = {"command": command, "folder": str(ROOT), "environment": environment}
    return {**asked, "packages": ["numpy"], **changed}


def run_code(nursery, code, **changed):
    "Exit code of a forked process"
    return warm.WarmProcess(nursery, request(code, **changed)).wait(60)


def is_gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_jobs_in_turn_and_at_once_share_imports_and_no_random_numbers(nursery, notebook):
    processes, logs = [], []
    for name in "ab":
        command, log, _ = job(notebook, name, "--threads", 1)
        processes.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True))
        logs.append(log)
    for process in processes:
        _, said = process.communicate(timeout=180)
        assert process.returncode == 0 and "warm kernel" not in said, said
    command, log, _ = job(notebook, "c", "--threads", 1)
    subprocess.run(command, cwd=ROOT, check=True, timeout=180)
    stems, kernels, draws, threads = zip(*map(printed, [*logs, log]))
    assert len(set(stems)) == 1, "one stem for equal environments"
    assert len(set(kernels)) == len(set(draws)) == 3 and set(threads) == {"1"}


def test_other_threads_have_a_stem_of_their_own(nursery, capfd):
    "Libraries read the number of threads when they are loaded"
    code = "import os; raise SystemExit(os.getppid() % 251 if {} else 252)"
    found = {
        threads: run_code(
            nursery,
            code.format(f"os.environ['OMP_NUM_THREADS'] == '{threads}'"),
            environment={"OMP_NUM_THREADS": threads},
        )
        for threads in ("1", "3")
    }
    assert found["1"] != found["3"] and 252 not in found.values()
    assert capfd.readouterr().err == "", "OpenBLAS's threads are no obstacle"


def test_a_forked_process_is_like_a_new_one(nursery):
    code = (
        "import os, sys, gc\n"
        "assert sys.argv == ['-c', 'one', 'two'], sys.argv\n"
        "assert sys.path[0] == '' and os.getcwd() == os.environ['HERE']\n"
        "assert 'numpy' in sys.modules and 'fairparse' not in sys.modules\n"
        "assert os.getsid(0) == os.getpid() and gc.isenabled()\n"
        "assert os.environ['JPY_PARENT_PID'] == str(os.getppid())\n"
        "assert sys.stdin.read() == '' and len(os.listdir('/proc/self/task')) == 1\n"
        # input, output, error, and the folder that is being listed
        "assert len(os.listdir('/proc/self/fd')) == 4, os.listdir('/proc/self/fd')"
    )
    assert run_code(nursery, code, environment={"HERE": str(ROOT)}) == 0


@pytest.mark.parametrize(
    "code, expected",
    [
        ("pass", 0),
        ("raise SystemExit(3)", 3),
        ("1 / 0", 1),
        ("import os; os._exit(7)", 7),
        ("import os; os.kill(os.getpid(), 9)", -9),
    ],
)
def test_how_a_kernel_ended_is_told(nursery, code, expected):
    assert run_code(nursery, code) == expected


def test_signals_reach_a_kernel(nursery):
    kernel = warm.WarmProcess(nursery, request("import time; time.sleep(600)"))
    assert kernel.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        kernel.wait(0.1)
    kernel.terminate()
    assert kernel.wait(20) == -signal.SIGTERM
    kernel.kill()  # of one that has ended: nothing happens
    assert kernel.poll() == -signal.SIGTERM


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_a_killed_kernel_is_an_error_as_ever(nursery, notebook, end):
    command, log, _ = job(notebook, "killed", "-p", "end", end)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1 and "ended without a word" in done.stderr, done.stderr
    assert not log.exists()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_no_kernel_outlives_its_job(nursery, notebook, signum):
    command, _, out = job(notebook, "left", "-p", "end", "time.sleep(600)")
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    assert wait_until(lambda: out.exists() and out.read_text(), 120)
    kernel = int(out.read_text())
    assert psutil.Process(kernel).name() == "warm-kernel"
    process.send_signal(signum)
    assert process.wait(30) != 0
    assert wait_until(lambda: is_gone(kernel), 10)


def test_stems_and_kernels_end_with_the_nursery():
    with warm.warm_kernels():
        kernel = warm.WarmProcess(os.environ[warm.ADDRESS], request("import time; time.sleep(600)"))
        stem = psutil.Process(kernel.pid).parent()
        assert stem.name() == "warm-stem" and stem.parent().name() == "warm-nursery"
        os.kill(stem.ppid(), signal.SIGKILL)
        assert kernel.wait(20) == -signal.SIGKILL
        assert wait_until(lambda: is_gone(stem.pid), 10)


def test_a_stem_that_died_is_replaced(nursery):
    kernel = warm.WarmProcess(nursery, request("import time; time.sleep(600)"))
    os.kill(psutil.Process(kernel.pid).ppid(), signal.SIGKILL)
    assert kernel.wait(20) == -signal.SIGKILL
    assert run_code(nursery, "pass") == 0


def test_what_an_interpreter_reads_at_its_start_must_be_the_same(nursery, notebook):
    command, log, _ = job(notebook, "other")
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert done.returncode == 0 and log.exists(), done.stderr
    assert "no warm kernel (PYTHONHASHSEED differ from the run's)" in done.stderr, done.stderr


def test_a_nursery_that_is_gone_leaves_ordinary_kernels(tmp_path, notebook):
    environment = {**os.environ, warm.ADDRESS: str(tmp_path / "absent")}
    command, log, _ = job(notebook, "alone")
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=180, env=environment
    )
    assert done.returncode == 0 and log.exists(), done.stderr
    assert "no warm kernel" in done.stderr and "a new one starts" in done.stderr


def test_a_package_that_starts_a_thread_is_not_forked(nursery, tmp_path, capfd):
    (tmp_path / "starts_a_thread.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(99,), daemon=True).start()"
    )
    code = "import os, sys; raise SystemExit('starts_a_thread' in sys.modules)"
    # the stem finds the module in its working folder, which is the nursery's
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with warm.warm_kernels():
            assert run_code(os.environ[warm.ADDRESS], code, packages=["starts_a_thread"]) == 0
    assert "1 more threads run in it; a new one starts" in capfd.readouterr().err


def test_a_request_that_breaks_off_does_no_harm(nursery):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(nursery)
    assert run_code(nursery, "pass") == 0


def test_where_there_are_none_it_is_said_once(monkeypatch, capsys):
    monkeypatch.delenv(warm.ADDRESS, raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    with warm.warm_kernels():
        assert not os.environ.get(warm.ADDRESS)
    assert capsys.readouterr().out.count("they need Linux, not darwin") == 1
    with warm.warm_kernels(wanted=False):
        assert not os.environ.get(warm.ADDRESS)
    assert capsys.readouterr().out == ""
    assert "TMPDIR" in warm.why_cold("/tmp/" + "x" * 90) or sys.platform == "darwin"


def test_a_nursery_imports_the_standard_library_alone():
    imports = warm.imported_packages([ROOT / "fairparse" / "workflow" / "nursery.py"])
    assert imports <= sys.stdlib_module_names, imports


def test_messages_carry_files():
    here, there = socket.socketpair()
    with here, there, open(os.devnull) as file:
        send_message(here, {"a": 1}, [file.fileno()])
        message, files = receive_message(there)
        assert message == {"a": 1} and len(files) == 1
        os.close(files[0])


@pytest.mark.parametrize("devices, said", [(0, ""), (1, "CUDA was used in it")])
def test_a_look_for_devices_is_an_obstacle_only_where_there_are_some(devices, said):
    "`torch.cuda.is_available()`, which diffusers asks at import, counts as use of CUDA"
    code = (
        "import torch\n"
        "from fairparse.workflow.nursery import why_not_fork\n"
        "torch.cuda._is_in_bad_fork = lambda: True\n"
        f"torch.cuda.device_count = lambda: {devices}\n"
        "print(why_not_fork(), end='')"
    )
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # no thread of its own is an obstacle
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=alone)
    assert (done.stdout, done.returncode) == (said, 0), done.stderr
