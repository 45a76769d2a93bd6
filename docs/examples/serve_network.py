"""Serve a network over HTTP
=========================

Serve a network over HTTP; requests that wait are computed together::

    python docs/examples/serve_network.py                      start, ask a few times, stop
    python docs/examples/serve_network.py MODEL --port 8000    serve until SIGTERM or SIGINT

MODEL is a file of a packed model, or a network of `bitops.zoo`. It answers::

    POST /predict    images -> {"labels": [...], "scores": [[...], ...]}
    GET /health      200 while requests can be answered
    GET /metrics     counts and times, as Prometheus reads them

Images come as JSON, {"images": [...]}; as the bytes of a .npy file (application/x-npy); or as the
bytes of their numbers alone (application/octet-stream). Bad ones get 400, 413 or 415 and a reason.
One too many requests get 503 with Retry-After, at once: nothing here grows without a bound.

It needs bitops with its extra `serve`: `pip install '.[serve]'` in a checkout, or
`pip install 'FILE.whl[serve]'` with a wheel. The page "Serving a network over HTTP" explains it.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import io
import json
import logging
import math
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from types import FrameType

import numpy as np
import uvicorn
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client import generate_latest as metrics_text
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bitops import zoo
from bitops.layers import Packed

HEADER_BYTES = 16 << 10  # of a request line and all headers
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
log = logging.getLogger("serve_network")

Network = Callable[[np.ndarray], np.ndarray]  # images (n, *shape) -> scores (n, classes)


@dataclass(frozen=True)
class Limits:
    """What a client may ask for.

    Attributes
    ----------
    images : int
        Of one call of the network, hence also of one request.
    wait : float
        Seconds that a request waits for others to fill such a call. With 0, those that came while
        the last call ran go together.
    body : int
        Bytes of a request's body.
    requests : int
        In progress at a time, from their headers to their answers.
    connections : int
    seconds : float
        For a client to send a whole request, and between two requests.
    drain : float
        Seconds after SIGTERM in which requests are still answered.
    """

    images: int = 64
    wait: float = 0.0
    body: int = 1 << 20
    requests: int = 256
    connections: int = 512
    seconds: float = 10.0
    drain: float = 5.0


class Images:
    """Makes arrays of one shape and dtype of what clients send, and refuses all else."""

    def __init__(self, shape: tuple[int, ...], dtype: str, most: int):
        self.shape = shape
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.most = most
        self._decoders = {
            "application/json": self._of_json,
            "application/x-npy": self._of_npy,
            "application/octet-stream": self._of_bytes,
        }

    def decode(self, kind: str, body: bytes) -> np.ndarray:
        """Return images of shape (n, *shape); raise HTTPException with the reason."""
        decoder = self._decoders.get(kind.partition(";")[0].strip().lower())
        if decoder is None:
            raise HTTPException(415, f"content-type must be {' or '.join(self._decoders)}")
        images = decoder(body)
        self._check_shape(images.shape)
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            raise HTTPException(400, "images must be finite, got NaN or infinity")
        return images

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape[1:] != self.shape or not shape[0]:
            expected = ", ".join(map(str, self.shape))
            raise HTTPException(400, f"images must have shape (n, {expected}), n >= 1")
        if shape[0] > self.most:
            raise HTTPException(413, f"a request may have {self.most} images, got {shape[0]}")

    def _of_json(self, body: bytes) -> np.ndarray:
        try:
            images = part = json.loads(body)["images"]
            shape = []  # of the first image, at once: an array of the wrong ones takes long
            while isinstance(part, list):
                shape.append(len(part))
                part = part[0] if part else None
            self._check_shape(tuple(shape))
            images = np.asarray(images)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise HTTPException(400, 'the body must be JSON, {"images": [...]}') from None
        if images.dtype.kind not in "iuf":
            raise HTTPException(400, "images must be numbers, in lists of equal length")
        if self.dtype.kind == "f":
            with np.errstate(over="ignore"):
                return images.astype(self.dtype)
        if images.dtype.kind == "f" or images.min(initial=0) < 0 or images.max(initial=0) > 255:
            raise HTTPException(400, "images must be integers of 0 to 255")
        return images.astype(self.dtype)

    def _of_npy(self, body: bytes) -> np.ndarray:
        """Read a .npy file. What its header claims is checked before anything is made of it."""
        file = io.BytesIO(body)
        try:
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[np.lib.format.read_magic(file)]
            shape, is_fortran, dtype = read(file, max_header_size=1000)
        except Exception:  # of many kinds, and the file's fault whichever it is
            raise HTTPException(400, "the body must be a .npy file") from None
        if dtype.newbyteorder("<") != self.dtype or not dtype.isnative:
            raise HTTPException(400, f"images must be {self.dtype.name}")
        data = memoryview(body)[file.tell() :]
        if min(shape, default=0) < 0 or len(data) != math.prod(shape) * dtype.itemsize:
            raise HTTPException(400, "the .npy file must be whole")
        images = np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")
        return np.ascontiguousarray(images)

    def _of_bytes(self, body: bytes) -> np.ndarray:
        size = math.prod(self.shape) * self.dtype.itemsize
        if len(body) % size:
            raise HTTPException(400, f"the body must be n times {size} bytes, got {len(body)}")
        return np.frombuffer(body, self.dtype).reshape(-1, *self.shape)


class Batches:
    """Collects the images of waiting requests, and lets one thread compute them together.

    The network does not hold the global interpreter lock while it computes. So the event loop reads
    requests meanwhile, which make the next batch.
    """

    def __init__(self, network: Network, limits: Limits, sizes: Histogram):
        self._network = network
        self._limits = limits
        self._sizes = sizes
        self._requests: deque[tuple[np.ndarray, asyncio.Future]] = deque()
        self._some = asyncio.Event()  # there are requests
        self._full = asyncio.Event()  # and they fill a batch
        self.images = 0  # that wait

    async def scores(self, images: np.ndarray) -> np.ndarray:
        """Wait for the scores of some images."""
        future = asyncio.get_running_loop().create_future()
        self._requests.append((images, future))
        self.images += len(images)
        self._some.set()
        if self.images >= self._limits.images:
            self._full.set()
        return await future

    async def run(self) -> None:
        """Compute batch after batch, until cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as thread:
            while True:
                requests = await self._next()
                images = np.concatenate([images for images, _ in requests])
                self._sizes.observe(len(images))
                try:
                    scores = await loop.run_in_executor(thread, self._network, images)
                except Exception as error:
                    log.exception("the network failed")
                    scores = error
                self._answer(requests, scores)

    async def _next(self) -> list[tuple[np.ndarray, asyncio.Future]]:
        """Wait for requests, and take as many as one call of the network may have."""
        await self._some.wait()
        if self._limits.wait:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._full.wait(), self._limits.wait)
        taken, room = [], self._limits.images
        while self._requests and len(self._requests[0][0]) <= room:
            taken.append(self._requests.popleft())
            room -= len(taken[-1][0])
            self.images -= len(taken[-1][0])
        if not self._requests:
            self._some.clear()
        if self.images < self._limits.images:
            self._full.clear()
        return taken

    @staticmethod
    def _answer(requests: list, scores: np.ndarray | Exception) -> None:
        start = 0
        for images, future in requests:
            end = start + len(images)
            if future.done():  # its client is gone
                pass
            elif isinstance(scores, Exception):
                future.set_exception(scores)
            else:
                future.set_result(scores[start:end])
            start = end


class Service:
    """The application: what is answered at which path, and what is counted."""

    def __init__(self, network: Network, shape: tuple[int, ...], dtype: str, limits: Limits):
        self.limits = limits
        self.is_stopping = False  # a `Server` says so
        self._images = Images(shape, dtype, limits.images)
        self._in_progress = 0
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # memory, processor time, open files
        self._answers = Counter(
            "bitops_requests", "Requests for predictions", ["code"], registry=self._registry
        )
        self._seconds = Histogram(
            "bitops_request_seconds",
            "From the headers of a request to its answer",
            buckets=SECONDS,
            registry=self._registry,
        )
        sizes = [2**i for i in range(limits.images.bit_length())]
        self._batches = Batches(
            network,
            limits,
            Histogram(
                "bitops_batch_images",
                "Images of one call of the network",
                buckets=sizes,
                registry=self._registry,
            ),
        )
        for name, text, value in (
            ("bitops_waiting_images", "Images in the queue", lambda: self._batches.images),
            ("bitops_requests_in_progress", "Of predictions", lambda: self._in_progress),
        ):
            Gauge(name, text, registry=self._registry).set_function(value)
        scores = network(np.zeros((1, *shape), dtype))  # fails now if it fails; and makes its plans
        if np.shape(scores)[:1] != (1,) or np.ndim(scores) != 2:
            raise ValueError(f"the network must give a row of scores, got shape {np.shape(scores)}")
        app = Starlette(
            routes=[
                Route("/predict", self.predict, methods=["POST"]),
                Route("/health", self.health),
                Route("/metrics", self.metrics),
            ],
            lifespan=self._lifespan,
            exception_handlers={HTTPException: self._refusal},
        )

        async def closing_app(scope: dict, receive: Callable, send: Callable) -> None:
            """While the service stops, let each answer close its connection."""

            async def send_closing(message: dict) -> None:
                if message["type"] == "http.response.start" and self.is_stopping:
                    # so that the next request goes elsewhere
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
                await send(message)

            await app(scope, receive, send_closing)

        self.app = closing_app

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._computing = asyncio.create_task(self._batches.run())
        yield
        self._computing.cancel()  # the server has waited for all requests

    async def predict(self, request: Request) -> Response:
        """Answer with the classes of images and their scores."""
        start = time.perf_counter()
        self._in_progress += 1
        try:
            response = await self._predict(request)
        except HTTPException as refusal:
            response = self._refusal(request, refusal)
        except ClientDisconnect:
            response = Response(status_code=400)  # nobody reads it
        except Exception:
            response = JSONResponse({"error": "the network failed"}, 500)
        finally:
            self._in_progress -= 1
        self._answers.labels(response.status_code).inc()
        self._seconds.observe(time.perf_counter() - start)
        return response

    async def _predict(self, request: Request) -> Response:
        if self._in_progress > self.limits.requests:
            raise HTTPException(503, "too many requests are waiting", {"Retry-After": "1"})
        body = await self._body(request)
        images = self._images.decode(request.headers.get("content-type", ""), body)
        scores = await self._batches.scores(images)
        labels = scores.argmax(axis=1)
        return JSONResponse({"labels": labels.tolist(), "scores": scores.tolist()})

    async def _body(self, request: Request) -> bytes:
        most = self.limits.body
        # What a client claims is refused before it is read, and what it sends after so many bytes.
        length = request.headers.get("content-length", "0")
        parts, size = [], int(length) if length.isdecimal() else 0
        if size <= most:
            size = 0
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > most:
                    break
        if size > most:
            raise HTTPException(413, f"a body may have {most:,} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def health(self, request: Request) -> Response:
        """Say whether requests can be answered, and what they must be like."""
        failed = self._computing.done()
        about = {
            "status": "failed" if failed else "stopping" if self.is_stopping else "ok",
            "shape": self._images.shape,
            "dtype": self._images.dtype.name,
            "most_images": self.limits.images,
        }
        return JSONResponse(about, 200 if about["status"] == "ok" else 503)

    async def metrics(self, request: Request) -> Response:
        """Return what has been counted."""
        text = metrics_text(self._registry)
        return Response(text, media_type="text/plain; version=0.0.4")

    @staticmethod
    def _refusal(request: Request, refusal: HTTPException) -> Response:
        return JSONResponse({"error": refusal.detail}, refusal.status_code, refusal.headers)


class Server(uvicorn.Server):
    """Ends at SIGTERM some seconds later, and not before all requests are answered.

    Meanwhile it takes further ones, since who sends them cannot know yet; but /health says 503, and
    answers close their connections.
    """

    def __init__(self, config: uvicorn.Config, service: Service):
        super().__init__(config)
        self._service = service
        self._drain = 0.0  # seconds: Ctrl-C and `should_exit` do not wait

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM:
            self._drain = self._service.limits.drain
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.is_stopping = True
        end = time.monotonic() + self._drain
        while time.monotonic() < end and not self.force_exit:
            await asyncio.sleep(0.1)
        await super().shutdown(sockets)


def server(service: Service) -> Server:
    """Return the server of a service."""
    limits = service.limits

    class Protocol(HttpToolsProtocol):
        """Closes connections that are slow to send a request, or send too many headers."""

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._start()

        def _start(self) -> None:
            self._header_bytes: int | None = 0  # None: they are complete
            self._deadline = self.loop.call_later(limits.seconds, self.transport.close)

        def on_message_begin(self) -> None:
            self._deadline.cancel()
            self._start()
            super().on_message_begin()

        def data_received(self, data: bytes) -> None:
            before = self._header_bytes
            super().data_received(data)
            if before is not None and self._header_bytes is not None:  # nothing but headers
                self._header_bytes += len(data)
                if self._header_bytes > HEADER_BYTES:
                    self.send_400_response("The headers of a request are too large.")

        def on_headers_complete(self) -> None:
            self._header_bytes = None
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            if not self.cycle.response_complete:  # else the server waits for no more
                self._deadline.cancel()
            super().on_message_complete()

        def connection_lost(self, error: Exception | None) -> None:
            self._deadline.cancel()
            super().connection_lost(error)

    config = uvicorn.Config(
        service.app,
        http=Protocol,
        ws="none",
        log_level="warning",
        access_log=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=limits.seconds,
        timeout_graceful_shutdown=30,
    )
    return Server(config, service)


def demonstrate(service: Service, network: Packed, images: np.ndarray) -> None:
    """Start the service, ask it in several ways and from several threads, and stop it."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    host = server(service)
    thread = threading.Thread(target=host.run, args=([listener],))
    thread.start()

    def ask(path: str, kind: str = "", body: bytes | None = None) -> tuple[int, bytes]:
        method, headers = ("POST", {"Content-Type": kind}) if body else ("GET", {})
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()

    try:
        expected = network(images).tolist()
        file = io.BytesIO()
        np.save(file, images)
        for kind, body in (
            ("application/json", json.dumps({"images": images.tolist()}).encode()),
            ("application/x-npy", file.getvalue()),
            ("application/octet-stream", images.tobytes()),
        ):
            status, answer = ask("/predict", kind, body)
            assert status == 200 and json.loads(answer)["scores"] == expected
            print(f"{kind}: {len(body):,} bytes, labels {json.loads(answer)['labels']}")
        status, answer = ask("/predict", "application/octet-stream", images.tobytes()[1:])
        assert status == 400
        print(f"a byte less: {status} {answer.decode()}")

        with ThreadPoolExecutor(16) as clients:
            kind = "application/octet-stream"
            answers = clients.map(lambda x: ask("/predict", kind, x.tobytes()), list(images) * 20)
            scores = [json.loads(answer)["scores"][0] for _, answer in answers]
        assert scores == expected * 20
        text = ask("/metrics")[1].decode()
        shown = ("bitops_requests_total", "bitops_batch_images_sum", "bitops_batch_images_count")
        print(*(line for line in text.splitlines() if line.startswith(shown)), sep="\n")
        status, answer = ask("/health")
        assert status == 200
        print(f"health: {answer.decode()}")
    finally:
        host.should_exit = True
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a network over HTTP.")
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a file, or a name of the zoo")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--shape", help="of an image, as 28,28,1, if the model does not tell")
    parser.add_argument("--dtype", choices=("uint8", "float32"), default="uint8")
    for name, value in vars(Limits()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"({value})")
    options = parser.parse_args()

    model = options.model or "mnist-mlp"
    network = zoo.load(model) if model in zoo.names() else Packed.load(model)
    shape = network.input_shape
    if options.shape:
        shape = tuple(map(int, options.shape.split(",")))
    if shape is None:
        parser.error("the model does not tell the shape of its images: --shape")
    limits = Limits(**{name: getattr(options, name) for name in vars(Limits())})
    service = Service(network.outputs, shape, options.dtype, limits)
    if options.model is None:
        demonstrate(service, network, zoo.samples(model))
    else:
        listener = socket.create_server((options.host, options.port))
        print(f"serving {model} on http://{options.host}:{listener.getsockname()[1]}", flush=True)
        server(service).run([listener])


if __name__ == "__main__":
    main()
