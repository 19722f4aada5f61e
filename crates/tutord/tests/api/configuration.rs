//! `.env.example`: every variable of `tutord serve` with its default.

use std::fmt::Write as _;

use clap::CommandFactory as _;
use tutord::cli::Cli;

use crate::support::checks::assert_generated;

const HEAD: &str = "\
# The variables of `tutord serve` with their defaults. Copy this file to `.env` and uncomment the lines that you change.
# `tutord serve --help` shows the flag and the full description of each variable.
";

#[test]
fn the_env_example_has_every_variable_with_its_default() {
    let cli = Cli::command();
    let serve = cli.find_subcommand("serve").unwrap();
    let mut example = HEAD.to_owned();
    let mut group = None;
    for argument in serve.get_arguments().chain(cli.get_arguments()) {
        let (Some(variable), Some(help)) = (argument.get_env(), argument.get_help()) else { continue };
        if argument.get_help_heading() != group {
            group = argument.get_help_heading();
            write!(example, "\n## {}\n", group.unwrap()).unwrap();
        }
        let help = help.to_string();
        let sentence = help.split(". ").next().unwrap();
        let default = argument.get_default_values().first().map_or("".into(), |value| value.to_string_lossy());
        let quote = if default.contains(' ') { "\"" } else { "" };
        write!(example, "\n# {sentence}.\n#{}={quote}{default}{quote}\n", variable.display()).unwrap();
    }
    assert_generated(".env.example", &example);
}
