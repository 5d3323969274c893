"""A language model as a judge, behind an OpenAI-compatible HTTP endpoint: ask it, wait for it, keep what it said.

For rewards that no formula can give. A judge that is slow, wrong or down costs its rows their reward, never the run.
"""

import asyncio
import functools
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import httpx2


@dataclass(frozen=True)
class Judge:
    """Which model to ask, where, and how patiently. ValueError says which setting is wrong, without quoting a key.

    Args:
        url: base of the endpoint, as in http://localhost:8000/v1; questions go to url/chat/completions.
        model: the model's name at the endpoint.
        api_key_env: name of the environment variable that holds the API key; None sends no key.
        timeout: seconds that one request may take.
        retries: how often a request is repeated after a timeout, a lost connection, status 408, 409, 425, 429 or 5xx
            or a reply in the wrong format. Any other status is final.
        backoff: seconds before the first repetition, doubled for each further one; a longer Retry-After is respected.
        concurrency: requests of one process that are under way at once.
        patience: seconds that one batch of questions may take; what is open then is given up.
        cache: folder for replies, shared by processes and runs; None keeps nothing.
        sampling: fields of the request besides model and messages; None is {"temperature": 0.0, "max_tokens": 2048}.
    """

    url: str = ""
    model: str = ""
    api_key_env: str | None = None
    timeout: float = 60.0
    retries: int = 3
    backoff: float = 1.0
    concurrency: int = 16
    patience: float = 300.0
    cache: str | None = "~/.cache/rlvtg/judge"
    sampling: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check every setting, so that a wrong one is found before there is anything to judge."""
        _check_url(self.url)
        if not isinstance(self.model, str) or not self.model:
            raise ValueError(f"model must be the name of a model at the endpoint, got {self.model!r}")
        _api_key(self)
        for name, least, kind in (
            ("timeout", 1e-3, (int, float)),
            ("patience", 1e-3, (int, float)),
            ("backoff", 0, (int, float)),
            ("retries", 0, int),
            ("concurrency", 1, int),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind) or not isfinite(value) or value < least:
                what = "a whole number" if kind is int else "a number"
                raise ValueError(f"{name} must be {what} of at least {least}, got {value!r}")
        if self.cache is not None and (not isinstance(self.cache, str) or not self.cache):
            raise ValueError(f"cache must be a folder, or null to keep nothing, got {self.cache!r}")
        if self.sampling is not None:
            _check_sampling(self.sampling)


@dataclass(frozen=True)
class Judgement:
    """What a reply said, and whether it came from the cache."""

    value: Any
    cached: bool


Ask = Callable[[str, str, Callable[[str], Any]], Awaitable[Judgement | None]]
"""ask(system, user, read): `read` turns a reply into what it says and raises ValueError for one in the wrong format."""


@asynccontextmanager
async def asking(judge: Judge, purpose: str) -> AsyncIterator[Ask]:
    """Connections for one batch of questions, within the judge's patience.

    The function that it gives asks one question. It returns None where there is no reply to be had; the first reason of
    the batch becomes a RuntimeWarning that names `purpose`. Questions still open when the patience is used up are
    cancelled, and with them the body of the `async with`, without an error.
    """
    key, turns, failures = _api_key(judge), asyncio.Semaphore(judge.concurrency), []

    async def ask(system: str, user: str, read: Callable[[str], Any]) -> Judgement | None:
        try:
            return await _judgement(judge, client, turns, system, user, read)
        except _NoReplyError as failure:
            failures.append(str(failure))
            return None

    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    deadline = asyncio.timeout(judge.patience)
    try:
        # A timeout of httpx bounds each read; ours bounds the request, also against a server that trickles.
        async with deadline, httpx2.AsyncClient(headers=headers, timeout=None, verify=_tls()) as client:
            yield ask
    except TimeoutError:
        if not deadline.expired():
            raise
        failures.append(f"not all questions of a batch were answered within {judge.patience:g} s")
    if failures:
        # An endpoint may quote the key; hidden before anything is cut off, so that no half of it remains.
        reason = " ".join((failures[0] if key is None else failures[0].replace(key, "***")).split())[:300]
        warnings.warn(
            f"{purpose}: no judgement from {judge.model} at {judge.url}: {reason}; rows without one get None",
            RuntimeWarning,
            stacklevel=1,
        )


def _api_key(judge: Judge) -> str | None:
    """The API key from the environment, or None if the judge needs none; ValueError, which never quotes it."""
    if judge.api_key_env is None:
        return None
    # What stands there may be a key that somebody took for the name, so it is not repeated either.
    if not isinstance(judge.api_key_env, str) or not judge.api_key_env.isidentifier():
        raise ValueError("api_key_env must be the name of an environment variable, such as OPENAI_API_KEY")
    key = os.environ.get(judge.api_key_env, "").strip()
    if not key:
        raise ValueError("the environment variable that api_key_env names is not set")
    if not key.isascii() or not key.isprintable():
        raise ValueError("the environment variable that api_key_env names holds what cannot be an API key")
    return key


def reply_object(reply: str) -> list[tuple[str, Any]]:
    """The one JSON object that a reply consists of, as (key, value) pairs in order; ValueError for any other reply.

    A reasoning model's thoughts before `</think>` and a Markdown fence are taken off. Nothing else may stand beside the
    object: an object that the judge only quotes must not pass for its reply.
    """
    text = reply.rpartition("</think>")[2].strip()
    if text.startswith("```") and text.endswith("```"):
        text = text.removesuffix("```").partition("\n")[2]
    try:
        # A list of pairs, and not a dict, because a key that is given twice is an error too.
        found = json.loads(text, object_pairs_hook=_Pairs)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, _Pairs):
        raise ValueError(f"it is a JSON {type(found).__name__}, not an object")
    return list(found)


# Loading the certificates takes longer than a batch of questions that the cache answers.
_tls = functools.cache(httpx2.create_ssl_context)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, told apart from a JSON array."""


class _NoReplyError(Exception):
    """Why a request failed, whether it may be repeated, and after how many seconds at the earliest."""

    def __init__(self, reason: str, *, again: bool = True, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.again = again
        self.wait = wait


_REMINDER = "\n\nYour last reply was not in this format. Reply with the JSON object alone."
_PASSING = {408, 409, 425, 429}


async def _judgement(
    judge: Judge,
    client: httpx2.AsyncClient,
    turns: asyncio.Semaphore,
    system: str,
    user: str,
    read: Callable[[str], Any],
) -> Judgement:
    # Half of a surrogate pair, which a model may write, cannot be sent.
    user = user.encode("utf-8", "replace").decode("utf-8")
    instruction = {"role": "system", "content": system}
    sampling = {"temperature": 0.0, "max_tokens": 2048} if judge.sampling is None else judge.sampling
    request = {"model": judge.model, **sampling, "messages": [instruction, {"role": "user", "content": user}]}
    place = _place(judge, request)
    kept = _kept(place, read)
    if kept is not None:
        return kept
    failed = _NoReplyError("nothing was asked")
    for attempt in range(judge.retries + 1):
        if attempt:
            await asyncio.sleep(max(failed.wait, judge.backoff * 2 ** (attempt - 1)))
        try:
            async with turns:
                reply = await _reply(judge, client, request)
        except _NoReplyError as failure:
            failed = failure
        else:
            try:
                value = read(reply)
            except ValueError as error:
                failed = _NoReplyError(f"a reply in the wrong format ({error}): {reply}")
                # At temperature 0 the same question would get the same reply.
                instruction["content"] = system + _REMINDER
            else:
                kept = _keep(place, reply, read)
                return Judgement(value if kept is None else kept.value, cached=False)
        if not failed.again:
            break
    raise failed


async def _reply(judge: Judge, client: httpx2.AsyncClient, request: Mapping[str, Any]) -> str:
    """The text of the judge's message."""
    try:
        async with asyncio.timeout(judge.timeout):
            response = await client.post(f"{judge.url.rstrip('/')}/chat/completions", json=request)
    except TimeoutError as error:
        raise _NoReplyError(f"no reply within {judge.timeout:g} s") from error
    except httpx2.HTTPError as error:
        raise _NoReplyError(f"{type(error).__name__}: {error}") from error
    status = response.status_code
    if status != 200:
        raise _NoReplyError(
            f"status {status} {response.reason_phrase}: {response.text}",
            again=status in _PASSING or status >= 500,
            wait=_seconds(response.headers.get("Retry-After"), most=judge.timeout),
        )
    try:
        text = response.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _NoReplyError(f"the endpoint sent no chat completion: {response.text}") from error
    if not isinstance(text, str):
        raise _NoReplyError("the reply has no text")
    return text


def _seconds(retry_after: str | None, *, most: float) -> float:
    """The seconds of a Retry-After header, 0.0 where it gives none or a date."""
    return min(float(retry_after), most) if retry_after is not None and retry_after.isdecimal() else 0.0


def _check_url(url: Any) -> None:
    wanted = "url must be the base of an OpenAI-compatible endpoint, such as http://localhost:8000/v1"
    try:
        parsed = httpx2.URL(url)
    except (TypeError, httpx2.InvalidURL) as error:
        raise ValueError(f"{wanted}: {error}") from error
    if parsed.userinfo or parsed.query:
        raise ValueError(f"{wanted}, without user, password or query; a key goes into the variable of api_key_env")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{wanted}, got {url!r}")


def _check_sampling(sampling: Any) -> None:
    if not isinstance(sampling, Mapping):
        raise ValueError(f"sampling must be fields of the request, such as temperature, got {sampling!r}")
    if taken := {"model", "messages", "stream"} & set(sampling):
        raise ValueError(f"sampling must leave {', '.join(sorted(taken))} alone")
    try:
        json.dumps(sampling, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"sampling must be what JSON can hold, got {sampling!r}: {error}") from error


# --- the cache: one file per question, which works between processes and on network file systems without locks


def _place(judge: Judge, request: Mapping[str, Any]) -> Path | None:
    """The file for the reply to a request; another model, prompt, sampling or text has another file."""
    if judge.cache is None:
        return None
    name = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    return Path(judge.cache).expanduser() / name[:2] / f"{name}.txt"


def _kept(place: Path | None, read: Callable[[str], Any]) -> Judgement | None:
    """The judgement at `place`, or None; a file that was damaged is removed."""
    if place is None:
        return None
    try:
        return Judgement(read(place.read_text(encoding="utf-8")), cached=True)
    except OSError:
        return None
    except ValueError:
        place.unlink(missing_ok=True)
        return None


def _keep(place: Path | None, reply: str, read: Callable[[str], Any]) -> Judgement | None:
    """Keep a reply; the judgement of another process if that has kept one meanwhile, so that both go by the same."""
    if place is None:
        return None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=place.parent) as whole:
            whole.write(reply)
            whole.flush()
            os.link(whole.name, place)  # all of it or nothing, and never over a file that is there
    except FileExistsError:
        return _kept(place, read)
    except (OSError, UnicodeEncodeError) as error:
        warnings.warn(f"the judge's replies cannot be kept in {place.parent}: {error}", RuntimeWarning, stacklevel=1)
    return None
