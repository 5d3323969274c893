"""An engine that runs in another process: the methods of `rlvtg.rollout.engine.Engine`, over HTTP to `rlvtg serve`."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import httpx2
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from safetensors.torch import save

from rlvtg.recipe import RecipeError
from rlvtg.rollout.access import TOKEN, token_of_environment
from rlvtg.rollout.engine import Request, Sampled
from rlvtg.rollout.wire import PROTOCOL, Sampling, WireError, pack_requests, unpack_samples

FILE_BYTES = 2**29
"""About how large a file of weights gets; one tensor may be larger."""

_PATIENCE = 3600.0  # seconds without a byte from a server that works on a request
_NO_TOKEN = (401, 403)


class ServerError(RecipeError):
    """The server is not there, is another one than the run needs, or has refused; the run cannot go on without it."""


class Client:
    """An engine behind a server, for one process. `connect` before anything slow happens.

    Args:
        url: of the server, as in http://127.0.0.1:8400.
        facts: `rlvtg.rollout.wire.model_facts` of the run's model.
        timeout: seconds to wait for a server that is not there yet or loads its model.

    Raises:
        ServerError: no server within the timeout, or one of another model or protocol.
    """

    def __init__(self, url: str, facts: Mapping[str, Any], *, timeout: float) -> None:
        self.url = _checked(url)
        token = token_of_environment()
        self._has_token = token is not None
        headers = {"Content-Type": "application/octet-stream"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx2.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx2.Timeout(_PATIENCE, connect=30.0),
            # a connection that rests between two rollouts may be closed by then
            limits=httpx2.Limits(max_keepalive_connections=0),
            trust_env=False,  # a proxy for the internet is none for the next machine
        )
        found = self._wait(timeout)
        self._check(found, facts)
        self.dtype: torch.dtype = getattr(torch, str(found["dtype"]))
        self._weights: str = found["weights"] or ""

    def generate(
        self,
        requests: Sequence[Request],
        *,
        n: int,
        temperature: float,
        top_p: float,
        top_k: int,
        max_tokens: int,
        stop_token_ids: Sequence[int],
        seed: int | None,
    ) -> list[list[Sampled]]:
        """As the engine's: n completions of each request.

        Raises:
            ServerError: no completions.
        """
        sampling = Sampling(n, temperature, top_p, top_k, max_tokens, tuple(stop_token_ids), seed)
        body = self._ask("POST", "generate", pack_requests(requests, sampling, self._weights))
        try:
            samples = unpack_samples(body)
        except WireError as error:
            raise ServerError(f"vllm_server_base_url: {self.url} sent no completions: {error}") from error
        if [len(group) for group in samples] != [n] * len(requests):
            raise ServerError(
                f"vllm_server_base_url: {self.url} sent another number of completions than {n} for each of "
                f"{len(requests)} prompts"
            )
        return samples

    def load(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """As the engine's: from now on it samples with these weights.

        Raises:
            ServerError: they did not all arrive; the server then refuses to generate until some have.
        """
        transfer = self._said("POST", "weights")["transfer"]
        files = tensors = 0
        for tensors_of_file in _filled(weights, self.dtype):
            self._ask("PUT", f"weights/{transfer}/{files}", save(tensors_of_file))
            files, tensors = files + 1, tensors + len(tensors_of_file)
        counts = json.dumps({"files": files, "tensors": tensors}).encode()
        self._weights = self._said("POST", f"weights/{transfer}", counts)["weights"]

    def _wait(self, timeout: float) -> dict[str, Any]:
        """What the server says of itself, once it is there."""
        end = time.monotonic() + timeout
        told = False
        while True:
            try:
                return self._said("GET", "health")
            except _NotYetError as error:
                if time.monotonic() > end:
                    raise ServerError(
                        f"vllm_server_base_url: no server at {self.url} within {timeout:g} s ({error.why}); start one "
                        "with rlvtg serve recipe=..., or give it more time with vllm_server_timeout"
                    ) from error
                if not told:
                    print(f"waiting up to {timeout:g} s for the vLLM server at {self.url} ({error.why})", flush=True)
                    told = True
            time.sleep(min(1.0, timeout / 10))

    def _check(self, found: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        if found.get("protocol") != PROTOCOL:
            raise ServerError(
                f"vllm_server_base_url: {self.url} speaks protocol {found.get('protocol')!r}, this run {PROTOCOL}; "
                "install the same rlvtg on both machines"
            )
        theirs = found.get("facts", {})
        differing = [name for name in facts if facts[name] != theirs.get(name)]
        if differing:
            name = differing[0]
            raise ServerError(
                f"vllm_server_base_url: {self.url} serves {found.get('model')}, another model than the run's: its "
                f"{name} is {theirs.get(name)!r}, the run's {facts[name]!r}"
            )

    def _said(self, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
        reply = self._ask(method, path, body)
        try:
            found = json.loads(reply)
        except ValueError as error:
            raise ServerError(f"vllm_server_base_url: {self.url} is no server of rlvtg") from error
        if not isinstance(found, dict):
            raise ServerError(f"vllm_server_base_url: {self.url} is no server of rlvtg")
        return found

    def _ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The body of a reply with status 200."""
        try:
            reply = self._http.request(method, f"/{path}", content=body)
        except httpx2.ConnectError as error:
            why = f"cannot be reached: {error}"
            raise _NotYetError(self._failed(path, why), why) from error
        except httpx2.TimeoutException as error:
            raise ServerError(self._failed(path, f"did not answer: {type(error).__name__}")) from error
        except httpx2.HTTPError as error:
            raise ServerError(self._failed(path, f"broke the connection: {error or type(error).__name__}")) from error
        if reply.status_code == 200:
            return reply.content
        try:
            said = str(json.loads(reply.content)["error"])
        except (ValueError, KeyError, TypeError):
            said = f"status {reply.status_code}, as no server of rlvtg does"
        if reply.status_code == 503:
            raise _NotYetError(self._failed(path, said), said)
        if reply.status_code in _NO_TOKEN and not self._has_token:
            said += f"; this process has no {TOKEN}"
        raise ServerError(self._failed(path, said))

    def _failed(self, path: str, why: str) -> str:
        return f"the vLLM server at {self.url}, asked for {path.split('/')[0]}: {why}"


class _NotYetError(ServerError):
    """It may be there in a moment."""

    def __init__(self, sentence: str, why: str) -> None:
        super().__init__(sentence)
        self.why = why

    def __reduce__(self) -> tuple[Any, ...]:  # for the other processes
        return ServerError, (str(self),)


class OneForAll:
    """One client's engine for all processes of a run: the main process asks for the others, who must ask with it.

    Args:
        client: the main process's; None in the others.
        is_exact: whether the server's engine computes in float32.
    """

    def __init__(self, client: Client | None, *, is_exact: bool) -> None:
        self._client = client
        self._has_weights = False  # those that the server has are not known to be this run's
        self.is_exact = is_exact

    def generate(self, requests: Sequence[Request], **sampling: Any) -> list[list[Sampled]]:
        """The completions of this process's requests; see `Client.generate`."""
        state = PartialState()
        if state.num_processes == 1:
            assert self._client is not None
            return self._client.generate(requests, **sampling)
        everybody: list[list[Request]] = gather_object([list(requests)])
        together = [request for own in everybody for request in own]
        found: list[Any] = [None]
        if self._client is not None:
            found = [_outcome(lambda client: client.generate(together, **sampling), self._client)]
        samples = _shared(found)
        start = sum(len(own) for own in everybody[: state.process_index])
        return samples[start : start + len(requests)]

    def load(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Send weights, which every process must come with: under ZeRO-3 each of them is gathered from all."""
        rest = iter(weights)
        found: list[Any] = [None]
        if self._client is not None:
            found = [_outcome(lambda client: client.load(rest), self._client)]
        for _ in rest:
            pass
        _shared(found)
        self._has_weights = True

    def sleep(self) -> bool:
        """Nothing: the server's memory is its own. Returns whether weights are to be loaded next, as the engine's."""
        return not self._has_weights

    def wake(self) -> None:
        """Nothing, likewise."""


def _outcome(ask: Any, client: Client) -> Any:
    """What the server gave, or the error: the other processes wait for one of them."""
    try:
        return ask(client)
    except ServerError as error:
        return error


def _shared(found: list[Any]) -> Any:
    """What the main process found, in every process; its error is raised in all."""
    broadcast_object_list(found)
    if isinstance(found[0], ServerError):
        raise found[0]
    return found[0]


def connect(url: str, facts: Mapping[str, Any], *, timeout: float) -> OneForAll:
    """The server's engine, for all processes of the run, which must all call this.

    Raises:
        ServerError: in every process; see `Client`.
    """
    found: list[Any] = [None]
    client = None
    if PartialState().is_main_process:
        try:
            client = Client(url, facts, timeout=timeout)
        except ServerError as error:
            found = [error]
        else:
            found = [client.dtype == torch.float32]
    return OneForAll(client, is_exact=_shared(found))


def _filled(weights: Iterable[tuple[str, torch.Tensor]], dtype: torch.dtype) -> Iterator[dict[str, torch.Tensor]]:
    """The weights in files of about FILE_BYTES, as copies: what is gathered or merged is gone at the next one."""
    held: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in weights:
        smaller = dtype if tensor.is_floating_point() and dtype.itemsize < tensor.dtype.itemsize else tensor.dtype
        held[name] = tensor.detach().to(dtype=smaller).to(device="cpu", copy=True).contiguous()
        size += held[name].nbytes
        if size >= FILE_BYTES:
            yield held
            held, size = {}, 0
    if held:
        yield held


def _checked(url: str) -> str:
    """The address of a server, without a slash at its end."""
    wanted = "want one such as http://127.0.0.1:8400"
    try:
        parsed = httpx2.URL(url)
    except (TypeError, httpx2.InvalidURL) as error:
        raise ServerError(f"vllm_server_base_url: got {url!r}, {wanted}") from error
    if parsed.userinfo or parsed.query:
        raise ServerError(f"vllm_server_base_url: {wanted}, without user, password or query; a token goes into {TOKEN}")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ServerError(f"vllm_server_base_url: got {url!r}, {wanted}")
    return url.rstrip("/")
