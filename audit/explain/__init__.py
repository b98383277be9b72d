"""Explanations of single decisions by LIME: superpixels, words and characters, named columns.

Promises: the same row, model, background, seed and number of samples give the same body, byte for
byte; every explanation says how well it fits, and one that does not fit gives no reasons.
Must not know: servers, frameworks, the log. A model is a function of a raw batch.
This is the only package of the project that imports lime, scikit-image and scikit-learn.
Read in this order: errors.py, result.py (what comes out), model.py (how a model is asked),
surrogate.py (the regression), image.py, segments.py, text.py, tokens.py, table.py, background.py,
explainer.py (the one entry).
Source: M. T. Ribeiro, S. Singh, C. Guestrin (2016), "Why Should I Trust You?", KDD; lime 0.2.0.1.
"""

from .errors import ExplainError
from .explainer import EXPLAINER_VERSION, explain, seed_for
from .result import Explanation, Feature

__all__ = ["EXPLAINER_VERSION", "ExplainError", "Explanation", "Feature", "explain", "seed_for"]
