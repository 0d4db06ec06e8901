"""The hierarchical policy: pi^h predicts latent skills, pi^l acts on them (paper section 3.3)."""

from .configuration_hierarchical import HierarchicalPolicyConfig
from .modeling_hierarchical import HierarchicalPolicy, HierarchicalPolicyOutput

__all__ = ["HierarchicalPolicy", "HierarchicalPolicyConfig", "HierarchicalPolicyOutput"]
