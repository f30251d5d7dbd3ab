"JupyterLab and Chromium for the tests of what a person sees"

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing, contextmanager

from conftest import ROOT

CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)
CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
TOKEN = "stranger"
PATIENCE = 60_000  # milliseconds: on a busy machine JupyterLab takes its time

SETTINGS = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },  # no pop-up over the page
    "@jupyter-widgets/jupyterlab-manager/plugin.jupyterlab-settings": {"saveState": True},
}  # the worst case for privacy


def free_port():
    with closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def serve_lab(tmp_path, work):
    "JupyterLab with settings of its own, serving the folder `work`; its address"
    for name, text in SETTINGS.items():
        (tmp_path / "settings" / name).parent.mkdir(parents=True)
        (tmp_path / "settings" / name).write_text(json.dumps(text))
    folders = {
        name: str(tmp_path / name.lower())
        for name in (
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_DATA_DIR",
            "JUPYTER_RUNTIME_DIR",
            "JUPYTERLAB_WORKSPACES_DIR",
            "IPYTHONDIR",
        )
    }
    env = {
        **os.environ,
        **folders,
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={work}",
    ]
    with (
        open(tmp_path / "lab.log", "w") as log,
        subprocess.Popen(command, cwd=work, env=env, stdout=log, stderr=log) as server,
    ):
        try:
            wait_for_server(
                server, f"http://127.0.0.1:{port}/api?token={TOKEN}", tmp_path / "lab.log"
            )
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def wait_for_server(server, address, log):
    deadline = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()}")


class Notebook:
    "A notebook in JupyterLab, as a person works with it"

    def __init__(self, page):
        self.page = page

    def open(self, address):
        self.page.goto(address)
        self.wait_idle()

    def wait_idle(self):
        self.page.wait_for_selector(
            '#jp-main-statusbar:has-text("| Idle")', timeout=PATIENCE
        )  # a "run all" before that is lost without a word

    def menu(self, menu, entry):
        self.page.click(f'.lm-MenuBar-itemLabel:text-is("{menu}")')
        self.page.click(f'.lm-Menu-itemLabel:text-is("{entry}")')
