import pytest
import torch

from hilam_hf.data import collate_policy, collate_sequences


def test_sequences_are_padded_on_the_right() -> None:
    batch = collate_sequences([torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])])
    assert batch["latents"].tolist() == [[[1, 2], [0, 0], [0, 0]], [[3, 4], [5, 6], [7, 8]]]
    assert batch["attention_mask"].tolist() == [[True, False, False], [True, True, True]]
    assert batch["attention_mask"].dtype == torch.bool


@pytest.mark.parametrize(
    "sequences",
    [[], [torch.zeros(3)], [torch.zeros(0, 2)], [torch.zeros(2, 3), torch.zeros(2, 4)]],
)
def test_bad_sequences(sequences: list[torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="collate_sequences: got"):
        collate_sequences(sequences)


def test_policy_samples_must_agree() -> None:
    sample = {"pixels": {"a": torch.zeros(3, 2, 2)}, "language": "x", "index": 0}
    batch = collate_policy([sample, sample])
    assert batch["pixels"]["a"].shape == (2, 3, 2, 2) and batch["language"] == ["x", "x"]
    assert batch["index"].dtype == torch.int64
    with pytest.raises(ValueError, match="no samples"):
        collate_policy([])
    with pytest.raises(ValueError, match="differ in their keys"):
        collate_policy([sample, sample | {"skill": torch.zeros(2)}])
    with pytest.raises(ValueError, match="differ in their keys"):
        collate_policy([sample, sample | {"pixels": {"b": torch.zeros(3, 2, 2)}}])
    with pytest.raises(ValueError, match=r"pixels\.a: got shapes"):
        collate_policy([sample, sample | {"pixels": {"a": torch.zeros(3, 4, 4)}}])
