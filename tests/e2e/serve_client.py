"""What tests of `qwen3 serve` share: a server on some ranks, and requests to it."""
import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from e2e import BIN, EMULATOR, ENVIRONMENT, LAUNCH, MPIEXEC, ROOT, Checks

DEMO = ROOT / "models" / "demo"
FACTS = "The red box holds 4711. Anna lives in Paris. Ben's cat is called Luna."


def built_without_server():
    outcome = subprocess.run([*EMULATOR, BIN / "qwen3", "serve"], capture_output=True, text=True, check=False)
    return "built without libmicrohttpd" in outcome.stderr


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run_node_suite(suite, package, checks):
    """A suite for node, where npm packages are in the folder that QWEN3_NODE_MODULES names: prints a line for each of
    so many checks. Returns an exit status."""
    folder = pathlib.Path(os.environ.get("QWEN3_NODE_MODULES", ""))
    if built_without_server() or not shutil.which("node") or not (folder / "node_modules" / package).is_dir():
        print(f"skipped: needs libmicrohttpd, node, and QWEN3_NODE_MODULES with {package}")
        return 77
    c = Checks()
    with Server() as s:
        command = ["node", pathlib.Path(__file__).with_name(suite), s.address]
        outcome = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        lines = outcome.stdout.splitlines()
        for line in lines:
            c.true(line.partition(": ")[2], line.startswith("ok: "), line)
        c.true("the suite ends", outcome.returncode == 0 and len(lines) >= checks, outcome)
    return c.finish()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Reply:
    def __init__(self, response):
        self.status, self.headers = response.status, response.headers
        self.text = response.read().decode()

    @property
    def json(self):
        return json.loads(self.text)

    @property
    def error(self):
        """The message of an error in OpenAI's form, "" if it is none."""
        try:
            error = self.json["error"]
            whole = {"message", "type", "param", "code"} <= set(error) and isinstance(error["type"], str)
            return error["message"] if whole else ""
        except (ValueError, KeyError, TypeError):
            return ""

    @property
    def events(self):
        """Of a stream: the chunks; the last line must be [DONE]."""
        lines = [line for line in self.text.split("\n\n") if line and not line.startswith(":")]
        assert lines and lines[-1] == "data: [DONE]", lines[-1:]
        return [json.loads(line[len("data: "):]) for line in lines[:-1]]


class Server:
    """A running server; `with` ends it by SIGTERM to rank 0."""

    def __init__(self, *options, ranks=1, model=DEMO, env=None):
        command = [*EMULATOR, str(BIN / "qwen3"), "serve", "--model", str(model), *map(str, options)]
        if "--socket" not in options:
            command += ["--port", "0"]
        if ranks > 1:
            command = [LAUNCH, MPIEXEC, str(ranks), *command]
        self.err = tempfile.TemporaryFile("w+")
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=self.err, start_new_session=True,
                                      env={**ENVIRONMENT, **(env or {})})
        self.address = self.wait_for_address()

    def errors(self):
        self.err.seek(0)
        return self.err.read()

    def wait_for_address(self):
        for _ in range(600):
            found = re.search(r"answers at (\S+)", self.errors())
            if found:
                return found[1]
            if self.child.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"the server does not start: {self.errors()}")

    def connect(self, timeout=20):
        if self.address.startswith("unix:"):
            return UnixConnection(self.address[len("unix:"):], timeout)
        host, port = re.fullmatch(r"http://(.*):(\d+)", self.address).groups()
        return http.client.HTTPConnection(host, int(port), timeout=timeout)

    def socket(self, timeout=20):
        connection = self.connect(timeout)
        connection.connect()
        return connection.sock

    def request(self, method, path, body=None, headers=None):
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
            return Reply(connection.getresponse())

    def get(self, path, **headers):
        return self.request("GET", path, headers=headers)

    def post(self, path, body, **headers):
        return self.request("POST", path, body if isinstance(body, (bytes, str)) else json.dumps(body), headers)

    def chat(self, question, **options):
        messages = question if isinstance(question, list) else [{"role": "user", "content": question}]
        return self.post("/v1/chat/completions", {"messages": messages, **options})

    def complete(self, prompt, **options):
        return self.post("/v1/completions", {"prompt": prompt, **options})

    def metric(self, name):
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics").text, re.M)
        return float(found[1]) if found else None

    def pid(self):
        """That of rank 0, which handles signals; launchers only pass on what ends a job."""
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError, ValueError):
                with open(f"/proc/{entry}/environ", "rb") as file:
                    ranks = re.findall(rb"(?:OMPI_COMM_WORLD_RANK|PMI_RANK)=(\d+)", file.read())
                if os.getpgid(int(entry)) and os.getsid(int(entry)) == self.child.pid and ranks[:1] == [b"0"]:
                    return int(entry)
        return self.child.pid

    def stop(self, number=signal.SIGTERM, timeout=20):
        """Returns the exit status, None if it hung."""
        if self.child.poll() is None:
            os.kill(self.pid(), number)
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
            return None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stop()
        self.err.close()
