#!/usr/bin/env python3
"""Cuts a balancer off from some servers, from the engine and from everything, in network namespaces, under load.

An engine, five registered servers and three balancers have a namespace each, on one bridge. Clients request redirects from
each balancer in its own namespace. For each pair of servers, the first balancer loses the way to both: it must not redirect to
them after 3 s, and the other balancers must still do so. Then it loses the way to the engine while another balancer gets an
order, which must be in force on it 2 s after the end of the partition. At last it loses its whole network: it must keep its
table, and its /readyz must show this with the status 200. Every request must be answered with a redirect. Needs root, ip of
iproute2, redis-server and a release build. The exit code is 1 if a bound was exceeded or a request failed.

    cargo build --release && sudo bench/fleet/partitions.py [--pairs 10] [--delay 5ms] [--binary PATH]
"""

import argparse
import http.client
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from clients import Clients, enter

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY = REPOSITORY / "target/release/fingerpost"
SERVERS, BALANCERS = 5, 3
# Requests per second and balancer.
RATE = 200
# A balancer stops choosing unreachable servers within this time, in seconds.
NOTICE_BOUND = 3.0
# An order is in force on all balancers within this time after the end of a partition.
ORDER_BOUND = 2.0
# After this time, all balancers choose all servers again.
CONVERGENCE_BOUND = 10.0
ENGINE_ADDRESS = "10.77.0.2"
# The address of a network card that does not exist: packets to it are lost.
NOWHERE = "02:00:00:00:00:ff"


def ip(*arguments):
    subprocess.run(["ip", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def within(namespace, function, *arguments):
    """The result of a function that runs in a network namespace."""
    result = []

    def run():
        enter(namespace)
        result.append(function(*arguments))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if not result:
        raise SystemExit(f"a request in {namespace} failed")
    return result[0]


class Machines:
    def __init__(self, binary, delay):
        self.prefix = f"fp{os.getpid() % 10000}"
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="partitions-"))
        (self.folder / "files").mkdir()
        (self.folder / "files/plshelp.txt").write_text("help\n")
        self.processes, self.namespaces = [], []
        self.binary = binary
        self.hub = self.namespace("hub")
        ip("-n", self.hub, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.hub, "link", "set", "bridge", "up")
        self.machine("engine", ENGINE_ADDRESS)
        self.start("engine", ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", self.folder])
        engine = f"redis://{ENGINE_ADDRESS}"
        for number in range(SERVERS):
            address = f"10.77.0.{10 + number}"
            self.machine(f"server{number}", address)
            self.start(f"server{number}", [binary, "server", "--host", "0.0.0.0", "--port", "8081", "--workers", "1", "--root",
                                           self.folder / "files", "--register", engine, "--advertise", f"http://{address}:8081"])
        for number in range(BALANCERS):
            name = f"balancer{number}"
            self.machine(name, f"10.77.0.{20 + number}")
            if delay:
                subprocess.run(["tc", "-n", self.name(name), "qdisc", "add", "dev", "eth0", "root", "netem", "delay", delay], check=True)
            self.start(name, [binary, "balancer", "--host", "127.0.0.1", "--port", "8080", "--workers", "1", "--admin", "127.0.0.1:9100",
                              "--backends", engine, "--fleet", engine, "--fleet-name", name, "--state", self.folder / name])

    def name(self, machine):
        return f"{self.prefix}-{machine}"

    def namespace(self, machine):
        name = self.name(machine)
        ip("netns", "add", name)
        self.namespaces.append(name)
        ip("-n", name, "link", "set", "lo", "up")
        return name

    def machine(self, machine, address):
        name = self.namespace(machine)
        ip("-n", self.hub, "link", "add", machine, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("-n", self.hub, "link", "set", machine, "master", "bridge", "up")
        ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")

    def start(self, machine, command):
        log = open(self.folder / f"{machine}.log", "wb")
        command = ["ip", "netns", "exec", self.name(machine), *map(str, command)]
        self.processes.append(subprocess.Popen(command, stdout=log, stderr=log))

    def remove(self):
        for process in self.processes:
            process.kill()
            process.wait()
        for name in self.namespaces:
            subprocess.run(["ip", "netns", "del", name], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def cut(self, balancer, addresses):
        """The packets of a balancer to these addresses are lost."""
        for address in addresses:
            ip("-n", self.name(f"balancer{balancer}"), "neigh", "replace", address, "lladdr", NOWHERE, "dev", "eth0", "nud", "permanent")

    def heal(self, balancer, addresses):
        for address in addresses:
            ip("-n", self.name(f"balancer{balancer}"), "neigh", "del", address, "dev", "eth0")

    def get(self, balancer, path):
        def request():
            connection = http.client.HTTPConnection("127.0.0.1", 9100, timeout=5)
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        return within(self.name(f"balancer{balancer}"), request)

    def report(self, balancer, path):
        status, body = self.get(balancer, path)
        return json.loads(body) if status == 200 else {}

    def order(self, balancer, *words):
        command = [self.binary, *words, "--admin", "http://127.0.0.1:9100/"]
        subprocess.run(["ip", "netns", "exec", self.name(f"balancer{balancer}"), *map(str, command)], check=True, stdout=subprocess.DEVNULL)

    def is_complete(self):
        for balancer in range(BALANCERS):
            try:
                backends = self.report(balancer, "/api/v1/backends").get("backends", [])
                fleet = self.report(balancer, "/api/v1/fleet")
            except SystemExit:
                return False
            counted = [other for other in fleet.get("balancers", []) if other["standing"] == "counted"]
            is_up = [backend for backend in backends if backend["state"] == "up"]
            if len(is_up) < SERVERS or len(counted) < BALANCERS - 1 or not fleet["shares_probes"]:
                return False
        return True


def wait_until(what, seconds, condition):
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        if condition():
            return time.monotonic() - begin
        time.sleep(0.1)
    raise SystemExit(f"waited {seconds} s in vain for {what}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=10, help="pairs of servers that the balancer loses, of 10")
    parser.add_argument("--delay", default="", help="delay of all packets of the balancers, such as 5ms; needs the module netem")
    parser.add_argument("--binary", type=pathlib.Path, default=BINARY)
    arguments = parser.parse_args()
    problems = []

    def check(is_right, problem):
        if not is_right:
            problems.append(problem)

    machines = Machines(arguments.binary, arguments.delay)
    try:
        wait_until("all balancers to share", 60, machines.is_complete)
        clients = Clients([("127.0.0.1", 8080)] * BALANCERS, RATE, [machines.name(f"balancer{number}") for number in range(BALANCERS)])
        noticed = []
        everyone = {f"10.77.0.{10 + server}:8081" for server in range(SERVERS)}
        for pair in list(itertools.combinations(range(SERVERS), 2))[:arguments.pairs]:
            clients.forget()
            addresses = [f"10.77.0.{10 + server}" for server in pair]
            lost = {f"{address}:8081" for address in addresses}
            begin = time.monotonic()
            machines.cut(0, addresses)
            time.sleep(NOTICE_BOUND + 3)
            last = max((at - begin for at, server in clients.since(0, begin) if server in lost), default=0.0)
            noticed.append(last)
            check(last <= NOTICE_BOUND, f"balancer 0 chose the lost servers {pair} for {last:.2f} s")
            for balancer in range(1, BALANCERS):
                kept = {server for _, server in clients.since(balancer, time.monotonic() - 2)}
                check(kept == everyone, f"balancer {balancer} chose only {kept} while balancer 0 lost {pair}")
            machines.heal(0, addresses)
            wait_until("all servers to be up again", CONVERGENCE_BOUND, machines.is_complete)
        print(f"two of five servers lost, {len(noticed)} pairs: the last redirect to one after {max(noticed):.2f} s at most, "
              f"{sorted(noticed)[len(noticed) // 2]:.2f} s in the median")

        machines.cut(0, [ENGINE_ADDRESS])
        wait_until("the loss of the engine", 5, lambda: machines.report(0, "/api/v1/fleet")["engine"] != "up")
        time.sleep(3)
        machines.order(1, "drain", "10.77.0.10:8081")
        machines.heal(0, [ENGINE_ADDRESS])
        begin = time.monotonic()
        backends = lambda: machines.report(0, "/api/v1/backends")["backends"]
        took = wait_until("the order", 10, lambda: any(backend["orders"] for backend in backends()))
        check(took <= ORDER_BOUND, f"the order was in force after {took:.2f} s")
        print(f"engine lost: the order of another balancer in force {took:.2f} s after the end")
        machines.order(0, "enable", "10.77.0.10:8081")
        wait_until("the orders", CONVERGENCE_BOUND, lambda: machines.report(0, "/api/v1/fleet")["orders"] == "applied on 3 of 3")

        clients.forget()
        begin = time.monotonic()
        ip("-n", machines.hub, "link", "set", "balancer0", "down")
        wait_until("/readyz to show the loss of everything", 15, lambda: "cut off" in machines.get(0, "/readyz")[1])
        time.sleep(5)
        status, body = machines.get(0, "/readyz")
        check(status == 200, f"/readyz answered {status}")
        for balancer in range(BALANCERS):
            kept = {server for _, server in clients.since(balancer, time.monotonic() - 2)}
            check(kept == everyone, f"balancer {balancer} chose only {kept} while balancer 0 was cut off")
        ip("-n", machines.hub, "link", "set", "balancer0", "up")
        took = wait_until("the end of the partition", CONVERGENCE_BOUND, machines.is_complete)
        print(f"everything lost: /readyz 200 ({body.strip().splitlines()[-1]}); all works {took:.1f} s after the end")

        failures = clients.stop()
        check(not failures, f"{len(failures)} requests failed: {failures[:5]}")
    except BaseException:
        for name in ("balancer0", "balancer1"):
            sys.stderr.write((machines.folder / f"{name}.log").read_text()[-3000:])
        raise
    finally:
        machines.remove()
    for problem in problems:
        print(f"wrong: {problem}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
