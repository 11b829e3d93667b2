-- The clients people use, approved: User-Agents (HTTP) and peer id prefixes (UDP and HTTP).
-- goat imports this file where the table is empty; a client that you deny stays denied.
INSERT OR IGNORE INTO whitelist (client, approved) VALUES
    ('qBittorrent/', 1), ('-qB', 1),
    ('Transmission/', 1), ('-TR', 1),
    ('Deluge', 1), ('-DE', 1),
    ('rtorrent/', 1), ('-lt', 1),
    ('libtorrent/', 1), ('-LT', 1),
    ('aria2/', 1), ('A2-', 1),
    ('BiglyBT', 1), ('-BI', 1),
    ('Azureus', 1), ('-AZ', 1),
    ('KTorrent/', 1), ('-KT', 1),
    ('Tixati/', 1), ('TIX', 1),
    ('uTorrent/', 1), ('µTorrent', 1), ('-UT', 1),
    ('WebTorrent', 1), ('-WW', 1);
