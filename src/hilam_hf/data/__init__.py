"""Videos and episodes in, corpora and training samples out."""

from ..video import VIDEO_EXTENSIONS, VideoError, VideoInfo, VideoReader, check_video, resize_frames, write_video
from ..video.orientation import orient_frames
from .corpora.corpus import (
    CorpusStatistics,
    corpus_statistics,
    latent_actions_array,
    load_corpus,
    unfold_skills,
    unpack_boundaries,
    vectors_array,
    write_latent_action_corpus,
    write_skill_corpus,
)
from .corpora.info import CorpusInfo, dataset_card
from .corpora.writer import CorpusWriter
from .demonstrations.demonstration import RobotDemonstration, RobotEpisode, episode_id
from .demonstrations.lerobot_reader import read_lerobot
from .demonstrations.lerobot_writer import LeRobotWriter
from .demonstrations.libero_hdf5 import LiberoHdf5Writer, read_libero_demonstration, read_libero_hdf5
from .demonstrations.loader import RobotDemonstrations, load_robot_demonstrations, robot_phases, write_videos
from .demonstrations.phases import latent_phases, load_phases, phase_boundaries, smooth_phases
from .demonstrations.video_recording import DemonstrationWriter, load_demonstrations
from .episodes import Episode, RejectedVideo, VideoFolder, resolve_stride, scan_videos, split_episodes
from .samples.collate import collate_policy, collate_sequences
from .samples.frame_pairs import FramePairDataset, load_episode_frames
from .samples.frame_store import FrameStore, VideoSource
from .samples.policy import PolicyDataset, PolicyEpisode

__all__ = [
    "VIDEO_EXTENSIONS",
    "CorpusInfo",
    "CorpusStatistics",
    "CorpusWriter",
    "DemonstrationWriter",
    "Episode",
    "FramePairDataset",
    "FrameStore",
    "LeRobotWriter",
    "LiberoHdf5Writer",
    "PolicyDataset",
    "PolicyEpisode",
    "RejectedVideo",
    "RobotDemonstration",
    "RobotDemonstrations",
    "RobotEpisode",
    "VideoError",
    "VideoFolder",
    "VideoInfo",
    "VideoReader",
    "VideoSource",
    "check_video",
    "collate_policy",
    "collate_sequences",
    "corpus_statistics",
    "dataset_card",
    "episode_id",
    "latent_actions_array",
    "latent_phases",
    "load_corpus",
    "load_demonstrations",
    "load_episode_frames",
    "load_phases",
    "load_robot_demonstrations",
    "orient_frames",
    "phase_boundaries",
    "read_lerobot",
    "read_libero_demonstration",
    "read_libero_hdf5",
    "resize_frames",
    "resolve_stride",
    "robot_phases",
    "scan_videos",
    "smooth_phases",
    "split_episodes",
    "unfold_skills",
    "unpack_boundaries",
    "vectors_array",
    "write_latent_action_corpus",
    "write_skill_corpus",
    "write_video",
    "write_videos",
]
