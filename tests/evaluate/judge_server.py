"""A real HTTP server that speaks as much of the OpenAI protocol as a judge is asked for, as badly as a test wants."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]
"""Status and body: bytes as they are, else a chat completion that says this text. Status 0 breaks the connection."""


class JudgeServer:
    """Answers with what `say(number of the request, its two answers)` gives, and remembers what it was sent."""

    def __init__(self, say: Callable[[int, str, str], Answer]) -> None:
        self.say = say
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.url = ""


def reply(text: str) -> bytes:
    """Give a chat completion of 10 tokens in and 2 out."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 10, "completion_tokens": 2}
    return json.dumps({"choices": [{"message": message}], "usage": usage}).encode()


def longer(first: str, second: str) -> str:
    """Judge by length."""
    return "tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B"


@contextmanager
def serving(say: Callable[[int, str, str], Answer]) -> Iterator[JudgeServer]:
    """Serve on a free port until the block ends."""
    state = JudgeServer(say)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.bodies.append(body)
                state.headers.append(dict(self.headers))
                number = len(state.bodies) - 1
            text = body["messages"][1]["content"]
            first, second = (text.split(f"<{x}>\n")[1].split(f"\n</{x}>")[0] for x in "AB")
            status, said = state.say(number, first, second)
            if status == 0:
                self.connection.close()
                return
            payload = said if isinstance(said, bytes) else reply(said)
            self.send_response(status)
            if status == 302:
                self.send_header("Location", state.url)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_arguments: Any) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def slowly(seconds: float, answer: Answer) -> Answer:
    """Give an answer after a while."""
    time.sleep(seconds)
    return answer
