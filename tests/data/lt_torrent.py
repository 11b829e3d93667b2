"""Makes a private hybrid torrent (v1 and v2) of one file, for the tests.

lt_torrent.py FILE ANNOUNCE TORRENT
"""
import os
import sys

import libtorrent as lt

file, announce, torrent = sys.argv[1:]
storage = lt.file_storage()
lt.add_files(storage, file)
creator = lt.create_torrent(storage, 64 * 1024)
creator.set_priv(True)
creator.add_tracker(announce)
lt.set_piece_hashes(creator, os.path.dirname(file))
with open(torrent, "wb") as out:
    out.write(lt.bencode(creator.generate()))
