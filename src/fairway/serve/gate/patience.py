"""uvicorn's HTTP/1.1 with an end to waiting: slow heads, slow bodies, and answers nobody reads.

uvicorn 0.54 by itself waits without end for the rest of a head or a body, and for a reader; its
timeout_keep_alive is of connections at rest alone.
"""

from __future__ import annotations

import asyncio
import sys

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from fairway.serve.gate.guard import HEAD, HEADERS
from fairway.serve.problems import Problem


class Patient(H11Protocol):
    """A connection whose requests must be whole within `patience` seconds.

    The time of a request begins when the connection is made, or when the answer before was given;
    it ends with the body's last byte. An answer must be read on within the same time.
    """

    patience = 20.0
    _timer: asyncio.TimerHandle | None = None
    _reader: asyncio.TimerHandle | None = None
    _deaf = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        # Whatever is not sent at once is waited for, and by `_look` not for ever.
        transport.set_write_buffer_limits(high=0)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._calm()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, and see whether a request is whole."""
        if not self._deaf:
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request; the rest of one that was refused is not read."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            # Closing now could take the answer from a client that is still sending.
            self._deaf = True
            self._unset_keepalive_if_required()
            self._calm()
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.loop.call_later(self.patience, self.transport.abort)
        self._watch()

    def pause_writing(self) -> None:
        """See whether the answer is being read."""
        super().pause_writing()
        if self._reader is None:
            self._look(self.transport.get_write_buffer_size() + 1)

    def resume_writing(self) -> None:
        """The answer was read."""
        super().resume_writing()
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def _look(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left < before:
            self._reader = self.loop.call_later(self.patience, self._look, left)
        else:
            self.transport.abort()

    def _watch(self) -> None:
        """Keep the timer while a request is awaited or incomplete."""
        state = self.conn.their_state
        waits = state in (h11.IDLE, h11.SEND_BODY) and not self._deaf
        if not waits or self.transport.is_closing():
            self._calm()
            return
        if self._timer is None:
            self._timer = self.loop.call_later(self.patience, self._cut)

    def _calm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut(self) -> None:
        self._timer = None
        began = self.conn.their_state is h11.SEND_BODY or bool(self.conn.trailing_data[0])
        self._end(408, "The request did not come to its end in time.", "too_slow", began)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or whose head is too large."""
        if getattr(sys.exc_info()[1], "error_status_hint", 400) == 431:
            self._end(431, "The request's head is too large; send fewer headers.", "too_large")
        else:
            self._end(400, "The request is not valid HTTP/1.1.", "invalid_http")

    def _end(self, status: int, message: str, code: str, say: bool = True) -> None:
        """Close the connection, with a word where no answer has begun."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if say and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = Problem(status, message, code).response()
            headers = [*answer.raw_headers, *HEADERS.items(), (b"connection", b"close")]
            for event in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(data=bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        # What is not sent yet is waited for by `_look`.
        self.transport.close()


def patient(seconds: float) -> type[Patient]:
    """Give the protocol for a server that waits so long."""
    return type("Patient", (Patient,), {"patience": seconds})


LARGEST = HEAD
"""Bytes of an incomplete head; uvicorn's ``h11_max_incomplete_event_size``."""
