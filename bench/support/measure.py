"""Runs a server on one core and its load on another, and reads the CPU time of the server from /proc."""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY = REPOSITORY / "target/release/fingerpost"
SERVER_CORE, LOAD_CORE = "0", "1"
TICK = os.sysconf("SC_CLK_TCK")
UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write(path, text):
    path.write_text(text)
    return path


class Server:
    """A process that listens. `command` returns its command line for a folder of its own and a port."""

    def __init__(self, name, command, core=SERVER_CORE, port=None):
        self.name, self.folder, self.port = name, pathlib.Path(tempfile.mkdtemp()), port or free_port()
        environment = dict(os.environ, GOMAXPROCS="1", XDG_DATA_HOME=str(self.folder), XDG_CONFIG_HOME=str(self.folder))
        self.process = subprocess.Popen(["taskset", "-c", core, *map(str, command(self.folder, self.port))],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"{name} does not listen")

    def processes(self):
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def cpu(self):
        """Seconds of CPU time so far."""
        total = 0
        for pid in self.processes():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def resident(self):
        """KiB of memory."""
        return sum(int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])
                   for pid in self.processes())

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Starved(Exception):
    """The machine gave the server or its load no time; the round does not count."""


def wrk(server, path, connections, seconds, scheme="http", script=None, headers=(), status="2xx"):
    """Loads the server. Returns its CPU time, the requests and bytes, and two latencies in seconds."""
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    if script:
        command += ["-s", str(script)]
    for header in headers:
        command += ["-H", header]
    before = server.cpu()
    host = "localhost" if scheme == "https" else "127.0.0.1"
    output = subprocess.run([*command, f"{scheme}://{host}:{server.port}{path}"], capture_output=True, text=True).stdout
    used = server.cpu() - before
    found = re.search(r"(\d+) requests in [\d.]+\w+, ([\d.]+)(\w+) read", output)
    requests, size, unit = int(found[1]), float(found[2]), found[3]
    if ("Non-2xx" in output) != (status == "4xx"):
        raise SystemExit(f"{server.name} {path}:\n{output}")
    if not size:
        raise Starved(f"{server.name} answered nothing to {path} in {seconds} s")

    def latency(percent):
        value, unit = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)\b", output).groups()
        return float(value) * TIMES[unit]

    return {"cpu": used, "requests": requests, "bytes": size * UNITS[unit], "p50": latency(50), "p99": latency(99)}


def per_request(path, connections=64, **how):
    """A measurement: microseconds of CPU time for each request."""
    def measure(server, seconds):
        run = wrk(server, path, connections, seconds, **how)
        return run["cpu"] / run["requests"] * 1e6
    return measure


def per_gib(path, **how):
    """A measurement: seconds of CPU time for each GiB."""
    def measure(server, seconds):
        run = wrk(server, path, 8, seconds, **how)
        return run["cpu"] / run["bytes"] * (1 << 30)
    return measure
