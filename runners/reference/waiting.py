"""How PyTorch's threads wait for one another: asleep, not spinning.

Imported before anything else of this package, because OpenMP reads the environment once, when
torch is loaded. Spinning, two trainings at once on two cores took 157 s for what takes each of them
9 s asleep; a lone one loses little. A setting of the user's own wins.
"""

import os

__all__: list[str] = []

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
