"""Identity of weights."""

from types import SimpleNamespace

import torch

from hilam_hf.fingerprint import weights_fingerprint
from tests.evaluation.rollouts.test_scheduler import baku_policy


def test_fingerprint_tells_weights_apart():
    policy, same = baku_policy(), baku_policy()
    assert weights_fingerprint(policy) == weights_fingerprint(same)
    with torch.no_grad():
        same.model.action_token[0] += 1e-6
    assert weights_fingerprint(policy) != weights_fingerprint(same)
    assert weights_fingerprint(baku_policy().bfloat16()) != weights_fingerprint(policy)
    assert weights_fingerprint(SimpleNamespace()) is None
