//! The command line: what an operator does to members, torrents, clients and the tracker itself.
//!
//! The words of every command stand in `table`; help, completions and the manual page are made from it.
//! Results go to stdout, errors to stderr. Exit status: 0 done, 1 could not, 2 wrong words or a wrong
//! configuration.

mod call;
mod check;
mod client;
mod community;
mod file;
mod help;
mod output;
mod table;
mod torrent;
mod user;

use std::ffi::OsString;
use std::io::{self, Write};

use call::{Call, Failure, OPTIONS, find, take_command};
use table::COMMANDS;

use crate::config::Problem;
use crate::log::clean;

/// Does what the command line says and returns the exit status.
pub fn main(words: impl Iterator<Item = OsString>) -> u8 {
    let wrong = |word| Failure::Words(format!("{word:?} is not UTF-8: rename it (`goat help` lists the commands)"));
    let words = words.map(|word| word.into_string().map_err(wrong)).collect::<Result<_, _>>();
    match words.and_then(parse).and_then(|call| (call.command.run)(&call)) {
        Ok(()) => 0,
        Err(Failure::Could(message)) => {
            complain(&message.lines().map(|line| format!("goat: {}", clean(line))).collect::<Vec<_>>(), 1)
        }
        Err(Failure::Words(message)) => complain(&[format!("goat: {}", clean(&message))], 2),
        Err(Failure::Config(problems)) => complain(&problems.iter().map(Problem::to_string).collect::<Vec<_>>(), 2),
    }
}

fn complain(lines: &[String], status: u8) -> u8 {
    for line in lines {
        let _ = writeln!(io::stderr(), "{line}"); // There is no place left to complain about that.
    }
    status
}

/// Finds the command, and judges its words before anything is opened.
fn parse(mut words: Vec<String>) -> Result<Call, Failure> {
    let mut options = Vec::new();
    // Goes with every command, and may come before it.
    while let Some(at) = words.iter().take_while(|word| *word != "--").position(|word| word == "--config") {
        words.remove(at);
        if at == words.len() {
            return Err(Failure::Words("--config wants a FILE (`goat help` lists the commands)".into()));
        }
        if !options.is_empty() {
            return Err(Failure::Words("--config is given twice (`goat help` lists the commands)".into()));
        }
        options.push(("--config", words.remove(at)));
    }
    let help = words.iter().take_while(|word| *word != "--").any(|word| word == "--help" || word == "-h");
    words.retain(|word| !help || (word != "--help" && word != "-h"));
    let command = take_command(COMMANDS, &mut words, help)?;
    if help && command.name != "help" {
        let arguments = vec![command.name.to_string()];
        let command = find(COMMANDS, "help").unwrap_or(command);
        return Ok(Call { commands: COMMANDS, command, arguments, options: vec![] });
    }
    let mut call = Call { commands: COMMANDS, command, arguments: Vec::new(), options };
    let mut words = words.into_iter();
    let mut only_arguments = false;
    while let Some(word) = words.next() {
        if only_arguments || !word.starts_with("--") {
            call.arguments.push(word);
        } else if word == "--" {
            only_arguments = true;
        } else {
            let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
            let Some((name, kind, _)) = command.options.iter().chain(OPTIONS).find(|(known, ..)| *known == name) else {
                return Err(call.wrong(&format!("there is no option {name}")));
            };
            let value = match (kind.is_empty(), value) {
                (true, None) => String::new(),
                (true, Some(_)) => return Err(call.wrong(&format!("{name} takes no value"))),
                (false, Some(value)) => value.to_string(),
                (false, None) => words.next().ok_or_else(|| call.wrong(&format!("{name} wants a value: {kind}")))?,
            };
            if kind.contains('|') && !kind.split('|').any(|word| word == value) {
                return Err(call.wrong(&format!("{name} is {value}, but must be one of {kind}")));
            }
            if call.on(name) {
                return Err(call.wrong(&format!("{name} is given twice")));
            }
            call.options.push((name, value));
        }
    }
    let wanted = command.arguments.iter().filter(|argument| !argument.starts_with('['));
    if let Some(missing) = wanted.clone().nth(call.arguments.len()) {
        return Err(call.wrong(&format!("{missing} is missing")));
    }
    let many = command.arguments.iter().any(|argument| argument.contains("..."));
    match call.arguments.get(command.arguments.len()) {
        Some(word) if !many => Err(call.wrong(&format!("{word} is one word too many"))),
        _ => Ok(call),
    }
}
