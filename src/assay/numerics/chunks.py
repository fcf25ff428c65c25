"""Long work in chunks: through any ``map``, each finished chunk kept on disk, nothing earned is lost or mixed up."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from assay.errors import ConfigError

State = dict[str, Tensor]

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""The seam: anything called like the builtin ``map``, in this process, in others, or on a cluster.

``ProcessPoolExecutor.map`` and ``ray.util.multiprocessing.Pool().map`` are two; see :func:`processes`.
"""


class Work(Protocol):
    """What is done to some rows: picklable where the map leaves the process."""

    def __call__(self, start: int, stop: int) -> State:
        """The tensors of rows ``start`` … ``stop − 1``, ``[rows, …]`` each."""


@dataclass(frozen=True)
class Folder:
    """Where finished chunks lie: ``manifest.json`` and ``<start>-<stop>.safetensors``, each written at once or not.

    Workers write the chunks themselves, so what is finished survives any of them; on a cluster the folder must be
    one that all of them see.
    """

    path: Path

    def claim(self, identity: Mapping[str, str]) -> None:
        """Makes the folder this work's, or checks that it is.

        Raises:
            ConfigError: PRV501 where the folder holds other work; the message names what differs.
        """
        known = self.manifest()
        if not known:
            self.path.mkdir(parents=True, exist_ok=True)
            _written(self.path / "manifest.json", json.dumps(dict(identity), indent=1, sort_keys=True).encode())
            return
        differs = sorted(key for key in identity.keys() | known.keys() if identity.get(key) != known.get(key))
        if differs:
            raise ConfigError("PRV501", f"the work kept here differs in {', '.join(differs)}", where=str(self.path))

    def manifest(self) -> dict[str, str]:
        """What the folder says it holds; empty where there is none."""
        file = self.path / "manifest.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def done(self) -> dict[tuple[int, int], Path]:
        """The finished chunks by their rows."""
        files = sorted(self.path.glob("[0-9]*-[0-9]*.safetensors"))
        return {tuple(map(int, file.stem.split("-"))): file for file in files}  # type: ignore[misc]

    def keep(self, start: int, stop: int, state: State) -> None:
        """Writes a chunk; it is there whole or not at all."""
        file = self.path / f"{start:06d}-{stop:06d}.safetensors"
        partial = file.with_suffix(f".{os.getpid()}.partial")
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, partial)
        os.replace(partial, file)


@dataclass(frozen=True)
class _Task:
    """One chunk, as it travels through the map."""

    work: Work
    start: int
    stop: int
    folder: Folder | None

    def run(self) -> State:
        state = self.work(self.start, self.stop)
        if self.folder is None:
            return state
        self.folder.keep(self.start, self.stop, state)
        return {}


def chunked(work: Work, rows: int, *, chunk: int, map: Map = map, folder: Folder | None = None) -> State:
    """The tensors of all rows, ``[rows, …]``, in order; what the folder already has is not done again.

    A call that was killed has lost the chunks it was at, no more; the next may cut the rest in other sizes.
    """
    done = folder.done() if folder else {}
    tasks = [_Task(work, start, stop, folder) for start, stop in _missing(done, rows, chunk)]
    parts = {(task.start, task.stop): state for task, state in zip(tasks, map(_run, tasks))}
    if folder:
        parts = {span: load_file(file) for span, file in folder.done().items()}
    ordered = [parts[span] for span in sorted(parts)]
    return {name: torch.cat([part[name] for part in ordered]) for name in ordered[0]}


@contextmanager
def processes(count: int) -> Iterator[Map]:
    """A map over so many fresh processes of one thread each.

    They are spawned, so what travels must be importable: a function at the top of a module, or a partial of one.
    """
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))
    with pool:
        yield pool.map


def _run(task: _Task) -> State:
    return task.run()


def _missing(done: Mapping[tuple[int, int], Path], rows: int, chunk: int) -> Iterator[tuple[int, int]]:
    """The spans of rows that no finished chunk covers."""
    at = 0
    for start, stop in [*sorted(done), (rows, rows)]:
        yield from ((low, min(low + chunk, start)) for low in range(at, start, chunk))
        at = max(at, stop)


def _written(file: Path, data: bytes) -> None:
    partial = file.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(data)
    os.replace(partial, file)
