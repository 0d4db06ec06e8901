"""Model cards, made from what was measured."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData


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
        provenance: How it came about: versions, seeds, options.
        license: Licence as the Hub writes it.
        tags: Tags besides "robotics" and "hilam-hf".

    Returns:
        The card; `card.save(path)` writes it, `card.push_to_hub(id)` publishes it.
    """
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
    sections = [f"# {title}", description, f"```python\n{usage}\n```"]
    if measurements:
        rows = [f"| {m.dataset} | {m.metric} | {m.value:.4g} | {m.note} |" for m in measurements]
        sections.append("\n".join(["## Measured", "", "| on | what | value | |", "| --- | --- | --- | --- |", *rows]))
    if provenance:
        sections.append(f"## Provenance\n\n```json\n{json.dumps(provenance, indent=2)}\n```")
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


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
