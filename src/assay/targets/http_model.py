"""A model behind an HTTP interface as a target: labels or scores, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NoReturn, TypeVar

import httpx
import numpy as np
import torch
from torch import Tensor

from assay.errors import AssayError, Denied, TargetError, Unreachable
from assay.targets.access import Access
from assay.targets.base import Bounds
from assay.targets.http_client import Client, Clock, Manners
from assay.targets.http_wire import V2, Array, JsonKeys, PlainJson, Signature, Wire, as_labels, as_scores
from assay.targets.pytorch import check_scores

_T = TypeVar("_T")


class _Known:
    """What was learned of the server: its signature, and how many classes it scores."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.signature: Signature | None = None
        self.classes = 0


@dataclass(frozen=True, eq=False)
class HttpTarget:
    """A served model under test; build it with :func:`assay.targets.http`.

    It is lazy: nothing is sent before the first :meth:`check`, :meth:`labels` or :meth:`scores`. Every submitted
    row is sent once; a request that is retried after a dropped connection may reach the model twice.
    """

    client: Client
    wire: Wire
    output: Literal["scores", "labels"]
    bounds: Bounds
    name: str
    batch: int
    dtype: torch.dtype
    classes: tuple[str, ...]
    identity: tuple[tuple[str, str], ...]
    _known: _Known = field(default_factory=_Known, repr=False)

    @property
    def offers(self) -> Access:
        """Scores or labels, as declared."""
        return Access.SCORES if self.output == "scores" else Access.LABELS

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def randomized(self) -> bool:
        """A server promises to be a function; the referee looks twice."""
        return False

    @property
    def forwards_per_query(self) -> int:
        """One."""
        return 1

    def labels(self, x: Tensor) -> Tensor:
        """Predicted classes, int64 ``[rows]``.

        Raises:
            Unreachable: TGT110 to TGT112, as :meth:`scores`.
            TargetError: TGT102, TGT103, TGT113 to TGT125.
        """
        if self.output == "scores":
            return self.scores(x).argmax(1)
        parts = self._ask(x, lambda answer: as_labels(answer, self.classes))
        return torch.from_numpy(np.concatenate(parts)) if parts else torch.empty(0, dtype=torch.int64)

    def scores(self, x: Tensor) -> Tensor:
        """What the server answers, ``[rows, classes]``: as it comes, so probabilities stay probabilities.

        Args:
            x: ``[rows, …]`` in ``bounds``.

        Raises:
            Unreachable: TGT110 no connection, TGT111 no answer in time, TGT112 still no time after all retries.
            TargetError: TGT102 not two or more classes, or not as many as before; TGT103 NaN or infinity; TGT113 to
                TGT120 an answer that is none; TGT121 and TGT123 a request that cannot be made.
            Denied: THR101 when only labels were declared.
        """
        if self.output != "scores":
            raise Denied("THR101", f"{self.name} is declared to give labels alone")
        parts = self._ask(x, self._scored)
        return torch.cat(parts) if parts else torch.empty(0, max(self._known.classes, 2), dtype=self.dtype)

    def check(self, x: Tensor) -> None:
        """Readiness, the server's description of the model, and one look at ``x``.

        Raises:
            Unreachable: TGT110 to TGT112; TGT124 when the server says it is not ready.
            TargetError: as :meth:`scores` and :meth:`labels`.
        """
        if self.wire.ready_path:
            reply = self.client.send("GET", self.wire.ready_path)
            where = f"GET {self.client.base}{self.wire.ready_path}"
            if reply.status in (401, 403, 407) or 300 <= reply.status < 400:
                self.client.refuse(reply, where)
            # 404 and 405: a server, or a gateway before it, that has no such question.
            elif reply.status >= 400 and reply.status not in (404, 405):
                raise Unreachable("TGT124", f"{self.name} is not ready: HTTP {reply.status}", where=where)
        self.labels(x)

    def fingerprint(self) -> dict[str, str]:
        """The declared address, protocol, model and output. What weights the server holds cannot be known."""
        return dict(self.identity)

    def close(self) -> None:
        """Closes connections; a later call opens new ones. Dropping the target does the same."""
        self.client.close()

    def _ask(self, x: Tensor, read: Callable[[Array], _T]) -> list[_T]:
        """What was read from each batch's answer, in order, several requests under way at once."""
        if not len(x):
            return []
        signature = self._signature()
        parts = [part.numpy() for part in torch.split(x.detach().cpu(), self.batch)]
        if len(parts) == 1 or self.client.manners.concurrent == 1:
            return [self._exchange(part, signature, read) for part in parts]
        with ThreadPoolExecutor(min(self.client.manners.concurrent, len(parts))) as pool:
            futures = [pool.submit(self._exchange, part, signature, read) for part in parts]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _exchange(self, part: Array, signature: Signature, read: Callable[[Array], _T]) -> _T:
        path = self.wire.infer_path
        with self._placed(f"POST {self.client.base}{path}"):
            body = self.wire.request(part, signature)
            answer = self.wire.answer(self.client.ask("POST", path, body), signature)
            if answer.ndim == 0 or len(answer) != len(part):
                raise TargetError("TGT120", f"{len(part)} rows were sent, the answer has shape {list(answer.shape)}")
            return read(answer)

    def _scored(self, answer: Array) -> Tensor:
        scores = torch.from_numpy(as_scores(answer)).to(self.dtype)
        check_scores(scores, len(answer), self.name)
        with self._known.lock:
            before, self._known.classes = self._known.classes, scores.shape[1]
        if before not in (0, scores.shape[1]):
            raise TargetError("TGT102", f"{self.name} gave {before} scores a row before, and {scores.shape[1]} now")
        return scores

    def _signature(self) -> Signature:
        with self._known.lock:
            if self._known.signature is None:
                self._known.signature = self._discovered()
            return self._known.signature

    def _discovered(self) -> Signature:
        path = self.wire.metadata_path
        if not path:
            return self.wire.signature(None)
        where = f"GET {self.client.base}{path}"
        reply = self.client.send("GET", path)
        with self._placed(where):
            if reply.status in (404, 405, 501):
                try:
                    return self.wire.signature(None)
                except TargetError:
                    if reply.status == 404:
                        self.client.refuse(reply, where)
                    raise
            self.client.refuse(reply, where)
            return self.wire.signature(self.client.parsed(reply, where))

    @contextmanager
    def _placed(self, where: str) -> Iterator[None]:
        """Errors with the place at which they happened, and without the secret that a server may have echoed."""
        try:
            yield
        except AssayError as error:
            what = self.client.redacted(error.what)
            raise type(error)(error.code, what, where=error.where or where, fix=error.fix) from None


def http_target(
    url: str,
    *,
    protocol: Literal["v2", "json"] = "v2",
    model: str = "",
    version: str = "",
    output: Literal["scores", "labels"] = "scores",
    bounds: tuple[float, float] = (0.0, 1.0),
    batch: int = 64,
    input_name: str = "",
    output_name: str = "",
    datatype: str = "",
    keys: JsonKeys | None = None,
    classes: Sequence[str] = (),
    auth_env: str = "",
    auth_header: str = "Authorization",
    manners: Manners | None = None,
    name: str = "",
    clock: Clock | None = None,
) -> HttpTarget:
    """A model behind HTTP as a target. Nothing is sent yet.

    Args:
        url: for ``"v2"`` the server's root, such as ``"http://localhost:8000"``; for ``"json"`` the whole address
            that rows are posted to. No user, password or query: addresses are kept in evidence.
        protocol: ``"v2"``, the Open Inference Protocol (KServe, Triton, MLServer…), or ``"json"``,
            ``{"instances": […]}`` to ``{"predictions": […]}``.
        model, version: for ``"v2"``, the model's name on the server, and its version where not the default.
        output: what the server answers: a row of scores for each row, or one label.
        bounds: the box of the inputs that are submitted; preprocessing is the server's business.
        batch: the most rows in one request.
        input_name, datatype: override what the server's metadata say; needed where it gives none. Values are sent as
            they are, never rounded to a datatype. With ``"FP64"`` the target takes float64, else float32.
        output_name: which of several outputs; asked for by name.
        keys: the key names of ``"json"``.
        classes: for ``output="labels"``, the classes' names as the server answers them, in the order of the data's
            labels; without them answers are indices from 0.
        auth_env: name of the environment variable with the token. Its value is never kept, printed or recorded.
        auth_header: ``Authorization`` sends ``Bearer <token>``, any other header the token alone.
        manners: timeouts, retries, rate and concurrency.
        name: how evidence calls it; made of the model and the host by default.
        clock: where time comes from.

    Raises:
        TargetError: TGT107 for bounds that are no interval, TGT122 for an unusable address or setting.
    """
    _check_choices(protocol, output, model, batch, datatype)
    host = _checked_address(url, protocol)
    wire: Wire = V2(model, version, input_name, output_name, datatype, output == "labels") if protocol == "v2" \
        else PlainJson(keys or JsonKeys())
    base = url.rstrip("/") if protocol == "v2" else url
    identity = {"url": base, "protocol": protocol, "model": model, "version": version, "output": output,
                "output_name": output_name, "keys": repr(keys) if keys else "", "classes": ", ".join(classes)}
    return HttpTarget(
        client=Client(base, manners or Manners(), auth_env, auth_header, clock or Clock()),
        wire=wire,
        output=output,
        bounds=_interval(bounds),
        name=name or f"{model or 'model'} at {host}",
        batch=batch,
        dtype=torch.float64 if datatype == "FP64" else torch.float32,
        classes=tuple(str(label) for label in classes),
        identity=tuple((key, value) for key, value in identity.items() if value),
    )


def _interval(bounds: tuple[float, float]) -> Bounds:
    lower, upper = bounds
    if not lower < upper:
        raise TargetError("TGT107", f"bounds must be (lower, upper) with lower < upper; got {bounds}")
    return Bounds(float(lower), float(upper))


def _check_choices(protocol: str, output: str, model: str, batch: int, datatype: str) -> None:
    if protocol not in ("v2", "json"):
        _unusable(f"protocol must be \"v2\" or \"json\"; got {protocol!r}")
    if output not in ("scores", "labels"):
        _unusable(f"output must be \"scores\" or \"labels\"; got {output!r}")
    if (protocol == "v2") != bool(model):
        _unusable("protocol \"v2\" needs model=..., the model's name on the server" if not model
                  else "model is of protocol \"v2\"; with \"json\" the address says it all")
    if batch < 1:
        _unusable(f"batch must be at least 1; got {batch}")
    if datatype and not datatype.isupper():
        _unusable(f"datatype must be one of protocol v2, such as \"FP32\"; got {datatype!r}")


def _checked_address(url: str, protocol: str) -> str:
    """The host and port of a usable address."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        _unusable("the address cannot be read as a URL")
    if parsed.userinfo or parsed.query or parsed.fragment:  # not repeated: it may hold a password
        _unusable(f"the address of {parsed.host} holds a user, a query or a fragment")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        _unusable(f"the address must begin with http:// or https:// and a host; got {url!r}")
    if protocol == "v2" and "/v2" in parsed.path:
        _unusable(f"for protocol \"v2\" the address is the server's root, without /v2/…; got {url!r}")
    return str(parsed.netloc.decode())


def _unusable(what: str) -> NoReturn:
    raise TargetError("TGT122", what)
