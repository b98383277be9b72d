"""Who may do what, over which wire, how much.

Promises: with authentication on, no call reaches an endpoint without the role that it needs, over
HTTP and gRPC alike, and a refused call's body is not read; credentials are kept hashed or not at
all, and stand in no log, reply, trace or record. With everything off it costs nothing.
Must not know: models, experiments, records. It reads headers and paths, never bodies.
Read in this order: principal.py (who), needs.py (what a call needs), credential.py, apikeys.py and
keybook.py, jwks.py and tokens.py (how a caller proves who it is), limits.py (how much), guard.py
(all of it in one question), gate.py and rpcgate.py (who asks: HTTP and gRPC), tls.py (the wire),
checks.py (what is refused before the start).
"""

__all__: list[str] = []
