"""Records of policies and their training data, and the warning about lighting."""

from __future__ import annotations

import pytest

from hilam_hf.evaluation import ActingSpec, lighting_warning
from hilam_hf.evaluation.provenance import policy_record
from tests.evaluation.rollouts.test_scheduler import baku_policy


@pytest.mark.parametrize(
    ("recorded", "installed", "warned"),
    [
        ("3.3.0", "3.3.0", False),
        ("3.3.2", "3.3.3", True),
        ("3.3.10", "3.3.2", True),
        ("2.3.7", "3.3.2", False),
        ("3.3.3", "3.10.0", False),
        (None, "3.3.0", False),
        ("3.3.0", None, False),
    ],
)
def test_lighting_changed_with_one_version(recorded, installed, warned):
    warning = lighting_warning(recorded, installed)
    assert (warning is not None) == warned
    if warning is not None:
        assert recorded in warning and installed in warning


def test_lighting_needs_versions():
    with pytest.raises(ValueError, match=r"expected versions such as 3\.3\.0, got 'newest'"):
        lighting_warning("newest", "3.3.0")


def test_policy_record():
    policy = baku_policy(execution="open_loop", n_action_steps=3)
    record = policy_record(policy, policy.acting_spec, "org/policy")
    assert (record["class"], record["name"], record["executed_chunk_length"]) == ("BakuPolicy", "org/policy", 3)
    assert record["device"] == "cpu" and record["acting"]["execution"] == "open_loop"


def test_training_data_are_told_by_the_config(tmp_path):
    assert baku_policy().acting_spec.training_data is None
    baku_policy(training_data={"mujoco": "3.1.0"}).save_pretrained(tmp_path)
    assert type(baku_policy()).from_pretrained(tmp_path).acting_spec.training_data == {"mujoco": "3.1.0"}


@pytest.mark.parametrize(("name", "told"), [("org/policy", "org/policy"), ("/disk/ada/policy", "policy"), (None, None)])
def test_a_record_does_not_say_where_the_policy_lay(name: str | None, told: str | None) -> None:
    for record in (policy_record(object(), ActingSpec(), name), policy_record(object(), ActingSpec(name=name))):
        assert record["name"] == told
