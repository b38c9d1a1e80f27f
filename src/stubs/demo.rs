// STUB(lead): demo is another helper's.

use std::process::ExitCode;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Leave everything in place at the end
    #[arg(long)]
    pub keep: bool,
}

pub fn run(args: &Args) -> ExitCode {
    let _ = args.keep;
    ExitCode::from(crate::exit::ERROR)
}

pub mod app {
    use std::process::ExitCode;

    #[derive(clap::Args, Debug)]
    pub struct Args {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        pub rest: Vec<String>,
    }

    pub fn run(args: &Args) -> ExitCode {
        let _ = &args.rest;
        ExitCode::from(crate::exit::ERROR)
    }
}
