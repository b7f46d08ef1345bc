"""Console scripts and `.pth` files take effect wherever a bundle stands."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from resolver.bundles.launchers import PTH_HOOK
from tests.support.wheels import make_wheel
from tests.unit.bundles.support import MINOR, path_with, put, this_python, unpack

COUNTS_ITS_RUNS = "import builtins; builtins.pth_runs = getattr(builtins, 'pth_runs', 0) + 1\n"
TOOL = make_wheel(
    "tool",
    "1.0",
    files={
        "tool/__init__.py": (
            "import builtins, json, os, sys\n"
            "def main():\n"
            "    here = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))\n"
            "    print(json.dumps({'root': here, 'pth_runs': getattr(builtins, 'pth_runs', 0),\n"
            "        'entries': [os.path.realpath(e) for e in sys.path].count(here), 'arguments': sys.argv[1:]}))\n"
            "    return 3 if 'fail' in sys.argv else 0\n"
            "class Group:\n    main = staticmethod(main)\n"
        ),
        "tool.pth": COUNTS_ITS_RUNS,
    },
    entry_points="[console_scripts]\ntool = tool:main\nnested = tool:Group.main\n",
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    tree = tmp_path / "somewhere" / "bundle"
    unpack(put(tmp_path / "store", TOOL), TOOL[0], MINOR, tree)
    return tree


@pytest.fixture
def path(tmp_path: Path) -> str:
    return path_with(tmp_path / "path", this_python())


def run(command: list[str | Path], path: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, env={"PATH": path, **environment}, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done


def said(done: subprocess.CompletedProcess[str], bundle: Path) -> tuple[int, int]:
    """How often the `.pth` file ran, how often the bundle is on sys.path; it is this bundle's tool that spoke."""
    answer = json.loads(done.stdout)
    assert answer["root"] == str(bundle / "site-packages")
    return answer["pth_runs"], answer["entries"]


class TestScripts:
    def test_runs_with_nothing_set(self, bundle: Path, path: str) -> None:
        assert said(run([bundle / "bin/tool"], path), bundle) == (1, 1)
        assert said(run([bundle / "bin/nested"], path), bundle) == (1, 1)

    def test_gives_arguments_and_exit_code_on(self, bundle: Path, path: str) -> None:
        done = run([bundle / "bin/tool", "fail", "-x"], path)
        assert (done.returncode, json.loads(done.stdout)["arguments"]) == (3, ["fail", "-x"])

    def test_runs_after_the_bundle_has_moved(self, bundle: Path, path: str, tmp_path: Path) -> None:
        moved = bundle.rename(tmp_path / "mounted elsewhere")
        assert said(run([moved / "bin/tool"], path), moved) == (1, 1)

    def test_runs_through_links(self, bundle: Path, path: str, tmp_path: Path) -> None:
        (tmp_path / "bin").symlink_to(bundle / "bin")
        (tmp_path / "alias").symlink_to(tmp_path / "bin" / "tool")
        assert said(run([tmp_path / "bin" / "tool"], path), bundle) == (1, 1)
        assert said(run([tmp_path / "alias"], path), bundle) == (1, 1)

    def test_adds_nothing_where_the_bundle_is_on_pythonpath(self, bundle: Path, path: str, tmp_path: Path) -> None:
        (tmp_path / "site-packages").symlink_to(bundle / "site-packages")
        for entry in (bundle / "site-packages", tmp_path / "site-packages"):
            assert said(run([bundle / "bin/tool"], path, PYTHONPATH=str(entry)), bundle) == (0, 1)

    def test_pth_files_run_once_where_the_hook_has_read_them(self, bundle: Path, path: str) -> None:
        (bundle / "site-packages/sitecustomize.py").write_bytes(PTH_HOOK)
        assert said(run([bundle / "bin/tool"], path, PYTHONPATH=str(bundle / "site-packages")), bundle) == (1, 1)
        assert said(run([bundle / "bin/tool"], path), bundle) == (1, 1)


class TestPthHook:
    """The hook, in a folder on PYTHONPATH."""

    @staticmethod
    def folder(parent: Path, name: str, sitecustomize: bytes | None = PTH_HOOK) -> Path:
        folder = parent / name
        (folder / "extra").mkdir(parents=True)
        (folder / "extra" / f"module_of_{name}.py").touch()
        (folder / "paths.pth").write_text(
            f"extra\nimport builtins; builtins.runs_of_{name} = getattr(builtins, 'runs_of_{name}', 0) + 1\n"
        )
        if sitecustomize is not None:
            (folder / "sitecustomize.py").write_bytes(sitecustomize)
        return folder

    @staticmethod
    def ask(path: str, expression: str, *folders: Path) -> str:
        code = f"import builtins, sys; print({expression})"
        return run([f"python{MINOR}", "-c", code], path, PYTHONPATH=":".join(map(str, folders))).stdout.strip()

    def test_without_it_pth_files_have_no_effect(self, tmp_path: Path, path: str) -> None:
        plain = self.folder(tmp_path, "plain", sitecustomize=None)
        assert self.ask(path, "hasattr(builtins, 'runs_of_plain')", plain) == "False"

    def test_pth_files_take_effect_once(self, tmp_path: Path, path: str) -> None:
        one = self.folder(tmp_path, "one")
        assert self.ask(path, "__import__('module_of_one').__name__, builtins.runs_of_one", one) == "module_of_one 1"

    def test_the_next_sitecustomize_runs_too(self, tmp_path: Path, path: str) -> None:
        one = self.folder(tmp_path, "one")
        image = tmp_path / "image"
        image.mkdir()
        (image / "sitecustomize.py").write_text(
            "import builtins; builtins.images = getattr(builtins, 'images', 0) + 1; NAME = __name__"
        )
        expression = "builtins.runs_of_one, builtins.images, __import__('sitecustomize').__file__"
        assert self.ask(path, expression, one, image) == f"1 1 {image}/sitecustomize.py"
        # The other way round the image's own comes first, and chains to nobody: that is for it to do.
        assert self.ask(path, "hasattr(builtins, 'runs_of_one'), builtins.images", image, one) == "False 1"

    def test_bundles_with_a_hook_each_do_not_call_each_other_for_ever(self, tmp_path: Path, path: str) -> None:
        one, two = self.folder(tmp_path, "one"), self.folder(tmp_path, "two")
        (tmp_path / "alias").symlink_to(one)
        expression = "builtins.runs_of_one, builtins.runs_of_two"
        assert self.ask(path, expression, one, two) == "1 1"
        assert self.ask(path, expression, one, tmp_path / "alias", two) == "1 1"

    def test_failure_of_the_next_sitecustomize_is_told_as_python_does(self, tmp_path: Path, path: str) -> None:
        one = self.folder(tmp_path, "one")
        broken = tmp_path / "broken"
        broken.mkdir()
        (broken / "sitecustomize.py").write_text("raise ValueError('of the image')")
        environment = {"PATH": path, "PYTHONPATH": f"{one}:{broken}"}
        code = "import builtins; print(builtins.runs_of_one)"
        done = subprocess.run(
            [f"python{MINOR}", "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == "1\n"
        assert "of the image" in done.stderr


def test_namespace_packages_of_two_wheels_are_one(tmp_path: Path, path: str) -> None:
    for part in ("one", "two"):
        wheel = make_wheel(f"space-{part}", "1.0", files={f"space/{part}/__init__.py": f"NAME = {part!r}\n"})
        unpack(put(tmp_path / "store", wheel), wheel[0], MINOR, tmp_path / part)
        shutil.copytree(tmp_path / part, tmp_path / "bundle", dirs_exist_ok=True)
    code = "import space.one, space.two; print(space.one.NAME, space.two.NAME)"
    done = run([f"python{MINOR}", "-c", code], path, PYTHONPATH=str(tmp_path / "bundle/site-packages"))
    assert done.stdout == "one two\n"
