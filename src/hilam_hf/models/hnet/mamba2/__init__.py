"""Mamba2: the selective scan, and the layer that runs packed or step by step."""
