"""A small HTTP server that says what the service would, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel

from resolver.api import problems


@dataclass(frozen=True)
class Asked:
    """A request as it came; `path` is not decoded."""

    method: str
    path: str
    query: dict[str, str]
    headers: Message
    body: Any


@dataclass(frozen=True)
class Said:
    """An answer."""

    content: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


Answer = Callable[[Asked], Said]


def of_model(model: BaseModel, status: int = 200, **headers: str) -> Said:
    """JSON as FastAPI writes a model."""
    return Said(model.model_dump_json(by_alias=True).encode(), status, headers)


def of_problem(kind: problems.Kind, detail: str, **facts: object) -> Said:
    """A problem as the API writes it."""
    body = problems.body(kind, detail, "the-request-id", **facts)
    return Said(json.dumps(body).encode(), kind.status, {"Content-Type": problems.MEDIA_TYPE})


class Service:
    """Answers by method and path, `says` one after the other, the last one ever after."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._answers: dict[tuple[str, str], list[Said | Answer]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def paths(self) -> list[str]:
        return [f"{asked.method} {asked.path}" for asked in self.asked]

    def says(self, method: str, path: str, *answers: Said | Answer) -> None:
        self._answers[method, path] = [*answers]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, asked: Asked) -> Said:
        self.asked.append(asked)
        answers = self._answers.get((asked.method, asked.path))
        if answers is None:
            return of_problem(problems.NOT_FOUND, f"{asked.method} {asked.path}")
        answer = answers[0] if len(answers) == 1 else answers.pop(0)
        return answer if isinstance(answer, Said) else answer(asked)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                parts = urlsplit(self.path)
                content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                body = json.loads(content) if content else None
                asked = Asked(self.command, parts.path, dict(parse_qsl(parts.query)), self.headers, body)
                said = service._answer(asked)
                self.send_response(said.status)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(said.content)))
                self.end_headers()
                self.wfile.write(said.content)

            do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - the names that http.server calls

            def log_message(self, *_: object) -> None:
                pass

        return Handler
