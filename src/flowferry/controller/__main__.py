"""The controller's process: `python -m flowferry.controller FILE`. One line when it fails."""

import sys

from flowferry.controller import config, foreground
from flowferry.hsl.config import ConfigError


def main() -> int:
    """Run until SIGTERM or SIGINT; says `ready` on stderr once it can be asked."""
    try:
        return foreground.run(config.load(sys.argv[1]))
    except ConfigError as error:
        print(f"flowferry controller: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
