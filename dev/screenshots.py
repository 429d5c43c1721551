"""Takes pictures of the web page as a user sees it: light, dark, on a phone, in Chinese, each with an answer.

    make screenshots        # or: python dev/screenshots.py --output_dir docs

Needs requirements-web.txt, Playwright and Chromium. Asks the model that `predict.py web` takes.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from extractive_qa.errors import QAError
from extractive_qa.text import shown
from utils import console
from utils.offline import SAMPLE_DATA_DIR

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DESKTOP, PHONE = {"width": 1280, "height": 880}, {"width": 390, "height": 844}
QUESTION = "What is the region above 8,000 m called?"
# file name, number of the example, None: QUESTION of the folder of documents; settings of the browser
PICTURES = [
    ("page_light.png", None, {"viewport": DESKTOP}),
    ("page_dark.png", 2, {"viewport": DESKTOP, "color_scheme": "dark"}),
    ("page_chinese.png", None, {"viewport": DESKTOP, "locale": "zh-CN"}),
    ("page_phone.png", None, {"viewport": PHONE, "has_touch": True, "is_mobile": True}),
]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=console.HelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=ROOT / "docs", help="where the PNG files go")
    parser.add_argument("--sample", action="store_true", help="the model of output/sample, or the bundled one")
    return parser.parse_args(argv)


def take(browser, address: str, path: Path, example: int | None, settings: dict) -> None:
    """Opens the page, asks the folder or tries an example, and writes what is then seen to `path`."""
    context = browser.new_context(**settings)
    tab = context.new_page()
    tab.goto(address)
    tab.wait_for_selector("main:not([hidden])")
    if example is None:
        tab.fill("#question", QUESTION)
        tab.click("#ask")
    else:
        tab.locator("#examples button").nth(example).click()
    tab.wait_for_selector("mark.chosen")
    tab.mouse.move(0, 0)
    if not settings.get("is_mobile"):  # there the page itself has moved to the answer
        tab.evaluate("scrollTo(0, 0)")  # the example stood below the fold
    tab.wait_for_timeout(1000)  # scrolling ends
    tab.screenshot(path=path)
    context.close()


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise QAError("Playwright is missing. Expected the web page's environment. Run: make screenshots") from None
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise QAError(
            f"no browser was found, expected one of {', '.join(BROWSERS)}. Run: apt-get install chromium fonts-noto-cjk"
        )
    command = [
        sys.executable,
        "predict.py",
        "web",
        "--port",
        "0",
        "--documents",
        SAMPLE_DATA_DIR / "documents",
        *(["--sample"] if args.sample else []),
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as running:
        try:
            address = server.stdout.readline().strip()
            browser = running.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
            for name, example, settings in PICTURES:
                take(browser, address, args.output_dir / name, example, settings)
                print(shown(args.output_dir / name))
            browser.close()
        finally:
            server.terminate()


if __name__ == "__main__":
    console.run(main)
