"""`python -m demo`: tells the story once; the exit status says whether everything held."""

import sys

from demo.stage import Stage
from demo.story import tell
from harness.duck import DuckFailed
from harness.workplace import CommandFailed, Workplace


def main() -> int:
    stage = Stage()
    try:
        with Workplace("demo") as place:
            tell(stage, place)
    except KeyboardInterrupt:
        print("\nstopped; everything was cleaned up", file=sys.stderr)
        return 130
    except (CommandFailed, DuckFailed) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    return stage.verdict()


if __name__ == "__main__":
    sys.exit(main())
