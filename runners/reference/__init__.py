"""Our own models: real data, four tasks, two versions each, trained in minutes on two cores.

Promises: the served signature is what a caller has in hand; the same `Pipeline` stands before the
network in training, serving, explaining and replay; a version enters the registry only after its
ONNX form agreed with the framework on held-out rows.
Must not know: services, experiments, the audit log. Keys, folders and the console are arguments.
Importing this package or catalog.py loads no framework; train.py does.

Read in this order: task.py (what a task is), packages.py (where data comes from), digits.py,
sentiment.py, income.py, recommend.py (the tasks), catalog.py (all of them), networks.py and
fit.py (PyTorch), keras_child.py (TensorFlow), evaluation.py, export.py, train.py (the entry).
"""

from . import waiting as waiting  # first: see there
from .catalog import TASKS, heldout

__all__ = ["TASKS", "heldout"]
