"""Looking inside: the lecture's convolution, window by window, and the layers of a network for a drawn digit."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from playwright.sync_api import Locator, Page, Route, expect

from tests import onnx_models
from tests.browser import strokes
from tests.browser.drawing import best
from tests.browser.visits import Visits
from tests.real.conftest import MODEL_REPOSITORY, RunningServer, start
from tests.repositories import add_model
from training.export.layers import write_layers

PIXELS = """canvas => [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]"""

FILTERS = np.random.default_rng(3).normal(size=(4, 3, 5, 5)).astype(np.float32)
IN_COLOUR = """
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 16, 16 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] label_filename: "labels.txt" }
parameters { key: "image.resize" value { string_value: "16x16" } }
parameters { key: "image.scale" value { string_value: "1/255" } }
"""

COLOURS = """canvases => canvases.map(canvas => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return new Set(new Uint32Array(pixels.buffer)).size;
})"""
"""How many colours each canvas has."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The committed models, and one in colour with its layers, under a name that says nothing of them."""
    root = tmp_path_factory.mktemp("models")
    labels = {"labels.txt": "".join(f"{index}\n" for index in range(len(FILTERS)))}
    add_model(root, "painted", onnx_models.filtered(FILTERS, 16), IN_COLOUR, files=labels)
    write_layers(root, "painted", layers_name="inside")
    flags = ("--model-control-mode=explicit", "--load-model=*", f"--model-repository={root}")
    server = start(tmp_path_factory.mktemp("server"), *flags)
    yield server
    assert server.terminate() == 0, server.log.read_text()


def step(page: Page, start: int, end: int) -> None:
    """From one window (from 1) to a later one, with the arrow key."""
    expect(page.get_by_text(f"Window {start} of 18")).to_be_visible()
    for _ in range(end - start):
        page.keyboard.press("ArrowRight")
    expect(page.get_by_text(f"Window {end} of 18")).to_be_visible()


def layer(page: Page, output: str) -> Locator:
    """The card of the layer."""
    return page.locator(f"[data-layer='{output}']")


def test_the_lectures_convolution_has_the_lectures_numbers_as_the_server_has(visits: Visits) -> None:
    page = visits.open("#/convolution")
    expect(page.get_by_text("The same, all 18 of them.")).to_be_visible()
    answer = page.get_by_role("table", name="The server's output of filter W0")
    expect(answer).to_have_text(re.compile(r"2\s*3\s*3\s*3\s*7\s*3\s*8\s*10\s*−3"))
    total = page.locator(".convolution-total strong")

    for first, last, sums, output in (
        (1, 4, "(−2) + 4 + 0 + 1 = ", "3"),
        (4, 5, "4 + 2 + 0 + 1 = ", "7"),
        (5, 9, "(−2) + (−3) + 1 + 1 = ", "−3"),
    ):
        step(page, first, last)
        expect(total).to_have_text(output)
        expect(page.locator(".convolution-total")).to_contain_text(sums + output)
    expect(page.get_by_role("button", name="Filter W0, row 3, column 3: −3")).to_have_attribute("aria-current", "step")
    expect(page.get_by_role("button", name="Filter W1, row 1, column 1: not calculated yet")).to_be_visible()


def test_buttons_step_and_play_to_the_end(visits: Visits) -> None:
    page = visits.open("#/convolution")
    page.clock.install()
    first, previous, play, pause, following = (
        page.get_by_role("button", name=name, exact=True) for name in ("First", "Previous", "Play", "Pause", "Next")
    )

    expect(previous).to_be_disabled()
    following.click()
    expect(page.get_by_text("Window 2 of 18")).to_be_visible()
    play.click()
    expect(pause).to_be_visible()
    first.click()
    expect(play).to_be_visible()  # a person who steps is not overtaken
    expect(page.get_by_text("Window 1 of 18")).to_be_visible()
    page.keyboard.press("End")
    previous.click()
    play.click()
    page.clock.run_for(5_000)
    expect(page.get_by_text("Window 18 of 18")).to_be_visible()
    expect(play).to_be_visible()
    expect(following).to_be_disabled()


def test_without_the_served_convolution_the_page_still_steps(visits: Visits, server: RunningServer) -> None:
    page = visits.open("#/models")
    control = f"{server.http_url}/v2/repository/models/lecture_conv"
    assert page.request.post(f"{control}/unload").ok
    try:
        page.get_by_role("link", name="Convolution").click()
        expect(page.get_by_text("lecture_conv is not loaded")).to_be_visible()
        step(page, 1, 2)
    finally:
        assert page.request.post(f"{control}/load").ok


def test_a_server_that_calculates_otherwise_is_told_of(visits: Visits) -> None:
    def falsify(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=response.body()[:-4] + bytes(4))  # the last number is 0, not −5

    page = visits.open("#/draw")
    page.route("**/lecture_conv/infer", falsify)
    page.get_by_role("link", name="Convolution").click()

    expect(page.get_by_text("It differs in 1 of 18 numbers.")).to_be_visible()


def test_a_drawn_digit_is_seen_in_every_layer(visits: Visits) -> None:
    page = visits.open("#/draw")
    strokes.draw(page, "3")
    expect(best(page)).to_have_text("3")

    page.get_by_role("link", name="Layers").click()

    expect(page.get_by_role("button", name="Your drawing")).to_have_attribute("aria-pressed", "true")
    expect(best(page)).to_have_text("3")
    first, table = layer(page, "convolution_1"), layer(page, "convolution_2")
    expect(first).to_contain_text("1×32×32 → 6×28×28")
    expect(first).to_contain_text("(32 − 5 + 2·0)/1 + 1 = 28")
    expect(table).to_contain_text("5·5·60 + 16 = 1516")
    expect(table).to_contain_text("60 of 96")
    maps = {"convolution_1": 6, "activation_1": 6, "pooling_1": 6, "convolution_2": 16, "pooling_2": 16}
    for output, count in maps.items():
        shown = layer(page, output).get_by_role("listbox").first.locator("canvas")
        expect(shown).to_have_count(count)
        assert min(shown.evaluate_all(COLOURS)) > 3
    expect(layer(page, "dense_1")).to_contain_text("84 units")


def test_the_filters_show_the_networks_own_weights(visits: Visits) -> None:
    page = visits.open("#/layers")
    first = layer(page, "convolution_1")
    graph = onnx.load(MODEL_REPOSITORY / "lenet5" / "1" / "model.onnx").graph
    weights = next(numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name.endswith("c1.weight"))

    first.get_by_role("button", name="Show the numbers").click()

    cells = first.get_by_role("group", name="Filter 6 of 6").get_by_role("cell").all_inner_texts()
    assert [float(cell.replace("−", "-")) for cell in cells] == pytest.approx(weights[5, 0].ravel(), abs=0.0051)


def test_filters_of_a_picture_in_colour_are_pictures_in_colour(visits: Visits) -> None:
    page = visits.open("#/layers?model=painted")
    expect(page.get_by_label("Network", exact=True)).to_have_value("inside")
    shown = layer(page, "convolution_1").locator(".layer-filters")
    canvases = shown.get_by_role("listbox").locator("canvas")

    expect(canvases).to_have_count(len(FILTERS))
    for canvas, weights in zip(canvases.all(), FILTERS, strict=True):
        pixels = np.array(canvas.evaluate(PIXELS)).reshape(5, 5, 4)
        scaled = (weights - weights.min()) / (weights.max() - weights.min())
        assert np.abs(pixels[..., :3] - 255 * scaled.transpose(1, 2, 0)).max() <= 1
        assert (pixels[..., 3] == 255).all()

    shown.get_by_role("img").press("ArrowDown")
    red, green, blue = (f"{abs(weight):.3g}" for weight in FILTERS[0, :, 0, 0])
    expect(shown.get_by_role("img")).to_be_focused()
    expect(shown.locator("output")).to_have_text(
        re.compile(f"^Row 1, column 1: red −?{red}, green −?{green}, blue −?{blue}$")
    )


def test_a_model_is_left_for_its_layers_by_what_their_configuration_says(visits: Visits) -> None:
    page = visits.open("#/draw?model=painted")

    page.get_by_role("link", name="Look inside of this network").click()

    expect(page.get_by_label("Network", exact=True)).to_have_value("inside")
    expect(page.get_by_text("does not serve here")).to_have_count(0)


def test_the_channels_of_filters_in_colour_are_shown_by_themselves_on_request(visits: Visits) -> None:
    page = visits.open("#/layers?model=inside")
    shown = layer(page, "convolution_1").locator(".layer-filters")

    shown.get_by_label("Show every channel by itself").check()

    expect(shown.get_by_role("listbox").locator("canvas")).to_have_count(3 * len(FILTERS))
    expect(shown.get_by_role("option").nth(5)).to_have_accessible_name(re.compile(r"^Filter 2, blue: "))
    shown.get_by_role("button", name="Show the numbers").click()
    cells = shown.get_by_role("group", name="Filter 2, blue").get_by_role("cell").all_inner_texts()
    assert [float(cell.replace("−", "-")) for cell in cells] == pytest.approx(FILTERS[1, 2].ravel(), abs=0.0051)


def test_maps_and_their_values_are_reached_with_a_keyboard(visits: Visits) -> None:
    page = visits.open("#/layers")
    maps = layer(page, "convolution_1").get_by_role("listbox").first

    maps.focus()
    page.keyboard.press("ArrowRight")
    expect(maps.get_by_role("option").nth(1)).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_attribute("aria-label", re.compile(r"^Map 2 of 6"))
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(layer(page, "convolution_1").locator("output").first).to_have_text(re.compile(r"^Row 2, column 1: −?\d"))


def test_another_network_and_another_picture(visits: Visits) -> None:
    page = visits.open("#/models?model=lenet5_layers")

    page.get_by_role("link", name="Look inside").click()
    expect(best(page)).to_have_text("3")
    page.get_by_label("Network", exact=True).select_option("letters26_layers")
    expect(best(page)).to_have_text("A")
    expect(layer(page, "convolution_2")).to_contain_text("(12 − 5 + 2·0)/1 + 1 = 8")
    page.get_by_role("button", name="K", exact=True).click()
    expect(best(page)).to_have_text("K")
    expect(page).to_have_url(re.compile("#/layers\\?model=letters26_layers$"))
