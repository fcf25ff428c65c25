"""How a payload travels: its length, its checksum, a key stream over both, and copies that outvote the noise."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError

Sent = NDArray[np.float64]
"""A bit as a sign, +1 for one and −1 for zero; 0 where the channel is free."""

_CHECK = 8
HEADER = 4 + _CHECK
"""Bytes: the length, big-endian, and the first eight of the payload's SHA-256."""


@dataclass(frozen=True, kw_only=True)
class Received:
    """What a decoder read.

    Attributes:
        payload: the bytes; where they are not ``intact``, whatever the channel left, as much as would have fitted.
        intact: whether length and checksum hold.
    """

    payload: bytes
    intact: bool


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What sender and receiver agree on beforehand.

    Attributes:
        copies: how often the message is sent, evenly over the channel; their sum is read.
        key: of the stream of random signs that makes any payload look like noise; ``None`` to send it as it is.
    """

    copies: int = 1
    key: int | None = 0

    def encode(self, payload: bytes, capacity: int) -> Sent:
        """The message on a channel of so many bits: float64 ``[capacity]``. Raises ``DataError`` (PRV600)."""
        message = struct.pack(">I", len(payload)) + _checksum(payload) + payload
        bits = np.unpackbits(np.frombuffer(message, np.uint8))
        stride = capacity // self.copies
        if len(bits) > stride:
            room = max(stride // 8 - HEADER, 0)
            raise DataError("PRV600", f"{len(payload)} bytes, {self.copies} times over, do not fit {capacity} bits",
                            fix=f"Hide at most {room} bytes, send fewer copies, or take a larger model.")
        sent = np.zeros(capacity)
        for copy in range(self.copies):
            sent[copy * stride : copy * stride + len(bits)] = 2.0 * bits - 1
        return np.asarray(sent * self._stream(capacity), np.float64)

    def decode(self, soft: NDArray[np.floating]) -> Received:
        """What these values say, ``[capacity]``: the further from zero, the surer of the bit."""
        stride = len(soft) // self.copies
        clear = (np.asarray(soft, np.float64) * self._stream(len(soft)))[: stride * self.copies]
        bits = clear.reshape(self.copies, stride).sum(0) > 0
        message = np.packbits(bits[: stride // 8 * 8]).tobytes()
        if len(message) < HEADER:
            return Received(payload=b"", intact=False)
        (length,) = struct.unpack(">I", message[:4])
        payload = message[HEADER : HEADER + length]
        if length <= len(message) - HEADER and message[4:HEADER] == _checksum(payload):
            return Received(payload=payload, intact=True)
        return Received(payload=message[HEADER:], intact=False)

    def _stream(self, capacity: int) -> Sent:
        if self.key is None:
            return np.ones(capacity)
        return np.asarray(np.random.default_rng(self.key).integers(0, 2, capacity) * 2.0 - 1, np.float64)


ONCE = Frame()
"""One copy, under key 0."""
FIVE = Frame(copies=5)
"""Five copies, under key 0."""


def _checksum(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest()[:_CHECK]
