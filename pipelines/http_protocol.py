"""The service's HTTP/1.1 parser: httptools, with a bound on what comes before a body."""

from __future__ import annotations

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES: Final = 32_768


class BoundedHttpTools(HttpToolsProtocol):
    """Refuses a request whose first line and headers do not end within `HEAD_BYTES` and a read; closes its connection.

    The parser itself keeps whatever comes, so that one caller could fill the memory.
    """

    def __init__(self, *options: Any, **more: Any) -> None:
        super().__init__(*options, **more)
        self._in_head, self._head_bytes = True, 0

    def data_received(self, data: bytes) -> None:
        """Parse some bytes."""
        self._head_bytes += len(data) if self._in_head else 0
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("the headers are too long")

    def on_headers_complete(self) -> None:
        """Begin the answer."""
        self._in_head, self._head_bytes = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Wait for the next request."""
        self._in_head = True
        super().on_message_complete()
