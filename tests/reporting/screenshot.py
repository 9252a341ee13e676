"""Takes the README's picture of the report: python -m tests.reporting.screenshot demo/results/report/report.html"""

import sys
from pathlib import Path

from tests.reporting.browser import open_page, running_chromium

TARGET = Path("figures/demo_report.png")


def main(report: Path) -> None:
    with running_chromium() as browser:
        page, _ = open_page(browser, report.resolve(), viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.locator("#cases").screenshot(path=TARGET)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
