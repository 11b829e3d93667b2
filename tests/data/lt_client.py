"""A BitTorrent client made of libtorrent, for the tests.

lt_client.py TORRENT FOLDER ADDRESS:PORT[,...] [LIMIT]

Shares TORRENT from or into FOLDER, with the tracker as the only source of peers, until SIGTERM; then
tells the tracker and ends. SIGUSR1 pauses it, SIGUSR2 resumes it. It uploads at most LIMIT bytes a second.
Prints a line of JSON whenever something changes, and libtorrent's own messages as they come.
"""
import json
import signal
import sys
import time

import libtorrent as lt

torrent, folder, listen, *limit = sys.argv[1:]
asked_to_end = []
wishes = []
signal.signal(signal.SIGTERM, lambda *_: asked_to_end.append(True))
signal.signal(signal.SIGUSR1, lambda *_: wishes.append("pause"))
signal.signal(signal.SIGUSR2, lambda *_: wishes.append("resume"))

WITHOUT_PLUGINS = 0  # peer exchange is a plugin
session = lt.session(
    {
        "listen_interfaces": listen,
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "min_reconnect_time": 1,  # seconds, or a paused client would be left alone for a minute
        "alert_mask": lt.alert.category_t.error_notification
        | lt.alert.category_t.status_notification
        | lt.alert.category_t.tracker_notification,
    },
    WITHOUT_PLUGINS,
)
handle = session.add_torrent({"ti": lt.torrent_info(torrent), "save_path": folder})
handle.unset_flags(lt.torrent_flags.auto_managed)  # or it would resume by itself
if limit:
    handle.set_upload_limit(int(limit[0]))
handle.resume()

before = (0, 0)


def moved():
    """What was uploaded and downloaded since the torrent was added."""
    status = handle.status()
    # What came twice or broken is not announced as downloaded.
    wasted = status.total_failed_bytes + status.total_redundant_bytes
    now = (status.total_payload_upload, status.total_payload_download - wasted)
    return tuple(sum(both) for both in zip(before, now))


shown = None
ending = None
goodbyes = 0  # how often the tracker was told of the end: over each address, under each hash
asked = answered = 0
while not (goodbyes and answered >= asked) and not (ending and time.monotonic() > ending + 10):
    while wishes:
        wish = wishes.pop(0)
        if wish == "resume":
            # libtorrent counts from 0 then, as it announces.
            before = moved()
        getattr(handle, wish)()
    if asked_to_end and not ending:
        ending = time.monotonic()
        handle.pause()
    for alert in session.pop_alerts():
        print(alert.what(), alert.message(), flush=True)
        if isinstance(alert, lt.tracker_announce_alert):
            asked += 1
            goodbyes += ending is not None
        if isinstance(alert, (lt.tracker_reply_alert, lt.tracker_error_alert)):
            answered += 1
    status = handle.status()
    now = {
        "uploaded": moved()[0],
        "downloaded": moved()[1],
        "left": status.total_wanted - status.total_wanted_done,
        "checked": status.state in (lt.torrent_status.downloading, lt.torrent_status.seeding, lt.torrent_status.finished),
        "peers": status.num_peers,
        "paused": bool(status.flags & lt.torrent_flags.paused),
    }
    if now != shown:
        print(json.dumps(now), flush=True)
        shown = now
    time.sleep(0.02)
