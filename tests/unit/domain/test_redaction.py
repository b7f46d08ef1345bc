import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.domain.redaction import redact

PASSWORD = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        "https://user:hunter2@packages.example.com/simple",
        "https://hunter2@packages.example.com/simple",
        "git+ssh://git:hunter2@example.com/x",
        "https://user:p@hunter2@example.com/",
        "https://user:hunter2/with?raw#signs@example.com/simple",
        "https://user:it's-hunter2@example.com/simple",
        "see https://example.com/a.whl?X-Amz-Signature=hunter2&x=1 and more",
        "'https://example.com/a.whl?sig=hunter2'",
        "one https://a:hunter2@example.com two https://b:hunter2@example.com/?q=hunter2",
        "Authorization: Bearer hunter2hunter2",
        "Authorization: Basic hunter2",
        "authorization=Token hunter2",
        "Bearer hunter2-hunter2",
        "password=hunter2",
        "PASSWORD = hunter2",
        "aws_secret_access_key=hunter2",
        "SecretAccessKey: hunter2",
        "X-Api-Key: hunter2",
        "apikey=hunter2&x=1",
        '{"password": "hunter2 and hunter2", "user": "u"}',
        "{'token': 'it\\'s hunter2'}",
        "sign-in: password: hunter2",
        "GET /v1/locks/eyJhbGciOiJSUzI1NiJ9.eyJodW50ZXIyIjoxfQ.hunter2",
        "eyJhbGciOiJSUzI1NiJ9.eyJodW50ZXIy-hunter2_.hunter2-hunter2 and eyJhbGciOiJub25lIn0.hunter2.",
    ],
)
def test_credentials_go(text: str) -> None:
    assert PASSWORD not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "tokenizers==0.15.0 depends on huggingface-hub>=0.16.4",
        "Because tokenizers: nothing matches",
        "my-secrets-tool >= 1, password-strength==2.0",
        "https://packages.example.com:8443/simple/a/#fragment",
        "http://[::1]:8080/simple/x@y",
        "git+https://example.com/x/y@v1.0",
        "https://example.com/a and user@example.com",
        '{"url":"https://example.com/a","mail":"user@example.com"}',
        "plain text, nothing else: really",
        "eyJ, heyJude.py.txt, eyJ.py and eyJlib-1.0",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert redact(text) == text


def test_what_stands_around_a_credential_stays() -> None:
    assert redact('GET "https://u:p@h.example/x?sig=1" 404') == 'GET "https://h.example/x" 404'
    assert redact("(see https://h.example/x?sig=1) next") == "(see https://h.example/x) next"


# Encoded or not; nobody can tell a raw `@` before a raw `/`, `?`, `#` or quote from the end of the host.
secrets = (st.text("abcXYZ019!$%^*_-+.~:@", min_size=1) | st.text("abcXYZ019!$%^*_-+.~:/?#'", min_size=1)).map(
    lambda text: f"{PASSWORD}{text}{PASSWORD}"
)


@given(secrets, st.sampled_from(["https", "http", "git+https"]), st.text(" ab,;(\"'", max_size=5))
def test_no_password_survives_in_a_url(password: str, scheme: str, around: str) -> None:
    assert PASSWORD not in redact(f"{around} {scheme}://user:{password}@packages.example.com/simple{around}")


@given(st.text() | st.lists(st.sampled_from(["://", "@", "?", "token", "=", ":", " ", "'", '"', "a", "\\", "/"])))
def test_redacting_twice_is_redacting_once(text: str | list[str]) -> None:
    once = redact("".join(text))
    assert redact(once) == once


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "eyJ",
        "eyJa.",
        "token_",
        "://",
        "a-",
        " ",
        "token ",
        "://a:b",
        "password='",
        "?",
        "token:",
        "\\",
        'password="\\',
        "@",
    ],
)
def test_what_strangers_write_does_not_stall_it(unit: str) -> None:
    # Anything quadratic takes many minutes for a million characters.
    assert PASSWORD not in redact(unit * (1_000_000 // len(unit)) + " https://user:hunter2@packages.example.com")
