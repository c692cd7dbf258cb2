"""Review in the FiftyOne App: the dataset with its findings, and the panel beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import urllib.parse
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataaudit import decisions, state, tables
from dataaudit.errors import InputError
from dataaudit.formats._fiftyone import connect
from dataaudit.review import serving
from dataaudit.review.desk import Order
from dataaudit.review.in_fiftyone import WORKSPACE
from dataaudit.types import Source

if TYPE_CHECKING:
    import fiftyone as fo

__all__ = ["VIEW", "open_page", "plugins", "serve"]

PLUGIN = "@dataaudit/review"
PANEL = "dataaudit_review"
VIEW = "Findings"
_OURS = Path(__file__).parent / "plugin"
_PORTS = 20  # how many are tried after FiftyOne's own, where none is asked for


def serve(
    order: Order,
    *,
    port: int | None = None,
    address: str | None = None,
    remote: bool = False,
    browser: bool = True,
) -> int:
    """Show the App with the panel until Ctrl-C.

    Args:
        order: what is reviewed, and by whom.
        port: of the App; by default FiftyOne's, or the next one that is free.
        address: of the App; by default FiftyOne's, which only this machine can reach.
        remote: for a reviewer at another machine.
        browser: open the browser.

    Returns:
        The exit code.

    Raises:
        InputError: the port is taken.
        MissingDependencyError: FiftyOne has no database.
    """
    fiftyone = connect()
    with plugins() as folder:
        # As FiftyOne's own server does: others change datasets meanwhile
        os.environ["FIFTYONE_SERVER"] = "1"
        fiftyone.config.singleton_cache, fiftyone.config.plugins_dir = False, str(folder)
        host = address or ("0.0.0.0" if remote else fiftyone.config.default_app_address or "127.0.0.1")
        chosen = _free(port, fiftyone.config.default_app_port, host)
        url = _url(fiftyone, order, host, chosen)
        serving.take(order)

        def ready() -> None:
            _welcome(order, url, remote=remote)
            if browser and not remote:
                # Some browsers are programs of the terminal, which wait
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

        asyncio.run(_served(host, chosen, ready))
    n = len(decisions.by_reviewer(order.source).get(order.reviewer, {}))
    _say(f"\n{order.reviewer} has decided {n:,} findings: {state.decisions_file(order.source)}")
    if n:
        _say(f"Apply them: dataaudit fix {order.source.path} --decided")
    return 0


def _welcome(order: Order, url: str, *, remote: bool) -> None:
    if order.note:
        _say(order.note)
    _say(f"Review of {order.dataset} by {order.reviewer}: {url}")
    if remote:
        _say("Whoever reaches this machine over the network can open it and decide.")
    _say(f"Each verdict is written at once to {state.decisions_file(order.source)}. Ctrl-C ends the review.")


async def _served(host: str, port: int, ready: Callable[[], None]) -> None:
    """Run FiftyOne's server in this process, where FiftyOne is imported already, until Ctrl-C."""
    from fiftyone.server.app import app
    from fiftyone.server.events import set_port
    from hypercorn.asyncio import serve as run
    from hypercorn.config import Config

    config = Config()
    config.bind, config.loglevel, config.graceful_timeout = [f"{host}:{port}"], "WARNING", 1.0
    for name in ("fiftyone.operators.store", "fiftyone.server.app"):  # they tell of every step
        logging.getLogger(name).setLevel(logging.ERROR)
    set_port(port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        # That connections are cut off now is meant
        loop.set_exception_handler(lambda *_: None)
        stop.set()

    for each in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(each, end)
        except NotImplementedError:  # Windows
            signal.signal(each, lambda *_: loop.call_soon_threadsafe(end))
    server = asyncio.create_task(run(app, config, shutdown_trigger=stop.wait))
    while not server.done() and not _listens(host, port):
        await asyncio.sleep(0.02)
    if not server.done():
        ready()
    await server


def open_page(source: Source, *, browser: bool = True) -> int:
    """Show the report of the latest audit, which can be reviewed as well; returns the exit code."""
    file = state.reports_dir(source) / "report.html"
    if not file.is_file():
        raise InputError("There is no report.", where=file, fix=f"Audit it: dataaudit audit {source.path}")
    sys.stdout.write(f"{file}\n")
    if browser:
        webbrowser.open(file.resolve().as_uri() + "#review")
    return 0


@contextlib.contextmanager
def plugins() -> Iterator[Path]:
    """A folder with this panel and links to the user's own plugins, which FiftyOne looks into meanwhile.

    The user's folder isn't touched, so there is nothing to clean up in it, whatever happens. A plugin of the
    same name that is installed there stays as it is and is left out here, which is said.
    """
    own = _own_folder()
    folder = Path(tempfile.mkdtemp(prefix="dataaudit-plugins-"))
    try:
        _link(_OURS, folder / "dataaudit")
        rivals = [] if own is None else [path for path, name in _installed(own) if name == PLUGIN]
        if rivals:
            _say(
                f"The plugin {PLUGIN} in {rivals[0]} stays as it is; shown is the one of dataaudit.\n"
                f"To take it away: fiftyone plugins delete {PLUGIN}"
            )
        if own is not None and not rivals:
            _link(own, folder / "own")
        elif own is not None:
            for number, (path, name) in enumerate(_installed(own)):
                if name != PLUGIN:
                    _link(path, folder / f"own-{number}")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _own_folder() -> Path | None:
    import fiftyone

    folder = fiftyone.config.plugins_dir
    return Path(folder).resolve() if folder and Path(folder).is_dir() else None


def _installed(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """The folder and the name of each plugin in a folder of plugins."""
    import yaml

    for base, below, files in os.walk(folder, followlinks=True):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in ("fiftyone.yml", "fiftyone.yaml"):
            if name in files:
                below[:] = []
                with contextlib.suppress(OSError, ValueError, yaml.YAMLError, AttributeError):
                    yield Path(base), yaml.safe_load((Path(base) / name).read_text("utf-8")).get("name")
                break


def _link(there: Path, here: Path) -> None:
    try:
        here.symlink_to(there, target_is_directory=True)
    except OSError:  # Windows allows links only to some users
        shutil.copytree(there, here)


def _free(port: int | None, usual: int, host: str) -> int:
    """A port that nobody listens on: FiftyOne would take another App's server for its own."""
    wanted = [port] if port is not None else range(usual, usual + _PORTS)
    for each in wanted:
        if not _listens(host, each):
            return each
    raise InputError(
        f"The port {wanted[0]} is taken, perhaps by another App.",
        fix="Close it, or name a free one: --port 5252",
    )


def _listens(host: str, port: int) -> bool:
    with socket.socket() as tried:
        tried.settimeout(1)
        return tried.connect_ex(("127.0.0.1" if host == "0.0.0.0" else host, port)) == 0


def _url(fiftyone: Any, order: Order, host: str, port: int) -> str:
    """The address of the page; it says all that is shown, so that it needs no session of FiftyOne."""
    from fiftyone.core.utils import to_slug

    dataset = fiftyone.load_dataset(order.dataset)
    view = _findings(dataset, order)
    shown = {"workspace": to_slug(_workspace(dataset, fiftyone)), **({"view": to_slug(view)} if view else {})}
    where = "localhost" if host in ("127.0.0.1", "0.0.0.0") else host
    return f"http://{where}:{port}/datasets/{to_slug(order.dataset)}?{urllib.parse.urlencode(shown)}"


def _findings(dataset: fo.Dataset, order: Order) -> str | None:
    """The name of the saved view of what is to be reviewed; it is made here where there is none."""
    made = dataset.info.get(tables.INFO, {}).get("made", {})
    codes = sorted(code for code in made.get("tags", ()) if code.startswith(order.codes or ""))
    views = [name for name in dataset.list_saved_views() if codes and name.split(" ")[0] == codes[0]]
    if not codes or (len(codes) == 1 and views):
        return views[0] if views else None
    view = dataset.match_tags(codes)
    if not (dataset.has_saved_view(VIEW) and dataset.load_saved_view(VIEW) == view):
        dataset.save_view(VIEW, view, description="All that dataaudit found", overwrite=True)
    if VIEW not in made.get("views", ()):
        known = dataset.info[tables.INFO]
        dataset.info[tables.INFO] = {**known, "made": {**made, "views": [*made.get("views", ()), VIEW]}}
        dataset.save()
    return VIEW


def _workspace(dataset: fo.Dataset, fiftyone: Any) -> str:
    """The name of the saved workspace with the samples on the left and the panel on the right."""
    if not dataset.has_workspace(WORKSPACE):
        kinds = fiftyone.Panel(type="Samples", pinned=True), fiftyone.Panel(type=PANEL)
        # Nothing is drawn where no panel is the active one
        halves = [fiftyone.Space(children=[each], active_child=each.component_id) for each in kinds]
        space = fiftyone.Space(children=halves, orientation="horizontal", sizes=[0.38, 0.62])
        dataset.save_workspace(WORKSPACE, space, description="Review of what dataaudit found")
    return WORKSPACE


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
