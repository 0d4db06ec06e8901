"""Mamba2 layers: settings, the selective scan, and the layer that runs padded, packed or step by step."""
