"""`lockstep doctor` on parts that are really broken, one by one; and on none."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from resolver import keeping
from resolver.settings import load
from tests.integration.conftest import publish
from tests.integration.doctor import PROJECT, Doctor, dated_server, doctor, few_interpreters, index, notes, wrong
from tests.support.index import PackageIndex
from tests.support.postgres import PostgresServer, free_port
from tests.support.service import ROOT
from tests.support.wheels import make_wheel

__all__ = ["doctor", "few_interpreters", "index"]


def test_all_is_well(doctor: Doctor) -> None:
    found = doctor()
    assert {finding.state for finding in found if finding.check != "interpreters"} == {"well"}, found
    checked = {finding.check for finding in found}
    assert checked == {"scratch", "database", "store", "interpreters", "memory", "index", "clock"}
    assert not [*doctor.data.glob("blobs/**/*probe*")]


# --- Indexes ----------------------------------------------------------------------------------------------------------


def test_an_index_that_is_down(doctor: Doctor) -> None:
    found = wrong(doctor(index_url=f"http://me:hunter2@127.0.0.1:{free_port()}/simple"), "index")
    assert "ConnectError" in found.told
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize("status", [401, 403])
def test_an_index_that_wants_other_credentials(doctor: Doctor, index: PackageIndex, status: int) -> None:
    index.answer(f"/{PROJECT}/", status)
    found = wrong(doctor(), "index")
    assert str(status) in found.told
    assert "credentials" in found.way_out


def test_an_index_that_tells_little(doctor: Doctor) -> None:
    with PackageIndex(html_only=True, upload_times=False) as plain:
        publish(plain, PROJECT, "1.0")
        found = doctor(index_url=plain.url)
        assert not [finding for finding in found if finding.state == "wrong"]
        told = " ".join(notes(found, "index"))
        assert "PEP 691" in told
        assert "PEP 700" in told


def test_an_index_without_metadata_beside_its_wheels(doctor: Doctor) -> None:
    with PackageIndex() as plain:
        filename, content = make_wheel(PROJECT, "1.0")
        plain.add(filename, content, metadata=False)
        (told,) = notes(doctor(index_url=plain.url), "index")
        assert "PEP 658" in told


def test_an_index_without_hashes(doctor: Doctor, index: PackageIndex) -> None:
    page = {
        "meta": {"api-version": "1.1"},
        "name": PROJECT,
        "files": [{"filename": f"{PROJECT}-1.0-py3-none-any.whl", "url": "x.whl", "hashes": {}}],
    }
    body, kind = json.dumps(page).encode(), {"Content-Type": "application/vnd.pypi.simple.v1+json"}
    index.answer(f"/{PROJECT}/", 200, body, kind)
    assert "SHA-256" in wrong(doctor(), "index").told


def test_an_index_without_the_project(doctor: Doctor) -> None:
    (told,) = notes(doctor(project="nobody-has-this"), "index")
    assert "nobody-has-this" in told


def test_an_index_that_is_never_asked(doctor: Doctor, index: PackageIndex) -> None:
    index.requests.clear()
    assert notes(doctor(network="offline"), "index")
    assert index.requests == []


# --- Clock ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "told"), [(3600, "behind"), (-3600, "ahead of")])
def test_a_clock_that_is_wrong(doctor: Doctor, seconds: float, told: str) -> None:
    with dated_server(seconds) as port:
        found = wrong(doctor(index_url=f"http://127.0.0.1:{port}/simple"), "clock")
    assert told in found.told


def test_a_clock_that_is_a_little_off(doctor: Doctor) -> None:
    with dated_server(30) as port:
        assert len(notes(doctor(index_url=f"http://127.0.0.1:{port}/simple"), "clock")) == 1


# --- Stores -----------------------------------------------------------------------------------------------------------


def test_a_database_that_is_down(doctor: Doctor, tmp_path: Path) -> None:
    found = doctor(database_url=f"postgresql://me:hunter2@127.0.0.1:{free_port()}/lockstep")
    assert "hunter2" not in repr(found)
    assert wrong(found, "database").about == "PostgreSQL"
    assert notes(found, "store") == ["the database is shared, the blobs are not"]


def test_a_database_of_an_older_version(doctor: Doctor) -> None:
    database = doctor.data / "lockstep.db"
    database.unlink()
    config = Config()
    config.set_main_option("script_location", "storage.metadata:migrations")
    engine = create_engine(f"sqlite:///{database}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
    engine.dispose()
    found = wrong(doctor(), "database")
    assert "0003" in found.told
    assert "lockstep migrate" in found.way_out
    with closing(sqlite3.connect(database)) as connection_:
        assert connection_.execute("SELECT version_num FROM alembic_version").fetchone() == ("0003",)  # it only looks


def test_a_database_of_a_newer_version(doctor: Doctor) -> None:
    with closing(sqlite3.connect(doctor.data / "lockstep.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "9999" in wrong(doctor(), "database").told


def test_a_database_that_is_not_there_as_yet(doctor: Doctor) -> None:
    (doctor.data / "lockstep.db").unlink()
    assert notes(doctor(), "database") == ["is not there as yet"]
    assert not (doctor.data / "lockstep.db").exists()


def test_a_postgresql_that_takes_no_writes(doctor: Doctor) -> None:
    with PostgresServer() as server:
        url = server.url()
        assert notes(doctor(database_url=url, blob_url=None), "database") == ["has no tables as yet"]
        keeping.migrate(load({**doctor.settings, "database_url": url}, None))
        found = doctor(database_url=url)
        assert {each.state for each in found if each.check in ("database", "clock")} == {"well"}, found
        server.execute("ALTER ROLE postgres SET default_transaction_read_only = on")
        assert "no writes" in wrong(doctor(database_url=url), "database").told


def _command(doctor: Doctor, *flags: str, before: tuple[str, ...] = (), **variables: str) -> tuple[int, Any, str]:
    argv = [*before, sys.executable, "-m", "resolver", "doctor", "--json", "--project", PROJECT, *flags]
    settings: Mapping[str, Any] = {**doctor.settings, **variables}
    environment = {f"LOCKSTEP_{name.upper()}": str(value) for name, value in settings.items()}
    done = subprocess.run(
        argv, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, json.loads(done.stdout or "null"), done.stderr


def test_a_folder_that_is_read_only(doctor: Doctor) -> None:
    unshare = shutil.which("unshare", path=os.defpath)
    if os.geteuid() != 0 or unshare is None:
        pytest.skip("a mount that is read-only is made as root here")
    mount = 'export PATH=/usr/sbin:/usr/bin:/sbin:/bin; mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"'
    code, body, _ = _command(
        doctor, before=(unshare, "--mount", "/bin/sh", "-c", f'{mount} && exec "$@"', str(doctor.data))
    )
    assert (code, body["well"]) == (1, False)
    found = {each["check"]: each for each in body["findings"] if each["state"] == "wrong"}
    assert set(found) == {"scratch", "database", "store"}
    assert all("fsGroup" in each["way_out"] for each in found.values())


# --- This machine -----------------------------------------------------------------------------------------------------


def test_an_interpreter_that_is_not_there(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    found = wrong(doctor(interpreters={"3.12": "/nonexistent/python3.12"}), "interpreters")
    assert "/nonexistent/python3.12" in found.told
    (told,) = [each for each in doctor() if each.check == "interpreters" and each.state == "note"]
    assert "3.10" in told.about or sys.version_info[:2] == (3, 10)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "none runs" in wrong(doctor(), "interpreters").told


def test_more_builds_at_once_than_there_is_memory_for(doctor: Doctor) -> None:
    assert notes(doctor(parallel_builds=100_000), "memory")


# --- The command ------------------------------------------------------------------------------------------------------


def test_the_command_ends_as_it_found(doctor: Doctor, index: PackageIndex) -> None:
    code, body, told = _command(doctor)
    assert (code, body["well"], told) == (0, True, "")
    assert {each["state"] for each in body["findings"]} <= {"well", "note"}
    index.answer(f"/{PROJECT}/", 403)
    assert _command(doctor)[0] == 1
    assert _command(doctor, "--engine", "conda")[0] == 64
