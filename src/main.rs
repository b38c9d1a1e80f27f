use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [verb, folder] = arguments.as_slice() else {
        return ExitCode::from(hafog::exit::USAGE);
    };
    if verb != "supervise" {
        return ExitCode::from(hafog::exit::USAGE);
    }
    match hafog::shell::supervisor::run(folder.into()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "{fault}");
            ExitCode::from(hafog::exit::code(fault.kind()))
        }
    }
}
