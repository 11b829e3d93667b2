//! Every command with its words: what is parsed, helped with, completed and printed in the manual.

use super::{Call, Done, check, client, community, file, help, torrent, user};

/// An option: its name, what its value is ("" where it has none; words with | between them are all there are),
/// and what it does.
pub type Opt = (&'static str, &'static str, &'static str);

/// A command.
pub struct Command {
    /// Its one or two words.
    pub name: &'static str,
    /// What follows: `[X]` may be left out, `X...` may be repeated.
    pub arguments: &'static [&'static str],
    /// Its options, beside [`OPTIONS`].
    pub options: &'static [Opt],
    /// What it does, in one line.
    pub about: &'static str,
    /// Does it.
    pub run: fn(&Call) -> Done,
}

impl Command {
    /// Its words, as in `user add NAME [--admin]`.
    pub fn usage(&self) -> String {
        let options = self.options.iter().map(|(name, value, _)| match *value {
            "" => format!("[{name}]"),
            value => format!("[{name} {value}]"),
        });
        let words = std::iter::once(self.name.to_string());
        words.chain(self.arguments.iter().map(|word| word.to_string())).chain(options).collect::<Vec<_>>().join(" ")
    }
}

/// The command of this name.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// What goes with every command.
pub const OPTIONS: &[Opt] = &[("--config", "FILE", "instead of ~/.config/goat/config.json")];

const JSON: Opt = ("--json", "", "print one JSON document");

/// All of them, in the order of the help.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command { name: "run", arguments: &[], options: &[], run: community::run,
        about: "run the tracker; so does goat without any word" },
    Command { name: "check", arguments: &[], run: check::check,
        options: &[("--fix", "", "mend what goat can mend: permissions of files"), JSON],
        about: "check configuration, database, certificate, ports, clock and permissions" },
    Command { name: "stats", arguments: &[], options: &[JSON], run: community::stats,
        about: "the community at a glance" },
    Command { name: "user add", arguments: &["NAME"], run: user::add,
        options: &[("--torrent-limit", "N", "active on at most N torrents at a time; 0: any number"),
            ("--admin", "", "may see everything through the API"), JSON],
        about: "make a member, and show passkey and API key" },
    Command { name: "user list", arguments: &[], run: user::list,
        options: &[("--sort", "id|name|uploaded|downloaded|ratio", "the order"), ("--banned", "", "only those"), JSON],
        about: "members: what they were credited, what they do now" },
    Command { name: "user show", arguments: &["NAME"], options: &[JSON], run: user::show_one,
        about: "a member: totals, seed time, clients and addresses" },
    Command { name: "user ban", arguments: &["NAME"], run: user::ban,
        options: &[("--reason", "TEXT", "for other operators")],
        about: "shut a member out of all swarms" },
    Command { name: "user unban", arguments: &["NAME"], options: &[], run: user::unban,
        about: "let a member in again" },
    Command { name: "user remove", arguments: &["NAME"], options: &[], run: user::remove,
        about: "remove a member; what they moved stays on the torrents' accounts" },
    Command { name: "user passkey", arguments: &["NAME"], options: &[JSON], run: user::passkey,
        about: "give a member a new passkey; the old one is dead" },
    Command { name: "user key", arguments: &["NAME"], options: &[JSON], run: user::key,
        about: "give a member a new API key; the old one is dead" },
    Command { name: "user limit", arguments: &["NAME", "N"], options: &[], run: user::limit,
        about: "let a member be active on at most N torrents; 0: any number" },
    Command { name: "user credit", arguments: &["NAME"], run: user::credit,
        options: &[("--uploaded", "BYTES", "to add, such as 10GiB; with a minus to take away"),
            ("--downloaded", "BYTES", "the same")],
        about: "add to what a member was credited" },
    Command { name: "file add", arguments: &["FILE.torrent|HASH..."], run: file::add,
        options: &[("--private", "OUT.torrent", "write a copy with the private flag, and register that"),
            ("--public", "", "register it though it has no private flag"), JSON],
        about: "register and verify torrents" },
    Command { name: "file list", arguments: &[], run: file::list,
        options: &[("--pending", "", "only those that await approval"), ("--dead", "", "only those that nobody seeds"),
            ("--sort", "id|name|size|seeders|leechers|snatches|activity", "the order"), JSON],
        about: "torrents and their swarms" },
    Command { name: "file show", arguments: &["HASH"], options: &[JSON], run: file::show_one,
        about: "a torrent: its swarm, factors and totals" },
    Command { name: "file approve", arguments: &["[HASH]"], options: &[("--all", "", "all that wait")],
        run: file::approve, about: "verify a torrent that is registered" },
    Command { name: "file revoke", arguments: &["HASH"], options: &[], run: file::revoke,
        about: "take that approval back" },
    Command { name: "file remove", arguments: &["HASH"], options: &[], run: file::remove,
        about: "remove a torrent; what members moved of it stays theirs" },
    Command { name: "file free", arguments: &["HASH"], run: file::free,
        options: &[("--download", "PERCENT", "of what is downloaded; 0 if left out"),
            ("--upload", "PERCENT", "of what is uploaded; 100 if left out"), JSON],
        about: "credit so many percent of what moves from now on; freeleech unless said otherwise" },
    Command { name: "client list", arguments: &[], run: client::list,
        options: &[("--pending", "", "only those that await approval"), JSON],
        about: "clients, by the beginning of their User-Agent or peer id" },
    Command { name: "client approve", arguments: &["PREFIX"], options: &[], run: client::approve,
        about: "let in the clients whose User-Agent or peer id begins so" },
    Command { name: "client deny", arguments: &["PREFIX"], options: &[], run: client::deny,
        about: "take that approval back" },
    Command { name: "client remove", arguments: &["PREFIX"], options: &[], run: client::remove,
        about: "forget a client, so that it can be suggested again" },
    Command { name: "torrent", arguments: &["FILE.torrent"], run: torrent::copy,
        options: &[("--for", "NAME", "whose"), ("--out", "OUT.torrent", "where to"),
            ("--for-all", "DIR", "a copy for each member who is not banned, into this folder")],
        about: "write a member's copy of a torrent, with their announce URLs" },
    Command { name: "backup", arguments: &["FILE"], options: &[], run: community::backup,
        about: "copy the database into a file; the tracker may run" },
    Command { name: "restore", arguments: &["FILE"], options: &[], run: community::restore,
        about: "put a backup in the database's place; the tracker must not run" },
    Command { name: "import", arguments: &["FILE.csv"], options: &[], run: community::import,
        about: "bring members with their passkeys, or torrents, from another tracker" },
    Command { name: "help", arguments: &["[COMMAND...]"], run: help::help,
        options: &[("--man", "", "the manual page"), ("--bash", "", "completions for bash"),
            ("--zsh", "", "completions for zsh"), ("--fish", "", "completions for fish")],
        about: "explain goat, or one command" },
    Command { name: "--version", arguments: &[], options: &[], run: help::version, about: "the version of this goat" },
];
