"""A patient and discreet HTTP client: bounded retries, a rate limit, and a secret that is never repeated."""

from __future__ import annotations

import json
import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import httpx

from assay.errors import AssayError, TargetError, Unreachable

_RETRIED = (429, 502, 503)
_LARGEST = 256 * 2**20
_LONGEST_MESSAGE = 300
_READ = 100_000  # longer than any header: a secret is not cut before it is found


@dataclass(frozen=True)
class Clock:
    """Where time comes from; tests put their own.

    Attributes:
        monotonic: seconds since some moment, never going back.
        wall: seconds since 1970, against which a Retry-After date is read.
        sleep: waits so many seconds.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Manners:
    """How a server is asked.

    Attributes:
        connect_timeout: seconds to wait for a connection.
        read_timeout: seconds to wait for the next bytes of an answer; a whole answer may take ten times that.
        retries: how often a request is sent again after 429, 502, 503 or a dropped connection. Not after a read
            timeout: the server may still be computing.
        backoff: seconds before the first retry, doubled for each later one; a Retry-After header overrules it.
        longest_wait: the most seconds waited before one retry; a server that asks for more is given up.
        rate: the most requests a second, retries included; ``None`` for no limit.
        concurrent: the most requests under way at once.
    """

    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    retries: int = 4
    backoff: float = 0.5
    longest_wait: float = 60.0
    rate: float | None = None
    concurrent: int = 4

    def __post_init__(self) -> None:
        positive = (self.connect_timeout, self.read_timeout, self.longest_wait,
                    self.concurrent, 1.0 if self.rate is None else self.rate)
        least_zero = (self.retries, self.backoff)
        if not all(math.isfinite(value) for value in (*positive, *least_zero)) \
                or min(positive) <= 0 or min(least_zero) < 0:
            raise TargetError("TGT122", "timeouts, longest_wait, rate and concurrent must be positive, "
                                        f"retries and backoff not negative; got {self}")


class Reply(NamedTuple):
    """What came back: the status, the headers that are read here, and the body."""

    status: int
    retry_after: str
    location: str
    body: bytes


class _Line:
    """The one connection pool of a client, made when first used, and the moment of the next permitted request."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.free_at = 0.0
        self.pool: httpx.Client | None = None


@dataclass(frozen=True, eq=False)
class Client:
    """Sends requests to one server.

    Attributes:
        base: the address that every path is appended to.
        manners: patience, rate and concurrency.
        auth_env: name of the environment variable with the token; empty for none. It is read at every request
            and kept nowhere.
        auth_header: the header it goes into: ``Authorization`` as ``Bearer …``, any other header as it is.
        clock: where time comes from.
    """

    base: str
    manners: Manners = field(default_factory=Manners)
    auth_env: str = ""
    auth_header: str = "Authorization"
    clock: Clock = field(default_factory=Clock)
    _line: _Line = field(default_factory=_Line, repr=False)

    def ask(self, method: str, path: str, body: object = None) -> object:
        """The JSON document that answers a request.

        Raises:
            Unreachable: TGT110 to TGT112.
            TargetError: TGT113 to TGT117.
        """
        reply = self.send(method, path, body)
        self.refuse(reply, f"{method} {self.base}{path}")
        return self.parsed(reply, f"{method} {self.base}{path}")

    def send(self, method: str, path: str, body: object = None) -> Reply:
        """The first answer that is not a request to come back later, whatever its status.

        Raises:
            Unreachable: TGT110 when there is no connection, TGT111 when time is up, TGT112 when the server still
                has no time after the last retry.
            TargetError: TGT114 when the token's variable is not set, TGT117 when the answer cannot be decoded.
        """
        content = None if body is None else json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
        where = f"{method} {self.base}{path}"
        for attempt in range(self.manners.retries + 1):
            self._wait_turn()
            wait = min(self.manners.backoff * 2**attempt, self.manners.longest_wait)
            try:
                reply = self._once(method, path, content)
            except httpx.TimeoutException as error:
                raise Unreachable("TGT111", _timeout(error, self.manners), where=where) from None
            except httpx.DecodingError as error:
                raise TargetError("TGT117", f"the answer cannot be decoded: {self.redacted(str(error))}",
                                  where=where) from None
            except httpx.TransportError as error:
                said = self.redacted(str(error)) or type(error).__name__
                trouble: AssayError = Unreachable("TGT110", f"{said}, {_times(attempt + 1)}", where=where)
            else:
                if reply.status not in _RETRIED:
                    return reply
                wait, trouble = self._told_to_wait(reply, wait, attempt, where)
            if attempt == self.manners.retries:
                raise trouble
            self._hold(wait)
        raise AssertionError("the last attempt returns or raises")

    def refuse(self, reply: Reply, where: str) -> None:
        """Raises the error that an answer's status stands for: TGT113 to TGT116."""
        if 200 <= reply.status < 300:
            return
        said = f"HTTP {reply.status}"
        if 300 <= reply.status < 400:
            target = self.redacted(reply.location.partition("?")[0])
            raise TargetError("TGT116", f"{said}: the server redirects to {target or 'nowhere'}", where=where)
        message = self._message(reply)
        if message:
            said += f": {message}"
        code = "TGT114" if reply.status in (401, 403, 407) else "TGT113" if reply.status < 500 else "TGT115"
        raise TargetError(code, said, where=where)

    def parsed(self, reply: Reply, where: str) -> object:
        """The answer's JSON. Raises ``TargetError`` (TGT117)."""
        try:
            document: object = json.loads(reply.body)
        except (ValueError, RecursionError):
            start = self.redacted(reply.body[:_READ].decode(errors="replace"))[:60]
            raise TargetError("TGT117", f"{len(reply.body)} bytes that are not JSON: {start!r}", where=where) from None
        return document

    def close(self) -> None:
        """Closes the pool's connections; a later request opens new ones."""
        with self._line.lock:
            pool, self._line.pool = self._line.pool, None
        if pool is not None:
            pool.close()

    def _once(self, method: str, path: str, content: bytes | None) -> Reply:
        headers = {"Accept": "application/json", **self._credentials()}
        if content is not None:
            headers["Content-Type"] = "application/json"
        deadline = self.clock.monotonic() + self.manners.connect_timeout + 10 * self.manners.read_timeout
        with self._pool().stream(method, self.base + path, content=content, headers=headers) as response:
            parts, size = [], 0
            for part in response.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > _LARGEST:
                    raise TargetError("TGT117", f"the answer is larger than {_LARGEST >> 20} MiB")
                if self.clock.monotonic() > deadline:
                    raise httpx.ReadTimeout("the answer trickles")
            return Reply(response.status_code, response.headers.get("retry-after", ""),
                         response.headers.get("location", ""), b"".join(parts))

    def _pool(self) -> httpx.Client:
        line = self._line
        with line.lock:
            if line.pool is None:
                manners = self.manners
                line.pool = httpx.Client(
                    timeout=httpx.Timeout(manners.read_timeout, connect=manners.connect_timeout),
                    limits=httpx.Limits(max_connections=manners.concurrent),
                    follow_redirects=False,
                    trust_env=httpx.URL(self.base).host not in ("127.0.0.1", "::1", "localhost"),
                )
                # A target that is dropped without close() leaves no open socket behind.
                weakref.finalize(line, line.pool.close)
            return line.pool

    def _credentials(self) -> dict[str, str]:
        if not self.auth_env:
            return {}
        secret = self._secret()
        if not secret:
            raise TargetError("TGT114", f"the environment variable {self.auth_env} is not set or empty")
        # What h11 says of an illegal header value contains the value.
        if not (secret.isascii() and secret.isprintable()):
            raise TargetError("TGT114", f"the value of {self.auth_env} has characters that no header may hold")
        bearer = self.auth_header.lower() == "authorization"
        return {self.auth_header: f"Bearer {secret}" if bearer else secret}

    def _secret(self) -> str:
        return os.environ.get(self.auth_env, "").strip() if self.auth_env else ""

    def redacted(self, text: str) -> str:
        """Text that a server may have had a hand in, made fit to print: no secret, no control characters, not long."""
        if secret := self._secret():
            for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]):
                text = text.replace(form, "[secret]")
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE - 1] + "…"

    def _message(self, reply: Reply) -> str:
        """What the server says went wrong: its JSON's error, detail or message, else its text."""
        try:
            document = json.loads(reply.body)
        except (ValueError, RecursionError):
            document = reply.body[:_READ].decode(errors="replace")
        if isinstance(document, dict):
            document = next((document[key] for key in ("error", "detail", "message") if key in document), document)
        text = document.strip() if isinstance(document, str) else json.dumps(document)
        return self.redacted(text.splitlines()[-1] if text.startswith("Traceback (") else text)

    def _told_to_wait(self, reply: Reply, wait: float, attempt: int, where: str) -> tuple[float, AssayError]:
        asked = retry_after(reply.retry_after, self.clock.wall())
        said = f"HTTP {reply.status}, {_times(attempt + 1)}"
        if asked is not None:
            if asked > self.manners.longest_wait:
                raise Unreachable("TGT112", f"{said}: it asks to wait {asked:.0f} s; longest_wait is "
                                            f"{self.manners.longest_wait:.0f} s", where=where)
            wait = asked
        if message := self._message(reply):
            said += f": {message}"
        return wait, Unreachable("TGT112", said, where=where)

    def _wait_turn(self) -> None:
        interval = 1.0 / self.manners.rate if self.manners.rate else 0.0
        with self._line.lock:
            now = self.clock.monotonic()
            turn = max(now, self._line.free_at)
            self._line.free_at = turn + interval
        if turn > now:
            self.clock.sleep(turn - now)

    def _hold(self, seconds: float) -> None:
        """Lets no request go, of any thread, for so long."""
        with self._line.lock:
            self._line.free_at = max(self._line.free_at, self.clock.monotonic() + seconds)


def retry_after(header: str, now: float) -> float | None:
    """Seconds that a Retry-After header asks to wait, given as seconds or as an HTTP-date; ``None`` where unreadable.

    Args:
        header: the header's value.
        now: the time, in seconds since 1970.
    """
    header = header.strip()
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _times(attempts: int) -> str:
    return "at the first attempt" if attempts == 1 else f"in {attempts} attempts"


def _timeout(error: httpx.TimeoutException, manners: Manners) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection within {manners.connect_timeout:g} s"
    if isinstance(error, httpx.PoolTimeout):
        return f"no connection of the pool became free within {manners.read_timeout:g} s"
    return f"no answer within {manners.read_timeout:g} s"
