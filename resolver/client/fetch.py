"""One fetch, as a story: is it here already? Ask for the bundle, bring it, check it, show it."""

from __future__ import annotations

import hashlib
import json
import os

from resolver.client.console import Console, Progress, size
from resolver.client.environment import target
from resolver.client.errors import BadUsage, FetchError
from resolver.client.place import Place, Record
from resolver.client.resolve import Answer, request, resolve
from resolver.client.retries import Patience

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resolver.client.arguments import Options

_FALLBACK_SECONDS = 10.0
# The service's target classes leave these out as well: a node's new kernel is no reason to fetch anew.
_NO_MATTER = ("platform_release", "platform_version")


def fetch(options: Options, console: Console) -> None:
    """Put the bundle in place. Where that fails and the options say `fallback`, leave the requirements for whoever
    installs after us, and no tree that would shadow what they install.

    Raises:
        FetchError: neither could be done.
    """
    place = Place(options.target)
    try:
        _put_in_place(options, place, console)
    except BadUsage:
        raise
    except Exception as error:
        if not options.fallback:
            raise
        tell(error, console)
        with place.locked(Patience(_FALLBACK_SECONDS)):
            place.withdraw()
        place.write_requirements(options.requirements)
        console.say(f"fallback: no bundle is in place, {place.folder}/requirements.txt has the requirements")
        from resolver.client.fallback import tell as tell_of_it  # most fetches do not fall back

        tell_of_it(options, error, console)
        return
    if options.fallback:
        place.write_requirements("")


def tell(error: Exception, console: Console) -> None:
    """Say what went wrong; of what nobody foresaw, say where."""
    console.say(f"failed: {str(error) or type(error).__name__}")
    for line in error.hints if isinstance(error, FetchError) else _traceback(error):
        console.say(f"  {line}")


def _traceback(error: Exception) -> list[str]:
    import traceback  # only for what nobody foresaw

    return "".join(traceback.format_exception(error)).splitlines()


def _put_in_place(options: Options, place: Place, console: Console) -> None:
    os.umask(0o022)  # a bundle's modes are its own
    asked: dict[str, object] = {"python": options.python, "platform": options.platform} if options.python else target()
    body = request(options, asked)
    name = _fingerprint(body)
    record = place.record()
    if record is not None and record.request == name and place.settled():
        return _ready(record, "in place", console)
    patience = Patience(options.timeout)
    with place.locked(patience):
        place.check_links()
        record = place.record()
        if record is not None and record.request == name:  # by a run that we waited for, or that was killed late
            place.show()
            return _ready(record, "in place", console)
        answer = _obtain(options, place, body, name, patience, console)
    return _ready(_record(answer, name), answer.outcome, console)


def _obtain(
    options: Options, place: Place, body: dict[str, object], name: str, patience: Patience, console: Console
) -> Answer:
    # Imported here, as HTTP costs more CPU to import than all that a run with its bundle in place does.
    from resolver.client.bundle import layers
    from resolver.client.delivery import deliver
    from resolver.client.transport import Server, Session

    server = Server(options.server, options.token_file, options.ca_file)
    with Session(server, patience) as session:
        console.say(f"asking {server.base}")
        answer = resolve(session, body, patience, console)
        for warning in answer.warnings:
            console.say(f"warning: {warning}")
        record, current = _record(answer, name), place.record()
        if current is not None and current.bundle == answer.bundle:
            place.relabel(record)
            return answer
        place.check_room(answer.unpacked_size)
        parts = layers(session, answer.bundle, patience, console)
        amount = answer.size if all(part.compressed for part in parts) else answer.unpacked_size
        console.say(f"fetching {len(parts)} layers, {size(amount)}")
        with place.staging() as staging:
            place.publish(deliver(session, parts, staging, patience, Progress(console, amount), console), record)
    return answer


def _fingerprint(body: dict[str, object]) -> str:
    """What names a request for a later run in the same folder; any change in what is asked for changes it."""
    asked = body["target"]
    if isinstance(asked, dict) and "markers" in asked:
        markers = {key: value for key, value in asked["markers"].items() if key not in _NO_MATTER}
        body = {**body, "target": {**asked, "markers": markers}}
    return "sha256:" + hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _record(answer: Answer, name: str) -> Record:
    return Record(name, answer.bundle, answer.lock, answer.packages, answer.unpacked_size)


def _ready(record: Record, outcome: str, console: Console) -> None:
    console.say(
        f"ready: {record.packages} packages, {size(record.unpacked_size)}, {console.elapsed:.2f} s, "
        f"{outcome}, lock {record.lock}"
    )
