-- From version 1 of the tables to version 2: reasons of bans, factors of torrents, credited bytes,
-- signed calls of the API, hours for the status page.
ALTER TABLE users ADD COLUMN ban_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE files ADD COLUMN upload_percent INTEGER NOT NULL DEFAULT 100 CHECK (upload_percent BETWEEN 0 AND 1000);
ALTER TABLE files ADD COLUMN download_percent INTEGER NOT NULL DEFAULT 100 CHECK (download_percent BETWEEN 0 AND 1000);
ALTER TABLE files_users ADD COLUMN credited_uploaded INTEGER NOT NULL DEFAULT 0;
ALTER TABLE files_users ADD COLUMN credited_downloaded INTEGER NOT NULL DEFAULT 0;
-- Until now everything that moved was credited.
UPDATE files_users SET credited_uploaded = uploaded, credited_downloaded = downloaded;
CREATE TABLE IF NOT EXISTS hybrids (
    info_hash_v2 TEXT    PRIMARY KEY COLLATE NOCASE,
    file_id      INTEGER NOT NULL
) WITHOUT ROWID;
DROP TRIGGER IF EXISTS files_update;
CREATE TRIGGER files_update AFTER UPDATE OF id, info_hash, verified, completed, upload_percent, download_percent ON files BEGIN
    INSERT INTO changes (what, which) VALUES ('file', OLD.info_hash), ('file', NEW.info_hash);
END;
-- When a client or torrent was suggested: unapproved ones do not stay for ever.
ALTER TABLE files ADD COLUMN suggested INTEGER NOT NULL DEFAULT 0;
ALTER TABLE whitelist ADD COLUMN suggested INTEGER NOT NULL DEFAULT 0;
-- For the API and the status page.
CREATE TABLE IF NOT EXISTS api_logins (
    pubkey   TEXT    PRIMARY KEY,
    user_id  INTEGER NOT NULL,
    key_hash TEXT    NOT NULL, -- of the API key that it was made with; without that it is dead
    use_time INTEGER NOT NULL,
    calls    INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS api_nonces (
    pubkey TEXT NOT NULL,
    nonce  TEXT NOT NULL,
    PRIMARY KEY (pubkey, nonce)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hours (
    time       INTEGER PRIMARY KEY,
    announces  INTEGER NOT NULL,
    refused    INTEGER NOT NULL,
    seeders    INTEGER NOT NULL,
    leechers   INTEGER NOT NULL,
    uploaded   INTEGER NOT NULL,
    downloaded INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS api_keys_user ON api_keys (user_id);
UPDATE goat SET value = 2 WHERE name = 'schema';
