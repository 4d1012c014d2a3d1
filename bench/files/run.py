#!/usr/bin/env python3
"""Compares `fingerpost server` with nginx, lighttpd, Caddy and actix-files on one core, in interleaved rounds.

Server CPU time is read from /proc, so other load of the machine affects it little; it does affect the latencies, which wrk
measures. Needs wrk and a release build; a server that is not installed is skipped and named.

    cargo build --release --bin fingerpost --example actix-files && bench/files/run.py [--rounds 5] [--seconds 3]
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
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from measure import BINARY, LOAD_CORE, REPOSITORY, Server, Starved, per_gib, per_request, write, wrk

SMALL_FILES = 10_000
STALLED = 5_000


def make_files(root):
    for name, size in [("1K", 1 << 10), ("10K", 10 << 10), ("100K", 100 << 10), ("1M", 1 << 20), ("100M", 100 << 20)]:
        (root / name).write_bytes(os.urandom(1 << 20) * (size >> 20) if size >> 20 else os.urandom(size))
    many = root / "many"
    many.mkdir()
    for number in range(SMALL_FILES):
        (many / str(number)).write_bytes(os.urandom(2048))


def fingerpost(root, folder, port):
    # Digests are computed once, at the start; they would count as time of the first rows.
    return [BINARY, "server", "--root", root, "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--digests", "off",
            "--config", write(folder / "own.toml", '[server]\nmax_connections_per_address = 10000\n'
                                                   f'cache_bytes = "{CACHE}"\n')]


CACHE = "8MiB"  # Holds the single files, and not half of the many.


def write(path, text):
    path.write_text(text)
    return path


def nginx(root, folder, port):
    return ["nginx", "-p", folder, "-c", write(folder / "nginx.conf", f"""
        daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; user root;
        worker_rlimit_nofile 20000; events {{ worker_connections 12000; }}
        http {{ access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 100000000;
            open_file_cache max=1000 inactive=20s; open_file_cache_valid 1s; send_timeout 300s;
            server {{ listen 127.0.0.1:{port}; root {root}; }} }}""")]


def lighttpd(root, folder, port):
    return ["lighttpd", "-D", "-f", write(folder / "lighttpd.conf", f"""
        server.document-root = "{root}"\nserver.port = {port}\nserver.bind = "127.0.0.1"
        server.max-keep-alive-requests = 100000000\nserver.max-fds = 20000\nserver.max-connections = 10000
        server.errorlog = "{folder}/error.log"\n""")]


def caddy(root, folder, port):
    return ["caddy", "run", "--adapter", "caddyfile", "--config", write(folder / "Caddyfile", f"""
        {{\n admin off\n auto_https off\n}}\nhttp://127.0.0.1:{port} {{\n root * {root}\n file_server\n}}\n""")]


def actix_files(root, folder, port):
    return [REPOSITORY / "target/release/examples/actix-files", root, str(port)]


CONTENDERS = {"fingerpost": fingerpost, "nginx": nginx, "lighttpd": lighttpd, "caddy": caddy, "actix-files": actix_files}


def answer_head(server, path):
    with socket.create_connection(("127.0.0.1", server.port), 2) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer and (piece := client.recv(65536)):
            answer += piece
    return answer.split(b"\r\n\r\n")[0].decode()


def not_modified(server, seconds):
    tag = re.search(r"(?i)\r\netag: ([^\r]*)", answer_head(server, "/1K"))
    if not tag:
        raise Starved(f"{server.name} sends no entity tag")
    return per_request("/1K", headers=[f"If-None-Match: {tag[1]}"])(server, seconds)


BROWSER = ["User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
           "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "Accept-Language: en-US,en;q=0.5",
           "Accept-Encoding: gzip, deflate, br, zstd", "Connection: keep-alive", "Upgrade-Insecure-Requests: 1",
           "Sec-Fetch-Dest: document", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: none", "Priority: u=0, i"]


def p50_alone(server, seconds):
    return wrk(server, "/1K", 1, seconds)["p50"] * 1e6


def p99_beside_downloads(server, seconds):
    downloads = subprocess.Popen(
        ["taskset", "-c", LOAD_CORE, "wrk", "-t1", "-c100", f"-d{seconds + 2}s", "--timeout", "60s",
         f"http://127.0.0.1:{server.port}/100M"], stdout=subprocess.DEVNULL)
    time.sleep(1)
    p99 = wrk(server, "/1K", 4, seconds)["p99"] * 1e3
    downloads.wait()
    return p99


def stalled(server, _):
    before, sockets = server.resident(), []
    for _ in range(STALLED):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(b"GET /100M HTTP/1.1\r\nHost: x\r\n\r\n")
        sockets.append(client)
    settled = time.monotonic() + 30
    while time.monotonic() < settled:
        used = server.cpu()
        time.sleep(1)
        if server.cpu() - used < 0.05 and server.resident() > before:
            break
    grown = (server.resident() - before) / STALLED
    wrk(server, "/1K", 1, 1)
    for client in sockets:
        client.close()
    time.sleep(1)
    return grown


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=3)
    arguments.add_argument("--only", help="a regular expression of rows")
    arguments.add_argument("--baseline", help="another build of fingerpost, to compare two versions")
    arguments.add_argument("--servers", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    arguments = arguments.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    folder = pathlib.Path(tempfile.mkdtemp())
    os.chmod(folder, 0o755)
    root = folder / "root"
    root.mkdir()
    make_files(root)
    script = write(folder / "many.lua", "math.randomseed(os.time())\nrequest = function() "
                   f"return wrk.format('GET', '/many/' .. math.random(0, {SMALL_FILES - 1})) end\n")
    rows = {
        "1 KiB, us/request": per_request("/1K"),
        "10 KiB, us/request": per_request("/10K"),
        "100 KiB, us/request": per_request("/100K"),
        "1 KiB, a browser's head, us/request": per_request("/1K", headers=BROWSER),
        "304 for a tag, us/request": not_modified,
        "206 of 100 bytes, us/request": per_request("/1K", headers=["Range: bytes=100-199"]),
        "404, us/request": per_request("/missing", status="4xx"),
        "1 KiB on a new connection, us/request": per_request("/1K", headers=["Connection: close"]),
        "1 MiB, CPU s/GiB": per_gib("/1M"),
        "100 MiB, CPU s/GiB": per_gib("/100M"),
        "10 000 small files, us/request": per_request("/many/0", script=script),
        "1 connection, p50 us": p50_alone,
        "p99 ms beside 100 downloads": p99_beside_downloads,
        "5 000 stalled, KiB each": stalled,
    }
    rows = {name: row for name, row in rows.items() if re.search(arguments.only or "", name)}
    contenders = []
    if arguments.baseline:
        CONTENDERS["baseline"] = lambda *places: [arguments.baseline, *fingerpost(*places)[1:]]
        arguments.servers.append("baseline")
    for name in arguments.servers:
        program = str(CONTENDERS[name](root, folder, 0)[0])
        if not shutil.which(program):
            print(f"left out: {name}, since there is no {program}", file=sys.stderr)
            continue
        contenders.append(Server(name, functools.partial(CONTENDERS[name], root)))
    try:
        results = {name: {server.name: [] for server in contenders} for name in rows}
        for _ in range(arguments.rounds):
            for name, row in rows.items():
                for server in contenders:
                    try:
                        results[name][server.name].append(row(server, arguments.seconds))
                    except (Starved, ZeroDivisionError) as error:
                        print(f"a round of {name} does not count: {error}", file=sys.stderr)
        print("| what |", " | ".join(server.name for server in contenders), "| to nginx |")
        print("|---" * (len(contenders) + 2) + "|")
        for name, values in results.items():
            medians = {server: statistics.median(found or [math.nan]) for server, found in values.items()}
            ratio = f"{medians['fingerpost'] / medians['nginx']:.2f}" if medians.get("nginx") else "-"
            print(f"| {name} |", " | ".join(f"{value:.3g}" for value in medians.values()), f"| {ratio} |")
    finally:
        for server in contenders:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


main()
