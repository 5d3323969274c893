"""An engine on a machine of its own: what trainers ask of it over HTTP. `rlvtg.rollout.client` is the other side.

    GET  /health              what it is and which weights it holds; 503 while it loads
    POST /generate            prompts in, completions out (see `rlvtg.rollout.wire`)
    POST /weights             announces new weights: the old ones are not sampled from any more; replies {"transfer": T}
    PUT  /weights/T/K         the K-th file of them, safetensors
    POST /weights/T           {"files": N, "tensors": M}: that was all; the engine takes them and calls them T

Weights wait on disk until the last of them is there, so the engine never holds half of them, and a transfer that breaks
off leaves a server that refuses to generate until a whole one has come. A request names the weights that it wants.

Whoever may talk to the server may replace its weights. It listens to its own machine alone unless told otherwise, and
asks for the token of RLVTG_SERVER_TOKEN where one is set, which it must be before it listens to other machines.
"""

import asyncio
import hmac
import json
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from types import FrameType
from typing import Any, NoReturn
from urllib.parse import urlsplit

from safetensors import SafetensorError, safe_open

from rlvtg.recipe import RecipeError
from rlvtg.rollout.access import TOKEN, is_loopback, token_of_environment
from rlvtg.rollout.engine import Engine
from rlvtg.rollout.wire import PROTOCOL, WireError, pack_samples, unpack_requests

MOST_BYTES = {"generate": 8 * 2**30, "weights": 16 * 2**30, "words": 2**16}
"""Of the body of a request for completions, of one file of weights, and of any other request."""

_MOST_FILES = 10_000
_PIECE = 2**22  # bytes that are held at once of a file of weights
_SPARE = 2**30  # bytes of the disk that are left free


class Refusal(Exception):  # noqa: N818 (an answer like any other, and not a fault of the server)
    """A request that is not granted: an HTTP status and one sentence why."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Service:
    """What the server does, without HTTP. It has one engine, which one request at a time may use.

    Args:
        make: makes the engine, once `run` is called and in the thread that called it.
        about: what `health` tells of the engine and its model.
        folder: where weights wait for the last of them.
    """

    def __init__(self, make: Callable[[], Engine], about: Mapping[str, Any], folder: Path) -> None:
        self._make, self._about, self._folder = make, dict(about), folder
        self._engine: Engine | None = None
        self._weights: str | None = secrets.token_hex(8)  # the name of the engine's; None where they are not whole
        self._transfer: str | None = None
        self._turn = threading.Lock()
        self._loop = asyncio.new_event_loop()

    def run(self, when_ready: Callable[[], None]) -> None:
        """Make the engine and do its work, until `KeyboardInterrupt` or `SystemExit`."""
        self._engine = self._make()
        when_ready()
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def health(self) -> dict[str, Any]:
        """Protocol, model, versions, dtype, and the name of the weights; `weights` is None where they are not whole."""
        engine = self._ready()
        said = {"protocol": PROTOCOL, "vllm": engine.version, "dtype": str(engine.dtype).removeprefix("torch.")}
        return {**self._about, **said, "weights": self._weights}

    def generate(self, read: Callable[[], bytes]) -> bytes:
        """The completions of the prompts in a body, which is read when the engine is free."""
        engine = self._ready()
        with self._turn:
            requests, sampling, weights = unpack_requests(read())

            def complete() -> bytes:
                if self._weights is None:
                    raise Refusal(409, "the weights are not whole: a transfer has begun and not ended; send them again")
                if weights != self._weights:
                    raise Refusal(
                        409,
                        "the server no longer holds the weights that were sent to it: it was started anew, or another "
                        "run has sent its own",
                    )
                return pack_samples(engine.generate(requests, **vars(sampling)))

            return self._do(complete)

    def begin(self) -> str:
        """The name of a transfer of weights, which replaces any that has not ended."""
        self._ready()

        def forget() -> str:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._weights, self._transfer = None, secrets.token_hex(8)
            (self._folder / self._transfer).mkdir(parents=True)
            return self._transfer

        return self._do(forget)

    def add(self, transfer: str, number: int, pieces: Iterator[bytes]) -> None:
        """Keep one file of a transfer."""
        place = self._place(transfer)
        if not number < _MOST_FILES:
            raise Refusal(400, f"file {number}: want numbers below {_MOST_FILES}")
        part = place / f"{secrets.token_hex(8)}.part"
        try:
            with part.open("wb") as file:
                for piece in pieces:
                    file.write(piece)
            with safe_open(part, framework="pt") as opened:
                opened.keys()
            part.rename(place / f"{number}.safetensors")
        except SafetensorError as error:
            raise Refusal(400, f"file {number} is not a safetensors file: {error}") from error
        except FileNotFoundError as error:
            raise Refusal(409, "another transfer of weights has begun") from error
        except OSError as error:
            if isinstance(error, ConnectionError | TimeoutError):
                raise
            raise Refusal(507, f"file {number} could not be kept: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)

    def commit(self, transfer: str, files: int, tensors: int) -> str:
        """Load the weights of a transfer, if all of them are there; returns their name."""
        engine = self._ready()
        with self._turn:

            def load() -> str:
                place = self._place(transfer)
                found = {file.name: file for file in place.glob("*.safetensors")}
                wanted = [f"{number}.safetensors" for number in range(files)]
                if found.keys() != set(wanted):
                    missing = [name for name in wanted if name not in found]
                    what = f"{missing[0]} has not come" if missing else f"{len(found)} have come"
                    raise Refusal(409, f"{files} files were sent, and {what}")
                counted = sum(_count(file) for file in found.values())
                if counted != tensors:
                    raise Refusal(409, f"{tensors} tensors were sent, and {counted} have come")
                self._transfer = None  # whatever happens now, these files are used up
                engine.load_folder(place)
                self._weights = transfer
                shutil.rmtree(self._folder, ignore_errors=True)
                return transfer

            return self._do(load)

    def free_bytes(self) -> int:
        """What may still be written to the disk on which weights wait."""
        return shutil.disk_usage(self._folder.parent).free - _SPARE

    def _place(self, transfer: str) -> Path:
        if transfer != self._transfer:
            raise Refusal(409, "no such transfer of weights is under way")
        return self._folder / transfer

    def _ready(self) -> Engine:
        if self._engine is None:
            raise Refusal(503, "the model is being loaded")
        return self._engine

    def _do(self, work: Callable[[], Any]) -> Any:
        """The result of `work`, done in the thread that made the engine: vLLM and CUDA keep state for each thread."""

        async def done() -> Any:
            return work()

        future = asyncio.run_coroutine_threadsafe(done(), self._loop)
        error = future.exception()
        if error is None or isinstance(error, Refusal):
            return future.result()
        if isinstance(error, ValueError):  # as vLLM says that it cannot take a prompt
            raise Refusal(400, " ".join(str(error).split())[:1000]) from error
        traceback.print_exception(error)
        raise Refusal(
            500, f"the engine failed: {type(error).__name__}: {' '.join(str(error).split())[:1000]}"
        ) from error


def _count(file: Path) -> int:
    with safe_open(file, framework="pt") as opened:
        return len(opened.keys())


class Server(ThreadingHTTPServer):
    """Takes requests for a `Service` in threads of their own; it listens from the start.

    Raises:
        RecipeError: an address that cannot be listened at, or other machines may come without a token.
    """

    daemon_threads = True
    request_queue_size = 16

    def __init__(self, service: Service, host: str, port: int, token: str | None) -> None:
        if token is None and not is_loopback(host):
            raise RecipeError(
                f"--host: got {host}, where other machines can reach the server, and no token; set {TOKEN} in the "
                "environment here and of the run, or leave --host out"
            )
        self.service, self.token = service, token
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise RecipeError(f"the server cannot listen at {host} port {port}: {error}") from error

    def server_bind(self) -> None:
        """The grandparent's: the parent asks the name service what the address is called, which can take long."""
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One line for a connection that broke; other errors are shown as they are."""
        if isinstance(sys.exception(), ConnectionError | TimeoutError):
            _tell(f"{client_address[0]}: the connection broke")
        else:
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "rlvtg"
    sys_version = ""
    timeout = 60.0
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        started = time.monotonic()
        self._left = self._length()
        try:
            self._admit()
            status, body = 200, self._reply()
        except Refusal as refusal:
            status, body = refusal.status, json.dumps({"error": str(refusal)}).encode()
        except WireError as error:
            status, body = 400, json.dumps({"error": str(error)}).encode()
        if self._left:  # what is not read would be taken for the next request
            self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        if self.path != "/health":
            why = "" if status == 200 else f": {json.loads(body)['error']}"
            _tell(f"{self.command} {self._path()} {status} {time.monotonic() - started:.2f} s{why}")

    def _admit(self) -> None:
        token = self.server.token
        given = self.headers.get("Authorization", "")
        if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise Refusal(401, f"the token is missing or wrong; set {TOKEN} to that of the server")
        # which no page in a browser can send here unasked
        if self.command != "GET" and self.headers.get("Content-Type") != "application/octet-stream":
            raise Refusal(415, "want Content-Type application/octet-stream")

    def _reply(self) -> bytes:
        service = self.server.service
        match self.command, *self._path().strip("/").split("/"):
            case "GET", "health":
                return json.dumps(service.health()).encode()
            case "POST", "generate":
                return service.generate(lambda: self._body("generate"))
            case "POST", "weights":
                return json.dumps({"transfer": service.begin()}).encode()
            case "PUT", "weights", transfer, number if number.isdecimal() and len(number) < 9:
                if self._left > service.free_bytes():
                    raise Refusal(507, f"there is no room for {self._left} bytes on the server's disk")
                service.add(transfer, int(number), self._pieces("weights"))
                return b"{}"
            case "POST", "weights", transfer:
                files, tensors = _counts(self._body("words"))
                return json.dumps({"weights": service.commit(transfer, files, tensors)}).encode()
        raise Refusal(404, f"there is no {self.command} {self._path()}")

    def _path(self) -> str:
        path = urlsplit(self.path).path[:200]
        return "".join(letter if letter.isprintable() else "?" for letter in path)

    def _length(self) -> int:
        given = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not given.isdecimal() or len(given) > 18:
            return -1
        return int(given)

    def _body(self, kind: str) -> bytes:
        return b"".join(self._pieces(kind))

    def _pieces(self, kind: str) -> Iterator[bytes]:
        """The body, a piece at a time.

        Raises:
            ConnectionError: it ended before its length.
        """
        if self._left < 0:
            raise Refusal(411, "want a body with its Content-Length")
        if self._left > MOST_BYTES[kind]:
            raise Refusal(413, f"the body has {self._left} bytes, more than the {MOST_BYTES[kind]} that are taken")
        while self._left:
            piece = self.rfile.read(min(self._left, _PIECE))
            if not piece:
                raise ConnectionAbortedError("the body ended before its length")
            self._left -= len(piece)
            yield piece

    def log_message(self, *args: Any) -> None:
        """Nothing: `_answer` tells of each request what may be told."""


def _counts(body: bytes) -> tuple[int, int]:
    """(files, tensors) of a whole transfer."""
    try:
        found = json.loads(body)
        files, tensors = found["files"], found["tensors"]
    except (ValueError, KeyError, TypeError) as error:
        raise Refusal(400, 'want {"files": N, "tensors": M}') from error
    if type(files) is not int or type(tensors) is not int or not 0 < files <= _MOST_FILES or tensors < 0:
        raise Refusal(400, f"want files from 1 to {_MOST_FILES} and a number of tensors")
    return files, tensors


def serve(make: Callable[[], Engine], about: Mapping[str, Any], *, host: str, port: int) -> None:
    """Listen at once, make the engine, and answer until the process is told to end.

    Args:
        make: makes the engine.
        about: what a trainer may know of it and its model.
        host: an address of this machine.
        port: 0 takes one that is free.
    """
    signal.signal(signal.SIGTERM, _end)
    with tempfile.TemporaryDirectory(prefix="rlvtg_weights_") as folder:
        service = Service(make, about, Path(folder) / "weights")
        with Server(service, host, port, token_of_environment()) as server:
            address = f"http://{f'[{host}]' if ':' in host else host}:{server.server_address[1]}"
            threading.Thread(target=server.serve_forever, daemon=True).start()
            _tell(f"listening at {address}, loading the model")
            try:
                service.run(lambda: _tell(f"ready at {address}"))
            except KeyboardInterrupt:
                _tell("ended")
            finally:
                server.shutdown()


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)


def _tell(line: str) -> None:
    print(f"rlvtg serve: {line}", file=sys.stderr, flush=True)
