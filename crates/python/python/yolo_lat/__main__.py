"""The program yolo-lat, in the process of Python."""

import signal
import sys

from yolo_lat import _native


def main() -> int:
    """Runs the program with the arguments of this process and gives its exit code."""
    # Ctrl-C is the program's affair.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _native.main(["yolo-lat", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
