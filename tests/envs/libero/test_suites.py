"""Suites and tasks, against LIBERO's own benchmark."""

import contextlib
import io

import pytest

from hilam_hf.envs.libero import SUITES, find_assets, libero_tasks, normalize_suite, parse_task
from hilam_hf.envs.libero.package import import_libero

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("suite", SUITES)
def test_tasks_are_those_of_liberos_benchmark(libero_assets, suite):
    import_libero(find_assets(libero_assets), drawing=False)
    from libero.libero import benchmark

    with contextlib.redirect_stdout(io.StringIO()):
        theirs = benchmark.get_benchmark_dict()[suite]()
    ours = libero_tasks(suite)
    assert len(ours) == SUITES[suite] == theirs.n_tasks
    for index, task in enumerate(ours):
        expected = theirs.get_task(index)
        assert (task.index, task.name, task.instruction) == (index, expected.name, expected.language)
        assert task.bddl_file.read_text().startswith("(define")
        assert task.initial_states_file.name == expected.init_states_file


def test_names_of_suites_and_tasks():
    assert normalize_suite("long") == normalize_suite("libero_long") == normalize_suite("10") == "libero_10"
    task = parse_task("goal/1")
    assert task.id == "libero_goal/1"
    assert task.instruction == "put the bowl on the stove"
    assert parse_task(f"libero_goal/{task.name}") == task
    assert [task.index for task in libero_tasks("spatial", [4, 0])] == [4, 0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("open the drawer", "expected <suite>/<number>"),
        ("libero_kitchen/1", "unknown LIBERO suite 'libero_kitchen'; there are libero_spatial"),
        ("libero_goal/10", "libero_goal: tasks are numbered 0 to 9, got 10"),
        ("libero_goal/open_the_window", "libero_goal has none called 'open_the_window'"),
    ],
)
def test_unknown_tasks_are_named(name, message):
    with pytest.raises(ValueError, match=message):
        parse_task(name)
