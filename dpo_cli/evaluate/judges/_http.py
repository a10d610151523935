"""JSON to a server and back, with the standard library: deadlines, retries, nothing of the key in any message."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

MAX_BYTES = 1024 * 1024
"""Of a reply."""
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""What a server says that may do better in a moment."""
_WHOLE = {401, 402, 403, 404, 405}
"""What it says that holds for every question: of key, bill or address."""


class NoReply(Exception):
    """A question without an answer; the message says why."""

    def __init__(
        self, reason: str, *, may_pass: bool = True, of_all: bool = False, wait_s: float = 0
    ) -> None:
        super().__init__(reason)
        self.may_pass = may_pass
        """Whether asking again may help."""
        self.of_all = of_all
        """Whether no other question would fare better."""
        self.wait_s = wait_s
        """How long the server asks to wait."""


def post(url: str, payload: Any, key: str | None, timeout_s: float) -> Any:
    """Send a JSON body and give the JSON that comes back; redirects are not followed, for the key would go along.

    Raises:
        NoReply: anything else came back, or nothing within `timeout_s` seconds.
    """
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(url, json.dumps(payload).encode(), headers, method="POST")
    deadline, body = time.monotonic() + timeout_s, b""
    try:
        with _opener().open(request, timeout=timeout_s) as reply:
            while chunk := reply.read1(65536):
                body += chunk
                if len(body) > MAX_BYTES or time.monotonic() > deadline:
                    # A timeout of the socket's does not end a server that sends a byte now and then.
                    raise NoReply("an endless reply" if len(body) > MAX_BYTES else "timed out")
        return json.loads(body)
    except urllib.error.HTTPError as error:
        wait = error.headers.get("Retry-After", "")
        raise NoReply(
            f"HTTP {error.code}",
            may_pass=error.code in _AGAIN,
            of_all=error.code in _WHOLE or 300 <= error.code < 400,
            wait_s=min(float(wait), 60.0) if wait.isdigit() else 0.0,
        ) from None
    except TimeoutError:
        raise NoReply("timed out") from None
    except urllib.error.URLError as error:
        raise NoReply("timed out" if isinstance(error.reason, TimeoutError) else "unreachable") from None
    except (OSError, http.client.HTTPException):
        raise NoReply("the connection broke off") from None
    except ValueError:
        raise NoReply("a reply that is no JSON") from None


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener that knows proxies and TLS, and no redirects."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


class Patience:
    """Asks again after a pause that doubles, and stops asking at all where the server answers nobody any more."""

    def __init__(self, tries: int, pause_s: float, gone_after: int) -> None:
        """Return how much of it there is.

        Args:
            tries: of a question.
            pause_s: before the second try, seconds.
            gone_after: questions in a row without an answer after which no other is asked.
        """
        self._tries, self._pause_s, self._gone_after = tries, pause_s, gone_after
        self._lock, self._in_vain = threading.Lock(), 0
        self.gone = ""
        """Why nothing is asked any more; empty while there is hope."""

    def ask(self, once: Callable[[], T]) -> T:
        """Return what `once` gives, at the first try that works.

        Raises:
            NoReply: none did.
        """
        for attempt in range(self._tries):
            if self.gone:
                raise NoReply(f"not asked: {self.gone}")
            try:
                found = once()
            except NoReply as error:
                if error.of_all:
                    self.give_up(f"the server answers all with {error}")
                if attempt == self._tries - 1 or not error.may_pass:
                    self._count(error)
                    raise
                time.sleep(max(error.wait_s, self._pause_s * 2**attempt))
            else:
                with self._lock:
                    self._in_vain = 0
                return found
        raise AssertionError("the last try returns or raises")

    def give_up(self, why: str) -> None:
        """Ask nothing any more."""
        self.gone = self.gone or why

    def _count(self, error: NoReply) -> None:
        with self._lock:
            self._in_vain += 1
            if self._in_vain >= self._gone_after:
                self.give_up(f"{self._in_vain} questions in a row had no answer, the last: {error}")
