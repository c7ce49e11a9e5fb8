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
        ('log_level = "FOO"', "log_level is 'FOO': give DEBUG, INFO, WARNING or ERROR"),
        ('workers = "cpu:²"', "workers is 'cpu:²': give auto"),
        ('workers = "gpu:0,cpu:1"', "workers is 'gpu:0,cpu:1': give auto"),
        ('host = "http://a"', "host is 'http://a': give an address"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=said):
        settings_of(file)
    with pytest.raises(UsageError, match="no such file"):
        settings_of(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LSX_SERVE_PROT", "1", "LSX_SERVE_PROT: there is no such setting; did you mean LSX_SERVE_PORT"),
        ("LSX_SERVE_PORT", "many", "LSX_SERVE_PORT is 'many'"),
        ("LSX_SERVE_ALLOW_URL", "[a.example", "LSX_SERVE_ALLOW_URL is '.a.example'; give values with commas"),
        ("LSX_SERVE_HOOK_PAUSES", "5,soon", "LSX_SERVE_HOOK_PAUSES is 'soon'"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=said) as error:
        settings_of()
    assert "TOML" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("a.example", ("a.example",)),
        ("a.example, b.example", ("a.example", "b.example")),
        ('["a.example"]', ("a.example",)),
        ("", ()),
    ],
)
def test_lists_of_the_environment(monkeypatch: pytest.MonkeyPatch, value: str, read: tuple[str, ...]) -> None:
    monkeypatch.setenv("LSX_SERVE_ALLOW_URL", value)
    monkeypatch.setenv("LSX_SERVE_HOOK_PAUSES", "5,300")
    monkeypatch.setenv("lsx_serve_log_level", "debug")
    found = settings_of()
    assert (found.allow_url, found.hook_pauses, found.log_level) == (read, (5.0, 300.0), "DEBUG")


@pytest.mark.parametrize(
    "host", ["", "a b", "a..b", "-a", "a/b", "300.1.1.1", "1.2.3", "[::1]", "http://a", "a" * 64, "::g", "²", "a\n"]
)
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(UsageError, match="give an address of this machine"):
        settings_of(host=host)


@pytest.mark.parametrize(
    ("host", "loopback", "shown"),
    [
        ("::1", True, "http://[::1]:8000/"),
        ("127.0.0.2", True, "http://127.0.0.2:8000/"),
        ("localhost", True, "http://localhost:8000/"),
        ("0.0.0.0", False, "http://0.0.0.0:8000/"),  # noqa: S104
        ("127.example.com", False, "http://127.example.com:8000/"),
        ("nonsense", False, "http://nonsense:8000/"),
        ("::", False, "http://[::]:8000/"),
    ],
)
def test_hosts(host: str, loopback: bool, shown: str) -> None:
    found = ServeSettings(host=host)
    assert (found.is_loopback, found.url) == (loopback, shown)


def test_secrets_are_not_shown() -> None:
    settings = ServeSettings(database="postgresql://me:pw@db.example/lsx", hook_secret="whsec_abc")  # noqa: S106
    shown = str(settings.shown())
    assert "pw" not in shown
    assert "abc" not in shown
    assert "db.example/lsx" in shown


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:s3cret@host/db", "postgresql://hidden@host/db"),
        ("postgresql://host/db?user=me&password=s3cret", "postgresql://host/db?user=hidden&password=hidden"),
        ("lsx:s3cret@host/db", "hidden"),
        ("s3://AKIA:s3c@ret@bucket/prefix", "s3://hidden@bucket/prefix"),
        ("https://collector:4318/v1/traces?token=s3cret", "https://collector:4318/v1/traces?token=hidden"),
        ("sqlite:///folder/jobs.sqlite", "sqlite:///folder/jobs.sqlite"),
    ],
)
def test_addresses_are_shown_without_secrets(address: str, shown: str) -> None:
    settings = ServeSettings(database=address, store=address, traces=(address,))
    told = settings.shown()
    assert told["database"] == shown
    assert told["traces"] == [shown]
    assert told["store"] == (shown if "://" in address else address)  # else it is a folder
