"""As much of a Kubernetes cluster as the executor talks to

Jobs are written down and their commands run here, one process a pod."""

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Cluster:
    "Serves the API on loopback; `jobs` are the job objects that it was given"

    def __init__(self, folder):
        self.folder, self.jobs, self.processes, self.secrets = Path(folder), {}, {}, set()
        self.server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (Handler,), {"cluster": self})
        )
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.kubeconfig = self.folder / "kubeconfig"
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "here",
                    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
                    "clusters": [
                        {
                            "name": "here",
                            "cluster": {"server": f"http://127.0.0.1:{self.server.server_port}"},
                        }
                    ],
                    "users": [{"name": "me", "user": {}}],
                }
            )
        )

    def create_job(self, job):
        name, (container,) = job["metadata"]["name"], job["spec"]["template"]["spec"]["containers"]
        self.jobs[name] = job
        self.processes[name] = subprocess.Popen(
            [*container["command"], *container["args"]],
            cwd=self.folder,
            stdout=open(self.folder / f"{name}.log", "w"),
            stderr=subprocess.STDOUT,
        )
        return job

    def job_status(self, name):
        code = self.processes[name].poll()
        return {
            **self.jobs[name],
            "status": {} if code is None else {"succeeded": 1} if code == 0 else {"failed": 1},
        }

    def pods(self, name):
        code = self.processes[name].poll()
        state = {"running": {}} if code is None else {"terminated": {"exitCode": code}}
        status = {
            "name": "snakemake",
            "image": "",
            "imageID": "",
            "ready": True,
            "restartCount": 0,
            "state": state,
        }
        return {"items": [{"metadata": {"name": name}, "status": {"containerStatuses": [status]}}]}

    def close(self):
        self.server.shutdown()
        for process in self.processes.values():
            process.kill()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def answer(self, body, code=200):
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(code)
        self.send_header(
            "Content-Type", "text/plain" if isinstance(body, str) else "application/json"
        )
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/jobs"):
            return self.answer(self.cluster.create_job(body), 201)
        self.cluster.secrets.add(body["metadata"]["name"])
        self.answer(body, 201)

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path.endswith("/status"):
            return self.answer(self.cluster.job_status(path.split("/")[-2]))
        if path.endswith("/log"):
            return self.answer((self.cluster.folder / f"{path.split('/')[-2]}.log").read_text())
        if path.endswith("/pods"):
            return self.answer(self.cluster.pods(query.partition("job-name%3D")[2]))
        self.answer({"message": f"no {path}"}, 404)

    def do_DELETE(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "/secrets/" in self.path:
            self.cluster.secrets.discard(self.path.split("/")[-1].partition("?")[0])
        self.answer({"status": "Success"})
