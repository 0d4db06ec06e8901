"""LIBERO's own HDF5 files: their layout, written and read."""
