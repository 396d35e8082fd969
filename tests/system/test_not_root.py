"""Who is not root is told so in one line, whatever he tries; and set-up names the Rust it needs."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from flowferry.hsl import Agent
from flowferry.hsl.wiring import config_for
from flowferry.testbed import Chain

ROOT = Path(__file__).parents[2]
FLOWFERRY = [sys.executable, "-c", "from flowferry.cli import main; main()"]
#: Nobody, who may read where this clone is, be that in root's own folder, and has no other right.
NOBODY = [
    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
]  # fmt: skip


def call(argv: list[str], **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **env}
    )


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can read; pytest's are its owner's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize(
    "words",
    [
        ["testbed", "up", "--name", "RUN"],
        ["demo"],
        ["hsl", "run", "--config", "FILE"],
        ["probe", "sink", "--netns", "RUN-h2"],
        ["probe", "send", "10.0.0.2", "--netns", "RUN-h1"],
    ],
    ids=" ".join,
)
def test_commands_that_need_root_say_so_in_one_line(
    netns_chain: Callable[..., Chain], open_folder: Path, words: list[str]
) -> None:
    chain = netns_chain()
    config = config_for(chain)
    file = open_folder / "agent.yaml"
    names = config.interfaces
    file.write_text(
        yaml.safe_dump(
            {
                "instance": {"name": "i1", "id": 1},
                "shim": "kernel",
                "socket": str(open_folder / "agent.sock"),
                "pins": config.pins,
                "interfaces": {"upstream": names.upstream, "downstream": names.downstream},
            }
        )
    )
    words = [w.replace("RUN", chain.name).replace("FILE", str(file)) for w in words]
    done = call([*NOBODY, *FLOWFERRY, *words])
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert "run it as root" in done.stderr or "run as root" in done.stderr
    assert not Path(config.pins).exists()


@pytest.mark.parametrize("command", ["status", "holds", "flows"])
def test_an_agent_answers_root_alone(netns_chain: Callable[..., Chain], command: str) -> None:
    chain = netns_chain()
    with Agent(config_for(chain)) as agent:
        done = call([*NOBODY, *FLOWFERRY, "hsl", command, "--socket", agent.config.socket])
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert "run this as root" in done.stderr


def test_set_up_says_that_it_needs_root() -> None:
    done = call([*NOBODY, "bash", str(ROOT / "setup/setup.sh")])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "setup: failed: this needs root; run it as root (sudo make ...)\n"


def fake(folder: Path, name: str, says: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("programs", "says"),
    [
        (
            {},
            "Rust is missing (no cargo); install Rust {} or newer with rustup (https://rustup.rs)",
        ),
        ({"cargo": "cargo 9.0.0"}, "Rust is missing (no rustc); install Rust {} or newer"),
        ({"rustc": "rustc 9.0.0"}, "Rust is missing (no cargo); install Rust {} or newer"),
        (
            {"cargo": "cargo 1.63.0", "rustc": "rustc 1.63.0 (4b91a6ea7 2022-08-08)"},
            "Rust 1.63.0 is too old; update to {} or newer (rustup update)",
        ),
        (
            {"cargo": "error: no default is configured", "rustc": ""},
            "rustc says no version, 'rustc --version' shows why; Rust {} or newer is needed",
        ),
    ],
    ids=["neither", "no rustc", "no cargo", "too old", "no toolchain"],
)
def test_set_up_names_the_rust_it_needs(
    tmp_path: Path, programs: dict[str, str], says: str
) -> None:
    """In a copy without its further steps, with a path that has nothing but the system's tools."""
    (tmp_path / "setup").mkdir()
    shutil.copy(ROOT / "setup/setup.sh", tmp_path / "setup")
    shutil.copy(ROOT / "Cargo.toml", tmp_path)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "sh", "dirname", "sed", "id", "cut", "sort", "head", "cat"):
        where = shutil.which(name)
        assert where
        (tools / name).symlink_to(where)
    (tools / "python3").symlink_to(sys.executable)
    for name, answer in programs.items():
        fake(tools, name, answer)
    done = call(["bash", str(tmp_path / "setup/setup.sh")], PATH=str(tools), HOME=str(tmp_path))
    needed = next(
        line.split('"')[1]
        for line in (ROOT / "Cargo.toml").read_text().splitlines()
        if line.startswith("rust-version")
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert done.stderr.startswith("setup: failed: " + says.format(needed))


def test_set_up_finds_the_rust_that_it_needs(tmp_path: Path) -> None:
    """The control: with new enough programs the copy goes on to the step that it lacks."""
    (tmp_path / "setup").mkdir()
    shutil.copy(ROOT / "setup/setup.sh", tmp_path / "setup")
    shutil.copy(ROOT / "Cargo.toml", tmp_path)
    fake(tmp_path, "cargo", "cargo 9.0.0")
    fake(tmp_path, "rustc", "rustc 9.0.0-nightly (0 1970-01-01)")
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = call(["bash", str(tmp_path / "setup/setup.sh")], PATH=path)
    assert done.returncode == 127
    assert "setup/packages.sh: No such file" in done.stderr
