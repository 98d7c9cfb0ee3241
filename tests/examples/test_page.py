"""The page of the chat in a browser: two tabs stay in step, whatever happens to the chat and to their connections."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Any, Final

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from sessionstore import SessionRepository, StoreBusyError
from tests.examples.service import Service
from tests.support.repositories import talk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

pytestmark = pytest.mark.processes

MISSING: Final = "no chromium or no chromedriver: the page is not tested (Debian: apt install chromium chromium-driver)"
FLAGS: Final = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--no-first-run"),
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A browser of the system; nothing is downloaded."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip(MISSING)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    yield chrome
    chrome.quit()


class Tab:
    """A tab of the browser, opened at an address."""

    def __init__(self, browser: webdriver.Chrome, address: str) -> None:
        browser.switch_to.new_window("tab")
        self._browser = browser
        self._handle = browser.current_window_handle
        browser.get(address)

    def all(self, selector: str) -> list[Any]:
        """The elements of a selector."""
        self._browser.switch_to.window(self._handle)
        return self._browser.find_elements(By.CSS_SELECTOR, selector)

    @property
    def address(self) -> str:
        """Where it is."""
        self._browser.switch_to.window(self._handle)
        return self._browser.current_url

    def texts(self, selector: str = "#messages p") -> list[str]:
        """What is shown, by default of messages."""
        return [element.text for element in self.all(selector)]

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        waiting = WebDriverWait(self._browser, 60, 0.02, ignored_exceptions=[StaleElementReferenceException])
        waiting.until(lambda _: condition())

    def shows(self, *texts: str) -> None:
        """Wait until it shows these messages and no others."""
        try:
            self.wait(lambda: self.texts() == list(texts))
        except Exception:
            assert self.texts() == list(texts)
            raise

    def says(self, text: str) -> None:
        """Wait until its notice says something."""
        self.wait(lambda: self.texts("#notice") == [text])

    def live(self) -> None:
        """Wait until it follows the chat."""
        self.wait(lambda: self.texts("#status") == ["live"])

    def type(self, text: str) -> None:
        """Send a message, and wait until the field is empty again."""
        (field,) = self.all("#text")
        field.send_keys(text)
        self.all("#form button")[0].click()
        self.wait(lambda: field.get_property("value") == "")

    def reload(self) -> None:
        """Load the page again."""
        self._browser.switch_to.window(self._handle)
        self._browser.refresh()

    def close(self) -> None:
        """Close it."""
        self._browser.switch_to.window(self._handle)
        self._browser.close()


@pytest.fixture
def tabs(service: Service, browser: webdriver.Chrome) -> Iterator[tuple[Tab, Tab]]:
    """Two tabs with the same new chat, both following it."""
    first = browser.current_window_handle
    one = Tab(browser, service.url)
    one.live()
    two = Tab(browser, one.address)
    two.live()
    yield one, two
    for handle in set(browser.window_handles) - {first}:
        browser.switch_to.window(handle)
        browser.close()
    browser.switch_to.window(first)


@pytest.fixture
def elsewhere(shared_url: str) -> Callable[[Callable[[SessionRepository], Awaitable[Any]]], None]:
    """Does something by the library, as another process would."""

    def done(work: Callable[[SessionRepository], Awaitable[Any]]) -> None:
        async def run() -> None:
            async with SessionRepository.connect(shared_url) as sessions:
                await work(sessions)

        asyncio.run(run())

    return done


def chat_of(tab: Tab) -> str:
    return tab.address.partition("?chat=")[2]


def test_what_is_typed_in_one_tab_appears_in_the_other(tabs: tuple[Tab, Tab]) -> None:
    """In both directions, in the same order, and as text, whatever it looks like."""
    one, two = tabs
    one.type("hello")
    two.shows("hello", "You said: hello")
    markup = "<img src=x onerror=alert(1)> & <b>bold</b>"
    two.type(markup)
    for tab in tabs:
        tab.shows("hello", "You said: hello", markup, f"You said: {markup}")
        assert tab.all("#messages img, #messages b") == []


def test_a_fork_goes_on_by_itself(tabs: tuple[Tab, Tab]) -> None:
    """The button of a message opens a chat that ends with it; the other tab stays where it is."""
    one, two = tabs
    one.type("hello")
    two.shows("hello", "You said: hello")
    before = two.address
    two.all("#messages li button")[0].click()
    two.wait(lambda: two.address != before)
    two.live()
    two.shows("hello")
    two.type("otherwise")
    two.shows("hello", "otherwise", "You said: otherwise")
    one.type("further")
    one.shows("hello", "You said: hello", "further", "You said: further")
    assert two.all("#parent")[0].get_property("href") == before
    assert [tab.all("#parent")[0].is_displayed() for tab in tabs] == [False, True]


def test_a_reloaded_tab_is_in_step_again(tabs: tuple[Tab, Tab]) -> None:
    """Loaded again, a tab shows what there is and follows what comes."""
    one, two = tabs
    one.type("hello")
    two.reload()
    two.live()
    two.shows("hello", "You said: hello")
    one.type("again")
    two.shows("hello", "You said: hello", "again", "You said: again")


def test_what_is_said_while_a_tab_reads_is_shown_once(tabs: tuple[Tab, Tab], monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that the history holds already is told once more, and not shown once more."""
    one, two = tabs
    read = SessionRepository.messages_json

    async def later(self: SessionRepository, session_id: str, **window: Any) -> bytes:
        await self.append(session_id, *talk(1))
        return await read(self, session_id, **window)

    with monkeypatch.context() as patched:
        patched.setattr(SessionRepository, "messages_json", later)
        two.reload()
        two.shows("message 0")
    one.type("hello")
    two.shows("message 0", "hello", "You said: hello")


def test_tabs_come_back_after_a_cut(service: Service, tabs: tuple[Tab, Tab], elsewhere: Any) -> None:
    """Connections are cut and messages written meanwhile: nothing is missed, nothing shown twice, nothing reloaded."""
    one, two = tabs
    one.type("hello")
    two.shows("hello", "You said: hello")
    (field,) = two.all("#text")
    field.send_keys("a draft")
    for _ in range(2):
        service.cut()
        elsewhere(lambda sessions: sessions.append(chat_of(one), *talk(2)))
    for tab in tabs:
        tab.shows("hello", "You said: hello", *("message 0", "message 1") * 2)
    two.live()
    assert field.get_property("value") == "a draft"


def test_a_rewritten_chat_is_read_again(tabs: tuple[Tab, Tab], elsewhere: Any) -> None:
    """What another process takes away, puts in another's place or trims is so in both tabs, and they go on."""
    one, two = tabs
    chat = chat_of(one)
    one.type("hello")
    two.shows("hello", "You said: hello")
    elsewhere(lambda sessions: sessions.truncate(chat, 1))
    for tab in tabs:
        tab.shows("hello")
    elsewhere(lambda sessions: sessions.replace_messages(chat, talk(4)))
    for tab in tabs:
        tab.shows("message 0", "message 1", "message 2", "message 3")
    elsewhere(lambda sessions: sessions.trim(chat, 1))
    for tab in tabs:
        tab.shows("message 3")
    two.type("on")
    for tab in tabs:
        tab.shows("message 3", "on", "You said: on")


def test_a_deleted_chat_says_so(tabs: tuple[Tab, Tab], elsewhere: Any) -> None:
    """Both tabs say that the chat is gone, and take nothing more; made anew, they go on with it."""
    chat = chat_of(tabs[0])
    elsewhere(lambda sessions: sessions.delete(chat))
    for tab in tabs:
        tab.says("This chat was deleted.")
        assert not tab.all("#text")[0].is_enabled()
    elsewhere(lambda sessions: sessions.append(chat, *talk(1), create=True))
    for tab in tabs:
        tab.shows("message 0")
        tab.says("")


def test_what_went_wrong_is_said_and_can_be_tried_again(tabs: tuple[Tab, Tab], monkeypatch: pytest.MonkeyPatch) -> None:
    """A message whose answer failed stays in its field; sent again, it is there once."""
    one, _ = tabs
    (field,) = one.all("#text")
    field.send_keys("hello")
    with monkeypatch.context() as patched:
        patched.setattr("examples.chat.app.agent", failing)
        one.all("#form button")[0].click()
        one.says("the database is busy")
    assert field.get_property("value") == "hello"
    one.all("#form button")[0].click()
    for tab in tabs:
        tab.shows("hello", "You said: hello")


async def failing(_prompt: bytes) -> dict[str, Any]:
    raise StoreBusyError("the database is busy")
