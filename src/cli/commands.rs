//! Every command with its words, as clap reads and explains them. The manual page and the completions in `res/` are
//! made from the same declaration, by the test below.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser, ValueParser};
use clap::{Arg, ArgAction, Command, ValueHint, value_parser};

use super::call::{Call, Done, Failure};
use super::output::{self, print};
use super::{check, client, community, file, torrent, user};

/// A command: its one or two words, what does it, and what clap knows of it.
pub struct Entry {
    pub name: &'static str,
    pub run: fn(&Call) -> Done,
    command: Command,
}

const TITLE: &str = "a BitTorrent tracker for small private communities";

const NOTES: &str = "\
Without a command goat runs the tracker. All other commands work on its database, whether it runs or not; a running
tracker follows what they change within 5 seconds.

NAME is a member's name or id. HASH is a torrent's info hash, the beginning of it (4 digits or more), id or name.
BYTES may have a unit: 10GiB, 1.5TB. `--` ends the options: what follows may begin with a hyphen.

Exit status: 0: done. 1: it could not be done. 2: wrong usage or a wrong configuration, and nothing was opened.";

fn entry(name: &'static str, run: fn(&Call) -> Done, about: &'static str, arguments: Vec<Arg>) -> Entry {
    let word = name.rsplit(' ').next().unwrap_or(name);
    Entry { name, run, command: Command::new(word).about(about).args(arguments) }
}

/// An argument without a name of its own, which may begin with a hyphen, as peer ids do.
fn word(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).required(true).allow_hyphen_values(true).help(help)
}

fn member() -> Arg {
    word("NAME", "the member's name or id")
}

fn hash() -> Arg {
    word("HASH", "the torrent's info hash, the beginning of it, id or name")
}

fn path(name: &'static str, help: &'static str) -> Arg {
    word(name, help).value_hint(ValueHint::FilePath)
}

/// An option without a value.
fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn json() -> Arg {
    flag("json", "print one JSON document")
}

fn force() -> Arg {
    flag("force", "replace what is there, whatever it is")
}

/// An option with a value, which may begin with a hyphen.
fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).allow_hyphen_values(true).help(help)
}

/// The order of a list: by the words of its columns, each with others that mean the same.
fn sort(words: &'static [&'static [&'static str]]) -> Arg {
    let values = words.iter().filter_map(|names| {
        let (name, aliases) = names.split_first()?;
        Some(PossibleValue::new(*name).aliases(aliases.iter().copied()))
    });
    let column = |word: String| {
        let names = words.iter().find(|names| names.contains(&word.as_str()));
        names.and_then(|names| names.first()).map_or(word, |name| name.to_string())
    };
    let values = PossibleValuesParser::new(values.collect::<Vec<_>>());
    option("sort", "COLUMN", "the order").value_parser(values.map(column))
}

fn config() -> Arg {
    option("config", "FILE", "instead of ~/.config/goat/config.json").value_hint(ValueHint::FilePath)
}

/// Text of at most so many characters.
fn text(least: usize, most: usize) -> ValueParser {
    ValueParser::new(move |text: &str| match text.chars().count() {
        length if (least..=most).contains(&length) => Ok(text.to_string()),
        _ => Err(format!("must have {least} to {most} characters")),
    })
}

/// All commands, in the order of the help.
pub fn all() -> Vec<Entry> {
    let mut all = vec![
        entry("run", community::run, "run the tracker; so does goat without a command", vec![]),
        entry(
            "check",
            check::check,
            "check configuration, database, certificate, ports, clock and permissions",
            vec![flag("fix", "mend what goat can mend: permissions of files, a damaged journal"), json()],
        ),
        entry("stats", community::stats, "show the community at a glance", vec![json()]),
    ];
    all.extend(users());
    all.extend(files());
    all.extend(clients());
    all.extend([
        entry(
            "torrent",
            torrent::copy,
            "write a member's copy of a torrent, with their announce URLs",
            vec![
                path("FILE.torrent", "the torrent"),
                option("for", "NAME", "the member").required_unless_present("for-all"),
                option("out", "OUT.torrent", "the copy, or - for stdout; TORRENT@NAME.torrent if left out")
                    .requires("for")
                    .value_hint(ValueHint::FilePath),
                option("for-all", "DIR", "write a copy for each member who is not banned into this folder")
                    .conflicts_with_all(["for", "out"])
                    .value_hint(ValueHint::DirPath),
                force(),
                json(),
            ],
        ),
        entry(
            "backup",
            community::backup,
            "copy the database into a file; the tracker may run",
            vec![path("FILE", "the backup")],
        ),
        entry(
            "restore",
            community::restore,
            "put a backup in the database's place; the tracker must not run",
            vec![path("FILE", "the backup"), json()],
        ),
        entry(
            "import",
            community::import,
            "import members with their passkeys, or torrents, from another tracker",
            vec![path("FILE.csv", "a table whose first line names the columns"), json()],
        ),
        entry(
            "help",
            help,
            "explain goat, or one command",
            vec![
                Arg::new("COMMAND").num_args(0..).help("the command"),
                flag("man", "print the manual page"),
                flag("bash", "print completions for bash"),
                flag("zsh", "print completions for zsh"),
                flag("fish", "print completions for fish"),
            ],
        ),
    ]);
    all
}

fn users() -> Vec<Entry> {
    let limit = || ValueParser::from(value_parser!(u32));
    let sorted = sort(&[&["id"], &["name"], &["uploaded"], &["downloaded"], &["ratio"]]);
    let bytes = |name, help| option(name, "BYTES", help).value_parser(output::bytes);
    vec![
        entry(
            "user add",
            user::add,
            "make a member, and show passkey and API key",
            vec![
                word("NAME", "the new member's name"),
                option("torrent-limit", "N", "active on at most N torrents at a time; 0: any number")
                    .value_parser(limit()),
                flag("admin", "may see and change everything through the API"),
                json(),
            ],
        ),
        entry(
            "user list",
            user::list,
            "list members: what they were credited, what they do now",
            vec![sorted, flag("banned", "only those who are banned"), json()],
        ),
        entry(
            "user show",
            user::show_one,
            "show a member: totals, seed time, clients and addresses",
            vec![member(), flag("secrets", "passkey and announce URLs, too"), json()],
        ),
        entry(
            "user ban",
            user::ban,
            "shut a member out of all swarms",
            vec![member(), option("reason", "TEXT", "for other operators").value_parser(text(0, 255)), json()],
        ),
        entry(
            "user admin",
            user::admin,
            "make a member an administrator, or take that back",
            vec![member(), word("on|off", "which").value_parser(["on", "off"]), json()],
        ),
        entry(
            "user rename",
            user::rename,
            "give a member another name",
            vec![member(), word("NEW", "the new name"), json()],
        ),
        entry("user unban", user::unban, "let a member in again", vec![member(), json()]),
        entry(
            "user remove",
            user::remove,
            "remove a member; what they moved stays on the torrents' accounts",
            vec![member(), json()],
        ),
        entry(
            "user passkey",
            user::passkey,
            "give a member a new passkey; the old one is dead",
            vec![member(), json()],
        ),
        entry("user key", user::key, "give a member a new API key; the old one is dead", vec![member(), json()]),
        entry(
            "user limit",
            user::limit,
            "let a member be active on at most N torrents; 0: any number",
            vec![member(), word("N", "how many torrents").value_parser(limit()), json()],
        ),
        entry(
            "user credit",
            user::credit,
            "add to what a member was credited",
            vec![
                member(),
                bytes("uploaded", "to add, such as 10GiB; with a minus to take away")
                    .required_unless_present("downloaded"),
                bytes("downloaded", "the same"),
                json(),
            ],
        ),
    ]
}

fn files() -> Vec<Entry> {
    let pending = || flag("pending", "only those that await approval");
    let percent = |name, help| option(name, "PERCENT", help).value_parser(value_parser!(u16).range(0..=1000));
    let sorted = sort(&[
        &["id"],
        &["name"],
        &["size"],
        &["seeders"],
        &["leechers"],
        &["completed", "snatches"],
        &["last-active", "activity"],
    ]);
    vec![
        entry(
            "file add",
            file::add,
            "register and verify torrents",
            vec![
                path("FILE.torrent|HASH", "torrents, or their info hashes").num_args(1..),
                option("private", "OUT.torrent", "write a copy with the private flag, and register that")
                    .value_hint(ValueHint::FilePath),
                flag("public", "register it though it has no private flag").conflicts_with("private"),
                force().requires("private"),
                json(),
            ],
        ),
        entry(
            "file list",
            file::list,
            "list torrents and their swarms",
            vec![pending().conflicts_with("dead"), flag("dead", "only those that nobody seeds"), sorted, json()],
        ),
        entry("file show", file::show_one, "show a torrent: its swarm, factors and totals", vec![hash(), json()]),
        entry(
            "file approve",
            file::approve,
            "verify a torrent that is registered",
            vec![
                hash().required(false).required_unless_present("all"),
                flag("all", "all that await approval").conflicts_with("HASH"),
                json(),
            ],
        ),
        entry(
            "file rename",
            file::rename,
            "give a torrent another name",
            vec![hash(), word("NAME", "the new name"), json()],
        ),
        entry("file revoke", file::revoke, "take that approval back", vec![hash(), json()]),
        entry(
            "file remove",
            file::remove,
            "remove a torrent; what members moved of it stays theirs",
            vec![
                hash().required(false).required_unless_present("pending"),
                flag("pending", "all that await approval").conflicts_with("HASH"),
                option("by", "NAME", "of them, those that this member announced").requires("pending"),
                json(),
            ],
        ),
        entry(
            "file free",
            file::free,
            "credit so many percent of what moves from now on; freeleech unless said otherwise",
            vec![
                hash(),
                percent("download", "of what is downloaded; 0 if left out"),
                percent("upload", "of what is uploaded; 100 if left out"),
                json(),
            ],
        ),
    ]
}

fn clients() -> Vec<Entry> {
    let prefix = || word("PREFIX", "the beginning of a User-Agent or peer id").value_parser(text(1, 128));
    vec![
        entry(
            "client list",
            client::list,
            "list clients, by the beginning of their User-Agent or peer id",
            vec![flag("pending", "only those that await approval"), json()],
        ),
        entry(
            "client approve",
            client::approve,
            "let in the clients whose User-Agent or peer id begins so",
            vec![prefix(), json()],
        ),
        entry("client deny", client::deny, "take that approval back", vec![prefix(), json()]),
        entry(
            "client remove",
            client::remove,
            "forget a client, so that it can be suggested again",
            vec![prefix(), json()],
        ),
    ]
}

/// goat as clap knows it.
pub fn goat() -> Command {
    let version = flag("version", "print the version").short('V');
    let mut goat = Command::new("goat").about(TITLE).after_help(NOTES).args([config(), version]);
    for (name, about) in [("user", "members"), ("file", "torrents"), ("client", "clients that are let in")] {
        let family = Command::new(name).about(about).arg(config()).disable_help_subcommand(true);
        goat = goat.subcommand(family.subcommand_required(true).subcommand_value_name("COMMAND"));
    }
    let mut listed = Vec::new();
    for Entry { name, command, .. } in all() {
        listed.push((name, command.get_about().map(ToString::to_string).unwrap_or_default()));
        let command = command.arg(config());
        goat = match name.split_once(' ') {
            Some((family, _)) => goat.mut_subcommand(family, |family| family.subcommand(command)),
            None => goat.subcommand(command),
        };
    }
    let mut goat = goat.disable_help_subcommand(true).subcommand_value_name("COMMAND");
    goat.build();
    for (name, about) in &mut listed {
        let usage = find(&mut goat, name).map(|command| command.render_usage().to_string()).unwrap_or_default();
        *about = format!("{:<38}  {about}\n", usage.replace("Usage:", " ").replace(" [OPTIONS]", ""));
    }
    let list: String = listed.into_iter().map(|(_, line)| line).collect();
    goat.help_template(format!(
        "goat, {{about}}\n\n{{usage-heading}} {{usage}}\n\nCommands:\n{list}\nOptions:\n{{options}}{{after-help}}"
    ))
}

/// The command of this name.
pub fn find<'a>(goat: &'a mut Command, name: &str) -> Option<&'a mut Command> {
    name.split_whitespace().try_fold(goat, |command, word| command.find_subcommand_mut(word))
}

pub fn help(call: &Call) -> Done {
    let documents = [
        ("man", include_str!("../../res/goat.1")),
        ("bash", include_str!("../../res/completions/goat.bash")),
        ("zsh", include_str!("../../res/completions/_goat")),
        ("fish", include_str!("../../res/completions/goat.fish")),
    ];
    if let Some((_, document)) = documents.iter().find(|(name, _)| call.on(name)) {
        return print(document);
    }
    let name = call.words("COMMAND").join(" ");
    match find(&mut goat(), &name) {
        Some(command) => print(&command.render_help().to_string()),
        None => Err(Failure::Usage(super::unknown(&name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap_complete::{Shell, generate};
    use clap_mangen::Man;
    use std::{fs, path::Path};

    /// One page for all commands; clap would make one for each.
    fn manual() -> String {
        const QUOTES: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";
        let mut page = Vec::new();
        let man =
            Man::new(goat()).title("GOAT").source(concat!("goat ", env!("CARGO_PKG_VERSION"))).manual("User Commands");
        man.render_title(&mut page).unwrap();
        man.render_name_section(&mut page).unwrap();
        man.render_synopsis_section(&mut page).unwrap();
        man.render_extra_section(&mut page).unwrap();
        man.render_options_section(&mut page).unwrap();
        page.extend(b".SH COMMANDS\n");
        for Entry { name, command, .. } in all() {
            let man = Man::new(command.bin_name(format!("goat {name}")).disable_help_flag(true));
            page.extend(format!(".SS \"goat {name}\"\n").bytes());
            man.render_synopsis_section(&mut page).unwrap();
            man.render_description_section(&mut page).unwrap();
            man.render_options_section(&mut page).unwrap();
        }
        let page = String::from_utf8(page).unwrap().replace(QUOTES, "").replace(".SH EXTRA", ".SH DESCRIPTION");
        let (head, commands) = page.split_once(".SH COMMANDS\n").unwrap();
        let commands = commands.replace(".SH SYNOPSIS\n", "").replace(".SH DESCRIPTION\n", ".PP\n");
        let commands = commands.replace(".SH OPTIONS\n", "");
        format!(
            "{QUOTES}{head}.SH COMMANDS\n{commands}.SH FILES\n.TP\n.I ~/.config/goat/config.json\n\
            The configuration, made by the first \\fBgoat run\\fR; it explains itself.\n\
            .TP\n.I ~/.config/goat/goat.db\nThe database, unless the configuration says otherwise.\n"
        )
    }

    fn completions(shell: Shell) -> String {
        let mut made = Vec::new();
        generate(shell, &mut goat(), "goat", &mut made);
        String::from_utf8(made).unwrap()
    }

    #[test]
    fn the_manual_and_the_completions_in_res_are_those_of_this_goat() {
        let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp/res");
        fs::create_dir_all(made.join("completions")).unwrap();
        let mut old = Vec::new();
        for (file, text) in [
            ("goat.1", manual()),
            ("completions/goat.bash", completions(Shell::Bash)),
            ("completions/_goat", completions(Shell::Zsh)),
            ("completions/goat.fish", completions(Shell::Fish)),
        ] {
            let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("res").join(file);
            if fs::read_to_string(found).unwrap_or_default() != text {
                fs::write(made.join(file), text).unwrap();
                old.push(file);
            }
        }
        assert!(old.is_empty(), "{old:?} are old: copy them from {} to res", made.display());
    }

    #[test]
    fn the_declaration_of_the_commands_holds_what_clap_asks_of_it() {
        goat().debug_assert();
    }
}
