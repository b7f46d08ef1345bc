"""`refresh` and `hold`."""

import json

from resolver.api import schemas
from tests.unit.cli.answers import NEW, NOON, lock_item
from tests.unit.cli.conftest import Run
from tests.unit.cli.service import Service, of_model

CHECKOUT = ("--namespace", "shop", "--workload", "checkout")


def workload(held: str | None = None) -> schemas.WorkloadAnswer:
    return schemas.WorkloadAnswer(namespace="shop", workload="checkout", refreshes=3, refreshed_at=NOON, held_lock=held)


def test_refresh_is_the_delete_of_the_pins(ask: Run, service: Service) -> None:
    service.says("DELETE", "/v1/pins/shop/checkout", of_model(workload()))
    ran = ask("refresh", *CHECKOUT)
    assert (ran.code, ran.err) == (0, "")
    assert "shop/checkout" in ran.out
    assert service.paths == ["DELETE /v1/pins/shop/checkout"]
    assert json.loads(ask("refresh", *CHECKOUT, "--json").out)["refreshes"] == 3


def test_hold_puts_the_lock_that_was_named(ask: Run, service: Service) -> None:
    service.says("GET", "/v1/locks", of_model(schemas.LockPage(items=[lock_item(NEW, [])], cursor=None)))
    service.says("PUT", "/v1/pins/shop/checkout/hold", of_model(workload(NEW)))
    ran = ask("hold", *CHECKOUT, "--lock", "abab")
    assert (ran.code, ran.err) == (0, "")
    assert NEW in ran.out
    assert schemas.HoldBody.model_validate(service.asked[-1].body) == schemas.HoldBody(lock=NEW)
    assert json.loads(ask("hold", *CHECKOUT, "--lock", NEW, "--json").out)["held_lock"] == NEW


def test_a_lock_that_there_is_none_of_is_not_held(ask: Run, service: Service) -> None:
    assert ask("hold", *CHECKOUT, "--lock", NEW).code == 66
    assert service.paths == ["PUT /v1/pins/shop/checkout/hold"]


def test_a_name_stays_one_segment_of_the_path(ask: Run, service: Service) -> None:
    assert ask("refresh", "--namespace", "a/../b?c#d", "--workload", "%2e%2e").code == 66
    assert service.paths == ["DELETE /v1/pins/a%2F..%2Fb%3Fc%23d/%252e%252e"]
    assert ask("refresh", "--namespace", "..", "--workload", "checkout").code == 64
    assert ask("refresh", "--namespace", "shop", "--workload", "").code == 64
    assert len(service.asked) == 1
