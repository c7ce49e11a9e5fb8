"""Settings: flags before the environment before the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsx.errors import UsageError
from lsx.serving.settings import ServeSettings, settings_of


def test_what_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('port = 1\nhost = "::1"\nworkers = "cpu:3"\nallow_url = ["a.example"]\n')
    monkeypatch.setenv("LSX_SERVE_PORT", "2")
    monkeypatch.setenv("LSX_SERVE_HOST", "127.0.0.2")
    found = settings_of(file, port=3, data=tmp_path)
    assert (found.port, found.host, found.workers, found.allow_url) == (3, "127.0.0.2", "cpu:3", ("a.example",))
    assert found.is_loopback
    assert type(found) is ServeSettings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1", "no setting prot"),
        ("port = 70000", "port is 70000"),
        ("port =", "not readable as TOML"),
        ('max_steps = "many"', "max_steps is 'many'"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=said):
        settings_of(file)
    with pytest.raises(UsageError, match="no such file"):
        settings_of(tmp_path / "none.toml")


def test_secrets_are_not_shown() -> None:
    settings = ServeSettings(database="postgresql://me:pw@db.example/lsx", hook_secret="whsec_abc")  # noqa: S106
    shown = str(settings.shown())
    assert "pw" not in shown
    assert "abc" not in shown
    assert "db.example/lsx" in shown
