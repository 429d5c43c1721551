"""Line coverage by the whole suite, with every process that the tests start: `make coverage`.

    python tools/line_coverage.py                     # all tests; anything more is handed to pytest

Prints what is covered, line by line, and ends with 1 where tests fail, utils/ is covered to less than 90 %, or one of
the four scripts to less than 80 %. Processes that are killed can't tell what they ran. Leaves no file behind.
"""

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from coverage import Coverage

PROJECT_ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("download_data.py", "train.py", "evaluate.py", "predict.py")


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        data_file = str(Path(folder) / "coverage")
        command = [sys.executable, "-m", "coverage", "run", "-m", "pytest", *arguments]
        tests = subprocess.run(command, cwd=PROJECT_ROOT, env=os.environ | {"COVERAGE_FILE": data_file}, check=False)
        os.chdir(PROJECT_ROOT)
        coverage = Coverage(data_file=data_file)
        coverage.combine()
        # named one by one: a file that no test ever opened counts too
        modules = [str(path.relative_to(PROJECT_ROOT)) for path in sorted((PROJECT_ROOT / "utils").glob("*.py"))]
        parts = [("utils/", modules, 90), *((name, [name], 80) for name in SCRIPTS)]
        coverage.report(morfs=[*modules, *SCRIPTS], show_missing=True)
        failed = tests.returncode != 0
        for name, files, least in parts:
            percent = coverage.report(morfs=files, file=io.StringIO())
            print(f"{name}: {percent:.1f} %, at least {least} % expected")
            failed |= percent < least
        coverage.get_data().close()  # Windows deletes no open file
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
