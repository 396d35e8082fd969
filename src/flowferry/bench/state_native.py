"""The measuring programs in C and Rust, built and run; what they print is JSON."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from flowferry.testbed import TestbedError

ROOT = Path(__file__).parents[3]
ESTATE = ROOT / "crates" / "estate"


def _run(*argv: str | Path, cwd: Path = ROOT) -> str:
    words = [str(word) for word in argv]
    if shutil.which(words[0]) is None:
        raise TestbedError(f"{words[0]} is not installed", "run 'make setup'")
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no word of it"])[-1]
        raise TestbedError(f"{words[0]} failed: {last}", f"run it by hand: {' '.join(words)}")
    return done.stdout


class CPrograms:
    """Those of `crates/estate/bench`, against libestate as it is installed for C programs."""

    def __init__(self) -> None:
        """Build all, in a directory of its own."""
        self._directory = tempfile.TemporaryDirectory()
        self._place = place = Path(self._directory.name)
        _run("make", "--silent", "install-c", f"PREFIX={place}")
        for name in ("local", "global"):
            source = ESTATE / "bench" / f"{name}.c"
            _run(
                "cc", "-O2", source, f"-I{place}/include", f"-L{place}/lib",
                f"-Wl,-rpath,{place}/lib", "-lestate", "-lpthread", "-o", place / name,
            )  # fmt: skip

    def local(self, redis: str) -> dict[str, Any]:
        """All of local state, some ten seconds; set and get also of the server `redis`."""
        told: dict[str, Any] = json.loads(_run(self._place / "local", redis))
        return told

    def global_reads(
        self, cluster: str, peer: str, instances: int, seconds: float
    ) -> dict[str, float]:
        """Medians `live_us` and `cached_us` of an instance that joins as the last one."""
        argv = (cluster, peer, str(instances), str(seconds))
        told: dict[str, float] = json.loads(_run(self._place / "global", *argv))
        return told

    def close(self) -> None:
        """Remove what was built."""
        self._directory.cleanup()


class Yardsticks:
    """`crates/estate/yardsticks`: scatter-gather by every means, in one run."""

    def __init__(self) -> None:
        """Build it; the first time that takes minutes."""
        manifest = ESTATE / "yardsticks" / "Cargo.toml"
        _run("cargo", "build", "--quiet", "--release", "--manifest-path", manifest)
        target = os.environ.get("CARGO_TARGET_DIR") or ESTATE / "yardsticks" / "target"
        self._program = Path(target) / "release" / "estate-yardsticks"

    def run(self, kinds: list[str], sizes: list[int], rounds: int) -> dict[tuple[str, int], float]:
        """Median of a round in µs, by kind and number of peers."""
        told = json.loads(
            _run(
                self._program,
                "measure",
                "--kinds",
                ",".join(kinds),
                "--rounds",
                str(rounds),
                "--sizes",
                ",".join(map(str, sizes)),
            )
        )
        return {(row["kind"], row["peers"]): row["p50_us"] for row in told["rows"]}
