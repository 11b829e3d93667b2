//! Every command with its words, as clap reads and explains them. The manual page and the completions in `res/` are
//! made from the same declaration, by the test below.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser, ValueParser};
use clap::{Arg, ArgAction, Command, ValueHint, value_parser};

use super::call::{Call, Done, Failure};
use super::output::{self, print};
use super::{check, client, community, file, node, torrent, user};

pub type Run = fn(&Call) -> Done;

/// A command: its one or two words, what does it, and what clap knows of it.
pub struct Entry {
    pub name: &'static str,
    pub run: Run,
    command: Command,
}

const NOTES: &str = "\
Without a command goat runs the tracker. All other commands work on its database, whether it is running or not;
a running tracker picks up their changes within 5 seconds.

NAME is a member's name or id. HASH is a torrent's info hash, the beginning of it (4 digits or more), id or name.
BYTES may have a unit: 10GiB, 1.5TB. `--` ends the options: what follows may begin with a hyphen.

Exit status: 0: success. 1: failure. 2: wrong usage or an invalid configuration; nothing was opened.";

/// Commands that say nothing that a program could want.
const PLAIN: [&str; 3] = ["run", "backup", "help"];

fn entry(name: &'static str, run: Run, about: &'static str, arguments: impl IntoIterator<Item = Arg>) -> Entry {
    let json = flag("json", "print one JSON document");
    let command = Command::new(name.rsplit(' ').next().unwrap_or(name)).about(about).args(arguments);
    Entry { name, run, command: command.args((!PLAIN.contains(&name)).then_some(json)) }
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

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn force() -> Arg {
    flag("force", "overwrite a file that exists, whatever it is")
}

/// An option with a value, which may begin with a hyphen.
fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).allow_hyphen_values(true).help(help)
}

/// The order of a list: by a column's word, or another one that means the same.
fn sort(columns: &'static [&'static str]) -> Arg {
    let values = columns.iter().map(|words| {
        let (name, aliases) = words.split_once('|').unwrap_or((words, ""));
        PossibleValue::new(name).aliases((!aliases.is_empty()).then_some(aliases))
    });
    let column = |word: String| {
        let words = columns.iter().find(|words| words.split('|').any(|known| known == word));
        words.and_then(|words| words.split('|').next()).map_or(word.clone(), String::from)
    };
    let values = PossibleValuesParser::new(values.collect::<Vec<_>>());
    option("sort", "COLUMN", "sort by this column").value_parser(values.map(column))
}

fn config() -> Arg {
    option("config", "FILE", "instead of ~/.config/goat/config.json").value_hint(ValueHint::FilePath)
}

fn text(least: usize, most: usize) -> ValueParser {
    ValueParser::new(move |text: &str| match text.chars().count() {
        length if (least..=most).contains(&length) => Ok(text.to_string()),
        _ => Err(format!("must have {least} to {most} characters")),
    })
}

pub fn all() -> impl Iterator<Item = Entry> {
    users_and_tracker().into_iter().chain(files()).chain(clients()).chain(community())
}

fn users_and_tracker() -> [Entry; 16] {
    let number = || value_parser!(u32);
    let bytes = |name, help| option(name, "BYTES", help).value_parser(output::bytes);
    let fix = flag("fix", "fix what goat can fix: permissions of files, a damaged journal");
    let added = [
        word("NAME", "the new member's name"),
        option("torrent-limit", "N", "active on at most N torrents at a time; 0: any number").value_parser(number()),
        flag("admin", "make them an administrator, who may see everything through the API"),
    ];
    let listed = [sort(&["id", "name", "uploaded", "downloaded", "ratio"]), flag("banned", "only banned members")];
    let secrets = flag("secrets", "passkey and announce URLs as well");
    let reason = option("reason", "TEXT", "what the member is told").value_parser(text(0, 255));
    let on_off = word("on|off", "whether they are one").value_parser(["on", "off"]);
    let count = word("N", "how many torrents").value_parser(number());
    let invited = word("N", "how many, beside those who are invited already").value_parser(value_parser!(u16));
    let uploaded = bytes("uploaded", "what to add to uploads, such as 10GiB; negative to take away");
    let credited =
        [member(), uploaded.required_unless_present("downloaded"), bytes("downloaded", "the same for downloads")];
    [
        entry("run", community::run, "run the tracker; so does goat without a command", []),
        entry("check", check::check, "check configuration, database, certificate, ports, clock and permissions", [fix]),
        entry("stats", community::stats, "show the community at a glance", []),
        entry("user add", user::add, "add a member, and show their passkey, API key and a link to sign in with", added),
        entry("user list", user::list, "list members, with totals and current activity", listed),
        entry("user show", user::show_one, "show a member: totals, clients and addresses", [member(), secrets]),
        entry("user ban", user::ban, "ban a member from all swarms", [member(), reason]),
        entry("user admin", user::admin, "make a member an administrator, or no longer one", [member(), on_off]),
        entry("user rename", user::rename, "give a member another name", [member(), word("NEW", "the new name")]),
        entry("user unban", user::unban, "lift the ban of a member", [member()]),
        entry("user remove", user::remove, "remove a member; the totals of torrents stay as they are", [member()]),
        entry("user passkey", user::passkey, "give a member a new passkey; the old one stops working", [member()]),
        entry("user key", user::key, "give a member a new API key; the old one stops working", [member()]),
        entry("user limit", user::limit, "limit a member to N active torrents; 0: any number", [member(), count]),
        entry("user invitations", user::invitations, "let a member invite N others", [member(), invited]),
        entry("user credit", user::credit, "add to, or take from, the credited totals of a member", credited),
    ]
}

fn files() -> [Entry; 8] {
    const PENDING: &str = "all torrents that await approval";
    let or = |option| hash().required(false).required_unless_present(option);
    let percent = |name, help| option(name, "PERCENT", help).value_parser(value_parser!(u16).range(0..=1000));
    let private = option("private", "OUT.torrent", "write a copy with the private flag, and register that copy");
    let added = [
        path("FILE.torrent|HASH", "torrents, or their info hashes").num_args(1..).allow_hyphen_values(false),
        private.value_hint(ValueHint::FilePath),
        flag("public", "register it even without the private flag").conflicts_with("private"),
        force().requires("private"),
    ];
    let listed = [
        flag("pending", "only those awaiting approval").conflicts_with("dead"),
        flag("dead", "only those without seeders"),
        sort(&["id", "name", "size", "seeders", "leechers", "completed|snatches", "last-active|activity"]),
    ];
    let approved = [or("all"), flag("all", PENDING).conflicts_with("HASH")];
    let refused = option("reason", "TEXT", "for the member who sent it").value_parser(text(0, 255));
    let removed = [
        or("pending"),
        flag("pending", PENDING).conflicts_with("HASH"),
        option("by", "NAME", "only those that this member announced first").requires("pending"),
    ];
    let hours = option("all", "HOURS", "all torrents, for so many hours; 0 ends that").value_parser(value_parser!(u32));
    let freed = [
        or("all"),
        hours.conflicts_with("HASH"),
        percent("download", "of downloads; default 0"),
        percent("upload", "of uploads; default 100"),
    ];
    [
        entry("file add", file::add, "register and verify torrents", added),
        entry("file list", file::list, "list torrents and their swarms", listed),
        entry("file show", file::show_one, "show a torrent: its swarm, factors and totals", [hash()]),
        entry("file approve", file::approve, "approve a torrent that is registered", approved),
        entry("file rename", file::rename, "give a torrent another name", [hash(), word("NEW", "the new name")]),
        entry("file revoke", file::revoke, "withdraw the approval of a torrent, or refuse it", [hash(), refused]),
        entry("file remove", file::remove, "remove a torrent; members keep their totals", removed),
        entry("file free", file::free, "set the percentages credited from now on; freeleech by default", freed),
    ]
}

fn clients() -> [Entry; 4] {
    let prefix = || word("PREFIX", "the beginning of a User-Agent or peer id").value_parser(text(1, 128));
    let pending = flag("pending", "only those awaiting approval");
    let allow = "allow clients whose User-Agent or peer id begins with PREFIX";
    [
        entry("client list", client::list, "list clients, by the beginning of their User-Agent or peer id", [pending]),
        entry("client approve", client::approve, allow, [prefix()]),
        entry("client deny", client::deny, "withdraw the approval of clients", [prefix()]),
        entry("client remove", client::remove, "forget a client, so that it can be suggested again", [prefix()]),
    ]
}

fn community() -> [Entry; 7] {
    let out = option("out", "OUT.torrent", "where to write the copy, or - for stdout; default TORRENT@NAME.torrent");
    let everybody = option("for-all", "DIR", "write a copy for each member who is not banned into this folder");
    let copied = [
        path("FILE.torrent|HASH", "the torrent, or what names one that is registered from its file"),
        option("for", "NAME", "the member").required_unless_present("for-all"),
        out.requires("for").value_hint(ValueHint::FilePath),
        everybody.conflicts_with_all(["for", "out"]).value_hint(ValueHint::DirPath),
        force(),
    ];
    let backup = || path("FILE", "the backup");
    let keys = option("keys", "OUT.csv", "make API keys for the members, and write them into this new file");
    let imported =
        [path("FILE.csv", "a table whose first line names the columns"), keys.value_hint(ValueHint::FilePath)];
    let explained = [
        Arg::new("COMMAND").num_args(0..).help("the command"),
        flag("man", "print the manual page"),
        flag("bash", "print completions for bash"),
        flag("zsh", "print completions for zsh"),
        flag("fish", "print completions for fish"),
    ];
    let replace = "replace the database with a backup; the tracker must not be running";
    [
        entry("node list", node::list, "list the goats that are one tracker by Redis, and what they do", []),
        entry("torrent", torrent::copy, "write a member's copy of a torrent, with their announce URLs", copied),
        entry("log", community::log, "list what administrators did", []),
        entry("backup", community::backup, "copy the database into a file; the tracker may be running", [backup()]),
        entry("restore", community::restore, replace, [backup()]),
        entry("import", community::import, "import members with passkeys, or torrents, from another tracker", imported),
        entry("help", help, "explain goat, or one command", explained),
    ]
}

pub fn goat() -> Command {
    let version = flag("version", "print the version").short('V');
    let goat = Command::new("goat").about("a BitTorrent tracker for small private communities");
    let mut goat = goat.after_help(NOTES).args([config(), version]);
    let families =
        [("user", "members"), ("file", "torrents"), ("client", "clients that are allowed"), ("node", "goats")];
    for (name, about) in families {
        let family = Command::new(name).about(about).arg(config()).disable_help_subcommand(true);
        goat = goat.subcommand(family.subcommand_required(true).subcommand_value_name("COMMAND"));
    }
    for Entry { name, command, .. } in all() {
        let command = command.arg(config());
        goat = match name.split_once(' ') {
            Some((family, _)) => goat.mut_subcommand(family, |family| family.subcommand(command)),
            None => goat.subcommand(command),
        };
    }
    let mut goat = goat.disable_help_subcommand(true).subcommand_value_name("COMMAND");
    goat.build();
    let line = |entry: Entry| {
        let command = find(&mut goat, entry.name)?;
        let usage = command.render_usage().to_string().replace("Usage:", " ").replace(" [OPTIONS]", "");
        Some(format!("{usage:<38}  {}\n", command.get_about()?))
    };
    let list: String = all().filter_map(line).collect();
    goat.help_template(format!(
        "goat, {{about}}\n\n{{usage-heading}} {{usage}}\n\nCommands:\n{list}\nOptions:\n{{options}}{{after-help}}"
    ))
}

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
        Some(command) => print(command.render_help().to_string()),
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
            .TP\n.I ~/.config/goat/goat.db\nThe database, unless the configuration says otherwise.\n\
            .TP\n.I /etc/goat/config.json\nThe configuration of the service, which root and the members of the group goat\n\
            work on where they have none of their own; its database is in /var/lib/goat.\n"
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
