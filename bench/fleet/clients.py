"""Clients of several balancers, each a process that requests redirects at a fixed rate."""

import ctypes
import itertools
import multiprocessing
import re
import socket
import time

REQUEST = b"GET /plshelp.txt HTTP/1.1\r\nHost: localhost\r\n\r\n"
LOCATION = re.compile(rb"\r\nLocation: http://([^/\r]+)/plshelp\.txt\r\n")
CLONE_NEWNET = 0x40000000


def enter(namespace):
    """Moves this thread into a network namespace."""
    with open(f"/var/run/netns/{namespace}") as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {namespace}")


def request(connection):
    """The server to which the answer to one request redirects."""
    connection.sendall(REQUEST)
    answer = b""
    while b"\r\n\r\n" not in answer:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError("closed without an answer")
        answer += part
    head, body = answer.split(b"\r\n\r\n", 1)
    missing = int(re.search(rb"\r\nContent-Length: (\d+)", head)[1]) - len(body)
    while missing > 0:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError("closed within the body")
        missing -= len(part)
    found = LOCATION.search(head + b"\r\n")
    if not head.startswith(b"HTTP/1.1 301 ") or not found:
        raise ValueError(head.split(b"\r\n")[0].decode())
    return found[1].decode()


def run(address, rate, namespace, queue, is_over):
    """Sends lists of (time, server, error); one of both is None."""
    if namespace:
        enter(namespace)
    connection, results, begin = None, [], time.monotonic()
    for number in itertools.count():
        if is_over.is_set():
            break
        time.sleep(max(0, begin + number / rate - time.monotonic()))
        sent = time.monotonic()
        try:
            connection = connection or socket.create_connection(address, timeout=5)
            results.append((time.monotonic(), request(connection), None))
        except (OSError, ValueError, TypeError) as error:
            # A failure counts at the time of the request.
            results.append((sent, None, repr(error)))
            connection = None
        if len(results) >= rate // 10:
            queue.put(results)
            results = []
    queue.put(results)


class Clients:
    """One client for each balancer."""

    def __init__(self, addresses, rate, namespaces=None):
        self.is_over = multiprocessing.Event()
        self.queues = [multiprocessing.Queue() for _ in addresses]
        self.answers = [[] for _ in addresses]
        self.count = 0
        # (time, index of the balancer, error).
        self.failures = []
        namespaces = namespaces or [None] * len(addresses)
        self.processes = [multiprocessing.Process(target=run, args=(address, rate, namespace, queue, self.is_over))
                          for address, namespace, queue in zip(addresses, namespaces, self.queues)]
        for process in self.processes:
            process.start()

    def since(self, balancer, begin):
        """(time, server) of the redirects of a balancer after `begin`."""
        queue = self.queues[balancer]
        while not queue.empty():
            for at, server, error in queue.get():
                self.count += 1
                if error:
                    self.failures.append((at, balancer, error))
                else:
                    self.answers[balancer].append((at, server))
        return [(at, server) for at, server in self.answers[balancer] if at >= begin]

    def forget(self):
        """Forgets the redirects so far, but no failure."""
        for balancer in range(len(self.queues)):
            self.since(balancer, 0)
            self.answers[balancer].clear()

    def stop(self):
        """Stops the clients, and returns all failures."""
        self.is_over.set()
        time.sleep(0.5)
        self.forget()
        for process in self.processes:
            process.join(5)
        return self.failures
