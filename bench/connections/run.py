#!/usr/bin/env python3
"""Holds idle, slow-head and slow-reading connections open at one balancer, and measures redirects of another client meanwhile.

Opens connections beyond the limit of one address, too, and counts those that got a status. Clients use the addresses 127.1.0.0/16.
Needs a release build.

    cargo build --release && bench/connections/run.py [--count 5000] [--seconds 20]
"""

import argparse
import multiprocessing
import os
import pathlib
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY = REPOSITORY / "target/release/fingerpost"
REQUEST = b"GET /pub/file.iso HTTP/1.1\r\nHost: balancer\r\n\r\n"
SLOW_HEAD = b"GET /pub/file.iso HTTP/1.1\r\nHost: balancer\r\nX-Slow: "
PER_ADDRESS = 500
BEYOND = 2000


def start(*arguments):
    process = subprocess.Popen([BINARY, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in process.stdout:
        if line.startswith("Will wait for client connections at port "):
            return process, int(line.rsplit(" ", 1)[1])
    raise SystemExit(f"{arguments[0]} did not start")


class Load:
    """All open connections of one kind."""

    def __init__(self, kind, port, selector):
        self.kind, self.port, self.selector = kind, port, selector
        self.sockets, self.opened, self.statuses, self.silent = [], 0, {}, 0

    def open(self):
        address = f"127.1.{1 + ['idle', 'slow head', 'slow reader'].index(self.kind)}.{1 + self.opened // PER_ADDRESS % 250}"
        self.opened += 1
        connection = socket.socket()
        if self.kind == "slow reader":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.bind((address, 0))
        connection.connect(("127.0.0.1", self.port))
        connection.setblocking(False)
        connection.send(SLOW_HEAD if self.kind == "slow head" else REQUEST)
        self.sockets.append(connection)
        if self.kind != "slow reader":
            self.selector.register(connection, selectors.EVENT_READ, self)

    def fill(self):
        """Sends requests until the buffers of both sides are full of answers."""
        for connection in self.sockets:
            try:
                while connection.send(REQUEST * 50):
                    pass
            except OSError:
                pass

    def read(self, connection):
        try:
            answer = connection.recv(65536)
        except OSError:
            answer = b""
        if answer.startswith(b"HTTP/1.1 "):
            status = answer[9:12].decode()
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if b"Connection: close" not in answer:
                return
        else:
            self.silent += 1
        self.selector.unregister(connection)
        self.sockets.remove(connection)
        connection.close()
        self.open()

    def drip(self, step):
        """One more byte of each head, spread over a second."""
        for connection in self.sockets[step::20]:
            try:
                connection.send(b"x")
            except OSError:
                pass


def measure(port, seconds, results):
    """Redirects on new connections, one after the other."""
    times, wrong, end = [], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(REQUEST)
            wrong += not connection.recv(4096).startswith(b"HTTP/1.1 301 ")
        times.append(time.monotonic() - began)
        time.sleep(0.01)
    results.put((times, wrong))


def beyond(port, open_at_once, results):
    """Connections from one address, far more than its limit; all are open at once. Each gets a redirect or the 503 page."""
    connections, statuses = [], {}
    for _ in range(open_at_once):
        connection = socket.socket()
        connection.bind(("127.1.9.1", 0))
        connection.settimeout(20)
        connection.connect(("127.0.0.1", port))
        connections.append(connection)
        try:
            connection.send(REQUEST)
        except OSError:
            pass
    for connection in connections:
        try:
            status = connection.recv(4096)[9:12].decode() or "no status"
        except OSError as error:
            status = f"no status ({error.strerror or error})"
        statuses[status] = statuses.get(status, 0) + 1
    results.put(statuses)


def resident(pid):
    fields = pathlib.Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1]
    return int(fields.split()[0]) / 1024


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--count", type=int, default=5000, help="connections of each kind")
    arguments.add_argument("--seconds", type=int, default=20)
    arguments = arguments.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            server, port = start("server", "--host", "127.0.0.1", "--root", REPOSITORY / "files")
            processes.append(server)
            servers = pathlib.Path(folder) / "list"
            servers.write_text(f"127.0.0.1:{port}\n")
            balancer, port = start("balancer", "--host", "127.0.0.1", "--servers", servers, "--probe-interval", "10s")
            processes.append(balancer)
            run(arguments, balancer.pid, port)
        finally:
            for process in processes:
                process.kill()


def run(arguments, pid, port):
    time.sleep(1)
    selector = selectors.DefaultSelector()
    before = resident(pid)
    loads = [Load(kind, port, selector) for kind in ["idle", "slow head", "slow reader"]]

    def poll(timeout):
        for key, _ in selector.select(timeout):
            key.data.read(key.fileobj)

    for load in loads:
        for number in range(arguments.count):
            load.open()
            if number % 100 == 0:
                poll(0)
    loads[2].fill()
    results, refused = multiprocessing.Queue(), multiprocessing.Queue()
    client = multiprocessing.Process(target=measure, args=(port, arguments.seconds, results))
    greedy = multiprocessing.Process(target=beyond, args=(port, BEYOND, refused))
    client.start()
    greedy.start()
    highest, end, step = 0, time.monotonic() + arguments.seconds, 0
    while time.monotonic() < end:
        loads[1].drip(step % 20)
        step += 1
        highest = max(highest, resident(pid))
        poll(0.05)
    times, wrong = results.get()
    statuses = refused.get(timeout=60)
    for process in (client, greedy):
        process.join()
    median, worst = statistics.median(times) * 1000, max(times) * 1000
    print("| what | figure |\n|---|---|")
    print(f"| redirect on a new connection, median (longest) of {len(times)}, ms | {median:.2f} ({worst:.0f}) |")
    print(f"| answers that were not a redirect | {wrong} |")
    print(f"| resident memory of the balancer, MB (before the load) | {highest:.0f} ({before:.0f}) |")
    for load in loads:
        ends = f"{load.statuses}, without a status: {load.silent}"
        print(f"| {load.kind}: open; answers | {len(load.sockets)}; {ends} |")
    print(f"| {BEYOND} connections of one address | {statuses} |")
    lost = sum(count for status, count in statuses.items() if "no status" in status) + loads[1].silent
    sys.exit(bool(wrong or lost or median > 50 or highest > 200))


main()
