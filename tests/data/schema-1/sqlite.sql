-- goat's tables for SQLite (3.38 or newer). goat applies this file at its start, by hand it is
--   sqlite3 goat.db < res/sqlite/schema.sql
--   sqlite3 goat.db < res/sqlite/clients.sql
-- Every statement may be repeated. Times are seconds since 1970 (UTC), sizes and counters bytes.
-- You may insert, update and delete rows of users, files and whitelist at any time, also while goat
-- runs: the triggers at the end tell it, and it follows within 5 seconds.

-- Numbers goat keeps for itself: the version of these tables.
CREATE TABLE IF NOT EXISTS goat (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
INSERT OR IGNORE INTO goat (name, value) VALUES ('schema', 1);

-- Members. Nobody has id 0: it stands for everybody where "Passkey" is off.
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
    create_time   INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER))
);

-- Keys to the API. Only the SHA-256 of a key is kept, as 64 hex digits.
CREATE TABLE IF NOT EXISTS api_keys (
    id          INTEGER PRIMARY KEY,
    user_id     INTEGER NOT NULL,
    key_hash    TEXT    NOT NULL UNIQUE,
    create_time INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER))
);

-- Torrents. info_hash is 40 hex digits; "completed" counts the snatches.
CREATE TABLE IF NOT EXISTS files (
    id          INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
    info_hash   TEXT    NOT NULL UNIQUE COLLATE NOCASE
                CHECK (length(info_hash) = 40 AND info_hash NOT GLOB '*[^0-9a-fA-F]*'),
    name        TEXT    NOT NULL DEFAULT '',
    size        INTEGER NOT NULL DEFAULT 0,
    verified    INTEGER NOT NULL DEFAULT 0 CHECK (verified IN (0, 1)),
    completed   INTEGER NOT NULL DEFAULT 0 CHECK (completed >= 0),
    create_time INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER)),
    update_time INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER))
);
CREATE INDEX IF NOT EXISTS files_verified ON files (verified);

-- What each member moved of each torrent, by the address they announced from. `left` and `time` are
-- of the last announce; seed_time is in seconds.
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

-- Clients: an approved row lets in every client whose User-Agent or peer id begins with "client".
CREATE TABLE IF NOT EXISTS whitelist (
    id       INTEGER PRIMARY KEY,
    client   TEXT    NOT NULL UNIQUE CHECK (length(client) BETWEEN 1 AND 128),
    approved INTEGER NOT NULL DEFAULT 0 CHECK (approved IN (0, 1))
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
CREATE TRIGGER IF NOT EXISTS files_update AFTER UPDATE OF id, info_hash, verified, completed ON files BEGIN
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
