"""The page of `apps/chat serve` in a real headless browser, with keyboard and mouse."""

import json
import shutil
import time

import pytest

from chat_toys import save_run, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    out = tmp_path_factory.mktemp("chat")
    sizes = {"context_length": 2048, "n_layer": 2}
    save_run(out, "<i>base", template=None, **sizes)
    run = save_run(out, "toy", **sizes)
    with serving(run, "--max_new_tokens", 40, "--top_k", 3) as server:
        yield server


@pytest.fixture(scope="module")
def chromium():
    """A browser without a window; skipped with a reason where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,800"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield session
    session.quit()


@pytest.fixture
def page(server, chromium):
    """The page as a newcomer finds it. Nothing may be logged: no script error, nothing that the policy forbids."""
    chromium.set_window_size(1200, 800)
    chromium.get(f"{server.url}/health")  # the same origin, but no page that would keep its conversation as it goes
    chromium.execute_script("localStorage.clear(); sessionStorage.clear()")
    chromium.get(server.url)
    page = Page(chromium)
    page.until(lambda: page.script("return document.querySelector('#dot').className") == "dot ready")
    yield page
    said = [entry["message"] for entry in chromium.get_log("browser") if "status of 4" not in entry["message"]]
    assert not said


class Page:
    """What a person sees and does."""

    def __init__(self, driver):
        self.driver = driver
        self.script = driver.execute_script

    def find(self, css):
        return self.driver.find_element("css selector", css)

    def until(self, true, seconds=30):
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, self.find("body").text
            time.sleep(0.03)

    def type(self, *keys, into="#input"):
        self.find(into).send_keys(*keys)

    def send(self, text):
        self.type(text, "\ue007")

    @property
    def state(self):
        return self.script("return document.body.dataset.state")

    @property
    def texts(self):
        return self.script("return [...document.querySelectorAll('#messages .text')].map((e) => e.textContent)")

    @property
    def stored(self):
        values = self.script("return Object.entries(localStorage)")
        return [json.loads(value) for key, value in values if key.startswith("chat.conversation.")]

    def settle(self):
        self.until(lambda: self.state == "idle")

    def press(self, label, message):
        item = self.driver.find_elements("css selector", "#messages > li")[message]
        self.script("arguments[0].scrollIntoView()", item)
        button = next(
            b for b in item.find_elements("css selector", ".foot button") if b.get_attribute("textContent") == label
        )
        self.script("arguments[0].click()", button)


def test_a_message_is_answered_as_it_grows_and_figures_are_shown(page):
    page.send("hello <b>there</b>")
    page.until(lambda: len(page.texts) == 2)
    page.settle()
    asked, answered = page.texts
    assert asked == "hello <b>there</b>"
    assert answered
    assert page.find("#messages .figures").text.startswith("40 tokens · ")
    assert "tokens/s" in page.find("#messages .figures").text
    assert page.find("#list li.active .open").text == "hello <b>there</b>"
    assert page.find("#input").get_attribute("value") == ""


def test_what_anybody_writes_is_never_html(page):
    page.send("<img src=x onerror='document.title=`taken`'><script>document.title=`taken`</script>")
    page.until(lambda: len(page.texts) == 2)
    page.settle()
    assert page.find("#messages .user .text").find_elements("css selector", "*") == []
    assert page.script("return document.title") == "Chat"
    assert page.texts[0].startswith("<img")


def test_stop_keeps_what_was_said_and_frees_the_server(page, server):
    page.type("/length 1500", "\ue007")
    page.send("go on and on")
    page.until(lambda: len(page.texts) == 2 and len(page.texts[1]) > 20)
    assert page.state == "answering"
    page.find("#stop").click()
    page.settle()
    said = page.texts[1]
    assert len(said) > 20 and "stopped" in page.find("#messages .assistant .foot").text
    assert page.stored[0]["messages"][1]["content"] == said
    time.sleep(1)
    busy = page.script(
        "const r = new XMLHttpRequest(); r.open('GET', '/stats', false); r.send(); return r.responseText"
    )
    assert json.loads(busy)["busy"] == 0
    page.send("again")  # and it goes on from there; Escape stops too
    page.until(lambda: len(page.texts) == 4 and len(page.texts[3]) > 5)
    page.type("\ue00c", into="body")
    page.settle()


def test_a_message_is_edited_and_the_conversation_goes_on_from_it(page):
    page.send("first")
    page.until(lambda: len(page.texts) == 2)
    page.settle()
    page.send("second")
    page.until(lambda: len(page.texts) == 4)
    page.settle()
    page.press("Edit", 0)
    page.type(" changed", "\ue007", into=".edit textarea")
    page.until(lambda: page.texts and page.texts[0] == "first changed" and len(page.texts) == 2)
    page.settle()
    assert [message["role"] for message in page.stored[0]["messages"]] == ["user", "assistant"]
    page.type("\ue013")  # arrow up in an empty field edits the last message; Escape leaves it
    page.type("\ue00c", into=".edit textarea")
    assert page.texts[0] == "first changed"


def test_an_answer_is_given_again(page):
    page.send("answer me")
    page.until(lambda: len(page.texts) == 2)
    page.settle()
    first = page.texts[1]
    page.press("Regenerate", 1)
    page.until(lambda: page.state == "answering" or page.texts[1] != first)
    page.settle()
    assert len(page.texts) == 2 and page.texts[1] != first


def test_history_outlives_a_reload_and_conversations_can_be_chosen_and_deleted(page):
    page.send("remember me")
    page.until(lambda: len(page.texts) == 2)
    page.settle()
    before = page.texts
    page.driver.refresh()
    page.until(lambda: page.texts == before)
    page.find("#new").click()
    assert page.texts == []
    page.send("another")
    page.until(lambda: len(page.texts) == 2)
    page.settle()
    opens = page.driver.find_elements("css selector", "#list .open")
    assert [one.text for one in opens] == ["another", "remember me"]
    opens[1].click()
    assert page.texts == before
    page.script("document.querySelector('#list .active .drop').click()")
    assert page.texts == []
    assert [one["title"] for one in page.stored] == ["another"]


def test_commands_settings_and_export(page):
    page.type("/temperature 0", "\ue007")
    page.type("/nonsense", "\ue007")
    assert "There is no command /nonsense" in page.find("#banner").text
    page.send("the same")
    page.until(lambda: len(page.texts) == 2)
    page.settle()
    first = page.texts[1]
    page.press("Regenerate", 1)
    page.until(lambda: len(page.texts) == 2 and page.state == "idle" and page.texts[1])
    assert page.texts[1] == first, "temperature 0 is greedy"
    page.script(
        "const real = URL.createObjectURL; URL.createObjectURL = (blob) => "
        "{ blob.text().then((text) => { window.exported = text; }); return real.call(URL, blob); }"
    )
    page.find("#export").click()
    page.until(lambda: page.script("return window.exported"))
    exported = json.loads(page.script("return window.exported"))
    assert exported["model"] == "toy"
    assert [message["content"] for message in exported["messages"]] == page.texts


def test_errors_put_the_text_back(page):
    page.script("window.fetch = () => Promise.reject(new TypeError('no network'))")
    page.send("do not lose me")
    page.until(lambda: page.find("#banner").is_displayed())
    assert "cannot be reached" in page.find("#banner").text
    assert page.find("#input").get_attribute("value") == "do not lose me"
    assert page.texts == page.stored == []


def test_an_answer_that_cannot_be_had_again_leaves_the_old_one(page):
    for text in ("first", "second"):
        page.send(text)
        page.settle()
    before = page.texts
    assert len(before) == 4
    page.script("window.real = fetch; window.fetch = () => Promise.reject(new TypeError('no network'))")
    page.press("Regenerate", 1)
    page.until(lambda: page.find("#banner").is_displayed())
    page.press("Edit", 0)
    page.type(" changed", "\ue007", into=".edit textarea")
    page.until(lambda: page.find("#input").get_attribute("value") == "first changed")
    assert page.texts == before == [message["content"] for message in page.stored[0]["messages"]]


def test_another_tab_of_the_conversation_shows_what_is_said_here_and_which_model_is_loaded(page, server):
    page.send("from here")
    page.settle()
    here = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    try:
        page.driver.get(server.url)
        page.until(lambda: len(page.texts) == 2)
        page.send("from there")
        page.settle()
        both = page.texts
        post(page, {"checkpoint": "<i>base"})
    finally:
        page.driver.close()
        page.driver.switch_to.window(here)
    page.until(lambda: page.texts == both)
    page.send("who?")
    page.until(lambda: page.find("#banner").text == "the model 'toy' is not loaded; '<i>base' is")
    assert page.texts == both and page.find("#input").get_attribute("value") == "who?"
    page.until(lambda: page.find("#model-name").get_attribute("textContent") == "<i>base")
    post(page, {"checkpoint": "toy"})


def post(page, body):
    page.driver.execute_async_script(
        "const done = arguments[1]; fetch('/api/load_checkpoint', {method: 'POST', body: arguments[0]}).then(done)",
        json.dumps(body),
    )


def test_a_reload_in_the_middle_of_an_answer_keeps_what_was_said(page):
    page.type("/length 1500", "\ue007")
    page.send("go on")
    page.until(lambda: len(page.texts) == 2 and len(page.texts[1]) > 20)
    page.driver.refresh()
    page.until(lambda: len(page.texts) == 2 and page.state == "idle")
    assert page.texts[0] == "go on" and len(page.texts[1]) > 20


def test_tokens_that_the_network_cuts_in_two_arrive_whole(page):
    page.script(
        """const chunk = (content, more) => "data: " + JSON.stringify({choices: [{index: 0, delta: {content}, tokens: 1,
             finish_reason: null, ...more}]}) + "\\n\\n";
           const text = ": position 2\\n\\n" + chunk("h\u00e9 ") + chunk("\U0001f600\\n") + 
             chunk("end", {finish_reason: "stop"}) + "data: [DONE]\\n\\n";
           const bytes = new TextEncoder().encode(text);
           window.fetch = async () => new Response(new ReadableStream({start(controller) {
             for (const byte of bytes) controller.enqueue(new Uint8Array([byte]));
             controller.close();
           }}));"""
    )
    page.send("hi")
    page.until(lambda: len(page.texts) == 2)
    page.settle()
    assert page.texts[1] == "h\u00e9 \U0001f600\nend" and not page.find("#banner").is_displayed()


def test_keys_and_sliders(page):
    page.type("one", "\ue008\ue007\ue000", "two")  # Shift Enter: a line, not a message
    assert page.find("#input").get_attribute("value") == "one\ntwo" and page.texts == []
    page.type("\ue007")
    page.settle()
    assert page.texts[0] == "one\ntwo"
    page.type("\ue00an\ue000")  # Alt N
    page.until(lambda: page.texts == [])
    page.find("#model").click()
    page.until(lambda: page.find("#temperature").is_displayed())
    page.type("\ue011", into="#temperature")  # Home
    assert page.find("#temperature-value").text == "0"
    page.find("#settings .strong").click()
    sent = "return JSON.parse(localStorage.getItem('chat.settings')).temperature"
    assert page.script(sent) == 0


def test_another_model_is_chosen_in_the_page(page):
    page.find("#model").click()
    page.until(lambda: len(page.driver.find_elements("css selector", "#choice option")) >= 4)
    options = {option.text: option for option in page.driver.find_elements("css selector", "#choice option")}
    options["<i>base"].click()
    page.find("#load").click()
    page.until(lambda: page.find("#model-name").get_attribute("textContent") == "<i>base")
    assert "continues text" in page.find("#model-kind").get_attribute("textContent")
    next(o for o in page.driver.find_elements("css selector", "#choice option") if o.text == "toy").click()
    page.find("#load").click()
    page.until(lambda: page.find("#model-name").get_attribute("textContent") == "toy")
    page.find("#settings .strong").click()


def test_dark_and_light(page):
    def paper():
        return page.script("return getComputedStyle(document.body).backgroundColor")

    page.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
    )
    light = paper()
    page.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    dark = paper()
    assert light != dark
    page.find("#theme").click()
    assert paper() == light, "a choice goes before the system's"
    page.driver.refresh()
    assert paper() == light
    page.find("#theme").click()
    assert paper() == dark


def test_on_a_phone_nothing_is_cut_off(page):
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 375, "height": 700, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        page.driver.refresh()
        page.send("a" * 300 + " and a few words")
        page.until(lambda: len(page.texts) == 2)
        page.settle()
        widths = page.script(
            "return [document.documentElement.scrollWidth, innerWidth, "
            "document.querySelector('#thread').scrollWidth, document.querySelector('#thread').clientWidth]"
        )
        assert widths[0] <= widths[1] == 375 and widths[2] <= widths[3]
        assert page.script("return document.querySelector('aside').getBoundingClientRect().right") <= 0
        page.find("#side-open").click()
        page.until(lambda: page.script("return document.querySelector('aside').getBoundingClientRect().left") == 0)
        page.find("#side-close").click()
        page.until(lambda: not page.find("#new").is_displayed(), 5)  # and no key leads to it
        box = page.script(
            "const b = document.querySelector('#send').getBoundingClientRect(); return [b.right, b.bottom, b.width]"
        )
        assert box[0] <= 375 and box[1] <= 700 and box[2] >= 36
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
