-- goat's tables for SQLite (3.38 or newer). goat applies this file at its start, by hand it is
--   sqlite3 goat.db < res/sqlite/schema.sql
--   sqlite3 goat.db < res/sqlite/clients.sql
-- Every statement may be repeated. Times are seconds since 1970 (UTC), sizes and counters bytes.
-- You may insert, update and delete rows of users, files and whitelist at any time, also while goat
-- runs: the triggers at the end tell it, and it follows within 5 seconds.

-- Numbers goat keeps for itself: the version of these tables, what this database is known by, and by which a goat
-- that runs knows that nobody replaced it.
CREATE TABLE IF NOT EXISTS goat (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
INSERT OR IGNORE INTO goat (name, value) VALUES ('schema', 1), ('changes', 0);

-- Members. Nobody has id 0: it stands for everybody where "Passkey" is off. "uploaded" and "downloaded"
-- are the bytes credited: goat only adds to them.
-- An id is never given twice: other tables may still speak of the one who had it.
CREATE TABLE IF NOT EXISTS users (
    id            INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
    username      TEXT    NOT NULL UNIQUE COLLATE NOCASE CHECK (length(username) BETWEEN 1 AND 64),
    passkey       TEXT    NOT NULL UNIQUE CHECK (length(passkey) BETWEEN 16 AND 64),
    torrent_limit INTEGER NOT NULL DEFAULT 0 CHECK (torrent_limit BETWEEN 0 AND 4294967295), -- 0: none
    uploaded      INTEGER NOT NULL DEFAULT 0 CHECK (uploaded >= 0),
    downloaded    INTEGER NOT NULL DEFAULT 0 CHECK (downloaded >= 0),
    admin         INTEGER NOT NULL DEFAULT 0 CHECK (admin IN (0, 1)),
    banned        INTEGER NOT NULL DEFAULT 0 CHECK (banned IN (0, 1)),
    ban_reason    TEXT    NOT NULL DEFAULT '', -- what the member is told
    invitations   INTEGER NOT NULL DEFAULT 0 CHECK (invitations >= 0), -- how many they may give, with those that are open
    invited_by    INTEGER NOT NULL DEFAULT 0, -- users.id of whose invitation they have followed; 0: none
    create_time   INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER))
);

-- Keys to the API. Only the SHA-256 of a key is kept, as 64 hex digits.
CREATE TABLE IF NOT EXISTS api_keys (
    id          INTEGER PRIMARY KEY,
    user_id     INTEGER NOT NULL,
    key_hash    TEXT    NOT NULL UNIQUE,
    create_time INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER))
);

CREATE INDEX IF NOT EXISTS api_keys_user ON api_keys (user_id);

-- Invitations that are open: the SHA-256 of the code in the link, as 64 hex digits, who gave it (users.id; 0: the
-- command line), the member whom it lets in (0: it makes one), and when it expires.
CREATE TABLE IF NOT EXISTS invitations (
    code_hash TEXT    PRIMARY KEY,
    by_id     INTEGER NOT NULL,
    user_id   INTEGER NOT NULL,
    expire    INTEGER NOT NULL
) WITHOUT ROWID;

-- Passwords to sign in with, of members who have one: 64 hex digits of PBKDF2-HMAC-SHA256 with so many rounds over the
-- password (UTF-8) and 16 random bytes, which "salt" is in hex.
CREATE TABLE IF NOT EXISTS passwords (
    user_id INTEGER PRIMARY KEY,
    hash    TEXT    NOT NULL,
    salt    TEXT    NOT NULL,
    rounds  INTEGER NOT NULL
);

-- Keys made by POST /api/login to call with. The secret of such a key is derived from "pubkey" by a
-- key that only the file beside the configuration holds (config.secret), so these rows open nothing.
CREATE TABLE IF NOT EXISTS api_logins (
    pubkey   TEXT    PRIMARY KEY,
    user_id  INTEGER NOT NULL,
    key_hash TEXT    NOT NULL, -- of the API key or password that it was made with; without that it is dead
    use_time INTEGER NOT NULL,
    calls    INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- The nonces used with each of them: none works twice.
CREATE TABLE IF NOT EXISTS api_nonces (
    pubkey TEXT NOT NULL,
    nonce  TEXT NOT NULL,
    PRIMARY KEY (pubkey, nonce)
) WITHOUT ROWID;

-- Torrents. info_hash is 40 hex digits; "completed" counts the snatches. Of what members move of a torrent
-- so many percent are credited to them: 0 for downloads is what is called freeleech.
CREATE TABLE IF NOT EXISTS files (
    id          INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
    info_hash   TEXT    NOT NULL UNIQUE COLLATE NOCASE
                CHECK (length(info_hash) = 40 AND info_hash NOT GLOB '*[^0-9a-fA-F]*'),
    info_hash_v2 TEXT   UNIQUE COLLATE NOCASE, -- the other hash of a hybrid (BEP 52), which clients announce as well
    name        TEXT    NOT NULL DEFAULT '' COLLATE NOCASE,
    size        INTEGER NOT NULL DEFAULT 0,
    verified    INTEGER NOT NULL DEFAULT 0 CHECK (verified IN (0, 1)),
    completed   INTEGER NOT NULL DEFAULT 0 CHECK (completed >= 0),
    upload_percent   INTEGER NOT NULL DEFAULT 100 CHECK (upload_percent BETWEEN 0 AND 1000),
    download_percent INTEGER NOT NULL DEFAULT 100 CHECK (download_percent BETWEEN 0 AND 1000),
    create_time INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER)),
    update_time INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER)),
    suggested   INTEGER NOT NULL DEFAULT 0, -- when a member first announced it; 0: others registered it; -1: refused
    suggested_by INTEGER NOT NULL DEFAULT 0, -- users.id of that member
    refusal     TEXT    NOT NULL DEFAULT '' -- why an operator has refused it
);
CREATE INDEX IF NOT EXISTS files_verified ON files (verified);

-- The torrents themselves, as far as goat was given a file: in a table of their own, for only members' copies and
-- lists of files are made of them. "info" is the info dictionary to the byte, "layers" what stands under "piece
-- layers" (BEP 52), both in bencode; "files" is how many files there are, user_id who gave it, 0: an operator.
CREATE TABLE IF NOT EXISTS torrents (
    file_id INTEGER PRIMARY KEY,
    user_id INTEGER NOT NULL,
    files   INTEGER NOT NULL,
    layers  BLOB,
    info    BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS torrents_user ON torrents (user_id);

-- The words in the names of torrents and of the files in them, in lower case. When somebody searches, goat makes those
-- of the torrents that "unindexed" names.
CREATE TABLE IF NOT EXISTS words (
    word    TEXT    NOT NULL,
    file_id INTEGER NOT NULL,
    PRIMARY KEY (word, file_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS words_file ON words (file_id);
CREATE TABLE IF NOT EXISTS unindexed (file_id INTEGER PRIMARY KEY);

-- Sessions: one client of one member on one torrent, in a form that is small: nearly all that goat writes is here.
-- The views "peers" and "files_users" say the same in words. peer_id is 20 bytes. "closed" is when the session ended, 0
-- while it is open. "uploaded" and "downloaded" are the bytes that moved, "bonus" how many more than these were credited,
-- or fewer, as in '500,-70'; NULL is '0,0'. time4 and time6 are when it announced last over IPv4 and IPv6. "state" has 6
-- bytes of an IPv4 address and port, 18 of an IPv6 address and port if it has one, and what only goat need know: the
-- highest counters announced in the current life and in the one before (docs/reference.md, "Accounts"), and when these
-- began.
CREATE TABLE IF NOT EXISTS sessions (
    file_id    INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,
    peer_id    BLOB    NOT NULL,
    closed     INTEGER NOT NULL,
    flags      INTEGER NOT NULL, -- 1: paused, 2: has been complete, 4: by downloading, 8: IPv6, 16 to 32768: paths,
                                 -- and 65536 times how often it announced
    uploaded   INTEGER NOT NULL,
    downloaded INTEGER NOT NULL,
    bonus      TEXT,
    `left`     INTEGER NOT NULL,
    seed_time  INTEGER NOT NULL,
    time4      INTEGER NOT NULL,
    time6      INTEGER NOT NULL,
    state      BLOB    NOT NULL,
    PRIMARY KEY (file_id, user_id, peer_id)
) WITHOUT ROWID;

-- A row for each torrent and member: whether they completed it, and what was in sessions that are gone because they
-- were silent for 30 days.
CREATE TABLE IF NOT EXISTS totals (
    file_id    INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,
    ip         TEXT    NOT NULL,
    completed  INTEGER NOT NULL,
    announced  INTEGER NOT NULL,
    uploaded   INTEGER NOT NULL,
    downloaded INTEGER NOT NULL,
    credited_uploaded   INTEGER NOT NULL,
    credited_downloaded INTEGER NOT NULL,
    `left`     INTEGER NOT NULL,
    time       INTEGER NOT NULL,
    seed_time  INTEGER NOT NULL,
    PRIMARY KEY (file_id, user_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS totals_user ON totals (user_id);

-- Sessions in words; a port of 0 means no address of that family. "active": it is in the swarm. (The place of a byte in d
-- is what it is worth.)
CREATE VIEW IF NOT EXISTS peers AS SELECT file_id, user_id, peer_id,
    CASE WHEN substr(state, 1, 6) = X'000000000000' THEN '' ELSE
        instr(d, substr(state, 1, 1)) || '.' || instr(d, substr(state, 2, 1)) || '.' ||
        instr(d, substr(state, 3, 1)) || '.' || instr(d, substr(state, 4, 1)) END AS ipv4,
    256 * instr(d, substr(state, 5, 1)) + instr(d, substr(state, 6, 1)) AS port4, time4,
    CASE WHEN flags & 8 = 0 THEN '' ELSE lower(
        hex(substr(state, 7, 2)) || ':' || hex(substr(state, 9, 2)) || ':' || hex(substr(state, 11, 2)) || ':' ||
        hex(substr(state, 13, 2)) || ':' || hex(substr(state, 15, 2)) || ':' || hex(substr(state, 17, 2)) || ':' ||
        hex(substr(state, 19, 2)) || ':' || hex(substr(state, 21, 2))) END AS ipv6,
    CASE WHEN flags & 8 = 0 THEN 0 ELSE
        256 * instr(d, substr(state, 23, 1)) + instr(d, substr(state, 24, 1)) END AS port6,
    time6, closed = 0 AS active, flags & 1 AS paused, (flags & 4) / 4 AS completed, uploaded, downloaded,
    uploaded + COALESCE(CAST(bonus AS INTEGER), 0) AS credited_uploaded,
    downloaded + COALESCE(CAST(substr(bonus, instr(bonus, ',') + 1) AS INTEGER), 0) AS credited_downloaded,
    `left`, flags >> 16 AS announced, seed_time, MAX(time4, time6) AS time
    FROM (SELECT *, X'0102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F202122232425262728292A2B2C2D2E2F303132333435363738393A3B3C3D3E3F404142434445464748494A4B4C4D4E4F505152535455565758595A5B5C5D5E5F606162636465666768696A6B6C6D6E6F707172737475767778797A7B7C7D7E7F808182838485868788898A8B8C8D8E8F909192939495969798999A9B9C9D9E9FA0A1A2A3A4A5A6A7A8A9AAABACADAEAFB0B1B2B3B4B5B6B7B8B9BABBBCBDBEBFC0C1C2C3C4C5C6C7C8C9CACBCCCDCECFD0D1D2D3D4D5D6D7D8D9DADBDCDDDEDFE0E1E2E3E4E5E6E7E8E9EAEBECEDEEEFF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF' AS d FROM sessions);

-- What each member moved of each torrent, from the first day on: "uploaded" and "downloaded" are the bytes that
-- moved, "credited_" what of them was credited; seed_time is in seconds. (TOTAL
-- does not fail where numbers are too large for an integer.) ip, `left` and time are of the last announce.
CREATE VIEW IF NOT EXISTS files_users AS SELECT t.file_id, t.user_id,
    CASE WHEN p.file_id IS NULL THEN t.ip WHEN p.time6 > p.time4 THEN p.ipv6 ELSE p.ipv4 END AS ip,
    COALESCE(SUM(p.active), 0) > 0 AS active, t.completed, t.announced + COALESCE(SUM(p.announced), 0) AS announced,
    CAST(t.uploaded + TOTAL(p.uploaded) AS INTEGER) AS uploaded,
    CAST(t.downloaded + TOTAL(p.downloaded) AS INTEGER) AS downloaded,
    COALESCE(p.`left`, t.`left`) AS `left`, MAX(COALESCE(p.time, t.time)) AS time,
    t.seed_time + COALESCE(SUM(p.seed_time), 0) AS seed_time,
    CAST(t.credited_uploaded + TOTAL(p.credited_uploaded) AS INTEGER) AS credited_uploaded,
    CAST(t.credited_downloaded + TOTAL(p.credited_downloaded) AS INTEGER) AS credited_downloaded
    FROM totals t LEFT JOIN peers p ON p.file_id = t.file_id AND p.user_id = t.user_id
    GROUP BY t.file_id, t.user_id;

-- What happened in each hour of the last 400 days, for the status page. "time" is the beginning of the hour;
-- seeders and leechers are as they were at its end.
CREATE TABLE IF NOT EXISTS hours (
    time       INTEGER PRIMARY KEY,
    announces  INTEGER NOT NULL,
    refused    INTEGER NOT NULL,
    seeders    INTEGER NOT NULL,
    leechers   INTEGER NOT NULL,
    uploaded   INTEGER NOT NULL,
    downloaded INTEGER NOT NULL
);

-- The same for each minute of the last half hour. "time" is its end.
CREATE TABLE IF NOT EXISTS minutes (
    time       INTEGER PRIMARY KEY,
    announces  INTEGER NOT NULL,
    refused    INTEGER NOT NULL,
    seeders    INTEGER NOT NULL,
    leechers   INTEGER NOT NULL,
    uploaded   INTEGER NOT NULL,
    downloaded INTEGER NOT NULL
);

-- Clients: an approved row lets in every client whose User-Agent or peer id begins with "client".
CREATE TABLE IF NOT EXISTS whitelist (
    id       INTEGER PRIMARY KEY,
    client   TEXT    NOT NULL UNIQUE CHECK (length(client) BETWEEN 1 AND 128),
    approved INTEGER NOT NULL DEFAULT 0 CHECK (approved IN (0, 1)),
    suggested INTEGER NOT NULL DEFAULT 0, -- when a member first used it; 0: others named it; -1: refused
    suggested_by INTEGER NOT NULL DEFAULT 0 -- users.id of that member
);

-- What administrators did and by which command, the newest 10,000. "who" is nothing for the command line.
CREATE TABLE IF NOT EXISTS actions (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    time   INTEGER NOT NULL,
    who    TEXT NOT NULL,
    what   TEXT NOT NULL,
    whom   TEXT NOT NULL,
    detail TEXT NOT NULL
);

-- What changed in users, files and whitelist. goat numbers what is new in batches (0: it has no number yet), so that each
-- goat at this database finds what it has not followed, and removes it when all have had the time.
CREATE TABLE IF NOT EXISTS changes (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    what  TEXT NOT NULL,
    which TEXT NOT NULL,
    batch INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS changes_batch ON changes (batch, what);
-- INSERT OR REPLACE deletes without a DELETE trigger: hence the two triggers before it.
CREATE TRIGGER IF NOT EXISTS users_replace BEFORE INSERT ON users BEGIN
    INSERT INTO changes (what, which) SELECT 'user', id FROM users
        WHERE (username = NEW.username OR passkey = NEW.passkey) AND id <> NEW.id;
END;
CREATE TRIGGER IF NOT EXISTS files_replace BEFORE INSERT ON files BEGIN
    INSERT INTO changes (what, which) SELECT 'file', info_hash FROM files
        WHERE id = NEW.id AND info_hash <> NEW.info_hash;
END;
CREATE TRIGGER IF NOT EXISTS users_insert AFTER INSERT ON users BEGIN
    INSERT INTO changes (what, which) VALUES ('user', NEW.id);
END;
CREATE TRIGGER IF NOT EXISTS users_update AFTER UPDATE OF id, username, passkey, torrent_limit, admin, banned, ban_reason ON users BEGIN
    INSERT INTO changes (what, which) VALUES ('user', OLD.id), ('user', NEW.id);
END;
CREATE TRIGGER IF NOT EXISTS users_delete AFTER DELETE ON users BEGIN
    INSERT INTO changes (what, which) VALUES ('user', OLD.id);
END;
CREATE TRIGGER IF NOT EXISTS files_insert AFTER INSERT ON files BEGIN
    INSERT INTO changes (what, which) VALUES ('file', NEW.info_hash);
END;
CREATE TRIGGER IF NOT EXISTS files_update AFTER UPDATE OF id, info_hash, info_hash_v2, verified, completed, upload_percent, download_percent ON files BEGIN
    INSERT INTO changes (what, which) VALUES ('file', OLD.info_hash), ('file', NEW.info_hash);
END;
CREATE TRIGGER IF NOT EXISTS files_delete AFTER DELETE ON files BEGIN
    INSERT INTO changes (what, which) VALUES ('file', OLD.info_hash);
END;
CREATE TRIGGER IF NOT EXISTS whitelist_insert AFTER INSERT ON whitelist BEGIN
    INSERT INTO changes (what, which) VALUES ('client', '');
END;
CREATE TRIGGER IF NOT EXISTS whitelist_update AFTER UPDATE ON whitelist BEGIN
    INSERT INTO changes (what, which) VALUES ('client', '');
END;
CREATE TRIGGER IF NOT EXISTS whitelist_delete AFTER DELETE ON whitelist BEGIN
    INSERT INTO changes (what, which) VALUES ('client', '');
END;
-- What was registered, renamed or removed is to be found by other words.
CREATE TRIGGER IF NOT EXISTS words_insert AFTER INSERT ON files BEGIN
    INSERT OR IGNORE INTO unindexed (file_id) VALUES (NEW.id);
END;
CREATE TRIGGER IF NOT EXISTS words_update AFTER UPDATE OF id, name ON files BEGIN
    INSERT OR IGNORE INTO unindexed (file_id) VALUES (OLD.id), (NEW.id);
END;
CREATE TRIGGER IF NOT EXISTS words_delete AFTER DELETE ON files BEGIN
    INSERT OR IGNORE INTO unindexed (file_id) VALUES (OLD.id);
    DELETE FROM torrents WHERE file_id = OLD.id;
END;
CREATE TRIGGER IF NOT EXISTS words_torrent AFTER INSERT ON torrents BEGIN
    INSERT OR IGNORE INTO unindexed (file_id) VALUES (NEW.file_id);
END;
