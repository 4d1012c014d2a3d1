#!/usr/bin/env python3
"""Compares HTTPS of fingerpost with nginx and HAProxy on one core: redirects, handshakes and files, in interleaved rounds.

All use a certificate with an ECDSA P-256 key, TLS 1.3 and TLS_AES_256_GCM_SHA384. Server CPU time is read from /proc. Needs wrk,
openssl and a release build; a server that is not installed is left out and named.

    cargo build --release && bench/https/run.py [--rounds 5] [--seconds 3]
"""

import argparse
import math
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY = REPOSITORY / "target/release/fingerpost"
SERVER_CORE, LOAD_CORE = "0", "1"
TICK = os.sysconf("SC_CLK_TCK")
TARGET = "/pub/releases/image.iso?mirror=any"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write(path, text):
    path.write_text(text)
    return path


class Place:
    """A folder with a certificate, files, and the backend of the balancer."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        os.chmod(self.folder, 0o755)
        self.root = self.folder / "root"
        self.root.mkdir()
        (self.root / "1M").write_bytes(os.urandom(1 << 20))
        (self.root / "100M").write_bytes(os.urandom(1 << 20) * 100)
        self.certificate, self.key = self.folder / "own.pem", self.folder / "own.key"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                        "-keyout", self.key, "-out", self.certificate], check=True, capture_output=True)
        write(self.folder / "both.pem", self.certificate.read_text() + self.key.read_text())

    def tls(self, port):
        return ["--tls-cert", self.certificate, "--tls-key", self.key, "--tls-port", port]


def fingerpost_files(place, port):
    return [BINARY, "server", "--root", place.root, "--host", "127.0.0.1", "--workers", "1", "--digests", "off", *place.tls(port)]


def fingerpost_redirects(place, port):
    backend = free_port()
    place.backend = Server("backend", fingerpost_files, place, LOAD_CORE, backend)
    servers = write(place.folder / f"list-{port}", f"https://localhost:{backend}\n")
    return [BINARY, "balancer", "--servers", servers, "--host", "127.0.0.1", "--workers", "1", "--backend-ca", place.certificate,
            *place.tls(port)]


def nginx(place, port, location):
    folder = pathlib.Path(tempfile.mkdtemp(dir=place.folder))
    return ["nginx", "-p", folder, "-c", write(folder / "nginx.conf", f"""
        daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; user root;
        events {{ worker_connections 12000; }}
        http {{ access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 100000000; server_tokens off;
            open_file_cache max=1000 inactive=20s; open_file_cache_valid 1s;
            ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {place.certificate}; ssl_certificate_key {place.key};
            ssl_session_cache shared:s:10m; ssl_session_tickets on;
            server {{ listen 127.0.0.1:{port} ssl; {location} }} }}""")]


def nginx_files(place, port):
    return nginx(place, port, f"root {place.root};")


def nginx_redirects(place, port):
    return nginx(place, port, "location / { return 301 https://127.1.0.1:8081$request_uri; }")


def haproxy_redirects(place, port):
    return ["haproxy", "-f", write(place.folder / "haproxy.cfg", f"""
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
frontend f
    bind 127.0.0.1:{port} ssl crt {place.folder}/both.pem ssl-min-ver TLSv1.2
    http-request redirect prefix https://127.1.0.1:8081 code 301
""")]


REDIRECTS = {"fingerpost": fingerpost_redirects, "nginx": nginx_redirects, "haproxy": haproxy_redirects}
FILES = {"fingerpost": fingerpost_files, "nginx": nginx_files}


class Server:
    def __init__(self, name, command, place, core=SERVER_CORE, port=None):
        self.name, self.port = name, port or free_port()
        self.process = subprocess.Popen(["taskset", "-c", core, *map(str, command(place, self.port))],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"{name} does not listen")

    def cpu(self):
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        total = 0
        for pid in [self.process.pid, *map(int, children)]:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()


def wrk(server, path, connections, seconds, headers=()):
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    for header in headers:
        command += ["-H", header]
    before = server.cpu()
    output = subprocess.run([*command, f"https://localhost:{server.port}{path}"], capture_output=True, text=True).stdout
    used = server.cpu() - before
    found = re.search(r"(\d+) requests in [\d.]+\w+, ([\d.]+)(\w+) read", output)
    if "Non-2xx" in output and path != TARGET:
        raise SystemExit(f"{server.name} {path}:\n{output}")
    size = float(found[2]) * {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}[found[3]]
    return used, int(found[1]), size


def per_request(*headers):
    def measure(server, seconds):
        used, requests, _ = wrk(server, TARGET, 64, seconds, headers)
        return used / requests * 1e6
    return measure


def resumed(server, seconds):
    """One client after another, each with the session of the one before."""
    command = ["taskset", "-c", LOAD_CORE, "openssl", "s_time", "-connect", f"localhost:{server.port}", "-reuse", "-www", TARGET,
               "-time", str(seconds)]
    before = server.cpu()
    output = subprocess.run(command, capture_output=True, text=True).stdout
    used = server.cpu() - before
    return used / int(re.search(r"(\d+) connections in [\d.]+s", output)[1]) * 1e6


def per_gib(path):
    def measure(server, seconds):
        used, _, size = wrk(server, path, 8, seconds)
        return used / size * (1 << 30)
    return measure


ROWS = {
    "redirect, connections stay open, us": (REDIRECTS, per_request()),
    "redirect, full handshake, us": (REDIRECTS, per_request("Connection: close")),
    "redirect, resumed session, us": (REDIRECTS, resumed),
    "1 MiB, CPU s/GiB": (FILES, per_gib("/1M")),
    "100 MiB, CPU s/GiB": (FILES, per_gib("/100M")),
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=3)
    arguments.add_argument("--only", help="a regular expression of rows", default="")
    arguments = arguments.parse_args()
    place = Place()
    servers = {}
    try:
        print("| what | fingerpost | nginx | HAProxy | to nginx | to HAProxy |\n|---|---|---|---|---|---|")
        for name, (contenders, measure) in ROWS.items():
            if not re.search(arguments.only, name):
                continue
            values = {contender: [] for contender in contenders}
            for contender, command in contenders.items():
                program = "fingerpost" if contender == "fingerpost" else contender
                if program != "fingerpost" and not shutil.which(program):
                    print(f"left out: {contender}, since it is not installed", file=sys.stderr)
                    continue
                if command not in servers:
                    servers[command] = Server(contender, command, place)
                    time.sleep(3)
            for _ in range(arguments.rounds):
                for contender, command in contenders.items():
                    if command in servers:
                        try:
                            values[contender].append(measure(servers[command], arguments.seconds))
                        except ZeroDivisionError:
                            print(f"{contender} answered nothing in a round of {name}", file=sys.stderr)
            medians = {contender: statistics.median(found or [math.nan]) for contender, found in values.items()}
            own, cells = medians["fingerpost"], []
            for contender in REDIRECTS:
                cells.append(f"{medians[contender]:.3g}" if contender in medians else "-")
            for peer in ("nginx", "haproxy"):
                cells.append(f"{own / medians[peer]:.2f}" if peer in medians else "-")
            print(f"| {name} |", " | ".join(cells), "|", flush=True)
    finally:
        for server in servers.values():
            server.stop()
        if hasattr(place, "backend"):
            place.backend.stop()
        shutil.rmtree(place.folder, ignore_errors=True)


main()
