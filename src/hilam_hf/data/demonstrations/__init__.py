"""Recordings with actions, whatever format they lie in."""
