//! The command line: parses, resolves what was left out, calls one verb, turns its end into an exit code.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return cli::usage(&e),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("husk: runtime: tokio: {e}");
            return ExitCode::from(125);
        }
    };
    let ended = runtime.block_on(cli::dispatch(cli));
    // A thread may still sit in a read of our stdin; nobody waits for it.
    runtime.shutdown_background();
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("husk: {}", cli::one_line(&e));
            ExitCode::from(e.exit_code())
        }
    }
}
