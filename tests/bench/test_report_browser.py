"""The page of a sweep in a real browser: no errors, no network, and what can be clicked does what it says."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sweep_folder import learning_tasks, shop_tasks, write_sweep

from orl.bench import store
from orl.bench.plan import Scale, Task
from orl.bench.report import write_report

pytest.importorskip("selenium")
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCALES = {"cart pole": Scale(20.0, 500.0), "lander": Scale(-180.0, 260.0)}
HOSTILE = '<img src=x onerror="window.stolen=1"><script>window.stolen=1</script>'

pytestmark = pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="needs chromium and chromedriver")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    tasks = [*learning_tasks(), *shop_tasks()]
    write_sweep(folder, tasks, scales=SCALES)
    target = folder / "report.html"
    write_report(folder, target)
    return target


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def opened(driver: webdriver.Chrome, page: Path) -> webdriver.Chrome:
    show(driver, page)
    return driver


def show(driver: webdriver.Chrome, page: Path, width: int = 1400, fragment: str = "", figures: bool = False) -> None:
    """Load the page afresh at that width; with ``figures``, scroll to each until it is drawn."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.get("about:blank")
    driver.get(page.as_uri() + fragment)
    for plot in driver.find_elements(By.CSS_SELECTOR, ".plot") if figures else ():
        driver.execute_script("arguments[0].scrollIntoView()", plot)
        until(lambda plot=plot: plot.find_elements(By.CSS_SELECTOR, ".main-svg"))  # type: ignore[misc]


def until(true: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait for something to become true, and give it."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.05)
    return found


def severe(driver: webdriver.Chrome) -> list[dict[str, Any]]:
    return [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]  # type: ignore[no-untyped-call]


def test_it_loads_without_errors_and_without_network(driver: webdriver.Chrome, page: Path) -> None:
    show(driver, page, figures=True)
    assert driver.title == "small example"
    assert len(driver.find_elements(By.CSS_SELECTOR, ".plot .main-svg")) >= 8
    assert severe(driver) == []
    assert (
        driver.execute_script(
            "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))"
        )
        == []
    )


def test_a_legend_click_hides_a_curve_and_another_shows_it_again(opened: webdriver.Chrome) -> None:
    plot = next(
        p
        for p in opened.find_elements(By.CSS_SELECTOR, ".plot")
        if "legend hides" in str(p.get_attribute("aria-label"))
    )

    def visible() -> list[Any]:
        return opened.execute_script(
            "return arguments[0].data.filter(t => t.name === 'A2C').map(t => t.visible ?? true)", plot
        )

    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    until(lambda: plot.find_elements(By.CSS_SELECTOR, ".legendtoggle"))
    assert visible() == [True]
    for expected in (["legendonly"], [True]):
        toggle = plot.find_elements(By.CSS_SELECTOR, ".legendtoggle")[1]
        ActionChains(opened).move_to_element(toggle).click().perform()
        until(lambda expected=expected: visible() == expected)  # type: ignore[misc]
        time.sleep(0.5)  # two quick clicks would be a double click
    bands = opened.execute_script("return arguments[0].data.filter(t => t.fill === 'tonexty').length", plot)
    assert bands == 3


@pytest.mark.parametrize("place", ["instances", "runs"])
def test_a_click_on_a_header_sorts_up_then_down(opened: webdriver.Chrome, place: str) -> None:
    selector = "#runs table" if place == "runs" else '[aria-label="Instances"] table'
    table = opened.find_element(By.CSS_SELECTOR, selector)
    titles = [head.text.split("\n")[0].strip() for head in table.find_elements(By.CSS_SELECTOR, "thead th")]
    column = titles.index("result" if place == "runs" else "random rule")

    def values() -> list[float]:
        cells = [
            row.find_elements(By.CSS_SELECTOR, "th, td")[column].text
            for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")
        ]
        found = [re.match(r"-?[\d.]+( %)?", cell) for cell in cells if cell]
        return [float(match[0].removesuffix(" %")) / (100 if match[1] else 1) for match in found if match]

    for direction in ("ascending", "descending"):
        head = table.find_elements(By.CSS_SELECTOR, "thead th")[column]
        button = head.find_element(By.TAG_NAME, "button")
        opened.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].focus()", button)
        button.send_keys("\n") if direction == "descending" else button.click()
        assert head.get_attribute("aria-sort") == direction
        now = values()
        assert len(set(now)) > 2
        assert now == sorted(now, reverse=direction == "descending")
    assert len(table.find_elements(By.CSS_SELECTOR, "[aria-sort]")) == 1


def test_each_run_opens_with_its_hash_command_and_configuration(opened: webdriver.Chrome, page: Path) -> None:
    runs = opened.execute_script("return JSON.parse(document.getElementById('report-data').textContent).runs")
    assert len(runs) == 45
    opened.execute_script("document.querySelectorAll('.open-run').forEach(b => b.click())")
    texts = opened.execute_script(
        "return [...document.querySelectorAll('#runs tr.detail')].map(r => [r.previousSibling.id, r.textContent])"
    )
    assert [name for name, _ in texts] == [f"run-{run['run']}" for run in runs]
    for (_, text), run in zip(texts, runs, strict=True):
        assert f"orl sweep run {page.parent}/sweep.yaml --out" in text
        assert f"--only {run['run']}" in text
        assert f'"seed": {run["seed"]}' in text
        assert '"learning_rate"' in text or run["environment"] == "job shop"
    assert sum("Traceback" in text for _, text in texts) == 1
    button = opened.find_element(By.CSS_SELECTOR, ".open-run")
    assert button.get_attribute("aria-expanded") == "true"
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    assert len(opened.find_elements(By.CSS_SELECTOR, "#runs tr.detail")) == len(runs) - 1


def test_the_list_of_runs_can_be_filtered(opened: webdriver.Chrome) -> None:
    field = opened.find_element(By.CSS_SELECTOR, "#runs input")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", field)
    field.send_keys("cart A2C failed")
    assert len(opened.find_elements(By.CSS_SELECTOR, "#runs tbody tr")) == 1
    assert "1 to 1 of 1 runs" in opened.find_element(By.CSS_SELECTOR, "#runs [role=status]").text


def test_a_link_to_a_run_opens_it(driver: webdriver.Chrome, page: Path) -> None:
    last = store.runs(page.parent)["run"].iloc[-1]
    show(driver, page, fragment=f"#run-{last}")
    detail = driver.find_element(By.CSS_SELECTOR, "#runs tr.detail")
    assert f"--only {last}" in detail.text


@pytest.mark.parametrize("width", [400, 1400])
def test_the_document_does_not_scroll_sideways(driver: webdriver.Chrome, page: Path, width: int) -> None:
    show(driver, page, width, figures=width == 400)
    driver.execute_script(
        "document.querySelectorAll('.open-run').forEach((b, i) => i < 3 && b.click());"
        "document.querySelectorAll('details').forEach(d => d.open = true)"
    )
    inner = driver.execute_script("return document.documentElement.clientWidth")
    assert width - 20 <= inner <= width
    assert driver.execute_script("return document.documentElement.scrollWidth") == inner
    for box in driver.find_elements(By.CSS_SELECTOR, ".scroll, .plot"):
        assert box.rect["width"] <= inner


def test_print_shows_whole_tables_and_open_failures(opened: webdriver.Chrome) -> None:
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        opened.execute_script("window.dispatchEvent(new Event('beforeprint'))")
        overflow = opened.execute_script(
            "return [...document.querySelectorAll('.scroll')].map(box => getComputedStyle(box).overflowY)"
        )
        assert set(overflow) == {"visible"}
        assert opened.execute_script("return [...document.querySelectorAll('details.print-open')].every(d => d.open)")
        assert opened.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_labels_with_scripts_are_shown_as_text(driver: webdriver.Chrome, tmp_path: Path) -> None:
    tasks = [Task(task.configuration, HOSTILE, f"{HOSTILE} {task.subject}") for task in shop_tasks()]
    tasks += [Task(task.configuration, task.environment, HOSTILE) for task in learning_tasks(3, {"PPO": ("ppo", 0.9)})]
    write_sweep(tmp_path, tasks, name=HOSTILE)
    write_report(tmp_path, tmp_path / "report.html")
    show(driver, tmp_path / "report.html", figures=True)
    driver.execute_script("document.querySelectorAll('.open-run').forEach(b => b.click())")
    assert driver.execute_script("return window.stolen === undefined")
    assert driver.find_element(By.TAG_NAME, "h1").text == HOSTILE
    assert driver.find_elements(By.CSS_SELECTOR, 'img[src="x"]') == []
    assert severe(driver) == []
