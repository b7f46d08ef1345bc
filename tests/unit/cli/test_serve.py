"""`lockstep serve`: where settings come from, and which are refused."""

from pathlib import Path

import pytest

from resolver.settings import Settings, load
from tests.unit.cli.conftest import Run

LOOPBACK = ["127.0.0.1:8080", "127.8.8.8:1", "[::1]:8080", "localhost:0"]
BEYOND = ["0.0.0.0:8080", "[::]:8080", "10.1.2.3:8080", "lockstep.internal:8080"]


@pytest.fixture
def settings(run: Run) -> "Served":
    return Served(run)


class Served:
    """The settings that a run hands to the service."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, *flags: str) -> Settings:
        seen: list[Settings] = []

        def serve(settings: Settings) -> int:
            seen.append(settings)
            return 7

        ran = self._run("serve", *flags, serve=serve)
        assert (ran.code, ran.err) == (7, "")
        return seen[0]


def test_nothing_said_is_the_embedded_default(settings: Served) -> None:
    assert settings().model_dump() == load({}, None).model_dump()


def test_every_setting_but_the_structured_has_a_flag_with_its_description(run: Run) -> None:
    ran = run("serve", "--help")
    assert ran.code == 0
    said = " ".join(ran.out.split())
    for name, field in Settings.model_fields.items():
        if name not in ("listen", "indexes"):
            flag = {"interpreters": "interpreter", "platforms": "platform"}.get(name, name.replace("_", "-"))
            assert f"--{flag}" in said
            assert f"LOCKSTEP_{name.upper()}" in said
            assert str(field.description).split(":")[0] in said


def test_flags_become_settings(settings: Served) -> None:
    found = settings(
        *("--data-dir", "/srv/lockstep", "--engine", "pip", "--fresh-for", "2h", "--log-format", "json"),
        *("--interpreter", "3.12=/opt/python 3.12/bin/python", "--interpreter", "3.13=/usr/bin/python3.13"),
        *("--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_28_aarch64"),
        *("--index-url", "https://me:hunter2@packages.example.com/simple", "--max-body", "4096"),
    )
    assert found.data_dir == Path("/srv/lockstep")
    assert (found.engine, found.fresh_for, found.log_format, found.max_body) == ("pip", 7200, "json", 4096)
    assert found.interpreters == {
        "3.12": Path("/opt/python 3.12/bin/python"),
        "3.13": Path("/usr/bin/python3.13"),
    }
    assert found.platforms == ["manylinux_2_28_x86_64", "manylinux_2_28_aarch64"]
    assert found.index_url is not None
    assert found.index_url.get_secret_value() == "https://me:hunter2@packages.example.com/simple"


def test_flags_win_over_variables_and_they_over_the_file(
    settings: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "lockstep.yaml"
    config.write_text("engine: pip\nfresh_for: 1h\nmax_wait: 10\n")
    monkeypatch.setenv("LOCKSTEP_CONFIG", str(config))
    monkeypatch.setenv("LOCKSTEP_FRESH_FOR", "2h")
    monkeypatch.setenv("LOCKSTEP_MAX_WAIT", "20")
    found = settings("--max-wait", "30")
    assert (found.engine, found.fresh_for, found.max_wait) == ("pip", 7200, 30)
    other = tmp_path / "other.yaml"
    other.write_text("engine: uv\n")
    assert settings("--config", str(other)).engine == "uv"


def test_host_and_port_each_replace_their_half_of_the_address(
    settings: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings("--host", "127.0.0.2").listen == "127.0.0.2:8080"
    assert settings("--port", "0").listen == "127.0.0.1:0"
    assert settings("--host", "::1", "--port", "1").listen == "[::1]:1"
    assert settings("--host", "[::1]", "--port", "1").listen == "[::1]:1"
    monkeypatch.setenv("LOCKSTEP_LISTEN", "127.0.0.9:99")
    assert settings().listen == "127.0.0.9:99"
    assert settings("--port", "100").listen == "127.0.0.9:100"


@pytest.mark.parametrize("listen", LOOPBACK)
def test_loopback_needs_nobodys_leave(settings: Served, monkeypatch: pytest.MonkeyPatch, listen: str) -> None:
    monkeypatch.setenv("LOCKSTEP_LISTEN", listen)
    assert settings().listen == listen


@pytest.mark.parametrize("listen", BEYOND)
def test_beyond_loopback_is_refused_without_authentication(
    settings: Served, run: Run, monkeypatch: pytest.MonkeyPatch, listen: str
) -> None:
    monkeypatch.setenv("LOCKSTEP_LISTEN", listen)
    ran = run("serve")
    assert ran.code == 64
    assert "is not loopback" in ran.err
    assert "--insecure-no-auth" in ran.err
    assert settings("--insecure-no-auth").listen == listen


@pytest.mark.parametrize("way", ["kubernetes", "static", "kubernetes,static", "static kubernetes"])
def test_beyond_loopback_callers_are_asked_who_they_are(settings: Served, way: str) -> None:
    found = settings("--host", "0.0.0.0", "--auth", way)
    assert (found.listen, sorted(found.auth)) == ("0.0.0.0:8080", sorted(way.replace(",", " ").split()))


def test_none_is_nobody(settings: Served, run: Run) -> None:
    assert settings("--auth", "none").auth == []
    assert "--auth says who is" in run("serve", "--host", "0.0.0.0", "--auth", "none").err
    for way in ("none,static", "basic", "Static"):
        ran = run("serve", "--auth", way)
        assert ran.code == 64
        assert "--auth" in ran.err


def test_a_host_by_flag_is_no_way_round(run: Run) -> None:
    assert run("serve", "--host", "0.0.0.0").code == 64
    assert run("serve", "--host", "127.0.0.1.example.com").code == 64


@pytest.mark.parametrize("listen", ["8080", ":8080", "127.0.0.1", "127.0.0.1:http", "::1:8080", "127.0.0.1:65536"])
def test_an_address_that_is_none(run: Run, monkeypatch: pytest.MonkeyPatch, listen: str) -> None:
    monkeypatch.setenv("LOCKSTEP_LISTEN", listen)
    ran = run("serve")
    assert ran.code == 64
    assert "host:port" in ran.err


def test_each_fault_is_a_line_that_says_where_it_stands(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "lockstep.yaml"
    config.write_text("nonsense: 1\nindexes: [{name: Not A Name, url: 'https://me:hunter2@packages.example.com'}]\n")
    monkeypatch.setenv("LOCKSTEP_ENGINE", "cargo")
    ran = run("serve", "--config", str(config), "--fresh-for", "soon", "--queue", "0")
    assert ran.code == 64
    lines = ran.err.splitlines()
    for said in (f"{config}: nonsense: no such setting", f"{config}: indexes.0.name: ", "LOCKSTEP_ENGINE: ",
                 "--fresh-for: not a duration", "--queue: "):  # fmt: skip
        assert len([line for line in lines if said in line]) == 1, ran.err
    assert len(lines) == 6
    assert "hunter2" not in ran.err


def test_a_credential_in_a_value_that_is_refused_is_not_shown(run: Run) -> None:
    ran = run("serve", "--fresh-for", "https://me:hunter2@packages.example.com/simple")
    assert ran.code == 64
    assert "--fresh-for" in ran.err
    assert "hunter2" not in ran.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"engine: uv\nindex_url: *hunter2\n", "is not YAML, line 2"),
        (b"index_url: !hunter2 x\n", "is not YAML, line 1"),
        (b"index_url: [hunter2", "is not YAML"),
        (b"index_url: hunter2\x00", "is not YAML"),
        (b"index_url: \xffhunter2", "is not YAML"),
        (b"- hunter2\n", "holds no settings by name"),
        (b"hunter2\n", "holds no settings by name"),
    ],
)
def test_a_file_that_holds_no_settings(run: Run, tmp_path: Path, content: bytes, said: str) -> None:
    config = tmp_path / "lockstep.yaml"
    config.write_bytes(content)
    ran = run("serve", "--config", str(config))
    assert ran.code == 64
    assert f"{config} {said}" in ran.err
    assert "hunter2" not in ran.err


def test_a_file_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path):
        ran = run("serve", "--config", str(path))
        assert ran.code == 64
        assert f"cannot read {path}" in ran.err


def test_variables_that_are_no_settings(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKSTEP_FRESHFOR", "hunter2")
    ran = run("serve")
    assert ran.code == 64
    assert "LOCKSTEP_FRESHFOR" in ran.err
    assert "hunter2" not in ran.err
    monkeypatch.delenv("LOCKSTEP_FRESHFOR")
    monkeypatch.setenv("LOCKSTEP_INDEXES", '[{"url": "https://me:hunter2@packages.example.com"')
    ran = run("serve")
    assert ran.code == 64
    assert "indexes" in ran.err
    assert "hunter2" not in ran.err


def test_what_kubernetes_injects_is_ignored(settings: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKSTEP_PORT", "tcp://10.0.0.1:80")
    monkeypatch.setenv("LOCKSTEP_SERVICE_HOST", "10.0.0.1")
    assert settings().listen == "127.0.0.1:8080"


@pytest.mark.parametrize("interpreter", ["3.12", "3.12=", "=/usr/bin/python3"])
def test_an_interpreter_is_a_version_and_a_path(run: Run, interpreter: str) -> None:
    ran = run("serve", "--interpreter", interpreter)
    assert ran.code == 64
    assert "3.12=/usr/bin/python3.12" in ran.err
