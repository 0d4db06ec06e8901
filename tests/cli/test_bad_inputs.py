"""A sweep of bad inputs over every command: one line that names the thing, and nothing lost or left behind."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hilam_hf.envs.registry import register_simulator, unregister_simulator
from tests.cli.bad_inputs import (
    Spoil,
    delete,
    edit_table,
    filled,
    folder_instead,
    listing,
    make_artifacts,
    nan_weights,
    null_row,
    replace_text,
    set_json,
    truncate,
    widened,
    with_values,
    without_column,
    write,
)
from tests.cli.test_cli import run
from tests.envs.toy_simulator import TOY
from tests.helpers import ROOT

pytestmark = pytest.mark.slow

STEPS = "max_steps=1 global_batch_size=2"
EXTRACT = "extract {videos} --model {lam} --stride 2 --out {out}"
CODES = "extract {videos} --model {lapa} --stride 2 --out {out}"
LAM = f"train lam {{videos}} --stride 2 --image-size 32 --out {{out}} {STEPS}"
REPORT = "lam-report {videos} --model {lam} --stride 2 --max-pairs 4 --out {out}"
HILAM = f"train hilam {{latents}} --out {{out}} {STEPS}"
HILAM_CODES = f"train hilam {{codes}} --out {{out}} {STEPS}"
SKILLS = "skills {latents} --model {hilam} --out {out}"
VIEW = "view {skills} --videos {videos} --out {out}/page.html"
POLICY = f"train policy {{skills}} --videos {{videos}} --image-size 32 --out {{out}} {STEPS}"
FINETUNE = f"train finetune --policy {{policy}} --demonstrations {{recordings}} --out {{out}} {STEPS}"
EVAL = "eval --policy {policy} --simulator toy --tasks left --episodes 1 --out {out}"
RANDOM = "eval --policy random --simulator toy --tasks left --episodes 1 --out {out}"
RECORD = "record --simulator toy --tasks left --episodes 1 --image-size 32 --out {out}"
LIBERO = "eval --policy random --suite goal --tasks 0 --out {out}"
DEMO = "demo --smallest --out {out}"
COMPARE = "eval --compare {results} {other}"
DEEP = "[" * 200_000
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
LATENTS = "latents/data/train-*"
SKILL_ROWS = "skills/data/train-*"
RECORDED = "recordings/demonstrations/left/episode_00000.parquet"


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        command: The command line, with places in braces.
        names: A pattern of what the error line says.
        spoil: What is done to the artifacts before.
    """

    command: str
    names: str
    spoil: Spoil | None = None


# Each model and data set that a command takes by its Hub id or folder: where it stands, and what it is.
NAMED = [
    (EXTRACT, "{lam}", "model"),
    (REPORT, "{lam}", "model"),
    (LAM + " --corpus {latents}", "{latents}", "dataset"),
    (HILAM, "{latents}", "dataset"),
    (HILAM + " --idm {lam}", "{lam}", "model"),
    (HILAM + " --fdm {lam} --videos {videos}", "{lam}", "model"),
    (SKILLS, "{latents}", "dataset"),
    (SKILLS, "{hilam}", "model"),
    (VIEW, "{skills}", "dataset"),
    (POLICY, "{skills}", "dataset"),
    (FINETUNE, "{policy}", "model"),
    (FINETUNE, "{recordings}", "dataset"),
    (EVAL, "{policy}", "model"),
]

OPTIONS = [
    # What is nowhere to be had.
    *(
        Case(
            command.replace(place, "org/absent"),
            f"error: org/absent: there is no such folder, and no such {kind} can be had from the Hub "
            r"\(.*\); check the name, or .* run `hf download org/absent",
        )
        for command, place, kind in NAMED
    ),
    *(
        Case(command.replace(place, name), f"error: {name}: there is no such folder, and .*; check the path")
        for command, place, _ in NAMED
        for name in ("absent", "./runs/absent/best")
    ),
    # Paths that are not there, or not what they should be.
    Case(EXTRACT.replace("{videos}", "{missing}"), "missing: there is no such folder"),
    Case(EXTRACT.replace("{videos}", "{empty}"), "no videos here"),
    Case(EXTRACT.replace("{videos}", "{notes}/thesis.txt"), "thesis.txt"),
    Case(EXTRACT.replace("{lam}", "{missing}"), "missing"),
    Case(EXTRACT.replace("{lam}", "{empty}"), "empty"),
    Case(EXTRACT.replace("{lam}", "{hilam}"), "hilam"),
    Case(EXTRACT.replace("{lam}", "{policy}"), "policy|Policy"),
    Case(EXTRACT.replace("{lam}", "{lam}/fdm"), "fdm"),
    Case(EXTRACT.replace("{out}", "{notes}"), "notes: holds other files"),
    Case(EXTRACT.replace("{out}", "{notes}/thesis.txt"), "thesis.txt: expected a folder"),
    Case(EXTRACT.replace("{out}", "{latents}"), "pass --overwrite"),
    Case(EXTRACT.replace("{out}", "{videos}"), "videos: holds other files"),
    Case(REPORT.replace("{videos}", "{missing}"), "missing"),
    Case(REPORT.replace("{lam}", "{missing}"), "missing"),
    Case(REPORT.replace("{out}", "{notes}/thesis.txt"), "thesis.txt"),
    Case(LAM.replace("{videos}", "{missing}"), "missing: there is no such folder"),
    Case(LAM.replace("{videos}", "{empty}"), "no videos here"),
    Case(LAM.replace("{out}", "{notes}/thesis.txt"), "thesis.txt"),
    Case(LAM + " --corpus {missing}", "missing"),
    Case(LAM + " --corpus {videos}", "videos"),
    Case(HILAM.replace("{latents}", "{missing}"), "missing"),
    Case(HILAM.replace("{latents}", "{videos}"), "card"),
    Case(HILAM.replace("{latents}", "{notes}/thesis.txt"), "thesis.txt"),
    Case(HILAM.replace("{out}", "{notes}/thesis.txt"), "thesis.txt"),
    Case(HILAM + " --idm {missing}", "missing"),
    Case(HILAM + " --idm {hilam}", "hilam"),
    Case(HILAM + " --fdm {lam}/fdm", "both --fdm and --videos"),
    Case(HILAM + " --videos {videos}", "both --fdm and --videos"),
    Case(HILAM + " --fdm {missing} --videos {videos}", "missing"),
    Case(HILAM + " --fdm {lam}/fdm --videos {missing}", "missing"),
    Case(SKILLS.replace("{latents}", "{missing}"), "missing"),
    Case(SKILLS.replace("{latents}", "{codes}"), "fingerprint"),
    Case(SKILLS.replace("{hilam}", "{missing}"), "missing"),
    Case(SKILLS.replace("{hilam}", "{lam}"), "lam"),
    Case(SKILLS.replace("{out}", "{notes}"), "notes: holds other files"),
    Case(SKILLS.replace("{out}", "{skills}"), "pass --overwrite"),
    Case(SKILLS.replace("{out}", "{latents}"), "pass --overwrite"),
    Case(VIEW.replace("{skills}", "{missing}"), "missing"),
    Case(VIEW.replace("{skills}", "{latents}"), "skill"),
    Case(VIEW.replace("{videos}", "{missing}"), "missing"),
    Case(VIEW.replace("{videos}", "{empty}"), "a.mp4"),
    Case(VIEW.replace("{out}/page.html", "{notes}"), "notes"),
    Case(POLICY.replace("{skills}", "{missing}"), "missing"),
    Case(POLICY.replace("{skills}", "{latents}"), "skill|stage"),
    Case(POLICY.replace("{videos}", "{missing}"), "missing"),
    Case(POLICY.replace("{videos}", "{empty}"), "no videos here"),
    Case(FINETUNE.replace("{policy}", "{missing}"), "missing"),
    Case(FINETUNE.replace("{policy}", "{hilam}"), "hilam"),
    Case(FINETUNE.replace("{recordings}", "{missing}"), "missing"),
    Case(FINETUNE.replace("{recordings}", "{empty}"), "empty"),
    Case(FINETUNE.replace("{recordings}", "{videos}"), "videos"),
    Case(FINETUNE.replace("{recordings}", "{notes}/thesis.txt"), "thesis.txt"),
    Case(EVAL.replace("{policy}", "{missing}"), "missing"),
    Case(EVAL.replace("{policy}", "{lam}/idm"), "HierarchicalPolicy"),
    Case(RANDOM.replace("{out}", "{notes}/thesis.txt"), "thesis.txt"),
    Case(COMPARE.replace("{other}", "{missing}"), "missing/?.*no such file"),
    Case(COMPARE.replace("{other}", "{empty}"), "no such file"),
    Case(DEMO.replace("{out}", "{notes}"), "is not empty and holds no demo"),
    Case(DEMO.replace("{out}", "{notes}/thesis.txt"), "thesis.txt"),
    Case(DEMO + " --videos {missing}", "missing"),
    Case(DEMO + " --videos {empty}", "no videos here"),
    Case(RECORD.replace("{out}", "{notes}/thesis.txt"), "thesis.txt"),
    # Numbers.
    *(Case(f"{EXTRACT} --stride {number}", "stride") for number in ("0", "-1", "99", "99999999999")),
    *(Case(EXTRACT.replace("--stride 2", f"--stride-seconds {s}"), "second|stride") for s in ("inf", "nan", "0", "-1")),
    Case(EXTRACT.replace("--stride 2", "--stride-seconds 1e30"), "second|stride"),
    Case(EXTRACT + " --stride-seconds 0.2", "stride"),
    Case(EXTRACT.replace("--stride 2", ""), "stride"),
    Case(EXTRACT.replace("--stride 2", "--stride x"), "--stride"),
    *(Case(f"{LAM} --stride {number}", "stride") for number in ("0", "-1", "99")),
    *(Case(LAM.replace("--stride 2", f"--stride-seconds {s}"), "second|stride") for s in ("inf", "nan", "-1")),
    *(Case(f"{LAM} --image-size {size}", "image_size|image-size|patch") for size in ("0", "-32", "7")),
    *(Case(f"{LAM} --held-out {share}", "held.out") for share in ("1", "-0.5", "nan")),
    *(Case(f"{REPORT} --stride {number}", "stride") for number in ("0", "-1", "99")),
    Case(REPORT.replace("--stride 2", "--stride-seconds inf"), "second|stride"),
    Case(f"{REPORT} --max-pairs 0", "max_pairs"),
    Case(f"{REPORT} --max-pairs -3", "max_pairs"),
    Case(f"{REPORT} --max-decoded-pairs -3", "max_decoded_pairs"),
    Case(f"{REPORT} --held-out 2", "held.out"),
    Case(f"{VIEW} --episodes 0", "episodes"),
    Case(f"{VIEW} --episodes -2", "episodes"),
    Case(f"{POLICY} --stage 0", "stage"),
    Case(f"{POLICY} --stage 7", "stage"),
    Case(f"{POLICY} --stage -1", "stage"),
    Case(f"{POLICY} --image-size 0", "image.size"),
    Case(f"{POLICY} --image-size -8", "image.size"),
    Case(f"{POLICY} --camera ''", "camera"),
    Case(f"{FINETUNE} --chunk-size 0", "chunk_size"),
    Case(f"{FINETUNE} --per-task 0", "per_task"),
    Case(f"{FINETUNE} --per-task -1", "per_task"),
    *(Case(f"{RANDOM} --episodes {number}", "episodes") for number in ("0", "-1")),
    *(Case(f"{RANDOM} --num-envs {number}", "num_envs") for number in ("0", "-1")),
    *(Case(f"{RANDOM} --image-size {number}", "image_size") for number in ("0", "-1")),
    *(Case(f"{RANDOM} --max-steps {number}", "max_steps") for number in ("0", "-1")),
    *(Case(f"{RANDOM} --chunk-length {number}", "chunk_length") for number in ("0", "-1")),
    Case(f"{RANDOM} --videos-per-task -1", "videos_per_task"),
    Case(f"{RANDOM} --policy-batch-size 0", "policy_batch_size"),
    Case(f"{RANDOM} --seed -5", "seed"),
    *(Case(f"{RECORD} --episodes {number}", "episodes_per_task") for number in ("0", "-1")),
    Case(f"{RECORD} --episodes 99999", "at most 10000 episodes"),
    *(Case(f"{RECORD} --workers {number}", "num_workers") for number in ("0", "-1")),
    *(Case(f"{RECORD} --image-size {number}", "image_size") for number in ("0", "-2", "33")),
    *(Case(f"{RECORD} --noise {number}", "noise") for number in ("nan", "inf", "-1")),
    *(Case(f"{RECORD} --seed {number}", "seed") for number in ("-1", "100")),
    # Names.
    *(Case(f"{EXTRACT} --device {name}", "--device") for name in ("gpu", "cuda:99", "''", "cpu:x")),
    Case(f"{SKILLS} --device gpu", "--device"),
    Case(f"{REPORT} --device gpu", "--device"),
    Case(f"{EVAL} --device cuda:99", "--device"),
    Case(f"{LAM} --kind lapda", "lapda"),
    Case(f"{LAM} --kind ''", "kind"),
    Case(f"{LAM} --model-option nonsense", "nonsense"),
    Case(f"{LAM} --model-option hidden_sise=9", "hidden_sise"),
    Case(f"{LAM} --model-option idm.hidden_size=x", "hidden_size"),
    Case(f"{LAM} --model-option idm.hidden_size=-8", "hidden_size"),
    Case(f"{LAM} --model-option =8", "model.option|=8"),
    Case(f"{HILAM} --preset huge", "huge"),
    Case(f"{HILAM} --model-option target_ratios=[0]", "target_ratios"),
    Case(f"{HILAM} --model-option target_ratios=4", "target_ratios"),
    Case(f"{HILAM} --model-option routing=magic", "magic"),
    Case(f"{HILAM} --model-option nothing=1", "nothing"),
    Case(f"{FINETUNE} --cameras below", "below"),
    Case(f"{FINETUNE} --cameras ''", "camera"),
    Case(f"{FINETUNE} --rename-camera above", "above"),
    Case(f"{FINETUNE} --rename-camera below=above", "below"),
    Case(f"{FINETUNE} --image-transform sideways", "sideways"),
    Case(f"{FINETUNE} --proprioception feelings", "feelings"),
    Case(f"{FINETUNE} --tasks up", "up"),
    Case(f"{FINETUNE} --tasks ''", "task"),
    Case(f"{FINETUNE} --suite goal --tasks 99", "99"),
    Case(f"{FINETUNE} --protocol octo", "octo"),
    Case(f"{FINETUNE} --protocol openvla", "image_transform"),
    Case(f"{FINETUNE} method=magic", "magic"),
    Case(f"{RANDOM} --simulator mars", "mars"),
    Case(f"{RANDOM} --tasks up", "up"),
    Case(f"{RANDOM} --tasks ''", "task"),
    Case(f"{RANDOM} --protocol octo", "octo"),
    Case(f"{RANDOM} --camera below", "below"),
    Case(f"{RANDOM} --camera ''", "camera"),
    Case(f"{RANDOM} --image-transform sideways", "sideways"),
    Case(f"{RANDOM} --quality best", "best"),
    Case(f"{RANDOM} --init-states 0-3", "initial states"),
    Case(f"{RANDOM} --render-gpus x", "--render-gpus: got 'x'"),
    Case(f"{RANDOM} --render-gpus ''", "--render-gpus"),
    Case(f"{RANDOM} --render-gpus -1", "--render-gpus"),
    Case(f"{RANDOM} --assets {{empty}}", "assets"),
    Case(f"{LIBERO} --init-states 5-2", "5-2"),
    Case(f"{LIBERO} --init-states 0-99999999", "init-states|initial states"),
    Case(f"{LIBERO} --tasks 10", "10"),
    Case(f"{LIBERO} --suite kitchen", "kitchen"),
    Case("eval --policy random", "--policy and --out"),
    Case("eval", "--policy and --out"),
    Case("eval --policy random --simulator toy --out {out}", "task"),
    Case(f"{RECORD} --format zarr", "zarr"),
    Case(f"{RECORD} --format ''", "formats"),
    Case(f"{RECORD} --action-labels mine", "action_labels"),
    Case(f"{RECORD} --quality best", "best"),
    Case(f"{DEMO} --tasks no-such-task", "no-such-task"),
    Case(f"{DEMO} --tasks ''", "task"),
    Case(f"{DEMO} --seed -1", "seed"),
    Case("doctor too-much", "too-much"),
    Case("teach", "teach"),
    # Training options.
    Case(f"{LAM} max_step=1", "max_step"),
    Case(f"{LAM} max_steps", "max_steps"),
    Case(f"{LAM} max_steps=0", "max_steps"),
    Case(f"{LAM} max_steps=one", "max_steps"),
    Case(f"{LAM} learning_rate=nan", "learning_rate"),
    Case(f"{LAM} learning_rate=inf", "learning_rate"),
    Case(f"{LAM} learning_rate=-1", "learning_rate"),
    Case(f"{LAM} weight_decay=nan", "weight_decay"),
    Case(f"{LAM} seed=-1", "seed"),
    Case(f"{LAM} seed=99999999999999999999999", "seed"),
    Case(f"{LAM} tracker=pigeon", "pigeon"),
    Case(f"{LAM} schedule=[", "schedule|value"),
    Case(f"{LAM} schedule=triangle", "triangle"),
    Case(f"{LAM} mixed_precision=fp8", "fp8"),
    Case(f"{LAM} validate_every=1", "validate_every|held"),
    Case(f"{HILAM} global_batch_size=-4", "global_batch_size"),
    Case(f"{POLICY} ema_decay=1.5", "ema_decay"),
    Case(f"{LAM} batch_size=4", "batch_size"),
    Case(f"{LAM} schedule_options=fast", "schedule_options"),
    Case(f"{LAM} schedule_options={{{{num_cycles: 2}}}} schedule=linear", "num_cycles"),
    Case(f"{LAM} final_weights=best", "final_weights"),
    Case(f"{LAM} final_weights=average", "ema_decay"),
    Case(f"{LAM} gradient_accumulation_steps=0", "gradient_accumulation_steps"),
    Case(f"{LAM} gradient_accumulation_steps=3", "global_batch_size=2.*evenly"),
    Case(f"{LAM} max_grad_norm=0", "max_grad_norm"),
    Case(f"{LAM} gradient_checkpointing=2", "gradient_checkpointing"),
    Case(f"{HILAM} stage_rates=[1.0]", "stage_rates"),
    Case(f"{HILAM} stage_rates=[0,1,1]", "stage_rates"),
    Case(f"{LAM} --held-out 1", "held_out"),
    Case(f"{HILAM} --held-out 0.000001", "holds out none"),
    Case(f"{HILAM} validate_every=1", "validate_every|held"),
    Case(f"{FINETUNE} method=lora lora_rank=0", "lora_rank"),
    Case(f"{FINETUNE} method=lora freeze_high_level=false", "freeze_high_level"),
    Case(f"{FINETUNE} --per-task 99", "99"),
    # Folders of runs.
    *(Case(f"{each} --resume", "holds no run to go on with.*--resume") for each in (LAM, HILAM, POLICY, FINETUNE)),
    Case(f"{LAM} --resume --overwrite", "contradict"),
    Case(LAM.replace("{out}", "{videos}"), "videos, which this run reads"),
    Case(HILAM.replace("{out}", "{latents}"), "latents, which this run reads"),
    Case(FINETUNE.replace("{out}", "{policy}") + " --overwrite", "policy, which this run reads"),
    Case(LAM.replace("{out}", "{lam}"), "another run"),
    Case(f"{LAM} --config {{missing}}", "missing"),
    Case(f"{LAM} --config {{empty}}", "empty"),
]


def _yaml(text: str | bytes, names: str) -> Case:
    return Case(f"{LAM} --config {{options}}", names, write("options.yaml", text))


FILES = [
    _yaml("max_steps: [", "options.yaml"),
    _yaml("- 1", "options.yaml"),
    _yaml("1: 2", "options.yaml"),
    _yaml("!!python/object/apply:os.system ['touch pwned']", "options.yaml.*tag"),
    _yaml("max_steps: !!python/name:os.system", "options.yaml.*tag"),
    _yaml(b"\xff\xfe\x00\x01", "options.yaml"),
    _yaml("a: &a [*a]", "options.yaml"),
    _yaml("a: " + "[" * 50_000, "options.yaml|nested"),
    _yaml("warmup_steps: 2026-01-01", "warmup_steps"),
    # Videos and what describes them.
    Case(EXTRACT, "none of the 2 videos", lambda root: [write(f"videos/{n}.mp4", "no")(root) for n in "ab"]),
    Case(EXTRACT, "none of the 2 videos", lambda root: [write(f"videos/{n}.mp4", b"")(root) for n in "ab"]),
    Case(EXTRACT, "metadata.jsonl", write("videos/metadata.jsonl", "{")),
    Case(EXTRACT, "metadata.jsonl", write("videos/metadata.jsonl", "[1]\n")),
    Case(EXTRACT, "metadata.jsonl", write("videos/metadata.jsonl", DEEP)),
    Case(EXTRACT, "fps", write("videos/metadata.jsonl", '{"file_name": "a.mp4", "fps": 0}\n')),
    Case(EXTRACT, "fps", write("videos/metadata.jsonl", '{"file_name": "a.mp4", "fps": NaN}\n')),
    Case(EXTRACT, "language", write("videos/metadata.jsonl", '{"file_name": "a.mp4", "language": 7}\n')),
    Case(EXTRACT, "file_name", write("videos/metadata.jsonl", '{"file": "a.mp4"}\n')),
    Case(VIEW, "a.mp4", truncate("videos/a.mp4")),
    Case(VIEW, "a.mp4", delete("videos/a.mp4")),
    Case(POLICY, "no video", delete("videos/a.mp4")),
    # Corpora: the card.
    Case(HILAM, "README.md", delete("latents/README.md")),
    Case(HILAM, "card", write("latents/README.md", "")),
    Case(HILAM, "README.md|card", write("latents/README.md", b"\xff\xfe\x00")),
    Case(HILAM, "README.md|card", folder_instead("latents/README.md")),
    Case(HILAM, "README.md|latents", replace_text("latents/README.md", "hilam:", "hilam: [")),
    Case(HILAM, "tag|card", replace_text("latents/README.md", "license:", "evil: !!python/name:os.system\nlicense:")),
    Case(HILAM, "latent_dim", replace_text("latents/README.md", "latent_dim: ", "latent_dim: -")),
    Case(HILAM, "latent_dim", replace_text("latents/README.md", "latent_dim: ", "latent_dim: x")),
    Case(HILAM, "latent_dim", replace_text("latents/README.md", "  latent_dim: ", "  latent_dims: ")),
    Case(HILAM, "stride", replace_text("latents/README.md", "  stride: ", "  stride: -")),
    Case(HILAM, "splits", replace_text("latents/README.md", "splits:\n    train: 2", "splits: 2")),
    # Corpora: the rows.
    Case(HILAM, "latents", delete("latents/data")),
    Case(HILAM, "train-|Parquet", truncate(LATENTS)),
    Case(HILAM, "train-|Parquet|empty", write(LATENTS, b"")),
    Case(HILAM, "train-|Parquet", write(LATENTS, LFS)),
    *(
        Case(command, column, without_column(pattern, column))
        for command, pattern, column in (
            (HILAM, LATENTS, "latent_actions"),
            (HILAM, LATENTS, "id"),
            (SKILLS, LATENTS, "latent_actions"),
            (SKILLS, LATENTS, "stride"),
            (VIEW, SKILL_ROWS, "stage1_boundaries"),
            (VIEW, SKILL_ROWS, "video"),
            (VIEW, SKILL_ROWS, "num_latents"),
            (POLICY, SKILL_ROWS, "stage2_skills"),
            (POLICY, SKILL_ROWS, "frame_indices"),
            (POLICY, SKILL_ROWS, "language"),
        )
    ),
    *(
        Case(command, column, null_row(pattern, column))
        for command, pattern, column in (
            (HILAM, LATENTS, "latent_actions"),
            (SKILLS, LATENTS, "latent_actions"),
            (SKILLS, LATENTS, "id"),
            (VIEW, SKILL_ROWS, "stage1_boundaries"),
            (VIEW, SKILL_ROWS, "video"),
            (POLICY, SKILL_ROWS, "stage2_skills"),
            (POLICY, SKILL_ROWS, "stage2_boundaries"),
            (POLICY, SKILL_ROWS, "frame_indices"),
        )
    ),
    Case(HILAM, "latent_actions", widened(LATENTS, "latent_actions")),
    Case(SKILLS, "latent_actions", widened(LATENTS, "latent_actions")),
    *(Case(HILAM, "NaN|finite", filled(LATENTS, "latent_actions", value)) for value in (float("nan"), float("inf"))),
    *(Case(SKILLS, "NaN|finite", filled(LATENTS, "latent_actions", value)) for value in (float("nan"), float("inf"))),
    *(Case(HILAM_CODES, f"{code}|codes", filled("codes/data/train-*", "latent_actions", code)) for code in (8, -1)),
    Case(HILAM, "latents|rows|episode", edit_table(LATENTS, lambda table: table.slice(0, 0))),
    Case(HILAM, "latent_actions", with_values(LATENTS, "latent_actions", lambda rows: [[], *rows[1:]])),
    Case(POLICY, "skills", with_values(SKILL_ROWS, "stage2_skills", lambda rows: [rows[0] * 3, *rows[1:]])),
    Case(POLICY, "frame", with_values(SKILL_ROWS, "frame_indices", lambda rows: [[99] * len(rows[0]), *rows[1:]])),
    # Recordings.
    *(
        Case(FINETUNE, named, without_column(RECORDED, column))
        for column, named in (
            *((name, name) for name in ("actions", "language", "videos", "cameras", "fps", "image_transform")),
            # The names of the proprioception stand there.
            ("robot", "episode_00000.parquet: lacks agent_pos"),
        )
    ),
    *(
        Case(FINETUNE, f"{column}|episode_00000", null_row(RECORDED, column))
        for column in ("actions", "language", "videos", "cameras", "fps", "robot", "task", "num_frames")
    ),
    Case(FINETUNE, "episode_00000", truncate(RECORDED)),
    Case(FINETUNE, "episode_00000", write(RECORDED, LFS)),
    Case(FINETUNE, "episode_00000", folder_instead(RECORDED)),
    Case(FINETUNE, "actions", filled(RECORDED, "actions", float("nan"))),
    Case(FINETUNE, "actions", widened(RECORDED, "actions")),
    Case(FINETUNE, "episode_00000", with_values(RECORDED, "robot", lambda _: ["{"])),
    Case(FINETUNE, "episode_00000|nested", with_values(RECORDED, "robot", lambda _: [DEEP])),
    Case(FINETUNE, "episode_00000", with_values(RECORDED, "robot", lambda _: ["[1]"])),
    Case(FINETUNE, "episode_00000", delete("recordings/videos/left/episode_00000.mp4")),
    Case(FINETUNE, "episode_00000", truncate("recordings/videos/left/episode_00000.mp4")),
    Case(FINETUNE, "episode_00000", edit_table(RECORDED, lambda table: table.slice(0, 0))),
    Case(FINETUNE.replace("{recordings}", "{hdf5}"), "hdf5", truncate("hdf5/*.hdf5")),
    Case(FINETUNE.replace("{recordings}", "{hdf5}"), "hdf5", write("hdf5/*.hdf5", LFS)),
    Case(FINETUNE.replace("{recordings}", "{lerobot}"), "info.json", write("lerobot/meta/info.json", "{")),
    Case(FINETUNE.replace("{recordings}", "{lerobot}"), "info.json|nested", write("lerobot/meta/info.json", DEEP)),
    Case(FINETUNE.replace("{recordings}", "{lerobot}"), "info.json", write("lerobot/meta/info.json", "[1]")),
    Case(
        FINETUNE.replace("{recordings}", "{lerobot}"), "info.json", set_json("lerobot/meta/info.json", "fps", value=0)
    ),
    Case(
        FINETUNE.replace("{recordings}", "{lerobot}"),
        "features",
        set_json("lerobot/meta/info.json", "features", value=3),
    ),
    Case(FINETUNE.replace("{recordings}", "{lerobot}"), "file-000", truncate("lerobot/data/*/*.parquet")),
    Case(FINETUNE.replace("{recordings}", "{lerobot}"), "action", without_column("lerobot/data/*/*.parquet", "action")),
    Case(FINETUNE.replace("{recordings}", "{lerobot}"), "action", null_row("lerobot/data/*/*.parquet", "action")),
    Case(
        FINETUNE.replace("{recordings}", "{lerobot}"),
        "frame_index|episode_index",
        without_column("lerobot/data/*/*.parquet", "episode_index"),
    ),
    Case(FINETUNE.replace("{recordings}", "{lerobot}"), "episodes", delete("lerobot/meta/episodes")),
    # Results of evaluations.
    *(
        Case(COMPARE, "results.json|nested", write("other/results.json", text))
        for text in ("", "{", "[1]", "{}", '{"schema_version": 2}', "null", DEEP, b"\xff\xfe")
    ),
    *(
        Case(COMPARE, f"results.json.*{key}", set_json("other/results.json", key, value=value))
        for key, value in (
            ("episode_results", 3),
            ("episode_results", [{}]),
            ("episode_results", [{"task": "left", "index": 0}]),
            ("provenance", None),
            ("protocol", []),
        )
    ),
    Case(RANDOM.replace("{out}", "{notes}"), "episodes.jsonl|nested", write("notes/episodes.jsonl", f"{DEEP}\n{{}}\n")),
    Case(RANDOM.replace("{out}", "{notes}"), "episodes.jsonl", write("notes/episodes.jsonl", "[1]\n[2]\n")),
    Case(
        RANDOM.replace("{out}", "{notes}"),
        "notes holds an eval|not the record of an evaluation",
        write("notes/episodes.jsonl", '{}\n{"task": 1}\n'),
    ),
    # Recordings and demos that are to go on.
    Case(RECORD.replace("{out}", "{recordings}"), "recording.json", write("recordings/recording.json", "{")),
    Case(RECORD.replace("{out}", "{recordings}"), "recording.json|nested", write("recordings/recording.json", DEEP)),
    Case(RECORD.replace("{out}", "{recordings}"), "recording.json", write("recordings/recording.json", "[]")),
    Case(
        RECORD.replace("{out}", "{recordings}"),
        "other options",
        set_json("recordings/recording.json", "settings", "noise", value=9),
    ),
    Case(DEMO.replace("{out}", "{notes}"), "demo.json", write("notes/demo.json", "{")),
    Case(DEMO.replace("{out}", "{notes}"), "demo.json|nested", write("notes/demo.json", DEEP)),
    Case(DEMO.replace("{out}", "{notes}"), "demo.json", write("notes/demo.json", "[]")),
    # Models.
    *(
        Case(command, names, spoil)
        for command, names, folder in (
            (EXTRACT, "idm", "lam/idm"),
            (SKILLS, "hilam|latent statistics", "hilam"),
            (EVAL, "policy", "policy"),
        )
        for spoil in (
            truncate(f"{folder}/model.safetensors"),
            write(f"{folder}/model.safetensors", b""),
            write(f"{folder}/model.safetensors", LFS),
            delete(f"{folder}/model.safetensors"),
            nan_weights(f"{folder}/model.safetensors"),
            write(f"{folder}/config.json", "{"),
            write(f"{folder}/config.json", DEEP),
            write(f"{folder}/config.json", "[]"),
        )
    ),
    Case(HILAM.replace("{out}", "{run}") + " --resume", "checkpoint", truncate("hilam-run/checkpoint-*/*.safetensors")),
]
CASES = [*OPTIONS, *FILES]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("good")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        patch.delenv("HILAM_DEBUG", raising=False)
        register_simulator(TOY)
        make_artifacts(root)
        yield root
        unregister_simulator("toy")


def _id(case: Case) -> str:
    return " ".join(case.command.split()[: 2 if case.command.startswith("train ") else 1])


def _parameters() -> list[Any]:
    return [pytest.param(case, id=f"{number} {_id(case)}") for number, case in enumerate(CASES)]


def test_the_sweep_is_wide() -> None:
    assert len(CASES) >= 150
    commands = {" ".join(case.command.split()[: 2 if case.command.startswith("train ") else 1]) for case in CASES}
    stages = {f"train {stage}" for stage in ("lam", "hilam", "policy", "finetune")}
    assert stages | {"demo", "doctor", "record", "extract", "lam-report", "skills", "view", "eval"} <= commands


@pytest.mark.parametrize("case", _parameters())
def test_a_bad_input_ends_in_one_line_and_changes_nothing(
    case: Case, good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    shutil.copytree(good, root)
    if case.spoil is not None:
        case.spoil(root)
    monkeypatch.chdir(root)
    before = listing(root)
    names = ("videos", "empty", "notes", "lam", "lapa", "latents", "codes", "hilam", "skills", "policy", "recordings")
    places = {name: root / name for name in (*names, "hdf5", "lerobot", "results", "other", "missing", "out")}
    places |= {"options": root / "options.yaml", "run": root / "hilam-run"}
    arguments = [part.strip("'") for part in case.command.format(**places).split()]
    code = run(*arguments)
    said = capfd.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert code in (1, 2), said
    assert "Traceback" not in said
    assert len(lines) == 1 if code == 1 else ("Usage:" in said or "Error" in said), said
    line = lines[0] if lines else " ".join(said.split())
    assert "has a bug" not in line
    assert re.search(case.names, line), line
    after = listing(root)
    assert {name for name in before if after.get(name) != before[name]} == set()
    assert not {name for name in after if name not in before}, "something was written"
