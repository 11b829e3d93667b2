"""A BitTorrent client made of libtorrent, for the tests.

lt_client.py TORRENT FOLDER ADDRESS:PORT

Shares TORRENT from or into FOLDER, with the tracker as the only source of peers, until SIGTERM; then
tells the tracker and ends. Prints a line of JSON whenever something changes, and libtorrent's own
messages as they come.
"""
import json
import signal
import sys
import time

import libtorrent as lt

torrent, folder, listen = sys.argv[1:]
asked_to_end = []
signal.signal(signal.SIGTERM, lambda *_: asked_to_end.append(True))

WITHOUT_PLUGINS = 0  # peer exchange is a plugin
session = lt.session(
    {
        "listen_interfaces": listen,
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "alert_mask": lt.alert.category_t.error_notification
        | lt.alert.category_t.status_notification
        | lt.alert.category_t.tracker_notification,
    },
    WITHOUT_PLUGINS,
)
handle = session.add_torrent({"ti": lt.torrent_info(torrent), "save_path": folder})
handle.unset_flags(lt.torrent_flags.auto_managed)  # or it would resume by itself
handle.resume()

shown = None
answered = False  # by the tracker, after the end was asked for
ending = None
while not answered and not (ending and time.monotonic() > ending + 10):
    if asked_to_end and not ending:
        ending = time.monotonic()
        handle.pause()
    for alert in session.pop_alerts():
        print(alert.what(), alert.message(), flush=True)
        if ending and isinstance(alert, lt.tracker_reply_alert):
            answered = True
    status = handle.status()
    now = {
        "uploaded": status.total_payload_upload,
        # What came twice or broken is not announced as downloaded.
        "downloaded": status.total_payload_download
        - status.total_failed_bytes
        - status.total_redundant_bytes,
        "left": status.total_wanted - status.total_wanted_done,
        "checked": status.state in (lt.torrent_status.downloading, lt.torrent_status.seeding, lt.torrent_status.finished),
        "peers": status.num_peers,
    }
    if now != shown:
        print(json.dumps(now), flush=True)
        shown = now
    time.sleep(0.02)
