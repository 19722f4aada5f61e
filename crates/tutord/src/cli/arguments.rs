//! Adapts clap: messages name variables, and empty values count as unset.

use std::ffi::OsString;

use clap::{ArgAction, Command};

/// Adds the variable's name to messages about a flag, and treats an empty variable as unset.
pub(super) fn prepare(command: Command) -> Command {
    let command = command.mut_args(|argument| {
        let Some(variable) = argument.get_env().map(OsString::from) else { return argument };
        let argument = match std::env::var_os(&variable) {
            Some(value) if value.is_empty() => argument.env(None::<&str>),
            _ => argument,
        };
        // clap shows the flag and the name of its value in messages and help, as in `--max-body-bytes
        // <MAX_BODY_BYTES>`.
        argument.value_name(variable.to_string_lossy().into_owned())
    });
    let names: Vec<String> = command.get_subcommands().map(|child| child.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, prepare))
}

/// Removes options with an empty value, which count as unset.
pub(super) fn remove_empty_values(command: &Command, arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut remaining: Vec<OsString> = Vec::new();
    for argument in arguments {
        let Some(text) = argument.to_str() else {
            remaining.push(argument);
            continue;
        };
        let flag_before =
            remaining.last().and_then(|last| last.to_str()).is_some_and(|last| takes_value(command, last));
        if text.is_empty() && flag_before {
            remaining.pop();
        } else if text.strip_suffix('=').is_none_or(|flag| !takes_value(command, flag)) {
            remaining.push(argument);
        }
    }
    remaining
}

/// Returns whether the command or a subcommand has this flag with a value.
fn takes_value(command: &Command, flag: &str) -> bool {
    let Some(name) = flag.strip_prefix("--") else { return false };
    let takes = |action: &ArgAction| matches!(action, ArgAction::Set | ArgAction::Append);
    command.get_arguments().any(|argument| argument.get_long() == Some(name) && takes(argument.get_action()))
        || command.get_subcommands().any(|child| takes_value(child, flag))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    const COMMANDS: [&[&str]; 9] = [
        &["serve"],
        &["demo"],
        &["migrate"],
        &["catalogue", "load"],
        &["cache", "stats"],
        &["cache", "flush"],
        &["rebuild-stats"],
        &["seed"],
        &["doctor"],
    ];

    /// Options that accept any text.
    const TEXTS: [&str; 7] =
        ["database-url", "redis-url", "data-dir", "llm-api-key", "llm-model", "smtp-url", "log-filter"];

    fn error_of(path: &[&str], flag: &str, value: &str) -> Option<String> {
        let text = format!("--{flag}={value}");
        let arguments = ["tutord"].iter().chain(path).map(OsString::from).chain([OsString::from(text)]);
        let command = prepare(Cli::command());
        let arguments = remove_empty_values(&command, arguments);
        let error = command.try_get_matches_from(arguments).err()?;
        // Other missing options of the command are irrelevant here.
        let about_it = error.kind() != clap::error::ErrorKind::MissingRequiredArgument;
        about_it.then(|| error.to_string())
    }

    /// An option's command, flag, variable and default.
    type CommandOption = (&'static [&'static str], String, Option<String>, Option<String>);

    /// Returns every option that takes a value, of every command.
    fn options() -> Vec<CommandOption> {
        let mut options = Vec::new();
        for path in COMMANDS {
            let root = prepare(Cli::command());
            let command = path.iter().fold(&root, |command, name| command.find_subcommand(name).unwrap());
            for argument in command.get_arguments() {
                let Some(flag) = argument.get_long() else { continue };
                if matches!(argument.get_action(), ArgAction::Set | ArgAction::Append) {
                    let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
                    let default = argument.get_default_values().first();
                    let default = default.map(|value| value.to_string_lossy().into_owned());
                    options.push((path, flag.to_owned(), variable, default));
                }
            }
        }
        options
    }

    #[test]
    fn errors_name_the_flag_and_the_variable() {
        let mut checked = 0;
        for (path, flag, variable, _) in options() {
            if TEXTS.contains(&flag.as_str()) {
                continue;
            }
            let message = error_of(path, &flag, "§ garbage");
            let message = message.unwrap_or_else(|| panic!("{path:?} --{flag} takes any text"));
            assert!(message.contains(&format!("--{flag}")), "{message}");
            if let Some(variable) = variable {
                assert!(message.contains(&variable), "{path:?}: {message}");
            }
            checked += 1;
        }
        assert!(checked > 100, "{checked}");
    }

    #[test]
    fn numbers_have_bounds_that_errors_name() {
        let mut numbers = 0;
        for (path, flag, _, default) in options() {
            let is_number = default.is_some_and(|default| default.parse::<f64>().is_ok());
            // Every seed is valid.
            if !is_number || flag == "seed" {
                continue;
            }
            let message = error_of(path, &flag, "99999999999999999").unwrap_or_else(|| panic!("{path:?} --{flag}"));
            assert!(message.contains("..") || message.contains("between"), "--{flag}: {message}");
            assert!(error_of(path, &flag, "-1").is_some(), "{path:?} --{flag}=-1");
            numbers += 1;
        }
        assert!(numbers > 40, "{numbers}");
        for (flag, absurd) in [
            ("max-body-bytes", "0"),
            ("database-pool-size", "0"),
            ("database-pool-size", "1000000"),
            ("request-timeout-seconds", "0"),
            ("database-acquire-timeout-ms", "0"),
            ("database-statement-timeout-ms", "0"),
            ("shutdown-timeout-seconds", "99999999999"),
            ("session-cache-ttl", "0"),
            ("llm-timeout-seconds", "0"),
            ("public-url", "mailto:a@b.example"),
            ("llm-base-url", "ftp://model.example"),
        ] {
            let message = error_of(&["serve"], flag, absurd).unwrap_or_else(|| panic!("--{flag}={absurd}"));
            assert!(message.contains(flag), "{message}");
        }
    }

    #[test]
    fn empty_values_count_as_unset() {
        for (path, flag, _, _) in options() {
            assert_eq!(error_of(path, &flag, ""), None, "{path:?} --{flag}=");
        }
        let command = prepare(Cli::command());
        let arguments = ["tutord", "serve", "--listen", "", "--public-url=", "--naive", ""].map(OsString::from);
        assert_eq!(remove_empty_values(&command, arguments), ["tutord", "serve", "--naive", ""]);
    }
}
