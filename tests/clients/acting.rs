//! What is done by the page: members renew what is secret, administrators judge and manage.

use crate::browser::Browser;
use crate::common::{Announce, Database, Goat, basic, hex, http_post, info_hash, wait_until};
use crate::page::Community;
use serde_json::{Value, json};

#[test]
fn members_set_a_password_and_take_new_keys_by_themselves() {
    let test = "members_set_a_password_and_take_new_keys_by_themselves";
    let Some(browser) = Browser::start(test) else {
        return;
    };
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "API": true }));
    let berta = goat.add_user("berta");
    let (password, hash) = ("päss wörd, with: a colon/slash", info_hash(1));
    goat.add_torrent(hex(&hash));
    let mut announce = Announce::new(&berta.passkey, hash, 1);
    announce.accepted(&goat);
    browser.open(&goat);
    browser.sign_in("berta", &berta.api_key);
    browser.wait_for_text("#who", "berta");
    browser.click("#to-me");
    // Who finds an open tab has no key, and so takes no account.
    browser.press("Set a password…");
    browser.write("#ask-current", "a guess");
    browser.write("#ask-password", password);
    browser.press("Set a password");
    browser.wait_for_text("#dialog [role=alert]", "Wrong user name");
    browser.write("#ask-current", &berta.api_key);
    browser.press("Set a password");
    browser.wait_for_text("#account", "You have a password");
    browser.click("#out");
    browser.sign_in("berta", password);
    browser.wait_for_text("#who", "berta");
    browser.click("#to-me");
    // The old passkey is of no use any more; the new one is shown, and is in the URLs.
    browser.press("New passkey…");
    browser.press("New passkey");
    browser.wait_for_text("#dialog", "The old one is of no use any more");
    let passkey = browser.text("#secrets code");
    browser.press("Done");
    wait_until("the old passkey to be refused", || announce.refusal(&goat) == "Invalid passkey");
    announce.passkey = Some(passkey.clone());
    announce.accepted(&goat);
    browser.click("#reveal");
    browser.wait_for_text("#urls", &passkey);
    // A new key is shown once, and the tab stays signed in, though its token died with the old one.
    browser.press("New API key…");
    browser.write("#ask-current", password);
    browser.press("New API key");
    browser.wait_for_text("#dialog", "It is shown only now");
    let key = browser.text("#secrets code");
    assert_ne!(key, berta.api_key);
    browser.press("Done");
    browser.press("Change password…");
    browser.write("#ask-current", &key);
    browser.write("#ask-password", "another password");
    browser.press("Change password");
    browser.wait_for_text("#said", "Your password is set");
    browser.press("Remove password…");
    browser.write("#ask-current", &key);
    browser.press("Remove password");
    browser.wait_for_text("#account", "You sign in with your API key");
    // Without a right to invite there is no button for it.
    browser.wait_for_text("#invites", "You have no invitations");
    assert_eq!(browser.run("return document.querySelector('#invites button')"), Value::Null);
    browser.click("#out");
    for old in [&berta.api_key, password, "another password"] {
        browser.sign_in("berta", old);
        browser.wait_for_text("#login-error", "Wrong user name");
        browser.run("document.getElementById('login-error').textContent = ''");
    }
    browser.sign_in("berta", &key);
    browser.wait_for_text("#who", "berta");
}

#[test]
fn an_administrator_manages_members_and_torrents() {
    let Some(browser) = Browser::start("an_administrator_manages_members_and_torrents") else {
        return;
    };
    let (community, database) = Community::start();
    browser.open(&community.goat);
    browser.sign_in("ana", &community.admin.api_key);
    browser.wait_for_text("#members", "berta");
    // Found by a part of the name.
    browser.write("#member-words", "BERT");
    wait_until("one member", || browser.run("return document.querySelectorAll('#members tbody tr').length") == 1);
    let column =
        |column: &str| database.sql(&format!("SELECT {column} FROM users WHERE username = 'berta'"))[0][0].clone();
    let before: u64 = column("uploaded").parse().unwrap();
    let set = |what: &str, field: &str, value: &str, said: &str| {
        browser.press("Manage berta");
        browser.press(&format!("{what}…"));
        browser.write(&format!("#ask-{field}"), value);
        browser.press(what);
        browser.wait_for_text("#said", said);
    };
    set("Limit", "torrents", "7", "The limit is set");
    assert_eq!(column("torrent_limit"), "7");
    set("Credit", "uploaded", "1.5", "The credit is booked");
    let expected = (before + (3 << 29)).to_string();
    assert_eq!(column("uploaded"), expected);
    set("Invitations", "count", "2", "berta may invite 2");
    set("Ban", "reason", "Ratio", "berta is banned");
    assert_eq!((column("banned"), column("ban_reason")), ("1".into(), "Ratio".into()));
    browser.press("Manage berta");
    browser.press("Unban");
    browser.wait_for_text("#said", "berta is a member again");
    assert_eq!(column("banned"), "0");
    browser.press("Manage berta");
    browser.press("Make administrator…");
    browser.press("Make administrator");
    browser.wait_for_text("#said", "berta is an administrator now");
    assert_eq!(column("admin"), "1");
    browser.press("Manage berta");
    browser.press("New passkey…");
    browser.press("New passkey");
    wait_until("the new passkey", || browser.text("#secrets").contains(&column("passkey")));
    browser.press("Done");
    browser.press("Add a member");
    browser.write("#ask-name", "hana");
    browser.press("Add");
    browser.wait_for_text("#dialog", "hana is a member");
    browser.press("Done");
    // What she did is shown, but no key is in it.
    browser.wait_for_text("#log", "user add hana");
    assert!(!browser.text("#log").contains(&column("passkey")));
    // A torrent is renamed, freed, revoked, and removed.
    browser.turn_to("torrent=1");
    let name = "debian-13.1.0-amd64-DVD-1.iso";
    browser.press(&format!("Rename {name}"));
    browser.write("#ask-name", "Debian 13 <i>");
    browser.press("Rename");
    browser.wait_for_text("#torrent h1", "Debian 13 <i>");
    browser.press("Freeleech Debian 13 <i>");
    browser.write("#ask-upload", "200");
    browser.press("Set");
    browser.wait_for_text("#torrent h1", "Upload 200 %");
    browser.wait_for_text("#torrent", "berta");
    browser.press("Revoke Debian 13 <i>");
    browser.write("#ask-reason", "A newer one is there");
    browser.press("Revoke approval");
    browser.wait_for_text("#torrent .notice", "A newer one is there");
    let row = "SELECT name, verified, download_percent, upload_percent, refusal FROM files WHERE id = 1";
    let expected = [["Debian 13 <i>", "0", "0", "200", "A newer one is there"]];
    assert_eq!(database.sql(row), expected);
    browser.press("Remove Debian 13 <i>");
    browser.press("Remove");
    browser.wait_for_text("#results", "Big Buck Bunny");
    assert_eq!(database.number("SELECT count(*) FROM files WHERE id = 1"), 0);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn what_awaits_approval_is_judged_by_buttons_and_the_lists_say_where_they_end() {
    let test = "what_awaits_approval_is_judged_by_buttons_and_the_lists_say_where_they_end";
    let Some(browser) = Browser::start(test) else {
        return;
    };
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "API": true }));
    let admin = goat.json(&["user", "add", "ana", "--admin"]);
    database.sql(
        "INSERT INTO whitelist (client, suggested) VALUES ('--all', 2000000000), ('-x', 2000000000), ('--it''s 1&b=2', 2000000000), ('$(exit 9)+%00', 2000000000);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 101)
         INSERT INTO files (info_hash, verified, suggested) SELECT printf('%040x', i), i > 21, 2000000000 FROM n;
         INSERT INTO totals SELECT id, 1, '127.0.0.1', 0, 1, 0, 0, 0, 0, 0, id, 0 FROM files",
    );
    browser.open(&goat);
    browser.sign_in("ana", admin["apiKey"].as_str().unwrap());
    let waiting = || browser.run("return document.querySelectorAll('#pending-list li').length");
    let hidden = |id: &str| browser.run(&format!("return document.getElementById('{id}').hidden"));
    wait_until("what awaits approval", || waiting() == 24);
    assert_eq!(hidden("pending-more"), false);
    for client in ["--all", "-x", "--it's 1&b=2"] {
        browser.press(&format!("Approve {client}"));
        browser.wait_for_text("#said", &format!("{client} may announce"));
    }
    browser.press("Deny $(exit 9)+%00");
    browser.wait_for_text("#said", "$(exit 9)+%00 is denied");
    let judged = "SELECT client, approved FROM whitelist WHERE client IN ('--all', '-x', '--it''s 1&b=2', '$(exit 9)+%00') AND suggested <= 0 ORDER BY client";
    let expected = [["$(exit 9)+%00", "0"], ["--all", "1"], ["--it's 1&b=2", "1"], ["-x", "1"]];
    assert_eq!(database.sql(judged), expected);
    browser.press(&format!("Refuse {:040x}", 1));
    browser.write("#ask-reason", "Nobody knows it");
    browser.press("Refuse");
    wait_until("the one that was not shown", || waiting() == 20);
    wait_until("the list to be whole", || hidden("pending-more") == true);
    let refused = "SELECT refusal FROM files WHERE verified = 0 AND suggested < 0";
    assert_eq!(database.sql(refused), [["Nobody knows it"]]);
    browser.press(&format!("Approve {:040x}", 2));
    wait_until("it to go from the list", || waiting() == 19);
    // Who did it is written down, and shown.
    browser.wait_for_text("#log", "Nobody knows it");
    // A member who is on more torrents than are shown.
    browser.click("#to-me");
    let rows = || browser.run("return document.querySelectorAll('#my-torrents tbody tr').length");
    wait_until("torrents", || rows() == 100);
    assert_eq!(hidden("my-more"), false);
    database.sql("DELETE FROM totals WHERE file_id = 1");
    wait_until("the list to be whole", || hidden("my-more") == true);
    assert_eq!(rows(), 100);
    // Torrents come in parts: on, and back.
    browser.click("#to-torrents");
    let rows = || browser.run("return document.querySelectorAll('#results tbody tr').length");
    let first = || browser.text("#results tbody a");
    wait_until("the first part", || rows() == 50);
    let newest = first();
    browser.press("Next torrents");
    wait_until("the second part", || first() != newest);
    browser.press("Next torrents");
    wait_until("the last part", || rows() == 1);
    browser.press("Previous torrents");
    browser.press("Previous torrents");
    wait_until("the first part again", || first() == newest && rows() == 50);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_new_key_is_not_lost_whatever_the_page_does_until_it_comes() {
    let Some(browser) = Browser::start("a_new_key_is_not_lost_whatever_the_page_does_until_it_comes") else {
        return;
    };
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "API": true }));
    let berta = goat.add_user("berta");
    browser.open(&goat);
    browser.sign_in("berta", &berta.api_key);
    browser.wait_for_text("#who", "berta");
    browser.click("#to-me");
    browser.run(
        "const real = fetch; window.sent = [], window.held = null;
         window.fetch = (url, options) => new Promise(go => {
             sent.push(options.headers.Authorization);
             const ask = () => go(real(url, options));
             if (url.endsWith('/api/me/key')) held = ask; else ask();
         });",
    );
    browser.press("New API key…");
    browser.write("#ask-current", &berta.api_key);
    browser.press("New API key");
    wait_until("the new key to be on its way", || browser.run("return held !== null") == true);
    // The page is looked at again, and something is searched for.
    browser
        .run("document.dispatchEvent(new Event('visibilitychange')); document.getElementById('find').requestSubmit()");
    assert_eq!(browser.run("return sent.includes('none')"), false);
    browser.run("held()");
    browser.wait_for_text("#dialog", "It is shown only now");
    let key = browser.text("#secrets code");
    browser.press("Done");
    browser.click("#out");
    browser.sign_in("berta", &key);
    browser.wait_for_text("#who", "berta");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn the_first_part_of_the_members_is_shown_where_the_one_before_another_part_is_gone() {
    let test = "the_first_part_of_the_members_is_shown_where_the_one_before_another_part_is_gone";
    let Some(browser) = Browser::start(test) else {
        return;
    };
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "API": true }));
    let admin = goat.json(&["user", "add", "ana", "--admin"]);
    database.sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 45)
         INSERT INTO users (username, passkey) SELECT 'member ' || i, printf('%040x', i) FROM n",
    );
    browser.open(&goat);
    browser.sign_in("ana", admin["apiKey"].as_str().unwrap());
    browser.wait_for_text("#members", "member");
    let (first, last) = (browser.text("#members tbody td"), browser.text("#members tbody tr:last-child td"));
    browser.press("Next members");
    wait_until("the second part", || browser.text("#members tbody td") != first);
    database.sql(&format!("DELETE FROM users WHERE username = '{last}'"));
    browser.run("document.dispatchEvent(new Event('visibilitychange'))");
    wait_until("the first part again", || browser.text("#members tbody td") == first);
    assert_eq!(browser.run("return document.getElementById('notice').hidden"), true);
}

#[test]
fn who_offers_what_another_offer_waits_as_is_told_so() {
    let Some(browser) = Browser::start("who_offers_what_another_offer_waits_as_is_told_so") else {
        return;
    };
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "API": true }));
    let (berta, caro) = (goat.add_user("berta"), goat.add_user("caro"));
    let torrent = "d4:infod6:lengthi1e4:name4:song12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaa7:privatei1eee";
    let own = [("Authorization", &*basic(&caro.name, &caro.api_key))];
    assert_eq!(http_post(goat.address(), "/api/files", &own, torrent.as_bytes()).unwrap().0, 200);
    let file = goat.folder.join("song.torrent");
    std::fs::write(&file, torrent).unwrap();
    browser.open(&goat);
    browser.sign_in("berta", &berta.api_key);
    browser.wait_for_text("#who", "berta");
    browser.choose("#file", &file);
    browser.wait_for_text("#uploads", "song is known already and waits for an administrator’s approval");
    assert_eq!(browser.text("#torrent"), "", "the offer of another is not shown");
}
