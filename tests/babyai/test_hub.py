"""Where the hub cannot be reached, and where it can: what "auto" does then."""

import http.server
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from babyai import hub, missions
from babyai.missions import MissionEncoderError, build_mission_encoder
from tests.mission_models import save_tiny_distilbert, silent

ROOT = Path(__file__).parents[2]


@pytest.fixture
def empty_cache(monkeypatch):
    monkeypatch.setattr(hub, "_find_cached", lambda name: None)
    for flag in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(flag, raising=False)


def test_auto_offline(empty_cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "probe_hub", lambda *_: pytest.fail("the network was tried"))
    lines = []
    assert build_mission_encoder("auto", announce=lines.append).kind == "builtin"
    assert len(lines) == 1
    assert "HF_HUB_OFFLINE" in lines[0]


def test_auto_beside_a_library_that_cannot_be_imported(tmp_path, monkeypatch):
    """Of two versions that do not fit each other the one says so with an ImportError of its own."""
    folder = save_tiny_distilbert(tmp_path / "model")
    (tmp_path / "broken" / "transformers").mkdir(parents=True)
    (tmp_path / "broken" / "transformers" / "__init__.py").write_text("raise ImportError('huggingface-hub>=9 needed')")
    program = f"""
        from babyai import hub
        from babyai.missions import build_mission_encoder
        hub._find_cached = lambda name: {str(folder)!r}
        print(build_mission_encoder("auto").kind)
        build_mission_encoder({str(folder)!r})
    """
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "broken"), str(ROOT)]))
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "builtin" and "transformers cannot be imported" in run.stdout
    assert run.stderr.splitlines()[-1].endswith("transformers cannot be imported: huggingface-hub>=9 needed")
    assert "MissionEncoderError" in run.stderr


def test_auto_with_an_unreachable_hub(empty_cache, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        lines = []
        assert build_mission_encoder("auto", announce=lines.append).kind == "builtin"
        with pytest.raises(MissionEncoderError, match="some/model"):
            build_mission_encoder("some/model", announce=lines.append)
    assert len(lines) == 1
    assert "127.0.0.1" in lines[0]


def test_auto_with_a_hub_that_never_answers(empty_cache, monkeypatch):
    monkeypatch.setattr(missions, "PROBE_SECONDS", 1.5)
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # accepts, says nothing
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        lines = []
        assert build_mission_encoder("auto", announce=lines.append).kind == "builtin"
    assert len(lines) == 1


@pytest.mark.slow
def test_auto_downloads_once_and_then_needs_no_hub(tmp_path):
    """A stand-in for the hub serves a tiny DistilBERT; the second start finds it in the cache, offline."""
    folder = save_tiny_distilbert(tmp_path / "served")
    (folder / "tf_model.h5").write_bytes(b"a file nobody should fetch")
    fetched, commit = [], "0" * 40

    class Hub(http.server.BaseHTTPRequestHandler):
        def answer(self, with_body: bool) -> None:
            path = self.path.split("?")[0]
            if path.startswith("/api/models/"):
                model = {"id": hub.DEFAULT_MODEL, "sha": commit}
                tree = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                    for file in folder.iterdir()
                ]
                status, body = 200, json.dumps(tree if "/tree/" in path else model).encode()
            else:
                file = folder / path.rsplit("/", 1)[-1]
                status, body = (200, file.read_bytes()) if file.is_file() else (404, b"")
                if with_body:
                    fetched.append(file.name)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{abs(hash(path)):x}"')
            self.send_header("X-Repo-Commit", commit)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def do_GET(self) -> None:
            self.answer(True)

        def do_HEAD(self) -> None:
            self.answer(False)

        def log_message(self, *args) -> None:
            pass

    program = textwrap.dedent(
        """
        from babyai.missions import build_mission_encoder
        encoder = build_mission_encoder("auto")
        print(tuple(encoder.encode(["go to the red ball"]).shape), encoder.fingerprint)
        """
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    env |= {"HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_XET": "1"}

    def start(**extra: str) -> list[str]:
        run = subprocess.run(
            [sys.executable, "-c", program],
            env=env | extra,
            cwd=Path(missions.__file__).parents[1],
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        assert run.stderr == ""
        return run.stdout.splitlines()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        online = start(HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert "distilbert-base-uncased (Hugging Face" in online[0]
    fingerprint = build_mission_encoder(str(folder), announce=silent).fingerprint
    assert online[1:] == [f"(1, 32) {fingerprint}"]
    assert fetched.count("model.safetensors") == 1
    assert "tf_model.h5" not in fetched
    assert start(HF_HUB_OFFLINE="1") == online
