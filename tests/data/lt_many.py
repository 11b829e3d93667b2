"""A BitTorrent client with many torrents, made of libtorrent with its own defaults, for the tests.

lt_many.py URL FIRST COUNT

Adds the torrents whose info hashes are the numbers from FIRST on, with one tracker, and waits until each was
announced. Prints how many were answered, and what was said of the others, as JSON.
"""
import json
import sys
import time

import libtorrent as lt

url, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
session = lt.session(
    {
        "listen_interfaces": "127.0.0.1:0",
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "active_limit": -1,
        "active_downloads": -1,
        "active_tracker_limit": -1,
        "validate_https_trackers": False,  # the certificate is the test's own
        "ssrf_mitigation": False,  # the tracker is on this machine
        "alert_mask": lt.alert.category_t.tracker_notification | lt.alert.category_t.error_notification,
        "alert_queue_size": 100000,
    }
)
for number in range(first, first + count):
    params = lt.add_torrent_params()
    params.info_hashes = lt.info_hash_t(lt.sha1_hash(number.to_bytes(20, "big")))
    params.trackers = [url]
    params.save_path = "/nonexistent"
    params.flags &= ~lt.torrent_flags.paused
    params.flags &= ~lt.torrent_flags.auto_managed
    session.add_torrent(params)

answered = 0
errors = []
deadline = time.monotonic() + 100
while answered + len(errors) < count and time.monotonic() < deadline:
    session.wait_for_alert(1000)
    for alert in session.pop_alerts():
        if isinstance(alert, lt.tracker_reply_alert):
            answered += 1
        elif isinstance(alert, (lt.tracker_error_alert, lt.tracker_warning_alert)):
            errors.append(alert.message())
print(json.dumps({"answered": answered, "errors": errors}), flush=True)
