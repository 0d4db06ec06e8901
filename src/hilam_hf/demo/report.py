"""The demo's report: one record of what came out, as JSON, as a page and as text."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..envs.registry import get_simulator
from ..evaluation.provenance import PACKAGES, machine, package_versions
from ..files import path_inside, read_json
from ..hub import Measurement, write_model_card
from ..publishing import public_name
from ..viz import plot_success_bars
from .config import SIMULATOR, DemoConfig
from .page import write_report
from .paths import DemoPaths
from .policy_steps import WITH, WITHOUT
from .state import STATE_FILE

ERROR_AIM = 0.75
PROBE_AIM = 0.5
SUCCESS_AIM = 0.6
TASKS_AIM = 2


@dataclass(frozen=True)
class DemoReport:
    """What came out of a demo.

    Attributes:
        record: Content of `report.json`.
        page: The HTML page.
    """

    record: dict[str, Any]
    page: Path

    def text(self) -> str:
        """The report in a few lines for the terminal."""
        record = self.record
        lines = [record["summary"], ""]
        lam, hilam = record["lam"], record["hilam"]
        lines.append(
            f"LAM       next-frame error {lam['next_frame_error']:.2e}, {lam['error_vs_copy']:.0%} of copying's "
            f"{lam['copy_error']:.2e} (with another pair's latent action "
            f"{lam['shuffled_error'] / lam['copy_error']:.0%})"
        )
        if lam["probe_r2"] is not None:
            axes = ", ".join(f"{axis} {value:.2f}" for axis, value in zip("xyz", lam["probe_r2_per_axis"], strict=True))
            lines.append(f"          R² of a linear probe to end-effector displacement {lam['probe_r2']:.2f} ({axes})")
        lines.append(
            f"HiLAM     next-latent error {hilam['next_latent_error']:.3f}, {hilam['error_vs_repeat']:.0%} of the "
            f"{hilam['repeat_error']:.3f} of repeating the last"
        )
        for stage in hilam["stages"]:
            lines.append(
                f"          stage {stage['stage']}: boundary rate {stage['boundary_rate']:.3f}, target "
                f"{stage['target_rate']:.3f}; a segment lasts {stage['mean_segment_length']:.1f} frames (median "
                f"{stage['median_length']}, 90 % at most {stage['length_90']}), {stage['one_step_share']:.0%} of them "
                f"one; {stage['segments_per_episode']:.1f} segments an episode"
            )
            if stage["warning"] is not None:
                lines.append(f"          Warning: {stage['warning']}.")
        for arm in (WITH, WITHOUT) if "policies" in record else ():
            lines.append(f"Policies  {arm.replace('_', ' ')}: {_rate(record['policies'][arm]['overall'])}")
            lines += [f"          {task}: {_rate(rate)}" for task, rate in record["policies"][arm]["tasks"].items()]
        lines.append("")
        lines += [
            f"{'met    ' if aim['met'] else 'not met'}  {aim['name']}: {aim['value']} (aim {aim['aim']})"
            for aim in record["aims"]
        ]
        lines += ["", f"All steps took {record['provenance']['seconds'] / 60:.1f} minutes. Report: {self.page}"]
        return "\n".join(lines)


def make_report(config: DemoConfig, paths: DemoPaths, steps: dict[str, dict[str, Any]]) -> DemoReport:
    """Puts the steps' results together and writes `report.json` and `report.html`."""
    results = {name: step["result"] for name, step in steps.items()}
    record: dict[str, Any] = {
        "title": "From videos to a policy" if config.videos is None else "From videos to skills",
        "steps": [
            {"name": name, "seconds": step["seconds"], "detail": step["result"]["detail"]}
            for name, step in steps.items()
        ],
        "lam": _lam(results),
        "hilam": _without_detail(results["train HiLAM"]),
        "skills": _without_detail(results["extract skills"]),
    }
    if config.videos is None:
        record["policies"] = _policies(config, results)
    record |= {
        "summary": _summary(config, record),
        "aims": _aims(record),
        "artifacts": _artifacts(config, paths),
        "provenance": {
            "seed": config.seed,
            "packages": package_versions((*PACKAGES, *get_simulator(SIMULATOR).packages)),
            "machine": machine(),
            "seconds": round(sum(step["seconds"] for step in steps.values()), 1),
            "options": dataclasses.asdict(config) | {"videos": config.videos and public_name(config.videos)},
        },
    }
    _write_cards(config, paths, record)
    (paths.folder / "report.json").write_text(json.dumps(record, indent=2) + "\n")
    videos = []
    if config.videos is None:
        names = results["roll out with pretraining"]["videos"]
        videos = [path_inside(paths.evaluation(WITH), name, where=str(paths.folder / STATE_FILE)) for name in names]
    page = write_report(paths.folder / "report.html", record, _figures(paths, record), videos)
    return DemoReport(record, page)


def _lam(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    extraction = results["extract latent actions"]
    lam = _without_detail(results["train latent actions"])
    lam["episodes"] = results["check the videos"]["episodes"]
    lam["rejected"] = results["check the videos"]["rejected"] + extraction["rejected"]
    # Unknown where true motion is: videos without a simulator behind them.
    lam["probe_r2"] = extraction.get("probe_r2")
    lam["probe_r2_per_axis"] = extraction.get("probe_r2_per_axis")
    return lam


def _policies(config: DemoConfig, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    arms = {arm: results[f"roll out {arm.replace('_', ' ')}"] for arm in (WITH, WITHOUT)}
    return {
        "tasks": list(arms[WITH]["tasks"]),
        **{arm: {"overall": result["overall"], "tasks": result["tasks"]} for arm, result in arms.items()},
        "demonstrations_per_task": config.demonstrations_per_task,
        "finetune_steps": config.finetuning.max_steps,
    }


def _aims(record: dict[str, Any]) -> list[dict[str, Any]]:
    lam = record["lam"]
    aims = [
        {
            "name": "next-frame error against copying the current frame",
            "aim": f"at most {ERROR_AIM:.0%}",
            "value": f"{lam['error_vs_copy']:.0%}",
            "met": lam["error_vs_copy"] <= ERROR_AIM,
        }
    ]
    if lam["probe_r2"] is not None:
        aims.append(
            {
                "name": "R² of a linear probe from latent action to displacement",
                "aim": f"at least {PROBE_AIM}",
                "value": f"{lam['probe_r2']:.2f}",
                "met": lam["probe_r2"] >= PROBE_AIM,
            }
        )
    if "policies" in record:
        good = [t for t, rate in record["policies"][WITH]["tasks"].items() if rate["rate"] >= SUCCESS_AIM]
        aims.append(
            {
                "name": f"tasks with a success rate of at least {SUCCESS_AIM:.0%} with pretraining",
                "aim": f"at least {TASKS_AIM}",
                "value": f"{len(good)}" + (f" ({', '.join(good)})" if good else ""),
                "met": len(good) >= TASKS_AIM,
            }
        )
    return aims


def _summary(config: DemoConfig, record: dict[str, Any]) -> str:
    lam, hilam = record["lam"], record["hilam"]
    source = "experts' videos" if config.videos is None else "videos"
    text = (
        f"From {record['skills']['num_episodes']} {source} without a single action, the latent action model learned "
        f"to predict the next frame with {lam['error_vs_copy']:.0%} of the error of copying, and HiLAM cut the videos "
        f"into skills of {hilam['stages'][-1]['mean_segment_length']:.0f} frames on average."
    )
    if "policies" not in record:
        return text
    policies = record["policies"]
    return (
        f"{text} A policy pretrained on them and fine-tuned on {policies['demonstrations_per_task']} demonstrations a "
        f"task succeeds in {policies[WITH]['overall']['rate']:.0%} of its rollouts; without pretraining, in "
        f"{policies[WITHOUT]['overall']['rate']:.0%}."
    )


def _artifacts(config: DemoConfig, paths: DemoPaths) -> list[dict[str, str]]:
    models = [
        ("inverse dynamics model", paths.lam / "idm", "AutoInverseDynamicsModel"),
        ("forward dynamics model", paths.lam / "fdm", "AutoForwardDynamicsModel"),
        ("HiLAM", paths.hilam / "hilam", "HiLAMModel"),
    ]
    if config.videos is None:
        models += [
            ("pretrained policy", paths.pretraining / "policy", "HierarchicalPolicy"),
            ("fine-tuned policy", paths.finetuning(WITH) / "policy", "HierarchicalPolicy"),
            ("policy without pretraining", paths.finetuning(WITHOUT) / "policy", "HierarchicalPolicy"),
        ]
    corpora = [("latent-action corpus", paths.latent_actions), ("latent-skill corpus", paths.latent_skills)]
    return [
        {"name": name, "path": paths.relative(path), "load": f'{kind}.from_pretrained("{path}")'}
        for name, path, kind in models
    ] + [{"name": name, "path": paths.relative(path), "load": f'load_dataset("{path}")'} for name, path in corpora]


def _write_cards(config: DemoConfig, paths: DemoPaths, record: dict[str, Any]) -> None:
    """Gives every checkpoint a card with what was measured of it."""
    simulator = get_simulator(SIMULATOR).title
    source = f"{simulator} expert videos" if config.videos is None else "user videos"
    lam, hilam = record["lam"], record["hilam"]
    measured: dict[str, list[Measurement]] = {
        paths.relative(paths.lam / "idm"): []
        if lam["probe_r2"] is None
        else [Measurement(metric="probe_r2", value=lam["probe_r2"], dataset=source, note="held out")],
        paths.relative(paths.lam / "fdm"): [
            Measurement(metric="error_vs_copy", value=lam["error_vs_copy"], dataset=source, note="held out")
        ],
        paths.relative(paths.hilam / "hilam"): [
            Measurement(metric="error_vs_repeat", value=hilam["error_vs_repeat"], dataset=source, note="held out")
        ],
    }
    for arm in (WITH, WITHOUT) if "policies" in record else ():
        measured[paths.relative(paths.finetuning(arm) / "policy")] = [
            Measurement(metric="success_rate", value=rate["rate"], dataset=f"{simulator} {task}", note=_rate(rate))
            for task, rate in record["policies"][arm]["tasks"].items()
        ]
    for artifact in record["artifacts"]:
        if "from_pretrained" in artifact["load"]:
            kind = artifact["load"].partition(".")[0]
            write_model_card(
                paths.folder / artifact["path"],
                title=f"{artifact['name'][0].upper()}{artifact['name'][1:]} of the hilam-hf demo",
                description=f"Trained by `hilam demo` on {source} ({record['skills']['num_episodes']} episodes).",
                usage=f'from hilam_hf import {kind}\n\nmodel = {kind}.from_pretrained("{artifact["path"]}")',
                measurements=measured.get(artifact["path"], []),
                provenance=record["provenance"] | _weights(paths.folder / artifact["path"]),
            )


def _weights(folder: Path) -> dict[str, Any]:
    """Which weights a trained model has: those of the last step, their average, or the best ones."""
    return {"weights": read_json(folder / "config.json").get("trained_weights")}


def _figures(paths: DemoPaths, record: dict[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "lam/next_frames": paths.figure("next_frames"),
        "lam/training": paths.figure("lam_training"),
        "hilam/boundary_rates": paths.figure("boundary_rates"),
        "hilam/training": paths.figure("hilam_training"),
    }
    for number in range(record["skills"]["timelines"]):
        figures[f"skills/timeline_{number + 1}"] = paths.figure(f"timeline_{number}")
    if "policies" in record:
        arms = {arm.replace("_", " "): record["policies"][arm]["tasks"] for arm in (WITH, WITHOUT)}
        figures["policies/success"] = plot_success_bars(arms, aim=SUCCESS_AIM)
        figures["policies/pretraining"] = paths.figure("pretraining")
        for arm in (WITH, WITHOUT):
            figures[f"policies/finetuning_{arm}"] = paths.figure(f"finetuning_{arm}")
    return figures


def _without_detail(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != "detail"}


def _rate(rate: dict[str, Any]) -> str:
    return (
        f"{rate['rate']:.0%} ({rate['successes']}/{rate['trials']}, 95 % interval {rate['low']:.0%}-{rate['high']:.0%})"
    )
