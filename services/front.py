"""The page at `/`: where to look, in plain HTML, without scripts or a network.

Rule: BentoML's own page at this address loads scripts from elsewhere, which a gateway for audited
decisions should not make a reviewer's browser do; its machine-readable `/docs.json` stays.
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
Message = MutableMapping[str, Any]


async def front_page(send: Callable[[Message], Awaitable[None]], method: str) -> None:
    """Answer GET and HEAD with the page."""
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else _PAGE})
