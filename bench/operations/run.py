#!/usr/bin/env python3
"""Changes everything that can change on a running balancer under load, and counts failed requests and wrong redirects.

For a minute, 2 000 redirects a second are requested on kept and new connections, with and without TLS. Meanwhile: SIGHUP and
another policy each second, another certificate, orders for half of the servers, a new process for the listeners, and kill -9 of
a server. Every answer must be a redirect. After the bounds below, no redirect may lead to a drained or dead server. Needs openssl
and a release build. The exit code is 1 if a request failed or a redirect was wrong.

    cargo build --release && bench/operations/run.py [--seconds 60] [--binary PATH]
"""

import argparse
import http.client
import itertools
import json
import multiprocessing
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY = REPOSITORY / "target/release/fingerpost"
SERVERS = 4
PROBE_INTERVAL = 0.5
# From the acknowledgement of an order to its effect on every worker.
ORDER_BOUND = 0.1
# A probe, its timeout, and a table: a server that is gone is known after its first failed probe.
DEATH_BOUND = PROBE_INTERVAL + PROBE_INTERVAL / 2 + 0.1
POLICIES = ["adaptive", "two-choices", "round-robin", "hash", "ranked", "random"]
# Requests a second, and whether a connection is kept, and uses TLS.
CLIENTS = [(600, True, False), (600, True, False), (500, False, False), (200, True, True), (100, False, True)]
REQUEST = b"GET /plshelp.txt HTTP/1.1\r\nHost: localhost\r\n\r\n"
LOCATION = re.compile(rb"\r\nLocation: http://127\.0\.0\.1:(\d+)/plshelp\.txt\r\n")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def client(rate, keeps, port, context, ends_at, results):
    """Requests at a fixed rate until `ends_at`. Sends all answers as (sent, received, port of the server), and all failures."""
    answers, failures, late, certificates = [], [], 0.0, set()
    connection = None
    begin = time.monotonic()
    for number in itertools.count():
        due = begin + number / rate
        now = time.monotonic()
        if due >= ends_at:
            break
        if due > now:
            time.sleep(due - now)
        else:
            late = max(late, now - due)
        sent = time.monotonic()
        try:
            if connection is None:
                connection = socket.create_connection(("127.0.0.1", port), timeout=10)
                if context:
                    connection = context.wrap_socket(connection, server_hostname="localhost")
                    certificates.add(hash(connection.getpeercert(True)))
            connection.sendall(REQUEST)
            answer = b""
            while b"\r\n\r\n" not in answer:
                part = connection.recv(65536)
                if not part:
                    raise ConnectionError(f"closed after {len(answer)} bytes")
                answer += part
            head, body = answer.split(b"\r\n\r\n", 1)
            length = int(re.search(rb"\r\nContent-Length: (\d+)", head)[1])
            while len(body) < length:
                part = connection.recv(65536)
                if not part:
                    raise ConnectionError("closed within the body")
                body += part
            found = LOCATION.search(head + b"\r\n")
            if not head.startswith(b"HTTP/1.1 301 ") or not found:
                raise ValueError(head.split(b"\r\n")[0].decode())
            answers.append((sent, time.monotonic(), int(found[1])))
            if not keeps or b"\r\nConnection: close" in head:
                connection.close()
                connection = None
        except (OSError, ValueError, TypeError) as error:
            failures.append((sent, repr(error)))
            connection = None
    results.put((answers, failures, late, len(certificates)))


class Story:
    """A balancer with servers, and the times at which its servers got no clients."""

    def __init__(self, binary):
        self.binary = binary
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="operations-"))
        (self.folder / "files").mkdir()
        for name in ("first", "second"):
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                            "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost",
                            "-keyout", self.folder / f"{name}.key", "-out", self.folder / f"{name}.pem"],
                           check=True, capture_output=True)
        self.certificates = itertools.cycle(["second", "first"])
        self.replace_certificate("first")
        self.ports = [free_port() for _ in range(SERVERS)]
        self.servers = {port: self.start_server(port) for port in self.ports}
        (self.folder / "list").write_text("".join(f"127.0.0.1:{port}\n" for port in self.ports))
        self.port, self.tls_port, self.admin = free_port(), free_port(), free_port()
        self.configure("adaptive")
        self.log = open(self.folder / "log", "wb")
        self.balancer = subprocess.Popen(
            [self.binary, "balancer", "--host", "127.0.0.1", "--servers", "list", "--state", "state", "--config", "own.toml",
             "--port", str(self.port), "--tls-port", str(self.tls_port), "--admin", f"127.0.0.1:{self.admin}",
             "--tls-cert", "own.pem", "--tls-key", "own.key"],
            cwd=self.folder, stdout=subprocess.PIPE, stderr=self.log)
        while b"client connections at port" not in self.balancer.stdout.readline():
            pass
        self.process = self.balancer.pid
        self.refused = 0
        # For each server: [begin, end] of times without clients, the bound included, and the reason.
        self.spans = []
        self.counts = dict.fromkeys(["SIGHUP", "certificates", "orders", "hand-overs", "kill -9"], 0)

    def start_server(self, port):
        process = subprocess.Popen(
            [self.binary, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--root", self.folder / "files"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        process.stdout.readline()
        return process

    def replace(self, name, text):
        new = self.folder / f"{name}.new"
        new.write_text(text)
        new.rename(self.folder / name)

    def replace_certificate(self, name=None):
        name = name or next(self.certificates)
        for end in ("pem", "key"):
            self.replace(f"own.{end}", (self.folder / f"{name}.{end}").read_text())

    def configure(self, policy):
        self.replace("own.toml", f"[balancer]\npolicy = '{policy}'\nprobe_interval = '{int(PROBE_INTERVAL * 1000)}ms'\nfall = 2\n")

    def reload(self, policy):
        self.configure(policy)
        os.kill(self.process, signal.SIGHUP)
        self.counts["SIGHUP"] += 1

    def order(self, port, order):
        """Gives an order, and returns the time before it and the time of its acknowledgement. Repeats a refused one."""
        while True:
            before = time.monotonic()
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
                connection.request("POST", f"/api/v1/backends/127.0.0.1:{port}/orders", json.dumps({"order": order}),
                                   {"Content-Type": "application/json"})
                status = connection.getresponse().status
            except (OSError, http.client.HTTPException):
                status = 0
            if status == 200:
                self.counts["orders"] += 1
                return before, time.monotonic()
            self.refused += 1
            time.sleep(0.05)

    def drain(self, ports):
        for port in ports:
            _, acknowledged = self.order(port, "drain")
            self.spans.append([port, acknowledged + ORDER_BOUND, None, "drained"])

    def enable(self, ports):
        for port in ports:
            before, _ = self.order(port, "enable")
            self.end(port, "drained", before)

    def end(self, port, reason, at):
        for span in self.spans:
            if span[0] == port and span[3] == reason and span[2] is None:
                span[2] = at

    def kill(self, port):
        self.servers[port].kill()
        self.servers[port].wait()
        self.spans.append([port, time.monotonic() + DEATH_BOUND, None, "dead"])
        self.counts["kill -9"] += 1

    def revive(self, port):
        self.end(port, "dead", time.monotonic())
        self.servers[port] = self.start_server(port)

    def hand_over(self):
        """Starts a new process, and waits until it has taken over."""
        os.kill(self.process, signal.SIGUSR2)
        done = self.counts["hand-overs"]
        for _ in range(600):
            found = re.findall(rb"handed over to a new process.*process=(\d+)", (self.folder / "log").read_bytes())
            if len(found) > done:
                self.process = int(found[-1])
                self.counts["hand-overs"] += 1
                return
            time.sleep(0.05)
        raise RuntimeError("no hand-over")

    def stop(self):
        os.kill(self.process, signal.SIGKILL)
        self.balancer.kill()
        for server in self.servers.values():
            server.kill()
        shutil.rmtree(self.folder)


def act(story, second, seconds):
    """The changes of one second."""
    story.reload(POLICIES[second % len(POLICIES)])
    half = story.ports[:SERVERS // 2]
    if second % 5 == 1:
        story.replace_certificate()
        story.counts["certificates"] += 1
    if second % 4 == 1:
        story.drain(half)
    if second % 4 == 3:
        story.enable(half)
    # A server of the other half, so that one server is left.
    if second % 20 == 8:
        story.kill(story.ports[-1])
    if second % 20 == 14:
        story.revive(story.ports[-1])
    if second in (seconds // 3, 2 * seconds // 3):
        story.hand_over()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--binary", type=pathlib.Path, default=BINARY)
    arguments = parser.parse_args()
    seconds = arguments.seconds
    story = Story(arguments.binary.resolve())
    try:
        time.sleep(2)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        results, begin = multiprocessing.Queue(), time.monotonic() + 0.5
        clients = [multiprocessing.Process(
            target=client,
            args=(rate, keeps, story.tls_port if tls else story.port, context if tls else None, begin + seconds, results))
            for rate, keeps, tls in CLIENTS]
        for process in clients:
            process.start()
        for second in range(seconds):
            time.sleep(max(0.0, begin + second - time.monotonic()))
            act(story, second, seconds)
        collected = [results.get(timeout=60) for _ in clients]
        log = (story.folder / "log").read_text(errors="replace")
    finally:
        story.stop()
    answers = [answer for client in collected for answer in client[0]]
    failures = [failure for client in collected for failure in client[1]]
    wrong = {"drained": 0, "dead": 0}
    for port, begins, ends, reason in story.spans:
        ends = ends or float("inf")
        wrong[reason] += sum(1 for sent, received, to in answers if to == port and sent > begins and received < ends)
    times = sorted(received - sent for sent, received, _ in answers)
    changes = ", ".join(f"{count} {name}" for name, count in story.counts.items())
    print(f"{len(answers)} redirects in {seconds} s ({len(answers) / seconds:.0f}/s); {changes}")
    print(f"failed requests: {len(failures)}")
    print(f"redirects to drained servers later than {ORDER_BOUND} s: {wrong['drained']}")
    print(f"redirects to dead servers later than {DEATH_BOUND:.2f} s: {wrong['dead']}")
    print(f"median {statistics.median(times) * 1000:.2f} ms, 99.9 % {times[int(len(times) * 0.999)] * 1000:.1f} ms, "
          f"longest {times[-1] * 1000:.0f} ms; clients at most {max(late for _, _, late, _ in collected) * 1000:.0f} ms late")
    print(f"certificates seen: {max(count for *_, count in collected)}; orders given again: {story.refused}; "
          f"reloads rejected: {log.count('the configuration was rejected')}")
    for sent, failure in failures[:20]:
        print(f"  {sent - begin:.2f} s: {failure}")
    sys.exit(1 if failures or any(wrong.values()) else 0)


if __name__ == "__main__":
    main()
