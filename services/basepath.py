"""The path that a proxy leaves in front of every other, taken off before anybody looks.

Source: ASGI 3, HTTP connection scope (`path`, `root_path`); docs/protocol.md, "Base path".
Rule: this stands outermost, before any gate that judges a call by its path: otherwise one path
would be judged and another one served.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from .connection import Message, Receive

__all__ = ["BasePath", "without_base"]

Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def without_base(scope: Message, base: str) -> Message:
    """The scope with its path as if no proxy stood in front.

    `base` is the setting; an ASGI `root_path` counts the same. A path without them stays as it is.
    """
    path: str = scope["path"]
    for prefix in (scope.get("root_path") or "", base):
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            path = path[len(prefix) :] or "/"
    if path == scope["path"]:
        return scope
    stripped = {**scope, "path": path, "root_path": ""}
    stripped.pop("raw_path", None)
    return stripped


class BasePath:
    """An application that is asked as if no proxy stood in front of it."""

    def __init__(self, app: App, *, base: str) -> None:
        """`base` is a path such as `/ml/gateway`, or empty."""
        self._app = app
        self._base = base

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass one call on."""
        if scope["type"] == "http" and (self._base or scope.get("root_path")):
            scope = without_base(scope, self._base)
        await self._app(scope, receive, send)
