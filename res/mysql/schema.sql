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

-- Numbers goat keeps for itself: the version of these tables, what this database is known by, and by which a goat
-- that runs knows that nobody replaced it.
CREATE TABLE IF NOT EXISTS goat (
    name  VARCHAR(32) CHARACTER SET ascii NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
INSERT IGNORE INTO goat (name, value) VALUES ('schema', 1), ('changes', 0);

-- Members. Nobody has id 0: it stands for everybody where "Passkey" is off. "uploaded" and "downloaded"
-- are the bytes credited: goat only adds to them.
CREATE TABLE IF NOT EXISTS users (
    id            INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    username      VARCHAR(64) COLLATE utf8mb4_bin NOT NULL CHECK (CHAR_LENGTH(username) >= 1),
    -- Names are the same that differ in the case of ASCII letters alone: hence the bytes, in lower case, to which no
    -- collation adds spaces.
    name_key      VARBINARY(256)
                  AS (LOWER(CONVERT(CAST(username AS BINARY) USING latin1))) STORED UNIQUE,
    passkey       VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL UNIQUE
                  CHECK (CHAR_LENGTH(passkey) >= 16),
    torrent_limit INT UNSIGNED NOT NULL DEFAULT 0, -- 0: none
    uploaded      BIGINT NOT NULL DEFAULT 0 CHECK (uploaded >= 0),
    downloaded    BIGINT NOT NULL DEFAULT 0 CHECK (downloaded >= 0),
    admin         TINYINT NOT NULL DEFAULT 0 CHECK (admin IN (0, 1)),
    banned        TINYINT NOT NULL DEFAULT 0 CHECK (banned IN (0, 1)),
    ban_reason    VARCHAR(255) NOT NULL DEFAULT '', -- what the member is told
    invitations   INT UNSIGNED NOT NULL DEFAULT 0, -- how many they may give, with those that are open
    invited_by    INT UNSIGNED NOT NULL DEFAULT 0, -- users.id of whose invitation they have followed; 0: none
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

-- Invitations that are open: the SHA-256 of the code in the link, as 64 hex digits, who gave it (users.id; 0: the
-- command line), the member whom it lets in (0: it makes one), and when it expires.
CREATE TABLE IF NOT EXISTS invitations (
    code_hash CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    by_id     INT UNSIGNED NOT NULL,
    user_id   INT UNSIGNED NOT NULL,
    expire    BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- Passwords to sign in with, of members who have one: 64 hex digits of PBKDF2-HMAC-SHA256 with so many rounds over the
-- password (UTF-8) and 16 random bytes, which "salt" is in hex.
CREATE TABLE IF NOT EXISTS passwords (
    user_id INT UNSIGNED NOT NULL PRIMARY KEY,
    hash    CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    salt    CHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    rounds  INT UNSIGNED NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- Keys made by POST /api/login to call with. The secret of such a key is derived from "pubkey" by a
-- key that only the file beside the configuration holds (config.secret), so these rows open nothing.
CREATE TABLE IF NOT EXISTS api_logins (
    pubkey   CHAR(40) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    user_id  INT UNSIGNED NOT NULL,
    key_hash CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, -- of the API key or password that it was made with; without that it is dead
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
    info_hash_v2 CHAR(40) CHARACTER SET ascii COLLATE ascii_general_ci UNIQUE, -- the other hash of a hybrid (BEP 52), which clients announce as well
    name        VARCHAR(255) COLLATE utf8mb4_bin NOT NULL DEFAULT '',
    size        BIGINT NOT NULL DEFAULT 0,
    verified    TINYINT NOT NULL DEFAULT 0 CHECK (verified IN (0, 1)),
    completed   INT UNSIGNED NOT NULL DEFAULT 0,
    upload_percent   SMALLINT UNSIGNED NOT NULL DEFAULT 100 CHECK (upload_percent <= 1000),
    download_percent SMALLINT UNSIGNED NOT NULL DEFAULT 100 CHECK (download_percent <= 1000),
    create_time BIGINT NOT NULL DEFAULT (UNIX_TIMESTAMP()),
    update_time BIGINT NOT NULL DEFAULT (UNIX_TIMESTAMP()),
    suggested   BIGINT NOT NULL DEFAULT 0, -- when a member first announced it; 0: others registered it; -1: refused
    suggested_by INT UNSIGNED NOT NULL DEFAULT 0, -- users.id of that member
    refusal     VARCHAR(255) NOT NULL DEFAULT '', -- why an operator has refused it
    INDEX files_verified (verified)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- The torrents themselves, as far as goat was given a file: in a table of their own, for only members' copies and
-- lists of files are made of them. "info" is the info dictionary to the byte, "layers" what stands under "piece
-- layers" (BEP 52), both in bencode; "files" is how many files there are, user_id who gave it, 0: an operator.
CREATE TABLE IF NOT EXISTS torrents (
    file_id INT UNSIGNED NOT NULL PRIMARY KEY,
    user_id INT UNSIGNED NOT NULL,
    files   INT UNSIGNED NOT NULL,
    layers  MEDIUMBLOB,
    info    MEDIUMBLOB NOT NULL,
    INDEX torrents_user (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- The words in the names of torrents and of the files in them, in lower case. When somebody searches, goat makes those
-- of the torrents that "unindexed" names.
CREATE TABLE IF NOT EXISTS words (
    word    VARCHAR(32) COLLATE utf8mb4_bin NOT NULL,
    file_id INT UNSIGNED NOT NULL,
    PRIMARY KEY (word, file_id),
    INDEX words_file (file_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE IF NOT EXISTS unindexed (
    file_id INT UNSIGNED NOT NULL PRIMARY KEY
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- Sessions: one client of one member on one torrent, in a form that is small: nearly all that goat writes is here.
-- The views "peers" and "files_users" say the same in words. peer_id is 20 bytes. "closed" is when the session ended, 0
-- while it is open. "uploaded" and "downloaded" are the bytes that moved, "bonus" how many more than these were credited,
-- or fewer, as in '500,-70'; NULL is '0,0'. time4 and time6 are when it announced last over IPv4 and IPv6. "state" has 6
-- bytes of an IPv4 address and port, 18 of an IPv6 address and port if it has one, and what only goat need know: the
-- highest counters announced in the current life and in the one before (docs/reference.md, "Accounts"), and when these
-- began.
CREATE TABLE IF NOT EXISTS sessions (
    file_id    INT UNSIGNED NOT NULL,
    user_id    INT UNSIGNED NOT NULL,
    peer_id    BINARY(20) NOT NULL,
    closed     INT UNSIGNED NOT NULL,
    flags      BIGINT NOT NULL, -- 1: paused, 2: has been complete, 4: by downloading, 8: IPv6, 16 to 32768: paths,
                                -- and 65536 times how often it announced
    uploaded   BIGINT NOT NULL,
    downloaded BIGINT NOT NULL,
    bonus      VARCHAR(41) CHARACTER SET ascii COLLATE ascii_bin,
    `left`     BIGINT NOT NULL,
    seed_time  INT UNSIGNED NOT NULL,
    time4      INT UNSIGNED NOT NULL,
    time6      INT UNSIGNED NOT NULL,
    state      VARBINARY(134) NOT NULL,
    PRIMARY KEY (file_id, user_id, peer_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- A row for each torrent and member: whether they completed it, and what was in sessions that are gone because they
-- were silent for 30 days.
CREATE TABLE IF NOT EXISTS totals (
    file_id    INT UNSIGNED NOT NULL,
    user_id    INT UNSIGNED NOT NULL,
    ip         VARCHAR(45) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    completed  TINYINT NOT NULL,
    announced  BIGINT NOT NULL,
    uploaded   BIGINT NOT NULL,
    downloaded BIGINT NOT NULL,
    credited_uploaded   BIGINT NOT NULL,
    credited_downloaded BIGINT NOT NULL,
    `left`     BIGINT NOT NULL,
    time       BIGINT NOT NULL,
    seed_time  BIGINT NOT NULL,
    PRIMARY KEY (file_id, user_id),
    INDEX totals_user (user_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- Sessions in words; a port of 0 means no address of that family. "active": it is in the swarm.
-- (FORCE INDEX: a server that believes the table to be empty still would join by reading all of it each time.)
CREATE OR REPLACE SQL SECURITY INVOKER VIEW peers AS SELECT file_id, user_id, peer_id,
    CONVERT(IF(LEFT(state, 6) = X'000000000000', '', INET6_NTOA(CAST(LEFT(state, 4) AS BINARY(4)))) USING ascii) AS ipv4,
    CAST(CONV(HEX(SUBSTR(state, 5, 2)), 16, 10) AS UNSIGNED) AS port4, time4,
    CONVERT(IF(flags & 8 = 0, '', INET6_NTOA(CAST(SUBSTR(state, 7, 16) AS BINARY(16)))) USING ascii) AS ipv6,
    IF(flags & 8 = 0, 0, CAST(CONV(HEX(SUBSTR(state, 23, 2)), 16, 10) AS UNSIGNED)) AS port6,
    time6, closed = 0 AS active, flags & 1 AS paused, (flags & 4) >> 2 AS completed, uploaded, downloaded,
    uploaded + COALESCE(CAST(SUBSTRING_INDEX(bonus, ',', 1) AS SIGNED), 0) AS credited_uploaded,
    downloaded + COALESCE(CAST(SUBSTRING_INDEX(bonus, ',', -1) AS SIGNED), 0) AS credited_downloaded,
    `left`, flags >> 16 AS announced, seed_time, GREATEST(time4, time6) AS time
    FROM sessions FORCE INDEX (PRIMARY);

-- What each member moved of each torrent, from the first day on: "uploaded" and "downloaded" are the bytes that
-- moved, "credited_" what of them was credited; seed_time is in seconds. ip, `left` and time are of the last announce.
-- (MAX where there is one row: some modes of a server want it.)
CREATE OR REPLACE SQL SECURITY INVOKER VIEW files_users AS SELECT t.file_id, t.user_id,
    COALESCE(SUBSTR(MAX(CONCAT(LPAD(p.time, 10, '0'), IF(p.time6 > p.time4, p.ipv6, p.ipv4))), 11), MAX(t.ip)) AS ip,
    COALESCE(MAX(p.active), 0) AS active, MAX(t.completed) AS completed,
    MAX(t.announced) + COALESCE(SUM(p.announced), 0) AS announced,
    MAX(t.uploaded) + COALESCE(SUM(p.uploaded), 0) AS uploaded,
    MAX(t.downloaded) + COALESCE(SUM(p.downloaded), 0) AS downloaded,
    COALESCE(CAST(SUBSTR(MAX(CONCAT(LPAD(p.time, 10, '0'), p.`left`)), 11) AS UNSIGNED), MAX(t.`left`)) AS `left`,
    COALESCE(MAX(p.time), MAX(t.time)) AS time, MAX(t.seed_time) + COALESCE(SUM(p.seed_time), 0) AS seed_time,
    MAX(t.credited_uploaded) + COALESCE(SUM(p.credited_uploaded), 0) AS credited_uploaded,
    MAX(t.credited_downloaded) + COALESCE(SUM(p.credited_downloaded), 0) AS credited_downloaded
    FROM totals t LEFT JOIN peers p ON p.file_id = t.file_id AND p.user_id = t.user_id
    GROUP BY t.file_id, t.user_id;

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

-- The same for each minute of the last half hour. "time" is its end.
CREATE TABLE IF NOT EXISTS minutes (
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
    suggested BIGINT NOT NULL DEFAULT 0, -- when a member first used it; 0: others named it; -1: refused
    suggested_by INT UNSIGNED NOT NULL DEFAULT 0 -- users.id of that member
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- What administrators did and by which command, the newest 10,000. "who" is nothing for the command line.
CREATE TABLE IF NOT EXISTS actions (
    id     INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    time   BIGINT NOT NULL,
    who    VARCHAR(64) NOT NULL,
    what   VARCHAR(64) NOT NULL,
    whom   VARCHAR(255) NOT NULL,
    detail VARCHAR(255) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

-- What changed in users, files and whitelist. goat numbers what is new in batches (0: it has no number yet), so that each
-- goat at this database finds what it has not followed, and removes it when all have had the time.
CREATE TABLE IF NOT EXISTS changes (
    id    BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    what  VARCHAR(8) CHARACTER SET ascii NOT NULL,
    which VARCHAR(40) CHARACTER SET ascii NOT NULL,
    batch BIGINT NOT NULL DEFAULT 0,
    INDEX changes_batch (batch, what)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
