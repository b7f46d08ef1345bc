"""The chart: who may call, by which tokens, and what of the cluster is asked for them."""

from pathlib import Path

import pytest

from resolver.kubernetes import ApiServer
from resolver.webhook import delivery
from tests.deploy.tools import (
    WEBHOOK,
    Document,
    each_profile,
    environment_of,
    of_kind,
    pods,
    rendered,
    settings_of,
    template,
)


@each_profile
def test_the_keys_of_tokens_are_all_that_the_cluster_is_asked_for(values: str) -> None:
    documents = rendered(values, *WEBHOOK)
    (binding,) = [document for document in documents if "ClusterRole" in document["kind"]]
    (service,) = [pod for name, pod in pods(documents) if name == "service"]
    assert binding["roleRef"]["name"] == "system:service-account-issuer-discovery"
    (subject,) = binding["subjects"]
    account = service["spec"]["serviceAccountName"]
    assert (subject["kind"], subject["name"], subject["namespace"]) == ("ServiceAccount", account, "lockstep")
    for each in of_kind(documents, "ServiceAccount"):
        assert each["automountServiceAccountToken"] is False
    external = rendered(values, "--set", "auth.issuer=https://issuer.example.com,builders.enabled=false")
    assert not [document for document in external if "Role" in document["kind"]]
    assert "kube-root-ca.crt" not in str(external)


def _tokens(pod: Document) -> dict[str, Document]:
    """The service account tokens that the Pod's container has, by the file that each is in."""
    (container,) = pod["spec"]["containers"]
    where = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    return {
        f"{where[volume['name']]}/{source['serviceAccountToken']['path']}": source["serviceAccountToken"]
        for volume in pod["spec"]["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        if "serviceAccountToken" in source
    }


@each_profile
def test_callers_are_asked_who_they_are(values: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    documents = rendered(values, *WEBHOOK)
    settings = settings_of(monkeypatch, tmp_path, documents)["service"]
    assert settings.auth == (["kubernetes"] if values == "embedded" else ["kubernetes", "static"])
    assert not settings.insecure_no_auth
    assert (settings.auth_tokens is None) == (values == "embedded")
    found = dict(pods(documents))
    # It reads its own token and CA where ApiServer looks for them.
    assert list(_tokens(found["service"])) == [str(ApiServer("").folder / "token")]
    assert "audience" not in next(iter(_tokens(found["service"]).values()))
    # Pods that the webhook changes show a token that the service takes.
    assert delivery(settings, "0" * 64, "").audience == settings.auth_audience == "lockstep"
    # gc and fsck work on the stores, and show nobody anything.
    assert not _tokens(found["lockstep-gc"])
    assert not _tokens(found["lockstep-fsck"])


@each_profile
def test_the_warming_job_is_an_operator_of_its_own(
    values: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    documents = rendered(values, "--set", "auth.audience=elsewhere")
    settings = settings_of(monkeypatch, tmp_path, documents)["service"]
    found = dict(pods(documents))
    warm = found["lockstep-warm"]
    account = warm["spec"]["serviceAccountName"]
    assert account in {each["metadata"]["name"] for each in of_kind(documents, "ServiceAccount")}
    assert account != found["service"]["spec"]["serviceAccountName"]
    assert f"system:serviceaccount:lockstep:{account}" in settings.auth_operators
    ((path, token),) = _tokens(warm).items()
    assert token["audience"] == settings.auth_audience == "elsewhere"
    assert environment_of(warm["spec"]["containers"][0], documents)["LOCKSTEP_TOKEN_FILE"] == path
    if values == "everything":
        assert "system:serviceaccount:ci:releases" in settings.auth_operators


def test_without_identity_it_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    flags = ("--set", "auth.kubernetes=false")
    assert "insecure_no_auth" in template(*flags).stderr
    documents = rendered("embedded", *flags, "--set", "settings.insecure_no_auth=true")
    settings = settings_of(monkeypatch, tmp_path, documents)["service"]
    assert (settings.auth, settings.insecure_no_auth) == ([], True)
    assert not [each for _, pod in pods(documents) for each in _tokens(pod)]
    people = rendered("embedded", *flags, "--set", "auth.tokensSecret=mine")
    assert settings_of(monkeypatch, tmp_path, people)["service"].auth == ["static"]
