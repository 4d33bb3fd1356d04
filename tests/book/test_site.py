"""The built site in a real browser: offline, quiet, readable by everyone, and without dead ends."""

import re
from functools import lru_cache
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from checkout import ROOT
from triviumbook.colab import Book
from triviumbook.repository import book_url, colab_url, repository

pytestmark = pytest.mark.browser

PAGES = sorted(Book(ROOT).pages)
THEMES = ("light", "dark")


@pytest.fixture(scope="module")
def opened(browser, site_url):
    """A function that opens a page and notes what it asks for and complains of."""
    contexts = []

    def open_page(name):
        for context in contexts:  # one page at a time: long pages are heavy
            context.close()
        contexts[:] = [browser.new_context(viewport={"width": 1400, "height": 900})]
        contexts[0].set_default_timeout(120_000)  # long pages, on a machine that may be busy
        page = contexts[0].new_page()
        page.asked, page.complaints = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("requestfailed", lambda request: page.complaints.append(f"failed: {request.url}"))
        page.on(
            "response",
            lambda answer: (
                answer.status >= 400 and page.complaints.append(f"{answer.status}: {answer.url}")
            ),
        )
        page.on(
            "console",
            lambda message: message.type == "error" and page.complaints.append(message.text),
        )
        page.goto(f"{site_url}{name}.html", wait_until="networkidle")
        page.evaluate("() => window.MathJax?.startup?.promise")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module", params=PAGES)
def page(request, opened):
    """Each page of the book, opened once for all the tests that ask for it."""
    page = opened(request.param)
    page.name = request.param
    return page


@lru_cache
def parsed(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def stays_quiet(page, site_url):
    local = (site_url, "data:", "blob:")
    assert [url for url in page.asked if not url.startswith(local)] == []
    assert page.complaints == []


def test_no_request_leaves_the_host_and_nothing_complains(page, site_url):
    stays_quiet(page, site_url)


@pytest.mark.parametrize("width", [390, 768, 1600])
@pytest.mark.parametrize("theme", THEMES)
def test_no_page_scrolls_sideways(page, theme, width):
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("window.scrollTo(100, 0)")
    assert page.evaluate("window.scrollX") == 0


def test_formulas_are_set(site, page):
    formulas = parsed(site / f"{page.name}.html").select("article .math")
    assert page.locator("article mjx-container").count() >= len(formulas)
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0


@pytest.mark.parametrize("theme", THEMES)
def test_no_serious_accessibility_finding(page, theme):
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": 1400, "height": 900})
    # Folded answers are read too.
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    page.evaluate(
        "document.querySelectorAll('.toggle-button-hidden').forEach(each => each.click())"
    )
    page.wait_for_timeout(400)
    # The contrast of program text, thousands of words a page, is measured once for all pages.
    grave = findings(page, None, rules={"color-contrast": {"enabled": False}})
    grave += findings(page, {"exclude": [["div.highlight"]]}, runOnly=["color-contrast"])
    assert not grave, "\n".join(grave)


@pytest.mark.parametrize("theme", THEMES)
def test_program_text_of_every_kind_can_be_read(opened, site, theme):
    kinds = {
        " ".join(word["class"])
        for name in PAGES
        for word in parsed(site / f"{name}.html").select("div.highlight span[class]")
    }
    page = opened("chapters/code/cnn")
    page.emulate_media(color_scheme=theme)
    page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme)
    page.evaluate(
        """kinds => document.querySelector('article div.highlight pre').replaceChildren(
            ...kinds.flatMap(kind => {
                const word = document.createElement('span')
                word.className = kind
                word.textContent = 'word'
                return [word, ' ']
            }))""",
        sorted(kinds),
    )
    first = {"include": [["article div.highlight pre"]]}
    grave = findings(page, first, runOnly=["color-contrast"])
    assert len(kinds) > 20
    assert not grave, "\n".join(grave)


def findings(page, context, **options):
    """What axe finds serious or critical."""
    # It would fetch what style sheets import, from addresses relative to the page, and describe
    # every element that is right, which takes minutes on a long page.
    options |= {"preload": False, "resultTypes": ["violations"]}
    found = Axe().run(page, context=context, options=options).response["violations"]
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("name", PAGES)
def test_every_picture_has_a_text_alternative(site, name):
    page = parsed(site / f"{name}.html")
    article = page.select_one("article")
    for image in page.find_all("img"):
        assert image.has_attr("alt"), image
    for image in article.find_all("img"):
        assert image["alt"].strip(), image
    for drawing in article.find_all("svg"):
        hidden = drawing.find_parent(attrs={"aria-hidden": "true"})
        inner = drawing.find_parent("svg")
        icon = "sd-octicon" in drawing.get("class", [])
        if drawing.get("aria-hidden") == "true" or hidden or inner or icon:
            continue
        assert drawing.get("role") == "img", drawing.attrs
        assert drawing.get("aria-label", "").strip(), drawing.attrs
    for figure in article.find_all("figure"):
        if not figure.find_parent(re.compile("^trivium-")):
            caption = figure.find("figcaption")
            assert caption is not None, figure.get("id")
            assert caption.get_text(strip=True)


@pytest.mark.parametrize("name", [*PAGES, "index", "search", "genindex"])
def test_links_within_the_book_lead_somewhere(site, name):
    page = parsed(site / f"{name}.html")
    dead = []
    for element in page.find_all(["a", "link", "script", "img"]):
        link = element.get("href") or element.get("src")
        if not link or urlparse(link).scheme or link.startswith("//"):
            continue
        if element.name == "link" and element.get("rel") == ["canonical"]:
            continue
        address, anchor = urldefrag(urljoin(f"/{name}.html", link))
        path = site / unquote(urlparse(address).path).lstrip("/")
        if not path.is_file():
            dead.append(link)
        elif anchor and path.suffix == ".html":
            target = parsed(path)
            named = unquote(anchor)
            if not (target.find(id=named) or target.find(attrs={"name": named})):
                dead.append(link)
    assert dead == []


@pytest.mark.parametrize("name", PAGES)
def test_the_colab_button_leads_to_a_notebook_or_is_absent(site, name):
    page = parsed(site / f"{name}.html")
    links = [a["href"] for a in page.find_all("a", href=re.compile("colab.research.google"))]
    where = repository(ROOT)
    if where and Book(ROOT).pages[name].has_notebook:
        assert links == [colab_url(where, name)]
        assert (ROOT / "_build" / "notebooks" / f"{name}.ipynb").is_file()
    else:
        assert links == []


@pytest.mark.parametrize("name", PAGES)
def test_the_page_describes_itself(site, name):
    page = parsed(site / f"{name}.html")
    tags = {tag.get("name") or tag.get("property"): tag.get("content", "")
            for tag in page.find_all("meta")}  # fmt: skip
    assert 20 <= len(tags["description"]) <= 220
    assert tags["og:title"] == Book(ROOT).pages[name].title.replace("`", "")
    assert tags["og:description"] == tags["description"]
    assert len(page.find_all("meta", property="og:title")) == 1
    where = repository(ROOT)
    if where:
        assert tags["og:url"] == f"{book_url(where)}{name}.html"
        assert tags["og:image"].startswith(book_url(where))
        assert (site / tags["og:image"].removeprefix(book_url(where))).is_file()
        assert tags["twitter:card"] == "summary_large_image"
    else:  # no address, hence no picture that a link could lead to
        assert "og:image" not in tags
        assert tags["twitter:card"] == "summary"


@pytest.mark.parametrize("name", ["search", "genindex"])
def test_the_other_pages_stay_quiet_too(opened, site_url, name):
    stays_quiet(opened(name), site_url)


def test_the_theme_can_be_changed_by_keyboard(opened):
    page = opened(PAGES[0])
    page.locator("button.theme-switch-button").first.focus()
    seen = set()
    for _ in range(3):
        page.keyboard.press("Enter")
        seen.add(page.evaluate("document.documentElement.dataset.theme"))
    assert seen == set(THEMES)


def test_the_search_finds_a_page_without_a_server(opened, site_url):
    page = opened("search")
    page.goto(f"{site_url}search.html?q=reproduce")
    page.wait_for_selector("#search-results a")
    assert page.locator("#search-results a[href*='about-this-build']").count() >= 1


def test_the_build_is_described(site):
    text = parsed(site / "chapters/appendix/about-this-build.html").select_one("article")
    words = text.get_text(" ", strip=True)
    for expected in ("Processor", "Memory", "Accelerator", "jax", "flax", "optax", "Commit"):
        assert expected in words
    rows = [
        [cell.get_text(strip=True) for cell in row.find_all("td")]
        for row in text.find_all("tr")
        if len(row.find_all("td")) == 5
    ]
    executed = [name for name, page in Book(ROOT).pages.items() if page.has_code]
    assert len(rows) == len(executed) + 1
    assert all(float(row[1]) > 0 for row in rows)
    assert all(row[3] != "not recorded" for row in rows)
