"""The models: one folder each, with configuration, modeling and, where there is one, processing and conversion.

Importing any of them registers all of them with transformers' Auto classes.
"""

from . import registration  # noqa: F401
