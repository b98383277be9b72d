"""The page at `/`: where to look, in plain HTML, without scripts or a network.

Rule: BentoML's own page at this address loads scripts from elsewhere, which a gateway for audited
decisions should not make a reviewer's browser do; its machine-readable `/docs.json` stays.
A client that does not ask for HTML gets `{"status": "alive"}`, which is how KServe's V1 client asks
whether the server lives.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["front_page"]

_LINKS = (
    ("/v2", "server metadata"),
    ("/v2/models", "models"),
    ("/v2/health/ready", "readiness"),
    ("/v1/experiments", "experiments in force"),
    ("/metrics", "Prometheus figures"),
    ("/v2/openapi.json", "OpenAPI 3.1 description of all of it"),
    ("/docs.json", "BentoML's own description of the native endpoints"),
)
_ROWS = "".join(f'<tr><td><a href="{p}">{p}</a></td><td>{what}</td></tr>' for p, what in _LINKS)
_PAGE = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Weighbridge</title>
<style>body{{font:16px/1.6 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem}}
td{{padding:.2rem 1.5rem .2rem 0}}</style>
<h1>Weighbridge</h1>
<p>Every model decision that crosses this gateway is routed, answered and recorded.</p>
<table>{_ROWS}</table>
<p>On the server: <code>weighbridge audit verify</code>, <code>weighbridge report</code>.</p>
</html>
""".encode()
_HEADERS = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-length", str(len(_PAGE)).encode()),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
]
_ALIVE = b'{"status":"alive"}'
_ALIVE_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_ALIVE)).encode()),
]
_REFUSED = b'{"error":"no such verb on this path"}'
_REFUSED_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_REFUSED)).encode()),
    (b"allow", b"GET, HEAD"),
]
Message = MutableMapping[str, Any]


async def front_page(scope: Message, send: Callable[[Message], Awaitable[None]]) -> None:
    """Answer GET and HEAD with the page, or with a sign of life; 405 to other methods."""
    if scope["method"] not in ("GET", "HEAD"):
        await send({"type": "http.response.start", "status": 405, "headers": _REFUSED_HEADERS})
        await send({"type": "http.response.body", "body": _REFUSED})
        return
    asked = b",".join(value for name, value in scope["headers"] if name == b"accept")
    html = b"text/html" in asked
    head, body = (_HEADERS, _PAGE) if html else (_ALIVE_HEADERS, _ALIVE)
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
