"""Experiments: which unit gets which arm, and what the outcomes say.

Promises: an assignment is a pure function of a definition and a unit, the same in every
process and recomputable from the record alone; statistics stay valid however often one looks.
Must not know: servers, tracers, model frameworks, the audit log, clocks, random sources.
Read in this order: errors.py, definition.py (the values), ranges.py (buckets from weights),
lines.py and schema.py (YAML with line numbers, its shape), plan.py (files to a snapshot),
assign.py (unit to arm), outcomes.py (joining), srm.py, sequential.py, estimate.py.
"""

from .assign import Assignment, assign, slot_of
from .definition import Arm, Definition, Range
from .errors import DefinitionError, ExperimentError, Fault, InputError, UnitError
from .plan import Snapshot, load, load_folder

__all__ = [
    "Arm",
    "Assignment",
    "Definition",
    "DefinitionError",
    "ExperimentError",
    "Fault",
    "InputError",
    "Range",
    "Snapshot",
    "UnitError",
    "assign",
    "load",
    "load_folder",
    "slot_of",
]
