"""What a published corpus says about itself: `CorpusInfo`, and the card (README.md) that carries it."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml
from huggingface_hub import DatasetCard, DatasetCardData
from numpy.typing import NDArray

from ...publishing import public_name, table_cell
from ..hub_folder import dataset_folder
from .segment_lengths import SegmentLengths

CorpusKind = Literal["latent-actions", "latent-skills"]
CARD_FILE = "README.md"
CARD_KEY = "hilam"
"""Key of the card's front matter that holds the `CorpusInfo`."""

_BY_STAGE = ("skill_dims", "segments", "segment_lengths")
_SIZE_CATEGORIES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(kw_only=True)
class CorpusInfo:
    """Origin and statistics of a corpus.

    The first group is given by whoever writes a corpus; the second is filled in while it is written.

    Attributes:
        model: Hub id or folder of the model that made the latent actions.
        revision: Its revision (commit or tag), or None for a local folder.
        model_fingerprint: `weights_fingerprint` of the inverse dynamics model; None where an older version wrote the
            corpus.
        latent_dim: D, the width of a latent action.
        stride: k in frames where it is the same for all episodes, else None (each row has its own).
        stride_seconds: k in seconds where it was given so.
        codebook: (K, E) vectors of the codes where latent actions are codes (of a discrete model); None where they are
            floats.
        skill_model: Hub id or folder of the HiLAM model that made the skills (skill corpora).
        skill_revision: Its revision.
        skill_fingerprint: `weights_fingerprint` of the HiLAM model.
        title: First line of the card.
        license: SPDX-like id as the Hub writes it; "other" where the videos' own terms decide.
        description: A paragraph for the card.
        kind: "latent-actions" or "latent-skills".
        skill_dims: D_s by stage s (skill corpora).
        segments: Number of segments by stage, in the train split.
        segment_lengths: How long they are, the fields of `SegmentLengths` by stage.
        splits: Episodes by split.
        num_episodes: Episodes in all splits.
        num_frames: Video frames in all splits.
        num_latents: Latent actions in all splits.
        mean: Mean of the latent actions of the train split, (D,); None for codes.
        std: Their standard deviation (population), (D,).
        sources: Episodes by source, where known.
        fingerprint: SHA-256 of the data files.
    """

    model: str
    latent_dim: int
    revision: str | None = None
    model_fingerprint: str | None = None
    stride: int | None = None
    stride_seconds: float | None = None
    codebook: list[list[float]] | None = None
    skill_model: str | None = None
    skill_revision: str | None = None
    skill_fingerprint: str | None = None
    title: str | None = None
    license: str = "other"
    description: str | None = None

    kind: CorpusKind = "latent-actions"
    skill_dims: dict[int, int] = field(default_factory=dict)
    segments: dict[int, int] = field(default_factory=dict)
    segment_lengths: dict[int, dict[str, Any]] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    num_episodes: int = 0
    num_frames: int = 0
    num_latents: int = 0
    mean: list[float] | None = None
    std: list[float] | None = None
    sources: dict[str, int] = field(default_factory=dict)
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_numbers()
        if self.kind not in get_args(CorpusKind):
            raise ValueError(f"CorpusInfo.kind: got {self.kind!r}, expected one of {', '.join(get_args(CorpusKind))}")
        if self.kind == "latent-actions" and self.skill_dims:
            raise ValueError('CorpusInfo.skill_dims: only a corpus of kind "latent-skills" has skills')
        if not self.model:
            raise ValueError("CorpusInfo.model: got nothing, expected the Hub id or folder of the model")

    def _check_counts(self) -> None:
        counts = {"latent_dim": (self.latent_dim, 1)}
        if self.stride is not None:
            counts["stride"] = (self.stride, 1)
        for name in ("num_episodes", "num_frames", "num_latents"):
            counts[name] = (getattr(self, name), 0)
        for name, least in (("skill_dims", 1), ("segments", 0), ("splits", 0), ("sources", 0)):
            counts |= {f"{name}[{key}]": (count, least) for key, count in getattr(self, name).items()}
        for name, (count, least) in counts.items():
            if isinstance(count, bool) or not isinstance(count, int) or count < least:
                raise ValueError(f"CorpusInfo.{name}: got {count!r}, expected a whole number, at least {least}")
        if self.splits and self.num_episodes != sum(self.splits.values()):
            raise ValueError(
                f"CorpusInfo.num_episodes: got {self.num_episodes}, expected {sum(self.splits.values())}, the sum of "
                "splits"
            )

    def _check_numbers(self) -> None:
        seconds = self.stride_seconds
        if seconds is not None and not (isinstance(seconds, int | float) and 0 < seconds < math.inf):
            raise ValueError(f"CorpusInfo.stride_seconds: got {seconds!r}, expected seconds, above 0")
        for name in ("mean", "std"):
            if (values := getattr(self, name)) is not None:
                _check_vector(values, self.latent_dim, f"CorpusInfo.{name}")
        if self.std is not None and min(self.std) < 0:
            raise ValueError(f"CorpusInfo.std: got {min(self.std)}, expected numbers from 0")
        if self.codebook is not None:
            if len({len(vector) for vector in self.codebook}) != 1:
                raise ValueError("CorpusInfo.codebook: expected one or more vectors of one width")
            for vector in self.codebook:
                _check_vector(vector, len(vector), "CorpusInfo.codebook")

    @property
    def segmentation_warnings(self) -> list[str]:
        """A sentence for each stage whose segments are mostly one step long."""
        warnings = (SegmentLengths(**each).warning(stage) for stage, each in self.segment_lengths.items())
        return [warning for warning in warnings if warning is not None]

    @property
    def vector_dim(self) -> int:
        """Floats that a latent action stands for: D, or D * E where it is D codes."""
        return self.latent_dim * (1 if self.codebook is None else len(self.codebook[0]))

    def latent_vectors(self, latents: NDArray[np.generic]) -> NDArray[np.float32]:
        """What latent actions (N, D) stand for, (N, `vector_dim`): themselves, or the vectors of their codes."""
        if self.codebook is None:
            return latents.astype(np.float32, copy=False)
        return np.asarray(self.codebook, dtype=np.float32)[latents].reshape(len(latents), -1)

    @classmethod
    def from_card(cls, folder: str | Path, *, revision: str | None = None) -> CorpusInfo:
        """Reads the information back from a corpus's card.

        Args:
            folder: A corpus folder, or the Hub id of a dataset.
            revision: Branch, tag or commit on the Hub.

        Raises:
            FileNotFoundError: The folder has no card.
            ValueError: The card is not that of a corpus written by this library, or a field of it is not valid.
        """
        path = dataset_folder(folder, revision=revision, only=[CARD_FILE])
        card_file = path / CARD_FILE
        if not card_file.is_file():
            raise FileNotFoundError(f"{card_file}: there is no card here; is {folder} a corpus folder?")
        with _card_errors(folder):
            fields = DatasetCard.load(card_file).data.to_dict().get(CARD_KEY)
        if not isinstance(fields, Mapping):
            raise ValueError(
                f"{folder}: its card has no {CARD_KEY!r} block, so it is not a corpus written by hilam-hf: "
                "give a latent-action or latent-skill corpus"
            )
        return cls._from_fields(fields, str(folder))

    @classmethod
    def _from_fields(cls, fields: Mapping[str, Any], where: str) -> CorpusInfo:
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise ValueError(
                f"{where}: its card has unknown fields {', '.join(unknown)}: upgrade hilam-hf, a newer one wrote it"
            )
        kinds = typing.get_type_hints(cls)
        for name, value in fields.items():
            if not isinstance(value, _plain_types(kinds[name])):
                raise ValueError(f"{where}: its card says {name}: {value!r}, expected {kinds[name]}")
        try:
            by_stage = {key: {int(stage): n for stage, n in fields[key].items()} for key in _BY_STAGE if key in fields}
            return cls(**{**fields, **by_stage})
        except TypeError as error:
            raise ValueError(f"{where}: its card lacks a field: {error}") from error
        except (AttributeError, ValueError) as error:
            raise ValueError(f"{where}: its card is damaged: {error}") from error


def _check_vector(values: Any, width: int, name: str) -> None:
    if not isinstance(values, list) or len(values) != width:
        raise ValueError(f"{name}: got {values!r}, expected a list of {width} numbers")
    for value in values:
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name}: got {value!r} among its values, expected finite numbers")


@contextmanager
def _card_errors(folder: str | Path) -> Iterator[None]:
    """Names the corpus whose card cannot be read."""
    try:
        yield
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ValueError(f"{folder}: its card cannot be read ({error})") from error


def _plain_types(hint: Any) -> tuple[type, ...]:
    """What a value of a hint is, seen from outside: `list` of `list[float] | None`, besides `NoneType`."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    plain = [str if typing.get_origin(part) is Literal else typing.get_origin(part) or part for part in parts]
    return (*plain, int) if float in plain else tuple(plain)


def dataset_card(info: CorpusInfo) -> str:
    """The README.md of a corpus: front matter that lets `load_dataset` read it, and a description.

    Args:
        info: What the corpus holds; `info.splits` decides which data files are declared.

    Returns:
        The card's text, which `CorpusInfo.from_card` reads back; of models that are folders it tells the last name.
    """
    skill_model = None if info.skill_model is None else public_name(info.skill_model)
    info = dataclasses.replace(info, model=public_name(info.model), skill_model=skill_model)
    title = info.title or ("Latent actions" if info.kind == "latent-actions" else "Latent skills")
    own: dict[str, Any] = {CARD_KEY: _front_matter(info)}
    data = DatasetCardData(
        license=info.license,
        pretty_name=title,
        tags=["robotics", "latent-actions", *(["latent-skills"] if info.kind == "latent-skills" else []), "hilam-hf"],
        task_categories=["robotics"],
        size_categories=_size_category(info.num_episodes),
        configs=[
            {
                "config_name": "default",
                # `load_dataset` names its cached copy of a folder after the folder's last name and this entry alone:
                # without the fingerprint it would return an older corpus of that name.
                "description": f"sha256 {info.fingerprint}",
                "data_files": [{"split": split, "path": f"data/{split}-*"} for split in info.splits],
            }
        ],
        **own,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_body(info, title)}"


def _front_matter(info: CorpusInfo) -> dict[str, Any]:
    fields = {key: value for key, value in dataclasses.asdict(info).items() if value not in (None, {}, [])}
    # The Hub keeps front matter as JSON, whose keys are strings.
    return fields | {key: {str(s): n for s, n in fields[key].items()} for key in _BY_STAGE if key in fields}


def _body(info: CorpusInfo, title: str) -> str:
    sections = [f"# {title}"]
    if info.description:
        sections.append(info.description)
    warnings = [f"**Warning:** {warning}." for warning in info.segmentation_warnings]
    sections += [_facts(info), *warnings, _columns(info), _usage(info)]
    return "\n\n".join(sections) + "\n"


def _facts(info: CorpusInfo) -> str:
    stride = f"{info.stride} frames" if info.stride else "per episode, in the column `stride`"
    if info.stride_seconds:
        stride += f" ({info.stride_seconds:g} s)"
    rows = [
        ("Latent action model", _named(info.model, info.revision, info.model_fingerprint)),
        ("Latent action", f"{_latent_action(info)}, from frame t and frame t + k"),
        ("k", stride),
        ("Episodes", ", ".join(f"{count} ({split})" for split, count in info.splits.items()) or "0"),
        ("Frames", f"{info.num_frames}"),
        ("Latent actions", f"{info.num_latents}"),
    ]
    if info.sources:
        rows.append(("Sources", ", ".join(f"{table_cell(name)}: {count}" for name, count in info.sources.items())))
    if info.mean is not None and info.std is not None:
        rows.append(("Mean of latent actions (train)", _numbers(info.mean)))
        rows.append(("Standard deviation (train)", _numbers(info.std)))
    if info.kind == "latent-skills":
        rows.append(("Skill model", _named(info.skill_model or "unknown", info.skill_revision, info.skill_fingerprint)))
        for stage, dim in info.skill_dims.items():
            count = info.segments.get(stage, 0)
            rows.append((f"Stage {stage}", f"{count} segments (train), skills of {dim} numbers"))
            if stage in info.segment_lengths:
                rows.append((f"Stage {stage}, lengths", _lengths(SegmentLengths(**info.segment_lengths[stage]))))
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def _columns(info: CorpusInfo) -> str:
    lines = [
        "## Columns",
        "",
        "One row an episode.",
        "",
        "- `id`, `source`, `language` (the instruction in words), `fps`, `num_frames`, `stride` (k).",
        "- `frame_indices`: which video frame each latent action belongs to. The last k frames have none.",
        f"- `latent_actions`: (number of latents, {info.latent_dim}), "
        + (
            "not standardised." if info.codebook is None else "codes, whose vectors the front matter has as `codebook`."
        ),
        "- `video`: the video, relative to the folder of videos (or the video itself).",
    ]
    if info.kind == "latent-skills":
        lines += [
            "- `num_latents`: the number of latent actions.",
            "- `stage{s}_boundaries`: one bit for each latent action, set where a segment of stage s starts, packed "
            "least significant bit first (`numpy.unpackbits(..., bitorder='little')[:num_latents]`).",
            "- `stage{s}_skills`: one vector for each segment. Latent action t has the skill "
            "`skills[cumsum(boundaries)[t] - 1]`.",
        ]
    return "\n".join(lines)


def _usage(info: CorpusInfo) -> str:
    lines = ["## Use", "", "```python", "from datasets import load_dataset", ""]
    lines.append('corpus = load_dataset("this/dataset", split="train")')
    if info.kind == "latent-skills" and info.skill_dims:
        stage = max(info.skill_dims)
        lines += ["", "from hilam_hf.data import unfold_skills", f"skills = unfold_skills(corpus[0], stage={stage})"]
    lines.append("```")
    return "\n".join(lines)


def _latent_action(info: CorpusInfo) -> str:
    if info.codebook is None:
        return f"{info.latent_dim} numbers"
    return f"{info.latent_dim} codes from 0 to {len(info.codebook) - 1}"


def _lengths(lengths: SegmentLengths) -> str:
    return (
        f"{lengths.one_step_share:.0%} of the segments are one step long, half at most {lengths.median_length}, 90 % "
        f"at most {lengths.length_90}; {lengths.segments_per_episode:.1f} segments an episode"
    )


def _named(name: str, revision: str | None, fingerprint: str | None) -> str:
    name = name.replace("`", "'")
    at = f" at `{revision}`" if revision else ""
    return f"`{name}`{at}" + (f" (weights `{fingerprint}`)" if fingerprint else "")


def _numbers(values: list[float], limit: int = 8) -> str:
    shown = ", ".join(f"{value:.4g}" for value in values[:limit])
    return shown if len(values) <= limit else f"{shown}, … (all {len(values)} in the front matter)"


def _size_category(count: int) -> str:
    return next((name for bound, name in _SIZE_CATEGORIES if count < bound), "1M<n<10M")
