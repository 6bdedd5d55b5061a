"""The pre-push hook is the control: it verifies exactly what is pushed, joins what is there, and sits where git looks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from adapters.dvc.people import Person, Scene
from mlseal_dvc import commits, frameworks, prepush

from mlseal.errors import DuplicateName, Misuse, Unchecked, Unreadable

ROOT = Path(__file__).resolve().parents[3]
KINDS = {
    "shell": (b"#!/bin/sh\nexit 0\n", 0o755),
    "not executable": (b"#!/bin/sh\nexit 1\n", 0o644),
    "other mode": (b"#!/usr/bin/env python3\nraise SystemExit(0)\n", 0o710),
    "no text": (b"\x7fELF\x00\xff\xfe\r\n", 0o777),
    "no newline": (b"#!/bin/sh", 0o700),
}


class Git:
    """A repository of its own, without DVC."""

    def __init__(self, path: Path, home: Path) -> None:
        self.path = path
        self.env = {"PATH": os.environ["PATH"], "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"} | {
            f"GIT_{who}_{what}": "a@b.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }

    def __call__(self, *arguments: str, ok: bool = True, **env: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, env=self.env | env, capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) is ok, done.stderr
        return done.stdout.strip()

    def commit(self, name: str, text: str | None = "") -> str:
        """A commit that writes (or without text removes) a file."""
        file = self.path / name
        if text is None:
            file.unlink()
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + name)
        self("add", "-A")
        self("commit", "-q", "-m", name)
        return self("rev-parse", "HEAD")

    @property
    def hooks(self) -> Path:
        return self.path / ".git" / "hooks"


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    home = tmp_path / "git-home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "clone").mkdir()
    made = Git(tmp_path / "clone", home)
    made("init", "-q", "-b", "main")
    shutil.rmtree(made.hooks)
    made.hooks.mkdir()
    made.commit("begin")
    return made


def everything(directory: Path) -> dict[str, tuple[object, ...]]:
    """Each file with what must come back: kind, mode, bytes, time, and the file itself."""
    found = {}
    for path in directory.iterdir():
        stat = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes()
        found[path.name] = (stat.st_mode, content, stat.st_mtime_ns, stat.st_ino)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_any_hook_that_is_there_comes_back_as_it_was(git: Git, kind: str) -> None:
    content, mode = KINDS[kind]
    (git.hooks / "pre-push").write_bytes(content)
    (git.hooks / "pre-push").chmod(mode)
    before = everything(git.hooks)
    assert prepush.install(git.path).chained
    once = everything(git.hooks)
    prepush.install(git.path)
    assert everything(git.hooks).keys() == once.keys() == {"pre-push", prepush.CHAINED}
    assert everything(git.hooks)[prepush.CHAINED] == before["pre-push"]
    assert prepush.uninstall(git.path)
    assert everything(git.hooks) == before
    assert not prepush.uninstall(git.path)


@pytest.mark.parametrize("target", ["../../script", "nowhere"])
def test_a_link_stays_the_same_link(git: Git, target: str) -> None:
    (git.path / "script").write_text("#!/bin/sh\n")
    (git.hooks / "pre-push").symlink_to(target)
    before = everything(git.hooks)
    prepush.install(git.path)
    assert os.readlink(git.hooks / prepush.CHAINED) == target
    prepush.uninstall(git.path)
    assert everything(git.hooks) == before


def test_without_a_hook_nothing_is_left(git: Git) -> None:
    assert not prepush.install(git.path).chained
    assert prepush.state(git.path).in_force
    prepush.uninstall(git.path)
    assert everything(git.hooks) == {}


def test_two_foreign_hooks_are_not_guessed_about(git: Git) -> None:
    for name in ("pre-push", prepush.CHAINED):
        (git.hooks / name).write_text(f"#!/bin/sh\n# {name}\n")
    before = everything(git.hooks)
    with pytest.raises(DuplicateName):
        prepush.install(git.path)
    assert everything(git.hooks) == before


@pytest.mark.parametrize(
    "text",
    [
        '#!/usr/bin/env sh\n. "$(dirname "$0")/h"\n',
        '#!/bin/sh\nname=$(basename -- "$0")\nrun "$name"\n',
        "#!/usr/bin/env ruby\nhook_type = File.basename($0)\n",
    ],
)
def test_a_hook_that_goes_by_its_name_is_not_renamed(git: Git, text: str) -> None:
    (git.hooks / "pre-push").write_text(text)
    before = everything(git.hooks)
    with pytest.raises(Misuse, match="hook manager"):
        prepush.install(git.path)
    assert everything(git.hooks) == before


@pytest.mark.parametrize("how", ["global", "relative", "absolute"])
def test_a_shared_directory_is_written_on_request_only(git: Git, tmp_path: Path, how: str) -> None:
    elsewhere = {"global": tmp_path / "shared", "relative": git.path / ".githooks", "absolute": tmp_path / "abs"}[how]
    elsewhere.mkdir()
    (elsewhere / "pre-push").write_text("#!/bin/sh\n")
    setting = ".githooks" if how == "relative" else str(elsewhere)
    git("config", *(["--global"] if how == "global" else []), "core.hooksPath", setting)
    before = everything(elsewhere)
    with pytest.raises(Misuse) as told:
        prepush.install(git.path)
    assert setting in str(told.value) and "--global" in str(told.value) and "dvc hook pre-push" in str(told.value)
    assert everything(elsewhere) == before and everything(git.hooks) == {}
    state = prepush.install(git.path, shared=True)
    assert state.place == elsewhere / "pre-push" and state.foreign is not None
    prepush.install(git.path)  # it is there: renewing asks for nothing
    prepush.uninstall(git.path)
    assert everything(elsewhere) == before


def test_a_hooks_path_inside_the_git_directory_is_this_clones_own(git: Git) -> None:
    git("config", "core.hooksPath", str(git.path / ".git" / "own"))
    assert prepush.install(git.path).place == git.path / ".git" / "own" / "pre-push"


def test_a_linked_working_tree_shares_the_hooks_of_its_clone(git: Git, tmp_path: Path) -> None:
    git("worktree", "add", "-q", str(tmp_path / "linked"))
    state = prepush.install(tmp_path / "linked")
    assert state.place == git.hooks / "pre-push" and state.foreign is None
    assert prepush.uninstall(tmp_path / "linked")


def test_both_hooks_get_arguments_and_input_and_the_first_may_refuse(git: Git, tmp_path: Path) -> None:
    told, ours = tmp_path / "told", tmp_path / "ours"
    (git.hooks / "pre-push").write_text(f'#!/bin/sh\necho "$@" > {told}; cat >> {told}; exit ${{HOOK_EXIT:-0}}\n')
    (git.hooks / "pre-push").chmod(0o755)
    hook = prepush.install(git.path).place
    assert hook is not None
    # What ours would read and be called with; that it verifies is tested below with DVC.
    recorder = tmp_path / "python"
    recorder.write_text(f'#!/bin/sh\necho "$@" > {ours}; cat >> {ours}\n')
    recorder.chmod(0o755)
    hook.write_text(hook.read_text().replace(sys.executable, str(recorder)))
    hook.chmod(0o755)
    git("init", "-q", "--bare", str(tmp_path / "up.git"))
    git("remote", "add", "origin", str(tmp_path / "up.git"))
    git("push", "-q", "origin", "main", ok=False, HOOK_EXIT="3")
    assert not ours.exists()
    git("push", "-q", "origin", "main", "main:other")
    first, *lines = told.read_text().splitlines()
    assert first == f"origin {tmp_path / 'up.git'}" and len(lines) == 2
    assert ours.read_text().splitlines()[1:] == lines
    assert ours.read_text().splitlines()[0].endswith(f"dvc hook pre-push -- {first}")


# --- which commits -------------------------------------------------------------------------------------------------


class Recorded:
    """What git tells a hook for a push, and the commits that are checked for it. Nothing leaves."""

    def __init__(self, git: Git, tmp_path: Path) -> None:
        self.git, self.file = git, tmp_path / "lines"
        git("init", "-q", "--bare", str(tmp_path / "up.git"))
        git("remote", "add", "origin", str(tmp_path / "up.git"))

    def push(self, *arguments: str) -> None:
        shutil.rmtree(self.git.hooks, ignore_errors=True)
        self.git("push", "-q", *arguments)

    def checked(self, *arguments: str) -> set[str]:
        self.git.hooks.mkdir(exist_ok=True)
        self.file.unlink(missing_ok=True)
        (self.git.hooks / "pre-push").write_text(f"#!/bin/sh\ncat > {self.file}\nexit 1\n")
        (self.git.hooks / "pre-push").chmod(0o755)
        self.git("push", "-q", *arguments, ok=False)
        return set(commits.of_push(self.git.path, arguments[0], self.file.read_text()))


@pytest.fixture
def recorded(git: Git, tmp_path: Path) -> Recorded:
    return Recorded(git, tmp_path)


def test_a_new_branch_brings_its_own_commits(git: Git, recorded: Recorded) -> None:
    git.commit("old.dvc")
    recorded.push("origin", "main")
    git("checkout", "-q", "-b", "side")
    first, _, tip = git.commit("a.dvc"), git.commit("code.py"), git.commit("more.py")
    assert recorded.checked("origin", "side") == {first, tip}


def test_deleting_brings_nothing_and_several_refs_bring_all(git: Git, recorded: Recorded) -> None:
    recorded.push("origin", "main", "main:gone")
    assert recorded.checked("origin", ":gone") == set()
    git("checkout", "-q", "-b", "one")
    one = git.commit("one.dvc")
    git("checkout", "-q", "-b", "two", "main")
    two = git.commit("sub/dvc.lock")
    assert recorded.checked("origin", ":gone", "one", "two", "main:again") == {one, two, git("rev-parse", "main")}


@pytest.mark.parametrize("annotated", [True, False])
def test_a_tag_stands_for_its_commit(git: Git, recorded: Recorded, annotated: bool) -> None:
    recorded.push("origin", "main")
    tip = git.commit("a.dvc")
    git("tag", *(["-a", "-m", "x"] if annotated else []), "v1")
    assert recorded.checked("origin", "v1") == {tip}


def test_tags_of_what_is_no_commit(git: Git, recorded: Recorded) -> None:
    git("tag", "file", git("rev-parse", "HEAD:begin"))
    assert recorded.checked("origin", "file") == set()
    git("tag", "tree", git("rev-parse", "HEAD^{tree}"))
    with pytest.raises(Unchecked, match="no commit"):
        recorded.checked("origin", "tree")


def test_a_forced_push_brings_what_was_rewritten(git: Git, recorded: Recorded) -> None:
    git.commit("a.dvc")
    recorded.push("origin", "main")
    git("reset", "-q", "--hard", "HEAD^")
    rewritten, tip = git.commit("a.dvc", "other"), git.commit("b.py")
    assert recorded.checked("origin", "+main") == {rewritten, tip}
    # Somebody else's commits are there, which this clone never saw.
    lines = f"refs/heads/main {tip} refs/heads/main {'9' * 40}\n"
    assert set(commits.of_push(git.path, "origin", lines)) == {rewritten, tip}


def test_a_side_branch_that_takes_its_data_back_is_seen(git: Git, recorded: Recorded) -> None:
    """git leaves such commits out of a history by path, unless told otherwise."""
    recorded.push("origin", "main")
    git("checkout", "-q", "-b", "side")
    added, removed = git.commit("secret.dvc"), git.commit("secret.dvc", None)
    git("checkout", "-q", "main")
    git("merge", "-q", "--no-ff", "-m", "merge", "side")
    assert recorded.checked("origin", "main") == {added, removed, git("rev-parse", "HEAD")}


def test_another_push_url_has_not_what_the_fetch_url_has(git: Git, recorded: Recorded, tmp_path: Path) -> None:
    old = git.commit("a.dvc")
    recorded.push("origin", "main")
    tip = git.commit("b.py")
    assert recorded.checked("origin", "main:new") == {tip}
    git("init", "-q", "--bare", str(tmp_path / "elsewhere.git"))
    git("remote", "set-url", "--push", "origin", str(tmp_path / "elsewhere.git"))
    assert recorded.checked("origin", "main:new") == {old, tip}


def test_a_shallow_clone_brings_its_new_commits(git: Git, recorded: Recorded, tmp_path: Path) -> None:
    for name in ("a.dvc", "b.dvc", "c.dvc"):
        git.commit(name)
    recorded.push("origin", "main")
    git("clone", "-q", "-b", "main", "--depth", "1", f"file://{tmp_path / 'up.git'}", str(tmp_path / "shallow"))
    shallow = Git(tmp_path / "shallow", tmp_path / "git-home")
    new = shallow.commit("d.dvc")
    recorded.git = shallow
    assert recorded.checked("origin", "main") == {new}


def test_a_dvc_directory_without_configuration_is_a_repository_too(git: Git) -> None:
    """It hides everything below from the repository above, so it must not go unseen."""
    git.commit(".dvc/config")
    tip = git.commit("sub/.dvc/.gitignore")
    assert set(commits.roots(git.path, [tip])) == {".", "sub"}
    with pytest.raises(Unchecked, match="not in the working tree"):
        shutil.rmtree(git.path / "sub" / ".dvc")
        shutil.rmtree(git.path / ".dvc")
        commits.check(git.path, [tip])


# --- the pre-commit program ----------------------------------------------------------------------------------------

UPSTREAM = "- repo: https://github.com/treeverse/dvc\n  rev: 3.67.1\n  hooks:\n"


@pytest.mark.parametrize(
    ("repos", "hooks"),
    [
        (UPSTREAM + "  - id: dvc-pre-commit\n  - id: dvc-pre-push\n    additional_dependencies: ['.[all]']\n", ["dvc-pre-push"]),
        (UPSTREAM.replace("treeverse", "iterative") + "  - id: dvc-post-checkout\n", ["dvc-post-checkout"]),
        (UPSTREAM + "  - id: dvc-pre-push\n    additional_dependencies: ['.[all]', 'mlseal[dvc]']\n", ["dvc-pre-push"]),
        (UPSTREAM + "  - id: dvc-pre-push\n    additional_dependencies: ['.', '/x/mlseal_dvc_autoload-1.0-py3-none-any.whl']\n", []),
        (UPSTREAM + "  - id: dvc-pre-push\n    language: system\n", []),
        ("- repo: local\n  hooks:\n  - {id: p, name: p, entry: dvc push, language: python}\n", ["p"]),
        ("- repo: local\n  hooks:\n  - {id: p, name: p, entry: dvc git-hook pre-push, language: system}\n", []),
        ("- repo: local\n  hooks:\n  - {id: p, name: p, entry: mlseal dvc push, language: python}\n", []),
        ("- repo: https://github.com/psf/black\n  rev: x\n  hooks:\n  - id: black\n", []),
        ("[]", []),
    ],
)  # fmt: skip
def test_hooks_that_run_dvc_without_mlseal_are_found(git: Git, repos: str, hooks: list[str]) -> None:
    assert frameworks.isolated(git.path) == []
    (git.path / frameworks.CONFIG).write_text("repos:\n" + repos if repos != "[]" else "repos: []\n")
    assert [each.hook for each in frameworks.isolated(git.path)] == hooks


def test_a_configuration_that_cannot_be_read_is_not_passed_over(git: Git) -> None:
    (git.path / frameworks.CONFIG).write_text("repos: [")
    with pytest.raises(Unreadable):
        frameworks.isolated(git.path)


def pre_commit(git: Git, *arguments: str) -> None:
    command = [sys.executable, "-m", "pre_commit", *arguments]
    done = subprocess.run(command, cwd=git.path, env=git.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_installed_before_or_after_the_pre_commit_program(git: Git) -> None:
    pre_commit(git, "install", "-t", "pre-push")
    theirs = everything(git.hooks)
    before = prepush.install(git.path)
    assert before.chained and before.framework and before.in_force
    pre_commit(git, "install", "-t", "pre-push")  # now theirs starts ours, which must not start theirs again
    state = prepush.state(git.path)
    assert state.place == git.hooks / prepush.LEGACY and state.in_force
    assert prepush.install(git.path).place == git.hooks / prepush.LEGACY
    assert prepush.uninstall(git.path)
    assert everything(git.hooks).keys() == {"pre-push"}
    assert (git.hooks / "pre-push").read_bytes() == theirs["pre-push"][1]
    assert not prepush.state(git.path).ours


# --- with DVC ------------------------------------------------------------------------------------------------------


@pytest.fixture
def upstream(scene: Scene, tmp_path: Path) -> Path:
    bare = tmp_path / "upstream.git"
    scene.owner.git("init", "-q", "--bare", str(bare))
    scene.owner.git("remote", "add", "origin", str(bare))
    return bare


def branches(scene: Scene, upstream: Path) -> list[str]:
    return scene.owner.git("-C", str(upstream), "branch", "--format=%(refname:short)").stdout.split()


def on_path(person: Person) -> None:
    """``dvc`` and ``mlseal`` as console scripts of this environment, first on the path."""
    for name, module in (("dvc", "dvc.cli"), ("mlseal", "mlseal.cli")):
        command = person.python.parent / name
        if not command.exists():
            command.write_text(f"#!{person.python}\nimport sys\nfrom {module} import main\nsys.exit(main())\n")
            command.chmod(0o755)
    person.env["PATH"] = f"{person.python.parent}{os.pathsep}{os.environ['PATH']}"


def test_unsigned_outputs_of_any_pushed_commit_stop_git(scene: Scene, upstream: Path, interpreters) -> None:
    scene.add("data.csv")
    # Pushed by a DVC without mlseal: the data are on the remote, the evidence is not.
    Person(interpreters["plain"], scene.owner.env, scene.repo).dvc("push")
    assert scene.objects()
    done = scene.owner.git("push", "-q", "origin", "main", ok=False)
    assert "no provenance of data.csv" in done.stderr
    (scene.repo / "data.csv.dvc").rename(scene.repo / "kept")
    (scene.repo / ".dvc" / "mlseal.json").unlink()
    scene.owner.git("config", "--unset", "mlseal.dvc")
    scene.owner.commit("remove it, and the marker")
    policy = scene.owner.env.pop("MLSEAL_POLICY")
    assert "data.csv" in scene.owner.git("push", "-q", "origin", "main", ok=False).stderr
    assert branches(scene, upstream) == []
    scene.owner.env["MLSEAL_POLICY"] = policy
    scene.owner.git("checkout", "-q", "HEAD^")
    scene.owner.dvc("push")
    scene.owner.git("push", "-q", "origin", "main")
    linked = scene.repo.parent / "linked"
    scene.owner.git("worktree", "add", "-q", "-b", "side", str(linked))
    done = scene.owner.git("push", "origin", "side", cwd=linked)
    assert "verified the provenance of 1 outputs" in done.stderr
    assert branches(scene, upstream) == ["main", "side"]


@pytest.mark.parametrize("first", ["dvc", "mlseal"])
def test_dvc_install_before_or_after(scene: Scene, upstream: Path, first: str) -> None:
    """``dvc install``'s hook pushes (and signs) the data, then ours verifies: one ``git push`` does it all."""
    on_path(scene.owner)
    hooks = scene.repo / ".git" / "hooks"
    ours = ("dvc", "install", "--no-autoload", "--json")
    if first == "dvc":
        scene.owner.mlseal("dvc", "uninstall", "--no-autoload")
        scene.owner.dvc("install")
        before = everything(hooks)
        scene.owner.mlseal(*ours)
    else:
        assert "already exists" in scene.owner.dvc("install", ok=False).stderr
        scene.owner.mlseal(*ours, "--dvc-hooks")
        before = None
    scene.add("data.csv")
    done = scene.owner.git("push", "-q", "origin", "main")
    assert "signed 1 outputs" in done.stderr and "verified the provenance" in done.stderr
    assert scene.bundles()
    if before is not None:
        scene.owner.mlseal("dvc", "uninstall", "--no-autoload")
        assert everything(hooks) == before


def test_the_pre_commit_program_runs_our_hooks(scene: Scene, upstream: Path, tmp_path: Path) -> None:
    """The manifest as other repositories use it; data pushed, signed and verified by one ``git push``."""
    on_path(scene.owner)
    scene.owner.env["PRE_COMMIT_HOME"] = str(tmp_path / "pre-commit")
    offered = Git(tmp_path / "offered", tmp_path)
    offered.path.mkdir()
    offered("init", "-q")
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", offered.path)
    rev = offered.commit("x")
    config = scene.repo / frameworks.CONFIG
    verify = f"repos:\n- repo: file://{offered.path}\n  rev: {rev}\n  hooks:\n  - id: mlseal-dvc-verify\n"
    config.write_text(verify)
    scene.owner.mlseal("dvc", "uninstall", "--no-autoload")
    scene.owner.run(sys.executable, "-m", "pre_commit", "install", "-t", "pre-push")
    scene.add("data.csv")
    done = scene.owner.git("push", "origin", "main", ok=False)
    assert "no provenance of data.csv" in done.stdout + done.stderr
    config.write_text(verify.replace("hooks:\n", "hooks:\n  - id: mlseal-dvc-push\n"))
    scene.owner.commit("push the data too")
    scene.owner.git("push", "-q", "origin", "main")
    assert branches(scene, upstream) == ["main"] and scene.bundles()


def test_a_hook_without_its_interpreter_stops_the_push(scene: Scene, upstream: Path) -> None:
    hook = scene.repo / ".git" / "hooks" / "pre-push"
    hook.write_text(hook.read_text().replace(str(scene.owner.python), "/nowhere/python"))
    scene.owner.git("push", "-q", "origin", "main", ok=False)
    assert branches(scene, upstream) == []
    state = prepush.state(scene.repo)
    assert state.interpreter_missing and not state.in_force
