"""The parsers of outside bytes, fuzzed; `fuzz/run TARGET SECONDS` does the same by hand."""

import subprocess
from pathlib import Path

import pytest

from soak import FUZZ_SECONDS

FUZZ = Path(__file__).parents[1] / "fuzz"
TARGETS = sorted(target.stem for target in (FUZZ / "fuzz_targets").glob("*.rs"))


@pytest.mark.soak
@pytest.mark.timeout(900)  # the first one builds
@pytest.mark.parametrize("target", TARGETS)
def test_fuzzing_finds_nothing(target: str) -> None:
    done = subprocess.run(
        [FUZZ / "run", target, str(FUZZ_SECONDS)], stderr=subprocess.PIPE, text=True, check=False
    )
    end = "\n".join(done.stderr.splitlines()[-12:])
    print(end)
    assert done.returncode == 0, f"{target}: {end}"
