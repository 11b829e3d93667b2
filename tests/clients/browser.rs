//! A real browser, Chromium, driven over WebDriver. `GOAT_SCREENSHOTS=FOLDER` keeps what the page looks like; the
//! documents' pictures are made so.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{Folder, Goat, PATIENCE, Process, free_port, installed, skip, wait_for, wait_until};
use serde_json::{Value, json};

/// One command to the driver, which keeps connections open whatever it is asked for.
fn webdriver(address: SocketAddr, method: &str, path: &str, body: &Value) -> io::Result<Value> {
    let body = body.to_string();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut stream = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while stream.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        line.clear();
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    serde_json::from_slice(&answer).map_err(io::Error::other)
}

/// A headless Chromium with a new, empty profile.
pub struct Browser {
    driver: Process,
    address: SocketAddr,
    session: String,
    folder: Folder,
}

pub const TAB: char = '\u{e004}';
pub const ENTER: char = '\u{e007}';
pub const LEFT: char = '\u{e012}';

impl Browser {
    /// None if there is none on this machine.
    pub fn start(test: &str) -> Option<Browser> {
        for program in ["chromium", "chromedriver"] {
            if !installed(program) {
                skip(test, &format!("no {program}"));
                return None;
            }
        }
        let (folder, port) = (Folder::new(), free_port());
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).env("HOME", folder.path());
        let driver = Process::start("chromedriver", &mut command, folder.join("log"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--force-prefers-reduced-motion",
            "--window-size=1200,1000",
        ];
        let profile = format!("--user-data-dir={}", folder.join("profile").display());
        let arguments: Vec<&str> = arguments.into_iter().chain([profile.as_str()]).collect();
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": arguments },
        } } });
        let made = wait_for("chromedriver", || webdriver(address, "POST", "/session", &wanted).ok());
        let session = made["value"]["sessionId"].as_str();
        let session = session.unwrap_or_else(|| panic!("no session: {made}")).into();
        let browser = Browser { driver, address, session, folder };
        let downloads = browser.folder.join("downloads").display().to_string();
        let behavior = json!({ "behavior": "allow", "downloadPath": downloads });
        browser.cdp("Browser.setDownloadBehavior", behavior);
        Some(browser)
    }

    pub fn post(&self, command: &str, body: Value) -> Value {
        let path = format!("/session/{}/{command}", self.session);
        let answer = webdriver(self.address, "POST", &path, &body).unwrap();
        let failed = answer["value"].get("error").is_some();
        assert!(!failed, "{command}: {answer}");
        answer["value"].clone()
    }

    /// Runs a script in the page and gives what it returns.
    pub fn run(&self, script: &str) -> Value {
        self.post("execute/sync", json!({ "script": script, "args": [] }))
    }

    pub fn cdp(&self, command: &str, parameters: Value) -> Value {
        self.post("goog/cdp/execute", json!({ "cmd": command, "params": parameters }))
    }

    pub fn open(&self, goat: &Goat) {
        self.visit(&format!("http://{}/", goat.address()));
    }

    pub fn visit(&self, url: &str) {
        self.post("url", json!({ "url": url }));
    }

    /// Shows a page of the page, by what stands after the # in its address.
    pub fn turn_to(&self, fragment: &str) {
        self.run(&format!("location.hash = {fragment:?}"));
    }

    /// Clicks the control that a screen reader calls so, once it is there; in a dialog, if one is open.
    pub fn press(&self, name: &str) {
        self.with_control(name, "click");
    }

    /// Gives the focus to it.
    pub fn focus(&self, name: &str) {
        self.with_control(name, "focus");
    }

    fn with_control(&self, name: &str, method: &str) {
        let script = format!(
            "const name = {name:?}, place = document.querySelector('dialog[open]') ?? document;
             const all = [...place.querySelectorAll('a, button, input, select, summary')];
             const found = all.find(e => e.checkVisibility() && !e.disabled && (e.ariaLabel ?? e.textContent) === name);
             found?.{method}();
             return found !== undefined"
        );
        wait_until(name, || self.run(&script) == true);
    }

    /// What has the focus, as a screen reader calls it.
    pub fn focused(&self) -> Value {
        self.run(
            "const e = document.activeElement; return e.ariaLabel || (e.matches('a, button') ? e.textContent : e.id)",
        )
    }

    /// Presses keys, one after the other.
    pub fn keys(&self, text: &str) {
        let steps: Vec<Value> = text
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key })))
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": steps });
        self.post("actions", json!({ "actions": [keyboard] }));
    }

    /// Chooses a file in the field for files.
    pub fn choose(&self, selector: &str, file: &Path) {
        let path = format!("element/{}/value", self.element(selector));
        self.post(&path, json!({ "text": file.display().to_string() }));
    }

    /// What was downloaded under a name, once it is whole.
    pub fn downloaded(&self, name: &str) -> std::path::PathBuf {
        let file = self.folder.join("downloads").join(name);
        wait_until(name, || file.is_file());
        file
    }

    /// By how many pixels the page is wider than the screen.
    pub fn overflow(&self) -> Value {
        self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    }

    pub fn element(&self, selector: &str) -> String {
        let found = self.post("element", json!({ "using": "css selector", "value": selector }));
        found.as_object().unwrap().values().next().unwrap().as_str().unwrap().into()
    }

    pub fn click(&self, selector: &str) {
        self.post(&format!("element/{}/click", self.element(selector)), json!({}));
    }

    /// Types as a person does.
    pub fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.post(&format!("element/{element}/clear"), json!({}));
        self.post(&format!("element/{element}/value"), json!({ "text": text }));
    }

    pub fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({selector:?})?.innerText ?? ''");
        self.run(&script).as_str().unwrap().into()
    }

    pub fn sign_in(&self, name: &str, key: &str) {
        self.write("#name", name);
        self.write("#key", key);
        self.click("#login button");
    }

    pub fn wait_for_text(&self, selector: &str, wanted: &str) {
        wait_until(&format!("{wanted:?} in {selector}"), || self.text(selector).contains(wanted));
    }

    /// Light or dark, and the size of the window in CSS pixels.
    pub fn look(&self, scheme: &str, width: u32, height: u32) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.cdp("Emulation.setEmulatedMedia", json!({ "features": features }));
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.cdp("Emulation.setDeviceMetricsOverride", size);
    }

    /// Keeps a picture of the page, if pictures are wanted: as much of it as is worth looking at.
    pub fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("GOAT_SCREENSHOTS") else {
            return;
        };
        let size =
            self.run("const e = document.documentElement; return [e.clientWidth, Math.min(e.scrollHeight, 1700)]");
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1 });
        let shot = self.cdp("Page.captureScreenshot", json!({ "captureBeyondViewport": true, "clip": clip }));
        let encoded = shot["data"].as_str().unwrap();
        let file = Path::new(&folder).join(name).with_extension("png");
        let mut base64 = Command::new("base64");
        let mut child =
            base64.arg("-d").stdin(Stdio::piped()).stdout(std::fs::File::create(file).unwrap()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(encoded.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// What the browser complained about since the last call, but of pages of its own.
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.post("se/log", json!({ "type": "browser" }));
        let entries = entries.as_array().unwrap().iter();
        entries
            .map(|entry| entry["message"].as_str().unwrap().into())
            .filter(|message: &String| !message.starts_with("chrome://"))
            .collect()
    }

    /// The accessibility rules that the page breaks, by axe-core; None if it is not installed.
    pub fn accessibility(&self, test: &str) -> Option<Vec<String>> {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("axe/node_modules/axe-core/axe.min.js");
        let Ok(axe) = std::fs::read_to_string(&file) else {
            skip(test, "no axe-core: tests/run installs it");
            return None;
        };
        // Past the page's own policy, which lets no such script in.
        self.cdp("Runtime.evaluate", json!({ "expression": axe }));
        let found = self.post(
            "execute/async",
            json!({ "script": "const done = arguments[0];
                axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] })
                    .then(r => done(r.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html + ' ' + n.failureSummary).join(' | '))), e => done(['' + e]));",
                "args": [] }),
        );
        let found = found.as_array().unwrap().iter();
        Some(found.map(|rule| rule.as_str().unwrap().into()).collect())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; the driver by itself would leave it running.
        let path = format!("/session/{}", self.session);
        let _ = webdriver(self.address, "DELETE", &path, &json!({}));
        self.driver.terminate();
    }
}
