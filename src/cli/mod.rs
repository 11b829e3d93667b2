//! The command line: what an operator does to members, torrents, clients and the tracker itself.
//!
//! `commands` declares the words of every command; clap reads and explains them.
//! Results go to stdout, errors to stderr. Exit status: 0 done, 1 could not, 2 wrong usage or a wrong
//! configuration.

mod call;
mod check;
mod client;
mod commands;
mod community;
mod file;
mod node;
mod output;
mod running;
mod torrent;
mod user;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::error::{ContextKind, ContextValue, ErrorKind};

use call::{Call, Done, Failure};

use crate::config::{Problem, nearest};
use crate::log::words;

pub fn main(given: impl Iterator<Item = OsString>) -> u8 {
    let wrong = |word| Failure::Usage(format!("{word:?} is not UTF-8: rename it (`goat help` lists the commands)"));
    let given = given.map(|word| word.into_string().map_err(wrong)).collect::<Result<Vec<_>, _>>();
    match given.and_then(|given| run(&given)) {
        Ok(()) => 0,
        Err(Failure::Failed(message)) => complain(message.lines().map(|line| format!("goat: {line}")), 1),
        Err(Failure::Usage(message)) => complain([format!("goat: {message}")], 2),
        Err(Failure::Config(problems)) => complain(problems.iter().map(Problem::to_string), 2),
    }
}

fn complain(lines: impl IntoIterator<Item = String>, status: u8) -> u8 {
    for line in lines {
        let _ = writeln!(io::stderr(), "{}", words(&line)); // There is no place left to complain about that.
    }
    status
}

/// Reads the words, before anything is opened, and does what they say.
fn run(words: &[String]) -> Done {
    let goat = ["goat".to_string()];
    let mut matches = match commands::goat().try_get_matches_from(goat.iter().chain(words)) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => return output::print(error.to_string()),
        Err(error) => return Err(Failure::Usage(explain(&error, words))),
    };
    if matches.get_flag("version") && matches.subcommand().is_none() {
        return output::print(concat!("goat ", env!("GOAT_VERSION"), "\n"));
    }
    // The option may stand behind any word of the command.
    let mut configs = Vec::from_iter(matches.remove_one::<String>("config"));
    let mut name = String::new();
    while let Some((word, inner)) = matches.remove_subcommand() {
        name = format!("{name} {word}");
        matches = inner;
        configs.extend(matches.remove_one::<String>("config"));
    }
    let name = name.trim_start();
    if configs.len() > 1 {
        return Err(Failure::Usage(format!("--config is given twice {}", hint(name))));
    }
    let entry = commands::all().find(|entry| entry.name == name);
    let call = Call { name: name.into(), matches, config: configs.pop() };
    entry.map_or(community::run as commands::Run, |entry| entry.run)(&call)
}

fn hint(name: &str) -> String {
    match name {
        "" => "(`goat help` lists the commands)".into(),
        _ => format!("(`goat help {name}` explains it)"),
    }
}

/// What is wrong, the usage of the command that was meant, and where it is explained.
fn usage(message: &str, name: &str) -> String {
    let usage = commands::find(&mut commands::goat(), name).map(|command| command.render_usage().to_string());
    let usage = usage.unwrap_or_default().replace("Usage:", "usage:");
    format!("{message}; {usage} {}", hint(name))
}

/// One line of what clap says in several.
fn explain(error: &clap::Error, words: &[String]) -> String {
    let unknown_word = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) => Some(word),
        _ => None,
    };
    let mut name = String::new();
    for word in words.iter().take_while(|word| Some(*word) != unknown_word) {
        let longer = format!("{name} {word}");
        if commands::find(&mut commands::goat(), &longer).is_some() {
            name = longer.trim_start().into();
        }
    }
    if let Some(word) = unknown_word {
        let rest = words.iter().skip_while(|other| *other != word).take(2).filter(|word| !word.starts_with('-'));
        return unknown(&rest.fold(name, |said, word| said + " " + word));
    }
    let text = error.to_string();
    let mut paragraphs = text.split("\n\n").map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let mut said = paragraphs.next().unwrap_or_default().trim_start_matches("error: ").to_string();
    for paragraph in paragraphs {
        said += &paragraph.strip_prefix("tip: ").map_or(String::new(), |tip| format!(": {tip}"));
    }
    usage(&said, &name)
}

/// Commands that take something away, which nobody shall run by a slip.
const DESTRUCTIVE: [&str; 7] = ["remove", "ban", "restore", "revoke", "deny", "passkey", "key"];

fn unknown(words: &str) -> String {
    let mut words = words.split_whitespace();
    let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let all: Vec<&str> = commands::all().map(|entry| entry.name).collect();
    let members: Vec<&str> = all.iter().filter_map(|name| name.strip_prefix(first)?.strip_prefix(' ')).collect();
    // A word that lacks its family names what there is, whatever that does.
    let lacking = all.iter().filter(|name| name.split_once(' ').is_some_and(|(_, last)| last == first));
    let lacking: Vec<String> = lacking.map(|name| format!("goat {name}")).collect();
    let advice = if !lacking.is_empty() {
        format!("; usage: {}", lacking.join(", "))
    } else if let Some(meant) = meant(&all, first, second) {
        format!(": did you mean `goat {meant}`?")
    } else if !members.is_empty() {
        format!("; the commands of {first} are {}", members.join(", "))
    } else {
        String::new()
    };
    let is_known = all.contains(&first) || !members.is_empty();
    let name = if is_known { format!("{first} {second}") } else { first.into() };
    format!("there is no command `{}`{advice} (`goat help` lists the commands)", name.trim_end())
}

/// The command or family that was meant, if it is one that does no harm.
fn meant(all: &[&str], first: &str, second: &str) -> Option<String> {
    let harmless = |word: &&str| !DESTRUCTIVE.contains(word);
    let pairs: Vec<(&str, &str)> = all.iter().filter_map(|name| name.split_once(' ')).collect();
    if let Some(near) = nearest(first, all.iter().filter_map(|name| name.split(' ').next())).filter(harmless) {
        let members = pairs.iter().filter(|(family, _)| *family == near);
        let member = nearest(second, members.map(|(_, last)| *last)).filter(harmless);
        let alone = (near != first).then(|| near.to_string());
        return member.map(|member| format!("{near} {member}")).or(alone);
    }
    let last = nearest(first, pairs.iter().map(|(_, last)| *last)).filter(harmless)?;
    pairs.iter().find(|(_, word)| *word == last).map(|(family, _)| format!("{family} {last}"))
}
