"""The service of docs/examples/serve_network.py: answers, limits, overload, stop."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from bitops import zoo

for name in ("starlette", "uvicorn", "httptools", "prometheus_client"):
    pytest.importorskip(name, reason=f"the service needs {name}, of the extra serve")

PATH = Path(__file__).resolve().parents[1] / "docs" / "examples" / "serve_network.py"
RAW, NPY, JSON = "application/octet-stream", "application/x-npy", "application/json"
SHAPE = (28, 28, 1)


class Slow:
    """A network that waits until it may go on; it keeps the sizes of its batches."""

    def __init__(self):
        self.go = threading.Event()
        self.sizes = []

    def __call__(self, images):
        if self.sizes:  # but for the first call, of the start
            assert self.go.wait(20)
        self.sizes.append(len(images))
        if images.any() and images.reshape(len(images), -1)[:, 0].max() == 13:
            raise ZeroDivisionError("a network of bad luck")
        return images.reshape(len(images), -1)[:, :3].astype(np.float32)


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(PATH), run_name="serve_network")


@contextmanager
def running(example, network, shape=SHAPE, dtype="uint8", **limits):
    """A service in a thread; at the end, its server stops as by SIGTERM."""
    service = example["Service"](network, shape, dtype, example["Limits"](**limits))
    listener = socket.create_server(("127.0.0.1", 0))
    server = example["server"](service)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    client = Asker(listener.getsockname()[1], server, thread)
    try:
        yield client
    finally:
        if isinstance(network, Slow):
            network.go.set()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


class Asker:
    def __init__(self, port, server=None, thread=None):
        self.port, self.server, self.thread = port, server, thread

    def __call__(self, body=None, kind=RAW, path="/predict", headers=()):
        """Return status, headers and the answer."""
        method = "GET" if body is None else "POST"
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, body, {"Content-Type": kind, **dict(headers)})
            response = connection.getresponse()
            data = response.read()
        answer = json.loads(data) if response.headers["Content-Type"] == JSON else data.decode()
        return response.status, response.headers, answer

    def metric(self, name):
        text = self(path="/metrics")[2]
        return float(re.search(rf"^{re.escape(name)} (\S+)$", text, flags=re.M)[1])

    def until(self, name, value):
        """Wait until a metric has a value."""
        for _ in range(1000):
            if self.metric(name) == value:
                return
            time.sleep(0.01)
        raise AssertionError(f"{name} is {self.metric(name)}, not {value}")


@pytest.fixture(scope="module")
def service(example):
    """A network of the zoo, with small limits."""
    packed = zoo.load("mnist-mlp")
    with running(example, packed.outputs, packed.input_shape, images=8, body=30_000) as ask:
        yield ask


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def header(text, version=(1, 0)):
    """A .npy file of a header alone."""
    size = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + text.encode()


IMAGES = zoo.samples("mnist-mlp")[:8]


@pytest.mark.parametrize(
    "body, kind",
    (
        (IMAGES.tobytes(), RAW),
        (npy(IMAGES), NPY),
        (npy(np.asfortranarray(IMAGES)), NPY),
        (json.dumps({"images": IMAGES.tolist()}), JSON),
        (json.dumps({"images": IMAGES.tolist()}), "Application/JSON; charset=utf-8"),
    ),
    ids=("bytes", "npy", "fortran", "json", "json with a parameter"),
)
def test_answers_are_those_of_the_packed_network(service, body, kind):
    status, _, answer = service(body, kind)
    packed = zoo.load("mnist-mlp")
    assert status == 200
    assert answer["labels"] == packed.predict(IMAGES).tolist()
    assert np.array_equal(np.float32(answer["scores"]), packed(IMAGES))


def test_numbers_are_float32_if_the_service_says_so(example):
    def network(x):
        return 2 * x

    x = np.float32([[0.1, -2.5, 3e38 / 4], [1, 2, 3]])
    with running(example, network, (3,), "float32") as ask:
        for body, kind in (
            (x.tobytes(), RAW),
            (npy(x), NPY),
            (json.dumps({"images": x.tolist()}), JSON),
        ):
            status, _, answer = ask(body, kind)
            assert status == 200 and answer["labels"] == [2, 2]
            assert np.array_equal(np.float32(answer["scores"]), 2 * x)
        for value in ("NaN", "Infinity", "1e39", "1e400"):
            assert ask(f'{{"images": [[0, {value}, 1]]}}', JSON)[0] == 400
        for value in (np.nan, np.inf):
            assert ask(np.float32([0, value, 1]).tobytes())[0] == 400
        assert ask(npy(x.astype(">f4")), NPY)[0] == 400
        assert ask(npy(x.astype(np.float64)), NPY)[0] == 400


BOMB = "{'descr': '|u1', 'fortran_order': False, 'shape': (999999999, 784), }\n"
BAD = {
    "no JSON": ("{images", JSON, 400),
    "no images": ('{"pictures": []}', JSON, 400),
    "a list": ("[1, 2]", JSON, 400),
    "deep": ('{"images":' + 14_000 * "[" + 14_000 * "]" + "}", JSON, 400),
    "ragged": ('{"images": [[1, 2], [3]]}', JSON, 400),
    "words": ('{"images": [["a", "b"]]}', JSON, 400),
    "null": ('{"images": null}', JSON, 400),
    "fractions": (json.dumps({"images": [[0.5] * 784]}), JSON, 400),
    "256": (json.dumps({"images": [[256] * 784]}), JSON, 400),
    "-1": (json.dumps({"images": [[-1] * 784]}), JSON, 400),
    "huge": (json.dumps({"images": [[10**30] * 784]}), JSON, 400),
    "true": (json.dumps({"images": [[True] * 784]}), JSON, 400),
    "NaN": ('{"images": [[' + "NaN," * 783 + "0]]}", JSON, 400),
    "many lists": ('{"images": [' + "[1]," * 7000 + "[1]]}", JSON, 400),
    "too many lists": (json.dumps({"images": [[1] * 784] * 9}), JSON, 413),
    "another shape": (json.dumps({"images": [[1] * 783]}), JSON, 400),
    "one image alone": (json.dumps({"images": [1] * 784}), JSON, 400),
    "none of them": (json.dumps({"images": []}), JSON, 400),
    "no bytes": (b"", RAW, 400),
    "a byte less": (bytes(783), RAW, 400),
    "too many": (bytes(9 * 784), RAW, 413),
    "too long": (bytes(40_000), RAW, 413),
    "no npy": (b"PK\x03\x04", NPY, 400),
    "npy without data": (npy(IMAGES)[:-1], NPY, 400),
    "npy with more": (npy(IMAGES) + b"\0", NPY, 400),
    "npy of floats": (npy(IMAGES.astype(np.float32)), NPY, 400),
    "npy of objects": (npy(np.array([None, {}])), NPY, 400),
    "npy of another shape": (npy(IMAGES.reshape(8, 28, 28)), NPY, 400),
    "npy of a number": (npy(np.uint8(3)), NPY, 400),
    "npy that claims much": (header(BOMB) + bytes(100), NPY, 400),
    "npy of less than nothing": (header(BOMB.replace("999999999", "-1")), NPY, 400),
    "npy header of brackets": (header("(" * 9000), NPY, 400),
    "npy header too long": (header(" " * 20_000, (2, 0)), NPY, 400),
    "npy of version 3": (header(BOMB, (3, 0)), NPY, 400),
    "a picture": (b"\x89PNG", "image/png", 415),
    "no type": (bytes(784), "", 415),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_get_a_reason(service, case):
    body, kind, expected = BAD[case]
    status, _, answer = service(body, kind)
    assert (status, list(answer)) == (expected, ["error"])
    assert len(answer["error"]) > 10
    assert service(IMAGES.tobytes())[0] == 200


def test_bodies_without_a_length_are_limited(service):
    chunks = (bytes(784) for _ in range(8))
    assert service(chunks)[0] == 200
    assert service(bytes(784) for _ in range(60))[0] == 413


def test_other_paths_and_methods(service):
    assert service(path="/")[0] == 404
    assert service(path="/predict")[0] == 405
    assert service(b"x", path="/health")[0] == 405


def test_health_says_what_images_must_be(service):
    status, _, answer = service(path="/health")
    assert status == 200
    assert answer == {"status": "ok", "shape": [784], "dtype": "uint8", "most_images": 8}


def test_metrics_count(service):
    names = ['bitops_requests_total{code="200"}', 'bitops_requests_total{code="400"}']
    names += ["bitops_request_seconds_count", "bitops_batch_images_sum"]
    assert service(IMAGES.tobytes())[0] == 200 and service(b"")[0] == 400
    before = [service.metric(name) for name in names]
    assert service(IMAGES.tobytes())[0] == 200 and service(b"")[0] == 400
    after = [service.metric(name) for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 2, 8]
    assert service.metric("bitops_waiting_images") == 0
    assert service.metric("bitops_requests_in_progress") == 0
    if sys.platform == "linux":
        assert service.metric("process_resident_memory_bytes") > 1e7


def image(number, count=1):
    return np.full((count, *SHAPE), number, np.uint8).tobytes()


def test_waiting_requests_are_computed_together(example):
    network = Slow()
    with running(example, network, images=16) as ask, ThreadPoolExecutor(12) as clients:
        first = clients.submit(ask, image(1))
        ask.until("bitops_batch_images_count", 1)
        counts = (1, 2, 3, 4, 1, 2, 3, 4)  # 20 images, of which 16 fit
        others = [clients.submit(ask, image(10 * n, n)) for n in counts]
        ask.until("bitops_waiting_images", 20)
        network.go.set()
        assert first.result()[2]["scores"] == [[1, 1, 1]]
        for n, other in zip(counts, others, strict=True):
            assert other.result()[2]["scores"] == [[10 * n] * 3] * n
    assert network.sizes[:2] == [1, 1]  # that of the start, and the first request
    assert sum(network.sizes[2:]) == 20
    assert len(network.sizes[2:]) == 2 and max(network.sizes) <= 16


def test_a_request_waits_for_others_as_long_as_it_is_told(example):
    network = Slow()
    network.go.set()
    with running(example, network, images=4, wait=20.0) as ask, ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(ask, [image(5)] * 4))  # full before the time is over
        assert [status for status, *_ in answers] == [200] * 4
    assert network.sizes == [1, 4]
    with running(example, network, images=4, wait=0.01) as ask:
        assert ask(image(7))[2]["labels"] == [0]
    assert network.sizes == [1, 4, 1, 1]


def test_overload_is_answered_at_once(example):
    network = Slow()
    with running(example, network, requests=3) as ask, ThreadPoolExecutor(3) as clients:
        waiting = [clients.submit(ask, image(1)) for _ in range(3)]
        ask.until("bitops_requests_in_progress", 3)
        for _ in range(5):
            status, headers, answer = ask(image(2))
            assert (status, headers["Retry-After"], list(answer)) == (503, "1", ["error"])
        assert ask(path="/health")[0] == 200
        network.go.set()
        assert [request.result()[0] for request in waiting] == [200] * 3
        assert ask(image(2))[0] == 200
        assert ask.metric('bitops_requests_total{code="503"}') == 5


def test_a_network_that_fails_fails_its_requests_alone(example):
    network = Slow()
    network.go.set()
    with running(example, network) as ask:
        assert ask(image(13))[0] == 500
        assert ask(image(14))[0] == 200
        assert ask.metric('bitops_requests_total{code="500"}') == 1


@pytest.mark.parametrize("scores", (np.zeros(1), np.zeros((1, 2, 2)), np.zeros((2, 10))))
def test_networks_without_scores_are_refused(example, scores):
    with pytest.raises(ValueError, match="must give a row of scores"):
        example["Service"](lambda x: scores, SHAPE, "uint8", example["Limits"]())


def test_clients_that_leave_disturb_nobody(example):
    network = Slow()
    with running(example, network) as ask:
        with socket.create_connection(("127.0.0.1", ask.port)) as client:
            client.sendall(request(image(1)))
            ask.until("bitops_batch_images_count", 1)
        with socket.create_connection(("127.0.0.1", ask.port)) as client:
            client.sendall(request(image(1))[:-1])
            ask.until("bitops_requests_in_progress", 2)
        network.go.set()
        assert ask(image(3))[0] == 200
        ask.until("bitops_requests_in_progress", 0)


def request(body):
    lines = ("POST /predict HTTP/1.1", "Host: x", f"Content-Type: {RAW}")
    return "\r\n".join((*lines, f"Content-Length: {len(body)}", "", "")).encode() + body


@pytest.mark.parametrize("sent", (b"", b"POST /pred", request(image(1))[:-1], b"\r\n"))
def test_slow_senders_are_cut_off(example, sent):
    with running(example, lambda x: x[:, 0, :3, 0], seconds=0.2) as ask:
        with socket.create_connection(("127.0.0.1", ask.port), timeout=20) as client:
            client.sendall(sent)
            assert client.recv(1000) == b""
        with socket.create_connection(("127.0.0.1", ask.port), timeout=20) as client:
            client.sendall(request(image(1)))
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
            while client.recv(1000):  # until the server closes the idle connection
                pass


@pytest.mark.parametrize(
    "line", (b"GET /" + b"a" * 70_000, b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000)
)
def test_endless_headers_are_cut_off(service, line):
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        client.sendall(line)
        assert client.recv(1000).startswith(b"HTTP/1.1 400")
    assert service(IMAGES.tobytes())[0] == 200


def test_stopping_answers_what_was_asked(example):
    network = Slow()
    with running(example, network) as ask, ThreadPoolExecutor(2) as clients:
        waiting = [clients.submit(ask, image(n)) for n in (1, 2)]
        ask.until("bitops_requests_in_progress", 2)
        ask.server.should_exit = True
        for _ in range(1000):  # until it takes no more
            try:
                socket.create_connection(("127.0.0.1", ask.port)).close()
            except ConnectionRefusedError:
                break
            time.sleep(0.01)
        assert not any(request.done() for request in waiting)
        network.go.set()
        assert [request.result()[2]["scores"] for request in waiting] == [[[1] * 3], [[2] * 3]]
        ask.thread.join(20)


posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@contextmanager
def program(*arguments):
    """The program, serving a network of the zoo in a process of its own."""
    argv = [sys.executable, PATH, *arguments, "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, Asker(int(process.stdout.readline().rpartition(":")[2]))
        finally:
            process.kill()


@posix
def test_the_program_serves_a_file_until_sigterm(tmp_path):
    path = tmp_path / "network.safetensors"
    zoo.load("mnist-xnor-lenet5").save(path)
    with program(path, "--images", "2", "--drain", "0") as (process, ask):
        images = zoo.samples("mnist-xnor-lenet5")
        status, _, answer = ask(npy(images[:2]), NPY)
        assert status == 200 and answer["labels"] == [0, 1]
        assert ask(npy(images), NPY)[0] == 413
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)


@posix
def test_clients_can_leave_after_sigterm():
    images = zoo.samples("mnist-mlp")
    asked = threading.Semaphore(0)

    def stays_until_told(port):
        statuses, connection = [], http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        with closing(connection):
            while True:
                connection.request("POST", "/predict", images.tobytes(), {"Content-Type": RAW})
                response = connection.getresponse()
                statuses.append(response.status)
                assert json.loads(response.read())["labels"] == list(range(10))
                asked.release()
                if response.headers["Connection"] == "close":
                    return statuses

    with program("mnist-mlp", "--drain", "3") as (process, ask), ThreadPoolExecutor(8) as clients:
        busy = [clients.submit(stays_until_told, ask.port) for _ in range(8)]
        for _ in range(100):
            assert asked.acquire(timeout=20)
        assert ask(path="/health")[2]["status"] == "ok"
        process.send_signal(signal.SIGTERM)
        statuses = [status for client in busy for status in client.result()]
        assert set(statuses) == {200}
        status, headers, _ = ask(images.tobytes())  # one that does not know
        assert status == 200 and headers["Connection"] == "close"
        for path, code in (("/health", 503), ("/metrics", 200), ("/none", 404)):
            status, headers, _ = ask(path=path)
            assert status == code and headers["Connection"] == "close"
        assert ask(path="/health")[2]["status"] == "stopping"
        assert process.wait(20) in (0, -signal.SIGTERM)


@posix
def test_sigint_does_not_wait_for_clients_to_leave():
    with program("mnist-mlp", "--drain", "1000") as (process, ask):
        assert ask(path="/health")[0] == 200
        process.send_signal(signal.SIGINT)
        process.wait(20)
