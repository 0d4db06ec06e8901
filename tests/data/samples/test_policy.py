import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hilam_hf.data import (
    CorpusInfo,
    LiberoHdf5Writer,
    PolicyDataset,
    VideoRecordingWriter,
    collate_policy,
    load_corpus,
    load_demonstrations,
    scan_videos,
    write_skill_corpus,
)
from hilam_hf.data.samples.frame_store import FrameStore
from hilam_hf.metaworld_conventions import SAWYER
from hilam_hf.video.video_file import write_video
from tests.numbered_videos import MakeVideo, frame_numbers, numbered_frames
from tests.robot_recordings import demonstration, read_pictures, small_demonstration

STRIDE = 2


@pytest.fixture
def episodes(tmp_path: Path, make_video: MakeVideo):
    make_video("a.mp4", num_frames=8)
    make_video("b.mp4", num_frames=5)
    make_video("unused.mp4", num_frames=4)
    return scan_videos(tmp_path / "videos", progress=False).episodes


@pytest.fixture
def corpus(tmp_path: Path):
    def row(name: str, num_frames: int, boundaries: list[int], **extra) -> dict:
        num_latents = num_frames - STRIDE
        return {
            "id": name,
            "fps": 10,
            "num_frames": num_frames,
            "latent_actions": np.arange(num_latents)[:, None] + np.array([0.0, 0.5]),
            "stage1_boundaries": np.ones(num_latents, dtype=bool),
            "stage1_skills": np.zeros((num_latents, 3)),
            "stage2_boundaries": np.array(boundaries, dtype=bool),
            "stage2_skills": 100.0 * np.arange(1, sum(boundaries) + 1)[:, None].repeat(4, axis=1),
            **extra,
        }

    # The corpus has its own order, unlike the folder's.
    rows = [row("b", 5, [1, 0, 1], language="close it"), row("a", 8, [1, 0, 0, 1, 0, 0])]
    write_skill_corpus(tmp_path / "corpus", rows, info=CorpusInfo(model="m", latent_dim=2, stride=STRIDE))
    return load_corpus(tmp_path / "corpus", cache_dir=tmp_path / "arrow")


@pytest.mark.parametrize("cache_bytes", [10**9, 0])
def test_samples_of_a_skill_corpus(corpus, episodes, cache_bytes: int) -> None:
    dataset = PolicyDataset.from_skill_corpus(
        corpus, episodes, 16, 2, camera="front", cache_bytes=cache_bytes, progress=False
    )
    samples = [dataset[i] for i in range(len(dataset))]
    assert dataset.store.in_memory == (cache_bytes > 0)
    assert [(s["episode"], s["index"]) for s in samples] == [(0, t) for t in range(3)] + [(1, t) for t in range(6)]
    assert frame_numbers(torch.stack([s["pixels"]["front"] for s in samples])) == [0, 1, 2, 0, 1, 2, 3, 4, 5]
    assert [s["skill"][0].item() for s in samples] == [100, 100, 200, 100, 100, 100, 200, 200, 200]
    assert [s["latent_action"].tolist() for s in samples[:2]] == [[0.0, 0.5], [1.0, 1.5]]
    assert [s["language"] for s in samples] == ["close it"] * 3 + [""] * 6
    assert dataset.instructions == ["", "close it"]
    assert set(samples[0]) == {"pixels", "language", "id", "episode", "index", "latent_action", "skill"}
    assert samples[0]["skill"].shape == (4,) and samples[0]["skill"].dtype == torch.float32


def test_codes_become_their_vectors(tmp_path: Path, episodes) -> None:
    row = {
        "id": "b",
        "fps": 10,
        "num_frames": 5,
        "latent_actions": np.array([[0, 1], [1, 1], [1, 0]]),
        "stage1_boundaries": np.ones(3, dtype=bool),
        "stage1_skills": np.zeros((3, 4)),
    }
    info = CorpusInfo(model="m", latent_dim=2, stride=STRIDE, codebook=[[0.0, 0.5], [7.0, 8.0]])
    write_skill_corpus(tmp_path / "codes", [row], info=info)
    table = load_corpus(tmp_path / "codes", cache_dir=tmp_path / "arrow")
    dataset = PolicyDataset.from_skill_corpus(table, episodes, 16, 1, info=info, progress=False)
    expected = [[0.0, 0.5, 7.0, 8.0], [7.0, 8.0, 7.0, 8.0], [7.0, 8.0, 0.0, 0.5]]
    assert [dataset[index]["latent_action"].tolist() for index in range(3)] == expected
    with pytest.raises(ValueError, match="latent actions are codes: pass info"):
        PolicyDataset.from_skill_corpus(table, episodes, 16, 1, progress=False)


def test_frames_follow_the_indices_of_the_corpus(tmp_path: Path, episodes) -> None:
    row = {
        "id": "a",
        "fps": 10,
        "num_frames": 8,
        "latent_actions": np.zeros((2, 2)),
        "frame_indices": [1, 5],
        "stage1_boundaries": [True, False],
        "stage1_skills": np.zeros((1, 3)),
    }
    write_skill_corpus(tmp_path / "c", [row], info=CorpusInfo(model="m", latent_dim=2, stride=STRIDE))
    corpus = load_corpus(tmp_path / "c", cache_dir=tmp_path / "arrow")
    dataset = PolicyDataset.from_skill_corpus(corpus, episodes, 16, stage=1, progress=False)
    assert frame_numbers(torch.stack([dataset[i]["pixels"]["pixels"] for i in range(2)])) == [1, 5]


def test_corpus_and_videos_must_fit(corpus, episodes) -> None:
    with pytest.raises(ValueError, match="1 of 2 episodes of the corpus have no video, for one 'b'"):
        PolicyDataset.from_skill_corpus(corpus, [e for e in episodes if e.id != "b"], 16, progress=False)
    with pytest.raises(ValueError, match="stage 3: not in the corpus"):
        PolicyDataset.from_skill_corpus(corpus, episodes, 16, stage=3, progress=False)


@pytest.fixture
def demonstrations(tmp_path: Path) -> Path:
    robot = replace(
        SAWYER,
        action_dim=2,
        action_names=(),
        action_range=None,
        proprioception={"counter": 3, "ee_positions": 3},
        layouts={"counter": ("counter",)},
    )
    with VideoRecordingWriter(tmp_path / "demos") as writer:
        for number, length in enumerate((4, 3)):
            steps = np.arange(length)[:, None]
            writer.add(
                small_demonstration(
                    f"task/e{number}",
                    length,
                    language=f"do {number}",
                    robot=robot,
                    actions=steps + np.array([0.0, 10.0]) + 100 * number,
                    proprioception={"counter": steps * np.ones(3), "ee_positions": np.zeros((length, 3))},
                )
            )
    return tmp_path / "demos"


def from_demonstrations(root: Path, **options) -> PolicyDataset:
    return PolicyDataset.from_demonstrations(load_demonstrations(root), 16, progress=False, **options)


def test_samples_of_demonstrations(demonstrations: Path) -> None:
    dataset = from_demonstrations(demonstrations, chunk_size=3)
    samples = [dataset[i] for i in range(len(dataset))]
    assert frame_numbers(torch.stack([s["pixels"]["corner2"] for s in samples])) == [0, 1, 2, 3, 0, 1, 2]
    assert [s["actions"][:, 0].tolist() for s in samples] == [
        [0, 1, 2],
        [1, 2, 3],
        [2, 3, 3],
        [3, 3, 3],
        [100, 101, 102],
        [101, 102, 102],
        [102, 102, 102],
    ]
    assert [s["action_mask"].tolist() for s in samples[:4]] == [
        [True, True, True],
        [True, True, True],
        [True, True, False],
        [True, False, False],
    ]
    assert samples[2]["agent_pos"].tolist() == [2, 2, 2] and samples[2]["actions"].shape == (3, 2)
    assert [s["language"] for s in samples] == ["do 0"] * 4 + ["do 1"] * 3
    assert set(samples[0]) == {"pixels", "language", "id", "episode", "index", "agent_pos", "actions", "action_mask"}


def test_chunk_longer_than_the_episode(demonstrations: Path) -> None:
    sample = from_demonstrations(demonstrations, chunk_size=10)[4]
    assert sample["action_mask"].tolist() == [True] * 3 + [False] * 7
    assert sample["actions"][3:, 0].tolist() == [102] * 7


def test_policy_data_errors(demonstrations: Path) -> None:
    with pytest.raises(ValueError, match="chunk_size: got 0"):
        from_demonstrations(demonstrations, chunk_size=0)
    dataset = from_demonstrations(demonstrations, chunk_size=2)
    for item in (-1, 7):
        with pytest.raises(IndexError):
            dataset[item]
    (demonstrations / "videos/task/e0.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=r"e0\.mp4"):
        from_demonstrations(demonstrations, chunk_size=2)


def test_batches(demonstrations: Path) -> None:
    loader = DataLoader(from_demonstrations(demonstrations, chunk_size=2), batch_size=5, collate_fn=collate_policy)
    first, last = loader
    assert first["pixels"]["corner2"].shape == (5, 3, 16, 16) and first["pixels"]["corner2"].dtype == torch.uint8
    assert first["language"] == ["do 0"] * 4 + ["do 1"]
    assert first["actions"].shape == (5, 2, 2) and first["action_mask"].dtype == torch.bool
    assert first["agent_pos"].shape == (5, 3)
    assert first["episode"].tolist() == [0, 0, 0, 0, 1] and last["index"].tolist() == [1, 2]


@pytest.fixture
def robot(tmp_path: Path):
    with LiberoHdf5Writer(tmp_path / "robot") as writer:
        for seed, length in enumerate((4, 3)):
            writer.add(demonstration(length, seed, task=f"t{seed}", language=f"do {seed}", phases=None))
    return load_demonstrations(tmp_path / "robot")


@pytest.mark.parametrize("cache_bytes", [10**9, 0])
def test_samples_of_robots_have_every_camera(robot, cache_bytes: int) -> None:
    dataset = PolicyDataset.from_demonstrations(
        robot, (32, 48), 3, camera_names={"agentview": "pixels"}, cache_bytes=cache_bytes, progress=False
    )
    assert all(store.in_memory == (cache_bytes > 0) for store in dataset.stores.values())
    assert dataset.cameras == ["pixels", "robot0_eye_in_hand"] and dataset.instructions == ["do 0", "do 1"]
    samples = [dataset[index] for index in range(len(dataset))]
    for camera, start in (("pixels", 0), ("robot0_eye_in_hand", 20)):
        frames = torch.stack([sample["pixels"][camera] for sample in samples]).permute(0, 2, 3, 1).numpy()
        assert read_pictures(frames) == ([start + t for t in (0, 1, 2, 3, 0, 1, 2)], [3, 2, 1, 0])
    expected = demonstration(3, 1)
    last = samples[5]
    np.testing.assert_array_equal(last["actions"], expected.actions[[1, 2, 2]].astype(np.float32))
    assert last["action_mask"].tolist() == [True, True, False] and last["agent_pos"].shape == (8,)
    np.testing.assert_array_equal(last["agent_pos"][:3], expected.proprioception["ee_positions"][1].astype(np.float32))
    assert (last["language"], last["episode"], last["index"]) == ("do 1", 1, 1)


def test_budget_is_shared_by_cameras(robot) -> None:
    needed = 2 * 7 * 3 * 16 * 16
    for cache_bytes, in_memory in ((needed, True), (needed - 2, False)):
        dataset = PolicyDataset.from_demonstrations(robot, 16, 1, cache_bytes=cache_bytes, progress=False)
        assert [store.in_memory for store in dataset.stores.values()] == [in_memory] * 2


def test_batches_of_several_cameras(robot) -> None:
    dataset = PolicyDataset.from_demonstrations(robot, 16, 2, cache_bytes=0, progress=False)
    loader = DataLoader(dataset, batch_size=7, collate_fn=collate_policy, num_workers=2)
    (batch,) = loader
    assert {name: tuple(frames.shape) for name, frames in batch["pixels"].items()} == {
        "agentview": (7, 3, 16, 16),
        "robot0_eye_in_hand": (7, 3, 16, 16),
    }
    assert batch["actions"].shape == (7, 2, 7) and batch["language"][-1] == "do 1"


def test_cameras_that_cannot_be_renamed(robot) -> None:
    for names in ({"front": "pixels"}, {"agentview": "robot0_eye_in_hand"}):
        with pytest.raises(ValueError, match=r"camera_names: got .*, expected different names for"):
            PolicyDataset.from_demonstrations(robot, 16, 1, camera_names=names, progress=False)
    with pytest.raises(ValueError, match="chunk_size: got 0"):
        PolicyDataset.from_demonstrations(robot, 16, 0, progress=False)


def test_the_fingerprint_of_a_skill_corpus_follows_labels_and_videos(corpus, episodes, tmp_path: Path) -> None:
    def told(table=corpus, found=episodes, size: int = 16, stage: int = 2, **options) -> str:
        return PolicyDataset.from_skill_corpus(table, found, size, stage, progress=False, **options).fingerprint()

    shutil.copytree(tmp_path / "videos", tmp_path / "copy")
    copied = scan_videos(tmp_path / "copy", progress=False).episodes
    assert told() == told(found=copied, cache_bytes=0)
    write_video(tmp_path / "copy" / "a.mp4", 255 - numbered_frames(8), 10)
    others = [
        told(table=corpus.select([1, 0])),
        told(table=corpus.select([0])),
        told(size=24),
        told(stage=1),
        told(camera="front"),
        told(found=copied),
    ]
    assert len({told(), *others}) == 7


def test_the_fingerprint_of_demonstrations_follows_every_label(demonstrations: Path) -> None:
    dataset = from_demonstrations(demonstrations, chunk_size=3)
    told = dataset.fingerprint()
    assert from_demonstrations(demonstrations, chunk_size=3).fingerprint() == told
    first, second = dataset.episodes
    changed = [
        replace(first, id="other"),
        replace(first, language="do it"),
        replace(first, frame_indices=first.frame_indices.flip(0)),
        replace(first, agent_pos=first.agent_pos + 1e-6),
        replace(first, actions=first.actions + 1e-6),
        replace(first, agent_pos=None),
        # The same numbers as another label.
        replace(first, actions=None, latent_actions=first.actions),
    ]
    others = [PolicyDataset([each, second], dataset.stores, chunk_size=3) for each in changed]
    others.append(from_demonstrations(demonstrations, chunk_size=2))
    others.append(from_demonstrations(demonstrations, chunk_size=3, camera_names={"corner2": "front"}))
    assert len({told, *(other.fingerprint() for other in others)}) == len(others) + 1


def test_a_sample_is_named_by_episode_and_frame(corpus, episodes, demonstrations: Path) -> None:
    dataset = from_demonstrations(demonstrations, chunk_size=3)
    assert [dataset.sample_id(row) for row in (0, 3, 4)] == ["task/e0, frame 0", "task/e0, frame 3", "task/e1, frame 0"]
    with pytest.raises(IndexError, match=r"item 7 is outside 0\.\.6"):
        dataset.sample_id(7)
    skills = PolicyDataset.from_skill_corpus(corpus, episodes, 16, progress=False)
    assert [skills.sample_id(row) for row in (2, 3)] == ["b, frame 2", "a, frame 0"]


def test_whole_episodes_are_held_out_by_their_ids(corpus, episodes, monkeypatch: pytest.MonkeyPatch) -> None:
    # The SHA-256 of "b" begins with 0x3e, that of "a" with 0xca.
    dataset = PolicyDataset.from_skill_corpus(corpus, episodes, 16, progress=False)
    monkeypatch.setattr(FrameStore, "_decode_all", lambda *options: pytest.fail("decoded a second time"))
    training, held_out = dataset.split(0.5)
    assert (dataset.episode_ids, training.episode_ids, held_out.episode_ids) == (["b", "a"], ["a"], ["b"])
    assert frame_numbers(torch.stack([held_out[t]["pixels"]["pixels"] for t in range(3)])) == [0, 1, 2]
    assert (len(training), training.instructions, held_out.instructions) == (6, [""], ["close it"])
    for index in range(6):
        whole, part = dataset[3 + index], training[index]
        assert torch.equal(part["pixels"]["pixels"], whole["pixels"]["pixels"])
        assert torch.equal(part["skill"], whole["skill"]) and part["index"] == whole["index"]
    with pytest.raises(ValueError, match="holds out none of 2 episodes"):
        dataset.split(0.1)
