"""From a file, a folder or an address that somebody else made to a version in the registry.

Promises: nothing enters that was not loaded, run and checked on this machine; a model whose rows
might know of one another is marked so that no two requests ever meet in it.
Must not know: the command line, HTTP of ours, experiments, the log.
Heavy packages (onnx, torch, tensorflow) are imported by the reader that needs them.

Read in this order: draft.py (what a reader finds), onnx.py, torch.py, tensorflow.py, remote.py (the
readers), sniff.py (which of them), example.py (inputs to try), probe.py (do rows meet), look.py
(what running it shows), register.py (the whole way).
"""

__all__: list[str] = []
