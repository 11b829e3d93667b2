//! The way of a community, from an empty folder on: two browsers, two real clients.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::browser::Browser;
use crate::clients::{Client, Kind, SIZE, credited, in_lab, random_file};
use crate::common::{Database, Folder, Goat, Lab, User, wait_for, wait_until};
use serde_json::json;

#[test]
fn a_community_begins_and_shares_a_torrent_in_the_browser() {
    in_lab("a tour", |lab| {
        let test = "a_community_begins_and_shares_a_torrent_in_the_browser";
        let Some((ana, berta)) = Browser::start(test).zip(Browser::start(test)) else {
            return;
        };
        let database = Database::sqlite();
        let goat = Goat::start(&database, json!({ "Host": Lab::HUB, "API": true }));
        begin(&goat, &ana);
        join(&ana, &berta);
        let folder = Folder::new();
        let copies = share(&folder, &ana, &berta);
        move_the_file(lab, &database, &folder, copies, &ana, &berta);
        set_free(&ana, &berta);
        ban(&ana, &berta);
        for browser in [&ana, &berta] {
            // The browser itself notes what is refused: the sign-in of who is banned, and what they were about to see.
            let mut complaints = browser.complaints();
            complaints.retain(|line| !line.contains("status of 403"));
            assert_eq!(complaints, [""; 0]);
        }
    });
}

const PASSWORD: &str = "correct horse battery";

/// The first administrator follows the link that the command prints, and is told what to do first.
fn begin(goat: &Goat, ana: &Browser) {
    let made = goat.json(&["user", "add", "ana", "--admin"]);
    ana.visit(made["link"].as_str().unwrap());
    ana.wait_for_text("#join-by", "made for you: ana");
    ana.click("#join .main");
    ana.wait_for_text("#joined", "Welcome, ana");
    ana.wait_for_text("#joined", made["passkey"].as_str().unwrap());
    ana.press("Go to the torrents");
    ana.wait_for_text("#who", "ana");
    ana.click("#to-all");
    ana.wait_for_text("#first", "Invite members");
    ana.click("#to-torrents");
    ana.wait_for_text("#results", "Offer the first");
}

/// A member joins by an invitation, which works once.
fn join(ana: &Browser, berta: &Browser) {
    ana.click("#to-all");
    ana.press("Make an invitation link");
    ana.wait_for_text("#invitation", "#join=");
    let link = ana.text("#invitation");
    ana.press("Done");
    berta.visit(&link);
    berta.wait_for_text("#join-by", "ana invites you");
    berta.write("#join-name", "ana");
    berta.click("#join .main");
    berta.wait_for_text("#join-error", "ana");
    berta.write("#join-name", "berta");
    berta.write("#join-password", PASSWORD);
    berta.click("#join .main");
    berta.wait_for_text("#joined", "Welcome, berta");
    berta.wait_for_text("#joined", "/announce");
    assert_eq!(berta.run("return location.hash"), "");
    berta.press("Go to the torrents");
    berta.wait_for_text("#who", "berta");
    // The password signs in as well; the link is used up.
    berta.click("#out");
    berta.visit("about:blank");
    berta.visit(&link);
    berta.wait_for_text("#join-error", "used up");
    berta.click("#join-back a");
    berta.sign_in("berta", PASSWORD);
    berta.wait_for_text("#results", "Offer the first");
    berta.complaints();
}

/// The member offers a torrent, the administrator approves it, and each fetches their own copy.
fn share(folder: &Folder, ana: &Browser, berta: &Browser) -> [PathBuf; 2] {
    random_file(folder);
    let torrent = folder.join("offered.torrent");
    // Not private: that is set by goat.
    let mut command = Command::new("mktorrent");
    command.args(["--piece-length=16", "--announce=http://tracker/announce", "--output"]);
    let output = command.args([&torrent, &folder.join("random.bin")]).output();
    assert!(output.unwrap().status.success());
    berta.choose("#file", &torrent);
    berta.wait_for_text("#uploads", "random.bin waits for an administrator’s approval");
    berta.wait_for_text("#uploads", "It was not private");
    berta.press("Fetch random.bin");
    let of_berta = berta.downloaded("random.bin.torrent");
    ana.wait_for_text("#pending", "random.bin");
    ana.wait_for_text("#pending", "4.77 MiB, 1 file, offered by berta");
    ana.press("Approve random.bin");
    ana.wait_for_text("#said", "random.bin is approved");
    // Who drops what is there onto the page is shown it.
    ana.click("#to-torrents");
    ana.wait_for_text("#results", "offered by berta");
    let bytes = json!(std::fs::read(&torrent).unwrap());
    ana.run(&format!(
        "const files = new DataTransfer();
         files.items.add(new File([new Uint8Array({bytes})], 'offered.torrent'));
         for (const kind of ['dragenter', 'dragover', 'drop'])
             document.body.dispatchEvent(new DragEvent(kind, {{ dataTransfer: files, bubbles: true, cancelable: true }}))"
    ));
    ana.wait_for_text("#torrent h1", "random.bin");
    ana.press("Fetch random.bin");
    [of_berta, ana.downloaded("random.bin.torrent")]
}

/// The clients move the file, and each page shows what was credited.
fn move_the_file(
    lab: &Lab,
    database: &Database,
    folder: &Folder,
    [of_berta, of_ana]: [PathBuf; 2],
    ana: &Browser,
    berta: &Browser,
) {
    let start = |kind, torrent: &Path, content: Option<&Path>| Client::start(lab.host(), kind, torrent, content);
    let mut seeder = start(Kind::Transmission, &of_berta, Some(&folder.join("random.bin")));
    berta.wait_for_text("#results [data-label=Seeders]", "1");
    let mut leecher = start(Kind::Aria2, &of_ana, None);
    wait_for("the file to be there", || {
        leecher.process.assert_running();
        leecher.totals().filter(|totals| totals.left == 0)
    });
    ana.wait_for_text("#torrent", "seeding");
    let moved = [seeder.stop_sharing(), leecher.stop_sharing()];
    assert!(moved[0].uploaded >= SIZE && moved[1].downloaded >= SIZE);
    for (browser, name, ratio, totals) in [(berta, "berta", "∞", moved[0]), (ana, "ana", "0", moved[1])] {
        browser.click("#to-me");
        let id = database.number(&format!("SELECT id FROM users WHERE username = '{name}'"));
        let user = User { id, name: name.into(), passkey: String::new(), api_key: String::new() };
        let expected = (totals.uploaded, totals.downloaded);
        wait_until("the books", || credited(database, &user) == expected);
        let shown = "return [...document.querySelectorAll('#my-tiles dd')].slice(0, 3)
            .map((e, i) => i ? e.querySelector('span').title.replaceAll(/\\D/g, '') : e.firstChild.textContent)";
        let expected = json!([ratio, totals.uploaded.to_string(), totals.downloaded.to_string()]);
        wait_until("the page to show it", || browser.run(shown) == expected);
        browser.wait_for_text("#my-torrents", "random.bin");
    }
}

/// The administrator makes the torrent freeleech, then all for a time; the member sees it.
fn set_free(ana: &Browser, berta: &Browser) {
    ana.click("#to-torrents");
    ana.press("random.bin");
    ana.press("Freeleech random.bin");
    ana.press("Set");
    ana.wait_for_text("#torrent .badge", "Freeleech");
    berta.click("#to-torrents");
    berta.wait_for_text("#results .badge", "Freeleech");
    ana.click("#to-all");
    ana.press("Begin freeleech for all");
    ana.press("Begin");
    ana.wait_for_text("#free", "Freeleech for all");
    berta.wait_for_text("#free", "what you download does not count");
    ana.press("End now freeleech for all");
    wait_until("the end of it", || berta.text("#free").is_empty());
}

/// Who is banned is signed out, and told why; also where they sign in again.
fn ban(ana: &Browser, berta: &Browser) {
    ana.press("Manage berta");
    ana.press("Ban…");
    ana.write("#ask-reason", "Shared the passkey");
    ana.press("Ban");
    ana.wait_for_text("#members", "Shared the passkey");
    berta.wait_for_text("#login-error", "This user is banned: Shared the passkey");
    berta.sign_in("berta", PASSWORD);
    berta.wait_for_text("#login-error", "Shared the passkey");
    ana.wait_for_text("#log", "user ban berta");
}
