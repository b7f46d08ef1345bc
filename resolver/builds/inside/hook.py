"""`python hook.py TASK ANSWERS`: calls a build backend (PEP 517), in the build's own environment and in a process of
its own, whose current folder is that of the sdist.

The answer is a line of JSON in the pipe with that number: a disk may be full. Imports nothing of ours, as what is built
may bear any name.
"""

import importlib
import json
import os
import sys
import traceback


def main(task: str, answers: int) -> None:
    """Ask the backend for the wheel, and tell what came of it."""
    os.set_inheritable(answers, False)
    with open(task) as file:
        asked = json.load(file)
    sys.path[0:1] = [os.path.join(asked["folder"], part) for part in asked["backend_path"]]  # for this script's folder
    answer = _answer(asked["backend"], asked["out"], asked["final"], os.path.dirname(asked["pip"]))
    with open(answers, "w") as pipe:
        pipe.write(json.dumps(answer) + "\n")


def _answer(name: str, out: str, final: bool, pip: str) -> dict[str, object]:
    module, _, attribute = name.partition(":")
    try:
        backend = importlib.import_module(module)
        for part in attribute.split(".") if attribute else ():
            backend = getattr(backend, part)
    except Exception as error:  # noqa: BLE001 - whatever it raises, it cannot be used
        traceback.print_exc()
        return {"failed": f"its build backend {name[:100]!r} cannot be imported: {_words(error)}"}
    try:
        wants = getattr(backend, "get_requires_for_build_wheel", None)
        missing = [str(text) for text in (wants(None) if wants else ()) if not _is_here(str(text), pip)]
        if missing and not final:
            return {"wants": missing}
        return {"wheel": str(backend.build_wheel(out, None, None))}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the backend's code
        traceback.print_exc()
        return {"failed": f"its build backend {name[:100]!r} failed: {_words(error)}"}


def _is_here(text: str, pip: str) -> bool:
    """Whether the environment has what the requirement asks for. The package pip is in that folder."""
    from importlib.metadata import PackageNotFoundError, version

    sys.path.append(pip)
    try:
        from pip._vendor.packaging.requirements import Requirement
    finally:
        sys.path.pop()
    requirement = Requirement(text)
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return True
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


def _words(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
