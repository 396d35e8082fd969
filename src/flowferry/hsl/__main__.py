"""The agent's process: `python -m flowferry.hsl CONFIG_JSON`. One line on stderr when it fails."""

import signal
import sys

from flowferry import _native


def main() -> int:
    """Run until SIGTERM or SIGINT; the last status goes to stdout."""
    # The agent's own handler calls the one before it; Python's would raise after its orderly end.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        print(_native.hsl_run(sys.argv[1]))
    except (RuntimeError, ValueError) as error:
        print(f"flowferry hsl: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
