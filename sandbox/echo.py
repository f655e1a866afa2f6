"""A server whose errors quote the request, including its token, in some form.

`Environment(alter=Echo(...))` quotes it in every response.
"""

from __future__ import annotations

import base64
import html
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from sandbox import responses
from sandbox.responses import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sandbox.request import Request


def _in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


FORMS: Mapping[str, Callable[[str], str]] = {
    "plain": str,
    "upper": str.upper,
    "lower": str.lower,
    "quoted": lambda text: quote(text, safe=""),
    "quoted plus": quote_plus,
    "quoted whole": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "json": lambda text: json.dumps(text)[1:-1],
    "json whole": lambda text: "".join(f"\\u{ord(c):04X}" for c in text if c <= "\uffff"),
    "html": html.escape,
    "html whole": lambda text: "".join(f"&#x{ord(c):x};" for c in text),
    "base64": _in_base64,
    "base64 url": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    # Many systems drop these invisible characters.
    "zero width": "\u200b".join,
    "null": "\0".join,
}
"""The forms in which a text is quoted; several can be applied one after another."""


def _truto(text: str, status: int = 400) -> Response:
    return responses.truto_error(status, text)


def _vendor(raw_response: Any, status: int = 422) -> Response:
    return responses.vendor_error(status, "", raw_response=raw_response)


def _scopes(text: str) -> Response:
    value = {"missing_scopes": [text, text[:30]]}
    insight = responses.insight("forbidden_error", "", value)
    return responses.vendor_error(403, "", raw_response="", insight=insight)


def _plain(text: str, status: int, content_type: str) -> Response:
    content = text.encode(errors="replace")
    return Response(status, content, {}, content_type)


def _header(text: str, status: int, name: str) -> Response:
    value = "".join(c for c in text if c.isprintable())
    return replace(_truto("See the header", status), headers={name: value})


PLACES: Mapping[str, Callable[[str], Response]] = {
    "message": _truto,
    "refusal": lambda text: _truto(text, 401),
    "denial": lambda text: _truto(text, 403),
    "absence": lambda text: _truto(text, 404),
    "limit": lambda text: _truto(text, 429),
    "block": lambda text: _truto(text, 503),
    "vendor": _vendor,
    "vendor failure": lambda text: _vendor(text, 500),
    "detail": lambda text: _vendor({"errors": [{"status": 422, "detail": text}]}),
    "any key": lambda text: _vendor({"request": {"headers": text, "x": [text]}, "y": text}),
    "key": lambda text: _vendor({text: {text: text}}),
    "json text": lambda text: _vendor(json.dumps({"headers": {"x": text}, "message": text})),
    "broken json": lambda text: _vendor(f'was {{"headers": {{"x": {json.dumps(text)}}}, "messag'),
    "scopes": _scopes,
    "gateway": lambda text: _plain(f"<html><b>{html.escape(text)}</b>", 503, "text/html"),
    "gateway text": lambda text: _plain(text, 502, "text/plain"),
    "gateway json": lambda text: Response(403, responses.encode({"message": text})),
    "no json": lambda text: _plain(f"<html>{text}", 200, "text/html"),
    "no list": lambda text: responses.ok({"result": text}),
    "no cursor": lambda text: responses.ok({"result": [], "next_cursor": [text]}),
    "redirect": lambda text: _header(text, 302, "Location"),
    "retry-after": lambda text: _header(text, 429, "Retry-After"),
    "challenge": lambda text: _header(text, 401, "WWW-Authenticate"),
}
"""The places in a response that can quote the text."""


@dataclass(frozen=True)
class Echo:
    """Replaces each response by one that quotes its request.

    Attributes:
        place: The place in the response, one of PLACES; or "described", which keeps the response
            and quotes the request only in an account's last errors and in the model.
        forms: The forms, applied one after another.
        before: The text that comes before the request, in the same forms.
        start: The index of the first quoted character of the result.
        length: The number of quoted characters; None for all of them.
    """

    place: str
    forms: Sequence[str] = ("plain",)
    before: str = ""
    start: int = 0
    length: int | None = None

    def __call__(self, request: Request, response: Response) -> Response:
        """Return the response that quotes the request."""
        text = self.quoted(request)
        if self.place != "described":
            return PLACES[self.place](text)
        content = json.loads(response.body)
        if request.kind == "meta":
            field = {"type": "string", "description": text}
            content["schema"]["properties"].update({"score": field, text: field, f"x{text}": field})
        for account in content.get("result", []) if request.kind == "accounts" else [content]:
            if request.kind in ("account", "accounts"):
                account["last_error"] = text
                account["last_forbidden_error"] = {"resource": text, "missing_scopes": [text]}
        return replace(response, body=responses.encode(content))

    def quoted(self, request: Request) -> str:
        """Return the text that quotes a request."""
        headers = "\r\n".join(f"{name}: {value}" for name, value in request.headers.items())
        values = " ".join(value for _, value in request.query)
        text = f"{self.before}{headers}\r\n{request.method} {request.target} {values}"
        for form in self.forms:
            text = FORMS[form](text)
        return text[self.start :][: self.length]
