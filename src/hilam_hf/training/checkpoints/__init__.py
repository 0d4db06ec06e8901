"""Checkpoints of a training run, from which it goes on bit for bit: files, and what they hold."""

from .store import CheckpointStore, checkpoints_in, latest_checkpoint, naming_damage, read_state

__all__ = ["CheckpointStore", "checkpoints_in", "latest_checkpoint", "naming_damage", "read_state"]
