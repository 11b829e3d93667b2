-- goat's tables for SQLite (3.38 or newer). goat applies this file at its start, by hand it is
--   sqlite3 goat.db < res/sqlite/schema.sql
--   sqlite3 goat.db < res/sqlite/clients.sql
-- Every statement may be repeated. Times are seconds since 1970 (UTC), sizes and counters bytes.
-- You may insert, update and delete rows of users, files and whitelist at any time, also while goat
-- runs: the triggers at the end tell it, and it follows within 5 seconds.

-- Numbers goat keeps for itself: the version of these tables, and what this database is known by.
CREATE TABLE IF NOT EXISTS goat (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
INSERT OR IGNORE INTO goat (name, value) VALUES ('schema', 2);

-- Members. Nobody has id 0: it stands for everybody where "Passkey" is off. "uploaded" and "downloaded"
-- are the bytes credited: goat only adds to them.
-- An id is never given twice: other tables may still speak of the one who had it.
CREATE TABLE IF NOT EXISTS users (
    id            INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
    username      TEXT    NOT NULL UNIQUE COLLATE NOCASE CHECK (length(username) BETWEEN 1 AND 64),
    passkey       TEXT    NOT NULL UNIQUE CHECK (length(passkey) BETWEEN 8 AND 64),
    torrent_limit INTEGER NOT NULL DEFAULT 0 CHECK (torrent_limit BETWEEN 0 AND 4294967295), -- 0: none
    uploaded      INTEGER NOT NULL DEFAULT 0 CHECK (uploaded >= 0),
    downloaded    INTEGER NOT NULL DEFAULT 0 CHECK (downloaded >= 0),
    admin         INTEGER NOT NULL DEFAULT 0 CHECK (admin IN (0, 1)),
    banned        INTEGER NOT NULL DEFAULT 0 CHECK (banned IN (0, 1)),
    ban_reason    TEXT    NOT NULL DEFAULT '', -- for operators
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

-- Keys made by POST /api/login to sign calls with. The secret of such a key is derived from "pubkey" by a
-- key that only the file beside the configuration holds (config.secret), so these rows open nothing.
CREATE TABLE IF NOT EXISTS api_logins (
    pubkey   TEXT    PRIMARY KEY,
    user_id  INTEGER NOT NULL,
    key_hash TEXT    NOT NULL, -- of the API key that it was made with; without that it is dead
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
    name        TEXT    NOT NULL DEFAULT '',
    size        INTEGER NOT NULL DEFAULT 0,
    verified    INTEGER NOT NULL DEFAULT 0 CHECK (verified IN (0, 1)),
    completed   INTEGER NOT NULL DEFAULT 0 CHECK (completed >= 0),
    upload_percent   INTEGER NOT NULL DEFAULT 100 CHECK (upload_percent BETWEEN 0 AND 1000),
    download_percent INTEGER NOT NULL DEFAULT 100 CHECK (download_percent BETWEEN 0 AND 1000),
    create_time INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER)),
    update_time INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER)),
    suggested   INTEGER NOT NULL DEFAULT 0 -- when a member first announced it; 0: others registered it; -1: refused
);
CREATE INDEX IF NOT EXISTS files_verified ON files (verified);

-- The other hashes of hybrid torrents (BEP 52). A client announces a hybrid under both, with the same
-- counters: only the first is tracked, and the second, listed here, is not suggested to the operator.
CREATE TABLE IF NOT EXISTS hybrids (
    info_hash_v2 TEXT    PRIMARY KEY COLLATE NOCASE,
    file_id      INTEGER NOT NULL
) WITHOUT ROWID;

-- What each member moved of each torrent, by the address they announced from: "uploaded" and "downloaded"
-- are the bytes that moved, "credited_" what of them was credited to the member. `left` and `time` are of
-- the last announce; seed_time is in seconds.
CREATE TABLE IF NOT EXISTS files_users (
    file_id    INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,
    ip         TEXT    NOT NULL,
    active     INTEGER NOT NULL,
    completed  INTEGER NOT NULL,
    announced  INTEGER NOT NULL,
    uploaded   INTEGER NOT NULL,
    downloaded INTEGER NOT NULL,
    `left`     INTEGER NOT NULL,
    time       INTEGER NOT NULL,
    seed_time  INTEGER NOT NULL,
    credited_uploaded   INTEGER NOT NULL DEFAULT 0,
    credited_downloaded INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (file_id, user_id, ip)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_users_user ON files_users (user_id);

-- Sessions: one client of one member on one torrent, with the counters it sent last (absolute, since
-- the client's own start). peer_id is 20 bytes; a port of 0 means no address of that family.
CREATE TABLE IF NOT EXISTS peers (
    file_id    INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,
    peer_id    BLOB    NOT NULL,
    ipv4       TEXT    NOT NULL,
    port4      INTEGER NOT NULL,
    time4      INTEGER NOT NULL,
    ipv6       TEXT    NOT NULL,
    port6      INTEGER NOT NULL,
    time6      INTEGER NOT NULL,
    active     INTEGER NOT NULL,
    paused     INTEGER NOT NULL,
    completed  INTEGER NOT NULL,
    uploaded   INTEGER NOT NULL,
    downloaded INTEGER NOT NULL,
    `left`     INTEGER NOT NULL,
    time       INTEGER NOT NULL,
    PRIMARY KEY (file_id, user_id, peer_id)
) WITHOUT ROWID;

-- The batches of the last day, each written in the transaction that it numbers: where the connection
-- broke during a commit, goat looks its number up here before it sends a batch again.
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY,
    time   INTEGER NOT NULL
);

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

-- Clients: an approved row lets in every client whose User-Agent or peer id begins with "client".
CREATE TABLE IF NOT EXISTS whitelist (
    id       INTEGER PRIMARY KEY,
    client   TEXT    NOT NULL UNIQUE CHECK (length(client) BETWEEN 1 AND 128),
    approved INTEGER NOT NULL DEFAULT 0 CHECK (approved IN (0, 1)),
    suggested INTEGER NOT NULL DEFAULT 0 -- when a member first used it; 0: others named it; -1: refused
);

-- What changed in users, files and whitelist and goat has not looked at yet: it empties this table.
CREATE TABLE IF NOT EXISTS changes (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    what  TEXT NOT NULL,
    which TEXT NOT NULL
);
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
CREATE TRIGGER IF NOT EXISTS users_update AFTER UPDATE OF id, username, passkey, torrent_limit, admin, banned ON users BEGIN
    INSERT INTO changes (what, which) VALUES ('user', OLD.id), ('user', NEW.id);
END;
CREATE TRIGGER IF NOT EXISTS users_delete AFTER DELETE ON users BEGIN
    INSERT INTO changes (what, which) VALUES ('user', OLD.id);
END;
CREATE TRIGGER IF NOT EXISTS files_insert AFTER INSERT ON files BEGIN
    INSERT INTO changes (what, which) VALUES ('file', NEW.info_hash);
END;
CREATE TRIGGER IF NOT EXISTS files_update AFTER UPDATE OF id, info_hash, verified, completed, upload_percent, download_percent ON files BEGIN
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
