"""Tokens from a file: whose they are, what the file may be, and what happens when it changes."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from resolver.domain.errors import Unauthenticated
from resolver.domain.identity import Caller
from resolver.domain.redaction import redact
from resolver.identity import static_tokens
from resolver.identity.identifying import Identifying
from resolver.identity.static_tokens import StaticTokens, read_tokens

ADA, CI = "the-token-of-ada-0123", "the-token-of-ci-456789"
FILE = f"""
tokens:
  - {{name: ada, role: operator, sha256: {hashlib.sha256(ADA.encode()).hexdigest()}}}
  - {{name: ci, role: reader, namespaces: [shop, bank], token: {CI}}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.yaml"
    path.write_text(FILE)
    return path


async def test_a_token_says_who_and_for_what(file: Path) -> None:
    identity = Identifying(StaticTokens(file), None)
    assert await identity.caller(ADA) == Caller("ada", True, None)
    assert await identity.caller(CI) == Caller("ci", False, frozenset(["shop", "bank"]))
    for wrong in ("", ADA[:-1], ADA + "x", ADA.upper(), hashlib.sha256(ADA.encode()).hexdigest(), "ada", "é"):
        with pytest.raises(Unauthenticated):
            await identity.caller(wrong)


SECRET = "hunter2-hunter2-hunter2"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "tokens.yaml"),
        ("tokens: [", "not YAML, line 1"),
        (f"tokens: [{{name: ada, role: operator, token: !{SECRET}}}]", "not YAML, line 1"),
        (f"tokens: [{{name: ada, role: admin, token: {SECRET}}}]", "tokens.0.role"),
        (f"tokens: [{{name: ada, token: {SECRET}}}]", "tokens.0.role"),
        (f"tokens: [{{name: '{SECRET}?', role: reader, token: {SECRET}}}]", "tokens.0.name"),
        ("tokens: [{name: ada, role: reader}]", "a token or its sha256"),
        (f"tokens: [{{name: ada, role: reader, token: {SECRET}, sha256: {'a' * 64}}}]", "a token or its sha256"),
        ("tokens: [{name: ada, role: reader, token: hunter2}]", "16 characters"),
        (f"tokens: [{{name: ada, role: reader, token: '{SECRET} x'}}]", "16 characters"),
        (f"tokens: [{{name: ada, role: reader, sha256: {SECRET}}}]", "tokens.0.sha256"),
        (f"tokens: [{{name: ada, role: reader, namespaces: [], token: {SECRET}}}]", "tokens.0.namespaces"),
        (f"tokens: [{{name: ada, role: reader, namespaces: [Shop], token: {SECRET}}}]", "tokens.0.namespaces"),
        (f"tokens: [{{name: ada, role: reader, tokken: {SECRET}}}]", "tokens.0"),
        (
            f"tokens: [{{name: a, role: reader, token: {SECRET}}}, {{name: b, role: reader, token: {SECRET}}}]",
            "same",
        ),
        (f"tokens: [{{name: a, role: reader, token: {SECRET}}}, {{name: a, role: reader, token: {ADA}}}]", "same"),
        (f"[{SECRET}]", "tokens.yaml"),
        ("tokens: \x00", "not YAML"),
    ],
)
def test_a_file_that_will_not_do(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="auth_tokens") as caught:
        StaticTokens(path)
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert redact(str(caught.value)) == str(caught.value)  # nothing that a person needs is taken for a token


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        StaticTokens(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="cannot be read"):
        StaticTokens(tmp_path)


def mounted(folder: Path, version: str, text: str) -> None:
    """As a kubelet writes a Secret: into a folder of its own, to which a link is then turned."""
    (folder / version).mkdir()
    (folder / version / "tokens.yaml").write_text(text)
    (folder / "..data_tmp").symlink_to(version)
    (folder / "..data_tmp").replace(folder / "..data")


async def test_it_is_read_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_tokens, "_LOOK_EVERY", 0.01)
    mounted(tmp_path, "v1", FILE)
    path = tmp_path / "tokens.yaml"
    path.symlink_to("..data/tokens.yaml")
    tokens = StaticTokens(path)
    looking = asyncio.create_task(tokens.keep_current())

    def knows(token: str) -> bool:
        return tokens.find(hashlib.sha256(token.encode()).digest()) is not None

    async def until(known: bool, token: str) -> None:
        async with asyncio.timeout(10):
            while knows(token) != known:
                await asyncio.sleep(0.005)

    assert knows(ADA)
    renewed = "another-token-of-ada"
    mounted(tmp_path, "v2", f"tokens: [{{name: ada, role: operator, token: {renewed}}}]")
    await until(True, renewed)
    assert not knows(ADA)
    # One that will not do leaves the tokens as they were; so does none at all.
    mounted(tmp_path, "v3", "tokens: [")
    seen = path.stat().st_ino
    async with asyncio.timeout(10):
        while tokens._seen is None or tokens._seen[0] != seen:
            await asyncio.sleep(0.005)
    assert knows(renewed)
    (tmp_path / "..data").unlink()
    await asyncio.sleep(0.05)
    assert knows(renewed)
    mounted(tmp_path, "v4", "tokens: []")
    await until(False, renewed)
    looking.cancel()


def test_tokens_are_kept_as_digests(file: Path) -> None:
    assert CI not in repr(read_tokens(file))
    assert ADA not in repr(read_tokens(file))
