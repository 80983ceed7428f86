"""Reads from the git repository that a package is in.

Packages come from others, and so do repositories in them. git can be configured in many ways to run a program, so it is
only used for what needs none, with everything off that could start one. It never fetches.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from osc_containers.errors import Error
from osc_containers.formats import strict_json
from osc_containers.fs import plain_file, program
from osc_containers.fs.program import Done

# Most of these turn off a program that the repository itself could configure (git-config(1)). Also, no object may
# stand for another one, and a file name with an asterisk is a name and not a pattern.
_OPTIONS = (
    *("--no-pager", "--no-replace-objects", "--literal-pathspecs"),
    # A directory of the package may be a bare repository, with a configuration of its own.
    *("-c", "safe.bareRepository=explicit"),
    *("-c", "core.fsmonitor="),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.attributesFile=/dev/null"),
    *("-c", "core.pager=cat"),
    *("-c", "core.editor=/bin/false"),
    *("-c", "core.sshCommand=/bin/false"),
    *("-c", "core.gitProxy="),
    *("-c", "core.askPass="),
    *("-c", "core.alternateRefsCommand=/bin/false"),
    *("-c", "credential.helper="),
    *("-c", "protocol.allow=never"),
    *("-c", "diff.external="),
)
# Older releases of git do not know GIT_NO_LAZY_FETCH. Without a protocol, they cannot fetch either.
_SETTINGS = {
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "SSH_ASKPASS": "/bin/false",
}
_CONFIGURATION = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM")
"""Variables that say where the user has the configuration with `safe.directory`."""

_OUTPUT = 1 << 20
_HEAD_LIMIT = 1 << 10
_META_LIMIT = 1 << 16
_BATCH = 200
"""Names in one call; each has at most 4096 bytes, and the kernel allows two megabytes."""
# The name of an object, in a repository with SHA-256 or SHA-1.
_OBJECT = r"\b[0-9a-f]{64}\b|\b[0-9a-f]{40}\b"
# git-config(1) prints `extensions.partialclone NAME` or `remote.NAME.promisor true`. Only a plain name gets into a
# command for the user.
_PARTIAL = r"^(extensions\.partialclone|remote\..*\.promisor)$"
_REMOTE = r"(?:extensions\.partialclone |remote\.)([A-Za-z0-9][A-Za-z0-9_-]*)(?:\n|\.promisor )"


def find_top(directory: Path) -> Path | None:
    """Return the directory of the work tree that a directory is in, or None if it is in none."""
    path = directory.resolve()
    # `.git` is a file in submodules and in additional work trees.
    return next((each for each in (path, *path.parents) if (each / ".git").exists()), None)


def has_obs_metadata(directory: Path) -> bool:
    """Tell whether osc knows which package a work tree is: by `git-obs meta` (osc/git_scm/store.py), for its branch.

    osc also takes the project from a directory above; that is not looked for.
    """
    try:
        text = plain_file.read(directory, ".git/HEAD", _HEAD_LIMIT) or b""
        # With a detached HEAD this is the name of a commit, for which there is no such directory.
        branch = text.decode().strip().removeprefix("ref: refs/heads/").replace("/", "__")
        content = plain_file.read(directory, f".git/obs/{branch}/meta.json", _META_LIMIT) if branch else None
        fields = strict_json.load(content.decode(), "meta.json") if content else None
        return bool(fields and all(fields.text(name, "") for name in ("apiurl", "project", "package")))
    except (Error, OSError, ValueError):
        return False


class Repository(NamedTuple):
    """The repository of the work tree in `top`."""

    top: Path
    git_directory: str
    environ: Mapping[str, str]

    def read(self, path: Path, revision: str | None, limit: int) -> bytes | None:
        """Return the content of a file in a revision, by default the last commit, or None if it is not there.

        :raises Error: there is no such revision, or git reports an error.
        """
        commit = self._commit(revision)
        if not commit:
            return None
        # Each tree is read by its own name, so that an error can say which object a partial clone lacks.
        header = self._run("cat-file", "commit", commit, needed=commit).partition(b"\n")[0]
        mode, kind, number = "", "tree", header.decode().removeprefix("tree ")
        for part in path.relative_to(self.top).parts:
            listing = ("ls-tree", "-z", "--full-tree", number)
            entry = self._run(*listing, arguments=[part], needed=number) if kind == "tree" else b""
            if not entry:
                return None
            mode, kind, number = entry.partition(b"\t")[0].decode().split()
        # Files have the mode 100644 or 100755. A symbolic link is a blob, too, with the mode 120000.
        if kind != "blob" or not mode.startswith("100"):
            raise Error(f"{path}: got a link or a directory in {revision or 'the last commit'}, expected a file")
        return self._run("cat-file", "blob", number, limit=limit, needed=number)

    def size(self, path: Path) -> int | None:
        """Return the size of a file in the last commit, or None if it is not there."""
        name = str(path.relative_to(self.top))
        commit = self._commit(None)
        entry = commit and self._run("ls-tree", "-z", "-l", "--full-tree", commit, arguments=[name])
        size = entry.partition(b"\t")[0].split()[-1] if entry else b""
        # The size of a directory or submodule is `-`.
        return int(size) if size.isdigit() else None

    def untracked(self, directory: Path, names: Sequence[str]) -> list[str]:
        """Return those of the files `names` of a directory that are not in the index."""
        prefix = "" if directory == self.top else f"{directory.relative_to(self.top)}/"
        listed = set()
        for start in range(0, len(names), _BATCH):
            arguments = [prefix + name for name in names[start : start + _BATCH]]
            listed |= set(self._run("ls-files", "-z", "--cached", arguments=arguments).split(b"\0"))
        return [name for name in names if os.fsencode(prefix + name) not in listed]

    def excludes(self, directory: Path, names: Sequence[str]) -> bool:
        """Tell whether git is configured to ignore one of the files `names`, so that adding it needs --force."""
        paths = [str((directory / name).relative_to(self.top)) for name in names]
        listing = ("ls-files", "-z", "--others", "--ignored", "--exclude-standard")
        batches = (paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH))
        return any(self._run(*listing, arguments=batch) for batch in batches)

    def add(self, directory: Path, names: Sequence[str]) -> None:
        """Add files to the index, also those that a `.gitignore` excludes: the build needs them.

        :raises Error: a file has a filter, such as that of git-lfs. The repository may have configured any program for
            it, so that only the user may run it.
        """
        paths = [str((directory / name).relative_to(self.top)) for name in names]
        batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
        for batch in batches:
            # The user's own attributes count, too: without its filter, a large file would be added as it is.
            own = f"core.attributesFile={self._attributes()}"
            # The output is path, attribute and value, each with a null byte behind it (git-check-attr(1)).
            fields = self._run("-c", own, "check-attr", "-z", "filter", arguments=batch).split(b"\0")
            values = dict(zip(fields[0::3], fields[2::3], strict=False))
            filtered = [os.fsdecode(path) for path, value in values.items() if value not in (b"unspecified", b"unset")]
            if filtered:
                raise Error(f"{filtered[0]}: .gitattributes has a filter for it, which only you can run by 'git add'")
        # Nothing was added so far, so an error above leaves the index unchanged.
        for batch in batches:
            self._run("add", "--force", arguments=batch)

    def _attributes(self) -> str:
        """Return the user's own file of attributes, as git finds it."""
        own = _git("config", "--global", "--type=path", "--get", "core.attributesFile", environ=self.environ).stdout
        home = self.environ.get("XDG_CONFIG_HOME") or os.path.join(self.environ.get("HOME") or "/", ".config")
        return os.fsdecode(own[:-1]) or os.path.join(home, "git/attributes")

    def ignores(self, path: Path) -> bool:
        """Return whether a path is untracked, and the user's own configuration says that git must ignore it.

        `.gitignore` does not count, because it comes with the package.
        """
        name = str(path.relative_to(self.top))
        if self._run("ls-files", "-z", "--cached", arguments=[name]):
            return False
        exclude = self._run("rev-parse", "--path-format=absolute", "--git-path", "info/exclude")
        own = _git("config", "--type=path", "--get", "core.excludesFile", environ=self.environ).stdout
        home = self.environ.get("XDG_CONFIG_HOME") or os.path.join(self.environ.get("HOME") or "/", ".config")
        files = (os.fsdecode(exclude[:-1]), os.fsdecode(own[:-1]) or os.path.join(home, "git/ignore"))
        patterns = [f"--exclude-from={file}" for file in files if os.path.isabs(file) and os.path.isfile(file)]
        listing = ("ls-files", "-z", "--others", "--ignored", "--directory", *patterns)
        return bool(patterns and self._run(*listing, arguments=[name]))

    def _commit(self, revision: str | None) -> str:
        """Return the name of a commit; an empty string if the repository has none yet."""
        name = revision or "HEAD"
        # A revision is a word of the user, and may begin with a dash.
        query = ("rev-parse", "--quiet", "--verify", "--end-of-options")
        done = self._start(*query, f"{name}^{{commit}}")
        if done.status:
            # Newer releases of git print nothing if the commit that a name leads to is not there.
            missing = self._start(*query, name).stdout.decode().strip()
            if done.stderr or missing:
                self._fail(done, missing)
        if done.status and revision is not None:
            raise Error(f"{revision[:80]!r}: no such file, and no such revision in git")
        return done.stdout.decode().strip()

    def _run(self, *options: str, arguments: Sequence[str] = (), limit: int = _OUTPUT, needed: str = "") -> bytes:
        """Return the output of a git command that reads the object `needed`, or none.

        :raises Error: it fails.
        """
        done = self._start(*options, arguments=arguments, limit=limit)
        if done.status:
            self._fail(done, needed)
        return done.stdout

    def _start(self, *options: str, arguments: Sequence[str] = (), limit: int = _OUTPUT) -> Done:
        where = (f"--git-dir={self.git_directory}", f"--work-tree={self.top}", "-C", str(self.top))
        return _git(*where, *options, arguments=arguments, limit=limit, environ=self.environ)

    def _fail(self, done: Done, needed: str) -> NoReturn:
        problem = f"git: {_message(done)}"
        # Not every message names the object that git did not find.
        match = re.search(_OBJECT, problem)
        missing = match[0] if match else needed
        if missing and self._start("cat-file", "-e", missing).status:
            partial = self._start("config", "--get-regexp", _PARTIAL).stdout.decode("utf-8", "replace")
            remote = re.match(_REMOTE, partial)
            problem = (
                f"{self.top}: this partial clone lacks the object {missing}; if you cloned it yourself, run: "
                f"git fetch {remote[1] if remote else 'origin'} {missing}"
                if partial
                else f"{self.top}: git lacks the object {missing}; run: git fsck"
            )
        raise Error(problem)


def open_repository(top: Path, environ: Mapping[str, str]) -> Repository:
    """Return the repository of a work tree, if git trusts its owner.

    :raises Error: git is not installed, there is no repository, or it belongs to another user.
    """
    # The first command reads exactly `.git`. The second searches as git does, and checks the owner as git does, with
    # `safe.directory`. It could find another repository where `.git` is none.
    exact = _git("rev-parse", "--resolve-git-dir", str(top / ".git"), environ=environ)
    found = _git("-C", str(top), "rev-parse", "--absolute-git-dir", environ=environ)
    for done in (found, exact):
        if done.status:
            raise Error(f"git: {_message(done)}")
    expected, git_directory = (os.path.realpath(top / os.fsdecode(done.stdout[:-1])) for done in (exact, found))
    if git_directory != expected:
        raise Error(f"git: got the repository {git_directory}, expected {expected}; is {top / '.git'} damaged?")
    return Repository(top, git_directory, environ)


def _git(*options: str, environ: Mapping[str, str], arguments: Sequence[str] = (), limit: int = _OUTPUT) -> Done:
    return program.run(
        *("git", *_OPTIONS, *options),
        arguments=arguments,
        environ=environ,
        inherit=["SUDO_UID"],  # git trusts repositories of the user who ran sudo
        settings=_SETTINGS | {name: environ[name] for name in _CONFIGURATION if name in environ},
        limit=limit,
    )


def _message(done: Done) -> str:
    return " ".join(done.stderr.decode("utf-8", "replace").split())[:600] or done.reason
