"""Identity of weights and of data."""

import hashlib
from types import SimpleNamespace

import pytest
import torch

from hilam_hf.fingerprint import data_fingerprint, weights_fingerprint
from tests.evaluation.rollouts.test_scheduler import baku_policy


def test_fingerprint_tells_weights_apart():
    policy, same = baku_policy(), baku_policy()
    assert weights_fingerprint(policy) == weights_fingerprint(same)
    with torch.no_grad():
        same.model.action_token[0] += 1e-6
    assert weights_fingerprint(policy) != weights_fingerprint(same)
    assert weights_fingerprint(baku_policy().bfloat16()) != weights_fingerprint(policy)
    assert weights_fingerprint(SimpleNamespace()) is None


def test_weights_are_hashed_by_name_type_shape_and_values() -> None:
    layer = torch.nn.Linear(1, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0], [2.0]])
    # Little-endian float32.
    expected = b"weight torch.float32 (2, 1)" + bytes.fromhex("0000803f00000040")
    assert weights_fingerprint(layer) == hashlib.sha256(expected).hexdigest()[:16]


def test_data_are_hashed_by_kind_length_and_content() -> None:
    values = torch.tensor([1, 2], dtype=torch.uint8)
    expected = b'json 5 ["a"]' + b"tensor torch.uint8 (2,)" + bytes([1, 2])
    assert data_fingerprint(["a"], values) == hashlib.sha256(expected).hexdigest()[:16]


def test_no_two_data_look_alike() -> None:
    numbers = torch.arange(4)
    different = [
        (),
        (None,),
        (["a", "b"],),
        (["b", "a"],),
        (["a"], ["b"]),
        ("a", "b"),
        ("ab",),
        (1,),
        (1.0,),
        ({"x": 1, "y": [2]},),
        (numbers,),
        (numbers.tolist(),),
        (numbers.float(),),
        (numbers[None],),
        (numbers[:2], numbers[2:]),
        (numbers.flip(0),),
    ]
    assert len({data_fingerprint(*parts) for parts in different}) == len(different)
    assert data_fingerprint({"y": [2], "x": 1}) == data_fingerprint({"x": 1, "y": (2,)})
    assert data_fingerprint(torch.arange(8)[::2]) == data_fingerprint(torch.tensor([0, 2, 4, 6]))
    with pytest.raises(TypeError):
        data_fingerprint(object())
