"""Model cards, made from what was measured."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..models.latent_actions.kinds import get_latent_action_kind
from ..publishing import public_values, table_cell


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One figure of a model card.

    Attributes:
        metric: What was measured, such as "success_rate".
        value: The figure.
        dataset: What it was measured on, such as "Meta-World drawer-open".
        note: What must be known to read it: an interval, the number of episodes, a baseline.
    """

    metric: str
    value: float
    dataset: str
    note: str = ""


def model_card(
    *,
    title: str,
    description: str,
    usage: str,
    measurements: Sequence[Measurement] = (),
    provenance: Mapping[str, Any] | None = None,
    license: str = "apache-2.0",
    tags: Sequence[str] = (),
) -> ModelCard:
    """A card whose front matter the Hub reads: tags, library, and the measurements as evaluation results.

    Args:
        title: First line, also the model's name in the evaluation results.
        description: What the model is and what it was trained on.
        usage: Python code that loads it.
        measurements: What was measured.
        provenance: How it came about: versions, seeds, options; absolute paths are told by their last name.
        license: Licence as the Hub writes it.
        tags: Tags besides "robotics" and "hilam-hf".

    Returns:
        The card; `card.save(path)` writes it, `card.push_to_hub(id)` publishes it.
    """
    sections = [f"# {title}", description, f"```python\n{usage}\n```"]
    if measurements:
        sections.append(f"## Measured\n\n{_table(measurements)}")
    if provenance:
        sections.append(f"## Provenance\n\n{_json_block(provenance)}")
    return ModelCard(_front_matter(title, measurements, license, tags) + "\n\n".join(sections) + "\n")


def latent_action_card_template(kind: str, folder: str | Path = "model_cards") -> Path:
    """The card's template that a kind of latent action model declares, for [`model_card_from_template`].

    Args:
        kind: Name of the kind.
        folder: The repository's folder of templates; a kind of another package may give a whole path instead.

    Raises:
        ValueError: If the kind is unknown.
    """
    return Path(folder) / get_latent_action_kind(kind).card


def model_card_from_template(
    template: str | Path,
    *,
    title: str,
    measurements: Sequence[Measurement],
    provenance: Mapping[str, Any],
    license: str = "apache-2.0",
    tags: Sequence[str] = (),
    **values: str,
) -> ModelCard:
    """A card from one of the templates in the repository's folder `model_cards`, or one of your own.

    Args:
        template: Markdown file with Jinja placeholders.
        title: `{{ title }}`, also the model's name in the evaluation results.
        measurements: What was measured, `{{ measured }}`: a table.
        provenance: How the model came about, `{{ provenance }}`: a block of JSON.
        license: Licence as the Hub writes it.
        tags: Tags besides "robotics" and "hilam-hf".
        **values: The template's other placeholders.

    Raises:
        FileNotFoundError: If there is no such template.
        ValueError: If placeholders and values are not the same.

    Example:
        >>> card = model_card_from_template(latent_action_card_template("lapa"), title="LAPA on Bridge", ...)
    """
    import jinja2
    from jinja2.meta import find_undeclared_variables

    text = Path(template).read_text(encoding="utf-8")
    given = {
        **values,
        "title": title,
        "measured": _table(measurements),
        "provenance": _json_block(provenance),
    }
    wanted = find_undeclared_variables(jinja2.Environment().parse(text))
    if wanted != given.keys():
        missing, unknown = sorted(wanted - given.keys()), sorted(given.keys() - wanted)
        raise ValueError(f"{template}: it also wants the values {missing}, and has no place for {unknown}")
    body = jinja2.Template(text, keep_trailing_newline=True).render(given)
    return ModelCard(_front_matter(title, measurements, license, tags) + body)


def _front_matter(title: str, measurements: Sequence[Measurement], license: str, tags: Sequence[str]) -> str:
    results = [
        EvalResult(
            task_type="robotics",
            dataset_type=measurement.dataset.lower().replace(" ", "-"),
            dataset_name=measurement.dataset,
            metric_type=measurement.metric,
            metric_value=measurement.value,
        )
        for measurement in measurements
    ]
    data = ModelCardData(
        license=license,
        library_name="hilam-hf",
        pipeline_tag="robotics",
        tags=["robotics", "hilam-hf", *tags],
        model_name=title,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def _table(measurements: Sequence[Measurement]) -> str:
    rows = [
        f"| {table_cell(m.dataset)} | {table_cell(m.metric)} | {m.value:.4g} | {table_cell(m.note)} |"
        for m in measurements
    ]
    return "\n".join(["| on | what | value | |", "| --- | --- | --- | --- |", *rows])


def _json_block(values: Mapping[str, Any]) -> str:
    return f"```json\n{json.dumps(public_values(values), indent=2)}\n```"


def write_model_card(folder: str | Path, **content: Any) -> Path:
    """Writes a card as the README.md of a checkpoint, where `push_to_hub` takes it along.

    Args:
        folder: Folder of the checkpoint.
        **content: Arguments of `model_card`.

    Raises:
        FileNotFoundError: If there is no checkpoint in the folder.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: there is no config.json, so no checkpoint; save the model first")
    path = folder / "README.md"
    model_card(**content).save(path)
    return path
