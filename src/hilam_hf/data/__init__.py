"""Videos and episodes in, corpora and training samples out.

Names are imported when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import import_when_used

if TYPE_CHECKING:
    from ..recorded import DemonstrationWriter, RecordedDemonstration, episode_id
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
    from .demonstrations.demonstration import Demonstration, DemonstrationFormat
    from .demonstrations.formats import demonstration_formats, register_format, unregister_format
    from .demonstrations.lerobot.reader import read_lerobot
    from .demonstrations.lerobot.writer import LeRobotWriter
    from .demonstrations.libero.reader import read_libero_demonstration, read_libero_hdf5
    from .demonstrations.libero.writer import LiberoHdf5Writer
    from .demonstrations.loader import Demonstrations, load_demonstrations
    from .demonstrations.phases import demonstration_phases, latent_phases, phase_boundaries, smooth_phases
    from .demonstrations.video_recording import VideoRecordingWriter, read_video_recording
    from .demonstrations.videos import write_videos
    from .episodes import (
        Episode,
        RejectedVideo,
        VideoFolder,
        held_out_rows,
        possible_fraction,
        resolve_stride,
        scan_videos,
        split_episodes,
    )
    from .samples.collate import collate_policy, collate_sequences
    from .samples.frame_pairs import FramePairDataset, load_episode_frames
    from .samples.frame_store import FrameStore, VideoSource
    from .samples.policy import PolicyDataset, PolicyEpisode

_MODULES = {
    "CorpusInfo": "corpora.info",
    "CorpusStatistics": "corpora.corpus",
    "CorpusWriter": "corpora.writer",
    "Demonstration": "demonstrations.demonstration",
    "DemonstrationFormat": "demonstrations.demonstration",
    "DemonstrationWriter": ".recorded",
    "Demonstrations": "demonstrations.loader",
    "Episode": "episodes",
    "FramePairDataset": "samples.frame_pairs",
    "FrameStore": "samples.frame_store",
    "LeRobotWriter": "demonstrations.lerobot.writer",
    "LiberoHdf5Writer": "demonstrations.libero.writer",
    "PolicyDataset": "samples.policy",
    "PolicyEpisode": "samples.policy",
    "RecordedDemonstration": ".recorded",
    "RejectedVideo": "episodes",
    "VIDEO_EXTENSIONS": ".video",
    "VideoError": ".video",
    "VideoFolder": "episodes",
    "VideoInfo": ".video",
    "VideoReader": ".video",
    "VideoRecordingWriter": "demonstrations.video_recording",
    "VideoSource": "samples.frame_store",
    "check_video": ".video",
    "collate_policy": "samples.collate",
    "collate_sequences": "samples.collate",
    "corpus_statistics": "corpora.corpus",
    "dataset_card": "corpora.info",
    "demonstration_formats": "demonstrations.formats",
    "demonstration_phases": "demonstrations.phases",
    "episode_id": ".recorded",
    "held_out_rows": "episodes",
    "latent_actions_array": "corpora.corpus",
    "latent_phases": "demonstrations.phases",
    "load_corpus": "corpora.corpus",
    "load_demonstrations": "demonstrations.loader",
    "load_episode_frames": "samples.frame_pairs",
    "orient_frames": ".video.orientation",
    "phase_boundaries": "demonstrations.phases",
    "possible_fraction": "episodes",
    "read_lerobot": "demonstrations.lerobot.reader",
    "read_libero_demonstration": "demonstrations.libero.reader",
    "read_libero_hdf5": "demonstrations.libero.reader",
    "read_video_recording": "demonstrations.video_recording",
    "register_format": "demonstrations.formats",
    "resize_frames": ".video",
    "resolve_stride": "episodes",
    "scan_videos": "episodes",
    "smooth_phases": "demonstrations.phases",
    "split_episodes": "episodes",
    "unfold_skills": "corpora.corpus",
    "unpack_boundaries": "corpora.corpus",
    "unregister_format": "demonstrations.formats",
    "vectors_array": "corpora.corpus",
    "write_latent_action_corpus": "corpora.corpus",
    "write_skill_corpus": "corpora.corpus",
    "write_video": ".video",
    "write_videos": "demonstrations.videos",
}

__all__ = [
    "VIDEO_EXTENSIONS",
    "CorpusInfo",
    "CorpusStatistics",
    "CorpusWriter",
    "Demonstration",
    "DemonstrationFormat",
    "DemonstrationWriter",
    "Demonstrations",
    "Episode",
    "FramePairDataset",
    "FrameStore",
    "LeRobotWriter",
    "LiberoHdf5Writer",
    "PolicyDataset",
    "PolicyEpisode",
    "RecordedDemonstration",
    "RejectedVideo",
    "VideoError",
    "VideoFolder",
    "VideoInfo",
    "VideoReader",
    "VideoRecordingWriter",
    "VideoSource",
    "check_video",
    "collate_policy",
    "collate_sequences",
    "corpus_statistics",
    "dataset_card",
    "demonstration_formats",
    "demonstration_phases",
    "episode_id",
    "held_out_rows",
    "latent_actions_array",
    "latent_phases",
    "load_corpus",
    "load_demonstrations",
    "load_episode_frames",
    "orient_frames",
    "phase_boundaries",
    "possible_fraction",
    "read_lerobot",
    "read_libero_demonstration",
    "read_libero_hdf5",
    "read_video_recording",
    "register_format",
    "resize_frames",
    "resolve_stride",
    "scan_videos",
    "smooth_phases",
    "split_episodes",
    "unfold_skills",
    "unpack_boundaries",
    "unregister_format",
    "vectors_array",
    "write_latent_action_corpus",
    "write_skill_corpus",
    "write_video",
    "write_videos",
]


__getattr__, __dir__ = import_when_used(__name__, _MODULES)
