"""A server of the Open Inference Protocol V2 and of plain JSON, with models that misbehave by name.

Run as ``python v2_app.py <fd>`` with a listening socket. Model ``linear`` is right; what the others do wrong, their
names say. ``GET /count`` tells how many rows were answered or dropped, ``POST /reset`` starts again.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from email.utils import formatdate
from time import time

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

WEIGHT = [[1.0, -1.0, 0.5], [0.0, 2.0, -0.5], [-1.5, 0.25, 1.0], [0.5, 0.5, 0.5]]
"""``[features, classes]`` of every well-behaved model: scores = x @ WEIGHT."""

TOKEN = 'sesame "opens" 7f3a'


class State:
    rows = 0
    calls = 0
    under_way = 0
    most_under_way = 0


def scores_of(rows):
    return [[sum(x * w for x, w in zip(row, column)) for column in zip(*WEIGHT)] for row in rows]


def label_of(scores):
    return max(range(len(scores)), key=scores.__getitem__)


def tensor(name, datatype, shape, data):
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def answered(model, rows):
    """The outputs of a model, right or wrong."""
    scores = scores_of(rows)
    n, flat = len(rows), [value for row in scores for value in row]
    good = tensor("scores", "FP32", [n, 3], flat)
    labels = tensor("label", "INT64", [n], [label_of(row) for row in scores])
    wrong = {
        "labels": [labels],
        "columns": [tensor("label", "INT64", [n, 1], labels["data"])],
        "names": [tensor("label", "BYTES", [n], [["cat", "dog", "owl"][i] for i in labels["data"]])],
        "fraction": [tensor("label", "FP32", [n], [i + 0.5 for i in labels["data"]])],
        "negative": [tensor("label", "INT64", [n], [-1] * n)],
        "both": [good, labels],
        "two": [good, {**good, "name": "again"}],
        "short": [tensor("scores", "FP32", [n - 1, 3], flat[:-3])],
        "long": [tensor("scores", "FP32", [n + 1, 3], [*flat, 1, 2, 3])],
        "ragged": [tensor("scores", "FP32", [n, 3], [*scores[:-1], scores[-1][:2]])],
        "size": [tensor("scores", "FP32", [n, 4], flat)],
        "shapeless": [{**good, "shape": None}],
        "immense": [{**good, "shape": [float("inf"), 3]}],
        "strings": [{**good, "data": [str(value) for value in flat]}],
        "mixed": [{**good, "data": ["1.0", *flat[1:]]}],
        "null": [{**good, "data": [None, *flat[1:]]}],
        "nan": [{**good, "data": [float("nan"), *flat[1:]]}],
        "infinite": [{**good, "data": [10**400, *flat[1:]]}],
        "one": [tensor("scores", "FP32", [n, 1], [row[0] for row in scores])],
        "flat": [tensor("scores", "FP32", [n], [row[0] for row in scores])],
        "dataless": [{key: value for key, value in good.items() if key != "data"}],
        "scalar": [{**good, "data": 3}],
        "empty": [],
        "renamed": [{**good, "name": "other"}],
        "growing": [good if State.calls < 3 else tensor("scores", "FP32", [n, 2], flat[:2 * n])],
        "nested": [{**good, "data": scores}],
    }
    return wrong.get(model, [good])


def metadata(request: Request) -> Response:
    model = request.path_params["model"]
    if model in ("bare", "unknown"):
        return JSONResponse({"error": f"no model is called {model}"}, 404)
    if model == "secret" and refused(request):
        return echo(request)
    inputs = [{"name": "x", "datatype": "UINT8" if model == "bytes" else "FP32", "shape": [-1, 4]}]
    if model == "open":
        inputs = []
    if model == "pair":
        inputs *= 2
    if model == "garbled":
        return JSONResponse({"inputs": "x"})
    outputs = [{key: value for key, value in output.items() if key != "data"} for output in answered(model, [[0] * 4] * 2)]
    listed = {"renamed", "dataless", "empty"}
    return JSONResponse({"name": model, "platform": "test", "inputs": inputs,
                         "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}] if model in listed
                         else [{"name": output["name"], "datatype": output["datatype"]} for output in outputs]})


def refused(request: Request) -> bool:
    return request.headers.get("authorization") != f"Bearer {TOKEN}" and request.headers.get("x-key") != TOKEN


def echo(request: Request) -> Response:
    """What no server should do: it repeats the credentials."""
    return JSONResponse({"error": f"these are wrong: {dict(request.headers)} {request.headers.get('authorization')}"}, 401)


async def infer(request: Request) -> Response:
    model = request.path_params["model"]
    document = await request.json()
    (given,) = document["inputs"]
    State.calls += 1
    expected = {"open": "input-0", "bare": "mine"}.get(model, "x")
    if given["name"] != expected or len(given["data"]) != given["shape"][0] * 4:
        return JSONResponse({"error": f"unexpected input {given['name']} {given['shape']}"}, 400)
    early = await misbehaved(model, request)
    if early is not None:
        return early
    data = iter(given["data"])
    rows = [list(row) for row in zip(data, data, data, data)]
    State.rows += len(rows)
    State.under_way += 1
    State.most_under_way = max(State.most_under_way, State.under_way)
    if model == "slow":
        await asyncio.sleep(0.02 * (1 + rows[0][0]))
    State.under_way -= 1
    outputs = answered(model, rows)
    wanted = [output["name"] for output in document.get("outputs", [])]
    if wanted and model not in ("renamed", "empty"):
        outputs = [output for output in outputs if output["name"] in wanted]
    body = json.dumps({"model_name": model, "outputs": outputs})
    return Response(body, media_type="application/json")


async def misbehaved(model: str, request: Request) -> Response | None:
    """An answer other than 200, if this model gives one now."""
    match model:
        case "stall":
            await asyncio.sleep(20)
        case "html":
            return PlainTextResponse("<html>\x1b[31mPlease log in</html>")
        case "deep":
            return PlainTextResponse("[" * 200_000, media_type="application/json")
        case "list":
            return JSONResponse([1, 2])
        case "redirect":
            return RedirectResponse("http://elsewhere.invalid/v2?token=abc")
        case "teapot":
            return JSONResponse({"error": "I am a teapot. " * 100}, 418)
        case "broken":
            return JSONResponse({"detail": "out of\nmemory"}, 500)
        case "traced":
            return PlainTextResponse("Traceback (most recent call last):\n  File \"x.py\", line 1\nValueError: 3 features\n", 500)
        case "secret" if refused(request):
            return echo(request)
        case "leaky":
            return JSONResponse({"outputs": [{"name": request.headers["authorization"]}]})
        case "busy" if State.calls < 3:
            return PlainTextResponse("slow down", 429, {"Retry-After": "3"})
        case "dated" if State.calls < 2:
            return PlainTextResponse("", 503, {"Retry-After": formatdate(time() + 20, usegmt=True)})
        case "down" if State.calls < 3:
            return PlainTextResponse("starting", 503)
        case "never":
            return PlainTextResponse("", 503)
        case "hours":
            return PlainTextResponse("", 429, {"Retry-After": "7200"})
        case "drop":
            return Dropped()
        case "once" if State.calls < 2:
            return Dropped()
    return None


class Dropped(Response):
    """Half an answer, then a closed connection."""

    async def __call__(self, scope, receive, send) -> None:
        headers = [(b"content-length", b"1000"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"outputs": [', "more_body": True})
        raise ConnectionAbortedError


async def plain(request: Request) -> Response:
    rows = (await request.json())[request.query_params.get("in", "instances")]
    State.rows += len(rows)
    scores = scores_of(rows)
    match request.path_params["kind"]:
        case "scores":
            return JSONResponse({"predictions": scores})
        case "labels":
            return JSONResponse({"predictions": [label_of(row) for row in scores]})
        case "objects":
            return JSONResponse({"predictions": [{"logits": row, "class": label_of(row)} for row in scores]})
        case "numbered":
            return JSONResponse({"predictions": [[3, 8, 9][label_of(row)] for row in scores]})
        case "word":
            return JSONResponse({"predictions": "none"})
    return JSONResponse({"answers": scores})


async def renamed(request: Request) -> Response:
    return JSONResponse({"output": scores_of((await request.json())["data"])})


def count(request: Request) -> Response:
    return JSONResponse({"rows": State.rows, "calls": State.calls, "most_under_way": State.most_under_way})


def reset(request: Request) -> Response:
    State.rows = State.calls = State.most_under_way = 0
    return JSONResponse({})


def ready(request: Request) -> Response:
    return Response(status_code=int(request.path_params.get("status", 200)))


app = Starlette(routes=[
    Route("/v2/health/ready", ready),
    Route("/unready/{status}/v2/health/ready", ready),
    Route("/unready/{status}/v2/models/{model}", metadata),
    Route("/unready/{status}/v2/models/{model}/infer", infer, methods=["POST"]),
    Route("/v2/models/{model}", metadata),
    Route("/v2/models/{model}/versions/{version}", metadata),
    Route("/v2/models/{model}/infer", infer, methods=["POST"]),
    Route("/v2/models/{model}/versions/{version}/infer", infer, methods=["POST"]),
    Route("/plain/{kind}", plain, methods=["POST"]),
    Route("/renamed", renamed, methods=["POST"]),
    Route("/count", count),
    Route("/reset", reset, methods=["POST"]),
])


if __name__ == "__main__":
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
    asyncio.run(uvicorn.Server(config).serve([socket.socket(fileno=int(sys.argv[1]))]))
