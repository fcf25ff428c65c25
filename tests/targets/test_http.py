"""Models behind HTTP, against a real server process that follows the protocol or breaks it."""

from __future__ import annotations

import gc
import pickle
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from assay import targets
from assay.errors import AssayError, Denied, TargetError, Unreachable, findings
from assay.evasion import L2, Boundary, EvasionGame, HopSkipJump, Linf
from assay.numerics.balls import distance
from assay.numerics.seeds import Stream
from assay.targets import Access, JsonKeys, Manners
from assay.targets.http_client import Clock, retry_after

pytestmark = pytest.mark.filterwarnings("error")

SERVER = Path(__file__).parent / "servers" / "v2_app.py"
TOKEN = 'sesame "opens" 7f3a'
WEIGHT = torch.tensor([[1.0, -1.0, 0.5], [0.0, 2.0, -0.5], [-1.5, 0.25, 1.0], [0.5, 0.5, 0.5]])


@dataclass
class FakeClock:
    """Time that passes only by sleeping."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def sleep(self, seconds: float) -> None:
        with self.lock:
            self.slept.append(seconds)
            self.now += seconds

    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.now, sleep=self.sleep)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        port = listener.getsockname()[1]
        process = subprocess.Popen([sys.executable, str(SERVER), str(listener.fileno())], pass_fds=[listener.fileno()],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        httpx.get(f"http://127.0.0.1:{port}/count", timeout=30, trust_env=False).raise_for_status()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def count(server: str) -> Callable[[], dict[str, int]]:
    httpx.post(f"{server}/reset", trust_env=False)
    return lambda: httpx.get(f"{server}/count", trust_env=False).json()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(7, 4, generator=torch.Generator().manual_seed(0))


def v2(server: str, model: str, fake: FakeClock | None = None, **settings: object) -> targets.HttpTarget:
    clock = (fake or FakeClock()).clock()
    return targets.http(server, model=model, clock=clock, **settings)  # type: ignore[arg-type]


def refused(kind: type[AssayError], code: str, call: Callable[[], object], *parts: str) -> AssayError:
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    assert type(error) is kind
    assert error.code == code, str(error)
    for part in parts:
        assert part in str(error), str(error)
    return error


# ---- the happy path -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrent", [1, 3])
def test_v2_scores_are_the_servers(server: str, x: torch.Tensor, concurrent: int) -> None:
    target = v2(server, "linear", batch=2, manners=Manners(concurrent=concurrent))
    target.check(x)
    assert target.offers is Access.SCORES
    torch.testing.assert_close(target.scores(x), x @ WEIGHT)
    assert torch.equal(target.labels(x), (x @ WEIGHT).argmax(1))
    assert target.scores(x).dtype == torch.float32
    target.close()


def test_float32_goes_over_the_wire_without_loss(server: str, x: torch.Tensor) -> None:
    target = v2(server, "linear")
    exact = (x.double() @ WEIGHT.double()).float()
    torch.testing.assert_close(target.scores(x), exact, rtol=1e-7, atol=1e-7)
    wide = v2(server, "linear", datatype="FP64")
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide.scores(x.double()), x.double() @ WEIGHT.double(), rtol=1e-15, atol=1e-15)


def test_v2_answers_with_a_version_and_with_nested_data(server: str, x: torch.Tensor) -> None:
    torch.testing.assert_close(v2(server, "linear", version="2").scores(x), x @ WEIGHT)
    torch.testing.assert_close(v2(server + "/", "nested").scores(x), x @ WEIGHT)
    torch.testing.assert_close(v2(server, "two", output_name="again").scores(x), x @ WEIGHT)


@pytest.mark.parametrize("model", ["labels", "columns", "both"])
def test_labels_alone(server: str, x: torch.Tensor, model: str) -> None:
    target = v2(server, model, output="labels", batch=3)
    target.check(x)
    assert target.offers is Access.LABELS
    labels = target.labels(x)
    assert labels.dtype == torch.int64
    assert torch.equal(labels, (x @ WEIGHT).argmax(1))
    refused(Denied, "THR101", lambda: target.scores(x))


def test_the_fitting_one_of_two_outputs_is_read(server: str, x: torch.Tensor) -> None:
    torch.testing.assert_close(v2(server, "both").scores(x), x @ WEIGHT)


def test_label_names(server: str, x: torch.Tensor) -> None:
    target = v2(server, "names", output="labels", classes=["cat", "dog", "owl"])
    assert torch.equal(target.labels(x), (x @ WEIGHT).argmax(1))
    numbered = targets.http(f"{server}/plain/numbered", protocol="json", output="labels", classes=["3", "8", "9"])
    assert torch.equal(numbered.labels(x), (x @ WEIGHT).argmax(1))
    refused(TargetError, "TGT125", lambda: v2(server, "names", output="labels", classes=["cat", "dig"]).labels(x), "dog")
    refused(TargetError, "TGT125", lambda: v2(server, "names", output="labels").labels(x), "no classes are declared")


def test_plain_json(server: str, x: torch.Tensor) -> None:
    target = targets.http(f"{server}/plain/scores", protocol="json", batch=3)
    target.check(x)
    torch.testing.assert_close(target.scores(x), x @ WEIGHT)
    labels = targets.http(f"{server}/plain/labels", protocol="json", output="labels")
    assert torch.equal(labels.labels(x), (x @ WEIGHT).argmax(1))
    keys = JsonKeys(field="logits")
    torch.testing.assert_close(targets.http(f"{server}/plain/objects", protocol="json", keys=keys).scores(x), x @ WEIGHT)
    keys = JsonKeys(instances="data", predictions="output")
    torch.testing.assert_close(targets.http(f"{server}/renamed", protocol="json", keys=keys).scores(x), x @ WEIGHT)


def test_metadata_decide_names_and_shape(server: str, x: torch.Tensor) -> None:
    torch.testing.assert_close(v2(server, "open").scores(x), x @ WEIGHT)
    images = x.reshape(7, 1, 2, 2)
    torch.testing.assert_close(v2(server, "linear").scores(images), x @ WEIGHT)
    refused(TargetError, "TGT123", lambda: v2(server, "linear").scores(x[:, :3]), "[3]", "[-1, 4]")
    refused(TargetError, "TGT123", lambda: v2(server, "bytes").scores(x), "UINT8")
    torch.testing.assert_close(v2(server, "bytes").scores(torch.eye(4)), WEIGHT)
    refused(TargetError, "TGT121", lambda: v2(server, "pair").scores(x), "2 inputs")
    refused(TargetError, "TGT121", lambda: v2(server, "linear", input_name="X").scores(x), "'x'")
    refused(TargetError, "TGT117", lambda: v2(server, "garbled").scores(x))
    refused(TargetError, "TGT123", lambda: v2(server, "linear").scores(x / 0), "NaN or infinity")


def test_metadata_absent(server: str, x: torch.Tensor) -> None:
    target = v2(server, "bare", input_name="mine")
    target.check(x)
    torch.testing.assert_close(target.scores(x), x @ WEIGHT)
    refused(TargetError, "TGT113", lambda: v2(server, "unknown").check(x), "404", "no model is called unknown")


def test_answers_come_in_order_and_within_the_limit(server: str, count: Callable[[], dict[str, int]]) -> None:
    x = torch.rand(24, 4, generator=torch.Generator().manual_seed(1))
    target = v2(server, "slow", batch=1, manners=Manners(concurrent=3))
    torch.testing.assert_close(target.scores(x), x @ WEIGHT)
    assert count() == {"rows": 24, "calls": 24, "most_under_way": 3}


def test_no_rows_send_nothing(server: str, x: torch.Tensor, count: Callable[[], dict[str, int]]) -> None:
    target = v2(server, "linear")
    assert target.labels(x[:0]).shape == (0,)
    assert count()["calls"] == 0
    target.scores(x)
    assert target.scores(x[:0]).shape == (0, 3)


@pytest.mark.parametrize(("model", "output", "access"), [("linear", "scores", Access.SCORES),
                                                         ("labels", "labels", Access.LABELS)])
def test_the_view_counts_what_the_server_counts(server: str, x: torch.Tensor, count: Callable[[], dict[str, int]],
                                                model: str, output: str, access: Access) -> None:
    view = Linf(0.1).threat(access=access).grant(v2(server, model, output=output, batch=3), len(x))
    at = torch.arange(7)
    for rows in (at, at[:3], at.repeat(2)):
        view.labels(x[rows], rows) if access is Access.LABELS else view.scores(x[rows], rows)
    assert int(view.meter.queries.sum()) == count()["rows"] == 24
    if access is Access.LABELS:
        refused(Denied, "THR102", lambda: view.scores(x, at))
        refused(Denied, "THR101", lambda: Linf(0.1).threat(access="scores").grant(v2(server, model, output=output), 7))


@pytest.mark.parametrize("attack", [HopSkipJump(), Boundary()], ids=["hop-skip-jump", "boundary"])
def test_what_attacks_by_labels_are_charged_is_what_the_server_saw(
    server: str, x: torch.Tensor, count: Callable[[], dict[str, int]], attack: HopSkipJump | Boundary
) -> None:
    target, limit, y = v2(server, "labels", output="labels", batch=16), 60, (x @ WEIGHT).argmax(1)
    budget = L2(float("inf"))
    view = budget.threat(access="labels", queries=limit).grant(target, len(x))
    z = attack.perturb(view, x, y, budget, Stream.seeded(0, torch.arange(len(x))))
    assert int(view.meter.queries.sum()) == count()["rows"]
    assert (view.meter.queries == limit).all()
    assert ((z @ WEIGHT).argmax(1) != y).all()
    assert (distance(z - x, 2) / _exact(x)).median() <= 1.25
    target.close()


@pytest.mark.parametrize("attack", [HopSkipJump(), Boundary()], ids=["hop-skip-jump", "boundary"])
def test_a_game_by_labels_asks_the_server_what_it_says(
    server: str, x: torch.Tensor, count: Callable[[], dict[str, int]], attack: HopSkipJump | Boundary
) -> None:
    target, limit = v2(server, "labels", output="labels"), 60
    radius = float(_exact(x).median())
    game = EvasionGame(x, (x @ WEIGHT).argmax(1), threat=L2(1.5 * radius).threat(access="labels", queries=limit))
    found = game.play(attack, target, seed=0)
    assert not found.error
    spent, broken = found.artefacts["points"].arrays["queries"], len(found.artefacts["adversarial"].arrays["index"])
    assert broken >= 4
    assert spent.max() <= limit
    assert spent.sum() == found.cost.queries
    # Beside the adversary, the game looks at every point to see that the target answers, twice to see that it is
    # steady, once for clean accuracy, and once at each input that the adversary claims to have found.
    assert count()["rows"] == found.cost.queries + 4 * len(x) + broken
    target.close()


def _exact(x: torch.Tensor) -> torch.Tensor:
    """The L2 distance of each point from the nearest boundary of the served model, were there no box."""
    scores, y = x @ WEIGHT, (x @ WEIGHT).argmax(1)
    gap = scores.gather(1, y[:, None]) - scores
    length = (WEIGHT.T[None] - WEIGHT.T[y][:, None]).norm(dim=2)
    return (gap / length.clamp_min(1e-9)).scatter(1, y[:, None], torch.inf).amin(1)


# ---- answers that are none ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "code", "part"), [
    ("short", "TGT120", "7 rows"),
    ("long", "TGT120", "[8, 3]"),
    ("ragged", "TGT119", "ragged"),
    ("size", "TGT119", "21 elements"),
    ("shapeless", "TGT119", "None"),
    ("immense", "TGT119", "inf"),
    ("strings", "TGT119", "strings where scores"),
    ("mixed", "TGT119", "strings stand among"),
    ("null", "TGT119", "null"),
    ("infinite", "TGT119", "immense"),
    ("scalar", "TGT119", "int where"),
    ("nan", "TGT103", "1 of 7"),
    ("one", "TGT102", "(7, 1)"),
    ("flat", "TGT102", "(7,)"),
    ("dataless", "TGT118", "has no data"),
    ("empty", "TGT118", "'scores'"),
    ("renamed", "TGT118", "'other'"),
    ("two", "TGT118", "'scores', 'again'"),
    ("html", "TGT117", "Please log in"),
    ("deep", "TGT117", "not JSON"),
    ("list", "TGT117", "it is list"),
    ("redirect", "TGT116", "http://elsewhere.invalid/v2"),
    ("teapot", "TGT113", "HTTP 418: I am a teapot."),
    ("broken", "TGT115", "HTTP 500: out of memory"),
    ("traced", "TGT115", "HTTP 500: ValueError: 3 features"),
])
def test_malformed_answers_are_named(server: str, x: torch.Tensor, model: str, code: str, part: str) -> None:
    target = v2(server, model)
    for call in (lambda: target.scores(x), lambda: target.check(x)):
        error = refused(TargetError, code, call, part)
        assert f"{server}/v2/models/{model}" in error.where
        assert len(error.what) <= 400
        assert "\x1b" not in str(error)
        assert "token=abc" not in str(error)
        assert error.exit_code == 2


@pytest.mark.parametrize(("model", "code"), [("fraction", "TGT125"), ("negative", "TGT125"), ("linear", "TGT119"),
                                             ("short", "TGT120")])
def test_malformed_labels_are_named(server: str, x: torch.Tensor, model: str, code: str) -> None:
    refused(TargetError, code, lambda: v2(server, model, output="labels").labels(x))


@pytest.mark.parametrize(("kind", "keys", "code", "part"), [
    ("other", JsonKeys(), "TGT118", "'answers'"),
    ("scores", JsonKeys(field="logits"), "TGT118", "no 'logits'"),
    ("objects", JsonKeys(field="logit"), "TGT118", "'class'"),
    ("objects", JsonKeys(), "TGT119", "object"),
    ("word", JsonKeys(), "TGT119", "str"),
])
def test_malformed_plain_json_is_named(server: str, x: torch.Tensor, kind: str, keys: JsonKeys, code: str,
                                       part: str) -> None:
    target = targets.http(f"{server}/plain/{kind}", protocol="json", keys=keys)
    refused(TargetError, code, lambda: target.scores(x), part)


def test_the_number_of_classes_may_not_change(server: str, x: torch.Tensor, count: Callable[[], object]) -> None:
    target = v2(server, "growing")
    target.scores(x)
    target.scores(x)
    refused(TargetError, "TGT102", lambda: target.scores(x), "3 scores a row before, and 2 now")


# ---- servers that do not answer -------------------------------------------------------------------------------


def test_nobody_listens(x: torch.Tensor) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        fake = FakeClock()
        target = v2(f"http://127.0.0.1:{held.getsockname()[1]}", "linear", fake)
        error = refused(Unreachable, "TGT110", lambda: target.check(x), "5 attempts", "/v2/health/ready")
    assert error.exit_code == 4
    assert fake.slept == [0.5, 1.0, 2.0, 4.0]


def test_what_does_not_speak_http(x: torch.Tensor) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(10)

        def babble() -> None:
            for _ in range(2):
                peer, _ = listener.accept()
                with peer:
                    peer.recv(10_000)
                    peer.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        target = targets.http(f"http://127.0.0.1:{listener.getsockname()[1]}", protocol="json",
                              manners=Manners(retries=1), clock=FakeClock().clock())
        refused(Unreachable, "TGT110", lambda: target.scores(x), "2 attempts")
        thread.join()


def test_a_stalling_server_is_given_up_quickly(server: str, x: torch.Tensor) -> None:
    target = v2(server, "stall", manners=Manners(read_timeout=0.3))
    began = time.monotonic()
    error = refused(Unreachable, "TGT111", lambda: target.scores(x), "0.3 s")
    assert time.monotonic() - began < 3
    assert error.exit_code == 4


def test_a_trickling_answer_is_given_up(x: torch.Tensor) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(10)

        def trickle() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(10_000)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                for _ in range(200):
                    try:
                        peer.sendall(b" ")
                    except OSError:
                        return
                    time.sleep(0.02)

        thread = threading.Thread(target=trickle)
        thread.start()
        target = targets.http(f"http://127.0.0.1:{listener.getsockname()[1]}", protocol="json",
                              manners=Manners(read_timeout=0.06, connect_timeout=0.1))
        refused(Unreachable, "TGT111", lambda: target.scores(x))
        thread.join()


def test_dropped_connections_are_retried_then_unreachable(server: str, x: torch.Tensor,
                                                          count: Callable[[], dict[str, int]]) -> None:
    fake = FakeClock()
    error = refused(Unreachable, "TGT110", lambda: v2(server, "drop", fake, manners=Manners(retries=2)).scores(x),
                    "3 attempts")
    assert error.exit_code == 4
    assert fake.slept == [0.5, 1.0]
    assert count()["calls"] == 3


def test_one_dropped_connection_is_forgiven(server: str, x: torch.Tensor, count: Callable[[], object]) -> None:
    fake = FakeClock()
    torch.testing.assert_close(v2(server, "once", fake).scores(x), x @ WEIGHT)
    assert fake.slept == [0.5]


def test_retry_after_in_seconds_is_honored(server: str, x: torch.Tensor, count: Callable[[], object]) -> None:
    fake = FakeClock()
    torch.testing.assert_close(v2(server, "busy", fake).scores(x), x @ WEIGHT)
    assert fake.slept == [3.0, 3.0]


def test_retry_after_as_a_date_is_honored(server: str, x: torch.Tensor, count: Callable[[], object]) -> None:
    fake = FakeClock()
    torch.testing.assert_close(v2(server, "dated", fake).scores(x), x @ WEIGHT)
    assert len(fake.slept) == 1
    assert 15 < fake.slept[0] <= 20


def test_503_twice_then_well(server: str, x: torch.Tensor, count: Callable[[], dict[str, int]]) -> None:
    fake = FakeClock()
    torch.testing.assert_close(v2(server, "down", fake).scores(x), x @ WEIGHT)
    assert fake.slept == [0.5, 1.0]
    assert count()["rows"] == 7


def test_a_server_without_time_is_given_up(server: str, x: torch.Tensor) -> None:
    fake = FakeClock()
    manners = Manners(retries=3, backoff=2.0, longest_wait=5.0)
    error = refused(Unreachable, "TGT112", lambda: v2(server, "never", fake, manners=manners).scores(x), "HTTP 503",
                    "4 attempts")
    assert error.exit_code == 4
    assert fake.slept == [2.0, 4.0, 5.0]
    refused(Unreachable, "TGT112", lambda: v2(server, "hours").scores(x), "7200 s")


@pytest.mark.parametrize(("status", "code", "kind"), [(400, "TGT124", Unreachable), (500, "TGT124", Unreachable),
                                                      (503, "TGT112", Unreachable), (401, "TGT114", TargetError)])
def test_readiness(server: str, x: torch.Tensor, status: int, code: str, kind: type[AssayError]) -> None:
    refused(kind, code, lambda: v2(f"{server}/unready/{status}", "linear").check(x))


def test_a_server_without_readiness_is_taken_as_ready(server: str, x: torch.Tensor) -> None:
    v2(f"{server}/unready/404", "linear").check(x)


def test_one_failure_ends_all_requests_under_way(server: str, count: Callable[[], dict[str, int]]) -> None:
    target = v2(server, "teapot", batch=1, manners=Manners(concurrent=2))
    refused(TargetError, "TGT113", lambda: target.scores(torch.zeros(200, 4)))
    assert count()["calls"] < 100


# ---- rate -----------------------------------------------------------------------------------------------------


def test_the_rate_is_kept(server: str, x: torch.Tensor) -> None:
    fake = FakeClock()
    target = v2(server, "linear", fake, batch=1, manners=Manners(rate=4.0, concurrent=1))
    target.scores(x)
    # One request about the model and seven rows: the first at once, the others a quarter of a second apart.
    assert fake.slept == [0.25] * 7


def test_the_rate_is_kept_by_the_real_clock_and_many_threads(server: str, x: torch.Tensor) -> None:
    target = targets.http(server, model="linear", batch=1, manners=Manners(rate=20.0, concurrent=4))
    began = time.monotonic()
    target.scores(x)
    assert time.monotonic() - began >= 7 / 20


@pytest.mark.parametrize(("header", "seconds"), [
    ("3", 3.0), (" 0 ", 0.0), ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0), ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
    ("", None), ("soon", None), ("-3", None), ("²", None), ("Thu, 99 Jan 1970 00:01:40 GMT", None),
])
def test_retry_after_is_read(header: str, seconds: float | None) -> None:
    assert retry_after(header, 60.0) == seconds


# ---- secrets --------------------------------------------------------------------------------------------------


def test_credentials_open_the_door(server: str, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(TargetError, "TGT114", lambda: v2(server, "secret").check(x), "HTTP 401")
    target = v2(server, "secret", auth_env="ASSAY_TEST_TOKEN")
    refused(TargetError, "TGT114", lambda: target.check(x), "ASSAY_TEST_TOKEN is not set")
    monkeypatch.setenv("ASSAY_TEST_TOKEN", TOKEN)
    target.check(x)
    torch.testing.assert_close(target.scores(x), x @ WEIGHT)
    v2(server, "secret", auth_env="ASSAY_TEST_TOKEN", auth_header="X-Key").check(x)


def test_the_secret_is_never_repeated(server: str, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch,
                                      caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    secret = 'wrong "word" \\ 8c1d'
    monkeypatch.setenv("ASSAY_TEST_TOKEN", secret)
    said = []
    for model, header in (("secret", "Authorization"), ("leaky", "Authorization"), ("secret", "X-Key")):
        target = v2(server, model, auth_env="ASSAY_TEST_TOKEN", auth_header=header)
        with pytest.raises(TargetError) as caught:
            target.check(x)
        error = caught.value
        said += [str(error), repr(error), "".join(traceback.format_exception(error)), repr(pickle.dumps(error))]
        said += [repr(target), repr(target.fingerprint()), target.name, repr(vars(target.client)), repr(target.client)]
        assert "[secret]" in str(error)
    assert caplog.text
    text = "\n".join([*said, caplog.text])
    for piece in (secret, "8c1d", "wrong", "word"):
        assert piece not in text.replace("these are wrong", "")


@pytest.mark.parametrize("secret", ["line\nbreak-5e2f", "\x00null-5e2f", "ünï-5e2f"])
def test_a_secret_that_no_header_may_hold(server: str, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch,
                                          secret: str) -> None:
    if "\x00" in secret:
        monkeypatch.setattr("os.environ", {"ASSAY_TEST_TOKEN": secret})
    else:
        monkeypatch.setenv("ASSAY_TEST_TOKEN", secret)
    target = v2(server, "secret", auth_env="ASSAY_TEST_TOKEN")
    error = refused(TargetError, "TGT114", lambda: target.check(x))
    assert "5e2f" not in "".join(traceback.format_exception(error))


def test_addresses_with_secrets_are_refused_and_not_repeated() -> None:
    for url in ("http://me:hunter2@host/", "http://host/?key=hunter2", "http://host/#hunter2"):
        error = refused(TargetError, "TGT122", lambda url=url: targets.http(url, protocol="json"))
        assert "hunter2" not in str(error)


# ---- construction ---------------------------------------------------------------------------------------------


def test_construction_sends_nothing(server: str, count: Callable[[], dict[str, int]]) -> None:
    target = v2(server, "linear")
    assert target.fingerprint() == {"url": server, "protocol": "v2", "model": "linear", "output": "scores"}
    assert target.name == f"linear at {server.removeprefix('http://')}"
    assert count()["calls"] == 0
    assert target.client._line.pool is None
    v2("http://host.invalid", "linear")


def test_a_dropped_target_leaves_no_socket(server: str, x: torch.Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        target = v2(server, "linear")
        target.scores(x)
        pool = target.client._line.pool
        assert pool is not None
        del target
        gc.collect()
        assert pool.is_closed


def test_a_closed_target_opens_again(server: str, x: torch.Tensor) -> None:
    target = v2(server, "linear")
    target.scores(x)
    target.close()
    target.close()
    torch.testing.assert_close(target.scores(x), x @ WEIGHT)


@pytest.mark.parametrize("settings", [
    {"url": "host:8000", "model": "m"}, {"url": "ftp://host", "model": "m"}, {"url": "http://host:port", "model": "m"},
    {"url": "http://host/v2/models/m", "model": "m"}, {"url": "http://host"}, {"url": "http://host", "protocol": "grpc"},
    {"url": "http://host", "protocol": "json", "model": "m"}, {"url": "http://host", "model": "m", "batch": 0},
    {"url": "http://host", "model": "m", "output": "logits"}, {"url": "http://host", "model": "m", "datatype": "fp32"},
])
def test_unusable_settings(settings: dict[str, object]) -> None:
    refused(TargetError, "TGT122", lambda: targets.http(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"rate": 0.0}, {"retries": -1}, {"read_timeout": float("inf")}, {"concurrent": 0}])
def test_unusable_manners(settings: dict[str, float]) -> None:
    refused(TargetError, "TGT122", lambda: Manners(**settings))  # type: ignore[arg-type]


def test_bounds_and_codes() -> None:
    refused(TargetError, "TGT107", lambda: targets.http("http://host", model="m", bounds=(1, 0)))
    for code in [*range(110, 126), *range(130, 134)]:
        assert findings()[f"TGT{code}"].fix


def test_uint8_lattice_values_are_sent_whole() -> None:
    from assay.targets.http_wire import V2, Signature

    wire = V2("m", "", "", "", "", False)
    document = wire.request(np.float32([[0, 255]]), Signature("x", "UINT8", None, ""))
    assert document == {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "UINT8", "data": [0, 255]}]}
    refused(TargetError, "TGT123", lambda: wire.request(np.float32([[0, 256]]), Signature("x", "UINT8", None, "")))
    refused(TargetError, "TGT123", lambda: wire.request(np.float32([[0, 1]]), Signature("x", "BYTES", None, "")), "BYTES")
