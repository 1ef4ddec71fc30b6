"""Reads and checks the models directory: metadata only, no model is loaded and no code of a model runs."""

from forebay.catalog.catalog import Catalog
from forebay.catalog.reading import read_models

__all__ = ["Catalog", "read_models"]
