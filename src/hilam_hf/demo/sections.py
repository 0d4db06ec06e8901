"""The sections of a report, each from its part of the report, and the numbers that each puts at the top of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..viz.components import Tile, bar, comparison, fact_table, flatten, table
from ..viz.page import Child, Html, tag
from ..viz.text import count, duration, lower_by, number, percent
from .schema import ARMS, SECTIONS

ARM_NAMES = dict(zip(ARMS, ("with pretraining", "without pretraining"), strict=True))


def _steps(steps: Sequence[Mapping[str, Any]]) -> Child:
    known = [step["seconds"] for step in steps if step["seconds"] is not None]
    longest = max(known, default=0) or 1
    rows = [
        tag(
            "tr",
            tag("td", str(index), class_="muted"),
            tag("th", step["name"], scope="row"),
            tag("td", step["detail"]),
            tag("td", duration(step["seconds"]), class_="number"),
            tag("td", bar((step["seconds"] or 0) / longest), class_="bars"),
        )
        for index, step in enumerate(steps, start=1)
    ]
    total = tag(
        "tr",
        tag("td"),
        tag("th", "Total", scope="row"),
        tag("td"),
        tag("td", duration(sum(known)), class_="number"),
        tag("td"),
        class_="total",
    )
    return table(["", "step", "", ("time", "number"), ""], [*rows, total])


def _lam(lam: Mapping[str, Any]) -> Child:
    probe = "R\N{SUPERSCRIPT TWO} of a linear probe from latent action to end-effector displacement"
    facts = [
        ("error against copying", f"{_against(lam['error_vs_copy'])}; aim: at most 0.75"),
        (probe, f"{number(lam['probe_r2'])}; aim: at least 0.5"),
    ]
    return [
        tag(
            "p",
            "The inverse dynamics model sees two frames and gives a latent action; the forward dynamics model redraws "
            "the later frame from the earlier one and that latent action. All numbers are on held-out episodes.",
        ),
        comparison(
            "Next-frame error",
            ("forward dynamics", lam["next_frame_error"]),
            ("copying the current frame", lam["copy_error"]),
        ),
        fact_table([*facts, *_further(lam, "lam")]),
    ]


def _hilam(hilam: Mapping[str, Any]) -> Child:
    lengths = ("mean_segment_length", "median_length", "length_90", "segments_per_episode")
    rows = [
        tag(
            "tr",
            tag("th", f"stage {stage['stage']}", scope="row"),
            tag("td", percent(stage["boundary_rate"], decimals=1), class_="number"),
            tag("td", percent(stage["target_rate"], decimals=1), class_="number"),
            tag("td", percent(stage["one_step_share"]), class_="number"),
            *(tag("td", number(stage[name]), class_="number") for name in lengths),
            tag("td", bar(stage["boundary_rate"] or 0, interval=_tick(stage["target_rate"])), class_="bars"),
        )
        for stage in hilam["stages"]
    ]
    names = (
        *("boundary rate", "target", "segments of one step", "mean length (frames)", "median", "90 % at most"),
        "segments an episode",
    )
    head: list[str | tuple[str, str]] = ["", *((name, "number") for name in names), "rate; the tick is its target"]
    return [
        tag(
            "p",
            "HiLAM predicts the next latent action from those before it, and on the way learns where segments begin: "
            "each stage keeps a share of its input as boundaries.",
        ),
        comparison(
            "Next-latent error", ("HiLAM", hilam["next_latent_error"]), ("repeating the last", hilam["repeat_error"])
        ),
        fact_table([("error against repeating", _against(hilam["error_vs_repeat"])), *_further(hilam, "hilam")]),
        tag("h3", "Boundaries"),
        table(head, rows),
        *(tag("p", f"Warning: {stage['warning']}.") for stage in hilam["stages"] if stage["warning"] is not None),
    ]


def _skills(skills: Mapping[str, Any]) -> Child:
    facts = [("episodes", number(skills["num_episodes"]))]
    facts += [(f"segments of stage {stage}", number(segments)) for stage, segments in skills["num_segments"].items()]
    return [
        tag(
            "p",
            "A segment runs from one boundary to the next, and each has one skill vector. In a timeline, frames stand "
            "above the segments of each stage, numbered from 1; the hatched end has no latent action, as the later "
            "frame of its pair is missing.",
        ),
        fact_table([*facts, *_further(skills, "skills")]),
    ]


def _policies(policies: Mapping[str, Any]) -> Child:
    arms = [policies[arm] for arm in ARMS]

    def row(name: str, results: Sequence[Mapping[str, Any]], class_: str | None = None) -> Html:
        cells = (tag("td", _success(result, plain=index > 0), class_="result") for index, result in enumerate(results))
        return tag("tr", tag("th", name, scope="row"), cells, class_=class_)

    rows = [row(task, [arm["tasks"][task] for arm in arms]) for task in policies["tasks"]]
    rows.append(row("All tasks", [arm["overall"] for arm in arms], "total"))
    return [
        tag(
            "p",
            "Hierarchical policies, both fine-tuned on ",
            count(policies["demonstrations_per_task"], "demonstration"),
            " a task for ",
            count(policies["finetune_steps"], "step"),
            ". Brackets, and the lines over the bars, are 95 % Wilson intervals of the success rate.",
        ),
        table(["task", *ARM_NAMES.values()], rows),
        fact_table(_further(policies, "policies")),
    ]


def _success(result: Mapping[str, Any], *, plain: bool) -> Child:
    interval = f"[{100 * result['low']:.0f}, {100 * result['high']:.0f}]"
    return [
        f"{percent(result['rate'])} ",
        tag("span", f"{result['successes']}/{result['trials']} {interval}", class_="note nowrap"),
        bar(result["rate"], interval=(result["low"], result["high"]), plain=plain),
    ]


def _tick(position: float | None) -> tuple[float, float] | None:
    return None if position is None else (position, position)


def _against(ratio: float | None) -> str:
    """A ratio of errors as a number and in words."""
    return number(ratio) if ratio is None else f"{number(ratio)} ({lower_by(ratio)})"


def _further(section: Mapping[str, Any], name: str) -> list[tuple[str, str]]:
    """What a section holds beyond its schema, flattened to names and values."""
    return flatten({key: value for key, value in section.items() if key not in SECTIONS[name]})


def _lam_tiles(lam: Mapping[str, Any]) -> Iterator[Tile]:
    yield lower_by(lam["error_vs_copy"]), "next-frame error, against copying the current frame", "aim: 25 % lower"
    if lam["probe_r2"] is not None:
        label = "of a linear probe from latent action to end-effector displacement"
        yield f"R\N{SUPERSCRIPT TWO} {number(lam['probe_r2'], decimals=2)}", label, "aim: 0.5"


def _hilam_tiles(hilam: Mapping[str, Any]) -> Iterator[Tile]:
    yield lower_by(hilam["error_vs_repeat"]), "next-latent error, against repeating the last latent action", ""


def _skills_tiles(skills: Mapping[str, Any]) -> Iterator[Tile]:
    stage, segments = max(skills["num_segments"].items(), key=lambda item: int(item[0]))
    yield count(segments, "skill"), f"in {count(skills['num_episodes'], 'episode')}", f"segments of stage {stage}"


def _policies_tiles(policies: Mapping[str, Any]) -> Iterator[Tile]:
    with_pretraining, without = (policies[arm]["overall"] for arm in ARMS)
    note = f"{percent(without['rate'])} without, after the same demonstrations and steps"
    yield percent(with_pretraining["rate"]), "success of the policy with pretraining", note


SECTION_PAGES: dict[str, tuple[str, Callable[[Any], Child]]] = {
    "steps": ("What was done", _steps),
    "lam": ("Latent action model", _lam),
    "hilam": ("HiLAM", _hilam),
    "skills": ("Latent skills", _skills),
    "policies": ("Policies", _policies),
}
TILES: dict[str, Callable[[Any], Iterator[Tile]]] = {
    "lam": _lam_tiles,
    "hilam": _hilam_tiles,
    "skills": _skills_tiles,
    "policies": _policies_tiles,
}
