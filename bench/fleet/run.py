#!/usr/bin/env python3
"""Measures a fleet of balancers with a real engine: probes of a long list, the cost of the engine for redirects, and kill -9.

- scale: 6 balancers share 3 000 servers. The servers are addresses of the loopback interface with one nginx, whose log has each
  probe. A server may not get more probes than docs/fleet.md promises. Prints the CPU time of a balancer, and the bytes between
  a balancer and the engine.
- redirects: the CPU time of a redirect with the engine on, hung, off and on again, in rounds; two other balancers share.
- kills: kill -9 of each process in turn under load: the engine, 3 balancers, 5 servers. No request to another balancer may
  fail, and no redirect may lead to a killed server after two probe intervals and 1 s.

Needs redis-server, nginx, wrk and a release build. The exit code is 1 if a bound was exceeded or a request failed.

    cargo build --release && bench/fleet/run.py [--parts scale,redirects,kills] [--seconds 60] [--rounds 6] [--binary PATH]
"""

import argparse
import collections
import http.client
import json
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from clients import Clients

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from measure import BINARY, TICK, Server, free_port, wrk

# The defaults of probe_interval in seconds, and of fleet_probers.
INTERVAL, PROBERS = 2.0, 2
# Two probe intervals of a server in use, and 1 s.
DEATH_BOUND = 3.0
problems = []


class Processes:
    """Processes by name, each with a port, that can be killed and started again."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="fleet-"))
        self.ports, self.commands, self.running = {}, {}, {}

    def add(self, name, command):
        """`command` returns the command line for a port."""
        self.ports[name] = free_port()
        self.commands[name] = [str(word) for word in command(self.ports[name])]
        self.start(name)

    def start(self, name):
        log = open(self.folder / f"{name}.log", "ab")
        self.running[name] = subprocess.Popen(self.commands[name], stdout=log, stderr=log)

    def kill(self, name):
        self.running[name].kill()
        self.running[name].wait()

    def cpu(self, name):
        """Seconds of CPU time so far."""
        fields = pathlib.Path(f"/proc/{self.running[name].pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def stop(self):
        for name in self.running:
            self.kill(name)
        shutil.rmtree(self.folder, ignore_errors=True)


def engine(folder):
    return lambda port: ["redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", folder]


def balancer(binary, name, admin, fleet, *flags):
    return lambda port: [binary, "balancer", "--host", "127.0.0.1", "--port", port, "--workers", "1", "--admin", f"127.0.0.1:{admin}",
                         "--fleet", f"redis://127.0.0.1:{fleet}", "--fleet-name", name, *flags]


def report(admin, path):
    """A JSON document of the admin listener; empty if it does not answer."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=20)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return json.loads(body) if answer.status == 200 else {}
    except OSError:
        return {}


def wait_until(what, seconds, condition):
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        if condition():
            return
        time.sleep(0.2)
    raise SystemExit(f"waited {seconds} s in vain for {what}")


def share(admins):
    """Whether all balancers count each other and share the probes."""
    fleets = [report(admin, "/api/v1/fleet") for admin in admins]
    return all(fleet.get("shares_probes") and sum(other["standing"] == "counted" for other in fleet["balancers"]) == len(admins) - 1
               for fleet in fleets)


def engine_bytes(port):
    answer = subprocess.run(["redis-cli", "-p", str(port), "INFO", "stats"], capture_output=True, text=True, check=True).stdout
    figures = dict(line.split(":", 1) for line in answer.splitlines() if ":" in line)
    return int(figures["total_net_input_bytes"]), int(figures["total_net_output_bytes"])


def scale(arguments):
    """The load of 6 balancers with 3 000 servers."""
    count, balancers = 3000, 6
    processes = Processes()
    folder, log = processes.folder, processes.folder / "probes"
    (folder / "nginx").mkdir()
    try:
        def nginx(port):
            (folder / "nginx.conf").write_text(f"""
                daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error crit; worker_rlimit_nofile 16384;
                events {{ worker_connections 8192; }}
                http {{
                    log_format probe '$msec $server_addr'; access_log {log} probe buffer=64k flush=1s;
                    client_body_temp_path {folder}/nginx/1; proxy_temp_path {folder}/nginx/2; fastcgi_temp_path {folder}/nginx/3;
                    uwsgi_temp_path {folder}/nginx/4; scgi_temp_path {folder}/nginx/5;
                    server {{ listen 127.0.0.1:{port}; listen 0.0.0.0:{port} backlog=4096; location / {{ return 200 help; }} }}
                }}""")
            return [shutil.which("nginx") or "/usr/sbin/nginx", "-c", folder / "nginx.conf"]

        processes.add("nginx", nginx)
        processes.add("engine", engine(folder))
        port = processes.ports["nginx"]
        addresses = [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(count)]
        (folder / "list").write_text("".join(f"{address}:{port}\n" for address in addresses))
        admins = {f"b{number}": free_port() for number in range(balancers)}
        for name, admin in admins.items():
            processes.add(name, balancer(arguments.binary, name, admin, processes.ports["engine"], "--servers", folder / "list"))
        wait_until("the balancers to share", 120, lambda: share(admins.values()))
        clients = Clients([("127.0.0.1", processes.ports[name]) for name in admins], 50)
        time.sleep(15)
        clients.forget()
        cpu = {name: processes.cpu(name) for name in admins}
        received, sent = engine_bytes(processes.ports["engine"])
        engine_cpu, begin = processes.cpu("engine"), time.time()
        time.sleep(arguments.seconds)
        end = time.time()
        cpu = [(processes.cpu(name) - cpu[name]) / (end - begin) for name in admins]
        received, sent = [(after - before) / (end - begin) / balancers
                          for after, before in zip(engine_bytes(processes.ports["engine"]), (received, sent))]
        engine_cpu = (processes.cpu("engine") - engine_cpu) / (end - begin)
        failures = clients.stop()
        time.sleep(2)
        probes = collections.Counter()
        for line in log.read_text().splitlines():
            at, address = line.split()
            if begin <= float(at) < end:
                probes[address] += 1
        rates = sorted(probes[address] / (end - begin) for address in addresses)
        others = balancers - PROBERS
        idle = (PROBERS + others / max(6, others)) / INTERVAL
        bound = 2 * (PROBERS + others / max(1.75, others)) / INTERVAL
        # The pauses between probes have a jitter of a tenth.
        highest = bound * 1.1 + 2 / (end - begin)
        if rates[-1] > highest:
            problems.append(f"a server got {rates[-1]:.2f} probes/s, more than {highest:.2f}")
        if rates[0] == 0:
            problems.append("a server got no probe")
        if failures:
            problems.append(f"{len(failures)} requests failed: {failures[:3]}")
        print(f"\n## {count} servers, {balancers} balancers, 50 redirects/s each, {arguments.seconds} s\n")
        print("| figure | value |\n|---|---|")
        print(f"| probes/s per server: median, most | {statistics.median(rates):.2f}, {rates[-1]:.2f} |")
        print(f"| calculated probes/s per server: idle, in use | {idle:.2f}, {bound:.2f} |")
        print(f"| probes/s per balancer | {sum(rates) / balancers:.0f} |")
        print(f"| CPU of a balancer: mean, most | {100 * statistics.mean(cpu):.1f} %, {100 * max(cpu):.1f} % of one core |")
        print(f"| CPU of the engine | {100 * engine_cpu:.1f} % of one core |")
        print(f"| bytes/s of a balancer to and from the engine | {received / 1e3:.0f} kB, {sent / 1e3:.0f} kB |")
    finally:
        processes.stop()


def redirects(arguments):
    """The CPU time of a redirect with the engine on, hung and off."""
    processes = Processes()
    folder = processes.folder
    (folder / "files").mkdir()
    (folder / "files/plshelp.txt").write_text("help\n")
    measured = None
    try:
        processes.add("engine", engine(folder))
        for number in range(3):
            processes.add(f"server{number}", lambda port: [arguments.binary, "server", "--host", "127.0.0.1", "--port", port,
                                                           "--workers", "1", "--root", folder / "files"])
        (folder / "list").write_text("".join(f"127.0.0.1:{processes.ports[f'server{number}']}\n" for number in range(3)))
        flags, admins = ["--servers", folder / "list"], [free_port() for _ in range(3)]
        fleet = processes.ports["engine"]
        for number in range(2):
            name = f"b{number}"
            processes.add(name, balancer(arguments.binary, name, admins[number], fleet, *flags))
        measured = Server("fingerpost", lambda _, port: balancer(arguments.binary, "measured", admins[2], fleet, *flags)(port))
        wait_until("the balancers to share", 60, lambda: share(admins))
        costs = collections.defaultdict(list)
        works = lambda expected: wait_until("the state of the engine", 20,
                                            lambda: (report(admins[2], "/api/v1/fleet")["engine"] == "up") == expected)
        for _ in range(arguments.rounds):
            # The ratio of the two times with the engine on is the noise.
            for state in ("on", "hung", "off", "on again"):
                if state == "hung":
                    processes.running["engine"].send_signal(signal.SIGSTOP)
                if state == "off":
                    processes.running["engine"].send_signal(signal.SIGCONT)
                    processes.kill("engine")
                if state == "on again":
                    processes.start("engine")
                works(state.startswith("on"))
                run = wrk(measured, "/plshelp.txt", 64, 5)
                costs[state].append(run["cpu"] / run["requests"] * 1e6)
        print(f"\n## Redirects, CPU time in µs, medians of {arguments.rounds} rounds\n")
        print("| engine | µs per redirect | ratio to on, per round: least, median, most |\n|---|---|---|")
        for state, values in costs.items():
            ratios = sorted(value / on for value, on in zip(values, costs["on"]))
            print(f"| {state} | {statistics.median(values):.2f} | {ratios[0]:.3f}, {statistics.median(ratios):.3f}, {ratios[-1]:.3f} |")
    finally:
        if measured:
            measured.stop()
        processes.stop()


def kills(arguments):
    """kill -9 of each process in turn under load."""
    processes = Processes()
    folder = processes.folder
    (folder / "files").mkdir()
    (folder / "files/plshelp.txt").write_text("help\n")
    try:
        processes.add("engine", engine(folder))
        url = f"redis://127.0.0.1:{processes.ports['engine']}"
        servers = [f"server{number}" for number in range(5)]
        for name in servers:
            processes.add(name, lambda port: [arguments.binary, "server", "--host", "127.0.0.1", "--port", port, "--workers", "1",
                                              "--root", folder / "files", "--register", url, "--advertise", f"http://127.0.0.1:{port}"])
        admins = {f"b{number}": free_port() for number in range(3)}
        for name, admin in admins.items():
            processes.add(name, balancer(arguments.binary, name, admin, processes.ports["engine"], "--backends", url,
                                         "--state", folder / name))
        names = list(admins)

        def is_complete():
            up = [sum(backend["state"] == "up" for backend in report(admin, "/api/v1/backends").get("backends", []))
                  for admin in admins.values()]
            return up == [len(servers)] * len(names) and share(admins.values())

        wait_until("everything to work", 60, is_complete)
        clients = Clients([("127.0.0.1", processes.ports[name]) for name in names], 300)
        turns = ["engine", *names, *servers]
        pause = arguments.seconds / len(turns)
        spans, longest = [], 0.0
        for name in turns:
            clients.forget()
            begin = time.monotonic()
            processes.kill(name)
            time.sleep(max(DEATH_BOUND + 1, pause / 2))
            if name in servers:
                authority = f"127.0.0.1:{processes.ports[name]}"
                for index in range(len(names)):
                    last = max((at - begin for at, server in clients.since(index, begin) if server == authority), default=0.0)
                    longest = max(longest, last)
            processes.start(name)
            wait_until(f"everything to work again after the start of {name}", 40, is_complete)
            spans.append((name, begin, time.monotonic()))
            time.sleep(max(0, pause - (time.monotonic() - begin)))
        failures = clients.stop()
        own = lambda at, index: any(name == names[index] and begin <= at <= end for name, begin, end in spans)
        failures = [(index, error) for at, index, error in failures if not own(at, index)]
        if failures:
            problems.append(f"{len(failures)} requests through the remaining balancers failed: {failures[:3]}")
        if longest > DEATH_BOUND:
            problems.append(f"a killed server got redirects for {longest:.2f} s")
        print(f"\n## kill -9 of {len(turns)} processes in turn, {arguments.seconds} s\n")
        print(f"{clients.count} requests, {len(failures)} of them to running balancers failed; last redirect to a killed server after "
              f"{longest:.2f} s at most")
    finally:
        processes.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", default="scale,redirects,kills")
    parser.add_argument("--seconds", type=int, default=60, help="measured time of scale, and time of kills")
    parser.add_argument("--rounds", type=int, default=6, help="rounds of redirects")
    parser.add_argument("--binary", type=pathlib.Path, default=BINARY)
    arguments = parser.parse_args()
    for part in arguments.parts.split(","):
        {"scale": scale, "redirects": redirects, "kills": kills}[part](arguments)
    for problem in problems:
        print(f"wrong: {problem}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
