"""The doors and the wiring: bytes in, one decision through every room, bytes out.

Promises: HTTP, gRPC and native calls go through the same `dataplane.DataPlane`; only this package
knows BentoML, gRPC and OpenTelemetry; it alone translates one room's values into another's.
Must not know: how a model computes, how a slot is drawn, how a leaf is hashed.

Read in this order: dataplane.py (one decision), router.py (which version), codec.py and http.py
(HTTP), rpc.py (gRPC), faults.py (refusals on the wire), telemetry.py (traces), wiring.py (what is
built from settings.py), gateway.py, runners.py and explainer.py (the BentoML services), cli.py.
"""

__all__: list[str] = []
