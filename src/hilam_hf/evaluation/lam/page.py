"""The page of a latent action model's report: every number with how to read it, and the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from matplotlib.figure import Figure

from ...viz.components import Tile, bar, comparison, fact_table, nested_table, page_header, table
from ...viz.page import Child, Html, page, read_picture, tag, write_page, zoomable_figure
from ...viz.text import count, lower_by, number, percent
from .figures import plot_code_use, plot_episode_ratios, plot_latent_spread

# The figure and its caption.
Captioned: TypeAlias = tuple[Figure, str]
R2 = "R\N{SUPERSCRIPT TWO}"
_ERROR = "mean squared error, pixels in [0, 1]"
MARKS = {"warning": ("missed", "\N{BALLOT X} warning"), "note": ("unknown", "note")}


def write_lam_page(path: str | Path, report: Mapping[str, Any], figures: Mapping[str, Captioned]) -> Path:
    """Write a report's page; nothing is fetched, and it reads without scripts.

    Args:
        path: Where to write, such as `out/report.html`.
        report: The content of `report.json`, as `LamReport.to_dict` gives it.
        figures: Pictures with their captions. The key says where they stand: `"decoding/NAME"` or `"transfer/NAME"`.

    Returns:
        The path written.

    Raises:
        ValueError: A figure's key names no place on the page.
        OSError: The page cannot be written.
    """
    wrong = [key for key in figures if key.partition("/")[0] not in ("decoding", "transfer")]
    if wrong:
        raise ValueError(f"figure {wrong[0]!r} has no place: its key must be decoding/NAME or transfer/NAME")
    blocks: list[tuple[str, str, Child]] = [
        ("findings", "Warnings and notes", _findings(report["findings"])),
        ("decoding", "Next-frame error", _decoding(report["decoding"], figures)),
        ("listening", "Does the decoder listen?", _listening(report["decoding"], figures)),
    ]
    if report["codes"] is not None:
        blocks.append(("codes", "Codebook", _codes(report["codes"])))
    blocks += [
        ("latents", "Latent actions", _latents(report["latents"])),
        ("probe", "True motion", _probe(report["probe"])),
        ("appearance", "Motion or looks?", _appearance(report["appearance"])),
        ("transfer", "From one video to another", _transfers(report["decoding"], figures)),
        ("videos", "Videos", _videos(report["videos"])),
        ("provenance", "Provenance", nested_table(report["provenance"])),
    ]
    body = tag("main", (tag("section", tag("h2", title), content, id=name) for name, title, content in blocks))
    contents = [(name, title) for name, title, _ in blocks]
    header = page_header(report["title"], _summary(report), _tiles(report), contents)
    return write_page(path, page(report["title"], header, body))


def _summary(report: Mapping[str, Any]) -> str:
    videos, warnings = report["videos"], _warnings(report)
    model = report["provenance"]["model"]
    name = model["name"] or model["inverse_dynamics"]
    pairs, folder = count(videos["num_pairs"], "pair"), count(videos["num_videos"], "video")
    measured = f"{name}, measured on {pairs} of frames of {folder}. "
    if not warnings:
        return measured + "No warning: nothing that was measured speaks against these latent actions."
    reasons = "; ".join(finding["reason"] for finding in warnings)
    return f"{measured}{count(len(warnings), 'warning')}: {reasons}."


def _warnings(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [finding for finding in report["findings"] if finding["severity"] == "warning"]


def _tiles(report: Mapping[str, Any]) -> list[Tile]:
    decoding, codes, latents, probe = (report[name] for name in ("decoding", "codes", "latents", "probe"))
    tiles: list[Tile] = []
    if "reason" not in decoding:
        interval = _interval(decoding["error_vs_copy_interval"], "of copying's error")
        tiles.append((lower_by(decoding["error_vs_copy"]), "next-frame error, against copying the frame", interval))
        times = number(decoding["shuffled_vs_own"], decimals=2)
        tiles.append((f"\N{MULTIPLICATION SIGN} {times}", "error with another video's latent action", "1: not used"))
    if codes is not None:
        mean = sum(codes["perplexity"]) / len(codes["perplexity"])
        tiles.append((number(mean, decimals=1), "perplexity of a position", f"of {codes['codebook_size']} codes"))
    else:
        rank = number(latents["entropy_rank"], decimals=1)
        tiles.append((rank, "effective rank of latent actions", f"of {latents['width']} dimensions"))
    if "reason" not in probe:
        note = f"pixel differences: {number(probe['pixels_r2'], decimals=2)}"
        tiles.append((f"{R2} {number(probe['r2'], decimals=2)}", "of a linear probe to true motion", note))
    return tiles


def _findings(findings: Sequence[Mapping[str, Any]]) -> Child:
    if not findings:
        return tag("p", "None.")
    rows = [
        tag(
            "tr",
            tag("td", tag("span", MARKS[finding["severity"]][1], class_=f"mark {MARKS[finding['severity']][0]}")),
            tag("td", _sentence(finding["reason"])),
            tag("td", _sentence(finding["remedy"])),
        )
        for finding in findings
    ]
    return table(["", "what was found", "what to do"], rows)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _decoding(decoding: Mapping[str, Any], figures: Mapping[str, Captioned]) -> Child:
    if "reason" in decoding:
        return _not_measured(decoding)
    ratios = [episode["error_vs_copy"] for episode in decoding["episodes"]]
    known = [ratio for ratio in ratios if ratio is not None]
    facts = [
        ("error / error of copying", number(decoding["error_vs_copy"])),
        ("95 % interval, videos drawn anew", _interval(decoding["error_vs_copy_interval"])),
        ("peak signal-to-noise ratio, predicted", _decibel(decoding["psnr"])),
        ("peak signal-to-noise ratio, copy", _decibel(decoding["copy_psnr"])),
        ("pairs, videos", f"{number(decoding['num_pairs'])}, {number(len(ratios))}"),
    ]
    chart = None
    if known:
        figure = plot_episode_ratios(known, decoding["error_vs_copy"], decoding["error_vs_copy_interval"])
        chart = _figure(figure, "Each video's error as a fraction of copying's; the band is the 95 % interval.")
    return [
        _how_to_read(
            "The decoder redraws the later frame of a pair from the earlier one and the latent action. It should have "
            "clearly less error than showing the earlier frame again, on nearly every video."
        ),
        comparison(
            _ERROR,
            ("predicted", decoding["next_frame_error"]),
            ("copying the current frame", decoding["copy_error"]),
        ),
        fact_table(facts),
        chart,
        _placed(figures, "decoding/next_frames"),
    ]


def _listening(decoding: Mapping[str, Any], figures: Mapping[str, Captioned]) -> Child:
    if "reason" in decoding:
        return _not_measured(decoding)
    lost = "share of the gain over copying that is lost"
    facts = [
        ("shuffled / own", number(decoding["shuffled_vs_own"])),
        ("95 % interval, videos drawn anew", _interval(decoding["shuffled_vs_own_interval"])),
        (f"shuffled: {lost}", _lost(decoding["improvement_lost_shuffled"])),
        ("constant / own", number(decoding["constant_vs_own"])),
        (f"constant: {lost}", _lost(decoding["improvement_lost_constant"])),
    ]
    if decoding["shuffled_within_episode"]:
        facts.append(("shuffled within the same video, for want of another", f"{decoding['shuffled_within_episode']}"))
    return [
        _how_to_read(
            "With the latent action of another video, or one for all (the "
            f"{decoding['constant_latent']}), the error must rise; where it stays the same, the decoder guesses the "
            "next frame from the current one and the latent actions carry nothing for it."
        ),
        comparison(
            _ERROR,
            ("own latent action", decoding["next_frame_error"]),
            ("another video's", decoding["shuffled_error"]),
            (f"constant ({decoding['constant_latent']})", decoding["constant_error"]),
            ("copying the current frame", decoding["copy_error"]),
        ),
        fact_table(facts),
        _placed(figures, "decoding/same_frame"),
    ]


def _codes(codes: Mapping[str, Any]) -> Child:
    size = codes["codebook_size"]
    rows = [
        tag(
            "tr",
            tag("th", f"position {position}", scope="row"),
            tag("td", number(perplexity, decimals=2), class_="number"),
            tag("td", f"{used} of {size}", class_="number"),
            tag("td", bar(perplexity / size), class_="bars"),
        )
        for position, (perplexity, used) in enumerate(zip(codes["perplexity"], codes["used"], strict=True), start=1)
    ]
    facts = [
        ("codes that no position uses", number(len(codes["dead_codes"]))),
        ("different latent actions", f"{codes['distinct_sequences']:,} of {codes['possible_sequences']:,} possible"),
        ("their perplexity", f"{number(codes['sequence_perplexity'])}, of {number(codes['num_latents'])} measured"),
    ]
    return [
        _how_to_read(
            "Perplexity is how many equally used codes would be as varied: near the codebook's size all are used, near "
            "1 a position says nothing. That of whole latent actions cannot exceed the number measured."
        ),
        table(["", ("perplexity", "number"), ("codes used", "number"), "perplexity of the codebook's size"], rows),
        fact_table(facts),
        _figure(plot_code_use(codes["counts"]), "How often each code comes up at each position."),
    ]


def _latents(latents: Mapping[str, Any]) -> Child:
    facts = [
        ("dimensions", number(latents["width"])),
        ("effective rank, exp of the spectrum's entropy", number(latents["entropy_rank"], decimals=1)),
        ("participation ratio", number(latents["participation_ratio"], decimals=1)),
        ("spread relative to the norm", number(latents["relative_spread"])),
        ("dimensions that hardly vary", number(latents["dead_dimensions"])),
        ("not finite", f"{latents['num_not_finite']} of {latents['num_latents']}"),
    ]
    first = _first_shares(latents["variance_shares"])
    shares = latents["variance_shares"]
    figure = plot_latent_spread([value or 0.0 for value in latents["std"]], shares, latents["entropy_rank"])
    return [
        _how_to_read(
            "Latent actions should vary in several directions: a spread near 0 is a constant, and an effective rank "
            "near 1 means that a single number is left of them."
        ),
        fact_table([*facts, *first]),
        _figure(figure, "Spread of the latent vectors, and the variance in their principal components."),
    ]


def _first_shares(shares: Sequence[float]) -> list[tuple[str, str]]:
    numbers = [n for n in (1, 2, 4, 8, 16) if n < len(shares)]
    return [
        (f"variance in the first {'component' if n == 1 else f'{n} components'}", percent(sum(shares[:n])))
        for n in numbers
    ]


def _probe(probe: Mapping[str, Any]) -> Child:
    if "reason" in probe:
        return tag("p", f"Not measured: {probe['reason']}.")
    names = [*probe["names"], "mean"]
    latents = [*probe["r2_per_dimension"], probe["r2"]]
    pixels = [*probe["pixels_r2_per_dimension"], probe["pixels_r2"]]
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            tag("td", f"{number(ours, decimals=2)} ", bar(max(ours or 0, 0)), class_="result"),
            tag("td", f"{number(theirs, decimals=2)} ", bar(max(theirs or 0, 0), plain=True), class_="result"),
            class_="total" if name == "mean" and index == len(names) - 1 else None,
        )
        for index, (name, ours, theirs) in enumerate(zip(names, latents, pixels, strict=True))
    ]
    facts = [
        ("motion", f"{probe['source']} ({probe['unit']})"),
        ("control: fitted to the motion of other pairs", f"{R2} {number(probe['control_r2'], decimals=2)}"),
        ("fitted to", _pairs_of(probe, "fitted")),
        ("measured on other videos", _pairs_of(probe, "held_out")),
        ("ridge weight, by cross-validation over videos", number(probe["regularisation"])),
    ]
    if probe["constant_dimensions"]:
        facts.append(("left out, as they do not vary", ", ".join(probe["constant_dimensions"])))
    if probe["num_episodes_without_motion"]:
        facts.append(("videos whose motion is not known", number(probe["num_episodes_without_motion"])))
    return [
        _how_to_read(
            f"A linear map from latent action to true motion, measured on videos it was not fitted to: {R2} 1 is "
            "perfect, 0 no better than the mean. The control should be near 0; pixel differences (as many principal "
            "components as a latent action is wide) show what is to be had without a model."
        ),
        table([f"{R2}, held-out videos", "latent actions", "pixel differences"], rows),
        fact_table(facts),
    ]


def _pairs_of(probe: Mapping[str, Any], part: str) -> str:
    return f"{count(probe[f'num_{part}_pairs'], 'pair')} of {count(probe[f'num_{part}_episodes'], 'video')}"


def _appearance(appearance: Mapping[str, Any]) -> Child:
    facts = [
        ("variance of the latent actions of still pairs / of all", number(appearance["still_share"])),
        ("share of the variance between videos", percent(appearance["between_episode_share"])),
        ("the same by chance", percent(appearance["between_episode_share_by_chance"])),
    ]
    return [
        _how_to_read(
            "A still pair is a frame beside itself. Where its latent actions vary as much as the others (a ratio near "
            "1), they describe the frame; near 0, they describe what changes. A large share between videos points the "
            "same way, but videos of different tasks also move differently."
        ),
        fact_table(facts),
    ]


def _transfers(decoding: Mapping[str, Any], figures: Mapping[str, Captioned]) -> Child:
    if "reason" in decoding:
        return _not_measured(decoding)
    places = [key for key in figures if key.startswith("transfer/")]
    if not places:
        return tag("p", "Not shown: it takes two videos.")
    return [
        _how_to_read(
            "Consecutive latent actions of a source video are applied one after another, each to the last prediction: "
            "the target should move as the source does, and keep its own looks."
        ),
        [_placed(figures, key) for key in places],
    ]


def _videos(videos: Mapping[str, Any]) -> Child:
    facts = [
        ("videos", number(videos["num_videos"])),
        ("pairs of frames", number(videos["num_pairs"])),
        ("mean squared difference of the two frames", number(videos["mean_change"])),
        ("set aside", number(len(videos["rejected"]))),
    ]
    rows = [
        tag("tr", tag("td", tag("code", video["path"])), tag("td", video["reason"])) for video in videos["rejected"]
    ]
    return [fact_table(facts), table(["set aside", "reason"], rows) if rows else None]


def _how_to_read(text: str) -> Html:
    return tag("p", text)


def _not_measured(section: Mapping[str, Any]) -> Html:
    return tag("p", f"Not measured: {section['reason']}.")


def _placed(figures: Mapping[str, Captioned], key: str) -> Html | None:
    return _figure(*figures[key]) if key in figures else None


def _figure(figure: Figure, caption: str) -> Html:
    return zoomable_figure(read_picture(figure, caption), caption)


def _interval(interval: Sequence[float] | None, unit: str = "") -> str:
    if interval is None:
        return "" if unit else number(None)
    low, high = (number(bound, decimals=2) for bound in interval)
    return f"95 % interval {low} to {high} {unit}" if unit else f"{low} to {high}"


def _decibel(value: float | None) -> str:
    return number(value) if value is None else f"{number(value, decimals=1)} dB"


def _lost(share: float | None) -> str:
    return "there is no gain" if share is None else percent(share)
