"""The models: one folder each, with configuration, modeling and, where there is one, processing and conversion.

Modules beside the folders are what several models share, such as `attention` and `numerics`. Importing any model
registers all of them with transformers' Auto classes.
"""

from . import registration  # noqa: F401
