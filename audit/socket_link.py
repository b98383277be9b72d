"""Appending from other processes and machines: the two ends of the link.

A gateway's own helpers use the Unix socket, which is private to its user; other machines use TCP
with certificates on both sides. Both speak the frames of wire.py.
Read next: link_server.py (the notary's end), link_client.py (the other).
"""

from .link_client import NotaryClient
from .link_server import NotaryServer, serve, serve_tcp

__all__ = ["NotaryClient", "NotaryServer", "serve", "serve_tcp"]
