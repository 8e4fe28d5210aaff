//! The binary `ropewalk`. All of it is in the library beside this file.

use std::process::ExitCode;

fn main() -> ExitCode {
    ropewalk_cli::main()
}
