"""The three living pictures of the front page: there, named, moving, and still when asked."""

import itertools

import pytest

pytestmark = pytest.mark.browser

FAMILIES = ("convolution", "recurrence", "attention")
# How each picture's parts look and stand at this moment, as the browser computes it.
STATES = """elements => elements.map(element =>
  Array.from(element.querySelectorAll("g"), g => {
    const { opacity, transform, fill, fillOpacity } = getComputedStyle(g);
    return [opacity, transform, fill, fillOpacity].join();
  }).join(";"))"""


@pytest.fixture
def front(browser, site_url):
    """A function that opens the front page at a width, with motion or without."""
    contexts = []

    def open_page(width=1300, motion="no-preference", theme="light"):
        contexts.append(
            browser.new_context(
                viewport={"width": width, "height": 900}, reduced_motion=motion, color_scheme=theme
            )
        )
        page = contexts[-1].new_page()
        page.goto(f"{site_url}chapters/preface.html", wait_until="networkidle")
        return page

    yield open_page
    for context in contexts:
        context.close()


def pictures(page):
    return page.locator("article .trivium-moving")


def seen(page):
    return pictures(page).evaluate_all(STATES)


def at(page, second):
    """The pictures at a moment of their motion."""
    page.evaluate(
        """time => document.getAnimations().forEach(each => {
          each.pause();
          each.currentTime = time;
        })""",
        1000 * second,
    )
    return seen(page)


def boxes(page):
    return [each.bounding_box() for each in page.locator(".trivium-moving svg").all()]


def test_there_is_a_picture_for_each_family_with_a_name_and_a_way_on(front):
    page = front()
    assert pictures(page).count() == len(FAMILIES)
    for family, figure in zip(FAMILIES, page.locator("figure:has(.trivium-moving)").all(),
                              strict=True):  # fmt: skip
        assert len(figure.get_by_role("img").get_attribute("aria-label")) > 80
        caption = figure.locator("figcaption")
        assert caption.locator(f".trivium-family-{family}").inner_text().lower() == family
        way = caption.get_by_role("link", name=f"The mathematics of {family}")
        assert way.get_attribute("href") == f"mathematics/{family}.html"
        assert figure.locator("svg text, script").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_each_picture_is_in_the_color_of_its_family(front, theme):
    page = front(theme=theme)
    used = pictures(page).evaluate_all("""elements => elements.map(element => [
      Array.from(element.querySelectorAll("g > *"), each => getComputedStyle(each)),
      Array.from(element.querySelectorAll("g"), each => getComputedStyle(each)),
    ].flat().flatMap(style => [style.fill, style.stroke]))""")
    colors = page.evaluate("""families => families.map(family => {
      const element = document.createElement("i");
      element.style.color = `var(--trivium-${family})`;
      document.body.append(element);
      return getComputedStyle(element).color;
    })""", FAMILIES)  # fmt: skip
    assert len(set(colors)) == len(FAMILIES)
    for own, found in zip(colors, used, strict=True):
        assert own in found
        assert not {*colors} - {own} & {*found}


def test_the_pictures_move_and_come_back(front):
    page = front()
    early, late = at(page, 1.0), at(page, 3.7)
    lengths = pictures(page).evaluate_all(
        """elements => elements.map(element => Math.max(...element.getAnimations({ subtree: true })
          .map(each => each.effect.getTiming().duration / 1000)))"""
    )
    for i, length in enumerate(lengths):
        assert early[i] != late[i]
        assert 5 < length < 10
        assert at(page, 1.0 + length)[i] == early[i]


def test_the_pictures_start_by_themselves(front):
    page = front()
    before = seen(page)
    page.wait_for_timeout(1500)
    assert all(a != b for a, b in zip(before, seen(page), strict=True))


@pytest.mark.parametrize("index", range(len(FAMILIES)))
def test_a_picture_can_be_paused_by_keyboard(front, index):
    page = front()
    running = "element => element.getAnimations({ subtree: true }).map(each => each.playState)"
    switch = pictures(page).nth(index).get_by_role("checkbox")
    assert switch.get_attribute("aria-label") == f"Pause {FAMILIES[index]}"
    switch.focus()
    for expected in ("paused", "running"):
        page.keyboard.press("Space")
        assert set(pictures(page).nth(index).evaluate(running)) == {expected}
        other = pictures(page).nth((index + 1) % len(FAMILIES))
        assert set(other.evaluate(running)) == {"running"}


def test_less_motion_is_none_at_a_telling_moment(front):
    page = front(motion="reduce")
    # The theme's own transitions, of colors while the page appears, end by themselves.
    moving = "document.getAnimations().filter(each => each instanceof CSSAnimation).length"
    assert page.evaluate(moving) == 0
    assert front().evaluate(moving) > 0
    assert pictures(page).get_by_role("checkbox").count() == 0  # nothing to pause
    still = seen(page)
    page.wait_for_timeout(400)
    assert seen(page) == still
    # The map is whole, the state has arrived, and one token looks.
    lively = front()
    assert at(lively, 6.5)[:2] == still[:2]
    assert at(lively, 0.6)[2] == still[2]


def test_print_shows_the_pictures_at_rest(front):
    page = front()
    page.emulate_media(media="print")
    # The theme's own transitions, of colors while the page appears, end by themselves.
    moving = "document.getAnimations().filter(each => each instanceof CSSAnimation).length"
    assert page.evaluate(moving) == 0
    assert front().evaluate(moving) > 0
    assert pictures(page).get_by_role("checkbox").count() == 0


@pytest.mark.parametrize("width", [390, 800, 1300])
def test_the_pictures_stand_side_by_side_or_below_each_other(front, width):
    page = front(width)
    found = boxes(page)
    article = page.locator("article").bounding_box()
    for box in found:
        assert 190 <= box["width"] <= 210
        assert box["x"] >= article["x"]
        assert box["x"] + box["width"] <= article["x"] + article["width"]
    if width == 390:
        tops = [box["y"] for box in found]
        assert tops == sorted(tops)
        assert all(a["y"] + a["height"] < b["y"] for a, b in itertools.pairwise(found))
    else:
        assert max(box["y"] for box in found) - min(box["y"] for box in found) < 1
        assert all(a["x"] + a["width"] < b["x"] for a, b in itertools.pairwise(found))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
