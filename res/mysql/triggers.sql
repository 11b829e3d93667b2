-- Part two of goat's tables for MySQL and MariaDB: import it after schema.sql. goat applies it at its
-- start where the triggers are missing. What they write, goat reads within 5 seconds.
DELIMITER //
CREATE TRIGGER users_insert AFTER INSERT ON users FOR EACH ROW
    INSERT INTO changes (what, which) VALUES ('user', NEW.id)//
-- Not for what is credited: that would write a row for each.
CREATE TRIGGER users_update AFTER UPDATE ON users FOR EACH ROW
    IF NOT (OLD.id = NEW.id AND OLD.username <=> NEW.username AND OLD.passkey <=> NEW.passkey
        AND OLD.torrent_limit = NEW.torrent_limit AND OLD.admin = NEW.admin AND OLD.banned = NEW.banned
        AND OLD.ban_reason <=> NEW.ban_reason) THEN
        INSERT INTO changes (what, which) VALUES ('user', OLD.id), ('user', NEW.id);
    END IF//
CREATE TRIGGER users_delete AFTER DELETE ON users FOR EACH ROW
    INSERT INTO changes (what, which) VALUES ('user', OLD.id)//
CREATE TRIGGER files_insert AFTER INSERT ON files FOR EACH ROW
    INSERT INTO changes (what, which) VALUES ('file', NEW.info_hash)//
CREATE TRIGGER files_update AFTER UPDATE ON files FOR EACH ROW
    INSERT INTO changes (what, which) VALUES ('file', OLD.info_hash), ('file', NEW.info_hash)//
CREATE TRIGGER files_delete AFTER DELETE ON files FOR EACH ROW
    INSERT INTO changes (what, which) VALUES ('file', OLD.info_hash)//
CREATE TRIGGER whitelist_insert AFTER INSERT ON whitelist FOR EACH ROW
    INSERT INTO changes (what, which) VALUES ('client', '')//
CREATE TRIGGER whitelist_update AFTER UPDATE ON whitelist FOR EACH ROW
    INSERT INTO changes (what, which) VALUES ('client', '')//
CREATE TRIGGER whitelist_delete AFTER DELETE ON whitelist FOR EACH ROW
    INSERT INTO changes (what, which) VALUES ('client', '')//
-- What was registered, renamed or removed is to be found by other words.
CREATE TRIGGER words_insert AFTER INSERT ON files FOR EACH ROW
    INSERT IGNORE INTO unindexed (file_id) VALUES (NEW.id)//
CREATE TRIGGER words_update AFTER UPDATE ON files FOR EACH ROW
    IF NOT (OLD.id = NEW.id AND OLD.name <=> NEW.name) THEN
        INSERT IGNORE INTO unindexed (file_id) VALUES (OLD.id), (NEW.id);
    END IF//
CREATE TRIGGER words_delete AFTER DELETE ON files FOR EACH ROW BEGIN
    INSERT IGNORE INTO unindexed (file_id) VALUES (OLD.id);
    DELETE FROM torrents WHERE file_id = OLD.id;
END//
CREATE TRIGGER words_torrent AFTER INSERT ON torrents FOR EACH ROW
    INSERT IGNORE INTO unindexed (file_id) VALUES (NEW.file_id)//
DELIMITER ;
