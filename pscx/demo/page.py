"""The Gradio page: its components, and the function of each button."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from socket import AI_PASSIVE, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, getaddrinfo, gethostname, socket
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pscx.demo.guard import Guard
from pscx.demo.offline import environment
from pscx.demo.views import Views
from pscx.errors import PscxError
from pscx.runtime.extras import required

if TYPE_CHECKING:
    import gradio
    from starlette.middleware import Middleware

CSS = Path(__file__).with_name("page.css")
IMAGES = [".png", ".jpg", ".jpeg", ".webp"]
KEPT_SECONDS = 3600  # uploads, which a page that is still open may ask for again
WAITING = 8  # clicks in the queue


@contextmanager
def served(views: Views, host: str = "127.0.0.1", port: int = 7860) -> Iterator[str]:
    """The page at ``host`` and ``port`` while the context lasts; gives its address.

    Uploads lie in a temporary folder that is removed in the end, and requests pass a :class:`Guard`. Raises
    :class:`PscxError` if the address is not available, or Gradio is not installed.
    """
    with TemporaryDirectory(prefix="pscx-demo-") as folder, environment({"GRADIO_TEMP_DIR": folder}):
        required("gradio", "demo", "pscx demo")
        check_address(host, port)
        page = build(views)
        try:
            with redirect_stdout(StringIO()):
                page.launch(
                    server_name=host,
                    server_port=port,
                    share=False,
                    quiet=True,
                    prevent_thread_lock=True,
                    max_file_size=views.bounds.bytes,
                    enable_monitoring=False,
                    ssr_mode=False,
                    footer_links=[],
                    css_paths=CSS,
                    app_kwargs={"middleware": guards(host, views.bounds.bytes)},
                    theme=_theme(),
                )
        except OSError as error:
            raise not_served(host, port, error) from error
        try:
            yield str(page.local_url)
        finally:
            page.close(verbose=False)


def check_address(host: str, port: int) -> None:
    """Raise :class:`PscxError` where no page can be served; Gradio would name options of its own, and other reasons."""
    try:
        family, kind, protocol, _, address = getaddrinfo(host, port, type=SOCK_STREAM, flags=AI_PASSIVE)[0]
        with socket(family, kind, protocol) as tried:
            tried.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)  # a page that has just ended is no obstacle
            tried.bind(address)
            tried.listen()
    except (OSError, UnicodeError) as error:  # the latter: no name of a machine
        raise not_served(host, port, error) from error


def not_served(host: str, port: int, error: Exception) -> PscxError:
    """Why there is no page at that address."""
    reason = (getattr(error, "strerror", None) or str(error).splitlines()[0]).rstrip(".").lower()
    return PscxError(f"cannot serve the page at {host}:{port}: {reason}; choose another --host or --port")


def guards(host: str, upload: int) -> list[Middleware]:
    """The middleware of the page served at ``host``, for uploads of at most that many bytes."""
    from starlette.middleware import Middleware

    return [Middleware(Guard, names=(host, gethostname()), upload=upload)]


def build(views: Views) -> gradio.Blocks:
    """The page's components."""
    import gradio as gr

    names = list(views.codecs)
    page = gr.Blocks(title="pscx", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS))
    with page:
        gr.HTML("<h1>pscx</h1><p>Image compression with a diffusion model. Everything happens on this machine.</p>")
        with gr.Tab("Compress"):
            photo = gr.File(label="Photograph", file_types=IMAGES, type="filepath", height=140)
            with gr.Row():
                quality = gr.Slider(1, 100, value=50, step=1, label="Quality")
                recipe = gr.Dropdown(names, value=names[0], label="Recipe")
            shrink = gr.Checkbox(label=f"Scale larger photographs down to {views.bounds.pixels} pixels")
            restored = _restoration()
            go = gr.Button("Compress", variant="primary")
            shown = [gr.HTML(elem_id=f"compress-{part}") for part in ("status", "pictures", "file")]
            given = [photo, recipe, quality, shrink, *restored]
            go.click(views.compress, given, shown, concurrency_limit=1, concurrency_id="codec", show_progress="hidden")
        with gr.Tab("Decode"):
            file = gr.File(label="A .pscx file", type="filepath", height=140)
            restored = _restoration()
            decode = gr.Button("Decode", variant="primary")
            shown = [gr.HTML(elem_id=f"decode-{part}") for part in ("status", "pictures", "file")]
            decode.click(views.decode, [file, *restored], shown, concurrency_id="codec", show_progress="hidden")
    page.queue(max_size=WAITING)
    return page


def _restoration() -> list[gradio.components.Component]:
    """How the picture is restored: whether the visitor chooses, and the perception, which is hidden until then."""
    import gradio as gr

    with gr.Row(elem_classes="restored"):
        choose = gr.Checkbox(label="Choose how the picture is restored")
        label = "Perception: 0 least error, 1 most realistic"
        slider = gr.Slider(0, 1, value=0, step=0.05, label=label, elem_classes="perception")
    return [choose, slider]


def _theme() -> gradio.Theme:
    """One of the fonts that the system has: Gradio's own come from another server."""
    import gradio as gr

    return gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
