"""A large page is of use before it has been read: the first case is drawn, and only what is looked at is parsed."""

import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.reporting.browser import choose, drawn, open_page, state, until

START = '<script>"use strict"'


@pytest.fixture(scope="module")
def content(paged_results):
    return (paged_results / "report.html").read_bytes()


@pytest.fixture
def slow_address(content):
    """(address, event): a server that holds back what comes after the page's script until the event is set."""
    whole = threading.Event()
    parts = content.partition(b'</script>\n<section id="tables"')
    assert parts[1]

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(parts[0] + b"</script>\n")
            self.wfile.flush()
            whole.wait(60)
            self.wfile.write(content[len(parts[0]) + len(b"</script>\n") :])

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/report.html", whole
    whole.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_first_case_alone_stands_before_the_script(content):
    text = content.decode("utf-8")
    blocks = [match.start() for match in re.finditer(r'<script type="application/json" id="film-\d+">', text)]
    assert len(blocks) == 12
    assert [place < text.index(START) for place in blocks] == [True] + [False] * 11
    assert text.index('<section id="cases"') < text.index('id="list-content"') < blocks[0]


def test_only_films_that_were_opened_are_parsed(page):
    opened = page.evaluate("[...picturesOf.kept.keys()]")
    assert opened == [page.evaluate("content.first[0]")] == [page.evaluate("state.film")]
    other = next(film for film in range(12) if film != opened[0])
    choose(page, other, "Edema")
    assert page.evaluate("[...picturesOf.kept.keys()]") == [*opened, other]


def test_the_first_case_is_the_surest_of_the_scored_labels(page):
    film, label = page.evaluate("content.first")
    of_list = page.evaluate("list.rows.find(([f, l]) => content.tasks.includes(content.labels[l]) && pictured.has(f))")
    assert [film, label] == of_list  # the list is sorted by the first model's probability
    assert (state(page, "film"), state(page, "label")) == tuple(
        page.evaluate("([f, l]) => [content.films[f], content.labels[l]]", [film, label])
    )


def test_cases_are_drawn_while_the_page_is_being_read(browser, slow_address):
    address, whole = slow_address
    page = browser.new_page(bypass_csp=True)  # waiting for a function evaluates text
    page.goto(address, wait_until="commit")
    until(page, "document.getElementById('viewer')?.dataset.drawn")
    assert page.evaluate("document.readyState") == "loading" and page.locator("#tables").count() == 0
    assert page.evaluate("at('film').width > 1 && document.querySelectorAll('#patches button').length") == 16
    other = page.evaluate("[...pictured].find((film) => film !== state.film)")
    page.locator("#choose-film").select_option(str(other))
    assert "still being read" in page.locator("#no-picture").inner_text()
    whole.set()
    drawn(page)
    assert page.locator("#no-picture").is_hidden() and state(page, "film") == page.evaluate(f"content.films[{other}]")
    assert page.locator("#patches button").count() == 16
    page.close()


def test_an_address_of_another_film_waits_for_it(browser, slow_address, paged_results):
    address, whole = slow_address
    first, _ = open_page(browser, paged_results / "report.html")
    other = first.evaluate("content.films.at(content.first[0] === 11 ? 10 : 11)")
    first.close()
    page = browser.new_page(bypass_csp=True)  # waiting for a function evaluates text
    page.goto(f"{address}#film={other}&label=Cardiomegaly", wait_until="commit")
    until(page, "document.getElementById('list-count')?.textContent")
    assert page.locator("#viewer").get_attribute("data-drawn") is None
    whole.set()
    drawn(page)
    assert (state(page, "film"), state(page, "label")) == (other, "Cardiomegaly")
    page.close()


@pytest.mark.parametrize("part", ["tables", "run"])
def test_an_address_of_a_part_of_the_page_is_kept(browser, paged_results, part):
    page, complaints = open_page(browser, paged_results / "report.html")
    page.goto("about:blank")
    complaints.clear()
    page.goto(f"{(paged_results / 'report.html').as_uri()}#{part}")
    drawn(page)
    assert page.evaluate("location.hash") == f"#{part}" and complaints == []
    page.close()
