"""What a report must contain: the contract between the demo, `report.json` and the page.

A report is a plain mapping. `title`, `summary`, `steps`, `aims`, `artifacts` and `provenance` are required. Each of
`lam`, `hilam`, `skills` and `policies` may be absent, and then its section is left out; a section that is present has
every required key, and further keys are shown as they are. A number that was not measured is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeAlias

Kind: TypeAlias = tuple[type, ...]

NUMBER: Kind = (Real, type(None))
COUNT: Kind = (Integral,)
TEXT: Kind = (str,)
RECORD: Kind = (Mapping,)
RECORDS: Kind = (Sequence,)

REPORT: dict[str, Kind] = {
    "title": TEXT,
    "summary": TEXT,
    "steps": RECORDS,
    "aims": RECORDS,
    "artifacts": RECORDS,
    "provenance": RECORD,
}
SECTIONS: dict[str, dict[str, Kind]] = {
    "lam": {"next_frame_error": NUMBER, "copy_error": NUMBER, "error_vs_copy": NUMBER, "probe_r2": NUMBER},
    "hilam": {"next_latent_error": NUMBER, "repeat_error": NUMBER, "error_vs_repeat": NUMBER, "stages": RECORDS},
    "skills": {"num_episodes": COUNT, "num_segments": RECORD},
    "policies": {
        "tasks": RECORDS,
        "with_pretraining": RECORD,
        "without_pretraining": RECORD,
        "demonstrations_per_task": COUNT,
        "finetune_steps": COUNT,
    },
}
STEP: dict[str, Kind] = {"name": TEXT, "seconds": NUMBER, "detail": TEXT}
AIM: dict[str, Kind] = {"name": TEXT, "aim": (str, Real), "value": (str, Real, type(None)), "met": (bool, type(None))}
ARTIFACT: dict[str, Kind] = {"name": TEXT, "path": TEXT, "load": TEXT}
STAGE: dict[str, Kind] = {
    "stage": COUNT,
    "boundary_rate": NUMBER,
    "target_rate": NUMBER,
    "mean_segment_length": NUMBER,
    "one_step_share": NUMBER,
    "median_length": NUMBER,
    "length_90": NUMBER,
    "segments_per_episode": NUMBER,
    "warning": (str, type(None)),
}
ARM: dict[str, Kind] = {"overall": RECORD, "tasks": RECORD}
SUCCESS: dict[str, Kind] = {"successes": COUNT, "trials": COUNT, "rate": (Real,), "low": (Real,), "high": (Real,)}

ARMS = ("with_pretraining", "without_pretraining")


def check_report(report: Mapping[str, Any]) -> None:
    """Check a report against the schema of this module.

    Raises:
        ValueError: A required key is missing or has a value of the wrong type; the message names the key with its whole
            path, such as `policies.with_pretraining.tasks.door-open.low`.
    """
    _check_record(report, REPORT, "")
    for name, schema in (("steps", STEP), ("aims", AIM), ("artifacts", ARTIFACT)):
        _check_records(report[name], schema, name)
    for name, schema in SECTIONS.items():
        if name in report:
            _check_value(report[name], RECORD, name)
            _check_record(report[name], schema, f"{name}.")
    if "hilam" in report:
        _check_records(report["hilam"]["stages"], STAGE, "hilam.stages")
    if "skills" in report:
        _check_num_segments(report["skills"]["num_segments"])
    if "policies" in report:
        _check_policies(report["policies"])


def _check_num_segments(num_segments: Mapping[Any, Any]) -> None:
    if not num_segments:
        raise ValueError("skills.num_segments in the report is empty; give the number of segments of each stage.")
    for stage, number in num_segments.items():
        if not str(stage).isdecimal():
            raise ValueError(f"skills.num_segments in the report has stage {stage!r}; expected a whole number.")
        _check_value(number, COUNT, f"skills.num_segments.{stage}")


def _check_policies(policies: Mapping[str, Any]) -> None:
    for arm in ARMS:
        path = f"policies.{arm}"
        _check_record(policies[arm], ARM, f"{path}.")
        _check_success(policies[arm]["overall"], f"{path}.overall")
        by_task = policies[arm]["tasks"]
        for task in policies["tasks"]:
            if task not in by_task:
                raise ValueError(f"The report misses {path}.tasks.{task}, but policies.tasks names that task.")
            _check_success(by_task[task], f"{path}.tasks.{task}")
        extra = sorted(set(by_task) - set(policies["tasks"]))
        if extra:
            raise ValueError(f"The report has {path}.tasks.{extra[0]}, but policies.tasks does not name that task.")


def _check_success(success: Any, path: str) -> None:
    _check_value(success, RECORD, path)
    _check_record(success, SUCCESS, f"{path}.")
    if not 0 <= success["low"] <= success["rate"] <= success["high"] <= 1:
        raise ValueError(
            f"{path} in the report must have 0 <= low <= rate <= high <= 1, got low {success['low']}, "
            f"rate {success['rate']}, high {success['high']}."
        )


def _check_records(records: Sequence[Any], schema: Mapping[str, Kind], path: str) -> None:
    for index, record in enumerate(records):
        _check_value(record, RECORD, f"{path}[{index}]")
        _check_record(record, schema, f"{path}[{index}].")


def _check_record(record: Mapping[str, Any], schema: Mapping[str, Kind], prefix: str) -> None:
    for key, kind in schema.items():
        if key not in record:
            raise ValueError(
                f"The report misses {prefix}{key}. If an older version made it, run the demo again with --overwrite."
            )
        _check_value(record[key], kind, f"{prefix}{key}")


def _check_value(value: Any, kind: Kind, path: str) -> None:
    # A bool is an int and a str is a sequence, to Python but not to a report.
    misfit = (isinstance(value, bool) and bool not in kind) or (isinstance(value, str) and str not in kind)
    if misfit or not isinstance(value, kind):
        expected = " or ".join("nothing" if k is type(None) else k.__name__ for k in kind)
        raise ValueError(f"{path} in the report must be of type {expected}, got {type(value).__name__}: {value!r}.")
