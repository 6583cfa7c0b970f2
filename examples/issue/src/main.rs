//! The program: see `issue --help`.

mod args;
#[cfg(feature = "pcsc")]
mod reader;
mod run;

use std::process::ExitCode;

/// What goes wrong ends up in front of a person.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let order = match args::parse(lexopt::Parser::from_env()) {
        Ok(order) => order,
        Err(error) => {
            eprintln!("error: {error}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    let done = match order {
        args::Order::Help => {
            print!("{}", args::HELP);
            Ok(true)
        }
        args::Order::Invent { layout, output } => run::invent(&layout, &output).map(|()| true),
        args::Order::Seal { input, output } => run::seal(&input, &output).map(|()| true),
        args::Order::List { input } => run::list(&input).map(|()| true),
        args::Order::Batch(batch) => run::batch(&batch),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        // All has been said.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
