"""The service of docs/examples/serve_network.py under load, beside the same with ONNX Runtime.

    python bench/serving.py [--network mnist-mlp cifar10-convnet] [--seconds 4]

Every client sends an image of its own, over and over on one connection, as the bytes of its pixels;
every answer is compared with that of the packed network. The rival computes the same network in
float32: the service is the same but for the function that it calls. Each service is a process whose
network has one thread. The two take turns; a row is the turn with the median rate. The last run
asks for more than the service takes on; clients that get 503 ask again after a tenth of a second.
Linux; needs the extras serve and onnx, and `pip install onnxruntime`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import common
from bitops import set_num_threads, zoo
from bitops.benchmark import WrongResult

ENGINES = ("bitops", "onnxruntime")
CLIENTS = (1, 8, 64)
OVERLOAD = 512  # clients, twice as many as the service takes on
RETRY = 0.1  # seconds
TURNS = 5  # of each service, one after the other


def serve(name: str, engine: str) -> None:
    """Serve a network of the zoo in this process, at a port that is printed."""
    sys.path.append(str(Path(__file__).parents[1] / "docs" / "examples"))
    import serve_network

    set_num_threads(1)
    packed = zoo.load(name)
    network = packed.outputs if engine == "bitops" else onnx_network(packed)
    limits = serve_network.Limits(connections=2 * OVERLOAD)
    service = serve_network.Service(network, packed.input_shape, "uint8", limits)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    serve_network.server(service).run([listener])


def onnx_network(packed):
    """Return a function that computes the scores of a packed network in float32."""
    import onnxruntime

    from bitops.convert import to_onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        to_onnx(packed, path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda images: session.run(None, {given.name: images.astype(np.float32)})[0]


@contextmanager
def running(name: str, engine: str) -> Iterator[tuple[int, subprocess.Popen]]:
    """Start a service; at the end, stop it by SIGTERM."""
    argv = [sys.executable, __file__, "--serve", name, engine]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), process
            process.send_signal(signal.SIGTERM)
            if process.wait(60) not in (0, -signal.SIGTERM):
                raise RuntimeError(f"the service ended with {process.returncode}")
        finally:
            process.kill()


def megabytes(process: subprocess.Popen) -> float:
    """Return the most memory that a process has had, in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


class Client:
    """One connection that asks the same, over and over."""

    def __init__(self, port: int, image: np.ndarray):
        body = image.tobytes()
        self._request = (
            "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream"
            f"\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self.began = 0.0

    def ask(self) -> None:
        self.began = time.perf_counter()
        self.socket.sendall(self._request)

    def answer(self) -> tuple[int, bytes] | None:
        """Read what has come; return status and body once they are whole."""
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the service closed a connection")
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return None
        size = re.search(rb"content-length: (\d+)", head)
        if size is None or len(body) < int(size[1]):
            return None
        self._received = b""
        return int(head[9:12]), body


@dataclass
class Load:
    """What came back: seconds of each answer with 200, in order of length, and all statuses."""

    seconds: float
    times: np.ndarray
    statuses: Counter

    @property
    def rate(self) -> float:
        return len(self.times) / self.seconds

    def milliseconds(self, share: float) -> float:
        return 1e3 * float(np.quantile(self.times, share))


def load(port: int, images: np.ndarray, scores: np.ndarray, clients: int, seconds: float) -> Load:
    """Ask from so many connections at a time."""
    selector = selectors.DefaultSelector()
    asking = []
    for i in range(clients):
        asking.append(Client(port, images[i % len(images)]))
        if i % 64 == 63:
            time.sleep(0.05)  # systems may queue but 128 connections that are not accepted yet
    for i, client in enumerate(asking):
        expected = scores[i % len(images)]
        selector.register(client.socket, selectors.EVENT_READ, (client, expected))
        client.ask()
    times: list[float] = []
    statuses: Counter = Counter()
    known: dict[Client, bytes] = {}  # right answers
    resting: list[tuple[float, Client]] = []  # after a 503
    start = now = time.perf_counter()
    while now < start + seconds:
        for key, _ in selector.select(RETRY / 4 if resting else 1):
            client, expected = key.data
            if (answer := client.answer()) is None:
                continue
            status, body = answer
            now = time.perf_counter()
            statuses[status] += 1
            if status == 503:
                resting.append((now + RETRY, client))
                continue
            times.append(now - client.began)
            if known.get(client) != body:
                check(body, expected)
                known[client] = body
            client.ask()
        now = time.perf_counter()
        while resting and resting[0][0] <= now:
            resting.pop(0)[1].ask()
    for client in asking:
        client.socket.close()
    selector.close()
    return Load(now - start, np.array(times), statuses)


def check(body: bytes, expected: np.ndarray) -> None:
    if not np.allclose(json.loads(body)["scores"][0], expected, rtol=1e-5, atol=1e-4):
        raise WrongResult(f"[serving] the scores must be {expected}, got {body!r:.200}")


def measure(name: str, clients: int, seconds: float, ports: dict[str, int]) -> dict[str, Load]:
    """Load the services in turns; return of each the turn with the median rate."""
    packed, images = zoo.load(name), zoo.samples(name)
    scores = packed(images)
    turns: dict[str, list[Load]] = {engine: [] for engine in ports}
    for _ in range(TURNS):
        for engine, port in ports.items():
            turns[engine].append(load(port, images, scores, clients, seconds / TURNS))
    return {
        engine: sorted(loads, key=lambda x: x.rate)[TURNS // 2] for engine, loads in turns.items()
    }


def compare(name: str, seconds: float) -> None:
    """Print a row for each number of clients and each engine."""
    with ExitStack() as stack:
        services = {engine: stack.enter_context(running(name, engine)) for engine in ENGINES}
        ports = {engine: port for engine, (port, _) in services.items()}
        measure(name, 8, seconds, ports)
        for clients in CLIENTS:
            for engine, result in measure(name, clients, seconds, ports).items():
                print_row(name, engine, clients, result, services[engine][1])


def overload(name: str, seconds: float) -> None:
    """Ask for more than the service takes on, and print what came back."""
    with running(name, "bitops") as (port, process):
        measure(name, 8, seconds, {"bitops": port})
        before = megabytes(process)
        images = zoo.samples(name)
        result = load(port, images, zoo.load(name)(images), OVERLOAD, seconds)
        print_row(name, "bitops", OVERLOAD, result, process)
        answers = ", ".join(f"{n:,} x {status}" for status, n in sorted(result.statuses.items()))
        print(f"{'':29} answers: {answers}; before it {before:.0f} MiB")


def print_row(name: str, engine: str, clients: int, load: Load, process: subprocess.Popen) -> None:
    print(
        f"{name:<16} {engine:<12} {clients:>7} {load.rate:>10,.0f} {load.milliseconds(0.5):>8.2f}"
        f" {load.milliseconds(0.99):>8.2f} {megabytes(process):>8.0f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", default=["mnist-mlp", "cifar10-convnet"])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each row")
    parser.add_argument("--serve", nargs=2, metavar=("NETWORK", "ENGINE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    for key, value in (common.stamp() | {"cores": len(os.sched_getaffinity(0))}).items():
        print(f"{key}: {value}")
    print(
        f"\n{'network':<16} {'engine':<12} {'clients':>7} {'requests/s':>10} {'p50 ms':>8}"
        f" {'p99 ms':>8} {'most MiB':>8}"
    )
    for name in options.network:
        compare(name, options.seconds)
        overload(name, options.seconds)


if __name__ == "__main__":
    main()
