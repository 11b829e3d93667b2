//! `goat help`: the help, the manual page and the completions, all made from the table of commands.

use std::fmt::Write;

use super::call::{Call, Command, Done, OPTIONS, Opt, find, take_command};
use super::output::print;

const TITLE: &str = "goat, a BitTorrent tracker for small private communities";

pub fn version(_: &Call) -> Done {
    print(&format!("goat {}\n", env!("CARGO_PKG_VERSION")))
}

pub fn help(call: &Call) -> Done {
    let (name, commands) = (call.arguments.join(" "), call.commands);
    let makers =
        [("--man", man as fn(&'static [Command]) -> String), ("--bash", bash), ("--zsh", zsh), ("--fish", fish)];
    if let Some((_, make)) = makers.iter().find(|(name, _)| call.on(name)) {
        return print(&make(commands));
    }
    if let Some(command) = find(commands, &name).filter(|_| !name.is_empty()) {
        return print(&one(command));
    }
    let family = format!("{name} ");
    let members: Vec<&Command> = commands.iter().filter(|command| command.name.starts_with(&family)).collect();
    if !members.is_empty() {
        return print(&lines(members));
    }
    if !name.is_empty() {
        return take_command(commands, &mut call.arguments.clone(), false).and(Err(call.wrong("COMMAND is none")));
    }
    let options = rows(OPTIONS.iter());
    let more = "`goat help COMMAND` explains a command and its options.\n";
    print(&format!("{TITLE}\n\n{}\n{options}\n{more}", lines(commands.iter().collect())))
}

/// A line for each command.
fn lines(commands: Vec<&Command>) -> String {
    let usage = |command: &Command| [&[command.name], command.arguments].concat().join(" ");
    let width = commands.iter().map(|command| usage(command).len()).max().unwrap_or(0);
    commands.iter().map(|command| format!("  goat {:<width$}  {}\n", usage(command), command.about)).collect()
}

/// Everything about one command.
fn one(command: &Command) -> String {
    let options = rows(command.options.iter().chain(OPTIONS));
    format!("goat {}\n\n{}\n\n{options}", command.usage(), command.about)
}

/// A line for each option.
fn rows<'a>(options: impl Iterator<Item = &'a Opt> + Clone) -> String {
    let words = |(name, value, _): &Opt| format!("{name} {value}").trim_end().to_string();
    let width = options.clone().map(|option| words(option).len()).max().unwrap_or(0);
    options.map(|option| format!("  {:<width$}  {}\n", words(option), option.2)).collect()
}

/// The manual page, for section 1.
fn man(commands: &'static [Command]) -> String {
    // No word of ours begins with a dot or an apostrophe, which would be commands.
    let roff = |text: &str| text.replace('\\', "\\e").replace('-', "\\-");
    let mut page = format!(".TH GOAT 1 \"\" \"goat {}\" \"User Commands\"\n", env!("CARGO_PKG_VERSION"));
    let _ = write!(page, ".SH NAME\ngoat \\- {}\n", TITLE.trim_start_matches("goat, "));
    page += ".SH SYNOPSIS\n.B goat\n[\\fICOMMAND\\fR] [\\fIOPTION\\fR]...\n.SH DESCRIPTION\n";
    page += "Without a command goat runs the tracker. All other commands work on its database, whether it runs or\n";
    page += "not; what they change a running tracker follows within 5 seconds. A member is meant by name or id, a\n";
    page += "torrent by its info hash, the beginning of that (4 digits or more), id or name.\n";
    page += "BYTES may have a unit: 10GiB, 1.5TB.\n.SH COMMANDS\n";
    for command in commands {
        let arguments = command.arguments.iter().map(|word| format!(" \\fI{}\\fR", roff(word)));
        let arguments: String = arguments.collect();
        let _ = write!(page, ".TP\n\\fB{}\\fR{arguments}\n{}.\n", roff(command.name), roff(command.about));
        for (name, value, about) in command.options {
            let value = if value.is_empty() { String::new() } else { format!(" \\fI{}\\fR", roff(value)) };
            let _ = write!(page, ".RS\n.TP\n\\fB{}\\fR{value}\n{}\n.RE\n", roff(name), roff(about));
        }
    }
    page += ".SH OPTIONS\n";
    for (name, value, about) in OPTIONS {
        let _ = write!(page, ".TP\n\\fB{}\\fR \\fI{value}\\fR\n{}\n", roff(name), roff(about));
    }
    page += ".SH EXIT STATUS\n0: done. 1: could not. 2: wrong words, or a wrong configuration; nothing was opened.\n";
    page += ".SH FILES\n.TP\n.I ~/.config/goat/config.json\nThe configuration, made at the first start; it explains itself.\n";
    page += ".TP\n.I ~/.config/goat/goat.db\nThe database, unless the configuration says otherwise.\n";
    page
}

/// The first words of commands, each once, with those that follow.
fn families(commands: &'static [Command]) -> Vec<(&'static str, Vec<&'static Command>)> {
    let mut families: Vec<(&str, Vec<&Command>)> = Vec::new();
    for command in commands {
        let first = command.name.split(' ').next().unwrap_or_default();
        match families.iter_mut().find(|(name, _)| *name == first) {
            Some((_, members)) => members.push(command),
            None => families.push((first, vec![command])),
        }
    }
    families
}

/// The second word of a command, if it has one.
fn second(command: &Command) -> Option<&'static str> {
    command.name.split_once(' ').map(|(_, second)| second)
}

/// What the shell may offer for a value: these words, or files.
enum Values {
    Words(String),
    Files,
    Unknown,
}

fn values(kind: &str) -> Values {
    match kind {
        kind if kind.contains("FILE") || kind.contains("OUT") || kind.contains("DIR") => Values::Files,
        kind if kind.contains('|') => Values::Words(kind.replace('|', " ")),
        _ => Values::Unknown,
    }
}

/// Whether a command takes files.
fn takes_files(command: &Command) -> bool {
    command.arguments.iter().any(|argument| matches!(values(argument), Values::Files))
}

fn bash(commands: &'static [Command]) -> String {
    let (families, mut words, mut cases) = (families(commands), String::new(), String::new());
    for (first, members) in &families {
        let seconds: Vec<&str> = members.iter().filter_map(|command| second(command)).collect();
        if !seconds.is_empty() {
            let _ = writeln!(
                words,
                "        {first}) [ \"$COMP_CWORD\" = 2 ] && words=\"{}\" || name+=\" ${{COMP_WORDS[2]}}\" ;;",
                seconds.join(" ")
            );
        }
    }
    for command in commands {
        for (option, kind, _) in command.options.iter().chain(OPTIONS) {
            match values(kind) {
                Values::Files => _ = writeln!(cases, "        \"{}:{option}\") files=1 ;;", command.name),
                Values::Words(list) => {
                    _ = writeln!(cases, "        \"{}:{option}\") words=\"{list}\" ;;", command.name)
                }
                Values::Unknown => {
                    if !kind.is_empty() {
                        let _ = writeln!(cases, "        \"{}:{option}\") return ;;", command.name);
                    }
                }
            }
        }
        let options: Vec<&str> = command.options.iter().chain(OPTIONS).map(|(name, ..)| *name).collect();
        let files = if takes_files(command) { "files=1 " } else { "" };
        let _ = writeln!(cases, "        \"{}:\"*) {files}words=\"{}\" ;;", command.name, options.join(" "));
    }
    let firsts: Vec<&str> = families.iter().map(|(first, _)| *first).collect();
    format!(
        "# Completions of goat for bash, made by `goat help --bash`.
_goat() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} name=${{COMP_WORDS[1]}} words= files=
    case \"$name\" in
        \"$cur\") [ \"$COMP_CWORD\" = 1 ] && words=\"{}\" ;;
{words}    esac
    [ -n \"$words\" ] || case \"$name:$prev\" in
{cases}    esac
    local IFS=$'\\n'
    COMPREPLY=($(IFS=' ' compgen -W \"$words\" -- \"$cur\"))
    [ -z \"$files\" ] || COMPREPLY+=($(compgen -f -- \"$cur\"))
}}
complete -o filenames -F _goat goat
",
        firsts.join(" ")
    )
}

/// In single quotes, for any shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn zsh(commands: &'static [Command]) -> String {
    let colons = |text: &str| text.replace(':', "\\:");
    let mut out =
        "#compdef goat\n# Completions of goat for zsh, made by `goat help --zsh`.\nlocal -a list\n".to_string();
    let families = families(commands);
    let describe = |out: &mut String, entries: Vec<(&str, &str)>| {
        let words = entries.iter().map(|(word, about)| quoted(&format!("{}:{}", colons(word), colons(about))));
        let _ = writeln!(out, "    list=({})\n    _describe command list", words.collect::<Vec<_>>().join(" "));
    };
    out += "if (( CURRENT == 2 )); then\n";
    let about = |(first, members): &(&'static str, Vec<&Command>)| match members[..] {
        [command] => (*first, command.about),
        _ => (*first, "and another word"),
    };
    describe(&mut out, families.iter().map(about).collect());
    for (first, members) in families.iter().filter(|(_, members)| members.len() > 1) {
        let _ = writeln!(out, "elif (( CURRENT == 3 )) && [[ $words[2] == {first} ]]; then");
        describe(&mut out, members.iter().filter_map(|c| Some((second(c)?, c.about))).collect());
    }
    out += "else\n    case \"$words[2] $words[3]\" in\n";
    for command in commands {
        let pattern = if second(command).is_some() { quoted(command.name) } else { format!("{}\\ *", command.name) };
        let _ = write!(out, "        {pattern}) _arguments");
        for (name, kind, about) in command.options.iter().chain(OPTIONS) {
            let about = colons(about);
            let value = match values(kind) {
                Values::Files => ":file:_files".to_string(),
                Values::Words(list) => format!(":word:({list})"),
                Values::Unknown if kind.is_empty() => String::new(),
                Values::Unknown => format!(":{}: ", colons(kind)),
            };
            let _ = write!(out, " {}", quoted(&format!("{name}[{about}]{value}")));
        }
        out += if takes_files(command) { " '*:file:_files' ;;\n" } else { " ;;\n" };
    }
    out + "    esac\nfi\n"
}

fn fish(commands: &'static [Command]) -> String {
    let mut out = "# Completions of goat for fish, made by `goat help --fish`.\ncomplete -c goat -f\n".to_string();
    for (first, members) in families(commands) {
        let about = if members.len() == 1 { members.first().map_or("", |c| c.about) } else { "and another word" };
        let _ = writeln!(out, "complete -c goat -n __fish_use_subcommand -a {first} -d {}", quoted(about));
        let seconds = members.iter().filter_map(|command| second(command)).collect::<Vec<_>>().join(" ");
        for command in &members {
            let mut when = format!("__fish_seen_subcommand_from {first}");
            if let Some(second) = second(command) {
                let _ = writeln!(
                    out,
                    "complete -c goat -n '{when}; and not __fish_seen_subcommand_from {seconds}' -a {second} -d {}",
                    quoted(command.about)
                );
                let _ = write!(when, "; and __fish_seen_subcommand_from {second}");
            }
            if takes_files(command) {
                let _ = writeln!(out, "complete -c goat -n '{when}' -F");
            }
            for (name, kind, about) in command.options.iter().chain(OPTIONS) {
                let value = match values(kind) {
                    Values::Files => " -r -F".to_string(),
                    Values::Words(list) => format!(" -x -a '{list}'"),
                    Values::Unknown if kind.is_empty() => String::new(),
                    Values::Unknown => " -x".into(),
                };
                let name = name.trim_start_matches("--");
                let _ = writeln!(out, "complete -c goat -n '{when}' -l {name}{value} -d {}", quoted(about));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::table::COMMANDS;

    #[test]
    fn the_manual_and_the_completions_in_res_are_those_of_this_goat() {
        for (file, made, option) in [
            ("goat.1", man(COMMANDS), "--man"),
            ("completions/goat.bash", bash(COMMANDS), "--bash"),
            ("completions/_goat", zsh(COMMANDS), "--zsh"),
            ("completions/goat.fish", fish(COMMANDS), "--fish"),
        ] {
            let path = format!("{}/res/{file}", env!("CARGO_MANIFEST_DIR"));
            let found = std::fs::read_to_string(path).unwrap_or_default();
            assert!(found == made, "res/{file} is old: goat help {option} >res/{file}");
        }
    }
}
