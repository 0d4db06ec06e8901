"""Plug-ins of this package and of others, which stand here as folders with an entry point."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from hilam_hf.plugins import PluginList

GROUP = "hilam_hf.test_numbers"
T = TypeVar("T")


def add_package(root: Path, package: str, code: str, entry_points: str, group: str = GROUP) -> None:
    """Writes a package that is installed as soon as `root` is on the path."""
    (root / f"{package}.py").write_text(code)
    metadata = root / f"{package}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{entry_points}\n")


@dataclass(frozen=True)
class Named:
    name: str


def looked_up_again(plugins: PluginList[T]) -> PluginList[T]:
    """The list without what was added in this process, which has not yet looked for packages."""
    return PluginList(
        plugins.sort, plugins.group, {entry.name: entry.value for entry in plugins._built_in}, plugins.expected
    )


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def numbers() -> PluginList[float]:
    return PluginList("number", GROUP, {"pi": "math:pi", "missing": "math:no_such_number"})


def test_names_come_from_here_from_packages_and_from_this_process(root: Path) -> None:
    add_package(root, "golden_package", "PHI = 1.6", "phi = golden_package:PHI")
    plugins = numbers()
    plugins.add("two", 2.0)
    assert plugins.names() == ("pi", "missing", "phi", "two")
    assert plugins.built_in_names() == ("pi", "missing")
    assert plugins.names_from_packages() == ("phi",)
    assert [plugins.get(name) for name in ("pi", "phi", "two")] == [pytest.approx(3.14159, abs=1e-5), 1.6, 2.0]


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown number 'pie'; did you mean 'pi'"):
        numbers().get("pie")
    with pytest.raises(ValueError, match="unknown number 'xyz'; known: pi, missing"):
        numbers().get("xyz")


def test_names_are_listed_without_importing_anything(root: Path) -> None:
    add_package(root, "broken_package", "raise RuntimeError('no licence')", "broken = broken_package:X")
    plugins = numbers()
    assert "broken" in plugins.names()
    message = r"'broken' cannot be loaded from broken_package:X \(broken_package\) \(RuntimeError: no licence\); update"
    with pytest.raises(ImportError, match=message):
        plugins.get("broken")
    with pytest.raises(ImportError, match=r"'missing' .* math:no_such_number \(hilam-hf\) \(AttributeError"):
        plugins.get("missing")


def test_a_name_that_two_packages_declare_is_refused(root: Path) -> None:
    add_package(root, "first_package", "X = 1", "x = first_package:X\npi = first_package:X")
    add_package(root, "second_package", "X = 2", "x = second_package:X")
    plugins = numbers()
    message = r"'x' is declared twice, by first_package:X \(first_package\) and second_package:X \(second_package\)"
    with pytest.raises(ValueError, match=message):
        plugins.get("x")
    with pytest.raises(ValueError, match=r"'pi' is declared twice, by math:pi \(hilam-hf\) and first_package:X"):
        plugins.get("pi")


def test_a_package_that_is_found_twice_is_one(root: Path) -> None:
    add_package(root, "golden_package", "PHI = 1.6", "phi = golden_package:PHI")
    add_package(root, "golden_package_editable", "", "phi = golden_package:PHI")
    assert numbers().names_from_packages() == ("phi",)
    assert numbers().get("phi") == 1.6


def test_a_name_is_added_once_and_removed() -> None:
    plugins = numbers()
    plugins.add("two", 2.0)
    for taken in ("two", "pi"):
        with pytest.raises(ValueError, match=f"there is a number '{taken}' already; choose another name"):
            plugins.add(taken, 3.0)
    plugins.remove("two")
    with pytest.raises(ValueError, match="unknown number 'two'"):
        plugins.get("two")
    with pytest.raises(ValueError, match="no number 'pi' was added"):
        plugins.remove("pi")


def test_a_plug_in_is_what_it_is_expected_to_be_and_has_its_name(root: Path) -> None:
    code = "from tests.test_plugins import Named\nONE, TWO, NUMBER = Named('one'), Named('two'), 3"
    lines = "\n".join(
        f"{name} = named_package:{part}" for name, part in (("one", "ONE"), ("two", "ONE"), ("six", "NUMBER"))
    )
    add_package(root, "named_package", code, lines)
    plugins: PluginList[Named] = PluginList("thing", GROUP, {}, expected="tests.test_plugins:Named")
    assert plugins.get("one") == Named("one")
    message = (
        r"thing 'two': named_package:ONE \(named_package\) is Named\(name='one'\), expected a Named with this name"
    )
    with pytest.raises(ValueError, match=message):
        plugins.get("two")
    with pytest.raises(ValueError, match=r"thing 'six': .* is 3, expected a Named with this name; correct"):
        plugins.get("six")
    with pytest.raises(ValueError, match=r"thing 'ten': got 10, expected a Named"):
        plugins.add("ten", 10)  # type: ignore[arg-type]
