-- goat's tables for MySQL (8.0.16 or newer) and MariaDB (10.5 or newer). goat applies this file at its
-- start, by hand it is
--   mysql goat < res/mysql/schema.sql
--   mysql goat < res/mysql/triggers.sql
--   mysql goat < res/mysql/clients.sql
-- Every statement may be repeated. Times are seconds since 1970 (UTC), sizes and counters bytes.
-- You may insert, update and delete rows of users, files and whitelist at any time, also while goat
-- runs: the triggers tell it, and it follows within 5 seconds (TRUNCATE fires none).
-- The triggers need the privilege TRIGGER; where the server writes a binary log, also
-- log_bin_trust_function_creators = 1, or an administrator who imports triggers.sql once.

SET NAMES utf8mb4;

-- Numbers goat keeps for itself: the version of these tables, and what this database is known by.
CREATE TABLE IF NOT EXISTS goat (
    name  VARCHAR(32) CHARACTER SET ascii NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
INSERT IGNORE INTO goat (name, value) VALUES ('schema', 2);

-- Members. Nobody has id 0: it stands for everybody where "Passkey" is off. "uploaded" and "downloaded"
-- are the bytes credited: goat only adds to them.
CREATE TABLE IF NOT EXISTS users (
    id            INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    username      VARCHAR(64) NOT NULL UNIQUE CHECK (CHAR_LENGTH(username) >= 1),
    passkey       VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL UNIQUE
                  CHECK (CHAR_LENGTH(passkey) >= 8),
    torrent_limit INT UNSIGNED NOT NULL DEFAULT 0, -- 0: none
    uploaded      BIGINT NOT NULL DEFAULT 0 CHECK (uploaded >= 0),
    downloaded    BIGINT NOT NULL DEFAULT 0 CHECK (downloaded >= 0),
    admin         TINYINT NOT NULL DEFAULT 0 CHECK (admin IN (0, 1)),
    banned        TINYINT NOT NULL DEFAULT 0 CHECK (banned IN (0, 1)),
    ban_reason    VARCHAR(255) NOT NULL DEFAULT '', -- for operators
    create_time   BIGINT NOT NULL DEFAULT (UNIX_TIMESTAMP())
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- Keys to the API. Only the SHA-256 of a key is kept, as 64 hex digits.
CREATE TABLE IF NOT EXISTS api_keys (
    id          INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    user_id     INT UNSIGNED NOT NULL,
    key_hash    CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL UNIQUE,
    create_time BIGINT NOT NULL DEFAULT (UNIX_TIMESTAMP()),
    INDEX api_keys_user (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- Keys made by POST /api/login to sign calls with. The secret of such a key is derived from "pubkey" by a
-- key that only the file beside the configuration holds (config.secret), so these rows open nothing.
CREATE TABLE IF NOT EXISTS api_logins (
    pubkey   CHAR(40) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    user_id  INT UNSIGNED NOT NULL,
    key_hash CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, -- of the API key that it was made with; without that it is dead
    use_time BIGINT NOT NULL,
    calls    BIGINT NOT NULL DEFAULT 0
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- The nonces used with each of them: none works twice.
CREATE TABLE IF NOT EXISTS api_nonces (
    pubkey CHAR(40) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    nonce  VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    PRIMARY KEY (pubkey, nonce)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- Torrents. info_hash is 40 hex digits; "completed" counts the snatches. Of what members move of a torrent
-- so many percent are credited to them: 0 for downloads is what is called freeleech.
CREATE TABLE IF NOT EXISTS files (
    id          INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    info_hash   CHAR(40) CHARACTER SET ascii COLLATE ascii_general_ci NOT NULL UNIQUE
                CHECK (info_hash REGEXP '^[0-9a-fA-F]{40}$'),
    name        VARCHAR(255) NOT NULL DEFAULT '',
    size        BIGINT NOT NULL DEFAULT 0,
    verified    TINYINT NOT NULL DEFAULT 0 CHECK (verified IN (0, 1)),
    completed   INT UNSIGNED NOT NULL DEFAULT 0,
    upload_percent   SMALLINT UNSIGNED NOT NULL DEFAULT 100 CHECK (upload_percent <= 1000),
    download_percent SMALLINT UNSIGNED NOT NULL DEFAULT 100 CHECK (download_percent <= 1000),
    create_time BIGINT NOT NULL DEFAULT (UNIX_TIMESTAMP()),
    update_time BIGINT NOT NULL DEFAULT (UNIX_TIMESTAMP()),
    suggested   BIGINT NOT NULL DEFAULT 0, -- when a member first announced it; 0: others registered it; -1: refused
    INDEX files_verified (verified)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- The other hashes of hybrid torrents (BEP 52). A client announces a hybrid under both, with the same
-- counters: only the first is tracked, and the second, listed here, is not suggested to the operator.
CREATE TABLE IF NOT EXISTS hybrids (
    info_hash_v2 CHAR(40) CHARACTER SET ascii COLLATE ascii_general_ci NOT NULL PRIMARY KEY,
    file_id      INT UNSIGNED NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- What each member moved of each torrent, by the address they announced from: "uploaded" and "downloaded"
-- are the bytes that moved, "credited_" what of them was credited to the member. `left` and `time` are of
-- the last announce; seed_time is in seconds.
CREATE TABLE IF NOT EXISTS files_users (
    file_id    INT UNSIGNED NOT NULL,
    user_id    INT UNSIGNED NOT NULL,
    ip         VARCHAR(45) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    active     TINYINT NOT NULL,
    completed  TINYINT NOT NULL,
    announced  BIGINT NOT NULL,
    uploaded   BIGINT NOT NULL,
    downloaded BIGINT NOT NULL,
    `left`     BIGINT NOT NULL,
    time       BIGINT NOT NULL,
    seed_time  BIGINT NOT NULL,
    credited_uploaded   BIGINT NOT NULL DEFAULT 0,
    credited_downloaded BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (file_id, user_id, ip),
    INDEX files_users_user (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- Sessions: one client of one member on one torrent, with the counters it sent last (absolute, since
-- the client's own start). peer_id is 20 bytes; a port of 0 means no address of that family.
CREATE TABLE IF NOT EXISTS peers (
    file_id    INT UNSIGNED NOT NULL,
    user_id    INT UNSIGNED NOT NULL,
    peer_id    BINARY(20) NOT NULL,
    ipv4       VARCHAR(15) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    port4      SMALLINT UNSIGNED NOT NULL,
    time4      BIGINT NOT NULL,
    ipv6       VARCHAR(45) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    port6      SMALLINT UNSIGNED NOT NULL,
    time6      BIGINT NOT NULL,
    active     TINYINT NOT NULL,
    paused     TINYINT NOT NULL,
    completed  TINYINT NOT NULL,
    uploaded   BIGINT NOT NULL,
    downloaded BIGINT NOT NULL,
    `left`     BIGINT NOT NULL,
    time       BIGINT NOT NULL,
    PRIMARY KEY (file_id, user_id, peer_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- The batches of the last day, each written in the transaction that it numbers: where the connection
-- broke during a commit, goat looks its number up here before it sends a batch again.
CREATE TABLE IF NOT EXISTS batches (
    number BIGINT NOT NULL PRIMARY KEY,
    time   BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- What happened in each hour of the last 400 days, for the status page. "time" is the beginning of the hour;
-- seeders and leechers are as they were at its end.
CREATE TABLE IF NOT EXISTS hours (
    time       BIGINT NOT NULL PRIMARY KEY,
    announces  BIGINT NOT NULL,
    refused    BIGINT NOT NULL,
    seeders    BIGINT NOT NULL,
    leechers   BIGINT NOT NULL,
    uploaded   BIGINT NOT NULL,
    downloaded BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- Clients: an approved row lets in every client whose User-Agent or peer id begins with "client".
CREATE TABLE IF NOT EXISTS whitelist (
    id       INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    client   VARCHAR(128) COLLATE utf8mb4_bin NOT NULL UNIQUE CHECK (CHAR_LENGTH(client) >= 1),
    approved TINYINT NOT NULL DEFAULT 0 CHECK (approved IN (0, 1)),
    suggested BIGINT NOT NULL DEFAULT 0 -- when a member first used it; 0: others named it; -1: refused
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- What changed in users, files and whitelist and goat has not looked at yet: it empties this table.
CREATE TABLE IF NOT EXISTS changes (
    id    BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    what  VARCHAR(8) CHARACTER SET ascii NOT NULL,
    which VARCHAR(40) CHARACTER SET ascii NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
