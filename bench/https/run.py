#!/usr/bin/env python3
"""Compares HTTPS of fingerpost with nginx and HAProxy on one core: redirects, handshakes and files, in interleaved rounds.

All use a certificate with an ECDSA P-256 key, TLS 1.3 and TLS_AES_256_GCM_SHA384. Server CPU time is read from /proc. Needs wrk,
openssl and a release build; a server that is not installed is left out and named.

    cargo build --release && bench/https/run.py [--rounds 5] [--seconds 3]
"""

import argparse
import functools
import math
import os
import pathlib
import re
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from measure import BINARY, LOAD_CORE, Server, Starved, free_port, per_gib, per_request, write

STALLED = 5000
TARGET = "/pub/releases/image.iso?mirror=any"


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


def fingerpost_files(place, folder, port):
    return [BINARY, "server", "--root", place.root, "--host", "127.0.0.1", "--workers", "1", "--digests", "off", *place.tls(port)]


def fingerpost_redirects(place, folder, port):
    backend = free_port()
    place.backend = Server("backend", functools.partial(fingerpost_files, place), LOAD_CORE, backend)
    servers = write(folder / "list", f"https://localhost:{backend}\n")
    return [BINARY, "balancer", "--servers", servers, "--host", "127.0.0.1", "--workers", "1", "--backend-ca", place.certificate,
            *place.tls(port)]


def nginx(place, folder, port, location):
    return ["nginx", "-p", folder, "-c", write(folder / "nginx.conf", f"""
        daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; user root;
        events {{ worker_connections 12000; }}
        http {{ access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 100000000; server_tokens off;
            open_file_cache max=1000 inactive=20s; open_file_cache_valid 1s;
            ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {place.certificate}; ssl_certificate_key {place.key};
            ssl_session_cache shared:s:10m; ssl_session_tickets on;
            server {{ listen 127.0.0.1:{port} ssl; {location} }} }}""")]


def nginx_files(place, folder, port):
    return nginx(place, folder, port, f"root {place.root};")


def nginx_redirects(place, folder, port):
    return nginx(place, folder, port, "location / { return 301 https://127.1.0.1:8081$request_uri; }")


def haproxy_redirects(place, folder, port):
    return ["haproxy", "-f", write(folder / "haproxy.cfg", f"""
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


def resumed(server, seconds):
    """A measurement: microseconds of CPU time for each connection that resumes the session of the previous one."""
    command = ["taskset", "-c", LOAD_CORE, "openssl", "s_time", "-connect", f"localhost:{server.port}", "-reuse", "-www", TARGET,
               "-time", str(seconds)]
    before = server.cpu()
    output = subprocess.run(command, capture_output=True, text=True).stdout
    used = server.cpu() - before
    return used / int(re.search(r"(\d+) connections in [\d.]+s", output)[1]) * 1e6


def stalled(server, _):
    """Memory of each download whose client takes nothing after the head."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    before, clients = server.resident(), []
    for number in range(STALLED):
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # One address may have 1000 connections.
        plain.bind((f"127.0.2.{1 + number // 500}", 0))
        plain.connect(("127.0.0.1", server.port))
        client = context.wrap_socket(plain)
        client.sendall(b"GET /100M HTTP/1.1\r\nHost: x\r\n\r\n")
        clients.append(client)
    settled = time.monotonic() + 30
    while time.monotonic() < settled:
        used = server.cpu()
        time.sleep(1)
        if server.cpu() - used < 0.05:
            break
    grown = (server.resident() - before) / STALLED
    for client in clients:
        client.close()
    time.sleep(1)
    return grown


ROWS = {
    "redirect, connections stay open, us": (REDIRECTS, per_request(TARGET, scheme="https")),
    "redirect, full handshake, us": (REDIRECTS, per_request(TARGET, scheme="https", headers=["Connection: close"])),
    "redirect, resumed session, us": (REDIRECTS, resumed),
    "1 MiB, CPU s/GiB": (FILES, per_gib("/1M", scheme="https")),
    "100 MiB, CPU s/GiB": (FILES, per_gib("/100M", scheme="https")),
    "5 000 stalled, KiB each": (FILES, stalled),
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=3)
    arguments.add_argument("--only", help="a regular expression of rows", default="")
    arguments = arguments.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
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
                    servers[command] = Server(contender, functools.partial(command, place))
                    time.sleep(3)
            for _ in range(arguments.rounds):
                for contender, command in contenders.items():
                    if command in servers:
                        try:
                            values[contender].append(measure(servers[command], arguments.seconds))
                        except (Starved, ZeroDivisionError):
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
