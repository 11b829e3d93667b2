-- From version 1 of the tables to version 2: reasons of bans, factors of torrents, credited bytes. Needs the
-- privilege ALTER.
ALTER TABLE users ADD COLUMN ban_reason VARCHAR(255) NOT NULL DEFAULT '' AFTER banned;
ALTER TABLE files
    ADD COLUMN upload_percent SMALLINT UNSIGNED NOT NULL DEFAULT 100 CHECK (upload_percent <= 1000) AFTER completed,
    ADD COLUMN download_percent SMALLINT UNSIGNED NOT NULL DEFAULT 100 CHECK (download_percent <= 1000)
        AFTER upload_percent;
ALTER TABLE files_users
    ADD COLUMN credited_uploaded BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN credited_downloaded BIGINT NOT NULL DEFAULT 0;
-- Until now everything that moved was credited.
UPDATE files_users SET credited_uploaded = uploaded, credited_downloaded = downloaded;
CREATE TABLE IF NOT EXISTS hybrids (
    info_hash_v2 CHAR(40) CHARACTER SET ascii COLLATE ascii_general_ci NOT NULL PRIMARY KEY,
    file_id      INT UNSIGNED NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
-- When a client or torrent was suggested: unapproved ones do not stay for ever.
ALTER TABLE files ADD COLUMN suggested BIGINT NOT NULL DEFAULT 0;
ALTER TABLE whitelist ADD COLUMN suggested BIGINT NOT NULL DEFAULT 0;
-- The keys of one member are looked for at each of their logins.
ALTER TABLE api_keys ADD INDEX api_keys_user (user_id);
-- For the API and the status page.
CREATE TABLE IF NOT EXISTS api_logins (
    pubkey   CHAR(40) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    user_id  INT UNSIGNED NOT NULL,
    key_hash CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, -- of the API key that it was made with; without that it is dead
    use_time BIGINT NOT NULL,
    calls    BIGINT NOT NULL DEFAULT 0
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE IF NOT EXISTS api_nonces (
    pubkey CHAR(40) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    nonce  VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    PRIMARY KEY (pubkey, nonce)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE IF NOT EXISTS hours (
    time       BIGINT NOT NULL PRIMARY KEY,
    announces  BIGINT NOT NULL,
    refused    BIGINT NOT NULL,
    seeders    BIGINT NOT NULL,
    leechers   BIGINT NOT NULL,
    uploaded   BIGINT NOT NULL,
    downloaded BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
UPDATE goat SET value = 2 WHERE name = 'schema';
