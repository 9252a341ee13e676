"""Debian's Chromium for the tests of the page: found by the variable CHROMIUM or in PATH."""

from __future__ import annotations

import base64
import io
import os
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from cxr.labels import CHEXPERT

EVIL = """<script>alert("1")</script><img src=x onerror='alert(2)'>"""
"""A path may hold it: its last three parts are the film's name, as ever."""


def chromium_path():
    """Skips the test where there is no Chromium; in CI, where `CI` is set, that is a failure."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        message = "no chromium in PATH; apt-get install chromium, or set CHROMIUM=/path/to/it"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


@contextmanager
def running_chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser, path, **options):
    """(page, complaints) of an html file that is loaded; console output, errors, dialogs and requests
    for anything but the file itself and data in it are written down as complaints."""
    page = browser.new_page(**({"viewport": {"width": 1400, "height": 1000}} | options))
    page.set_default_timeout(120_000)  # the cores may be busy with other things
    complaints = []
    own = path.as_uri()
    page.on("console", lambda message: complaints.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("request", lambda request: complaints.append(request.url) if foreign(request.url, own) else None)

    def refuse(dialog):
        complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("dialog", refuse)
    page.goto(own)
    return page, complaints


def foreign(url, own):
    return url.partition("#")[0] != own and not url.startswith("data:")


def drawn(page):
    """Waits until the case that was chosen last is drawn."""
    until(page, "document.getElementById('viewer').dataset.drawn === String(drawing)")


def until(page, expression):
    """Waits for an expression to be true; the page's policy forbids it to be evaluated by the page again and again."""
    for _ in range(6000):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"never true: {expression}")


def state(page, name):
    return page.locator("#viewer").get_attribute(f"data-{name}")


def pixels(page, selector="#film"):
    """(h, w, 3) int of a canvas."""
    drawn(page)
    uri = page.evaluate("selector => document.querySelector(selector).toDataURL()", selector)
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def choose(page, film, label):
    page.locator("#choose-film").select_option(str(film))
    page.locator("#choose-label").select_option(str(CHEXPERT.names.index(label)))
    drawn(page)
