"""pipeline/command/provenance: the commit and the versions are those that there are, and what is missing is told."""

import subprocess
from importlib.metadata import version

import pytest

from pipeline.command import provenance
from pipeline.command.provenance import find_commit, find_versions


def git(folder, *words):
    who = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    done = subprocess.run(["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose module lies where this one's does."""
    module = tmp_path / "project" / "pipeline" / "command" / "provenance.py"
    module.parent.mkdir(parents=True)
    module.write_text("first\n")
    (tmp_path / "project" / "docs").mkdir()
    (tmp_path / "project" / "docs" / "table.csv").write_text("first\n")
    monkeypatch.setattr(provenance, "__file__", str(module))
    return tmp_path / "project"


def test_the_commit_is_that_of_the_project_and_says_when_files_differ(project):
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "first")
    commit = git(project, "rev-parse", "HEAD")
    assert find_commit() == commit and find_commit(12) == commit[:12]
    git(project, "tag", "v1")
    assert find_commit() == commit  # not the tag's name
    (project / "new.txt").write_text("of no commit\n")
    assert find_commit() == commit
    (project / "docs" / "table.csv").write_text("published\n")
    assert find_commit() == commit
    (project / "pipeline" / "command" / "provenance.py").write_text("second\n")
    assert find_commit(12) == f"{commit[:12]}-dirty"
    git(project, "add", ".")
    assert find_commit(12) == f"{commit[:12]}-dirty"  # also when it is staged
    git(project, "commit", "-q", "-m", "second")
    assert find_commit() == git(project, "rev-parse", "HEAD") != commit


def test_an_installed_project_has_not_the_commit_of_a_clone_around_it(project):
    git(project.parent, "init", "-q")
    git(project.parent, "add", ".")
    git(project.parent, "commit", "-q", "-m", "another's")
    assert find_commit() is None


def test_versions_of_what_is_installed():
    assert find_versions(["numpy", "no-such-package"]) == {"numpy": version("numpy"), "no-such-package": None}
