"""Models that answer: load one version, check it, warm it up, batch for it.

Promises: a model answers only after every byte of its artefact matched its signed manifest and a
warm-up ran; batch peers share nothing but the arithmetic; the device that served is reported.
Must not know: experiments, the audit log, HTTP, gRPC or tracing. A deadline is a number.

Read in this order: tensor.py (what travels), model.py (the seam), pipeline.py (raw input to
network input), manifest.py and registry.py (what is held), backends.py (which backend), onnx.py,
torch.py, tensorflow.py and remote.py (the backends), batchqueue.py and batch.py (many callers, one
session), frames.py and link.py (a model in another process), intake/ (models of others), reference/
(our own models).
"""

__all__: list[str] = []
